"""The server: `python3 server.py 2` starts a pool of two workers."""

import sys

from distribute_challenge.server.app import main

if __name__ == "__main__":
    sys.exit(main())
