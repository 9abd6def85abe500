# %% [markdown]
# # 11 · Serving many experts
#
# After this you can answer requests for many tasks from one model in memory, in three ways that give one answer, and
# send images that come without a task to the expert that fits.

# %% [markdown]
# > **Goals.** You *show* that adding and subtracting remainders wears a model out, and that rebuilding does not. You
# > *run* a layer without its matrix, for one task and for a batch that mixes tasks. You *compare* what the ways cost in
# > time and in memory. You *route* images to experts from the remainders alone.
# >
# > **Before you start.** Notebooks 02 to 07: rank, the codes of $U$ and $V$, remainder, rebuild.
# >
# > **Time.** 20 minutes to read, 21 for the exercises. It runs in about a minute on a laptop's CPU; cells that take
# > more than a few seconds say so. It needs no network.

# %% [markdown]
# ## The question
#
# You hold one shared model in memory and a small file for each task. A request for the signs arrives, then one for
# aerial photographs, then signs again. The paper counts stored bytes. Its reviewers asked what it costs to *use* them:
# **what happens at each swap, and what if every request is for another task?**
#
# The obvious way to swap: add a remainder to the weights in place, answer, subtract it again. Nothing is lost. Or is
# something?

# %%
# Importing takes about five seconds.
import json
import tempfile
from pathlib import Path

import torch
from torch.nn import functional as F

from dts_mini import average, personalise
from dts_mini.core.compress import compress
from dts_mini.core.delta import rebuild
from dts_mini.core.dts import rank_of
from dts_mini.course import check, claim, figures, hint, show
from dts_mini.measures.routing import measure
from dts_mini.ours.router import choose, energies, head_scores, subspaces
from dts_mini.serving import Base, Expert, Server, Swapper, run
from dts_mini.suites import load_suite
from dts_mini.suites.mini.suite import DATA

suite = load_suite()
theta_0 = suite.pretrained()
name = "transformer.resblocks.0.mlp.c_fc.weight"
base = {key: theta_0[key] for key in (name, "transformer.resblocks.3.attn.in_proj_weight", "ln_post.weight")}
deltas = {task: compress(base, {key: suite.expert(task)[key] for key in base}) for task in suite.tasks}
print({key: tuple(tensor.shape) for key, tensor in base.items()})

# %% [markdown]
# ## Step 1 · Swap often, and look at the base
#
# Take three tensors, so that it is fast. Swap through the tasks again and again, in place, in three number formats.
# After each swap measure how far the base is from where it began, as a share of a remainder's length.


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

# %% [markdown]
# **Predict** before you go on: in which of the formats does the base come back? And in the others, is what
# is lost visible beside a remainder?

# %% tags=["answer"]
show(figures.drift(drift))
sentence = "After each of 200 swaps the rebuilt expert has the same bits as the first time."
claim("11-rebuild", sentence, sum(equal), low=200)
sentence = "In bfloat16, 200 swaps in place move the base by at least 5 % of a remainder's length."
claim("11-bfloat16", sentence, errors["bfloat16"][-1], low=0.05, unit="%")
sentence = "In float32 they move it, but by at most 0.01 %."
claim("11-float32", sentence, errors["float32"][-1], low=1e-9, high=1e-4, unit="%")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# In none of them. In the two-byte formats the drift soon is a visible part of a remainder's length. Each sum is
# rounded, and what rounding cuts off does not come back. What that costs in accuracy is not measured here. And a
# surprise: in float32 the drift is tiny. There the reason to rebuild is another: the same request gets the same bits,
# whatever was served before it. That holds in every format, since nothing ever writes to the base.
# </details>

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
sentence = "Your side path gives what the rebuilt matrix gives, to 0.001 %."
claim("11-side-path", sentence, apart, high=1e-5, unit="%", of="low_rank_forward")

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
figure, data = figures.serving_cost((m, n), (19, 57), tokens)
show(figure)

# %%
image = theta_0["positional_embedding"].shape[0]
print(f"matrix {m} x {n}; {image} tokens per image")
sentence = "For this matrix both ways cost the same at some number of images between 5 and 15."
claim("11-even", sentence, data["even"] / image, low=5, high=15, unit="images")

# %%
matrices = [tuple(theta_0[key].shape) for key in theta_0 if theta_0[key].dim() == 2 and "resblocks" in key]
ranks = [rank_of(shape, 0.1) for shape in matrices]
once = sum(m * n * r for (m, n), r in zip(matrices, ranks, strict=True))
an_image = image * sum(m * n for m, n in matrices)
sentence = "Rebuilding all matrices of the blocks takes fewer multiplications than answering two images."
claim("11-rebuild-cost", sentence, once / an_image, high=2, unit="images")

# %% [markdown]
# **What you should see:** for each rank the two lines cross at the same place. The rank cancels: both ways cost the
# same at $m\,n / (m + n)$ tokens, whatever $r$ is. So it is not the size of the remainder that decides between them,
# but how many tokens come between two swaps.
#
# A count is not a time. Unpacking codes, moving memory and starting kernels are not in it. Step 5 measures the times.

# %% [markdown]
# ## Step 4 · Three ways, one answer
#
# Now a whole model. The base is the average of all experts, and each task has its remainder over it, as in notebook 07.
# The cell takes about five seconds.

# %%
experts = {task: suite.expert(task) for task in suite.tasks}
shared = average(list(experts.values()))
deltas = personalise(shared, experts, keep_ratio=0.1)
tower = suite.tower().eval()
tower.load_state_dict(shared)

# %% [markdown]
# *Swap*: a `Swapper` writes one expert after another into the module. It keeps the base's bytes, copies them and adds
# one remainder. *On the fly*: `run` hands the module its inputs, and sees every function that is given one of the
# base's weights: a linear layer, the fused projection of attention, a bare parameter. There it adds the side path.
# Nothing is written.

# %%
pixels = {task: suite.images(task, "validation")[0][:4] for task in suite.tasks}
swapper, answers = Swapper(tower), {}
for task in suite.tasks:
    swapper.to(deltas[task])
    answers[task] = tower(pixels[task]).detach()
swapper.to(None)  # the base again
print("the base, to the bit:", all(torch.equal(x, shared[key]) for key, x in tower.state_dict().items()))

# %%
base_of = Base(tower)
served = {task: Expert(base_of, delta) for task, delta in deltas.items()}
apart = lambda x, y: ((x - y).norm() / y.norm()).item()

# %% [markdown]
# *Mixed batches*: one batch, and each image belongs to a task of its own. The product with $W$ is the same for all.
# Only the thin products differ.

# %% [markdown]
# ### Exercise 2 · A batch of many tasks (medium, 8 minutes)
#
# Write a layer for such a batch, as `run` does it: the base has computed its product $y = W x$, *once*, for all
# samples, and you are given $y$. So you need no $W$. Add what each sample's own task adds. A task's remainder comes as
# two thin factors, $A$ ($m \times r$) and $B$ ($r \times n$), with the singular values multiplied into $A$.


# %% tags=["exercise"]
def mixed_forward(
    y: torch.Tensor, x: torch.Tensor, factors: list[tuple[torch.Tensor, torch.Tensor]], tasks: torch.Tensor
) -> torch.Tensor:
    """What the base answers, y = W x (batch, m), and x (batch, n); A (m, r), B (r, n) of each task; tasks (batch,).

    Returns (batch, m): to the base's answer for a sample comes A B x of the sample's own task. y stays as it is.
    """
    result = y.clone()
    for task, (a, b) in enumerate(factors):
        mine = tasks == task
        result[mine] += x[mine] @ b.T @ a.T
    return result


# %%
mixed_forward = check(mixed_forward)
# hint("mixed_forward")

# %% [markdown]
# Compare it with the real thing: a batch with four images of each task, shuffled, through a layer and through the whole
# tower.

# %%
order = torch.randperm(4 * len(suite.tasks), generator=torch.Generator().manual_seed(0))
names = [suite.tasks[i // 4] for i in order.tolist()]
batch, wanted = (torch.cat([part[task] for task in suite.tasks])[order] for part in (pixels, answers))
mixed = apart(run([served[task] for task in names], batch), wanted)
claim(
    "11-mixed",
    "In a batch of all tasks each image gets its own expert's answer, to 0.01 %.",
    mixed,
    high=1e-4,
    unit="%",
)
tokens = torch.randn(len(order), w.shape[1], generator=torch.Generator().manual_seed(1))
thin = [deltas[task].parts[name].factors() for task in suite.tasks]
yours = mixed_forward(tokens @ shared[name].T, tokens, thin, order // 4)
matrices = {task: rebuild(shared, delta)[name] for task, delta in deltas.items()}
one_by_one = torch.stack([matrices[task] @ token for task, token in zip(names, tokens, strict=True)])
sentence = "Your layer gives each token what its task's own matrix gives, to 0.01 %."
claim("11-your-mix", sentence, apart(yours, one_by_one), high=1e-4, unit="%", of="mixed_forward")

# %% [markdown]
# **What you should see:** three ways, one answer. The bits differ, since sums are rounded in another order, but by far
# less than the error that compression leaves. And the base in memory has not changed, whatever was asked of it.

# %% [markdown]
# ## Step 5 · What it costs (can be skipped at first)
#
# Times depend on the machine, so stored ones are shown. `python -m benchmarks.serving` measures the ways in turn, on
# one thread of a machine that had other work to do as well: look at the ratios. Each request is for another task than
# the one before, which is the worst case for swapping. Two towers: the mini suite's, and one of ViT-B/32's shapes with
# random weights.

# %%
bench = json.loads((DATA.parent / "serving.json").read_text())
runs = {(found["model"], found["method"]): found for found in bench["runs"]}
ways = ("swap", "swap, unpacked", "on the fly", "mixed")
show(figures.serving_times([runs[model, "dts"] for model in ("mini", "ViT-B/32")], ways))

# %%
ratio = lambda model, batch, way: max(
    runs[model, method]["batches"][batch][way]["to_base"]["wall"]["median"] for method in ("dts", "drc")
)
sentence = "For 32 images on ViT-B/32's shapes, on the fly takes at most 1.2 times the base's time."
claim("11-time-fly", sentence, ratio("ViT-B/32", "32", "on the fly"), high=1.2)
sentence = "A mixed batch of eight tasks takes at most 1.5 times the base's time there."
claim("11-time-mixed", sentence, ratio("ViT-B/32", "32", "mixed"), high=1.5)
sentence = "For a single image, a swap and its answer take at least twice the base's time."
claim("11-time-swap", sentence, ratio("ViT-B/32", "1", "swap"), low=2)

# %%
read = max(runs["ViT-B/32", method]["reading"]["swap / read from disk"]["wall"]["median"] for method in ("dts", "drc"))
print(
    f"goals missed: a mixed batch of 32 on the mini tower takes {ratio('mini', '32', 'mixed'):.1f} times",
    "the base's time,",
)
print(f"a swap {read:.2f} times that of reading the expert from disk")

# %% [markdown]
# **What you should see:** on the large tower the times follow the counts of Step 3. Swapping for every request is the
# worst way for one image, and matters less as requests grow; the side path adds its share to every image, however many
# there are. Two of our goals are missed. A mixed batch was to stay below the large tower's bound on the mini tower,
# too: there the matrices are so small that calling functions takes longer than the thin products. And a swap was to
# take a small part of the time of reading the expert from disk. It reads far fewer bytes, but it has to do all the
# multiplications of Step 3, and on one thread those take about as long as the disk.

# %% [markdown]
# ## Step 6 · Hundreds of tasks in memory (can be skipped at first)
#
# An expert that is ready to run holds numbers where its file holds codes of two bits. So a server keeps the *files* of
# all tasks in memory, and decodes an expert when it is asked for. What if there are too many decoded experts?

# %%
run_of = runs["ViT-B/32", "dts"]
size = {"base": run_of["weights_bytes"]["base"], "file": run_of["file_bytes"], "decoded": run_of["expert_bytes"]}
show(figures.served_memory(size["base"], size["base"], size["file"], size["decoded"], (1, 3, 10, 30, 100, 300)))

# %%
sentence = "The files of a hundred tasks take less memory than the base itself."
claim("11-hundred", sentence, 100 * size["file"] / size["base"], high=1)

# %% [markdown]
# When memory is short, the server drops the decoded expert whose last request is longest ago: the *least recently
# used*. `Server` does this, for any number of threads. Give it room for all files and for three decoded experts, and
# ask for one task after the other.

# %%
folder = Path(tempfile.mkdtemp())
files = {task: delta.save(folder / f"{task}.dts.safetensors") for task, delta in deltas.items()}
decoded = max(expert.nbytes for expert in served.values())
memory = sum(path.stat().st_size for path in files.values()) + 3 * decoded
server = Server(tower, folder, memory=memory)
held = []
for task in suite.tasks:
    server(task, pixels[task])
    held.append(server.held)
print("within its bound at every request:", max(held) <= memory)

# %% [markdown]
# ## Step 7 · Which task is it?
#
# So far each request named its task. The paper needs that name; its reviewers asked what happens without it. Can you
# tell the task from the remainders themselves?
#
# A remainder $\hat U \,\mathrm{diag}(s)\, \hat V^\top$ acts on a layer's input $x$ through $\hat V^\top x$ alone. So
# the right singular vectors span the inputs that fine-tuning learnt to treat in a new way. Run the base once, and ask
# for each task: how much of $x$ lies there?

# %% [markdown]
# ### Exercise 3 · The share of a subspace (medium, 7 minutes)
#
# Write this share for a batch of inputs. A random input should get about one, however many vectors a task has.


# %% tags=["exercise"]
def subspace_share(x: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """Inputs x (batch, n), a task's vectors V (r, n) -> (batch,): how much of x lies along V, against chance.

    ||V x||^2 / ||x||^2, divided by what a random direction would have in the mean, ||V||^2 / n.
    """
    along = (x @ vectors.T).square().sum(1) / x.square().sum(1)
    return along / (vectors.square().sum() / x.shape[1])


# %%
subspace_share = check(subspace_share)
# hint("subspace_share")

# %% [markdown]
# The router takes the class token, averages the logarithm of your share over the last layers, and chooses the task with
# the largest score. Heads can vote as well: how well does the base's embedding fit the classes of a task? The number of
# layers, and how much the subspaces count beside the heads, were chosen on validation images. The cell takes about ten
# seconds.

# %%
path = suite.folder / "routing.json"
table = json.loads(path.read_text()) if path.exists() else measure(suite)
chosen = table["chosen on validation"]
spaces = subspaces(tower, deltas, share=chosen["share of layers"])
print(list(spaces))
images = torch.cat([suite.images(task, "test")[0][:100] for task in suite.tasks])
truth = torch.arange(len(suite.tasks)).repeat_interleave(len(images) // len(suite.tasks))
embeddings, along = energies(tower, images, spaces)
votes = head_scores(F.normalize(embeddings, dim=-1), [suite.head(task) for task in suite.tasks])
choices = {"heads": choose(votes), "subspaces": choose(along), "both": choose(votes + chosen["mix"] * along)}

# %% [markdown]
# **Predict** before you go on: two tasks of this suite have the same class names, digits and house numbers.
# What will heads do with their images? And subspaces?

# %% tags=["answer"]
show(figures.routing_maps(choices, truth, suite.tasks))
hits = {router: (picked == truth).float().mean().item() for router, picked in choices.items()}
claim("11-route-both", "Heads and subspaces together send at least 94 % there.", hits["both"], low=0.94, unit="%")
draw = torch.Generator().manual_seed(0)
mine = [subspace_share(torch.randn(500, v.shape[1], generator=draw), v).mean() for v in spaces[list(spaces)[-1]]]
sentence = "By your function, random inputs have a share of one, within a tenth, for every task."
claim("11-chance", sentence, (torch.stack(mine) - 1).abs().max().item(), high=0.1, of="subspace_share")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# Heads fail in one place, and there completely. Digits and house numbers have the same class names, so the same head,
# and the first of two equal scores wins. Subspaces know nothing of names, and tell the two apart. Together they hardly
# ever err.
# </details>
#
# What is that worth end to end? The stored table (`python -m dts_mini.measures.routing`) has all test images. An answer
# counts as right when it is the right class *name*, from whichever expert. The oracle is told the task.

# %%
rows = {row["name"]: row for row in table["rows"]}
show(figures.routed_accuracies(rows, ("heads", "subspaces", "both"), (1, 8, 32)))

# %%
estimate = lambda entry: {"value": entry["value"], "interval": (entry["low"], entry["high"])}
claim(
    "11-route-share",
    "Routed without a task's name, by two settings chosen on validation images, the experts keep at least 95 % of the "
    "oracle's mean (95 % interval).",
    **estimate(rows["both"]["share of oracle"]),
    low=0.95,
    unit="%",
)
merge = next(row for title, row in rows.items() if title.startswith("best merge, task known"))
claim(
    "11-route-merge",
    "One image at a time, they are at least two points above the best merge that is told the task, counted between "
    "intervals.",
    rows["both"]["end to end"]["low"] - merge["end to end"]["high"],
    low=0.02,
    unit="points",
)
if "over seeds" in table:
    both = next(row for row in table["over seeds"]["rows"] if row["name"] == "both")["share of oracle"]
    claim(
        "11-route-seeds",
        "Trained anew, they keep at least 95 % as well: the least of all trainings does.",
        min(both["each"]),
        low=0.95,
        unit="%",
    )

# %% [markdown]
# **What you should see:** the remainders tell the task. Heads alone come close end to end: they send all digits to the
# expert of house numbers, which reads digits nearly as well as their own expert does. But if the *task* has to be
# right, heads lose them all.
#
# Now put it together: shuffled test images of all tasks, no names. One pass of the base routes them, and one mixed
# batch answers them. The cell takes a few seconds.

# %%
pick = torch.randperm(len(images), generator=torch.Generator().manual_seed(2))[:200]
sent = [suite.tasks[i] for i in choices["both"][pick].tolist()]
embedded = F.normalize(server(sent, images[pick]), dim=-1)
labels = torch.cat([suite.images(task, "test")[1][:100] for task in suite.tasks])[pick]
right = [
    suite.classes(task)[int((suite.head(task) @ vector).argmax())] == suite.classes(suite.tasks[truth[i]])[label]
    for task, vector, i, label in zip(sent, embedded, pick.tolist(), labels.tolist(), strict=True)
]
claim("11-together", "Of these images, at least 85 % get the right name.", sum(right) / len(right), low=0.85, unit="%")

# %% [markdown]
# The price is the pass of the base: twice the work, unless a batch shares its task. And there is a limit. The router
# knows its own tasks only: an image of a task that nobody fine-tuned goes to one of them all the same.

# %% [markdown]
# ## Recap
#
# - Never serve by adding and subtracting in place. Keep the base, and compute what you need from it.
# - An expert's layer needs no matrix of its own: two thin products beside the shared one give the same answer, and one
#   batch may mix tasks. Many tokens between two swaps: rebuild. Few: side path.
# - Files of many tasks fit into memory where one whole expert fits; the decoded ones come and go.
# - The remainders tell which task an image belongs to: their right singular vectors span the inputs they were made for.
#
# **What would change our mind.** A machine on which a swap costs less than the thin products of a large batch. Or tasks
# so similar that the subspaces cannot tell them apart, although each needs its own expert.
#
# **In the paper.** It rebuilds experts on demand, needs the task's name, and reports no cost of either. There is no
# figure to mirror.

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
# **3.** Two tasks have the same class names. What can a router use, and what not?
#
# <details><summary>Answer</summary>
#
# Not the heads: they are made from the names, so they are equal. The subspaces of the remainders come from the images
# that each expert was fine-tuned on, and differ where the images do.
# </details>
#
# **Next:** [12 · The paper at full scale](12_full_scale.ipynb): how large the files are for a model of real size.
