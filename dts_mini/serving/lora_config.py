"""What a LoRA adapter's ``adapter_config.json`` says, read field by field as peft 0.21 reads it.

A field that is not known here, or has a value that is not, is refused: what a newer peft adds may change what the
tensors mean. The way out is named with it, as a rule to merge the adapter with peft and to compress the merged model.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from dts_mini.core.errors import FileError
from dts_mini.core.file import check_writable, read_json

PREFIX = "base_model.model."
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

MERGE = "merge it with peft (merge_and_unload), save that model, and compress it"
_CONVERT = (
    "it changes the base as well: save it with peft's path_initial_model_for_weight_conversion (for PiSSA, OLoRA, "
    f"CorDA and LoRA-GA), which makes plain LoRA of it, or {MERGE}"
)

_HARMLESS = {
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",  # this and the next, of ways to begin that are refused themselves
    "eva_config",
    "inference_mode",
    "loftq_config",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
}
"""Fields that change nothing in evaluation, whatever they hold."""


_LARGEST = 1.7e308  # as a float; JSON's whole numbers have no end


def _is_names(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(name, str) for name in value))


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_off(value: Any) -> bool:
    """Whether a field that is not known here is not used."""
    return value is None or value is False or value in ([], {}, "")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _is_rank(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_pattern(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or (isinstance(value, dict) and all(map(check, value.values())))


_READ: dict[str, Callable[[Any], bool]] = {
    "alpha_pattern": _is_pattern(_is_number),
    "bias": lambda value: value in ("none", "all", "lora_only"),
    "ensure_weight_tying": _is_flag,  # which ends of a tie are changed is seen from the tensors
    "exclude_modules": lambda value: isinstance(value, str) or _is_names(value),
    "fan_in_fan_out": _is_flag,  # peft corrects it by the module's class, and so it is not looked at
    "init_lora_weights": lambda value: (
        isinstance(value, bool) or (isinstance(value, str) and value in ("gaussian", "eva", "orthogonal", "mica"))
    ),
    "layers_pattern": lambda value: isinstance(value, str) or _is_names(value),
    "layers_to_transform": lambda value: (
        value is None or _is_count(value) or (isinstance(value, list) and all(map(_is_count, value)))
    ),
    "lora_alpha": _is_number,
    "lora_bias": _is_flag,
    "modules_to_save": _is_names,
    "r": _is_rank,
    "rank_pattern": _is_pattern(_is_rank),
    "target_modules": lambda value: isinstance(value, str) or (_is_names(value) and value is not None),
    "use_rslora": _is_flag,
}
"""Fields that are read, each with the values that are understood."""


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_PATTERNS = (
    "rank_pattern",
    "alpha_pattern",
    "target_modules",
    "exclude_modules",
    "layers_pattern",
    "modules_to_save",
)

_WAYS_OUT = {
    "alora_invocation_tokens": "it acts from its invocation tokens on, which no weights express: run it with peft",
    "arrow_config": "it chooses among adapters for each token, which no weights express: run it with peft",
    "init_lora_weights": _CONVERT,
    "layer_replication": "it adds layers: save the model with its layers replicated, and use that as the base",
    "megatron_config": "its layers are Megatron's own: merge it there",
    "monteclora_config": "it draws its weights at random: run it with peft",
}


class LoraSettings:
    """The settings of one adapter; FileError, which names the field, for any that is not understood."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / CONFIG
        self._config = read_config(self.path)
        if (kind := self._config.get("peft_type")) != "LORA":
            raise FileError(f"{self.path}: is an adapter of the kind {kind!r}; only LORA is read: {MERGE}")
        for field, value in self._config.items():
            if field in _HARMLESS or (field in _READ and _READ[field](value)):
                continue
            if field in _READ or not _is_off(value):
                said = f"{field} is {_shown(value)}"
                raise FileError(f"{self.path}: {said}, which is not read here; {_WAYS_OUT.get(field, MERGE)}")
        if "target_modules" not in self._config:
            raise FileError(f"{self.path}: names no target_modules; load the adapter with peft, and save it again")
        for field in _PATTERNS:
            value = self._config.get(field)
            for pattern in [value] if isinstance(value, str) else value or ():
                try:
                    re.compile(pattern)
                except re.error as error:
                    raise FileError(f"{self.path}: {field} {pattern!r} is no pattern ({error}); mend it") from error

    def rank(self, module: str) -> int:
        return self._of(module, "rank_pattern", self._config.get("r", 8))

    def scaling(self, module: str) -> float:
        """alpha / r, or alpha / sqrt(r) of rsLoRA (arXiv 2312.03732), where patterns may set the module's own."""
        alpha, rank = self._of(module, "alpha_pattern", self._config.get("lora_alpha", 8)), self.rank(module)
        return alpha / (rank**0.5 if self._config.get("use_rslora") else rank)

    def _of(self, module: str, patterns: str, common: Any) -> Any:
        own = (self._config.get(patterns) or {}).items()
        return next((value for pattern, value in own if re.match(rf"(.*\.)?({pattern})$", module)), common)

    @property
    def lora_bias(self) -> bool:
        return self._config.get("lora_bias", False)

    @property
    def modules_to_save(self) -> list[str]:
        return self._config.get("modules_to_save") or []

    @property
    def ensure_weight_tying(self) -> bool:
        return self._config.get("ensure_weight_tying", False)

    def saves(self, name: str) -> bool:
        """Whether peft saves the module of this name with all its tensors."""
        return any(name.endswith(saved) for saved in self.modules_to_save)

    def targets(self, name: str, module: nn.Module, root: nn.Module) -> bool:
        """Whether peft adapts this module of the model ``root``. It takes no notice of an adapter's other tensors."""
        config, target = self._config, self._config["target_modules"]
        if _named(name, config.get("exclude_modules") or []):
            return False
        if any(re.match(rf"(^|.*\.){saved}($|\..*)", name) for saved in self.modules_to_save):
            return False
        if isinstance(target, str) and target.lower() == "all-linear":
            output = getattr(root, "get_output_embeddings", lambda: None)()
            return (isinstance(module, nn.Linear) or is_turned(module)) and module is not output
        if isinstance(target, str) or name in target:
            return _named(name, target)
        layers = config.get("layers_to_transform")
        if not _named(name, target) or layers is None or layers == []:
            return _named(name, target)
        patterns = config.get("layers_pattern") or r"[^.]*"
        for pattern in [patterns] if isinstance(patterns, str) else patterns:
            start = r".*?\." if pattern == r"[^.]*" else r"(?:^|.*?\.)"
            if found := re.match(rf"{start}{pattern}\.(\d+)\.", name):
                return int(found[1]) in (layers if isinstance(layers, list) else [layers])
        return False


def check_folder(folder: str | Path, *, overwrite: bool = False) -> Path:
    """The folder, once it is sure that an adapter may be put there; FileError else."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise FileError(f"{folder}: is a file; name a folder")
    if not folder.parent.is_dir():
        raise FileError(f"{folder}: the folder {folder.parent} does not exist; make it first")
    if (folder / "config.json").exists():  # transformers would load the adapter with the model, from then on
        raise FileError(f"{folder}: holds a model (config.json); name a folder of its own")
    for name in (CONFIG, WEIGHTS) if folder.is_dir() else ():
        check_writable(folder / name, overwrite=overwrite)
    return folder


def check_adapter(folder: Path) -> Path:
    """The folder, once it is sure that an adapter is there; FileError, which says where else one may be."""
    if folder.is_file():
        raise FileError(f"{folder}: is a file; pass the adapter's folder, {folder.parent}")
    if folder.is_dir() and not (folder / CONFIG).is_file():
        within = [path.parent.name for path in sorted(folder.glob(f"*/{CONFIG}"))]
        mend = f"pass one of those within: {', '.join(within[:3])}" if within else "pass the folder that peft saved"
        raise FileError(f"{folder}: holds no adapter ({CONFIG}); {mend}")
    return folder


def read_config(path: Path) -> dict:
    """A JSON file that holds an object; FileError else."""
    config = read_json(path)
    if not isinstance(config, dict):
        raise FileError(f"{path}: holds no settings; copy it again")
    return config


def is_turned(module: nn.Module) -> bool:
    """Whether it is transformers' ``Conv1D``: a linear layer whose weight is (in, out)."""
    return type(module).__name__ == "Conv1D" and type(module).__module__.startswith("transformers.")


def adds_up(module: nn.Module) -> bool:
    """Whether a change of the weight adds to the output what the factors of the change add to it in peft."""
    kinds = (nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    own = next((kind for kind in kinds if isinstance(module, kind)), None)
    scaled = own is nn.Embedding and hasattr(module, "embed_scale")  # by which peft multiplies as well
    return is_turned(module) or scaled or (own is not None and type(module).forward is own.forward)


def attention_around(root: nn.Module, name: str) -> str | None:
    """The module that ``name`` is or lies in, and that reads its parts' weights without calling them, if there is one.

    That is PyTorch's attention, and its transformer layer, which has a fast path.
    """
    steps, kinds = name.split("."), (nn.MultiheadAttention, nn.TransformerEncoderLayer)
    around = (".".join(steps[:end]) for end in range(1, len(steps) + 1))
    return next((each for each in around if isinstance(root.get_submodule(each), kinds)), None)


def _named(name: str, targets: list[str] | str) -> bool:
    """Whether a module's name is meant: by a pattern as a whole, by a list also by its end."""
    if isinstance(targets, str):
        return re.fullmatch(targets, name) is not None
    return any(name == target or name.endswith(f".{target}") for target in targets)


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
