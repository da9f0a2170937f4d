"""`server.py --engine dask`: record what a Dask cluster does, as a server records what its pool does."""

from __future__ import annotations

import argparse
import functools
import importlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from distribute_challenge import cli
from distribute_challenge.address import DASK, DASK_PORT, DEFAULT_PORT, Address, dask_scheduler
from distribute_challenge.client.dask import cluster
from distribute_challenge.client.dask.freight import travelling
from distribute_challenge.cluster.recorder import Recorder
from distribute_challenge.cluster.service import ClusterService
from distribute_challenge.errors import PoolError
from distribute_challenge.record.statusline import StatusLine
from distribute_challenge.server.app import raise_descriptor_limit
from distribute_challenge.server.dashboard import Dashboard
from distribute_challenge.server.mailbox import Mailbox
from distribute_challenge.server.wiring import open_recorder
from distribute_challenge.tls import Tls
from distribute_challenge.wire.acceptor import Acceptor
from distribute_challenge.wire.stream import KIBI
from distribute_challenge.wire.tls import authenticator

log = logging.getLogger(__name__)

FETCH_S = 0.2
CLOSE_S = 5.0


class Problem(NamedTuple):
    """Why the record ends, unless a signal says so."""

    text: str
    has_gone: bool  # the scheduler, and what ran on its workers


def main(arguments: Sequence[str] | None = None) -> int:
    """Record a cluster until a signal; the exit code."""
    cli.open_standard_descriptors()
    options = parse(arguments)
    raise_descriptor_limit()
    line = StatusLine.set_up_log(is_wanted=not options.quiet, is_verbose=options.verbose)
    mailbox: Mailbox[Problem | str] = Mailbox()
    mailbox.post_signals(cli.stop_signals(), lambda it: it.name)
    tls = cli.tls_in(options)
    listen = functools.partial(cli.listen, options.host, with_tls=tls is not None)
    listener = listen(options.port)
    scraped = None if options.metrics_port is None else listen(options.metrics_port, "another --metrics-port")
    own = None
    with cli.pool_errors_in_one_line():
        if options.scheduler is None:
            own = cluster.LocalCluster(options.workers, DASK_PORT if options.port else 0)
            options.scheduler = own.address()
        client = cluster.connect(options.scheduler, None if own is not None else tls)
    code = 1
    try:
        code = _record(options, mailbox, client, tls, listener, scraped, line)
    finally:
        line.end()
        ending = threading.Thread(target=client.close, name="closing", daemon=True)
        ending.start()
        ending.join(CLOSE_S)
        if own is not None:
            own.close()
        if ending.is_alive():  # The scheduler does not answer, and Dask would wait for it at the end, too.
            sys.stdout.flush()
            os._exit(code)
    return code


def _record(
    options: Any,
    mailbox: Mailbox[Problem | str],
    client: Any,
    tls: Tls | None,
    listener: Any,
    scraped: Any,
    line: Any,
) -> int:
    """Record what `client` sees, until there is mail."""
    observer = importlib.import_module("distribute_challenge.cluster.observer").Observer(client.id)
    client.register_plugin(observer, name=observer.name)
    fetch = functools.partial(client.run_on_scheduler, _fetch_notes, observer.name)
    first = fetch()
    threads = sum(note[4] for note in first["notes"] if note[0] == "joined")
    place = f"{DASK}{options.scheduler}"
    dashboard = None
    if options.dashboard_address is not None:
        dashboard = Dashboard(options.dashboard_address, tls)
    recorder = open_recorder(
        options,
        options.workers or threads,
        lambda path: Recorder(path, place, options.interval),
        "nothing is recorded",
    )
    recorder.take(first)
    if dashboard is not None:
        dashboard.show(recorder.path)
    acceptor = Acceptor(
        listener,
        lambda: ClusterService(recorder.status),
        max_frame_bytes=64 * KIBI,
        admit=authenticator(tls, any_local_user=False),
    )
    acceptor.start("accept")
    address = Address(*listener.getsockname()[:2])
    recorded = f"the record is {recorder.path}" if recorder.path else "nothing is recorded"
    workers = f"{threads} workers" if threads != 1 else "1 worker"
    print(f"ready: {address}, records the cluster at {place}, {workers}; {recorded}", flush=True)
    if dashboard is not None:
        dashboard.start()
        print(f"live: {dashboard.url}", flush=True)
    if scraped is not None:
        from distribute_challenge.record.metrics import Metrics, MetricsServer  # Late: it is an extra.

        metrics = Metrics(recorder.status, recorder.cpu_seconds)
        recorder.task_rows.on_row = metrics.add
        MetricsServer(scraped, metrics, None if tls is None else authenticator(tls)).start()
        scrape = Address(*scraped.getsockname()[:2])
        print(f"metrics: http{'s' * (tls is not None)}://{scrape}/metrics", flush=True)
    line.start(recorder.status)
    fetching = threading.Thread(
        target=_keep_fetching, args=(fetch, recorder, mailbox, place), name="fetching", daemon=True
    )
    fetching.start()
    mail = mailbox.read()
    try:
        recorder.close(has_gone=isinstance(mail, Problem) and mail.has_gone)
        acceptor.close()
        if dashboard is not None:
            dashboard.stop()
        listener.close()
    finally:
        if isinstance(mail, Problem):
            sys.stderr.write(f"{cli.program()}: {mail.text}\n")
    return int(isinstance(mail, Problem))


def _keep_fetching(
    fetch: Callable[[], Mapping[str, Any]], recorder: Recorder, mailbox: Mailbox[Problem | str], place: str
) -> None:
    """Fetch and record. In a thread of its own: a scheduler that was stopped does not answer."""

    def ends(problem: str, error: Exception, *, has_gone: bool) -> None:
        log.debug("the record ends", exc_info=True)
        mailbox.post(Problem(f"{problem} ({error})", has_gone))

    while True:
        try:
            fetched = fetch()
        except KeyError as error:
            ends(f"the Dask scheduler at {place} has lost the observer", error, has_gone=False)
            return
        except Exception as error:  # Dask raises many kinds.
            ends(f"the Dask scheduler at {place} has gone", error, has_gone=True)
            return
        try:
            if not recorder.take(fetched):
                return
        except Exception as error:
            ends("the record of the cluster cannot go on", error, has_gone=False)
            return
        time.sleep(FETCH_S)  # Notes are gathered at the scheduler: each fetch costs it some time.


@travelling
def _fetch_notes(name: str, dask_scheduler: Any = None) -> Any:
    return dask_scheduler.plugins[name].fetch()


def parse(arguments: Sequence[str] | None) -> Any:
    """The command line."""
    parser = cli.Parser(
        "Record what a Dask cluster does: one that runs, or one of N workers on this machine."
    )
    add = parser.add_argument
    workers = "start a cluster of so many workers, which ends with this program"
    add("workers", metavar="N", nargs="?", type=cli.number_of("workers"), help=workers)
    which = "dask, and the address of a scheduler that runs, like tcp://10.0.0.5:8786"
    add("--engine", metavar=("dask", "ADDRESS"), nargs="+", required=True, help=which)
    add("--host", default="127.0.0.1", help="the address to listen on (127.0.0.1)")
    port = f"for `compute status` and `top` ({DEFAULT_PORT}). 0: the system picks one, and the scheduler's"
    add("--port", type=cli.port_number, default=DEFAULT_PORT, help=port)
    add("--profile", metavar="FILE", help="where the record goes (profiling/results_N.csv), or `none`")
    interval = "seconds between samples of what the workers take (0.5)"
    add("--interval", metavar="S", type=cli.interval, default=0.5, help=interval)
    where = "serve a live page there (like 127.0.0.1:8787; port 0: the system picks one)"
    add("--dashboard-address", metavar="HOST:PORT", type=cli.place, help=where)
    metrics = "serve metrics for Prometheus on this port, like 9464 (extra [metrics])"
    add("--metrics-port", metavar="PORT", type=cli.port_number, help=metrics)
    cli.add_tls(parser)
    add("-q", dest="quiet", action="store_true", help="no status line on the terminal")
    add("-v", dest="verbose", action="store_true", help="log what happens, on stderr")
    parser.set_defaults(owner=None)  # No program owns the record of a cluster.
    options = parser.parse_args(arguments)
    options.scheduler = scheduler_in(parser, options)
    try:
        cluster.check_installed()
    except PoolError as error:
        parser.error(str(error))
    if options.metrics_port is not None:
        with cli.extra("metrics"):
            importlib.import_module("prometheus_client")
    return options


def scheduler_in(parser: argparse.ArgumentParser, options: Any) -> Address | None:
    """The address behind `--engine dask`; None for a cluster of this program's own."""
    engine, *rest = options.engine
    if engine != "dask" or len(rest) > 1:
        parser.error("write --engine dask, or --engine dask ADDRESS, like tcp://10.0.0.5:8786")
    if not rest:
        if options.workers is None:
            parser.error("say how many workers to start, N, or the ADDRESS of a Dask scheduler that runs")
        return None
    if options.workers is not None:
        parser.error("a cluster that runs has its workers: leave out N, or the ADDRESS")
    scheme, has_scheme, place = rest[0].partition("://")
    if not (place if has_scheme else rest[0]) or (has_scheme and scheme not in ("tcp", "tls", "dask")):
        parser.error(f"{rest[0]!r} is no address of a Dask scheduler: write it like tcp://10.0.0.5:8786")
    try:
        return dask_scheduler(DASK + (place if has_scheme else rest[0]))
    except ValueError as error:
        parser.error(str(error))
    return None
