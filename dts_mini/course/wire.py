"""What passes between the grader and a box: plain values as lines of JSON, bounded before they are parsed.

A message about values is ``{"storages": [...], "things": [...], "value": ...}``: lists, dicts and tensors are things
with a number, so that what is one thing here is one thing there, too; tensors that are views of the arguments' memory
say so. A call's reply tells what became of the arguments, by the same numbers, and what is new.
"""

import base64
import json
from typing import Any

import numpy as np
import torch
from torch import Tensor

LARGEST = 4 * 2**20  # bytes of a message; the largest honest reply has 1,819
MOST_PARTS = 100_000  # commas, colons and brackets in a message
MOST_KEYS = 1_000  # in a dict: integers that collide make larger ones slow
MOST_ELEMENTS = 2**20  # of all tensors of a message: one byte can be a view of any size
DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
    + (torch.float16, torch.bfloat16, torch.float32, torch.float64)
}


# --- lines ---


def line(message: Any) -> bytes:
    return json.dumps(message).encode() + b"\n"


def parsed(data: bytes) -> Any:
    """The JSON of a line, as far as it is within the bounds; ValueError or RecursionError where it is not."""
    if len(data) > LARGEST or sum(map(data.count, b",:[{")) > MOST_PARTS:
        raise ValueError("a message out of bounds")

    def small(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(pairs) > MOST_KEYS:
            raise ValueError("a dict out of bounds")
        return dict(pairs)

    return json.loads(data, object_pairs_hook=small)


# --- values ---


class Values:
    """Both ends of a call keep one: which storages and things go by which number.

    >>> here, there = Values(), Values()
    >>> there.unpack(here.pack([1, torch.ones(2)]))
    [1, tensor([1., 1.])]
    """

    def __init__(self):
        self.storages: list[torch.UntypedStorage] = []
        self.things: list[list | dict | Tensor] = []
        self.sent: tuple[list, list] = ([], [])  # as both ends know them

    def pack(self, value: Any, *, views: bool = False) -> dict:
        """A value as JSON; of what is not plain only its type's name. ``views``: new memory is numbered, too."""
        self.number = {id(thing): n for n, thing in enumerate(self.things)}
        self.memory = {storage.data_ptr(): n for n, storage in enumerate(self.storages) if storage.nbytes()}
        self.views, packed, things = views, self._put(value), []
        while len(things) < len(self.things):  # putting one may add others
            things.append(self._describe(self.things[len(things)]))
        storages = [_text(torch.tensor([], dtype=torch.uint8).set_(storage)) for storage in self.storages]
        before, self.sent = self.sent, (storages, things)
        changed = [_changes(old, new) for old, new in zip(before, self.sent, strict=True)]
        return {"storages": changed[0], "things": changed[1], "value": packed}

    def _put(self, value: Any, *, key: bool = False) -> Any:
        if value is None or isinstance(value, bool | str):
            return str(value) if isinstance(value, str) else value
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, bool):
            return value
        if isinstance(value, int) and value.bit_length() < 10_000:
            return int(value)
        if isinstance(value, float):
            return float(value)
        if isinstance(value, bytes):
            return {"bytes": base64.b64encode(value).decode()}
        if isinstance(value, tuple):
            return {"tuple": [self._put(entry, key=key) for entry in value]}
        plain = isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"
        if not key and (isinstance(value, list | dict) or (plain and _name(value.dtype) in DTYPES)):
            if id(value) not in self.number:
                self.number[id(value)] = len(self.things)
                self.things.append(value)
            return {"thing": self.number[id(value)]}
        return {"other": type(value).__name__[:50]}

    def _describe(self, thing: list | dict | Tensor) -> dict:
        if isinstance(thing, list):
            return {"list": [self._put(entry) for entry in thing]}
        if isinstance(thing, dict):
            return {"dict": [[self._put(key, key=True), self._put(entry)] for key, entry in thing.items()]}
        thing, storage = thing.detach(), thing.untyped_storage()
        if self.views and storage.nbytes() and storage.data_ptr() not in self.memory:
            self.memory[storage.data_ptr()] = len(self.storages)
            self.storages.append(storage)
        about = {"tensor": _name(thing.dtype), "shape": list(thing.shape)}
        if storage.data_ptr() in self.memory and not thing.is_neg() and storage.nbytes():
            number = self.memory[storage.data_ptr()]
            return about | {"storage": number, "start": thing.storage_offset(), "stride": list(thing.stride())}
        if thing.numel() > MOST_ELEMENTS:
            raise ValueError(f"a tensor of {thing.numel()} elements is too large to be an answer")
        return about | {"data": _text(thing.resolve_neg().contiguous().reshape(-1).view(torch.uint8))}

    def unpack(self, message: dict) -> Any:
        """The value again, as plain types alone. Things known before become what they became on the other side.

        An exception of any kind says that it is no such message; what was known before may then be half changed.
        """
        self.room = MOST_ELEMENTS
        storages, things = message["storages"], message["things"]
        if len(storages) < len(self.storages) or len(things) < len(self.things):
            raise ValueError("things known before are missing")
        for number, text in enumerate(storages):
            new = (
                None
                if text is None
                else torch.frombuffer(bytearray(base64.b64decode(text, validate=True)), dtype=torch.uint8)
            )
            if number == len(self.storages):
                self.storages.append(new.untyped_storage())
            elif new is not None:
                torch.tensor([], dtype=torch.uint8).set_(self.storages[number]).copy_(new)
        known = len(self.things)
        for about in things[known:]:
            self.things.append([] if "list" in about else {} if "dict" in about else self._tensor(about))
        for number, about in enumerate(things):
            if about is not None:
                self._fill(self.things[number], about, new=number >= known)
        self.sent = tuple(_merged(old, new) for old, new in zip(self.sent, (storages, things), strict=True))
        value = self._get(message["value"])
        sizes: dict[int, int] = {}
        if sum(_written_out(each, sizes) for each in (value, *self.things[:known])) > MOST_PARTS:
            raise ValueError("a value out of bounds")
        return value

    def _fill(self, thing: list | dict | Tensor, about: dict, *, new: bool) -> None:
        if isinstance(thing, list):
            thing[:] = [self._get(entry) for entry in about["list"]]
        elif isinstance(thing, dict):
            if len(about["dict"]) > MOST_KEYS:
                raise ValueError("a dict out of bounds")
            entries = {self._get(key, key=True): self._get(entry) for key, entry in about["dict"]}
            thing.clear()
            thing.update(entries)
        elif not new:
            thing.data = self._tensor(about)

    def _tensor(self, about: dict) -> Tensor:
        dtype, shape = DTYPES[about["tensor"]], _sizes(about["shape"])
        self.room -= int(np.prod([max(1, size) for size in shape], dtype=object))
        if self.room < 0 or len(shape) > 20:
            raise ValueError("tensors out of bounds")
        if "data" in about:
            raw = bytearray(base64.b64decode(about["data"], validate=True))
            return (torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)).reshape(shape)
        (number, start), stride = _sizes([about["storage"], about["start"]]), _sizes(about["stride"])
        whole = torch.empty(0, dtype=dtype).set_(self.storages[number])
        return whole.as_strided(shape, stride, start)  # torch sees to it that it lies within the storage

    def _get(self, value: Any, *, key: bool = False) -> Any:
        if value is None or isinstance(value, bool | int | float | str):
            return value
        match value:
            case {"bytes": str(data)}:
                return base64.b64decode(data, validate=True)
            case {"tuple": list(entries)}:
                return tuple(self._get(entry, key=key) for entry in entries)
            case {"thing": int(number)} if number >= 0 and not key:
                return self.things[number]
            case {"other": str(name)}:
                return type(name if name.isidentifier() else "object", (), {})()
        raise ValueError("not a plain value")


def _written_out(value: Any, sizes: dict[int, int]) -> int:
    """How much there is to print of a value: a few lists that hold each other twice are soon more than can be.

    RecursionError for a list in itself.
    """
    if isinstance(value, str | bytes):
        return 1 + len(value) // 10
    if isinstance(value, Tensor):
        return 100
    if not isinstance(value, list | tuple | dict):
        return 1
    if id(value) not in sizes:
        inner = value if not isinstance(value, dict) else (each for pair in value.items() for each in pair)
        sizes[id(value)] = 1 + sum(_written_out(each, sizes) for each in inner)
    return sizes[id(value)]


def _sizes(numbers: list) -> list[int]:
    if not all(type(number) is int and 0 <= number < 2**40 for number in numbers):
        raise ValueError("sizes that are none")
    return numbers


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _text(data: Tensor) -> str:
    return base64.b64encode(data.numpy().tobytes()).decode()


def _changes(before: list, now: list) -> list:
    """What is new; None for what is as before."""
    return [None if n < len(before) and before[n] == each else each for n, each in enumerate(now)]


def _merged(before: list, changes: list) -> list:
    return [before[n] if each is None else each for n, each in enumerate(changes)]
