"""Accounting for the files of a source that its reader neither used nor named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fastccsa.collections.archives import is_archive
from fastccsa.collections.readers.collection import (
    BAD_TABLE,
    NO_DECODER,
    NO_FILE,
    OTHER_FILE,
    OTHER_IMAGE,
    OTHER_TABLE,
    PACKED,
    Collection,
    LeftOut,
)
from fastccsa.collections.readers.files import FOREIGN_EXTENSIONS, image_id, is_image, survey
from fastccsa.collections.readers.isic import BROKEN

_TABLES = frozenset({".csv", ".json", ".tab", ".tsv", ".xlsx"})


def unused_files(folder: Path, collection: Collection, own: bool) -> Iterator[LeftOut]:
    """Yield every file below ``folder`` that was not read and is not left out by name yet, with the reason.

    Args:
        folder: the source.
        collection: what its reader found.
        own: the source is a user's own folders, where every image file has been named, and tables are not read.
    """
    files, left_out = survey(folder)
    yield from left_out
    used = {row.image for row in collection.rows} | collection.tables.keys()
    named = {image_id(Path(name).name) for _, name in collection.left_out}
    unusable = [name for reason, name in collection.left_out if reason in (BAD_TABLE, BROKEN)]
    lacking = any(reason == NO_FILE for reason, _ in collection.left_out)
    for path in files:
        extension = path.suffix.lower()
        name = path.relative_to(folder).as_posix()
        if path in used:
            continue
        if is_image(path):
            if not own and image_id(path.name) not in named:
                yield LeftOut(OTHER_IMAGE, name)
        elif any(path.name in text for text in unusable):
            continue
        elif extension in FOREIGN_EXTENSIONS:
            yield LeftOut(NO_DECODER, name)
        elif is_archive(path) and (own or lacking):
            yield LeftOut(PACKED, path.name)
        elif extension in _TABLES and not own:
            yield LeftOut(OTHER_TABLE, name)
        else:
            yield LeftOut(OTHER_FILE, name)
