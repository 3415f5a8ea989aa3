"""Who is calling by a token: roles and whose eyes they have, certificates that tokens are bound to, service tokens."""

import base64
import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from os import urandom
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from starlette.requests import Request

from api import local_login
from api.access import TENANTS, Access, viewer_of
from api.certificates import certify, create_authority, fingerprint, request
from api.issuer_keys import IssuerKeys
from api.service_tokens import ServiceTokens
from api.tokens import Issuer
from projections.viewer import EVERYTHING, NOTHING, Viewer
from tests.api.jwt_signer import AUDIENCE, ISSUER, NOW, Signer, claims_of, key_set
from tests.flows.mas_world import OPERATOR, PROVIDER, World
from tsm.errors import ErrorCode, TsmError
from tsm.model import operator, service_provider
from tsm.model.event import Context

SIGNER = Signer.elliptic("ec")
OURS = "https://tsm.example"
CONTEXT = Context(actor="administrator:console", role="administrator", tenant="t", correlation="t")


@dataclass
class Door:
    """A server's access, and who knocks."""

    world: Any
    access: Access
    tokens: ServiceTokens
    ders: dict[str, bytes]

    def knock(self, token=None, certificate=None, headers=None):
        given = [(b"authorization", f"Bearer {token}".encode())] if token else []
        return self.access.of(scope(headers or given, self.ders.get(certificate)))

    def refused(self, code=ErrorCode.UNAUTHENTICATED, **knock):
        with pytest.raises(TsmError) as refusal:
            self.knock(**knock)
        assert refusal.value.code == code
        return refusal.value

    def issue(self, role="operator", tenant=f"operator:{OPERATOR}", **life):
        end = self.world.clock() + timedelta(**(life or {"days": 1}))
        return self.tokens.issue("a test", role, tenant, end, CONTEXT, urandom)


def scope(headers, der, kind="http"):
    return {"type": kind, "headers": headers, "extensions": {"tls": {"client_cert_der": der}}}


@pytest.fixture
def door(tmp_path):
    create_authority(tmp_path / "ca")
    pems = {
        name: certify(tmp_path / "ca", request(tmp_path / name, name).read_bytes(), name, role, [])
        for name, role in {OPERATOR: "operator", PROVIDER: "provider", "A-1": "auditor"}.items()
    }
    (tmp_path / "world").mkdir()
    world = World(tmp_path / "world", fingerprints={name: fingerprint(pem) for name, pem in pems.items()})
    (tmp_path / "set.json").write_bytes(key_set(SIGNER))
    with ThreadPoolExecutor(1) as threads:
        issuers = [
            Issuer(ISSUER, AUDIENCE, ("ES256",), IssuerKeys("set.json", tmp_path, threads), world.tsm.now),
            local_login.issuer(world.vault, OURS, world.tsm.now),
        ]
        ders = {name: x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER) for name, pem in pems.items()}
        yield Door(world, Access(world.tsm, issuers), ServiceTokens(world.tsm), ders)
    world.close()


def token_of(role, tenant, **changes):
    return SIGNER.token(claims_of(roles=[role], tenant=tenant, **changes))


# --- Roles and tenants ---


@pytest.mark.parametrize(
    ("role", "tenant", "viewer", "actor"),
    [
        ("operator", f"operator:{OPERATOR}", Viewer("operator", OPERATOR), f"operator:{OPERATOR}/alice"),
        ("provider", f"provider:{PROVIDER}", Viewer("provider", PROVIDER), f"provider:{PROVIDER}/alice"),
        ("clerk", "municipality:千代田区", Viewer("municipality", "千代田区"), "clerk:千代田区/alice"),
        ("auditor", "*", EVERYTHING, "auditor:alice"),
        ("auditor", f"provider:{PROVIDER}", Viewer("provider", PROVIDER), f"auditor:{PROVIDER}/alice"),
        ("auditor", "municipality:13101", Viewer("municipality", "13101"), "auditor:13101/alice"),
        ("security-officer", "*", EVERYTHING, "security-officer:alice"),
        (
            "security-officer",
            f"operator:{OPERATOR}",
            Viewer("operator", OPERATOR),
            f"security-officer:{OPERATOR}/alice",
        ),
        ("administrator", "*", NOTHING, "administrator:alice"),
    ],
)
def test_a_role_sees_with_the_eyes_of_its_tenant(door, role, tenant, viewer, actor):
    caller = door.knock(token_of(role, tenant))
    assert (caller.role, caller.viewer, caller.actor) == (role, viewer, actor)
    assert caller.tenant == viewer.party
    assert caller.client == f"{ISSUER}|console|alice"
    assert caller.expires_at.timestamp() == NOW + 600


@pytest.mark.parametrize(
    ("role", "tenant"),
    [
        ("operator", "*"),
        ("operator", f"provider:{PROVIDER}"),
        ("operator", "municipality:13101"),
        ("provider", f"operator:{OPERATOR}"),
        ("clerk", "*"),
        ("clerk", f"operator:{OPERATOR}"),
        ("administrator", f"operator:{OPERATOR}"),
        ("security-officer", "municipality:13101"),
        ("operator", "operator:"),
        ("operator", "operator"),
        ("operator", ":MNO00001"),
        ("auditor", "*:MNO00001"),
        ("auditor", "everything"),
        ("auditor", "terminal:T-1"),
        ("auditor", "authority:jpki"),
        ("clerk", "municipality:13101/bob"),
        ("clerk", "municipality:131\n01"),
    ],
)
def test_a_role_and_a_tenant_that_do_not_fit_open_nothing(door, role, tenant):
    door.refused(ErrorCode.FORBIDDEN, token=token_of(role, tenant))
    with pytest.raises(TsmError) as refusal:
        viewer_of(role, tenant)
    assert refusal.value.code == ErrorCode.FORBIDDEN


def test_a_role_without_a_row_in_the_table_has_no_eyes():
    for role in ("terminal", "authority", "server", ""):
        with pytest.raises(TsmError):
            viewer_of(role, "*")
    assert "terminal" not in TENANTS


def test_people_of_a_party_that_is_not_enrolled_are_nobody(door):
    for role, tenant in (("operator", "operator:MNO00009"), ("auditor", f"operator:{PROVIDER}")):
        door.refused(ErrorCode.FORBIDDEN, token=token_of(role, tenant))


def test_a_withdrawn_party_takes_its_people_and_programs_with_it_at_once(door):
    person, program = token_of("provider", f"provider:{PROVIDER}"), door.issue("provider", f"provider:{PROVIDER}").token
    assert door.knock(person).party == door.knock(program).party == PROVIDER
    door.world.tsm.withdraw(service_provider.stream(PROVIDER), service_provider.evolve, CONTEXT)
    door.refused(ErrorCode.FORBIDDEN, token=person)
    door.refused(ErrorCode.FORBIDDEN, token=program)
    assert door.knock(token_of("operator", f"operator:{OPERATOR}"))


# --- Token and certificate ---


def test_a_token_names_the_caller_whatever_certificate_is_shown(door):
    for certificate in (None, OPERATOR, PROVIDER, "A-1"):
        assert door.knock(token_of("auditor", "*"), certificate).actor == "auditor:alice"
    assert door.knock(certificate=OPERATOR).actor == f"operator:{OPERATOR}"


def test_a_bad_token_is_refused_even_where_the_certificate_would_do(door):
    for token in ("nonsense", "tsm_nonsense", token_of("auditor", "*", exp=NOW - 100), door.issue().token[:-1] + "!"):
        door.refused(token=token, certificate=OPERATOR)


def test_a_bound_token_counts_with_its_certificate_only(door):
    thumbprint = base64.urlsafe_b64encode(hashlib.sha256(door.ders[OPERATOR]).digest()).rstrip(b"=").decode()
    bound = token_of("operator", f"operator:{OPERATOR}", cnf={"x5t#S256": thumbprint})
    assert door.knock(bound, OPERATOR).person == "alice"
    for certificate in (PROVIDER, None):  # and that it is known by now changes nothing
        door.refused(token=bound, certificate=certificate)
    for other in (thumbprint.lower(), thumbprint + "=", hashlib.sha256(door.ders[OPERATOR]).hexdigest(), "*"):
        door.refused(token=token_of("operator", "operator:MNO00001", cnf={"x5t#S256": other}), certificate=OPERATOR)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"Bearer",
        b"Bearer ",
        b"Basic YTpi",
        b"Bearer a b",
        b"Bearer\ta",
        b"bearer=a",
        b"Bearer a,b",
        b"\xff",
        b"DPoP a",
    ],
)
def test_an_authorization_header_that_is_no_bearer_token_is_refused(door, header):
    door.refused(headers=[(b"authorization", header)], certificate=OPERATOR)


def test_two_tokens_are_none(door):
    token = b"Bearer " + token_of("auditor", "*").encode()
    assert door.knock(headers=[(b"authorization", token)])
    assert door.knock(headers=[(b"authorization", b"bEaReR" + token[6:])])
    door.refused(headers=[(b"authorization", token), (b"authorization", token)])


def test_a_websocket_has_the_same_door(door):
    token = token_of("auditor", "*").encode()
    assert door.access.of(scope([(b"authorization", b"Bearer " + token)], None, "websocket")).actor == "auditor:alice"
    assert door.access.of(scope([], door.ders[OPERATOR], "websocket")).party == OPERATOR
    assert door.access.of({"type": "websocket", "headers": [(b"authorization", b"Bearer " + token)]}).role == "auditor"


def test_the_interfaces_between_machines_take_certificates_only(door):
    """A token in the header neither opens them nor stands in the way."""
    headers = [(b"authorization", f"Bearer {token_of('operator', f'operator:{OPERATOR}')}".encode())]
    with pytest.raises(TsmError) as refusal:
        door.access.demand(Request(scope(headers, None)), "operator")
    assert refusal.value.code == ErrorCode.UNAUTHENTICATED
    assert door.access.demand(Request(scope(headers, door.ders[OPERATOR])), "operator").person == ""


# --- Service tokens ---


def test_a_service_token_is_who_it_was_issued_for(door):
    issued = door.issue("provider", f"provider:{PROVIDER}", hours=2)
    caller = door.knock(issued.token)
    assert caller.actor == f"provider:{PROVIDER}/service-token-{issued.id}"
    assert (caller.tenant, caller.viewer) == (PROVIDER, Viewer("provider", PROVIDER))
    assert caller.client == f"service-token:{issued.id}"
    assert caller.expires_at == door.world.clock() + timedelta(hours=2)


def test_a_service_token_opens_nothing_from_the_moment_it_is_revoked_here_or_by_another_process(door):
    one, two, three = door.issue(), door.issue(), door.issue()
    assert all(door.knock(issued.token) for issued in (one, two, three))
    door.tokens.revoke(one.id, CONTEXT)
    door.refused(token=one.token)
    _, other, _ = door.world.worker()
    ServiceTokens(other).revoke(two.id, CONTEXT)
    other.close()
    door.refused(token=two.token)
    assert door.knock(three.token)
    assert door.tokens.revoke(one.id, CONTEXT)  # once more is no news
    assert [(token.id, token.revoked) for token in door.tokens.all()] == [
        (one.id, True),
        (two.id, True),
        (three.id, False),
    ]


def test_a_service_token_ends_when_it_was_said_to(door):
    issued = door.issue(minutes=5)
    door.world.clock.pass_by(minutes=4, seconds=59)
    assert door.knock(issued.token)
    door.world.clock.pass_by(seconds=1)
    door.refused(token=issued.token)


def test_only_the_whole_secret_of_that_very_token_opens(door):
    one, two = door.issue(), door.issue()
    secret = one.token.rpartition(one.id + "_")[2]
    for token in (
        one.token[:-1] + ("A" if one.token[-1] != "A" else "B"),
        one.token[:-1],
        one.token + "A",
        one.token.upper(),
        f"tsm_{two.id}_{secret}",
        f"tsm_{one.id}_" + hashlib.sha256(secret.encode()).hexdigest()[:43],
        f"tsm_{one.id}_",
        f"tsm_{'0' * 16}_{secret}",
        f"tsm_../../{one.id}_{secret}",
        "tsm_",
    ):
        door.refused(token=token)
    assert door.knock(one.token)


def test_a_service_token_for_nothing_or_for_the_past_is_not_issued_and_an_unknown_one_not_revoked(door):
    for wrong in ({"name": ""}, {"name": "x" * 201}, {"expires_at": door.world.clock()}):
        values = {
            "name": "n",
            "role": "auditor",
            "tenant": "*",
            "expires_at": door.world.clock() + timedelta(1),
            **wrong,
        }
        with pytest.raises(TsmError) as refusal:
            door.tokens.issue(**values, context=CONTEXT, random=urandom)
        assert refusal.value.code == ErrorCode.INVALID_INPUT
    with pytest.raises(TsmError) as refusal:
        door.tokens.revoke("0" * 16, CONTEXT)
    assert refusal.value.code == ErrorCode.NOT_FOUND
    issued = door.issue()
    with pytest.raises(TsmError) as refusal:
        door.tokens.issue("n", "auditor", "*", door.world.clock() + timedelta(1), CONTEXT, _Again(issued.id))
    assert refusal.value.code == ErrorCode.ALREADY_EXISTS


class _Again:
    """Randomness that draws an id again."""

    def __init__(self, id):
        self.id = id

    def __call__(self, octets):
        return bytes.fromhex(self.id) if octets == 8 else urandom(octets)


# --- The local login ---


def signed_here(door, role="administrator", tenant="*", person="console", minutes=60):
    return local_login.sign(
        door.world.vault,
        OURS,
        role,
        tenant,
        person,
        timedelta(minutes=minutes),
        door.world.tsm.now(),
        urandom(16).hex(),
    )


def test_a_local_login_is_a_token_like_any_other(door):
    caller = door.knock(signed_here(door))
    assert (caller.actor, caller.viewer) == ("administrator:console", NOTHING)
    assert caller.client == f"{OURS}|tsm-admin|console"
    assert door.knock(signed_here(door, "operator", f"operator:{OPERATOR}", "bob")).actor == f"operator:{OPERATOR}/bob"


def test_a_local_login_ends(door):
    token = signed_here(door, minutes=1)
    assert door.knock(token)
    door.world.clock.pass_by(minutes=1, seconds=30)
    door.refused(token=token)


def test_a_server_without_a_local_login_takes_no_token_of_its_own_key(door):
    token = signed_here(door)
    assert door.knock(token)
    with pytest.raises(TsmError) as refusal:
        Access(door.world.tsm).of(scope([(b"authorization", f"Bearer {token}".encode())], None))
    assert refusal.value.code == ErrorCode.UNAUTHENTICATED


def test_a_token_that_claims_to_be_ours_is_signed_by_our_key_or_refused(door):
    signed_here(door)
    claims = claims_of(iss=OURS, aud=OURS)
    for kid in ("local-login", "ec"):
        door.refused(token=SIGNER.token(claims, kid=kid))


def test_before_the_first_local_login_there_is_no_key_that_could_have_signed(door):
    door.refused(token=SIGNER.token(claims_of(iss=OURS, aud=OURS), kid="local-login"))


# --- What is left behind ---


def test_no_token_secret_or_key_appears_in_events_logs_or_errors(door, caplog, tmp_path):
    caplog.set_level("DEBUG")
    issued, local, person = door.issue(), signed_here(door), token_of("operator", f"operator:{OPERATOR}")
    said = ""
    for token in (issued.token, local, person):
        assert door.knock(token)
        for wrong in (token[:-2], token + "A", token[:40]):
            said += str(door.refused(token=wrong))
    door.tokens.revoke(issued.id, CONTEXT)
    said += str(door.refused(token=issued.token))
    door.world.clock.pass_by(hours=2)
    said += str(door.refused(token=local)) + str(door.refused(token=person)) + caplog.text
    secrets = [
        issued.token.removeprefix(f"tsm_{issued.id}_"),
        *(part for token in (local, person) for part in token.split(".")),
    ]
    stored = b"".join(path.read_bytes() for path in (tmp_path / "world").rglob("*") if path.is_file())
    assert issued.id.encode() in stored  # what is looked for would be found
    for secret in secrets:
        assert secret not in said
        assert secret.encode() not in stored


def test_the_parties_that_the_tests_use_are_enrolled(door):
    """Else the refusals above would prove nothing."""
    for model, party in ((operator, OPERATOR), (service_provider, PROVIDER)):
        assert door.world.tsm.load(model.stream(party), model.evolve).state.certificate_fingerprint
