"""Every way to hold out one task or two: when does fusion help a task that nobody fine-tuned, and can one tell before?

A *case* is a set of held-out tasks and one of them to answer. ``measure`` gives, for each case and row, which test images
are right, and how seen tasks fare when each is left out in turn, on validation images. From the latter ``decide``
chooses; ``summary`` puts cases and seeds together. Unseen tasks' images are read for the report alone.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional as F

from dts_mini.core.errors import DTSError
from dts_mini.core.merging import average
from dts_mini.core.personal import fusion_weights, personalise
from dts_mini.core.state import State
from dts_mini.ours.weightings import WEIGHTINGS, abstention, hedged_weights, least_regret, nearness, uniform_weights
from dts_mini.suites.evaluation import interval
from dts_mini.suites.streams import stream
from dts_mini.suites.suite import Suite

KEEP_RATIO = 0.1
VALIDATION, TEST = 250, 600  # images a task, the first ones: what keeps one seed near fifteen minutes on one thread
BATCH = 100  # images at once: on one thread larger batches are slower
FALLBACKS = ("base merge", "zero-shot", "half way")
SHARES = (0.5, 0.75, 1.0)
"""How far a hedge may go from theta_0 (0) to the base with ``hedged_weights`` of prompts fused in (1)."""
Case = tuple[tuple[str, ...], str]


def held_out(tasks: Sequence[str]) -> list[tuple[str, ...]]:
    """Every single task and every pair, pairs last."""
    return [held for size in (1, 2) for held in itertools.combinations(tasks, size)]


class Bench:
    """A suite's models as flat vectors, so that a fused model is a product; and what they answer, on few images."""

    def __init__(self, suite: Suite, descriptors: Mapping[str, Tensor], validation: int, test: int) -> None:
        self.suite, self.images = suite, {"validation": validation, "test": test}
        self.layout = {name: tensor.shape for name, tensor in suite.pretrained().items()}
        self.theta_0 = self.flat(suite.pretrained())
        self.experts = {task: self.flat(suite.expert(task)) for task in suite.tasks}
        at = {task: number for number, task in enumerate(suite.tasks)}
        self.descriptors = {name: {t: rows[at[t]] for t in suite.tasks} for name, rows in descriptors.items()}
        self.zero_shot: dict[tuple[str, str], Tensor] = {}

    def flat(self, state: State) -> Tensor:
        return torch.cat([state[name].reshape(-1) for name in self.layout])

    def state(self, vector: Tensor) -> State:
        parts = vector.split([shape.numel() for shape in self.layout.values()])
        return {name: part.view(shape) for (name, shape), part in zip(self.layout.items(), parts, strict=True)}

    @torch.no_grad()
    def right(self, vector: Tensor, task: str, split: str) -> Tensor:
        """Which of a task's first images (n,) a model answers rightly."""
        tower, most = self.suite.tower(), self.images[split]
        tower.load_state_dict(self.state(vector))
        pixels, labels = self.suite.images(task, split)
        units = [F.normalize(tower(part), dim=-1) for part in pixels[:most].split(BATCH)]
        return (torch.cat(units) @ self.suite.head(task).T).argmax(1) == labels[:most]

    def of_zero_shot(self, task: str, split: str) -> Tensor:
        if (task, split) not in self.zero_shot:
            self.zero_shot[task, split] = self.right(self.theta_0, task, split)
        return self.zero_shot[task, split]

    def about(self, descriptor: str, task: str, seen: Sequence[str]) -> tuple[Tensor, Tensor]:
        """The descriptors of a task and of seen ones."""
        rows = self.descriptors[descriptor]
        return rows[task], torch.stack([rows[other] for other in seen])

    def hedges(
        self, base: Tensor, fused: Callable[[Tensor], Tensor], about: tuple[Tensor, Tensor]
    ) -> dict[str, Tensor]:
        """The models (row -> vector) between theta_0 and what ``fused`` makes of the hedged weights.

        The share of "hedge by nearness" is the nearness itself: nothing in it is chosen.
        """
        step = fused(hedged_weights(*about)) - self.theta_0
        found = {"half way": (self.theta_0 + base) / 2}
        found |= {f"hedge {share}": self.theta_0 + share * step for share in SHARES}
        return found | {"hedge by nearness": self.theta_0 + max(nearness(*about), 0.0) * step}

    def left_out(self, seen: Sequence[str]) -> dict[str, dict[str, list[float]]]:
        """Accuracies on validation images of the seen tasks, each left out in turn: rows, a number a task; and nearness.

        Nothing is compressed here: over an average, exact remainders with weights that sum to w make w times the weighted
        mean of the experts and 1 - w times the average.
        """
        accuracies: dict[str, list[float]] = {}
        near = {name: [] for name in self.descriptors}
        for task in seen:
            others = [other for other in seen if other != task]
            experts = torch.stack([self.experts[other] for other in others])
            base = experts.mean(0)
            fused = lambda weights, base=base, experts=experts: weights @ experts + (1 - weights.sum()) * base
            about = {name: self.about(name, task, others) for name in self.descriptors}
            models = {"base merge": base, **self.hedges(base, fused, about[next(iter(about))])}
            models |= {f"cosine, {name}": fused(fusion_weights(*rows)) for name, rows in about.items()}
            right = {"zero-shot": self.of_zero_shot(task, "validation")}
            right |= {row: self.right(vector, task, "validation") for row, vector in models.items()}
            for row, bits in right.items():
                accuracies.setdefault(row, []).append(round(bits.float().mean().item(), 5))
            for name, rows in about.items():
                near[name].append(round(nearness(*rows), 5))
        return {"accuracies": accuracies, "nearness": near}

    def case_rows(self, seen: Sequence[str], tasks: Sequence[str]) -> dict[str, dict[str, Tensor]]:
        """{task: {row: right (n,)}} on test for held-out ``tasks``, from the experts of ``seen`` ones."""
        experts = {task: self.suite.expert(task) for task in seen}
        merged = average(list(experts.values()))
        deltas = personalise(merged, experts, keep_ratio=KEEP_RATIO).values()
        zero = {name: torch.zeros(shape) for name, shape in self.layout.items()}
        left = [{name: delta.remainder(name) for name in delta.parts} for delta in deltas]
        remainders = torch.stack([self.flat({n: zero[n] if x is None else x for n, x in r.items()}) for r in left])
        base, answers = self.flat(merged), {}
        fused = lambda weights: base + weights @ remainders
        for task in tasks:
            about = {name: self.about(name, task, seen) for name in self.descriptors}
            prompts = about[next(iter(about))]
            models = {"base merge": base, "uniform": fused(uniform_weights(*prompts))}
            models |= self.hedges(base, fused, prompts)
            weights = {f"{how}, {name}": weigh(*about[name]) for name in about for how, weigh in WEIGHTINGS.items()}
            rows = {"zero-shot": self.of_zero_shot(task, "test")}
            rows |= {row: self.right(vector, task, "test") for row, vector in models.items()}
            memo: dict[tuple[float, ...], Tensor] = {}  # twins of two descriptors often get the same weights
            for row, one in weights.items():
                key = tuple(round(weight, 4) for weight in one.tolist())
                if key not in memo:
                    memo[key] = self.right(fused(one), task, "test")
                rows[row] = memo[key]
            answers[task] = rows | {"oracle": self.right(self.experts[task], task, "test")}
        return answers


def measure(
    suite: Suite,
    descriptors: Mapping[str, Tensor],
    done: Sequence[Mapping] = (),
    validation: int = VALIDATION,
    test: int = TEST,
    progress: Callable[[list[dict]], None] = lambda entries: None,
) -> list[dict]:
    """An entry for each held-out set: seen tasks left out in turn, and of its own tasks nearness and right images as hex.

    The first descriptor is what hedges are made with. ``done`` holds entries of an earlier run, which are not measured
    again; ``progress`` gets all entries so far.
    """
    bench, entries = Bench(suite, descriptors, validation, test), list(done)
    known = {tuple(entry["held out"]) for entry in entries}
    for held in held_out(suite.tasks):
        if held in known:
            continue
        seen = [task for task in suite.tasks if task not in held]
        near = {task: {n: round(nearness(*bench.about(n, task, seen)), 5) for n in descriptors} for task in held}
        rows = bench.case_rows(seen, held)
        right = {task: {row: to_hex(bits) for row, bits in by_row.items()} for task, by_row in rows.items()}
        entries.append({"held out": list(held), "left out": bench.left_out(seen), "nearness": near, "right": right})
        progress(entries)
    return entries


def decide(left_out: Mapping[str, Mapping[str, Sequence[float]]]) -> dict:
    """What the seen tasks, left out in turn, say: fallback, thresholds, descriptor and the hedge's share.

    Fallback and share are those of least regret against the better of zero-shot and base merge; a threshold and
    the descriptor are those whose fused tasks gain most on the fallback.
    """
    rows, near = left_out["accuracies"], left_out["nearness"]
    better = [max(pair) for pair in zip(rows["zero-shot"], rows["base merge"], strict=True)]
    fallback = least_regret({name: rows[name] for name in FALLBACKS}, better)
    share = least_regret({share: rows[f"hedge {share}"] for share in SHARES}, better)
    gains = {n: [a - b for a, b in zip(rows[f"cosine, {n}"], rows[fallback], strict=True)] for n in near}
    thresholds = {name: abstention(near[name], gains[name]) for name in near}
    worth = {n: sum(g for c, g in zip(near[n], gains[n], strict=True) if c >= thresholds[n]) for n in near}
    return {"fallback": fallback, "thresholds": thresholds, "descriptor": max(worth, key=worth.get), "share": share}


def decided(entry: Mapping) -> dict[str, dict[str, str]]:
    """{task: {row: right as hex}} of an entry, with the rows that ``decide`` makes of those that were measured."""
    choices, found = decide(entry["left out"]), {}
    for task, rows in entry["right"].items():
        made = {}
        for name, threshold in choices["thresholds"].items():
            fuses = entry["nearness"][task][name] >= threshold
            made[f"abstain, {name}"] = rows[f"cosine, {name}" if fuses else choices["fallback"]]
        made["abstain, chosen"] = made[f"abstain, {choices['descriptor']}"]
        made["hedge, chosen"] = rows[f"hedge {choices['share']}"]
        found[task] = rows | made
    return found


def summary(seeds: Mapping[int, Sequence[Mapping]], test: int = TEST, draws: int = 1_000) -> dict:
    """Rows with accuracies and gains over all cases of all seeds; intervals over test images, and over seeds.

    An entry's ``low`` and ``high`` resample a task's test images, alike for all rows and seeds; with several seeds
    ``each`` is one value a seed and ``over seeds`` Student's interval. ``worst`` is the least gain in any case on the
    better of zero-shot and base merge, which is itself chosen on these test images and so flattered; with the interval
    of that case. A case is *surely* more than a point below where all of its interval is.
    """
    if not seeds:
        raise DTSError("no seed was measured; pass at least one")
    entries = [(seed, entry) for seed, several in seeds.items() for entry in several]
    cases = [(seed, (tuple(e["held out"]), task)) for seed, e in entries for task in e["right"]]
    right = {
        (seed, (tuple(e["held out"]), task)): {row: from_hex(text, test) for row, text in by_row.items()}
        for seed, e in entries
        for task, by_row in decided(e).items()
    }
    names = list(right[cases[0]])
    weights = {task: _resampled(task, right, draws) for task in sorted({case[1] for _, case in cases})}
    value = {name: torch.stack([right[case][name].float().mean() for case in cases]) for name in names}
    drawn = {
        name: torch.stack([weights[case[1]] @ right[seed, case][name].float() for seed, case in cases])
        for name in names
    }
    merges = value["base merge"] > value["zero-shot"]
    better = torch.where(merges, value["base merge"], value["zero-shot"])
    better_drawn = torch.where(merges[:, None], drawn["base merge"], drawn["zero-shot"])
    of_seed = torch.tensor([list(seeds).index(seed) for seed, _ in cases])
    rows = []
    for name in names:
        row = {"name": name, "mean": _estimate(value[name], drawn[name], of_seed)}
        for other in ("zero-shot", "base merge"):
            row[f"gain on {other}"] = _estimate(value[name] - value[other], drawn[name] - drawn[other], of_seed)
        gain = value[name] - better
        at = int(gain.argmin())
        held, task = cases[at][1]
        ends = [interval(draws) for draws in drawn[name] - better_drawn]
        row["worst"] = {"value": round(gain[at].item(), 5), "task": task, "held out": list(held), "seed": cases[at][0]}
        row["worst"] |= {"low": round(ends[at][0], 5), "high": round(ends[at][1], 5)}
        row["cases more than a point below"] = int((gain < -0.01 - 1e-6).sum())
        row["cases surely more than a point below"] = sum(high < -0.01 for _, high in ends)
        here = {task: torch.tensor([case[1] == task for _, case in cases]) for task in weights}
        row["accuracy"] = {t: _estimate(value[name][m], drawn[name][m], of_seed[m]) for t, m in here.items()}
        rows.append(row)
    chosen = [{"seed": seed, "held out": entry["held out"], **decide(entry["left out"])} for seed, entry in entries]
    return {"cases": len(cases), "rows": rows, "beforehand": _beforehand(entries, cases, value), "choices": chosen}


def _beforehand(entries: Sequence, cases: Sequence, value: Mapping[str, Tensor]) -> dict:
    """Spearman's rank correlations of nearness, a descriptor each: with what the paper's weights gain on the base merge,
    and with what the base merge gains on zero-shot. Cases of one task are alike: tasks, not cases, are what is drawn.
    """
    found = {}
    merged = (value["base merge"] - value["zero-shot"]).tolist()
    for name in entries[0][1]["left out"]["nearness"]:
        near = [entry["nearness"][task][name] for _, entry in entries for task in entry["right"]]
        fused = (value[f"cosine, {name}"] - value["base merge"]).tolist()
        points = [
            {"task": case[1], "nearness": n, "fused on base merge": round(f, 5), "base merge on zero-shot": round(m, 5)}
            for (_, case), n, f, m in zip(cases, near, fused, merged, strict=True)
        ]
        rank = lambda gain, near=near: round(float(stats.spearmanr(near, gain).statistic), 4)
        found[name] = {"fused on base merge": rank(fused), "base merge on zero-shot": rank(merged), "points": points}
    return found


def _resampled(task: str, right: Mapping, draws: int) -> Tensor:
    """Weights (draws, n) of a task's test images when they are drawn anew."""
    n = next(len(rows["zero-shot"]) for (_, case), rows in right.items() if case[1] == task)
    picks = torch.randint(n, (draws, n), generator=stream("unseen bootstrap", task))
    return torch.zeros(draws, n).scatter_add_(1, picks, torch.full((draws, n), 1 / n))


def _estimate(values: Tensor, draws: Tensor, of_seed: Tensor) -> dict:
    low, high = interval(draws.mean(0))
    entry = {"value": round(values.mean().item(), 5), "low": round(low, 5), "high": round(high, 5)}
    each = torch.stack([values[of_seed == seed].mean() for seed in of_seed.unique()]).double()
    if len(each) > 1:
        entry["each"] = [round(value, 5) for value in each.tolist()]
        half = stats.t.ppf(0.975, len(each) - 1) * each.std().item() / len(each) ** 0.5
        entry["over seeds"] = [round(each.mean().item() - half, 5), round(each.mean().item() + half, 5)]
    return entry


def to_hex(bits: Tensor) -> str:
    """Bits (n,) as hexadecimal digits, the first bit highest."""
    return np.packbits(bits.numpy()).tobytes().hex()


def from_hex(text: str, n: int) -> Tensor:
    """The first ``n`` bits that ``to_hex`` wrote, or all of them where they are fewer; DTSError for bits that are lost."""
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(text), dtype=np.uint8))
    if len(bits) < n:
        raise DTSError(f"{len(bits)} images were measured, not {n}: delete the file of that seed, or pass its --images")
    return torch.from_numpy(bits[:n].astype(bool))
