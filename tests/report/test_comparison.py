"""Bars, training curves and trajectories: ours and the paper's numbers, the scene, whose traces."""

import dataclasses

import numpy as np
import pytest
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex
from matplotlib.patches import Circle, Rectangle

from entrob.report import experiment
from entrob.report.figures import comparison, drawing, trajectories
from entrob.report.figures import success as success_figures
from entrob.report.paper import Number, Paper
from entrob.statistics import aggregate, intervals

PUSHER = {"wall": (0, 1, 2), "goal_shift": (0, 0.15), "puck_mass": (0, 3)}
METHODS = ["none", "policy_entropy", "state_entropy"]
BLOCKS = [[0.52, -0.24, 0.015, 0.015], [0.55, -0.21, 0.015, 0.015]]
SCENES = {
    "nominal": {"magnitude": 0.0, "blocks": [], "goals": [[0.45, -0.05]], "radius": 0.1},
    "wall": {"magnitude": 1.0, "blocks": BLOCKS, "goals": [[0.45, -0.05]], "radius": 0.1},
    "goal_shift": {"magnitude": 0.15, "blocks": [], "goals": [[0.6, -0.05], [0.3, -0.05]]},
}


@pytest.fixture
def frames(make_frames):
    return make_frames(perturbations=PUSHER, exact=False, seeds=range(4))


def groups(axis):
    """What the bars of an axis stand for: title -> heights, left to right."""
    ticks = zip(axis.get_xticks(), [t.get_text() for t in axis.get_xticklabels()], strict=True)
    patches = [p for p in axis.patches if isinstance(p, Rectangle)]
    return {
        title: [p.get_height() for p in patches if abs(p.get_x() + p.get_width() / 2 - x) < 0.5]
        for x, title in ticks
    }


def marks(axis):
    """The paper's numbers of an axis: rounded (mean, band) by color; band 0 without a bar."""
    found = {}
    for container in axis.containers:
        if getattr(container, "has_yerr", None) is None or container[0] is None:
            continue
        line = container[0]
        if line.get_marker() != drawing.PAPER_MARK["marker"]:
            continue
        band = np.ptp(container[2][0].get_segments()[0][:, 1]) / 2 if container[2] else 0
        found.setdefault(to_hex(line.get_color()), []).append(
            (round(line.get_ydata()[0], 4), round(float(band), 4))
        )
    return found


def legend_texts(figure):
    return [text.get_text() for legend in figure.legends for text in legend.texts]


def test_bars_are_ours_and_marks_the_papers(frames, pusher):
    runs, _, evaluation = frames
    figure = comparison.bars(runs, evaluation, pusher, level=0.95)
    (axis,) = figure.axes
    drawn = groups(axis)
    assert list(drawn) == ["nominal", "wall\n1", "goal shift\n0.15", "puck mass\n3"]
    at = evaluation.query("perturbation == 'wall' and magnitude == 1").groupby("method")["success"]
    np.testing.assert_allclose(drawn["wall\n1"], at.mean()[METHODS])
    assert drawn["nominal"] == [1, 1, 1]
    band = aggregate.normal_quantile(0.95) * 0.317 / np.sqrt(20)
    blue = marks(axis)[drawing.COLORS["state_entropy"]]
    assert blue[0][0] == 0.947 and blue[1] == (0.363, round(band, 4)) and len(blue) == 2
    texts = legend_texts(figure)
    assert "none, n = 4 seeds; paper 17–19" in texts
    assert "state entropy, n = 4 seeds; paper 20" in texts
    note = figure.legends[0].get_title().get_text()
    assert "95 % t interval" in note and "3,000,000 frames" in note
    assert "paper 5,000,000 frames and 200 episodes" in note


def test_bars_only_quote_the_paper_at_its_own_magnitude(make_frames, pusher):
    runs, _, evaluation = make_frames(perturbations={"wall": (0, 2)}, exact=False)
    (axis,) = comparison.bars(runs, evaluation, pusher).axes
    assert list(groups(axis)) == ["nominal", "wall\n2"]
    assert {len(found) for found in marks(axis).values()} == {1}  # the nominal one
    assert not marks(comparison.bars(runs, evaluation, Paper()).axes[0])


def test_bars_of_one_seed_and_of_numbers_without_spread(make_frames, pusher):
    runs, _, evaluation = make_frames(perturbations=PUSHER, exact=False, seeds=[3])
    paper = dataclasses.replace(pusher, numbers={"none": {"wall": Number(0.17)}})
    figure = comparison.bars(runs, evaluation, paper)
    assert marks(figure.axes[0]) == {drawing.COLORS["none"]: [(0.17, 0)]}
    assert "none, n = 1 seed; paper ?" in legend_texts(figure)


def test_many_methods_take_more_lines_and_keep_their_colors(make_frames):
    methods = tuple(f"method {i}" for i in range(8))
    rates = dict.fromkeys(reversed(methods), 0.5)
    runs, _, evaluation = make_frames(rates=rates, seeds=[0], perturbations=PUSHER)
    figure = comparison.bars(runs, evaluation, Paper(methods=methods))
    assert [len(groups(axis)) for axis in figure.axes] == [4]
    looks = [drawing.style(method, methods) for method in methods]
    assert len({look["color"] for look in looks}) == 8 == len({look["marker"] for look in looks})
    more = {**PUSHER, "slip": (0, 0.1), "joint_range": (0, 0.2)}
    runs, _, evaluation = make_frames(rates=rates, seeds=[0], perturbations=more)
    figure = comparison.bars(runs, evaluation, Paper(methods=methods))
    assert [len(groups(axis)) for axis in figure.axes] == [3, 3]


def test_training_draws_what_was_recorded(frames, pusher):
    runs, curves, _ = frames
    figure = comparison.training(runs, curves, pusher)
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == list(comparison.CURVES.values())
    entropy = figure.axes[2].lines[0]
    expected = curves.query("method == 'none'").groupby("frames")["policy_entropy"].mean()
    np.testing.assert_allclose(entropy.get_xdata(), expected.index / 1e6)
    np.testing.assert_allclose(entropy.get_ydata(), expected)
    figure = comparison.training(runs, curves[["run_id", "method", "frames", "success"]], pusher)
    assert [axis.get_title() for axis in figure.axes] == ["success rate"]
    assert comparison.training(runs, curves.iloc[:0], pusher) is None


def test_magnitudes_have_units_and_the_papers_numbers(frames, pusher):
    runs, curves, evaluation = frames
    figure = success_figures.robustness_curves(runs, evaluation, pusher)
    labels = {axis.get_title(): axis.get_xlabel() for axis in figure.axes}
    assert labels["wall"] == "block width (paper's = 1)"
    assert labels["goal shift"] == "goal radius (m)"
    wall = next(axis for axis in figure.axes if axis.get_title() == "wall")
    assert {found[0][0] for found in marks(wall).values()} == {0.005, 0.03, 0.363}
    horizon = success_figures.horizon_figure(runs, curves, evaluation, pusher)
    titles = [axis.get_title() for axis in horizon.axes if "magnitude" in axis.get_title()]
    assert titles == ["wall, magnitude 1", "goal shift, magnitude 0.15"]


TRACED = [("wall", 0), ("wall", 1), ("goal_shift", 0.15), ("puck_mass", 3)]


def draw(frames, traces, paper, scenes=SCENES, **kwargs):
    runs, _, evaluation = frames
    return trajectories.trajectories(runs, evaluation, traces, paper, scenes, **kwargs)


def paths(axis):
    return next(c.get_segments() for c in axis.collections if isinstance(c, LineCollection))


def test_trajectories_over_their_scene(frames, make_traces, pusher):
    traces = make_traces(frames[0], TRACED, share=20)
    figure = draw(frames, traces, pusher)
    grid = np.reshape(figure.axes, (3, 3))
    assert [axis.get_title().split("\n")[0] for axis in grid[0]] == [
        "nominal",
        "wall 1",
        "goal shift 0.15",  # and not the puck's mass, of which the paper says nothing
    ]
    assert [row[0].get_ylabel().split("\n")[0] for row in grid] == list(map(drawing.label, METHODS))
    assert all(len(paths(axis)) == 50 for axis in grid.ravel())
    kinds = [[type(patch) for patch in axis.patches] for axis in grid[0]]
    assert kinds == [[Circle], [Rectangle, Rectangle, Circle], []]
    corner = grid[1, 1].patches[0]
    np.testing.assert_allclose(corner.get_bbox().bounds, (0.505, -0.255, 0.03, 0.03))
    wall = frames[2].query("perturbation == 'wall' and magnitude == 1 and method == 'none'")
    assert f"success {wall['success'].mean():.2f}" in grid[0, 1].get_title()
    first = traces.query("method == 'none' and magnitude == 1 and seed == 0")["points"].iloc[0]
    np.testing.assert_allclose(paths(grid[0, 1])[0], first.reshape(-1, 2))


def test_trajectories_are_spread_over_seeds(frames, make_traces, pusher):
    traces = make_traces(frames[0], [("wall", 1)], share=30)
    rows = traces.query("method == 'none'")
    drawn = trajectories.spread(rows)
    seeds = [int(rows.loc[[p is q for q in rows["points"]], "seed"].iloc[0]) for p in drawn]
    assert len(drawn) == 50 and seeds[:4] == [0, 1, 2, 3]
    assert max(map(seeds.count, range(4))) - min(map(seeds.count, range(4))) <= 1


def test_trajectories_without_scene_paper_or_traces(frames, make_traces, pusher):
    traces = make_traces(frames[0], TRACED[1:], share=3)
    figure = draw(frames, traces, Paper(), scenes=None, axes_names=("x", "z"))
    assert len(figure.axes) == 3 * 3 and not any(axis.patches for axis in figure.axes)
    assert figure.axes[0].get_ylabel() == "none\nz (m)"
    # A scene of another magnitude is not the one that the body moved in.
    moved = {"wall": {**SCENES["wall"], "magnitude": 2.0}}
    assert not any(axis.patches for axis in draw(frames, traces, pusher, moved).axes)
    assert draw(frames, traces.iloc[:0], pusher) is None


def test_diverged_runs_leave_no_trace(make_frames, make_traces, pusher):
    frames = make_frames(perturbations=PUSHER, seeds=range(2), diverged=[("none", 0)])
    figure = draw(frames, make_traces(frames[0], TRACED, share=4), pusher)
    assert [len(paths(axis)) for axis in figure.axes[:6]] == [4, 4, 4, 8, 8, 8]


def test_a_long_track_is_not_drawn_to_scale(frames, make_traces, pusher):
    traces = make_traces(frames[0], [("wall", 1)], share=2)
    assert draw(frames, traces, pusher, {}).axes[0].get_aspect() == 1
    long = traces.assign(points=[p * np.tile([20, 1], len(p) // 2) for p in traces["points"]])
    assert draw(frames, long, pusher, {}).axes[0].get_aspect() == "auto"


@pytest.mark.slow  # its parts are drawn above, whole reports in test_report.py
def test_the_report_of_a_continuous_task(make_frames, make_traces, manifests, tmp_path, recwarn):
    few = {"wall": (0, 1)}
    runs, curves, evaluation = make_frames(perturbations=few, exact=False, seeds=range(2))
    manifest = {"experiment": "pusher", **manifests("pusher"), "scenes": SCENES}
    traces = make_traces(runs, TRACED, share=2)
    page = experiment.write_report(tmp_path, runs, curves, evaluation, manifest, traces=traces)
    text = page.read_text()
    order = ["numbers", "bars", "horizon", "trajectories", "training", "robustness"]
    places = [text.index(f"figures/{name}.png") for name in order[1:]]
    assert places == sorted(places) and "| wall | 1 | state_entropy |" in text
    assert "Paper: 25 seeds, 200 test episodes each, 5,000,000 frames." in text
    written = {path.stem for path in (tmp_path / "tables").iterdir()}
    assert written == {"numbers", "nominal", "success", "robustness", "difference", "measures"}
    files = {path.name for path in (tmp_path / "figures").glob("trajectories.*")}
    assert files == {"trajectories.png", "trajectories.pdf"}
    assert not [str(warning.message) for warning in recwarn]


@pytest.mark.parametrize(
    ("relation", "low", "high", "expected"),
    [
        (">", 0.01, 0.3, "agrees"),
        ("≫", 0.01, 0.3, "agrees"),
        (">", -0.01, 0.3, "undecided"),
        (">", -0.3, -0.01, "disagrees"),
        ("≥", -0.04, 0.3, "agrees"),
        ("≥", -0.06, 0.3, "undecided"),
        ("≥", -0.04, -0.01, "agrees"),  # missed by less than the margin
        ("≥", -0.3, -0.06, "disagrees"),
        ("≥", -0.3, -0.04, "undecided"),
        (">", np.nan, np.nan, "undecided"),
        ("", 0.1, 0.3, "no claim"),
    ],
)
def test_verdicts(relation, low, high, expected):
    found = intervals.PairedDifference((low + high) / 2, low, high, 10)
    assert comparison.verdict(relation, found) == expected


def test_bars_show_every_seed_and_intervals_within_rates(make_frames, pusher):
    runs, _, evaluation = make_frames(perturbations={"wall": (0, 1)}, exact=False, seeds=range(3))
    rows = (evaluation.method == "none") & (evaluation.magnitude == 1)
    evaluation.loc[rows, "success"] = [0.0, 0.1, 0.9]
    (axis,) = comparison.bars(runs, evaluation, pusher).axes
    dots = [c.get_offsets()[:, 1] for c in axis.collections if isinstance(c, PathCollection)]
    assert [0.0, 0.1, 0.9] in [sorted(y.tolist()) for y in dots] and len(dots) == 6
    bars = [c for c in axis.collections if isinstance(c, LineCollection)]
    ends = np.concatenate([segment[:, 1] for bar in bars for segment in bar.get_segments()])
    assert ends.min() >= 0 and ends.max() == 1 and np.isfinite(ends).all()
