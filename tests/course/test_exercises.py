"""The exercises answer as they should, and the checkers are checked: right passes, wrong is told what is wrong."""

import ast
import inspect
from copy import deepcopy
from types import FunctionType

import numpy as np
import pytest
import torch

from dts_mini.course import answers, check, exercise, hint
from dts_mini.course.build import function_of, stub
from dts_mini.course.exercise import Exercise, Wrong, case, difference, verdict
from dts_mini.course.exercises import EXERCISES, collect

EACH = pytest.mark.parametrize("name", EXERCISES)
MISTAKES = [(name, symptom) for name, found in EXERCISES.items() for symptom in found.wrong]


def renamed(function, name: str):
    """A copy of a function under another name, as if a learner had written it."""
    copy = FunctionType(function.__code__, function.__globals__, name, function.__defaults__, function.__closure__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def named(value, name: str):
    candidate = lambda *arguments: value
    candidate.__name__ = name
    return candidate


def raising(error: BaseException):
    def candidate(*arguments):
        raise error

    return candidate


@pytest.fixture(autouse=True)
def nothing_happened_yet():
    answers._given.clear()
    answers._stand_ins.clear()


# --- every exercise ---


@EACH
def test_the_reference_passes_and_comes_back(name, capsys):
    found = EXERCISES[name]
    candidate = renamed(found.reference, name)
    assert check(candidate) is candidate
    assert capsys.readouterr().out == f"passed, {len(found.checks)} checks\n"
    assert len(found.checks) >= 3


@EACH
def test_the_stub_is_not_attempted_and_the_reference_comes_back(name, capsys):
    reference = EXERCISES[name].reference
    space = reference.__globals__ | {"check": check}
    exec(f"{stub(inspect.getsource(reference))}\n{name} = check({name})", space)
    assert space[name] is reference and f"{name}_mine" not in space
    assert capsys.readouterr().out == "not attempted yet\ngoing on with the solution\n"


@EACH
def test_at_least_three_wrong_answers_are_known(name):
    assert len(EXERCISES[name].wrong) >= 3


@pytest.mark.parametrize(("name", "symptom"), MISTAKES)
def test_a_wrong_answer_is_rejected_with_its_own_hint(name, symptom, capsys):
    found = EXERCISES[name]
    text = dict(found.hints)[symptom]
    assert verdict(found, found.wrong[symptom]).hint == (symptom, text)
    assert check(renamed(found.wrong[symptom], name)) is found.reference
    first, call, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("failed: ") and "expected" in first and "got" in first
    assert call.startswith(f"  in {name}(")
    assert rest == [f"hint: {symptom}", f"  {text}", f"going on with the solution; yours is {name}_mine"]


JUNK = (
    None,
    "five",
    True,
    [],
    (),
    {},
    {"w": None},
    [[1.0], [2.0]],
    object(),
    float("nan"),
    torch.empty(0),
    torch.ones(2, 2) * torch.nan,
    torch.zeros(3, dtype=torch.bool),
    (1.0, "two"),
    10**400,
    1j,
)
ERRORS = (ValueError("no"), ZeroDivisionError(), RecursionError("deep"), SystemExit(0), Wrong("I said so"), KeyError(1))


@EACH
def test_a_candidate_that_returns_junk_fails_and_nothing_is_raised(name, capsys):
    for junk in JUNK:
        assert check(named(junk, name)) is EXERCISES[name].reference
        assert capsys.readouterr().out.startswith("failed: "), junk


@EACH
def test_a_candidate_that_raises_fails_and_nothing_is_raised(name, capsys):
    for error in ERRORS:
        candidate = raising(error)
        candidate.__name__ = name
        assert check(candidate) is EXERCISES[name].reference
        assert capsys.readouterr().out.startswith("failed: "), error


@EACH
def test_a_candidate_with_the_wrong_number_of_parameters_fails(name, capsys):
    candidate = lambda: 1
    candidate.__name__ = name
    check(candidate)
    assert "TypeError" in capsys.readouterr().out


@EACH
def test_it_says_how_hard_and_how_long_and_documents_its_function(name):
    found = EXERCISES[name]
    assert found.difficulty in ("easy", "medium", "hard") and 0 < found.minutes <= 30
    assert found.reference.__doc__ and found.notebook == inspect.getmodule(found.reference).NOTEBOOK
    assert inspect.getmodule(found.reference).__name__.endswith(f".nb{found.notebook}")
    assert set(found.wrong) <= set(dict(found.hints)) and len(dict(found.hints)) == len(found.hints) >= 3
    assert isinstance(function_of(inspect.getsource(found.reference)), ast.FunctionDef)


# --- check ---


def test_none_gets_the_question_whether_there_is_a_return(capsys):
    check(named(None, "half_width"))
    assert capsys.readouterr().out.splitlines() == [
        "failed: expected 0.0294, got None: is there a return?",
        "  in half_width(0.9, 400)",
        "going on with the solution; yours is half_width_mine",
    ]


def test_the_learners_own_function_stays_in_the_notebook_that_called_check():
    notebook = {"check": check, "half_width": named(0.0, "half_width")}
    mine = notebook["half_width"]
    exec("half_width = check(half_width)", notebook)
    assert notebook["half_width"] is EXERCISES["half_width"].reference
    assert notebook["half_width_mine"] is mine
    better = notebook["half_width"] = renamed(EXERCISES["half_width"].reference, "half_width")
    exec("half_width = check(half_width)", notebook)
    assert notebook["half_width"] is notebook["half_width_mine"] is better


def test_a_wrong_shape_is_named(capsys):
    check(named(torch.ones(3), "head_of"))
    assert capsys.readouterr().out.startswith("failed: expected shape (3, 2), got (3,)\n  in head_of(")


def test_the_fallback_is_nobodys_answer(capsys):
    half_width = check(named(None, "half_width"))
    capsys.readouterr()
    assert check(half_width) is half_width
    assert capsys.readouterr().out.startswith("not attempted yet: this is the solution")


@pytest.mark.parametrize("thing", [None, 3, torch.ones(2), lambda: 1, print, "head_of", []])
def test_what_is_no_exercise_is_handed_back_with_a_word(thing, capsys):
    assert check(thing) is thing
    assert capsys.readouterr().out.startswith("failed: expected a function of this course")


def test_an_interrupt_is_the_learners_own():
    candidate = raising(KeyboardInterrupt())
    candidate.__name__ = "half_width"
    with pytest.raises(KeyboardInterrupt):
        check(candidate)


def test_a_lambda_goes_by_the_name_that_it_was_given(capsys):
    exec("half_width = check(lambda p, n: 1.96 * (p * (1 - p) / n) ** 0.5)", {"check": check})
    assert "failed" in capsys.readouterr().out  # it has no name yet
    exec("half_width = lambda p, n: 1.96 * (p * (1 - p) / n) ** 0.5\ncheck(half_width)", {"check": check})
    assert capsys.readouterr().out == "passed, 4 checks\n"


# --- judged rightly ---


def not_built(x):
    raise NotImplementedError("a library's own")


def test_only_the_stubs_own_exception_means_not_attempted(capsys):
    def paired_half_width(first, second):
        return (first - second).float().std().item()  # torch has no minus for bool, and says so in its own way

    def half_width(p, n):
        return torch.zeros(3, device="meta").sum().item()

    def head_of(text):
        return not_built(text)

    for function in (paired_half_width, half_width, head_of):
        check(function)
        out = capsys.readouterr().out
        assert out.startswith("failed: ") and "your line: " in out, function.__name__


def test_a_stub_in_one_branch_alone_is_an_answer_that_failed():
    def half_width(p, n):
        if p == 1.0:
            raise NotImplementedError
        return EXERCISES["half_width"].reference(p, n)

    found = verdict(EXERCISES["half_width"], half_width)
    assert (found.status, found.checks, found.call) == ("failed", 3, "half_width(1.0, 50)")
    assert "still says raise NotImplementedError" in found.message


@EACH
def test_a_hint_is_given_only_where_the_mistake_agrees_on_every_input(name):
    """Each mistake, right on all inputs but the one that fails first: no longer that mistake."""
    found = EXERCISES[name]
    for symptom, mistake in found.wrong.items():
        failed = []

        def candidate(*arguments, mistake=mistake, failed=failed):
            given = repr(arguments)
            if not failed and exercise.difference(*(attempt(f, arguments) for f in (mistake, found.reference))):
                failed.append(given)
            return (mistake if given in failed else found.reference)(*deepcopy(arguments))

        told = verdict(found, renamed(candidate, name)).hint
        assert not told or alike(found, found.wrong[told[0]], candidate), symptom


def attempt(function, arguments):
    try:
        return function(*deepcopy(arguments))
    except Exception as error:
        return error


def alike(found, one, other) -> bool:
    return not any(exercise.difference(attempt(one, x), attempt(other, x)) for x in exercise._inputs(found))


@EACH
def test_an_answer_that_ruins_its_arguments_spoils_nothing_for_the_next(name):
    found = EXERCISES[name]

    def ruin(thing):
        if isinstance(thing, torch.Tensor):
            thing.zero_()
        elif isinstance(thing, dict | list | tuple):
            for value in list(thing.values() if isinstance(thing, dict) else thing):
                ruin(value)
            if not isinstance(thing, tuple):
                thing.clear()

    def ruthless(*arguments):
        ruin(arguments)

    assert verdict(found, renamed(ruthless, name)).status == "failed"
    assert verdict(found, found.reference).status == "passed"
    assert all(verdict(found, mistake).hint[0] == symptom for symptom, mistake in found.wrong.items())


@EACH
def test_a_verdict_counts_the_checks_that_passed(name):
    found = EXERCISES[name]
    assert verdict(found, found.reference).checks == len(found.checks)
    assert all(verdict(found, mistake).checks < len(found.checks) for mistake in found.wrong.values())


# --- hint ---


def test_hints_come_one_by_one_and_end_with_the_place_of_the_solution(capsys):
    found = EXERCISES["head_of"]
    assert found.ladder[1:-1] == found.hints
    for step, (symptom, text) in enumerate(found.ladder, 1):
        hint("head_of")
        head, *rest = capsys.readouterr().out.splitlines()
        assert head == f"{step} of {len(found.ladder)}: {symptom}"
        assert [line.removeprefix("  ") for line in rest] == text.splitlines()
    for _ in range(2):
        hint("head_of")
        assert "solved/00_start_here.ipynb" in capsys.readouterr().out
    hint("half_width")  # counts by itself
    assert capsys.readouterr().out.startswith("1 of ")


def test_no_hint_prints_the_solution():
    for found in EXERCISES.values():
        body = ast.unparse(function_of(inspect.getsource(found.reference)).body[-1])
        assert not any(body in text for text in (found.start, *dict(found.hints).values()))
        assert "..." in found.skeleton  # which may show how it ends


@EACH
def test_the_first_hint_says_how_to_start_and_the_last_is_a_skeleton(name):
    found = EXERCISES[name]
    assert found.start and found.skeleton
    assert found.ladder[0] == ("how to start", found.start) and found.ladder[-1][1] == found.skeleton
    function = function_of(found.skeleton)
    assert "..." in ast.unparse(function) and found.start[-1] in ".:?"


@pytest.mark.parametrize(
    ("skeleton", "words"),
    [
        ("def double(x)", "is no Python"),
        ("def twice(x):\n    ...", "does not define double"),
        ("def double(y):\n    ...", "has other parameters"),
        ("def double(x):\n    return 2 * x", "leaves nothing to do"),
    ],
)
def test_a_skeleton_that_is_none_is_refused(skeleton, words):
    with pytest.raises(ValueError, match=f"'double': its skeleton {words}"):
        an_exercise(skeleton=skeleton)


def test_a_hint_for_nothing_names_what_there_is(capsys):
    hint("head")
    assert "no exercise called 'head'" in (out := capsys.readouterr().out) and "head_of" in out


# --- the machinery ---


def double(x):
    return 2 * x


def an_exercise(**changes) -> Exercise:
    parts = {
        "name": "double",
        "notebook": "99",
        "difficulty": "easy",
        "minutes": 1,
        "reference": double,
        "checks": (case(double, 3),),
        "hints": (),
        "wrong": {},
    }
    return Exercise(**parts | changes)


def test_two_exercises_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two exercises are called 'double', in 98 and 99"):
        collect([an_exercise(notebook="98"), an_exercise()])


def test_a_wrong_answer_without_a_hint_is_refused():
    with pytest.raises(ValueError, match="no hint is headed 'Mine is zero'"):
        an_exercise(wrong={"Mine is zero": lambda x: 0})


def test_a_reference_of_another_name_is_refused():
    with pytest.raises(ValueError, match="its reference is called 'double'"):
        an_exercise(name="twice")


def test_a_case_sees_changed_inputs_although_the_result_is_right():
    def in_place(x):
        return x.mul_(2)

    run = case(double, torch.ones(2))
    with pytest.raises(Wrong, match="inputs to stay"):
        run(in_place)
    run(double)  # the inputs of the case itself are as they were


# --- code of one's own ---


def cut(x):
    """The library's."""
    return 2 * x


cut.__module__ = "dts_mini.core.cutting"


def test_an_answer_that_takes_it_from_the_library_is_told_to_write_it(capsys):
    library = "from dts_mini.core.merging import average\nimport dts_mini\n"
    for code in (
        "def double(x):\n    return average([x, x])",
        "def double(x):\n    from dts_mini.core.merging import average\n    return average([x, x])",
        "def double(x):\n    return helper(x)\ndef helper(x):\n    return [average for _ in range(2)][0](x)",
        "def double(x):\n    return dts_mini.core.merging.average(x)",
        "double = lambda x: average(x)",
        "double = average",
    ):
        space = {}
        exec(library + code, space)
        found = verdict(an_exercise(), space["double"])
        assert found.status == "failed" and "expected code of your own, got dts_mini" in found.message, code


def test_what_the_reference_calls_an_answer_may_call_and_what_is_only_called_so_does_not_count():
    space = {"cut": cut}
    exec("def double(x):\n    return cut(x)", space)
    assert (
        verdict(an_exercise(reference=space["double"], checks=(case(double, 3),)), space["double"]).status == "passed"
    )
    exec("def double(x):\n    return x.cut + x.cut", space)  # an attribute
    checks = (lambda candidate: candidate(Mine()),)
    assert verdict(an_exercise(checks=checks), space["double"]).status == "passed"


class Mine:
    cut = 1


def test_the_solution_of_an_earlier_exercise_is_no_library(capsys):
    space = {"half_width": EXERCISES["half_width"].reference}
    exec("def double(x):\n    half_width(0.5, 4)\n    return 2 * x", space)
    assert verdict(an_exercise(), space["double"]).status == "passed"


# --- exercises that build on each other, and on state dicts ---


def shift(state, by):
    return {name: x + by for name, x in state.items()}


def test_a_function_that_calls_the_learners_others_is_judged_by_what_comes_out(capsys):
    states = {"w": torch.ones(2, 1), "b": torch.zeros(3)}
    found = an_exercise(name="shift", reference=shift, checks=(case(shift, states, 1.0), case(shift, {}, 1.0)))
    space = {}
    exec("def move(x, by):\n    return x - by", space)
    exec("def shift(state, by):\n    return {n: move(state[n], by) for n in state}", space)
    assert verdict(found, space["shift"]).message == "failed: expected [[2.0], [2.0]] under 'w', got [[0.0], [0.0]]"
    exec("def move(x, by):\n    return x + by", space)
    assert verdict(found, space["shift"]).status == "passed"
    exec("def move(x, by):\n    raise NotImplementedError", space)
    said = verdict(found, space["shift"])
    assert said.status == "failed" and "NotImplementedError" in said.message, "another's stub is not this one's"


# --- speed ---


def test_a_right_answer_that_loops_is_told_how_slow_it_is_and_passes():
    found = an_exercise(pace=(torch.arange(1000.0),))
    loops = lambda x: torch.stack([sum([y] * 2) for y in x for _ in range(20)][::20]) if x.dim() else 2 * x
    assert "times slower" in (remark := exercise.pace(found, loops, slow=20, seconds=0)) and remark.startswith(
        "  right"
    )
    assert exercise.pace(found, double) == exercise.pace(an_exercise(), loops) == ""
    assert exercise.pace(found, raising(ValueError())) == ""


def invert(x):
    return 1 / x if x else 0.0


def test_an_exception_may_be_a_symptom():
    raises = lambda x: 1 / x
    checks = (case(invert, 2), case(invert, 0))
    hints = (("Mine raises", "Zero?"),)
    found = an_exercise(name="invert", reference=invert, checks=checks, hints=hints, wrong={"Mine raises": raises})
    assert verdict(found, raises).hint == ("Mine raises", "Zero?")
    assert "got ZeroDivisionError" in verdict(found, raises).message


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (1.00001, 1.0),
        (1, 1.0),
        (torch.tensor(1.0), 1.0),
        (3.0, 3),
        (np.int64(3), 3),
        (torch.tensor(3), 3),
        (np.float32(0.5), 0.5),
        (1.5, torch.tensor(1.5)),
        (np.float64(1.5), torch.tensor(1.5)),
        (np.bool_(True), True),
        (torch.tensor(True), True),
        (torch.tensor([1.0, 2]).double(), torch.tensor([1.0, 2])),
        ([1.0, 2.0], (1.0, 2.0)),
        ({"b": 2, "a": 1}, {"a": 1, "b": 2}),
        (torch.tensor([torch.nan]), torch.tensor([torch.nan])),
        (None, None),
        ("x", "x"),
    ],
)
def test_what_is_as_good_makes_no_difference(found, wanted):
    assert difference(found, wanted) == ""


@pytest.mark.parametrize(
    ("found", "wanted", "words"),
    [
        (1.01, 1.0, "expected 1.0, got 1.01"),
        (100_001, 100_000, "expected 100000, got 100001"),  # integers are exact
        (True, 1, "expected a number, got a bool"),
        (1, True, "expected True, got 1"),
        (torch.ones(2), 1.0, "expected a number, got a Tensor"),
        ("1.0", torch.tensor(1.0), "expected a tensor of shape (), got a str"),
        ([1.0], torch.ones(1), "expected a tensor of shape (1,), got a list"),
        (torch.ones(8), torch.ones(8, 8), "expected shape (8, 8), got (8,)"),
        (torch.ones(2).long(), torch.ones(2), "expected floats, torch.float32, got torch.int64"),
        (torch.tensor([1.0, 3.0]), torch.tensor([1.0, 2.0]), "expected [1.0, 2.0], got [1.0, 3.0]"),
        (torch.ones(2), torch.ones(2).long(), "expected whole numbers, torch.int64, got torch.float32"),
        (np.ones(2), torch.ones(2), "expected a tensor of shape (2,), got a numpy array"),
        (None, (torch.ones(2), 3), "expected (tensor([1.0, 1.0]), 3), got None: is there a return?"),
        ((1, 2), (1, 3), "expected 3 at position 1, got 2"),
        ((1,), (1, 3), "expected 2 values, got 1"),
        (5, (1, 3), "expected 2 values, got an int"),
        ({"a": 1}, {"a": 1, "b": 2}, "expected the keys ['a', 'b'], got ['a']"),
        ({"a": torch.zeros(1)}, {"a": torch.ones(1)}, "expected [1.0] under 'a', got [0.0]"),
        (ValueError("no"), 1.0, "expected 1.0, got ValueError: no"),
        ("y", "x", "expected 'x', got 'y'"),
    ],
)
def test_a_difference_says_what_was_expected_and_what_came(found, wanted, words):
    assert difference(found, wanted) == words


def test_a_large_tensor_is_shown_in_short():
    assert len(difference(torch.zeros(100, 100), torch.ones(100, 100))) < 200
