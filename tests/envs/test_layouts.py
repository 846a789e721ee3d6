"""The drawn grids: their cells, and their routes as counted by flows through cells."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components, maximum_flow

from entrob.envs import make
from entrob.envs.layouts import drawn
from entrob.envs.shortest_path import UNREACHABLE, optimal_steps
from entrob.perturbations import perturb

ROUTES = {  # id: routes without a common cell, fewest actions of the shortest one
    "minigrid/two-paths": (2, 14),
    "minigrid/four-rooms": (2, 19),
    "minigrid/lava-crossing": (2, 14),
}


def graph(params):
    """Moves between free cells: (free bool[W, H], pairs of flat indices of neighbors)."""
    free = ~np.asarray(params.walls)
    free &= True if params.lava is None else ~np.asarray(params.lava)
    index = np.arange(free.size).reshape(free.shape)
    right = (free[:-1] & free[1:], index[:-1], index[1:])
    down = (free[:, :-1] & free[:, 1:], index[:, :-1], index[:, 1:])
    return free, np.concatenate([np.stack([a[ok], b[ok]], 1) for ok, a, b in (right, down)])


def disjoint_routes(params):
    """The most routes from start to goal that share no cell between them (Menger's theorem): each
    cell is an edge of capacity 1 from where it is entered to where it is left."""
    free, pairs = graph(params)
    n = free.size
    start, goal = (
        int(np.ravel_multi_index(np.asarray(pos), free.shape))
        for pos in (params.start_pos, params.goal_pos)
    )
    moves = np.concatenate([pairs, pairs[:, ::-1]])
    begin = np.concatenate([np.arange(n), moves[:, 0] + n])
    end = np.concatenate([np.arange(n) + n, moves[:, 1]])
    flow = coo_matrix((np.ones(len(begin), np.int32), (begin, end)), (2 * n, 2 * n)).tocsr()
    return maximum_flow(flow, start + n, goal).flow_value


def connected(params):
    """Whether every free cell can be reached from every other."""
    free, pairs = graph(params)
    adjacency = coo_matrix((np.ones(len(pairs)), pairs.T), (free.size, free.size))
    parts = connected_components(adjacency, directed=False)[1].reshape(free.shape)
    return len(np.unique(parts[free])) == 1


@pytest.mark.parametrize("id", ROUTES)
def test_routes(id):
    env, params = make(id)
    assert params.walls.shape == (env.width, env.height)
    assert np.asarray(params.walls)[[0, -1]].all() and np.asarray(params.walls)[:, [0, -1]].all()
    assert connected(params)
    assert (disjoint_routes(params), int(optimal_steps(params))) == ROUTES[id]


def test_a_room_has_as_many_routes_as_its_corner_has_neighbors_and_a_corridor_one():
    assert disjoint_routes(make("minigrid/empty-8x8")[1]) == 2
    assert disjoint_routes(drawn("#####\n#S G#\n#####\n#####").default_params) == 1
    assert disjoint_routes(drawn("######\n#S# G#\n######\n######").default_params) == 0


def test_a_wall_shuts_the_shorter_of_two_paths_and_leaves_the_longer():
    _, params = make("minigrid/two-paths")
    keys = jax.random.split(jax.random.key(0), 60)

    @jax.jit
    def walled(length):
        drawn = jax.vmap(lambda key: perturb(key, params, "wall", length))(keys)
        return drawn.walls, jax.vmap(optimal_steps)(drawn)

    for length, routes in ((1, 1), (7, 1), (8, 0)):
        walls, steps = map(np.asarray, walled(length))
        columns, first = np.unique(walls[:, 1:-1, 1].argmax(1) + 1, return_index=True)
        np.testing.assert_array_equal(columns, range(2, 8))
        for i in first:
            assert disjoint_routes(params.replace(walls=walls[i])) == routes
        assert (steps >= (20 if routes else UNREACHABLE)).all()


def test_the_doors_of_the_four_rooms():
    walls = np.asarray(make("minigrid/four-rooms")[1].walls)
    between = {(9, y) for y in range(1, 18)} | {(x, 9) for x in range(1, 18)}
    doors = {(9, 6), (9, 12), (6, 9), (12, 9)}
    assert {cell for cell in between if not walls[cell]} == doors
    assert not np.delete(np.delete(walls[1:-1, 1:-1], 8, 0), 8, 1).any()


def test_lava_is_drawn_where_it_is_and_nowhere_else():
    _, params = make("minigrid/lava-crossing")
    assert {tuple(c) for c in np.argwhere(params.lava).tolist()} == {
        (x, y) for x in (1, 4, 7) for y in (3, 5)
    }
    assert not (params.walls & params.lava).any()
    assert make("minigrid/two-paths")[1].lava is None


def test_a_drawing_is_read_by_column_and_row():
    env = drawn("######\n#  G~#\n#S # #\n######", max_steps=7)
    params = env.default_params
    assert (env.width, env.height, int(params.max_steps_in_episode)) == (6, 4, 7)
    np.testing.assert_array_equal(params.start_pos, [1, 2])
    np.testing.assert_array_equal(params.goal_pos, [3, 1])
    assert params.walls[3, 2] and params.walls.sum() == 17 and params.lava[4, 1]
    assert params.lava.sum() == 1 and params.start_dir == 0
    assert params.start_pos.dtype == jnp.int32


@pytest.mark.parametrize(
    ("drawing", "message"),
    [
        ("####\n#SG#\n###", "rows of one length"),
        ("####\n#SX#\n####", "of the characters"),
        ("####\n#S #\n####", "has one G, not 0"),
        ("#####\n#SGS#\n#####", "has one S, not 2"),
    ],
)
def test_a_drawing_that_is_none(drawing, message):
    with pytest.raises(ValueError, match=message):
        drawn(drawing)
