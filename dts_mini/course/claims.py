"""Claims: sentences with a number in them, checked where they are made.

A claim prints its sentence and what was measured: "holds: It is small. (measured 3.2 % [2.9, 3.5])". The number may
differ in its last digits from machine to machine, so nbval masks the bracket (``tests/nbval_sanitize.cfg``) and the
claim's bounds judge: a claim that does not hold is an error. ``make notebooks`` gathers what was recorded in
``data/mini/claims.json``, from which the book and the README say what was measured.
"""

import ast
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import floor, inf, isfinite, log10
from pathlib import Path

from dts_mini.core.file import read_bytes
from dts_mini.course.answers import whose
from dts_mini.suites import places

PATH = places.DATA / "mini/claims.json"
PRINTED = re.compile(r"(?P<holds>holds: )(?P<sentence>.*) \(measured (?P<measured>.*)\)")  # a line of an output


class ClaimError(AssertionError):
    """A measured number lies outside what its sentence allows."""


def claim(
    name: str,
    sentence: str,
    value: float,
    *,
    low: float = -inf,
    high: float = inf,
    interval: tuple[float, float] | None = None,
    unit: str = "",
    of: str | tuple[str, ...] = (),
) -> None:
    """Checks that ``value`` lies in [low, high] and prints ``sentence`` with it; ClaimError, naming both, else.

    An estimate is given with its 95 % ``interval``, all of which has to lie in [low, high]. ``unit`` is how the number
    reads: with "%" the value is a share in [0, 1], with "points" a difference of two such shares, else as it is.
    ``of``: the exercises whose functions the sentence calls "your"; where the solution stands in for one of them, it
    says "the solution's" instead. Where the environment variable DTS_CLAIMS names a file, the claim is added to it, as
    a line of JSON, in the words it was written in.

    >>> claim("00-few", "Few were missed.", 0.032, high=0.05, interval=(0.029, 0.035), unit="%")
    holds: Few were missed. (measured 3.2 % [2.9, 3.5])

    The bounds are the mini suite's. On another suite (DTS_SUITE) a claim that does not hold says so and what was
    measured, and the notebook goes on: that is a finding, not a fault.
    """
    short = lambda end: float(end if float(end).is_integer() else f"{end:.6g}")
    record = {"name": name, "sentence": sentence, "value": short(value), "unit": unit}
    record |= {key: float(end) for key, end in (("low", low), ("high", high)) if abs(end) != inf}
    record |= {"interval": [short(end) for end in interval]} if interval else {}
    ends = (value, *(interval or ()))
    holds = all(low <= end <= high for end in ends)
    said = f"{_owned(sentence, of)} (measured {reads(record)})"
    if (os.environ.get("DTS_SUITE") or "mini") != "mini":
        print(f"{'holds' if holds else 'does not hold on this suite'}: {said}")
        return
    if not holds:
        got = f"{value:.6g}" + (f" (95 % interval {interval[0]:.6g} to {interval[1]:.6g})" if interval else "")
        raise ClaimError(f"claim {name!r} does not hold: {got} is outside [{low:g}, {high:g}] ({sentence})")
    if path := os.environ.get("DTS_CLAIMS"):
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
    print(f"holds: {said}")


def _owned(sentence: str, of: str | tuple[str, ...]) -> str:
    """The sentence, with "your" where it is true of all these exercises' functions."""
    names = (of,) if isinstance(of, str) else of
    if names and not re.search(r"\b[Yy]our\b", sentence):
        raise ValueError(f"of={of!r}, and the sentence calls nothing yours: {sentence}")
    word = whose(*names)
    return re.sub(r"\b[Yy]our\b", lambda found: _like(found[0], word), sentence) if names else sentence


def _like(word: str, other: str) -> str:
    return other[0].upper() + other[1:] if word[0].isupper() else other


# What was recorded


def recorded(path: Path = PATH) -> list[dict]:
    """The claims of ``data/mini/claims.json``: by notebook, in the order in which each makes them."""
    return json.loads(read_bytes(path))["claims"]


def gathered(lines: str, notebook: str) -> list[dict]:
    """The claims that a run of a notebook wrote, in order, each with its notebook; ValueError when two share a name."""
    records = [json.loads(line) for line in lines.splitlines()]
    names = [record["name"] for record in records]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            f"{notebook}: each claim needs a name of its own, and these are made twice: {', '.join(twice)}"
        )
    return [{"name": record.pop("name"), "notebook": notebook} | record for record in records]


def merged(before: Mapping, new: Mapping[str, list[dict]], notebooks: Iterable[str], provenance: dict) -> dict:
    """The content of claims.json after some notebooks were built: theirs are replaced, those of others stay.

    ``before`` is the old content (or empty), ``new`` the claims by notebook, ``notebooks`` all there are, in order. A
    notebook whose claims came out the same keeps its old provenance, so that building twice gives the same file.
    """
    old = {name: [c for c in before.get("claims", []) if c["notebook"] == name] for name in notebooks}
    made = {
        name: provenance if new.get(name, was) != was else before.get("provenance", {}).get(name)
        for name, was in old.items()
    }
    return {
        "claims": [claim for name, was in old.items() for claim in new.get(name, was)],
        "provenance": {name: entry for name, entry in made.items() if entry},
    }


# How they read


def reads(claim: Mapping) -> str:
    """The measured number for people: "75.6 % [74.6, 76.5]", "12.3 points", "0.106 bits", "9"."""
    share = claim["unit"] in ("%", "points")
    if not all(map(isfinite, (claim["value"], *claim.get("interval", ())))):
        return f"{claim['value']:g} {claim['unit']}".rstrip()
    value, *ends = (100 * end if share else end for end in (claim["value"], *claim.get("interval", ())))
    if ends:  # all with as many decimals as its width makes sensible, or as the largest needs
        size = ends[1] - ends[0] if share else max(map(abs, ends)) / 100
        digits = max(int(share), -floor(log10(size))) if size else 1
        show = lambda number: f"{round(number, digits) + 0.0:,.{digits}f}"  # + 0.0: no minus before a zero
    elif share and abs(value) >= 10:
        show = lambda number: f"{number:.1f}"
    else:
        show = _significant
    brackets = f" [{', '.join(map(show, ends))}]" if ends else ""
    return f"{show(value)} {claim['unit']}".rstrip() + brackets


def bounds(claim: Mapping) -> str:
    """What the claim allows, for people: "at least 35 %", "between 35 and 70 %", "exactly 9"."""
    unit, scale = claim["unit"], 100 if claim["unit"] in ("%", "points") else 1
    low, high = (_plain(scale * claim[end]) if end in claim else None for end in ("low", "high"))
    if low is None and high is None:
        return "anything"
    if low == high:
        words = f"exactly {low}"
    elif low is None or high is None:
        words = f"at most {high}" if low is None else f"at least {low}"
    else:
        words = f"between {low} and {high}"
    return f"{words} {unit.removesuffix('s') if words.endswith(' 1') else unit}".rstrip()


def _significant(number: float) -> str:
    """Three significant digits; whole numbers whole; very small ones with a power of ten."""
    if number == int(number) or abs(number) >= 999.5:
        return f"{number:,.0f}"
    if abs(number) >= 1e-3:
        return f"{number:#.3g}".rstrip(".")
    power = floor(log10(abs(number)))
    mantissa = f"{number / 10**power:.1f} × ".removeprefix("1.0 × ")
    return f"{mantissa}10" + str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _plain(number: float) -> str:
    """A bound as it was written, a third to five digits."""
    if 0 < abs(number) < 1e-3:
        return _significant(number)
    return f"{number:,.0f}" if round(number, 9) == round(number) else f"{number:.5g}"


# What a notebook's code says of them


@dataclass(frozen=True)
class Call:
    """A call of ``claim`` in code: its name and sentence, as far as the code alone tells them."""

    name: str  # a regular expression: what an f-string fills in is .+
    sentence: str  # what an f-string fills in is …


def calls(code: str) -> list[Call]:
    """The calls of ``claim`` in a cell's code, in order; ValueError when a name is neither a string nor an f-string."""
    nodes = list(ast.walk(ast.parse(code)))
    named = [n for n in nodes if isinstance(n, ast.Assign) and isinstance(n.targets[0], ast.Name)]
    found = [n for n in nodes if isinstance(n, ast.Call) and ast.unparse(n.func) == "claim"]
    result = []
    for call in sorted(found, key=lambda call: (call.lineno, call.col_offset)):
        given = dict(zip(("name", "sentence"), call.args, strict=False)) | {k.arg: k.value for k in call.keywords}
        name, sentence = _text(given.get("name")), _text(given.get("sentence"))
        if isinstance(given.get("sentence"), ast.Name):  # sentence = "..."
            before = [n for n in named if n.targets[0].id == given["sentence"].id and n.lineno < call.lineno]
            sentence = _text(max(before, key=lambda n: n.lineno).value) if before else None
        if name is None:
            raise ValueError(f"line {call.lineno}: write the name of a claim as a string: {ast.unparse(call)}")
        result.append(Call("".join(".+" if p is ... else re.escape(p) for p in name), _joined(sentence)))
    return result


def _text(node: ast.expr | None) -> list | None:
    """A string or f-string as its parts, ... for each that is filled in; None for other expressions."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.JoinedStr):
        return [part.value if isinstance(part, ast.Constant) else ... for part in node.values]
    return None


def _joined(parts: list | None) -> str:
    return "…" if parts is None else "".join("…" if part is ... else part for part in parts)
