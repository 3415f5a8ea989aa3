"""Every fact that there is: the only topics that the store writes and reads."""

from tsm.model import (
    access_code,
    authority,
    card,
    catalogue,
    credential,
    delegation,
    deployment,
    domain,
    operation,
    operator,
    party,
    reading,
    service_provider,
    service_token,
    session,
    terminal,
)
from tsm.model.event import Fact

FACTS: tuple[type[Fact], ...] = (
    *party.FACTS,
    *operator.FACTS,
    *service_provider.FACTS,
    *domain.FACTS,
    *terminal.FACTS,
    *authority.FACTS,
    *catalogue.FACTS,
    *card.FACTS,
    *delegation.FACTS,
    *session.FACTS,
    *deployment.FACTS,
    *access_code.FACTS,
    *credential.FACTS,
    *operation.FACTS,
    *service_token.FACTS,
    *reading.FACTS,
)
