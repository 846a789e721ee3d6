"""A user's environment: registered, checked, trained and tested, with few abilities or many."""

import textwrap

import jax
import jax.numpy as jnp
import pandas as pd
import pytest
from flax import struct
from gymnax.environments import environment, spaces

import entrob
from entrob import cli
from entrob.envs import Environment, environments
from entrob.errors import EntrobError

CORRIDOR = '''
import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces


@struct.dataclass
class State(environment.EnvState):
    time: jax.Array
    place: jax.Array


@struct.dataclass
class Params(environment.EnvParams):
    length: jax.Array = None
    max_steps_in_episode: jax.Array = None


class Corridor(environment.Environment):
    """Six places in a row; the goal is the last of ``length`` of them. Not derived from ours."""

    finite = True

    @property
    def name(self):
        return "Corridor"

    @property
    def default_params(self):
        return Params(length=jnp.int32(4), max_steps_in_episode=jnp.int32(12))

    def action_space(self, params=None):
        return spaces.Discrete(2)

    def observation_space(self, params=None):
        return spaces.Box(0, 1, (6,), jnp.float32)

    def get_obs(self, state, params=None, key=None):
        return jax.nn.one_hot(state.place, 6)

    def reset_env(self, key, params):
        state = State(jnp.int32(0), jnp.int32(0))
        return self.get_obs(state), state

    def step_env(self, key, state, action, params):
        place = jnp.clip(state.place + 2 * action - 1, 0, 5)
        state = State(state.time + 1, place)
        done = self.is_success(state, params)
        return self.get_obs(state), state, jnp.float32(done), done, {}

    def is_terminated(self, state, params):
        return self.is_success(state, params)

    def is_success(self, state, params):
        return state.place >= params.length

    def states(self, params):
        return State(jnp.zeros(6, jnp.int32), jnp.arange(6, dtype=jnp.int32))

    def state_index(self, state):
        return state.place
'''

EXPERIMENT = """
environment = "corridors:Corridor"
num_envs = 2
num_steps = 8
chunk = 5
[[methods]]
name = "none"
[[methods]]
name = "count_entropy"
coefficients = { count_entropy = 0.01 }
[perturbations]
slip = [0.5]
[presets.quick]
seeds = 1
frames = 80
instances = 4
"""


@pytest.fixture
def corridor(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corridors.py").write_text(textwrap.dedent(CORRIDOR))
    yield "corridors:Corridor"


@pytest.fixture
def registry():
    before = dict(environments._entries)
    yield
    environments._entries.clear()
    environments._entries.update(before)


def test_a_foreign_finite_environment_is_trained_and_solved_exactly(corridor, tmp_path, cache):
    (tmp_path / "corridor.toml").write_text(EXPERIMENT)
    cli.main(["run", "corridor.toml", "--out", "out"])
    records = pd.read_parquet(tmp_path / "out" / "evaluation.parquet")
    nominal = records[records.perturbation == "nominal"]
    assert nominal.exact_success.between(0, 1).all() and (nominal.solvable == 1).all()
    assert not list((tmp_path / "out" / "parts").glob("occupancy-*"))  # its states are no cells
    assert (tmp_path / "out" / "report.md").exists()


def test_what_it_lacks_is_said(corridor):
    found = entrob.check_environment(corridor)
    lacks = {"goal_distance", "entropy_features", "observation_spread", "disturbance", "trace"}
    assert set(found.lacking) == lacks | {"scene", "pictures", "cell", "network", "check_params"}
    assert "of the flat observation" in str(found)


@pytest.mark.slow  # plays it; what is lacking is found as above
def test_what_a_physical_task_lacks_is_said():
    whole = entrob.check_environment("mujoco/pusher")
    assert set(whole.lacking) == {"finite", "cell", "network", "observation_spread"}


@struct.dataclass
class State(environment.EnvState):
    time: jax.Array


class Broken(Environment):
    """Each class below breaks one thing."""

    @property
    def default_params(self):
        return environment.EnvParams(max_steps_in_episode=jnp.int32(5))

    def action_space(self, params=None):
        return spaces.Discrete(2)

    def reset_env(self, key, params):
        return jnp.zeros(2), State(jnp.int32(0))

    def step_env(self, key, state, action, params):
        return jnp.zeros(2), State(state.time + 1), jnp.float32(0), jnp.bool_(False), {}


class WideReward(Broken):
    def step_env(self, key, state, action, params):
        return jnp.zeros(2), State(state.time + 1), jnp.zeros(3), jnp.bool_(False), {}


class OtherShape(Broken):
    def reset_env(self, key, params):
        return jnp.zeros(3), State(jnp.int32(0))


class OtherState(Broken):
    def step_env(self, key, state, action, params):
        return jnp.zeros(2), State(jnp.float32(1)), jnp.float32(0), jnp.bool_(False), {}


class Untraceable(Broken):
    def step_env(self, key, state, action, params):
        return super().step_env(key, state, 1 if action else 0, params)


class LooseParams(Broken):
    @property
    def default_params(self):
        return environment.EnvParams(max_steps_in_episode=5)


class NotANumber(Broken):
    def step_env(self, key, state, action, params):
        return jnp.zeros(2), State(state.time + 1), jnp.float32("nan"), jnp.bool_(False), {}


class SaysFinite(Broken):
    finite = True


class Shuffled(Broken):
    finite = True

    def states(self, params):
        return State(jnp.zeros(3, jnp.int32))

    def state_index(self, state):
        return jnp.int32(1)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (WideReward, r"its reward has shape \[3\]"),
        (OtherShape, "step_env's observation has not the shape"),
        (OtherState, "step_env's state has not the shapes"),
        (Untraceable, "does not trace"),
        (LooseParams, "1 leaves of its params are no arrays"),
        (NotANumber, "not finite"),
        (SaysFinite, "has no states"),
        (Shuffled, "state_index does not give"),
    ],
)
def test_a_broken_contract_is_one_line(broken, message, registry):
    entrob.register("mine/broken", broken)
    with pytest.raises(EntrobError, match=message) as error:
        entrob.check_environment("mine/broken")
    assert "\n" not in str(error.value)


def test_a_registered_one_has_a_name_and_options(registry):
    class Sized(Broken):
        def __init__(self, size=3):
            self.size = size

    entrob.register("mine/sized", Sized)
    entrob.register("mine/sized", Sized)  # again: nothing
    assert entrob.make("mine/sized", size=7)[0].size == 7
    assert entrob.check_environment("mine/sized").lacking["is_success"]
    with pytest.raises(EntrobError, match="registered twice"):
        entrob.register("mine/sized", Broken)
    with pytest.raises(EntrobError, match="did you mean 'size'"):
        entrob.make("mine/sized", sise=7)


def test_names_that_are_none_say_so(corridor):
    with pytest.raises(EntrobError, match="module has no 'Korridor'"):
        entrob.make("corridors:Korridor")
    with pytest.raises(EntrobError, match="unknown library of environments 'gymnaz'"):
        entrob.make("gymnaz:CartPole-v1")
