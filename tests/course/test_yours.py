"""A sentence says "your" only of what is the learner's, and then of all that it rests on."""

import ast
import inspect
import re
import textwrap

import pytest
from test_whole_claims import bound_by, read_by, statements

from dts_mini.course.build import sources
from dts_mini.course.exercises import EXERCISES

FIRST = [source for source in sources() if source.stem[:2] <= "06"]
# What a sentence may call by itself: a function, whatever else its value rests on.
FUNCTION = re.compile(
    rf"\b[Yy]our (?:function|formula|half-width|paired interval|Task Arithmetic|election|{'|'.join(EXERCISES)})\b"
)


def rests_on(body: list[ast.stmt], place: int) -> set[str]:
    """The exercises whose functions a statement's values come from; of a name what binds it last before counts."""
    names, own = read_by(body[place]), in_use(body)
    for other in reversed(body[:place]):
        if (bound := bound_by(other) - own) & names:  # an exercise's function is one thing, whatever is in it
            names = (names - bound) | read_by(other)
    found = names & own
    return found | {each for name in found for each in calls_of(name) if each in BROUGHT}


def in_use(body: list[ast.stmt]) -> set[str]:
    """The exercises of a notebook: those that it checks, and those that it brings from others."""
    calls = [each for node in body for each in ast.walk(node) if isinstance(each, ast.Call)]
    checked = {ast.unparse(each.args[0]) for each in calls if ast.unparse(each.func) == "check"}
    return checked | {name.value for each in calls if ast.unparse(each.func) == "bring" for name in each.args}


BROUGHT = {"decompose", "threshold", "scale", "pack", "unpack"}  # what 06 is built on


def calls_of(name: str) -> set[str]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(EXERCISES[name].reference)))
    return {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}


def named(call: ast.Call, before: list[ast.stmt]) -> tuple[str, set[str]]:
    """(sentence, the exercises of ``of=``) of a claim, each written there or bound to a name before."""
    sentence = value_of(call.args[1], before)
    given = next((value_of(each.value, before) for each in call.keywords if each.arg == "of"), ())
    return sentence, {given} if isinstance(given, str) else set(given)


def value_of(node: ast.expr, before: list[ast.stmt]):
    if isinstance(node, ast.Name):
        bound = [each for each in before if isinstance(each, ast.Assign) and ast.unparse(each.targets[0]) == node.id]
        return value_of(bound[-1].value, before[: before.index(bound[-1])])
    if isinstance(node, ast.Tuple):
        parts = [value_of(each.value if isinstance(each, ast.Starred) else each, before) for each in node.elts]
        return tuple(name for part in parts for name in ((part,) if isinstance(part, str) else part))
    return node.value if isinstance(node, ast.Constant) else ""


def unnamed(body: list[ast.stmt]):
    """(sentence, exercises that it rests on and does not name) of each claim about something of the learner's."""
    for place, statement in enumerate(body):
        for call in ast.walk(statement):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "claim":
                sentence, of = named(call, body[:place])
                if re.search(r"\b[Yy]our\b", str(sentence)) and not FUNCTION.search(sentence):
                    yield sentence, rests_on(body, place) - of


@pytest.mark.parametrize("source", FIRST, ids=lambda source: source.stem)
def test_a_claim_about_the_learners_work_names_every_function_that_it_rests_on(source):
    for sentence, missing in unnamed(statements(source)):
        assert not missing, f"{sentence} of= lacks {sorted(missing)}"


def test_a_claim_that_names_too_few_is_found():
    lines = """
decompose, threshold = bring("decompose", "threshold")
pack = check(pack)
codes = threshold(decompose(M, 0.1)[0])
sentence = "Your bytes are few."
claim("05-a", sentence, pack(codes).sum(), of="pack")
claim("05-b", "Your pack is right.", pack(codes).sum(), of="pack")
both = ("threshold", "decompose")
claim("05-c", sentence, pack(codes).sum(), of=(*both, "pack"))
"""
    found = list(unnamed(ast.parse(lines).body))
    assert found == [("Your bytes are few.", {"threshold", "decompose"}), ("Your bytes are few.", set())]
