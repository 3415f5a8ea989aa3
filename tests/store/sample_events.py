"""Facts and events for the store's tests: one plain, one that has grown a version, one with personal fields."""

from datetime import UTC, datetime
from typing import Any, ClassVar

from tsm.model.event import Context, Event, Fact

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
CONTEXT = Context(actor="phone", role="phone", tenant="JPKI0001", tenants=("MNO00001",), correlation="story-1")


class KeysPut(Fact, frozen=True, kw_only=True):
    """PUT KEY was acknowledged."""

    topic: ClassVar[str] = "sample.keys_put"
    domain: str
    key_version: int
    check_values: tuple[str, ...]


class Renamed(Fact, frozen=True, kw_only=True):
    """Version 1 said `sort`; version 2 says `kind`; version 3 adds `count`."""

    topic: ClassVar[str] = "sample.renamed"
    class_version: ClassVar[int] = 3
    kind: str
    count: int

    @staticmethod
    def upcast_v1_v2(data: dict[str, Any]) -> None:
        data["kind"] = data.pop("sort")

    @staticmethod
    def upcast_v2_v3(data: dict[str, Any]) -> None:
        data["count"] = 1


class Applied(Fact, frozen=True, kw_only=True):
    """Somebody applied: who, is nobody's business."""

    topic: ClassVar[str] = "sample.applied"
    sealed: ClassVar[tuple[str, ...]] = ("iccid", "applicant")
    subject: str
    iccid: str
    applicant: str
    provider: str


FACTS = (KeysPut, Renamed, Applied)
KEYS_PUT = KeysPut(domain="A0000001510000", key_version=2, check_values=("e79c05", "d1bd77", "3fde8c"))
APPLIED = Applied(subject="credential-1", iccid="8981100000000000012", applicant="山田 花子", provider="JPKI0001")


def event(fact: Fact = KEYS_PUT, stream: str = "card-1", number: int = 1, occurred_at: datetime = NOON) -> Event:
    return Event(originator_id=stream, originator_version=number, occurred_at=occurred_at, context=CONTEXT, fact=fact)
