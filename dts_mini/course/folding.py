"""Which code cells are plumbing, told by what they are made of: the learner's version and the book fold them.

A code cell is folded when it only sets up (imports and loading), or when it could be left out: it ends in a figure or
in claims, and what it makes is used in no other cell but such ones. A cell that defines a function, prints or is an
exercise is never folded.
"""

import ast
from collections.abc import Iterator, Sequence

from nbformat import NotebookNode

SUMMARIES = {"set-up": "The set-up", "figure": "The code of this figure", "check": "The code of these checks"}
ANSWER = "The code and what comes out: open it after your own try"
LOADING = ("load_suite", "suite.", "figures.", "Path", "tuple", "list", "dict", "map", "zip", "len", "sorted", "range")
SHOWING = ("show", "display", "widget", "sliders.widget")
VISIBLE = ast.FunctionDef | ast.ClassDef


def folded(cells: Sequence[NotebookNode]) -> dict[str, str]:
    """Of the folded cells of a notebook, by their ids, what each is: "set-up", "figure", "check" or "answer"."""
    found: dict[str, str] = {}
    later: list[tuple[str, set[str], set[str]]] = []  # (id, what it reads, what it binds), the nearest first
    for cell in reversed([cell for cell in cells if cell.cell_type == "code"]):
        body, tags = ast.parse(cell.source).body, cell.metadata.get("tags", [])
        bound, read = set(), set()
        names(body, bound, read)
        kind = "answer" if "answer" in tags else "" if "exercise" in tags else kind_of(body)
        if kind in ("figure", "check") and any(user not in found for user in users(bound, later)):
            kind = ""
        if kind:
            found[cell.id] = kind
        later.insert(0, (cell.id, read, bound))
    return found


def kind_of(body: Sequence[ast.stmt]) -> str:
    """What a cell looks like by itself, "" where it is no plumbing."""
    calls = [ast.unparse(node.func) for each in body for node in ast.walk(each) if isinstance(node, ast.Call)]
    if not body or "print" in calls or any(isinstance(node, VISIBLE) for node in body):
        return ""
    if "claim" in calls_of(body[-1]):
        return "check"
    if isinstance(body[-1], ast.Expr) and set(calls_of(body[-1])[:1]) & set(SHOWING):
        return "figure"
    plain = lambda call: call.startswith(LOADING) or call in LOADING
    loads = all(
        isinstance(node, ast.Import | ast.ImportFrom)
        or (isinstance(node, ast.Assign) and all(map(plain, calls_of(node))))
        for node in body
    )
    return "set-up" if loads and any(isinstance(node, ast.Import | ast.ImportFrom) for node in body) else ""


def calls_of(node: ast.stmt) -> list[str]:
    return [ast.unparse(each.func) for each in ast.walk(node) if isinstance(each, ast.Call)]


def users(made: set[str], later: Sequence[tuple[str, set[str], set[str]]]) -> Iterator[str]:
    """The ids of the cells that read what was made before anything else is bound to the name."""
    for name in made:
        for ident, read, bound in later:
            if name in read:
                yield ident
            if name in bound:
                break


def names(body: Sequence[ast.stmt], bound: set[str], read: set[str]) -> None:
    """Adds to ``bound`` the global names that statements bind, to ``read`` those that they read before."""
    for node in body:
        inner = [getattr(node, part, []) for part in ("body", "orelse", "finalbody")]
        if isinstance(node, VISIBLE):
            read |= loads(node) - bound
            bound.add(node.name)
        elif any(inner):  # for, with, if, while, try: what stands at its head, then what stands in it
            heads = [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr | ast.withitem)]
            read |= {name for head in heads for name in loads(head)} - bound
            bound |= {name for head in heads for name in stores(head)}
            handlers = [handler.body for handler in getattr(node, "handlers", [])]
            for part in (*inner, *handlers):
                names(part, bound, read)
        else:
            read |= loads(node) - bound
            bound |= stores(node)


def loads(node: ast.AST) -> set[str]:
    """The names that a statement or expression reads, those of its own comprehensions and functions left out."""
    if isinstance(node, ast.AugAssign):
        return loads(node.value) | ({node.target.id} if isinstance(node.target, ast.Name) else loads(node.target))
    own = {each.arg for each in ast.walk(node) if isinstance(each, ast.arg)}
    for each in ast.walk(node):
        if isinstance(each, ast.comprehension):
            own |= stores(each.target)
    if isinstance(node, VISIBLE):
        own |= {each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)}
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Load)} - own


def stores(node: ast.AST) -> set[str]:
    """The names that a statement or a target binds, those within comprehensions and functions left out."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {(each.asname or each.name).split(".")[0] for each in node.names}
    found, waiting = set(), [node]
    while waiting:
        here = waiting.pop()
        if isinstance(here, ast.Name) and isinstance(here.ctx, ast.Store):
            found.add(here.id)
        if not isinstance(here, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp | ast.Lambda):
            waiting += ast.iter_child_nodes(here)
    return found
