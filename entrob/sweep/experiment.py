"""Experiments: axes that a file declares (`entrob.sweep.reading`), as plain immutable values."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

from entrob.agents.spec import CHOICES
from entrob.envs import Task
from entrob.naming import Label
from entrob.ranges import COUNT, COUNT32, POSITIVE, SEED, Range

#: Seeds of tuning begin here, so that they are never among the reported ones.
FIRST_TUNING_SEED = 1_000_000
#: Seeds of calibration begin here, and so do the seeds of its instances: see `calibrate`.
FIRST_CALIBRATION_SEED = 2_000_000
#: Settings of the agent that a method may have for itself: fields of `Spec`.
AGENT = ("network", *CHOICES)
#: How many seeds there are of each kind.
SEEDS = Range(1, FIRST_TUNING_SEED, whole=True)


@dataclasses.dataclass(frozen=True)
class Method:
    """What is compared: a set of regularizers with their coefficients.

    Attributes:
      base: what is compared.
      coefficients: coefficient by regularizer; empty for ``none``.
      options: options by regularizer, fixed when the program is compiled.
      params: environment params that training and testing change, e.g. ``reward_decay``: a number,
        which an array is filled with, or a (nested) list of its shape.
      training: perturbations of the training environment, magnitude by name (``reward_noise``).
      randomize: perturbations of the training environment drawn anew in every episode, the range
        of magnitudes ``[low, high]`` by name.
      adversary: fields of `entrob.agents.adversarial.adversary.Adversary` and ``strength``, or
        empty.
      mixture: perturbations of the training environment of which every episode has one: name,
        magnitude and weight of each, in the shares of whose weights they are drawn.
      hyper: fields of `entrob.agents.spec.Hyper` that differ from the experiment's.
      agent: those of `AGENT` that differ from the experiment's.
      temperature: what the distribution over actions is tempered by when the policy is tested.
      fidelity: a label, ``"paper"`` for what the text says or ``"reference"`` for what the released
        code does.
      variant: which reading of the base it is, "" if there is one only.
      value: which of the values it is that are tried, "" if none are.
    """

    base: str
    coefficients: dict[str, float] = dataclasses.field(default_factory=dict)
    options: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    params: dict[str, Any] = dataclasses.field(default_factory=dict)
    training: dict[str, float] = dataclasses.field(default_factory=dict)
    randomize: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    adversary: dict[str, Any] = dataclasses.field(default_factory=dict)
    mixture: list[list[Any]] = dataclasses.field(default_factory=list)
    hyper: dict[str, float] = dataclasses.field(default_factory=dict)
    agent: dict[str, Any] = dataclasses.field(default_factory=dict)
    temperature: Annotated[float, POSITIVE] = 1.0
    fidelity: str = "paper"
    variant: str = ""
    value: str = ""

    @property
    def name(self) -> str:
        """Its name in records, tables and figures."""
        return str(Label(self.base, self.variant, self.value))

    @property
    def identity(self) -> dict[str, Any]:
        """All of it, as JSON: what identifies its runs."""
        # Older folders know nothing of these.
        new = {"mixture": [], "hyper": {}, "agent": {}, "temperature": 1.0}
        fields = dataclasses.asdict(self)
        named = {"name": self.name}
        named |= {k: v for k, v in fields.items() if k not in Label._fields}
        return {k: v for k, v in named.items() if k not in new or v != new[k]}

    @classmethod
    def identified(cls, identity: Mapping[str, Any]) -> "Method":
        """The method that has this identity."""
        fields = dict(identity)
        return cls(**Label.parse(fields.pop("name"))._asdict(), **fields)


class Tuning(NamedTuple):
    """The file's ``[tune]`` table: see `entrob.sweep.tune`.

    Attributes:
      seeds: runs per candidate.
      measure: what is compared, ``"return_mean"``, or None for success where it occurs.
      grids: what is tried, by method.
    """

    seeds: Annotated[int, SEEDS] = 5
    measure: str | None = None
    grids: Mapping[str, Any] = MappingProxyType({})


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One preset of one experiment file.

    Attributes:
      name, title: of the experiment.
      preset: ``smoke``, ``quick``, ``paper``, or what the file declares.
      environment: id for `entrob.make`.
      algorithm, network, normalize, num_envs, num_steps, epochs, minibatches, time_limit,
        statistics, log_std, entropy_of, log_prob, advantage_std: see `entrob.agents.spec.Spec`;
        network ``"auto"`` is its None.
      hyper: fields of `entrob.agents.spec.Hyper`, without the coefficients.
      frames: environment steps per run, rounded up to whole checkpoints.
      chunk: updates between two checkpoints.
      points: logged points of a training curve.
      snapshots: policies of each run that are kept while it trains, evenly spaced, and tested
        nominal and under `snapshot_perturbations`; 0 for none.
      snapshot_perturbations: magnitude by perturbation.
      seeds: number of runs per method; the seeds are first_seed, first_seed + 1, …
      first_seed: 0 for reported runs.
      instances: perturbation instances per magnitude.
      episodes: of each policy on each instance.
      evaluation_seed: where the keys of instances and episodes come from; the same for all runs.
      methods: what is compared.
      perturbations: magnitudes by perturbation, without 0: the environment without any
        perturbation is tested once, whatever they are.
      share: sets of regularizers whose methods share a program, see `group_methods`.
      tuning: how coefficients are chosen.
      published: the file's ``[paper]`` table, what the paper reports: see
        `entrob.report.paper.Paper`. It changes nothing that is computed, and no hash.
      task: the environment, built once, in its own nominal params.
    """

    name: str
    title: str
    preset: str
    environment: str
    algorithm: str
    network: str
    normalize: bool
    num_envs: Annotated[int, COUNT]
    num_steps: Annotated[int, COUNT]
    epochs: Annotated[int, COUNT]
    minibatches: Annotated[int, COUNT]
    hyper: dict[str, float]
    frames: Annotated[int, COUNT]
    chunk: Annotated[int, COUNT32]
    points: Annotated[int, COUNT]
    seeds: Annotated[int, SEEDS]
    first_seed: int
    instances: Annotated[int, COUNT]
    episodes: Annotated[int, COUNT]
    evaluation_seed: Annotated[int, SEED]
    methods: tuple[Method, ...]
    perturbations: dict[str, tuple[float, ...]]
    share: tuple[tuple[str, ...], ...]
    tuning: Tuning
    time_limit: str = "bootstrap"
    statistics: str = "run"
    log_std: str = "clip"
    entropy_of: str = "action"
    log_prob: str = "exact"
    advantage_std: str = "population"
    snapshots: Annotated[int, Range(0, whole=True)] = 0
    snapshot_perturbations: dict[str, float] = dataclasses.field(default_factory=dict)
    published: Mapping[str, Any] = dataclasses.field(default_factory=lambda: MappingProxyType({}))
    # No part of what an experiment is: its environment, built.
    task: Task = dataclasses.field(kw_only=True, compare=False, repr=False)

    @property
    def chunks(self) -> int:
        """Checkpoints per run."""
        return math.ceil(self.frames / (self.num_envs * self.num_steps * self.chunk))

    @property
    def updates(self) -> int:
        """Updates per run, a multiple of `chunk`."""
        return self.chunks * self.chunk

    @property
    def training_settings(self) -> dict[str, Any]:
        """All that a trained policy depends on besides its method and seed."""
        names: tuple[str, ...]
        names = ("name", "environment", "algorithm", "network", "normalize", "num_envs")
        names += ("num_steps", "epochs", "minibatches", "hyper", "updates", "chunk", "points")
        # Older runs know no choices.
        chosen = [name for name, words in CHOICES.items() if getattr(self, name) != words[0]]
        return {name: getattr(self, name) for name in (*names, *chosen)}

    def agent_of(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """All of `AGENT` for a method that has its `own` of some."""
        return {name: own.get(name, getattr(self, name)) for name in AGENT}

    @property
    def hash(self) -> str:
        """Identifies what may share an output folder."""
        # Older folders know nothing of episodes.
        several = () if self.episodes == 1 else (self.episodes,)
        return digest(self.training_settings, self.instances, self.evaluation_seed, *several)


def digest(*parts: Any) -> str:
    """16 hexadecimal digits that identify JSON-like values."""
    text = json.dumps(parts, sort_keys=True, default=dataclasses.asdict)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
