"""Errors that a caller can mend: each message names the tensor or file, and what to do."""

from importlib.util import find_spec


def printable(text: object) -> str:
    r"""The text with what no terminal should be sent escaped: control characters, line ends, marks that turn its
    direction.

    Names stand in files, and a file may be anybody's.

    >>> printable("a\x1b[31mb")
    'a\\x1b[31mb'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


class DTSError(ValueError):
    """Something about the input is wrong; nothing was changed. Its message is one printable line."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class StateError(DTSError):
    """State dicts that do not fit each other, or hold what cannot be compressed."""


class FileError(DTSError):
    """A file that is missing, damaged, of another format or in the way."""


class ExtraError(DTSError, ImportError):
    """Libraries of an extra of this package are not installed."""


def needs(extra: str, what: str, *modules: str) -> None:
    """ExtraError, naming the extra that brings them, unless all modules that ``what`` needs are installed.

    >>> needs("suites", "the mini suite", "json", "math")
    """
    if missing := [name for name in modules if find_spec(name) is None]:
        raise ExtraError(f"{what} needs {', '.join(missing)}: pip install 'dts_mini[{extra}]'")


class BudgetError(DTSError):
    """A budget that not even the smallest file meets."""
