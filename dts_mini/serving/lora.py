"""Deltas as LoRA adapters of the ``peft`` library, and adapters as deltas. Nothing here imports ``peft``.

A LoRA adapter (Hu et al., arXiv 2106.09685) adds (alpha / r) B A to a weight: B is a part's first factor, A its
second, alpha = r for each module, so that nothing is scaled. What an adapter holds of a delta, exactly in float32:

- ``weight`` of ``nn.Linear``, transformers' ``Conv1D`` and convolutions (groups and dilation 1) as factors of the
  part's own rank (``rank_pattern``), and their ``bias`` (``lora_bias``);
- ``weight`` of ``nn.Embedding`` as factors if no bias differs, since peft knows no ``lora_bias`` beside an embedding;
- any other module that owns a tensor that differs, a LayerNorm, PyTorch's own attention or a convolution without
  factors, as a whole in full precision (``modules_to_save``).

What no adapter can hold are tensors that the model itself owns, bare parameters of open_clip's image tower for
example: peft wraps modules within a model, never the model. Factors are written in float32: an adapter takes several
times the bytes of the delta's file.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from dts_mini.core.delta import Rebuilt, TaskDelta, rebuild_tensor
from dts_mini.core.errors import DTSError, FileError, StateError
from dts_mini.core.file import check_writable, load_tensors, read_bytes, write_bytes, write_json
from dts_mini.core.parts import Factors, Kept, Part, Unchanged
from dts_mini.core.state import State, check_values, fingerprint, outline
from dts_mini.serving.expert import Base

PREFIX = "base_model.model."
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@dataclass(frozen=True)
class Adapter:
    """What ``export_lora`` wrote: modules as factors, with their ranks; modules as a whole; tensors left out."""

    ranks: dict[str, int]
    whole: tuple[str, ...]
    lost: tuple[str, ...]


@torch.no_grad()
def export_lora(
    delta: TaskDelta, module: nn.Module, folder: str | Path, *, partial: bool = False, overwrite: bool = False
) -> Adapter:
    """Writes a delta as an adapter that ``peft.PeftModel.from_pretrained(module, folder)`` loads.

    ``module`` is the base, in evaluation mode, as peft will get it. Raises StateError when the delta was made for
    another, FileError when the files exist and ``overwrite`` is not set, and DTSError for tensors that no adapter
    holds; with ``partial`` those are left out and named in what is returned.
    """
    folder = check_folder(folder, overwrite=overwrite)
    base = Base(module)
    base.check(delta)
    factored, whole, lost = _plan(delta, base)
    if lost and not partial:
        raise DTSError(
            f"no LoRA adapter can hold {', '.join(map(repr, lost[:3]))}{' and more' if len(lost) > 3 else ''}, which the "
            "model itself owns; pass --partial (partial=True) to leave them out"
        )
    if not factored:
        raise DTSError("no module of this delta has factors: an adapter of it would hold whole modules alone")
    ranks, tensors = {}, {}
    with_bias = any("bias" in differing for differing in factored.values())
    for name, differing in factored.items():
        ranks[name], found = _adapted(base, delta, name, differing, with_bias)
        tensors |= {f"{PREFIX}{name}.{key}": value for key, value in found.items()}
    for name in whole:
        for key in module.get_submodule(name).state_dict():
            full = f"{name}.{key}"
            known = base.tensors[full].detach()
            tensors[PREFIX + full] = rebuild_tensor(known, delta, full).to(known) if full in delta.parts else known
    # Of two patterns that fit a name peft takes the first, and "fc" fits "block.fc" too.
    patterns = dict(sorted(ranks.items(), key=lambda item: -len(item[0])))
    config = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": getattr(getattr(module, "config", None), "_name_or_path", None) or None,
        "inference_mode": True,
        "r": max(ranks.values()),
        "lora_alpha": max(ranks.values()),
        "rank_pattern": patterns,
        "alpha_pattern": patterns,
        "target_modules": sorted(ranks),
        "modules_to_save": sorted(whole) or None,
        "lora_bias": with_bias,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": any(_turned(module.get_submodule(name)) for name in ranks),
    }
    folder.mkdir(exist_ok=True)
    data = safetensors.torch.save({k: v.cpu().contiguous().clone() for k, v in tensors.items()}, {"format": "pt"})
    write_bytes(data, folder / WEIGHTS, overwrite=overwrite)
    write_json(config, folder / CONFIG, overwrite=overwrite)
    return Adapter(ranks, tuple(sorted(whole)), tuple(lost))


def check_folder(folder: str | Path, *, overwrite: bool = False) -> Path:
    """The folder, once it is sure that an adapter may be put there; FileError else."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise FileError(f"{folder}: is a file; name a folder")
    if not folder.parent.is_dir():
        raise FileError(f"{folder}: the folder {folder.parent} does not exist; make it first")
    for name in (CONFIG, WEIGHTS) if folder.is_dir() else ():
        check_writable(folder / name, overwrite=overwrite)
    return folder


@torch.no_grad()
def import_lora(folder: str | Path, base: State) -> TaskDelta:
    """The delta of a peft LoRA adapter over a model's state dict: the adapter's own factors, in its own dtype.

    Takes rank and alpha patterns, rsLoRA, ``lora_bias``, trained biases and ``modules_to_save``. Raises FileError for
    files that cannot be read and adapters of another kind (DoRA too), StateError for one that does not fit the base.
    """
    folder = Path(folder)
    config, tensors = _lora_config(folder / CONFIG), load_tensors(folder / WEIGHTS)
    parts: dict[str, Part] = {}
    pairs: dict[str, dict[str, Tensor]] = {}  # by module
    for key, value in tensors.items():
        check_values(value, key, str(folder / WEIGHTS))
        if ".base_layer.out_proj." in key:  # which of peft's versions trained it is not known
            raise FileError(
                f"{folder / WEIGHTS}: {key} is of nn.MultiheadAttention, whose output projection peft 0.21 adapts twice; "
                "merge the adapter with peft, and compress the merged model"
            )
        name, _, kind = key.removeprefix(PREFIX).replace(".base_layer", "").partition(".lora_")
        if kind:
            pairs.setdefault(name, {})[kind.removesuffix(".weight")] = value
            continue
        _check_tensor(name, tuple(value.shape), base, folder)
        known = base[name].detach().cpu()
        parts[name] = Kept(value.float() - known.float() if known.is_floating_point() else value)
        if torch.equal(value.to(known), known):
            parts[name] = Unchanged()
    for module, held in pairs.items():
        parts |= _factors(module, held, config, base, folder)
    every = {name: parts.get(name, Unchanged()) for name in sorted(base)}
    shapes = {name: tuple(outline(base)[name].shape) for name in every}
    dtypes = {name: outline(base)[name].dtype for name in every}
    delta = TaskDelta(every, shapes, dtypes, "lora", {}, fingerprint(base), "")
    return replace(delta, expert=fingerprint(Rebuilt(base, delta)))


# --- what goes where ---


def _plan(delta: TaskDelta, base: Base) -> tuple[dict[str, dict[str, Part]], list[str], list[str]]:
    """Modules to hold as factors with what differs in them; modules to hold as a whole; tensors that fit nowhere."""
    differing: dict[str, dict[str, Part]] = {}
    for name in delta.parts:
        if not isinstance(part := delta.resolved(name), Unchanged):
            owner, _, leaf = name.rpartition(".")
            differing.setdefault(owner, {})[leaf] = part
    lost = sorted(differing.pop("", {}))
    with_bias = any("bias" in leaves and _takes_factors(base, name, leaves) for name, leaves in differing.items())
    factored, whole = {}, set()
    for name, leaves in differing.items():
        embedding = isinstance(base.module.get_submodule(name), nn.Embedding)
        if _takes_factors(base, name, leaves) and not (embedding and with_bias):
            factored[name] = leaves
        else:
            whole.add(_attention_around(base.module, name) or name)
    # peft saves each module whose name ends with one that is to be saved, and adapts none within it.
    whole |= {full for full, _ in base.module.named_modules() if any(full.endswith(name) for name in whole)}
    outer = {name for name in whole if not any(name.startswith(f"{other}.") for other in whole)}
    within = lambda name: any(name == other or name.startswith(f"{other}.") for other in outer)
    factored = {name: leaves for name, leaves in factored.items() if not within(name)}
    for full, _ in base.module.named_modules():  # so it does with modules to adapt
        like = full not in factored and not within(full) and any(full.endswith(f".{name}") for name in factored)
        if like and _takes_factors(base, full, {}):
            factored[full] = {}
    return factored, sorted(outer), lost


def _attention_around(module: nn.Module, name: str) -> str | None:
    """The module that ``name`` is or lies in, and that reads its parts' weights without calling them, if there is one.

    That is PyTorch's attention, and its transformer layer, which has a fast path.
    """
    steps, kinds = name.split("."), (nn.MultiheadAttention, nn.TransformerEncoderLayer)
    around = (".".join(steps[:end]) for end in range(1, len(steps) + 1))
    return next((each for each in around if isinstance(module.get_submodule(each), kinds)), None)


def _takes_factors(base: Base, name: str, leaves: Mapping[str, Part]) -> bool:
    module, weight = base.module.get_submodule(name), leaves.get("weight")
    plain = isinstance(module, nn.Linear | nn.Embedding) or _turned(module)
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        plain = module.groups == 1 and set(module.dilation) == {1} and module.padding_mode == "zeros"
    fits = leaves.keys() <= {"weight", "bias"} and (weight is None or weight.factors() is not None)
    return plain and fits and not _attention_around(base.module, name)


def _turned(module: nn.Module) -> bool:
    """Whether it is transformers' ``Conv1D``: a linear layer whose weight is (in, out)."""
    return type(module).__name__ == "Conv1D"


def _adapted(
    base: Base, delta: TaskDelta, name: str, leaves: Mapping[str, Part], with_bias: bool
) -> tuple[int, dict[str, Tensor]]:
    """The rank and the tensors that peft expects of a module; a rank of one, all zero, where the weight is the base's."""
    module, weight = base.module.get_submodule(name), base.tensors[f"{name}.weight"]
    if "weight" in leaves:
        a, b = leaves["weight"].factors()
    else:
        a, b = torch.zeros(len(weight), 1), torch.zeros(1, weight[0].numel())
    if isinstance(module, nn.Embedding):
        return len(b), {"lora_embedding_A": a.T, "lora_embedding_B": b.T}
    if _turned(module):
        a, b = b.T, a.T
    inner = weight.dim() - 2
    found = {"lora_A.weight": b.reshape(len(b), *weight.shape[1:]) if inner else b}
    found["lora_B.weight"] = a.reshape(*a.shape, *(1,) * inner)
    if with_bias:
        bias = delta.remainder(f"{name}.bias") if "bias" in leaves else None
        found["lora_B.bias"] = torch.zeros(len(a)) if bias is None else bias.float()
    return len(b), found


# --- reading ---


def read_config(path: Path) -> dict:
    """A JSON file that holds an object; FileError else."""
    data = read_bytes(path)
    try:
        config = json.loads(data)
    except ValueError as error:
        raise FileError(f"{path}: is no JSON ({error}); copy it again") from error
    if not isinstance(config, dict):
        raise FileError(f"{path}: holds no settings; copy it again")
    return config


def _lora_config(path: Path) -> dict:
    config = read_config(path)
    if (kind := config.get("peft_type")) != "LORA":
        raise FileError(f"{path}: is an adapter of the kind {kind!r}; only LORA is read")
    if special := [
        key for key in ("use_dora", "use_qalora", "layer_replication", "target_parameters") if config.get(key)
    ]:
        raise FileError(f"{path}: the adapter uses {special[0]}; only plain LoRA is read, merge it with peft instead")
    return config


def _factors(module: str, held: dict[str, Tensor], config: Mapping, base: State, folder: Path) -> dict[str, Part]:
    """The parts of a module: its weight's from lora_A (r x n) and lora_B (m x r), and its bias's where it has one."""
    turned = "embedding_A" in held  # an embedding's B A is the transpose of what its weight gains
    a, b = (held.pop(f"embedding_{side}" if turned else side, None) for side in "AB")
    bias = held.pop("B.bias", None)
    where = f"{folder / WEIGHTS}: {module}"
    if held:
        raise FileError(
            f"{where} has a lora_{min(held)}, which is nothing that plain LoRA has; only plain LoRA is read"
        )
    if a is None or b is None:
        raise FileError(f"{where} has no partner lora_{'A' if a is None else 'B'}; copy the adapter again")
    rank, left, right = len(a), b.flatten(1), a.flatten(1)
    if left.shape[1] != rank:
        raise FileError(f"{where} has rank {rank} in lora_A and {left.shape[1]} in lora_B; copy the adapter again")
    if turned or (config.get("fan_in_fan_out") and a.dim() == 2):
        left, right = right.T, left.T
    name = f"{module}.weight"
    if name not in base:
        raise StateError(
            f"{folder}: the adapter changes {module!r}, which the base has no weight for; pass its own base"
        )
    _check_tensor(name, (len(left), right.shape[1]), base, folder)
    dtype, scaling = torch.promote_types(left.dtype, right.dtype), _scaling(config, module, rank)
    parts = {name: Factors(left.to(dtype), right.to(dtype), scaling)}
    if bias is not None:
        _check_tensor(f"{module}.bias", tuple(bias.shape), base, folder)
        parts[f"{module}.bias"] = Kept(bias.float() * scaling)
    return parts


def _scaling(config: Mapping, module: str, rank: int) -> float:
    """alpha / r, or alpha / sqrt(r) of rsLoRA (arXiv 2312.03732), where a pattern may set the module's own alpha."""
    own = (config.get("alpha_pattern") or {}).items()
    fitting = (alpha for pattern, alpha in own if re.match(rf"(.*\.)?({pattern})$", module))
    alpha = next(fitting, config.get("lora_alpha", 8))
    return alpha / (rank**0.5 if config.get("use_rslora") else rank)


def _check_tensor(name: str, shape: tuple[int, ...], base: State, folder: Path) -> None:
    """StateError unless the base has a tensor of that name and shape, as it is or as a matrix."""
    if name not in base:
        raise StateError(f"{folder}: the adapter has a tensor {name!r}, the base has none; pass its own base")
    found = tuple(outline(base)[name].shape)
    if shape not in (found, (*found[:1], torch.Size(found[1:]).numel())):
        raise StateError(f"{folder}: tensor {name!r} has shape {found} in the base and {shape} in the adapter")
