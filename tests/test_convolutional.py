"""What the page of convolutional nets says is what was measured."""

import json

from benchmarks import convolutional
from dts_mini.core.file import read_bytes
from dts_mini.results import fill


def published() -> dict:
    return json.loads(read_bytes(convolutional.PATH))


def test_the_table_of_the_page_is_written_from_what_was_measured():
    text = convolutional.PAGE.read_text()
    assert "<!-- results:statistics -->" in text and "<!-- results:convolutions -->" in text
    assert fill(text, convolutional.tables(published())) == text, "run python -m benchmarks.convolutional --page"


def test_what_is_published_was_measured_from_a_commit_over_several_seeds():
    found = published()
    assert not found["provenance"]["commit"].endswith("+")
    assert all(
        len(entry["seeds"]) >= 5
        for part in ("statistics", "convolutions")
        for row in found[part].values()
        for entry in row.values()
    )


def test_what_the_page_says_of_the_table_holds():
    rows = {
        name: {what: entry["value"] for what, entry in row.items()} for name, row in published()["statistics"].items()
    }
    for merge in ("average", "Task Arithmetic", "TIES"):
        assert rows[merge]["gain"] > 0
    for delta in ("DTS-T", "DTS-D, average"):
        assert rows[delta]["least variance, as weights"] < 0
        assert rows[delta]["as weights"] < rows[delta]["the base's"] < rows[delta]["kept"]


def test_what_the_page_says_of_convolutions_holds():
    rows = {n: {what: entry["value"] for what, entry in row.items()} for n, row in published()["convolutions"].items()}
    flat = rows["DTS, flat, as in the paper"]
    assert rows["DTS, matrix, keep 0.1"]["file"] < flat["file"]
    assert rows["DRC, 7%"]["error"] < flat["error"]
