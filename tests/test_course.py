"""What the notebooks lean on: claims that fail loudly and print no digits, alt text, figures that can be read."""

import json

import matplotlib.pyplot as plt
import pytest
import torch

from dts_mini.course import claim, figures, show, style
from dts_mini.course.claims import ClaimError
from dts_mini.course.style import DASHES, HATCHES, MARKERS, PALETTE, bar_cue, cue
from dts_mini.suites.mini.task import Task, drawn


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def legend(figure) -> list[str]:
    """The labels of every legend in a figure."""
    boxes = [*figure.legends, *(axis.get_legend() for axis in figure.axes if axis.get_legend())]
    return [text.get_text() for box in boxes for text in box.get_texts()]


def right(share: float, n: int = 200) -> torch.Tensor:
    """Outcomes of n images of which this share is right."""
    return torch.arange(n) < round(share * n)


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
    assert found == {"name": "a", "sentence": "It is small.", "value": 0.5, "high": 1}


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


# --- the figures of notebooks 00 and 01 ---


@pytest.fixture
def tasks() -> list[Task]:
    painters = [lambda n, g: torch.rand(n, 3, 32, 32, generator=g)] * 3
    make = lambda name, real: Task(name, f"{name}-data", real, ("x", "y", "z"), ((),) * 3, ("{c}",), drawn(painters))
    return [make("stars", False), make("letters", True)]


def test_the_contact_sheet_says_what_is_real_and_what_it_mirrors(tasks):
    figure, data = figures.contact_sheet(tasks, columns=2)
    assert data["source"] == ["drawn by a program", "real scans, recoloured"]
    assert data["classes"] == [["x", "y"]] * 2
    labels = [axis.get_ylabel() for axis in figure.axes]
    assert any("letters" in label and "real" in label and "letters-data" in label for label in labels)
    assert [axis.get_xlabel() for axis in figure.axes] == ["x", "y"] * 2


def test_storage_bars_are_in_mib_and_hatched():
    figure, data = figures.storage_bars({"all": 3 * 2**20, "one": 2**20}, 3)
    assert data == {"name": ["all", "one"], "mib": [3, 1]}
    assert "(MiB)" in figure.axes[0].get_xlabel()
    assert len({bar.get_hatch() for bar in figure.axes[0].patches}) == 2


def test_confusion_shares_are_of_the_image_class_and_the_stand_in_is_marked():
    answers, labels = torch.tensor([0, 1, 1, 1]), torch.tensor([0, 0, 1, 1])
    figure, data = figures.confusion(answers, labels, ["x", "y"], [1, 0])
    assert data["share"] == [[50, 50], [0, 100]]
    assert data["marked"] == [1, 0]
    assert legend(figure) == ["the class itself", "its stand-in"]
    assert figure.axes[0].get_xlabel() and figure.axes[0].get_ylabel()
    assert any("(%)" in axis.get_ylabel() for axis in figure.axes)


def test_accuracies_come_with_intervals_and_their_mean_last():
    rows = {"low": {"a": right(0.4), "b": right(0.6)}, "high": {"a": right(0.9), "b": right(0.7)}}
    figure, data = figures.accuracies(rows, draws=200)
    assert data["columns"] == ["a", "b", "mean"]
    assert data["rows"]["low"]["value"] == pytest.approx([40, 60, 50])
    for entry in data["rows"].values():
        assert all(low < v < high for low, v, high in zip(entry["low"], entry["value"], entry["high"], strict=True))
        assert entry["high"][2] - entry["low"][2] < entry["high"][0] - entry["low"][0]  # a mean is surer
    assert legend(figure) == ["low", "high"]
    axis = figure.axes[0]
    assert "accuracy (%)" in axis.get_ylabel() and "95 %" in axis.get_ylabel()
    drawn_with = [(box[0].get_color(), box[0].get_marker()) for box in axis.containers]
    assert drawn_with == [(PALETTE[0], MARKERS[0]), (PALETTE[1], MARKERS[1])]


def test_the_triangle_is_to_scale_whatever_the_order_of_the_tensors():
    base = {"a": torch.tensor([10.0, 0.0]), "b": torch.tensor([0.0])}
    first = {"b": torch.tensor([0.0]), "a": torch.tensor([12.0, 0.0])}
    second = {"a": torch.tensor([11.0, 0.0]), "b": torch.tensor([1.0])}
    figure, data = figures.triangle(base, first, second, ("p", "q"))
    assert data["name"] == ["theta_0", "p", "q", "their average"]
    assert [x for point in data["point"] for x in point] == pytest.approx([0, 0, 20, 0, 10, 10, 15, 5])
    assert "%" in figure.axes[0].get_xlabel() and "%" in figure.axes[0].get_ylabel()
    assert set(legend(figure)) == set(data["name"])


def test_layer_lengths_are_shares_of_theta_0_by_layer_and_kind():
    names = [f"transformer.resblocks.{i}.mlp.c_fc.weight" for i in range(2)] + ["conv1.weight", "ln_post.bias"]
    base = {name: torch.full((2, 2), 2.0) for name in names}
    experts = {k: {name: x + step for name, x in base.items()} for k, step in {"near": 0.02, "far": 0.06}.items()}
    figure, data = figures.layer_lengths(base, experts)
    assert data["layers"] == ["input", "block 1", "block 2", "output"]
    assert set(data["kinds"]) == {"MLP, in", "norms and biases", "patches, positions, projection"}
    inner = data["kinds"]["MLP, in"]
    assert inner["layer"] == ["block 1", "block 2"]
    found = [inner[key][0] for key in ("low", "value", "high")]
    assert found == pytest.approx([1, 2, 3], rel=1e-4)
    assert set(legend(figure)) == set(data["kinds"])
    assert "%" in figure.axes[0].get_ylabel() and figure.axes[0].get_xlabel()


def test_the_cosine_map_writes_every_cell():
    figure, data = figures.cosine_map(torch.tensor([[1.0, 0.25], [0.25, 1.0]]), ["p", "q"])
    assert data == {"names": ["p", "q"], "cosines": [[1, 0.25], [0.25, 1]]}
    assert [text.get_text() for text in figure.axes[0].texts] == ["1.00", "0.25", "0.25", "1.00"]


@pytest.mark.parametrize("measures", [1, 2])
def test_the_similarity_scatter_orders_partners_by_similarity_in_each_panel(measures):
    alike = {"vectors": {"p": 0.3, "q": 0.1}, "descriptors": {"p": 0.2, "q": 0.9}}
    alike = dict(list(alike.items())[:measures])
    pairs, levels = {"p": right(0.5), "q": right(0.8)}, {"alone": right(0.9), "halved": right(0.7)}
    figure, data = figures.similarity_scatter(pairs, alike, levels, "numbers")
    vectors = data["measures"]["vectors"]
    assert vectors["partner"] == ["q", "p"] and vectors["similarity"] == [0.1, 0.3]
    assert vectors["value"] == pytest.approx([80, 50])
    assert all(low < v < high for low, v, high in zip(vectors["low"], vectors["value"], vectors["high"], strict=True))
    if measures == 2:
        assert data["measures"]["descriptors"]["partner"] == ["p", "q"]
    assert data["levels"]["alone"]["value"] == pytest.approx([90])
    assert sorted(legend(figure)) == ["alone", "halved", "p", "q"]
    assert [axis.get_xlabel() for axis in figure.axes] == [f"{measure} (cosine)" for measure in alike]
    assert "accuracy on numbers (%)" in figure.axes[0].get_ylabel()
