"""The settings of RPyC connections, for those who serve them."""

from __future__ import annotations

# No attribute but the exposed calls, and nothing unpickled on a peer's word. A server asks its peer for
# nothing but a goodbye, and does not wait long for that.
SERVER_CONFIG = {
    "allow_safe_attrs": False,
    "allow_pickle": False,
    "propagate_KeyboardInterrupt_locally": False,
    "sync_request_timeout": 1,
    "include_local_traceback": False,
}
