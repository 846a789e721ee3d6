"""Where coefficients may lie, what acts alike, and how labels are printed."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from entrob.errors import EntrobError
from entrob.regularizers import Regularizer, build, chain, check_coefficient, family, regularizers
from entrob.regularizers import domain as domains
from entrob.regularizers.protocol import EVIDENCE
from entrob.sweep.reading import from_table
from entrob.sweep.select import select_methods

OWN = [name for name in regularizers.names() if not name.startswith("tests_")]

#: Those with an end, from their sources.
BOUNDED = {
    "spine": 1, "clip_cov": 0.1, "kl_cov": 1, "steer": 1, "empg": 1, "hapo": 1, "ear": 1,
    "agentic_aepo": 1, "sac_temperature": 1,
}  # fmt: skip


@pytest.mark.parametrize("name", OWN)
def test_every_regularizer_has_a_domain_with_its_default_and_a_grade(name):
    part = build(name)
    low, high = part.domain
    assert low == 0 < part.coef < high
    assert check_coefficient(part, part.coef) == part.coef and check_coefficient(part, 0) == 0
    assert high == pytest.approx(BOUNDED.get(name, math.inf))
    if family(name) == "controls":
        assert part.label.startswith("control: ") and part.graded == part.label
    else:
        assert part.source and part.graded == f"{part.label} [{EVIDENCE[part.evidence]}]"


@pytest.mark.parametrize("name, value, said", [
    ("steer", 20, "coefficient of steer must be a number in [0, 1), not 20"),
    ("steer", 1, "[0, 1)"), ("hapo", 1.5, "in 0..1,"), ("clip_cov", 0.2, "[0, 0.1)"),
    ("policy_entropy", -1, "a finite number of at least 0, not -1"),
    ("policy_entropy", math.inf, "finite"),
    ("policy_entropy", math.nan, "finite"), ("policy_entropy", True, "finite"),
    ("policy_entropy", "much", "finite"),
])  # fmt: skip
def test_what_lies_outside_is_named_in_one_line(name, value, said):
    with pytest.raises(EntrobError) as error:
        check_coefficient(build(name), value)
    assert said in str(error.value) and name in str(error.value) and "\n" not in str(error.value)


def test_mixtures_reach_their_method_and_options_move_the_end():
    for name in ("spine", "empg", "ear", "hapo"):
        assert check_coefficient(build(name), 1) == 1
    assert check_coefficient(build("clip_cov", bounds=(0.5, 1.0)), 0.3) == 0.3
    assert check_coefficient(build("clip_cov", bounds=(1.0, 5.0), absolute=True), 0.9) == 0.9


def test_no_schedule_takes_a_coefficient_out_of_its_domain():
    steep = {"kind": "linear", "start": 5.0}
    parts = [build(name, schedule=steep) for name in ("steer", "ear", "policy_entropy")]
    coefs = {"steer": jnp.float32(0.5), "ear": jnp.float32(1.0), "policy_entropy": jnp.float32(2.0)}
    now = chain(*parts).coefs(coefs, jnp.float32(0.0))
    assert now["steer"] < 1 and now["steer"] == np.nextafter(np.float32(1), np.float32(0))
    assert now["ear"] == 1 and now["policy_entropy"] == 10
    free = chain(build("ear")).coefs({"ear": jnp.float32(0.3)}, jnp.float32(0.0))
    assert free["ear"] == np.float32(0.3)


def test_coefficients_that_come_from_outside_are_checked():
    table = {
        "environment": "minigrid/empty-8x8", "frames": 1000,
        "perturbations": {"wall": [1]}, "presets": {"one": {"seeds": 1}},
        "methods": [{"name": "none"}, {"name": "steer", "coefficients": {"steer": 0.5}}],
    }  # fmt: skip
    experiment = from_table("here", "here", table, "one")
    chosen = select_methods(experiment, ("steer",), "0.2,0.9")
    assert [m.coefficients for m in chosen.methods[1:]] == [{"steer": 0.2}, {"steer": 0.9}]
    with pytest.raises(EntrobError, match=r"steer must be a number in \[0, 1\)"):
        select_methods(experiment, ("steer",), "0.2,20")
    table["methods"][1]["coefficients"]["steer"] = 20
    with pytest.raises(EntrobError, match=r"steer must be a number in \[0, 1\)"):
        from_table("here", "here", table, "one")


@pytest.mark.parametrize("share", [1e-6, 1 / 512, 0.01, 0.3, 0.999])
def test_equal_keys_are_equal_counts(share):
    traced = jnp.maximum(1, jnp.floor(jnp.float32(share) * 512))
    for name in ("clip_cov", "kl_cov"):
        assert build(name).distinct(share, 512) == int(traced)
    assert domains.steps_of(0, 512) == 0


def test_users_regularizers_need_none_of_it():
    part = Regularizer("mine")
    assert part.domain == (0, math.inf) and part.distinct is None and part.graded == "faithful"
