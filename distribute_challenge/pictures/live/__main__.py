"""How the server starts the live page: this file, run as a script, whatever the current directory is."""

import sys

if __name__ == "__main__":
    # Python put this file's folder on the path. What belongs there is the folder that holds the package.
    sys.path[0] = __file__.removesuffix("/distribute_challenge/pictures/live/__main__.py")

    from distribute_challenge.pictures.live.app import main

    sys.exit(main())
