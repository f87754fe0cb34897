"""Advice is given in the options of the command line, and in the arguments of Python."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest

from fastccsa.cli.train import train_command as command
from fastccsa.collections.manifest import Manifest
from fastccsa.images import ImageLoader, Transforms
from fastccsa.images.dali import dali_errors
from fastccsa.sampling import ImageSampler
from fastccsa.system import machine
from fastccsa.system.errors import InputError

SMALL = Transforms(32)


def open_loader(manifest: Manifest, cache: str | None, folder: Path, **options: object) -> ImageLoader:
    sampler = ImageSampler(manifest.labels, num_classes=3, batch_size=4)
    options = {"transforms": SMALL, "backend": "torchvision", **options}
    return ImageLoader(manifest, sampler, False, cache=cache, cache_dir=folder, **options)


def full_disk(manifest: Manifest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reserve(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", reserve)
    open_loader(manifest, "disk", folder)


def unwritable(manifest: Manifest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "file").write_text("")
    open_loader(manifest, "disk", folder / "file")


def full_memory(manifest: Manifest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "available_bytes", lambda device: 1000)
    open_loader(manifest, "ram", folder)


def no_gpu(manifest: Manifest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_loader(manifest, "gpu", folder)


def broken_image(manifest: Manifest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(manifest.paths[3]).write_bytes(b"")
    open_loader(manifest, None, folder, on_error="raise")


def failing_dali(manifest: Manifest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with dali_errors(open_loader(manifest, None, folder).device):
        raise RuntimeError("out of memory")


@pytest.mark.parametrize(
    ("provoke", "option", "argument"),
    [
        (full_disk, "--cache none", "cache=None"),
        (unwritable, "--cache none", "cache=None"),
        (full_memory, "--cache disk", "cache='disk'"),
        (no_gpu, "--cache ram", "cache='ram'"),
        (broken_image, "--broken-images replace", "on_error='replace'"),
        (failing_dali, "--image-backend auto", "backend='auto'"),
    ],
)
def test_advice_is_for_the_command_line_and_for_python(
    own_manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provoke, option: str, argument: str
) -> None:
    with pytest.raises(InputError) as found:
        provoke(own_manifest, tmp_path, monkeypatch)
    advice, in_python = re.fullmatch(r"(.*) \(in Python: (.*)\)", str(found.value), re.DOTALL).groups()
    assert option in advice
    assert argument in in_python
    assert option.split()[0] in {name for parameter in command.params for name in parameter.opts}
