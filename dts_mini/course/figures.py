"""The course's figures: each function returns (figure, data), the data plain lists that a test can read."""

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from dts_mini.course.style import bar_cue, cue, styled


# Notebooks 00 and 01: the suite, its experts, their task vectors.
