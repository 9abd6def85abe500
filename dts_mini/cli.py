"""The command line, ``dts-mini``: a thin face over the core and the suites."""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from dts_mini.core import merging
from dts_mini.core.compress import METHODS, compress
from dts_mini.core.container import decode
from dts_mini.core.delta import Rebuilt, load, storage
from dts_mini.core.errors import DTSError, FileError
from dts_mini.core.file import check_writable, read_bytes, write_json
from dts_mini.core.frame import Mapper
from dts_mini.serving.lora import FORMATS, check_folder, export_lora, import_lora, plan_lora, read_config
from dts_mini.streaming.checkpoint import check_output, open_checkpoint, save_checkpoint
from dts_mini.streaming.resume import resumable
from dts_mini.suites import CLIP, SUITES, load_suite

CHECKPOINT = "a .safetensors file, an index of shards, or a folder with either"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns 0, or 1 after printing what was wrong with the input."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except DTSError as error:
        print(f"dts-mini {options.command}: {error}", file=sys.stderr)
        return 1
    return 0


def _compress(o: argparse.Namespace) -> None:
    check_writable(o.out, overwrite=o.overwrite)
    base, expert = open_checkpoint(o.base), open_checkpoint(o.expert)
    own = ("keep_ratio", "groups", "scale", "per", "levels", "refit", "block", "norm")
    settings = {name: value for name in own if (value := getattr(o, name)) is not None}
    settings["budget"] = int(o.budget) if o.budget and o.budget.isdecimal() else o.budget
    folder = o.out.with_name(f"{o.out.name}.parts")  # what a killed run has finished, until the file is written
    with _workers(o.scheduler) as mapper, _progress(len(expert), "compress") as bar:
        told = lambda name: bar.update()
        delta = compress(base, expert, method=o.method, progress=told, mapper=resumable(folder, mapper), **settings)
    delta.save(o.out, overwrite=o.overwrite)
    shutil.rmtree(folder, ignore_errors=True)
    counts = storage(delta)
    print(f"{o.out}: {counts.file:,} bytes, {counts.share():.2%} of the float32 expert ({counts.model:,} bytes)")


def _workers(scheduler: str | None) -> AbstractContextManager[Mapper]:
    if scheduler is None:
        return nullcontext(map)
    from dts_mini.streaming.cluster import workers

    return workers(scheduler)


def _rebuild(o: argparse.Namespace) -> None:
    check_output(o.out, overwrite=o.overwrite)
    base = open_checkpoint(o.base)
    expert = Rebuilt(base, load(o.delta))
    save_checkpoint(expert, o.out, base.shards, metadata=base.metadata, overwrite=o.overwrite)
    print(f"{o.out}: the expert rebuilt from {o.base} and {o.delta}")


def _inspect(o: argparse.Namespace) -> None:
    manifest = decode(read_bytes(o.delta), o.delta)[0]
    if o.json:
        print(json.dumps(manifest, indent=2))
        return
    delta = load(o.delta)
    counts = storage(delta)
    print(f"{o.delta}: a {manifest['method']} delta, format {manifest['format']}")
    print("settings     " + ", ".join(f"{key} {value}" for key, value in manifest["settings"].items()))
    print(f"made for     base {delta.base}\n             expert {delta.expert}")
    for count, meaning in (
        *([("paper", "3 bits a code, as the paper counts")] if counts.paper is not None else []),
        ("information", "codes, values and scales that it holds"),
        ("file", "the file on disk"),
    ):
        print(f"{count:<12} {getattr(counts, count):>12,} bytes {counts.share(count):>8.3%}   {meaning}")
    print(f"{'model':<12} {counts.model:>12,} bytes            the expert in float32\n")
    width = max(map(len, delta.parts))
    for name, part in delta.parts.items():
        shape = " x ".join(map(str, delta.shapes[name])) or "scalar"
        line = f"{name:<{width}}  {shape:<18} {type(part).__name__:<13}"
        if name in delta.bounds:
            truncation, coding, error = delta.bounds[name]
            line += f" rank {part.rank:<4} error {error:.3f} <= {truncation:.3f} + {coding:.3f}"
        print(line.rstrip())
    if delta.bounds:
        print("\nerror: ||M - M_hat|| / ||M||; at most what the rank leaves out, exactly, and what coding may add")


def _merge(o: argparse.Namespace) -> None:
    check_output(o.out, overwrite=o.overwrite)
    named: dict[str, Path] = {}
    for path in o.experts:
        if path.stem in named:
            raise DTSError(f"two experts go by one name: {named[path.stem]} and {path}; rename one, or pass it once")
        named[path.stem] = path
    if o.method != "average" and o.base is None:
        raise DTSError(f"{o.method} needs the pretrained model: pass --base")
    experts = [open_checkpoint(path) for path in o.experts]
    method = merging.MERGES[o.method]
    merged = method(experts) if o.method == "average" else method(open_checkpoint(o.base), experts)
    save_checkpoint(merged, o.out, experts[0].shards, metadata=experts[0].metadata, overwrite=o.overwrite)
    print(f"{o.out}: {o.method} of {len(experts)} experts")


def _evaluate(o: argparse.Namespace) -> None:
    if o.json:
        check_writable(o.json, overwrite=o.overwrite)
    from dts_mini.measures.tables import headline, markdown, unseen  # open_clip takes seconds to import

    suite, tables = load_suite(o.suite), {}
    for name, make in (("headline", headline), ("unseen", unseen)):
        bar = _progress(None, name)
        tables[name] = make(suite, progress=lambda row, bar=bar: (bar.set_postfix_str(row), bar.update()))
        bar.close()
        print(f"\n{tables[name]['title']}, accuracy in % on test\n\n{markdown(tables[name])}")
    if o.json:
        write_json(tables, o.json, indent=2, overwrite=o.overwrite)


def _reproduce(o: argparse.Namespace) -> None:
    from dts_mini.reproduce import plan, plan_text, reproduce  # open_clip takes seconds to import

    options = {"device": o.device, "precision": o.precision, "home": o.out, "torchvision": o.torchvision}
    options |= {"attention": o.attention, "checkpoints": o.checkpoints, "protocol": o.protocol, "tasks": o.tasks}
    suite = load_suite(o.suite, **{name: value for name, value in options.items() if value is not None})
    if o.repin:
        suite.hub.repin()
    if o.dry_run:
        print(plan_text(plan(suite, with_curves=o.curves)), end="")
        return
    bar = _progress(None, "reproduce")
    suite.progress = say = lambda text: (bar.set_postfix_str(text), bar.update())
    report = reproduce(suite, with_curves=o.curves, figures=o.figures == "all", overwrite=o.overwrite, progress=say)
    bar.close()
    for stem, entry in report["figures"].items():
        if "stopped" in entry:
            print(f"notebook {stem} stopped: {entry['stopped']}", file=sys.stderr)
    print(f"{suite.folder / 'report.md'}: the tables, beside what is published")


def _export_lora(o: argparse.Namespace) -> None:
    check_folder(o.out, overwrite=o.overwrite or o.dry_run)
    delta, model = load(o.delta), _transformers_model(o.base)
    told = lambda plan: print(
        f"{o.out}: {plan.nbytes:,} bytes, {plan.share:.2%} of the float32 expert: {len(plan.ranks)} modules as "
        f"factors, {len(plan.modules_to_save)} in modules_to_save"
    )
    if o.dry_run:
        told(plan_lora(delta, model, rank=o.rank, dtype=o.dtype))
        return
    settings = {"partial": o.partial, "rank": o.rank, "dtype": o.dtype, "overwrite": o.overwrite}
    adapter = export_lora(delta, model, o.out, told=told, **settings)
    kept = [f"{adapter.kept:.2%} of what the factors hold (squared norm)"] if o.rank else []
    left = [f"without {', '.join(adapter.lost)}"] if adapter.lost else []
    print(f"{o.out}: written" + "".join(f", {text}" for text in kept + left))


def _transformers_model(folder: Path):
    """The model of a folder that transformers saved, of the class that its config.json names, in the dtype it has."""
    architectures = read_config(folder / "config.json").get("architectures") or [None]
    import transformers  # takes seconds

    transformers.utils.logging.disable_progress_bar()
    kind = getattr(transformers, architectures[0] or "", None)
    if kind is None:
        raise DTSError(f"{folder / 'config.json'}: names no architecture that transformers has; export from Python")
    try:
        return kind.from_pretrained(folder, dtype="auto", use_safetensors=True, local_files_only=True).eval()
    except OSError as error:
        raise DTSError(
            f"{folder}: transformers cannot load it ({str(error).splitlines()[0]}); check the folder"
        ) from error


def _import_lora(o: argparse.Namespace) -> None:
    check_writable(o.out, overwrite=o.overwrite)
    delta = import_lora(o.adapter, open_checkpoint(o.base))
    delta.save(o.out, overwrite=o.overwrite)
    counts = storage(delta)
    print(f"{o.out}: {counts.file:,} bytes, {counts.share():.2%} of the float32 expert ({counts.model:,} bytes)")


def _push(o: argparse.Namespace) -> None:
    from dts_mini.hub import push

    print(push(o.deltas, o.repo, base_model=o.base_model, private=o.private))


def _pull(o: argparse.Namespace) -> None:
    check_writable(o.out, overwrite=o.overwrite)
    from dts_mini.hub import pull

    commit = pull(o.repo, o.out, name=o.name, revision=o.revision, overwrite=o.overwrite)
    print(f"{o.out}: from {o.repo}, commit {commit}")


def _grade(o: argparse.Namespace) -> None:
    from dts_mini.course import marks  # the exercises are not needed by other commands
    from dts_mini.course.grade import grade_class

    marks.check_notebooks(o.notebooks)
    marking = marks.Marking(
        points=marks.read_points(o.points) if o.points else {},
        partial=o.partial,
        total=o.total,
        notebooks=o.notebooks,
        roster=marks.read_roster(o.roster) if o.roster else (),
        format=o.format,
        assignment=o.assignment,
    )
    if o.unsafe:
        print(f"dts-mini grade: UNSAFE: {UNSAFE}", file=sys.stderr)
    limits = {"seconds": o.seconds, "memory": o.memory, "jobs": o.jobs}
    graded = grade_class(o.submissions, o.out, marking=marking, unsafe=o.unsafe, overwrite=o.overwrite, **limits)
    try:
        _tell(graded)
    except KeyboardInterrupt as error:
        raise DTSError("interrupted; give the same command again, and it goes on") from error
    print(f"the class: {o.out / 'class.csv'}")
    if o.unsafe:
        print(f"dts-mini grade: UNSAFE: {UNSAFE}; every report says so", file=sys.stderr)


def _tell(graded: Iterable[tuple[dict, int, int]]) -> None:
    """A line for each submission, as it is graded."""
    from dts_mini.course.marks import shown

    for report, done, works in graded:
        score = f"{report['passed']} of {report['of']}, {report['points']:g} of {report['max']:g} points"
        why = f" ({report['reason']})" if report["reason"] else ""
        print(f"[{done}/{works}] {shown(report['submission'])}: {score}{why}", flush=True)


def _rehearse(o: argparse.Namespace) -> None:
    from dts_mini.course import rehearsal
    from dts_mini.course.grade import grade_class

    try:
        o.out.mkdir(parents=True)
    except OSError as error:
        raise FileError(f"{o.out}: cannot be made ({error.strerror}); name a folder that is not there") from error
    class_, reports, begun = rehearsal.pack(o.out), {}, time.monotonic()
    graded = grade_class(
        [o.out / "submissions.zip"], o.out / "graded", marking=rehearsal.marking(o.out), jobs=o.jobs, seconds=o.seconds
    )
    for report, done, works in graded:
        reports[report["submission"]] = report
        print(f"[{done}/{works}] {report['submission']}: {report['points']:g} of {report['max']:g} points", flush=True)
    wrong = rehearsal.differences(class_, reports, o.out)
    print(
        "\n".join(wrong) or "all marks are as they must be",
        f"\n{time.monotonic() - begun:.0f} s; see {o.out / 'graded'}",
    )
    if wrong:
        raise DTSError(f"{len(wrong)} of {len(class_)} marks are not as they must be: do not grade on this machine")


UNSAFE = "without a box a submission can read and change your files, reach the network, and forge its marks"


def _progress(total: int | None, what: str):
    from tqdm import tqdm

    return tqdm(total=total, desc=what, leave=False, disable=not sys.stderr.isatty())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("dts-mini", description="Personalised model merging with DTS (arXiv 2512.01461).")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run, text: str, *, writes: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        if writes:
            sub.add_argument("--overwrite", action="store_true", help="replace an output that exists")
        return sub

    sub = command("compress", _compress, "Compress what an expert adds to a base into a small file.")
    sub.add_argument("--base", required=True, help=f"the pretrained or the merged model: {CHECKPOINT}")
    sub.add_argument("--expert", required=True, help="the fine-tuned model, alike")
    sub.add_argument("--out", required=True, type=Path, help="the file to write, by custom TASK.dts.safetensors")
    sub.add_argument("--method", choices=METHODS, default="dts", help="the paper's (the default), or drc, ours")
    sub.add_argument("--budget", help="the file's size at most: bytes, or as 1%% of the float32 expert (drc: 1%%)")
    own = sub.add_argument_group("of dts")
    own.add_argument("--keep-ratio", type=float, help="share of each matrix's components, in (0, 1] (0.1)")
    own.add_argument("--groups", type=int, choices=(2, 4, 8), help="values a partition may hold (4)")
    own.add_argument("--scale", choices=("rms", "mean"), help="a group's value (rms)")
    own.add_argument("--per", choices=("matrix", "vector"), help="what is partitioned at once (matrix)")
    own.add_argument(
        "--levels", choices=("halves", "lloyd-max"), help="groups of equal counts or of least error (halves)"
    )
    own.add_argument("--refit", action="store_true", default=None, help="fit the singular values to the coded vectors")
    own.add_argument("--block", type=int, help="components a block of residual correction; 0 is none (0)")
    sub.add_argument(
        "--norm", type=float, help="share of each norm's loss that is restored, in [0, 1] (dts 0, drc 0.5)"
    )
    sub.add_argument("--scheduler", metavar="ADDRESS", help="work on this dask.distributed cluster (tcp://host:port)")

    sub = command("rebuild", _rebuild, "Rebuild an expert from its base and its file.")
    sub.add_argument("--base", required=True, help="the base that the file was made for")
    sub.add_argument("--delta", required=True, help="the file that compress wrote")
    sub.add_argument("--out", required=True, type=Path, help="NAME.safetensors, or a folder laid out like the input")

    sub = command("inspect", _inspect, "Show what a file holds and what it weighs.", writes=False)
    sub.add_argument("delta", help="the file that compress wrote")
    sub.add_argument("--json", action="store_true", help="print the manifest as JSON")

    sub = command("merge", _merge, "Merge experts into one model.")
    sub.add_argument("--method", required=True, choices=sorted(merging.MERGES))
    sub.add_argument("--base", help="the pretrained model; average needs none")
    sub.add_argument("--experts", required=True, nargs="+", type=Path, help=f"each {CHECKPOINT}")
    sub.add_argument("--out", required=True, type=Path, help="NAME.safetensors, or a folder laid out like the input")

    sub = command("evaluate", _evaluate, "Measure the headline and the unseen-task tables of a suite.")
    sub.add_argument("--suite", required=True, choices=SUITES)
    sub.add_argument("--json", type=Path, metavar="FILE", help="also write the tables as JSON")

    sub = command("reproduce", _reproduce, "Fetch a suite of real checkpoints, measure the tables, write a report.")
    sub.add_argument("--suite", required=True, choices=CLIP)
    sub.add_argument("--tasks", type=int, choices=(8, 14, 20), help="how many data sets (default: 8)")
    sub.add_argument(
        "--figures", choices=("none", "all"), default="none", help="all: also run notebooks 05 to 09 on it"
    )
    sub.add_argument(
        "--curves",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="the size-accuracy curve and the ablation, which take most of the time (default: yes)",
    )
    sub.add_argument("--dry-run", action="store_true", help="only say what would be downloaded, and how long it takes")
    sub.add_argument("--out", type=Path, metavar="FOLDER", help="where results are kept (default: build)")
    sub.add_argument("--device", help="cuda, cpu or mps (default: cuda where there is one)")
    sub.add_argument(
        "--precision", choices=("float32", "bfloat16", "float16"), help="of the evaluation; weights stay float32"
    )
    sub.add_argument("--attention", choices=("fused", "split"), help="layout of the attention weights (default: fused)")
    sub.add_argument("--checkpoints", type=Path, metavar="FOLDER", help="experts of your own: TASK/finetuned.pt")
    sub.add_argument("--protocol", help="the family of those: P1, P2 or own")
    sub.add_argument(
        "--torchvision", type=Path, metavar="FOLDER", help="data sets of torchvision to take where it has them"
    )
    sub.add_argument("--repin", action="store_true", help="take the newest revisions instead of the pinned ones")

    sub = command("export-lora", _export_lora, "Write a delta as a LoRA adapter that peft loads.")
    sub.add_argument("--base", required=True, type=Path, metavar="FOLDER", help="the base as transformers saved it")
    sub.add_argument("--delta", required=True, help="the file that compress wrote")
    sub.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="the adapter's folder")
    sub.add_argument("--partial", action="store_true", help="leave out what no adapter can hold")
    sub.add_argument("--rank", type=int, help="components of a matrix at most (default: those of the delta)")
    sub.add_argument("--dtype", choices=FORMATS, default="float32", help="16 bits halve the bytes (default: float32)")
    sub.add_argument("--dry-run", action="store_true", help="only say how many bytes it would take")

    sub = command("import-lora", _import_lora, "Make a delta of a LoRA adapter that peft saved.")
    sub.add_argument("adapter", type=Path, metavar="FOLDER", help="the adapter's folder")
    sub.add_argument("--base", required=True, help=f"the model it was trained over: {CHECKPOINT}")
    sub.add_argument("--out", required=True, type=Path, help="the file to write, by custom TASK.dts.safetensors")

    sub = command(
        "push", _push, "Upload deltas over one base to the Hugging Face Hub, with a model card.", writes=False
    )
    sub.add_argument("deltas", nargs="+", type=Path, metavar="DELTA", help="files that compress wrote")
    sub.add_argument("--repo", required=True, metavar="OWNER/NAME", help="made where it does not exist")
    sub.add_argument("--base-model", metavar="ID", help="the base's own name on the Hub, for the card")
    sub.add_argument("--private", action="store_true", help="if the repository is made, make it private")

    sub = command("pull", _pull, "Fetch a delta from the Hugging Face Hub, and check it.")
    sub.add_argument("repo", metavar="OWNER/NAME")
    sub.add_argument("--out", required=True, type=Path, help="the file to write")
    sub.add_argument("--name", metavar="FILE", help="which delta, where the repository holds several")
    sub.add_argument("--revision", help="a branch, tag or commit; the newest where none is named")

    sub = command("grade", _grade, "Grade the exercises of submitted notebooks, each submission in a box of its own.")
    what = "notebooks, folders and zip files, also as Moodle and Canvas pack them"
    sub.add_argument("submissions", nargs="+", type=Path, metavar="SUBMISSION", help=what)
    sub.add_argument("--out", required=True, type=Path, help="the folder for class.csv, a JSON and a page a student")
    sub.add_argument("--roster", type=Path, metavar="CSV", help="the class: a row for everybody on it")
    sub.add_argument(
        "--notebooks", nargs="+", default=(), metavar="NN", help="those that everybody owes, such as 00 01"
    )
    sub.add_argument("--points", type=Path, metavar="CSV", help="exercise,points; else 1, 2 or 3 by difficulty")
    sub.add_argument(
        "--partial", action="store_true", help="a failed exercise gets the share of its checks that passed"
    )
    sub.add_argument("--total", type=float, metavar="POINTS", help="what all right is worth; else the sum")
    what = "moodle or canvas: a table to upload, beside class.csv; csv: class.csv as Excel reads it"
    sub.add_argument("--format", choices=("moodle", "canvas", "csv"), default="", help=what)
    sub.add_argument("--assignment", default="DTS exercises", help="the column's name in Canvas")
    sub.add_argument("--seconds", type=float, default=10, help="time for one exercise")
    sub.add_argument("--memory", type=int, default=1024, help="MiB for a submission, beside what torch takes (Linux)")
    sub.add_argument("--jobs", type=int, help="submissions at a time; else as many as there are processors")
    sub.add_argument("--unsafe", action="store_true", help="without a box: for your own notebooks alone")

    text = "A teacher's test run: grade thirty made-up submissions, hostile ones among them, and check their marks."
    sub = command("rehearse", _rehearse, text, writes=False)
    sub.add_argument("--out", required=True, type=Path, help="a new folder: the submissions, a roster, the marks")
    sub.add_argument("--seconds", type=float, default=10, help="time for one exercise")
    sub.add_argument("--jobs", type=int, help="submissions at a time; else as many as there are processors")
    return parser
