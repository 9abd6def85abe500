"""Answers to the exercises of notebook 06; they run on the pieces of the notebooks before."""

import math

import torch

from unforeseen import right, wrong
from unforeseen.nb02 import decompose
from unforeseen.nb03 import threshold
from unforeseen.nb04_05 import pack, scale, unpack

# --- compressed ---


@right("compressed", "rows that grow")
def compressed(base, expert, keep_ratio):
    codes, values, ranks = torch.empty(0, dtype=torch.long), torch.empty(0), []
    for name in sorted(expert):
        x = expert[name] - base[name]
        parts = [x]
        if x.dim() == 2:
            U, s, Vt = decompose(x, keep_ratio)
            ranks.append(len(s))
            values = torch.cat([values, s])
            parts = [U, Vt]
        for part in parts:
            c = threshold(part)
            codes = torch.cat([codes, c.flatten()])
            values = torch.cat([values, scale(part, c)[:4]])
    zeros = (codes == 4).nonzero().flatten()
    codes[zeros] = 0
    return {
        "codes": pack(codes),
        "values": values,
        "zeros": zeros.to(torch.int32),
        "ranks": torch.tensor(ranks, dtype=torch.int32),
    }


@right("compressed", "lists of Python")
def _(base, expert, keep_ratio):
    row, values, zeros, ranks = [], [], [], []

    def add(part):
        c = threshold(part)
        for code in c.flatten().tolist():
            if code == 4:
                zeros.append(len(row))
            row.append(code % 4)
        values.extend(scale(part, c).tolist()[:-1])

    for name, start in sorted(base.items(), key=lambda item: item[0]):
        x = expert[name] - start
        if len(x.shape) != 2:
            add(x)
            continue
        U, s, Vt = decompose(x, keep_ratio)
        values.extend(s.tolist())
        ranks.append(s.numel())
        add(U)
        # the values of U come before those of V^T, and so do the codes
        add(Vt)
    return {
        "ranks": torch.IntTensor(ranks),
        "zeros": torch.IntTensor(zeros),
        "values": torch.FloatTensor(values),
        "codes": pack(torch.LongTensor(row)),
    }


def _file(base, expert, keep_ratio, names=sorted, flip=False, offset=True, separately=False, last=4, after=False):
    """``compressed``, with one thing done otherwise."""
    codes, values, zeros, ranks, count = [], [], [], [], 0
    for name in names(expert):
        x = expert[name] - base[name]
        parts, s = [x], torch.empty(0)
        if x.dim() == 2:
            U, s, Vt = decompose(x, keep_ratio)
            ranks.append(len(s))
            parts = [U.T if flip else U, Vt]
        scales = []
        for part in parts:
            c = threshold(part)
            scales.append(scale(part, c)[:last])
            c = c.flatten()
            zeros.append((c == 4).nonzero().flatten() + (count if offset else 0))
            codes.append(torch.where(c == 4, 0, c))
            count += len(c)
        values += [*scales, s] if after else [s, *scales]
    packed = torch.cat([pack(c) for c in codes]) if separately else pack(torch.cat(codes))
    return {
        "codes": packed,
        "values": torch.cat(values),
        "zeros": torch.cat(zeros).int(),
        "ranks": torch.tensor(ranks, dtype=torch.int32),
    }


right("compressed", "a list of parts", _file)
wrong(
    "compressed",
    "in the order of the dict",
    lambda b, e, k: _file(b, e, k, names=list),
    hint="My tensors come in another order",
)
wrong("compressed", "in reverse order", lambda b, e, k: _file(b, e, k, names=lambda e: sorted(e, reverse=True)))
wrong("compressed", "U column by column", lambda b, e, k: _file(b, e, k, flip=True))
wrong("compressed", "places of zeros in each part", lambda b, e, k: _file(b, e, k, offset=False))
wrong("compressed", "every part fills its bytes up", lambda b, e, k: _file(b, e, k, separately=True))
wrong("compressed", "five values", lambda b, e, k: _file(b, e, k, last=5), hint="I have five values for a tensor")
wrong(
    "compressed",
    "s behind its scales",
    lambda b, e, k: _file(b, e, k, after=True),
    hint="My singular values stand behind the scales",
)
wrong("compressed", "base less expert", lambda b, e, k: _file(e, b, k))
wrong(
    "compressed",
    "the expert itself",
    lambda b, e, k: _file({n: 0 * x for n, x in b.items()}, e, k),
    hint="I compress the expert itself",
)
wrong("compressed", "the keep ratio of the course", lambda b, e, k: _file(b, e, 0.1))


@wrong("compressed", "zeros are left out of the file", hint="My zeros are lost")
def _(base, expert, keep_ratio):
    return compressed(base, expert, keep_ratio) | {"zeros": torch.empty(0, dtype=torch.int32)}


@wrong("compressed", "ranks of all tensors")
def _(base, expert, keep_ratio):
    file = compressed(base, expert, keep_ratio)
    ranks = iter(file["ranks"].tolist())
    every = [next(ranks) if expert[name].dim() == 2 else 0 for name in sorted(expert)]
    return file | {"ranks": torch.tensor(every, dtype=torch.int32)}


@wrong("compressed", "places of 64 bits")
def _(base, expert, keep_ratio):
    file = compressed(base, expert, keep_ratio)
    return {name: row.long() if name in ("zeros", "ranks") else row for name, row in file.items()}


@wrong("compressed", "4s and all into two bits", hint="I pack the code 4")
def _(base, expert, keep_ratio):
    codes, values, ranks = [], [], []
    for name in sorted(base):
        x = expert[name] - base[name]
        parts = [x]
        if x.dim() == 2:
            U, s, Vt = decompose(x, keep_ratio)
            ranks, values, parts = [*ranks, len(s)], [*values, s], [U, Vt]
        for part in parts:
            codes.append(threshold(part).flatten())
            values.append(scale(part, threshold(part))[:4])
    row = torch.cat(codes)
    zeros, ranks = (row == 4).nonzero().flatten().int(), torch.tensor(ranks, dtype=torch.int32)
    return {"codes": pack(row), "values": torch.cat(values), "zeros": zeros, "ranks": ranks}


# --- rebuilt ---


@right("rebuilt", "fronts cut off")
def rebuilt(base, file):
    codes = unpack(file["codes"], 4 * len(file["codes"])).long()
    codes[file["zeros"].long()] = 4
    values, ranks = file["values"], file["ranks"].tolist()
    out = {}
    for name in sorted(base):
        x = base[name]
        r = ranks.pop(0) if x.dim() == 2 else 0
        shapes = [(x.shape[0], r), (r, x.shape[1])] if r else [x.shape]
        s, values = values[:r], values[r:]
        parts = []
        for shape in shapes:
            count = math.prod(shape)
            five = torch.cat([values[:4], torch.zeros(1)])
            parts.append(five[codes[:count]].reshape(shape))
            codes, values = codes[count:], values[4:]
        out[name] = x + (parts[0] * s @ parts[1] if r else parts[0])
    return out


@right("rebuilt", "with positions")
def _(base, file):
    total, at, v, k = 0, 0, 0, 0
    for name in sorted(base):
        if base[name].ndim == 2:
            total += sum(base[name].shape) * int(file["ranks"][k])
            k += 1
        else:
            total += base[name].numel()
    row = unpack(file["codes"], total).tolist()
    for place in file["zeros"].tolist():
        row[place] = 4
    numbers, k, out = file["values"].tolist(), 0, {}

    def take(rows, columns):
        nonlocal at, v
        table = [*numbers[v : v + 4], 0.0]
        part = torch.tensor([table[c] for c in row[at : at + rows * columns]]).view(rows, columns)
        at, v = at + rows * columns, v + 4
        return part

    for name in sorted(base):
        x = base[name]
        if x.ndim == 2:
            r = int(file["ranks"][k])
            k += 1
            s = torch.tensor(numbers[v : v + r])
            v += r
            U = take(x.shape[0], r)
            out[name] = torch.addmm(x, U @ torch.diag(s), take(r, x.shape[1]))
        else:
            out[name] = x + take(x.numel(), 1).view(x.shape)
    return out


def _read(base, file, names=sorted, zeros=True, add=True, with_s=True, turned=False, after=False):
    """``rebuilt``, with one thing done otherwise."""
    codes = unpack(file["codes"], 4 * len(file["codes"])).long()
    if zeros:
        codes[file["zeros"].long()] = 4
    values, ranks, out = file["values"], file["ranks"].tolist(), {}

    def part(*shape):
        nonlocal codes, values
        n = math.prod(shape)
        found = torch.cat([values[:4], torch.zeros(1)])[codes[:n]].reshape(shape)
        codes, values = codes[n:], values[4:]
        return found

    for name in names(base):
        x = base[name]
        if x.dim() == 2:
            r = ranks.pop(0)
            s, values = (None, values) if after else (values[:r], values[r:])
            U = part(r, len(x)).T if turned else part(len(x), r)
            Vt = part(r, x.shape[1])
            s, values = (values[:r], values[r:]) if after else (s, values)
            delta = U * s @ Vt if with_s else U @ Vt
        else:
            delta = part(*x.shape)
        out[name] = x + delta if add else delta
    return out


right("rebuilt", "a helper for a part", _read)
wrong(
    "rebuilt",
    "in the order of the dict",
    lambda base, file: _read(base, file, names=list),
    hint="My order is the base's own",
)
wrong(
    "rebuilt",
    "zeros are not put back",
    lambda base, file: _read(base, file, zeros=False),
    hint="My zeros come back as a weak group",
)
wrong(
    "rebuilt",
    "the remainder alone",
    lambda base, file: _read(base, file, add=False),
    hint="I get the remainder, not the expert",
)
wrong(
    "rebuilt",
    "s is forgotten",
    lambda base, file: _read(base, file, with_s=False),
    hint="My matrices have the wrong length",
)
wrong("rebuilt", "U column by column", lambda base, file: _read(base, file, turned=True), hint="My matrices are noise")
wrong("rebuilt", "s behind its scales", lambda base, file: _read(base, file, after=True))


@wrong("rebuilt", "adds to the base itself")
def _(base, file):
    for name, x in _read(base, file, add=False).items():
        base[name] += x
    return base


@wrong("rebuilt", "takes the ranks off the file")
def _(base, file):
    out = _read(base, file)
    file["zeros"].zero_()
    return out


@wrong("rebuilt", "matrices only")
def _(base, file):
    out = _read(base, file)
    return {name: out[name] if x.dim() == 2 else x for name, x in base.items()}
