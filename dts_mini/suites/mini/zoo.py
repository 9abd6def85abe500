"""The zoo: trains the mini suite's CLIP from nothing and fine-tunes its eight experts.

``python -m dts_mini.suites.mini.zoo`` (``make zoo``) trains one seed into ``build/zoo/<seed>``, goes on where it was
stopped, and ends with a report of how far the new checkpoints lie from the committed ones.
"""

import argparse
import hashlib
import io
import json
import math
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import joblib
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from dts_mini.core.file import load_tensors, save_tensors, write_bytes
from dts_mini.suites.heads import zero_shot_head
from dts_mini.suites.mini.captions import captions
from dts_mini.suites.mini.model import create_model, load_model, pixels, save_model, tokenize
from dts_mini.suites.mini.suite import DATA, file_name
from dts_mini.suites.mini.task import Task
from dts_mini.suites.mini.tasks import TASKS
from dts_mini.suites.streams import stream


@dataclass(frozen=True)
class Recipe:
    """Every number of the training; images are per task."""

    pretrain_images: int = 10_000
    pretrain_steps: int = 2_000
    pretrain_batch: int = 256
    pretrain_rate: float = 1.5e-3
    pretrain_decay: float = 0.05
    finetune_images: int = 8_000
    finetune_steps: int = 500
    finetune_batch: int = 128
    finetune_rate: float = 2e-4
    finetune_decay: float = 0.1


def wild(images: Tensor, g: Generator) -> Tensor:
    """Nuisances of the pretraining world on pixels (n, 3, 32, 32) in [0, 1]: so that theta_0 knows no task's style.

    A random mix of the colour channels, greys, negatives, other exposures, noise, and a patch of another image.
    """
    n = len(images)
    mix = torch.eye(3) + 0.25 * torch.randn(n, 3, 3, generator=g)
    grey = (torch.rand(n, 1, 1, generator=g) < 0.2).float()
    mix = torch.lerp(mix / mix.sum(2, keepdim=True), torch.full((1, 3, 3), 1 / 3), grey)
    images = torch.einsum("ncd,ndhw->nchw", mix, images)
    negative = torch.rand(n, 1, 1, 1, generator=g) < 0.1
    images = torch.where(negative, 1 - images, images)
    gain, lift = torch.rand(2, n, 1, 1, 1, generator=g)
    images = (images - 0.5) * (0.6 + 0.7 * gain) + 0.4 + 0.2 * lift
    x, y, w, h = torch.randint(4, 14, (4, n, 1, 1, 1), generator=g)
    column, row = torch.arange(32), torch.arange(32)[:, None]
    x, y = x * 2 - 4, y * 2 - 4
    patch = (column >= x) & (column < x + w) & (row >= y) & (row < y + h) & (torch.rand(n, 1, 1, 1, generator=g) < 0.25)
    images = torch.where(patch, images.roll(1, 0), images)
    return images + 0.08 * torch.rand(n, 1, 1, 1, generator=g) * torch.randn(images.shape, generator=g)


def pretrain(folder: Path, seed: int, recipe: Recipe) -> Path:
    """Trains theta_0 by the contrastive loss of CLIP over random captions; returns its file.

    Equal captions of a batch are positives of each other. A resume file is kept every 200 steps.
    """
    path, resume = folder / "theta_0.safetensors", folder / "pretraining.pt"
    if path.exists():
        return path
    torch.manual_seed(stream("theta_0", seed).initial_seed())
    model = create_model().train()
    optimiser = torch.optim.AdamW(
        model.parameters(), recipe.pretrain_rate, betas=(0.9, 0.98), weight_decay=recipe.pretrain_decay, fused=True
    )
    first, used = 0, set()
    if resume.exists():
        saved = torch.load(resume, weights_only=True)
        first, used = saved["step"], set(saved["used"])
        model.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
    say(f"pretraining, seed {seed}: drawing {len(TASKS)} x {recipe.pretrain_images:,} images")
    pool = [task.images("pretrain", recipe.pretrain_images, seed) for task in TASKS]
    share = recipe.pretrain_batch // len(TASKS)
    start, total = time.perf_counter(), 0.0
    for step in range(first, recipe.pretrain_steps):
        set_rate(optimiser, recipe.pretrain_rate, step, recipe.pretrain_steps)
        g = stream("pretraining", seed, step)
        images, texts = [], []
        for task, (pictures, labels) in zip(TASKS, pool, strict=True):
            pick = torch.randint(len(labels), (share,), generator=g)
            images.append(pictures[pick])
            texts += captions(task, labels[pick].tolist(), g)
        tokens = torch.stack([tokenize(text) for text in texts])
        used.update(tokens.unique().tolist())
        shuffled = torch.randperm(len(texts), generator=g)
        batch = wild(torch.cat(images)[shuffled].float() / 255, g).clamp(0, 1)
        image, text, scale = model(pixels(batch * 255), tokens[shuffled])
        same = (tokens[shuffled, None] == tokens[None, shuffled]).all(-1).float()
        logits = scale * image @ text.T
        target = same / same.sum(1, keepdim=True)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        total += loss.item()
        if (step + 1) % 200 == 0 or step + 1 == recipe.pretrain_steps:
            pace = (time.perf_counter() - start) / (step + 1 - first)
            left = pace * (recipe.pretrain_steps - step - 1) / 60
            say(f"  step {step + 1}/{recipe.pretrain_steps}, loss {total / 200:.3f}, {left:.0f} min left")
            total = 0.0
            buffer = io.BytesIO()
            state = {"model": model.state_dict(), "optimiser": optimiser.state_dict()}
            torch.save(state | {"step": step + 1, "used": sorted(used)}, buffer)
            write_bytes(buffer.getvalue(), resume, overwrite=True)
    save_model(model, path, torch.tensor(sorted(used)))
    resume.unlink()
    return path


def finetune(theta_0: Path, task: Task, path: Path, seed: int, recipe: Recipe) -> float:
    """Fine-tunes the image tower on one task, the head frozen; returns its accuracy (in [0, 1]) on validation.

    It starts from theta_0 as stored (float16 values, float32 arithmetic) and runs on one thread.
    """
    torch.set_num_threads(1)
    model = load_model(theta_0)
    head = zero_shot_head(model, tokenize, task.classes, task.templates) * model.logit_scale.exp().detach()
    tower = model.visual
    if path.exists():
        tower.load_state_dict({name: tensor.float() for name, tensor in load_tensors(path).items()})
        return accuracy(tower, head, *task.images("validation", 1_000))
    images, labels = task.images("train", recipe.finetune_images, seed)
    optimiser = torch.optim.AdamW(
        tower.parameters(), recipe.finetune_rate, weight_decay=recipe.finetune_decay, fused=True
    )
    tower.train()
    for step in range(recipe.finetune_steps):
        set_rate(optimiser, recipe.finetune_rate, step, recipe.finetune_steps)
        pick = torch.randint(
            len(labels), (recipe.finetune_batch,), generator=stream("fine-tuning", task.name, seed, step)
        )
        loss = F.cross_entropy(F.normalize(tower(pixels(images[pick])), dim=-1) @ head.T, labels[pick])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    save_tensors({name: tensor.half() for name, tensor in tower.state_dict().items()}, path)
    return accuracy(tower.eval(), head, *task.images("validation", 1_000))


@torch.no_grad()
def accuracy(tower: torch.nn.Module, head: Tensor, images: Tensor, labels: Tensor) -> float:
    """Share of the images that the image tower and a head (classes, width) classify rightly."""
    found = torch.cat([(tower(pixels(part)) @ head.T).argmax(1) for part in images.split(500)])
    return (found == labels).float().mean().item()


def set_rate(optimiser: torch.optim.Optimizer, peak: float, step: int, steps: int, warmup: int = 50) -> None:
    """A linear warm-up, then a cosine down to zero."""
    rate = peak * min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * step / steps)))
    for group in optimiser.param_groups:
        group["lr"] = rate


def say(text: str) -> None:
    print(text, flush=True)


def train(seed: int, folder: Path, recipe: Recipe, jobs: int) -> dict[str, float]:
    """theta_0 and the eight experts of one seed, into ``folder``; returns their accuracies on validation."""
    folder.mkdir(parents=True, exist_ok=True)
    theta_0 = pretrain(folder, seed, recipe)
    say(f"fine-tuning {len(TASKS)} experts, {jobs} at a time")
    work = (joblib.delayed(finetune)(theta_0, t, folder / file_name(t.name), seed, recipe) for t in TASKS)
    found = {}
    start = time.perf_counter()
    for task, result in zip(TASKS, joblib.Parallel(n_jobs=jobs, return_as="generator")(work), strict=True):
        found[task.name] = result
        say(f"  {task.name}: {100 * result:.1f} % of validation, {time.perf_counter() - start:.0f} s")
    return found


def compare(new: Path, old: Path) -> None:
    """Prints how far the task vectors of two zoos lie apart, each as a share of the old one's length."""
    if not (old / "theta_0.safetensors").exists() or new.resolve() == old.resolve():
        return
    say(f"distance from the checkpoints in {old}, as a share of the task vector's length")
    bases = [load_model(folder / "theta_0.safetensors").visual.state_dict() for folder in (new, old)]
    for task in TASKS:
        experts = [load_tensors(folder / file_name(task.name)) for folder in (new, old)]
        vectors = [
            torch.cat([(expert[name].float() - base[name]).flatten() for name in base])
            for expert, base in zip(experts, bases, strict=True)
        ]
        far = ((vectors[0] - vectors[1]).norm() / vectors[1].norm()).item()
        alike = F.cosine_similarity(vectors[0], vectors[1], dim=0).item()
        say(f"  {task.name}: distance {far:.3f}, cosine {alike:.3f}")


def main() -> int:
    """Trains the mini suite's model and experts from nothing, or goes on with what was begun."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seed", type=int, default=0, help="seed of everything: images, initial weights, batches")
    parser.add_argument(
        "--out", type=Path, default=Path("build/zoo"), help="where the zoos are kept, one folder a seed"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="experts trained at a time, one thread each")
    parser.add_argument("--commit", action="store_true", help="put the result into data/mini, with a manifest")
    options = parser.parse_args()
    seed, folder = options.seed, options.out / str(options.seed)
    recipe = Recipe()
    found = train(seed, folder, recipe, options.jobs)
    say(f"validation accuracy {100 * sum(found.values()) / len(found):.1f} % in the mean; files in {folder}")
    if options.commit:
        names = ["theta_0.safetensors", *(file_name(task.name) for task in TASKS)]
        DATA.mkdir(parents=True, exist_ok=True)
        for name in names:
            write_bytes((folder / name).read_bytes(), DATA / name, overwrite=True)
        manifest = {
            "made by": f"python -m dts_mini.suites.mini.zoo --seed {seed} --commit",
            "seed": seed,
            "recipe": asdict(recipe),
            "torch": torch.__version__,
            "files": {
                name: {"sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest()}
                | ({"validation accuracy": round(found[task], 4)} if task else {})
                for name, task in zip(names, [None, *found], strict=True)
            },
        }
        write_bytes((json.dumps(manifest, indent=2) + "\n").encode(), DATA / "manifest.json", overwrite=True)
    compare(folder, DATA)
    return 0


if __name__ == "__main__":
    sys.exit(main())
