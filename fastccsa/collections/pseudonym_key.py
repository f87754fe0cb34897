"""The secret key of the pseudonyms of patients and studies."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from fastccsa.formats.files import open_regular
from fastccsa.system.errors import InputError

_BYTES = 32
_SHORTEST = 16
_LONGEST = 4096


def default_key_file() -> Path:
    """Return the file of the user's own key: ``pseudonyms.key`` in ``$XDG_CONFIG_HOME/fastccsa`` or ``~/.config``."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")) / "fastccsa" / "pseudonyms.key"


def read_key(path: Path | None = None) -> bytes:
    """Read a key. The user's own one is made if it does not exist, readable by the user only.

    Args:
        path: the file; None for the user's own. It holds at least 16 bytes, and may be any file that others cannot
            guess.

    Raises:
        InputError: the file cannot be read, made, or is too short.
    """
    file = path or default_key_file()
    try:
        if path is None and not file.exists():
            _make(file)
        with open_regular(file) as opened:
            key = opened.read(_LONGEST).strip()
    except OSError as error:
        raise InputError(
            f"{file}: the key of the pseudonyms of DICOM patients cannot be read or made ({error.strerror or error}); "
            "name another file with --pseudonym-key"
        ) from error
    if len(key) < _SHORTEST:
        raise InputError(f"{file}: a key has at least {_SHORTEST} bytes, and this one has {len(key)}; use a longer one")
    return key


def _make(file: Path) -> None:
    """Make a key under a temporary name, and give it its own name unless another process was faster."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as opened:
            opened.write(secrets.token_hex(_BYTES) + "\n")
            opened.flush()
            os.fsync(opened.fileno())
        os.link(temporary, file)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
