"""Floor 2: beside the paper, and ours.

``drc``, ``coding``: DRC, a successor of DTS, and its entropy code.
``weightings``: shares of seen tasks for an unseen one, beside the paper's, and how far to trust them.
``router``: which task an input belongs to, from the deltas alone.
``statistics``: those of BatchNorm counted anew, from unlabelled inputs.
"""

from dts_mini.core.compress import METHODS
from dts_mini.ours import drc

METHODS["drc"] = drc
