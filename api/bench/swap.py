"""A SIM swap, from its signal to the session that it stops; and what relying parties wait for when they ask.

The server is the real one, with its workers, TLS and all, on a core of its own; whoever speaks to it, and the database,
has the other. All comes on a schedule (`api.bench.open_loop`), and times are counted from there.

**Signals**: an operator's feed tells of a thousand things a second, nearly all of them of no consequence. Some say that
a registered card moved into another phone. As soon as one of these is answered, the card's provider starts a session,
which has to be refused; one that is let in is counted, and the next is tried.

**Look-ups**: CAMARA's check and retrieve-date in turns, of numbers anywhere among all lines, each recorded before it is
answered. Then faster and faster, until the slowest of a hundred takes too long.

`make bench-large` fills a data folder that stays with ten million lines, folds them, and asks for these. Of the keyed
rows it has those by which look-ups find a line; all of them would double what it takes. What look-ups read was read
once before, as by a server that is up for a while; what the machine's memory does not hold comes from the disk. Cut
short, it goes on where it was: begin it again.
"""

import asyncio
import json
import sqlite3
import ssl
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from os import urandom
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import Progress

from api import administration
from api.bench.history import DOMAIN, ISD, OPERATOR, PROVIDER, RETURN_URL, iccid_of, registered
from api.bench.large import refuse_without_room
from api.bench.lines import LineFiller, imei_of, msisdn_of, recorded, signal_of, stream_of
from api.bench.open_loop import Connections, Upload, at_rate, connected, connections, percentile
from api.bench.report import Line, on_other_core, tell, wide_console
from api.bench.sites import (
    HOST,
    POSTGRES,
    SQLITE,
    UNLIMITED,
    OpenSite,
    at_once,
    change_settings,
    cpu_ms,
    rests,
    serving,
    set_up,
    stores,
)
from api.bootstrap import CONFIG_FILE, STORE, VIEWS_FILE
from api.camara import tokens
from api.certificates import fingerprint, request
from api.demo.party import trusting
from api.demo.stage import Server
from api.local_login import LONGEST
from api.xml.mas import LINK_PATH
from projections import PROJECTIONS
from projections.building import build, resume
from projections.line_swaps import LINE_SWAPS
from tsm.application import Change
from tsm.errors import ErrorCode
from tsm.flows.follower import Follower
from tsm.flows.known_signals import MSISDN, TENURE
from tsm.flows.session import context_of
from tsm.identifiers import KeyRef, ReceptionNumber, SpId
from tsm.mas.launch import launch
from tsm.mas.messages import LinkRequest, Process
from tsm.model import card, delegation, service_provider
from tsm.model.event import Context

SEED = 11
SIGNING_KEY = KeyRef(f"provider/{PROVIDER}/signing")
TRIES = 3  # sessions of a card that wait for their START
CONSOLE = Context(actor="administrator:console", role="administrator", tenant=OPERATOR, correlation="bench")
CONNECTIONS = 64
ASKED = ("/sim-swap/v2/check", "/sim-swap/v2/retrieve-date")  # in turns
REFUSED_MS, LOOK_UP_MS, OVERLOAD_MS = 1000.0, 20.0, 100.0  # 99 of a hundred; the first two are goals on SQLite
STEP = 1.2  # from one rate to the next
CHUNK = 1 << 20  # octets
LOOKED_UP = MSISDN, TENURE  # the rows by which a look-up finds a line
LINES, DATA = 10_000_000, Path("data/bench-lines")  # of the large part
# Of disk for each line: events, keyed rows (all, or those that are looked up), data keys, read models and what is
# written beside them.
OCTETS, OCTETS_LARGE = 6_000, 3_000


class Sizes(NamedTuple):
    """How much is done; rates are of a second."""

    lines: int = 100_000
    signals: int = 1000
    probes: int = 25  # of these signals
    signal_seconds: float = 20.0
    look_ups: int = 300
    look_up_seconds: float = 10.0
    step_seconds: float = 2.0
    steps: int = 10  # at most

    @property
    def cards(self) -> int:
        """Each is probed once."""
        return int(self.probes * self.signal_seconds)


# --- The server's data ---


class Site(OpenSite):
    """A server's data on one engine, with a provider and the cards that are probed."""

    def fill(self, lines: int, progress: Progress, only: Collection[str] = ()) -> int:
        """So many lines, those included that are there; how many were told. `only` as in `LineFiller`."""
        there = recorded(self.tsm, lines)
        LineFiller(self.recorder, self.vault, range(there, lines), only).fill(lines - there, progress)
        return lines - there

    def follow(self) -> None:
        """Workers have read so far, as those of a server that was there all the time."""
        head = self.tsm.position
        with administration.opened(self.data) as parts:
            for worker in parts.workers:
                if isinstance(worker, Follower):
                    worker._position.write(head)

    def fold(self, lines: int, progress: Progress) -> int:
        """The read model of lines alone, from where it was cut short; how many events were read."""
        [last] = self.tsm.history(stream_of(lines - 1))
        serving = self.views.serving(LINE_SWAPS)
        if serving is not None and serving.position >= last.position:
            return 0
        owner = resume(self.tsm, self.views, LINE_SWAPS) or self.views.begin(LINE_SWAPS)
        if owner is None:
            raise RuntimeError("somebody else folds these lines")
        with owner:
            began = owner.now().position
            task = progress.add_task("folding", total=self.tsm.position, completed=began)
            build(self.tsm, self.views, owner, progress=lambda at: progress.update(task, completed=at))
            return self.tsm.position - began

    def register(self, cards: int) -> None:
        """The SIMs of the first lines, each with sessions of a provider that wait for their START."""
        for number in range(cards):
            iccid = iccid_of(number)
            self.tsm.commit(Change(card.stream(iccid), 0, card_of(iccid)), context=CONSOLE, occurred_at=self.tsm.now())
            accepted = [self._delegation(iccid, reception_of(number, place)) for place in range(TRIES)]
            self.tsm.commit(
                *(Change(delegation.stream(PROVIDER, one.reception), 0, [one]) for one in accepted),
                context=context_of(accepted[0], f"provider:{PROVIDER}", "provider"),
                occurred_at=self.tsm.now(),
            )

    def enrol_provider(self) -> None:
        enrolled = service_provider.ProviderEnrolled(
            provider=PROVIDER,
            name="Simulated JPKI Issuer",
            certificate_fingerprint="ab" * 32,
            public_key=self.vault.generate_signing_key(SIGNING_KEY).hex(),
            transport_key="",
            notify_url="https://provider.example.jp/notify",
            return_urls=(RETURN_URL,),
            domain=DOMAIN,
            authority="jpki-ca",
        )
        change = Change(service_provider.stream(PROVIDER), 0, [enrolled])
        self.tsm.commit(change, context=CONSOLE, occurred_at=self.tsm.now())

    def start(self, number: int, place: int) -> bytes:
        """The START of one of a card's sessions, as the phone sends it."""
        reception = ReceptionNumber(reception_of(number, place))
        signed = launch(
            SpId(PROVIDER),
            reception,
            RETURN_URL,
            self.settings.public_url + LINK_PATH,
            lambda data: self.vault.sign(SIGNING_KEY, data),
        )
        start = LinkRequest(Process.START, provider=PROVIDER, reception=reception, signature=signed.signature)
        return posted(LINK_PATH, "application/xml", start.encode())

    def token(self) -> str:
        """Of a relying party."""
        now, id_ = datetime.now(UTC), urandom(16).hex()
        return tokens.sign(self.vault, self.settings.public_url, "bench", ["sim-swap"], LONGEST, now, id_)

    def _delegation(self, iccid: str, reception: str) -> delegation.DelegationAccepted:
        now = self.tsm.now()
        return delegation.DelegationAccepted(
            provider=PROVIDER,
            operator=OPERATOR,
            reception=reception,
            iccid=iccid,
            domain=DOMAIN,
            correlation=f"{PROVIDER}-{reception}",
            generated_at=f"{now:%Y%m%d%H%M%S}",
            received_at=now.replace(microsecond=0),
            commands=(delegation.DelegatedCommand(order=1, header="80f28000", length=2),),
            content_index="0" * 64,
            expires_at=now + timedelta(hours=1),
        )


def new_site(data: Path, store: str) -> None:
    """Where no client's budget ends, and any port will do. The operator has a certificate, which is what the feed is
    known by."""
    set_up(data, store, port=0, camara={"requests_per_minute": UNLIMITED})
    folder = identity_of(data)
    wanted = request(folder, OPERATOR).read_bytes()
    certificate = administration.certify_party(data, wanted, OPERATOR, "operator", [])
    (folder / "cert.pem").write_bytes(certificate)
    said = {"operator": OPERATOR, "name": "Simulated", "certificate_fingerprint": fingerprint(certificate)}
    administration.enrol(data, "operator", json.dumps(said).encode())


def identity_of(data: Path) -> Path:
    """Where the operator keeps what it shows."""
    return data.with_suffix(".operator")


def card_of(iccid: str) -> list[Any]:
    """As the production file and the provider's preparation left it."""
    created = card.SecurityDomainCreated(domain=DOMAIN, parent=ISD, privileges="80", life_cycle="SELECTABLE")
    put = card.KeysPut(
        domain=DOMAIN, key_version=2, check_values=("000000",) * 3, provisional=False, key=f"card/{iccid}/{DOMAIN}/02"
    )
    return [registered(iccid), created, put]


def reception_of(number: int, place: int) -> str:
    return f"20261121{number * TRIES + place:08}"


# --- What is said to it ---


def posted(path: str, media_type: str, content: bytes, token: str = "") -> bytes:
    """A whole request."""
    authorization = f"authorization: Bearer {token}\r\n" if token else ""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {HOST}\r\n{authorization}content-type: {media_type}\r\n"
        f"content-length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def showing(data: Path) -> ssl.SSLContext:
    """The operator."""
    context, folder = trusting(data / "tls" / "ca.pem"), identity_of(data)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


def told(sizes: Sizes, began: datetime) -> tuple[list[bytes], Mapping[int, int]]:
    """Lines of a feed, in order, each newly happened; and by their places, the cards that moved."""
    drawn = Random(SEED)  # noqa: S311 - nothing secret is drawn
    every, cards = sizes.signals // sizes.probes, iter(range(sizes.cards))
    said: list[bytes] = []
    probed: dict[int, int] = {}
    for place in range(int(sizes.signals * sizes.signal_seconds)):
        at = (began + timedelta(seconds=place / sizes.signals)).isoformat()
        number = next(cards, None) if place % every == every - 1 else None
        if number is not None:
            probed[place] = number
            line = moved(number, sizes.lines)
        else:
            line = happened(drawn.randrange(sizes.cards, sizes.lines), sizes.lines, in_another_phone=place % 10 == 0)
        said.append(json.dumps({"id": f"s-{place}", "occurred_at": at, **line}).encode() + b"\n")
    return said, probed


def moved(number: int, lines: int) -> dict[str, Any]:
    """A registered card is in another phone: in the words of GlobalPlatform, or in ours."""
    if number % 2:
        return happened(number, lines, in_another_phone=True)
    changed = {"SecureElement": {"ICCID": iccid_of(number)}, "Extensions": {"IMEI": imei_of(lines + number)}}
    return {"HandleSEDeviceChangedNotification": changed}


def happened(number: int, lines: int, *, in_another_phone: bool) -> dict[str, Any]:
    """The line was seen as it is, or its card in another phone."""
    known = signal_of(number)
    bound = {"msisdn": known.msisdn, "imsi": known.imsi, "iccid": known.iccid}
    if in_another_phone:
        return {"kind": "DEVICE_CHANGED", **bound, "imei": imei_of(lines + number)}
    return {"kind": "OBSERVED", **bound, "imei": known.imei}


class Swaps(NamedTuple):
    """What came of the signals; times in milliseconds."""

    answered: list[float]  # each signal, from its time on the schedule
    refused: list[float]  # each probed session, from the signal's time on the schedule
    refused_after: list[float]  # from the signal's answer
    let_in: int  # sessions that had begun before one was refused
    rate: float  # signals that were accepted in a second
    backlog: int  # signals that waited when the last one came
    cpu_ms: float = 0.0  # of the server, for each signal and all that it led to


class Feed:
    """One run of signals on their schedule, and the sessions that follow them."""

    def __init__(self, lines: Sequence[bytes], starts: Mapping[int, Sequence[bytes]], rate: float) -> None:
        """`starts` are the sessions to begin after the signal at a place, one after the other."""
        self._lines = lines
        self._starts = starts
        self._rate = rate
        self._due: list[float] = []
        self._answered: list[float] = []
        self._refused: list[float] = []
        self._refused_after: list[float] = []
        self._let_in = 0

    async def run(self, url: str, operator: ssl.SSLContext, phone: ssl.SSLContext) -> Swaps:
        time = asyncio.get_running_loop().time
        async with connections(url, phone, CONNECTIONS) as phones, asyncio.TaskGroup() as group:
            feed = Upload(await connected(url, operator))
            feed.begin("/mno/signals")
            hearing = group.create_task(self._hear(feed, phones, group))

            async def say(place: int, due: float) -> None:
                self._due.append(due)
                feed.say(self._lines[place])

            begin = await at_rate(self._rate, len(self._lines), say)
            backlog = len(self._lines) - len(self._answered)
            feed.end()
            await hearing
            took = time() - begin
        return Swaps(self._answered, self._refused, self._refused_after, self._let_in, len(self._lines) / took, backlog)

    async def _hear(self, feed: Upload, phones: Connections, group: asyncio.TaskGroup) -> None:
        time = asyncio.get_running_loop().time
        async for together in feed.answers():
            now = time()
            for line in together.splitlines():
                place = len(self._answered)
                if b'"position"' not in line:
                    raise RuntimeError(f"signal {place}: {line.decode(errors='replace')}")
                self._answered.append((now - self._due[place]) * 1000)
                if place in self._starts:
                    group.create_task(self._probe(phones, place, now))
        if len(self._answered) < len(self._lines):
            raise RuntimeError(f"the feed ended after {len(self._answered)} answers")

    async def _probe(self, phones: Connections, place: int, accepted: float) -> None:
        for start in self._starts[place]:
            answer = await phones.ask(start)
            if answer.status == 409 and json.loads(answer.body)["code"] == ErrorCode.CARD_ON_HOLD:
                now = asyncio.get_running_loop().time()
                self._refused.append((now - self._due[place]) * 1000)
                self._refused_after.append((now - accepted) * 1000)
                return
            if answer.status != 200:
                raise RuntimeError(f"START: {answer.status} {answer.body.decode(errors='replace')}")
            self._let_in += 1
        raise RuntimeError("a card that moved was never refused")


class LookUps(NamedTuple):
    """What relying parties waited, in milliseconds, and how many a second the server bore."""

    taken: list[float]
    highest: float  # of the rates that were tried; 0 when none was borne
    beyond: bool  # none that was tried was too high
    cpu_ms: float  # of the server, for each


async def look_up(phones: Connections, requests: Iterator[bytes], rate: float, seconds: float) -> list[float]:
    """Each answer's milliseconds, from its time on the schedule."""
    time, taken = asyncio.get_running_loop().time, []

    async def ask(_: int, due: float) -> None:
        answer = await phones.ask(next(requests))
        if answer.status != 200:
            raise RuntimeError(f"{answer.status} {answer.body.decode(errors='replace')}")
        taken.append((time() - due) * 1000)

    await at_rate(rate, int(rate * seconds), ask)
    return taken


async def bears(phones: Connections, requests: Iterator[bytes], rate: float, seconds: float) -> bool:
    """Whether 99 of a hundred are answered in time; asked twice, for the first may have met something else."""
    for _ in range(2):
        if percentile(await look_up(phones, requests, rate, seconds), 99) < OVERLOAD_MS:
            return True
    return False


async def look_ups(server: Server, context: ssl.SSLContext, token: str, sizes: Sizes, seed: int) -> LookUps:
    drawn = Random(seed)  # noqa: S311 - nothing secret is drawn
    numbers = (msisdn_of(drawn.randrange(sizes.lines)) for _ in count())
    requests = (
        posted(ASKED[place % 2], "application/json", json.dumps({"phoneNumber": number}).encode(), token)
        for place, number in enumerate(numbers)
    )
    async with connections(server.url, context, CONNECTIONS) as clients:
        await look_up(clients, requests, sizes.look_ups, min(2.0, sizes.look_up_seconds))  # nobody is the first
        before = cpu_ms(server.pid)
        taken = await look_up(clients, requests, sizes.look_ups, sizes.look_up_seconds)
        each = (cpu_ms(server.pid) - before) / len(taken)
        highest, beyond = 0.0, True
        for rate in (sizes.look_ups * STEP**step for step in range(sizes.steps)):
            beyond = await bears(clients, requests, rate, sizes.step_seconds)
            if not beyond:
                break
            highest = rate
    return LookUps(taken, highest, beyond, each)


# --- One engine ---


def measure_swaps(site: Site, server: Server, sizes: Sizes) -> Swaps:
    said, probed = told(sizes, site.tsm.now())
    starts = {place: [site.start(number, t) for t in range(TRIES)] for place, number in probed.items()}
    operator, phone = showing(site.data), trusting(site.data / "tls" / "ca.pem")
    before = cpu_ms(server.pid)
    swaps = asyncio.run(Feed(said, starts, sizes.signals).run(server.url, operator, phone))
    return swaps._replace(cpu_ms=(cpu_ms(server.pid) - before) / len(said))


def measure_look_ups(site: Site, server: Server, sizes: Sizes) -> LookUps:
    context = trusting(site.data / "tls" / "ca.pem")
    seed = site.tsm.position  # who looks again asks for others, which nobody has just read
    return asyncio.run(look_ups(server, context, site.token(), sizes, seed))


def prepare(data: Path, sizes: Sizes) -> None:
    """All that the server finds."""
    with ExitStack() as stack, Progress(disable=True) as progress:
        site = Site(data, stack)
        site.fill(sizes.lines, progress)
        site.follow()
        site.enrol_provider()
        site.register(sizes.cards)
        site.rebuild(PROJECTIONS, progress)


def measured(folder: Path, sizes: Sizes, progress: Progress) -> dict[str, tuple[Swaps, LookUps]]:
    """On each engine."""
    with stores(folder) as places:
        for data, store in places.values():
            new_site(data, store)
        preparing = {name: partial(prepare, data, sizes) for name, (data, _) in places.items()}
        at_once(progress, f"{sizes.lines:,} lines", preparing)
        return {name: measure(data, sizes) for name, (data, _) in places.items()}


def measure(data: Path, sizes: Sizes) -> tuple[Swaps, LookUps]:
    with ExitStack() as stack:
        site = Site(data, stack)
        with serving(data, "serve") as server, on_other_core():
            rests(server)
            swaps = measure_swaps(site, server, sizes)
            rests(server)
            return swaps, measure_look_ups(site, server, sizes)


# --- The report ---


def milliseconds(what: str, values: Sequence[float], most: float | None = None) -> Line:
    """Half, 99 of a hundred and all; the goal is for the second."""
    half, slow, slowest = (percentile(values, percent) for percent in (50, 99, 100))
    figures = f"{slow:,.1f} ms", "", f"{half:,.1f}, {slowest:,.1f} ms"
    return Line(what, *figures) if most is None else Line(what, *figures, "", f"≤ {most:g} ms", slow <= most)


def lines_of_swaps(name: str, swaps: Swaps, most: float | None) -> Iterator[Line]:
    yield milliseconds(f"{name}: from signal to refused session", swaps.refused, most)
    yield milliseconds("  from the signal's answer", swaps.refused_after)
    yield milliseconds("  from signal to its answer", swaps.answered)
    yield Line("  accepted, of all signals", f"{swaps.rate:,.0f}/s")
    yield Line("  the server's CPU for each", f"{swaps.cpu_ms:.2f} ms")
    yield Line("  that waited when the last one came", f"{swaps.backlog:,}")
    yield Line("  sessions that were let in after the answer", f"{swaps.let_in:,}")


def lines_of_look_ups(name: str, look_ups: LookUps, sizes: Sizes, most: float | None) -> Iterator[Line]:
    yield milliseconds(f"{name}: check and retrieve-date, {sizes.look_ups}/s", look_ups.taken, most)
    yield Line("  the server's CPU for each", f"{look_ups.cpu_ms:.2f} ms")
    least = "≥ " if look_ups.beyond else ""
    yield Line(f"  the highest rate with less than {OVERLOAD_MS:g} ms", f"{least}{look_ups.highest:,.0f}/s")


def warm(data: Path) -> None:
    """Reads once what a look-up reads: its keyed rows, the read model, and where streams end in the log."""
    with (data / VIEWS_FILE).open("rb") as views:
        while views.read(CHUNK):
            pass
    with closing(sqlite3.connect(data / STORE)) as log:
        for query in ("SELECT count(*) FROM person_index WHERE index_value > ''", "SELECT count(*) FROM event"):
            log.execute(query).fetchone()


def timed(work: Callable[[], int]) -> str:
    """How many a second, of what it says that it did."""
    began = time.perf_counter()
    number = work()
    return f"{number / (time.perf_counter() - began):,.0f}/s" if number else "done before"


def tell_times(console: Console, title: str, lines: Sequence[Line]) -> bool:
    return tell(console, f"{title}\nours: 99 of a hundred; baseline: half, and the slowest; all on a schedule", lines)


def report(_: int, sizes: Sizes | None = None) -> bool:
    """Measure and print; whether every goal was met."""
    console, sizes = wide_console(), sizes or Sizes()
    with tempfile.TemporaryDirectory() as made, Progress(console=console, transient=True) as progress:
        refuse_without_room(Path(made), 2 * sizes.lines * OCTETS)
        found = measured(Path(made), sizes, progress)
    goals = {SQLITE: (REFUSED_MS, LOOK_UP_MS), POSTGRES: (None, None)}
    lines: list[Line] = []
    for name, (swaps, look_ups) in found.items():
        refused, looked_up = goals[name]
        lines += [*lines_of_swaps(name, swaps, refused), *lines_of_look_ups(name, look_ups, sizes, looked_up)]
    return tell_times(console, f"SIM swaps among {sizes.lines:,} lines, {sizes.signals:,} signals/s", lines)


def report_large(data: Path, lines: int, sizes: Sizes | None = None) -> bool:
    """The same look-ups among many lines, in a folder that stays. Whether the goal was met."""
    console, sizes = wide_console(), (sizes or Sizes())._replace(lines=lines)
    data.parent.mkdir(parents=True, exist_ok=True)
    if not (data / CONFIG_FILE).exists():
        new_site(data, STORE)
    change_settings(data, projections="separate")  # other read models, which nobody asks, are not there
    with ExitStack() as stack:
        site = Site(data, stack)
        left = lines - recorded(site.tsm, lines)
        octets = left * OCTETS_LARGE
        console.print(
            f"{lines:,} lines in {data}, of which {left:,} are to be recorded: that takes {octets / 1e9:.1f} GB."
            " The folder stays; what is cut short goes on when it is begun again."
        )
        refuse_without_room(data, octets)
        with Progress(console=console, transient=True) as progress:
            filled = timed(lambda: site.fill(lines, progress, only=LOOKED_UP))
            folded = timed(lambda: site.fold(lines, progress))
        site.follow()
        with serving(data, "serve") as server, on_other_core():
            rests(server)
            warm(data)
            found = measure_look_ups(site, server, sizes)
    told = [
        Line(f"lines filled in, {LineFiller.batch:,} together, with the rows for look-ups", filled),
        Line("events folded", folded),
        *lines_of_look_ups(SQLITE, found, sizes, LOOK_UP_MS),
    ]
    return tell_times(console, f"Look-ups among {lines:,} lines", told)
