# %% [markdown]
# # 13 · Language: models that read
#
# After this you can compress an encoder and a language model as you compressed an image tower, say which of their
# tensors need a second look, and judge task descriptors that are taken from heads.

# %% [markdown]
# > **Goals.** You *cut* a classifier into body and head. You *find* tensors that are stored twice. You *compress*
# > models that classify and one that writes. You *test* what the paper's descriptor of a text task says, and what it
# > does not. You *judge* what was measured on real texts.
# >
# > **Before you start.** Notebooks 02 to 05: rank, keep ratio, what is counted. Notebook 08: fusion, task descriptors.
# >
# > **Time.** 18 minutes to read, 28 for the exercises. It runs in half a minute on a laptop's CPU. It needs no network,
# > and the `transformers` library, which `make install` has installed.

# %% [markdown]
# ## The question
#
# The paper's figure below 1 % comes from language: 0.88 % per task, for RoBERTa-base. So far you have seen images only.
# DTS never asks what a tensor is for; it sees matrices, vectors and their names. So: **does anything change when the
# model reads?**

# %%
# Importing takes about five seconds.
import json
from math import prod

import torch
import transformers

from dts_mini import average, compress, fuse, fusion_weights, personalise, rebuild, storage
from dts_mini.core.dts import rank_of
from dts_mini.course import check, claim, figures, hint, show
from dts_mini.course.sentences import (
    HEADS,
    TASKS,
    fine_tuned,
    language_model,
    pretrained,
    right,
    snapshot,
    specialised,
    surprise,
)
from dts_mini.measures.tables import rows_of
from dts_mini.suites.evaluation import bootstrap, interval
from dts_mini.suites.places import DATA

# %% [markdown]
# ## Step 1 · What a text model is made of
#
# Begin with shapes, as in notebook 12: models of full size without a single weight. An encoder (RoBERTa-base) and a
# decoder (GPT-2) consist of the same blocks as the image tower, attention and MLP. What is new comes before them: a
# matrix with a row for each *word* that the model knows, some fifty thousand rows.


# %%
def shapes_of(make, config) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors of a model of transformers, without its weights."""
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in make(config).state_dict().items()}


def bits(shape: tuple[int, ...], keep_ratio: float, width: int = 2) -> int:
    """Bits of a tensor in a task's file: ``width`` for each code, 32 for each singular value."""
    rank = rank_of(shape, keep_ratio) if len(shape) == 2 else 0
    return width * (rank * sum(shape) if rank else prod(shape)) + 32 * rank


def kind_of(name: str) -> str:
    """What a tensor of either model is for, told by its name."""
    *modules, last = name.split(".")
    if last == "bias" or not {"layer", "h", "word_embeddings", "wte"} & set(modules) or "orm" in name or "ln_" in name:
        return "other"
    if modules[-1] in ("word_embeddings", "wte"):
        return "words"
    return "attention" if {"attention", "attn"} & set(modules) else "MLP"


size = {"vocab_size": 50_265, "max_position_embeddings": 514, "type_vocab_size": 1}
bodies_of = {
    "RoBERTa-base": shapes_of(transformers.RobertaModel, transformers.RobertaConfig(**size)),
    "GPT-2": shapes_of(transformers.GPT2Model, transformers.GPT2Config()),
}
parts = {model: {kind: [0, 0] for kind in ("words", "attention", "MLP", "other")} for model in bodies_of}
for model, shapes in bodies_of.items():
    for name, shape in shapes.items():
        own = parts[model][kind_of(name)]
        own[0], own[1] = own[0] + prod(shape), own[1] + bits(shape, 0.1)

# %%
show(figures.where_bytes_go(parts))

# %%
total = {model: [sum(own[i] for own in kinds.values()) for i in (0, 1)] for model, kinds in parts.items()}
least = min(parts[model]["words"][0] / total[model][0] for model in parts)
claim("13-words", "In both models the words are at least 30 % of the parameters.", least, low=0.3, unit="%")
share = total["RoBERTa-base"][1] / (32 * total["RoBERTa-base"][0])
sentence = "With 2 bits per code, RoBERTa-base takes 0.8 to 0.9 % at keep ratio 0.1."
claim("13-roberta", sentence, share, low=0.008, high=0.009, unit="%")
xl = json.loads((DATA / "scale.json").read_bytes())["gpt2-xl"]
sentence = "The file of a GPT-2 XL of 1.5 billion parameters takes less than 0.9 % at keep ratio 0.1."
claim("13-xl", sentence, xl["delta"]["share"], high=0.009, unit="%")

# %% [markdown]
# **What you should see:** much of such a model is a dictionary. In the file it takes less than its share: a long, thin
# matrix has few components. With two bits per code you come near the paper's 0.88 %; with three, which its programs
# count, for CLIP and for RoBERTa, you would not. Which count gives its figure is not established here. (The GPT-2 XL
# was compressed whole, with random weights: its file says something about size, and nothing about quality.)

# %% [markdown]
# ## Step 2 · A body, and a head of its own
#
# With CLIP a head is made from class names, so no task brings one. A text classifier *learns* its head, and the heads
# of two tasks have nothing in common, often not even the number of labels. So cut each expert in two: the *body* is
# compressed over the pretrained body, the *head* is small and kept as it is.
#
# ### Exercise 1 · Body and head (easy, 5 minutes)
#
# A state dict of transformers names its tensors by the modules they lie in: `classifier.dense.weight`. Cut it.


# %% tags=["exercise"]
def body_and_head(state: dict[str, torch.Tensor], head: str) -> tuple[dict, dict]:
    """A classifier's state dict, and the name of its head's module, such as "score" -> (body, head), two state dicts.

    To the head belong "score.weight", "score.dense.bias" and so on, under their own names; all else is the body's.
    ``state`` itself stays as it was.
    """
    body = {name: tensor for name, tensor in state.items() if not name.startswith(head + ".")}
    return body, {name: tensor for name, tensor in state.items() if name not in body}


# %%
body_and_head = check(body_and_head)
# hint("body_and_head")

# %% [markdown]
# Now two tiny transformers, one BERT-like (an encoder) and one GPT-2-like (a decoder). They have read a made-up
# language, whose words belong to topics. Each expert then learnt to tell sentences of two topics from those of two
# others. Each of the next two cells takes about ten seconds.

# %%
readers = {kind: pretrained(kind) for kind in HEADS}
starts = {kind: snapshot(model) for kind, model in readers.items()}

# %%
tuned = {kind: {task: fine_tuned(model, starts[kind], task) for task in TASKS} for kind, model in readers.items()}

# %%
module = {kind: layer.split(".")[0] for kind, layer in HEADS.items()}  # "classifier" and "score"
cut = {kind: {task: body_and_head(e, module[kind]) for task, e in each.items()} for kind, each in tuned.items()}
bodies = {kind: {task: body for task, (body, _) in each.items()} for kind, each in cut.items()}
heads = {kind: {task: head for task, (_, head) in each.items()} for kind, each in cut.items()}
first = {kind: body_and_head(start, module[kind])[0] for kind, start in starts.items()}


def answers(kind: str, body_of) -> dict[str, torch.Tensor]:
    """Which test sentences of each task a body, ``body_of(task)``, answers rightly under the task's own head."""
    return {task: right(readers[kind], body_of(task) | heads[kind][task], task) for task in TASKS}


# %%
small = {kind: {task: compress(first[kind], body) for task, body in each.items()} for kind, each in bodies.items()}

# %%
for kind in HEADS:
    rebuilt = answers(kind, lambda task, kind=kind: rebuild(first[kind], small[kind][task]))
    draws = bootstrap({"experts": answers(kind, bodies[kind].get), "rebuilt": rebuilt})
    kept = draws["rebuilt"].mean(1) / draws["experts"].mean(1)
    sentence = f"{kind}: rebuilt bodies keep at least 90 % of their experts' accuracy."
    claim(f"13-kept-{kind}", sentence, kept.mean().item(), interval=interval(kept), low=0.9, unit="%")
    sentence = f"{kind}: each file takes at most 3 % of its body's bytes (float32)."
    claim(f"13-body-{kind}", sentence, max(storage(d).share("file") for d in small[kind].values()), high=0.03, unit="%")

# %% [markdown]
# **What you should see:** it works for both, at a few hundredths of the bytes. So the answer to the chapter's question
# is mostly *no*. (Mind the scale: the language is simple, the bodies are tiny. Real texts come in Step 6.)

# %% [markdown]
# ## Step 3 · A model that writes
#
# A language model guesses the next word. It needs a row for each word twice: to read it, and to score it as a guess.
# GPT-2 uses *one* matrix for both; its head is *tied* to its embedding. A state dict still lists it under two names. If
# you count by names, you count the dictionary twice.
#
# ### Exercise 2 · What is stored twice? (medium, 8 minutes)
#
# Find the tensors of a state dict that repeat an earlier one, bit for bit.


# %% tags=["exercise"]
def stored_once(state: dict[str, torch.Tensor]) -> dict[str, str]:
    """For each tensor that repeats an earlier one, bit for bit and in its shape: the name of the first of them.

    {"head.weight": "embedding.weight"} says that the head's weight is the embedding, stored once more.
    """
    copies, first = {}, []
    for name, tensor in state.items():
        same = next((other for other in first if torch.equal(state[other], tensor)), None)
        if same is None:
            first.append(name)
        else:
            copies[name] = same
    return copies


# %%
stored_once = check(stored_once)
# hint("stored_once")

# %% [markdown]
# A GPT-2-like model has read the whole language; its expert went on with sentences of four topics. Compress the expert
# whole, head and all. How well it reads is measured by its *surprise* at the next word, in nats: less is better. The
# cell takes about ten seconds.

# %%
reader, topics = language_model(), (0, 1, 2, 3)
whole = snapshot(reader)
expert = specialised(reader, whole, topics)
print(stored_once(expert))
delta = compress(whole, expert)
single = {name: tensor for name, tensor in expert.items() if name not in stored_once(expert)}
alone = compress({name: whole[name] for name in single}, single)

# %%
before, again, after = (surprise(reader, state, topics) for state in (whole, rebuild(whole, delta), expert))
pick = bootstrap({name: {"": nats} for name, nats in (("before", before), ("again", again), ("after", after))})
kept = ((pick["before"] - pick["again"]) / (pick["before"] - pick["after"]))[:, 0]
gained = ((before - again).mean() / (before - after).mean()).item()
sentence = "Of what the expert has learnt (nats a word), the rebuilt language model keeps at least 75 %."
claim("13-reads", sentence, gained, interval=interval(kept), low=0.75, unit="%")
more = storage(delta).file - storage(alone).file
claim("13-tied", "The second name of the tied matrix costs at most 100 bytes.", more, low=0, high=100, unit="bytes")

# %% [markdown]
# **What you should see:** `compress` looks at the bits, not at the names. A matrix that is tied in the base and in the
# expert is coded once, and tied again when you rebuild. Checkpoints differ here: some store both names, some only one.

# %% [markdown]
# ## Step 4 · Transposed matrices (can be skipped at first)
#
# GPT-2 has one more oddity. Its layers, called `Conv1D`, keep a weight as inputs × outputs; everybody else's are
# outputs × inputs. Does that matter to DTS? $M = U S V^\top$ says $M^\top = V S U^\top$: the two factors change places,
# and that is all. Transpose the matrices and try.

# %%
turned = [name for name in first["GPT-2-like"] if ".h." in name and name.endswith("weight") and "ln_" not in name]
turn = lambda state: {name: x.T.contiguous() if name in turned else x for name, x in state.items()}
base, own = first["GPT-2-like"], bodies["GPT-2-like"]["seen 1"]
upright, aside = compress(base, own), compress(turn(base), turn(own))
wrong = lambda state: sum((state[name] - own[name]).square().sum().item() for name in turned) ** 0.5
print(len(turned), "matrices transposed")

# %%
apart = abs(storage(upright).file - storage(aside).file)
claim(
    "13-turned-file", "Transposed or not, the file has the same bytes, give or take 50.", apart, high=50, unit="bytes"
)
ratio = wrong(turn(rebuild(turn(base), aside))) / wrong(rebuild(base, upright))
claim("13-turned", "And the error is the same to 3 %.", ratio, low=0.97, high=1.03)

# %% [markdown]
# **What you should see:** to DTS it makes no difference. To a *map of names* it does: if you move GPT-2's weights into
# a library with ordinary layers, you have to transpose them, and a square matrix that you forget raises no error.
#
# And words that fine-tuning never saw? Their rows of the embedding do not move. Such a row is noticed, and not coded:

# %%
words = "transformer.wte.weight"
rare = torch.arange(len(base[words])) % 4 > 0  # as if three words in four had not been seen
few = own | {words: torch.where(rare[:, None], base[words], own[words])}
same = torch.equal(rebuild(base, compress(base, few))[words][rare], base[words][rare])
print("rows that did not move come back bit for bit:", same)

# %% [markdown]
# ## Step 5 · A task whose body nobody fine-tuned
#
# The task `unseen` has most of its topics in common with `seen 1`. As in the paper's experiments on GLUE, its head is
# given, and the descriptor is the *flattened dense layer of the head* (here its weight; the paper takes its bias, too).
# Which seen task do the weights prefer?

# %%
seen = [task for task in TASKS if task != "unseen"]
weights, bodies_now = {}, {}
for kind, layer in HEADS.items():
    descriptors = torch.stack([heads[kind][task][layer].flatten() for task in seen])
    weights[kind] = fusion_weights(heads[kind]["unseen"][layer].flatten(), descriptors)
    base = average([bodies[kind][task] for task in seen])
    deltas = personalise(base, {task: bodies[kind][task] for task in seen})
    fused = fuse(base, list(deltas.values()), weights[kind])
    bodies_now[kind] = {"pretrained": first[kind], "average": base, "fused": fused, "seen 1": bodies[kind]["seen 1"]}

# %%
for kind in HEADS:
    found = {
        name: {"unseen": answers(kind, lambda task, b=body: b)["unseen"]} for name, body in bodies_now[kind].items()
    }
    draws = bootstrap(found)
    gain = {other: (draws["fused"] - draws[other])[:, 0] for other in draws}
    points = lambda other, gain=gain: {"value": gain[other].mean().item(), "interval": interval(gain[other])}
    sentence = f"{kind}: no seen task gets over half of the weight."
    claim(f"13-weight-{kind}", sentence, weights[kind].max().item(), high=0.5, unit="%")
    sentence = f"{kind}: on the unseen task the fused body is at least 3 points better than the pretrained one."
    claim(f"13-pretrained-{kind}", sentence, **points("pretrained"), low=0.03, unit="points")
    sentence = f"{kind}: it gains at most 6 points on the plain average."
    claim(f"13-average-{kind}", sentence, **points("average"), high=0.06, unit="points")
    sentence = f"{kind}: it is not better than the body of the one seen task that is near."
    claim(f"13-kin-{kind}", sentence, **points("seen 1"), high=0.0, unit="points")

# %% [markdown]
# **What you should see:** fusing gains on the pretrained body, but hardly more than the plain average does. The weights
# are spread over all tasks, although one of them is plainly near; its body alone would have been the better choice.
#
# Look at how the descriptor is made: all heads start from *one* random layer, so the start is part of every cosine.
# What would a descriptor say that leaves the start out?
#
# ### Exercise 3 · How has it moved? (easy, 6 minutes)
#
# Compare not the layers, but how each has moved from the start.


# %% tags=["exercise"]
def moved_cosines(unseen: torch.Tensor, seen: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """Descriptors of a new task (d) and of N seen ones (N, d), all fine-tuned from ``start`` (d) -> (N,).

    The cosine between how the new task's descriptor has *moved* from the start, and how each seen task's has.
    """
    return torch.cosine_similarity((unseen - start)[None], seen - start, dim=1)


# %%
moved_cosines = check(moved_cosines)
# hint("moved_cosines")

# %% [markdown]
# **Predict** before you go on: which of `seen 1`, `seen 2` and `seen 3` comes nearest now?

# %%
cosines, near = {}, {}
for kind, layer in HEADS.items():
    new, start = heads[kind]["unseen"][layer].flatten(), starts[kind][layer].flatten()
    others = torch.stack([heads[kind][task][layer].flatten() for task in seen])
    near[kind] = moved_cosines(new, others, start)
    as_it_is = torch.cosine_similarity(new[None], others, dim=1)
    cosines[kind] = {"the layer": as_it_is.tolist(), "its move from the start": near[kind].tolist()}

# %% tags=["answer"]
show(figures.descriptor_cosines(seen, cosines))
spread = min((found.max() - found.min()).item() for found in near.values())
claim("13-moved", "Without the start the largest and the smallest cosine lie at least 0.2 apart.", spread, low=0.2)
sentence = "For the BERT-like body the task that shares the topics is not the nearest now: it is behind by 0.1 or more."
claim("13-moved-wrong", sentence, (near["BERT-like"].max() - near["BERT-like"][0]).item(), low=0.1)

# %% [markdown]
# <details><summary>What you should see</summary>
#
# The cosines are farther apart, so the weights would differ more. But they are not *right*: for one of the two bodies
# another task comes first. A head says how two labels are told apart, not what the sentences are about. Two tasks on
# the same topics may well learn different heads. That a descriptor is clear does not mean that it is right. Those of
# notebook 08 are made from what a task is about.
# </details>

# %% [markdown]
# ## Step 6 · Real texts, on weights that others pretrained
#
# Everything in this chapter has been tiny, and its language is made up. So take a sentence encoder that many people
# use, all-MiniLM-L6-v2, and fine-tune it whole on questions about real words and sentences. Are two neighbouring words
# swapped? Does the definition fit the word? Which syllable is stressed? `docs/text-suite.md` says where the texts come
# from, and under which licences. `make text` trains and measures all of it, from several seeds; what it has measured is
# stored, and you read it here.
#
# Before you look at accuracies: which words did the experts move?
#
# ### Exercise 4 · Which words moved? (easy, 4 minutes)
#
# An embedding has a row for each word. A word that no training text has gets no gradient.


# %% tags=["exercise"]
def moved_words(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """An embedding (words, d) before and after fine-tuning -> (words,), true where anything of a word's row has moved.

    A row that came back bit for bit has not moved.
    """
    return (before != after).any(dim=1)


# %%
moved_words = check(moved_words)
# hint("moved_words")

# %%
print("moved in Step 4:", moved_words(first["GPT-2-like"][words], few[words]).float().mean().item())
texts = {name: json.loads((DATA / f"text/{name}.json").read_bytes()) for name in ("zoo", "results", "seeds", "curves")}
for row in texts["zoo"]["rows"]:
    print(f"{row['task']:<14} {row['question']:<46} {'' if row['kept'] else 'left out'}")

# %%
most = max(row["rows moved"]["value"] for row in texts["zoo"]["rows"])
claim("13-text-words", "Of the real encoder's words, each expert moved at most 30 %.", most, high=0.3, unit="%")

# %% [markdown]
# **What you should see:** most of the dictionary stays as it is. A file says which rows moved, and codes those alone.
#
# Now the accuracies. A head is learnt here, and belongs to its expert; every other body answers under that head. The
# real encoder knows much before it is fine-tuned. So the share of the experts' accuracy, by which you judged so far,
# would flatter everything.
#
# ### Exercise 5 · What is kept of the gain? (easy, 5 minutes)
#
# Judge a model by the way that it has gone, from the pretrained model to the experts.


# %% tags=["exercise"]
def gain_kept(first: torch.Tensor, found: torch.Tensor, experts: torch.Tensor) -> float:
    """Accuracies (tasks,) of the pretrained model, of another one and of the experts -> what is kept of the gain.

    In the mean over the tasks: 0 for the pretrained model, 1 for the experts, below 0 for what does worse than both.
    """
    return ((found.mean() - first.mean()) / (experts.mean() - first.mean())).item()


# %%
gain_kept = check(gain_kept)
# hint("gain_kept")

# %%
table, vision = texts["results"]["headline"], json.loads((DATA / "mini/results.json").read_bytes())["headline"]
rows = {row["name"]: row for row in table["rows"]}
accuracies = {name: torch.tensor([row["accuracy"][t]["value"] for t in table["columns"]]) for name, row in rows.items()}
kept_by = {name: gain_kept(accuracies["zero-shot"], found, accuracies["experts"]) for name, found in accuracies.items()}

# %% [markdown]
# **Predict** before you go on: in which order do the merges, DTS and DRC stand here, and how far apart?

# %% tags=["answer"]
show(figures.mean_accuracies(table, "gain kept"))

# %% tags=["answer"]
known, gain_of_dts = rows["zero-shot"]["share of experts"], rows["DTS-T, 0.1"]["gain kept"]
seen_first = next(row["share of experts"] for row in rows_of(vision, "zero-shot"))
sentence = "Of the experts' accuracy the pretrained model has at least 10 points more than in vision."
claim("13-text-first", sentence, known["value"] - seen_first["value"], low=0.1, unit="points")
sentence = "On real texts, DTS over the pretrained model keeps 70 to 90 % of the gain at keep ratio 0.1."
spread = (gain_of_dts["low"], gain_of_dts["high"])
claim("13-text-kept", sentence, kept_by["DTS-T, 0.1"], interval=spread, low=0.7, high=0.9, unit="%")

# %% tags=["answer"]
in_each = lambda *kinds, **which: [row["gain kept"]["each"] for row in rows_of(texts["seeds"], *kinds, **which)]
of_dts, of_merges = in_each("DTS-T", "DTS-D", keep_ratio=0.1), in_each("base merge")
trainings = range(len(texts["seeds"]["seeds"]))
margin = min(min(row[i] for row in of_dts) - max(row[i] for row in of_merges) for i in trainings)
sentence = (
    "On real texts, in every training, each DTS row at keep ratio 0.1 keeps at least 15 points more of the gain than "
    "each merge."
)
claim("13-text-merges", sentence, margin, low=0.15, unit="points")
lost = max(min(row[i] for row in of_merges) for i in trainings)
sentence = "On real texts, in every training, the worst merge does worse than the pretrained model."
claim("13-text-harm", sentence, lost, high=0.0, unit="%")
(over_start,) = in_each("DTS-T", keep_ratio=0.1)
sentence = "In the worst training DTS over the pretrained model keeps at least 70 % of the gain, too."
claim("13-text-kept-again", sentence, min(over_start), low=0.7, unit="%")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# The order is that of vision: the best merges keep some of the gain, a small file for each task keeps much more, DRC
# keeps most. But look at the distances. Some merges do worse than the model that they started from. And DTS over the
# pretrained model loses a good part of what training won, where in vision hardly anything was missing.
#
# </details>
#
# Would more bytes mend that? These are methods at the same bytes, all over the pretrained model, with their KL
# divergence from the experts in nats: the mean of the trainings. The claims below hold in each of them.

# %% tags=["answer"]
points = {(row["name"], row["size"]): row["kl from experts"] for row in texts["curves"]["rows"]}
at = {key: found["value"] for key, found in points.items()}
in_training = [{key: found["each"][i] for key, found in points.items()} for i in trainings]
sizes = [size for name, size in at if name == "DTS-T"]
methods = list(dict.fromkeys(name for name, size in at if size in sizes))
for name in methods:
    print(f"{name:<14}", *(f"{size}: {at[name, size]:.4f}   " for size in sizes))

# %% tags=["answer"]
ratio = min(kl["DTS-T", sizes[-1]] / kl["DTS-T", sizes[0]] for kl in in_training)
sentence = (
    "On real texts, over the pretrained model, DTS files of seven times the bytes have at least 90 % of the smaller "
    "ones' KL divergence."
)
claim("13-text-plateau", sentence, ratio, low=0.9, unit="%")
ratio = max(kl["low-rank INT3", size] / kl["DTS-T", size] for size in sizes for kl in in_training)
sentence = (
    "On real texts, at 0.5 to 3.7 %, a truncated SVD rounded to three bits, ranks by a budget, has at most half of the "
    "KL divergence of DTS with one keep ratio."
)
claim("13-text-rounding", sentence, ratio, high=0.5)
others = [name for name in methods if name != "DRC-T"]
ratio = max(kl["DRC-T", size] / min(kl[name, size] for name in others) for size in sizes for kl in in_training)
sentence = (
    "On real texts, at 0.5 to 3.7 %, DRC is nearer to the experts by KL divergence than each other method measured."
)
claim("13-text-drc", sentence, ratio, high=1.0, unit="%")

# %% [markdown]
# <details><summary>What you should see</summary>
#
# Not here: four values per singular vector leave an error that no further component takes away. In vision this floor
# lay so low that few answers changed ([notebook 10](10_size_accuracy.ipynb)). Here it costs a good part of the gain, and
# a rounded SVD is nearer by more than it was there. So on a model of your own, question the four values first, and the
# number of components later. A better base helps, too: over TIES, DTS keeps more, and there larger files keep more yet.
#
# </details>
#
# **The paper's GLUE.** For CoLA it prints 76.98 with GPT-2 and 59.71 with RoBERTa-base. These are not two of a kind: by
# the paper's public code one is an accuracy, the other a Matthews correlation. `dts-mini reproduce --suite gpt2-glue`
# measures its table on published experts, with the rows that you know (`docs/how-to/language-suite.md`). Compare orders
# and gaps with it, not digits: these are other tasks, and another model.

# %% [markdown]
# ## Recap
#
# - Nothing in DTS has to change for a model that reads. At least 30 % of its parameters are words.
# - Heads stay with their tasks; bodies are merged and compressed. A tied matrix is stored once, and a transposed one
#   takes the same bytes.
# - Where the pretrained model knows much already, judge by the gain that is kept. On real texts DTS keeps most of it,
#   and rounding to three bits at the same bytes keeps more.
# - Heads as descriptors of tasks: with the start in them they all look alike; without it they differ clearly, and may
#   be wrong.
#
# **What would change our mind.** Models of full size: the real encoder of Step 6 is small, and its tasks are few. If
# large text models lost as little with four values as ours did in vision, what you saw there would be a matter of this
# encoder, and not of text.
#
# **In the paper.** It reports experts of RoBERTa and GPT-2 on GLUE, and 0.88 % per task for RoBERTa-base. None of our
# numbers here is one of GLUE. To compress and merge checkpoints of your own, see `docs/how-to/text-models.md`.

# %% [markdown]
# ## Quiz
#
# **1.** Why are bodies merged and heads not?
#
# <details><summary>Answer</summary>
#
# Bodies start from the same weights and have the same shapes, so their difference means something. Heads start at
# random and have a row for each label: those of two tasks need not even have the same shape.
# </details>
#
# **2.** A tool reports that a language model has a third more parameters than its paper says. What may have happened?
#
# <details><summary>Answer</summary>
#
# It counted a tied matrix twice: once as the embedding and once as the head.
# </details>
#
# **3.** The cosines of all descriptors are nearly the same. Can fusion weights help?
#
# <details><summary>Answer</summary>
#
# Hardly: the weights are nearly equal then, and the fused model is nearly the average. And if you make the descriptors
# differ more, they do not necessarily say more about the tasks.
# </details>
#
# **Next:** this is the last notebook. The [start](00_start_here.ipynb) has the suite to try your own ideas on.
