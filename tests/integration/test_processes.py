"""Functions that start processes of their own, with each way that `multiprocessing` has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.running import HANG_S, ROOT, RunningServer

PROGRAM = """
import multiprocessing, sys, threading
from concurrent.futures import ProcessPoolExecutor
from distribute_challenge import compute_this

context = multiprocessing.get_context(sys.argv[1])
factor = 3

class Point:
    def __init__(self, x): self.x = x

class Tag(Point): pass  # No function mentions it.

class Child(context.Process):
    def __init__(self, queue):
        super().__init__()
        self.queue = queue
    def run(self): self.queue.put(scaled(Point(4)))

def scaled(point): return Point(point.x * factor)

def same(x): return x

def put(queue): queue.put(scaled(Point(3)))

@compute_this
def everything(method, tag):
    global lock
    lock = threading.Lock()  # No child can have that, and none asks for it.
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        points = list(executor.map(scaled, [Point(1)]))
        assert type(executor.submit(same, tag).result()) is type(tag)
    with context.Pool(1) as pool:
        points += pool.map(scaled, [Point(2)])
    queue = context.SimpleQueue()
    for process in (context.Process(target=put, args=(queue,)), Child(queue)):
        process.start()
        points.append(queue.get())
        process.join()
    return [(point.x, type(point) is Point) for point in points]

print(everything(sys.argv[1], Tag(5)).run())
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_child_processes_of_a_function_know_the_functions_and_classes_of_the_script(
    server: RunningServer, method: str, tmp_path: Path
):
    path = tmp_path / "script.py"
    path.write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(path), method]
    result = subprocess.run(command, capture_output=True, text=True, timeout=HANG_S, env=environment)
    assert (result.stdout, result.stderr) == ("[(3, True), (6, True), (9, True), (12, True)]\n", "")


LATE = """
import annotationlib, dataclasses
from distribute_challenge import compute_this

class Plain:
    def method(self, x: NotDefined) -> Plain: return x

@dataclasses.dataclass
class Node:
    left: Node | None = None
    right: NotDefined | None = None
    n: int = 1

@compute_this
def look(node: Later, plain: Plain) -> Node:
    as_text = lambda of: annotationlib.get_annotations(of, format=annotationlib.Format.STRING)
    return as_text(type(node)), as_text(plain.method), dataclasses.replace(node, n=plain.method(4))

for _ in range(2):
    print(look(Node(), Plain()).run())
"""


@pytest.mark.skipif(sys.version_info < (3, 14), reason="annotations are worked out late from Python 3.14 on")
def test_annotations_that_cannot_be_worked_out_yet_travel(server: RunningServer, tmp_path: Path):
    path = tmp_path / "script.py"
    path.write_text(LATE)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=HANG_S, env=environment)
    of_class = "{'left': 'Node | None', 'right': 'NotDefined | None', 'n': 'int'}"
    of_method = "{'x': 'NotDefined', 'return': 'Plain'}"
    line = f"({of_class}, {of_method}, Node(left=None, right=None, n=4))\n"
    assert (result.stdout, result.stderr) == (2 * line, "")
