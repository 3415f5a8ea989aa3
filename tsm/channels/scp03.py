"""SCP03 with AES-128, S8 mode, i=70 (GPC Amendment D v1.1.2): the host's and the card's end of a secure channel.

A channel is session keys, a security level and two values that move: the command counter and the MAC chaining value.
Both can be read and given back, so a channel may be taken up by another worker between any two messages.
"""

from hmac import compare_digest

from tsm.errors import ErrorCode, TsmError
from tsm.globalplatform.apdu import CommandApdu, ResponseApdu, StatusWord
from tsm.globalplatform.commands import ExternalAuthenticate
from tsm.keys.primitives import BLOCK, MAC_SIZE, ZEROS, SessionKeys, pad, unpad

C_MAC, C_DECRYPTION, R_MAC, R_ENCRYPTION = 0x01, 0x02, 0x10, 0x20
FULL = C_MAC | C_DECRYPTION | R_MAC | R_ENCRYPTION  # 33
LEVELS = (0x01, 0x03, 0x11, 0x13, 0x33)  # the combinations of table 4-6 that protect anything
LONGEST_COMMAND = 255  # octets of command data on the wire


class CardSecurityError(Exception):
    """The card's end: a command whose protection does not verify. The card closes the channel."""


def max_command_data(level: int = FULL) -> int:
    """How many octets of plain command data fit a short APDU: 247 with C-MAC alone, 239 with C-DECRYPTION too."""
    room = LONGEST_COMMAND - MAC_SIZE
    return room // BLOCK * BLOCK - 1 if level & C_DECRYPTION else room


def external_authenticate(keys: SessionKeys, level: int = FULL) -> tuple[CommandApdu, bytes]:
    """EXTERNAL AUTHENTICATE with its C-MAC, and the MAC chaining value with which the channel begins."""
    plain = ExternalAuthenticate(keys.host_cryptogram(), level).apdu()
    return protected(keys, plain, plain.data, ZEROS)


def protected(keys: SessionKeys, command: CommandApdu, data: bytes, chaining: bytes) -> tuple[CommandApdu, bytes]:
    """The command with `data` and its C-MAC, and the new MAC chaining value (section 6.2.4)."""
    cla = command.cla | 0x04
    header = bytes((cla, command.ins, command.p1, command.p2, len(data) + MAC_SIZE))
    chaining = keys.cmac_command(chaining + header + data)
    return CommandApdu(cla, command.ins, command.p1, command.p2, data + chaining[:MAC_SIZE], command.le), chaining


def carries_protection(sw: int) -> bool:
    """Whether a response with this status word has an R-MAC: success and warnings have, errors have none (6.2.5)."""
    return sw == StatusWord.OK or sw >> 8 in (0x62, 0x63)


class Scp03Channel:
    """The host's end, after EXTERNAL AUTHENTICATE."""

    def __init__(self, keys: SessionKeys, level: int = FULL, counter: int = 0, chaining: bytes = ZEROS) -> None:
        """`counter` is that of the last command, 0 before the first; `chaining` is what that command left."""
        self._keys = keys
        self._level = level
        self.counter = counter
        self.chaining = chaining

    def wrap(self, command: CommandApdu) -> CommandApdu:
        """The command as it goes over the wire. INVALID_INPUT when its data do not fit."""
        if len(command.data) > max_command_data(self._level):
            raise TsmError(ErrorCode.INVALID_INPUT, f"{len(command.data)} octets do not fit a secured command")
        self.counter += 1
        data = command.data
        if data and self._level & C_DECRYPTION:
            data = self._keys.encrypt(self._keys.icv(self.counter, response=False), pad(data))
        wrapped, self.chaining = protected(self._keys, command, data, self.chaining)
        return wrapped

    def unwrap(self, response: ResponseApdu) -> ResponseApdu:
        """The card's answer in plain. SECURE_CHANNEL_BROKEN when it does not verify."""
        data = response.data
        if self._level & R_MAC and carries_protection(response.sw):
            data, mac = data[:-MAC_SIZE], data[-MAC_SIZE:]
            expected = self._keys.cmac_response(self.chaining + data + response.sw.to_bytes(2, "big"))
            if not compare_digest(mac, expected[:MAC_SIZE]):
                raise TsmError(ErrorCode.SECURE_CHANNEL_BROKEN, "R-MAC")
            if data and self._level & R_ENCRYPTION:
                data = self._decrypted(data)
        elif data and self._level & R_MAC:
            raise TsmError(ErrorCode.SECURE_CHANNEL_BROKEN, "an error with data, which nothing protects")
        return ResponseApdu(data, response.sw)

    def _decrypted(self, data: bytes) -> bytes:
        try:
            return unpad(self._keys.decrypt(self._keys.icv(self.counter, response=True), data))
        except TsmError as error:
            raise TsmError(ErrorCode.SECURE_CHANNEL_BROKEN, "R-ENCRYPTION") from error


class Scp03CardChannel:
    """The card's end, from INITIALIZE UPDATE on."""

    def __init__(self, keys: SessionKeys) -> None:
        self._keys = keys
        self._level = 0
        self._counter = 0
        self._chaining = ZEROS

    def external_authenticate(self, command: CommandApdu) -> bool:
        """Whether host cryptogram and C-MAC verify; then the level of P1 holds."""
        if command.cla != 0x84 or command.p1 not in LEVELS or len(command.data) != 2 * MAC_SIZE:
            return False
        plain = ExternalAuthenticate(self._keys.host_cryptogram(), command.p1).apdu()
        expected, self._chaining = protected(self._keys, plain, plain.data, ZEROS)
        self._level = command.p1
        return compare_digest(expected.data, command.data) and command.p2 == 0

    def unwrap(self, command: CommandApdu) -> CommandApdu:
        """The plain command; `CardSecurityError` when its protection does not verify."""
        data, mac = command.data[:-MAC_SIZE], command.data[-MAC_SIZE:]
        if not command.cla & 0x04 or len(command.data) < MAC_SIZE:
            raise CardSecurityError("not protected")
        self._counter += 1
        expected, self._chaining = protected(self._keys, command, data, self._chaining)
        if not compare_digest(expected.data[-MAC_SIZE:], mac):
            raise CardSecurityError("C-MAC")
        if data and self._level & C_DECRYPTION:
            data = self._decrypted(data)
        return CommandApdu(command.cla & ~0x04, command.ins, command.p1, command.p2, data, command.le)

    def _decrypted(self, data: bytes) -> bytes:
        try:
            return unpad(self._keys.decrypt(self._keys.icv(self._counter, response=False), data))
        except TsmError as error:
            raise CardSecurityError("C-DECRYPTION") from error

    def wrap(self, response: ResponseApdu) -> ResponseApdu:
        """The answer as it goes over the wire."""
        if not self._level & R_MAC or not carries_protection(response.sw):
            return response
        data = response.data
        if data and self._level & R_ENCRYPTION:
            data = self._keys.encrypt(self._keys.icv(self._counter, response=True), pad(data))
        mac = self._keys.cmac_response(self._chaining + data + response.sw.to_bytes(2, "big"))
        return ResponseApdu(data + mac[:MAC_SIZE], response.sw)
