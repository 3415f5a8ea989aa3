"""Who is calling: a certificate of the parties' authority, and an enrolment by that very certificate."""

from datetime import timedelta

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from starlette.requests import Request

from api.access import Access, Caller
from api.certificates import certify, create_authority, fingerprint, request
from projections.viewer import EVERYTHING, Viewer
from tests.flows.mas_world import OPERATOR, PROVIDER, World
from tsm.errors import ErrorCode, TsmError
from tsm.model.event import Context
from tsm.model.terminal import TerminalEnrolled, evolve, stream


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ca")
    create_authority(folder)
    return folder


@pytest.fixture
def make(authority, tmp_path):
    def make(party, role, tenant=""):
        return certify(authority, request(tmp_path / f"{party}-{role}", party).read_bytes(), party, role, [], tenant)

    return make


def shown(pem):
    der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER) if pem else None
    return Request({"type": "http", "extensions": {"tls": {"client_cert_der": der}}})


def refused(code, access, pem, *roles):
    with pytest.raises(TsmError) as refusal:
        access.demand(shown(pem), *roles)
    assert refusal.value.code == code


@pytest.fixture
def enrolled(make):
    return {OPERATOR: make(OPERATOR, "operator"), PROVIDER: make(PROVIDER, "provider"), "T-1": make("T-1", "terminal")}


@pytest.fixture
def access(tmp_path, enrolled):
    (tmp_path / "world").mkdir()
    world = World(tmp_path / "world", fingerprints={name: fingerprint(pem) for name, pem in enrolled.items()})
    terminal = TerminalEnrolled(
        terminal="T-1", municipality="13101", certificate_fingerprint=fingerprint(enrolled["T-1"])
    )
    world.record(stream("T-1"), terminal)
    yield Access(world.tsm)
    world.close()


def test_an_enrolled_party_is_who_its_certificate_says(access, enrolled):
    caller = access.demand(shown(enrolled[OPERATOR]), "operator")
    assert caller == Caller(
        OPERATOR, "operator", OPERATOR, Viewer("operator", OPERATOR), "", f"operator:{OPERATOR}", caller.expires_at
    )
    assert caller.actor == f"operator:{OPERATOR}"
    assert access.demand(shown(enrolled[PROVIDER]), "operator", "provider").party == PROVIDER


def test_a_terminal_acts_for_its_municipality(access, enrolled):
    caller = access.caller(shown(enrolled["T-1"]))
    assert (caller.party, caller.role, caller.tenant) == ("T-1", "terminal", "13101")
    assert caller.viewer == Viewer("municipality", "13101")


def test_an_auditor_is_admitted_by_its_role_for_all_unless_a_tenant_is_named(access, make):
    caller = access.demand(shown(make("A-1", "auditor")), "auditor")
    assert (caller.actor, caller.tenant, caller.viewer) == ("auditor:A-1", "", EVERYTHING)
    caller = access.caller(shown(make("A-2", "auditor", f"provider:{PROVIDER}")))
    assert (caller.actor, caller.tenant) == (f"auditor:{PROVIDER}/A-2", PROVIDER)
    assert caller.viewer == Viewer("provider", PROVIDER)


@pytest.mark.parametrize("tenant", ["provider:NOBODY01", "Some Company", "terminal:T-1", "provider:", "*x"])
def test_an_auditor_of_a_tenant_that_is_none_is_nobody(access, make, tenant):
    refused(ErrorCode.FORBIDDEN, access, make("A-3", "auditor", tenant), "auditor")


def test_only_an_auditor_has_a_tenant_in_the_certificate(make):
    with pytest.raises(TsmError) as refusal:
        make("MNO00009", "operator", "operator:MNO00009")
    assert refusal.value.code == ErrorCode.INVALID_INPUT


def test_without_a_certificate_nobody_is_anybody(access):
    refused(ErrorCode.UNAUTHENTICATED, access, None, "operator")
    with pytest.raises(TsmError):
        access.caller(Request({"type": "http"}))


def test_another_certificate_under_an_enrolled_name_is_not_that_party(access, make):
    refused(ErrorCode.UNAUTHENTICATED, access, make(OPERATOR, "operator"), "operator")
    refused(ErrorCode.UNAUTHENTICATED, access, make("MNO00002", "operator"), "operator")


def test_a_replaced_certificate_opens_nothing_from_that_moment_and_a_withdrawn_one_neither(access, make, enrolled):
    new, stream_of = make("T-1", "terminal"), stream("T-1")
    context = Context(actor="t", role="administrator", tenant="t", correlation="t")
    terminal = access._tsm.load(stream_of, evolve).state
    renewed = msgspec.structs.replace(terminal, certificate_fingerprint=fingerprint(new))
    access._tsm.enrol_terminal(renewed, context)
    refused(ErrorCode.UNAUTHENTICATED, access, enrolled["T-1"], "terminal")
    assert access.demand(shown(new), "terminal").party == "T-1"
    access._tsm.withdraw(stream_of, evolve, context)
    refused(ErrorCode.UNAUTHENTICATED, access, new, "terminal")
    refused(ErrorCode.UNAUTHENTICATED, access, enrolled["T-1"], "terminal")


def test_a_certificate_that_expires_opens_nothing_though_the_connection_goes_on(access, make, enrolled):
    auditor, clock = make("A-1", "auditor"), access._tsm._clock
    end = max(access.caller(shown(pem)).expires_at for pem in (auditor, enrolled[OPERATOR]))
    clock.now = end - timedelta(minutes=1)
    assert access.demand(shown(auditor), "auditor").party == "A-1"
    clock.now = end
    refused(ErrorCode.UNAUTHENTICATED, access, auditor, "auditor")
    refused(ErrorCode.UNAUTHENTICATED, access, enrolled[OPERATOR], "operator")


def test_a_role_is_only_good_for_what_it_is_for(access, make, enrolled):
    refused(ErrorCode.FORBIDDEN, access, enrolled["T-1"], "operator", "provider")
    refused(ErrorCode.FORBIDDEN, access, make("A-1", "auditor"), "operator")
    refused(ErrorCode.FORBIDDEN, access, make("tsm-server", "server"), "operator", "server")
    refused(ErrorCode.UNAUTHENTICATED, access, make(OPERATOR, "provider"), "provider")
