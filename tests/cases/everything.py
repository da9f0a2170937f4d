"""Every kind of function, argument and result, as a user's script has them.

Run as a program it goes through all cases and prints one line for each: `ok NAME`, or what went wrong. The
tests do that, and also import it, so that each case is also one of a function in a module.
"""

from __future__ import annotations

import asyncio
import collections
import copyreg
import dataclasses
import enum
import functools
import gc
import io
import os
import pickle
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distribute_challenge import PoolExecutor, TaskNotSendable, compute_this
from tests.cases import elsewhere

CASES: dict[str, Callable[[], None]] = {}
PLAIN: set[str] = set()  # Those that also hold between different versions of Python.
IN_SCRIPTS: set[str] = set()  # Those that hold in a script only.
FACTOR = 3
COUNTED: collections.Counter[str] = collections.Counter()
LOCK = threading.Lock()


def case(function: Callable[[], None]) -> Callable[[], None]:
    """Take a case in."""
    CASES[function.__name__] = function
    return function


def plain_case(function: Callable[[], None]) -> Callable[[], None]:
    """Take in a case that holds between different versions of Python, too."""
    PLAIN.add(function.__name__)
    return case(function)


def script_case(function: Callable[[], None]) -> Callable[[], None]:
    """Take in a case that does not hold for a module: its classes travel by its file, as that is."""
    IN_SCRIPTS.add(function.__name__)
    return case(function)


def helper(x):
    return FACTOR * x


def helper_of_helper(x):
    return helper(x) + 1


def is_even(n):
    return n == 0 or is_odd(n - 1)


def is_odd(n):
    return n != 0 and is_even(n - 1)


@functools.cache
def fibonacci(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


def count(name):
    COUNTED[name] += 1


class Vector:
    """A class of the script."""

    unit = "m"

    def __init__(self, x: float, y: float) -> None:
        self.x, self.y = x, y

    def __eq__(self, other: object) -> bool:
        return type(other) is Vector and (self.x, self.y) == (other.x, other.y)

    def __hash__(self) -> int:
        return hash((self.x, self.y))

    def length(self) -> float:
        return (self.x**2 + self.y**2) ** 0.5

    def scaled(self, by: float) -> Vector:
        return Vector(self.x * by, self.y * by)


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@dataclasses.dataclass(frozen=True)
class Record:
    name: str
    children: tuple[Record, ...] = ()


class ScriptError(ValueError):
    """An exception of the script."""

    def __init__(self, code: int, *, hint: str) -> None:
        super().__init__(f"code {code}")
        self.code, self.hint = code, hint

    def __reduce__(self) -> Any:
        return functools.partial(ScriptError, hint=self.hint), (self.code,)


class TwoArguments(Exception):
    """Its constructor takes other arguments than its pickle has."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")
        self.a = a


class Adder:
    """A callable object."""

    def __init__(self, by: int) -> None:
        self.by = by

    def __call__(self, x: int) -> int:
        return x + self.by


def tagged(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return "tagged", function(*args, **kwargs)

    return wrapper


def doubled_here(task):
    """A decorator above ours: it acts at the client."""

    def run(*args):
        return 2 * task(*args).run()

    return run


# What travels


@plain_case
def a_recursive_function() -> None:
    @compute_this
    def factorial(n):
        return 1 if n == 0 else n * factorial(n - 1)

    assert factorial(10).run() == 3628800
    assert recursive(10).run() == 55


@compute_this
def recursive(n):
    return n if n < 2 else recursive(n - 1) + recursive(n - 2)


@compute_this
def calls_helpers(x):
    return helper_of_helper(x), is_even(x)


@plain_case
def helper_functions_and_constants_of_the_script() -> None:
    assert calls_helpers(4).run() == (13, True)


@compute_this
def uses_cache(n):
    return fibonacci(n)


@plain_case
def a_cached_helper_that_is_recursive() -> None:
    assert uses_cache(50).run() == 12586269025


@compute_this
def counts_by_helper():
    count("a")
    count("a")
    return COUNTED["a"]


@case
def a_global_variable_that_a_helper_changes_is_the_one_that_is_read() -> None:
    assert counts_by_helper().run() == 2
    assert COUNTED["a"] == 0


@compute_this
def uses_class(x):
    return Vector(x, 4).length(), Colour(1), isinstance(Colour.RED, Colour)


@case
def classes_of_the_script() -> None:
    assert uses_class(3).run() == (5.0, Colour.RED, True)


@case
def closures() -> None:
    base = [10]

    @compute_this
    def add(x):
        return base[0] + x

    assert add(1).run() == 11
    base[0] = 20
    assert add(1).run() == 21


@compute_this
def defaults(a, b=FACTOR, /, *rest, c, d=4, **others):
    return a, b, rest, c, d, others


@plain_case
def default_values_and_keyword_only_arguments() -> None:
    assert defaults(1, c=3).run() == (1, 3, (), 3, 4, {})
    assert defaults(1, 2, 9, 8, c=3, d=5, e=6).run() == (1, 2, (9, 8), 3, 5, {"e": 6})


@case
def functions_inside_functions() -> None:
    def make(by):
        def inner(x):
            return helper(x) + by

        return inner

    assert compute_this(make(5))(2).run() == 11


class WithMethods:
    """Methods: their bodies, and bound ones."""

    def __init__(self) -> None:
        self.k = 7

    def body(self, x):
        @compute_this
        def inside(y):
            return y + 1

        return inside(x).run() + self.k

    def plain(self, x):
        return self.k * x

    @classmethod
    def make(cls, k):
        made = cls()
        made.k = k
        return made

    @staticmethod
    def fixed(x):
        return x - 1


@case
def a_function_in_a_methods_body() -> None:
    assert WithMethods().body(1) == 9


@case
def bound_methods_class_methods_and_static_methods() -> None:
    assert compute_this(WithMethods().plain)(3).run() == 21
    assert compute_this(WithMethods.make)(8).run().k == 8
    assert compute_this(WithMethods.fixed)(8).run() == 7


@case
def partial_and_callable_objects() -> None:
    assert compute_this(functools.partial(helper_of_helper, 5))().run() == 16
    assert compute_this(Adder(4))(3).run() == 7


@doubled_here
@compute_this
@tagged
def decorated(x):
    return x


@case
def decorators_below_travel_and_those_above_act_here() -> None:
    assert decorated(3) == ("tagged", 3, "tagged", 3)


@compute_this
async def coroutine(x):
    await asyncio.sleep(0)
    return x + 1


@plain_case
def async_functions_run_to_their_end() -> None:
    assert coroutine(1).run() == 2


@compute_this
def generator(n):
    yield from range(n)


@compute_this
async def async_generator(n):
    for number in range(n):
        yield number


@plain_case
def the_items_of_generators_come_back_as_a_list() -> None:
    assert generator(3).run() == [0, 1, 2]
    assert async_generator(3).run() == [0, 1, 2]


@case
def lambdas_travel_by_value() -> None:
    task = compute_this(lambda x: helper(x) + 1)
    assert task(2).run() == 7
    assert "by value" in task.source


@case
def functions_without_a_text() -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec("def typed(x):\n    return x * 5", namespace)
    task = compute_this(namespace["typed"])
    assert task(3).run() == 15
    assert "by value" in task.source


@compute_this
def uses_module(x):
    return elsewhere.scaled(x), elsewhere.Point(x)


@compute_this
def imports_inside(x):
    from tests.cases.further import doubled

    return doubled(x)


@plain_case
def functions_and_classes_of_the_users_own_modules() -> None:
    number, point = uses_module(2).run()
    assert number == 40
    assert type(point) is elsewhere.Point
    assert point.x == 2
    assert imports_inside(4).run() == 8
    assert compute_this(elsewhere.scaled)(1).run() == 20
    assert compute_this(elsewhere.Point.moved)(point, 3).run().x == 5


@plain_case
def the_text_is_what_was_written() -> None:
    assert recursive.source == (
        "def recursive(n):\n    return n if n < 2 else recursive(n - 1) + recursive(n - 2)\n"
    )


@compute_this
def imports_by_name():
    import xml.dom.minidom

    return xml.dom.minidom.parseString("<a/>").documentElement.tagName, os.path.join("a", "b")


@plain_case
def library_modules_and_their_submodules() -> None:
    assert imports_by_name().run() == ("a", "a/b")


@compute_this
def ping(n):
    return 0 if n == 0 else 1 + pong(n - 1).run()


@compute_this
def pong(n):
    return 0 if n == 0 else 1 + ping(n - 1).run()


@plain_case
def two_pool_functions_that_call_each_other() -> None:
    assert ping(4).run() == 4
    assert ping.local(0) == 0


@case
def a_recursive_function_without_a_text() -> None:
    namespace: dict[str, Any] = {"__name__": "__main__", "compute_this": compute_this}
    exec("@compute_this\ndef g(n):\n    return [] if n == 0 else [n, *g(n - 1)]", namespace)
    assert namespace["g"](3).run() == [3, 2, 1]


@compute_this
def walk(n):
    yield n
    if n:
        yield from walk(n - 1)


@plain_case
def a_recursive_generator() -> None:
    assert walk(3).run() == [3, 2, 1, 0]
    assert list(walk.local(3)) == [3, 2, 1, 0]


class Decorated:
    """Methods that run on the pool."""

    def __init__(self, base: int) -> None:
        self.base = base

    @compute_this
    def plus(self, x):
        return self.base + x


@case
def a_decorated_method() -> None:
    assert Decorated(5).plus(1).run() == 6
    assert list(Decorated(5).plus.map(range(3))) == [5, 6, 7]


@compute_this
def applies(function, x):
    return function(x), COUNTED["b"]


def counts_b(x):
    COUNTED["b"] += x
    return x


@case
def a_function_as_an_argument_shares_the_global_names() -> None:
    assert applies(counts_b, 2).run() == (2, 2)


# Arguments and results


@compute_this
def same(x):
    return x


class Slotted:
    """A class with slots."""

    __slots__ = ("x",)

    def __init__(self, x: int) -> None:
        self.x = x


@dataclasses.dataclass(frozen=True)
class Scale:
    """Two of these are equal, and do different things."""

    name: str
    by: int = dataclasses.field(compare=False, default=1)

    def __call__(self, x: int) -> int:
        return x * self.by


@compute_this
def makes_slotted(x):
    return Slotted(x)


@case
def classes_with_slots_and_callables_that_are_equal() -> None:
    slotted = makes_slotted(3).run()
    assert type(slotted) is Slotted
    assert slotted.x == 3
    assert not hasattr(slotted, "__dict__")
    with PoolExecutor() as pool:
        found = [pool.submit(scale, 10).result(60) for scale in (Scale("m", 2), Scale("m", 3))]
    assert found == [20, 30]


@compute_this
def adds_attribute():
    Vector.extra = 1  # type: ignore[attr-defined]
    return hasattr(Vector, "extra")


@compute_this
def has_attribute(name):
    return hasattr(Vector, name)


@script_case
def the_copy_of_a_class_is_as_its_original_each_time() -> None:
    assert adds_attribute().run()
    Vector.passing = 1  # type: ignore[attr-defined]
    assert has_attribute("passing").run()
    del Vector.passing  # type: ignore[attr-defined]
    assert not has_attribute("passing").run()
    assert not has_attribute("extra").run()


@case
def instances_of_the_scripts_classes_come_back_as_such() -> None:
    copyreg._slotnames(Vector)  # type: ignore[attr-defined]  All pickling notes this on a class.
    attributes = dict(vars(Vector))
    vector = same(Vector(1, 2)).run()
    assert type(vector) is Vector
    assert vector == Vector(1, 2)
    assert same(Colour.BLUE).run() is Colour.BLUE
    assert same(Vector).run() is Vector
    tree = Record("a", (Record("b"), Record("c")))
    assert same(tree).run() == tree
    assert type(same({"k": [tree]}).run()["k"][0].children[0]) is Record
    assert compute_this(Vector.scaled)(Vector(1, 2), 3).run() == Vector(3, 6)
    assert dict(vars(Vector)) == attributes


@compute_this
def pickled(value):
    return pickle.dumps(value)


@compute_this
def looks_up(name):
    return getattr(sys.modules["__main__"], name)


@script_case
def functions_find_the_classes_of_their_arguments_by_name() -> None:
    """As pickle does: no function here mentions one."""
    vector = Vector(1, 2)
    for dumps in (pickled, compute_this(pickle.dumps)):
        assert pickle.loads(dumps(vector).run()) == vector
    try:
        looks_up("NoSuchName").run()
    except AttributeError as error:
        assert "brings the script's 'NoSuchName' along" in str(error)
    else:
        raise AssertionError("it was found")


def passes_when_there(path, value):
    while not Path(path).exists():
        time.sleep(0.01)
    return value


@case
def a_result_finds_its_class_though_nothing_else_refers_to_it_any_more() -> None:
    for put in (lambda pool, value: value, PoolExecutor.scatter):
        with tempfile.TemporaryDirectory() as folder, PoolExecutor() as pool:

            class Gone:
                number = 1

            passes = functools.partial(passes_when_there, f"{folder}/there")
            alone, together = (
                pool.submit(passes, put(pool, Gone())),
                pool.map(passes, [put(pool, Gone())] * 2),
            )
            del Gone
            gc.collect()
            Path(folder, "there").mkdir()
            assert [value.number for value in (alone.result(60), *together)] == [1, 1, 1]


@script_case
def a_class_that_changed_meanwhile_is_sent_as_it_is() -> None:
    @compute_this
    def unit(vector):
        return vector.unit

    assert unit(Vector(1, 2)).run() == "m"
    Vector.unit = "km"
    try:
        assert unit(Vector(1, 2)).run() == "km"
        assert Vector.unit == "km"
    finally:
        Vector.unit = "m"


@plain_case
def plain_values_of_every_kind() -> None:
    value = [None, True, 1 << 100, 1.5, 2j, "text", b"bytes", (1, [2]), {3: {4}}, frozenset({5}), range(6)]
    assert same(value).run() == value


@case
def arrays_and_frames() -> None:
    import numpy as np
    import pandas as pd

    array = same(np.arange(6).reshape(2, 3)).run()
    assert array.tolist() == [[0, 1, 2], [3, 4, 5]]
    array[0, 0] = 9  # It may be written to.
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    assert same(frame).run().equals(frame)


@compute_this
def writes_to(array):
    array += 1
    return array


@case
def a_function_may_write_to_the_array_it_gets() -> None:
    import numpy as np

    mine = np.zeros(100_000)
    assert writes_to(mine).run().sum() == 100_000
    assert mine.sum() == 0


# What cannot travel


def refused(call: Callable[[], Any], *words: str) -> None:
    try:
        call()
    except TaskNotSendable as error:
        for word in words:
            assert word in str(error), f"{word!r} is not in {error}"
    else:
        raise AssertionError("it was sent")


@compute_this
def uses_lock():
    with LOCK:
        return 1


@script_case
def what_a_script_holds_and_cannot_travel_is_named() -> None:
    refused(uses_lock().run, "LOCK", "lock")


@plain_case
def what_cannot_travel_is_named_before_a_worker_is_taken() -> None:
    with socket.socket() as sock:
        refused(same(sock).run, "argument 1", "socket")
    with tempfile.TemporaryFile("w") as file:
        refused(same(file).run, "argument 1", "open file")
    assert same(io.StringIO("text")).run().read() == "text"
    queue = threading.Event()

    @compute_this
    def waits():
        return queue.is_set()

    refused(waits().run, "queue")
    future = same(LOCK).submit()
    refused(future.result, "argument 1")


@compute_this
def returns_lock():
    return threading.Lock()


@plain_case
def a_result_that_does_not_travel_is_an_error_that_says_so() -> None:
    try:
        returns_lock().run()
    except TypeError as error:
        assert "does not travel back" in str(error)
    else:
        raise AssertionError("it came back")
    assert same(1).run() == 1


# What comes back


@compute_this
def raises(kind, *args, **kwargs):
    raise kind(*args, **kwargs)


@case
def an_exception_comes_as_itself_with_its_remote_traceback() -> None:
    try:
        raises(ScriptError, 3, hint="look").run()
    except ScriptError as error:
        assert type(error) is ScriptError
        assert (error.code, error.hint) == (3, "look")
        text = "".join(traceback.format_exception(error))
        assert "everything.py" in text
        assert "raise kind(*args, **kwargs)" in text
    else:
        raise AssertionError("nothing was raised")


@case
def an_exception_with_a_constructor_of_its_own_comes_as_itself() -> None:
    try:
        raises(TwoArguments, 1, 2).run()
    except TwoArguments as error:
        assert (str(error), error.a) == ("1 and 2", 1)
        assert "raise kind" in str(error.__cause__)
    else:
        raise AssertionError("nothing was raised")


@plain_case
def exits_and_interrupts_end_that_function_only() -> None:
    for kind, args in ((SystemExit, (3,)), (KeyboardInterrupt, ()), (GeneratorExit, ())):
        future = raises(kind, *args).submit()
        assert type(future.exception(60)) is kind
    assert same(1).run() == 1


@compute_this
def prints(n):
    for number in range(n):
        print("line", number)
    print("to stderr", file=sys.stderr)
    print("without an end", end="")
    return n


@plain_case
def what_a_function_prints_appears_here() -> None:
    out, err = io.StringIO(), io.StringIO()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = out, err
    try:
        assert prints(3).run() == 3
        assert prints(1).submit().result() == 1
    finally:
        sys.stdout, sys.stderr = before
    lines = "line 0\nline 1\nline 2\nwithout an endline 0\nwithout an end"
    assert (out.getvalue(), err.getvalue()) == (lines, "to stderr\nto stderr\n")


@plain_case
def prints_can_be_turned_off() -> None:
    out = io.StringIO()
    before, sys.stdout = sys.stdout, out
    try:
        assert compute_this(prints=False)(helper_that_prints)().run() == 5
        with PoolExecutor(prints=False) as pool:
            assert pool.submit(helper_that_prints).result() == 5
    finally:
        sys.stdout = before
    assert out.getvalue() == ""


def helper_that_prints():
    print("not here")
    return 5


# The interfaces


@plain_case
def run_submit_await_map_and_local() -> None:
    async def awaits():
        return await asyncio.gather(*(same(number) for number in range(5)))

    assert same(1).run() == 1
    assert same(2).submit().result(60) == 2
    assert asyncio.run(awaits()) == list(range(5))
    assert list(same.map(range(100))) == list(range(100))
    assert sorted(same.map(range(100), ordered=False)) == list(range(100))
    assert same.local(3) == 3
    assert same.__wrapped__(4) == 4


@compute_this
def fails_at_three(x):
    if x == 3:
        raise ValueError("three")
    return x


@plain_case
def map_raises_at_the_item_or_returns_the_exception() -> None:
    results = fails_at_three.map(range(6), chunksize=6)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    try:
        next(results)
    except ValueError as error:
        assert str(error) == "three"
    else:
        raise AssertionError("nothing was raised")
    found = list(fails_at_three.map(range(6), return_exceptions=True))
    assert [x for x in found if isinstance(x, int)] == [0, 1, 2, 4, 5]
    assert isinstance(found[3], ValueError)


@compute_this
def adds_by_children(n):
    return sum(child.result() for child in [same(number).submit() for number in range(n)])


@compute_this
def tree(depth):
    return 1 if depth == 0 else sum(tree_task.map([depth - 1] * 2))


tree_task = tree


@compute_this
def calls_another_pool_function(x):
    return same(x).run() + sum(same.map(range(x)))


@plain_case
def tasks_of_tasks_cannot_lock_up() -> None:
    assert [future.result(60) for future in [adds_by_children(5).submit() for _ in range(6)]] == [10] * 6
    assert tree(4).run() == 16
    assert list(calls_another_pool_function.map(range(5))) == [0, 1, 3, 6, 10]


@plain_case
def a_hundred_threads_call_one_function() -> None:
    found: list[int] = []
    threads = [threading.Thread(target=lambda n=n: found.append(same(n).run())) for n in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(100))


def main() -> int:
    """Run the cases, or those that hold across versions; how many failed."""
    names = [name for name in CASES if "--plain" not in sys.argv or name in PLAIN]
    failed = 0
    for name in names:
        try:
            CASES[name]()
        except BaseException:
            failed += 1
            print(f"FAILED {name}\n{traceback.format_exc()}", flush=True)
        else:
            print(f"ok {name}", flush=True)
    return min(failed, 100)


if __name__ == "__main__":
    sys.exit(main())
