"""The paper at full scale: storage from shapes alone."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from dts_mini.course.style import bar_cue, styled


@styled
def storage_shares(shares: Mapping[str, Mapping[float, float]]) -> tuple[Figure, dict]:
    """What one task adds, in % of the float32 model, by way of counting and keep ratio.

    ``shares`` is {way of counting: {keep ratio: share in [0, 1]}}.
    """
    ratios = list(next(iter(shares.values())))
    width = 0.84 / len(shares)
    figure, axis = plt.subplots(figsize=(7.2, 4))
    data = {"keep ratio": ratios, "share": {}}
    for number, (name, by_ratio) in enumerate(shares.items()):
        value = [100 * by_ratio[ratio] for ratio in ratios]
        place = [i + (number - (len(shares) - 1) / 2) * width for i in range(len(ratios))]
        bars = axis.bar(place, value, width, **bar_cue(number), label=name)
        axis.bar_label(bars, [f"{v:.2f}" for v in value], fontsize=8, padding=2)
        data["share"][name] = value
    axis.set_xticks(range(len(ratios)), [f"{ratio:g}" for ratio in ratios])
    axis.set(xlabel="keep ratio", ylabel="what one task adds (% of the float32 model)")
    figure.legend(loc="outside upper center", ncols=2)
    told = "; ".join(f"{name}: " + ", ".join(f"{v:.2f}" for v in value) for name, value in data["share"].items())
    figure.alt = (
        "Bars of what one task adds, in % of the float32 model, by way of counting, for the keep ratios "
        f"{', '.join(f'{ratio:g}' for ratio in ratios)}. {told}."
    )
    return figure, data
