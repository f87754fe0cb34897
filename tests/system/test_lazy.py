from __future__ import annotations

import sys

import pytest

from fastccsa.system.lazy import lazy_names


def test_a_name_is_imported_when_it_is_first_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    get = lazy_names("package", {"rgb_to_hsv": "colorsys"})
    assert "colorsys" not in sys.modules
    assert get("rgb_to_hsv")(1, 0, 0) == (0.0, 1.0, 1)


def test_an_unknown_name_is_an_attribute_error_of_the_package() -> None:
    with pytest.raises(AttributeError, match="module 'package' has no attribute 'missing'"):
        lazy_names("package", {})("missing")
