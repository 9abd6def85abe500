"""The container of a ``.dts.safetensors`` file: one manifest, a few big tensors, one digest over every byte.

A safetensors header costs about 80 bytes a tensor, so that at small scale a tensor an entry would outweigh what it
holds: everything goes into a handful of tensors, and the table that says where each part lies is itself compressed
(zlib) into the tensor ``table``. What a person asks first stands readable in the header, under the key ``dts``.
"""

import hashlib
import json
import zlib

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from dts_mini.core.errors import FileError

VERSION = 2
_BLANK = "0" * 64


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


def decode(data: bytes, what: str) -> tuple[dict, list, dict[str, Tensor]]:
    """Manifest, table and tensors of a file's bytes; FileError naming ``what`` when a single bit of it is off."""
    manifest = _manifest(data, what)
    digest = manifest.get("sha256")
    if not isinstance(digest, str) or len(digest) != 64 or data.count(digest.encode()) != 1:
        raise FileError(f"{what}: has no digest, it was altered; copy or make it again")
    if hashlib.sha256(data.replace(digest.encode(), _BLANK.encode())).hexdigest() != digest:
        raise FileError(f"{what}: was altered or damaged (its digest does not match); copy or make it again")
    try:
        tensors = safetensors.torch.load(data)
    except SafetensorError as error:
        raise FileError(f"{what}: is no readable safetensors file ({error}); copy or make it again") from error
    return manifest, json.loads(zlib.decompress(tensors.pop("table").numpy().tobytes())), tensors


def _manifest(data: bytes, what: str) -> dict:
    """The manifest alone, and a clear word about what else the file may be."""
    size = int.from_bytes(data[:8], "little") if len(data) >= 8 else -1
    if not 2 <= size <= 100_000_000:
        raise FileError(f"{what}: is no safetensors file; give a file that dts-mini compress wrote")
    if size + 8 > len(data):
        raise FileError(f"{what}: is truncated; copy it again")
    try:
        header = json.loads(data[8 : 8 + size])
        spans = [entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"]
        if 8 + size + max((end for _, end in spans), default=0) > len(data):
            raise FileError(f"{what}: is truncated; copy it again")
        note = header.get("__metadata__", {}).get("dts")
        manifest = json.loads(note) if note is not None else None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"{what}: its header cannot be read, it was altered or damaged; copy it again") from error
    if not isinstance(manifest, dict):
        raise FileError(f"{what}: is a plain safetensors file, not a task delta; make one with dts-mini compress")
    if manifest.get("format") != VERSION:
        raise FileError(
            f"{what}: has format version {manifest.get('format')!r}, this dts_mini reads {VERSION}; "
            "read it with the version that wrote it, or make it again"
        )
    return manifest
