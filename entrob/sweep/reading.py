"""Reading experiment files: TOML tables, held to what an experiment may be."""

import contextlib
import dataclasses
import json
import math
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

from entrob.agents.adversarial.adversary import adversary_of, misfit
from entrob.agents.model import NETWORKS, RECURRENT
from entrob.agents.spec import CHOICES, REFERENCE, Hyper
from entrob.envs import Task, make_task
from entrob.errors import EntrobError, unknown
from entrob.evaluation.records import MEASURES
from entrob.naming import Label
from entrob.perturbations import perturbations
from entrob.ranges import COUNT, COUNT32, NOT_NEGATIVE, Range, check, declared
from entrob.regularizers import build, check_coefficient, regularizers
from entrob.sweep.experiment import AGENT, Experiment, Method, Tuning
from entrob.sweep.files import read

_TYPES = {
    "name": str, "title": str, "environment": str, "algorithm": str, "normalize": bool,
    "hyper": dict, "params": dict, "methods": list, "perturbations": dict, "share": list,
    "snapshot_perturbations": dict,
    "tune": dict, "presets": dict, "paper": dict,
}  # fmt: skip
_PAPER = {
    "seeds": int, "instances": int, "frames": int, "figure": int, "note": str,
    "magnitudes": dict, "orders": dict, "claims": list, "numbers": dict, "measures": dict,
    "threshold": float,
}  # fmt: skip
_CLAIM = ("perturbation", "better", "relation", "worse")
_WORDS = {str: "a string", int: "a whole number", dict: "a table", list: "an array of tables"}
_WORDS |= {bool: "true or false", float: "a number"}
_HYPER = {f.name for f in dataclasses.fields(Hyper)} - {"total_updates", "coefs", "strength"}
_TOP = {*_TYPES, *AGENT, *declared(Experiment)}
_PRESET = {"frames", "chunk", "points", "snapshots", "seeds", "instances", "episodes"}
_PRESET |= {"perturbations", "num_envs"}
_OFFERED = {"algorithm": ("a2c", "ppo"), "network": ("auto", *NETWORKS), **CHOICES}
_DEFAULTS: dict[str, Any] = {name: offered[0] for name, offered in _OFFERED.items()}
_DEFAULTS |= {"normalize": False, "num_envs": 8}
_DEFAULTS |= {"num_steps": 100, "epochs": 1, "minibatches": 1}
_DEFAULTS |= {
    "chunk": 250,
    "points": 50,
    "instances": 200,
    "episodes": 1,
    "evaluation_seed": 0,
    "title": "",
}


def load(name: str, preset: str) -> Experiment:
    """Read an experiment file and one of its presets.

    Raises:
      EntrobError: no such file or preset, malformed TOML (with the line), a suite, or a value that
        is unknown, of the wrong type or out of range.
    """
    path, data = read(name)
    if "tasks" in data:
        raise EntrobError(f"{path.name} is a suite of tasks, which only `entrob run` takes")
    return from_table(path.name, path.stem, data, preset)


def from_table(
    where: str, name: str, data: dict[str, Any], preset: str, task: Task | None = None
) -> Experiment:
    """The experiment that a table declares; raises `EntrobError`.

    Args:
      where: what an error calls it.
      name: the experiment's name, unless the table gives one.
      data: the table, as from a file.
      preset: one of its presets.
      task: its environment, if that is built already.
    """
    data = dict(data)
    check_keys(where, data, _TOP)
    _typed(where, data, _TYPES)
    presets = data.pop("presets", {})
    if preset not in presets:
        raise unknown("preset", preset, presets)
    _typed(f"{where}: presets", presets, dict.fromkeys(presets, dict))
    check_keys(f"{where}: presets.{preset}", presets[preset], _PRESET)
    _typed(f"{where}: presets.{preset}", presets[preset], _TYPES)
    # A preset may test less than the file declares.
    tested = [table.get("perturbations", {}) for table in (data, *presets.values())]
    empty: dict[str, Any]
    empty = {"name": name, "hyper": {}, "params": {}, "share": [], "tune": {}, "paper": {}}
    empty |= {"snapshots": 0, "snapshot_perturbations": {}}
    data = empty | _DEFAULTS | data | presets[preset]
    for key in ("environment", "frames", "seeds", "methods", "perturbations"):
        if data.get(key) in (None, [], {}):
            raise EntrobError(f"{where}: {key!r} is missing")
    task = task or make_task(data["environment"])
    # With noise, so that every perturbation that can act on the environment fits its params.
    env, env_params = task.pair(noise=True)
    data |= check(f"{where}: ", data, Experiment)
    updates = math.ceil(data["frames"] / (data["num_envs"] * data["num_steps"]))
    COUNT32.check(f"{where}: frames / (num_envs * num_steps)", updates)
    _chosen(where, {name: data[name] for name in _OFFERED})
    check_keys(f"{where}: hyper", data["hyper"], _HYPER)
    check(f"{where}: hyper: ", data["hyper"], Hyper)
    _numbers(f"{where}: params", data["params"], lists=True)
    common = data.pop("params")
    usual = {name: data[name] for name in AGENT}
    methods = tuple(
        _method(where, entry, common, usual, env, env_params) for entry in data.pop("methods")
    )
    for network in {method.agent.get("network", data["network"]) for method in methods}:
        recurrent = network in RECURRENT
        if data["num_envs"] * (1 if recurrent else data["num_steps"]) % data["minibatches"]:
            what = "num_envs, as sequences stay whole" if recurrent else "num_envs * num_steps"
            raise EntrobError(f"{where}: minibatches must divide {what}")
    names = [method.name for method in methods]
    for name in names:
        if names.count(name) > 1:
            raise EntrobError(f"{where}: there are two methods {name!r}")
    data["share"] = _share(f"{where}: share", data["share"])
    declared = data.pop("perturbations")
    magnitudes = {k: tested_magnitudes(k, v, env_params) for k, v in declared.items()}
    kept = data["snapshot_perturbations"]
    kept = {k: magnitudes_of(k, [v], env_params)[0] for k, v in kept.items()}
    data["snapshot_perturbations"] = kept
    known = {name for table in tested if isinstance(table, dict) for name in table}
    data["published"] = _paper(f"{where}: paper", data.pop("paper"), names, known, env_params)
    data["tuning"] = _tuning(f"{where}: tune", data.pop("tune"))
    for values in {json.dumps(method.params): method.params for method in methods}.values():
        task.with_params(values)
    return Experiment(
        preset=preset,
        first_seed=0,
        methods=methods,
        perturbations=magnitudes,
        task=task,
        **data,
    )


def check_keys(where: str, table: dict, known: set[str]) -> None:
    """Raise `EntrobError` for a key that is not known, with the nearest one."""
    for key in table:
        if key not in known:
            raise unknown(f"key in {where}", key, known)


def _typed(where: str, table: Mapping[str, Any], types: dict[str, type]) -> None:
    for key, kind in types.items():
        if key in table and not isinstance(table[key], kind):
            raise EntrobError(f"{where}: {key} must be {_WORDS[kind]}, not {table[key]!r}")


def _numbers(where: str, table: dict, lists: bool = False) -> None:
    """Raise `EntrobError` unless values are numbers or, with `lists`, (nested) lists of them."""
    for key, value in table.items():
        if lists and isinstance(value, list):
            _numbers(where, {f"{key}[{i}]": item for i, item in enumerate(value)}, lists)
        elif isinstance(value, bool) or not isinstance(value, int | float):
            raise EntrobError(f"{where}: {key} must be a number, not {value!r}")


def _share(where: str, sets: list) -> tuple[tuple[str, ...], ...]:
    """Sets of registered regularizers, as tuples; raises `EntrobError`."""
    for names in sets:
        if not isinstance(names, list):
            raise EntrobError(f"{where} must hold lists of regularizers, not {names!r}")
        for name in names:
            regularizers.get(name)
    return tuple(tuple(names) for names in sets)


def coefficient(what: str, value: Any) -> float:
    """The value as float, or an `EntrobError` if it is not a finite number of at least 0.

    A string that says a number is one.
    """
    with contextlib.suppress(ValueError):
        value = float(value) if isinstance(value, str) else value
    return float(NOT_NEGATIVE.check(f"coefficient of {what}", value))


def magnitudes_of(name: str, values: Any, env_params: Any) -> tuple[float, ...]:
    """Magnitudes of a perturbation, checked against its range for the params; raises `EntrobError`.

    Args:
      name: a perturbation.
      values: what an experiment file gives as its magnitudes.
      env_params: nominal params of the environment, with noise.
    """
    entry = perturbations.get(name, env_params)
    low, high = entry.range(env_params)
    if entry.training_only:
        raise EntrobError(f"{name!r} acts in training only: give it as a method's `training`")
    if not isinstance(values, list | tuple) or not values:
        raise EntrobError(f"perturbation {name!r} needs a list of magnitudes")
    Range(low, high, whole=entry.integer).check(f"magnitude of {name!r}", values)
    return tuple(sorted({float(v) for v in values}))


def tested_magnitudes(name: str, values: Any, env_params: Any) -> tuple[float, ...]:
    """What is tested of `magnitudes_of`: 0 is the nominal environment, which is tested anyway.

    Raises:
      EntrobError: as `magnitudes_of`, or there is nothing but 0.
    """
    some = tuple(value for value in magnitudes_of(name, values, env_params) if value)
    if not some:
        raise EntrobError(f"perturbation {name!r} needs a magnitude other than 0")
    return some


def _chosen(where: str, settings: Mapping[str, Any]) -> None:
    """Raise `EntrobError` for a setting of the agent that is not offered."""
    _typed(where, settings, dict.fromkeys(settings, str))
    for name, word in settings.items():
        if word not in _OFFERED[name]:
            raise unknown(name, word, _OFFERED[name])


def _agent(where: str, table: dict[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """A method's own settings of the agent, but not the usual ones.

    With ``fidelity = "reference"`` they are `REFERENCE`, but for those that the table has.
    """
    check_keys(where, table, {"fidelity", *AGENT})
    fidelity = table.get("fidelity", "paper")
    if fidelity not in ("paper", "reference"):
        raise EntrobError(f"{where}: fidelity must be paper or reference, not {fidelity!r}")
    own = {**(REFERENCE if fidelity == "reference" else {}), **table}
    own.pop("fidelity", None)
    _chosen(where, own)
    return {name: word for name, word in own.items() if word != usual[name]}


def _method(
    where: str,
    entry: dict[str, Any],
    params: dict[str, Any],
    usual: dict[str, Any],
    env: Any,
    env_params: Any,
) -> Method:
    """One method of a file.

    Its own params and settings of the agent override those that the file gives to all.
    """
    _typed(where, {"a method": entry}, {"a method": dict})
    fields = {f.name for f in dataclasses.fields(Method)} - set(Label._fields)
    check_keys(f"{where}: methods", entry, {"name", *fields})
    _typed(f"{where}: methods", entry, {"name": str, "fidelity": str})
    tables = ["coefficients", "options", "params", "training", "randomize", "adversary"]
    tables += ["hyper", "agent"]
    _typed(f"{where}: methods", entry, dict.fromkeys(tables, dict))
    for key in ("params", "training"):
        _numbers(f"{where}: {key}", entry.get(key, {}), lists=key == "params")
    if "name" not in entry:
        raise EntrobError(f"{where}: a method has no name")
    agent = _agent(f"{where}: agent of {entry['name']!r}", entry.get("agent", {}), usual)
    own = {"params": params | entry.get("params", {}), "agent": agent}
    method = Method.identified({**entry, **own})
    if method.fidelity not in ("paper", "reference"):
        raise EntrobError(f"{where}: fidelity must be paper or reference, not {method.fidelity!r}")
    check_keys(f"{where}: hyper of {method.name!r}", method.hyper, _HYPER)
    check(f"{where}: hyper of {method.name!r}: ", method.hyper, Hyper)
    check(f"{where}: {method.name!r}: ", method)
    for part in method.mixture:
        if not (isinstance(part, list) and len(part) == 3):
            raise EntrobError(f"{where}: mixture needs lists of name, magnitude and weight")
        magnitudes_of(part[0], part[1:2], env_params)
        coefficient(f"the weight of {part[0]!r}", part[2])
    for name, ends in method.randomize.items():
        if magnitudes_of(name, ends, env_params) != tuple(ends):
            raise EntrobError(f"{where}: randomize {name!r} needs [low, high] with low < high")
    adversary = adversary_of(where, method.adversary)
    if adversary and (reason := misfit(env, adversary)):
        raise EntrobError(f"{where}: {method.name!r}: {reason}")
    for name in method.coefficients:
        regularizers.get(name)
    for name in method.options:
        if name not in method.coefficients:
            raise EntrobError(f"{where}: options of {name!r}, which {method.name!r} does not use")
    checked = {
        name: check_coefficient(build(name, **method.options.get(name, {})), coefficient(name, c))
        for name, c in method.coefficients.items()
    }
    return dataclasses.replace(method, coefficients=checked)


def _tuning(where: str, table: dict[str, Any]) -> Tuning:
    """The ``[tune]`` table; what it tries is checked when it is tried."""
    check_keys(where, table, set(Tuning._fields))
    _typed(where, table, {"measure": str, "grids": dict})
    check(f"{where}: ", table, Tuning)
    tuning = Tuning(**table)
    if tuning.measure not in (None, "return_mean"):
        raise unknown(f"measure in {where}", tuning.measure, ("return_mean",))
    return tuning


def _paper(
    where: str, table: dict, methods: list[str], tested: Collection[str], env_params: Any
) -> Mapping[str, Any]:
    """The ``[paper]`` table, checked against the file's methods and perturbations."""
    check_keys(where, table, set(_PAPER))
    _typed(where, table, _PAPER)
    for key in ("seeds", "instances", "frames", "figure"):
        if key in table:
            COUNT.check(f"{where}: {key}", table[key])

    def check(what: str, name: str, known: Collection[str]) -> None:
        if name not in known:
            raise unknown(f"{what} in {where}", name, known)

    magnitudes, orders = table.get("magnitudes", {}), table.get("orders", {})
    for name in (*magnitudes, *orders):
        check("perturbation", name, tested)
    for name, value in magnitudes.items():
        magnitudes_of(name, [value], env_params)
    _typed(f"{where}: orders", orders, dict.fromkeys(orders, str))
    bases = {Label.parse(name).base for name in methods}
    for claim in table.get("claims", []):
        _typed(where, {"a claim": claim}, {"a claim": dict})
        check_keys(f"{where}: claims", claim, set(_CLAIM))
        _typed(f"{where}: claims", claim, dict.fromkeys(_CLAIM, str))
        if missing := [key for key in _CLAIM if key not in claim]:
            raise EntrobError(f"{where}: a claim has no {missing[0]!r}")
        check("perturbation", claim["perturbation"], tested)
        check("relation", claim["relation"], (">", "≥", "≫"))
        for key in ("better", "worse"):
            check("method", claim[key], bases)
    for method, row in table.get("numbers", {}).items():
        check("method", method, methods)
        _typed(f"{where}: numbers", {method: row}, {method: dict})
        for condition, values in row.items():
            check("condition", condition, ("nominal", *tested))
            if condition != "nominal" and condition not in magnitudes:
                raise EntrobError(f"{where}: numbers under {condition!r} need its magnitude")
            _number(f"{where}: numbers of {method!r} under {condition!r}", values)
    for column, by_method in table.get("measures", {}).items():
        check("measure", column, MEASURES)
        for method, row in by_method.items():
            check("method", method, methods)
            for condition in row:
                check("condition", condition, ("nominal", *magnitudes))
            _numbers(f"{where}: measures.{column}.{method}", row)
    return MappingProxyType(table)


def _number(what: str, values: Any) -> None:
    """Raise unless it is [mean, std, seeds], or [mean] of a number whose spread is unknown."""
    if not isinstance(values, list) or len(values) not in (1, 3):
        raise EntrobError(f"{what} must be [mean, std, seeds] or [mean], not {values!r}")
    _numbers(what, dict(zip(("mean", "std", "seeds"), values)))
    if not 0 <= values[0] <= 1 or not all(value >= 0 for value in values):
        raise EntrobError(f"{what} must be a mean in 0..1 and a std of at least 0, not {values!r}")
    if len(values) == 3:
        COUNT.check(f"{what}: seeds", values[2])
