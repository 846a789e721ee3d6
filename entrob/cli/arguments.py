"""What every command takes; these docstrings are its help."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from entrob.ranges import COUNT, POSITIVE, SEED, Range

Preset = Annotated[str, tyro.conf.arg(aliases=["-p"])]


@dataclasses.dataclass(frozen=True)
class List:
    """List what can be named: environments, experiments, regularizers or perturbations.

    Example: entrob list regularizers
    """

    what: Annotated[
        Literal["all", "environments", "experiments", "regularizers", "perturbations"],
        tyro.conf.Positional,
    ] = "all"


@dataclasses.dataclass(frozen=True)
class Plan:
    """Write down what is to be done, for `entrob work` on as many machines as there are.

    Example: entrob plan minigrid --preset paper --parallel-runs 75 --out runs/figure4
    """

    experiment: tyro.conf.Positional[str]
    """Name of a file in benchmarks/, or a path that ends in .toml."""
    preset: Preset = "quick"
    """smoke (a minute), quick (minutes) or paper (the paper's size)."""
    seeds: Annotated[int | None, COUNT] = None
    """Runs per method; by default the preset's."""
    frames: Annotated[int | None, COUNT] = None
    """Environment steps that a run trains for; by default the preset's."""
    regularizer: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Train only `none` and these: a method of the experiment, a registered regularizer, or
    module:function. May be repeated."""
    coef: str | None = None
    """Comma-separated coefficients for the --regularizer given."""
    perturbation: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Test only under these. May be repeated."""
    out: Path | None = None
    """Output folder; by default runs/EXPERIMENT/PRESET."""
    parallel_runs: Annotated[int | None, COUNT] = None
    """Runs side by side in memory; by default as many as half the memory holds."""


@dataclasses.dataclass(frozen=True)
class Run(Plan):
    """Train, perturb, measure and plot an experiment; finished work is skipped.

    For example:
      entrob run minigrid --preset quick
      entrob run minigrid --preset paper --out runs/figure4
      entrob run minigrid --regularizer my_package.my_module:l2_logits --coef 0,1e-3,1e-2
      entrob run minigrid --perturbation wall --perturbation slip --seeds 5
      entrob run leaderboard --preset paper --on slurm --parallel 100 --gpus 1 --hours 4
    """

    resume: bool = True
    """Go on from what the folder holds; --no-resume deletes this experiment's results first."""
    on: Literal["local", "ray", "slurm"] = "local"
    """Where: in this process, as tasks of the Ray cluster at RAY_ADDRESS (or of one started here),
    or as an array of SLURM jobs."""
    parallel: Annotated[int | None, COUNT] = None
    """Workers on Ray (by default one per GPU, or per node), jobs on SLURM (by default 1)."""
    gpus: Annotated[int | None, Range(0, whole=True)] = None
    """GPUs of a worker; on Ray by default 1 where there are any."""
    hours: Annotated[float, POSITIVE] = 4.0
    """Limit of a SLURM job, which is requeued at the end of it."""
    partition: str | None = None
    """SLURM's partition."""
    track: Literal["none", "wandb", "tensorboard", "trackio"] = "none"
    """Also log the training's curves there, between chunks; needs the extra of this name."""


@dataclasses.dataclass(frozen=True)
class Work:
    """Work on a plan until all of it is done, by this process or by others beside it.

    For example:
      entrob work runs/figure4
      entrob work runs/figure4 0123456789abcdef
    """

    folder: tyro.conf.Positional[Path]
    """Output folder of a plan or a run."""
    batch: tyro.conf.Positional[str | None] = None
    """Only this batch of the plan."""


@dataclasses.dataclass(frozen=True)
class Gather:
    """Make records, tables and figures of what a plan's workers have finished.

    Example: entrob gather runs/figure4
    """

    folder: tyro.conf.Positional[Path]
    """Output folder of a plan or a run."""


@dataclasses.dataclass(frozen=True)
class Tune:
    """Choose coefficients by the 5 % rule, on seeds that are never reported.

    Example: entrob tune minigrid --preset paper
    """

    experiment: tyro.conf.Positional[str]
    """Name of a file in benchmarks/, or a path that ends in .toml."""
    preset: Preset = "quick"
    """Which preset's frames to tune with."""
    seeds: Annotated[int | None, COUNT] = None
    """Runs per coefficient; by default the experiment's."""
    out: Path | None = None
    """Output folder; by default runs/EXPERIMENT/tune-PRESET."""
    resume: bool = True
    """Go on from what the folder holds; --no-resume deletes this experiment's results first."""
    parallel_runs: Annotated[int | None, COUNT] = None
    """Runs side by side in memory; by default as many as half the memory holds."""
    export: Path | None = None
    """Also copy the chosen coefficients, their table and the manifest there."""


@dataclasses.dataclass(frozen=True)
class Report:
    """Draw the tables and figures of a finished or half-finished run again.

    For example:
      entrob report runs/minigrid/paper
      entrob report runs/minigrid/paper --level 0.95 --export results/minigrid/paper
      entrob report results/minigrid/paper --html
    """

    folder: tyro.conf.Positional[Path]
    """Output folder of a run, or with --html one that was exported."""
    html: tyro.conf.FlagCreatePairsOff[bool] = False
    """Also write index.html: charts, tables and data in one page that works offline; it needs the
    extra [html]. Of an exported folder that is all that can be made."""
    level: Annotated[float, Range(0, 1, above=True, below=True)] = 0.96
    """Level of intervals in figures, and of the paper's bands: 0.96 is its text, 0.95 its code."""
    export: Path | None = None
    """Also copy report, tables, figures and manifest there."""


@dataclasses.dataclass(frozen=True)
class Status:
    """Say what an output folder holds: runs finished, diverged and under way.

    Example: entrob status runs/minigrid/paper
    """

    folder: tyro.conf.Positional[Path]
    """Output folder of a run."""


@dataclasses.dataclass(frozen=True)
class Check:
    """Prove that a task's perturbations do what they say; exits with 1 if one does not.

    Each must reach observation, reward or dynamics, leave everything as it is at 0, and have
    instances that differ if it says so. What the uniformly random policy, `none` and the optimum
    get is printed beside it.

    For example:
      entrob check gymnax:CartPole-v1
      entrob check leaderboard:cartpole --run runs/leaderboard/paper/cartpole
    """

    task: tyro.conf.Positional[str]
    """An environment's id, or SUITE:TASK."""
    frames: Annotated[int, COUNT] = 50_000
    """Environment steps that `none` is trained for."""
    seeds: Annotated[int, COUNT] = 2
    """Runs of `none`."""
    perturbation: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Check only these. May be repeated."""
    run: Path | None = None
    """Read `none` from this output folder instead of training it."""


@dataclasses.dataclass(frozen=True)
class Test:
    """Test a policy nominally and under perturbations.

    For example:
      entrob test policy --perturbation wall=3,6 --perturbation slip=0.2
      entrob test runs/minigrid/paper:state_entropy:3 --perturbation wall=6
      entrob test my_package.agents:act --environment minigrid/empty-8x8
      entrob test mine/0 mine/1 mine/2 --tasks leaderboard --as mine
    """

    policy: tyro.conf.Positional[tuple[str, ...]]
    """A saved folder, FOLDER:METHOD:SEED of a run, module:function, or a Stable-Baselines3 zip;
    several are seeds of one method."""
    environment: str | None = None
    """What it is tested in; by default what it was trained in."""
    perturbation: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """NAME=MAGNITUDE or NAME=M,M,...; may be repeated."""
    instances: Annotated[int, COUNT] = 200
    """Of each perturbation at each magnitude."""
    episodes: Annotated[int, COUNT] = 1
    """On each instance."""
    seed: Annotated[int, SEED] = 0
    """Where the keys of instances and episodes come from."""
    out: Path | None = None
    """Also write what was measured there: all of it as .parquet, single numbers as .csv; a board to
    a folder."""
    tasks: str | None = None
    """SUITE, or SUITE:TASK,TASK: put the policies on its board, marked as tested only."""
    as_: Annotated[str, tyro.conf.arg(name="as")] = "tested"
    """What a board calls them."""
    board: Path | None = None
    """Folder of the board; by default results/SUITE/standard."""


@dataclasses.dataclass(frozen=True)
class Play:
    """Play one episode of a policy and write it as an animation.

    Example: entrob play policy --perturbation wall=6 --out walk.gif
    """

    policy: tyro.conf.Positional[str]
    """A saved folder, or FOLDER:METHOD:SEED of a run."""
    perturbation: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """NAME=MAGNITUDE; may be repeated."""
    instance: Annotated[int, Range(0, 199, whole=True)] = 0
    """Number of the instance, of 200."""
    seed: Annotated[int, SEED] = 0
    """Where the keys of instances and episodes come from."""
    out: Path = Path("walk.gif")
    """The file."""


@dataclasses.dataclass(frozen=True)
class Theory:
    """Check every statement of the paper's theory on random MDPs; exits with 1 if one fails.

    Example: entrob theory --mdps 10000
    """

    mdps: Annotated[int, COUNT] = 10_000
    """Random MDPs, each with a policy, a coefficient and a size of the uncertainty set."""
    out: Path = Path("runs/theory")
    """Output folder."""
    export: Path | None = None
    """Also copy report, tables, figures and manifest there."""


@dataclasses.dataclass(frozen=True)
class NewRegularizer:
    """Write a file with one function to fill in, and its test.

    Example: entrob new-regularizer my_idea
    """

    name: tyro.conf.Positional[str]
    """A Python name; the files are NAME.py and test_NAME.py."""
    folder: Path = Path()
    """Where they are written."""
