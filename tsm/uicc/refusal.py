"""How a part of the card refuses a command: with a status word, never with a reason that a stranger could use."""


class Refused(Exception):
    """The command ends with this status word and no data."""

    def __init__(self, sw: int) -> None:
        super().__init__(f"{sw:04X}")
        self.sw = sw


def require(condition: bool, sw: int) -> None:
    """Refuse with `sw` unless the condition holds."""
    if not condition:
        raise Refused(sw)
