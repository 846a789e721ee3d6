"""What a suite will take: runs and frames of every task, and seconds at a measured speed."""

from typing import Any, NamedTuple

from entrob.naming import BASELINE
from entrob.perturbations import needs_noise
from entrob.suite.declaration import TUNED, Suite, SuiteTask
from entrob.suite.frontier import RATES
from entrob.sweep.program import timed_alone

#: Time of a task over that of its frames at the speed of `none`, before any task of this run is
#: finished: other methods' overhead, compiling and testing.
BESIDES = 2.0


class Cost(NamedTuple):
    """What a task takes.

    Attributes:
      task: its name.
      runs: of all stages, a pilot counting as its share of one.
      frames: that they train for.
      seconds: expected, or spent by a finished task.
      finished: whether it is.
    """

    task: str
    runs: int
    frames: int
    seconds: float
    finished: bool


def runs_by_stage(task: SuiteTask) -> dict[str, float]:
    """How many runs each stage of a task trains, a pilot counting as its share of one.

    Without the values that are tried above grids that turn out to end too low.
    """
    rules, experiment = task.rules, task.experiment
    methods, tuned = len(experiment.methods), len(task.knobs)
    reported = {"reported": float(methods * experiment.seeds)}
    if task.given is not None:
        return reported
    exact = experiment.task.env.finite
    unknown = [name for name in experiment.perturbations if not exact or needs_noise(name)]
    rates = len(RATES) * rules.seeds * any(m.name == TUNED for m in experiment.methods)
    return {
        "calibration": float(rules.calibration),
        "references": float(rules.references * rules.magnitudes * len(unknown)),
        "pilot": (1 + tuned * rules.candidates) * rules.seeds * rules.pilot / 100,
        "tuning": float(rules.baseline + rates + tuned * rules.candidates * rules.seeds),
        **reported,
    }


_SPEEDS: dict[str, float] = {}


def speed(task: SuiteTask) -> float:
    """Frames per second at which `none` trains on a task; measured once in a process."""
    experiment = task.experiment
    if experiment.name not in _SPEEDS:
        trainer, begin, chunk = timed_alone(experiment, task.none)
        state = begin()
        chunk(state)
        _, seconds = chunk(state)
        per_update = experiment.num_envs * experiment.num_steps * trainer.width
        _SPEEDS[experiment.name] = experiment.chunk * per_update / seconds
    return _SPEEDS[experiment.name]


def expected(suite: Suite, finished: dict[str, Any]) -> list[Cost]:
    """What every task takes; of finished ones, what it took, which says how far off the speed is.

    Args:
      suite: it.
      finished: what the manifest says of finished tasks.
    """
    rows, spent, planned = [], 0.0, 0.0
    for name, task in suite.tasks.items():
        runs = sum(runs_by_stage(task).values())
        experiment = task.experiment
        frames = runs * experiment.updates * experiment.num_envs * experiment.num_steps
        alone = frames / speed(task)
        took = finished.get(name, {}).get("wall_s")
        if took is not None:
            spent, planned = spent + took, planned + alone
        rows.append(Cost(name, round(runs), round(frames), took or alone, took is not None))
    factor = spent / planned if planned else BESIDES
    return [row if row.finished else row._replace(seconds=factor * row.seconds) for row in rows]


def text(costs: list[Cost]) -> str:
    """The plan as lines: a task each, and their sum."""
    lines = ["task                    runs          frames   minutes"]
    for row in costs:
        state = "spent" if row.finished else "expected"
        minutes = row.seconds / 60
        lines.append(f"{row.task:20s} {row.runs:7,d} {row.frames:15,d} {minutes:9.1f} {state}")
    frames, left = sum(r.frames for r in costs), sum(r.seconds for r in costs if not r.finished)
    lines.append(f"{'all':20s} {sum(r.runs for r in costs):7,d} {frames:15,d}")
    lines.append(f"{left / 3600:.1f} hours left, at the speed of {BASELINE} as measured now")
    return "\n".join(lines)
