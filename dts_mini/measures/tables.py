"""The two tables of the project: personalised merging beside every merge, and tasks that nobody fine-tuned.

Each is plain data (for JSON): a title, columns, and rows with an estimate and a 95 % bootstrap interval over test
images for every entry, in [0, 1]; ``markdown`` writes it for people.
"""

import functools
import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from dts_mini.core.delta import TaskDelta, rebuild, storage
from dts_mini.core.errors import DTSError
from dts_mini.core.merging import average, consensus, dare, iso_c, task_arithmetic, ties, tsv_m
from dts_mini.core.personal import fuse, fusion_weights, personalise
from dts_mini.core.state import State, fingerprint
from dts_mini.measures.estimates import estimate, mean_over, provenance
from dts_mini.suites.evaluation import bootstrap, divergence, logits
from dts_mini.suites.suite import Suite

KEEP_RATIOS = (0.05, 0.1, 0.3)
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
KINDS = ("zero-shot", "base merge", "DTS-T", "DTS-D", "experts", "one seen expert", "DTS unseen", "oracle")
Progress = Callable[[str], None]


def headline(suite: Suite, split: str = "test", progress: Progress = lambda row: None) -> dict:
    """Zero-shot, base merges, DTS-T and DTS-D, and the experts: accuracy, KL divergence from the experts, storage.

    DTS-T and DTS-D over two merges stand at three keep ratios, DTS-D over the others at one.
    ``storage`` is what each task adds to the shared model: the mean size of its file, as a share of a float32 expert.
    """
    theta_0, experts = suite.pretrained(), {task: suite.expert(task) for task in suite.tasks}
    merges = base_merges(theta_0, list(experts.values()), suite)
    reference = {task: logits(suite, expert, task, split) for task, expert in experts.items()}
    answers: dict[str, dict[str, Tensor]] = {}
    shares: dict[str, float] = {}
    for name, state in {"zero-shot": theta_0, **merges}.items():
        progress(name)
        answers[name], shares[name] = {task: logits(suite, state, task, split) for task in suite.tasks}, 0.0
    bases = {"DTS-T": theta_0} | {f"DTS-D, {name}": merges[name] for name in (*PAPER_BASES, *OTHER_BASES)}
    for method, base in bases.items():
        for keep_ratio in (0.1,) if method.endswith(OTHER_BASES) else KEEP_RATIOS:
            name = f"{method}, {keep_ratio}"
            progress(name)
            made = deltas(suite, base, experts, keep_ratio=keep_ratio)
            answers[name] = {t: logits(suite, rebuild(base, delta), t, split) for t, delta in made.items()}
            shares[name] = sum(storage(delta).share("file") for delta in made.values()) / len(made)
    answers["experts"], shares["experts"] = reference, 1.0
    right = _right(suite, answers, split)
    draws = bootstrap(right)
    rows = []
    for name in answers:
        row = _accuracies(name, right[name], draws[name])
        row["mean"] = estimate(_mean(right[name]), draws[name].mean(1))
        kept = draws[name].mean(1) / draws["experts"].mean(1)
        row["share of experts"] = estimate(_mean(right[name]) / _mean(right["experts"]), kept)
        apart = [divergence(reference[task], answers[name][task]).mean() for task in suite.tasks]
        row["kl from experts"] = round(torch.stack(apart).mean().item(), 5)
        row["storage"] = round(shares[name], 6)
        rows.append(row)
    return {"title": "Personalised merging", "suite": suite.name, "split": split, "columns": list(suite.tasks)} | {
        "rows": rows,
        "provenance": provenance(),
    }


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
    settings = {"algorithm": "full"} | settings
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
    compressed = (1 + len(PAPER_BASES)) * len(KEEP_RATIOS) + len(OTHER_BASES)
    return {
        "headline": 2 + len(MERGES) + compressed,
        "unseen": 2 + len(MERGES) + len(PAPER_BASES) + seen,
        "deltas": compressed * len(suite.tasks) + len(PAPER_BASES) * seen,
    }


def kind(row: str) -> str:
    """What kind of row of a table this is, by its name: one of KINDS; DTSError for a name that is of none.

    >>> kind("TSV-M"), kind("DTS-D, TIES, 0.1"), kind("expert of signs")
    ('base merge', 'DTS-D', 'one seen expert')
    """
    if row in MERGES:
        return "base merge"
    found = "one seen expert" if row.startswith("expert of ") else re.split("[,:]", row)[0]
    if found not in KINDS:
        raise DTSError(f"the row {row!r} is of no kind: name it in dts_mini.measures.tables, so that claims see it")
    return found


def rows_of(table: Mapping, *kinds: str, keep_ratio: float | None = None) -> list[Mapping]:
    """Every row of a table that is of these kinds, and of DTS at this keep ratio: what "every merge" means in a claim.

    DTSError where the table has none.

    >>> table = {"rows": [{"name": "TIES"}, {"name": "DTS-T, 0.05"}, {"name": "DTS-D, average, 0.1"}]}
    >>> [row["name"] for row in rows_of(table, "DTS-T", "DTS-D", keep_ratio=0.1)]
    ['DTS-D, average, 0.1']
    """
    rows = [row for row in table["rows"] if kind(row["name"]) in kinds]
    if keep_ratio is not None:
        rows = [row for row in rows if row["name"].endswith(f", {keep_ratio}")]
    if not rows:
        raise DTSError(f"the table has no row of the kind {' or '.join(kinds)}: measure it again")
    return rows


def by_variant(table: Mapping) -> dict[str, list[Mapping]]:
    """The rows of a headline table, by DTS variant and by rising keep ratio; of variants with one keep ratio none."""
    found: dict[str, list] = {}
    for row in table["rows"]:
        if row["name"].startswith("DTS"):
            found.setdefault(row["name"].rsplit(", ", 1)[0], []).append(row)
    return {name: rows for name, rows in found.items() if len(rows) > 1}


def markdown(table: Mapping) -> str:
    """A table as Markdown: accuracies in %, the mean and the share with their intervals."""
    extra = [c for c in ("mean", "share of experts", "storage") if c in table["rows"][0]]
    short = not extra
    head = ["", *table["columns"], *extra]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in table["rows"]:
        cells = [row["name"], *(_cell(row["accuracy"][task], interval=short) for task in table["columns"])]
        cells += [f"{100 * row[c]:.2f} %" if c == "storage" else _cell(row[c], interval=True) for c in extra]
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
        entry = {"name": row["name"], "storage": row["storage"]}
        for column in ("mean", "share of experts"):
            entry[column] = mean_over([r[column]["value"] for r in same])
        entry["per task"] = {t: [r["accuracy"][t]["value"] for r in same] for t in first["columns"]}
        rows.append(entry)
    return {"title": "Over seeds", "seeds": list(tables), "rows": rows, "provenance": provenance()}


def seeds_markdown(table: Mapping) -> str:
    """The table of ``over_seeds`` as Markdown: each seed's mean, and the mean over seeds with its interval."""
    head = ["", *(f"seed {seed}" for seed in table["seeds"]), "mean", "share of experts"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in table["rows"]:
        means = [f"{100 * value:.1f}" for value in row["mean"]["each"]]
        cells = [row["name"], *means, *(_cell(row[c], interval=True) for c in ("mean", "share of experts"))]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _fused(base: State, deltas: list, weights: Mapping[str, Tensor], task: str) -> State:
    return fuse(base, deltas, weights[task])


def _right(suite: Suite, answers: Mapping[str, Mapping[str, Tensor]], split: str) -> dict[str, dict[str, Tensor]]:
    return {
        name: {task: found.argmax(1) == suite.images(task, split)[1] for task, found in by_task.items()}
        for name, by_task in answers.items()
    }


def _mean(right: Mapping[str, Tensor]) -> float:
    return sum(r.float().mean().item() for r in right.values()) / len(right)


def _accuracies(name: str, right: Mapping[str, Tensor], draws: Tensor) -> dict:
    cells = {t: estimate(r.float().mean().item(), draws[:, i]) for i, (t, r) in enumerate(right.items())}
    return {"name": name, "accuracy": cells}


def _cell(entry: Mapping[str, float], *, interval: bool) -> str:
    text = f"{100 * entry['value']:.1f}"
    return f"{text} [{100 * entry['low']:.1f}, {100 * entry['high']:.1f}]" if interval else text
