"""What a shell may set: JAX's variables and a locale that knows no letter beyond ASCII."""

import os
import shutil
import subprocess
import sys

import jax
import pytest

from entrob import cli
from entrob.persistence.store import Store, write_json

#: Figures are built and not drawn, which takes seconds; they are no part of what is asked here.
SKETCHED = """
import matplotlib.figure
def savefig(figure, sink, **options):
    sink.write(b"a figure")
matplotlib.figure.Figure.savefig = savefig
"""
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}


@pytest.fixture
def python(cache, tmp_path):
    """Function that runs a program with variables, and returns what became of it."""

    def run(program, *arguments, **variables):
        own = {
            **os.environ,
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_NUM_CPU_DEVICES": str(len(jax.devices())),
            "JAX_DISABLE_MOST_OPTIMIZATIONS": str(
                jax.config.values["jax_disable_most_optimizations"]
            ),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        return subprocess.run(
            [sys.executable, *program, *map(str, arguments)],
            env={**own, **variables}, capture_output=True, cwd=tmp_path,
        )  # fmt: skip

    return run


@pytest.mark.parametrize("platform", ["cuda", pytest.param("abacus", marks=pytest.mark.slow)])
def test_a_platform_that_is_not_there_is_one_line(python, platform):
    done = python(["-m", "entrob", "list", "environments"], JAX_PLATFORMS=platform)
    error = done.stderr.decode()
    assert done.returncode == 2 and error.count("\n") == 1, error
    assert error.startswith(f"entrob: JAX does not start on {platform} (JAX_PLATFORMS): ")


@pytest.mark.slow  # test_compiling.py asks of all that is wrapped
def test_64_bits_change_nothing_for_the_library(python):
    program = """
import jax, numpy as np, entrob
def work():
    trained = entrob.train("gymnax:MountainCar-v0", frames=32, chunk=1, num_envs=2, num_steps=8)
    table = entrob.evaluate(trained.policies, perturbations={"slip": 0.5}, instances=2)
    return trained.curves, table.return_mean, trained.policies[0].episode().episode_return
assert jax.config.jax_enable_x64
one = work()
jax.config.update("jax_enable_x64", False)
two = work()
assert one[0].equals(two[0]) and one[1].equals(two[1]) and one[2] == two[2]
"""
    done = python(["-c", program], JAX_ENABLE_X64="1")
    assert done.returncode == 0, done.stderr.decode()


def test_commands_compute_in_32_bits():
    jax.config.update("jax_enable_x64", True)
    try:
        cli.main(["list", "environments"])
        assert not jax.config.jax_enable_x64
    finally:
        jax.config.update("jax_enable_x64", False)


@pytest.mark.slow  # all that a command may choose is above
def test_64_bits_change_nothing_on_the_command_line(tiny_file, whole, tmp_path, python, parts):
    out = tmp_path / "out"
    program = SKETCHED + "import sys; from entrob import cli; cli.main(sys.argv[1:])"
    done = python(["-c", program], "run", tiny_file, "--out", out, JAX_ENABLE_X64="1")
    assert done.returncode == 0, done.stderr.decode()
    assert parts(out) == parts(whole)


def test_an_ascii_locale_reads_and_writes_utf_8(whole, tiny_file, tmp_path, python):
    """Nothing of ours asks the locale how a file is encoded, and what cannot be shown is not."""
    store = Store(shutil.copytree(whole, tmp_path / "größe"))
    title = "Größe × 2 → ∞"
    write_json(store.manifest_path, {**store.manifest(), "experiment": title, "command": title})
    file = tmp_path / "großes.toml"
    file.write_text(tiny_file.read_text().replace("Tiny", title), encoding="utf-8")
    program = f"""
{SKETCHED}
import locale, sys, warnings
warnings.filterwarnings("error", category=EncodingWarning, module="entrob")
assert "UTF" not in locale.getpreferredencoding(False).upper()
from entrob import cli
from entrob.sweep import reading
assert reading.load(sys.argv[2], "quick").title == {title!a}
cli.main(["status", sys.argv[1]])
cli.main(["report", sys.argv[1]])
cli.main(["list", "regularizers"])
"""
    done = python(["-X", "warn_default_encoding", "-c", program], store.root, file, **ASCII)
    assert done.returncode == 0, done.stderr.decode()
    assert b"Gr??e ? 2" in done.stdout
    assert title in (store.root / "report.md").read_text(encoding="utf-8")
