"""The provider from the first visit to the destroyed key copies, against a TSM server that keeps what it is told.

The test plays the card: it has the provisional keys, so it opens PUT KEY, and with the new DEK what is personalised.
"""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from os import urandom
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key
from parties import Caller, knows, now
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from api.demo.authority import AuthorityConfig, Desk, EnrolledProvider
from api.demo.party import Tls
from api.demo.phone.browser import Page, read_page
from api.demo.provider.back_end import BackEnd
from api.demo.provider.keys import SIGNING, TRANSPORT, ProviderKeys
from api.demo.provider.outside import AuthorityClient, TsmClient
from api.demo.provider.site import Site, application
from api.demo.provider.state import State
from tsm.globalplatform.apdu import CommandApdu
from tsm.globalplatform.commands import PutKey, StoreData, parse_command
from tsm.globalplatform.dgi import parse_dgis
from tsm.identifiers import Aid, ReceptionNumber, SpId
from tsm.jpki.authority import Authority, MainCredential
from tsm.jpki.certificate_authority import CertificateRequest, HoldRequest, ReleaseRequest
from tsm.keys.primitives import KeySet, kcv_aes, unwrap_dek
from tsm.keys.vault import SoftwareVault, verify_signature
from tsm.mas.launch import LaunchParameters, launch, mas_signed, sp_signed
from tsm.mas.messages import DelegationRequest, DelegationResponse, NotificationRequest, NotificationResponse
from tsm.mas.status import Status
from tsm.uicc import jpki

PROVIDER, OPERATOR, DOMAIN = SpId("JPKI0001"), SpId("MNO00001"), Aid("A000000151535044")
ICCID = "8981100000000000010"
DIVERSIFICATION = "00112233445566778899"
SITE, TSM, AUTHORITY = "https://provider", "https://tsm", "https://authority"
TSM_CERTIFICATE, PROVIDER_CERTIFICATE = b"the server's certificate", b"the provider's certificate"
PINS = {"authenticationPin": "1234", "signaturePin": "ABC123"}
SLIP = {"accessCode": "0123456789", "password": "ABCDEFGHJKLM"}


@dataclass
class FakeTsm:
    """The server's interfaces, as far as the provider calls them."""

    vault: SoftwareVault
    provider_transport_key: bytes
    provisional: KeySet = field(default_factory=lambda: KeySet(urandom(16), urandom(16), urandom(16)))
    domain_exists: bool = False
    applet_exists: bool = False
    operation_waits: bool = False
    return_urls: list[str] = field(default_factory=list)
    credential: str = ""
    delegations: list[tuple[DelegationRequest, str, str]] = field(default_factory=list)
    receipts: list[str] = field(default_factory=list)
    checks: int = 0

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/sp-tsm/deployments", self.deploy, methods=["POST"]),
                Route("/sp-tsm/transport-key", self.transport_key),
                Route("/sp-tsm/cards/{iccid}/provisional-keys", self.provisional_keys),
                Route("/sp-tsm/cards/{iccid}/keys", self.take_keys, methods=["POST"]),
                Route("/sp-tsm/access-codes/check", self.check, methods=["POST"]),
                Route("/mas/delegation", self.delegate, methods=["POST"]),
                Route("/authority/credentials/{id}/key-copies-destroyed", self.destroyed, methods=["POST"]),
            ]
        )

    async def deploy(self, request: Request) -> Response:
        asked = await request.json()
        assert asked["iccid"] == ICCID
        self.return_urls.append(asked["returnUrl"])
        if self.domain_exists and self.applet_exists and not self.operation_waits:
            return JSONResponse({"done": True, "step": "ready", "launch": None})
        parameters = launch(
            OPERATOR, ReceptionNumber("2026112100000001"), f"{TSM}/mno/return", f"{TSM}/mas/link", lambda _: bytes(64)
        )
        return JSONResponse({"done": False, "step": "domain", "launch": parameters.encode()})

    async def transport_key(self, _: Request) -> Response:
        return JSONResponse({"publicKey": base64.b64encode(self.vault.public_key("mas/transport")).decode()})

    async def provisional_keys(self, _: Request) -> Response:
        if not self.domain_exists:
            return JSONResponse({"code": "UNKNOWN_SECURITY_DOMAIN", "message": "", "requestId": ""}, 404)
        public_key = load_der_public_key(self.provider_transport_key)
        assert isinstance(public_key, RSAPublicKey)
        oaep = OAEP(MGF1(SHA256()), SHA256(), label("01"))
        keys = {"enc": self.provisional.enc, "mac": self.provisional.mac, "dek": self.provisional.dek}
        wrapped = {name: base64.b64encode(public_key.encrypt(key, oaep)).decode() for name, key in keys.items()}
        content = {
            "keyVersion": 1,
            "diversification": DIVERSIFICATION,
            "checkValues": [kcv_aes(key).hex() for key in keys.values()],
            "wrapped": wrapped,
            "correlation": "deployment-of-the-card",
            "label": label("01").decode(),
        }
        return JSONResponse(content)

    async def take_keys(self, request: Request) -> Response:
        given = await request.json()
        assert given["keyVersion"] == 2
        wrapped = {name: base64.b64decode(value) for name, value in given["wrapped"].items()}
        self.vault.import_key_set("shared", wrapped, "mas/transport", label("02"), given["checkValues"])
        return JSONResponse({})

    async def check(self, request: Request) -> Response:
        self.checks += 1
        if await request.json() != SLIP | {"iccid": ICCID}:
            return JSONResponse({"code": "ACCESS_CODE_REFUSED", "message": "", "requestId": ""}, 400)
        return JSONResponse({"credentialId": self.credential})

    async def delegate(self, request: Request) -> Response:
        delegation = DelegationRequest.parse(await request.body())
        headers = request.headers
        self.delegations.append((delegation, headers["tsm-card"], headers.get("tsm-correlation", "")))
        return Response(DelegationResponse("00", "", "20261121000000").encode())

    async def destroyed(self, request: Request) -> Response:
        self.receipts.append(request.path_params["id"])
        return JSONResponse({})


@dataclass
class World:
    """The provider with its browser, and the parties around it."""

    app: Starlette
    tsm: FakeTsm
    keys: SoftwareVault
    authority_up: bool = True

    def __post_init__(self) -> None:
        self.browser = Caller(self.app, SITE)

    def visit(self, path: str) -> Page:
        return read_page(self.browser.get(path))

    def personalise(self, **changes: str) -> Page:
        form = {"iccid": ICCID} | SLIP | PINS | changes
        return read_page(self.browser.post("/mobile/personalise", data=form))

    def notify(self, order: int, word: bytes = b"\x90\x00", data: bytes = b"", status: str = "00") -> bool:
        reception = self.tsm.delegations[-1][0].reception
        body = NotificationRequest(reception, order, order, status, word, data).encode()
        response = Caller(self.app, SITE, TSM_CERTIFICATE).post("/notify", content=body)
        return NotificationResponse.parse(response.content).result

    def come_back(self, status: str = "00") -> Page:
        reception = self.tsm.delegations[-1][0].reception
        signature = self.tsm.vault.sign("mas/signing", mas_signed(PROVIDER, reception, status))
        query = httpx.QueryParams(rcptNum=reception, masSign=base64.b64encode(signature).decode())
        return self.visit(f"/mobile/return?{query}")

    def rotate(self) -> None:
        self.tsm.domain_exists = True
        self.visit(f"/mobile/prepare?iccid={ICCID}")
        self.notify(1, data=b"\x02" + b"".join(check_values(self.new_keys())))

    def make_ready(self) -> Page:
        self.rotate()
        self.tsm.applet_exists = True
        return self.come_back()

    def new_keys(self) -> KeySet:
        """What the card holds after PUT KEY."""
        put_key = parse_command(CommandApdu.parse(self.tsm.delegations[0][0].commands[0]))
        assert isinstance(put_key, PutKey)
        return KeySet(*(unwrap_dek(self.tsm.provisional.dek, key.encrypted) for key in put_key.keys))


def label(version: str) -> bytes:
    return f"{PROVIDER}|{ICCID}|{DOMAIN}|{version}".encode()


def check_values(keys: KeySet) -> list[bytes]:
    return [kcv_aes(key) for key in (keys.enc, keys.mac, keys.dek)]


@pytest.fixture(scope="module")
def vaults(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SoftwareVault, SoftwareVault]]:
    """The provider's and the server's."""
    folder = tmp_path_factory.mktemp("vaults")
    provider = SoftwareVault.create(folder / "provider", folder / "provider.kek")
    ProviderKeys.make(provider)
    server = SoftwareVault.create(folder / "server", folder / "server.kek")
    server.generate_signing_key("mas/signing")
    server.generate_transport_key("mas/transport")
    yield provider, server
    provider.close()
    server.close()


@pytest.fixture
def world(
    tmp_path: Path,
    vaults: tuple[SoftwareVault, SoftwareVault],
    authority: Authority,
    main_credential: MainCredential,
) -> Iterator[World]:
    keys, server = vaults
    server.destroy("shared")
    keys.destroy(f"card/{ICCID}/{DOMAIN}/01")
    tsm = FakeTsm(server, keys.public_key(TRANSPORT), credential=str(uuid4()))
    authority.issue(CertificateRequest(tsm.credential, PROVIDER, main_credential.signature_certificate))
    desk = desk_of(authority, keys, tsm.app()).application(keys)

    def routed(app: Any) -> httpx.AsyncBaseTransport:
        return Interruptible(lambda: made, httpx.ASGITransport(knows(app, PROVIDER_CERTIFICATE)))

    http = httpx.AsyncClient(mounts={f"{TSM}/": httpx.ASGITransport(tsm.app()), f"{AUTHORITY}/": routed(desk)})
    state = State(tmp_path / "provider.sqlite", now)
    back_end = BackEnd(
        PROVIDER,
        SITE,
        ProviderKeys(keys, PROVIDER, DOMAIN),
        state,
        TsmClient(http, TSM),
        AuthorityClient(http, AUTHORITY),
        server.public_key("mas/signing"),
        now,
    )
    site = Site(back_end, hashlib.sha256(TSM_CERTIFICATE).hexdigest())
    made = World(application(site, back_end, lambda: None), tsm, keys)
    yield made
    state.close()


class Interruptible(httpx.AsyncBaseTransport):
    """The way to the authority, which a test may cut."""

    def __init__(self, world: Any, inner: httpx.AsyncBaseTransport) -> None:
        self._world, self._inner = world, inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if not self._world().authority_up:
            raise httpx.ConnectError("cut")
        return await self._inner.handle_async_request(request)


def desk_of(authority: Authority, keys: SoftwareVault, tsm: Starlette) -> Desk:
    nowhere = Path("/nowhere")
    enrolled = EnrolledProvider(hashlib.sha256(PROVIDER_CERTIFICATE).hexdigest(), keys.public_key(TRANSPORT).hex())
    config = AuthorityConfig(
        authority="CA000001",
        name="Simulated JPKI",
        tls=Tls(nowhere, nowhere, nowhere),
        kek_file=nowhere,
        tsm_url=TSM,
        providers={PROVIDER: enrolled},
    )
    return Desk(authority, config, httpx.AsyncClient(transport=httpx.ASGITransport(tsm)))


def launched(page: Page) -> LaunchParameters:
    assert page.launch is not None
    return LaunchParameters.parse(page.launch)


# --- preparation ---


def test_without_a_domain_the_operator_is_asked_to_make_one(world: World) -> None:
    assert launched(world.visit(f"/mobile/prepare?iccid={ICCID}")).provider == OPERATOR
    assert world.tsm.return_urls == [f"{SITE}/mobile/prepare"]
    assert world.tsm.delegations == []


def test_the_visit_is_found_again_when_the_operators_launch_returns(world: World) -> None:
    world.visit(f"/mobile/prepare?iccid={ICCID}")
    world.tsm.domain_exists = True
    assert launched(world.visit("/mobile/prepare")).provider == PROVIDER


def test_a_browser_that_never_came_is_asked_to_begin_again(world: World) -> None:
    page = world.visit("/mobile/prepare")
    assert (page.state, page.status) == ("refused", 403)


@pytest.mark.parametrize("iccid", ["", "1", "8981100000000000011", "<script>"])
def test_a_number_that_is_no_iccid_is_refused(world: World, iccid: str) -> None:
    assert world.visit(f"/mobile/prepare?iccid={httpx.QueryParams(iccid=iccid)['iccid']}").state == "refused"


def test_provisional_keys_are_replaced_by_keys_that_only_card_and_provider_know(world: World) -> None:
    world.tsm.domain_exists = True
    world.visit(f"/mobile/prepare?iccid={ICCID}")
    own = ProviderKeys(world.keys, PROVIDER, DOMAIN).own(DIVERSIFICATION)
    delegation, iccid, _ = world.tsm.delegations[0]
    put_key = parse_command(CommandApdu.parse(delegation.commands[0]))
    assert isinstance(put_key, PutKey)
    assert (put_key.key_version, put_key.new_key_version, iccid) == (1, 2, ICCID)
    assert tuple(value.hex() for value in check_values(world.new_keys())) == world.keys.check_values(own)


def test_the_mas_gets_enc_and_mac_but_never_the_dek(world: World) -> None:
    world.tsm.domain_exists = True
    world.visit(f"/mobile/prepare?iccid={ICCID}")
    shared = world.tsm.vault.check_values("shared")
    assert shared == tuple(value.hex() for value in check_values(world.new_keys())[:2])


def test_the_launch_is_signed_by_the_provider_over_return_and_mas_url(world: World) -> None:
    world.tsm.domain_exists = True
    parameters = launched(world.visit(f"/mobile/prepare?iccid={ICCID}"))
    data = sp_signed(PROVIDER, parameters.reception, f"{SITE}/mobile/return", f"{TSM}/mas/link")
    assert verify_signature(world.keys.public_key(SIGNING), data, base64.b64decode(parameters.signature))


def test_after_the_rotation_the_applet_is_asked_for_and_then_the_card_is_ready(world: World) -> None:
    world.rotate()
    assert launched(world.come_back()).provider == OPERATOR
    world.tsm.applet_exists = True
    assert world.visit("/mobile/prepare").state == "ready"
    assert len(world.tsm.delegations) == 1


def test_the_provisional_keys_are_forgotten_once_they_are_replaced(world: World) -> None:
    world.tsm.domain_exists = True
    world.visit(f"/mobile/prepare?iccid={ICCID}")
    provisional = f"card/{ICCID}/{DOMAIN}/01"
    assert world.keys.has(provisional)
    world.notify(1, data=b"\x02" + b"".join(check_values(world.new_keys())))
    assert not world.keys.has(provisional)


def test_a_rotation_that_nobody_confirmed_is_done_again(world: World) -> None:
    world.tsm.domain_exists = True
    world.visit(f"/mobile/prepare?iccid={ICCID}")
    world.visit(f"/mobile/prepare?iccid={ICCID}")
    first, second = (delegation.reception for delegation, _, _ in world.tsm.delegations)
    assert int(second) == int(first) + 1


def test_put_key_is_not_believed_when_the_card_names_other_check_values(world: World) -> None:
    world.tsm.domain_exists = True
    world.visit(f"/mobile/prepare?iccid={ICCID}")
    world.notify(1, data=b"\x02" + bytes(9))
    world.visit(f"/mobile/prepare?iccid={ICCID}")
    assert len(world.tsm.delegations) == 2


# --- personalisation ---


def store_data(commands: Sequence[bytes]) -> dict[int, bytes]:
    """The groupings in the STORE DATA commands, still encrypted."""
    blocks = [parse_command(CommandApdu.parse(command)) for command in commands[1:]]
    assert all(isinstance(block, StoreData) and block.encrypted for block in blocks)
    joined = b"".join(block.block for block in blocks if isinstance(block, StoreData))
    return {dgi.tag: dgi.value for dgi in parse_dgis(joined)}


def opened(dek: bytes, value: bytes) -> bytes:
    """As the applet does: 16 random octets before, 80 00 .. behind."""
    return unwrap_dek(dek, value)[16:].rstrip(b"\x00").removesuffix(b"\x80")


def test_what_is_delegated_personalises_the_applet_and_only_the_card_can_read_it(world: World) -> None:
    world.make_ready()
    assert world.personalise().state == "launch"
    delegation, iccid, correlation = world.tsm.delegations[-1]
    assert (iccid, correlation) == (ICCID, world.tsm.credential)
    groupings = store_data(delegation.commands)
    assert not any(PINS["signaturePin"].encode() in command for command in delegation.commands)
    memory = jpki.personalize({tag: opened(world.new_keys().dek, value) for tag, value in groupings.items()})
    assert memory is not None


@pytest.mark.parametrize(
    "wrong",
    [
        {"authenticationPin": "123"},
        {"authenticationPin": "12345"},
        {"authenticationPin": "１２３４"},
        {"signaturePin": "ABC12"},
        {"signaturePin": "ABCDEFGHIJKLMNOPQ"},
        {"signaturePin": "ABC 123"},
    ],
)
def test_pins_are_checked_before_the_access_code_is_tried(world: World, wrong: dict[str, str]) -> None:
    world.make_ready()
    page = world.personalise(**wrong)
    assert (page.state, "INVALID_INPUT" in page.text) == ("refused", True)
    assert world.tsm.checks == 0


def test_a_wrong_access_code_is_told_and_nothing_delegated(world: World) -> None:
    world.make_ready()
    page = world.personalise(accessCode="9999999999")
    assert "ACCESS_CODE_REFUSED" in page.text
    assert len(world.tsm.delegations) == 1


def test_a_form_of_another_card_is_refused(world: World) -> None:
    world.make_ready()
    assert world.personalise(iccid="8981100000000000028").status == 403


@pytest.mark.parametrize("body", [b"", b"iccid=1", b"\xff", b"x" * 5000, b"iccid=1&iccid=2&a=1&b=2&c=3"])
def test_a_body_that_is_not_the_form_is_refused(world: World, body: bytes) -> None:
    world.make_ready()
    assert read_page(world.browser.post("/mobile/personalise", content=body)).state == "refused"


def test_after_all_results_and_the_return_the_authority_destroys_its_copies(world: World) -> None:
    world.make_ready()
    world.personalise()
    assert world.tsm.receipts == []
    notify_all(world)
    assert world.tsm.receipts == []
    assert world.come_back().state == "written"
    assert world.tsm.receipts == [world.tsm.credential]


def test_what_the_authority_could_not_be_told_is_told_on_the_next_visit(world: World) -> None:
    world.make_ready()
    world.personalise()
    notify_all(world)
    world.authority_up = False
    assert world.come_back().state == "written"
    world.authority_up = True
    world.visit(f"/mobile/prepare?iccid={ICCID}")
    assert world.tsm.receipts == [world.tsm.credential]


def test_while_a_result_is_missing_the_copies_stay(world: World) -> None:
    world.make_ready()
    world.personalise()
    world.notify(1)
    assert world.come_back(Status.NOT_ALL_ACKNOWLEDGED).state == "pending"
    assert world.tsm.receipts == []


def test_a_late_result_settles_what_was_pending(world: World) -> None:
    world.make_ready()
    world.personalise()
    world.come_back(Status.NOT_ALL_ACKNOWLEDGED)
    notify_all(world)
    assert world.tsm.receipts == [world.tsm.credential]


def test_a_refused_command_is_told_and_the_copies_stay(world: World) -> None:
    world.make_ready()
    world.personalise()
    world.notify(1)
    world.notify(2, b"\x6a\x80", status=Status.CARD_REFUSED)
    page = world.come_back(Status.CARD_REFUSED)
    assert (page.state, "CARD_REFUSED" in page.text) == ("failed", True)
    assert world.tsm.receipts == []


def notify_all(world: World) -> None:
    for order in range(1, len(world.tsm.delegations[-1][0].commands) + 1):
        assert world.notify(order)


# --- the new certificate for signatures, after a hold ---


def write(world: World) -> None:
    """The first credential is on the card, and the authority's copies are destroyed."""
    world.make_ready()
    world.personalise()
    notify_all(world)
    world.come_back()


def hold_and_release(world: World, authority: Authority) -> bytes:
    """The new certificate."""
    held = authority.certificates(world.tsm.credential)
    named = [hashlib.sha256(der).hexdigest() for der in (held.authentication, held.signature)]
    authority.hold(HoldRequest(world.tsm.credential, *named))
    return authority.release(ReleaseRequest(world.tsm.credential, *named))


def test_after_a_hold_the_card_gets_the_new_signature_key_and_nothing_else(world: World, authority: Authority) -> None:
    write(world)
    first = store_data(world.tsm.delegations[-1][0].commands)
    certificate = hold_and_release(world, authority)
    assert world.visit(f"/mobile/renew?iccid={ICCID}").state == "launch"
    delegation, iccid, correlation = world.tsm.delegations[-1]
    assert (iccid, correlation) == (ICCID, world.tsm.credential)
    dek = world.new_keys().dek
    before, after = (
        {tag: opened(dek, value) for tag, value in groupings.items()}
        for groupings in (first, store_data(delegation.commands))
    )
    assert after[0x0101] == certificate
    assert after.keys() == jpki.RENEWAL_DGIS
    assert jpki.renew(jpki.personalize(before), after).pins == jpki.personalize(before).pins


def test_what_the_operator_had_waiting_comes_before_the_renewal(world: World, authority: Authority) -> None:
    write(world)
    hold_and_release(world, authority)
    world.tsm.operation_waits = True
    assert launched(world.visit(f"/mobile/renew?iccid={ICCID}")).provider == OPERATOR
    assert world.tsm.return_urls[-1] == f"{SITE}/mobile/renew"
    world.tsm.operation_waits = False
    assert launched(world.visit("/mobile/renew")).provider == PROVIDER


def test_the_copy_of_the_new_key_is_destroyed_once_it_is_written(world: World, authority: Authority) -> None:
    write(world)
    hold_and_release(world, authority)
    world.visit(f"/mobile/renew?iccid={ICCID}")
    notify_all(world)
    assert world.come_back().state == "written"
    assert world.tsm.receipts == [world.tsm.credential] * 2
    assert "UNKNOWN_KEY" in world.visit(f"/mobile/renew?iccid={ICCID}").text


def test_a_renewal_that_broke_off_is_begun_anew(world: World, authority: Authority) -> None:
    write(world)
    hold_and_release(world, authority)
    world.visit(f"/mobile/renew?iccid={ICCID}")
    world.notify(1, b"\x69\x85", status=Status.CARD_REFUSED)
    assert world.come_back(Status.CARD_REFUSED).state == "failed"
    assert world.visit(f"/mobile/renew?iccid={ICCID}").state == "launch"
    notify_all(world)
    assert world.come_back().state == "written"


def test_what_is_told_late_of_the_first_keys_leaves_the_new_one(world: World, authority: Authority) -> None:
    world.make_ready()
    world.personalise()
    notify_all(world)
    world.authority_up = False
    world.come_back()
    hold_and_release(world, authority)
    world.authority_up = True
    assert world.visit(f"/mobile/renew?iccid={ICCID}").state == "launch"
    assert world.tsm.receipts == [world.tsm.credential]


def test_without_a_hold_there_is_nothing_to_renew(world: World) -> None:
    write(world)
    assert "UNKNOWN_KEY" in world.visit(f"/mobile/renew?iccid={ICCID}").text
    assert len(world.tsm.delegations) == 2


def test_a_card_without_a_credential_has_nothing_to_renew(world: World) -> None:
    world.make_ready()
    page = world.visit(f"/mobile/renew?iccid={ICCID}")
    assert (page.state, "NOT_FOUND" in page.text) == ("refused", True)


# --- NOTIFY and RE-ACCESS from the wrong hands ---


@pytest.mark.parametrize(("certificate", "status"), [(None, 401), (PROVIDER_CERTIFICATE, 403)])
def test_only_the_server_may_notify(world: World, certificate: bytes | None, status: int) -> None:
    body = NotificationRequest(ReceptionNumber("2026112100000001"), 1, 1, "00", b"\x90\x00").encode()
    assert Caller(world.app, SITE, certificate).post("/notify", content=body).status_code == status


def test_a_repeated_notification_is_acknowledged_again_and_a_changed_one_is_not(world: World) -> None:
    world.rotate()
    same = b"\x02" + b"".join(check_values(world.new_keys()))
    assert world.notify(1, data=same)
    assert not world.notify(1, data=same, word=b"\x6a\x80")


def test_a_notification_for_a_reception_that_is_not_ours_is_not_acknowledged(world: World) -> None:
    body = NotificationRequest(ReceptionNumber("2026112199999999"), 1, 1, "00", b"\x90\x00").encode()
    response = Caller(world.app, SITE, TSM_CERTIFICATE).post("/notify", content=body)
    assert not NotificationResponse.parse(response.content).result


def test_a_forged_return_changes_nothing(world: World) -> None:
    world.make_ready()
    world.personalise()
    notify_all(world)
    reception = world.tsm.delegations[-1][0].reception
    forged = httpx.QueryParams(rcptNum=reception, masSign=base64.b64encode(bytes(64)).decode())
    page = world.visit(f"/mobile/return?{forged}")
    assert (page.state, page.status, "BAD_SIGNATURE" in page.text) == ("refused", 403, True)
    assert world.tsm.receipts == []


def test_secrets_are_found_in_none_of_the_providers_files(world: World, tmp_path: Path) -> None:
    world.make_ready()
    world.personalise()
    notify_all(world)
    world.come_back()
    secret = [value.encode() for value in (SLIP["accessCode"], SLIP["password"], PINS["signaturePin"])]
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert files and not any(value in content for value in secret for content in files)
