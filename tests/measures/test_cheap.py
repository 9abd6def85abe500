"""Rows that cost next to nothing: what they use, and how their bytes are counted."""

import pytest
import torch

from dts_mini.measures import cheap
from dts_mini.measures.cheap import ROWS, leading, linear_head, part, synonyms
from dts_mini.peers.peer import Half
from dts_mini.suites.mini.suite import MiniSuite

TASK = "signs"


@pytest.fixture(scope="module")
def suite() -> MiniSuite:
    return MiniSuite()


def test_synonyms_take_no_byte_and_no_task_name(suite):
    made = synonyms(suite, TASK)
    assert made.bytes == 0
    assert made.state is suite.pretrained()
    assert made.head.shape == suite.head(TASK).shape
    assert torch.allclose(made.head.norm(dim=1), suite.head(TASK).norm(dim=1), rtol=1e-4)
    assert not torch.allclose(made.head, suite.head(TASK), atol=1e-2)


def test_a_linear_head_is_counted_by_its_file_and_learns_from_training_images_alone(suite, monkeypatch):
    monkeypatch.setattr(cheap, "STRENGTHS", (100.0,))
    asked = []
    images = type(suite.task(TASK)).images
    monkeypatch.setattr(
        type(suite.task(TASK)),
        "images",
        lambda self, split, n, seed=0: asked.append((split, n)) or images(self, split, n, seed),
    )
    suite.images.cache_clear()
    made = linear_head(suite, TASK)
    assert set(asked) == {("train", 300), ("validation", 1_000)}
    numbers = len(suite.classes(TASK)) * suite.head(TASK).shape[1]
    assert 2 * numbers < made.bytes < 2 * numbers + 200
    assert torch.equal(made.head, made.head.half().float())


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.uses == "its expert"])
def test_a_part_of_a_task_vector_changes_that_part_alone(suite, name):
    made, theta_0, expert = ROWS[name].make(suite, TASK), suite.pretrained(), suite.expert(TASK)
    changed = {n for n in theta_0 if not torch.equal(made.state[n], theta_0[n])}
    kept = {
        "projection alone, rank 8": lambda n: n == "proj",
        "1-D tensors alone": lambda n: theta_0[n].dim() == 1,
        "rank 2 and 1-D tensors": lambda n: True,
        "attention alone": lambda n: ".attn." in n,
        "last two blocks alone": lambda n: "resblocks.2" in n or "resblocks.3" in n,
    }[name]
    assert changed == {n for n in theta_0 if kept(n) and not torch.equal(expert[n], theta_0[n])}
    assert torch.equal(made.head, suite.head(TASK))
    assert 0 < made.bytes < sum(2 * t.numel() for n, t in theta_0.items() if n in changed) + 6_000


def test_a_part_keeps_as_many_components_as_it_says(suite):
    made = part(lambda name, x: leading(x, 3) if x.dim() > 1 else None)(suite, TASK)
    added = (made.state["proj"] - suite.pretrained()["proj"]).double()
    s = torch.linalg.svdvals(added)
    assert s[3] < 1e-3 * s[2]
    assert isinstance(leading(torch.ones(3), 3), Half)
