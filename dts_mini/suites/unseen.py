"""Every way to hold out one task or two: when does fusion help a task that nobody fine-tuned, and can one tell before?

A *case* is a set of held-out tasks and one of them to answer. ``measure`` gives, for each case and row, which test images
are right; ``summary`` puts cases and seeds together. Choices are made on validation images of seen tasks, left out in
turn; unseen tasks' images are read for the report alone.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional as F

from dts_mini.core.errors import DTSError
from dts_mini.core.fusion import WEIGHTINGS, abstention, choose_fallback, nearness, uniform_weights
from dts_mini.core.merging import average
from dts_mini.core.personal import fusion_weights, personalise
from dts_mini.core.state import State
from dts_mini.suites.evaluation import interval
from dts_mini.suites.streams import stream
from dts_mini.suites.suite import Suite

KEEP_RATIO = 0.1
VALIDATION, TEST = 150, 300  # images a task, the first ones: what keeps one seed near ten minutes on one thread
FALLBACKS = ("base merge", "zero-shot", "half way")
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
        units = [F.normalize(tower(part), dim=-1) for part in pixels[:most].split(500)]
        return (torch.cat(units) @ self.suite.head(task).T).argmax(1) == labels[:most]

    def of_zero_shot(self, task: str, split: str) -> Tensor:
        if (task, split) not in self.zero_shot:
            self.zero_shot[task, split] = self.right(self.theta_0, task, split)
        return self.zero_shot[task, split]

    def about(self, descriptor: str, task: str, seen: Sequence[str]) -> tuple[Tensor, Tensor]:
        """The descriptors of a task and of seen ones."""
        rows = self.descriptors[descriptor]
        return rows[task], torch.stack([rows[other] for other in seen])

    def choices(self, seen: Sequence[str]) -> dict:
        """Fallback and thresholds, chosen on validation images of the seen tasks, each left out in turn.

        Nothing is compressed here: over an average, exact remainders with weights that sum to one make the weighted
        mean of the experts.
        """
        rows = {name: [] for name in (*FALLBACKS, *self.descriptors)}
        near = {name: [] for name in self.descriptors}
        for task in seen:
            others = [other for other in seen if other != task]
            experts = torch.stack([self.experts[other] for other in others])
            base = experts.mean(0)
            accuracy = lambda vector, task=task: self.right(vector, task, "validation").float().mean().item()
            rows["base merge"].append(accuracy(base))
            rows["zero-shot"].append(self.of_zero_shot(task, "validation").float().mean().item())
            rows["half way"].append(accuracy((base + self.theta_0) / 2))
            for name in self.descriptors:
                about = self.about(name, task, others)
                near[name].append(nearness(*about))
                rows[name].append(accuracy(fusion_weights(*about) @ experts))
        fallback = choose_fallback({name: rows[name] for name in FALLBACKS})
        gains = {n: [a - b for a, b in zip(rows[n], rows[fallback], strict=True)] for n in self.descriptors}
        thresholds = {name: abstention(near[name], gains[name]) for name in self.descriptors}
        worth = {n: sum(g for c, g in zip(near[n], gains[n], strict=True) if c >= thresholds[n]) for n in thresholds}
        return {"fallback": fallback, "thresholds": thresholds, "descriptor": max(worth, key=worth.get)}

    def case_rows(self, seen: Sequence[str], tasks: Sequence[str], choices: Mapping) -> dict[str, dict[str, Tensor]]:
        """{task: {row: right (n,)}} on test for held-out ``tasks``, from the experts of ``seen`` ones."""
        experts = {task: self.suite.expert(task) for task in seen}
        merged = average(list(experts.values()))
        deltas = personalise(merged, experts, keep_ratio=KEEP_RATIO).values()
        zero = {name: torch.zeros(shape) for name, shape in self.layout.items()}
        left = [{name: delta.remainder(name) for name in delta.parts} for delta in deltas]
        remainders = torch.stack([self.flat({n: zero[n] if x is None else x for n, x in r.items()}) for r in left])
        base, answers = self.flat(merged), {}
        for task in tasks:
            memo: dict[tuple[float, ...], Tensor] = {}

            def fused(weights: Tensor, task=task, memo=memo) -> Tensor:
                key = tuple(round(weight, 4) for weight in weights.tolist())
                if key not in memo:
                    memo[key] = self.right(base + weights @ remainders, task, "test")
                return memo[key]

            rows = {"zero-shot": self.of_zero_shot(task, "test"), "base merge": self.right(base, task, "test")}
            rows["half way"] = self.right((base + self.theta_0) / 2, task, "test")
            rows["uniform"] = fused(uniform_weights(*self.about(next(iter(self.descriptors)), task, seen)))
            for name in self.descriptors:
                about = self.about(name, task, seen)
                rows |= {f"{how}, {name}": fused(weigh(*about)) for how, weigh in WEIGHTINGS.items()}
                fuses = nearness(*about) >= choices["thresholds"][name]
                rows[f"abstain, {name}"] = rows[f"cosine, {name}" if fuses else choices["fallback"]]
            rows["abstain, chosen"] = rows[f"abstain, {choices['descriptor']}"]
            rows["oracle"] = self.right(self.experts[task], task, "test")
            answers[task] = rows
        return answers


def measure(
    suite: Suite,
    descriptors: Mapping[str, Tensor],
    done: Sequence[Mapping] = (),
    validation: int = VALIDATION,
    test: int = TEST,
    progress: Callable[[list[dict]], None] = lambda entries: None,
) -> list[dict]:
    """An entry for each held-out set: what was chosen, and for each of its tasks nearness and right images as hex.

    ``done`` holds entries of an earlier run, which are not measured again; ``progress`` gets all entries so far.
    """
    bench, entries = Bench(suite, descriptors, validation, test), list(done)
    known = {tuple(entry["held out"]) for entry in entries}
    for held in held_out(suite.tasks):
        if held in known:
            continue
        seen = [task for task in suite.tasks if task not in held]
        choices = bench.choices(seen)
        rows = bench.case_rows(seen, held, choices)
        near = {task: {n: round(nearness(*bench.about(n, task, seen)), 5) for n in descriptors} for task in held}
        right = {task: {row: to_hex(bits) for row, bits in by_row.items()} for task, by_row in rows.items()}
        entries.append({"held out": list(held), **choices, "nearness": near, "right": right})
        progress(entries)
    return entries


def summary(seeds: Mapping[int, Sequence[Mapping]], test: int = TEST, draws: int = 1_000) -> dict:
    """Rows with accuracies and gains over all cases of all seeds; intervals over test images, and over seeds.

    An entry's ``low`` and ``high`` resample a task's test images, alike for all rows and seeds; with several seeds
    ``over seeds`` is Student's interval. ``worst`` is the least gain in any case on the better of zero-shot and base merge.
    """
    if not seeds:
        raise DTSError("no seed was measured; pass at least one")
    entries = [(seed, entry) for seed, several in seeds.items() for entry in several]
    cases = [(seed, (tuple(e["held out"]), task)) for seed, e in entries for task in e["right"]]
    right = {
        (seed, (tuple(e["held out"]), task)): {row: from_hex(text, test) for row, text in by_row.items()}
        for seed, e in entries
        for task, by_row in e["right"].items()
    }
    names = list(right[cases[0]])
    weights = {task: _resampled(task, right, draws) for task in sorted({case[1] for _, case in cases})}
    value = {name: torch.stack([right[case][name].float().mean() for case in cases]) for name in names}
    drawn = {
        name: torch.stack([weights[case[1]] @ right[seed, case][name].float() for seed, case in cases])
        for name in names
    }
    better = torch.maximum(value["zero-shot"], value["base merge"])
    of_seed = torch.tensor([list(seeds).index(seed) for seed, _ in cases])
    rows = []
    for name in names:
        row = {"name": name, "mean": _estimate(value[name], drawn[name], of_seed)}
        for other in ("zero-shot", "base merge"):
            row[f"gain on {other}"] = _estimate(value[name] - value[other], drawn[name] - drawn[other], of_seed)
        gain = value[name] - better
        at = int(gain.argmin())
        held, task = cases[at][1]
        row["worst"] = {"value": round(gain[at].item(), 5), "task": task, "held out": list(held), "seed": cases[at][0]}
        row["cases more than a point below"] = int((gain < -0.01 - 1e-6).sum())
        here = {task: torch.tensor([case[1] == task for _, case in cases]) for task in weights}
        row["accuracy"] = {t: _estimate(value[name][m], drawn[name][m], of_seed[m]) for t, m in here.items()}
        rows.append(row)
    return {"cases": len(cases), "rows": rows, "beforehand": _beforehand(entries, cases, value)}


def _beforehand(entries: Sequence, cases: Sequence, value: Mapping[str, Tensor]) -> dict:
    """Spearman's rank correlation of nearness with what the paper's weights gain on the base merge, a descriptor each."""
    found = {}
    for name in entries[0][1]["thresholds"]:
        near = [entry["nearness"][task][name] for _, entry in entries for task in entry["right"]]
        gain = (value[f"cosine, {name}"] - value["base merge"]).tolist()
        points = [
            {"task": case[1], "nearness": n, "gain": round(g, 5)}
            for (_, case), n, g in zip(cases, near, gain, strict=True)
        ]
        found[name] = {"correlation": round(float(stats.spearmanr(near, gain).statistic), 4), "points": points}
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
