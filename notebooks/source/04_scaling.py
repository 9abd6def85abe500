# %% [markdown]
# # 04 · Scaling, and where the 1 % comes from
#
# After this you can choose the one value that a group's elements become, say what the choice costs the model, and
# account for every bit of a task's file.

# %% [markdown]
# > **Goals.** You *derive* two scales, one that keeps the length and one that makes the error least, and *measure*
# > which of them serves the model better. You *count* the bits of a matrix, of the mini suite's image tower and of
# > CLIP's, in three ways that are never mixed. You *open* the file on disk.
# >
# > **Before you start.** Notebook 02: singular values, rank, keep ratio. Notebook 03: groups and codes.
# >
# > **Time.** 20 minutes to read, 31 for the exercises. It runs in about a minute on a laptop's CPU; the cells that
# > evaluate rebuilt experts say so. It needs no network.

# %% [markdown]
# ## The question
#
# After thresholding you know the group of every element, and nothing else about it. **Which number should the elements
# of a group become?** That is scaling, the third step of DTS. The obvious answer is the group's mean. The paper gives
# another one, and you will see why.
#
# When the numbers are chosen, the remainder is complete. Then the second question: the paper's title promises
# efficiency, and its language results stand below 1 % of a model. **Where do the bits go?**

# %%
from dataclasses import replace

import torch

from dts_mini import compress, load, rebuild, storage
from dts_mini.core.codes import restore, scale, threshold
from dts_mini.core.dts import Flat, LowRank, rank_of
from dts_mini.core.svd import decompose
from dts_mini.course import check, claim, figures, hint, show
from dts_mini.suites import load_suite
from dts_mini.suites.evaluation import bootstrap, divergence, interval, logits

suite = load_suite()
task = suite.example
theta_0, expert = suite.pretrained(), suite.expert(task)

# %% [markdown]
# One picture first. Here is the expert of one task, to scale, and the file that replaces it. Under it the file is taken
# apart.

# %%
delta = compress(theta_0, expert, keep_ratio=0.1)
counts = storage(delta)
alt = (
    "Above, a long grey bar: the expert in float32. Its left end, a sliver, is the task's file. Below, the sliver "
    "taken apart: most of it is codes of matrices, then codes of other tensors; singular values, scales, zeros and "
    "the header are short pieces at the right."
)
show(figures.file_bytes(delta), alt=alt)
claim("04-file", "The file takes less than 1.2 % of the expert's bytes.", counts.share("file"), high=0.012, unit="%")

# %% [markdown]
# **What you should see:** nearly the whole file is codes. The scales, which this notebook is about, are a stripe that
# you hardly see. They cost next to nothing, and yet everything hangs on them.

# %% [markdown]
# ## Step 1 · One value for a group
#
# A group $g$ holds elements $x_1, \dots, x_n$ of one sign. All become one value $v$, the group's *scale*. How wrong
# is that? Write $\bar x$ for the mean. Since the deviations from the mean add up to zero,
#
# $$\sum_i (x_i - v)^2 = \sum_i (x_i - \bar x)^2 + n\,(v - \bar x)^2 .$$
#
# So the error is a parabola in $v$, and **the mean makes it least**. But $n$ equal values $\bar x$ are shorter than the
# group was: by the same identity with $v = 0$, $\lVert x \rVert^2 = n \bar x^2 + \sum_i (x_i - \bar x)^2$, and the last
# term is lost. The paper **keeps the length** instead: $n v^2 = \lVert x \rVert^2$, so
#
# $$v = \pm \sqrt{\tfrac1n \textstyle\sum_i x_i^2} = \pm \frac{\lVert x \rVert}{\sqrt n} ,$$
#
# the root mean square (RMS) with the group's sign. You cannot have both. Look at one group of a real factor $U$.

# %%
name = "transformer.resblocks.2.mlp.c_fc.weight"
M = expert[name] - theta_0[name]
rank = rank_of(M.shape, keep_ratio=0.1)
u, s, vh, _ = decompose(M, rank)
row = u.reshape(1, -1)  # one row: one partition for the whole factor
codes = threshold(row)
strong = row[codes == 3]
rms, mean = scale(row, codes, how="rms"), scale(row, codes, how="mean")
figure, data = figures.group_error(strong, {"RMS": rms[0, 3].item(), "mean": mean[0, 3].item()})
alt = (
    "Above, a histogram of the strong positive elements of U with the mean and, a little to its right, the root mean "
    "square. Below, the squared error of the group against its value: a parabola with its lowest point at the mean; "
    "the root mean square lies a little up its right branch."
)
show(figure, alt=alt)

# %%
least = data["value"][torch.tensor(data["error"]).argmin()]
apart = abs(least - mean[0, 3].item()) / mean[0, 3].item()
claim("04-mean-least", "On the grid of the figure the error is least within 2 % of the mean.", apart, high=0.02)
excess = (strong - rms[0, 3]).square().sum() - (strong - mean[0, 3]).square().sum()
predicted = strong.numel() * (rms[0, 3] - mean[0, 3]) ** 2
claim(
    "04-excess", "What the RMS errs more is n (v - mean)^2, to 1 %.", (excess / predicted).item(), low=0.99, high=1.01
)
length = lambda scales: (restore(codes, scales).norm() / row.norm()).item()
claim("04-rms-length", "With the RMS, U keeps its length to 0.01 %.", length(rms), low=0.9999, high=1.0001)
claim(
    "04-mean-length",
    "With means, U loses between 4 % and 12 % of its length.",
    1 - length(mean),
    low=0.04,
    high=0.12,
    unit="%",
)

# %% [markdown]
# **What you should see:** near its lowest point a parabola is flat. So the RMS costs little in error, and the mean
# costs a visible piece of length.

# %% [markdown]
# ### Exercise 1 · The value of a group (easy, 5 minutes)
#
# Write the paper's scale. `x` holds the elements of one group, shape `(n,)`, all of one sign. Return one number with
# that sign.


# %% tags=["exercise"]
def group_value(x: torch.Tensor) -> torch.Tensor:
    """Elements (n,) of one sign -> their root mean square with that sign, one number."""
    return x.sign()[0] * x.square().mean().sqrt()


# %%
group_value = check(group_value)
# hint("group_value")

# %%
mine = torch.tensor([[float(group_value(row[codes == code])) for code in range(4)]])
claim(
    "04-group-value",
    "group_value gives the core's scale for all four groups.",
    (mine - rms).abs().max().item(),
    high=1e-5,
)

# %% [markdown]
# ## Step 2 · One matrix, all steps
#
# Put the steps together: decompose, threshold, scale both factors, multiply. $\hat M = \hat U\,\mathrm{diag}(s)\,\hat
# V^\top$. The singular values stay as they are.


# %%
def coarse(x: torch.Tensor, how: str) -> torch.Tensor:
    """A factor after thresholding and scaling: every element is its group's value."""
    row = x.reshape(1, -1)
    codes = threshold(row)
    return restore(codes, scale(row, codes, how=how)).view(x.shape)


M_hat = {how: coarse(u, how) @ torch.diag(s) @ coarse(vh, how) for how in ("rms", "mean")}

# %%
error = {how: ((M - x).norm() / M.norm()).item() for how, x in M_hat.items()}
kept = {how: (x.norm() / M.norm()).item() for how, x in M_hat.items()}
cosine = {how: torch.cosine_similarity(M.flatten(), x.flatten(), dim=0).item() for how, x in M_hat.items()}
one_call = delta.remainder(name)
off = ((M_hat["rms"] - one_call).norm() / one_call.norm()).item()
claim("04-one-call", "Step by step you get what compress gives in one call, to 0.1 %.", off, high=1e-3)
claim("04-matrix-error", "With means the error of the matrix is smaller.", error["mean"] - error["rms"], high=-1e-3)
claim(
    "04-matrix-length",
    "Even with the RMS the rebuilt matrix loses at least a tenth of its length.",
    kept["rms"],
    high=0.9,
)
turned = abs(cosine["rms"] - cosine["mean"])
claim("04-same-direction", "To two decimals, both rebuilt matrices point the same way.", turned, high=0.005)

# %% [markdown]
# **What you should see:** the last sentence is the surprise. `rms` and `mean` give *different values* to the groups of
# both factors, and yet as directions the results are all but one. **Choosing a scale is choosing a length.** Keep
# this in mind for the next step.
#
# The third sentence is worth a thought too. The RMS keeps the length of each *factor*. It promises nothing about the
# *matrix*: truncation has taken components away, and the columns of $\hat U$ are no longer orthogonal.

# %% [markdown]
# ### Exercise 2 · The best value, when elements differ in weight (medium, 8 minutes)
#
# Is the plain mean even the right least-squares value? It minimises the error of $U$. But you want a small error of
# the *matrix*, and there an error in column $i$ of $U$ is multiplied by $s_i$. As the rows of $V^\top$ are orthonormal,
#
# $$\lVert (U - \hat U)\,\mathrm{diag}(s)\,V^\top \rVert^2 = \sum_i s_i^2\, \lVert u_i - \hat u_i \rVert^2 .$$
#
# So every element of column $i$ should count with the weight $s_i^2$. Write the value of least *weighted* error.
# Before you run the cells below it, guess: how much does the matrix gain?


# %% tags=["exercise"]
def best_value(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Elements (n,) and their weights (n,), not negative -> the v that makes sum(weight * (x - v)^2) least."""
    return (weight * x).sum() / weight.sum()


# %%
best_value = check(best_value)
# hint("best_value")

# %%
weight = s.square().expand_as(u).reshape(1, -1)
best = torch.tensor([[float(best_value(row[codes == code], weight[codes == code])) for code in range(4)]])
squared = lambda scales: ((u - restore(codes, scales).view(u.shape)) * s).square().sum().item()
gain = 1 - squared(best) / squared(mean)
claim(
    "04-weighted",
    "With weights the squared error of the matrix is no larger, and less than 2 % smaller.",
    gain,
    low=-1e-6,
    high=0.02,
    unit="%",
)

# %% [markdown]
# The idea is right, and it is worth almost nothing. Singular vectors are all of unit length, and their elements are
# spread much alike, whether the component is strong or weak. So weighting one column more moves the mean of a group
# hardly at all. It is a good habit to measure before you build.

# %% [markdown]
# ## Step 3 · Does the smaller error win?
#
# Now the whole expert. The mean leaves the smaller error. Does it make the better model? Accuracy counts only answers
# that flip, so it is a coarse judge. A finer one is the *KL divergence* $\sum_c p_c \log (p_c / q_c)$ of the rebuilt
# expert's probabilities $q$ from the expert's $p$, averaged over the test images. Its unit is the nat, and it is 0
# when both answer alike.
#
# To see what length does by itself, take *one* remainder $\hat\tau$, the RMS one, and stretch it: $\theta_0 +
# c\,\hat\tau$ for several $c$. The next two cells take five to ten seconds each. (They read test images. Nothing is
# chosen from what you see.)


# %%
def flat(state: dict) -> torch.Tensor:
    """All numbers of a state dict in one row, its tensors in the order of their names."""
    return torch.cat([state[name].flatten() for name in sorted(state)])


def stretched(state: dict, c: float) -> dict:
    """theta_0 plus c times what a state dict adds to it."""
    return {name: x + c * (state[name] - x) for name, x in theta_0.items()}


smaller = {how: compress(theta_0, expert, keep_ratio=0.05, scale=how) for how in ("rms", "mean")}
again = {"rms": rebuild(theta_0, delta), "mean": rebuild(theta_0, compress(theta_0, expert, scale="mean"))}
tau, added = flat(expert) - flat(theta_0), {how: flat(state) - flat(theta_0) for how, state in again.items()}
to_rms = (added["rms"].norm() / added["mean"].norm()).item()
models = again | {"mean, as long": stretched(again["mean"], to_rms)}
models |= {f"{how}, 0.05": rebuild(theta_0, small) for how, small in smaller.items()}
reference = logits(suite, expert, task)
kl = {which: {task: divergence(reference, logits(suite, state, task))} for which, state in models.items()}

# %%
factors = (0.5, 0.7, 0.85, 1.15, 1.35)
for c in factors:
    models[c] = stretched(again["rms"], c)
    kl[c] = {task: divergence(reference, logits(suite, models[c], task))}


def point(which) -> dict:
    """Length, error, KL divergence and its interval of one model."""
    found, draws = flat(models[which]) - flat(theta_0), bootstrap({which: kl[which]})[which][:, 0]
    place = {"length": (found.norm() / tau.norm()).item(), "error": ((found - tau).norm() / tau.norm()).item()}
    return place | {"kl": kl[which][task].mean().item(), "interval": interval(draws)}


# %%
curve = [point(c) for c in sorted([*factors, "rms"], key=lambda c: 1 if c == "rms" else c)]
marks = {"RMS": point("rms"), "mean": point("mean")}
alt = (
    "Two curves against the length of the remainder. Left, the relative error: lowest at about the length that "
    "means give. Right, the KL divergence of the answers: at that length it is clearly higher than at the longer one "
    "that root mean squares give, and near its lowest around the task vector's own length."
)
show(figures.length_and_answers(curve, marks), alt=alt)

# %%
best_length = torch.cosine_similarity(added["rms"], tau, dim=0).item()  # in units of tau's length
off = abs(marks["mean"]["length"] - best_length)
claim("04-mean-shrinks", "Means give, within 0.03, the length at which the error is least.", off, high=0.03)
gap = marks["mean"]["error"] - marks["RMS"]["error"]
claim("04-mean-error", "The whole expert's error is smaller with means.", gap, high=-1e-3)
draws = {which: found[:, 0] for which, found in bootstrap(kl).items()}
share = draws["mean"] / draws["rms"]
claim(
    "04-mean-kl",
    "Yet with means the KL divergence is at least 1.3 times that with the RMS (95 % interval).",
    share.mean().item(),
    low=1.3,
    interval=interval(share),
)

# %% [markdown]
# **What you should see:** two curves, two minima. The error is least for a *shortened* remainder. That is what least
# squares always does when it is unsure: where the direction is wrong, going less far errs less. The answers want
# otherwise. A likely reason: what counts for them is how far the model gets along $\tau$, and a shortened remainder
# stops too early.
#
# Is it really the length alone? Stretch the means' remainder until it is as long as the RMS one, and compare again.

# %%
share = draws["mean, as long"] / draws["rms"]
claim(
    "04-length-alone",
    "Stretched to the RMS's length, means differ from it in KL divergence by less than a tenth (95 % interval).",
    share.mean().item(),
    low=0.9,
    high=1.1,
    interval=interval(share),
)
share = draws["mean, 0.05"] / draws["rms, 0.05"]
claim(
    "04-mean-kl-small",
    "At keep ratio 0.05 too the KL divergence with means is at least 1.2 times that with the RMS (95 % interval).",
    share.mean().item(),
    low=1.2,
    interval=interval(share),
)

# %% [markdown]
# So a lower error need not mean a better model. Here the paper's choice is right, and you know the reason: **it is the
# longer one**. Whether the RMS length is the best is another question. The right curve is flat around its lowest
# point, and nothing says that the lowest point lies in the same place for every task.

# %% [markdown]
# ## Step 4 · Leave scaling out
#
# The paper's ablation leaves out scaling, and loses 2 to 5 points. What can that mean? Codes without any values would
# be $\pm 1$. Singular vectors have unit length, their elements are tiny, so this makes the remainder absurdly long. A
# fair version keeps the length and drops only what distinguishes strong from weak: **one value for a whole factor**,
# plus or minus, such that the factor is as long as before. (This is our reading; the paper's code may do another
# thing.)


# %%
def one_value(coded):
    """The same codes, but strong and weak elements get one size; the factor keeps its length."""
    size = coded.restore().norm() / (coded.elements - len(coded.zeros)) ** 0.5
    return replace(coded, scales=size * coded.scales.sign())


def without_scaling(delta, flatten=one_value):
    """A delta whose factors hold one value each, plus or minus."""
    parts = dict(delta.parts)
    for name, part in parts.items():
        if isinstance(part, LowRank):
            parts[name] = LowRank(flatten(part.left), part.s, flatten(part.right))
        elif isinstance(part, Flat):
            parts[name] = Flat(flatten(part.coded))
    return replace(delta, parts=parts)


# %%
signs = without_scaling(delta, lambda coded: replace(coded, scales=coded.scales.sign()))
long = ((flat(rebuild(theta_0, signs)) - flat(theta_0)).norm() / tau.norm()).item()
claim("04-signs-alone", "With plus and minus one the remainder is over 100 times as long as tau.", long, low=100)

one = flat(rebuild(theta_0, without_scaling(delta))) - flat(theta_0)
turned = best_length - torch.cosine_similarity(one, tau, dim=0).item()
claim(
    "04-one-value",
    "With one value the remainder's cosine with tau is at least 0.1 lower than with the RMS.",
    turned,
    low=0.1,
)

# %% [markdown]
# So this ablation is of another kind than RMS against mean: there the length changed and the direction stayed, here the
# *direction* suffers. The bit that tells strong from weak is still paid for, but it says nothing any more.
#
# Now all tasks, with one value, with means, with the RMS. Each of the next two cells takes ten to fifteen seconds.

# %%
names = ("RMS", "mean", "no scaling")
right, apart = {name: {} for name in ("expert", *names)}, {name: {} for name in names}


def evaluate(task: str) -> None:
    """Fills in which test images each version gets right, and its KL divergence from the expert."""
    expert, labels = suite.expert(task), suite.images(task, "test")[1]
    delta, means = (compress(theta_0, expert, scale=how) for how in ("rms", "mean"))
    answers = {"expert": logits(suite, expert, task)}
    for name, found in zip(names, (delta, means, without_scaling(delta)), strict=True):
        answers[name] = logits(suite, rebuild(theta_0, found), task)
        apart[name][task] = divergence(answers["expert"], answers[name])
    for name, found in answers.items():
        right[name][task] = found.argmax(1) == labels


for one in suite.tasks[:4]:
    evaluate(one)

# %%
for one in suite.tasks[4:]:
    evaluate(one)

# %%
accuracy, far = bootstrap(right), bootstrap(apart)
lost = {name: accuracy["expert"] - accuracy[name] for name in names}
alt = (
    "For each task and for all, with 95 % intervals: left the accuracy lost to the expert in points, where RMS and "
    "mean overlap and no scaling tends to lose most; right the KL divergence on a logarithmic axis, where RMS is "
    "lowest, mean in the middle and no scaling far highest on every task."
)
show(figures.scaling_costs(lost, far, suite.tasks), alt=alt)

# %%
gap = (lost["mean"] - lost["RMS"]).mean(1)
claim(
    "04-accuracy-alike",
    "In mean accuracy RMS and mean differ by less than a point (95 % interval).",
    gap.mean().item(),
    low=-0.01,
    high=0.01,
    interval=interval(gap),
    unit="points",
)
each = [interval(far["mean"][:, n] / far["RMS"][:, n])[0] for n in range(len(suite.tasks))]
claim(
    "04-kl-each",
    "On every task the KL divergence is larger with means than with the RMS (95 % intervals).",
    min(each),
    low=1,
)
share = far["mean"].mean(1) / far["RMS"].mean(1)
claim(
    "04-kl-all",
    "In the mean over the tasks the KL divergence with means is at least 1.3 times that with the RMS (95 % interval).",
    share.mean().item(),
    low=1.3,
    interval=interval(share),
)

# %%
gap = (lost["no scaling"] - lost["RMS"]).mean(1)
claim(
    "04-ablation",
    "Without scaling the mean accuracy is lower than with the RMS, by less than 2 points (95 % interval).",
    gap.mean().item(),
    low=0,
    high=0.02,
    interval=interval(gap),
    unit="points",
)
share = far["no scaling"].mean(1) / far["RMS"].mean(1)
claim(
    "04-ablation-kl",
    "Without scaling the KL divergence is at least 2.5 times that with the RMS (95 % interval).",
    share.mean().item(),
    low=2.5,
    interval=interval(share),
)

# %% [markdown]
# **What you should see:** by KL divergence the RMS wins on every task. By accuracy you cannot tell RMS from mean. Both
# answers are honest. Most images sit far from a decision, so probabilities can move a good deal before an answer
# flips. (The intervals of two rows may overlap in the picture although their *paired* difference is clear.)
#
# And our ablation goes the paper's way, but less far: we lose less than 2 points. Perhaps our tasks forgive more,
# perhaps our version of "without" is milder. We cannot tell which.

# %% [markdown]
# ## Step 5 · Where the 1 % comes from
#
# Now count. First, what is there? `compress` makes a part for each tensor.

# %%
kinds = [type(part).__name__ for part in delta.parts.values()]
print({kind: kinds.count(kind) for kind in sorted(set(kinds))})
elements = sum(part.coded.elements for part in delta.parts.values() if isinstance(part, Flat))
total = sum(x.numel() for x in expert.values())
claim("04-flat-elements", "The Flat parts hold less than 3 % of the parameters.", elements / total, high=0.03, unit="%")
flat_bits = sum(part.coded.bits for part in delta.parts.values() if isinstance(part, Flat))
found = flat_bits / (8 * counts.information)
claim("04-flat-bits", "The Flat parts take at least a tenth of the information.", found, low=0.1, unit="%")

# %% [markdown]
# `LowRank` is a matrix: two factors of codes and the singular values. `Flat` is everything else, biases, norms and
# the patch embedding: codes for every element, no decomposition. A model may also have tensors that are `Unchanged`,
# `Tied` to another one, or `Kept` as they are.
#
# The second claim is a small warning. A flat tensor costs two bits for *each* of its elements, whatever the keep ratio.
# The fewer components you keep, the more of the file is flat tensors.
#
# "About 1 %" can mean three different things, and papers mix them:
#
# | count | what it counts |
# |---|---|
# | *paper* | as the reference code does: 3 bits a code, 32 a singular value, nothing for scales |
# | *information* | what has to be held: 2 bits a code, singular values, scales, the places of zeros |
# | *file* | the file on disk, header and all |

# %%
for count in ("paper", "information", "file"):
    print(f"{count:<12}{100 * counts.share(count):4.1f} % of {counts.model / 2**20:.0f} MiB")
found = counts.paper / counts.information
claim("04-paper-count", "The paper counts 1.3 to 1.5 times the information.", found, low=1.3, high=1.5)

# %% [markdown]
# ### Exercise 3 · Bit by bit (medium, 8 minutes)
#
# How many bits of information does one `m x n` matrix take at rank `r` with four groups? Count the codes of both
# factors, the singular values (32 bits each) and the scales (32 bits each). Take it that there are no exact zeros.


# %% tags=["exercise"]
def information_bits(m: int, n: int, r: int) -> int:
    """Bits of an (m, n) matrix at rank r with four groups: codes of both factors, singular values, scales."""
    codes = 2 * (m + n) * r
    values = 32 * r
    scales = 2 * 4 * 32
    return codes + values + scales


# %%
information_bits = check(information_bits)
# hint("information_bits")

# %% [markdown]
# Does your formula hold? And what does it say of large matrices? Leave the small terms out. A square $d \times d$
# matrix at keep ratio $\rho$ has $r = \rho d$ and takes $2 \cdot 2d \cdot \rho d$ of its $32 d^2$ bits: the share
# $\rho / 8$. An MLP matrix, $4d \times d$, takes $2 \cdot 5d \cdot \rho d$ of $128 d^2$: the share
# $\frac{10}{128}\rho \approx 0.078 \rho$. Longer matrices are cheaper.

# %%
part = delta.parts[name]
off = information_bits(*M.shape, rank) - (part.left.bits + part.right.bits + 32 * len(part.s))
claim("04-bits", "The formula gives the bits of the one matrix exactly.", off, low=0, high=0, unit="bits")
big, keep = 8_000, 0.1
shares = [information_bits(m, big, round(keep * big)) / (32 * m * big) / keep for m in (big, 4 * big)]
claim("04-square", "A large square matrix takes the share keep ratio / 8, to 0.5 %.", shares[0], low=0.125, high=0.1255)
claim("04-long", "A large 4d x d matrix takes about 0.078 times the keep ratio.", shares[1], low=0.078, high=0.079)

# %% [markdown]
# ### Exercise 4 · From a budget to a rank (hard, 10 minutes)
#
# Now the other way round. You have a budget of `bits` for one `m x n` matrix. Which is the largest rank that fits? A
# budget may be too small for anything, and it may be larger than the matrix can use.


# %% tags=["exercise"]
def rank_within_bits(m: int, n: int, bits: int) -> int:
    """The largest rank at which an (m, n) matrix takes at most ``bits`` of information; 0 when not even one fits."""
    room = bits - 2 * 4 * 32
    return max(0, min(room // (2 * (m + n) + 32), m, n))


# %%
rank_within_bits = check(rank_within_bits)
# hint("rank_within_bits")

# %% [markdown]
# With it you can ask what two bits are worth. Spend the *same* bits on fewer components whose factors stay float16 or
# float32, without thresholding or scaling. How many components do you get, and which error is smaller?

# %%
bits = information_bits(*M.shape, rank)
fewer = {width: bits // (width * sum(M.shape) + 32) for width in (16, 32)}
print("components for the same bits:", {2: rank_within_bits(*M.shape, bits)} | fewer)
plain = min(decompose(M, r).error for r in fewer.values())
claim(
    "04-two-bits",
    "At the same bits, two-bit factors leave a smaller error than float ones.",
    error["rms"] - plain,
    high=0,
)
full = rank_within_bits(*M.shape, 32 * M.numel())
claim(
    "04-always-fits", "Even all 192 components in two bits cost less than the matrix itself.", full, low=192, high=192
)

# %% [markdown]
# **What you should see:** many coarse directions beat a few exact ones. That is the heart of the method. At full rank
# you would still be far below the matrix's own size, so the rank is free to choose: what limits it is the budget
# alone.

# %% [markdown]
# ### The paper's model
#
# Bits depend on shapes alone. So you can recompute the paper's storage for CLIP ViT-B/32 without downloading
# it: PyTorch's `meta` device makes tensors that have a shape and no content.

# %%
from math import prod

import open_clip

with torch.device("meta"):
    clip = open_clip.CLIP(**open_clip.get_model_config("ViT-B-32"))
shapes = {name: tuple(x.shape) for name, x in clip.named_parameters()}


# %%
def share_of(shapes: list, keep_ratio: float, code: int, scales: int) -> float:
    """Bits of DTS for a model of these shapes, as a share of float32: ``code`` bits a code, ``scales`` a factor."""
    bits = 0
    for shape in shapes:
        r = rank_of(shape, keep_ratio) if len(shape) == 2 else 0
        bits += (code * sum(shape) + 32) * r + 2 * scales if r else code * prod(shape) + scales
    return bits / (32 * sum(map(prod, shapes)))


mini = share_of([tuple(x.shape) for x in expert.values()], 0.1, code=3, scales=0)
claim(
    "04-share-of",
    "On the mini suite share_of gives the paper count.",
    mini / counts.share("paper"),
    low=0.9999,
    high=1.0001,
)

# %% [markdown]
# Which tensors belong to "the model"? The image tower, surely. The paper's code leaves the blocks of the text tower
# out, but not its embeddings, which are frozen and never change: it counts bits for them and parameters too.

# %%
tower = [shape for name, shape in shapes.items() if name.startswith("visual.")]
counted = [shape for name, shape in shapes.items() if not name.startswith("transformer.")]  # the text tower's blocks
paper, ours = share_of(counted, 0.3, code=3, scales=0), share_of(tower, 0.3, code=2, scales=4 * 32)
small = share_of(tower, 0.1, code=2, scales=4 * 32)
claim(
    "04-clip-paper",
    "Counted as the paper does, ViT-B/32 takes 3.68 % at keep ratio 0.3.",
    paper,
    low=0.03675,
    high=0.03685,
    unit="%",
)
claim(
    "04-clip-tower",
    "In two bits the image tower of ViT-B/32 takes 2.62 % at keep ratio 0.3.",
    ours,
    low=0.02615,
    high=0.02625,
    unit="%",
)
claim(
    "04-clip-small",
    "At keep ratio 0.1 the image tower of ViT-B/32 takes 0.98 %.",
    small,
    low=0.00975,
    high=0.00985,
    unit="%",
)

# %% [markdown]
# **What you should see:** the paper's 3.68 %, from shapes alone. Now you know where "1 %" comes from, and what it is
# not. The paper's vision result stands at 3.68 %, by a count that is too high in one respect (3 bits where 2 suffice)
# and odd in another (frozen tensors on both sides of the fraction). Below 1 % are its language results, at a lower keep
# ratio. The percentage follows from the keep ratio, and somebody *chose* that.

# %% [markdown]
# ## Step 6 · The file on disk
#
# Information has to be put somewhere. The obvious way is a safetensors file with an entry for each thing: codes,
# scales, singular values, zeros of every tensor. What does it cost?

# %%
import safetensors.torch

entries = {}
for tensor, part in delta.parts.items():
    if not isinstance(part, LowRank | Flat):
        continue  # a tensor that did not change needs no entry
    factors = {"u": part.left, "v": part.right} if isinstance(part, LowRank) else {"x": part.coded}
    for side, coded in factors.items():
        found = {"codes": coded.codes, "scales": coded.scales, "zeros": coded.zeros}
        entries |= {f"{tensor}.{side}.{kind}": x for kind, x in found.items()}
    if isinstance(part, LowRank):
        entries[f"{tensor}.s"] = part.s
naive, ours = safetensors.torch.save(entries), delta.to_bytes()
header = lambda data: 8 + int.from_bytes(data[:8], "little")  # the first eight bytes say how long the header is
print("entries:", len(entries), "in the obvious file,", len(safetensors.torch.load(ours)), "in ours")

# %%
each = header(naive) / len(entries)
claim(
    "04-header-each",
    "In the obvious file every entry costs 90 to 120 bytes of header.",
    each,
    low=90,
    high=120,
    unit="bytes",
)
found = header(naive) / len(naive)
claim("04-header-naive", "In the obvious file the header is over a fifth of all bytes.", found, low=0.2, unit="%")
found = figures.delta_bytes(delta)["header and table"] / len(ours)
claim("04-header-ours", "Our header and table are less than 3 % of the file.", found, high=0.03, unit="%")

# %% [markdown]
# A header names every entry, its type, its shape and its place, in plain text. For a layer of a large model that is
# nothing. For four scales it is more than what it describes. So `dts_mini` joins all codes into one tensor, all
# values into another, and keeps one compressed table of what lies where.
#
# A file that is so dense has no slack: one wrong bit gives wrong weights, silently. So the header also holds a digest
# of every byte. Write the file, read it, and try to fool it.

# %%
from pathlib import Path
from tempfile import TemporaryDirectory

with TemporaryDirectory() as folder:
    path = delta.save(Path(folder) / "task.dts.safetensors")
    data, loaded = path.read_bytes(), rebuild(theta_0, load(path))
    same = sum(torch.equal(loaded[name], again["rms"][name]) for name in loaded)
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))  # one bit flipped
    try:
        load(path)
    except Exception as problem:
        print(f"{type(problem).__name__}: one flipped bit is refused")
claim("04-file-length", "The file is as long as storage says.", len(data) - counts.file, low=0, high=0, unit="bytes")
claim("04-loaded", "From the file, every tensor is rebuilt bit for bit.", same - len(loaded), low=0, high=0)

# %% [markdown]
# One thing is left in the picture at the top: *zeros*. An element that is exactly zero is in no group, and two bits
# have no word for it, so its place is listed in 32 bits. But who would expect that fine-tuning leaves a number
# *exactly* as it was? Look at how the checkpoints are stored.

# %%
half = all(torch.equal(x, x.half().float()) for state in (theta_0, expert) for x in state.values())
print("every number of both models is a float16 number:", half)
zeros = lambda a, b: sum(((a[name] - b[name]) == 0).sum().item() for name in a)
rounded = [{name: x.bfloat16().float() for name, x in state.items()} for state in (expert, theta_0)]
claim(
    "04-zeros",
    "Between 0.2 % and 1 % of the expert's numbers equal those of theta_0.",
    zeros(expert, theta_0) / total,
    low=0.002,
    high=0.01,
    unit="%",
)
found = zeros(*rounded) / zeros(expert, theta_0)
claim("04-zeros-bfloat16", "Stored as bfloat16, over five times as many numbers would be equal.", found, low=5)

# %%
listed = sum(len(p.left.zeros) + len(p.right.zeros) for p in delta.parts.values() if isinstance(p, LowRank))
claim("04-zeros-matrices", "In the factors of all matrices there are at most 10 exact zeros.", listed, high=10)
found = figures.delta_bytes(delta)["zeros"] / counts.file
claim(
    "04-zeros-bytes", "Listing the zeros of the Flat parts takes at most 3 % of the file.", found, high=0.03, unit="%"
)

# %% [markdown]
# **What you should see:** the zeros come from the *format*, not from learning. Checkpoints are saved in 16 bits.
# Where fine-tuning moved a number by less than the spacing of float16, it falls back on the old value. In matrices
# this does not matter, since singular vectors have practically no exact zeros. In flat tensors each costs 32 bits
# where a code costs 2. With a coarser format it would matter more. So where zeros are many, the file turns the list
# into a mask of one bit an element.

# %% [markdown]
# ## Recap
#
# - The mean makes a group's error least, the RMS keeps its length. The results point the same way; choosing a scale is
#   choosing a length, and the answers prefer the longer one although its error is larger.
# - Nearly all bits are codes. A square matrix takes the share keep ratio / 8, a long one less; flat tensors cost two
#   bits an element whatever you choose. The 1 % is a choice, and it depends on who counts.
# - Small files need care: join what belongs together, guard every bit, and mind the exact zeros.
#
# **What would change our mind.** A suite on which means give the smaller KL divergence; or one where a stretched
# remainder no longer follows the same curve as the two scales, so that a scale would be more than a length.
#
# **In the paper.** Section 3 (scaling), the storage column of its ViT-B/32 table, and the ablation without scaling.

# %% [markdown]
# ## Quiz
#
# **1.** You double the keep ratio. What happens to the codes, to the singular values, and to the scales?
#
# <details><summary>Answer</summary>
#
# The codes of matrices and the singular values double. The codes of flat tensors stay as they are, and so do the
# scales: four a factor, whatever the rank.
# </details>
#
# **2.** A colleague finds values for the groups with a smaller error than the RMS and says the model must be better.
# What do you ask?
#
# <details><summary>Answer</summary>
#
# How long is the rebuilt task vector now? If it became shorter, the smaller error may be shrinkage alone. Stretch it to
# the same length and compare the answers, not the errors.
# </details>
#
# **3.** One paper reports its storage with three bits a code, another the bytes of its files. May you compare them?
#
# <details><summary>Answer</summary>
#
# No. Recompute both in one count. And check what the percentage is of: the image tower, or the tower with frozen
# tensors of the text tower beside it.
# </details>
#
# **Next:** 07 · Personalised merging: what eight such files bring back, and over which base.
