"""When descriptors run out. The last few are kept, so that whoever gets none can be told why."""

from __future__ import annotations

import errno
import os
import resource

KEPT = 16
NONE_LEFT = (errno.EMFILE, errno.ENFILE)


def check_left(descriptor: int) -> None:
    """Raise OSError if a new descriptor is among the last that this process may have."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit != resource.RLIM_INFINITY and descriptor >= limit - KEPT:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
