"""Which runs share a program, how they are cut into batches, and what a run's id depends on."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from entrob.compiling import sharded
from entrob.sweep.experiment import Method
from entrob.sweep.groups import cut, group_methods, run_id, runs_of

NONE = Method("none")
POLICY = Method("policy", {"policy_entropy": 0.01})
STATE = Method("state", {"state_entropy": 0.1})
BOTH = Method("both", {"policy_entropy": 0.01, "state_entropy": 0.1})


def grouped(*methods):
    """Names of the methods of each group."""
    return sorted(sorted(m.name for m in g.methods) for g in group_methods(methods))


def test_methods_whose_regularizers_are_nested_share_one_program():
    groups = group_methods((NONE, POLICY, STATE, BOTH))
    assert len(groups) == 1
    assert groups[0].regularizers == ("policy_entropy", "state_entropy")
    assert {m.name for m in groups[0].methods} == {"none", "policy", "state", "both"}


def test_a_regularizer_of_ones_own_makes_a_group():
    mine = Method("mine", {"my_regularizer": 1.0})
    assert grouped(NONE, POLICY, STATE, BOTH, mine) in (
        [["both", "none", "policy", "state"], ["mine"]],
        [["both", "policy", "state"], ["mine", "none"]],
    )


@pytest.mark.parametrize(
    "other",
    [
        dataclasses.replace(STATE, base="other", options={"state_entropy": {"k": 3}}),
        dataclasses.replace(STATE, base="other", params={"reward_decay": 0.9}),
        dataclasses.replace(STATE, base="other", training={"reward_noise": 0.1}),
    ],
)
def test_options_params_and_training_split_groups(other):
    assert grouped(STATE, other) == [["other"], ["state"]]
    keys = {g.key for g in group_methods((STATE, other))}
    assert len(keys) == 2


def test_a_coefficient_does_not_split_a_group():
    assert len(group_methods((STATE, Method("strong", {"state_entropy": 5.0})))) == 1


KL, TSALLIS, RE3 = (Method(name, {name: 0.1}) for name in ("kl", "tsallis", "re3"))
SHARE = (("kl", "tsallis", "epo"),)


def test_methods_that_share_a_program_are_chained_in_it():
    first, second = group_methods((NONE, KL, TSALLIS, RE3), SHARE)
    assert first.regularizers == ("kl", "tsallis")  # and not epo, which no method has
    assert [m.name for m in first.methods] == ["kl", "tsallis", "none"]
    assert [m.name for m in second.methods] == ["re3"]
    assert grouped(NONE, KL) == [["kl", "none"]]


def test_only_methods_with_the_same_setting_and_no_options_share():
    noisy = dataclasses.replace(TSALLIS, training={"reward_noise": 0.1})
    odd = dataclasses.replace(TSALLIS, base="odd", options={"tsallis": {"q": 3.0}})
    groups = group_methods((KL, noisy, odd), SHARE)
    assert [g.regularizers for g in groups] == [("kl",), ("tsallis",), ("tsallis",)]


@pytest.mark.parametrize(
    ("runs", "size", "sizes"),
    [(4, 4, [4]), (4, 9, [4]), (5, 3, [3, 2]), (7, 3, [3, 2, 2]), (3, 1, [1, 1, 1])],
)
def test_cut_is_as_even_as_possible_and_loses_no_run(tiny, runs, size, sizes):
    experiment = dataclasses.replace(tiny, seeds=runs)
    all_runs = list(runs_of(experiment, NONE))
    batches = cut(group_methods((NONE,))[0], all_runs, size)
    assert [len(b.runs) for b in batches] == sizes
    assert [run for b in batches for run in b.runs] == all_runs
    assert len({b.id for b in batches}) == len(batches)


def test_cutting_what_is_left_after_some_batches_gives_the_same_batches(tiny):
    """Otherwise an interrupted batch would not find its checkpoint."""
    group = group_methods((NONE,))[0]
    for count in range(1, 60):
        runs = list(runs_of(dataclasses.replace(tiny, seeds=count), NONE))
        for size in range(1, count + 1):
            first, *rest = cut(group, runs, size)
            left = runs[len(first.runs) :]
            assert (cut(group, left, size) if left else []) == rest


def test_a_run_id_depends_on_method_seed_and_settings_only(tiny):
    base = run_id(tiny, POLICY, 0)
    assert run_id(tiny, Method("policy", {"policy_entropy": 0.01}), 0) == base
    changed = [
        run_id(tiny, POLICY, 1),
        run_id(tiny, Method("policy", {"policy_entropy": 0.02}), 0),
        run_id(
            tiny, dataclasses.replace(POLICY, options={"policy_entropy": {"schedule": None}}), 0
        ),
        run_id(tiny, dataclasses.replace(POLICY, params={"reward_decay": 0.9}), 0),
        run_id(dataclasses.replace(tiny, num_steps=16), POLICY, 0),
        run_id(dataclasses.replace(tiny, hyper={"gamma": 0.9}), POLICY, 0),
        run_id(dataclasses.replace(tiny, frames=10_000), POLICY, 0),
    ]
    assert len({base, *changed}) == len(changed) + 1
    # What is measured later, and how many runs there are, does not change a run.
    for same in ({"seeds": 9}, {"instances": 99}, {"perturbations": {"slip": (0.0,)}}):
        assert run_id(dataclasses.replace(tiny, **same), POLICY, 0) == base


def test_a_state_with_an_array_of_size_0_passes_from_program_to_program():
    """XLA says of such an array that every device has all of it, whatever it was asked for."""

    def begin(seeds):
        return {"none": jnp.zeros((len(seeds), 0)), "some": seeds + 1.0}

    begun = sharded(begin, (True,)).lower(np.zeros(4, np.float32)).compile()
    double = sharded(lambda state: jax.tree.map(lambda x: 2 * x, state), (True,))
    state = double.lower(begun.out_info).compile()(begun(np.zeros(4, np.float32)))
    assert state["some"].tolist() == [2.0] * 4 and len(state["some"].sharding.device_set) == 2
