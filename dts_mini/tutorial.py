"""The main job (``make tutorial``): every notebook on the mini suite, the tables, and pages, all in ``build/``."""

import html
import sys
import time
from pathlib import Path

from nbclient.exceptions import CellExecutionError

from dts_mini.core.file import write_bytes, write_json
from dts_mini.course import timings
from dts_mini.course.build import sources
from dts_mini.course.markup import page
from dts_mini.measures.tables import headline, markdown, unseen
from dts_mini.suites import load_suite

BUILD = Path("build/tutorial")


def main() -> int:
    """Returns 0, or 1 after naming the notebook and the cell that failed."""
    BUILD.mkdir(parents=True, exist_ok=True)
    times: dict[str, float] = {}
    slow: dict[str, dict[str, float]] = {}
    for source in sources():
        step = lambda done, cells, name=source.stem: report(f"{name}: cell {done}/{cells}")
        try:
            notebook, times[source.stem] = timings.timed(source, step)
        except CellExecutionError as error:
            print(f"\n{source.stem} failed:\n{error}", file=sys.stderr)
            return 1
        slow[source.stem] = timings.slow_cells(notebook)
        put(BUILD / f"{source.stem}.html", page(notebook))
        report(f"{source.stem}: {times[source.stem]:.0f} s\n")
    timings.record(times, BUILD / "timings.json", cells=slow)
    suite, tables = load_suite(), {}
    for make in (headline, unseen):
        start = time.perf_counter()
        tables[make.__name__] = make(suite, progress=lambda row, name=make.__name__: report(f"{name} table: {row}"))
        times[f"{make.__name__} table"] = time.perf_counter() - start
        report(f"{make.__name__} table: {times[f'{make.__name__} table']:.0f} s\n")
    write_json(tables, BUILD / "tables.json", indent=2, overwrite=True)
    text = "\n".join(
        f"## {table['title']}: accuracy in % on {table['split']}\n\n{markdown(table)}" for table in tables.values()
    )
    put(BUILD / "tables.md", text)
    put(BUILD / "index.html", index(text, times))
    print(f"\n{text}\n" + "\n".join(f"{name:<32}{seconds:6.0f} s" for name, seconds in times.items()))
    print(f"{'in all':<32}{sum(times.values()):6.0f} s\n\nopen {BUILD / 'index.html'}")
    return 0


def index(tables: str, times: dict[str, float]) -> str:
    """The start page: links to the notebooks, with their times, and the tables."""
    items = "".join(
        f'<li><a href="{name}.html">{html.escape(name)}</a> ({seconds:.0f} s)</li>'
        for name, seconds in times.items()
        if (BUILD / f"{name}.html").exists()
    )
    style = (
        "body{font:16px/1.5 system-ui;margin:2em auto;max-width:78em;padding:0 1em}pre{overflow-x:auto;font-size:13px}"
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>dts_mini: the tutorial</title>'
        f"<style>{style}</style>"
        f"<h1>dts_mini: the tutorial</h1><ol>{items}</ol><pre>{html.escape(tables)}</pre></html>\n"
    )


def put(path: Path, text: str) -> None:
    write_bytes(text.encode(), path, overwrite=True)


def report(line: str) -> None:
    """Progress on one line of a terminal; in a log only lines that end."""
    if sys.stderr.isatty():
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
    elif line.endswith("\n"):
        print(line, end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
