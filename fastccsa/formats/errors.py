"""The errors about image files. Each costs one image, never a run."""

from __future__ import annotations


class BrokenImageError(Exception):
    """The file does not contain a decodable image; the message says why."""


class UnreadableFileError(BrokenImageError):
    """The content of the file cannot be read: it is missing, access is denied, or it is not a regular file."""


class NoDecoderError(BrokenImageError):
    """The image may be valid, but no decoder for it is installed; the message says how to get one."""
