# %% [markdown]
# # 02 · One matrix: decomposition, thresholding, scaling
#
# After this you can squeeze a task vector into two bits an element, by hand, and say where each of the bits goes.
#
# > **Goals.** Decompose a matrix and state what truncation costs. Sort elements into four groups and pick the value of
# > each. Read the three storage counts of an expert and never mix them.
# >
# > **Before you start.** You know what a task vector is (notebook 01) and what a matrix product is.
# >
# > **Time.** 20 minutes to read, 15 for the two exercises, about 20 seconds to run on a laptop CPU. Needs no network.

# %% [markdown]
# ## The question
#
# The paper (arXiv 2512.01461) keeps one shared model and, for each task, a remainder of about 1 % of a model. A task
# vector has as many numbers as the model, and 32 bits for each. How can so few bytes stand for it?
#
# You follow **one matrix** through the method: what fine-tuning on `house numbers` changed in one layer of the image
# tower.

# %%
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from dts_mini import compress, load, rebuild, storage
from dts_mini.core.tensor import decompose, rank_of, restore, scale, threshold
from dts_mini.course import check, claim, figures, hint, show
from dts_mini.suites import load_suite
from dts_mini.suites.evaluation import correct

suite = load_suite()

# %%
task, name = "house numbers", "transformer.resblocks.2.mlp.c_fc.weight"
theta_0, expert = suite.pretrained(), suite.expert(task)
M = expert[name] - theta_0[name]  # the task vector's part for this layer

packed = compress({name: theta_0[name]}, {name: expert[name]})
show(
    figures.matrices({"M, 32 bits a number": M, "the same from a file": packed.remainder(name)}),
    alt="Two heat maps of the top left corner of the matrix, on one colour scale. The left one is the change that "
    "fine-tuning made; the right one is rebuilt from the compressed form and shows the same stripes, more coarsely.",
)
claim(
    "02-one-matrix",
    "the right picture takes less than a hundredth of the left one's bits",
    storage(packed).share("information"),
    high=0.01,
)

# %% [markdown]
# Both pictures show the same corner of the matrix. The right one is coarse, but its rows of strong change are the left
# one's. The rest of this notebook opens the box between the two.
#
# ## Step 1 · Decompose
#
# Why: a change made by fine-tuning has few strong directions. The singular value decomposition (SVD) finds them:
#
# $$M = U\,\mathrm{diag}(s)\,V^\top .$$
#
# Each **component** is a column of $U$, a singular value, and a row of $V^\top$. You keep the leading
# $r = \lfloor \rho \cdot \min(m, n) \rfloor$ of them; $\rho$ is the **keep ratio**.

# %%
rank = rank_of(M.shape, keep_ratio=0.1)
u, s, vh, error = decompose(M, rank)
M_r = u @ torch.diag(s) @ vh
print("M", tuple(M.shape), "-> U", tuple(u.shape), " s", tuple(s.shape), " V^T", tuple(vh.shape))

every = torch.linalg.svdvals(M)
show(
    figures.singular_values(every, rank),
    alt="Two curves over the component number. Left: the singular values fall, steeply at first. Right: the energy of "
    "the leading components rises quickly, then flattens. A dotted line marks the rank that is kept.",
)
energy = (s.square().sum() / every.square().sum()).item()
claim(
    "02-energy",
    "the leading tenth of the components holds at least three times its even share of the energy",
    energy,
    low=0.3,
)

# %% [markdown]
# **What you should see:** a steep start and a long tail. *Energy* is the sum of squared singular values; all of it together is
# $\lVert M \rVert^2$.
#
# What does truncation cost? Eckart and Young tell you before you rebuild anything: no matrix of rank $r$ comes closer
# to $M$ than $M_r$, and its relative error is
#
# $$\frac{\lVert M - M_r \rVert}{\lVert M \rVert} = \sqrt{1 - \frac{s_1^2 + \dots + s_r^2}{\lVert M \rVert^2}} .$$
#
# `decompose` states it as its fourth result. Check it.

# %%
ranks = (1, 2, 5, 10, 19, 38, 57, 96, 144, 192)
found = [decompose(M, r) for r in ranks]
stated = [d.error for d in found]
measured = [((M - d.u @ torch.diag(d.s) @ d.vh).norm() / M.norm()).item() for d in found]
show(
    figures.truncation_error(ranks, measured, stated),
    alt="Relative error of the truncated decomposition against its rank. The measured points lie on the line that the "
    "singular values state; it falls from a high value at rank one to zero at full rank.",
)
gap = max(abs(a**2 - b**2) for a, b in zip(stated, measured, strict=True))
claim("02-eckart-young", "measured and stated squared errors agree to four decimals at every rank", gap, high=5e-5)

# %% [markdown]
# ## Step 2 · Threshold
#
# Why: $U$ and $V$ are still 32 bits an element. Two bits can name one of four **groups**. All elements of $U$ together
# are split by sign, and each sign at its median size: the larger half is *strong*, the other *weak*. The same is done
# for $V$, apart. The number of an element's group is its **code**.


# %%
def codes_by_hand(x):
    """Codes of x (n): 0 strong negative, 1 weak negative, 2 weak positive, 3 strong positive."""
    size, positive, negative = x.abs(), x > 0, x < 0
    codes = torch.where(positive, 2, 1)
    codes[positive & (size > size[positive].median())] = 3
    codes[negative & (size > size[negative].median())] = 0
    return codes


codes = threshold(u.reshape(1, -1))  # one row: one partition for the whole matrix
claim(
    "02-codes",
    "the function above and the core's put every element into the same group",
    (codes_by_hand(u.flatten()) != codes[0]).sum().item(),
    high=0,
)
fewest = codes[0].bincount(minlength=4).min().item() / codes.numel()
claim(
    "02-four-groups", "each group holds about a quarter of the elements, the smallest at least a fifth", fewest, low=0.2
)
show(
    figures.code_image(codes.view(u.shape).T),
    alt="The codes of U as an image: one row a component, one column an element, four shades from dark (strong "
    "negative) to light (strong positive). The shades are mixed without a visible order.",
)

# %% [markdown]
# This picture *is* what the file stores of $U$. It looks like noise: no shade is rare, so no cheaper code would help
# much.
#
# Two things are easy to miss.
#
# **An exact zero is in no group.** It has no sign, and two bits have no fifth word. The core gives it the code 4 for
# now and lists its place in the file, so that it is rebuilt as zero.

# %%
small = torch.tensor([[0.9, -0.1, 0.0, 0.4, -0.7, 0.2]])
print(threshold(small)[0].tolist())

# %% [markdown]
# Of three positive elements one is strong: half of three, rounded down.
#
# **The signs of an SVD are free.** Turn a column of $U$ and the matching row of $V^\top$ round, and $M_r$ stays the
# same; but its elements change groups. So the codes would depend on the library that ran. The core fixes the signs: in
# each row of $V^\top$ the largest element is positive.

# %%
flip = torch.ones(rank)
flip[0] = -1
turned_u, turned_vh = u * flip, flip[:, None] * vh
claim(
    "02-signs-free",
    "turning one component round leaves the truncated matrix as it was",
    (turned_u @ torch.diag(s) @ turned_vh - M_r).norm().item() / M_r.norm().item(),
    high=1e-6,
)
changed = (threshold(turned_u.reshape(1, -1)) != codes).view(u.shape)[:, 0].float().mean().item()
claim("02-signs-codes", "but nearly every element of that component has another code", changed, low=0.95)
claim(
    "02-signs-fixed",
    "the core's convention holds: the largest element of each row of V^T is positive",
    vh.gather(1, vh.abs().argmax(1, keepdim=True)).min().item(),
    low=0,
)

# %% [markdown]
# ## Step 3 · Scale
#
# Why: a group's number is not enough, it needs a **scale**: the one value that all its elements become. The paper
# takes the root mean square with the group's sign, which keeps the length of $U$. The plain mean makes the error of $U$
# least. You cannot have both.

# %%
row = u.reshape(1, -1)
rms, mean = scale(row, codes, how="rms"), scale(row, codes, how="mean")
u_rms, u_mean = restore(codes, rms), restore(codes, mean)
show(
    figures.group_histogram(u, codes, rms[0]),
    alt="Histogram of the elements of U, coloured and hatched by group: strong negative, weak negative, weak positive, "
    "strong positive from left to right. Four dashed lines mark the value that each group becomes.",
)
claim(
    "02-rms-norm",
    "root mean squares keep the length of U",
    (u_rms.norm() / row.norm()).item(),
    low=1 - 1e-4,
    high=1 + 1e-4,
)
claim(
    "02-mean-norm", "means make U shorter, by a few per cent", (u_mean.norm() / row.norm()).item(), low=0.85, high=0.98
)
ratio = ((u_mean - row).norm() / (u_rms - row).norm()).item()
claim("02-mean-error", "means lie nearer to U than root mean squares do, a little", ratio, low=0.9, high=0.999)

# %% [markdown]
# Four dashed lines: $\hat U$ holds these four numbers and no other. **What you should see:**
# the outer lines lie well inside the tails, so the largest elements lose most.
#
# ### Exercise 1 · The value of a group (easy, 5 minutes)
#
# Write the function that gives a group its root mean square. `x` holds elements of one sign, shape `(n,)`; return one
# number of the same sign.


# %% tags=["exercise"]
def group_value(x: torch.Tensor) -> torch.Tensor:
    """Elements (n,) of one sign -> their root mean square with that sign, one number."""
    return x.sign()[0] * x.square().mean().sqrt()


# %%
group_value = check(group_value)
# hint("group_value")

# %%
apart = abs(float(group_value(row[codes == 3])) - rms[0, 3].item())
claim("02-group-value", "for the strong positive group it gives the core's scale", apart, high=1e-5)

# %% [markdown]
# ## Step 4 · Rebuild
#
# Why: see what the three steps together left of $M$. Multiply the coarse factors with the singular values, which stay
# 32 bits each: $\hat M = \hat U\,\mathrm{diag}(s)\,\hat V^\top$.


# %%
def coarse(x):
    codes = threshold(x.reshape(1, -1))
    return restore(codes, scale(x.reshape(1, -1), codes)).view(x.shape)


M_hat = coarse(u) @ torch.diag(s) @ coarse(vh)
show(
    figures.matrices({"M": M, f"M_r, rank {rank}": M_r, "M_hat, two bits": M_hat}),
    alt="Three heat maps of the same corner on one colour scale: the matrix, its truncated decomposition, and what "
    "thresholding and scaling left of it. The stripes stay, fine detail is lost first, then contrast is coarsened.",
)
one_call = packed.remainder(name)
claim(
    "02-one-call",
    "step by step you get what compress gave in one call",
    ((M_hat - one_call).norm() / M_hat.norm()).item(),
    high=1e-3,
)
error_hat = ((M - M_hat).norm() / M.norm()).item()
claim("02-two-errors", "thresholding adds to the error of truncation", error_hat - error, low=0.01)
cosine = torch.nn.functional.cosine_similarity(M.flatten(), M_hat.flatten(), dim=0).item()
claim("02-direction", "yet the rebuilt change still points the same way (cosine above a half)", cosine, low=0.5)

# %% [markdown]
# The error is large. As a picture you would send it back. What counts is what the *model* answers.
#
# ## Step 5 · The whole expert in one call
#
# Why: a model is more than one matrix. `compress` does the four steps for every matrix. Biases, norms and convolutions
# have no decomposition: they are thresholded and scaled as they are.

# %%
delta = compress(theta_0, expert)
again = rebuild(theta_0, delta)
kinds = [type(part).__name__ for part in delta.parts.values()]
print({kind: kinds.count(kind) for kind in sorted(set(kinds))})

accuracy = {
    who: correct(suite, state, task).float().mean().item()
    for who, state in {"theta_0": theta_0, "expert": expert, "rebuilt": again}.items()
}
gained, kept = accuracy["expert"] - accuracy["theta_0"], accuracy["rebuilt"] - accuracy["theta_0"]
claim(
    "02-accuracy",
    "the rebuilt expert keeps at least nine tenths of the accuracy that fine-tuning gained",
    kept / gained,
    low=0.9,
)

# %% [markdown]
# `LowRank` counts the matrices, `Flat` all other tensors. The accuracy is measured on 1,000 test images.
#
# ## Step 6 · Count the bytes
#
# Why: "about 1 %" means three different things, and papers mix them.
#
# | count | what it counts |
# |---|---|
# | *paper* | as the reference code does: 3 bits a code, 32 a singular value, nothing for scales |
# | *information* | what has to be held: 2 bits a code, singular values, scales, the places of zeros |
# | *file* | the file on disk, header and all |

# %%
counts = storage(delta)
for count in ("paper", "information", "model"):
    print(f"{count:<12}{getattr(counts, count) / 1024:8.0f} KiB")
claim(
    "02-share-information",
    "the information is about one per cent of the float32 model",
    100 * counts.share("information"),
    low=0.9,
    high=1.15,
)
claim(
    "02-share-paper",
    "the paper's way of counting gives more: three bits where two are enough",
    counts.paper / counts.information,
    low=1.2,
    high=1.5,
)
claim(
    "02-share-file",
    "the file is at most a fifth larger than its information",
    counts.file / counts.information,
    low=1,
    high=1.2,
)
show(
    figures.file_bytes(delta),
    alt="Horizontal bars: the size in KiB of each part of the file. The codes of the matrices are by far the longest "
    "bar, then the codes of other tensors; zeros, singular values, scales and header are short.",
)

# %% [markdown]
# Nearly everything is codes. Scales cost almost nothing: four numbers a factor. The zeros are a surprise: checkpoints
# are stored in 16 bits, where many a bias has not moved at all.
#
# Now write the file, read it, and try to fool it.

# %%
with TemporaryDirectory() as folder:
    path = delta.save(Path(folder) / "house_numbers.dts.safetensors")
    data = path.read_bytes()
    print("read back, the same bytes:", load(path).to_bytes() == data)
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))  # one bit of one code
    try:
        load(path)
    except Exception as error:
        print(type(error).__name__, "- one altered bit is refused")
claim("02-file", "the file on disk is as long as storage says", len(data) - counts.file, low=0, high=0)

# %% [markdown]
# ### Exercise 2 · Bit by bit (medium, 10 minutes)
#
# How many bits of information does one `m x n` matrix take at rank `r` with four groups? Count the codes of both
# factors, the singular values (32 bits each) and the scales (32 bits each).


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
# Does it hold for `packed`, the one matrix from the beginning?

# %%
off = information_bits(*M.shape, rank) - 8 * storage(packed).information
claim("02-bits", "the formula gives the information of the one matrix, to the bit", off, low=0, high=0)

# %% [markdown]
# ## Recap
#
# - Truncation states its own error; thresholding then makes two bits of every element, by sign and median.
# - Root mean squares keep the length of a factor, means its error small. Neither promises anything about $\hat M$, whose
#   columns are no longer orthogonal.
# - The error of the matrix is large and the model hardly minds: judge a compression by answers, not by pictures.
#
# **What would change our mind.** An expert whose rebuilt accuracy drops although its matrices are rebuilt no worse than
# these; or a rule for the groups that beats the median at the same bits in accuracy, not only in error.
#
# **In the paper.** Section 3, and the ablation in which leaving out thresholding or scaling costs 2 to 5 points.
#
# ## Quiz
#
# **1.** Why are there two bits an element, although `threshold` can give five different codes?
#
# <details><summary>Answer</summary>
#
# The fifth stands for an exact zero, which is rare in U and V. The file stores two bits for every element and the
# places of the zeros apart.
# </details>
#
# **2.** You double the keep ratio. What happens to the size of the file, and what to the number of scales?
#
# <details><summary>Answer</summary>
#
# The codes of the matrices about double, and with them most of the file. The number of scales stays: four a factor,
# whatever the rank.
# </details>
#
# **3.** Two laptops compute the SVD of one matrix, and each component may come out turned round. Why do their files agree?
#
# <details><summary>Answer</summary>
#
# The core turns each component so that the largest element of its row of V^T is positive, before any code is given.
# </details>
#
# **Next:** [03 · Personalised merging](03_personalised_merging.ipynb): what eight such files bring back.
