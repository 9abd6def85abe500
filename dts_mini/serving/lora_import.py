"""A LoRA adapter of peft as a delta: what peft itself makes of the files over the same base, or a refusal.

What the adapter's tensors mean hangs on the model too: whether a matrix lies as (out, in) or, in transformers'
``Conv1D``, as (in, out), and which weights are one tensor under several names. So the model is asked: the module that
is passed, or one without values that transformers builds from the ``config.json`` beside the base.
"""

import importlib
import importlib.util
from collections.abc import Collection
from dataclasses import replace
from math import prod
from pathlib import Path

import torch
from torch import Tensor, nn

from dts_mini.core.delta import Rebuilt, TaskDelta
from dts_mini.core.errors import FileError, StateError
from dts_mini.core.file import load_tensors
from dts_mini.core.parts import Exact, Factors, Kept, Part, Tied, Unchanged
from dts_mini.core.state import (
    State,
    all_finite,
    check_outline,
    check_values,
    digest,
    exactly,
    fingerprint,
    is_computed,
    outline,
    seal,
)
from dts_mini.serving.lora_config import (
    CONFIG,
    MERGE,
    PREFIX,
    WEIGHTS,
    LoraSettings,
    adds_up,
    attention_around,
    check_adapter,
    is_turned,
    read_config,
)
from dts_mini.serving.stored import stored_names

_UNTIE = (
    "untie the model (give each its own copy, set tie_word_embeddings to false in its config, save it) and use that as "
    f"the base; or {MERGE}"
)
_GATHER = "save the adapter again by peft, and gather it first if it was trained in shards (ZeRO-3, FSDP)"
_ADAPTED = (nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_COPIES = (".modules_to_save.", ".original_module.")
"""In names that peft writes for ``bias: all`` of modules to save, which it holds by their own names as well."""


@exactly
def import_lora(folder: str | Path, base: State, module: nn.Module | None = None) -> TaskDelta:
    """The delta of a peft LoRA adapter over a model's state dict: the adapter's own factors, in its own dtype.

    ``module``: the model; its values are not looked at. Without one ``base`` is an ``open_checkpoint`` with a
    ``config.json`` beside it, from which transformers builds it.

    Takes rank and alpha patterns, rsLoRA, ``lora_bias``, trained biases and ``modules_to_save``. Raises FileError for
    files that cannot be read, and for settings that make more of an adapter than factors (DoRA, PiSSA, ...), by their
    name; StateError for an adapter that does not fit the base.
    """
    folder = Path(folder)
    settings, tensors = LoraSettings(check_adapter(folder)), _tensors(folder)
    check_outline(base, "base")
    reader = _Reader(folder, settings, base, _skeleton(base) if module is None else module)
    pairs: dict[str, dict[str, Tensor]] = {}  # by module
    for key, value in tensors.items():
        name, _, kind = key.partition(".lora_")
        if kind:
            pairs.setdefault(name, {})[kind] = value
    for key, value in tensors.items():
        if ".lora_" not in key:
            reader.plain(key, value, pairs)
    for name, held in pairs.items():
        reader.pair(name, held)
    reader.check_saved(tensors)
    reader.check_targeted(pairs)
    parts = reader.parts()
    every = {name: parts.get(name, Unchanged()) for name in sorted(base)}
    shapes = {name: tuple(outline(base)[name].shape) for name in every}
    dtypes = {name: outline(base)[name].dtype for name in every}
    delta = TaskDelta(every, shapes, dtypes, "lora", {}, fingerprint(base), "")
    rebuilt, digests = Rebuilt(base, delta), {}
    for name, tensor in rebuilt.items():
        if name in parts and not all_finite(tensor):
            raise StateError(
                f"{folder}: with the adapter, tensor {name!r} does not fit into {dtypes[name]}; look at lora_alpha, or "
                "give the base in a wider dtype"
            )
        digests[name] = digest(tensor)
    return replace(delta, expert=seal(digests))


def _tensors(folder: Path) -> dict[str, Tensor]:
    path = folder / WEIGHTS
    if not path.exists() and path.with_suffix(".bin").exists():
        raise FileError(f"{path.with_suffix('.bin')}: is a pickle; load the adapter with peft, and save it again")
    tensors = {}
    for key, value in load_tensors(path).items():
        check_values(value, key, str(path))
        if ".base_layer.out_proj." in key:  # which of peft's versions trained it is not known
            raise FileError(
                f"{path}: {key} is of nn.MultiheadAttention, whose output projection peft 0.21 adapts twice; {MERGE}"
            )
        if not key.startswith(PREFIX):
            raise FileError(
                f"{path}: {key} does not begin with {PREFIX}, and peft would not load it; save it with peft"
            )
        tensors[key.removeprefix(PREFIX)] = value
    return tensors


def _skeleton(base: State) -> nn.Module:
    """The model of the ``config.json`` beside a base on disk, without values; StateError where that cannot be had."""
    path = getattr(base, "path", None)
    folder = None if path is None else path if path.is_dir() else path.parent
    why = "the state dict lies in memory" if folder is None else f"{folder} has no config.json"
    file = None if folder is None else folder / "config.json"
    if file is not None and file.is_file():
        architecture = (read_config(file).get("architectures") or [None])[0]
        if importlib.util.find_spec("transformers") is None:
            why = f"transformers, which {file} is for, is not installed"
        else:
            library = importlib.import_module("transformers")  # it is asked where it is installed, and takes seconds
            kind = getattr(library, str(architecture), None)
            if isinstance(kind, type) and issubclass(kind, library.PreTrainedModel):
                try:
                    config = library.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
                    with torch.device("meta"):
                        return kind._from_config(config)
                except Exception as error:  # whatever others wrote into that file
                    why = f"transformers cannot build {architecture} from {file} ({str(error).splitlines()[:1]})"
            else:
                why = f"{file} names no architecture that transformers has ({architecture})"
    raise StateError(
        f"the adapter alone does not tell how its matrices lie in the base, and which weights are tied: {why}; "
        "pass the model (module=...), or a base with its config.json beside it"
    )


class _Reader:
    """Gathers what a base's tensors gain from an adapter's, of which every one must have its place in the model."""

    def __init__(self, folder: Path, settings: LoraSettings, base: State, module: nn.Module) -> None:
        self.folder, self.settings, self.base, self.module = folder, settings, base, module
        self._modules, self._stored = dict(module.named_modules(remove_duplicate=False)), stored_names(module)
        ends: dict[int, list[str]] = {}
        for name, tensor in module.state_dict(keep_vars=True).items():
            ends.setdefault(id(tensor), []).append(name)
        self._ends = {name: names if self._tied(names) else [name] for names in ends.values() for name in names}
        self._gains: dict[str, Part] = {}  # by the model's names, of tied tensors each by its own

    def _tied(self, names: list[str]) -> bool:
        """Whether the base has one tensor for all these names of one tensor of the model; transformers asks as well."""
        held = [self.base[name] for name in map(self._held, names) if name in self.base]
        return all(torch.equal(other, held[0]) for other in held[1:])

    def _held(self, name: str) -> str:
        """What the base calls a tensor of the model: a file may have another name for it."""
        return name if name in self.base else self._stored.get(name, name)

    def plain(self, key: str, value: Tensor, adapted: Collection[str]) -> None:
        """A tensor that takes the place of the base's; peft calls it ``base_layer.NAME`` in a module with factors."""
        if any(mark in key and self.settings.saves(key.partition(mark)[0]) for mark in _COPIES):
            return
        owner, _, leaf = key.rpartition(".")
        module = owner.removesuffix(".base_layer")
        if (module in adapted) != (module != owner):
            raise FileError(
                f"{self.folder / WEIGHTS}: peft does not know {key} where {module!r} has "
                f"{'no ' if module != owner else ''}factors, and would not load it; {MERGE}"
            )
        name = f"{module}.{leaf}" if module else leaf
        known = self._known(name, tuple(value.shape), flat=False)
        value = value.to(known.dtype)  # as load_state_dict does
        if not torch.equal(value, known):
            self._gains[name] = Exact(value) if known.is_floating_point() else Kept(value)

    def pair(self, module: str, held: dict[str, Tensor]) -> None:
        """A module's lora_A (r x n) and lora_B (m x r), and its bias's where it has one."""
        where, layer = f"{self.folder / WEIGHTS}: {module}", self._layer(module)
        embedding = isinstance(layer, nn.Embedding)
        a, b = (held.pop(f"embedding_{side}" if embedding else f"{side}.weight", None) for side in "AB")
        bias = held.pop("B.bias", None) if self.settings.lora_bias else None
        if held:
            what = f"has a lora_{min(held)}, which is nothing that plain LoRA has in a {type(layer).__name__}"
            lost = min(held) != "B.bias" and min(held).split(".")[0] in ("A", "B", "embedding_A", "embedding_B")
            mend = "peft would not load it: save the adapter by its own save_pretrained" if lost else MERGE
            raise FileError(f"{where} {what}; {mend}")
        if a is None or b is None:
            raise FileError(f"{where} has no partner lora_{'A' if a is None else 'B'}; copy the adapter again")
        if odd := [tuple(x.shape) for x in (a, b) if x.dim() < 2 or not x.numel()]:
            raise FileError(f"{where} has a factor of shape {odd[0]}; {_GATHER}")
        rank, left, right = len(a), b.flatten(1), a.flatten(1)
        if left.shape[1] != rank:
            raise FileError(f"{where} has rank {rank} in lora_A and {left.shape[1]} in lora_B; copy the adapter again")
        if rank != (said := self.settings.rank(module)):
            raise FileError(f"{where} has rank {rank}, and {CONFIG} says {said}; copy the adapter again")
        if embedding or is_turned(layer):
            left, right = right.T, left.T
        known = self._known(f"{module}.weight", (len(left), right.shape[1]))
        if not known.is_floating_point():
            raise self._coded(f"{module}.weight", known.dtype)
        dtype, scaling = torch.promote_types(left.dtype, right.dtype), self.settings.scaling(module)
        most = rank * prod(
            max(float(torch.as_tensor(x, device=left.device).abs().max()), 1.0) for x in (scaling, left, right)
        )
        if most > torch.finfo(torch.float32).max:  # as files are read, too
            raise FileError(f"{where} has factors whose product, by lora_alpha, may be beyond float32; mend {CONFIG}")
        self._add(f"{module}.weight", Factors(left.to(dtype), right.to(dtype), scaling))
        if bias is not None and bias.any():
            if getattr(layer, "bias", None) is None:
                raise FileError(f"{where} has a bias in the adapter and none in the base; run it with peft")
            self._known(f"{module}.bias", tuple(bias.shape), flat=False)
            self._add(f"{module}.bias", Kept(bias.float() * scaling))

    def _layer(self, name: str) -> nn.Module:
        """The module of this name, if all that peft adds to its output is the product with a change of its weight."""
        layer, where = self._modules.get(name), f"{self.folder}: the adapter changes {name!r}"
        if layer is None:
            raise StateError(f"{where}, which the base has no weight for; {self._mend(f'{name}.weight')}")
        if not any(self.settings.targets(each, self._modules[each], self.module) for each in self._adapted_as(name)):
            raise FileError(f"{where}, which {CONFIG} does not target, and peft would not load it; mend target_modules")
        if around := attention_around(self.module, name):
            raise FileError(
                f"{where}, whose weight {around!r} reads without calling it, so that peft has no effect; {MERGE}"
            )
        if any(other is layer and key != name for key, other in self._modules.items()):
            raise FileError(f"{where}, a module of several names, of which peft adapts one; {MERGE}")
        if getattr(layer, "max_norm", None) is not None:
            raise FileError(
                f"{where}, an embedding with max_norm, which peft applies to the factors too; run it with peft"
            )
        if getattr(layer, "groups", 1) != 1 or getattr(layer, "padding_mode", "zeros") != "zeros":
            raise FileError(f"{where}, a convolution in groups or with padding other than zeros; {MERGE}")
        if {*getattr(layer, "dilation", ())} - {1}:
            raise FileError(
                f"{where}, a dilated convolution, whose factors peft runs without dilation: run it with peft"
            )
        if not adds_up(layer):
            raise FileError(f"{where}, a {type(layer).__name__}, to whose output peft adds what no weight can; {MERGE}")
        return layer

    def _adapted_as(self, name: str) -> list[str]:
        """The modules of which one must be targeted for ``name`` to be: those that share its weight, if peft ties."""
        ends = self._ends.get(f"{name}.weight", ()) if self.settings.ensure_weight_tying else ()
        return [name, *(end.removesuffix(".weight") for end in ends)]

    def check_saved(self, tensors: Collection[str]) -> None:
        """FileError unless the modules to save are there as a whole, as peft asks."""
        for saved in self.settings.modules_to_save:
            for name, module in self._modules.items():
                lacks = [key for leaf in module.state_dict() if (key := f"{name}.{leaf}") not in tensors]
                if name.endswith(saved) and lacks:
                    raise FileError(
                        f"{self.folder / WEIGHTS}: lacks {lacks[0]} of {name!r}, which modules_to_save names; "
                        "copy the adapter again"
                    )

    def check_targeted(self, adapted: Collection[str]) -> None:
        """FileError where a module has no factors that peft would make some of: it would run with untrained ones."""
        for name, module in self.module.named_modules():
            if not (isinstance(module, _ADAPTED) or is_turned(module)) or attention_around(self.module, name):
                continue
            names = [name, *(end.removesuffix(".weight") for end in self._ends.get(f"{name}.weight", ()))]
            if self.settings.targets(name, module, self.module) and not any(each in adapted for each in names):
                raise FileError(
                    f"{self.folder / WEIGHTS}: lacks the factors of {name!r}, which {CONFIG} targets; pass the "
                    "adapter's own base, or copy the adapter again"
                )

    def parts(self) -> dict[str, Part]:
        """By the base's names; StateError where of several tied tensors only some would change, or not alike."""
        parts: dict[str, Part] = {}
        for name, part in self._gains.items():
            names = self._ends[name]
            for other in names:
                if not self._alike(name, part, self._gains.get(other)):
                    raise StateError(
                        f"{self.folder}: the adapter changes {name!r}, which the model ties to {other!r}, and not that "
                        f"one alike; {_UNTIE}"
                    )
            first, *rest = self._names(name)
            parts |= {first: part} | {each: Tied(first) for each in rest}
        return parts

    def _known(self, name: str, shape: tuple[int, ...], *, flat: bool = True) -> Tensor:
        """The base's tensor, which a checkpoint may hold under the name of one that is tied to it; StateError else.

        ``shape``: the adapter's, as a matrix if it may lie ``flat``.
        """
        if not (held := self._names(name)):
            raise StateError(f"{self.folder}: the adapter has a tensor {name!r}, the base has none; {self._mend(name)}")
        found = tuple(outline(self.base)[held[0]].shape)
        if shape not in (found, (*found[:1], torch.Size(found[1:]).numel()) if flat else found):
            resized = len(shape) > 1 and shape[1:] == found[1:]
            how = f", whose vocabulary may have been resized (resize_token_embeddings({shape[0]}))" if resized else ""
            raise StateError(
                f"{self.folder}: tensor {name!r} has shape {found} in the base and {shape} in the adapter; pass its "
                f"own base{how}"
            )
        if not is_computed(dtype := outline(self.base)[held[0]].dtype):
            raise self._coded(held[0], dtype)
        return self.base[held[0]].detach().cpu()

    def _coded(self, name: str, dtype: torch.dtype) -> StateError:
        return StateError(
            f"base, tensor {name!r}: is {dtype}, to which no factors can be added; pass the base in floats: the one "
            "that was quantised, or what its library dequantises"
        )

    def _mend(self, name: str) -> str:
        """What to do where the model has no tensor of the name that the adapter has for it."""
        if name in self.base:
            return f"this transformers calls it otherwise in the model, or holds it in one with others: {MERGE}"
        if like := next((each for each in self.base if name.endswith(f".{each}")), None):
            return f"pass that model as its own class saves it, not with {like!r}"
        if like := next((each for each in self.base if each.endswith(f".{name}")), None):
            return (
                f"it is of the model within, without what lies before {name!r} in {like!r}: open the base by "
                "transformers' AutoModel, save_pretrained, and pass that folder"
            )
        steps = name.split(".")
        if any(self.settings.saves(".".join(steps[:end])) for end in range(1, len(steps))):
            return (
                "it is a head of the adapter's own (modules_to_save): open the base as it was trained, by "
                "AutoModelForSequenceClassification or the like, save_pretrained, and pass that folder"
            )
        return "pass its own base"

    def _add(self, name: str, part: Part) -> None:
        """Adds to what the tensor has gained before, such as a base layer that was trained and saved as well."""
        if name in self._gains:
            held = self._names(name)[0]
            known = self.base[held].detach().cpu().float()
            part = Kept(self._gains[name].value.float() - known + part.restore().view_as(known))
        self._gains[name] = part

    def _alike(self, name: str, one: Part, other: Part | None) -> bool:
        """Whether two ends of a tensor gain the same: exactly, or of factors beside a whole tensor but for rounding."""
        if type(one) is type(other) or other is None:
            return one == other
        known = self.base[self._names(name)[0]].detach().cpu().float()
        one, other = (
            part.value.float() - known if isinstance(part, Exact) else part.restore().view_as(known)
            for part in (one, other)
        )
        return bool((one - other).abs().max() <= 1e-6 * known.abs().max())

    def _names(self, name: str) -> list[str]:
        """The base's own names of a tensor: a checkpoint may hold one that is tied to it, or all that are."""
        held = map(self._held, self._ends.get(name, ()))
        return sorted(each for each in held if each in self.base)
