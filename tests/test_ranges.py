"""Ranges are declared where fields are, and whatever lies outside is one line."""

import math
from typing import Annotated, NamedTuple

import jax
import numpy as np
import pytest

from entrob.agents.spec import Hyper
from entrob.envs import environments, layouts, make_task, task_of
from entrob.errors import EntrobError
from entrob.perturbations import perturb, perturbations
from entrob.ranges import COUNT, FINITE, POSITIVE, SEED, SHARE, Range, check, declared, vars_of

HALF_OPEN = Range(0, 1, below=True)


@pytest.mark.parametrize(
    ("range_", "inside", "outside", "text"),
    [
        (SHARE, [0, 1, 0.5, True.real], [-0.1, 1.1, math.nan], "a number in 0..1"),
        (HALF_OPEN, [0, 0.99], [1, -1], "a number in [0, 1)"),
        (POSITIVE, [1e-300, 1e300], [0, -1, math.inf, math.nan], "a finite number above 0"),
        (FINITE, [-1e300, 0], [math.inf, -math.inf, math.nan], "a finite number"),
        (Range(0, endless=True), [0, math.inf], [-1, -math.inf], "a number of at least 0"),
        (Range(high=2, below=True), [-9, 1.9], [2, -math.inf], "a finite number below 2"),
        (COUNT, [1, 2.0, 10**400], [0, 1.5, math.inf], "a whole number of at least 1"),
        (SEED, [0, 2**32 - 1], [-1, 2**32], "a whole number in 0..4294967295"),
    ],
)
def test_ends_and_words(range_, inside, outside, text):
    assert str(range_) == text
    assert all(range_.holds(number) for number in inside)
    assert not any(range_.holds(number) for number in outside)
    for number in outside:
        with pytest.raises(EntrobError) as error:
            range_.check("x", number)
        assert str(error.value).startswith(f"x must be {text}, not ")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", ["1", None, True, {}, 1j, [0.5, [0.5, "a"]], np.array(["a"])])
def test_what_is_no_number_is_in_no_range(value):
    with pytest.raises(EntrobError, match="must be a number in"):
        SHARE.check("x", value)


def test_every_number_of_an_array_is_checked_and_the_first_wrong_one_named():
    SHARE.check("x", np.float32([[0, 1], [0.5, 0.1]]))
    with pytest.raises(EntrobError, match=r"x must be a number in 0\.\.1, not 1\.5$"):
        SHARE.check("x", np.float32([[0, 1], [1.5, 3]]))
    assert COUNT.check("x", 2.0) == 2 and isinstance(COUNT.check("x", 2.0), int)


class Own(NamedTuple):
    share: Annotated[float, SHARE]
    free: float


def test_a_class_is_held_to_what_its_fields_declare():
    assert check("", Own(0.5, 99)) == {"share": 0.5}
    assert check("", {"free": 99, "share": None}, Own) == {}
    with pytest.raises(EntrobError, match=r"here: share must be a number in 0\.\.1, not 2"):
        check("here: ", Own(2, 0))


def test_every_hyper_parameter_has_a_range_that_holds_its_default():
    names = set(vars_of(Hyper())) - {"coefs"}
    assert set(declared(Hyper)) == names
    check("", Hyper())


#: Switches, cells, and what gymnax computes from other params.
WITHOUT = {"walls", "lava", "fixed_start", "dense_reward", "center_init", "normalize_time"}
WITHOUT |= {"ramping", "total_mass", "polemass_length"}


@pytest.mark.parametrize("id", environments.names())
def test_every_param_has_a_range(id):
    params = make_task(id).params
    assert set(vars_of(params)) - set(declared(type(params))) <= WITHOUT


#: A single perturbation of a grid or a robot compiles for a second.
LONG = [id for id in environments.names() if id.startswith("m")]
QUICK = [id for id in environments.names() if id not in LONG]


@pytest.mark.parametrize("id", [*QUICK, *(pytest.param(id, marks=pytest.mark.slow) for id in LONG)])
def test_no_perturbation_leaves_the_ranges(id):
    """At both ends of every magnitude: what is tested can be played."""
    env, params = make_task(id).pair(noise=True)
    for name in perturbations.names():
        for entry in perturbations.variants(name):
            if entry.lacks(params) is None:
                for end in entry.range(params):
                    env.check_params(perturb(jax.random.key(0), params, name, end))


@pytest.mark.parametrize(
    ("id", "values", "says"),
    [
        ("minigrid/empty-8x8", {"max_steps_in_episode": 0}, "a whole number in 1..2147483646"),
        ("minigrid/empty-8x8", {"max_steps_in_episode": 3_000_000_000}, "not 3000000000"),
        ("minigrid/empty-8x8", {"max_steps_in_episode": 10.5}, "not 10.5"),
        ("minigrid/empty-8x8", {"start_pos": [1.5, 1]}, "start_pos must be a whole number"),
        ("minigrid/empty-8x8", {"start_pos": [1, -1]}, "of at least 0, not -1"),
        ("minigrid/empty-8x8", {"start_pos": [1, 10]}, r"\(1, 10\) is outside of the grid"),
        ("minigrid/empty-8x8", {"start_pos": [8, 8]}, r"goal_pos \(8, 8\) is the start"),
        ("minigrid/empty-8x8", {"start_pos": [0, 1]}, r"start_pos \(0, 1\) is a wall"),
        ("minigrid/empty-8x8", {"goal_pos": [3, 9]}, r"goal_pos \(3, 9\) is a wall"),
        ("minigrid/lava-crossing", {"goal_pos": [1, 3]}, r"goal_pos \(1, 3\) is lava"),
        ("minigrid/empty-8x8", {"walls": 0}, "border of walls must be closed"),
        ("minigrid/empty-8x8", {"walls": 2}, r"walls must be a whole number in 0\.\.1, not 2"),
        ("minigrid/empty-8x8", {"start_dir": 4}, r"start_dir must be a whole number in 0\.\.3"),
        ("minigrid/empty-8x8", {"reward_decay": float("nan")}, r"a number in 0\.\.1, not nan"),
        ("gymnax:CartPole-v1", {"length": 0}, "length must be a finite number above 0, not 0"),
        ("gymnax:CartPole-v1", {"total_mass": float("nan")}, "a finite number, not nan"),
        ("gymnax:Acrobot-v1", {"goal_height": 2}, r"a number in \[-2, 2\), not 2"),
        ("gymnax:PointRobot-misc", {"goal_spread": 1.5}, r"goal_spread must be .*0\.\.1, not 1\.5"),
        ("gymnax:Catch-bsuite", {"max_steps_in_episode": 0}, "max_steps_in_episode must be"),
        ("mujoco/pusher", {"block_on": 0.5}, r"block_on must be a whole number in 0\.\.1"),
        ("mujoco/pusher", {"fixed_start": 2}, r"fixed_start must be a whole number in 0\.\.1"),
    ],
)
def test_params_that_mean_nothing_are_one_line(id, values, says):
    with pytest.raises(EntrobError, match=says) as error:
        make_task(id).with_params(values)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("drawing", "says"),
    [
        ("####\n#S #\n# G#\n## #", "the border of walls must be closed"),
        ("####\n#S #\n#~G \n####", "the border of walls must be closed"),
    ],
)
def test_a_layout_of_ones_own_is_checked_when_it_is_opened(drawing, says):
    with pytest.raises(EntrobError, match=says):
        task_of("mine", layouts.drawn(drawing))
    task_of("mine", layouts.drawn("####\n#S #\n#~G#\n####"))
