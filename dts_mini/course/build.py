"""Builds the notebooks from their one authored source: ``python -m dts_mini.course.build [--check] [NAME ...]``.

``notebooks/source/NN_name.py`` (jupytext, py:percent) is what people edit; ``notebooks/NN_name.ipynb`` is built from it,
executed, outputs stored: it is what people read and what nbval compares with. ``--check`` runs nothing and only
says whether each notebook's cells are still those of its source.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

from dts_mini.core.file import write_bytes

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
Progress = Callable[[int, int], None]


def sources() -> list[Path]:
    """The authored notebooks, in order."""
    return sorted((NOTEBOOKS / "source").glob("[0-9]*.py"))


def target(source: Path) -> Path:
    """The built notebook of a source."""
    return NOTEBOOKS / f"{source.stem}.ipynb"


def read(source: Path) -> NotebookNode:
    """A source as a notebook without outputs; cell ids count the cells, so that building twice gives the same file."""
    notebook = jupytext.read(source, fmt="py:percent")
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    for number, cell in enumerate(notebook.cells):
        cell.id = f"{source.stem[:2]}-{number:03d}"
    return notebook


def execute(notebook: NotebookNode, progress: Progress = lambda done, cells: None) -> NotebookNode:
    """Runs a notebook in the notebooks' folder and stores its outputs; nbclient's error names the cell that failed."""
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(NOTEBOOKS)}},
        on_cell_executed=lambda cell, cell_index, execute_reply: progress(cell_index + 1, len(notebook.cells)),
    )
    client.execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # time stamps
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    return notebook


def drifted(source: Path) -> bool:
    """Whether the built notebook's cells are no longer those of its source, or were never executed."""
    if not target(source).exists():
        return True
    built, wanted = nbformat.read(target(source), as_version=4), read(source)
    shape = lambda cell: (cell.id, cell.cell_type, cell.source, cell.metadata.get("tags", []))
    ran = all(cell.execution_count for cell in built.cells if cell.cell_type == "code")
    return not ran or [shape(cell) for cell in built.cells] != [shape(cell) for cell in wanted.cells]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="only sources whose name starts so, such as 02")
    parser.add_argument("--check", action="store_true", help="only tell which notebooks differ from their sources")
    options = parser.parse_args()
    chosen = [s for s in sources() if not options.names or s.stem.startswith(tuple(options.names))]
    if options.check:
        stale = [source.stem for source in chosen if drifted(source)]
        print("\n".join(f"{name}: differs from its source; run make notebooks" for name in stale) or "all up to date")
        return bool(stale)
    for source in chosen:
        print(f"{source.stem} ...", flush=True)
        notebook = execute(read(source))
        write_bytes(nbformat.writes(notebook).encode() + b"\n", target(source), overwrite=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
