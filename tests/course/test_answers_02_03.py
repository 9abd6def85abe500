"""Answers to the exercises of notebooks 02 and 03 as learners may write them, each judged as it should be."""

import numpy as np
import pytest
import torch

from dts_mini.core import paper
from dts_mini.course.exercise import verdict
from dts_mini.course.exercises import EXERCISES

# --- right, and not written as the reference is ---


def leading_by_eigenvectors(M, r):
    values, V = torch.linalg.eigh(M.T.double() @ M.double())
    V = V.flip(1)[:, :r]
    s = values.flip(0)[:r].clamp(min=0).sqrt()
    return (M.double() @ V / s).to(M.dtype), s.to(M.dtype), V.T.to(M.dtype)


def leading_all_turned(M, r):
    U, s, Vt = np.linalg.svd(M.numpy())
    return -torch.tensor(U[:, :r]), torch.tensor(s[:r]), -torch.tensor(Vt[:r])


def signs_by_a_loop(U, Vt):
    U, Vt = U.clone(), Vt.clone()
    for i in range(len(Vt)):
        if max(Vt[i].tolist(), key=abs) < 0:
            U[:, i], Vt[i] = -U[:, i], -Vt[i]
    return U, Vt


def decompose_by_matrix_rank(M, keep_ratio):
    r = min(int(round(keep_ratio * min(M.shape), 6)), int(torch.linalg.matrix_rank(M)))
    r = r if r > 1 else 1
    U, s, V = torch.svd(M)
    U, s, V = U[:, :r].clone(), s[:r], V[:, :r].clone()
    for i in range(r):
        if V[V[:, i].abs().argmax(), i] < 0:
            U[:, i] *= -1
            V[:, i] *= -1
    U[M.abs().sum(1) == 0] = 0
    V[M.abs().sum(0) == 0] = 0
    return U, s, V.T


def decompose_as_on_the_page(M, keep_ratio):
    U, s, Vt = torch.linalg.svd(M, full_matrices=False)
    rank = int((s > s[0] * torch.finfo(s.dtype).eps * max(M.shape)).sum())
    r = max(1, min(int(keep_ratio * len(s) + 1e-9), rank))
    U, s, Vt = U[:, :r], s[:r], Vt[:r]
    sign = Vt.gather(1, Vt.abs().argmax(1, keepdim=True)).sign()
    return U * sign.T * (M != 0).any(1, keepdim=True), s, Vt * sign * (M != 0).any(0)


def threshold_by_lists(x):
    flat = x.flatten().tolist()
    codes = [4] * len(flat)
    for sign, weak, strong in ((1, 2, 3), (-1, 1, 0)):
        places = sorted((i for i, e in enumerate(flat) if sign * e > 0), key=lambda i: -abs(flat[i]))
        for rank, i in enumerate(places):
            codes[i] = strong if rank < len(places) // 2 else weak
    return torch.tensor(codes).reshape(x.shape)


def threshold_in_bytes(x):
    flat = x.reshape(-1)
    codes = torch.full_like(flat, 4, dtype=torch.uint8)
    for part, weak, strong in ((flat > 0, 2, 3), (flat < 0, 1, 0)):
        place = part.nonzero().squeeze(1)
        order = place[torch.sort(flat[place].abs(), descending=True, stable=True).indices]
        codes[order] = weak
        codes[order[: order.numel() // 2]] = strong
    return codes.reshape(x.shape)


def averaged_by_counting(x, codes):
    flat = codes.flatten().long()
    total = torch.zeros(5).index_add_(0, flat, x.flatten())
    return (total / flat.bincount(minlength=5).clamp(min=1))[codes.long()]


def same_bits_rank_step_by_step(m, n, r, groups):
    bits = lambda rank, groups: rank * (np.log2(groups) * (m + n) + 32) + 2 * groups * 32
    rank = 0
    while rank < min(m, n) and bits(rank + 1, groups) <= bits(r, 4):
        rank += 1
    return np.int64(rank)


RIGHT = {
    leading_by_eigenvectors: "leading",
    leading_all_turned: "leading",
    signs_by_a_loop: "settle_signs",
    decompose_by_matrix_rank: "decompose",
    decompose_as_on_the_page: "decompose",
    threshold_by_lists: "threshold",
    threshold_in_bytes: "threshold",
    averaged_by_counting: "averaged",
    same_bits_rank_step_by_step: "same_bits_rank",
}


@pytest.mark.parametrize("answer", RIGHT, ids=lambda answer: answer.__name__)
def test_a_right_answer_passes_however_it_is_written(answer):
    found = verdict(EXERCISES[RIGHT[answer]], answer)
    assert found.status == "passed", (found.message, found.call)


# --- wrong, each a mistake that no hint is about, or one whose hint is known ---


def threshold_with_ceil(x):
    codes = torch.full(x.shape, 4)
    for sign, weak, strong in ((1, 2, 3), (-1, 1, 0)):
        sizes = (sign * x[sign * x > 0]).sort(descending=True).values
        if len(sizes):
            codes[sign * x > 0] = weak
            codes[sign * x >= sizes[(len(sizes) - 1) // 2]] = strong
    return codes


def threshold_with_quantile(x):
    codes = torch.full(x.shape, 4)
    for sign, weak, strong in ((1, 2, 3), (-1, 1, 0)):
        own = sign * x > 0
        if own.any():
            codes[own] = torch.where(x[own].abs() > x[own].abs().quantile(0.5), strong, weak)
    return codes


def decompose_by_energy(M, keep_ratio):
    U, s, Vt = paper.decompose(M, 1.0)
    r = int((s.square().cumsum(0) < keep_ratio * s.square().sum()).sum()) + 1
    return U[:, :r], s[:r], Vt[:r]


def decompose_without_zero_rows(M, keep_ratio):
    return paper.decompose(M[(M != 0).any(1)], keep_ratio)


def decompose_turned_by_u(M, keep_ratio):
    U, s, Vt = decompose_as_on_the_page(M, keep_ratio)
    sign = U.gather(0, U.abs().argmax(0, keepdim=True)).sign()
    return U * sign, s, Vt * sign.T


def decompose_in_half(M, keep_ratio):
    U, s, Vt = decompose_as_on_the_page(M, keep_ratio)
    return U.half().float(), s, Vt


WRONG = [
    ("threshold", threshold_with_ceil, None),
    ("threshold", threshold_with_quantile, "With equal elements, too few are strong"),
    ("threshold", lambda x: threshold_in_bytes(x).float(), None),  # codes are integers
    ("threshold", lambda x: torch.where(x > 0, 3, 0), None),
    ("threshold", lambda x: threshold_in_bytes(x.abs()), None),
    ("threshold", lambda x: 4 - threshold_by_lists(x), None),
    ("decompose", decompose_by_energy, None),
    ("decompose", decompose_without_zero_rows, None),
    ("decompose", decompose_turned_by_u, None),
    ("decompose", decompose_in_half, None),
    ("decompose", lambda M, rho: decompose_as_on_the_page(M, rho)[::-1], None),
    ("decompose", lambda M, rho: (*decompose_as_on_the_page(M, rho)[:2], decompose_as_on_the_page(M, rho)[2].T), None),
    ("leading", lambda M, r: tuple(torch.linalg.svd(M, full_matrices=False)), None),
    ("leading", lambda M, r: torch.svd_lowrank(M, 1), None),
    ("settle_signs", lambda U, Vt: (U.abs(), Vt.abs()), None),
    ("settle_signs", lambda U, Vt: (U, Vt), "Nothing is flipped"),
    ("averaged", lambda x, codes: x.mean().expand_as(x), None),
    ("averaged", lambda x, codes: x, None),
    ("same_bits_rank", lambda m, n, r, groups: {2: 2 * r, 4: r, 8: 2 * r // 3}[groups], None),
    ("same_bits_rank", lambda m, n, r, groups: r, None),
]


@pytest.mark.parametrize(("name", "answer", "symptom"), WRONG, ids=[f"{n}-{i}" for i, (n, _, _) in enumerate(WRONG)])
def test_a_wrong_answer_fails_and_is_told_of_no_other_mistake(name, answer, symptom, monkeypatch):
    monkeypatch.setattr("dts_mini.course.exercise._library", lambda function: set())  # some start from the right one
    found = verdict(EXERCISES[name], answer)
    assert found.status == "failed" and found.call.startswith(f"{name}(")
    assert (found.hint or (None,))[0] == symptom


def test_the_library_is_no_answer_of_ones_own():
    for name in ("decompose", "threshold"):
        found = verdict(EXERCISES[name], getattr(paper, name))
        assert found.status == "failed" and f"dts_mini.core.paper.{name}" in found.message


# --- what learners build is what the page of the method says ---


def test_the_learners_functions_are_the_pages():
    g = torch.Generator().manual_seed(0)
    for shape, rho in (((9, 6), 0.5), ((5, 12), 0.05), ((30, 20), 0.3)):
        M = torch.randn(shape, generator=g)
        M[2], M[:, 1] = 0, 0
        for mine, theirs in zip(EXERCISES["decompose"].reference(M, rho), paper.decompose(M, rho), strict=True):
            assert torch.equal(mine, theirs)
        codes = EXERCISES["threshold"].reference(M)
        assert torch.equal(codes, paper.threshold(M))


def test_the_rank_for_the_same_bits_is_never_negative_and_counts_both_factors_scales():
    rank = EXERCISES["same_bits_rank"].reference
    bits = lambda m, n, r, groups: r * ((groups.bit_length() - 1) * (m + n) + 32) + 2 * groups * 32
    assert rank(32, 32, 1, 8) == 0
    for m, n in ((8, 8), (32, 32), (768, 192)):
        for r in range(1, n + 1):
            for groups in (2, 4, 8):
                found = rank(m, n, r, groups)
                assert found == 0 or bits(m, n, found, groups) <= bits(m, n, r, 4)
                assert found == min(m, n) or bits(m, n, found + 1, groups) > bits(m, n, r, 4)
