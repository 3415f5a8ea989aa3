"""The server, assembled from its data folder."""

import asyncio
import json

import httpx
import pytest

from api.administration import initialise
from api.app import create_app
from api.bootstrap import CONFIG_FILE, Settings, build
from tsm.errors import ErrorCode, TsmError


@pytest.fixture
def data(tmp_path):
    initialise(tmp_path / "data", tmp_path / "kek", "127.0.0.1", 8443)
    return tmp_path / "data"


def ask(app, path):
    """One request to the whole application, from start to stop."""

    async def run():
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="https://tsm") as http,
        ):
            return await http.get(path)

    return asyncio.run(run())


def test_settings_come_from_the_folder_and_the_rest_has_defaults(data):
    settings = Settings.load(data)
    assert settings.public_url == "https://127.0.0.1:8443"
    assert settings.tls.certificate == data / "tls" / "cert.pem"
    assert settings.data == data
    assert settings.session_idle_seconds == 60


def test_a_folder_without_a_server_or_with_other_settings_is_refused(data, tmp_path):
    with pytest.raises(TsmError) as refused:
        Settings.load(tmp_path)
    assert refused.value.code == ErrorCode.NOT_FOUND
    for wrong in (b"{", b"{}", json.dumps({**json.loads((data / CONFIG_FILE).read_bytes()), "prot": 1}).encode()):
        (data / CONFIG_FILE).write_bytes(wrong)
        with pytest.raises(TsmError) as refused:
            Settings.load(data)
        assert refused.value.code == ErrorCode.INVALID_INPUT


def test_a_server_starts_answers_stops_and_starts_again(data):
    for _ in range(2):
        assert ask(create_app(build(Settings.load(data))), "/health").json() == {"status": "up"}


def test_health_names_the_workers_that_do_not_keep_up(data):
    parts = build(Settings.load(data))
    app = create_app(parts)

    async def before_and_after_a_worker_died():
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="https://tsm") as http,
        ):
            answers = [await http.get("/health")]
            for worker in parts.workers:
                worker.stop()
                answers.append(await http.get("/health"))
            return answers

    up, *impaired = asyncio.run(before_and_after_a_worker_died())
    assert (up.status_code, up.json()) == (200, {"status": "up"})
    assert {answer.status_code for answer in impaired} == {503}
    assert impaired[0].json() == {"status": "behind", "workers": ["notification"]}
    assert impaired[-1].json()["workers"] == [worker.name for worker in parts.workers]


def test_a_fault_inside_is_told_as_a_code_and_an_id_only(data, caplog):
    app = create_app(build(Settings.load(data)))

    async def broken(_):
        raise ValueError("a secret")

    app.add_route("/broken", broken)
    answer = ask(app, "/broken")
    assert (answer.status_code, answer.json()["code"]) == (500, "INTERNAL")
    assert "secret" not in answer.text
    assert answer.json()["requestId"] in caplog.text


def test_parts_that_never_ran_are_closed_as_well(data):
    build(Settings.load(data)).close()


@pytest.mark.parametrize(
    "settings",
    [
        {"only_persisted": ["operators"]},
        {"limits": {"cost_per_minute": {"auditor": 0}}},
        {"limits": {"cost_per_minute": {"securityofficer": 5000}}},
        {"limits": {"connections": 0}},
    ],
    ids=[
        "a role that there is not, which would leave its clients free",
        "a budget that never fills up",
        "a budget of a role that there is not",
        "room for nobody",
    ],
)
def test_what_no_server_can_keep_to_is_refused_in_the_settings(data, settings):
    config = data / CONFIG_FILE
    config.write_text(json.dumps(json.loads(config.read_text()) | settings))
    with pytest.raises(TsmError) as refused:
        Settings.load(data)
    assert refused.value.code is ErrorCode.INVALID_INPUT


def test_whoever_misspells_a_role_is_told_which_there_are(data):
    config = data / CONFIG_FILE
    settings = {"limits": {"cost_per_minute": {"securityofficer": 5000}}}
    config.write_text(json.dumps(json.loads(config.read_text()) | settings))
    with pytest.raises(TsmError, match=r"securityofficer is none of operator, .*security-officer"):
        Settings.load(data)
