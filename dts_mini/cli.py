"""The command line, ``dts-mini``: a thin face over the core and the suites."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from dts_mini.core import merging
from dts_mini.core.container import decode
from dts_mini.core.delta import METHODS, compress, load, rebuild, storage
from dts_mini.core.errors import DTSError
from dts_mini.core.file import check_writable, load_tensors, read_bytes, save_tensors, write_json
from dts_mini.suites import CLIP, SUITES, load_suite


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
    base, expert = load_tensors(o.base), load_tensors(o.expert)
    bar = _progress(len(expert), "compress")
    own = ("keep_ratio", "groups", "scale", "per", "levels", "refit", "block", "norm")
    settings = {name: value for name in own if (value := getattr(o, name)) is not None}
    budget = int(o.budget) if o.budget and o.budget.isdecimal() else o.budget
    delta = compress(base, expert, method=o.method, budget=budget, **settings, progress=lambda name: bar.update())
    bar.close()
    delta.save(o.out, overwrite=o.overwrite)
    counts = storage(delta)
    print(f"{o.out}: {counts.file:,} bytes, {counts.share():.2%} of the float32 expert ({counts.model:,} bytes)")


def _rebuild(o: argparse.Namespace) -> None:
    check_writable(o.out, overwrite=o.overwrite)
    save_tensors(rebuild(load_tensors(o.base), load(o.delta)), o.out, overwrite=o.overwrite)
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
    check_writable(o.out, overwrite=o.overwrite)
    named: dict[str, Path] = {}
    for path in o.experts:
        if path.stem in named:
            raise DTSError(f"two experts go by one name: {named[path.stem]} and {path}; rename one, or pass it once")
        named[path.stem] = path
    if o.method != "average" and o.base is None:
        raise DTSError(f"{o.method} needs the pretrained model: pass --base")
    experts = [load_tensors(path) for path in o.experts]
    method = merging.MERGES[o.method]
    merged = method(experts) if o.method == "average" else method(load_tensors(o.base), experts)
    save_tensors(merged, o.out, overwrite=o.overwrite)
    print(f"{o.out}: {o.method} of {len(experts)} experts")


def _evaluate(o: argparse.Namespace) -> None:
    if o.json:
        check_writable(o.json, overwrite=o.overwrite)
    from dts_mini.suites.tables import headline, markdown, unseen  # open_clip takes seconds to import

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
        print(plan_text(plan(suite, curves=o.curves)), end="")
        return
    bar = _progress(None, "reproduce")
    suite.progress = say = lambda text: (bar.set_postfix_str(text), bar.update())
    report = reproduce(suite, curves=o.curves, figures=o.figures == "all", overwrite=o.overwrite, progress=say)
    bar.close()
    for stem, entry in report["figures"].items():
        if "stopped" in entry:
            print(f"notebook {stem} stopped: {entry['stopped']}", file=sys.stderr)
    print(f"{suite.folder / 'report.md'}: the tables, beside what is published")


def _grade(o: argparse.Namespace) -> None:
    from dts_mini.course.grade import grade_class  # the exercises are not needed by other commands

    for report in grade_class(o.submissions, o.out, seconds=o.seconds, memory=o.memory, overwrite=o.overwrite):
        score = f"{report['passed']} of {report['of']}"
        print(f"{report['submission']}: {score}" + (f" ({report['reason']})" if report["reason"] else ""))
    print(f"the class: {o.out / 'class.csv'}")


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
    sub.add_argument("--base", required=True, help="safetensors of the pretrained or the merged model")
    sub.add_argument("--expert", required=True, help="safetensors of the fine-tuned model")
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

    sub = command("rebuild", _rebuild, "Rebuild an expert from its base and its file.")
    sub.add_argument("--base", required=True, help="the base that the file was made for")
    sub.add_argument("--delta", required=True, help="the file that compress wrote")
    sub.add_argument("--out", required=True, type=Path, help="the safetensors to write")

    sub = command("inspect", _inspect, "Show what a file holds and what it weighs.", writes=False)
    sub.add_argument("delta", help="the file that compress wrote")
    sub.add_argument("--json", action="store_true", help="print the manifest as JSON")

    sub = command("merge", _merge, "Merge experts into one model.")
    sub.add_argument("--method", required=True, choices=sorted(merging.MERGES))
    sub.add_argument("--base", help="safetensors of the pretrained model; average needs none")
    sub.add_argument("--experts", required=True, nargs="+", type=Path, help="safetensors of the experts")
    sub.add_argument("--out", required=True, type=Path, help="the safetensors to write")

    sub = command("evaluate", _evaluate, "Measure the headline and the unseen-task tables of a suite.")
    sub.add_argument("--suite", required=True, choices=SUITES)
    sub.add_argument("--json", type=Path, metavar="FILE", help="also write the tables as JSON")

    sub = command("reproduce", _reproduce, "Fetch a suite of real checkpoints, measure the tables, write a report.")
    sub.add_argument("--suite", required=True, choices=CLIP)
    sub.add_argument("--tasks", type=int, choices=(8, 14, 20), help="how many data sets (default: 8)")
    sub.add_argument(
        "--figures", choices=("none", "all"), default="none", help="all: also run notebooks 05 to 09 on it"
    )
    sub.add_argument("--curves", action="store_true", help="also the size-accuracy curve and the ablation: much longer")
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

    sub = command("grade", _grade, "Grade the exercises of submitted notebooks; no notebook is executed.")
    sub.add_argument("submissions", nargs="+", type=Path, metavar="SUBMISSION.ipynb", help="the learners' notebooks")
    sub.add_argument("--out", required=True, type=Path, help="the folder for a JSON a submission and class.csv")
    sub.add_argument("--seconds", type=float, default=10, help="time for one exercise")
    sub.add_argument("--memory", type=int, default=1024, help="MiB for a submission, beside what torch takes (Linux)")
    return parser
