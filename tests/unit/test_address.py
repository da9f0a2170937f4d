"""Addresses that are taken, for a moment or for longer."""

from __future__ import annotations

import socket
import threading

import pytest

from distribute_challenge.address import TAKEN_S, bind


def test_an_address_that_becomes_free_in_a_moment_is_waited_for():
    with socket.create_server(("127.0.0.1", 0)) as holder, socket.socket() as sock:
        address = holder.getsockname()
        timer = threading.Timer(TAKEN_S / 4, holder.close)
        timer.start()
        bind(sock, address)
        assert sock.getsockname() == address
        timer.join()


def test_one_that_stays_taken_is_said_to_be():
    with (
        socket.create_server(("127.0.0.1", 0)) as holder,
        socket.socket() as sock,
        pytest.raises(OSError, match="Address already in use"),
    ):
        bind(sock, holder.getsockname())


def test_one_that_this_machine_has_not_is_said_at_once():
    with socket.socket() as sock, pytest.raises(OSError, match="assign requested address"):
        bind(sock, ("192.0.2.1", 0))
