"""The folder of one experiment: atomic writes, checked reads, content-addressed parts."""

import contextlib
import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import flax.serialization
import jax
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from entrob.errors import EntrobError


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


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; raises `EntrobError` if the disk is full."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
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


def write_json(path: Path, value: Any) -> None:
    """Write JSON, indented, atomically."""
    write_bytes(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read JSON; raises `Damaged` if it is not."""
    try:
        return json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise Damaged(path, str(error).splitlines()[0]) from error


def write_frame(path: Path, frame: pd.DataFrame) -> None:
    """Write a data frame as Parquet with page checksums, atomically."""
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pandas(frame, preserve_index=False)
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    write_bytes(path, sink.getvalue().to_pybytes())


def read_frame(path: Path) -> pd.DataFrame:
    """Read a Parquet file, its checksums verified; raises `Damaged` if they fail."""
    try:
        return pq.read_table(path, page_checksum_verification=True).to_pandas()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise Damaged(path, str(error).splitlines()[0][:120]) from error


def write_tree(path: Path, tree: Any) -> None:
    """Write the leaves of a pytree, with a checksum, atomically."""
    leaves = {str(i): np.asarray(x) for i, x in enumerate(jax.tree.leaves(tree))}
    payload = flax.serialization.msgpack_serialize(leaves)
    write_bytes(path, hashlib.sha256(payload).digest() + payload)


def read_tree(path: Path, like: Any) -> Any:
    """Read a pytree of the structure of `like`.

    Raises:
      Damaged: the checksum fails, or shapes and dtypes are not those of `like`.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Damaged(path, str(error)) from error
    if hashlib.sha256(data[32:]).digest() != data[:32]:
        raise Damaged(path, "checksum")
    stored = flax.serialization.msgpack_restore(data[32:])
    wanted, structure = jax.tree.flatten(like)
    leaves = [stored.get(str(i)) for i in range(len(wanted))]
    for leaf, want in zip(leaves, wanted):
        if leaf is None or leaf.shape != np.shape(want) or leaf.dtype != np.asarray(want).dtype:
            raise Damaged(path, "written by another version")
    return jax.tree.unflatten(structure, leaves)


class Store:
    """Paths and files of one output folder.

    ``parts/`` holds what each batch produced; the top level holds their union, the tidy records.
    """

    def __init__(self, root: Path | str):
        self.root = Path(root)

    def part(self, kind: str, batch: str, suffix: str = ".parquet") -> Path:
        """Path of what one batch produced: ``parts/KIND-BATCH.parquet``."""
        return self.root / "parts" / f"{kind}-{batch}{suffix}"

    @property
    def manifest_path(self) -> Path:
        return self.root / "manifest.json"

    def manifest(self) -> dict[str, Any]:
        """The manifest, empty if there is none yet; raises `Damaged`."""
        return read_json(self.manifest_path) if self.manifest_path.exists() else {}

    def claim(self, identity: dict[str, Any]) -> None:
        """Make the folder this experiment's.

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
        if not manifest and self.root.exists() and any(self.root.iterdir()):
            raise EntrobError(f"{self.root} is not empty and holds no entrob results")
        write_json(self.manifest_path, {**manifest, **identity})

    def parts(self, kind: str) -> list[Path]:
        """Paths of all parts of a kind, sorted."""
        return sorted((self.root / "parts").glob(f"{kind}-*.parquet"))

    def gather(self, kind: str) -> pd.DataFrame:
        """The union of all parts of a kind; empty if there are none. Raises `Damaged`."""
        frames = [read_frame(path) for path in self.parts(kind)]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
