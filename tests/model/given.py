"""Given these facts, when this is decided, then these facts follow, or nothing, or a refusal."""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import pytest

from tsm.errors import ErrorCode, TsmError
from tsm.model.event import Fact


class Given:
    def __init__(self, evolve: Callable[[Any, Fact], Any], facts: Sequence[Fact]) -> None:
        self.state = reduce(evolve, facts, None)

    def when(self, decide: Callable[..., Sequence[Fact]], *values: Any) -> "When":
        return When(lambda: decide(self.state, *values))


class When:
    def __init__(self, decide: Callable[[], Sequence[Fact]]) -> None:
        self.decide = decide

    def then(self, *facts: Fact) -> None:
        assert list(self.decide()) == list(facts)

    def then_nothing(self) -> None:
        self.then()

    def then_refused(self, code: ErrorCode) -> None:
        with pytest.raises(TsmError) as refusal:
            self.decide()
        assert refusal.value.code is code


def given(evolve: Callable[[Any, Fact], Any], *facts: Fact) -> Given:
    return Given(evolve, facts)
