"""Workers as an array of SLURM jobs, through submitit."""

import shutil
from pathlib import Path
from typing import Any

from entrob.engines.worker import Worker
from entrob.errors import EntrobError
from entrob.persistence.store import LOGS

#: How often a job may come back after its time is up: a plan may take weeks of jobs of hours.
MOST_TIMEOUTS = 10_000


class Job:
    """What submitit pickles and calls, and asks for a successor when the time is up.

    The signal comes to this process, which only waits for its worker; so it is answered at once
    and not between two jitted chunks.
    """

    def __init__(self, folder: Path):
        self._worker = Worker(folder)

    def __call__(self) -> None:
        """One worker."""
        self._worker.run()

    def checkpoint(self) -> Any:
        """A job that goes on; the checkpoint of a batch is that of its last chunk."""
        import submitit

        self._worker.stop()
        return submitit.helpers.DelayedSubmission(Job(self._worker.folder))


def work(
    folder: Path,
    parallel: int,
    hours: float,
    partition: str | None = None,
    gpus: int = 0,
    cluster: str = "slurm",
) -> None:
    """Have a plan worked off by an array of jobs; a job that was killed is submitted again.

    Args:
      folder: of the plan, on a disk that all nodes share; the logs come to ``slurm/`` in it.
      parallel: jobs of the array.
      hours: limit of a job; at the end of it the job is requeued.
      partition: of the cluster; by default SLURM's own.
      gpus: of each job.
      cluster: submitit's name of the executor; ``"local"`` starts processes here.

    Raises:
      EntrobError: submitit is not installed, there is no SLURM here, or a worker found something
        wrong.
    """
    try:
        import submitit
    except ImportError as error:
        raise EntrobError("--on slurm needs submitit: pip install 'entrob[slurm]'") from error
    if cluster == "slurm" and shutil.which("srun") is None:
        raise EntrobError("--on slurm: there is no SLURM here (no srun)")
    executor = submitit.AutoExecutor(
        folder / LOGS, cluster=cluster, slurm_max_num_timeout=MOST_TIMEOUTS
    )
    executor.update_parameters(name="entrob", timeout_min=max(1, round(hours * 60)))
    if gpus or cluster == "slurm":
        executor.update_parameters(gpus_per_node=gpus)
    if cluster == "slurm":
        executor.update_parameters(slurm_array_parallelism=parallel, tasks_per_node=1)
        if partition is not None:
            executor.update_parameters(slurm_partition=partition)
    with executor.batch():
        jobs = [executor.submit(Job(folder)) for _ in range(parallel)]
    ids = ", ".join(job.job_id for job in jobs)
    print(f"submitted {ids}; their logs: {folder / LOGS}", flush=True)
    while jobs:
        job = jobs.pop(0)
        try:
            job.result()
        except submitit.core.utils.UncompletedJobError as error:  # failed jobs are among them
            found = str(error).rpartition("EntrobError: ")[2].strip().splitlines()
            if "EntrobError: " in str(error):
                raise EntrobError(found[0]) from error
            # Killed without a signal that could be answered. Others may have taken its work over,
            # and then the successor ends at once.
            jobs.append(executor.submit(Job(folder)))
            print(f"{job.job_id} was killed; {jobs[-1].job_id} goes on", flush=True)
