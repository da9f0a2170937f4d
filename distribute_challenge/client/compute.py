"""`compute_this`: a function that can run on the pool."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from distribute_challenge.client.body import Body
from distribute_challenge.client.delayed import DelayedCall
from distribute_challenge.client.importing import importing
from distribute_challenge.client.options import MapOptions, Options
from distribute_challenge.tls import Tls
from distribute_challenge.values.code import explained
from distribute_challenge.values.functions import Wrapper, functions_in

if TYPE_CHECKING:  # Late: a worker that loads a decorated function never needs them.
    from distribute_challenge.client.parcels.shipping import Shipment
    from distribute_challenge.client.pool import PoolExecutor


@functools.lru_cache(maxsize=1)
def _needed_by_calls() -> tuple[Any, Any]:
    """How a function is shipped, and where to: imported late, since a worker that loads one needs neither."""
    with importing:
        from distribute_challenge.client.executors import executor_at
        from distribute_challenge.client.parcels.shipping import Shipment
    return Shipment, executor_at


_NOT_SENT = ("_body", "_shipment", "fixed")  # of a decorated function: they are made anew
P = ParamSpec("P")
R = TypeVar("R")


class ComputeFunction(Wrapper, Generic[P, R]):
    """A function that runs on the pool: what `compute_this` makes of a plain one.

    Calling it makes a `DelayedCall`; nothing happens before that is run. The plain function is `__wrapped__`.
    Inside its own body, here and on workers alike, its name calls the plain function, as `local` does.
    """

    __name__: str
    __wrapped__: Callable[P, R]

    def __init__(
        self,
        function: Callable[P, R],
        *,
        server: str | None = None,
        options: Options | None = None,
        body: Body | None = None,
    ) -> None:
        if not callable(function):
            raise TypeError(f"compute_this decorates a function, not {function!r}")
        functools.update_wrapper(self, function)
        plain = next(functions_in(function), function)  # Of a bound method, what is bound.
        self.__name__ = getattr(function, "__name__", getattr(plain, "__name__", type(function).__name__))
        self.options = options or Options()
        self._server = server
        self._body = body or Body(function)
        self.fixed = frozenset(vars(self)) | {"fixed", "_shipment"}

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> DelayedCall[R]:
        if self._body.has(sys._getframe(1), self):
            return self.__wrapped__(*args, **kwargs)  # type: ignore[return-value]
        return DelayedCall(self, args, kwargs)

    def __get__(self, instance: Any, owner: type | None = None) -> ComputeFunction[..., R]:
        """As a method: the instance is the first argument."""
        if instance is None or isinstance(self.__wrapped__, staticmethod):
            return self
        bound = functools.partial(self.__wrapped__, instance)
        return ComputeFunction(bound, server=self._server, options=self.options, body=self._body)

    def __getattr__(self, name: str) -> Any:
        function = vars(self).get("__name__", "func")
        hint = f": {function}(...).{name}() makes a call" if name in ("run", "submit") else ""
        raise AttributeError(f"{function}, which runs on the pool, has no attribute {name!r}{hint}")

    def local(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the plain function here and now, without the pool.

        >>> compute_this(len).local("four")
        4
        """
        try:
            return self.__wrapped__(*args, **kwargs)
        except AttributeError as error:
            raise explained(error) from None

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
        how = MapOptions(timeout, chunksize, buffersize, ordered, return_exceptions, progress)
        return self.executor().engine.map_calls(self.shipment, iterables, self.options, how)

    @property
    def source(self) -> str:
        """The text that travels."""
        return self.shipment.source

    @property
    def shipment(self) -> Shipment:
        """How the function travels."""
        known: Shipment | None = vars(self).get("_shipment")
        if known is None or known.function is not self.__wrapped__:  # `wraps` copies that of another one.
            make, _ = _needed_by_calls()
            known = vars(self)["_shipment"] = make(self.__wrapped__)
        return known

    def executor(self) -> PoolExecutor:
        """Where its calls run."""
        _, executor_at = _needed_by_calls()
        executor: PoolExecutor = executor_at(self._server, self.options.tls, self.options.profile)
        return executor

    def __reduce__(self) -> Any:
        # In two steps: it may be among the values that the function inside it uses.
        attributes = {name: value for name, value in vars(self).items() if name not in _NOT_SENT}
        return ComputeFunction.__new__, (ComputeFunction,), attributes

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["__wrapped__"], server=state["_server"], options=state["options"])  # type: ignore[misc]
        vars(self).update(state)

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
    retries: int | None = None,
    prints: bool | None = None,
    wait: float = 0,
    tls: Tls | None = None,
    profile: str | os.PathLike[str] | None = None,
) -> Callable[[Callable[P, R]], ComputeFunction[P, R]]: ...
def compute_this(
    function: Callable[P, R] | None = None,
    /,
    *,
    server: str | None = None,
    timeout: float | None = None,
    retries: int | None = None,
    prints: bool | None = None,
    wait: float = 0,
    tls: Tls | None = None,
    profile: str | os.PathLike[str] | None = None,
) -> Any:
    """Let a function run on the pool. With and without parentheses.

    `server` is the pool's `HOST:PORT`, or `local://N` for a private one of N workers; by default the
    environment's COMPUTE_SERVER, else `localhost:18811`. With `timeout`, a call is killed that many seconds
    after its worker started it. A call is run again `retries` times if its worker was lost, or the server
    restarted, and never because the function raised. With `prints=False`, what it prints is not shown
    here. With `wait=10`, a server that is not there is waited for, at most so many seconds. With
    `tls=Tls(cert, key, ca)` server and workers are reached by mutual TLS; by default with the environment's
    COMPUTE_TLS_CERT, COMPUTE_TLS_KEY and COMPUTE_TLS_CA, if it has them. `profile=FILE` is where a private
    pool writes what its workers do. Where a function is given to a `PoolExecutor`, what its decorator says of
    `timeout`, `retries` and `prints` goes first, and for the rest that executor's options hold.

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
        with importing:
            from distribute_challenge.address import check_address
        check_address(server)
    if profile is not None and not (server or "").startswith("local://"):
        raise ValueError('profile= is for a private pool: say server="local://N" as well')
    options = Options.of_function(
        timeout_s=timeout,
        retries=retries,
        prints=prints,
        wait_s=wait,
        tls=tls,
        profile=None if profile is None else os.fspath(profile),
    )
    if function is None:
        return functools.partial(ComputeFunction, server=server, options=options)
    return ComputeFunction(function, server=server, options=options)
