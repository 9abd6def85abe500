"""Files: safetensors and JSON written atomically and read, with errors that name the file and the mend."""

import errno
import fcntl
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dts_mini.core.errors import FileError, StateError
from dts_mini.core.state import State, as_bytes, outline

_TEMPORARY = ".dts-part"
# As a safetensors header names them, in the order in which the library sorts them (the widest goes first in a file).
DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn,
    "I16": torch.int16,
    "U16": torch.uint16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "F32": torch.float32,
    "C64": torch.complex64,
    "F64": torch.float64,
    "I64": torch.int64,
    "U64": torch.uint64,
}


def write_bytes(data: bytes, path: str | Path, *, overwrite: bool = False, flush: bool = True) -> Path:
    """Writes a file at once or not at all, as ``write_pieces`` does; FileError as there."""
    return write_pieces((data,), path, overwrite=overwrite, flush=flush)


def write_pieces(
    pieces: Iterable[bytes | memoryview], path: str | Path, *, overwrite: bool = False, flush: bool = True
) -> Path:
    """Writes a file piece by piece, at once or not at all: a temporary neighbour, flushed to disk, then renamed.

    What a killed run left of the same file is swept; a neighbour that somebody is writing is locked, and stays.
    Without ``flush`` a power cut, but no kill, may leave it empty or torn: for files that are checked when they are
    read, and can be made again.

    Raises FileError when the path exists and ``overwrite`` is not set, or when it cannot be written.
    """
    path = check_writable(path, overwrite=overwrite)
    try:
        if flush:  # of the others there may be thousands in a folder, which goes as a whole
            _sweep(path)
        handle, name = _neighbour(path)
    except OSError as error:
        raise FileError(f"{path}: cannot be written ({error.strerror}); choose a folder you may write to") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines(pieces)  # unlike a loop, it lets go of a piece before it asks for the next
            file.flush()
            if flush:
                os.fsync(file.fileno())
            os.chmod(name, 0o666 & ~_umask())
            os.replace(name, path)  # before the file is closed, which unlocks it
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            mend = "make room on the disk" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "see to the disk"
            raise FileError(
                f"{path}: writing failed ({error.strerror}); nothing was changed; {mend} and run the same command again"
            ) from error
        raise
    return path


def write_json(data: object, path: str | Path, *, indent: int = 1, overwrite: bool = False) -> Path:
    """Writes JSON with a last newline, at once or not at all, as ``write_bytes`` does; FileError as there."""
    return write_bytes((json.dumps(data, indent=indent) + "\n").encode(), path, overwrite=overwrite)


def check_writable(path: str | Path, *, overwrite: bool = False) -> Path:
    """The path, once it is sure that a file may be put there: for a check before long work."""
    path = Path(path)
    try:
        path.exists()
    except OSError as error:  # a name too long, for example
        raise FileError(f"{path}: cannot be a file name ({error.strerror}); choose another") from error
    if path.is_dir():
        raise FileError(f"{path}: is a folder; name a file in it")
    if path.exists() and not path.is_file():  # which a rename would replace, /dev/null for everybody
        raise FileError(f"{path}: is a device or a pipe, no file; name a file")
    if path.exists() and not overwrite:
        raise FileError(f"{path}: exists already; pass --overwrite (overwrite=True) or choose another name")
    if not path.parent.is_dir():
        raise FileError(f"{path}: the folder {path.parent} does not exist; make it first")
    if not os.access(path.parent, os.W_OK):
        raise FileError(f"{path}: the folder {path.parent} is not writable; choose another")
    return path


def mark(path: str | Path | int) -> tuple:
    """What tells a file, by its path or open, from one that has taken its place, or that was written to; OSError for
    none.
    """
    found = os.stat(path)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def read_json(path: str | Path, what: str = "JSON") -> Any:
    """What a JSON file holds; FileError when it is not there, cannot be read, or holds no JSON."""
    data = read_bytes(path)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path}: is no {what} ({error}); copy it again") from error


def read_bytes(path: str | Path) -> bytes:
    """The bytes of a file; FileError when it is not there or cannot be read, or is a device, which has no end."""
    try:
        if Path(path).is_char_device() or Path(path).is_block_device():
            raise FileError(f"{path}: is a device, no file; check the path")
        if Path(path).is_dir():
            raise FileError(f"{path}: is a folder; name a file in it")
        return Path(path).read_bytes()
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror}); check the path") from error


def save_tensors(
    state: State,
    path: str | Path,
    *,
    names: Iterable[str] | None = None,
    metadata: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes a state dict as safetensors, byte for byte as that library does, with one tensor at a time in memory.

    ``names``: those to write, where not all. Tied tensors are written once for each name. StateError for a dtype that
    safetensors has no word for, and for a name that it has a use of its own for.
    """
    whole, words = outline(state), {dtype: word for word, dtype in DTYPES.items()}
    tensors = {name: whole[name] for name in (whole if names is None else names)}
    for name, tensor in tensors.items():
        if name == "__metadata__":
            raise StateError(f"tensor {name!r}: safetensors has this name for something else; rename it first")
        if tensor.dtype not in words:
            raise StateError(f"tensor {name!r}: safetensors cannot hold {tensor.dtype}; convert it first")
    rank = {dtype: -place for place, dtype in enumerate(words)}
    order, header, start = sorted(tensors, key=lambda name: (rank[tensors[name].dtype], name)), {}, 0
    if metadata:
        header["__metadata__"] = dict(metadata)
    for name in order:
        tensor = tensors[name]
        end = start + tensor.nbytes
        header[name] = {"dtype": words[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of 8

    def pieces() -> Iterable[bytes | memoryview]:
        yield len(text).to_bytes(8, "little") + text
        for name in order:
            yield as_bytes(state[name]).data

    return write_pieces(pieces(), path, overwrite=overwrite)


def load_tensors(path: str | Path) -> dict[str, Tensor]:
    """Reads a safetensors state dict; FileError when the file is missing, truncated or no safetensors file."""
    with opened(path) as handle:
        return {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118


def places(path: str | Path) -> dict[str, tuple[str, tuple[int, ...], int]]:
    """Where each tensor of a safetensors file lies, by name: the word for its dtype, its shape, and the byte at which
    it begins. FileError as ``load_tensors``, which checks the header, too.
    """
    with opened(path), open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return {name: (x["dtype"], tuple(x["shape"]), 8 + length + x["data_offsets"][0]) for name, x in header.items()}


@contextmanager
def opened(path: str | Path) -> Iterator[safe_open]:
    """A safetensors file to read tensors from, by name; FileError as ``load_tensors``."""
    if not Path(path).is_file():
        raise FileError(f"{path}: there is no such file; check the path")
    try:
        with safe_open(path, "pt") as handle:
            yield handle
    except (SafetensorError, OSError) as error:
        with open(path, "rb") as file:
            what = mistaken(file.read(64))
        what = what or f"is no readable safetensors file ({error}); it may be truncated: copy it again"
        raise FileError(f"{path}: {what}") from error


def mistaken(head: bytes) -> str | None:
    """What else a file is that was taken for safetensors, by its first bytes, and the mend; None where they do not
    tell.
    """
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the file itself; run git lfs pull where it came from"
    if head.startswith(b"GGUF"):
        return "is GGUF, which holds quantised weights; pass the checkpoint that it was made of"
    if head.startswith((b"\x89HDF", b"\x93NUMPY")):
        return "is HDF5 or NumPy's format, not safetensors; convert it by the library that wrote it"
    if head.lstrip()[:9].lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page, not the file; download it again, and look at what comes"
    if head.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x04")):
        return "is a pickle, not safetensors; name it .pt or .bin, by which it is read as one, or convert it"
    return None


def _neighbour(path: Path) -> tuple[int, str]:
    """A new temporary file beside another, open, its path, and locked for as long as it is."""
    while True:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_TEMPORARY)
        with suppress(OSError):  # not every file system has locks; there nothing is swept
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.path.exists(name):
            return handle, name
        os.close(handle)  # swept before it was locked


def _sweep(path: Path) -> None:
    """Removes the temporary neighbours of a path that nobody has open any more."""
    ours = re.compile(rf"\.{re.escape(path.name)}\.[a-z0-9_]{{8}}{re.escape(_TEMPORARY)}")
    for left in [entry.path for entry in os.scandir(path.parent) if ours.fullmatch(entry.name)]:
        with suppress(OSError), open(left, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(left)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
