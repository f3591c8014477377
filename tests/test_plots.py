"""Figures: what is drawn where, what is displayed, and a film that plays in a browser."""

import base64
import copy
import io
import json
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from itertools import combinations

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn

from mmgan_lib import plots

NASTY = """a "quoted" <b>&amp; 'b'</b> </script><script>alert(1)</script>"""


@pytest.fixture(autouse=True)
def _quick_tier_and_no_figure_of_pyplots(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MMGAN_TIER", "quick")
    yield
    assert plt.get_fignums() == []  # a notebook would show it a second time


def axes_of(size: tuple[float, float] = (1.0, 1.0)) -> plt.Axes:
    return plots.panels(size=size)[1][0, 0]


def bar(height: float) -> Figure:
    """A small figure that looks different for each height."""
    figure, axes = plots.panels(size=(0.8, 0.8))
    axes[0, 0].bar([0], [height])
    axes[0, 0].set(ylim=(0, 1), xticks=[], yticks=[])
    return figure


def pixels(picture: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(picture))
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB")).astype(int)


# Colour vision: full dichromacy by Machado, Oliveira & Fernandes, "A physiologically-based model for simulation of
# color vision deficiency" (IEEE TVCG 15(6), 2009, severity 1.0), on linear RGB.
VISION = {
    "normal": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
SRGB_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])  # IEC 61966-2-1
# ΔE*ab of 2.3 is just noticeable between large patches side by side (Mahy et al., 1994). Thin lines and small marks
# that are compared with a legend need several times that.
TOLD_APART = 6 * 2.3


def cielab(colours: tuple[str, ...], vision: str) -> np.ndarray:
    """CIE 1976 L*a*b* (N, 3) of the colours as seen with that vision."""
    srgb = np.array([to_rgb(colour) for colour in colours])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = (linear @ np.array(VISION[vision]).T).clip(0, 1)
    xyz = seen @ SRGB_TO_XYZ.T / SRGB_TO_XYZ.sum(axis=1)
    x, y, z = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


def closest(colours: tuple[str, ...], vision: str) -> float:
    return min(np.linalg.norm(a - b) for a, b in combinations(cielab(colours, vision), 2))


@pytest.mark.parametrize("vision", VISION)
def test_colours_are_told_apart_with_any_colour_vision(vision: str) -> None:
    assert closest(plots.COLOURS, vision) > TOLD_APART
    assert closest((plots.REAL, plots.FAKE), vision) > 3 * TOLD_APART
    np.testing.assert_allclose(cielab(("white",), vision), [[100, 0, 0]], atol=0.1)  # nobody sees white tinted


def test_the_measure_of_colours_finds_a_palette_that_fails() -> None:
    matplotlibs = tuple(plt.get_cmap("tab10")(range(7))[:, :3].tolist())
    assert closest(matplotlibs, "normal") > TOLD_APART
    assert closest(matplotlibs, "protanopia") < TOLD_APART


def test_panels_are_in_the_books_style_and_leave_matplotlibs_alone() -> None:
    before = dict(plt.rcParams)
    figure, axes = plots.panels(2, 3, size=(1.5, 1.0))
    assert axes.shape == (2, 3)
    assert figure.get_size_inches().tolist() == [4.5, 2.0]
    (line,) = axes[1, 2].plot([0, 1])
    assert line.get_color() == plots.COLOURS[0]
    assert not axes[1, 2].spines["top"].get_visible()
    assert dict(plt.rcParams) == before


def grid_of(batch: Tensor, columns: int = 8) -> np.ndarray:
    axes = axes_of()
    plots.images(axes, batch, columns=columns)
    return axes.images[0].get_array()


def test_pictures_are_laid_out_row_by_row_black_at_minus_one_and_white_at_one() -> None:
    levels = torch.tensor([-1.0, -0.5, 0.0, 1.0])
    grid = grid_of(levels[:, None, None, None].expand(4, 1, 2, 2), columns=2)
    assert grid.shape == (7, 7, 3)  # two pictures of two pixels and three borders of one, each way
    corners = [grid[y : y + 2, x : x + 2] for y in (1, 4) for x in (1, 4)]
    assert [np.unique(corner).tolist() for corner in corners] == [[0.0], [0.25], [0.5], [1.0]]
    assert (grid[0] == 1).all()


def test_colours_of_pictures_are_kept() -> None:
    colour = torch.tensor([1.0, 0.0, -1.0])
    assert grid_of(colour[None, :, None, None].expand(2, 3, 2, 2))[1, 1].tolist() == [1.0, 0.5, 0.0]


def test_a_picture_looks_the_same_in_any_batch_and_out_of_range_is_clipped() -> None:
    dim, bright = torch.full((1, 1, 2, 2), -0.5), torch.full((1, 1, 2, 2), 7.0)
    first, second = grid_of(torch.cat([dim, dim / 2])), grid_of(torch.cat([dim, bright]))
    assert first[1, 1].tolist() == second[1, 1].tolist() == [0.25] * 3
    assert second.max() == 1

    axes = axes_of()
    axes.set_position([0, 0, 1, 1])
    plots.images(axes, dim.expand(2, 1, 2, 2))
    assert np.isin([63, 64], pixels(plots.png(axes.figure))).any()  # nor does the drawing stretch it to black


def test_real_points_are_circles_and_fake_points_crosses() -> None:
    axes, real, fake = axes_of(), torch.randn(5, 2), torch.randn(3, 2, requires_grad=True)
    plots.points(axes, real=real, fake=fake, limit=2.0)
    circles, crosses = axes.collections
    np.testing.assert_allclose(circles.get_offsets(), real)
    np.testing.assert_allclose(crosses.get_offsets(), fake.detach())
    assert [marks.get_label() for marks in (circles, crosses)] == ["real", "fake"]
    assert len(circles.get_paths()[0]) > 4 == len(crosses.get_paths()[0])
    assert (axes.get_xlim(), axes.get_ylim()) == ((-2.0, 2.0), (-2.0, 2.0))


class Along(nn.Module):
    """A discriminator whose logit is one coordinate, steepened."""

    def __init__(self, axis: int, slope: float) -> None:
        super().__init__()
        self.axis, self.slope = axis, nn.Parameter(torch.tensor(slope))

    def forward(self, points: Tensor) -> Tensor:
        return self.slope * points[:, self.axis]


def test_the_landscape_is_the_probability_of_real_at_each_point() -> None:
    for axis in (0, 1):
        axes = axes_of()
        plots.landscape(axes, Along(axis, 1.0), limit=2.0)
        shade = axes.images[0].get_array()  # rows are y, columns are x
        expected = torch.linspace(-2, 2, 60).sigmoid().expand(60, 60)
        np.testing.assert_allclose(shade, expected if axis == 0 else expected.T, atol=1e-6)


def test_the_landscape_leaves_the_network_as_it_was() -> None:
    network = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 1))
    before, random = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    plots.landscape(axes_of(), network)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert network.training


@pytest.mark.parametrize(
    "batch",
    [torch.zeros(2, 4, 4), torch.zeros(2, 2, 4, 4), torch.zeros(0, 3, 4, 4), torch.zeros(2, 3, 4, 4).byte()],
    ids=["no batch", "two channels", "none", "bytes"],
)
def test_what_is_no_picture_is_refused(batch: Tensor) -> None:
    with pytest.raises(ValueError, match=r"^batch: found \(.*; expected \(B, 1 or 3, H, W\) floating point"):
        plots.images(axes_of(), batch)


@pytest.mark.parametrize("axis", [0, 1], ids=["right", "top"])
def test_the_landscape_is_bright_where_the_discriminator_sees_real(axis: int) -> None:
    axes = axes_of()
    axes.set_axis_off()
    plots.landscape(axes, Along(axis, 50.0))
    drawn = pixels(plots.png(axes.figure)).sum(axis=2)
    height, width = drawn.shape
    quarters = {
        (0, False): drawn[height // 2, width // 4],
        (0, True): drawn[height // 2, 3 * width // 4],
        (1, False): drawn[3 * height // 4, width // 2],
        (1, True): drawn[height // 4, width // 2],  # rows of a PNG run downwards
    }
    assert quarters[axis, True] > quarters[axis, False] + 100


def test_curves_are_moving_averages_that_stand_at_their_last_value() -> None:
    axes, values = axes_of(), torch.randn(20, dtype=torch.double)
    plots.curves(axes, xlabel="step", ylabel="loss", smooth=4, generator_loss=values, zero=[0.0] * 4)
    line, zero = axes.lines
    np.testing.assert_allclose(line.get_ydata(), np.convolve(values, np.ones(4) / 4, mode="valid"))
    assert line.get_xdata().tolist() == list(range(3, 20))
    assert (zero.get_xdata().tolist(), zero.get_ydata().tolist()) == ([3], [0.0])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("step", "loss")


def test_curves_are_not_smoothed_unless_asked() -> None:
    axes, values = axes_of(), torch.randn(7, dtype=torch.double, requires_grad=True)
    plots.curves(axes, xlabel="step", ylabel="loss", loss=values)
    assert axes.lines[0].get_ydata().tolist() == values.tolist()
    assert axes.lines[0].get_xdata().tolist() == list(range(7))


def test_curves_are_told_apart_without_colour() -> None:
    axes = axes_of()
    plots.curves(axes, xlabel="step", ylabel="loss", **{f"series_{i}": [0.0, i] for i in range(5)})
    assert len({line._unscaled_dash_pattern for line in axes.lines}) == 5
    assert len({line.get_color() for line in axes.lines}) == 5
    legend = axes.get_legend()
    assert [name.get_text() for name in legend.get_texts()] == [f"series {i}" for i in range(5)]
    assert not legend.get_frame_on()


def test_curves_that_cannot_be_drawn_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^series: found 6; expected at most 5, one for each line style\.$"):
        plots.curves(axes_of(), xlabel="", ylabel="", **{f"series_{i}": [0.0] for i in range(6)})
    with pytest.raises(ValueError, match=r"^loss: found 3 values; expected at least smooth=4\.$"):
        plots.curves(axes_of(), xlabel="", ylabel="", smooth=4, loss=[0.0] * 3)


def test_png_is_a_picture_on_white() -> None:
    figure = bar(0.5)
    figure.set_facecolor("black")
    drawn = pixels(plots.png(figure))
    assert drawn.shape == (120, 120, 3)  # 0.8 inches at 150 dots an inch
    assert (drawn[[0, 0, -1, -1], [0, -1, 0, -1]] == 255).all()
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) <= 256
    bar_colour = np.multiply(to_rgb(plots.COLOURS[0]), 255)
    assert np.abs(drawn - bar_colour).sum(axis=2).min() < 10


def test_png_keeps_the_colours_of_small_things() -> None:
    """Twelve colours on six pixels each, on a ground of sixty thousand other colours."""
    colours = np.array([to_rgb(name) for name in (*plots.COLOURS, "red", "yellow", "green", "blue", "purple")])
    generator = torch.Generator().manual_seed(0)
    picture = 0.5 * torch.rand(1, 1, 256, 256, generator=generator) + 0.2 * torch.rand(
        1, 3, 256, 256, generator=generator
    )
    for i, colour in enumerate(torch.tensor(colours)):
        picture[0, :, 20 * i : 20 * i + 2, 100:103] = colour[:, None, None]
    axes = axes_of((3.0, 3.0))
    plots.images(axes, 2 * picture - 1, columns=1)
    drawn = pixels(plots.png(axes.figure)).reshape(-1, 3)
    for colour in 255 * colours:
        assert np.abs(drawn - colour).max(axis=1).min() <= 12


class Page(HTMLParser):
    """The tags, scripts and visible text of a piece of HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.script, self.text = "", ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.script += data
        else:
            self.text += data

    def only(self, name: str) -> dict:
        (found,) = [attributes for tag, attributes in self.tags if tag == name]
        return found

    def constant(self, name: str) -> list[str]:
        """A list that the script holds as JSON."""
        return json.JSONDecoder().raw_decode(self.script, re.search(rf"\b{name} = (?=\[)", self.script).end())[0]


def decode(source: str) -> bytes:
    return base64.b64decode(source.removeprefix("data:image/png;base64,"), validate=True)


def show(**texts: str) -> None:
    plots.show(bar(0.5), **texts)


def film(**texts: str) -> None:
    plots.film([bar(0.5)], labels=["step 1"], **texts)


def sliders(**texts: str) -> None:
    plots.sliders(bar, height=(0.0, 1.0, 0.5), **texts)


EVERY_DISPLAY = pytest.mark.parametrize("display", [show, film, sliders])


@EVERY_DISPLAY
@pytest.mark.parametrize("tier", ["quick", "full"])
def test_every_figure_says_what_it_shows_and_which_tier_made_it(
    displayed: list[dict], monkeypatch: pytest.MonkeyPatch, display: Callable, tier: str
) -> None:
    monkeypatch.setenv("MMGAN_TIER", tier)
    display(alt=NASTY, caption=f"Caption: {NASTY}")
    (output,) = displayed
    caption = f"Caption: {NASTY} ({tier} tier)"
    assert output["metadata"] == {"mmgan": {"alt": NASTY, "caption": caption}}
    assert output["data"]["text/plain"] == f"[Figure: {NASTY}]"
    if display is not sliders:
        page = Page(output["data"]["text/html"])
        assert page.only("img")["alt"] == NASTY
        assert caption in page.text
        assert {tag for tag, _ in page.tags} <= {"img", "p", "em", "div", "button", "input", "output", "script"}
        assert len(re.findall("<script", output["data"]["text/html"])) == (display is film)


@pytest.mark.parametrize(("recorded", "tier"), [(True, ""), (False, " (quick tier)")])
def test_what_was_recorded_is_not_said_to_be_of_this_tier(displayed: list[dict], recorded: bool, tier: str) -> None:
    figure, _ = plots.panels()
    plots.show(figure, alt="A bar.", caption="Recorded: 400 samples.", recorded=recorded)
    assert displayed[0]["metadata"]["mmgan"]["caption"] == f"Recorded: 400 samples.{tier}"


@EVERY_DISPLAY
@pytest.mark.parametrize("name", ["alt", "caption"])
@pytest.mark.parametrize("nothing", ["", " \n"])
def test_a_figure_that_says_nothing_is_refused(displayed: list, display: Callable, name: str, nothing: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} is empty; expected a sentence that says what the figure shows"):
        display(**{"alt": "A bar.", "caption": "A bar.", name: nothing})
    assert displayed == []


def test_show_gives_one_picture_to_page_and_print(displayed: list[dict]) -> None:
    plots.show(bar(0.25), alt="A bar.", caption="A bar.")
    data = displayed[0]["data"]
    assert data.keys() == {"image/png", "text/html", "text/plain"}
    assert base64.b64decode(data["image/png"]) == decode(Page(data["text/html"]).only("img")["src"])
    assert (pixels(base64.b64decode(data["image/png"])) == pixels(plots.png(bar(0.25)))).all()


def test_a_film_has_a_frame_for_each_figure_and_its_still_is_the_last(displayed: list[dict]) -> None:
    heights, labels = (0.2, 0.5, 0.8), ["step 0", "step 10", NASTY]
    plots.film([bar(height) for height in heights], labels=labels, alt="A bar.", caption="It grows.")
    assert displayed[0]["data"].keys() == {"text/html", "text/plain"}
    page = Page(displayed[0]["data"]["text/html"])
    frames = page.constant("frames")
    assert [decode(frame) for frame in frames] == [plots.png(bar(height)) for height in heights]
    assert page.only("img")["src"] == frames[-1]
    assert page.constant("labels") == labels
    assert NASTY in page.text
    assert page.only("input").items() >= {"min": "0", "max": "2", "value": "2"}.items()


def test_two_films_on_a_page_do_not_share_a_name(displayed: list[dict]) -> None:
    film(alt="A bar.", caption="One."), film(alt="A bar.", caption="Two.")
    names = [Page(output["data"]["text/html"]).tags[0][1]["id"] for output in displayed]
    assert len(set(names)) == 2
    for name, output in zip(names, displayed, strict=True):
        assert f'getElementById("{name}")' in output["data"]["text/html"]


@pytest.mark.parametrize(("frames", "labels"), [(2, 1), (1, 2), (0, 0)])
def test_labels_that_do_not_match_the_frames_are_refused(displayed: list[dict], frames: int, labels: int) -> None:
    with pytest.raises(ValueError, match=rf"^labels: found {labels} for {frames} frames; expected one for each"):
        plots.film([bar(0.5)] * frames, labels=["step"] * labels, alt="A bar.", caption="It grows.")
    assert displayed == []


@pytest.fixture
def widgets() -> Iterator[list]:
    """Every widget, as it is made."""
    made: list[ipywidgets.Widget] = []
    ipywidgets.Widget.on_widget_constructed(made.append)
    yield made
    ipywidgets.Widget.on_widget_constructed(None)


def test_sliders_draw_again_with_the_values_of_their_knobs(displayed: list[dict], widgets: list) -> None:
    drawn = []

    def draw(height: float, other: float) -> Figure:
        drawn.append((height, other))
        return bar(height)

    plots.sliders(draw, height=(0.0, 1.0, 0.5), other=(-2.0, 2.0, 1.0), alt="A bar.", caption="It moves.")
    (output,) = displayed
    assert output["data"].keys() == {"application/vnd.jupyter.widget-view+json", "image/png", "text/plain"}

    knobs = {widget.description: widget for widget in widgets if isinstance(widget, ipywidgets.FloatSlider)}
    (picture,) = (widget for widget in widgets if isinstance(widget, ipywidgets.Image))
    (box,) = (widget for widget in widgets if isinstance(widget, ipywidgets.VBox))
    assert box.children == (*knobs.values(), picture)
    assert output["data"]["application/vnd.jupyter.widget-view+json"]["model_id"] == box.model_id
    assert {name: (knob.min, knob.max, knob.value) for name, knob in knobs.items()} == {
        "height": (0.0, 1.0, 0.5),
        "other": (-2.0, 2.0, 1.0),
    }
    assert picture.value == base64.b64decode(output["data"]["image/png"]) == plots.png(bar(0.5))

    knobs["height"].value = 0.9
    assert picture.value == plots.png(bar(0.9)) != plots.png(bar(0.5))
    knobs["other"].value = -1.0
    assert drawn == [(0.5, 1.0), (0.9, 1.0), (0.9, -1.0)]


def test_a_first_value_outside_its_range_is_refused(displayed: list[dict]) -> None:
    with pytest.raises(
        ValueError, match=r"^height: found \(0, 0\.5, 1\); expected \(lowest, highest, first value\)\.$"
    ):
        plots.sliders(bar, height=(0, 0.5, 1), alt="A bar.", caption="It moves.")
    assert displayed == []


@pytest.fixture
def cinema(browser, displayed: list[dict]) -> Iterator:
    """A page that shows a film of three frames, with a clock that the test turns; no fault is told by its end."""
    labels = ["step 0", "step 10", NASTY]
    plots.film([bar(height) for height in (0.2, 0.5, 0.8)], labels=labels, alt="A bar.", caption="It grows.")
    html, faults = displayed[0]["data"]["text/html"], []
    context = browser.new_context()
    page = context.new_page()
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: (faults.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.clock.install()
    page.set_content(html)
    frames = Page(html).constant("frames")

    def seen() -> int:
        """The frame on the screen, once its label and the slider are found to say the same."""
        frame = frames.index(page.locator("img").get_attribute("src"))
        assert page.locator("output").text_content() == labels[frame]
        assert page.get_by_role("slider").input_value() == str(frame)
        return frame

    yield page, seen
    context.close()
    assert faults == []


def test_a_film_plays_from_the_start_to_its_end(cinema: tuple) -> None:
    page, seen = cinema
    button = page.get_by_role("button")
    assert (seen(), button.text_content(), button.get_attribute("aria-label")) == (2, "▶", "Play the film")
    button.click()
    assert (seen(), button.text_content(), button.get_attribute("aria-label")) == (0, "❚❚", "Pause the film")
    page.clock.run_for(260)
    assert (seen(), button.text_content()) == (1, "❚❚")
    page.clock.run_for(260)
    assert (seen(), button.text_content(), button.get_attribute("aria-label")) == (2, "▶", "Play the film")
    page.clock.run_for(2000)
    assert seen() == 2


def test_a_film_pauses_where_it_is_and_goes_on_from_there(cinema: tuple) -> None:
    page, seen = cinema
    button = page.get_by_role("button")
    button.click()
    page.clock.run_for(260)
    button.click()
    page.clock.run_for(2000)
    assert (seen(), button.text_content()) == (1, "▶")
    button.click()
    page.clock.run_for(260)
    assert seen() == 2


def test_a_film_is_scrubbed_with_pointer_and_keys(cinema: tuple) -> None:
    page, seen = cinema
    slider = page.get_by_role("slider", name="Frame of the film")
    slider.click(position={"x": 3, "y": 5})
    assert seen() == 0
    slider.press("ArrowRight")
    assert seen() == 1
    slider.press("End")
    assert seen() == 2
    slider.press("ArrowLeft")
    assert seen() == 1
    page.get_by_role("button").click()
    slider.press("Home")  # whoever scrubs has stopped the film
    page.clock.run_for(2000)
    assert seen() == 0
