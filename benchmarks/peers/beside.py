"""The cases that this pool has in common with its peers, round by round."""

from __future__ import annotations

import statistics
import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from benchmarks.peers.cases import COMPARED, Case
from benchmarks.peers.results import Results
from benchmarks.peers.rivals import PEERS
from benchmarks.peers.running import Client, Orphans, PeerFailed, version


class Comparison:
    """Measures the peers called `names` in the cases called `cases`, the heavy ones with less if `quick`."""

    def __init__(
        self,
        results: Results,
        folder: Path,
        server: str,
        names: list[str],
        cases: Collection[str],
        quick: bool,
    ) -> None:
        self._results = results
        self._folder = folder
        self._server = server
        self._names = names
        self._cases = [case for case in COMPARED if case.name in cases]
        self._quick = quick
        self._chunks: dict[tuple[str, str], int | None] = {}  # the best, once it was looked for
        self._orphans = Orphans()

    def run(self, rounds: int) -> None:
        """Measure."""
        light = [name for name in self._names if not PEERS[name].is_heavy]
        heavy = [name for name in self._names if PEERS[name].is_heavy]
        expected = self._orphans.expect()
        clients: dict[str, Client] = {}
        try:
            for name in light:
                clients[name] = Client(name, self._folder, self._server)
            for number in range(rounds):
                print(f"round {number + 1} of {rounds}", flush=True)
                turn = number % len(light)
                self._light(number, {name: clients[name] for name in light[turn:] + light[:turn]})
                turn = number % max(len(heavy), 1)
                for name in heavy[turn:] + heavy[:turn]:
                    self._heavy(number, name)
        finally:
            for client in clients.values():
                client.close()
            self._orphans.end(expected)

    def _light(self, number: int, clients: dict[str, Client]) -> None:
        """A round of those who may be alive together, turn by turn."""
        began = time.monotonic()
        for case in self._cases:
            taking_part = [name for name in clients if case.name in PEERS[name].cases]
            if case.name == "startup":
                for name in taking_part:
                    self._start(number, name).close()
                continue
            values: dict[str, list[float]] = {name: [] for name in taking_part}
            for _ in range(case.turns):
                for name in taking_part:
                    values[name].append(self._measure(clients[name], name, case))
            for name, measured in values.items():
                self._add(case, name, number, statistics.median(measured))
        print(f"  those who are light: {time.monotonic() - began:.0f} s", flush=True)

    def _heavy(self, number: int, name: str) -> None:
        """A round of one who has to be alone."""
        began = time.monotonic()
        expected = self._orphans.expect()
        try:
            client = self._start(number, name)
            try:
                for case in self._cases:
                    if case.name != "startup" and case.name in PEERS[name].cases:
                        asked = quicker(case) if self._quick else case
                        self._add(case, name, number, self._measure(client, name, asked))
            finally:
                client.close()
        except PeerFailed as failure:
            print(f"  {failure}", flush=True)
        finally:
            if left := self._orphans.end(expected):
                print(f"  {PEERS[name].title} left {left} processes behind: they were ended", flush=True)
        print(f"  {PEERS[name].title}: {time.monotonic() - began:.0f} s", flush=True)

    def _start(self, number: int, name: str) -> Client:
        """Start a peer without any server that is there already, and note how long its first result took."""
        client = Client(name, self._folder)
        if any(case.name == "startup" for case in self._cases):
            self._results.add("startup", name, number, client.startup_s, version(name))
        return client

    def _measure(self, client: Client, name: str, case: Case) -> float:
        if not case.by_chunk:
            return client.ask(case.name, count=case.count)
        key = case.name, name
        if key not in self._chunks:
            self._chunks[key] = best_chunk(client, name, case)
        return client.ask(case.name, count=case.count, chunk=self._chunks[key])

    def _add(self, case: Case, name: str, number: int, value: float) -> None:
        how = ""
        if case.by_chunk:
            chunk = self._chunks[case.name, name]
            how = "its own choice" if chunk is None else f"chunks of {chunk}"
        self._results.add(case.name, name, number, value, version(name), how)


def best_chunk(client: Client, name: str, case: Case) -> int | None:
    """The chunk size with the highest rate. Where chunks are small, fewer calls say as much."""
    rates = {}
    for chunk in PEERS[name].chunks:
        if len(PEERS[name].chunks) == 1:
            return chunk
        count = min(case.count, max(2000, 20 * (chunk or 1)))
        tries = 1 if PEERS[name].is_heavy else 2
        rates[chunk] = max(client.ask(case.name, count=count, chunk=chunk) for _ in range(tries))
    return max(rates, key=lambda chunk: rates[chunk])


def quicker(case: Case) -> Case:
    """The case with fewer calls, for peers that differ from this pool by more than that changes."""
    return replace(case, count=max(case.count // 10, 3))
