"""The cluster of `dask://`: this file, run as a script. It ends with the program that has started it."""

import sys

if __name__ == "__main__":
    # Python put this file's folder on the path. What belongs there is the folder that holds the package.
    sys.path[0] = __file__.removesuffix("/distribute_challenge/client/dask/__main__.py")

    from distribute_challenge.client.dask.app import main

    sys.exit(main())
