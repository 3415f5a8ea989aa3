"""What was told of lines, cards and devices; and the policy by which that is judged.

Numbers, SIMs and devices are personal data: who asks names a purpose, and whose they are is recorded before the answer
leaves. No list of other things leads here, and no subscription.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from enum import Enum
from threading import Lock
from typing import Annotated, Any

import msgspec
import strawberry
from strawberry.types import Info
from strawberry.utils.str_converters import to_camel_case

from api.graphql.context import Context
from api.graphql.types.credentials import Purpose, read_purpose
from api.graphql.types.events import time_of
from api.graphql.types.scalars import Position, refuse
from projections.viewer import EVERYTHING
from tsm.errors import ErrorCode, TsmError, within
from tsm.flows.known_signals import homes
from tsm.flows.lines import History
from tsm.identifiers import Iccid, Imei, Msisdn
from tsm.model import swap_policy
from tsm.model.bindings import Binding, Known, bindings_among
from tsm.model.card import stream as card_stream
from tsm.model.checks import refusal
from tsm.model.line import BY_OPERATOR, Signal
from tsm.model.swap_policy import Policy, PolicyAdopted
from tsm.store.loop import aside

TRIALS = ThreadPoolExecutor(1, thread_name_prefix="trial")
TRIED = Lock()  # one at a time: it reads the signals of all cards
Since = Annotated[
    datetime | None,
    strawberry.argument(description="Only what was so at this time or later; the time names its offset from UTC."),
]


@strawberry.type(description="That a number, a SIM and a device belonged together for a time, as far as it was told.")
class LineBinding:
    msisdn: str | None = strawberry.field(description="The number; null for a card whose number nobody told.")
    imsi: str | None = strawberry.field(description="The subscription in the SIM; null when nobody told it.")
    iccid: str | None = strawberry.field(description="The card; null when nobody told it.")
    imei: str | None = strawberry.field(description="The device; null when nobody told it.")
    since: datetime = strawberry.field(description="From when on, as the signals claim.")
    until: datetime | None = strawberry.field(description="Until when; null while it is so.")
    evidence: list[Position] = strawberry.field(description="Positions of the signals that say so.")


@strawberry.type(description="What a source said of a line.")
class LineSignal:
    position: Position = strawberry.field(description="Place in the one log.")
    kind: str = strawberry.field(description="What it says: `OBSERVED`, `SIM_REPLACED`, `DEVICE_CHANGED`, `LOST` ...")
    source: str = strawberry.field(description="Who said it: `operator:MNO00001`, `app`, `card`.")
    occurred_at: datetime = strawberry.field(description="When it was so, as the source claims.")
    recorded_at: datetime = strawberry.field(description="When it was told.")
    msisdn: str | None = strawberry.field(description="The number.")
    imsi: str | None = strawberry.field(description="The subscription in the SIM.")
    iccid: str | None = strawberry.field(description="The card.")
    imei: str | None = strawberry.field(description="The device.")
    previous: str | None = strawberry.field(description="The card, or the number, in whose place it came.")
    indication: str | None = strawberry.field(description="Of an INDICATION: which.")
    until: datetime | None = strawberry.field(description="Of a MODEL_CHANGE_ANNOUNCED: until when.")


@strawberry.type(
    description="What was told of a number, a card or a device, in the order of the times that sources claim. Whose"
    " tenure is erased is left out. An operator is shown what it said itself, and what phones, cards and clerks said of"
    " its cards, as if no other operator had said anything."
)
class SwapHistory:
    bindings: list[LineBinding] = strawberry.field(description="What belonged together, and when.")
    signals: list[LineSignal] = strawberry.field(description="What was said.")


def line_swap_history(
    info: Info[Context, None],
    msisdn: Annotated[str, strawberry.argument(description="The number, E.164 with its plus.")],
    purpose: Purpose,
    since: Since = None,
) -> SwapHistory:
    return told(info.context, purpose, since, msisdn=str(Msisdn(msisdn)))


def card_swap_history(
    info: Info[Context, None],
    iccid: Annotated[str, strawberry.argument(description="The card: 19 or 20 digits, the last a Luhn digit.")],
    purpose: Purpose,
    since: Since = None,
) -> SwapHistory:
    return told(info.context, purpose, since, iccid=str(Iccid(iccid)))


def device_swap_history(
    info: Info[Context, None],
    imei: Annotated[str, strawberry.argument(description="The device: 15 digits, the last a Luhn digit.")],
    purpose: Purpose,
    since: Since = None,
) -> SwapHistory:
    return told(info.context, purpose, since, imei=str(Imei(imei)))


def told(context: Context, purpose: str, since: datetime | None, **asked: str) -> SwapHistory:
    """As far as the caller may see; whose data was read is recorded whatever of it he is shown."""
    purpose, since = read_purpose(purpose), time_of("since", since)
    history = context.parts.lines.history(**asked)
    for subject in history.subjects:
        context.unsealed.add(subject, purpose)
    if context.viewer != EVERYTHING:
        history = as_seen(context, history, **asked)
    return SwapHistory(
        bindings=[binding(one) for one in history.bindings if since is None or one.until is None or one.until >= since],
        signals=[signal(one) for one in history.signals if since is None or one.signal.occurred_at >= since],
    )


def as_seen(context: Context, history: History, **asked: str) -> History:
    """As if nobody had said anything that the caller may not see.

    So whatever he asks, and has said of others' numbers to find out, nothing tells him what others said: neither which
    number a device belongs to, for only numbers count that he tied to it himself, nor what a binding took over from one
    before it.
    """
    seen = visible(context, history.signals)
    of_it = [one.signal for one in seen if not named_in(one.signal).isdisjoint(asked.values())]
    streams = {home for said in of_it for home in homes(said)}
    signals = [one for one in seen if not streams.isdisjoint(homes(one.signal))]
    return history._replace(signals=tuple(signals), bindings=bindings_among(signals, **asked))


def visible(context: Context, signals: Sequence[Known]) -> list[Known]:
    """To an operator what it said itself, and what phones, cards and clerks said of its cards; to others nothing.

    What another operator says is that one's, also where it names a card that this one registered.
    """
    viewer = context.viewer
    if viewer.kind != "operator":
        return []
    cards = {card_stream(one.signal.iccid): one.signal.iccid for one in signals if one.signal.iccid}
    registered = [cards[stream] for stream in context.log.existing(list(cards))]
    own = {iccid for iccid in registered if context.log.card_of(iccid).operator == viewer.party}
    return [one for one in signals if said_by(viewer.party, one.signal) or is_of(own, one.signal)]


def said_by(operator: str, said: Signal) -> bool:
    return said.source == f"{BY_OPERATOR}{operator}"


def is_of(cards: set[str], said: Signal) -> bool:
    return said.iccid in cards and not said.source.startswith(BY_OPERATOR)


def named_in(said: Signal) -> set[str]:
    """Of what one asks by; digits and signs tell numbers, cards and devices apart."""
    return {said.msisdn, said.previous, said.iccid, said.imei}


def binding(one: Binding) -> LineBinding:
    return LineBinding(
        msisdn=one.msisdn or None,
        imsi=one.imsi or None,
        iccid=one.iccid or None,
        imei=one.imei or None,
        since=one.since,
        until=one.until,
        evidence=[Position(position) for position in one.evidence],
    )


def signal(one: Known) -> LineSignal:
    said = one.signal
    return LineSignal(
        position=Position(one.position),
        kind=said.kind,
        source=said.source,
        occurred_at=said.occurred_at,
        recorded_at=one.recorded_at,
        msisdn=said.msisdn or None,
        imsi=said.imsi or None,
        iccid=said.iccid or None,
        imei=said.imei or None,
        previous=said.previous or None,
        indication=said.indication or None,
        until=said.until,
    )


# The policy


@strawberry.enum(description="What a suspicion leads to; each includes the ones before it.")
class SwapLevel(Enum):
    ALERT = strawberry.enum_value("ALERT", description="Somebody is told.")
    HOLD = strawberry.enum_value("HOLD", description="Sessions are refused, certificates are on hold.")
    LOCK = strawberry.enum_value("LOCK", description="And the applet is locked at the card's next contact.")
    REVOKE = strawberry.enum_value(
        "REVOKE", description="And after the settle window revoked and deleted. No release takes that back."
    )


@strawberry.type(description="How much an indication counts.")
class SwapWeight:
    indication: str = strawberry.field(description="Its name: `call-forwarding`.")
    weight: int = strawberry.field(description="What it adds.")


@strawberry.type(description="One condition, and what it leads to.")
class SwapRule:
    name: str = strawberry.field(description="Its name, unique in its policy.")
    condition: str = strawberry.field(description="What is suspicious.")
    level: str = strawberry.field(description="What that leads to.")
    within_hours: int | None = strawberry.field(description="The window, of conditions that have one.")
    lasts_hours: int | None = strawberry.field(description="How long it lasts; null: until somebody releases the card.")
    weights: list[SwapWeight] = strawberry.field(description="Of WEAK_SIGNALS: what each indication adds.")
    threshold: int | None = strawberry.field(description="Of WEAK_SIGNALS: from which sum on it applies.")


@strawberry.type(description="The policy by which signals are judged, in one version.")
class SwapPolicy:
    version: int = strawberry.field(description="Its number, from 1 on.")
    settle_hours: int = strawberry.field(description="How long a revocation waits for signals that come late.")
    rules: list[SwapRule] = strawberry.field(description="All that counts.")
    adopted_at: datetime | None = strawberry.field(description="When it was adopted; null for the one built in.")
    operation: str | None = strawberry.field(
        description="The operation that did it, which tells who asked and who agreed; null for the one built in."
    )
    reason: str | None = strawberry.field(description="Why; null for the one built in.")
    position: Position | None = strawberry.field(description="Position of that event; null for the one built in.")


@strawberry.type(description="What a rule would have found.")
class SwapRuleTrial:
    rule: str = strawberry.field(description="Its name.")
    caught: int = strawberry.field(description="How many cases; they are the next three together.")
    confirmed: int = strawberry.field(description="Of these, cases that somebody confirmed.")
    false_alarms: int = strawberry.field(description="Of these, cases that somebody called a false alarm.")
    open: int = strawberry.field(description="Of these, cases of which nobody said what they were.")


@strawberry.type(description="A confirmed case that no rule would have found.")
class MissedCase:
    iccid: str = strawberry.field(description="The card.")
    alert: str = strawberry.field(description="The alert that was confirmed.")


@strawberry.type(description="A policy held against all signals that are known today.")
class SwapPolicyTrial:
    cards: int = strawberry.field(description="How many cards have any signals.")
    rules: list[SwapRuleTrial] = strawberry.field(description="Rule by rule.")
    missed: list[MissedCase] = strawberry.field(description="What was confirmed, and would have been missed.")


@strawberry.input(description="How much an indication counts.")
class SwapWeightInput:
    indication: str = strawberry.field(description="Its name.")
    weight: int = strawberry.field(description="What it adds, from 1 on.")


@strawberry.input(description="One condition, and what it leads to.")
class SwapRuleInput:
    name: str = strawberry.field(description="Its name, unique in the policy.")
    condition: str = strawberry.field(description="What is suspicious, one of the conditions that `swapPolicy` shows.")
    level: SwapLevel = strawberry.field(description="What that leads to.")
    within_hours: int | None = strawberry.field(
        default=None, description="The window; of TWO_DEVICES and WEAK_SIGNALS, and of no other."
    )
    lasts_hours: int | None = strawberry.field(default=None, description="How long it lasts; null: until the release.")
    weights: list[SwapWeightInput] = strawberry.field(
        default_factory=list, description="Of WEAK_SIGNALS: what each indication adds."
    )
    threshold: int = strawberry.field(default=0, description="Of WEAK_SIGNALS: from which sum on it applies.")


@strawberry.input(description="A policy by which signals are to be judged.")
class SwapPolicyInput:
    version: int = strawberry.field(description="Its number: one more than that of the policy in force.")
    settle_hours: int = strawberry.field(description="How long a revocation waits for signals that come late.")
    rules: list[SwapRuleInput] = strawberry.field(description="All that is to count.")


def read_policy(given: SwapPolicyInput) -> Policy:
    """INVALID_INPUT, with the field."""
    return swap_policy.read_policy(document_of(given))


def document_of(given: SwapPolicyInput) -> bytes:
    """As a policy is written down elsewhere, too. INVALID_INPUT where an indication has two weights."""
    rules = [
        {
            "name": rule.name,
            "condition": rule.condition,
            "level": str(SwapLevel(rule.level).value),
            "within_hours": rule.within_hours,
            "lasts_hours": rule.lasts_hours,
            "weights": weights_of(number, rule),
            "threshold": rule.threshold,
        }
        for number, rule in enumerate(given.rules)
    ]
    return msgspec.json.encode({"version": given.version, "settle_hours": given.settle_hours, "rules": rules})


def weights_of(number: int, rule: SwapRuleInput) -> dict[str, int]:
    """By indication. The number is the rule's place in its policy."""
    weights: dict[str, int] = {}
    for place, each in enumerate(rule.weights):
        with within("rules", str(number), "weights", str(place)):
            if each.indication in weights:
                raise refusal("indication", "it has a weight already")
        weights[each.indication] = each.weight
    return weights


def swap_policies(info: Info[Context, None]) -> list[SwapPolicy]:
    """The newest first. There are few, and the log has them whole."""
    known = [
        policy_of(
            event.fact.policy,
            adopted_at=event.recorded_at,
            operation=event.context.correlation,
            reason=event.context.reason or None,
            position=Position(event.position),
        )
        for event in info.context.log.history(swap_policy.STREAM)
        if isinstance(event.fact, PolicyAdopted)
    ]
    return [policy_of(swap_policy.DEFAULT), *known][::-1]


def present_policy(info: Info[Context, None]) -> SwapPolicy:
    return swap_policies(info)[0]


def policy_of(policy: Policy, **adopted: Any) -> SwapPolicy:
    rules = [
        SwapRule(
            name=rule.name,
            condition=rule.condition,
            level=rule.level.name,
            within_hours=rule.within_hours,
            lasts_hours=rule.lasts_hours,
            weights=[SwapWeight(indication=name, weight=weight) for name, weight in sorted(rule.weights.items())],
            threshold=rule.threshold or None,
        )
        for rule in policy.rules
    ]
    values = dict.fromkeys(("adopted_at", "operation", "reason", "position")) | adopted
    return SwapPolicy(version=policy.version, settle_hours=policy.settle_hours, rules=rules, **values)


def swap_policy_trial(
    info: Info[Context, None],
    policy: Annotated[SwapPolicyInput, strawberry.argument(description="What is to be tried.")],
    since: Annotated[
        datetime | None,
        strawberry.argument(description="Only cases that began at this time or later, with its offset from UTC."),
    ] = None,
) -> SwapPolicyTrial:
    """In a thread of its own, and never two at once: STORE_BUSY. An operator's is about its own cards."""
    context, wanted, begin = info.context, policy_to_try(policy), time_of("since", since)
    viewer = context.viewer
    if viewer.kind not in ("everything", "operator"):
        raise TsmError(ErrorCode.FORBIDDEN, f"{viewer.kind} {viewer.party}")
    if not TRIED.acquire(blocking=False):
        raise TsmError(ErrorCode.STORE_BUSY, "another trial is under way")
    try:
        trial = aside(TRIALS, context.parts.standings.trial, wanted, begin, viewer.party)
    finally:
        TRIED.release()
    return SwapPolicyTrial(
        cards=trial.cards,
        rules=[SwapRuleTrial(**rule._asdict()) for rule in trial.rules],
        missed=[MissedCase(iccid=one.iccid, alert=one.suspicion) for one in trial.missed],
    )


def policy_to_try(given: SwapPolicyInput) -> Policy:
    """INVALID_INPUT, and the message says where: a query's errors have no field."""
    try:
        return read_policy(given)
    except TsmError as error:
        place = ".".join(map(to_camel_case, ("policy", *error.field)))
        raise refuse(f"{place} is missing or not as specified") from None
