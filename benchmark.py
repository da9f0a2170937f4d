"""The benchmark: `python3 benchmark.py` sweeps over workers and clients."""

import sys

from distribute_challenge.profile.sweep import main

if __name__ == "__main__":
    sys.exit(main())
