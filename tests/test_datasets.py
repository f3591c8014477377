"""Batch, Loader, the toy mixtures and the digits."""

import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from mmgan_lib.datasets import (
    Batch,
    DataUnavailable,
    Loader,
    Recordings,
    Shapes,
    SpokenDigits,
    gaussian_grid,
    gaussian_ring,
)
from mmgan_lib.datasets import digits as digits_module
from mmgan_lib.datasets.digits import WORDS, people_can_be_had
from mmgan_lib.datasets.loader import _fits


def real_data() -> Path:
    for folder in (os.environ.get("MMGAN_DATA"), Path(__file__).parents[2] / "shared/data"):
        if folder and (Path(folder) / "fsdd/recordings").is_dir():
            return Path(folder)
    pytest.skip("neither MMGAN_DATA nor ../shared/data holds MNIST and FSDD")


def numbered(n: int) -> Batch:
    """n samples whose every field tells which sample it is."""
    i = torch.arange(n)
    return Batch(
        image=i.view(n, 1, 1, 1).float(), label=i, text=tuple(str(k) for k in range(n)), present=i[:, None] > 2
    )


def told(batch: Batch) -> list[int]:
    """Which samples a batch holds, after a check that all of its fields agree on it."""
    labels = batch.label.tolist()
    assert batch.image.flatten().tolist() == labels
    assert [int(word) for word in batch.text] == labels
    assert batch.present[:, 0].tolist() == [k > 2 for k in labels]
    return labels


class TestBatch:
    @pytest.mark.parametrize(
        ("index", "expected"),
        [
            (3, [3]),
            (-1, [5]),
            (slice(1, 4), [1, 2, 3]),
            (slice(None, None, 2), [0, 2, 4]),
            ([4, 0, 4], [4, 0, 4]),
            (torch.tensor([5, 1]), [5, 1]),
            (torch.tensor(2), [2]),
            (torch.tensor([True, False, False, True, False, True]), [0, 3, 5]),
            ([False, True, False, False, False, False], [1]),
            ([], []),
        ],
    )
    def test_every_field_is_indexed_alike(self, index, expected):
        chosen = numbered(6)[index]
        assert told(chosen) == expected
        assert len(chosen) == len(expected)
        assert chosen.waveform is None

    def test_iterates_over_batches_of_one(self):
        assert [told(one) for one in numbered(3)] == [[0], [1], [2]]

    @pytest.mark.parametrize("index", [6, -7, [0, 6], torch.tensor([6])])
    def test_refuses_a_sample_that_is_not_there(self, index):
        with pytest.raises(IndexError, match="out of"):
            numbered(6)[index]

    def test_refuses_a_mask_of_another_length(self):
        with pytest.raises(IndexError, match=r"shape \(6,\), found \(5,\)"):
            numbered(6)[torch.ones(5, dtype=torch.bool)]

    def test_refuses_fields_of_different_lengths_by_name(self):
        with pytest.raises(ValueError, match="image has 2, label has 3, text has 1"):
            Batch(image=torch.zeros(2, 1, 4, 4), label=torch.zeros(3, dtype=torch.int64), text=("one",))

    def test_refuses_one_text_for_all(self):
        with pytest.raises(ValueError, match=r"^text: found a str; expected a tensor, or a list of strings"):
            Batch(text="one", label=torch.arange(3))

    @pytest.mark.parametrize(("field", "kind"), [("image", "ndarray"), ("label", "list"), ("present", "list")])
    def test_refuses_what_is_no_tensor(self, field, kind):
        value = getattr(numbered(3), field)
        value = value.numpy() if kind == "ndarray" else value.tolist()
        with pytest.raises(ValueError, match=rf"^{field}: found a {kind}; expected a tensor, or a list of strings"):
            Batch(**{field: value, "text": ("a", "b", "c")})

    def test_refuses_to_be_empty_of_fields(self):
        with pytest.raises(ValueError, match="found no field"):
            Batch()

    def test_moves_whole(self):
        moved = numbered(4).to("meta")
        assert {moved.image.device.type, moved.label.device.type, moved.present.device.type} == {"meta"}
        assert moved.device.type == "meta"
        assert moved.text == ("0", "1", "2", "3")

    def test_text_alone_is_a_batch(self):
        batch = Batch(text=("a", "b", "c"))
        assert batch[torch.tensor([2, 0])].text == ("c", "a")
        assert (batch.device.type, batch.nbytes) == ("cpu", 0)

    def test_nbytes_counts_every_tensor(self):
        assert numbered(6).nbytes == 6 * (4 + 8 + 1)

    def test_a_field_may_have_any_name(self):
        batch = Batch(label=torch.arange(3), depth=torch.arange(3.0), speaker=["ann", "bob", "cy"])
        assert batch[[2, 1]].depth.tolist() == [2.0, 1.0]
        assert batch[[2, 1]].speaker == ("cy", "bob")
        assert batch.to("meta").depth.device.type == "meta"
        with pytest.raises(ValueError, match="depth has 2"):
            Batch(label=torch.arange(3), depth=torch.zeros(2))
        assert batch.image is None
        with pytest.raises(AttributeError, match=r"^This batch has no dept; it has label, depth, speaker\.$"):
            batch.dept  # noqa: B018

    def test_a_changed_copy_leaves_the_batch_as_it_was(self):
        batch = Batch(label=torch.arange(3), depth=torch.zeros(3))
        changed = batch.replace(depth=torch.ones(3), label=None, text=("a", "b", "c"))
        assert (changed.depth.tolist(), changed.label, changed.text) == ([1.0] * 3, None, ("a", "b", "c"))
        assert (batch.depth.tolist(), batch.label.tolist(), batch.text) == ([0.0] * 3, [0, 1, 2], None)
        with pytest.raises(AttributeError, match=r"^A Batch stays as it is; batch\.replace\(label=…\) gives"):
            batch.label = torch.zeros(3)

    def test_a_batch_survives_pickling_and_copying(self):
        for copied in (pickle.loads(pickle.dumps(numbered(4))), copy.deepcopy(numbered(4))):
            assert told(copied) == [0, 1, 2, 3]


class TestLoader:
    def test_an_epoch_holds_each_sample_at_most_once(self):
        loader = Loader(numbered(23), 5)
        assert len(loader) == 4
        seen = [k for batch in loader.epoch(3) for k in told(batch)]
        assert len(seen) == len(set(seen)) == 20

    def test_training_resumed_at_any_step_sees_the_same_batches(self):
        whole = Loader(numbered(23), 5, seed=9)
        uninterrupted = [told(whole.batch(step)) for step in range(30)]
        for start in (1, 4, 17):
            resumed = Loader(numbered(23), 5, seed=9)
            assert [told(resumed.batch(step)) for step in range(start, 30)] == uninterrupted[start:]
        assert [told(whole.batch(step)) for step in (29, 3, 11)] == [uninterrupted[step] for step in (29, 3, 11)]

    def test_epochs_are_the_steps_in_order(self):
        loader = Loader(numbered(12), 4, seed=2)
        assert [told(b) for e in range(3) for b in loader.epoch(e)] == [told(loader.batch(step)) for step in range(9)]

    def test_each_pass_is_the_next_epoch(self):
        loader = Loader(numbered(12), 4, seed=2)
        passes = [[told(batch) for batch in loader] for _ in range(3)]
        assert passes == [[told(batch) for batch in loader.epoch(number)] for number in range(3)]
        assert passes[0] != passes[1]

    def test_a_last_smaller_batch_is_a_choice_in_either_order(self):
        for shuffle in (True, False):
            whole = Loader(numbered(7), 3, shuffle=shuffle, drop_last=False)
            assert sorted(k for batch in whole for k in told(batch)) == list(range(7))
            assert [len(batch) for batch in whole] == [3, 3, 1]
            assert [len(batch) for batch in Loader(numbered(7), 3, shuffle=shuffle, drop_last=True)] == [3, 3]
        assert len(Loader(numbered(2), 100, drop_last=False).batch(0)) == 2

    def test_every_epoch_and_every_seed_has_an_order_of_its_own(self):
        orders = {tuple(Loader(torch.arange(50), 50, seed=s).batch(e).tolist()) for s in range(5) for e in range(5)}
        assert len(orders) == 25

    def test_shuffled_epochs_are_uniform(self):
        """Over E epochs sample k comes first E/N times; six standard deviations of the binomial are allowed."""
        n, epochs = 5, 2000
        loader = Loader(torch.arange(n), n)
        first = Counter(loader.batch(epoch)[0].item() for epoch in range(epochs))
        allowed = 6 * (epochs * (1 / n) * (1 - 1 / n)) ** 0.5
        assert all(abs(first[k] - epochs / n) < allowed for k in range(n))

    def test_unshuffled_keeps_order_and_the_last_batch(self):
        loader = Loader(numbered(7), 3, shuffle=False)
        assert [told(batch) for batch in loader] == [[0, 1, 2], [3, 4, 5], [6]]
        assert len(loader) == 3
        assert [told(batch) for batch in Loader(numbered(2), 100, shuffle=False)] == [[0, 1]]

    def test_draws_rows_of_a_tensor(self):
        points = torch.randn(10, 2, generator=torch.Generator().manual_seed(0))
        drawn = torch.cat(list(Loader(points, 5)))
        assert sorted(drawn.tolist()) == sorted(points.tolist())

    @pytest.mark.parametrize("batch_size", [0, -1, 8])
    def test_refuses_a_batch_that_cannot_be_filled(self, batch_size):
        with pytest.raises(ValueError, match=f"between 1 and the 7 samples there are, found {batch_size}"):
            Loader(numbered(7), batch_size)

    def test_refuses_steps_and_seeds_below_zero(self):
        with pytest.raises(ValueError, match="step is -1; expected 0 or more"):
            Loader(numbered(7), 2).batch(-1)
        with pytest.raises(ValueError, match="seed is -1; expected 0 or more"):
            Loader(numbered(7), 2, seed=-1)

    def test_refuses_no_data(self):
        with pytest.raises(ValueError, match="0 samples"):
            Loader(torch.zeros(0, 2), 1, shuffle=False)

    @pytest.mark.parametrize("workers", [0, 1])
    @pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
    def test_samples_that_come_one_by_one_are_joined(self, workers):
        pairs = [(torch.full((1, 2, 2), float(i)), i) for i in range(10)]
        dicts = [{"image": image, "label": label, "text": str(label)} for image, label in pairs]
        expected = Loader(torch.arange(10), 4, seed=3).batch(2).tolist()
        tensors = [image for image, _ in pairs]
        for data in (pairs, dicts, TensorDataset(torch.stack(tensors), torch.arange(10)), MapStyle(pairs)):
            batch = Loader(data, 4, seed=3, workers=workers).batch(2)
            assert batch.label.tolist() == expected
            assert batch.image[:, 0, 0, 0].tolist() == expected
        assert Loader(dicts, 4, seed=3, workers=workers).batch(2).text == tuple(map(str, expected))
        assert Loader(tensors, 4, seed=3, workers=workers).batch(2)[:, 0, 0, 0].tolist() == expected
        renamed = Loader(pairs, 4, seed=3, fields=("depth", "row"), workers=workers).batch(2)
        assert renamed.row.tolist() == expected

    def test_refuses_samples_that_cannot_be_joined(self):
        with pytest.raises(ValueError, match=r"^data: its samples cannot be joined into a batch \(.*object"):
            Loader([object(), object()], 2).batch(0)
        with pytest.raises(ValueError, match=r"^data: its samples cannot be joined into a batch \(stack expects each"):
            Loader([torch.zeros(2), torch.zeros(3)], 2).batch(0)
        with pytest.raises(ValueError, match=r"^data: found samples of 3 parts; expected 2, as fields\.$"):
            Loader([(0, 1, 2)] * 4, 2).batch(0)

    def test_data_stays_where_it_is_unless_told(self):
        data = Batch(label=torch.arange(6)).to("meta")
        assert Loader(data, 2).batch(0).device.type == "meta"

    def test_data_moves_once_and_batches_come_from_there(self):
        loader = Loader(torch.arange(6.0), 2, device="meta")
        assert loader.data.device.type == "meta"
        assert loader.batch(1).device.type == "meta"

    def test_what_cannot_move_whole_is_moved_batch_by_batch(self):
        shapes = Shapes(20)
        loader = Loader(shapes, 4, device="meta")
        assert loader.data is shapes
        assert loader.batch(0).waveform.device.type == "meta"

    def test_a_gpu_holds_what_takes_less_than_half_of_its_free_memory(self, monkeypatch):
        data, gpu = torch.zeros(25, dtype=torch.float32), torch.device("cuda")
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (200, 1000))
        assert not _fits(data, gpu)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (202, 1000))
        assert _fits(data, gpu)

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    def test_drawing_on_a_gpu_never_waits_for_it(self):
        loader = Loader(Batch(image=torch.zeros(64, 1, 4, 4), label=torch.arange(64)), 16, device="cuda")
        loader.batch(0)
        torch.cuda.set_sync_debug_mode("error")
        try:
            batches = [loader.batch(step) for step in range(1, 4)]
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert all(batch.device.type == "cuda" for batch in batches)


class MapStyle:
    """Data of somebody who knows nothing of this library."""

    def __init__(self, samples: list) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, i: int) -> tuple:
        return self.samples[i]


class Numbers:
    """Data that must be fetched: the numbers below ten, of which 7 cannot be had when `broken`."""

    def __init__(self, broken: bool = False) -> None:
        self.broken = broken

    def __len__(self) -> int:
        return 10

    def __getitem__(self, i: int) -> Tensor:
        if self.broken and i == 7:
            raise ValueError("the number 7 is missing.")
        return torch.arange(10)[i]


# From Python 3.12 on, a fork in a process with several threads warns; PyTorch's workers are such forks on Linux.
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
class TestLoaderWorkers:
    def test_the_batches_are_the_same_in_any_order_of_steps(self):
        alone, helped = (Loader(Numbers(), 3, seed=2, workers=workers) for workers in (0, 2))
        for step in (0, 1, 2, 3, 4, 9, 10, 2, 2):  # three batches an epoch
            assert torch.equal(helped.batch(step), alone.batch(step))

    def test_unshuffled_passes_are_the_same(self):
        loader = Loader(Numbers(), 4, shuffle=False, workers=1)
        for _ in range(2):
            assert [batch.tolist() for batch in loader] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]

    def test_samples_keep_all_their_modalities(self):
        shapes = Shapes(12)
        alone, helped = Loader(shapes, 4).batch(1), Loader(shapes, 4, workers=1).batch(1)
        assert torch.equal(alone.waveform, helped.waveform)
        assert torch.equal(alone.image, helped.image)
        assert alone.text == helped.text

    def test_the_random_numbers_of_training_are_left_alone(self):
        before = torch.get_rng_state()
        loader = Loader(Numbers(), 3, workers=1)
        loader.batch(0)
        loader.batch(5)
        assert torch.equal(torch.get_rng_state(), before)

    def test_a_refusal_is_one_sentence_and_the_other_steps_go_on(self):
        loader = Loader(Numbers(broken=True), 3, shuffle=False, workers=1)
        assert loader.batch(1).tolist() == [3, 4, 5]
        for _ in range(2):
            with pytest.raises(ValueError, match=r"^the number 7 is missing\.$"):
                loader.batch(2)
        assert loader.batch(3).tolist() == [9]

    def test_steps_that_follow_each_other_keep_their_workers(self):
        loader = Loader(Numbers(), 3, workers=1)
        pids = []
        for step in (0, 1, 2, 3, 0):
            loader.batch(step)
            pids.append([process.pid for process in multiprocessing.active_children()])
        assert pids[0] == pids[1] == pids[2] == pids[3] != pids[4]
        assert {len(each) for each in pids} == {1}

    def test_workers_end_with_their_loader(self):
        loader = Loader(Numbers(), 3, workers=2)
        loader.batch(0)
        assert len(multiprocessing.active_children()) == 2
        del loader
        assert multiprocessing.active_children() == []

    def test_workers_end_with_the_program(self):
        code = """
import multiprocessing, torch
from mmgan_lib.datasets import Loader, Shapes
loader = Loader(Shapes(12), 3, workers=2)
loader.batch(0)
print(*(process.pid for process in multiprocessing.active_children()))
"""
        one_core = "ignore:This DataLoader will create 2 worker processes"
        command = [sys.executable, "-W", one_core, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        pids = done.stdout.split()
        assert len(pids) == 2
        for pid in pids:
            with pytest.raises(ProcessLookupError):
                os.kill(int(pid), 0)

    @pytest.mark.parametrize(("data", "workers"), [(Numbers(), -1), (torch.arange(10), 2), (numbered(10), 1)])
    def test_refuses_workers_with_nothing_to_read(self, data, workers):
        with pytest.raises(ValueError, match=f"positive for data that reads files, else 0, found {workers}"):
            Loader(data, 3, workers=workers)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class TestToy:
    def test_the_ring_of_the_literature(self):
        ring = gaussian_ring(10, generator=seeded(0))
        assert ring.points.dtype == ring.centres.dtype == torch.float32
        assert ring.std == 0.01
        half = 0.5**0.5
        expected = [[1, 0], [half, half], [0, 1], [-half, half], [-1, 0], [-half, -half], [0, -1], [half, -half]]
        torch.testing.assert_close(ring.centres, torch.tensor(expected))

    def test_the_grid_of_the_literature(self):
        grid = gaussian_grid(10, generator=seeded(0))
        assert grid.std == 0.05
        assert {tuple(c) for c in grid.centres.tolist()} == {(x, y) for x in range(-4, 5, 2) for y in range(-4, 5, 2)}

    @pytest.mark.parametrize(
        "make", [lambda n, g: gaussian_ring(n, generator=g), lambda n, g: gaussian_grid(n, generator=g)]
    )
    def test_points_are_round_gaussians_in_equal_numbers(self, make):
        n = 50_000
        points, centres, std = make(n, seeded(3))
        distance, mode = torch.cdist(points, centres).min(dim=1)
        counts = torch.bincount(mode, minlength=len(centres))
        share = n / len(centres)
        assert (counts - share).abs().max() < 6 * share**0.5
        offset = (points - centres[mode]) / std
        assert offset.mean(0).abs().max() < 6 / n**0.5
        torch.testing.assert_close(offset.T.cov(), torch.eye(2), atol=0.04, rtol=0)
        # Of a round Gaussian 1 - exp(-r²/2) lies within r standard deviations: 98.9 % within three.
        assert (distance < 3 * std).float().mean().item() == pytest.approx(0.98889, abs=0.003)

    def test_other_shapes(self):
        assert gaussian_ring(4, modes=3, radius=2.0).centres.norm(dim=1).tolist() == pytest.approx([2.0] * 3)
        assert gaussian_grid(4, side=2, spacing=1.0, std=0.0).centres.abs().unique().tolist() == [0.5]

    def test_the_generator_decides(self):
        first, again, other = (gaussian_ring(100, generator=seeded(s)).points for s in (1, 1, 2))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_refuses_nothing_to_draw(self):
        with pytest.raises(ValueError, match="n is 0; expected at least 1"):
            gaussian_ring(0)
        with pytest.raises(ValueError, match="modes is 0; expected at least 1"):
            gaussian_ring(5, modes=0)
        with pytest.raises(ValueError, match="side is -1; expected at least 1"):
            gaussian_grid(5, side=-1)
        with pytest.raises(ValueError, match="std is -1; expected 0 or more"):
            gaussian_ring(5, std=-1)


@pytest.fixture(scope="module")
def splits() -> tuple[SpokenDigits, SpokenDigits]:
    return SpokenDigits(root=real_data()), SpokenDigits(train=False, root=real_data())


def rows(tensor: Tensor) -> set[bytes]:
    return {row.numpy().tobytes() for row in tensor}


class TestSpokenDigits:
    def test_a_batch_has_every_modality(self, splits):
        batch = splits[1][torch.tensor([3, 14, 15, 9])]
        assert (batch.image.shape, batch.waveform.shape) == ((4, 1, 32, 32), (4, 8000))
        assert (batch.image.dtype, batch.waveform.dtype, batch.label.dtype) == (
            torch.float32,
            torch.float32,
            torch.int64,
        )
        assert batch.text == tuple(WORDS[label] for label in batch.label)

    def test_values_fill_their_range(self, splits):
        for digits in splits:
            batch = digits[:300]
            assert batch.image.min() == -1
            assert batch.image.max() == 1
            assert 0.05 < batch.waveform.abs().amax(dim=1).mean() <= batch.waveform.abs().max() <= 1

    def test_every_kind_of_index(self, splits):
        digits = splits[1]
        expected = digits[torch.tensor([4, 5])]
        mask = torch.zeros(len(digits), dtype=torch.bool)
        mask[[4, 5]] = True
        for index in (slice(4, 6), [4, 5], mask):
            chosen = digits[index]
            assert torch.equal(chosen.waveform, expected.waveform)
            assert torch.equal(chosen.image, expected.image)
        assert torch.equal(digits[5].waveform, expected.waveform[1:])
        with pytest.raises(IndexError):
            digits[len(digits)]

    def test_labels_match_pictures(self, splits):
        """The mean picture of each digit in the training split reads the test split."""
        train, test = (digits.pictures() for digits in splits)
        means = torch.stack([train.image[train.label == digit].mean(0) for digit in range(10)])
        nearest = torch.cdist(test.image.flatten(1), means.flatten(1)).argmin(dim=1)
        assert (nearest == test.label).float().mean() > 0.8

    def test_the_splits_share_no_picture_and_no_sound(self, splits):
        train, test = splits
        assert not rows(train.image) & rows(test.image)
        assert not rows(train.recordings.waveforms) & rows(test.recordings.waveforms)

    def test_loads(self, splits):
        loader = Loader(splits[1], 7, seed=4)
        first = loader.batch(0)
        again = Loader(splits[1], 7, seed=4).batch(0)
        assert torch.equal(first.waveform, again.waveform)
        assert first.text == again.text
        assert len(first) == 7

    def test_the_seed_draws_pictures_and_sounds(self, splits):
        first, again, other = (SpokenDigits(train=False, n=60, seed=s, root=real_data()) for s in (5, 5, 6))
        assert len(first) == len(first.pictures()) == 60
        assert torch.equal(first.image, again.image)
        assert torch.equal(first[:].waveform, again[:].waveform)
        assert not torch.equal(first.image, other.image)
        assert not torch.equal(first[:].waveform, other[:].waveform)
        assert len(rows(first.image) & rows(splits[1].image)) == 60

    @pytest.mark.parametrize("n", [0, 10_001])
    def test_refuses_more_pictures_than_there_are(self, n):
        with pytest.raises(ValueError, match=f"between 1 and the 10000 images of this split, found {n}"):
            SpokenDigits(train=False, n=n, root=real_data())

    def test_official_splits(self, splits):
        train, test = splits
        assert (len(train), len(test)) == (60_000, 10_000)
        assert (len(train.recordings.digits), len(test.recordings.digits)) == (2700, 300)

    def test_each_picture_has_a_recording_of_its_digit_from_its_split(self):
        """Against the files themselves, read with soundfile."""
        import soundfile

        digits = SpokenDigits(train=False, root=real_data(), seed=3)
        says = {}
        for file in (real_data() / "fsdd/recordings").glob("*_[0-4].wav"):
            samples = torch.from_numpy(soundfile.read(file, dtype="float32")[0])[:8000]
            key = torch.nn.functional.pad(samples, (0, 8000 - len(samples))).numpy().tobytes()
            says[key] = (int(file.name[0]), file.stem.split("_")[1])
        index = torch.arange(0, 10_000, 5)
        batch, who = digits[index], [digits.speakers[i] for i in digits.speaker[index]]
        assert [says[waveform.numpy().tobytes()] for waveform in batch.waveform] == list(
            zip(batch.label.tolist(), who, strict=True)
        )
        assert len(rows(batch.waveform)) > 0.95 * len(says) == 285
        assert digits.speakers == ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")

    def test_content_is_pinned(self):
        """The numbers of chapters hang on which picture has which recording."""
        digits = SpokenDigits(train=False, n=100, root=real_data())
        found = sha256()
        for field in (digits[:].image, digits[:].waveform, digits.label):
            found.update(field.numpy().tobytes())
        assert found.hexdigest() == "596e90b27b9407b8342032c2534f632dc921bf6cdb054e2f35cdc812ada10496"

    def test_the_picture_is_framed_not_stretched(self):
        digits = SpokenDigits(train=False, root=real_data())
        raw = (real_data() / "mnist/MNIST/raw/t10k-images-idx3-ubyte").read_bytes()[16 : 16 + 784]
        image = digits.image[0, 0]
        inside = torch.tensor(list(raw)).reshape(28, 28) / 127.5 - 1
        torch.testing.assert_close(image[2:30, 2:30], inside)
        assert (image[[0, 1, 30, 31]] == -1).all()
        assert (image[:, [0, 1, 30, 31]] == -1).all()


class TestVoices:
    """Whose voices they are, where people may or may not be had."""

    @pytest.fixture(autouse=True)
    def people(self, monkeypatch) -> Callable[..., Recordings]:
        """Recordings of two people and of three synthetic voices, and a count of how often people were asked for."""
        asked = []

        def speech(*names: str) -> Recordings:
            pairs = [(digit, name) for digit in range(10) for name in names]
            waveforms = torch.tensor([digit for digit, _ in pairs], dtype=torch.int16)[:, None].expand(-1, 8000)
            return Recordings(waveforms, waveforms[:, 0].long(), tuple(name for _, name in pairs))

        def fsdd(train: bool, root: Path | None) -> Recordings:
            asked.append(root)
            if root is None:
                raise DataUnavailable("no network")
            return speech("eve", "adam")

        pixels, label = torch.zeros(30, 1, 28, 28, dtype=torch.uint8), torch.arange(30) % 10
        monkeypatch.delenv("MMGAN_DATA", raising=False)
        monkeypatch.setattr(digits_module, "mnist", lambda train, root: (pixels, label))
        monkeypatch.setattr(digits_module, "fsdd", fsdd)
        monkeypatch.setattr(digits_module, "synthetic_speech", lambda train: speech("v3", "v1", "v2"))
        people_can_be_had.cache_clear()
        yield asked
        people_can_be_had.cache_clear()

    def test_people_are_preferred(self):
        spoken = SpokenDigits(root="here")
        assert spoken.voices == "2 people (Free Spoken Digit Dataset)"
        assert spoken.speakers == ("adam", "eve")

    def test_synthetic_voices_where_people_cannot_be_had_which_is_tried_once(self, people):
        for train in (True, False):
            spoken = SpokenDigits(train=train)
            assert people == [None] * (not train)  # nothing is tried before a sound is asked for
            assert spoken.voices == "3 synthetic voices (espeak-ng)"
            assert spoken.speakers == ("v1", "v2", "v3")
            assert torch.equal((spoken[:].waveform[:, 0] * 2**15).long(), spoken.label)
        assert people == [None]

    def test_who_speaks_is_known_for_each_picture(self):
        spoken = SpokenDigits()
        assert spoken.speaker.shape == spoken.label.shape
        assert spoken.speaker.unique().tolist() == [0, 1, 2]
        told = [spoken.recordings.speakers[i] for i in spoken.pairing]
        assert [spoken.speakers[i] for i in spoken.speaker] == told

    def test_people_that_are_asked_for_are_people_or_nothing(self, people):
        assert SpokenDigits().voices.startswith("3 synthetic voices")
        for _ in range(2):
            with pytest.raises(DataUnavailable, match="no network"):
                SpokenDigits(voices="people")[0]
        assert people == [None] * 3  # a reader who asks again means it
        assert SpokenDigits(root="here", voices="people").voices.startswith("2 people")

    def test_synthetic_voices_that_are_asked_for_need_no_try(self, people):
        assert SpokenDigits(root="here", voices="synthetic").voices == "3 synthetic voices (espeak-ng)"
        assert people == []

    def test_refuses_other_voices(self):
        with pytest.raises(ValueError, match=r"^voices is 'tones'; expected 'people', 'synthetic' or None\.$"):
            SpokenDigits(voices="tones")


def test_import_costs_no_heavy_package():
    heavy = "{'sklearn', 'pooch', 'requests', 'soundfile', 'transformers', 'ipywidgets'}"
    code = f"import sys, mmgan_lib.datasets; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
