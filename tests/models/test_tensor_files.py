"""Files of tensors: their checksum, their order, and descriptions of layers that would take other memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from fastccsa.models import ModelCard, build_model, load_model, save_model
from fastccsa.models.narrow import describe_layer, narrow
from fastccsa.models.tensor_files import read_tensors, write_tensors
from fastccsa.system.errors import InputError

TENSORS = {"b": torch.arange(3.0), "a": torch.ones(2, 2, dtype=torch.int64), "none": torch.zeros(0)}
ABOUT = {"one": "1", "two": "2", "three": "3", "four": "4"}


def test_the_same_tensors_give_the_same_bytes(tmp_path: Path) -> None:
    """safetensors itself writes the text in another order each time."""
    contents = set()
    for number in range(8):
        write_tensors(tmp_path / f"{number}", TENSORS, ABOUT)
        contents.add((tmp_path / f"{number}").read_bytes())
    assert len(contents) == 1


def test_other_programs_can_read_them_and_they_are_read_back(tmp_path: Path) -> None:
    write_tensors(tmp_path / "file", TENSORS, ABOUT)
    tensors, about = read_tensors(tmp_path / "file")
    for found in (tensors, safetensors.torch.load_file(tmp_path / "file")):
        assert found.keys() == TENSORS.keys()
        assert all(torch.equal(found[name], value) for name, value in TENSORS.items())
    assert about == ABOUT


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    write_tensors(tmp_path / "file", TENSORS, ABOUT)
    content = bytearray((tmp_path / "file").read_bytes())
    content[-1] ^= 1
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(InputError, match="has changed since it was saved"):
        read_tensors(tmp_path / "file")


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 8, b"\xff" * 20, (1 << 40).to_bytes(8, "little") + b"{}", (2).to_bytes(8, "little") + b"[]"],
)
def test_other_bytes_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(InputError):
        read_tensors(tmp_path / "file")


CARD = ModelCard("resnet18", ("nv", "mel"), ("HAM",), 32, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"out_channels": 10**9}, "out_channels is 1000000000, and must be between 1 and 5"),
        ({"out_channels": 0}, "out_channels is 0"),
        ({"in_channels": "3"}, "in_channels is '3'"),
        ({"kernel_size": [9999, 9999]}, "kernel_size"),
        ({"padding": [10**6, 0]}, "padding"),
        ({"dilation": "x"}, "dilation"),
        ({"surprise": 1}, "it needs in_channels"),
        ({"kind": "Linear"}, "only Conv2d and BatchNorm2d are known"),
        ({"kind": "BatchNorm2d"}, "is a Conv2d in this network"),
    ],
)
def test_a_layer_can_only_become_narrower(change: dict[str, Any], message: str) -> None:
    network = build_model("resnet18", 2, weights="none").backbone
    layer = describe_layer(network.conv1)
    narrow(network, {"conv1": layer | {"out_channels": 5}})
    with pytest.raises(InputError, match=message):
        narrow(network, {"conv1": layer | {"out_channels": 5} | change})


def test_weights_of_another_type_are_refused(tmp_path: Path) -> None:
    model = build_model("shufflenet_v2_x0_5", 2, weights="none")
    save_model(tmp_path, model, ModelCard("shufflenet_v2_x0_5", *list(CARD.__dict__.values())[1:6]))
    load_model(tmp_path)
    state = {name: value.long() for name, value in model.state_dict().items()}
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="weights of another network"):
        load_model(tmp_path)


@pytest.mark.parametrize("value", [[1, 2], {"a": "b"}, {3: torch.zeros(1)}, "text", {"model": {"a": 1}}])
def test_other_files_of_torch_are_refused(tmp_path: Path, value: Any) -> None:
    from fastccsa.models import load_weights

    torch.save(value, tmp_path / "weights.pth")
    with pytest.raises(InputError, match=r"weights\.pth"):
        load_weights(build_model("shufflenet_v2_x0_5", 2, weights="none"), tmp_path / "weights.pth")
    os.remove(tmp_path / "weights.pth")
    os.mkfifo(tmp_path / "weights.pth")
    with pytest.raises(InputError, match="not a regular file"):
        load_weights(build_model("shufflenet_v2_x0_5", 2, weights="none"), tmp_path / "weights.pth")
