"""All peers, by the names that the command line and the results use."""

from __future__ import annotations

from benchmarks.peers.heavy import Dask, IPyParallel, Ray
from benchmarks.peers.light import Direct, Loky, NaiveRpyc, Pool, ProcessPool, RawRpyc
from benchmarks.peers.peer import Peer

PEERS: dict[str, type[Peer]] = {
    "pool": Pool,
    "raw": RawRpyc,
    "naive": NaiveRpyc,
    "direct": Direct,
    "processpool": ProcessPool,
    "loky": Loky,
    "dask": Dask,
    "ray": Ray,
    "ipyparallel": IPyParallel,
}
