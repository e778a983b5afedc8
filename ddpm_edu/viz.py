"""Figures: one look for the whole course, and pictures ready for a page.

Importing this module sets matplotlib's defaults to the course's look (`STYLE`). Pictures that are floats lie in
[-1, 1], as everywhere in the course; what lies outside is clipped, for display only.
"""

from __future__ import annotations

import base64
import io
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import torch
from cycler import cycler
from einops import rearrange
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from PIL import Image
from torch import Tensor

__all__ = [
    "ACCENT", "DATA", "GREY", "MODEL", "NOISE", "PARTS", "STYLE",
    "Picture", "dots", "figure", "grid", "histogram", "parts", "scatter", "show_grid", "show_images",
]  # fmt: skip

# Colours that colour-blind eyes tell apart (Okabe and Ito, "Color universal design", 2008), named for what they show.
DATA, NOISE, MODEL, ACCENT, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#7F7F7F"

STYLE: Any = {
    "font.size": 12,  # readable from the back of a class: nothing below 11
    "axes.titlesize": 13,
    "axes.labelsize": 12,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "legend.fontsize": 11,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#444444",
    "axes.prop_cycle": cycler(color=[DATA, NOISE, MODEL, ACCENT, GREY]),
    "lines.linewidth": 2,
    "image.cmap": "gray",
    "image.interpolation": "nearest",
}
mpl.rcParams.update(STYLE)

DPI = 100  # CSS pixels to the inch; drawn at twice that, so that text stays sharp on a projector
ROOM = (720, 320)  # CSS pixels (width, height) that a small picture is enlarged to fill


class Picture(NamedTuple):
    """A picture ready for a page: WebP `data` of width x height pixels, each shown `scale` CSS pixels wide."""

    data: bytes
    width: int
    height: int
    scale: float

    @classmethod
    def of(cls, thing: Any) -> Picture:
        """A matplotlib Figure, a PIL image, or an array or tensor (h, w) or (h, w, 3): uint8, or float in [-1, 1].

        Figures come at twice their size and slightly compressed; small pictures are enlarged by a whole number, their
        pixels exact. Raises TypeError for anything else, ValueError for a shape or values that are no picture.
        """
        if isinstance(thing, Picture):
            return thing
        if isinstance(thing, Figure):
            return cls._encode(_draw(thing), 0.5, quality=55, method=2)
        if isinstance(thing, Image.Image):
            image = thing.convert("RGB")
        elif isinstance(thing, Tensor | np.ndarray):
            image = Image.fromarray(_pixels(thing)).convert("RGB")
        else:
            raise TypeError(
                f"a picture is a matplotlib Figure, a PIL image, an array or a tensor, not {type(thing).__name__}"
                + (": does the function that draws it end with `return`?" if thing is None else "")
            )
        scale = max(1, min(ROOM[0] // image.width, ROOM[1] // image.height))
        return cls._encode(image, scale, lossless=True, quality=20, method=1)

    @classmethod
    def _encode(cls, image: Image.Image, scale: float, **options: Any) -> Picture:
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", **options)
        return cls(buffer.getvalue(), image.width, image.height, scale)

    @property
    def css_size(self) -> tuple[int, int]:
        """(width, height) on the page, in CSS pixels."""
        return round(self.width * self.scale), round(self.height * self.scale)

    @property
    def uri(self) -> str:
        """The picture as a data URI: a page that holds it needs no other file."""
        return "data:image/webp;base64," + base64.b64encode(self.data).decode()


def _draw(fig: Figure) -> Image.Image:
    """The figure at 2 x DPI; closed in pyplot (if it came from there), so that no cell shows it a second time."""
    before = fig.dpi
    fig.set_dpi(2 * DPI)
    try:
        canvas = FigureCanvasAgg(fig)
        canvas.draw()
        image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    finally:
        fig.set_dpi(before)
        if pyplot := sys.modules.get("matplotlib.pyplot"):
            pyplot.close(fig)
    return image


def _pixels(picture: Tensor | np.ndarray) -> np.ndarray:
    """(..., h, w[, 3]) uint8 as it is, floats in [-1, 1] to uint8."""
    array = picture.detach().cpu() if isinstance(picture, Tensor) else torch.from_numpy(np.ascontiguousarray(picture))
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3) or array.numel() == 0:
        shape = tuple(array.shape)
        raise ValueError(f"a picture has shape (h, w) or (h, w, 3), not {shape}; viz.grid lays out a batch")
    return _bytes(array).numpy()


def _bytes(x: Tensor) -> Tensor:
    """uint8 as it is; floats in [-1, 1] to uint8, clipped. Raises for NaN and for other integers."""
    if x.dtype == torch.uint8:
        return x
    if not x.is_floating_point():
        raise TypeError(f"pixels are uint8, or floats in [-1, 1], not {x.dtype}")
    if x.isnan().any():
        raise ValueError("the picture contains NaN: look for a division by zero or a training that diverged")
    return ((x.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def grid(images: Tensor | np.ndarray, columns: int | None = None, gap: int = 1, background: int = 255) -> np.ndarray:
    """A batch of pictures side by side, row after row, in one picture.

    images: (b, h, w), (b, c, h, w) with c = 1 or 3, or (b, h, w, 3); uint8, or float in [-1, 1] (clipped).
    columns: pictures in a row, by default as near to a square as it gets. gap: pixels between pictures, of the grey
    level `background`, which also fills what is left of the last row.
    Returns uint8 (H, W) for grey pictures, (H, W, 3) for colour. Raises ValueError for another shape or NaN.
    """
    x = _bytes(torch.as_tensor(images).detach().cpu())
    if x.ndim == 3:
        x = rearrange(x, "b h w -> b 1 h w")
    if x.ndim == 4 and x.shape[-1] == 3:
        x = rearrange(x, "b h w c -> b c h w")
    if x.ndim != 4 or x.shape[1] not in (1, 3) or x.numel() == 0:
        shape = tuple(torch.as_tensor(images).shape)
        raise ValueError(f"images must be a batch (b, h, w) or (b, c, h, w) with c = 1 or 3, not {shape}")
    columns = min(len(x), columns or int(np.ceil(len(x) ** 0.5)))
    missing = -len(x) % columns
    x = torch.cat([x, x.new_full((missing, *x.shape[1:]), background)])
    x = torch.nn.functional.pad(x, (0, gap, 0, gap), value=background)
    x = rearrange(x, "(row column) c h w -> (row h) (column w) c", column=columns)
    x = x[: len(x) - gap, : x.shape[1] - gap]  # no gap after the last row and column
    return (x if x.shape[2] == 3 else x[:, :, 0]).numpy()


def dots(
    points: Tensor | np.ndarray, extent: float = 1.0, color: str = DATA, side: int = 320, size: float = 5
) -> np.ndarray:
    """What `scatter` draws of points (n, 2), without axes but in a tenth of the time: uint8 (side, side, 3).

    The picture reaches from -extent to extent in both directions; what lies outside is left out. Dots are `size` pixels
    wide and let others shine through, as there.
    """
    x = torch.as_tensor(points).detach().cpu().double()
    centre = ((x / extent * torch.tensor([1, -1]) + 1) * side / 2).floor()  # (n, 2): column and row
    reach = int(size / 2 + 1)
    away = torch.cartesian_prod(*2 * [torch.arange(-reach, reach + 1)])  # (k, 2): the pixels around one
    disc = (size / 2 + 0.5 - torch.hypot(*away.float().T)).clamp(0, 1)  # (k,): its edge fades over a pixel
    at = centre[:, None] + away
    seen = ((at >= 0) & (at < side)).all(2)
    column, row = at[seen].long().T
    layers = torch.zeros(side, side).index_put_((row, column), disc.expand(len(x), -1)[seen], accumulate=True)
    inked = layers > 0
    paper = 0.4 ** layers[inked][:, None]  # the share of the white ground that is still seen
    picture = torch.full((side, side, 3), 255, dtype=torch.uint8)
    picture[inked] = (255 * (paper + (1 - paper) * torch.tensor(to_rgb(color)))).round().to(torch.uint8)
    return picture.numpy()


class _Figure(Figure):
    """A figure that shows itself as the last line of a cell, although pyplot does not know it."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        image, buffer = _draw(self), io.BytesIO()
        image.save(buffer, "PNG")
        return buffer.getvalue(), {"width": image.width // 2, "height": image.height // 2}


def figure(width: float, height: float, columns: int = 1, **kw: Any) -> tuple[Figure, Any]:
    """An empty figure of width x height inches (100 CSS pixels each) and its axes: one, or an array of `columns`.

    Not registered with pyplot: it is shown when it is returned or displayed, never by accident, and needs no closing.
    The margins are fixed in inches, not fitted to the labels, so that nothing jumps from one frame to the next.
    kw goes to `Figure.subplots` (sharex, sharey, width_ratios, ...; `nrows` for more than one row).
    """
    fig = _Figure(figsize=(width, height))
    FigureCanvasAgg(fig)
    rows = kw.pop("nrows", 1)
    left, right, bottom, top, gap = 0.8, 0.15, 0.65, 0.4, 0.75
    across = (width - left - right - gap * (columns - 1)) / columns
    down = (height - bottom - top - gap * (rows - 1)) / rows
    if min(across, down) <= 0:
        raise ValueError(f"{width} x {height} inches leave no room for {rows} x {columns} axes and their labels")
    fig.subplots_adjust(
        left / width, bottom / height, 1 - right / width, 1 - top / height, wspace=gap / across, hspace=gap / down
    )
    return fig, fig.subplots(rows, columns, **kw)


def scatter(
    ax: Axes, points: Tensor | np.ndarray, limits: tuple[float, float] = (-3, 3), color: str = DATA, size: float = 8
) -> None:
    """A set of points (n, 2), on a square of fixed limits, so that frames can be compared."""
    x, y = torch.as_tensor(points).detach().cpu().unbind(-1)
    ax.scatter(x.numpy(), y.numpy(), s=size, color=color, alpha=0.6, linewidths=0)
    ax.set(xlim=limits, ylim=limits, aspect="equal")


def histogram(
    ax: Axes,
    values: Tensor | np.ndarray,
    density: Callable[[Tensor], Tensor] | None = None,
    limits: tuple[float, float] = (-4, 4),
    color: str = DATA,
    bins: int = 60,
) -> None:
    """The histogram of values (any shape), as a density over fixed limits, and on top the closed form it should follow.

    density: (n,) -> (n,), for instance `lambda x: gaussian.log_prob(x).exp()`.
    """
    x = torch.as_tensor(values).detach().cpu().double().flatten()
    heights, edges = np.histogram(x.numpy(), bins=bins, range=limits)
    # Divided by all n, not by those within the limits: what lies outside must not lift the bars above the curve.
    heights = heights / (x.numel() * (edges[1] - edges[0]))
    ax.stairs(heights, edges, fill=True, color=color, alpha=0.45)
    if density is not None:
        at = torch.linspace(*limits, 401, dtype=torch.float64)
        ax.plot(at.numpy(), density(at).detach().numpy(), color="black", lw=1.8)
    ax.set(xlim=limits)


def show_images(batches: Mapping[str, Tensor | np.ndarray], columns: int | None = None, height: float = 3.2) -> Figure:
    """Batches of pictures side by side, each under its title: {title: images as `grid` takes them}."""
    grids = {title: grid(images, columns) for title, images in batches.items()}
    shapes = [picture.shape[1] / picture.shape[0] for picture in grids.values()]
    title_room, gap = 0.4, 0.2
    inner = height - title_room
    width = inner * sum(shapes) + gap * (len(shapes) - 1)
    fig = _Figure(figsize=(width, height))
    FigureCanvasAgg(fig)
    left = 0.0
    for (title, picture), shape in zip(grids.items(), shapes, strict=True):
        ax = fig.add_axes((left / width, 0, inner * shape / width, inner / height))
        ax.imshow(picture, cmap="gray", vmin=0, vmax=255)
        ax.set_title(title)
        ax.set_axis_off()
        left += inner * shape + gap
    return fig


def show_grid(images: Tensor | np.ndarray, title: str = "", columns: int | None = None, height: float = 3.6) -> Figure:
    """One batch of pictures, as `grid` takes it, under a title."""
    return show_images({title: images}, columns, height)


# The three parts of a text-to-image model, in the order in which a sentence goes through them.
PARTS = ("text encoder", "generation model", "decoder")


def parts(lit: str | None = None) -> Figure:
    """The text-to-image model of the course: its three parts and the shapes of what goes from one to the next.

    lit: the part, one of `PARTS`, that is drawn in full colour; None: all are pale. Below, in grey, the encoder, which
    in training alone turns pictures into the latents that the generation model learns. Another name: ValueError.
    """
    if lit is not None and lit not in PARTS:
        raise ValueError(f"There is no part {lit!r}; the parts are {', '.join(map(repr, PARTS))}.")
    fig = _Figure(figsize=(9.6, 3.0))
    FigureCanvasAgg(fig)
    ax = fig.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, 9.6), ylim=(0, 3))  # inches
    ax.set_axis_off()
    dark, light, up, down = "#222222", "#767676", 2.4, 0.6  # the two rows are drawn at the heights up and down

    def box(x: float, y: float, width: float, name: str, below: str) -> None:
        full, is_part = name == lit, name in PARTS
        white = 0.0 if full else 0.82 if is_part else 1.0
        fill = [white + (1 - white) * c for c in to_rgb(MODEL)]
        patch = FancyBboxPatch((x - width / 2 + 0.08, y - 0.34), width - 0.16, 0.68, boxstyle="round,pad=0.08")
        patch.set(facecolor=fill, edgecolor=MODEL if is_part else light, linewidth=2.5 if full else 1.2)
        ax.add_patch(patch)
        color = dark if is_part else light
        ax.text(x, y + 0.13, name, ha="center", va="center", size=12, color=color, weight="bold" if full else "normal")
        ax.text(x, y - 0.15, below, ha="center", va="center", size=11, color=color)

    def arrow(start: tuple[float, float], end: tuple[float, float], training: bool = False) -> None:
        line: dict[str, Any] = {
            "color": light if training else dark,
            "linewidth": 1.4,
            "linestyle": "--" if training else "-",
        }
        ax.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=13, shrinkA=0, shrinkB=0, **line))

    def named(x: float, y: float, name: str, shape: str, color: str = dark) -> None:
        """What an arrow carries: its name above the arrow, its shape below."""
        ax.text(x, y + 0.08, name, ha="center", va="bottom", size=11, color=color)
        ax.text(x, y - 0.09, shape, ha="center", va="top", size=11, color=color)

    arrow((0.1, up), (1.2, up))
    named(0.62, up, "sentence", "a string")
    box(1.9, up, 1.4, "text encoder", "transformer")
    arrow((2.6, up), (3.65, up))
    named(3.1, up, "tokens", "(n, 192)")
    box(4.6, up, 1.9, "generation model", "UNet, t = T, ..., 1")
    arrow((5.55, up), (6.75, up))
    named(6.12, up, "latent", "(4, 16, 16)")
    box(7.35, up, 1.2, "decoder", "of the VAE")
    arrow((7.95, up), (9.4, up))
    named(8.65, up, "picture", "(64, 64, 3)")

    arrow((4.1, 1.02), (4.1, up - 0.42))
    ax.text(4.1, 0.97, "noise\n(4, 16, 16)", ha="center", va="top", size=11, color=dark)
    arrow((9.4, down), (7.95, down), training=True)
    named(8.65, down, "picture", "(64, 64, 3)", light)
    box(7.35, down, 1.2, "encoder", "of the VAE")
    ax.plot((6.75, 5.1), (down, down), color=light, linewidth=1.4, linestyle="--")
    arrow((5.1, down), (5.1, up - 0.42), training=True)
    named(5.95, down, "latent", "(4, 16, 16)", light)
    ax.text(7.35, 1.2, "in training only", ha="center", va="center", size=11, color=light, style="italic")
    return fig
