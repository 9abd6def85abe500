"""The text suite measured: the tables of vision on a model that others pretrained, and texts that people wrote.

``python -m dts_mini.measures.text`` (``make text``) fetches what is missing, trains the experts of each seed, and
writes ``data/text``: ``zoo.json`` (tasks, sources, what an expert gains), ``results.json`` (the headline table of the
first seed), ``seeds.json`` (over seeds), ``curves.json`` and ``unseen.json``. Experts, answers and cells are kept under
``--work``: a run that was stopped goes on where it was, and ``--tables`` makes what is wanted of what there is.
"""

import argparse
import functools
import hashlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from dts_mini.core.errors import DTSError
from dts_mini.core.file import read_json, write_json
from dts_mini.core.state import fingerprint
from dts_mini.measures import curves, unseen
from dts_mini.measures.cells import Cell, cells_of, merged
from dts_mini.measures.descriptors import DESCRIPTORS
from dts_mini.measures.estimates import mean_over, provenance
from dts_mini.measures.tables import Beside, headline, markdown, over_seeds, seeds_markdown
from dts_mini.suites.text.packages import PACKAGES
from dts_mini.suites.text.suite import DATA, TextSuite, embedded
from dts_mini.suites.text.zoo import ENOUGH, WORK, Zoo, train

TABLES = ("zoo", "headline", "curves", "unseen")
UNSEEN = {"test": 400, "validation": 200}  # texts a task, the first ones: 20 models are asked for each held-out task
SIZES = ("0.5%", "1%", "2%", "3.7%")
METHODS = ("DTS-T", "DRC-T", "low-rank INT3", "Delta-CoMe", "DeltaMix")  # of the peers the nearest on the mini suite
FROZEN = "linear head"
ABOUT = {
    "zero-shot": "theta_0 under each expert's head",
    FROZEN: "theta_0 under a linear head of its own, fitted to the same training texts",
}


def cells() -> list[Cell]:
    """The points of the curve: theta_0 itself, and the strongest methods at four sizes."""
    start = Cell("curve", "theta_0", "none", functools.partial(merged, "theta_0"))
    return [start, *(cell for cell in cells_of(["curve"]) if cell.name in METHODS and cell.size in SIZES)]


def frozen(suite: TextSuite, split: str) -> tuple[dict[str, Tensor], Mapping[str, int]]:
    """Logits of the frozen encoder under its own linear heads, and the bytes of those in half precision."""
    tower, found, sizes = suite.tower(), {}, {}
    tower.load_state_dict(suite.pretrained())
    for task in suite.tasks:
        head = suite.frozen_head(task).half()
        found[task] = embedded(tower, suite.inputs(task, split)[0]) @ head.float().T
        sizes[task] = len(save({"head": head}))
    return found, sizes


BESIDE = {FROZEN: Beside("its training texts", frozen)}


def zoo_table(suites: Mapping[int, TextSuite]) -> dict:
    """Tasks and sources; of each candidate what the frozen encoder and the experts answer rightly on validation."""
    first = next(iter(suites.values()))
    zoo, rows = first.zoo, []
    for name, task in zoo.candidates.items():
        known = [about for seed in suites if (about := zoo.about(name, seed))]
        row = {"task": name, "question": task.question, "classes": list(task.classes), "kept": name in first.tasks}
        row |= {"training texts": min(task.texts, zoo.recipe.most)}
        row |= {what: mean_over([about[what] for about in known]) for what in ("frozen", "expert", "rows moved")}
        rows.append(row | {"cpu seconds": [about["cpu seconds"] for about in known]})
    packages = [
        {"package": f"{p.name} {p.version}", "holds": p.holds, "licence": p.licence, "sha256": p.sha256}
        for p in PACKAGES.values()
    ]
    about = {"title": "The text suite", "seeds": list(suites), "kept where experts gain on validation": ENOUGH}
    about |= {"recipe": zoo.about(first.tasks[0], first.seed)["recipe"], "packages": packages, "rows": rows}
    return about | {"unseen": list(first.unseen), "provenance": provenance("transformers", "tokenizers")}


def made_from(suite: TextSuite, seed: int) -> str:
    """A digest of a seed's experts and of what they are asked, which is the same for all seeds."""
    parts = [suite.zoo.about(task, seed)["made from"] for task in suite.tasks]
    parts += [fingerprint(dict(zip("xy", suite.inputs(task, "test"), strict=True))) for task in suite.tasks]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


def headline_of(suite: TextSuite) -> dict:
    """The headline table of a seed; one that was measured on the same experts is read."""
    path = suite.zoo.folder(suite.seed) / f"headline-{made_from(suite, suite.seed)}.json"
    if not path.exists():
        say = lambda row: print(f"  seed {suite.seed}: {row}", file=sys.stderr, flush=True)
        write_json(headline(suite, progress=say, beside=BESIDE, gains=True) | {"rows are": ABOUT}, path, overwrite=True)
    return read_json(path)


def measure(zoo: Zoo, seeds: Sequence[int], out: Path, wanted: Sequence[str] = TABLES) -> dict[str, dict]:
    """The tables of trained seeds, written to ``out`` as they are made; returns them by their files' names."""
    suites, found = {seed: TextSuite(zoo=zoo, seed=seed) for seed in seeds}, {}

    def keep(name: str, table: dict) -> None:
        found[name] = table
        write_json(table, out / f"{name}.json", overwrite=True)

    out.mkdir(parents=True, exist_ok=True)
    if "zoo" in wanted:
        keep("zoo", zoo_table(suites))
    if "headline" in wanted:
        tables = {seed: headline_of(suite) for seed, suite in suites.items()}
        keep("results", {"headline": tables[seeds[0]]})
        if len(seeds) > 1:
            keep("seeds", over_seeds(tables))
    if "curves" in wanted:
        folders = {seed: zoo.folder(seed) / "curves" for seed in seeds}
        keep("curves", curves.table({s: curves.measure(suites[s], cells(), folders[s]) for s in seeds}))
    if "unseen" in wanted:
        singles = [(task,) for task in suites[seeds[0]].tasks]
        amount = (min(UNSEEN["test"], zoo.recipe.test), min(UNSEEN["validation"], zoo.recipe.validation))
        work = zoo.work / f"unseen-{made_from(suites[seeds[0]], 0)}"  # a file in it for each seed
        found["unseen"] = unseen.measured(suites, work, out / "unseen.json", DESCRIPTORS, *amount, singles)
    return found


def main(arguments: list[str] | None = None) -> int:
    """Trains and measures the text suite, or goes on with what was begun."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="of training; 0 chooses the tasks")
    parser.add_argument("--work", type=Path, default=WORK, help="packages, experts, answers, cells (also: DTS_TEXT)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="experts trained at a time, one thread each")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES)
    parser.add_argument("--out", type=Path, default=DATA)
    options = parser.parse_args(arguments)
    zoo, seeds = Zoo(options.work), sorted(set(options.seeds))
    try:
        for seed in sorted({0, *seeds}):
            train(zoo, seed, options.jobs)
        found = measure(zoo, seeds, options.out, options.tables)
    except DTSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    texts = {
        "results": lambda table: markdown(table["headline"]),
        "seeds": seeds_markdown,
        "curves": curves.listing,
        "unseen": unseen.report,
    }
    for name, table in found.items():
        if name in texts:
            print(texts[name](table))
    return 0


if __name__ == "__main__":  # by its real name, so that the other processes find what they are sent
    from dts_mini.measures.text import main

    sys.exit(main())
