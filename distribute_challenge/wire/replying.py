"""The pickler for what goes back to a caller."""

from __future__ import annotations

from typing import Any

import cloudpickle

from distribute_challenge.wire.classes import by_token


class ReplyPickler(cloudpickle.Pickler):
    """cloudpickle's, but a class that came from the caller goes back as itself."""

    def reducer_override(self, obj: Any) -> Any:
        """Called by pickle for all that is not of a built-in type."""
        if isinstance(obj, type) and (reduced := by_token(obj)) is not None:
            return reduced
        return super().reducer_override(obj)
