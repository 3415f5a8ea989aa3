"""The bench measures what it says. How fast it is, `make bench` tells: no test depends on that."""

from collections import Counter
from itertools import chain, islice
from pathlib import Path
from random import Random

import pytest
from rich.progress import Progress

from api.bench import mas
from api.bench.history import Filler, History
from tsm.keys.vault import SoftwareVault
from tsm.model import access_code, card, credential, delegation, deployment, session
from tsm.model.event import Event
from tsm.model.topics import FACTS
from tsm.store.mapper import JsonMapper
from tsm.store.memory import MemoryRecorder
from tsm.store.recorder import RecordedEvent

# --- MAS ---


def test_the_comparison_runs_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mas, "ROUNDS", 1)
    monkeypatch.setattr(mas, "MESSAGES", 20)
    ours, bare = mas.scp03()
    assert ours > 0 and bare > 0


def test_a_credential_is_issued_and_each_part_of_its_cost_is_seen(tmp_path: Path) -> None:
    """Two sessions of the operator and two of the provider; the server's own commands stand beside the delegated."""
    credential = mas.measure_credential(tmp_path / "world")
    for cost in (credential.operator, credential.provider):
        assert cost.exchanges > 2 * 5
        assert 0 < cost.handler_ms < cost.elapsed_ms
    assert credential.provider.notification_ms > 0
    assert credential.handshake_ms > 0 and credential.projection_us > 0
    assert credential.events > 200


# --- Histories ---


def filled(folder: Path, seed: int, number: int) -> tuple[SoftwareVault, list[RecordedEvent]]:
    """A recorded history, and the vault that sealed it."""
    folder.mkdir(exist_ok=True)
    vault = SoftwareVault.create(folder / "vault", folder / "test.kek", Random(7).randbytes)  # noqa: S311
    recorder = MemoryRecorder(vault)
    with Progress(disable=True) as progress:
        Filler(recorder, vault, History(seed).events()).fill(number, progress)
    return vault, list(recorder.select_notifications(1, number))


def test_one_seed_tells_one_history(tmp_path: Path) -> None:
    (_, one), (_, same), (_, other) = (
        filled(tmp_path / name, seed, 3000) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert [event.state for event in one] == [event.state for event in same]
    assert [event.state for event in one] != [event.state for event in other]


def test_every_event_of_a_history_decodes_in_its_place(tmp_path: Path) -> None:
    vault, recorded = filled(tmp_path, 1, 5000)
    decoded = [JsonMapper(FACTS, vault).to_domain_event(event) for event in recorded]
    assert decoded == [
        Event(
            originator_id=event.originator_id,
            originator_version=event.originator_version,
            occurred_at=event.occurred_at,
            context=event.context,
            fact=event.fact,
            position=recorded[place].id,
            recorded_at=recorded[place].recorded_at,
        )
        for place, event in enumerate(islice(History(1).events(), 5000))
    ]


def test_a_story_ends_with_an_active_credential_in_a_card_that_holds_its_application() -> None:
    """Every aggregate folds its events, and says what the demo's would say."""
    states: dict[str, object] = {}
    evolves = {
        "card": card.evolve,
        "credential": credential.evolve,
        "delegation": delegation.evolve,
        "deployment": deployment.evolve,
        "session": session.evolve,
        "access": access_code.evolve,
    }
    for event in chain.from_iterable(History(1).story(3)):
        evolve = evolves[event.originator_id.partition("-")[0]]
        states[event.originator_id] = evolve(states.get(event.originator_id), event.fact)  # type: ignore[operator]
    kinds = Counter(type(state).__name__ for state in states.values())
    assert kinds == {"Card": 1, "Credential": 1, "Delegation": 4, "Deployment": 2, "Session": 4, "AccessCode": 1}
    for state in states.values():
        match state:
            case card.Card():
                assert [a.life_cycle for a in state.applications.values()] == ["PERSONALIZED"]
            case credential.Credential():
                assert state.stage is credential.Stage.ACTIVE
            case delegation.Delegation():
                assert len(state.acknowledged) == len(state.accepted.commands)
            case session.Session():
                assert state.over and state.failed is None


def test_a_history_has_the_proportions_of_the_log_that_a_credential_leaves() -> None:
    topics = Counter(event.fact.topic for event in chain.from_iterable(History(1).story(3)))
    assert sum(topics.values()) == 210
    assert topics["session.command_sent"] == topics["session.response_received"] == 56
    assert topics["delegation.result_notified"] == 44
