"""Cases put together: when does fusion help a task that nobody fine-tuned, and can one tell before?

A *case* is a set of held-out tasks and one of them to answer. ``decide`` chooses by the seen tasks, left out in turn;
``decided`` adds to a case the rows that follow from these choices; ``summary`` puts cases and seeds together.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from dts_mini.core.errors import DTSError
from dts_mini.measures.estimates import estimate, mean_over
from dts_mini.ours.weightings import abstention, least_regret
from dts_mini.suites.evaluation import interval
from dts_mini.suites.streams import stream

FALLBACKS = ("base merge", "zero-shot", "half way")
SHARES = (0.5, 0.75, 1.0)
"""How far a hedge may go from theta_0 (0) to the base with ``hedged_weights`` of prompts fused in (1)."""


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


def summary(seeds: Mapping[int, Sequence[Mapping]], test: int, draws: int = 1_000) -> dict:
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
    """Spearman's rank correlations of nearness, a descriptor each: with what the paper's weights gain on the base
    merge, and with what the base merge gains on zero-shot. Cases of one task are alike: tasks, not cases, are drawn.
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
        rank = lambda gain, near=near: _rank_correlation(near, gain)
        found[name] = {"fused on base merge": rank(fused), "base merge on zero-shot": rank(merged), "points": points}
    return found


def _rank_correlation(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Spearman's, rounded; None where one of the two is the same everywhere, and has no ranks."""
    return None if min(len(set(x)), len(set(y))) < 2 else round(float(stats.spearmanr(x, y).statistic), 4)


def _resampled(task: str, right: Mapping, draws: int) -> Tensor:
    """Weights (draws, n) of a task's test images when they are drawn anew."""
    n = next(len(rows["zero-shot"]) for (_, case), rows in right.items() if case[1] == task)
    picks = torch.randint(n, (draws, n), generator=stream("unseen bootstrap", task))
    return torch.zeros(draws, n).scatter_add_(1, picks, torch.full((draws, n), 1 / n))


def _estimate(values: Tensor, draws: Tensor, of_seed: Tensor) -> dict:
    entry = estimate(values.mean().item(), draws.mean(0))
    means = [values[of_seed == seed].mean().item() for seed in of_seed.unique()]
    if len(means) > 1:
        spread = mean_over(means)
        entry |= {"each": spread["each"], "over seeds": [spread["low"], spread["high"]]}
    return entry


def to_hex(bits: Tensor) -> str:
    """Bits (n,) as hexadecimal digits, the first bit highest."""
    return np.packbits(bits.numpy()).tobytes().hex()


def from_hex(text: str, n: int) -> Tensor:
    """The first ``n`` bits that ``to_hex`` wrote; DTSError where it wrote fewer."""
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(text), dtype=np.uint8))
    if len(bits) < n:
        raise DTSError(f"{len(bits)} images were measured, not {n}: delete the file of that seed, or pass its --images")
    return torch.from_numpy(bits[:n].astype(bool))


def report(result: dict) -> str:
    """The rows as text, accuracies in %, gains in points with 95 % intervals over test inputs, and whether the goal is
    met: surely where the intervals, those over seeds too, lie above zero.
    """
    lines = [f"{'':<21} {'mean':<4}  {'on zero-shot':>20}  {'on base merge':>20}  below  worst case"]
    for row in result["rows"]:
        gains = "  ".join(f"{_points(row[f'gain on {other}']):>20}" for other in ("zero-shot", "base merge"))
        worst = f"{100 * row['worst']['value']:+.1f} ({row['worst']['task']})"
        mean, below = 100 * row["mean"]["value"], row["cases more than a point below"]
        lines.append(f"{row['name']:<21} {mean:.1f}  {gains}  {below:5}  {worst}")
    rows = {row["name"]: row for row in result["rows"]}
    for name in ("abstain, chosen", "hedge, chosen", "hedge by nearness"):
        row, worst = rows[name], rows[name]["worst"]
        gains = [row[f"gain on {other}"] for other in ("zero-shot", "base merge")]
        above = all(gain["value"] > 0 for gain in gains)
        sure = all(min([gain["low"], *gain.get("over seeds", ())]) > 0 for gain in gains)
        verdict = "above both on average" + (", surely" if sure else ", not surely") if above else "not above both"
        below, surely = row["cases more than a point below"], row["cases surely more than a point below"]
        lines.append(
            f"goal, {name}: {verdict}; "
            f"more than a point below the better of the two in {below} of {result['cases']} cases, surely in {surely}; "
            f"at worst {100 * worst['value']:+.1f} points ({worst['task']})"
        )
    return "\n".join(lines)


def _points(gain: Mapping[str, float]) -> str:
    """A gain in points with its interval: +1.2 [+0.0, +2.3]; one without any width alone."""
    text = lambda end: f"{100 * gain[end]:+.1f}"
    return text("value") + (f" [{text('low')}, {text('high')}]" if gain["low"] < gain["high"] else "")
