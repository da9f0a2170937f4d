"""Servers and workers start at once and stay small: they import nothing that they do not need."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.running import ROOT

HEAVY = ("numpy", "pandas", "matplotlib", "tqdm", "asyncio", "multiprocessing")


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("distribute_challenge.server.app", (*HEAVY, "cloudpickle", "distribute_challenge.client")),
        ("distribute_challenge.worker.app", (*HEAVY, "cloudpickle", "psutil", "distribute_challenge.client")),
        ("distribute_challenge", (*HEAVY, "cloudpickle", "psutil", "rpyc")),
        ("distribute_challenge.client.compute", HEAVY),
        # The server of a private pool starts while the rest is imported.
        ("distribute_challenge.client.pool", (*HEAVY, "cloudpickle", "rpyc", "ssl")),
        ("distribute_challenge.client.running.engine", ("dask", "distributed", "tornado")),
    ],
)
def test_what_a_process_does_not_need_is_not_imported(module: str, unwanted: tuple[str, ...]):
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {module}; print(*sys.modules)"
    loaded = set(subprocess.check_output([sys.executable, "-c", code], text=True).split())
    assert module in loaded
    assert loaded.isdisjoint(unwanted)


def test_what_server_and_workers_need_is_imported_once():
    """Before the template of workers is forked."""
    both = "rpyc", "distribute_challenge.wire.serving", "distribute_challenge.record.flight"
    code = "import distribute_challenge.server.app, sys; print(*sys.modules)"
    assert set(both) <= set(
        subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).split()
    )
