"""A convolutional net merged, or rebuilt from a delta: its BatchNorm's statistics, and its convolutions.

    python -m benchmarks.convolutional [--seeds 0 1 2 3 4] [--page]

A small net is trained from nothing on four tasks of the mini suite together, then fine-tuned for each of the four
others alone, with a new head, which stays the task's own. What each row and column says is in
``docs/how-to/convolutional-nets.md``. About a minute a seed on one core.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.compress import commit
from dts_mini import average, compress, rebuild, storage, task_arithmetic, ties
from dts_mini.core.file import read_bytes, write_bytes, write_json
from dts_mini.ours.statistics import reestimate_statistics
from dts_mini.results import fill
from dts_mini.suites.mini.task import Task
from dts_mini.suites.mini.tasks import TASKS
from dts_mini.suites.streams import stream

ROOT = Path(__file__).resolve().parents[1]
PATH, PAGE = ROOT / "data" / "convolutional.json", ROOT / "docs" / "how-to" / "convolutional-nets.md"
NAMES = ("digits", "house numbers", "signs", "land cover")
TRAIN, TEST, UNLABELLED = 2_000, 500, 256
STEPS, BATCH, RATE = {"together": 500, "alone": 300}, 64, 3e-3
State = dict[str, Tensor]
HIDDEN = "running_", "counted_"  # under another name no merge and no delta knows a statistic


def net() -> nn.Sequential:
    """Three convolutions with BatchNorm (32, 64, 128 channels), each halving the image: 93,000 weights, no head."""
    layers: list[nn.Module] = []
    for into, out in (3, 32), (32, 64), (64, 128):
        layers += [nn.Conv2d(into, out, 3, 2, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten())


def fit(body: nn.Module, head: nn.Linear, images: Tensor, labels: Tensor, steps: int, g: torch.Generator) -> None:
    """AdamW with the rate falling to zero."""
    optimiser = torch.optim.AdamW([*body.parameters(), *head.parameters()], RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1, 0.01, steps)
    body.train()
    for _ in range(steps):
        rows = torch.randint(len(images), (BATCH,), generator=g)
        optimiser.zero_grad()
        F.cross_entropy(head(body(images[rows])), labels[rows]).backward()
        optimiser.step()
        schedule.step()
    body.eval()


def state_of(body: nn.Module) -> State:
    return {name: tensor.detach().clone() for name, tensor in body.state_dict().items()}


def hidden(work: Callable[..., State]) -> Callable[..., State]:
    """``work`` on state dicts in which statistics go by another name, so that they are taken for weights."""

    def call(*states: State) -> State:
        renamed = [{name.replace(*HIDDEN): tensor for name, tensor in state.items()} for state in states]
        return {name.replace(*HIDDEN[::-1]): tensor for name, tensor in work(*renamed).items()}

    return call


def with_statistics(state: State, source: State) -> State:
    return {name: source[name] if "running_" in name else tensor for name, tensor in state.items()}


def draw(task: Task, split: str, n: int, seed: int) -> tuple[Tensor, Tensor]:
    raw, labels = task.images(split, n, seed)
    return (raw.float() / 255 - 0.5) / 0.25, labels


class Trained:
    """The start and the experts of one seed, and how they are measured."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.body, g = net(), stream("batchnorm", "training", seed)
        first, counts = [draw(task, "pretrain", TRAIN, seed) for task in TASKS if task.name not in NAMES], [0]
        for _, labels in first:
            counts.append(counts[-1] + int(labels.max()) + 1)
        images = torch.cat([x for x, _ in first])
        labels = torch.cat([y + count for (_, y), count in zip(first, counts, strict=False)])
        fit(self.body, nn.Linear(2048, counts[-1], bias=False), images, labels, STEPS["together"], g)
        self.theta_0, self.experts, self.heads = state_of(self.body), [], []
        self.tasks: list[Task] = [task for task in TASKS if task.name in NAMES]
        self.test = [draw(task, "test", TEST, seed) for task in self.tasks]
        self.unlabelled = []
        for task in self.tasks:
            images, labels = draw(task, "train", TRAIN, seed)
            self.body.load_state_dict(self.theta_0)
            head = nn.Linear(2048, len(task.classes), bias=False)
            fit(self.body, head, images, labels, STEPS["alone"], g)
            self.experts.append(state_of(self.body))
            self.heads.append(head.weight.detach())
            self.unlabelled.append(images[:UNLABELLED])

    @torch.no_grad()
    def accuracy(self, states: list[State], anew: str = "") -> float:
        """Mean over tasks, in [0, 1]; statistics counted ``anew`` from images of "all" tasks or of each one's "own"."""
        found = []
        for state, images, (x, y), rows in zip(states, self.unlabelled, self.test, self.heads, strict=True):
            self.body.load_state_dict(state)
            if anew:
                pool = torch.cat([some.split(UNLABELLED // 4)[0] for some in self.unlabelled])
                pool = pool[torch.randperm(len(pool), generator=torch.Generator().manual_seed(0))]
                reestimate_statistics(self.body, (pool if anew == "all" else images).split(BATCH))
            answers = torch.cat([self.body(part) @ rows.T for part in x.split(250)])
            found.append((answers.argmax(1).eq(y) & answers.isfinite().all(1)).float().mean().item())
        return sum(found) / len(found)


MERGES = {
    "average": lambda base, *experts: average(experts),
    "Task Arithmetic": lambda base, *experts: task_arithmetic(base, experts),
    "TIES": lambda base, *experts: ties(base, experts),
}


CODED = {
    "DTS, flat, as in the paper": {},
    "DTS, matrix, keep 0.1": {"convolutions": "matrix"},
    "DTS, matrix, keep 0.3": {"convolutions": "matrix", "keep_ratio": 0.3},
    "DTS, matrix, keep 0.6": {"convolutions": "matrix", "keep_ratio": 0.6},
    "DRC, 3%": {"method": "drc", "budget": "3%"},
    "DRC, 5%": {"method": "drc", "budget": "5%"},
    "DRC, 7%": {"method": "drc", "budget": "7%"},
}


def measure_convolutions(made: Trained) -> dict[str, dict[str, float]]:
    """Rows of what a coding of the convolutions takes in a file, leaves as error and keeps of the accuracy."""
    rows, own = {}, made.accuracy(made.experts)
    for name, settings in CODED.items():
        deltas = [compress(made.theta_0, expert, **settings) for expert in made.experts]
        rebuilt = [rebuild(made.theta_0, delta) for delta in deltas]
        left = [
            sum((new[n] - expert[n]).square().sum().item() for n in expert if expert[n].dim() > 2)
            / sum((made.theta_0[n] - expert[n]).square().sum().item() for n in expert if expert[n].dim() > 2)
            for new, expert in zip(rebuilt, made.experts, strict=True)
        ]
        rows[name] = {
            "file": sum(storage(delta).share() for delta in deltas) / len(deltas),
            "error": sum(left) ** 0.5 / len(left) ** 0.5,
            "accuracy": (found := made.accuracy(rebuilt)),
            "of the experts": found / own,
        }
    return rows


def measure_statistics(made: Trained) -> dict[str, dict[str, float]]:
    """Rows of accuracies by what the statistics are, and the least variance where they were taken for weights."""
    count, rows = len(made.experts), {}
    rows["start"] = {what: made.accuracy([made.theta_0] * count, anew) for what, anew in COUNTED.items()}
    for name, merge in MERGES.items():
        merged, as_weights = (work(made.theta_0, *made.experts) for work in (merge, hidden(merge)))
        rows[name] = {what: made.accuracy([merged] * count, anew) for what, anew in COUNTED.items()}
        rows[name]["as weights"] = made.accuracy([as_weights] * count)
    for name, base in (("DTS-T", made.theta_0), ("DTS-D, average", average(made.experts))):
        deltas = [compress(base, with_statistics(expert, base)) for expert in made.experts]
        plain = [rebuild(base, delta) for delta in deltas]
        kept = [with_statistics(state, expert) for state, expert in zip(plain, made.experts, strict=True)]
        coded = [hidden(lambda b, e: rebuild(b, compress(b, e)))(base, expert) for expert in made.experts]
        rows[name] = {
            "kept": made.accuracy(kept),
            "the base's": made.accuracy(plain),
            "own": made.accuracy(kept, "own"),
            "as weights": made.accuracy(coded),
            "least variance, as weights": least_variance(coded),
            "file": sum(storage(delta).share() for delta in deltas) / count,
        }
    rows["experts"] = {"kept": made.accuracy(made.experts), "own": made.accuracy(made.experts, "own")}
    for row in rows.values():
        row["gain"] = row["own"] - row["kept"]
    return rows


COUNTED = {"kept": "", "all": "all", "own": "own"}


def least_variance(states: list[State]) -> float:
    return min(tensor.min().item() for state in states for name, tensor in state.items() if "running_var" in name)


def over_seeds(found: list[dict]) -> dict:
    """Mean and 95 % t interval over seeds for each entry."""
    result = {}
    for row, entries in found[0].items():
        result[row] = {}
        for what in entries:
            values = torch.tensor([one[row][what] for one in found], dtype=torch.float64)
            entry = {"value": round(values.mean().item(), 4), "seeds": [round(x, 4) for x in values.tolist()]}
            if len(found) > 1:
                half = stats.t.ppf(0.975, len(found) - 1) * values.std().item() / len(found) ** 0.5
                low, high = entry["value"] - half, entry["value"] + half
                if what != "gain":  # an accuracy, a share or an error
                    low, high = max(low, 0), min(high, 1)
                entry |= {"low": round(low, 4), "high": round(high, 4)}
            result[row][what] = entry
    return result


COLUMNS = {
    "as weights": "taken for weights",
    "the base's": "the base's",
    "kept": "averaged or kept",
    "all": "counted anew, all tasks",
    "own": "counted anew, each task",
    "gain": "gained by it",
}


CODINGS = {"file": "file", "error": "error", "accuracy": "accuracy", "of the experts": "of the experts"}


def markdown(rows: dict, columns: dict[str, str], what: str) -> str:
    """A table of the how-to page: values in %, [95 % interval over seeds]."""

    def cell(entry: dict | None) -> str:
        if entry is None:
            return ""
        spread = f" [{100 * entry['low']:.1f}, {100 * entry['high']:.1f}]" if "low" in entry else ""
        return f"{100 * entry['value']:.1f}{spread}".replace("-0.0", "0.0")

    lines = [f"| {what} | " + " | ".join(columns.values()) + " |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(cell(row.get(key)) for key in columns)} |" for name, row in rows.items()]
    return "\n".join(lines) + "\n"


def measure_all(seeds: list[int]) -> dict:
    start, about, found = time.process_time(), {"commit": commit(), "torch": torch.__version__}, []
    for seed in seeds:
        made = Trained(seed)
        found.append((measure_statistics(made), measure_convolutions(made)))
        print(f"seed {seed}: {time.process_time() - start:.0f} s of processor time")
    about["seconds"] = round(time.process_time() - start)
    settings = {"tasks": NAMES, "seeds": seeds, "train": TRAIN, "test": TEST, "unlabelled": UNLABELLED}
    statistics, convolutions = (over_seeds([one[i] for one in found]) for i in (0, 1))
    return {"statistics": statistics, "convolutions": convolutions, "settings": settings, "provenance": about}


def tables(found: dict) -> dict[str, str]:
    """The tables of the page, by their markers."""
    return {
        "statistics": markdown(found["statistics"], COLUMNS, "statistics:"),
        "convolutions": markdown(found["convolutions"], CODINGS, "convolutions coded"),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--page", action="store_true", help="measure nothing, write the page's table again")
    options = parser.parse_args()
    if not options.page:
        write_json(measure_all(options.seeds), PATH, overwrite=True)
    text = fill(PAGE.read_text(), tables(json.loads(read_bytes(PATH))))
    write_bytes(text.encode(), PAGE, overwrite=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
