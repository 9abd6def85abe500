# %% [markdown]
# # 08 · Serving many experts
#
# After this you can swap experts without damage to the shared model, and choose between rebuilding a matrix and a
# side path that never builds it.

# %% [markdown]
# > **Goals.** You *show* that adding and subtracting remainders wears a model out, and that rebuilding does not. You
# > *run* an expert's layer without its matrix. You *count* what each way costs.
# >
# > **Before you start.** Notebooks 02 to 05: rank, the codes of $U$ and $V$, remainder, rebuild.
# >
# > **Time.** 10 minutes to read, 6 for the exercise. It runs in a few seconds on a laptop's CPU. It needs no network.
# >
# > **This chapter is a first part.** It holds exactness and counts of multiplications. Measured times are to come; the
# > last section says which.

# %% [markdown]
# ## The question
#
# You hold one shared model in memory and a small file for each task. A request for the signs arrives, then one for
# aerial photographs, then signs again. The paper counts stored bytes. Its reviewers asked what it costs to *use* them:
# **what happens at each swap, and what if every request is for another task?**
#
# The obvious way to swap: add a remainder to the weights in place, answer, subtract it again. Nothing is lost. Or is
# it?

# %%
import torch

from dts_mini.core.delta import compress, rebuild
from dts_mini.core.tensor import rank_of
from dts_mini.course import check, claim, figures, hint, show
from dts_mini.suites import load_suite

suite = load_suite()
theta_0 = suite.pretrained()
name = "transformer.resblocks.0.mlp.c_fc.weight"
base = {key: theta_0[key] for key in (name, "transformer.resblocks.3.attn.in_proj_weight", "ln_post.weight")}
deltas = {task: compress(base, {key: suite.expert(task)[key] for key in base}) for task in suite.tasks}
print({key: tuple(tensor.shape) for key, tensor in base.items()})

# %% [markdown]
# ## Step 1 · Swap often, and look at the base
#
# Take three tensors, so that it goes fast. Swap through the tasks again and again, in place, in three number
# formats. After each swap ask how far the base is from where it began, as a share of a remainder's length.


# %%
def in_place(dtype: torch.dtype, swaps: int = 200) -> list[float]:
    """Drift of the base after each of many swaps that add a remainder and subtract it again, in one number format."""
    start = {key: tensor.to(dtype) for key, tensor in base.items()}
    now, length = {key: tensor.clone() for key, tensor in start.items()}, norm(deltas[suite.example])
    errors = []
    for swap in range(swaps):
        delta = deltas[suite.tasks[swap % len(suite.tasks)]]
        for key in now:
            now[key] += delta.remainder(key).to(dtype)  # the expert answers now
            now[key] -= delta.remainder(key).to(dtype)  # and this should be the base again
        gone = sum((now[key].float() - start[key].float()).square().sum().item() for key in now)
        errors.append(gone**0.5 / length)
    return errors


norm = lambda delta: sum(delta.remainder(key).square().sum().item() for key in base) ** 0.5
errors = {str(dtype).split(".")[1]: in_place(dtype) for dtype in (torch.bfloat16, torch.float16, torch.float32)}

# %% [markdown]
# The other way leaves the base alone. `rebuild` makes a new state dict, base plus remainder, at each swap.

# %%
first = {task: rebuild(base, delta) for task, delta in deltas.items()}
kept = {key: tensor.clone() for key, tensor in base.items()}
same = lambda a, b: all(torch.equal(a[key], b[key]) for key in kept)
equal = []
for swap in range(200):
    task = suite.tasks[swap % len(suite.tasks)]
    equal.append(same(rebuild(base, deltas[task]), first[task]) and same(base, kept))
drift = {f"in place, {dtype}": line for dtype, line in errors.items()}
drift["rebuilt from the base, float32"] = [0.0 if ok else 1.0 for ok in equal]

# %%
alt = (
    "Drift of the base against the number of swaps, log axis. Adding and subtracting in place drifts in every format, "
    "least in float32, most in bfloat16; rebuilding from the base stays at zero."
)
show(figures.drift(drift), alt=alt)

# %%
sentence = "After each of 200 swaps the rebuilt expert has the same bits as the first time."
claim("08-rebuild", sentence, sum(equal), low=200)
sentence = "In bfloat16, 200 swaps in place move the base by at least 5 % of a remainder's length."
claim("08-bfloat16", sentence, errors["bfloat16"][-1], low=0.05, unit="%")
sentence = "In float16 they move it by at least 1 %."
claim("08-float16", sentence, errors["float16"][-1], low=0.01, unit="%")
sentence = "In float32 they move it, but by at most 0.01 %."
claim("08-float32", sentence, errors["float32"][-1], low=1e-9, high=1e-4, unit="%")

# %% [markdown]
# **What you should see:** in the two-byte formats the base is soon a visible part of a remainder away from where it
# was. Each sum is rounded, and what rounding cut off does not come back. What that costs in accuracy is not measured
# here. And a surprise: in float32 the drift is tiny. There the reason to rebuild is another one: the same request gets
# the same bits, whatever was served before it. That holds in every format, since nothing ever writes to the base.

# %% [markdown]
# ## Step 2 · The side path
#
# Rebuilding writes a whole matrix. You need not: for a token $x$,
#
# $$(W + \hat U \, \mathrm{diag}(s) \, \hat V^\top)\, x \;=\; W x + \hat U \big(s \odot (\hat V^\top x)\big)$$
#
# where $\odot$ multiplies element by element. On the right only vectors are made: $\hat V^\top x$ has $r$ numbers. The
# base's $W$ is read and never written, so one batch may even hold tokens of different tasks.

# %% [markdown]
# ### Exercise 1 · A layer without its matrix (easy, 6 minutes)
#
# Write the right side for many tokens at once. Mind the shapes: tokens are the *rows* of `x`.


# %% tags=["exercise"]
def low_rank_forward(
    x: torch.Tensor, w: torch.Tensor, u: torch.Tensor, s: torch.Tensor, vh: torch.Tensor
) -> torch.Tensor:
    """x (tokens, n), W (m, n), U (m, r), s (r), V^T (r, n) -> (tokens, m): W x + U (s * (V^T x)) for each token."""
    return x @ w.T + (x @ vh.T * s) @ u.T


# %%
low_rank_forward = check(low_rank_forward)
# hint("low_rank_forward")

# %% [markdown]
# Does it agree with the rebuilt matrix, on a real remainder and random tokens?

# %%
part = deltas[suite.example].parts[name]
u, vh, w = part.left.restore().T, part.right.restore(), base[name]
x = torch.randn(64, w.shape[1], generator=torch.Generator().manual_seed(0))
built = x @ first[suite.example][name].T
apart = ((low_rank_forward(x, w, u, part.s, vh) - built).norm() / built.norm()).item()
claim("08-side-path", "The side path gives what the rebuilt matrix gives, to 0.001 %.", apart, high=1e-5, unit="%")

# %% [markdown]
# ## Step 3 · Which is cheaper?
#
# Count multiplications, from shapes alone. $W$ is $m \times n$:
#
# | | at each swap | for each token |
# |---|---|---|
# | rebuild | $m\,n\,r$ | $m\,n$ |
# | side path | none | $m\,n + r\,(m + n)$ |

# %%
m, n = w.shape
tokens = [2**k for k in range(1, 14)]
alt = (
    "Multiplications a token against the tokens served between two swaps, log axes: rebuilding falls, the side path is "
    "level, and both meet at the same number of tokens for a low and a high rank."
)
figure, data = figures.serving_cost((m, n), (19, 57), tokens)
show(figure, alt=alt)

# %%
image = theta_0["positional_embedding"].shape[0]
print(f"matrix {m} x {n}; {image} tokens an image")
sentence = "For this matrix both ways cost the same at some number of images between 5 and 15."
claim("08-even", sentence, data["even"] / image, low=5, high=15, unit="images")

# %%
matrices = [tuple(theta_0[key].shape) for key in theta_0 if theta_0[key].dim() == 2 and "resblocks" in key]
ranks = [rank_of(shape, 0.1) for shape in matrices]
once = sum(m * n * r for (m, n), r in zip(matrices, ranks, strict=True))
an_image = image * sum(m * n for m, n in matrices)
sentence = "Rebuilding all matrices of the blocks takes fewer multiplications than answering two images."
claim("08-rebuild-cost", sentence, once / an_image, high=2, unit="images")
extra = image * sum(r * (m + n) for (m, n), r in zip(matrices, ranks, strict=True))
claim("08-side-cost", "The side path adds at most a fifth to every image.", extra / an_image, high=0.2, unit="%")

# %% [markdown]
# **What you should see:** both lines of a rank cross at the same place. The rank cancels: they are level at
# $m\,n / (m + n)$ tokens, whatever $r$ is. So it is not the size of the remainder that decides between the two ways,
# but how many tokens come between two swaps.
#
# A count is not a time. Unpacking codes, moving memory and starting kernels are not in it. On a fast machine they may
# cost more than all of these multiplications.

# %% [markdown]
# ## What this chapter will hold
#
# 1. Measured times: loading a file, rebuilding, the side path, on one CPU thread and on a GPU.
# 2. The worst case that reviewers asked for: every request is for another task. And batches that mix tasks.
# 3. A server: which experts to keep built, and which to drop, when memory is short.
# 4. Requests that do not say which task they belong to.

# %% [markdown]
# ## Recap
#
# - Never serve by adding and subtracting in place. Keep the base, and make what you need from it.
# - An expert's layer needs no matrix of its own: two thin products beside the shared one give the same answer.
# - Few tokens between two swaps: side path. Many: rebuild.
#
# **What would change our mind.** If unpacking the codes took far longer than either product, the counts of Step 3 would
# decide nothing.
#
# **In the paper.** It rebuilds experts on demand and reports no cost of it. There is no figure to mirror.

# %% [markdown]
# ## Quiz
#
# **1.** Why is $(a + b) - b$ not always $a$ in floating point?
#
# <details><summary>Answer</summary>
#
# The sum is rounded to the digits that the format has. What is cut off from $a$ there cannot come back.
# </details>
#
# **2.** A batch holds tokens of several tasks. Which of the two ways still needs just one product with $W$?
#
# <details><summary>Answer</summary>
#
# The side path. The product with $W$ is the same for all tasks; only the thin products differ. Rebuilt matrices would
# split the batch by task.
# </details>
#
# **3.** Does a lower rank favour the side path over rebuilding?
#
# <details><summary>Answer</summary>
#
# It makes both cheaper, in the same proportion. Where they are level depends on $m$ and $n$ alone.
# </details>
#
# **Next:** [09 · The paper at full scale](09_full_scale.ipynb): how large the files are for a model of real size.
