# %% [markdown]
# # 03 · Thresholding: four groups, two bits
#
# After this you can sort the elements of a factor into four groups, say what each of the two bits is good for, and
# judge by measurement where the groups should be cut. And you have rebuilt a whole expert from codes of your own.

# %% [markdown]
# > **Goals.** You *write* `threshold`, the T of DTS. You *measure* how many bits a code really needs, and what another
# > cut or another number of groups would bring. You *tell apart* what a matrix gains and what a model gains.
# >
# > **Before you start.** You can decompose a matrix (notebook 02). You know what a median is.
# >
# > **Time.** 20 minutes to read, 53 for the exercises, about 30 seconds to run on a laptop's CPU. Needs no network.

# %% [markdown]
# ## The question
#
# Notebook 02 left you with a few components of each matrix: $U_r$, $s$ and $V_r^\top$. The factors are thin, but
# each of their elements is still a number of 32 bits. The method keeps two bits for each. **What should these two
# bits say?**

# %%
# Importing takes about five seconds.
import torch

from dts_mini import compress, rebuild, storage
from dts_mini.course import bring, check, claim, figures, hint, show, sliders
from dts_mini.course.trial import Trial
from dts_mini.suites import load_suite

suite = load_suite()
task, name = suite.example, "transformer.resblocks.2.mlp.c_fc.weight"
theta_0, expert = suite.pretrained(), suite.expert(task)

# %% [markdown]
# `bring` fetches your `decompose` from notebook 02, as you last saved it in this folder. Where yours does not pass, or
# the notebook is not here, the solution takes its place, and the line says so.

# %%
decompose = bring("decompose")

# %% [markdown]
# You take the matrix of notebook 02: what fine-tuning on `house numbers` changed in one layer of the image tower.
# Here is a corner of its factor $U$, a row for each component, before and after.

# %%
M = expert[name] - theta_0[name]
U, s, Vt = decompose(M, keep_ratio=0.1)
show(figures.numbers_and_codes(U.T))

# %% [markdown]
# **What you should see:** above, numbers. Below, for each number only the name of a *group*: is it
# positive or negative, and is it strong or weak? The name is called the element's *code*. Which value each group should
# have is the question of notebook 04. This notebook is about the codes.

# %% [markdown]
# ## Step 1 · The rule
#
# The rule has four sentences.
#
# - **All of $U_r$ at once.** The elements of all columns go into one heap. The elements of $V_r$ go into a heap of
#   their own.
# - **By sign.** The positive elements of the heap are separated from the negative ones.
# - **By size.** Of the positive elements the larger half is *strong* (code 3), the rest *weak* (code 2). Of the
#   negative ones the half that is larger in size is strong (code 0), the rest weak (code 1). "Half" is rounded down.
#   Of equal elements the first ones count as larger, when the heap is read row by row.
# - **Zeros.** An element that is exactly zero has no sign, so it belongs to no group. In this course it has the code
#   4.
#
# So `[0.9, -0.1, 0.0, 0.4, -0.7, 0.2]` becomes `[3, 1, 4, 2, 0, 2]`: of three positive elements one is strong, half of
# three rounded down.

# %% [markdown]
# ### Exercise 1 · threshold (medium, 12 minutes)
#
# Write the rule. Four things easily go wrong: one median for both signs, half of an odd number, equal elements, and
# zeros. A factor is a matrix, other tensors have other shapes: the codes keep the shape.


# %% tags=["exercise"]
def threshold(x: torch.Tensor) -> torch.Tensor:
    """Elements of any shape -> their codes, integers in that shape: 0 and 1 negative, 2 and 3 positive, 4 zero."""
    flat = x.flatten()
    codes = torch.full(flat.shape, 4, device=x.device)
    for sign, weak, strong in ((1, 2, 3), (-1, 1, 0)):
        order = (sign * flat).argsort(descending=True, stable=True)[: int((sign * flat > 0).sum())]
        half = len(order) // 2
        codes[order[:half]], codes[order[half:]] = strong, weak
    return codes.view_as(x)


# %%
threshold = check(threshold)
# hint("threshold")

# %% [markdown]
# Now the whole of $U$, by your function. Each colour below is one group.

# %%
codes = threshold(U)
show(figures.group_histogram(U, codes))

# %%
count = codes.flatten().bincount(minlength=5)
print("elements of U with the codes 0, 1, 2, 3, 4:", *(f"{share:.0%}" for share in (count / count.sum()).tolist()))

# %%
joint = threshold(torch.cat([U.flatten(), Vt.flatten()]))[U.numel() :]
strong = ((joint == 0) | (joint == 3)).float().mean().item()
sentence = "In one heap with U, over 60 % of the elements of V would be strong."
claim("03-two-heaps", sentence, strong, low=0.6, unit="%")

# %% [markdown]
# **What you should see:** four groups of the same size. The positive and the negative side turn out equally full,
# although nothing in the rule asks for it.
#
# Why two heaps? All columns of $U$ and all rows of $V^\top$ have length one. But the columns of $U$ are longer lists
# here, so their elements are smaller. In one heap, $U$ would get too few strong elements and $V$ too many.

# %% [markdown]
# ### Exercise 2 · From codes back to numbers (easy, 5 minutes)
#
# To judge codes you must turn them back into numbers. For now every element becomes the *mean* of its group, the value
# with the smallest squared error.


# %% tags=["exercise"]
def averaged(x: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """Elements and their codes, in one shape -> each element replaced by the mean of its group; zero stays zero."""
    values = torch.zeros_like(x)
    for code in range(4):
        group = codes == code
        values[group] = x[group].mean()
    return values


# %%
averaged = check(averaged)
# hint("averaged")

# %% [markdown]
# ## Step 2 · Why by sign?
#
# An element has a sign and a size. You have two bits for both. Which matters more?
#
# Try it. Keep the signs of $U$ and $V$ and forget all sizes, so that every element is $1$ or $-1$: one bit for each.
# Then do the reverse: keep every size exactly, in 31 bits, and forget the signs. Rebuild the matrix and look at its
# *cosine* with $M$: does it still point the same way? (The cosine ignores lengths, which are far too large with $1$ and
# $-1$.) The singular values are kept in all cases.
#
# **Predict first.** Which is nearer to $M$, 31 bits of size or one bit of sign? And what does the second of your two
# bits add?


# %%
def coarse(x):
    """A factor after your codes: each element is the mean of its group."""
    return averaged(x, threshold(x))


parts = {"sizes alone, 31 bits": torch.abs, "signs alone, 1 bit": torch.sign, "four groups, 2 bits": coarse}
rebuilt = {part: keep(U) * s @ keep(Vt) for part, keep in parts.items()}

# %% tags=["answer"]
figure, data = figures.kept_parts(M, rebuilt, exact=U * s @ Vt)
show(figure)
sizes, signs, groups = data["cosine"].values()
claim("03-sizes", "With sizes alone the cosine with M is below 0.05: nothing is left.", abs(sizes), high=0.05)
claim("03-signs", "With signs alone it is above 0.4.", signs, low=0.4)
claim("03-groups", "The second bit, strong or weak, adds at least 0.1 to the cosine.", groups - signs, low=0.1)

# %% [markdown]
# <details><summary>What you should see</summary>
#
# A missing bar. 31 exact bits are worth nothing without the one that is left out. The reason is that a component is a
# *pattern* of plus and minus. The columns of $U$ are at right angles because their pluses and minuses cancel. Without
# signs nothing cancels, and all columns become much the same.
# </details>
#
# So the first bit is the sign. That much is not a matter of taste.

# %% [markdown]
# ## Step 3 · Why at the median?
#
# The second bit says "strong" or "weak". The rule cuts each sign at its median. What speaks for it?
#
# The answer has to do with *entropy*. Let $p_g$ be the share of the codes that are $g$. An ideal way of writing the
# codes down, short words for frequent codes and long ones for rare codes, needs
#
# $$H = -\sum_g p_g \log_2 p_g$$
#
# bits per code on average. No way of writing them one by one needs fewer. $H$ is largest when all codes are equally
# frequent. Where some codes are rare, a file that spends the same number of bits on every code wastes room.

# %% [markdown]
# ### Exercise 3 · The bits that codes need (easy, 5 minutes)
#
# You get how often each code occurs. A code that never occurs adds nothing.

# %% tags=["exercise"]
import math


def entropy_bits(counts: list[int]) -> float:
    """How often each code occurs -> bits per code, on average, that an ideal code for them needs."""
    total = sum(counts)
    shares = [count / total for count in counts if count > 0]
    return -sum(p * math.log2(p) for p in shares)


# %%
entropy_bits = check(entropy_bits)
# hint("entropy_bits")

# %%
needed = entropy_bits(count.tolist())
claim("03-entropy", "The codes of U need at least 1.99 of their 2 bits.", needed, low=1.99, unit="bits")

# %% [markdown]
# So with the median no bit is wasted. That is a good property. But is it the one you want? You want a small *error*. So
# move the cut, and see. The *cut* is the share of each sign's elements that is called weak; at 0.5 it is the
# median.
#
# **Predict first.** Where is the error smallest: at the median, left of it (more strong elements) or right of it
# (fewer)?


# %% tags=["answer"]
cuts = [k / 20 for k in range(2, 19)]
figure, data = figures.cut_curve(M, (U, s, Vt), averaged, entropy_bits, cuts)
show(figure)
error = data["matrix: M against its rebuilt form"]
best = data["least"]["matrix: M against its rebuilt form"]
sentence = "The best cut of this matrix calls between 60 and 75 % of the elements weak."
claim("03-cut-best", sentence, best, low=0.6, high=0.75, unit="%")
sentence = "Against the best cut, the median costs between 1 and 4 points of relative error."
claim("03-cut-price", sentence, error[0.5] - error[best], low=0.01, high=0.04, unit="points")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# Two panels that disagree. The entropy is highest at the median. Both errors are smallest well to the right of it. Few
# elements are very large, and a smaller strong group can follow them better.
#
# This is the surprise of the notebook: **the median is a good cut, not the best one.** Both cuts store two bits per
# element. The better cut even *needs* fewer, if somebody took the trouble to compress its codes.
# </details>
#
# Why does the error have its lowest point there? Each group becomes its mean, so the best cut lies halfway between the
# two means. If it did not, some element would be nearer to the other group's mean, and you could move it there. The
# method that moves means and cuts alternately until both fit is called *Lloyd-Max*. With two groups for each sign you can
# simply try every cut.

# %% [markdown]
# ### Exercise 4 · The best cut (hard, 15 minutes)
#
# (Nothing later needs it: leave it for a second reading if you like.) You get the sizes of one sign's elements. Each
# group becomes its mean. How many elements should be strong, so that the sum of squared errors is smallest? Start with
# a loop over all numbers of strong elements. Then make it fast: with the elements sorted and their running sums, every
# cut is one subtraction.


# %% tags=["exercise"]
def best_cut(sizes: torch.Tensor) -> int:
    """Sizes (n,) of one sign's elements, n > 1 -> how many, counted from the largest, to call strong.

    Strong and weak elements each become the mean of their group; the sum of squared errors is to be smallest.
    """
    x = sizes.double().sort(descending=True).values
    n, strong = len(x), torch.arange(1, len(x))
    sums = x.cumsum(0)
    explained = sums[:-1].square() / strong + (sums[-1] - sums[:-1]).square() / (n - strong)
    return int(explained.argmax()) + 1


# %%
best_cut = check(best_cut)
# hint("best_cut")

# %% [markdown]
# Does it agree with the curve? And is that cut special to this matrix, or would any bell-shaped distribution have it?

# %%
positive, normal = U[U > 0], torch.randn(20_000, generator=torch.Generator().manual_seed(0)).abs()
print(f"weak at the best cut: {1 - best_cut(positive) / len(positive):.0%} of the positive elements of U")

# %%
sentence = "For normally distributed elements the best cut calls between 65 and 70 % weak."
claim("03-normal-cut", sentence, 1 - best_cut(normal) / len(normal), low=0.65, high=0.70, unit="%")

# %% [markdown]
# **What you should see:** nearly the same cut for both. So you need not store it with each matrix: a fixed cut will
# do.
#
# Does a *model* notice? Notebook 10 measures better cuts and better values together, for all eight experts.

# %% [markdown]
# ## Step 4 · A whole expert from your codes
#
# Why: so far you looked at one matrix. Now the expert: `decompose` and your `threshold` for every matrix. Biases, norms
# and convolutions are not decomposed. Their elements go into groups as they are. The function that makes a tensor
# coarse is handed in, so that you can try others later.


# %%
def kept_of(tau, coarse, keep_ratio=0.1):
    """What is kept of one tensor of a task vector."""
    if tau.dim() != 2:
        return coarse(tau)
    U, s, Vt = decompose(tau, keep_ratio)
    return coarse(U) * s @ coarse(Vt)


mine = {n: x + kept_of(expert[n] - x, coarse) for n, x in theta_0.items()}

# %%
trial = Trial(suite, task)  # the expert on its test images
answers = {"yours": trial.answers(mine), "zero-shot": trial.answers(theta_0)}

# %%
library = rebuild(theta_0, compress(theta_0, expert, scale="mean"))
apart = max((mine[n] - library[n]).abs().max().item() for n in mine)
sentence = "Your expert is the library's, number by number, to rounding."
yours = ("decompose", "threshold", "averaged")
claim("03-library", sentence, apart, high=1e-4, of=yours)
lost = trial.gap(trial.expert, answers["yours"], "right")
sentence = "Rebuilt from your codes, the expert loses at most 3 points of accuracy."
claim("03-accuracy", sentence, high=0.03, unit="points", of=yours, **lost)
far = trial.gap(answers["yours"], trial.expert, "kl")
sentence = "Its KL divergence from the expert is below 0.05 nats."
claim("03-kl", sentence, high=0.05, unit="nats", **far)
start = trial.gap(answers["zero-shot"], trial.expert, "kl")
claim("03-kl-start", "That of the pretrained model is over 0.5 nats.", low=0.5, unit="nats", **start)

# %% [markdown]
# **What you should see:** an expert, back from two bits for each element of its factors. (The KL divergence is that of
# [notebook 02](02_decomposition.ipynb), Step 5. Notebook 05 counts the bytes.)
#
# One thing is easily forgotten: **two bits have no word for zero.** There are four codes and four groups. In factors of
# an SVD a zero hardly occurs. But in the tensors that are not decomposed, an element may not have moved at all. Count
# the elements with your code 4:

# %%
zeros = {n: (threshold(expert[n] - x) == 4).sum().item() for n, x in theta_0.items() if x.dim() != 2}
print("exact zeros in biases, norms and the convolution:", sum(zeros.values()))
print("exact zeros in U and V^T of the matrix above:", sum((threshold(x) == 4).sum().item() for x in (U, Vt)))

# %% [markdown]
# **What you should see:** in the factors no zero, elsewhere a few hundred. A file must list their places: with the code
# of a weak group they would come back as a change that fine-tuning never made.

# %% [markdown]
# ## Step 5 · Two, four or eight groups? (can be skipped at first)
#
# Two groups are the signs alone, 1 bit. Eight groups halve each of the four once more, 3 bits. Move the slider to see
# what that does to the matrix. The grid behind it takes about 5 seconds.

# %% tags=["nbval-ignore-output"]
sliders.widget("groups")

# %% [markdown]
# **What you should see:** at one rank, more groups always win. Of course they do: they spend more bits. The fair
# question is what to do with a *given number of bits*: many coarse components, or few fine ones?

# %% [markdown]
# ### Exercise 5 · Two, four or eight groups (medium, 8 minutes)
#
# Make all three of what you have: `threshold` and `averaged`. Each element becomes the mean of its group. With two
# groups, the groups are the signs. With eight, each of the four groups is halved by the same rule: when everything else
# is zero, `threshold` tells strong from weak *within* a group.


# %% tags=["exercise"]
def grouped(x: torch.Tensor, groups: int) -> torch.Tensor:
    """Elements of any shape -> each replaced by the mean of its group, of 2, 4 or 8 groups; zero stays zero."""
    codes = threshold(x)
    if groups == 2:
        return averaged(x, codes // 2)
    if groups == 4:
        return averaged(x, codes)
    parts = [x.where(codes == code, 0) for code in range(4)]
    return sum(averaged(part, threshold(part)) for part in parts)


# %%
grouped = check(grouped)
# hint("grouped")

# %% [markdown]
# ### Exercise 6 · The rank for the same bits (medium, 8 minutes)
#
# A matrix takes `r` components with four groups. Which rank may it have with two or eight groups, for no more bits?
# Count the codes of both factors, a singular value of 32 bits for each component, and a scale of 32 bits for each
# group of each factor. (A *scale* is the value that a group becomes.) Where not even one component fits, the rank is 0.


# %% tags=["exercise"]
def same_bits_rank(m: int, n: int, r: int, groups: int) -> int:
    """The largest rank at which an (m, n) matrix with 2, 4 or 8 groups takes no more bits than rank r with four."""
    budget = r * (2 * (m + n) + 32) + 2 * 4 * 32
    bits = groups.bit_length() - 1
    return max(0, min(m, n, (budget - 2 * groups * 32) // (bits * (m + n) + 32)))


# %%
same_bits_rank = check(same_bits_rank)
# hint("same_bits_rank")

# %% [markdown]
# Trade rank for groups in every matrix. (Biases, norms and the convolution have no rank to trade, so the bits agree
# only roughly.) The cell after the next evaluates three models and takes about five seconds.

# %%
ratio = {groups: same_bits_rank(*M.shape, len(s), groups) / min(M.shape) for groups in (2, 4, 8)}
print("rank for the same bits:", {groups: round(share * min(M.shape)) for groups, share in ratio.items()})

# %%
found = {}
for groups, share in ratio.items():
    how = lambda x, groups=groups: grouped(x, groups)
    found[groups] = trial.answers({n: x + kept_of(expert[n] - x, how, share) for n, x in theta_0.items()})

# %%
show(figures.groups_traded({"mean of the group": found}, trial.expert["right"]))

# %%
sentence = "At the same bits, four groups bring the model at least 0.02 nats nearer than two."
claim("03-two-model", sentence, low=0.02, unit="nats", **trial.gap(found[2], found[4], "kl"))
sentence = "Eight groups bring it at least 0.003 nats nearer still."
claim("03-eight-mean", sentence, low=0.003, unit="nats", **trial.gap(found[4], found[8], "kl"))

# %% [markdown]
# **What you should see:** two groups are a bad bargain. Their rank is higher, but that does not make up for the crude
# elements. Eight groups against four is a closer call: here they are a little ahead. That is not the last word, for the
# value that a group becomes matters, too; notebook 04 asks again.
#
# A footnote on counting. The paper's code counts 3 bits for each code of its four groups. Whoever really spends 3
# bits can have eight groups for them. In this course a code of four groups takes 2 bits.

# %% [markdown]
# ## Step 6 · One partition for a matrix, or one for each vector? (can be skipped at first)
#
# The paper says it in two ways. Its abstract speaks of groups "within each singular vector". Its code makes one
# partition of the whole of $U_r$, and one of $V_r$. With a partition for each vector, each has its own median, and
# later its own four scales. Your `threshold` can do both: give it one vector at a time.

# %%
by_vector = torch.stack([threshold(column) for column in U.T], 1)
print(f"elements of U with another code: {(by_vector != codes).float().mean():.0%}")


# %%
def kept_by_vector(tau):
    """What is kept of a matrix when each of its vectors is a heap of its own."""
    U, s, Vt = decompose(tau, 0.1)
    each = lambda vectors: torch.stack([coarse(vector) for vector in vectors])
    return each(U.T).T * s @ each(Vt)


matrices = {n: x + kept_by_vector(expert[n] - x) for n, x in theta_0.items() if x.dim() == 2}
by_vectors = trial.answers(mine | matrices)

# %%
size = {per: storage(compress(theta_0, expert, per=per)).information for per in ("matrix", "vector")}
sentence = "With a partition for each vector, the information of the whole expert grows by 4 to 8 %."
claim("03-vector-bytes", sentence, size["vector"] / size["matrix"] - 1, low=0.04, high=0.08, unit="%")
sentence = "With a partition for each vector, the KL divergence changes by less than 0.006 nats."
change = trial.gap(answers["yours"], by_vectors, "kl")
claim("03-vector-model", sentence, low=-0.006, high=0.006, unit="nats", **change)

# %% [markdown]
# **What you should see:** the two readings are close. A partition for each vector costs bytes, and the model hardly
# changes. Vectors of this small model are short, so their scales weigh a lot. In a large model they weigh less. The
# course follows the paper's code.

# %% [markdown]
# ## Recap
#
# - You own `threshold`: four groups by sign and by size, with counted halves and separate zeros.
# - The first bit is the sign, and nothing works without it. The second says strong or weak.
# - The median uses both bits fully. It is not the cut with the smallest error.
# - An expert comes back from these codes. At the same bits, two groups are clearly worse than four.
#
# **What would change our mind.** An expert for which two groups at the same bits are as good as four. All this is one
# expert of a small model, and a partition for each vector costs less in a larger one.
#
# **In the paper.** This is the thresholding step of its method section. Its ablation leaves out thresholding or
# scaling, and loses 2 to 5 points. Why four groups is a question that its public reviewers asked; Step 5 begins our
# answer.

# %% [markdown]
# ## Quiz
#
# **1.** Somebody thresholds $U$ by size alone, with four groups from tiny to huge, two bits per element. What comes
# back?
#
# <details><summary>Answer</summary>
#
# Nothing useful. Without signs the columns of $U$ all become much the same, and so do the rows of $V^\top$. The cosine
# with $M$ is about zero, as in Step 2.
# </details>
#
# **2.** With the better cut, the codes have less entropy. Does the file of this course become smaller?
#
# <details><summary>Answer</summary>
#
# No. It spends two bits on every code, however often the code occurs. An entropy coder would be needed to profit.
# With the median it would find nothing to save.
# </details>
#
# **3.** Two laptops decompose one matrix, and their SVDs return the same components, some of them with opposite signs.
# Why do their codes agree?
#
# <details><summary>Answer</summary>
#
# `decompose` settles the signs before any element gets a code: the element of largest size in each row of $V^\top$ is
# positive. Otherwise every element of a component with opposite signs would be in another group.
# </details>
#
# **Next:** [04 · Scaling](04_scaling.ipynb): which value should a group become?
