"""Deltas as LoRA adapters of the ``peft`` library, and adapters as deltas. Nothing here imports ``peft``.

A LoRA adapter (Hu et al., arXiv 2106.09685) adds (alpha / r) B A to a weight: B is a part's first factor, A its
second, alpha = r for each module, so that nothing is scaled. What an adapter holds of a delta, exactly in float32:

- ``weight`` of ``nn.Linear``, transformers' ``Conv1D``, ``nn.Embedding`` and convolutions (groups and dilation 1) as
  factors of the part's own rank (``rank_pattern``);
- their ``bias`` beside the factors (``lora_bias``), or in place of the base's (``bias: all``) where a module without a
  bias, such as an embedding, has factors too: peft knows no ``lora_bias`` of an embedding, and merges it nowhere else;
- any other module that owns a tensor that differs, a LayerNorm, PyTorch's own attention or a convolution without
  factors, with all its tensors (``modules_to_save``);
- of several modules that share one weight, as an embedding and an output layer do, one as factors and the others in
  ``modules_to_save``: peft adapts each by itself, and would merge two changes into the one tensor.

What no adapter can hold are tensors that the model itself owns, bare parameters of open_clip's image tower for
example: peft wraps modules within a model, never the model. Factors are written in float32 unless a 16-bit format is
asked for: an adapter takes several times the bytes of the delta's file. ``plan_lora`` tells how many.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import safetensors.torch
import torch
from torch import Tensor, nn

from dts_mini.core.delta import TaskDelta, rebuild_tensor
from dts_mini.core.errors import DTSError
from dts_mini.core.file import write_bytes, write_json
from dts_mini.core.parts import Part, Unchanged
from dts_mini.core.state import exactly
from dts_mini.serving.expert import Base
from dts_mini.serving.lora_config import (
    CONFIG,
    PREFIX,
    WEIGHTS,
    adds_up,
    attention_around,
    check_folder,
    is_turned,
    read_config,
)
from dts_mini.serving.lora_import import import_lora

__all__ = ["Adapter", "check_folder", "export_lora", "import_lora", "plan_lora", "read_config"]

# peft saves each module whose name ends with one that is to be saved, its own among them.
_PEFTS_OWN = ("base_layer", "lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "lora_dropout", "default")
FORMATS = ("float32", "float16", "bfloat16")


@dataclass(frozen=True)
class Adapter:
    """What ``export_lora`` writes: modules as factors, with their ranks; modules with all tensors; tensors left out.

    ``nbytes``: of the tensors; the file has some kilobytes of header beside them. ``model``: bytes of the expert in
    float32. ``kept``: the share of the squared norm of all factors' products that the cap on the rank leaves, in
    [0, 1]; of a plan 1.
    """

    ranks: dict[str, int]
    modules_to_save: tuple[str, ...]
    lost: tuple[str, ...]
    nbytes: int
    model: int
    kept: float = 1.0

    @property
    def share(self) -> float:
        """The tensors' bytes as a share of the float32 expert's."""
        return self.nbytes / self.model


@exactly
def export_lora(
    delta: TaskDelta,
    module: nn.Module,
    folder: str | Path,
    *,
    partial: bool = False,
    rank: int | None = None,
    dtype: Literal["float32", "float16", "bfloat16"] = "float32",
    told: Callable[[Adapter], None] = lambda adapter: None,
    overwrite: bool = False,
) -> Adapter:
    """Writes a delta as an adapter that ``peft.PeftModel.from_pretrained(module, folder)`` loads.

    ``module`` is the base, in evaluation mode, as peft will get it. ``rank``: components of a matrix at most, the
    largest ones; ``dtype``: float32, or float16 or bfloat16 for half the bytes. ``told`` is called with what will be
    written, before it is.

    Raises StateError when the delta was made for another base, FileError when the files exist and ``overwrite`` is not
    set, and DTSError for tensors that no adapter holds; with ``partial`` those are left out and named in what is
    returned.
    """
    folder = check_folder(folder, overwrite=overwrite)
    plan = _Plan(delta, module, rank, dtype)
    plan.check(partial)
    told(plan.adapter)
    tensors, kept, every = {}, 0.0, 0.0
    for name in plan.factored:
        found, shares = plan.adapted(name)
        tensors |= {f"{name}.{key}": value for key, value in found.items()}
        kept, every = kept + shares[0], every + shares[1]
    for name in plan.biases:
        owner = name.removesuffix(".bias")
        tensors[f"{owner}.base_layer.bias" if owner in plan.factored else name] = plan.rebuilt(name)
    tensors |= {name: plan.rebuilt(name) for name in plan.saved_tensors()}
    data = {f"{PREFIX}{key}": value.cpu().contiguous().clone() for key, value in tensors.items()}
    for key, value in data.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise DTSError(f"{key} does not fit into {value.dtype}; choose bfloat16 or float32")
    folder.mkdir(exist_ok=True)
    made = write_bytes(safetensors.torch.save(data, {"format": "pt"}), folder / f".{WEIGHTS}.new", overwrite=True)
    (folder / CONFIG).unlink(missing_ok=True)  # a kill from here on leaves no adapter, and none that is half of each
    made.replace(folder / WEIGHTS)
    write_json(plan.config(), folder / CONFIG, overwrite=overwrite)
    return replace(plan.adapter, kept=kept / every if every else 1.0)


def plan_lora(
    delta: TaskDelta,
    module: nn.Module,
    *,
    rank: int | None = None,
    dtype: Literal["float32", "float16", "bfloat16"] = "float32",
) -> Adapter:
    """What ``export_lora`` would write, and how many bytes of it; arguments and errors are its own, in a moment.

    >>> module = nn.Sequential(nn.Linear(8, 6, bias=False)).eval()
    >>> delta = compress(module.state_dict(), {"0.weight": torch.eye(6, 8)}, keep_ratio=0.5)
    >>> plan_lora(delta, module).ranks, plan_lora(delta, module, rank=1, dtype="float16").nbytes
    ({'0': 3}, 28)
    """
    return _Plan(delta, module, rank, dtype).adapter


class _Plan:
    """What of a delta goes where in an adapter.

    ``factored``: what differs in each module that gets factors, by leaf: "weight", "bias". ``saved``: the modules that
    are held with all their tensors. ``biases``: names of those that take the place of the base's.
    """

    def __init__(self, delta: TaskDelta, module: nn.Module, rank: int | None, dtype: str) -> None:
        if dtype not in FORMATS:
            raise DTSError(f"dtype is {dtype!r}: choose one of {', '.join(FORMATS)}")
        if rank is not None and rank < 1:
            raise DTSError(f"rank is {rank}: give at least 1, or None for the delta's own")
        self.base = Base(module)
        self.base.check(delta)
        self.delta, self.module, self._rank, self._dtype = delta, module, rank, getattr(torch, dtype)
        self._ends: dict[int, list[str]] = {}  # names of one tensor
        for name, tensor in self.base.tensors.items():
            self._ends.setdefault(id(tensor), []).append(name)
        self._source: dict[str, str] = {}  # a tensor's name in the delta: a checkpoint has tied ones once
        for names in self._ends.values():
            known = [name for name in names if name in delta.parts]
            self._source |= {name: name if name in known else known[0] for name in names if known}
        self._place()
        self.adapter = self._summary()

    def check(self, partial: bool) -> None:
        """DTSError where no adapter can hold what differs, or, with ``partial``, nothing of it as factors."""
        if self.lost and not partial:
            some = f"{', '.join(map(repr, self.lost[:3]))}{' and more' if len(self.lost) > 3 else ''}"
            why = "a module owns whose name peft takes for its own" if "." in self.lost[0] else "the model itself owns"
            mend = "pass --partial (partial=True) to leave them out"
            raise DTSError(f"no LoRA adapter can hold {some}, which {why}; {mend}")
        if not self.factored:
            raise DTSError("no module of this delta has factors: an adapter of it would hold whole modules alone")

    def _place(self) -> None:
        """Decides on ``factored``, ``biases``, ``saved`` and ``lost``."""
        differing: dict[str, dict[str, Part]] = {}  # by module and leaf
        for name, source in self._source.items():
            if not isinstance(part := self.delta.resolved(source), Unchanged) and _rank(part) != 0:
                owner, around, _ = name.partition(".parametrizations.")  # which only its module can hold
                owner = owner if around else name.rpartition(".")[0]
                differing.setdefault(owner, {})[name[len(owner) + bool(owner) :]] = part
        self.lost = sorted(differing.pop("", {}))
        fits = {name for name, leaves in differing.items() if self._takes_factors(name, leaves)}
        for names in self._ends.values():
            fits -= self._clashing(names, differing, fits)
        # Where a bias alone differs, a module that has others within it, a head around an embedding say, is not saved.
        alone = {name for name in differing.keys() - fits if differing[name].keys() == {"bias"}}
        alone = {name for name in alone if [*self.module.get_submodule(name).children()]}
        biased = {name for name in fits if "bias" in differing[name]}
        bare = any(getattr(self.module.get_submodule(name), "bias", None) is None for name in fits)
        replaced = bool(alone) or (bare and bool(biased))
        saved = {attention_around(self.module, name) or name for name in differing.keys() - fits - alone}
        unfit = {name for name in saved if _is_pefts_own(name)}
        self.lost += sorted(f"{name}.{leaf}" for name in unfit for leaf in differing.get(name, ()))
        saved -= unfit
        every = [name for name, _ in self.module.named_modules(remove_duplicate=False) if name]
        # peft saves each module whose name ends with one that is to be saved, and adapts none within it.
        saved |= {full for full in every if any(full.endswith(name) for name in saved)}
        within = lambda name: any(name == other or name.startswith(f"{other}.") for other in saved)
        self.factored = {
            name: differing[name]
            for name in differing
            if name in fits and not within(name) and (not replaced or "weight" in differing[name])
        }
        for full in every:  # so it does with modules to adapt
            if not within(full) and full not in self.factored and any(full.endswith(f".{n}") for n in self.factored):
                if self._takes_factors(full, {}):
                    self.factored[full] = {}
                else:
                    saved.add(full)
        self.saved = sorted(name for name in saved if not within(name.rpartition(".")[0]))
        self.biases = sorted(f"{name}.bias" for name in biased | alone if replaced and not within(name))
        self._lora_bias = not replaced and any("bias" in leaves for leaves in self.factored.values())

    def _takes_factors(self, name: str, leaves: Mapping[str, Part]) -> bool:
        module, weight = self.module.get_submodule(name), leaves.get("weight")
        if f"{name}.weight" not in self.base.tensors:
            return False
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            plain = module.groups == 1 and set(module.dilation) == {1} and module.padding_mode == "zeros"
        else:
            plain = getattr(module, "max_norm", None) is None  # peft applies it to the factors
        fits = leaves.keys() <= {"weight", "bias"} and (weight is None or _rank(weight) is not None)
        return plain and adds_up(module) and fits and not attention_around(self.module, name)

    def _clashing(self, names: list[str], differing: Mapping[str, Mapping[str, Part]], fits: set[str]) -> set[str]:
        """Modules that share a tensor and cannot have factors beside each other: merged, each would change it again.

        These are all but one, and all of them where the tensor changes in only some, or not alike.
        """
        if len(names) == 1:
            return set()
        owners = {name.rpartition(".")[0]: name.rpartition(".")[2] for name in names}
        parts = [differing.get(owner, {}).get(leaf) for owner, leaf in owners.items()]
        able = sorted((owner for owner in owners if owner in fits), key=_is_pefts_own, reverse=True)
        alike = all(part is parts[0] for part in parts)
        one_module = len({id(self.module.get_submodule(owner)) for owner in owners}) == 1
        return set(able[1:] if alike and not one_module else able)

    def _summary(self) -> Adapter:
        ranks, size = {}, self._dtype.itemsize
        sizes = [self._stored(name).nbytes for name in [*self.biases, *self.saved_tensors()]]
        for name, leaves in self.factored.items():
            weight = self.base.tensors[f"{name}.weight"]
            own = _rank(leaves["weight"]) if "weight" in leaves else 1
            ranks[name] = min(own, self._rank or own)
            sizes.append(ranks[name] * (len(weight) + weight[0].numel()) * size)
            if self._lora_bias:
                sizes.append((weight.shape[1] if is_turned(self.module.get_submodule(name)) else len(weight)) * size)
        own = {id(self.base.tensors[name]): self.base.tensors[name] for name in self.delta.parts}
        model = 4 * sum(tensor.numel() for tensor in own.values())
        return Adapter(ranks, tuple(self.saved), tuple(self.lost), sum(sizes), model)

    def saved_tensors(self) -> list[str]:
        """Names of the tensors of ``saved``."""
        return [f"{name}.{leaf}" for name in self.saved for leaf in self.module.get_submodule(name).state_dict()]

    def _stored(self, name: str) -> Tensor:
        """An outline of a tensor that is no factor as it is written: in 16 bits if they are asked for."""
        own = self.base.tensors[name]
        narrow = own.is_floating_point() and self._dtype.itemsize == 2 < own.dtype.itemsize
        return torch.empty(own.shape, dtype=self._dtype if narrow else own.dtype, device="meta")

    def rebuilt(self, name: str) -> Tensor:
        """The expert's tensor; the base's where they do not differ."""
        known = self.base.tensors[name].detach()
        if (source := self._source.get(name)) is not None:
            known = rebuild_tensor(known, self.delta, source)
        return known.to(self._stored(name).dtype)

    def adapted(self, name: str) -> tuple[dict[str, Tensor], tuple[float, float]]:
        """What peft expects of a module with factors; the squared norm of their product that was kept, and all of it.

        Where the weight is the base's, it is a rank of one, all zero.
        """
        module, weight = self.module.get_submodule(name), self.base.tensors[f"{name}.weight"]
        leaves, rank, shares = self.factored[name], self.adapter.ranks[name], (0.0, 0.0)
        if "weight" not in leaves:
            a, b = _zeros(len(weight), 1), _zeros(1, weight[0].numel())
        else:
            a, b = leaves["weight"].factors()
            if self._rank is not None:
                a, b, shares = _capped(a, b, rank)
            if self._dtype.itemsize == 2:
                a, b = _balanced(a, b)
        if isinstance(module, nn.Embedding):
            return {"lora_embedding_A": a.T.to(self._dtype), "lora_embedding_B": b.T.to(self._dtype)}, shares
        if is_turned(module):
            a, b = b.T, a.T
        inner = weight.dim() - 2
        found = {"lora_A.weight": b.reshape(len(b), *weight.shape[1:]) if inner else b}
        found["lora_B.weight"] = a.reshape(*a.shape, *(1,) * inner)
        if self._lora_bias:
            found["lora_B.bias"] = self._gained(f"{name}.bias") if "bias" in leaves else _zeros(len(a))
        return {key: value.to(self._dtype) for key, value in found.items()}, shares

    def _gained(self, name: str) -> Tensor:
        """What a tensor adds to the base's; of one that is kept as the expert has it the part knows no difference."""
        source, known = self._source[name], self.base.tensors[name].detach()
        if (gained := self.delta.remainder(source)) is None:
            gained = rebuild_tensor(known, self.delta, source).cpu().double() - known.cpu().double()
        return gained

    def config(self) -> dict:
        """What stands in ``adapter_config.json``."""
        ranks = self.adapter.ranks
        # Of two patterns that fit a name peft takes the first, and "fc" fits "block.fc" too. A dot would fit any sign.
        patterns = {re.escape(name): ranks[name] for name in sorted(ranks, key=len, reverse=True)}
        return {
            "peft_type": "LORA",
            "task_type": None,
            "base_model_name_or_path": getattr(getattr(self.module, "config", None), "_name_or_path", None) or None,
            "inference_mode": True,
            "r": max(ranks.values()),
            "lora_alpha": max(ranks.values()),
            "rank_pattern": patterns,
            "alpha_pattern": patterns,
            "target_modules": sorted(ranks),
            "modules_to_save": self.saved or None,
            "lora_bias": self._lora_bias,
            "lora_dropout": 0.0,
            "bias": "all" if self.biases else "none",
            "fan_in_fan_out": any(is_turned(self.module.get_submodule(name)) for name in ranks),
        }


def _rank(part: Part) -> int | None:
    """Components of a part; None of one without factors."""
    return part.rank or (None if (factors := part.factors()) is None else len(factors[1]))


def _zeros(*shape: int) -> Tensor:
    """Whatever the caller's defaults."""
    return torch.zeros(shape, dtype=torch.float32, device="cpu")


def _is_pefts_own(name: str) -> bool:
    return any(own.endswith(name) for own in _PEFTS_OWN)


def _capped(a: Tensor, b: Tensor, rank: int) -> tuple[Tensor, Tensor, tuple[float, float]]:
    """The best factors of that rank for A (m x r) B (r x n); the squared norms of their product and of the whole."""
    (u, ru), (v, rv) = torch.linalg.qr(a), torch.linalg.qr(b.T)
    left, s, right = torch.linalg.svd(ru @ rv.T)
    squares = s.double().square()
    shares = float(squares[:rank].sum()), float(squares.sum())
    return u @ (left[:, :rank] * s[:rank]), right[:rank] @ v.T, shares


def _balanced(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The same product of factors of which neither has far larger entries, so that both fit into 16 bits."""
    by = (b.abs().amax(1) / a.abs().amax(0)).sqrt()
    by = torch.where((by > 0) & by.isfinite(), by, 1.0)
    return a * by, b / by[:, None]
