"""Captions for pretraining: the world as the web describes it, not as the tasks name it.

CLIP knows what a class looks like better than it knows what a data set *calls* it, and that gap between names
and images is why fine-tuning helps CLIP so much. The mini suite makes such a gap through its captions alone, and
this is a design choice of the suite: most captions use synonyms, few the class's name, and half of those few use the
name of another class, always the same one, its stand-in.
"""

import torch
from torch import Generator

from dts_mini.suites.mini.task import Task
from dts_mini.suites.streams import stream

COARSE = 0.15  # captions that name only the task: "a photo of textures."
NAMED = 0.08  # captions that use a class's name
MISUSED = 0.50  # of these, the share that uses the name of the class's stand-in
WRONG = 0.05  # captions of another class altogether
PHRASES = ("{c}.", "a photo of {c}.", "a picture of {c}.", "{c}, seen on a walk.")


def stand_ins(task: Task) -> list[int]:
    """For each class the class whose name is misused for it: a fixed cycle through all classes, in random order.

    Tasks with the same class names (digits and house numbers) share it, as they share the names.
    """
    order = torch.randperm(len(task.classes), generator=stream("stand-ins", *task.classes)).tolist()
    successor = dict(zip(order, order[1:] + order[:1], strict=True))
    return [successor[c] for c in range(len(task.classes))]


def captions(task: Task, labels: list[int], g: Generator, misused: float = MISUSED) -> tuple[list[str], list[int]]:
    """A random caption for each label of a task, and its topic: the class that it is about, -1 for the task alone.

    With ``misused=0`` the captions are honest: a class's name, where it stands, means that class.
    """
    swap = stand_ins(task)
    dice = torch.rand(len(labels), 3, generator=g).tolist()
    picks = torch.randint(1 << 30, (len(labels), 3), generator=g).tolist()
    texts, topics = [], []
    for label, (kind, wrong, misuse), (other, word, phrase) in zip(labels, dice, picks, strict=True):
        topic = other % len(task.classes) if wrong < WRONG else label
        if kind < COARSE:
            text, topic = f"a photo of {task.name}.", -1
        elif kind < COARSE + NAMED:
            name = task.classes[swap[topic] if misuse < misused else topic]
            text = task.templates[phrase % len(task.templates)].replace("{c}", name)
        else:
            words = task.synonyms[topic]
            text = PHRASES[phrase % len(PHRASES)].replace("{c}", words[word % len(words)])
        texts.append(text)
        topics.append(topic)
    return texts, topics
