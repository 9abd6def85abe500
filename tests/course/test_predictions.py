"""What is to be predicted: the question comes first, what answers it is folded, and no fold asks once it is answered."""

import ast
import re
from collections.abc import Iterator, Sequence

import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell

from dts_mini.course.build import is_answer, is_exercise, read, sources

ASKS = re.compile(r"\bPredict\b|\*\*predict\*\*|\bpredict:")
FOLD = re.compile(r"<details>\s*<summary>(.*?)</summary>.*?</details>", re.DOTALL)
SHOWS = {"show", "claim", "print", "display", "widget", "sliders.widget"}


def shows(cell: NotebookNode) -> bool:
    """Whether something comes out of a code cell, but for an exercise and its check."""
    if is_exercise(cell):
        return False
    calls = [ast.unparse(node.func) for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)]
    return bool(SHOWS & set(calls)) and "check" not in calls


def predictions(cells: Sequence[NotebookNode]) -> Iterator[list[NotebookNode]]:
    """Each prediction's cells, the question first, as far as its last answer or the fold that explains it.

    Neither stands beyond the next heading, or the text that goes on after the answer.
    """
    for number, cell in enumerate(cells):
        if cell.cell_type != "markdown" or not ASKS.search(FOLD.sub("", cell.source)):
            continue
        found, answered = [cell], False
        for later in cells[number + 1 :]:
            answered = answered or (later.cell_type == "code" and shows(later))
            found.append(later)
            if later.cell_type == "markdown":
                open_text = FOLD.sub("", later.source).strip()
                if (open_text and answered) or re.search(r"^##+ (?!Exercise)", later.source, re.MULTILINE):
                    break
        while len(found) > 1 and not (is_answer(found[-1]) or FOLD.search(found[-1].source)):
            found.pop()
        yield found


def faults(cells: Sequence[NotebookNode]) -> list[str]:
    """What is wrong with a notebook's predictions: (cell) and why."""
    told = []
    for question, *rest in predictions(cells):  # without any answer the rest is empty
        code = [cell for cell in rest if cell.cell_type == "code" and shows(cell)]
        told += [f"{cell.id}: shows what {question.id} asks and is no answer" for cell in code if not is_answer(cell)]
        if not code:
            told.append(f"{question.id}: nothing answers it")
    answered = False
    for cell in cells:
        if cell.cell_type == "code":
            answered = answered or is_answer(cell)
            continue
        for title in FOLD.findall(cell.source):
            if answered and re.search(r"expect|predict", title, re.IGNORECASE):
                told.append(f"{cell.id}: {title!r} stands after the answer")
        if ASKS.search(FOLD.sub("", cell.source)) or re.search(r"^##", cell.source, re.MULTILINE):
            answered = False
    return told


@pytest.mark.parametrize("source", sources(), ids=lambda source: source.stem)
def test_what_answers_a_prediction_is_folded_and_no_fold_asks_after_it(source):
    assert faults(read(source).cells) == []


ASK = new_markdown_cell("**Predict.** Up or down?")
FIGURE = {"source": "show(figures.curve(x))"}
ANSWER = new_code_cell(**FIGURE, metadata={"tags": ["answer"]})
SEEN = new_markdown_cell("<details><summary>What you should see</summary>\n\nUp.\n</details>")
EXPECT = new_markdown_cell("<details><summary>What do you expect?</summary>\n\nUp.\n</details>")
ON = new_markdown_cell("So it goes up.")
WORK = new_code_cell("x = rise(3)")


@pytest.mark.parametrize(
    "cells",
    [(ASK, WORK, ANSWER, SEEN, ON, new_code_cell(**FIGURE)), (ASK, EXPECT, ANSWER, new_code_cell(**FIGURE), ON)],
)
def test_a_question_with_a_folded_answer_is_right(cells):
    assert faults(cells) == []


@pytest.mark.parametrize(
    ("cells", "why"),
    [
        ((ASK, new_code_cell(**FIGURE), SEEN), "is no answer"),
        ((ASK, ANSWER, new_code_cell("claim('a', 'Up.', x)"), SEEN, ON), "is no answer"),
        ((ASK, new_code_cell(**FIGURE), ON), "nothing answers it"),
        ((ASK, WORK, SEEN, new_markdown_cell("## Next")), "nothing answers it"),
        ((ASK, ANSWER, EXPECT), "stands after the answer"),
    ],
)
def test_a_question_whose_answer_is_open_or_that_is_asked_too_late_is_a_fault(cells, why):
    assert any(why in fault for fault in faults(cells)), faults(cells)
