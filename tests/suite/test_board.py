"""A suite that is really trained: two tiny tasks, from the command line to the page (slow)."""

import io
import json

import pandas as pd
import pytest
from PIL import Image
from world import TOML

from entrob import cli
from entrob.cli import pages
from entrob.statistics.board import read_board
from entrob.suite.assemble import assemble
from entrob.sweep import train

pytestmark = pytest.mark.slow  # compiling takes minutes

IDEA = '''
import jax.numpy as jnp
import entrob

@entrob.regularizer("suite_idea", coef=0.1)
def suite_idea(policy, coef):
    """Add coef · mean V² to the loss."""
    return coef * jnp.mean(policy.value**2)

@entrob.regularizer("suite_broken", coef=0.1)
def suite_broken(policy, coef):
    """Add nothing that exists."""
    return policy.nothing
'''


def small(text: str) -> str:
    """One candidate and one magnitude, and without what compiles long."""
    for old, new in (("candidates = 3", "candidates = 1"), ("magnitudes = 2", "magnitudes = 1")):
        assert old in text
        text = text.replace(old, new)
    return text.replace('"policy_entropy", "steer", ', '"policy_entropy", ')


@pytest.fixture(scope="module")
def root(tmp_path_factory, cache):
    """The suite, interrupted at a checkpoint, then joined by a user's method and a broken one."""
    folder = tmp_path_factory.mktemp("board")
    file, out = folder / "tiny_suite.toml", folder / "out"
    file.write_text(small(TOML))
    (folder / "suite_module.py").write_text(IDEA)
    base = ["run", str(file), "--preset", "smoke", "--out", str(out)]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        calls, real = [], train.write_tree

        def write_tree(path, tree):
            calls.append(path)
            if len(calls) == 12:
                raise KeyboardInterrupt
            return real(path, tree)

        with patch.context() as failing, pytest.raises(SystemExit) as exit:
            failing.setattr(train, "write_tree", write_tree)
            cli.main(base)
        assert exit.value.code == 130 and len(calls) == 12
        cli.main(base)
        with pytest.raises(SystemExit) as exit:
            ideas = ("suite_module:suite_idea", "suite_module:suite_broken")
            cli.main([*base, *(word for idea in ideas for word in ("--regularizer", idea))])
        assert exit.value.code == 2
    return out


def test_the_page_says_who_and_how_much(root):
    page = (root / "leaderboard.md").read_text()
    assert "suite_idea" in page and "Left out: grid, suite_broken: user code does not" in page
    assert "Reported runs:" in page and "tuning:" in page and "calibration:" in page
    assert "not calibrated" in page
    assert (root / "regularizers" / "suite_idea.md").exists()


def test_the_tables_hold_every_method(root):
    board = read_board(root)
    own = {task: set(rows.method) for task, rows in board.scores.groupby("task")}
    assert {"none", "policy_entropy", "pr_mdp", "none_tuned", "suite_idea"} <= own["grid"]
    assert "rarl" not in own["grid"]
    assert board.tuning.activity[board.tuning.method == "policy_entropy"].gt(0).all()
    assert board.tuning.taken.notna().all()
    again = assemble(root)
    pd.testing.assert_frame_equal(again.scores, board.scores, check_dtype=False)
    facts = json.loads((root / "manifest.json").read_text())["tasks"]["grid"]
    assert facts["costs"]["tuning"]["frames"] > 0 and facts["git_commit"]
    overhead = pd.read_csv(root / "overhead.csv")
    assert {"policy_entropy", "suite_idea"} <= set(overhead.method)


def test_policies_are_shown_at_work(root, monkeypatch):
    """For a page's cards: every trained method on one task and instance, nominal and perturbed."""
    board, folder = read_board(root), root.parent
    (folder / "benchmarks").mkdir()
    (folder / "benchmarks" / "tiny_suite.toml").write_text(small(TOML))
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    found = pages.animations(root, board)
    assert "policy_entropy" in found and set(found) <= set(board.methods)
    titles = {tuple(title for title, _ in films) for films in found.values()}
    assert len(titles) == 1 and [t.endswith(", nominal") for t in titles.pop()] == [True, False]
    for films in found.values():
        moving = [Image.open(io.BytesIO(data)) for _, data in films]
        assert all(image.format == "GIF" and image.n_frames > 1 for image in moving)
        assert films[0][1] != films[1][1]


def test_status_and_report_know_a_suite(root, tmp_path, capsys):
    cli.main(["status", str(root)])
    assert "tiny_suite-grid-tuning smoke:" in capsys.readouterr().out
    before = (root / "leaderboard.md").read_bytes()
    cli.main(["report", str(root), "--export", str(tmp_path / "exported")])
    assert (tmp_path / "exported" / "leaderboard.md").read_bytes() == before
    assert (tmp_path / "exported" / "tables" / "tuning.csv").exists()
