"""Workers as tasks of a Ray cluster, which starts them again if a node is lost."""

import os
from pathlib import Path

from entrob.engines.worker import Worker
from entrob.errors import EntrobError


def work(folder: Path, parallel: int | None = None, gpus: int | None = None) -> None:
    """Have a plan worked off by tasks of the cluster at ``RAY_ADDRESS``, or of one started here.

    Args:
      folder: of the plan, on a disk that all nodes share.
      parallel: how many workers; by default as many as the GPUs suffice for, or one per node of a
        cluster without.
      gpus: of each worker; by default 1 where the cluster has any, else 0.

    Raises:
      EntrobError: Ray is not installed, no cluster answers, it has too few GPUs, or a worker found
        something wrong.
    """
    try:
        import ray
    except ImportError as error:
        raise EntrobError("--on ray needs Ray: pip install 'entrob[ray]'") from error
    address = os.environ.get("RAY_ADDRESS")
    try:
        ray.init(address=address, log_to_driver=True, logging_level="warning")
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise EntrobError(f"no Ray cluster answers at RAY_ADDRESS={address}") from error
    try:
        there = int(ray.cluster_resources().get("GPU", 0))
        gpus = min(1, there) if gpus is None else gpus
        if gpus > there:
            raise EntrobError(f"a worker wants {gpus} GPUs, and the cluster has {there}")
        nodes = sum(bool(node["Alive"]) for node in ray.nodes())
        count = parallel or (there // gpus if gpus else nodes)
        task = ray.remote(num_gpus=gpus, num_cpus=1, max_retries=-1)(_run)
        tasks = [task.options(scheduling_strategy="SPREAD").remote(folder) for _ in range(count)]
        ray.get(tasks)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        raise EntrobError(str(cause) if isinstance(cause, EntrobError) else str(error)) from error
    finally:
        ray.shutdown()


def _run(folder: Path) -> None:
    """A task: one worker, again if it was killed on a node that lives."""
    while True:
        try:
            return Worker(folder).run()
        except ChildProcessError as error:
            print(f"{error}; it is started again", flush=True)
