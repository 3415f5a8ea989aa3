"""The cookbook's questions, asked as it says, of the server of a demo run; its answers, held against the real ones."""

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest

from tests.api.cookbook import DOCUMENT, Meanings, Question, Step, questions
from tests.api.cookbook_world import ALICE, NEW_CARDS, WAITING, Desk, opened
from tests.conftest import CITIZEN, DemoRun
from tests.line_samples import OTHER_PHONE, PHONE
from tsm.mas.launch import LaunchParameters

TEXT = DOCUMENT.read_text()
QUESTIONS = questions(TEXT)
STEPS = [step for question in QUESTIONS for step in question.steps]
ICCID, CREDENTIAL = "8981102894806408296", "49337a95-c2ec-4d6b-80e0-6e75bcdfc620"  # of the run that the document shows
DOMAIN, APPLICATION = "A0000001514A504B49", "D392F000260100000001"
APPLICANT = CITIZEN["name"]
OTHER = "9b64c1de-1b7f-4a53-8a61-7d0f2e8c4b22"
TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:]+Z")
DAY, MONTH = timedelta(days=1), timedelta(days=30)
Told = dict[str, Any]  # by the name of the step, the last answer


# What happens beside the questions


def lock_the_domain(desk: Desk, _: Told) -> None:
    """Somebody locks and unlocks; here the provider's domain is locked as the question is asked."""
    carry_out(desk, ALICE, "securityDomainLock", domain=DOMAIN, reason="a complaint of the provider")


def unlock_the_domain(desk: Desk, _: Told) -> None:
    carry_out(desk, ALICE, "securityDomainUnlock", domain=DOMAIN, reason="it was a mistake")


def carry_out(desk: Desk, who: tuple[str, str, str], name: str, **about: Any) -> None:
    """An operation from the request to its end, with the phone."""
    operation = desk.done(who, name, "operation { operation }", iccid=desk.iccid, **about)["operation"]["operation"]
    desk.carry(desk.done(who, "operationContact", "launch", operation=operation)["launch"])
    desk.until(lambda: desk.is_over(operation))


def the_phone_obeys(desk: Desk, told: Told) -> None:
    desk.carry(told["Contact"]["operationContact"]["launch"])
    desk.until(lambda: desk.is_over(told["Lock"]["applicationLock"]["operation"]["operation"]))


def a_phone_begins(desk: Desk, _: Told) -> None:
    """An audit of the card, of which the phone is not heard again."""
    asked = desk.done(ALICE, "cardAudit", "operation { operation }", iccid=desk.iccid)["operation"]["operation"]
    desk.begin(desk.done(ALICE, "operationContact", "launch", operation=asked)["launch"])


def carried_out(name: str, mutation: str) -> Callable[[Desk, Told], None]:
    """The worker did what a second person agreed to."""
    return lambda desk, told: desk.until(lambda: desk.is_over(told[name][mutation]["operation"]["operation"]))


BEFORE: dict[str, Callable[[Desk, Told], None]] = {
    "LockedDomains": lock_the_domain,
    "StaffActions": unlock_the_domain,
    "Follow": the_phone_obeys,
    "LiveSessions": a_phone_begins,
    "Revoked": carried_out("Revoke", "credentialRevoke"),
    "Erased": carried_out("Erase", "personErase"),
}


# What the answers prove


def nodes(told: Told, name: str, field: str) -> Any:
    return told[name][field]["nodes"]


def the_keys_have_sessions_and_holders(desk: Desk, told: Told) -> None:
    provisional, own = nodes(told, "WhoCouldHaveWritten", "keyHistory")
    assert (provisional["party"], provisional["handedOutTo"]) == ("MNO00001", "JPKI0001")
    assert (own["party"], own["sharedBy"], own["session"]["keyVersion"]) == ("JPKI0001", "JPKI0001", 1)
    assert provisional["destroyedAt"] > own["recordedAt"] > provisional["handedOutAt"]


def the_card_holds_the_applet(desk: Desk, told: Told) -> None:
    [domain] = told["OnTheCard"]["card"]["domainTree"]["domains"]
    assert [application["aid"] for application in domain["applications"]] == [APPLICATION]
    record = desk.parts.tsm.card_of(desk.iccid)
    assert domain["aid"] in record.domains and domain["loadFiles"][0]["aid"] in record.load_files


def then_there_were_provisional_keys_only(_: Desk, told: Told) -> None:
    [domain] = told["OnTheCardThen"]["card"]["domainTree"]["domains"]
    assert domain["keys"] == [{"version": 1, "provisional": True, "current": True}]
    assert domain["applications"] == domain["loadFiles"] == []


def the_applet_is_on_the_card(desk: Desk, told: Told) -> None:
    assert [file["iccid"] for file in nodes(told, "CardsWithLoadFile", "loadFiles")] == [desk.iccid]


def the_reception_put_the_keys(desk: Desk, told: Told) -> None:
    [delegation] = nodes(told, "WhatBecameOf", "delegations")
    assert (delegation["iccid"], delegation["commands"], delegation["executed"]) == (desk.iccid, 1, 1)
    assert [event["topic"] for event in delegation["events"]["nodes"]][-1] == "delegation.ended"


def the_domain_is_locked(desk: Desk, told: Told) -> None:
    assert [(one["iccid"], one["aid"]) for one in nodes(told, "LockedDomains", "securityDomains")] == [
        (desk.iccid, DOMAIN)
    ]


def staff_of_yesterday_and_nobody_else(_: Desk, told: Told) -> None:
    acted = [(event["actor"], event["topic"]) for event in nodes(told, "StaffActions", "events")]
    alice, bob = "operator:MNO00001/alice", "operator:MNO00001/bob"
    assert acted == [
        (alice, "card.registered"),
        (alice, "card.registered"),
        (alice, "operation.requested"),
        (bob, "operation.ended"),
    ]


def the_history_names_nobody(_: Desk, told: Told) -> None:
    topics = [event["topic"] for event in told["CardHistory"]["card"]["issuanceHistory"]["nodes"]]
    assert (topics[0], topics[-1]) == ("credential.applied", "credential.activated")
    assert APPLICANT not in json.dumps(told["CardHistory"])


def the_purpose_unseals(desk: Desk, told: Told) -> None:
    [credential] = nodes(told, "WhoIsIt", "credentials")
    assert (credential["credential"], credential["personalData"]["iccid"]) == (desk.credential, desk.iccid)
    assert credential["personalData"]["applicant"] == APPLICANT


def who_looked_is_told(_: Desk, told: Told) -> None:
    [seen] = nodes(told, "WhoSaw", "events")
    assert (seen["actor"], seen["values"]["purpose"]) == ("auditor:ann", "warrant 2026-117")


def two_wait_at_the_counter(_: Desk, told: Told) -> None:
    assert [one["credential"] for one in nodes(told, "WaitingAtTheCounter", "credentials")] == list(WAITING)


def the_lock_is_asked_for(_: Desk, told: Told) -> None:
    lock = told["Lock"]["applicationLock"]["operation"]
    assert (lock["state"], lock["requestedBy"]) == ("WAITING", "provider:JPKI0001/paula")


def the_lock_waits(_: Desk, told: Told) -> None:
    lock = told["Lock"]["applicationLock"]["operation"]
    assert [one["operation"] for one in nodes(told, "WaitingForContact", "operations")] == [lock["operation"]]


def the_phone_gets_its_launch(desk: Desk, told: Told) -> None:
    payload = told["Contact"]["operationContact"]
    launch = LaunchParameters.parse(payload["launch"])
    assert (launch.provider, launch.reception) == ("MNO00001", payload["operation"]["reception"])


def the_lock_is_done(desk: Desk, told: Told) -> None:
    assert told["Follow"]["operation"]["state"] == "DONE"
    assert told["Follow"]["operation"]["reception"] == told["Contact"]["operationContact"]["operation"]["reception"]
    assert desk.parts.tsm.card_of(desk.iccid).applications[APPLICATION].life_cycle == "LOCKED"


def the_session_is_live(desk: Desk, told: Told) -> None:
    [session] = nodes(told, "LiveSessions", "sessions")
    assert (session["iccid"], session["state"], session["party"]) == (desk.iccid, "STARTED", "MNO00001")


def the_deletion_awaits_a_second_person(_: Desk, told: Told) -> None:
    assert told["DeleteDomain"]["securityDomainDelete"]["operation"]["state"] == "AWAITING_APPROVAL"


def two_people_agreed(_: Desk, told: Told) -> None:
    [refused] = told["ApproveOwn"]["operationApprove"]["userErrors"]
    assert refused["code"] == "FORBIDDEN"
    approved = told["Approve"]["operationApprove"]["operation"]
    assert (approved["requestedBy"], approved["approvedBy"]) == ("operator:MNO00001/alice", "operator:MNO00001/bob")


def the_credential_is_closed(desk: Desk, told: Told) -> None:
    assert told["Revoked"]["operation"]["state"] == "DONE"
    assert told["Revoked"]["credential"]["closed"] == "revoking"


def the_person_is_gone(desk: Desk, told: Told) -> None:
    erased = told["Erased"]["credential"]
    assert (erased["closed"], erased["iccid"]) == ("erased", None)
    assert set(erased["personalData"].values()) == {None}


def the_cards_are_registered_once(desk: Desk, told: Told) -> None:
    payload = told["Register"]["cardRegister"]
    assert payload["repeated"] and len(payload["cards"]) == 2
    registered = [event for event in desk.parts.tsm.read(0, 10_000) if event.topic == "card.registered"]
    assert [event.fact.iccid for event in registered][-2:] == [card["iccid"] for card in payload["cards"]]
    assert len(registered) == 5


def the_own_write_is_there(_: Desk, told: Told) -> None:
    assert told["OwnWrite"]["card"]["position"] == told["Register"]["cardRegister"]["cards"][0]["position"]


def the_export_is_whole(desk: Desk, told: Told) -> None:
    *lines, last = (json.loads(line) for line in told["/exports/events"])
    assert last["complete"] and last["events"] == len(lines)
    assert [line["position"] for line in lines] == list(range(1, len(lines) + 1))
    assert APPLICANT not in json.dumps(lines)


def nothing_is_left_out_after_the_cut(desk: Desk, told: Told) -> None:
    came = [answer["events"]["position"] for answer in told["FollowOn"]]
    after = nodes(told, "StaffActions", "events")[3]["position"]
    wanted = [event.position for event in desk.parts.tsm.read(after, 10_000) if event.topic.startswith("operation.")]
    assert came == wanted[: len(came)]


def the_counts_are_right(desk: Desk, told: Told) -> None:
    counts = {(one["kind"], one["value"]): one["count"] for one in told["HowMuch"]["counts"]}
    assert (counts["cards", None], counts["sessions", "STARTED"]) == (5, 1)


def a_clerk_may_lock_and_release_cards_and_no_more(_: Desk, told: Told) -> None:
    viewer = told["WhoAmI"]["viewer"]
    assert "credentials" in viewer["mayAsk"]
    assert viewer["mayDo"] == ["cardHoldRelease", "cardLockRequest", "cardUnlockRequest"]


def nothing_is_parked(_: Desk, told: Told) -> None:
    models = told["Behind"]["readModels"]
    assert models and {model["parkedCount"] for model in models} == {0}
    assert {model["position"] for model in models} == {told["Behind"]["logPosition"]}


def the_cards_on_hold_are_those_that_sessions_are_refused_with(desk: Desk, told: Told) -> None:
    found = {one["iccid"]: one["level"] for one in nodes(told, "OnHold", "standings")}
    assert found == dict(zip(NEW_CARDS, ("LOCK", "HOLD"), strict=True))
    assert all(desk.parts.standings.of(card).on_hold for card in NEW_CARDS)


def the_evidence_is_the_signals_that_lie_there(desk: Desk, told: Told) -> None:
    alert = told["Evidence"]["alert"]
    assert [event["position"] for event in alert["evidence"]["nodes"]] == alert["evidencePositions"]
    kinds = [event.fact.kind for event in desk.parts.tsm.at(alert["evidencePositions"])]
    assert kinds == ["OBSERVED", "DEVICE_CHANGED"]


def nobody_said_anything_for_a_day(_: Desk, told: Told) -> None:
    assert [one["iccid"] for one in nodes(told, "Waited", "alerts")] == list(NEW_CARDS)[::-1]


def the_history_is_told_and_recorded(desk: Desk, told: Told) -> None:
    history = told["LineHistory"]["lineSwapHistory"]
    assert [signal["kind"] for signal in history["signals"]] == ["DEVICE_CHANGED"]
    assert [one["imei"] for one in history["bindings"]] == [PHONE, OTHER_PHONE]
    read = [e for e in desk.parts.tsm.read(0, 10_000) if e.topic == "reading.data_accessed"][-1]
    assert read.fact.purpose == "police request 88"


def the_case_goes_from_the_signal_to_alice(_: Desk, told: Told) -> None:
    topics = [event["topic"] for event in told["Timeline"]["alert"]["timeline"]["nodes"]]
    assert (topics[0], topics[-1]) == ("line.signal_recorded", "standing.suspicion_acknowledged")


def the_card_is_free(desk: Desk, _: Told) -> None:
    assert not desk.parts.standings.of(NEW_CARDS[1]).on_hold


def the_trial_found_what_was_found(desk: Desk, told: Told) -> None:
    lost, back = told["Trial"]["swapPolicyTrial"]["rules"]
    assert (lost["caught"], lost["open"], back["caught"]) == (1, 1, 0)
    assert desk.parts.standings.policy().version == 1


def every_change_of_an_alert_comes(_: Desk, told: Told) -> None:
    changes = [answer["alerts"] for answer in told["FollowAlerts"]]
    assert {change["alert"]["iccid"] for change in changes} == set(NEW_CARDS)


PROOFS: dict[str, Callable[[Desk, Told], None]] = {  # by what a question sends last
    "WhoCouldHaveWritten": the_keys_have_sessions_and_holders,
    "OnTheCard": the_card_holds_the_applet,
    "OnTheCardThen": then_there_were_provisional_keys_only,
    "CardsWithLoadFile": the_applet_is_on_the_card,
    "WhatBecameOf": the_reception_put_the_keys,
    "LockedDomains": the_domain_is_locked,
    "StaffActions": staff_of_yesterday_and_nobody_else,
    "CardHistory": the_history_names_nobody,
    "WhoIsIt": the_purpose_unseals,
    "WhoSaw": who_looked_is_told,
    "WaitingAtTheCounter": two_wait_at_the_counter,
    "Lock": the_lock_is_asked_for,
    "WaitingForContact": the_lock_waits,
    "Contact": the_phone_gets_its_launch,
    "Follow": the_lock_is_done,
    "LiveSessions": the_session_is_live,
    "DeleteDomain": the_deletion_awaits_a_second_person,
    "Approve": two_people_agreed,
    "Revoked": the_credential_is_closed,
    "Erased": the_person_is_gone,
    "Register": the_cards_are_registered_once,
    "OwnWrite": the_own_write_is_there,
    "/exports/events": the_export_is_whole,
    "FollowOn": nothing_is_left_out_after_the_cut,
    "HowMuch": the_counts_are_right,
    "WhoAmI": a_clerk_may_lock_and_release_cards_and_no_more,
    "Behind": nothing_is_parked,
    "OnHold": the_cards_on_hold_are_those_that_sessions_are_refused_with,
    "Evidence": the_evidence_is_the_signals_that_lie_there,
    "Waited": nobody_said_anything_for_a_day,
    "LineHistory": the_history_is_told_and_recorded,
    "Timeline": the_case_goes_from_the_signal_to_alice,
    "Release": the_card_is_free,
    "Trial": the_trial_found_what_was_found,
    "FollowAlerts": every_change_of_an_alert_comes,
}


# The run


class Run:
    """All questions, asked in the order of the document of one server."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.asked: list[Question] = []
        self.told: Told = {}
        now = datetime.now(UTC)
        self.meanings = Meanings({
            ICCID: desk.iccid,
            CREDENTIAL: desk.credential,
            "2026-11-22T00:00:00+09:00": (now - DAY / 2).isoformat(),
            "2026-11-23T00:00:00+09:00": (now + DAY / 2).isoformat(),
            "2026-11-01T00:00:00Z": (now - MONTH).isoformat(),
            "2026-11-12T00:00:00Z": (now - 10 * DAY).isoformat(),
            "2026-12-01T00:00:00Z": (now + MONTH).isoformat(),
        })  # fmt: skip

    def ask_until(self, question: Question) -> None:
        """With all that come before it: a later question may be about what an earlier one brought about."""
        while question not in self.asked:
            self.asked.append(QUESTIONS[len(self.asked)])
            self.ask(self.asked[-1])

    def ask(self, question: Question) -> None:
        for step in question.steps:
            self.desk.catch_up()
            if step.name in BEFORE:
                BEFORE[step.name](self.desk, self.told)
                self.desk.catch_up()
            for shown in step.answers:
                self.told[step.name] = self.send(step, shown)
                self.compare(step, shown)

    def send(self, step: Step, shown: Any) -> Any:
        token, variables = self.desk.token(*step.who), self.meanings.of(step.variables)
        if step.kind == "http":
            return self.desk.get(token, self.url(step.text))
        if step.kind == "subscription":
            came = self.desk.listen(token, step.text, variables, len(shown))
            return [answer["data"] for answer in came]
        answer = self.desk.ask(token, step.text, variables)
        assert "errors" not in answer, answer["errors"]
        return answer["data"]

    def url(self, shown: str) -> str:
        """The line of the document, with the times of this run."""
        return TIME.sub(lambda found: quote(self.meanings.of(found[0]), safe=""), shown)

    def compare(self, step: Step, shown: Any) -> None:
        """Of an export, which is shown as lines, the proof alone tells."""
        if step.kind != "http":
            self.meanings.compare(shown, self.told[step.name], step.name)


@pytest.fixture(scope="module")
def run(demo_run: DemoRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    with opened(demo_run, tmp_path_factory.mktemp("cookbook")) as desk:
        yield Run(desk)


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.steps[-1].name)
def test_the_answer_is_as_the_cookbook_says(run: Run, question: Question) -> None:
    run.ask_until(question)
    PROOFS[question.steps[-1].name](run.desk, run.told)


# The document


def test_there_are_twenty_questions_each_with_an_answer_and_what_it_does_not_tell() -> None:
    assert len(QUESTIONS) >= 20
    for question in QUESTIONS:
        assert question.title.strip() and question.not_told, question.title
        assert question.steps and all(step.answers for step in question.steps), question.title


def test_every_question_has_a_proof_and_every_query_is_run() -> None:
    assert [question.steps[-1].name for question in QUESTIONS] == list(PROOFS)
    assert len({step.name for step in STEPS}) == len(STEPS)
    assert BEFORE.keys() <= {step.name for step in STEPS}
    assert len(STEPS) == len(re.findall(r"^```(?:graphql|http)$", TEXT, re.MULTILINE))


def test_the_numbers_of_the_questions_run_from_one() -> None:
    numbers = [int(number) for number in re.findall(r"^### (\d+)\. ", TEXT, re.MULTILINE)]
    assert numbers == list(range(1, len(QUESTIONS) + 1))


def test_readme_and_documents_lead_to_the_cookbook() -> None:
    assert "docs/cookbook.md" in (DOCUMENT.parents[1] / "README.md").read_text()
    for name in ("access.md", "audit.md"):
        assert "cookbook.md" in (DOCUMENT.parent / name).read_text()


# The comparison


@pytest.mark.parametrize(
    ("shown", "real"),
    [
        ({"state": "DONE"}, {"state": "FAILED"}),
        ({"state": "DONE"}, {"state": "DONE", "code": None}),
        ({"recordedAt": "2026-11-21T16:11:46Z"}, {"recordedAt": "yesterday"}),
        ([1], [1, 2]),
        (["a", "…"], ["a"]),
        ({"a": None}, {"a": ""}),
        ({"count": 2}, {"count": 3}),
        ("START: 2026112200000001", "END: 2026112200000007"),
        (["2f1d6a04-6f0c-4f0e-9d3a-0c1b5e7a9f11"] * 2, [CREDENTIAL, "9b64c1de-1b7f-4a53-8a61-7d0f2e8c4b22"]),
        ({"position": 7, "logPosition": 7}, {"position": 8, "logPosition": 9}),
    ],
)
def test_an_answer_that_is_another_is_found(shown: Any, real: Any) -> None:
    with pytest.raises(AssertionError):
        Meanings({}).compare(shown, real)


def test_what_stood_for_something_stands_for_it_in_variables() -> None:
    meanings = Meanings({})
    meanings.compare({"operation": CREDENTIAL, "position": 7, "n": 7}, {"operation": OTHER, "position": 9, "n": 7})
    variables = {"input": {"operation": CREDENTIAL, "minPosition": 7, "n": 7}, "after": 7}
    assert meanings.of(variables) == {"input": {"operation": OTHER, "minPosition": 9, "n": 7}, "after": 9}
