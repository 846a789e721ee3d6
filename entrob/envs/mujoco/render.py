"""Pictures of episodes of Pusher and Ant: by MuJoCo's OpenGL renderer, or drawn flat without it.

Both show the blocks or the wall of the params, and the goal, at the states given; the bodies are
placed by C MuJoCo. Pictures are uint8[height, width, 3], RGB, row 0 at the top;
`entrob.envs.render` writes them to files.
"""

import contextlib
import copy
import importlib
import os
import platform
from collections.abc import Iterator
from typing import Any, NamedTuple

import mujoco
import numpy as np
from PIL import Image, ImageDraw
from scipy.spatial import ConvexHull

from entrob.envs.mujoco import physics
from entrob.envs.mujoco.ant.environment import Ant
from entrob.envs.mujoco.pusher.environment import BLOCKS, GOAL_HEIGHT, Pusher
from entrob.envs.render import AGENT, GOAL, OVERSAMPLING
from entrob.errors import EntrobError, unknown

Size = tuple[int, int]

#: Camera -> (azimuth, elevation) in degrees; azimuth 90 looks along y, elevation -90 straight down.
CAMERAS = {"top": (90, -90), "side": (90, -10), "oblique": (-130, -45)}
GROUND = (230, 230, 230)
# Opacity of the goal, over the ground and under the puck.
GOAL_ALPHA = 0.4
#: Points that outline a circle of a drawing.
CIRCLE = np.linspace(0, 2 * np.pi, 32, endpoint=False)
# MuJoCo's own default; some 40 are needed.
MAX_GEOMS = 1000


class Stage(NamedTuple):
    """How to look at an environment; lengths are in meters.

    Attributes:
      model: a C MuJoCo model with what the params change.
      goal: (x, y, z) and radius of the disk to reach, None if there is none.
      center: float[3], what is in the middle of pictures.
      follows: whether the center moves along x with the first coordinate of qpos.
      width: of what pictures show, at the center.
      axes: the two axes of the plane of a drawing, to the right and up.
    """

    model: mujoco.MjModel
    goal: tuple[np.ndarray, float] | None
    center: np.ndarray
    follows: bool
    width: float
    axes: tuple[int, int]

    def at(self, qpos: np.ndarray) -> np.ndarray:
        """The center for one state."""
        return self.center + np.array([qpos[0], 0, 0]) * self.follows


def render_episode(
    env: Any, params: Any, states: Any, size: Size = (480, 360), camera: str = "oblique"
) -> np.ndarray:
    """One picture for each state of an episode, by MuJoCo's OpenGL renderer.

    The environment variable MUJOCO_GL names the way to OpenGL: ``egl`` (no display needed),
    ``osmesa``, ``glfw``; without it those that the system usually has are tried.

    Args:
      env: Pusher or Ant, also one with noise.
      params: its params.
      states: the states, leaves with a leading axis [T], as `jax.lax.scan` stacks them.
      size: (width, height) in pixels.
      camera: a name in `CAMERAS` or of a camera of the model.

    Returns:
      uint8[T, height, width, 3].

    Raises:
      EntrobError: OpenGL cannot be opened (`draw_episode` does without), the camera is unknown,
        the environment is another one, or a state is not finite.
    """
    stage, path = _stage(env, params), _path(states)
    model, data = stage.model, mujoco.MjData(stage.model)
    view = _camera(stage, camera)
    fixed = view.type != mujoco.mjtCamera.mjCAMERA_FREE
    pictures = np.empty((len(path), size[1], size[0], 3), np.uint8)
    with _opengl(model, size) as context:
        scene, option = mujoco.MjvScene(model, MAX_GEOMS), mujoco.MjvOption()
        rect = mujoco.MjrRect(0, 0, *size)
        for picture, qpos in zip(pictures, path):
            data.qpos[:] = qpos
            mujoco.mj_forward(model, data)
            if not fixed:
                view.lookat = stage.at(qpos)
            mujoco.mjv_updateScene(
                model, data, option, None, view, mujoco.mjtCatBit.mjCAT_ALL, scene
            )
            if stage.goal:
                _add_disk(scene, *stage.goal)
            mujoco.mjr_render(rect, scene, context)
            mujoco.mjr_readPixels(picture, None, rect, context)
    return pictures[:, ::-1]  # OpenGL's rows begin at the bottom


def draw_episode(env: Any, params: Any, states: Any, size: Size = (480, 360)) -> np.ndarray:
    """One drawing for each state of an episode: Pusher from above, Ant from the side.

    Needs no OpenGL. Shapes are drawn in the colors of the model, the nearer ones last.

    Args:
      env: Pusher or Ant, also one with noise.
      params: its params.
      states: the states, leaves with a leading axis [T], as `jax.lax.scan` stacks them.
      size: (width, height) in pixels.

    Returns:
      uint8[T, height, width, 3].

    Raises:
      EntrobError: the environment is another one, or a state is not finite.
    """
    stage = _stage(env, params)
    return np.array([_draw(stage, qpos, size) for qpos in _path(states)])


def _path(states: Any) -> np.ndarray:
    path = np.asarray(states.qpos, np.float64)
    if path.ndim != 2 or not len(path):
        raise EntrobError("an episode needs states with a leading axis, at least one")
    if not np.isfinite(path).all():
        raise EntrobError(f"state {int(np.argmin(np.isfinite(path).all(1)))} is not finite")
    return path


def _stage(env: Any, params: Any) -> Stage:
    if isinstance(env, Ant):
        model, center = env.world(params), np.array([0.0, 0.0, 0.8])
        return Stage(model, None, center, follows=True, width=7.0, axes=(0, 2))
    if isinstance(env, Pusher):
        goal = np.append(params.goal_pos, GOAL_HEIGHT), float(params.success_radius)
        center = np.array([0.45, -0.4, GOAL_HEIGHT])
        return Stage(_table(env, params), goal, center, follows=False, width=1.7, axes=(0, 1))
    raise EntrobError(f"only mujoco/pusher and mujoco/ant have pictures here, not {env.name}")


def _table(env: Pusher, params: Any) -> mujoco.MjModel:
    """Pusher's model with its blocks where the params have them, as far as it can be seen."""
    model = copy.copy(env.chain.host)
    blocks = physics.ids(model, "geom", BLOCKS)
    model.geom_pos[blocks, :2] = params.block_pos
    model.geom_size[blocks, :2] = params.block_size
    model.geom_rgba[blocks, 3] = params.block_on > 0
    # Else a block that has grown may be left out of a picture.
    model.geom_rbound[blocks] = np.linalg.norm(model.geom_size[blocks], axis=1)
    puck, ball = physics.ids(model, "geom", ["puck", "puck_ball"])
    model.geom_rgba[puck, :3] = np.array(AGENT) / 255
    model.geom_rgba[ball, 3] = 0
    return model


def _camera(stage: Stage, name: str) -> mujoco.MjvCamera:
    view = mujoco.MjvCamera()
    of_model = [stage.model.camera(i).name for i in range(stage.model.ncam)]
    if name in of_model:
        view.type, view.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, of_model.index(name)
    elif name in CAMERAS:
        view.type = mujoco.mjtCamera.mjCAMERA_FREE
        view.azimuth, view.elevation = CAMERAS[name]
        # The field of view is 45 degrees high, and a picture about three quarters as high as wide.
        view.distance = 0.75 * stage.width / 2 / np.tan(np.pi / 8)
    else:
        raise unknown("camera", name, [*of_model, *CAMERAS])
    return view


@contextlib.contextmanager
def _opengl(model: mujoco.MjModel, size: Size) -> Iterator[mujoco.MjrContext]:
    """A current OpenGL context with room for pictures of the size; changes the model's settings."""
    model.vis.global_.offwidth, model.vis.global_.offheight = size
    asked = os.environ.get("MUJOCO_GL", "").lower()
    usual = {"Linux": ("egl", "glfw"), "Darwin": ("cgl",)}.get(platform.system(), ("glfw",))
    reasons = []
    for backend in (asked,) if asked in ("egl", "osmesa", "glfw", "cgl") else usual:
        try:
            window = importlib.import_module(f"mujoco.{backend}").GLContext(*size)
            window.make_current()
            context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
            mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
        except Exception as error:  # whatever bindings raise that find no library or no device
            reasons.append(f"{backend}: {' '.join(str(error).split())[:80]}")
            continue
        try:
            yield context
        finally:
            context.free()
            window.free()
        return
    raise EntrobError(f"OpenGL cannot be opened ({'; '.join(reasons)}); draw_episode needs none")


def _add_disk(scene: mujoco.MjvScene, center: np.ndarray, radius: float) -> None:
    """Add the goal to a scene, as a disk that lies flat."""
    rgba = np.array([*np.array(GOAL) / 255, GOAL_ALPHA], np.float32)
    size = np.array([radius, 1e-3, 0])
    kind = mujoco.mjtGeom.mjGEOM_CYLINDER
    mujoco.mjv_initGeom(scene.geoms[scene.ngeom], kind, size, center, np.eye(3).ravel(), rgba)
    scene.ngeom += 1


def _draw(stage: Stage, qpos: np.ndarray, size: Size) -> np.ndarray:
    """One drawing: uint8[height, width, 3]."""
    model, data, axes = stage.model, mujoco.MjData(stage.model), list(stage.axes)
    data.qpos[:] = qpos
    mujoco.mj_kinematics(model, data)
    scale = OVERSAMPLING * size[0] / stage.width
    middle = OVERSAMPLING * np.array(size) / 2
    center = stage.at(qpos)[axes]

    def pixels(points):
        return [tuple(p) for p in middle + (points - center) * scale * np.array([1, -1])]

    whole = (OVERSAMPLING * size[0], OVERSAMPLING * size[1])
    image = Image.new("RGB", whole, GROUND)
    draw = ImageDraw.Draw(image)
    if axes == [0, 2]:
        draw.line(pixels(np.array([[x, 0] for x in center[0] + [-stage.width, stage.width]])), 0)
    if stage.goal:
        spot, radius = stage.goal
        faint = GOAL_ALPHA * np.array(GOAL) + (1 - GOAL_ALPHA) * np.array(GROUND)
        draw.polygon(pixels(spot[axes] + radius * _circle()), tuple(np.rint(faint).astype(int)))
    # From above the highest is nearest; from the side, looking along y, the least y.
    depth = data.geom_xpos[:, 2] if axes == [0, 1] else -data.geom_xpos[:, 1]
    for geom in np.argsort(depth):
        if model.geom_rgba[geom, 3] == 0 or _kind(model, geom) == mujoco.mjtGeom.mjGEOM_PLANE:
            continue
        points = _points(model, data, geom, axes)
        outline = points[ConvexHull(points).vertices]
        color = tuple(np.rint(255 * model.geom_rgba[geom, :3]).astype(int))
        draw.polygon(pixels(outline), color, outline=(0, 0, 0), width=OVERSAMPLING)
    return np.asarray(image.resize(size, Image.Resampling.BOX))


def _kind(model: mujoco.MjModel, geom: int) -> mujoco.mjtGeom:
    return mujoco.mjtGeom(int(model.geom_type[geom]))  # NumPy's integers never equal MuJoCo's


def _circle() -> np.ndarray:
    return np.stack([np.cos(CIRCLE), np.sin(CIRCLE)], 1)


def _points(model: mujoco.MjModel, data: mujoco.MjData, geom: int, axes: list[int]) -> np.ndarray:
    """Points [n, 2] of a plane whose convex hull is a shape's picture in it."""
    size, kinds = model.geom_size[geom], mujoco.mjtGeom
    pos, turn = data.geom_xpos[geom], data.geom_xmat[geom].reshape(3, 3)
    kind = _kind(model, geom)
    if kind in (kinds.mjGEOM_SPHERE, kinds.mjGEOM_CAPSULE):
        half = size[1] if kind == kinds.mjGEOM_CAPSULE else 0.0
        ends = pos[axes] + half * np.array([[-1], [1]]) * turn[axes, 2]
        return np.concatenate([end + size[0] * _circle() for end in ends])
    rim = _circle() * size[0] if kind == kinds.mjGEOM_CYLINDER else _corners() * size[:2]
    half = size[1] if kind == kinds.mjGEOM_CYLINDER else size[2]
    local = np.concatenate([np.c_[rim, np.full(len(rim), h)] for h in (-half, half)])
    return (pos + local @ turn.T)[:, axes]


def _corners() -> np.ndarray:
    return np.array([[-1, -1], [-1, 1], [1, 1], [1, -1]])
