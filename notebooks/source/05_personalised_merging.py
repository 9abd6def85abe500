# %% [markdown]
# # 03 · Personalised merging
#
# After this you can turn eight experts into one shared model and eight small files, and tell a task that has no expert
# what to expect.
#
# > **Goals.** Personalise a base merge with DTS-T and DTS-D. Read the headline table with its intervals. Fuse a model for
# > an unseen task, and say when zero-shot is the better choice.
# >
# > **Before you start.** You know what a merge loses (notebook 01) and how DTS treats one matrix (notebook 02).
# >
# > **Time.** 20 minutes to read, 15 for the two exercises, about a minute to run on a laptop CPU. Needs no network.

# %% [markdown]
# ## The question
#
# Merging eight experts into one model costs accuracy, and keeping all eight costs eight models. *Personalised* merging
# asks for the middle: **one shared base, a small remainder for each task, and on demand an expert again.** What does
# each per cent of extra storage buy?
#
# The answer first, as a picture. The numbers are this project's own, measured on test images and committed with the
# checkpoints; below you measure some of them again.

# %%
import json

import torch
from IPython.display import Markdown, display

from dts_mini import average, fuse, fusion_weights, personalise, rebuild, storage, ties
from dts_mini.course import check, claim, figures, hint, show
from dts_mini.results import RESULTS
from dts_mini.suites import load_suite
from dts_mini.suites.evaluation import correct
from dts_mini.suites.tables import markdown

suite, committed = load_suite(), json.loads(RESULTS.read_text())

# %%
show(
    figures.accuracy_against_storage(committed["headline"]),
    alt="Mean accuracy over the eight tasks against the size of a task's file, in per cent of the model. Curves of DTS-T "
    "and DTS-D lie far above the horizontal lines of zero-shot and the merges and come close to the line of the experts.",
)

# %% [markdown]
# The lower lines are models that all tasks share: they add no file. The top line is the experts, a whole model each.
# The curves between them are DTS at three keep ratios.
#
# ## Step 1 · A shared base
#
# Why: whatever the tasks have in common should be stored once. Three bases are at hand: the pretrained model
# $\theta_0$ itself, the plain average of the experts, and TIES, which lets the task vectors vote on each sign. The
# average asks for no pretrained model.

# %%
theta_0 = suite.pretrained()
experts = {task: suite.expert(task) for task in suite.tasks}
bases = {
    "theta_0": theta_0,
    "average": average(list(experts.values())),
    "TIES": ties(theta_0, list(experts.values())),
}
print(len(experts), "experts,", len(bases), "bases")

# %% [markdown]
# ## Step 2 · What is left for a task
#
# Why: the remainder is what you pay for. Over $\theta_0$ it is the *task vector* $\tau_n = \theta_n - \theta_0$
# (**DTS-T**); over a merge $\theta_m$ it is the *difference vector* $d_n = \theta_n - \theta_m$ (**DTS-D**). A shorter
# remainder leaves less to get wrong.


# %%
def length(base, expert):
    """The length of the remainder, all tensors together."""
    return sum((expert[n] - base[n]).square().sum() for n in base).sqrt().item()


lengths = {name: [length(base, expert) for expert in experts.values()] for name, base in bases.items()}
shorter = [sum(lengths[name]) / sum(lengths["theta_0"]) for name in ("average", "TIES")]
claim(
    "03-shorter-average",
    "over the average the remainders are shorter, but only a little",
    shorter[0],
    low=0.7,
    high=0.98,
)
claim("03-shorter-ties", "over TIES they are about as long as task vectors", shorter[1], low=0.7, high=1.4)

# %% [markdown]
# So little? Task vectors of different tasks are nearly at right angles, and the average of many such vectors is close to
# none of them.
#
# ### Exercise 1 · How much shorter (medium, 7 minutes)
#
# Take $N$ task vectors of the same length with the cosine $c$ between any two. How long is $\tau_n$ minus their mean, as
# a share of the length of $\tau_n$? Write it as a function of `n` and `cosine`.


# %% tags=["exercise"]
def remaining_length(n: int, cosine: float) -> float:
    """Length of a task vector minus the mean of all n, as a share of its own; any two have this cosine."""
    # At length one, the mean's product with each vector is (1 + (n - 1) cosine) / n, and so is its product with
    # itself. The squared length of the difference is one minus that: (1 - 1/n) (1 - cosine).
    return ((1 - 1 / n) * (1 - cosine)) ** 0.5


# %%
remaining_length = check(remaining_length)
# hint("remaining_length")

# %% [markdown]
# ## Step 3 · Personalise
#
# Why: now let DTS compress the remainders. `personalise` gives a delta for each task over one base, `rebuild` the expert
# again. You do it here for two tasks; a file for each of the others is made alike.

# %%
some = ("house numbers", "signs")
chosen = {task: experts[task] for task in some}
deltas = {name: personalise(base, chosen, keep_ratio=0.1) for name, base in bases.items()}
shares = [storage(delta).share("file") for by_task in deltas.values() for delta in by_task.values()]
claim("03-file", "every file is about one per cent of the float32 model", 100 * max(shares), low=0.9, high=1.3)


# %%
def accuracy(state, task):
    return correct(suite, state, task).float().mean().item()


live = {}
for task in some:
    live["average", task] = accuracy(bases["average"], task)
    live["DTS-D, average, 0.1", task] = accuracy(rebuild(bases["average"], deltas["average"][task]), task)
    live["experts", task] = accuracy(experts[task], task)

for task in some:
    merge, ours, best = (live[row, task] for row in ("average", "DTS-D, average, 0.1", "experts"))
    claim(
        f"03-gap-{task.replace(' ', '-')}",
        f"{task}: DTS-D closes at least four fifths of the gap that the average leaves",
        (ours - merge) / (best - merge),
        low=0.8,
    )

# %% [markdown]
# The cell above takes some seconds: six runs over 1,000 test images. DTS-D over the average has used **no pretrained
# model**: only the experts went in. That is what you need where someone publishes eight fine-tuned models and not what
# they came from.
#
# Are these the numbers of the committed table? Other machines round differently and may flip an image or two, so the
# claim allows one point, ten images in 1,000.

# %%
table = {row["name"]: row for row in committed["headline"]["rows"]}
apart = [abs(value - table[row]["accuracy"][task]["value"]) for (row, task), value in live.items()]
claim("03-live", "what you have just measured and the committed table agree within one point", max(apart), high=0.01)

# %% [markdown]
# ## Step 4 · The headline table
#
# Why: two tasks are an anecdote. The table holds all eight, every base merge, and three keep ratios. Each mean has a
# 95 % interval: test images drawn again and again, task by task. It says what other *images* would change. What
# another *training* would change is measured with other seeds, in the README.

# %%
show(
    figures.mean_accuracies(committed["headline"]),
    alt="Mean accuracy of each row of the headline table with its interval. Zero-shot is lowest, the base merges follow, "
    "and after a wide gap come DTS-T and DTS-D, the closer to the experts the higher the keep ratio.",
)
show(
    figures.task_accuracies(committed["headline"], ("zero-shot", "average", "DTS-D, average, 0.1", "experts")),
    alt="Grouped bars for each of the eight tasks: zero-shot, average, DTS-D over the average at keep ratio 0.1, and the "
    "expert, with intervals. On each task the last two bars are close together and higher than the first two.",
)

# %% [markdown]
# The same as numbers, accuracy in %, *storage* being a task's file as a share of the float32 model:

# %% tags=["nbval-ignore-output"]
display(Markdown(markdown(committed["headline"])))

# %%
mean = {name: row["mean"] for name, row in table.items()}
merges = [name for name in table if figures.family(name) == "base merge"]
best_merge = max(mean[name]["high"] for name in merges)
claim(
    "03-experts",
    "the experts are at least eight points above the best merge",
    100 * (mean["experts"]["low"] - best_merge),
    low=8,
)
claim(
    "03-average",
    "the average is above zero-shot, their intervals apart",
    mean["average"]["low"] - mean["zero-shot"]["high"],
    low=0,
)
kept = {name: row["share of experts"]["value"] for name, row in table.items()}
claim(
    "03-kept",
    "at keep ratio 0.1 DTS-T and both DTS-D keep at least 98 % of the experts' mean",
    100 * min(kept[f"{method}, 0.1"] for method in ("DTS-T", "DTS-D, average", "DTS-D, TIES")),
    low=98,
)
claim(
    "03-more",
    "three times the keep ratio brings little more: less than two points",
    100 * max(kept[f"{m}, 0.3"] - kept[f"{m}, 0.1"] for m in ("DTS-T", "DTS-D, average", "DTS-D, TIES")),
    high=2,
)

# %% [markdown]
# **What you should see:** three floors: zero-shot, the merges a little above, DTS close under the experts. The order *within* the
# merges is not stable from seed to seed: don't lean on it.
#
# One design choice makes the mini suite behave like CLIP: its pretraining captions seldom call a class by the name that
# the head uses. Without that gap zero-shot is so good that no merge beats it.
#
# ## Step 5 · A task without an expert
#
# Why: tomorrow a task arrives that nobody fine-tuned. The paper fuses what the seen tasks left:
#
# $$\theta_u = \theta_m + \sum_n w_n \cdot \mathrm{DTS}(\theta_n - \theta_m), \qquad
# w_n = \frac{\cos(c_u, c_n)}{\sum_k \cos(c_u, c_k)} .$$
#
# $c$ is a **task descriptor**: what the text tower makes of the class names. You hold out `aerial` and
# `house numbers`.

# %%
seen = [task for task in suite.tasks if task not in suite.unseen]
descriptors = torch.stack([suite.descriptor(task) for task in seen])
weights = {task: fusion_weights(suite.descriptor(task), descriptors) for task in suite.unseen}
show(
    figures.weight_bars(seen, {task: row.tolist() for task, row in weights.items()}),
    alt="Bars of the weight of each of the six seen tasks, for aerial and for house numbers, with a dashed line at equal "
    "weights. The bars of one unseen task sum to one.",
)
claim(
    "03-weights",
    "the weights of an unseen task sum to one",
    max(abs(row.sum().item() - 1) for row in weights.values()),
    high=1e-5,
)

# %% [markdown]
# **What you should see:** look whether each unseen task leans on the seen task that you would have named yourself: `digits` and `house numbers`
# have the same class names. Where the bars hardly leave the dashed line, the descriptors are much alike, and the paper's
# weights are close to equal ones.
#
# Now fuse. And fuse once with equal weights, to see what the weights are worth.

# %%
base = average([experts[task] for task in seen])
remainders = list(personalise(base, {task: experts[task] for task in seen}).values())
fused = fuse(base, remainders, weights["house numbers"])
equal = fuse(base, remainders, [1 / len(seen)] * len(seen))
claim(
    "03-equal",
    "with equal weights the fused model is the average again, up to what thresholding leaves",
    length(base, equal) / length(base, experts[seen[0]]),
    high=0.5,
)

# %% [markdown]
# The difference vectors over an average sum to zero. So whatever is gained comes from the weights.
#
# ### Exercise 2 · The weights (easy, 5 minutes)
#
# Write the paper's weights yourself. The paper is silent about negative cosines. Count them as zero.


# %% tags=["exercise"]
def my_weights(unseen: torch.Tensor, seen_ones: torch.Tensor) -> torch.Tensor:
    """Descriptors unseen (d,) and seen_ones (N, d) -> weights (N,): cosines, negative ones as zero, with the sum one."""
    cosines = (seen_ones @ unseen / (seen_ones.norm(dim=1) * unseen.norm())).clamp(min=0)
    return cosines / cosines.sum()


# %%
my_weights = check(my_weights)
# hint("my_weights")

# %%
apart = (my_weights(suite.descriptor("house numbers"), descriptors) - weights["house numbers"]).abs().max().item()
claim("03-my-weights", "for house numbers it gives the weights that you saw above", apart, high=1e-5)

# %% [markdown]
# ## Step 6 · Does it help?
#
# Why: a fused model that loses to zero-shot is worse than nothing. So the table has zero-shot, each seen expert alone,
# and the *oracle*: the expert that you pretended not to have.

# %%
show(
    figures.unseen_accuracies(committed["unseen"]),
    alt="Accuracy of every row on the two unseen tasks, a panel each, with intervals and a dotted line at zero-shot. The "
    "oracle is rightmost; on house numbers the fused models and the digits expert come near it, on aerial nothing does.",
)

# %% tags=["nbval-ignore-output"]
display(Markdown(markdown(committed["unseen"])))

# %%
rows = {row["name"]: row["accuracy"] for row in committed["unseen"]["rows"]}
oracle = "oracle: its own expert"
for task in suite.unseen:
    ours, plain = rows["DTS unseen, average"][task], rows["zero-shot"][task]
    verdict = (
        "better" if ours["low"] > plain["high"] else "worse" if ours["high"] < plain["low"] else "not clearly other"
    )
    best = max((name for name in rows if name != oracle), key=lambda name: rows[name][task]["value"])
    print(f"{task}: the fused model is {verdict} than zero-shot; the best row but the oracle is {best!r}")
    claim(
        f"03-oracle-{task.replace(' ', '-')}",
        f"{task}: the oracle is above the fused model, their intervals apart",
        100 * (rows[oracle][task]["low"] - ours["high"]),
        low=0,
    )
apart = abs(accuracy(fused, "house numbers") - rows["DTS unseen, average"]["house numbers"]["value"])
claim("03-live-unseen", "the model you fused and the committed row agree within one point", apart, high=0.01)

# %% [markdown]
# Read three things off the figure.
#
# - On `aerial` fusion gains nothing. No seen task is near enough, and the oracle is far away.
# - On `house numbers` it gains much: `digits` has the same class names, and the weights lean on it. Compare the fused
#   model with that one expert alone before you praise the fusion.
# - The single experts spread most. A related one can help, an unrelated one can hurt: look on which side of the
#   dotted line each of them lies. Land cover is seen from above, too, and yet its expert is poor at aerial.
# - *Better* and *worse* above are said only where the intervals are apart. Where they are not, zero-shot is the better
#   choice: it is free.

# %% [markdown]
# ## Recap
#
# - One base and a file of about one per cent a task bring back nearly all of the experts' accuracy.
# - DTS-D needs no pretrained model: the average of the experts is base enough.
# - For unseen tasks all that fusion can gain lies in the weights: much where a seen task is near, nothing where none is.
#
# **What would change our mind.** A merge without remainders that comes within a few points of the experts over several
# seeds; or unseen tasks on which the paper's weights beat zero-shot, the average and the best single expert together.
#
# **In the paper.** The main vision table (CLIP ViT-B/32: 90.40 % in the mean at 3.68 % storage, by its own count, with
# experts at about 90.5 %) and the table of unseen tasks.
#
# ## Quiz
#
# **1.** Someone gives you eight experts and has lost the pretrained model. Which variant do you use, over which base?
#
# <details><summary>Answer</summary>
#
# DTS-D over the average of the experts. DTS-T and TIES need the pretrained model.
# </details>
#
# **2.** Why does DTS-D over the average tend to lose no more than DTS-T, at the same number of bytes?
#
# <details><summary>Answer</summary>
#
# Its remainder is a little shorter, so the same relative error is a smaller error of the weights; and where the
# remainder errs, the model falls back on a merge that knows a little of every task.
# </details>
#
# **3.** All descriptors of the seen tasks are equally near to that of the unseen one. What is the fused model?
#
# <details><summary>Answer</summary>
#
# Over the average it is the average, up to what thresholding leaves: the difference vectors sum to zero.
# </details>
