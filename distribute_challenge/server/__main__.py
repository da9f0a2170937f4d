"""How a client starts a server of its own (`local://N`): this file, run as a script."""

import sys

if __name__ == "__main__":
    # Python put this file's folder on the path. What belongs there is the folder that holds the package.
    sys.path[0] = __file__.removesuffix("/distribute_challenge/server/__main__.py")

    from distribute_challenge.server.app import main

    sys.exit(main())
