"""The registry of a demo run: what a real server recorded, as its lists show it."""

import sqlite3
from collections.abc import Iterator

import pytest

from projections import PROJECTIONS
from projections.registry import REGISTRY
from projections.registry.key_history import key_history
from projections.registry.listings import CREDENTIALS, DOMAINS, SESSIONS, find, page
from projections.registry.rows import key
from projections.sqlite import SQLiteViews
from projections.viewer import EVERYTHING, Viewer
from projections.views import Views
from tests.conftest import DemoRun


@pytest.fixture
def views(demo_run: DemoRun) -> Iterator[Views]:
    [file] = demo_run.folder.rglob("views.sqlite")
    views = SQLiteViews(file, PROJECTIONS)
    yield views
    views.close()


def test_it_lacks_nothing_and_has_read_the_whole_log(views: Views, demo_run: DemoRun) -> None:
    [log] = demo_run.folder.rglob("log.sqlite")
    with sqlite3.connect(log) as connection:
        [[last]] = connection.execute("SELECT max(position) FROM event")

    assert views.parked(REGISTRY) == []
    assert views.positions()["registry"] == last


def test_the_credential_is_active_on_the_card_of_the_run(views: Views, demo_run: DemoRun) -> None:
    iccid = demo_run.report["subjects"]["iccid"]
    [credential] = page(views, CREDENTIALS, EVERYTHING, {"iccid": iccid}, 0, None, 10)

    assert (credential.stage, credential.closed) == ("ACTIVE", "")
    sessions = page(views, SESSIONS, EVERYTHING, {"correlation": credential.credential}, 0, None, 10)
    assert [(session.state, session.status, session.provider) for session in sessions] == [
        ("ENDED", "00", credential.provider)
    ]


def test_who_could_have_written_the_providers_keys_is_told_to_the_provider(views: Views, demo_run: DemoRun) -> None:
    iccid = demo_run.report["subjects"]["iccid"]
    [credential] = page(views, CREDENTIALS, EVERYTHING, {"iccid": iccid}, 0, None, 10)
    provider = Viewer("provider", credential.provider)
    [domain] = page(views, DOMAINS, provider, {"iccid": iccid}, 0, None, 10)
    provisional, own = key_history(views, provider, iccid, domain.aid)

    assert provisional.session is not None and own.session is not None
    assert (provisional.keys.provisional, provisional.session.party) == (1, domain.operator)
    assert provisional.keys.handed_out_to == credential.provider
    assert provisional.keys.destroyed_at > own.keys.recorded_at
    assert (own.keys.current, own.session.party, own.session.key_version) == (1, domain.provider, 1)
    assert find(views, DOMAINS, Viewer("operator", domain.operator), key(iccid, domain.aid)) is not None
