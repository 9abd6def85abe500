"""The main job (``make tutorial``): a first result, every notebook of the mini suite, tables, and pages, in ``build/``.

In a checkout, where the solved notebooks are, it builds the book as well, and each page links to its chapter there.

Notebooks and tables run beside each other, one for each processor. What two of them need, the answers of a model on a
task, is computed once and kept in ``build/store`` (``dts_mini.suites.store``).
"""

import contextlib
import html
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from dts_mini.core.errors import DTSError, needs
from dts_mini.core.file import write_bytes, write_json

BUILD, BOOK, STORE = Path("build/tutorial"), Path("build/book"), Path("build/store")
_line = threading.Lock()


def main() -> int:
    """Returns 0, or 1 after naming the notebook and the cell that failed, or what is not installed."""
    try:
        needs("notebooks", "the tutorial", "nbclient", "jupytext", "nbconvert", "latex2mathml", "open_clip", "scipy")
        return tutorial()
    except DTSError as error:
        print(f"\ntutorial: {error}", file=sys.stderr)
        return 1


def tutorial() -> int:
    start = time.perf_counter()
    BUILD.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("DTS_STORE", str(STORE.resolve()))
    first = first_result()
    put(BUILD / "index.html", index(first, {}))
    print(
        f"{first}\nafter {time.perf_counter() - start:.0f} s; {BUILD / 'index.html'} has the picture, and grows\n",
        flush=True,
    )

    from nbclient.exceptions import CellExecutionError

    from dts_mini.course import book, timings
    from dts_mini.course.build import sources
    from dts_mini.course.markup import page
    from dts_mini.measures.tables import headline, markdown, unseen
    from dts_mini.suites import load_suite

    times: dict[str, float] = {}
    slow: dict[str, dict[str, float]] = {}
    tables: dict[str, dict] = {}

    def notebook(source: Path) -> None:
        step = lambda done, cells: report(f"{source.stem}: cell {done}/{cells}")
        executed, seconds = timings.timed(source, step)
        slow[source.stem] = timings.slow_cells(executed)
        put(BUILD / f"{source.stem}.html", linked(page(executed), source.stem) if shelf else page(executed))
        finish(source.stem, seconds)

    def bound() -> None:
        begun = time.perf_counter()
        book.course_book(BOOK)
        finish("book", time.perf_counter() - begun)

    def table(make: Callable[..., dict]) -> None:
        begun, suite = time.perf_counter(), load_suite()
        tables[make.__name__] = make(suite, progress=lambda row: report(f"{make.__name__} table: {row}"))
        finish(f"{make.__name__} table", time.perf_counter() - begun)

    def finish(name: str, seconds: float) -> None:
        times[name] = seconds
        report(f"{name}: {seconds:.0f} s\n")
        put(BUILD / "index.html", index(first, dict(sorted(times.items()))))

    shelf = (book.ROOT / "notebooks/solved").is_dir()  # not so in a wheel
    # The long ones first, so that none is left over at the end for one processor alone.
    known = timings.published()
    jobs = sorted(sources(), key=lambda source: -known.get(source.stem, 0))
    workers, threads = shared()
    with one_thread_each(threads), ThreadPoolExecutor(workers) as pool, _stopped_at_once():
        running = {pool.submit(table, headline): "headline table"}
        running |= {pool.submit(notebook, source): source.stem for source in jobs}
        running |= {pool.submit(table, unseen): "unseen table"}
        running |= {pool.submit(bound): "book"} if shelf else {}
        for done in as_completed(running):
            if error := done.exception():
                pool.shutdown(wait=False, cancel_futures=True)
                if not isinstance(error, CellExecutionError):
                    raise error
                print(f"\n{running[done]} failed:\n{error}", file=sys.stderr)
                return 1
    times = dict(sorted(times.items()))
    timings.record(times, BUILD / "timings.json", cells=slow)
    tables = {make.__name__: tables[make.__name__] for make in (headline, unseen)}
    write_json(tables, BUILD / "tables.json", indent=2, overwrite=True)
    text = "\n".join(
        f"## {table['title']}: accuracy in % on {table['split']}\n\n{markdown(table)}" for table in tables.values()
    )
    put(BUILD / "tables.md", text)
    put(BUILD / "index.html", index(first, times, text))
    print(f"\n{text}\n" + "\n".join(f"{name:<32}{seconds:6.0f} s" for name, seconds in times.items()))
    print(f"{f'in all, {workers} at a time':<32}{time.perf_counter() - start:6.0f} s\n\nopen {BUILD / 'index.html'}")
    return 0


def first_result() -> str:
    """One task, from the expert to its file of 1 % and back: what came out in words; the picture is ``first.png``."""
    from dts_mini.core.compress import compress
    from dts_mini.core.delta import load, rebuild, storage
    from dts_mini.course.figures import accuracies
    from dts_mini.suites import load_suite
    from dts_mini.suites.evaluation import correct

    suite = load_suite()
    task, base = suite.example, suite.pretrained()
    expert = suite.expert(task)
    path = BUILD / f"{task.replace(' ', '-')}.dts.safetensors"
    delta = compress(base, expert, budget="1%")
    delta.save(path, overwrite=True)
    models = {"the pretrained model": base, "the expert": expert, "rebuilt from 1 %": rebuild(base, load(path))}
    right = {name: {task: correct(suite, state, task)} for name, state in models.items()}
    figure, _ = accuracies(right)
    figure.savefig(BUILD / "first.png")
    counts, share = storage(delta), {name: found[task].float().mean().item() for name, found in right.items()}
    return (
        f"A first result. The task {task}, {len(right['the expert'][task]):,} test images: "
        + ", ".join(f"{name} {value:.1%}" for name, value in share.items())
        + f". The expert in float32 takes {counts.model:,} bytes, its file {counts.file:,} ({counts.share():.2%})."
    )


def shared() -> tuple[int, int]:
    """How many jobs run at a time, and the threads of each: the processors are shared out, at most four to a side."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = max(1, min(count, 4))
    return workers, max(1, min(count // workers, 4))


@contextlib.contextmanager
def one_thread_each(threads: int):
    """Sets the threads of this process, and of the kernels that it starts."""
    import torch

    before = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    torch.set_num_threads(threads)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        os.environ.pop("OMP_NUM_THREADS") if before[1] is None else os.environ.update(OMP_NUM_THREADS=before[1])


@contextlib.contextmanager
def _stopped_at_once():
    """Ctrl-C ends this process although notebooks are running; their kernels end when they miss it."""
    try:
        yield
    except KeyboardInterrupt:
        print("\ntutorial: stopped; what was computed is kept", file=sys.stderr, flush=True)
        os._exit(130)


def index(first: str, times: dict[str, float], tables: str = "") -> str:
    """The start page: the first result, links to the notebooks that ran, with their times, and the tables."""
    items = "".join(
        f'<li><a href="{name}.html">{html.escape(name)}</a> ({seconds:.0f} s)</li>'
        for name, seconds in times.items()
        if (BUILD / f"{name}.html").exists()
    )
    reading = f"<p>{to_book('index')}</p>" if (BOOK / "index.html").exists() else ""
    style = (
        "body{font:16px/1.5 system-ui;margin:2em auto;max-width:78em;padding:0 1em}pre{overflow-x:auto;font-size:13px}"
        "img{max-width:100%}"
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>dts_mini: the tutorial</title>'
        f"<style>{style}</style>"
        f'<h1>dts_mini: the tutorial</h1><p>{html.escape(first)}</p><img src="first.png" alt="{html.escape(first)}">'
        f"{reading}<ol>{items}</ol><pre>{html.escape(tables)}</pre></html>\n"
    )


def linked(page: str, name: str) -> str:
    """The page of a notebook that ran, with a line at its top that leads to its chapter of the book."""
    line = f'<p style="margin:1em;font-family:system-ui">What your machine has just computed. {to_book(name)}</p>'
    return re.sub(r"<body[^>]*>", lambda body: body[0] + line, page, count=1)


def to_book(name: str) -> str:
    """A link from a page of the tutorial to one of the book, as HTML."""
    path = os.path.relpath(BOOK, BUILD)
    return f'<a href="{path}/{name}.html">Read it in the book</a>, with search, glossary, documentation and reference.'


def put(path: Path, text: str) -> None:
    write_bytes(text.encode(), path, overwrite=True)


def report(line: str) -> None:
    """Progress on one line of a terminal; in a log only lines that end."""
    with _line:
        if sys.stderr.isatty():
            print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
        elif line.endswith("\n"):
            print(line, end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
