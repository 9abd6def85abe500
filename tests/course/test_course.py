"""What the notebooks lean on: claims that fail loudly and say what was measured, alt text, figures to be read."""

import re

import matplotlib.pyplot as plt
import pytest

from dts_mini.course import answers, check, claim, claims, figures, show, style, whose
from dts_mini.course.claims import ClaimError, bounds, calls, gathered, reads
from dts_mini.course.style import DASHES, HATCHES, MARKERS, PALETTE, bar_cue, cue

# --- claims ---


def test_a_claim_prints_its_sentence_and_what_was_measured(capsys):
    claim("a", "It is small.", 0.123456, low=0, high=1)
    claim("b", "It is much.", 0.712, low=0.5, interval=(0.698, 0.725), unit="%")
    assert capsys.readouterr().out.splitlines() == [
        "holds: It is small. (measured 0.123)",
        "holds: It is much. (measured 71.2 % [69.8, 72.5])",
    ]


@pytest.mark.parametrize("sentence", ["It is small.", "It (the file) is small.", "Twice (measured 1) said."])
def test_a_printed_claim_is_read_back(sentence, capsys):
    claim("a", sentence, 0.5, low=0, interval=(0.25, 1))
    found = claims.PRINTED.fullmatch(capsys.readouterr().out.rstrip("\n"))
    assert found["sentence"] == sentence and found["measured"] == "0.50 [0.25, 1.00]"


def test_a_sentence_says_your_only_of_what_is_the_learners_own(made, capsys):
    sentence = "Your half_width and your head_of agree."
    say = lambda of: claim(f"07-{len(made())}", sentence, 1, low=0, of=of)
    told = lambda: capsys.readouterr().out.splitlines()[-1].removesuffix(" (measured 1)")
    try:
        say(("half_width", "head_of"))
        assert told() == f"holds: {sentence}"
        check(lambda_named("half_width", lambda p, n: 0.0))
        say("head_of")
        assert told() == f"holds: {sentence}"
        say(("half_width", "head_of"))
        assert told() == "holds: The solution's half_width and the solution's head_of agree."
        assert whose("half_width") == "the solution's" and whose("head_of") == "your"
        assert whose("head_of", "half_width") == "the solution's"
        check(lambda_named("half_width", lambda p, n: 1.96 * (p * (1 - p) / n) ** 0.5))
        say("half_width")
        assert told() == f"holds: {sentence}"
    finally:
        answers._stand_ins.clear()
    assert {record["sentence"] for record in made()} == {sentence}, "recorded in one wording"


def lambda_named(name, function):
    function.__name__ = name
    return function


def test_a_claim_of_somebodys_function_has_to_call_it_so():
    with pytest.raises(ValueError, match="the sentence calls nothing yours: It is small"):
        claim("a", "It is small.", 0.5, low=0, of="half_width")
    with pytest.raises(ValueError, match="no exercise called 'half'"):
        claim("a", "Your half is small.", 0.5, low=0, of="half")


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_a_claim_out_of_bounds_names_itself_the_value_and_the_sentence(value):
    with pytest.raises(ClaimError, match=r"'a'.*outside \[0, 1\].*It is small"):
        claim("a", "It is small.", value, low=0, high=1)


def test_bounds_belong_to_what_a_claim_allows(capsys):
    claim("a", "Low.", 0.0, low=0)
    claim("b", "High.", 1.0, high=1)


@pytest.fixture
def made(tmp_path, monkeypatch):
    """The claims that were recorded in this test."""
    monkeypatch.setenv("DTS_CLAIMS", str(tmp_path / "made"))
    return lambda: gathered((tmp_path / "made").read_text(), "07_small") if (tmp_path / "made").exists() else []


def test_on_another_suite_a_claim_says_what_it_measured_and_raises_and_records_nothing(made, monkeypatch, capsys):
    monkeypatch.setenv("DTS_SUITE", "clip-vit-b-32")
    claim("07-a", "It is small.", 2, high=1, interval=(1.5, 2.5))
    claim("07-b", "It is small.", 0.5, high=1)
    assert capsys.readouterr().out.splitlines() == [
        "does not hold on this suite: It is small. (measured 2.00 [1.50, 2.50])",
        "holds: It is small. (measured 0.500)",
    ]
    assert made() == []


def test_a_claim_records_its_number_where_the_environment_says(made):
    claim("07-b", "It is small.", 1 / 3, high=1)
    claim("07-a", "It is large.", 2, low=1, unit="bits")
    common = {"notebook": "07_small"}
    assert made() == [
        {"name": "07-b", "sentence": "It is small.", "value": 0.333333, "unit": "", "high": 1} | common,
        {"name": "07-a", "sentence": "It is large.", "value": 2, "unit": "bits", "low": 1} | common,
    ]


def test_two_claims_of_one_name_are_refused(made):
    for _ in range(2):
        claim("07-a", "It is small.", 0.25, high=1)
    with pytest.raises(ValueError, match=r"07_small: each claim needs a name of its own.*07-a"):
        made()


def test_the_whole_interval_of_an_estimate_has_to_lie_within_the_bounds(made):
    with pytest.raises(ClaimError, match=r"0.5 \(95 % interval -0.1 to 1.1\) is outside \[0, inf\]"):
        claim("a", "It grows.", 0.5, low=0, interval=(-0.1, 1.1), unit="points")
    claim("a", "It grows.", 0.5, low=0, interval=(0.4, 0.6), unit="points")
    (found,) = made()
    assert found["interval"] == [0.4, 0.6] and found["unit"] == "points"


def test_a_claim_that_fails_records_nothing(made):
    with pytest.raises(ClaimError):
        claim("a", "It is small.", 2, high=1)
    assert made() == []


def of(notebook: str, *values: float) -> list[dict]:
    return [{"name": f"{notebook[:2]}-{n}", "notebook": notebook, "value": value} for n, value in enumerate(values)]


def test_building_one_notebook_replaces_its_claims_alone():
    notebooks = ["00_a", "01_b", "02_c"]
    before = claims.merged({}, {"00_a": of("00_a", 1, 2), "02_c": of("02_c", 3)}, notebooks, {"made": "before"})
    assert before["provenance"] == {"00_a": {"made": "before"}, "02_c": {"made": "before"}}
    after = claims.merged(before, {"01_b": of("01_b", 4), "00_a": of("00_a", 5)}, notebooks, {"made": "after"})
    assert after["claims"] == [*of("00_a", 5), *of("01_b", 4), *of("02_c", 3)]
    assert after["provenance"] == {"00_a": {"made": "after"}, "01_b": {"made": "after"}, "02_c": {"made": "before"}}


def test_claims_that_came_out_the_same_leave_the_file_as_it_was():
    before = claims.merged({}, {"00_a": of("00_a", 1)}, ["00_a"], {"made": "before"})
    assert claims.merged(before, {"00_a": of("00_a", 1)}, ["00_a"], {"made": "after"}) == before


def test_claims_of_a_notebook_that_is_gone_go_too():
    before = claims.merged({}, {"00_a": of("00_a", 1)}, ["00_a"], {"made": "before"})
    assert claims.merged(before, {}, ["00_b"], {"made": "after"}) == {"claims": [], "provenance": {}}


@pytest.mark.parametrize(
    ("value", "unit", "interval", "text"),
    [
        (0.7564, "%", (0.7461, 0.7651), "75.6 % [74.6, 76.5]"),
        (0.0103, "%", None, "1.03 %"),
        (0.1234, "points", (0.1, 0.136), "12.3 points [10.0, 13.6]"),
        (-0.004, "points", None, "-0.400 points"),
        (-0.0001, "points", (-0.002, 0.002), "0.0 points [-0.2, 0.2]"),
        (0.036787, "%", None, "3.68 %"),
        (0.0103, "%", (0.0101, 0.0105), "1.03 % [1.01, 1.05]"),
        (9.4e-5, "nats", (-0.00301, 0.0029), "0.00009 nats [-0.00301, 0.00290]"),
        (1.92, "", (1.78, 2.07), "1.92 [1.78, 2.07]"),
        (9, "", None, "9"),
        (0.10623, "bits", None, "0.106 bits"),
        (12.345, "KiB", None, "12.3 KiB"),
        (1849344, "", None, "1,849,344"),
        (1234.5, "s", None, "1,234 s"),
        (3.04e-8, "", None, "3.0 × 10⁻⁸"),
        (0.5, "", (0.25, 1), "0.50 [0.25, 1.00]"),
        (0, "", None, "0"),
        (float("nan"), "%", (0.0, 1.0), "nan %"),
    ],
)
def test_a_measured_number_reads_in_its_unit_with_its_interval(value, unit, interval, text):
    assert reads({"value": value, "unit": unit} | ({"interval": interval} if interval else {})) == text


@pytest.mark.parametrize(
    ("ends", "unit", "text"),
    [
        ({"low": 0.35}, "%", "at least 35 %"),
        ({"high": 0.015}, "%", "at most 1.5 %"),
        ({"low": 0.35, "high": 0.7}, "%", "between 35 and 70 %"),
        ({"low": 0.05}, "points", "at least 5 points"),
        ({"low": 9, "high": 9}, "", "exactly 9"),
        ({"high": 0.01}, "points", "at most 1 point"),
        ({"high": 1e-6}, "", "at most 10⁻⁶"),
        ({"high": 1 / 3}, "%", "at most 33.333 %"),
        ({"low": 0.9999, "high": 1.0001}, "", "between 0.9999 and 1.0001"),
        ({"low": 0.03675, "high": 0.03685}, "%", "between 3.675 and 3.685 %"),
        ({"low": 0, "high": 2000}, "bytes", "between 0 and 2,000 bytes"),
        ({}, "", "anything"),
    ],
)
def test_bounds_read_as_they_were_written(ends, unit, text):
    assert bounds(ends | {"unit": unit}) == text


def test_the_calls_of_a_cell_tell_the_names_and_sentences_of_its_claims():
    code = """
claim("02-a.b", "It is "
      "small.", x, high=1)
for task in tasks:
    claim(f"02-{task}-low", f"It is below {limit} for {task}.", x[task], high=limit)
claim(sentence="Named.", name="02-c", value=1, high=1)
words = "Too early."
words = "It is named."
claim("02-d", words, 1)
claim("02-e", elsewhere, 1)
words = "Too late."
"""
    found = calls(code)
    assert [c.sentence for c in found] == ["It is small.", "It is below … for ….", "Named.", "It is named.", "…"]
    assert [bool(re.fullmatch(c.name, "02-signs-low")) for c in found] == [False, True, False, False, False]
    assert re.fullmatch(found[0].name, "02-a.b") and not re.fullmatch(found[0].name, "02-axb")


def test_a_claim_whose_name_the_code_does_not_tell_is_refused():
    with pytest.raises(ValueError, match=r"line 1: write the name of a claim as a string: claim\(name, 'It is.', 1\)"):
        calls('claim(name, "It is.", 1)')


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


def test_the_alt_text_is_the_figures_own(displayed):
    figure = plt.figure()
    figure.alt = "Nothing yet."
    show((figure, {"data": []}))
    assert displayed[0][1] == {"image/png": {"alt": "Nothing yet."}}


def test_show_refuses_a_figure_without_alt_text():
    for alt in ({}, {"alt": " "}):
        with pytest.raises(ValueError, match=r"alt text: set figure\.alt"):
            show(plt.figure(), **alt)


# --- the palette ---


def test_every_series_has_a_colour_and_a_second_cue_of_its_own():
    assert len(set(PALETTE)) == len(set(MARKERS)) == len(set(map(str, DASHES))) == len(set(HATCHES)) == 7
    assert cue(1) == {"color": PALETTE[1], "marker": "s", "linestyle": "--"}
    assert bar_cue(1)["hatch"] and bar_cue(1)["facecolor"] == PALETTE[1]
