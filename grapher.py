"""The pictures: `python3 grapher.py results_2.csv` draws a profile."""

import sys

from distribute_challenge.pictures.app import main

if __name__ == "__main__":
    sys.exit(main())
