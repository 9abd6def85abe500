"""Measures unseen tasks: all singles and pairs held out, every weighting and descriptor; writes data/mini/unseen.json.

``python -m dts_mini.unseen`` takes about fifteen minutes a seed on one thread. Each seed has a file of its own under ``--work``,
written after every held-out set: a run that was stopped goes on where it was. ``--seeds 1 2`` takes the experts that
``SEED=n make zoo`` trained, seed 0 the committed ones.
"""

import argparse
import json
import sys
from pathlib import Path

from dts_mini.core.errors import DTSError
from dts_mini.core.file import check_writable, read_bytes, write_json
from dts_mini.suites.descriptors import DESCRIPTORS, sentences
from dts_mini.suites.mini.suite import DATA, MiniSuite
from dts_mini.suites.tables import provenance
from dts_mini.suites.unseen import KEEP_RATIO, TEST, VALIDATION, held_out, measure, summary

RESULTS = DATA / "unseen.json"
SETS = len(held_out(MiniSuite.tasks))


def main(arguments: list[str] | None = None) -> int:
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


def run(seeds: list[int], zoo: Path, work: Path, images: int, validation: int, with_sentences: bool, out: Path) -> dict:
    """Measures what is not measured yet, and writes the summary of all seeds."""
    check_writable(out, overwrite=True)
    suites = {seed: MiniSuite.of_seed(seed, zoo) for seed in seeds}
    makers = DESCRIPTORS | ({"sentences": sentences} if with_sentences else {})
    work.mkdir(parents=True, exist_ok=True)
    entries = {}
    for seed, suite in suites.items():
        descriptors = {name: make(suite) for name, make in makers.items()}
        path = work / f"seed_{seed}.json"
        settings = {"images": images, "validation": validation, "descriptors": list(makers), "keep ratio": KEEP_RATIO}
        done = resumed(path, settings)

        def save(so_far: list[dict], path=path, settings=settings, seed=seed) -> None:
            write_json({"settings": settings, "entries": so_far}, path, overwrite=True)
            print(f"  seed {seed}: {len(so_far)} of {SETS} held-out sets", file=sys.stderr, flush=True)

        entries[seed] = measure(suite, descriptors, done, validation, images, save)
    result = {"title": "Unseen tasks", "suite": "mini", "split": "test", "seeds": seeds, **settings}
    result |= {"images": f"the first {images} test and {validation} validation images of each task"}
    result |= summary(entries, images) | {"provenance": provenance()}
    write_json(result, out, overwrite=True)
    print(report(result))
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


def report(result: dict) -> str:
    """The rows as text, accuracies in %, and whether the goal is met."""
    lines = [f"{'':<26} mean     on zero-shot  on base merge  below  worst case"]
    for row in result["rows"]:
        gains = [100 * row[f"gain on {other}"]["value"] for other in ("zero-shot", "base merge")]
        worst = f"{100 * row['worst']['value']:+.1f} ({row['worst']['task']})"
        below = row["cases more than a point below"]
        lines.append(
            f"{row['name']:<26} {100 * row['mean']['value']:.1f}  {gains[0]:+12.1f}  {gains[1]:+13.1f}  {below:5}  {worst}"
        )
    rows = {row["name"]: row for row in result["rows"]}
    for name in ("abstain, chosen", "hedge, chosen", "hedge by nearness"):
        row, worst = rows[name], rows[name]["worst"]
        above = all(row[f"gain on {other}"]["value"] > 0 for other in ("zero-shot", "base merge"))
        below, surely = row["cases more than a point below"], row["cases surely more than a point below"]
        lines.append(
            f"goal, {name}: {'' if above else 'not '}above both on average; more than a point below the better of the two "
            f"in {below} of {result['cases']} cases, surely in {surely}; "
            f"at worst {100 * worst['value']:+.1f} points ({worst['task']})"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
