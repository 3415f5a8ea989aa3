"""SCP03 with AES-128, S8 mode, i=70 (GPC Amendment D v1.1.2): the host's and the card's end of a secure channel.

A channel is session keys, a security level and two values that move: the command counter and the MAC chaining value.
Both can be read and given back, so a channel may be taken up by another worker between any two messages. Responses
move neither.
"""

from hmac import compare_digest

from tsm.errors import ErrorCode, TsmError
from tsm.globalplatform.apdu import SHORT_LE, CommandApdu, ResponseApdu, StatusWord
from tsm.globalplatform.commands import ExternalAuthenticate
from tsm.keys.primitives import BLOCK, MAC_SIZE, RESPONSE, ZEROS, SessionKeys

C_MAC, C_DECRYPTION, R_MAC, R_ENCRYPTION = 0x01, 0x02, 0x10, 0x20
FULL = C_MAC | C_DECRYPTION | R_MAC | R_ENCRYPTION  # 33
LEVELS = (0x01, 0x03, 0x11, 0x13, 0x33)  # the combinations of table 7-6 that protect anything
LONGEST_COMMAND = 255  # octets of command data on the wire
SECURE_MESSAGING = 0x04  # in CLA (GPCS v2.3.1 section 11.1.4)
LAST_COUNTER = (1 << 120) - 1


class CardSecurityError(Exception):
    """The card's end: a command whose protection does not verify. The card closes the channel."""


def max_command_data(level: int = FULL) -> int:
    """How many octets of plain command data fit a short APDU: 247 with C-MAC alone, 239 with C-DECRYPTION too."""
    room = LONGEST_COMMAND - MAC_SIZE
    return room // BLOCK * BLOCK - 1 if level & C_DECRYPTION else room


def external_authenticate(keys: SessionKeys, level: int = FULL) -> tuple[CommandApdu, bytes]:
    """EXTERNAL AUTHENTICATE with its C-MAC, and the MAC chaining value with which the channel begins."""
    plain = ExternalAuthenticate(keys.host_cryptogram(), checked_level(level)).apdu()
    return protected(keys, plain, plain.data, ZEROS)


def checked_level(level: int) -> int:
    """The security level; INVALID_INPUT when SCP03 has no such one."""
    if level not in LEVELS:
        raise TsmError(ErrorCode.INVALID_INPUT, f"security level {level}")
    return level


def protected(keys: SessionKeys, command: CommandApdu, data: bytes, chaining: bytes) -> tuple[CommandApdu, bytes]:
    """The command with `data` and its C-MAC, and the new MAC chaining value (section 6.2.4)."""
    cla, ins, p1, p2 = command.cla | SECURE_MESSAGING, command.ins, command.p1, command.p2
    chaining = keys.cmac_command(chaining + bytes((cla, ins, p1, p2, len(data) + MAC_SIZE)) + data)
    return CommandApdu(cla, ins, p1, p2, data + chaining[:MAC_SIZE], command.le), chaining


def carries_protection(sw: int) -> bool:
    """Whether a response with this status word has an R-MAC: success and warnings have, errors have none (6.2.5)."""
    return sw == StatusWord.OK or sw >> 8 in (0x62, 0x63)


class Scp03Channel:
    """The host's end, after EXTERNAL AUTHENTICATE."""

    __slots__ = ("_keys", "_level", "_room", "chaining", "counter")

    def __init__(self, keys: SessionKeys, level: int = FULL, counter: int = 0, chaining: bytes = ZEROS) -> None:
        """`counter` is that of the last command, 0 before the first; `chaining` is what that command left."""
        if len(chaining) != BLOCK or not 0 <= counter < LAST_COUNTER:
            raise TsmError(ErrorCode.INVALID_INPUT, "not the state of a secure channel")
        self._keys = keys
        self._level = checked_level(level)
        self._room = max_command_data(level)
        self.counter = counter
        self.chaining = chaining

    def wrap(self, command: CommandApdu) -> CommandApdu:
        """The command as it goes over the wire.

        INVALID_INPUT when it does not fit a short APDU, is protected already, or is for another than the basic channel.
        """
        data = command.data
        if len(data) > self._room or command.cla & 0x7F or (command.le or 0) > SHORT_LE:
            raise TsmError(ErrorCode.INVALID_INPUT, f"{command.header.hex()}, {len(data)} octets: cannot be protected")
        self.counter += 1
        if data and self._level & C_DECRYPTION:
            data = self._keys.encrypt(self.counter, data)
        wrapped, self.chaining = protected(self._keys, command, data, self.chaining)
        return wrapped

    def unwrap(self, response: ResponseApdu) -> ResponseApdu:
        """The card's answer in plain. SECURE_CHANNEL_BROKEN when it does not verify.

        An error status word comes alone and unprotected: that the command failed is all that may be believed then.
        """
        data, sw = response.data, response.sw
        if not self._level & R_MAC:
            return response
        if not carries_protection(sw):
            if data:
                raise TsmError(ErrorCode.SECURE_CHANNEL_BROKEN, "an error with data, which nothing protects")
            return response
        data, mac = data[:-MAC_SIZE], data[-MAC_SIZE:]
        expected = self._keys.cmac_response(self.chaining + data + sw.to_bytes(2, "big"))
        if not compare_digest(mac, expected[:MAC_SIZE]):
            raise TsmError(ErrorCode.SECURE_CHANNEL_BROKEN, "R-MAC")
        if data and self._level & R_ENCRYPTION:
            data = self._decrypted(data)
        return ResponseApdu(data, sw)

    def _decrypted(self, data: bytes) -> bytes:
        try:
            return self._keys.decrypt(self.counter | RESPONSE, data)
        except TsmError as error:
            raise TsmError(ErrorCode.SECURE_CHANNEL_BROKEN, "R-ENCRYPTION") from error


class Scp03CardChannel:
    """The card's end, from INITIALIZE UPDATE on."""

    __slots__ = ("_chaining", "_counter", "_keys", "_level")

    def __init__(self, keys: SessionKeys) -> None:
        self._keys = keys
        self._level = 0  # until EXTERNAL AUTHENTICATE tells it
        self._counter = 0
        self._chaining = ZEROS

    def external_authenticate(self, command: CommandApdu) -> bool:
        """Whether host cryptogram and C-MAC verify; then the level of P1 holds."""
        if command.p1 not in LEVELS:
            return False
        expected, chaining = external_authenticate(self._keys, command.p1)
        if command.header != expected.header or not compare_digest(command.data, expected.data):
            return False
        self._level, self._counter, self._chaining = command.p1, 0, chaining
        return True

    def unwrap(self, command: CommandApdu) -> CommandApdu:
        """The plain command; `CardSecurityError` when its protection does not verify."""
        data, mac = command.data[:-MAC_SIZE], command.data[-MAC_SIZE:]
        is_protected = self._level and command.cla & 0x7F == SECURE_MESSAGING and len(mac) == MAC_SIZE
        if not is_protected or len(command.data) > LONGEST_COMMAND:
            raise CardSecurityError("not protected")
        expected, chaining = protected(self._keys, command, data, self._chaining)
        if not compare_digest(expected.data, command.data):
            raise CardSecurityError("C-MAC")
        self._counter, self._chaining = self._counter + 1, chaining
        if data and self._level & C_DECRYPTION:
            data = self._decrypted(data)
        return CommandApdu(command.cla ^ SECURE_MESSAGING, command.ins, command.p1, command.p2, data, command.le)

    def _decrypted(self, data: bytes) -> bytes:
        try:
            return self._keys.decrypt(self._counter, data)
        except TsmError as error:
            raise CardSecurityError("C-DECRYPTION") from error

    def wrap(self, response: ResponseApdu) -> ResponseApdu:
        """The answer as it goes over the wire; an error without data, for nothing would protect them."""
        if not self._level & R_MAC:
            return response
        if not carries_protection(response.sw):
            return ResponseApdu(b"", response.sw)
        data = response.data
        if data and self._level & R_ENCRYPTION:
            data = self._keys.encrypt(self._counter | RESPONSE, data)
        mac = self._keys.cmac_response(self._chaining + data + response.sw.to_bytes(2, "big"))
        return ResponseApdu(data + mac[:MAC_SIZE], response.sw)
