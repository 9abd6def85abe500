"""Values travel between two processes as what they are, and what is out of bounds is no message."""

from functools import partial

import numpy as np
import pytest
import torch

from dts_mini.course.exercise import Asked, NotAttempted, difference, verdict
from dts_mini.course.exercises import EXERCISES
from dts_mini.course.raised import is_stub, own_line
from dts_mini.course.wire import MOST_ELEMENTS, Values, line, parsed

PLAIN = (
    *(None, True, 3, -2.5, "text", b"\0bytes", [], (), {}, [1, (2.0, "x")], {"a": {1: None}}, {(1, "x"): [2]}),
    *(torch.tensor(2.5), torch.ones(2, 3, dtype=torch.bfloat16), torch.arange(4)[::2], torch.empty(0, 3)),
    *(
        torch.tensor([True, False]),
        {"w": torch.tensor([[1.0, -2.0], [0.5, 3.0]]).T},
        torch.ones(3).expand(2, 3),
        float("inf"),
        10**400,
    ),
)


def sent(value, *, views=True):
    return Values().unpack(parsed(line(Values().pack(value, views=views))))


def there(function):
    """The function as if it ran in a box: arguments and results pass as bytes."""

    def call(*arguments):
        here, box = Values(), Values()
        copies = box.unpack(parsed(line(here.pack(arguments, views=True))))
        try:
            reply = line(box.pack(function(*copies)))
        except Exception as error:
            here.unpack(parsed(line(box.pack(None))))
            if is_stub(error, function.__name__):
                raise NotAttempted from None
            told = type(type(error).__name__, (Exception,), {})(str(error))
            if own := own_line(error, function.__globals__):
                told.add_note(f"your line: {own}")
            raise told from None
        return here.unpack(parsed(reply))

    return partial(call)  # which has no globals, as what stands for a box has none


@pytest.mark.parametrize("views", [True, False])
@pytest.mark.parametrize("value", PLAIN, ids=repr)
def test_plain_values_travel(value, views):
    found = sent(value, views=views)
    if isinstance(value, int) and value.bit_length() >= 10_000:
        return
    assert type(found) is type(value) and difference(found, value) == ""


def test_numbers_of_numpys_travel_as_numbers():
    assert sent([np.int64(3), np.float32(0.5), np.bool_(True)]) == [3, 0.5, True]


def test_of_other_things_only_the_name_travels():
    found = sent([1j, torch.nn.Linear(1, 1), {1}, np.ones(2), torch.ones(1, dtype=torch.complex64)])
    assert [type(value).__name__ for value in found] == ["complex", "Linear", "set", "ndarray", "Tensor"]


def test_what_is_one_thing_here_is_one_thing_there():
    w = torch.arange(6.0).view(2, 3)
    inner = [w]
    found = sent((w, {"w": w, "row": w[0], "turned": w.T}, inner, inner))
    assert found[1]["w"] is found[0] and found[2] is found[3] and found[2][0] is found[0]
    found[0].zero_()
    assert not found[1]["row"].any() and not found[1]["turned"].any()


def test_a_list_in_itself_and_one_that_grows_when_it_is_printed_are_refused():
    inside = []
    inside.append(inside)
    doubled = ["x"]
    for _ in range(60):
        doubled = [doubled, doubled]
    many = [torch.ones(2)] * 2000
    for value in (inside, doubled, {"a": doubled}, many, ["x" * 10**6] * 3):
        with pytest.raises((ValueError, RecursionError)):
            sent(value)
    row = [0.0] * 50
    assert sent([row] * 50) == [row] * 50  # as a learner makes a matrix


def test_what_a_call_does_to_its_arguments_is_done_here_too():
    def function(state, names, x):
        state["w"] += 1
        state["new"] = state.pop("old")
        names.append("added")
        x.data = torch.zeros(3)
        return state["w"][0], state, names

    w, state, names, x = torch.ones(2, 2), {}, ["first"], torch.ones(2)
    state |= {"w": w, "old": torch.tensor(5)}
    row, same, also = there(function)(state, names, x)
    assert torch.equal(w, 2 * torch.ones(2, 2)) and row.data_ptr() == w.data_ptr()
    assert same is state and list(state) == ["w", "new"]
    assert also is names and names == ["first", "added"]
    assert torch.equal(x, torch.zeros(3))


def test_arguments_that_an_exception_left_changed_are_changed_here():
    def function(x):
        x += 1
        raise ValueError

    x = torch.zeros(2)
    with pytest.raises(Exception):  # noqa: B017
        there(function)(x)
    assert torch.equal(x, torch.ones(2))


@pytest.mark.parametrize("name", EXERCISES)
def test_a_verdict_is_the_same_in_a_box_as_in_the_notebook(name):
    """Of the reference, and of every wrong answer: those that write into arguments, and share their memory, too."""
    found = EXERCISES[name]
    for answer in (found.reference, *found.wrong.values()):
        assert verdict(found, there(answer)) == verdict(found, answer)


def test_a_call_of_what_is_asked_leaves_the_arguments_of_the_check_as_they_are():
    x = torch.ones(2)
    asked = Asked(there(lambda x: x.zero_()))
    asked(x)
    assert torch.equal(x, torch.ones(2)) and not asked.after[0].any()


# --- out of bounds ---

ONE = {"tensor": "float32", "shape": [1], "data": "AACAPw=="}


@pytest.mark.parametrize(
    "message",
    [
        None,
        [],
        {},
        {"value": 1},
        {"value": 1, "things": [], "storages": None},
        {"value": [1], "things": [], "storages": []},
        {"value": {"thing": 0}, "things": [], "storages": []},
        {"value": {"thing": -1}, "things": [ONE], "storages": []},
        {"value": {"thing": True}, "things": [ONE, {"list": [{"thing": "0"}]}], "storages": []},
        {"value": {"thing": 0}, "things": [ONE | {"shape": [10**6, 10**6]}], "storages": []},
        {"value": {"thing": 0}, "things": [ONE | {"shape": [2]}], "storages": []},
        {"value": {"thing": 0}, "things": [ONE | {"shape": [-1]}], "storages": []},
        {"value": {"thing": 0}, "things": [ONE | {"shape": [1.0]}], "storages": []},
        {"value": {"thing": 0}, "things": [ONE | {"shape": [10**30]}], "storages": []},
        {"value": {"thing": 0}, "things": [ONE | {"shape": [1] * 70}], "storages": []},
        {"value": {"thing": 0}, "things": [ONE | {"shape": [0, 2**40, 2**40]}], "storages": []},
        {"value": {"thing": 0}, "things": [ONE | {"tensor": "float33"}], "storages": []},
        {"value": {"thing": 0}, "things": [ONE | {"data": "~"}], "storages": []},
        {"value": {"thing": 0}, "things": [{"dict": [[1]]}], "storages": []},
        {"value": {"thing": 0}, "things": [{"dict": [[{"thing": 0}, 1]]}], "storages": []},
        {"value": {"thing": 0}, "things": [{"dict": [[n, n] for n in range(1001)]}], "storages": []},
        {"value": {"thing": 0}, "things": [{"list": 3}], "storages": []},
        {"value": {"thing": 0}, "things": [None], "storages": []},
        {"value": {"other": 3}, "things": [], "storages": []},
        {"value": {"bytes": "~"}, "things": [], "storages": []},
        {"value": 1, "things": [], "storages": [3]},
    ],
    ids=lambda message: str(message)[:60],
)
def test_what_is_no_message_is_refused(message):
    with pytest.raises(Exception):  # noqa: B017
        value = Values().unpack(parsed(line(message)))
        raise SystemExit(f"it was taken for {value}")


def view(shape, stride, start=0, nbytes="AAAAAA=="):
    about = {"tensor": "float32", "shape": shape, "stride": stride, "start": start, "storage": 0}
    return {"value": {"thing": 0}, "things": [about], "storages": [nbytes]}


def test_a_view_lies_within_its_storage_and_is_no_larger_than_a_message_may_be():
    assert Values().unpack(view([1000], [0])).shape == (1000,)
    for message in (view([2], [1]), view([1], [1], start=1), view([MOST_ELEMENTS + 1], [0]), view([1], [-1])):
        with pytest.raises((RuntimeError, ValueError)):
            Values().unpack(message)
    many = view([MOST_ELEMENTS // 2], [0])
    many["things"] *= 3
    with pytest.raises(ValueError, match="out of bounds"):
        Values().unpack(many)


def test_things_known_before_cannot_be_left_out_or_change_their_size():
    x = torch.ones(2)
    for message in (
        {"value": None, "things": [], "storages": []},
        {"value": None, "things": [None], "storages": ["AAAAAA=="]},
        {"value": None, "things": [{"list": []}], "storages": [None]},
    ):
        here = Values()
        here.pack(x, views=True)
        with pytest.raises((ValueError, RuntimeError, KeyError)):
            here.unpack(message)


@pytest.mark.parametrize(
    "data",
    [b"[" * 99_000, b"1," * 60_000, b"x" * (4 * 2**20 + 1), b"{" + b'"a":1,' * 1001 + b'"b":1}', b"1" * 5000, b"\xff"],
    ids=lambda data: str(data[:12]),
)
def test_a_line_out_of_bounds_is_not_parsed(data):
    with pytest.raises((ValueError, RecursionError)):
        parsed(data)


def test_factors_and_state_dicts_travel_there_and_back_and_compare():
    """What exercises with the signatures of core/paper.py take and return."""
    state = {"w": torch.linspace(-1, 1, 24).view(6, 4), "b": torch.tensor([0.5, -2.0]), "scale": torch.tensor(3.0)}

    def remainder(base, experts, keep):
        U, s, Vt = torch.linalg.svd(base["w"], full_matrices=False)
        return (U[:, :1], s[:1], Vt[:1]), [{name: e[name] - base[name] for name in base} for e in experts], keep

    given = (state, [{name: x + 1 for name, x in state.items()}], 0.1)
    found = there(remainder)(*given)
    assert difference(found, remainder(*given)) == ""
    found[1][0]["b"][1] = 7.0
    assert difference(found, remainder(*given)) == (
        "expected [1.0, 1.0] at position 1 at position 0 under 'b', got [1.0, 7.0]"
    )
