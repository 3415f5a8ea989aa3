"""MC-05 interface 4 over HTTPS: NOTIFY goes out under the server's own client certificate."""

import ssl

import httpx

from tsm.errors import ErrorCode, TsmError
from tsm.mas.messages import MAX_MESSAGE

TIMEOUT = httpx.Timeout(10.0, connect=5.0)  # seconds
HEADERS = {"Content-Type": "application/xml"}


class XmlClient:
    """Satisfies `tsm.flows.notification.Outbound`. Connections are kept alive; safe to use from several threads."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self._http = httpx.Client(verify=tls, timeout=TIMEOUT, trust_env=False)

    def post(self, url: str, body: bytes) -> bytes:
        """The body of the answer; UPSTREAM_UNAVAILABLE unless it is HTTP 200 with a body of bounded size."""
        try:
            with self._http.stream("POST", url, content=body, headers=HEADERS) as answer:
                if answer.status_code != httpx.codes.OK:
                    raise TsmError(ErrorCode.UPSTREAM_UNAVAILABLE, f"HTTP {answer.status_code}")
                return bounded(answer)
        except httpx.HTTPError as error:
            raise TsmError(ErrorCode.UPSTREAM_UNAVAILABLE, type(error).__name__) from error

    def close(self) -> None:
        self._http.close()


def bounded(answer: httpx.Response) -> bytes:
    body = bytearray()
    for chunk in answer.iter_bytes():
        body += chunk
        if len(body) > MAX_MESSAGE:
            raise TsmError(ErrorCode.UPSTREAM_UNAVAILABLE, "the answer is too large")
    return bytes(body)
