"""Bits: group codes packed without a gap, the lowest bits of the first byte first."""

import numpy as np
import torch
from torch import Tensor


def pack(codes: Tensor, bits: int) -> Tensor:
    """Codes (any shape, uint8 below 2**bits) as a byte string: uint8, ceil(numel * bits / 8) long."""
    flat = codes.reshape(-1).cpu().numpy()
    if bits == 2:  # four codes a byte: shift each into its place, ten times faster than through single bits
        packed = np.zeros(-(-len(flat) // 4), dtype=np.uint8)
        for place in range(4):
            part = flat[place::4]
            packed[: len(part)] |= part << np.uint8(2 * place)
        return torch.from_numpy(packed)
    spread = (flat[:, None] >> np.arange(bits, dtype=np.uint8)) & 1
    return torch.from_numpy(np.packbits(spread, bitorder="little"))


def unpack(packed: Tensor, count: int, bits: int) -> Tensor:
    """The first ``count`` codes (uint8) of a byte string made by ``pack``."""
    data = packed.cpu().numpy()
    if 8 % bits == 0:  # whole codes in a byte: look up what each of the 256 holds, several times faster
        shifts = np.arange(0, 8, bits, dtype=np.uint8)
        table = (np.arange(256, dtype=np.uint8)[:, None] >> shifts) & np.uint8(2**bits - 1)
        codes = np.take(table, data, axis=0).reshape(-1)[:count]
    else:
        spread = np.unpackbits(data, count=count * bits, bitorder="little").reshape(count, bits)
        codes = spread @ (1 << np.arange(bits, dtype=np.uint8))
    return torch.from_numpy(np.ascontiguousarray(codes))
