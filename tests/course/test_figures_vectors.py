"""The figures of task vectors: data, labels, intervals, and a second cue beside the colour."""

import pytest
import torch
from looks import legend

from dts_mini.course import figures


def right(share: float, n: int = 200) -> torch.Tensor:
    """Outcomes of n images of which this share is right."""
    return torch.arange(n) < round(share * n)


def test_the_triangle_is_to_scale_whatever_the_order_of_the_tensors():
    base = {"a": torch.tensor([10.0, 0.0]), "b": torch.tensor([0.0])}
    first = {"b": torch.tensor([0.0]), "a": torch.tensor([12.0, 0.0])}
    second = {"a": torch.tensor([11.0, 0.0]), "b": torch.tensor([1.0])}
    figure, data = figures.triangle(base, first, second, ("p", "q"))
    assert data["name"] == ["theta_0", "p", "q", "their average"]
    assert [x for point in data["point"] for x in point] == pytest.approx([0, 0, 20, 0, 10, 10, 15, 5])
    assert "%" in figure.axes[0].get_xlabel() and "%" in figure.axes[0].get_ylabel()
    assert set(legend(figure)) == {r"$\theta_0$", *data["name"][1:]}
    assert r"(% of $\Vert\theta_0\Vert$)" in figure.axes[0].get_xlabel()
    assert "expert of p" in figure.alt and "that of q" in figure.alt


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
    assert "from 1 to 3 %" in figure.alt


def test_the_cosine_map_writes_every_cell():
    figure, data = figures.cosine_map(torch.tensor([[1.0, 0.25], [0.25, 1.0]]), ["p", "q"])
    assert data == {"names": ["p", "q"], "cosines": [[1, 0.25], [0.25, 1]]}
    assert [text.get_text() for text in figure.axes[0].texts] == ["1.00", "0.25", "0.25", "1.00"]
    assert "task vectors of p, q" in figure.alt and "between 0.25 and 0.25" in figure.alt


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
    assert "best with q (80 %), worst with p (50 %). Lines: alone 90 %; halved 70 %." in figure.alt
