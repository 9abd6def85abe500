"""Timings: seconds of each notebook and its slow cells, from the time stamps of one run."""

import json

from nbformat.v4 import new_code_cell, new_notebook

from dts_mini.course import build, timings


def cell(name: str, seconds: float):
    stamps = {
        "iopub.execute_input": "2026-01-02T03:04:05.000000Z",
        "iopub.status.idle": f"2026-01-02T03:04:{5 + seconds:09.6f}Z",
    }
    return new_code_cell(id=name, metadata={"execution": stamps})


def test_the_slow_cells_are_the_slowest_and_all_over_five_seconds():
    cells = [cell("a", 6.5), cell("b", 0.5), cell("c", 12), new_code_cell(id="never-run"), cell("d", 5)]
    assert timings.slow_cells(new_notebook(cells=cells)) == {"c": 12, "a": 6.5}
    assert timings.slow_cells(new_notebook(cells=[cell("a", 0.25), cell("b", 0.5)])) == {"b": 0.5}


def test_the_command_times_every_notebook_and_writes_the_published_file(tmp_path, monkeypatch, capsys):
    (tmp_path / "source").mkdir()
    (tmp_path / "source/07_small.py").write_text("# %%\nx = 1\n# %%\nimport time\n\ntime.sleep(0.3)\n")
    monkeypatch.setattr(build, "NOTEBOOKS", tmp_path)
    monkeypatch.setattr(timings, "execute", lambda notebook, progress: build.execute(notebook, progress, tmp_path))
    assert timings.main(tmp_path / "timings.json") == 0
    found = json.loads((tmp_path / "timings.json").read_text())
    assert list(found["slow cells"]["07_small"]) == ["07-001"]
    assert 0.3 <= found["slow cells"]["07_small"]["07-001"] <= found["seconds"]["07_small"]
    assert found["provenance"]["packages"]["torch"]
    assert "07_small: " in capsys.readouterr().out
