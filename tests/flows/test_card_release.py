"""At the counter: a card is locked at its holder's word, and released by who can prove to be its holder, or a clerk."""

from datetime import date, timedelta
from functools import partial
from itertools import cycle
from os import urandom

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from issuance_world import COUNTER, HANAKO, IssuanceWorld, key_pool
from mas_world import ICCID, OPERATOR, OTHER_ICCID, PROVIDER
from test_issuance import write

from tsm.errors import ErrorCode, TsmError
from tsm.flows.card_release import CardReleases
from tsm.flows.challenges import Challenges
from tsm.flows.erasure import Erasure
from tsm.flows.issuance import Counter
from tsm.flows.lines import Lines
from tsm.flows.revocation import Revocation
from tsm.jpki.certificates import Holder, Kind, read_certificate
from tsm.jpki.release import ReleaseDocument, SignedRelease
from tsm.model.credential import CredentialRevoked, PersonalizationDelegated, Stage
from tsm.model.event import Context
from tsm.model.line import Signal, SignalKind, SignalRecorded
from tsm.model.standing import CardCleared, Proof
from tsm.model.swap_policy import Level

ELSEWHERE = Counter("T-27100-01", "27100", "request-2")
TARO = Holder.of("見本太郎", "1", date(1980, 2, 3), "架空県見本市見本町1-2-3")
PERSON = Context(actor="alice", role="administrator", tenant="x", correlation="", person="alice", reason="why")


@pytest.fixture(autouse=True)
def in_haste(monkeypatch):
    monkeypatch.setattr("tsm.jpki.authority.new_key", partial(next, cycle(key_pool())))


class Desk:
    """The counter of a municipality, and a card with a credential."""

    def __init__(self, world):
        self.world = world
        tsm, clock = world.tsm, world.tsm.now
        self.lines = Lines(tsm, world.vault, clock, urandom)
        self.releases = CardReleases(tsm, self.lines, world.line, Challenges(world.vault, clock, urandom), clock)
        self.credential = world.apply().credential

    def lock(self, call="call-1", iccid=ICCID, counter=COUNTER, at=None):
        return self.releases.lock(iccid, call, at or self.world.clock(), counter)

    def signed(self, main=None, key=None, counter=COUNTER, **changes):
        main = main or self.world.main
        values = {"challenge": self.world.issuance.challenge(counter), "iccid": ICCID} | changes
        octets = ReleaseDocument(**values).encode()
        signature = (key or main.signature_key).sign(octets, padding.PKCS1v15(), hashes.SHA256())
        return SignedRelease(octets, signature, main.signature_certificate)

    def release(self, signed=None, counter=COUNTER):
        return self.releases.release(signed or self.signed(), counter)

    @property
    def level(self):
        return self.lines.standings.of(ICCID).level


@pytest.fixture
def world(tmp_path):
    world = IssuanceWorld(tmp_path)
    yield world
    world.close()


@pytest.fixture
def desk(world):
    return Desk(world)


def apply_as_a_thief(world):
    """His My Number card, and the slip for an application of his own for the card in the phone."""
    thief = world.authority.issue_main(TARO)
    own = world.document(applicant=TARO.name, challenge=world.issuance.challenge(ELSEWHERE))
    return thief, world.apply(world.signed(own, thief.signature_key, thief.signature_certificate), ELSEWHERE)


def delegate(world, slip):
    """A provider delegates for whatever card a browser names."""
    world.check(slip)
    world.record(f"credential-{slip.credential}", PersonalizationDelegated(reception="2026112100000001"))
    assert world.credential(slip.credential).in_use


def write_it(world, slip):
    world.check(slip)
    write(world, slip)
    world.follow()
    assert world.credential(slip.credential).stage is Stage.WRITTEN


def refused(code: ErrorCode):
    return pytest.raises(TsmError, check=lambda refusal: refusal.code is code)


# The owner's call


def test_the_holders_call_locks_the_card_before_it_is_answered(world, desk):
    position = desk.lock()
    assert desk.level is Level.LOCK
    filed = next(event for event in world.events() if event.position == position)
    assert isinstance(filed.fact, SignalRecorded)
    assert (filed.fact.kind, filed.fact.source, filed.context.actor) == (
        "LOCK_REQUESTED", "terminal:T-13101-01", "terminal:T-13101-01",
    )  # fmt: skip


def test_the_same_call_again_is_no_news_and_another_under_its_name_is_refused(world, desk):
    position, events = desk.lock(), len(world.events())
    assert desk.lock() == position
    assert len(world.events()) == events
    with refused(ErrorCode.COMMAND_REUSED):
        desk.lock(iccid=OTHER_ICCID)


def test_what_is_no_card_and_no_call_is_refused(world, desk):
    with refused(ErrorCode.UNKNOWN_CARD):
        desk.lock(iccid="8981100000000000036")
    for call, at in (
        ("", None),
        ("call 1", None),
        ("c", world.clock() + timedelta(hours=1)),
        ("c", world.clock().replace(tzinfo=None)),
    ):
        with refused(ErrorCode.INVALID_INPUT):
            desk.lock(call, at=at)
    assert desk.level is Level.NONE


# Release by the My Number card


def test_the_holder_of_the_my_number_card_releases_it(world, desk):
    desk.lock()
    signed = desk.signed()
    position = desk.release(signed)
    assert desk.level is Level.NONE
    cleared = next(event for event in world.events() if isinstance(event.fact, CardCleared))
    assert (cleared.fact.proof, cleared.fact.document_sha256) == ("MY_NUMBER_CARD", signed.digest)
    context = cleared.context
    assert (context.actor, context.role, context.request) == ("terminal:T-13101-01", "clerk", "request-1")
    assert (context.tenant, set(context.tenants)) == (OPERATOR, {"13101", PROVIDER})
    assert position >= cleared.position


def test_at_any_counter(world, desk):
    desk.lock()
    desk.release(desk.signed(counter=ELSEWHERE), ELSEWHERE)
    assert desk.level is Level.NONE


def test_what_was_signed_once_releases_once(world, desk):
    desk.lock()
    signed = desk.signed()
    position = desk.release(signed)
    world.clock.pass_by(seconds=1)
    desk.lock("call-2")
    assert desk.release(signed) == position
    assert desk.level is Level.LOCK
    world.clock.pass_by(minutes=10)
    with refused(ErrorCode.WRONG_ORDER):
        desk.release(signed)


@pytest.mark.parametrize(
    ("case", "code"),
    [
        ("another person's card", ErrorCode.FORBIDDEN),
        ("a renewed card of the same person", ErrorCode.FORBIDDEN),
        ("another card in the phone", ErrorCode.FORBIDDEN),
        ("a copied certificate", ErrorCode.BAD_SIGNATURE),
        ("another terminal's challenge", ErrorCode.WRONG_ORDER),
        ("a challenge that nobody gave", ErrorCode.WRONG_ORDER),
        ("a challenge of before", ErrorCode.WRONG_ORDER),
        ("an unknown card", ErrorCode.UNKNOWN_CARD),
        ("a revoked My Number card", ErrorCode.CERTIFICATE_REVOKED),
        ("no revocation list", ErrorCode.UPSTREAM_UNAVAILABLE),
        ("a revoked credential", ErrorCode.FORBIDDEN),
    ],
)
def test_nothing_else_releases_it(world, desk, case, code):
    desk.lock()
    signed = {
        "another person's card": lambda: desk.signed(world.authority.issue_main(TARO)),
        "a renewed card of the same person": lambda: desk.signed(world.authority.issue_main(HANAKO)),
        "another card in the phone": lambda: desk.signed(iccid=OTHER_ICCID),
        "a copied certificate": lambda: desk.signed(key=rsa.generate_private_key(65537, 2048)),
        "another terminal's challenge": lambda: desk.signed(counter=ELSEWHERE),
        "a challenge that nobody gave": lambda: desk.signed(challenge="1.2.3"),
        "an unknown card": lambda: desk.signed(iccid="8981100000000000036"),
    }.get(case, desk.signed)()
    if case == "a challenge of before":
        world.clock.pass_by(minutes=10)
    if case == "a revoked My Number card":
        serial = read_certificate(world.main.signature_certificate).serial_number
        world.authority.revoke(Kind.SIGNATURE, serial, x509.ReasonFlags.superseded)
    if case == "a revoked credential":
        Revocation(world.tsm, world.line).revoke(desk.credential, "superseded", PERSON)
    world.line.silent_lists = case == "no revocation list"
    with refused(code):
        desk.release(signed)
    assert desk.level is Level.LOCK


def test_a_card_that_is_not_on_hold_is_not_released(world, desk):
    with refused(ErrorCode.WRONG_ORDER):
        desk.release()


def test_nor_one_that_is_to_be_revoked(world, desk):
    gone = Signal(
        id="s-1", source="operator:MNO00001", kind=SignalKind.TERMINATED, occurred_at=world.clock(), iccid=ICCID
    )
    desk.lines.record([gone], Context(actor="operator:MNO00001", role="operator", tenant=OPERATOR, correlation=""))
    assert desk.level is Level.REVOKE
    with refused(ErrorCode.WRONG_ORDER):
        desk.release()
    with refused(ErrorCode.WRONG_ORDER):
        desk.releases.release_by_clerk(ICCID, "visit-1", "she was here", COUNTER)


def is_refused_at_any_counter(desk, thief):
    with refused(ErrorCode.FORBIDDEN):
        desk.release(desk.signed(thief))
    with refused(ErrorCode.FORBIDDEN):
        desk.releases.release_by_clerk(ICCID, "visit-1", "he has papers", ELSEWHERE)


@pytest.mark.parametrize("goes_on", [False, True])
def test_whoever_has_stolen_it_gains_nothing_by_an_application_of_his_own(world, desk, goes_on):
    write_it(world, world.apply())
    thief, his = apply_as_a_thief(world)
    if goes_on:
        delegate(world, his)
    desk.lock()
    is_refused_at_any_counter(desk, thief)
    desk.release()
    assert desk.level is Level.NONE


@pytest.mark.parametrize("goes_on", [False, True])
@pytest.mark.parametrize("erased", [False, True])
def test_nor_does_he_when_its_holder_has_had_her_credential_revoked(world, desk, erased, goes_on):
    """Whoever reports a loss does that first; and her person may be erased then."""
    slip = world.apply()
    write_it(world, slip)
    for credential in (slip.credential, desk.credential):
        Revocation(world.tsm, world.line).revoke(credential, "keyCompromise", PERSON)
    if erased:
        world.record(f"credential-{slip.credential}", CredentialRevoked(reason="keyCompromise"))
        Erasure(world.tsm, world.vault).erase(slip.credential, PERSON)
    thief, his = apply_as_a_thief(world)
    if goes_on:
        delegate(world, his)
    desk.lock()
    is_refused_at_any_counter(desk, thief)
    assert desk.level is Level.LOCK


def test_the_holder_of_a_revoked_credential_releases_the_card_that_it_is_in(world, desk):
    slip = world.apply()
    write_it(world, slip)
    desk.lock()
    Revocation(world.tsm, world.line).revoke(slip.credential, "superseded", PERSON)
    desk.release()
    assert desk.level is Level.NONE
    world.clock.pass_by(seconds=1)
    desk.lock("call-2")
    desk.releases.release_by_clerk(ICCID, "visit-1", "papers seen", COUNTER)
    assert desk.level is Level.NONE


def test_the_card_of_an_erased_person_is_released_at_no_counter(world, desk):
    slip = world.apply()
    write_it(world, slip)
    desk.lock()
    Erasure(world.tsm, world.vault).erase(slip.credential, PERSON, even_in_use=True)
    with refused(ErrorCode.FORBIDDEN):  # though her other application is still there
        desk.release()
    with refused(ErrorCode.FORBIDDEN):
        desk.releases.release_by_clerk(ICCID, "visit-1", "papers seen", COUNTER)
    desk.lines.standings.release(ICCID, Proof.OPERATOR, "", PERSON)
    assert desk.level is Level.NONE


def test_of_several_that_are_revoked_the_one_that_was_written_last_decides(world, desk):
    former, his = apply_as_a_thief(world)
    write_it(world, his)
    hers = world.apply()
    write_it(world, hers)
    desk.lock()
    for credential in (hers.credential, his.credential):
        Revocation(world.tsm, world.line).revoke(credential, "superseded", PERSON)
    with refused(ErrorCode.FORBIDDEN):
        desk.release(desk.signed(former))
    desk.release()
    assert desk.level is Level.NONE


# Release by a clerk


def test_a_clerk_of_the_municipality_releases_with_a_reason(world, desk):
    desk.lock()
    desk.releases.release_by_clerk(ICCID, "visit-1", "papers seen, the My Number card was renewed", COUNTER)
    assert desk.level is Level.NONE
    (cleared,) = [event for event in world.events() if isinstance(event.fact, CardCleared)]
    assert (cleared.fact.proof, cleared.fact.document_sha256) == ("CLERK", "")
    assert cleared.context.reason == "papers seen, the My Number card was renewed"


def test_what_a_clerk_said_once_releases_once(world, desk):
    """A terminal that heard no answer asks again, and the next alarm may have come in between."""
    desk.lock()
    position = desk.releases.release_by_clerk(ICCID, "visit-1", "papers seen", COUNTER)
    world.clock.pass_by(seconds=1)
    desk.lock("call-2")
    assert desk.releases.release_by_clerk(ICCID, "visit-1", "papers seen", COUNTER) == position
    assert desk.level is Level.LOCK
    with refused(ErrorCode.COMMAND_REUSED):
        desk.releases.release_by_clerk(ICCID, "visit-1", "seen again", COUNTER)
    for visit in ("", "visit 1", "v" * 65):
        with refused(ErrorCode.INVALID_INPUT):
            desk.releases.release_by_clerk(ICCID, visit, "papers seen", COUNTER)
    desk.releases.release_by_clerk(ICCID, "visit-2", "seen again", COUNTER)
    assert desk.level is Level.NONE


@pytest.mark.parametrize(
    ("iccid", "reason", "counter", "code"),
    [
        (ICCID, "", COUNTER, ErrorCode.INVALID_INPUT),
        (ICCID, "she was here", ELSEWHERE, ErrorCode.FORBIDDEN),
        (OTHER_ICCID, "she was here", COUNTER, ErrorCode.FORBIDDEN),
        ("8981100000000000036", "she was here", COUNTER, ErrorCode.UNKNOWN_CARD),
    ],
)
def test_nobody_else_does(world, desk, iccid, reason, counter, code):
    desk.lock()
    with refused(code):
        desk.releases.release_by_clerk(iccid, "visit-1", reason, counter)
    assert desk.level is Level.LOCK


def test_nothing_personal_of_it_is_in_the_log(world, desk):
    desk.lock()
    desk.release()
    stored = b"".join(recorded.state for recorded in world.recorder.select_notifications(1, 10_000))
    serial = f"{read_certificate(world.main.signature_certificate).serial_number:X}"
    assert HANAKO.name.encode() not in stored
    assert serial.encode() not in stored and serial.lower().encode() not in stored
