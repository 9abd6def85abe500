# %% [markdown]
# # 06 · Your own DTS
#
# After this you own the method: you write an expert to a file of your own format with functions of your own, rebuild it
# from the file, and find out something that this course does not know.

# %% [markdown]
# > **Goals.** You *join* what you wrote in notebooks 02 to 05 to a method that writes and reads files. You *compare* it
# > with the library: bytes, KL divergence, accuracy. You *investigate* an open question, on validation images.
# >
# > **Before you start.** Notebooks 02 to 05. What you left out there, the solution stands in for.
# >
# > **Time.** 12 minutes to read, 30 for the exercises, and as long as you like for the open question. It runs in about
# > a minute on a laptop's CPU; the cells that evaluate models say so. It needs no network.

# %% [markdown]
# ## The question
#
# You have written every piece of DTS. **Do the pieces make a method?** From here on nothing of it comes from the
# library: no `dts_mini.core`, only PyTorch and your functions, and safetensors to put four tensors into a file.
#
# - *`compressed`*: the expert minus $\theta_0$ → decompose → threshold → scale → pack → a file.
# - *`rebuilt`*: a file → unpack → each code's value → multiply → plus $\theta_0$.

# %%
# Importing takes about five seconds.
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import load_file, save_file

import dts_mini
from dts_mini.course import bring, check, claim, figures, hint, show, whose
from dts_mini.suites import load_suite
from dts_mini.suites.evaluation import bootstrap, divergence, interval, logits

suite = load_suite()
theta_0, experts = suite.pretrained(), {task: suite.expert(task) for task in suite.tasks}

# %% [markdown]
# ## Step 1 · Bring what you wrote
#
# | function | from | takes and gives |
# |---|---|---|
# | `decompose(M, keep_ratio)` | notebook 02 | a matrix → $U$, $s$, $V^\top$ |
# | `threshold(x)` | notebook 03 | a tensor → its codes, from $0$ to $4$ |
# | `scale(x, codes)` | notebook 04 | a tensor and its codes → five values |
# | `pack(codes)` | notebook 05 | codes from $0$ to $3$ → bytes |
# | `unpack(packed, count)` | notebook 05 | bytes → codes |
#
# Save those notebooks, then run the second cell below. Are they in another folder, or have they other names? Then paste
# your functions into the first cell.

# %%
# Room for functions that you paste. What stands here comes before what the other notebooks hold.

# %% tags=["nbval-ignore-output"]
decompose, threshold, scale, pack, unpack = bring("decompose", "threshold", "scale", "pack", "unpack")

# %% [markdown]
# ## Step 2 · An expert in four tensors
#
# A file with an entry for each thing wastes room on names. So join everything. Go through the tensors *in the order of
# their names*, and append what each gives to these four rows:
#
# | entry | holds | type |
# |---|---|---|
# | `codes` | all codes in one long row, four in a byte; of a matrix $U$, row by row, then $V^\top$ | uint8 |
# | `values` | of a matrix $s$, the four values of $U$, those of $V^\top$; of another tensor its four | float32 |
# | `zeros` | where the long row has the code 4; there 0 is packed in its place | int32 |
# | `ranks` | for each matrix, how many components were kept | int32 |
#
# The shapes need no room: whoever rebuilds has $\theta_0$, and there every tensor has its shape. The fifth value needs
# none either, since it is always zero.

# %% [markdown]
# ### Exercise 1 · Compress (hard, 15 minutes)
#
# `base` and `expert` are dicts: tensors by name. Return the dict of the four entries.


# %% tags=["exercise"]
def compressed(base: dict, expert: dict, keep_ratio: float) -> dict:
    """Two models' tensors by name -> the file's entries: codes (packed), values, zeros and ranks."""
    codes, values, ranks = [], [], []
    for name in sorted(base):
        parts = [expert[name] - base[name]]
        if parts[0].dim() == 2:
            U, s, Vt = decompose(parts[0], keep_ratio)
            parts = [U, Vt]
            values.append(s)
            ranks.append(len(s))
        for part in parts:
            found = threshold(part)
            codes.append(found.flatten())
            values.append(scale(part, found)[:4])
    codes = torch.cat(codes)
    zeros = torch.nonzero(codes == 4).flatten().int()
    return {"codes": pack(codes % 4), "values": torch.cat(values), "zeros": zeros, "ranks": torch.tensor(ranks).int()}


# %%
compressed = check(compressed)
# hint("compressed")

# %% [markdown]
# ## Step 3 · And back
#
# Reading is writing in reverse. Unpack the long row, put the 4s back, and go through the tensors in the same order. At
# each step cut off the front of the two rows what belongs to this tensor.

# %% [markdown]
# ### Exercise 2 · Rebuild (hard, 15 minutes)
#
# Return the expert's tensors by name. Codes are indices: `values[codes]` wants them as `.long()`.

# %% tags=["exercise"]
import math


def rebuilt(base: dict, file: dict) -> dict:
    """A base's tensors by name, and a file's entries -> the expert's tensors by name."""
    codes = unpack(file["codes"], 4 * len(file["codes"])).long()
    codes[file["zeros"].long()] = 4
    values, ranks, expert = file["values"], file["ranks"].tolist(), {}

    def part(*shape):
        nonlocal codes, values
        mine, codes = codes[: math.prod(shape)], codes[math.prod(shape) :]
        four, values = values[:4], values[4:]
        return torch.cat([four, four.new_zeros(1)])[mine].view(shape)

    for name in sorted(base):
        shape = base[name].shape
        if len(shape) == 2:
            r = ranks.pop(0)
            s, values = values[:r], values[r:]
            x = part(shape[0], r) * s @ part(r, shape[1])
        else:
            x = part(*shape)
        expert[name] = base[name] + x
    return expert


# %%
rebuilt = check(rebuilt)
# hint("rebuilt")

# %% [markdown]
# ## Step 4 · The file, and the table
#
# Write the file of one expert, read it again, and rebuild.

# %%
folder = TemporaryDirectory()


def written(task):
    """Where the expert of a task stands, in a file of your own."""
    path = Path(folder.name) / f"{task}.safetensors"
    save_file(compressed(theta_0, experts[task], 0.1), path)
    return path


# %% [markdown]
# **Predict** first: how many bytes will the file have? Notebook 05 showed how long the library's file of this
# expert is. Will yours be longer or shorter?
#
# <details><summary>What do you expect? Then open this</summary>
#
# Hardly a difference. The library's file is a little longer, because it also has a digest of all bytes and a table of
# settings: it refuses a file that was damaged, and yours does not.
# </details>

# %% tags=["answer"]
task = suite.example
path = written(task)
size = path.stat().st_size
mine = rebuilt(theta_0, load_file(path))
delta = dts_mini.compress(theta_0, experts[task], keep_ratio=0.1)
counts, library = dts_mini.storage(delta), dts_mini.rebuild(theta_0, delta)
writes = ("decompose", "threshold", "scale", "pack", "compressed")  # the functions that a file rests on
both = (*writes, "unpack", "rebuilt")
print(f"{whose(*writes)} file: {size:,} bytes; the library's: {counts.file:,}; the expert: {counts.model:,}")
sentence = "Your file takes less than 1.2 % of the expert's bytes."
claim("06-file", sentence, size / counts.model, high=0.012, unit="%", of=writes)
sentence = "Your file is as long as the library's, to 5 %."
claim("06-beside", sentence, size / counts.file, low=0.95, high=1.05, of=writes)
flat = lambda state: torch.cat([(state[name] - theta_0[name]).flatten() for name in sorted(theta_0)])
off = ((flat(mine) - flat(library)).norm() / flat(library).norm()).item()
sentence = "The remainder from your file is the library's, to 0.1 %."
claim("06-same", sentence, off, high=1e-3, of=both)

# %% [markdown]
# Now all eight tasks, and what counts in the end: the answers, by accuracy and by the KL divergence from the expert
# ([notebook 02](02_decomposition.ipynb), Step 5). Each of the next two cells takes about ten seconds.

# %%
right = {how: {} for how in ("expert", "library", "yours")}
far, length = {how: {} for how in ("library", "yours")}, {how: {} for how in ("library", "yours")}


def compare(task):
    """Fills in, for one task, the bytes of both files, which test images are right, and the KL divergences."""
    delta = dts_mini.compress(theta_0, experts[task], keep_ratio=0.1)
    path = written(task)
    mine, length["yours"][task] = rebuilt(theta_0, load_file(path)), path.stat().st_size
    library, length["library"][task] = dts_mini.rebuild(theta_0, delta), dts_mini.storage(delta).file
    labels, answers = suite.images(task, "test")[1], logits(suite, experts[task], task)
    right["expert"][task] = answers.argmax(1) == labels
    for how, state in (("library", library), ("yours", mine)):
        found = logits(suite, state, task)
        right[how][task], far[how][task] = found.argmax(1) == labels, divergence(answers, found)


for each in suite.tasks[:4]:
    compare(each)

# %%
for each in suite.tasks[4:]:
    compare(each)

# %%
mean = lambda rows: sum(row.float().mean().item() for row in rows.values()) / len(rows)
print("in the mean over eight tasks      bytes     KL (nats)   accuracy")
own = f"{whose(*both)} files"
for how, name in (("expert", "the experts"), ("library", "the library's files"), ("yours", own)):
    size = sum(length[how].values()) / len(suite.tasks) if how in length else counts.model
    kl = f"{mean(far[how]):.3f}" if how in far else "0"
    print(f"{name:<28}{size:>11,.0f}{kl:>14}{100 * mean(right[how]):>9.0f} %")

# %%
accuracy, apart = bootstrap(right), bootstrap(far)
lost = (accuracy["expert"] - accuracy["yours"]).mean(1)
sentence = "Rebuilt from your files, the experts lose less than 1.5 points of accuracy in the mean (95 % interval)."
claim("06-accuracy", sentence, lost.mean().item(), high=0.015, interval=interval(lost), unit="points", of=both)
share = apart["yours"].mean(1) / apart["library"].mean(1)
sentence = "In KL divergence your files are as good as the library's, to 1 % (95 % interval)."
value = {"value": share.mean().item(), "interval": interval(share), "unit": "times"}
claim("06-kl", sentence, low=0.99, high=1.01, of=both, **value)

# %% [markdown]
# **What you should see:** two rows that agree. The method in this table is about a page of Python, and you know every
# line of it. What the library adds is not another method: it adds checks, formats, budgets, speed, and merging.

# %% [markdown]
# ## Step 5 · An open question (can be skipped at first)
#
# Notebook 04 left a question open. The RMS keeps the length of each factor, but the rebuilt matrix is shorter than the
# original, and the answers were better with longer remainders. **What if a remainder is stretched before it is added?**
# A file has room for one more number.
#
# You choose something here, so use the *validation* images. The test images have to stay unseen until the end, or they
# would be no test. `score` takes a change, applies it to each of your eight rebuilt experts, and gives the mean KL
# divergence from the experts, resampled. The next two cells make three trials, in about fifteen seconds each; after that
# a trial takes about seven.

# %%
models = {task: rebuilt(theta_0, load_file(Path(folder.name) / f"{task}.safetensors")) for task in suite.tasks}
wanted = {}  # the experts' own answers, by split


def score(change, split="validation"):
    """Mean KL divergence (draws,) of eight rebuilt experts after change(task, model) -> model."""
    if split not in wanted:
        wanted[split] = {task: logits(suite, experts[task], task, split) for task in suite.tasks}
    changed = {task: change(task, model) for task, model in models.items()}
    apart = {task: divergence(wanted[split][task], logits(suite, x, task, split)) for task, x in changed.items()}
    return bootstrap({"": apart})[""].mean(1)


def stretched(model, c):
    """theta_0 plus c times what a model adds to it."""
    return {name: x + c * (model[name] - x) for name, x in theta_0.items()}


trials = {"as it is": score(lambda task, model: model)}

# %%
for c in (1.1, 1.3):
    trials[f"all stretched by {c}"] = score(lambda task, model, c=c: stretched(model, c))
show(figures.trial_rows(trials))

# %% [markdown]
# **What you should see:** that the question is worth asking. The best answer is not in this course: nobody has looked
# for it here. Some directions:
#
# - Is the best stretch the same for every task? Choose one for each, and see what it buys.
# - Should all tensors be stretched alike? Matrices lose length in truncation; biases and norms are not truncated.
# - Does the best stretch depend on the keep ratio? At a lower one more is cut off.
# - Can you tell a good stretch *without* images, from the singular values that were dropped?
#
# Change the marked line, or all of the function, and run the cell again under another label. It takes some seconds.


# %%
def idea(task, model):
    """A rebuilt expert -> what you make of it."""
    return stretched(model, 1.0)  # your idea goes here


trials["my idea"] = score(idea)
gap = trials["my idea"] - trials["as it is"]
print("my idea against as it is: {:+.4f} nats, 95 % interval {:+.4f} to {:+.4f}".format(gap.mean(), *interval(gap)))
show(figures.trial_rows(trials))

# %% [markdown]
# **What I found** (double-click and write):
#
# - *My idea was* ...
# - *On the validation images* ... *nats against "as it is"; the interval of the difference* ... *zero.*
# - *How many ideas I tried before this one:* ... (the more, the luckier the best one is)
# - *On the test images, looked at once:* ...
# - *What would change my mind:* ...
#
# When you have chosen, and only then, take the `#` away:

# %%
# before, after = score(lambda task, model: model, "test"), score(idea, "test")
# print((after - before).mean().item(), interval(after - before))

# %% [markdown]
# ## Recap
#
# - Compress, pack, write; read, unpack, rebuild: two functions of your own, built on five others of your own.
# - A file of four tensors is as short as the library's, and its experts answer alike.
# - Choose on validation images, count your trials, and look at the test images once.
#
# **What would change our mind.** If your file and the library's differed in their answers, one of the two would not be
# the paper's method.
#
# **In the paper.** Its method section, whole, for task vectors over $\theta_0$; and no counterpart of Step 5.

# %% [markdown]
# ## Quiz
#
# **1.** Why is no shape and no name stored in your file?
#
# <details><summary>Answer</summary>
#
# Whoever rebuilds has the base, and with it all names and shapes. The order of the names is agreed upon. The price:
# over another base the same file gives nonsense, and nothing in it says so.
# </details>
#
# **2.** Somebody renames one tensor, in $\theta_0$ and in the expert. Does your file still work?
#
# <details><summary>Answer</summary>
#
# Only if it is rebuilt over the renamed base. A new name may stand elsewhere in the order, and then codes go to wrong
# tensors. The library's file holds names, and refuses.
# </details>
#
# **3.** You try twenty stretches and keep the best by validation. Why is its validation score too good?
#
# <details><summary>Answer</summary>
#
# Some of the twenty were lucky on just these images, and you picked the luckiest. The test images, looked at once, tell
# what is left of it.
# </details>
#
# **Next:** [07 · Personalised merging](07_personalised_merging.ipynb): what eight such files bring back, and over which
# base.
