"""Land cover: ten kinds of land seen straight from above at about ten metres a pixel (mirrors EuroSAT)."""

import torch
from torch import Generator, Tensor

from dts_mini.suites.mini.canvas import (
    PIXEL,
    SIZE,
    TAU,
    X,
    Y,
    blank,
    camera,
    chance,
    colour,
    disc,
    hsv,
    noise,
    paint,
    photograph,
    shade,
    soft,
    stripes,
    turn,
    uniform,
)
from dts_mini.suites.mini.task import Task, drawn


def dice(*keys: Tensor) -> Tensor:
    """Random-looking values in [0, 1), the same wherever all the keys are (the usual sine hash)."""
    return (sum(k * w for k, w in zip(keys, (12.9898, 78.233, 3.7), strict=False)).sin() * 43758.5).frac().abs()


def mosaic(n: int, width, height, g: Generator, ragged: float = 0.1) -> tuple[Tensor, Tensor, Tensor]:
    """Parcels of a turned, bent, brick-like grid: two random values a parcel, and the distance to its edge."""
    u, v = turn(X + ragged * (noise(n, 2, g) - 0.5), Y + ragged * (noise(n, 2, g) - 0.5), uniform(n, 0, TAU, g))
    seed = uniform(n, 0, 100, g)
    u = u / width + 20 * uniform(n, 0, 1, g)
    column = u.floor()
    v = v / (height * (0.7 + 0.8 * dice(column, seed))) + 7 * dice(column, seed + 1)
    row = v.floor()
    edge = torch.minimum((0.5 - (u - column - 0.5).abs()) * width, (0.5 - (v - row - 0.5).abs()) * height)
    return dice(column, row, seed), dice(column, row, seed + 5), edge


def tint(value: Tensor, other: Tensor, first: Tensor, second: Tensor, vary=0.2) -> Tensor:
    """A canvas between two colours (n, 3) according to ``value``, its brightness varied by ``other``."""
    return paint(blank(first), value, second) + (vary * (other - 0.5))[:, None]


def green(n: int, g: Generator, v=(0.2, 0.5)) -> Tensor:
    return colour(n, (0.18, 0.42), (0.15, 0.6), v, g)


def earth(n: int, g: Generator, v=(0.3, 0.75)) -> Tensor:
    return colour(n, (0.03, 0.17), (0.12, 0.5), v, g)


def either(n: int, p: float, a: Tensor, b: Tensor, g: Generator) -> Tensor:
    """Image by image, ``a`` with probability ``p`` and else ``b``."""
    return torch.where(chance(n, p, g).reshape(-1, *[1] * (a.dim() - 1)) > 0, a, b)


def mottle(canvas: Tensor, cells: int, amount, g: Generator) -> Tensor:
    return shade(canvas, (noise(len(canvas), cells, g, 2) - 0.5) * amount)


def countryside(n: int, g: Generator) -> Tensor:
    """What lies about the thing in question: parcels or open land, with a wood here and there."""
    a, b, _ = mosaic(n, uniform(n, 0.5, 1.4, g), uniform(n, 0.3, 0.9, g), g)
    flat = noise(n, 3, g)
    parcels = tint(
        either(n, 0.6, a, flat, g), either(n, 0.6, b, flat, g), green(n, g), either(n, 0.6, earth(n, g), green(n, g), g)
    )
    wood = soft(0.3 * (noise(n, 4, g, 2) - uniform(n, 0.0, 0.45, g)))
    return mottle(paint(parcels, wood * chance(n, 0.5, g), green(n, g, (0.1, 0.3))), 10, uniform(n, 0.03, 0.25, g), g)


def ribbon(n: int, bend: Tensor, g: Generator, reach: float = 0.6) -> Tensor:
    """Distance (n, 32, 32), in canvas units, from a winding line across the canvas; ``bend`` is its swing."""
    u, v = turn(X, Y, uniform(n, 0, TAU, g))
    t, f = uniform(n, 0, TAU, g), uniform(n, 1.2, 3.2, g)
    path = bend * ((f * u + t).sin() + 0.5 * (1.9 * f * u + 2.3 * t).sin()) + uniform(n, -reach, reach, g)
    slope = bend * f * ((f * u + t).cos() + 0.95 * (1.9 * f * u + 2.3 * t).cos())
    return (v - path).abs() / (1 + slope**2).sqrt()


def patch(canvas: Tensor, g: Generator) -> Tensor:
    """The patch as a satellite records it: any direction, thin haze, uneven light."""
    n = len(canvas)
    haze = (noise(n, 2, g) * uniform(n, 0, 0.45, g)).clamp(0, 1) * chance(n, 0.4, g)
    canvas = paint(canvas, haze, hsv(0.6, 0.08, uniform(n, 0.5, 0.9, g)))
    return photograph(camera(canvas, g, (0.7, 1.0), TAU / 2, 0.15), g, 0.08, 0.04)


def intrude(canvas: Tensor, g: Generator, p: float = 0.3) -> Tensor:
    """The canvas with other land at a corner, or a track across it, in the share ``p`` of images."""
    n = len(canvas)
    u, _ = turn(X, Y, uniform(n, 0, TAU, g))
    corner = soft(uniform(n, 0.45, 1.0, g) - u + 0.5 * (noise(n, 3, g) - 0.5)) * chance(n, p, g)
    canvas = paint(canvas, corner, countryside(n, g))
    track = soft(ribbon(n, uniform(n, 0, 0.15, g), g, 0.9) - 0.02) * chance(n, p / 2, g)
    return paint(canvas, track * 0.5, earth(n, g, (0.4, 0.8)))


def crop_field(n: int, g: Generator) -> Tensor:
    """A few large parcels, green to bare, each flat or finely striped by the plough."""
    a, b, edge = mosaic(n, uniform(n, 0.6, 1.5, g), uniform(n, 0.4, 1.4, g), g, 0.05)
    canvas = tint((1.8 * a - 0.4).clamp(0, 1), b, green(n, g, (0.2, 0.6)), earth(n, g, (0.3, 0.85)), 0.4)
    plough = stripes(uniform(n, 0.18, 0.3, g), uniform(n, 0, TAU, g) + (a > 0.5) * 1.5, 0.0, 0.5) - 0.5
    canvas = shade(canvas, plough * (b - 0.1).clamp(min=0) * uniform(n, 0, 0.3, g))
    border = soft(edge - uniform(n, 0.0, 0.05, g)) * chance(n, 0.5, g)
    canvas = paint(canvas, border * 0.6, either(n, 0.5, earth(n, g), green(n, g, (0.1, 0.3)), g))
    return patch(intrude(mottle(canvas, 6, uniform(n, 0.0, 0.15, g), g), g, 0.2), g)


def forest(n: int, g: Generator) -> Tensor:
    """A closed, dark, fine-grained canopy; clearings and a break in the stand."""
    stand = noise(n, 2, g)
    canvas = tint(stand, noise(n, 5, g), green(n, g, (0.12, 0.35)), green(n, g, (0.12, 0.4)), 0.15)
    canvas = shade(canvas, (noise(n, 24, g) - 0.5) * uniform(n, 0.12, 0.35, g))
    clearing = soft(0.3 * (noise(n, 4, g) - uniform(n, -0.1, 0.25, g)))
    canvas = paint(canvas, clearing * 0.8, either(n, 0.5, green(n, g, (0.3, 0.5)), earth(n, g, (0.3, 0.5)), g))
    return patch(intrude(canvas, g), g)


def scrubland(n: int, g: Generator) -> Tensor:
    """Patchy rough land: bushes and bare ground in irregular blotches of every size."""
    canvas = tint(noise(n, 3, g, 2), noise(n, 5, g), green(n, g, (0.25, 0.5)), earth(n, g, (0.3, 0.65)), 0.3)
    bushes = soft(0.12 * (uniform(n, 0.5, 0.68, g) - noise(n, 11, g, 2)) / 0.3)
    canvas = paint(canvas, bushes * uniform(n, 0.4, 0.9, g), green(n, g, (0.12, 0.35)))
    bare = soft(0.2 * (noise(n, 5, g, 2) - uniform(n, 0.1, 0.4, g)))
    canvas = paint(canvas, bare * uniform(n, 0.2, 0.8, g), earth(n, g, (0.45, 0.8)))
    return patch(intrude(canvas, g, 0.2), g)


def highway(n: int, g: Generator) -> Tensor:
    """A thin, nearly straight line with hard edges through the land; lanes, a crossing road, a slip road."""
    canvas, tone = countryside(n, g), either(n, 0.7, uniform(n, 0.55, 0.95, g), uniform(n, 0.1, 0.4, g), g)
    tar = hsv(uniform(n, 0, 0.7, g), uniform(n, 0, 0.15, g), tone)
    far, width = ribbon(n, uniform(n, 0.0, 0.14, g), g, 0.3), uniform(n, 0.05, 0.12, g)
    verge = soft(far - width - uniform(n, 0.03, 0.15, g)) * chance(n, 0.5, g)
    canvas = paint(canvas, verge * 0.6, either(n, 0.5, earth(n, g), green(n, g), g))
    side = soft(ribbon(n, uniform(n, 0, 0.1, g), g) - uniform(n, 0.02, 0.05, g)) * chance(n, 0.5, g)
    canvas = paint(canvas, side * 0.8, (tar * uniform(n, 0.8, 1.2, g)[:, 0]).clamp(0, 1))
    loop = soft((disc_distance(n, g) - uniform(n, 0.2, 0.4, g)).abs() - 0.04) * chance(n, 0.25, g)
    canvas = paint(paint(canvas, loop * 0.8, tar), soft(far - width), tar)
    middle = soft(far - width * 0.2) * chance(n, 0.5, g)
    return patch(paint(canvas, middle * 0.7, either(n, 0.5, green(n, g), tar * 1.25, g)), g)


def disc_distance(n: int, g: Generator) -> Tensor:
    """Distance from a random point near the middle."""
    return torch.hypot(X - uniform(n, -0.5, 0.5, g), Y - uniform(n, -0.5, 0.5, g))


def river(n: int, g: Generator) -> Tensor:
    """A winding ribbon of water of uneven width, with banks, an island or a side arm."""
    canvas = countryside(n, g)
    water = either(n, 0.85, colour(n, (0.47, 0.66), (0.2, 0.65), (0.1, 0.6), g), earth(n, g, (0.3, 0.6)), g)
    far = ribbon(n, uniform(n, 0.13, 0.4, g), g, 0.3)
    width = uniform(n, 0.09, 0.32, g) * (0.6 + 0.8 * noise(n, 2, g))
    bank = soft(far - width - uniform(n, 0.03, 0.16, g)) * chance(n, 0.6, g)
    canvas = paint(canvas, bank * 0.7, either(n, 0.5, green(n, g, (0.1, 0.35)), earth(n, g, (0.5, 0.85)), g))
    arm = soft(ribbon(n, uniform(n, 0.1, 0.3, g), g) - uniform(n, 0.03, 0.08, g)) * chance(n, 0.2, g)
    wet = torch.maximum(arm, soft(far - width))
    canvas = paint(canvas, wet, mottle(blank(water), 4, uniform(n, 0, 0.15, g), g))
    bar = soft(0.2 * (noise(n, 6, g) - uniform(n, 0.0, 0.3, g))) * wet * chance(n, 0.4, g)
    return patch(paint(canvas, bar, earth(n, g, (0.5, 0.85))), g)


def industrial_buildings(n: int, g: Generator) -> Tensor:
    """Large bright roofs of many sizes on paved yards, with streets between the blocks."""
    a, b, edge = mosaic(n, uniform(n, 0.4, 0.75, g), uniform(n, 0.3, 0.6, g), g, 0.02)
    canvas = tint(b, a, hsv(uniform(n, 0, 0.7, g), uniform(n, 0, 0.15, g), uniform(n, 0.35, 0.7, g)), earth(n, g))
    roof = tint(
        b,
        (7 * a).frac(),
        colour(n, (0.5, 0.68), (0, 0.35), (0.55, 1), g),
        colour(n, (0, 0.12), (0, 0.4), (0.4, 0.95), g),
        0.5,
    )
    built = (a < uniform(n, 0.5, 0.85, g)).float()
    house = soft(uniform(n, 0.05, 0.11, g) - edge)
    canvas = paint(canvas, (soft(0.03 - edge)) * (1 - built) * chance(n, 0.7, g), green(n, g))
    shadow = torch.roll(house, (1, 1), (1, 2)) * built
    canvas = paint(shade(canvas, -0.25 * shadow), house * built, roof)
    ridges = stripes(uniform(n, 0.16, 0.25, g), uniform(n, 0, TAU, g)) - 0.5
    canvas = shade(canvas, house * built * ridges * uniform(n, 0, 0.2, g))
    road = soft(ribbon(n, uniform(n, 0, 0.05, g), g) - 0.05) * chance(n, 0.5, g)
    return patch(intrude(paint(canvas, road, hsv(0.6, 0.05, uniform(n, 0.3, 0.7, g))), g, 0.4), g)


def houses(n: int, g: Generator) -> Tensor:
    """Rows of small roofs and gardens along a net of narrow streets."""
    _, b, edge = mosaic(n, uniform(n, 0.5, 1.0, g), uniform(n, 0.45, 0.9, g), g, 0.15)
    garden = tint(
        noise(n, 6, g), noise(n, 16, g), green(n, g, (0.2, 0.45)), either(n, 0.5, earth(n, g), green(n, g), g), 0.3
    )
    plot = PIXEL * uniform(n, 2.4, 3.6, g)
    c, d, rim = mosaic(n, plot, plot, g, 0.3)
    roof = tint(
        c, d, colour(n, (-0.02, 0.08), (0.05, 0.6), (0.4, 0.85), g), colour(n, (0, 0.7), (0, 0.2), (0.3, 0.95), g), 0.4
    )
    canvas = paint(garden, soft(PIXEL * 0.7 - rim) * (c < uniform(n, 0.6, 0.95, g)) * (b < 0.9), roof)
    street = soft(edge - uniform(n, 0.03, 0.07, g))
    tar = hsv(uniform(n, 0, 0.7, g), uniform(n, 0, 0.12, g), uniform(n, 0.35, 0.75, g))
    return patch(intrude(paint(canvas, street * 0.85, tar), g, 0.4), g)


def orchard(n: int, g: Generator) -> Tensor:
    """Trees or vines set out in regular rows, in a few parcels of different directions."""
    a, b, edge = mosaic(n, uniform(n, 0.7, 1.6, g), uniform(n, 0.6, 1.4, g), g, 0.05)
    soil = either(n, 0.65, earth(n, g), green(n, g, (0.35, 0.6)), g)
    canvas = mottle(tint(a, b, soil, either(n, 0.6, soil, earth(n, g), g), 0.15), 8, 0.15, g)
    gap, angle = PIXEL * uniform(n, 2.6, 4.4, g), uniform(n, 0, TAU, g) + (a > 0.5) * uniform(n, 0, 1.5, g)
    rows = stripes(gap, angle, uniform(n, 0, 1, g) + 0.3 * (noise(n, 4, g) - 0.5), uniform(n, 0.4, 0.6, g))
    trees = rows * either(
        n, 0.6, stripes(gap * uniform(n, 0.9, 1.2, g), angle + TAU / 4, 0.0, 0.6), torch.ones(n, SIZE, SIZE), g
    )
    planted = (b < either(n, 0.35, b.flatten(1).amax(1)[:, None, None], torch.ones(n, 1, 1), g)) * (
        noise(n, 12, g) > uniform(n, 0.0, 0.35, g)
    )
    canvas = paint(canvas, trees * planted * uniform(n, 0.7, 1.0, g), green(n, g, (0.08, 0.3)))
    canvas = paint(canvas, soft(edge - 0.04) * chance(n, 0.5, g) * 0.7, earth(n, g, (0.4, 0.8)))
    return patch(intrude(canvas, g), g)


def pasture(n: int, g: Generator) -> Tensor:
    """Smooth grass with hedges, single trees and a few faint parcels."""
    a, b, edge = mosaic(n, uniform(n, 0.8, 1.8, g), uniform(n, 0.7, 1.6, g), g, 0.3)
    grass = colour(n, (0.13, 0.4), (0.2, 0.6), (0.3, 0.65), g)
    canvas = mottle(tint(a * 0.3, b, grass, green(n, g), 0.08), 3, uniform(n, 0.05, 0.25, g), g)
    hedge = soft(edge - uniform(n, 0.02, 0.07, g)) * (noise(n, 10, g) > uniform(n, 0.0, 0.5, g)) * chance(n, 0.75, g)
    dark = green(n, g, (0.08, 0.3))
    canvas = paint(canvas, hedge * 0.9, dark)
    for _ in range(4):
        tree = disc(uniform(n, -1, 1, g), uniform(n, -1, 1, g), uniform(n, 0.05, 0.13, g))
        canvas = paint(canvas, tree * chance(n, 0.5, g) * 0.9, dark)
    return patch(intrude(canvas, g, 0.25), g)


def sea_or_lake(n: int, g: Generator) -> Tensor:
    """Open water, smooth or with swell and silt; often a shore, an islet or a boat."""
    water, silt = (colour(n, (0.38, 0.68), (0.1, 0.75), (0.08, 0.55), g) for _ in range(2))
    canvas = tint(noise(n, 2, g) * uniform(n, 0, 0.6, g), noise(n, 4, g), water, silt, 0.06)
    swell = stripes(uniform(n, 0.2, 0.5, g), uniform(n, 0, TAU, g), 0.5 * noise(n, 3, g)) - 0.5
    canvas = shade(canvas, swell * uniform(n, 0, 0.08, g))
    u, _ = turn(X, Y, uniform(n, 0, TAU, g))
    shore = uniform(n, -0.1, 0.9, g) - u + 0.7 * (noise(n, 3, g, 2) - 0.5)
    there = chance(n, 0.55, g)
    canvas = paint(canvas, soft(shore - uniform(n, 0, 0.15, g)) * there * 0.7, earth(n, g, (0.5, 0.9)))
    canvas = paint(canvas, soft(shore) * there, countryside(n, g))
    spot = disc(uniform(n, -0.9, 0.9, g), uniform(n, -0.9, 0.9, g), uniform(n, 0.03, 0.2, g), uniform(n, 1, 2, g))
    return patch(paint(canvas, spot * chance(n, 0.2, g), either(n, 0.5, earth(n, g, (0.6, 1)), green(n, g), g)), g)


TASK = Task(
    name="land cover",
    mirrors="EuroSAT",
    real=False,
    classes=(
        "crop field",
        "forest",
        "scrubland",
        "highway",
        "industrial buildings",
        "pasture",
        "orchard",
        "houses",
        "river",
        "sea or lake",
    ),
    synonyms=(
        ("farmland", "arable parcels", "ploughed ground", "wheat and maize"),
        ("woodland canopy", "dense trees", "woods from space", "timber stand"),
        ("rough vegetation", "heath and bushes", "wild shrubs", "moorland"),
        ("motorway", "main road", "expressway", "a road through the country"),
        ("factories", "warehouses", "large flat roofs", "a commercial estate"),
        ("grassland", "meadow", "grazing land", "green paddocks"),
        ("vineyard", "rows of fruit trees", "olive grove", "plantation"),
        ("residential area", "suburb", "homes with gardens", "a small town"),
        ("winding stream", "flowing water", "waterway", "meander"),
        ("open water", "ocean", "reservoir", "coastal water"),
    ),
    templates=(
        "a centered satellite photo of {c}.",
        "a satellite photo of {c}.",
        "land seen from space: {c}.",
    ),
    source=drawn(
        [
            crop_field,
            forest,
            scrubland,
            highway,
            industrial_buildings,
            pasture,
            orchard,
            houses,
            river,
            sea_or_lake,
        ]
    ),
)
