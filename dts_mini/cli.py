"""The command line, ``dts-mini``: a thin face over the core and the suites.

A command imports what it works with when it runs: torch takes seconds, and help, completion and a mistyped option need
none of it.
"""

import argparse
import json
import os
import re
import shutil
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from importlib.metadata import requires, version
from pathlib import Path
from typing import NoReturn

from dts_mini.core.errors import DTSError, FileError, StateError, needs, printable
from dts_mini.suites import GLUE, REAL, SUITES


class _Names(tuple):
    """The merges, known without torch; of another name it is asked whether somebody has registered it."""

    def __contains__(self, name: object) -> bool:
        if super().__contains__(name):
            return True
        from dts_mini.core import merging

        return name in merging.MERGES


MERGES = _Names(("average", "consensus", "dare", "iso-c", "task-arithmetic", "ties", "tsv-m"))
QUIET = 2.0  # seconds that a command may take without a word
CHECKPOINT = "a .safetensors file, an index of shards, a folder with either, or OWNER/NAME[@REVISION] on the Hub"
DELTA = "the file that compress wrote, or OWNER/NAME[@REVISION] on the Hub"

# The methods' settings, each with its type or what it may be; tests hold them equal to the methods' own.
SETTINGS = {
    "keep_ratio": (float, "dts: share of each matrix's components, in (0, 1] (0.1)"),
    "groups": ((2, 4, 8), "dts: values a partition may hold (4)"),
    "scale": (("rms", "mean"), "dts: a group's value (rms)"),
    "per": (("matrix", "vector"), "dts: what is partitioned at once (matrix)"),
    "algorithm": (("auto", "exact", "gram", "randomised", "full"), "dts: of the decomposition (auto)"),
    "levels": (("halves", "lloyd-max"), "dts: groups of equal counts, or of least error (halves)"),
    "refit": (bool, "dts: fit the singular values to the coded vectors (no)"),
    "block": (int, "dts: components a block of residual correction; 0 is none (0)"),
    "convolutions": (("flat", "matrix"), "dts: coded as they are, or as a matrix (flat)"),
    "notch": (int, "drc: how fine, 128 a halving of the step; instead of a budget"),
    "cut": (float, "drc: components weaker than so many steps go, in [0, 2] (0.5)"),
    "flat": (float, "drc: the step of biases and gains, in steps, in [1, 64] (5)"),
    "dead": (float, "drc: magnitudes below it are rounded to 0, in [0.5, 1) (0.65)"),
    "fitted": (bool, "drc: second factors and singular values are fitted to what was rounded (yes)"),
    "weight": (float, "of a budget: 0, errors of all matrices count alike, to 1, relative to size (dts 0.5, drc 0.7)"),
    "norm": (float, "share of each norm's loss that is restored, in [0, 1] (dts 0, drc 0.5)"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns 0, or after one line on what was wrong 1, or 130 after Ctrl-C.

    A command line that is none exits with 2, and one line too.
    """
    parser, options = _parser(), argparse.Namespace(command=None, traceback=False)
    _speak()
    try:
        if "_ARGCOMPLETE" in os.environ:  # the shell asks what may come next
            import argcomplete

            argcomplete.autocomplete(parser)
        parser.parse_args(arguments, options)
        if options.run is not _completion:
            with _Progress(options.command):
                import torch  # noqa: F401  takes seconds: on a busy machine enough to wonder
        options.run(options)
        sys.stdout.flush()
        return 0
    except KeyboardInterrupt:
        return _say(options, "stopped; nothing was changed, and what was finished is kept", 130)
    except BrokenPipeError:  # whoever read the output has enough of it, as in: dts-mini inspect FILE | head
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except DTSError as error:
        return _say(options, str(error))
    except ModuleNotFoundError as error:
        return _say(options, f"{error}{_extra_of(error.name or '')}")
    except OSError as error:
        return _say(options, f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
    except Exception as error:
        if options.traceback:
            raise
        return _say(
            options, f"{type(error).__name__}: {error} (dts-mini --traceback {options.command} ... shows where)"
        )


def _speak() -> None:
    """Makes that nothing which is said is an error: neither to a stream that is closed, nor in letters it lacks."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # as in: dts-mini ... >&-
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  for as long as the process lives
    if getattr(sys.stdout, "errors", "") == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def _extra_of(module: str) -> str:
    """Which extra installs the library that a module is of, in words; nothing for what is in none."""
    names = {
        "open_clip": "open_clip_torch",
        "PIL": "pillow",
        "sklearn": "scikit-learn",
        "zmq": "pyzmq",
        "IPython": "ipykernel",
    }
    name = names.get(module.partition(".")[0], module.partition(".")[0])
    for line in requires("dts_mini") or ():
        if line.startswith(name) and (extra := re.search(r"extra == ['\"](\w+)", line)):
            return f": pip install 'dts_mini[{extra[1]}]'"
    return ""


def _say(options: argparse.Namespace, text: str, code: int = 1) -> int:
    print(f"dts-mini {options.command or ''}".rstrip() + f": {printable(' '.join(text.split()))}", file=sys.stderr)
    return code


def _opened(o: argparse.Namespace, *paths: object) -> list:
    """The checkpoints at these paths; FileError where one of them lies where the output is to go.

    What is on the Hub comes first, under that library's own bars.
    """
    from dts_mini.streaming.checkpoint import open_checkpoint
    from dts_mini.streaming.remote import located

    found = [located(path) for path in paths]
    with _Progress(o.command):  # a pickle is read as a whole
        opened = [open_checkpoint(path) for path in found]
    for checkpoint in opened:
        folder = checkpoint.path if checkpoint.path.is_dir() else checkpoint.path.parent
        _check_apart(o.out, checkpoint.path, folder, *(folder / name for name in checkpoint.shards))
    return opened


def _check_apart(out: Path, *inputs: Path) -> None:
    """FileError where the output would take the place of what it is made of, and of what is needed afterwards."""
    if out.exists() and any(path.exists() and out.samefile(path) for path in inputs):
        raise FileError(f"{out}: is, or holds, what this command reads; name another output")


def _fitted(base: Mapping, expert: Mapping, path: object) -> Mapping:
    """The expert under the base's names; what was done for that is said."""
    from dts_mini.streaming.fit import fitted

    if not base or not expert:
        return expert  # which is refused as it is
    found = fitted(base, expert, path)
    for line in found.said:
        print(printable(line), file=sys.stderr)
    return found if found.said else expert


def _compress(o: argparse.Namespace) -> None:
    from dts_mini.core.compress import compress
    from dts_mini.core.delta import storage
    from dts_mini.core.file import check_writable
    from dts_mini.streaming.resume import clear, resumable

    check_writable(o.out, overwrite=o.overwrite)
    base, expert = _opened(o, o.base, o.expert)
    expert = _fitted(base, expert, f"expert {o.expert}")
    settings = {name: value for name in SETTINGS if (value := getattr(o, name)) is not None}
    settings |= {"keep": o.keep, "stacks": o.stacks}
    settings["budget"] = int(o.budget) if o.budget and o.budget.isdecimal() else o.budget
    folder = o.out.with_name(f"{o.out.name}.parts")  # what a killed run has finished, until the file is written
    with _workers(o.scheduler) as mapper, _Progress("compress", len(expert)) as told:
        delta = compress(base, expert, method=o.method, progress=told, mapper=resumable(folder, mapper), **settings)
        delta.save(o.out, overwrite=o.overwrite)
    clear(folder)
    counts = storage(delta)
    print(f"{o.out}: {counts.file:,} bytes, {counts.share():.2%} of the float32 expert ({counts.model:,} bytes)")


def _workers(scheduler: str | None) -> AbstractContextManager:
    if scheduler is None:
        return nullcontext(map)
    from dts_mini.streaming.cluster import workers

    return workers(scheduler)


def _rebuild(o: argparse.Namespace) -> None:
    from dts_mini.core.delta import Rebuilt, load
    from dts_mini.hub import delta_file
    from dts_mini.streaming.checkpoint import check_output

    check_output(o.out, overwrite=o.overwrite)
    (base,), delta = _opened(o, o.base), delta_file(o.delta)
    _check_apart(o.out, delta)
    with _Progress("rebuild", len(base)) as told:
        expert = Rebuilt(base, load(delta))
        _save(_Told(expert, told), o, base)
    print(f"{o.out}: the expert rebuilt from {o.base} and {o.delta}")


def _save(state: Mapping, o: argparse.Namespace, like) -> None:
    """A model in a file, or in a folder that its own class opens: laid out like another, with what lies beside that."""
    from dts_mini.streaming.checkpoint import beside, save_checkpoint
    from dts_mini.streaming.folder import pretrained_names

    save_checkpoint(
        state,
        o.out,
        pretrained_names(like.shards),
        metadata=like.metadata,
        beside=beside(like),
        overwrite=o.overwrite,
    )


def _inspect(o: argparse.Namespace) -> None:
    from dts_mini.core.container import decode
    from dts_mini.core.delta import TaskDelta, storage
    from dts_mini.core.file import read_bytes
    from dts_mini.hub import delta_file

    path = delta_file(o.delta)
    with _Progress("inspect"):
        data = read_bytes(path)
        delta, manifest = TaskDelta.from_bytes(data, str(path)), decode(data, str(path))[0]
        counts = storage(delta)
    if o.json:
        print(json.dumps(manifest, indent=2))
        return
    show = lambda text: print(printable(text))  # names are the file's, which may be anybody's
    show(f"{o.delta}: a {manifest['method']} delta, format {manifest['format']}")
    show("settings     " + ", ".join(f"{key} {value}" for key, value in manifest["settings"].items()))
    print(f"made for     base {delta.base}\n             expert {delta.expert}")
    for count, meaning in (
        *([("paper", "3 bits a code, as the paper counts")] if counts.paper is not None else []),
        ("information", "codes, values and scales that it holds"),
        ("file", "the file on disk"),
    ):
        print(f"{count:<12} {getattr(counts, count):>12,} bytes {counts.share(count):>8.3%}   {meaning}")
    print(f"{'model':<12} {counts.model:>12,} bytes            the expert in float32\n")
    width = max((len(printable(name)) for name in delta.parts), default=0)
    for name, part in delta.parts.items():
        shape = " x ".join(map(str, delta.shapes[name])) or "scalar"
        line = f"{printable(name):<{width}}  {shape:<18} {type(part).__name__:<13}"
        if name in delta.bounds:
            truncation, coding, error = delta.bounds[name]
            line += f" rank {part.rank:<4} error {error:.3f} <= {truncation:.3f} + {coding:.3f}"
        show(line.rstrip())
    if delta.bounds:
        print("\nerror: ||M - M_hat|| / ||M||; at most what the rank leaves out, exactly, and what coding may add")


def _merge(o: argparse.Namespace) -> None:
    from dts_mini.core import merging
    from dts_mini.streaming.checkpoint import check_output

    check_output(o.out, overwrite=o.overwrite)
    if o.method != "average" and o.base is None:
        raise DTSError(f"{o.method} needs the pretrained model: pass --base")
    *experts, base = _opened(o, *o.experts, *([o.base] if o.base else o.experts[:1]))
    method, like = merging.MERGES[o.method], experts[0]
    experts = [_fitted(base, e, f"expert {path}") for path, e in zip(o.experts, experts, strict=True)]
    try:
        with _Progress("merge") as told:
            read = [_Told(expert, told) for expert in experts]
            merged = method(read) if o.method == "average" else method(base, read)
            _save(merged, o, like if set(like) == set(merged) else base)
    except StateError as error:  # a merge counts its experts, a command line has their paths
        named = lambda found: f"expert {o.experts[int(found[1]) - 1]}"
        raise StateError(re.sub(r"\bexpert (\d+)\b", named, str(error))) from error
    print(f"{o.out}: {o.method} of {len(experts)} expert{'s'[: len(experts) != 1]}")


def _evaluate(o: argparse.Namespace) -> None:
    from dts_mini.core.file import check_writable, write_json

    if o.json:
        check_writable(o.json, overwrite=o.overwrite)
    from dts_mini.suites import load_suite

    with _Progress("evaluate"):
        suite, tables = load_suite(o.suite), {}
        from dts_mini.measures.tables import headline, markdown, unseen

    for name, make in (("headline", headline), ("unseen", unseen)):
        with _Progress(name) as told:
            tables[name] = make(suite, progress=told)
        print(f"\n{tables[name]['title']}, accuracy in % on test\n\n{markdown(tables[name])}")
    if o.json:
        write_json(tables, o.json, indent=2, overwrite=o.overwrite)


def _path(text: str) -> Path:
    """A path that is one: empty, as of a variable of the shell that is not set, it would be the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("is empty: give a path")
    return Path(text)


def _name(text: str) -> str:
    """The same, of what may be a name on the Hub."""
    return _path(text) and text


def _expert(text: str) -> tuple[str, str]:
    """A task and its expert's repository, as ``--experts`` takes them."""
    task, _, repo = text.partition("=")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+(/[\w./-]+)?", repo):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not of the form TASK=OWNER/NAME, such as cola=you/roberta-cola, or TASK=OWNER/NAME/FOLDER"
        )
    return task, repo


def _reproduce(o: argparse.Namespace) -> None:
    from dts_mini.suites import load_suite

    options = {"device": o.device, "precision": o.precision, "home": o.out, "torchvision": o.torchvision}
    options |= {"attention": o.attention, "checkpoints": o.checkpoints, "protocol": o.protocol, "tasks": o.tasks}
    options |= {"experts": dict(o.experts) if o.experts else None, "texts": o.texts}
    images, language = ("torchvision", "attention", "checkpoints", "protocol", "tasks"), ("experts", "texts")
    foreign = images if o.suite in GLUE else language
    if wrong := [name for name in foreign if options[name] is not None]:
        raise DTSError(f"--{wrong[0]} is of other suites: {o.suite} has no such option")
    if o.experts and (twice := [task for task, _ in o.experts if [t for t, _ in o.experts].count(task) > 1]):
        raise DTSError(f"--experts names two experts of {twice[0]}: name one for each task")
    with _Progress("reproduce"):
        suite = load_suite(o.suite, **{name: value for name, value in options.items() if value is not None})
        from dts_mini.reproduce import plan, plan_text, reproduce
    if o.repin:
        suite.hub.repin()
    if o.dry_run:
        with _Progress("reproduce"):
            text = plan_text(plan(suite, with_curves=o.curves))
        print(text, end="")
        return
    with _Progress("reproduce") as told:
        suite.progress = told
        settings = {"with_curves": o.curves, "figures": o.figures == "all", "overwrite": o.overwrite}
        report = reproduce(suite, progress=told, **settings)
    for stem, entry in report["figures"].items():
        if "stopped" in entry:
            print(f"notebook {stem} stopped: {entry['stopped']}", file=sys.stderr)
    print(f"{suite.folder / 'report.md'}: the tables, beside what is published")


def _export_lora(o: argparse.Namespace) -> None:
    from dts_mini.core.delta import load
    from dts_mini.hub import delta_file
    from dts_mini.serving.lora import check_folder, export_lora, plan_lora
    from dts_mini.serving.stored import for_module
    from dts_mini.streaming.checkpoint import open_checkpoint
    from dts_mini.streaming.remote import located

    check_folder(o.out, overwrite=o.overwrite or o.dry_run)
    path, base = delta_file(o.delta), located(o.base)
    with _Progress("export-lora"):
        model = _transformers_model(base)
        delta = for_module(load(path), open_checkpoint(base), model)
    told = lambda plan: print(
        f"{o.out}: {plan.nbytes:,} bytes, {plan.share:.2%} of the float32 expert: {len(plan.ranks)} "
        f"module{'s'[: len(plan.ranks) != 1]} as factors, {len(plan.modules_to_save)} in modules_to_save"
        + (f", without {', '.join(plan.lost)}, which no adapter can hold" if o.dry_run and plan.lost else "")
    )
    if o.dry_run:
        told(plan_lora(delta, model, rank=o.rank, dtype=o.dtype))
        return
    settings = {"partial": o.partial, "rank": o.rank, "dtype": o.dtype, "overwrite": o.overwrite}
    with _Progress("export-lora"):
        adapter = export_lora(delta, model, o.out, told=told, **settings)
    kept = [f"{adapter.kept:.2%} of what the factors hold (squared norm)"] if o.rank else []
    left = [f"without {', '.join(adapter.lost)}"] if adapter.lost else []
    print(f"{o.out}: written" + "".join(f", {text}" for text in kept + left))


def _transformers_model(folder: Path):
    """The model of a folder that transformers saved, of the class that its config.json names, in the dtype it has."""
    from dts_mini.serving.lora import read_config
    from dts_mini.streaming.checkpoint import check_unadapted

    check_unadapted(folder)
    architectures = read_config(folder / "config.json").get("architectures") or [None]
    needs("full", "export-lora", "transformers")
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
    from dts_mini.core.delta import storage
    from dts_mini.core.file import check_writable
    from dts_mini.serving.lora import import_lora, read_config
    from dts_mini.streaming.remote import located

    check_writable(o.out, overwrite=o.overwrite)
    (base,), adapter = _opened(o, o.base), located(o.adapter)
    _check_apart(o.out, *adapter.glob("*"))
    with _Progress("import-lora"):
        delta = import_lora(adapter, base)
        named = read_config(adapter / "adapter_config.json").get("base_model_name_or_path")
        delta.save(o.out, overwrite=o.overwrite)
    counts = storage(delta)
    if named and str(named) != o.base:  # peft does not compare them either
        print(
            printable(f"{o.adapter}: names {named} as the model it was trained over; see that {o.base} is that"),
            file=sys.stderr,
        )
    print(f"{o.out}: {counts.file:,} bytes, {counts.share():.2%} of the float32 expert ({counts.model:,} bytes)")


def _push(o: argparse.Namespace) -> None:
    from dts_mini.hub import push

    with _Progress("push"):
        address = push(o.deltas, o.repo, base_model=o.base_model, private=o.private)
    print(address)


def _pull(o: argparse.Namespace) -> None:
    from dts_mini.core.file import check_writable
    from dts_mini.hub import pull

    check_writable(o.out, overwrite=o.overwrite)
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
    how = {"marking": marking, "unsafe": o.unsafe, "overwrite": o.overwrite, "progress": _tell}
    try:
        deque(grade_class(o.submissions, o.out, **limits, **how), maxlen=0)
    except KeyboardInterrupt as error:
        raise DTSError("interrupted; give the same command again, and it goes on") from error
    print(f"the class: {o.out / 'class.csv'}")
    if o.unsafe:
        print(f"dts-mini grade: UNSAFE: {UNSAFE}; every report says so", file=sys.stderr)


def _tell(report: dict, done: int, works: int) -> None:
    """A line for a submission, once it is graded."""
    score = f"{report['passed']} of {report['of']}, {report['points']:g} of {report['max']:g} points"
    why = f" ({report['reason']})" if report["reason"] else ""
    print(f"[{done}/{works}] {report['submission']}: {score}{why}", flush=True)


def _rehearse(o: argparse.Namespace) -> None:
    from dts_mini.course import rehearsal
    from dts_mini.course.grade import grade_class

    try:
        o.out.mkdir(parents=True)
    except OSError as error:
        raise FileError(f"{o.out}: cannot be made ({error.strerror}); name a folder that is not there") from error
    class_, begun = rehearsal.pack(o.out), time.monotonic()
    how = {"marking": rehearsal.marking(o.out), "jobs": o.jobs, "seconds": o.seconds, "progress": _tell}
    graded = grade_class([o.out / "submissions.zip"], o.out / "graded", **how)
    reports = {report["submission"]: report for report in graded}
    wrong = rehearsal.differences(class_, reports, o.out)
    print("\n".join(wrong) or "all marks are as they must be")
    print(f"{time.monotonic() - begun:.0f} s; see {o.out / 'graded'}")
    if wrong:
        raise DTSError(f"{len(wrong)} of {len(class_)} marks are not as they must be: do not grade on this machine")


UNSAFE = "without a box a submission can read and change your files, reach the network, and forge its marks"


def _completion(o: argparse.Namespace) -> None:
    import argcomplete

    print(argcomplete.shellcode(["dts-mini"], shell=o.shell))


class _Progress:
    """Of work that takes over two seconds, on a terminal: one line that tells how far it is, at what, and for how long.

    Called with what is being worked on. The line goes when the work is done.
    """

    def __init__(self, what: str, total: int | None = None) -> None:
        self.what, self.total, self.count, self.at = what, total, 0, ""
        self.start, self.done = time.monotonic(), threading.Event()
        self.thread = threading.Thread(target=self._show, daemon=True)

    def __call__(self, at: object) -> None:
        self.count, self.at = self.count + 1, str(at)

    def __enter__(self) -> "_Progress":
        if sys.stderr.isatty():
            self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.done.set()
        if self.thread.ident:
            self.thread.join()

    def _show(self) -> None:
        wait = QUIET
        while not self.done.wait(wait):
            wait = 0.5
            counted = f" {self.count}/{self.total}" if self.total else ""
            line = f"{self.what}{counted} {time.monotonic() - self.start:.0f} s {self.at}"
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\033[K{''.join(c for c in line if c.isprintable())[:width]}", end="", file=sys.stderr, flush=True)
        if wait != QUIET:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


class _Told(Mapping):
    """A state dict that tells, of each tensor that is read, its name."""

    def __init__(self, state: Mapping, told: Callable[[str], object]) -> None:
        self.state, self.told, self.outline = state, told, getattr(state, "outline", state)

    def __getitem__(self, name: str) -> object:
        self.told(name)
        return self.state[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.state)

    def __len__(self) -> int:
        return len(self.state)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        if match := re.fullmatch(r"argument (-\S+): expected (one|at least one) argument", message):
            message += f" (one that begins with a dash is given as {match[1]}=VALUE)"
        self.exit(2, f"{self.prog}: {' '.join(message.split())}; usage: {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser("dts-mini", description="Personalised model merging with DTS (arXiv 2512.01461).")
    parser.add_argument("--version", action="version", version=f"dts-mini {version('dts_mini')}")
    parser.add_argument("--traceback", action="store_true", help="show where an unexpected error comes from")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run, text: str, *, writes: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        if writes:
            sub.add_argument("--overwrite", action="store_true", help="replace an output that exists")
        return sub

    sub = command("compress", _compress, "Compress what an expert adds to a base into a small file.")
    sub.add_argument("--base", required=True, type=_name, help=f"the pretrained or the merged model: {CHECKPOINT}")
    sub.add_argument("--expert", required=True, type=_name, help="the fine-tuned model, alike")
    sub.add_argument("--out", required=True, type=_path, help="the file to write, by custom TASK.dts.safetensors")
    sub.add_argument("--method", choices=("dts", "drc"), default="dts", help="the paper's (the default), or drc, ours")
    sub.add_argument("--budget", help="the file's size at most: bytes, or as 1%% of the float32 expert (drc: 1%%)")
    what = "tensors (names, or patterns as in '*.bias')"
    sub.add_argument("--keep", nargs="+", default=(), metavar="NAME", help=f"keep these {what} exactly")
    sub.add_argument("--stacks", nargs="+", default=(), metavar="NAME", help=f"these {what} are stacks of matrices")
    own = sub.add_argument_group("settings of the methods")
    for name, (kind, text) in SETTINGS.items():
        if kind is bool:
            how = {"action": argparse.BooleanOptionalAction}
        elif isinstance(kind, tuple):
            how = {"choices": kind, "type": type(kind[0])}
        else:
            how = {"type": kind}
        own.add_argument(f"--{name.replace('_', '-')}", default=None, help=text, **how)
    sub.add_argument("--scheduler", metavar="ADDRESS", help="work on this dask.distributed cluster (tcp://host:port)")

    sub = command("rebuild", _rebuild, "Rebuild an expert from its base and its file.")
    sub.add_argument("--base", required=True, type=_name, help="the base that the file was made for")
    sub.add_argument("--delta", required=True, type=_name, help=DELTA)
    sub.add_argument("--out", required=True, type=_path, help="NAME.safetensors, or a folder laid out like the input")

    sub = command("inspect", _inspect, "Show what a file holds and what it weighs.", writes=False)
    sub.add_argument("delta", type=_name, help=DELTA)
    sub.add_argument("--json", action="store_true", help="print the manifest as JSON")

    sub = command("merge", _merge, "Merge experts into one model.")
    sub.add_argument("--method", required=True, choices=MERGES)
    sub.add_argument("--base", type=_name, help="the pretrained model; average needs none")
    sub.add_argument("--experts", required=True, nargs="+", type=_path, help=f"each {CHECKPOINT}")
    sub.add_argument("--out", required=True, type=_path, help="NAME.safetensors, or a folder laid out like the input")

    sub = command("evaluate", _evaluate, "Measure the headline and the unseen-task tables of a suite.")
    sub.add_argument("--suite", required=True, choices=[name for name in SUITES if name != "roberta-glue"])
    sub.add_argument("--json", type=_path, metavar="FILE", help="also write the tables as JSON")

    sub = command("reproduce", _reproduce, "Fetch a suite of real checkpoints, measure the tables, write a report.")
    sub.add_argument("--suite", required=True, choices=REAL)
    sub.add_argument(
        "--experts",
        nargs="+",
        type=_expert,
        metavar="TASK=OWNER/NAME",
        help="of gpt2-glue and roberta-glue, experts that you name; /FOLDER behind it where one holds several",
    )
    sub.add_argument("--texts", type=int, metavar="N", help="of those, a draw of N texts of each task (default: all)")
    sub.add_argument("--tasks", type=int, choices=(8, 14, 20), help="how many data sets (default: 8)")
    sub.add_argument(
        "--figures", choices=("none", "all"), default="none", help="all: also run notebooks 07 to 12 on it"
    )
    sub.add_argument(
        "--curves",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="the size-accuracy curve and the ablation, which take most of the time (default: yes)",
    )
    sub.add_argument("--dry-run", action="store_true", help="only say what would be downloaded, and how long it takes")
    sub.add_argument("--out", type=_path, metavar="FOLDER", help="where results are kept (default: build)")
    sub.add_argument("--device", help="cuda, cpu or mps (default: cuda where there is one)")
    sub.add_argument(
        "--precision", choices=("float32", "bfloat16", "float16"), help="of the evaluation; weights stay float32"
    )
    sub.add_argument("--attention", choices=("fused", "split"), help="layout of the attention weights (default: fused)")
    sub.add_argument("--checkpoints", type=_path, metavar="FOLDER", help="experts of your own: TASK/finetuned.pt")
    sub.add_argument("--protocol", help="the family of those: P1, P2 or own")
    sub.add_argument(
        "--torchvision", type=_path, metavar="FOLDER", help="data sets of torchvision to take where it has them"
    )
    sub.add_argument("--repin", action="store_true", help="take the newest revisions instead of the pinned ones")

    sub = command("export-lora", _export_lora, "Write a delta as a LoRA adapter that peft loads.")
    sub.add_argument("--base", required=True, type=_path, metavar="FOLDER", help="the base as transformers saved it")
    sub.add_argument("--delta", required=True, type=_name, help=DELTA)
    sub.add_argument("--out", required=True, type=_path, metavar="FOLDER", help="the adapter's folder")
    sub.add_argument("--partial", action="store_true", help="leave out what no adapter can hold")
    sub.add_argument("--rank", type=int, help="components of a matrix at most (default: those of the delta)")
    sub.add_argument(
        "--dtype",
        choices=("float32", "float16", "bfloat16"),
        default="float32",
        help="16 bits halve the bytes (default: float32)",
    )
    sub.add_argument("--dry-run", action="store_true", help="only say how many bytes it would take")

    sub = command("import-lora", _import_lora, "Make a delta of a LoRA adapter that peft saved.")
    sub.add_argument("adapter", type=_path, metavar="FOLDER", help="the adapter's folder")
    sub.add_argument(
        "--base", required=True, type=_name, help=f"the model it was trained over, with its config.json: {CHECKPOINT}"
    )
    sub.add_argument("--out", required=True, type=_path, help="the file to write, by custom TASK.dts.safetensors")

    sub = command(
        "push", _push, "Upload deltas over one base to the Hugging Face Hub, with a model card.", writes=False
    )
    sub.add_argument("deltas", nargs="+", type=_path, metavar="DELTA", help="files that compress wrote")
    sub.add_argument("--repo", required=True, metavar="OWNER/NAME", help="made where it does not exist")
    sub.add_argument("--base-model", metavar="ID", help="the base's own name on the Hub, for the card")
    sub.add_argument("--private", action="store_true", help="if the repository is made, make it private")

    sub = command("pull", _pull, "Fetch a delta from the Hugging Face Hub, and check it.")
    sub.add_argument("repo", metavar="OWNER/NAME")
    sub.add_argument("--out", required=True, type=_path, help="the file to write")
    sub.add_argument("--name", metavar="FILE", help="which delta, where the repository holds several")
    sub.add_argument("--revision", help="a branch, tag or commit; the newest where none is named")

    sub = command("grade", _grade, "Grade the exercises of submitted notebooks, each submission in a box of its own.")
    what = "notebooks, folders and zip files, also as Moodle and Canvas pack them"
    sub.add_argument("submissions", nargs="+", type=_path, metavar="SUBMISSION", help=what)
    sub.add_argument("--out", required=True, type=_path, help="the folder for class.csv, a JSON and a page a student")
    sub.add_argument("--roster", type=_path, metavar="CSV", help="the class: a row for everybody on it")
    sub.add_argument(
        "--notebooks", nargs="+", default=(), metavar="NN", help="those that everybody owes, such as 00 01"
    )
    sub.add_argument("--points", type=_path, metavar="CSV", help="exercise,points; else 1, 2 or 3 by difficulty")
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
    sub.add_argument("--out", required=True, type=_path, help="a new folder: the submissions, a roster, the marks")
    sub.add_argument("--seconds", type=float, default=10, help="time for one exercise")
    sub.add_argument("--jobs", type=int, help="submissions at a time; else as many as there are processors")

    sub = command("completion", _completion, "Print what makes a shell complete dts-mini's commands.", writes=False)
    sub.add_argument(
        "shell", choices=("bash", "zsh", "fish"), help='as in ~/.bashrc: eval "$(dts-mini completion bash)"'
    )
    return parser
