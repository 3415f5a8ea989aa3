"""Load files are put into the catalogue, from which they are loaded onto cards."""

import binascii
from base64 import b64decode

import strawberry

from api.administration import read_load_file
from api.graphql.context import Context
from api.graphql.mutations.inputs import Keyed
from api.graphql.mutations.mutate import Act
from api.graphql.mutations.rows import Row, changed
from api.graphql.types.parties import CatalogueEntry
from tsm.errors import within
from tsm.model.catalogue import LoadFileRegistered
from tsm.model.checks import refusal
from tsm.store.recorder import Recorded


@strawberry.input(description="A load file of the provider that asks.")
class LoadFileRegisterInput(Keyed):
    version: str = strawberry.field(description="Letters, digits, `.`, `_` and `-`, 64 at most; each version once.")
    application: str = strawberry.field(description="AID of the application that is installed from it, hex.")
    cap_file: str = strawberry.field(
        description="The CAP file (Java Card VM specification chapter 6) with one applet, or its load file data block:"
        " Base64. A request holds 256 KiB."
    )


def register(act: Act, given: LoadFileRegisterInput) -> None:
    registered, block = load_file_of(act.caller.viewer.party, given)
    act.parts.tsm.register_load_file(registered, block, act.of(registered.provider), act.command)


def load_file_of(provider: str, given: LoadFileRegisterInput) -> tuple[LoadFileRegistered, bytes]:
    """What is registered, and its load file data block. INVALID_INPUT, MESSAGE_TOO_LARGE."""
    try:
        cap = b64decode(given.cap_file, validate=True)
    except (binascii.Error, ValueError):
        raise refusal("cap_file", "not Base64") from None
    with within("cap_file"):
        return read_load_file(provider, given.version, given.application, cap)


def aid_of(_: Context, given: LoadFileRegisterInput, __: Recorded) -> str:
    return load_file_of("", given)[0].load_file


ROWS = (
    Row(
        "loadFileRegister",
        "Put a version of a load file of the provider that asks into the catalogue: it is the one that is loaded from"
        " now on. ALREADY_EXISTS for a version that was registered with other content, or was followed by another.",
        LoadFileRegisterInput,
        register,
        (changed("catalogue_entry", CatalogueEntry, aid_of, "The load file in the catalogue."),),
    ),
)
