"""Scenes: ten kinds of place, outdoors and indoors, seen at eye level (mirrors SUN397)."""

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from dts_mini.suites.mini.canvas import (
    SIZE,
    TAU,
    X,
    Y,
    blank,
    box,
    camera,
    chance,
    colour,
    disc,
    hsv,
    line,
    noise,
    paint,
    photograph,
    polygon,
    shade,
    soft,
    stripes,
    uniform,
)
from dts_mini.suites.mini.task import Task, drawn


def profile(n: int, knots: int, g: Generator, mode: str = "linear") -> Tensor:
    """Random heights (n, 1, 32) in [0, 1] along x: a jagged ("linear") or stepped ("nearest") skyline."""
    return F.interpolate(torch.rand(n, 1, knots + 1, generator=g), SIZE, mode=mode)


def ridge(n: int, knots: int, g: Generator) -> Tensor:
    """A smooth range of hills (n, 1, 32) in about [-1, 1]."""
    t = uniform(n, 0, TAU, g)
    return 0.6 * (knots * X[:, :1] + t).sin() + 0.4 * (1.7 * knots * X[:, :1] + 3 * t).sin()


def sky(n: int, g: Generator) -> Tensor:
    """A sky: blue, grey, dusk or dark, lighter towards the ground, with clouds."""
    dusk = chance(n, 0.25, g)
    low = torch.lerp(
        colour(n, (0.5, 0.65), (0, 0.3), (0.5, 1), g), colour(n, (0.95, 1.12), (0.2, 0.6), (0.6, 1), g), dusk[:, 0]
    )
    high = colour(n, (0.54, 0.68), (0.05, 0.7), (0.3, 0.95), g)
    canvas = paint(blank(high), (0.5 + 0.7 * Y).clamp(0, 1), low)
    clouds = (noise(n, 3, g, 2) - 0.5).clamp(min=0) * uniform(n, 0, 3.5, g)
    return paint(canvas, clouds.clamp(0, 0.9), colour(n, (0, 1), (0, 0.1), (0.6, 1), g))


def grass(n: int, g: Generator) -> Tensor:
    """Colours of plants: green, olive, autumn brown."""
    return colour(n, (0.08, 0.42), (0.2, 0.7), (0.15, 0.65), g)


def sand(n: int, g: Generator) -> Tensor:
    return colour(n, (0.05, 0.14), (0.1, 0.6), (0.5, 0.95), g)


def trees(canvas: Tensor, count: int, ground: Tensor, g: Generator, p: float = 0.6) -> Tensor:
    """``count`` firs or round trees, each there with probability ``p``, about ``ground`` on the left or right."""
    n = len(canvas)
    green = hsv(uniform(n, 0.1, 0.45, g), uniform(n, 0.1, 0.7, g), uniform(n, 0.08, 0.4, g))
    for _ in range(count):
        x, y, h = uniform(n, -1, 1, g), ground + uniform(n, 0, 0.3, g), uniform(n, 0.15, 0.5, g)
        fir = soft((X - x).abs() - 0.33 * (Y - y + h)) * soft(Y - y)
        mask = torch.where(chance(n, 0.5, g) > 0, fir, disc(x, y - h / 2, h / 2, 0.7))
        canvas = paint(canvas, mask * chance(n, p, g), green)
    return canvas


def people(canvas: Tensor, count: int, top: Tensor, g: Generator, p: float = 0.4) -> Tensor:
    """Small bright things below ``top``: people, parasols, boats, cars."""
    n = len(canvas)
    for _ in range(count):
        size = uniform(n, 0.04, 0.13, g)
        mask = box(uniform(n, -0.9, 0.9, g), top + uniform(n, 0, 0.6, g), size * uniform(n, 0.4, 2, g), size)
        canvas = paint(canvas, mask * chance(n, p, g), colour(n, (0, 1), (0, 0.9), (0.1, 1), g))
    return canvas


def grain(canvas: Tensor, mask: Tensor, g: Generator, amount: float = 0.4) -> Tensor:
    """Fine mottling of a part of the canvas."""
    n = len(canvas)
    return shade(canvas, mask * (noise(n, 12, g, 2) - 0.5) * uniform(n, 0.1 * amount, amount, g))


def photo(canvas: Tensor, g: Generator, zoom=(0.5, 1.0)) -> Tensor:
    """The scene as a visitor takes it: partly seen, sometimes flat or hazy, somebody or something before the lens."""
    n = len(canvas)
    haze = uniform(n, 0.3, 0.65, g) * chance(n, 0.15, g) * torch.ones_like(X)
    canvas = paint(camera(canvas, g, zoom, 0.12, 0.25), haze, colour(n, (0, 1), (0, 0.25), (0.2, 0.9), g))
    x, y, w = uniform(n, -0.9, 0.9, g), uniform(n, -0.3, 0.9, g), uniform(n, 0.08, 0.26, g)
    figure = torch.maximum(disc(x, y - 1.3 * w, 0.5 * w), box(x, y + 1.0 * w, w * 0.7, 1.7 * w, 0.0, 0.3 * w))
    post = soft((X - x - 0.3 * (w - 0.15) * Y).abs() - 0.5 * w)
    before = torch.where(chance(n, 0.6, g) > 0, figure, post) * chance(n, 0.35, g)
    return photograph(paint(canvas, before, colour(n, (0, 1), (0, 0.7), (0.05, 0.9), g)), g)


def water(n: int, g: Generator) -> Tensor:
    """A canvas of open water with ripples that grow towards the viewer."""
    sea = blank(colour(n, (0.45, 0.65), (0.1, 0.7), (0.25, 0.8), g))
    ripple = ((uniform(n, 8, 20, g) * Y + uniform(n, 0, TAU, g) + 3 * noise(n, 4, g)).sin()) * uniform(n, 0, 0.12, g)
    return shade(sea, ripple)


def beach(n: int, g: Generator) -> Tensor:
    """Sky, sea and a slanting shore with foam."""
    horizon = uniform(n, -0.6, 0.0, g)
    canvas = paint(sky(n, g), soft(horizon - Y), water(n, g))
    bay = uniform(n, 0.05, 0.7, g) + uniform(n, -0.7, 0.7, g) * X + 0.06 * ridge(n, 3, g)
    shore = torch.maximum(bay, horizon + 0.02)
    canvas = paint(canvas, soft(shore - 0.07 - Y) * soft(horizon + 0.06 - Y), hsv(0.5, 0.05, uniform(n, 0.75, 1, g)))
    beach_ = soft(shore + uniform(n, 0, 0.1, g) - Y)
    canvas = grain(paint(canvas, beach_, sand(n, g)), beach_, g)
    return photo(people(canvas, 3, shore, g), g)


def lake(n: int, g: Generator) -> Tensor:
    """A far bank of hills or woods, and its image in still water; sometimes a near bank."""
    level = uniform(n, -0.35, 0.3, g)
    jag = torch.where(chance(n, 0.4, g) > 0, profile(n, 5, g), 0.5 + 0.5 * ridge(n, 3, g))
    height = level - uniform(n, 0.08, 0.25, g) - uniform(n, 0.0, 0.55, g) * jag
    hills, hill = grass(n, g), colour(n, (0.1, 0.7), (0.05, 0.4), (0.2, 0.7), g)
    above = grain(paint(sky(n, g), soft(height - Y), hill), soft(height - Y), g)
    near = level - 0.1 - uniform(n, 0, 0.15, g) * profile(n, 12, g)
    above = paint(above, soft(near - Y), hills)
    # the mirror image: row y of the water shows row 2 * level - y
    rows = (2 * level - Y[..., :1] + X[..., :1] * 0).clamp(-1, 1) + 0 * X
    mirror = F.grid_sample(above, torch.stack([X.expand(n, -1, -1), rows.expand(n, -1, -1)], -1), align_corners=False)
    mirror = torch.lerp(mirror, water(n, g), uniform(n, 0.2, 0.75, g)[:, None])
    canvas = paint(above, soft(level - Y), mirror)
    bank = soft(uniform(n, 0.5, 1.6, g) + uniform(n, -0.5, 0.5, g) * X - Y)
    canvas = paint(canvas, bank, torch.where(chance(n, 0.4, g)[:, 0] > 0, sand(n, g), grass(n, g)))
    return photo(people(canvas, 1, level, g, 0.3), g)


def mountain(n: int, g: Generator) -> Tensor:
    """Jagged peaks, lit from one side, often capped with snow, above hills or meadow."""
    canvas, rock = sky(n, g), colour(n, (0.0, 0.7), (0.02, 0.35), (0.2, 0.65), g)
    x, top, steep = uniform(n, -0.6, 0.6, g), uniform(n, -0.9, -0.35, g), uniform(n, 0.6, 1.5, g)
    rough = 0.3 * (profile(n, 6, g) - 0.5) + 0.2 * (profile(n, 14, g) - 0.5)
    second = uniform(n, -0.7, 0.1, g) + uniform(n, 0.6, 1.4, g) * (X - uniform(n, -1, 1, g)).abs()
    peak = torch.minimum(top + steep * (X - x).abs(), second) + rough
    mask = soft(peak - Y)
    canvas = paint(canvas, mask, rock)
    facets = noise(n, 5, g, 2) - 0.5 + 0.25 * (X - x + 0.4 * (noise(n, 6, g) - 0.5)).sign() * uniform(n, 0, 1, g)
    canvas = shade(canvas, mask * facets * uniform(n, 0.3, 0.9, g))
    cap = mask * soft(0.3 * (Y - top - uniform(n, -0.4, 0.8, g) + 0.8 * (noise(n, 7, g) - 0.5)))
    canvas = paint(canvas, cap * 0.9, hsv(0.6, uniform(n, 0, 0.15, g), uniform(n, 0.75, 1, g)))
    foot = uniform(n, 0.25, 1.1, g) + 0.15 * ridge(n, 2, g)
    canvas = grain(paint(canvas, soft(foot - Y), grass(n, g)), soft(foot - Y), g)
    return photo(trees(canvas, 2, foot, g, 0.3), g)


def desert(n: int, g: Generator) -> Tensor:
    """Overlapping dunes with a lit and a shaded side; rocks, mesas or dry bushes."""
    canvas, c, far = sky(n, g), sand(n, g), uniform(n, -0.4, 0.2, g)
    mesa = soft(far - uniform(n, 0.1, 0.4, g) - Y) * soft(
        (X - uniform(n, -0.8, 0.8, g)).abs() - uniform(n, 0.2, 0.5, g)
    )
    canvas = paint(canvas, mesa * chance(n, 0.3, g), colour(n, (0.0, 0.09), (0.2, 0.6), (0.3, 0.7), g))
    for k in range(3):
        crest = far + 0.35 * k + uniform(n, 0.04, 0.22, g) * ridge(n, 3, g)
        dark = uniform(n, 0.65, 1.05, g)[:, 0]
        canvas = paint(canvas, soft(crest - Y), (c * dark).clamp(0, 1))
        fall = soft(0.3 * (Y - crest - uniform(n, 0.1, 0.5, g) - 0.5 * X * uniform(n, -1, 1, g)))
        canvas = shade(canvas, -soft(crest - Y) * fall * uniform(n, 0.0, 0.3, g))
    wind = stripes(uniform(n, 0.12, 0.3, g), uniform(n, 1.2, 1.9, g), 0.8 * noise(n, 3, g)) - 0.5
    canvas = shade(canvas, soft(far - Y + 0.3) * wind * uniform(n, 0, 0.1, g))
    x, y, h = uniform(n, -0.8, 0.8, g), uniform(n, 0.1, 0.8, g), uniform(n, 0.1, 0.35, g)
    cactus = torch.maximum(box(x, y, 0.06, h), box(x, y, 0.22, 0.05))
    canvas = paint(canvas, cactus * chance(n, 0.25, g), grass(n, g))
    for _ in range(2):
        bush = disc(uniform(n, -1, 1, g), far + uniform(n, 0.1, 0.9, g), uniform(n, 0.03, 0.12, g), 1.6)
        canvas = paint(canvas, bush * chance(n, 0.4, g), grass(n, g))
    return photo(canvas, g)


def snow_field(n: int, g: Generator) -> Tensor:
    """White rolling ground under a sky, with firs, a far wood, posts or a track."""
    level = uniform(n, -0.45, 0.25, g)
    white = hsv(uniform(n, 0.5, 1.1, g), uniform(n, 0, 0.14, g), uniform(n, 0.72, 1, g))
    canvas = sky(n, g)
    wood = level - uniform(n, 0.03, 0.3, g) * profile(n, 14, g)
    canvas = paint(canvas, soft(wood - Y) * chance(n, 0.5, g), colour(n, (0.1, 0.6), (0, 0.4), (0.1, 0.5), g))
    hill = soft(level - uniform(n, 0, 0.5, g) * (0.5 + 0.5 * ridge(n, 2, g)) - Y)
    canvas = paint(canvas, hill * chance(n, 0.4, g), white * 0.9)
    ground = level + 0.08 * ridge(n, 2, g)
    field = soft(ground - Y)
    canvas = shade(paint(canvas, field, white), field * (noise(n, 3, g) - 0.5) * uniform(n, 0, 0.35, g))
    x, lean = uniform(n, -0.6, 0.6, g), uniform(n, -0.6, 0.6, g)
    depth = Y - level
    track = soft((X - x - lean * depth).abs() - 0.12 * depth) * field * chance(n, 0.25, g)
    canvas = shade(canvas, -track * 0.2)
    return photo(trees(canvas, 3, ground, g, 0.4), g)


def forest(n: int, g: Generator) -> Tensor:
    """Trunks before layers of leaves, with a path or mist; in any season."""
    leaf, gap = grass(n, g), colour(n, (0.1, 0.6), (0.05, 0.5), (0.1, 0.9), g)
    canvas = paint(blank(leaf), (noise(n, 7, g, 2) - 0.35).clamp(0, 1) * 1.6 * uniform(n, 0.2, 1, g), gap)
    floor = uniform(n, 0.2, 0.9, g)
    canvas = paint(
        canvas,
        soft(floor + 0.1 * ridge(n, 3, g) - Y) * 0.9,
        torch.where(chance(n, 0.2, g)[:, 0] > 0, hsv(0.6, 0.05, uniform(n, 0.7, 0.95, g)), grass(n, g)),
    )
    path = soft((X - uniform(n, -0.5, 0.5, g)).abs() - 0.6 * (Y - floor + 0.2)) * soft(floor - Y)
    canvas = paint(canvas, path * chance(n, 0.3, g), sand(n, g))
    bark = colour(n, (0.02, 0.15), (0.05, 0.5), (0.1, 0.75), g)
    for k in range(7):
        x, w = uniform(n, -1.1, 1.1, g), uniform(n, 0.05, 0.1 + 0.04 * k, g)
        foot, bend = floor + uniform(n, -0.1, 0.08 * k, g), uniform(n, -0.12, 0.12, g)
        trunk = soft((X - x - bend * Y).abs() - w / 2) * soft(Y - foot) * chance(n, 0.75, g)
        canvas = paint(canvas, trunk, bark * uniform(n, 0.5, 1.1, g)[:, 0])
    crown = soft(Y + uniform(n, 0.0, 1.3, g) - 1.6 * (noise(n, 6, g) - 0.5))
    canvas = grain(paint(canvas, crown * 0.9, leaf * uniform(n, 0.5, 1.3, g)[:, 0]), crown, g, 0.8)
    mist = (0.5 - 0.5 * Y) * uniform(n, 0, 0.7, g) * chance(n, 0.3, g)
    return photo(paint(canvas, mist, hsv(0.5, 0.05, uniform(n, 0.6, 1, g))), g)


def windows(n: int, g: Generator) -> Tensor:
    """A grid of windows, the same all over the canvas."""
    across, down = uniform(n, 0.16, 0.3, g), uniform(n, 0.16, 0.35, g)
    return stripes(across, 0.0, uniform(n, 0, 1, g), 0.55) * stripes(down, TAU / 4, uniform(n, 0, 1, g), 0.5)


def city(n: int, g: Generator) -> Tensor:
    """A skyline of towers with lit or dark windows, seen across roofs, a park or water."""
    canvas, level = sky(n, g), uniform(n, 0.3, 1.1, g)
    tone = colour(n, (0, 1), (0, 0.3), (0.25, 0.8), g)
    for k in range(3):
        step = F.interpolate(torch.rand(n, 2, 5 + 2 * k, generator=g), SIZE, mode="nearest")
        top = level - uniform(n, 0.2, 0.5, g) - (1.3 - 0.35 * k) * step[:, :1] * uniform(n, 0.5, 1, g)
        mask = soft(top - Y) * chance(n, 0.8 if k else 1.0, g)
        c = (tone * uniform(n, 0.6, 1.2, g)[:, 0])[:, :, None, None] + 0.35 * (step[:, None, 1:] - 0.5)
        canvas = paint(canvas, mask, c.expand_as(canvas))
        canvas = shade(canvas, mask * windows(n, g) * uniform(n, -0.35, 0.4, g))
    front = torch.where(chance(n, 0.5, g)[..., None] > 0, water(n, g), blank(grass(n, g)))
    canvas = paint(canvas, soft(level + 0.05 * ridge(n, 2, g) - Y), front)
    return photo(people(trees(canvas, 1, level, g), 1, level, g), g)


def tunnel(vx, vy, half, up, down) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A box seen from within: nearness (1 at the back wall, growing to us), and masks of sides, floor and ceiling."""
    side, below, over = (X - vx).abs() / half, (Y - vy) / down, (vy - Y) / up
    near = torch.maximum(side, torch.maximum(below, over))
    before = soft((1 - near) * half)
    walls = before * soft((torch.maximum(below, over) - side) * half)
    return near, walls, before * (1 - walls) * (vy < Y), before * (1 - walls) * (vy >= Y)


def street(n: int, g: Generator) -> Tensor:
    """A road between two rows of houses that meet far off; cars, markings, trees."""
    vx, vy = uniform(n, -0.35, 0.35, g), uniform(n, -0.3, 0.25, g)
    half, down = uniform(n, 0.12, 0.4, g), uniform(n, 0.06, 0.2, g)
    side = (X - vx).abs() / half  # along a row of houses 1 / side is the distance
    plot = (uniform(n, 3, 9, g) / side.clamp(min=0.05) + uniform(n, 0, 9, g)).floor() + 40 * (vx < X)
    dice = ((plot * 12.9898 + uniform(n, 0, 50, g)).sin() * 43758.5).frac().abs()
    height = half * side * uniform(n, 0.6, 2.2, g) * (0.5 + 0.8 * dice)
    canvas = sky(n, g)
    houses = soft((1 - side) * half) * soft(vy - height - Y)
    wall = colour(n, (0, 1), (0, 0.4), (0.3, 0.85), g)[:, :, None, None] + 0.5 * (dice - 0.5)[:, None]
    canvas = paint(canvas, houses, wall.expand_as(canvas))
    canvas = shade(canvas, houses * windows(n, g) * uniform(n, -0.35, 0.3, g))
    ground = soft(vy - Y) * soft((side - (Y - vy) / down) * down)
    canvas = paint(canvas, ground, colour(n, (0, 0.7), (0, 0.15), (0.4, 0.8), g))
    road = soft((side - uniform(n, 0.55, 0.9, g) * (Y - vy) / down) * down) * soft(vy - Y)
    canvas = paint(canvas, road, colour(n, (0, 0.7), (0, 0.15), (0.2, 0.6), g))
    dash = ((uniform(n, 0.8, 2, g) / (Y - vy).clamp(min=0.04) + uniform(n, 0, 1, g)).frac() < 0.6).float()
    canvas = paint(
        canvas,
        road * dash * soft((X - vx).abs() - 0.07 * (Y - vy)) * chance(n, 0.6, g),
        hsv(0.14, uniform(n, 0, 0.4, g), 0.9),
    )
    for _ in range(2):
        z, away = uniform(n, 0.12, 0.7, g), uniform(n, -1, 1, g)
        y, x = vy + z, vx + away * 0.8 * z * half / down
        car = colour(n, (0, 1), (0, 0.9), (0.1, 0.95), g)
        seen = chance(n, 0.5, g)
        canvas = paint(canvas, box(x, y - 0.2 * z, 0.38 * z, 0.2 * z, 0.0, 0.02) * seen, car)
        canvas = paint(canvas, box(x, y - 0.42 * z, 0.26 * z, 0.12 * z) * seen, car * 0.4)
    return photo(trees(canvas, 1, vy + 0.1, g, 0.4), g)


def corridor(n: int, g: Generator) -> Tensor:
    """A long narrow passage: walls, doors, lamps and floor run to a small far wall."""
    vx, vy = uniform(n, -0.35, 0.35, g), uniform(n, -0.3, 0.3, g)
    half, up, down = uniform(n, 0.12, 0.36, g), uniform(n, 0.12, 0.34, g), uniform(n, 0.14, 0.4, g)
    near, walls, floor, ceiling = tunnel(vx, vy, half, up, down)
    back = colour(n, (0, 1), (0, 0.3), (0.2, 1), g)
    wall, base, top = (
        colour(n, h, s, v, g)
        for h, s, v in (((0, 1), (0, 0.4), (0.35, 0.9)), ((0, 1), (0, 0.5), (0.2, 0.8)), ((0, 1), (0, 0.15), (0.4, 1)))
    )
    canvas = paint(paint(paint(blank(back), walls, wall), floor, base), ceiling, top)
    step = (uniform(n, 1.5, 4, g) * 2 / near.clamp(min=0.5) + uniform(n, 0, 1, g)).frac()
    door = (step < uniform(n, 0.2, 0.6, g)).float() * walls * ((vy - Y) < near * up * uniform(n, 0.3, 1, g))
    one = torch.where(chance(n, 0.4, g) > 0, (vx < X).float(), torch.ones(1))
    canvas = paint(canvas, door * one * chance(n, 0.8, g), colour(n, (0, 1), (0, 0.6), (0.15, 0.9), g))
    lamp = (step > 0.5).float() * ceiling * ((X - vx).abs() < near * half * 0.35)
    canvas = paint(canvas, lamp * chance(n, 0.6, g), hsv(0.14, uniform(n, 0, 0.3, g), 1.0))
    shine = floor * soft((X - vx).abs() - near * half * uniform(n, 0.1, 0.5, g))
    canvas = shade(canvas, shine * uniform(n, -0.3, 0.3, g))
    exit_ = box(vx, vy + 0.3 * down, half * 0.5, down * 0.7)
    canvas = paint(canvas, exit_ * chance(n, 0.5, g), colour(n, (0, 1), (0, 0.5), (0.1, 1), g))
    canvas = shade(canvas, (near - 2).clamp(-1, 3) * uniform(n, -0.08, 0.08, g))
    return photo(people(canvas, 1, vy, g, 0.25), g, (0.7, 1.0))


def room(n: int, g: Generator) -> Tensor:
    """A wide back wall, windows or pictures, and furniture: bed, sofa, table, lamp, cupboard."""
    vx, vy = uniform(n, -0.5, 0.5, g), uniform(n, -0.3, 0.15, g)
    half, up, down = uniform(n, 0.45, 1.1, g), uniform(n, 0.4, 0.9, g), uniform(n, 0.3, 0.65, g)
    _, walls, floor, ceiling = tunnel(vx, vy, half, up, down)
    wall = colour(n, (0, 1), (0, 0.4), (0.35, 0.95), g)
    canvas = paint(blank(wall), walls, wall * uniform(n, 0.6, 1.1, g)[:, 0])
    canvas = paint(canvas, floor, colour(n, (0, 1), (0, 0.5), (0.2, 0.8), g))
    canvas = paint(canvas, ceiling, colour(n, (0, 1), (0, 0.15), (0.5, 1), g))
    for _ in range(2):  # windows, pictures
        x, y, w, h = (
            vx + uniform(n, -0.6, 0.6, g),
            vy - uniform(n, -0.05, 0.3, g),
            *uniform(n, 0.1, 0.28, g).repeat(2, 1, 1, 1),
        )
        seen = chance(n, 0.7, g)
        canvas = paint(canvas, box(x, y, w + 0.05, h + 0.05) * seen, colour(n, (0, 1), (0, 0.4), (0.1, 1), g))
        canvas = paint(canvas, box(x, y, w, h) * seen, torch.where(chance(n, 0.6, g)[..., None] > 0, sky(n, g), canvas))
        canvas = shade(canvas, -0.3 * line(x, y - h, x, y + h, 0.05) * seen * chance(n, 0.5, g))
    for _ in range(2):  # bed, sofa, cupboard: a body, a lighter top and a back
        x, y = vx + uniform(n, -0.9, 0.9, g), vy + down + uniform(n, 0.0, 0.35, g)
        w, h, c = uniform(n, 0.18, 0.5, g), uniform(n, 0.1, 0.25, g), colour(n, (0, 1), (0, 0.7), (0.15, 0.9), g)
        canvas = paint(canvas, box(x, y - h, w * 0.9, h * uniform(n, 1, 2, g), 0.0, 0.04), c * 0.8)
        canvas = paint(canvas, box(x, y, w, h, 0.0, 0.04), c)
        canvas = paint(canvas, box(x, y - h, w * 0.9, 0.06), (c * 1.3).clamp(0, 1))
    x, y, w = uniform(n, -0.8, 0.8, g), uniform(n, 0.1, 0.7, g), uniform(n, 0.15, 0.5, g)
    table = torch.maximum(
        box(x, y, w, 0.05), torch.maximum(*(box(x + s * w * 0.85, y + 0.2, 0.03, 0.2) for s in (-1, 1)))
    )
    canvas = paint(canvas, table * chance(n, 0.5, g), colour(n, (0.02, 0.12), (0.1, 0.7), (0.15, 0.7), g))
    x, y, s = uniform(n, -0.8, 0.8, g), uniform(n, -0.3, 0.2, g), uniform(n, 0.08, 0.16, g)
    shade_ = polygon((x - s * 0.6, y - s), (x + s * 0.6, y - s), (x + s, y + s), (x - s, y + s))
    lamp = torch.maximum(shade_, line(x, y, x, y + 0.5, 0.05)) * chance(n, 0.45, g)
    return photo(paint(canvas, lamp, colour(n, (0.05, 0.16), (0.1, 0.5), (0.5, 1), g)), g, (0.7, 1.0))


TASK = Task(
    name="scenes",
    mirrors="SUN397",
    real=False,
    classes=("beach", "forest", "mountain", "city", "desert", "street", "room", "corridor", "lake", "snow field"),
    synonyms=(
        ("sandy shore", "seaside", "waves on sand", "a day by the sea"),
        ("woods", "woodland with tall trunks", "among the trees", "jungle"),
        ("rocky peak", "alpine summit", "the Alps", "high ridge"),
        ("skyline", "downtown skyscrapers", "office towers", "metropolis"),
        ("sand dunes", "arid land", "the Sahara", "dry wilderness"),
        ("road between houses", "avenue", "traffic lane in town", "row of shop fronts"),
        ("interior with furniture", "bedroom", "living space with a sofa", "lounge"),
        ("hallway", "long passage with doors", "hotel aisle", "indoor passageway"),
        ("pond", "still water with reflections", "calm mere among hills", "loch"),
        ("wintry plain", "white ground in winter", "frozen meadow", "arctic landscape"),
    ),
    templates=("a photo of a {c}.", "a photo of the {c}.", "a picture of a {c}, seen at eye level."),
    source=drawn([beach, forest, mountain, city, desert, street, room, corridor, lake, snow_field]),
)
