"""How the eventsourcing library's `Application` gets our recorder and mapper: as objects, not by name.

class Tsm(Application[str]):
    def __init__(self, recorder, mapper):
        self._parts = StoreFactory(recorder, mapper)
        super().__init__()

    def construct_factory(self, env):
        return self._parts
"""

from typing import Any, NoReturn

from eventsourcing.persistence import InfrastructureFactory, Mapper, TrackingRecorder, Transcoder

from tsm.store.mapper import JsonMapper
from tsm.store.recorder import Recorder


class StoreFactory(InfrastructureFactory[TrackingRecorder]):
    """Hands out one recorder and one mapper. Snapshots and tracking are not offered: replay is fast, and read models
    keep their position beside their rows."""

    def __init__(self, recorder: Recorder, mapper: JsonMapper) -> None:
        super().__init__(env={})
        self._recorder = recorder
        self._mapper = mapper

    def mapper(self, transcoder: Transcoder | None = None, mapper_class: type[Mapper[Any]] | None = None) -> Any:
        return self._mapper

    def application_recorder(self) -> Recorder:
        return self._recorder

    def aggregate_recorder(self, purpose: str = "events") -> NoReturn:
        raise NotImplementedError(purpose)

    def tracking_recorder(self, tracking_recorder_class: object = None) -> NoReturn:
        raise NotImplementedError

    def process_recorder(self) -> NoReturn:
        raise NotImplementedError

    def close(self) -> None:
        self._recorder.close()
