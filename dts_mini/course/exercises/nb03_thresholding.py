"""The exercises of notebook 03: groups, their means, the bits of codes, the best cut, what other groups would cost."""

import math

import torch

from dts_mini.course.exercise import Exercise, Wrong, case

NOTEBOOK = "03_thresholding"


# --- threshold ---


def threshold(x: torch.Tensor) -> torch.Tensor:
    """Elements of any shape -> their codes, integers in that shape: 0 and 1 negative, 2 and 3 positive, 4 zero."""
    flat = x.flatten()
    codes = torch.full(flat.shape, 4, device=x.device)
    for sign, weak, strong in ((1, 2, 3), (-1, 1, 0)):
        order = (sign * flat).argsort(descending=True, stable=True)[: int((sign * flat > 0).sum())]
        half = len(order) // 2
        codes[order[:half]], codes[order[half:]] = strong, weak
    return codes.view_as(x)


def _threshold(x, *, strong=lambda n: n // 2, zeros=4, last=False):
    flat = x.flatten()
    codes = torch.full(flat.shape, zeros)
    for sign, weak, name in ((1, 2, 3), (-1, 1, 0)):
        order = (sign * flat).argsort(descending=not last, stable=True)
        order = (order.flip(0) if last else order)[: int((sign * flat > 0).sum())]
        codes[order], codes[order[: strong(len(order))]] = weak, name
    return codes.view(x.shape)


def _one_median(x):
    size = x.abs()
    strong = size > size[size > 0].median() if x.any() else size > 0
    return torch.where(x > 0, torch.where(strong, 3, 2), torch.where(x < 0, torch.where(strong, 0, 1), 4))


def _medians(x):
    """Each sign compared with its own median: right, but for equal elements."""
    codes = torch.full(x.shape, 4)
    for sign, weak, strong in ((1, 2, 3), (-1, 1, 0)):
        own = sign * x > 0
        if own.any():
            codes[own] = torch.where(sign * x[own] > (sign * x[own]).median(), strong, weak)
    return codes


def _zeros_are_positive(x):
    flat, codes = x.flatten(), threshold(x).flatten()
    order = flat.argsort(descending=True, stable=True)[: int((flat >= 0).sum())]
    codes[order], codes[order[: len(order) // 2]] = 2, 3
    return codes.view(x.shape)


def _negatives_by_value(x):
    flat, codes = x.flatten(), threshold(x).flatten()
    place = torch.nonzero(flat < 0).flatten()
    order = place[flat[place].argsort(descending=True, stable=True)]
    codes[order], codes[order[: len(order) // 2]] = 1, 0
    return codes.view(x.shape)


def _ties_all_strong(x):
    codes = threshold(x)
    for sign, name in ((1, 3), (-1, 0)):
        sizes = (sign * x)[sign * x > 0]
        if len(sizes) > 1:
            codes[sign * x >= sizes.sort(descending=True).values[len(sizes) // 2 - 1]] = name
    return codes


CODES_WRONG = {
    "One sign has far more strong elements than the other": _one_median,
    "My strong negative elements are the small ones": _negatives_by_value,
    "Of three elements of one sign, two are strong": lambda x: _threshold(x, strong=lambda n: (n + 1) // 2),
    "My exact zeros are weak and positive": lambda x: _threshold(x, zeros=2),
    "My exact zeros count when a sign is halved": _zeros_are_positive,
    "With equal elements, too few are strong": _medians,
    "With equal elements, too many are strong": _ties_all_strong,
    "Of equal elements, my last ones are strong": lambda x: _threshold(x, last=True),
    "My codes come back in one row": lambda x: threshold(x).flatten(),
    "Each row of mine is halved by itself": lambda x: (
        torch.stack([*map(threshold, x)]) if x.dim() > 1 else threshold(x)
    ),
}
LOPSIDED = torch.tensor([0.9, 0.8, 0.7, -0.1, 0.6, -0.3, -0.2, -0.05])
ODD = torch.tensor([0.9, -0.1, 0.4, -0.7, 0.2, -0.5])
ZEROS = torch.tensor([0.0, 0.5, -0.2, 0.0, 0.3, -0.6, 0.0])
TIES = torch.tensor([0.5, 0.5, -0.3, 0.5, 0.5, -0.3])
TABLE = torch.tensor([[0.9, -0.1, 0.8, 0.7], [0.1, 0.2, -0.6, -0.5], [-0.4, 0.3, 0.0, -0.2]])


def half_of_each_sign_is_strong(candidate):
    x = torch.randn(101, generator=torch.Generator().manual_seed(0)) + 0.3
    codes = candidate(x)
    for sign, code, name in ((1, 3, "positive"), (-1, 0, "negative")):
        wanted, got = int((sign * x > 0).sum()) // 2, int((codes == code).sum())
        if wanted != got:
            raise Wrong(f"expected {wanted} strong {name} elements of {int((sign * x > 0).sum())}, got {got}")


# --- averaged ---


def averaged(x: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """Elements and their codes, in one shape -> each element replaced by the mean of its group; zero stays zero."""
    values = torch.zeros_like(x)
    for code in range(4):
        group = codes == code
        values[group] = x[group].mean()
    return values


def _averaged(x, codes, value):
    values = torch.zeros_like(x)
    for code in codes.unique():
        group = codes == code
        values[group] = value(x[group])
    return values


AVERAGED_WRONG = {
    "My negative elements have become positive": lambda x, codes: _averaged(x, codes, lambda g: g.abs().mean()),
    "Weak and strong have become alike": lambda x, codes: averaged(x, torch.where(codes < 4, 2 * (codes // 2), 4)),
    "My values are far too small": lambda x, codes: _averaged(x, codes, lambda g: g.sum() / x.numel()),
    "My values are the groups' middle elements": lambda x, codes: _averaged(x, codes, torch.median),
    "My values are a little too large": lambda x, codes: _averaged(
        x, codes, lambda g: g.sum().sign() * g.square().mean().sqrt()
    ),
    "I get four numbers": lambda x, codes: torch.stack([x[codes == code].mean() for code in range(4)]),
}
NARROW = torch.tensor([0.9, -0.1, 0.0, 0.4, -0.7, 0.2, 0.5, -0.3, -0.2])
LONG = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))


# --- entropy_bits ---


def entropy_bits(counts: list[int]) -> float:
    """How often each code occurs -> bits per code, on average, that an ideal code for them needs."""
    total = sum(counts)
    shares = [count / total for count in counts if count > 0]
    return -sum(p * math.log2(p) for p in shares)


def _entropy(counts, log=math.log2, sign=-1):
    total = sum(counts)
    return sign * sum(c / total * log(c / total) for c in counts if c)


ENTROPY_WRONG = {
    "My entropy is negative": lambda counts: _entropy(counts, sign=1),
    "My four equal codes need 1.386": lambda counts: _entropy(counts, log=math.log),
    "My entropy stays the same, however uneven the counts are": lambda counts: math.log2(len(counts)),
    "I get an error when a code never occurs": lambda counts: (
        -sum(c / sum(counts) * math.log2(c / sum(counts)) for c in counts)
    ),
    "My entropy is nan when a code never occurs": lambda counts: (
        math.nan if 0 in counts else _entropy(counts)  # as numpy's and torch's logarithms have it
    ),
    "My entropy is above what equal codes need": lambda counts: (
        -sum(math.log2(c / sum(counts)) for c in counts if c) / max(1, sum(1 for c in counts if c))
    ),
}


def no_code_needs_more_than_equal_shares(candidate):
    for counts in ([3, 1, 4, 1], [1, 2, 3, 4, 5, 6, 7, 8]):
        most, got = math.log2(len(counts)), candidate(counts)
        if not 0 < got < most:
            raise Wrong(f"expected between 0 and {most:g} bits for {len(counts)} codes, got {got:.4g}")


# --- grouped ---


def grouped(x: torch.Tensor, groups: int) -> torch.Tensor:
    """Elements of any shape -> each replaced by the mean of its group, of 2, 4 or 8 groups; zero stays zero."""
    codes = threshold(x)
    if groups == 2:
        return averaged(x, codes // 2)
    if groups == 4:
        return averaged(x, codes)
    parts = [x.where(codes == code, 0) for code in range(4)]
    return sum(averaged(part, threshold(part)) for part in parts)


def _by_size(x, groups):
    codes = threshold(x)
    return averaged(x, torch.where((codes == 0) | (codes == 3), 3, torch.where(codes == 4, 4, 2)))


def _mean_of_all(x, groups):
    """Eight groups whose sums are divided by the number of elements of x."""
    found = grouped(x, groups)
    if groups < 8:
        return found
    count = (found.flatten()[:, None] == found.flatten()).sum(1).view_as(found)  # of the elements in the same group
    return found * count / x.numel()


GROUPED_WRONG = {
    "My two groups are strong and weak": lambda x, groups: _by_size(x, 2) if groups == 2 else grouped(x, groups),
    "My eight groups are the four again": lambda x, groups: grouped(x, min(groups, 4)),
    "The number of groups changes nothing": lambda x, groups: grouped(x, 4),
    "I get codes": lambda x, groups: threshold(x),
    "With two groups my zeros are positive": lambda x, groups: (
        averaged(x, (threshold(x) > 1).int()) if groups == 2 else grouped(x, groups)
    ),
    "With eight groups my values are far too small": _mean_of_all,
}


def more_groups_are_nearer(candidate):
    x = torch.randn(60, generator=torch.Generator().manual_seed(4))
    far = {groups: (x - candidate(x, groups)).norm().item() for groups in (2, 4, 8)}
    if not far[8] < far[4] < far[2]:
        raise Wrong(f"expected a smaller error with more groups, got {', '.join(f'{e:.3g}' for e in far.values())}")
    for groups, wanted in ((2, 2), (4, 4), (8, 8)):
        if (got := len(torch.as_tensor(candidate(x, groups)).unique())) != wanted:
            raise Wrong(f"expected {wanted} different values, got {got}")


# --- same_bits_rank ---


def same_bits_rank(m: int, n: int, r: int, groups: int) -> int:
    """The largest rank at which an (m, n) matrix with 2, 4 or 8 groups takes no more bits than rank r with four."""
    budget = r * (2 * (m + n) + 32) + 2 * 4 * 32
    bits = groups.bit_length() - 1
    return max(0, min(m, n, (budget - 2 * groups * 32) // (bits * (m + n) + 32)))


def _rank(m, n, r, groups, *, value=32, scales=32, factors=2, up=False, most=None, least=0):
    budget = r * (2 * (m + n) + value) + factors * 4 * scales - factors * groups * scales
    each = (groups.bit_length() - 1) * (m + n) + value
    return max(least, min(most or min(m, n), -(-budget // each) if up else budget // each))


RANK_WRONG = {
    "With eight groups I halve the rank": lambda m, n, r, groups: min(m, n, 4 * r // groups),
    "I forget that a component has a singular value": lambda m, n, r, groups: _rank(m, n, r, groups, value=0),
    "I forget that more groups have more scales": lambda m, n, r, groups: _rank(m, n, r, groups, scales=0),
    "I count the scales of one factor": lambda m, n, r, groups: _rank(m, n, r, groups, factors=1),
    "My rank takes more bits than there are": lambda m, n, r, groups: _rank(m, n, r, groups, up=True),
    "My rank is above min(m, n)": lambda m, n, r, groups: _rank(m, n, r, groups, most=10**9),
    "My rank is negative": lambda m, n, r, groups: _rank(m, n, r, groups, least=-99),
}


def no_more_bits_and_no_rank_left(candidate):
    bits = lambda m, n, r, groups: r * ((groups.bit_length() - 1) * (m + n) + 32) + 2 * groups * 32
    for m, n, r, groups in ((300, 200, 40, 8), (300, 200, 40, 2), (96, 96, 11, 8)):
        found, budget = int(candidate(m, n, r, groups)), bits(m, n, r, 4)
        if bits(m, n, found, groups) > budget:
            raise Wrong(f"expected at most {budget} bits, got {bits(m, n, found, groups)} at rank {found}")
        if bits(m, n, found + 1, groups) <= budget:
            raise Wrong(f"expected the largest rank, got {found}: one component more still fits")


# --- best_cut ---


def best_cut(sizes: torch.Tensor) -> int:
    """Sizes (n,) of one sign's elements, n > 1 -> how many, counted from the largest, to call strong.

    Strong and weak elements each become the mean of their group; the sum of squared errors is to be smallest.
    """
    x = sizes.double().sort(descending=True).values
    n, strong = len(x), torch.arange(1, len(x))
    sums = x.cumsum(0)
    explained = sums[:-1].square() / strong + (sums[-1] - sums[:-1]).square() / (n - strong)
    return int(explained.argmax()) + 1


def _losses(sizes, power=2, sums=True):
    """What each number of strong elements, from 1 to n - 1, loses."""
    x = sizes.double().sort(descending=True).values
    parts = [(x[:k], x[k:]) for k in range(1, len(x))]
    add = torch.sum if sums else torch.mean
    return torch.stack([sum(add((p - p.mean()).abs() ** power) for p in pair) for pair in parts])


def _widest_gap(sizes):
    x = sizes.double().sort(descending=True).values
    return int((x[:-1] - x[1:]).argmax()) + 1


CUT_WRONG = {
    "I always get half": lambda sizes: len(sizes) // 2,
    "I count the weak elements": lambda sizes: len(sizes) - best_cut(sizes),
    "I am one too low": lambda sizes: best_cut(sizes) - 1,
    "I cut at the mean size": lambda sizes: int((sizes > sizes.mean()).sum()),
    "I cut where the gap is widest": _widest_gap,
    "My two groups count the same, however small one is": lambda sizes: int(_losses(sizes, sums=False).argmin()) + 1,
}
FEW = torch.tensor([0.1, 0.4, 2.35, 1.5, 1.35, 1.4, 0.2, 3.3, 0.45, 2.05, 1.0])  # each mistake cuts elsewhere
TWO_HEAPS = torch.tensor([1.0, 5.0, 1.1, 1.2, 5.2, 0.9, 1.05])
ONE_AHEAD = torch.tensor([1.0, 9.0, 1.5, 2.0, 1.2])  # one strong element alone
TAIL = torch.linspace(0.02, 0.98, 25).erfinv()  # the positive half of a normal distribution, in even steps


def no_other_cut_loses_less(candidate):
    for sizes in (TAIL, FEW, torch.linspace(0.1, 3, 12) ** 3, ONE_AHEAD, ONE_AHEAD.flip(0)):
        found, losses = int(candidate(sizes)), _losses(sizes)
        if not 1 <= found < len(sizes):
            raise Wrong(f"expected between 1 and {len(sizes) - 1} strong elements, got {found}")
        if losses[found - 1] > losses.min() + 1e-9:
            raise Wrong(f"expected the squared error {losses.min():.4f}, got {losses[found - 1]:.4f}")


EXERCISES = (
    Exercise(
        name="threshold",
        notebook=NOTEBOOK,
        difficulty="medium",
        minutes=12,
        reference=threshold,
        checks=(
            case(threshold, LOPSIDED),
            case(threshold, ODD),
            case(threshold, ZEROS),
            case(threshold, TIES),
            case(threshold, torch.tensor([-0.4])),  # half of one, rounded down, is none
            half_of_each_sign_is_strong,
            case(threshold, TABLE),
            case(threshold, TABLE.T),  # not contiguous, as factors of an SVD may be
            case(threshold, torch.zeros(2, 2, 2)),
        ),
        start="Begin with the positive elements. Sort the places of all elements by size with "
        "`argsort(descending=True, stable=True)`: as many as are positive stand in front. Which of these are strong?",
        hints=(
            (
                "One sign has far more strong elements than the other",
                "You compare all sizes with one median. Each sign is halved by itself: take its elements apart first.",
            ),
            (
                "My strong negative elements are the small ones",
                "Strong means large in size. Sort negative elements by their size, not by their value.",
            ),
            (
                "Of three elements of one sign, two are strong",
                "Half is rounded down: a group of three has one strong element. Whole-number division does it.",
            ),
            (
                "My exact zeros are weak and positive",
                "A zero is neither positive nor negative. It has the code 4: begin with a tensor full of 4.",
            ),
            (
                "My exact zeros count when a sign is halved",
                "A zero is neither positive nor negative: compare with > 0, and not with >= 0.",
            ),
            (
                "With equal elements, too few are strong",
                "The rule counts: half of the elements are strong, however many equal the median. Sort them, and take "
                "the first half.",
            ),
            (
                "With equal elements, too many are strong",
                "A comparison with a limit takes all equal elements or none. Sort stably and take the first half.",
            ),
            (
                "Of equal elements, my last ones are strong",
                "The rule takes the first ones, so that everybody gets the same codes. Sort stably, the largest first.",
            ),
            ("My codes come back in one row", "Give the codes the shape of x before you return them."),
            (
                "Each row of mine is halved by itself",
                "All elements of x are one heap. Make one row of them with x.flatten().",
            ),
        ),
        skeleton=(
            "def threshold(x):\n"
            "    flat = x.flatten()\n"
            "    codes = torch.full(flat.shape, 4, device=x.device)\n"
            "    for sign, weak, strong in ((1, 2, 3), (-1, 1, 0)):\n"
            "        count = int((sign * flat > 0).sum())\n"
            "        order = (sign * flat).argsort(descending=True, stable=True)[:count]  # places, the largest first\n"
            "        codes[order] = ...\n"
            "        codes[order[...]] = strong\n"
            "    return codes.view_as(x)"
        ),
        pace=(torch.randn(10_000, generator=torch.Generator().manual_seed(2)),),
        wrong=CODES_WRONG,
    ),
    Exercise(
        name="averaged",
        notebook=NOTEBOOK,
        difficulty="easy",
        minutes=5,
        reference=averaged,
        checks=(
            case(averaged, NARROW, threshold(NARROW)),
            case(averaged, TABLE, threshold(TABLE)),
            case(averaged, LONG, threshold(LONG)),
            case(averaged, LOPSIDED.abs(), threshold(LOPSIDED.abs())),  # two groups are empty
        ),
        start="`x[codes == 3]` holds the elements of one group. Begin with zeros in the shape of x, and fill in one "
        "group at a time.",
        hints=(
            ("I get four numbers", "Every element gets its group's number: the result has the shape of x."),
            (
                "My negative elements have become positive",
                "Take the mean of the elements as they are, with their signs.",
            ),
            ("Weak and strong have become alike", "There are four groups, each with a mean of its own."),
            ("My values are far too small", "Divide by the number of elements in the group, not in x."),
            ("My values are the groups' middle elements", "You took the median. Take the mean."),
            (
                "My values are a little too large",
                "That is the root of the mean of squares. It is notebook 04's idea; here take the plain mean.",
            ),
        ),
        skeleton=(
            "def averaged(x, codes):\n"
            "    values = torch.zeros_like(x)\n"
            "    for code in range(4):\n"
            "        values[codes == code] = ...\n"
            "    return values"
        ),
        pace=(torch.linspace(-1, 1, 40_000), torch.arange(40_000) // 10_000),
        wrong=AVERAGED_WRONG,
    ),
    Exercise(
        name="entropy_bits",
        notebook=NOTEBOOK,
        difficulty="easy",
        minutes=5,
        reference=entropy_bits,
        checks=(
            case(entropy_bits, [5, 5, 5, 5]),
            case(entropy_bits, [40, 10, 10, 40]),
            case(entropy_bits, [3, 0, 1, 0]),
            no_code_needs_more_than_equal_shares,
        ),
        start="Turn the counts into shares: each count divided by the sum of all. Then go through the formula from the "
        "inside.",
        hints=(
            ("My entropy is negative", "The logarithm of a share below one is negative. Flip the sign of the sum."),
            ("My four equal codes need 1.386", "That is in nats: you took the natural logarithm. Bits need base two."),
            (
                "My entropy stays the same, however uneven the counts are",
                "Use the share of each code: a code that is rare adds little.",
            ),
            (
                "I get an error when a code never occurs",
                "Zero has no logarithm. A code that never occurs adds nothing to the sum: leave it out.",
            ),
            (
                "My entropy is nan when a code never occurs",
                "The logarithm of zero is minus infinity, and zero times that is nan. Leave such codes out.",
            ),
            (
                "My entropy is above what equal codes need",
                "You averaged over the codes. Weigh the logarithm of each share with the share itself.",
            ),
        ),
        skeleton=(
            "def entropy_bits(counts):\n"
            "    shares = [count / ... for count in counts if ...]\n"
            "    return -sum(... for p in shares)"
        ),
        wrong=ENTROPY_WRONG,
    ),
    Exercise(
        name="grouped",
        notebook=NOTEBOOK,
        difficulty="medium",
        minutes=8,
        reference=grouped,
        checks=(
            case(grouped, NARROW, 2),
            case(grouped, TABLE, 4),
            case(grouped, LONG, 8),
            case(grouped, TABLE, 2),
            case(grouped, TABLE, 8),
            case(grouped, ZEROS.abs(), 8),  # most groups are empty
            more_groups_are_nearer,
        ),
        start="Four groups are `averaged` of x and its codes. For two, which codes belong together? Write these two "
        "cases first.",
        hints=(
            ("I get codes", "Codes say which group an element is in. Return the elements, each with its group's mean."),
            (
                "The number of groups changes nothing",
                "You always make four. With two groups, a code of 0 or 1 says the same: negative.",
            ),
            (
                "My two groups are strong and weak",
                "Then positive and negative elements cancel in the mean. Keep the signs apart, and forget the sizes.",
            ),
            (
                "With two groups my zeros are positive",
                "A zero has the code 4, which is above 1 as well. Keep it in a group of its own.",
            ),
            (
                "My eight groups are the four again",
                "Take one of the four groups alone: x.where(codes == 3, 0). What are its codes?",
            ),
            (
                "With eight groups my values are far too small",
                "The mean of a group is over its own elements, not over all of x. averaged leaves zeros out.",
            ),
        ),
        skeleton=(
            "def grouped(x, groups):\n"
            "    codes = threshold(x)\n"
            "    if groups == 2:\n"
            "        return averaged(x, ...)\n"
            "    if groups == 4:\n"
            "        return ...\n"
            "    parts = [x.where(codes == code, 0) for code in range(4)]  # each group alone\n"
            "    return sum(averaged(part, ...) for part in parts)"
        ),
        wrong=GROUPED_WRONG,
    ),
    Exercise(
        name="same_bits_rank",
        notebook=NOTEBOOK,
        difficulty="medium",
        minutes=8,
        reference=same_bits_rank,
        checks=(
            case(same_bits_rank, 768, 192, 19, 8),
            case(same_bits_rank, 64, 32, 13, 8),
            case(same_bits_rank, 64, 32, 13, 2),
            case(same_bits_rank, 100, 100, 30, 4),  # four groups again: nothing changes
            case(same_bits_rank, 192, 192, 150, 2),  # more bits than there are components for
            case(same_bits_rank, 32, 32, 7, 8),  # small: here the scales weigh
            case(same_bits_rank, 32, 32, 7, 2),
            case(same_bits_rank, 32, 32, 1, 8),  # eight groups have more scales than rank 1 leaves room for
            no_more_bits_and_no_rank_left,
        ),
        start="Write down the bits of rank r with four groups: r times a component's bits, and the scales. That is the "
        "budget. Then ask how many components with other groups fit into it.",
        hints=(
            (
                "With eight groups I halve the rank",
                "You traded groups against groups. Trade bits: a code of eight groups takes three bits, not four.",
            ),
            (
                "I forget that a component has a singular value",
                "A component costs its codes and one singular value of 32 bits, whatever the number of groups.",
            ),
            (
                "I forget that more groups have more scales",
                "Each of the two factors has a scale of 32 bits for every group. Take them off the budget first.",
            ),
            ("I count the scales of one factor", "U has its groups and V has its own: two scales for each group."),
            ("My rank takes more bits than there are", "Round down: a component that fits only in part does not fit."),
            ("My rank is above min(m, n)", "A matrix has no more than min(m, n) components. Bits may be left over."),
            ("My rank is negative", "Where the scales alone take more bits than there are, nothing fits: rank 0."),
        ),
        skeleton=(
            "def same_bits_rank(m, n, r, groups):\n"
            "    budget = r * (2 * (m + n) + 32) + ...  # components, then scales\n"
            "    bits = {2: 1, 4: 2, 8: 3}[groups]\n"
            "    rank = (budget - ...) // ...\n"
            "    return max(0, min(m, n, rank))"
        ),
        wrong=RANK_WRONG,
    ),
    Exercise(
        name="best_cut",
        notebook=NOTEBOOK,
        difficulty="hard",
        minutes=15,
        reference=best_cut,
        checks=(
            case(best_cut, FEW),
            case(best_cut, TWO_HEAPS),
            case(best_cut, TAIL),
            case(best_cut, torch.tensor([0.3, 0.8])),
            no_other_cut_loses_less,
        ),
        start="Sort the sizes, the largest first. For k = 1, 2, ... the first k are strong: what is the squared error "
        "of both groups? A loop is right, only slow.",
        hints=(
            (
                "I always get half",
                "That is the paper's cut. Try every number of strong elements and see which one loses least.",
            ),
            (
                "I cut at the mean size",
                "The mean is a fair guess, but nothing makes it the best one. Compare all cuts.",
            ),
            (
                "I cut where the gap is widest",
                "A wide gap near the largest element splits off one element. What counts is the error of both groups.",
            ),
            (
                "My two groups count the same, however small one is",
                "Add the squared errors of all elements. A mean over each group gives a tiny group too much weight.",
            ),
            ("I count the weak elements", "Return how many are strong: count from the largest."),
            ("I am one too low", "The first entry of your list of losses belongs to one strong element, not to none."),
        ),
        skeleton=(
            "def best_cut(sizes):\n"
            "    x = sizes.double().sort(descending=True).values\n"
            "    strong = torch.arange(1, len(x))\n"
            "    sums = x.cumsum(0)  # of the first 1, 2, 3, ...\n"
            "    # n numbers with the sum S lose (sum of squares) - S^2 / n when all become their mean\n"
            "    explained = sums[:-1] ** 2 / strong + ... / ...\n"
            "    return int(explained.argmax()) + 1"
        ),
        pace=(torch.rand(3_000, generator=torch.Generator().manual_seed(3)),),
        wrong=CUT_WRONG,
    ),
)
