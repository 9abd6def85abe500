"""What the notebooks lean on: claims that fail loudly and print no digits, alt text, figures that can be read."""

import json

import matplotlib.pyplot as plt
import pytest

from dts_mini.course import claim, figures, show, style
from dts_mini.course.claims import ClaimError
from dts_mini.course.style import DASHES, HATCHES, MARKERS, PALETTE, bar_cue, cue

# --- claims ---


def test_a_claim_prints_its_sentence_and_no_digit_of_the_measurement(capsys):
    claim("a", "It is small.", 0.123456, low=0, high=1)
    assert capsys.readouterr().out == "holds: It is small.\n"


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_a_claim_out_of_bounds_names_itself_the_value_and_the_sentence(value):
    with pytest.raises(ClaimError, match=r"'a'.*outside \[0, 1\].*It is small"):
        claim("a", "It is small.", value, low=0, high=1)


def test_bounds_belong_to_what_a_claim_allows(capsys):
    claim("a", "Low.", 0.0, low=0)
    claim("b", "High.", 1.0, high=1)


def test_a_claim_records_its_number_where_the_environment_says(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DTS_CLAIMS", str(tmp_path / "new"))
    claim("a", "It is small.", 0.25, high=1)
    claim("a", "It is small.", 0.5, high=1)  # run again: the newest counts
    found = json.loads((tmp_path / "new" / "a.json").read_text())
    assert found == {"name": "a", "sentence": "It is small.", "value": 0.5, "unit": "", "high": 1}


def test_the_whole_interval_of_an_estimate_has_to_lie_within_the_bounds(tmp_path, monkeypatch):
    monkeypatch.setenv("DTS_CLAIMS", str(tmp_path))
    with pytest.raises(ClaimError, match=r"0.5 \(95 % interval -0.1 to 1.1\) is outside \[0, inf\]"):
        claim("a", "It grows.", 0.5, low=0, interval=(-0.1, 1.1), unit="points")
    claim("a", "It grows.", 0.5, low=0, interval=(0.4, 0.6), unit="points")
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["interval"] == [0.4, 0.6] and found["unit"] == "points"


def test_a_claim_that_fails_records_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("DTS_CLAIMS", str(tmp_path))
    with pytest.raises(ClaimError):
        claim("a", "It is small.", 2, high=1)
    assert not list(tmp_path.iterdir())


# --- show ---


@pytest.fixture
def displayed(monkeypatch) -> list:
    """(object, metadata) of everything that ``show`` displays."""
    found = []
    monkeypatch.setattr(style, "display", lambda item, metadata: found.append((item, metadata)))
    return found


def test_show_displays_one_png_with_its_alt_text_and_closes_the_figure(displayed):
    figure, axis = plt.subplots()
    axis.plot([1, 2])
    show(figure, alt="A line that rises.")
    ((image, metadata),) = displayed
    assert metadata == {"image/png": {"alt": "A line that rises."}}
    assert image.data.startswith(b"\x89PNG")
    assert not plt.get_fignums()


def test_the_same_figure_is_the_same_bytes(displayed):
    for _ in range(2):
        show(figures.storage_bars({"a": 2**20}, 1), alt="A bar.")  # what a figure function returns
    (first, _), (second, _) = displayed
    assert first.data == second.data


def test_show_refuses_a_figure_without_alt_text():
    with pytest.raises(ValueError, match="alt text"):
        show(plt.figure(), alt=" ")


# --- the palette ---


def test_every_series_has_a_colour_and_a_second_cue_of_its_own():
    assert len(set(PALETTE)) == len(set(MARKERS)) == len(set(map(str, DASHES))) == len(set(HATCHES)) == 7
    assert cue(1) == {"color": PALETTE[1], "marker": "s", "linestyle": "--"}
    assert bar_cue(1)["hatch"] and bar_cue(1)["facecolor"] == PALETTE[1]
