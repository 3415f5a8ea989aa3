"""The table of statuses: documented to the last one, within the lengths of MC-05."""

import re

from tsm.errors import ErrorCode
from tsm.mas import status
from tsm.mas.status import OF_ERROR, Status, status_of


def test_every_status_stands_in_the_documented_table_and_none_else():
    rows = re.findall(r"^\| (\d\d) +\| (\S+) +\|", status.__doc__ or "", re.MULTILINE)
    assert rows == [(s.value, s.info or "(empty)") for s in Status]


def test_statuses_and_words_fit_their_fields():
    assert all(len(s) == 2 and len(s.info) <= 20 for s in Status)


def test_what_is_none_of_the_partys_business_is_internal():
    assert status_of(ErrorCode.STORE_CORRUPT) is Status.INTERNAL
    assert status_of(ErrorCode.WRONG_CARD) is Status.WRONG_CARD
    assert set(OF_ERROR.values()) >= set(Status) - {Status.OK, Status.NOT_ALL_ACKNOWLEDGED, Status.INTERNAL}
