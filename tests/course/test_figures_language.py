"""The figures of text models: data, labels, and a second cue beside the colour."""

from looks import cues, legend, okabe_ito

from dts_mini.course import figures


def test_parameters_and_files_are_stacked_to_a_hundred_percent_by_kind_of_tensor():
    figure, data = figures.where_bytes_go({"A": {"embeddings": (3, 2), "MLP": (1, 2)}, "B": {"MLP": (4, 4)}})
    assert data == {"A": {"embeddings": (75, 50), "MLP": (25, 50)}, "B": {"MLP": (100, 100)}}
    (axis,) = figure.axes
    assert [label.get_text() for label in axis.get_yticklabels()] == [
        f"{model}, {what}" for model in "AB" for what in ("parameters", "file")
    ]
    assert axis.get_xlabel() == "share (%)" and legend(figure) == ["embeddings", "MLP"]
    assert len(cues(axis, "bar")) == 2 and okabe_ito(axis)
    assert "embeddings 75 and 50" in figure.alt


def test_cosines_have_a_panel_a_model_and_a_bar_a_way():
    figure, data = figures.descriptor_cosines(["a", "b"], {"M": {"as it is": [0.9, 0.8], "moves": [-0.3, 0.5]}})
    assert data == {"M": {"as it is": [0.9, 0.8], "moves": [-0.3, 0.5]}}
    (axis,) = figure.axes
    assert axis.get_title() == "M" and axis.get_ylabel() == "cosine" and legend(figure) == ["as it is", "moves"]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["a", "b"]
    assert len(cues(axis, "bar")) == 2 and okabe_ito(axis)
    assert "M, moves: a -0.3, b 0.5" in figure.alt
