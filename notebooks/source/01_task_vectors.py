# %% [markdown]
# # 01 · Task vectors, and what merging loses
#
# After this you can compute a task vector, say where in the model fine-tuning happened, and show on real experts
# why even two tasks that are alike should not simply be averaged.

# %% [markdown]
# > **Goals.** You *compute* task vectors and their cosines. You *merge* experts by averaging, Task Arithmetic and
# > TIES, and *measure* what each task loses. You *test* whether more similar tasks merge without loss.
# >
# > **Before you start.** Notebook 00: the mini suite, heads, experts, intervals. Vectors, dot products, cosines.
# >
# > **Time.** 15 minutes to read, 15 for the exercises. It runs in about a minute on a laptop's CPU; the cells that
# > evaluate merged models take a few seconds each. It needs no network.

# %% [markdown]
# ## The question
#
# Two colleagues fine-tune the same model, one on handwritten digits, one on house numbers. Both read the digits
# from 0 to 9. Surely you can merge these two without harm? The paper opens with a figure that says no: it merges
# the expert of SVHN (house numbers) with experts of ever more similar tasks, and **accuracy is lost even with the
# most similar one**. You will draw this figure for the mini suite.

# %%
import torch

from dts_mini.core.merging import average, task_arithmetic, ties
from dts_mini.course import check, claim, figures, hint, show
from dts_mini.suites import load_suite
from dts_mini.suites.evaluation import bootstrap, correct, interval

suite = load_suite()
theta_0, experts = suite.pretrained(), {task: suite.expert(task) for task in suite.tasks}

# %% [markdown]
# One picture first. Three models span a plane: $\theta_0$ and two experts. So you can draw them on paper, with every
# length and angle to scale. The two arrows are what fine-tuning did. The third arrow ends at their average.

# %%
names = ("house numbers", "digits")
figure, data = figures.triangle(theta_0, *(experts[name] for name in names), names)
alt = (
    "Three arrows from theta_0, to scale: to the house-numbers expert, to the digits expert, and to their average, "
    "which lies half-way between the two."
)
show(figure, alt=alt)

# %% [markdown]
# **What you should see:** the average is *far from both experts*. It has gone only part of each way, and it has gone
# sideways as well. The rest of this notebook asks how much that costs.

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
claim("01-exact", "theta_0 plus a task vector is the expert, but for rounding.", error, high=1e-6)

# %% [markdown]
# **What you should see:** a task vector has as many numbers as the model, so storing task vectors saves nothing yet.
# But a task vector is *simpler* than a model. The next steps, and all of notebook 02, show in which sense.

# %% [markdown]
# ## Step 2 · How far did fine-tuning go, and where?
#
# Compare lengths: $\lVert\tau_n\rVert / \lVert\theta_0\rVert$ is how far the expert moved, as a share of the model.

# %%
relative = {task: (flat(tau[task]).norm() / flat(theta_0).norm()).item() for task in suite.tasks}
claim("01-short", "Every task vector is shorter than a fifth of theta_0.", max(relative.values()), high=0.2)

# %% [markdown]
# Fine-tuning is a small step. Is it small everywhere? Do the same for each layer and kind of tensor. The whiskers
# span the experts, from the one that moved least to the one that moved most.

# %%
figure, data = figures.layer_lengths(theta_0, experts)
alt = (
    "Length of the task vectors relative to theta_0, for the input, each block and the output, and for each kind of "
    "tensor: mean and range over the eight experts."
)
show(figure, alt=alt)

# %%
moved = [value for kind in data["kinds"].values() for value in kind["low"]]
claim("01-everywhere", "No layer and no kind of tensor stood still in any expert.", min(moved), low=0.02)

# %% [markdown]
# **What you should see:** every layer moved, and no layer holds the whole change. So you cannot keep "the few layers that changed" and
# throw away the rest. A short description of a task vector has to come from somewhere else: from its structure
# within each matrix.

# %% [markdown]
# ## Step 3 · Do experts go the same way?
#
# Two task vectors that point the same way could share one merged model. Their cosine tells:
#
# $$\cos(\tau_a, \tau_b) = \frac{\tau_a \cdot \tau_b}{\lVert\tau_a\rVert\,\lVert\tau_b\rVert}$$

# %%
unit = torch.stack([flat(vector) / flat(vector).norm() for vector in tau.values()])
cosines = unit @ unit.T
alt = "Heat map of the cosines between all pairs of task vectors; each cell holds its number, the diagonal is one."
show(figures.cosine_map(cosines, suite.tasks), alt=alt)

# %%
others = cosines[~torch.eye(len(tau), dtype=torch.bool)]
claim("01-mean-cosine", "Two task vectors have a cosine below 0.4 in the mean.", others.mean().item(), high=0.4)
claim("01-top-cosine", "No two task vectors are nearly parallel: no cosine reaches 0.8.", others.max().item(), high=0.8)

# %% [markdown]
# **What you should see:** off the diagonal the cosines are far from one. Experts leave $\theta_0$ in largely unrelated
# directions. The reason is mostly the number of dimensions: in a space so large, two directions that nobody
# coordinated are nearly at right angles.
#
# Now think about averaging $N$ such vectors. The average is $\theta_0 + \frac1N\sum_n \tau_n$. Along $\tau_n$ it goes
# the way of its own share, $1/N$, and a little more where other task vectors lean towards it. How far does it get?


# %%
def progress(merged: dict, task: str) -> float:
    """How far a merged model has gone along a task vector: 0 at theta_0, 1 level with the expert."""
    own = flat(tau[task])
    return ((flat(merged) - flat(theta_0)) @ own / own.square().sum()).item()


merges = {"average": average(list(experts.values()))}
along = [progress(merges["average"], task) for task in suite.tasks]
claim("01-progress", "The average goes less than half of the way along every task vector.", max(along), high=0.5)

# %% [markdown]
# ## Step 4 · What merging loses
#
# Two merges try to do better than the average. *Task Arithmetic* adds all task vectors with a coefficient
# $\lambda$: $\theta_m = \theta_0 + \lambda \sum_n \tau_n$. *TIES*
# ([arXiv 2306.01708](https://arxiv.org/abs/2306.01708)) first drops the small elements of each task vector, then
# lets the experts vote on the sign of every element, and adds only those that agree. The coefficients are the
# paper's.

# %%
merges["Task Arithmetic"] = task_arithmetic(theta_0, list(experts.values()), coefficient=0.3)
merges["TIES"] = ties(theta_0, list(experts.values()), density=0.2, coefficient=0.3)
rows = {
    "zero-shot": {task: correct(suite, theta_0, task) for task in suite.tasks},
    "experts": {task: correct(suite, experts[task], task) for task in suite.tasks},
}

# %%
for name in ("average", "TIES"):
    rows[name] = {task: correct(suite, merges[name], task) for task in suite.tasks}

# %%
rows["Task Arithmetic"] = {task: correct(suite, merges["Task Arithmetic"], task) for task in suite.tasks}
order = ("zero-shot", "average", "Task Arithmetic", "TIES", "experts")
alt = "Accuracy on each task and in the mean, with 95 % intervals: zero-shot, three merges, and the experts."
show(figures.accuracies({name: rows[name] for name in order}), alt=alt)

# %% [markdown]
# To compare two rows, compare them image by image: the bootstrap draws the same test images for all rows, so you
# may subtract draw by draw. This *paired* interval is what the claims use.

# %%
means = {name: draws.mean(1) for name, draws in bootstrap(rows).items()}
gain = interval(means["average"] - means["zero-shot"])
claim("01-average-gains", "Averaging the experts beats zero-shot in the mean (95 % interval).", gain[0], low=0)
best = max(merges, key=lambda name: means[name].mean())
loss = interval(means["experts"] - means[best])
claim("01-merging-loses", "Even the best merge is over 5 points below the experts (95 % interval).", loss[0], low=0.05)

# %% [markdown]
# **What you should see:** three merges between zero-shot and the experts. Merging helps, and merging loses: both are
# true. Don't read much into the *order* of the three merges. It can change from one training seed to the next.

# %% [markdown]
# ### Exercise 1 · Task Arithmetic and the average (medium, 8 minutes)
#
# Write Task Arithmetic for state dicts. Before you read on, predict: for which coefficient is it exactly the plain
# average?


# %% tags=["exercise"]
def my_task_arithmetic(theta_0: dict, experts: list[dict], coefficient: float) -> dict:
    """theta_0 + coefficient * (sum of all task vectors), a new state dict; the inputs stay as they are."""
    return {name: x + coefficient * sum(e[name] - x for e in experts) for name, x in theta_0.items()}


# %%
my_task_arithmetic = check(my_task_arithmetic)
# hint("my_task_arithmetic")

# %% [markdown]
# Was your prediction $1/N$? Then the $N$ copies of $\theta_0$ that are subtracted, divided by $N$, cancel the one that
# is there.

# %%
found = my_task_arithmetic(theta_0, list(experts.values()), 1 / len(experts))
apart = max((found[name] - merges["average"][name]).abs().max().item() for name in theta_0)
claim("01-coefficient", "With the coefficient 1/N, Task Arithmetic is the average.", apart, high=1e-5)

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
task = "house numbers"
partners = [name for name in suite.tasks if name != task]
alike = {
    "task vectors": {p: cosines[suite.tasks.index(task), suite.tasks.index(p)].item() for p in partners},
    "task descriptors": {p: (suite.descriptor(task) @ suite.descriptor(p)).item() for p in partners},
}
same = alike["task descriptors"]["digits"]
claim("01-same-words", "By its words, digits is the very same task as house numbers.", same, low=0.999)

# %% [markdown]
# There is one more thing to keep apart. Averaging two experts halves both task vectors. Some accuracy is lost by
# that alone, whoever the partner is. So measure the halved task vector too: $\theta_0 + \frac12\tau$, the expert
# averaged with $\theta_0$ itself. What a partner costs beyond that is *interference*.

# %%
pairs = {p: correct(suite, average([experts[task], experts[p]]), task) for p in partners}
levels = {
    "the expert alone": rows["experts"][task],
    "its task vector halved": correct(suite, average([experts[task], theta_0]), task),
}

# %%
alt = (
    "Accuracy on house numbers of the house-numbers expert averaged with each other expert, against how alike the "
    "two tasks are, by task vectors and by task descriptors. Lines: the expert alone, its task vector halved."
)
show(figures.similarity_scatter(pairs, alike, levels, task), alt=alt)

# %%
draws = bootstrap({"expert": {task: rows["experts"][task]}} | {p: {task: right} for p, right in pairs.items()})
lost = {p: interval((draws["expert"] - draws[p])[:, 0]) for p in partners}
certain = sum(low > 0 for low, _ in lost.values())
claim("01-most-lose", "With at least four of its seven partners it loses (95 % intervals above zero).", certain, low=4)
claim(
    "01-digits-spare",
    "With digits, the same task by its words, it loses at most three points.",
    lost["digits"][1],
    high=0.03,
)

# %% [markdown]
# **What you should see:** most points lie clearly below the solid line, though only two experts were merged. Compare
# them with the dashed line as well. Points near it lost what any halving loses; points below it met a partner that
# pulls the wrong way; a point above it had a partner that helped.
#
# And one surprise. The rightmost partner, `digits`, costs hardly anything: the interval of its loss reaches down to about
# zero. In the paper, on real photographs, even the most similar partner costs accuracy. Here two tasks share every class
# name and every prompt, and that may be more alike than any two data sets of the paper. We print what we found.
#
# Two experts are the mildest case. With eight, as in Step 4, every task pays. The paper's conclusion is the one to test
# in the next notebooks: leave each expert its personality, and store it *small*.

# %% [markdown]
# ### Exercise 2 · Interference or dilution? (medium, 7 minutes)
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
# ## Recap
#
# - A task vector $\tau_n = \theta_n - \theta_0$ is short, spread over all layers, and far from parallel to the others.
# - An average goes only a part of the way along each of them; Task Arithmetic and TIES are better or worse by a
#   little, and all stay far below the experts.
# - Most partners cost accuracy even two at a time; a partner with the very same class names hardly does.
#
# **What would change our mind.** Digits and house numbers are a pair that is nearly safe to merge; if most pairs were like
# it, there would be little to solve. A merge within the experts' interval would make personalised merging pointless here.
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
# Along each it goes 1/N of the way. Its length is 1/√N of one task vector's, since N orthogonal parts of 1/N each
# add up by Pythagoras.
# </details>
#
# **2.** Why is the halved task vector in the figure of Step 5?
#
# <details><summary>Answer</summary>
#
# It separates two causes. Averaging shortens the task vector, whoever the partner is. Only what is lost beyond that
# is the partner's doing.
# </details>
#
# **3.** Task vectors are as large as models. Why then store task vectors, and not models, in compressed form?
#
# <details><summary>Answer</summary>
#
# They are short: an error of a tenth of a task vector is a tiny error of the model. And they have structure within
# each matrix, which notebook 02 looks at.
# </details>
#
# **Next:** 02 · Decompose: how few directions of each matrix hold a task vector?
