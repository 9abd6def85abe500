"""The container of a ``.dts.safetensors`` file: one manifest, a few big tensors, one digest over every byte.

A safetensors header costs about 80 bytes a tensor, so that at small scale a tensor an entry would outweigh what it
holds: everything goes into a handful of tensors, and the table that says where each part lies is itself compressed
(zlib) into the tensor ``table``. What a person asks first stands readable in the header, under the key ``dts``.
"""

import hashlib
import json
import zlib
from typing import Annotated, Any, Literal

import msgspec
import safetensors.torch
import torch
from msgspec import UNSET, Meta, Struct, UnsetType
from safetensors import SafetensorError
from torch import Tensor

from dts_mini.core.errors import FileError
from dts_mini.core.file import DTYPES, mistaken
from dts_mini.core.state import FACTOR, is_computed

VERSION = 2
_BLANK = "0" * 64
_HEADER = 100_000_000  # the longest header that safetensors reads
_FREE, _RATIO = 2**22, 32  # a table unpacks to 4 MiB and 32 times its bytes at most: regular names reach 20

Count = Annotated[int, Meta(ge=0, le=2**48)]
Rank = Annotated[int, Meta(ge=1, le=2**48)]
Shape = Annotated[tuple[Count, ...], Meta(max_length=64)]
Prints = Annotated[str, Meta(pattern=r"\A[0-9a-f]{32}\Z")]
WORDS = {str(d).removeprefix("torch."): d for word, d in DTYPES.items() if not word.startswith(("F8", "C"))}
"""The dtypes of values in a file, by the words that its table has for them."""
Word = Literal[tuple(WORDS)]
_CONSTANT = {d for d in vars(torch).values() if isinstance(d, torch.dtype) and not is_computed(d)}
KINDS = WORDS | {str(d).removeprefix("torch."): d for d in sorted(_CONSTANT, key=str)}
"""The dtypes of a delta's tensors: of those beyond ``WORDS`` a tensor is the base's."""


class Counts(Struct, forbid_unknown_fields=True, kw_only=True):
    """Bytes, as ``delta.Storage`` has them."""

    information: Count
    model: Count
    paper: Count | UnsetType = UNSET
    file: Count


class Manifest(Struct, forbid_unknown_fields=True):
    """What a delta's file says of itself."""

    format: int
    method: str
    settings: dict[str, Any]
    attention: Literal["fused", "split", "none"]
    base: Prints
    expert: Annotated[str, Meta(pattern=r"\A([0-9a-f]{32})?\Z")]  # what all tasks share is of no expert
    tensors: Count
    ranks: list[Count]
    rows: Count
    storage: Counts
    sha256: str


class Row(Struct, array_like=True, forbid_unknown_fields=True):
    """How a row of a delta's table begins; what follows is for the kind of part."""

    name: str
    kind: str
    shape: Shape
    dtype: Literal[tuple(KINDS)]
    bounded: Literal[0, 1]


class _Entry(Struct):
    """Where a tensor of any safetensors file lies, and of what it is."""

    dtype: str
    data_offsets: tuple[Count, Count]


def encode(manifest: dict, table: list, tensors: dict[str, Tensor]) -> bytes:
    """The bytes of a file. The same input gives the same bytes.

    The manifest gains ``format`` (the version), ``storage.file`` (the file's length in bytes) and ``sha256``, the
    digest of the file as it would be with that digest's digits all zero.
    """
    squeezed = zlib.compress(json.dumps(table, separators=(",", ":")).encode(), 9)
    tensors = {name: tensor for name, tensor in tensors.items() if tensor.numel()}
    tensors["table"] = torch.frombuffer(bytearray(squeezed), dtype=torch.uint8)
    length, data = 0, b""
    while not data or len(data) != length:  # the length's own digits are part of the file
        length = len(data)
        storage = {**manifest["storage"], "file": length}
        header = {"format": VERSION, **manifest, "storage": storage, "sha256": _BLANK}
        data = safetensors.torch.save(tensors, {"dts": json.dumps(header, separators=(",", ":"))})
    return data.replace(_BLANK.encode(), hashlib.sha256(data).hexdigest().encode(), 1)


def decode(data: bytes, what: str, manifest_type: type = Manifest) -> tuple[dict, list, dict[str, Tensor]]:
    """Manifest, table and tensors of a file's bytes; FileError naming ``what`` when a single bit of it is off.

    The digest tells damage, not intent: whoever knows the format can make a right one. So manifest and table are
    checked against their schemas: the manifest against ``manifest_type``; of a delta's, the beginning of each row
    against ``Row``. What they say of the tensors is for the ``Reader`` to check.
    """
    manifest = _manifest(data, what)
    digest = manifest.get("sha256")
    if not isinstance(digest, str) or len(digest) != 64 or data.count(digest.encode(errors="replace")) != 1:
        raise FileError(f"{what}: has no digest, it was altered; copy or make it again")
    if hashlib.sha256(data.replace(digest.encode(), _BLANK.encode())).hexdigest() != digest:
        raise FileError(f"{what}: was altered or damaged (its digest does not match); copy or make it again")
    try:
        manifest = msgspec.to_builtins(msgspec.convert(manifest, manifest_type))
        tensors = safetensors.torch.load(data)
        table = msgspec.json.decode(_unpacked(tensors.pop("table").numpy().tobytes()), type=list)
        if not all(tensor.numel() for tensor in tensors.values()):
            raise SafetensorError("a tensor is empty")
        if manifest_type is Manifest:
            for row in table:
                msgspec.convert(row[:5] if isinstance(row, list) else row, Row)
    except (msgspec.MsgspecError, SafetensorError, KeyError, RecursionError, zlib.error, UnicodeDecodeError) as error:
        raise FileError(
            f"{what}: is no file that dts_mini wrote, though its digest is right ({error}); make it again"
        ) from error
    return manifest, table, tensors


def _unpacked(squeezed: bytes) -> bytes:
    """The table, as long as a table of so many bytes may be; zlib.error for a longer one, and for what is not all of
    it.
    """
    engine = zlib.decompressobj()
    table = engine.decompress(squeezed, _FREE + _RATIO * len(squeezed))
    if not engine.eof or engine.unused_data:
        raise zlib.error("its table has no end, or more behind it")
    return table


def _manifest(data: bytes, what: str) -> dict:
    """The manifest alone, and a clear word about what else the file may be."""
    size = int.from_bytes(data[:8], "little") if len(data) >= 8 else -1
    if not 2 <= size <= _HEADER:
        said = mistaken(data[:64]) or "is no safetensors file"
        said = "is a pickle, not a task delta" if "pickle" in said else said
        raise FileError(f"{what}: {said}; give a file that dts-mini compress wrote")
    if size + 8 > len(data):
        raise FileError(f"{what}: is truncated; copy it again")
    try:
        header = msgspec.json.decode(data[8 : 8 + size], type=dict[str, msgspec.Raw])
        notes = msgspec.json.decode(header.pop("__metadata__", b"{}"), type=dict[str, str])
        entries = {name: msgspec.json.decode(entry, type=_Entry) for name, entry in header.items()}
        if 8 + size + max((entry.data_offsets[1] for entry in entries.values()), default=0) > len(data):
            raise FileError(f"{what}: is truncated; copy it again")
        manifest = msgspec.json.decode(notes["dts"]) if "dts" in notes else None
    except (msgspec.MsgspecError, RecursionError) as error:
        raise FileError(f"{what}: its header cannot be read, it was altered or damaged; copy it again") from error
    if not isinstance(manifest, dict):
        if any(map(FACTOR.search, entries)):
            raise FileError(f"{what}: is a LoRA adapter, not a task delta; make one of it with dts-mini import-lora")
        raise FileError(f"{what}: is a plain safetensors file, not a task delta; make one with dts-mini compress")
    if manifest.get("format") != VERSION:
        raise FileError(
            f"{what}: has format version {manifest.get('format')!r}, this dts_mini reads {VERSION}; "
            "read it with the version that wrote it, or make it again"
        )
    for name, entry in entries.items():
        if entry.dtype not in DTYPES or (name == "table" and entry.dtype != "U8"):
            raise FileError(
                f"{what}: has tensor {name!r} of {entry.dtype}, which dts_mini does not write; make it again"
            )
    return manifest
