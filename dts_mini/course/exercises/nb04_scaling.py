"""The exercises of notebook 04: the value of a group, those of all groups, all three steps, the best weighted value."""

import torch

from dts_mini.core.paper import decompose, threshold
from dts_mini.course.exercise import Exercise, Wrong, case
from dts_mini.course.exercises.nb03_thresholding import averaged

NOTEBOOK = "04_scaling"


def group_value(x: torch.Tensor) -> torch.Tensor:
    """Elements (n,) of one sign -> their root mean square with that sign, one number."""
    return x.sign()[0] * x.norm() / len(x) ** 0.5


VALUE_WRONG = {
    "My value is too small in size": lambda x: x.mean(),
    "My value is positive": lambda x: x.square().mean().sqrt(),
    "My value grows with the size of the group": lambda x: x.sign()[0] * x.norm(),
    "My value is the square of what is expected": lambda x: x.sign()[0] * x.square().mean(),
}


def the_length_is_kept(candidate):
    for x in (torch.linspace(0.1, 2, 9), -torch.linspace(0.5, 3, 6)):
        length, kept = x.norm().item(), abs(float(candidate(x))) * len(x) ** 0.5
        if abs(length - kept) > 1e-3:
            raise Wrong(f"expected {len(x)} equal values as long as x, {length:.3f}, got {kept:.3f}")


def scale(x: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """x and its codes, of one shape -> the values (5,) of the codes 0 to 4; 0 for an empty group and for the code 4."""
    values = x.new_zeros(5)
    for code in range(4):
        group = x[codes == code]
        if len(group):
            values[code] = group_value(group)
    return values


def _values(x, codes, *, value=group_value, empty=0.0, number=5):
    groups = [x[codes == code] for code in range(4)]
    found = [float(value(group)) if len(group) else empty for group in groups]
    return torch.tensor((found + [0.0])[:number])


SCALE_WRONG = {
    "I get an IndexError": lambda x, codes: torch.tensor([float(group_value(x[codes == code])) for code in range(5)]),
    "An empty group's value is nan": lambda x, codes: _values(x, codes, empty=float("nan")),
    "My negative groups have positive values": lambda x, codes: _values(x, codes).abs(),
    "My values are too small in size": lambda x, codes: _values(x, codes, value=torch.mean),
    "I have four values": lambda x, codes: _values(x, codes, number=4),
    "My values come in another order": lambda x, codes: torch.cat([_values(x, codes)[:4].flip(0), torch.zeros(1)]),
    "My groups count as many elements as x has": lambda x, codes: _values(
        x, codes, value=lambda group: group.sign()[0] * group.norm() / x.numel() ** 0.5
    ),
    "I have a value for each element": lambda x, codes: _values(x, codes)[codes],
}
FEW = torch.tensor([0.9, -0.1, 0.0, 0.4, -0.7, 0.2])
MATRIX = torch.tensor([[0.5, -0.3, 0.1], [-0.8, 0.2, -0.6]])
POSITIVE = torch.tensor([0.3, 0.1, 0.6])  # two groups are empty


def x_keeps_its_length(candidate):
    x = torch.randn(7, 9, generator=torch.Generator().manual_seed(4))
    codes = threshold(x)
    kept = torch.as_tensor(candidate(x, codes))[codes].norm().item()
    if abs(kept - x.norm().item()) > 1e-3:
        raise Wrong(f"expected elements replaced by their values to be as long as x, {x.norm():.3f}, got {kept:.3f}")


def dts(x: torch.Tensor, keep_ratio: float = 0.1) -> torch.Tensor:
    """A tensor -> what DTS keeps of it, in its shape: a matrix is decomposed first, any other tensor is not."""

    def coarse(part):
        codes = threshold(part)
        return scale(part, codes)[codes]

    if x.dim() == 0:
        return x
    if x.dim() != 2:
        return coarse(x)
    U, s, Vt = decompose(x, keep_ratio)
    return coarse(U) * s @ coarse(Vt)


def _coarse(x):
    codes = threshold(x)
    return scale(x, codes)[codes]


def _not_decomposed(x, keep_ratio=0.1):
    return _coarse(x)


def _all_decomposed(x, keep_ratio=0.1):
    if x.dim() == 2:
        return dts(x, keep_ratio)
    U, s, Vt = decompose(x.reshape(len(x), -1) if x.dim() > 1 else x[:, None], keep_ratio)
    return (_coarse(U) * s @ _coarse(Vt)).view(x.shape)


def _no_strengths(x, keep_ratio=0.1):
    if x.dim() != 2:
        return _coarse(x)
    U, _, Vt = decompose(x, keep_ratio)
    return _coarse(U) @ _coarse(Vt)


def _of_means(x, keep_ratio=0.1):
    if x.dim() != 2:
        return averaged(x, threshold(x))
    U, s, Vt = decompose(x, keep_ratio)
    return averaged(U, threshold(U)) * s @ averaged(Vt, threshold(Vt))


def _exact_factor(x, keep_ratio=0.1):
    if x.dim() != 2:
        return _coarse(x)
    U, s, Vt = decompose(x, keep_ratio)
    return _coarse(U) * s @ Vt


def _coarse_strengths(x, keep_ratio=0.1):
    if x.dim() != 2:
        return _coarse(x)
    U, s, Vt = decompose(x, keep_ratio)
    return _coarse(U) * _coarse(s) @ _coarse(Vt)


def _strengths_first(x, keep_ratio=0.1):
    if x.dim() != 2:
        return _coarse(x)
    U, s, Vt = decompose(x, keep_ratio)
    return _coarse(U * s) @ _coarse(Vt)


def _product_coarse(x, keep_ratio=0.1):
    if x.dim() != 2:
        return _coarse(x)
    U, s, Vt = decompose(x, keep_ratio)
    return _coarse(U * s @ Vt)


def _others_exact(x, keep_ratio=0.1):
    return dts(x, keep_ratio) if x.dim() == 2 else x


def _always_a_tenth(x, keep_ratio=0.1):
    return dts(x, 0.1)


DTS_WRONG = {
    "I decompose nothing": _not_decomposed,
    "I get an error, or a wrong answer, for a bias or a convolution": _all_decomposed,
    "My biases come back exact": _others_exact,
    "My matrix has the wrong length": _no_strengths,
    "I took the mean of each group": _of_means,
    "One of my factors is still exact": _exact_factor,
    "My singular values have become coarse": _coarse_strengths,
    "I multiply by s before I threshold": _strengths_first,
    "My matrix holds four values alone": _product_coarse,
    "The keep ratio changes nothing": _always_a_tenth,
}
_rows = torch.Generator().manual_seed(5)
TALL = torch.randn(8, 5, generator=_rows) @ torch.diag(torch.tensor([4.0, 2.0, 1.0, 0.5, 0.2]))
WIDE = torch.randn(4, 10, generator=_rows)
CONVOLUTION = torch.randn(2, 3, 2, 2, generator=_rows)


def its_rank_is_that_of_the_keep_ratio(candidate):
    found = torch.as_tensor(candidate(TALL, 0.4))
    if (rank := int(torch.linalg.matrix_rank(found, rtol=1e-3))) != 2:
        raise Wrong(f"expected two of five components at keep ratio 0.4, got a matrix of rank {rank}")


def best_value(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Elements (n,) and their weights (n,), not negative -> the v that minimises sum(weight * (x - v)^2)."""
    return (weight * x).sum() / weight.sum()


BEST_WRONG = {
    "My value ignores the weights": lambda x, weight: x.mean(),
    "My value changes when all weights double": lambda x, weight: (weight * x).mean(),
    "My value is too large in size": lambda x, weight: (
        x.sign()[0] * ((weight * x.square()).sum() / weight.sum()).sqrt()
    ),
    "Heavy elements pull my value too far": lambda x, weight: (weight.square() * x).sum() / weight.square().sum(),
    "Elements of weight zero still count": lambda x, weight: (
        ((weight + (weight == 0)) * x).sum() / (weight + (weight == 0)).sum()
    ),
}


def no_value_is_better(candidate):
    x, weight = torch.linspace(0.2, 2, 10), torch.linspace(3, 0.5, 10)
    error = lambda v: (weight * (x - v).square()).sum().item()
    found = float(candidate(x, weight))
    for other in (found - 0.05, found + 0.05):
        if error(other) < error(found):
            raise Wrong(
                f"expected the value with the smallest weighted error, got {found:.4g}: {other:.4g} has a smaller one"
            )


EXERCISES = (
    Exercise(
        name="group_value",
        notebook=NOTEBOOK,
        difficulty="easy",
        minutes=5,
        reference=group_value,
        checks=(
            case(group_value, torch.tensor([-0.3, -0.5, -0.2, -0.9])),
            case(group_value, torch.tensor([0.1, 0.2, 0.4])),
            case(group_value, torch.tensor([-2.0])),  # a group of one is its own value
            the_length_is_kept,
        ),
        start="Say the name backwards: square the elements, take the mean, take the root. Then give it the sign of "
        "the group.",
        hints=(
            ("My value is positive", "Squares forget the sign. Multiply by the sign of any element: x.sign()[0]."),
            (
                "My value is too small in size",
                "You took the mean. Square first, then take the mean, then the root.",
            ),
            (
                "My value grows with the size of the group",
                "You took the root of the sum of squares. Take the root of their mean.",
            ),
            ("My value is the square of what is expected", "The root is missing: .sqrt() after the mean."),
        ),
        skeleton=(
            "def group_value(x):\n"
            "    size = ...  # of x.square(): the mean, then the root\n"
            "    return x.sign()[0] * size"
        ),
        pace=(torch.linspace(0.1, 2, 160_000),),
        wrong=VALUE_WRONG,
    ),
    Exercise(
        name="scale",
        notebook=NOTEBOOK,
        difficulty="medium",
        minutes=8,
        reference=scale,
        checks=(
            case(scale, FEW, threshold(FEW)),
            case(scale, MATRIX, threshold(MATRIX)),
            case(scale, POSITIVE, threshold(POSITIVE)),
            x_keeps_its_length,
        ),
        start="Write it for one group first: x[codes == 3] holds its elements. Then go over the codes 0 to 3, and "
        "put the group_value of each into a tensor of five zeros.",
        hints=(
            (
                "I have a value for each element",
                "There are five values, one for each code. values[codes] later puts them in x's place.",
            ),
            ("I have four values", "The code 4 has a value too: zero. With it, values[codes] works for all codes."),
            ("My negative groups have positive values", "Squares forget the sign. The codes 0 and 1 are negative."),
            ("My values are too small in size", "You took the mean. Square first, then take the mean, then the root."),
            (
                "My groups count as many elements as x has",
                "The mean of a group's squares is over the elements of that group, not over all of x.",
            ),
            ("My values come in another order", "values[0] belongs to the code 0, which is strong negative."),
            (
                "I get an IndexError",
                "A group may be empty, and then it has no first element: x.sign()[0] fails. "
                "Its value is 0: ask with len.",
            ),
            ("An empty group's value is nan", "The mean of nothing is nan. A group without elements has the value 0."),
        ),
        skeleton=(
            "def scale(x, codes):\n"
            "    values = x.new_zeros(5)\n"
            "    for code in range(4):\n"
            "        group = x[codes == code]\n"
            "        ...  # where the group has elements, values[code] is its group_value\n"
            "    return ..."
        ),
        pace=(torch.linspace(-1, 1, 160_000), torch.arange(160_000) // 40_000),
        wrong=SCALE_WRONG,
    ),
    Exercise(
        name="dts",
        notebook=NOTEBOOK,
        difficulty="medium",
        minutes=10,
        reference=dts,
        checks=(
            case(dts, TALL, 0.8),
            case(dts, WIDE, 0.5),
            case(dts, FEW, 0.1),  # a bias: its zero stays
            case(dts, CONVOLUTION, 0.1),
            case(dts, torch.tensor(-0.7), 0.1),  # a single number
            its_rank_is_that_of_the_keep_ratio,
        ),
        start="Begin with what is no matrix: find the codes of x, then the values of the codes, then values[codes]. "
        "A matrix needs the same twice, for U and for V^T.",
        hints=(
            ("I decompose nothing", "A matrix, x.dim() == 2, is decomposed first; then its factors are made coarse."),
            (
                "I get an error, or a wrong answer, for a bias or a convolution",
                "Only matrices are decomposed. Threshold and scale any other tensor as it is.",
            ),
            ("My biases come back exact", "They are not decomposed, but they are thresholded and scaled as well."),
            ("The keep ratio changes nothing", "Hand keep_ratio on to decompose."),
            ("My matrix has the wrong length", "Where are the singular values? U diag(s) is U * s."),
            (
                "I took the mean of each group",
                "averaged was for notebook 03. Here each code has the value that scale gives.",
            ),
            ("One of my factors is still exact", "Both factors are thresholded and scaled, each by itself."),
            (
                "My singular values have become coarse",
                "They are few: s stays as it is. Only U and V^T are thresholded and scaled.",
            ),
            (
                "I multiply by s before I threshold",
                "Threshold the unit vectors of U. With s in them, strong components would take all the strong codes.",
            ),
            (
                "My matrix holds four values alone",
                "Threshold the factors, not their product: the product has as many elements as the matrix.",
            ),
        ),
        skeleton=(
            "def dts(x, keep_ratio=0.1):\n"
            "    def coarse(part):\n"
            "        codes = ...\n"
            "        return ...  # part with the group's value in each place\n"
            "\n"
            "    if x.dim() == 0:\n"
            "        return x\n"
            "    if x.dim() != 2:\n"
            "        return ...\n"
            "    U, s, Vt = decompose(x, keep_ratio)\n"
            "    return ..."
        ),
        wrong=DTS_WRONG,
    ),
    Exercise(
        name="best_value",
        notebook=NOTEBOOK,
        difficulty="medium",
        minutes=8,
        reference=best_value,
        checks=(
            case(best_value, torch.tensor([-0.3, -0.5, -0.2, -0.9]), torch.tensor([1.0, 2.0, 4.0, 0.5])),
            case(best_value, torch.tensor([0.4, 0.6, 5.0]), torch.tensor([2.0, 1.0, 0.0])),
            case(best_value, torch.tensor([0.1, 0.2, 0.4]), torch.ones(3)),  # equal weights: the mean
            no_value_is_better,
        ),
        start="Set the derivative of the sum with respect to v to zero, and solve for v.",
        hints=(
            (
                "My value ignores the weights",
                "Try weights (1, 3): the value has to lie three times as near to the second element as to the first.",
            ),
            (
                "My value changes when all weights double",
                "Twice the weights make every error twice as large, so the best v stays. Divide by what makes it so.",
            ),
            (
                "My value is too large in size",
                "You kept a length. Here only the error counts: set the derivative with respect to v to zero.",
            ),
            (
                "Heavy elements pull my value too far",
                "In the sum each weight stands once, not squared. It stands once in the derivative too.",
            ),
            ("Elements of weight zero still count", "An element of weight zero adds nothing to the error, whatever v."),
        ),
        skeleton=("def best_value(x, weight):\n    return ... / ..."),
        pace=(torch.linspace(0.1, 2, 80_000), torch.linspace(1, 3, 80_000)),
        wrong=BEST_WRONG,
    ),
)
