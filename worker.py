"""One worker, run by hand: `python3 worker.py 18812`."""

import sys

from distribute_challenge.command import run

if __name__ == "__main__":
    sys.exit(run("worker"))
