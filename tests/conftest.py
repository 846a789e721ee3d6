"""Two devices for all tests, as on the command line of a machine with two cores.

And the tiny experiment that tests of the sweep and of the command line share.
"""

import contextlib
import ctypes
import functools
import gc
import itertools
import os
import pathlib
import resource

import jax
import matplotlib.figure
import pytest

#: What empties the caches of this process.
FORGET = [jax.clear_caches]

# As sweeps do on a CPU; most of the tests' time is compiling. And each program in one piece: in
# parts for several threads a small one takes a quarter longer, and the other core is busy. Later
# versions of XLA lack the choice and end the process at a flag that they do not know.
if jax.__version_info__ < (0, 11):
    flags = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}"

    # One context for all that is lowered: JAX loads the dialects of MLIR for every program anew, a
    # tenth of the time of a small one.
    from jax._src.interpreters import mlir

    mlir.make_ir_context = functools.cache(mlir.make_ir_context)
    FORGET.append(mlir.make_ir_context.cache_clear)

jax.config.update("jax_num_cpu_devices", 2)  # before entrob: gymnax starts JAX's backend


def pytest_configure(config):
    """Programs are compiled without optimization, which takes half as long, but for slow tests.

    Those of processes that tests start too.
    """
    # Where an operation was written stands in no program: a fifth of the time that tracing takes.
    jax.config.update("jax_traceback_in_locations_limit", 0)
    os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"
    if "not slow" in config.option.markexpr:
        jax.config.update("jax_disable_most_optimizations", True)
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "True"


def pytest_collection_finish():
    """What is there stays: the garbage of tracing is looked for rarely, and not among that.

    Looking among all the modules and tests, at every few hundred objects, takes 5 % of the time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.fixture
def optimized():
    """Compile with optimization: for tests that run longer than they compile."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


#: Small enough to be trained and tested in seconds.
TINY = """
title = "Tiny"
environment = "minigrid/empty-8x8"
num_envs = 2
num_steps = 8
chunk = 5
points = 5

[[methods]]
name = "none"

[[methods]]
name = "policy_entropy"
coefficients = { policy_entropy = 0.01 }

[perturbations]
wall = [0, 8]

[presets.quick]
seeds = 2
frames = 160
instances = 4
"""


#: Of the 65,530 memory mappings that Linux gives a process; compiled programs take some 200 each.
MANY_MAPPINGS = 25_000
#: Bytes that programs may take: two processes and those that tests start have 6 GB between them.
MUCH_MEMORY = 2**30
#: Tests between two looks at both, which take milliseconds.
OFTEN = 10
_tests = itertools.count(1)
_floor = 0


def memory():
    """Bytes of this process in memory, where Linux tells."""
    statm = pathlib.Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * resource.getpagesize() if statm.exists() else 0


def mappings():
    maps = pathlib.Path("/proc/self/maps")
    return maps.read_text().count("\n") if maps.exists() else 0


def give_back():
    """Hand freed memory back, which glibc keeps otherwise."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def forget(much):
    """Forget compiled programs before memory or its mappings run out, which would end the process.

    A thousand tests come close, and so do a few hundred of one file that compile each their own.
    """
    global _floor
    if mappings() > MANY_MAPPINGS or memory() > _floor + much:
        _trainers.clear()
        _evaluators.clear()
        for empty in FORGET:
            empty()
        gc.collect()
        give_back()
        _floor = memory()


@pytest.fixture(autouse=True, scope="module")
def drop_compiled_programs():
    """Forget them after a file whose programs are large."""
    yield
    forget(MUCH_MEMORY)


@pytest.fixture(autouse=True)
def drop_compiled_programs_of_a_long_file():
    """Forget them within a file of many large ones, whose tests count on no program of another."""
    yield
    if next(_tests) % OFTEN == 0:
        forget(2 * MUCH_MEMORY)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """Compiled programs, shared by all tests, by both processes and by those that tests start."""
    before = jax.config.jax_compilation_cache_dir
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # that of the session
    folder = folder / "xla"
    folder.mkdir(exist_ok=True)
    settings = {
        "jax_compilation_cache_dir": str(folder),
        # To write a program takes longer than to compile a small one.
        "jax_persistent_cache_min_compile_time_secs": 0.5,
    }
    for name, value in settings.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)
    yield folder
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.fixture
def sketched(monkeypatch):
    """Figures are built and not drawn, which takes seconds for every report."""

    def savefig(figure, sink, *, format, **options):
        sink.write(f"a figure as {format}".encode())

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", savefig)


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory, cache) -> pathlib.Path:
    """The experiment's file: 2 methods x 2 seeds, two chunks of 80 frames."""
    path = tmp_path_factory.mktemp("experiment") / "tiny.toml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="session")
def tiny(tiny_file):
    """The experiment."""
    from entrob.sweep import reading

    return reading.load(str(tiny_file), "quick")


@pytest.fixture(scope="session")
def whole(tiny, tmp_path_factory) -> pathlib.Path:
    """The folder of an uninterrupted run; to be copied, not changed."""
    from entrob.persistence.store import Store
    from entrob.sweep import runner

    root = tmp_path_factory.mktemp("whole") / "out"
    runner.run(tiny, Store(root), "entrob run tiny")
    return root


@pytest.fixture(scope="session")
def parts():
    """Function ``folder -> bytes by file name`` of everything that batches produced.

    What they took differs from one time to the next.
    """

    def read(root):
        paths = (root / "parts").iterdir()
        return {path.name: path.read_bytes() for path in paths if path.suffix != ".json"}

    return read


@pytest.fixture
def four_wide(monkeypatch):
    """Batches are padded to four runs, so that one compiled program serves several tests."""
    from entrob.evaluation import evaluator
    from entrob.sweep import program, worker

    for module in (program, worker, evaluator):
        monkeypatch.setattr(module, "padded", lambda runs: -(-runs // 4) * 4)


@pytest.fixture
def trained(monkeypatch):
    """The ids of the runs that are trained during a test, and the chunks it took."""
    from entrob.sweep import worker

    class Seen:
        runs, chunks = [], 0

    real = worker.train

    def train(experiment, store, batch, *rest):
        timing = real(experiment, store, batch, *rest)
        Seen.runs += [run.id for run in batch.runs]
        frames = experiment.num_envs * experiment.num_steps * experiment.chunk * len(batch.runs)
        Seen.chunks += timing.frames // frames
        return timing

    monkeypatch.setattr(worker, "train", train)
    Seen.runs, Seen.chunks = [], 0
    return Seen


@pytest.fixture
def interrupt_at():
    """Function that makes the given call (counted from 1) of a function a Ctrl-C."""

    def patch_in(monkeypatch, owner, name, call):
        real, calls = getattr(owner, name), []

        def function(*args, **kwargs):
            calls.append(args)
            if len(calls) == call:
                raise KeyboardInterrupt
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, function)

    return patch_in


#: What programs are made from, besides code, numbers of runs and what methods have of their own.
STATIC = ("environment", "algorithm", "num_envs", "num_steps", "epochs", "minibatches", "chunk")
STATIC += ("normalize",)
_trainers, _evaluators = {}, {}


@pytest.fixture(scope="session", autouse=True)
def equal_programs_are_built_once():
    """Those of sweeps; numbers are data, and a test may have made code of its own by any name."""
    from entrob.perturbations import perturbations
    from entrob.regularizers import regularizers
    from entrob.sweep import measure, worker
    from entrob.sweep.experiment import AGENT

    compile_anew, begin = worker.compiled, measure.Tester.__init__

    def static(experiment):
        settings = [getattr(experiment, name) for name in (*STATIC, *AGENT)]
        return repr(settings), type(experiment.task.env), experiment.task.env.finite

    def compiled(experiment, prog, batch):
        makers = tuple(regularizers.get(name) for name in batch.group.regularizers)
        key = *static(experiment), batch.group.key, makers, worker.padded(len(batch.runs))
        if key not in _trainers:
            _trainers[key] = compile_anew(experiment, prog, batch)
        return _trainers[key]

    def init(self, experiment):
        begin(self, experiment)
        made, params = self.evaluator, experiment.task.noisy_params
        names = [name for name in self.tested if name in perturbations]
        makers = tuple(perturbations.get(name, params).fn for name in names)
        key = *static(experiment), makers, made.instances, made.episodes, made.seed
        self.evaluator = _evaluators.setdefault(key, made)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "compiled", compiled)
        patch.setattr(measure.Tester, "__init__", init)
        yield
