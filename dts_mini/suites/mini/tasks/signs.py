"""Traffic signs as a passing car photographs them: tilted, blurred, badly lit, faded, half hidden.

A face paints one sign upright and full-size in the unit square; ``sign`` then hangs it in a street. Nothing is
ever mirrored: left and right are classes.
"""

from collections.abc import Callable

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
    chance,
    colour,
    disc,
    line,
    noise,
    paint,
    photograph,
    polygon,
    shade,
    soft,
    turn,
    uniform,
)
from dts_mini.suites.mini.task import Painter, Task, drawn

Face = Callable[[int, Generator], tuple[Tensor, Tensor]]
"""Paints n upright signs: a canvas (n, 3, 32, 32) and the mask of the plate (n or 1, 32, 32)."""


def red(n: int, g: Generator) -> Tensor:
    return colour(n, (0.96, 1.03), (0.55, 1.0), (0.45, 0.9), g)


def blue(n: int, g: Generator) -> Tensor:
    return colour(n, (0.55, 0.66), (0.5, 1.0), (0.35, 0.85), g)


def white(n: int, g: Generator) -> Tensor:
    return colour(n, (0.08, 0.18), (0.0, 0.25), (0.75, 1.0), g)


def black(n: int, g: Generator) -> Tensor:
    return colour(n, (0.0, 1.0), (0.0, 0.3), (0.02, 0.25), g)


def ngon(sides: int, radius: float, start: float) -> Tensor:
    """Mask of a regular polygon with its first corner at ``start`` (turns from the right, clockwise)."""
    angles = [TAU * (start + k / sides) for k in range(sides)]
    corners = [(radius * torch.tensor(a).cos().item(), radius * torch.tensor(a).sin().item()) for a in angles]
    return polygon(*corners)


def arc(cx, cy, radius, width, start: float, stretch=1.0) -> Tensor:
    """Mask of a ring (an oval ``stretch`` times as wide as high) less the quarter that begins at ``start`` turns."""
    x, y = (X - cx) / stretch, Y - cy
    gap = ((torch.atan2(y, x) / TAU - start) % 1.0) < 0.28
    return soft((torch.hypot(x, y) - radius).abs() - width / 2) * ~gap


def ringed(n: int, g: Generator) -> Tensor:
    """White discs with a red rim."""
    canvas = blank(red(n, g))
    return paint(canvas, disc(0, 0, uniform(n, 0.66, 0.76, g)), white(n, g))


def limit(first: str) -> Face:
    """A speed limit whose first digit is "3" or "5" and whose second is 0."""

    def face(n: int, g: Generator) -> tuple[Tensor, Tensor]:
        w, x, a = uniform(n, 0.13, 0.21, g), -0.3, uniform(n, 0.9, 1.1, g)
        zero = soft((torch.hypot((X - 0.3) / 0.55, Y / a) - 0.34).abs() * 0.8 - w / 2)
        if first == "3":
            bowls = torch.maximum(arc(x, 0.18, 0.19, w, 0.36, 1.1), arc(x, -0.19, 0.17, w, 0.36, 1.1))
            digit = bowls * (x - 0.19 < X)
        else:
            bowl = arc(x, 0.14, 0.22, w, 0.4, 1.0)
            digit = torch.stack(
                [bowl, line(x - 0.17, -0.36, x + 0.18, -0.36, w), line(x - 0.15, -0.34, x - 0.17, 0, w)]
            )
            digit = digit.amax(0)
        return paint(ringed(n, g), torch.maximum(zero, digit), black(n, g)), disc(0, 0, 0.95)

    return face


def stop(n: int, g: Generator) -> tuple[Tensor, Tensor]:
    canvas, letters = paint(blank(white(n, g)), ngon(8, 0.9, 1 / 16), red(n, g)), white(n, g)
    y, w = uniform(n, 0.18, 0.26, g), uniform(n, 0.09, 0.14, g)
    strokes = [line(-0.66, -y, -0.42, -y, w), line(-0.66, -y, -0.66, 0, w), line(-0.66, 0, -0.42, 0, w)]
    strokes += [line(-0.42, 0, -0.42, y, w), line(-0.66, y, -0.42, y, w)]  # S
    strokes += [line(-0.32, -y, -0.02, -y, w), line(-0.17, -y, -0.17, y, w)]  # T
    strokes += [soft((torch.hypot((X - 0.22) / 0.7, Y) - y + 0.02).abs() - w / 2)]  # O
    strokes += [line(0.5, -y, 0.5, y, w), soft((torch.hypot(X - 0.56, Y + y / 2) - y / 2).abs() - w / 2)]  # P
    return paint(canvas, torch.stack([s.expand(n, -1, -1) for s in strokes]).amax(0), letters), ngon(8, 0.98, 1 / 16)


def give_way(n: int, g: Generator) -> tuple[Tensor, Tensor]:
    canvas = blank(red(n, g))
    inner = polygon((-0.54, -0.4), (0.54, -0.4), (0.0, 0.5))
    return paint(canvas, inner, white(n, g)), polygon((-0.98, -0.68), (0.98, -0.68), (0.0, 0.96))


def priority(n: int, g: Generator) -> tuple[Tensor, Tensor]:
    canvas = paint(blank(white(n, g)), ngon(4, 0.9, 0), white(n, g) * 0.95)
    inner = ngon(4, 0.66, 0).expand(n, -1, -1)
    return paint(canvas, inner, colour(n, (0.1, 0.16), (0.6, 1.0), (0.65, 1.0), g)), ngon(4, 0.99, 0)


def no_entry(n: int, g: Generator) -> tuple[Tensor, Tensor]:
    bar = box(0, 0, uniform(n, 0.58, 0.72, g), uniform(n, 0.13, 0.2, g))
    return paint(blank(red(n, g)), bar, white(n, g)), disc(0, 0, 0.95)


def no_overtaking(n: int, g: Generator) -> tuple[Tensor, Tensor]:
    canvas = ringed(n, g)
    for x, paintwork in ((-0.29, red(n, g)), (0.29, black(n, g))):
        car = torch.stack([box(x, 0.06, 0.23, 0.12, 0, 0.05), box(x, -0.1, 0.16, 0.12, 0, 0.05)]).amax(0)
        wheels = torch.maximum(box(x - 0.16, 0.2, 0.06, 0.1), box(x + 0.16, 0.2, 0.06, 0.1))
        canvas = paint(canvas, torch.maximum(car, wheels).expand(n, -1, -1), paintwork)
    return canvas, disc(0, 0, 0.95)


def warning(symbol: Callable[[int, Generator], Tensor]) -> Face:
    """A black symbol on a white, or sometimes yellow, triangle with a red rim."""

    def face(n: int, g: Generator) -> tuple[Tensor, Tensor]:
        paper = torch.where(
            chance(n, 0.25, g)[:, 0] > 0, colour(n, (0.1, 0.15), (0.5, 0.9), (0.8, 1.0), g), white(n, g)
        )
        canvas = paint(blank(red(n, g)), polygon((0.0, -0.58), (0.66, 0.5), (-0.66, 0.5)), paper)
        return paint(canvas, symbol(n, g), black(n, g)), polygon((0.0, -0.96), (0.98, 0.7), (-0.98, 0.7))

    return face


def exclamation(n: int, g: Generator) -> Tensor:
    w = uniform(n, 0.16, 0.24, g)
    return torch.maximum(line(0, -0.25, 0, 0.12, w), disc(0, 0.36, w / 1.8))


def walker(n: int, g: Generator) -> Tensor:
    """A person on a crossing, striding to the left."""
    w, step = uniform(n, 0.1, 0.15, g), uniform(n, 0.2, 0.3, g)
    strokes = [disc(0.0, -0.3, 0.1), line(0.0, -0.14, 0.02, 0.12, w * 1.5)]
    strokes += [line(0.02, 0.1, -step, 0.44, w), line(0.02, 0.1, step, 0.44, w)]
    strokes += [line(0.0, -0.1, -step, 0.06, w * 0.8), line(0.0, -0.1, step, 0.08, w * 0.8)]
    return torch.stack([s.expand(n, -1, -1) for s in strokes]).amax(0)


def order(symbol: Callable[[int, Generator], Tensor]) -> Face:
    """A white symbol on a blue disc."""

    def face(n: int, g: Generator) -> tuple[Tensor, Tensor]:
        canvas = paint(blank(white(n, g)), disc(0, 0, 0.88), blue(n, g))
        return paint(canvas, symbol(n, g), white(n, g)), disc(0, 0, 0.95)

    return face


def bend(side: int) -> Callable[[int, Generator], Tensor]:
    """An arrow that rises and turns to ``side``: -1 left, 1 right."""

    def symbol(n: int, g: Generator) -> Tensor:
        w, y, s = uniform(n, 0.18, 0.26, g), uniform(n, -0.24, -0.06, g), side
        tip, neck, half = (s * 0.66, y), s * 0.3, uniform(n, 0.25, 0.34, g)
        head = (tip, (neck, y + half), (neck, y - half))
        shaft = torch.maximum(line(-s * 0.2, 0.6, -s * 0.2, y, w), line(-s * 0.2, y, s * 0.3, y, w))
        return torch.maximum(shaft, polygon(*(head if side > 0 else head[::-1])))

    return symbol


def circulate(n: int, g: Generator) -> Tensor:
    """Three arrows chasing one another round a circle."""
    w, r = uniform(n, 0.14, 0.2, g), uniform(n, 0.44, 0.52, g)
    x, y = turn(X, Y, uniform(n, 0, TAU / 3, g) * chance(n, 0.4, g))
    beat = (torch.atan2(y, x) / TAU * 3) % 1.0  # 0 at an arrow's point, growing backwards along its tail
    width = torch.where(beat < 0.45, beat * 0.8, w / 2)
    return soft((torch.hypot(X, Y) - r).abs() - width) * (beat < 0.8)


def street(n: int, g: Generator) -> Tensor:
    """What is behind a sign: sky, leaves or walls, boxes and lights, and the post."""
    canvas = blank(colour(n, (0.0, 1.0), (0.0, 0.4), (0.2, 0.95), g))
    leaves = soft(0.3 * (uniform(n, 0.2, 0.8, g) - noise(n, 4, g)))
    canvas = paint(canvas, leaves, colour(n, (0.0, 0.7), (0.0, 0.6), (0.1, 0.8), g))
    for _ in range(2):  # shop fronts, cars and other signs: as red and as blue as signs
        thing = box(uniform(n, -1, 1, g), uniform(n, -1, 1, g), uniform(n, 0.1, 0.5, g), uniform(n, 0.1, 0.5, g))
        canvas = paint(canvas, thing * chance(n, 0.6, g), colour(n, (0, 1), (0.0, 0.9), (0.1, 1.0), g))
    return canvas


def hang(picture: Tensor, g: Generator) -> Tensor:
    """A picture (n, c, 32, 32) moved, shrunk, leaned and seen in perspective; nothing (0) outside its square."""
    n = len(picture)
    size = uniform(n, 0.55, 0.95, g)
    x, y = turn(X - uniform(n, -0.2, 0.2, g), Y - uniform(n, -0.2, 0.2, g), uniform(n, -0.2, 0.2, g))
    depth = 1 + uniform(n, -0.2, 0.2, g) * x + uniform(n, -0.2, 0.2, g) * y
    x, y = x / (depth * size * uniform(n, 0.7, 1.0, g)), y / (depth * size)
    return F.grid_sample(picture, torch.stack([x, y], -1), align_corners=False)


def smear(canvas: Tensor, g: Generator) -> Tensor:
    """Each image out of focus, moving or too far away, by an amount of its own."""
    n = len(canvas)
    half = (canvas[..., ::2, :] + canvas[..., 1::2, :]) / 2
    half = F.pad((half[..., ::2] + half[..., 1::2]) / 2, (1, 1, 1, 1), mode="replicate")
    coarse = F.interpolate(F.avg_pool2d(half, 3, 1), (SIZE, SIZE), mode="bilinear")
    moved = F.pad(canvas, (2, 2, 0, 0), mode="replicate")
    moved = (moved[..., :-4] + moved[..., 1:-3] + canvas + moved[..., 3:-1] + moved[..., 4:]) / 5
    canvas = torch.lerp(canvas, moved, (uniform(n, 0, 1, g) * chance(n, 0.4, g))[:, None])
    return torch.lerp(canvas, coarse, uniform(n, 0, 0.9, g)[:, None])


def sign(face: Face) -> Painter:
    """A painter that hangs this face in a street and photographs it."""

    def draw(n: int, g: Generator) -> Tensor:
        plate, mask = face(n, g)
        dirt = uniform(n, 0, 0.3, g) * (noise(n, 4, g) - 0.5)
        picture = hang(torch.cat([shade(plate, dirt), mask.expand(n, -1, -1)[:, None]], 1), g)
        canvas = paint(street(n, g), picture[:, 3], picture[:, :3])
        twig = line(uniform(n, -1, 1, g), uniform(n, -1, 1, g), uniform(n, -1, 1, g), -1.0, uniform(n, 0.05, 0.35, g))
        canvas = paint(canvas, twig * chance(n, 0.4, g), colour(n, (0, 1), (0.0, 0.5), (0.05, 0.7), g))
        canvas = smear(canvas, g)
        grey = canvas.mean(1, keepdim=True)  # dusk takes the colour, the sun or a lamp tints it
        canvas = torch.lerp(canvas, grey.expand_as(canvas), (uniform(n, 0, 1, g) * chance(n, 0.5, g))[:, None])
        tint = 1 + 0.35 * (torch.rand(n, 3, 1, 1, generator=g) - 0.5)
        gloom = 1 - uniform(n, 0.2, 0.65, g) * chance(n, 0.35, g)
        return photograph(canvas * tint * gloom[:, None], g, 0.12, 0.05)

    return draw


FACES = {
    "stop": stop,
    "give way": give_way,
    "priority road": priority,
    "no entry": no_entry,
    "speed limit 30": limit("3"),
    "speed limit 50": limit("5"),
    "no overtaking": no_overtaking,
    "danger ahead": warning(exclamation),
    "pedestrians": warning(walker),
    "roundabout": order(circulate),
    "turn left ahead": order(bend(-1)),
    "turn right ahead": order(bend(1)),
}

TASK = Task(
    name="signs",
    mirrors="GTSRB",
    real=False,
    classes=tuple(FACES),
    synonyms=(
        ("red octagon", "halt", "red octagon with four letters", "come to a standstill"),
        ("yield", "upside-down red triangle", "let others pass first", "white triangle pointing down"),
        ("yellow diamond", "main route with right of way", "yellow and white diamond", "right of way"),
        ("red disc with a white bar", "wrong way", "white bar on a red disc", "closed to vehicles"),
        ("thirty", "maximum thirty", "30 kph", "red ring with thirty"),
        ("fifty", "maximum fifty", "50 kph", "red ring with fifty"),
        ("passing prohibited", "two cars in a red ring", "do not pass", "red car beside a black car"),
        ("exclamation mark", "general caution", "warning triangle with an exclamation mark", "watch out"),
        ("people crossing", "walking person in a triangle", "zebra crossing warning", "people on foot"),
        ("three circling arrows", "traffic circle", "rotary", "blue disc with arrows in a ring"),
        ("arrow bending to the left", "blue disc with a leftward arrow", "go left", "leftward only"),
        ("arrow bending to the right", "blue disc with a rightward arrow", "go right", "rightward only"),
    ),
    templates=(
        'a zoomed in photo of a "{c}" traffic sign.',
        'a centered photo of a "{c}" traffic sign.',
        'a close up photo of a "{c}" traffic sign.',
    ),
    source=drawn([sign(face) for face in FACES.values()]),
)
