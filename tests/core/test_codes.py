"""Codes packed to 1, 2 or 3 bits."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dts_mini.core.codes import lloyd_max, pack, read_places, threshold, unpack, write_places
from dts_mini.core.parts import Reader, Writer


@given(st.data())
def test_unpacking_returns_the_packed_codes_for_any_bits_and_length(data):
    bits = data.draw(st.sampled_from([1, 2, 3]))
    values = data.draw(st.lists(st.integers(0, 2**bits - 1), min_size=1, max_size=70))
    codes = torch.tensor(values, dtype=torch.uint8)
    packed = pack(codes, bits)
    assert packed.dtype == torch.uint8
    assert len(packed) == -(-len(codes) * bits // 8), "no more bytes than the bits need"
    found = unpack(packed, len(codes), bits)
    assert found.dtype == torch.uint8
    assert torch.equal(found, codes)


@pytest.mark.parametrize(
    ("bits", "codes", "packed"),
    [
        (1, [1, 0, 0, 0, 0, 0, 0, 0, 1], [0b00000001, 0b00000001]),
        (2, [3, 0, 1, 2, 2], [0b10_01_00_11, 0b10]),
        (3, [7, 0, 5], [0b01_000_111, 0b1]),  # 5 = 0b101 lies across two bytes
    ],
)
def test_the_first_code_lies_in_the_lowest_bits_of_the_first_byte(bits, codes, packed):
    assert pack(torch.tensor(codes, dtype=torch.uint8), bits).tolist() == packed


@pytest.mark.parametrize("bits", [1, 2, 3])
def test_codes_of_any_shape_are_packed_row_by_row(bits):
    codes = torch.randint(0, 2**bits, (5, 7), generator=torch.Generator().manual_seed(bits), dtype=torch.uint8)
    assert torch.equal(pack(codes, bits), pack(codes.reshape(-1), bits))
    assert torch.equal(pack(codes.T, bits), pack(codes.T.contiguous().reshape(-1), bits))


@pytest.mark.parametrize("bits", [1, 2, 3])
def test_the_bits_that_fill_the_last_byte_are_zero(bits):
    last = pack(torch.full((11,), 2**bits - 1, dtype=torch.uint8), bits)[-1].item()
    assert last == 2 ** ((11 * bits - 1) % 8 + 1) - 1


@given(st.data())
def test_places_are_written_the_shorter_way_and_read_back(data):
    n = data.draw(st.integers(1, 6_000))
    count = data.draw(
        st.sampled_from(sorted({0, 1, n // 33, n // 32, n // 31, n // 32 + 1, n // 2, n} & set(range(n + 1))))
    )
    places = torch.randperm(n)[:count].sort().values.int()
    writer = Writer()
    assert write_places(writer, places, n) == count
    tensors = writer.tensors()
    assert sum(tensor.nbytes for tensor in tensors.values()) == min(4 * count, -(-n // 8)) or 32 * count == n
    assert torch.equal(read_places(Reader(tensors, {}, 0), count, n), places)


def test_an_element_on_the_border_of_two_levels_goes_to_the_lower_one():
    x = torch.tensor([[-3.0, 1.0, 9.0]])  # by sign the means are -3 and 5, and their border is 1
    codes, values = lloyd_max(x, threshold(x, 2), 2)
    assert codes.tolist() == [[0, 0, 1]]
    assert values.tolist() == [[-1.0, 9.0]]
