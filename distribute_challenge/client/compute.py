"""`compute_this`: a function that can run on the pool, and the calls it makes."""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, Generic, ParamSpec, TypeVar, overload

from distribute_challenge.client.engine import check_address, executor_at
from distribute_challenge.client.options import Options
from distribute_challenge.client.pool import PoolExecutor
from distribute_challenge.client.shipping import Shipment
from distribute_challenge.client.tasks import TaskFuture
from distribute_challenge.tls import Tls

P = ParamSpec("P")
R = TypeVar("R")


class Call(Generic[R]):
    """One call of a function, not yet made."""

    def __init__(
        self, function: ComputeFunction[Any, R], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._function = function
        self._args = args
        self._kwargs = kwargs

    def run(self, timeout: float | None = None) -> R:
        """Run the call on the pool and return its value.

        Blocks until a worker is free and the function has ended, however long that takes. With `timeout`, the
        function is killed if it has not ended that many seconds after the worker started it.

        Raises what the function raised, with its remote traceback as the cause; TaskNotSendable if the
        function or a value it uses cannot travel; ServerUnavailable if nothing answers; AccessDenied;
        WorkerLost if the worker died; TaskTimeout.

        >>> func(3).run()                                     # doctest: +SKIP
        9
        """
        function = self._function
        options = function.options.with_timeout(timeout)
        value: R = function.executor().run_call(function.shipment, self._args, self._kwargs, options)
        return value

    def submit(self, timeout: float | None = None) -> TaskFuture[R]:
        """Have the call run on the pool; its future. What `run` raises is the future's exception.

        >>> func(3).submit().result()                         # doctest: +SKIP
        9
        """
        function = self._function
        options = function.options.with_timeout(timeout)
        return function.executor().submit_call(function.shipment, self._args, self._kwargs, options)

    def __await__(self) -> Generator[Any, None, R]:
        """In asyncio, `await func(3)` is the value."""
        return self._awaited().__await__()

    async def _awaited(self) -> R:
        import asyncio  # Late: who awaits has it already, and nobody else needs it.

        future = self.submit()
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            future.kill()
            raise

    def __repr__(self) -> str:
        arguments = [repr(value) for value in self._args]
        arguments += [f"{name}={value!r}" for name, value in self._kwargs.items()]
        text = f"{self._function.__name__}({', '.join(arguments)})"
        return f"<call of {text}: .run(), .submit() or `await` runs it on the pool>"


class ComputeFunction(Generic[P, R]):
    """A function that runs on the pool: what `compute_this` makes of a plain one.

    Calling it makes a `Call`; nothing happens before that is run. The plain function is `__wrapped__`.
    """

    __name__: str
    __wrapped__: Callable[P, R]

    def __init__(
        self, function: Callable[P, R], *, server: str | None = None, options: Options | None = None
    ) -> None:
        if not callable(function):
            raise TypeError(f"compute_this decorates a function, not {function!r}")
        functools.update_wrapper(self, function)
        self.__name__ = getattr(function, "__name__", type(function).__name__)
        self.options = options or Options()
        self._server = server
        self._own_code = frozenset(map(id, _code_of(inspect.unwrap(function))))

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Call[R]:
        if id(sys._getframe(1).f_code) in self._own_code:
            # Inside the function its name is the plain function: it calls itself, and not the pool.
            return self.__wrapped__(*args, **kwargs)  # type: ignore[return-value]
        return Call(self, args, kwargs)

    def __get__(self, instance: Any, owner: type | None = None) -> ComputeFunction[..., R]:
        """As a method: the instance is the first argument."""
        if instance is None:
            return self
        bound = functools.partial(self.__wrapped__, instance)
        return ComputeFunction(bound, server=self._server, options=self.options)

    def local(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the plain function here and now, without the pool."""
        return self.__wrapped__(*args, **kwargs)

    def map(
        self,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
        progress: bool = False,
    ) -> Iterator[R]:
        """The results for each set of items: `PoolExecutor.map` has the details.

        >>> list(func.map(range(3)))                          # doctest: +SKIP
        [0, 1, 4]
        """
        return self.executor().map_calls(
            self.shipment,
            iterables,
            self.options,
            timeout=timeout,
            chunksize=chunksize,
            buffersize=buffersize,
            ordered=ordered,
            return_exceptions=return_exceptions,
            progress=progress,
        )

    @property
    def source(self) -> str:
        """The text that travels."""
        return self.shipment.source

    @functools.cached_property
    def shipment(self) -> Shipment:
        """How the function travels."""
        return Shipment(self.__wrapped__, is_decorator_of_ours)

    def executor(self) -> PoolExecutor:
        """Where its calls run."""
        return executor_at(self._server, self.options.tls, self.options.wait_s)

    def __reduce__(self) -> Any:
        # In two steps: it may be among the values that the function inside it uses.
        return _blank, (), (self.__wrapped__, self._server, self.options)

    def __setstate__(self, state: tuple[Callable[P, R], str | None, Options]) -> None:
        function, server, options = state
        self.__init__(function, server=server, options=options)  # type: ignore[misc]

    def __repr__(self) -> str:
        return f"<{self.__name__} on the pool: {self.__name__}(...).run()>"


@overload
def compute_this(function: Callable[P, R], /) -> ComputeFunction[P, R]: ...
@overload
def compute_this(
    function: None = None,
    /,
    *,
    server: str | None = None,
    timeout: float | None = None,
    retries: int = 0,
    prints: bool = True,
    wait: float = 0,
    tls: Tls | None = None,
) -> Callable[[Callable[P, R]], ComputeFunction[P, R]]: ...
def compute_this(
    function: Callable[P, R] | None = None,
    /,
    *,
    server: str | None = None,
    timeout: float | None = None,
    retries: int = 0,
    prints: bool = True,
    wait: float = 0,
    tls: Tls | None = None,
) -> Any:
    """Let a function run on the pool. With and without parentheses.

    `server` is the pool's `HOST:PORT`, or `local://N` for a private one of N workers; by default the
    environment's COMPUTE_SERVER, else `localhost:18811`. With `timeout`, a call is killed that many seconds
    after its worker started it. A call is run again `retries` times if its worker was lost, and never because
    the function raised. With `prints=False`, what it prints is not shown here. With `wait=10`, a server
    that is not there yet is waited for, at most so many seconds. With `tls=Tls(cert, key, ca)` server and
    workers are reached by mutual TLS; by default with the environment's COMPUTE_TLS_CERT, COMPUTE_TLS_KEY and
    COMPUTE_TLS_CA, if it has them.

    Nothing connects before the first call. Raises ValueError if `server` is no address or another argument
    makes no sense, TypeError if `function` is not callable.

    >>> @compute_this
    ... def func(x):
    ...     return x * x
    >>> func(3).run()                                         # doctest: +SKIP
    9
    >>> func.local(3)
    9
    """
    if server is not None:
        check_address(server)
    options = Options(timeout, retries, prints, wait, tls)
    if function is None:
        return functools.partial(ComputeFunction, server=server, options=options)
    return ComputeFunction(function, server=server, options=options)


def is_decorator_of_ours(value: Any) -> bool:
    """Whether `value` is `compute_this`, or what `compute_this(...)` gives."""
    return value is compute_this or (isinstance(value, functools.partial) and value.func is ComputeFunction)


def _code_of(function: Any) -> Iterator[types.CodeType]:
    """The code of a function, and all code inside it."""
    codes = [function.__code__] if isinstance(function, types.FunctionType) else []
    for code in codes:  # It grows while it is gone through.
        codes += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
        yield code


def _blank() -> ComputeFunction[Any, Any]:
    return ComputeFunction.__new__(ComputeFunction)
