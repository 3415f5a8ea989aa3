"""What a certificate authority tells us, with its client certificate.

    POST /authority/credentials/{credential}/key-copies-destroyed
         {receipts: [{statement, signature: Base64}]} -> {recorded}

A receipt's statement and signature are described in `tsm.jpki.certificate_authority`.
"""

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.errors import request_id
from api.rest.messages import Message, answer, read_message
from tsm.errors import ErrorCode, TsmError
from tsm.jpki.certificate_authority import DestructionReceipt
from tsm.store.loop import run

if TYPE_CHECKING:
    from api.bootstrap import Parts

MOST_RECEIPTS = 2  # one for each key


class Receipt(Message, frozen=True):
    statement: bytes
    signature: bytes


class ReceiptsRequest(Message, frozen=True):
    receipts: tuple[Receipt, ...]


class ReceiptsAnswer(Message, frozen=True):
    recorded: int


class AuthorityRoutes:
    """The route of this module."""

    def __init__(self, parts: "Parts") -> None:
        self._access = parts.access
        self._issuance = parts.issuance

    async def key_copies_destroyed(self, request: Request) -> Response:
        """NOT_FOUND for a credential of another authority, BAD_SIGNATURE, INVALID_INPUT for another key's receipt."""
        caller = self._access.demand(request, "authority")
        given = await read_message(request, ReceiptsRequest)
        if not 0 < len(given.receipts) <= MOST_RECEIPTS:
            raise TsmError(ErrorCode.INVALID_INPUT, "receipts: one or two")
        receipts = [DestructionReceipt(each.statement, each.signature) for each in given.receipts]
        await run(
            self._issuance.key_copies_destroyed,
            caller.party,
            str(request.path_params["credential"]),  # the route gives a UUID
            receipts,
            request_id(request),
        )
        return answer(ReceiptsAnswer(len(receipts)))


def routes(parts: "Parts") -> list[Route]:
    authority = AuthorityRoutes(parts)
    path = "/authority/credentials/{credential:uuid}/key-copies-destroyed"
    return [Route(path, authority.key_copies_destroyed, methods=["POST"])]
