"""The folder of one experiment: atomic writes, checked reads, content-addressed parts."""

import contextlib
import contextvars
import errno
import hashlib
import json
import os
import re
import secrets
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import Any

import flax.serialization
import jax
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from entrob.errors import EntrobError
from entrob.persistence.lock import NAME as LOCK


class Damaged(EntrobError):
    """A file that is half-written or altered; `path` says which."""

    def __init__(self, path: Path, reason: str):
        super().__init__(f"{path} is damaged ({reason})")
        self.path = path


@contextlib.contextmanager
def _named_errors(path: Path):
    """Turn what the operating system refuses into one clear line."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise EntrobError(
                f"the disk is full: {path} was not written; what was finished before is intact"
            ) from error
        raise EntrobError(f"cannot write {path}: {error.strerror or error}") from error


_writing: contextvars.ContextVar[set[Path] | None] = contextvars.ContextVar("writing", default=None)


@contextlib.contextmanager
def written() -> Iterator[set[Path]]:
    """The files that are written inside, so far."""
    new: set[Path] = set()
    token = _writing.set(new)
    try:
        yield new
    finally:
        _writing.reset(token)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; raises `EntrobError` if the disk is full."""
    # Processes of several machines may have the same number.
    own = f"{os.getpid()}.{secrets.token_hex(4)}"
    temporary = path.with_name(f".{path.name}.{own}.tmp")
    with _named_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    if (new := _writing.get()) is not None:
        new.add(path)


def write_json(path: Path, value: Any) -> None:
    """Write JSON, indented and in the given order (methods keep that of their file), atomically."""
    write_bytes(path, (json.dumps(value, indent=1) + "\n").encode())


def write_sealed(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON object with its checksum as a last entry, atomically."""
    write_json(path, {**value, "sha256": _checksum(value)})


def _checksum(value: dict[str, Any]) -> str:
    # As it is read back: keys are strings, in the order in which they were written.
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def read_json(path: Path) -> Any:
    """Read JSON; raises `Damaged` if it is not, or not what its checksum says, if it has one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        seal = value.pop("sha256", None) if isinstance(value, dict) else None
        if seal is not None and seal != _checksum(value):
            raise ValueError("checksum")
        return value
    except (ValueError, OSError) as error:
        raise Damaged(path, str(error).splitlines()[0]) from error


#: Comes before the checksum of a Parquet file.
_SEAL = b"entrob sha256 "


def write_frame(path: Path, frame: pd.DataFrame) -> None:
    """Write a data frame as Parquet, sealed by a checksum, atomically.

    Parquet's own checksums leave out the footer, where one flipped bit can exchange columns. The
    seal lies between the last page and the footer, where no reader of Parquet looks.
    """
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pandas(frame, preserve_index=False)
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    data = sink.getvalue().to_pybytes()
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    write_bytes(path, data[:footer] + _SEAL + hashlib.sha256(data).digest() + data[footer:])


def read_frame(path: Path) -> pd.DataFrame:
    """Read a Parquet file, its checksums verified; raises `Damaged` if they fail.

    A file without a seal is held to the checksums of its pages.
    """
    try:
        data = path.read_bytes()
        pages, seal, rest = data.rpartition(_SEAL)
        if seal and hashlib.sha256(pages + rest[32:]).digest() != rest[:32]:
            raise ValueError("checksum")
        return pq.read_table(pa.BufferReader(data), page_checksum_verification=True).to_pandas()
    except Exception as error:  # altered metadata can make the reader raise anything
        raise Damaged(path, (str(error).splitlines() or [""])[0][:120]) from error


def write_tree(path: Path, tree: Any) -> None:
    """Write the leaves of a pytree, with a checksum, atomically."""
    leaves = {str(i): np.asarray(x) for i, x in enumerate(jax.tree.leaves(tree))}
    payload = flax.serialization.msgpack_serialize(leaves)
    write_bytes(path, hashlib.sha256(payload).digest() + payload)


def read_sealed(path: Path) -> bytes:
    """What `write_tree` wrote, without its checksum; raises `Damaged` if that fails."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Damaged(path, error.strerror or str(error)) from error
    if hashlib.sha256(data[32:]).digest() != data[:32]:
        raise Damaged(path, "checksum")
    return data[32:]


def read_tree(path: Path, like: Any) -> Any:
    """Read a pytree of the structure of `like`.

    Raises:
      Damaged: the checksum fails, or shapes and dtypes are not those of `like`.
    """
    stored = flax.serialization.msgpack_restore(read_sealed(path))
    wanted, structure = jax.tree.flatten(like)
    leaves = [stored.get(str(i)) for i in range(len(wanted))]
    for leaf, want in zip(leaves, wanted):
        if leaf is None or leaf.shape != want.shape or leaf.dtype != want.dtype:
            raise Damaged(path, "of another network or version")
    return jax.tree.unflatten(structure, leaves)


def _version(path: Path) -> tuple[int, int]:
    """Changes when a file does; raises `Damaged` if there is none."""
    try:
        found = path.stat()
    except OSError as error:
        raise Damaged(path, error.strerror or str(error)) from error
    return found.st_mtime_ns, found.st_size


#: What tells the rows of a kind apart, as far as it has these columns.
_IDENTITY = ("run_id", "frames", "perturbation", "magnitude", "instance")


#: The list of what was drawn into a folder, see `entrob.persistence.drawings`.
DRAWN = "drawn.json"
#: Kinds of tidy records: the parts of each are united at the top of the folder.
RECORDS = ("runs", "curves", "evaluation", "progress", "occupancy", "traces")
_KINDS = (*RECORDS, "policies", "snapshot", "checkpoint", "tempered", "cost")
# How files in ``parts/`` are called, those that a killed process left half-written included.
_PART = re.compile(
    rf"\.?({'|'.join(_KINDS)})-[0-9a-f]{{16}}(-.+)?\.(parquet|msgpack|json)"
    r"(\.\d+(\.[0-9a-f]+)?\.tmp)?"
)
#: What is asked for, see `entrob.cli.running`; it may be there before anything else is.
PLAN = "plan.json"
#: Where the jobs of `entrob.engines.slurm` keep their logs.
LOGS = "slurm"
_PLAN = re.compile(r"[0-9a-f]{16}\.json")


def check_unused(root: Path) -> None:
    """Raise `EntrobError` if a folder holds more than what comes before any result."""
    before = (LOCK, PLAN, LOGS)
    if root.exists() and any(path.name not in before for path in root.iterdir()):
        raise EntrobError(f"{root} is not empty and holds no entrob results")


class Store:
    """Paths and files of one output folder.

    ``parts/`` holds what each batch produced; the top level holds their union, the tidy records.
    """

    def __init__(self, root: Path | str):
        self.root = Path(root)
        self._frames: dict[Path, tuple[tuple[int, int], pd.DataFrame]] = {}
        self._sound: dict[Path, tuple[int, int]] = {}

    def read(self, path: Path) -> pd.DataFrame:
        """What `read_frame` reads, once for as long as the file stays as it is; not to be changed.

        Raises:
          Damaged: a checksum fails, or there is no such file.
        """
        version = _version(path)
        if path not in self._frames or self._frames[path][0] != version:
            self._frames[path] = version, read_frame(path)
        return self._frames[path][1]

    def check_sealed(self, path: Path) -> None:
        """Raise `Damaged` as `read_sealed` does, which reads once for as long as a file stays."""
        version = _version(path)
        if self._sound.get(path) != version:
            read_sealed(path)
            self._sound[path] = version

    def part(self, kind: str, batch: str, suffix: str = ".parquet") -> Path:
        """Path of what one batch produced: ``parts/KIND-BATCH.parquet``."""
        return self.root / "parts" / f"{kind}-{batch}{suffix}"

    @property
    def manifest_path(self) -> Path:
        return self.root / "manifest.json"

    def manifest(self) -> dict[str, Any]:
        """The manifest, empty if there is none yet; raises `Damaged`."""
        return read_json(self.manifest_path) if self.manifest_path.exists() else {}

    def claim(self, identity: dict[str, Any], ids: Container[str] = ()) -> None:
        """Make the folder this experiment's; raises `EntrobError` as `check` does."""
        self.write_manifest({**self.check(identity, ids), **identity})

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        """Write the manifest with its checksum, atomically."""
        write_sealed(self.manifest_path, manifest)

    def holds(self, ids: Container[str]) -> bool:
        """Whether a part that can be read has a run of these ids."""
        for path in self.parts("runs"):
            with contextlib.suppress(Damaged):
                if any(run_id in ids for run_id in self.read(path)["run_id"]):
                    return True
        return False

    def check(self, identity: dict[str, Any], ids: Container[str] = ()) -> dict[str, Any]:
        """The manifest, if the folder is this experiment's or nobody's.

        Args:
          identity: ``experiment`` and ``experiment_hash``.
          ids: of the experiment's runs; a folder that holds one is its own even without a manifest.

        Raises:
          EntrobError: it was made by another experiment, preset or version of the settings.
        """
        manifest = self.manifest()
        for key in ("experiment", "experiment_hash"):
            if key in manifest and manifest[key] != identity[key]:
                raise EntrobError(
                    f"{self.root} was made by another experiment ({manifest['experiment']} "
                    f"{manifest.get('preset', '')}, {key} {manifest[key]}): choose another --out"
                )
        if not manifest and not self.holds(ids):
            check_unused(self.root)
        return manifest

    def parts(self, kind: str) -> list[Path]:
        """Paths of all parts of a kind, sorted."""
        return sorted((self.root / "parts").glob(f"{kind}-*.parquet"))

    def clear(self, drawn: Iterable[Path] = ()) -> None:
        """Remove what was written here and nothing else; the folder stays this experiment's.

        Args:
          drawn: tables, figures and pages, see `entrob.persistence.drawings`.
        """
        manifest, parts = self.manifest(), self.root / "parts"
        named = [path for path in parts.glob("*") if _PART.fullmatch(path.name)]
        named += [self.root / f"{kind}.parquet" for kind in RECORDS]
        plans, leases = self.root.glob("plan/*.json"), self.root.glob("leases/*.lease")
        named += [path for path in plans if _PLAN.fullmatch(path.name)] + list(leases)
        named += [self.root / DRAWN, *drawn]
        # First, so that whatever ends this, the folder is known to be of the experiment's.
        self.write_manifest({"experiment": manifest.get("experiment")})
        remove(named)

    def drop(self, batch: str) -> None:
        """Remove everything that one batch produced, so that it is redone as a whole."""
        for path in (self.root / "parts").glob(f"*-{batch}*"):
            path.unlink()

    def check_curves(self) -> None:
        """Raise `Damaged` if the curves of trained runs are missing, which are written first."""
        for path in self.parts("runs"):
            curves = self.part("curves", path.stem.removeprefix("runs-"))
            if not curves.exists():
                raise Damaged(curves, "it is missing; the command that made it makes it again")

    def gather(self, kind: str) -> pd.DataFrame:
        """The union of all parts of a kind; empty if there are none. Raises `Damaged`.

        Without runs that are no longer what their methods are, which the manifest names.

        A run tested again under other magnitudes of a perturbation has some rows in two parts.
        """
        frames = [self.read(path) for path in self.parts(kind)]
        if not frames:
            return pd.DataFrame()
        union = pd.concat(frames, ignore_index=True)
        if kind == "runs":  # of before they said by what code
            union["code"] = (
                union["code"].fillna("unversioned") if "code" in union else "unversioned"
            )
        gone = self.manifest().get("superseded", [])
        union = union[~union.run_id.isin(gone)] if gone else union
        key = [c for c in _IDENTITY if c in union]
        return union.drop_duplicates(key, ignore_index=True)


def remove(paths: Iterable[Path]) -> None:
    """Remove files, and the folders that this leaves empty."""
    paths = list(paths)
    for path in paths:
        path.unlink(missing_ok=True)
    for folder in sorted({path.parent for path in paths}, key=lambda p: -len(p.parts)):
        with contextlib.suppress(OSError):  # not empty, or not there
            folder.rmdir()
