"""What the bytes of a task's file buy: accuracy and KL divergence against storage."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from dts_mini.course.style import cue, styled
from dts_mini.suites.tables import curves


@styled
def size_curves(table: Mapping) -> tuple[Figure, dict]:
    """Every DTS row of a headline table against the file that each task adds, in % of the float32 model (log axis).

    Left: mean accuracy as a share of the experts', in %, with its 95 % interval over test images. Right: KL
    divergence from the experts, in nats (log axis), for which the table holds no interval.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.9))
    data = {}
    for number, (name, rows) in enumerate(curves(table).items()):
        size = [100 * row["storage"] for row in rows]
        value, low, high = ([100 * row["share of experts"][key] for row in rows] for key in ("value", "low", "high"))
        kl = [row["kl from experts"] for row in rows]
        reach = [[v - l for v, l in zip(value, low, strict=True)], [h - v for v, h in zip(value, high, strict=True)]]
        apart = [s * 1.04 ** (number - 1) for s in size]  # so that the intervals can be told apart
        left.errorbar(apart, value, reach, capsize=3, **cue(number), label=name)
        right.plot(size, kl, **cue(number))
        data[name] = {"storage": size, "value": value, "low": low, "high": high, "kl": kl}
    ticks = next(iter(data.values()))["storage"]  # the other curves' files are as large, but for a few zeros
    for axis in (left, right):
        axis.set_xscale("log")
        axis.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_xlabel("a task's file (% of the float32 model)")
        axis.grid(color="0.9")
    left.axhline(100, color="0.35", linewidth=1, label="experts")
    right.set_yscale("log")
    left.set_ylabel("mean accuracy (% of the experts'),\n95 % interval")
    right.set_ylabel("KL divergence from the experts (nats)")
    figure.legend(loc="outside upper center", ncols=4)
    return figure, data
