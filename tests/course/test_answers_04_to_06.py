"""Answers to the exercises of 04, 05 and 06 as learners may write them, and what each is told."""

import numpy as np
import pytest
import torch

from dts_mini.course.exercise import verdict
from dts_mini.course.exercises import EXERCISES

RIGHT = {
    "group_value": (
        "return float(x.sign()[0] * x.square().mean().sqrt())",
        "return np.sign(x[0].item()) * np.sqrt(np.mean(x.numpy() ** 2))",
        "v = x.norm() / len(x) ** 0.5\n    return v if x[0] > 0 else -v",
        "return x.sum().sign() * torch.linalg.vector_norm(x) / math.sqrt(x.numel())",
        "return math.copysign((sum(float(e) ** 2 for e in x) / len(x)) ** 0.5, float(x[0]))",
    ),
    "scale": (
        "values = x.new_zeros(5)\n"
        "    for c in range(4):\n"
        "        if (codes == c).any():\n"
        "            values[c] = (-1 if c < 2 else 1) * x[codes == c].pow(2).mean() ** 0.5\n"
        "    return values",
        "out = [0.0] * 5\n"
        "    for c in range(4):\n"
        "        g = x[codes == c]\n"
        "        out[c] = 0.0 if g.numel() == 0 else (g.sign()[0] * g.norm() / g.numel() ** 0.5).item()\n"
        "    return torch.tensor(out)",
        "x, codes = x.flatten(), codes.flatten()\n"
        "    total = torch.zeros(5).index_add(0, codes, x.square())\n"
        "    count = codes.bincount(minlength=5).clamp(min=1)\n"
        "    return torch.tensor([-1.0, -1, 1, 1, 0]) * (total / count).sqrt()",
        "from math import sqrt\n"
        "    f = lambda c: x[codes == c]\n"
        "    return torch.tensor([(1 if c > 1 else -1) * sqrt((f(c) ** 2).mean()) if len(f(c)) else 0 "
        "for c in range(4)]"
        " + [0.0])",
        "return torch.stack([x[codes == c].square().mean().nan_to_num().sqrt() * s for c, s in "
        "enumerate((-1, -1, 1, 1, 0))])",
    ),
    "dts": (
        "def c(y):\n"
        "        k = threshold(y)\n"
        "        return torch.index_select(scale(y, k), 0, k.flatten()).view(y.shape)\n"
        "    if x.ndim == 2:\n"
        "        u, s, v = decompose(x, keep_ratio)\n"
        "        return c(u) @ torch.diag(s) @ c(v)\n"
        "    return c(x)",
        "shape, parts = x.shape, decompose(x, keep_ratio) if len(x.shape) == 2 else (x,)\n"
        "    hat = [scale(p, threshold(p))[threshold(p)] for p in parts[::2]]\n"
        "    return hat[0] if len(hat) == 1 else torch.einsum('mr,r,rn->mn', hat[0], parts[1], hat[1])",
    ),
    "best_value": (
        "return float(np.average(x.numpy(), weights=weight.numpy()))",
        "return torch.dot(weight / weight.sum(), x)",
        "w = weight.double() / weight.double().sum()\n    return (w * x.double()).sum().item()",
        "return (x @ weight) / weight.sum()",
        "return sum(w * e for w, e in zip(weight, x)) / sum(weight)",
    ),
    "information_bits": (
        "return 2 * r * (m + n) + 32 * (r + 8)",
        "return float(r * (2 * m + 2 * n + 32) + 256)",
        "return np.int64(r) * (2 * (m + n) + 32) + 256",
        "return torch.tensor(r * (2 * (m + n) + 32) + 256)",
        "return sum(2 * side * r + 4 * 32 for side in (m, n)) + 32 * r",
    ),
    "pack": (
        "p = torch.nn.functional.pad(codes, (0, -len(codes) % 4))\n"
        "    return sum(p[k::4] << (2 * k) for k in range(4)).to(torch.uint8)",
        "out = []\n"
        "    for i in range(0, len(codes), 4):\n"
        "        out.append(sum(int(c) << (2 * k) for k, c in enumerate(codes[i:i + 4])))\n"
        "    return torch.tensor(out, dtype=torch.uint8)",
        "a = codes.numpy().astype(np.uint8)\n"
        "    a = np.append(a, np.zeros(-len(a) % 4, np.uint8)).reshape(-1, 4)\n"
        "    return torch.from_numpy(a[:, 0] | a[:, 1] << 2 | a[:, 2] << 4 | a[:, 3] << 6)",
        "out = torch.zeros((len(codes) + 3) // 4, dtype=torch.uint8)\n"
        "    for k in range(4):\n"
        "        part = codes[k::4].to(torch.uint8) * 4**k\n"
        "        out[: len(part)] += part\n"
        "    return out",
        "bits = torch.stack([codes & 1, codes >> 1], 1).flatten().numpy()\n"
        "    return torch.from_numpy(np.packbits(bits.astype(np.uint8), bitorder='little'))",
    ),
    "unpack": (
        "return torch.stack([(packed >> s) & 3 for s in (0, 2, 4, 6)], dim=1).reshape(-1)[:count]",
        "return torch.tensor([int(b) >> s & 3 for b in packed for s in (0, 2, 4, 6)][:count])",
        "out = torch.empty(4 * len(packed), dtype=torch.long)\n"
        "    for k in range(4):\n"
        "        out[k::4] = packed.int() // 4**k % 4\n"
        "    return out[:count]",
        "i = torch.arange(count)\n    return packed.long()[i // 4] // 4 ** (i % 4) % 4",
        "b = torch.from_numpy(np.unpackbits(packed.numpy(), bitorder='little')).view(-1, 2).long()\n"
        "    return (b[:, 0] + 2 * b[:, 1])[:count]",
    ),
    "rank_within_bits": (
        "r = 0\n"
        "    while r < min(m, n) and 2 * (m + n) * (r + 1) + 32 * (r + 1) + 256 <= bits:\n"
        "        r += 1\n"
        "    return r",
        "return int(np.clip(np.floor((bits - 256) / (2 * (m + n) + 32)), 0, min(m, n)))",
        "return float(max(0, min((bits - 256) // (2 * (m + n) + 32), m, n)))",
        "if bits < 256 + 2 * (m + n) + 32:\n        return 0\n    "
        "return min(m, n, (bits - 256) // (2 * m + 2 * n + 32))",
        "return torch.tensor((bits - 256) // (2 * (m + n) + 32)).clamp(0, min(m, n))",
    ),
    "compressed": (
        "long, values, ranks = torch.empty(0, dtype=torch.long), torch.empty(0), []\n"
        "    for name, b in sorted(base.items()):\n"
        "        x = expert[name] - b\n"
        "        if x.ndim == 2:\n"
        "            u, s, v = decompose(x, keep_ratio)\n"
        "            cu, cv = threshold(u), threshold(v)\n"
        "            values = torch.cat([values, s, scale(u, cu)[:-1], scale(v, cv)[:-1]])\n"
        "            long = torch.cat([long, cu.reshape(-1), cv.reshape(-1)])\n"
        "            ranks += [s.numel()]\n"
        "        else:\n"
        "            c = threshold(x)\n"
        "            values, long = torch.cat([values, scale(x, c)[:4]]), torch.cat([long, c.reshape(-1)])\n"
        "    zeros = (long == 4).nonzero()[:, 0].to(torch.int32)\n"
        "    return dict(codes=pack(long.where(long < 4, 0)), values=values, zeros=zeros,\n"
        "                ranks=torch.tensor(ranks, dtype=torch.int32))",
    ),
    "rebuilt": (
        "n = sum(base[k].numel() for k in base if base[k].ndim != 2)\n"
        "    n += sum(int(r) * sum(base[k].shape) for k, r in zip([k for k in sorted(base) if base[k].ndim == 2], "
        "file['ranks']))\n"
        "    codes, values, out = unpack(file['codes'], n).long(), list(file['values']), {}\n"
        "    codes[file['zeros'].long()] = 4\n"
        "    ranks = iter(file['ranks'].tolist())\n"
        "    take = lambda k: torch.stack([values.pop(0) for _ in range(k)])\n"
        "    for name in sorted(base):\n"
        "        b = base[name]\n"
        "        r = next(ranks) if b.ndim == 2 else None\n"
        "        s = take(r) if r else None\n"
        "        hats = []\n"
        "        for shape in ([b.shape[0], r], [r, b.shape[1]]) if r else (b.shape,):\n"
        "            k = math.prod(shape)\n"
        "            four = torch.cat([take(4), torch.zeros(1)])\n"
        "            hats.append(four[codes[:k]].reshape(shape))\n"
        "            codes = codes[k:]\n"
        "        out[name] = b + (hats[0] @ torch.diag(s) @ hats[1] if r else hats[0])\n"
        "    return out",
    ),
}

# (exercise, body, words of the message)
WRONG = (
    ("group_value", "return x.square().mean().sqrt()", "expected"),
    ("group_value", "return [x.norm() / len(x) ** 0.5]", "expected"),
    ("group_value", "return x.median()", "expected"),
    ("group_value", "return x.abs().max()", "expected"),
    ("group_value", "print(x.sign()[0] * x.square().mean().sqrt())", "is there a return?"),
    ("scale", "return {c: x[codes == c].square().mean().sqrt() for c in range(5)}", "expected a tensor of shape (5,)"),
    ("scale", "return torch.tensor([float(x[codes == c].norm()) for c in range(5)])", "expected"),
    ("scale", "return [0.0] * 5", "expected a tensor of shape (5,), got a list"),
    ("scale", "return torch.tensor([-0.7, -0.1, 0.3, 0.9, 0])", "expected"),
    ("scale", "x[codes == 4] = 0\n    return x[:5]", "expected"),
    ("dts", "return scale(x, threshold(x))", "expected"),
    ("dts", "U, s, Vt = decompose(x.view(len(x), -1), keep_ratio)\n    return U * s @ Vt", "expected"),
    ("dts", "c = threshold(x)\n    return c", "expected"),
    ("dts", "U, s, Vt = decompose(x, keep_ratio)\n    return x", "expected"),
    ("dts", "codes = threshold(x)\n    return x * 0 + scale(x, codes)[codes].abs()", "expected"),
    ("information_bits", "return 2 * (m + n) * r + 32 * r + 8 * 32 - 1", "expected"),
    ("information_bits", "return (2 * (m + n) * r + 32 * r + 256) / 8", "expected"),
    ("information_bits", "return str(2 * (m + n) * r + 32 * r + 256)", "expected a number, got a str"),
    ("information_bits", "return 2 * m * r + 2 * n + 32 * r + 256", "expected"),
    ("information_bits", "return 2 * (m + n) * r + 32 * r * 2 + 256", "expected"),
    ("pack", "return codes", "expected shape"),
    ("pack", "return bytes(int(c) for c in codes)", "got a bytes"),
    ("pack", "return codes.view(-1, 4).sum(1).to(torch.uint8)", "expected"),
    (
        "pack",
        "full = codes.view(-1, 4)\n    return (full * torch.tensor([1, 4, 16, 64])).sum(1).to(torch.uint8)",
        "expected",
    ),
    ("pack", "return torch.zeros(-(-len(codes) // 4))", "expected whole numbers, torch.uint8, got torch.float32"),
    ("unpack", "return packed % 4", "expected shape"),
    (
        "unpack",
        "return torch.stack([packed % 4, packed // 4, packed // 16, packed // 64], 1).flatten()[:count]",
        "expected",
    ),
    ("unpack", "return torch.stack([packed / 64, packed / 16, packed / 4, packed], 1).flatten()[:count]", "expected"),
    ("unpack", "return packed[:count]", "expected"),
    ("unpack", "return [int(b) & 3 for b in packed]", "expected a tensor of shape"),
    (
        "rank_within_bits",
        "return max(0, min((bits - 128) // (2 * (m + n) + 32), m, n))",
        "expected",
    ),  # one factor's scales
    ("rank_within_bits", "return max(0, min(bits // information_bits(m, n, 1), m, n))", "NameError"),
    ("rank_within_bits", "return max(0, min((bits - 256) // (2 * (m + n)), m, n))", "expected"),
    ("rank_within_bits", "return max(0, min(bits // (2 * (m + n) + 32 + 256), m, n))", "expected"),
    ("rank_within_bits", "return max(0, min((bits - 256) // (2 * (m + n) + 32), m))", "expected"),
    ("compressed", "return {'codes': threshold(expert['bias'] - base['bias'])}", "expected"),
    ("compressed", "return expert", "expected"),
    (
        "compressed",
        "import dts_mini\n    return dts_mini.compress(base, expert, keep_ratio=keep_ratio)",
        "code of your own",
    ),
    ("rebuilt", "return base", "expected"),
    ("rebuilt", "return {name: x + file['values'].mean() for name, x in base.items()}", "expected"),
    ("rebuilt", "return [base[name] for name in sorted(base)]", "expected a dict"),
)


def written(name: str, body: str):
    """The function that a learner's cell makes."""
    exercise = EXERCISES[name]
    parameters = ", ".join(exercise.reference.__code__.co_varnames[: exercise.reference.__code__.co_argcount])
    helpers = ("decompose", "threshold", "group_value", "scale", "pack", "unpack")
    given = {each: vars(__import__(exercise.reference.__module__, fromlist=["x"])).get(each) for each in helpers}
    space = {"torch": torch, "np": np, "math": __import__("math")} | {k: v for k, v in given.items() if v and k != name}
    exec(f"def {name}({parameters}):\n    {body}", space)
    return space[name]


@pytest.mark.parametrize(("name", "body"), [(name, body) for name, bodies in RIGHT.items() for body in bodies])
def test_a_right_answer_passes_whatever_kind_of_number_it_gives(name, body):
    found = verdict(EXERCISES[name], written(name, body))
    assert found.status == "passed", found.message


@pytest.mark.parametrize(("name", "body", "words"), WRONG)
def test_a_wrong_answer_fails_and_the_message_says_what_came(name, body, words):
    found = verdict(EXERCISES[name], written(name, body))
    assert found.status == "failed" and words in found.message, found.message


@pytest.mark.parametrize(("name", "body"), [(name, body) for name, body, _ in WRONG])
def test_no_wrong_answer_is_told_another_ones_hint(name, body):
    """A hint fits: the known mistake that it speaks of does what the answer does, where that goes wrong."""
    exercise = EXERCISES[name]
    if hint := verdict(exercise, written(name, body)).hint:
        mistake = verdict(exercise, exercise.wrong[hint[0]])
        assert mistake.message == verdict(exercise, written(name, body)).message
