"""Facts that hold nothing: what a client finds in a repository that it may not pull."""

from collections.abc import Callable, Sequence
from typing import Any, Self

from moorage.metadata.base import Arguments, Result, Row, Unit
from moorage.spec.errors import Denied


class Nothing:
    """``Metadata`` in which nothing is there and nothing can be changed."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        pass

    async def fetch(self, query: str, *parameters: Any) -> Sequence[Row]:  # noqa: ARG002  nothing is there
        return ()

    async def ahead(self) -> float:
        return 0.0

    async def transact(
        self,
        unit: Callable[Arguments, Unit[Result]],  # noqa: ARG002  none is run
        *arguments: Arguments.args,  # noqa: ARG002
        **named: Arguments.kwargs,  # noqa: ARG002
    ) -> Result:
        raise Denied
