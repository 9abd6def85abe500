# %% [markdown]
# # 07 · The size-accuracy curve
#
# After this you can read a curve of bytes against quality, say which of its points are beaten, and choose a measure
# that can tell them apart.

# %% [markdown]
# > **Goals.** You *read* the curve of DTS from the measured table. You *compare* accuracy with a more sensitive
# > measure. You *find* the points of a curve that nobody should use.
# >
# > **Before you start.** Notebooks 02 to 05: rank, groups, keep ratio, DTS-T and DTS-D, KL divergence.
# >
# > **Time.** 8 minutes to read, 6 for the exercise. It runs in about ten seconds on a laptop's CPU. It needs no
# > network.
# >
# > **This chapter is a first part.** It holds the curve of DTS alone, at three keep ratios. Other settings and other
# > methods are to come; the last section says which.

# %% [markdown]
# ## The question
#
# The paper reports a keep ratio, a size and an accuracy. Its reviewers asked where the size comes from: what it
# depends on, how to choose the ranks for a given number of bytes, why there are four groups and not two or eight, and
# what other methods do with the same bytes. All of these are questions about one picture: **bytes to the right, quality
# upwards, and where does DTS lie?**

# %%
import json

from dts_mini.core.delta import compress, rebuild, storage
from dts_mini.core.merging import average
from dts_mini.course import check, claim, figures, hint, show
from dts_mini.suites import load_suite
from dts_mini.suites.evaluation import bootstrap, divergence, interval, logits
from dts_mini.suites.tables import curves

suite = load_suite()
table = json.loads((suite.folder / "results.json").read_text())["headline"]
rows = {row["name"]: row for points in curves(table).values() for row in points}
print(len(rows), "points:", *rows, sep="\n  ")

# %% [markdown]
# ## Step 1 · The curve of DTS
#
# These rows were measured on all test images of all eight tasks and are kept in the repository. `storage` is the file
# that a task adds, as a share of the float32 model. The accuracy is a share of the experts'. Beside it stands the
# *KL divergence* of the rebuilt model's predictions from the expert's. Bytes have a log axis, since what counts is by
# which *factor* a file is larger.

# %%
alt = (
    "Two panels against a task's file on a log axis, for DTS-T and DTS-D over the average and over TIES. Left: "
    "accuracy as a share of the experts', rising a little, its intervals overlapping. Right: KL divergence, falling."
)
show(figures.size_curves(table), alt=alt)

# %%
small, large = rows["DTS-D, average, 0.05"], rows["DTS-D, average, 0.3"]
times = large["storage"] / small["storage"]
claim("07-bytes", "The largest file of DTS-D over the average has at least four times the bytes.", times, low=4)
falls = large["kl from experts"] / small["kl from experts"]
claim("07-kl-falls", "With these bytes its KL falls to less than a third.", falls, high=1 / 3, unit="%")
a, b = small["share of experts"], large["share of experts"]
widest = (b["low"] - a["high"], b["high"] - a["low"])  # the two intervals at their worst: the table holds no paired one
sentence = "Its accuracy, as a share of the experts', rises by at most 2 points."
claim("07-accuracy-flat", sentence, b["value"] - a["value"], interval=widest, high=0.02, unit="points")

# %% [markdown]
# **What you should see:** on the left the points crowd below the experts, and intervals of neighbours overlap. (Mind
# the axis: it shows only a narrow band of accuracies.) On the right the same points are far apart. Accuracy only counts
# answers that *flip*. KL sees every shift of every probability, also one that flips nothing. So to *develop* a method
# look at KL; to say what it is *worth* look at accuracy.

# %% [markdown]
# ## Step 2 · Is the difference sure?
#
# The table holds no interval for KL. So measure one, on the task that the course follows. Compare keep ratios image by
# image (notebook 00, Exercise 3): all models answer the same images. The next cell takes a few seconds.

# %%
task = suite.example
expert, base = suite.expert(task), average([suite.expert(name) for name in suite.tasks])
reference, labels = logits(suite, expert, task), suite.images(task, "test")[1]
kl, right = {}, {}
for keep_ratio in (0.05, 0.1, 0.3):
    answers = logits(suite, rebuild(base, compress(base, expert, keep_ratio=keep_ratio)), task)
    kl[keep_ratio] = {task: divergence(reference, answers)}
    right[keep_ratio] = {task: (answers.argmax(1) == labels).float()}

# %%
gain = lambda measure, a, b: {
    "value": (measure[a][task] - measure[b][task]).mean().item(),
    "interval": interval((draws := bootstrap(measure))[a][:, 0] - draws[b][:, 0]),
}
sentence = "From keep ratio 0.05 to 0.1 the KL falls: the whole interval lies above zero."
claim("07-kl-first", sentence, low=0.0, unit="nats", **gain(kl, 0.05, 0.1))
sentence = "From 0.1 to 0.3 it falls once more, and the interval lies above zero again."
claim("07-kl-second", sentence, low=0.0, unit="nats", **gain(kl, 0.1, 0.3))
sentence = "From 0.1 to 0.3 the accuracy changes by at most 2 points, up or down."
claim("07-accuracy-second", sentence, low=-0.02, high=0.02, unit="points", **gain(right, 0.3, 0.1))

# %% [markdown]
# **What you should see:** KL is sure of both steps. In the same images accuracy hardly moves at the second: only a few
# answers flip. A table of accuracies on one task, without intervals, would rank such methods by chance.

# %% [markdown]
# ### Exercise 1 · Which points are beaten? (easy, 6 minutes)
#
# A point of the curve is *beaten* when another point is neither larger nor worse, and is better in at least one of the
# two. Such a point is of no use to anybody. The points come in no order, and their sizes and errors in two lists.


# %% tags=["exercise"]
def dominated(sizes: list[float], errors: list[float]) -> list[int]:
    """Positions of the points that another point beats: neither larger nor worse, and better in at least one."""
    points = list(zip(sizes, errors, strict=True))
    beats = lambda a, b: a != b and a[0] <= b[0] and a[1] <= b[1]
    return [i for i, point in enumerate(points) if any(beats(other, point) for other in points)]


# %%
dominated = check(dominated)
# hint("dominated")

# %%
sizes, errors = ([row[key] for row in rows.values()] for key in ("storage", "kl from experts"))
beaten = [list(rows)[i] for i in dominated(sizes, errors)]
print("beaten:", *beaten, sep="\n  ")
lost = sum(name.startswith("DTS-T") for name in beaten)
claim("07-beaten", "By bytes and KL, each of the three points of DTS-T is beaten.", lost, low=3, high=3)

# %% [markdown]
# **What you should see:** over a base merge the same bytes go further than over $\theta_0$: a difference vector is
# shorter than a task vector. But look at the sizes in the figure. At one keep ratio all files are nearly equally large;
# they differ by a few stored zeros. A point may be beaten by a hair. Whether the order stays with other training seeds
# is not measured yet.

# %% [markdown]
# ## What this chapter will hold
#
# Four questions, each with its curve in the same picture:
#
# 1. **Which ranks?** One keep ratio gives every matrix the same share. Would it pay to give more components to some
#    matrices and fewer to others, for the same number of bytes?
# 2. **Which groups?** Four groups cost two bits a code. Are two groups and a higher rank better, or eight and a lower?
# 3. **Which bound?** How much error must *any* code of these bits leave, and how far above that does DTS lie?
# 4. **Which peers?** Other ways to make a small remainder, such as quantised task vectors or other decompositions, at
#    the same bytes. And what if you compress the expert itself instead of its difference?

# %% [markdown]
# ## Recap
#
# - Put methods into one picture: bytes on a log axis, quality with its interval.
# - Accuracy saturates near the experts. KL goes on telling methods apart.
# - A point that is neither smaller nor better than another can go.
#
# **What would change our mind.** If KL fell and accuracy, over many tasks and seeds, did not follow, KL would be the
# wrong guide.
#
# **In the paper.** This mirrors its storage column beside the accuracies, for a few keep ratios. The paper has no such
# curve, and no intervals.

# %% [markdown]
# ## Quiz
#
# **1.** Two methods have the same accuracy within the intervals, and the KL of one is much lower than that of the
# other. What do you know?
#
# <details><summary>Answer</summary>
#
# Its predictions are closer to the expert's. You do not know that it answers more images rightly: the shifts may be too
# small to flip answers, on these tasks.
# </details>
#
# **2.** Why is the axis of the bytes logarithmic?
#
# <details><summary>Answer</summary>
#
# What a method saves is a factor. On a plain axis all small files, which matter most here, would be squeezed together
# at the left.
# </details>
#
# **3.** A point is the largest of all and has the least error. Can it be beaten?
#
# <details><summary>Answer</summary>
#
# Only by a point with the same error and fewer bytes. Nobody has a smaller error, so the other point can but draw level
# in it.
# </details>
#
# **Next:** [08 · Serving](08_serving.ipynb): many experts from one shared model, request by request.
