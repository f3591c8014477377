"""Shapes: what its pictures, captions, sounds and clips tell, read from them by other means than they were made by."""

import colorsys
import math
import os
import re
import subprocess
import sys
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mmgan_lib.datasets import Loader, Shapes, shapes_image, shapes_sound
from mmgan_lib.datasets.captions import NOUNS, SYNONYMS, TEMPLATES, UNSEEN_TEMPLATES
from mmgan_lib.datasets.shapes import VOCABULARIES

PICTURE = {"image": ("shape", "colour", "size", "place")}
CONTENT = "eb4d2fd040e2402a1d061ba976164cf66c1d00db6f549ee7acdd54a812181cf7"

WORDS = {
    "circle": "circle|disc|round dot",
    "square": "square|box|four-sided block",
    "triangle": "triangle|three-sided figure|wedge",
    "star": "star|five-pointed star|pentagram",
    "cross": "cross|plus|plus sign",
    "ring": "ring|hoop|doughnut",
    "red": "red|crimson|scarlet",
    "orange": "orange|tangerine|amber",
    "yellow": "yellow|lemon|gold",
    "green": "green|emerald|lime",
    "blue": "blue|azure|cobalt",
    "purple": "purple|violet|plum",
    "pink": "pink|rose|salmon",
    "small": "small|little|tiny",
    "medium": "medium|medium-sized|mid-sized",
    "large": "large|big|huge",
}
SIDES = {"top": "top|upper", "bottom": "bottom|lower", "left": "left", "right": "right", "centre": "centre|middle"}
HUES = {"red": 358, "orange": 30, "yellow": 55, "green": 130, "blue": 225, "purple": 280}  # degrees; pink is a pale red


def words_of(caption: str, vocabulary: dict[str, str]) -> list[str]:
    return [value for value, words in vocabulary.items() if re.search(rf"\b({words})\b", caption)]


def read_caption(caption: str) -> dict[str, str]:
    """What a caption says of each attribute, by a table of words of its own; two values of one would be joined."""
    said = {}
    for name in ("shape", "colour", "size"):
        known = {value: words for value, words in WORDS.items() if value in VOCABULARIES[name]}
        said[name] = " and ".join(words_of(caption, known))
    said["place"] = " ".join(words_of(caption, SIDES))
    return {name: value for name, value in said.items() if value}


def truth(shapes: Shapes, index: int) -> dict[str, str]:
    row = shapes.attributes[index].tolist()
    return {name: shapes.vocabularies[name][value] for name, value in zip(shapes.attribute_names, row, strict=True)}


def column(shapes: Shapes, name: str) -> torch.Tensor:
    return shapes.attributes[:, shapes.attribute_names.index(name)]


def coloured(image: torch.Tensor) -> torch.Tensor:
    """Where pictures (B, 3, H, W) in [-1, 1] are far from grey, which no background is: (B, H, W) bool."""
    return image.amax(1) - image.amin(1) > 0.52


def centroids(mask: torch.Tensor) -> torch.Tensor:
    """(B, 2), x to the right and y downwards in [-1, 1]."""
    grid = (torch.arange(mask.shape[-1]) + 0.5) / mask.shape[-1] * 2 - 1
    weight = mask.float() / mask.sum((1, 2), keepdim=True)
    return torch.stack([(weight * grid).sum((1, 2)), (weight * grid[:, None]).sum((1, 2))], dim=1)


def assert_apart(value: torch.Tensor, group: torch.Tensor) -> None:
    """That a measured value grows with the group, and that no two groups overlap."""
    groups = [value[group == g] for g in range(int(group.max()) + 1)]
    for lower, upper in pairwise(groups):
        assert lower.max() < upper.min()


@pytest.fixture(scope="module")
def pictures() -> tuple[Shapes, torch.Tensor]:
    shapes = Shapes(3000, tells=PICTURE)
    return shapes, shapes[:].image


class TestPictures:
    def test_colour_is_the_hue_of_the_shape(self, pictures):
        shapes, image = pictures
        mask = coloured(image)[:, None]
        mean = ((image / 2 + 0.5) * mask).sum((2, 3)) / mask.sum((2, 3))
        for rgb, value in zip(mean.tolist(), column(shapes, "colour").tolist(), strict=True):
            hue, saturation, _ = colorsys.rgb_to_hsv(*rgb)
            nearest = min(HUES, key=lambda name: abs((360 * hue - HUES[name] + 180) % 360 - 180))
            assert (nearest if saturation > 0.58 else "pink") == VOCABULARIES["colour"][value]

    def test_place_is_where_its_centroid_is(self, pictures):
        shapes, image = pictures
        cell = (centroids(coloured(image)) / 0.46).round().long()
        assert torch.equal(3 * (cell[:, 1] + 1) + cell[:, 0] + 1, column(shapes, "place"))

    def test_size_is_how_much_it_covers(self):
        shapes = Shapes(2000, size=64, tells={"image": ("shape", "colour", "size")})
        area = coloured(shapes[:].image).sum((1, 2))
        for shape in range(6):
            of_it = column(shapes, "shape") == shape
            assert_apart(area[of_it], column(shapes, "size")[of_it])

    def test_shape_is_told_by_its_symmetry_and_filling(self):
        """Order of rotational symmetry from the angular Fourier components; hole and second moment part the rest."""
        shapes = Shapes(500, size=64, tells={"image": ("shape", "colour")})
        mask = coloured(shapes[:].image).double()
        grid = (torch.arange(64) + 0.5) / 32 - 1
        for one, value in zip(mask, column(shapes, "shape").tolist(), strict=True):
            centre = centroids(one[None])[0]
            x, y = (grid - centre[0]).expand(64, 64), (grid - centre[1])[:, None].expand(64, 64)
            radius, angle = torch.hypot(x, y), torch.atan2(y, x)
            weight = one * radius.square()
            spread = (weight.sum() / one.sum() ** 2 * 32**2).item()  # 1/2π for a disc, 1/6 for a square
            order = {k: ((weight * torch.exp(1j * k * angle)).sum().abs() / weight.sum()).item() for k in (3, 4, 5)}
            k = max(order, key=order.get)
            if order[k] < 0.08:
                found = "ring" if one[radius < 0.08].mean() < 0.5 else "circle"
            else:
                found = {3: "triangle", 4: "square" if spread < 0.18 else "cross", 5: "star"}[k]
            assert found == VOCABULARIES["shape"][value], (order, spread)

    @pytest.mark.parametrize(
        ("shape", "unit_area"),
        [
            ("circle", math.pi * 0.95**2),
            ("ring", math.pi * (1 - 0.5**2)),
            ("square", 1.6**2),
            ("cross", 2 * 2 * 0.66 - 0.66**2),
            ("triangle", 3 * math.sqrt(3) * 0.58**2),
            (
                "star",
                10 * math.tan(math.pi / 10) / (3 - math.tan(math.pi / 10) ** 2) * (0.37 / math.cos(0.4 * math.pi)) ** 2,
            ),
        ],
    )
    @pytest.mark.parametrize("size", [0, 1, 2])
    def test_edges_are_smooth_and_areas_are_right(self, shape, unit_area, size):
        told = {"shape": torch.tensor([VOCABULARIES["shape"].index(shape)]), "size": torch.tensor([size])}
        draws = torch.full((1, shapes_image.DRAWS), 0.5)
        draws[:, 3] = 0.8  # turned a little, so that edges lie across the grid of pixels
        painted = shapes_image.paint(draws, torch.zeros(1, 3, 32, 32), told).float()[0, 0]
        covered = (painted - painted.min()) / (painted.max() - painted.min())
        radius = 16 * (0.26, 0.37, 0.52)[size]
        assert covered.sum().item() == pytest.approx(unit_area * radius**2, rel=0.02 if shape == "circle" else 0.08)
        assert ((covered > 0.1) & (covered < 0.9)).sum() >= 8

    def test_the_scene_is_the_same_at_twice_the_size(self):
        small, large = Shapes(200, tells=PICTURE)[:].image, Shapes(200, size=64, tells=PICTURE)[:].image
        assert large.shape == (200, 3, 64, 64)
        assert (F.avg_pool2d(large, 2) - small).abs().mean() < 0.04

    def test_backgrounds_and_noise_vary(self, pictures):
        _, image = pictures
        corners = image[:, :, :4, :4]
        assert corners.mean((2, 3)).std(0).min() > 0.1
        assert (image[:, 0, 0, 0] - image[:, 0, 0, 1]).abs().mean() > 0.01
        assert image.min() >= -1
        assert image.max() <= 1


class TestCaptions:
    @pytest.mark.parametrize("told", [c for k in range(5) for c in combinations(VOCABULARIES, k)])
    def test_tell_exactly_what_they_are_asked_to(self, told):
        shapes = Shapes(1500, tells={"text": told})
        for index, caption in enumerate(shapes.text):
            expected = {name: value for name, value in truth(shapes, index).items() if name in told}
            assert read_caption(caption) == expected, caption

    @pytest.mark.parametrize("told", [(), ("colour",), ("size", "place"), tuple(VOCABULARIES)])
    def test_are_clean_english(self, told):
        for caption in Shapes(1500, tells={"text": told}).text:
            assert not re.search(r"[\[\]{}]|  | [,.;:?]|^\W|[\s,;:]$|\ba [aeiou]|\ban [^aeiou]", caption), caption
            nouns = sum(word in NOUNS for word in re.findall(r"\w+", caption))
            assert nouns == ("shape" not in told), caption

    def test_come_from_at_least_30_templates_and_every_synonym(self):
        """A template is recognised by what is left of a caption when the words that tell something are taken out."""
        words = [word for values in SYNONYMS.values() for known in values.values() for word in known]
        pattern = "|".join(sorted(map(re.escape, words), key=len, reverse=True))
        text = Shapes(5000, tells={"text": ("shape", "colour", "size", "place")}).text
        skeletons = {re.sub(r"\ban\b", "a", re.sub(rf"\b({pattern})\b", "_", caption)) for caption in text}
        assert len(skeletons) == len(set(TEMPLATES)) >= 30
        assert set(re.findall(rf"\b(?:{pattern})\b", " ".join(text))) == set(words)

    def test_words_are_known_for_every_value_and_mean_one_only(self):
        assert {name: tuple(values) for name, values in SYNONYMS.items()} == VOCABULARIES
        words = [word for values in SYNONYMS.values() for known in values.values() for word in known]
        assert len(words) == len(set(words))
        assert not set(words) & set(NOUNS)


def spectrum(waveform: torch.Tensor) -> torch.Tensor:
    """Bins of 2 Hz."""
    return torch.fft.rfft(waveform * torch.hann_window(waveform.shape[-1])).abs()


def fundamental(waveform: torch.Tensor) -> torch.Tensor:
    """The strongest bin between 200 and 700 Hz, (B,), smoothed because beats widen a peak."""
    return F.avg_pool1d(spectrum(waveform)[:, None, 100:350], 9, stride=1, padding=4)[:, 0].argmax(1) + 100


@pytest.fixture(scope="module")
def heard() -> tuple[Shapes, torch.Tensor]:
    shapes = Shapes(3000, tells={"audio": ("shape", "colour", "size", "place")})
    return shapes, shapes[:].waveform


class TestSounds:
    def test_are_half_a_second_at_8_khz_within_full_scale(self, heard):
        _, waveform = heard
        assert (waveform.shape, waveform.dtype) == ((3000, 4000), torch.float32)
        assert 0.4 < waveform.abs().max() < 1
        assert waveform.mean().abs() < 1e-3

    def test_the_loudest_cannot_overflow(self):
        """Bound: the highest point of any table, at the loudest level swollen by 6%, with noise of 0.005."""
        assert shapes_sound._tables().abs().max() * shapes_sound.LEVELS[-1] * 1.06 + 0.005 < 1

    def test_overtones_stay_below_half_the_sample_rate(self):
        assert len(shapes_sound.PARTIALS[0]) * max(shapes_sound.PITCHES) * 1.01 < 4000

    def test_pitch_tells_colour(self, heard):
        shapes, waveform = heard
        assert_apart(fundamental(waveform), column(shapes, "colour"))

    def test_loudness_tells_size(self, heard):
        shapes, waveform = heard
        assert_apart(waveform.square().mean(1), column(shapes, "size"))

    def test_the_number_of_beats_tells_place(self, heard):
        shapes, waveform = heard
        envelope = torch.fft.rfft(waveform.abs()).abs()[:, 1:13]
        assert torch.equal(envelope.argmax(1), column(shapes, "place"))

    def test_timbre_tells_shape(self, heard):
        """Each sound belongs to the shape whose mean profile of partials, over other sounds, is nearest."""
        shapes, waveform = heard
        near = F.max_pool1d(spectrum(waveform)[:, None], 61, stride=1, padding=30)[:, 0]  # within 60 Hz
        profile = torch.stack([near.gather(1, k * fundamental(waveform)[:, None])[:, 0] for k in range(1, 7)], dim=1)
        profile = profile / profile.norm(dim=1, keepdim=True)
        shape = column(shapes, "shape")
        means = torch.stack([profile[:1500][shape[:1500] == k].mean(0) for k in range(6)])
        nearest = torch.cdist(profile[1500:], means).argmin(1)
        assert (nearest == shape[1500:]).float().mean() > 0.99

    def test_an_aspect_can_be_given_to_any_attribute(self):
        shapes = Shapes(600, tells={"audio": {"place": "loudness", "size": "rhythm"}})
        waveform = shapes[:].waveform
        assert_apart(waveform.square().mean(1), column(shapes, "place"))
        beats = torch.fft.rfft(waveform.abs()).abs()[:, 1:13].argmax(1)
        assert_apart(beats, column(shapes, "size"))

    def test_phase_is_random(self, heard):
        """The complex amplitude at the fundamental has no preferred direction: its mean resultant is that of chance."""
        _, waveform = heard
        amplitude = torch.fft.rfft(waveform)[:, 100:350]
        peak = amplitude.gather(1, amplitude.abs().argmax(1, keepdim=True))[:, 0]
        assert (peak / peak.abs()).mean().abs() < 4 / math.sqrt(len(waveform))


class TestTells:
    @pytest.mark.parametrize("name", VOCABULARIES)
    @pytest.mark.parametrize(("modality", "content"), [("image", "pixels"), ("text", "text"), ("audio", "sounds")])
    def test_a_modality_changes_with_what_it_tells_and_with_nothing_else(self, modality, content, name):
        """Another value of one attribute changes every sample where it is told, and not one bit where it is not."""
        others = tuple(other for other in VOCABULARIES if other != name)

        def made(told: tuple[str, ...], *, changed: bool) -> np.ndarray:
            shapes = Shapes(100, tells={modality: told})
            attributes, a = shapes.attributes.clone(), shapes.attribute_names.index(name)
            if changed:
                attributes[:, a] = (attributes[:, a] + 1) % len(VOCABULARIES[name])
            shapes.attributes = attributes
            made = getattr(shapes, content)
            return np.array(made if modality == "text" else made.numpy()).reshape(100, -1)

        assert (made(others, changed=False) == made(others, changed=True)).all()
        assert (made((*others, name), changed=False) != made((*others, name), changed=True)).any(1).all()

    def test_a_picture_that_tells_nothing_shows_a_grey_thing_at_the_centre(self):
        shapes = Shapes(500, tells={"image": ()})
        image = shapes[:].image / 2 + 0.5
        thing = image[:, :, 14:18, 14:18].mean((2, 3))
        assert (thing.amax(1) - thing.amin(1)).max() < 0.13
        assert (thing.mean(1) - 0.65).abs().max() < 0.06
        clear = image[:, :, ::31, ::31].amax((1, 2, 3)) < 0.4  # backgrounds much darker than the thing
        assert clear.sum() > 100
        assert centroids(image[clear].mean(1) > 0.5).abs().max() < 0.07

    def test_what_is_told_does_not_change_the_rest(self):
        every, some = Shapes(50), Shapes(50, tells={"image": ("shape", "colour", "size", "place"), "text": ()})
        assert torch.equal(every.attributes, some.attributes)
        assert torch.equal(every.pixels, some.pixels)

    def test_a_modality_that_is_not_named_is_not_made(self):
        assert repr(Shapes(3, tells={"text": ("size",)})[:]) == "Batch of 3: text, attributes (4,)"
        assert repr(Shapes(3, tells={"audio": {"size"}})[:]) == "Batch of 3: waveform (4000,), attributes (4,)"


class TestDrawing:
    def test_content_is_pinned(self):
        assert Shapes(512, frames=2).content_hash() == CONTENT

    def test_content_is_the_same_with_other_instructions_of_the_processor(self):
        """PyTorch's kernels without vector instructions, on one thread."""
        code = "from mmgan_lib.datasets import Shapes; print(Shapes(512, frames=2).content_hash())"
        plain = os.environ | {"ATEN_CPU_CAPABILITY": "default", "OMP_NUM_THREADS": "1"}
        run = subprocess.run([sys.executable, "-c", code], env=plain, capture_output=True, text=True, check=True)
        assert run.stdout.strip() == CONTENT

    def test_every_part_of_the_content_is_hashed(self):
        def hashed(part: str) -> str:
            shapes = Shapes(10, frames=2)
            if part == "text":
                shapes.text = (*shapes.text[:-1], "a lie")
            elif part:
                changed = getattr(shapes, part).clone()
                changed.flatten()[-1] ^= 1
                setattr(shapes, part, changed)
            return shapes.content_hash()

        assert len({hashed(part) for part in ("", "attributes", "text", "pixels", "sounds", "clips")}) == 6

    def test_a_sample_is_the_same_however_it_is_drawn(self):
        few, many = Shapes(130, frames=2), Shapes(300, frames=2)
        order = torch.randperm(130, generator=torch.Generator().manual_seed(0))
        one, other = few[order], many[:130][order]
        assert one.text == other.text
        for field in ("image", "waveform", "clip", "attributes"):
            assert torch.equal(getattr(one, field), getattr(other, field))

    def test_splits_and_seeds_have_no_sample_in_common(self):
        """Told apart by scene without noise of the pixels, by noise, and by sound: none is ever drawn twice."""
        sets = [Shapes(3000, split=split, seed=seed, frames=0) for seed in (0, 1) for split in ("train", "test")]
        for key in (
            lambda s: s.pixels.flatten(1),
            lambda s: s.sounds,
            lambda s: torch.from_numpy(s._draws("image", shapes_image.DRAWS)),
            lambda s: torch.from_numpy(s._draws("attributes", 1)),
        ):
            seen = [row.tobytes() for shapes in sets for row in key(shapes).numpy()]
            assert len(seen) == len(set(seen)) == 12_000

    def test_a_large_seed_is_no_other_split(self):
        assert Shapes(10, seed=2**32).content_hash() != Shapes(10, split="test").content_hash()

    def test_attributes_are_balanced_and_independent(self):
        """Pearson's chi-squared against equal shares stays within six standard deviations of its mean."""
        shapes = Shapes(20_000, frames=2, tells={"image": ()})
        sizes = [len(values) for values in shapes.vocabularies.values()]
        for pair in combinations(range(5), 2):
            cells = math.prod(sizes[a] for a in pair)
            joint = shapes.attributes[:, pair[0]] * sizes[pair[1]] + shapes.attributes[:, pair[1]]
            count = torch.bincount(joint, minlength=cells)
            expected = len(shapes) / cells
            chi2 = ((count - expected) ** 2 / expected).sum().item()
            assert chi2 < cells - 1 + 6 * math.sqrt(2 * (cells - 1))

    def test_held_out_combinations_are_drawn_there_and_nowhere_else(self):
        held_out = [("red", "circle"), ("star", "large", "top left"), ("small", "purple")]
        for split in ("train", "test", "held_out"):
            shapes = Shapes(4000, split=split, held_out=held_out, tells={})
            kept = [any(set(c) <= set(truth(shapes, i).values()) for c in held_out) for i in range(len(shapes))]
            assert all(kept) if split == "held_out" else not any(kept)
            if split == "train":
                seen = {tuple(row) for row in shapes.attributes.tolist()}
                assert {(row[0], row[2]) for row in seen} == {(s, z) for s in range(6) for z in range(3)}
                assert {row[1] for row in seen} == set(range(7))

    def test_feeds_a_loader(self):
        shapes = Shapes(100)
        loader = Loader(shapes, 32, seed=1)
        batch = loader.batch(4)
        assert repr(batch) == "Batch of 32: image (3, 32, 32), waveform (4000,), text, attributes (4,)"
        again = Loader(Shapes(100)[:], 32, seed=1).batch(4)
        assert torch.equal(batch.image, again.image)
        assert torch.equal(batch.waveform, again.waveform)
        assert (batch.text, batch.attributes.tolist()) == (again.text, again.attributes.tolist())

    @pytest.mark.parametrize("index", [100, [0, 100], -101])
    def test_refuses_a_sample_that_is_not_there(self, index):
        with pytest.raises(IndexError):
            Shapes(100)[index]


class TestClips:
    def test_show_the_motion_about_the_place(self):
        shapes = Shapes(800, frames=5)
        clip = shapes[:].clip
        assert clip.shape == (800, 5, 3, 32, 32)
        inner = (column(shapes, "place") == 4) & (column(shapes, "size") < 2)  # nothing is cut off at the border
        clip, motion = clip[inner], column(shapes, "motion")[inner]
        path = centroids(coloured(clip.flatten(0, 1))).unflatten(0, (-1, 5))
        expected = torch.tensor([[0, 0], [-0.5, 0], [0.5, 0], [0, -0.5], [0, 0.5]])[motion]
        assert len(clip) > 30
        assert (path[:, 4] - path[:, 0] - expected).abs().max() < 0.1
        steps = path.diff(dim=1)
        assert (steps - expected[:, None] / 4).abs().max() < 0.07
        assert (path[:, 2] - centroids(coloured(shapes[:].image[inner]))).abs().max() < 0.07

    def test_motion_is_told_by_the_clip_alone(self):
        shapes, moved = Shapes(60, frames=2), Shapes(60, frames=2)
        moved.attributes = shapes.attributes.clone()
        moved.attributes[:, 4] = (moved.attributes[:, 4] + 1) % 5
        assert torch.equal(shapes.pixels, moved.pixels)
        assert torch.equal(shapes.sounds, moved.sounds)
        assert shapes.text == moved.text
        assert (shapes.clips != moved.clips).flatten(1).any(1).all()

    def test_noise_of_frames_differs(self):
        shapes = Shapes(20, frames=3)
        still = shapes.clips[column(shapes, "motion") == 0]
        assert len(still)
        assert (still[:, 0] != still[:, 1]).flatten(1).any(1).all()


class TestShifts:
    @staticmethod
    def ground(shapes: Shapes) -> torch.Tensor:
        """The pixels of the grounds, (P,)."""
        image = shapes[:].image
        return image.mean(1)[~coloured(image)]

    def test_a_shifted_background_is_bright_and_striped_and_nothing_else_changes(self):
        usual, shifted = Shapes(600, tells=PICTURE), Shapes(600, tells=PICTURE, shifts=("background",))
        dark, bright = (self.ground(shapes).mean() for shapes in (usual, shifted))
        assert dark < -0.4
        assert bright > 0.2
        steps = [(data[:].image[:, :, 0].diff(dim=2).abs().mean()).item() for data in (usual, shifted)]
        assert steps[1] > 1.5 * steps[0]
        clear = coloured(usual[:].image) & coloured(shifted[:].image)
        inner = -F.max_pool2d(-clear.float()[:, None], 3, stride=1, padding=1)[:, 0] > 0  # no pixel of an edge
        before, after = (data.pixels.float().movedim(1, 3)[inner] for data in (usual, shifted))
        assert len(before) > 5000
        assert ((before - after).abs() <= 1).float().mean() > 0.97  # but for the tips of stars
        told = Shapes(100), Shapes(100, shifts=("background",))
        assert told[0].text == told[1].text
        assert torch.equal(told[0].sounds, told[1].sounds)
        assert torch.equal(told[0].attributes, told[1].attributes)

    def test_a_clip_has_the_background_of_its_picture(self):
        shapes = Shapes(50, frames=3, shifts=("background",))
        still = shapes.attributes[:, 4] == 0
        noise = (shapes.clips[still, 0].float() - shapes.pixels[still].float()).abs()
        assert noise.max() <= 2 * 0.05 * 255 + 1

    @pytest.mark.parametrize("told", [(), ("colour",), ("size", "place"), tuple(VOCABULARIES)])
    def test_shifted_wording_tells_the_same_in_clean_english(self, told):
        shapes = Shapes(800, tells={"text": told}, shifts=("wording",))
        for index, caption in enumerate(shapes.text):
            expected = {name: value for name, value in truth(shapes, index).items() if name in told}
            assert read_caption(caption) == expected, caption
            assert not re.search(r"[\[\]{}]|  | [,.;:?]|^\W|[\s,;:]$|\ba [aeiou]|\ban [^aeiou]", caption), caption

    def test_shifted_wording_shares_the_words_that_tell_and_no_sentence(self):
        usual, shifted = (Shapes(3000, tells={"text": tuple(VOCABULARIES)}, shifts=s) for s in ((), ("wording",)))
        assert not set(usual.text) & set(shifted.text)
        assert not set(TEMPLATES) & set(UNSEEN_TEMPLATES)
        told = {word for values in SYNONYMS.values() for known in values.values() for word in known}
        assert all(any(word in caption for caption in shifted.text) for word in told)

    def test_shifts_are_what_a_content_hash_pins_too(self):
        every = [(), ("background",), ("wording",), ("background", "wording")]
        assert len({Shapes(20, shifts=shifts).content_hash() for shifts in every}) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n is 0; expected at least 1"),
        ({"split": "valid"}, "split is 'valid'; expected one of train, test, held_out"),
        ({"seed": -1}, "seed is -1; expected 0 or more"),
        ({"size": 30}, "size is 30; expected a multiple of 4 from 16 pixels on"),
        ({"size": 8}, "size is 8"),
        ({"frames": 1}, "frames is 1; expected 0, for no clips, or at least 2"),
        ({"frames": -2}, "frames is -2"),
        ({"shifts": ("weather",)}, r"shifts is \('weather',\); expected a collection of some of background, wording"),
        ({"shifts": "wording"}, "shifts is 'wording'"),
        ({"frames": 2, "tells": {"text": ()}}, "tells has no 'image'"),
        ({"tells": {"smell": ()}}, "tells names the modality 'smell'; expected some of image, text, audio"),
        ({"tells": {"text": {"color"}}}, r"tells\['text'\] names 'color'; expected some of shape, colour, size, place"),
        ({"tells": {"image": ("motion",)}, "frames": 2}, "names 'motion'"),
        ({"tells": {"audio": {"size": "smell"}}}, "another one of pitch, timbre, loudness, rhythm, found smell"),
        ({"tells": {"audio": {"size": "pitch", "shape": "pitch"}}}, "found pitch, pitch"),
        ({"held_out": [("red", "cube")]}, r"held_out holds \('red', 'cube'\); expected combinations of values out of"),
        ({"held_out": ["red"]}, "held_out holds 'red'"),
        ({"held_out": [()]}, r"held_out holds \(\)"),
        ({"held_out": [("red", "blue")]}, r"held_out holds \('red', 'blue'\), two values of one attribute"),
        ({"split": "held_out"}, "leaves no combination"),
        ({"held_out": [(size,) for size in ("small", "medium", "large")]}, "to the split 'train'"),
    ],
)
def test_refuses_what_cannot_be_drawn(arguments, message):
    with pytest.raises(ValueError, match=message):
        Shapes(**{"n": 10} | arguments)
