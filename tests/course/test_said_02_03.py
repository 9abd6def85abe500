"""What the text of notebooks 02 and 03 says of the mini suite without a claim of its own."""

import pytest
import torch

from dts_mini import compress, storage
from dts_mini.core.paper import decompose, threshold
from dts_mini.course import trial
from dts_mini.course.exercises.nb02_decomposition import rank_for_energy, truncation_error
from dts_mini.course.exercises.nb03_thresholding import averaged
from dts_mini.suites.mini.suite import MiniSuite

pytestmark = pytest.mark.zoo
NAME = "transformer.resblocks.2.mlp.c_fc.weight"


@pytest.fixture(scope="module")
def suite():
    return MiniSuite()


@pytest.fixture(scope="module")
def pair(suite):
    return suite.pretrained(), suite.expert(suite.example)


@pytest.fixture(scope="module")
def matrix(pair):
    theta_0, expert = pair
    return expert[NAME] - theta_0[NAME]


def test_weights_are_hardly_easier_to_describe_than_noise_and_no_component_of_the_task_vector_is_zero(pair, matrix):
    weights = torch.linalg.svdvals(pair[0][NAME])
    noise = torch.linalg.svdvals(torch.randn(matrix.shape, generator=torch.Generator().manual_seed(0)))
    assert rank_for_energy(weights, 0.5) > 0.7 * rank_for_energy(noise, 0.5)
    s = torch.linalg.svdvals(matrix)
    assert s[-1] > 0.005 * matrix.norm() and rank_for_energy(s, 0.9) > len(s) / 4


def test_a_task_vector_is_concentrated_in_every_expert_and_not_in_every_matrix(suite):
    theta_0 = suite.pretrained()
    kept = {}
    for task in suite.tasks:
        state = suite.expert(task)
        taus = [state[name] - x for name, x in theta_0.items() if x.dim() == 2]
        kept[task] = [1 - truncation_error(torch.linalg.svdvals(t), max(1, min(t.shape) // 10)) ** 2 for t in taus]
    assert min(sum(shares) / len(shares) for shares in kept.values()) > 0.6
    assert max(map(max, kept.values())) - min(map(min, kept.values())) > 0.5


def test_what_is_compared_with_truncation_is_as_wrong_in_every_matrix(pair):
    theta_0, expert = pair
    state = {n: x + 0.5 * (expert[n] - x) if x.dim() == 2 else expert[n] for n, x in theta_0.items()}
    found = trial.equally_wrong(theta_0, expert, state)
    for name, x in theta_0.items():
        wrong = (state[name] - expert[name]).norm()
        for who in ("random error", "shrunk"):
            assert (found[who][name] - expert[name]).norm() == pytest.approx(wrong.item(), rel=1e-3, abs=1e-6)
        rest = found["only the rest"][name] - (x if x.dim() == 2 else expert[name])
        assert torch.allclose(rest, expert[name] - state[name], atol=1e-6)


def test_what_truncation_drops_is_not_much_shorter_than_the_shrunk_task_vector(pair):
    theta_0, expert = pair
    state = dict(expert)
    for name in (name for name, x in theta_0.items() if x.dim() == 2):
        u, s, vt = decompose(expert[name] - theta_0[name], 0.1)
        state[name] = theta_0[name] + u * s @ vt
    found = trial.equally_wrong(theta_0, expert, state)
    assert 1 < trial.apart(found["shrunk"], theta_0) / trial.apart(found["only the rest"], theta_0) < 1.5


def test_a_trial_pairs_its_images(suite):
    expert = trial.Trial(suite, suite.example)
    zero_shot = expert.answers(suite.pretrained())
    gap, back = (expert.gap(*pair, "right") for pair in ((expert.expert, zero_shot), (zero_shot, expert.expert)))
    assert gap["value"] == pytest.approx(-back["value"]) and gap["interval"][0] == pytest.approx(-back["interval"][1])
    assert gap["interval"][0] < gap["value"] < gap["interval"][1]
    same = expert.answers(suite.expert(suite.example))
    assert same["right"].equal(expert.expert["right"]) and same["kl"].abs().max() < 1e-5
    judged = expert.judged({0.5: suite.pretrained()}, base=suite.pretrained())[0.5]
    assert judged["error"] == pytest.approx(1) and judged["right"].equal(zero_shot["right"])


def test_a_component_that_is_turned_is_in_other_groups_and_the_columns_are_alike_without_signs(matrix):
    u, s, vt = decompose(matrix, 0.1)
    turn = torch.ones(len(s))
    turn[0] = -1
    assert torch.allclose((u * turn) * s @ (turn[:, None] * vt), u * s @ vt, atol=1e-6)
    assert (threshold(u * turn) != threshold(u))[:, 0].float().mean() > 0.95
    assert (u.abs().T @ u.abs()).min() > 0.4
    shares = threshold(u).flatten().bincount(minlength=5) / u.numel()
    assert (shares[:4] - 0.25).abs().max() < 0.01 and shares[4] == 0


def test_zeros_stand_in_biases_and_not_in_factors(pair):
    theta_0, expert = pair
    for name, x in theta_0.items():
        parts = decompose(expert[name] - x, 0.1)[::2] if x.dim() == 2 else ()
        assert not any((threshold(part) == 4).any() for part in parts), name
    other = torch.cat([(expert[name] - x).flatten() for name, x in theta_0.items() if x.dim() != 2])
    assert 0 < (threshold(other) == 4).float().mean() < 0.01


def test_the_bits_of_two_four_and_eight_groups_agree_roughly_at_the_ranks_of_the_exercise(pair):
    settings = {2: 37 / 192, 4: 19 / 192, 8: 12 / 192}
    found = {g: storage(compress(*pair, groups=g, keep_ratio=rho)).information for g, rho in settings.items()}
    assert all(abs(found[g] / found[4] - 1) < 0.1 for g in (2, 8))


def test_a_partition_for_each_vector_changes_few_codes_and_little_of_the_error(matrix):
    u, s, vt = decompose(matrix, 0.1)
    codes, by_vector = threshold(u), torch.stack([threshold(column) for column in u.T], 1)
    assert (codes != by_vector).float().mean() < 0.05
    across = torch.stack([threshold(row) for row in vt])
    error = lambda left, right: ((matrix - averaged(u, left) * s @ averaged(vt, right)).norm() / matrix.norm()).item()
    assert abs(error(codes, threshold(vt)) - error(by_vector, across)) < 0.02
