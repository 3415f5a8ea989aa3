"""The demo's JPKI load file: a CAP file of right form, whose code the simulated card has in Python.

Its one method returns at once and is followed by idle octets, so that loading takes several blocks, as an applet does.
A chip that runs Java Card would load it and find nothing useful in it. To write it to a file:

    python -m tsm.uicc.jpki_cap jpki.cap
"""

import sys
from pathlib import Path

from tsm.globalplatform.cap import build_cap

PACKAGE_AID = bytes.fromhex("D392F0002601FF")
MODULE_AID = bytes.fromhex("D392F0002601FF01")
FOLDER = "tsm/jpki"

# install(byte[], short, byte): a stack of 1, 3 arguments, no locals; its only instruction is `return` (JCVM §7.5)
INSTALL_METHOD = bytes.fromhex("01307A")
IDLE = bytes(2048)


def build() -> bytes:
    """The CAP file; always the same octets, so its hash names it."""
    return build_cap(PACKAGE_AID, (MODULE_AID,), INSTALL_METHOD + IDLE, FOLDER)


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(f"usage: python -m {__spec__.name} FILE")
    Path(sys.argv[1]).write_bytes(build())


if __name__ == "__main__":
    main()
