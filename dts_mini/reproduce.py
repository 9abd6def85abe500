"""A suite's tables and figures in one command, ``dts-mini reproduce``: what is missing is fetched, the rest is kept.

    plan(suite)       what a run would download, and how long it takes: nothing is fetched
    reproduce(suite)  measures, writes results.json after each table, and report.md beside what is published

A run that was killed goes on where it was: files are resumed, inputs and logits are kept as they are made
(``dts_mini.suites.store``), and a finished table is not measured again while its revisions stay the same.
"""

import base64
import contextlib
import functools
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version

import torch

from dts_mini.core.compress import compress
from dts_mini.core.errors import DTSError, FileError
from dts_mini.core.file import read_json, write_bytes, write_json
from dts_mini.measures import curves
from dts_mini.measures.cells import GROUPS, cells_of
from dts_mini.measures.estimates import provenance
from dts_mini.measures.tables import headline, markdown, passes, unseen
from dts_mini.suites import places
from dts_mini.suites.real import RealSuite

PUBLISHED = (places.DATA / "published.json", places.DATA / "published-language.json")
Progress = Callable[[str], None]


def size_accuracy(suite: RealSuite, progress: Progress = lambda row: None) -> dict:
    """The size-accuracy curve, DTS-D over every base merge, and the ablation; each point is kept as it is measured.

    Notebook 10 reads them from ``curves.json`` in the suite's folder.
    """
    found = curves.table({0: curves.measure(suite, cells_of(GROUPS), suite.folder / "curves" / _made_from(suite)[:12])})
    found["unit"] = suite.unit
    write_json(found, suite.folder / "curves.json", overwrite=True)
    return found


# What is measured, by name: how, and how it reads. Another measure is another line here.
MEASURES: dict[str, tuple[Callable[..., dict], Callable[[Mapping], str]]] = {
    "headline": (headline, markdown),
    "unseen": (unseen, markdown),
    "curves": (size_accuracy, curves.listing),
}
TABLES = ("headline", "unseen")  # what is always measured; the rest is asked for
FIGURES = ("07", "08", "09", "10", "11", "12")  # notebooks whose figures belong to a reproduction


# --- before a run ---


def plan(suite: RealSuite, *, with_curves: bool = True) -> dict:
    """What a run of a suite needs: files by repository, bytes to download, bytes to write, seconds of work.

    Where the Hub cannot be asked, a repository's bytes are None, and the sum is where nothing is known. The seconds are
    extrapolated from a few inputs and one block of the model, timed here and now, with random weights; on a
    processor by the time that it worked, not by the clock, which a busy machine would stretch.
    """
    repositories, inputs = [], sum(suite.task_size(task) for task in suite.tasks)
    for repo, files in suite.wanted_files().items():
        entry = {"repository": str(repo)}
        try:
            found = files()
            missing = suite.hub.missing(found)
            entry |= {"commit": suite.hub.commit(repo), "files": len(found), "download": sum(missing.values())}
            entry |= {"cached": sum(suite.hub.files(repo)[file] for _, file in found) - entry["download"]}
        except FileError as error:
            entry |= {"commit": None, "files": None, "download": None, "cached": None, "why": str(error)}
        repositories.append(entry)
    known = [entry["download"] for entry in repositories if entry["download"] is not None]
    runs, points = passes(suite), len(cells_of(GROUPS)) if with_curves else 0
    held = sum(suite.task_size(task) for task in suite.unseen)
    per_input, compression = _timed(suite)
    answered = (runs["headline"] + points) * inputs + runs["unseen"] * held
    compressions = runs["deltas"] + points * len(suite.tasks)
    return {
        "suite": suite.name,
        "protocol": suite.protocol,
        "repositories": repositories,
        "download": sum(known) if known else None,
        "unknown": sum(entry["download"] is None for entry in repositories),
        "unit": suite.unit,
        "inputs": inputs,
        "kept": {suite.kept: inputs * suite.input_bytes},
        "device": str(suite.device),
        "inputs per second": 1 / per_input,
        "seconds": {"evaluation": per_input * answered, "compression": compression * compressions},
    }


def plan_text(found: Mapping) -> str:
    """A plan for people."""
    lines = [f"{found['suite']}, protocol {found['protocol']}: nothing is downloaded, this is the plan", ""]
    width = max(len(entry["repository"]) for entry in found["repositories"])
    lines.append(f"{'repository':<{width}}  {'commit':<8}  files   to download   in the cache")
    for entry in found["repositories"]:
        if entry["files"] is None:
            lines.append(f"{entry['repository']:<{width}}  {'?':<8}      ?             ?               ?")
        else:
            download, cached = _size(entry["download"]), _size(entry["cached"])
            name = f"{entry['repository']:<{width}}  {entry['commit'][:8]}"
            lines.append(f"{name}  {entry['files']:>5}  {download:>12}  {cached:>14}")
    why = next((entry["why"] for entry in found["repositories"] if entry["files"] is None), "")
    if found["download"] is None:
        lines += ["", f"to download: unknown, for all {found['unknown']} repositories: {why}"]
    else:
        least = "at least " if found["unknown"] else ""
        lines += ["", f"to download: {least}{_size(found['download'])} ({found['download']:,} bytes)"]
        if found["unknown"]:
            lines.append(f"  and {found['unknown']} repositories of unknown size: {why}")
    if found["download"]:
        minutes = found["download"] / 60
        lines.append(f"  about {minutes / 1e7:.0f} min at 10 MB/s, {minutes / 1e8:.0f} min at 100 MB/s")
    what = f"({found['inputs']:,} test {found['unit']} as published)"
    lines += [f"{kept}, kept on disk: {_size(size)} {what}" for kept, size in found["kept"].items()]
    speed = f"{found['inputs per second']:.3g} {found['unit']}/s on {found['device']}"
    speed += ", timed just now, with nothing else running"
    lines.append(f"evaluation: about {_duration(found['seconds']['evaluation'])} ({speed})")
    lines.append(f"compression: about {_duration(found['seconds']['compression'])} on this CPU")
    return "\n".join(lines) + "\n"


@torch.no_grad()
def _timed(suite: RealSuite) -> tuple[float, float]:
    """Seconds for an input through the model, and for the compression of one expert; both of random weights.

    What others do on this machine does not count: time on a processor is that of this process, shared by its threads.
    """
    worked = lambda: time.process_time() / torch.get_num_threads()
    clock = worked if suite.device.type == "cpu" else time.perf_counter
    trial = suite.trial()
    trial.run(1)
    start = clock()
    trial.run(trial.inputs)
    per_input, compression = (clock() - start) / trial.inputs, 0.0
    for part, times in trial.parts:
        moved = {name: tensor + 0.01 * torch.randn(tensor.shape) for name, tensor in part.items()}
        start = worked()
        compress(part, moved)
        compression += times * (worked() - start)
    return per_input, compression


# --- the run ---


def reproduce(
    suite: RealSuite,
    *,
    with_curves: bool = True,
    figures: bool = False,
    overwrite: bool = False,
    progress: Progress = lambda text: None,
) -> dict:
    """Measures everything on a suite and writes ``results.json``, ``report.json`` and ``report.md`` in its folder.

    ``with_curves``: the size-accuracy curve and the ablation too, which take most of the time; the report is written
    anew after each table. ``figures``: also runs notebooks 07 to 12 on the suite and keeps their pages and figures.
    ``overwrite``: measures finished tables again. Returns what report.json holds. Raises DTSError, before anything is
    measured, for files that cannot be had, disks that are too small, and test images that were trained on.
    """
    if figures and suite.unit != "images":
        raise DTSError(f"the notebooks' figures are of images, and {suite.name} has {suite.unit}: leave out --figures")
    suite.folder.mkdir(parents=True, exist_ok=True)
    suite.hub.fetch_all(suite.wanted())
    checks = suite.check()
    path = suite.folder / "results.json"
    results = read_json(path) if path.exists() else {}
    made_from = _made_from(suite)
    tables = [name for name in TABLES if name != "unseen" or suite.unseen]
    for name in [*tables, "curves"] if with_curves else tables:
        make, _ = MEASURES[name]
        if overwrite or results.get(name, {}).get("made from") != made_from or not suite.lasting:
            progress(name)
            found = make(suite, progress=lambda row, name=name: progress(f"{name}: {row}"))
            results[name] = found | {"made from": made_from}
            write_json(results, path, overwrite=True)
            _report(suite, checks, results, {})
    return _report(suite, checks, results, draw(suite, progress) if figures else {})


def _report(suite: RealSuite, checks: Mapping, results: Mapping, figures: Mapping) -> dict:
    """Writes what there is so far: report.json, and report.md for people."""
    report = {
        "suite": suite.name,
        "protocol": suite.protocol,
        "precision": suite.precision,
        "unit": suite.unit,
        "notes": suite.notes(),
        "revisions": _revisions(suite),
        "checks": checks,
        **results,
        "published": published(suite),
        "figures": figures,
        "provenance": provenance(*suite.libraries),
    }
    write_json(report, suite.folder / "report.json", overwrite=True)
    write_bytes(report_text(report).encode(), suite.folder / "report.md", overwrite=True)
    return report


def _made_from(suite: RealSuite) -> str:
    """A digest of what the tables depend on beside the settings that name the suite's folder."""
    inputs = [version("dts_mini"), _revisions(suite), *(suite.identity(task, "test") for task in suite.tasks)]
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _revisions(suite: RealSuite) -> dict[str, str]:
    """The commit of each repository that the tables read."""
    return {str(repo): suite.hub.commit(repo) for repo in suite.wanted_files()}


def draw(suite: RealSuite, progress: Progress = lambda text: None) -> dict[str, dict]:
    """Runs notebooks 07 to 12 on the suite; their pages and figures go to ``figures/`` in its folder.

    A notebook that stops does not stop the others: where and why stands in what is returned, by notebook.
    """
    from nbclient.exceptions import CellExecutionError  # of the extra "notebooks"

    from dts_mini.course.build import execute, read, sources
    from dts_mini.course.markup import page

    folder, found = suite.folder / "figures", {}
    folder.mkdir(exist_ok=True)
    settings = {"DTS_SUITE": suite.name, "DTS_HOME": str(suite.home.parent.resolve()), "DTS_DEVICE": str(suite.device)}
    with _environment(settings | {"DTS_PRECISION": suite.precision}):
        for source in (source for source in sources() if source.stem.startswith(FIGURES)):
            progress(f"figures of {source.stem}")
            notebook, entry = read(source), {"figures": []}
            try:
                execute(notebook, timeout=None)
            except CellExecutionError as error:
                entry["stopped"] = f"{error.ename}: {error.evalue}"
            outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
            images = [output for output in outputs if "image/png" in output.get("data", {})]
            for number, output in enumerate(images):
                name = f"{source.stem}-{number}.png"
                write_bytes(base64.b64decode(output["data"]["image/png"]), folder / name, overwrite=True)
                alt = output.get("metadata", {}).get("image/png", {}).get("alt", "")
                entry["figures"].append({"file": f"figures/{name}", "alt": alt})
            write_bytes(page(notebook).encode(), folder / f"{source.stem}.html", overwrite=True)
            found[source.stem] = entry
    return found


@contextlib.contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


# --- the report ---


@functools.cache
def _published() -> dict:
    """The protocols and the tables of all files of published results."""
    files = [read_json(path) for path in PUBLISHED]
    protocols = {name: about for file in files for name, about in file["protocols"].items()}
    return {"protocols": protocols, "tables": [table for file in files for table in file["tables"]]}


def published(suite: RealSuite) -> list[dict]:
    """The published tables of a suite's model, those of its own protocol first."""
    same = [table for table in _published()["tables"] if table["model"] == suite.architecture]
    return sorted(same, key=lambda table: table["protocol"] != suite.protocol)


def report_text(report: Mapping) -> str:
    """The report as Markdown: ours, beside it what is published for the same checkpoints, then what is for others."""
    about = _published()["protocols"]
    own = about.get(report["protocol"], "checkpoints of your own")
    same = [t for t in report["published"] if t["protocol"] == report["protocol"]]
    others = [t for t in report["published"] if t["protocol"] != report["protocol"]]
    lines = [
        f"# {report['suite']}: what was measured, beside what is published",
        f"Protocol {report['protocol']}: {own}. Accuracies in % on test {report['unit']}, "
        f"{report['precision']}; brackets are 95 % bootstrap intervals over test {report['unit']}. "
        "Storage is what each task's file takes on disk, as a share of a float32 expert.",
        *report["notes"],
    ]
    for name, (_, text) in MEASURES.items():
        if name in report:
            lines += [f"## {report[name]['title']}", text(report[name])]
            lines += [side_by_side(report[name], t) for t in same if t["table"] == name]
    if others:
        lines += ["## Published for other checkpoints"]
        lines += ["Other experts, so other numbers: compare orders and gaps, never digits."]
        lines += [f"Protocol {t['protocol']} ({t['table']}): {about[t['protocol']]}\n\n{_listed(t)}" for t in others]
    if report["checks"]:
        lines += ["## Checks"]
        lines += ["\n".join(f"- {task}: {found['said']}" for task, found in report["checks"].items())]
    for notebook, entry in report["figures"].items():
        lines += [f"## Figures of {notebook}"]
        lines += [f"![{figure['alt']}]({figure['file']})" for figure in entry["figures"]]
        lines += [f"The notebook stopped: {entry['stopped']}"] if "stopped" in entry else []
    if report["revisions"]:
        rows = [f"| {repo} | {commit} |" for repo, commit in report["revisions"].items()]
        lines += ["## Revisions", "\n".join(["| repository | commit |", "|---|---|", *rows])]
    return "\n\n".join(line.strip() for line in lines) + "\n"


def side_by_side(ours: Mapping, theirs: Mapping) -> str:
    """Published rows beside ours of the same protocol: ours, and theirs in brackets, alone where we have none."""
    rows = {row["name"]: row for row in ours["rows"]}
    cell = lambda mine, value: f"{100 * mine:.1f} ({value:.1f})" if mine is not None else f"({value:.1f})"
    if theirs["table"] == "unseen":
        columns, head = [], ["mean of the unseen tasks", "mean of the seen tasks"]
    else:
        columns = theirs["columns"]
        head = [*columns, "mean"]
    lines = [f"| ours (published) | {' | '.join(head)} |", "|---" * (len(head) + 1) + "|"]
    for row in theirs["rows"]:
        found = {task: entry["value"] for task, entry in rows.get(row["name"], {}).get("accuracy", {}).items()}
        if theirs["table"] == "unseen":
            cells = [cell(sum(found.values()) / len(found) if found else None, row["unseen"]), cell(None, row["seen"])]
        else:
            all_there = found and set(found) == set(columns)  # a mean over other tasks is another number
            cells = [cell(found.get(task), row["accuracy"][task]) for task in columns]
            cells.append(cell(sum(found.values()) / len(found) if all_there else None, row["mean"]))
        lines.append("| " + " | ".join([row["name"], *cells]) + " |")
    return f"Beside what is published ({theirs['source']}):\n\n" + "\n".join(lines)


def _listed(table: Mapping) -> str:
    """A published table of other experts: one line a row, with its source, its share of its own experts and storage."""
    experts = next((row["mean"] for row in table["rows"] if row["name"] == "experts"), None)
    rows = [
        row | row.get("accuracy", {}) | ({"share of experts": f"{row['mean'] / experts:.1%}"} if experts else {})
        for row in table["rows"]
    ]
    named = (*table.get("columns", ()), "mean", "share of experts", "seen", "unseen", "storage", "source")
    columns = [column for column in named if any(column in row for row in rows)]
    cell = lambda value: f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
    lines = ["| " + " | ".join([row["name"], *(cell(row.get(c, "")) for c in columns)]) + " |" for row in rows]
    return "\n".join(["| published | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|", *lines])


def _size(count: float) -> str:
    if count < 1000:
        return f"{count:.0f} bytes"
    scale, unit = next((s, u) for s, u in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if count >= s)
    return f"{count / scale:.1f} {unit}"


def _duration(seconds: float) -> str:
    if seconds > 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds > 90 else f"{seconds:.0f} s"
