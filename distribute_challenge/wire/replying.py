"""The pickler for what goes back to a caller."""

from __future__ import annotations

from typing import Any

from distribute_challenge.wire.classes import by_token
from distribute_challenge.wire.pickling import ValuePickler


class ReplyPickler(ValuePickler):
    """Writes results and exceptions. A class that came from the caller goes back as itself."""

    def reducer_override(self, obj: Any) -> Any:
        """Called by pickle for all that is not of a plain type."""
        if issubclass(type(obj), type) and (reduced := by_token(obj)) is not None:
            return reduced
        return super().reducer_override(obj)

    def receiver_has(self, cls: type) -> bool:
        """Whether the caller has a class already."""
        return by_token(cls) is not None or super().receiver_has(cls)
