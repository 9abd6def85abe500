"""Numbers in prose: ``python -m dts_mini.course.prose [NAME ...]`` lists those that nothing backs.

A quantity in a notebook's text ("94 %", "a third of the bytes", "three times as long") is backed when it stands in the
sentence of a claim of the same notebook or among the paper's numbers (``data/paper.json``), when it is set in a code
cell, or when ``DEFINITIONS`` says that it is not measured. Headings, the goals box, code, mathematics and references
(Step 3, notebook 02, arXiv 2512.01461) hold no quantities.
"""

import argparse
import ast
import json
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from nbformat import NotebookNode

from dts_mini.core.file import read_bytes
from dts_mini.course import claims
from dts_mini.course.build import read, sources
from dts_mini.suites import places

PAPER = places.DATA / "paper.json"

# What is set and not measured: how the text says it (a regular expression), and why it may.
DEFINITIONS = (
    (r"95 % (?:\w+ )?intervals?|middle 95 %|1\.96 standard errors", "the level of every interval"),
    (
        r"(?<![\w.,])(?:[1-9]|16|31|32|64|one|two|three|four|five|six|eight|sixteen)(?: exact)?[ -](?:bits?|bytes?)\b",
        "widths of number formats and of codes",
    ),
    (r"larger half|half (?:that is larger|of three|of an odd number)", "the rule that makes the groups"),
    (r'"half" is rounded down', "the same"),
    (r"\b(?:\d+|[a-z]+|half a) (?:seconds?|minutes?)\b", "running times, which data/timings.json holds"),
)

# What is no prose, each replaced by as many marks; in this order.
STRUCTURE = tuple(
    re.compile(pattern, re.MULTILINE | re.IGNORECASE)
    for pattern in (
        r"(?s:^```.*?^```)",
        r"`[^`\n]+`",
        r"(?s:\$\$.+?\$\$)",
        r"\$[^$]+\$",
        r"<[^<>\n]+>",  # tags
        r"\]\([^)\s]*\)",  # addresses of links
        r"^ *#+ .*$",  # headings
        r"^ *>.*$",  # the goals box
        r"^\*\*Next:\*\*.*$",
        r"^ *(?:\*\*)?\d+\.(?:\*\*)? ",  # numbers of questions and lists
        r"\d+\s[×x]\s\d+(?:\s[×x]\s\d+)*",  # shapes
        r"arxiv[:\s]?\d{4}\.\d{4,5}",
        r"\b(?:notebook|step|exercise|question|figure|table|equation|section|chapter|fig\.|eq\.)s?\s+\(?\d+\)?"
        r"(?:(?:,| and| or| to|–|-)\s*\d+)*",
        r"\((?:easy|medium|hard),\s\d+\sminutes\)",
    )
)
MASK = "□"

_SMALL = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
_TENS = {"thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90}
_LARGE = {"hundred": 100, "thousand": 1_000, "million": 1_000_000}
CARDINALS = {word: number for number, word in enumerate(_SMALL)} | _TENS | _LARGE
PARTS = {"third": 3, "quarter": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8, "ninth": 9, "tenth": 10}
PARTS |= {"twentieth": 20, "hundredth": 100, "thousandth": 1_000}

_WORD = rf"\b(?:{'|'.join(CARDINALS)})\b"
_WORDS = rf"(?:\ba )?{_WORD}(?:[ -]{_WORD})*"
_PART = rf"(?:{'|'.join(PARTS)})"
# Digits that are no part of a name or a formula: SUN397, ViT-B/32, theta_0, 1/N.
_DIGITS = r"(?<![\w.,/])(?<![A-Za-z]-)\d+(?:,\d{3})*(?:\.\d+)?(?:/\d+)?(?!(?!x\b)[\w/]|[.,]\d)"
_NUMBER = rf"(?:{_DIGITS}|{_WORDS})"
_UNIT = (
    r"(?:[ -]?(?:%|(?:per cent|percent|percentage points?|points?|[KMG]i?B|bits?|bytes?|times|fold|parameters)\b)"
    r"|[ ]?×(?! ?\d)|x\b)"
)
_RANGE = rf"(?=(?: and | or | to |–){_NUMBER}(?P<unit>{_UNIT}))"  # the unit comes after the second number
_FRACTION_AFTER = "|".join(
    rf"(?<={word} )" for word in ("than", "about", "least", "most", "over", "under", "nearly", "by")
)
_FRACTION_BEFORE = r"(?= (?:of|as|less|more|fewer)\b| \w+er\b|[.,;:)]|$)"
QUANTITY = re.compile(
    "|".join(
        (
            rf"{_NUMBER}(?:{_UNIT}|{_RANGE})",  # 94 %, five points, three times, 35 (and 70 %)
            rf"\bone (?:time )?(?:in|out of) {_WORD}",  # one time in ten
            rf"(?!one\b){_WORD} (?:in|(?:out )?of)(?: (?:the|its|our|all))? {_WORD}",  # four of its seven
            rf"{_WORD} {_PART}s\b",  # nine tenths
            rf"(?:{_FRACTION_AFTER})(?:an?|one) {_PART}\b|\b(?:an?|one) {_PART}\b{_FRACTION_BEFORE}",  # not a way
            r"\bhalf\b(?![- ]?way|-| an? (?:second|minute))",
            r"\btwice(?= (?:as|the|that|its|their|\w+er)\b)|\bthrice\b",  # but: printed twice
            rf"\b(?:{'|'.join(CARDINALS)})fold\b",
            _DIGITS,
        )
    ),
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Quantity:
    """A quantity where it stands in a text: the words, in a form in which 'five per cent' is '5 %', and around it."""

    words: str
    value: str
    around: str


def quantities(text: str) -> list[Quantity]:
    """The quantities of a piece of Markdown, in order."""
    masked = text
    for pattern in STRUCTURE:
        masked = pattern.sub(_marks, masked)
    text, masked = re.sub(r"\s", " ", text), re.sub(r"\s", " ", masked)  # lines are wrapped anywhere
    return [
        Quantity(match[0], _value(match), text[max(0, match.start() - 40) : match.end() + 40].strip())
        for match in QUANTITY.finditer(masked)
    ]


def _marks(match: re.Match) -> str:
    return re.sub(r"\S", MASK, match[0])


def _value(match: re.Match) -> str:
    """A quantity with digits for words and one spelling for each unit."""
    text = (match[0] + (match["unit"] or "")).lower().replace("-", " ").replace(",", "")
    text = re.sub(r"per ?cent(?!age)", "%", text)
    text = re.sub(r"(?<=\d)(?=[%×x])", " ", text)
    found: list[str | int] = []
    for word in text.split():
        number, part = CARDINALS.get(word), PARTS.get(word.removesuffix("s"))
        if number is None:
            found.append("1" if word in ("a", "an") else f"/{part}" if part else word.removesuffix("s"))
        elif found and isinstance(found[-1], int):  # ninety-four, two thousand
            found[-1] = found[-1] * number if number >= 100 else found[-1] + number
        else:
            found.append(number)
    return " ".join(map(str, found)).replace(" /", "/")


def unbacked(notebook: NotebookNode, recorded: Iterable[str] = ()) -> list[tuple[str, Quantity]]:
    """(cell id, quantity) of a notebook's text that nothing backs; ``recorded``: its claims' sentences when it ran."""
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    stated = [call.sentence for cell in code for call in claims.calls(cell)]
    backed = _values(*stated, *recorded, *_paper()) | {"0", "1"}
    backed |= {number for cell in code for number in _literals(cell)}
    return [
        (cell.id, quantity)
        for cell in notebook.cells
        if cell.cell_type == "markdown"
        for quantity in quantities(defined(cell.source))
        if quantity.value not in backed | _values(*_premises(cell.source))
    ]


def _values(*texts: str) -> set[str]:
    return {quantity.value for text in texts for quantity in quantities(text)}


def _premises(text: str) -> list[str]:
    """The questions of a quiz: what they suppose ("someone reports 71 %") is not measured, and answers may use it."""
    return [re.sub(r"<details>.*?</details>", "", text, flags=re.DOTALL)] if text.startswith("## Quiz") else []


def defined(text: str) -> str:
    """A text without what DEFINITIONS allow."""
    for pattern, _ in DEFINITIONS:
        text = re.sub(pattern.replace(" ", r"\s+"), _marks, text, flags=re.IGNORECASE)
    return text


def _literals(code: str) -> set[str]:
    """The numbers that a cell sets, as text: those of its code, the bounds of claims left out."""
    within = lambda node: (
        [node] if _is_claim(node) else [node, *(n for c in ast.iter_child_nodes(node) for n in within(c))]
    )
    numbers = [
        n.value for n in within(ast.parse(code)) if isinstance(n, ast.Constant) and type(n.value) in (int, float)
    ]
    return {f"{number:g}" if isinstance(number, float) else str(number) for number in numbers}


def _is_claim(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "claim"


def _paper() -> list[str]:
    """The texts of data/paper.json: the paper's numbers with their sources."""
    return [text for row in json.loads(read_bytes(PAPER))["rows"] for text in row.values() if isinstance(text, str)]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Lists the numbers in the notebooks' text that nothing backs.")
    parser.add_argument("names", nargs="*", help="only sources whose name starts so, such as 02")
    options = parser.parse_args(arguments)
    chosen = [s for s in sources() if not options.names or s.stem.startswith(tuple(options.names))]
    found = [(source, *each) for source in chosen for each in unbacked(read(source), sentences(source.stem))]
    for source, cell, quantity in found:
        print(f"{source.name}, cell {cell}: {quantity.words!r} in: ... {quantity.around} ...")
    print(f"{len(found)} numbers in prose that no claim, definition or number of the paper backs")
    return bool(found)


def sentences(notebook: str) -> list[str]:
    """The sentences of a notebook's claims as they were printed when it last ran."""
    return [c["sentence"] for c in claims.recorded() if c["notebook"] == notebook] if claims.PATH.exists() else []


if __name__ == "__main__":
    sys.exit(main())
