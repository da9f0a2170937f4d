"""One worker, run by hand: `python3 worker.py 18812`."""

import sys

from distribute_challenge.worker.app import main

if __name__ == "__main__":
    sys.exit(main())
