"""The registry: what there is now, and whose it is, from whatever pages the events came in."""

import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from projections.folding import fold, retry
from projections.projection import Row, Rows
from projections.registry import REGISTRY
from projections.registry.key_history import key_history
from projections.registry.listings import (
    APPLICATIONS,
    CARDS,
    CATALOGUE,
    CREDENTIALS,
    DELEGATIONS,
    DOMAINS,
    KEYS,
    LISTINGS,
    LOAD_FILES,
    OPERATIONS,
    PARTIES,
    SESSIONS,
    Listing,
    R,
    counts,
    find,
    page,
)
from projections.registry.rows import key
from projections.runner import Runner
from projections.sqlite import SQLiteViews
from projections.viewer import EVERYTHING, Viewer
from projections.views import Views
from tests.projections.conftest import MakeViews
from tests.projections.read_models import contents
from tests.projections.registry_story import (
    APPLICATION,
    BANK,
    BANK_DOMAIN,
    CARD,
    CREDENTIAL,
    ISD,
    JPKI,
    JPKI_DOMAIN,
    LOAD_FILE,
    MNO,
    OTHER_CARD,
    OTHER_MNO,
    SECRETS,
    Story,
    reception_of,
    tell_all,
)
from tsm.model import card, credential, session
from tsm.model.credential import Stage
from tsm.model.event import Event, Fact
from tsm.model.operation import OperationKind, OperationPutBack
from tsm.model.party import CertificateReplaced, CertificateWithdrawn

Chapter = Callable[[Story], None]


@pytest.fixture
def story() -> Story:
    return Story()


@pytest.fixture
def views(make_views: MakeViews) -> Views:
    return make_views(REGISTRY)


def read(views: Views, story: Story) -> None:
    Runner(story, views).catch_up()
    assert views.parked(REGISTRY) == []


def everything(views: Views, listing: Listing[R], **where: str | int) -> list[R]:
    return page(views, listing, EVERYTHING, where, 0, None, 1000)


def the(views: Views, listing: Listing[R], *parts: str | int) -> R:
    row = find(views, listing, EVERYTHING, key(*parts))
    assert row is not None
    return row


def assert_rebuilt_the_same(views: Views, story: Story, make_views: MakeViews) -> None:
    again = make_views(REGISTRY, anew=True)
    read(again, story)
    assert contents(again) == contents(views)


# What there is


def test_every_list_has_rows_of_a_story_that_has_everything(story: Story, views: Views) -> None:
    read(views, tell_all(story))

    assert {name: len(everything(views, listing)) for name, listing in LISTINGS.items()} == {
        "cards": 3,
        "domains": 7,
        "load_files": 3,
        "applications": 3,
        "keys": 7,
        "credentials": 3,
        "parties": 7,
        "catalogue": 1,
        "delegations": 6,
        "sessions": 6,
        "operations": 4,
        "alerts": 3,
        "standings": 3,
    }


def test_a_card_is_what_its_registration_says_and_knows_its_last_change(story: Story, views: Views) -> None:
    story.card()
    story.domain()
    read(views, story)

    assert the(views, CARDS, CARD)._asdict() == {
        "iccid": CARD, "operator": MNO, "profile": "DEMO-1", "isd": ISD, "position": 1, "changed": 2,
    }  # fmt: skip
    issuers = the(views, DOMAINS, CARD, ISD)
    assert (issuers.provider, issuers.parent, issuers.life_cycle, issuers.key_version) == ("", "", "SECURED", 0x30)
    [made] = everything(views, KEYS)
    assert (made.domain, made.version, made.current, made.party, made.session) == (ISD, 0x30, 1, "", "")


def test_a_domain_is_as_its_card_acknowledged(story: Story, views: Views) -> None:
    story.provider()
    story.card()
    story.domain()
    story.keys(1, provisional=True)
    story.content()
    story.on_card(card.CardAuthenticationFailed(domain=JPKI_DOMAIN, key_version=1, failures=3))
    read(views, story)

    domain = the(views, DOMAINS, CARD, JPKI_DOMAIN)
    assert (domain.operator, domain.provider, domain.parent, domain.privileges) == (MNO, JPKI, ISD, "800000")
    assert (domain.life_cycle, domain.key_version, domain.provisional) == ("PERSONALIZED", 1, 1)
    assert (domain.size, domain.failures, domain.removed) == (1234, 3, 0)
    load_file, application = the(views, LOAD_FILES, CARD, LOAD_FILE), the(views, APPLICATIONS, CARD, APPLICATION)
    assert (load_file.domain, load_file.sha256, load_file.size) == (JPKI_DOMAIN, "ef" * 32, 1234)
    assert (application.load_file, application.life_cycle) == (LOAD_FILE, "PERSONALIZED")

    story.on_card(
        card.CardReleased(domain=JPKI_DOMAIN, reason="the holder is at the counter"),
        card.LifeCycleChanged(instance=JPKI_DOMAIN, domain=ISD, life_cycle="LOCKED"),
        card.LifeCycleChanged(instance=APPLICATION, domain=JPKI_DOMAIN, life_cycle="LOCKED"),
    )
    read(views, story)
    domain = the(views, DOMAINS, CARD, JPKI_DOMAIN)
    assert (domain.failures, domain.life_cycle) == (0, "LOCKED")
    assert the(views, APPLICATIONS, CARD, APPLICATION).life_cycle == "LOCKED"


def test_an_application_that_came_with_the_card_is_known_without_what_it_is_made_of(story: Story, views: Views) -> None:
    story.card()
    story.on_card(card.LifeCycleChanged(instance=APPLICATION, domain=ISD, life_cycle="SELECTABLE", found=True))
    read(views, story)

    application = the(views, APPLICATIONS, CARD, APPLICATION)
    assert (application.module, application.load_file, application.life_cycle) == ("", "", "SELECTABLE")
    assert application.seen_by == MNO


def test_a_load_file_that_replaces_another_takes_its_room(story: Story, views: Views) -> None:
    story.card()
    story.domain()
    story.content()
    story.on_card(card.LoadFileLoaded(load_file=LOAD_FILE, domain=ISD, sha256="01" * 32, size=100))
    read(views, story)

    assert the(views, DOMAINS, CARD, JPKI_DOMAIN).size == 0
    assert the(views, DOMAINS, CARD, ISD).size == 100
    assert the(views, LOAD_FILES, CARD, LOAD_FILE).domain == ISD


# What was deleted


def test_what_was_deleted_is_found_but_not_listed_and_does_not_count(story: Story, views: Views) -> None:
    story.provider()
    story.card()
    story.domain()
    story.keys(1)
    story.content()
    story.deleted(JPKI_DOMAIN, APPLICATION, LOAD_FILE, domain=ISD)
    read(views, story)

    position = story.position
    for listing, gone in ((DOMAINS, JPKI_DOMAIN), (LOAD_FILES, LOAD_FILE), (APPLICATIONS, APPLICATION)):
        assert the(views, listing, CARD, gone).removed == position
        assert key(CARD, gone) not in [row.key for row in everything(views, listing, iccid=CARD)]
    assert [row.current for row in everything(views, KEYS, domain=JPKI_DOMAIN)] == [0]
    found = counts(views, EVERYTHING)
    assert (found["domains"], "load_files" in found, "applications" in found) == (1, False, False)
    assert "domains" not in counts(views, Viewer("provider", JPKI))


def test_the_room_of_a_deleted_load_file_is_free(story: Story, views: Views) -> None:
    story.card()
    story.domain()
    story.content()
    story.deleted(LOAD_FILE, APPLICATION)
    read(views, story)

    assert the(views, DOMAINS, CARD, JPKI_DOMAIN).size == 0
    assert [row.aid for row in everything(views, DOMAINS)] == [ISD, JPKI_DOMAIN]


def test_what_comes_back_after_it_was_deleted_is_another_at_another_place(story: Story, views: Views) -> None:
    story.card()
    story.domain()
    story.keys(1)
    story.content()
    story.deleted(JPKI_DOMAIN, APPLICATION, LOAD_FILE, domain=ISD)
    story.domain()
    again = story.position
    story.keys(1)
    story.content()
    read(views, story)

    domain = the(views, DOMAINS, CARD, JPKI_DOMAIN)
    assert (domain.position, domain.removed, domain.size, domain.key_version) == (again, 0, 1234, 1)
    assert the(views, APPLICATIONS, CARD, APPLICATION).removed == 0
    assert [row.current for row in everything(views, KEYS, domain=JPKI_DOMAIN)] == [0, 1]
    assert counts(views, EVERYTHING)["applications"] == 1


# Whose it is


def test_a_claim_gives_the_domain_and_all_that_is_in_it_to_the_provider_whichever_comes_first(
    make_views: MakeViews,
) -> None:
    def given(before: bool) -> list[list[tuple[str, str]]]:
        story = Story()
        if before:
            story.provider()
        story.card()
        story.domain()
        story.keys(1)
        story.content()
        story.session()
        story.session(by=MNO)
        if not before:
            story.provider()
        views = make_views(REGISTRY, anew=True)
        read(views, story)
        owned = (LOAD_FILES, APPLICATIONS, KEYS, DELEGATIONS, SESSIONS)
        assert [row.iccid for row in page(views, CARDS, Viewer("provider", JPKI), {}, 0, None, 9)] == [CARD]
        numbers = [counts(views, viewer) for viewer in (EVERYTHING, Viewer("operator", MNO), Viewer("provider", JPKI))]
        rows = [[(row.provider, row.seen_by) for row in everything(views, listing)] for listing in owned]
        return [*rows, [(row.aid, row.provider) for row in everything(views, DOMAINS)], [(str(numbers), "")]]

    first, later = given(before=True), given(before=False)
    assert first == later
    assert first[0] == [(JPKI, "")]
    assert first[2] == [("", MNO), (JPKI, "")]
    assert first[3] == [(JPKI, ""), (JPKI, MNO)]  # what the operator delegated itself it sees
    assert first[5] == [(ISD, ""), (JPKI_DOMAIN, JPKI)]


def test_the_issuers_domain_is_nobodys_even_when_its_aid_is_claimed(story: Story, views: Views) -> None:
    story.claim(ISD, BANK)
    story.card()
    story.session(MNO, ISD)
    read(views, story)

    assert the(views, DOMAINS, CARD, ISD).provider == ""
    assert [row.seen_by for row in everything(views, SESSIONS)] == [MNO]


# Keys


def test_who_could_have_written_a_key_when_and_in_which_session_is_one_query(story: Story, views: Views) -> None:
    read(views, tell_all(story))
    asked: list[str] = []
    views_read = views.read

    def counted(*args: object) -> list[Row]:
        asked.append(str(args[1]))
        return views_read(*args)  # type: ignore[arg-type]

    views.read = counted  # type: ignore[method-assign]
    provisional, own = key_history(views, Viewer("provider", JPKI), CARD, JPKI_DOMAIN)
    assert len(asked) == 1

    assert (provisional.keys.version, provisional.keys.provisional, provisional.keys.current) == (1, 1, 0)
    assert provisional.keys.party == MNO
    assert provisional.keys.handed_out_to == JPKI
    assert provisional.keys.handed_out_at and provisional.keys.destroyed_at
    assert provisional.session is not None
    assert (provisional.session.party, provisional.session.domain) == (MNO, ISD)
    assert (own.keys.version, own.keys.provisional, own.keys.current) == (2, 0, 1)
    assert (own.keys.party, own.keys.actor, own.keys.shared_by) == (JPKI, "phone", JPKI)
    assert own.keys.shared_at and not own.keys.destroyed_at
    assert own.session is not None
    assert own.session.key == own.keys.session
    assert (own.session.domain, own.session.key_version, own.session.state) == (JPKI_DOMAIN, 1, "ENDED")
    assert own.session.started_at < own.keys.recorded_at


def test_who_may_not_see_keys_gets_no_history_of_them(story: Story, views: Views) -> None:
    read(views, tell_all(story))

    assert key_history(views, Viewer("operator", MNO), CARD, JPKI_DOMAIN) == []
    assert key_history(views, Viewer("provider", BANK), CARD, JPKI_DOMAIN) == []
    assert key_history(views, Viewer("municipality", "13101"), CARD, JPKI_DOMAIN) == []
    [made] = key_history(views, Viewer("operator", MNO), CARD, ISD)
    assert made.session is None


def test_keys_that_the_card_has_no_more_say_when_they_left_the_vault(story: Story, views: Views) -> None:
    story.card()
    story.keys(1, ISD)
    story.keys(2, ISD)
    gone = card.KeysDestroyed(
        domain=ISD, key_version=1, key=f"card/{CARD}/{ISD}/01", check_values=("01aaaa", "01bbbb", "01cccc")
    )
    story.on_card(gone)
    read(views, story)

    assert [(row.version, bool(row.destroyed_at)) for row in everything(views, KEYS)] == [
        (0x30, False), (1, True), (2, False),
    ]  # fmt: skip


# Parties and the catalogue


def test_a_party_whose_certificate_was_withdrawn_stays_and_can_be_enrolled_again(story: Story, views: Views) -> None:
    story.provider()
    story.withdraw(f"provider-{JPKI}")
    read(views, story)
    row = the(views, PARTIES, "provider", JPKI)
    assert (row.enrolled, row.certificate_fingerprint, row.domain) == (0, "", JPKI_DOMAIN)

    story.tell(f"provider-{JPKI}", CertificateReplaced(certificate_fingerprint="0e" * 32))
    read(views, story)
    row = the(views, PARTIES, "provider", JPKI)
    assert (row.enrolled, row.certificate_fingerprint, row.position) == (1, "0e" * 32, 1)


def test_the_catalogue_has_the_version_that_was_registered_last(story: Story, views: Views) -> None:
    story.register_load_file("1.0")
    story.register_load_file("1.1")
    read(views, story)

    [row] = everything(views, CATALOGUE)
    assert (row.version, row.position, row.changed) == ("1.1", 1, 2)


# Sessions


def test_a_session_is_live_until_it_ends(story: Story, views: Views) -> None:
    story.card()
    story.session(ended=False)
    states, so_far = [], Story()
    for event in story.events:
        so_far.events.append(event)
        read(views, so_far)
        states += [row.state for row in everything(views, SESSIONS, live=1)]
    [row] = everything(views, SESSIONS)

    assert list(dict.fromkeys(states)) == ["STARTED", "CONNECTED", "AUTHENTICATED", "DISCONNECTING"]
    assert (row.state, row.live, row.exchanges, row.status) == ("DISCONNECTING", 1, 4, "")
    assert row.started_at < row.last_heard_at
    assert the(views, DELEGATIONS, row.key).status == ""


def test_a_session_ends_or_expires(story: Story, views: Views) -> None:
    story.card()
    story.session()
    story.session(ended=False)
    failed = session.SessionFailed(status="53", error="phone")
    story.tell(f"session-{JPKI}-{reception_of(2)}", failed, session.SessionExpired())
    read(views, story)

    assert [(row.state, row.live, row.status) for row in everything(views, SESSIONS)] == [
        ("ENDED", 0, "00"), ("EXPIRED", 0, "53"),
    ]  # fmt: skip
    assert [(row.status, row.executed) for row in everything(views, DELEGATIONS)] == [("00", 1), ("", 0)]
    assert everything(views, SESSIONS, live=1) == []


# Credentials and erasure


def test_a_credential_goes_through_its_stages(story: Story, views: Views) -> None:
    story.applied()
    read(views, story)
    assert the(views, CREDENTIALS, CREDENTIAL).stage == Stage.APPLIED.name
    story.issued()
    read(views, story)
    row = the(views, CREDENTIALS, CREDENTIAL)
    assert (row.stage, row.authority, row.iccid, row.closed) == ("HANDED_OUT", "jpki-ca", CARD, "")


def test_a_credential_is_closed_by_refusal_revocation_or_erasure(story: Story, views: Views) -> None:
    for identity in ("a", "b", "c", "d"):
        story.applied(identity)
    story.on_credential(credential.ApplicationRefused(code="revoked"), identity="a")
    ordered, done = credential.RevocationOrdered(reason="superseded"), credential.CredentialRevoked(reason="superseded")
    story.on_credential(ordered, identity="b")
    story.on_credential(ordered, done, identity="c")
    story.on_credential(ordered, identity="d")
    story.erase("d")
    story.on_credential(done, identity="d")
    read(views, story)

    closed = {row.credential: row.closed for row in everything(views, CREDENTIALS)}
    assert closed == {"a": "refused", "b": "revoking", "c": "revoked", "d": "erased"}


def test_erasure_unties_the_person_and_a_rebuild_gives_the_same_rows(
    story: Story, views: Views, make_views: MakeViews
) -> None:
    tell_all(story)
    story.keys(3, correlation=CREDENTIAL)
    story.request("op-5", OperationKind.ERASE_PERSON, CREDENTIAL, iccid=CARD, correlation=CREDENTIAL)
    read(views, story)
    assert everything(views, SESSIONS, correlation=CREDENTIAL)
    story.erase()
    story.session(correlation=CREDENTIAL)  # what belongs to it and comes later is tied to nobody either
    story.keys(4, correlation=CREDENTIAL)
    story.request("op-6", OperationKind.ERASE_PERSON, CREDENTIAL, iccid=CARD, correlation=CREDENTIAL)
    read(views, story)

    row = the(views, CREDENTIALS, CREDENTIAL)
    assert (row.iccid, row.closed) == ("", "erased")
    tied = {
        f"{name} {column}"
        for name, listing in LISTINGS.items()
        for row in everything(views, listing)
        for column, value in row._asdict().items()
        if value == CREDENTIAL and getattr(row, "iccid", "")
    }
    assert tied == set()
    assert len(everything(views, SESSIONS)) == 7
    assert [row.iccid for row in everything(views, CREDENTIALS, iccid=OTHER_CARD)] == [OTHER_CARD]
    assert_rebuilt_the_same(views, story, make_views)


def test_nothing_sealed_is_in_any_row_but_the_card_of_a_credential(story: Story, views: Views) -> None:
    read(views, tell_all(story))
    written = str(contents(views))

    assert CREDENTIAL in written
    assert [secret for secret in SECRETS if secret in written] == []
    assert REGISTRY.unseals == {"credential.applied": ("iccid",)}


# Operations


def test_an_operation_says_how_it_stands(story: Story, views: Views) -> None:
    read(views, tell_all(story))
    found = {row.operation: row for row in everything(views, OPERATIONS)}

    assert {identity: row.state for identity, row in found.items()} == {
        "op-1": "WAITING", "op-2": "DELEGATED", "op-3": "AWAITING_APPROVAL", "op-4": "CANCELLED",
    }  # fmt: skip
    row = found["op-2"]
    assert (row.requested_by, row.approved_by, row.reason) == (
        f"operator:{MNO}",
        "operator:second",
        "the contract ended",
    )
    assert (row.kind, row.target, row.iccid, row.reception) == ("delete", JPKI_DOMAIN, CARD, "2026112199999999")
    assert row.requested_at < row.expires_at
    story.on_operation("op-2", OperationPutBack(status="53"))
    read(views, story)
    assert the(views, OPERATIONS, "op-2").state == "WAITING"


# Pages of events


CHAPTERS: tuple[Chapter, ...] = (
    lambda story: story.provider(JPKI, JPKI_DOMAIN),
    lambda story: story.claim(BANK_DOMAIN, BANK),
    lambda story: story.domain(BANK_DOMAIN, OTHER_CARD),
    lambda story: story.content(),
    lambda story: story.content(ISD, OTHER_CARD),
    lambda story: story.deleted(LOAD_FILE, APPLICATION),
    lambda story: story.deleted(JPKI_DOMAIN, domain=ISD, iccid=OTHER_CARD),
    lambda story: story.keys(2),
    lambda story: story.keys(2, provisional=True),
    lambda story: story.on_card(card.KeysShared(domain=JPKI_DOMAIN, key_version=2, check_values=(), provider=JPKI)),
    lambda story: story.on_card(
        card.ProvisionalKeysDestroyed(domain=JPKI_DOMAIN, key_version=2, key=f"card/{CARD}/{JPKI_DOMAIN}/02")
    ),
    lambda story: story.erase(),
    lambda story: story.session(correlation=CREDENTIAL),
    lambda story: story.session(MNO, ended=False),
    lambda story: story.keys(3, correlation=CREDENTIAL),
    lambda story: story.request("op", OperationKind.REVOKE_CREDENTIAL, CREDENTIAL, correlation=CREDENTIAL),
    lambda story: story.issued(),
)


def told(chapters: Sequence[Chapter]) -> Story:
    """Two cards with a domain each, a credential, and then these chapters."""
    story = Story()
    story.operator()
    for iccid, of in ((CARD, MNO), (OTHER_CARD, OTHER_MNO)):
        story.card(iccid, of)
        story.domain(JPKI_DOMAIN, iccid)
    story.applied()
    for chapter in chapters:
        chapter(story)
    return story


def folded(story: Story, ends: Sequence[int]) -> dict[str, list[object]]:
    """The rows, from pages that end at these positions."""
    with tempfile.TemporaryDirectory() as folder:
        views = SQLiteViews(Path(folder) / "views.sqlite", (REGISTRY,))
        owner = views.begin(REGISTRY)
        assert owner is not None
        with owner:
            after = 0
            for end in (*ends, story.position):
                found = story.page(after, end - after, REGISTRY.topics, REGISTRY.unseals)
                fold(owner, found.events, after, end)
                after = end
            assert views.switch(owner, lambda: story.position)
        assert views.parked(REGISTRY) == []
        rows = contents(views)
        views.close()
    return rows


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(st.permutations(CHAPTERS), st.data())
def test_where_a_page_ends_makes_no_difference(chapters: list[Chapter], data: st.DataObject) -> None:
    """Whatever the order of the chapters. What was erased meanwhile reads as erased in both."""
    story = told(chapters)
    ends = data.draw(st.lists(st.integers(1, story.position - 1), unique=True, max_size=12).map(sorted))

    assert folded(story, ends) == folded(story, [])


def test_one_event_at_a_time_makes_the_same_rows_on_every_engine(
    story: Story, make_views: MakeViews, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell_all(story)
    story.erase()
    whole = make_views(REGISTRY)
    read(whole, story)
    monkeypatch.setattr("projections.building.PAGE", 1)
    single = make_views(REGISTRY, anew=True)
    read(single, story)

    assert contents(single) == contents(whole)


def test_rows_that_were_parked_are_the_same_once_they_are_folded(
    story: Story, views: Views, make_views: MakeViews
) -> None:
    tell_all(story)
    topics = {"card.registered", "delegation.accepted", "domain.claimed", "credential.applied"}
    story.unreadable = {event.position for event in story.events if event.topic in topics}
    Runner(story, views).catch_up()
    assert len(views.parked(REGISTRY)) > len(story.unreadable)
    story.unreadable = set()
    while views.parked(REGISTRY) and retry(story, views, REGISTRY):
        pass

    assert views.parked(REGISTRY) == []
    assert_rebuilt_the_same(views, story, make_views)


def test_a_page_asks_each_table_once(story: Story, views: Views) -> None:
    """But for what concerns all cards at once: a claim, and an erasure."""
    story.provider()
    asked: list[Counter[str]] = []

    def counted(rows: Rows, events: Sequence[Event]) -> None:
        class Counting:
            insert, upsert, delete = rows.insert, rows.upsert, rows.delete

            def find(self, table: str, values: Collection[str | int], by: str | None = None) -> list[Row]:
                asked[-1][table] += 1
                return rows.find(table, values, by)

        asked.append(Counter())
        REGISTRY.fold(Counting(), events)

    views.projections = (replace(REGISTRY, fold=counted),)
    Runner(story, views).catch_up()
    for number in range(20):
        iccid = f"898110000000000{number:04}"
        story.card(iccid)
        story.domain(iccid=iccid)
        story.keys(1, iccid=iccid)
        story.content(iccid=iccid)
        story.session(iccid=iccid)
        story.applied(f"credential-{number}", iccid)
        story.request(f"operation-{number}", OperationKind.LOCK, ISD, iccid=iccid)
        story.deleted(APPLICATION, iccid=iccid)
    Runner(story, views).catch_up()

    assert len(asked) == 2
    assert set(asked[1].values()) == {1}
    assert views.parked(REGISTRY) == []


@pytest.mark.parametrize("fact", [
    card.SecurityDomainCreated(domain=JPKI_DOMAIN, parent=ISD, privileges="", life_cycle="SELECTABLE"),
    card.KeysPut(domain=BANK_DOMAIN, key_version=1, check_values=(), provisional=False, key="k"),
    card.ProvisionalKeysHandedOut(domain=JPKI_DOMAIN, key_version=9, provider=JPKI),
    card.LoadFileLoaded(load_file=LOAD_FILE, domain=BANK_DOMAIN, sha256="", size=0),
], ids=lambda fact: fact.topic)  # fmt: skip
def test_an_event_that_does_not_fit_is_parked(story: Story, views: Views, fact: Fact) -> None:
    story.card()
    story.domain()
    story.on_card(fact)
    Runner(story, views).catch_up()

    assert [parked.position for parked in views.parked(REGISTRY)] == [3]


@pytest.mark.parametrize(
    ("stream", "fact"),
    [
        (f"card-{CARD}", card.CardReleased(domain=ISD, reason="r")),
        ("session-JPKI0001-2026112100000001", session.CardConnected()),
        ("credential-x", credential.CredentialActivated()),
        ("operation-x", OperationPutBack(status="53")),
        (f"provider-{JPKI}", CertificateWithdrawn(certificate_fingerprint="")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_stream_without_its_beginning_is_parked(story: Story, views: Views, stream: str, fact: Fact) -> None:
    story.tell(stream, fact)
    Runner(story, views).catch_up()

    assert [parked.position for parked in views.parked(REGISTRY)] == [1]
