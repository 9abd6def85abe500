"""Training the zoo: small enough to run here, cut off and taken up again, and what its pieces promise."""

import pytest
import torch

from dts_mini.core.file import load_tensors
from dts_mini.suites.mini import zoo
from dts_mini.suites.mini.model import create_model, load_model, tokenize
from dts_mini.suites.mini.tasks import TASKS
from dts_mini.suites.streams import stream

SMALL = zoo.Recipe(
    pretrain_images=16, pretrain_steps=4, pretrain_batch=16, keep_every=2, finetune_images=32, finetune_steps=3,
    finetune_batch=16,
)  # fmt: skip


@pytest.mark.slow
def test_training_that_was_cut_off_ends_where_it_would_have_ended(tmp_path, monkeypatch):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        folder.mkdir()
    expected = load_tensors(zoo.pretrain(whole, 0, SMALL))
    contrast, calls = zoo.contrast, []

    def break_off(*arguments):
        calls.append(1)
        if len(calls) == 4:  # in the fourth step, after the resume file of the second
            raise KeyboardInterrupt
        return contrast(*arguments)

    monkeypatch.setattr(zoo, "contrast", break_off)
    with pytest.raises(KeyboardInterrupt):
        zoo.pretrain(cut, 0, SMALL)
    assert [path.name for path in cut.iterdir()] == ["pretraining.pt"]
    found = load_tensors(zoo.pretrain(cut, 0, SMALL))
    assert len(calls) == 6  # steps 1, 2, 3, (4), and 3, 4 again
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert [path.name for path in cut.iterdir()] == ["theta_0.safetensors"]


@pytest.mark.slow
def test_an_expert_starts_from_theta_0_and_leaves_the_head_alone(tmp_path):
    theta_0 = zoo.pretrain(tmp_path, 0, SMALL)
    share = zoo.finetune(theta_0, TASKS[0], tmp_path / "expert.safetensors", 0, SMALL)
    expert, base = load_tensors(tmp_path / "expert.safetensors"), load_model(theta_0).visual.state_dict()
    assert 0 <= share <= 1
    assert set(expert) == set(base) and all(tensor.dtype == torch.float16 for tensor in expert.values())
    assert any(not torch.equal(expert[name].float(), base[name]) for name in base)
    written = (tmp_path / "expert.safetensors").stat().st_mtime_ns
    assert zoo.finetune(theta_0, TASKS[0], tmp_path / "expert.safetensors", 0, SMALL) == share
    assert (tmp_path / "expert.safetensors").stat().st_mtime_ns == written  # trained once, only measured again


@pytest.mark.slow
def test_a_stored_model_answers_as_before_on_the_words_of_its_training(tmp_path):
    model, tokens = create_model().eval(), tokenize("a photo of a beach.")[None]
    from dts_mini.suites.mini.model import save_model

    save_model(model, tmp_path / "m.safetensors", tokens.unique())
    again = load_model(tmp_path / "m.safetensors")
    with torch.no_grad():
        assert torch.allclose(again.encode_text(tokens), model.encode_text(tokens), atol=2e-2)
    assert (tmp_path / "m.safetensors").stat().st_size < 5e6  # the vocabulary alone would be more


def test_wild_images_stay_images():
    images = torch.rand(64, 3, 32, 32)
    found = zoo.wild(images, stream("test"))
    assert found.shape == images.shape and found.min() >= 0 and found.max() <= 1
    assert not torch.allclose(found, images, atol=0.05)


def test_the_contrast_takes_pairs_on_one_topic_as_positives():
    class Model(torch.nn.Module):
        def forward(self, images, tokens):
            return images, tokens, torch.tensor(50.0)

    unit = torch.eye(4)[[0, 0, 1, 2]]
    topics = torch.tensor([[0, 1], [0, 1], [0, 2], [1, 1]])
    same = zoo.contrast(Model(), unit, unit, topics)
    apart = zoo.contrast(Model(), unit, unit, torch.tensor([[0, 1], [0, 3], [0, 2], [1, 1]]))
    assert same == pytest.approx(torch.log(torch.tensor(2.0)).item() / 2, abs=1e-3)  # two equal targets, halved
    assert apart == pytest.approx(same.item(), abs=1e-3)  # where they are told apart, the two share the loss


def test_the_schedule_warms_up_and_ends_at_zero():
    model = torch.nn.Linear(2, 2)
    trainer = zoo.Trainer(model, steps=200, rate=1.0, decay=0.0)
    rates = []
    for step in range(200):
        trainer.step(step, lambda: model(torch.ones(1, 2)).sum() * 0)
        rates.append(trainer.optimisers[0].param_groups[0]["lr"])
    assert rates[0] == pytest.approx(0.02) and max(rates) < 1
    assert rates[60:] == sorted(rates[60:], reverse=True) and rates[-1] == pytest.approx(1 / 200)


@pytest.mark.parametrize("option", [["--commit"], ["--theta-0", "theta_0.safetensors"]])
def test_a_zoo_of_honest_captions_pretrains_and_is_not_committed(option, monkeypatch, capsys):
    monkeypatch.setattr(zoo.sys, "argv", ["zoo", "--honest", *option])
    with pytest.raises(SystemExit):
        zoo.main()
    assert "--honest pretrains a model of its own" in capsys.readouterr().err
