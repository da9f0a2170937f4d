"""The pictures: `python3 grapher.py results_2.csv` draws a profile."""

import sys

from distribute_challenge.command import run

if __name__ == "__main__":
    sys.exit(run("graph"))
