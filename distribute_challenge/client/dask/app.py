"""A Dask cluster of one program: a scheduler and workers on this machine, until its owner ends."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence

from distribute_challenge.client.dask.cluster import check_installed
from distribute_challenge.errors import PoolError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cluster: `N --owner DESCRIPTOR` of a pipe whose other end the owner has; `--port PORT`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("workers", type=int)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--owner", type=int, required=True)
    options = parser.parse_args(arguments)
    os.set_inheritable(options.owner, False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program.
    try:
        check_installed()
    except PoolError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    from distributed import LocalCluster

    # Functions run beside the workers, and their memory is not the workers'.
    with LocalCluster(
        scheduler_port=options.port,
        n_workers=options.workers,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        memory_limit=0,
        # What closes tells of each other, and in it is nothing to be done about.
        silence_logs=logging.CRITICAL,
    ) as cluster:
        print(f"ready: {cluster.scheduler_address.partition('://')[2]}", flush=True)
        os.read(options.owner, 1)
    return 0
