# %% [markdown]
# # 04 · Scaling: which value does a group become?
#
# After this you can write the last step of DTS and then all three steps as one function, choose the value that a group
# becomes, and say what the choice does to the model.

# %% [markdown]
# > **Goals.** You *derive* two values for a group, one that keeps the length and one that minimises the error. You
# > *write* `scale` and `dts`: the method, for one tensor. You *measure* which value serves the model better, and what
# > it costs to leave scaling out.
# >
# > **Before you start.** Notebook 02: singular values, rank, keep ratio. Notebook 03: groups and codes.
# >
# > **Time.** 18 minutes to read, 31 for the exercises. It runs in about a minute on a laptop's CPU; the cells that
# > evaluate rebuilt experts say so. It needs no network.

# %% [markdown]
# ## The question
#
# After thresholding you know the group of every element, and nothing else about it. **Which number should the elements
# of a group become?** That is scaling, the third step of DTS. The obvious answer is the group's mean. The paper gives
# another one, and you will see why.

# %%
# Importing takes about five seconds.
import torch

from dts_mini import compress
from dts_mini.course import bring, check, claim, figures, hint, show
from dts_mini.suites import load_suite
from dts_mini.suites.evaluation import bootstrap, divergence, interval, logits

suite = load_suite()
task = suite.example
theta_0, expert = suite.pretrained(), suite.expert(task)

# %% [markdown]
# You wrote the first two steps in notebooks 02 and 03, and `averaged`. `bring` fetches your functions from there: it
# reads the notebooks in this folder, as you last saved them. Where yours does not pass, or the notebook is not here,
# the solution takes its place, and the line says so.

# %% tags=["nbval-ignore-output"]
decompose, threshold, averaged = bring("decompose", "threshold", "averaged")

# %% [markdown]
# Take the matrix of those notebooks, the part of one task vector that belongs to one layer, and do the first two
# steps.

# %%
name = "transformer.resblocks.2.mlp.c_fc.weight"
M = expert[name] - theta_0[name]
U, s, Vt = decompose(M, 0.1)
codes = threshold(U)

# %% [markdown]
# One picture first: all elements of $U$, sorted, and what scaling makes of them.

# %%
show(figures.stairs(U, codes))

# %% [markdown]
# **What you should see:** a smooth curve becomes four steps. The codes say which step an element stands on. How high
# should each step be? That is this notebook's subject: four numbers, and everything depends on them.

# %% [markdown]
# ## Step 1 · One value for a group
#
# A group $g$ holds elements $x_1, \dots, x_n$ of one sign. All become one value $v$, the group's *scale*. How wrong
# is that? Write $\bar x$ for the mean. Since the deviations from the mean add up to zero,
#
# $$\sum_i (x_i - v)^2 = \sum_i (x_i - \bar x)^2 + n\,(v - \bar x)^2 .$$
#
# So the error is a parabola in $v$, and **the mean minimises it**. But $n$ equal values $\bar x$ are shorter than the
# group was: by the same identity with $v = 0$, $\lVert x \rVert^2 = n \bar x^2 + \sum_i (x_i - \bar x)^2$, and the last
# term is lost. The paper **keeps the length** instead: $n v^2 = \lVert x \rVert^2$, so
#
# $$v = \pm \sqrt{\tfrac1n \textstyle\sum_i x_i^2} = \pm \frac{\lVert x \rVert}{\sqrt n} ,$$
#
# the root mean square (RMS) with the group's sign. You cannot have both.

# %% [markdown]
# ### Exercise 1 · The value of a group (easy, 5 minutes)
#
# Write the paper's value. `x` holds the elements of one group, all of one sign. Return one number with that sign.


# %% tags=["exercise"]
def group_value(x: torch.Tensor) -> torch.Tensor:
    """Elements (n,) of one sign -> their root mean square with that sign, one number."""
    return x.sign()[0] * x.norm() / len(x) ** 0.5


# %%
group_value = check(group_value)
# hint("group_value")

# %% [markdown]
# Look at one group, the strong positive elements of $U$, with both values. Before you open the picture, **predict**:
# which of the two lies further from zero, and by how much does the error of the group grow there?
#
# <details><summary>What do you expect? Then open this</summary>
#
# The RMS lies a little beyond the mean: it is the longer of the two. Near its lowest point a parabola is flat, so the
# RMS costs little in error.
# </details>

# %% tags=["answer"]
strong = U[codes == 3]
figure, data = figures.group_error(strong, {"RMS": float(group_value(strong)), "mean": strong.mean().item()})
show(figure)
least = data["value"][torch.tensor(data["error"]).argmin()]
apart = abs(least / strong.mean().item() - 1)
claim("04-mean-least", "On the figure's grid, the error is smallest within 2 % of the mean.", apart, high=0.02)

# %% [markdown]
# ### Exercise 2 · The values of all groups (medium, 8 minutes)
#
# Now the third step as the paper has it, with your `group_value`. You get a tensor and its codes, and return the value
# of each code, *five* numbers: the code 4, elements that are exactly zero, has the value 0. So has a group without
# elements. With five values, `values[codes]` is the tensor in which every element has become its group's value.


# %% tags=["exercise"]
def scale(x: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """x and its codes, of one shape -> the values (5,) of the codes 0 to 4; 0 for an empty group and for the code 4."""
    values = x.new_zeros(5)
    for code in range(4):
        group = x[codes == code]
        if len(group):
            values[code] = group_value(group)
    return values


# %%
scale = check(scale)
# hint("scale")

# %% [markdown]
# Means are a third step, too: your `averaged` of notebook 03. How long is $U$ after each?

# %%
coarse = {"RMS": scale(U, codes)[codes], "mean": averaged(U, codes)}
kept = {how: (x.norm() / U.norm()).item() for how, x in coarse.items()}
sentence = "With your scale, U keeps its length to 0.01 %."
claim("04-rms-length", sentence, kept["RMS"], low=0.9999, high=1.0001, of="scale")
lost = 1 - kept["mean"]
claim("04-mean-length", "With means, U loses between 4 % and 12 % of its length.", lost, low=0.04, high=0.12, unit="%")

# %% [markdown]
# ## Step 2 · One tensor, all three steps
#
# Put the steps together: decompose, threshold, scale both factors, multiply. A hat marks what has become coarse:
#
# $$\hat M = \hat U\,\mathrm{diag}(s)\,\hat V^\top .$$
#
# The singular values stay as they are. Only matrices have components. Any other tensor, a bias, the weights of a norm,
# a convolution, is thresholded and scaled as it is; a single number, without any dimension, stays. What DTS keeps of a
# task vector is the task's **remainder**: it is what is stored for the task, beside $\theta_0$.

# %% [markdown]
# ### Exercise 3 · DTS (medium, 10 minutes)
#
# Write the method, for one tensor. Use `decompose`, `threshold` and `scale`.


# %% tags=["exercise"]
def dts(x: torch.Tensor, keep_ratio: float = 0.1) -> torch.Tensor:
    """A tensor -> what DTS keeps of it, in its shape: a matrix is decomposed first, any other tensor is not."""

    def coarse(part):
        codes = threshold(part)
        return scale(part, codes)[codes]

    if x.dim() == 0:
        return x
    if x.dim() != 2:
        return coarse(x)
    U, s, Vt = decompose(x, keep_ratio)
    return coarse(U) * s @ coarse(Vt)


# %%
dts = check(dts)
# hint("dts")

# %% [markdown]
# Now rebuild a whole expert with it: $\hat\theta = \theta_0 + \mathrm{DTS}(\theta - \theta_0)$, tensor by tensor. The
# package does the same in one call, `compress`, and keeps the result in two bits per element. How far are the two
# apart?

# %%
mine = {name: theta_0[name] + dts(x - theta_0[name], 0.1) for name, x in expert.items()}

# %%
delta = compress(theta_0, expert, keep_ratio=0.1)
flat = lambda state: torch.cat([state[name].flatten() for name in sorted(state)])  # all numbers in one row
library = flat({name: delta.remainder(name) for name in theta_0})
off = ((flat(mine) - flat(theta_0) - library).norm() / library.norm()).item()
claim("04-one-call", "With your dts the remainder is the library's, to 0.1 %.", off, high=1e-3, of="dts")

# %% [markdown]
# **That is the method, whole, and you have written it.** The rest of this notebook asks whether its third step is a
# good one. To try another, hand it in: a function of a tensor and its codes that gives the tensor with each element
# replaced, as `averaged` does.


# %%
def varied(state, third, keep_ratio=0.1):
    """theta_0 plus DTS of a model's task vector, with another third step."""
    rebuilt = {}
    for name, base in theta_0.items():
        x = state[name] - base
        if x.dim() == 2:
            U, s, Vt = decompose(x, keep_ratio)
            rebuilt[name] = base + third(U, threshold(U)) * s @ third(Vt, threshold(Vt))
        else:
            rebuilt[name] = base + third(x, threshold(x))
    return rebuilt


averages = varied(expert, averaged)

# %%
M_hat = {"RMS": mine[name] - theta_0[name], "mean": averages[name] - theta_0[name]}
length = (M_hat["RMS"].norm() / M.norm()).item()
cosine = {how: torch.cosine_similarity(M.flatten(), x.flatten(), dim=0).item() for how, x in M_hat.items()}
differ = abs(cosine["RMS"] - cosine["mean"])
sentence = "Even with the RMS the rebuilt matrix loses at least a tenth of its length."
claim("04-matrix-length", sentence, 1 - length, low=0.1, unit="%")
sentence = "Rebuilt with the RMS and with means, the matrix has the same cosine with M, to 0.005."
claim("04-same-direction", sentence, differ, high=0.005)

# %% [markdown]
# **What you should see:** the last sentence is the surprise. RMS and mean give *different values* to the groups of both
# factors, and yet the two results are nearly identical in direction. **Choosing a scale is choosing a length.** Keep
# this in mind for the next step.
#
# The sentence before is worth a thought, too. The RMS keeps the length of each *factor*. It promises nothing about the
# *matrix*: truncation has taken components away, and the columns of $\hat U$ are no longer orthogonal.

# %% [markdown]
# ## Step 3 · Does the smaller error win?
#
# Now the whole expert. The mean leaves the smaller error. Does it make the better model? Accuracy is too coarse to
# tell, so the judge is the KL divergence from the expert, in nats ([notebook 02](02_decomposition.ipynb), Step 5).
#
# To see what length does by itself, take *one* remainder $\hat\tau$, the RMS one, and stretch it: $\theta_0 +
# c\,\hat\tau$ for several $c$. The next cell takes about ten seconds. (It reads test images. Nothing is chosen from
# what you see.)


# %%
def stretched(state, c):
    """theta_0 plus c times what a model adds to it."""
    return {name: x + c * (state[name] - x) for name, x in theta_0.items()}


tau = flat(expert) - flat(theta_0)
added = {"RMS": flat(mine) - flat(theta_0), "mean": flat(averages) - flat(theta_0)}
to_rms = (added["RMS"].norm() / added["mean"].norm()).item()
models = {"RMS": mine, "mean": averages, "mean, as long": stretched(averages, to_rms)}
models |= {c: stretched(mine, c) for c in (0.5, 0.7, 0.85, 1.15, 1.35)}
answers = logits(suite, expert, task)
kl = {which: {task: divergence(answers, logits(suite, state, task))} for which, state in models.items()}

# %% [markdown]
# **Predict** before you open the next cell. The error is smallest at some length of the remainder. Are the answers best
# at the same length, at a shorter one, or at a longer one?
#
# <details><summary>What do you expect? Then open this</summary>
#
# Two curves, two minima. The error is smallest for a *shortened* remainder. That is what least squares always does when
# it is unsure: where the direction is wrong, a shorter step is less wrong. The answers want a longer one. A likely
# reason: what counts for them is how far the model gets along $\tau$, and a shortened remainder stops too early.
# </details>


# %% tags=["answer"]
def point(which):
    """Length, error, KL divergence and its interval of one model."""
    found, draws = flat(models[which]) - flat(theta_0), bootstrap({which: kl[which]})[which][:, 0]
    place = {"length": (found.norm() / tau.norm()).item(), "error": ((found - tau).norm() / tau.norm()).item()}
    return place | {"kl": kl[which][task].mean().item(), "interval": interval(draws)}


curve = [point(c) for c in (0.5, 0.7, 0.85, "RMS", 1.15, 1.35)]
show(figures.length_and_answers(curve, {"RMS": point("RMS"), "mean": point("mean")}))
best = torch.cosine_similarity(added["RMS"], tau, dim=0).item()  # where the error is smallest, in units of tau's length
off = abs(point("mean")["length"] - best)
claim("04-mean-shrinks", "Means give, within 0.03, the length at which the error is smallest.", off, high=0.03)
draws = {which: found[:, 0] for which, found in bootstrap(kl).items()}
share = draws["mean"] / draws["RMS"]
sentence = "Yet with means the KL divergence is at least 1.3 times that with the RMS (95 % interval)."
claim("04-mean-kl", sentence, share.mean().item(), low=1.3, interval=interval(share), unit="times")

# %% [markdown]
# Is it really the length alone? Stretch the means' remainder until it is as long as the RMS one, and compare again.

# %%
share = draws["mean, as long"] / draws["RMS"]
sentence = "Stretched to the RMS's length, means differ from it in KL divergence by less than a tenth (95 % interval)."
claim("04-length-alone", sentence, share.mean().item(), low=0.9, high=1.1, interval=interval(share), unit="times")

# %% [markdown]
# So a smaller error need not mean a better model. Here the paper's choice is right, and you know the reason: **it is
# the longer one**. Whether the RMS length is the best is another question. The lower curve is flat around its lowest
# point, and nothing says that the lowest point lies in the same place for every task. Notebook 06 hands this question
# to you.
#
# This also closes a question of notebook 03. With means, eight groups were a little ahead of four at the same bits. Are
# they with the RMS?


# %%
def eight(x, codes):
    """Each group halved by your threshold; each element becomes the RMS of its half."""
    groups = [x.where(codes == code, 0) for code in range(4)]
    return sum(scale(group, threshold(group))[threshold(group)] for group in groups)


finer = logits(suite, varied(expert, eight, keep_ratio=12 / 192), task)  # for 19 components with four groups

# %%
draws = {which: found[:, 0] for which, found in bootstrap(kl | {"eight": {task: divergence(answers, finer)}}).items()}
gap = draws["RMS"] - draws["eight"]
sentence = "With the RMS, eight groups instead of four change less than 0.005 nats (95 % interval)."
claim("04-eight", sentence, gap.mean().item(), low=-0.005, high=0.005, interval=interval(gap), unit="nats")

# %% [markdown]
# With the RMS, the two are level. So four groups are a good choice, though not the only good one.

# %% [markdown]
# ## Step 4 · Leave scaling out
#
# The paper's ablation leaves out scaling, and loses 2 to 5 points. What can that mean? Codes without any values would
# be $\pm 1$. Singular vectors have unit length and tiny elements, so this makes the remainder absurdly long. A fair
# version keeps the length and drops only what distinguishes strong from weak: **one value for a whole factor**, plus or
# minus, such that the factor is as long as before. (This is our reading; the paper's code may do something else.)


# %%
def one_value(x, codes):
    """One size for strong and weak, plus or minus, that keeps the length of x."""
    return x.sign() * x.norm() / max(1, (codes != 4).sum()) ** 0.5


# %%
one = flat(varied(expert, one_value)) - flat(theta_0)
fell = torch.cosine_similarity(added["RMS"], tau, dim=0) - torch.cosine_similarity(one, tau, dim=0)
sentence = "With one value the remainder's cosine with tau is at least 0.1 lower than with the RMS."
claim("04-one-value", sentence, fell.item(), low=0.1)

# %% [markdown]
# So this ablation is of another kind than RMS against mean: there the length changed and the direction stayed, here the
# *direction* suffers. The bit that tells strong from weak is still paid for, but it says nothing any more.
#
# Now all tasks, with the RMS, with means, with one value. Each of the next two cells takes ten to fifteen seconds.

# %%
third_steps = {"RMS": lambda x, codes: scale(x, codes)[codes], "mean": averaged, "no scaling": one_value}
right, far = {"expert": {}} | {how: {} for how in third_steps}, {how: {} for how in third_steps}


def evaluate(task):
    """Fills in which test images each version gets right, and its KL divergence from the expert."""
    expert, labels = suite.expert(task), suite.images(task, "test")[1]
    answers = logits(suite, expert, task)
    right["expert"][task] = answers.argmax(1) == labels
    for how, third in third_steps.items():
        found = logits(suite, varied(expert, third), task)
        right[how][task], far[how][task] = found.argmax(1) == labels, divergence(answers, found)


for each in suite.tasks[:4]:
    evaluate(each)

# %%
for each in suite.tasks[4:]:
    evaluate(each)

# %%
accuracy, apart = bootstrap(right), bootstrap(far)
lost = {how: accuracy["expert"] - accuracy[how] for how in third_steps}
show(figures.scaling_costs(lost, apart, suite.tasks))

# %%
gap = (lost["mean"] - lost["RMS"]).mean(1)
sentence = "In mean accuracy RMS and mean differ by less than a point (95 % interval)."
claim("04-accuracy-alike", sentence, gap.mean().item(), low=-0.01, high=0.01, interval=interval(gap), unit="points")
each = [interval(apart["mean"][:, n] / apart["RMS"][:, n])[0] for n in range(len(suite.tasks))]
sentence = "On every task the KL divergence is larger with means than with the RMS (95 % intervals)."
claim("04-kl-each", sentence, min(each), low=1, unit="times")
share = apart["mean"].mean(1) / apart["RMS"].mean(1)
sentence = (
    "In the mean over the tasks the KL divergence with means is at least 1.3 times that with the RMS (95 % interval)."
)
claim("04-kl-all", sentence, share.mean().item(), low=1.3, interval=interval(share), unit="times")
gap = (lost["no scaling"] - lost["RMS"]).mean(1)
sentence = "Without scaling the mean accuracy is lower than with the RMS, by less than 2 points (95 % interval)."
claim("04-ablation", sentence, gap.mean().item(), low=0, high=0.02, interval=interval(gap), unit="points")
share = apart["no scaling"].mean(1) / apart["RMS"].mean(1)
sentence = "Without scaling the KL divergence is at least 2.5 times that with the RMS (95 % interval)."
claim("04-ablation-kl", sentence, share.mean().item(), low=2.5, interval=interval(share), unit="times")

# %% [markdown]
# **What you should see:** by KL divergence the RMS wins on every task. By accuracy you cannot tell RMS from mean. Both
# are true. Most images are far from a decision boundary, so probabilities can change a good deal before an answer
# flips. (The intervals of two rows may overlap in the picture although their *paired* difference is clear.)
#
# And our ablation agrees with the paper's in direction, not in size: we lose less than 2 points. Perhaps our tasks
# forgive more, perhaps our version of "without" is milder. We cannot tell which.

# %% [markdown]
# ## Step 5 · A better value for the matrix? (can be skipped at first)
#
# Is the plain mean even the best value for the error? It minimises the error of $U$. But you want a small error of
# the *matrix*, and there an error in column $i$ of $U$ is multiplied by $s_i$. As the rows of $V^\top$ are orthonormal,
#
# $$\lVert (U - \hat U)\,\mathrm{diag}(s)\,V^\top \rVert^2 = \sum_i s_i^2\, \lVert u_i - \hat u_i \rVert^2 .$$
#
# So every element of column $i$ should count with the weight $s_i^2$.

# %% [markdown]
# ### Exercise 4 · The best value, when elements differ in weight (medium, 8 minutes)
#
# Write the value that minimises the *weighted* squared error. Before you open the cell below the check, **predict**: by
# how much does the squared error of the matrix fall?


# %% tags=["exercise"]
def best_value(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Elements (n,) and their weights (n,), not negative -> the v that minimises sum(weight * (x - v)^2)."""
    return (weight * x).sum() / weight.sum()


# %%
best_value = check(best_value)
# hint("best_value")

# %% [markdown]
# <details><summary>What do you expect? Then open this</summary>
#
# The idea is right, and it is worth almost nothing. Singular vectors are all of unit length, and their elements are
# spread much alike, whether the component is strong or weak. So weighting one column more hardly moves the mean of a
# group. It is a good habit to measure before you build.
# </details>

# %% tags=["answer"]
weight = s.square().expand_as(U)
best = [float(best_value(U[codes == code], weight[codes == code])) for code in range(4)]
squared = lambda near: ((U - near) * s).square().sum().item()
gain = 1 - squared(torch.tensor([*best, 0.0])[codes]) / squared(averaged(U, codes))
sentence = "With weights the squared error of the matrix is no larger, and less than 2 % smaller."
claim("04-weighted", sentence, gain, low=-1e-6, high=0.02, unit="%")

# %% [markdown]
# ## Recap
#
# - DTS of a tensor is three functions and a product: decompose, threshold, scale, multiply. You have all of it.
# - The mean minimises a group's error, the RMS keeps its length. Both give nearly the same direction; choosing a scale
#   is choosing a length, and the answers prefer the longer one although its error is larger.
# - Without any scaling the direction suffers, and with it the answers.
#
# **What would change our mind.** A suite on which means give the smaller KL divergence; or one where a stretched
# remainder no longer follows the same curve as the two scales, so that a scale would be more than a length.
#
# **In the paper.** Scaling, in its method section, and the ablation without it.

# %% [markdown]
# ## Quiz
#
# **1.** A colleague finds values for the groups with a smaller error than the RMS and says the model must be better.
# What do you ask?
#
# <details><summary>Answer</summary>
#
# How long is the rebuilt task vector now? If it became shorter, the smaller error may be shrinkage alone. Stretch it to
# the same length and compare the answers, not the errors.
# </details>
#
# **2.** All elements of a group are equal. Which value is better for it, the mean or the RMS?
#
# <details><summary>Answer</summary>
#
# They are the same value, and no error is left. The two differ by the spread of the group, and there is none.
# </details>
#
# **3.** Why does `scale` return a value for the code 4, when no group has this code?
#
# <details><summary>Answer</summary>
#
# So that `values[codes]` works for every element. Elements that are exactly zero have the code 4, and its value, zero,
# leaves them as they are.
# </details>
#
# **Next:** [05 · Counting bits](05_counting_bits.ipynb): how many bytes does a task take, and where do they go?
