"""The benchmark: `python3 benchmark.py` sweeps over workers and clients."""

import sys

from distribute_challenge.command import run

if __name__ == "__main__":
    sys.exit(run("benchmark"))
