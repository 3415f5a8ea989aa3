"""Notifications of GlobalPlatform System Messaging, and which signal of a line each of them is.

GlobalPlatform's "System Messaging Specification for Management of Mobile-NFC Services" (2.0.1, 2.1.0) sends these as
SOAP. Neither its text nor its schema was available to us: names of functions and members are those that public code
generated from the schema shows. So this is a JSON form of ours, with the standard's names in it, and no SOAP endpoint.
The names of events (`SE_LOST`), which that code does not show, are ours, and so is all that stands in `Extensions`.

    {"id": "n-17", "occurred_at": "2026-11-21T09:30:00Z",
     "HandleSERenewalNotification": {"OldSecureElement": {"ICCID": "89811..."}, "NewSecureElement": {"ICCID": ".."}}}

Three notifications say less than the signal that they become: HandleSEDeviceChangedNotification names capability
profiles of devices, not devices, so the IMEI comes in `Extensions` or remains unknown;
HandleMobileSubscriptionIdentifierChangedNotification does not name the card, so `Extensions` has to; and
HandleServiceEnvironmentChangeNotification names a service instance by a reference that two parties agreed upon, so
`SecureElement` or `MobileSubscription` beside it say whose it is.
"""

from datetime import datetime
from functools import partial
from typing import Any

import msgspec

from tsm.errors import ErrorCode, TsmError
from tsm.model.checks import refusal
from tsm.model.line import Signal, SignalKind


class Message(msgspec.Struct, frozen=True, kw_only=True, rename="pascal", forbid_unknown_fields=True):
    """Named as in the standard."""


class SecureElement(Message, frozen=True, kw_only=True):
    """SEId_ICCIDType: of all ways to name a secure element the one that lines are known by."""

    iccid: str = msgspec.field(name="ICCID")


class MobileSubscription(Message, frozen=True, kw_only=True):
    """MSId_MSISDNType. With `+` or without: E.164 digits."""

    msisdn: str = msgspec.field(name="MSISDN")

    @property
    def number(self) -> str:
        return self.msisdn if self.msisdn.startswith("+") else f"+{self.msisdn}"


class Extensions(Message, frozen=True, kw_only=True):
    """What the standard's members do not tell: ours."""

    imei: str = msgspec.field(name="IMEI", default="")  # of the device that the card is in now
    secure_element: SecureElement | None = None  # whose number changed
    new_secure_element: SecureElement | None = None  # of SE_RENEWED


class Request(Message, frozen=True, kw_only=True):
    """BasicRequestType."""

    function_call_identifier: str = ""
    validity_period: int = 0  # seconds; what happened does not cease to have happened
    extensions: Extensions = Extensions()


class IdentifierChanged(Request, frozen=True, kw_only=True):
    """The same subscription, another number."""

    mobile_subscription_old_identifier: MobileSubscription
    mobile_subscription_new_identifier: MobileSubscription


class SubscriptionStatusChange(Request, frozen=True, kw_only=True):
    """`Reason` is free text here, and not recorded."""

    mobile_subscription: MobileSubscription
    new_status: str
    date: datetime | None = None
    reason: str = ""


class Renewal(Request, frozen=True, kw_only=True):
    """Another secure element took its place, and the previous one can be reached no more."""

    old_secure_element: SecureElement
    new_secure_element: SecureElement


class DeviceChanged(Request, frozen=True, kw_only=True):
    """The secure element is in another device."""

    secure_element: SecureElement
    mobile_subscription: MobileSubscription | None = None
    old_device_capability_profile_id: int = 0
    new_device_capability_profile_id: int = 0


class StatusChange(Request, frozen=True, kw_only=True):
    """Of the secure element, or of the device that it is in: lost, stolen, recovered."""

    secure_element: SecureElement
    mobile_subscription: MobileSubscription | None = None
    event: str
    date: datetime | None = None


class SubscriptionChanged(Request, frozen=True, kw_only=True):
    """The secure element is reached through another subscription."""

    secure_element: SecureElement
    old_mobile_subscription: MobileSubscription
    new_mobile_subscription: MobileSubscription


class EnvironmentChange(Request, frozen=True, kw_only=True):
    """Something around a service instance; the second and third member are ours."""

    service_instance_reference: str = ""
    secure_element: SecureElement | None = None
    mobile_subscription: MobileSubscription | None = None
    event: str
    date: datetime | None = None
    new_service_instance_state: int = 0


STATUSES = {
    "SUSPENDED": SignalKind.SUSPENDED,
    "ACTIVATED": SignalKind.RESTORED,  # a new holder is told by SUBSCRIBED: this may be any subscription
    "RESTRICTED": SignalKind.RESTRICTED,
    "TERMINATED": SignalKind.TERMINATED,
}
EVENTS = {"LOST": SignalKind.LOST, "STOLEN": SignalKind.LOST, "RECOVERED": SignalKind.RECOVERED}
ENVIRONMENT = {
    **{f"{what}_{event}": kind for what in ("SE", "DEVICE") for event, kind in EVENTS.items()},
    "SE_RENEWED": SignalKind.SIM_REPLACED,
    "DEVICE_RENEWED": SignalKind.DEVICE_CHANGED,
    "SUBSCRIPTION_SUSPENDED": SignalKind.SUSPENDED,
    "SUBSCRIPTION_TERMINATED": SignalKind.TERMINATED,
    "SUBSCRIPTION_RESTORED": SignalKind.RESTORED,
}
NOTIFICATIONS: dict[str, type[Request]] = {
    "HandleMobileSubscriptionIdentifierChangedNotification": IdentifierChanged,
    "HandleMobileSubscriptionStatusChangeNotification": SubscriptionStatusChange,
    "HandleSERenewalNotification": Renewal,
    "HandleSEDeviceChangedNotification": DeviceChanged,
    "HandleSEDeviceStatusChangeNotification": StatusChange,
    "HandleSEMobileSubscriptionChangedNotification": SubscriptionChanged,
    "HandleSEStatusChangeNotification": StatusChange,
    "HandleServiceEnvironmentChangeNotification": EnvironmentChange,
}


def signal_of(name: str, content: Any, *, source: str, id: str, occurred_at: datetime | None) -> Signal:
    """The signal that a notification is; `content` is its JSON, decoded.

    Without `id` its FunctionCallIdentifier counts; a `Date` inside it goes before `occurred_at`. INVALID_INPUT when it
    is not as described, or says neither; what the values are worth is checked where signals are recorded.
    """
    kind = NOTIFICATIONS.get(name)
    if kind is None:
        raise refusal(name, "no notification that is known here")
    try:
        request = msgspec.convert(content, kind)
    except msgspec.MsgspecError:  # its words might repeat what came
        raise TsmError(ErrorCode.INVALID_INPUT, f"not a {name}", (name,)) from None
    at = getattr(request, "date", None) or occurred_at
    if at is None:
        raise refusal("occurred_at", "neither here nor as Date")
    made = partial(Signal, source=source, id=id or request.function_call_identifier, occurred_at=at)
    return _signal(request, made)


def _signal(request: Request, made: "partial[Signal]") -> Signal:
    match request:
        case IdentifierChanged():
            old, new = request.mobile_subscription_old_identifier, request.mobile_subscription_new_identifier
            card = request.extensions.secure_element
            iccid = card.iccid if card is not None else ""
            return made(kind=SignalKind.NUMBER_CHANGED, msisdn=new.number, previous=old.number, iccid=iccid)
        case SubscriptionStatusChange():
            kind = _named(STATUSES, request.new_status, "NewStatus")
            return made(kind=kind, msisdn=request.mobile_subscription.number)
        case Renewal():
            return made(
                kind=SignalKind.SIM_REPLACED,
                iccid=request.new_secure_element.iccid,
                previous=request.old_secure_element.iccid,
            )
        case DeviceChanged():
            return made(
                kind=SignalKind.DEVICE_CHANGED,
                iccid=request.secure_element.iccid,
                msisdn=_number(request.mobile_subscription),
                imei=request.extensions.imei,
            )
        case StatusChange():
            return made(
                kind=_named(EVENTS, request.event, "Event"),
                iccid=request.secure_element.iccid,
                msisdn=_number(request.mobile_subscription),
            )
        case SubscriptionChanged():
            number = request.new_mobile_subscription.number
            return made(kind=SignalKind.OBSERVED, iccid=request.secure_element.iccid, msisdn=number)
        case EnvironmentChange():
            return _environment(request, made)
        case _:
            raise AssertionError(type(request))


def _environment(request: EnvironmentChange, made: "partial[Signal]") -> Signal:
    kind = _named(ENVIRONMENT, request.event, "Event")
    card = request.secure_element.iccid if request.secure_element else ""
    number = _number(request.mobile_subscription)
    if kind is SignalKind.SIM_REPLACED:
        renewed = request.extensions.new_secure_element
        if renewed is None:
            raise refusal("NewSecureElement", "which card took its place, in Extensions")
        return made(kind=kind, iccid=renewed.iccid, previous=card, msisdn=number)
    imei = request.extensions.imei if kind is SignalKind.DEVICE_CHANGED else ""
    return made(kind=kind, iccid=card, msisdn=number, imei=imei)


def _named(names: dict[str, SignalKind], value: str, member: str) -> SignalKind:
    if value not in names:
        raise refusal(member, f"none of {', '.join(names)}")
    return names[value]


def _number(subscription: MobileSubscription | None) -> str:
    return subscription.number if subscription else ""
