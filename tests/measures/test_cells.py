"""The points of the size-accuracy curve: what is listed, and under which names."""

import json

from dts_mini.measures import cells


def test_no_two_cells_share_a_file():
    files = [c.file for c in cells.cells_of(cells.GROUPS)]
    assert len(set(files)) == len(files)


def test_the_first_ablation_row_is_the_paper_and_every_other_changes_one_thing_of_a_method():
    first, *others = cells.ABLATION.values()
    assert first == {"method": "dts", "algorithm": "full"}  # every matrix decomposed as the paper's code does
    starts = {"dts": first, "drc": {"method": "drc"}}
    assert starts["drc"] in others
    for settings in others:
        start = starts[settings["method"]]
        assert settings.items() >= start.items() and (settings == starts["drc"] or len(settings) > len(start))
    assert len({json.dumps(s, sort_keys=True) for s in cells.ABLATION.values()}) == len(cells.ABLATION)
