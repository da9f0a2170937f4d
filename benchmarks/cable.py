"""Two network namespaces, and a cable between them that is slow, loses packets, or is cut.

    python benchmarks/cable.py NEAR FAR ADDRESS ADDRESS      (root; started by benchmarks/network.py)

Each namespace has one end, a TUN device; this process is the cable. Each line on its standard input sets it:

    delay 0.1      each packet takes so many seconds to the other end
    loss 0.02      so large a share of the packets gets lost
    rate 1e6       so many bytes go through in a second, each way
    cut, mend      no packet arrives; they do again

Kernels without netem have TUN. Both ends' kernels do all that they do on a real network: they time out,
send again, and find out that nobody answers.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import select
import struct
import subprocess
import sys
import time
from collections import deque

TUN = "/dev/net/tun"
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000
LARGEST_PACKET = 1 << 16
LONGEST_QUEUE_S = 0.25  # A router, too, drops what would have to wait longer.


def plug_in(namespace: str, address: str) -> int:
    """A TUN device in a namespace, made there, with an address; the descriptor of its other side."""
    descriptor = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
    name = f"cable{os.getpid()}{address.rpartition('.')[2]}"[:15]
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    ip("netns", "add", namespace)
    ip("link", "set", name, "netns", namespace)
    for command in (
        ("link", "set", "lo", "up"),
        ("address", "add", f"{address}/24", "dev", name),
        ("link", "set", name, "up"),
    ):
        ip("-netns", namespace, *command)
    return descriptor


def ip(*arguments: str) -> None:
    """The command of that name."""
    subprocess.run(["ip", *arguments], check=True)


class Direction:
    """The packets on their way from one end to the other."""

    def __init__(self, source: int, target: int) -> None:
        self.source, self._target = source, target
        self._packets: deque[tuple[float, bytes]] = deque()  # with the time when each arrives
        self._is_free_at = 0.0

    def take(self, delay_s: float, loss: float, rate: float) -> None:
        """Take in what was sent; a share of it gets lost."""
        now = time.monotonic()
        with contextlib.suppress(BlockingIOError):
            while True:
                packet = os.read(self.source, LARGEST_PACKET)
                begin = max(self._is_free_at, now)
                if random.random() >= loss and begin - now < LONGEST_QUEUE_S:
                    self._is_free_at = begin + len(packet) / rate
                    self._packets.append((self._is_free_at + delay_s, packet))

    def deliver(self, *, is_cut: bool) -> float | None:
        """Deliver what has arrived by now; in how many seconds the next one does."""
        while self._packets:
            left_s = self._packets[0][0] - time.monotonic()
            if left_s > 0:
                return left_s
            _, packet = self._packets.popleft()
            if not is_cut:
                with contextlib.suppress(OSError):  # The end may be unplugged already.
                    os.write(self._target, packet)
        return None


def main(near: str, far: str, near_address: str, far_address: str) -> None:
    """Be the cable, until standard input ends."""
    ends = [plug_in(near, near_address), plug_in(far, far_address)]
    directions = [Direction(*ends), Direction(*reversed(ends))]
    delay_s, loss, rate, is_cut = 0.0, 0.0, 1e9, False
    print("plugged in", flush=True)
    while True:
        waits_s = [wait_s for way in directions if (wait_s := way.deliver(is_cut=is_cut)) is not None]
        ready, _, _ = select.select([*ends, sys.stdin], [], [], min(waits_s, default=None))
        for way in directions:
            if way.source in ready:
                way.take(delay_s, 1.0 if is_cut else loss, rate)
        if sys.stdin in ready:
            word, _, value = sys.stdin.readline().strip().partition(" ")
            if word == "delay":
                delay_s = float(value)
            elif word == "loss":
                loss = float(value)
            elif word == "rate":
                rate = float(value)
            elif word in ("cut", "mend"):
                is_cut = word == "cut"
            else:
                return


if __name__ == "__main__":
    main(*sys.argv[1:])
