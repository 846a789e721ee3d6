"""Pages opened and used in headless Chromium: filter, sort, search, hover, slide, save (slow)."""

import base64
import gzip
import http.server
import io
import re
import shutil
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from entrob.cli import main
from entrob.report.html import experiment, leaderboard, page
from entrob.report.html.page import Chart, Page, Section, write_page
from entrob.report.leaderboard import computed
from entrob.statistics import board as boards

pytestmark = pytest.mark.slow

MODES = [(scheme, width) for scheme in ("light", "dark") for width in (1280, 390)]
RESULTS = Path(__file__).parents[2] / "results"

#: What a page must not do, each with the path that it asks for.
ASKING = """base => Promise.allSettled([
  fetch(base + 'fetched'),
  new Promise((yes, no) => { const x = new XMLHttpRequest(); x.onload = yes; x.onerror = no;
                             x.open('GET', base + 'requested'); x.send(); }),
  ...['img', 'script', 'link', 'iframe'].map(kind => new Promise((yes, no) => {
    const element = document.createElement(kind);
    element.onload = yes; element.onerror = no;
    if (kind == 'link') element.rel = 'stylesheet';
    element[kind == 'link' ? 'href' : 'src'] = base + kind;
    document.body.append(element);
    setTimeout(no, 2000);
  })),
])"""


@pytest.fixture(autouse=True)
def libraries():
    """Skips, by name, what the extra ``[html]`` would bring."""
    for name in page.LIBRARIES:
        pytest.importorskip(name)


@pytest.fixture(scope="module")
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


@pytest.fixture
def asked():
    """The address of a server on this machine, and the paths that it was asked for."""
    paths = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            paths.append(self.path.strip("/"))
            self.send_response(200)
            self.send_header("Access-Control-Allow-Origin", "*")
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/", paths
        server.shutdown()


def opened(browser, path, scheme="light", width=1280):
    """The page in a tab that is offline, with all its charts drawn."""
    window = {"viewport": {"width": width, "height": 900}, "reduced_motion": "reduce"}
    context = browser.new_context(**window, color_scheme=scheme)
    context.set_offline(True)
    context.set_default_timeout(180_000)  # a busy machine takes its time
    tab = context.new_page()
    tab.asked, tab.wrong = [], []
    local = ("file:", "data:", "blob:")
    tab.on("request", lambda r: tab.asked.append(r.url) if not r.url.startswith(local) else None)
    tab.on("pageerror", lambda error: tab.wrong.append(str(error)))
    tab.on("console", lambda m: tab.wrong.append(m.text) if m.type == "error" else None)
    tab.goto(path.as_uri())
    drawn(tab.locator("main"))
    return tab


def drawn(place):
    """Scroll to every chart that is not folded away, as they are drawn when they come into view."""
    for chart in place.locator(".chart:visible").all():
        chart.scroll_into_view_if_needed()
        chart.and_(place.page.locator("[data-drawn]")).wait_for()


def until(tab, so, tries=200):
    """Wait until something is so: tables are drawn a moment after a click."""
    for _ in range(tries):
        if so():
            return
        tab.wait_for_timeout(100)
    assert so()


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


def hovered(tab, mark):
    """What the page says of a mark under the pointer, without one that is still shown."""
    tab.mouse.move(0, 0)
    tab.locator("#vg-tooltip-element.visible").wait_for(state="hidden")
    mark.scroll_into_view_if_needed()
    box = mark.bounding_box()
    for step in (0, 1):
        tab.mouse.move(box["x"] + box["width"] / 2 + step, box["y"] + box["height"] / 2)
    text = tab.locator("#vg-tooltip-element.visible").inner_text()
    assert "undefined" not in text and "NaN" not in text and "null" not in text
    return re.sub(r"\s+", " ", text)


def column(table, name):
    """The texts of a column of the page that a table shows."""
    heads = table.locator("thead th .dt-column-title").all_inner_texts()
    return table.locator(f"tbody tr td:nth-child({1 + heads.index(name)})").all_inner_texts()


def head(table, name):
    """The head of a column."""
    title = table.page.get_by_text(name, exact=True)
    return table.locator("thead th", has=title)


def number(text):
    """What a cell says: the first number in it; a dash comes before all."""
    found = re.search(r"[-−]?\d+(\.\d+)?", text)
    return float(found[0].replace("−", "-")) if found else -np.inf


def test_a_leaderboard_is_used(board, tmp_path, browser):
    gif = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
    films = {"good": [("grid, nominal", gif), ("grid, wall 2", gif)]}
    path = tmp_path / "index.html"
    leaderboard.write_leaderboard_page(board, path, "entrob report x --html", films)
    assert path.stat().st_size < 4_000_000
    used_alike(browser, path)
    tab = opened(browser, path)
    # A heat map's cell says interval, pairs, coefficient and price, a point of the prices its own.
    gains = tab.locator("#gain-under-every-perturbation .mark-rect path[aria-label*='slip']")
    text = hovered(tab, gains.first)
    for word in (
        "method",
        "gain",
        "simultaneous 95 % [",
        "pairs 8",
        "coefficient",
        "price",
        "slip",
    ):
        assert word in text
    (row,) = computed(board)["leaderboard"].query("method == 'good'").itertuples()
    point = tab.locator("#price-against-gain .mark-symbol path[aria-label*='dear']").first
    text = hovered(tab, point)
    assert "method dear" in text and "95 % of price [" in text and "price broken" in text
    # A card opens, draws its charts, says what the method is, and shows its policy twice.
    card = tab.locator("details.card#good")
    card.locator("summary").first.click()
    drawn(card)
    assert card.locator(".chart[data-drawn]").count() == 2 and card.locator("img").count() == 2
    inside = card.inner_text()
    for word in ("What it does.", "Source: A paper.", "Label: paper.", "Evidence: not graded"):
        assert word in inside
    assert "Coefficient: 1 (default 0.1)." in inside and "Activity: grid 20.0%" in inside
    assert f"R = {row.overall:.2f}" in inside and f"rank {row.rank}" in inside
    seeds, frontier = card.locator(".chart").all()
    dots = seeds.locator(".mark-symbol path[aria-label*='seed']")
    assert dots.count() == 8 * 4  # pairs; two classes on the grid, two on the pole
    assert "seed 7" in hovered(tab, dots.last)
    text = hovered(tab, frontier.locator(".mark-symbol path").nth(1))
    assert "coefficient 1" in text and "taken by interpolation –" in text  # unknown here
    assert tab.asked == [] and tab.wrong == []


def test_tables_are_filtered_searched_and_sorted(board, tmp_path, browser):
    path = leaderboard.write_leaderboard_page(board, tmp_path / "index.html", "entrob report x")
    tab = opened(browser, path)
    cells, info = tab.locator("#table-cells"), tab.locator("#table-cells_info")
    whole = info.inner_text()
    for name, value in (
        ("task", "pole"),
        ("family", "intrinsic"),
        ("class", "dynamics"),
        ("magnitude", "2"),
        ("perturbation", "wall"),
        ("method", "dear"),
    ):
        # The list at the head of a column; its choice is taken back at the end.
        head(cells, name).locator(".dtcc-button").last.click()
        choice = tab.locator(f".dtcc-list-buttons button[aria-label='{value}']")
        choice.click()
        until(tab, lambda x=name, y=value: set(column(cells, x)) == {y})
        assert info.inner_text() != whole
        choice.click()
        tab.keyboard.press("Escape")
        until(tab, lambda: info.inner_text() == whole)
    tab.locator("#table-cells_wrapper input[type=search]").first.fill("gravity")
    until(tab, lambda: set(column(cells, "perturbation")) == {"gravity"})
    # Numbers are sorted as numbers, also those with a mark behind them, and intervals.
    ranking = tab.locator("#table-ranking")
    for name in ("price", "overall R", "routes", "dynamics", "95 %", "ranks"):
        found = [number(text) for text in column(ranking, name)]
        assert len(set(found)) > 2
        for order in ("descending", "ascending"):
            head(ranking, name).locator(".dtcc-button").first.click()
            wanted = sorted(found, reverse=order == "descending")
            until(tab, lambda x=name, y=wanted: [number(z) for z in column(ranking, x)] == y)
            assert head(ranking, name).get_attribute("aria-sort") == order
    assert any("•" in text for text in column(ranking, "routes"))


def test_what_is_saved_is_the_table(board, tmp_path, browser):
    more = pd.concat([board.tuning, board.tuning.assign(seed=board.tuning.seed + 2)])
    tuning = pd.concat([more.assign(task=f"t{i}", nominal=1 / (3 + i)) for i in range(99)])
    path = tmp_path / "index.html"
    leaderboard.write_leaderboard_page(board._replace(tuning=tuning), path, "entrob report x")
    tab = opened(browser, path)
    with tab.expect_download() as saved:
        tab.locator("a[download='scores.csv']").click()
    pd.testing.assert_frame_equal(pd.read_csv(saved.value.path()), board.scores)
    with tab.expect_download() as saved:
        tab.locator("a[download='tuning.csv.gz']").click()
    text = gzip.decompress(Path(saved.value.path()).read_bytes())
    pd.testing.assert_frame_equal(
        pd.read_csv(io.BytesIO(text)), tuning.reset_index(drop=True), check_dtype=False
    )


def stretched(board, columns):
    """The board with so many perturbations in each of the classes, all as its wall."""
    scores, cells = [board.scores[board.scores.perturbation == "nominal"]], []
    for category in boards.CLASSES:
        for number in range(columns):
            name = f"{category}_{number}".replace(" ", "_")
            wall = board.scores[board.scores.perturbation == "wall"]
            scores.append(wall.assign(perturbation=name))
            wall = board.cells[board.cells.perturbation == "wall"]
            cells.append(wall.assign(perturbation=name, category=category))
    cells = boards.weighted(pd.concat(cells, ignore_index=True))
    scores = pd.concat(scores, ignore_index=True)
    return board._replace(scores=scores[scores.task == "grid"], cells=cells)


@pytest.mark.parametrize("columns", [1, 2, 5])
def test_class_names_stand_over_their_columns(board, columns, tmp_path, browser):
    path = tmp_path / "index.html"
    leaderboard.write_leaderboard_page(stretched(board, columns), path, "entrob report x")
    for width in (1280, 390):
        tab = opened(browser, path, width=width)
        chart = tab.locator("#gain-under-every-perturbation .chart")
        for name in boards.CLASSES:
            boxes = chart.locator(f".mark-rect path[aria-label*='class: {name};']")
            boxes = pd.DataFrame([box.bounding_box() for box in boxes.all()])
            title = chart.locator("text").get_by_text(name, exact=True).bounding_box()
            # The text rises to the right of its lower left corner.
            left, right = boxes.x.min(), (boxes.x + boxes.width).max()
            assert boxes.x.nunique() == columns
            assert left <= title["x"] + 5 <= right, (name, width)
            above = boxes.y.min() - (title["y"] + title["height"])
            assert -3 <= above <= 12, (name, width)
        tab.context.close()


def test_a_page_reaches_nothing(tmp_path, browser, asked):
    """Online, with a server beside it: the page's own policy refuses every kind of request."""
    base, paths = asked
    bare = tmp_path / "bare.html"
    bare.write_text("<p>A page without a policy.</p>")
    path = write_page(Page("T", "", (), (Section("S", ()),), "x"), tmp_path / "index.html")
    tab = browser.new_page()
    tab.goto(bare.as_uri())
    tab.evaluate(ASKING, base)
    kinds = {"fetched", "requested", "img", "script", "link", "iframe"}
    assert kinds <= set(paths)
    paths.clear()
    tab.goto(path.as_uri())
    fetched, requested, *_ = tab.evaluate(ASKING, base)
    assert fetched["status"] == requested["status"] == "rejected" and paths == []
    tab.close()


def test_a_chart_reaches_nothing(tmp_path, browser, asked):
    """Data by an address are not loaded, and an image is not shown."""
    base, paths = asked
    spec = {"data": {"url": f"{base}data"}, "mark": {"type": "image", "url": f"{base}image"}}
    chart = Chart(spec | {"encoding": {"x": {"field": "a", "type": "quantitative"}}})
    path = write_page(Page("T", "", (), (Section("S", (chart,)),), "x"), tmp_path / "index.html")
    tab = browser.new_page()
    tab.goto(path.as_uri())
    tab.wait_for_function("document.querySelector('.chart[data-drawn]')")
    tab.wait_for_timeout(500)
    assert paths == []
    tab.close()


def test_an_experiment_is_used(make_frames, make_traces, manifests, tmp_path, browser):
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
    # Hover: seeds, claims, curves (the nearest point), places and paths, each with its numbers.
    figure = "#success-within-so-many-steps-the-paper-s-figure-4"
    for place, words in (
        ("#success .mark-symbol path[aria-label*='seed']", ("method none", "seed ", "score ")),
        ("#beside-the-paper .mark-symbol path", ("the paper's order state ≫", "ours 0", "pairs 6")),
        (f"{figure} .chart", ("method ", "horizon (steps) ", "success ", "interval [", "seeds 6")),
        ("figure.slid .chart", ("method ", "wall length (cells) ", "interval [")),
        ("#training .chart", ("method ", "frames (millions) ", "success rate 0.", "interval [")),
        ("#occupancy .mark-rect path", ("share of steps 0.04",)),
        ("#trajectories .chart", ("episode ", "step ", "x 0.", "y ")),
    ):
        text = hovered(tab, tab.locator(place).first)
        assert all(word in text for word in words), (place, text)
    assert tab.asked == [] and tab.wrong == []


@pytest.mark.parametrize(
    "folder", ["minigrid/paper", "theory", "pusher/paper", "leaderboard/standard"]
)
def test_exports_become_pages(folder, tmp_path, browser):
    target = tmp_path / "export"
    shutil.copytree(RESULTS / folder, target)
    main(["report", str(target), "--html"])
    path = target / "index.html"
    assert path.stat().st_size < 4_000_000
    used_alike(browser, path)
    text = path.read_text()
    assert str(tmp_path) not in text
    for name in (target / "tables").glob("*.csv"):
        assert f'download="{name.stem}.csv' in text
