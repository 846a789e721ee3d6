"""Pictures of Pusher and Ant show what the states and the params say, with OpenGL and without."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from entrob.envs import make
from entrob.envs.mujoco import render
from entrob.envs.mujoco.render import draw_episode, render_episode
from entrob.envs.render import save_gif, save_mp4
from entrob.errors import EntrobError
from entrob.perturbations import perturb

SIZE = (160, 120)
PUSHER, ANT = "mujoco/pusher", "mujoco/ant"
RED, GREEN, SKIN = (255, 0, 0), (138, 240, 138), (204, 153, 102)


@functools.cache
def start(id):
    env, params = make(id)
    return env, params, env.reset_env(jax.random.key(0), params)[1]


def episode(id, *positions):
    """States that differ from the first of an episode in the given positions, by index."""
    state = start(id)[2]
    path = np.tile(np.asarray(state.qpos), (len(positions), 1))
    for qpos, changes in zip(path, positions):
        for index, value in changes.items():
            qpos[index] = value
    return state.replace(qpos=path)


def perturbed(id, name, magnitude):
    return perturb(jax.random.key(0), start(id)[1], name, magnitude)


def middle(picture, color, slack=12):
    """(x, y) in the middle of the pixels of a color, and how many they are."""
    rows, columns = np.nonzero((np.abs(picture.astype(int) - color) <= slack).all(-1))
    return np.array([columns.mean(), rows.mean()]) if len(rows) else None, len(rows)


def change(one, other):
    """(x, y) in the middle of the pixels in which two pictures differ, and how many they are."""
    return middle((one != other).any(-1)[..., None] * np.uint8([255, 0, 0]), RED)


@functools.cache
def opengl():
    """Skip a test where no OpenGL is."""
    try:
        return render_episode(*start(PUSHER)[:2], episode(PUSHER, {}), (16, 16))
    except EntrobError as error:
        pytest.skip(str(error))


def test_a_drawing_shows_puck_goal_and_blocks_where_they_are():
    env, params, _ = start(PUSHER)
    wall = perturbed(PUSHER, "wall", 2)
    states = episode(PUSHER, {}, {7: -0.2, 8: 0.1})
    bare, walled = draw_episode(env, params, states, SIZE), draw_episode(env, wall, states, SIZE)
    assert bare.shape == walled.shape == (2, 120, 160, 3) and bare.dtype == np.uint8

    def pixel(x, y):  # 1.7 m wide, (0.45, -0.4) in the middle
        return 79.5 + (x - 0.45) * 160 / 1.7, 59.5 - (y + 0.4) * 160 / 1.7

    np.testing.assert_allclose(middle(bare[0], RED)[0], pixel(0.65, -0.35), atol=0.7)
    np.testing.assert_allclose(middle(bare[1], RED)[0], pixel(0.55, -0.25), atol=0.7)
    np.testing.assert_allclose(middle(bare[0], GREEN)[0], pixel(0.45, -0.05), atol=0.7)
    place, pixels = change(bare[0], walled[0])
    np.testing.assert_allclose(place, pixel(0.55, -0.21), atol=0.7)
    assert 50 < pixels < 150  # the three overlap
    shifted = draw_episode(env, params.replace(goal_pos=jnp.array([0.2, 0.0])), states, SIZE)
    np.testing.assert_allclose(middle(shifted[0], GREEN)[0], pixel(0.2, 0.0), atol=0.7)
    radius = 0.1 * 160 / 1.7
    assert abs(middle(bare[0], GREEN)[1] / (np.pi * radius**2) - 1) < 0.1


def test_the_arm_is_drawn_where_its_joints_have_it():
    env, params, _ = start(PUSHER)
    picture = draw_episode(env, params, episode(PUSHER, {}, {0: 1.0}), SIZE).astype(int)
    moved = (picture[0] != picture[1]).any(-1)
    assert moved.sum() > 500
    rows, _ = np.nonzero(moved & (picture[1] == 128).all(-1))
    assert rows.min() < 50  # turned up, to larger y


def test_an_ant_is_drawn_from_the_side_with_its_hurdle():
    env, params, _ = start(ANT)
    hurdle = perturbed(ANT, "hurdle", 0.5)
    states = episode(ANT, {0: 0.0, 2: 0.75}, {0: 3.0, 2: 0.75}, {0: 3.0, 2: 1.75})
    bare, walled = draw_episode(env, params, states, SIZE), draw_episode(env, hurdle, states, SIZE)
    scale = 160 / 7
    np.testing.assert_array_equal(bare[0], walled[0])  # out of sight
    place, pixels = change(bare[1], walled[1])
    # A meter deep and half a meter high; the ant is in the middle, and the floor 0.8 m below.
    np.testing.assert_allclose(place, [79.5 + 1.5 * scale, 59.5 + 0.55 * scale], atol=1)
    assert abs(pixels / (0.5 * scale**2) - 1) < 0.3
    heights = [middle(picture, SKIN)[0][1] for picture in bare]
    np.testing.assert_allclose(heights[1] - heights[2], scale, atol=1)


@pytest.mark.parametrize("camera", ["top", "oblique", "side"])
def test_opengl_shows_puck_and_blocks(camera):
    opengl()
    env, params, _ = start(PUSHER)
    states = episode(PUSHER, {}, {7: 0.0, 8: 0.0})
    bare = render_episode(env, params, states, SIZE, camera).astype(int)
    assert bare.shape == (2, 120, 160, 3)

    def reddest(picture):
        red = (picture[..., 0] > 2 * picture[..., 1] + 40) & (picture[..., 0] > 80)
        assert red.sum() > 10
        return np.argwhere(red).mean(0)

    assert np.abs(reddest(bare[0]) - reddest(bare[1])).max() > 5
    walled = render_episode(env, perturbed(PUSHER, "wall", 2), states, SIZE, camera)
    changed = (walled != bare).any(-1)
    assert 10 < changed[0].sum() < 0.2 * changed[0].size


def test_from_the_top_opengl_and_the_drawing_agree():
    opengl()
    env, params, _ = start(PUSHER)
    states = episode(PUSHER, {}, {7: -0.1, 8: 0.3})
    drawn = [middle(p, RED)[0] for p in draw_episode(env, params, states, SIZE)]
    rendered = render_episode(env, params, states, SIZE, "top").astype(int)
    red = [np.argwhere(p[..., 0] > p[..., 1] + 100).mean(0)[::-1] for p in rendered]
    np.testing.assert_allclose(red, drawn, atol=4)  # nearer to the eye than the table


def test_opengl_follows_the_ant_and_shows_its_hurdle():
    opengl()
    env, params, _ = start(ANT)
    states = episode(ANT, {0: 0.0, 1: 0.0}, {0: 3.0, 1: 0.0})
    bare = render_episode(env, params, states, SIZE, "top").astype(int)
    skin = (bare[..., 0] > bare[..., 2] + 40).sum((1, 2))
    assert skin.min() > 50 and abs(skin[0] - skin[1]) < 0.2 * skin[0]
    walled = render_episode(env, perturbed(ANT, "hurdle", 0.5), states, SIZE, "top")
    changed = (walled != bare).any(-1).mean((1, 2))
    assert changed[0] < 0.02 < changed[1]


def test_environments_with_noise_have_pictures_too():
    env, params = make(PUSHER, noise=True)
    states = episode(PUSHER, {})
    np.testing.assert_array_equal(
        draw_episode(env, params, states, SIZE), draw_episode(*start(PUSHER)[:2], states, SIZE)
    )


def test_an_episode_is_saved(tmp_path):
    env, params, _ = start(PUSHER)
    frames = draw_episode(env, params, episode(PUSHER, {}, {0: 0.5}, {0: 1.0}), SIZE)
    save_gif(tmp_path / "episode.gif", frames, fps=20)
    with Image.open(tmp_path / "episode.gif") as film:
        assert film.size == SIZE and film.n_frames == 3


def test_a_film_is_saved_or_says_what_it_needs(tmp_path, monkeypatch):
    frames = np.zeros((3, 40, 60, 3), np.uint8)
    path = tmp_path / "film.mp4"
    from matplotlib.animation import FFMpegWriter

    if FFMpegWriter.isAvailable():
        save_mp4(path, frames)
        assert path.read_bytes()[4:8] == b"ftyp"
        with pytest.raises(EntrobError, match="ffmpeg could not write"):
            save_mp4(tmp_path / "no" / "film.mp4", frames)
    monkeypatch.setattr(FFMpegWriter, "isAvailable", lambda: False)
    with pytest.raises(EntrobError, match="MP4 needs the program ffmpeg"):
        save_mp4(path, frames)
    with pytest.raises(ValueError, match="even sides"):
        save_mp4(path, frames[:, 1:])
    with pytest.raises(ValueError, match="at least one frame"):
        save_mp4(path, [])


def bad_states():
    broken = np.zeros((3, 9))
    broken[1, 4] = np.nan
    return [
        (broken, "state 1 is not finite"),
        (np.zeros(9), "needs states with a leading axis"),
        (np.zeros((0, 9)), "at least one"),
    ]


@pytest.mark.parametrize(("path", "words"), bad_states())
@pytest.mark.parametrize("show", [draw_episode, render_episode])
def test_bad_states_are_one_line(show, path, words):
    env, params, state = start(PUSHER)
    with pytest.raises(EntrobError, match=words):
        show(env, params, state.replace(qpos=path), SIZE)


def test_other_bad_input_is_one_line(monkeypatch):
    env, params, _ = start(PUSHER)
    states = episode(PUSHER, {})
    with pytest.raises(EntrobError, match="unknown camera 'topp': did you mean 'top'"):
        render_episode(env, params, states, SIZE, "topp")
    grid, layout = make("minigrid/empty-8x8")
    with pytest.raises(EntrobError, match="only mujoco/pusher and mujoco/ant have pictures here"):
        draw_episode(grid, layout, states)
    monkeypatch.setattr(render.importlib, "import_module", lambda name: 1 / 0)
    with pytest.raises(EntrobError, match=r"OpenGL cannot be opened .*; draw_episode needs none"):
        render_episode(env, params, states, SIZE)
