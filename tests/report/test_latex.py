"""LaTeX tables: short, bold by a rule, every character mapped, and compiled where a TeX is."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from entrob.errors import EntrobError
from entrob.report import latex, tables
from entrob.report.latex import Short

RESULTS = Path(__file__).parents[2] / "results"


def frame():
    return pd.DataFrame(
        {
            "perturbation": ["wall", "wall", "slip"],
            "method": ["state_entropy[paper]", "none", "none"],
            "success": [0.912, 0.909, np.nan],
            "success_low": [0.8, 0.7, np.nan],
            "success_high": [1.0, 1.0, np.nan],
            "seeds": [10, 10, 3],
        }
    )


def test_short_tables_show_display_names_two_digits_and_bold():
    short = Short(("method", "success", "seeds"), ("success",), ("success",), ("perturbation",))
    text = latex.latex(frame(), "50 %.", "success", short)
    assert r"\label{tab:success}" in text and r"\begin{tabular}{lrr}" in text
    assert r"method & success {[}95 \%{]} & seeds \\" in text
    # 0.912 and 0.909 print alike, so both are in bold.
    assert r"state entropy (paper) & \textbf{0.91 {[}0.80, 1.00{]}} & 10 \\" in text
    assert r"none & \textbf{0.91 {[}0.70, 1.00{]}} & 10 \\" in text
    assert r"none & -- {[}--, --{]} & 3 \\" in text
    assert r"50 \%. Bold: the highest of a column for each perturbation" in text
    assert all(rule in text for rule in (r"\toprule", r"\midrule", r"\bottomrule"))


def test_at_most_seven_columns_and_no_spread_unless_asked():
    wide = pd.DataFrame({f"column_{i}": [0.123] for i in range(12)})
    text = latex.latex(wide.assign(column_0_low=0.1, column_0_high=0.2), "", "wide")
    assert text.count("0.12") == 7 and "[" not in text.split("\n")[6]
    assert "Bold" not in text


@pytest.mark.parametrize("short", tables.SHORT.values(), ids=tables.SHORT)
def test_declared_short_tables_fit(short):
    assert 0 < len(short.columns) <= latex.COLUMNS
    assert {*short.spread, *short.best} <= set(short.columns)


def test_an_unmapped_character_is_an_error_that_names_it():
    with pytest.raises(EntrobError, match=r"table 'odd' holds '鳥' \(U\+9CE5\)"):
        latex.latex(pd.DataFrame({"method": ["鳥"]}), "", "odd")
    text = latex.escape("≤ ∞ χ² λ é Σ − a_b", "signs")
    assert text == r"$\leq$ $\infty$ $\chi$$^2$ $\lambda$ é $\Sigma$ $-$ a\_b"


@pytest.mark.parametrize("path", sorted(RESULTS.rglob("tables/*.csv")), ids=lambda p: p.stem)
def test_committed_tables_have_only_characters_that_latex_takes(path):
    assert r"\bottomrule" in latex.latex(pd.read_csv(path), "", path.stem)


def document(tmp_path, texts):
    lines = [r"\documentclass{article}", r"\usepackage[utf8]{inputenc}", r"\usepackage{booktabs}"]
    lines += [r"\begin{document}", *texts, r"\end{document}"]
    (tmp_path / "all.tex").write_text("\n".join(lines))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=300)
    return done.returncode, (tmp_path / "all.log").read_text(errors="replace")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex on this machine")
def test_tables_compile_and_fit_on_the_page(tmp_path, make_frames, minigrid, board):
    from entrob.report.experiment import CAPTIONS as MORE
    from entrob.report.experiment import paper_table
    from entrob.report.leaderboard import CAPTIONS, computed

    runs, curves, evaluation = make_frames()
    frames = {
        "nominal": tables.nominal_table(runs, curves, evaluation, minigrid),
        "success": tables.success_table(runs, evaluation, minigrid),
        "robustness": tables.robustness_table(runs, evaluation, minigrid),
        "difference": tables.difference_table(runs, evaluation, minigrid),
        "paper": paper_table(runs, evaluation, minigrid),
        **computed(board),
    }
    captions = CAPTIONS | MORE
    texts = [latex.latex(f.head(20), captions[n], n, tables.SHORT[n]) for n, f in frames.items()]
    # Three of the theory's did not compile: ≤, ∞ and χ.
    theory = sorted((RESULTS / "theory" / "tables").glob("*.csv"))
    texts += [latex.latex(pd.read_csv(path), "", path.stem) for path in theory]
    assert len(theory) >= 4
    texts.append(latex.escape(" ".join(latex._LATEX), "signs"))
    code, log = document(tmp_path, texts)
    assert code == 0, log[-3000:]
    assert "Overfull" not in log
