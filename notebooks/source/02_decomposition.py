# %% [markdown]
# # 02 · Decomposition: how few directions hold a task vector?
#
# After this you can take a task vector apart into components, say before you rebuild it what leaving some out costs,
# and show that this cost says little about the model's answers. And you have written the first third of DTS.

# %% [markdown]
# > **Goals.** You *write* `decompose`, the D of DTS. You *read* the energy of a matrix and *predict* the error of a
# > truncation from singular values alone. You *measure* what rank does to accuracy, and see how little the error of a
# > matrix says about it.
# >
# > **Before you start.** Notebook 01: task vectors. Matrix products and transposes; you have heard of eigenvectors.
# >
# > **Time.** 20 minutes to read, 38 for the exercises. It runs in about half a minute on a laptop's CPU; the cells
# > that evaluate several models take five to ten seconds each. It needs no network.

# %% [markdown]
# ## The question
#
# A task vector has as many numbers as the model. To store it in a small file, you must describe it in fewer. Notebook
# 01 showed that no layer can be left out. So look *inside* a layer: **how few directions of a matrix hold what
# fine-tuning did?**
#
# You follow one matrix $M$, the part of one task vector $\tau$ that belongs to one layer. Later you do the same to
# the whole model.

# %%
# Importing takes about five seconds.
import torch

from dts_mini.core import svd
from dts_mini.course import check, claim, figures, hint, show, sliders
from dts_mini.course.trial import Trial, equally_wrong
from dts_mini.suites import load_suite

suite = load_suite()
task, name = suite.example, "transformer.resblocks.2.mlp.c_fc.weight"
theta_0, expert = suite.pretrained(), suite.expert(task)

# %%
M = expert[name] - theta_0[name]
print(f"M is what fine-tuning on {task} changed in {name}: {M.shape[0]} x {M.shape[1]} numbers")

# %% [markdown]
# One picture first: a corner of $M$, and what is left of it when you describe the whole matrix by a few directions
# only. What "describe" means comes next.

# %%
show(figures.described(M, (19, 5, 1)))

# %% [markdown]
# **What you should see:** detail disappears first, stripes last: rows and columns that change as one.

# %% [markdown]
# ## Step 1 · Components
#
# Why: you need building blocks that can be sorted by how much they matter. The *singular value decomposition* (SVD)
# gives them. Every matrix $M$ with $m$ rows and $n$ columns is
#
# $$M = U\,\mathrm{diag}(s)\,V^\top = \sum_i s_i\, u_i v_i^\top .$$
#
# A *component* is a column $u_i$ of $U$, a row $v_i^\top$ of $V^\top$ and a *singular value* $s_i$. All $u_i$ are
# unit vectors at right angles to each other, and so are all $v_i$. The singular values are sorted, the largest
# first.

# %%
U, s, Vt = torch.linalg.svd(M, full_matrices=False)
for letter, factor in {"M": M, "U": U, "s": s, "V^T": Vt}.items():
    print(f"{letter:<4}{tuple(factor.shape)}")

# %% [markdown]
# Here is the first component. Down the side stands $u_1$, along the top $v_1$. Each element of the picture between
# them is the product of the number to its left, the number above it, and $s_1$.

# %%
show(figures.component(U[:, 0], s[0].item(), Vt[0]))

# %% [markdown]
# **What you should see:** a plaid. $v_1$ says which inputs of the layer the component listens to, $u_1$ says which
# outputs it changes. All rows of the picture are the same row, longer or shorter: that is what *rank 1* means.
#
# *Truncation* keeps the leading $r$ components and drops the others. What is left, $M_r = U_r\,\mathrm{diag}(s_r)\,
# V_r^\top$, has *rank* $r$.

# %% [markdown]
# ### Exercise 1 · The leading components (easy, 5 minutes)
#
# Return the three parts of $M_r$. Each keeps its own shape: a component is a column of $U$, a number of $s$, and a
# row of $V^\top$. Whether a component comes as $(u, v)$ or as $(-u, -v)$ does not matter yet.


# %% tags=["exercise"]
def leading(M: torch.Tensor, r: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A matrix M (m, n) and a rank r -> its r leading components: U (m, r), s (r,) and V^T (r, n)."""
    U, s, Vt = torch.linalg.svd(M, full_matrices=False)
    return U[:, :r], s[:r], Vt[:r]


# %%
leading = check(leading)
# hint("leading")

# %% [markdown]
# How large should $r$ be? The paper sets a *keep ratio* $\rho$, the share of the components that is kept:
# $r = \lfloor \rho \cdot \min(m, n) \rfloor$. For this matrix and $\rho = 0.1$ that is $\lfloor 0.1 \cdot 192 \rfloor =
# 19$.

# %%
U_r, s_r, Vt_r = leading(M, 19)
M_r = U_r * s_r @ Vt_r  # (m, r) times (r,): each column times its singular value
print(f"at rank 19 M - M_r has {(M - M_r).norm() / M.norm():.0%} of M's length")

# %%
numbers = (U_r.numel() + s_r.numel() + Vt_r.numel()) / M.numel()
sentence = "At rank 19 the factors hold about an eighth as many numbers as M."
claim("02-numbers", sentence, numbers, low=0.12, high=0.13, unit="%")

# %% [markdown]
# Each of these numbers still has 32 bits. The next two notebooks take care of those.

# %% [markdown]
# ## Step 2 · Energy: is a task vector of low rank?
#
# Why: people like to say that fine-tuning is "low-rank". You can check. The *energy* of a component is $s_i^2$, and
# all energies add up to the squared length of the matrix, $\lVert M \rVert^2$ (the sum of its squared elements).
# So ask: how much energy do the leading components hold?
#
# One curve tells little, so draw three: $M$; the same layer's *weights* in $\theta_0$; and a matrix of the same shape
# and length as $M$, filled with random numbers, which has no preferred direction at all.

# %%
noise = torch.randn(M.shape, generator=torch.Generator().manual_seed(0))
noise *= M.norm() / noise.norm()
spectra = {
    "task vector": s,
    r"weights of $\theta_0$": torch.linalg.svdvals(theta_0[name]),
    "random numbers": torch.linalg.svdvals(noise),
}
show(figures.singular_values(spectra, 19))

# %% [markdown]
# ### Exercise 2 · How many components for this energy? (medium, 8 minutes)
#
# Read the lower panel the other way: given a share of the energy, which is the *smallest* rank that holds it? `s` holds
# all singular values of a matrix. Where the leading components hold exactly the share, they are enough.


# %% tags=["exercise"]
def rank_for_energy(s: torch.Tensor, share: float) -> int:
    """All singular values s (k), falling, and a share in [0, 1] -> the smallest rank that holds it, at least 1."""
    energy = s.double().square().cumsum(0)
    return int((energy < share * energy[-1]).sum()) + 1


# %%
rank_for_energy = check(rank_for_energy)
# hint("rank_for_energy")

# %%
few, noisy = rank_for_energy(s, 0.5), rank_for_energy(spectra["random numbers"], 0.5)
claim("02-half", "Half of the energy of M lies in at most a tenth of its components.", few / len(s), high=0.1, unit="%")
claim(
    "02-random",
    "Random numbers need at least four times as many components for that.",
    noisy / few,
    low=4,
    unit="times",
)
sentence = "For nine tenths of its energy M needs more than a quarter of its components."
claim("02-tail", sentence, rank_for_energy(s, 0.9) / len(s), low=0.25, unit="%")

# %% [markdown]
# **What you should see:** two answers. *Compared with the weights*, the task vector is concentrated: the weights of
# $\theta_0$ are hardly easier to describe than noise. *By itself* it is not of low rank. Behind a steep start
# comes a long tail, and no component is zero.

# %% [markdown]
# ## Step 3 · The error is known before you rebuild
#
# Why: a compression that states its own error is worth a lot. Components stand at right angles, so what you drop
# follows Pythagoras:
#
# $$\frac{\lVert M - M_r \rVert}{\lVert M \rVert} = \sqrt{\frac{s_{r+1}^2 + s_{r+2}^2 + \dots}{\lVert M \rVert^2}} .$$
#
# Eckart and Young proved more: **no matrix of rank $r$ comes closer to $M$ than $M_r$**.

# %% [markdown]
# ### Exercise 3 · The error from the singular values (easy, 5 minutes)
#
# Write the formula. A zero matrix has nothing to lose: its error is zero.


# %% tags=["exercise"]
def truncation_error(s: torch.Tensor, rank: int) -> float:
    """All singular values s (k), falling -> relative error of the best matrix of this rank; 0 for a zero matrix."""
    energy = s.double().square()
    lost, total = energy[rank:].sum(), energy.sum()
    return (lost / total).sqrt().item() if total > 0 else 0.0


# %%
truncation_error = check(truncation_error)
# hint("truncation_error")

# %% [markdown]
# Now put it to the test, beside two rivals. One projects $M$ onto $r$ directions chosen at random. The other is what
# you might try first: it ignores directions, and keeps the largest elements of $M$, as many as truncation keeps
# numbers.
#
# **Predict first.** Can the largest elements ever come closer to $M$ than truncation does?

# %%
stated = {r: truncation_error(s, r) for r in (1, 2, 5, 10, 19, 38, 57, 96, 144)}

# %% tags=["answer"]
figure, error = figures.truncation_error(M, stated)
show(figure)
off = max(abs(error["stated"][r] - error["truncation"][r]) for r in stated) / 100
sentence = "Measured errors and those that your formula states agree within a tenth of a point at every rank."
claim("02-eckart-young", sentence, off, high=1e-3, unit="points", of="truncation_error")
behind = {r: (error["largest elements, as many numbers"][r] - error["truncation"][r]) / 100 for r in stated}
sentence = "At rank 19 the largest elements err at least 5 points more than truncation."
claim("02-largest-19", sentence, behind[19], low=0.05, unit="points")
sentence = "At rank 96 the largest elements err less than truncation."
claim("02-largest-96", sentence, -behind[96], low=0, unit="points")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# Points on a line, as promised. And one surprise: at high rank the largest elements *win*. That is no contradiction.
# Eckart and Young speak of rank, and a matrix of large elements is not of low rank. Truncation pays for its directions
# with whole vectors; when many are kept, the factors hold nearly as many numbers as $M$ itself. Low rank is a good
# description only while the rank is low. (And the rival is flattered: nobody counted what it costs to store *where* its
# elements are.)
# </details>
#
# Now move the rank yourself. The line *truncation alone* belongs to this notebook; *four groups* is what the next two
# do to the factors.

# %% tags=["nbval-ignore-output"]
sliders.widget("rank")

# %% [markdown]
# ## Step 4 · Your decompose
#
# Why: the next notebook sorts the elements of $U$ and $V$ into groups, by sign and size. Two people who compress one
# expert should get the same groups, and elements that mean nothing should get none. Plain truncation promises neither.
#
# **Signs.** $(-u)\,s\,(-v)^\top$ is the same component as $u\,s\,v^\top$. Which of the two an SVD returns depends on
# the machine. So the course settles it: *in each row of $V^\top$ the element of largest size is positive*. Where it is
# negative, the row and its column of $U$ are both multiplied by $-1$.

# %% [markdown]
# ### Exercise 4 · Settle the signs (medium, 8 minutes)
#
# Flip the signs of the components that need it. The product $U\,\mathrm{diag}(s)\,V^\top$ must stay the same. (Where
# two elements of a row are of the same, largest size, either may decide.)


# %% tags=["exercise"]
def settle_signs(U: torch.Tensor, Vt: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """U (m, r), V^T (r, n) -> the same components, the element of largest size in each row of V^T positive."""
    sign = Vt.gather(1, Vt.abs().argmax(1, keepdim=True)).sign()
    return U * sign.T, Vt * sign


# %%
settle_signs = check(settle_signs)
# hint("settle_signs")

# %% [markdown]
# **What is not there.** A computer's SVD leaves rounding errors where there is nothing. Look at a matrix of rank 2 with
# a row of zeros:

# %% tags=["nbval-ignore-output"]
made = torch.arange(6.0)[:, None] + torch.arange(5.0) ** 2  # (6, 5), of rank 2
made[3] = 0
left, values, _ = torch.linalg.svd(made, full_matrices=False)
print("singular values:           ", *(f"{value:8.0e}" for value in values.tolist()))
print("row 3 of U, the row of zeros:", *(f"{value:8.0e}" for value in left[3].tolist()))

# %% [markdown]
# **What you should see:** two singular values, and others that are rounding: their vectors are noise. And the row of
# zeros is no longer zero. The groups of notebook 03 would turn all of that into values of full size.

# %% [markdown]
# ### Exercise 5 · decompose (hard, 12 minutes)
#
# Write the D of DTS. It returns $U$, $s$ and $V^\top$ of the components that are kept, by five rules:
#
# 1. The rank is $r = \lfloor \rho \cdot \min(m, n) \rfloor$. Beware: `0.29 * 100` is `28.999999999999996` in
#    floats, and is to count as `29`.
# 2. At least one component is kept, however small $\rho$ is.
# 3. A component whose $s_i$ is at most $s_1 \cdot \varepsilon \cdot \max(m, n)$ is rounding, and is dropped. Here
#    $\varepsilon$ is `torch.finfo(s.dtype).eps`. (Rule 2 comes first: of a matrix of zeros one component is kept.)
# 4. The signs are settled as in Exercise 4.
# 5. A row of $M$ that is all zeros is a row of exact zeros in $U$; such a column is one in $V^\top$.
#
# You may call `leading` and `settle_signs`.


# %% tags=["exercise"]
def decompose(M: torch.Tensor, keep_ratio: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A matrix M (m, n) and the share of its components to keep -> U (m, r), s (r,) and V^T (r, n)."""
    U, s, Vt = leading(M, min(M.shape))
    real = int((s > s[0] * torch.finfo(s.dtype).eps * max(M.shape)).sum())
    r = max(1, min(int(keep_ratio * min(M.shape) + 1e-9), real))
    U, Vt = settle_signs(U[:, :r], Vt[:r])
    return U * (M != 0).any(1, keepdim=True), s[:r], Vt * (M != 0).any(0)


# %%
decompose = check(decompose)
# hint("decompose")

# %% [markdown]
# The library decomposes, too, before it packs anything. Compare yours with it for every matrix of the expert.

# %%
taus = [expert[n] - x for n, x in theta_0.items() if x.dim() == 2]
library = [svd.decompose(tau, max(1, int(0.1 * min(tau.shape)))) for tau in taus]
mine = [decompose(tau, 0.1) for tau in taus]
off = max((a - b).abs().max().item() for x, y in zip(mine, library, strict=True) for a, b in zip(x, y[:3], strict=True))
sentence = "In all matrices your U, s and V^T are the library's, number by number, to rounding."
claim("02-library", sentence, off, high=1e-4, of="decompose")

# %% [markdown]
# ## Step 5 · Rank and accuracy
#
# Why: nobody uses a matrix for its own sake. What does the *model* answer when every matrix of the task vector is
# truncated by your `decompose`? Biases, norms and the convolution stay exact here.
#
# Two measures. *Accuracy* counts only answers that flip, so it is coarse. A finer one compares probabilities. For one
# image let $p_c$ be the expert's probability for the class $c$, and $q_c$ the other model's. The *KL divergence* from
# the expert to the other model is
#
# $$\mathrm{KL}(p \,\Vert\, q) = \sum_c p_c \ln \frac{p_c}{q_c} .$$
#
# The order matters: the expert comes first, so what counts most is what the expert finds likely. It is 0 where both
# give the same probabilities. With the natural logarithm its unit is the *nat*. For a feeling: where the expert is
# certain of a class and the other model gives it $0.9$, it is $-\ln 0.9 \approx 0.105$ nats. In this course it is
# always this divergence, from the expert, in the mean over images.


# %%
def cut(base, target, keep_ratio):
    """The model ``target``, with every matrix of the difference ``target - base`` truncated."""
    state = dict(target)
    for n in (n for n, x in base.items() if x.dim() == 2):
        U, s, Vt = decompose(target[n] - base[n], keep_ratio)
        state[n] = base[n] + U * s @ Vt
    return state


# %% [markdown]
# **Predict first.** At keep ratio 0.1 the error of the matrices is more than 40 % of their length. What will the
# accuracy be: nearer to the expert's, or to that of $\theta_0$? Write your guess down. The next cell
# evaluates $\theta_0$, and the task vector at five keep ratios; it takes five to ten seconds.

# %%
trial = Trial(suite, task)  # the expert on its test images
zero_shot = trial.answers(theta_0)
models = {ratio: cut(theta_0, expert, ratio) for ratio in (0.02, 0.05, 0.1, 0.3, 0.5)}
rows = {"task vector truncated": trial.judged(models, base=theta_0)}
right = {"the expert": trial.expert["right"], "zero-shot": zero_shot["right"]}

# %% tags=["answer"]
show(figures.rank_accuracy(rows, right))
at = rows["task vector truncated"]
sentence = "At keep ratio 0.1 the accuracy is within two points of the expert's."
lost = trial.gap(trial.expert, at[0.1], "right")
claim("02-accuracy-tenth", sentence, low=-0.02, high=0.02, unit="points", **lost)
claim("02-error-tenth", "There the error of the matrices is still above 40 %.", at[0.1]["error"], low=0.4, unit="%")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# Panels that disagree. At keep ratio 0.1 the error of the matrices is above 40 %, and the accuracy is the expert's to
# within two points. Where accuracy no longer changes, the KL divergence still does: something is missing, too little to
# flip answers. It is our finer ruler from now on.
# </details>
#
# How can so large an error do so little? Compare three other models. One has the same error in every matrix, but as
# random numbers. One has the same error because the whole task vector is shorter. The last is the reverse of
# truncation: it keeps *only what truncation dropped*.

# %%
others = equally_wrong(theta_0, expert, models[0.1])
same = {"truncated": rows["task vector truncated"][0.1]} | {who: trial.answers(state) for who, state in others.items()}
show(figures.same_error(same, right))

# %%
above = trial.gap(same["only the rest"], zero_shot, "right")
claim("02-rest", "What truncation drops is at most 10 points above zero-shot.", high=0.1, unit="points", **above)
sentence = "The shrunk task vector is within three points of the expert."
lost = trial.gap(trial.expert, same["shrunk"], "right")
claim("02-shrunk", sentence, low=-0.03, high=0.03, unit="points", **lost)
sentence = "A random error of the same size costs less KL divergence than truncation."
claim("02-random-error", sentence, low=0, unit="nats", **trial.gap(same["truncated"], same["random error"], "kl"))

# %% [markdown]
# **What you should see:** *where* an error lies counts more than how large it is. By itself, what truncation drops
# gains little over zero-shot, although it is long; a shrunk task vector, not much longer, does nearly everything. So
# the leading components carry most of what the expert knows.
#
# Most, and not all. A *random* error of the same size costs less KL divergence than truncation does. So what is dropped
# is not noise: it, too, carries a little of the expert, too little for accuracy to show. The SVD knows the matrix and
# nothing of the images that go through it: nearest in length is not nearest in answers.

# %% [markdown]
# ## Step 6 · Why the task vector, and not the model? (can be skipped at first)
#
# Why: you could truncate the expert $\theta_n$ itself. Same number of components, same bytes, and no $\theta_0$ to
# keep. The next cell evaluates five more models, in five to ten seconds.

# %%
nothing = {n: torch.zeros_like(x) for n, x in theta_0.items()}
rows["expert itself truncated"] = trial.judged({ratio: cut(nothing, expert, ratio) for ratio in models}, base=nothing)
show(figures.rank_accuracy(rows, right))

# %%
sentence = "At keep ratio 0.1 the truncated expert itself is over 20 points below zero-shot."
below = trial.gap(zero_shot, rows["expert itself truncated"][0.1], "right")
claim("02-model-tenth", sentence, low=0.2, unit="points", **below)
ratio = (theta_0[name].norm() / M.norm()).item()
claim(
    "02-longer", "The weights of this layer are over ten times as long as its task vector.", ratio, low=10, unit="times"
)

# %% [markdown]
# **What you should see:** applied to the model itself, the same method destroys it, for two reasons. The singular
# values of weights are nearly as flat as those of noise (Step 2), so a few components hold little. And weights are
# long, over ten times as long as the task vector: an error that is a share of *them* swamps everything that fine-tuning
# did. So the shared model is stored once, exactly, and what is compressed is the difference.

# %% [markdown]
# ## Step 7 · Where would ranks be needed? (can be skipped at first)
#
# Why: the paper uses one keep ratio for all matrices of a model. Is that fair to each of them? Your formula gives the
# truncation error of every matrix at keep ratio 0.1, for all experts.

# %%
error_of = lambda tau: truncation_error(torch.linalg.svdvals(tau), max(1, int(0.1 * min(tau.shape))))
figure, data = figures.layer_errors(theta_0, {other: suite.expert(other) for other in suite.tasks}, error_of)
show(figure)

# %%
kinds = data["kinds"].values()
errors = [v for kind in kinds for layer, v in zip(kind["layer"], kind["value"], strict=True) if "block" in layer]
sentence = "At one keep ratio the worst matrix of the blocks errs over twice as much as the best."
claim("02-uneven", sentence, max(errors) / min(errors), low=2, unit="times")

# %% [markdown]
# **What you should see:** a pattern that the experts share. Towards the last block, the errors of the MLP and of the
# attention's output fall, and those of the attention's input rise. The positions have so few rows that the keep ratio
# leaves them a single component. So one keep ratio keeps more than it needs in some places and too little in others, as
# far as the error goes; Step 5 showed how far that is. Notebook 10 hands out ranks by what they buy.

# %% [markdown]
# ## Recap
#
# - You own `decompose`: the leading components, with settled signs and without rounding.
# - A task vector's matrices are concentrated, far more than weights or noise are, but they are not of low rank.
# - Truncation states its own error, and nothing of the same rank lies nearer. That says little about answers: with a
#   large error the accuracy is already the expert's, and only the KL divergence shows what is missing.
# - Truncate the task vector, never the model: a model is long and its singular values are flat.
#
# **What would change our mind.** If what truncation drops had answered as well as what it keeps, energy would be the
# wrong guide. All accuracies here are those of one task and one training seed; notebook 07 looks at all tasks.
#
# **In the paper.** This is the first of the three steps of DTS, *decomposition*, in its method section. The paper's
# keep ratios are 0.3 for CLIP and 0.1 for RoBERTa. Rules 2 to 5 of your `decompose` are the course's: the paper
# leaves them open.

# %% [markdown]
# ## Quiz
#
# **1.** All singular values of a square matrix are equal. How much of its length is missing after you keep half of the
# components?
#
# <details><summary>Answer</summary>
#
# The share $\sqrt{1/2}$, so most of it: half of the energy is missing, and the error is its root. No other choice of
# components would do better.
# </details>
#
# **2.** You double every number of $M$. What happens to its singular values, to its relative truncation error, and to
# the rank that holds a given share of its energy?
#
# <details><summary>Answer</summary>
#
# The singular values double. The other two stay: doubling everything changes no share.
# </details>
#
# **3.** A colleague compresses two ways, and the second has the smaller error in every matrix. Which should you ship?
#
# <details><summary>Answer</summary>
#
# You don't know yet. Errors of the same size differed widely in what they did to the answers (Step 5). Compare the
# KL divergence, or the accuracy, on validation images.
# </details>
#
# **Next:** [03 · Thresholding](03_thresholding.ipynb): two bits for each element of $U$ and $V$.
