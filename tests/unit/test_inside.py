"""Which pool a function runs inside of, by whatever name it calls it."""

from __future__ import annotations

import pytest

from distribute_challenge.address import Address
from distribute_challenge.client.peers.inside import is_inside


@pytest.mark.parametrize(
    ("inside", "host", "expected"),
    [
        ("", "127.0.0.1", False),
        ("localhost:5000", "localhost", True),
        ("localhost:5000", "127.0.0.1", True),
        ("127.0.0.1:5000", "127.0.0.2", True),
        ("127.0.0.1:5001", "127.0.0.1", False),
        ("localhost:5000", "192.0.2.1", False),  # An address for examples, and so of no machine.
        ("192.0.2.1:5000", "192.0.2.1", True),
    ],
)
def test_a_pool_is_known_by_any_name_of_its_machine(
    inside: str, host: str, expected: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COMPUTE_INSIDE", inside)
    assert is_inside(Address(host, 5000)) is expected
