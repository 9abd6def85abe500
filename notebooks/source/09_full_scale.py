# %% [markdown]
# # 09 · The paper at full scale
#
# After this you can work out, from a model's shapes alone, what one task's file takes, and say which count a printed
# percentage belongs to.

# %% [markdown]
# > **Goals.** You *derive* the paper's storage figure for CLIP ViT-B/32 without its weights. You *find* what that count
# > holds. You *compare* the full-size model with the mini one.
# >
# > **Before you start.** Notebooks 02 to 04: rank, keep ratio, the three storage counts. Notebook 05 for accuracies.
# >
# > **Time.** 8 minutes to read, 6 for the exercise. It runs in a few seconds on a laptop's CPU. It needs no network.
# >
# > **This chapter is a first part.** It holds storage, which follows from shapes. Accuracies at full scale need the
# > real checkpoints and data sets, and are to come; the last section says which.

# %% [markdown]
# ## The question
#
# About 1 % of a model for each task: so the paper sums itself up. Its table for CLIP ViT-B/32 says 3.68 %, at keep
# ratio $0.3$. Reviewers asked where the 1 % comes from, and what it depends on. The count behind such a figure does not
# look at what a model has learnt, only at its shapes. So **can you check the figure without a single weight?**

# %%
import json
from math import prod

import open_clip
import torch

from dts_mini.core.tensor import rank_of
from dts_mini.course import check, claim, figures, hint, show
from dts_mini.suites import load_suite

suite = load_suite()

# %% [markdown]
# ## Step 1 · A model without weights
#
# On PyTorch's `meta` device a tensor has a shape and no numbers. So the full-size model costs neither memory nor a
# download.


# %%
def shapes_of(name: str) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors of a CLIP that open_clip knows, both towers."""
    with torch.device("meta"):
        model = open_clip.CLIP(**open_clip.get_model_config(name))
    return {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}


both = shapes_of("ViT-B-32")
tower = {key: shape for key, shape in both.items() if key.startswith("visual.")}
size = lambda shapes: sum(prod(shape) for shape in shapes.values())
print(f"both towers: {size(both):,} parameters; image tower: {size(tower):,}")

# %% [markdown]
# **What you should see:** the model of the paper is the image tower, with 87.85 million parameters. But the paper's
# code divides by 113.4 million. Where do the others come from? It removes the blocks of the text tower, and leaves what
# stands beside them.

# %%
leftover = {key: shape for key, shape in both.items() if not key.startswith(("visual.", "transformer."))}
print({key: shape for key, shape in leftover.items() if len(shape) == 2})
counted = size(tower) + size(leftover)
claim(
    "09-parameters", "Image tower and text leftovers hold 113.4 million parameters.", counted, low=113.4e6, high=113.5e6
)

# %% [markdown]
# ## Step 2 · What a task takes, by four counts
#
# Each matrix of shape $m \times n$ leaves $r\,(m + n)$ codes and $r$ singular values of 32 bits. All other tensors
# leave a code for each element. The paper's code counts 3 bits a code; four groups need 2 bits. Scales, a few numbers
# for each matrix, are left out here.


# %%
def share(shapes: dict, keep_ratio: float, bits: int) -> float:
    """Bits of one task's remainder, as a share of the float32 model, in [0, 1]."""
    total = 0
    for shape in shapes.values():
        rank = rank_of(shape, keep_ratio) if len(shape) == 2 else 0
        total += bits * (rank * sum(shape) if rank else prod(shape)) + 32 * rank
    return total / (32 * size(shapes))


def split(shapes: dict) -> dict:
    """The same model with q, k and v in three matrices, as other libraries store them."""
    parts = {k: s for k, s in shapes.items() if not k.endswith("in_proj_weight")}
    fused = {k: s for k, s in shapes.items() if k.endswith("in_proj_weight")}
    return parts | {f"{k}.{part}": (m // 3, n) for k, (m, n) in fused.items() for part in "qkv"}


ratios = (0.05, 0.1, 0.3)
ways = {
    "the paper's: 3 bits, with text leftovers": (tower | leftover, 3),
    "3 bits, image tower alone": (tower, 3),
    "2 bits, image tower alone": (tower, 2),
    "2 bits, q, k and v split": (split(tower), 2),
}
shares = {way: {ratio: share(shapes, ratio, bits) for ratio in ratios} for way, (shapes, bits) in ways.items()}

# %%
alt = (
    "Bars of what one task adds to CLIP ViT-B/32, in % of the float32 model, for three keep ratios and four ways of "
    "counting. The paper's count is 3.68 % at keep ratio 0.3; 2 bits on the image tower alone take less."
)
show(figures.storage_shares(shares), alt=alt)

# %%
paper, three, two, apart = (shares[way] for way in ways)
sentence = "At keep ratio 0.3 the paper's count comes to 3.68 %, as printed."
claim("09-paper", sentence, paper[0.3], low=0.03675, high=0.03685, unit="%")
sentence = "With 2 bits a code, the image tower alone takes at most 2.7 % at keep ratio 0.3."
claim("09-two-bits", sentence, two[0.3], high=0.027, unit="%")
claim("09-one-percent", "At keep ratio 0.1 it takes less than 1 %.", two[0.1], high=0.01, unit="%")

# %% [markdown]
# **What you should see:** a printed percentage says little before you know the count. And a surprise: the paper's
# count is *smaller* than the same 3 bits on the image tower alone, though it counts more tensors. The leftovers, above
# all the table of word embeddings, are long and thin. They add more to the model than to the file.

# %%
held = share(leftover, 0.3, 3) * size(leftover) / (paper[0.3] * counted)
sentence = "At least 15 % of the bits in the paper's count belong to text tensors that no expert changes."
claim("09-leftovers", sentence, held, low=0.15, unit="%")

# %% [markdown]
# ### Exercise 1 · Fused or split? (easy, 6 minutes)
#
# Attention needs three matrices, for queries, keys and values, each $d \times d$. open_clip keeps them fused in one
# matrix, $3d \times d$; other libraries keep three. At the same rank $r$ for each matrix, how many bits does each
# layout take? Count as in Step 2, with 2 bits a code.


# %% tags=["exercise"]
def attention_bits(d: int, rank: int, fused: bool) -> int:
    """Bits of the q, k and v weights of one block, each d x d: 2 a code, 32 a singular value, rank the same for both.

    Fused they are one 3d x d matrix, split they are three matrices.
    """
    matrices = [(3 * d, d)] if fused else [(d, d)] * 3
    return sum(2 * rank * (m + n) + 32 * rank for m, n in matrices)


# %%
attention_bits = check(attention_bits)
# hint("attention_bits")

# %%
d = tower["visual.proj"][0]
rank = rank_of((d, d), 0.3)
ratio = attention_bits(d, rank, False) / attention_bits(d, rank, True)
claim("09-split-attention", "Split q, k and v take at least 1.5 times the bits of the fused matrix.", ratio, low=1.5)
claim(
    "09-split-tower",
    "For the whole image tower that makes at least 10 % more.",
    apart[0.3] / two[0.3] - 1,
    low=0.10,
    unit="%",
)

# %% [markdown]
# **What you should see:** the same model, stored by another library, has larger files. It has more components as well:
# three matrices keep $r$ each, the fused one keeps $r$ for all. So the two layouts differ in quality too, and a
# comparison of methods must name the layout.

# %% [markdown]
# ## Step 3 · Does it depend on the size of the model?
#
# Count three image towers the same way: that of the mini suite, ViT-B/32, and ViT-L/14.

# %%
large = {key: shape for key, shape in shapes_of("ViT-L-14").items() if key.startswith("visual.")}
mini = {key: tuple(tensor.shape) for key, tensor in suite.pretrained().items()}
towers = {"mini": mini, "ViT-B/32": tower, "ViT-L/14": large}
found = {name: share(shapes, 0.3, 2) for name, shapes in towers.items()}
for name, shapes in towers.items():
    print(f"{name:<9} {size(shapes):>11,} parameters, {found[name]:.2%} a task at keep ratio 0.3")
spread = max(found.values()) - min(found.values())
sentence = "From the mini tower to ViT-L/14 the share changes by at most half a point."
claim("09-size", sentence, spread, high=0.005, unit="points")

# %% [markdown]
# **What you should see:** nearly the same share for models of very different size. At one keep ratio the share is set
# by the *form* of the matrices, not by how many there are or how large. What may change with size is how low a keep
# ratio can be before quality suffers. Shapes cannot tell that.
#
# What do these bytes buy? Here is the mini suite's row for the paper's setting, from the measured table.

# %%
table = json.loads((suite.folder / "results.json").read_text())["headline"]
row = next(row for row in table["rows"] if row["name"] == "DTS-D, TIES, 0.3")
claim(
    "09-mini-file",
    "A file of the mini suite takes less than 3 % at keep ratio 0.3.",
    row["storage"],
    high=0.03,
    unit="%",
)
kept = row["share of experts"]
sentence = "There, DTS-D over TIES keeps at least 99 % of the experts' accuracy."
claim("09-mini-kept", sentence, kept["value"], interval=(kept["low"], kept["high"]), low=0.99, unit="%")

# %% [markdown]
# The paper has 90.40 % beside experts of about 90.5 %, on eight photographic data sets. The *order* is the same: both
# stand just below their experts. The digits must not be compared: other images, other classes, another model.

# %% [markdown]
# ## What this chapter will hold
#
# 1. The eight data sets and checkpoints of the paper: its accuracies measured again, with intervals.
# 2. ViT-L/14, where the paper reports 94.24 %, and language models, where its figure below 1 % comes from (0.88 % for
#    RoBERTa-base).
# 3. More tasks than eight, and experts that were fine-tuned from different pretrained models.
# 4. One file written by this package from real checkpoints: its bytes on disk beside the counts above.

# %% [markdown]
# ## Recap
#
# - Storage follows from shapes, the keep ratio and the bits of a code; you can check it without weights.
# - The paper's figure stands when you count as its code does. Two bits and the image tower alone give another figure.
# - The layout of the attention weights changes the size of the file; the size of the model hardly changes the share.
#
# **What would change our mind.** A file from real checkpoints whose bytes are far from the count in Step 2 would show
# that the count leaves out something that matters.
#
# **In the paper.** This mirrors the storage column of its comparison on CLIP ViT-B/32.

# %% [markdown]
# ## Quiz
#
# **1.** Two papers print different percentages for one method and one model. Name three things to ask.
#
# <details><summary>Answer</summary>
#
# How many bits does a code count for? Which tensors are counted, above and below the line? Are q, k and v fused or
# split?
# </details>
#
# **2.** Why does counting the word embeddings make the percentage smaller?
#
# <details><summary>Answer</summary>
#
# That matrix has many rows and few columns, so few components. It adds little to the file for all the parameters that
# it adds to the model.
# </details>
#
# **3.** Does a model with more blocks of the same shape have a larger share?
#
# <details><summary>Answer</summary>
#
# No. File and model grow in the same proportion. Only the tensors outside the blocks weigh less.
# </details>
#
# **Next:** this is the last notebook. The [start](00_start_here.ipynb) has the suite to try your own ideas on.
