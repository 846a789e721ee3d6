"""What a folder shows besides its records: tables, figures and pages, named so that none is stale.

``drawn.json`` lists them. What is drawn again replaces all of them: a figure whose records are gone
goes, too, and the user's own files stay.
"""

import contextlib
import contextvars
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from entrob.persistence.store import DRAWN, Damaged, read_json, write_json, written


def drawings(folder: Path) -> list[Path]:
    """The files that were drawn into a folder, whether or not they are there still."""
    try:
        names = read_json(folder / DRAWN)
    except Damaged:
        return []
    listed = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
    inside = [n for n in listed if not (PurePosixPath(n).is_absolute() or ".." in n.split("/"))]
    return [folder / name for name in inside]


_folder: contextvars.ContextVar[Path | None] = contextvars.ContextVar("folder", default=None)


@contextlib.contextmanager
def redrawn(folder: Path) -> Iterator[None]:
    """What is written inside, below a folder, is all that the folder shows from then on.

    Within another one of the same folder it adds to what that one draws.
    """
    if _folder.get() == folder:
        yield
        return
    before = set(drawings(folder))
    token = _folder.set(folder)
    with written() as new:
        try:
            yield
        except BaseException:
            _list(folder, before | new)
            raise
        finally:
            _folder.reset(token)
    for path in before - new:
        path.unlink(missing_ok=True)
    _list(folder, new)


def _list(folder: Path, paths: set[Path]) -> None:
    if paths:
        names = sorted(path.relative_to(folder).as_posix() for path in paths)
        write_json(folder / DRAWN, names)
