"""JSON files: written whole, in the format of those that are committed."""

import json
import os
from pathlib import Path

import pytest

from dts_mini.core.errors import FileError
from dts_mini.core.file import check_writable, read_bytes, read_json, write_bytes, write_json

DATA = Path(__file__).resolve().parents[2] / "data"
COMMITTED = {
    "mini/results.json": 1,
    "mini/seeds.json": 1,
    "mini/claims.json": 1,
    "mini/manifest.json": 2,
    "timings.json": 1,
}


@pytest.mark.parametrize(("name", "indent"), COMMITTED.items())
def test_a_committed_file_written_again_is_the_same_bytes(name, indent, tmp_path):
    before = (DATA / name).read_bytes()
    assert write_json(json.loads(before), tmp_path / "again.json", indent=indent).read_bytes() == before


def test_a_file_that_exists_is_written_over_only_when_asked(tmp_path):
    path = write_json({"a": [1, 0.5]}, tmp_path / "a.json")
    with pytest.raises(FileError, match="exists already"):
        write_json({}, path)
    assert json.loads(path.read_text()) == {"a": [1, 0.5]}
    assert write_json({}, path, overwrite=True).read_text() == "{}\n"


def test_what_cannot_be_json_leaves_the_old_file(tmp_path):
    path = write_json([1], tmp_path / "a.json")
    with pytest.raises(TypeError):
        write_json([object()], path, overwrite=True)
    assert path.read_text() == "[\n 1\n]\n"


def test_what_is_no_file_is_not_replaced_and_what_has_no_end_is_not_read(tmp_path):
    """A device as an output, such as /dev/null, would be a file for everybody from then on."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(FileError, match="pipe: is a device or a pipe, no file"):
        check_writable(pipe, overwrite=True)
    with pytest.raises(FileError, match="pipe: is a device or a pipe, no file"):
        write_bytes(b"x", pipe, overwrite=True)
    assert pipe.is_fifo()
    with pytest.raises(FileError, match="/dev/null: is a device or a pipe, no file"):
        check_writable("/dev/null", overwrite=True)
    with pytest.raises(FileError, match="/dev/zero: is a device, no file"):
        read_bytes("/dev/zero")


def test_json_that_is_none_or_too_deep_is_refused_by_its_file(tmp_path):
    for text in ("", "{", "[" * 100_000, "\udcff"):
        (tmp_path / "x.json").write_text(text, errors="surrogateescape")
        with pytest.raises(FileError, match=r"x\.json: is no list of things"):
            read_json(tmp_path / "x.json", "list of things")
    with pytest.raises(FileError, match=r"y\.json: cannot be read"):
        read_json(tmp_path / "y.json")
