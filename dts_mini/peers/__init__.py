"""Floor 3: the methods that DTS is measured against, written anew from their papers, in DTS's own file format.

Each is a function ``peer(theta_0, experts, budget=None, **settings) -> Peer``. The deltas of its ``Peer`` are files
like any other, so that all methods are counted by the same bytes: ``bytes_per_task``. ``budget`` is bytes a task at
most, as a number or as "1%" of a float32 expert.
"""

from collections.abc import Callable
from functools import partial

from dts_mini.peers.binary import bitdelta, t_switch
from dts_mini.peers.direct import direct, direct_low_rank
from dts_mini.peers.entropy_coded import rounding
from dts_mini.peers.low_rank import low_rank
from dts_mini.peers.masks import emr, tall
from dts_mini.peers.peer import Peer, bytes_per_task
from dts_mini.peers.pruned import pruned
from dts_mini.peers.quantised import rtvq, tvq
from dts_mini.peers.rounded import delta_come, delta_mix, low_rank_int
from dts_mini.peers.subspace import subspace
from dts_mini.peers.twin import twin_merging
from dts_mini.peers.ultra import ultra_delta

BUDGETED: dict[str, Callable[..., Peer]] = {
    "TSV-C": partial(low_rank, vector_bits=None),
    "low-rank, water-filling": partial(low_rank, ranks="water-filling", weight=0.5, vector_bits=None),
    "low-rank INT2": partial(low_rank_int, widths=(2,), norm=0.5),
    "low-rank INT3": low_rank_int,
    "low-rank INT4": partial(low_rank_int, widths=(4,)),
    "Delta-CoMe": delta_come,
    "DeltaMix": delta_mix,
    "UltraDelta": ultra_delta,
    "Twin-Merging": twin_merging,
    "T-Switch": t_switch,
    "T-Switch, a scale a tensor": partial(t_switch, per="tensor"),
    "rounding, entropy-coded": rounding,
    "magnitude pruning": pruned,
    "shared subspace": partial(subspace, vector_bits=None),
    "expert itself, low-rank": partial(direct_low_rank, ranks="water-filling"),
    "expert itself, DTS": direct,
    "expert itself, DRC": partial(direct, method="drc"),
}
"""Methods of any size, by name: they need a budget.

Those that are about matrices spend up to 4 bits on an element of a 1-D tensor, as the budget allows: see
``quantised.vectors``.
"""

NATURAL: dict[str, Callable[..., Peer]] = {
    "TVQ INT2": partial(tvq, bits=2),
    "TVQ INT3": partial(tvq, bits=3),
    "TVQ INT4": partial(tvq, bits=4),
    "RTVQ B3O2": partial(rtvq, base_bits=3, bits=2),
    "BitDelta": bitdelta,
    "EMR-Merging": emr,
    "TALL masks": tall,
    "UltraDelta, 97 % sparse": partial(ultra_delta, density=0.03),
}
"""Methods of one size, by name: a budget that is smaller is an error."""

PEERS = BUDGETED | NATURAL

__all__ = ["BUDGETED", "NATURAL", "PEERS", "Peer", "bytes_per_task"]
