"""The process in a box in which a submission's functions run, started by ``sandbox.py``.

It speaks lines of JSON over its standard input and output: what it read of the notebooks, before any of it runs, then
a value a call. It knows no reference and no verdict: the grader judges, so there is no verdict to forge.
"""

import base64
import json
import mmap
import os
import resource
import sys
from collections.abc import Mapping
from typing import Any

import torch

from dts_mini.core import codes, paper
from dts_mini.course.learned import SELDOM, Notebook, function_node, is_empty, said, shape
from dts_mini.course.raised import is_stub, own_line
from dts_mini.course.wire import Values, line

LIBRARY = {
    "pack": lambda found: codes.pack(found.byte(), 2),
    "unpack": lambda packed, count: codes.unpack(packed, count, 2).long(),
}


class Inert:
    """Stands for what a notebook uses beside the exercises (claim, show, get_ipython): takes all, does nothing."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return arguments[0] if arguments else None

    def __getattr__(self, name: str) -> "Inert":
        if name.startswith("__"):
            raise AttributeError(name)
        return self


def main() -> None:
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=0)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):  # what a submission prints goes nowhere
        os.dup2(null, standard)
    torch.set_num_threads(1)
    inert = Inert()
    sys.modules["dts_mini.course"].__getattr__ = inert.__getattr__  # for what a notebook imports from there
    sink.write(line({"ready": True}))
    order = json.loads(source.readline())
    confine(order["memory"], order["cpu"])
    answers, told = read(order["notebooks"], order["names"])
    sys.modules["dts_mini.course"].bring = lambda *names: brought(names, answers, told["found"])
    sink.write(line(told))
    spaces: dict[str, tuple[Any, dict, dict[str, str]]] = {}
    for text in source:
        call, values = json.loads(text), Values()
        name, arguments = call["name"], values.unpack(call["arguments"])
        if name not in spaces:
            space = {
                "__name__": "__main__",
                "display": inert,
                "get_ipython": lambda: inert,
                "exit": inert,
                "quit": inert,
            }
            function, errors = answers[name].run(name, space)
            spaces[name] = function, space, errors
        function, space, errors = spaces[name]
        sink.write(line(answered(function, name, arguments, values, space, errors)))


def brought(names: tuple[str, ...], answers: Mapping[str, Notebook], found: Mapping[str, dict]) -> Any:
    """What a notebook's ``bring`` gives: the submission's functions of other exercises, the library's where none is."""
    functions = []
    for name in names:
        function = None
        if name in answers and not found[name]["stub"]:
            function, _ = answers[name].run(name, {"__name__": "__main__"})
        functions.append(function or LIBRARY.get(name) or getattr(paper, name))
    return functions[0] if len(functions) == 1 else tuple(functions)


def answered(
    function: Any, name: str, arguments: tuple, values: Values, space: dict, errors: Mapping[str, str]
) -> dict:
    """What a call gives: a value, or the exception's name, text and line, or that the function is still the stub."""
    reply = {}
    try:
        if name in errors:
            raise UnboundLocalError(f"{name} is not there: {errors[name]}")
        result = function(*arguments)
        return {"value": values.pack(result)}
    except BaseException as error:
        text = said(error).partition(": ")[2]
        if isinstance(error, NameError) and (cause := errors.get(str(getattr(error, "name", "")))):
            text += f" ({cause})"
        reply = {
            "raised": [type(error).__name__[:50], text[:500], own_line(error, space)],
            "stub": is_stub(error, name),
        }
    try:
        return reply | {"value": values.pack(None)}  # the arguments may have changed before it raised
    except BaseException:
        return reply


def read(notebooks: list[list[str]], names: list[str]) -> tuple[dict[str, Notebook], dict]:
    """Where each exercise's function stands, and what is to be told of it; nothing of it is run here."""
    found: dict[str, Notebook] = {}
    about: dict[str, dict] = {}
    told = {"reasons": [], "found": about, "errors": {}, "notes": []}
    for name, data in notebooks:
        try:
            notebook = Notebook(name, base64.b64decode(data))
        except (ValueError, RecursionError, MemoryError) as error:
            told["reasons"].append(f"{name}: {error or 'nested too deep'}")
            continue
        for source, text in notebook.broken.values():
            lost = [each for each in names if f"def {each}(" in source and notebook.last(each) is None]
            told["errors"] |= dict.fromkeys(lost, text)
            told["notes"].append(f"{name}: {text}")
        for each in names:
            if notebook.last(each) is None:
                continue
            seen = described(notebook, each, names)
            if each in found:
                told["notes"].append(f"{each} stands in {found[each].name} and in {name}: the last one written counts")
            if each not in found or not seen["stub"] or about[each]["stub"]:
                found[each], about[each] = notebook, seen
    told["errors"] = {name: text for name, text in told["errors"].items() if name not in found}
    return found, told


def described(notebook: Notebook, name: str, names: list[str]) -> dict:
    """What the grader may want to know of a function: its shape, what it takes from the library, what else it calls."""
    needed = notebook.needed(name)
    try:
        node = function_node(needed, name)
        digest, size = shape(node) if node else ("", 0)
    except RecursionError:
        node, digest, size = None, "", 0
    used = frozenset().union(*(each.uses for each in needed))
    taken = {name for each in needed for name, bound in each.imports.items() if not bound or bound in used}
    library = sorted(name for name in taken if (name + ".").startswith("dts_mini.") and ".course" not in name)
    seldom = sorted(SELDOM & {*used, *(name.split(".")[0] for name in taken)})
    calls = sorted({each for one in needed for each in one.binds & set(names)} - {name})
    about = {"shape": digest, "size": size, "stub": is_empty(node)}
    return about | {"library": library[:20], "seldom": seldom, "calls": calls}


# --- limits ---


def confine(memory: int, cpu: int) -> None:
    """Limits this process for good: ``memory`` bytes and ``cpu`` seconds beyond those used, no files, 64 open."""
    used = address_space()
    if used:
        limit(resource.RLIMIT_AS, used + memory)
    limit(resource.RLIMIT_CPU, int(sum(resource.getrusage(resource.RUSAGE_SELF)[:2])) + cpu)
    limit(resource.RLIMIT_FSIZE, 0)
    limit(resource.RLIMIT_NOFILE, 64)
    limit(resource.RLIMIT_CORE, 0)
    limit(resource.RLIMIT_NPROC, 64)


def limit(which: int, value: int) -> None:
    hard = resource.getrlimit(which)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (value, value))


def address_space() -> int:
    """Bytes of address space in use: the least limit under which a page more can be had; a box has no /proc to ask.

    0 where the system enforces no such limit (macOS).
    """
    hard, page = resource.getrlimit(resource.RLIMIT_AS)[1], mmap.PAGESIZE
    low, high = 0, 2**47 if hard == resource.RLIM_INFINITY else hard
    while high - low > page:
        middle = (low + high) // 2
        try:
            resource.setrlimit(resource.RLIMIT_AS, (middle, hard))
            mmap.mmap(-1, page).close()
            high = middle
        except (OSError, ValueError, MemoryError):
            low = middle
    return high if low else 0
