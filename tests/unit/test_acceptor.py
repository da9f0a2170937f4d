"""How often the same is said."""

from __future__ import annotations

from distribute_challenge.wire.acceptor import OnceAMinute


def test_however_many_sources_there_are_little_is_remembered():
    once = OnceAMinute(most=10)
    for number in range(1000):
        assert once.is_news(f"2001:db8::{number}", now=number / 1000)
        assert len(once) <= 10
