"""MuJoCo models by name: what is loaded, what its parts are called, what can meet in it."""

import dataclasses
import importlib.resources
from collections.abc import Callable, Sequence

import jax
import mujoco
import numpy as np
from flax import struct

from entrob.errors import EntrobError, unknown

KINDS = ("body", "joint", "geom", "actuator")


@struct.dataclass
class State:
    """What a simulation carries from one step to the next.

    Attributes:
      qpos: float32[nq], joint positions.
      qvel: float32[nv], joint velocities.
      warmstart: float32[nv], the last acceleration, where the solver starts.
    """

    qpos: jax.Array
    qvel: jax.Array
    warmstart: jax.Array


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Pairs of geoms that can meet, all of one kind.

    Attributes:
      touch: a function of `contacts`, from two shapes to their contacts.
      geoms: int[P, 2], the geoms' ids; normals point from the first to the second.
      margin: distance in meters below which a contact counts.
    """

    touch: Callable
    geoms: np.ndarray
    margin: float


def resources():
    """The folder of our models."""
    return importlib.resources.files("entrob.envs.mujoco") / "models"


def load(source: str) -> mujoco.MjModel:
    """Compile a model.

    Args:
      source: the name of a file in `entrob.envs.mujoco.models`, a path to a file, or MJCF text.

    Raises:
      EntrobError: there is no such file, or MuJoCo does not accept it.
    """
    try:
        if source.lstrip().startswith("<"):
            text = source
        else:
            packaged = resources() / source
            if packaged.is_file():
                text = packaged.read_text(encoding="utf-8")
            else:
                with open(source, encoding="utf-8") as file:
                    text = file.read()
        return mujoco.MjModel.from_xml_string(text)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        name = "the model" if source.lstrip().startswith("<") else f"model {source!r}"
        reason = " ".join(str(error).split())
        raise EntrobError(f"{name} does not load: {reason}") from None


def ids(model: mujoco.MjModel, kind: str, names: Sequence[str]) -> np.ndarray:
    """The ids of named things: int[len(names)].

    Args:
      kind: ``"body"``, ``"joint"``, ``"geom"`` or ``"actuator"``.

    Raises:
      EntrobError: the model has no such thing.
    """
    if kind not in KINDS:
        raise unknown("kind of model element", kind, KINDS)
    code = getattr(mujoco.mjtObj, f"mjOBJ_{kind.upper()}")
    found = [mujoco.mj_name2id(model, code, name) for name in names]
    if -1 in found:
        size = {"body": model.nbody, "joint": model.njnt, "geom": model.ngeom}.get(kind, model.nu)
        known = [mujoco.mj_id2name(model, code, i) for i in range(size)]
        raise unknown(kind, names[found.index(-1)], [name for name in known if name])
    return np.array(found)


def pairs(
    model: mujoco.MjModel,
    touch: Callable,
    first: Sequence[str],
    second: Sequence[str],
    mix: Callable[[float, float], float],
) -> Pairs:
    """Every geom named in `first` with every one named in `second`; see `Pairs`.

    Args:
      model: the model.
      touch: see `Pairs`.
      first: names of geoms of one body.
      second: names of geoms of another.
      mix: the margin of a pair, from those of both geoms; all pairs have the first one's.
    """
    one, two = np.meshgrid(ids(model, "geom", first), ids(model, "geom", second), indexing="ij")
    geoms = np.stack([one.ravel(), two.ravel()], 1)
    return Pairs(touch, geoms, float(mix(*model.geom_margin[geoms[0]])))
