"""Errors that a caller can mend: each message names the tensor or file, and what to do."""

from importlib.util import find_spec


class DTSError(ValueError):
    """Something about the input is wrong; nothing was changed."""


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
        raise ExtraError(f"{what} needs {' and '.join(missing)}: pip install 'dts_mini[{extra}]'")


class BudgetError(DTSError):
    """A budget that not even the smallest file meets."""
