"""The command `compute`, where it is not installed: `python3 -m distribute_challenge status`."""

import sys

from distribute_challenge.command import run

if __name__ == "__main__":
    sys.argv[0] = "compute"
    sys.exit(run())
