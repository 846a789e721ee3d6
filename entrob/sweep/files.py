"""Experiment files: where they are, and what they say."""

import tomllib
from pathlib import Path
from typing import Any

import entrob
from entrob.errors import EntrobError, unknown


def folders() -> list[Path]:
    """Where experiment files are looked for: ./benchmarks, then those shipped with entrob."""
    package = Path(entrob.__file__).parent
    return [Path("benchmarks"), package / "benchmarks", package.parent / "benchmarks"]


def names() -> list[str]:
    """The experiments that can be run by name."""
    return sorted({path.stem for folder in folders() for path in folder.glob("*.toml")})


def find(name: str) -> Path:
    """The file of an experiment given by name or path; raises `EntrobError` if there is none."""
    if name.endswith(".toml"):
        if not Path(name).is_file():
            raise EntrobError(f"there is no experiment file {name}")
        return Path(name)
    for folder in folders():
        if (folder / f"{name}.toml").is_file():
            return folder / f"{name}.toml"
    raise unknown("experiment", name, names())


def read(name: str) -> tuple[Path, dict[str, Any]]:
    """The file of an experiment and what it says.

    Raises:
      EntrobError: there is none, or it is malformed (with the line).
    """
    path = find(name)
    try:
        return path, tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise EntrobError(f"{path.name}: {error}") from error
