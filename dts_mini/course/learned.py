"""What learners wrote: of the cells of their notebooks the exercises' functions, each with what it needs and no more.

A notebook takes minutes to run, and loads models that a box does not hold. So a function's cell is not run after all
others: of the statements before its check only those are run that bind a name which it uses, theirs in turn, in order.
This module runs in a box (``worker.py``); nothing here is trusted afterwards.
"""

import __future__

import ast
import dis
import hashlib
import json
import linecache
import re
from collections.abc import Iterable
from dataclasses import dataclass
from types import CodeType
from typing import Any

from IPython.core.inputtransformer2 import TransformerManager

RUNS_ITS_CELL = re.compile(r"\s*%%(time|capture|prun)\b.*\n")  # what the cell defines is there afterwards
FUTURE = sum(getattr(__future__, name).compiler_flag for name in __future__.all_feature_names)


@dataclass(frozen=True)
class Statement:
    """A statement of a notebook at its top level; ``binds`` and ``uses`` are global names, in functions too."""

    code: CodeType
    node: ast.stmt
    cell: int
    binds: frozenset[str]
    uses: frozenset[str]
    imports: dict[str, str]  # dotted name: what it is called here; '' within a function
    star: bool

    def checks(self, name: str) -> bool:
        """Whether it is ``name = check(name)`` or ``check(name)``."""
        call = self.node.value if isinstance(self.node, ast.Assign | ast.Expr) else None
        return isinstance(call, ast.Call) and ast.unparse(call) == f"check({name})"

    def makes(self, name: str) -> bool:
        """Whether it makes a function of this name; a variable may be called as an exercise is.

        What is imported from dts_mini is the library's own, and nobody's answer unless it is checked as one.
        """
        brought = [of for of, bound in self.imports.items() if bound == name and not f"{of}.".startswith("dts_mini.")]
        return bool(brought) or function_node([self], name) is not None

    def changes(self, name: str) -> bool:
        """Whether it writes into what a name holds: ``table[0] = 1``, ``table.append(1)``."""
        node = self.node
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            targets = [node.value.func]
        inner = [each.value for each in targets if isinstance(each, ast.Subscript | ast.Attribute)]
        return any(isinstance(each, ast.Name) and each.id == name for each in inner)


class Notebook:
    """The statements of one notebook. ValueError in words when it is none."""

    def __init__(self, name: str, data: bytes):
        self.name = name
        self.statements: list[Statement] = []
        self.broken: dict[int, tuple[str, str]] = {}  # cells that are no Python: their text, and what is wrong
        future, transform = 0, TransformerManager().transform_cell
        for number, source in enumerate(code_cells(data), 1):
            file = f"<{name}, code cell {number}>"
            try:
                text = transform(RUNS_ITS_CELL.sub("", source, count=1) if RUNS_ITS_CELL.match(source) else source)
                tree = ast.parse(text, file)
                future |= compile(tree, file, "exec", future, dont_inherit=True).co_flags & FUTURE
                found = [statement(node, number, file, future) for node in tree.body]
            except SyntaxError as error:
                self.broken[number] = source, f"code cell {number} is no Python: {error.msg} (line {error.lineno})"
            except (ValueError, RecursionError, MemoryError) as error:
                self.broken[number] = (
                    source,
                    f"code cell {number} is no Python: {str(error)[:100] or 'nested too deep'}",
                )
            else:
                self.statements += found
                linecache.cache[file] = len(text), None, text.splitlines(True), file

    def last(self, name: str) -> int | None:
        """The place of the statement that makes a function last, as running the notebook would leave it."""
        checked = any(each.checks(name) for each in self.statements)  # then it is a function, whatever makes it
        made = lambda each: name in each.binds and not each.checks(name) and (checked or each.makes(name))
        places = [place for place, each in enumerate(self.statements) if made(each)]
        return places[-1] if places else None

    def needed(self, name: str) -> list[Statement]:
        """The statements that a function needs, in order. Those before its check count; others where none does."""
        last = self.last(name)
        checked = (place for place, each in enumerate(self.statements) if place > last and each.checks(name))
        end = next(checked, len(self.statements))
        chosen = {place for place, each in enumerate(self.statements[:end]) if each.star}
        wanted, seen = [name], {name}
        while wanted:
            here = wanted.pop()
            binding = [place for place, each in enumerate(self.statements) if here in each.binds]
            found = {place for place in binding if place < (last + 1 if here == name else end)} or set(binding)
            if not all(isinstance(self.statements[place].node, ast.Import | ast.ImportFrom) for place in found):
                found |= {place for place, each in enumerate(self.statements[:end]) if each.changes(here)}
            chosen |= found
            new = {use for place in found for use in self.statements[place].uses} - seen
            wanted += sorted(new)
            seen |= new
        return [self.statements[place] for place in sorted(chosen)]

    def run(self, name: str, space: dict[str, Any]) -> tuple[Any, dict[str, str]]:
        """(the function, what went wrong by the name it was for); the function is None where it was not made."""
        errors: dict[str, str] = {}
        for each in self.needed(name):
            try:
                exec(each.code, space)
                errors = {key: text for key, text in errors.items() if key not in each.binds}
            except BaseException as error:
                errors |= dict.fromkeys(each.binds, f"code cell {each.cell} raises {said(error)}")
                if name in each.binds:
                    space.pop(name, None)
        return space.get(name), errors


def code_cells(data: bytes) -> list[str]:
    """The sources of a notebook's code cells; ValueError in words when the bytes are no notebook."""
    try:
        notebook = json.loads(data)
    except UnicodeDecodeError as error:
        raise ValueError("is not in UTF-8, as a notebook is: open it in Jupyter and save it again") from error
    except (ValueError, RecursionError) as error:
        raise ValueError("is no notebook: it holds no JSON") from error
    if isinstance(notebook, dict) and isinstance(notebook.get("worksheets"), list):
        raise ValueError("is a notebook of before 2015 (nbformat 3): open it in Jupyter and save it again")
    try:
        sources = [cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
        return [source if isinstance(source, str) else "".join(source) for source in sources]
    except (KeyError, TypeError) as error:
        raise ValueError("is no notebook: it holds no list of cells") from error


def statement(node: ast.stmt, cell: int, file: str, future: int) -> Statement:
    code = compile(ast.Module([node], []), file, "exec", future, dont_inherit=True)
    uses, binds, imports = set(), set(), {}
    codes = [code]
    while codes:
        here = codes.pop()
        for each in dis.get_instructions(here):
            if each.opname in ("LOAD_NAME", "LOAD_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS"):
                uses.add(each.argval)
            elif each.opname == "STORE_GLOBAL" or (each.opname == "STORE_NAME" and here is code):
                binds.add(each.argval)
        codes += [each for each in here.co_consts if isinstance(each, CodeType)]
    for each in ast.walk(node):
        if isinstance(each, ast.Import | ast.ImportFrom):
            module = f"{each.module}." if isinstance(each, ast.ImportFrom) and each.module else ""
            for alias in each.names:
                imports[module + alias.name] = (alias.asname or alias.name.split(".")[0]) if each is node else ""
    star = any(name.endswith(".*") for name in imports)
    return Statement(code, node, cell, frozenset(binds), frozenset(uses), imports, star)


def shape(node: ast.AST) -> tuple[str, int]:
    """(a digest of a function's body, how many nodes it has): the same however its own names are called."""
    own = {each.arg for each in ast.walk(node) if isinstance(each, ast.arg)}
    own |= {each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)}
    names: dict[str, str] = {}
    parts = []

    def visit(value: Any) -> None:
        if isinstance(value, list):
            parts.append("[")
            for entry in value:
                visit(entry)
            parts.append("]")
        elif isinstance(value, ast.AST):
            parts.append(type(value).__name__)
            for field, inner in ast.iter_fields(value):
                if field in ("annotation", "returns", "decorator_list", "type_comment", "ctx", "type_params", "kind"):
                    continue
                if field in ("id", "arg") and inner in own:
                    inner = names.setdefault(inner, f"_{len(names)}")
                visit(inner)
        else:
            parts.append(repr(value))

    body = node.body[1:] if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is not None else node.body
    visit([node.args, body])
    return hashlib.sha256(" ".join(parts).encode()).hexdigest(), sum(1 for _ in ast.walk(node))


SELDOM = {"exec", "eval", "compile", "open", "globals", "__import__", "__builtins__"}
SELDOM |= {"builtins", "ctypes", "gc", "importlib", "inspect", "marshal", "os", "pickle", "socket", "subprocess", "sys"}


def function_node(statements: Iterable[Statement], name: str) -> ast.FunctionDef | ast.Lambda | None:
    """The definition of a function where it is a plain one."""
    for each in reversed(list(statements)):
        for node in ast.walk(each.node):
            if isinstance(node, ast.FunctionDef) and node.name == name:
                return node
        if name in each.binds and isinstance(each.node, ast.Assign) and isinstance(each.node.value, ast.Lambda):
            return each.node.value
    return None


def is_empty(node: ast.AST | None) -> bool:
    """Whether a function says raise NotImplementedError and nothing else."""
    body = node.body[ast.get_docstring(node) is not None :] if isinstance(node, ast.FunctionDef) else []
    return [ast.unparse(each) for each in body] in (["raise NotImplementedError"], ["raise NotImplementedError()"])


def said(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:300].rstrip(": ")
    except BaseException:
        return type(error).__name__[:50]
