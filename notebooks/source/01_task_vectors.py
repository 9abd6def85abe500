# %% [markdown]
# # 01 · Task vectors, and what merging loses
#
# After this you can compute a task vector, say where in the model fine-tuning happened, and show on real experts
# what averaging costs even where only two tasks are merged.

# %% [markdown]
# > **Goals.** You *compute* task vectors and their cosines. You *merge* experts by averaging, Task Arithmetic, TIES and
# > TSV-M, and *measure* what the tasks lose. You *test* whether more similar tasks merge without loss.
# >
# > **Before you start.** Notebook 00: the mini suite, heads, experts, intervals. Vectors, dot products, cosines.
# >
# > **Time.** 15 minutes to read, 25 for the exercises. It runs in about 45 seconds on a laptop's CPU; the cells that
# > evaluate merged models take several seconds each. It needs no network.

# %% [markdown]
# ## The question
#
# Two colleagues fine-tune the same model, one on handwritten digits, one on house numbers. Both read
# digits. Surely you can merge these two without harm? The paper opens with a figure that says no: it merges
# the expert of SVHN (house numbers) with experts of ever more similar tasks, and **accuracy is lost even with the
# most similar one**. You will draw this figure for the mini suite.

# %%
# Importing takes about five seconds.
import torch

from dts_mini.core.merging import average, task_arithmetic, ties, tsv_m
from dts_mini.course import check, claim, figures, hint, show
from dts_mini.suites import load_suite
from dts_mini.suites.evaluation import bootstrap, correct, interval

suite = load_suite()
theta_0, experts = suite.pretrained(), {task: suite.expert(task) for task in suite.tasks}

# %% [markdown]
# One picture first. Three models span a plane: $\theta_0$ and two experts. So you can draw them on paper, with every
# length and angle to scale. The two arrows are what fine-tuning did. The third arrow ends at their average.

# %%
names = tuple(map(suite.named, ("house numbers", "digits")))
show(figures.triangle(theta_0, *(experts[name] for name in names), names))

# %% [markdown]
# **What you should see:** the average is *far from both experts*. It has gone only part of the way to each, and
# sideways as well. The rest of this notebook asks what that costs.

# %% [markdown]
# ## Step 1 · A task vector
#
# What did fine-tuning change? Subtract:
#
# $$\tau_n = \theta_n - \theta_0$$
#
# This is the *task vector* of task $n$ ([arXiv 2212.04089](https://arxiv.org/abs/2212.04089)). A state dict holds
# many tensors, so the subtraction is done for each tensor. For lengths and angles you may put all tensors in one
# row. Mind the order: two files of one model may list the same tensors differently, so `flat` sorts them by name.


# %%
def task_vector(theta_0: dict, expert: dict) -> dict:
    """tau_n = theta_n - theta_0, tensor by tensor."""
    return {name: expert[name] - tensor for name, tensor in theta_0.items()}


def flat(state: dict) -> torch.Tensor:
    """All numbers of a state dict in one row, its tensors in the order of their names."""
    return torch.cat([state[name].flatten() for name in sorted(state)])


tau = {task: task_vector(theta_0, expert) for task, expert in experts.items()}
print(f"{len(theta_0)} tensors, {flat(theta_0).numel():,} numbers")

# %%
error = max((flat(theta_0) + flat(tau[task]) - flat(experts[task])).abs().max().item() for task in suite.tasks)
claim("01-exact", "Theta_0 plus a task vector is the expert, to a millionth in every number.", error, high=1e-6)

# %% [markdown]
# **What you should see:** a task vector has as many numbers as the model, so storing task vectors saves nothing yet.
# But a task vector is *simpler* than a model. The next steps, and notebook 02, show in which sense.

# %% [markdown]
# ## Step 2 · How far did fine-tuning go, and where?
#
# Compare lengths: $\lVert\tau_n\rVert / \lVert\theta_0\rVert$ is how far the expert moved, as a share of the model.

# %%
relative = {task: (flat(tau[task]).norm() / flat(theta_0).norm()).item() for task in suite.tasks}
claim("01-short", "Every task vector is shorter than a tenth of theta_0.", max(relative.values()), high=0.1, unit="%")

# %% [markdown]
# Fine-tuning is a small step. Is it small everywhere? Do the same for each layer and kind of tensor. The whiskers
# span the experts, from the one that moved least to the one that moved most.

# %%
figure, data = figures.layer_lengths(theta_0, experts)
show(figure)

# %%
moved = [value / 100 for kind in data["kinds"].values() for value in kind["low"]]  # the figure's data are in %
sentence = "Every layer and kind of tensor moved in every expert, by at least 0.5 % of its length."
claim("01-everywhere", sentence, min(moved), low=0.005, unit="%")

# %% [markdown]
# **What you should see:** every layer moved, and no layer holds the whole change. So you cannot keep "the few layers
# that changed" and throw away the rest. A short description of a task vector has to come from somewhere else: from
# its structure within each matrix.

# %% [markdown]
# ## Step 3 · Do experts go the same way?
#
# Two task vectors that point the same way could share one merged model. Their cosine tells:
#
# $$\cos(\tau_a, \tau_b) = \frac{\tau_a \cdot \tau_b}{\lVert\tau_a\rVert\,\lVert\tau_b\rVert}$$

# %%
unit = torch.stack([flat(vector) / flat(vector).norm() for vector in tau.values()])
cosines = unit @ unit.T

# %%
show(figures.cosine_map(cosines, suite.tasks))

# %%
others = cosines[~torch.eye(len(tau), dtype=torch.bool)]
chance = flat(theta_0).numel() ** -0.5
claim("01-top-cosine", "No two task vectors are nearly parallel: no cosine reaches 0.5.", others.max().item(), high=0.5)
sentence = "Even the smallest cosine of two task vectors is at least 20 times the spread of chance."
claim("01-chance", sentence, others.min().item() / chance, low=20)

# %% [markdown]
# **What you should see:** off the diagonal the cosines are far from one: most of what an expert learnt is its own. But
# they are no matter of chance either. Two random directions in a space of $n$ dimensions have a cosine of about zero,
# spread by $1/\sqrt n$, and $n$ is the number of parameters here. Every pair of experts is many times closer than that.
# So experts share a little. These numbers do not tell why; all of them started from one model, and were trained by one
# recipe.
#
# Now think about averaging $N$ such vectors. The average is $\theta_0 + \frac1N\sum_n \tau_n$. Along $\tau_n$ it goes
# as far as its own share, $1/N$, takes it, and a little further where other task vectors lean towards it. How far does
# it get?


# %%
def progress(merged: dict, task: str) -> float:
    """How far a merged model has gone along a task vector: 0 at theta_0, 1 level with the expert."""
    own = flat(tau[task])
    return ((flat(merged) - flat(theta_0)) @ own / own.square().sum()).item()


merges = {"average": average(list(experts.values()))}
along = [progress(merges["average"], task) for task in suite.tasks]
sentence = "The average goes less than a third of the way along every task vector."
claim("01-progress", sentence, max(along), high=1 / 3, unit="%")

# %% [markdown]
# ## Step 4 · What merging loses
#
# Other merges try to do better than the average. *Task Arithmetic* adds all task vectors with a coefficient
# $\lambda$: $\theta_m = \theta_0 + \lambda \sum_n \tau_n$. *TIES*
# ([arXiv 2306.01708](https://arxiv.org/abs/2306.01708)) first drops the small elements of each task vector, then
# lets the experts vote on the sign of every element, and adds only those that agree. *TSV-M*
# ([arXiv 2412.00081](https://arxiv.org/abs/2412.00081)) keeps a few directions of each expert's matrices and rotates
# them until those of different experts no longer overlap; of all merges in this course's tables it does best. The
# coefficients are the papers'.

# %%
merges["Task Arithmetic"] = task_arithmetic(theta_0, list(experts.values()), coefficient=0.3)
merges["TIES"] = ties(theta_0, list(experts.values()), density=0.2, coefficient=0.3)
merges["TSV-M"] = tsv_m(theta_0, list(experts.values()))

# %% [markdown]
# Six models answer eight tasks, which is the slow part of this notebook: each of the next two cells takes several
# seconds. So only every second test image counts here; the intervals say what that costs.


# %%
@torch.no_grad()
def right(state: dict, task: str) -> torch.Tensor:
    """Which of every second test image of a task a model gets right (n,)."""
    pixels, labels = (part[::2] for part in suite.images(task, "test"))
    tower = suite.tower()
    tower.load_state_dict(state)
    return (tower(pixels) @ suite.head(task).T).argmax(1) == labels


rows = {"zero-shot": {task: right(theta_0, task) for task in suite.tasks}}
rows["experts"] = {task: right(experts[task], task) for task in suite.tasks}

# %%
for name, merged in merges.items():
    rows[name] = {task: right(merged, task) for task in suite.tasks}

# %%
order = ("zero-shot", *merges, "experts")
show(figures.accuracies({name: rows[name] for name in order}))

# %% [markdown]
# To compare two rows, compare them image by image: the bootstrap draws the same test images for all rows, so you
# may subtract draw by draw. This *paired* interval is what the claims use.

# %%
means = {name: draws.mean(1) for name, draws in bootstrap(rows).items()}
mean = {name: sum(r.float().mean().item() for r in by_task.values()) / len(by_task) for name, by_task in rows.items()}
ahead = lambda a, b: {"value": mean[a] - mean[b], "interval": interval(means[a] - means[b]), "unit": "points"}
best = max(merges, key=mean.get)
sentence = "Averaging the experts beats zero-shot by at least 10 points in the mean."
claim("01-average-gains", sentence, low=0.10, **ahead("average", "zero-shot"))
sentence = "Even the best merge of the course's table is at least 3 points below the experts in the mean."
claim("01-merging-loses", sentence, low=0.03, **ahead("experts", best))

# %% [markdown]
# **What you should see:** all merges lie between zero-shot and the experts. Merging helps, and merging loses: both are
# true. Don't read much into the *order* of the merges: their coefficients are the papers', not tuned here. Notebook 07
# has the table of all.

# %% [markdown]
# ### Exercise 1 · Task Arithmetic and the average (medium, 8 minutes)
#
# Write Task Arithmetic for state dicts. Before you read on, predict: for which coefficient is it exactly the plain
# average? (The answer is folded below.)


# %% tags=["exercise"]
def my_task_arithmetic(theta_0: dict, experts: list[dict], coefficient: float) -> dict:
    """theta_0 + coefficient * (sum of all task vectors), a new state dict; the inputs stay as they are."""
    return {name: x + coefficient * sum(e[name] - x for e in experts) for name, x in theta_0.items()}


# %%
my_task_arithmetic = check(my_task_arithmetic)
# hint("my_task_arithmetic")

# %% [markdown]
# <details><summary>For which coefficient? Predict, then open this, and run the cell below.</summary>
#
# For $1/N$. Then the $N$ copies of $\theta_0$ that are subtracted, divided by $N$, cancel the one that is there.
# </details>

# %% tags=["answer"]
found = my_task_arithmetic(theta_0, list(experts.values()), 1 / len(experts))
apart = max((found[name] - merges["average"][name]).abs().max().item() for name in theta_0)
sentence = "With the coefficient 1/N, your Task Arithmetic is the average, to 0.00001."
claim("01-coefficient", sentence, apart, high=1e-5, of="my_task_arithmetic")

# %% [markdown]
# ### Exercise 2 · The vote inside TIES (hard, 10 minutes)
#
# (Nothing later needs it: leave it for a second reading if you like.)
#
# What does TIES do that a sum does not? First it *trims*: of each task vector only the largest elements stay
# (Step 4 kept `density=0.2` of them); the others become zero. Then, for each element, the experts *elect* a sign: that
# of the sum of what stayed. So a few large votes can beat many small ones. Where the votes cancel exactly, the element
# takes the sign that most elements have elected. Last, only the values that have the elected sign are added up.
#
# Write the election and the sum. You get trimmed task vectors, a row for each expert.


# %% tags=["exercise"]
def elect_and_add(trimmed: torch.Tensor) -> torch.Tensor:
    """Trimmed task vectors (N, d) -> (d,): for each element the sum of the values that have the elected sign."""
    elected = trimmed.sum(0).sign()
    elected[elected == 0] = elected.sum().sign()
    return torch.where(trimmed.sign() == elected, trimmed, 0).sum(0)


# %%
elect_and_add = check(elect_and_add)
# hint("elect_and_add")

# %% [markdown]
# With this function the whole merge fits into a few lines. Is it the one that you have just measured? And how often do
# the experts disagree at all?

# %%
vectors = torch.stack([flat(vector) for vector in tau.values()])
n = vectors.shape[1]
limits = vectors.abs().kthvalue(n - int(0.2 * n), dim=1, keepdim=True).values
trimmed = torch.where(vectors.abs() >= limits, vectors, 0)
by_hand = flat(theta_0) + 0.3 * elect_and_add(trimmed)

# %%
sentence = "With your election, TIES by hand is the merge of Step 4, to 0.00001."
apart = (by_hand - flat(merges["TIES"])).abs().max().item()
claim("01-ties-by-hand", sentence, apart, high=1e-5, of="elect_and_add")
voted = (trimmed != 0).sum(0) >= 2
split = ((trimmed > 0).any(0) & (trimmed < 0).any(0))[voted].float().mean().item()
sentence = "Where two experts or more vote, they disagree about the sign at least half of the time."
claim("01-conflicts", sentence, split, low=0.5, unit="%")

# %% [markdown]
# **What you should see:** the same merge, and experts that often pull a parameter both ways. In a plain sum such votes
# cancel. In TIES the losers are silenced instead, and what they had to say is what a rebuilt expert needs back.

# %% [markdown]
# ## Step 5 · The paper's opening figure: are similar tasks safe?
#
# Eight tasks at once may simply be too many. So merge only two: house numbers and *one* other task. If similarity
# were what matters, the loss should vanish as the partner becomes more similar.
#
# Similar in what sense? You have two measures. One is the cosine of the task vectors, from the last steps. The other
# needs no expert at all: the cosine of the *task descriptors*. A descriptor is the mean of the class vectors in a
# task's head, so it says what the task is *about*.

# %%
task, digits = map(suite.named, ("house numbers", "digits"))
partners = [name for name in suite.tasks if name != task]
alike = {
    "task vectors": {p: cosines[suite.tasks.index(task), suite.tasks.index(p)].item() for p in partners},
    "task descriptors": {p: (suite.descriptor(task) @ suite.descriptor(p)).item() for p in partners},
}
same = alike["task descriptors"][digits]
sentence = "By its words, digits is the same task as house numbers: a cosine of at least 0.999."
claim("01-same-words", sentence, same, low=0.999)

# %% [markdown]
# There is one more thing to keep apart. Averaging two experts halves both task vectors. That alone may cost accuracy,
# whoever the partner is: call it *dilution*. So measure the halved task vector too: $\theta_0 + \frac12\tau$, the
# expert averaged with $\theta_0$ itself. What a partner costs beyond that is *interference*.
#
# Here one task is enough, so all its test images count (`correct` is `right` without the `[::2]`). The next cell takes
# several seconds.

# %%
pairs = {p: correct(suite, average([experts[task], experts[p]]), task) for p in partners}
levels = {
    "the expert alone": correct(suite, experts[task], task),
    "its task vector halved": correct(suite, average([experts[task], theta_0]), task),
}

# %%
show(figures.similarity_scatter(pairs, alike, levels, task))

# %% [markdown]
# **What you should see:** the points lie below the solid line, though only two experts were merged. The
# dashed line lies close to the solid one: halving alone costs little. Points below the dashed line met a partner that
# pulls the wrong way. Whiskers and bands overlap, since one task has few test images; to be sure, compare image by
# image. First split the loss.

# %% [markdown]
# ### Exercise 3 · Interference or dilution? (medium, 7 minutes)
#
# Split the loss of a pair in two: what halving alone costs (*dilution*), and the rest (*interference*). All three
# accuracies are between 0 and 1.


# %% tags=["exercise"]
def split_loss(expert: float, halved: float, merged: float) -> tuple[float, float]:
    """(dilution, interference): they add up to the accuracy that merging lost."""
    return expert - halved, halved - merged


# %%
split_loss = check(split_loss)
# hint("split_loss")

# %% [markdown]
# Now use it, on every partner. The bootstrap draws give each part its interval: split draw by draw.

# %%
outcomes = {"expert": levels["the expert alone"], "halved": levels["its task vector halved"], **pairs}
measured = {name: found.float().mean().item() for name, found in outcomes.items()}
draws = {name: drawn[:, 0] for name, drawn in bootstrap({name: {task: x} for name, x in outcomes.items()}).items()}
parts, spread = {}, {}
for partner in partners:
    parts[partner] = split_loss(measured["expert"], measured["halved"], measured[partner])
    drawn = zip(*(draws[name].tolist() for name in ("expert", "halved", partner)), strict=True)
    spread[partner] = [interval(part) for part in torch.tensor([split_loss(*each) for each in drawn]).T]

# %% tags=["nbval-ignore-output"]
for partner, (dilution, interference) in parts.items():
    low, high = spread[partner][1]
    beyond = f"interference {100 * interference:5.1f} [{100 * low:5.1f}, {100 * high:5.1f}]"
    print(f"{partner:<12} dilution {100 * dilution:4.1f}   {beyond} points")

# %%
sentence = "What halving alone costs is at most 2.5 points."
claim("01-dilution", sentence, parts[digits][0], interval=spread[digits][0], high=0.025, unit="points")
certain = sum(spread[partner][1][0] > 0 for partner in partners)
sentence = "With at least four of its seven partners it loses by interference (95 % intervals above zero)."
claim("01-interference", sentence, certain, low=4)
claim(
    "01-digits-spare",
    "With digits, the same task by its words, it loses at most three points.",
    measured["expert"] - measured[digits],
    interval=interval(draws["expert"] - draws[digits]),
    high=0.03,
    unit="points",
)

# %% [markdown]
# **What you should see:** with most partners interference is established: its interval lies above zero.
# Dilution is not. It is so small that these images cannot tell it from nothing: its interval reaches down to about
# zero. So the partner costs accuracy for certain, and the halving perhaps.
#
# And one surprise. The rightmost partner of the figure, `digits`, costs hardly anything: the interval of its loss, too,
# reaches down to about zero. In the paper, on real photographs, even the most similar partner costs accuracy. Here two
# tasks share every class name and every prompt, so they may be more alike than any two data sets of the paper. We
# print what we found.
#
# Two experts are the mildest case. With eight, as in Step 4, every task pays. The paper's conclusion is the one to test
# in the next notebooks: leave each expert its personality, and store it *small*.

# %% [markdown]
# ## Recap
#
# - A task vector $\tau_n = \theta_n - \theta_0$ is short, spread over all layers, and far from parallel to the others,
#   though not at right angles to them.
# - An average goes only a part of the way along each of them. Other merges lose less, and all stay below the experts.
# - Most partners cost accuracy even two at a time, by interference; halving alone costs little or nothing. A partner
#   with the very same class names hardly costs anything.
#
# **What would change our mind.** Digits and house numbers are a pair that is nearly safe to merge; if most pairs were
# like it, there would be little to solve. A merge within the experts' interval would make personalised merging
# pointless here.
#
# **In the paper.** Step 5 mirrors its opening figure (SVHN merged with ever more similar tasks). Step 4 mirrors the
# baseline rows of its comparison on CLIP ViT-B/32.

# %% [markdown]
# ## Quiz
#
# **1.** All task vectors have the same length and are exactly orthogonal. You average $N$ of them. How long is the
# result, and how far does it go along each?
#
# <details><summary>Answer</summary>
#
# Along each it goes $1/N$ of the way. Its length is $1/\sqrt N$ of one task vector's, since $N$ orthogonal parts, each
# $1/N$ long, add up by Pythagoras.
# </details>
#
# **2.** Why is the halved task vector in the figure of Step 5?
#
# <details><summary>Answer</summary>
#
# It tells two causes apart. Averaging shortens the task vector, whoever the partner is. Only what is lost beyond that
# is the partner's doing.
# </details>
#
# **3.** Task vectors are as large as models. Why then store task vectors, and not models, in compressed form?
#
# <details><summary>Answer</summary>
#
# They are short: what is a large error for a task vector is a small one for the model. And they have structure within
# each matrix, which notebook 02 looks at.
# </details>
#
# **Next:** [02 · Decomposition](02_decomposition.ipynb): how few directions of each matrix hold a task vector?
