"""The first act, the main job: a JPKI credential is issued into a UICC and used, and an auditor sees it all."""

import time
from typing import Any

from rich.text import Text
from rich.tree import Tree

from api.demo.story import APPLICATION, Story, in_order, since

EXPECTED = (  # what the auditor must find, in this order
    "card.registered",
    "card.security_domain_created",
    "card.keys_put",
    "card.provisional_keys_handed_out",
    "card.keys_shared",
    "card.load_file_loaded",
    "card.application_installed",
    "credential.applied",
    "credential.main_certificate_verified",
    "credential.issued",
    "delegation.accepted",
    "session.started",
    "card.application_personalized",
    "credential.written",
    "credential.key_copy_destroyed",
    "credential.activated",
)


class FirstAct(Story):
    """Ends with the audit of the card."""

    def tell(self) -> None:
        """From an empty folder to the audit."""
        self.set_up()
        self._issue()
        self._audit()
        self._name_places()

    def _audit(self) -> None:
        with self.stage.step("audit", "The auditor asks who did what, when, and why") as step:
            began = time.perf_counter()
            card, history = self.auditor.card(self._iccid)
            self.stage.say("auditor", "tsm", f"domain tree, and {len(history)} events of this card", since(began))
            self.stage.show_tree(domain_tree(card))
            for entry in history:
                if entry["topic"] in EXPECTED and not entry["topic"].startswith(("session", "delegation")):
                    self.stage.show_event(entry)
            self._verify(card, history)
            self._count(step)

    def _verify(self, card: dict[str, Any], history: list[dict[str, Any]]) -> None:
        check = self.stage.check
        topics = [entry["topic"] for entry in history]
        check("every expected event is there, in its order", in_order(EXPECTED, topics))
        complete = all(e["actor"] and e["occurredAt"] and e["recordedAt"] and e["correlation"] for e in history)
        check("every event has actor, both times, position and correlation", complete)
        positions = [entry["position"] for entry in history]
        check("positions increase", positions == sorted(set(positions)))
        story = [e["topic"] for e in history if e["correlation"] == self._credential]
        check(
            "one correlation runs from application to activation",
            {"credential.applied", "credential.activated"} <= set(story),
        )
        ended = [e for e in history if e["topic"] == "session.ended"]
        check("four sessions came to their end", len(ended) == 4)
        (domain,) = card["domainTree"]["domains"]
        own = [key for key in domain["keys"] if key["current"]]
        check("the provider's domain has the provider's own keys", [key["provisional"] for key in own] == [False])
        (application,) = domain["applications"]
        personalized = (application["aid"], application["lifeCycle"]) == (APPLICATION, "PERSONALIZED")
        destroyed = "card.provisional_keys_destroyed"  # by a worker: when, depends on what else it has to do
        check("the provisional keys left the vault", topics.count(destroyed) == 1)
        check("the JPKI applet is personalized", personalized)
        check("no event is parked", self.auditor.parked() == [])


def domain_tree(card: dict[str, Any]) -> Tree:
    """The card's domains, keys and applications, for people."""
    top = Tree(f"UICC {card['iccid']} of {card['operator']}")
    add_domain(top, card["domainTree"])
    return top


def add_domain(tree: Tree, domain: dict[str, Any]) -> None:
    branch = tree.add(Text(f"security domain {domain['aid']}  {domain['lifeCycle']}"))
    for keys in domain["keys"]:
        kind = "provisional" if keys["provisional"] else "own"
        state = "" if keys["current"] else ", replaced"
        check_values = "".join(f" {value}" for value in keys["checkValues"])
        branch.add(Text(f"keys {keys['version']:02X} ({kind}{state}){check_values}"))
    for load_file in domain.get("loadFiles", []):
        branch.add(Text(f"load file {load_file['aid']}  {load_file['size']} octets"))
    for application in domain["applications"]:
        branch.add(Text(f"application {application['aid']}  {application['lifeCycle']}"))
    for below in domain.get("domains", []):
        add_domain(branch, below)
