"""Builds the notebooks from their one authored source: ``python -m dts_mini.course.build [--check] [NAME ...]``.

``notebooks/source/NN_name.py`` (jupytext, py:percent) is what people edit. From it are built, executed and with their
outputs stored, ``notebooks/solved/NN_name.ipynb``, as authored, and ``notebooks/NN_name.ipynb``, the learner's: there
the functions in cells tagged ``exercise`` have lost their bodies, plumbing is folded (``folding.py``), and cells tagged
``answer`` are folded and show nothing until they are run. What the solved versions' claims measured goes to
``data/mini/claims.json``. ``--check`` runs nothing and only says which built notebooks' cells are no longer those of
their source.
"""

import argparse
import ast
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import jupytext
import nbformat
import zmq
from jupyter_client import KernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode
from traitlets.config import Config

from dts_mini.core.file import write_bytes, write_json
from dts_mini.course import claims
from dts_mini.course.folding import folded
from dts_mini.suites import places

NOTEBOOKS = places.NOTEBOOKS
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
VERSIONS = {"learner": NOTEBOOKS, "solved": NOTEBOOKS / "solved"}
Progress = Callable[[int, int], None]


def sources() -> list[Path]:
    """The authored notebooks, in order."""
    return sorted((NOTEBOOKS / "source").glob("[0-9]*.py"))


def target(source: Path, version: str = "learner") -> Path:
    """The built notebook of a source: the ``learner`` or the ``solved`` version."""
    return VERSIONS[version] / f"{source.stem}.ipynb"


def read(source: Path, version: str = "solved") -> NotebookNode:
    """A source as a notebook without outputs; cell ids count the cells, so that building twice gives the same file."""
    notebook = jupytext.read(source, fmt="py:percent")
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    for number, cell in enumerate(notebook.cells):
        cell.id = f"{source.stem[:2]}-{number:03d}"
    if version == "learner":
        plumbing = folded(notebook.cells)
        for cell in notebook.cells:
            if is_exercise(cell):
                cell.source = stub(cell.source)
            if cell.id in plumbing:
                cell.metadata.jupyter = {"source_hidden": True}
            if is_answer(cell):
                cell.metadata.tags = [*dict.fromkeys([*cell.metadata.tags, "nbval-ignore-output"])]  # none are stored
    return notebook


def is_exercise(cell: NotebookNode) -> bool:
    return cell.cell_type == "code" and "exercise" in cell.metadata.get("tags", [])


def is_answer(cell: NotebookNode) -> bool:
    """Whether a cell's output gives an exercise away."""
    return cell.cell_type == "code" and "answer" in cell.metadata.get("tags", [])


def function_of(code: str) -> ast.FunctionDef:
    """The one function of an exercise cell; ValueError when it holds anything else but imports before it."""
    *before, last = ast.parse(code).body
    if not isinstance(last, ast.FunctionDef) or not all(isinstance(n, ast.Import | ast.ImportFrom) for n in before):
        raise ValueError(f"an exercise cell holds imports and one function, the function last; this one is\n{code}")
    return last


def stub(code: str) -> str:
    """An exercise cell whose function keeps decorators, signature and docstring; the rest is not implemented."""
    function = function_of(code)
    first, *rest = function.body
    documented = ast.get_docstring(function) is not None
    if (documented and not rest) or first.lineno == function.lineno:
        raise ValueError(f"{function.name}: the solution needs lines of its own under the signature")
    # Without a docstring the body begins right after the colon, which stands before any comment of the solution.
    end = first.end_lineno if documented else _signature_end(code, function)
    return "\n".join([*code.splitlines()[:end], " " * first.col_offset + "raise NotImplementedError"])


def _signature_end(code: str, function: ast.FunctionDef) -> int:
    """The last line of a signature: the shortest beginning of the function that parses once it has a body."""
    lines = code.splitlines()
    for end in range(function.lineno, function.end_lineno + 1):
        try:
            ast.parse("\n".join([*lines[function.lineno - 1 : end], "    pass"]))
            return end
        except SyntaxError:
            continue
    raise ValueError(f"{function.name}: its signature has no end")


def execute(
    notebook: NotebookNode,
    progress: Progress = lambda done, cells: None,
    folder: Path = NOTEBOOKS,
    claims_to: Path | None = None,
    timeout: int | None = 600,
) -> NotebookNode:
    """Runs a notebook in its folder and stores its outputs, and in each cell when it ran.

    nbclient's error names the cell that failed. ``claims_to``: the file to which the notebook's claims are added.
    ``timeout``: seconds for one cell.
    """
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        coalesce_streams=True,  # how a print is cut into messages depends on the moment
        resources={"metadata": {"path": str(folder)}},
        on_cell_executed=lambda cell, cell_index, execute_reply: progress(cell_index + 1, len(notebook.cells)),
        config=_encrypted(),
    )
    plain = {name: value for name, value in os.environ.items() if name != "DTS_CLAIMS"}
    client.execute(env=plain | ({"DTS_CLAIMS": str(claims_to)} if claims_to else {}))
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    return notebook


def _encrypted() -> Config:
    """Settings of a kernel that talks to us encrypted, where the libraries can: else each one logs a warning."""
    able = zmq.has("curve") and KernelManager.class_traits().get("transport_encryption")
    return Config({"KernelManager": {"transport_encryption": "auto"}} if able else {})


def build(source: Path, version: str) -> list[dict]:
    """Executes one version of a source, writes it, and returns what its claims measured, in order."""
    print(f"{source.stem}, {version} ...", flush=True)
    path = target(source, version)
    path.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        measured = Path(folder) / "claims"
        measured.touch()
        notebook = execute(read(source, version), folder=path.parent, claims_to=measured)
        found = claims.gathered(measured.read_text(encoding="utf-8"), source.stem)
    settle(notebook, version)
    write_bytes(nbformat.writes(notebook).encode() + b"\n", path, overwrite=True)
    return found


def settle(notebook: NotebookNode, version: str = "solved") -> None:
    """Takes out what no two runs share, time stamps and the numbers of widgets: one source is to give one file.

    From the learner's version the outputs that give an exercise away go, too.
    """
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if version == "learner" and is_answer(cell):
            cell.outputs = []
        for output in cell.get("outputs", []):
            if output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None):
                output["data"]["text/plain"] = "a slider: run this cell to move it"


def keep(source: Path, measured: list[dict]) -> None:
    """Puts what a notebook's claims measured in the place of what they measured before, in claims.json."""
    from dts_mini.measures.estimates import provenance  # open_clip takes seconds to import

    before = json.loads(claims.PATH.read_bytes()) if claims.PATH.exists() else {}
    notebooks = [each.stem for each in sources()]
    write_json(claims.merged(before, {source.stem: measured}, notebooks, provenance()), claims.PATH, overwrite=True)


def drifted(source: Path, version: str = "learner") -> bool:
    """Whether a built notebook's cells are no longer those of its source, or were never executed."""
    if not target(source, version).exists():
        return True
    built, wanted = nbformat.read(target(source, version), as_version=4), read(source, version)
    shape = lambda cell: (cell.id, cell.cell_type, cell.source, *map(cell.metadata.get, ("tags", "jupyter")))
    ran = all(cell.execution_count for cell in built.cells if cell.cell_type == "code")
    return not ran or [shape(cell) for cell in built.cells] != [shape(cell) for cell in wanted.cells]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="only sources whose name starts so, such as 02")
    parser.add_argument("--check", action="store_true", help="only tell which notebooks differ from their sources")
    options = parser.parse_args(arguments)
    chosen = [s for s in sources() if not options.names or s.stem.startswith(tuple(options.names))]
    both = [(source, version) for source in chosen for version in VERSIONS]
    if options.check:
        stale = [f"{source.stem}, {version}" for source, version in both if drifted(source, version)]
        print("\n".join(f"{name}: differs from its source; run make notebooks" for name in stale) or "all up to date")
        return bool(stale)
    for source in chosen:
        measured = {version: build(source, version) for version in VERSIONS}["solved"]
        keep(source, measured)
    return 0


if __name__ == "__main__":
    sys.exit(main())
