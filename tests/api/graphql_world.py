"""A real server whose log tells of two operators, two providers, their cards and credentials; and people who ask it."""

from collections.abc import Sequence
from datetime import timedelta
from os import urandom
from pathlib import Path
from typing import Any

from api import administration, local_login
from api.app import create_app
from api.bootstrap import Parts, Settings, build
from projections.runner import Runner
from tests.api.admin_world import Client
from tests.projections.registry_story import Story, tell_all
from tsm.application import Change
from tsm.model.event import Event

LIFE = timedelta(hours=1)  # of a token


class World:
    """The server. No worker runs: the read models are brought up to date by steps."""

    def __init__(self, folder: Path, store: str | None = None) -> None:
        data = folder / "server"
        administration.initialise(data, folder / "kek", "127.0.0.1", 8443, *([] if store is None else [store]))
        self.parts: Parts = build(Settings.load(data))
        self.app: Any = create_app(self.parts)
        self.record(tell_all(Story()).events[:-1])  # the last withdraws a provider, who has to be able to ask

    def record(self, events: Sequence[Event]) -> None:
        """Takes what a story tells into the log."""
        for event in events:
            change = Change(event.originator_id, event.originator_version - 1, [event.fact])
            self.parts.tsm.commit(change, context=event.context, occurred_at=event.occurred_at)
        self.catch_up()

    def catch_up(self) -> None:
        Runner(self.parts.tsm, self.parts.views).catch_up()

    def person(self, role: str, tenant: str, name: str = "someone") -> Client:
        """Somebody with a token of this server, for a tenant such as `operator:MNO00001`, or `*`."""
        return Client(self.app, self.token(role, tenant, name))

    def token(self, role: str, tenant: str, name: str = "someone") -> str:
        settings, vault, now = self.parts.settings, self.parts.vault, self.parts.clock()
        return local_login.sign(vault, settings.public_url, role, tenant, name, LIFE, now, urandom(16).hex())

    def close(self) -> None:
        self.parts.close()
