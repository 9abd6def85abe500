"""How long the notebooks run: ``python -m dts_mini.course.timings`` (``make timings``) runs all and publishes it.

``data/timings.json`` holds the seconds of each notebook and of its slow cells, with where and when; the book prints
them, and a test holds them under the course's limits.
"""

import json
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from nbformat import NotebookNode

from dts_mini.core.file import read_bytes, write_json
from dts_mini.course.build import Progress, execute, read, sources
from dts_mini.measures.estimates import provenance
from dts_mini.suites import places

PATH = places.DATA / "timings.json"
SLOW = 5.0  # seconds above which the text before a cell says how long it takes


def timed(source: Path, progress: Progress = lambda done, cells: None) -> tuple[NotebookNode, float]:
    """Runs the solved version of a source; also the seconds that it took, start of Python included."""
    start = time.perf_counter()
    notebook = execute(read(source), progress)
    return notebook, time.perf_counter() - start


def published(path: Path = PATH) -> dict[str, float]:
    """The published seconds by notebook; none where nothing was."""
    return json.loads(read_bytes(path))["seconds"] if path.exists() else {}


def slow_cells(notebook: NotebookNode) -> dict[str, float]:
    """Seconds by cell id, slowest first: the slowest cell of an executed notebook, and all others over five seconds."""
    stamps = {cell.id: cell.metadata.get("execution", {}) for cell in notebook.cells}
    seconds = {
        name: (_when(at["iopub.status.idle"]) - _when(at["iopub.execute_input"])).total_seconds()
        for name, at in stamps.items()
        if "iopub.status.idle" in at and "iopub.execute_input" in at
    }
    ordered = sorted(seconds.items(), key=lambda item: -item[1])
    return dict(ordered[:1] + [item for item in ordered[1:] if item[1] > SLOW])


def record(
    seconds: Mapping[str, float], path: Path = PATH, *, cells: Mapping[str, Mapping[str, float]] | None = None
) -> None:
    """Writes seconds by notebook (``{"02_name": 12.3}``), and by notebook and cell for the slow ones.

    All of one run, so that one provenance holds for them.
    """
    entry = {"seconds": {name: round(value, 1) for name, value in seconds.items()}}
    if cells:
        entry["slow cells"] = {n: {cell: round(s, 1) for cell, s in each.items()} for n, each in cells.items()}
    write_json(entry | {"provenance": provenance()}, path, overwrite=True)


def _when(stamp: str) -> datetime:
    return datetime.fromisoformat(stamp)


def main(path: Path = PATH) -> int:
    seconds, cells = {}, {}
    for source in sources():
        notebook, seconds[source.stem] = timed(source)
        cells[source.stem] = slow_cells(notebook)
        (cell, longest), *_ = cells[source.stem].items()
        print(f"{source.stem}: {seconds[source.stem]:.0f} s, of these {longest:.0f} s in cell {cell}", flush=True)
    record(seconds, path, cells=cells)
    return 0


if __name__ == "__main__":
    sys.exit(main())
