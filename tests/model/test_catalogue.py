"""The catalogue of load files."""

import msgspec
import pytest
from given import given
from samples import BLOCK, LOAD_FILE

from tsm.errors import ErrorCode, TsmError
from tsm.model import catalogue

NEXT = msgspec.structs.replace(LOAD_FILE, version="1.1", sha256="00" * 32, size=7)


def test_a_load_file_is_registered() -> None:
    given(catalogue.evolve).when(catalogue.register, LOAD_FILE).then(LOAD_FILE)


def test_registering_a_version_again_is_no_news() -> None:
    given(catalogue.evolve, LOAD_FILE).when(catalogue.register, LOAD_FILE).then_nothing()


def test_a_new_version_follows() -> None:
    given(catalogue.evolve, LOAD_FILE).when(catalogue.register, NEXT).then(NEXT)
    assert given(catalogue.evolve, LOAD_FILE, NEXT).state.current == NEXT


def test_a_version_does_not_change_its_content() -> None:
    other = msgspec.structs.replace(LOAD_FILE, sha256="00" * 32)
    given(catalogue.evolve, LOAD_FILE).when(catalogue.register, other).then_refused(ErrorCode.ALREADY_EXISTS)


def test_an_old_version_does_not_come_back() -> None:
    given(catalogue.evolve, LOAD_FILE, NEXT).when(catalogue.register, LOAD_FILE).then_refused(ErrorCode.ALREADY_EXISTS)


def test_another_providers_load_file_is_not_replaced() -> None:
    other = msgspec.structs.replace(NEXT, provider="OTHER001")
    given(catalogue.evolve, LOAD_FILE).when(catalogue.register, other).then_refused(ErrorCode.FORBIDDEN)


@pytest.mark.parametrize("bad", [{"module": "d392"}, {"provider": "x"}, {"version": ""}, {"sha256": "00"}, {"size": 0}])
def test_a_value_that_is_not_as_specified_is_refused(bad: dict[str, object]) -> None:
    wrong = msgspec.structs.replace(LOAD_FILE, **bad)
    given(catalogue.evolve).when(catalogue.register, wrong).then_refused(ErrorCode.INVALID_INPUT)


def test_the_data_block_must_have_its_size_and_hash() -> None:
    catalogue.refuse_other_content(LOAD_FILE, BLOCK)
    with pytest.raises(TsmError, match="INVALID_INPUT"):
        catalogue.refuse_other_content(LOAD_FILE, BLOCK.upper())
