"""How far a reader has to walk: the functions of the package that one warm `run()` goes through, here.

    python3 benchmarks/hops.py [-v]

Counts calls of the package's functions in one warm `func(3).run()` on `local://1`, and how often one of
them is in another file than the one before. With -v, each of them.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from distribute_challenge import compute_this  # noqa: E402  It is found only now.

PACKAGE = str(ROOT / "distribute_challenge") + "/"


@compute_this(server="local://1")
def func(x: int) -> int:
    return x * x


def main() -> None:
    for _ in range(20):
        func(3).run()
    seen: list[tuple[str, str]] = []

    def note(frame: Any, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(PACKAGE):
            seen.append((code.co_filename.removeprefix(PACKAGE), code.co_name))

    sys.setprofile(note)
    try:
        value = func(3).run()
    finally:
        sys.setprofile(None)
    assert value == 9
    if "-v" in sys.argv:
        for file, name in seen:
            print(f"{file:36} {name}")
    switches = sum(before[0] != after[0] for before, after in itertools.pairwise(seen))
    print(
        f"{len(seen)} calls of functions of the package, {switches} times in another file than the one before"
    )


if __name__ == "__main__":
    main()
