"""Brushes of the mini suite: batched, anti-aliased drawing on 32 x 32 RGB canvases.

Every brush works on a batch. A *number* is a tensor of shape (n, 1, 1), one value an image, or a float;
a *mask* has shape (n, 32, 32) with values in [0, 1]; a *colour* has shape (n, 3); a *canvas* (n, 3, 32, 32)
in [0, 1]. Coordinates run from -1 to 1, x to the right and y downwards, so a pixel is 1/16 wide.
"""

import functools
import math

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

SIZE = 32
PIXEL = 2 / SIZE

_axis = (torch.arange(SIZE) + 0.5) * PIXEL - 1
Y, X = (grid[None] for grid in torch.meshgrid(_axis, _axis, indexing="ij"))  # (1, 32, 32) each


def uniform(n: int, low: float, high: float, g: Generator) -> Tensor:
    """Numbers (n, 1, 1) drawn evenly from [low, high)."""
    return low + (high - low) * torch.rand(n, 1, 1, generator=g)


def chance(n: int, p: float, g: Generator) -> Tensor:
    """Numbers (n, 1, 1) that are 1.0 with probability ``p`` and else 0.0."""
    return (torch.rand(n, 1, 1, generator=g) < p).float()


def hsv(h: Tensor | float, s: Tensor | float, v: Tensor | float) -> Tensor:
    """Colours (n, 3) from hue (turns, any real), saturation and value in [0, 1], each a number (n, 1, 1)."""
    h, s, v = torch.broadcast_tensors(*(torch.as_tensor(c, dtype=torch.float32).reshape(-1) for c in (h, s, v)))
    k = (torch.tensor([5.0, 3.0, 1.0]) + 6 * h[:, None]) % 6
    return v[:, None] * (1 - s[:, None] * torch.minimum(k, 4 - k).clamp(0, 1))


def colour(n: int, h: tuple, s: tuple, v: tuple, g: Generator) -> Tensor:
    """Colours (n, 3) with hue, saturation and value drawn evenly from the given (low, high) ranges."""
    return hsv(uniform(n, *h, g), uniform(n, *s, g), uniform(n, *v, g))


def blank(c: Tensor) -> Tensor:
    """A canvas filled with one colour (n, 3) an image."""
    return c[:, :, None, None].expand(-1, -1, SIZE, SIZE).clone()


def paint(canvas: Tensor, mask: Tensor, c: Tensor) -> Tensor:
    """The canvas with colour ``c`` (n, 3), or another canvas (n, 3, 32, 32), laid over it where ``mask`` says."""
    c = c if c.dim() == 4 else c[:, :, None, None]
    return torch.lerp(canvas, c.expand_as(canvas), mask[:, None].expand_as(canvas))


def soft(distance: Tensor) -> Tensor:
    """Mask from a signed distance (negative inside), anti-aliased over about one pixel."""
    return (0.5 - distance / PIXEL).clamp(0, 1)


def turn(x: Tensor, y: Tensor, angle: Tensor | float) -> tuple[Tensor, Tensor]:
    """Coordinates seen from axes turned by ``angle`` (radians)."""
    angle = torch.as_tensor(angle, dtype=torch.float32)
    return x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()


def disc(cx, cy, radius, stretch=1.0) -> Tensor:
    """Mask of a disc, or of an ellipse ``stretch`` times as wide as high."""
    return soft(torch.hypot((X - cx) / stretch, Y - cy) - radius)


def box(cx, cy, half_width, half_height, angle=0.0, rounding=0.0) -> Tensor:
    """Mask of a rectangle, turned by ``angle`` (radians), its corners rounded by ``rounding``."""
    x, y = turn(X - cx, Y - cy, angle)
    dx, dy = x.abs() - half_width + rounding, y.abs() - half_height + rounding
    return soft(torch.hypot(dx.clamp(min=0), dy.clamp(min=0)) + torch.maximum(dx, dy).clamp(max=0) - rounding)


def line(x0, y0, x1, y1, width) -> Tensor:
    """Mask of a stroke from (x0, y0) to (x1, y1) with round ends; ``width`` is its full width."""
    dx, dy = torch.as_tensor(x1 - x0), torch.as_tensor(y1 - y0)
    t = (((X - x0) * dx + (Y - y0) * dy) / (dx * dx + dy * dy + 1e-9)).clamp(0, 1)
    return soft(torch.hypot(X - x0 - t * dx, Y - y0 - t * dy) - width / 2)


def polygon(*corners) -> Tensor:
    """Mask of a convex polygon given by its corners (x, y), clockwise as seen on the screen."""
    edge = None
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        dx, dy = torch.as_tensor(x1 - x0), torch.as_tensor(y1 - y0)
        side = ((X - x0) * dy - (Y - y0) * dx) / (torch.hypot(dx * 1.0, dy * 1.0) + 1e-9)
        edge = side if edge is None else torch.maximum(edge, side)
    return soft(edge)


def stripes(period, angle=0.0, phase=0.0, duty=0.5) -> Tensor:
    """Mask of parallel bands, the share ``duty`` of each period (in canvas units) covered; phase in periods."""
    x, _ = turn(X, Y, angle)
    t = x / period + phase
    t = t - t.floor()
    return soft(((t - 0.5).abs() - duty / 2) * period)


def noise(n: int, cells: int, g: Generator, octaves: int = 1) -> Tensor:
    """Smooth random fields (n, 32, 32) in about [0, 1]: ``cells`` bumps across, each octave twice as fine."""
    total, weight = torch.zeros(n, SIZE, SIZE), 0.0
    for o in range(octaves):
        side = min(cells * 2**o + 1, SIZE)
        w = _bicubic(side)
        total, weight = total + w @ torch.rand(n, side, side, generator=g) @ w.T * 0.5**o, weight + 0.5**o
    return (total / weight).clamp(0, 1)


@functools.cache
def _bicubic(side: int) -> Tensor:
    """The matrix (32 x side) that resizes a line of ``side`` values to 32: far faster than interpolating images."""
    lines = torch.eye(side)[:, None, :, None]
    return F.interpolate(lines, (SIZE, 1), mode="bicubic", align_corners=True)[:, 0, :, 0].T.contiguous()


def shade(canvas: Tensor, amount: Tensor) -> Tensor:
    """The canvas made lighter or darker by ``amount``, a mask-shaped tensor or number added to all channels."""
    return canvas + amount[:, None]


TAU = 2 * math.pi


def camera(canvas: Tensor, g: Generator, zoom=(0.7, 1.0), tilt=0.08, shift=0.15) -> Tensor:
    """The canvas seen through a turned (radians), shifted, zoomed and possibly mirrored view; edges are reflected."""
    n = len(canvas)
    a, z = uniform(n, -tilt, tilt, g).flatten(), uniform(n, *zoom, g).flatten()
    m = z * (1 - 2 * chance(n, 0.5, g).flatten())
    dx, dy = ((2 * torch.rand(2, n, generator=g)) - 1) * shift
    view = torch.stack([m * a.cos(), -z * a.sin(), dx, m * a.sin(), z * a.cos(), dy], 1).reshape(n, 2, 3)
    grid = F.affine_grid(view, [n, 3, SIZE, SIZE], align_corners=False)
    return F.grid_sample(canvas, grid, padding_mode="reflection", align_corners=False)


def photograph(canvas: Tensor, g: Generator, light: float = 0.15, grain: float = 0.05) -> Tensor:
    """The canvas as a camera might see it: contrast, exposure, tint, light falling off to one side, pixel noise."""
    n = len(canvas)
    x, _ = turn(X, Y, uniform(n, 0, TAU, g))
    canvas = (canvas - 0.5) * uniform(n, 0.65, 1.15, g)[:, None] + 0.5
    canvas = canvas + (uniform(n, -light, light, g) + uniform(n, 0, light, g) * x)[:, None]
    canvas = canvas + 0.06 * (torch.rand(n, 3, 1, 1, generator=g) - 0.5)
    sd = uniform(n, 0.4 * grain, grain, g)[:, None]
    return (canvas + sd * torch.randn(canvas.shape, generator=g)).clamp(0, 1)
