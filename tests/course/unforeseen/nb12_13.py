"""Answers to the exercises of notebooks 12 and 13."""

import math
from collections import Counter

import numpy as np
import torch
from torch.nn.functional import cosine_similarity

from unforeseen import right, wrong

# --- 12: attention_bits ---


@right("attention_bits", "a sum over matrices")
def _(d, rank, fused):
    shapes = [(3 * d, d)] if fused else [(d, d)] * 3
    return sum(2 * rank * (m + n) + 32 * rank for m, n in shapes)


right("attention_bits", "two formulas", lambda d, rank, fused: rank * (8 * d + 32) if fused else rank * (12 * d + 96))
right("attention_bits", "numpy", lambda d, rank, fused: np.where(fused, rank * (8 * d + 32), 3 * rank * (4 * d + 32)))
wrong(
    "attention_bits",
    "the same rank in all",
    lambda d, rank, fused: rank * (8 * d + 32) if fused else rank * (4 * d + 32),
)
wrong(
    "attention_bits", "singular values once", lambda d, rank, fused: 2 * rank * (4 * d if fused else 6 * d) + 32 * rank
)
wrong(
    "attention_bits",
    "with scales",
    lambda d, r, fused: r * (8 * d + 32) + 256 if fused else 3 * (r * (4 * d + 32) + 256),
)
wrong("attention_bits", "three bits", lambda d, r, fused: r * (12 * d + 32) if fused else 3 * r * (6 * d + 32))
wrong(
    "attention_bits",
    "three times as many in the fused one",
    lambda d, r, fused: 3 * r * (8 * d + 32) if fused else 3 * r * (4 * d + 32),
)
wrong("attention_bits", "the other way round", lambda d, r, fused: 3 * r * (4 * d + 32) if fused else r * (8 * d + 32))
wrong(
    "attention_bits",
    "bytes",
    lambda d, r, fused: (r * (8 * d + 32) if fused else 3 * r * (4 * d + 32)) // 8,
    hint="Mine are bytes",
)
wrong(
    "attention_bits",
    "no singular values",
    lambda d, r, fused: r * 8 * d if fused else r * 12 * d,
    hint="I forgot the singular values",
)

# --- 12: leaked ---


@right("leaked", "a loop over a list")
def _(train, test):
    count = 0
    for image in test:
        if image in train:
            count += 1
    return count


@right("leaked", "counted")
def _(train, test):
    found = Counter(test)
    return sum(found[image] for image in set(train))


right("leaked", "with numpy", lambda train, test: np.sum([image in set(train) for image in test]).astype(int))
wrong(
    "leaked",
    "different images",
    lambda train, test: len(set(train) & set(test)),
    hint="Mine counts two equal test images once",
)
wrong(
    "leaked",
    "at the same place",
    lambda train, test: sum(a == b for a, b in zip(train, test, strict=False)),
    hint="I compared them one by one in order",
)
wrong(
    "leaked",
    "training images that leaked",
    lambda train, test: sum(image in set(test) for image in train),
    hint="I count training images",
)
wrong("leaked", "somewhere in all bytes", lambda train, test: sum(image in b"".join(train) for image in test))
wrong(
    "leaked", "whether any did", lambda train, test: any(image in train for image in test), hint="Mine is true or false"
)
wrong("leaked", "every pair", lambda train, test: sum(a == b for a in train for b in test))
wrong("leaked", "by length", lambda train, test: sum(len(image) in {len(each) for each in train} for image in test))
wrong(
    "leaked",
    "a share",
    lambda train, test: sum(image in set(train) for image in test) / max(1, len(test)),
    hint="Mine is a share",
)

# --- 12: split_attention ---


@right("split_attention", "chunks")
def split_attention(state):
    out = {}
    for name, x in state.items():
        for kind in ("weight", "bias"):
            if name.endswith(f".attn.in_proj_{kind}"):
                stem = name.removesuffix(f"attn.in_proj_{kind}")
                for letter, part in zip("qkv", x.chunk(3), strict=True):
                    out[f"{stem}self_attn.{letter}_proj.{kind}"] = part
                break
        else:
            out[name] = x
    return out


@right("split_attention", "slices, copied")
def _(state):
    out = dict(state)
    for name in state:
        if ".attn.in_proj_" in name:
            x = out.pop(name)
            d = len(x) // 3
            before, kind = name.split(".attn.in_proj_")
            for i, letter in enumerate("qkv"):
                out[f"{before}.self_attn.{letter}_proj.{kind}"] = x[i * d : (i + 1) * d].clone()
    return out


def _split(state, order="qkv", dim=0, keep=False, kinds=("weight", "bias"), turn=False):
    out = {}
    for name, x in state.items():
        kind = name.rpartition("_")[2]
        if not name.endswith(f".attn.in_proj_{kind}") or kind not in kinds:
            out[name] = x
            continue
        if keep:
            out[name] = x
        stem = name.removesuffix(f"attn.in_proj_{kind}")
        for letter, part in zip(order, x.tensor_split(3, dim), strict=True):
            out[f"{stem}self_attn.{letter}_proj.{kind}"] = part.T if turn and part.dim() == 2 else part
    return out


wrong("split_attention", "values before keys", lambda state: _split(state, order="qvk"))
wrong(
    "split_attention", "weights alone", lambda state: _split(state, kinds=("weight",)), hint="My biases are still fused"
)
wrong("split_attention", "the old ones stay", lambda state: _split(state, keep=True))
wrong("split_attention", "turned", lambda state: _split(state, turn=True))
wrong(
    "split_attention",
    "only what is split",
    lambda state: {k: v for k, v in _split(state).items() if k not in state},
    hint="I lost the other tensors",
)
wrong(
    "split_attention",
    "the name of the attention stays",
    lambda state: {k.replace("self_attn", "attn"): v for k, v in _split(state).items()},
)
wrong(
    "split_attention",
    "every attn is renamed",
    lambda state: {k.replace(".attn.", ".self_attn."): v for k, v in _split(state).items()},
)


@wrong("split_attention", "every third row", hint="I took every third row")
def _(state):
    out = {}
    for name, x in state.items():
        if ".attn.in_proj_" in name:
            before, kind = name.split(".attn.in_proj_")
            out |= {f"{before}.self_attn.{c}_proj.{kind}": x[i::3] for i, c in enumerate("qkv")}
        else:
            out[name] = x
    return out


@wrong("split_attention", "taken out of the state", hint="I changed the state dict that I was given")
def _(state):
    new = _split(state)
    for name in [name for name in state if name not in new]:
        del state[name]
    return new


@right("split_attention", "any name with in_proj: there is none but the attention's")
def _(state):
    out = {}
    for name, x in state.items():
        if "in_proj" in name:
            kind = name.rsplit("_", 1)[1]
            stem = name[: name.index("attn")] if "attn" in name else ""
            out |= {f"{stem}self_attn.{c}_proj.{kind}": p for c, p in zip("qkv", x.chunk(3), strict=True)}
        else:
            out[name] = x
    return out


# --- 13: body_and_head ---


@right("body_and_head", "a loop")
def _(state, head):
    body, top = {}, {}
    for name, x in state.items():
        if name.startswith(head + "."):
            top[name] = x
        else:
            body[name] = x
    return body, top


@right("body_and_head", "copies, a list of both")
def _(state, head):
    names = [name for name in state if name[: len(head) + 1] == f"{head}."]
    return [{k: v.clone() for k, v in state.items() if k not in names}, {k: state[k].clone() for k in names}]


@right("body_and_head", "by the first part of a name")
def _(state, head):
    body = {k: v for k, v in state.items() if k.split(".")[0] != head}
    return body, {k: v for k, v in state.items() if k not in body}


def _cut(state, of):
    return {k: v for k, v in state.items() if not of(k)}, {k: v for k, v in state.items() if of(k)}


wrong(
    "body_and_head",
    "names that begin alike",
    lambda state, head: _cut(state, lambda name: name.startswith(head)),
    hint="A tensor of the body went with the head",
)
wrong("body_and_head", "anywhere in the name", lambda state, head: _cut(state, lambda name: head in name))
wrong(
    "body_and_head",
    "any part of the name",
    lambda state, head: _cut(state, lambda name: head in name.split(".")),
    hint="Whatever has the head's name somewhere went with it",
)
wrong(
    "body_and_head",
    "head first",
    lambda state, head: _cut(state, lambda name: name.startswith(f"{head}."))[::-1],
    hint="My head comes first",
)
wrong("body_and_head", "one level only", lambda state, head: _cut(state, lambda name: name.rsplit(".", 1)[0] == head))


@wrong("body_and_head", "names without the head's", hint="My head's names are cut")
def _(state, head):
    body, top = _cut(state, lambda name: name.startswith(f"{head}."))
    return body, {name.removeprefix(f"{head}."): x for name, x in top.items()}


@wrong("body_and_head", "popped", hint="I changed the state dict that I was given")
def _(state, head):
    top = {name: state.pop(name) for name in list(state) if name.startswith(f"{head}.")}
    return state, top


@wrong("body_and_head", "the body is all of it", hint="My body still has the head")
def _(state, head):
    return dict(state), _cut(state, lambda name: name.startswith(f"{head}."))[1]


# --- 13: stored_once ---


@right("stored_once", "each against those before")
def _(state):
    firsts, found = [], {}
    for name, x in state.items():
        for first in firsts:
            y = state[first]
            if x.dtype == y.dtype and x.shape == y.shape and torch.equal(x, y):
                found[name] = first
                break
        else:
            firsts.append(name)
    return found


@right("stored_once", "by bytes")
def _(state):
    seen, found = {}, {}
    for name, x in state.items():
        key = (x.dtype, tuple(x.shape), x.contiguous().numpy().tobytes())
        if key in seen:
            found[name] = seen[key]
        else:
            seen[key] = name
    return found


@right("stored_once", "torch.equal alone")
def _(state):
    names, found = list(state), {}
    for i, name in enumerate(names):
        same = [first for first in names[:i] if torch.equal(state[first], state[name])]
        if same:
            found[name] = same[0]
    return found


def _repeats(state, same, pick=0):
    names, found = list(state), {}
    for i, name in enumerate(names):
        earlier = [first for first in names[:i] if same(state[first], state[name])]
        if earlier:
            found[name] = earlier[pick]
    return found


wrong(
    "stored_once",
    "the last before it",
    lambda state: _repeats(state, torch.equal, pick=-1),
    hint="The third copy names the second",
)
wrong(
    "stored_once",
    "nearly equal",
    lambda state: _repeats(state, lambda a, b: a.shape == b.shape and torch.allclose(a, b)),
    hint="Nearly equal tensors are copies in mine",
)
wrong("stored_once", "in the same memory", lambda state: _repeats(state, lambda a, b: a.data_ptr() == b.data_ptr()))
wrong(
    "stored_once",
    "in any shape",
    lambda state: _repeats(state, lambda a, b: torch.equal(a.flatten(), b.flatten())),
    hint="Shapes make no difference in mine",
)
wrong(
    "stored_once",
    "of the same shape",
    lambda state: _repeats(state, lambda a, b: a.shape == b.shape),
    hint="All tensors of one shape are copies in mine",
)
wrong(
    "stored_once",
    "of the same sum",
    lambda s: _repeats(s, lambda a, b: a.shape == b.shape and a.sum() == b.sum()),
    hint="Tensors of equal sums are copies in mine",
)
wrong(
    "stored_once",
    "the first points to the repeat",
    lambda state: {b: a for a, b in _repeats(state, torch.equal).items()},
    hint="Mine names the copy, not the first",
)
wrong("stored_once", "names alone", lambda state: list(_repeats(state, torch.equal)))
wrong(
    "stored_once",
    "only the neighbour",
    lambda s: {b: a for a, b in zip(s, list(s)[1:], strict=False) if torch.equal(s[a], s[b])},
)


@wrong("stored_once", "in all pairs")
def _(state):
    return {a: b for a in state for b in state if a != b and torch.equal(state[a], state[b])}


# --- 13: moved_cosines ---


@right("moved_cosines", "cosine_similarity")
def _(unseen, seen, start):
    return cosine_similarity((unseen - start).unsqueeze(0), seen - start, dim=1)


@right("moved_cosines", "task by task")
def _(unseen, seen, start):
    move = unseen - start
    out = []
    for row in seen:
        other = row - start
        out.append((move @ other).item() / math.sqrt((move @ move).item() * (other @ other).item()))
    return torch.tensor(out)


@right("moved_cosines", "numpy")
def _(unseen, seen, start):
    a, b = (unseen - start).numpy(), (seen - start).numpy()
    return torch.from_numpy(b @ a / np.linalg.norm(a) / np.linalg.norm(b, axis=1))


wrong(
    "moved_cosines",
    "the layers themselves",
    lambda u, s, start: cosine_similarity(u[None], s),
    hint="My start is still in it",
)
wrong(
    "moved_cosines",
    "the start is taken from one side",
    lambda u, s, start: cosine_similarity((u - start)[None], s),
    hint="I left the start in one of the two",
)
wrong("moved_cosines", "from the new task", lambda u, s, start: cosine_similarity((u - start)[None], s - u))
wrong(
    "moved_cosines",
    "not normalised",
    lambda u, s, start: (s - start) @ (u - start),
    hint="Long moves count more in mine",
)
wrong("moved_cosines", "turned about", lambda u, s, start: cosine_similarity((start - u)[None], s - start))
wrong(
    "moved_cosines",
    "one length for all",
    lambda u, s, start: (s - start) @ (u - start) / (u - start).norm() / (s - start).norm(),
)
wrong(
    "moved_cosines", "along the wrong axis", lambda u, s, start: cosine_similarity((u - start)[None], s - start, dim=0)
)
wrong(
    "moved_cosines",
    "sizes",
    lambda u, s, start: cosine_similarity((u - start)[None], s - start).abs(),
    hint="Opposite moves are near in mine",
)
wrong(
    "moved_cosines",
    "moved from the mean of the seen",
    lambda u, s, start: cosine_similarity((u - s.mean(0))[None], s - s.mean(0)),
    hint="I took the mean of the tasks for the start",
)


@wrong("moved_cosines", "the start is written off in place")
def _(unseen, seen, start):
    unseen -= start
    seen -= start
    return cosine_similarity(unseen[None], seen)


# --- 13: moved_words ---


@right("moved_words", "row by row")
def _(before, after):
    return torch.tensor([not torch.equal(a, b) for a, b in zip(before, after, strict=True)])


right("moved_words", "numpy", lambda a, b: torch.from_numpy((a.numpy() != b.numpy()).any(1)))
right("moved_words", "counted", lambda a, b: (a - b != 0).sum(-1) > 0)
right("moved_words", "the largest difference", lambda a, b: (a - b).abs().amax(1) > 0)
wrong("moved_words", "which rows", lambda a, b: (a != b).any(1).nonzero().flatten())
wrong("moved_words", "a share", lambda a, b: ((a != b).any(1).sum() / len(a)).item(), hint="Mine is a number")
wrong("moved_words", "those that stayed", lambda a, b: (a == b).all(1), hint="Mine says which stayed")
wrong("moved_words", "number by number", lambda a, b: a != b)
wrong("moved_words", "sums of rows", lambda a, b: a.sum(1) != b.sum(1), hint="Moves that cancel are none in mine")
wrong("moved_words", "the first number of each", lambda a, b: a[:, 0] != b[:, 0])

# --- 13: gain_kept ---


@right("gain_kept", "sums")
def _(first, found, experts):
    return float((found - first).sum() / (experts - first).sum())


right("gain_kept", "lists", lambda a, b, c: (sum(b.tolist()) - sum(a.tolist())) / (sum(c.tolist()) - sum(a.tolist())))
right("gain_kept", "what is not lost", lambda a, b, c: 1 - ((c - b).mean() / (c - a).mean()).item())
wrong(
    "gain_kept",
    "task by task",
    lambda a, b, c: ((b - a) / (c - a)).mean().item(),
    hint="I take the mean of the tasks' shares",
)
wrong("gain_kept", "in percent", lambda a, b, c: 100 * ((b - a).mean() / (c - a).mean()).item())
wrong(
    "gain_kept",
    "of the accuracy",
    lambda a, b, c: (b.mean() / c.mean()).item(),
    hint="Mine is a share of the experts' accuracy",
)
wrong("gain_kept", "lost", lambda a, b, c: ((c - b).mean() / (c - a).mean()).item(), hint="Mine is what was lost")
wrong("gain_kept", "from the other end", lambda a, b, c: ((b - a).mean() / (c - b).mean()).item())
wrong("gain_kept", "sizes", lambda a, b, c: abs(((b - a).mean() / (c - a).mean()).item()))
