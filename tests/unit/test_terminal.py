"""What `compute top` and `compute status` show of a state, without a pool."""

from __future__ import annotations

import io
from typing import Any

import pytest

from distribute_challenge.terminal import status, words

rich = pytest.importorskip("rich.console", reason="the extra [top] is not installed")

from distribute_challenge.terminal import top  # noqa: E402  It needs that.


def worker(port: int, since: float | None = None, **more: Any) -> dict[str, Any]:
    call = {"function": "simulate.<locals>.step", "client": "a_program_with_a_name.py:12345", "since": since}
    running = [] if since is None else [call]
    return {
        "port": port,
        "pid": 99,
        "state": "free" if since is None else "leased",
        "cpu": 99.5,
        "memory": 30 << 20,
        "running": running,
        **more,
    }


def state(workers: list[dict[str, Any]]) -> dict[str, Any]:
    counts = {"finished": 1204, "failed": 3, "waiting": 2, "tasks": 7, "lost": {"timeout": 1, "SIGSEGV": 2}}
    busy = [int(bool(worker["running"])) for worker in workers]
    return {"workers": workers, "busy": busy, **counts, "uptime": 7500.0, "now": 1000.0}


def drawn(shown: dict[str, Any], width: int, room: int = 100) -> list[str]:
    console = rich.Console(width=width, file=io.StringIO(), force_terminal=False, legacy_windows=False)
    console.print(top.picture("localhost:18811", shown, 12.41, room))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


@pytest.mark.parametrize("width", [40, 80, 200])
def test_all_fits_into_the_width(width: int):
    lines = drawn(state([worker(18812, 995.0), worker(18813)]), width)
    assert max(map(len, lines)) <= width
    assert any("18812" in line and "leased" in line for line in lines)


def test_eighty_columns_hold_what_matters():
    lines = drawn(state([worker(18812, 875.0), worker(18813, cpu=None, memory=None)]), 80)
    assert lines[0] == "localhost:18811, up 2 h 05 min, 12.4 tasks/s"
    counts = (
        "busy 1/2, waiting 2 clients and 7 tasks, finished 1,204, failed 3, lost 3 (2 SIGSEGV, 1 timeout)"
    )
    assert " ".join(lines[1:-3]).split() == counts.split()
    assert lines[-3].split() == ["WORKER", "STATE", "CPU", "MEMORY", "FOR", "FUNCTION", "CLIENT"]
    assert lines[-2].split()[:9] == ["18812", "leased", "100", "%", "30", "MiB", "2", "min", "05"]
    assert "simulate.<locals>.step" in lines[-2]
    assert lines[-1].split() == ["18813", "free"]


def test_where_workers_do_not_fit_those_are_shown_that_have_been_busy_longest():
    many = [worker(port, 900.0 if port == 18860 else None) for port in range(18812, 18876)]
    lines = drawn(state(many), 80, room=10)
    assert sum(line.strip().startswith("188") for line in lines) == 10
    assert any("18860" in line for line in lines)
    assert "and 54 more workers" in lines[-1]


def test_a_function_within_another_is_shown_behind_it():
    nested = worker(18812, 990.0)
    nested["running"].append({"function": "inner", "client": "x:1", "since": 999.0})
    assert words.function(nested) == "simulate.<locals>.step > inner"
    assert words.since(nested, 1000.0) == "10.0 s"


def test_a_worker_that_cannot_be_started_says_why():
    lines = drawn(state([worker(18812, problem="no memory", state="starting")]), 200)
    assert "cannot be started: no memory" in lines[-1]


def test_names_are_no_commands_for_the_terminal():
    """A client chooses them: neither the terminal nor rich's markup may obey."""
    evil = worker(18812, 990.0)
    evil["running"][0] |= {"function": "\x1b[2J[red]x[/]", "client": "\x1b]0;title\x07[bold]"}
    shown = [*drawn(state([evil]), 200), *status.table(state([evil]))]
    assert not any("\x1b" in line or "\x07" in line for line in shown)
    assert any("[red]x[/]" in line and "[bold]" in line for line in shown)


def test_names_are_no_markup():
    call = {"function": "f[bold]", "client": "run[best]:bug:.py:7", "since": 995.0}
    lines = drawn(state([worker(18812, running=[call], address="[/x]:1")]), 120)
    for name in ("f[bold]", "run[best]:bug:.py:7", "[/x]:1"):
        assert name in lines[-1]


@pytest.mark.parametrize(("client", "function"), [(60, 60), (60, 5), (5, 60), (12, 12)])
def test_the_table_of_status_fits_in_a_terminal(client: int, function: int):
    busy = worker(18812, 990.0)
    busy["running"] = [{"client": "c" * client, "function": "f" * function, "since": 990.0}]
    whole, cut = (list(status.table(state([busy]), *columns)) for columns in ((), (80,)))
    assert "c" * client in whole[1]
    assert "f" * function in whole[1]
    assert (whole == cut) == (client + function < 30)
    assert max(map(len, cut)) <= 81  # with the end of the line
    assert ("c" * client in cut[1]) == (client < 30)
    assert ("f" * function in cut[1]) == (function < 30)
    with_problem = list(status.table(state([busy, worker(18813, problem="p" * 80, state="starting")]), 80))
    assert "p" * 80 in with_problem[2]


def test_the_table_of_status_has_a_line_for_each_worker():
    lines = list(status.table(state([worker(18812, 990.0), worker(18813, pid=None, cpu=None, memory=None)])))
    assert [line.split()[0] for line in lines] == ["worker", "18812", "18813"]
    assert lines[0].index("client") == lines[1].index("a_program")
    assert lines[2] == lines[2].rstrip() + "\n"
