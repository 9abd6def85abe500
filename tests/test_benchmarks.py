"""What benchmarks/README.md says is what was measured."""

import json

from benchmarks import forged, scale
from dts_mini.core.file import read_bytes
from dts_mini.results import fill


def published():
    return json.loads(read_bytes(scale.PATH))


def test_the_table_of_full_sizes_is_written_from_what_was_measured():
    text = scale.README.read_text()
    assert "<!-- results:scale -->" in text
    assert fill(text, {"scale": scale.markdown(published())}) == text, "run python -m benchmarks.scale --readme"


def test_what_is_published_was_measured_at_full_size_from_a_commit():
    for model, found in published().items():
        about = found["provenance"]
        assert not about["smoke"] and not about["commit"].endswith("+"), model
        assert found["parameters"] == sum(tensor.numel() for tensor in scale.shapes(model, smoke=False).values())


def test_the_page_on_files_tells_what_became_of_the_forged_ones_and_nothing_else_came_of_any():
    found = json.loads(read_bytes(forged.PATH))
    text = forged.PAGE.read_text()
    assert fill(text, {"forged": forged.markdown(found)}) == text, (
        "run python -m benchmarks.forged --json data/forged.json"
    )
    assert found["files"] >= 10_000 and found["wrong"] == []
    assert found["outcomes"]["anything else"] == 0
    assert sum(found["outcomes"].values()) == found["files"]


def test_a_missed_goal_is_printed_as_missed():
    (model, found), *_ = published().items()
    goal = 2 * found["largest_tensor"]["stored"] + scale.GB
    for peak, missed in ((goal, False), (goal + 1, True)):
        text = scale.markdown({model: found | {"compress": found["compress"] | {"peak": peak}}})
        (row,) = [line for line in text.splitlines() if line.startswith("| compress: peak memory")]
        assert ("**missed**" in row) is missed
