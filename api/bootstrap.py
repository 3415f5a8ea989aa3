"""The only place where the server's parts are chosen and joined.

`<data>/config.json` says where the rest is. Relative paths are meant from the data folder; the key-encryption key and
the list of destroyed keys must lie outside.
"""

import os
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, Protocol

import msgspec

from api import local_login
from api.access import ENROLLED, SERVER, Access, Role
from api.camara.cloud_events import CloudEvents
from api.camara.sinks import Sinks, networks
from api.camara.subscriptions import PATH as SUBSCRIPTIONS_PATH
from api.camara.tokens import FRAUD_PREVENTION, ConsumerTokens, Door, check_purpose, local_issuer, local_name
from api.issuer_keys import IssuerKeys
from api.limits import EdgeLimits
from api.logs import Style
from api.metrics import Metrics
from api.reading import Readings
from api.rest.authority_client import AuthorityClient
from api.rest.operator_site import RETURN_PATH
from api.tls import client_context
from api.tokens import Algorithm, Issuer
from api.xml.mas import LINK_PATH
from api.xml.outbound import XmlClient
from projections import PROJECTIONS
from projections.opening import open_views
from projections.runner import Observer, Runner
from projections.views import Views
from tsm.application import Tsm
from tsm.errors import ErrorCode, TsmError
from tsm.flows.app_reports import AppReports
from tsm.flows.card_release import CardReleases
from tsm.flows.card_signals import CardSignals
from tsm.flows.challenges import Challenges
from tsm.flows.contacts import Contacts
from tsm.flows.deployment import Deployments
from tsm.flows.domain_keys import DomainKeys
from tsm.flows.erasure import Erasure, ErasureFollower
from tsm.flows.expiry import ExpiryWorker
from tsm.flows.follower import StoredPosition
from tsm.flows.holds import HoldFollower
from tsm.flows.issuance import Issuance
from tsm.flows.issuance_follower import IssuanceFollower
from tsm.flows.lines import Lines
from tsm.flows.notification import NotificationWorker
from tsm.flows.operations import CarryOut, Operations, OperationsWorker, Policy
from tsm.flows.provisional_keys import ProvisionalKeysWorker
from tsm.flows.retired_keys import RetiredKeysWorker
from tsm.flows.revocation import Revocation, RevocationFollower
from tsm.flows.scripts import Scripts
from tsm.flows.session import Limits, SessionService
from tsm.flows.standings import Standings, StandingWorker
from tsm.flows.subscriptions import Grounds, Subscriptions, SwapWatcher
from tsm.flows.swap_notices import SwapNoticesWorker
from tsm.flows.swap_response import SwapResponse, SwapResponseFollower
from tsm.keys.destroyed_keys import beside, refuse_within
from tsm.keys.key_encryption import refuse_inside
from tsm.keys.vault import SoftwareVault
from tsm.model.checks import check_https
from tsm.model.event import Context
from tsm.model.operation import Operation, OperationKind
from tsm.model.swap_policy import read_policy
from tsm.model.topics import FACTS
from tsm.store.dsn import check_dsn
from tsm.store.opening import is_postgresql, open_recorder

CONFIG_FILE, VIEWS_FILE = "config.json", "views.sqlite"
STORE = "log.sqlite"  # where the log is, unless the settings say otherwise
DEFAULT_LIMITS = Limits()
KEY_READERS = 4  # threads: an issuer that does not answer keeps no other's keys waiting


class TlsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The server's certificate and key, and the parties' authority (PEM files)."""

    certificate: Path
    key: Path
    party_ca: Path


class IssuerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An OAuth 2.0 issuer whose access tokens we take (`api.tokens`)."""

    issuer: Annotated[str, msgspec.Meta(min_length=1)]  # its `iss`, to the letter
    audience: Annotated[str, msgspec.Meta(min_length=1)]  # what its tokens for us have as `aud`
    algorithms: Annotated[tuple[Algorithm, ...], msgspec.Meta(min_length=1)]  # that it signs with, and no others
    jwks: Annotated[str, msgspec.Meta(min_length=1)]  # its JWK Set: an https address, or a path from the data folder


class ConsumerIssuerSettings(IssuerSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An issuer of relying parties' tokens."""

    operator: Annotated[str, msgspec.Meta(min_length=1)] | None = None  # alone says whom its `sub` names; None: any


EXPOSED: Literal["even-from-the-network"] = "even-from-the-network"


class AccessSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose tokens are taken, beside client certificates and service tokens."""

    issuers: tuple[IssuerSettings, ...] = ()
    local_login: bool | Literal["even-from-the-network"] | None = None  # None: where `host` is loopback


class CamaraSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What relying parties may ask of lines, and with whose tokens (`api.camara`)."""

    issuers: tuple[ConsumerIssuerSettings, ...] = ()
    monitored_days: Annotated[int, msgspec.Meta(ge=10)] | None = None  # how far back changes are told; None: for ever
    purpose: str = FRAUD_PREVENTION  # of look-ups with a token that names none
    requests_per_minute: Annotated[int, msgspec.Meta(ge=1)] = 30_000  # of one relying party
    requests_per_day: Annotated[int, msgspec.Meta(ge=1)] | None = None  # as was agreed upon; None: as many
    subscriptions: Annotated[int, msgspec.Meta(ge=0)] = 1_000  # that one relying party may have
    sink_networks: tuple[str, ...] = ()  # where sinks may be though it is not public: "10.1.2.0/24"


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `config.json` says, and the folder it lies in."""

    public_url: str  # https://host[:port]: how parties and phones reach us, and part of what they sign
    host: str
    port: int
    tls: TlsSettings
    kek_file: Path
    destroyed_keys: Path = Path()  # the list of destroyed keys: beside the key-encryption key, unless it says otherwise
    store: str = STORE  # a path from the data folder, or the DSN of a PostgreSQL database
    projections: Literal["in-process", "separate"] = "in-process"  # separate: by `tsm projections run`
    session_idle_seconds: float = DEFAULT_LIMITS.session_idle_seconds
    notify_limit_seconds: float = DEFAULT_LIMITS.notify_limit_seconds
    delegation_seconds: float = DEFAULT_LIMITS.delegation_seconds
    access: AccessSettings = AccessSettings()
    camara: CamaraSettings = CamaraSettings()
    four_eyes: tuple[OperationKind, ...] = (  # what needs a second person
        OperationKind.DELETE,
        OperationKind.REVOKE_CREDENTIAL,
        OperationKind.ERASE_PERSON,
        OperationKind.WITHDRAW_PARTY,
        OperationKind.ADOPT_SWAP_POLICY,
    )
    limits: EdgeLimits = EdgeLimits()  # how long and how much a client may keep us busy
    documents: Path | None = None  # the folder of persisted GraphQL documents, *.graphql
    only_persisted: tuple[Role, ...] = ()  # roles whose clients may run nothing else
    logs: Style = "text"  # the server's own log, on standard error; json: for machines
    data: Path = Path()

    @classmethod
    def load(cls, data: Path) -> "Settings":
        """NOT_FOUND without a `config.json` in the folder, INVALID_INPUT when it is not as described."""
        try:
            text = (data / CONFIG_FILE).read_bytes()
        except OSError as error:
            raise TsmError(ErrorCode.NOT_FOUND, f"{data} holds no server: {error.strerror}") from error
        try:
            read = msgspec.json.decode(text, type=cls, dec_hook=lambda _kind, path: data / path)
        except msgspec.MsgspecError as error:
            raise TsmError(ErrorCode.INVALID_INPUT, f"{CONFIG_FILE}: {error}") from error
        if is_postgresql(read.store):
            check_dsn(read.store)  # before anybody connects and tells what libpq says of it
        read.refuse_unsafe_access()
        destroyed = beside(read.kek_file) if read.destroyed_keys == Path() else read.destroyed_keys
        return msgspec.structs.replace(read, data=data, destroyed_keys=destroyed)

    @property
    def local_login(self) -> bool:
        """Whether tokens of `tsm admin token` are accepted."""
        said = self.access.local_login
        return local_login.is_loopback(self.host) if said is None else bool(said)

    @property
    def camara_login(self) -> bool:
        """Whether tokens of `tsm admin camara-token` are accepted: never where others than this machine come in."""
        return self.local_login and local_login.is_loopback(self.host)

    @property
    def speakers(self) -> dict[str, str | None]:
        """By issuer of relying parties' tokens that are taken: the operator that speaks for it; None: any."""
        named = {issuer.issuer: issuer.operator for issuer in self.camara.issuers}
        return {local_name(self.public_url): None, **named} if self.camara_login else named

    def trusts(self, client: str) -> bool:
        """Whether a relying party's issuer is one of those whose tokens are taken."""
        return any(client.startswith(f"{issuer}|") for issuer in self.speakers)

    @property
    def openid(self) -> str:
        """Where relying parties learn how to get a token."""
        issuer = self.camara.issuers[0].issuer if self.camara.issuers else local_name(self.public_url)
        return f"{issuer}/.well-known/openid-configuration"

    def refuse_unsafe_access(self) -> None:
        """INVALID_INPUT: what would let in others than was meant."""
        if self.access.local_login is True and not local_login.is_loopback(self.host):
            raise TsmError(
                ErrorCode.INVALID_INPUT,
                f"access.local_login is true, and {self.host} can be reached from the network: use an identity"
                f' provider, or write "local_login": "{EXPOSED}"',
            )
        names = [self.public_url, *(issuer.issuer for issuer in self.access.issuers)]
        if len(set(names)) < len(names):
            raise TsmError(ErrorCode.INVALID_INPUT, "access.issuers names an issuer twice, or this server")
        for issuer in (*self.access.issuers, *self.camara.issuers):
            if "://" in issuer.jwks:
                check_https(issuer.jwks, "issuers.jwks")
        self._refuse_unsafe_camara()

    def _refuse_unsafe_camara(self) -> None:
        check_purpose(self.camara.purpose)
        networks(self.camara.sink_networks)
        names = [local_name(self.public_url), *(issuer.issuer for issuer in self.camara.issuers)]
        if len(set(names)) < len(names):
            raise TsmError(ErrorCode.INVALID_INPUT, "camara.issuers names an issuer twice, or this server")
        tokens = {(issuer.issuer, issuer.audience) for issuer in self.access.issuers}
        if not tokens.isdisjoint((issuer.issuer, issuer.audience) for issuer in self.camara.issuers):
            raise TsmError(ErrorCode.INVALID_INPUT, "camara.issuers and access.issuers name the same audience of one")

    @property
    def store_place(self) -> str | Path:
        """Where the log is kept: for `tsm.store.opening`."""
        return self.store if is_postgresql(self.store) else self.data / self.store


class Worker(Protocol):
    """What runs beside the requests."""

    name: str

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def keeping_up(self) -> bool: ...


@dataclass(frozen=True)
class Parts:
    """The server, assembled: what the routes are made from, and what runs beside them."""

    settings: Settings
    clock: Callable[[], datetime]
    random: Callable[[int], bytes]
    vault: SoftwareVault
    tsm: Tsm
    access: Access
    door: Door
    readings: Readings
    sessions: SessionService
    app_reports: AppReports
    deployments: Deployments
    operations: Operations
    domain_keys: DomainKeys
    issuance: Issuance
    lines: Lines
    standings: Standings
    subscriptions: Subscriptions
    sinks: Sinks
    card_releases: CardReleases
    revocation: Revocation
    views: Views
    metrics: Metrics
    workers: tuple[Worker, ...]
    closing: tuple[Callable[[], None], ...]

    def start(self) -> None:
        for worker in self.workers:
            worker.start()

    def close(self) -> None:
        """Stop what runs, then close what is open."""
        for worker in reversed(self.workers):
            worker.stop()
        for close in self.closing:
            close()


def utc_now() -> datetime:
    return datetime.now(UTC)


def issuers(settings: Settings, vault: SoftwareVault, threads: Executor, clock: Callable[[], datetime]) -> list[Issuer]:
    """Whose access tokens are taken."""
    made = [issuer(said, settings, threads, clock) for said in settings.access.issuers]
    return [*made, local_login.issuer(vault, settings.public_url, clock)] if settings.local_login else made


def issuer(said: IssuerSettings, settings: Settings, threads: Executor, clock: Callable[[], datetime]) -> Issuer:
    keys = IssuerKeys(said.jwks, settings.data, threads)
    return Issuer(said.issuer, said.audience, said.algorithms, keys, clock)


def door(settings: Settings, vault: SoftwareVault, threads: Executor, clock: Callable[[], datetime]) -> Door:
    """How relying parties get in."""
    camara = settings.camara
    made = [issuer(said, settings, threads, clock) for said in camara.issuers]
    trusted = [*made, local_issuer(vault, settings.public_url, clock)] if settings.camara_login else made
    return Door(ConsumerTokens(trusted, camara.purpose, clock), camara.requests_per_minute, camara.requests_per_day)


def executors(
    tsm: Tsm, vault: SoftwareVault, revocation: Revocation, standings: Standings
) -> Mapping[OperationKind, CarryOut]:
    """How operations that concern no card are carried out; each may be repeated."""
    erasure = Erasure(tsm, vault)

    def revoke(operation: Operation, context: Context) -> int:
        return revocation.revoke(operation.requested.target, operation.requested.values["reason"], context)

    def erase(operation: Operation, context: Context) -> int:
        even_in_use = operation.requested.values.get("even_in_use") == "true"
        return erasure.erase(operation.requested.target, context, even_in_use)

    def withdraw(operation: Operation, context: Context) -> int:
        role, _, party = operation.requested.target.partition("/")
        if role not in ENROLLED:
            raise TsmError(ErrorCode.INVALID_INPUT, f"a {role} is not enrolled")
        owned = msgspec.structs.replace(context, tenant=party)
        fingerprint = operation.requested.values.get("certificate_fingerprint", "")
        return tsm.withdraw(ENROLLED[role].stream(party), ENROLLED[role].evolve, owned, fingerprint)

    def adopt(operation: Operation, context: Context) -> int:
        owned = msgspec.structs.replace(context, tenant=SERVER)
        return standings.adopt(read_policy(operation.requested.values["policy"].encode()), owned)

    return {
        OperationKind.REVOKE_CREDENTIAL: revoke,
        OperationKind.ERASE_PERSON: erase,
        OperationKind.WITHDRAW_PARTY: withdraw,
        OperationKind.ADOPT_SWAP_POLICY: adopt,
    }


def build(
    settings: Settings,
    clock: Callable[[], datetime] = utc_now,
    random: Callable[[int], bytes] = os.urandom,
) -> Parts:
    """Open vault and store, and join the parts; nothing runs before `Parts.start`."""
    data = settings.data
    refuse_inside(settings.kek_file, data)
    refuse_within(settings.destroyed_keys, data)
    vault = SoftwareVault.open(data / "vault", settings.kek_file, random, settings.destroyed_keys)
    recorder = open_recorder(settings.store_place, vault, clock)
    tsm = Tsm(vault, recorder, FACTS, clock)
    limits = Limits(settings.delegation_seconds, settings.session_idle_seconds, settings.notify_limit_seconds)
    sessions = SessionService(tsm, vault, settings.public_url + LINK_PATH, tsm.now, random, limits)
    threads = ThreadPoolExecutor(KEY_READERS, "issuer-keys")
    tls = client_context(settings.tls)
    outbound, authority = XmlClient(tls), AuthorityClient(tls)
    views = open_views(settings.store_place, data / VIEWS_FILE, PROJECTIONS)
    contacts = Contacts(tsm, vault, sessions, settings.public_url + RETURN_PATH, tsm.now, random)
    revocation = Revocation(tsm, authority)
    policy = Policy(four_eyes=frozenset(settings.four_eyes))
    lines = Lines(tsm, vault, tsm.now, random)
    carry_out = executors(tsm, vault, revocation, lines.standings)
    operations = Operations(tsm, contacts, Scripts(tsm, vault), policy, carry_out)
    sinks = Sinks(networks(settings.camara.sink_networks))
    positions = data / "positions"
    positions.mkdir(exist_ok=True)
    grounds = Grounds(tsm, lines, settings.trusts)
    watcher = SwapWatcher(tsm, grounds, StoredPosition(positions / "swap-watcher"))
    events = CloudEvents(sinks, settings.public_url + SUBSCRIPTIONS_PATH)
    return Parts(
        settings=settings,
        clock=tsm.now,
        random=random,
        vault=vault,
        tsm=tsm,
        access=Access(tsm, issuers(settings, vault, threads, tsm.now)),
        door=door(settings, vault, threads, tsm.now),
        readings=Readings(tsm),
        sessions=sessions,
        app_reports=AppReports(tsm, sessions, lines),
        deployments=Deployments(tsm, vault, contacts, operations, tsm.now),
        operations=operations,
        domain_keys=DomainKeys(tsm, vault),
        issuance=Issuance(tsm, vault, authority, tsm.now, random),
        lines=lines,
        standings=lines.standings,
        subscriptions=Subscriptions(tsm, grounds, random, settings.camara.subscriptions),
        sinks=sinks,
        card_releases=CardReleases(tsm, lines, authority, Challenges(vault, tsm.now, random), tsm.now),
        revocation=revocation,
        views=views,
        metrics=Metrics(),
        workers=(
            NotificationWorker(tsm, outbound, StoredPosition(positions / "notification"), tsm.now),
            ExpiryWorker(tsm, sessions, StoredPosition(positions / "expiry"), tsm.now),
            IssuanceFollower(tsm, StoredPosition(positions / "issuance")),
            ProvisionalKeysWorker(tsm, vault, StoredPosition(positions / "provisional-keys")),
            RetiredKeysWorker(tsm, vault, StoredPosition(positions / "retired-keys")),
            OperationsWorker(tsm, operations, StoredPosition(positions / "operations")),
            CardSignals(tsm, lines, StoredPosition(positions / "card-signals")),
            StandingWorker(tsm, lines.standings, StoredPosition(positions / "standings"), tsm.now),
            ErasureFollower(tsm, vault),
            RevocationFollower(tsm, authority, StoredPosition(positions / "revocation")),
            SwapResponseFollower(tsm, SwapResponse(tsm, operations), StoredPosition(positions / "swap-response")),
            watcher,
            SwapNoticesWorker(tsm, events, watcher, grounds, StoredPosition(positions / "swap-notices"), tsm.now),
            HoldFollower(tsm, authority, StoredPosition(positions / "hold")),
            Runner(tsm, views) if settings.projections == "in-process" else Observer(tsm, views),
        ),
        closing=(
            partial(threads.shutdown, wait=False),
            outbound.close,
            authority.close,
            views.close,
            tsm.close,
            vault.close,
        ),
    )
