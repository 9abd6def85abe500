# %% [markdown]
# # 00 · Start here: eight experts and one question
#
# After this you can say what personalised model merging is for, check that your set-up works, and name every
# ingredient that the next notebooks use: tasks, model, heads, experts.

# %% [markdown]
# > **Goals.** You *recognise* the eight tasks of the mini suite, and which of them are real. You *explain* how a
# > classifier is made from class names. You *compare* the pretrained model with its experts, and you say how sure
# > the comparison is.
# >
# > **Before you start.** Some Python and PyTorch; you have seen a classifier trained, and you have met a transformer
# > (tokens, attention, blocks). You need to know nothing of merging.
# >
# > **Time.** 15 minutes to read, 16 for the exercises. It runs in about half a minute on a laptop's CPU. It needs
# > no network and no GPU.

# %% [markdown]
# ## The question
#
# You have one pretrained model, $\theta_0$. Somebody fine-tunes it on street signs, somebody else on aerial
# photographs. Soon you hold one *expert* $\theta_n$ for each task, and each is as large as the model that you
# started from.
#
# Storing all of them is costly. *Merging* them into a single model costs no more than one model does, but the merged
# model is worse at every task than that task's expert. The paper that this course follows
# ([arXiv 2512.01461](https://arxiv.org/abs/2512.01461), from here on *the paper*) asks for a third way: **can you
# keep one shared model, and beside it for each task a file so small that it hardly counts, and still rebuild
# every expert?** It calls its answer DTS: decompose, threshold, scale.
#
# The course has two parts. In notebooks 00 to 06 you build DTS: you see what there is to compress, write each part of
# the method yourself, count its bits, and end with a DTS of your own that rebuilds an expert from a file of your own.
# In notebooks 07 to 13 you put it to use: all tasks at once, tasks that nobody fine-tuned for, accuracy against size,
# serving, real models, language.

# %%
# Importing takes about five seconds.
import hashlib
import sys
from importlib.metadata import version

import torch
from torch.nn import functional as F

from dts_mini.course import check, claim, figures, hint, show
from dts_mini.suites import load_suite

suite = load_suite("mini")  # the later notebooks run on other suites too: see notebook 12

# %% [markdown]
# ## Step 1 · Does everything work here?
#
# First look at what is installed. Your versions may differ from those shown; nothing below depends on the
# last digit.

# %% tags=["nbval-ignore-output"]
for package in ("dts_mini", "torch", "open_clip_torch", "safetensors", "matplotlib"):
    print(f"{package:<16} {version(package)}")

# %% [markdown]
# The course ships its trained models: $\theta_0$ and the experts. A manifest lists the digest (sha256) of every
# file. If a download was cut short, you find out here, and not from a strange accuracy later.


# %%
def intact(file: str) -> bool:
    """Whether a checkpoint's bytes are those that the manifest promises."""
    found = hashlib.sha256((suite.folder / file).read_bytes()).hexdigest()
    return found == suite.manifest["files"][file]["sha256"]


checked = [intact(file) for file in suite.manifest["files"]]
print("Python is new enough:", sys.version_info >= (3, 11))
print(len(checked), "checkpoints, all intact:", all(checked))
claim("00-checkpoints", "Theta_0 and eight experts are here, byte for byte.", sum(checked), low=9, high=9)

# %% [markdown]
# **What you should see:** `True` twice, and a line that starts with `holds:`. You will meet this line often. A
# *claim* is a sentence of the course that a machine checks: it compares a number measured here, on your machine,
# with bounds, and says in brackets what was measured. A claim that fails stops the notebook.
#
# From here on, cells that only set up, draw a figure or check claims are folded: what they print matters more than
# their code. Click on the bar at their left to open them.

# %% [markdown]
# ## Step 2 · The whole game, once
#
# Before you look inside anything, look at what is at stake. Take the expert that reads house numbers. `compress` keeps
# of it what DTS keeps beside $\theta_0$; `rebuild` adds that to $\theta_0$ again. What happens in between is the
# subject of notebooks 02, 03 and 04.

# %%
from dts_mini.core.compress import compress
from dts_mini.core.delta import rebuild, storage

task = suite.named("house numbers")
theta_0, expert = suite.pretrained(), suite.expert(task)
delta = compress(theta_0, expert)  # what a small file holds
rebuilt = rebuild(theta_0, delta)  # theta_0 and what was kept

# %% [markdown]
# Is the rebuilt expert any good? Let all three models answer the same test images, which none of them has seen. That
# takes a few seconds.

# %%
from dts_mini.suites.evaluation import bootstrap, correct, interval

models = {"the pretrained model": theta_0, "its expert": expert, "the expert, rebuilt": rebuilt}
answered = {name: correct(suite, model, task) for name, model in models.items()}
print(len(answered["its expert"]), "test images for each model")

# %% [markdown]
# **Predict first.** How large is the file, as a share of the expert? And of all that the expert knows beyond
# $\theta_0$, how much comes back? Then open the next cell and run it.

# %% tags=["answer"]
count = storage(delta)
sizes = dict(zip(models, (0, count.model, count.file), strict=True))
show(figures.size_and_accuracy(sizes, answered))

# %% tags=["answer"]
share, files = count.share("file"), len(suite.tasks) * count.share("file")
sentence = "The small file takes at most 1.5 % of the expert's bytes (float32): about a hundredth."
claim("00-small-files", sentence, share, high=0.015, unit="%")
claim("00-shared-total", "Eight such files take at most 12 % of one model.", files, high=0.12, unit="%")
draws = bootstrap({name: {task: found} for name, found in answered.items()})
lost = draws["its expert"] - draws["the expert, rebuilt"]
claim(
    "00-rebuilt",
    "Rebuilt from its small file, the expert loses at most 2 points.",
    (answered["its expert"].float().mean() - answered["the expert, rebuilt"].float().mean()).item(),
    interval=interval(lost[:, 0]),
    high=0.02,
    unit="points",
)

# %% [markdown]
# <details><summary>What you should see</summary>
#
# The third bar is so short that you can hardly see it, and the third point stands where the second one does. The file
# is about a hundredth of the expert, and the expert is back.
# </details>
#
# One task proves little, and it may be a lucky one. Notebook 07 does this for all eight, against merges and against
# other ways to compress. The course asks *why* it works, what it costs, and where it fails.

# %% [markdown]
# ## Step 3 · The mini suite
#
# The paper works with CLIP, a large model, on eight well-known data sets. You cannot train that on a laptop, so
# this course brings a miniature: small colour images, eight tasks. Each task *mirrors* one data set of the
# paper. That means: it asks the same kind of question. It does not mean that it contains its images.

# %%
tasks = [suite.task(name) for name in suite.tasks]

# %%
show(figures.contact_sheet(tasks))

# %%
pixels, labels = suite.images("signs", "test")
print("images:", tuple(pixels.shape), " labels:", tuple(labels.shape))
print("real:", [task.name for task in tasks if task.real])

# %%
claim("00-real", "Of the eight tasks only the digits are real images.", sum(task.real for task in tasks), low=1, high=1)

# %% [markdown]
# **What you should see:** the `digits` row consists of real handwriting (scans of MNIST, printed in random
# colours). **Every other row is drawn by a program.** So we call them what they are: `textures` is not DTD, it
# mirrors DTD.
#
# Drawn images have one great advantage: nobody can have seen the test images before. Training, validation and
# test draw from random streams that never meet.

# %% [markdown]
# ## Step 4 · The model, and heads made from names
#
# The model is a small CLIP. It has two towers. The *image tower* $f$ turns an image into a unit vector, the *text
# tower* $g$ turns a caption into one. Pretraining pulled images and their captions together.
#
# So you get a classifier without training one: write each class name into a few prompts, send them through $g$,
# average. The unit vectors $h_c$ of all classes are the task's *head*. An image $x$ gets the class whose vector is
# closest:
#
# $$\text{logit}_c(x) = s \cdot \cos\big(f(x),\, h_c\big)$$
#
# where $s$ is a factor that CLIP learnt, the inverse of its *temperature*: it says how sure an answer is, not which one
# it is. A classifier of this kind is called *zero-shot*: it has seen no labelled image of the task.

# %%
from dts_mini.suites.heads import zero_shot_head
from dts_mini.suites.mini.model import tokenize

signs = suite.task("signs")
head = zero_shot_head(suite.model, tokenize, signs.classes, signs.templates) * suite.model.logit_scale.exp()
print("a prompt:", signs.templates[0].replace("{c}", signs.classes[0]))
print("head:", tuple(head.shape), "= (classes, embedding)")
print(f"image tower: {sum(x.numel() for x in theta_0.values()):,} parameters")

# %%
apart = (head - suite.head("signs")).abs().max().item()
claim("00-head", "No number of this head is more than 0.001 away from the suite's own head.", apart, high=1e-3)

# %% [markdown]
# **What you should see:** one row for each sign. Two things follow, and you need both later. A head costs *no
# storage*, because the names suffice to make it again. And when an expert is fine-tuned, its head stays frozen:
# all that an expert learns is in the image tower. In this course "the model" means the image tower from here on.
#
# So look at that tower once. You will meet the names of its parts in every notebook.

# %%
show(figures.tower(theta_0))

# %% [markdown]
# **What you should see:** a *transformer*. It cuts the image into *patches*, and each becomes a *token*, a row of
# numbers; one token more is added, for the image as a whole. The tokens pass *blocks* that are all alike. In a block
# *attention* lets tokens look at each other, then an *MLP* (two matrices with a nonlinear function between them) works
# on each token by itself. Both add what they find to the tokens. At the end the *projection* turns the added token into
# the vector $f(x)$. Nearly all parameters lie in matrices: four in each block. It is these matrices that the course
# compresses.

# %% [markdown]
# ### Exercise 1 · From prompts to a head (easy, 5 minutes)
#
# Write the averaging yourself. You get the text tower's output for every prompt, *not* normalised.
# Each prompt counts the same, however long its vector is.
#
# Run the cell with your function, then the cell below it: `check` says what it expected and what came. If you leave
# an exercise out, `check` hands on the solution, so the rest of the notebook runs all the same. Stuck? Take the `#`
# away from `hint`. Each time you run it, it goes one step further.


# %% tags=["exercise"]
def head_of(text: torch.Tensor) -> torch.Tensor:
    """Prompt embeddings (classes, prompts, d) -> head (classes, d) of unit rows."""
    unit = F.normalize(text, dim=-1)
    return F.normalize(unit.mean(1), dim=-1)


# %%
head_of = check(head_of)
# hint("head_of")

# %% [markdown]
# ## Step 5 · A design choice: the alignment gap (can be skipped at first)
#
# If you skip this step, run its cells all the same, and take one sentence with you: *the room that experts have above
# the pretrained model is room that we made*. Here is how, and why.
#
# Why does fine-tuning help CLIP at all? Not because CLIP cannot *see* the difference between two classes. Often it
# sees it well, but the *name* that a data set gives to a class is not what the web's captions called it. There is
# a gap between names and images, and an expert closes it.
#
# A small model that is trained on clean captions has no such gap, and then merging has little to lose. So the mini
# suite **makes one on purpose**, through its captions (`dts_mini/suites/mini/captions.py`). This is our choice, not a
# finding. Most captions in pretraining use synonyms. Few use a class's name, and then often that of another class, its
# *stand-in*, always the same one. Here are the settings:

# %%
from dts_mini.suites.mini.captions import MISUSED, NAMED, PHRASES, WRONG, stand_ins

print(f"captions that use a class's name: {NAMED:.0%}; of these, for the wrong class: {MISUSED:.0%}")
print(f"captions of another class altogether: {WRONG:.0%}")
print("for example, images of", signs.classes[0], "may be captioned", signs.classes[stand_ins(signs)[0]])

# %% [markdown]
# Can you see the gap? Give the *same* image tower two heads: one made from the class names, as the suite does,
# one made from a synonym for each. If the tower were blind, both would fail. (The next cell takes about ten seconds:
# it draws all the test images first.)

# %%
tower, answers, named, described = suite.tower(), {}, {}, {}
tower.load_state_dict(theta_0)
for name, task in zip(suite.tasks, tasks, strict=True):
    pixels, labels = suite.images(name, "test")
    unit = F.normalize(tower(pixels), dim=-1)
    synonyms = [words[0] for words in task.synonyms]
    other = zero_shot_head(suite.model, tokenize, synonyms, PHRASES)
    answers[name] = (unit @ suite.head(name).T).argmax(1)
    named[name] = answers[name] == labels
    described[name] = (unit @ other.T).argmax(1) == labels

# %%
show(figures.accuracies({"head from class names": named, "head from synonyms": described}))

# %%
mean = lambda right: sum(r.float().mean().item() for r in right.values()) / len(right)
draws = bootstrap({"named": named, "described": described})
claim(
    "00-gap",
    "With synonyms the same tower is at least 20 points better in the mean.",
    mean(described) - mean(named),
    interval=interval((draws["described"] - draws["named"]).mean(1)),
    low=0.20,
    unit="points",
)

# %% [markdown]
# **What you should see:** the same tower, the same images, yet synonyms do better than names. The tower sees more
# than the names let it say. (How the two are compared, with an interval, is explained in Step 6 and Exercise 3.)
#
# If wrong names are to blame, the mistakes should not be random: they should fall on the stand-ins.

# %%
show(figures.confusion(answers["signs"], suite.images("signs", "test")[1], signs.classes, stand_ins(signs)))

# %%
wrong = {task: ~named[task] for task in suite.tasks}
blamed = {}
for name, task in zip(suite.tasks, tasks, strict=True):
    stand_in = torch.tensor(stand_ins(task))[suite.images(name, "test")[1]]
    blamed[name] = wrong[name] & (answers[name] == stand_in)
draws = bootstrap({"wrong": wrong, "blamed": blamed})
claim(
    "00-stand-ins",
    "At least half of the wrong answers name the stand-in; random mistakes would do so about one time in ten.",
    sum(blamed[task].sum().item() / wrong[task].sum().item() for task in suite.tasks) / len(suite.tasks),
    interval=interval((draws["blamed"] / draws["wrong"]).mean(1)),
    low=0.5,
    unit="%",
)

# %% [markdown]
# **What you should see:** light cells under the triangles. Keep this in mind when you read any table of this
# course: the room that experts have above zero-shot is a room that we made.

# %% [markdown]
# ## Step 6 · Zero-shot against the experts
#
# Now the numbers that everything later is measured against. Each expert answers its own task; $\theta_0$ answers
# all. Both use the same heads.
#
# An accuracy on a limited number of test images is an *estimate*. The bars show 95 % bootstrap intervals: draw the same
# number of images from the test images, with replacement, do so very often, and see where the middle 95 % of the
# accuracies lie.
#
# The next cell takes some seconds: every expert answers its own task.

# %%
own = {task: correct(suite, suite.expert(task), task) for task in suite.tasks}

# %%
figure, data = figures.accuracies({"zero-shot": named, "experts": own})
show(figure)

# %%
draws = bootstrap({"zero-shot": named, "experts": own})
gains = dict(zip(suite.tasks, (draws["experts"] - draws["zero-shot"]).T, strict=True))
worst = min(gains, key=lambda task: interval(gains[task])[0])
gain = mean({worst: own[worst]}) - mean({worst: named[worst]})
within = {name: interval(rows.mean(1)) for name, rows in draws.items()}
sentence = "Zero-shot gets between 40 and 60 % right in the mean."
claim("00-zero-shot", sentence, mean(named), interval=within["zero-shot"], low=0.40, high=0.60, unit="%")
sentence = "The experts get at least 90 % right in the mean."
claim("00-experts", sentence, mean(own), interval=within["experts"], low=0.90, unit="%")
sentence = "Every expert is at least 20 points better at its task than zero-shot."
claim("00-gain", sentence, gain, interval=interval(gains[worst]), low=0.20, unit="points")

# %% [markdown]
# **What you should see:** two rows of points that never touch. Between them lie the merged models of the next notebook;
# DTS has to reach the upper row.

# %% [markdown]
# ### Exercise 2 · How sure is an accuracy? (easy, 5 minutes)
#
# You can check the bootstrap by hand. An accuracy $p$ measured on $n$ images has the standard error
# $\sqrt{p(1-p)/n}$, and a 95 % interval reaches about $1.96$ standard errors to each side.


# %% tags=["exercise"]
def half_width(p: float, n: int) -> float:
    """Half the width of the 95 % interval of an accuracy p in [0, 1] on n images."""
    return 1.96 * (p * (1 - p) / n) ** 0.5


# %%
half_width = check(half_width)
# hint("half_width")

# %% [markdown]
# Now compare the formula with the bootstrap, on the expert of the signs.

# %%
p, n = own["signs"].float().mean().item(), len(own["signs"])
by_formula = half_width(p, n)

# %%
entry, at = data["rows"]["experts"], list(suite.tasks).index("signs")
bootstrapped = (entry["high"][at] - entry["low"][at]) / 200  # the figure's data are in %
sentence = "Your half-width and the bootstrap's agree within half a point."
claim("00-half-width", sentence, abs(by_formula - bootstrapped), high=0.005, unit="points", of="half_width")

# %% [markdown]
# **Where both fail.** A model that gets all $n$ images right has $p = 1$, and then the interval has the
# width zero. That is no certainty. With no mistake among $n$ images, mistakes may still be as frequent as about $3/n$.
# Read an interval of width zero as "too few images to see a mistake".

# %% [markdown]
# ### Exercise 3 · Is the difference sure? (medium, 6 minutes)
#
# You will compare two models all the time. Both answer the *same* images, and what is hard for one is often hard for
# the other. So do not compare two accuracies. Compare image by image: let $d_i$ be $1$ where only the first is right,
# $-1$ where only the second is, and $0$ where they agree. The difference between the accuracies is the mean $\bar d$,
# and its standard error is
#
# $$\sqrt{\frac{\overline{d^2} - \bar d^2}{n}}$$
#
# where a bar stands for the mean over the $n$ images. Such a comparison is called *paired*.


# %% tags=["exercise"]
def paired_half_width(first: torch.Tensor, second: torch.Tensor) -> float:
    """Half the width of the 95 % interval of the difference of two accuracies; both (n,) bool: which were right."""
    d = first.float() - second.float()
    return 1.96 * ((d.square().mean() - d.mean().square()) / len(d)).sqrt().item()


# %%
paired_half_width = check(paired_half_width)
# hint("paired_half_width")

# %% [markdown]
# Try it: the pretrained tower with the two heads of Step 5, on the signs. Had the two been measured on *different*
# images, their errors would add up as the sides of a right angle do.

# %%
pair = (described["signs"], named["signs"])
together = paired_half_width(*pair)
apart = sum(half_width(right.float().mean().item(), len(right)) ** 2 for right in pair) ** 0.5

# %%
sentence = "Your paired interval is narrower than that of two separate measurements."
claim("00-paired", sentence, together / apart, high=1, of="paired_half_width")

# %% [markdown]
# ## Recap
#
# - Eight tasks, one real and seven drawn, mirror the paper's eight data sets.
# - An expert came back from a file of about a hundredth of its bytes; the course asks why.
# - Heads come from class names through the text tower: they cost no storage and stay frozen.
# - Experts are far above zero-shot, and a gap between names and images, made on purpose, is a large part of why.
#
# **What would change our mind.** If synonyms did no better than names, the gap would be no explanation. If an
# expert's interval touched the zero-shot one, that task could not tell good merging from bad.
#
# **In the paper.** This mirrors the rows of the pretrained model and of the individual experts in its comparison
# on eight tasks with CLIP ViT-B/32. There the experts reach about 90.5 % in the mean.

# %% [markdown]
# ## Quiz
#
# **1.** Why does an expert of this suite not need to store its head?
#
# <details><summary>Answer</summary>
#
# The head is made from class names and prompts by the text tower of the pretrained model, and it stays frozen in
# fine-tuning. Whoever has the names and that text tower can make it again.
# </details>
#
# **2.** Somebody reports two accuracies on the same test images. The 95 % intervals overlap. Is one method better?
#
# <details><summary>Answer</summary>
#
# You cannot tell from this. Overlapping intervals do not mean that the difference is zero. Compare the two image by
# image (Exercise 3): the interval of the difference is often much narrower than the two intervals are.
# </details>
#
# **3.** Is the alignment gap a result of the paper?
#
# <details><summary>Answer</summary>
#
# No. It is a design choice of the mini suite, so that a small model behaves as CLIP does. It limits what our numbers
# say about the size of effects at full scale.
# </details>
#
# **Next:** [01 · Task vectors](01_task_vectors.ipynb) asks what fine-tuning moved, and what merging loses.
