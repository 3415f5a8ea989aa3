"""GlobalPlatform commands, one class each: the fields in the order of the standard's tables.

`apdu()` writes a command and `parse()` reads it, so host and card speak from one description. References are to GPCS
v2.3.1 chapter 11 and, for SCP03, GPC Amendment D v1.1.2. Nothing here knows a key.
"""

from dataclasses import dataclass, field
from typing import Protocol, Self

from tsm.errors import ErrorCode, TsmError
from tsm.globalplatform.apdu import CommandApdu
from tsm.globalplatform.tlv import ber_lv, find, lv, octets, parse_length, parse_tlvs, take, tlv

INTERINDUSTRY, PROPRIETARY, SECURE = 0x00, 0x80, 0x84  # CLA: ISO/IEC 7816, GlobalPlatform, with secure messaging
ALL_THAT_FITS = 0x100  # Le 00
AES = 0x88  # key type (table 11-16)
AES_128, AES_BLOCK = 16, 16  # octets
LOAD_FILE_DATA_BLOCK = 0xC4
AID_FILTER, TAG_LIST, DELETED_AID = 0x4F, 0x5C, 0x4F
LOCK = 0x80  # of a life cycle state (tables 11-4 and 11-5)


class Command(Protocol):
    """What all commands can do."""

    def apdu(self) -> CommandApdu: ...


@dataclass(frozen=True, slots=True)
class Select:
    """SELECT by AID (table 11-81); an empty AID selects the issuer's domain."""

    aid: bytes
    next: bool = False

    def apdu(self) -> CommandApdu:
        return CommandApdu(INTERINDUSTRY, 0xA4, 0x04, 0x02 if self.next else 0x00, self.aid, ALL_THAT_FITS)

    @classmethod
    def parse(cls, apdu: CommandApdu) -> Self:
        expect(apdu.p1 == 0x04 and apdu.p2 in (0x00, 0x02, 0x0C) and len(apdu.data) <= 16, "SELECT")
        return cls(apdu.data, apdu.p2 == 0x02)


@dataclass(frozen=True, slots=True)
class InitializeUpdate:
    """INITIALIZE UPDATE (Amendment D section 7.1.1): 8 octets of challenge. Key version 0: the card chooses."""

    host_challenge: bytes
    key_version: int = 0
    key_identifier: int = 0

    def apdu(self) -> CommandApdu:
        return CommandApdu(PROPRIETARY, 0x50, self.key_version, self.key_identifier, self.host_challenge, ALL_THAT_FITS)

    @classmethod
    def parse(cls, apdu: CommandApdu) -> Self:
        expect(len(apdu.data) == 8, "INITIALIZE UPDATE")
        return cls(apdu.data, apdu.p1, apdu.p2)


@dataclass(frozen=True, slots=True)
class ExternalAuthenticate:
    """EXTERNAL AUTHENTICATE (Amendment D section 7.1.2), without its C-MAC: the host's cryptogram, 8 octets."""

    host_cryptogram: bytes
    level: int

    def apdu(self) -> CommandApdu:
        return CommandApdu(SECURE, 0x82, self.level, 0x00, self.host_cryptogram)

    @classmethod
    def parse(cls, apdu: CommandApdu) -> Self:
        expect(apdu.p2 == 0 and len(apdu.data) in (8, 16), "EXTERNAL AUTHENTICATE")
        return cls(apdu.data[:8], apdu.p1)


@dataclass(frozen=True, slots=True)
class InstallForLoad:
    """INSTALL [for load] (tables 11-40 and 11-42): announce a load file."""

    load_file_aid: bytes
    security_domain_aid: bytes = b""  # empty: the domain that receives the command
    load_file_hash: bytes = b""  # of the load file data block
    load_parameters: bytes = b""
    load_token: bytes = b""

    def apdu(self) -> CommandApdu:
        names = (self.load_file_aid, self.security_domain_aid, self.load_file_hash)
        data = b"".join(map(lv, names)) + ber_lv(self.load_parameters) + ber_lv(self.load_token)
        return install(0x02, data)

    @classmethod
    def parse(cls, apdu: CommandApdu) -> Self:
        return cls(*install_fields(apdu, "INSTALL [for load]", "vvvbb"))


@dataclass(frozen=True, slots=True)
class InstallForInstall:
    """INSTALL [for install] or [for install and make selectable] (tables 11-40 and 11-44)."""

    load_file_aid: bytes
    module_aid: bytes
    application_aid: bytes
    privileges: bytes = b"\x00"  # 1 or 3 octets (tables 11-7 to 11-9)
    install_parameters: bytes = b"\xc9\x00"  # TLVs; C9, the application's own, is mandatory
    install_token: bytes = b""
    make_selectable: bool = True

    def apdu(self) -> CommandApdu:
        names = (self.load_file_aid, self.module_aid, self.application_aid, self.privileges)
        data = b"".join(map(lv, names)) + ber_lv(self.install_parameters) + ber_lv(self.install_token)
        return install(0x0C if self.make_selectable else 0x04, data)

    @classmethod
    def parse(cls, apdu: CommandApdu) -> Self:
        load_file, module, application, privileges, parameters, token = install_fields(
            apdu, "INSTALL [for install]", "vvvPbb"
        )
        return cls(load_file, module, application, privileges, parameters, token, apdu.p1 == 0x0C)


@dataclass(frozen=True, slots=True)
class InstallForMakeSelectable:
    """INSTALL [for make selectable] (tables 11-40 and 11-45) of an application that is installed."""

    application_aid: bytes
    privileges: bytes = b"\x00"
    install_token: bytes = b""

    def apdu(self) -> CommandApdu:
        data = b"\x00\x00" + lv(self.application_aid) + lv(self.privileges) + b"\x00" + ber_lv(self.install_token)
        return install(0x08, data)

    @classmethod
    def parse(cls, apdu: CommandApdu) -> Self:
        load_file, module, application, privileges, parameters, token = install_fields(
            apdu, "INSTALL [for make selectable]", "vvvPbb"
        )
        expect(not (load_file or module or parameters), "INSTALL [for make selectable]")
        return cls(application, privileges, token)


@dataclass(frozen=True, slots=True)
class InstallForPersonalization:
    """INSTALL [for personalization] (tables 11-40 and 11-48): the STORE DATA that follow are for this application."""

    application_aid: bytes

    def apdu(self) -> CommandApdu:
        return install(0x20, b"\x00\x00" + lv(self.application_aid) + b"\x00\x00\x00")

    @classmethod
    def parse(cls, apdu: CommandApdu) -> Self:
        fields = install_fields(apdu, "INSTALL [for personalization]", "vvvvbb")
        expect(not any(fields[:2] + fields[3:]), "INSTALL [for personalization]")
        return cls(fields[2])


@dataclass(frozen=True, slots=True)
class Load:
    """LOAD (section 11.6): one block of the load file, numbered from 0."""

    block_number: int
    block: bytes
    last: bool

    def apdu(self) -> CommandApdu:
        return CommandApdu(PROPRIETARY, 0xE8, 0x80 if self.last else 0x00, self.block_number, self.block, ALL_THAT_FITS)

    @classmethod
    def parse(cls, apdu: CommandApdu) -> Self:
        expect(apdu.p1 in (0x00, 0x80) and bool(apdu.data), "LOAD")
        return cls(apdu.p2, apdu.data, apdu.p1 == 0x80)


@dataclass(frozen=True, slots=True)
class EncryptedKey:
    """A key data field of PUT KEY (table 11-68 and Amendment D section 7.2): under the DEK, with its check value.

    Two encodings are in use. Amendment D puts the key's length in octets in front of the encrypted key; None leaves it
    out, as other cards want it whose keys fill whole blocks. Cards should take both.
    """

    encrypted: bytes = field(repr=False)
    check_value: bytes
    kind: int = AES
    key_length: int | None = AES_128

    def encode(self) -> bytes:
        length = b"" if self.key_length is None else octets(self.key_length)
        return octets(self.kind) + lv(length + self.encrypted) + lv(self.check_value)

    @classmethod
    def parse(cls, data: bytes, at: int) -> tuple[Self, int]:
        """A key data field from `at` on, and where it ends. An octet more than whole blocks is the key's length."""
        kind = take(data, at, 1)[0]
        component, at = field_at(data, at + 1)
        check_value, at = field_at(data, at)
        if len(component) % AES_BLOCK == 1:
            return cls(component[1:], check_value, kind, component[0]), at
        return cls(component, check_value, kind, None), at


@dataclass(frozen=True, slots=True)
class PutKey:
    """PUT KEY (section 11.8): add a key set, or replace version `key_version`."""

    key_version: int  # 0: add
    new_key_version: int
    keys: tuple[EncryptedKey, ...]
    key_identifier: int = 1  # of the first key

    def apdu(self) -> CommandApdu:
        more = 0x80 if len(self.keys) > 1 else 0x00
        data = octets(self.new_key_version) + b"".join(key.encode() for key in self.keys)
        return CommandApdu(PROPRIETARY, 0xD8, self.key_version, more | self.key_identifier, data, ALL_THAT_FITS)

    @classmethod
    def parse(cls, apdu: CommandApdu) -> Self:
        expect(apdu.p1 <= 0x7F and len(apdu.data) > 1, "PUT KEY")
        keys, at = [], 1
        while at < len(apdu.data):
            key, at = EncryptedKey.parse(apdu.data, at)
            keys.append(key)
        expect((len(keys) > 1) == bool(apdu.p2 & 0x80), "PUT KEY")
        return cls(apdu.p1, apdu.data[0], tuple(keys), apdu.p2 & 0x7F)

    def answer(self) -> bytes:
        """What the card answers: the new version and the check values (section 11.8.3.1)."""
        return octets(self.new_key_version) + b"".join(key.check_value for key in self.keys)


@dataclass(frozen=True, slots=True)
class StoreData:
    """STORE DATA (section 11.11): one block, numbered from 0."""

    block_number: int
    block: bytes = field(repr=False)
    last: bool = True
    encrypted: bool = False  # the values are under the DEK (b7-b6 of P1)
    dgi: bool = True  # data groupings (b5-b4 of P1), else no statement of the structure

    def apdu(self) -> CommandApdu:
        p1 = (0x80 if self.last else 0) | (0x60 if self.encrypted else 0) | (0x08 if self.dgi else 0)
        return CommandApdu(PROPRIETARY, 0xE2, p1, self.block_number, self.block)

    @classmethod
    def parse(cls, apdu: CommandApdu) -> Self:
        expect(apdu.p1 & 0x60 in (0x00, 0x60) and apdu.p1 & 0x17 == 0 and bool(apdu.data), "STORE DATA")
        return cls(apdu.p2, apdu.data, bool(apdu.p1 & 0x80), bool(apdu.p1 & 0x60), bool(apdu.p1 & 0x08))


@dataclass(frozen=True, slots=True)
class Delete:
    """DELETE [card content] (section 11.2): a load file, an application or a security domain.

    Of DELETE [key], and of tokens for delegated management, nothing is known here.
    """

    aid: bytes
    related: bool = False  # with what belongs to it: of a load file its applications, of a domain all that is in it

    def apdu(self) -> CommandApdu:
        return CommandApdu(
            PROPRIETARY, 0xE4, 0x00, 0x80 if self.related else 0x00, tlv(DELETED_AID, self.aid), ALL_THAT_FITS
        )

    @classmethod
    def parse(cls, apdu: CommandApdu) -> Self:
        objects = parse_tlvs(apdu.data)
        expect(apdu.p1 == 0x00 and apdu.p2 in (0x00, 0x80) and [tag for tag, _ in objects] == [DELETED_AID], "DELETE")
        expect(5 <= len(objects[0].value) <= 16, "DELETE")
        return cls(objects[0].value, apdu.p2 == 0x80)


@dataclass(frozen=True, slots=True)
class SetStatus:
    """SET STATUS (section 11.10).

    Scope: 40 an application or a domain that is not the issuer's, 60 a domain with the applications in it, 80 the
    issuer's domain and with it the card. The state's first bit (80) is the lock; unlocking returns to the state before.
    """

    scope: int
    state: int
    aid: bytes = b""  # none is needed for the card

    def apdu(self) -> CommandApdu:
        return CommandApdu(PROPRIETARY, 0xF0, self.scope, self.state, self.aid)

    @classmethod
    def parse(cls, apdu: CommandApdu) -> Self:
        expect(apdu.p1 in (0x80, 0x40, 0x60), "SET STATUS")
        expect(5 <= len(apdu.data) <= 16 or (apdu.p1 == 0x80 and not apdu.data), "SET STATUS")
        return cls(apdu.p1, apdu.p2, apdu.data)

    @property
    def locks(self) -> bool:
        return bool(self.state & LOCK)


@dataclass(frozen=True, slots=True)
class GetStatus:
    """GET STATUS (section 11.4), answered in TLV form.

    Scope: 80 the issuer's domain, 40 applications and domains, 20 load files, 10 load files with modules.
    """

    scope: int
    aid: bytes = b""  # as much of it as must fit
    next: bool = False
    tag_list: bytes = b""  # tags wanted in the answer; empty: those of the standard

    def apdu(self) -> CommandApdu:
        data = tlv(AID_FILTER, self.aid) + (tlv(TAG_LIST, self.tag_list) if self.tag_list else b"")
        return CommandApdu(PROPRIETARY, 0xF2, self.scope, 0x03 if self.next else 0x02, data, ALL_THAT_FITS)

    @classmethod
    def parse(cls, apdu: CommandApdu) -> Self:
        expect(apdu.p1 in (0x80, 0x40, 0x20, 0x10) and apdu.p2 in (0x02, 0x03), "GET STATUS")
        criteria = parse_tlvs(apdu.data)
        expect([tag for tag, _ in criteria] in ([AID_FILTER], [AID_FILTER, TAG_LIST]), "GET STATUS")
        return cls(apdu.p1, find(criteria, AID_FILTER) or b"", apdu.p2 == 0x03, find(criteria, TAG_LIST) or b"")


@dataclass(frozen=True, slots=True)
class GetData:
    """GET DATA (section 11.3): 66 card recognition data, E0 key information, 42 IIN, 45 CIN and others."""

    tag: int

    def apdu(self) -> CommandApdu:
        return CommandApdu(PROPRIETARY, 0xCA, self.tag >> 8, self.tag & 0xFF, b"", ALL_THAT_FITS)

    @classmethod
    def parse(cls, apdu: CommandApdu) -> Self:
        expect(not apdu.data, "GET DATA")
        return cls(apdu.p1 << 8 | apdu.p2)


INSTALLS: dict[int, type[InstallForLoad | InstallForInstall | InstallForMakeSelectable | InstallForPersonalization]] = {
    0x02: InstallForLoad,
    0x04: InstallForInstall,
    0x0C: InstallForInstall,
    0x08: InstallForMakeSelectable,
    0x20: InstallForPersonalization,
}

COMMANDS: dict[
    int,
    type[
        Select
        | InitializeUpdate
        | ExternalAuthenticate
        | Load
        | PutKey
        | StoreData
        | Delete
        | SetStatus
        | GetStatus
        | GetData
    ],
] = {
    0xA4: Select,
    0x50: InitializeUpdate,
    0x82: ExternalAuthenticate,
    0xE8: Load,
    0xD8: PutKey,
    0xE2: StoreData,
    0xE4: Delete,
    0xF0: SetStatus,
    0xF2: GetStatus,
    0xCA: GetData,
}


CLASSES = {0xA4: INTERINDUSTRY, 0x82: SECURE}  # CLA by instruction, where it is not PROPRIETARY


def parse_command(apdu: CommandApdu) -> Command:
    """The command as its class; INVALID_INPUT for one that is unknown or not as its table says.

    Commands are parsed in plain, outside of secure messaging; EXTERNAL AUTHENTICATE is the one that comes with it.
    """
    kind = INSTALLS.get(apdu.p1) if apdu.ins == 0xE6 else COMMANDS.get(apdu.ins)
    if kind is None or apdu.cla != CLASSES.get(apdu.ins, PROPRIETARY):
        raise TsmError(ErrorCode.INVALID_INPUT, f"unknown command {apdu.header.hex()}")
    return kind.parse(apdu)


def install(p1: int, data: bytes) -> CommandApdu:
    return CommandApdu(PROPRIETARY, 0xE6, p1, 0x00, data, ALL_THAT_FITS)


def install_fields(apdu: CommandApdu, name: str, form: str) -> tuple[bytes, ...]:
    """The fields of INSTALL by form: v with one length octet, P privileges, b with a BER length.

    INVALID_INPUT unless the fields fill the data to the last octet.
    """
    expect(apdu.p2 == 0, name)
    fields, at = [], 0
    for kind in form:
        if kind == "b":
            length, at = parse_length(apdu.data, at)
            value = take(apdu.data, at, length)
            at += length
        else:
            value, at = field_at(apdu.data, at)
        expect(kind != "P" or len(value) in (1, 3), name)
        fields.append(value)
    expect(at == len(apdu.data), name)
    return tuple(fields)


def field_at(data: bytes, at: int) -> tuple[bytes, int]:
    """A field with one length octet, and where it ends."""
    length = take(data, at, 1)[0]
    return take(data, at + 1, length), at + 1 + length


def expect(holds: bool, name: str) -> None:
    if not holds:
        raise TsmError(ErrorCode.INVALID_INPUT, f"{name} is not as its table says")
