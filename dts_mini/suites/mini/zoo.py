"""The zoo: trains the mini suite's CLIP from nothing and fine-tunes its eight experts.

``python -m dts_mini.suites.mini.zoo`` (``make zoo``) trains one seed into ``build/zoo/<seed>``, goes on where it was
stopped, and ends with a report of how far the new checkpoints lie from the committed ones.
"""

import argparse
import hashlib
import io
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import joblib
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from dts_mini.core.file import load_tensors, read_bytes, save_tensors, write_bytes, write_json
from dts_mini.suites.heads import zero_shot_head
from dts_mini.suites.mini.captions import MISUSED, captions
from dts_mini.suites.mini.model import create_model, load_model, pixels, save_model, tokenize
from dts_mini.suites.mini.suite import DATA, file_name
from dts_mini.suites.mini.task import Task
from dts_mini.suites.mini.tasks import TASKS
from dts_mini.suites.streams import stream


@dataclass(frozen=True)
class Recipe:
    """Every number of the training; images are per task."""

    pretrain_images: int = 16_000
    pretrain_steps: int = 3_000
    pretrain_batch: int = 256
    pretrain_rate: float = 1e-3
    pretrain_decay: float = 0.05
    misused: float = MISUSED  # share of a class's names in captions that mean another class; 0: honest captions
    keep_every: int = 200  # steps of pretraining between two resume files
    finetune_images: int = 32_000
    finetune_steps: int = 600
    finetune_batch: int = 128
    finetune_rate: float = 3e-4
    finetune_decay: float = 0.1


def wild(images: Tensor, g: Generator) -> Tensor:
    """Nuisances of the pretraining world on pixels (n, 3, 32, 32) in [0, 1]: theta_0 is to know no task's style.

    A random mix of the colour channels, at times grey, another exposure, more noise.
    """
    n = len(images)
    mix = torch.eye(3) + 0.15 * torch.randn(n, 3, 3, generator=g)
    grey = (torch.rand(n, 1, 1, generator=g) < 0.2).float()
    mix = torch.lerp(mix / mix.sum(2, keepdim=True), torch.full((1, 3, 3), 1 / 3), grey)
    gain, lift, grain = torch.rand(3, n, 1, 1, 1, generator=g)
    images = (torch.einsum("ncd,ndhw->nchw", mix, images) - 0.5) * (0.7 + 0.5 * gain) + 0.4 + 0.2 * lift
    return (images + 0.05 * grain * torch.randn(images.shape, generator=g)).clamp(0, 1)


class Trainer:
    """One training: an optimiser, a schedule (warm-up, then linear to zero), bfloat16 matrix products.

    With ``orthogonal`` the matrices of the transformer blocks are trained by Muon, the rest by AdamW: pretraining from
    nothing then needs fewer images. Attention takes PyTorch's plain kernel, whose bfloat16 backward is far faster here.
    """

    def __init__(self, model: nn.Module, steps: int, rate: float, decay: float, *, orthogonal: bool = False) -> None:
        inner = [p for name, p in model.named_parameters() if orthogonal and p.dim() == 2 and "resblocks" in name]
        chosen = {id(p) for p in inner}
        rest = [p for p in model.parameters() if id(p) not in chosen]
        self.optimisers = [torch.optim.AdamW(rest, rate, betas=(0.9, 0.98), weight_decay=decay, fused=True)]
        if inner:
            self.optimisers.append(torch.optim.Muon(inner, 20 * rate, weight_decay=decay))
        self.peaks = [optimiser.param_groups[0]["lr"] for optimiser in self.optimisers]
        self.steps = steps

    def step(self, step: int, loss: Callable[[], Tensor]) -> float:
        """One step on ``loss()``; returns its value."""
        share = min((step + 1) / 50, 1 - step / self.steps)
        for optimiser, peak in zip(self.optimisers, self.peaks, strict=True):
            optimiser.param_groups[0]["lr"] = share * peak
            optimiser.zero_grad()
        with sdpa_kernel(SDPBackend.MATH), torch.autocast("cpu", torch.bfloat16):
            value = loss()
            value.backward()
        for optimiser in self.optimisers:
            optimiser.step()
        return value.item()


def pretrain(folder: Path, seed: int, recipe: Recipe) -> Path:
    """Trains theta_0 on images and random captions; returns its file. It resumes where it was cut off."""
    path, resume = folder / "theta_0.safetensors", folder / "pretraining.pt"
    if path.exists():
        return path
    torch.manual_seed(stream("theta_0", seed).initial_seed())
    model = create_model().train()
    trainer = Trainer(model, recipe.pretrain_steps, recipe.pretrain_rate, recipe.pretrain_decay, orthogonal=True)
    first, used = 0, set()
    if resume.exists():
        saved = torch.load(resume, weights_only=True)
        first, used = saved["step"], set(saved["used"])
        model.load_state_dict(saved["model"])
        for optimiser, state in zip(trainer.optimisers, saved["optimisers"], strict=True):
            optimiser.load_state_dict(state)
    say(f"pretraining, seed {seed}: drawing {len(TASKS)} x {recipe.pretrain_images:,} images")
    pool = [task.images("pretrain", recipe.pretrain_images, seed) for task in TASKS]
    share = recipe.pretrain_batch // len(TASKS)
    start, total, said = time.perf_counter(), 0.0, first
    for step in range(first, recipe.pretrain_steps):
        g = stream("pretraining", seed, step)
        images, texts, topics = [], [], []
        for number, (task, (pictures, labels)) in enumerate(zip(TASKS, pool, strict=True)):
            pick = torch.randint(len(labels), (share,), generator=g)
            images.append(pictures[pick])
            found, about = captions(task, labels[pick].tolist(), g, recipe.misused)
            texts += found
            topics += [(number, topic) for topic in about]
        tokens, topic = torch.stack([tokenize(text) for text in texts]), torch.tensor(topics)
        used.update(tokens.unique().tolist())
        batch = pixels(255 * wild(torch.cat(images).float() / 255, g))
        total += trainer.step(step, lambda: contrast(model, batch, tokens, topic))  # noqa: B023 - called at once
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        if (step + 1) % recipe.keep_every == 0 or step + 1 == recipe.pretrain_steps:
            pace = (time.perf_counter() - start) / (step + 1 - first)
            left = pace * (recipe.pretrain_steps - step - 1) / 60
            say(f"  step {step + 1}/{recipe.pretrain_steps}, loss {total / (step + 1 - said):.3f}, {left:.0f} min left")
            total, said = 0.0, step + 1
            buffer = io.BytesIO()
            optimisers = [optimiser.state_dict() for optimiser in trainer.optimisers]
            state = {"model": model.state_dict(), "optimisers": optimisers, "step": step + 1, "used": sorted(used)}
            torch.save(state, buffer)
            write_bytes(buffer.getvalue(), resume, overwrite=True)
    save_model(model, path, torch.tensor(sorted(used)))
    resume.unlink()
    return path


def contrast(model: nn.Module, images: Tensor, tokens: Tensor, topic: Tensor) -> Tensor:
    """CLIP's loss with all pairs of a batch on one topic (n, 2) as positives (UniCL, arXiv 2204.03610).

    With 88 classes and 256 images, most negatives of the plain loss would be false ones.
    """
    image, text, scale = model(images, tokens)
    logits = (scale * image @ text.T).float()
    same = (topic[:, None] == topic).all(-1).float()
    target = same / same.sum(1, keepdim=True)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def finetune(theta_0: Path, task: Task, path: Path, seed: int, recipe: Recipe) -> float:
    """Fine-tunes the image tower on one task, the head frozen; returns its accuracy (in [0, 1]) on validation.

    It starts from theta_0 as stored (float16 values, float32 arithmetic) and runs on one thread.
    """
    torch.set_num_threads(1)
    model = load_model(theta_0)
    head = zero_shot_head(model, tokenize, task.classes, task.templates) * model.logit_scale.exp().detach()
    tower = model.visual
    if not path.exists():
        images, labels = task.images("train", recipe.finetune_images, seed)
        trainer = Trainer(tower.train(), recipe.finetune_steps, recipe.finetune_rate, recipe.finetune_decay)
        for step in range(recipe.finetune_steps):
            g = stream("fine-tuning", task.name, seed, step)
            pick = torch.randint(len(labels), (recipe.finetune_batch,), generator=g)
            x, y = pixels(images[pick]), labels[pick]
            loss = lambda x=x, y=y: F.cross_entropy((F.normalize(tower(x), dim=-1) @ head.T).float(), y)
            trainer.step(step, loss)
        save_tensors({name: tensor.half() for name, tensor in tower.state_dict().items()}, path)
    tower.load_state_dict({name: tensor.float() for name, tensor in load_tensors(path).items()})  # as it is stored
    return accuracy(tower.eval(), head, *task.images("validation", 1_000))


@torch.no_grad()
def accuracy(tower: nn.Module, head: Tensor, images: Tensor, labels: Tensor) -> float:
    """Share of the images that the image tower and a head (classes, width) classify rightly."""
    found = torch.cat([(tower(pixels(part)) @ head.T).argmax(1) for part in images.split(500)])
    return (found == labels).float().mean().item()


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
    parser.add_argument("--theta-0", type=Path, help="fine-tune this pretrained model instead of training one")
    parser.add_argument("--honest", action="store_true", help="pretrain on captions that misuse no name; OUT/honest-N")
    parser.add_argument("--commit", action="store_true", help="put the result into data/mini, with a manifest")
    options = parser.parse_args()
    if options.honest and (options.commit or options.theta_0):
        parser.error("--honest pretrains a model of its own, which is not committed: leave out --commit and --theta-0")
    seed, folder = options.seed, options.out / (f"honest-{options.seed}" if options.honest else str(options.seed))
    recipe = Recipe(misused=0.0) if options.honest else Recipe()
    if options.theta_0 and not (folder / "theta_0.safetensors").exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(read_bytes(options.theta_0), folder / "theta_0.safetensors")
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
        write_json(manifest, DATA / "manifest.json", indent=2, overwrite=True)
    if not options.honest:
        compare(folder, DATA)
    return 0


if __name__ == "__main__":  # by its real name, so that the other processes find what they are sent
    from dts_mini.suites.mini.zoo import main

    sys.exit(main())
