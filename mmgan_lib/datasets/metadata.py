"""Captions in the ``metadata.csv`` or ``metadata.jsonl`` of a folder of images."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mmgan_lib.checks import SURROGATE

METADATA = ("metadata.csv", "metadata.jsonl")
COLUMNS = ("file_name", "text", "audio")


class Row(NamedTuple):
    """The files of one sample, and its caption."""

    image: Path
    text: str
    audio: Path | None = None
    label: int | None = None


def metadata_rows(metadata: Path, max_caption: int) -> list[Row]:
    """Reads the samples that a ``metadata.csv`` or ``metadata.jsonl`` names, in its order.

    Raises:
        ValueError: the metadata is malformed, or names a file that is not in its folder.
    """
    try:
        text = metadata.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{metadata} is not in UTF-8 ({error}).") from error
    root, rows, problems = metadata.parent, [], []
    for line, record in (_csv_records if metadata.suffix == ".csv" else _json_records)(text):
        problem = record if isinstance(record, str) else _problem_of_record(root, record, max_caption)
        if problem:
            problems.append(f"line {line} {problem}")
        else:
            audio = record.get("audio")
            rows.append(Row(root / record["file_name"], record["text"].strip(), root / audio if audio else None))
    refuse(metadata, problems)
    if not rows:
        raise ValueError(f"{metadata} names no image; expected a line for each.")
    return rows


def _csv_records(text: str) -> Iterator[tuple[int, dict[str, object] | str]]:
    """Yields each line's number, and its fields by column or the problem with it."""
    usual = csv.field_size_limit(max(1, len(text)))  # no field is longer than the file
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        yield from _csv_lines(reader)
    except csv.Error as error:
        yield reader.line_num, f"is malformed CSV ({error})"
    finally:
        csv.field_size_limit(usual)


def _csv_lines(reader: Iterator[list[str]]) -> Iterator[tuple[int, dict[str, object] | str]]:
    columns = next(reader, [])
    if not {"file_name", "text"} <= set(columns):
        yield 1, f"has the columns {', '.join(columns)}; expected file_name and text"
        return
    if repeated := _repeated(columns):
        yield 1, f"names the column {repeated} twice"
        return
    for fields in filter(None, reader):
        same = len(fields) == len(columns)
        problem = f"has {len(fields)} fields, but there are {len(columns)} columns"
        yield reader.line_num, dict(zip(columns, fields, strict=True)) if same else problem


def _json_records(text: str) -> Iterator[tuple[int, dict[str, object] | str]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                record = json.loads(line, object_pairs_hook=_named_once)
            except (ValueError, RecursionError) as error:
                yield number, f"is malformed JSON ({error})"
            else:
                yield number, record if isinstance(record, dict) else "is not a JSON object"


def _named_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if repeated := _repeated([name for name, _ in pairs]):
        raise ValueError(f"{repeated} is named twice")
    return dict(pairs)


def _repeated(names: list[str]) -> str | None:
    return next((name for name in COLUMNS if names.count(name) > 1), None)


def _problem_of_record(root: Path, record: dict[str, object], max_caption: int) -> str | None:
    columns = COLUMNS if record.get("audio") else ("file_name", "text")
    for column in columns:
        if not isinstance(value := record.get(column), str):
            return f"has no {column}" if value is None else f"has {value!r} as {column}, expected a string"
    caption = record["text"].strip()
    if not 1 <= len(caption) <= max_caption:
        return f"has a caption of {len(caption)} characters, expected 1 to {max_caption}"
    if half := SURROGATE.search(caption):
        return f"has a caption with {half[0]!r}, half a surrogate pair"
    for column in columns:
        if column != "text" and (problem := problem_of_file(root, record[column])):
            return f"{column} {problem}"
    return None


def problem_of_file(root: Path, name: str) -> str | None:
    """Returns one clause if there is no file of this name in the folder, None if there is."""
    outside = f"{name!r} leads out of the folder"
    if Path(name).is_absolute() or ".." in Path(name).parts:
        return outside
    if not os.path.isfile(root / name):
        return f"{name!r} does not exist"
    return None if Path(os.path.realpath(root / name)).is_relative_to(os.path.realpath(root)) else outside


def refuse(where: Path, problems: list[str]) -> None:
    """Raises a ValueError that tells the first three problems and the number of the others, if there are any."""
    if problems:
        more = f"; {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ValueError(f"{where}: {'; '.join(problems[:3])}{more}.")
