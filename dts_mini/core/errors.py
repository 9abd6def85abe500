"""Errors that a caller can mend: each message names the tensor or file, and what to do."""


def printable(text: object) -> str:
    r"""The text with what no terminal should be sent escaped: control characters, line ends, marks that turn its direction.

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


class BudgetError(DTSError):
    """A budget that not even the smallest file meets."""
