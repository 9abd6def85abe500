# %% [markdown]
# # 07 · Personalised merging: one base, a small file for each task
#
# After this you can turn experts into one shared model and a small file for each task, choose the base with good
# reasons, and read the table that the whole course works towards.

# %% [markdown]
# > **Goals.** You *personalise* a base with DTS-T and DTS-D, and *rebuild* experts from it. You *compare* every base
# > merge as a base. You *judge* the headline table by its intervals, over images and over trainings. You *count* what
# > many tasks cost.
# >
# > **Before you start.** Notebook 01 (merges), notebooks 02 to 04 (decompose, threshold, scale).
# >
# > **Time.** 20 minutes to read, 23 for the exercises. It runs in about a minute on a laptop's CPU. It needs no
# > network.

# %% [markdown]
# ## The question
#
# A merged model is one model, and worse at every task. The experts are good, and as many models as there are tasks.
# *Personalised* merging asks for the middle: **one shared base, a small remainder for each task, and on demand an
# expert again.** You know how DTS makes a remainder small. Now: a remainder of *what*, and what does it buy?
#
# The answer first, as a picture. The numbers are the course's own, measured on test images and stored with the
# checkpoints. Below you measure some of them again.

# %%
import json

import torch
from IPython.display import Markdown, display

from dts_mini import StateError, average, personalise, rebuild, storage
from dts_mini.course import check, claim, figures, hint, show, sliders
from dts_mini.measures.tables import base_merges, markdown, seeds_markdown
from dts_mini.results import SEEDS
from dts_mini.suites import load_suite
from dts_mini.suites.evaluation import bootstrap, divergence, interval, logits

suite = load_suite()
committed = json.loads((suite.folder / "results.json").read_text())
table = {row["name"]: row for row in committed["headline"]["rows"]}

# %%
alt = (
    "Mean accuracy against the size of a task's file, in % of the model. Curves of DTS-T and DTS-D lie far above "
    "the horizontal lines of zero-shot and the merges, and come close to the line of the experts."
)
show(figures.accuracy_against_storage(committed["headline"]), alt=alt)

# %% [markdown]
# **What you should see:** the lower lines are models that all tasks share, so they add no file. The top line is the
# experts, a whole model for each task. The curves just below it are DTS, at three keep ratios. Nearly all of the space
# between a merge and the experts is won back by files that hardly count.

# %% [markdown]
# ## Step 1 · A base, and what is left
#
# Whatever the tasks have in common should be stored once, in the *base* $b$. What an expert has beyond it is the
# *remainder*, and the remainder is what you compress:
#
# $$\hat\theta_n = b + \mathrm{DTS}(\theta_n - b)$$
#
# - **DTS-T**: the base is the pretrained model, $b = \theta_0$. The remainder is the *task vector* $\tau_n$.
# - **DTS-D**: the base is a merge of the experts, $b = \theta_m$. The remainder is the *difference vector*
#   $d_n = \theta_n - \theta_m$.
#
# Any merge will do as a base. Beside the merges of notebook 01 you take DARE ([arXiv
# 2311.03099](https://arxiv.org/abs/2311.03099)): it drops most elements of each task vector by chance and makes the
# others larger to make up for it. A base merge should leave short remainders, or so one would think. Measure their
# lengths, each as a share of the task vector's length.


# %%
def length(base: dict, expert: dict) -> float:
    """The length of expert - base, all tensors together."""
    return sum((expert[name] - x).square().sum() for name, x in base.items()).sqrt().item()


theta_0, experts = suite.pretrained(), {task: suite.expert(task) for task in suite.tasks}
merges = base_merges(theta_0, list(experts.values()))
bases = {"theta_0": theta_0} | {name: merges[name] for name in ("average", "Task Arithmetic", "TIES", "DARE")}
ratios = {name: [length(b, e) / length(theta_0, e) for e in experts.values()] for name, b in bases.items()}
print(len(experts), "experts; bases:", ", ".join(bases))

# %%
mean = lambda values: sum(values) / len(values)
claim(
    "07-average-shorter",
    "Over the average, remainders are shorter than task vectors, by no more than a fifth.",
    mean(ratios["average"]),
    low=0.8,
    high=0.98,
)
claim("07-ties-longer", "Over TIES they are longer than task vectors.", mean(ratios["TIES"]), low=1.02)
claim("07-dare-longer", "Over DARE every remainder is at least twice as long.", min(ratios["DARE"]), low=2)

# %% [markdown]
# **What you should see:** the first surprise. A merge is a better model than $\theta_0$ for every task, and yet its
# remainders are hardly shorter, or even longer. Better does not mean nearer. TIES pushes far along what the experts
# agree on, and the chance in DARE adds noise that every remainder has to take away again.

# %% [markdown]
# ### Exercise 1 · How much shorter? (hard, 10 minutes)
#
# Why does the average help so little? Take $N$ task vectors of the same length, with the cosine $c$ between any two.
# How long is $\tau_n$ minus the mean of all, as a share of the length of $\tau_n$?


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
# Is that what you measured? Put the mean cosine of the real task vectors into your formula.

# %%
flat = lambda state: torch.cat([(state[name] - theta_0[name]).flatten() for name in theta_0])
unit = torch.stack([flat(expert) / flat(expert).norm() for expert in experts.values()])
n = len(unit)
cosine = (((unit @ unit.T).sum() - n) / (n * (n - 1))).item()
apart = abs(remaining_length(n, cosine) - mean(ratios["average"]))
claim("07-formula", "Formula and measured mean differ by less than 0.03 task vectors.", apart, high=0.03)

# %% [markdown]
# With more tasks it gets worse: $1 - 1/N$ comes close to one, and only the cosine helps. Nearly orthogonal task vectors
# share little, so there is little that a base could store once for all. So the remainders are hardly the place where
# DTS-D wins. Keep that in mind for the table.

# %% [markdown]
# ## Step 2 · Personalise, and rebuild
#
# `personalise` compresses the remainder of each task over one base. `rebuild` adds it back. You do this for two tasks:
# the example of the last notebooks, and vehicles, the task whose expert DTS reproduces worst. The cell takes some
# seconds: each row has to answer the test images of both tasks.

# %%
some = tuple(map(suite.named, ("house numbers", "vehicles")))
chosen = {task: experts[task] for task in some}
deltas = {name: personalise(base, chosen, keep_ratio=0.1) for name, base in bases.items()}


def answers(state_of) -> dict:
    """Logits on the test images of both tasks; ``state_of`` names the state dict for a task."""
    return {task: logits(suite, state_of(task), task) for task in some}


live = {
    "average": answers(lambda task: bases["average"]),
    "DTS-D, average": answers(lambda task: rebuild(bases["average"], deltas["average"][task])),
    "experts": answers(lambda task: experts[task]),
}

# %%
right = {row: {t: x.argmax(1) == suite.images(t, "test")[1] for t, x in found.items()} for row, found in live.items()}
draws = bootstrap(right)
for number, task in enumerate(some):
    low, ours, high = (draws[row][:, number] for row in live)
    closed = (ours - low) / (high - low)
    claim(
        f"07-gap-{task.replace(' ', '-')}",
        f"On {task}, DTS-D closes at least half of the gap that the average leaves (95 % interval).",
        closed.median().item(),
        low=0.5,
        interval=interval(closed),
        unit="%",
    )
shares = [storage(delta).share("file") for by_task in deltas.values() for delta in by_task.values()]
claim("07-file", "Every file takes at most 1.5 % of the model's bytes (float32).", max(shares), high=0.015, unit="%")

# %% [markdown]
# **What you should see:** `holds:` for both tasks. Are these the numbers of the committed table? Another machine rounds
# otherwise and may flip an image or two, so the claim leaves a little room.

# %%
names = {"DTS-D, average": "DTS-D, average, 0.1"}
apart = [
    abs(right[row][task].float().mean().item() - table[names.get(row, row)]["accuracy"][task]["value"])
    for row in right
    for task in some
]
claim(
    "07-live",
    "What you have just measured and the committed table agree within one point.",
    max(apart),
    high=0.01,
    unit="points",
)

# %% [markdown]
# ### Exercise 2 · Put an expert together (medium, 8 minutes)
#
# Write the sum yourself, for state dicts. Three things go wrong here in practice. A tensor that fine-tuning left alone
# has no remainder. The remainder is float32, the model may not be. And the base is needed again for the next task.


# %% tags=["exercise"]
def rebuild_expert(base: dict, remainder: dict) -> dict:
    """base + remainder, in the base's dtypes, as a new state dict; a tensor without a remainder is the base's."""
    return {name: (x + remainder[name]).to(x.dtype) if name in remainder else x.clone() for name, x in base.items()}


# %%
rebuild_expert = check(rebuild_expert)
# hint("rebuild_expert")

# %%
base, delta = bases["average"], deltas["average"][some[1]]
remainder = {name: part for name in base if (part := delta.remainder(name)) is not None}
mine, core = rebuild_expert(base, remainder), rebuild(base, delta)
apart = max((mine[name] - core[name]).abs().max().item() for name in core)
claim("07-rebuild", "Your expert and the core's are the same, but for rounding.", apart, high=1e-5)

# %% [markdown]
# ## Step 3 · DTS-D over every base
#
# Does a better base merge give better experts? Rebuild both tasks over all the bases. Accuracy is too coarse to tell
# them apart, so look at the *KL divergence*: for each image, how far the rebuilt model's probabilities $q$ are from the
# expert's $p$,
#
# $$\mathrm{KL} = \sum_c p_c \log \frac{p_c}{q_c} ,$$
#
# in the mean over images. It is zero where they agree. The cell answers four more rows and takes up to twenty seconds.

# %%
for name in bases:
    if name != "average":
        live[f"DTS, {name}"] = answers(lambda task, name=name: rebuild(bases[name], deltas[name][task]))
live["DTS, average"] = live["DTS-D, average"]
kl = {name: {t: divergence(live["experts"][t], live[f"DTS, {name}"][t]) for t in some} for name in bases}
kl_draws = {name: both.mean(1) for name, both in bootstrap(kl).items()}

# %%
rows = {}
for name in bases:
    low, high = interval(kl_draws[name])
    rows[name] = {
        "accuracy": table["zero-shot" if name == "theta_0" else name]["mean"],
        "length": {"value": mean(ratios[name]), "low": min(ratios[name]), "high": max(ratios[name])},
        "kl": {"value": mean([x.mean().item() for x in kl[name].values()]), "low": low, "high": high},
    }
alt = (
    "KL divergence of rebuilt experts over five bases, twice: against the accuracy of the base itself, with no "
    "order to be seen, and against the length of the remainder, where DARE stands far right and far above the rest."
)
show(figures.base_choice(rows), alt=alt)

# %%
own = {name: row["accuracy"] for name, row in rows.items()}
better = own["DARE"]["value"] - own["average"]["value"]
ends = (own["DARE"]["low"] - own["average"]["high"], own["DARE"]["high"] - own["average"]["low"])
claim(
    "07-dare-better",
    "DARE alone is at least three points more accurate than the average.",
    better,
    low=0.03,
    interval=ends,
    unit="points",
)
worse = kl_draws["DARE"] / kl_draws["average"]
claim(
    "07-dare-worse",
    "As a base it is worse: at least twice the KL divergence (95 % interval).",
    worse.median().item(),
    low=2,
    interval=interval(worse),
)
gain = kl_draws["theta_0"] - kl_draws["average"]
claim(
    "07-average-nearer",
    "Over the average the KL divergence is lower than over theta_0 (95 % interval).",
    gain.median().item(),
    low=0,
    interval=interval(gain),
    unit="nats",
)

# %% [markdown]
# **What you should see:** read the left panel from left to right. The base gets better, and the rebuilt experts do not
# follow. What a base merge scores by itself says little about how good a base it is. The right panel explains DARE: a
# long remainder is one that DTS gets wrong by more. But length is not all: TIES leaves longer remainders than
# $\theta_0$ and still comes nearer to the experts. The plain average, the simplest merge of all, is a good base.
#
# Would accuracy have told you? Ask it the last question again: the average against $\theta_0$.

# %%
labels = {task: suite.images(task, "test")[1] for task in some}
pair = {name: {t: live[f"DTS, {name}"][t].argmax(1) == labels[t] for t in some} for name in ("average", "theta_0")}
pair_draws = {name: both.mean(1) for name, both in bootstrap(pair).items()}
gain = pair_draws["average"] - pair_draws["theta_0"]
claim(
    "07-accuracy-coarse",
    "In accuracy the two bases are less than three points apart, either way (95 % interval).",
    gain.mean().item(),
    low=-0.03,
    high=0.03,
    interval=interval(gain),
    unit="points",
)

# %% [markdown]
# **What you should see:** the same answers of the same models. KL divergence tells the two bases apart, accuracy
# hardly: an answer may get less sure for a long time before it flips. So use KL to *choose* between methods that are
# close, and accuracy to say what the choice is worth.

# %% [markdown]
# ## Step 4 · No pretrained model at hand
#
# People publish fine-tuned models and forget what they came from. What can you still do with the experts alone? You can
# average them, so DTS-D over the average works: in Step 2, $\theta_0$ was never used. You cannot make task vectors, so
# DTS-T, Task Arithmetic, TIES and DARE are out. (The heads still need the pretrained *text* tower, or must be kept:
# they are small.)
#
# The price comes later, with a new task. Another expert changes the average, and a remainder over the old base means
# nothing over the new one. The core refuses to mix them up:

# %%
newcomer = suite.named("textures")
old = average([expert for task, expert in experts.items() if task != newcomer])
try:
    rebuild(old, deltas["average"][some[1]])
except StateError as error:
    print("refused:", type(error).__name__)

# %% [markdown]
# So do you make every file again? You need not. Keep the old base, and give the newcomer a remainder over that. It has
# not been averaged in, so its remainder is longer. How much?

# %%
longer = length(old, experts[newcomer]) / length(bases["average"], experts[newcomer]) - 1
claim("07-newcomer", "Over the old base the newcomer's remainder is at most a sixth longer.", longer, high=1 / 6)

# %% [markdown]
# **What you should see:** a small price, and you can derive it: $d_n$ over the average of all is exactly
# $\frac{N-1}{N}$ of what it is over the average of the others. With many tasks the newcomer hardly notices.

# %% [markdown]
# ## Step 5 · The headline table
#
# Two tasks are an anecdote. The committed table holds all tasks, every base merge, and DTS at three keep ratios.

# %%
alt = (
    "Mean accuracy of each row of the headline table with its interval. Zero-shot is lowest, the merges follow, and "
    "after a wide gap come DTS-T and DTS-D, the closer to the experts the higher the keep ratio."
)
show(figures.mean_accuracies(committed["headline"]), alt=alt)

# %%
alt = (
    "Grouped bars for each task: zero-shot, average, DTS-D over the average at keep ratio 0.1, and the expert, with "
    "intervals. On each task the last two bars are close together and higher than the first two."
)
few = ("zero-shot", "average", "DTS-D, average, 0.1", "experts")
show(figures.task_accuracies(committed["headline"], few), alt=alt)

# %% [markdown]
# The same as numbers, accuracy in %, with 95 % intervals in brackets. *Storage* is a task's file as a share of the
# float32 model.

# %% tags=["nbval-ignore-output"]
display(Markdown(markdown(committed["headline"])))

# %%
methods, merges = ("DTS-T", "DTS-D, average", "DTS-D, TIES"), tuple(name for name in bases if name != "theta_0")
best = max((table[name] for name in merges), key=lambda row: row["mean"]["value"])
gap = [table["experts"]["mean"][a] - best["mean"][b] for a, b in (("value", "value"), ("low", "high"), ("high", "low"))]
claim(
    "07-experts-above",
    "The experts are at least eight points above the best merge.",
    gap[0],
    low=0.08,
    interval=tuple(gap[1:]),
    unit="points",
)
for ratio, least in ((0.05, 0.97), (0.1, 0.98)):
    kept = min((table[f"{method}, {ratio}"]["share of experts"] for method in methods), key=lambda e: e["low"])
    claim(
        f"07-kept-{100 * ratio:g}",
        f"At keep ratio {ratio}, every DTS row keeps at least {100 * least:.0f} % of the experts' mean accuracy.",
        kept["value"],
        low=least,
        interval=(kept["low"], kept["high"]),
        unit="%",
    )

# %% [markdown]
# **What you should see:** three floors with air between them: zero-shot, the merges, and DTS close under the experts.
# Within the top floor most intervals overlap. Move the slider: what does each step of the keep ratio buy, and what does
# it cost?

# %% tags=["nbval-ignore-output"]
sliders.widget("keep ratio")

# %% [markdown]
# ### What surprised
#
# Over a merge the remainders are other ones. Are the *files* smaller, or the experts better? Compare the rows at
# the same keep ratio, by both measures.

# %%
alt = (
    "Two panels against a task's file size. Left: the share of the experts' accuracy, three curves with intervals that "
    "overlap. Right: KL divergence from the experts, where DTS-T lies above both DTS-D curves."
)
show(figures.two_measures(committed["headline"]), alt=alt)

# %%
sizes = [
    table[f"DTS-D, average, {ratio}"]["storage"] / table[f"DTS-T, {ratio}"]["storage"] for ratio in (0.05, 0.1, 0.3)
]
claim("07-same-bytes", "DTS-D saves at most 3 % of a file's bytes.", 1 - min(sizes), high=0.03, unit="%")
ours, plain = table["DTS-D, average, 0.1"], table["DTS-T, 0.1"]
claim(
    "07-nearer",
    "At keep ratio 0.1, the KL divergence of DTS-D is at most four fifths of that of DTS-T.",
    ours["kl from experts"] / plain["kl from experts"],
    high=0.8,
)
claim(
    "07-hardly-better",
    "Their mean accuracies differ by less than one point.",
    abs(ours["mean"]["value"] - plain["mean"]["value"]),
    high=0.01,
    unit="points",
)

# %% [markdown]
# **What you should see:** DTS-D costs the same bytes. They depend on shapes and ranks alone, not on what is in the
# matrices. For these bytes you get models that answer more like the experts, and nearly the same accuracy.
#
# ### Would another training say the same?
#
# The intervals so far tell what other *images* would change. The experts themselves were trained once. So we trained
# them again, from other seeds, and evaluated every row anew. Here the intervals are over trainings (Student's $t$).

# %% tags=["nbval-ignore-output"]
seeds = json.loads(SEEDS.read_text())
display(Markdown(seeds_markdown(seeds)))

# %%
each = {row["name"]: row["mean"]["each"] for row in seeds["rows"]}
dts = [name for name in each if name.startswith("DTS")]
spread = max(max(each[name]) - min(each[name]) for name in dts)
claim(
    "07-seeds-spread", "From training to training no DTS row moves by a full point.", spread, high=0.01, unit="points"
)
margin = min(min(each[name][i] for name in dts) - max(each[m][i] for m in merges) for i in range(len(seeds["seeds"])))
claim(
    "07-seeds-gap",
    "In every training each DTS row is at least eight points above each merge.",
    margin,
    low=0.08,
    unit="points",
)
pair = (each["DTS-D, average, 0.1"], each["DTS-D, TIES, 0.1"])
ahead = sum(average_one > ties_one for average_one, ties_one in zip(*pair, strict=True))
claim(
    "07-seeds-order",
    "At keep ratio 0.1, DTS-D over the average is ahead of DTS-D over TIES in some trainings and behind in others.",
    ahead,
    low=1,
    high=len(seeds["seeds"]) - 1,
)

# %% [markdown]
# **What you should see:** the floors stay where they are. The order within the top floor does not: rows that are
# close change places. Not all do: at keep ratio 0.05 the base TIES is ahead in every training, if only just.
# These trainings are few, and they share $\theta_0$ and the test images. They rule out that one lucky training made the
# table, and no more.

# %% [markdown]
# ## Step 6 · What do many tasks cost?
#
# A file for each task *and* the shared model: count both. With $N$ tasks, a model of $M$ bytes and files of $f$ bytes,
# the experts take $N M$, personalised merging takes $M + N f$, one merged model takes $M$.

# %%
model = storage(delta).model
files = {f"keep ratio {ratio}": table[f"DTS-D, average, {ratio}"]["storage"] * model for ratio in (0.05, 0.1, 0.3)}
alt = (
    "Storage in units of one model against the number of tasks. The experts rise by one for each task and leave the "
    "picture; the shared model with files rises so slowly that its lines are nearly flat, just above one merged model."
)
show(figures.storage_by_tasks(model, files), alt=alt)

# %%
biggest, file = max(files.values()), files["keep ratio 0.1"]
claim(
    "07-two-tasks",
    "From two tasks on, a shared model with files is smaller than the experts at every keep ratio of the table.",
    (model + 2 * biggest) / (2 * model),
    high=0.99,
)
shared = model / (model + len(experts) * file)
claim(
    "07-shared-cost", "For eight tasks over nine tenths of the bytes are the shared model's.", shared, low=0.9, unit="%"
)

# %% [markdown]
# **What you should see:** against experts, personalised merging always wins, as soon as there is a second task. Against
# one merged model it always loses a little. For few tasks the files are not where the bytes are: the shared model is.
# To save more, you would have to make *that* smaller.

# %% [markdown]
# ### Exercise 3 · How many tasks fit? (easy, 5 minutes)
#
# You have a budget of bytes. How many tasks fit into it, with one shared model and a file for each?


# %% tags=["exercise"]
def tasks_that_fit(budget: int, model: int, file: int) -> int:
    """How many tasks fit into a budget when they share one model and each adds a file; all three in bytes."""
    return max(0, (budget - model) // file)


# %%
tasks_that_fit = check(tasks_that_fit)
# hint("tasks_that_fit")

# %%
one_file = round(file)
second = tasks_that_fit(2 * model, model, one_file)
all_eight = tasks_that_fit(len(experts) * model, model, one_file)
claim("07-second-model", "The files of at least 90 tasks fit into the space of a second model.", second, low=90)
claim("07-room", "In the space of the eight experts there is room for over 500 tasks.", all_eight, low=501)

# %% [markdown]
# ## Recap
#
# - One base and a small file for each task bring back nearly all of the experts' accuracy, in every training that we
#   ran.
# - Any base works, and a base merge's own accuracy says little about it. The average is a good base and needs no
#   pretrained model; DARE is a better model and a poor base.
# - DTS-D costs the same bytes as DTS-T. What it gains is seen in KL divergence, and hardly in accuracy.
#
# **What would change our mind.** A merge without remainders that comes within a few points of the experts, over several
# seeds. Or a base whose remainders are clearly shorter than the average's and whose experts are no nearer.
#
# **In the paper.** The comparison on eight tasks with CLIP ViT-B/32, where DTS-D over TIES reaches 90.40 % in the mean
# at 3.68 % storage, by its own count, with experts at about 90.5 %.

# %% [markdown]
# ## Quiz
#
# **1.** Someone gives you eight experts and has lost the pretrained model. Which variant do you use, over which base?
#
# <details><summary>Answer</summary>
#
# DTS-D over the average of the experts. DTS-T, Task Arithmetic, TIES and DARE all need the pretrained model.
# </details>
#
# **2.** A new base merge is more accurate than TIES. Will DTS-D over it be better than over TIES?
#
# <details><summary>Answer</summary>
#
# You cannot tell from that. DARE is more accurate than the average and yet the worse base, because it leaves long
# remainders. Measure the remainders' lengths, and the KL divergence of rebuilt experts.
# </details>
#
# **3.** Two methods are very close in mean accuracy, in a table with intervals over test images only. What do you
# ask for before you believe in the order?
#
# <details><summary>Answer</summary>
#
# A paired interval of the difference, and other trainings: here rows so close change places from seed to seed. KL
# divergence from the experts may tell them apart where accuracy cannot.
# </details>
#
# **Next:** [08 · Unseen tasks](08_unseen_tasks.ipynb) asks what the remainders are worth where there is no expert at
# all.
