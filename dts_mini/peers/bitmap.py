"""Which elements of a tensor are meant: bits, coded at about their entropy, n H(k / n) for k of n."""

import math

import constriction
import numpy as np
import torch
from torch import Tensor

from dts_mini.core.parts import Reader, Writer


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
    words = reader.take("bits", length)
    if not 0 < count < n:
        return torch.full((n,), count > 0)
    coder = constriction.stream.queue.RangeDecoder(words.numpy().view("<u4").astype(np.uint32))
    return torch.from_numpy(coder.decode(_model(count, n), n)).bool()


def entropy(bits: Tensor) -> int:
    """The least bits that n independent bits with these odds take."""
    n, count = len(bits), int(bits.sum())
    if not 0 < count < n:
        return 0
    return math.ceil(sum(-k * math.log2(k / n) for k in (count, n - count)))


def _model(count: int, n: int) -> constriction.stream.model.Bernoulli:
    return constriction.stream.model.Bernoulli(count / n, perfect=False)
