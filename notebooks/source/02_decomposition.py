# %% [markdown]
# # 02 · Decomposition: how few directions hold a task vector?
#
# After this you can take a task vector apart into components, say before you rebuild it what leaving some out costs,
# and show that this cost is not what the model's answers tell.

# %% [markdown]
# > **Goals.** You *decompose* a matrix and *read* its energy: is a task vector of low rank or not? You *predict* the
# > error of a truncation from singular values alone. You *measure* what rank does to accuracy, and why the error of a
# > matrix says so little about it.
# >
# > **Before you start.** Notebook 01: task vectors. Matrix products and transposes; you have heard of eigenvectors.
# >
# > **Time.** 20 minutes to read, 28 for the exercises. It runs in about half a minute on a laptop's CPU; the cells
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
import torch

from dts_mini.core.dts import rank_of
from dts_mini.core.svd import decompose
from dts_mini.course import check, claim, figures, hint, show, sliders
from dts_mini.suites import load_suite
from dts_mini.suites.evaluation import bootstrap, divergence, interval, logits

suite = load_suite()
task, name = suite.example, "transformer.resblocks.2.mlp.c_fc.weight"
theta_0, expert = suite.pretrained(), suite.expert(task)
M = expert[name] - theta_0[name]
matrices = [n for n, x in theta_0.items() if x.dim() == 2]

# %% [markdown]
# One picture first: a corner of $M$, and what is left of it when you describe the whole matrix by a few directions
# only. What "describe" means comes next.

# %%
views = {"M": M}
for r in (19, 5, 1):
    u, s, vh, error = decompose(M, r)
    views[f"{r} directions" if r > 1 else "1 direction"] = u @ torch.diag(s) @ vh
alt = (
    "Four heat maps of the same corner on one colour scale: the matrix M, and M described by 19 directions, by 5 and "
    "by 1. With 19 the texture of M is still there, smoother; with 5 only its stripes; with 1 a single pattern of "
    "rows and columns, and pale."
)
show(figures.matrices(views), alt=alt)

# %% [markdown]
# **What you should see:** from left to right detail goes, and what stays longest are stripes: rows and columns that
# change as one.

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
U, s, Vh = torch.linalg.svd(M, full_matrices=False)
for letter, factor in {"M": M, "U": U, "s": s, "V^T": Vh}.items():
    print(f"{letter:<4}{tuple(factor.shape)}")
whole = sum(s[i] * torch.outer(U[:, i], Vh[i]) for i in range(len(s)))
apart = ((whole - M).norm() / M.norm()).item()
claim("02-components", "All components together are M, to a thousandth of its length.", apart, high=1e-3)

# %% [markdown]
# Here is the first component. Down the side stands $u_1$, along the top $v_1$. Each element of the picture between
# them is the product of the number to its left, the number above it, and $s_1$.

# %%
alt = (
    "The first component: the numbers of u as a strip of lines on the left, those of v as a strip on top, and between "
    "them the heat map of their products, a plaid of stripes where a large u meets a large v."
)
show(figures.component(U[:, 0], s[0].item(), Vh[0]), alt=alt)

# %% [markdown]
# **What you should see:** a plaid. $v_1$ says which inputs of the layer the component listens to, $u_1$ says which
# outputs it changes. All rows of the picture are the same row, longer or shorter: that is what *rank 1* means.
#
# *Truncation* keeps the leading $r$ components and drops the others. The result $M_r$ has *rank* $r$. The paper sets
# $r$ by a *keep ratio* $\rho$, the share of the components that is kept: $r = \lfloor \rho \cdot \min(m, n) \rfloor$,
# at least one.

# %%
rank = rank_of(M.shape, keep_ratio=0.1)
M_r = sum(s[i] * torch.outer(U[:, i], Vh[i]) for i in range(rank))
u, s_r, vh, error = decompose(M, rank)  # the core's own
print("keep ratio 0.1 of", min(M.shape), "components: rank", rank)
apart = ((u @ torch.diag(s_r) @ vh - M_r).norm() / M.norm()).item()
claim("02-truncated", "The core's decompose gives the same M_r, to a thousandth of M's length.", apart, high=1e-3)
numbers = (u.numel() + s_r.numel() + vh.numel()) / M.numel()
sentence = "At rank 19 the factors hold about an eighth as many numbers as M."
claim("02-numbers", sentence, numbers, low=0.12, high=0.13, unit="%")

# %% [markdown]
# That is a start, and not nearly enough: each of these numbers still has 32 bits. The next two notebooks take care of
# those.

# %% [markdown]
# ## Step 2 · Energy: is a task vector of low rank?
#
# Why: people like to say that fine-tuning is "low-rank". You can check. The *energy* of a component is $s_i^2$, and
# all energies add up to the squared length of the matrix, $\lVert M \rVert^2$ (the sum of its squared elements).
# So ask: how much energy do the leading components hold?
#
# A curve alone tells little, so draw three. Besides $M$: the same layer's *weights* in $\theta_0$; and a matrix of
# the same shape and length as $M$, filled with random numbers, which has no preferred direction at all.

# %%
noise = torch.randn(M.shape, generator=torch.Generator().manual_seed(0))
noise *= M.norm() / noise.norm()
spectra = {
    "task vector": s,
    "weights of theta_0": torch.linalg.svdvals(theta_0[name]),
    "random numbers": torch.linalg.svdvals(noise),
}
alt = (
    "Two panels over the component number. Left, singular values: the task vector's start high and fall steeply; those "
    "of theta_0's weights and of random numbers start low and fall slowly, close together. Right, the energy of the "
    "leading components: the task vector's curve is far above the other two."
)
show(figures.singular_values(spectra, rank), alt=alt)

# %% [markdown]
# ### Exercise 1 · How many components for this energy? (medium, 8 minutes)
#
# Turn the right panel round: given a share of the energy, which is the *smallest* rank that holds it? `s` holds all
# singular values of a matrix. Where the leading components hold exactly the share, they are enough.


# %% tags=["exercise"]
def rank_for_energy(s: torch.Tensor, share: float) -> int:
    """All singular values s (k), falling, and a share in [0, 1] -> the smallest rank that holds it, at least 1."""
    energy = s.double().square().cumsum(0)
    return int((energy < share * energy[-1]).sum()) + 1


# %%
rank_for_energy = check(rank_for_energy)
# hint("rank_for_energy")

# %%
half = {what: rank_for_energy(values, 0.5) for what, values in spectra.items()}
few, noisy, weights = half["task vector"], half["random numbers"], half["weights of theta_0"]
claim("02-half", "Half of the energy of M lies in at most a tenth of its components.", few / len(s), high=0.1, unit="%")
claim("02-random", "Random numbers need at least four times as many components for that.", noisy / few, low=4)
sentence = "The weights of theta_0 need over 70 % of the components that random numbers need."
claim("02-weights", sentence, weights / noisy, low=0.7, unit="%")
sentence = "For nine tenths of its energy M needs more than a quarter of its components."
claim("02-tail", sentence, rank_for_energy(s, 0.9) / len(s), low=0.25, unit="%")
last = (s[-1] / M.norm()).item()
claim("02-full-rank", "No component is zero: even the last has over 0.5 % of the length.", last, low=0.005, unit="%")

# %% [markdown]
# **What you should see:** two answers. *Compared with the weights*, the task vector is concentrated: the weights of
# $\theta_0$ are hardly easier to describe than noise. *By itself* it is not of low rank. Behind a steep start
# comes a long tail, and no component is zero.
#
# Is it only this expert? The decomposition is quick, so ask all of them, for all of their matrices.

# %%
experts, kept = {other: suite.expert(other) for other in suite.tasks}, {}
for other, state in experts.items():
    cuts = [decompose(state[n] - theta_0[n], rank_of(theta_0[n].shape, 0.1)) for n in matrices]
    kept[other] = [1 - found.error**2 for found in cuts]
print(len(kept), "experts,", len(matrices), "matrices each")

# %%
least, most = min(sum(shares) / len(shares) for shares in kept.values()), max(map(max, kept.values()))
sentence = "In every expert the leading tenth holds at least 60 % of the energy, in the mean over its matrices."
claim("02-every-expert", sentence, least, low=0.6, unit="%")
sentence = "From matrix to matrix this share differs by over 50 points."
claim("02-not-every-matrix", sentence, most - min(map(min, kept.values())), low=0.5, unit="points")

# %% [markdown]
# **What you should see:** the experts agree, the matrices do not. Keep that in mind for Step 6.

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
# ### Exercise 2 · The error from the singular values (easy, 5 minutes)
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
# Now put it to the test, and let two rivals in. One projects $M$ onto $r$ directions chosen at random. The other is
# what you might try first: it forgets about directions, and keeps the largest elements of $M$, as many as
# truncation keeps numbers.

# %%
ranks = (1, 2, 5, 10, 19, 38, 57, 96, 144)
relative = lambda other: ((M - other).norm() / M.norm()).item()
sizes = M.abs().flatten().sort(descending=True).values
measured, rivals = [], {"random directions, same rank": [], "largest elements, as many numbers": []}
for r in ranks:
    measured.append(relative((U[:, :r] * s[:r]) @ Vh[:r]))
    Q = torch.linalg.qr(torch.randn(M.shape[1], r, generator=torch.Generator().manual_seed(r))).Q
    rivals["random directions, same rank"].append(relative(M @ Q @ Q.T))
    numbers = r * (sum(M.shape) + 1)
    rivals["largest elements, as many numbers"].append(relative(M.where(M.abs() >= sizes[numbers - 1], 0)))
stated = [truncation_error(s, r) for r in ranks]

# %%
alt = (
    "Relative error against rank. The measured errors of truncation lie on the stated line. Random directions of the "
    "same rank are far above it. The largest elements start above it, too, and cross below it at a high rank."
)
show(figures.truncation_error(ranks, measured, stated, rivals), alt=alt)

# %%
off = max(abs(a - b) for a, b in zip(measured, stated, strict=True))
sentence = "Measured and stated errors agree within a tenth of a point at every rank."
claim("02-eckart-young", sentence, off, high=1e-3, unit="points")
behind = {who: [a - b for a, b in zip(errors, measured, strict=True)] for who, errors in rivals.items()}
sentence = "Random directions err more than truncation at every rank."
claim("02-random-directions", sentence, min(behind["random directions, same rank"]), low=0, unit="points")
largest = dict(zip(ranks, behind["largest elements, as many numbers"], strict=True))
sentence = "At rank 19 the largest elements err at least 5 points more than truncation."
claim("02-largest-19", sentence, largest[19], low=0.05, unit="points")
sentence = "At rank 96 the largest elements err less than truncation."
claim("02-largest-96", sentence, largest[96], high=0, unit="points")

# %% [markdown]
# **What you should see:** points on a line, as promised. And one surprise: at high rank the largest elements *win*.
# That is no contradiction. Eckart and Young speak of rank, and a matrix of large elements is not of low rank.
# Truncation pays for its directions with whole vectors; when many are kept, the factors hold nearly as many numbers as
# $M$ itself. Low rank is a good description only while the rank is low. (The rival is even let off lightly: nobody
# counted what it costs to store *where* its elements are.)
#
# Now move the rank yourself. The line *truncation alone* belongs to this notebook; *four groups* is what the next two
# do to the factors.

# %% tags=["nbval-ignore-output"]
sliders.widget("rank")

# %% [markdown]
# ### Exercise 3 · Truncation without an SVD (hard, 15 minutes)
#
# How does a machine find the leading directions? One way needs only a symmetric matrix. The *Gram matrix* $M^\top M$ is
# $V\,\mathrm{diag}(s^2)\,V^\top$, so the $v_i$ are its eigenvectors. And once you have the leading ones as
# columns of $V_r$, truncation is a projection: $M_r = M\,V_r V_r^\top$. You never need $U$.
#
# `torch.linalg.eigh` gives eigenvalues and eigenvectors of a symmetric matrix. The Gram matrix is $n \times n$; for a
# wide matrix $M M^\top$ is the smaller one. Beware: squaring costs digits.


# %% tags=["exercise"]
def truncated(matrix: torch.Tensor, rank: int) -> torch.Tensor:
    """A matrix (m, n) -> the nearest matrix (m, n) of this rank, found without an SVD; rank 0 gives zeros."""
    wide = matrix.shape[0] < matrix.shape[1]
    tall = (matrix.T if wide else matrix).double()
    _, v = torch.linalg.eigh(tall.T @ tall)
    leading = v.flip(1)[:, :rank]
    cut = (tall @ leading @ leading.T).to(matrix.dtype)
    return cut.T if wide else cut


# %%
truncated = check(truncated)
# hint("truncated")

# %%
apart = ((truncated(M, rank) - M_r).norm() / M.norm()).item()
claim("02-gram", "By the Gram matrix you get the same M_r, to a thousandth of M's length.", apart, high=1e-3)

# %% [markdown]
# The core can do this, too (`algorithm="gram"`). For large matrices it is cheaper than an SVD.

# %% [markdown]
# ## Step 4 · Rank and accuracy
#
# Why: nobody uses a matrix for its own sake. What does the *model* answer when every matrix of the task vector is
# truncated? Biases, norms and the convolution stay exact here.
#
# Two measures: accuracy, and the *KL divergence* of the predicted probabilities from the expert's. It is zero when
# the two models agree, and it notices changes long before an answer flips.

# %%
labels, original = suite.images(task, "test")[1], logits(suite, expert, task)


def answers(state):
    """Which test images (n) a model gets right, and the KL divergence (n) of its predictions from the expert's."""
    found = logits(suite, state, task)
    return {"right": found.argmax(1) == labels, "kl": divergence(original, found)}


# %% [markdown]
# Two more helpers. `cut` truncates every matrix of the difference `target - base`, and `length` measures how far two
# models are apart, all matrices together.


# %%
def cut(base, target, keep_ratio):
    state = dict(target)
    for n in matrices:
        u, s, vh, _ = decompose(target[n] - base[n], rank_of(target[n].shape, keep_ratio))
        state[n] = base[n] + u @ torch.diag(s) @ vh
    return state


def length(a, b):
    return sum((a[n] - b[n]).square().sum() for n in matrices).sqrt().item()


# %% [markdown]
# The next cell evaluates the truncated task vector at five keep ratios, and $\theta_0$. It takes five to ten seconds.


# %%
def row(base, target):
    """{keep ratio: error, right, kl} of a target truncated at several keep ratios."""
    cuts = {ratio: cut(base, target, ratio) for ratio in (0.02, 0.05, 0.1, 0.3, 0.5)}
    return {r: {"error": length(state, target) / length(target, base)} | answers(state) for r, state in cuts.items()}


right = {"the expert": original.argmax(1) == labels, "zero-shot": answers(theta_0)["right"]}
rows = {"task vector truncated": row(theta_0, expert)}
alt = (
    "Three panels against the keep ratio. The error of the matrices falls slowly and is still large at 0.1. "
    "Accuracy is near the expert's from the second point on. The KL divergence falls by orders of magnitude."
)
show(figures.rank_accuracy(rows, right), alt=alt)


# %%
def gap(a, b):
    """Mean of a minus mean of b, both (n) on the same images, with its paired 95 % interval: what a claim takes."""
    draws = bootstrap({"a": {task: a}, "b": {task: b}})
    value = a.float().mean() - b.float().mean()
    return {"value": value.item(), "interval": interval((draws["a"] - draws["b"])[:, 0])}


at = rows["task vector truncated"]
below = {ratio: gap(right["the expert"], at[ratio]["right"]) for ratio in at}
sentence = "At keep ratio 0.02, at most three components a matrix, the accuracy is within 8 points of the expert's."
claim("02-three", sentence, high=0.08, unit="points", **below[0.02])
sentence = "At keep ratio 0.1 the accuracy is within two points of the expert's."
claim("02-accuracy-tenth", sentence, low=-0.02, high=0.02, unit="points", **below[0.1])
claim("02-error-tenth", "There the error of the matrices is still above 40 %.", at[0.1]["error"], low=0.4, unit="%")
fall = (at[0.05]["kl"].mean() / at[0.3]["kl"].mean()).item()
claim("02-kl", "From keep ratio 0.05 to 0.3 the KL divergence falls at least tenfold.", fall, low=10)

# %% [markdown]
# **What you should see:** the left panel says "not yet", the middle one says "long since". At keep ratio 0.1 the error
# of the matrices is above 40 %; the answers are the expert's. And where accuracy sees no change any more, KL still
# does. It will be our finer ruler from now on.
#
# How can so large an error do so little? Perhaps accuracy forgives *any* error of this size. Test it with three other
# models. One has the same error in every matrix, but as random numbers. One has the same error by shrinking the whole
# task vector. The last is the reverse of truncation: it keeps *only what truncation dropped*.

# %%
truncated_expert = cut(theta_0, expert, 0.1)
models = {"random error": dict(expert), "shrunk": dict(expert), "only the rest": dict(expert)}
generator = torch.Generator().manual_seed(0)
for n in matrices:
    tau, lost = expert[n] - theta_0[n], expert[n] - truncated_expert[n]
    random = torch.randn(tau.shape, generator=generator)
    models["random error"][n] = expert[n] + random * lost.norm() / random.norm()
    models["shrunk"][n] = expert[n] - tau * lost.norm() / tau.norm()
    models["only the rest"][n] = theta_0[n] + lost

# %%
same = {"truncated": at[0.1]} | {who: answers(state) for who, state in models.items()}
alt = (
    "Accuracy and KL divergence of four models. Truncated, random error and shrunk reach the expert's accuracy; their "
    "KL divergence is lowest for the random error and highest for the shrunk one. Only the rest is near zero-shot."
)
show(figures.same_error(same, right), alt=alt)

# %%
longer = length(models["shrunk"], theta_0) / length(models["only the rest"], theta_0)
sentence = "The shrunk task vector is less than one and a half times as long as what truncation drops."
claim("02-rest-length", sentence, longer, high=1.5)
above = gap(same["only the rest"]["right"], right["zero-shot"])
claim("02-rest", "What truncation drops is at most 10 points above zero-shot.", high=0.1, unit="points", **above)
sentence = "The shrunk task vector is within three points of the expert."
apart = gap(right["the expert"], same["shrunk"]["right"])
claim("02-shrunk", sentence, low=-0.03, high=0.03, unit="points", **apart)
sentence = "A random error of the same size costs less KL divergence than truncation."
claim("02-random-error", sentence, low=0, unit="nats", **gap(same["truncated"]["kl"], same["random error"]["kl"]))

# %% [markdown]
# **What you should see:** *where* the error lies counts, more than how large it is. What truncation drops does almost
# nothing by itself, although it is long. A shrunk task vector, not much longer than that, does nearly everything. So
# the leading components are not only long. They are what the task is about.
#
# But do not overrate truncation. A *random* error of the same size harms even less. So what is dropped is not noise: it
# belongs to the expert, and KL misses it. The SVD knows the matrix and nothing of the images that go through it.
# Nearest in length is not the same as nearest in answers.

# %% [markdown]
# ## Step 5 · Why the task vector, and not the model?
#
# Why: you could leave $\theta_0$ out of it, and truncate the expert $\theta_n$ itself. Same number of components, same
# bytes, and no base to keep. The next cell evaluates five more models, in five to ten seconds.

# %%
nothing = {n: torch.zeros_like(x) for n, x in theta_0.items()}
rows["expert itself truncated"] = row(nothing, expert)
alt = (
    "Three panels against the keep ratio, two rows. The expert itself, truncated, has a larger error at every keep "
    "ratio; its accuracy is below zero-shot up to 0.3 and still below the expert at 0.5; its KL divergence is far "
    "higher."
)
show(figures.rank_accuracy(rows, right), alt=alt)

# %%
broken = {ratio: answer["right"] for ratio, answer in rows["expert itself truncated"].items()}
sentence = "At keep ratio 0.1 the truncated expert itself is over 20 points below zero-shot."
claim("02-model-tenth", sentence, low=0.2, unit="points", **gap(right["zero-shot"], broken[0.1]))
sentence = "With half of its components it is still over 5 points below the expert."
claim("02-model-half", sentence, low=0.05, unit="points", **gap(right["the expert"], broken[0.5]))
ratio = (theta_0[name].norm() / M.norm()).item()
claim("02-longer", "The weights of this layer are over ten times as long as its task vector.", ratio, low=10)

# %% [markdown]
# **What you should see:** the same method, applied to the model, destroys it. There are two reasons, and you have met
# both. The weights are nearly as flat as noise (Step 2), so a few components hold little. And they are long, over ten
# times as long as the task vector: an error that is a share of *them* swamps everything that fine-tuning did.
#
# This is why the course stores what lies *between* a shared model and an expert. The shared model is stored once, and
# exactly.

# %% [markdown]
# ## Step 6 · Where would ranks be needed?
#
# Why: the paper uses one keep ratio for all matrices of a model. Is that fair to each of them? Here is the truncation
# error of every matrix at keep ratio 0.1.

# %%
figure, data = figures.layer_errors(theta_0, experts, 0.1)
alt = (
    "Truncation error at one keep ratio, by layer and kind of matrix: mean and range over the experts. In the first "
    "three blocks all kinds lie close together; in the last block the MLP and the attention's output are far lower, "
    "and the attention's input is not. The projection is low, the positions are highest."
)
show(figure, alt=alt)

# %%
kinds = data["kinds"].values()
errors = [v for kind in kinds for layer, v in zip(kind["layer"], kind["value"], strict=True) if "block" in layer]
spread = max(high - low for kind in kinds for low, high in zip(kind["low"], kind["high"], strict=True))
sentence = "At one keep ratio the worst matrix of the blocks errs over twice as much as the best."
claim("02-uneven", sentence, max(errors) / min(errors), low=2)
sentence = "For no matrix do the experts differ as much as the matrices of the blocks do."
claim("02-alike", sentence, spread / (max(errors) - min(errors)), high=1)

# %% [markdown]
# **What you should see:** a pattern that the experts share. In the last block the MLP and the attention's output need
# few components; its attention's input goes the other way. The positions have so few rows that the keep ratio leaves
# them a single component. So one keep ratio overpays in some places and starves others. Notebook 10 hands out ranks by
# what they buy.
#
# But remember Step 4 before you call a large error a problem. It is a share of that matrix's length, and not of what
# the model loses.

# %% [markdown]
# ## Recap
#
# - A task vector's matrices are concentrated, far more than weights or noise are, but they are not of low rank.
# - Truncation states its own error, and nothing of the same rank lies nearer. That is no promise about answers: at a
#   keep ratio where much of the length is missing, the expert's accuracy is back.
# - Truncate the task vector, never the model: its length and its flat singular values make the model break.
#
# **What would change our mind.** If what truncation drops had answered as well as what it keeps, energy would be the
# wrong guide. And all accuracies here are those of one task and one training seed; a task whose accuracy stayed low at
# this keep ratio would show that the middle panel was luck. Notebook 07 looks at all tasks.
#
# **In the paper.** This is the first of the three steps of DTS, *decomposition*, in its method section. The paper's
# keep ratios are 0.3 for CLIP and 0.1 for RoBERTa.

# %% [markdown]
# ## Quiz
#
# **1.** All singular values of a square matrix are equal. How much of its length is missing after you keep half of the
# components?
#
# <details><summary>Answer</summary>
#
# The share $\sqrt{1/2}$, so most of it: half of the energy is gone, and the error is the root. No other choice of
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
# You don't know yet. Errors of the same size differed widely in what they did to the answers (Step 4). Compare the
# KL divergence, or the accuracy, on validation images.
# </details>
#
# **Next:** [03 · Thresholding](03_thresholding.ipynb): two bits for each element of $U$ and $V$.
