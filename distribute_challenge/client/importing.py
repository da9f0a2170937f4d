"""The lock under which modules are imported late.

A child that is forked in the middle of an import could never import that: nobody forks meanwhile.
"""

from __future__ import annotations

import os
import threading

importing = threading.RLock()
os.register_at_fork(
    before=importing.acquire, after_in_parent=importing.release, after_in_child=importing.release
)
