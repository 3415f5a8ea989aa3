"""The command line: `tsm <command>`. `tsm --help` lists the commands; most work on a server's data folder."""

import argparse
import getpass
import json
import sys
from collections.abc import Callable
from pathlib import Path

from api import (
    admin_commands,
    administration,
    audit_commands,
    erasure_commands,
    lines_commands,
    logs,
    projection_commands,
    store_commands,
)
from api.access import ENROLLED
from api.app import create_app
from api.bootstrap import STORE, Settings, build
from api.certificates import ROLES, request
from api.graphql.schema import sdl
from api.tls import run_server
from tsm.errors import TsmError

DATA, KEK = Path("data/tsm"), Path("data/tsm.kek")
HOST, PORT, VPCD_PORT = "127.0.0.1", 8443, 35963

Run = Callable[[argparse.Namespace], int | None]


def init(given: argparse.Namespace) -> None:
    if given.if_missing and (given.data / "config.json").exists():
        return
    administration.initialise(given.data, given.kek, given.host, given.port, given.store)
    print(f"A server lies in {given.data}; its key-encryption key is {given.kek}: keep that elsewhere, and safe.")


def show(given: argparse.Namespace) -> None:
    print(json.dumps(administration.describe(given.data), indent=2))


def make_request(given: argparse.Namespace) -> None:
    print(request(given.folder, given.party))


def certify(given: argparse.Namespace) -> None:
    made = administration.certify_party(
        given.data, given.request.read_bytes(), given.party, given.role, given.host, given.tenant
    )
    given.out.write_bytes(made)


def enrol(given: argparse.Namespace) -> None:
    text = sys.stdin.buffer.read() if given.description == "-" else Path(given.description).read_bytes()
    print(f"position {administration.enrol(given.data, given.role, text)}")


def withdraw(given: argparse.Namespace) -> None:
    print(f"position {administration.withdraw(given.data, given.role, given.party, given.reason)}")


def import_key(given: argparse.Namespace) -> None:
    key = given.file.read_text() if given.file else secret_from_person_or_pipe("Master key (hex): ")
    check = administration.import_master_key(given.data, given.operator, given.key_set, given.key_version, key)
    print(f"check value {check}")


def secret_from_person_or_pipe(prompt: str) -> str:
    """Typed without echo, or the first line of standard input. Arguments and environment are for all to see."""
    return getpass.getpass(prompt) if sys.stdin.isatty() else sys.stdin.readline()


def register_cards(given: argparse.Namespace) -> None:
    print(f"{administration.register_cards(given.data, given.operator, given.file.read_bytes())} cards")


def release_card(given: argparse.Namespace) -> None:
    made = administration.release_card(given.data, given.operator, given.iccid, given.domain, given.reason)
    print(f"position {made}")


def register_load_file(given: argparse.Namespace) -> None:
    cap = given.file.read_bytes()
    made = administration.register_load_file(given.data, given.provider, given.version, given.application, cap)
    print(f"load file data block hash (SHA-256) {made}")


def serve(given: argparse.Namespace) -> None:
    settings = Settings.load(given.data)
    logs.set_up(settings.logs)
    app = create_app(build(settings))
    run_server(app, settings, lambda url: print(json.dumps({"url": url}), flush=True), settings.limits)


def schema(_: argparse.Namespace) -> None:
    print(sdl(), end="")


def demo(given: argparse.Namespace) -> int:
    from api.demo import story  # the server's process never loads the demo or a card
    from api.demo.first_act import FirstAct
    from api.demo.second_act import SecondAct

    act = {"issue": FirstAct, "swap": SecondAct}[given.act]
    return story.tell(act, given.folder, given.citizen, given.store, as_json=given.json, keep=given.keep)


def card_serve(given: argparse.Namespace) -> None:
    from tsm.uicc import vpcd
    from tsm.uicc.card import SimulatedUicc

    vpcd.serve(SimulatedUicc.load(given.card), given.host, given.port, listen=given.listen)


def parser() -> argparse.ArgumentParser:
    """Every command, its arguments and the function that runs it."""
    top = argparse.ArgumentParser(prog="tsm", description="The open Trusted Service Manager")
    commands = top.add_subparsers(required=True, metavar="command")

    def command(name: str, run: Run, text: str, *, data: bool = True) -> argparse.ArgumentParser:
        made = add(commands, name, run, text)
        if data:
            made.add_argument("--data", type=Path, default=DATA, help=f"the server's data folder (default {DATA})")
        return made

    made = command("init", init, "make a server: key-encryption key, certificates, vault and store")
    made.add_argument("--kek", type=Path, default=KEK, help=f"file for the key-encryption key (default {KEK})")
    made.add_argument("--host", default=HOST)
    made.add_argument("--port", type=int, default=PORT)
    made.add_argument("--store", default=STORE, help=f"a path from the folder (default {STORE}), or postgresql://...")
    made.add_argument("--if-missing", action="store_true", help="do nothing when there is a server already")
    command("show", show, "what parties need to know of the server, as JSON")
    command("serve", serve, "run the server")

    made = command("request", make_request, "at a party's: make a key and a certificate request", data=False)
    made.add_argument("--party", required=True)
    made.add_argument("--folder", type=Path, required=True)
    made = command("certify", certify, "sign a party's certificate request")
    made.add_argument("--party", required=True, help="the party's id")
    made.add_argument("--role", required=True, choices=ROLES)
    made.add_argument("--request", type=Path, required=True)
    made.add_argument("--out", type=Path, required=True)
    made.add_argument("--host", action="append", default=[], help="a name or address under which the party serves")
    made.add_argument("--tenant", default="", help="an auditor's: operator:<spId>, provider:<spId>, ... (default: all)")
    made = command("enrol", enrol, "admit a party, or replace its certificate")
    made.add_argument("role", choices=tuple(ENROLLED))
    made.add_argument("description", help="JSON file, or - for standard input")

    made = command("withdraw", withdraw, "withdraw a party's certificate: it is nobody until it is enrolled again")
    made.add_argument("role", choices=tuple(ENROLLED))
    made.add_argument("party", help="the party's id")
    made.add_argument("--reason", required=True)

    made = command("import-key", import_key, "take an operator's master key into the vault (prompt, pipe or file)")
    made.add_argument("--operator", required=True)
    made.add_argument("--key-set", required=True, help="the name by which production files refer to it")
    made.add_argument("--key-version", type=int, default=1, help="of the derived keys on the cards")
    made.add_argument("--file", type=Path)
    made = command("register-cards", register_cards, "register the cards of a production file (CSV)")
    made.add_argument("--operator", required=True)
    made.add_argument("file", type=Path)
    made = command("release-card", release_card, "let a domain be used again after too many failed authentications")
    made.add_argument("--operator", required=True)
    made.add_argument("--iccid", required=True)
    made.add_argument("--domain", required=True, help="AID of the security domain")
    made.add_argument("--reason", required=True, help="why: it stays in the log")
    made = command("register-load-file", register_load_file, "put a provider's CAP file into the catalogue")
    made.add_argument("--provider", required=True)
    made.add_argument("--version", required=True)
    made.add_argument("--application", required=True, help="AID of the application to install from it")
    made.add_argument("file", type=Path)

    command("schema", schema, "print the GraphQL schema", data=False)
    made = command("demo", demo, "issue a credential into a simulated card, from the beginning", data=False)
    made.add_argument(
        "--act", choices=("issue", "swap"), default="issue", help="swap: and then its SIM is stolen (default: issue)"
    )
    made.add_argument("--folder", type=Path, help="where everything goes (default: a new folder in data/)")
    made.add_argument("--citizen", type=Path, help="JSON file with the citizen of the story and her PINs")
    made.add_argument("--store", metavar="DSN", default=STORE, help="an empty, migrated PostgreSQL store")
    made.add_argument("--json", action="store_true", help="a report for programs")
    made.add_argument("--keep", action="store_true", help="leave all servers up until Ctrl-C")

    store_commands.add_to(commands, add, DATA)
    admin_commands.add_to(commands, add, DATA)
    erasure_commands.add_to(commands, add, DATA)
    projection_commands.add_to(commands, add, DATA)
    audit_commands.add_to(commands, add)
    lines_commands.add_to(commands, add)

    cards = commands.add_parser("card", help="the simulated card").add_subparsers(required=True, metavar="command")
    made = add(cards, "serve", card_serve, "put a card behind PC/SC through vpcd")
    made.add_argument("--card", type=Path, required=True)
    made.add_argument("--host", default=HOST)
    made.add_argument("--port", type=int, default=VPCD_PORT)
    made.add_argument("--listen", action="store_true", help="wait for the driver instead of connecting to it")
    return top


def add(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, run: Run, text: str
) -> argparse.ArgumentParser:
    made = commands.add_parser(name, help=text, description=text)
    made.set_defaults(run=run)
    return made


def main() -> None:
    """Exit code 0 when it succeeded, 1 when the demo did not, 2 for a refusal."""
    given = parser().parse_args()
    try:
        sys.exit(given.run(given) or 0)
    except TsmError as error:
        print(f"tsm: {error.message}" + (f" ({error.detail})" if error.detail else ""), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
