"""The names that a function's code mentions."""

from __future__ import annotations

from typing import Any

import pytest

from distribute_challenge.values.code import names_of


@pytest.mark.parametrize(
    ("statement", "modules"),
    [
        ("import x.y", {"x.y"}),
        ("from x import y", {"x", "x.y"}),
        ("from . import y", {"a.b", "a.b.y"}),
        ("from .x import y", {"a.b.x", "a.b.x.y"}),
        ("from .. import y", {"a", "a.y"}),
        ("from ..x import y", {"a.x", "a.x.y"}),
    ],
)
def test_imports_are_named_in_full_from_inside_a_package(statement: str, modules: set[str]):
    names: dict[str, Any] = {}
    exec(f"def f():\n    {statement}", names)
    assert set(names_of(names["f"].__code__).modules("a.b")) == modules
