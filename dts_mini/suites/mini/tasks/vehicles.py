"""Vehicles seen from the side: ten body styles that differ in outline, glass and wheels, never in colour alone.

A vehicle is drawn in its own frame: u runs along it from the tail (-1) to the nose (1), h upwards from the
ground in half lengths. Its outline is a roof height for each u, so a whole body costs one brush.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Generator, Tensor

from dts_mini.suites.mini.canvas import (
    X,
    Y,
    blank,
    box,
    chance,
    colour,
    hsv,
    noise,
    paint,
    photograph,
    shade,
    soft,
    stripes,
    uniform,
)
from dts_mini.suites.mini.task import Painter, Task, drawn


@dataclass(frozen=True)
class Body:
    """Side view of a body style, all in half lengths; each vehicle gets its own jitter on top."""

    roof: tuple[tuple[float, float], ...]  # (u, h) from tail to nose
    glass: tuple[tuple[float, float], ...]  # windows from u to u
    belt: float  # height of the lower edge of the windows
    axles: tuple[float, ...]
    wheel: float  # radius
    clearance: float
    extras: tuple[Callable, ...] = ()


@dataclass(frozen=True)
class Frame:
    """Where each vehicle stands: the pixels' own (u, h), and half the length of a vehicle in canvas units."""

    u: Tensor
    h: Tensor
    length: Tensor

    def where(self, distance: Tensor) -> Tensor:
        """Mask of what has a negative distance, given in half lengths."""
        return soft(distance * self.length)

    def block(self, u0, u1, h0, h1) -> Tensor:
        """Mask of an upright rectangle."""
        across = torch.maximum(u0 - self.u, self.u - u1)
        return self.where(torch.maximum(across, torch.maximum(h0 - self.h, self.h - h1)))

    def ball(self, u, h, radius) -> Tensor:
        """Mask of a disc."""
        return self.where(torch.hypot(self.u - u, self.h - h) - radius)

    def above(self, knots: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Distance above the broken line through ``knots`` (u, h), about perpendicular to it."""
        (_, height), slope = knots[0], torch.zeros_like(self.u)
        for (u0, h0), (u1, h1) in pairwise(knots):
            rise = (h1 - h0) / (u1 - u0)
            height = height + rise * torch.minimum((self.u - u0).clamp(min=0), u1 - u0)
            slope = slope + rise * ((self.u >= u0) & (self.u < u1))
        ends = torch.maximum(knots[0][0] - self.u, self.u - knots[-1][0])
        return torch.maximum((self.h - height) / (1 + slope * slope).sqrt(), ends)


def cargo(canvas: Tensor, at: Frame, g: Generator) -> Tensor:
    """A lorry's load: a box, sometimes a tank or an open tipper, with a gap behind the cab."""
    n = len(canvas)
    end, top = uniform(n, 0.3, 0.48, g), uniform(n, 0.68, 0.98, g)
    top = top - 0.32 * chance(n, 0.25, g)
    canvas = paint(canvas, at.block(end, end + 0.07, 0.3, 2.0), canvas[:, :, 2, 2])
    load = colour(n, (0, 1), (0.0, 0.7), (0.2, 0.95), g)
    canvas = paint(canvas, at.block(-1.02, end, 0.28, top), load)
    ribs = stripes(uniform(n, 0.1, 0.4, g)) * at.block(-1.0, end, 0.3, top) * chance(n, 0.5, g)
    canvas = shade(canvas, -0.12 * ribs)
    return paint(canvas, at.block(-1, 0.9, 0.12, 0.26) * 0.7, hsv(0.6, 0.1, uniform(n, 0.1, 0.25, g)))


def cockpit(canvas: Tensor, at: Frame, g: Generator) -> Tensor:
    """A convertible's windscreen, seats and, mostly, people; at times the folded hood."""
    n = len(canvas)
    foot, lean = uniform(n, 0.28, 0.48, g), uniform(n, 0.5, 1.1, g)
    along = (at.u - foot + lean * (at.h - 0.42)) / (1 + lean * lean).sqrt()
    screen = at.where(torch.maximum(along.abs() - 0.035, torch.maximum(0.4 - at.h, at.h - uniform(n, 0.6, 0.72, g))))
    canvas = paint(canvas, screen, hsv(0.55, 0.1, uniform(n, 0.1, 0.8, g)))
    trim = colour(n, (0, 0.12), (0.1, 0.7), (0.1, 0.7), g)
    seat = uniform(n, -0.12, 0.05, g)
    for place, there in ((seat, 1.0), (seat - 0.3, chance(n, 0.5, g))):
        canvas = paint(canvas, at.block(place - 0.08, place + 0.03, 0.4, 0.56) * there, trim)
        driver = there * chance(n, 0.6, g)
        canvas = paint(
            canvas, at.ball(place + 0.1, 0.6, 0.075) * driver, colour(n, (0.03, 0.09), (0.2, 0.6), (0.2, 0.9), g)
        )
    hood = at.where(torch.hypot((at.u + 0.55) / 2.5, at.h - 0.45) - 0.07) * chance(n, 0.4, g)
    return paint(canvas, hood, trim * 0.6)


def spare(canvas: Tensor, at: Frame, g: Generator) -> Tensor:
    """An off-road car's spare wheel at the tail, roof rack and bull bar, each on some."""
    n = len(canvas)
    dark = hsv(0.6, 0.1, uniform(n, 0.05, 0.25, g))
    canvas = paint(canvas, at.block(-1.1, -0.98, 0.34, 0.72) * chance(n, 0.55, g), dark)
    return paint(canvas, at.block(-0.8, 0.1, 0.9, 0.95) * chance(n, 0.4, g), dark)


def rails(canvas: Tensor, at: Frame, g: Generator) -> Tensor:
    """An estate car's roof rails, on some."""
    n = len(canvas)
    return paint(canvas, at.block(-0.75, 0.05, 0.69, 0.72) * chance(n, 0.4, g), hsv(0, 0, uniform(n, 0.1, 0.8, g)))


def bed(canvas: Tensor, at: Frame, g: Generator) -> Tensor:
    """A pick-up truck's load, on some, and the shadow line of its bed."""
    n = len(canvas)
    canvas = shade(canvas, -0.2 * at.block(-0.97, -0.2, 0.4, 0.44))
    u = uniform(n, -0.75, -0.4, g)
    load = at.block(u - uniform(n, 0.08, 0.2, g), u + 0.12, 0.46, uniform(n, 0.5, 0.62, g)) * chance(n, 0.35, g)
    return paint(canvas, load, colour(n, (0, 1), (0.1, 0.7), (0.2, 0.8), g))


def livery(canvas: Tensor, at: Frame, g: Generator) -> Tensor:
    """A band or a panel in a second colour along the flank, on many buses and vans."""
    n = len(canvas)
    low = uniform(n, 0.15, 0.32, g)
    band = at.block(uniform(n, -1.0, -0.2, g), uniform(n, 0.1, 1.0, g), low, low + uniform(n, 0.04, 0.2, g))
    return paint(canvas, band * chance(n, 0.5, g) * 0.8, colour(n, (0, 1), (0.0, 0.9), (0.2, 0.95), g))


NOSE = ((0.94, 0.36), (1.0, 0.22))
BODIES = {
    "saloon car": Body(
        ((-1.0, 0.34), (-0.94, 0.45), (-0.62, 0.47), (-0.36, 0.66), (0.08, 0.66), (0.46, 0.45), *NOSE),
        ((-0.5, -0.17), (-0.12, 0.36)), 0.45, (-0.62, 0.62), 0.15, 0.1,
    ),
    "sports car": Body(
        ((-1.0, 0.3), (-0.95, 0.39), (-0.7, 0.42), (-0.25, 0.53), (0.02, 0.53), (0.42, 0.34), (0.95, 0.25),
         (1.0, 0.16)),
        ((-0.34, 0.3),), 0.37, (-0.62, 0.64), 0.155, 0.07,
    ),
    "hatchback": Body(
        ((-1.0, 0.36), (-0.96, 0.5), (-0.76, 0.74), (-0.6, 0.77), (0.12, 0.77), (0.52, 0.51), (0.92, 0.42),
         (1.0, 0.24)),
        ((-0.76, -0.3), (-0.24, 0.42)), 0.5, (-0.65, 0.66), 0.175, 0.11,
    ),
    "estate car": Body(
        ((-1.0, 0.32), (-0.97, 0.48), (-0.86, 0.65), (-0.76, 0.67), (0.08, 0.67), (0.46, 0.45), *NOSE),
        ((-0.82, -0.5), (-0.45, -0.17), (-0.12, 0.36)), 0.45, (-0.62, 0.62), 0.15, 0.1,
    ),
    "off-road car": Body(
        ((-1.0, 0.5), (-0.98, 0.84), (-0.9, 0.88), (0.18, 0.88), (0.34, 0.6), (0.94, 0.57), (1.0, 0.36)),
        ((-0.88, -0.48), (-0.4, -0.1), (-0.04, 0.28)), 0.6, (-0.62, 0.64), 0.215, 0.22, (spare,),
    ),
    "pick-up truck": Body(
        ((-1.0, 0.34), (-0.98, 0.46), (-0.2, 0.46), (-0.14, 0.74), (0.2, 0.75), (0.42, 0.5), (0.94, 0.45), (1.0, 0.25)),
        ((-0.1, 0.08), (0.12, 0.36)), 0.49, (-0.62, 0.64), 0.175, 0.15, (bed,),
    ),
    "van": Body(
        ((-1.0, 0.4), (-0.98, 0.82), (-0.9, 0.86), (0.42, 0.87), (0.7, 0.56), (0.95, 0.46), (1.0, 0.22)),
        ((0.24, 0.66),), 0.55, (-0.62, 0.66), 0.155, 0.12, (livery,),
    ),
    "bus": Body(
        ((-1.0, 0.3), (-0.99, 0.7), (-0.95, 0.74), (0.93, 0.74), (0.97, 0.68), (1.0, 0.2)),
        ((-0.93, -0.62), (-0.57, -0.26), (-0.21, 0.1), (0.15, 0.46), (0.52, 0.9)),
        0.4, (-0.55, 0.62), 0.12, 0.08, (livery,),
    ),
    "lorry": Body(
        ((-1.0, 0.28), (0.4, 0.28), (0.44, 0.7), (0.5, 0.76), (0.84, 0.76), (0.93, 0.5), (1.0, 0.2)),
        ((0.6, 0.88),), 0.5, (-0.75, -0.45, 0.7), 0.135, 0.13, (cargo,),
    ),
    "convertible": Body(
        ((-1.0, 0.32), (-0.94, 0.43), (-0.5, 0.45), (0.42, 0.43), *NOSE), ((2.0, 2.1),), 0.45,
        (-0.62, 0.63), 0.155, 0.09, (cockpit,),
    ),
}  # fmt: skip


def backdrop(n: int, horizon: Tensor, g: Generator) -> Tensor:
    """Sky or wall, buildings or trees, and the ground from ``horizon`` down."""
    far = noise(n, 8, g)
    canvas = blank(colour(n, (0.5, 0.68), (0.0, 0.4), (0.6, 1.0), g))
    top = horizon - uniform(n, -0.1, 1.1, g) - 0.5 * (far[:, 16:17] - 0.5) * chance(n, 0.6, g)
    posts = stripes(uniform(n, 0.2, 0.7, g), 0.0, uniform(n, 0, 1, g), 0.4) * chance(n, 0.4, g)
    behind = blank(colour(n, (0.02, 0.4), (0.0, 0.45), (0.35, 0.85), g))
    behind = shade(behind, (far - 0.5) * uniform(n, 0.1, 0.5, g) + posts * uniform(n, -0.15, 0.15, g))
    canvas = paint(canvas, soft(top - Y), behind)
    return paint(canvas, soft(horizon - Y), colour(n, (0.05, 0.35), (0.0, 0.4), (0.3, 0.75), g))


def vehicle(body: Body) -> Painter:
    """A painter of vehicles with this body: posed, painted, glazed, lit, and now and then half hidden."""

    def draw(n: int, g: Generator) -> Tensor:
        length, height = uniform(n, 0.78, 0.98, g), uniform(n, 1.1, 1.4, g)
        ground, tilt = uniform(n, 0.45, 0.72, g), uniform(n, -0.05, 0.05, g)
        x = X - uniform(n, -0.1, 0.1, g)
        at = Frame(x / length, (ground - Y - tilt * x) / (length * height), length)
        canvas = backdrop(n, ground - uniform(n, 0.0, 0.35, g), g)
        canvas = shade(canvas, -0.3 * at.where(torch.hypot(at.u / 8, at.h + 0.02) - 0.13))

        knots = [(u + uniform(n, -0.02, 0.02, g), h * uniform(n, 0.96, 1.04, g)) for u, h in body.roof]
        shell = at.above(knots)
        flank = at.where(torch.maximum(shell, body.clearance * uniform(n, 0.9, 1.2, g) - at.h))
        shine = (at.h - 0.35) * uniform(n, -0.1, 0.7, g)
        coat = shade(blank(colour(n, (0, 1), (0.0, 0.9), (0.1, 1.0), g)), shine)
        canvas = paint(canvas, flank, coat)
        belt = body.belt * uniform(n, 0.95, 1.05, g)
        across = torch.full_like(at.u, 9.0)
        for u0, u1 in body.glass:
            across = torch.minimum(across, (at.u - (u0 + u1) / 2).abs() - (u1 - u0) / 2)
        panes = at.where(torch.maximum(torch.maximum(shell + uniform(n, 0.03, 0.07, g), across), belt - at.h))
        pane = shade(blank(colour(n, (0.5, 0.65), (0.0, 0.4), (0.02, 0.75), g)), 0.5 * (at.h - 0.5))
        canvas = paint(canvas, panes, pane)
        for extra in body.extras:
            canvas = extra(canvas, at, g)

        tyre, rim = hsv(0.6, 0.1, uniform(n, 0.02, 0.2, g)), hsv(0.6, 0.05, uniform(n, 0.15, 0.9, g))
        radius, shift = body.wheel * uniform(n, 0.88, 1.12, g), uniform(n, -0.04, 0.04, g)
        hub = torch.full_like(at.u * at.h, 9.0)
        for u in body.axles:
            hub = torch.minimum(hub, torch.hypot(at.u - u - shift, at.h - radius))
        canvas = paint(canvas, at.where(hub - radius), tyre)
        canvas = paint(canvas, at.where(hub - radius * uniform(n, 0.4, 0.7, g)), rim)
        lamp = chance(n, 0.7, g)
        canvas = paint(canvas, at.ball(0.95, 0.3, 0.05) * lamp, colour(n, (0.1, 0.16), (0.0, 0.4), (0.8, 1.0), g))
        canvas = paint(canvas, at.ball(-0.96, 0.32, 0.05) * lamp, colour(n, (0.97, 1.03), (0.7, 1.0), (0.4, 0.9), g))

        wide = uniform(n, 0.02, 0.09, g)  # something in the foreground: a post, a passer-by, a bush
        hide = box(uniform(n, -1, 1, g), uniform(n, 0.2, 0.9, g), wide, uniform(n, 0.2, 1.2, g), 0.0, wide)
        canvas = paint(canvas, hide * chance(n, 0.25, g), colour(n, (0, 1), (0.0, 0.6), (0.1, 0.8), g))
        canvas = torch.where(chance(n, 0.5, g)[:, None] > 0, canvas.flip(-1), canvas)
        return photograph(canvas, g, 0.12, 0.035)

    return draw


TASK = Task(
    name="vehicles",
    mirrors="Cars",
    real=False,
    classes=tuple(BODIES),
    synonyms=(
        ("four-door sedan", "sedan with a boot", "family limousine", "executive sedan"),
        ("coupe", "racer", "supercar", "low two-seater"),
        ("city runabout", "small three-door", "compact five-door", "supermini"),
        ("station wagon", "shooting brake", "long-roofed wagon", "touring wagon"),
        ("4x4", "suv", "jeep", "all-terrain vehicle"),
        ("ute", "cab with an open bed", "flatbed utility", "crew cab with a load bed"),
        ("delivery vehicle", "panel transporter", "courier vehicle", "people carrier"),
        ("coach", "public transport vehicle", "single-decker", "passenger coach"),
        ("heavy goods vehicle", "semi-trailer", "freight hauler", "hgv"),
        ("cabriolet", "roadster", "open-top car", "spyder"),
    ),
    templates=("a photo of a {c}.", "a photo of the {c}.", "a photo of my {c}.", "i love my {c}!"),
    source=drawn([vehicle(body) for body in BODIES.values()]),
)
