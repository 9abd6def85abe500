"""House numbers (mirrors SVHN): a digit in one of many fonts on a wall or a plate, with its neighbours at the edges."""

from functools import cache
from pathlib import Path

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from dts_mini.suites.mini.canvas import (
    TAU,
    X,
    Y,
    blank,
    box,
    chance,
    hsv,
    line,
    noise,
    paint,
    photograph,
    stripes,
    turn,
    uniform,
)
from dts_mini.suites.mini.task import Task

# Fonts that matplotlib ships and that have proper digits. Left out: display and symbol fonts, which have none,
# and cmmi10, whose 0 and 1 are old-style and look like the letters o and i.
FONTS = (
    *(f"DejaVuSans{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSansMono{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSerif{style}" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")),
    *("cmb10", "cmr10", "cmss10", "cmti10", "cmtt10"),
)
CELL, HEIGHT = 64, 44  # pixels: the side of an atlas cell, and the height of the 0 in it

DIGITS = tuple("0123456789")
WORDS = (
    ("zero", "nought", "nil"),
    ("one", "single", "first"),
    ("two", "pair", "second"),
    ("three", "trio", "third"),
    ("four", "quartet", "fourth"),
    ("five", "quintet", "fifth"),
    ("six", "half a dozen", "sixth"),
    ("seven", "septet", "seventh"),
    ("eight", "octet", "eighth"),
    ("nine", "nonet", "ninth"),
)


@cache
def atlas() -> tuple[Tensor, Tensor]:
    """Ink masks of every font and digit (fonts, 10, CELL, CELL), and each font's advance (fonts,) in half cells."""
    import matplotlib  # slow to import and needed only here
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    glyphs, advances = torch.zeros(len(FONTS), 10, CELL, CELL), torch.zeros(len(FONTS))
    for f, name in enumerate(FONTS):
        path, layout = str(folder / f"{name}.ttf"), ImageFont.Layout.BASIC
        _, top, _, bottom = ImageFont.truetype(path, 100, layout_engine=layout).getbbox("0")
        font = ImageFont.truetype(path, round(100 * HEIGHT / (bottom - top)), layout_engine=layout)
        advances[f] = font.getlength("0") / (CELL / 2)
        for d, digit in enumerate(DIGITS):
            left, top, right, bottom = font.getbbox(digit)
            cell = Image.new("L", (CELL, CELL))
            ImageDraw.Draw(cell).text(((CELL - left - right) / 2, (CELL - top - bottom) / 2), digit, 255, font)
            glyphs[f, d] = torch.from_numpy(np.asarray(cell, dtype=np.float32) / 255)
    return glyphs, advances


def sample(masks: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Masks (n, 32, 32) read from masks (n, h, w) at (u, v), each (n, 32, 32), -1 to 1 across; nothing outside."""
    return F.grid_sample(masks[:, None], torch.stack([u, v], -1), align_corners=False)[:, 0]


def tint(luma: Tensor, g: Generator) -> Tensor:
    """Colours (n, 3) of random hue and saturation with exactly the given brightness (n, 1, 1) in [0, 1]."""
    luma = luma.reshape(-1, 1)
    n, weights = len(luma), torch.tensor([0.299, 0.587, 0.114])
    chroma = hsv(uniform(n, 0, 1, g), 1.0, 1.0)
    chroma = chroma - (chroma * weights).sum(1, keepdim=True)
    room = torch.where(chroma > 0, (1 - luma) / chroma.clamp(min=1e-6), luma / (-chroma).clamp(min=1e-6))
    return luma + chroma * room.amin(1, keepdim=True) * uniform(n, 0, 1, g).reshape(-1, 1)


def ink_and_paper(n: int, low: float, high: float, g: Generator) -> tuple[Tensor, Tensor]:
    """Two colours (n, 3) whose brightness differs by ``low`` to ``high``, either of them the darker one."""
    gap = uniform(n, low, high, g)
    dark = uniform(n, 0, 1, g) * (1 - gap)
    swap = chance(n, 0.5, g)
    return tint(dark + gap * swap, g), tint(dark + gap * (1 - swap), g)


def blur(images: Tensor) -> Tensor:
    """Images or masks (..., 32, 32) averaged over 3 x 3 pixels; sums of slices are several times as fast as pooling."""
    p = F.pad(images, (1, 1, 1, 1), mode="replicate")
    p = p[..., :-2] + p[..., 1:-1] + p[..., 2:]
    return (p[..., :-2, :] + p[..., 1:-1, :] + p[..., 2:, :]) / 9


def soften(canvas: Tensor, g: Generator, softness: float = 1.0) -> Tensor:
    """The canvas blurred by a random share of ``softness``, as by a lens out of focus."""
    return torch.lerp(canvas, blur(canvas), uniform(len(canvas), 0, softness, g)[:, None])


def wall(n: int, c: Tensor, g: Generator) -> Tensor:
    """Canvas of colour ``c`` (n, 3) with the blotches of plaster and, at times, planks or courses of brick."""
    other = torch.lerp(c, torch.rand(n, 3, generator=g), 0.3)
    canvas = paint(blank(c), noise(n, 3, g, octaves=3) * uniform(n, 0, 1, g), other)
    angle = chance(n, 0.5, g) * TAU / 4 + 0.1 * torch.randn(n, 1, 1, generator=g)
    joints = stripes(uniform(n, 0.3, 0.8, g), angle, uniform(n, 0, 1, g), uniform(n, 0.1, 0.5, g))
    return paint(canvas, joints * chance(n, 0.4, g) * uniform(n, 0.2, 0.8, g), torch.lerp(other, c * 0.5, 0.4))


def number(digits: Tensor, g: Generator) -> Tensor:
    """Images (n, 3, 32, 32) with the given digits (n,) in the middle of a house number."""
    n = len(digits)
    glyphs, advances = atlas()
    font = torch.randint(len(FONTS), (n,), generator=g)
    ink, paper = ink_and_paper(n, 0.18, 0.8, g)

    # (u, v): where each pixel lies in the cell of the middle digit.
    cx, cy = uniform(n, -0.22, 0.22, g), uniform(n, -0.18, 0.18, g)
    angle = 0.13 * torch.randn(n, 1, 1, generator=g)
    height = uniform(n, 0.75, 1.4, g)
    u, v = turn(X - cx, Y - cy, angle)
    v = v / height
    u = u / (height * uniform(n, 0.65, 1.15, g)) + 0.15 * torch.randn(n, 1, 1, generator=g) * v

    mask = sample(glyphs[font, digits], u, v)
    step = advances[font].reshape(-1, 1, 1) * uniform(n, 0.92, 1.2, g)
    for side in (-1, 1):
        neighbour = glyphs[font, torch.randint(10, (n,), generator=g)]
        mask = torch.maximum(mask, chance(n, 0.6, g) * sample(neighbour, u - side * step, v))
    bold = (2.5 * blur(mask)).clamp(max=1)
    mask = torch.lerp(mask, torch.maximum(mask, bold), uniform(n, 0, 0.7, g))

    # A wall; for half of the images a plate or tile on it, with or without a rim.
    plate = box(cx, cy, height * uniform(n, 0.6, 1.3, g), height * uniform(n, 0.72, 0.95, g), angle, 0.08)
    rim = plate * (3 - 3 * blur(plate)).clamp(max=1)
    mounted = chance(n, 0.5, g)
    canvas = wall(n, torch.lerp(paper, torch.rand(n, 3, generator=g), 0.8 * mounted[:, 0]), g)
    canvas = paint(canvas, mounted * plate, paper)
    canvas = paint(canvas, mounted * rim * chance(n, 0.5, g), torch.lerp(ink, paper, 0.3))

    reach = uniform(n, 0.06, 0.16, g)
    shadow = sample(mask, X + reach * uniform(n, -1, 1, g), Y - reach)
    canvas = paint(canvas, shadow * uniform(n, 0, 0.7, g) * chance(n, 0.4, g), blank(paper * 0.35))
    canvas = paint(canvas, mask * uniform(n, 0.8, 1, g), ink)

    # A twig, cable or gutter in front, of any colour.
    x, y, lean = uniform(n, -0.9, 0.9, g), uniform(n, -0.9, 0.9, g), uniform(n, 0, TAU, g)
    twig = line(
        x - 2 * lean.cos(), y - 2 * lean.sin(), x + 2 * lean.cos(), y + 2 * lean.sin(), uniform(n, 0.05, 0.2, g)
    )
    canvas = paint(canvas, twig * chance(n, 0.25, g), torch.rand(n, 3, generator=g))
    return photograph(soften(canvas, g), g)


def source(split: str, n: int, g: Generator) -> tuple[Tensor, Tensor]:
    """``n`` images (n, 3, 32, 32) and labels (n,); one painter serves all digits, so the batch is drawn whole."""
    labels = torch.randint(10, (n,), generator=g)
    return number(labels, g), labels


TASK = Task(
    name="house numbers",
    mirrors="SVHN",
    real=False,
    classes=DIGITS,
    synonyms=WORDS,
    templates=('a photo of the number: "{c}".',),
    source=source,
)
