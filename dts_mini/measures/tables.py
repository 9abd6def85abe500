"""The two tables of the project: personalised merging beside every merge, and tasks that nobody fine-tuned.

Each is plain data (for JSON): a title, columns, and rows with an estimate and a 95 % bootstrap interval over test
images for every entry, in [0, 1]; ``markdown`` writes it for people. A row's ``kind`` says what it is: ``zero-shot``,
``cheap`` (what ``measures.cheap`` lists), ``merge`` (one model for all tasks), ``remainder`` (a base and a small file
for each task) or ``experts``; its ``uses``, what it needs of a task beside the shared model and its class names.
"""

import functools
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from dts_mini.core.delta import TaskDelta, rebuild, storage
from dts_mini.core.errors import DTSError
from dts_mini.core.merging import average, consensus, dare, iso_c, task_arithmetic, ties, tsv_m
from dts_mini.core.personal import fuse, fusion_weights, personalise
from dts_mini.core.state import State, fingerprint
from dts_mini.measures.estimates import estimate, estimate_of, mean_over, provenance
from dts_mini.suites.evaluation import bootstrap, divergence, logits
from dts_mini.suites.suite import Suite

KEEP_RATIOS = (0.05, 0.1, 0.3)
KINDS = ("zero-shot", "cheap", "merge", "remainder", "experts")
PAPER_BASES, OTHER_BASES = ("average", "TIES"), ("TSV-M", "Iso-C", "Consensus")  # of DTS-D; the others at 0.1 alone
MERGES: dict[str, Callable[[State, list[State]], State]] = {
    "average": lambda theta_0, experts: average(experts),
    "Task Arithmetic": task_arithmetic,
    "TIES": ties,
    "DARE": dare,
    "TSV-M": tsv_m,
    "Iso-C": iso_c,
    "Consensus": consensus,
}
FAMILIES = ("zero-shot", "cheap", "base merge", "DTS-T", "DTS-D", "DRC", "experts")  # of a headline table's rows
FAMILIES += ("one seen expert", "DTS unseen", "oracle")  # of an unseen-task table's, beside some of those
Progress = Callable[[str], None]


class Beside(NamedTuple):
    """A row that is not made of experts' state dicts alone: its logits on a split by task, and each task's bytes."""

    uses: str
    answers: Callable[[Suite, str], tuple[dict[str, Tensor], Mapping[str, int]]]


def headline(
    suite: Suite,
    split: str = "test",
    progress: Progress = lambda row: None,
    beside: Mapping[str, Beside] | None = None,
    *,
    gains: bool = False,
) -> dict:
    """Zero-shot, base merges, DTS-T, DTS-D, DRC and the experts: accuracy, KL divergence from the experts, storage.

    DTS-T and DTS-D over two merges stand at three keep ratios, DTS-D over the others at one, DRC at 1 % of the bytes.
    ``storage`` is what each task adds to the shared model: the mean size of its file, as a share of a float32 expert.
    ``kl from experts`` is in nats. ``beside``: further rows, which stand after zero-shot. ``gains``: rows also say what
    they keep of the way from zero-shot to the experts, ``gain kept``, where zero-shot is most of the way already.
    """
    theta_0, experts = suite.pretrained(), {task: suite.expert(task) for task in suite.tasks}
    merges = base_merges(theta_0, list(experts.values()), suite)
    size = 4 * sum(tensor.numel() for tensor in theta_0.values())
    about: dict[str, tuple[str, str, float]] = {}  # of each row its kind, what it uses, its storage
    answers: dict[str, dict[str, Tensor]] = {}

    def add(name: str, kind: str, uses: str, storage: float, found: dict[str, Tensor]) -> None:
        about[name], answers[name] = (kind, uses, storage), found

    answered = lambda state_of: {task: logits(suite, state_of(task), task, split) for task in suite.tasks}
    progress("zero-shot")
    add("zero-shot", "zero-shot", "nothing", 0.0, answered(lambda task: theta_0))
    for name, row in (beside or {}).items():
        progress(name)
        found, sizes = row.answers(suite, split)
        add(name, "cheap", row.uses, sum(sizes.values()) / len(sizes) / size, found)
    for name, state in merges.items():
        progress(name)
        add(name, "merge", "all experts, at once", 0.0, answered(lambda task, state=state: state))
    for name, base, settings in remainders({"theta_0": theta_0, **merges}):
        progress(name)
        made = deltas(suite, base, experts, **settings)
        share = sum(storage(delta).share("file") for delta in made.values()) / len(made)
        uses = "its expert" if base is theta_0 else "its expert, and a merge of all"
        found = answered(lambda task, base=base, made=made: rebuild(base, made[task]))
        add(name, "remainder", uses, share, found)
    add("experts", "experts", "its expert", 1.0, answered(experts.get))
    right = _right(suite, answers, split)
    draws = bootstrap(right)
    rows = []
    for name, (kind, uses, share) in about.items():
        row = _accuracies(name, right[name], draws[name]) | {"kind": kind, "uses": uses}
        row["mean"] = estimate(_mean(right[name]), draws[name].mean(1))
        kept = draws[name].mean(1) / draws["experts"].mean(1)
        row["share of experts"] = estimate(_mean(right[name]) / _mean(right["experts"]), kept)
        if gains:
            row["gain kept"] = gain_kept(name, right, draws)
        apart = [divergence(answers["experts"][task], answers[name][task]).mean() for task in suite.tasks]
        row["kl from experts"] = round(torch.stack(apart).mean().item(), 5)
        row["storage"] = round(share, 6)
        rows.append(row)
    return {"title": "Personalised merging", "suite": suite.name, "split": split, "columns": list(suite.tasks)} | {
        "rows": rows,
        "provenance": provenance(),
    }


def gain_kept(name: str, right: Mapping[str, Mapping[str, Tensor]], draws: Mapping[str, Tensor]) -> dict:
    """Of the way from zero-shot to the experts, in mean accuracy, the share that a row has gone."""
    start, mean, end = (_mean(right[row]) for row in ("zero-shot", name, "experts"))
    first, drawn, last = (draws[row].mean(1) for row in ("zero-shot", name, "experts"))
    if end <= start:
        raise DTSError("the experts do not gain on zero-shot: there is nothing of which a share could be kept")
    return estimate((mean - start) / (end - start), (drawn - first) / (last - first))


def remainders(bases: Mapping[str, State]) -> list[tuple[str, State, dict]]:
    """The headline's rows of a base and small files: name, base, and the settings of ``personalise``."""
    found = []
    for base in ("theta_0", *PAPER_BASES, *OTHER_BASES):
        method = "DTS-T" if base == "theta_0" else f"DTS-D, {base}"
        for keep_ratio in (0.1,) if base in OTHER_BASES else KEEP_RATIOS:
            found.append((f"{method}, {keep_ratio}", bases[base], {"keep_ratio": keep_ratio}))
    drc = {"method": "drc", "budget": "1%"}
    return [*found, ("DRC-T, 1 %", bases["theta_0"], drc), ("DRC-D, average, 1 %", bases["average"], drc)]


def unseen(suite: Suite, split: str = "test", progress: Progress = lambda row: None) -> dict:
    """Tasks that nobody fine-tuned: each alone, with the zero-shot row, every single expert, and the oracle.

    The fused row is the paper's: DTS-D remainders (keep ratio 0.1) over the seen experts' merge, weighted by the
    normalised cosines of the task descriptors.
    """
    theta_0 = suite.pretrained()
    seen = [task for task in suite.tasks if task not in suite.unseen]
    experts = {task: suite.expert(task) for task in seen}
    descriptors = torch.stack([suite.descriptor(task) for task in seen])
    answers: dict[str, dict[str, Tensor]] = {}

    def answer(name: str, state_of: Callable[[str], State]) -> None:
        progress(name)
        answers[name] = {task: logits(suite, state_of(task), task, split) for task in suite.unseen}

    merges = base_merges(theta_0, list(experts.values()), suite)
    for name, state in {"zero-shot": theta_0, **merges}.items():
        answer(name, lambda task, state=state: state)
    for merge in PAPER_BASES:
        made = list(deltas(suite, merges[merge], experts).values())
        weights = {task: fusion_weights(suite.descriptor(task), descriptors) for task in suite.unseen}
        answer(f"DTS unseen, {merge}", functools.partial(_fused, merges[merge], made, weights))
    for task, expert in experts.items():
        answer(f"expert of {task}", lambda _, expert=expert: expert)
    answer("oracle: its own expert", suite.expert)
    right = _right(suite, answers, split)
    draws = bootstrap(right)
    rows = [_accuracies(name, right[name], draws[name]) for name in answers]
    return {"title": "Unseen tasks", "suite": suite.name, "split": split, "columns": list(suite.unseen)} | {
        "rows": rows,
        "provenance": provenance(),
    }


def base_merges(theta_0: State, experts: list[State], suite: Suite | None = None) -> dict[str, State]:
    """The merges of the tables, by the names that the tables use.

    Settings as in the DTS paper; where it has none, the merge's own paper's, or chosen on validation (Consensus).
    With a suite that has a store they are made once.
    """
    if suite is None or suite.store is None:
        return {name: merge(theta_0, experts) for name, merge in MERGES.items()}
    key = {"theta_0": fingerprint(theta_0), "experts": [fingerprint(expert) for expert in experts]}
    kept = lambda name, merge: suite.store.state("merges", key | {"merge": name}, lambda: merge(theta_0, experts))
    return {name: kept(name, merge) for name, merge in MERGES.items()}


def deltas(suite: Suite, base: State, experts: Mapping[str, State], **settings) -> dict[str, TaskDelta]:
    """``personalise`` as the paper has it, to rounding; through the suite's store where it has one: a delta that is
    there is not made again.
    """
    settings = settings if settings.get("method") == "drc" else {"algorithm": "full"} | settings
    if suite.store is None:
        return personalise(base, experts, **settings)
    shared = {"base": fingerprint(base), "settings": settings}
    return {
        task: suite.store.delta(
            "deltas",
            shared | {"expert": fingerprint(expert)},
            lambda task=task, expert=expert: personalise(base, {task: expert}, **settings)[task],
        )
        for task, expert in experts.items()
    }


def passes(suite: Suite) -> dict[str, int]:
    """How often the headline table goes over all test images, the unseen one over its tasks', and all deltas made."""
    seen = len(suite.tasks) - len(suite.unseen)
    compressed = (1 + len(PAPER_BASES)) * len(KEEP_RATIOS) + len(OTHER_BASES) + 2
    return {
        "headline": 2 + len(MERGES) + compressed,
        "unseen": 2 + len(MERGES) + len(PAPER_BASES) + seen if suite.unseen else 0,
        "deltas": compressed * len(suite.tasks) + (len(PAPER_BASES) * seen if suite.unseen else 0),
    }


def family(row: Mapping) -> str:
    """What a row of a table is, finer than its ``kind``: one of FAMILIES; DTSError for one that is of none.

    >>> family({"name": "TSV-M"}), family({"name": "DTS-D, TIES, 0.1"}), family({"name": "expert of signs"})
    ('base merge', 'DTS-D', 'one seen expert')
    """
    name = row["name"]
    if row.get("kind") == "cheap":
        return "cheap"
    if name in MERGES or row.get("kind") == "merge":
        return "base merge"
    found = "one seen expert" if name.startswith("expert of ") else re.split("[,:]", name)[0]
    found = "DRC" if found.startswith("DRC-") else found
    if found not in FAMILIES:
        raise DTSError(f"the row {name!r} is of no family: name it in dts_mini.measures.tables, so that claims see it")
    return found


def rows_of(table: Mapping, *families: str, keep_ratio: float | None = None) -> list[Mapping]:
    """Every row of a table of these families, of DTS at this keep ratio: what "every merge" means in a claim.

    DTSError where the table has none, and for a family that is not known.

    >>> table = {"rows": [{"name": "TIES"}, {"name": "DTS-T, 0.05"}, {"name": "DTS-D, average, 0.1"}]}
    >>> [row["name"] for row in rows_of(table, "DTS-T", "DTS-D", keep_ratio=0.1)]
    ['DTS-D, average, 0.1']
    """
    if unknown := set(families) - set(FAMILIES):
        raise DTSError(f"there is no family {min(unknown)!r} of rows: choose {', '.join(FAMILIES)}")
    rows = [row for row in table["rows"] if family(row) in families]
    if keep_ratio is not None:
        rows = [row for row in rows if row["name"].endswith(f", {keep_ratio}")]
    if not rows:
        raise DTSError(f"the table has no row of {' or '.join(families)}: measure it again")
    return rows


def by_variant(table: Mapping) -> dict[str, list[Mapping]]:
    """The rows of a headline table, by DTS variant and by rising keep ratio; of variants with one keep ratio none."""
    found: dict[str, list] = {}
    for row in table["rows"]:
        if row["name"].startswith("DTS"):
            found.setdefault(row["name"].rsplit(", ", 1)[0], []).append(row)
    return {name: rows for name, rows in found.items() if len(rows) > 1}


_HEADS = {"kl from experts": "KL from the expert (nats)"}
_PLAIN = {"storage": lambda value: f"{100 * value:.2f} %", "kl from experts": lambda value: f"{value:.4f}"}


def markdown(table: Mapping) -> str:
    """A table as Markdown: accuracies in %, the mean and the shares with their intervals, KL divergences in nats.

    Where a table has the gain kept, that and the KL divergence stand for the share of the experts' accuracy.
    """
    gains = "gain kept" in table["rows"][0]
    wanted = ("mean", "gain kept", "storage", "kl from experts") if gains else ("mean", "share of experts", "storage")
    extra = [c for c in wanted if c in table["rows"][0]]
    short, uses = not extra, "uses" in table["rows"][0]
    head = ["", *(["uses of a task"] if uses else []), *table["columns"], *(_HEADS.get(c, c) for c in extra)]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in table["rows"]:
        cells = [row["name"], *([row["uses"]] if uses else [])]
        cells += [cell(row["accuracy"][task], interval=short) for task in table["columns"]]
        cells += [_PLAIN[c](row[c]) if c in _PLAIN else cell(row[c], interval=True) for c in extra]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def over_seeds(tables: Mapping[int, Mapping]) -> dict:
    """Headline tables of several training seeds as one: each row's mean accuracy and share, with 95 % intervals.

    The intervals are Student's, over seeds: they hold what another training would change, not only other images.
    """
    if len(tables) < 2:
        raise DTSError("an interval over seeds needs at least two of them")
    first = next(iter(tables.values()))
    rows = []
    for number, row in enumerate(first["rows"]):
        same = [table["rows"][number] for table in tables.values()]
        entry = {key: row[key] for key in ("name", "kind", "uses", "storage") if key in row}
        for column in ("mean", "share of experts", "gain kept"):
            if column in row:
                entry[column] = mean_over([r[column]["value"] for r in same])
        if "gain kept" in row:
            entry["kl from experts"] = mean_over([r["kl from experts"] for r in same])
        entry["per task"] = {t: [r["accuracy"][t]["value"] for r in same] for t in first["columns"]}
        rows.append(entry)
    return {"title": "Over seeds", "seeds": list(tables), "rows": rows, "provenance": provenance()}


def seeds_markdown(table: Mapping) -> str:
    """The table of ``over_seeds`` as Markdown: each seed's mean, and the mean over seeds with its interval."""
    columns = [c for c in ("mean", "share of experts", "gain kept") if c in table["rows"][0]]
    divergences = "kl from experts" in table["rows"][0]
    head = ["", *(f"seed {seed}" for seed in table["seeds"]), *columns]
    head += ["KL from the expert (nats)"] if divergences else []
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in table["rows"]:
        means = [f"{100 * value:.1f}" for value in row["mean"]["each"]]
        cells = [row["name"], *means, *(cell(row[c], interval=True) for c in columns)]
        if divergences:
            kl = row["kl from experts"]
            cells.append(f"{kl['value']:.4f} [{kl['low']:.4f}, {kl['high']:.4f}]")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _fused(base: State, deltas: list, weights: Mapping[str, Tensor], task: str) -> State:
    return fuse(base, deltas, weights[task])


def _right(suite: Suite, answers: Mapping[str, Mapping[str, Tensor]], split: str) -> dict[str, dict[str, Tensor]]:
    return {
        name: {task: found.argmax(1) == suite.inputs(task, split)[1] for task, found in by_task.items()}
        for name, by_task in answers.items()
    }


def _mean(right: Mapping[str, Tensor]) -> float:
    return sum(r.float().mean().item() for r in right.values()) / len(right)


def _accuracies(name: str, right: Mapping[str, Tensor], draws: Tensor) -> dict:
    cells = {t: estimate_of(r, draws[:, i]) for i, (t, r) in enumerate(right.items())}
    return {"name": name, "accuracy": cells}


def cell(entry: Mapping[str, float], *, interval: bool) -> str:
    """An estimate in [0, 1] as people read it, in %: 93.8, or with its interval 93.8 [93.3, 94.3].

    One without any width stands alone: a row beside itself is no estimate.
    """
    text = f"{100 * entry['value']:.1f}"
    wide = interval and entry["low"] < entry["high"]
    return f"{text} [{100 * entry['low']:.1f}, {100 * entry['high']:.1f}]" if wide else text
