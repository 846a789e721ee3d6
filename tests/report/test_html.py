"""Pages: what they say, that they load nothing, and that they can be used in a browser."""

import base64
import gzip
import io
import json
import re
import shutil
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

MODES = [(scheme, width) for scheme in ("light", "dark") for width in (1280, 390)]


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


def libraries():
    """Skips, by name, what the extra ``[html]`` would bring."""
    for name in page.LIBRARIES:
        pytest.importorskip(name)


@pytest.fixture
def browser():
    """The distribution's Chromium, headless."""
    api = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("chromium is not installed")
    with api.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield running
        running.close()


def opened(browser, path, scheme="light", width=1280):
    """The page in a tab to which every request is refused but that for the file itself."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    context.set_offline(True)
    context.set_default_timeout(600_000)  # a busy machine takes its time
    tab = context.new_page()
    tab.asked, tab.wrong = [], []
    local = ("file:", "data:", "blob:")
    tab.on("request", lambda r: tab.asked.append(r.url) if not r.url.startswith(local) else None)
    tab.on("pageerror", lambda error: tab.wrong.append(str(error)))
    tab.on("console", lambda m: tab.wrong.append(m.text) if m.type == "error" else None)
    tab.goto(path.as_uri())
    for chart in tab.locator("main .chart:visible").all():
        chart.scroll_into_view_if_needed()
    tab.wait_for_function(
        "[...document.querySelectorAll('.chart')].every(x => x.dataset.drawn || !x.offsetParent)"
    )
    return tab


def used_alike(browser, path):
    """In every mode: nothing is asked for, nothing breaks, nothing is wider than the window."""
    papers = set()
    for scheme, width in MODES:
        tab = opened(browser, path, scheme, width)
        assert tab.asked == [] and tab.wrong == []
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        papers.add(tab.evaluate("getComputedStyle(document.body).backgroundColor"))
        dark = tab.evaluate("document.documentElement.classList.contains('dark')")
        assert dark == (scheme == "dark")
        tab.context.close()
    assert len(papers) == 2


@pytest.mark.slow
def test_a_leaderboard_is_used_in_a_browser(board, tmp_path, browser):
    libraries()
    gif = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
    films = {"good": [("grid, nominal", gif), ("grid, wall 2", gif)]}
    path = tmp_path / "index.html"
    leaderboard.write_leaderboard_page(board, path, "entrob report x --html", films)
    assert path.stat().st_size < 4_000_000
    used_alike(browser, path)
    tab = opened(browser, path)
    cells = tab.locator("#table-cells")
    whole = tab.locator("#table-cells_info").inner_text()
    # Filter: the list at the head of a column.
    cells.locator("thead th", has_text="task").locator(".dtcc-button").last.click()
    tab.locator(".dtcc-dropdown .dtcc-list-button", has_text="pole").click()
    tab.keyboard.press("Escape")
    tasks = cells.locator("tbody tr td:nth-child(3)").all_inner_texts()
    assert set(tasks) == {"pole"} and tab.locator("#table-cells_info").inner_text() != whole
    # Search.
    tab.locator("#table-cells_wrapper input[type=search]").first.fill("gravity")
    found = cells.locator("tbody tr td:nth-child(5)").all_inner_texts()
    assert set(found) == {"gravity"}
    # Sort: numbers as numbers, both ways.
    ranking = tab.locator("#table-ranking")
    head = ranking.locator("thead th", has_text="price").locator(".dtcc-button").first
    price = list(computed(board)["leaderboard"].price.round(3))
    column = 1 + ranking.locator("thead th .dt-column-title").all_inner_texts().index("price")
    read = lambda: [
        float(x) for x in ranking.locator(f"tbody tr td:nth-child({column})").all_inner_texts()
    ]
    head.click()
    first = read()
    head.click()
    assert first == sorted(price) and read() == sorted(price, reverse=True)
    # Hover: a cell of the heat map says interval, pairs, coefficient and price.
    cell = tab.locator("#gain-under-every-perturbation .mark-rect path[aria-label*='slip']")
    cell.first.scroll_into_view_if_needed()
    cell.first.hover()
    tip = tab.locator("#vg-tooltip-element.visible")
    text = tip.inner_text()
    for word in ("method", "gain", "simultaneous 95 %", "pairs", "coefficient", "price", "slip"):
        assert word in text
    # A card opens, draws its charts, and shows the policy twice.
    card = tab.locator("details.card#good")
    card.locator("summary").first.click()
    tab.wait_for_function(
        "[...document.querySelectorAll('#good .chart')].every(x => x.dataset.drawn)"
    )
    assert card.locator(".chart").count() == 2 and card.locator("img").count() == 2
    assert "Evidence: not graded" in card.inner_text()
    # What is downloaded is the table.
    with tab.expect_download() as saved:
        tab.locator("a[download='scores.csv']").click()
    pd.testing.assert_frame_equal(pd.read_csv(saved.value.path()), board.scores)
    assert tab.asked == [] and tab.wrong == []


@pytest.mark.slow
def test_an_experiment_is_used_in_a_browser(make_frames, make_traces, manifests, tmp_path, browser):
    libraries()
    runs, curves, evaluation = make_frames(seeds=range(6))
    traces = make_traces(runs, [("nominal", 0), ("wall", 6)])
    records = {"runs": runs, "curves": curves, "evaluation": evaluation, "traces": traces}
    walls = np.zeros((5, 5), bool)
    walls[0] = True
    occupancies = dict.fromkeys(runs.method.unique(), np.ones((5, 5)))
    manifest = {**manifests("minigrid"), "title": "A <run>", "git_commit": "abc"}
    path = experiment.write_experiment_page(
        tmp_path / "index.html",
        {**records, "progress": pd.DataFrame()},
        manifest,
        "entrob report x --html",
        occupancies=occupancies,
        walls=walls,
    )
    used_alike(browser, path)
    tab = opened(browser, path)
    assert tab.locator("h1").inner_text() == "A <run>"
    sections = tab.locator("h2").all_inner_texts()
    assert {"Training", "Occupancy", "Trajectories", "Robustness over the magnitude"} <= set(
        sections
    )
    # The slider reads all methods off at a magnitude.
    slid = tab.locator("figure.slid", has=tab.locator("h3", has_text=re.compile("^wall$")))
    slider = slid.locator("input")
    slider.scroll_into_view_if_needed()

    def shown():
        marks = slid.locator(".chart").nth(1).locator(".mark-symbol path").all()
        return [mark.get_attribute("aria-label") for mark in marks]

    assert slid.locator("output").inner_text() == "6"
    at_six = shown()
    slider.focus()
    slider.press("Home")
    assert slid.locator("output").inner_text() == "0"
    tab.wait_for_timeout(300)
    at_zero = shown()
    assert len(at_zero) == 3 and at_zero != at_six
    assert all("success rate: 1" in label for label in at_zero)
    # Hover over a curve.
    chart = tab.locator("#training .chart").first
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    tab.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.4 * box["height"])
    tab.mouse.move(box["x"] + 0.6 * box["width"] + 2, box["y"] + 0.4 * box["height"])
    tab.wait_for_timeout(300)
    assert tab.locator("#training .mark-symbol path").count() > 10
    assert tab.asked == [] and tab.wrong == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "folder", ["minigrid/paper", "theory", "pusher/paper", "leaderboard/standard"]
)
def test_exports_become_pages(folder, tmp_path, browser):
    from pathlib import Path

    libraries()
    source = Path(__file__).parents[2] / "results" / folder
    target = tmp_path / "export"
    shutil.copytree(source, target)
    main(["report", str(target), "--html"])
    path = target / "index.html"
    assert path.stat().st_size < 4_000_000
    used_alike(browser, path)
    text = path.read_text()
    assert str(tmp_path) not in text
    for name in (target / "tables").glob("*.csv"):
        assert f'download="{name.stem}.csv' in text


def test_a_board_of_another_version_is_named(tmp_path):
    (tmp_path / "tables").mkdir()
    with pytest.raises(EntrobError, match=r"scores\.csv is missing"):
        boards.read_board(tmp_path)
