"""Numbers in prose: the finder finds quantities and nothing else, and in the notebooks each of them is backed."""

import re

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from dts_mini.course import prose
from dts_mini.course.build import read, sources
from dts_mini.course.prose import DEFINITIONS, quantities, sentences, unbacked

SOURCES = pytest.mark.parametrize("source", sources(), ids=lambda source: source.stem)


def values(text: str) -> list[str]:
    return [quantity.value for quantity in quantities(text)]


# --- the finder ---


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The experts get 94 % right.", ["94 %"]),
        ("a share of 12.5% is left", ["12.5 %"]),
        ("five per cent, ninety-four per cent", ["5 %", "94 %"]),
        ("between 35 and\n70 % right", ["35 %", "70 %"]),
        ("30–40 points, three to five points", ["30 point", "40 point", "3 point", "5 point"]),
        ("a third of the bytes", ["1/3"]),
        ("shorter than a fifth; by a tenth; a quarter.", ["1/5", "1/10", "1/4"]),
        ("nine tenths of it, two thirds", ["9/10", "2/3"]),
        ("half of the way", ["half"]),
        ("three times as long, 4 × smaller, 5x faster", ["3 time", "4 ×", "5 x"]),
        ("twice as long, tenfold, three-fold", ["twice", "tenfold", "3 fold"]),
        ("about one time in ten", ["1 time in 10"]),
        ("four of its seven partners", ["4 of it 7"]),
        ("0.106 bits and 1,234 numbers", ["0.106 bit", "1234"]),
        ("two thousand parameters", ["2000 parameter"]),
        ("1.85 million", ["1.85"]),
        ("**Look:** 94 %", ["94 %"]),
        ("a list\n\n- with 94 % in it", ["94 %"]),
    ],
)
def test_quantities_are_found_with_their_units_in_digits_and_in_words(text, found):
    assert values(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "See notebook 02, Step 3 and Exercise 1.",
        "Notebooks 02, 03 and 04; steps 2 and 3; Figure 1; Table 2; equation (3)",
        "## Step 3 · Keep 12 of them (easy, 5 minutes)",
        "It is (hard, 15 minutes).",
        r"Take $\frac12$ of $x_1$, and $$y = 3x +" + "\n 94 %$$",
        "Call `x[0]` and\n```\nprint(94)\n```\n",
        "[arXiv 2512.01461](https://arxiv.org/abs/2512.01461), arXiv:2306.01708, arXiv\n2311.03099",
        "> **Time.** 15 minutes to read, about 30 seconds to run.",
        "**1.** Why?\n\n2. Because.",
        "**Next:** 02 · Decomposition",
        "ViT-B/32, SUN397, float32, theta_0, 1/N",
        "images of 32 x 32 pixels, 192 × 768 × 3",
        "It asks for a third way: the third model of eight experts.",
        "half-way there, `True` printed twice, the half-width",
        "One of them, two of these.",
        '<details><summary>Answer</summary>\n<img width="30">',
    ],
)
def test_references_formulas_code_and_names_are_no_quantities(text):
    assert values(text) == []


def test_a_quantity_shows_the_words_around_it():
    (quantity,) = quantities("What the experts of Step 2\nget is 94 % right, nearly.")
    assert quantity.words == "94 %"
    assert quantity.around == "What the experts of Step 2 get is 94 % right, nearly."


# --- what backs a quantity ---


def notebook(text: str, *code: str):
    return new_notebook(cells=[new_markdown_cell(text, id="00-000"), *map(new_code_cell, code)])


def reported(text: str, *code: str, recorded=()) -> list[str]:
    return [quantity.words for _, quantity in unbacked(notebook(text, *code), recorded)]


def test_a_number_that_nothing_backs_is_reported_with_its_cell():
    ((cell, quantity),) = unbacked(notebook("The experts get 93.7 % right."))
    assert cell == "00-000" and quantity.words == "93.7 %"


def test_the_sentence_of_a_claim_backs_a_number_however_it_is_written():
    claim = 'claim("00-a", "They get at least five points more.", gain, low=0.05)'
    assert reported("5 points or more", claim) == []
    assert reported("6 points or more, 5 %, five times", claim) == ["6 points", "5 %", "five times"]


def test_a_sentence_that_is_filled_in_backs_what_it_said_when_it_ran():
    claim = 'claim(f"00-{task}", f"It keeps {share} % of {task}.", gain, low=0.05)'
    assert reported("It keeps 63 %", claim) == ["63 %"]
    assert reported("It keeps 63 %", claim, recorded=["It keeps 63 % of signs."]) == []


def test_a_number_that_a_cell_sets_may_be_quoted_but_not_the_bound_of_a_claim():
    assert reported("rank 19, a coefficient of 0.3", "rank = 19\nmerge(coefficient=0.3)") == []
    assert reported("only 0.17", 'claim("00-a", "Low.", x, high=0.17)') == ["0.17"]


def test_a_number_of_the_paper_may_be_quoted():
    assert reported("The paper reports 90.40 % for DTS-D, and 3.68 % of storage.") == []


def test_what_a_quiz_supposes_may_be_used_in_its_answers():
    quiz = "## Quiz\n\n**1.** Someone reports 71.3 %.\n\n<details><summary>Answer</summary>\n\n{}\n</details>"
    assert reported(quiz.format("They got 71.3 %.")) == []
    assert reported(quiz.format("They got 71.4 %.")) == ["71.4 %"]
    assert reported("Someone reports 71.3 %.") == ["71.3 %"]


@pytest.mark.parametrize(
    "text",
    [
        "Brackets are 95 % intervals.",
        "95 % bootstrap\nintervals",
        "two bits for each",
        "about 5 seconds",
    ],
)
def test_definitions_are_no_measurements(text):
    assert reported(text) == []


@pytest.mark.parametrize("text", ["95 % of them", "0.106 bits", "1,536 bytes", "412 bytes"])
def test_definitions_let_no_measurement_through(text):
    assert len(reported(text)) == 1


def test_the_command_lists_what_nothing_backs(tmp_path, monkeypatch, capsys):
    for name, text in (("07_a", "They get 93.7 % right."), ("08_b", "Nothing here.")):
        (tmp_path / f"{name}.py").write_text(f"# %% [markdown]\n# {text}\n")
    monkeypatch.setattr(prose, "sources", lambda: sorted(tmp_path.glob("*.py")))
    assert prose.main(["08"]) == 0
    assert capsys.readouterr().out.startswith("0 numbers in prose")
    assert prose.main([]) == 1
    assert "07_a.py, cell 07-000: '93.7 %' in: ... They get 93.7 % right. ..." in capsys.readouterr().out


# --- the notebooks ---


@SOURCES
def test_every_number_in_a_notebooks_prose_is_backed(source):
    found = unbacked(read(source), sentences(source.stem))
    assert not found, "\n".join(f"{cell}: {quantity.words!r} in: {quantity.around}" for cell, quantity in found)


def test_every_definition_is_needed():
    text = "\n".join(cell.source for source in sources() for cell in read(source).cells if cell.cell_type == "markdown")
    for pattern, reason in DEFINITIONS:
        assert reason and re.search(pattern.replace(" ", r"\s+"), text, re.IGNORECASE), pattern
