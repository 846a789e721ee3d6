"""Groups: the runs that share one compiled program, and the batches that they are trained in."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from entrob.sweep.experiment import Experiment, Method, digest
from entrob.sweep.sources import NUMERICS, code_of

#: What a method trains in besides its regularizers: fields of `Method`.
SETTING = ("params", "training", "randomize", "adversary")


def setting_of(method: Method) -> dict[str, Any]:
    """What methods of one program have in common; strengths and a mixture's weights are swept."""
    setting = {name: getattr(method, name) for name in SETTING}
    setting["adversary"] = {k: v for k, v in method.adversary.items() if k != "strength"}
    mixed = [[name, magnitude] for name, magnitude, _ in method.mixture]
    later = {"mixture": mixed, "agent": method.agent}
    return setting | {name: value for name, value in later.items() if value}


@dataclasses.dataclass(frozen=True)
class Run:
    """One agent to be trained: a method with a seed.

    Attributes:
      id: see `run_id`.
      method, seed: whose it is.
      code: the version of what it rests on: entrob's `NUMERICS`, and digests of the user's sources.
      earlier: what versions called it that knew nothing of sources, "" if they called it the same.
    """

    id: str
    method: Method
    seed: int
    code: str = ""
    earlier: str = ""


@dataclasses.dataclass(frozen=True)
class Group:
    """Methods that one program trains; a regularizer that a method lacks has coefficient 0.

    Attributes:
      regularizers: names, in the order of the chain.
      options: options by regularizer.
      setting: what members have in common, see `setting_of`.
      methods: the members.
    """

    regularizers: tuple[str, ...]
    options: dict[str, dict[str, Any]]
    setting: dict[str, Any]
    methods: tuple[Method, ...]

    @property
    def key(self) -> str:
        """Identifies the compiled program."""
        return digest(self.regularizers, self.options, self.setting)


@dataclasses.dataclass(frozen=True)
class RunBatch:
    """Runs side by side in memory.

    Attributes:
      id: identifies it by the group and runs it was cut as; results of equal batches are equal.
      group: a group with the same environment, so that its program can test the runs.
      runs: the runs, in order.
    """

    id: str
    group: Group
    runs: tuple[Run, ...]


def run_id(experiment: Experiment, method: Method, seed: int) -> str:
    """Identifies a run by all that its result depends on, the user's code included."""
    return run_of(experiment, method, seed).id


def run_of(experiment: Experiment, method: Method, seed: int) -> Run:
    """The run of a method with a seed."""
    code = code_of(experiment, method)
    plain = experiment.training_settings, method.identity, seed
    earlier = digest(*plain) if code and NUMERICS == 1 else ""
    # Code of entrob's own in its first numerics adds nothing: so runs were called before.
    return Run(digest(*plain, *code), method, seed, "-".join((str(NUMERICS), *code)), earlier)


def runs_of(experiment: Experiment, method: Method) -> tuple[Run, ...]:
    """The runs of a method, one for each seed."""
    seeds = range(experiment.first_seed, experiment.first_seed + experiment.seeds)
    return tuple(run_of(experiment, method, seed) for seed in seeds)


def known_ids(runs: Iterable[Run]) -> dict[str, Run]:
    """Runs by what records may call them: their ids, and those of earlier versions.

    What was trained before sources counted is not trained again, whatever they are now.
    """
    found = {run.earlier: dataclasses.replace(run, id=run.earlier) for run in runs if run.earlier}
    return found | {run.id: run for run in runs}


def group_methods(
    methods: tuple[Method, ...], share: tuple[tuple[str, ...], ...] = ()
) -> list[Group]:
    """Put methods into as few programs as possible.

    A method joins a group whose regularizers and options include its own; the largest methods
    come first, so that ``none`` and plain policy entropy end up beside state entropy.

    Args:
      methods: what is trained.
      share: sets of regularizers that are chained in one program though no method has them all.
        Each run then pays for all of them, and compiling is paid for once.
    """
    groups: list[Group] = []
    for method in sorted(methods, key=lambda m: -len(m.coefficients)):
        setting = setting_of(method)
        for i, group in enumerate(groups):
            options = {n: group.options.get(n, {}) for n in method.coefficients}
            same = {n: method.options.get(n, {}) for n in method.coefficients} == options
            inside = set(method.coefficients) <= set(group.regularizers)
            if same and inside and setting == group.setting:
                groups[i] = dataclasses.replace(group, methods=(*group.methods, method))
                break
        else:
            names = _chained(method, methods, share)
            groups.append(Group(names, method.options, setting, (method,)))
    return groups


def _chained(method: Method, methods: tuple[Method, ...], share) -> tuple[str, ...]:
    """The regularizers of a new group: the method's, and those of methods that share a program."""
    own = set(method.coefficients)
    for together in map(set, share):
        if own <= together and not method.options:
            like = [m for m in methods if set(m.coefficients) <= together and not m.options]
            like = [m for m in like if setting_of(m) == setting_of(method)]
            own = own.union(*(m.coefficients for m in like))
    return tuple(sorted(own))


def cut(group: Group, runs: list[Run], size: int) -> list[RunBatch]:
    """Cut runs of a group into batches of at most `size`, as equal as possible."""
    count = -(-len(runs) // size)
    base, rest = divmod(len(runs), count)
    batches, start = [], 0
    for i in range(count):
        end = start + base + (i < rest)
        here = tuple(runs[start:end])
        batches.append(RunBatch(digest(group.key, [run.id for run in here]), group, here))
        start = end
    return batches
