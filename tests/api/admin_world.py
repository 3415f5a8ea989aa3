"""A whole server for the tests of the admin API: parties, cards, and people with tokens, each as the API sees them."""

import asyncio
import base64 as base
import json
from dataclasses import dataclass, field
from datetime import timedelta
from os import urandom
from pathlib import Path
from typing import Any

import httpx
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from api import administration, local_login
from api.app import create_app
from api.bootstrap import Parts, Settings, build
from api.certificates import certify, fingerprint, request
from tests.samples import AUTHORITY, FINGERPRINT
from tsm.application import Change
from tsm.globalplatform.cap import build_cap
from tsm.identifiers import luhn_digit
from tsm.jpki.personalisation import APPLICATION, LOAD_FILE, MODULE
from tsm.model.card import CardAuthenticationFailed
from tsm.model.event import Context, Fact
from tsm.model.streams import evolve_of
from tsm.store.migrations import migrate_postgres

OPERATOR, OTHER_OPERATOR = "MNO00001", "MNO00002"
PROVIDER, OTHER_PROVIDER = "JPKI0001", "BANK0001"
DOMAIN, OTHER_DOMAIN = "D392F0002601FE01", "A00000015153504101"
ISD = "A000000151000000"
ICCIDS = ("8981100000000000010", "8981100000000000028")  # of the operator
OTHER_ICCID = "8981100000000000036"  # of the other one
CAP = build_cap(LOAD_FILE, (MODULE,), bytes.fromhex("01307A"), "tsm/jpki")
APPLICATION_AID, LOAD_FILE_AID = APPLICATION.hex().upper(), LOAD_FILE.hex().upper()

Answer = dict[str, Any]


@dataclass
class Client:
    """Somebody who asks: with a client certificate, or with a token."""

    app: Any
    token: str = ""
    der: bytes = field(default=b"", repr=False)

    async def send(self, query: str, variables: dict[str, Any]) -> httpx.Response:
        async def seen(scope: Any, receive: Any, send: Any) -> None:
            await self.app({**scope, "extensions": {"tls": {"client_cert_der": self.der}}}, receive, send)

        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        transport = httpx.ASGITransport(seen, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="https://server") as http:
            return await http.post("/graphql", json={"query": query, "variables": variables}, headers=headers)

    def ask(self, query: str, **variables: Any) -> Answer:
        """The whole answer: data and errors."""
        return dict(asyncio.run(self.send(query, variables)).json())

    def data(self, query: str, **variables: Any) -> Answer:
        """The data of an answer without errors."""
        answer = self.ask(query, **variables)
        assert "errors" not in answer, answer["errors"]
        return dict(answer["data"])

    def do(self, name: str, shown: str = "", /, **given: Any) -> Answer:
        """The payload of one mutation, under a key of its own unless it names one."""
        return dict(self.data(mutation(name, shown), input=keyed(given))[name])

    def done(self, name: str, shown: str = "", /, **given: Any) -> Answer:
        """The payload of a mutation that is not refused."""
        payload = self.do(name, shown, **given)
        assert payload["userErrors"] == []
        return payload

    def refused(self, name: str, /, **given: Any) -> list[tuple[str, list[str] | None]]:
        """Code and field of each user error of a mutation that leaves nothing behind."""
        payload = self.do(name, **given)
        assert payload["userErrors"] != [] and payload["logPosition"] is None and not payload["repeated"]
        return [(error["code"], error["field"]) for error in payload["userErrors"]]


def mutation(name: str, shown: str = "") -> str:
    title = name[0].upper() + name[1:]
    fields = f"logPosition repeated userErrors {{ code message field }} {shown}"
    return f"mutation ($input: {title}Input!) {{ {name}(input: $input) {{ {fields} }} }}"


def keyed(given: dict[str, Any]) -> dict[str, Any]:
    return {"idempotencyKey": urandom(8).hex(), **given}


class World:
    """The server, with two operators, two providers, and three cards."""

    def __init__(self, folder: Path, database: Any = None) -> None:
        self.data = folder / "server"
        administration.initialise(self.data, folder / "kek", "127.0.0.1", 8443)
        if database is not None:
            self.keep_in(database)
        self.parts = self.build()
        self.app = create_app(self.parts)
        self.parts.start()
        self.certificates: dict[str, bytes] = {}
        self.furnish()

    def keep_in(self, database: Any) -> None:
        migrate_postgres(database.owner_dsn, "tsm_runtime")
        config = self.data / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"store": database.runtime_dsn}))

    def build(self) -> Parts:
        return build(Settings.load(self.data))

    def furnish(self) -> None:
        """All that follows is done through the API itself, but for the keys, which never come that way."""
        house = self.person("administrator", "*", "root")
        house.done("authorityEnrol", **camel(msgspec.structs.asdict(AUTHORITY)))
        for operator in (OPERATOR, OTHER_OPERATOR):
            shown = self.certify(operator, "operator")
            house.done("operatorEnrol", operator=operator, name=operator, certificateFingerprint=shown)
            administration.import_master_key(self.data, operator, "isd", 1, urandom(16).hex())
        for provider, domain in ((PROVIDER, DOMAIN), (OTHER_PROVIDER, OTHER_DOMAIN)):
            house.done("providerEnrol", **provider_input(provider, domain, self.certify(provider, "provider")))
        house.done("terminalEnrol", terminal="T-1", municipality="13101", certificateFingerprint=FINGERPRINT)
        self.party(OPERATOR).done("cardRegister", rows=[row(iccid) for iccid in ICCIDS])
        self.party(OTHER_OPERATOR).done("cardRegister", rows=[row(OTHER_ICCID)])

    def certify(self, party: str, role: str) -> str:
        """Its certificate's fingerprint."""
        wanted = request(self.data.parent / party, party).read_bytes()
        pem = certify(self.data / "tls", wanted, party, role, [])
        self.certificates[party] = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
        return fingerprint(pem)

    def party(self, party: str) -> Client:
        """A program of the party, with its client certificate."""
        return Client(self.app, der=self.certificates[party])

    def person(self, role: str, tenant: str, name: str) -> Client:
        """A person, with a token of this server."""
        settings, vault, now = self.parts.settings, self.parts.vault, self.parts.clock()
        life = timedelta(hours=1)
        return Client(
            self.app, local_login.sign(vault, settings.public_url, role, tenant, name, life, now, urandom(16).hex())
        )

    def events(self) -> list[Any]:
        return self.parts.tsm.read(0, 100_000)

    def tell(self, stream: str, *facts: Fact) -> None:
        """What cards and people did."""
        tsm = self.parts.tsm
        evolve = evolve_of(stream)
        assert evolve is not None
        context = Context(actor="phone", role="phone", tenant=OPERATOR, correlation="story")
        tsm.commit(Change(stream, tsm.load(stream, evolve).version, facts), context=context, occurred_at=tsm.now())

    @property
    def position(self) -> int:
        """Where the log ends."""
        return self.parts.tsm.position

    def close(self) -> None:
        self.parts.close()


def camel(values: dict[str, Any]) -> dict[str, Any]:
    def one(name: str) -> str:
        first, *others = name.split("_")
        return first + "".join(map(str.title, others))

    return {one(name): value for name, value in values.items()}


def provider_input(provider: str, domain: str, certificate: str = FINGERPRINT) -> dict[str, Any]:
    return {
        "provider": provider,
        "name": provider,
        "certificateFingerprint": certificate,
        "publicKey": "30bb",
        "transportKey": "30cc",
        "notifyUrl": "https://sp.example/notify",
        "returnUrls": ["https://sp.example/return"],
        "domain": domain,
        "authority": AUTHORITY.authority,
    }


def base64(octets: bytes) -> str:
    return base.b64encode(octets).decode()


def row(iccid: str, **changes: str) -> dict[str, str]:
    """A card of a production file; its number is its ICCID's."""
    return {"iccid": iccid, "iin": "8981100F", "cin": f"{iccid[-12:]}", "keySet": "isd", "profile": "test"} | changes


def terminal(name: str, municipality: str = "13101", certificate: str = FINGERPRINT) -> dict[str, Any]:
    return {"terminal": name, "municipality": municipality, "certificateFingerprint": certificate}


def iccid(number: int) -> str:
    """Of cards that nobody registered, one for each number."""
    digits = f"89811{number + 10_000:013}"
    return digits + luhn_digit(digits)


def fail(world: World, iccid: str) -> None:
    """An authentication of the issuer's domain that failed."""
    world.tell(f"card-{iccid}", CardAuthenticationFailed(domain=ISD, key_version=1, failures=1))
