"""The figures of thresholding: data, labels, intervals, and a second cue beside the colour."""

import pytest
import torch
from looks import cues, legend, okabe_ito

from dts_mini.core.codes import scale, threshold
from dts_mini.course import figures
from dts_mini.course.figures.thresholding import GROUP_NAMES


def test_numbers_and_codes_writes_each_number_and_its_two_bits():
    x = torch.tensor([[0.9, -0.1, 0.4, -0.7], [0.2, -0.3, 0.1, 0.5], [0.0, 0.3, 0.6, -0.2]])
    codes = threshold(x.reshape(1, -1)).view(x.shape)  # those of the whole, not of the corner
    figure, data = figures.numbers_and_codes(x, size=(2, 3))
    left, right = figure.axes
    assert data["codes"] == codes[:2, :3].tolist() and torch.tensor(data["numbers"]).equal(x[:2, :3])
    assert [text.get_text() for text in left.texts[:2]] == ["0.900", "\u22120.100"]
    assert [text.get_text() for text in right.texts] == [f"{c:02b}" for c in codes[:2, :3].flatten().tolist()]
    assert legend(figure) == [f"{code:02b} {name}" for code, name in enumerate(GROUP_NAMES)]
    assert "32 bits" in left.get_title() and "2 bits" in right.get_title() and left.get_ylabel()
    shades = right.images[0].cmap(range(4))[:, :3] @ [0.299, 0.587, 0.114]
    assert (
        shades[[1, 2]] > shades[[0, 3]] + 0.1
    ).all()  # strong and weak are told apart without colour; bits tell the rest


def test_group_histogram_counts_each_group_apart_and_draws_its_value():
    x = torch.randn(30, 7, generator=torch.Generator().manual_seed(0))
    codes = threshold(x.reshape(1, -1))
    values = scale(x.reshape(1, -1), codes)[0]
    figure, data = figures.group_histogram(x, codes, values, bins=20)
    assert list(data["counts"]) == list(GROUP_NAMES)
    totals = [sum(counts) for counts in data["counts"].values()]
    assert all(0 <= n - total <= 1 for n, total in zip(codes[0].bincount().tolist(), totals, strict=True))  # far tail
    (axes,) = figure.axes
    assert [line.get_xdata()[0] for line in axes.lines] == data["scales"] == pytest.approx(values.tolist())
    assert len(cues(axes, "bar")) == 4 and okabe_ito(axes) and len(legend(axes)) == 5
    assert axes.get_xlabel() and axes.get_ylabel()


def test_group_histogram_without_values_draws_the_groups_alone():
    x = torch.linspace(-1, 1, 40)
    figure, data = figures.group_histogram(x, threshold(x.reshape(1, -1)), bins=8)
    assert not figure.axes[0].lines and data["scales"] == [] and legend(figure) == list(GROUP_NAMES)


def test_kept_parts_has_a_bar_for_each_part_and_a_line_for_the_whole():
    m = torch.tensor([[3.0, 4.0]])
    parts = {"first": torch.tensor([[1.0, 0.0]]), "away": -m, "all": m}
    figure, data = figures.kept_parts(m, parts, exact=torch.tensor([[0.0, 1.0]]))
    (axes,) = figure.axes
    assert data["cosine"] == pytest.approx({"first": 0.6, "away": -1, "all": 1}) and data["level"] == pytest.approx(0.8)
    assert [patch.get_width() for patch in axes.patches] == list(data["cosine"].values())
    assert axes.lines[0].get_xdata()[0] == data["level"]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == list(parts)
    assert len(cues(axes, "bar")) == 3 and okabe_ito(axes) and len(legend(axes)) == 1
    assert "cosine" in axes.get_xlabel() and axes.get_xlim()[0] <= -1 and "away -1.00" in figure.alt


def averaged(x, codes):
    means = torch.stack([x[codes == code].mean() for code in range(4)])
    return means[codes]


def test_cut_curve_finds_the_least_error_and_marks_the_median():
    u, vt = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), torch.randn(3, 50)
    s = torch.tensor([3.0, 2.0, 1.0])
    cuts = [0.25, 0.5, 0.7, 0.9]
    figure, data = figures.cut_curve(u * s @ vt, (u, s, vt), averaged, lambda counts: counts[3] / sum(counts), cuts)
    above, below = figure.axes
    matrix, factor = (data[name] for name in data if name[:6] in ("matrix", "factor"))
    assert list(matrix) == list(factor) == list(data["bits"]) == cuts
    at_median = averaged(u, threshold(u.reshape(1, -1)).view(u.shape).long())
    assert factor[0.5] == pytest.approx(((u - at_median).norm() / u.norm()).item(), rel=1e-5)
    assert list(data["least"].values()) == [min(found, key=found.get) for found in (matrix, factor)]
    assert data["bits"][0.25] > data["bits"][0.9]  # more weak, fewer strong
    assert legend(above) == [*(name for name in data if name[:6] in ("matrix", "factor")), "least", "median"]
    assert legend(below) == ["entropy of the codes of U", "median"]
    for axes in (above, below):
        assert okabe_ito(axes) and len(cues(axes, "line")) == len(legend(axes))
    assert "%" in below.get_xlabel() and "%" in above.get_ylabel() and "bits" in below.get_ylabel()
    assert above.get_ylim()[0] == 0 and "weak" in figure.alt


def test_groups_traded_shows_both_measures_with_their_intervals():
    answers = lambda share, kl: {"right": torch.arange(200) < 200 * share, "kl": kl * torch.linspace(0.5, 1.5, 200)}
    series = {
        "means": {2: answers(0.8, 0.2), 4: answers(0.9, 0.02)},
        "others": {2: answers(0.7, 0.1), 4: answers(0.9, 0.01)},
    }
    figure, data = figures.groups_traded(series, torch.arange(200) < 190)
    above, below = figure.axes
    assert data["groups"] == [2, 4] and data["expert"] == pytest.approx([95])
    assert data["accuracy (%)"]["means"]["value"] == pytest.approx([80, 90])
    assert data["KL (nats)"]["others"]["value"] == pytest.approx([0.1, 0.01])
    for found in (*data["accuracy (%)"].values(), *data["KL (nats)"].values()):
        assert all(low < value < high for value, low, high in zip(*found.values(), strict=True))
    assert set(legend(above)) == {"means", "others", "expert"} and legend(below) == ["means", "others"]
    for axes in (above, below):
        assert okabe_ito(axes) and len(axes.collections) == 2
        assert [tick.get_text() for tick in below.get_xticklabels()] == ["2", "4"]
        assert len({(box[0].get_marker(), box[0].get_linestyle()) for box in axes.containers}) == 2
    assert "%" in above.get_ylabel() and "nats" in below.get_ylabel() and "groups" in below.get_xlabel()
    assert "others: 2 groups 70 % and 0.1 nats, 4 groups 90 % and 0.01 nats" in figure.alt
