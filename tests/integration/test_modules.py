"""The user's own modules on workers: imported once for each program, from what it has, and kept apart."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distribute_challenge import PoolExecutor, compute_this
from tests.running import HANG_S, ROOT, RunningServer


@pytest.fixture
def server(used_server: RunningServer) -> RunningServer:
    return used_server


def run_program(server: RunningServer, folder: Path, text: str, *options: str, **files: str) -> list[str]:
    """What a program prints, line by line, which has these modules beside it."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.py").write_text(content)
    program = folder / "program.py"
    program.write_text(f"from distribute_challenge import PoolExecutor, compute_this\n{text}")
    done = subprocess.run(
        [sys.executable, *options, str(program)],
        env={**os.environ, "COMPUTE_SERVER": server.address, "PYTHONPATH": str(ROOT)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


HOLDS = """
import contextvars, ctypes, sqlite3, tempfile, threading, weakref
lock, local, refs = threading.Lock(), threading.local(), weakref.WeakValueDictionary()
libc, file, db = ctypes.CDLL(None), tempfile.TemporaryFile(), sqlite3.connect(":memory:")
variable = contextvars.ContextVar("variable", default=2)
missing = object()
counter = {"n": 0}

def with_lock(x):
    with lock: return x
def with_all(x, default=missing):
    file.write(b"x")
    local.x = x
    row, = db.execute("select ?", (libc.abs(-x),)).fetchone()
    return row * variable.get(), len(refs), default is missing
def count():
    counter["n"] += 1
    return counter["n"]
class Thing:
    def method(self, x):
        with lock: return x, default_of(self)
def default_of(thing, default=missing):
    return default is missing
def make(by):
    return lambda x: (x * by, count() > 0, lock.locked())
"""


@pytest.mark.parametrize("workers", [1])
def test_what_a_module_holds_stays_there(
    start_server: Callable[..., RunningServer], tmp_path: Path, workers: int
):
    """Locks, connections and files need not travel, and what is counted there is counted on."""
    lines = run_program(
        start_server(workers),
        tmp_path / "program",
        """
import holds
from holds import missing, with_lock
@compute_this
def by_name(x): return holds.with_lock(x), with_lock(x), missing is holds.missing, holds.default_of(1, missing)
with PoolExecutor() as pool:
    for call in ((holds.with_lock, 1), (holds.with_all, 2), (holds.Thing().method, 3), (holds.make(4), 5)):
        print(pool.submit(*call).result())
    print(by_name(6).run())
    print([pool.submit(holds.count).result() for _ in range(3)])
""",
        holds=HOLDS,
    )
    assert lines == ["1", "(4, 0, True)", "(3, True)", "(20, True, False)", "(6, 6, True, True)", "[2, 3, 4]"]


def test_modules_of_one_name_are_those_of_each_program(
    start_server: Callable[..., RunningServer], tmp_path: Path
):
    """And state in them is no other program's, nor anybody's after the program has ended."""
    server = start_server(1)
    text = "import config, user\nfor _ in range(2): print(*[compute_this(f)().run() for f in (user.get, user.count)])\n"
    user = "import config\nN = 0\ndef get(): return config.NAME\ndef count():\n    global N\n    N += 1\n    return N\n"
    for name in ("one", "two", "one"):
        lines = run_program(server, tmp_path / name, text, config=f"NAME = {name!r}\n", user=user)
        assert lines == [f"{name} 1", f"{name} 2"]


def test_one_call_sees_one_value_throughout(server: RunningServer, tmp_path: Path):
    module = """
import functools
from distribute_challenge import compute_this
RATE = 1
def logged(function):
    @functools.wraps(function)
    def wrapper(*args): return function(*args)
    return wrapper
def plain(x): return x * RATE
@logged
def decorated(x): return x * RATE
class Rated:
    def of(self, x): return x * RATE
def make(): return lambda x: x * RATE
@compute_this
def task(x): return x * RATE, plain(x), decorated(x), Rated().of(x), make()(x)
"""
    text = """
import rates
rates.RATE = 5
print(rates.task(10).run())
@compute_this
def mixed(x): return rates.task.local(x), made(x), inner(x)
made, inner = rates.make(), rates.decorated.__wrapped__
print(mixed(10).run())
"""
    lines = run_program(server, tmp_path / "program", text, rates=module)
    assert lines == ["(10, 10, 10, 10, 10)", "((10, 10, 10, 10, 10), 10, 10)"]


def test_an_initializer_of_one_module_is_seen_by_another_and_by_no_other_executor(
    start_server: Callable[..., RunningServer], tmp_path: Path
):
    text = """
import config, work
for name in ("a", "b"):
    with PoolExecutor(initializer=config.connect, initargs=(name,)) as pool:
        print([pool.submit(f).result() for f in (config.get, work.by_attribute, work.by_function)])
        with PoolExecutor() as other:
            print(other.submit(work.by_attribute).result())
"""
    lines = run_program(
        start_server(1),
        tmp_path / "program",
        text,
        config="NAME = None\ndef connect(name):\n    global NAME\n    NAME = name\ndef get(): return NAME\n",
        work="import config\ndef by_attribute(): return config.NAME\ndef by_function(): return config.get()\n",
    )
    assert lines == ["['a', 'a', 'a']", "None", "['b', 'b', 'b']", "None"]


def test_data_of_packages_and_what_is_imported_by_a_computed_name(server: RunningServer, tmp_path: Path):
    package = tmp_path / "program" / "package"
    (package / "plugins").mkdir(parents=True)
    (package / "data.txt").write_text("data")
    (package / "plugins" / "one.py").write_text("NAME = 'one'\n")
    (package / "__init__.py").write_text(
        "import importlib, importlib.resources, pkgutil\n"
        "def read(): return importlib.resources.files(__name__).joinpath('data.txt').read_text()\n"
        "def get(): return pkgutil.get_data(__name__, 'data.txt').decode()\n"
        "def load(name): return importlib.import_module(f'{__name__}.plugins.{name}').NAME\n"
    )
    text = """
import importlib, package
@compute_this
def task(name): return package.read(), package.get(), package.load("one"), importlib.import_module(name).NAME
print(task("alone").run())
"""
    assert run_program(server, tmp_path / "program", text, alone="NAME = 'alone'\n") == [
        "('data', 'data', 'one', 'alone')"
    ]


def test_modules_in_a_zip_file(server: RunningServer, tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "library.zip", "w") as file:
        file.writestr("zipped.py", "import inside\ndef double(x): return inside.read(), 2 * x\n")
        file.writestr(
            "inside/__init__.py",
            "import pkgutil\nfrom . import deep\ndef read(): return deep.X, pkgutil.get_data(__name__, 'd.txt')\n",
        )
        file.writestr("inside/deep.py", "X = 3\n")
        file.writestr("inside/d.txt", "data")
    text = f"""
import sys
sys.path.insert(0, {str(tmp_path / "library.zip")!r})
import zipped
@compute_this
def task(x): return zipped.double(x)
print(task(4).run(), compute_this(zipped.double)(4).run())
"""
    expected = "((3, b'data'), 8)"
    assert run_program(server, tmp_path / "program", text) == [f"{expected} {expected}"]


def test_a_module_that_the_program_imports_anew_is_imported_anew_on_workers(
    start_server: Callable[..., RunningServer], tmp_path: Path
):
    """And stays as it is as long as the program does not, whatever becomes of its file."""
    text = """
import importlib, os, pathlib, changing
def show(): print(changing.f.__code__.co_consts[-1], compute_this(changing.f)().run(), compute_this(changing.count)().run())
show()
pathlib.Path("changing.py").write_text(pathlib.Path("changing.py").read_text().replace("'old'", "'new and longer'"))
show()
importlib.reload(changing)
show()
"""
    module = "N = globals().get('N', 0)\ndef f(): return 'old'\ndef count():\n    global N\n    N += 1\n    return N\n"
    lines = run_program(start_server(1), tmp_path / "program", text, changing=module)
    assert lines == ["old old 1", "old old 2", "new and longer new and longer 3"]


def test_functions_of_plugins_that_are_called_the_same(server: RunningServer, tmp_path: Path):
    functions = []
    for number in (2, 3):
        path = tmp_path / f"plugin{number}.py"
        path.write_text(f"SCALE = {number}\ndef scaled(x):\n    return x * SCALE\n")
        spec = importlib.util.spec_from_file_location("plugin", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        functions.append(module.scaled)
    with PoolExecutor(server.address) as pool:
        assert pool.submit(both, *functions).result(HANG_S) == (20, 30)
        assert list(pool.map(each, functions, chunksize=2)) == [20, 30]
        assert [pool.submit(function, 10).result(HANG_S) for function in functions] == [20, 30]


def both(one, other):
    return one(10), other(10)


def each(function):
    return function(10)


def test_tasks_of_tasks_are_of_the_same_program(start_server: Callable[..., RunningServer], tmp_path: Path):
    text = """
import counting
@compute_this
def outer(): return counting.count(), compute_this(counting.count)().run(), counting.count()
print(outer().run(), counting.count())
"""
    module = "N = 0\ndef count():\n    global N\n    N += 1\n    return N\n"
    assert run_program(start_server(1), tmp_path / "program", text, counting=module) == ["(1, 2, 3) 1"]


def test_libraries_stay_when_programs_change(start_server: Callable[..., RunningServer], tmp_path: Path):
    """numpy cannot be imported twice in one process."""
    server = start_server(1)
    text = "import numpy, own\n@compute_this\ndef task(): return int(numpy.ones(3).sum()), own.X\nprint(task().run())\n"
    for number in range(3):
        folder = tmp_path / str(number)
        assert run_program(server, folder, text, own=f"X = {number}\n") == [f"(3, {number})"]


def test_who_uses_a_random_generator_of_the_script_is_warned_once(server: RunningServer, tmp_path: Path):
    text = """
import random, warnings, numpy
rng, seeded = random.Random(1), numpy.random.default_rng(1)
@compute_this
def draws(): return rng.random()
def make():
    mine = numpy.random.RandomState(1)
    @compute_this
    def closure(x): return float(mine.random_sample() + seeded.random())
    return closure
@compute_this
def fine(seed): return numpy.random.default_rng(seed).random() + random.random()
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    draws().run(); draws().run(); fine(1).run()
    list(make().map(range(10)))
for warning in caught: print(warning.category.__name__, warning.filename[-10:], warning.lineno, warning.message)
"""
    lines = run_program(server, tmp_path / "program", text)
    assert [line[:28] for line in lines] == ["RuntimeWarning program.py 16", "RuntimeWarning program.py 17"]
    assert "draws uses 'rng', a random generator" in lines[0]
    assert "closure uses 'seeded'" in lines[1] or "closure uses 'mine'" in lines[1]


def test_a_program_that_runs_without_asserts_has_none_on_workers(server: RunningServer, tmp_path: Path):
    text = """
@compute_this
def task(x):
    assert x > 0
    return x is 1
print(task(-1).run(), task.source.count("assert"))
"""
    assert run_program(server, tmp_path / "program", text, "-O", "-W", "ignore") == ["False 1"]


def test_modules_in_other_encodings_and_with_other_suffixes(server: RunningServer, tmp_path: Path):
    folder = tmp_path / "program"
    folder.mkdir()
    (folder / "latin.py").write_bytes(
        "# -*- coding: latin-1 -*-\nS = 'é'\ndef get(): return S\n".encode("latin-1")
    )
    (folder / "odd.conf").write_text("def get(): return 7\n")
    text = """
import importlib.machinery, importlib.util, sys, latin
loader = importlib.machinery.SourceFileLoader("odd", "odd.conf")
odd = sys.modules["odd"] = importlib.util.module_from_spec(importlib.util.spec_from_loader("odd", loader))
loader.exec_module(odd)
print(compute_this(latin.get)().run() == latin.S, compute_this(odd.get)().run())
"""
    assert run_program(server, folder, text) == ["True 7"]


def test_modules_that_are_reloaded_with_what_they_import(
    start_server: Callable[..., RunningServer], tmp_path: Path
):
    text = """
import importlib, pathlib, first, second
def show(): print(second.X, compute_this(second.get)().run())
show()
for value in (2, 3):
    pathlib.Path("first.py").write_text(f"X = {value}" + " " * value)
    importlib.reload(first)
    importlib.reload(second)
    show()
"""
    lines = run_program(
        start_server(1),
        tmp_path / "program",
        text,
        first="X = 1\n",
        second="from first import X\ndef get(): return X\n",
    )
    assert lines == ["1 1", "2 2", "3 3"]


def test_an_initializer_leaves_what_it_only_reads_to_the_calls(server: RunningServer, tmp_path: Path):
    text = """
settings, table = {"k": 1}, {}
def init(): table["size"] = len(str(settings))
def task(): return settings["k"], table["size"]
with PoolExecutor(initializer=init) as pool:
    print(pool.submit(task).result())
    settings["k"] = 2
    print(pool.submit(task).result())
"""
    assert run_program(server, tmp_path / "program", text) == ["(1, 8)", "(2, 8)"]


def test_what_an_initializer_sets_in_classes_of_the_script_is_there_for_its_executor_alone(
    server: RunningServer, tmp_path: Path
):
    text = """
class Model:
    weights, cache, scale = None, {}, 1
    def value(self): return self.weights, self.cache, self.scale
class Special(Model): pass
def init():
    Model.weights = 3
    Model.cache["k"] = 4
def task(made): return Special().value(), made.value()
with PoolExecutor(initializer=init, max_workers=1) as pool, PoolExecutor() as other:
    for Model.scale in 1, 2:
        print(pool.submit(task, Model()).result(), *pool.map(Model.value, [Model()]))
        print(set(map(str, other.map(Model.value, [Model()] * 50))))
print(Model.weights, Model.cache)
"""
    assert run_program(server, tmp_path / "program", text) == [
        *("((3, {'k': 4}, 1), (3, {'k': 4}, 1)) (3, {'k': 4}, 1)", "{'(None, {}, 1)'}"),
        *("((3, {'k': 4}, 2), (3, {'k': 4}, 2)) (3, {'k': 4}, 2)", "{'(None, {}, 2)'}"),
        "None {}",
    ]


def test_what_an_initializer_only_calls_goes_with_each_call(server: RunningServer, tmp_path: Path):
    text = """
table, calls, rate = None, 0, 1
class Rates:
    def of(self, x): return table[x] * rate
def lookup(x):
    global calls
    calls += 1
    return table[x] * rate
ways = {"one": lookup}
def init():
    global table
    table = [10, 20]
    lookup(0), Rates().of(0), ways["one"](0)
def task(x):
    global calls
    calls = 100
    return lookup(x), ways["one"](x), Rates().of(x), calls
with PoolExecutor(initializer=init, max_workers=1) as pool:
    print(pool.submit(task, 1).result())
    rate = 2
    print(pool.submit(task, 1).result())
    def lookup(x): return "another"
    Rates.of = lambda self, x: "a third"
    print(pool.submit(task, 1).result())
"""
    assert run_program(server, tmp_path / "program", text) == [
        "(20, 20, 20, 102)",
        "(40, 40, 40, 102)",
        "('another', 40, 'a third', 101)",
    ]


def test_what_an_initializer_opens_is_there_though_it_does_not_travel(server: RunningServer, tmp_path: Path):
    text = """
import functools, threading
class Base:
    debug, closed = 1, 2
class Connection(Base):
    __slots__ = ("lock",)
    def __init__(self): self.lock = self.to = None
    def __getstate__(self): return {"to": None}
    def __setstate__(self, state): self.lock, self.to = None, state["to"]
connection, counts = Connection(), [0]
@functools.lru_cache
def settings(): return {}
def init():
    connection.to, connection.lock = "there", threading.Lock()
    settings()["k"] = 3
    del Base.closed
    task.note = 4
def task():
    return getattr(task, "note", 0), connection.to, connection.lock is not None, settings(), hasattr(Base, "closed"), Base.debug
with PoolExecutor(initializer=init, max_workers=1) as pool, PoolExecutor(max_workers=1) as other:
    for _ in range(2):
        print(pool.submit(task).result())
        print(other.submit(task).result())
"""
    assert run_program(server, tmp_path / "program", text) == 2 * [
        "(4, 'there', True, {'k': 3}, False, 1)",
        "(0, None, False, {}, True, 1)",
    ]


def test_an_initializer_leaves_what_it_leaves_in_a_forked_process(server: RunningServer, tmp_path: Path):
    text = """
import collections, dataclasses, functools, multiprocessing, operator, threading
from concurrent.futures import ProcessPoolExecutor
@dataclasses.dataclass
class Options:
    rate: int = 1
    tags: list = dataclasses.field(default_factory=list)
@dataclasses.dataclass(slots=True)
class Slotted: a: int = 1
class Table(dict): pass
class Registry:
    items = {}
    @classmethod
    def add(cls, function):
        cls.items[function.__name__] = function
        return function
@Registry.add
def handler(x): return x + 1
class Lazy:
    _x = 1
    @property
    def x(self): return self._x
    @functools.cached_property
    def y(self): return [1]
class Single:
    made = None
    def __new__(cls):
        if cls.made is None:
            cls.made = super().__new__(cls)
            cls.made.v = 0
        return cls.made
class Node:
    def __init__(self): self.next = self
class History(collections.deque): pass
history, ops = History([1]), {"op": operator.add}
options, slotted, table, lazy, node, deep = Options(), Slotted(), Table(a=1), Lazy(), Node(), {"n": Node()}
recent, groups, counts = collections.deque([1]), collections.defaultdict(list), collections.Counter()
lock, locks = None, []
def init():
    global lock
    lock = threading.Lock()
    locks.append(lock)
    options.rate, slotted.a, table["b"], node.value, deep["n"].list = 5, 6, 7, 8, [9]
    options.tags.append("t"), recent.append(2), groups["k"].append(1), lazy.y.append(2)
    lazy._x, counts["c"], Single().v, handler.attribute = 10, 11, 12, 13
    Registry.items["new"] = lambda x: 2 * x
    history.append(2)
    ops["op"] = operator.mul
def task():
    return (
        lock is not None, len(locks), options, slotted, dict(table), node.value, node.next is node,
        deep["n"].list, list(recent), dict(groups), dict(counts), lazy.x, lazy.y, Single().v,
        list(history), ops["op"](3, 4), handler.attribute, handler(1), Registry.items["handler"](1), Registry.items["new"](4),
    )
forked = ProcessPoolExecutor(1, multiprocessing.get_context("fork"), initializer=init)
for executor in PoolExecutor(initializer=init, max_workers=1), forked:
    with executor:
        for _ in range(2):
            print(executor.submit(task).result())
"""
    here, again, forked, _ = run_program(server, tmp_path / "program", text)
    assert here == again == forked


def test_what_other_calls_do_to_the_class_of_what_an_initializer_made_is_undone(
    server: RunningServer, tmp_path: Path
):
    text = """
class Model:
    k = 1
    def get(self): return self.k, hasattr(self, "added")
def init_one():
    global model
    model = Model()
def init_other(): Model.k = 50
def use(): return bool(model), model.get()
def use_class(): return Model.k
def get(made): return made.k
def spoil():
    Model.k = Model.added = 99
    Model.__bool__ = lambda self: False
how = {"max_workers": 1}
with (
    PoolExecutor(initializer=init_one, **how) as one, PoolExecutor(initializer=init_other, **how) as other,
    PoolExecutor(**how) as third,
):
    for _ in range(2):
        print(one.submit(use).result(), other.submit(use_class).result(), one.submit(use).result())
        third.submit(spoil).result(), one.submit(spoil).result()
    with PoolExecutor(**how) as fourth:
        handle = fourth.scatter(Model())
        print([fourth.submit(get, handle).result() for _ in range(2) if other.submit(use_class).result()])
"""
    *twice, scattered = run_program(server, tmp_path / "program", text)
    assert twice == 2 * ["(True, (1, False)) 50 (True, (1, False))"]
    assert scattered == "[1, 1]"


def test_a_metaclass_that_guards_its_classes_is_not_asked_on_workers(server: RunningServer, tmp_path: Path):
    text = """
class Guard(type):
    def __setattr__(cls, name, value): raise AttributeError(f"{cls.__name__} is constant")
    def __delattr__(cls, name): raise AttributeError("nothing may be deleted")
class Constants(metaclass=Guard):
    N = 3
def add():
    type.__setattr__(Constants, "added", 1)
    return Constants.N
with PoolExecutor(max_workers=1) as pool:
    for _ in range(2):
        print(pool.submit(add).result(), pool.submit(lambda: hasattr(Constants, "added")).result())
"""
    assert run_program(server, tmp_path / "program", text) == 2 * ["3 False"]


def test_a_notebooks_traceback_shows_its_lines(server: RunningServer):
    import linecache

    text = "def cell(x):\n    def inner():\n        return 1 / x  # here\n    return inner()\n"
    name = "<a cell of a notebook>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(text, name, "exec"), names)
    error = compute_this(names["cell"])(0).submit().exception(HANG_S)
    assert error is not None
    assert "return 1 / x  # here" in str(error.__cause__)
    assert "return inner()" in str(error.__cause__)


def test_a_nested_task_from_a_notebook_has_its_text(server: RunningServer):
    import linecache

    text = (
        "def make(compute_this):\n    @compute_this\n    def inner(x):\n        return x + 1\n"
        "    @compute_this\n    def outer(x):\n        return inner(x).run()\n    return outer\n"
    )
    name = "<another cell>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(text, name, "exec"), names)
    assert names["make"](compute_this)(1).run() == 2


def test_calls_that_are_in_line_when_a_module_is_reloaded_have_it_as_it_was(
    start_server: Callable[..., RunningServer], tmp_path: Path
):
    text = """
import importlib, pathlib, time, first
def late(_):
    time.sleep(0.01)
    return first.X
with PoolExecutor() as pool:
    futures = [pool.submit(late, number) for number in range(30)]
    futures[2].result()
    pathlib.Path("first.py").write_text("X = 22")
    importlib.reload(first)
    print(compute_this(late)(0).run())
    print(*sorted({future.result() for future in futures}))
"""
    lines = run_program(start_server(1), tmp_path / "program", text, first="X = 1\n")
    assert lines == ["22", "1"]
