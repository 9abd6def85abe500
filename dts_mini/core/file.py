"""Files: safetensors and JSON read and written whole, atomically, with errors that name the file and the mend."""

import json
import os
import tempfile
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from dts_mini.core.errors import FileError


def write_bytes(data: bytes, path: str | Path, *, overwrite: bool = False) -> Path:
    """Writes a file at once or not at all: into a temporary neighbour, flushed to disk, then renamed.

    Raises FileError when the path exists and ``overwrite`` is not set, or when it cannot be written.
    """
    path = check_writable(path, overwrite=overwrite)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise FileError(f"{path}: cannot be written ({error.strerror}); choose a folder you may write to") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise FileError(f"{path}: writing failed ({error.strerror}); nothing was changed") from error
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
    if path.exists() and not overwrite:
        raise FileError(f"{path}: exists already; pass --overwrite (overwrite=True) or choose another name")
    if not path.parent.is_dir():
        raise FileError(f"{path}: the folder {path.parent} does not exist; make it first")
    if not os.access(path.parent, os.W_OK):
        raise FileError(f"{path}: the folder {path.parent} is not writable; choose another")
    return path


def read_bytes(path: str | Path) -> bytes:
    """The bytes of a file; FileError when it is not there or cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror}); check the path") from error


def save_tensors(state: dict[str, Tensor], path: str | Path, *, overwrite: bool = False) -> Path:
    """Writes a state dict as safetensors; tied tensors are written once for each name."""
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    return write_bytes(safetensors.torch.save(plain), path, overwrite=overwrite)


def load_tensors(path: str | Path) -> dict[str, Tensor]:
    """Reads a safetensors state dict; FileError when the file is missing, truncated or no safetensors file."""
    if not Path(path).is_file():
        raise FileError(f"{path}: there is no such file; check the path")
    try:
        return safetensors.torch.load_file(path)
    except (SafetensorError, OSError) as error:
        raise FileError(
            f"{path}: is no readable safetensors file ({error}); it may be truncated: copy it again"
        ) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
