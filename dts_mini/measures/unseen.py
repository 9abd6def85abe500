"""Unseen tasks measured: every way to hold out one task or two, every weighting and descriptor.

``measure`` gives, for each held-out set, which test images are right, and how the seen tasks fare when each is left out
in turn, on validation images; ``dts_mini.measures.cases`` puts that together. Unseen tasks' images are read for the
report alone.

``python -m dts_mini.measures.unseen`` writes ``data/mini/unseen.json``. It takes about fifteen minutes a seed on one
thread. Each seed has a file of its own under ``--work``, written after every held-out set: a run that was stopped goes
on where it was. ``--seeds 1 2`` takes the experts that ``SEED=n make zoo`` trained, seed 0 the committed ones.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from dts_mini.core.errors import DTSError
from dts_mini.core.file import check_writable, read_bytes, write_json
from dts_mini.core.merging import average
from dts_mini.core.personal import fusion_weights, personalise
from dts_mini.core.state import State
from dts_mini.measures.cases import SHARES, report, summary, to_hex
from dts_mini.measures.descriptors import DESCRIPTORS, sentences
from dts_mini.measures.estimates import provenance
from dts_mini.ours.weightings import WEIGHTINGS, hedged_weights, nearness, uniform_weights
from dts_mini.suites.mini.suite import DATA, MiniSuite
from dts_mini.suites.suite import ImageSuite, Suite

KEEP_RATIO = 0.1
VALIDATION, TEST = 250, 600  # images a task, the first ones: what keeps one seed near fifteen minutes on one thread
RESULTS = DATA / "unseen.json"


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
        """Which of a task's first inputs (n,) a model answers rightly."""
        inputs, labels = self.suite.inputs(task, split)
        few = inputs[: self.images[split]]
        return self.suite.answers(self.state(vector), task, few).argmax(1) == labels[: len(few)]

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
        """Accuracies on validation images of the seen tasks, left out in turn: rows, a number a task; and nearness.

        Nothing is compressed here: over an average, exact remainders with weights that sum to w make w times the
        weighted mean of the experts and 1 - w times the average.
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
    sets: Sequence[tuple[str, ...]] | None = None,
) -> list[dict]:
    """An entry for each held-out set: its seen tasks left out in turn, its own tasks' nearness and right images (hex).

    ``sets`` are those to hold out, by default every task and every pair.

    The first descriptor is what hedges are made with. ``done`` holds entries of an earlier run, which are not measured
    again; ``progress`` gets all entries so far.
    """
    bench, entries = Bench(suite, descriptors, validation, test), list(done)
    known = {tuple(entry["held out"]) for entry in entries}
    for held in held_out(suite.tasks) if sets is None else sets:
        if held in known:
            continue
        seen = [task for task in suite.tasks if task not in held]
        near = {task: {n: round(nearness(*bench.about(n, task, seen)), 5) for n in descriptors} for task in held}
        rows = bench.case_rows(seen, held)
        right = {task: {row: to_hex(bits) for row, bits in by_row.items()} for task, by_row in rows.items()}
        entries.append({"held out": list(held), "left out": bench.left_out(seen), "nearness": near, "right": right})
        progress(entries)
    return entries


def run(seeds: list[int], zoo: Path, work: Path, images: int, validation: int, with_sentences: bool, out: Path) -> dict:
    """Measures the mini suite's zoos where they are not measured yet; writes and prints the summary of all seeds."""
    suites = {seed: MiniSuite.of_seed(seed, zoo) for seed in seeds}
    makers = DESCRIPTORS | ({"sentences": sentences} if with_sentences else {})
    result = measured(suites, work, out, makers, images, validation)
    print(report(result))
    return result


def measured(
    suites: Mapping[int, ImageSuite],
    work: Path,
    out: Path,
    makers: Mapping[str, Callable[[ImageSuite], Tensor]],
    images: int,
    validation: int,
    sets: Sequence[tuple[str, ...]] | None = None,
) -> dict:
    """Measures what is not measured yet of a suite's seeds, a file each in ``work``; writes all of it to ``out``."""
    check_writable(out, overwrite=True)
    work.mkdir(parents=True, exist_ok=True)
    settings = {"images": images, "validation": validation, "descriptors": list(makers), "keep ratio": KEEP_RATIO}
    entries = {}
    for seed, suite in suites.items():
        descriptors = {name: make(suite) for name, make in makers.items()}
        path = work / f"seed_{seed}.json"
        own = held_out(suite.tasks) if sets is None else sets

        def save(so_far: list[dict], path=path, seed=seed, own=own) -> None:
            write_json({"settings": settings, "entries": so_far}, path, overwrite=True)
            print(f"  seed {seed}: {len(so_far)} of {len(own)} held-out sets", file=sys.stderr, flush=True)

        entries[seed] = measure(suite, descriptors, resumed(path, settings), validation, images, save, own)
    name = next(iter(suites.values())).name
    result = {"title": "Unseen tasks", "suite": name, "split": "test", "seeds": list(suites), **settings}
    result |= {"images": f"the first {images} test and {validation} validation images of each task"}
    result |= summary(entries, images) | {"provenance": provenance()}
    write_json(result, out, overwrite=True)
    return result


def resumed(path: Path, settings: dict) -> list[dict]:
    """The entries of an earlier run with these settings; DTSError for one with others."""
    if not path.exists():
        return []
    try:
        found = json.loads(read_bytes(path))
        earlier, entries = found["settings"], found["entries"]
    except (ValueError, KeyError, TypeError) as error:
        raise DTSError(f"{path}: is no file of an earlier run ({error}); delete it, or pass another --work") from error
    if earlier != settings:
        raise DTSError(f"{path}: was measured with other settings; delete it, or pass another --work")
    return entries


def main(arguments: list[str] | None = None) -> int:
    """The command; returns 0, or 1 after saying what was wrong with the input."""
    parser = argparse.ArgumentParser(description="Measures tasks that nobody fine-tuned and writes the results.")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="0 is the committed zoo")
    parser.add_argument("--zoo", type=Path, default=Path("build/zoo"), help="where make zoo put other seeds")
    parser.add_argument("--work", type=Path, default=Path("build/unseen"), help="a file a seed, to go on from")
    parser.add_argument("--images", type=int, default=TEST, help="test images a task, the first ones")
    parser.add_argument("--validation", type=int, default=VALIDATION, help="validation images a task, likewise")
    parser.add_argument("--sentences", action="store_true", help="also the sentence encoder (the extra 'sentences')")
    parser.add_argument("--out", type=Path, default=RESULTS)
    o = parser.parse_args(arguments)
    try:
        run(o.seeds, o.zoo, o.work, o.images, o.validation, o.sentences, o.out)
    except DTSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
