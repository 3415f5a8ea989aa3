"""A world for sessions: a vault, a log, an operator, a provider, one real simulated card, and a phone that relays."""

import base64
import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from os import urandom

from tsm.application import Change, Tsm
from tsm.flows.session import Limits, SessionService
from tsm.globalplatform.apdu import CommandApdu, ResponseApdu
from tsm.globalplatform.commands import EncryptedKey, InstallForInstall, InstallForPersonalization, PutKey
from tsm.globalplatform.dgi import key_dgis, store_data_blocks
from tsm.identifiers import ReceptionNumber, SpId
from tsm.keys.primitives import kdf3
from tsm.keys.vault import SoftwareVault
from tsm.mas.launch import sp_signed
from tsm.mas.messages import UICC, DelegationRequest, LinkRequest, LinkResponse, Process, Return
from tsm.mas.signing import MAS_SIGNING_KEY
from tsm.model import card as cards
from tsm.model import delegation as delegations
from tsm.model import domain as domains
from tsm.model import session as sessions
from tsm.model.card import CardRegistered
from tsm.model.domain import DomainClaimed
from tsm.model.event import Context
from tsm.model.operator import OperatorEnrolled
from tsm.model.service_provider import ProviderEnrolled
from tsm.model.topics import FACTS
from tsm.store.migrations import migrate_sqlite
from tsm.store.opening import open_recorder
from tsm.uicc.card import SimulatedUicc

OPERATOR, PROVIDER = SpId("MNO00001"), SpId("JPKI0001")
ICCID, OTHER_ICCID = "8981100000000000010", "8981100000000000028"
ISD, DOMAIN = "A000000151000000", "D392F0002601FE01"
DOMAIN_FILE, DOMAIN_MODULE = bytes.fromhex("A0000001515350"), bytes.fromhex("A000000151535041")
KDD, OTHER_KDD = bytes(range(10)), bytes(range(10, 20))
MASTER = urandom(16)
MAS_URL = "https://tsm.example/mas/link"
RETURN_URLS = {OPERATOR: "https://tsm.example/mno/return", PROVIDER: "https://sp.example/mobile/return"}
GET_KEY_INFORMATION = bytes.fromhex("80CA00E000")  # a command that changes nothing and answers something
GET_IIN = bytes.fromhex("80CA004200")


LIMITS = Limits(notify_limit_seconds=0.2)


class NoPosition:
    """For a follower that begins anew at each start."""

    def read(self) -> int:
        return 0

    def write(self, position: int) -> None:
        """There is nothing to keep."""


class Clock:
    """Time that moves only when told to."""

    def __init__(self):
        self.now = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)

    def __call__(self):
        return self.now

    def pass_by(self, **duration):
        self.now += timedelta(**duration)


@dataclass
class World:
    """Everything but the phone; `worker` gives a second server on the same log."""

    folder: object
    limits: Limits = LIMITS
    clock: Clock = field(default_factory=Clock)
    fingerprints: dict[str, str] = field(default_factory=dict)  # of the parties' certificates
    store: object = None  # where the log is: a file in the folder unless a database is named

    def __post_init__(self):
        if self.store is None:
            self.store = self.folder / "log.sqlite"
            migrate_sqlite(self.store)
        self.vault = SoftwareVault.create(self.folder / "vault", self.folder / "kek")
        for party in (OPERATOR, PROVIDER):
            self.vault.generate_signing_key(f"test/{party}")
        self.vault.generate_signing_key(MAS_SIGNING_KEY)
        self.vault.import_master_key(f"operator/{OPERATOR}/isd", MASTER)
        self.recorder, self.tsm, self.sessions = self.worker()
        self.receptions = (ReceptionNumber(f"20261121{n:08}") for n in itertools.count(1))
        self.enrol()
        self.card, self.other_card = self.make_card(ICCID, KDD), self.make_card(OTHER_ICCID, OTHER_KDD)

    def worker(self):
        recorder = open_recorder(self.store, self.vault, self.clock)
        tsm = Tsm(self.vault, recorder, FACTS, self.clock)
        return recorder, tsm, SessionService(tsm, self.vault, MAS_URL, tsm.now, urandom, self.limits)

    def close(self):
        self.tsm.close()
        self.vault.close()

    def enrol(self):
        self.record(
            f"operator-{OPERATOR}",
            OperatorEnrolled(
                operator=OPERATOR,
                name="Operator",
                certificate_fingerprint=self.fingerprints.get(OPERATOR, "00" * 32),
                public_key=self.vault.public_key(f"test/{OPERATOR}").hex(),
                signing_key=f"test/{OPERATOR}",
                return_urls=(RETURN_URLS[OPERATOR],),
            ),
        )
        self.record(domains.stream(DOMAIN), DomainClaimed(domain=DOMAIN, provider=PROVIDER))
        self.record(
            f"provider-{PROVIDER}",
            ProviderEnrolled(
                provider=PROVIDER,
                name="Provider",
                certificate_fingerprint=self.fingerprints.get(PROVIDER, "11" * 32),
                public_key=self.vault.public_key(f"test/{PROVIDER}").hex(),
                transport_key="",
                notify_url="https://sp.example/notify",
                return_urls=("https://sp.example/other", RETURN_URLS[PROVIDER]),
                domain=DOMAIN,
                authority="jpki",
            ),
        )

    def make_card(self, iccid, kdd):
        self.record(
            cards.stream(iccid),
            CardRegistered(
                iccid=iccid,
                iin="89811000",
                cin="00000001",
                operator=OPERATOR,
                profile="test",
                diversification=kdd.hex(),
                isd=ISD,
                key_set="isd",
                key_version=1,
                key=f"operator/{OPERATOR}/isd?kdf3={kdd.hex()}",
            ),
        )
        return SimulatedUicc.manufacture(iccid, b"\x89\x81\x10\x00", b"\x00\x00\x00\x01", kdd, kdf3(MASTER, kdd))

    def record(self, stream, *facts):
        context = Context(actor="test", role="administrator", tenant="test", correlation="test")
        version = sum(1 for event in self.events() if event.originator_id == stream)
        self.tsm.commit(Change(stream, version, facts), context=context, occurred_at=self.clock())

    # What a party does

    def request(self, commands, provider=OPERATOR, reception=None, generated_at="20261121093000"):
        apdus = tuple(c if isinstance(c, bytes) else c.encode() for c in commands)
        return DelegationRequest(provider, reception or next(self.receptions), generated_at, apdus)

    def delegate(self, commands, provider=OPERATOR, iccid=ICCID, **options):
        """DELEGATE; the reception number."""
        request = self.request(commands, provider, **options)
        self.sessions.delegate(request, party=provider, iccid=iccid, correlation="story")
        return request.reception

    def start_request(self, reception, provider=OPERATOR, signer=None, return_url=None, mas_url=MAS_URL):
        data = sp_signed(provider, reception, return_url or RETURN_URLS[provider], mas_url)
        signature = base64.b64encode(self.vault.sign(f"test/{signer or provider}", data)).decode()
        return LinkRequest(Process.START, provider=provider, reception=reception, signature=signature)

    def phone(self, transmit=None, sessions=None):
        return Phone(self, transmit or self.card.transmit, sessions or self.sessions)

    def run(self, commands, provider=OPERATOR, **options):
        """DELEGATE to END on one phone; the reception number and the phone."""
        reception, phone = self.delegate(commands, provider), self.phone(**options)
        phone.run(reception, provider)
        return reception, phone

    # The operator's and the provider's usual scripts

    def create_domain(self):
        """The provider's domain with provisional keys, delegated by the operator and run."""
        ref, isd = f"card/{ICCID}/{DOMAIN}/01", f"operator/{OPERATOR}/isd?kdf3={KDD.hex()}"
        self.vault.generate_aes_key_set(ref)
        keys = tuple(EncryptedKey(k.encrypted, k.check_value) for k in self.vault.wrap_key_set(ref, isd))
        aid = bytes.fromhex(DOMAIN)
        self.run(
            [
                InstallForInstall(DOMAIN_FILE, DOMAIN_MODULE, aid, b"\x80").apdu(),
                InstallForPersonalization(aid).apdu(),
                *(block.apdu() for block in store_data_blocks(key_dgis(1, keys), 200, encrypted=False)),
            ]
        )

    def rotation(self):
        """PUT KEY of the provider's own keys, version 2."""
        old, new = f"card/{ICCID}/{DOMAIN}/01", f"card/{ICCID}/{DOMAIN}/02"
        self.vault.generate_aes_key_set(new)
        keys = tuple(EncryptedKey(k.encrypted, k.check_value) for k in self.vault.wrap_key_set(new, old))
        return PutKey(1, 2, keys).apdu()

    # What happened

    def events(self):
        return self.tsm.read(0, 100_000)

    def facts(self, prefix=""):
        return [event.fact for event in self.events() if event.originator_id.startswith(prefix)]

    def topics(self, prefix=""):
        return [fact.topic for fact in self.facts(prefix)]

    def session(self, reception, provider=OPERATOR):
        return self.tsm.load(sessions.stream(provider, reception), sessions.evolve).state

    def delegation(self, reception, provider=OPERATOR):
        return self.tsm.load(delegations.stream(provider, reception), delegations.evolve).state

    def card_record(self, iccid=ICCID):
        return self.tsm.load(cards.stream(iccid), cards.evolve).state

    def payloads(self):
        """All but the cards' sequence counters, which stay."""
        said = "SELECT stream, name FROM payload WHERE name NOT LIKE 'counter-%' ORDER BY stream, name"
        return self.recorder._reader.execute(said).fetchall()


class Phone:
    """The common app: holds nothing but the cookie."""

    def __init__(self, world, transmit, sessions):
        self.world, self.transmit, self.sessions = world, transmit, sessions
        self.cookie = ""
        self.said = []  # what the server answered
        self.requests = []

    def run(self, reception, provider=OPERATOR):
        answer = self.start(reception, provider)
        while answer.process is not Return.END:
            answer = self.say(self.obey(answer))
        return answer

    def start(self, reception, provider=OPERATOR):
        return self.say(self.world.start_request(reception, provider))

    def say(self, request):
        answer = self.sessions.link(request, self.cookie)
        self.requests.append((request, self.cookie))
        self.cookie = answer.cookie
        self.said.append(LinkResponse.parse(answer.body))
        return self.said[-1]

    def obey(self, answer):
        if answer.process is Return.CONNECT:
            return LinkRequest(Process.CONNECT_RESULT, card=UICC)
        if answer.process is Return.DISCONNECT:
            return LinkRequest(Process.DISCONNECT_RESULT)
        response = ResponseApdu.parse(self.transmit(answer.apdu))
        return LinkRequest(Process.RESPONSE, data=response.data, status_word=response.sw.to_bytes(2))

    @property
    def processes(self):
        return [answer.process.name for answer in self.said]


def application_command(data):
    """A command that only an application would understand."""
    return CommandApdu(0x80, 0x10, 0x00, 0x00, data, 0x100).encode()
