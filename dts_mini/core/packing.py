"""Bits: group codes packed without a gap, the lowest bits of the first byte first."""

import numpy as np
import torch
from torch import Tensor


def pack(codes: Tensor, bits: int) -> Tensor:
    """Codes (any shape, uint8 below 2**bits) as a byte string: uint8, ceil(numel * bits / 8) long."""
    flat = codes.reshape(-1).cpu().numpy()
    spread = (flat[:, None] >> np.arange(bits, dtype=np.uint8)) & 1
    return torch.from_numpy(np.packbits(spread, bitorder="little"))


def unpack(packed: Tensor, count: int, bits: int) -> Tensor:
    """The first ``count`` codes (uint8) of a byte string made by ``pack``."""
    data = packed.cpu().numpy()
    if 8 % bits == 0:  # whole codes in a byte: shift them out, which is several times faster
        shifts = np.arange(0, 8, bits, dtype=np.uint8)
        codes = ((data[:, None] >> shifts) & np.uint8(2**bits - 1)).reshape(-1)[:count]
    else:
        spread = np.unpackbits(data, count=count * bits, bitorder="little").reshape(count, bits)
        codes = spread @ (1 << np.arange(bits, dtype=np.uint8))
    return torch.from_numpy(np.ascontiguousarray(codes))
