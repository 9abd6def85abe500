"""What an exception of a learner's function tells: whether it is the stub's own, and which line of theirs raised it."""

import dis
import linecache
from collections.abc import Mapping
from typing import Any


def is_stub(error: BaseException, name: str) -> bool:
    """Whether the function ``name`` itself said ``raise NotImplementedError``; torch raises that error too.

    >>> def half(x):
    ...     raise NotImplementedError
    >>> try:
    ...     half(3)
    ... except NotImplementedError as error:
    ...     is_stub(error, "half")
    True
    """
    trace = error.__traceback__
    if type(error) is not NotImplementedError or trace is None:
        return False
    while trace.tb_next:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    # A function of C leaves no frame: then the last one is the learner's too, but not at a raise statement.
    return code.co_name == name and dis.opname[code.co_code[trace.tb_lasti]] == "RAISE_VARARGS"


def own_line(error: BaseException, space: Mapping[str, Any] | None) -> str:
    """The last line on the way to an exception that was written where ``space`` is the globals; '' if there is none."""
    line, trace = "", error.__traceback__
    while trace and space is not None:
        if trace.tb_frame.f_globals is space:
            line = linecache.getline(trace.tb_frame.f_code.co_filename, trace.tb_lineno).strip() or line
        trace = trace.tb_next
    return line[:100]
