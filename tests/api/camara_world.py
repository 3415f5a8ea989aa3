"""A server with telephone lines, and relying parties that ask it as CAMARA says: everything is real but the network."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from os import urandom
from pathlib import Path
from typing import Any

import httpx

from api import administration
from api.app import create_app
from api.bootstrap import Parts, Settings, build
from projections.runner import Runner
from tests.api.jwt_signer import NOW, Signer, claims_of, key_set
from tsm.model.event import Context
from tsm.model.line import Signal, SignalKind

NUMBER, OTHER_NUMBER, UNKNOWN = "+447700900001", "+447700900002", "+447700900999"  # for stories only
IMSI, OTHER_IMSI = "001010000000001", "001010000000002"  # of the test network
ICCID, OTHER_ICCID = "8981100000000000010", "8981100000000000028"
IMEI, OTHER_IMEI = "004999010640000", "004999010640018"  # of no model
CAMARA_ISSUER, CAMARA_AUDIENCE = "https://login.operator.example", "https://tsm.example/camara"
SIGNER = Signer.elliptic("operator-1")
SYSTEM = Context(actor="system:test", role="system", tenant="MNO00001", correlation="test", request="test")
SUBSCRIBED_EVENT = "org.camaraproject.sim-swap-subscriptions.v0.swapped"
ALL_SCOPES = (
    "sim-swap",
    "device-swap",
    f"sim-swap-subscriptions:{SUBSCRIBED_EVENT}:create",
    "sim-swap-subscriptions:read",
    "sim-swap-subscriptions:delete",
)
BEGIN = datetime.fromisoformat("2026-11-21T09:30:00+00:00")  # jwt_signer.NOW


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = BEGIN

    def __call__(self) -> datetime:
        return self.now


@dataclass
class World:
    """The server's parts, its application, and one relying party."""

    parts: Parts
    clock: Clock
    app: Any

    @classmethod
    def make(cls, folder: Path, **camara: Any) -> "World":
        administration.initialise(folder / "server", folder / "kek", "127.0.0.1", 8443)
        (folder / "server" / "operator-keys.json").write_bytes(key_set(SIGNER))
        config = folder / "server" / "config.json"
        issuer = {
            "issuer": CAMARA_ISSUER,
            "audience": CAMARA_AUDIENCE,
            "algorithms": ["ES256"],
            "jwks": "operator-keys.json",
        }
        said = {**json.loads(config.read_bytes()), "camara": {"issuers": [issuer], **camara}}
        config.write_text(json.dumps(said))
        clock = Clock()
        parts = build(Settings.load(folder / "server"), clock)
        return cls(parts, clock, create_app(parts))

    def close(self) -> None:
        self.parts.close()

    # The operator's side

    def signal(self, kind: SignalKind = SignalKind.OBSERVED, **about: Any) -> None:
        """Records it and lets the read models see it."""
        self.record(kind, **about)
        self.catch_up()

    def record(
        self, kind: SignalKind = SignalKind.OBSERVED, ago: timedelta = timedelta(days=400), **values: Any
    ) -> None:
        given = {"msisdn": NUMBER, "imsi": IMSI, "iccid": ICCID, **values}
        at = self.clock() - ago
        made = Signal(id=urandom(8).hex(), source="operator:MNO00001", kind=kind, occurred_at=at, **given)
        (outcome,) = self.parts.lines.record([made], SYSTEM)
        assert outcome.error is None

    def map_subject(self, sub: str, number: str = NUMBER) -> None:
        self.parts.lines.map_subject(CAMARA_ISSUER, sub, number, SYSTEM)

    def catch_up(self) -> None:
        Runner(self.parts.tsm, self.parts.views).catch_up()

    # The relying party's

    def token(self, scopes: Sequence[str] = ALL_SCOPES, sub: str | None = None, **changes: Any) -> str:
        """Of the operator's issuer; without `sub` of two legs."""
        own = {"iss": CAMARA_ISSUER, "aud": CAMARA_AUDIENCE, "client_id": "bank", "sub": sub, "roles": None}
        return SIGNER.token(
            claims_of(**{**own, "tenant": None, "scope": " ".join(scopes), "exp": NOW + 3600, **changes})
        )

    def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def run() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="https://server") as http:
                return await http.request(method, path, **options)

        return asyncio.run(run())

    def ask(self, path: str, body: Any = None, token: str | None = None, **headers: str) -> httpx.Response:
        """POST with a good token unless another is given; an empty one is none."""
        shown = self.token() if token is None else token
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if shown:
            named["Authorization"] = f"Bearer {shown}"
        return self.send("POST", path, json={} if body is None else body, headers=named)

    def readings(self) -> list[Any]:
        """Every reading of personal data that was recorded."""
        events = self.parts.tsm.read(0, 10_000)
        return [event for event in events if event.topic == "reading.data_accessed"]


def refused(answer: httpx.Response, status: int, code: str) -> None:
    """It is an ErrorInfo, with these."""
    assert answer.headers["content-type"] == "application/json"
    content = answer.json()
    assert set(content) == {"status", "code", "message"}
    assert (answer.status_code, content["status"], content["code"]) == (status, status, code), content["message"]
    assert answer.headers["cache-control"] == "no-store"
