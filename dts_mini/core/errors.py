"""Errors that a caller can mend: each message names the tensor or file, and what to do."""


class DTSError(ValueError):
    """Something about the input is wrong; nothing was changed."""


class StateError(DTSError):
    """State dicts that do not fit each other, or hold what cannot be compressed."""


class FileError(DTSError):
    """A file that is missing, damaged, of another format or in the way."""


class BudgetError(DTSError):
    """A budget that not even the smallest file meets."""
