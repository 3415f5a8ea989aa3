"""From the text of a document to something that may run: parsed, within the limits, valid; and documents known before.

A client sends few different texts, so what was made of a text is remembered; whoever brings one that is not pays for
the reading, by its length. Persisted documents are the `.graphql`
files of one folder, read once at the start; a client names one by `sha256:` and the SHA-256 of the file's octets in
hex, as the draft on persisted documents of GraphQL over HTTP says.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from graphql import (
    DocumentNode,
    GraphQLError,
    GraphQLSchema,
    OperationDefinitionNode,
    Token,
    TokenKind,
    parse,
    validate,
)

from api.graphql.limits import MAX_DOCUMENT, MAX_FAULTS, MAX_LINES, MAX_TOKENS, excess, excesses, operations_of
from tsm.errors import ErrorCode, TsmError

REMEMBERED = 256  # texts, of at most MAX_DOCUMENT characters
CHARACTERS = 10  # of a text are read in the time that an object takes, when there are as many fields as can be
PREFIX = "sha256:"
BLANKS: Mapping[TokenKind, str] = {  # what stands for a literal or a comment where its content is left out
    TokenKind.STRING: '""',
    TokenKind.BLOCK_STRING: '""',
    TokenKind.INT: "0",
    TokenKind.FLOAT: "0",
    TokenKind.COMMENT: "#",
}
NOT_PARSED, NOT_FOUND, NOT_ALLOWED, NOT_VALID = 400, 404, 403, 422  # HTTP statuses of requests that never run


class Refused(Exception):
    """A request that does not run: an HTTP status, and the errors of the GraphQL response."""

    def __init__(self, status: int, errors: Sequence[GraphQLError]) -> None:
        super().__init__(status, errors)
        self.status = status
        self.errors = errors


def refused(status: int, message: str, code: ErrorCode = ErrorCode.INVALID_INPUT) -> Refused:
    return Refused(status, [GraphQLError(message, extensions={"code": code})])


@dataclass(frozen=True, eq=False)
class Document:
    """A text that may run against the schema."""

    node: DocumentNode
    blank_sha256: str  # of the text without what its writer filled in (`blank`), hex

    def operation(self, name: str | None) -> OperationDefinitionNode:
        """The one with that name, or without a name the only one."""
        operations = operations_of(self.node)
        if name is not None:
            operations = [o for o in operations if o.name is not None and o.name.value == name]
        if not operations:
            raise refused(NOT_VALID, "the document has no operation of that name" if name else "no operation")
        if len(operations) > 1:
            raise refused(NOT_VALID, "several operations: say in operationName which one to run")
        return operations[0]


def read(schema: GraphQLSchema, text: str, charge: Callable[[int], object] = lambda _: None) -> Document:
    """`Refused` for a text that does not parse, exceeds a limit or is not valid.

    `charge` is called with what the reading cost, in objects, unless the text was remembered.
    """
    if len(text) > MAX_DOCUMENT:
        raise Refused(NOT_VALID, [excess(f"{MAX_DOCUMENT} characters")])
    if max(text.count("\n"), text.count("\r")) >= MAX_LINES:
        raise Refused(NOT_VALID, [excess(f"{MAX_LINES} lines")])
    misses = _read.cache_info().misses
    read = _read(schema, text)
    if _read.cache_info().misses > misses:
        charge(math.ceil(len(text) / CHARACTERS))
    if isinstance(read, Refused):
        raise Refused(read.status, read.errors)
    return read


@lru_cache(maxsize=REMEMBERED)
def _read(schema: GraphQLSchema, text: str) -> Document | Refused:
    """Suggestions are left out: they would tell names to who may not introspect."""
    try:
        node = parse(text, max_tokens=MAX_TOKENS)
    except (GraphQLError, UnicodeError) as error:
        return Refused(NOT_PARSED, [error if isinstance(error, GraphQLError) else GraphQLError("not Unicode")])
    errors = excesses(node) or validate(schema, node, max_errors=MAX_FAULTS, hide_suggestions=True)
    return Refused(NOT_VALID, errors) if errors else Document(node, digest(blank(text, node)))


def blank(text: str, node: DocumentNode) -> str:
    """The text as it is, but for the content of its strings, numbers and comments, which is left out.

    A reading is recorded with the hash of this, for ever: from the hash of a text with a telephone number in it the
    number would be found by trying.
    """
    parts: list[str] = []
    end = 0
    for token in tokens(node):
        if token.kind in BLANKS:
            parts += text[end : token.start], BLANKS[token.kind]
            end = token.end
    return "".join(parts) + text[end:]


def tokens(node: DocumentNode) -> Iterator[Token]:
    """All that the text was parsed from, in order, with the comments."""
    token = node.loc.start_token if node.loc else None
    while token is not None:
        yield token
        token = token.next


def digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


class Persisted:
    """The documents of a folder, by their identifiers."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = texts

    @classmethod
    def load(cls, folder: Path | None) -> "Persisted":
        """None: no documents. NOT_FOUND when the folder is not there, INVALID_INPUT when a file is no text."""
        if folder is None:
            return cls({})
        if not folder.is_dir():
            raise TsmError(ErrorCode.NOT_FOUND, f"documents: {folder} is no folder")
        texts = [read_text(path) for path in sorted(folder.glob("*.graphql"))]
        return cls({PREFIX + digest(text): text for text in texts})

    def text(self, identifier: str) -> str:
        """Nothing but the identifier is compared: one that is not known here was never allowed."""
        text = self._texts.get(identifier)
        if text is None:
            raise refused(NOT_FOUND, "no document has this documentId", ErrorCode.NOT_FOUND)
        return text


def read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode()  # as it is: the identifier is that of the file's octets
    except UnicodeError:
        raise TsmError(ErrorCode.INVALID_INPUT, f"documents: {path} is not UTF-8") from None
