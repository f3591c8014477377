"""Downloads against a server on this machine that behaves, lies, breaks off, stalls or has nothing."""

import gzip
import io
import threading
import wave
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mmgan_lib.datasets import DataUnavailable, SpokenDigits, digit_sources
from mmgan_lib.datasets.digit_sources import read_file, read_wavs
from mmgan_lib.datasets.digits import people_can_be_had
from mmgan_lib.datasets.download import fetch, obtain

CONTENT = bytes(range(256)) * 2000
PACKED = gzip.compress(CONTENT, mtime=0)
read = partial(read_file, expected=sha256(CONTENT).hexdigest())

Answer = Callable[[BaseHTTPRequestHandler, bytes], None]


def send(handler: BaseHTTPRequestHandler, body: bytes, length: int) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(length))
    handler.end_headers()
    handler.wfile.write(body)
    handler.wfile.flush()


def good(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    send(handler, body, len(body))


def corrupt(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    middle = len(body) // 2
    good(handler, body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :])


def other(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    good(handler, b"<html>Please log in to this network.</html>")


def cut(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    good(handler, body[: len(body) // 2])


def truncated(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    send(handler, body[: len(body) // 2], len(body))


def missing(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    handler.send_error(404)


def silent(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    handler.server.released.wait(30)


def stalled(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    truncated(handler, body)
    handler.server.released.wait(30)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        answers = self.server.answers
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        body = self.server.files.get(self.path)
        (answer if body is not None else missing)(self, body)

    def log_message(self, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """Serves `files` (path → bytes), each request with the next of `answers`, the last of which stays."""

    daemon_threads = False  # closing waits for every answer, so that no socket outlives a test

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {"/data.gz": PACKED}
        self.answers: list[Answer] = [good]
        self.asked: list[str] = []
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("MMGAN_DATA", raising=False)
    monkeypatch.setattr("pooch.core.time", SimpleNamespace(sleep=lambda seconds: None))  # between two tries
    with Server() as running:
        thread = threading.Thread(target=partial(running.serve_forever, poll_interval=0.02))
        thread.start()
        yield running
        running.released.set()
        running.shutdown()
        thread.join()


def test_downloads_once(server, tmp_path):
    for _ in range(2):
        assert fetch(read, f"{server.url}/data.gz", tmp_path / "new") == CONTENT
    assert server.asked == ["/data.gz"]
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["data.gz"]


def test_shows_a_bar_and_nothing_else(server, tmp_path, capfd):
    server.answers = [missing, good]
    fetch(read, f"{server.url}/data.gz", tmp_path)
    out, err = capfd.readouterr()
    assert "100%" in err
    assert (out, "ownload" in err) == ("", False)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (corrupt, r"not a whole gzip file|its content \(512,000 bytes\) has sha256 \w+, expected \w+"),
        (other, rf"its content \(43 bytes\) has sha256 [0-9a-f]{{64}}, expected {sha256(CONTENT).hexdigest()}"),
        (cut, "not a whole gzip file"),
        (truncated, "no connection, or one that breaks off"),
        (missing, "the server answers 404"),
        (silent, "the server does not answer in time"),
        (stalled, "the server does not answer in time"),
    ],
)
def test_gives_up_in_one_sentence_and_keeps_nothing(server, tmp_path, answer, reason):
    server.answers = [answer]
    said = (
        rf"^{server.url}/data\.gz could not be downloaded \(({reason})\): connect to the network, or set MMGAN_DATA "
        r"to a folder that holds the data\.$"
    )
    with pytest.raises(DataUnavailable, match=said):
        fetch(read, f"{server.url}/data.gz", tmp_path, timeout=0.3)
    assert server.asked == ["/data.gz"] * 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("answer", [corrupt, cut, truncated, missing, silent, stalled])
def test_tries_again_after_a_bad_download(server, tmp_path, answer):
    server.answers = [answer, answer, good]
    assert fetch(read, f"{server.url}/data.gz", tmp_path, timeout=1) == CONTENT
    assert len(server.asked) == 3
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [PACKED]


def test_no_server(server, tmp_path):
    url = f"{server.url}/data.gz"
    server.server_close()
    with pytest.raises(DataUnavailable, match=r"downloaded \(no connection, or one that breaks off\): connect to"):
        fetch(read, url, tmp_path)


def test_an_interrupted_download_leaves_nothing_and_can_be_repeated(server, tmp_path):
    def interrupted(path: Path) -> bytes:
        if path.exists():
            raise KeyboardInterrupt
        return path.read_bytes()

    with pytest.raises(KeyboardInterrupt):
        fetch(interrupted, f"{server.url}/data.gz", tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert fetch(read, f"{server.url}/data.gz", tmp_path) == CONTENT


@pytest.mark.parametrize("damaged", [b"", PACKED[:100], CONTENT[:-1]])
def test_a_damaged_file_in_the_cache_is_downloaded_again(server, tmp_path, damaged):
    (tmp_path / "data.gz").write_bytes(damaged)
    assert fetch(read, f"{server.url}/data.gz", tmp_path) == CONTENT
    assert (tmp_path / "data.gz").read_bytes() == PACKED


def test_what_another_process_downloads_meanwhile_is_kept(server, tmp_path):
    """This one looks before the file is there; by the time it wants to download, the file is."""
    asked = []

    def late(path: Path) -> bytes:
        asked.append(path)
        if len(asked) == 1:
            path.write_bytes(PACKED)
            raise FileNotFoundError(path)
        return read(path)

    assert fetch(late, f"{server.url}/data.gz", tmp_path) == CONTENT
    assert server.asked == []


def test_a_full_disk_is_told_in_one_sentence(server, tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pooch.core.shutil.move", full)
    with pytest.raises(DataUnavailable, match=r"could not be downloaded \(No space left on device\): connect to"):
        fetch(read, f"{server.url}/data.gz", tmp_path)
    assert list(tmp_path.iterdir()) == []


class TestFolder:
    """The reader's own folder, where nothing is downloaded, repaired or deleted."""

    def find(self, root: Path | None) -> bytes:
        return obtain(read, local="set/data", url="http://127.0.0.1:9/data.gz", root=root)

    def test_is_read(self, tmp_path, monkeypatch):
        (tmp_path / "set").mkdir()
        (tmp_path / "set/data").write_bytes(CONTENT)
        assert self.find(tmp_path) == CONTENT
        monkeypatch.setenv("HOME", str(tmp_path))
        assert self.find("~") == CONTENT
        monkeypatch.setenv("MMGAN_DATA", str(tmp_path))
        assert self.find(None) == CONTENT

    def test_the_argument_goes_before_the_environment(self, tmp_path, monkeypatch):
        (tmp_path / "set").mkdir()
        (tmp_path / "set/data").write_bytes(CONTENT)
        monkeypatch.setenv("MMGAN_DATA", str(tmp_path / "elsewhere"))
        assert self.find(tmp_path) == CONTENT

    def test_a_missing_file_is_named(self, tmp_path, monkeypatch):
        monkeypatch.setenv("MMGAN_DATA", str(tmp_path))
        (tmp_path / "set").mkdir()
        with pytest.raises(
            FileNotFoundError, match=rf"^{tmp_path}/set/data does not exist: {tmp_path}/set was expected"
        ):
            self.find(None)

    def test_a_folder_that_does_not_exist_is_named(self, tmp_path, monkeypatch):
        monkeypatch.setenv("MMGAN_DATA", str(tmp_path / "typo"))
        with pytest.raises(FileNotFoundError, match=rf"^{tmp_path}/typo does not exist; expected the data folder"):
            self.find(None)

    def test_what_it_does_not_hold_at_all_is_downloaded(self, server, tmp_path, monkeypatch):
        monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / project)
        found = obtain(read, local="set/data", url=f"{server.url}/data.gz", root=tmp_path)
        assert (found, server.asked) == (CONTENT, ["/data.gz"])

    @pytest.mark.parametrize("damaged", [b"", CONTENT[:-1], CONTENT[:-1] + b"x"])
    def test_a_damaged_file_is_named_and_left_alone(self, tmp_path, damaged):
        (tmp_path / "set").mkdir()
        (tmp_path / "set/data").write_bytes(damaged)
        expected = rf"{tmp_path}/set/data: its content \({len(damaged):,} bytes\) has sha256 .*, expected"
        with pytest.raises(ValueError, match=expected):
            self.find(tmp_path)
        assert (tmp_path / "set/data").read_bytes() == damaged


def wav(value: int, samples: int) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as recording:
        recording.setnchannels(1)
        recording.setsampwidth(2)
        recording.setframerate(8000)
        recording.writeframes(value.to_bytes(2, "little", signed=True) * samples)
    return file.getvalue()


# A speaker who says each digit six times, as a constant that tells the digit and the take; take 4 lasts 1.5 s.
WAVS = {
    f"{digit}_ada_{take}.wav": wav(100 * digit + take + 1, 12000 if take == 4 else 4000)
    for digit in range(10)
    for take in range(6)
}
WAVS_SHA256 = sha256("".join(f"{sha256(WAVS[n]).hexdigest()}  {n}\n" for n in sorted(WAVS)).encode()).hexdigest()


def archive(wavs: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("digits-26eb9aa/README.md", "Free spoken digits")
        packed.writestr("digits-26eb9aa/other/noise.wav", wav(1, 10))
        for name, data in wavs.items():
            packed.writestr(f"digits-26eb9aa/recordings/{name}", data)
    return file.getvalue()


def no_package() -> None:
    raise DataUnavailable("no package index")


@pytest.fixture
def published(server, monkeypatch, tmp_path) -> Iterator[Server]:
    """A server with a tiny MNIST, twenty test pictures that are as bright as their digit, and a tiny FSDD."""
    labels = bytes(range(10)) * 2
    files = {
        "t10k-images-idx3-ubyte": bytes(16) + b"".join(bytes([20 * label]) * 784 for label in labels),
        "t10k-labels-idx1-ubyte": bytes(8) + labels,
    }
    server.files = {f"/{name}.gz": gzip.compress(data) for name, data in files.items()}
    server.files["/recordings.zip"] = archive(WAVS)
    monkeypatch.setattr(digit_sources, "MNIST_URL", server.url)
    monkeypatch.setattr(digit_sources, "MNIST_SHA256", {name: sha256(data).hexdigest() for name, data in files.items()})
    monkeypatch.setattr(digit_sources, "FSDD_URL", f"{server.url}/recordings.zip")
    monkeypatch.setattr(digit_sources, "FSDD_SHA256", WAVS_SHA256)
    monkeypatch.setattr(digit_sources, "_packaged_mnist", no_package)
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / project)
    people_can_be_had.cache_clear()
    yield server
    people_can_be_had.cache_clear()


def test_spoken_digits_from_the_network(published):
    digits = SpokenDigits(train=False)
    pictures = ["/t10k-images-idx3-ubyte.gz", "/t10k-labels-idx1-ubyte.gz"]
    assert len(digits.pictures()) == 20
    assert published.asked == pictures  # nobody who wants pictures waits for sounds
    batch = digits[:]
    assert published.asked == [*pictures, "/recordings.zip"]

    torch.testing.assert_close(batch.image[:, 0, 16, 16], batch.label * 20 / 127.5 - 1)
    digit, take = (
        (batch.waveform[:, 0] * 2**15).long().sub(1).div(100, rounding_mode="floor"),
        batch.waveform[:, 0] * 2**15 % 100,
    )
    assert torch.equal(digit, batch.label)
    assert set(take.tolist()) <= {1, 2, 3, 4, 5}  # takes 0 to 4 are the test split
    sounding = (batch.waveform != 0).sum(dim=1)
    assert torch.equal(sounding, torch.where(take == 5, 8000, 4000))

    again = SpokenDigits(train=False)
    assert torch.equal(again[:].waveform, batch.waveform)
    assert len(published.asked) == 3


def test_training_sounds_are_the_other_takes(published):
    waveforms, digits, speakers = digit_sources.fsdd(train=True)
    assert digits.tolist() == list(range(10))
    assert waveforms[:, 0].tolist() == [100 * digit + 6 for digit in range(10)]
    assert speakers == ("ada",) * 10


@pytest.mark.parametrize(
    "damage",
    [
        lambda wavs: wavs.pop("3_ada_2.wav"),
        lambda wavs: wavs.update({"3_ada_2.wav": WAVS["3_ada_1.wav"]}),
        lambda wavs: wavs.update({"4_ada_9.wav": wavs.pop("3_ada_2.wav")}),
        lambda wavs: wavs.update({"3_ada_6.wav": WAVS["3_ada_1.wav"]}),
    ],
    ids=["one missing", "one replaced", "one renamed", "one too many"],
)
def test_recordings_that_are_not_the_pinned_ones_are_refused(published, tmp_path, damage):
    wavs = dict(WAVS)
    damage(wavs)
    published.files["/recordings.zip"] = archive(wavs)
    with pytest.raises(DataUnavailable, match=rf"{len(wavs)} WAV files\) has sha256 .*, expected {WAVS_SHA256}"):
        SpokenDigits(train=False, voices="people")[0]
    assert not list(tmp_path.rglob("*.zip"))

    folder = tmp_path / "recordings"
    folder.mkdir()
    for name, data in wavs.items():
        (folder / name).write_bytes(data)
    with pytest.raises(ValueError, match=f"expected {WAVS_SHA256}"):
        read_wavs(folder, expected=WAVS_SHA256)


def flipped(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    recording = body.index(b"recordings/3_ada_2.wav") + len(b"recordings/3_ada_2.wav") + 20
    good(handler, body[:recording] + bytes([body[recording] ^ 1]) + body[recording + 1 :])


@pytest.mark.parametrize("answer", [flipped, cut, other])
def test_an_archive_that_is_not_whole_is_refused(published, tmp_path, answer):
    digits = SpokenDigits(train=False, voices="people")
    published.answers = [answer]
    with pytest.raises(DataUnavailable, match=r"recordings.zip could not be downloaded \(not a whole zip"):
        digits[0]
    assert not list(tmp_path.rglob("*.zip"))
    published.answers = [good]
    assert len(digits[0]) == 1
