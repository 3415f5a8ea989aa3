"""The bench measures what it says. How fast it is, `make bench` tells: no test depends on that."""

from pathlib import Path

import pytest

from api.bench import mas


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
