"""CaptionedImageFolder: both layouts, every kind of picture and sound, and each kind of bad input."""

import csv as stdlib_csv
import json
import pickle
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models import ResNet18_Weights
from torchvision.transforms import v2

from mmgan_lib.datasets import Batch, CaptionedImageFolder, Loader, Preprocess
from mmgan_lib.datasets.preprocess import read_image, read_waveform
from mmgan_lib.runtime import seed_everything
from mmgan_lib.training import GANConfig, fit_gan

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 128, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)
HALVES = Image.new("RGB", (12, 8), RED)
HALVES.paste(BLUE, (6, 0, 12, 8))  # red on the left, blue on the right


def picture(path: Path, colour: tuple[int, ...] = RED, size: tuple[int, int] = (8, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def noise(path: Path, seed: int, side: int = 12) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path)
    return path


def tone(frequency: float, rate: int, seconds: float = 1.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(int(rate * seconds)) / rate)


def csv(root: Path, *lines: str) -> Path:
    (root / "metadata.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def jsonl(root: Path, *records: dict | str) -> Path:
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    (root / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def equal(a: Batch, b: Batch) -> bool:
    tensors = [(getattr(a, name), getattr(b, name)) for name in ("image", "label", "waveform", "present")]
    return a.text == b.text and all(x is y is None or torch.equal(x, y) for x, y in tensors)


@pytest.fixture
def two(tmp_path) -> Path:
    """A folder of two good pictures, a.png and b.png."""
    picture(tmp_path / "a.png", RED)
    picture(tmp_path / "b.png", BLUE)
    return tmp_path


@pytest.fixture
def many(tmp_path) -> Path:
    """Two class folders of eleven different pictures."""
    for i in range(11):
        noise(tmp_path / ("cat" if i < 5 else "dog") / f"{i:02}.png", i)
    return tmp_path


class TestClassFolders:
    def test_label_and_text_come_from_the_folder(self, tmp_path):
        for name, colour in (("dog", BLUE), ("cat", RED), ("cat", GREEN)):
            picture(tmp_path / name / f"{sum(colour)}.png", colour)
        folder = CaptionedImageFolder(tmp_path, Preprocess(size=4))
        assert folder.classes == ("cat", "dog")
        batch = folder[:]
        assert batch.text == ("cat", "cat", "dog")
        assert batch.label.tolist() == [0, 0, 1]
        assert (batch.image.shape, batch.image.dtype) == ((3, 3, 4, 4), torch.float32)
        colours = ((batch.image[:, :, 0, 0] + 1) * 127.5).round().int()
        assert [tuple(colour) for colour in colours.tolist()] == [GREEN, RED, BLUE]  # in the order of names
        assert batch.waveform is batch.present is None

    def test_every_kind_of_index(self, many):
        folder = CaptionedImageFolder(many)
        mask = torch.zeros(11, dtype=torch.bool)
        mask[[2, 3]] = True
        for index in (slice(2, 4), [2, 3], torch.tensor([2, 3]), mask):
            assert equal(folder[index], Batch(**vars(folder[:]))[[2, 3]])
        assert len(folder[5]) == 1
        assert folder[5:5].image.shape == (0, 3, 32, 32)
        assert len(list(folder)) == 11
        with pytest.raises(IndexError):
            folder[11]

    def test_litter_is_ignored(self, two, tmp_path):
        root = tmp_path / "data"
        picture(root / "cat" / "a.PNG")
        for name in (".DS_Store", "Thumbs.db", "LICENSE.txt", "cat/.DS_Store", "cat/README.md", "cat/._a.png"):
            (root / name).write_bytes(b"litter")
        for name in (".ipynb_checkpoints", "cat/.ipynb_checkpoints", "__MACOSX"):
            picture(root / name / "a-checkpoint.png")
        folder = CaptionedImageFolder(root)
        assert [row.image.name for row in folder.rows] == ["a.PNG"]
        assert folder.classes == ("cat",)

    def test_names_may_have_any_letters(self, tmp_path):
        picture(tmp_path / "猫" / "Ärger, größer 🐈.png")
        assert CaptionedImageFolder(tmp_path)[:].text == ("猫",)

    def test_refuses_what_is_no_folder(self, two):
        with pytest.raises(FileNotFoundError, match=r"nowhere does not exist; expected a folder"):
            CaptionedImageFolder(two / "nowhere")
        with pytest.raises(FileNotFoundError, match=r"a\.png is a file; expected a folder"):
            CaptionedImageFolder(two / "a.png")

    def test_refuses_an_empty_folder(self, tmp_path):
        (tmp_path / ".DS_Store").touch()
        with pytest.raises(ValueError, match="is empty; expected class folders"):
            CaptionedImageFolder(tmp_path)

    def test_refuses_loose_pictures(self, two):
        with pytest.raises(ValueError, match=r"has neither class folders nor metadata\.csv or metadata\.jsonl"):
            CaptionedImageFolder(two)
        picture(two / "cat" / "c.png")
        with pytest.raises(ValueError, match=r"a\.png lies beside the class folders"):
            CaptionedImageFolder(two)

    def test_refuses_empty_class_folders_by_name(self, tmp_path):
        picture(tmp_path / "cat" / "c.png")
        for name in ("dog", "owl"):
            (tmp_path / name).mkdir()
        (tmp_path / "owl" / ".DS_Store").touch()
        with pytest.raises(ValueError, match=r"class folders without an image: dog, owl\."):
            CaptionedImageFolder(tmp_path)

    def test_refuses_a_link_that_leads_out(self, tmp_path):
        picture(tmp_path / "secret.png")
        picture(tmp_path / "data/cat/good.png")
        (tmp_path / "data/cat/link.png").symlink_to(tmp_path / "secret.png")
        with pytest.raises(ValueError, match=r"file 'cat/link\.png' leads out of the folder"):
            CaptionedImageFolder(tmp_path / "data")

    @pytest.mark.parametrize("name", ["metadata.json", "captions.jsonl", "captions.txt", "metadata.parquet"])
    def test_captions_beside_a_folder_of_pictures_are_not_passed_over(self, tmp_path, name):
        picture(tmp_path / "images" / "a.png")
        (tmp_path / name).write_text('{"file_name": "images/a.png", "text": "a red square"}')
        expected = rf"{name} lies beside the class folders; .* captions in metadata\.csv or metadata\.jsonl\.$"
        with pytest.raises(ValueError, match=expected):
            CaptionedImageFolder(tmp_path)

    @pytest.mark.parametrize("name", ["a.txt", "a.json", "notes.csv", "b.heic", "c.svg"])
    def test_what_may_hold_captions_or_pictures_is_not_passed_over(self, tmp_path, name):
        picture(tmp_path / "cat" / "a.png")
        (tmp_path / "cat" / name).write_text("a red cat")
        with pytest.raises(ValueError, match=rf": file 'cat/{name}' is no image of a kind that can be read\.$"):
            CaptionedImageFolder(tmp_path)

    def test_captions_in_a_folder_of_their_own_are_found_there(self, tmp_path):
        jsonl(picture(tmp_path / "photos" / "a.png").parent, {"file_name": "a.png", "text": "a red square"})
        with pytest.raises(
            ValueError, match=r"photos/metadata\.jsonl is in a folder of its own; .* folder, \S+photos\.$"
        ):
            CaptionedImageFolder(tmp_path)

    @pytest.mark.parametrize(
        "names", [("train",), ("test", "train"), ("Train", "Val"), ("test", "train", "validation")]
    )
    def test_splits_are_no_classes(self, tmp_path, names):
        for name in names:
            jsonl(picture(tmp_path / name / "a.png").parent, {"file_name": "a.png", "text": f"red, to {name}"})
        with pytest.raises(ValueError, match=rf"holds the splits {', '.join(names)}; expected one of them, as \S+"):
            CaptionedImageFolder(tmp_path)
        assert CaptionedImageFolder(tmp_path / names[0])[:].text == (f"red, to {names[0]}",)

    def test_splits_of_class_folders_are_read_one_by_one(self, tmp_path):
        for split in ("train", "test"):
            picture(tmp_path / split / "cat" / "a.png")
        with pytest.raises(ValueError, match=r"holds the splits test, train; expected one of them, as \S+test\.$"):
            CaptionedImageFolder(tmp_path)
        assert CaptionedImageFolder(tmp_path / "train").classes == ("cat",)

    def test_a_class_may_be_called_as_a_split_or_as_litter(self, tmp_path):
        for name in ("train", "bus", "license plates", "readme"):
            picture(tmp_path / name / "license.png")
        assert CaptionedImageFolder(tmp_path)[:].text == ("bus", "license plates", "readme", "train")

    @pytest.mark.parametrize("extension", ["jfif", "jpe", "GIF", "pgm", "pbm", "tiff", "apng", "webp"])
    def test_every_extension_that_can_be_decoded_counts(self, tmp_path, extension):
        kind = {"jfif": "JPEG", "jpe": "JPEG", "pgm": "PPM", "pbm": "PPM", "tiff": "TIFF", "apng": "PNG"}
        path = tmp_path / "cat" / f"a.{extension}"
        path.parent.mkdir()
        Image.new("1" if extension == "pbm" else "L", (8, 8)).save(path, kind.get(extension, extension.upper()))
        assert (CaptionedImageFolder(tmp_path)[:].image < -0.9).all()

    @pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
    def test_refuses_a_name_that_is_no_text(self, tmp_path):
        picture(tmp_path / "caf\udce9" / "a.png")
        with pytest.raises(ValueError, match=r"class folder 'caf\\udce9', whose name is not in UTF-8"):
            CaptionedImageFolder(tmp_path)

    @pytest.mark.parametrize(
        ("link", "to"), [("cat/again", "."), ("dog/cats", "../cat"), ("dog/b.png", "../cat/a.png")]
    )
    def test_refuses_a_picture_that_is_there_twice_by_a_link(self, tmp_path, link, to):
        picture(tmp_path / "cat/a.png")
        picture(tmp_path / "dog/a.png", BLUE)
        (tmp_path / link).symlink_to(to)
        with pytest.raises(ValueError, match=r"\.png is .*cat/a\.png once more, by a link; expected each"):
            CaptionedImageFolder(tmp_path)


class TestMetadata:
    def test_csv(self, two):
        csv(two, "text,file_name,extra", '"a red, plain square",a.png,1', "", "ein blaues Quadrat – größer,b.png,2")
        folder = CaptionedImageFolder(two)
        assert folder.classes == ()
        batch = folder[:]
        assert batch.text == ("a red, plain square", "ein blaues Quadrat – größer")
        assert batch.image[:, 2, 0, 0].tolist() == [-1, 1]
        assert batch.label is batch.waveform is batch.present is None

    def test_csv_with_a_field_of_any_length(self, two):
        """Python's csv module stops at 131,072 characters."""
        limit = stdlib_csv.field_size_limit()
        csv(two, "file_name,text,box", f"a.png,{'a' * 200_000},{'0' * 500_000}")
        assert CaptionedImageFolder(two, max_caption=200_000)[:].text == ("a" * 200_000,)
        with pytest.raises(ValueError, match="line 2 has a caption of 200000 characters, expected 1 to 1000"):
            CaptionedImageFolder(two)
        assert stdlib_csv.field_size_limit() == limit

    def test_whole_surrogate_pairs_are_letters(self, two):
        jsonl(two, '{"file_name": "a.png", "text": "\\ud83d\\udc08"}')
        assert CaptionedImageFolder(two)[:].text == ("🐈",)

    def test_csv_as_excel_saves_it(self, two):
        (two / "metadata.csv").write_bytes("\ufefffile_name,text\r\na.png,café\r\n".encode())
        assert CaptionedImageFolder(two)[:].text == ("café",)

    def test_jsonl_with_duplicates_and_line_separators(self, two):
        """U+2028 may stand in a JSON string: only a newline ends a line."""
        rows = [{"file_name": name, "text": f" picture\u2028{name} "} for name in ("b.png", "a.png", "b.png")]
        jsonl(two, *(json.dumps(row, ensure_ascii=False) for row in rows))
        assert CaptionedImageFolder(two)[:].text == ("picture\u2028b.png", "picture\u2028a.png", "picture\u2028b.png")

    def test_pictures_may_lie_deeper(self, tmp_path):
        picture(tmp_path / "images/été/x.png")
        jsonl(tmp_path, {"file_name": "images/été/x.png", "text": "x"})
        assert len(CaptionedImageFolder(tmp_path)) == 1

    def test_refuses_two_files_of_metadata(self, two):
        csv(jsonl(two, {"file_name": "a.png", "text": "a"}), "file_name,text", "a.png,a")
        with pytest.raises(ValueError, match=r"both metadata\.csv and metadata\.jsonl; expected one"):
            CaptionedImageFolder(two)

    @pytest.mark.parametrize(
        ("lines", "expected"),
        [
            (
                ["file_name,caption", "a.png,a"],
                "line 1 has the columns file_name, caption; expected file_name and text",
            ),
            (["file_name,text", "a.png,a", "c.png,c"], "line 3 file_name 'c.png' does not exist"),
            (["file_name,text", "a.png,one, two"], "line 2 has 3 fields, but there are 2 columns"),
            (["file_name,text", "a.png"], "line 2 has 1 fields, but there are 2 columns"),
            (["file_name,text", "a.png,a", 'b.png,"never closed'], r"line 3 is malformed CSV \("),
            (["file_name,text", "a.png,  "], "line 2 has a caption of 0 characters, expected 1 to 20"),
            (["file_name,text", "a.png," + 21 * "x"], "line 2 has a caption of 21 characters, expected 1 to 20"),
            (["file_name,text", "../secret.png,x"], r"line 2 file_name '\.\./secret.png' leads out of the folder"),
            (["file_name,text", "/etc/passwd,x"], "line 2 file_name '/etc/passwd' leads out of the folder"),
            (["file_name,text", "link.png,x"], "line 2 file_name 'link.png' leads out of the folder"),
            (["file_name,text", ",x"], "line 2 file_name '' does not exist"),
            (["file_name,text,audio", "a.png,a,a.wav"], "line 2 audio 'a.wav' does not exist"),
            (["file_name,text,audio", "a.png,a,../a.wav"], "line 2 audio '../a.wav' leads out of the folder"),
            (["file_name,text"], "names no image"),
            (["file_name,text,file_name", "a.png,a,b.png"], "line 1 names the column file_name twice"),
            (["text,file_name,text", "a,a.png,b"], "line 1 names the column text twice"),
            ([], "line 1 has the columns ; expected file_name and text"),
        ],
    )
    def test_refuses_bad_csv(self, tmp_path, lines, expected):
        picture(tmp_path / "secret.png")
        root = picture(tmp_path / "data/a.png").parent
        picture(root / "b.png")
        (root / "link.png").symlink_to(tmp_path / "secret.png")
        (root / "metadata.csv").write_text("\n".join(lines))
        with pytest.raises(ValueError, match=rf"metadata\.csv:? {expected}"):
            CaptionedImageFolder(root, max_caption=20)

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ('{"file_name": "a.png", "text"}', r"line 2 is malformed JSON \("),
            ("[" * 100_000, r"line 2 is malformed JSON \("),
            ('["a.png", "a"]', "line 2 is not a JSON object"),
            ('{"file_name": "a.png"}', "line 2 has no text"),
            ('{"text": "a"}', "line 2 has no file_name"),
            (
                '{"file_name": "b.png", "text": "a", "file_name": "a.png"}',
                r"line 2 is malformed JSON \(file_name is named twice",
            ),
            (
                '{"file_name": "a.png", "text": "a \\ud83d"}',
                r"line 2 has a caption with '\\ud83d', half a surrogate pair",
            ),
            ('{"file_name": "a.png", "text": 5}', "line 2 has 5 as text, expected a string"),
            ('{"file_name": "a.png", "text": "a", "audio": [1]}', r"line 2 has \[1\] as audio, expected a string"),
            ('{"file_name": "a\\u0000.png", "text": "a"}', r"line 2 file_name 'a\\x00.png' does not exist"),
            ('{"file_name": "a\\ud800.png", "text": "a"}', r"line 2 file_name 'a\\ud800.png' does not exist"),
        ],
    )
    def test_refuses_bad_jsonl(self, two, line, expected):
        jsonl(two, {"file_name": "b.png", "text": "b", "audio": None}, line)
        with pytest.raises(ValueError, match=rf"metadata\.jsonl: {expected}"):
            CaptionedImageFolder(two)

    def test_counts_all_problems_and_names_the_first(self, two):
        csv(two, "file_name,text", "a.png,a", *(f"no{i}.png,x" for i in range(40)))
        with pytest.raises(ValueError, match=r"line 3 .*'no0\.png'.*; line 4 .*; line 5 .*'no2\.png'.*; 37 more\."):
            CaptionedImageFolder(two)

    def test_refuses_another_encoding(self, two):
        (two / "metadata.csv").write_bytes("file_name,text\na.png,café\n".encode("latin-1"))
        with pytest.raises(ValueError, match=r"metadata\.csv is not in UTF-8 \("):
            CaptionedImageFolder(two)


class TestPictures:
    """read_image: every kind of picture becomes what it looks like."""

    @staticmethod
    def corner(image: Image.Image) -> tuple[int, ...]:
        assert image.mode == "RGB"
        return image.getpixel((0, 0))

    @pytest.mark.parametrize("extension", ["jpg", "png", "bmp", "ppm", "tif", "webp", "gif"])
    def test_formats(self, tmp_path, extension):
        found = self.corner(read_image(picture(tmp_path / f"x.{extension}", BLUE)))
        assert np.abs(np.subtract(found, BLUE)).max() <= (5 if extension in ("jpg", "webp") else 0)

    @pytest.mark.parametrize(
        ("mode", "colour", "expected"),
        [
            ("1", 1, WHITE),
            ("L", 100, (100, 100, 100)),
            ("LA", (100, 255), (100, 100, 100)),
            ("LA", (100, 0), WHITE),
            ("RGBA", (*RED, 255), RED),
            ("RGBA", (*RED, 0), WHITE),
            ("RGBA", (*RED, 51), (255, 204, 204)),  # a fifth of red, four fifths of white
        ],
    )
    def test_grey_and_transparent(self, tmp_path, mode, colour, expected):
        Image.new(mode, (4, 4), colour).save(tmp_path / "x.png")
        assert self.corner(read_image(tmp_path / "x.png")) == expected

    def test_palette(self, tmp_path):
        image = Image.new("P", (4, 4), 1)
        image.putpalette([*BLACK, *GREEN])
        image.save(tmp_path / "solid.png")
        image.save(tmp_path / "clear.png", transparency=1)
        assert self.corner(read_image(tmp_path / "solid.png")) == GREEN
        assert self.corner(read_image(tmp_path / "clear.png")) == WHITE

    def test_rgb_with_a_transparent_colour(self, tmp_path):
        HALVES.save(tmp_path / "x.png", transparency=RED)
        image = read_image(tmp_path / "x.png")
        assert (image.getpixel((0, 0)), image.getpixel((11, 0))) == (WHITE, BLUE)

    @pytest.mark.parametrize(
        ("bits", "kind", "row"),
        [
            (1, 0, b"\x40"),  # each row: a pixel of shade 0, 1, 7 or 4660, which is transparent, and another
            (2, 0, b"\x60"),
            (4, 0, b"\x73"),
            (8, 0, b"\x07\x03"),
            (16, 0, b"\x12\x34\x12\x35"),
            (8, 2, b"\x07\x07\x07\x03\x03\x03"),
            (16, 2, b"\x12\x34\x12\x34\x12\x34\x33\x33\x33\x33\x33\x33"),
        ],
    )
    def test_a_transparent_shade_of_any_depth_is_laid_on_white(self, tmp_path, bits, kind, row):
        shade = struct.pack(">H", {1: 0, 2: 1, 4: 7, 8: 7, 16: 4660}[bits]) * (3 if kind else 1)
        chunks = {
            b"IHDR": struct.pack(">IIBBBBB", 2, 1, bits, kind, 0, 0, 0),
            b"tRNS": shade,
            b"IDAT": zlib.compress(b"\0" + row),
            b"IEND": b"",
        }
        packed = (struct.pack(">I", len(x)) + n + x + struct.pack(">I", zlib.crc32(n + x)) for n, x in chunks.items())
        (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))
        image = read_image(tmp_path / "x.png")
        other = {1: 255, 2: 170, 4: 51, 8: 3, 16: 51 if kind else 18}[bits]
        assert [image.getpixel((x, 0)) for x in (0, 1)] == [WHITE, 3 * (other,)]

    def test_the_first_frame_of_a_gif(self, tmp_path):
        frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, BLUE)]
        frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
        assert self.corner(read_image(tmp_path / "x.gif")) == RED

    def test_cmyk(self, tmp_path):
        Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "x.jpg")  # no cyan: red
        assert np.abs(np.subtract(self.corner(read_image(tmp_path / "x.jpg")), RED)).max() <= 5

    @pytest.mark.parametrize(("name", "kind"), [("x.png", "<u2"), ("x.tif", "<u2"), ("x.tif", ">u2"), ("x.tif", "i4")])
    def test_16_bits(self, tmp_path, name, kind):
        """Pillow's own conversion would make white of everything above 255."""
        values = np.array([[0, 257, 25700, 65535]])
        Image.fromarray(values.astype(kind)).save(tmp_path / name)
        assert np.asarray(read_image(tmp_path / name))[0, :, 1].tolist() == [0, 1, 100, 255]

    @pytest.mark.parametrize(
        "values", [np.ones((2, 2), "f4"), np.full((2, 2), 70_000, "i4"), np.full((2, 2), -1, "i4")]
    )
    def test_refuses_values_without_a_known_range(self, tmp_path, values):
        Image.fromarray(values).save(tmp_path / "x.tif")
        with pytest.raises(
            ValueError, match=r"x\.tif cannot be decoded .*mode [IF] with values .* expected 8 or 16 bits"
        ):
            read_image(tmp_path / "x.tif")

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_exif_turns_the_picture_upright(self, tmp_path, orientation):
        """A camera stores the turned picture and says how to turn it back."""
        stored = {
            2: Image.Transpose.FLIP_LEFT_RIGHT,
            3: Image.Transpose.ROTATE_180,
            4: Image.Transpose.FLIP_TOP_BOTTOM,
            5: Image.Transpose.TRANSPOSE,
            6: Image.Transpose.ROTATE_90,
            7: Image.Transpose.TRANSVERSE,
            8: Image.Transpose.ROTATE_270,
        }
        exif = Image.Exif()
        exif[0x0112] = orientation
        image = HALVES.transpose(stored[orientation]) if orientation > 1 else HALVES
        image.save(tmp_path / "x.png", exif=exif)
        assert np.array_equal(np.asarray(read_image(tmp_path / "x.png")), np.asarray(HALVES))

    @pytest.mark.parametrize("extension", ["jpg", "webp", "png"])
    @pytest.mark.parametrize(
        "exif",
        [
            b"Exif\0\0MM\0*\0\0\0",
            b"Exif\0\0garbage!",
            b"Exif\0\0MM\0*\xff\xff\xff\xff",
            b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x1a\0\x02\0\0\0\x01\0\0\0\x08\0\0\0\0",
        ],
        ids=["cut off", "garbage", "leads out", "text as a ratio"],
    )
    @pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning", "ignore:.*has a broken EXIF block:UserWarning")
    def test_a_broken_exif_block_leaves_the_picture_as_it_is_stored(self, tmp_path, extension, exif):
        HALVES.save(tmp_path / f"x.{extension}", exif=exif)
        found = np.asarray(read_image(tmp_path / f"x.{extension}")).astype(int)
        with Image.open(tmp_path / f"x.{extension}") as stored:
            assert np.array_equal(found, np.asarray(stored))

    def test_a_broken_exif_block_is_told(self, tmp_path):
        HALVES.save(tmp_path / "x.png", exif=b"Exif\0\0garbage!")
        with pytest.warns(UserWarning, match=r"x\.png has a broken EXIF block \(.*\); it is read as stored\.$"):
            read_image(tmp_path / "x.png")

    @pytest.mark.parametrize("extension", ["jpg", "png", "bmp", "ppm", "tif", "webp"])
    def test_refuses_truncated_pictures_by_name(self, tmp_path, extension):
        path = noise(tmp_path / f"x.{extension}", 0, side=64)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(ValueError, match=rf"x\.{extension} cannot be decoded as an image"):
            read_image(path)

    @pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n", b"%!PS-Adobe-3.0 EPSF-3.0\n"])
    def test_refuses_what_is_no_picture_by_name(self, tmp_path, content):
        (tmp_path / "x.png").write_bytes(content)
        with pytest.raises(ValueError, match=r"x\.png cannot be decoded as an image"):
            read_image(tmp_path / "x.png")

    @pytest.mark.parametrize("limit", [8 * 8 - 1, 8 * 8 // 2 - 1])  # where Pillow warns, and where it raises
    def test_refuses_decompression_bombs(self, tmp_path, monkeypatch, limit):
        path = picture(tmp_path / "x.png", size=(8, 8))
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(ValueError, match=rf"x\.png has more pixels than the {limit} that .* decompression bomb"):
            read_image(path)


class TestPreprocess:
    def test_crop_keeps_the_middle(self):
        image = Image.new("RGB", (30, 10), RED)
        image.paste(BLUE, (10, 0, 20, 10))
        found = Preprocess(size=5)(image)
        assert torch.equal(found, torch.tensor([-1.0, -1, 1]).view(3, 1, 1).expand(3, 5, 5))

    def test_pad_shows_everything_framed_in_black(self):
        found = Preprocess(size=6, fit="pad")(Image.new("RGB", (10, 30), WHITE))
        assert found[0].tolist() == [[-1, -1, 1, 1, -1, -1]] * 6

    def test_stretch_shows_everything_without_a_frame(self):
        found = Preprocess(size=8, fit="stretch")(HALVES)
        red, green, blue = found
        assert (red[:, :3] == 1).all()
        assert (red[:, 5:] == -1).all()
        assert (green == -1).all()
        torch.testing.assert_close(blue, red.flip(1))

    @pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
    @pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (1, 1)])
    def test_the_most_slender_pictures(self, fit, size):
        assert Preprocess(size=16, fit=fit)(Image.new("RGB", size, WHITE)).shape == (3, 16, 16)

    def test_values_are_symmetric_unless_told(self):
        """v in 0…255 becomes v / 127.5 − 1."""
        ramp = Image.fromarray(np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2).repeat(256, axis=0))
        found = Preprocess(size=256)(ramp)
        torch.testing.assert_close(found[1, 7], torch.arange(256) / 127.5 - 1)
        assert (found.min(), found.max()) == (-1, 1)

    def test_imagenet_is_what_torchvision_expects(self):
        """On a square picture of 224 pixels there is nothing to resize, and torchvision's own transform agrees."""
        image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8))
        theirs = ResNet18_Weights.IMAGENET1K_V1.transforms(resize_size=224)(image)
        torch.testing.assert_close(Preprocess(size=224, normalise="imagenet")(image), theirs)

    def test_augments_only_for_training(self):
        flip = Preprocess(size=8, fit="stretch", augment=v2.RandomHorizontalFlip(p=1))
        assert torch.equal(flip(HALVES), Preprocess(size=8, fit="stretch")(HALVES))
        assert torch.equal(flip(HALVES, train=True), flip(HALVES).flip(2))

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"size": 0}, "size is 0; expected at least 1"),
            ({"fit": "squeeze"}, "fit is 'squeeze'; expected crop, pad or stretch"),
            ({"normalise": "none"}, "normalise is 'none'; expected one of symmetric, imagenet"),
        ],
    )
    def test_refuses_what_it_does_not_know(self, wrong, message):
        with pytest.raises(ValueError, match=message):
            Preprocess(**wrong)

    def test_refuses_an_augmentation_of_another_size(self):
        with pytest.raises(ValueError, match="augment gives 28×28 pixels; expected 32×32"):
            Preprocess(augment=v2.RandomCrop(28))(HALVES, train=True)


class TestSounds:
    @pytest.mark.parametrize("extension", ["wav", "flac"])
    def test_the_asked_rate_is_read_as_it_is(self, tmp_path, extension):
        path, sound = tmp_path / f"größer.{extension}", tone(440, 8000)
        soundfile.write(path, sound, 8000, subtype="PCM_16")
        found = read_waveform(path, sample_rate=8000, seconds=1.0)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, torch.from_numpy(sound).float(), atol=2**-15, rtol=0)

    @pytest.mark.parametrize("rate", [16_000, 44_100, 4_000])
    def test_another_rate_is_resampled(self, tmp_path, rate):
        """A tone of 440 Hz is one at every rate; away from the ends, where a filter sees silence, within 1 %."""
        soundfile.write(tmp_path / "x.wav", tone(440, rate), rate, subtype="FLOAT")
        found = read_waveform(tmp_path / "x.wav", sample_rate=8000, seconds=1.0)
        assert len(found) == 8000
        expected = torch.from_numpy(tone(440, 8000)).float()
        torch.testing.assert_close(found[100:-100], expected[100:-100], atol=0.005, rtol=0)

    def test_frequencies_that_do_not_fit_are_removed_not_folded_back(self, tmp_path):
        """7 kHz sampled at 8 kHz would sound as 1 kHz."""
        soundfile.write(tmp_path / "x.wav", tone(7000, 32_000), 32_000)
        assert read_waveform(tmp_path / "x.wav", sample_rate=8000, seconds=1.0)[100:-100].abs().max() < 0.005

    def test_stereo_is_mixed(self, tmp_path):
        left, right = tone(440, 8000), tone(880, 8000)
        soundfile.write(tmp_path / "x.wav", np.stack([left, right], axis=1), 8000, subtype="FLOAT")
        found = read_waveform(tmp_path / "x.wav", sample_rate=8000, seconds=1.0)
        torch.testing.assert_close(found, torch.from_numpy((left + right) / 2).float())

    def test_a_long_sound_is_cut_where_the_filter_does_not_see_it(self, tmp_path):
        """Half a second of 440.5 Hz ends on a crest, which a filter that saw silence after it would lower."""
        soundfile.write(tmp_path / "x.wav", tone(440.5, 16_000, seconds=5), 16_000, subtype="FLOAT")
        found = read_waveform(tmp_path / "x.wav", sample_rate=8000, seconds=0.5)
        expected = torch.from_numpy(tone(440.5, 8000, seconds=0.5)).float()
        torch.testing.assert_close(found[100:], expected[100:], atol=0.005, rtol=0)

    def test_loud_sounds_are_clipped(self, tmp_path):
        soundfile.write(tmp_path / "x.wav", 4 * tone(440, 8000), 8000, subtype="FLOAT")
        assert read_waveform(tmp_path / "x.wav", sample_rate=8000, seconds=1.0).abs().max() == 1

    def test_refuses_bad_sounds_by_name(self, tmp_path):
        def refused(name: str) -> str:
            with pytest.raises(ValueError, match=name) as caught:
                read_waveform(tmp_path / name, sample_rate=8000, seconds=1.0)
            return str(caught.value)

        for name in ("text.wav", "text.raw", "none.wav"):
            (tmp_path / name).write_bytes(b"" if name == "none.wav" else b"hello")
            assert "cannot be decoded as a sound (" in refused(name)
            assert "Buffered" not in refused(name)
        assert "cannot be decoded as a sound (" in refused("missing.wav")
        soundfile.write(tmp_path / "empty.wav", np.zeros(0), 8000)
        assert "holds no sound" in refused("empty.wav")
        soundfile.write(tmp_path / "nan.wav", np.array([0.0, np.nan]), 8000, subtype="FLOAT")
        assert "infinite or not a number" in refused("nan.wav")
        soundfile.write(tmp_path / "rate.wav", np.zeros(9), 2_000_000_000)
        assert "has 2,000,000,000 samples a second; expected 1,000 to 400,000" in refused("rate.wav")

    def test_in_a_folder(self, two):
        soundfile.write(two / "a.wav", tone(440, 16_000, 0.25), 16_000)
        csv(two, "file_name,text,audio", "a.png,a,a.wav", "b.png,b,")
        folder = CaptionedImageFolder(two, sample_rate=4000, seconds=0.5)
        batch = folder[:]
        assert batch.waveform.shape == (2, 2000)
        assert batch.waveform[0, :1000].std().item() == pytest.approx(0.5 / 2**0.5, rel=0.05)
        assert not batch.waveform[0, 1000:].any()
        assert not batch.waveform[1].any()
        assert batch.present.tolist() == [[True, True, True], [True, True, False]]
        assert folder[1].waveform.shape == (1, 2000)  # every batch has the same fields
        assert folder[0].present.tolist() == [[True, True, True]]

    def test_present_is_told_only_where_a_sound_is_missing(self, two):
        soundfile.write(two / "a.wav", tone(440, 8000), 8000)
        csv(two, "file_name,text,audio", "a.png,a,a.wav", "b.png,b,a.wav")
        assert CaptionedImageFolder(two)[:].present is None
        csv(two, "file_name,text,audio", "a.png,a,", "b.png,b,")
        assert CaptionedImageFolder(two)[:].waveform is None

    def test_refuses_a_rate_that_no_sound_has(self, many):
        with pytest.raises(ValueError, match="sample_rate is 0; expected 1,000 to 400,000 Hz"):
            CaptionedImageFolder(many, sample_rate=0)


@pytest.mark.parametrize("augment", [v2.ToImage(), np.asarray])
def test_an_augmentation_that_gives_no_picture_is_refused(augment):
    with pytest.raises(ValueError, match=r"^augment gives <class '.*(Image|ndarray)'>; expected a PIL\.Image"):
        Preprocess(size=4, augment=augment)(Image.new("RGB", (4, 4)), train=True)


def test_check_names_every_sample_that_cannot_be_read(many):
    folder = CaptionedImageFolder(many)
    assert folder.check() == []
    for row in (folder.rows[2], folder.rows[7]):
        row.image.write_bytes(b"broken")
    problems = folder.check()
    assert [Path(problem.split(" ")[0]).name for problem in problems] == ["02.png", "07.png"]
    with pytest.raises(ValueError, match=r"02\.png cannot be decoded"):
        folder[:]


AUGMENT = v2.Compose([v2.RandomHorizontalFlip(), v2.RandomCrop(12, padding=3)])


def augmenting(root: Path) -> CaptionedImageFolder:
    return CaptionedImageFolder(root, Preprocess(size=12, augment=AUGMENT))


# From Python 3.12 on, a fork in a process with several threads warns; PyTorch's workers are such forks on Linux.
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
class TestLoading:
    def test_each_sample_is_augmented_by_seed_epoch_and_index_alone(self, many):
        folder = augmenting(many)
        first = folder.augmented(seed=3, epoch=0)
        assert torch.equal(first[[7, 1]].image, first[[1, 7]].image.flip(0))
        torch.rand(5)  # whatever else is drawn does not matter
        assert torch.equal(folder.augmented(seed=3, epoch=0)[:].image, first[:].image)
        for other in (folder.augmented(seed=3, epoch=1), folder.augmented(seed=4, epoch=0), folder):
            same = (other[:].image == first[:].image).flatten(1).all(dim=1)
            assert same.float().mean() < 0.5

    def test_equal_pictures_are_augmented_differently(self, tmp_path):
        for i in range(8):
            noise(tmp_path / "same" / f"{i}.png", seed=0)
        images = augmenting(tmp_path).augmented(seed=0, epoch=0)[:].image
        assert len({image.numpy().tobytes() for image in images}) > 4

    def test_augmentation_leaves_the_random_numbers_of_training_alone(self, many):
        before = torch.get_rng_state()
        augmenting(many).augmented(seed=0, epoch=0)[:]
        assert torch.equal(torch.get_rng_state(), before)

    def test_only_shuffled_loaders_augment(self, many):
        folder = augmenting(many)
        plain = {image.numpy().tobytes() for image in folder[:].image}
        seen = {image.numpy().tobytes() for batch in Loader(folder, 4, shuffle=False) for image in batch.image}
        assert seen == plain
        trained = {image.numpy().tobytes() for batch in Loader(folder, 4) for image in batch.image}
        assert len(trained - plain) > 4

    def test_workers_give_the_same_batches_from_any_step(self, many):
        """Eleven samples in fours: two batches an epoch, so the steps go over four epochs."""
        alone, helped = (Loader(augmenting(many), 4, seed=5, workers=workers) for workers in (0, 2))
        expected = [alone.batch(step) for step in range(8)]
        assert all(equal(helped.batch(step), expected[step]) for step in range(8))
        resumed = Loader(augmenting(many), 4, seed=5, workers=2)
        assert all(equal(resumed.batch(step), expected[step]) for step in (5, 6, 7))

    def test_a_bad_file_is_named_in_one_sentence(self, many):
        (many / "cat/00.png").write_bytes(b"broken")
        loader = Loader(augmenting(many), 11, workers=1)
        with pytest.raises(ValueError, match=r"^\S+00\.png cannot be decoded as an image \([^\n]*\)\.$"):
            loader.batch(0)

    def test_pickles_for_platforms_that_spawn(self, many):
        folder = augmenting(many)
        again = pickle.loads(pickle.dumps(folder)).augmented(seed=1, epoch=2)
        assert equal(again[:], folder.augmented(seed=1, epoch=2)[:])

    def test_training_stopped_and_resumed_is_training_that_never_stopped(self, many, tmp_path_factory):
        checkpoints = tmp_path_factory.mktemp("checkpoints")

        def train(steps: int, workers: int, folder: str) -> Tensor:
            seed_everything(0)
            generator = nn.Sequential(nn.Linear(4, 3 * 12 * 12), nn.Unflatten(1, (3, 12, 12)), nn.Tanh())
            generator.latent_dim = 4
            discriminator = nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 12, 1), nn.Flatten(0))
            loader = Loader(augmenting(many), 4, seed=2, workers=workers)
            fit_gan(generator, discriminator, loader, GANConfig(steps), folder=checkpoints / folder, resume=True)
            return generator[0].weight.detach()

        whole = train(7, 0, "whole")
        train(3, 2, "stopped")
        assert torch.equal(train(7, 2, "stopped"), whole)
