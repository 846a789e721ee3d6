"""Pictures of grids, episodes and occupancies, as NumPy arrays and as PNG, GIF and MP4 files.

A picture is uint8[H * tile, W * tile, 3], RGB, row 0 at the top: cell (x, y) of a grid covers the
rows from y * tile and the columns from x * tile. The colors are those of Farama MiniGrid.
"""

import subprocess
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.animation import FFMpegWriter
from matplotlib.figure import Figure
from PIL import Image

from entrob.envs.minigrid import EnvParams, EnvState, MiniGrid
from entrob.errors import EntrobError

FLOOR, LINE, WALL, LAVA = (0, 0, 0), (100, 100, 100), (100, 100, 100), (255, 128, 0)
GOAL, AGENT = (0, 255, 0), (255, 0, 0)
# Perceptually uniform (van der Walt & Smith 2015), so that equal steps in counts look equal.
COLORMAP = "viridis"
# Subpixels per pixel and axis, for smooth edges of the agent.
OVERSAMPLING = 4


def render_grid(
    env: MiniGrid, params: EnvParams, state: EnvState | None = None, tile: int = 32
) -> np.ndarray:
    """A layout with the agent in it, a red triangle: gray walls, orange lava, a green goal.

    Args:
      env: the grid environment.
      params: one layout.
      state: where the agent is; None is where an episode begins.
      tile: side of a cell in pixels, at least 4.

    Returns:
      uint8[H * tile, W * tile, 3].

    Raises:
      ValueError: `tile` is too small.
    """
    layout = _render_layout(env, params, tile)
    if state is None:
        return _with_agent(layout, params.start_pos, params.start_dir, tile)
    return _with_agent(layout, state.pos, state.dir, tile)


def render_episode(
    env: MiniGrid, params: EnvParams, states: EnvState, tile: int = 32
) -> list[np.ndarray]:
    """One picture for each state of an episode.

    Args:
      env: the grid environment.
      params: one layout.
      states: the states, leaves with a leading axis [T], as `jax.lax.scan` stacks them.
      tile: side of a cell in pixels, at least 4.

    Returns:
      T arrays uint8[H * tile, W * tile, 3].

    Raises:
      ValueError: `tile` is too small.
    """
    layout = _render_layout(env, params, tile)
    positions, directions = np.asarray(states.pos), np.asarray(states.dir)
    return [_with_agent(layout, p, d, tile) for p, d in zip(positions, directions)]


def render_occupancy(env: MiniGrid, params: EnvParams, counts: Any, tile: int = 32) -> np.ndarray:
    """How often each cell was visited, dark to bright up to the most visited cell.

    Args:
      env: the grid environment.
      params: one layout; its walls are gray and its goal has a green frame.
      counts: [W, H] indexed [x, y], finite and not negative; values on walls are not shown.
      tile: side of a cell in pixels, at least 4.

    Returns:
      uint8[H * tile, W * tile, 3].

    Raises:
      ValueError: counts of another shape, negative, NaN or infinite; `tile` is too small.
    """
    counts, walls = np.asarray(counts, np.float64), np.asarray(params.walls)
    if counts.shape != walls.shape:
        raise ValueError(f"counts have shape {counts.shape}, the grid has {walls.shape}")
    if not np.all(np.isfinite(counts) & (counts >= 0)):
        raise ValueError("counts must be finite and not negative")
    highest = counts[~walls].max(initial=0.0)
    share = np.where(walls, 0.0, counts) / (highest if highest > 0 else 1.0)
    heat = matplotlib.colormaps[COLORMAP](share, bytes=True)[..., :3]
    picture = _tiles(_either(walls, WALL, heat), tile)
    picture = _with_lines(picture, tile)
    goal, edge = _cell(picture, params.goal_pos, tile), max(1, tile // 8)
    goal[:edge] = goal[-edge:] = goal[:, :edge] = goal[:, -edge:] = GOAL
    return picture


def save_png(path: str | PathLike, rgb: np.ndarray) -> None:
    """Write a picture uint8[height, width, 3] as PNG; raises OSError if that fails."""
    Image.fromarray(np.asarray(rgb, np.uint8)).save(path, format="PNG")


def save_gif(path: str | PathLike, frames: Sequence[np.ndarray], fps: float = 10) -> None:
    """Write pictures as an endless animation.

    GIF counts time in hundredths of a second, to which the time per frame is rounded. Equal
    successive frames are stored as one that is shown longer.

    Args:
      path: the file.
      frames: at least one, each uint8[height, width, 3], of equal shapes.
      fps: frames per second, in 0..100, 0 excluded.

    Raises:
      ValueError: no frames, or `fps` out of range.
      OSError: the file cannot be written.
    """
    if not len(frames):
        raise ValueError("an animation needs at least one frame")
    if not 0 < fps <= 100:
        raise ValueError(f"fps must be in 0..100, 0 excluded, not {fps}")
    first, *rest = [Image.fromarray(np.asarray(frame, np.uint8)) for frame in frames]
    duration = 10 * round(100 / fps)
    first.save(path, format="GIF", save_all=True, append_images=rest, duration=duration, loop=0)


def save_mp4(path: str | PathLike, frames: Sequence[np.ndarray], fps: float = 20) -> None:
    """Write pictures as a film (H.264), by the program ffmpeg.

    Args:
      path: the file.
      frames: at least one, each uint8[height, width, 3], of equal shapes with even sides.
      fps: frames per second, positive.

    Raises:
      ValueError: no frames, an odd side, or `fps` out of range.
      EntrobError: there is no ffmpeg, or it fails.
    """
    if not len(frames):
        raise ValueError("a film needs at least one frame")
    height, width, _ = np.shape(frames[0])
    if height % 2 or width % 2 or not fps > 0:
        raise ValueError(f"a film needs even sides and fps above 0, not {width} x {height}, {fps}")
    if not FFMpegWriter.isAvailable():
        raise EntrobError("MP4 needs the program ffmpeg, which was not found; GIF does not")
    figure = Figure((width, height), dpi=1)
    image = figure.figimage(frames[0])
    writer = FFMpegWriter(fps)  # type: ignore[arg-type]  # ffmpeg takes any number
    try:
        with writer.saving(figure, Path(path), dpi=1):
            for frame in frames:
                image.set_data(frame)
                writer.grab_frame()
    except (OSError, subprocess.CalledProcessError) as error:
        raise EntrobError(f"ffmpeg could not write {str(path)!r}") from error


def _render_layout(env: MiniGrid, params: EnvParams, tile: int) -> np.ndarray:
    """Walls, lava, goal and grid lines: uint8[H * tile, W * tile, 3]."""
    floor = np.array(FLOOR, np.uint8) if params.lava is None else _either(params.lava, LAVA, FLOOR)
    colors = _either(params.walls, WALL, floor)
    picture = _tiles(colors, tile)
    _cell(picture, params.goal_pos, tile)[:] = GOAL
    return _with_lines(picture, tile)


def _either(cells: Any, yes: Any, no: Any) -> np.ndarray:
    """Colors uint8[W, H, 3] of the cells in bool[W, H] and of the others."""
    return np.where(np.asarray(cells)[..., None], np.array(yes, np.uint8), np.array(no, np.uint8))


def _tiles(colors: np.ndarray, tile: int) -> np.ndarray:
    """Each cell of uint8[W, H, 3] as a square: uint8[H * tile, W * tile, 3]."""
    if tile < 4:
        raise ValueError(f"tile must be at least 4 pixels, not {tile}")
    return colors.swapaxes(0, 1).repeat(tile, 0).repeat(tile, 1)


def _cell(picture: np.ndarray, pos: Any, tile: int) -> np.ndarray:
    """The part of a picture that shows one cell, as a view."""
    x, y = (int(i) * tile for i in pos)
    return picture[y : y + tile, x : x + tile]


def _with_lines(picture: np.ndarray, tile: int) -> np.ndarray:
    """Draw, in place, a line along the top and the left side of every cell."""
    for i in range(max(1, tile // 32)):
        picture[i::tile] = LINE
        picture[:, i::tile] = LINE
    return picture


def _with_agent(layout: np.ndarray, pos: Any, direction: Any, tile: int) -> np.ndarray:
    """A copy of a picture with the agent in it."""
    picture = layout.copy()
    cell = _cell(picture, pos, tile)
    covered = _triangle(int(direction), tile)[..., None]
    cell[:] = np.rint(covered * np.array(AGENT) + (1 - covered) * cell)
    return picture


def _triangle(direction: int, tile: int) -> np.ndarray:
    """How much of each pixel of a cell the agent covers, MiniGrid's triangle: [tile, tile]."""
    size = tile * OVERSAMPLING
    along = (np.arange(size) + 0.5) / size
    # Pointing right: base at x = 0.12 from y = 0.19 to 0.81, tip at (0.87, 0.5).
    half_width = 0.31 * (0.87 - along) / 0.75
    inside = (along >= 0.12) & (abs(along[:, None] - 0.5) <= half_width)
    covered = inside.reshape(tile, OVERSAMPLING, tile, OVERSAMPLING).mean((1, 3))
    return np.rot90(covered, -direction)
