"""Why an image is left out whose fingerprint says that it cannot be read."""

from __future__ import annotations

from fastccsa.collections.readers.collection import FILE_UNREADABLE, NO_DECODER, UNREADABLE_IMAGE
from fastccsa.formats.decode import decode
from fastccsa.formats.errors import BrokenImageError, NoDecoderError, UnreadableFileError
from fastccsa.formats.files import read_file


def why_unreadable(path: str) -> str:
    """Return the reason for leaving an image out; for a decoder that is missing, with the command that installs it."""
    try:
        decode(read_file(path))
    except NoDecoderError as error:
        return f"{NO_DECODER} ({error})"
    except UnreadableFileError:
        return FILE_UNREADABLE
    except BrokenImageError:
        pass
    return UNREADABLE_IMAGE
