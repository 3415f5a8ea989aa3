"""The world around one party, shared by the tests because its RSA keys take a while to make."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from parties import now

from api.certificates import create_authority
from tsm.jpki.authority import Authority, MainCredential
from tsm.jpki.certificates import Holder
from tsm.keys.vault import SoftwareVault

HANAKO = Holder.of("見本花子", "2", date(1990, 2, 3), "架空県見本市見本町1-2-3")


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authority]:
    folder = tmp_path_factory.mktemp("authority")
    vault = SoftwareVault.create(folder / "vault", folder.with_suffix(".kek"))
    made = Authority(folder, vault, now, "http://status.authority")
    yield made
    made.close()
    vault.close()


@pytest.fixture(scope="session")
def main_credential(authority: Authority) -> MainCredential:
    return authority.issue_main(HANAKO)


@pytest.fixture(scope="session")
def party_ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parties")
    create_authority(folder)
    return folder
