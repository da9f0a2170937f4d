"""The parts of a pool put together, its signals, and the order in which it stops."""

from __future__ import annotations

import enum
import errno
import functools
import importlib
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from distribute_challenge import cli
from distribute_challenge.address import Address
from distribute_challenge.processors import THREAD_VARIABLES, thread_limits
from distribute_challenge.record.sampler import Sampler
from distribute_challenge.record.statusline import StatusLine
from distribute_challenge.server.caller import Caller
from distribute_challenge.server.dashboard import Dashboard
from distribute_challenge.server.dispatcher import Dispatcher
from distribute_challenge.server.fresh import FreshScheduler
from distribute_challenge.server.mailbox import Mailbox
from distribute_challenge.server.service import PoolState, SchedulerService, serve
from distribute_challenge.server.workers.supervisor import Supervisor
from distribute_challenge.server.workers.template import Template
from distribute_challenge.wire.acceptor import Acceptor
from distribute_challenge.wire.stream import KIBI
from distribute_challenge.wire.tls import authenticator

log = logging.getLogger(__name__)

T = TypeVar("T")

UNDER_WAY_S = 0.2


class Stop(NamedTuple):
    """Why the server stops: a signal, after which functions may end, or what makes going on pointless."""

    reason: str
    exit_code: int
    grace_s: float | None = None


class Progress(enum.Enum):
    """The events that the main thread waits for."""

    ALL_UP = "every worker has answered"
    IDLE = "no worker is leased any more"


def serve_pool(options: Any, template: Template) -> int:
    """Serve a pool with the options of the command line until a signal; the exit code."""
    is_private = options.owner is not None
    line = StatusLine.set_up_log(
        is_wanted=not options.quiet, is_verbose=options.verbose, is_private=is_private
    )
    # Signal handlers, keepers and the dispatcher only post; this thread, the main one, acts.
    mailbox: Mailbox[Stop | Progress] = Mailbox()
    mailbox.post_signals(cli.stop_signals(), lambda it: Stop(it.name, 0, options.grace))
    if is_private:
        mailbox.post_end_of(options.owner, Stop("its owner has ended", 0))

    tls = cli.tls_in(options)
    listen = functools.partial(cli.listen, options.host, with_tls=tls is not None)
    listener = listen(options.port)
    address = Address(*listener.getsockname()[:2])
    worker_ports = [address.port + number if options.port else 0 for number in range(1, options.workers + 1)]
    # The files of the record number workers in the order of their ports.
    other = "another --port: workers have the ports after it"
    listeners = sorted([listen(port, other) for port in worker_ports], key=lambda sock: sock.getsockname()[1])
    ports = [listener.getsockname()[1] for listener in listeners]
    scraped = None if options.metrics_port is None else listen(options.metrics_port, "another --metrics-port")
    limits = thread_limits(options.threads, options.workers)
    supervisor = Supervisor(
        template,
        listeners,
        address if tls is None else address.as_named(options.host),
        tls,
        on_failure=lambda reason: mailbox.post(Stop(reason, 1)),
        worker_options=[
            *("--max-frame", str(options.max_frame)),
            *(["--allow-any-local-user"] * options.allow_any_local_user),
        ],
        environment=limits,
    )
    dashboard = None
    if options.dashboard_address is not None:
        dashboard = Dashboard(options.dashboard_address, tls)
    sampler = open_recorder(
        options,
        options.workers,
        lambda path: Sampler(path, ports, options.interval, supervisor.processes),
        "the pool works without it",
    )
    if dashboard is not None:
        dashboard.show(sampler.path)
    supervisor.on_gone = lambda worker, process: sampler.worker_gone(worker, process.flight, process.end)
    scheduler: FreshScheduler[Caller] | None = None
    if options.fresh:
        scheduler = FreshScheduler(options.workers, lambda caller: caller.program, supervisor.has_run)
    dispatcher = Dispatcher(
        options.workers,
        max_tasks=options.max_tasks,
        scheduler=scheduler,
        process=supervisor.process,
        record=sampler.record,
        on_all_up=lambda: mailbox.post(Progress.ALL_UP),
        on_idle=lambda: mailbox.post(Progress.IDLE),
    )
    sampler.on_inside, sampler.on_close = dispatcher.count, dispatcher.record_stop
    fixed = {name: getattr(options, name) for name in ("max_tasks", "max_frame", "fresh")}
    fixed["threads"] = {name: {**os.environ, **limits}[name] for name in THREAD_VARIABLES}
    pool = PoolState(dispatcher, supervisor, sampler, ports, fixed)
    if options.memory_limit is not None:
        sampler.on_sample = functools.partial(supervisor.kill_the_greedy, options.memory_limit)
    if scraped is not None:
        from distribute_challenge.record.metrics import Metrics, MetricsServer  # Late: it is an extra.

        metrics = Metrics(pool.status, lambda: sampler.cpu_seconds)
        sampler.task_rows.on_row = metrics.add
        MetricsServer(scraped, metrics, None if tls is None else authenticator(tls)).start()
    acceptor = Acceptor(
        listener,
        lambda: SchedulerService(pool),
        max_frame_bytes=64 * KIBI,
        admit=authenticator(tls, any_local_user=options.allow_any_local_user),
        serve=serve,
    )

    supervisor.start(dispatcher)
    try:
        # psutil takes a tenth of a second, and workers start meanwhile.
        importlib.import_module("distribute_challenge.record.meter")
        stop = mailbox.read()
        if stop is Progress.ALL_UP:
            sampler.start()
            acceptor.start("accept")
            print(ready_line(address, ports, sampler.path), flush=True)
            if dashboard is not None:
                template.orphans.known.add(dashboard.start())
                print(f"live: {dashboard.url}", flush=True)
            if scraped is not None:
                place = Address(*scraped.getsockname()[:2])
                print(f"metrics: http{'s' * (tls is not None)}://{place}/metrics", flush=True)
            line.start(lambda: dispatcher.snapshot()[1])
            stop = mailbox.read()
        assert isinstance(stop, Stop)
        log.info("stopping: %s", stop.reason)
        # First nobody gets a worker any more. Those who wait are told, and so is whoever still connects.
        dispatcher.close()
        # Then running functions may end. A second signal, or a worker's failure, cuts that short.
        if stop.grace_s is not None:
            await_idle(mailbox, stop, pool)
    finally:
        # Only then the workers go, which is no loss to record; their clients are told first, by a hang-up.
        line.end()
        dispatcher.end()
        acceptor.close()
        supervisor.stop()
        sampler.close()
        if dashboard is not None:
            dashboard.stop()
        for sock in (listener, *listeners):
            sock.close()
    if stop.exit_code:
        sys.stderr.write(f"{cli.program()}: {stop.reason}\n")
    return stop.exit_code


def open_recorder(options: Any, workers: int, make: Callable[[Path | None], T], without: str) -> T:
    """What `make` makes of the path of the record. None is no path: nothing is recorded.

    Where the user named a place, failing to write there is wrong input; else it is said, and what is done
    `without`.
    """
    if options.profile == "none":
        return make(None)
    path = Path(f"profiling/results_{workers}.csv" if options.profile is None else options.profile)
    try:
        if options.profile is None:
            path.parent.mkdir(exist_ok=True)
        return make(path) if options.owner is None else _make_numbered(path, make)
    except OSError as error:
        problem = f"cannot write the profile {path} ({error.strerror})"
        if options.profile is not None:
            cli.fail(f"{problem}: choose another --profile, or `none`")
        log.error("%s; %s. To have one, choose another --profile", problem, without)
        return make(None)


def _make_numbered(path: Path, make: Callable[[Path | None], T]) -> T:
    """Private pools that are told one path write to NAME.csv, NAME-2.csv, ...: the first not in use."""
    wanted, number = path, 1
    while True:
        try:
            return make(path)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
        number += 1
        path = wanted.with_stem(f"{wanted.stem}-{number}")


def ready_line(address: Address, ports: list[int], profile: Path | None) -> str:
    """The line that the server prints when every worker answers."""
    workers = f"{len(ports)} workers on ports" if len(ports) > 1 else "1 worker on port"
    recorded = f"the record is {profile}" if profile else "nothing is recorded"
    return f"ready: {address}, {workers} {', '.join(map(str, ports))}; {recorded}"


def await_idle(mailbox: Mailbox[Stop | Progress], stop: Stop, pool: PoolState) -> None:
    """Wait, and say for what, until no worker is leased; as long as `stop` has it, or until a signal."""
    grace_s = stop.grace_s or 0
    began = time.monotonic()
    # What clients gave back just now is still under way: of that, nothing needs to be said.
    mail = _read(mailbox, began + min(grace_s / 2, UNDER_WAY_S))
    if mail is None and grace_s and (work := pool.work()):
        log.warning("%s: waiting up to %s s for %s; a second signal kills them", stop.reason, grace_s, work)
        mail = _read(mailbox, began + grace_s)
    if mail is not Progress.IDLE and (work := pool.work()):
        log.warning("killing %s", work)


def _read(mailbox: Mailbox[Stop | Progress], deadline: float) -> Stop | Progress | None:
    """The next message that counts when the server stops; None after `deadline`."""
    while (mail := mailbox.read(deadline - time.monotonic())) is Progress.ALL_UP:
        continue
    return mail
