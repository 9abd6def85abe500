"""Published numbers: measures them, writes them as JSON, and puts them where people read them.

``python -m dts_mini.results`` (``make results``) evaluates the committed checkpoints on test, and with ``--seeds`` also
other zoos that ``make zoo`` trained. No number of the README and of ``PAGES`` is typed by hand: each block
between a pair of ``<!-- results:NAME -->`` markers is written from the JSON, as is the README's picture,
``docs/front.svg``. Tests hold them equal.
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from dts_mini.core.errors import DTSError
from dts_mini.core.file import read_json, write_bytes, write_json
from dts_mini.course import claims, front, github, launch
from dts_mini.measures import cheap, curves, honest
from dts_mini.measures.cases import report
from dts_mini.measures.tables import cell, headline, markdown, over_seeds, seeds_markdown, unseen
from dts_mini.suites import places
from dts_mini.suites.mini.suite import DATA, MiniSuite

ROOT = Path(__file__).parents[1]
RESULTS, SEEDS, CURVES = DATA / "results.json", DATA / "seeds.json", DATA / "curves.json"
README, LONG = ROOT / "README.md", ROOT / "docs/results.md"
PAGES = README, LONG, ROOT / "docs/mini-suite.md", ROOT / "docs/text-suite.md"

# The claims that the front page tells, and those of the page of results.
SAID = (
    "07-honest-zero-shot",
    "07-honest-dts",
    "13-text-kept",
    "10-rounding-wins",
    "10-half",
    "08-house-zero-shot",
    "08-best-merge",
    "08-new-zero-shot",
    "08-new-average",
)
TOLD = (
    "00-gain",
    "01-merging-loses",
    "02-model-tenth",
    "04-kl-all",
    "07-kept-10",
    "08-house-zero-shot",
    "08-best-merge",
    "08-new-zero-shot",
    "08-new-average",
    "10-rounding-wins",
    "10-half",
    "10-peers-kl",
    "11-bfloat16",
    "12-paper",
)
HONEST = tuple(f"07-honest-{what}" for what in ("zero-shot", "merges", "dts", "kl"))
ON_TEXTS = tuple(f"13-text-{what}" for what in ("merges", "harm", "kept", "plateau", "rounding", "drc"))


def blocks() -> dict[str, str]:
    """The Markdown of each block of the PAGES, by name, from the committed JSON."""
    results, seeds, curve = (read_json(path) for path in (RESULTS, SEEDS, CURVES))
    measured = {claim["name"]: claim for claim in claims.recorded()}
    if missing := [name for name in (*SAID, *TOLD, *HONEST, *ON_TEXTS) if name not in measured]:
        raise DTSError(f"data/mini/claims.json lacks {', '.join(missing)}: run make notebooks, or change results.TOLD")
    return {
        "picture": f"![{front.alt(results['headline'])}](docs/{front.PATH.name})\n",
        "front": front.table(results["headline"]),
        "said": "".join(f"- {c['sentence']} *Measured: {claims.reads(c)}.*\n" for c in map(measured.get, SAID)),
        "headline": markdown(results["headline"]),
        "honest": measured_by("make zoo HONEST=1", honest.RESULTS, lambda t: honest.markdown(results["headline"], t)),
        "unseen": markdown(results["unseen"]),
        "seeds": seeds_markdown(seeds),
        "curves": curves.markdown(curve),
        "aims": curves.aims(curve),
        "claims": claims_markdown([measured[name] for name in TOLD]),
        "honest_claims": claims_markdown([measured[name] for name in HONEST]),
        "text_claims": claims_markdown([measured[name] for name in ON_TEXTS]),
        **text_blocks(),
    }


def measured_by(command: str, path: Path, text: Callable[[dict], str]) -> str:
    """The text of what is in a file of JSON; where it is not there yet, the command that measures it."""
    return text(read_json(path)) if path.exists() else f"Not measured yet: `{command}` does.\n"


def text_blocks() -> dict[str, str]:
    """The blocks of the page of the text suite."""
    shown = {
        "texts": ("zoo", tasks_markdown),
        "text_headline": ("results", lambda found: markdown(found["headline"])),
        "text_seeds": ("seeds", seeds_markdown),
        "text_curves": ("curves", curves.listing),
        "text_unseen": ("unseen", lambda found: f"```text\n{report(found)}\n```\n"),
    }
    at = lambda file: places.DATA / f"text/{file}.json"
    return {name: measured_by("make text", at(file), text) for name, (file, text) in shown.items()}


def tasks_markdown(zoo: Mapping) -> str:
    """The tasks that were tried, as Markdown: what is asked, and what is answered rightly on validation."""
    lines = [
        "| task | classes | training texts | frozen, linear head | expert | words that moved | |",
        "|---" * 7 + "|",
    ]
    for row in zoo["rows"]:
        shown = lambda what, row=row: cell(row[what], interval="low" in row[what])
        numbers = [
            str(len(row["classes"])),
            f"{row['training texts']:,}",
            *map(shown, ("frozen", "expert", "rows moved")),
        ]
        lines.append("| " + " | ".join([row["task"], *numbers, "" if row["kept"] else "left out"]) + " |")
    said = "In % of validation texts, and of the rows of the embedding."
    seeds = len(zoo["seeds"])
    return (
        "\n".join([*lines, "", said + (f" Means over {seeds} seeds, 95 % intervals over them." if seeds > 1 else "")])
        + "\n"
    )


def claims_markdown(told: Iterable[Mapping]) -> str:
    """Claims as a Markdown table: what the notebook says, and what was measured."""
    lines = [f"| {claim['notebook'][:2]} | {claim['sentence']} | {claims.reads(claim)} |" for claim in told]
    return "\n".join(["| notebook | claim | measured |", "|---|---|---|", *lines]) + "\n"


def fill(text: str, blocks: dict[str, str]) -> str:
    """``text`` with each marked block replaced; DTSError when it marks a block that is not measured."""

    def block(match: re.Match) -> str:
        name = match[1]
        if name not in blocks:
            raise DTSError(f"a page marks a block {name!r} that is not measured: choose {', '.join(blocks)}")
        return f"<!-- results:{name} -->\n\n{blocks[name]}\n<!-- end -->"

    return re.sub(r"<!-- results:(\w+) -->.*?<!-- end -->", block, text, flags=re.DOTALL)


def main() -> int:
    parser = argparse.ArgumentParser(description="Measures the published tables on test and writes them.")
    parser.add_argument("--seeds", nargs="*", type=int, help="also evaluate these seeds; 0 is the committed zoo")
    parser.add_argument("--zoo", type=Path, default=Path("build/zoo"), help="where make zoo put other seeds")
    parser.add_argument("--readme-only", action="store_true", help="measure nothing, write the pages again")
    options = parser.parse_args()
    try:  # before minutes of work
        suites = {seed: MiniSuite.of_seed(seed, options.zoo) for seed in options.seeds or ()}
    except DTSError as error:
        parser.error(str(error))
    say = lambda row: print(f"  {row}", file=sys.stderr, flush=True)
    headlines = {}
    if not options.readme_only:
        suite = MiniSuite()
        headlines[0] = headline(suite, progress=say, beside=cheap.beside())
        write_json({"headline": headlines[0], "unseen": unseen(suite, progress=say)}, RESULTS, overwrite=True)
    if options.seeds:
        for seed, suite in suites.items():
            if seed not in headlines:
                print(f"seed {seed}", file=sys.stderr)
                headlines[seed] = headline(suite, progress=say, beside=cheap.beside())
        write_json(over_seeds({seed: headlines[seed] for seed in suites}), SEEDS, overwrite=True)
    if README.exists():
        publish()
    return 0


def publish() -> None:
    """Writes again the blocks of the PAGES, the README's picture, and the places of the start page and the
    instructor's, as GitHub shows them."""
    written, table, lessons = blocks(), read_json(RESULTS)["headline"], github.lessons()
    for page in PAGES:
        write_bytes(fill(page.read_text(), written).encode(), page, overwrite=True)
    for page in github.PAGES:
        text = github.filled(page.read_text(), lessons, table, launch.repository())
        write_bytes(text.encode(), page, overwrite=True)
    write_bytes(front.picture(table).encode(), front.PATH, overwrite=True)


if __name__ == "__main__":
    sys.exit(main())
