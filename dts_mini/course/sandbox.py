"""The process in which a submission's functions run: ``python -I -B sandbox.py '[sys.path]'``, started by grade.py.

It speaks JSON lines over its standard input and output: first what to load, then one call a line. It knows no
reference and no verdict: it only returns values, which the grading process judges, so there is no verdict to forge.

What holds it: resource limits and, where Linux has it, Landlock (no writing outside the temporary folder), beside the
namespaces that grade.py starts it in; and an audit hook. The hook is a fence, not a wall: native code passes it.
"""

import json
import sys

if __name__ == "__main__":
    sys.path[:] = json.loads(sys.argv[1])

import ast
import base64
import ctypes
import os
import resource
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

COURSE = Path(__file__).resolve().parent
IMPORTS = {
    *("collections", "copy", "dataclasses", "functools", "itertools", "math", "operator", "random", "statistics"),
    *("typing", "numpy", "torch", "dts_mini"),
}
NOT_IMPORTED = tuple(f"dts_mini.{name}" for name in ("course", "suites", "measures", "cli", "results", "tutorial"))
DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
    + (torch.float16, torch.bfloat16, torch.float32, torch.float64)
}
REFUSED = (
    *("socket.", "subprocess.", "ctypes.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "pty."),
    *("os.kill", "signal.pthread_kill", "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink"),
    *("os.truncate", "os.chmod", "os.chown", "os.chflags", "os.utime", "os.setxattr", "os.removexattr", "shutil."),
    *("sqlite3.", "gc.", "resource.", "sys.addaudithook", "sys.remote_exec", "cpython.remote_debugger_script"),
)


# --- plain values as JSON ---


def encode(value: Any) -> Any:
    """A plain value as JSON; of anything else only its type's name."""
    if value is None or isinstance(value, bool | str):
        return value if value is None or isinstance(value, bool) else str(value)
    if isinstance(value, int | float):
        return int(value) if isinstance(value, int) else float(value)
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, torch.Tensor) and (name := str(value.dtype).removeprefix("torch.")) in DTYPES:
        data = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return {"tensor": name, "shape": list(value.shape), "data": base64.b64encode(data).decode()}
    if isinstance(value, tuple | list):
        return {"tuple" if isinstance(value, tuple) else "list": [encode(entry) for entry in value]}
    if isinstance(value, dict):
        return {"dict": [[encode(key), encode(entry)] for key, entry in value.items()]}
    return {"other": type(value).__name__[:50]}


def decode(value: Any) -> Any:
    """The value again, as plain types alone; ValueError, KeyError or TypeError when it is no encoded value."""
    if not isinstance(value, dict):
        if isinstance(value, list):
            raise ValueError("a bare list")
        return value
    match value:
        case {"bytes": str(data)}:
            return base64.b64decode(data, validate=True)
        case {"tensor": name, "shape": list(shape), "data": str(data)}:
            raw, dtype = bytearray(base64.b64decode(data, validate=True)), DTYPES[name]
            if not all(type(size) is int and size >= 0 for size in shape):
                raise ValueError("a shape that is none")
            return (torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)).reshape(shape)
        case {"tuple": list(entries)}:
            return tuple(decode(entry) for entry in entries)
        case {"list": list(entries)}:
            return [decode(entry) for entry in entries]
        case {"dict": list(pairs)}:
            return {decode(key): decode(entry) for key, entry in pairs}
        case {"other": str(name)}:
            return type(name.replace("\0", "") or "object", (), {})()
    raise ValueError("not an encoded value")


# --- what is taken from a notebook ---


def parse(code: str) -> list[ast.stmt]:
    """The statements of a cell; lines of IPython's (%magic, !command) count as nothing. SyntaxError where it is none."""
    try:
        return ast.parse(code).body
    except (SyntaxError, ValueError):
        kept = ["" if line.lstrip().startswith(("%", "!", "?")) else line for line in code.splitlines()]
        try:
            return ast.parse("\n".join(kept)).body
        except ValueError as error:  # a null byte
            raise SyntaxError(str(error)) from error
    except (RecursionError, MemoryError) as error:
        raise SyntaxError("nested too deep") from error


def allowed(node: ast.stmt) -> ast.stmt | None:
    """An import statement with the names that may be imported, or None when none may, or it is no import."""
    fits = lambda name: name.split(".")[0] in IMPORTS and not name.startswith(NOT_IMPORTED)
    if isinstance(node, ast.Import):
        names = [alias for alias in node.names if fits(alias.name)]
    elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module != "__future__":
        names = [alias for alias in node.names if fits(node.module) and fits(f"{node.module}.{alias.name}")]
    else:
        return None
    node.names = names
    return node if names else None


def load(cells: Iterable[str], names: Iterable[str]) -> tuple[dict[str, Callable], dict[str, str], list[str]]:
    """(functions, errors, notes): the allowed imports and the functions called ``names`` of code cells, and no more.

    Of several functions of one name the last counts, as it does when a notebook is run.
    """
    names, space, functions, errors, notes = set(names), {"__name__": "submission"}, {}, {}, []
    for number, code in enumerate(cells, 1):
        try:
            statements = parse(code)
        except SyntaxError as error:
            lost = {name for name in names if f"def {name}(" in code}
            errors |= dict.fromkeys(lost, f"code cell {number} is no Python: {error.msg} (line {error.lineno})")
            notes.append(f"code cell {number} is no Python: {error.msg}")
            continue
        for node in statements:
            wanted = isinstance(node, ast.FunctionDef) and node.name in names
            node = node if wanted else allowed(node)
            if node is None:
                continue
            try:
                exec(compile(ast.Module([node], []), f"<code cell {number}>", "exec"), space)
            except BaseException as error:
                if wanted:
                    errors[node.name] = f"the definition raises {said(error)}"
                    functions.pop(node.name, None)
                else:
                    notes.append(f"code cell {number}: an import raises {said(error)}")
                continue
            if wanted:
                if node.name in functions:
                    notes.append(f"{node.name} is defined more than once: the last one counts")
                functions[node.name] = space[node.name]
                errors.pop(node.name, None)
    return functions, errors, notes


def said(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:300].rstrip(": ")
    except BaseException:
        return type(error).__name__[:50]


# --- confinement ---


def confine(folder: str, memory: int, cpu: int) -> list[str]:
    """Limits this process for good; returns what holds. ``memory`` bytes and ``cpu`` seconds are beyond those used."""
    held = []
    try:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limit(resource.RLIMIT_AS, used + memory)
        held.append("memory")
    except (OSError, ValueError):  # macOS enforces no such limit
        pass
    now = resource.getrusage(resource.RUSAGE_SELF)
    limit(resource.RLIMIT_CPU, int(now.ru_utime + now.ru_stime) + cpu)
    limit(resource.RLIMIT_FSIZE, 2**24)
    limit(resource.RLIMIT_CORE, 0)
    held.append("cpu")
    if landlock(folder):
        held.append("files")
    sys.addaudithook(fence(folder))
    return held


def limit(which: int, value: int) -> None:
    hard = resource.getrlimit(which)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (value, value))


def landlock(folder: str) -> bool:
    """Whether Linux's Landlock now refuses this process all writing outside ``folder``."""
    if sys.platform != "linux":
        return False
    call = ctypes.CDLL(None, use_errno=True)
    version = call.syscall(444, None, ctypes.c_size_t(0), 1)  # landlock_create_ruleset asked for its version
    if version < 1:
        return False
    writing = 0b1_1111_1111_0010 | (1 << 13 if version >= 2 else 0) | (1 << 14 if version >= 3 else 0)
    rules = call.syscall(444, struct.pack("Q", writing), ctypes.c_size_t(8), 0)
    inside = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    added = call.syscall(445, rules, 1, struct.pack("=Qi", writing, inside), 0)  # landlock_add_rule: beneath a path
    no_new_privileges = call.prctl(38, 1, 0, 0, 0)
    done = rules >= 0 and not added and not no_new_privileges and not call.syscall(446, rules, 0)
    os.close(inside)
    return done


def fence(folder: str) -> Callable[[str, tuple], None]:
    """An audit hook: no processes, no sockets, reading of the libraries and the core alone, writing in ``folder``."""
    home, package = os.path.realpath(folder), str(COURSE.parent)
    libraries = (sys.prefix, sys.base_prefix, *(p for p in sys.path if p.endswith(("site-packages", "dist-packages"))))
    libraries = tuple(map(os.path.realpath, libraries))
    core = tuple(os.path.join(package, part) for part in ("core", "__init__.py", "__pycache__"))
    writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    refused, real, fsdecode = REFUSED, os.path.realpath, os.fsdecode

    def within(path: str, *roots: str) -> bool:
        return any(path == root or path.startswith(root.rstrip("/") + "/") for root in roots)

    def hook(event: str, arguments: tuple) -> None:
        if event.startswith(refused):
            raise PermissionError(f"{event} is refused while grading")
        if event == "open" and not isinstance(arguments[0], int):
            path = real(fsdecode(arguments[0]))
            # The references stand in the package: of it only the core may be read.
            readable = within(path, *core) if within(path, package) else within(path, *libraries)
            if not within(path, home) and (arguments[2] & writes or not readable):
                raise PermissionError("opening files is refused while grading")

    return hook


def main() -> None:
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):  # what a submission prints goes nowhere
        os.dup2(null, standard)

    def send(message: dict) -> None:
        sink.write(json.dumps(message).encode() + b"\n")
        sink.flush()

    torch.set_num_threads(1)
    order = json.loads(source.readline())
    send({"held": confine(os.getcwd(), order["memory"], order["cpu"])})
    functions, errors, notes = load(order["cells"], order["names"])
    send({"found": sorted(functions), "errors": errors, "notes": notes})
    for line in source:
        call = json.loads(line)
        arguments = decode(call["arguments"])
        try:
            value = functions[call["name"]](*arguments)
            reply = {"value": encode(value)}
        except BaseException as error:
            reply = {"raised": [type(error).__name__[:50], said(error).partition(": ")[2]]}
        after = encode(arguments)
        send(reply | ({} if after == call["arguments"] else {"after": after}))


if __name__ == "__main__":
    main()
