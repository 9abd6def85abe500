"""What the text of notebooks 04 and 05 says without a claim, measured on their expert."""

from math import prod

import pytest
import safetensors.torch
import torch

from dts_mini.core.codes import restore, scale, threshold
from dts_mini.core.compress import compress
from dts_mini.core.delta import storage
from dts_mini.core.dts import Flat, LowRank
from dts_mini.core.paper import decompose
from dts_mini.course import figures
from dts_mini.suites import load_suite

NAME = "transformer.resblocks.2.mlp.c_fc.weight"


@pytest.fixture(scope="module")
def models():
    suite = load_suite("mini")
    return suite.pretrained(), suite.expert(suite.example)


@pytest.fixture(scope="module")
def delta(models):
    return compress(*models, keep_ratio=0.1)


def test_what_the_rms_errs_more_than_the_mean_is_n_times_their_squared_distance(models):
    U, _, _ = decompose(models[1][NAME] - models[0][NAME], 0.1)
    row = U.reshape(1, -1)
    codes = threshold(row)
    for code in range(4):
        x = row[codes == code].double()
        rms, mean = (scale(row, codes, how=how)[0, code].double() for how in ("rms", "mean"))
        more = (x - rms).square().sum() - (x - mean).square().sum()
        assert more == pytest.approx((len(x) * (rms - mean) ** 2).item(), rel=1e-2)


def test_means_leave_the_smaller_error_of_the_matrix_and_of_the_whole_expert(models, delta):
    means = compress(*models, keep_ratio=0.1, scale="mean")
    tau = {name: models[1][name] - x for name, x in models[0].items()}
    error = lambda found, names: sum((tau[n] - found.remainder(n)).square().sum().item() for n in names)
    assert error(means, [NAME]) < error(delta, [NAME]) and error(means, tau) < error(delta, tau)


def test_signs_without_any_value_make_the_remainder_absurdly_long(models, delta):
    part = delta.parts[NAME]
    factors = []
    for side in (part.left, part.right):
        codes = threshold(side.restore().reshape(1, -1))
        factors.append(restore(codes, torch.tensor([[-1.0, -1.0, 1.0, 1.0]])).view(side.shape))
    long = ((factors[0].T * part.s) @ factors[1]).norm()
    assert long > 100 * (models[1][NAME] - models[0][NAME]).norm()


def test_the_paper_count_follows_from_shapes(delta):
    bits = 0
    for name, part in delta.parts.items():
        shape = tuple(delta.remainder(name).shape)
        bits += (3 * sum(shape) + 32) * part.rank if isinstance(part, LowRank) else 3 * prod(shape)
    assert storage(delta).paper * 8 == pytest.approx(bits, abs=8)


def test_an_entry_costs_about_a_hundred_bytes_of_header(delta):
    entries = {}
    for tensor, part in delta.parts.items():
        sides = (part.left, part.right) if isinstance(part, LowRank) else (part.coded,)
        for n, side in enumerate(sides):
            entries |= {f"{tensor}.{n}.{kind}": getattr(side, kind) for kind in ("codes", "scales", "zeros")}
    data = safetensors.torch.save(entries)
    assert 85 < int.from_bytes(data[:8], "little") / len(entries) < 125


def test_zeros_come_from_the_format_and_lie_outside_of_matrices(models, delta):
    base, expert = models
    zeros = lambda a, b: sum(((a[name] - b[name]) == 0).sum().item() for name in a)
    coarse = [{name: x.bfloat16().float() for name, x in state.items()} for state in (expert, base)]
    assert zeros(*coarse) > 5 * zeros(expert, base)
    assert sum(len(p.left.zeros) + len(p.right.zeros) for p in delta.parts.values() if isinstance(p, LowRank)) <= 10
    assert sum(len(p.coded.zeros) for p in delta.parts.values() if isinstance(p, Flat)) > 0
    assert figures.delta_bytes(delta)["zeros"] < 0.03 * storage(delta).file
