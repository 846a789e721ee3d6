"""Pages: what they say.  Those in a browser: `test_html_in_browser`."""

import base64
import gzip
import io
import json
import re
import sys

import numpy as np
import pandas as pd
import pytest

from entrob.cli import main
from entrob.errors import EntrobError
from entrob.report import sentences
from entrob.report.html import board_charts, experiment, exported, leaderboard, page
from entrob.report.leaderboard import computed
from entrob.statistics import board as boards
from entrob.statistics.intervals import t_interval


def test_without_the_extra_there_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "altair", None)
    (tmp_path / "manifest.json").write_text('{"experiment": "x"}')
    with pytest.raises(SystemExit) as stop:
        main(["report", str(tmp_path), "--html"])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert (
        error == "entrob: a page needs altair, which is not installed: pip install 'entrob[html]'\n"
    )


def test_an_export_has_no_report_without_html(tmp_path, capsys):
    (tmp_path / "manifest.json").write_text('{"experiment": "x"}')
    (tmp_path / "tables").mkdir()
    with pytest.raises(SystemExit) as stop:
        main(["report", str(tmp_path)])
    assert stop.value.code == 2 and "only --html reads them" in capsys.readouterr().err


def test_text_is_escaped():
    said = page.paragraphs(["a **b** <script>\n- `c` & d"])
    assert said == (
        "<p>a <strong>b</strong> &lt;script&gt;</p><ul><li><code>c</code> &amp; d</li></ul>"
    )


def test_scripts_end_where_they_should():
    assert page._closed('a("</script>", /</g)') == 'a("<\\/script>", /</g)'
    text = page._json({"a": "</script><!--"})
    assert "<" not in text and json.loads(text) == {"a": "</script><!--"}


def test_downloads_hold_every_digit():
    frames = {
        "small": pd.DataFrame({"x": [1 / 3], "y": ["a,b"]}),
        "large": pd.DataFrame({"x": np.random.default_rng(0).random(10_000)}),
    }
    found = re.findall(r'download="([^"]+)" href="data:[^,]+,([^"]+)"', page.downloads(frames).html)
    assert [name for name, _ in found] == ["small.csv", "large.csv.gz"]
    small, large = (base64.b64decode(data) for _, data in found)
    pd.testing.assert_frame_equal(pd.read_csv(io.BytesIO(small)), frames["small"])
    read = pd.read_csv(io.BytesIO(gzip.decompress(large)))
    pd.testing.assert_frame_equal(read, frames["large"], check_exact=True)


def test_every_warning_is_found(board):
    manifest = {
        **board.manifest,
        "calibrated": False,
        "tasks": {
            "grid": {"open": {"good": True, "plain": False}, "broken": {"odd": "no number"}},
            "pole": {"open": {"good": True}, "passed": {"dear": False, "good": True}},
        },
    }
    said = leaderboard.warnings(board._replace(manifest=manifest), computed(board)["leaderboard"])
    text = "\n".join(said)
    for wanted in (
        "**Fewer than ten seeds**: grid 8, pole 8.",
        "**Not calibrated**",
        "**One task in a class**: routes (grid) and dynamics (pole).",
        "**Identical**, so not ranked: same.",
        "**Inactive**, so not ranked: idle.",
        "**Price broken**: beyond 5 % with 95 % confidence: dear.",
        "keeps the price: good (all tasks).",
        "the smallest was taken: dear (pole).",
        "**Left out**: grid, odd: no number.",
    ):
        assert wanted in text
    alone = board._replace(
        **{
            name: frame[frame.task == "pole"]
            for name, frame in board._asdict().items()
            if name != "manifest"
        },
        manifest={**manifest, "tasks": {"pole": manifest["tasks"]["pole"]}},
    )
    text = "\n".join(leaderboard.warnings(alone, computed(alone)["leaderboard"]))
    assert "**One task**: pole." in text and "One task in a class" not in text
    assert "keeps the price: good." in text and "the smallest was taken: dear." in text
    fewer = board._replace(scores=board.scores[board.scores.seed < 3])
    assert "below 6 pairs" in leaderboard.warnings(fewer, computed(fewer)["leaderboard"])[0]


def test_the_headline_says_what_the_tables_say(board):
    frames = computed(board)
    ranks, classes = frames["leaderboard"], frames["classes"]
    said = sentences.headline(board, ranks, classes)
    ranked = classes[classes.method.isin(ranks.method[ranks["rank"].notna()])]
    best = ranked.loc[ranked[ranked.all_low > 0].share.idxmax()]
    assert f"most of all {best.method} against {best['class']} (R = {best.share:.2f})" in said
    undecided = int((ranked.all_low.notna() & ~ranked.differs).sum())
    assert f"{undecided} of {int(ranked.all_low.notna().sum())} comparisons are undecided" in said
    few = board._replace(scores=board.scores[board.scores.seed < 3])
    frames = computed(few)
    said = sentences.headline(few, frames["leaderboard"], frames["classes"])
    assert said.startswith("Nothing can be said with confidence yet")


def test_rows_of_cells_by_hand(board):
    """Also where a pair is missing, so that groups differ in size."""
    gone = (board.scores.method == "good") & (board.scores.perturbation == "wall")
    board = board._replace(scores=board.scores[~(gone & (board.scores.seed == 2))])
    rows = board_charts.cell_rows(board)
    assert set(rows.pairs) == {7, 8}
    for row in rows.sample(12, random_state=0).itertuples():
        at = (board.scores.task == row.task) & (board.scores.perturbation == row.perturbation)
        at &= board.scores.magnitude == row.magnitude
        table = board.scores[at].pivot(index="seed", columns="method", values="score")
        pairs = (table[row.method] - table["none"]).dropna()
        assert row.gain == pytest.approx(pairs.mean()) and row.pairs == len(pairs)
        _, low, high = t_interval(pairs.to_numpy())
        assert rows.loc[row.Index, "95 %"] == board_charts.interval_text(low, high)
    gravity = rows[rows.perturbation == "gravity"]
    assert set(gravity.counts) == {"none loses less than 0.1"}
    assert set(rows.counts[rows.perturbation == "nominal"]) == {"nominal"}


def test_claims_are_counted_without_variants():
    rows = [("a", "b", "agrees"), ("a", "c", "undecided"), ("a[x]", "b[x]", "disagrees")]
    frame = pd.DataFrame([*rows, ("b", "c", "no claim")], columns=["first", "second", "verdict"])
    said = experiment.lead({"paper": frame})
    assert said == (
        "Of 2 claims in the paper's order of methods, 1 agree with ours and 1 are undecided."
    )


def test_captions_are_the_folders_own(tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "a.md").write_text("| x |\n| --- |\n| 1 |\n\nWhat it meant then.\n")
    (tmp_path / "tables" / "b.md").write_text("| x |\n| --- |\n| 1 |\n")
    assert exported.caption(tmp_path, "a") == "What it meant then."
    assert exported.caption(tmp_path, "b") == exported.caption(tmp_path, "c") == ""


def test_a_board_of_another_version_is_named(tmp_path):
    (tmp_path / "tables").mkdir()
    with pytest.raises(EntrobError, match=r"scores\.csv is missing"):
        boards.read_board(tmp_path)
