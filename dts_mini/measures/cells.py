"""The points of the size-accuracy curve: every method at a size, and how its models are made.

``cells_of`` lists them, in three groups: ``curve``, every method at the same bytes on disk; ``bases``, every base merge
alone and under a remainder; ``ablation``, what each switch of our methods is worth by itself.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping

from dts_mini.core.budget import fit, in_bytes
from dts_mini.core.compress import compress
from dts_mini.core.delta import rebuild
from dts_mini.core.errors import DTSError
from dts_mini.core.state import State
from dts_mini.measures.tables import base_merges
from dts_mini.peers import BUDGETED, NATURAL, PEERS

GROUPS = ("curve", "bases", "ablation")
SIZES = ("0.25%", "0.5%", "1%", "2%", "3.7%", "6.25%")
KEEP_RATIOS = (0.1, 0.2, 0.3)
NEAREST = "DeltaMix"
"""The peer that is nearest to the experts at every size. It starts from the average, too, as ours do."""

# What each task is rebuilt as, and the bytes that it takes.
Compressed = tuple[Callable[[str], State], Mapping[str, float]]


@dataclasses.dataclass(frozen=True)
class Experts:
    """What a cell starts from: one seed's models, and their merges."""

    theta_0: State
    experts: Mapping[str, State]

    @functools.cached_property
    def bases(self) -> dict[str, State]:
        return {"theta_0": self.theta_0, **base_merges(self.theta_0, list(self.experts.values()))}

    @functools.cached_property
    def model(self) -> int:
        """Bytes of an expert in float32."""
        return 4 * sum(tensor.numel() for tensor in self.theta_0.values())


@dataclasses.dataclass(frozen=True)
class Cell:
    """One point: a method's name in the tables, its size there, and how its models are made."""

    group: str
    name: str
    size: str
    make: Callable[[Experts], Compressed]

    @property
    def file(self) -> str:
        text = f"{self.group} {self.name} {self.size}".lower()
        return "".join(c if c.isalnum() or c in ".%" else "-" for c in text) + ".json"


def deltas(base: str, models: Experts, **settings) -> Compressed:
    """DTS or DRC over one of the bases, by the settings of ``compress``."""
    start = models.bases[base]
    made = {task: compress(start, expert, **settings) for task, expert in models.experts.items()}
    return lambda task: rebuild(start, made[task]), {task: float(len(d.to_bytes())) for task, d in made.items()}


def by_keep_ratio(base: str, budget: str, models: Experts) -> Compressed:
    """The paper's own way to a size: one keep ratio for all matrices, in 200ths, the largest whose files all fit."""
    limit, example = in_bytes(budget, models.model), next(iter(models.experts.values()))
    one = lambda step: len(compress(models.bases[base], example, keep_ratio=(step + 1) / 200, **PAPER).to_bytes())
    step = fit(one, limit, 199, 20)
    while max((found := deltas(base, models, keep_ratio=(step + 1) / 200, **PAPER))[1].values()) > limit:
        step -= 1  # files of one keep ratio differ by a few stored zeros
        if step < 0:
            raise DTSError(f"a budget of {limit:,} bytes is too small for one of the tasks")
    return found


def peer(name: str, budget: str | None, models: Experts, base: str = "theta_0") -> Compressed:
    found = PEERS[name](models.bases[base], models.experts, budget)
    return found.rebuild, found.bytes_per_task()


def merged(base: str, models: Experts) -> Compressed:
    return lambda task: models.bases[base], dict.fromkeys(models.experts, 0.0)


PAPER = {"method": "dts", "algorithm": "full"}
DRC = {"method": "drc"}
# What each switch is worth by itself, over theta_0, ranks by the budget unless the row says otherwise.
ABLATION: dict[str, dict] = {
    "DTS, ranks by budget": PAPER,
    "2 groups": PAPER | {"groups": 2},
    "8 groups": PAPER | {"groups": 8},
    "a partition a vector": PAPER | {"per": "vector"},
    "group means": PAPER | {"scale": "mean"},
    "Lloyd-Max levels": PAPER | {"levels": "lloyd-max", "scale": "mean"},
    "singular values refitted": PAPER | {"refit": True},
    "norm restored": PAPER | {"norm": 1.0},
    "norm half restored": PAPER | {"norm": 0.5},
    "errors relative to each matrix": PAPER | {"weight": 1.0},
    "errors of all matrices alike": PAPER | {"weight": 0.0},
    "residual-corrected blocks of 4": PAPER | {"per": "vector", "block": 4},
    "all that helps, 2 bits": PAPER
    | {"per": "vector", "block": 4, "levels": "lloyd-max", "scale": "mean", "norm": 0.5},
    "DRC": DRC,
    "DRC, nothing fitted": DRC | {"fitted": False},
    "DRC, norm not restored": DRC | {"norm": 0.0},
    "DRC, norm wholly restored": DRC | {"norm": 1.0},
    "DRC, rounded to nearest": DRC | {"dead": 0.5},
    "DRC, no component cut": DRC | {"cut": 0.0},
    "DRC, errors of all tensors alike": DRC | {"weight": 0.0},
    "DRC, errors relative to each tensor": DRC | {"weight": 1.0},
}


def cells_of(groups: Iterable[str]) -> list[Cell]:
    """All points of ``curve``, ``bases`` and ``ablation``, in the order of the tables."""
    made = []
    add = lambda group, name, size, function, *arguments, **settings: made.append(
        Cell(group, name, size, functools.partial(function, *arguments, **settings))
    )
    for keep_ratio in KEEP_RATIOS:
        add("curve", "DTS-T", f"keep {keep_ratio}", deltas, "theta_0", keep_ratio=keep_ratio, **PAPER)
        add("curve", "DTS-D, average", f"keep {keep_ratio}", deltas, "average", keep_ratio=keep_ratio, **PAPER)
    for size in SIZES:
        add("curve", "DTS-T", size, by_keep_ratio, "theta_0", size)
        add("curve", "DTS-D, average", size, by_keep_ratio, "average", size)
        add("curve", "DTS-T, ranks by budget", size, deltas, "theta_0", budget=size)
        for name in BUDGETED:
            add("curve", name, size, peer, name, size)
        add("curve", f"{NEAREST}, average", size, peer, NEAREST, size, base="average")
    for size in sorted({*SIZES, "0.7%"}, key=lambda size: float(size[:-1])):
        add("curve", "DRC-T", size, deltas, "theta_0", budget=size, **DRC)
        add("curve", "DRC-D, average", size, deltas, "average", budget=size, **DRC)
    for name in NATURAL:
        add("curve", name, "natural", peer, name, None)
    for base in ("average", "Task Arithmetic", "TIES", "DARE", "TSV-M", "Iso-C", "Consensus"):
        add("bases", base, "none", merged, base)
        add("bases", f"DTS-D, {base}", "1%", by_keep_ratio, base, "1%")
        add("bases", f"DRC-D, {base}", "1%", deltas, base, budget="1%", **DRC)
    for name, settings in ABLATION.items():
        add("ablation", name, "1%", deltas, "theta_0", budget="1%", **settings)
    return [cell for cell in made if cell.group in groups]
