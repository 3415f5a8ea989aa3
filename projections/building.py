"""Building a generation beside the one that serves, and letting it serve.

It reads the log from the beginning in large pages, into tables without secondary indexes; the indexes come before the
last stretch. Meanwhile the old generation is read and followed as always. The switch is one transaction, which fails
when the old one has read further: so no reader ever sees a gap, a mixture, or an older state. A build that was cut
short is gone on with when nothing of its version serves yet, and else cleared away.
"""

from collections.abc import Callable

from projections.folding import Log, catch_up, never
from projections.projection import Projection
from projections.views import BUILDING, RETIRED, SERVING, Generation, Owner, Views, in_state
from tsm.errors import ErrorCode, TsmError

PAGE = 10_000  # positions per transaction

Progress = Callable[[int], None]


def rebuild(log: Log, views: Views, projection: Projection, progress: Progress = lambda _: None) -> None:
    """Makes the read model anew and lets the new rows serve. `TsmError(CONFLICT)` while somebody else does so."""
    clear_abandoned(views, projection)
    owner = views.begin(projection)
    if owner is None:
        raise TsmError(ErrorCode.CONFLICT, f"{projection.name} is being built by another process")
    with owner:
        build(log, views, owner, progress=progress)


def build(
    log: Log, views: Views, owner: Owner, stopping: Callable[[], bool] = never, progress: Progress = lambda _: None
) -> None:
    """Reads up to the end of the log, and lets the generation serve; not when it is told to stop before."""
    catch_up(log, owner, stopping, progress, PAGE)
    if stopping():
        return
    views.index(owner)
    while not stopping():
        catch_up(log, owner, stopping, progress)
        if views.switch(owner, lambda: log.position):
            break
    drop_retired(views, owner.projection)


def resume(log: Log, views: Views, projection: Projection) -> Owner | None:
    """Ownership of a generation whose building was cut short; one that read beyond the end of the log is dropped."""
    found = views.look(lambda session: in_state(session, projection, BUILDING))
    owner = None if found is None else views.own(projection, found.generation)
    if owner is not None and found is not None and found.position > log.position:
        with owner:
            views.drop(found)
        return None
    return owner


def clear_abandoned(views: Views, projection: Projection) -> None:
    """Drops a generation that is being built by nobody any more."""
    found = views.look(lambda session: in_state(session, projection, BUILDING))
    if found is not None:
        _drop_if_nobodys(views, found)


def drop_retired(views: Views, projection: Projection) -> None:
    for generation in views.generations():
        if generation.name == projection.name and generation.state == RETIRED:
            views.drop(generation)


def tidy(views: Views, projection: Projection) -> None:
    """Drops what nobody needs: retired generations, builds that were cut short, lower versions, unknown read models.

    What another process owns stays: it may be a program of another version, which still serves.
    """
    drop_retired(views, projection)
    known = {p.name for p in views.projections}
    if views.serving(projection) is None:
        return
    for generation in views.generations():
        own = generation.name == projection.name
        if generation.name not in known or (own and _is_outlived(generation, projection)):
            _drop_if_nobodys(views, generation)


def _is_outlived(generation: Generation, projection: Projection) -> bool:
    if generation.version == projection.version:
        return generation.state != SERVING
    return generation.version < projection.version


def _drop_if_nobodys(views: Views, generation: Generation) -> None:
    """Unless it has come to serve since it was looked at."""
    owner = views.own_any(generation)
    if owner is not None:
        with owner:
            if any(_is_still(generation, found) for found in views.generations()):
                views.drop(generation)


def _is_still(generation: Generation, found: Generation) -> bool:
    """Whether it is the same one, in the same state: it may have read further."""
    return found._replace(position=0, parked=0) == generation._replace(position=0, parked=0)
