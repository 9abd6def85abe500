"""Search of the book: other forms, other spellings, slips and Greek letters find what is meant. Runs in Node, if any."""

import json
import random
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "dts_mini/course/assets/search.js"
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="no Node here: the browser's test searches, too, if it is there")

ENTRIES = [
    ["02.html", "02 · Decomposition", "Step-1", "Step 1 · Components", "We decompose a matrix. Each part has one colour."],
    ["03.html", "03 · Thresholding", "Step-1", "Step 1 · The rule", "A threshold cuts, at keep_ratio 0.1, by the median."],
    ["04.html", "04 · Scaling", "Step-2", "Step 2 · Length", "How long is τ? The file of INT4 codes; modelling errors."],
    ["07.html", "07 · Personalised merging", "Step-1", "Step 1 · Base", "Personalise a base by water-filling of bits."],
    ["glossary.html", "Glossary", "Keep-ratio", "Keep ratio", "The share of the components that is kept."],
    ["glossary.html", "Glossary", "Threshold", "Threshold", "Sorts elements into groups."],
    ["api-core.html", "core.codes", "threshold", "threshold", "threshold(x) -> codes: threshold, threshold, threshold"],
]  # fmt: skip
FAMILIES = (
    "decompose decomposes decomposed decomposing decomposition decompositions",
    "personalise personalised personalises personalising personalisation personalize personalized personalization",
    "colour colours coloured color colors colored coloring",
    "model models modelling modelled modeling modeled",
    "centre centred centres center centered centers",
    "truncate truncated truncating truncation truncations",
    "threshold thresholds thresholding",
    "quantise quantised quantisation quantize quantization",
    "fuse fused fusing fusion",
    "query queries",
    "loss losses",
    "neighbour neighbours neighbor neighbors neighbouring",
    "analyse analysed analyze analyzed",
)  # fmt: skip


def run(code: str, *arguments: object):
    """What ``code`` prints, given the script's Search and the arguments as ``given``."""
    program = f"{SCRIPT.read_text()}\nconst given = {json.dumps(arguments)};\nconsole.log(JSON.stringify({code}))"
    done = subprocess.run([NODE, "-"], input=program, capture_output=True, text=True, check=True, timeout=60)
    return json.loads(done.stdout)


def found(query: str, entries: list = ENTRIES) -> tuple[list[list], dict[str, str]]:
    answer = run("Search.find(Search.index(given[0]), given[1])", entries, query)
    return [hit["entry"] for hit in answer["hits"]], answer["instead"]


@pytest.mark.parametrize(
    ("query", "file", "heading"),
    [
        ("decomposing", "02.html", "Step 1 · Components"),
        ("personalized", "07.html", "Step 1 · Base"),
        ("color", "02.html", "Step 1 · Components"),
        ("colors", "02.html", "Step 1 · Components"),
        ("keep-ratio", "glossary.html", "Keep ratio"),
        ("keep_ratio", "glossary.html", "Keep ratio"),
        ("keepratio", "03.html", "Step 1 · The rule"),
        ("waterfilling", "07.html", "Step 1 · Base"),
        ("water filling", "07.html", "Step 1 · Base"),
        ("tau", "04.html", "Step 2 · Length"),
        ("τ", "04.html", "Step 2 · Length"),
        ("int4", "04.html", "Step 2 · Length"),
        ("what is a threshold", "glossary.html", "Threshold"),
        ("0.1", "03.html", "Step 1 · The rule"),
        ("modeling", "04.html", "Step 2 · Length"),
        ("decomp", "02.html", "Step 1 · Components"),
    ],
)
def test_a_query_leads_to_what_is_meant(query, file, heading):
    hits, instead = found(query)
    assert hits[0][0] == file and hits[0][3] == heading and not instead


def test_a_slip_finds_the_nearest_word_and_says_so():
    hits, instead = found("treshold")
    assert "Threshold" in [hit[3] for hit in hits[:2]] and instead == {"treshold": "threshold"}
    assert found("perzonalise")[1] == {"perzonalise": "personalise"}
    assert found("xyzzyxyzzy") == ([], {}) and found("   ") == ([], {}) and found("-") == ([], {})


def test_a_term_of_the_glossary_comes_before_the_code_of_the_same_name():
    assert [hit[0] for hit in found("threshold")[0]].index("glossary.html") == 0


def test_all_words_are_wanted_and_where_they_stand_nowhere_together_most_of_them():
    assert [hit[0] for hit in found("median colour")[0]] == ["03.html", "02.html"] or len(
        found("median colour")[0]
    ) == 2
    assert [hit[0] for hit in found("matrix colour")[0]] == ["02.html"]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_forms_and_spellings_of_a_word_have_one_stem(family):
    stems = run("given[0].map(Search.stem)", family.split())
    assert len(set(stems)) == 1, dict(zip(family.split(), stems, strict=True))


def test_words_that_are_not_the_same_keep_apart():
    line = "scale scalar code codec rank base basis merge task text head read file bias bits bytes row ratio rate"
    words = line.split()
    stems = run("given[0].map(Search.stem)", words)
    assert len(set(stems)) == len(words), dict(zip(words, stems, strict=True))


def distance(a: str, b: str) -> int:
    """Edits between two words, by the definition: the cheapest way through all pairs of their beginnings."""
    best = {(i, 0): i for i in range(len(a) + 1)} | {(0, j): j for j in range(len(b) + 1)}
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            ways = [best[i - 1, j] + 1, best[i, j - 1] + 1, best[i - 1, j - 1] + (a[i - 1] != b[j - 1])]
            if i > 1 and j > 1 and a[i - 2 : i] == b[j - 2 : j][::-1]:
                ways.append(best[i - 2, j - 2] + 1)
            best[i, j] = min(ways)
    return best[len(a), len(b)]


def test_the_distance_of_two_words_counts_edits_up_to_its_limit():
    draw = random.Random(0)
    words = ["".join(draw.choices("abc", k=draw.randint(0, 6))) for _ in range(400)]
    pairs = list(pairwise(words))
    counted = run("given[0].map(([a, b]) => Search.distance(a, b, 2))", pairs)
    assert counted == [min(distance(a, b), 3) for a, b in pairs]


def test_the_place_of_a_hit_is_the_word_as_it_stands():
    text = "Of errors, the Water-filling one, and θ₀."
    for asked, word in (("fill", "Water-filling"), ("theta", "θ₀"), ("error", "errors")):
        at, end = run("Search.place(given[0], new Set([Search.stem(given[1])]))", text, asked)
        assert text[at:end] == word
