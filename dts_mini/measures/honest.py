"""Does the story survive without the gap that the suite makes? The headline table of a zoo with honest captions.

The mini suite's captions misuse class names, which widens the gap between names and images that fine-tuning closes.
``make zoo HONEST=1`` pretrains once more on captions that misuse none, same recipe otherwise, and fine-tunes its
experts; ``python -m dts_mini.measures.honest`` measures their table, writes ``data/mini/honest.json`` and prints it
beside the first.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from dts_mini.core.errors import DTSError
from dts_mini.core.file import read_json, write_json
from dts_mini.measures import cheap
from dts_mini.measures.tables import cell, headline
from dts_mini.suites.mini.suite import DATA, MiniSuite

RESULTS, FIRST = DATA / "honest.json", DATA / "results.json"
ZOO = Path("build/zoo/honest-0")


def markdown(first: Mapping, honest: Mapping) -> str:
    """Two headline tables beside each other: each row's mean accuracy, share of the experts' and KL from them."""
    lines = [
        "| | uses of a task | accuracy, names misused | honest | share of experts, names misused | honest |"
        " KL from experts in nats, names misused | honest |",
        "|---" * 8 + "|",
    ]
    rows = {row["name"]: row for row in honest["rows"]}
    for row in first["rows"]:
        both = (row, rows[row["name"]])
        cells = [
            row["name"],
            row["uses"],
            *(cell(each[c], interval=True) for c in ("mean", "share of experts") for each in both),
        ]
        lines.append("| " + " | ".join([*cells, *(f"{each['kl from experts']:.4f}" for each in both)]) + " |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measures the zoo with honest captions, writes data/mini/honest.json.")
    parser.add_argument("--zoo", type=Path, default=ZOO, help="where make zoo HONEST=1 put it")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    try:  # before minutes of work
        suite = MiniSuite(options.zoo)
        [suite.expert(task) for task in suite.tasks]
    except DTSError as error:
        parser.error(f"{error} (this one with make zoo HONEST=1)")
    found = headline(suite, progress=lambda row: print(f"  {row}", file=sys.stderr, flush=True), beside=cheap.beside())
    write_json(found, options.out, overwrite=True)
    print(markdown(read_json(FIRST)["headline"], found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
