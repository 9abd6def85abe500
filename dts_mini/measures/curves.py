"""The size-accuracy curve: every method at the same bytes on disk, on one seed of experts after another.

``python -m dts_mini.measures.curves`` (``make curves``) measures cells, a method at a size each, and keeps every one in
``build/curves/`` as soon as it is done: a run that was cut off goes on where it was. ``--seeds`` takes other zoos that
``make zoo`` trained. What was measured is put together in ``data/mini/curves.json``, with intervals.
"""

import argparse
import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from dts_mini.core.errors import DTSError
from dts_mini.core.file import read_json, write_json
from dts_mini.core.state import fingerprint
from dts_mini.measures.cells import GROUPS, NEAREST, Cell, Experts, cells_of
from dts_mini.measures.estimates import mean_over, provenance
from dts_mini.peers import PEERS
from dts_mini.suites.evaluation import bootstrap, divergence, interval, logits
from dts_mini.suites.mini.suite import DATA, MiniSuite
from dts_mini.suites.suite import Suite

GOALS = {0.1: 0.5, 0.2: 0.5, 0.3: 1 / 3}
"""For the KL divergence that DTS has at a keep ratio, DRC over the same base is to need at most this share of its
bytes."""
SAME_BASE = {"DTS-T": "DRC-T", "DTS-D, average": "DRC-D, average"}
OURS = tuple(SAME_BASE.values())
KEPT = {"1%": 0.995, "0.7%": 0.99, "0.5%": 0.995}
"""The share of the experts' accuracy that the better of OURS is to keep at a size."""
AHEAD = {"1%": 1.5, "2%": 1.5, "3.7%": 1.5}
"""Every peer is to have so many times the KL divergence of DRC at a size, from the same start."""


def measure(suite: Suite, cells: Sequence[Cell], folder: Path, split: str = "test") -> dict[str, dict]:
    """Every cell on one suite, and the experts themselves, by its file's name; those in ``folder`` are there already.

    A cell holds, for each task, the share of its float32 model, the mean KL divergence from the expert and which
    inputs are answered rightly; or why the size cannot be met.
    """
    models = Experts(suite.pretrained(), {task: suite.expert(task) for task in suite.tasks})
    made_from = [fingerprint(state) for state in (models.theta_0, *models.experts.values())]
    reference = {task: logits(suite, expert, task, split) for task, expert in models.experts.items()}
    experts = Cell("curve", "experts", "whole", lambda m: (m.experts.get, dict.fromkeys(m.experts, float(m.model))))
    found = {}
    for cell in tqdm([experts, *cells], desc=f"{folder.name}, {split}", disable=not sys.stderr.isatty()):
        path = folder / cell.file
        if path.exists() and (held := read_json(path))["made from"] == made_from:
            found[cell.file] = held
            continue
        entry = {"group": cell.group, "name": cell.name, "size": cell.size, "made from": made_from}
        try:
            state_of, sizes = cell.make(models)
            entry["storage"] = {task: size / models.model for task, size in sizes.items()}
            answers = {task: logits(suite, state_of(task), task, split) for task in suite.tasks}
        except DTSError as error:
            entry["impossible"] = str(error)
        else:
            entry["kl"] = {t: divergence(reference[t], answer).mean().item() for t, answer in answers.items()}
            right = {t: answer.argmax(1) == suite.inputs(t, split)[1] for t, answer in answers.items()}
            entry["right"] = {t: "".join("01"[bit] for bit in r.tolist()) for t, r in right.items()}
        folder.mkdir(parents=True, exist_ok=True)
        write_json(entry, path, overwrite=True)
        found[cell.file] = entry
    return found


def table(seeds: Mapping[int, Mapping[str, dict]], split: str = "test") -> dict:
    """What was measured, put together: ``curves.json``, which the notebook of the curve reads."""
    rows = gather(seeds)
    about = {"title": "The size-accuracy curve", "split": split, "seeds": list(seeds)}
    return about | {"rows": rows, "goals": goals(rows), "provenance": provenance()}


def gather(seeds: Mapping[int, Mapping[str, dict]]) -> list[dict]:
    """Rows of all seeds' cells: storage, accuracy as a share of the experts' and KL, each with what it varies by.

    With several seeds an interval is Student's over them. Where theta_0 itself is a cell, ``gain kept`` is the share of
    the way from it to the experts, in accuracy. ``images`` is the bootstrap's interval of the share over test
    inputs, the same ones for every seed. With one seed it is the only interval.
    """
    first = next(iter(seeds.values()))
    experts = next(name for name, cell in first.items() if cell["name"] == "experts")
    start = next((name for name, cell in first.items() if cell["name"] == "theta_0" and "right" in cell), None)
    bits = lambda cell: {t: torch.tensor([c == "1" for c in text]) for t, text in cell["right"].items()}
    mean = lambda values: sum(values) / len(values)
    accuracy = lambda cell: mean([r.float().mean().item() for r in bits(cell).values()])
    draws = [bootstrap({name: bits(c) for name, c in found.items() if "right" in c}) for found in seeds.values()]
    rows = []
    for name, cell in first.items():
        row = {"group": cell["group"], "name": cell["name"], "size": cell["size"]}
        rows.append(row)
        same = {seed: found[name] for seed, found in seeds.items() if "right" in found.get(name, {})}
        if not same:
            row["impossible"] = cell["impossible"]
            continue
        row["storage"] = round(mean([mean(c["storage"].values()) for c in same.values()]), 6)
        row["share of experts"] = mean_over([accuracy(c) / accuracy(seeds[seed][experts]) for seed, c in same.items()])
        row["kl from experts"] = mean_over([mean(c["kl"].values()) for c in same.values()])
        if start:
            ends = {seed: (accuracy(seeds[seed][start]), accuracy(seeds[seed][experts])) for seed in same}
            gone = lambda value, first, last: (value - first) / (last - first)
            row["gain kept"] = mean_over([gone(accuracy(c), *ends[seed]) for seed, c in same.items()])
        shares = [drawn[name].mean(1) / drawn[experts].mean(1) for drawn in draws if name in drawn]
        low, high = interval(sum(shares) / len(shares))
        row["images"] = {"low": round(low, 5), "high": round(high, 5)}
    return rows


def goals(rows: Sequence[Mapping]) -> list[dict]:
    """What was aimed at, what was reached, and whether that is it; read off the rows.

    Of a size that cannot be met (very small models) nothing is said.
    """
    points = [row for row in rows if row["group"] == "curve" and "storage" in row]
    found = [*_bytes_as_accurate(points), *_accuracy_kept(points), *_ahead(points), *_beside_peers(points)]
    return [
        {"goal": goal, "value": round(value, 4), "bound": round(bound, 4), "reached": reached}
        for goal, value, bound, reached in found
    ]


Goal = tuple[str, float, float, bool]  # what, the value, its bound, and whether it is reached


def _bytes_as_accurate(points: Sequence[Mapping]) -> Iterator[Goal]:
    """For the KL divergence of DTS, DRC over the same base needs a share of its bytes."""
    for (name, ours), (keep_ratio, bound) in itertools.product(SAME_BASE.items(), GOALS.items()):
        drc = [row for row in points if row["name"] == ours]
        paper = [row for row in points if (row["name"], row["size"]) == (name, f"keep {keep_ratio}")]
        if paper and len(drc) > 1:
            share = bytes_for(_kl(paper[0]), drc) / paper[0]["storage"]
            of = f"the KL divergence of {name} at keep ratio {keep_ratio}"
            yield f"bytes that {ours} needs for {of}, as a share of its bytes", share, bound, share <= bound


def _accuracy_kept(points: Sequence[Mapping]) -> Iterator[Goal]:
    """At small sizes the better of our two keeps nearly all of the experts' accuracy."""
    for size, bound in KEPT.items():
        if drc := [row for row in points if row["name"] in OURS and row["size"] == size]:
            best = max(drc, key=_kept)
            value = _kept(best)
            yield f"share of the experts' accuracy kept by {best['name']} at {size}", value, bound, value >= bound


def _ahead(points: Sequence[Mapping]) -> Iterator[Goal]:
    """The nearest peer that has a size's bytes is farther from the experts than DRC by a factor, from either start."""
    rivals = {"DRC-T": [*PEERS], "DRC-D, average": [f"{NEAREST}, average"]}
    for ours, (size, bound) in itertools.product(OURS, AHEAD.items()):
        drc = [row for row in points if (row["name"], row["size"]) == (ours, size)]
        peers = [row for row in points if row["name"] in rivals[ours] and row["size"] == size]
        if drc and peers:
            nearest = min(peers, key=_kl)
            value = _kl(nearest) / _kl(drc[0])
            yield (
                f"KL divergence of the nearest peer at {size}, {nearest['name']}, over that of {ours}",
                value,
                bound,
                value >= bound,
            )


def _beside_peers(points: Sequence[Mapping]) -> Iterator[Goal]:
    """No peer of at most 4 % is nearer to the experts than DRC-T, which starts from theta_0 as they do, with as many
    bytes.
    """
    for row in points:
        if row["name"] in PEERS and row["storage"] <= 0.04:
            as_small = [r for r in points if r["name"] == "DRC-T" and r["storage"] <= row["storage"] * 1.005]
            if as_small:
                best = min(as_small, key=_kl)
                beside = f"of {best['name']} at {best['size']}, beside {row['name']} at {100 * row['storage']:.2f}%"
                yield f"KL divergence {beside}", _kl(best), _kl(row), _kl(best) <= _kl(row)
                yield f"share of the experts' accuracy {beside}", _kept(best), _kept(row), _kept(best) >= _kept(row)


def _kl(row: Mapping) -> float:
    return row["kl from experts"]["value"]


def _kept(row: Mapping) -> float:
    return row["share of experts"]["value"]


def bytes_for(kl: float, rows: Sequence[Mapping]) -> float:
    """Where the line through the rows, log storage against log KL, comes down to ``kl``; in their unit of storage."""
    points = sorted((_kl(row), row["storage"]) for row in rows)
    x, y = (torch.tensor(column, dtype=torch.float64).log() for column in zip(*points, strict=True))
    right = int(torch.searchsorted(x, torch.tensor(kl, dtype=torch.float64).log()).clamp(1, len(x) - 1))
    slope = (y[right] - y[right - 1]) / (x[right] - x[right - 1])
    return (y[right] + slope * (torch.tensor(kl, dtype=torch.float64).log() - x[right])).exp().item()


def markdown(table: Mapping, size: str = "1%") -> str:
    """Every method at one size, and those that have but one, as Markdown: from the least KL divergence to the most.

    A line below says how many seeds, and what the brackets are.
    """
    rows = [row for row in table["rows"] if row["group"] == "curve" and row["size"] in (size, "natural")]
    rows = sorted((row for row in rows if "storage" in row), key=_kl)
    lines = ["| method | storage | share of experts | KL from the expert (nats) |", "|---|---|---|---|"]
    lines += ["| " + " | ".join([row["name"], *measured(row)]) + " |" for row in rows]
    return "\n".join([*lines, "", _brackets(table)]) + "\n"


def _brackets(table: Mapping, *, gains: bool = False) -> str:
    """How many seeds a table's points are of, and what their brackets are; with the gain kept in the share's place."""
    over = f"95 % intervals over test {table.get('unit', 'images')}"
    if (seeds := len(table["seeds"])) == 1:
        return "One seed of experts" + ("." if gains else f"; brackets are {over}.")
    means = f"Means over {seeds} seeds of experts; brackets"
    if gains:
        return f"{means} are 95 % intervals over the seeds. The gain kept is in %."
    return f"{means} of the share are {over}, those of the KL divergence over the seeds."


def aims(table: Mapping) -> str:
    """What was aimed at as Markdown, missed or reached; of the goals beside single peers how many, and those missed."""
    single = [goal for goal in table["goals"] if ", beside " not in goal["goal"]]
    lines = ["| what we aimed at | goal | measured | |", "|---|---|---|---|"]
    for goal in single:
        text = (lambda x: f"{x:.2f} times") if "nearest peer" in goal["goal"] else (lambda x: f"{100 * x:.1f} %")
        bound = f"at {'most' if goal['goal'].startswith('bytes') else 'least'} {text(goal['bound'])}"
        verdict = "reached" if goal["reached"] else "**missed**"
        lines.append(f"| {goal['goal']} | {bound} | {text(goal['value'])} | {verdict} |")
    said = []
    in_words = {"KL": ("KL divergence", lambda x: f"{x:.4f} nats"), "share": ("accuracy", lambda x: f"{100 * x:.2f} %")}
    for start, (what, text) in in_words.items():
        pairs = [g for g in table["goals"] if ", beside " in g["goal"] and g["goal"].startswith(start)]
        missed = [f"{g['goal']}: {text(g['value'])} against {text(g['bound'])}" for g in pairs if not g["reached"]]
        ahead = f"By {what}, DRC-T is at or ahead of the peer in {len(pairs) - len(missed)} of {len(pairs)} comparisons"
        said.append(f"{ahead}; **missed**: {'; '.join(missed)}." if missed else f"{ahead}.")
    return "\n".join([*lines, "", *said]) + "\n"


def listing(table: Mapping) -> str:
    """Every point as Markdown, in the order it was measured in; those whose size cannot be met say why.

    Where theta_0 is a point, the gain kept stands for the share of the experts' accuracy. Points of several groups say
    which is theirs. A line below says how many seeds, and what the brackets are.
    """
    gains = any("gain kept" in row for row in table["rows"])
    what = "gain kept" if gains else "share of experts"
    several = len({row["group"] for row in table["rows"]}) > 1
    lines = [[*["group"][:several], "method", "size", "storage", what, "KL from the expert (nats)"]]
    lines.append(["---"] * len(lines[0]))
    for row in table["rows"]:
        found = ["", row["impossible"], ""] if "impossible" in row else measured(row, gains=gains)
        lines.append([*[row["group"]][:several], row["name"], row["size"], *found])
    lines = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([*lines, "", _brackets(table, gains=gains)]) + "\n"


def measured(row: Mapping, *, gains: bool = False) -> list[str]:
    """A row's storage, share of the experts (or the gain kept) and KL divergence as cells of a table, with their
    intervals: of the share over test inputs, of the others over seeds.
    """
    share, kl = row["gain kept" if gains else "share of experts"], row["kl from experts"]
    ends = share if gains else row["images"]
    of_share, of_kl = _bracket(ends, lambda x: f"{100 * x:.1f}"), _bracket(kl, lambda x: f"{x:.4f}")
    return [f"{100 * row['storage']:.2f} %", f"{100 * share['value']:.1f}{of_share}", f"{kl['value']:.4f}{of_kl}"]


def _bracket(entry: Mapping[str, float], text: Callable[[float], str]) -> str:
    """An interval; nothing where there is none, or none of any width."""
    wide = entry.get("low", 0) < entry.get("high", 0)
    return f" [{text(entry['low'])}, {text(entry['high'])}]" if wide else ""


def main() -> int:
    parser = argparse.ArgumentParser(description="Measures the size-accuracy curve and writes data/mini/curves.json.")
    parser.add_argument("--seeds", nargs="*", type=int, default=[], help="also measure these zoos")
    parser.add_argument("--zoo", type=Path, default=Path("build/zoo"), help="where make zoo put them")
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--groups", nargs="*", choices=GROUPS, default=GROUPS, help="what to measure")
    parser.add_argument("--cells", type=Path, default=Path("build/curves"), help="where measured cells are kept")
    options = parser.parse_args()
    try:  # before hours of work
        suites = {seed: MiniSuite.of_seed(seed, options.zoo) for seed in sorted({0, *options.seeds})}
    except DTSError as error:
        parser.error(str(error))
    torch.set_num_threads(1)
    folder = options.cells / options.split
    cells = cells_of(options.groups)
    found = {seed: measure(suite, cells, folder / str(seed), options.split) for seed, suite in suites.items()}
    made = table(found, options.split)
    if options.split == "test":
        write_json(made, DATA / "curves.json", overwrite=True)
    for goal in made["goals"]:
        print(f"{'reached' if goal['reached'] else 'MISSED '}  {goal['goal']}: {goal['value']} (goal {goal['bound']})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
