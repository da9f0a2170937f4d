"""Functions whose result on the pool has to be their result here.

Run as a program it tries all of them and prints one line for each: `ok NAME`, or what differs. The tests do
that, and import it, too: then they are functions of a module.
"""

from __future__ import annotations

import abc
import collections
import contextlib
import dataclasses
import decimal
import enum
import functools
import inspect
import json
import math
import operator
import random
import re
import string
import sys
import traceback
import types
import typing
from collections.abc import Callable
from math import sqrt as root
from typing import Any, Generic, TypeVar

from distribute_challenge import TaskNotSendable, compute_this

TASKS: dict[str, Any] = {}
SCALE = 3
T = TypeVar("T")


def alike(function: Callable[..., Any]) -> Any:
    """Take in a function that is called without arguments."""
    task = compute_this(function)
    TASKS[getattr(function, "__name__", type(function).__name__)] = task
    return task


# Decorators


def plus_one(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs) + 1

    return wrapper


def times_ten(function):
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs) * 10

    return wrapper


def times(factor):
    def decorate(function):
        @functools.wraps(function)
        def wrapper(*args):
            return function(*args) * factor

        return wrapper

    return decorate


class Hundredfold:
    """A decorator that is a class."""

    def __init__(self, function):
        self.function = function
        self.calls = 0

    def __call__(self, *args):
        self.calls += 1
        return self.function(*args) * 100 + self.calls


class Named(Hundredfold):
    """The same, which says what it wraps."""

    def __init__(self, function):
        super().__init__(function)
        functools.update_wrapper(self, function)


def converting(function):
    hints = typing.get_type_hints(function)

    @functools.wraps(function)
    def wrapper(**named):
        return function(**{name: hints[name](value) for name, value in named.items()})

    return wrapper


@alike
@times_ten
@plus_one
def one_that_wraps_and_one_that_does_not():
    return SCALE


@alike
@plus_one
@times_ten
@plus_one
def three_of_them():
    return SCALE


@alike
@times(7)
@plus_one
def one_with_an_argument():
    return SCALE


@alike
@Hundredfold
@plus_one
def a_class_around_a_function():
    return SCALE


@alike
@Named
@times_ten
def a_class_that_says_what_it_wraps():
    return SCALE


@plus_one
def helped():
    return SCALE


inside_of_helped = helped.__wrapped__


@alike
def what_is_inside_a_decorated_helper():
    return helped(), inside_of_helped(), helped.__wrapped__ is inside_of_helped


@converting
def doubles(n: int):
    return 2 * n


@alike
def a_decorator_that_looks_at_annotations():
    return doubles(n="21"), doubles.__annotations__, str(inspect.signature(doubles))


@functools.singledispatch
def described(value):
    return f"something: {value}"


@described.register
def _(value: int):
    return f"a number: {value}"


@described.register(list)
def described_list(value):
    return [described(item) for item in value]


@alike
def a_helper_that_chooses_by_type():
    return described("x"), described([1, "y"])


@functools.cache
def fibonacci(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


@alike
def a_cached_recursive_helper():
    return fibonacci(30), fibonacci.cache_parameters()


@contextlib.contextmanager
def bracket(log):
    log.append("(")
    yield log
    log.append(")")


@alike
def a_context_manager():
    log: list[str] = []
    with bracket(log) as inner:
        inner.append("x")
    return "".join(log)


# What belongs to a function


def annotated(a: int, *rest: list[str], b: dict[str, T] | None = None) -> tuple[int, ...]:
    """What it does."""
    raise NotImplementedError


def renamed():
    def inner(): ...

    inner.__name__ = inner.__qualname__ = "changed"
    inner.__doc__ = "Changed, too."
    inner.__module__ = "elsewhere"
    inner.tags = {"a"}
    return inner


changed = renamed()


@alike
def signatures_names_and_documentation():
    return (
        str(inspect.signature(annotated)),
        annotated.__annotations__,
        annotated.__doc__,
        annotated.__qualname__,
        Shape.area.__qualname__,
        changed.__name__,
        changed.__qualname__,
        changed.__doc__,
        changed.__module__,
        changed.tags,
    )


@alike
def lines_and_files():
    code = annotated.__code__
    inner = changed.__code__
    return code.co_filename, code.co_firstlineno, inner.co_firstlineno, sys._getframe().f_lineno


def keeper():
    count = 0

    def add():
        nonlocal count
        count += 1

    def read():
        return count

    return add, read


add_one, count_now = keeper()


@alike
def two_closures_over_one_variable():
    before = count_now()
    add_one()
    add_one()
    return count_now() - before


def defaults(a, b=[1], *, c={"k": 2}, d: float = math.pi):  # noqa: B006
    return a, b, c, d


@alike
def default_values():
    return defaults(0), defaults.__defaults__, defaults.__kwdefaults__


def late():
    def calls_later():
        return later()

    def later():
        return "later"

    return calls_later


calls_later = late()


@alike
def closures_that_know_each_other():
    return calls_later()


private = types.FunctionType(
    (lambda: OWN).__code__,  # type: ignore[name-defined]  # noqa: F821
    {"OWN": 5, "__name__": __name__, "__builtins__": __builtins__},
    "private",
)


@alike
def global_names_that_are_nobody_elses():
    return private(), "OWN" in globals()


@alike
def functions_of_libraries():
    return (
        root(9),
        json.loads("[1]"),
        operator.itemgetter(1)([4, 5]),
        re.sub("a", "b", "abc"),
        string.capwords("a b"),
        random.Random(1).random(),
        functools.reduce(operator.add, [1, 2]),
        decimal.Decimal("1.5"),
    )


bound_upper, bound_get, method = "x".upper, {"a": 1}.get, str.lower


@alike
def methods_of_values():
    return bound_upper(), bound_get("a"), method("Y")


@alike
def a_class_inside_uses_global_names():
    class Inner:
        scale = SCALE
        exact: decimal.Decimal = decimal.Decimal(SCALE)

        def both(self):
            return self.scale, self.exact, json.dumps(SCALE), [SCALE for _ in range(2)]

    return Inner().both()


# Classes


class Shape:
    """A plain one."""

    sides = 0
    __hidden = 4

    def area(self):
        return self.__hidden

    @property
    def more(self):
        return self.area() + 1

    @classmethod
    def make(cls):
        return cls()

    @staticmethod
    def fixed(x):
        return x * SCALE

    @functools.cached_property
    def slow(self):
        return self.more * 2


class Square(Shape):
    """A derived one."""

    sides = 4

    def area(self):
        return super().area() * 2

    class Corner:
        """A nested one."""

        angle = 90

        def turned(self):
            return self.angle, type(self).__qualname__, __class__.__name__  # type: ignore[name-defined]


@alike
def plain_and_derived_classes():
    square = Square.make()
    return (
        square.area(),
        square.more,
        square.slow,
        square.fixed(2),
        Square.Corner().turned(),
        Square.__mro__[1].__name__,
        Square.__doc__,
    )


@dataclasses.dataclass
class Point:
    x: int
    y: list[int] = dataclasses.field(default_factory=list)
    z: dataclasses.InitVar[int] = 0

    def __post_init__(self, z):
        self.x += z


@dataclasses.dataclass(frozen=True, slots=True, order=True, kw_only=True)
class Frozen:
    name: str
    size: int = SCALE


@dataclasses.dataclass
class Derived(Point):
    more: str = "m"


@alike
def dataclasses_of_all_kinds():
    fields = [(f.name, f.type, f.default is dataclasses.MISSING) for f in dataclasses.fields(Derived)]
    assert dataclasses.replace(Frozen(name="a"), size=1) < Frozen(name="b")
    try:
        Frozen(name="a").size = 1  # type: ignore[misc]
    except dataclasses.FrozenInstanceError:
        return fields, repr(Derived(1, z=2)), repr(Frozen(name="f")), hasattr(Frozen(name="g"), "__dict__")
    return None


class Pair(typing.NamedTuple):
    left: int
    right: str = "r"

    def both(self):
        return self.left, self.right


Old = collections.namedtuple("Old", "a b", defaults=[2])


class Movie(typing.TypedDict, total=False):
    title: str
    year: int


@alike
def named_tuples_and_typed_dicts():
    return (
        Pair(1).both(),
        Pair(1, "x")._replace(left=2)._asdict(),
        Pair._fields,
        Pair._field_defaults,
        Old(1),
        Old._fields,
        Movie(title="t"),
        sorted(Movie.__optional_keys__),
        repr(Pair(1)),
    )


class Colour(enum.Enum):
    RED = 1
    CRIMSON = 1
    BLUE = enum.auto()

    @property
    def shown(self):
        return self.name.lower()


class Planet(enum.Enum):
    EARTH = (5.97, 6.37)
    MARS = (0.64, 3.39)

    def __init__(self, mass, radius):
        self.mass, self.radius = mass, radius

    @classmethod
    def _missing_(cls, value):
        return cls.MARS


class Coordinate(bytes, enum.Enum):
    X = (0, "x")
    Y = (1, "y")

    def __new__(cls, value, label):
        member = bytes.__new__(cls, [value])
        member._value_ = value
        member.label = label
        return member


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 10


class Access(enum.IntFlag):
    READ = 4
    WRITE = 2
    BOTH = 6


class Word(str, enum.Enum):
    A = "a"


class Held(Point, enum.Enum):
    ONE = (1, [2])


class Base(enum.Enum):
    def twice(self):
        return self.value * 2


class Built(Base):
    TWO = 2


@alike
def enums_of_all_kinds():
    return (
        [(c.name, c.value, c.shown) for c in Colour],
        Colour.CRIMSON is Colour.RED,
        list(Colour.__members__),
        Planet.EARTH.mass,
        Planet((5.97, 6.37)).radius,
        Planet("nothing").name,
        [(c.label, bytes(c), c.value) for c in Coordinate],
        Coordinate(1).label,
        Level.LOW < Level.HIGH,
        Level(10).name,
        (Access.READ | Access.WRITE) is Access.BOTH,
        Access(6).name,
        Word("a").value,
        Word.A + "b",
        Held.ONE.x,
        Built.TWO.twice(),
        json.dumps(Level.LOW),
    )


class Stack(Generic[T]):
    """A generic one."""

    def __init__(self) -> None:
        self.items: list[T] = []

    def push(self, item: T) -> Stack[T]:
        self.items.append(item)
        return self


class Numbers(Stack[int]):
    total = property(lambda self: sum(self.items))


class Asked(abc.ABC):
    """An abstract one."""

    @abc.abstractmethod
    def answer(self): ...

    @classmethod
    def __subclasshook__(cls, other):
        return hasattr(other, "answer") or NotImplemented


class Answering(Asked):
    def answer(self):
        return 42


@Asked.register
class Registered:
    pass


class Sized(typing.Protocol):
    def size(self) -> int: ...


@typing.runtime_checkable
class Checked(typing.Protocol):
    def answer(self): ...


@alike
def generic_abstract_and_protocol_classes():
    try:
        Asked()  # type: ignore[abstract]
    except TypeError:
        is_abstract = True
    return (
        Numbers().push(1).push(2).total,  # type: ignore[attr-defined]
        Stack[int].__args__,
        typing.get_args(Numbers.__orig_bases__[0]),  # type: ignore[attr-defined]
        Stack.__parameters__ == (T,),
        Answering().answer(),
        issubclass(Registered, Asked),
        is_abstract,
        isinstance(Answering(), Checked),
        isinstance(3, Checked),
    )


class Meta(type):
    """A metaclass."""

    def __new__(mcls, name, bases, namespace, tag=""):
        made = super().__new__(mcls, name, bases, namespace)
        made.tag = tag
        return made

    def shout(cls):
        return cls.__name__.upper()


class Tagged(metaclass=Meta, tag="t"):
    pass


class Registry:
    """Knows what is derived from it."""

    known: typing.ClassVar[list[str]] = []

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        cls.known.append(cls.__name__)


class Plugin(Registry):
    pass


@alike
def metaclasses():
    return Tagged.shout(), Tagged.tag, type(Tagged).__name__


class Slotted:
    __slots__ = ("__dict__", "x")

    def __init__(self):
        self.x, self.y = 1, 2


class Single:
    __slots__ = "only"

    def __init__(self):
        self.only = 3


class Descriptor:
    def __set_name__(self, owner, name):
        self.name = name

    def __get__(self, instance, owner):
        return self.name, SCALE


class Described:
    attribute = Descriptor()
    partial = functools.partialmethod(lambda self, x: x + SCALE, 4)

    def __init__(self):
        self.slots = Slotted(), Single()


@alike
def slots_and_descriptors():
    described_one = Described()
    slotted, single = described_one.slots
    return (
        slotted.x,
        slotted.y,
        single.only,
        hasattr(single, "__dict__"),
        described_one.attribute,
        described_one.partial(),
    )


Identifier = typing.NewType("Identifier", int)
Params = typing.ParamSpec("Params")


def forwards(function: Callable[Params, T], *args: Params.args, **kwargs: Params.kwargs) -> T:
    return function(*args, **kwargs)


@alike
def types_of_the_script():
    return Identifier(5), Identifier.__supertype__, forwards(max, 1, 2), Params.__name__


class Registered2:
    """Wants a keyword of what is derived, and takes note of it."""

    known: typing.ClassVar[list[str]] = []

    def __init_subclass__(cls, /, tag, **kwargs):
        super().__init_subclass__(**kwargs)
        cls.tag = tag
        cls.known.append(cls.__name__)


class Derived2(Registered2, tag="d"):
    pass


class Strict(abc.ABCMeta):
    made: typing.ClassVar[list[str]] = []

    def __new__(mcls, name, bases, namespace, *, needed):
        mcls.made.append(name)
        return super().__new__(mcls, name, bases, namespace)

    def __init__(cls, *args, **kwargs): ...


class Kept(metaclass=Strict, needed=1):
    @abc.abstractmethod
    def kept(self): ...


class Keeping(Kept, needed=2):
    def kept(self):
        return 7


@alike
def classes_that_are_told_of_when_they_are_made():
    return Derived2.tag, Registered2.known, Strict.made, Keeping().kept(), isinstance(Keeping(), Kept)


@compute_this
def adds_offset(x):
    return x + adds_offset.offset


adds_offset.offset = 5


@alike
def attributes_of_a_decorated_function():
    return adds_offset.local(1)


Unit = typing.Annotated[float, {"k": 1}]


@alike
def what_annotations_hold():
    return Unit.__metadata__, typing.get_type_hints(annotated)["a"]


class Identical(enum.Enum):
    FIRST, SECOND = object(), object()


@alike
def what_refers_to_the_script_by_its_name():
    import pickle

    return (
        pickle.loads(pickle.dumps(Single())).only,
        sys.modules[Single.__module__].Single is Single,
        typing.get_type_hints(annotated)["a"],
    )


version, limits = sys.version_info, sys.float_info


@alike
def what_the_interpreter_has_but_one_of():
    return version >= (3, 10), version.major, limits.max, Identical.FIRST is not Identical.SECOND


original_dumps = json.dumps
json_dumps = plus_one(functools.wraps(json.dumps)(lambda value: len(original_dumps(value))))


def check_what_the_script_puts_into_a_library_is_the_scripts() -> None:
    json.dumps = json_dumps
    try:
        assert uses_both_dumps().run() == (3, "1") if __name__ == "__main__" else True
    finally:
        json.dumps = original_dumps


@compute_this
def uses_both_dumps():
    return json_dumps(10), original_dumps(1)


class Changing:
    number = 0

    def __eq__(self, other):
        return True


class ChangingEnum(enum.Enum):
    A = 1


class ChangingBase(abc.ABC):
    @abc.abstractmethod
    def f(self): ...


partial_int = functools.partial(int, 3)


@compute_this
def changes_its_classes():
    before = (
        getattr(Changing, "__mine__", 0),
        getattr(ChangingEnum.A, "n", 0),
        getattr(ChangingEnum, "count", 0),
        issubclass(int, ChangingBase),
        getattr(partial_int, "n", 0),
    )
    Changing.__mine__ = ChangingEnum.A.n = ChangingEnum.count = partial_int.n = 1
    ChangingBase.register(int)
    return before


@compute_this
def equals():
    return Changing() == Changing(), Changing.__name__


def check_no_call_sees_what_another_one_has_changed() -> None:
    if __name__ == "__main__":
        assert [changes_its_classes().run() for _ in range(3)] == [(0, 0, 0, False, 0)] * 3
        assert equals().run() == (True, "Changing")
        del Changing.__eq__
        Changing.__name__ = "Changed"
        assert equals().run() == (False, "Changed")


class Missed(OSError):
    def __init__(self, path):
        super().__init__(2, "not there", path)


class TwoParts(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one}{two}")
        self.one = one


@compute_this
def raises(error):
    raise error


def check_an_attribute_that_is_set_between_two_calls() -> None:
    if __name__ == "__main__":
        for offset in (5, 7, 5):
            adds_offset.offset = offset
            assert adds_offset(1).run() == 1 + offset


def check_exceptions_with_constructors_of_their_own() -> None:
    for error in (Missed("/x"), TwoParts(1, 2), UnicodeDecodeError("utf-8", b"x", 0, 1, "bad")):
        got = raises(error).submit().exception(60)
        assert (type(got), str(got), got.args, vars(got)) == (
            type(error),
            str(error),
            error.args,
            vars(error),
        )
    assert same(TwoParts(1, 2)).run().one == 1
    assert raises(Missed("/x")).submit().exception(60).filename == "/x"
    if sys.version_info >= (3, 11):
        group = ExceptionGroup("two", [TwoParts(1, 2), ValueError(3)])  # noqa: F821
        assert raises(group).submit().exception(60).exceptions[0].one == 1


def check_a_call_that_was_not_made_is_no_result() -> None:
    try:
        odd(3).run()
    except TypeError as error:
        assert "even(...) is a call that has not been made" in str(error), error
    else:
        raise AssertionError("it came back")


@compute_this
def odd(n):
    return n and even(n - 1)


@compute_this
def even(n):
    return not n or odd(n - 1)


@compute_this
def deep(n):
    return 0 if n == 0 else 1 + deep(n - 1)


def check_recursion_is_as_deep_as_here() -> None:
    assert deep(300).run() == deep.local(300) == 300
    if sys.version_info[:2] != (3, 12):
        assert deep(900).run() == 900


# Recursion: one rule


@compute_this
def countdown(n):
    return [n] if n == 0 else [n, *countdown(n - 1)]


@compute_this
@plus_one
def counts_up(n):
    return 0 if n == 0 else counts_up(n - 1)


@compute_this
@times_ten
def without_a_name(n):
    return 1 if n == 0 else without_a_name(n - 1)


@compute_this
def says_it_aloud(n):
    return 1 if n == 0 else n * says_it_aloud.local(n - 1)


@compute_this
def in_a_comprehension(n):
    return [n] if n == 0 else [sum(in_a_comprehension(n - 1)) for _ in range(2)]


class Maths:
    """Methods that run on the pool."""

    def __init__(self, base=1):
        self.base = base

    @compute_this
    def factorial(self, n):
        return self.base if n == 0 else n * self.factorial(n - 1)

    @compute_this
    @staticmethod
    def fixed(n):
        return (
            n if n < 2 else sum(Maths.fixed(i) for i in range(n)) + sum(2 * Maths.fixed(i) for i in range(n))
        )

    @compute_this
    def by_another(self, n):
        return 0 if n == 0 else 1 + Maths(n).by_another(n - 1)


@compute_this
def takes_self(self, function=None, args=(), **kwargs):
    return self, function, args, kwargs


def multiplier(by):
    @compute_this
    def multiply(x, other=None):
        return x * by if other is None else other(x).run()

    return multiply


class Counted:
    number, items = 0, []  # type: ignore[var-annotated]


@compute_this
def counts_inside(x):
    Counted.number = x
    return Counted.number


@compute_this
def counts_outside():
    Counted.number, items = 7, Counted.items
    inside = counts_inside(50).run()
    items.append(1)
    return inside, Counted.number, Counted.items


def check_a_task_of_a_task_has_copies_of_its_own_also_in_place() -> None:
    if __name__ == "__main__":
        assert [counts_outside().run() for _ in range(2)] == [(50, 7, [1])] * 2


@compute_this
def chunk_in_a_chunk(x):
    list(same.map([1, 2]))
    if x == 0:
        raise ValueError(x)
    return x


@compute_this
def chunks():
    return list(chunk_in_a_chunk.map([0, 1, 2, 3], chunksize=4, return_exceptions=True))


def check_a_map_in_a_map_in_place() -> None:
    for _ in range(2):
        first, *others = chunks().run()
        assert (type(first), others) == (ValueError, [1, 2, 3])


def check_recursion() -> None:
    for task, n in (
        (countdown, 3),
        (counts_up, 3),
        (without_a_name, 2),
        (says_it_aloud, 4),
        (in_a_comprehension, 3),
        (Maths(2).factorial, 5),
        (Maths().by_another, 3),
        (Maths().fixed, 4),
        (Maths.fixed, 4),
    ):
        assert task(n).run() == task.local(n), task
    assert Maths(3).factorial(4).run() == 72
    twice, thrice = multiplier(2), multiplier(3)
    assert thrice(5, twice).run() == 10
    call = Maths().factorial(3)
    assert repr(call).startswith("<call of factorial(3)")
    call.run()
    asked = {"self": 1, "function": 2, "args": 3, "instance": 4}
    assert takes_self(**asked).run() == takes_self.local(**asked) == (1, 2, 3, {"instance": 4})


@compute_this
def asks_the_pool(n):
    return 1 if n == 0 else asks_the_pool(n - 1).run()


def check_asking_for_the_pool_inside() -> None:
    for ask in (asks_the_pool.local, lambda n: asks_the_pool(n).run()):
        try:
            ask(2)
        except AttributeError as error:
            assert "asks_the_pool.map([...])" in str(error), error
        else:
            raise AssertionError("it was answered")


# What is known by its name


class Missing:
    """There is but one."""

    def __reduce__(self):
        return "MISSING"


MISSING = Missing()


@compute_this
def is_missing(x=None):
    return x is MISSING


def check_what_has_but_a_name() -> None:
    if __name__ != "__main__":
        assert is_missing(MISSING).run()
        return
    for call in (is_missing(), is_missing(MISSING)):
        try:
            call.run()
        except TaskNotSendable as error:
            assert "MISSING" in str(error), error
        else:
            raise AssertionError("it was sent")


NOTHING = object()


@compute_this
def is_nothing(x):
    return x is NOTHING


def check_a_sentinel_is_one_for_function_and_arguments() -> None:
    assert is_nothing(NOTHING).run()
    assert not is_nothing(object()).run()


@compute_this
def same(x):
    return x


def check_what_comes_back() -> None:
    for value in (
        Point(1),
        Frozen(name="f"),
        Pair(1),
        Colour.RED,
        Planet.MARS,
        Coordinate.X,
        Access.BOTH,
        Level.LOW,
    ):
        back = same(value).run()
        assert back == value, value
        assert type(back) is type(value)
    for member in (Colour.RED, Planet.MARS, Coordinate.Y, Access.BOTH):
        assert same(member).run() is member
    for cls in (Shape, Square.Corner, Stack, Tagged, Planet, Movie, Held):
        assert same(cls).run() is cls
    assert same(dataclasses.MISSING).run() is dataclasses.MISSING
    assert same(json.loads).run() is json.loads
    assert same(random.randint).run() == random.randint
    square = Square()
    assert same((square.area, Square.make)).run()[1] == Square.make
    assert same(square.area).run().__func__ is Square.area
    mine = keeper()
    add, read = same(mine).run()
    add()
    assert (read(), mine[1]()) == (1, 0)
    assert same(plus_one(lambda: 4)).run()() == 5


CHECKS = {name: function for name, function in list(globals().items()) if name.startswith("check_")}


def main() -> int:
    """Try all; how many failed."""
    failed = 0
    for name in [*TASKS, *CHECKS]:
        try:
            CHECKS[name]() if name in CHECKS else check(name)
        except BaseException:
            failed += 1
            print(f"FAILED {name}\n{traceback.format_exc()}", flush=True)
        else:
            print(f"ok {name}", flush=True)
    return min(failed, 100)


def check(name: str) -> None:
    """That one function gives on the pool what it gives here."""
    got, expected = TASKS[name]().run(), TASKS[name].local()
    assert got == expected, f"expected {expected}\n     got {got}"


if __name__ == "__main__":
    sys.exit(main())
