"""Figures and the report: what is drawn and claimed, and that odd records do not break it."""

import re

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb

from entrob.report import experiment, tables
from entrob.report.figures import comparison, drawing
from entrob.report.figures import success as success_figures
from entrob.report.figures.leaderboard import FAMILIES
from entrob.report.paper import Paper

METHODS = ["none", "policy_entropy", "state_entropy"]


def axes_titled(figure, text):
    """The axes whose title holds a text."""
    return [axis for axis in figure.axes if text in axis.get_title()]


def test_success_by_horizon(make_frames):
    _, _, evaluation = make_frames(seeds=[0, 1], perturbations={"wall": (6,)})
    rates = success_figures.success_by_horizon(evaluation)
    assert rates.shape == (6, 200)
    np.testing.assert_allclose(rates[:, -1], evaluation["success"], atol=1e-12)
    histogram = evaluation["steps_to_success"].iloc[0]
    assert rates[0, 59] == histogram[:60].sum() / 40
    assert (np.diff(rates, axis=1) >= 0).all()


def test_horizon_figure_draws_the_numbers(make_frames, minigrid):
    runs, curves, evaluation = make_frames()
    figure = success_figures.horizon_figure(runs, curves, evaluation, minigrid)
    titles = "\n".join(axis.get_title() for axis in figure.axes)
    for name in ("wall", "random_walls", "goal_shift", "elbow"):
        assert f"paper: {minigrid.order(name)}" in titles
    assert "slip" not in titles
    (wall,) = axes_titled(figure, "wall, magnitude 6")
    assert wall.get_ylim() == (0, 1) and wall.get_xlim() == (1, 200)
    rows = evaluation.query("perturbation == 'wall' and magnitude == 6 and method == 'none'")
    x, y = wall.lines[0].get_data()
    np.testing.assert_array_equal(x, np.arange(1, 201))
    np.testing.assert_allclose(y, success_figures.success_by_horizon(rows).mean(axis=0))
    (training,) = axes_titled(figure, "training")
    assert "million" in training.get_xlabel() and training.lines[0].get_xdata()[-1] == 3
    texts = "\n".join(text.get_text() for axis in figure.axes for text in axis.texts)
    assert "n = 8 seeds × 40 instances" in texts and "96 % t interval" in texts
    assert "shaded: 95 % t interval" in "\n".join(
        text.get_text()
        for axis in success_figures.horizon_figure(
            runs, curves, evaluation, minigrid, level=0.95
        ).axes
        for text in axis.texts
    )


def test_bands_end_where_rates_do(make_frames, minigrid):
    runs, curves, evaluation = make_frames(rates={"none": 0.97}, seeds=range(4), spread=0.3)
    figure = success_figures.horizon_figure(runs, curves, evaluation, minigrid)
    bands = [
        axis.collections[0].get_paths()[0].vertices[:, 1]
        for axis in axes_titled(figure, "magnitude")
    ]
    assert max(band.max() for band in bands) == 1 and min(band.min() for band in bands) >= 0


def test_diverged_runs_are_not_drawn(make_frames, minigrid):
    runs, curves, evaluation = make_frames(diverged=[("none", 0)])
    figure = success_figures.horizon_figure(runs, curves, evaluation, minigrid)
    rows = evaluation.query(
        "perturbation == 'elbow' and magnitude == 5 and method == 'none' and seed > 0"
    )
    (elbow,) = axes_titled(figure, "elbow")
    expected = success_figures.success_by_horizon(rows).mean(axis=0)
    np.testing.assert_allclose(elbow.lines[0].get_ydata(), expected)
    labels = [
        text.get_text() for axis in figure.axes if axis.legend_ for text in axis.legend_.texts
    ]
    assert "none, n = 7 seeds (1 diverged, left out)" in labels


def test_style_is_fixed_and_variants_are_dashed():
    methods = [*METHODS, "state_entropy[paper]", "state_entropy[reference]", "new"]
    looks = {name: drawing.style(name, methods) for name in methods}
    assert looks["none"] == drawing.style("none", ["none"])
    assert looks["none"]["color"] == drawing.COLORS["none"]
    assert looks["state_entropy[paper]"]["color"] == looks["state_entropy"]["color"]
    dashes = [looks[f"state_entropy{end}"]["linestyle"] for end in ("", "[paper]", "[reference]")]
    assert dashes[0] == "-" and len({str(dash) for dash in dashes}) == 3
    colors = {looks[name]["color"] for name in [*METHODS, "new"]}
    assert len(colors) == 4


def test_robustness_curves(make_frames, minigrid):
    runs, _, evaluation = make_frames()
    figure = success_figures.robustness_curves(runs, evaluation, minigrid)
    assert len(figure.axes) == 5 * 4 and sum(axis.axison for axis in figure.axes) == 4 * 4 + 1
    first = figure.axes[0]
    rows = evaluation.query("perturbation == 'wall' and method == 'none'")
    x, y = first.lines[0].get_data()
    np.testing.assert_array_equal(x, [0, 2, 4, 6, 8])
    np.testing.assert_allclose(y, rows.groupby("magnitude")["success"].mean())
    # Slip has no exact values: it has one panel, and no empty ones.
    assert [axis.get_title() for axis in figure.axes[16:17]] == ["slip: success, sampled"]
    assert not any(axis.texts for axis in figure.axes)
    assert first.get_xlabel() == "wall length (cells)"


def test_occupancy_heatmaps():
    walls = np.zeros((4, 6), bool)
    walls[0] = True
    uniform = np.where(walls, 0, 3.0)
    corner = np.zeros((4, 6))
    corner[3, 1] = 2
    figure = success_figures.occupancy_heatmaps(
        {"none": corner, "state_entropy": uniform}, walls, Paper()
    )
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[:2] == ["none\nentropy 0.00 nats", "state entropy\nentropy 2.89 nats"]
    image = figure.axes[0].images[0].get_array()
    assert image.shape == (6, 4) and image[1, 3] == 1  # rows are y, columns are x
    assert image.mask[:, 0].all() and not image.mask[:, 1:].any()


def test_difference_figure(make_frames, minigrid):
    runs, _, evaluation = make_frames()
    table = tables.difference_table(runs, evaluation, minigrid)
    figure = success_figures.difference_figure(table, minigrid)
    labels = [axis.get_xlabel() for axis in figure.axes]
    assert labels == [f"success less that of {name}" for name in ("none", "policy entropy")]


def test_legends_fit_into_their_figures(make_frames, minigrid):
    """Eight labels of this length did not in four columns."""
    ends = ("", "[paper]", "[reference]")
    rates = {f"{name}{end}": 0.5 for name in METHODS for end in ends}
    runs, curves, evaluation = make_frames(rates=rates, seeds=range(3))
    table = tables.difference_table(runs, evaluation, minigrid)
    for figure in (
        success_figures.robustness_curves(runs, evaluation, minigrid),
        success_figures.difference_figure(table, minigrid),
        comparison.training(runs, curves, minigrid),
        comparison.bars(runs, evaluation, minigrid),
    ):
        FigureCanvasAgg(figure).draw()
        (legend,) = figure.legends
        box = legend.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y0 >= 0
        assert {text.get_text().split(",")[0] for text in legend.texts} >= {"state entropy (paper)"}


def test_the_lead_figure_has_no_variants(make_frames, minigrid):
    rates = {name + end: 0.5 for name in METHODS for end in ("", "[paper]")}
    frames = make_frames(rates=rates, seeds=range(3))
    count = lambda figure: len(axes_titled(figure, "wall, magnitude 6")[0].lines)
    assert count(success_figures.horizon_figure(*frames, minigrid)) == 3
    assert count(success_figures.horizon_figure(*frames, minigrid, variants=True)) == 6


def test_one_cell_does_not_darken_all_panels():
    walls = np.zeros((10, 10), bool)
    spread, waits = np.ones((10, 10)), np.ones((10, 10))
    waits[0, 0] = 10_000
    maps = {"none": waits, "state_entropy": spread}
    figure = success_figures.occupancy_heatmaps(maps, walls, Paper())
    assert figure.axes[1].images[0].norm.vmax == pytest.approx(0.01)
    assert figure.axes[0].images[0].norm.vmax == pytest.approx(0.01)


def _seen(color, matrix):
    """A color as the color-blind see it (Viénot, Brettel and Mollon 1999), then in CIE L*a*b*."""
    linear = np.array(to_rgb(color)) ** 2.2
    rgb = np.clip(matrix @ linear, 0, 1)
    xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]] @ rgb
    f = np.cbrt(xyz / [0.9505, 1, 1.089])
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


PROTAN = np.array([[0.1121, 0.8853, -0.0005], [0.1127, 0.8897, -0.0001], [0.0045, 0.0, 1.0019]])
DEUTAN = np.array([[0.2920, 0.7054, -0.0003], [0.2934, 0.7089, 0.0], [-0.0210, 0.0256, 1.0]])


@pytest.mark.parametrize("matrix", [PROTAN, DEUTAN], ids=["protan", "deutan"])
def test_colors_are_told_apart_by_the_color_blind(matrix):
    gray, green = (_seen(color, matrix) for color in ("#7a7a7a", "#009e73"))
    before = np.linalg.norm(gray - green)  # too close, as it was
    for colors in (
        [*drawing.COLORS.values(), "#009e73"],
        [color for name, (_, color, _) in FAMILIES.items() if name != "others"],
    ):
        seen = [_seen(color, matrix) for color in colors]
        least = min(np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i])
        assert least > before


def test_drawing_leaves_the_users_settings_alone(make_frames, minigrid):
    before = dict(matplotlib.rcParams)
    success_figures.horizon_figure(*make_frames(seeds=[0, 1]), minigrid)
    assert dict(matplotlib.rcParams) == before


def verdicts(make_frames, minigrid, **kwargs):
    """{(perturbation, first, second): verdict}"""
    runs, _, evaluation = make_frames(**kwargs)
    table = experiment.paper_table(runs, evaluation, minigrid)
    keys = zip(table["perturbation"], table["first"], table["second"], strict=True)
    return dict(zip(keys, table["verdict"], strict=True))


def test_paper_table_verdicts(make_frames, minigrid):
    found = verdicts(make_frames, minigrid)
    assert found["wall", "state_entropy", "policy_entropy"] == "agrees"
    assert found["random_walls", "policy_entropy", "state_entropy"] == "disagrees"
    assert found["wall", "policy_entropy", "none"] == "no claim"
    assert {v for key, v in found.items() if key[0] == "elbow"} == {"no claim"}
    assert "slip" not in {key[0] for key in found}
    assert len(found) == 4 * 3
    few = verdicts(make_frames, minigrid, seeds=range(3))
    assert set(few.values()) == {"undecided", "no claim"}


def test_paper_table_ties_are_undecided(make_frames, minigrid):
    runs, _, evaluation = make_frames()
    evaluation["success"] = 0.5
    claimed = experiment.paper_table(runs, evaluation, minigrid).query("verdict != 'no claim'")
    assert set(claimed["verdict"]) == {"undecided"} and set(claimed["difference"]) == {0.0}


def test_paper_table_compares_variants_among_themselves(make_frames, minigrid):
    rates = {"none": 0.1, "policy_entropy": 0.3, "state_entropy": 0.8}
    rates |= {"policy_entropy[paper]": 0.9, "state_entropy[paper]": 0.4}
    found = verdicts(make_frames, minigrid, rates=rates)
    assert found["wall", "state_entropy[paper]", "policy_entropy[paper]"] == "disagrees"
    assert found["wall", "state_entropy[paper]", "none"] == "agrees"
    assert ("wall", "state_entropy", "policy_entropy[paper]") not in found
    assert len(found) == 2 * 4 * 3


@pytest.mark.parametrize("name", ["minigrid", "minigrid_fidelity"])
def test_claims_follow_the_printed_orders(manifests, name):
    paper = Paper.read(manifests(name))
    words = {"none": "none", "policy_entropy": "policy", "state_entropy": "state"}
    assert paper.compared == tuple(words) and paper.figure == 4 and paper.seeds == 25
    assert set(paper.claims) == set(paper.orders) < set(paper.magnitudes)
    assert paper.magnitudes == {"wall": 6, "random_walls": 7, "goal_shift": 7, "elbow": 5}
    assert sum(map(len, paper.claims.values())) == 8
    for perturbation, claims in paper.claims.items():
        for better, relation, worse in claims:
            order = paper.orders[perturbation]
            assert relation in order[order.index(words[better]) : order.index(words[worse])]


def test_no_facts_are_no_facts(make_frames):
    runs, _, evaluation = make_frames()
    assert Paper.read({}) == Paper() and Paper.read({"paper": {}}) == Paper()
    assert Paper.read({"paper": {"what a later version knows": 1, "seeds": 3}}).seeds == 3
    assert experiment.paper_table(runs, evaluation, Paper()).empty


@pytest.mark.parametrize(
    "kwargs",
    [
        {"diverged": [("none", 0)], "perturbations": {"wall": (0, 6)}},
        {"rates": {"state_entropy": 0.7}, "perturbations": {"slip": (0.3,)}},
        {"seeds": [4], "perturbations": {"wall": (6,)}},
        {"diverged": [(method, seed) for method in METHODS for seed in range(8)]},
    ],
    ids=["diverged", "one-method-diffuse", "one-seed-one-magnitude", "all-diverged"],
)
def test_write_report(make_frames, manifests, tmp_path, kwargs, recwarn):
    runs, curves, evaluation = make_frames(**kwargs)
    manifest = {"experiment": "minigrid", "preset": "smoke", "versions": {"jax": "0.10.2"}}
    manifest |= {"paper": manifests("minigrid")["paper"]}
    path = experiment.write_report(tmp_path, runs, curves, evaluation, manifest)
    page = path.read_text(encoding="utf-8")
    assert page.startswith("# minigrid, preset smoke\n")
    assert "jax 0.10.2" in page and "not recorded" in page and "nan" not in page
    assert ("seed 0, at update 17: loss is NaN" in page) == bool(kwargs.get("diverged"))
    links = re.findall(r"\]\((\S+)\)", page)
    assert "figures/figure4.png" in links
    assert ("figures/training.png" in links) == ("finished" in set(runs["status"]))
    for link in links:
        assert (tmp_path / link).stat().st_size > 1000
    expected = {"nominal", "success", "robustness"}
    expected |= {"paper", "difference"} if runs["method"].nunique() > 1 else set()
    assert {path.stem for path in (tmp_path / "tables").glob("*.csv")} == expected
    assert not [str(warning.message) for warning in recwarn]


def test_report_without_evaluation(make_frames, tmp_path):
    runs, curves, evaluation = make_frames(seeds=[0, 1])
    path = experiment.write_report(tmp_path, runs, curves, evaluation.iloc[:0], {})
    page = path.read_text()
    assert "## Nominal performance" in page and "## Success" not in page
    assert "figures/horizon.png" in page and "bars.png" not in page


def test_report_is_reproducible_and_shows_occupancy(make_frames, tmp_path):
    rates = {"none": 0.1, "state_entropy": 0.8}
    frames = make_frames(rates=rates, perturbations={"wall": (0, 6)}, seeds=range(3))
    occupancy = {"occupancies": {"none": np.ones((4, 4))}, "walls": np.zeros((4, 4), bool)}
    contents = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        experiment.write_report(folder, *frames, {}, **occupancy)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        contents.append({str(path.relative_to(folder)): path.read_bytes() for path in files})
    assert contents[0] == contents[1]
    assert {"figures/occupancy.pdf", "figures/occupancy.png", "report.md"} < set(contents[0])
