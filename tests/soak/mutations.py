"""Ways to damage a file: bytes at random, and crafted JSON, tensors and tables. Each takes and returns bytes."""

from __future__ import annotations

import copy
import io
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import safetensors
import safetensors.torch
import torch

Mutation = Callable[[bytes, random.Random], bytes]

VALUES = (
    None, True, False, -1, 0, 3, 10**12, 10**30, 10**400, -0.5, 1e300, float("nan"), float("inf"), "", "x", "\0",
    "\ud800",    "\x1b[2J", "../../etc", "9" * 5000, [], {}, [[]], {"": None}, [1, "a"], {"a": {"b": []}},
)  # fmt: skip


def flip(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 8))):
        if changed:
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def cut(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.choice((0, 1, 7, 9, chance.randrange(len(content) + 1), max(0, len(content) - 1)))]


def stuff(content: bytes, chance: random.Random) -> bytes:
    """Insert bytes: random ones, none that are UTF-8, or very many brackets."""
    at = chance.randrange(len(content) + 1)
    what = chance.choice((chance.randbytes(9), b"\xff\xfe", b"\0", b"[" * 100_000, b'{"a":' * 50_000, b"\n\n", b'"'))
    return content[:at] + what + content[at:]


def blank(content: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(content) + 1)
    end = min(len(content), at + chance.choice((1, 16, 4096)))
    return content[:at] + bytes(end - at) + content[end:]


BYTES: tuple[Mutation, ...] = (flip, flip, cut, stuff, blank)


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, item in items:
        yield from paths_of(item, (*path, key))


def changed(value: Any, path: tuple[Any, ...], new: Callable[[Any], Any]) -> Any:
    """Return a copy in which the value at ``path`` is replaced; ``new`` may return `DELETED`."""
    if not path:
        return new(value)
    found = copy.copy(value) if isinstance(value, dict) else list(value)
    item = changed(found[path[0]], path[1:], new)
    if item is DELETED:
        del found[path[0]]
    else:
        found[path[0]] = item
    return found


DELETED = object()


def crafted(value: Any, chance: random.Random, special: Callable[[Any, random.Random], Any] | None = None) -> Any:
    """Change one value, anywhere inside ``value``."""
    path = chance.choice(list(paths_of(value)))

    def new(old: Any) -> Any:
        if special is not None and (made := special(old, chance)) is not None:
            return made
        kind = chance.randrange(10)
        if kind == 0 and path:
            return DELETED
        if kind == 1 and isinstance(old, dict):
            return {**old, chance.choice(("surprise", "", "__class__")): chance.choice(VALUES)}
        if kind == 2 and isinstance(old, list):
            return old[1:] + old[:1] + [chance.choice(VALUES)]
        if kind == 3:
            deep: Any = old
            for _ in range(chance.choice((1, 30, 200))):
                deep = [deep]
            return deep
        return chance.choice(VALUES)

    return changed(value, path, new)


def json_value(content: bytes, chance: random.Random) -> bytes:
    return json.dumps(crafted(json.loads(content), chance)).encode()


def json_line(content: bytes, chance: random.Random) -> bytes:
    lines = content.splitlines() or [b"{}"]
    at = chance.randrange(len(lines))
    lines[at] = json_value(lines[at], chance)
    return b"\n".join(lines) + b"\n"


def csv_row(content: bytes, chance: random.Random) -> bytes:
    lines = content.splitlines()
    at = chance.randrange(len(lines))
    lines[at] = chance.choice(
        (b"", b",", b"a,b,c,d,e,f,g", b'"open', b"\0,train", b"x" * 200_000 + b",train", b"\xc3(,train", b"a,unknown",
         b"=cmd(),train", lines[at] + b",")
    )  # fmt: skip
    return b"\n".join(lines) + b"\n"


def other_tensor(old: Any, chance: random.Random) -> Any:
    """Return another tensor in place of a tensor; None for anything else."""
    if not isinstance(old, torch.Tensor) or chance.random() < 0.2:
        return None
    shape = list(old.shape) or [1]
    one = torch.zeros(1, dtype=old.dtype)
    return chance.choice(
        (
            lambda: old.reshape(-1)[:1].clone(),
            lambda: old.reshape(-1).clone(),
            lambda: old[None],
            lambda: torch.zeros(0, dtype=old.dtype),
            lambda: one.expand(shape),  # one number in memory for all of them
            lambda: torch.zeros(shape, dtype=torch.float64),
            lambda: torch.zeros(shape, dtype=torch.int64),
            lambda: torch.zeros(shape, dtype=torch.float16),
            lambda: torch.full_like(old, -1 if old.dtype != torch.uint8 else 255),
            lambda: torch.full_like(old, float("nan") if old.is_floating_point() else 77),
            lambda: old.transpose(0, -1) if old.ndim else old,
            lambda: old.to_sparse() if old.ndim else old,
        )
    )()


def torch_value(content: bytes, chance: random.Random) -> bytes:
    """Change a value in a file of torch.save, and remove the digest, as in files of older versions."""
    value = torch.load(io.BytesIO(content), weights_only=True)
    value.pop("digest", None)
    # Each part equally often, though most values are weights.
    part = chance.choice(sorted(value))
    value[part] = crafted(value[part], chance, other_tensor)
    if value[part] is DELETED:
        del value[part]
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def tensor_header(content: bytes, chance: random.Random) -> bytes:
    """Change the header of a file of safetensors, which has the sizes and places of the tensors."""
    length = int.from_bytes(content[:8], "little")
    header = json.dumps(crafted(json.loads(content[8 : 8 + length]), chance)).encode()
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def tensor_value(content: bytes, chance: random.Random) -> bytes:
    """Change a tensor, or a value in the text, of a file of safetensors, without a digest."""
    length = int.from_bytes(content[:8], "little")
    about = json.loads(content[8 : 8 + length]).get("__metadata__", {})
    about.pop("digest", None)
    tensors = safetensors.torch.load(content)
    texts = [name for name, text in about.items() if text[:1] in "[{"]
    if texts and chance.random() < 0.5:
        name = chance.choice(texts)
        about[name] = json_value(about[name].encode(), chance).decode()
    else:
        name = chance.choice(sorted(tensors))
        made = other_tensor(tensors[name], chance)
        if made is None or made.is_sparse:
            del tensors[name]
        else:
            tensors[name] = made.contiguous()
    return bytes(safetensors.torch.save(tensors, about))
