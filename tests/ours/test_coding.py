"""Entropy coding: exact, and close to the entropy of what is coded."""

import tracemalloc
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dts_mini.core.errors import DTSError
from dts_mini.ours import coding
from dts_mini.ours.coding import PEAK, Decoder, Encoder, code_bits


def coded(*blocks):
    encoder = Encoder()
    for block in blocks:
        encoder.add(block)
    return encoder.finish()


def rows(scale: float, shape=(20, 500), seed: int = 0, gaussian: bool = True) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=generator)
    if not gaussian:
        x = x.sign() * torch.empty(shape).exponential_(generator=generator)
    return (scale * x).round().clamp(-PEAK, PEAK).to(torch.int16)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.lists(st.integers(-300, 300), min_size=4, max_size=4).map(lambda row: torch.tensor([row])),
        min_size=1,
        max_size=6,
    )
)
def test_rows_come_back_exactly_in_their_order(blocks):
    blocks = [block.to(torch.int16) for block in blocks]
    decoder = Decoder(coded(*blocks), len(blocks))
    assert all(torch.equal(decoder.take(1, 4), block) for block in blocks)


@pytest.mark.parametrize("scale", [0.0, 0.1, 1, 30, 3_000, 9_000])
def test_blocks_of_different_shapes_and_scales_come_back(scale):
    blocks = [rows(scale, (3, 40)), rows(0.4, (1, 1)), rows(1.0, (5, 7))]
    decoder = Decoder(coded(*blocks), 9)
    assert all(torch.equal(decoder.take(*block.shape), block) for block in blocks)


def test_a_row_of_nothing_comes_back_among_others():
    blocks = [rows(1.0, (1, 0)), rows(1.0, (2, 7)), rows(1.0, (1, 0))]
    for some in (blocks, blocks[:1]):
        decoder = Decoder(coded(*some), sum(map(len, some)))
        assert all(torch.equal(decoder.take(*block.shape), block) for block in some)
        decoder.close()


def test_the_largest_integers_of_either_sign_are_coded():
    block = torch.tensor([[PEAK, -PEAK, 0, 1]], dtype=torch.int16)
    assert torch.equal(Decoder(coded(block), 1).take(1, 4), block)


@pytest.mark.parametrize("gaussian", [True, False], ids=["Gaussian", "Laplace"])
@pytest.mark.parametrize("scale", [0.3, 0.6, 1, 2, 5, 30, 300])
def test_a_row_takes_at_most_three_percent_and_a_few_hundredths_of_a_bit_above_its_entropy(scale, gaussian):
    block = rows(scale, (20, 2_000), gaussian=gaussian)
    _, counts = block.unique(return_counts=True)
    share = counts / counts.sum()
    entropy = -(share * share.log2()).sum().item()
    taken = 8 * len(coded(block)) / block.numel()
    assert entropy <= taken <= 1.03 * entropy + 0.04


@pytest.mark.parametrize("scale", [0.0, 0.5, 4, 100])
def test_the_bits_foretold_are_the_bits_taken_within_the_header_and_a_word(scale):
    block = rows(scale, (8, 300))
    foretold = code_bits(block, int(block.abs().max()))
    assert abs(8 * len(coded(block)) - foretold) <= 16 + 64 + 0.001 * foretold


def test_the_same_rows_give_the_same_bytes():
    assert torch.equal(coded(rows(2)), coded(rows(2)))


def test_no_rows_take_no_bits():
    assert code_bits(torch.empty(0, 5, dtype=torch.int16), 0) == 0


def test_an_integer_beyond_the_peak_is_refused_with_the_mend():
    with pytest.raises(DTSError, match="larger step"):
        code_bits(torch.zeros(1, 4, dtype=torch.int16), PEAK + 1)


@pytest.mark.parametrize("peak", [1, 7, 500, PEAK])
def test_every_model_is_a_probability_and_no_integer_is_likelier_than_the_likeliest_zero(peak):
    for model in range(256):
        half = coding._half(model, peak)
        assert half.shape == (peak + 1,)
        assert half.min() > 0
        assert abs(half[0] + 2 * half[1:].sum() - 1) < 1e-9
        assert half.max() <= max(coding._ZERO)


def test_of_the_tables_that_large_peaks_take_one_is_kept():
    """A file says its peak: whoever writes many must not gather 64 MiB for each."""
    held = [weakref.ref(coding._costs(peak)) for peak in (9_000, 9_001, 9_002)]
    assert [ref() is not None for ref in held] == [False, False, True]
    assert coding._costs(100) is coding._costs(100)


def test_a_few_rows_of_the_largest_integers_are_read_in_little_memory(monkeypatch):
    """A file says its peak, and may be a thousand bytes long: reading makes the models that its rows name, no others."""
    few = coded(rows(9_000, (3, 20)), torch.tensor([[PEAK] * 20], dtype=torch.int16))
    for cached in ("_model", "_costs"):  # as if it came from elsewhere
        monkeypatch.setattr(coding, cached, getattr(coding, cached).__wrapped__)
    tracemalloc.start()
    Decoder(few, 4).take(4, 20)
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert taken < 2**24
