"""The server: `python3 server.py 2` starts a pool of two workers."""

import sys

from distribute_challenge.command import run

if __name__ == "__main__":
    sys.exit(run("server"))
