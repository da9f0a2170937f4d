"""What the page and the report say in words and tables, as HTML. Everything that others wrote is escaped."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable, Sequence
from html import escape

from distribute_challenge.pictures.lanes import where as places_of
from distribute_challenge.pictures.live.data.record import Record
from distribute_challenge.pictures.live.page import key
from distribute_challenge.pictures.words import plural, short_time
from distribute_challenge.record.tasks import DONE

MOST_FUNCTIONS = 20
LONGEST_NAME = 60  # letters


def summary(record: Record, **more: str) -> str:
    """How things stand, in a few numbers; and `more` of them."""
    workers = record.workers
    failed = sum(record.statuses.values()) - record.statuses[DONE]
    numbers = [
        ("busy", f"{int(workers.busy.sum())} / {workers.present}")
        if record.is_written
        else ("workers", workers.count),
        ("finished", f"{record.statuses[DONE]:,}"),
        ("failed", f"{failed:,}"),
        ("clients in line", f"{record.waiting['clients']:,}"),
        ("tasks in line", f"{record.waiting['tasks']:,}"),
        ("workers lost", f"{workers.lost:,}"),
        *more.items(),
    ]
    shown = "".join(f"<div><dt>{what}<dd>{value}</div>" for what, value in numbers)
    return f"<dl class=numbers>{shown}</dl>"


def lanes(record: Record) -> list[str]:
    """What the lanes are called: the workers' numbers, from 1, and where they are."""
    workers = record.workers
    where = places_of(workers.places, {port: lane for lane, port in enumerate(workers.ports) if port})
    return [f"{lane + 1} {where.get(lane, '')}".rstrip() for lane in range(workers.count)]


def workers(record: Record) -> str:
    """Each worker: what it does, for whom, since when; what it takes."""
    now, found = record.now, []
    for lane, name in enumerate(lanes(record)):
        calls = record.workers.running[lane]
        held_s = now - record.workers.busy_since[lane]
        if record.workers.is_gone[lane]:
            state = "<i>gone</i>" if record.workers.places else "<em>being replaced</em>"
            who, since = "", held_s
        elif calls:
            names = " &rarr; ".join(escape(call.function[:LONGEST_NAME]) for call in calls)
            state, who, since = f"<b>{names}</b>", escape(calls[0].client), now - calls[0].since
        elif record.workers.busy[lane]:
            state, who, since = "held, nothing runs" if record.is_written else "busy", "", held_s
        else:
            state, who, since = "<i>free</i>", "", held_s
        cpu, memory = record.workers.cpu_percent[lane], record.workers.memory_bytes[lane]
        usage = (
            "" if math.isnan(cpu) else f"{cpu:.0f} %",
            "" if math.isnan(memory) else f"{memory / 2**20:,.0f} MiB",
        )
        found.append([name, state, short_time(max(since, 0)), who, *usage])
    return table(("worker", "runs", "for", "client", "CPU", "memory"), found, numbers=(2, 4, 5))


def functions(record: Record, colours: Sequence[str]) -> str:
    """The figures of the functions that took most time."""
    if not record.has_tasks:
        return "<p class=note>This record has no file of its tasks.</p>"
    shown = [record.figures.figures(number) for number in record.figures.by_time(MOST_FUNCTIONS)]
    rows = [
        [
            key(colours[of.function]) + escape(record.functions.names[of.function][:LONGEST_NAME]),
            f"{of.tasks:,}",
            f"<b class=bad>{of.failed:,}</b>" if of.failed else "0",
            *(short_time(seconds) for seconds in of[3:]),
        ]
        for of in shown
    ]
    titles = (
        "function",
        "tasks",
        "failed",
        "total",
        "run: mean",
        "median",
        "99 %",
        "wait: mean",
        "median",
        "99 %",
    )
    more = int((record.figures.tasks > 0).sum()) - len(shown)
    return table(titles, rows, numbers=range(1, 10)) + (
        f"<p class=note>and {plural(more, 'other')}</p>" if more else ""
    )


def failures(record: Record) -> str:
    """The newest failures, the newest first."""
    names = lanes(record)
    rows = [
        [
            time.strftime("%H:%M:%S", time.localtime(failure.time)),
            f"<b class=bad>{failure.status}</b>"
            + (f" &times; {failure.number}" if failure.number > 1 else ""),
            escape(failure.function[:LONGEST_NAME]),
            f"<div class=why>{escape(failure.error)}</div>",
            escape(failure.client),
            names[failure.lane],
        ]
        for failure in reversed(record.failures)
    ]
    if not rows:
        return "<p class=note>Nothing has failed.</p>"
    return table(("at", "how", "function", "why", "client", "worker"), rows)


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], numbers: Collection[int] = ()) -> str:
    """A table of HTML; columns of numbers are aligned to the right."""
    marks = [" class=n" if column in numbers else "" for column in range(len(titles))]
    head = "".join(f"<th{mark}>{title}" for mark, title in zip(marks, titles, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{mark}>{text}" for mark, text in zip(marks, row, strict=True)) for row in rows
    )
    return f"<div class=wide><table><thead><tr>{head}</thead><tbody>{body}</tbody></table></div>"
