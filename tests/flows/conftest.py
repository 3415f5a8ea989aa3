"""One world for each test of a session."""

import pytest
from mas_world import World


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    yield world
    world.close()
