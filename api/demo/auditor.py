"""The auditor of the demo: asks the GraphQL API, with a client certificate of that role."""

import time
from collections.abc import Mapping
from typing import Any

import httpx

from api.demo.party import Tls, checked, reaching
from api.tls import client_context
from tsm.errors import ErrorCode, TsmError

POSITION = "{ readModels { name position parked { position } } }"
CARD = """
query Card($iccid: String!, $after: String) {
  card(iccid: $iccid) {
    iccid operator profile
    domainTree {
      aid lifeCycle
      keys { version checkValues provisional current }
      applications { aid lifeCycle }
      domains {
        aid lifeCycle privileges
        keys { version checkValues provisional current }
        loadFiles { aid sha256 size }
        applications { aid module lifeCycle }
      }
    }
    issuanceHistory(first: 100, after: $after) {
      pageInfo { hasNextPage endCursor }
      edges { node { position topic text actor role tenant occurredAt recordedAt correlation } }
    }
  }
}
"""
SETTLED = 0.3  # seconds without a new event
LOOK_AGAIN = 0.05  # seconds


class Auditor:
    """Reads what happened; changes nothing."""

    def __init__(self, url: str, tls: Tls) -> None:
        self._http = httpx.Client(base_url=url, verify=client_context(tls), timeout=30, trust_env=False)

    def close(self) -> None:
        self._http.close()

    def position(self) -> int:
        """How far the slowest read model has read, once nothing more comes."""
        last, since = -1, time.monotonic()
        while time.monotonic() - since < SETTLED:
            models = self._ask(POSITION, {})["readModels"]
            found = min(model["position"] for model in models)
            if found != last:
                last, since = found, time.monotonic()
            time.sleep(LOOK_AGAIN)
        return last

    def parked(self) -> list[Any]:
        """Events that a read model could not take: must be empty."""
        return [event for model in self._ask(POSITION, {})["readModels"] for event in model["parked"]]

    def card(self, iccid: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The card with its domain tree, and its whole issuance history."""
        history: list[dict[str, Any]] = []
        after = None
        while True:
            card = self._ask(CARD, {"iccid": iccid, "after": after})["card"]
            if card is None:
                raise TsmError(ErrorCode.UNKNOWN_CARD, iccid)
            page = card["issuanceHistory"]
            history += [edge["node"] for edge in page["edges"]]
            if not page["pageInfo"]["hasNextPage"]:
                return card, history
            after = page["pageInfo"]["endCursor"]

    def _ask(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        return ask(self._http, "/graphql", query, variables)


def ask(
    http: httpx.Client, url: str, query: str, variables: dict[str, Any], headers: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """What the GraphQL API answers; INTERNAL when it has errors."""
    with reaching():
        response = http.post(url, json={"query": query, "variables": variables}, headers=headers)
    answer = checked(response).json()
    if "errors" in answer:
        raise TsmError(ErrorCode.INTERNAL, str(answer["errors"]))
    data: dict[str, Any] = answer["data"]
    return data
