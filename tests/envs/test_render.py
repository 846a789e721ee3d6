"""Pictures: their shapes, the colors of particular cells, and what is read back from files."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageSequence

from entrob.envs.minigrid import FORWARD, MiniGrid, empty_params
from entrob.envs.render import (
    render_episode,
    render_grid,
    render_occupancy,
    save_gif,
    save_png,
)

BLACK, GRAY, GREEN, RED = (0, 0, 0), (100, 100, 100), (0, 255, 0), (255, 0, 0)
TILE = 32
ENV = MiniGrid(10, 6)
PARAMS = empty_params(10, 6)
PARAMS = PARAMS.replace(walls=PARAMS.walls.at[4, 2].set(True))


def center(picture, x, y, tile=TILE):
    return tuple(int(c) for c in picture[y * tile + tile // 2, x * tile + tile // 2])


def episode(actions):
    """The states of an episode, the first one included, stacked."""
    key = jax.random.key(0)
    state = ENV.reset(key, PARAMS)[1]
    states = [state]
    for action in actions:
        state = ENV.step_env(key, state, action, PARAMS)[1]
        states.append(state)
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


def test_cells_have_their_colors_at_x_and_y():
    picture = render_grid(ENV, PARAMS)
    assert picture.shape == (6 * TILE, 10 * TILE, 3)
    assert picture.dtype == np.uint8
    walls = {(x, y) for x in range(10) for y in range(6) if center(picture, x, y) == GRAY}
    assert walls == {(int(x), int(y)) for x, y in np.argwhere(PARAMS.walls)}
    assert center(picture, 8, 4) == GREEN
    assert center(picture, 1, 1) == RED  # the start
    assert center(picture, 2, 3) == BLACK
    lava = jnp.zeros_like(PARAMS.walls).at[[2, 4], [3, 2]].set(True)
    picture = render_grid(ENV, PARAMS.replace(lava=lava))
    assert center(picture, 2, 3) == (255, 128, 0)
    assert center(picture, 4, 2) == GRAY  # a wall on lava
    # A line along the top and the left of a floor cell.
    assert (picture[3 * TILE, 2 * TILE : 3 * TILE] == GRAY).all()
    assert (picture[3 * TILE : 4 * TILE, 2 * TILE] == GRAY).all()


@pytest.mark.parametrize("direction", range(4))
def test_the_agent_points_in_its_direction(direction):
    state = ENV.reset(jax.random.key(0), PARAMS)[1].replace(
        pos=jnp.array([6, 3]), dir=jnp.array(direction)
    )
    picture = render_grid(ENV, PARAMS, state)
    assert center(picture, 1, 1) == BLACK
    red = (picture[3 * TILE : 4 * TILE, 6 * TILE : 7 * TILE] == RED).all(-1)
    rows, columns = np.nonzero(red)
    # The triangle's center of mass lies behind the middle of the cell, at 0.37 of its length.
    offset = np.array([columns.mean(), rows.mean()]) - (TILE - 1) / 2
    behind = -FORWARD[direction] * (0.5 - 0.37) * TILE
    np.testing.assert_allclose(offset, behind, atol=1)
    # It is symmetric, and its tip is a few pixels wide.
    facing_right = np.rot90(red, direction)
    np.testing.assert_array_equal(facing_right, facing_right[::-1])
    width = facing_right.sum(0)
    assert (np.diff(width[width.argmax() :]) <= 0).all()
    assert width.max() > 0.5 * TILE


@pytest.mark.parametrize("tile", [4, 7, 64])
def test_tiles_of_any_size(tile):
    picture = render_grid(ENV, PARAMS, tile=tile)
    assert picture.shape == (6 * tile, 10 * tile, 3)
    assert center(picture, 8, 4, tile) == GREEN
    assert render_occupancy(ENV, PARAMS, np.ones((10, 6)), tile).shape == picture.shape


def test_too_small_a_tile_is_refused():
    with pytest.raises(ValueError, match="at least 4 pixels, not 3"):
        render_grid(ENV, PARAMS, tile=3)


def test_occupancy_is_brighter_where_more_time_was_spent():
    counts = np.zeros((10, 6))
    counts[2, 1], counts[3, 1], counts[8, 4] = 2, 8, 8
    counts[4, 2] = 1000  # on a wall: not shown, and not what the others are relative to
    picture = render_occupancy(ENV, PARAMS, counts)
    assert picture.shape == (6 * TILE, 10 * TILE, 3)
    none, some, most = (sum(center(picture, x, 1)) for x in (1, 2, 3))
    assert none < some < most
    assert center(picture, 3, 1) == (253, 231, 36)  # the bright end of viridis
    assert center(picture, 4, 2) == GRAY
    assert center(picture, 8, 4) == center(picture, 3, 1)
    assert tuple(picture[4 * TILE + 2, 8 * TILE + TILE // 2]) == GREEN  # the frame of the goal
    np.testing.assert_array_equal(picture, render_occupancy(ENV, PARAMS, counts * 3))


def test_an_unvisited_grid_is_dark():
    picture = render_occupancy(ENV, PARAMS, np.zeros((10, 6)))
    assert center(picture, 1, 1) == center(picture, 7, 3) == (68, 1, 84)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (np.ones((6, 10)), r"\(6, 10\), the grid has \(10, 6\)"),
        (-np.ones((10, 6)), "not negative"),
        (np.full((10, 6), np.nan), "finite"),
    ],
)
def test_bad_counts_are_refused(counts, message):
    with pytest.raises(ValueError, match=message):
        render_occupancy(ENV, PARAMS, counts)


def test_an_episode_is_one_frame_per_state():
    states = episode([2, 1, 2, 2])
    frames = render_episode(ENV, PARAMS, states)
    assert len(frames) == 5
    for i, frame in enumerate(frames):
        state = jax.tree.map(lambda x: x[i], states)  # noqa: B023
        np.testing.assert_array_equal(frame, render_grid(ENV, PARAMS, state))
        assert center(frame, *np.asarray(state.pos)) == RED


def test_a_png_is_read_back_as_it_was(tmp_path):
    picture = render_grid(ENV, PARAMS)
    save_png(tmp_path / "grid.png", picture)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "grid.png")), picture)


def test_a_gif_has_all_frames_and_their_time(tmp_path):
    frames = render_episode(ENV, PARAMS, episode([2, 1, 2, 2]))
    save_gif(tmp_path / "episode.gif", frames, fps=5)
    with Image.open(tmp_path / "episode.gif") as gif:
        assert gif.n_frames == 5
        assert gif.info["loop"] == 0
        for image, frame in zip(ImageSequence.Iterator(gif), frames):
            assert image.info["duration"] == 200
            # A GIF holds 256 colors, more than a frame has.
            np.testing.assert_allclose(np.asarray(image.convert("RGB"), int), frame, atol=2)


def test_equal_frames_of_a_gif_are_shown_for_their_whole_time(tmp_path):
    frames = render_episode(ENV, PARAMS, episode([0, 2, 2]))  # bumps into the wall twice
    save_gif(tmp_path / "bump.gif", frames, fps=30)
    with Image.open(tmp_path / "bump.gif") as gif:
        shown = [image.info["duration"] for image in ImageSequence.Iterator(gif)]
    assert shown == [30, 90]


@pytest.mark.parametrize(
    ("frames", "fps", "message"),
    [
        ([], 10, "at least one frame"),
        ([np.zeros((8, 8, 3), np.uint8)], 0, "fps must be"),
        ([np.zeros((8, 8, 3), np.uint8)], 101, "fps must be"),
    ],
)
def test_a_gif_of_nothing_or_without_time_is_refused(tmp_path, frames, fps, message):
    with pytest.raises(ValueError, match=message):
        save_gif(tmp_path / "no.gif", frames, fps)
    assert not list(tmp_path.iterdir())
