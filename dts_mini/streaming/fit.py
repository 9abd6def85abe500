"""An expert's names brought to the base's: prefixes that tools put before them, and buffers that not every version
stores.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from torch import Tensor

from dts_mini.core.errors import StateError
from dts_mini.core.state import State, outline, some

_WRAPPERS = re.compile(r"^(module\.)+|_orig_mod\.|_fsdp_wrapped_module\.")  # of DataParallel, torch.compile, FSDP
_BUFFERS = re.compile(
    r"(^|\.)(position_ids|token_type_ids|inv_freq|masked_bias|freqs_cis|rope\.freqs|(cos|sin)_cached|attn_mask"
    r"|causal_mask|relative_position_index|relative_coords_table|num_batches_tracked|n_averaged)$"
)


class Fitted(Mapping[str, Tensor]):
    """An expert under the base's names; what it does not store is the base's. ``said``: what was done, a line each."""

    def __init__(self, base: State, expert: State, names: Mapping[str, str | None], said: list[str]) -> None:
        self.base, self.expert, self.names, self.said = base, expert, dict(names), said
        ours, theirs = outline(base), outline(expert)
        self.outline = {name: ours[name] if held is None else theirs[held] for name, held in self.names.items()}

    def __getitem__(self, name: str) -> Tensor:
        held = self.names[name]
        return self.base[name] if held is None else self.expert[held]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def fitted(base: State, expert: State, what: str | Path) -> Fitted:
    """The expert under the base's names, where wrappers, one shared prefix and buffers without weights are all the
    difference.

    Wrappers are those of ``torch.compile``, DataParallel and FSDP; the prefix is one component that all names of one
    side have; the buffers ``position_ids`` and its like are taken from the base where the expert lacks them, and left
    where the base does. StateError where more differs, with ``what``, the expert's path, and what to do.
    """
    ours, theirs = _plain(outline(base)), _plain(outline(expert))
    for one, other in ((ours, theirs), (ours, _without_lead(theirs)), (_without_lead(ours), theirs)):
        if all(_buffer(name, outline(base)[one[name]]) for name in one.keys() - other.keys()) and all(
            _buffer(name, outline(expert)[other[name]]) for name in other.keys() - one.keys()
        ):
            break
    else:
        _refuse_names(ours, theirs, what)
    names = {held: other.get(name) for name, held in one.items()}
    for name, held in names.items():
        if held is not None:
            _check_shape(name, outline(base)[name], outline(expert)[held], what)
    said = []
    if changed := [f"{held!r} is the base's {name!r}" for name, held in names.items() if held not in (None, name)]:
        said.append(f"{what}: its names differ by a prefix: {changed[0]}, and so on for {len(changed)}")
    if lacking := [name for name, held in names.items() if held is None]:
        said.append(f"{what}: lacks {some(lacking)}, which the base stores; taken from there")
    if beyond := [held for name, held in other.items() if name not in one]:
        said.append(f"{what}: stores {some(beyond)}, which the base does not; left out")
    return Fitted(base, expert, names, said)


def _plain(names: Iterable[str]) -> dict[str, str]:
    """Each name by what it is without wrappers; the names themselves where two would be one."""
    found = {_WRAPPERS.sub("", name): name for name in names}
    return found if len(found) == len(list(names)) else {name: name for name in names}


def _without_lead(names: Mapping[str, str]) -> dict[str, str]:
    """The same without the first component, where all names share it, as in "model.layers.0.weight"."""
    leads = {name.partition(".")[0] for name in names}
    return {name.partition(".")[2]: held for name, held in names.items()} if len(leads) == 1 else dict(names)


def _buffer(name: str, tensor: Tensor) -> bool:
    """Whether a tensor holds no weights, but what some versions of a library store and others compute."""
    mask = name.endswith(("attn.bias", "attention.bias")) and tensor.dim() == 4 and tensor.shape[:2] == (1, 1)  # causal
    return bool(_BUFFERS.search(name)) or mask


def _refuse_names(ours: Mapping[str, str], theirs: Mapping[str, str], what: str | Path) -> None:
    missing, beyond = ([m[n] for n in m if n not in other] for m, other in ((ours, theirs), (theirs, ours)))
    words = [f"{word} {some(names)}" for word, names in (("lacks", missing), ("has beyond it", beyond)) if names]
    mend = "pass checkpoints of one model"
    if len(missing) + len(beyond) < len(ours) / 2:
        mend = (
            "if that is a head of its own, compress what both have: open each with transformers' AutoModel, "
            "save_pretrained, pass those folders, and keep the head beside the delta"
        )
    raise StateError(f"{what} does not fit the base: it {' and '.join(words)}; {mend}")


def _check_shape(name: str, one: Tensor, other: Tensor, what: str | Path) -> None:
    if one.shape == other.shape:
        return
    mend = "pass checkpoints of one model"
    if one.dim() == other.dim() > 0 and one.shape[1:] == other.shape[1:]:
        mend = (
            f"if its vocabulary or its head has another size, give the base the same first, as in "
            f"base.resize_token_embeddings({other.shape[0]}), save it, and compress over that"
        )
    raise StateError(
        f"tensor {name!r} has shape {tuple(other.shape)} in {what} and {tuple(one.shape)} in the base; {mend}"
    )
