"""entrob's environments for Gymnasium, perturbed or not, one copy or many.

Importing this package registers them; perturbations, by name and magnitude, and the instance are
arguments::

    import gymnasium
    import entrob.gymnasium

    env = gymnasium.make("entrob/minigrid-empty-8x8-v0", perturbations={"wall": 6}, instance=3)
    envs = gymnasium.make_vec("entrob/mujoco-pusher-v0", num_envs=8, perturbations={"wall": 0.5})

**Ids.** ``entrob/`` before entrob's own id, with a dash for what Gymnasium allows in no name, and a
version, 0 where the id has none: `gymnasium_id`. ``minigrid/empty-8x8`` is
``entrob/minigrid-empty-8x8-v0``, ``gymnax:CartPole-v1`` is ``entrob/gymnax-CartPole-v1``. What is
in `entrob.envs.environments` at the import is registered; for anything else (``brax:ant``, an
environment of yours registered later) there are `register` and, without an id, `Env` and
`VectorEnv` themselves.

**Instances.** A perturbation draws, say, where walls stand; `instance` says which draw. Instance i
of `count` is the i-th of a test with that many instances and that `evaluation_seed`. The defaults,
200 and 0, are those of experiment files, so that ``instance=3`` is instance 3 of a run's
evaluation; for a file that says otherwise, they are its ``instances`` and ``evaluation_seed``.
`count` matters only to perturbations that spread their instances evenly, see
`entrob.perturbations.instance_keys`; others draw the same i-th instance whatever the count. Several
perturbations apply from left to right. The first one draws as if it were alone; the one at position
i > 0 draws from a test of its own, whose key is ``fold_in(key, i)``, so that draws are independent.
Perturbations that need an environment with noise get one.

**Episodes.** They end where training ends them: `terminated` and `truncated` are apart, both can be
true, the observation returned with them is the episode's last, and nothing resets the scalar
environment but `reset`. Pusher and Ant go on after success, as they do in training, though tests
end there. ``reset(options={"instance": 4})`` goes over to another instance without compiling
anything. The vector environment resets a copy in the step after its episode's last, whose action is
not read and whose reward is 0 (Gymnasium's ``AutoresetMode.NEXT_STEP``), so nothing is hidden there
either.

**Seeds.** ``reset(seed=s)`` fixes all that follows: each episode's key is drawn from the generator
that Gymnasium seeds. Copy i of a vector environment has the seed s + i, and plays what the scalar
environment plays with it, as Gymnasium's own vector environments do.

**info**, after reset and step alike, where the environment knows them: ``success`` (bool, whether
this state counts as success) and ``goal_distance`` (float, meters). Vector: arrays [N].

**Pictures.** ``render_mode="rgb_array"`` for grids, Pusher and Ant; Pusher and Ant are drawn flat,
which needs no OpenGL.

**Speed.** Copies of one environment in one process share compiled programs. One step of the scalar
environment costs what calling a compiled program costs; for speed take the vector environment, or
train in JAX.

Errors are `entrob.EntrobError`, of one line.
"""

import re

import gymnasium

from entrob.envs import environments
from entrob.errors import EntrobError
from entrob.gymnasium.scalar import Env
from entrob.gymnasium.vector import VectorEnv

__all__ = ["Env", "VectorEnv", "gymnasium_id", "register"]

#: What Gymnasium allows in no name; ":" it allows, and reads as the name of a module.
FORBIDDEN = re.compile(r"[^\w.-]")


def gymnasium_id(environment: str) -> str:
    """Gymnasium's id of an environment of entrob's.

    Example:
      >>> gymnasium_id("minigrid/empty-8x8"), gymnasium_id("gymnax:CartPole-v1")
      ('entrob/minigrid-empty-8x8-v0', 'entrob/gymnax-CartPole-v1')
    """
    name = FORBIDDEN.sub("-", environment)
    return f"entrob/{name}" if re.search(r"-v\d+$", name) else f"entrob/{name}-v0"


def register(environment: str) -> str:
    """Make an environment known to Gymnasium and return its id there; once more does no harm.

    Args:
      environment: entrob's id: one registered after this module was imported, or another library's
        as ``"brax:ant"``. It is opened when it is made.

    Raises:
      EntrobError: another environment's name is the same in Gymnasium.
    """
    id = gymnasium_id(environment)
    known = gymnasium.registry.get(id)
    if known is None:
        gymnasium.register(
            id,
            entry_point=f"{__name__}:Env",
            vector_entry_point=f"{__name__}:VectorEnv",
            kwargs={"environment": environment},
        )
    elif known.kwargs.get("environment") != environment:
        raise EntrobError(f"{environment!r} would be {id!r} in Gymnasium, which is another's")
    return id


for _environment in environments.names():
    register(_environment)
