"""Scripts made up by hypothesis: helpers, decorators, closures and classes, and functions that use them.

Each function whose name begins with `task` takes nothing, and returns values that can be compared.
"""

from __future__ import annotations

import importlib.util
import textwrap

from hypothesis import strategies as st

PRELUDE = """
import abc, dataclasses, enum, functools, inspect, typing
from math import floor, sqrt as root
T = typing.TypeVar("T")
"""

DECORATORS = {
    "wrapping": """
def {name}(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return [{n}, function(*args, **kwargs)]
    return wrapper
""",
    "bare": """
def {name}(function):
    calls = 0
    def wrapper(*args, **kwargs):
        nonlocal calls
        calls += 1
        return (calls, {n}, function(*args, **kwargs))
    return wrapper
""",
    "class": """
class {name}:
    def __init__(self, function):
        self.function, self.n = function, {n}
    def __call__(self, *args, **kwargs):
        return (self.n, type(self).__qualname__, self.function(*args, **kwargs))
""",
    "wrapping class": """
class {name}:
    def __init__(self, function):
        functools.update_wrapper(self, function)
        self.n = {n}
    def __call__(self, *args, **kwargs):
        return {{"n": self.n, "name": self.__name__, "r": self.__wrapped__(*args, **kwargs)}}
""",
    "annotating": """
def {name}(function):
    hints = sorted(getattr(function, "__annotations__", {{}}))
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return hints, function(*args, **kwargs), str(inspect.signature(function))
    wrapper.mark = {n}
    return wrapper
""",
    "cached": """
{name} = functools.lru_cache(maxsize={n})
""",
}
WITH_ARGUMENT = """
def {name}(argument):
    def decorate(function):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            return argument, function(*args, **kwargs)
        return wrapper
    return decorate
"""

# With `{body}`, an expression; each can be made with no arguments, and has a method `worth`.
CLASSES = {
    "plain": """
class {name}:
    limit = {n}
    __own = {n}
    def __init__(self, x: int = {n}) -> None:
        self.x = x
    def worth(self):
        "What it is worth."
        return self.x, self.limit, self.__own, {body}
    @property
    def twice(self): return self.x * 2
    @staticmethod
    def fixed(): return {body}
    @classmethod
    def make(cls): return cls({n} + 1)
    def __eq__(self, other): return type(self) is type(other) and self.x == other.x
""",
    "derived": """
class {name}Base:
    def worth(self): return {n}
    class Nested:
        def worth(self): return __class__.__qualname__, {body}
class {name}({name}Base):
    def worth(self):
        return super().worth(), [super(__class__, self).worth() for _ in range(2)], self.Nested().worth()
    def __eq__(self, other): return type(self) is type(other)
""",
    "dataclass": """
@dataclasses.dataclass
class {name}:
    x: int = {n}
    y: list = dataclasses.field(default_factory=list)
    def worth(self):
        return [(f.name, f.default is dataclasses.MISSING) for f in dataclasses.fields(self)], {body}, repr(self)
""",
    "slotted dataclass": """
@dataclasses.dataclass(slots=True, frozen=True, order=True)
class {name}:
    x: int = {n}
    def worth(self):
        return dataclasses.replace(self, x=2), self < dataclasses.replace(self, x=self.x + 1), {body}
""",
    "named tuple": """
class {name}(typing.NamedTuple):
    x: int = {n}
    y: "str" = "y"
    def worth(self):
        return self._replace(y="z"), self._fields, {name}._field_defaults, {body}
""",
    "enum": """
class {name}(enum.Enum):
    A, B = {n}, {n} + 1
    ALIAS = {n}
    def shown(self): return self.name, self.value, {body}
    @classmethod
    def worth(cls): return cls.ALIAS is cls.A, [m.shown() for m in cls], cls({n}).name
""",
    "enum with init": """
class {name}(enum.Enum):
    A = ({n}, 1)
    B = ({n}, 2)
    def __init__(self, a, b):
        self.total = a + b
    @classmethod
    def worth(cls): return [m.total for m in cls], cls(({n}, 2)).name, {body}
""",
    "enum with new": """
class {name}(int, enum.Enum):
    def __new__(cls, number, label):
        member = int.__new__(cls, number)
        member._value_, member.label = number, label
        return member
    A = ({n}, "a")
    B = ({n} + 1, "b")
    @classmethod
    def worth(cls): return [(m.label, m + 1) for m in cls], cls({n}).label, {body}
""",
    "flag": """
class {name}(enum.IntFlag):
    A, B = 1, 2
    C = 3
    @classmethod
    def worth(cls): return (cls.A | cls.B) is cls.C, list(cls), cls(3).name, {body}
""",
    "generic": """
class {name}(typing.Generic[T]):
    def __init__(self, x: T = {n}) -> None:
        self.x: T = x
    def worth(self) -> T:
        return self.x, {name}[int].__args__, {body}
    def __eq__(self, other): return type(self) is type(other)
""",
    "abstract": """
class {name}Base(abc.ABC):
    @abc.abstractmethod
    def worth(self): ...
    @property
    @abc.abstractmethod
    def also(self): ...
class {name}({name}Base):
    also = {n}
    def worth(self):
        try: {name}Base()
        except TypeError: return self.also, {body}, isinstance(self, {name}Base)
    def __eq__(self, other): return type(self) is type(other)
""",
}
if importlib.util.find_spec("attrs") is not None:
    CLASSES["attrs"] = """
import attrs
@attrs.define
class {name}:
    x: int = attrs.field(default="{n}", converter=lambda v: int(v) + {n})
    y: list = attrs.Factory(list)
    def worth(self):
        return attrs.asdict(self), attrs.evolve(self, x="7").x, {body}, __class__.__name__
"""
if importlib.util.find_spec("pydantic") is not None:
    CLASSES["pydantic"] = """
import pydantic
class {name}(pydantic.BaseModel):
    x: int = {n}
    y: list[str] = []
    @pydantic.field_validator("x")
    @classmethod
    def positive(cls, x): return abs(x) + {n}
    def worth(self):
        return {name}(x="-3", y=["a"]).model_dump(), {name}.model_json_schema(), {body}
"""


@st.composite
def expressions(draw: st.DrawFn, names: list[str]) -> str:
    """What the body of something that comes after these names may be."""
    calls = [f"{name}()" for name in names]
    leaves = [
        "1",
        "'text'",
        "root(16)",
        "floor(2.5)",
        "len('abc')",
        "(lambda q: q + 1)(2)",
        "[i for i in range(3)]",
    ]
    return ", ".join(draw(st.lists(st.sampled_from([*leaves, *calls, *calls]), min_size=1, max_size=3)))


@st.composite
def scripts(draw: st.DrawFn) -> str:
    """The text of a script."""
    number = st.integers(0, 9)
    parts, usable, decorators, classes = [PRELUDE], [], [], []
    for index in range(draw(st.integers(0, 2))):
        parts.append(
            f"CONSTANT{index} = {draw(st.sampled_from(['3', repr('c'), '(1, 2)', '[1]', '{1: 2}', '1.5']))}\n"
        )
        parts.append(f"def constant{index}(): return CONSTANT{index}\n")
        usable.append(f"constant{index}")
    for index in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(sorted(DECORATORS)))
        parts.append(DECORATORS[kind].format(name=f"decorate{index}", n=draw(number)))
        decorators.append(f"@decorate{index}")
    parts.append(WITH_ARGUMENT.format(name="tagged"))
    decorators.append(f"@tagged({draw(number)})")
    stacks = st.lists(st.sampled_from(decorators), max_size=3)
    for index in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(sorted(CLASSES)))
        body = draw(expressions(usable))
        parts.append(CLASSES[kind].format(name=f"Class{index}", n=draw(number), body=f"({body},)"))
        is_enum = "enum" in kind or kind == "flag"
        parts.append(f"def instance{index}(): return Class{index}{'.A' if is_enum else '()'}\n")
        parts.append(f"def value{index}(): return instance{index}().worth()\n")
        usable += [f"instance{index}", f"value{index}"]
        classes.append(f"Class{index}")
    for index in range(draw(st.integers(0, 3))):
        body = draw(expressions(usable))
        if draw(st.booleans()):
            head = f"def helper{index}(a: int = {draw(number)}, *, b: 'str' = 'x') -> object:"
            parts.append("\n".join([*draw(stacks), head, '    "A helper."', f"    return a, b, ({body},)\n"]))
        else:
            closure = f"""
            def make{index}(start):
                count = start
                def add(by: int = 1):
                    nonlocal count
                    count += by
                    return count, ({body},)
                def read():
                    return count, add.__qualname__
                return add, read
            add{index}, helper{index} = make{index}({draw(number)})
            """
            parts.append(textwrap.dedent(closure))
            usable.append(f"add{index}")
        usable.append(f"helper{index}")
    looked_at = [
        *(f"{name}.__qualname__, {name}.__doc__, {name}.__module__" for name in classes),
        *(f"getattr({name}, '__annotations__', None)" for name in [*classes, *usable]),
        *(f"getattr({name}, '__name__', None), getattr({name}, '__doc__', None)" for name in usable),
        *(f"{name}.worth.__qualname__" for name in classes),
    ]
    for index in range(draw(st.integers(1, 3))):
        body = draw(expressions(usable))
        seen = ", ".join(draw(st.lists(st.sampled_from(looked_at), max_size=3)))
        lines = [
            *draw(stacks),
            f"def task{index}():",
            f"    return ({body},), ({seen}{',' if seen else ''})\n",
        ]
        parts.append("\n".join(lines))
    return "\n".join(parts)
