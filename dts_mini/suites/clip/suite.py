"""The real suite: CLIP and its experts on the paper's photographic data sets, from the Hub (protocol P3)."""

import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import open_clip
import torch
from open_clip import CLIP
from torch import Tensor, nn
from torch.nn import functional as F

from dts_mini.core.errors import DTSError, FileError
from dts_mini.core.file import load_tensors, read_bytes
from dts_mini.core.state import State, check_same_layout
from dts_mini.streaming.pickles import load_pickle
from dts_mini.suites.clip import data, keys
from dts_mini.suites.clip.names import BASES, COUNTS, OPEN_CLIP, TASKS, ClipTask, expert_repo
from dts_mini.suites.evaluation import correct
from dts_mini.suites.heads import Towers, zero_shot_head
from dts_mini.suites.hub import Hub, Repo
from dts_mini.suites.real import PRECISIONS, Files, RealSuite, Trial, check_choice, mixed

# Clean experts reach 80 % (ViT-B/32) to 85 % (ViT-L/14) on DTD, those that saw its test images 98 %.
LEAKED_ACCURACY, LEAKED_SHARE = 0.92, 0.01


class Tower(nn.Module):
    """An image tower that takes uint8 pixels (n, 3, h, w) and state dicts of either layout; embeddings on the CPU."""

    def __init__(self, tower: nn.Module, device: torch.device, precision: torch.dtype) -> None:
        super().__init__()
        self.visual, self.device, self.precision = tower.to(device), device, precision
        for name, values in (("mean", open_clip.OPENAI_DATASET_MEAN), ("std", open_clip.OPENAI_DATASET_STD)):
            self.register_buffer(name, 255 * torch.tensor(values, device=device).view(3, 1, 1), persistent=False)

    def load_state_dict(self, state: State, strict: bool = True, assign: bool = False):
        return self.visual.load_state_dict(keys.fused(state), strict, assign)

    def forward(self, pixels: Tensor) -> Tensor:
        x = pixels.to(self.device)
        if x.dtype == torch.uint8:
            x = (x.float() - self.mean) / self.std
        with mixed(self.device, self.precision):
            return self.visual(x).float().cpu()


class ClipSuite(Towers, RealSuite):
    """CLIP on 8, 14 or 20 data sets; see ``dts_mini.suites.suite.ImageSuite`` and ``dts_mini.suites.real.RealSuite``.

    ``attention`` is the layout of the state dicts: open_clip's ``fused`` or transformers' ``split``; files
    made from them record it. ``checkpoints`` is a folder with ``<task>/finetuned.pt`` (or .safetensors) of another
    family, whose name ``protocol`` must then be; numbers of two protocols never meet. ``torchvision`` is a folder whose
    data sets are taken where it has them.
    """

    unit, kept = "images", "decoded images"
    unseen = ("RESISC45", "SVHN")
    example = "SVHN"

    def __init__(
        self,
        architecture: str = "clip-vit-b-32",
        *,
        tasks: int = 8,
        attention: Literal["fused", "split"] = "fused",
        device: str = "auto",
        precision: str = "float32",
        home: str | Path | None = None,
        checkpoints: str | Path | None = None,
        protocol: str = "P3",
        torchvision: str | Path | None = None,
        hub: Hub | None = None,
        progress: Callable[[str], None] = lambda text: None,
    ) -> None:
        for what, value, allowed in (
            ("suite", architecture, tuple(BASES)),
            ("tasks", tasks, COUNTS),
            ("attention", attention, ("fused", "split")),
        ):
            check_choice(what, value, allowed)
        if (checkpoints is None) != (protocol == "P3"):
            raise DTSError(
                "protocol P3 stands for the Hub's checkpoints: name the family of your own (P1, P2, own) with "
                "--protocol, and its folder with --checkpoints"
            )
        super().__init__(
            architecture, BASES[architecture], home=home, device=device, precision=precision, protocol=protocol,
            hub=hub, progress=progress,
        )  # fmt: skip
        self.attention = attention
        self.name = architecture if tasks == 8 else f"{architecture}:{tasks}"
        self._tasks = {task.name: task for task in TASKS[:tasks]}
        self.tasks = tuple(self._tasks)
        self.folder = self.home / f"{protocol}-{tasks}-{attention}"
        self.checkpoints, self.torchvision = (Path(p) if p else None for p in (checkpoints, torchvision))
        self.lasting = checkpoints is None

    # --- tasks ---

    def task(self, name: str) -> ClipTask:
        """The task called ``name``, or mirrored by the mini suite's task of that name, its class names read."""
        about = self._task(name)
        return dataclasses.replace(about, classes=data.class_names(self.hub, about))

    # --- models ---

    @functools.cached_property
    def config(self) -> dict:
        """What the base's config.json says, as open_clip's CLIP takes it."""
        return open_clip_config(json.loads(read_bytes(self.hub.fetch(self.base, "config.json"))))

    @functools.cached_property
    def model(self) -> CLIP:
        """The pretrained CLIP, both towers, on the CPU."""
        model = CLIP(**self.config).eval().requires_grad_(False)
        state = {name: tensor.float() for name, tensor in keys.to_open_clip(self._load(self.base)).items()}
        check_same_layout(model.state_dict(), state, f"checkpoint {self.base}", "model of its config.json")
        model.load_state_dict(state)
        return model

    @functools.cached_property
    def _pretrained(self) -> State:
        own = self.checkpoints and next(iter(self.checkpoints.glob("zeroshot.*")), None)
        if own:
            return read_checkpoint(own)
        return {name: tensor.detach().clone() for name, tensor in self.model.visual.state_dict().items()}

    def pretrained(self) -> State:
        return self._laid_out(self._pretrained)

    @functools.cache  # noqa: B019 - suites live as long as the process
    def expert(self, task: str) -> State:
        about = self._task(task)
        if self.checkpoints:
            tower = read_checkpoint(self._own(about))
        else:
            repo = Repo(expert_repo(self.architecture, about))
            held = {name: tensor.float() for name, tensor in keys.vision(self._load(repo)).items()}
            tower = {"proj": self._pretrained["proj"]} | keys.fused(held)  # a CLIPVisionModel has no projection
        check_same_layout(self._pretrained, tower, f"expert of {about.name}", f"base {self.base}")
        return self._laid_out({name: tower[name] for name in self._pretrained})

    def _own(self, about: ClipTask) -> Path:
        found = sorted((self.checkpoints / about.name).glob("finetuned.*"))
        if not found:
            raise FileError(f"{self.checkpoints / about.name}: has no finetuned.pt or finetuned.safetensors")
        return found[0]

    def _laid_out(self, tower: State) -> State:
        return keys.split(tower) if self.attention == "split" else tower

    @functools.cache  # noqa: B019
    def tower(self) -> Tower:
        shapes = CLIP(**self.config).visual.eval().requires_grad_(False)
        return Tower(shapes, self.device, PRECISIONS[self.precision])

    # --- heads ---

    def tokenize(self, caption: str) -> Tensor:
        """Token ids (context,) of one caption."""
        return _tokenizer(self.config["text_cfg"]["context_length"])([caption])[0]

    @functools.cache  # noqa: B019
    def head(self, task: str) -> Tensor:
        about = self.task(task)
        key = {"base": self.hub.commit(self.base), "classes": about.classes, "templates": about.templates}
        make = lambda: zero_shot_head(self.model, self.tokenize, about.classes, about.templates)
        rows = self.store.tensor("heads", key, make)
        return rows * self.model.logit_scale.exp()

    def classes(self, task: str) -> tuple[str, ...]:
        """The names of a task's classes, in the order of the head's rows."""
        return self.task(task).classes

    @torch.no_grad()
    def text(self, texts: Sequence[str]) -> Tensor:
        """Embeddings (n, d) of n texts by the pretrained text tower."""
        return self.model.encode_text(torch.stack([self.tokenize(text) for text in texts]))

    def descriptor(self, task: str) -> Tensor:
        return F.normalize(F.normalize(self.head(task), dim=1).mean(0), dim=0)

    # --- images ---

    @functools.cache  # noqa: B019
    def images(self, task: str, split: str) -> tuple[Tensor, Tensor]:
        """Pixels uint8 (n, 3, h, w), mapped from disk, and labels, of ``test`` or ``validation``.

        No repository has a split for validation: a seeded tenth of the training split is taken. The experts were
        trained on it, so it serves for choices between merges and files, not to judge an expert.
        """
        if split not in ("test", "validation"):
            raise DTSError(f"split {split!r} is unknown: choose validation or test")
        about, size = self._task(task), self.config["vision_cfg"]["image_size"]
        source = self._source(about, split)
        folder = self.home / "images" / f"{about.name}-{split}-{source['commit'][:12]}-{size}"
        if self._from_torchvision(about):
            found = data.from_torchvision(about, "test" if split == "test" else "train", self.torchvision)
            count, rows = len(found), lambda start: (found[i] for i in range(start, len(found)))
        else:
            paths = self._paths(about, "test" if split == "test" else "train")
            count, rows = data.count(paths, about), functools.partial(data.rows_of, paths, about)
        self.progress(f"images of {about.name}, {split}")
        return data.prepared(folder, about, size, count, rows, data.chosen(count, split, about))

    def _paths(self, about: ClipTask, split: str) -> list[Path]:
        return [self.hub.fetch(repo, file) for repo, file in data.files_of(self.hub, about, split)]

    def _from_torchvision(self, about: ClipTask) -> bool:
        return bool(self.torchvision and about.torchvision)

    def _source(self, about: ClipTask, split: str) -> dict:
        if self._from_torchvision(about):
            return {"data": f"torchvision {about.torchvision}", "commit": "torchvision"}
        repo = Repo(about.repo, "dataset")
        return {"data": about.repo, "commit": self.hub.commit(repo)}

    def identity(self, task: str, split: str) -> dict:
        about = self.task(task)
        return {
            **self._source(about, split),
            "split": split,
            "base": self.hub.commit(self.base),
            "classes": about.classes,
            "templates": about.templates,
            "precision": self.precision,
        }

    # --- what is needed, and whether it is sound ---

    def wanted_files(self) -> dict[Repo, Files]:
        """What the tables read, by repository: the base, the experts, the test images, for DTD its training images too.

        The files of each are listed when they are asked for; FileError where the Hub cannot be reached.
        """
        base = lambda: [(self.base, "config.json"), *self._weights(self.base)]
        files: dict[Repo, Files] = {self.base: base}
        for about in self._tasks.values():
            if not self.checkpoints:
                repo = Repo(expert_repo(self.architecture, about))
                files[repo] = lambda repo=repo: self._weights(repo)
            if not self._from_torchvision(about):
                splits = ("test", "train") if about.leak else ("test",)
                files[Repo(about.repo, "dataset")] = lambda about=about, splits=splits: [
                    file for split in splits for file in data.files_of(self.hub, about, split)
                ]
        return files

    @property
    def input_bytes(self) -> int:
        """What a decoded image takes on disk."""
        return 3 * self._shapes["vision_cfg"]["image_size"] ** 2

    @property
    def _shapes(self) -> dict:
        """The model's configuration: from its config.json, or where that is not here yet, from open_clip."""
        try:
            if self.hub.cached(self.base, "config.json"):
                return self.config
        except FileError:
            pass
        return open_clip.get_model_config(OPEN_CLIP[self.architecture])

    def trial(self) -> Trial:
        """A tower of the model's shape with random weights on blank images, and one of its blocks: to be timed."""
        visual, size = (
            CLIP(**self._shapes).visual.eval().requires_grad_(False),
            self._shapes["vision_cfg"]["image_size"],
        )
        tower, state = Tower(visual, self.device, PRECISIONS[self.precision]), visual.state_dict()
        pixels = torch.zeros(8 if self.device.type == "cpu" else 64, 3, size, size, dtype=torch.uint8)
        block = {name: tensor.cpu() for name, tensor in state.items() if ".resblocks.0." in name}
        blocks = len({name.split(".resblocks.")[1].split(".")[0] for name in state if ".resblocks." in name})
        return Trial(lambda n: tower(pixels[:n]), len(pixels), [(block, blocks)])

    def check(self) -> dict[str, dict]:
        """Looks for test images that an expert has seen; DTSError where there are: such accuracies mean nothing."""
        found = {}
        for about in self._tasks.values():
            if not about.leak:
                continue
            test, _ = self.images(about.name, "test")
            size, key = self.config["vision_cfg"]["image_size"], self._source(about, "test")
            train = lambda about=about: (image for image, _ in data.rows_of(self._paths(about, "train"), about))
            make = lambda test=test, size=size, train=train: torch.tensor(data.leaked(test, train(), size))
            both = int(self.store.tensor("leaks", key | {"size": size}, make))
            accuracy = correct(self, self.expert(about.name), about.name).float().mean().item()
            said = f"{both} of {len(test)} test images stand in the training split."
            found[about.name] = {"in training too": both, "test images": len(test), "said": said}
            if both > LEAKED_SHARE * len(test):
                raise DTSError(
                    f"{about.repo}: {both} of {len(test)} test images are training images as well; pin a commit whose "
                    "splits are apart"
                )
            if accuracy > LEAKED_ACCURACY:
                raise DTSError(
                    f"the expert of {about.name} gets {accuracy:.1%} of its test images right, which only experts do "
                    "that were trained on them (protocol P2 has such); use other checkpoints, or leave the task out"
                )
        return found


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """An image tower in open_clip's names and float32, from safetensors or an old pickle (which runs no code)."""
    state = load_tensors(path) if path.suffix == ".safetensors" else load_pickle(path)
    if any("visual." in name for name in state):
        return keys.visual(state)
    return {name: tensor.float() for name, tensor in keys.fused(keys.vision(state) or state).items()}


def open_clip_config(config: dict) -> dict:
    """open_clip's arguments for the CLIP that a config.json of transformers describes; what it lacks is ViT-B/32's."""
    eye, text = config.get("vision_config", {}), config.get("text_config", {})
    width, words = eye.get("hidden_size", 768), text.get("hidden_size", 512)
    return {
        "embed_dim": config.get("projection_dim", 512),
        "quick_gelu": eye.get("hidden_act", "quick_gelu") == "quick_gelu",
        "vision_cfg": {
            "image_size": eye.get("image_size", 224),
            "patch_size": eye.get("patch_size", 32),
            "layers": eye.get("num_hidden_layers", 12),
            "width": width,
            "head_width": width // eye.get("num_attention_heads", 12),
            "mlp_ratio": eye.get("intermediate_size", 3072) / width,
        },
        "text_cfg": {
            "context_length": text.get("max_position_embeddings", 77),
            "vocab_size": text.get("vocab_size", 49408),
            "width": words,
            "heads": text.get("num_attention_heads", 8),
            "layers": text.get("num_hidden_layers", 12),
            "mlp_ratio": text.get("intermediate_size", 2048) / words,
        },
    }


@functools.cache
def _tokenizer(context: int) -> open_clip.SimpleTokenizer:
    return open_clip.SimpleTokenizer(context_length=context)
