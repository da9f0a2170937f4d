"""All peers, by the names that the command line and the results use."""

from __future__ import annotations

from benchmarks.peers.heavy import Dask, IPyParallel, Ray
from benchmarks.peers.light import (
    Direct,
    Joblib,
    Loky,
    NaiveRpyc,
    Pebble,
    Pool,
    Private,
    ProcessPool,
    ProcessPoolServer,
    RawRpyc,
)
from benchmarks.peers.peer import Peer

PEERS: dict[str, type[Peer]] = {
    "pool": Pool,
    "private": Private,
    "raw": RawRpyc,
    "naive": NaiveRpyc,
    "direct": Direct,
    "processpool": ProcessPool,
    "forkserver": ProcessPoolServer,
    "loky": Loky,
    "joblib": Joblib,
    "pebble": Pebble,
    "dask": Dask,
    "ray": Ray,
    "ipyparallel": IPyParallel,
}
