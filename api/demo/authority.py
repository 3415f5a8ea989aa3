"""The certificate authority of the demo: `python -m api.demo.authority init|serve|my-number-card --folder F`.

    GET  /ca/<kind>.der, /crl/<kind>.crl     for everybody; kind is signature or authentication
    POST /credentials                        the TSM server asks for certificates
    POST /credentials/<id>/revoked           the TSM server asks that both are put on the revocation lists
    POST /credentials/<id>/held, /released   the TSM server asks that both are put on hold, and that the hold ends
    GET  /credentials/<id>/keys              the provider fetches them with their private keys, under its transport key
    POST /credentials/<id>/written           the provider has written them: our copies are destroyed, and the TSM
                                             server gets the receipts

What everybody asks about certificates is signed in itself, and asked by programs that have yet to trust anybody. So the
status desk speaks plain HTTP, at a port of its own (RFC 6960 appendix A, RFC 5280 section 8):

    POST /ocsp/<kind>                        an OCSP request, answered live
    GET  /ocsp/<kind>/<request>              the same, in Base64
    GET  /crl/<kind>.crl

It also stands in for the factory of My Number cards, which personalises a card for a citizen.
"""

import argparse
import base64
import json
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path

import httpx
import msgspec
from anyio import CapacityLimiter, to_thread
from cryptography.x509 import ReasonFlags
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.demo.party import (
    Tls,
    answer,
    caller,
    checked,
    client,
    command_line,
    config_path,
    demand,
    emit,
    load_config,
    main,
    message,
    reaching,
    serve,
    starlette,
    telling,
)
from api.errors import read_body
from tsm.errors import ErrorCode, TsmError
from tsm.jpki.authority import Authority
from tsm.jpki.certificate_authority import (
    CertificateRequest,
    DestructionReceipt,
    HoldRequest,
    ReleaseRequest,
    RevocationRequest,
)
from tsm.jpki.certificates import Holder, Kind
from tsm.jpki.ocsp import MALFORMED, RESPONSE_TYPE, TRY_LATER
from tsm.keys.vault import SoftwareVault
from tsm.uicc.my_number import my_number_card

LARGEST_OCSP_REQUEST = 4096  # octets; one for one certificate has about 100
MOST_STATUS_REQUESTS = 64  # under way at once; the next is told to try later
STATUS_THREADS = 16
LIVE = {"Cache-Control": "no-store"}  # a hold is for now: no cache in between may answer in our place
CERTIFICATE, REVOCATION_LIST = "application/pkix-cert", "application/pkix-crl"


class EnrolledProvider(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A provider whom the authority knows by contract."""

    certificate_fingerprint: str
    transport_key: str  # SPKI, hex


class AuthorityConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """config.json of the authority. The last three fields are needed to serve, not to be made."""

    authority: str  # its id
    name: str
    tls: Tls
    kek_file: Path  # the vault's key-encryption key, outside the folder
    host: str = "127.0.0.1"
    port: int = 0
    status_port: int = 0  # plain HTTP; certificates name it, so it has to be known beforehand
    tsm_url: str = ""
    tsm_certificate_fingerprint: str = ""
    providers: dict[str, EnrolledProvider] = {}

    @property
    def url(self) -> str:
        """Where it will listen, known beforehand only when the port is."""
        return f"https://{self.host}:{self.port}"

    @property
    def status_url(self) -> str:
        return f"http://{self.host}:{self.status_port}"


class CredentialRequest(msgspec.Struct, frozen=True, rename="camel"):
    """POST /credentials."""

    credential_id: str
    provider: str
    main_certificate: bytes


class RevocationOrder(msgspec.Struct, frozen=True, rename="camel"):
    """POST /credentials/<id>/revoked."""

    authentication_sha256: str  # of the certificate, hex
    signature_sha256: str
    reason: ReasonFlags  # as RFC 5280 5.3.1 names it


class HeldCertificates(msgspec.Struct, frozen=True, rename="camel"):
    """POST /credentials/<id>/held and /released."""

    authentication_sha256: str  # of the certificate, hex
    signature_sha256: str


class Written(msgspec.Struct, frozen=True, rename="camel"):
    """POST /credentials/<id>/written."""

    certificates: list[str]  # SHA-256, hex, of those whose keys are in the card


class Citizen(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """For whom a My Number card is made: the four attributes and the PINs, from standard input."""

    name: str
    sex: str
    born: date
    address: str
    authentication_pin: str
    signature_pin: str

    def __repr__(self) -> str:
        return "Citizen(..)"


class StatusDesk:
    """What everybody may ask about a certificate. RSA takes its time, so whatever signs runs in a worker thread."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self._under_way = 0
        self._threads = CapacityLimiter(STATUS_THREADS)

    async def revocation_list(self, request: Request) -> Response:
        der = await self._aside(partial(self._authority.revocation_list, kind_of(request)))
        return Response(der, media_type=REVOCATION_LIST, headers={"Cache-Control": "no-cache"})

    async def ocsp_post(self, request: Request) -> Response:
        return await self._answer(request, await read_body(request, LARGEST_OCSP_REQUEST))

    async def ocsp_get(self, request: Request) -> Response:
        """The request as Base64 in the path (RFC 6960 appendix A.1)."""
        try:
            asked = base64.b64decode(request.path_params["request"], validate=True)
        except ValueError:
            return ocsp_response(MALFORMED)
        return await self._answer(request, asked)

    async def _answer(self, request: Request, asked: bytes) -> Response:
        kind = kind_of(request)
        try:
            return ocsp_response(await self._aside(partial(self._authority.ocsp, kind, asked)))
        except TsmError as error:
            if error.code is not ErrorCode.STORE_BUSY:
                raise
            return ocsp_response(TRY_LATER)

    async def _aside(self, sign: Callable[[], bytes]) -> bytes:
        """In threads of this desk alone: however many strangers ask, a hold finds one of its own. STORE_BUSY."""
        if self._under_way >= MOST_STATUS_REQUESTS:
            raise TsmError(ErrorCode.STORE_BUSY, "too many ask for status")
        self._under_way += 1
        try:
            return await to_thread.run_sync(sign, limiter=self._threads)
        finally:
            self._under_way -= 1

    def application(self) -> Starlette:
        return starlette(
            [
                Route("/crl/{kind}.crl", self.revocation_list, methods=["GET"]),
                Route("/ocsp/{kind}", self.ocsp_post, methods=["POST"]),
                Route("/ocsp/{kind}/{request:path}", self.ocsp_get, methods=["GET"]),
            ]
        )


class Desk:
    """The authority's routes. RSA takes its time, so everything that signs or makes keys runs in a worker thread."""

    def __init__(self, authority: Authority, config: AuthorityConfig, http: httpx.AsyncClient) -> None:
        self._authority = authority
        self._config = config
        self._http = http
        self._status = StatusDesk(authority)

    async def certificate(self, request: Request) -> Response:
        return Response(self._authority.certificate(kind_of(request)), media_type=CERTIFICATE)

    async def issue(self, request: Request) -> Response:
        demand(request, self._config.tsm_certificate_fingerprint)
        wanted = await message(request, CredentialRequest)
        if wanted.provider not in self._config.providers:
            raise TsmError(ErrorCode.UNKNOWN_SERVICE_PROVIDER, "no contract")
        asked = CertificateRequest(wanted.credential_id, wanted.provider, wanted.main_certificate)
        with telling("tsm", "authority", "asks for key pairs and certificates"):
            issued = await to_thread.run_sync(self._authority.issue, asked)
        return answer({"authentication": issued.authentication, "signature": issued.signature})

    async def revoked(self, request: Request) -> Response:
        demand(request, self._config.tsm_certificate_fingerprint)
        order = await message(request, RevocationOrder)
        credential = request.path_params["credential"]
        asked = RevocationRequest(credential, order.authentication_sha256, order.signature_sha256, order.reason)
        with telling("tsm", "authority", "asks that both certificates are revoked"):
            await to_thread.run_sync(self._authority.revoke_credential, asked)
        return answer({})

    async def held(self, request: Request) -> Response:
        asked = HoldRequest(*await self._held_certificates(request))
        with telling("tsm", "authority", "asks that both certificates are put on hold"):
            await to_thread.run_sync(self._authority.hold, asked)
        return answer({})

    async def released(self, request: Request) -> Response:
        asked = ReleaseRequest(*await self._held_certificates(request))
        with telling("tsm", "authority", "asks that the hold ends"):
            signature = await to_thread.run_sync(self._authority.release, asked)
        return answer({"signature": signature})

    async def _held_certificates(self, request: Request) -> tuple[str, str, str]:
        demand(request, self._config.tsm_certificate_fingerprint)
        held = await message(request, HeldCertificates)
        return request.path_params["credential"], held.authentication_sha256, held.signature_sha256

    async def keys(self, request: Request) -> Response:
        provider, enrolled = self._provider(request)
        credential = request.path_params["credential"]
        transport_key = bytes.fromhex(enrolled.transport_key)
        wrapped = await to_thread.run_sync(self._authority.wrapped_keys, credential, provider, transport_key)
        issued = self._authority.certificates(credential)
        return answer(
            {
                "authentication": issued.authentication,
                "signature": issued.signature,
                "encryptedKey": wrapped.encrypted_key,
                "nonce": wrapped.nonce,
                "ciphertext": wrapped.ciphertext,
            }
        )

    async def written(self, request: Request) -> Response:
        """Safe to repeat: the copies are destroyed once, the receipts are sent until the server has taken them."""
        provider, _ = self._provider(request)
        credential, written = request.path_params["credential"], await message(request, Written)
        destroy = self._authority.destroy_key_copies
        receipts = await to_thread.run_sync(destroy, credential, provider, written.certificates)
        await self._report(credential, receipts)
        return answer({"destroyed": len(receipts)})

    async def _report(self, credential: str, receipts: list[DestructionReceipt]) -> None:
        url = f"{self._config.tsm_url}/authority/credentials/{credential}/key-copies-destroyed"
        content = {"receipts": [{"statement": each.statement, "signature": each.signature} for each in receipts]}
        json_type = {"Content-Type": "application/json"}
        with telling("authority", "tsm", "receipts: its copies of the keys are destroyed"), reaching():
            response = await self._http.post(url, content=msgspec.json.encode(content), headers=json_type)
        checked(response)

    def _provider(self, request: Request) -> tuple[str, EnrolledProvider]:
        """Who asks, by the certificate that it was enrolled with."""
        fingerprint = caller(request)
        for provider, enrolled in self._config.providers.items():
            if enrolled.certificate_fingerprint == fingerprint:
                return provider, enrolled
        raise TsmError(ErrorCode.FORBIDDEN, "not a provider with a contract")

    def application(self, vault: SoftwareVault) -> Starlette:
        @asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            yield
            await self._http.aclose()
            self._authority.close()
            vault.close()

        return starlette(
            [
                Route("/ca/{kind}.der", self.certificate, methods=["GET"]),
                Route("/crl/{kind}.crl", self._status.revocation_list, methods=["GET"]),
                Route("/credentials", self.issue, methods=["POST"]),
                Route("/credentials/{credential}/revoked", self.revoked, methods=["POST"]),
                Route("/credentials/{credential}/held", self.held, methods=["POST"]),
                Route("/credentials/{credential}/released", self.released, methods=["POST"]),
                Route("/credentials/{credential}/keys", self.keys, methods=["GET"]),
                Route("/credentials/{credential}/written", self.written, methods=["POST"]),
            ],
            lifespan,
        )


def ocsp_response(der: bytes) -> Response:
    """Also a refusal is 200: the status is in the answer (RFC 6960 appendix A.2)."""
    return Response(der, media_type=RESPONSE_TYPE, headers=LIVE)


def kind_of(request: Request) -> Kind:
    try:
        return Kind(request.path_params["kind"])
    except ValueError as error:
        raise TsmError(ErrorCode.NOT_FOUND, "no such authority") from error


def init(arguments: argparse.Namespace, config: AuthorityConfig) -> None:
    """Make folder, vault and both authorities, and print what the operator enrols. URLs need a port other than 0."""
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    vault = SoftwareVault.create(folder / "vault", config.kek_file)
    authority = Authority(folder, vault, lambda: datetime.now(UTC), config.status_url)
    emit(**public_material(config, {kind: authority.certificate(kind).hex() for kind in Kind}))
    authority.close()
    vault.close()


def public_material(config: AuthorityConfig, certificates: Mapping[Kind, str]) -> dict[str, str]:
    return {
        "authority": config.authority,
        "name": config.name,
        "certificate_fingerprint": config.tls.fingerprint,
        "url": config.url,
        "signature_ca": certificates[Kind.SIGNATURE],
        "authentication_ca": certificates[Kind.AUTHENTICATION],
        "signature_ocsp_url": f"{config.status_url}/ocsp/{Kind.SIGNATURE}",
        "authentication_ocsp_url": f"{config.status_url}/ocsp/{Kind.AUTHENTICATION}",
        "signature_crl_url": f"{config.url}/crl/{Kind.SIGNATURE}.crl",
        "authentication_crl_url": f"{config.url}/crl/{Kind.AUTHENTICATION}.crl",
    }


def run(arguments: argparse.Namespace, config: AuthorityConfig) -> None:
    vault = SoftwareVault.open(arguments.folder / "vault", config.kek_file)
    authority = Authority(arguments.folder, vault, lambda: datetime.now(UTC), config.status_url)
    desk = Desk(authority, config, client(config.tls))
    serve(config, lambda _: desk.application(vault), StatusDesk(authority).application(), config.status_port)


def make_card(arguments: argparse.Namespace, config: AuthorityConfig) -> None:
    """Personalise a My Number card for the citizen on standard input (JSON), into the file `--out`."""
    if arguments.out is None:
        raise TsmError(ErrorCode.INVALID_INPUT, "--out names the card's file")
    citizen = read_citizen(sys.stdin.read())
    vault = SoftwareVault.open(arguments.folder / "vault", config.kek_file)
    authority = Authority(arguments.folder, vault, lambda: datetime.now(UTC), config.status_url)
    main_credential = authority.issue_main(Holder.of(citizen.name, citizen.sex, citizen.born, citizen.address))
    my_number_card(
        main_credential,
        authentication_ca=authority.certificate(Kind.AUTHENTICATION),
        signature_ca=authority.certificate(Kind.SIGNATURE),
        authentication_pin=citizen.authentication_pin,
        signature_pin=citizen.signature_pin,
    ).save(arguments.out)
    authority.close()
    vault.close()
    emit(card=str(arguments.out))


def read_citizen(text: str) -> Citizen:
    try:
        return msgspec.json.decode(text, type=Citizen)
    except msgspec.MsgspecError:  # its words might repeat what was given
        raise TsmError(ErrorCode.INVALID_INPUT, f"expected {json.dumps(Citizen.__struct_encode_fields__)}") from None


def command() -> None:
    parser = command_line("The certificate authority of the demo", "init", "serve", "my-number-card")
    parser.add_argument("--out", type=Path, help="my-number-card: the file to make")
    arguments = parser.parse_args()
    config = load_config(config_path(arguments), AuthorityConfig)
    {"init": init, "serve": run, "my-number-card": make_card}[arguments.command](arguments, config)


if __name__ == "__main__":
    main(command)
