"""A coroutine whose first step was made outside of a task, and that a task goes on with."""

from collections.abc import Coroutine, Generator
from typing import Any


class Rest(Generator[Any, Any, None]):
    """What is left of ``coroutine``, which waits for ``waited``: to be awaited by the task it already ran for."""

    __slots__ = ("_coroutine", "_error", "_waited")

    def __init__(self, coroutine: Coroutine[Any, Any, None], waited: Any) -> None:
        self._coroutine = coroutine
        self._waited = waited
        self._error: BaseException | None = None

    def __await__(self) -> "Rest":
        return self

    def interrupt(self, error: BaseException) -> None:
        """Raise ``error`` where the coroutine waits, once it goes on."""
        self._error = error

    def send(self, value: Any) -> Any:
        if self._error is not None:
            error, self._error = self._error, None
            return self.throw(error)
        if self._waited is not None:
            waited, self._waited = self._waited, None
            return waited
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        self._waited = None
        return self._coroutine.throw(*error)

    def close(self) -> None:
        self._coroutine.close()
