"""The UICC's own files, as far as phones and card tools ask for them first (ETSI TS 102 221 §13).

The master file with EF.DIR (no application to list: there is no USIM) and EF.ICCID, by which a phone tells cards apart.
"""

from tsm.globalplatform.apdu import CommandApdu, ResponseApdu, StatusWord
from tsm.globalplatform.tlv import tlv
from tsm.uicc.refusal import Refused, require

MASTER_FILE, EF_DIR, EF_ICCID = 0x3F00, 0x2F00, 0x2FE2
DIR_RECORD = b"\xff" * 32  # an unused record


class UiccFiles:
    """The file that is selected, from reset on the master file."""

    def __init__(self, iccid: str) -> None:
        self._contents = {EF_DIR: DIR_RECORD, EF_ICCID: encode_iccid(iccid)}
        self._current = MASTER_FILE

    def process(self, command: CommandApdu) -> ResponseApdu:
        """SELECT by file id or by path from the master file, READ BINARY, READ RECORD."""
        match command.ins:
            case 0xA4:
                return self._select(command)
            case 0xB0:
                return self._read_binary(command)
            case 0xB2:
                return self._read_record(command)
        raise Refused(StatusWord.INSTRUCTION_NOT_SUPPORTED)

    def _select(self, command: CommandApdu) -> ResponseApdu:
        require(command.p1 in (0x00, 0x08) and command.p2 in (0x00, 0x04, 0x0C), StatusWord.WRONG_P1_P2)
        require(len(command.data) == 2, StatusWord.FILE_NOT_FOUND)  # all files lie directly under the master file
        file_id = int.from_bytes(command.data, "big")
        require(file_id == MASTER_FILE or file_id in self._contents, StatusWord.FILE_NOT_FOUND)
        self._current = file_id
        return ResponseApdu(b"" if command.p2 == 0x0C else self._control_parameters(), StatusWord.OK)

    def _control_parameters(self) -> bytes:
        """FCP template (ETSI TS 102 221 §11.1.1.3): kind of file, id, life cycle "activated", size."""
        if self._current == MASTER_FILE:
            descriptor, size = bytes.fromhex("7821"), b""
        elif self._current == EF_DIR:  # linear fixed: record length and number of records follow
            descriptor = bytes.fromhex("4221") + len(DIR_RECORD).to_bytes(2, "big") + b"\x01"
            size = tlv(0x80, len(DIR_RECORD).to_bytes(2, "big"))
        else:
            descriptor = bytes.fromhex("4121")
            size = tlv(0x80, len(self._contents[self._current]).to_bytes(2, "big"))
        parts = tlv(0x82, descriptor) + tlv(0x83, self._current.to_bytes(2, "big")) + tlv(0x8A, b"\x05") + size
        return tlv(0x62, parts)

    def _read_binary(self, command: CommandApdu) -> ResponseApdu:
        require(self._current == EF_ICCID, StatusWord.NO_BINARY_FILE)
        require(not command.p1 & 0x80, StatusWord.WRONG_P1_P2)
        content, offset = self._contents[EF_ICCID], command.p1 << 8 | command.p2
        require(offset < len(content), StatusWord.WRONG_OFFSET)
        return ResponseApdu(content[offset : offset + (command.le or 256)], StatusWord.OK)

    def _read_record(self, command: CommandApdu) -> ResponseApdu:
        require(self._current == EF_DIR, StatusWord.NO_BINARY_FILE)
        require(command.p2 == 0x04, StatusWord.WRONG_P1_P2)  # absolute record number in P1
        require(command.p1 == 1, StatusWord.RECORD_NOT_FOUND)
        return ResponseApdu(DIR_RECORD[: command.le or 256], StatusWord.OK)


def encode_iccid(iccid: str) -> bytes:
    """EF.ICCID: 10 octets, two digits each, the first digit in the low half; F fills (ETSI TS 102 221 §13.2)."""
    digits = iccid.ljust(20, "F")
    return bytes.fromhex("".join(digits[place + 1] + digits[place] for place in range(0, 20, 2)))
