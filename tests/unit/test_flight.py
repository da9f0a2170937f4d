"""What a worker writes into its flight recorder, and what its server reads there."""

from __future__ import annotations

import itertools
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distribute_challenge.record.flight import (
    RING_AT,
    SLOTS,
    USED_AT,
    FlightRecorder,
    label,
)
from distribute_challenge.record.flight_reader import SHORT_S, FlightReader
from tests.running import eventually

RING_BYTES = 1 << 17  # so small that it is soon full


def pair() -> tuple[FlightRecorder, FlightReader]:
    memory = bytearray(RING_AT + RING_BYTES)
    return FlightRecorder(memory), FlightReader(memory)


def run(recorder: FlightRecorder, number: int, name: str = "f", **end: Any) -> None:
    flight = recorder.begin(number.to_bytes(8, "big"), label(name, "c.py:1"), sent=10)
    recorder.end(flight, **({"finished": 1, "failed": 0, "seconds": 0.5, "returned": 3} | end))


def test_successive_short_calls_of_one_function_are_one():
    recorder, reader = pair()
    for number in range(100):
        run(recorder, number)
    (call,) = reader.ended()
    assert (call.finished, call.seconds, call.sent, call.returned) == (100, 50, 1000, 300)
    assert call.begun.id == bytes(8)


def test_calls_of_another_function_and_failures_stand_alone():
    recorder, reader = pair()
    for number, (name, failed) in enumerate([("f", 0), ("g", 0), ("g", 0), ("g", 1), ("g", 0), ("g", 0)]):
        run(recorder, number, name, finished=1 - failed, failed=failed, error="KeyError: 1" if failed else "")
    found = [(call.begun.function, call.finished, call.failed, call.error) for call in reader.ended()]
    assert found == [("f", 1, 0, ""), ("g", 2, 0, ""), ("g", 0, 1, "KeyError: 1"), ("g", 2, 0, "")]


def test_calls_that_are_not_short_stand_alone(monkeypatch: Any):
    clock = iter([0, 2 * SHORT_S, 2 * SHORT_S, 4 * SHORT_S, 9, 9 + SHORT_S / 2])
    monkeypatch.setattr("distribute_challenge.record.flight.time.monotonic", lambda: next(clock))
    recorder, reader = pair()
    for number in range(3):
        run(recorder, number)
    assert [call.finished for call in reader.ended()] == [1, 1, 1]


def test_a_call_within_another_of_the_same_function_stands_alone():
    recorder, reader = pair()
    flights = [recorder.begin(bytes([number] * 8), label("f", "c"), 1, is_inside=True) for number in range(3)]
    for flight in reversed(flights):
        recorder.end(flight, finished=1, failed=0, seconds=0, returned=0)
    assert [call.begun.id[0] for call in reader.ended()] == [2, 1, 0]


@given(st.lists(st.one_of(st.integers(0, 600), st.none()), max_size=400), st.integers(0, 300))
def test_nothing_is_lost_however_late_it_is_read(sizes: list[int | None], names: int):
    """None: that is when the server reads. Names of all lengths, so that records lie anywhere in the ring."""
    recorder, reader = pair()
    written, read = [], []
    for number, size in enumerate(sizes * 8):
        if size is None:
            read += [call.begun.function for call in reader.ended()]
        else:
            written.append(f"{number}-" + "f" * min(size, names))
            run(recorder, number, written[-1])

    def has_read_all() -> bool:
        read.extend(call.begun.function for call in reader.ended())
        return len(read) == len(written)

    eventually(has_read_all, "all is written, though no call follows")
    assert read == written


@pytest.mark.parametrize("letter", ["n", "ü", "語"])
def test_a_long_name_is_cut_and_the_client_stays(letter: str):
    recorder, reader = pair()
    flight = recorder.begin(b"1" * 8, label(letter * 1000, "challenge.py:7"), 1)
    [call] = reader.running()
    assert call.client == "challenge.py:7"
    assert call.function == letter * (len(call.function) - 1) + "…"
    assert len(call.function.encode()) > 400
    recorder.end(flight, finished=1, failed=0, seconds=0, returned=0)
    assert [call.begun.client for call in reader.ended()] == ["challenge.py:7"]


def test_what_runs_is_told_from_what_has_ended_just_before_the_worker_died():
    recorder, reader = pair()
    memory = reader._memory
    flight = recorder.begin(b"1" * 8, label("f", "c"), 1)
    recorder.end(flight, finished=1, failed=0, seconds=0, returned=0)
    memory[USED_AT] = 1  # It died before it could say that the slot is free.
    assert [call.begun.id for call in reader.ended()] == [b"1" * 8]
    assert reader.running() == []


def test_any_thread_may_ask_what_runs_while_another_one_reads():
    recorder, reader = pair()
    recorder.begin(b"1" * 8, label("runs", "c"), 1)
    is_over = threading.Event()

    def read() -> None:
        for number in itertools.count():
            run(recorder, number % 200)
            reader.has_ended(b"2" * 8)
            if is_over.is_set():
                return

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(1) as threads:
            reading = threads.submit(read)
            for _ in range(3000):
                assert next(call.function for call in reader.running()) == "runs"
            is_over.set()
            reading.result()
    finally:
        is_over.set()
        sys.setswitchinterval(before)


def test_calls_within_calls_are_all_recorded_and_the_first_few_shown():
    recorder, reader = pair()
    flights = [
        recorder.begin(number.to_bytes(8, "big"), label(f"f{number}", "c"), 1, is_inside=number > 0)
        for number in range(SLOTS + 3)
    ]
    assert [call.function for call in reader.running()] == [f"f{number}" for number in range(SLOTS)]
    assert reader.last_begun == bytes(8)
    for flight in reversed(flights):
        recorder.end(flight, finished=1, failed=0, seconds=0, returned=0)
    assert len(reader.ended()) == SLOTS + 3
    assert reader.running() == []


def test_a_forked_child_writes_nothing():
    recorder, reader = pair()
    child = os.fork()
    if not child:
        try:
            run(recorder, 1)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    run(recorder, 2)
    assert [call.begun.id[-1] for call in reader.ended()] == [2]
