"""The operator's staff in the demo: a person who logged in to the admin API, sees alerts and says what they were."""

from typing import Any

import httpx

from api.demo.auditor import ask

ALERTS = """
query Alerts($iccid: String!, $from: Position!) {
  card(iccid: $iccid, minPosition: $from) {
    standing { level onHold revokeFrom }
    alerts(first: 20) { edges { node { alert rule level state inForce evidencePositions } } }
  }
}
"""
CLOSE = """
mutation Close($input: AlertCloseInput!) { alertClose(input: $input) { logPosition userErrors { code message } } }
"""


class Staff:
    """Sees what is the operator's."""

    def __init__(self, http: httpx.Client, url: str, token: str) -> None:
        self._http = http
        self._url = url
        self._token = token

    def case(self, iccid: str, position: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The card's standing as of that position or later, and the alerts that make it."""
        card = self._ask(ALERTS, {"iccid": iccid, "from": position})["card"]
        alerts = [edge["node"] for edge in card["alerts"]["edges"]]
        return card["standing"], [alert for alert in alerts if alert["inForce"]]

    def confirm(self, iccid: str, alert: str, reason: str) -> list[Any]:
        """It was so. What the API has against that."""
        given = {"idempotencyKey": alert, "iccid": iccid, "alert": alert, "verdict": "CONFIRMED", "reason": reason}
        errors: list[Any] = self._ask(CLOSE, {"input": given})["alertClose"]["userErrors"]
        return errors

    def _ask(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        return ask(self._http, f"{self._url}/graphql", query, variables, {"Authorization": f"Bearer {self._token}"})
