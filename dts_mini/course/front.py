"""The front page's table of six rows and its one picture, both from the headline table (``data/mini/results.json``).

``make results`` writes them into README.md and ``docs/front.svg``. The picture is drawn here line by line: the same
table gives the same bytes on every machine, so that a test can hold the committed file to it.
"""

import html
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dts_mini.core.errors import DTSError
from dts_mini.measures.tables import cell

PATH = Path(__file__).parents[2] / "docs/front.svg"
# Of the remainders those over the average, which need no pretrained model: at keep ratio 0.1, and at 1 % of the bytes.
NAMED = ("zero-shot", "zero-shot, synonyms", "DTS-D, average, 0.1", "DRC-D, average, 1 %", "experts")
# Okabe and Ito's blue for one model, orange for small files, grey for the experts; each bar's label is the second cue.
COLOURS = {"one": "#0072B2", "files": "#E69F00", "all": "#4d4d4d"}
# Narrow, with large letters, so that it can be read on a phone: each row's name stands over its bars.
WIDTH, ROW, TOP, BAR = 560, 55, 62, 20
LEFT, MIDDLE, WIDE = 14, 390, 290  # where the bars of the two panels begin; how wide accuracy of 100 % is


@dataclass(frozen=True)
class Row:
    """A way to keep the tasks: its row of the headline table, and how many models' bytes all tasks take together."""

    what: str
    how: str
    kind: str
    entry: Mapping
    models: float


def rows(headline: Mapping) -> list[Row]:
    """The six rows: zero-shot, the same with other names of the classes, the best merge, DTS, DRC, the experts."""
    found, tasks = {row["name"]: row for row in headline["rows"]}, len(headline["columns"])
    if lost := [name for name in NAMED if name not in found]:
        raise DTSError(f"the headline table lacks {', '.join(lost)}: run make results")
    merges = [row for row in headline["rows"] if row["kind"] == "merge"]
    best = max(merges, key=lambda row: row["mean"]["value"])["name"]
    zero_shot, names, dts, drc, experts = NAMED
    small = f"1 model + {tasks} small files"
    shown = {
        zero_shot: ("1 model", "pretrained, zero-shot", "one"),
        names: ("1 model", "the same, other names of classes", "one"),
        best: ("1 model", f"{best}, the best of {len(merges)} merges", "one"),
        dts: (small, "DTS-D, on the average", "files"),
        drc: (small, "DRC-D, on the average", "files"),
        experts: (f"{tasks} models", "the experts", "all"),
    }
    models = lambda row: tasks if row["kind"] == "experts" else 1 + tasks * row["storage"]
    return [Row(*about, found[name], models(found[name])) for name, about in shown.items()]


def table(headline: Mapping) -> str:
    """The six rows as Markdown: accuracy and share in %, KL(expert || model) in nats, size in models."""
    head = (
        "you store",
        "how",
        "mean accuracy",
        "share of experts",
        "KL from the expert (nats)",
        "a task adds",
        "in all",
    )
    lines = ["| " + " | ".join(head) + " |", "|---|---|---|---|---|---|---|"]
    for row in rows(headline):
        entry, whole = row.entry, row.kind == "all"
        share = "100" if whole else cell(entry["share of experts"], interval=True)
        cells = [
            row.what,
            row.how,
            cell(entry["mean"], interval=True),
            share,
            "0" if whole else f"{entry['kl from experts']:.3f}",
        ]
        lines.append("| " + " | ".join([*cells, f"{100 * entry['storage']:.2f} %", _models(row)]) + " |")
    return "\n".join(lines) + "\n"


def alt(headline: Mapping) -> str:
    """What the picture shows, in words."""
    said = [f"{row.how}, {100 * row.entry['mean']['value']:.1f} % in {_models(row)}" for row in rows(headline)]
    return "Bars of mean accuracy and of what has to be stored: " + "; ".join(said) + "."


def picture(headline: Mapping) -> str:
    """An SVG of two panels, accuracy with its 95 % interval and stored models: a bar a row, each with its number."""
    shown = rows(headline)
    tasks, height = len(headline["columns"]), TOP + ROW * len(shown) + 12
    per_model, x = (WIDTH - 40 - MIDDLE) / tasks, lambda share: LEFT + WIDE * share
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'role="img" font-family="system-ui, -apple-system, Segoe UI, Roboto, Liberation Sans, sans-serif" '
        'font-size="15" fill="#1d232a">',
        f"<title>{html.escape(alt(headline))}</title>",
        f'<rect width="{WIDTH}" height="{height}" rx="10" fill="#fff"/>',
        f'<text x="{LEFT}" y="26" font-weight="600">Mean accuracy on {tasks} tasks (%)</text>',
        f'<text x="{MIDDLE}" y="26" font-weight="600">Stored (models)</text>',
    ]
    for number, row in enumerate(shown):
        top, mean = TOP + ROW * number, row.entry["mean"]
        middle, colour = top + BAR / 2, COLOURS[row.kind]
        parts += [
            f'<text x="{LEFT}" y="{top - 7}">{html.escape(row.what)} <tspan fill="#566070">· {html.escape(row.how)}'
            "</tspan></text>",
            f'<rect x="{LEFT}" y="{top}" width="{WIDE * mean["value"]:.1f}" height="{BAR}" fill="{colour}"/>',
            f'<path d="M{x(mean["low"]):.1f} {middle:g}H{x(mean["high"]):.1f}m0-4v8M{x(mean["low"]):.1f} '
            f'{middle - 4:g}v8" stroke="#1d232a" fill="none"/>',
            f'<text x="{x(mean["high"]) + 9:.1f}" y="{middle + 5:g}">{100 * mean["value"]:.1f}</text>',
            f'<rect x="{MIDDLE}" y="{top}" width="{per_model * row.models:.1f}" height="{BAR}" fill="{colour}"/>',
            f'<text x="{MIDDLE + per_model * row.models + 9:.1f}" y="{middle + 5:g}">{row.models:.3g}</text>',
        ]
    about = f"{headline['suite']} suite, {headline['split']} images, with 95 % intervals; files of about 1 % of a model"
    parts += [f'<text x="14" y="{height - 14}" font-size="13" fill="#566070">{html.escape(about)}</text>', "</svg>"]
    return "\n".join(parts) + "\n"


def _models(row: Row) -> str:
    return "1 model" if row.models == 1 else f"{row.models:.3g} models"
