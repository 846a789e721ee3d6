"""What agents see: one array of whatever shape; anything else is refused with its shape."""

import dataclasses

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import environment, spaces

from entrob.agents.actor_critic import make_agent
from entrob.agents.model import make_model
from entrob.agents.networks import MLP
from entrob.agents.spec import Hyper, Spec
from entrob.envs import Environment, adapters, make
from entrob.errors import EntrobError
from entrob.regularizers import build, chain

#: Its observation is a matrix. Single whole numbers and vectors of them are flattened below.
FAST = "Catch-bsuite"
OTHERS = [id for id in gymnax.registered_envs if id not in (FAST, *adapters.EXCLUDED)]


@pytest.mark.parametrize("id", [FAST, *(pytest.param(i, marks=pytest.mark.slow) for i in OTHERS)])
def test_every_gymnax_environment_trains_for_an_update(id):
    """With normalized observations and what looks at them: parameters move and stay finite."""
    env, params = make(f"gymnax:{id}")
    looks = build("policy_entropy"), build("state_entropy")
    agent = make_agent(Spec(env, chain(*looks), num_envs=2, num_steps=6, normalize=True))
    hyper = Hyper(coefs={"policy_entropy": 0.1, "state_entropy": 0.1})

    @jax.jit
    def train(key):
        state = agent.init(key, hyper, params)
        return state, agent.train_chunk(state, hyper, params, 1)[0]

    before, after = train(jax.random.PRNGKey(0))
    leaves = list(zip(*map(jax.tree.leaves, (before.network, after.network)), strict=True))
    assert all(np.isfinite(new).all() for _, new in leaves) and after.diverged_at == -1
    assert any((np.asarray(old) != np.asarray(new)).any() for old, new in leaves)


def test_a_perceptron_sees_the_same_numbers_whatever_their_shape():
    flat = jax.random.normal(jax.random.key(0), (5, 12))
    params = MLP(3).init(jax.random.key(1), flat)
    want = MLP(3).apply(params, flat)
    for shape in ((3, 4), (2, 3, 2)):
        seen = flat.reshape(5, *shape)
        got = MLP(3, axes=len(shape)).apply(params, seen)
        jax.tree.map(np.testing.assert_array_equal, got, want)
    one = MLP(3, axes=0)
    head, value = one.apply(one.init(jax.random.key(1), flat[:, 0]), flat[:, 0])
    assert head.shape == (5, 3) and value.shape == (5,)


@dataclasses.dataclass(frozen=True)
class Seeing(Environment):
    """Shows a given observation."""

    seen: tuple

    @property
    def default_params(self):
        return environment.EnvParams(max_steps_in_episode=jnp.int32(5))

    def action_space(self, params=None):
        return spaces.Discrete(2)

    def reset_env(self, key, params):
        build = {"several": dict, "pair": tuple}.get(self.seen[0])
        if build is dict:
            return {"pos": jnp.zeros(2), "vel": jnp.zeros((2, 3))}, None
        if build is tuple:
            return (jnp.zeros(2), jnp.zeros(())), None
        return jnp.zeros(self.seen), None


def test_several_arrays_are_refused_with_their_shapes():
    with pytest.raises(EntrobError, match=r"not several \(\['pos'\] \[2\], \['vel'\] \[2, 3\]\)"):
        make_model(Seeing(("several",)))
    with pytest.raises(EntrobError, match=r"one array, not several \(\[0\] \[2\], \[1\] \[\]\)"):
        make_model(Seeing(("pair",)))


@pytest.mark.parametrize(("shape", "image"), [((4,), False), ((2, 9, 1), False), ((3, 3, 1), True)])
def test_networks_of_images_see_images_only(shape, image):
    env = Seeing(shape)
    init = make_model(env).init
    params = jax.eval_shape(init, jax.random.key(0), jnp.zeros((2, *shape)))
    assert ("PatchConv_0" in params["params"]) == image
    if not image:
        with pytest.raises(EntrobError, match=r"sees images \[H, W, C\], and observations have"):
            make_model(env, "minatar")
