"""What functions log on workers reaches the program's own loggers, if it wants that."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from distribute_challenge import PoolExecutor, compute_this, forward_logging
from distribute_challenge.calls.logs import forwarded
from tests.running import HANG_S, RunningServer, eventually

CHAT = "test.chat"


@pytest.fixture(autouse=True)
def nothing_is_forwarded_afterwards() -> Iterator[None]:
    yield
    forwarded.clear()


def talk(word: str) -> int:
    logging.getLogger(CHAT).info("%s has %d letters", word, len(word))
    return os.getpid()


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("test")]


def test_nothing_is_forwarded_unless_asked_for(used_server: RunningServer, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    compute_this(talk)("hello").run()
    assert messages(caplog) == []


@pytest.mark.parametrize("prints", [True, False])
@pytest.mark.parametrize("way", ["run", "submit", "map"])
def test_a_record_arrives_as_it_was_made(
    used_server: RunningServer, caplog: pytest.LogCaptureFixture, way: str, prints: bool
):
    caplog.set_level(logging.INFO)
    forward_logging()
    with PoolExecutor(prints=prints) as pool:
        if way == "run":
            pid = compute_this(talk, prints=prints)("hello").run()
        elif way == "submit":
            pid = pool.submit(talk, "hello").result()
        else:
            (pid,) = pool.map(talk, ["hello"])
    (record,) = [record for record in caplog.records if record.name == CHAT]
    assert record.getMessage() == "hello has 5 letters"
    assert (record.levelname, record.funcName, record.process) == ("INFO", "talk", pid)
    assert record.pathname == __file__


def test_the_levels_of_the_program_hold(used_server: RunningServer, caplog: pytest.LogCaptureFixture):
    def many() -> tuple[bool, int]:
        for level in ("debug", "info", "warning", "error"):
            for name in ("test", "test.quiet", "test.quiet.deep", "test.loud"):
                getattr(logging.getLogger(name), level)("%s %s", name, level)
        return logging.getLogger("test.loud").isEnabledFor(logging.DEBUG), len(
            logging.getLogger("test").handlers
        )

    caplog.set_level(logging.WARNING, "test")
    caplog.set_level(logging.DEBUG, "test.loud")
    forward_logging("test")
    forward_logging("test.quiet", "ERROR")
    forward_logging("test.loud")
    for _ in range(2):  # Each call leaves the worker's loggers as they were.
        caplog.clear()
        compute_this(many)().run()
        assert messages(caplog) == [
            *("test.loud debug", "test.loud info"),
            *("test warning", "test.loud warning"),
            *("test error", "test.quiet error", "test.quiet.deep error", "test.loud error"),
        ]
    forwarded.clear()
    assert compute_this(many)().run() == (False, 0)


def test_records_come_in_order_with_what_is_printed(
    used_server: RunningServer, capsys: pytest.CaptureFixture[str]
):
    def both() -> None:
        for number in range(3):
            print("print", number)
            logging.getLogger(CHAT).warning("log %d", number)
        print("the end", end="")

    handler = logging.StreamHandler(sys.stdout)
    logging.getLogger(CHAT).addHandler(handler)
    forward_logging(CHAT)
    try:
        compute_this(both)().run()
    finally:
        logging.getLogger(CHAT).removeHandler(handler)
    lines = [f"{what} {number}" for number in range(3) for what in ("print", "log")]
    assert capsys.readouterr().out.split("\n") == [*lines, "the end"]


def test_a_record_arrives_while_its_function_runs(used_server: RunningServer, tmp_path: Any):
    def wait_for(path: str) -> None:
        logging.getLogger(CHAT).warning("waiting")
        while not Path(path).exists():
            time.sleep(0.001)

    heard = threading.Event()
    handler = logging.Handler()
    handler.emit = lambda _: heard.set()  # type: ignore[method-assign]
    logging.getLogger(CHAT).addHandler(handler)
    forward_logging(CHAT)
    try:
        with PoolExecutor() as pool:
            future = pool.submit(wait_for, str(tmp_path / "go"))
            assert heard.wait(60)
            assert not future.done()
            (tmp_path / "go").touch()
            future.result()
    finally:
        logging.getLogger(CHAT).removeHandler(handler)


def test_what_travels_badly_is_its_text(used_server: RunningServer, caplog: pytest.LogCaptureFixture):
    def fail() -> None:
        try:
            raise KeyError("nothing here")
        except KeyError:
            logging.getLogger(CHAT).exception(
                "failed with %r", threading.Lock(), extra={"lock": threading.Lock()}
            )

    forward_logging()
    compute_this(fail)().run()
    (record,) = [record for record in caplog.records if record.name == CHAT]
    assert record.getMessage().startswith("failed with <unlocked _thread.lock")
    assert "KeyError: 'nothing here'" in record.getMessage()
    assert record.__dict__["lock"].startswith("<unlocked _thread.lock")


def test_what_functions_of_functions_log_arrives_once(
    start_server: Callable[..., RunningServer], caplog: pytest.LogCaptureFixture
):
    server = start_server(2)

    def outer() -> None:
        with PoolExecutor() as pool:
            list(pool.map(talk, ["one", "three"]))
        talk("outer")

    caplog.set_level(logging.INFO)
    forward_logging()
    compute_this(outer, server=server.address)().run()
    assert sorted(messages(caplog)) == ["one has 3 letters", "outer has 5 letters", "three has 5 letters"]


def test_loggers_have_levels_of_their_own_and_need_not_pass_on(
    used_server: RunningServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    def speak() -> None:
        for name in ("test.deep", "test.alone"):
            logging.getLogger(name).propagate = name != "test.alone"
            for level in ("debug", "warning"):
                getattr(logging.getLogger(name), level)("%s %s", name, level)

    caplog.set_level(logging.WARNING)
    caplog.set_level(logging.DEBUG, "test.deep")
    caplog.set_level(logging.DEBUG, "test.alone")
    forward_logging("root")
    forward_logging("test.alone", logging.INFO)
    compute_this(speak)().run()
    assert messages(caplog) == ["test.deep debug", "test.deep warning", "test.alone warning"]


def test_a_program_may_have_thousands_of_loggers(
    used_server: RunningServer, caplog: pytest.LogCaptureFixture
):
    names = [f"test.many.{'x' * 40}{number}" for number in range(2000)]
    caplog.set_level(logging.INFO)
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        forward_logging()
        compute_this(talk)("hello").run()
    finally:
        for name in names:
            del logging.root.manager.loggerDict[name]
    assert messages(caplog) == ["hello has 5 letters"]


def test_a_record_of_any_name_arrives(used_server: RunningServer, caplog: pytest.LogCaptureFixture):
    def hand_on() -> None:
        record = logging.LogRecord("test.other", logging.ERROR, "a.py", 1, "not its own", None, None)
        logging.getLogger("test.chat").handle(record)

    forward_logging(CHAT)
    compute_this(hand_on)().run()
    assert messages(caplog) == ["not its own"]


@pytest.mark.parametrize("way", ["run", "submit", "map"])
def test_a_handler_may_use_the_pool(used_server: RunningServer, way: str):
    results: list[Any] = []
    handler = logging.Handler()
    handler.emit = lambda _: results.append(pool.submit(pow, 2, 3).result(HANG_S))  # type: ignore[method-assign]
    logger = logging.getLogger("test.handler")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)

    def log() -> int:
        logging.getLogger("test.handler").info("here")
        return 1

    forward_logging("test.handler")
    try:
        with PoolExecutor() as pool:
            if way == "run":
                assert compute_this(log)().run() == 1
            elif way == "submit":
                assert [future.result(HANG_S) for future in [pool.submit(log) for _ in range(4)]] == [1] * 4
            else:
                assert list(pool.map(lambda _: log(), range(4))) == [1] * 4
            expected = [8] * (1 if way == "run" else 4)
            eventually(lambda: results == expected, "each record was handled")
    finally:
        logger.removeHandler(handler)


@pytest.mark.parametrize("way", ["run", "submit"])
@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit(), OSError("no space left")])
def test_whatever_a_handler_raises_the_result_arrives(
    used_server: RunningServer, way: str, error: BaseException
):
    def bad(_: logging.LogRecord) -> bool:
        raise error

    logging.getLogger(CHAT).addFilter(bad)
    logging.getLogger(CHAT).setLevel(logging.INFO)
    forward_logging(CHAT)
    try:
        with PoolExecutor() as pool:
            for _ in range(2):
                future = None if way == "run" else pool.submit(talk, "hello")
                assert (compute_this(talk)("hello").run() if future is None else future.result(HANG_S)) > 0
    finally:
        logging.getLogger(CHAT).removeFilter(bad)
        logging.getLogger(CHAT).setLevel(logging.NOTSET)


def set_level(level: int) -> int:
    """Set a logger's level, if that is not 0. Which one the logger had."""
    logger = logging.getLogger(CHAT)
    before = logger.level
    if level:
        logger.setLevel(level)
    return before


def test_a_level_that_a_function_sets_is_the_one_that_stays(
    start_server: Callable[..., RunningServer], caplog: pytest.LogCaptureFixture
):
    server = start_server(1)
    caplog.set_level(logging.INFO, CHAT)
    forward_logging(CHAT)
    with PoolExecutor(server.address) as pool:
        assert pool.submit(set_level, 0).result() == logging.INFO
        assert pool.submit(set_level, logging.ERROR).result() == logging.INFO
        forwarded.clear()
        assert pool.submit(set_level, 0).result() == logging.ERROR


def test_a_level_that_does_not_exist_is_refused_at_once():
    with pytest.raises(ValueError, match="LOUD"):
        forward_logging(level="LOUD")


@pytest.mark.parametrize("name", [5, logging.getLogger("test")])
def test_what_is_no_name_is_refused_at_once(name: Any):
    with pytest.raises(TypeError, match="name of a logger, or None for all"):
        forward_logging(name)
