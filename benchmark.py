"""The benchmark: `python3 benchmark.py` sweeps over workers and clients."""

import sys

from distribute_challenge.sweep.app import main

if __name__ == "__main__":
    sys.exit(main())
