"""The demo's load file."""

import subprocess
import sys
from pathlib import Path

from tsm.channels.scp03 import max_command_data
from tsm.globalplatform.cap import CapFile, load_commands
from tsm.uicc import jpki_cap


def test_names_its_package_and_module_and_takes_several_blocks_to_load() -> None:
    cap = CapFile.read(jpki_cap.build())
    assert cap.package_aid == jpki_cap.PACKAGE_AID
    assert cap.applet_aids == (jpki_cap.MODULE_AID,)
    assert len(load_commands(cap.load_file_data_block(), max_command_data())) > 5


def test_is_always_the_same() -> None:
    assert jpki_cap.build() == jpki_cap.build()


def test_the_tool_writes_it(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "tsm.uicc.jpki_cap", tmp_path / "jpki.cap"], check=True)
    assert (tmp_path / "jpki.cap").read_bytes() == jpki_cap.build()
