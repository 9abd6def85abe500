"""The figures of decomposition: data, labels, intervals, and a second cue beside the colour."""

import pytest
import torch
from looks import cues, legend, okabe_ito

from dts_mini.core import paper
from dts_mini.course import figures


def right(share: float, n: int = 200) -> torch.Tensor:
    """Outcomes of n images of which this share is right."""
    return torch.arange(n) < round(share * n)


def spread(mean: float, n: int = 200) -> torch.Tensor:
    """Values with this mean, not all the same."""
    return mean * torch.linspace(0.5, 1.5, n)


def test_a_matrix_is_described_by_its_leading_components_on_one_colour_scale():
    m = torch.randn(9, 8, generator=torch.Generator().manual_seed(0))
    u, s, vh = torch.linalg.svd(m, full_matrices=False)
    figure, data = figures.described(m, (8, 2, 1), size=5)
    assert torch.tensor(data["M"]).equal(m[:5, :5]) and torch.tensor(data["8 directions"]).allclose(
        m[:5, :5], atol=1e-5
    )
    assert torch.tensor(data["1 direction"]).allclose(s[0] * torch.outer(u[:5, 0], vh[0, :5]), atol=1e-5)
    *maps, bar = figure.axes
    assert {axes.images[0].get_clim() for axes in maps} == {(-data["limit"][0], data["limit"][0])}
    assert [axes.get_title() for axes in maps] == [
        "M",
        "8 directions",
        "2 directions",
        "1 direction",
    ] and bar.get_ylabel()
    assert "1 direction " in figure.alt and figure.get_figwidth() < 7


def test_one_sign_has_one_colour_in_every_figure():
    blue = lambda colour: colour[2] > colour[0]
    x = torch.tensor([[-2.0, -1.0, 1.0, 2.0]])
    figure, _ = figures.numbers_and_codes(x)
    above, below = figure.axes
    shades = [image.cmap(image.norm(image.get_array()))[0] for image in (above.images[0], below.images[0])]
    assert [[blue(colour) for colour in row] for row in shades] == [[False, False, True, True]] * 2
    bars = figures.group_histogram(x, paper.threshold(x), bins=4)[0].axes[0].containers
    assert [blue(bar.patches[0].get_facecolor()) for bar in bars] == [False, False, True, True]
    figure, _ = figures.component(torch.tensor([1.0, -1.0]), 1.0, torch.tensor([1.0, -2.0]))
    _, top, side, middle, _ = figure.axes
    image = middle.images[0]
    assert [blue(colour) for colour in image.cmap(image.norm(image.get_array()))[0]] == [True, False]
    assert [blue(lines.get_color()[0]) for lines in (*top.collections, *side.collections)] == [True, False] * 2
    assert figures.described(torch.eye(3), (1,))[0].axes[0].images[0].cmap is image.cmap


def test_panels_stand_one_below_the_other_so_that_a_phone_shows_them():
    rows = {"p": {0.1: {"error": 0.2, "right": right(0.9), "kl": spread(0.1)}}}
    drawn = (
        figures.singular_values({"a": torch.tensor([3.0, 2, 1])}, 2),
        figures.rank_accuracy(rows, {"expert": right(0.95)}),
        figures.same_error({"a": rows["p"][0.1]}, {"expert": right(0.95)}),
        figures.numbers_and_codes(torch.randn(3, 4)),
        figures.cut_curve(torch.eye(3), paper.decompose(torch.eye(3), 1.0), lambda x, codes: x, sum, [0.4, 0.6]),
        figures.groups_traded({"one": {2: rows["p"][0.1], 4: rows["p"][0.1]}}, right(0.9)),
    )
    for figure, _ in drawn:
        width, height = figure.get_size_inches()
        assert width < 7 and width < 1.75 * height  # wider ones scroll on a phone
        assert len({axes.get_subplotspec().colspan.start for axes in figure.axes}) == 1


def test_every_figure_says_in_words_what_it_shows():
    figure, _ = figures.truncation_error(torch.diag(torch.tensor([3.0, 4.0, 0.0])), {1: 0.6, 2: 0})
    assert figure.alt.startswith("Relative error against rank, from 1 to 2. Truncation falls from 60 % to 0 %; the")
    assert (
        "points lie on the stated line." in figure.alt and "Largest elements, as many numbers: from 0 %" in figure.alt
    )
    figure, _ = figures.singular_values({r"$\theta_0$": torch.tensor([3.0, 4.0])}, 1)
    assert "at rank 1: theta_0 36 %" in figure.alt


def test_a_component_is_the_outer_product_of_its_vectors():
    figure, data = figures.component(torch.tensor([1.0, -2.0, 7.0]), 3.0, torch.tensor([0.5, 1.0, 7.0]), size=2)
    assert data == {"u": [1, -2], "v": [0.5, 1], "s": [3], "product": [[1.5, 3], [-3, -6]]}
    _, top, side, middle, bar = figure.axes
    assert middle.images[0].get_array().tolist() == data["product"] and middle.images[0].get_clim() == (-6, 6)
    assert middle.get_xlabel() and side.get_ylabel() and side.get_xlabel() and top.get_ylabel()
    assert legend(figure) == ["positive", "negative"] and "weight" in bar.get_ylabel() and figure.alt


def test_singular_values_are_shares_of_each_matrix_with_the_energy_of_the_leading_ones():
    figure, data = figures.singular_values({"a": torch.tensor([3.0, 2, 1]), "b": torch.tensor([20.0, 20, 20])}, rank=2)
    assert data["value"]["b"] == pytest.approx([100 / 3**0.5] * 3)
    assert data["energy"]["a"] == pytest.approx([100 * 9 / 14, 100 * 13 / 14, 100])
    assert data["energy"]["b"] == pytest.approx([100 / 3, 200 / 3, 100])
    left, right = figure.axes
    assert "% of the matrix" in left.get_ylabel() and "%" in right.get_ylabel()
    assert legend(figure) == ["a", "b", "rank 2"] and data["rank"] == [2]
    for axes in (left, right):
        assert okabe_ito(axes) and len(cues(axes, "line")) == 3
        assert axes.lines[2].get_xdata()[0] == 2  # the line that marks the rank


def test_truncation_error_measures_truncation_and_two_rivals_beside_what_is_stated():
    m = torch.diag(torch.tensor([3.0, 4.0]))
    figure, data = figures.truncation_error(m, {1: 0.6, 2: 0.01})
    assert data["stated"] == pytest.approx({1: 60, 2: 1})
    assert data["truncation"] == pytest.approx({1: 60, 2: 0}, abs=1e-3)
    assert data["largest elements, as many numbers"][1] == pytest.approx(0, abs=1e-3)  # five numbers hold all of four
    assert 60 < data["random directions, same rank"][1] < 100
    (axes,) = figure.axes
    assert len(legend(figure)) == 4 and "%" in axes.get_ylabel() and axes.get_xlabel()
    assert len(cues(axes, "line")) == 4 and okabe_ito(axes)
    assert "are off the stated line" in figure.alt


def test_rank_accuracy_holds_error_accuracy_and_kl_with_their_intervals():
    at = lambda error, share, kl: {"error": error, "right": right(share), "kl": spread(kl)}
    rows = {"p": {0.3: at(0.2, 0.9, 0.01), 0.1: at(0.5, 0.8, 0.1)}, "q": {0.1: at(0.9, 0.3, 2), 0.3: at(0.6, 0.5, 1)}}
    figure, data = figures.rank_accuracy(rows, {"expert": right(0.95), "zero-shot": right(0.4)})
    p = data["rows"]["p"]
    assert p["keep ratio"] == [0.1, 0.3] and p["error"] == pytest.approx([50, 20])
    assert p["accuracy"]["value"] == pytest.approx([80, 90]) and p["kl"]["value"] == pytest.approx([0.1, 0.01])
    for entry in (p["accuracy"], p["kl"], data["rows"]["q"]["kl"]):
        assert all(a < b < c for a, b, c in zip(entry["low"], entry["value"], entry["high"], strict=True))
    assert p["accuracy"]["low"][0] > 70 and p["accuracy"]["high"][0] < 90  # in %, not in [0, 1]
    assert data["levels"]["expert"]["value"] == pytest.approx(95)
    assert legend(figure) == ["p", "q", "expert", "zero-shot"]
    left, middle, last = figure.axes
    assert "keep ratio" in last.get_xlabel() and all(okabe_ito(axes) for axes in figure.axes)
    assert "%" in left.get_ylabel() and "95 % interval" in middle.get_ylabel() and "nats" in last.get_ylabel()
    assert last.get_yscale() == "log" and len(cues(left, "line")) == 2


def test_same_error_puts_accuracy_and_kl_of_each_model_on_one_line():
    rows = {name: {"right": right(share), "kl": spread(kl)} for name, share, kl in (("a", 0.9, 0.01), ("b", 0.6, 1.0))}
    figure, data = figures.same_error(rows, {"expert": right(0.95)})
    assert data["name"] == ["a", "b"] and data["accuracy"]["value"] == pytest.approx([90, 60])
    assert data["kl"]["value"] == pytest.approx([0.01, 1]) and data["levels"]["expert"]["value"] == pytest.approx(95)
    assert all(low < high for low, high in zip(data["kl"]["low"], data["kl"]["high"], strict=True))
    left, last = figure.axes
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["a", "b"] and legend(figure) == ["expert"]
    assert "%" in left.get_xlabel() and "nats" in last.get_xlabel() and "95 % interval" in last.get_xlabel()
    assert okabe_ito(left) and okabe_ito(last) and len({line.get_marker() for line in last.lines} - {"|"}) == 2


def test_layer_errors_are_those_of_the_truncated_task_vectors():
    shapes = {
        "positional_embedding": (3, 8),
        "transformer.resblocks.0.mlp.c_fc.weight": (8, 4),
        "transformer.resblocks.1.mlp.c_fc.weight": (8, 4),
        "transformer.resblocks.0.mlp.c_fc.bias": (8,),
        "conv1.weight": (4, 3, 2, 2),
        "proj": (4, 4),
    }
    base = {name: torch.ones(shape) for name, shape in shapes.items()}
    experts = {}
    for expert, second in (("near", 0.0), ("far", 3.0)):  # rank 1, and a second component of this size beside the first
        experts[expert] = {name: x.clone() for name, x in base.items()}
        for name in (name for name, x in base.items() if x.dim() == 2):
            experts[expert][name][0, 0] += 4
            experts[expert][name][1, 1] += second
    error_of = lambda tau: (torch.linalg.svdvals(tau)[1:].norm() / tau.norm()).item()
    figure, data = figures.layer_errors(base, experts, error_of)
    assert data["layers"] == ["input", "block 1", "block 2", "output"]
    assert set(data["kinds"]) == {"positions", "MLP, in", "projection"} == set(legend(figure))
    inner = data["kinds"]["MLP, in"]
    assert inner["layer"] == ["block 1", "block 2"]
    assert inner["low"] == pytest.approx([0, 0], abs=1e-3) and inner["high"] == pytest.approx([60, 60], rel=1e-4)
    assert inner["value"] == pytest.approx([30, 30], rel=1e-3)
    (axes,) = figure.axes
    assert "%" in axes.get_ylabel() and axes.get_xlabel() == "layer" and okabe_ito(axes)
