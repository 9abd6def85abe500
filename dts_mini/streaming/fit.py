"""An expert's names brought to the base's: prefixes that tools put before them, and buffers that not every version
stores.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NoReturn

from torch import Tensor

from dts_mini.core.errors import StateError
from dts_mini.core.state import FACTOR, State, as_bytes, check_outline, digest, is_computed, outline, some

_WRAPPERS = re.compile(r"^(module\.)+|_orig_mod\.|_fsdp_wrapped_module\.")  # of DataParallel, torch.compile, FSDP
_BUFFERS = re.compile(
    r"(^|\.)(position_ids|token_type_ids|inv_freq|masked_bias|freqs_cis|rope\.freqs|(cos|sin)_cached|attn_mask"
    r"|causal_mask|relative_position_index|relative_coords_table|num_batches_tracked|n_averaged)$"
)
_MOST_ENDS = 4  # of a tie, or of several, that one file stores and another does not: T5 has three


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
    """The expert under the base's names, where wrappers, one shared prefix, buffers without weights, and which end of a
    tie is stored are all the difference.

    Wrappers are those of ``torch.compile``, DataParallel and FSDP; the prefix is one component that all names of one
    side have; the buffers ``position_ids`` and its like are taken from the base where the expert lacks them, and left
    where the base does. Ends of a tie are told by their values, or by what safetensors' ``save_model`` has noted.
    StateError where more differs, with ``what``, the expert's path, and what to do.
    """
    check_outline(expert, str(what))
    check_outline(base, "base")
    ours, theirs = _plain(outline(base)), _plain(outline(expert))
    for one, other in ((ours, theirs), (ours, _without_lead(theirs)), (_without_lead(ours), theirs)):
        if (found := _matched(base, expert, one, other)) is not None:
            matched, ends = found
            break
    else:
        _refuse_coded(outline(base), "base")
        _refuse_coded(outline(expert), what)
        _refuse_names(ours, theirs, what)
    names = {one[name]: None if end is None else other[end] for name, end in matched.items()}
    for name, held in names.items():
        if held is not None:
            _check_shape(name, outline(base)[name], outline(expert)[held], what)
    said, same = [], [(other[end], one[name]) for name, end in matched.items() if name == end]
    if changed := [f"{held!r} is the base's {name!r}" for held, name in same if held != name]:
        said.append(f"{what}: its names differ by a prefix: {changed[0]}, and so on for {len(changed)}")
    if lacking := [name for name, held in names.items() if held is None]:
        said.append(f"{what}: lacks {some(lacking)}, which the base stores; taken from there")
    if tied := [
        f"{one[name]!r}, tied to its {other[end]!r}" for name, end in matched.items() if end not in (None, name)
    ]:
        said.append(f"{what}: lacks {', '.join(tied)}; taken from there")
    left = other.keys() - matched.values()
    if beyond := [held for name, held in other.items() if name in left and name not in ends]:
        said.append(f"{what}: stores {some(beyond)}, which the base does not; left out")
    if tied := [f"{other[name]!r}, tied to {other[end]!r}" for name, end in ends.items()]:
        said.append(f"{what}: stores {', '.join(tied)}, which the base stores once; left out")
    return Fitted(base, expert, names, said)


def _matched(
    base: State, expert: State, one: Mapping[str, str], other: Mapping[str, str]
) -> tuple[dict[str, str | None], dict[str, str]] | None:
    """For each of the base's names the expert's, or None of a buffer that it lacks; and those of the expert that are
    left out, as each is tied to another. None where that is not all that differs.

    ``one``, ``other``: the names of both by what they are without prefixes.
    """
    both = one.keys() & other.keys()
    matched: dict[str, str | None] = {name: name for name in one if name in both}
    lacking = [n for n in one if n not in both and not _buffer(n, outline(base)[one[n]])]
    beyond = [n for n in other if n not in both and not _buffer(n, outline(expert)[other[n]])]
    if max(len(lacking), len(beyond)) > _MOST_ENDS:
        return None
    noted = [*((kept, name) for name, kept in _noted(base).items()), *_noted(expert).items()]
    for name in lacking:
        end = next((end for each, end in noted if each == name and end in other), None) or _tied(base, one, name, both)
        if end is None:
            return None
        matched[name] = end
    matched |= {name: None for name in one if name not in matched}
    taken = {end for end in matched.values() if end is not None}
    ends = {name: _tied(expert, other, name, taken) for name in beyond if name not in taken}
    return None if None in ends.values() else (matched, ends)


def _noted(state: State) -> dict[str, str]:
    """Names that ``safetensors.torch.save_model`` left out of a file, each with the one that it is tied to."""
    noted, held = getattr(state, "metadata", {}), outline(state)
    return {name: kept for name, kept in noted.items() if kept in held and name not in held}


def _tied(state: State, names: Mapping[str, str], name: str, among: Iterable[str]) -> str | None:
    """Of the names ``among`` one under which a state holds the same matrix; a copy of a layer is no tie."""
    tensors, own = outline(state), outline(state)[names[name]]
    kind = lambda each: re.sub(r"\d+", "", each)
    like = [n for n in among if tensors[names[n]].shape == own.shape and kind(n) != kind(name)]
    if own.dim() < 2 or not own.numel() or not like:
        return None
    values = as_bytes(state[names[name]]).reshape(-1, own.element_size())
    if (values == values[0]).all():  # as many layers begin
        return None
    wanted = digest(state[names[name]])
    return next((n for n in sorted(like) if digest(state[names[n]]) == wanted), None)


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


def _refuse_coded(tensors: State, what: str | Path) -> None:
    """Scales beside floats of 8 bits are no heads."""
    for name, x in tensors.items():
        if x.is_floating_point() and not is_computed(x.dtype):
            raise StateError(
                f"{what}, tensor {name!r}: is {x.dtype}, as quantised weights are; dequantise the model first"
            )


def _refuse_names(ours: Mapping[str, str], theirs: Mapping[str, str], what: str | Path) -> NoReturn:
    missing, beyond = ([m[n] for n in m if n not in other] for m, other in ((ours, theirs), (theirs, ours)))
    words = [f"{word} {some(names)}" for word, names in (("lacks", missing), ("has beyond it", beyond)) if names]
    mend = "pass checkpoints of one model, saved alike, as by save_pretrained"
    if factors := [name for name in (*beyond, *missing) if FACTOR.search(name)]:
        mend = (
            f"{factors[0]!r} is of a LoRA adapter: make a delta of its folder by dts-mini import-lora, or merge it "
            "with peft (merge_and_unload), save that model, and pass its folder"
        )
    elif max(len({*ours} & _short(theirs)), len(_short(ours) & {*theirs}), len({*ours} & {*theirs})) > len(ours) / 2:
        mend = (
            "if that is a head of its own, or how another version calls the same, compress what both have: open each "
            "with transformers' AutoModel, save_pretrained, pass those folders, and keep a head beside the delta"
        )
    raise StateError(f"{what} does not fit the base: it {' and '.join(words)}; {mend}")


def _short(names: Iterable[str]) -> set[str]:
    """The names without the first component that most of them have, where they have it."""
    names = list(names)
    ((lead, _),) = Counter(name.partition(".")[0] for name in names).most_common(1)
    return {name.removeprefix(f"{lead}.") for name in names}


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
