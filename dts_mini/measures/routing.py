"""Routing measured: which task does the router choose, and what do the routed experts answer end to end?

``python -m dts_mini.measures.routing`` writes it to ``data/mini/routing.json``: the table of the first seed, and the
means over all of ``--seeds``. A seed takes three minutes on one thread, and is kept under ``--work``.
"""

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from dts_mini.core.delta import rebuild
from dts_mini.core.errors import DTSError
from dts_mini.core.file import check_writable, read_json, write_json
from dts_mini.core.merging import average
from dts_mini.core.personal import personalise
from dts_mini.core.state import State, fingerprint
from dts_mini.measures.estimates import estimate, mean_over, provenance
from dts_mini.measures.tables import base_merges, cell
from dts_mini.ours.router import calibrated, choose, energies, head_scores, subspaces
from dts_mini.suites.evaluation import bootstrap, correct
from dts_mini.suites.mini.suite import DATA, MiniSuite
from dts_mini.suites.suite import ImageSuite

SHARES, MIX = (0.25, 0.5, 1.0), (2.0, 5.0, 10.0, 20.0)
KEEP_RATIO = 0.1
BATCHES = (1, 8, 32)
RESULTS = DATA / "routing.json"
Scores = dict[str, Tensor]  # the evidence of each kind, (n, N), images of all tasks one after the other


def measure(suite: ImageSuite, progress: Callable[[str], None] = lambda step: None) -> dict:
    """Routers by heads, by subspaces and by both, single images and batches of one task, beside oracle and merges.

    The share of the layers, and how much the subspaces count beside the heads, are chosen on validation images. A
    routed answer is right when the class's *name* is, from whichever task; ``task and class`` asks for both.
    """
    theta_0, experts = suite.pretrained(), {task: suite.expert(task) for task in suite.tasks}
    base = average(list(experts.values()))
    deltas = personalise(base, experts, keep_ratio=KEEP_RATIO)
    spaces_of = lambda share: subspaces(_tower(suite, base), deltas, share=share)
    progress("validation")
    truth = _truth(suite, "validation")
    found = {share: _evidence(suite, base, spaces_of(share), "validation") for share in SHARES}
    score = lambda share, mix: (choose(_both(found[share], mix)) == truth).float().mean().item()
    share, mix = max(((s, m) for s in SHARES for m in MIX), key=lambda pair: score(*pair))
    reference = found[share]
    progress("test: the base's pass")
    spaces = spaces_of(share)
    evidence, truth = _evidence(suite, base, spaces, "test"), _truth(suite, "test")
    routers = {
        "heads": evidence["heads"],
        "subspaces": evidence["subspaces"],
        "both": _both(evidence, mix),
        "both, calibrated": sum(calibrated(evidence[kind], reference[kind]) for kind in evidence),
    }
    progress("test: experts")
    table = torch.stack([_answers(suite, rebuild(base, delta), task) for task, delta in deltas.items()])  # (N, n) names
    right_names = torch.cat([_names(suite, task)[suite.images(task, "test")[1]] for task in suite.tasks])
    own = table[truth, torch.arange(len(truth))] == right_names
    rows = [_row(suite, "oracle: task known", own, own)]
    for name, scores in routers.items():
        for batch in BATCHES:
            picks = torch.cat([choose(part, batch) for part in scores.split(_sizes(suite, "test"))])
            right = table[picks, torch.arange(len(truth))] == right_names
            label = name if batch == 1 else f"{name}, batches of {batch}"
            rows.append(_row(suite, label, right, own, picks == truth, right & (picks == truth)))
    progress("merges")
    merges = base_merges(theta_0, list(experts.values()))
    best = max(merges, key=lambda name: _mean(suite, merges[name], "validation"))
    merged = torch.cat([correct(suite, merges[best], task, "test") for task in suite.tasks])
    rows.append(_row(suite, f"best merge, task known: {best}", merged, own))
    every = torch.cat([_names(suite, task) for task in suite.tasks])
    at_once = torch.cat([every[_all_heads(suite, merges[best], t).argmax(1)] for t in suite.tasks]) == right_names
    rows.append(_row(suite, f"best merge, all heads at once: {best}", at_once, own))
    chosen = {"share of layers": share, "mix": mix, "layers": list(spaces), "best merge": best}
    return {"title": "Routing without a task id", "suite": suite.name, "split": "test", "keep ratio": KEEP_RATIO} | {
        "chosen on validation": chosen,
        "extra pass": {"forward passes of the base": 1, "projections, multiplications a token": _cost(spaces)},
        "rows": rows,
    }


def _tower(suite: ImageSuite, state: State):
    tower = suite.tower()
    tower.load_state_dict(state)
    return tower


def _evidence(suite: ImageSuite, base: State, spaces: Mapping, split: str) -> Scores:
    tower, heads = _tower(suite, base), [suite.head(task) for task in suite.tasks]
    parts = {"heads": [], "subspaces": []}
    for task in suite.tasks:
        for pixels in suite.images(task, split)[0].split(500):
            embedding, along = energies(tower, pixels, spaces)
            parts["heads"].append(head_scores(F.normalize(embedding, dim=-1), heads))
            parts["subspaces"].append(along)
    return {name: torch.cat(found) for name, found in parts.items()}


def _both(evidence: Scores, mix: float) -> Tensor:
    return evidence["heads"] + mix * evidence["subspaces"]


def _sizes(suite: ImageSuite, split: str) -> list[int]:
    return [len(suite.images(task, split)[1]) for task in suite.tasks]


def _truth(suite: ImageSuite, split: str) -> Tensor:
    return torch.arange(len(suite.tasks)).repeat_interleave(torch.tensor(_sizes(suite, split)))


def _names(suite: ImageSuite, task: str) -> Tensor:
    """A number for each class name of a task, the same for the same name in other tasks."""
    every = sorted({name for other in suite.tasks for name in suite.classes(other)})
    return torch.tensor([every.index(name) for name in suite.classes(task)])


def _answers(suite: ImageSuite, state: State, task: str) -> Tensor:
    """The class names that a task's expert answers, under its own head, to the test images of all tasks (n,)."""
    tower, head = _tower(suite, state), suite.head(task)
    with torch.no_grad():
        parts = [p for other in suite.tasks for p in suite.images(other, "test")[0].split(500)]
        return _names(suite, task)[torch.cat([(F.normalize(tower(p), dim=-1) @ head.T).argmax(1) for p in parts])]


@torch.no_grad()
def _all_heads(suite: ImageSuite, state: State, task: str) -> Tensor:
    tower, heads = _tower(suite, state), torch.cat([suite.head(other) for other in suite.tasks])
    return torch.cat([F.normalize(tower(p), dim=-1) @ heads.T for p in suite.images(task, "test")[0].split(500)])


def _mean(suite: ImageSuite, state: State, split: str) -> float:
    return sum(correct(suite, state, task, split).float().mean().item() for task in suite.tasks)


def _row(suite: ImageSuite, name: str, right: Tensor, oracle: Tensor, routed: Tensor | None = None, both=None) -> dict:
    sizes = _sizes(suite, "test")
    by_task = lambda bits: dict(zip(suite.tasks, bits.split(sizes), strict=True))
    kinds = {"end to end": right, "oracle": oracle} | ({} if routed is None else {"routing": routed})
    kinds |= {} if both is None else {"task and class": both}
    draws = bootstrap({kind: by_task(bits) for kind, bits in kinds.items()})
    mean = lambda bits: sum(part.float().mean().item() for part in bits.split(sizes)) / len(sizes)
    row = {"name": name, "accuracy": {t: round(b.float().mean().item(), 5) for t, b in by_task(right).items()}}
    for kind in kinds:
        if kind != "oracle":
            row[kind] = estimate(mean(kinds[kind]), draws[kind].mean(1))
    share = draws["end to end"].mean(1) / draws["oracle"].mean(1)
    return row | {"share of oracle": estimate(mean(right) / mean(oracle), share)}


def _cost(spaces: Mapping[str, list[Tensor]]) -> int:
    return sum(vectors.numel() for several in spaces.values() for vectors in several)


def report(result: dict) -> str:
    """The rows of the first seed as text, in %; with several, the means over them below."""
    percent = lambda entry: f"{cell(entry, interval=True):>5}"
    lines = [f"{'':<42}{'routing':<22}{'end to end':<22}share of oracle"]
    for row in result["rows"]:
        routing = percent(row["routing"]) if "routing" in row else ""
        lines.append(f"{row['name']:<42}{routing:<22}{percent(row['end to end']):<22}{percent(row['share of oracle'])}")
    if over := result.get("over seeds"):
        lines += ["", f"means over {len(over['seeds'])} seeds", report(over)]
    return "\n".join(lines)


def over_seeds(tables: Mapping[int, Mapping]) -> dict:
    """Each router over several seeds of experts: means with Student's 95 % intervals.

    A seed chooses its best merge by itself, so that those rows are named without it.
    """
    kinds = ("routing", "end to end", "task and class", "share of oracle")
    rows = []
    for same in zip(*(table["rows"] for table in tables.values()), strict=True):
        measured = {kind: mean_over([row[kind]["value"] for row in same]) for kind in kinds if kind in same[0]}
        rows.append({"name": same[0]["name"].split(": ")[0]} | measured)
    chosen = [table["chosen on validation"] for table in tables.values()]
    return {"seeds": list(tables), "chosen on validation": chosen, "rows": rows}


def run(seeds: list[int], zoo: Path, work: Path, out: Path) -> dict:
    """Measures the seeds that are not measured yet, and writes the table of the first one and the means over all."""
    check_writable(out, overwrite=True)
    suites = {seed: MiniSuite.of_seed(seed, zoo) for seed in seeds}
    tables = {}
    for seed, suite in suites.items():
        path = work / f"seed_{seed}.json"
        made_from = [fingerprint(state) for state in (suite.pretrained(), *map(suite.expert, suite.tasks))]
        if path.exists() and (held := read_json(path))["made from"] == made_from:
            tables[seed] = held["table"]
            continue
        tables[seed] = measure(
            suite, lambda step, seed=seed: print(f"  seed {seed}: {step}", file=sys.stderr, flush=True)
        )
        work.mkdir(parents=True, exist_ok=True)
        write_json({"made from": made_from, "table": tables[seed]}, path, overwrite=True)
    result = tables[seeds[0]] | ({"over seeds": over_seeds(tables)} if len(tables) > 1 else {})
    write_json(result | {"provenance": provenance()}, out, overwrite=True)
    return result


def main(arguments: list[str] | None = None) -> int:
    """The command; returns 0, or 1 after saying what was wrong with the input."""
    parser = argparse.ArgumentParser(description="Measures routing without a task id and writes the results.")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="0 is the committed zoo")
    parser.add_argument("--zoo", type=Path, default=Path("build/zoo"), help="where make zoo put other seeds")
    parser.add_argument("--work", type=Path, default=Path("build/routing"), help="a file a seed, to go on from")
    parser.add_argument("--out", type=Path, default=RESULTS)
    o = parser.parse_args(arguments)
    try:
        result = run(o.seeds, o.zoo, o.work, o.out)
    except DTSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(report(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
