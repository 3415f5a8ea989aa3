"""Alerts in the admin API: what is shown to whom, what persons say to them, and what was told of lines."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from time import monotonic, sleep
from typing import Any

import pytest

from tests.api.admin_world import (
    DOMAIN,
    ISD,
    OPERATOR,
    OTHER_OPERATOR,
    OTHER_PROVIDER,
    PROVIDER,
    Client,
    World,
    iccid,
    row,
)
from tests.line_samples import NUMBERS, OTHER_PHONE, PHONE, THIRD_PHONE
from tsm.application import Change
from tsm.errors import ErrorCode, TsmError
from tsm.flows.issuance_follower import JPKI_APPLICATION
from tsm.flows.on_hold import asked_by, refuse_on_hold
from tsm.identifiers import luhn_digit
from tsm.model import credential as credentials
from tsm.model import session as sessions
from tsm.model.card import ApplicationInstalled, LifeCycleChanged, SecurityDomainCreated
from tsm.model.credential import (
    CredentialApplied,
    CredentialIssued,
    CredentialWritten,
    PersonalizationDelegated,
    Stage,
)
from tsm.model.event import Context, Fact
from tsm.model.line import Signal, SignalKind
from tsm.model.reading import DataAccessed
from tsm.model.session import SessionFailed, SessionStarted
from tsm.model.standing import Use, UseRefused
from tsm.model.swap_policy import DEFAULT

MUNICIPALITY, ELSEWHERE = "13101", "27100"
WHY = "the holder called the shop"
ALERT = "alert iccid rule condition level state inForce verdict since until raisedAt acknowledgedAt acknowledgedBy"
ALERT += " escalatedBy closedBy endedBy position changed policy evidencePositions"
_cards, _signals = count(200), count(1)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("alerts"))
    yield made
    made.close()


@pytest.fixture
def card(world: World) -> str:
    """A new card of the operator."""
    made = iccid(next(_cards))
    world.party(OPERATOR).done("cardRegister", rows=[row(made)])
    return made


@pytest.fixture
def alice(world: World) -> Client:
    return world.person("operator", f"operator:{OPERATOR}", "alice")


@pytest.fixture
def officer(world: World) -> Client:
    return world.person("security-officer", "*", "otto")


def say(world: World, kind: SignalKind, operator: str = OPERATOR, **values: Any) -> int:
    """An operator's signal of a minute ago, or as told; its position."""
    at = values.pop("occurred_at", datetime.now(UTC) - timedelta(minutes=1))
    said = Signal(id=f"s-{next(_signals)}", source=f"operator:{operator}", kind=kind, occurred_at=at, **values)
    context = Context(actor=f"operator:{operator}", role="operator", tenant=operator, correlation="feed")
    (outcome,) = world.parts.lines.record([said], context)
    assert outcome.error is None
    return outcome.position


def number_of(card: str) -> str:
    """Of a card a fictional number."""
    return f"+4477009{card[-6:-1]}"


def move(world: World, card: str) -> tuple[int, int]:
    """The card was in one phone, and now it is in another: positions of the signals."""
    first = say(world, SignalKind.OBSERVED, iccid=card, msisdn=number_of(card), imei=PHONE,
                occurred_at=datetime.now(UTC) - timedelta(days=20))  # fmt: skip
    return first, say(world, SignalKind.DEVICE_CHANGED, iccid=card, msisdn=number_of(card), imei=OTHER_PHONE)


def alert_of(world: World, client: Client, card: str, shown: str = ALERT) -> dict[str, Any]:
    """The only alert of a card."""
    query = "query ($card: String!, $at: Position) { alerts(filter: {iccid: $card}, minPosition: $at)"
    nodes = client.data(f"{query} {{ nodes {{ {shown} }} }} }}", card=card, at=world.position)["alerts"]["nodes"]
    [found] = nodes
    return dict(found)


def standing_of(world: World, client: Client, card: str) -> dict[str, Any] | None:
    query = "query ($card: String!, $at: Position) { standing(iccid: $card, minPosition: $at)"
    query += " { level onHold onHoldSince releasedAt proof revokeFrom } }"
    found: dict[str, Any] | None = client.data(query, card=card, at=world.position)["standing"]
    return found


def apply(
    world: World, card: str, municipality: str = MUNICIPALITY, provider: str = PROVIDER, stage: Stage = Stage.ISSUED
) -> str:
    """Somebody applied for a credential in this card, and it has come so far."""
    name = f"{next(_signals):08x}-0000-4000-8000-000000000000"
    applied = CredentialApplied(
        subject=f"person-{name}",
        provider=provider,
        terminal="T-1",
        municipality=municipality,
        iccid=card,
        applicant="Simulated Hanako Testperson",
        document_sha256="ab" * 32,
    )
    tsm, stream = world.parts.tsm, credentials.stream(name)
    context = Context(actor="terminal:T-1", role="clerk", tenant=municipality, tenants=(provider,), correlation=name)
    rows = [tsm.index_row("iccid", card, stream, name)]
    issued = CredentialIssued(
        subject=applied.subject,
        authority="jpki",
        authentication_serial="1",
        signature_serial="2",
        authentication_certificate_sha256="aa" * 32,
        signature_certificate_sha256="bb" * 32,
    )
    came: dict[Stage, Fact] = {
        Stage.APPLIED: applied,
        Stage.ISSUED: issued,
        Stage.DELEGATED: PersonalizationDelegated(reception="2026112100000001"),
        Stage.WRITTEN: CredentialWritten(reception="2026112100000001"),
    }
    facts = [fact for reached, fact in came.items() if reached <= stage]
    tsm.commit(Change(stream, 0, facts), context=context, occurred_at=tsm.now(), put_index=rows)
    return name


def clerk(world: World, municipality: str = MUNICIPALITY) -> Client:
    return world.person("clerk", f"municipality:{municipality}", "ken")


# What is shown


def test_a_moved_sim_is_an_alert_with_its_evidence_and_the_card_is_on_hold(
    world: World, alice: Client, card: str
) -> None:
    seen, moved = move(world, card)
    found = alert_of(world, alice, card, f"{ALERT} evidence {{ nodes {{ position topic text }} }}")

    assert (found["condition"], found["rule"], found["level"]) == ("DEVICE_CHANGED", "another-device", "HOLD")
    assert (found["state"], found["inForce"], found["policy"]) == ("OPEN", True, world.parts.standings.policy().version)
    assert found["evidencePositions"] == [seen, moved]
    assert [event["position"] for event in found["evidence"]["nodes"]] == [seen, moved]
    assert found["evidence"]["nodes"][1]["text"] == f"signal DEVICE_CHANGED of operator:{OPERATOR}"
    standing = standing_of(world, alice, card)
    assert standing is not None and (standing["level"], standing["onHold"]) == ("HOLD", True)
    by_card = alice.data(
        "query ($i: String!) { card(iccid: $i) { standing { level } alerts { nodes { alert } } } }", i=card
    )["card"]
    assert by_card == {"standing": {"level": "HOLD"}, "alerts": {"nodes": [{"alert": found["alert"]}]}}


def test_the_timeline_is_the_whole_case_in_order_and_in_pages(world: World, alice: Client, card: str) -> None:
    seen, moved = move(world, card)
    alert = alert_of(world, alice, card)["alert"]
    alice.done("alertAcknowledge", iccid=card, alert=alert, reason="calling the holder")
    alice.done("cardHoldRelease", iccid=card, reason="the holder has a new phone")
    query = """query ($alert: String!, $at: Position, $after: String) { alert(id: $alert, minPosition: $at)
        { timeline(first: 3, after: $after)
            { nodes { position topic reason } pageInfo { endCursor hasNextPage } } } }"""
    events: list[dict[str, Any]] = []
    after, more = None, True
    while more:
        page = alice.data(query, alert=alert, at=world.position, after=after)["alert"]["timeline"]
        events += page["nodes"]
        after, more = page["pageInfo"]["endCursor"], page["pageInfo"]["hasNextPage"]

    assert [event["position"] for event in events[:2]] == [seen, moved]
    assert [event["topic"] for event in events[2:]] == [
        "standing.suspicion_raised", "standing.level_changed", "standing.suspicion_acknowledged",
        "standing.card_cleared", "standing.level_changed",
    ]  # fmt: skip
    assert events[4]["reason"] == "calling the holder"
    positions = [event["position"] for event in events]
    assert positions == sorted(set(positions))
    last = "query ($a: String!) { alert(id: $a) { timeline(last: 2) { nodes { position } } } }"
    nodes = alice.data(last, a=alert)["alert"]["timeline"]["nodes"]
    assert [event["position"] for event in nodes] == positions[-2:]


def test_the_timeline_tells_what_was_done_to_the_applet_and_its_credentials(
    world: World, officer: Client, alice: Client, card: str
) -> None:
    credential = apply(world, card, stage=Stage.WRITTEN)
    world.tell(
        f"card-{card}",
        SecurityDomainCreated(domain=DOMAIN, parent=ISD, privileges="800000", life_cycle="SELECTABLE"),
        ApplicationInstalled(
            application=JPKI_APPLICATION, module=JPKI_APPLICATION, load_file=DOMAIN + "01", domain=DOMAIN,
            privileges="000000", life_cycle="SELECTABLE",
        ),
    )  # fmt: skip
    call = {"iccid": card, "calledAt": datetime.now(UTC).isoformat(), "reason": WHY}
    alice.done("cardLockRequest", **call)
    wanted = {"operation.requested", "credential.hold_ordered"}
    story = (card, f"credential-{credential}")
    assert until(lambda: wanted <= {e.topic for e in world.events() if told_of(e, *story)})
    world.tell(f"card-{card}", LifeCycleChanged(instance=JPKI_APPLICATION, domain=DOMAIN, life_cycle="LOCKED"))
    tried = UseRefused(use=Use.DEPLOYMENT, provider=PROVIDER)
    with pytest.raises(TsmError, check=lambda refusal: refusal.code is ErrorCode.CARD_ON_HOLD):
        refuse_on_hold(world.parts.tsm, card, tried, asked_by(PROVIDER, "a request"))
    world.tell(*refused_session(card))

    shown = "timeline { nodes { position topic reason text } }"
    events = alert_of(world, officer, card, shown)["timeline"]["nodes"]
    topics = [event["topic"] for event in events]
    assert topics[:3] == ["line.signal_recorded", "standing.suspicion_raised", "standing.level_changed"]
    assert wanted | {"card.life_cycle_changed", "standing.use_refused", "session.failed"} <= set(topics)
    [asked] = [event for event in events if event["topic"] == "operation.requested"]
    assert asked["reason"].startswith("LOCK: ")  # by which rule, and which alert
    own = [event["topic"] for event in alert_of(world, alice, card, shown)["timeline"]["nodes"]]
    assert {"operation.requested", "card.life_cycle_changed"} <= set(own)
    assert not [topic for topic in own if topic.startswith("credential.")]


def refused_session(card: str) -> tuple[str, SessionStarted, SessionFailed]:
    """A session of the provider that was under way when the card was put on hold."""
    reception = "2026112100000001"
    started = SessionStarted(
        provider=PROVIDER, reception=reception, iccid=card, domain=DOMAIN, key=f"card/{card}/{DOMAIN}/02",
        key_version=2, return_url="https://provider.example/return", token_sha256="00" * 32,
        expires_at=datetime.now(UTC),
    )  # fmt: skip
    return sessions.stream(PROVIDER, reception), started, SessionFailed(status="58", error="CARD_ON_HOLD")


def told_of(event: Any, card: str, credential: str) -> bool:
    return getattr(event.fact, "iccid", "") == card or event.originator_id == credential


def test_the_timeline_tells_what_an_alert_was_withdrawn_for(
    world: World, officer: Client, alice: Client, card: str
) -> None:
    apply(world, card)
    _, moved = move(world, card)
    now = datetime.now(UTC)
    announced = say(world, SignalKind.MODEL_CHANGE_ANNOUNCED, msisdn=number_of(card), until=now + timedelta(hours=1),
                    occurred_at=now - timedelta(hours=1))  # fmt: skip
    shown = "state evidencePositions timeline { nodes { position topic text causation } }"
    for client in (officer, alice):
        found = alert_of(world, client, card, shown)
        events = {event["position"]: event for event in found["timeline"]["nodes"]}
        [withdrawn] = [each for each in events.values() if each["topic"] == "standing.suspicion_withdrawn"]
        assert found["state"] == "WITHDRAWN" and withdrawn["causation"] == str(announced)
        assert announced not in found["evidencePositions"] and moved in events
        assert events[announced]["text"].startswith(f"signal MODEL_CHANGE_ANNOUNCED of operator:{OPERATOR}")
    paula = world.person("provider", f"provider:{PROVIDER}", "paula")
    assert alert_of(world, paula, card, shown)["timeline"]["nodes"] == []


def test_a_page_of_alerts_shows_each_its_own_evidence(world: World, alice: Client) -> None:
    wanted = {}
    for _ in range(3):
        made = iccid(next(_cards))
        world.party(OPERATOR).done("cardRegister", rows=[row(made)])
        wanted[made] = list(move(world, made))
    query = "query ($at: Position) { alerts(last: 3, minPosition: $at)"
    query += " { nodes { iccid evidence { nodes { position } } } } }"
    nodes = alice.data(query, at=world.position)["alerts"]["nodes"]
    assert {node["iccid"]: [e["position"] for e in node["evidence"]["nodes"]] for node in nodes} == wanted


def test_alerts_are_found_by_when_they_were_raised(world: World, alice: Client, card: str) -> None:
    before = datetime.now(UTC)
    move(world, card)
    found = alert_of(world, alice, card)
    after = datetime.now(UTC) + timedelta(seconds=1)

    def between(**times: datetime) -> list[str]:
        given = ", ".join(f'{name}: "{time.isoformat()}"' for name, time in times.items())
        query = f'{{ alerts(filter: {{iccid: "{card}", {given}}}) {{ nodes {{ alert }} }} }}'
        return [node["alert"] for node in alice.data(query)["alerts"]["nodes"]]

    assert between(raisedFrom=before) == between(raisedTo=after) == [found["alert"]]
    assert between(raisedFrom=after) == between(raisedTo=before) == []
    [error] = alice.ask('{ alerts(filter: {raisedTo: "2026-11-21T00:00:00"}) { nodes { alert } } }')["errors"]
    assert error["extensions"]["code"] == "INVALID_INPUT"


# Who sees it


def test_a_provider_and_a_counter_are_told_level_rule_and_times_of_their_cards_alone(
    world: World, alice: Client, card: str
) -> None:
    apply(world, card)
    move(world, card)
    alert = alert_of(world, alice, card)["alert"]
    alice.done("alertAcknowledge", iccid=card, alert=alert)
    whole = alert_of(world, alice, card, f"id {ALERT}")
    hidden = {"evidencePositions": [], "acknowledgedBy": None}
    provider = world.person("provider", f"provider:{PROVIDER}", "paula")
    for seer in (provider, clerk(world)):
        told = alert_of(world, seer, card, f"id {ALERT} evidence {{ nodes {{ position }} }}")
        assert told.pop("evidence") == {"nodes": []}
        assert told == whole | hidden
        topics = alert_of(world, seer, card, "timeline { nodes { topic } }")["timeline"]["nodes"]
        assert not [e for e in topics if e["topic"].startswith(("line.", "standing."))]
        assert standing_of(world, seer, card) == standing_of(world, alice, card)

    strangers = (
        world.person("operator", f"operator:{OTHER_OPERATOR}", "mallory"),
        world.person("provider", f"provider:{OTHER_PROVIDER}", "bert"),
        clerk(world, ELSEWHERE),
        world.person("auditor", f"operator:{OTHER_OPERATOR}", "aki"),
    )
    for stranger in strangers:
        query = """query ($id: ID!, $alert: String!, $card: String!) { a: node(id: $id) { id } b: alert(id: $alert)
            { alert } c: alerts(filter: {iccid: $card}) { nodes { alert } } d: standing(iccid: $card) { level }
            e: nodes(ids: [$id]) { id } f: alerts(first: 100) { nodes { alert } } }"""
        found = stranger.data(query, id=whole["id"], alert=alert, card=card)
        assert [found[name] for name in "abd"] == [None] * 3
        assert found["c"]["nodes"] == [] and found["e"] == [None]
        assert alert not in [node["alert"] for node in found["f"]["nodes"]]


def test_a_cursor_leads_nobody_to_anothers_alerts(world: World, alice: Client, card: str) -> None:
    move(world, card)
    query = "query ($after: String) { alerts(last: 1, after: $after) { nodes { iccid } pageInfo { startCursor } } }"
    alert_of(world, alice, card)
    at = alice.data(query)["alerts"]["pageInfo"]["startCursor"]
    mallory = world.person("operator", f"operator:{OTHER_OPERATOR}", "mallory")
    around = (
        "query ($at: String) { a: alerts(after: $at) { nodes { iccid } } b: alerts(before: $at) { nodes { iccid } } }"
    )
    found = mallory.data(around, at=at)
    assert found["a"]["nodes"] == [] and all(node["iccid"] != card for node in found["b"]["nodes"])


def test_a_provider_with_a_domain_sees_the_card(world: World, alice: Client, card: str) -> None:
    move(world, card)
    created = SecurityDomainCreated(domain=DOMAIN, parent=ISD, privileges="800000", life_cycle="SELECTABLE")
    world.tell(f"card-{card}", created)
    provider = world.person("provider", f"provider:{PROVIDER}", "paula")
    assert alert_of(world, provider, card)["alert"] == alert_of(world, alice, card)["alert"]


# What persons say


def test_an_alert_is_acknowledged_once(world: World, alice: Client, card: str) -> None:
    move(world, card)
    alert = alert_of(world, alice, card)["alert"]
    shown = "alert { state acknowledgedBy acknowledgedAt }"
    given = {"idempotencyKey": f"ack-{card}", "iccid": card, "alert": alert}
    payload = alice.done("alertAcknowledge", shown, **given)
    assert payload["alert"]["state"] == "ACKNOWLEDGED" and payload["alert"]["acknowledgedAt"]
    assert payload["alert"]["acknowledgedBy"] == f"operator:{OPERATOR}/alice"

    again = alice.done("alertAcknowledge", shown, **given)
    assert again["repeated"] and again["logPosition"] == payload["logPosition"]
    bob = world.person("operator", f"operator:{OPERATOR}", "bob")
    assert bob.done("alertAcknowledge", shown, iccid=card, alert=alert)["alert"] == payload["alert"]


def test_an_alert_is_taken_further_and_closed(world: World, officer: Client, card: str) -> None:
    move(world, card)
    alert = alert_of(world, officer, card)["alert"]
    given = {"iccid": card, "alert": alert, "reason": WHY}
    assert officer.refused("alertEscalate", level="ALERT", **given) == [("WRONG_ORDER", ["level"])]
    payload = officer.done("alertEscalate", "alert { level escalatedBy }", level="LOCK", **given)
    assert payload["alert"] == {"level": "LOCK", "escalatedBy": "security-officer:otto"}

    shown = "alert { state verdict inForce standing { level onHold } }"
    confirmed = officer.done("alertClose", shown, verdict="CONFIRMED", **given)["alert"]
    assert confirmed == {
        "state": "CLOSED", "verdict": "CONFIRMED", "inForce": True, "standing": {"level": "LOCK", "onHold": True},
    }  # fmt: skip
    over = officer.done("alertClose", shown, verdict="FALSE_ALARM", **given)["alert"]
    assert over == {
        "state": "CLOSED", "verdict": "FALSE_ALARM", "inForce": False, "standing": {"level": "NONE", "onHold": False},
    }  # fmt: skip
    assert officer.refused("alertClose", verdict="CONFIRMED", **given) == [("NOT_FOUND", ["alert"])]


def test_an_alert_that_is_not_there_is_refused_by_its_name_in_the_input(alice: Client, card: str) -> None:
    given = {"iccid": card, "alert": "0" * 32, "reason": WHY}
    unknown = [("NOT_FOUND", ["alert"])]
    assert alice.refused("alertAcknowledge", **given) == unknown
    assert alice.refused("alertEscalate", level="LOCK", **given) == unknown
    assert alice.refused("alertClose", verdict="FALSE_ALARM", **given) == unknown


@pytest.mark.parametrize("verdict", [None, "CONFIRMED"])
def test_one_person_takes_no_alert_so_far_that_it_destroys(
    world: World, alice: Client, officer: Client, card: str, verdict: str | None
) -> None:
    """Else whoever can file a holder's call could revoke and delete alone: by an escalation that he confirms."""
    alice.done("cardLockRequest", iccid=card, calledAt=datetime.now(UTC).isoformat(), reason=WHY)
    given = {"iccid": card, "alert": alert_of(world, alice, card)["alert"], "reason": WHY}
    for client in (alice, officer, world.party(OPERATOR)):
        assert client.refused("alertEscalate", level="REVOKE", **given) == [("INVALID_INPUT", ["level"])]
    if verdict:
        alice.done("alertClose", verdict=verdict, **given)
    standing = standing_of(world, alice, card)
    assert standing is not None and (standing["level"], standing["revokeFrom"]) == ("LOCK", None)


def test_a_program_confirms_no_revocation(world: World, alice: Client, card: str) -> None:
    """It is due when the settle window is over, for which nobody who feeds signals can be his own second source."""
    say(world, SignalKind.OBSERVED, iccid=card, msisdn=number_of(card), imei=PHONE,
        occurred_at=datetime.now(UTC) - timedelta(days=1))  # fmt: skip
    say(world, SignalKind.TERMINATED, msisdn=number_of(card))
    given = {"iccid": card, "alert": alert_of(world, alice, card)["alert"], "reason": WHY}
    program = world.party(OPERATOR)
    assert program.refused("alertClose", verdict="CONFIRMED", **given) == [("FORBIDDEN", None)]
    due = standing_of(world, alice, card)
    assert due is not None and datetime.fromisoformat(due["revokeFrom"]) > datetime.now(UTC) + timedelta(hours=1)
    alice.done("alertClose", verdict="CONFIRMED", **given)
    now = standing_of(world, alice, card)
    assert now is not None and datetime.fromisoformat(now["revokeFrom"]) <= datetime.now(UTC)


def test_alerts_of_another_operator_look_as_if_their_cards_were_not_there(
    world: World, alice: Client, card: str
) -> None:
    move(world, card)
    alert = alert_of(world, alice, card)["alert"]
    mallory = world.person("operator", f"operator:{OTHER_OPERATOR}", "mallory")
    unknown = [("UNKNOWN_CARD", ["iccid"])]
    assert mallory.refused("alertAcknowledge", iccid=card, alert=alert) == unknown
    assert mallory.refused("alertEscalate", iccid=card, alert=alert, level="REVOKE", reason=WHY) == unknown
    assert mallory.refused("alertClose", iccid=card, alert=alert, verdict="FALSE_ALARM", reason=WHY) == unknown
    assert mallory.refused("cardHoldRelease", iccid=card, reason=WHY) == unknown
    called = datetime.now(UTC).isoformat()
    assert mallory.refused("cardLockRequest", iccid=card, calledAt=called, reason=WHY) == unknown
    assert alert_of(world, alice, card)["state"] == "OPEN"


# Cards


def test_an_operator_releases_its_card(world: World, alice: Client, card: str) -> None:
    assert alice.refused("cardHoldRelease", iccid=card, reason=WHY) == [("WRONG_ORDER", None)]
    move(world, card)
    standing = alice.done("cardHoldRelease", "standing { level onHold proof }", iccid=card, reason=WHY)["standing"]
    assert standing == {"level": "NONE", "onHold": False, "proof": "OPERATOR"}
    assert alert_of(world, alice, card)["state"] == "RELEASED"
    assert alice.refused("cardHoldRelease", iccid=card, reason="") == [("INVALID_INPUT", ["reason"])]


def test_a_clerk_releases_where_the_credential_was_applied_for(world: World, alice: Client, card: str) -> None:
    apply(world, card)
    move(world, card)
    elsewhere = clerk(world, ELSEWHERE)
    assert elsewhere.refused("cardHoldRelease", iccid=card, reason=WHY) == [("UNKNOWN_CARD", ["iccid"])]
    standing = clerk(world).done("cardHoldRelease", "standing { level proof }", iccid=card, reason=WHY)["standing"]
    assert standing == {"level": "NONE", "proof": "CLERK"}
    [cleared] = [e for e in world.parts.tsm.history(f"standing-{card}") if e.topic == "standing.card_cleared"]
    assert (cleared.context.actor, cleared.context.tenant) == (f"clerk:{MUNICIPALITY}/ken", OPERATOR)
    assert cleared.context.tenants == (MUNICIPALITY, PROVIDER)
    assert alert_of(world, alice, card)["endedBy"] == f"clerk:{MUNICIPALITY}/ken"


@pytest.mark.parametrize("stage", [Stage.APPLIED, Stage.ISSUED, Stage.DELEGATED])
def test_an_application_for_somebody_elses_card_makes_no_clerk_its_keeper(
    world: World, alice: Client, card: str, stage: Stage
) -> None:
    """Anybody may apply for one anywhere, and have its write delegated without having the card."""
    apply(world, card, stage=Stage.WRITTEN)
    apply(world, card, ELSEWHERE, stage=stage)
    move(world, card)
    elsewhere, unknown = clerk(world, ELSEWHERE), [("UNKNOWN_CARD", ["iccid"])]
    assert elsewhere.refused("cardHoldRelease", iccid=card, reason=WHY) == unknown
    called = {"iccid": card, "calledAt": datetime.now(UTC).isoformat(), "reason": WHY}
    assert elsewhere.refused("cardUnlockRequest", **called) == unknown
    assert elsewhere.refused("cardLockRequest", **called) == unknown
    assert alert_of(world, alice, card)["state"] == "OPEN"
    clerk(world).done("cardHoldRelease", "standing { level }", iccid=card, reason=WHY)


def test_nor_does_an_application_that_came_to_nothing(world: World, card: str) -> None:
    apply(world, card, stage=Stage.APPLIED)
    move(world, card)
    assert clerk(world).refused("cardHoldRelease", iccid=card, reason=WHY) == [("UNKNOWN_CARD", ["iccid"])]


@pytest.mark.parametrize("who", ["operator", "clerk"])
def test_a_card_is_locked_at_its_holders_word_and_unlocked(world: World, alice: Client, card: str, who: str) -> None:
    apply(world, card)
    client = alice if who == "operator" else clerk(world)
    called = datetime.now(UTC) - timedelta(minutes=10)
    given = {"idempotencyKey": f"call-{card}", "iccid": card, "calledAt": called.isoformat(), "reason": WHY}
    payload = client.done("cardLockRequest", "standing { level onHold }", **given)
    assert payload["standing"] == {"level": "LOCK", "onHold": True}
    shown = "condition evidence { nodes { text reason } }"
    text = f"signal LOCK_REQUESTED of {'operator:' + OPERATOR if who == 'operator' else 'clerk:' + MUNICIPALITY}"
    assert alert_of(world, alice, card, shown) == {
        "condition": "OWNER_CALLED", "evidence": {"nodes": [{"text": text, "reason": WHY}]},
    }  # fmt: skip

    again = client.done("cardLockRequest", "standing { level }", **given)
    assert again["repeated"] and again["logPosition"] == payload["logPosition"]
    assert len(world.parts.lines.history(iccid=card).signals) == 1
    other = {**given, "reason": "another"}
    assert client.refused("cardLockRequest", **other) == [("COMMAND_REUSED", ["idempotencyKey"])]

    at = (called + timedelta(minutes=5)).isoformat()
    unlocked = client.done("cardUnlockRequest", "standing { level onHold }", iccid=card, calledAt=at, reason=WHY)
    assert unlocked["standing"] == {"level": "NONE", "onHold": False}
    assert alert_of(world, alice, card)["state"] == "WITHDRAWN"


def test_what_was_not_locked_at_the_holders_word_is_not_unlocked_at_it(world: World, alice: Client, card: str) -> None:
    move(world, card)
    called = datetime.now(UTC).isoformat()
    unlocked = alice.done("cardUnlockRequest", "standing { level }", iccid=card, calledAt=called, reason=WHY)
    assert unlocked["standing"] == {"level": "HOLD"}


@pytest.mark.parametrize("mutation", ["cardLockRequest", "cardUnlockRequest"])
@pytest.mark.parametrize(
    "called",
    ["2026-11-21T12:00:00", "2999-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"],
)
def test_a_call_has_a_time_that_was(alice: Client, card: str, mutation: str, called: str) -> None:
    """The last two are times that cannot be written in UTC."""
    refused = alice.refused(mutation, iccid=card, calledAt=called, reason=WHY)
    assert refused == [("INVALID_INPUT", ["calledAt"])]


# Histories


HISTORY = """query ($msisdn: String!, $purpose: String!, $since: DateTime) {
    lineSwapHistory(msisdn: $msisdn, purpose: $purpose, since: $since) {
        bindings { msisdn iccid imei since until evidence } signals { position kind source imei } } }"""


def test_the_history_of_a_line_is_told_for_a_purpose_that_is_recorded(world: World, officer: Client, card: str) -> None:
    seen, moved = move(world, card)
    told = officer.data(HISTORY, msisdn=number_of(card), purpose="case 7")["lineSwapHistory"]

    assert [(b["imei"], b["iccid"], bool(b["until"])) for b in told["bindings"]] == [
        (PHONE, card, True), (OTHER_PHONE, card, False),
    ]  # fmt: skip
    assert [(s["position"], s["kind"]) for s in told["signals"]] == [(seen, "OBSERVED"), (moved, "DEVICE_CHANGED")]
    read = world.events()[-1]
    assert isinstance(read.fact, DataAccessed) and read.fact.purpose == "case 7"
    assert list(read.fact.subjects) == list(world.parts.lines.history(msisdn=number_of(card)).subjects)

    since = (datetime.now(UTC) - timedelta(days=10)).isoformat()
    lately = officer.data(HISTORY, msisdn=number_of(card), purpose="case 7", since=since)["lineSwapHistory"]
    assert [s["position"] for s in lately["signals"]] == [moved]


def test_the_histories_of_a_card_and_of_a_device_tell_the_same(world: World, officer: Client, card: str) -> None:
    digits = f"001010{card[-9:-1]}"
    phone = digits + luhn_digit(digits)
    say(world, SignalKind.OBSERVED, iccid=card, msisdn=number_of(card), imei=phone)
    query = """query ($iccid: String!, $imei: String!) {
        a: cardSwapHistory(iccid: $iccid, purpose: "case 8") { bindings { msisdn iccid imei } }
        b: deviceSwapHistory(imei: $imei, purpose: "case 8") { bindings { msisdn iccid imei } } }"""
    told = officer.data(query, iccid=card, imei=phone)
    assert told["a"] == told["b"] == {"bindings": [{"msisdn": number_of(card), "iccid": card, "imei": phone}]}


@pytest.mark.parametrize("purpose", ["", "  ", "a\nb", "x" * 201])
def test_without_a_purpose_nothing_is_told(world: World, officer: Client, card: str, purpose: str) -> None:
    move(world, card)
    before = world.position
    [error] = officer.ask(HISTORY, msisdn=number_of(card), purpose=purpose)["errors"]
    assert error["extensions"]["code"] == "INVALID_INPUT" and world.position == before


def test_an_operator_is_told_of_its_own_cards_and_what_it_said_itself(world: World, alice: Client, card: str) -> None:
    """The number goes to another operator's card, of which the first was told by its own system only."""
    other = iccid(next(_cards))
    world.party(OTHER_OPERATOR).done("cardRegister", rows=[row(other)])
    say(world, SignalKind.OBSERVED, iccid=card, msisdn=number_of(card), imei=PHONE)
    gone = say(world, SignalKind.PORTED_OUT, msisdn=number_of(card))
    say(world, SignalKind.PORTED_IN, OTHER_OPERATOR, iccid=other, msisdn=number_of(card), imei=THIRD_PHONE,
        occurred_at=datetime.now(UTC))  # fmt: skip
    mallory = world.person("operator", f"operator:{OTHER_OPERATOR}", "mallory")
    own = alice.data(HISTORY, msisdn=number_of(card), purpose="case 9")["lineSwapHistory"]
    others = mallory.data(HISTORY, msisdn=number_of(card), purpose="case 9")["lineSwapHistory"]

    assert {b["iccid"] for b in own["bindings"]} == {card}
    assert {s["source"] for s in own["signals"]} == {f"operator:{OPERATOR}"} and gone in [
        s["position"] for s in own["signals"]
    ]
    assert {b["iccid"] for b in others["bindings"]} == {other}
    assert {s["source"] for s in others["signals"]} == {f"operator:{OTHER_OPERATOR}"}


TOLD = "signals { position source msisdn imsi imei } bindings { msisdn imsi iccid imei }"
OF_CARD = f'query ($of: String!) {{ told: cardSwapHistory(iccid: $of, purpose: "case 12") {{ {TOLD} }} }}'
OF_DEVICE = f'query ($of: String!) {{ told: deviceSwapHistory(imei: $of, purpose: "case 12") {{ {TOLD} }} }}'
OF_LINE = f'query ($of: String!) {{ told: lineSwapHistory(msisdn: $of, purpose: "case 12") {{ {TOLD} }} }}'
NOTHING: dict[str, Any] = {"signals": [], "bindings": []}


def customer_of_another(world: World) -> dict[str, str]:
    """A line that another operator told of, in a card that nobody registered."""
    card = iccid(next(_cards))
    digits = f"001010{card[-9:-1]}"
    line = {"iccid": card, "msisdn": number_of(card), "imsi": f"00101{card[-11:-1]}"}
    line["imei"] = digits + luhn_digit(digits)
    say(world, SignalKind.SUBSCRIBED, OTHER_OPERATOR, occurred_at=datetime.now(UTC) - timedelta(days=100), **line)
    return line


def test_an_operator_that_registers_anothers_card_is_not_told_of_its_customer(world: World, alice: Client) -> None:
    line = customer_of_another(world)
    world.party(OPERATOR).done("cardRegister", rows=[row(line["iccid"])])
    assert alice.data(OF_CARD, of=line["iccid"])["told"] == NOTHING
    assert alice.data(OF_LINE, of=line["msisdn"])["told"] == NOTHING
    say(world, SignalKind.PORTED_IN, iccid=line["iccid"], msisdn=line["msisdn"])
    told = alice.data(OF_CARD, of=line["iccid"])["told"]
    assert {one["source"] for one in told["signals"]} == {f"operator:{OPERATOR}"}
    own = {"msisdn": line["msisdn"], "imsi": None, "iccid": line["iccid"], "imei": None}
    assert told["bindings"] == [own]


@pytest.mark.parametrize("kind", [SignalKind.PORTED_IN, SignalKind.OBSERVED])
def test_an_operator_finds_out_nothing_of_a_line_by_speaking_of_it(
    world: World, alice: Client, card: str, kind: SignalKind
) -> None:
    """A port-in keeps the phone that the number had; an IMSI is looked for in the card that others named with it."""
    line = customer_of_another(world)
    say(world, kind, iccid=card, msisdn=line["msisdn"])
    say(world, kind, msisdn=line["msisdn"], imsi=line["imsi"])
    told = alice.data(OF_LINE, of=line["msisdn"])["told"]
    assert len(told["signals"]) == 2
    assert {one["imei"] for one in told["bindings"]} == {None}
    assert {one["iccid"] for one in told["bindings"]} <= {card, None}
    assert alice.data(OF_DEVICE, of=line["imei"])["told"] == NOTHING


def test_a_card_or_a_device_leads_an_operator_to_no_number_that_it_did_not_tie_to_it_itself(
    world: World, alice: Client, card: str
) -> None:
    """It says something of many numbers, and asks for a device: which of them comes back?"""
    line = customer_of_another(world)
    planted = say(world, SignalKind.INDICATION, msisdn=line["msisdn"], indication="proxy")
    assert alice.data(OF_DEVICE, of=line["imei"])["told"] == NOTHING
    assert alice.data(OF_CARD, of=line["iccid"])["told"] == NOTHING
    [own] = alice.data(OF_LINE, of=line["msisdn"])["told"]["signals"]
    assert own["position"] == planted

    seen, moved = move(world, card)
    weak = say(world, SignalKind.INDICATION, msisdn=number_of(card), indication="proxy")
    told = alice.data(OF_CARD, of=card)["told"]
    assert {one["position"] for one in told["signals"]} == {seen, moved, weak}
    assert [one["imei"] for one in told["bindings"]] == [PHONE, OTHER_PHONE]


def test_an_operator_sees_what_phones_said_of_its_cards_and_of_no_others(
    world: World, alice: Client, officer: Client, card: str
) -> None:
    other = iccid(next(_cards))
    world.party(OTHER_OPERATOR).done("cardRegister", rows=[row(other)])
    for number, seen in enumerate((card, other)):
        said = Signal(
            id=f"app-{seen}-{number}", source="app", kind=SignalKind.OBSERVED, occurred_at=datetime.now(UTC),
            iccid=seen, imei=THIRD_PHONE,
        )  # fmt: skip
        (outcome,) = world.parts.lines.record([said], Context(actor="app", role="system", tenant="", correlation="x"))
        assert outcome.error is None
    assert len(officer.data(OF_DEVICE, of=THIRD_PHONE)["told"]["bindings"]) >= 2
    assert {one["iccid"] for one in alice.data(OF_DEVICE, of=THIRD_PHONE)["told"]["bindings"]} == {card}


def test_an_overseer_of_a_provider_is_told_nothing(world: World, card: str) -> None:
    move(world, card)
    auditor = world.person("auditor", f"provider:{PROVIDER}", "petra")
    told = auditor.data(HISTORY, msisdn=number_of(card), purpose="case 10")["lineSwapHistory"]
    assert told == {"bindings": [], "signals": []}


def test_a_number_that_nobody_ever_told_of_has_no_history(world: World, officer: Client) -> None:
    before = world.position
    told = officer.data(HISTORY, msisdn=NUMBERS[2], purpose="case 11")["lineSwapHistory"]
    assert told == {"bindings": [], "signals": []} and world.position == before


# The policy


RULE = {"name": "moved", "condition": "DEVICE_CHANGED", "level": "ALERT"}


def test_the_policy_is_shown_as_it_is(officer: Client) -> None:
    rules = "rules { name condition level withinHours weights { indication weight } }"
    query = f"{{ swapPolicy {{ version settleHours {rules} }} }}"
    shown = officer.data(query)["swapPolicy"]
    assert shown["settleHours"] == DEFAULT.settle_hours
    assert [(r["name"], r["condition"], r["level"], r["withinHours"]) for r in shown["rules"]] == [
        (rule.name, rule.condition, rule.level.name, rule.within_hours) for rule in DEFAULT.rules
    ]
    assert {"indication": "night-change", "weight": 1} in shown["rules"][-1]["weights"]


def test_a_trial_tells_what_a_policy_would_have_found_of_ones_own_cards(
    world: World, alice: Client, officer: Client, card: str
) -> None:
    move(world, card)
    query = """query ($policy: SwapPolicyInput!) { swapPolicyTrial(policy: $policy)
        { cards rules { rule caught confirmed falseAlarms open } missed { iccid alert } } }"""
    policy = {"version": 2, "settleHours": 1, "rules": [RULE]}
    before = world.position
    whole = officer.data(query, policy=policy)["swapPolicyTrial"]
    own = alice.data(query, policy=policy)["swapPolicyTrial"]
    mallory = world.person("operator", f"operator:{OTHER_OPERATOR}", "mallory")
    others = mallory.data(query, policy=policy)["swapPolicyTrial"]

    assert world.position == before
    assert whole["cards"] == own["cards"] + others["cards"] and own["cards"] > 0
    [rule] = own["rules"]
    assert rule["rule"] == "moved" and rule["caught"] == rule["confirmed"] + rule["falseAlarms"] + rule["open"] > 0
    assert others["rules"] == [{"rule": "moved", "caught": 0, "confirmed": 0, "falseAlarms": 0, "open": 0}]
    auditor = world.person("auditor", f"provider:{PROVIDER}", "petra")
    [error] = auditor.ask(query, policy=policy)["errors"]
    assert error["extensions"]["code"] == "FORBIDDEN"
    assert officer.ask(query, policy=policy)["extensions"]["cost"]["requestedQueryCost"] > 5000


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        ({**RULE, "condition": "BAD_MOOD"}, "condition"),
        ({**RULE, "withinHours": 24}, "withinHours"),
        ({**RULE, "lastsHours": 0}, "lastsHours"),
        ({**RULE, "condition": "WEAK_SIGNALS", "withinHours": 24, "weights": []}, "weights"),
    ],
)
def test_a_policy_that_is_none_is_refused_with_its_place(officer: Client, rule: dict[str, Any], field: str) -> None:
    policy = {"version": 2, "settleHours": 24, "rules": [rule]}
    [(code, place)] = officer.refused("swapPolicyAdopt", policy=policy, reason=WHY)
    assert code == "INVALID_INPUT" and place is not None
    assert (place[:2], place[-1]) == (["policy", "rules"], field)


def test_a_trial_says_where_its_policy_is_none(officer: Client) -> None:
    query = "query ($policy: SwapPolicyInput!) { swapPolicyTrial(policy: $policy) { cards } }"
    policy = {"version": 2, "settleHours": 24, "rules": [RULE, {**RULE, "name": "b", "withinHours": 24}]}
    [error] = officer.ask(query, policy=policy)["errors"]
    assert error["extensions"]["code"] == "INVALID_INPUT"
    assert error["message"] == "policy.rules.1.withinHours is missing or not as specified"


def test_an_indication_that_has_two_weights_is_refused_with_its_place(officer: Client) -> None:
    weights = [{"indication": "proxy", "weight": 3}, {"indication": "proxy", "weight": 1}]
    rule = {**RULE, "condition": "WEAK_SIGNALS", "withinHours": 24, "weights": weights, "threshold": 2}
    policy = {"version": 2, "settleHours": 24, "rules": [rule]}
    place = ["policy", "rules", "0", "weights", "1", "indication"]
    assert officer.refused("swapPolicyAdopt", policy=policy, reason=WHY) == [("INVALID_INPUT", place)]


def test_a_policy_is_adopted_by_two_officers_who_are_appointed_for_all(world: World, officer: Client) -> None:
    policy = {"version": 2, "settleHours": 24, "rules": [RULE]}
    local = world.person("security-officer", f"operator:{OPERATOR}", "olga")
    assert local.refused("swapPolicyAdopt", policy=policy, reason=WHY) == [("FORBIDDEN", None)]
    skipped = officer.refused("swapPolicyAdopt", policy={**policy, "version": 9}, reason=WHY)
    assert skipped == [("WRONG_ORDER", ["policy", "version"])]

    shown = "operation { operation state kind target }"
    asked = officer.done("swapPolicyAdopt", shown, policy=policy, reason=WHY)["operation"]
    assert (asked["state"], asked["target"]) == ("AWAITING_APPROVAL", "swap-policy/2")
    assert officer.refused("operationApprove", operation=asked["operation"])[0][0] == "FORBIDDEN"
    assert world.parts.standings.policy() == DEFAULT
    second = world.person("security-officer", "*", "olaf")
    second.done("operationApprove", operation=asked["operation"])
    assert until(lambda: world.parts.standings.policy().version == 2)

    query = "{ swapPolicies { version operation reason rules { level } } }"
    now, built_in = officer.data(query)["swapPolicies"]
    assert now == {
        "version": 2, "operation": asked["operation"], "reason": WHY, "rules": [{"level": "ALERT"}],
    }  # fmt: skip
    assert (built_in["version"], built_in["operation"]) == (1, None)


def until(holds: Any) -> bool:
    """A worker carries it out."""
    end = monotonic() + 20
    while not holds() and monotonic() < end:
        sleep(0.02)
    return bool(holds())
