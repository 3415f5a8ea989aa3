"""What the administrator does on the server's own machine: make it, enrol parties, import keys, register cards.

Each function opens the data folder, does one thing and closes it again. A running server sees the result at once, for
both stand on the same log.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import msgspec

from api.access import ENROLLED, SERVER, viewer_of
from api.bootstrap import CONFIG_FILE, STORE, Parts, Settings, build
from api.certificates import certify, create_authority, fingerprint, request, write_private
from api.rest.operator_site import RETURN_PATH
from api.xml.mas import LINK_PATH
from tsm.errors import ErrorCode, TsmError
from tsm.globalplatform.cap import CapFile
from tsm.identifiers import Aid, Iccid, KeyRef, SpId
from tsm.keys.destroyed_keys import beside
from tsm.keys.key_encryption import refuse_inside
from tsm.keys.vault import SoftwareVault
from tsm.mas.signing import MAS_SIGNING_KEY, MAS_TRANSPORT_KEY
from tsm.model import operator
from tsm.model.authority import AuthorityEnrolled
from tsm.model.card import CardReleased
from tsm.model.catalogue import LoadFileRegistered
from tsm.model.checks import check_text
from tsm.model.event import Context
from tsm.model.operator import OperatorEnrolled
from tsm.model.production import parse_production_file
from tsm.model.service_provider import ProviderEnrolled
from tsm.model.terminal import TerminalEnrolled
from tsm.store.dsn import check_dsn
from tsm.store.migrations import migrate_sqlite
from tsm.store.opening import is_postgresql
from tsm.store.recorder import Command

Described = TypeVar("Described")


class OperatorDescription(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an operator says of itself; its signing key is made here, for its TSM runs here."""

    operator: str
    name: str
    certificate_fingerprint: str


def initialise(data: Path, kek_file: Path, host: str, port: int, store: str = STORE) -> None:
    """Make a server: key-encryption key, vault, store, the parties' certificate authority, the server's certificate.

    `store` is a path from the data folder, or the DSN of a database, which `tsm store migrate` then makes a store.
    INVALID_INPUT when the DSN is not understood; ALREADY_EXISTS when the folder holds a server;
    KEY_ENCRYPTION_KEY_EXPOSED when the key-encryption key would lie in it.
    """
    if (data / CONFIG_FILE).exists():
        raise TsmError(ErrorCode.ALREADY_EXISTS, f"{data} holds a server")
    if is_postgresql(store):
        check_dsn(store)
    refuse_inside(kek_file, data)
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    vault = SoftwareVault.create(data / "vault", kek_file)
    vault.generate_signing_key(KeyRef(MAS_SIGNING_KEY))
    vault.generate_transport_key(KeyRef(MAS_TRANSPORT_KEY))
    vault.close()
    tls = data / "tls"
    create_authority(tls)
    wanted = request(tls, SERVER).read_bytes()
    (tls / "cert.pem").write_bytes(certify(tls, wanted, SERVER, "server", [host, "localhost"]))
    config = {
        "public_url": f"https://{host}:{port}",
        "host": host,
        "port": port,
        "kek_file": str(kek_file.resolve()),
        "destroyed_keys": str(beside(kek_file.resolve())),
        "store": store,
        "tls": {"certificate": "tls/cert.pem", "key": "tls/key.pem", "party_ca": "tls/ca.pem"},
    }
    write_private(data / CONFIG_FILE, json.dumps(config, indent=2).encode() + b"\n")
    if not is_postgresql(store):
        migrate_sqlite(data / store)


@contextmanager
def opened(data: Path) -> Iterator[Parts]:
    """The server's parts without its workers."""
    parts = build(Settings.load(data))
    try:
        yield parts
    finally:
        parts.close()


def describe(data: Path) -> dict[str, str]:
    """What the parties need to know of the server: address, root of trust, certificate, public keys (SPKI, hex)."""
    with opened(data) as parts:
        settings, vault = parts.settings, parts.vault
        return {
            "url": settings.public_url,
            "mas_url": settings.public_url + LINK_PATH,
            "party_ca": str(settings.tls.party_ca.resolve()),
            "certificate_fingerprint": fingerprint(settings.tls.certificate.read_bytes()),
            "mas_public_key": vault.public_key(KeyRef(MAS_SIGNING_KEY)).hex(),
        }


def certify_party(data: Path, request_pem: bytes, party: str, role: str, hosts: list[str], tenant: str = "") -> bytes:
    """A client (and server) certificate for a party, from its request; PEM. `tenant` is an auditor's: FORBIDDEN."""
    if tenant:
        viewer_of(role, tenant)
    return certify(data / "tls", request_pem, party, role, hosts, tenant)


def enrol(data: Path, role: str, description: bytes) -> int:
    """Admit a party as its description (JSON, what its own set-up prints) says; returns the log's position.

    A description that differs only in the certificate's fingerprint replaces the certificate.
    """
    with opened(data) as parts:
        context = administrator(f"enrol {role}")
        match role:
            case "operator":
                return enrol_operator(parts, described(description, OperatorDescription), context)
            case "provider":
                return parts.tsm.enrol_provider(described(description, ProviderEnrolled), context)
            case "terminal":
                return parts.tsm.enrol_terminal(described(description, TerminalEnrolled), context)
            case "authority":
                return parts.tsm.enrol_authority(described(description, AuthorityEnrolled), context)
            case _:
                raise TsmError(ErrorCode.INVALID_INPUT, f"a {role} is not enrolled")


def withdraw(data: Path, role: str, party: str, reason: str) -> int:
    """Withdraw a party's certificate; returns the log's position. NOT_FOUND for a party that is not enrolled."""
    room = ENROLLED[role]
    check_text(reason, "reason")
    with opened(data) as parts:
        context = msgspec.structs.replace(administrator(reason), tenant=party)
        return parts.tsm.withdraw(room.stream(party), room.evolve, context)


def enrol_operator(parts: Parts, said: OperatorDescription, context: Context, command: Command | None = None) -> int:
    """Make the operator's signing key, unless it has one, and enrol it. As `Tsm.enrol_operator` refuses."""
    signing_key = KeyRef(f"operator/{SpId(said.operator)}/signing")
    if not parts.vault.has(signing_key):
        parts.vault.generate_signing_key(signing_key)
    enrolled = OperatorEnrolled(
        operator=said.operator,
        name=said.name,
        certificate_fingerprint=said.certificate_fingerprint,
        public_key=parts.vault.public_key(signing_key).hex(),
        signing_key=signing_key,
        return_urls=(parts.settings.public_url + RETURN_PATH,),
    )
    return parts.tsm.enrol_operator(enrolled, context, command)


def import_master_key(data: Path, operator_id: str, key_set: str, key_version: int, key_hex: str) -> str:
    """Take an operator's master key (32 hex digits) into the vault; returns its check value in hex."""
    try:
        key = bytes.fromhex(key_hex.strip())
    except ValueError:
        raise TsmError(ErrorCode.KEY_REFUSED, "a key is written in hex") from None
    with opened(data) as parts:
        parts.tsm.import_master_key(operator_id, key_set, key, key_version, administrator("import master key"))
        state = parts.tsm.load(operator.stream(operator_id), operator.evolve).state
        if state is None:
            raise TsmError(ErrorCode.NOT_FOUND, f"operator {operator_id}")
        return state.key_set(key_set).check_value


def register_cards(data: Path, operator_id: str, production_file: bytes) -> int:
    """Register all cards of a production file, or none; returns how many it names."""
    rows = parse_production_file(production_file)
    with opened(data) as parts:
        parts.tsm.register_cards(operator_id, rows, administrator("production file"))
    return len(rows)


def release_card(data: Path, operator_id: str, iccid: str, domain: str, reason: str) -> int:
    """Let sessions with a domain of a card begin again after too many failed authentications; the log's position."""
    released = CardReleased(domain=Aid(domain.upper()), reason=reason)
    with opened(data) as parts:
        return parts.tsm.release_card(operator_id, Iccid(iccid), released, administrator(reason))


def register_load_file(data: Path, provider: str, version: str, application: str, cap: bytes) -> str:
    """Put a provider's CAP file into the catalogue; returns the hash that cards will check (SHA-256, hex)."""
    registered, block = read_load_file(provider, version, application, cap)
    with opened(data) as parts:
        parts.tsm.register_load_file(registered, block, administrator("register load file"))
    return registered.sha256


def read_load_file(provider: str, version: str, application: str, cap: bytes) -> tuple[LoadFileRegistered, bytes]:
    """What a CAP file is registered as, and its load file data block. INVALID_INPUT, MESSAGE_TOO_LARGE."""
    file = CapFile.read(cap)
    if len(file.applet_aids) != 1:
        raise TsmError(ErrorCode.INVALID_INPUT, "a CAP file with one applet is expected")
    block = file.load_file_data_block()
    registered = LoadFileRegistered(
        load_file=Aid(file.package_aid.hex().upper()),
        provider=provider,
        version=version,
        sha256=hashlib.sha256(block).hexdigest(),
        size=len(block),
        module=Aid(file.applet_aids[0].hex().upper()),
        application=application.upper(),
    )
    return registered, block


def administrator(reason: str) -> Context:
    """The person at the server's own console."""
    return Context(
        actor="administrator:console",
        role="administrator",
        tenant=SERVER,
        correlation=uuid4().hex,
        request=uuid4().hex,
        reason=reason,
    )


def described(text: bytes, kind: type[Described]) -> Described:
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.MsgspecError as error:
        raise TsmError(ErrorCode.INVALID_INPUT, f"the description is not as expected: {error}") from error
