"""Answers to the exercises of notebooks 00 and 01."""

import math
from statistics import NormalDist

import numpy as np
import torch
from torch.nn.functional import normalize

from unforeseen import right, wrong

# --- 00: head_of ---


@right("head_of", "one prompt after the other")
def _(text):
    rows = []
    for prompts in text:
        total = sum(prompt / prompt.norm() for prompt in prompts)
        rows.append(total / total.norm())
    return torch.stack(rows)


@right("head_of", "with numpy")
def _(text):
    x = text.numpy()
    x = x / np.sqrt((x**2).sum(2, keepdims=True))
    x = x.mean(axis=1)
    return torch.from_numpy(x / np.linalg.norm(x, axis=-1, keepdims=True))


right("head_of", "sums instead of means", lambda text: normalize(normalize(text, dim=2).sum(1), dim=1))
wrong("head_of", "long prompts count more", lambda text: normalize(text.mean(1), dim=-1), hint="The longer prompt wins")
wrong(
    "head_of",
    "prompts of all classes are mixed",
    lambda text: normalize(normalize(text, dim=-1).mean(0), dim=-1),
    hint="My head has a row for each prompt",
)
wrong("head_of", "the default axis of normalize", lambda text: normalize(normalize(text).mean(1)))
wrong(
    "head_of",
    "the mean is not normalised",
    lambda text: normalize(text, dim=-1).mean(1),
    hint="My rows are shorter than one",
)
wrong(
    "head_of",
    "one length for a whole class",
    lambda t: normalize((t / t.norm(dim=(1, 2), keepdim=True)).mean(1)),
    hint="The longer prompt wins",
)


@wrong("head_of", "changes the prompts")
def _(text):
    text /= text.norm(dim=-1, keepdim=True)
    head = text.mean(1)
    return head / head.norm(dim=-1, keepdim=True)


# --- 00: half_width ---

right("half_width", "the exact quantile", lambda p, n: NormalDist().inv_cdf(0.975) * math.sqrt(p * (1 - p) / n))
right("half_width", "a number of numpy", lambda p, n: np.float32(1.96) * np.sqrt(p * (1 - p) / n))
right("half_width", "a 0-d tensor", lambda p, n: 1.96 * torch.tensor(p * (1 - p) / n).sqrt())
wrong(
    "half_width",
    "one standard error",
    lambda p, n: (p * (1 - p) / n) ** 0.5,
    hint="My half-width is about half of what is expected",
)
wrong(
    "half_width",
    "the whole width",
    lambda p, n: 2 * 1.96 * (p * (1 - p) / n) ** 0.5,
    hint="My half-width is twice what is expected",
)
wrong("half_width", "the root of n alone", lambda p, n: 1.96 * p * (1 - p) / n**0.5)
wrong("half_width", "^ for a power", lambda p, n: 1.96 * (p * (1 - p) / n) ^ 0.5)
wrong("half_width", "in percent", lambda p, n: 196 * (p * (1 - p) / n) ** 0.5)
wrong("half_width", "rounded", lambda p, n: round(1.96 * (p * (1 - p) / n) ** 0.5, 2))

# --- 00: paired_half_width ---


@right("paired_half_width", "image by image")
def _(first, second):
    n = len(first)
    d = [int(a) - int(b) for a, b in zip(first, second, strict=True)]
    mean = sum(d) / n
    square = sum(each * each for each in d) / n
    return 1.96 * math.sqrt((square - mean**2) / n)


@right("paired_half_width", "the variance of d")
def _(first, second):
    d = first.double() - second.double()
    return 1.96 * (d.var(unbiased=False) / d.numel()).sqrt()


@right("paired_half_width", "by counting")
def _(first, second):
    only_first, only_second = (first & ~second).sum().item(), (~first & second).sum().item()
    n = first.numel()
    return 1.96 * ((only_first + only_second) / n - ((only_first - only_second) / n) ** 2) ** 0.5 / n**0.5


right("paired_half_width", "numpy", lambda a, b: 1.96 * np.std(a.numpy().astype(int) - b.numpy()) / np.sqrt(len(a)))


@wrong("paired_half_width", "two independent accuracies", hint="It makes no difference to mine which images were right")
def _(first, second):
    p, q, n = first.float().mean(), second.float().mean(), len(first)
    return (1.96 * (p * (1 - p) / n + q * (1 - q) / n).sqrt()).item()


@wrong("paired_half_width", "the bar over the square is read as the square of the bar")
def _(first, second):
    d = first.float() - second.float()
    return (1.96 * ((d.mean() ** 2 - d.mean() ** 2) / len(d)).sqrt()).item()


@wrong("paired_half_width", "the mean is not taken away", hint="I left out the mean of d")
def _(first, second):
    d = first.float() - second.float()
    return (1.96 * ((d**2).mean() / len(d)).sqrt()).item()


wrong("paired_half_width", "bools do not subtract", lambda a, b: 1.96 * ((a - b).float().var() / len(a)).sqrt().item())


@wrong("paired_half_width", "bytes wrap around")
def _(first, second):
    d = (first.to(torch.uint8) - second.to(torch.uint8)).float()
    return (1.96 * ((d**2).mean() - d.mean() ** 2).sqrt() / len(d) ** 0.5).item()


@wrong("paired_half_width", "the difference without its sign", hint="Mine is the same when the two never agree")
def _(first, second):
    d = (first != second).float()
    return 1.96 * (((d**2).mean() - d.mean() ** 2) / len(d)).sqrt().item()


@wrong("paired_half_width", "divided by n outside of the root")
def _(first, second):
    d = first.float() - second.float()
    return 1.96 * ((d**2).mean() - d.mean() ** 2).sqrt().item() / len(d)


# --- 01: my_task_arithmetic ---


@right("my_task_arithmetic", "expert by expert")
def _(theta_0, experts, coefficient):
    merged = {name: x.clone() for name, x in theta_0.items()}
    for expert in experts:
        for name in expert:
            merged[name] += coefficient * (expert[name] - theta_0[name])
    return merged


@right("my_task_arithmetic", "the sum multiplied out")
def _(theta_0, experts, coefficient):
    n = len(experts)
    return {k: (1 - n * coefficient) * v + coefficient * sum(e[k] for e in experts) for k, v in theta_0.items()}


@right("my_task_arithmetic", "stacked")
def _(theta_0, experts, coefficient):
    out = {}
    for name in theta_0:
        tau = torch.stack([expert[name] for expert in experts]) - theta_0[name]
        out[name] = torch.add(theta_0[name], tau.sum(0), alpha=coefficient)
    return out


@wrong("my_task_arithmetic", "a shallow copy, changed in place", hint="theta_0 has changed")
def _(theta_0, experts, coefficient):
    merged = dict(theta_0)
    start = {name: x.clone() for name, x in theta_0.items()}
    for expert in experts:
        for name in merged:
            merged[name] += coefficient * (expert[name] - start[name])
    return merged


@wrong("my_task_arithmetic", "the task vectors grow with what is added")
def _(theta_0, experts, coefficient):
    merged = theta_0.copy()
    for expert in experts:
        merged = {name: x + coefficient * (expert[name] - x) for name, x in merged.items()}
    return merged


@wrong("my_task_arithmetic", "theta_0 is taken away once")
def _(theta_0, experts, coefficient):
    return {k: x + coefficient * (sum(e[k] for e in experts) - x) for k, x in theta_0.items()}


@wrong("my_task_arithmetic", "the mean of the task vectors", hint="My merge moves too little")
def _(theta_0, experts, coefficient):
    return {k: x + coefficient * sum(e[k] - x for e in experts) / len(experts) for k, x in theta_0.items()}


@wrong("my_task_arithmetic", "only the last expert", hint="Only the last expert counts")
def _(theta_0, experts, coefficient):
    merged = {}
    for expert in experts:
        for name, x in theta_0.items():
            merged[name] = x + coefficient * (expert[name] - x)
    return merged


@wrong("my_task_arithmetic", "only the merged task vector", hint="My merge lacks theta_0")
def _(theta_0, experts, coefficient):
    return {k: coefficient * sum(e[k] - x for e in experts) for k, x in theta_0.items()}


# --- 01: elect_and_add ---


@right("elect_and_add", "element by element")
def _(trimmed):
    totals = [sum(column.tolist()) for column in trimmed.T]
    up, down = sum(t > 0 for t in totals), sum(t < 0 for t in totals)
    out = []
    for column, total in zip(trimmed.T, totals, strict=True):
        positive = total > 0 or (total == 0 and up > down)
        out.append(sum(v for v in column.tolist() if (v > 0 if positive else v < 0)))
    return torch.tensor(out)


@right("elect_and_add", "with signs")
def _(trimmed):
    elected = trimmed.sum(0).sign()
    elected = torch.where(elected == 0, elected.sum().sign(), elected)
    return (trimmed * (trimmed.sign() == elected)).sum(dim=0)


@right("elect_and_add", "clamped")
def _(trimmed):
    total = trimmed.sum(0)
    majority = 1 if (total > 0).sum() > (total < 0).sum() else -1
    positive = (total > 0) | ((total == 0) & (majority > 0))
    return torch.where(positive, trimmed.clamp(min=0).sum(0), trimmed.clamp(max=0).sum(0))


@wrong("elect_and_add", "a tie leaves nothing", hint="My elements whose votes cancel are zero")
def _(trimmed):
    sign = torch.sign(trimmed.sum(0))
    return torch.where(torch.sign(trimmed) == sign, trimmed, torch.zeros_like(trimmed)).sum(0)


@wrong("elect_and_add", "a tie is positive")
def _(trimmed):
    positive = trimmed.sum(0) >= 0
    return torch.where(positive, trimmed.clamp(min=0).sum(0), trimmed.clamp(max=0).sum(0))


@wrong("elect_and_add", "heads are counted, not sums", hint="Many small votes beat a large one in mine")
def _(trimmed):
    sign = trimmed.sign().sum(0).sign()
    sign[sign == 0] = sign.sum().sign()
    return (trimmed * (trimmed.sign() == sign)).sum(0)


@wrong(
    "elect_and_add", "a tie goes by the sum of everything", hint="Where votes cancel, a few large values decide in mine"
)
def _(trimmed):
    sign = trimmed.sum(0).sign()
    sign[sign == 0] = trimmed.sum().sign()
    return (trimmed * (trimmed.sign() == sign)).sum(0)


@wrong("elect_and_add", "the mean of those that agree", hint="My values are means of those that agree")
def _(trimmed):
    sign = trimmed.sum(0).sign()
    sign[sign == 0] = sign.sum().sign()
    agree = trimmed.sign() == sign
    return (trimmed * agree).sum(0) / agree.sum(0).clamp(min=1)


@wrong("elect_and_add", "the wrong axis")
def _(trimmed):
    sign = trimmed.sum(1, keepdim=True).sign()
    return (trimmed * (trimmed.sign() == sign)).sum(1)


# --- 01: split_loss ---

right("split_loss", "a list", lambda expert, halved, merged: [expert - halved, halved - merged])
right("split_loss", "a tensor of both", lambda e, h, m: tuple(torch.tensor([e - h, h - m], dtype=torch.float64)))


@right("split_loss", "by way of the whole loss")
def _(expert, halved, merged):
    lost = expert - merged
    dilution = expert - halved
    return dilution, lost - dilution


wrong(
    "split_loss",
    "the other order",
    lambda expert, halved, merged: (halved - merged, expert - halved),
    hint="My two parts are the wrong way round",
)
wrong(
    "split_loss",
    "losses below zero",
    lambda expert, halved, merged: (halved - expert, merged - halved),
    hint="My losses are negative",
)
wrong(
    "split_loss",
    "all of it is interference",
    lambda expert, halved, merged: (expert - halved, expert - merged),
    hint="My two parts do not add up to the loss",
)
wrong(
    "split_loss",
    "no gain is allowed",
    lambda e, h, m: (max(e - h, 0.0), max(h - m, 0.0)),
    hint="I cut off negative interference",
)
wrong("split_loss", "sizes only", lambda expert, halved, merged: (abs(expert - halved), abs(halved - merged)))
wrong("split_loss", "shares of the loss", lambda e, h, m: ((e - h) / (e - m), (h - m) / (e - m)))
wrong("split_loss", "printed, not returned", lambda expert, halved, merged: print(expert - halved, halved - merged))
