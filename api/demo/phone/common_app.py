"""The common app (共通アプリ): relays APDUs between the MAS and the card (MC-05 interfaces 1, 3 and 5).

It holds no secret. What it relays is encrypted after the first commands, and it could not read it. It proves nothing to
anybody: the server knows the session by a cookie, and the provider's signature, which the launch parameters carry.

The launch parameters come through a browser, from any page that cares to start the app, and the app holds no key to
verify them. So it believes masUrl only as far as TLS does: https, and a certificate under its one trust anchor. And it
sends the browser back only where that server says that the party signed for.

Before the card is connected and before it is let go it tells the server which phone this is, and which card it sees
(`api.rest.common_app`). A server that does not take that is no reason to stop: what follows from it is for the server.
"""

import re
import time
from collections.abc import Callable
from typing import Protocol
from urllib.parse import urljoin

import httpx

from api.demo.card_client import read_iccid
from api.demo.party import checked, reaching
from tsm.errors import ErrorCode, TsmError
from tsm.globalplatform.apdu import ResponseApdu
from tsm.mas.launch import LaunchParameters, re_access_url
from tsm.mas.messages import MAX_MESSAGE, UICC, LinkRequest, LinkResponse, Process, Return
from tsm.mas.status import Status

PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0)  # seconds before a request is repeated after a broken connection
SERVER_TIMING = re.compile(r"dur=([0-9.]+)")
STEPS = {
    Process.START: "START",
    Process.CONNECT_RESULT: "CONNECT",
    Process.RESPONSE: "RESPONSE",
    Process.DISCONNECT_RESULT: "DISCONNECT",
}
RESULT_OF = {
    Return.CONNECT: Process.CONNECT_RESULT,
    Return.COMMAND: Process.RESPONSE,
    Return.DISCONNECT: Process.DISCONNECT_RESULT,
}

Emit = Callable[..., None]


class Card(Protocol):
    """What the phone can do with the card in it."""

    def reset(self) -> None: ...
    def transmit(self, command: bytes) -> bytes: ...


class CommonApp:
    """One phone's app: started with launch parameters, it ends with the URL to which the browser goes back."""

    def __init__(
        self, http: httpx.Client, card: Card, emit: Emit, sleep: Callable[[float], None] = time.sleep, imei: str = ""
    ) -> None:
        """`imei` is the phone's; without one it tells nothing of itself."""
        self._http = http
        self._card = card
        self._emit = emit
        self._sleep = sleep
        self._imei = imei

    def run(self, parameter: str) -> str:
        """LAUNCH to RE-ACCESS. The server's refusals are raised with their code.

        BAD_SIGNATURE when the server does not confirm the launch's return URL: somebody has changed it on the way.
        """
        launched = LaunchParameters.parse(parameter)
        self._emit(step="LAUNCH", provider=launched.provider, reception=launched.reception)
        self._http.cookies.clear()  # a session's cookie is its own
        request = LinkRequest(
            Process.START, provider=launched.provider, reception=launched.reception, signature=launched.signature
        )
        card_ms = 0.0
        while True:
            response, signed_for = self._exchange(launched.mas_url, request, card_ms)
            if response.process is Return.END:
                if signed_for != launched.return_url:
                    self._emit(step="REFUSED", return_url=launched.return_url)
                    raise TsmError(ErrorCode.BAD_SIGNATURE, "the return URL is not the one that was signed")
                return re_access_url(launched.return_url, launched.reception, response.mas_sign)
            if self._imei and response.process is not Return.COMMAND:
                self._report(launched.mas_url)
            began = time.perf_counter()
            request = self._obey(response)
            card_ms = elapsed_ms(began)

    def _obey(self, response: LinkResponse) -> LinkRequest:
        """Do what the server says; a card that does not answer is reported, and the server ends the session."""
        process = RESULT_OF[response.process]
        try:
            if response.process is not Return.COMMAND:
                self._card.reset()
                return LinkRequest(process, card=UICC if process is Process.CONNECT_RESULT else "")
            answer = ResponseApdu.parse(self._card.transmit(response.apdu))
            return LinkRequest(process, status_word=answer.sw.to_bytes(2, "big"), data=answer.data)
        except (OSError, TsmError):
            return LinkRequest(process, status=Status.CONNECT_FAILED, error=Status.CONNECT_FAILED.info)

    def _report(self, mas_url: str) -> None:
        began = time.perf_counter()
        try:
            self._card.reset()
            seen = [read_iccid(self._card.transmit)]
            response = self._http.post(urljoin(mas_url, "report"), json={"imei": self._imei, "iccids": seen})
        except (OSError, TsmError, httpx.TransportError) as error:
            self._emit(step="REPORT", failed=type(error).__name__)
        else:
            self._emit(step="REPORT", status=response.status_code, ms=elapsed_ms(began))

    def _exchange(self, url: str, request: LinkRequest, card_ms: float) -> tuple[LinkResponse, str]:
        """The answer, and with END the return URL that the party signed."""
        began = time.perf_counter()
        response = checked(self._post(url, request.encode()))
        answer = LinkResponse.parse(response.content[: MAX_MESSAGE + 1])
        self._emit(
            step=STEPS[request.process],
            answer=answer.process.name,
            ms=elapsed_ms(began),
            server_ms=server_ms(response),
            card_ms=card_ms,
        )
        return answer, response.headers.get("Tsm-Return-Url", "")

    def _post(self, url: str, body: bytes) -> httpx.Response:
        """The same octets under the same cookie until an answer comes: the server repeats its first."""
        for pause in PAUSES:
            try:
                return self._send(url, body)
            except httpx.TransportError as error:
                self._emit(step="REPEAT", after=type(error).__name__)
                self._sleep(pause)
        with reaching():
            return self._send(url, body)

    def _send(self, url: str, body: bytes) -> httpx.Response:
        return self._http.post(url, content=body, headers={"Content-Type": "application/xml"})


def server_ms(response: httpx.Response) -> float | None:
    """What the server says that the request cost it (W3C Server-Timing)."""
    found = SERVER_TIMING.search(response.headers.get("Server-Timing", ""))
    return float(found[1]) if found else None


def elapsed_ms(began: float) -> float:
    return round((time.perf_counter() - began) * 1000, 3)
