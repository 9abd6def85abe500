"""The text suite's zoo: fine-tunes the pretrained encoder whole, on one task after another.

``python -m dts_mini.suites.text.zoo`` makes the texts, fits a linear head on the frozen encoder for each task, and
trains an expert from there: body and head, into ``build/text``. What is there is not made again. A task is kept where
its expert answers validation texts better than the frozen encoder by ``ENOUGH``, with seed 0.
"""

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import joblib
import torch
from torch import Tensor
from torch.nn import functional as F

from dts_mini.core.errors import DTSError
from dts_mini.core.file import load_tensors, read_json, save_tensors, write_json
from dts_mini.core.state import State, fingerprint
from dts_mini.suites import places
from dts_mini.suites.linear import linear_head
from dts_mini.suites.streams import stream
from dts_mini.suites.text import lexicons, tasks
from dts_mini.suites.text.lexicons import Lexicons
from dts_mini.suites.text.model import Encoder, Pretrained
from dts_mini.suites.text.packages import PACKAGES, Wheels
from dts_mini.suites.text.tasks import CANDIDATES, Task
from dts_mini.suites.texts import END, in_batches

WORK = Path(os.environ.get("DTS_TEXT") or places.BUILD / "text")
STRENGTHS = (1.0, 10.0, 100.0, 1000.0)  # inverse strengths of the linear head's penalty; validation chooses
ENOUGH = 0.08


@dataclass(frozen=True)
class Recipe:
    """Every number of the training but the texts a task is trained on, which the task says."""

    epochs: int = 3
    batch: int = 32
    rate: float = 2e-4
    head_rate: float = 1e-3
    warm_up: float = 0.1  # the share of the steps in which the rates rise
    smoothing: float = 0.1
    most: int = 10_000  # training texts a task
    validation: int = 400
    test: int = 800


class Zoo:
    """A folder of texts, experts and what is known of them; ``wheels`` lie in it, too, unless they are elsewhere.

    ``candidates`` and ``pretrained`` are others in the tests, which need no package.
    """

    def __init__(
        self,
        work: str | Path = WORK,
        recipe: Recipe = Recipe(),
        candidates: Sequence[Task] = CANDIDATES,
        pretrained: Pretrained | None = None,
        sources: Lexicons | None = None,
    ) -> None:
        self.work, self.recipe = Path(work), recipe
        self.candidates = {task.name: task for task in candidates}
        wheels = Wheels(self.work / "packages")
        self.pretrained, self.sources = pretrained or Pretrained(wheels), sources or Lexicons(wheels)

    def folder(self, seed: int) -> Path:
        return self.work / f"seed-{seed}"

    def texts(self, task: str, split: str, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Token ids (n, length), padded with zeros, and labels (n,) of a split; training texts are of a seed."""
        about, seed = self.candidates[task], seed if split == "train" else 0
        wanted = {"train": min(about.texts, self.recipe.most)} | asdict(self.recipe)
        key = [_made_by(), task, split, wanted[split], seed]
        path = self.work / "texts" / f"{split}-{seed}-{_slug(task)}-{_digest(key)}.safetensors"
        if not path.exists():
            found, labels = about.examples(self.sources, split, wanted[split], seed)
            path.parent.mkdir(parents=True, exist_ok=True)
            tensors = {"ids": self.pretrained.tokens(found), "labels": torch.tensor(labels)}
            save_tensors(tensors, path, overwrite=True)
        held = load_tensors(path)
        return held["ids"], held["labels"]

    def theta_0(self) -> dict[str, Tensor]:
        """The pretrained encoder."""
        path = self.work / "theta_0.safetensors"
        if not path.exists():
            state = self.pretrained.state()
            self.work.mkdir(parents=True, exist_ok=True)
            save_tensors({name: x.half() for name, x in state.items()}, path, overwrite=True)
        return {name: x.float() for name, x in load_tensors(path).items()}

    def encoder(self) -> Encoder:
        return Encoder(self.pretrained.config).eval()

    def body(self, task: str, seed: int) -> dict[str, Tensor]:
        """An expert's state dict, without its head."""
        return {name: x.float() for name, x in load_tensors(self._path(task, seed, "expert")).items()}

    def heads(self, task: str, seed: int) -> dict[str, Tensor]:
        """Two heads (classes, d): the ``expert``'s, and the ``frozen`` encoder's."""
        return load_tensors(self._path(task, seed, "heads"))

    def _path(self, task: str, seed: int, what: str) -> Path:
        return self.folder(seed) / f"{what}_{_slug(task)}.{'json' if what == 'about' else 'safetensors'}"

    def about(self, task: str, seed: int) -> dict | None:
        """What is known of an expert: its accuracies on validation, frozen and fine-tuned; None before it is made."""
        path = self._path(task, seed, "about")
        return read_json(path) if path.exists() else None

    def made_from(self, task: str, seed: int) -> str:
        """A digest of all that an expert depends on."""
        texts = {
            f"{split} {name}": x
            for split in ("train", "validation")
            for name, x in zip("xy", self.texts(task, split, seed), strict=True)
        }
        return _digest([asdict(self.recipe), seed, fingerprint(self.theta_0()), fingerprint(texts)])

    def train(self, task: str, seed: int) -> dict:
        """Makes an expert, unless it is there; returns what is known of it. On one thread."""
        torch.set_num_threads(1)
        made_from = self.made_from(task, seed)
        if (found := self.about(task, seed)) and found["made from"] == made_from:
            return found
        start, theta_0, encoder = time.process_time(), self.theta_0(), self.encoder()
        encoder.load_state_dict(theta_0)
        frozen = self._linear_head(encoder, task, seed)
        head = fine_tune(encoder, frozen, *self.texts(task, "train", seed), self.recipe, (task, seed))
        body = {name: x.detach().half() for name, x in encoder.state_dict().items()}
        self.folder(seed).mkdir(parents=True, exist_ok=True)
        save_tensors(body, self._path(task, seed, "expert"), overwrite=True)
        save_tensors({"expert": head, "frozen": frozen}, self._path(task, seed, "heads"), overwrite=True)
        ids, labels = self.texts(task, "validation")
        kinds = {"frozen": (theta_0, frozen), "expert": (self.body(task, seed), head)}
        right = {name: self._accuracy(encoder, *pair, ids, labels) for name, pair in kinds.items()}
        moved = (body["embeddings.word_embeddings.weight"] != theta_0["embeddings.word_embeddings.weight"].half()).any(
            1
        )
        about = {"task": task, "seed": seed, **right, "rows moved": round(moved.float().mean().item(), 4)}
        about |= {
            "cpu seconds": round(time.process_time() - start),
            "recipe": asdict(self.recipe),
            "made from": made_from,
        }
        write_json(about, self._path(task, seed, "about"), overwrite=True)  # last: what has it is whole
        return about

    def _linear_head(self, encoder: Encoder, task: str, seed: int) -> Tensor:
        """Multinomial logistic regression (classes, d) on unit embeddings of the training texts, without a bias."""
        (x, y), (held, truth) = self.texts(task, "train", seed), self.texts(task, "validation")
        train, validation = (embedded(encoder, x), y), (embedded(encoder, held), truth)
        return linear_head(train, validation, len(self.candidates[task].classes), STRENGTHS, steps=1_000)

    def _accuracy(self, encoder: Encoder, state: State, head: Tensor, ids: Tensor, labels: Tensor) -> float:
        encoder.load_state_dict(state)
        return round(((embedded(encoder, ids) @ head.T).argmax(1) == labels).float().mean().item(), 4)

    def kept(self) -> tuple[str, ...]:
        """The tasks whose expert of seed 0 gains enough on validation; DTSError while experts are missing."""
        found = {task: self.about(task, 0) for task in self.candidates}
        if missing := [task for task, about in found.items() if about is None]:
            raise DTSError(
                f"{self.folder(0)}: has no expert of {', '.join(missing)}; train the text suite with make text"
            )
        return tuple(task for task, about in found.items() if about["expert"] - about["frozen"] >= ENOUGH - 1e-9)


@torch.no_grad()
def embedded(encoder: Encoder, ids: Tensor) -> Tensor:
    """Unit embeddings (n, d) of texts (n, length); those of like length go through the encoder together."""
    encoder.eval()
    return F.normalize(in_batches(lambda few, mask: encoder(few), ids.masked_fill(ids == 0, END)), dim=1)


def fine_tune(encoder: Encoder, head: Tensor, ids: Tensor, labels: Tensor, recipe: Recipe, words: tuple) -> Tensor:
    """Trains the encoder, all of it, and the head from ``head`` (classes, d), which it returns; ``words`` name the run.

    Batches hold texts of about one length. Matrix products are in bfloat16. No weight decay: the embeddings of words
    that no training text has stay as they are.
    """
    torch.manual_seed(stream("text", *words).initial_seed())  # of dropout
    head = head.clone().requires_grad_()
    groups = [{"params": list(encoder.parameters()), "lr": recipe.rate}, {"params": [head], "lr": recipe.head_rate}]
    optimiser = torch.optim.AdamW(groups, weight_decay=0.0, fused=True)
    order = [part for epoch in range(recipe.epochs) for part in batches(ids, recipe.batch, (*words, epoch))]
    rates = [group["lr"] for group in groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, rates, total_steps=len(order) + 1, pct_start=recipe.warm_up, cycle_momentum=False
    )
    encoder.train()
    for part in order:
        with torch.autocast("cpu", torch.bfloat16):
            embeddings = encoder(ids[part])
        logits = F.normalize(embeddings.float(), dim=1) @ head.T
        optimiser.zero_grad()
        F.cross_entropy(logits, labels[part], label_smoothing=recipe.smoothing).backward()
        optimiser.step()
        schedule.step()
    encoder.eval()
    return head.detach()


def batches(ids: Tensor, size: int, words: tuple) -> list[Tensor]:
    """All texts once, in batches of about one length each, in an order that ``words`` name."""
    g = stream("text batches", *words)
    order, lengths, found = torch.randperm(len(ids), generator=g), (ids != 0).sum(1), []
    for pool in order.split(16 * size):
        found += pool[lengths[pool].argsort(stable=True)].split(size)
    return [found[at] for at in torch.randperm(len(found), generator=g)]


def _digest(data: object) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


def _slug(task: str) -> str:
    return task.replace(" ", "_")


def _made_by() -> str:
    """What makes texts: the code that does, and the packages that it reads."""
    code = [Path(module.__file__).read_text() for module in (lexicons, tasks)]
    return _digest([code, [package.sha256 for package in PACKAGES.values()]])


def train(zoo: Zoo, seed: int, jobs: int = 1, only: Sequence[str] = ()) -> dict[str, dict]:
    """The experts of a seed, of all candidates with seed 0 and of the tasks that were kept with another."""
    zoo.theta_0()
    wanted = [task for task in (zoo.kept() if seed else zoo.candidates) if not only or task in only]
    for task in wanted:  # here, so that no two processes read the same lexicons
        for split in tasks.SPLITS:
            zoo.texts(task, split, seed)
    found = {}
    work = (joblib.delayed(zoo.train)(task, seed) for task in wanted)
    for task, about in zip(wanted, joblib.Parallel(n_jobs=jobs, return_as="generator")(work), strict=True):
        found[task] = about
        frozen, expert, seconds = 100 * about["frozen"], 100 * about["expert"], about["cpu seconds"]
        print(
            f"  {task}, seed {seed}: frozen {frozen:.1f} %, expert {expert:.1f} % of validation, {seconds} s",
            flush=True,
        )
    return found


def main(arguments: list[str] | None = None) -> int:
    """Trains the text suite's experts, or goes on with what was begun."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--work", type=Path, default=WORK, help="packages, texts, experts (also: DTS_TEXT)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="experts trained at a time, one thread each")
    parser.add_argument("--tasks", nargs="*", default=(), help="these alone")
    options = parser.parse_args(arguments)
    try:
        for seed in options.seeds:
            train(Zoo(options.work), seed, options.jobs, options.tasks)
    except DTSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":  # by its real name, so that the other processes find what they are sent
    from dts_mini.suites.text.zoo import main

    sys.exit(main())
