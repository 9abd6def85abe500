"""State dicts: what must hold of them before any work, and how one is recognised.

A state dict may stay on disk (``dts_mini.streaming.checkpoint``): nothing here holds more than one tensor of each.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import numpy as np
import torch
import xxhash
from torch import Tensor

from dts_mini.core.errors import StateError

State = Mapping[str, Tensor]
FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

# Names, in small letters: what a layer counts of its inputs, in the words of many libraries.
_KIND = r"(mean|avg|average|var|variance|std|inv_std|cov|covariance|abs_?max|min|max|sum|count|m2|ms|mean_sq)s?"
STATISTIC = re.compile(
    rf"((^|[./_])((running|moving)_?((avg|average)_)?{_KIND}|num_batches_tracked|(avg|ema)_{_KIND}"
    r"|(mean|var|std)_(ema|avg)([./](average|hidden))?|(ema_)?cluster_size|embed(ding)?_avg|magnitude_ema|w_avg)"
    r"|(^|[./])((min|max)_vals?|_mean|_var(iance)?|_std)|(^|[./])batch_stats[./](.*[./])?(mean|var))([._:]?\d+)?$"
)
_DIRECTION = re.compile(r"(^|\.)parametrizations\.\w+\.\d+\._[uv]$")
# Last parts of names: weights; codes; what lies beside codes; what integers honestly are.
WEIGHT = re.compile(r"(^|_)(q?weights?|q?kernel|qidxs)(_|$)")
CODED = re.compile(r"(^|_)(q|b|codes?|packed|trellis)$")
CODEBOOK = ("codebook", "codebooks", "centroids", "lut", "lookup_table", "palette")
SCALE = (
    *("scale", "scales", "scale_inv", "scaling_factor", "scb", "absmax", "absmean", "step_size", "delta", "s", "suh"),
    *("svh", "zero", "zeros", "zero_point", "zero_points", *CODEBOOK),
)
INDEX = re.compile(r"(^|_)(idx|index|indices)$")
NO_WEIGHT = re.compile(
    r"(^|_)(masks?|tril|triu|causal|bias|ids?|idx|index|indices|positions?|counts?|counter|num|tracked|steps?|epoch|"
    r"version|shape|sizes?|lengths?|offsets?|order|perm|format|type|labels?|seed|rng|q?zeros?|points?|scales?|"
    r"enabled)(_|$)"
)
TABLE = re.compile(r"(^|_)(tables?|maps?|rand|buckets?|lookup|adj|adjacency|edges?|neighbou?rs?|graph|grid)(_|$)")
CODES = re.compile(r"torch\.(u?int[1-7]$|q|bits)")  # dtypes that hold codes alone
NESTED = re.compile(r"(.+)\.(nested_)?(absmax|quant_map|quant_state(\..*)?)$")  # beside 4 bits, packed into any dtype


FACTOR = re.compile(r"(?P<lora>(^|[._])lora[._](embedding_)?)(?P<side>A|B|down|up)(?=\.|$)")
"""In the name of one of two matrices whose product is what a LoRA adapter adds: which of them it is."""
_SIDES = {"A": "B", "down": "up"}


def exactly(function: Callable) -> Callable:
    """The function without gradients and without autocast, which would compute in fewer bits than are stored."""
    return torch.no_grad()(torch.autocast("cpu", enabled=False)(torch.autocast("cuda", enabled=False)(function)))


def outline(state: State) -> State:
    """Tensors that tell each name, shape and dtype, though perhaps no values: what can be known without reading.

    A state dict in memory is its own outline; one that stays on disk (``Checkpoint``) has one of meta tensors.

    >>> outline({"w": torch.ones(2)})
    {'w': tensor([1., 1.])}
    """
    return getattr(state, "outline", state)


def is_statistic(name: str) -> bool:
    """Whether a tensor of this name holds what a layer has counted of its inputs, and is no weight.

    ``running_mean``, ``running_var``, ``num_batches_tracked`` and the like (``moving_variance``, ``running_std``),
    whatever the module is called, and their like in other libraries: ``avg_var``, ``ema_var``, ``cluster_size``,
    ``min_val`` of an observer, ``mean`` and ``var`` in ``batch_stats``; a number may follow (``running_var.0``). Such
    tensors are not to be extrapolated, elected by sign or rounded into groups.

    >>> is_statistic("layer1.0.bn1.running_var"), is_statistic("layer1.0.bn1.weight")
    (True, False)
    """
    return STATISTIC.search(name.lower()) is not None


def directions(names: Collection[str]) -> frozenset[str]:
    """Those of the vectors u and v by which ``spectral_norm`` measures its weight, found for that weight alone.

    >>> sorted(directions(["fc.weight_orig", "fc.weight_u", "fc.weight_v", "out.weight_g", "out.weight_v"]))
    ['fc.weight_u', 'fc.weight_v']
    """
    found = (name for name in names if name[-2:] in ("_u", "_v"))
    return frozenset(name for name in found if _DIRECTION.search(name) or f"{name[:-2]}_orig" in names)


def unmixed(name: str) -> StateError:
    """The error for vectors of several weights that are to be made one: their mean measures no weight."""
    return StateError(
        f"tensor {name!r} differs, and is found by spectral_norm for one weight alone: make that permanent in each "
        "model first (torch.nn.utils.parametrize.remove_parametrizations, remove_spectral_norm)"
    )


def factors(names: Collection[str]) -> dict[str, str]:
    """The first and the second factor of each pair that makes a weight of a LoRA adapter, by their names.

    >>> factors(["q.lora_A.weight", "q.lora_B.weight", "q.weight", "k.lora_A.weight"])
    {'q.lora_A.weight': 'q.lora_B.weight'}
    """
    found = {name: FACTOR.sub(lambda m: m["lora"] + _SIDES.get(m["side"], m["side"]), name) for name in names}
    return {name: other for name, other in found.items() if other != name and other in found}


def quantised(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor that holds codes of quantised weights, None where there is none.

    Names, dtypes and shapes tell, values are not read. Codes are

    - tensors of a dtype for codes alone (``torch.quint8``, ``torch.int4``);
    - integers that are called weights: ``weight``, ``qweight``, ``weight_packed``, ``kernel``; of one dimension those
      of 8 bits alone, as others may be weights of classes;
    - integers of at most 32 bits with a scale, step or codebook beside them that is called after them (``w_scale``, or
      ``w_scales`` of ``w_codes``), whatever else there is;
    - the same with one that is simply called ``scale``, ``zeros``, ``s``, ``delta``, ``lut``, where their module holds
      no floating matrix to be its weight, or they are called codes. Integers of 32 bits pass where that is one number,
      or where they are called a table, map or graph: honest models have such, too;
    - indices (``idx``, ``indices``) of two dimensions or more into a codebook in their module;
    - whatever has an ``absmax``, ``quant_map`` or ``quant_state`` of its own: 4 bits, packed into any dtype.

    Other integers that are called ids, index, mask, count, position or the like are what their names say.

    >>> quantised({"fc.qweight": torch.ones(4, 4, dtype=torch.int8), "fc.scales": torch.ones(4)})
    'fc.qweight'
    >>> quantised({"fc.weight": torch.ones(4, 4), "fc.scale": torch.ones(4), "position_ids": torch.arange(4)})
    """
    sizes = {name.lower(): x.numel() for name, x in tensors.items()}
    packed = {match[1] for name in tensors if (match := NESTED.match(name))}
    matrices = [name.lower().rpartition(".") for name, x in tensors.items() if x.is_floating_point() and x.dim() > 1]
    weighed = {module for module, _, last in matrices if last.removeprefix("weight").lstrip("_") not in SCALE}
    for name, x in tensors.items():
        module, dot, last = name.lower().rpartition(".")
        if name in packed or CODES.match(str(x.dtype)):
            return name
        if x.is_floating_point() or x.is_complex():
            continue
        own = {f"{last}.", f"{last}_", f"{last}._", last[: last.rfind("_") + 1] or f"{last}_"}
        few_bits = x.dtype != torch.bool and x.element_size() <= (4 if x.dim() > 1 else x.dim())

        def beside(words: Sequence[str], stems: Iterable[str], module: str = module + dot) -> list[int]:
            """How many values each tensor in the module has that is called one of these stems and words."""
            every = (f"{module}{stem}{word}{end}" for stem in stems for word in words for end in ("", ".weight"))
            return [sizes[name] for name in every if name in sizes]

        bare = ("", "_", "weight_") if module not in weighed or CODED.search(last) else ()
        if NO_WEIGHT.search(last):
            indices = few_bits and x.dim() > 1 and INDEX.search(last)
            if indices and beside(CODEBOOK, {*own, *bare}):
                return name
            continue
        if WEIGHT.search(last) and (x.dim() > 1 or x.element_size() == 1):
            return name
        if few_bits and beside(SCALE, own):
            return name
        found = beside(SCALE, bare) if few_bits else []
        if found and (x.element_size() < 4 or CODED.search(last) or (max(found) > 1 and not TABLE.search(last))):
            return name
    return None


def check_state(state: State, what: str) -> None:
    """StateError unless ``state`` holds tensors, some of them floating, none quantised, and only finite numbers.

    >>> check_state({"w": torch.tensor([1.0, float("inf")])}, "expert")
    Traceback (most recent call last):
    dts_mini.core.errors.StateError: expert, tensor 'w': 1 of 2 values are NaN or infinite; mend it first
    """
    check_outline(state, what)
    for name in state:
        check_values(state[name], name, what)


def check_alike(states: Mapping[str, State]) -> None:
    """StateError unless these state dicts, by what they are called, can be worked on together.

    Their tensors must pass ``check_outline`` and ``check_tensors``, and have the names and shapes of the first one's.

    >>> check_alike({"base": {"w": torch.ones(2)}, "expert": {"w": torch.ones(3)}})
    Traceback (most recent call last):
    dts_mini.core.errors.StateError: tensor 'w' has shape (3,) in the expert and (2,) in the base; ...
    """
    (first, like), *others = states.items()
    for what, state in states.items():
        check_outline(state, what)
    for what, state in others:
        check_same_layout(like, state, what, first)
    for name in like:
        # One at a time, as long as there is nothing to compare: from disk, none is held longer than it takes.
        if not all(_is_fit(state[name], name, what) for what, state in states.items()):
            check_tensors([state[name] for state in states.values()], name, list(states))


def check_outline(state: State, what: str) -> None:
    """StateError unless ``state`` holds tensors of dtypes that can be worked on, some floating, none quantised.

    >>> check_outline({"fc.weight": torch.ones(2, 2, dtype=torch.int8), "fc.weight_scale": torch.ones(2)}, "expert")
    Traceback (most recent call last):
    dts_mini.core.errors.StateError: expert, tensor 'fc.weight': holds codes of quantised weights (torch.int8), ...
    """
    if not isinstance(state, Mapping):
        raise StateError(
            f"the {what} is not a state dict: pass a dict of names and tensors, as model.state_dict() gives"
        )
    tensors = outline(state)
    for name, tensor in tensors.items():
        if not (isinstance(name, str) and _is_text(name)):
            raise StateError(
                f"the {what} is not a state dict: {name!r} is no name of a tensor; pass a dict of names and tensors, "
                "as model.state_dict() gives"
            )
        if not isinstance(tensor, Tensor):
            raise StateError(
                f"the {what} is not a state dict: {name!r} is no tensor ({type(tensor).__name__}); pass a dict of "
                "names and tensors, as model.state_dict() gives, of a model that is not quantised"
            )
        if hasattr(type(tensor), "__tensor_flatten__"):
            raise StateError(
                f"{what}, tensor {name!r}: {type(tensor).__name__} keeps its values in other tensors; pass a plain one "
                "(its dequantize(), full_tensor() or the like)"
            )
    if not tensors:
        raise StateError(f"the {what} is an empty state dict: there is nothing to work on")
    if (name := quantised(tensors)) is not None:
        raise StateError(
            f"{what}, tensor {name!r}: holds codes of quantised weights ({tensors[name].dtype}), of which neither "
            "differences nor means mean anything; dequantise the model first, with the library that quantised it"
        )
    if not any(tensor.is_floating_point() for tensor in tensors.values()):
        if found := [name for name, tensor in tensors.items() if tensor.is_complex()]:
            raise _uncomputed(tensors[found[0]].dtype, found[0], what)
        raise StateError(f"the {what} holds only integers: quantised models cannot be compressed, pass the float one")


def check_tensors(tensors: Sequence[Tensor], name: str, whats: Sequence[str]) -> None:
    """StateError, naming it and which of ``whats``, unless each tensor called ``name`` is fit to be worked on.

    Each must be there, dense and finite. A constant need not be finite, as a causal mask of -inf, nor of a dtype that
    is computed with, as complex rotations: tensors that are equal bit by bit in all state dicts (once in one dtype)
    pass, and are to be kept as they are.

    >>> mask = torch.tensor([0.0, float("-inf")])
    >>> check_tensors([mask, mask.half()], "mask", ["base", "expert"])
    """
    fit = [_is_fit(tensor, name, what) for tensor, what in zip(tensors, whats, strict=True)]
    constant = len(fit) > 1 and not any(fit) and _equal_bits(tensors)
    for is_fit, tensor, what in zip(fit, tensors, whats, strict=True):
        if not is_fit and not constant:
            check_values(tensor, name, what)


def check_values(tensor: Tensor, name: str, what: str) -> None:
    """StateError unless a tensor of the state dict ``what`` is there, dense, and holds only finite numbers.

    >>> check_values(torch.empty(2, device="meta"), "w", "expert")
    Traceback (most recent call last):
    dts_mini.core.errors.StateError: expert, tensor 'w': meta and sparse tensors are not supported; load or densify it
    """
    if not _is_fit(tensor, name, what):
        if not is_computed(tensor.dtype):
            raise _uncomputed(tensor.dtype, name, what)
        bad = int((~torch.isfinite(tensor)).sum())
        raise StateError(
            f"{what}, tensor {name!r}: {bad} of {tensor.numel()} values are NaN or infinite; mend it first"
        )


def all_finite(tensor: Tensor) -> bool:
    """Whether a tensor holds neither NaN nor infinity, in a dtype that is computed with; integers always do.

    >>> all_finite(torch.ones(2)), all_finite(torch.tensor([1.0, float("nan")]))
    (True, False)
    """
    if not is_computed(tensor.dtype):
        return False
    # A sum is finite only where every term is, and ten times cheaper; it may overflow, hence the second look.
    return bool(not tensor.is_floating_point() or tensor.sum().isfinite() or torch.isfinite(tensor).all())


def is_computed(dtype: torch.dtype) -> bool:
    """Whether differences and means can be taken of a dtype: of complex numbers and floats of 8 bits there are none.

    >>> is_computed(torch.float16), is_computed(torch.complex64)
    (True, False)
    """
    return dtype in FLOATING or not (dtype.is_floating_point or dtype.is_complex)


def _uncomputed(dtype: torch.dtype, name: str, what: str) -> StateError:
    mend = "give its real and imaginary parts as two tensors" if dtype.is_complex else "dequantise the model"
    return StateError(
        f"{what}, tensor {name!r}: {dtype} is not supported, but as a constant that is equal in all; {mend} first"
    )


def _is_text(name: str) -> bool:
    """Whether a file can hold a name: half of a surrogate pair is in no file."""
    return name.isascii() or not re.search("[\ud800-\udfff]", name)


def _is_fit(tensor: Tensor, name: str, what: str) -> bool:
    """Whether it is finite; StateError unless it is there and dense."""
    if tensor.is_meta or tensor.layout != torch.strided:
        raise StateError(f"{what}, tensor {name!r}: meta and sparse tensors are not supported; load or densify it")
    return all_finite(tensor)


def _equal_bits(tensors: Sequence[Tensor]) -> bool:
    first, dtype = tensors[0], tensors[0].dtype
    if not all(is_computed(tensor.dtype) or tensor.dtype == dtype for tensor in tensors):
        return False  # of which no dtype holds both
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return all(np.array_equal(as_bytes(first.to(dtype)), as_bytes(tensor.to(dtype))) for tensor in tensors[1:])


def check_same_layout(base: State, other: State, what: str, base_what: str = "base") -> None:
    """StateError unless both have the same names and shapes, and are floating, and complex, in the same places."""
    base, other = outline(base), outline(other)
    missing, extra = [n for n in base if n not in other], [n for n in other if n not in base]
    if missing or extra:
        parts = [f"{label} {some(names)}" for label, names in (("lacks", missing), ("has beyond it", extra)) if names]
        raise StateError(
            f"the {what} does not fit the {base_what}: it {' and '.join(parts)}; pass checkpoints of one model"
        )
    for name, tensor in base.items():
        if tensor.shape != other[name].shape:
            raise StateError(
                f"tensor {name!r} has shape {tuple(other[name].shape)} in the {what} and {tuple(tensor.shape)} in the "
                f"{base_what}; pass checkpoints of one model"
            )
        kinds = [(x.dtype.is_floating_point, x.dtype.is_complex) for x in (tensor, other[name])]
        if kinds[0] != kinds[1]:
            raise StateError(
                f"tensor {name!r} is {other[name].dtype} in the {what} and {tensor.dtype} in the {base_what}"
            )


def check_pair(base: State, expert: State, what: str = "expert") -> tuple[dict[str, Tensor], frozenset[str]]:
    """The expert's outline in name order, and its ``directions``; StateError unless all but its values fit the base."""
    check_outline(base, "base")
    check_outline(expert, what)
    check_same_layout(base, expert, what)
    found = dict(sorted(outline(expert).items()))
    return found, directions(found)


def examine(
    base: State, expert: State, name: str, what: str = "expert", any_value: bool = False
) -> tuple[tuple[str, str], bool, bool]:
    """A tensor's digests in base and expert; whether it is the same in both, up to the expert's dtype; and a statistic.

    One that is may hold what it likes, as a mask of infinities or complex rotations do. StateError where one that is
    not holds NaN or infinity, unless ``any_value`` is welcome, or has a dtype that is not computed with. One tensor is
    held at a time where they have one dtype.
    """
    digests, finite, dtypes = [], [], []
    for state, seen in ((base, "base"), (expert, what)):
        tensor = state[name].detach()
        finite.append(_is_fit(tensor, name, seen))
        digests.append(digest(tensor))
        dtypes.append(tensor.dtype)
        del tensor
    same = digests[0] == digests[1]
    if not same and dtypes[0] != dtypes[1]:
        same = digest(base[name].detach().to(dtypes[1])) == digests[1]
    if not (same or all(finite) or (any_value and all(map(is_computed, dtypes)))):
        at = finite.index(False)
        check_values((base, expert)[at][name], name, ("base", what)[at])
    return tuple(digests), same, is_statistic(name)


def fingerprint(state: State) -> str:
    """32 hex digits that stand for names, dtypes, shapes and values of a state dict, in any order.

    It tells one checkpoint from another by mistake, not by malice.
    """
    return seal({name: digest(state[name]) for name in state})


def recognise(base: State, known: Sequence[tuple[str, State]]) -> dict[str, str]:
    """The digests of a base's tensors; StateError unless it is what deltas know of it: fingerprint and outline."""
    digests = {name: digest(base[name]) for name in base}
    found = seal(digests)
    for wanted, layout in known:
        if found != wanted:
            raise StateError(
                f"this base (fingerprint {found}) is not the one that the delta was made for ({wanted}); "
                "pass that base, in the dtype it had"
            )
        check_same_layout(base, layout, "delta")
    return digests


def seals(digests: Mapping[str, tuple[str, str]]) -> tuple[str, str]:
    """The fingerprints of two state dicts, from the pairs of their tensors' digests."""
    return tuple(seal({name: pair[i] for name, pair in digests.items()}) for i in (0, 1))


def seal(digests: Mapping[str, str]) -> str:
    """The fingerprint of the state dict whose tensors have these digests (XXH3-128, in name order)."""
    return xxhash.xxh3_128_hexdigest("".join(f"{name} {digests[name]};" for name in sorted(digests)).encode())


def digest(tensor: Tensor) -> str:
    """32 hex digits that stand for dtype, shape and values of a tensor (XXH3-128)."""
    found = xxhash.xxh3_128(f"{tensor.dtype} {tuple(tensor.shape)};".encode())
    found.update(as_bytes(tensor))
    return found.hexdigest()


def as_bytes(tensor: Tensor) -> np.ndarray:
    """A tensor's values as they lie in memory (uint8, one dimension), copied only where they must be."""
    return tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8).numpy()


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """The dtype to compute in: float32, or the tensor's own where that is better."""
    return torch.promote_types(tensor.dtype, torch.float32)


def some(names: list[str], most: int = 3) -> str:
    """The first few names, and how many more."""
    listed = ", ".join(repr(name) for name in names[:most])
    return listed + (f" and {len(names) - most} more" if len(names) > most else "")
