"""Spatially structured perturbations of grids, and the random walls they are compared with.

They fit any params with `walls` bool[W, H] indexed [x, y], `goal_pos` and `start_pos` int[2]; all
magnitudes are in cells. Walls never cover the start or the goal, and these never move onto a wall,
onto lava or onto each other. With one key, a larger magnitude adds walls to those of a smaller one.
The four that the paper tests follow its Appendix B.2 and its released code; those that always shut
the same side of a grid have a ``_mirrored`` form, which shuts any.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from entrob.envs.shortest_path import UNREACHABLE, closed, optimal_steps, shortest_path
from entrob.envs.widening import Params
from entrob.errors import EntrobError
from entrob.perturbations.base import Apply, perturbation, perturbations, stratum

LAYOUT = ("walls", "goal_pos", "start_pos")
# The L of the released code, (x, y) offsets from its corner, in the order in which it grows.
ELBOW = np.array([(0, 0), (1, 0), (2, 0), (0, 1), (0, 2)], np.int32)

#: The most cells that `blocked_route` blocks.
MOST_BLOCKED = 4


def _shape(params: Params) -> tuple[int, int]:
    return params.walls.shape[-2:]


def _reach(params: Params) -> int:
    """The largest max-norm distance between two interior cells."""
    return max(_shape(params)) - 3


def _cells(params: Params) -> tuple[jax.Array, jax.Array]:
    """The coordinates of every cell: x int32[W, 1], y int32[1, H]."""
    width, height = _shape(params)
    return jnp.arange(width)[:, None], jnp.arange(height)[None, :]


def _at(params: Params, pos: jax.Array) -> jax.Array:
    """Where a position is: bool[W, H]."""
    x, y = _cells(params)
    return (x == pos[0]) & (y == pos[1])


def _add_walls(params: Params, walls: jax.Array) -> Params:
    """Wall up the cells of bool[W, H], the start and the goal excepted."""
    occupied = _at(params, params.start_pos) | _at(params, params.goal_pos)
    return params.replace(walls=params.walls | (walls & ~occupied))


def _ranks(key: jax.Array, params: Params) -> jax.Array:
    """A uniformly random order of all cells: int32[W, H], a permutation of 0..W*H-1."""
    shape = _shape(params)
    return jax.random.permutation(key, shape[0] * shape[1]).reshape(shape)


def _draw_near(
    key: jax.Array, params: Params, nominal: jax.Array, other: jax.Array, radius: jax.Array
) -> jax.Array:
    """A uniform free cell within a max-norm radius of `nominal`, never `other`: int[2].

    It is the first such cell in a random order of all cells, so with one key the draws at two
    radii agree whenever the farther one lies within the smaller radius.
    """
    x, y = _cells(params)
    near = jnp.maximum(abs(x - nominal[0]), abs(y - nominal[1])) <= radius
    free = ~closed(params) & ~_at(params, other)
    # The nominal cell stays a candidate whatever covers it, so that there always is one.
    candidates = (near & free) | _at(params, nominal)
    ranks = jnp.where(candidates, _ranks(key, params), params.walls.size)
    cell = jnp.stack(jnp.unravel_index(jnp.argmin(ranks), ranks.shape))
    return cell.astype(nominal.dtype)


def _reflected(params: Params, main: jax.Array, other: jax.Array) -> Params:
    """The layout mirrored on its main diagonal where `main`, on the other one where `other`.

    Of the start's direction only the turn is taken along. A grid that is not square is only turned
    by half, where `other`.
    """
    width, height = _shape(params)
    # Mirrored on both, it is turned by half.
    turn, transpose = other, (main != other) & (width == height)

    def cells(array):
        return array if array is None else _mirror(array, main, other)

    def cell(pos):
        pos = jnp.where(turn, jnp.array([width - 1, height - 1]) - pos, pos)
        return jnp.where(transpose, pos[::-1], pos).astype(pos.dtype)

    # Right, down, left, up are 0, 1, 2, 3. Not mirrored: facing one of two ways makes it a turn
    # shorter than its image, which is what mirroring is to make up for.
    facing = jnp.where(turn, (params.start_dir + 2) % 4, params.start_dir)
    return params.replace(
        walls=cells(params.walls),
        lava=cells(params.lava),
        goal_pos=cell(params.goal_pos),
        start_pos=cell(params.start_pos),
        start_dir=facing,
    )


def _mirror(array: jax.Array, main: jax.Array, other: jax.Array) -> jax.Array:
    """Cells [W, H], mirrored as by `_reflected`."""
    array = jnp.where(other, array[::-1, ::-1], array)
    square = array.shape[0] == array.shape[1]
    return jnp.where(main != other, array.T, array) if square else array


def _mirrored(walling: Apply) -> Apply:
    """What adds walls to a grid, on one that the key reflects, and which is reflected back.

    Mirrored on neither diagonal, on either or on both: each is as likely, and a test has each in a
    quarter of its instances. So a wall hangs from any side, and of two ways that are each other's
    image either is blocked: a policy gains nothing from having learned one of them.
    """

    @functools.wraps(walling)
    def mirrored(key: jax.Array, params: Params, magnitude: jax.Array) -> Params:
        quarter = jnp.floor(4 * stratum(key)).astype(jnp.int32)
        how = quarter % 2 == 1, quarter >= 2
        walls = walling(key, _reflected(params, *how), magnitude).walls
        return params.replace(walls=_mirror(walls, *how))

    return mirrored


def _register_mirrored(name: str, walling: Apply) -> None:
    """Register the ``_mirrored`` form of a perturbation of grids."""
    entry = perturbations.of(name, walling)
    perturbations.register(
        f"{name}_mirrored",
        dataclasses.replace(
            entry,
            name=f"{name}_mirrored",
            fn=_mirrored(walling),
            paper=None,
            stratified=True,
            requires=(*LAYOUT, "start_dir"),
            doc=f"{entry.doc.rstrip('.')}, the grid being reflected as the key decides.",
        ),
    )


@perturbation(
    "wall",
    category="routes",
    unit="wall length (cells)",
    high=8,
    paper=6,
    integer=True,
    requires=LAYOUT,
    limit=lambda params: _shape(params)[1] - 2,
)
def wall(key: jax.Array, params: Params, magnitude: jax.Array) -> Params:
    """A wall hanging from the top of a random column, `magnitude` cells long.

    The column is uniform over the interior ones without the first and the last (paper, B.2);
    raises `EntrobError` if the grid has none.
    """
    width, _ = _shape(params)
    if width < 5:
        raise EntrobError(f"perturbation 'wall' needs a grid at least 5 cells wide, not {width}")
    x, y = _cells(params)
    column = jax.random.randint(key, (), 2, width - 2)
    return _add_walls(params, (x == column) & (y >= 1) & (y <= magnitude))


@perturbation(
    "elbow",
    category="routes",
    unit="elbow size (cells)",
    high=5,
    paper=5,
    integer=True,
    requires=LAYOUT,
)
def elbow(key: jax.Array, params: Params, magnitude: jax.Array) -> Params:
    """The first `magnitude` cells of an L of five, right of the middle, at a random height.

    On the 8×8 interior it is the released code's: (5..7, y), (5, y+1), (5, y+2), y in 1..6. On a
    grid too small for it, the cells which fall outside are dropped.
    """
    width, height = _shape(params)
    y = jax.random.randint(key, (), 1, max(height - 3, 2))
    cells = jnp.asarray(ELBOW) + jnp.stack([width // 2, y])
    walls = jnp.zeros(_shape(params), bool)
    walls = walls.at[cells[:, 0], cells[:, 1]].set(jnp.arange(5) < magnitude, mode="drop")
    return _add_walls(params, walls)


@perturbation(
    "goal_shift",
    category="shifts",
    unit="goal radius (cells, max norm)",
    high=7,
    paper=7,
    integer=True,
    requires=LAYOUT,
    limit=_reach,
)
def goal_shift(key: jax.Array, params: Params, magnitude: jax.Array) -> Params:
    """The goal on a random free cell within max-norm distance `magnitude` of the nominal one.

    The start is excluded, the nominal goal is not: the largest radius is uniform over all interior
    cells except the start, as in the paper (B.2).
    """
    goal = _draw_near(key, params, params.goal_pos, params.start_pos, magnitude)
    return params.replace(goal_pos=goal)


@perturbation(
    "start_shift",
    category="shifts",
    unit="start radius (cells, max norm)",
    high=7,
    integer=True,
    requires=LAYOUT,
    limit=_reach,
)
def start_shift(key: jax.Array, params: Params, magnitude: jax.Array) -> Params:
    """The start on a random free cell within max-norm distance `magnitude` of the nominal one.

    The goal is excluded, the nominal start is not; the direction stays.
    """
    start = _draw_near(key, params, params.start_pos, params.goal_pos, magnitude)
    return params.replace(start_pos=start)


@perturbation(
    "random_walls",
    unit="blocked cells (count)",
    high=20,
    paper=7,
    category="random walls",
    integer=True,
    requires=LAYOUT,
    # The density of 20 walls on the paper's 64 cells.
    limit=lambda params: 20 * (_shape(params)[0] - 2) * (_shape(params)[1] - 2) // 64,
)
def random_walls(key: jax.Array, params: Params, magnitude: jax.Array) -> Params:
    """Walls on `magnitude` random free cells, without replacement, start and goal excluded."""
    ranks = _ranks(key, params)
    free = ~(closed(params) | _at(params, params.start_pos) | _at(params, params.goal_pos))
    # Position of each cell among the free ones, counting from 1 in the random order.
    in_order = jnp.zeros(free.size, jnp.int32).at[ranks].set(free)
    place = jnp.cumsum(in_order)[ranks]
    return _add_walls(params, free & (place <= magnitude))


@perturbation(
    "blocked_route",
    category="routes",
    unit="blocked cells of the shortest route (count)",
    high=MOST_BLOCKED,
    integer=True,
    requires=(*LAYOUT, "start_dir"),
)
def blocked_route(key: jax.Array, params: Params, magnitude: jax.Array) -> Params:
    """Walls on `magnitude` cells, one after the other, each of what is the shortest route by then.

    The cell is uniform over those of the route that leave another one open; where there is none,
    nothing is blocked. Time limits are not considered.
    """

    def block(i: jax.Array, walls: jax.Array) -> jax.Array:
        new = _block_one(jax.random.fold_in(key, i), params.replace(walls=walls))
        return jnp.where(i < magnitude, new, walls)

    return params.replace(walls=jax.lax.fori_loop(0, MOST_BLOCKED, block, params.walls))


def _block_one(key: jax.Array, params: Params) -> jax.Array:
    """The walls with one more, on a shortest path and not on the last one: bool[W, H]."""
    x, y = shortest_path(params)[1].T
    route = jnp.zeros(_shape(params), bool).at[x, y].set(True)
    route &= ~(_at(params, params.start_pos) | _at(params, params.goal_pos))
    order = jnp.argsort(jnp.where(route, _ranks(key, params), route.size).ravel())

    def walled(i: jax.Array | int) -> jax.Array:
        return params.walls.ravel().at[order[i]].set(True).reshape(route.shape)

    def shut(i: jax.Array | int) -> jax.Array:
        return optimal_steps(params.replace(walls=walled(i))) >= UNREACHABLE

    last = route.sum()
    chosen = jax.lax.while_loop(lambda i: (i < last) & shut(i), lambda i: i + 1, 0)
    return jnp.where(chosen < last, walled(chosen), params.walls)


_register_mirrored("wall", wall)
_register_mirrored("elbow", elbow)
_register_mirrored("blocked_route", blocked_route)
