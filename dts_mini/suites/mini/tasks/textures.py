"""Procedural patterns under free orientation, scale, colours and distortion (mirrors DTD)."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from dts_mini.suites.mini.canvas import (
    TAU,
    X,
    Y,
    blank,
    chance,
    hsv,
    noise,
    paint,
    photograph,
    shade,
    soft,
    turn,
    uniform,
)
from dts_mini.suites.mini.task import Painter, Task, drawn

Pattern = Callable[[int, Generator, Tensor, Tensor], tuple[Tensor, Tensor | float]]
"""(n, generator, u, v) -> how much of the second colour each pixel has, and how much its relief is lit."""


def plane(n: int, g: Generator, warp: float = 0.25, swirl: float = 0.15) -> tuple[Tensor, Tensor]:
    """Coordinates (u, v) of a flat piece of material: turned, seen at a slant, and gently warped."""
    u, v = turn(X - uniform(n, -0.5, 0.5, g), Y - uniform(n, -0.5, 0.5, g), uniform(n, 0, TAU, g))
    u = u * uniform(n, 0.75, 1.3, g) * (1 + swirl * uniform(n, -1, 1, g) * v)  # a slant brings one end nearer
    u, v = turn(u, v, uniform(n, 0, TAU, g))
    bulge = uniform(n, 0, warp, g)
    return u + bulge * (noise(n, 3, g) - 0.5), v + bulge * (noise(n, 3, g) - 0.5)


def wave(t: Tensor, period) -> Tensor:
    """Distance from t to the nearest multiple of ``period``."""
    return (t / period - (t / period).round()).abs() * period


def points(u: Tensor, v: Tensor, pitch, jitter, g: Generator, apart=0.0, rise=1.0) -> tuple[Tensor, ...]:
    """Distances to the nearest and second nearest point of a jittered lattice, and the nearest's own random number.

    Odd rows are moved by ``apart`` cells; a row is ``rise`` cells high (0.5 and 0.866: a honeycomb)."""
    n = len(u)
    table = torch.rand(3, n, 64, generator=g)
    j0 = (v / (pitch * rise)).round()
    first = torch.full_like(u, 9.0)
    second, number = first, first
    for dj in (-1, 0, 1):
        j = j0 + dj
        shift = apart * (j.int() & 1)
        i0 = (u / pitch - shift).round()
        for di in (-1, 0, 1):
            i = i0 + di
            cell = ((i.int() & 7) * 8 + (j.int() & 7)).long().flatten(1)
            a, b, c = (t.gather(1, cell).view_as(u) for t in table)
            d = (u - pitch * (i + shift + jitter * (a - 0.5))) ** 2 + (v - pitch * (rise * j + jitter * (b - 0.5))) ** 2
            number = torch.where(d < first, c, number)
            second = torch.minimum(second, torch.maximum(d, first))
            first = torch.minimum(first, d)
    return first.sqrt(), second.sqrt(), number


def banded(n, g, u, v):
    period, duty = uniform(n, 0.3, 0.95, g), uniform(n, 0.25, 0.75, g)
    band = soft(wave(u, period) - duty * period / 2)
    fine = soft(wave(u - period / 2, period) - 0.04) * chance(n, 0.3, g)  # thin lines in the gaps
    return torch.maximum(band, fine), 0.0


def chequered(n, g, u, v):
    a = uniform(n, 0.2, 0.5, g)
    b = a * uniform(n, 0.85, 1.2, g)
    s, t = wave(u, 2 * a) - a / 2, wave(v, 2 * b) - b / 2
    same = soft(s) * soft(t) + soft(-s) * soft(-t)
    both = (soft(s) + soft(t)) / 2  # gingham: where the two colours cross lies their mixture
    return torch.where(chance(n, 0.3, g) > 0, both, same), 0.0


def dotted(n, g, u, v):
    pitch = uniform(n, 0.28, 0.62, g)
    loose = uniform(n, 0, 0.35, g) * chance(n, 0.6, g)
    d, _, _ = points(u, v, pitch, loose, g, 0.5 * chance(n, 0.5, g))
    return soft(d - pitch * uniform(n, 0.2, 0.36, g)), 0.0


def grid(n, g, u, v):
    a = uniform(n, 0.3, 0.7, g)
    b = a * torch.where(chance(n, 0.4, g) > 0, uniform(n, 0.65, 1.5, g), 1.0)
    width = uniform(n, 0.06, 0.15, g)
    return torch.maximum(soft(wave(u, a) - width / 2), soft(wave(v, b) - width / 2)), 0.0


def zigzagged(n, g, u, v):
    period, steep = uniform(n, 0.35, 0.8, g), uniform(n, 0.7, 1.6, g)
    across = uniform(n, 0.35, 0.9, g)
    t = v + 2 * steep * wave(u, across) * 0.6
    return soft((wave(t, period) - uniform(n, 0.2, 0.6, g) * period / 2) / (1 + steep**2 * 1.44).sqrt()), 0.0


def marbled(n, g, u, v):
    field = noise(n, 3, g, 2)
    t = u * uniform(n, 1.0, 2.5, g) + field * uniform(n, 2.0, 4.0, g)  # bands folded by slow turbulence
    vein = (1 - (t * uniform(n, 1.5, 3, g)).sin().abs()) ** uniform(n, 0.8, 2.5, g)
    return (1.1 * vein + 0.3 * (noise(n, 4, g) - 0.5)).clamp(0, 1), 0.3 * (field - 0.5)


def woven(n, g, u, v):
    p = uniform(n, 0.22, 0.5, g)
    i, j = (u / p).floor(), (v / p).floor()
    twill = chance(n, 0.3, g) > 0
    over = torch.where(twill, ((i + j).int() % 4 < 2).float(), ((i + j).int() & 1).float())  # the warp lies on top
    s, t = (u / p - i - 0.5).abs(), (v / p - j - 0.5).abs()
    width = uniform(n, 0.36, 0.47, g)
    across = torch.where(over > 0, s, t)
    along = torch.where(over > 0, t, s)
    gap = 1 - soft((across - width) * p)
    round_ = 0.28 * (0.5 - across / width) - 0.6 * (along - 0.25).clamp(min=0)
    return torch.where(chance(n, 0.5, g) > 0, over, 0.5 * over), round_ - 0.45 * gap


def cracked(n, g, u, v):
    pitch = uniform(n, 0.45, 1.0, g)
    d, e, number = points(u + 0.2 * noise(n, 6, g), v + 0.2 * noise(n, 6, g), pitch, 0.95, g)
    width = uniform(n, 0.03, 0.1, g) * (0.4 + 1.2 * noise(n, 3, g))
    return soft((e - d) / 1.6 - width), uniform(n, 0, 0.15, g) * (number - 0.5)


def honeycombed(n, g, u, v):
    pitch = uniform(n, 0.38, 0.7, g)
    d, e, number = points(u, v, pitch, uniform(n, 0, 0.2, g), g, 0.5, 0.866)
    wall = soft((e - d) / 1.6 - uniform(n, 0.03, 0.09, g))
    filled = (number < uniform(n, -0.3, 0.4, g)).float() * uniform(n, 0, 0.6, g)
    return torch.maximum(wall, filled), 0.35 * (d / pitch - 0.3) * uniform(n, -1, 1, g)


def spiralled(n, g, u, v):
    r, angle = torch.hypot(u, v), torch.atan2(v, u) / TAU
    arms = torch.randint(1, 4, (n, 1, 1), generator=g) * torch.where(chance(n, 0.5, g) > 0, 1.0, -1.0)
    # evenly spaced arms (a coil) or arms that widen outwards (a shell)
    coil = r / uniform(n, 0.3, 0.5, g)
    shell = (r + 0.03).log() * uniform(n, 0.8, 1.8, g)
    even = chance(n, 0.5, g) > 0
    t = torch.where(even, coil + angle * arms.sign(), shell + angle * arms)
    slope = torch.where(even, 0.4, 0.45 * r + 0.02)
    return soft((wave(t, 1.0) - uniform(n, 0.15, 0.33, g)) * slope), 0.0


def bubbly(n, g, u, v):
    pitch = uniform(n, 0.4, 0.75, g)
    d, e, number = points(u, v, pitch, 0.8, g)
    radius = pitch * (0.25 + 0.3 * number)
    radius = torch.minimum(radius, (d + e) / 2)
    rim = soft((d - radius).abs() - uniform(n, 0.03, 0.07, g))
    side, _ = turn(X, Y, uniform(n, 0, TAU, g))
    glint = soft((d - 0.45 * radius).abs() - 0.05) * (noise(n, 6, g) > 0.6)
    inside = soft(d - radius)
    lit = inside * (0.15 * side + 0.3 * (d / radius - 0.5)) + 0.6 * glint
    return rim * uniform(n, 0.4, 1, g), lit


def stained(n, g, u, v):
    field = 0.8 * noise(n, 4, g) + 0.2 * noise(n, 12, g)
    level = uniform(n, 0.5, 0.62, g)
    spot = ((field - level) * uniform(n, 8, 25, g)).clamp(0, 1)
    ring = (1 - (field - level - 0.04).abs() * uniform(n, 15, 30, g)).clamp(0, 1) * chance(n, 0.5, g)
    return (spot * uniform(n, 0.5, 0.9, g) + 0.5 * ring).clamp(0, 1), 0.1 * (noise(n, 8, g) - 0.5)


def painter(pattern: Pattern) -> Painter:
    """Draws a pattern in two uneven colours on a warped plane, with wear, a shadow and the camera's faults."""

    def draw(n: int, g: Generator) -> Tensor:
        u, v = plane(n, g)
        mask, relief = pattern(n, g, u, v)
        # two colours that differ in lightness, either of them the darker; at times of one hue
        dark = uniform(n, 0.1, 0.55, g)
        light = (dark + uniform(n, 0.3, 0.65, g)).clamp(max=1)
        hue = uniform(n, 0, 1, g)
        other = hue + torch.where(chance(n, 0.5, g) > 0, uniform(n, -0.06, 0.06, g), uniform(n, 0, 1, g))
        c = [hsv(hue, uniform(n, 0, 0.7, g), dark), hsv(other, uniform(n, 0, 0.6, g), light)]
        flip = chance(n, 0.5, g)[:, 0]
        c = [torch.lerp(c[0], c[1], flip), torch.lerp(c[1], c[0], flip)]
        canvas = paint(blank(c[0]), mask * (1 - uniform(n, 0, 0.5, g) * noise(n, 4, g)), c[1])
        canvas = shade(canvas, relief + (noise(n, 5, g) - 0.5) * uniform(n, 0, 0.25, g))
        return photograph(canvas, g, grain=0.06)

    return draw


PATTERNS = (
    banded,
    chequered,
    dotted,
    grid,
    zigzagged,
    marbled,
    woven,
    cracked,
    honeycombed,
    spiralled,
    bubbly,
    stained,
)

TASK = Task(
    name="textures",
    mirrors="DTD",
    real=False,
    classes=tuple(pattern.__name__ for pattern in PATTERNS),
    synonyms=(
        ("stripes", "parallel bars", "striped fabric", "straight lines"),
        ("checkerboard", "gingham", "chessboard squares", "checked tablecloth"),
        ("polka spots", "round spots", "speckles", "spotted cloth"),
        ("lattice", "wire mesh", "ruled squares", "tiles with joints"),
        ("chevrons", "herringbone", "sawtooth lines", "sharply folded lines"),
        ("veined stone", "swirling veins", "polished slab", "streaks of ink on paper"),
        ("basketwork", "interlaced strands", "wickerwork", "plaited cloth"),
        ("fissures", "dried mud", "broken glaze", "split earth"),
        ("hexagons", "beehive cells", "hexagonal tiles", "wax comb"),
        ("whorl", "coil", "snail shell", "curl around a centre"),
        ("foam", "froth", "soap suds", "fizz"),
        ("blotches", "spilt coffee", "dirty marks", "smudges"),
    ),
    templates=("a photo of a {c} texture.", "a photo of a {c} pattern.", "a photo of a {c} thing.", "a {c} surface."),
    source=drawn([painter(pattern) for pattern in PATTERNS]),
)
