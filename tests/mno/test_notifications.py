"""Notifications of GlobalPlatform System Messaging: a table of what each becomes, and what is refused."""

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.line_samples import NOON, NUMBER, OTHER_NUMBER, OTHER_PHONE, OTHER_SIM, SIM, SOURCE
from tsm.errors import ErrorCode, TsmError
from tsm.mno.notifications import ENVIRONMENT, NOTIFICATIONS, signal_of
from tsm.model.event import Context
from tsm.model.line import Signal, SignalKind, check

CARD, OTHER_CARD = {"ICCID": SIM}, {"ICCID": OTHER_SIM}
LINE, OTHER_LINE = {"MSISDN": NUMBER}, {"MSISDN": OTHER_NUMBER.removeprefix("+")}
STATUS = "HandleMobileSubscriptionStatusChangeNotification"
DEVICE = "HandleSEDeviceChangedNotification"
RENEWAL = "HandleSERenewalNotification"
ENVIRONMENT_CHANGE = "HandleServiceEnvironmentChangeNotification"
PROFILES = {"OldDeviceCapabilityProfileId": 4, "NewDeviceCapabilityProfileId": 4}

Case = tuple[str, dict[str, Any], SignalKind, dict[str, str]]
CASES: list[Case] = [
    (
        "HandleMobileSubscriptionIdentifierChangedNotification",
        {
            "MobileSubscriptionOldIdentifier": LINE,
            "MobileSubscriptionNewIdentifier": OTHER_LINE,
            "Extensions": {"SecureElement": CARD},
        },
        SignalKind.NUMBER_CHANGED,
        {"msisdn": OTHER_NUMBER, "previous": NUMBER, "iccid": SIM},
    ),
    *[
        (STATUS, {"MobileSubscription": LINE, "NewStatus": status, "Reason": "told"}, kind, {"msisdn": NUMBER})
        for status, kind in {
            "SUSPENDED": SignalKind.SUSPENDED,
            "ACTIVATED": SignalKind.RESTORED,
            "RESTRICTED": SignalKind.RESTRICTED,
            "TERMINATED": SignalKind.TERMINATED,
        }.items()
    ],
    (
        RENEWAL,
        {"OldSecureElement": CARD, "NewSecureElement": OTHER_CARD, "ValidityPeriod": 60},
        SignalKind.SIM_REPLACED,
        {"iccid": OTHER_SIM, "previous": SIM},
    ),
    (DEVICE, {"SecureElement": CARD, **PROFILES}, SignalKind.DEVICE_CHANGED, {"iccid": SIM}),
    (
        DEVICE,
        {"SecureElement": CARD, "MobileSubscription": LINE, **PROFILES, "Extensions": {"IMEI": OTHER_PHONE}},
        SignalKind.DEVICE_CHANGED,
        {"iccid": SIM, "msisdn": NUMBER, "imei": OTHER_PHONE},
    ),
    *[
        (f"HandleSE{of}StatusChangeNotification", {"SecureElement": CARD, "Event": event}, kind, {"iccid": SIM})
        for of in ("", "Device")
        for event, kind in {
            "LOST": SignalKind.LOST,
            "STOLEN": SignalKind.LOST,
            "RECOVERED": SignalKind.RECOVERED,
        }.items()
    ],
    (
        "HandleSEMobileSubscriptionChangedNotification",
        {"SecureElement": CARD, "OldMobileSubscription": LINE, "NewMobileSubscription": OTHER_LINE},
        SignalKind.OBSERVED,
        {"iccid": SIM, "msisdn": OTHER_NUMBER},
    ),
    *[
        (
            ENVIRONMENT_CHANGE,
            {
                "ServiceInstanceReference": "ours-1",
                "SecureElement": CARD,
                "Event": event,
                "NewServiceInstanceState": 22,
            },
            kind,
            {"iccid": SIM},
        )
        for event, kind in {
            "SE_LOST": SignalKind.LOST,
            "SE_STOLEN": SignalKind.LOST,
            "SE_RECOVERED": SignalKind.RECOVERED,
            "DEVICE_LOST": SignalKind.LOST,
            "DEVICE_STOLEN": SignalKind.LOST,
            "DEVICE_RECOVERED": SignalKind.RECOVERED,
            "DEVICE_RENEWED": SignalKind.DEVICE_CHANGED,
        }.items()
    ],
    *[
        (ENVIRONMENT_CHANGE, {"MobileSubscription": LINE, "Event": f"SUBSCRIPTION_{event}"}, kind, {"msisdn": NUMBER})
        for event, kind in {
            "SUSPENDED": SignalKind.SUSPENDED,
            "TERMINATED": SignalKind.TERMINATED,
            "RESTORED": SignalKind.RESTORED,
        }.items()
    ],
    (
        ENVIRONMENT_CHANGE,
        {"SecureElement": CARD, "Event": "SE_RENEWED", "Extensions": {"NewSecureElement": OTHER_CARD}},
        SignalKind.SIM_REPLACED,
        {"iccid": OTHER_SIM, "previous": SIM},
    ),
]


def read(name: str, content: Any, id: str = "n-1", occurred_at: datetime | None = NOON) -> Signal:
    return signal_of(name, content, source=SOURCE, id=id, occurred_at=occurred_at)


@pytest.mark.parametrize(("name", "content", "kind", "values"), CASES)
def test_a_notification_is_a_signal_that_may_be_recorded(
    name: str, content: dict[str, Any], kind: SignalKind, values: dict[str, str]
) -> None:
    signal = read(name, content)

    given: dict[str, Any] = {"id": "n-1", "source": SOURCE, "kind": kind, "occurred_at": NOON, **values}
    assert signal == Signal(**given)
    operator = Context(actor=SOURCE, role="operator", tenant="MNO00001", correlation="feed")
    check(signal, operator, NOON)


def test_the_table_has_every_notification_and_every_event_of_an_environment() -> None:
    assert {name for name, *_ in CASES} == set(NOTIFICATIONS)
    assert {content["Event"] for name, content, *_ in CASES if name == ENVIRONMENT_CHANGE} == set(ENVIRONMENT)


def test_the_date_inside_goes_before_the_one_outside_and_stands_alone() -> None:
    content = {"MobileSubscription": LINE, "NewStatus": "SUSPENDED", "Date": "2026-11-20T08:00:00Z"}
    told = datetime(2026, 11, 20, 8, tzinfo=UTC)
    assert read(STATUS, content).occurred_at == read(STATUS, content, occurred_at=None).occurred_at == told


def test_a_function_call_identifier_stands_for_an_id_that_was_left_out() -> None:
    content = {"SecureElement": CARD, "FunctionCallIdentifier": "f-9"}
    assert (read(DEVICE, content, id="").id, read(DEVICE, content).id) == ("f-9", "n-1")


@pytest.mark.parametrize(
    ("name", "content", "field"),
    [
        ("HandleSomethingElse", {}, "HandleSomethingElse"),
        (RENEWAL, "renewed", RENEWAL),
        (RENEWAL, {"OldSecureElement": CARD}, RENEWAL),
        (RENEWAL, {"OldSecureElement": CARD, "NewSecureElement": OTHER_CARD, "Colour": "red"}, RENEWAL),
        (RENEWAL, {"OldSecureElement": {"CIN": "00"}, "NewSecureElement": OTHER_CARD}, RENEWAL),
        (STATUS, {"MobileSubscription": LINE, "NewStatus": "SLEEPING"}, "NewStatus"),
        ("HandleSEStatusChangeNotification", {"SecureElement": CARD, "Event": "PAINTED"}, "Event"),
        (ENVIRONMENT_CHANGE, {"SecureElement": CARD, "Event": "LOST"}, "Event"),
        (ENVIRONMENT_CHANGE, {"SecureElement": CARD, "Event": "SE_RENEWED"}, "NewSecureElement"),
    ],
)
def test_what_is_not_as_described_is_refused_by_the_member_that_is_wrong(name: str, content: Any, field: str) -> None:
    with pytest.raises(TsmError) as refused:
        read(name, content)
    assert (refused.value.code, refused.value.field) == (ErrorCode.INVALID_INPUT, (field,))
    assert SIM not in str(refused.value)


def test_a_notification_without_any_time_is_refused() -> None:
    with pytest.raises(TsmError) as refused:
        read(DEVICE, {"SecureElement": CARD}, occurred_at=None)
    assert refused.value.field == ("occurred_at",)
