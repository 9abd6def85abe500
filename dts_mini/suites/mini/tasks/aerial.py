"""Photographs from a low aeroplane, in which things a few metres across can be seen (mirrors RESISC45)."""

import torch
from torch import Generator, Tensor

from dts_mini.suites.mini.canvas import (
    TAU,
    X,
    Y,
    blank,
    chance,
    colour,
    noise,
    paint,
    photograph,
    shade,
    soft,
    turn,
    uniform,
)
from dts_mini.suites.mini.task import Task, drawn


def frame(n: int, g: Generator, spread: float = 0.4) -> tuple[Tensor, Tensor]:
    """Coordinates (u, v) of every pixel, seen from axes of free position and angle."""
    return turn(X - uniform(n, -spread, spread, g), Y - uniform(n, -spread, spread, g), uniform(n, 0, TAU, g))


def tile(u: Tensor, v: Tensor, width, height) -> tuple[Tensor, Tensor, Tensor]:
    """The plane cut in cells: coordinates from the centre of the pixel's cell, and the cell's number (0 to 63)."""
    i, j = (u / width).floor(), (v / height).floor()
    return u - (i + 0.5) * width, v - (j + 0.5) * height, ((i.int() & 7) * 8 + (j.int() & 7)).long()


def deal(cell: Tensor, low: float, high: float, g: Generator) -> Tensor:
    """A field in which every cell has a value of its own, drawn evenly from [low, high)."""
    table = low + (high - low) * torch.rand(len(cell), 64, generator=g)
    return table.gather(1, cell.flatten(1)).view_as(cell)


def deal_colour(cell: Tensor, h: tuple, s: tuple, v: tuple, g: Generator) -> Tensor:
    """A canvas in which every cell has a colour of its own."""
    table = colour(64 * len(cell), h, s, v, g).view(-1, 64, 3).transpose(1, 2)
    return table.gather(2, cell.flatten(1)[:, None].expand(-1, 3, -1)).view(-1, 3, *cell.shape[1:])


def rect(u: Tensor, v: Tensor, half_u, half_v) -> Tensor:
    """Mask of a rectangle about the origin of the coordinates (u, v)."""
    return soft(torch.maximum(u.abs() - half_u, v.abs() - half_v))


def ground(n: int, g: Generator) -> Tensor:
    """Grass, dry grass, soil or paving, in patches."""
    c = [colour(n, (0.06, 0.38), (0.08, 0.5), (0.3, 0.7), g) for _ in range(2)]
    canvas = paint(blank(c[0]), ((noise(n, 3, g) - 0.5) * 4 * chance(n, 0.7, g)).clamp(0, 0.8), c[1])
    return shade(canvas, (noise(n, 12, g) - 0.5) * uniform(n, 0.05, 0.3, g))


def water(n: int, g: Generator) -> Tensor:
    """Sea or fresh water, from blue over green to muddy, with a little swell."""
    canvas = blank(colour(n, (0.38, 0.66), (0.15, 0.6), (0.2, 0.62), g))
    muddy = chance(n, 0.1, g).expand(-1, 32, 32)
    canvas = paint(canvas, muddy, colour(n, (0.08, 0.2), (0.15, 0.4), (0.35, 0.6), g))
    return shade(canvas, (noise(n, 10, g) - 0.5) * uniform(n, 0.0, 0.15, g))


def trees(canvas: Tensor, where, g: Generator, density: float = 0.4) -> Tensor:
    """Round crowns with shadows, on the share ``density`` of the cells of a jittered grid, masked by ``where``."""
    n = len(canvas)
    size = uniform(n, 0.16, 0.3, g)
    u, v, cell = tile(*frame(n, g), size, size)
    u, v = u + size * deal(cell, -0.2, 0.2, g), v + size * deal(cell, -0.2, 0.2, g)
    grown = (deal(cell, 0, 1, g) < density * uniform(n, 0.2, 1.8, g)).float() * where
    radius = size * deal(cell, 0.22, 0.42, g)
    canvas = paint(canvas, 0.5 * grown * soft(torch.hypot(u - 0.05, v - 0.04) - radius), torch.zeros(n, 3))
    leaf = deal_colour(cell, (0.2, 0.4), (0.25, 0.6), (0.2, 0.5), g)
    return paint(canvas, grown * soft(torch.hypot(u, v) - radius), shade(leaf, -0.5 * (u + v)))


def cars(canvas: Tensor, u: Tensor, v: Tensor, pitch, lane, where, g: Generator, share: float) -> Tensor:
    """Cars along u, in cells ``pitch`` long and ``lane`` wide."""
    a, b, cell = tile(u, v, pitch, lane)
    here = (deal(cell, 0, 1, g) < share).float() * where
    paintwork = deal_colour(cell, (0, 1), (0, 0.5), (0.1, 1), g)
    canvas = paint(canvas, 0.4 * here * rect(a - 0.02, b - 0.02, 0.4 * pitch, 0.33 * lane), torch.zeros(len(u), 3))
    return paint(canvas, here * rect(a, b, 0.36 * pitch, 0.3 * lane), paintwork)


def bend(u: Tensor, v: Tensor, g: Generator, swing: float) -> Tensor:
    """The coordinate v measured from a winding line along u instead of the axis."""
    n = len(u)
    k, phase = uniform(n, 1.2, 3.5, g), uniform(n, 0, TAU, g)
    a = uniform(n, 0, swing, g)
    return (v - a * ((k * u + phase).sin() - phase.sin())) / (1 + (a * k * (k * u + phase).cos()) ** 2).sqrt()


def carriageway(canvas: Tensor, u: Tensor, v: Tensor, half, g: Generator, traffic: float = 0.25) -> Tensor:
    """A road along u, 2 x ``half`` wide: verge, surface, centre line (or none), cars."""
    n = len(canvas)
    canvas = paint(
        canvas, soft(v.abs() - 1.3 * half) * uniform(n, 0, 0.7, g), colour(n, (0, 0.3), (0, 0.4), (0.3, 0.8), g)
    )
    surface = soft(v.abs() - half)
    canvas = paint(canvas, surface, colour(n, (0.05, 0.65), (0, 0.15), (0.3, 0.72), g))
    dashes = (torch.maximum((u % 0.34 - 0.17).abs() - 0.1, -chance(n, 0.3, g)) < 0).float()
    white = colour(n, (0.1, 0.16), (0, 0.5), (0.75, 1), g)
    canvas = paint(canvas, soft(v.abs() - 0.02) * dashes * uniform(n, 0.3, 1, g), white)
    return cars(canvas, u + uniform(n, 0, 1, g), v, uniform(n, 0.24, 0.34, g), half, surface, g, traffic)


def finish(canvas: Tensor, g: Generator) -> Tensor:
    """What may lie between the aeroplane and the ground: a wisp of cloud, haze; then the camera."""
    n = len(canvas)
    cloud = ((noise(n, 4, g) - 0.62) * 4).clamp(0, 0.7) * chance(n, 0.12, g)
    canvas = paint(canvas, cloud, colour(n, (0.5, 0.6), (0, 0.1), (0.8, 1), g))
    return photograph(canvas, g)


def aeroplane(canvas: Tensor, u: Tensor, v: Tensor, size, where, g: Generator) -> Tensor:
    """An airliner that flies along u, its half length ``size``, with its shadow."""
    n = len(canvas)

    def silhouette(u, v):
        w = v.abs()
        body = torch.maximum(w - 0.12 * size, u.abs() - size)
        wings = torch.maximum((u + 0.55 * w - 0.2 * size).abs() - 0.2 * size + 0.1 * w, w - 0.95 * size)
        tail = torch.maximum((u + 0.5 * w + 0.75 * size).abs() - 0.12 * size, w - 0.38 * size)
        return soft(torch.minimum(torch.minimum(body, wings), tail)) * where

    canvas = paint(canvas, 0.45 * silhouette(u - 0.07, v + 0.06), torch.zeros(n, 3))
    return paint(canvas, silhouette(u, v), colour(n, (0, 1), (0, 0.15), (0.72, 1), g))


def airport(n: int, g: Generator) -> Tensor:
    u, v = frame(n, g, 0.3)
    canvas = trees(ground(n, g), 1.0, g, 0.1)
    tarmac = colour(n, (0.05, 0.65), (0, 0.12), (0.35, 0.75), g)
    # an apron with parked aeroplanes and a terminal, or a runway, or a bit of both
    apron = chance(n, 0.6, g)
    canvas = paint(canvas, soft(v.abs() - uniform(n, 0.6, 1.2, g)) * apron, tarmac)
    taxi, _ = turn(u, v, uniform(n, 0.5, 1.2, g))
    canvas = paint(canvas, soft((taxi + 0.4).abs() - 0.1), tarmac)
    half = uniform(n, 0.18, 0.32, g)
    runway = soft(v.abs() - half) * (1 - apron)
    canvas = paint(canvas, runway, tarmac * uniform(n, 0.6, 1.0, g)[:, 0])
    white = torch.full((n, 3), 0.92)
    keys = rect(u - uniform(n, -0.6, 0.6, g), v, 0.13, 0.85 * half) * soft(
        (v % (half / 2.5) - half / 5).abs() - half / 9
    )
    canvas = paint(canvas, runway * keys, white)
    canvas = paint(canvas, runway * soft(v.abs() - 0.025) * (u % 0.4 < 0.25), white)
    canvas = paint(
        canvas,
        apron * soft((v + 0.3).abs() - 0.02) * uniform(n, 0, 0.8, g),
        colour(n, (0.12, 0.16), (0.3, 0.9), (0.8, 1), g),
    )
    terminal = soft((v - 0.85).abs() - uniform(n, 0.12, 0.3, g)) * apron * chance(n, 0.6, g)
    canvas = paint(canvas, terminal, colour(n, (0, 1), (0, 0.3), (0.4, 0.95), g))
    size = uniform(n, 0.26, 0.5, g)
    heading = TAU / 4 + uniform(n, -0.6, 0.6, g)
    first = torch.maximum(apron, chance(n, 0.6, g))
    for k in range(3):
        gap = 2.1 * size * (k if k < 2 else -1)
        across = u - gap * apron - (k * 5) * (1 - apron)
        a, b = turn(across, v - 0.1 * apron, heading * apron)
        canvas = aeroplane(
            canvas, a, b, size * (1 - 0.3 * (1 - apron)), first if k == 0 else apron * chance(n, 0.7, g), g
        )
    return finish(canvas, g)


def overpass(n: int, g: Generator) -> Tensor:
    u, v = frame(n, g, 0.35)
    p, q = turn(u, v, uniform(n, 0.6, TAU / 2 - 0.6, g))
    canvas = trees(ground(n, g), 1.0, g, 0.3)
    ramp = (torch.hypot(u - 0.6, v - 0.6) - uniform(n, 0.4, 0.7, g)).abs()
    canvas = paint(canvas, soft(ramp - 0.08) * chance(n, 0.4, g), colour(n, (0, 0.6), (0, 0.1), (0.4, 0.7), g))
    below, above = uniform(n, 0.18, 0.38, g), uniform(n, 0.16, 0.34, g)
    canvas = carriageway(canvas, u, bend(u, v, g, 0.1), below, g, 0.35)
    canvas = paint(canvas, 0.65 * soft((q + uniform(n, 0.08, 0.16, g)).abs() - 1.15 * above), torch.zeros(n, 3))
    canvas = carriageway(canvas, p, q, above, g, 0.35)
    rail = soft((q.abs() - above).abs() - 0.03) * uniform(n, 0.5, 1, g)
    return finish(paint(canvas, rail, colour(n, (0.05, 0.2), (0, 0.15), (0.6, 0.95), g)), g)


def pivot_field(n: int, g: Generator) -> Tensor:
    u, v = frame(n, g, 0.9)
    canvas = ground(n, g)
    pitch = uniform(n, 0.85, 2.2, g)
    a, b, cell = tile(u, v, pitch, pitch)
    radius = pitch * deal(cell, 0.4, 0.5, g)
    r, angle = torch.hypot(a, b), torch.atan2(b, a) / TAU
    sown = soft(r - radius) * (deal(cell, 0, 1, g) < 0.85)
    crop = deal_colour(cell, (0.07, 0.4), (0.15, 0.65), (0.15, 0.8), g)
    rings = (r / uniform(n, 0.08, 0.2, g) * TAU).sin() * uniform(n, 0, 0.08, g)
    canvas = paint(canvas, sown, shade(crop, rings + (noise(n, 6, g) - 0.5) * 0.15))
    # a slice at another stage, and the arm of the sprinkler with the track to the middle
    slice_ = ((angle + deal(cell, 0, 1, g)) % 1.0 < deal(cell, -0.3, 0.6, g)).float() * sown
    canvas = paint(canvas, slice_, deal_colour(cell, (0.07, 0.35), (0.1, 0.5), (0.3, 0.7), g))
    x, y = turn(a, b, uniform(n, 0, TAU, g))
    arm = sown * soft(y.abs() - 0.015) * (x > 0) * uniform(n, 0, 0.8, g)
    canvas = paint(canvas, arm, colour(n, (0.1, 0.16), (0, 0.4), (0.7, 1), g))
    track = soft(torch.minimum(pitch / 2 - a.abs(), pitch / 2 - b.abs()) - 0.03) * uniform(n, 0, 0.7, g) * (1 - sown)
    return finish(paint(canvas, track, colour(n, (0.05, 0.16), (0.05, 0.3), (0.4, 0.85), g)), g)


def roofs(canvas: Tensor, u: Tensor, v: Tensor, pitch, where, g: Generator) -> Tensor:
    """Gabled houses in cells ``pitch`` wide, the two slopes of each roof in different light."""
    n = len(canvas)
    a, b, cell = tile(u, v, pitch, 0.85 * pitch)
    a, b = a + pitch * deal(cell, -0.07, 0.07, g), b + pitch * deal(cell, -0.05, 0.05, g)
    here = where * (deal(cell, 0, 1, g) < 0.92)
    length, depth = pitch * deal(cell, 0.27, 0.42, g), pitch * deal(cell, 0.22, 0.34, g)
    shadow = rect(a - 0.04, b - 0.05, length, depth) * here
    canvas = paint(canvas, 0.5 * shadow, torch.zeros(n, 3))
    tint = uniform(n, 0, 1, g).flatten()
    tiles = deal_colour(cell, (-0.03, 0.12), (0.05, 0.6), (0.35, 0.85), g)
    slate = deal_colour(cell, (0.5, 0.7), (0, 0.15), (0.25, 0.8), g)
    roof = torch.where((tint[:, None, None, None] + deal(cell, -0.3, 0.3, g)[:, None]) > 0.5, tiles, slate)
    across = torch.where(deal(cell, 0, 1, g) < 0.75, b, a)
    return paint(canvas, rect(a, b, length, depth) * here, shade(roof, across.sign() * uniform(n, -0.18, 0.18, g)))


def dense_housing(n: int, g: Generator) -> Tensor:
    u, v = frame(n, g, 1.0)
    v = v + uniform(n, -0.15, 0.15, g) * u * u
    pitch = uniform(n, 0.3, 0.55, g)
    canvas = trees(ground(n, g), 1.0, g, 0.3)
    canvas = roofs(canvas, u, v, pitch, 1.0, g)
    period = 0.85 * pitch * torch.where(chance(n, 0.5, g) > 0, 3.0, 4.0)
    street = (v % period - period / 2).abs() - uniform(n, 0.06, 0.11, g)
    street = soft(street) * chance(n, 0.75, g)
    canvas = paint(canvas, street, colour(n, (0, 0.6), (0, 0.12), (0.35, 0.7), g))
    return finish(trees(canvas, 1 - street, g, 0.15), g)


def forest(n: int, g: Generator) -> Tensor:
    canvas = shade(blank(colour(n, (0.12, 0.42), (0.15, 0.55), (0.15, 0.45), g)), (noise(n, 5, g) - 0.5) * 0.2)
    hue, size = uniform(n, 0.0, 1.0, g), uniform(n, 0.18, 0.42, g)
    gap = soft(uniform(n, 0.6, 0.9, g) - noise(n, 3, g)) * chance(n, 0.5, g)  # clearings
    u, v = frame(n, g)
    gap = torch.maximum(gap, soft(bend(u, v, g, 0.3).abs() - 0.06) * chance(n, 0.2, g))  # a path
    canvas = paint(canvas, gap, ground(n, g))
    for _ in range(2):
        u, v, cell = tile(*frame(n, g), size, size)
        u, v = u + size * deal(cell, -0.15, 0.15, g), v + size * deal(cell, -0.15, 0.15, g)
        autumn = deal_colour(cell, (0.06, 0.3), (0.2, 0.6), (0.25, 0.6), g)
        leaf = deal_colour(cell, (0.2, 0.42), (0.15, 0.55), (0.2, 0.5), g)
        leaf = torch.where((hue + deal(cell, -0.2, 0.2, g) > 0.75)[:, None], autumn, leaf)
        crown = soft(torch.hypot(u, v) - size * deal(cell, 0.34, 0.48, g)) * (1 - gap) * (deal(cell, 0, 1, g) < 0.9)
        canvas = paint(canvas, 0.9 * crown, shade(leaf, -(u + v) * uniform(n, 0.2, 0.9, g)))
    return finish(canvas, g)


def road(n: int, g: Generator) -> Tensor:
    u, v = frame(n, g, 0.35)
    w = bend(u, v, g, 0.2)
    half = uniform(n, 0.13, 0.32, g)
    clear = 1 - soft(w.abs() - 1.3 * half)
    canvas = trees(ground(n, g), clear, g, 0.4)
    hut = chance(n, 0.1, g) * clear * soft(0.15 + half - w)
    canvas = roofs(canvas, u, w + half, uniform(n, 0.5, 0.7, g), hut, g)
    return finish(carriageway(canvas, u, w, half, g, 0.3), g)


def harbour(n: int, g: Generator) -> Tensor:
    u, v = frame(n, g, 0.25)
    canvas = water(n, g)
    shore = v + uniform(n, 0.2, 1.1, g)
    quay = paint(ground(n, g), chance(n, 0.6, g).expand(-1, 32, 32), colour(n, (0, 0.6), (0, 0.15), (0.4, 0.8), g))
    canvas = paint(canvas, soft(shore), quay)
    # jetties reach out from the quay, with boats moored on both sides
    period = uniform(n, 0.65, 1.1, g)
    a, _, cell = tile(u, v, period, 9.0)
    reach = soft(v - deal(cell, 0.2, 1.3, g)) * soft(-shore)
    berth = uniform(n, 0.15, 0.26, g)
    x, y, slot = tile(a.abs() - 0.05, v, 9.0, berth)
    x = a.abs() - 0.06 - period * 0.18
    slot = (slot + 8 * (a > 0) + 16 * cell) % 64
    long, beam = period * deal(slot, 0.1, 0.19, g), berth * deal(slot, 0.2, 0.36, g)
    hull = torch.maximum(y.abs() - beam * (1 - ((x / long).clamp(0, 1)) ** 2), x.abs() - long)
    moored = soft(hull) * reach * (deal(slot, 0, 1, g) < uniform(n, 0.5, 1, g))
    canvas = paint(canvas, moored, deal_colour(slot, (0, 1), (0, 0.25), (0.6, 1), g))
    cabin = soft(torch.maximum((x + 0.2 * long).abs() - 0.4 * long, y.abs() - 0.5 * beam)) * moored
    canvas = paint(canvas, 0.6 * cabin, deal_colour(slot, (0, 1), (0, 0.6), (0.2, 0.9), g))
    jetty = colour(n, (0.05, 0.15), (0, 0.3), (0.45, 0.85), g)
    return finish(paint(canvas, soft(a.abs() - 0.05) * reach, jetty), g)


def island(n: int, g: Generator) -> Tensor:
    u, v = frame(n, g, 0.45)
    reach = torch.hypot(u / uniform(n, 1, 2, g), v) + uniform(n, 0.3, 0.9, g) * (noise(n, 4, g, 2) - 0.5)
    edge = reach - uniform(n, 0.28, 0.7, g)
    shallow, sand = uniform(n, 0.02, 0.3, g), uniform(n, 0, 0.14, g)
    canvas = water(n, g)
    canvas = paint(canvas, (1 - edge / shallow).clamp(0, 1) * 0.5, colour(n, (0.35, 0.55), (0.1, 0.5), (0.5, 0.9), g))
    canvas = paint(canvas, soft(edge), colour(n, (0.07, 0.16), (0.05, 0.4), (0.5, 0.95), g))
    inland = soft(edge + sand)
    canvas = paint(canvas, inland, ground(n, g))
    return finish(trees(canvas, inland, g, 0.6), g)


def river(n: int, g: Generator) -> Tensor:
    u, v = frame(n, g, 0.45)
    edge = bend(u, v, g, 0.6).abs() - uniform(n, 0.14, 0.45, g) - uniform(n, 0.1, 0.7, g) * (noise(n, 3, g, 2) - 0.5)
    bank = uniform(n, 0, 0.12, g)
    canvas = trees(ground(n, g), soft(bank - edge), g, 0.6)
    canvas = paint(canvas, soft(edge - bank), colour(n, (0.07, 0.3), (0.1, 0.4), (0.3, 0.8), g))
    canvas = paint(canvas, soft(edge), water(n, g))
    bridge = soft((u + uniform(n, -0.6, 0.6, g)).abs() - 0.08) * chance(n, 0.15, g)
    return finish(paint(canvas, bridge, colour(n, (0, 0.6), (0, 0.1), (0.4, 0.8), g)), g)


def car_park(n: int, g: Generator) -> Tensor:
    u, v = frame(n, g, 0.8)
    canvas = blank(colour(n, (0.05, 0.65), (0, 0.15), (0.3, 0.72), g))
    canvas = shade(canvas, (noise(n, 6, g) - 0.5) * 0.15)
    bay = uniform(n, 0.17, 0.28, g)
    depth = 1.9 * bay
    module = depth * uniform(n, 2.6, 3.4, g)  # two rows of bays back to back, and the lane between such pairs
    w, _, _ = tile(v, u, module, 9.0)
    parked = soft(w.abs() - depth)
    row = w + (v / module).floor() * 3 * depth  # numbers the rows without gaps, so that each has its own cars
    lines = torch.maximum(soft(w.abs() - 0.015), soft((u % bay).minimum(bay - u % bay) - 0.012)) * parked
    canvas = paint(canvas, lines * uniform(n, 0.1, 0.9, g), torch.full((n, 3), 0.95))
    share = uniform(n, 0.45, 1.0, g)
    canvas = cars(canvas, row, u, depth, bay, (w.abs() < depth).float(), g, share)
    rim = soft(uniform(n, 0.5, 1.6, g) - frame(n, g, 0.1)[0])  # the edge, with greenery beyond it
    return finish(paint(canvas, rim, trees(ground(n, g), 1.0, g, 0.4)), g)


TASK = Task(
    name="aerial",
    mirrors="RESISC45",
    real=False,
    classes=(
        "airport",
        "overpass",
        "pivot field",
        "dense housing",
        "forest",
        "road",
        "harbour",
        "island",
        "river",
        "car park",
    ),
    synonyms=(
        ("runway", "parked aeroplanes", "airfield", "jets on the apron"),
        ("flyover", "bridge over a motorway", "crossing carriageways", "elevated highway"),
        ("circular farmland", "round crops", "centre irrigation circles", "irrigated discs"),
        ("rows of roofs", "crowded suburb", "residential district", "streets of homes"),
        ("woodland", "tree canopy", "treetops", "dense woods"),
        ("tarmac lane", "highway", "asphalt street", "country lane with traffic"),
        ("marina", "moored boats", "port with jetties", "docks"),
        ("islet", "land surrounded by sea", "atoll", "isle with a beach"),
        ("winding stream", "waterway", "flowing water between banks", "meandering creek"),
        ("parked vehicles", "parking lot", "rows of automobiles", "parking bays"),
    ),
    templates=(
        "an aerial photo of {c}.",
        "aerial imagery of {c}.",
        "a view of {c} from the air.",
        "satellite photo of {c}.",
    ),
    source=drawn((airport, overpass, pivot_field, dense_housing, forest, road, harbour, island, river, car_park)),
)
