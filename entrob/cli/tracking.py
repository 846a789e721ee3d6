"""`entrob run --track`: the training's curves in an experiment tracker.

One tracked run per method and batch: the mean over the batch's runs of the method, against frames.
"""

import contextlib
import importlib
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from entrob.errors import EntrobError
from entrob.sweep.experiment import Experiment
from entrob.sweep.groups import RunBatch
from entrob.sweep.train import Watch

Open = Callable[[str, str], tuple[Callable[[dict[str, float], int], None], Callable[[], None]]]
"""(group, name of a run) -> what logs values at a frame, and what closes the run."""


def _tensorboard(project: str, folder: Path) -> Open:
    """Event files in ``FOLDER/tensorboard/RUN``."""
    library = _library("tensorboardX", "tensorboard")

    def start(group: str, name: str):
        writer = library.SummaryWriter(str(folder / "tensorboard" / group / name))

        def log(values: dict[str, float], frames: int) -> None:
            for key, value in values.items():
                writer.add_scalar(key, value, frames)

        return log, writer.close

    return start


def _wandb(project: str, folder: Path) -> Open:
    """Runs of Weights & Biases; ``WANDB_MODE=offline`` keeps them in ``FOLDER/wandb``."""
    library = _library("wandb", "wandb")

    def start(group: str, name: str):
        folder.mkdir(parents=True, exist_ok=True)
        options: dict[str, Any] = {"project": project, "name": name, "group": group}
        run = library.init(**options, dir=str(folder), reinit="create_new")
        return lambda values, frames: run.log(values, step=frames), run.finish

    return start


def _trackio(project: str, folder: Path) -> Open:
    """Runs of trackio, in the folder that ``TRACKIO_DIR`` names."""
    library = _library("trackio", "trackio")

    def start(group: str, name: str):
        run = library.init(project=project, name=f"{group} {name}", embed=False)
        return lambda values, frames: run.log(values, step=frames), run.finish

    return start


TRACKERS: dict[str, Callable[[str, Path], Open]] = {
    "tensorboard": _tensorboard,
    "trackio": _trackio,
    "wandb": _wandb,
}
"""What each ``--track`` does: (project, output folder) -> `Open`."""


@contextlib.contextmanager
def watching(name: str, project: str, folder: Path) -> Iterator[Watch | None]:
    """What `entrob.sweep.train.train` tells of every chunk; None for "none".

    Args:
      name: of a tracker, or "none".
      project: what the tracked runs belong to.
      folder: of the results.

    Raises:
      EntrobError: the tracker is not installed.
    """
    if name == "none":
        yield None
        return
    start = TRACKERS[name](project, folder)
    runs: dict[tuple[str, str], tuple[Callable[..., None], Callable[[], None]]] = {}

    def watch(
        experiment: Experiment, batch: RunBatch, frames: int, means: Mapping[str, np.ndarray]
    ) -> None:
        methods = [run.method.name for run in batch.runs]
        for method in dict.fromkeys(methods):
            own = np.array([other == method for other in methods])
            key = experiment.name, f"{method} {batch.id[:6]}"
            if key not in runs:
                runs[key] = start(*key)
            log, _ = runs[key]
            values = {k: float(np.mean(x[own])) for k, x in means.items()}
            log({k: x for k, x in values.items() if math.isfinite(x)}, frames)

    try:
        yield watch
    finally:
        for _, close in runs.values():
            close()


def _library(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise EntrobError(
            f"--track {extra} needs {module}, which is not installed: pip install 'entrob[{extra}]'"
        ) from None
