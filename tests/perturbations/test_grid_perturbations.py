"""The layouts: the paper's cells, distributions, nested instances, and what is never covered."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from optimized import OPTIMIZED
from scipy import stats

from entrob.envs import make
from entrob.envs.layouts import drawn
from entrob.envs.minigrid import empty_params
from entrob.envs.shortest_path import UNREACHABLE, closed, optimal_steps, shortest_path
from entrob.errors import EntrobError
from entrob.perturbations import compose, instance_keys, perturb, perturbations

NAMES = ("wall", "elbow", "goal_shift", "start_shift", "random_walls", "blocked_route")
ROOM = empty_params(10, 10)
SIZES = [(10, 10), (14, 12), (6, 9), (5, 4)]
ROUTES = ("minigrid/two-paths", "minigrid/four-rooms", "minigrid/lava-crossing")

#: Layouts that a program draws; fewer where each takes many shortest routes.
MANY, FEW = 400, 60


def slow(name):
    return name.startswith("blocked_route")


def count_of(name):
    return FEW if slow(name) else MANY


@functools.cache
def program(name, in_axes):
    """``(keys, params, magnitude) -> params``; optimized if it runs longer than it compiles."""

    def one(key, params, magnitude):
        return perturb(jax.random.wrap_key_data(key), params, name, magnitude)

    return jax.jit(jax.vmap(one, in_axes), compiler_options=OPTIMIZED if slow(name) else {})


def draw_all(keys, params, name, magnitude):
    """Params of an instance per key, stacked, in parts of one size: so one program serves all."""
    n, size = len(keys), count_of(name)
    keys = np.resize(jax.random.key_data(keys), (-(-n // size) * size, 2))
    draw_part = program(name, (0, None, None))
    parts = [draw_part(part, params, np.float32(magnitude)) for part in keys.reshape(-1, size, 2)]
    return jax.tree.map(lambda *x: np.concatenate(x)[:n], *parts)


def draw(name, magnitude, n, params=ROOM, seed=0):
    """Params of n instances, stacked."""
    return draw_all(jax.random.split(jax.random.key(seed), n), params, name, magnitude)


def new_cells(walls, params=ROOM):
    """The set of cells that are walls and were none."""
    return {tuple(map(int, cell)) for cell in np.argwhere(np.asarray(walls & ~params.walls))}


def chebyshev(a, b):
    return np.abs(np.asarray(a) - np.asarray(b)).max(-1)


def uniform(values, expected):
    """p-value of the values being uniform over the expected ones, which must all be seen."""
    seen, counts = np.unique(np.asarray(values), axis=0, return_counts=True)
    np.testing.assert_array_equal(seen, expected)
    return stats.chisquare(counts).pvalue


def test_wall_has_the_paper_cells_and_a_uniform_column():
    drawn = draw("wall", 6, 6000)
    for walls in np.asarray(drawn.walls[:200]):
        cells = new_cells(walls)
        (x,) = {x for x, _ in cells}
        assert cells == {(x, y) for y in range(1, 7)}
    columns = np.argmax(np.asarray(drawn.walls)[:, 1:-1, 1], axis=1) + 1
    assert uniform(columns, np.arange(2, 8)) > 1e-3


def test_elbow_has_the_released_code_cells_and_a_uniform_height():
    drawn = draw("elbow", 5, 6000)
    for walls in np.asarray(drawn.walls[:200]):
        cells = new_cells(walls)
        y = min(y for _, y in cells)
        assert cells == {(5, y), (6, y), (7, y), (5, y + 1), (5, y + 2)}
    heights = np.argmax(np.asarray(drawn.walls)[:, 6, 1:-1], axis=1) + 1
    assert uniform(heights, np.arange(1, 7)) > 1e-3


def mirror_images(walls):
    """The cells of a square grid as they are and mirrored on each diagonal and on both."""
    return [walls, walls.T, walls[::-1, ::-1].T, walls[::-1, ::-1]]


def drawn_in_shares(name, magnitude, count, params=ROOM):
    """Walls of the instances of a test: bool[count, W, H]."""
    keys = instance_keys(jax.random.key(3), perturbations.get(name, params), count)
    return np.asarray(draw_all(keys, params, name, magnitude).walls)


@pytest.mark.parametrize("name", ["wall", "elbow"])
def test_a_mirrored_form_is_one_of_four_images_each_as_often(name):
    plain = {walls.tobytes() for walls in np.asarray(draw(name, 5, 500).walls)}
    counts = np.zeros(4)
    for walls in drawn_in_shares(f"{name}_mirrored", 5, 40):
        assert walls[[0, -1]].all() and walls[:, [0, -1]].all()
        fits = [np.ascontiguousarray(x).tobytes() in plain for x in mirror_images(walls)]
        counts += np.array(fits) / sum(fits)
    # An L in a corner is its own mirror image, and counts as half of either.
    np.testing.assert_allclose(counts, 10, atol=1)


def test_a_mirrored_wall_hangs_from_every_side_equally_often():
    walls = drawn_in_shares("wall_mirrored", 4, 40)[:, 1:-1, 1:-1]
    sides = [walls[:, :, 0], walls[:, 0], walls[:, :, -1], walls[:, -1]]
    assert [int(side.any(1).sum()) for side in sides] == [10] * 4


def test_a_mirrored_blocked_route_shuts_either_way_around_the_room():
    upper, lower = np.zeros((2, 10, 10), bool)
    upper[1:9, 1] = upper[8, 1:9] = True
    lower[1, 1:9] = lower[1:9, 8] = True
    new = lambda walls: walls & ~np.asarray(ROOM.walls)
    shares = []
    for name in ("blocked_route", "blocked_route_mirrored"):
        cells = new(drawn_in_shares(name, 1, 40))
        assert (cells.sum((1, 2)) == 1).all()
        shares.append([int((cells & way).any((1, 2)).sum()) for way in (upper, lower)])
    assert 0 in shares[0] and shares[1] == [20, 20]


def test_a_mirrored_form_reflects_all_that_a_layout_has():
    """Lava, start, goal and direction too: the ways that a cell of a route leaves open are those
    of the layout that is played."""
    _, params = make("minigrid/lava-crossing")
    for walls in drawn_in_shares("blocked_route_mirrored", 1, 8, params):
        (cell,) = new_cells(walls, params)
        assert not params.lava[cell]
        best = optimal_steps(params)
        assert best <= optimal_steps(params.replace(walls=jnp.asarray(walls))) < UNREACHABLE
    # On a grid that is not square, it is turned by half.
    wide = empty_params(9, 6)
    hung = drawn_in_shares("wall_mirrored", 2, 8, wide)[:, 1:-1, 1:-1]
    assert [int(hung[:, :, y].any(1).sum()) for y in (0, -1)] == [4, 4]


def test_elbow_grows_in_a_fixed_order():
    (y,) = {y for _, y in new_cells(perturb(jax.random.key(2), ROOM, "elbow", 1).walls)}
    order = [(5, y), (6, y), (7, y), (5, y + 1), (5, y + 2)]
    for size in range(6):
        assert new_cells(perturb(jax.random.key(2), ROOM, "elbow", size).walls) == set(order[:size])


def test_goal_shift_7_is_uniform_over_the_interior_except_the_start():
    goals = draw("goal_shift", 7, 6300).goal_pos
    cells = [(x, y) for x in range(1, 9) for y in range(1, 9) if (x, y) != (1, 1)]
    assert uniform(goals, cells) > 1e-3


def test_start_shift_is_uniform_over_its_radius_and_avoids_the_goal():
    near_goal = ROOM.replace(goal_pos=jnp.array([2, 2], jnp.int32))
    starts = draw("start_shift", 2, 4000, near_goal)
    cells = [(x, y) for x in range(1, 4) for y in range(1, 4) if (x, y) != (2, 2)]
    assert uniform(starts.start_pos, cells) > 1e-3
    assert (starts.start_dir == ROOM.start_dir).all()


@pytest.mark.parametrize("name", ["goal_shift", "start_shift"])
@pytest.mark.parametrize("radius", range(8))
def test_shifts_stay_within_their_radius_and_reach_it(name, radius):
    field = {"goal_shift": "goal_pos", "start_shift": "start_pos"}[name]
    distance = chebyshev(getattr(draw(name, radius, 500), field), getattr(ROOM, field))
    assert distance.max() == radius


def test_shifts_nest_a_draw_within_a_smaller_radius_is_the_draw_there():
    drawn = [np.asarray(draw("goal_shift", radius, 300).goal_pos) for radius in range(8)]
    kept = 0
    for small in range(1, 8):
        for large in range(small + 1, 8):
            inside = chebyshev(drawn[large], ROOM.goal_pos) <= small
            np.testing.assert_array_equal(drawn[large][inside], drawn[small][inside])
            kept += inside.sum()
    assert kept > 100


@pytest.mark.parametrize("name", ["wall", "elbow", "random_walls"])
def test_walls_of_a_smaller_magnitude_are_part_of_those_of_a_larger_one(name):
    high = int(perturbations.get(name).high)
    drawn = [np.asarray(draw(name, m, 50).walls) for m in range(high + 1)]
    for m in range(high):
        assert (drawn[m] <= drawn[m + 1]).all()
        assert (drawn[m + 1].sum((1, 2)) - drawn[m].sum((1, 2)) == 1).all()


def test_random_walls_are_uniform_over_the_free_cells():
    blocked = ROOM.replace(walls=ROOM.walls.at[4, 4].set(True))
    walls = np.asarray(draw("random_walls", 7, 4000, blocked).walls)
    counts = (walls & ~np.asarray(blocked.walls)).sum(0)
    free = ~np.asarray(blocked.walls)
    free[1, 1] = free[8, 8] = False
    assert counts[~free].sum() == 0
    # Seven cells of one layout exclude each other, which shrinks the variance and so the statistic.
    statistic = stats.chisquare(counts[free]).statistic / (1 - 7 / free.sum())
    assert stats.chi2.sf(statistic, free.sum() - 1) > 1e-3


@functools.cache
def crowded(size):
    """Random layouts with as many walls as there may be: (keys, params)."""
    nominal = empty_params(*size)
    dense = perturbations.get("random_walls").range(nominal)[1]

    def draw_one(key):
        moved = compose(key, nominal, [("start_shift", 1), ("goal_shift", 1)])
        return perturb(key, moved, "random_walls", dense)

    keys = jax.random.split(jax.random.key(1), MANY)
    return jax.random.key_data(keys), jax.jit(jax.vmap(draw_one))(keys)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        # Routes take long to compile: the square one and the smallest.
        pytest.param(name, size, marks=[pytest.mark.slow] * (slow(name) and size in SIZES[1:3]))
        for name in NAMES
        for size in SIZES
    ],
)
def test_start_and_goal_stay_free_apart_and_inside(name, size):
    """On random layouts of any size, whatever came before."""
    nominal, count = empty_params(*size), count_of(name)
    high = perturbations.get(name).range(nominal)[1]
    keys, params = jax.tree.map(lambda x: np.asarray(x)[:count], crowded(size))
    magnitudes = np.arange(count, dtype=np.float32) % (high + 1)
    drawn = jax.tree.map(np.asarray, program(name, (0, 0, 0))(keys, params, magnitudes))
    each = np.arange(count)
    for pos in (drawn.start_pos, drawn.goal_pos):
        assert (pos >= 1).all()
        assert (pos <= np.array(size) - 2).all()
        assert not drawn.walls[each, pos[:, 0], pos[:, 1]].any()
    assert (drawn.start_pos != drawn.goal_pos).any(-1).all()
    border = np.asarray(nominal.walls)
    assert drawn.walls[:, border].all()


def test_a_wall_leaves_out_the_cell_of_a_shifted_start():
    under = ROOM.replace(start_pos=jnp.array([4, 3], jnp.int32))
    layouts = [new_cells(walls) for walls in np.asarray(draw("wall", 6, 60, under).walls)]
    assert {(4, y) for y in (1, 2, 4, 5, 6)} in layouts
    assert not any((4, 3) in cells for cells in layouts)


def test_a_shift_with_nowhere_to_go_stays():
    boxed = ROOM.replace(walls=jnp.ones_like(ROOM.walls).at[8, 8].set(False).at[1, 1].set(False))
    assert (draw("goal_shift", 7, 20, boxed).goal_pos == 8).all()


def test_ranges_follow_the_size_of_the_grid():
    large = make("minigrid/empty-16x16")[1]
    assert {n: perturbations.get(n).range(large)[1] for n in NAMES} == {
        "wall": 16,
        "elbow": 5,
        "goal_shift": 15,
        "start_shift": 15,
        "random_walls": 80,
        "blocked_route": 4,
    }
    key = jax.random.key(0)
    assert len(new_cells(perturb(key, large, "wall", 16).walls, large)) == 16
    assert len(new_cells(perturb(key, large, "elbow", 5).walls, large)) == 5
    assert len(new_cells(perturb(key, large, "random_walls", 80).walls, large)) == 80
    with pytest.raises(EntrobError, match=r"in 0\.\.15, not 16"):
        perturb(key, large, "goal_shift", 16)


def test_a_grid_without_middle_columns_has_no_wall():
    with pytest.raises(EntrobError, match="at least 5 cells wide, not 4"):
        perturb(jax.random.key(0), empty_params(4, 8), "wall", 1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("id", ROUTES)
def test_grids_with_inner_walls_and_lava_keep_what_they_have(id, name):
    """Walls and lava stay, new walls are on free cells or lava, ends on free cells alone."""
    _, nominal = make(id)
    high, count = int(perturbations.get(name, nominal).range(nominal)[1]), count_of(name)
    for magnitude in (1, high):
        found = jax.tree.map(np.asarray, draw(name, magnitude, count, nominal))
        assert found.walls[:, np.asarray(nominal.walls)].all()
        blocked = found.walls | np.asarray(closed(nominal))
        for pos in (found.start_pos, found.goal_pos):
            assert not blocked[np.arange(count), pos[:, 0], pos[:, 1]].any()
        assert (found.start_pos != found.goal_pos).any(-1).all()
        if nominal.lava is not None:
            assert (found.lava == np.asarray(nominal.lava)).all()
            if name in ("random_walls", "blocked_route"):
                assert not (found.walls & found.lava).any()
        if name == "random_walls":
            new = found.walls.sum((1, 2)) - nominal.walls.sum()
            assert (new == magnitude).all()


@pytest.mark.parametrize("id", ["minigrid/empty-8x8", *ROUTES])
def test_blocked_routes_leave_a_way_and_are_the_shortest_one_in_turn(id):
    _, nominal = make(id)
    layouts = [draw("blocked_route", magnitude, FEW, nominal) for magnitude in range(5)]
    steps, routes = jax.jit(jax.vmap(optimal_steps)), jax.jit(jax.vmap(shortest_path))
    optimum = [np.asarray(steps(params)) for params in layouts]
    for fewer, more, before, after in zip(layouts, layouts[1:], optimum, optimum[1:]):
        assert (after < UNREACHABLE).all() and (after >= before).all()
        new = np.asarray(more.walls & ~fewer.walls)
        assert (fewer.walls <= more.walls).all() and (new.sum((1, 2)) == 1).all()
        # The new cell is one of the route that was the shortest before.
        each, x, y = np.nonzero(new)
        visited = np.asarray(routes(fewer)[1])[each]
        assert (visited == np.stack([x, y], 1)[:, None]).all(-1).any(-1).all()
    assert (optimum[4] > optimum[0]).mean() > 0.9
    if id == "minigrid/two-paths":  # some cells can be walked around, some shut the path
        assert {14, 20} <= set(optimum[1])


def test_the_blocked_cell_is_uniform_over_those_that_leave_a_way():
    """A fork: the cells before it, which all routes share, are never blocked."""
    fork = drawn("#########\n#S      #\n### ### #\n###    G#\n#########").default_params
    walls = np.asarray(draw("blocked_route", 1, 1000, fork).walls)
    cells = [max(new_cells(w, fork)) for w in walls]
    shortest = {(4, 1), (5, 1), (6, 1), (7, 1), (7, 2)}
    assert set(cells) == shortest
    assert uniform(cells, sorted(shortest)) > 1e-3


def test_a_corridor_is_not_blocked_and_a_shut_goal_not_opened():
    corridor = drawn("######\n#S  G#\n######\n######").default_params
    shut = drawn("######\n#S# G#\n######\n######").default_params
    for params in (corridor, shut):
        assert (draw("blocked_route", 4, 20, params).walls == params.walls).all()


@pytest.mark.parametrize("name", NAMES)
def test_it_reaches_observation_or_dynamics(name):
    """The perturbed params, and not the nominal ones, decide what is seen and where one goes."""
    env, params = make("minigrid/empty-8x8")
    states = env.states(params)
    step = jax.jit(jax.vmap(env.step_env, (None, 0, None, None)))
    changed = perturb(jax.random.key(0), params, name, perturbations.get(name).high)

    def outcome(params):
        seen, after, reward, *_ = step(jax.random.key(0), states, 2, params)
        began = env.reset(jax.random.key(0), params)[1]
        return {"seen": seen, "pos": after.pos, "reward": reward, "began": began.pos}

    before, after = outcome(params), outcome(changed)
    differs = {k for k in before if (np.asarray(before[k]) != np.asarray(after[k])).any()}
    walls = {"seen", "pos"}
    expected = {"goal_shift": {"seen", "reward"}, "start_shift": {"began"}}.get(name, walls)
    # A wall in front of the goal also changes which moves are paid.
    assert expected <= differs <= expected | ({"reward"} if expected == walls else set())
