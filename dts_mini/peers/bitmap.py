"""Which elements of a tensor are meant: bits, coded at about their entropy, n H(k / n) for k of n."""

import math

import constriction
import numpy as np
import torch
from torch import Tensor

from dts_mini.core.parts import Reader, Writer

_BLOCK = 2**20  # bits that are decoded at once


def write_bits(bits: Tensor, writer: Writer) -> list[int]:
    """Adds bits (n, bool) to a file; returns what reading needs beside n: how many are set, and bytes."""
    count, coder = int(bits.sum()), constriction.stream.queue.RangeEncoder()
    if 0 < count < len(bits):
        coder.encode(bits.numpy().astype(np.int32), _model(count, len(bits)))
    words = torch.from_numpy(coder.get_compressed().astype("<u4").view(np.uint8))
    writer.add("bits", words)
    return [count, len(words)]


def read_bits(reader: Reader, n: int, count: int, length: int) -> Tensor:
    """The bits (n, bool) that ``write_bits`` added."""
    words, bits = reader.take("bits", length), torch.zeros(reader.room(n), dtype=torch.bool, device="cpu")
    if count > n or length % 4 or (length and count in (0, n)):
        raise reader.fault(f"has {count:,} of {n:,} bits in {length:,} bytes")
    if count in (0, n):
        return bits | (count > 0)
    words = words.numpy().view("<u4").astype(np.uint32)
    coder, again = constriction.stream.queue.RangeDecoder(words), constriction.stream.queue.RangeEncoder()
    model, held = _model(count, n), bits.numpy()
    try:
        for start in range(0, n, _BLOCK):
            block = coder.decode(model, min(_BLOCK, n - start))
            again.encode(block, model)
            held[start : start + _BLOCK] = block
    except AssertionError as error:  # so the coder says that these words are none of its own
        raise reader.fault("has words that are no code") from error
    if not np.array_equal(again.get_compressed(), words) or int(bits.sum()) != count:
        raise reader.fault(f"has other bits than {count:,} of {n:,}, or more")
    return bits


def entropy(bits: Tensor) -> int:
    """The least bits that n independent bits with these odds take."""
    n, count = len(bits), int(bits.sum())
    if not 0 < count < n:
        return 0
    return math.ceil(sum(-k * math.log2(k / n) for k in (count, n - count)))


def _model(count: int, n: int) -> constriction.stream.model.Bernoulli:
    return constriction.stream.model.Bernoulli(count / n, perfect=False)
