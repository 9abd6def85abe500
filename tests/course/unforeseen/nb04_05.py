"""Answers to the exercises of notebooks 04 and 05."""

import math

import numpy as np
import torch
from torch.nn.functional import pad

from unforeseen import right, wrong
from unforeseen.nb02 import decompose
from unforeseen.nb03 import threshold

# --- 04: group_value ---

right("group_value", "by the norm", lambda x: x.norm() / len(x) ** 0.5 * x[0].sign())
right("group_value", "numpy", lambda x: np.sign(x.numpy().mean()) * np.sqrt(np.mean(x.numpy() ** 2)))


@right("group_value", "a float of Python")
def _(x):
    total = sum(float(v) ** 2 for v in x)
    rms = math.sqrt(total / len(x))
    return rms if x[0] > 0 else -rms


wrong("group_value", "the mean", lambda x: x.mean(), hint="My value is too small in size")
wrong("group_value", "no sign", lambda x: x.square().mean().sqrt(), hint="My value is positive")
wrong("group_value", "a sign for each", lambda x: x.sign() * x.square().mean().sqrt())
wrong("group_value", "not divided", lambda x: x.norm() * x[0].sign(), hint="My value grows with the size of the group")
wrong("group_value", "divided by n", lambda x: x.norm() / len(x) * x[0].sign())
wrong(
    "group_value",
    "no root",
    lambda x: x.square().mean() * x[0].sign(),
    hint="My value is the square of what is expected",
)
wrong("group_value", "the standard deviation", lambda x: x.std(unbiased=False) * x.mean().sign())

# --- 04: scale ---


@right("scale", "code by code")
def scale(x, codes):
    values = torch.zeros(5)
    for code in range(4):
        group = x[codes == code]
        if len(group):
            values[code] = group.square().mean().sqrt() * (1 if code > 1 else -1)
    return values


@right("scale", "counted")
def _(x, codes):
    c = codes.flatten().long()
    squares = torch.bincount(c, weights=x.flatten().double() ** 2, minlength=5)
    rms = (squares / torch.bincount(c, minlength=5).clamp(min=1)).sqrt()
    return (rms * torch.tensor([-1, -1, 1, 1, 0])).to(x.dtype)


@right("scale", "numpy, signs from the sums")
def _(x, codes):
    x, codes, out = x.numpy(), codes.numpy(), []
    for code in range(5):
        group = x[codes == code]
        out.append(np.sign(group.sum()) * np.sqrt((group**2).sum() / max(group.size, 1)))
    return torch.tensor(np.array(out))


@wrong("scale", "an empty group", hint="An empty group's value is nan")
def _(x, codes):
    values = [x[codes == c].square().mean().sqrt() * s for c, s in enumerate((-1, -1, 1, 1))]
    return torch.stack([*values, torch.tensor(0.0)])


@wrong("scale", "the sign of the first element of no element", hint="I get an IndexError")
def _(x, codes):
    return torch.tensor([(x[codes == c].sign()[0] * x[codes == c].square().mean().sqrt()).item() for c in range(5)])


@wrong("scale", "four values", hint="I have four values")
def _(x, codes):
    return scale(x, codes)[:4]


@wrong("scale", "means", hint="My values are too small in size")
def _(x, codes):
    return torch.stack([x[codes == c].sum() / max(1, (codes == c).sum()) for c in range(5)])


@wrong("scale", "no signs", hint="My negative groups have positive values")
def _(x, codes):
    return scale(x, codes).abs()


@wrong("scale", "the wrong code is negative")
def _(x, codes):
    return scale(x, codes).abs() * torch.tensor([-1, 1, -1, 1, 0])


@wrong("scale", "divided by all elements", hint="My groups count as many elements as x has")
def _(x, codes):
    signs = (-1, -1, 1, 1, 0)
    return torch.stack([s * (x * (codes == c)).square().mean().sqrt() for c, s in enumerate(signs)])


wrong(
    "scale",
    "the coarse tensor itself",
    lambda x, codes: scale(x, codes)[codes.long()],
    hint="I have a value for each element",
)

# --- 04: dts ---


@right("dts", "the formula")
def dts(x, keep_ratio=0.1):
    if x.dim() != 2:
        codes = threshold(x)
        return scale(x, codes)[codes]
    U, s, Vt = decompose(x, keep_ratio)
    u, v = threshold(U), threshold(Vt)
    return scale(U, u)[u] @ torch.diag(s) @ scale(Vt, v)[v]


@right("dts", "component by component")
def _(x, keep_ratio=0.1):
    def coarse(part):
        codes = threshold(part).long()
        return scale(part, codes).to(part.dtype)[codes]

    if len(x.shape) == 2:
        U, s, Vt = decompose(x, keep_ratio)
        U, Vt = coarse(U), coarse(Vt)
        return sum(s[i] * torch.outer(U[:, i], Vt[i]) for i in range(len(s)))
    return coarse(x.reshape(-1)).reshape(x.shape)


def _coarse(x):
    codes = threshold(x)
    return scale(x, codes)[codes]


@wrong("dts", "no vector is decomposed, any other tensor is")
def _(x, keep_ratio=0.1):
    if x.dim() < 2:
        return _coarse(x)
    U, s, Vt = decompose(x.reshape(len(x), -1), keep_ratio)
    return (_coarse(U) * s @ _coarse(Vt)).reshape(x.shape)


@wrong("dts", "the singular values are forgotten", hint="My matrix has the wrong length")
def _(x, keep_ratio=0.1):
    if x.dim() != 2:
        return _coarse(x)
    U, _, Vt = decompose(x, keep_ratio)
    return _coarse(U) @ _coarse(Vt)


@wrong("dts", "one set of values for both factors")
def _(x, keep_ratio=0.1):
    if x.dim() != 2:
        return _coarse(x)
    U, s, Vt = decompose(x, keep_ratio)
    u, v = threshold(U), threshold(Vt)
    values = scale(U, u)
    return values[u] * s @ values[v]


@wrong("dts", "the keep ratio is ignored", hint="The keep ratio changes nothing")
def _(x, keep_ratio=0.1):
    return dts(x)


@wrong("dts", "matrices are not decomposed", hint="I decompose nothing")
def _(x, keep_ratio=0.1):
    return _coarse(x)


@wrong("dts", "other tensors stay", hint="My biases come back exact")
def _(x, keep_ratio=0.1):
    return dts(x, keep_ratio) if x.dim() == 2 else x


@wrong("dts", "the singular values become coarse, too", hint="My singular values have become coarse")
def _(x, keep_ratio=0.1):
    if x.dim() != 2:
        return _coarse(x)
    U, s, Vt = decompose(x, keep_ratio)
    return _coarse(U) * _coarse(s) @ _coarse(Vt)


@wrong("dts", "the product is coarse, not the factors", hint="My matrix holds four values alone")
def _(x, keep_ratio=0.1):
    if x.dim() != 2:
        return _coarse(x)
    U, s, Vt = decompose(x, keep_ratio)
    return _coarse(U * s @ Vt)


@wrong("dts", "columns multiplied as rows")
def _(x, keep_ratio=0.1):
    if x.dim() != 2:
        return _coarse(x)
    U, s, Vt = decompose(x, keep_ratio)
    return _coarse(U) @ (_coarse(Vt) * s)


# --- 04: best_value ---

right("best_value", "a dot product", lambda x, weight: torch.dot(weight, x) / weight.sum())
right("best_value", "numpy", lambda x, weight: np.average(x.numpy(), weights=weight.numpy()))


@right("best_value", "in a loop, with a guard")
def _(x, weight):
    top = bottom = 0.0
    for value, each in zip(x.tolist(), weight.tolist(), strict=True):
        top += value * each
        bottom += each
    return top / bottom if bottom else 0.0


@right("best_value", "least squares")
def _(x, weight):
    root = weight.double().sqrt()[:, None]
    return torch.linalg.lstsq(root, root * x.double()[:, None]).solution[0, 0]


wrong("best_value", "the mean", lambda x, weight: x.mean(), hint="My value ignores the weights")
wrong(
    "best_value",
    "the mean of the products",
    lambda x, weight: (weight * x).mean(),
    hint="My value changes when all weights double",
)
wrong(
    "best_value",
    "weights squared",
    lambda x, weight: (weight**2 * x).sum() / (weight**2).sum(),
    hint="Heavy elements pull my value too far",
)
wrong(
    "best_value",
    "weighted length",
    lambda x, w: ((w * x**2).sum() / w.sum()).sqrt() * x.sum().sign(),
    hint="My value is too large in size",
)
wrong("best_value", "only the products are summed", lambda x, weight: (weight * x).sum())
wrong("best_value", "roots of the weights", lambda x, weight: (weight.sqrt() * x).sum() / weight.sqrt().sum())
wrong("best_value", "the heaviest element", lambda x, weight: x[weight.argmax()])

# --- 05: information_bits ---

right("information_bits", "term by term", lambda m, n, r: m * r * 2 + n * r * 2 + r * 32 + 4 * 32 + 4 * 32)
right("information_bits", "a number of numpy", lambda m, n, r: np.int64(2 * r * (m + n) + 32 * r + 256))
right("information_bits", "summed by component", lambda m, n, r: sum(2 * m + 2 * n + 32 for _ in range(r)) + 8 * 32)
wrong("information_bits", "four scales", lambda m, n, r: 2 * r * (m + n) + 32 * r + 4 * 32, hint="I am 128 bits short")
wrong("information_bits", "no scales", lambda m, n, r: 2 * r * (m + n) + 32 * r, hint="I am a few hundred bits short")
wrong("information_bits", "ten scales", lambda m, n, r: 2 * r * (m + n) + 32 * r + 10 * 32)
wrong("information_bits", "bytes", lambda m, n, r: (2 * r * (m + n) + 32 * r + 256) // 8)
wrong("information_bits", "three bits", lambda m, n, r: 3 * r * (m + n) + 32 * r + 256, hint="I am about half above")
wrong("information_bits", "the matrix's own elements", lambda m, n, r: 2 * m * n + 32 * r + 256, hint="I am far above")
wrong("information_bits", "scales of every component", lambda m, n, r: 2 * r * (m + n) + 32 * r + 256 * r)
wrong("information_bits", "the factors multiplied", lambda m, n, r: 2 * (m * r * n) + 32 * r + 256)

# --- 05: pack ---


@right("pack", "filled up and added")
def pack(codes):
    fill = -len(codes) % 4
    rows = torch.cat([codes.long(), torch.zeros(fill, dtype=torch.long)]).view(-1, 4)
    return (rows * torch.tensor([1, 4, 16, 64])).sum(1).to(torch.uint8)


@right("pack", "byte by byte")
def _(codes):
    out = []
    for i in range(0, len(codes), 4):
        byte = 0
        for k, code in enumerate(codes[i : i + 4].tolist()):
            byte |= code << (2 * k)
        out.append(byte)
    return torch.tensor(out, dtype=torch.uint8)


@right("pack", "shifted columns")
def _(codes):
    c = pad(codes.to(torch.uint8), (0, (4 - len(codes) % 4) % 4)).reshape(-1, 4)
    return c[:, 0] | c[:, 1] << 2 | c[:, 2] << 4 | c[:, 3] << 6


@right("pack", "bits of numpy")
def _(codes):
    c = codes.numpy().astype(np.uint8)
    bits = np.stack([c & 1, c >> 1], axis=1).ravel()
    return torch.from_numpy(np.packbits(bits, bitorder="little"))


@wrong("pack", "the first code highest", hint="My codes stand in a byte the other way round")
def _(codes):
    rows = pad(codes.long(), (0, -len(codes) % 4)).view(-1, 4)
    return (rows * torch.tensor([64, 16, 4, 1])).sum(1).to(torch.uint8)


@wrong("pack", "always filled up")
def _(codes):
    rows = pad(codes.long(), (0, 4 - len(codes) % 4)).view(-1, 4)
    return (rows * torch.tensor([1, 4, 16, 64])).sum(1).to(torch.uint8)


@wrong("pack", "the rest is dropped", hint="I lose the last codes")
def _(codes):
    rows = codes[: len(codes) // 4 * 4].long().view(-1, 4)
    return (rows * torch.tensor([1, 4, 16, 64])).sum(1).to(torch.uint8)


@wrong("pack", "filled up in front")
def _(codes):
    return pack(pad(codes, (-len(codes) % 4, 0)))


wrong("pack", "no bytes", lambda codes: pack(codes).long(), hint="My bytes are not bytes")
wrong("pack", "a list", lambda codes: pack(codes).tolist())


@wrong("pack", "powers of two", hint="My codes run into each other")
def _(codes):
    rows = pad(codes.long(), (0, -len(codes) % 4)).view(-1, 4)
    return (rows * torch.tensor([1, 2, 4, 8])).sum(1).to(torch.uint8)


@wrong("pack", "needs a multiple of four")
def _(codes):
    return (codes.long().view(-1, 4) * torch.tensor([1, 4, 16, 64])).sum(1).to(torch.uint8)


@wrong("pack", "columns, not rows", hint="My byte holds codes from all over the row")
def _(codes):
    rows = pad(codes.long(), (0, -len(codes) % 4)).view(4, -1)
    return (rows * torch.tensor([[1], [4], [16], [64]])).sum(0).to(torch.uint8)


# --- 05: unpack ---


@right("unpack", "shifted")
def unpack(packed, count):
    return (packed.long()[:, None] >> torch.tensor([0, 2, 4, 6]) & 3).flatten()[:count]


@right("unpack", "code by code")
def _(packed, count):
    return torch.tensor([packed[i // 4].item() // 4 ** (i % 4) % 4 for i in range(count)], dtype=torch.uint8)


@right("unpack", "numpy")
def _(packed, count):
    bits = np.unpackbits(packed.numpy(), bitorder="little").reshape(-1, 2)
    return torch.from_numpy((bits[:, 0] + 2 * bits[:, 1])[:count])


@right("unpack", "columns, a remainder each")
def _(packed, count):
    left, columns = packed.clone(), []
    for _ in range(4):
        columns.append(left % 4)
        left = left // 4
    return torch.stack(columns, dim=1).reshape(-1)[:count]


wrong(
    "unpack",
    "the highest first",
    lambda b, n: (b.long()[:, None] >> torch.tensor([6, 4, 2, 0]) & 3).flatten()[:n],
    hint="My codes come in fours the other way round",
)
wrong("unpack", "not cut off", lambda b, n: unpack(b, 4 * len(b)), hint="I have more codes than there were")
wrong("unpack", "cut off in front", lambda b, n: unpack(b, 4 * len(b))[-n:])
wrong(
    "unpack",
    "first codes first",
    lambda b, n: torch.cat([b.long() >> k & 3 for k in (0, 2, 4, 6)])[:n],
    hint="Every fourth code is the first of a byte, mine come in heaps",
)
wrong(
    "unpack",
    "not masked",
    lambda b, n: (b.long()[:, None] >> torch.tensor([0, 2, 4, 6])).flatten()[:n],
    hint="My codes are larger than 3",
)
wrong("unpack", "rows of four", lambda b, n: unpack(b, 4 * len(b)).view(-1, 4)[:n])
wrong("unpack", "true division", lambda b, n: (b[:, None] / torch.tensor([1, 4, 16, 64]) % 4).flatten()[:n])


@wrong("unpack", "eats the bytes")
def _(packed, count):
    columns = []
    for _ in range(4):
        columns.append(packed & 3)
        packed >>= 2
    return torch.stack(columns, 1).flatten()[:count]


# --- 05: rank_within_bits ---


@right("rank_within_bits", "counting up")
def _(m, n, bits):
    r = 0
    while r < min(m, n) and 2 * (r + 1) * (m + n) + 32 * (r + 1) + 256 <= bits:
        r += 1
    return r


@right("rank_within_bits", "divided and clipped, numpy")
def _(m, n, bits):
    return np.clip((bits - 256) // (2 * (m + n) + 32), 0, min(m, n))


@right("rank_within_bits", "the last that fits")
def _(m, n, bits):
    fits = [r for r in range(1, min(m, n) + 1) if r * (2 * m + 2 * n + 32) + 8 * 32 <= bits]
    return fits[-1] if fits else 0


def _fit(m, n, bits, scales=256, value=32):
    return (bits - scales) // (2 * (m + n) + value)


wrong(
    "rank_within_bits",
    "more than the matrix has",
    lambda m, n, bits: max(0, _fit(m, n, bits)),
    hint="My rank is larger than the matrix has components",
)
wrong("rank_within_bits", "below zero", lambda m, n, bits: min(_fit(m, n, bits), m, n), hint="My rank is negative")
wrong(
    "rank_within_bits",
    "no scales",
    lambda m, n, bits: max(0, min(_fit(m, n, bits, scales=0), m, n)),
    hint="My rank fits only without the scales",
)
wrong("rank_within_bits", "no singular values", lambda m, n, bits: max(0, min(_fit(m, n, bits, value=0), m, n)))
wrong(
    "rank_within_bits",
    "at least one",
    lambda m, n, bits: max(1, min(_fit(m, n, bits), m, n)),
    hint="My rank is 1 where nothing fits",
)
wrong("rank_within_bits", "up to the longer side", lambda m, n, bits: max(0, min(_fit(m, n, bits), max(m, n))))
wrong("rank_within_bits", "rounded", lambda m, n, b: max(0, min(round((b - 256) / (2 * (m + n) + 32)), m, n)))


@wrong("rank_within_bits", "an exact fit is no fit")
def _(m, n, bits):
    r = 0
    while r < min(m, n) and 2 * (r + 1) * (m + n) + 32 * (r + 1) + 256 < bits:
        r += 1
    return r


@wrong("rank_within_bits", "the first that does not fit")
def _(m, n, bits):
    r = 0
    while r <= min(m, n) and 2 * r * (m + n) + 32 * r + 256 <= bits:
        r += 1
    return r
