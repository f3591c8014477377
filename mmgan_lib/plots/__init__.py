"""Every figure of the book: one style, safe for the colour-blind, each with a text that says what it shows.

The drawing functions put one thing on one matplotlib ``Axes``; :func:`panels` makes the axes; :func:`show`,
:func:`film` and :func:`sliders` display the finished figure in a notebook and in the rendered book.
"""

import base64
import io
import json
import uuid
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn

from mmgan_lib import runtime
from mmgan_lib.encoders import evaluating

# Okabe & Ito (2008), "Color universal design": told apart with any colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
REAL, FAKE = COLOURS[0], COLOURS[1]
LINES = ("-", "--", ":", "-.", (0, (7, 1, 1, 1, 1, 1)))
STYLE = {
    "figure.constrained_layout.use": True,
    "savefig.dpi": 150,
    "font.size": 12,
    "axes.prop_cycle": matplotlib.cycler(color=COLOURS),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 12,
    "legend.frameon": False,
}
FILM = Template(Path(__file__).with_name("film.html").read_text("utf-8"))


def panels(rows: int = 1, columns: int = 1, *, size: tuple[float, float] = (3.2, 2.8)) -> tuple[Figure, np.ndarray]:
    """Makes a figure in the book's style of rows × columns axes, each ``size`` inches wide and high.

    The axes come as an array of shape (rows, columns). Figures up to 6.4 inches wide stay legible on a phone.

    >>> figure, axes = panels(2, 3)
    >>> axes.shape
    (2, 3)
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(size[0] * columns, size[1] * rows))  # not pyplot's: those show themselves in notebooks
        return figure, figure.subplots(rows, columns, squeeze=False)


def images(axes: Axes, batch: Tensor, *, columns: int = 8, title: str = "") -> None:
    """Lays images (B, C, H, W) in [-1, 1] out in a grid, row by row; C is 1 or 3.

    Raises:
        ValueError: another shape, or whole numbers.
    """
    if batch.ndim != 4 or batch.shape[1] not in (1, 3) or len(batch) == 0 or not batch.is_floating_point():
        found = f"{tuple(batch.shape)} {batch.dtype}"
        raise ValueError(f"batch: found {found}; expected (B, 1 or 3, H, W) floating point in [-1, 1].")
    axes.imshow(_grid(batch.detach().float().cpu().clamp(-1, 1) / 2 + 0.5, columns).numpy(), interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(title)


def _grid(images: Tensor, columns: int) -> Tensor:
    """Arranges (B, C, H, W) as (height, width, 3): row by row, with a white line around each image."""
    columns = min(columns, len(images))
    cells = F.pad(images.expand(-1, 3, -1, -1), (1, 0, 1, 0), value=1.0)
    cells = F.pad(cells, (0, 0, 0, 0, 0, 0, 0, -len(cells) % columns), value=1.0)  # to the end of the last row
    rows = cells.unflatten(0, (-1, columns)).permute(0, 3, 1, 4, 2)  # (rows, H, columns, W, 3)
    return F.pad(rows.flatten(2, 3).flatten(0, 1), (0, 0, 0, 1, 0, 1), value=1.0)


def points(axes: Axes, *, real: Tensor | None = None, fake: Tensor | None = None, limit: float = 1.6) -> None:
    """Scatters real and fake points (N, 2) in the square [-limit, limit]²; circles are real, crosses are fake."""
    for samples, colour, marker, name in ((real, REAL, "o", "real"), (fake, FAKE, "x", "fake")):
        if samples is not None:
            x, y = samples.detach().cpu().unbind(1)
            axes.scatter(x, y, s=12, c=colour, marker=marker, alpha=0.6, linewidths=0.8, label=name)
    axes.set(xlim=(-limit, limit), ylim=(-limit, limit), xticks=[], yticks=[], aspect="equal")


def landscape(axes: Axes, discriminator: nn.Module, *, limit: float = 1.6) -> None:
    """Shades the square [-limit, limit]² by the probability σ(D(x)) that the discriminator calls a point real."""
    side = torch.linspace(-limit, limit, 60)
    grid = torch.cartesian_prod(side, side).to(next(discriminator.parameters()).device)
    with evaluating(discriminator):
        probability = torch.sigmoid(discriminator(grid)).reshape(60, 60).T.cpu().numpy()
    extent = (-limit, limit, -limit, limit)
    axes.imshow(probability, extent=extent, origin="lower", cmap="gray", vmin=0, vmax=1)


def curves(axes: Axes, *, xlabel: str, ylabel: str, smooth: int = 1, **series: Tensor | Sequence[float]) -> None:
    """Draws named series against their index, each averaged over a window of ``smooth`` values.

    Series differ in line style as well as in colour. A mean stands at the index of the last value it takes in.

    Raises:
        ValueError: more than five series, or one shorter than the window.
    """
    if len(series) > len(LINES):
        raise ValueError(f"series: found {len(series)}; expected at most {len(LINES)}, one for each line style.")
    for (name, values), style in zip(series.items(), LINES, strict=False):
        if len(values) < smooth:
            raise ValueError(f"{name}: found {len(values)} values; expected at least smooth={smooth}.")
        mean = torch.as_tensor(values, dtype=torch.double).detach().cpu().unfold(0, smooth, 1).mean(dim=1)
        axes.plot(torch.arange(len(mean)) + smooth - 1, mean, linestyle=style, label=name.replace("_", " "))
    axes.set(xlabel=xlabel, ylabel=ylabel)
    with matplotlib.rc_context(STYLE):
        axes.legend()


def png(figure: Figure) -> bytes:
    """Encodes the figure as a PNG file on white, in the 256 colours that leave none of its own far from all of them."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="png", facecolor="white")
    small = io.BytesIO()
    image = Image.open(buffer).convert("RGB")
    image.quantize(256, method=Image.Quantize.MAXCOVERAGE).save(small, format="png", optimize=True)
    return small.getvalue()


def show(figure: Figure, *, alt: str, caption: str, recorded: bool = False) -> None:
    """Displays a figure, its caption and, for those who cannot see it, a text that says what it shows.

    The tier that made the figure is added to the caption, unless what it shows was ``recorded`` by an earlier run.

    Raises:
        ValueError: ``alt`` or ``caption`` is empty.
    """
    image = base64.b64encode(png(figure)).decode()
    html = f'<img src="data:image/png;base64,{image}" alt="{escape(alt)}" style="max-width: 100%">'
    _display({"image/png": image, "text/html": html}, alt, caption, recorded=recorded)


def film(frames: Sequence[Figure], *, labels: Sequence[str], alt: str, caption: str) -> None:
    """Displays figures as a film that the reader plays and scrubs, with no kernel and no network.

    Its still, for print and for browsers without scripts, is the last frame.

    Raises:
        ValueError: the labels do not match the frames, or ``alt`` or ``caption`` is empty.
    """
    if len(labels) != len(frames) or not frames:
        raise ValueError(f"labels: found {len(labels)} for {len(frames)} frames; expected one for each, at least one.")
    sources = [f"data:image/png;base64,{base64.b64encode(png(frame)).decode()}" for frame in frames]
    name, last = f"film-{uuid.uuid4().hex[:8]}", len(frames) - 1
    html = FILM.substitute(
        name=name,
        last=last,
        still=sources[-1],
        alt=escape(alt),
        label=escape(labels[-1]),
        frames=json.dumps(sources),
        labels=json.dumps(list(labels)).replace("<", r"\u003c"),  # a label cannot end the script
    )
    _display({"text/html": html}, alt, caption)


def sliders(draw: Callable[..., Figure], *, alt: str, caption: str, **ranges: tuple[float, float, float]) -> None:
    """Displays ``draw(name=value, …)`` with a slider for each name, as (lowest, highest, first value).

    The sliders need a kernel; the rendered book shows the figure at the first values.

    Raises:
        ValueError: a first value lies outside its range, or ``alt`` or ``caption`` is empty.
    """
    import ipywidgets

    for name, (low, high, value) in ranges.items():
        if not low <= value <= high:
            raise ValueError(f"{name}: found {(low, high, value)}; expected (lowest, highest, first value).")
    first = png(draw(**{name: value for name, (_, _, value) in ranges.items()}))
    shown = ipywidgets.Image(value=first, format="png", layout={"max_width": "100%"})
    knobs = {
        name: ipywidgets.FloatSlider(min=low, max=high, value=value, step=(high - low) / 50, description=name)
        for name, (low, high, value) in ranges.items()
    }

    def redraw(_: Any) -> None:
        shown.value = png(draw(**{name: knob.value for name, knob in knobs.items()}))

    for knob in knobs.values():
        knob.observe(redraw, names="value")
    view = {"version_major": 2, "version_minor": 0, "model_id": ipywidgets.VBox([*knobs.values(), shown]).model_id}
    image = base64.b64encode(first).decode()
    _display({"application/vnd.jupyter.widget-view+json": view, "image/png": image}, alt, caption)


def _display(bundle: dict[str, Any], alt: str, caption: str, *, recorded: bool = False) -> None:
    """Displays a bundle of representations; the book's build takes ``alt`` and ``caption`` from its metadata."""
    from IPython.display import display

    for name, text in (("alt", alt), ("caption", caption)):
        if not text.strip():
            raise ValueError(f"{name} is empty; expected a sentence that says what the figure shows.")
    if not recorded:
        caption = f"{caption} ({runtime.tier()} tier)"
    if "text/html" in bundle:  # the rendered book numbers the caption and shows it itself
        bundle["text/html"] += f'<p class="notebook-only"><em>{escape(caption)}</em></p>'
    bundle["text/plain"] = f"[Figure: {alt}]"
    display(bundle, raw=True, metadata={"mmgan": {"alt": alt, "caption": caption}})
