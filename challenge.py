"""The example: run func(x) on the pool. Type it in several shells at once."""

import time

from distribute_challenge import cli, compute_this


@compute_this
def func(x):
    time.sleep(x)
    return x * x


if __name__ == "__main__":
    x = cli.example_argument(__doc__, default=3)
    with cli.pool_errors_in_one_line():
        result = func(x).run()
    assert result == x * x, f"func({x}) is {result}, not {x * x}"
    print(f"func({x}) = {result}")
