"""Suites: one ranking over several tasks, each an ordinary experiment in a folder of its own.

A suite's file has a table per task, ``[tasks.NAME]``, that says what an experiment's file says;
``[common]`` holds what tasks share, and ``[presets.PRESET]`` which tasks and methods a preset plays
and what it changes in all of them. Every registered regularizer is a method of every task whose
actions it fits; ``[[methods]]`` holds further ones, left out where a task cannot have them, and
``controls`` names those of `CONTROLS`. ``[rules]`` says how much calibration and tuning do. What
becomes of a suite is in `entrob.suite.work`.
"""

import dataclasses
import functools
import inspect
from pathlib import Path
from typing import Annotated, Any

from gymnax.environments import spaces

import entrob
from entrob.agents.adversarial.adversary import KINDS, adversary_of, misfit, strength_of
from entrob.envs import Environment, Task, make_task
from entrob.errors import EntrobError, unknown
from entrob.naming import BASELINE
from entrob.persistence.store import check_unused, read_json
from entrob.ranges import COUNT, Range, check
from entrob.regularizers import family, regularizers
from entrob.sweep.experiment import SEEDS, Experiment, Method
from entrob.sweep.files import read
from entrob.sweep.knobs import Knob, knob_of
from entrob.sweep.reading import check_keys, from_table

TUNED, RANDOMIZED = "none_tuned", "domain_randomization"
#: Methods that show how a gain is to be read, and what they are.
CONTROLS = {
    TUNED: "None with the best learning rate by nominal score, and tested at the highest "
    "temperature within the price.",
    RANDOMIZED: "None trained on the board's own perturbations: one of the kept cells in every "
    "episode, drawn uniformly. A reference that has seen what the others are tested on.",
}
PERCENT = Range(1, 100, whole=True)
_TOP = {"title", "common", "tasks", "presets", "rules", "methods", "controls"}


@dataclasses.dataclass(frozen=True)
class Rules:
    """How much a suite calibrates and tunes.

    Attributes:
      calibration: seeds of `none` that magnitudes and cells come from.
      references: seeds of every specialist.
      magnitudes: of each perturbation at most.
      pilot: frames of a pilot, as a percentage of a run's.
      baseline: seeds of `none` that tuning is held against.
      seeds: of each candidate.
      candidates: values that are tried of each method.
      further: values that are tried above those while even the largest keeps the price.
      keep: percentage of the nominal score of `none` that the chosen value keeps.
    """

    calibration: Annotated[int, SEEDS] = 20
    references: Annotated[int, SEEDS] = 2
    magnitudes: Annotated[int, COUNT] = 3
    pilot: Annotated[int, PERCENT] = 10
    baseline: Annotated[int, SEEDS] = 10
    seeds: Annotated[int, SEEDS] = 2
    candidates: Annotated[int, COUNT] = 7
    further: Annotated[int, COUNT] = 3
    keep: Annotated[int, PERCENT] = 97

    @property
    def calibrated(self) -> bool:
        """Whether cells are constants rather than an illustration."""
        return self.calibration >= 20


@dataclasses.dataclass(frozen=True)
class SuiteTask:
    """One task of a suite.

    Attributes:
      name: its name.
      experiment: what is reported, before calibration and tuning; its magnitudes are those that
        the file declares, its methods have their default values.
      rules: of its suite.
      given: a finished board's folder that cells and values are taken from, None: they are found.
    """

    name: str
    experiment: Experiment
    rules: Rules
    given: Path | None = None

    @property
    def none(self) -> Method:
        """The baseline, with the task's params."""
        return next(m for m in self.experiment.methods if m.name == BASELINE)

    @functools.cached_property
    def knobs(self) -> dict[str, Knob]:
        """What is tuned, by method: all that have one number, unless the command line gave it."""
        open_ = [m for m in self.experiment.methods if not m.value]
        found = {m.name: knob_of(m, self.experiment) for m in open_}
        return {name: knob for name, knob in found.items() if knob}

    @property
    def measure(self) -> str:
        """What is scored, see `entrob.suite.scores.Scale`: success on grids, else the return."""
        return "success" if self.experiment.task.env.finite else "return"


@dataclasses.dataclass(frozen=True)
class Suite:
    """One preset of a suite.

    Attributes:
      name, title, preset: as of an `Experiment`.
      tasks: by name, in the order in which they are played.
      methods: those that the preset plays, empty for all.
      declared: the names in ``[[methods]]`` and ``controls``, of which a task has those that fit.
    """

    name: str
    title: str
    preset: str
    tasks: dict[str, SuiteTask]
    methods: tuple[str, ...] = ()
    declared: tuple[str, ...] = ()


def is_suite(name: str) -> bool:
    """Whether a file declares tasks; raises `EntrobError` if there is no such file."""
    return "tasks" in read(name)[1]


def load(name: str, preset: str) -> Suite:
    """Read a suite's file and one of its presets.

    Raises:
      EntrobError: as `entrob.sweep.reading.load`, a task or method that is not declared, or a
        board that the preset takes its values from and that is not there.
    """
    path, data = read(name)
    check_keys(path.name, data, _TOP)
    presets = data.get("presets", {})
    if preset not in presets:
        raise unknown("preset", preset, presets)
    chosen = dict(presets[preset])
    played = chosen.pop("tasks", list(data["tasks"]))
    methods = tuple(chosen.pop("methods", ()))
    rules = _rules(path.name, data.get("rules", {}) | chosen.pop("rules", {}))
    given = chosen.pop("given", None)
    given = None if given is None else _given(path.stem, preset, given, played)
    for control in data.get("controls", []):
        if control not in CONTROLS:
            raise unknown("control", control, CONTROLS)
    declared = tuple(_declared(path.name, entry) for entry in data.get("methods", []))
    declared += tuple(data.get("controls", []))
    tasks = {}
    for task in played:
        if task not in data["tasks"]:
            raise unknown("task", task, data["tasks"])
        where = f"{path.name}: tasks.{task}"
        built, table = _built(where, data, task, {preset: chosen})
        experiment = from_table(where, f"{path.stem}-{task}", table, preset, built)
        tasks[task] = SuiteTask(task, experiment, rules, given)
    known = {*regularizers.names(), *declared}
    for method in methods:
        if method not in known:
            raise unknown("method", method, known)
    return Suite(path.stem, data.get("title", path.stem), preset, tasks, methods, declared)


def _rules(where: str, table: dict[str, Any]) -> Rules:
    check_keys(f"{where}: rules", table, {field.name for field in dataclasses.fields(Rules)})
    return Rules(**check(f"{where}: rules.", table, Rules))


def _given(suite: str, preset: str, name: str, tasks: list[str]) -> Path:
    """The folder of a committed board; raises `EntrobError` if there is none or it lacks tasks."""
    for root in (Path("results"), Path(entrob.__file__).parent.parent / "results"):
        folder = root / suite / name
        if (folder / "tables" / "tuning.csv").exists():
            finished = read_json(folder / "manifest.json")["tasks"]
            if lacking := [task for task in tasks if task not in finished]:
                raise EntrobError(
                    f"preset {preset!r} takes its coefficients from results/{suite}/{name}, which "
                    f"has no task {', '.join(lacking)} yet: finish preset {name!r} first"
                )
            return folder
    missing = Path("results") / suite / name / "tables" / "tuning.csv"
    raise EntrobError(
        f"preset {preset!r} takes its coefficients from {missing}, which is not there: "
        f"run preset {name!r} first"
    )


def _declared(where: str, entry: dict[str, Any]) -> str:
    """The name of one of ``[[methods]]``; raises `EntrobError` if it does nothing."""
    if "name" not in entry or not (entry.get("adversary") or entry.get("coefficients")):
        raise EntrobError(f"{where}: each of methods needs a name and an adversary or coefficients")
    return entry["name"]


def _built(
    where: str, data: dict[str, Any], task: str, presets: dict[str, dict[str, Any]]
) -> tuple[Task, dict[str, Any]]:
    """A task's environment, and what an experiment's file would say of it.

    Args:
      where: the task, for errors.
      data: what the suite's file says.
      task: its name.
      presets: settings for all tasks, which a preset of the task's own overrides.
    """
    common, own = data.get("common", {}), dict(data["tasks"][task])
    theirs = own.pop("presets", {})
    presets = {name: chosen | theirs.get(name, {}) for name, chosen in presets.items()}
    if "environment" not in own:
        raise EntrobError(f"{where} has no environment")
    built = make_task(own["environment"])
    hyper = common.get("hyper", {}) | own.get("hyper", {})
    methods = _methods(where, data, built.env)
    table = {**common, **own, "hyper": hyper, "presets": presets, "methods": methods}
    return built, table


def _methods(where: str, data: dict[str, Any], env: Environment) -> list[dict[str, Any]]:
    """``none``, every registered regularizer and declared method that fits a task, as tables."""
    fitting = [name for name in regularizers.names() if _plays(name, env)]
    coefs = {name: regularizers.get(name)().coef for name in fitting}
    tables = [{"name": name, "coefficients": {name: coef}} for name, coef in coefs.items()]
    more = [entry for entry in data.get("methods", []) if _fits(where, env, entry)]
    controls = [{"name": name} for name in data.get("controls", [])]
    return [{"name": BASELINE}, *tables, *more, *controls]


def _plays(name: str, env: Environment) -> bool:
    """Whether a regularizer knows the environment's kind of actions."""
    discrete = isinstance(env.action_space(env.default_params), spaces.Discrete)
    return ("discrete" if discrete else "continuous") in regularizers.get(name)().actions


def _fits(where: str, env: Environment, entry: dict[str, Any]) -> bool:
    """Whether a task can have a method's adversary, if it has one; raises `EntrobError`."""
    adversary = adversary_of(where, entry.get("adversary", {}))
    return adversary is None or misfit(env, adversary) is None


def narrowed(experiment: Experiment) -> Experiment:
    """Keep the methods that fit the actions; those with a file's other settings keep them."""
    env = experiment.task.env
    fitting = [m for m in experiment.methods if all(_plays(name, env) for name in m.coefficients)]
    return dataclasses.replace(experiment, methods=tuple(fitting))


def claim(suite: Suite, root: Path) -> None:
    """Raise `EntrobError` if a folder holds anything but this preset of this suite."""
    path = root / "manifest.json"
    if path.exists():
        old = read_json(path)
        if (old.get("suite"), old.get("preset")) != (suite.name, suite.preset):
            made = f"{old.get('suite', old.get('experiment'))} {old.get('preset', '')}".strip()
            raise EntrobError(
                f"{root} was made by another experiment ({made}): choose another --out"
            )
    else:
        check_unused(root)


def active(method: Method) -> bool:
    """Whether a method has an activity: `none`, controls and adversaries have none."""
    without = ("controls", "adversaries")
    return method.name != BASELINE and described(method)["family"] not in without


def described(method: Method) -> dict[str, Any]:
    """What a board says of a method besides its scores."""
    if method.name in CONTROLS:
        facts = {"label": "control", "source": "", "doc": CONTROLS[method.name]}
        return {"family": "controls", **facts}
    adversary = adversary_of(method.name, method.adversary)
    if adversary:
        facts = KINDS[adversary.kind]._asdict()
        return {"family": "adversaries", **facts, "strength": strength_of(method.adversary)}
    name = next(iter(method.coefficients))
    factory = regularizers.get(name)
    part = factory()
    return {
        "family": family(name),
        "label": part.graded,
        "source": part.source,
        "coef": part.coef,
        "doc": inspect.getdoc(factory) or "",
    }
