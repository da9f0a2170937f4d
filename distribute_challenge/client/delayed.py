"""A call of a decorated function that is not made yet, and the ways to make it."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Generator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:  # It makes these.
    from distribute_challenge.client.compute import ComputeFunction
    from distribute_challenge.client.tasks.task import TaskFuture

R = TypeVar("R")


class DelayedCall(Generic[R]):
    """One call of a function, not yet made."""

    _is_made = True  # Until it has all that it needs, nobody can make it.

    def __init__(
        self, function: ComputeFunction[Any, R], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._function = function
        self._args = args
        self._kwargs = kwargs
        self._is_made = False

    def __del__(self) -> None:
        if not self._is_made and not sys.is_finalizing():  # As Python says of coroutines.
            text = (
                f"a call of {self._function.__name__} was never made: .run(), .submit() or `await` makes it"
            )
            warnings.warn(text, RuntimeWarning, stacklevel=2)

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
        self._is_made = True
        function = self._function
        options = function.options.with_timeout(timeout)
        value: R = function.executor().engine.run_call(function.shipment, self._args, self._kwargs, options)
        return value

    def submit(self, timeout: float | None = None) -> TaskFuture[R]:
        """Have the call run on the pool; its future. What `run` raises is the future's exception.

        >>> func(3).submit().result()                         # doctest: +SKIP
        9
        """
        self._is_made = True
        function = self._function
        options = function.options.with_timeout(timeout)
        return function.executor().engine.submit_call(function.shipment, self._args, self._kwargs, options)

    def __await__(self) -> Generator[Any, None, R]:
        """In asyncio, `await func(3)` is the value."""
        self._is_made = True
        return self._awaited().__await__()

    async def _awaited(self) -> R:
        import asyncio  # Late: who awaits has it already, and nobody else needs it.

        loop, has_ended = asyncio.get_running_loop(), asyncio.Event()

        def tell(_: object) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(has_ended.set)

        future = self.submit()
        Future.add_done_callback(future, tell)  # In the very thread in which the function ends.
        try:
            await has_ended.wait()
        except asyncio.CancelledError:
            future.kill()
            raise
        if future.cancelled():
            raise asyncio.CancelledError
        return future.result()

    def __reduce__(self) -> Any:
        self._is_made = True  # This error tells as much as the warning.
        name = self._function.__name__
        raise TypeError(
            f"{name}(...) is a call that has not been made: write {name}(...).run(), or .local(...); an "
            f"executor takes the function and its arguments, as in pool.submit({name}, ...)"
        )

    def __repr__(self) -> str:
        arguments = [repr(value) for value in self._args]
        arguments += [f"{name}={value!r}" for name, value in self._kwargs.items()]
        text = f"{self._function.__name__}({', '.join(arguments)})"
        return f"<call of {text}: .run(), .submit() or `await` runs it on the pool>"
