"""Functions of PyTorch that are given a weight, each with the side path by which an expert joins its result.

A handler takes the mode that saw the call (``paths.SidePaths``) and the function's own arguments.
"""

import inspect
from collections.abc import Callable, Collection
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F


class Mode(Protocol):
    """What a handler asks of the mode that saw the call."""

    def differs(self, tensor: Tensor) -> bool:
        """Whether it is a tensor of the base that some expert changes."""

    def expert_of(self, value: Any) -> Any:
        """An argument, with the expert's tensor where it was the base's."""

    def over(self, op: "Op", x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """The function with the experts' weight and bias, and input, which a module may hold as well."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Attention of (samples, heads, tokens, width)."""


def takes(handler: Callable, kwargs: Collection[str]) -> bool:
    """Whether a handler knows these keywords; ``out=``, for example, none does."""
    if not kwargs:
        return True
    code = handler.__code__
    named = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return bool(code.co_flags & inspect.CO_VARKEYWORDS and "out" not in kwargs) or all(key in named for key in kwargs)


class Op(NamedTuple):
    """A function of an input and a weight: itself, with a bias or None, and how a side path joins its result."""

    apply: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    join: Callable[[Tensor, Tensor, Tensor, Tensor], None]  # (result, input, A, B)
    bias: bool = True  # a bias lies along the result's last dimension


def _join_products(y: Tensor, x: Tensor, first: Tensor, second: Tensor) -> None:
    """y += (x first) second, over the last dimension, in y's dtype, which autocast may have chosen."""
    thin = x.reshape(-1, x.shape[-1]) @ first
    if y.is_contiguous():
        y.view(-1, y.shape[-1]).addmm_(thin.to(y.dtype), second.to(y.dtype))
    else:
        y += (thin @ second).view(y.shape)


_LINEAR = Op(F.linear, lambda y, x, a, b: _join_products(y, x, b.T, a.T))


def _times(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x @ weight if bias is None else x @ weight + bias


_MATMUL = Op(_times, lambda y, x, a, b: _join_products(y, x, a, b))


def _linear(mode: Mode, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return mode.over(_LINEAR, input, weight, bias)


def _matmul(mode: Mode, input: Tensor, other: Tensor) -> Tensor:
    if mode.differs(input) or input.dim() < 2 or other.dim() != 2:
        return NotImplemented
    return mode.over(_MATMUL, input, other)


def _addmm(mode: Mode, input: Tensor, mat1: Tensor, mat2: Tensor, *, beta=1, alpha=1) -> Tensor:
    if mode.differs(mat1) or beta != 1 or alpha != 1 or input.dim() != 1:
        return NotImplemented
    return mode.over(_MATMUL, mat1, mat2, input)


def _embedding(mode: Mode, input, weight, padding_idx=None, max_norm=None, norm_type=2.0, *rest, **more) -> Tensor:
    if max_norm is not None:  # PyTorch shortens the rows in the table itself; here they are shortened as they come out
        rows = _embedding(mode, input, weight)
        norms = rows.norm(norm_type, -1, keepdim=True)
        return torch.where(norms > max_norm, rows * (max_norm / (norms + 1e-7)), rows)
    look_up = Op(lambda ids, table, _: F.embedding(ids, table), lambda y, ids, a, b: y.add_(F.embedding(ids, a) @ b))
    return mode.over(look_up, input, weight)


def _bag(paths: Mode, input: Tensor, weight: Tensor, *rest, **more) -> Tensor:
    rest, more = map(paths.expert_of, rest), {key: paths.expert_of(value) for key, value in more.items()}
    return F.embedding_bag(paths.expert_of(input), paths.expert_of(weight).clone(), *rest, **more)


def _convolution(convolve: Callable) -> Callable:
    def handler(mode: Mode, input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1) -> Tensor:
        if groups != 1 or input.dim() != weight.dim():
            return NotImplemented

        def apply(x: Tensor, kernel: Tensor, bias: Tensor | None, *where) -> Tensor:
            image = weight.dim() - 1
            y = convolve(x.reshape(-1, *x.shape[-image:]), kernel, bias, *(where or (stride, padding, dilation)))
            return y.view(*x.shape[:-image], *y.shape[1:])

        def join(y: Tensor, x: Tensor, a: Tensor, b: Tensor) -> None:
            thin = apply(x, b.view(-1, *weight.shape[1:]), None)
            y += apply(thin, a.reshape(*a.shape, *(1,) * (weight.dim() - 2)), None, 1, 0, 1)

        return mode.over(Op(apply, join, bias=False), input, weight, bias)

    return handler


def _attention(
    mode: Mode,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    width: int,
    heads: int,
    in_weight: Tensor,
    in_bias: Tensor | None,
    bias_k,
    bias_v,
    add_zero,
    dropout,
    out_weight: Tensor,
    out_bias: Tensor | None,
    training=True,
    key_padding_mask=None,
    need_weights=True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight=False,
    **more,
) -> tuple[Tensor, Tensor | None]:
    """Self-attention (tokens, samples, width) as ``nn.MultiheadAttention`` asks for it, without padding."""
    others = (bias_k, bias_v, key_padding_mask, more.get("static_k"), more.get("static_v"))
    plain = others == (None,) * 5 and not (add_zero or use_separate_proj_weight)
    masked = attn_mask is not None
    if not (plain and query is key is value and query.dim() == 3) or (
        masked and not (attn_mask.dim() == 2 and attn_mask.is_floating_point())
    ):
        return NotImplemented
    if mode.differs(query) or mode.differs(attn_mask):
        return NotImplemented
    x = query.transpose(0, 1)
    inner = mode.over(_LINEAR, x, in_weight, in_bias).view(*x.shape[:2], 3, heads, -1)
    q, k, v = inner.permute(2, 0, 3, 1, 4)
    weights = None
    if need_weights:
        scores = q @ k.mT / q.shape[-1] ** 0.5
        weights = (scores + attn_mask if masked else scores).softmax(-1).to(q.dtype)  # autocast makes it float32
        y, weights = weights @ v, weights.mean(1) if more.get("average_attn_weights", True) else weights
    else:
        y = mode.attend(q, k, v, attn_mask)
    return mode.over(_LINEAR, y.transpose(1, 2).reshape(x.shape), out_weight, out_bias).transpose(0, 1), weights


HANDLERS: dict[Callable, Callable] = {
    F.linear: _linear,
    F.embedding: _embedding,
    F.multi_head_attention_forward: _attention,
    torch.addmm: _addmm,
    **dict.fromkeys((torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.mm, Tensor.mm), _matmul),
    **{convolve: _convolution(convolve) for convolve in (torch.conv1d, torch.conv2d, torch.conv3d)},
}
"""By function: the handler, which takes the mode and the function's arguments; NotImplemented where it has no way."""

SHORTENING = {F.embedding: _embedding, F.embedding_bag: _bag}
"""What, given a ``max_norm``, writes into the table that it reads, be it the base's: these do not."""
