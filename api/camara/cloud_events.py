"""What a sink is told, in the words of CAMARA: CloudEvents 1.0 in JSON.

    {"id": "7f...-4711", "source": "https://tsm.example/sim-swap-subscriptions/v0.3", "specversion": "1.0",
     "type": "org.camaraproject.sim-swap-subscriptions.v0.swapped", "time": "2026-11-21T09:30:00Z",
     "datacontenttype": "application/json",
     "data": {"subscriptionId": "7f...", "phoneNumber": "+447700900001"}}

`time` is when the SIM changed, or when the subscription ended. The number is there where the relying party had named
the line by it. The definition speaks of a notification that a subscription started as well, whose type it spells in two
ways; it is not sent: the answer to the request has said so.
"""

from typing import Any

import msgspec

from api.camara.sinks import Sinks
from tsm.flows.swap_notices import Answer, Notice
from tsm.model.subscription import Reason

EVENT = "org.camaraproject.sim-swap-subscriptions.v0"
SWAPPED, SUBSCRIPTION_ENDED = f"{EVENT}.swapped", f"{EVENT}.subscription-ended"
MEDIA_TYPE = "application/cloudevents+json"
SAID = {
    Reason.MAX_EVENTS_REACHED: "as many events as were asked for were told",
    Reason.NETWORK_TERMINATED: "the subscription was ended by the operator",
    Reason.SUBSCRIPTION_EXPIRED: "the subscription's time is over",
    Reason.ACCESS_TOKEN_EXPIRED: "the access token of the sink is about to expire",
    Reason.SUBSCRIPTION_DELETED: "the subscription was deleted as requested",
}


class CloudEvents:
    """Satisfies `tsm.flows.swap_notices.Outbound`."""

    def __init__(self, sinks: Sinks, source: str) -> None:
        """`source`: what our events name as the place where they happened."""
        self._sinks = sinks
        self._source = source

    def tell(self, notice: Notice) -> Answer:
        """One attempt. UPSTREAM_UNAVAILABLE."""
        headers = {"Content-Type": MEDIA_TYPE, "x-correlator": notice.id}
        if notice.credential:
            headers["Authorization"] = f"Bearer {notice.credential}"
        return self._sinks.post(notice.sink, msgspec.json.encode(self.event(notice)), headers)

    def event(self, notice: Notice) -> dict[str, Any]:
        """The same for the same notice, to the octet."""
        return {
            "id": notice.id,
            "source": self._source,
            "specversion": "1.0",
            "type": SUBSCRIPTION_ENDED if notice.reason else SWAPPED,
            "time": notice.at,
            "datacontenttype": "application/json",
            "data": data(notice),
        }


def data(notice: Notice) -> dict[str, str]:
    said = {"subscriptionId": notice.subscription}
    if notice.reason:
        described = notice.detail or SAID[Reason(notice.reason)]
        return said | {"terminationReason": notice.reason, "terminationDescription": described}
    return said | ({"phoneNumber": notice.msisdn} if notice.msisdn else {})
