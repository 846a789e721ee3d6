"""Contacts in closed form, against distances found by brute force and against C MuJoCo."""

import jax
import mujoco
import numpy as np
import pytest

from entrob.envs.mujoco.pusher import contacts, portal, reference

N = 300
TYPES = {"plane": 0, "sphere": 2, "capsule": 3, "cylinder": 5, "box": 6, "puck": 5}


def turns(rng, n, upright):
    q = np.tile([1.0, 0, 0, 0], (n, 1)) if upright else rng.standard_normal((n, 4))
    mats = np.zeros((n, 9))
    for mat, quat in zip(mats, q / np.linalg.norm(q, axis=1, keepdims=True)):
        mujoco.mju_quat2Mat(mat, quat)
    return mats.reshape(n, 3, 3)


def shapes(rng, n, spread, upright):
    pos = rng.normal(0, spread, (n, 3))
    size = rng.uniform(0.02, 0.08, (n, 3))
    return contacts.Shape(*(np.float32(x) for x in (pos, turns(rng, n, upright), size)))


def draw(name, seed=0, spread=0.07):
    rng = np.random.default_rng(seed)
    upright = name.endswith("puck")
    one, two = shapes(rng, N, spread, upright), shapes(rng, N, spread, upright)
    if upright:  # at the same height, and no way out above or below
        two.pos[:, 2] = one.pos[:, 2]
        one.size[:, 2], two.size[:, 1] = 0.3, 0.3
    return one, two


PAIRS = [
    "plane_capsule", "plane_sphere", "box_sphere", "box_capsule", "capsule_cylinder", "box_puck"
]  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_agrees_with_mujoco(name):
    """The nearest contact, wherever C MuJoCo's own general collision finds one."""
    kinds = name.split("_")
    one, two = draw(name)
    dist, _, normal = map(np.asarray, jax.vmap(getattr(contacts, name))(one, two))
    nearest = np.arange(N), dist.argmin(1)
    dist, normal = dist[nearest], normal[nearest]
    spec = mujoco.MjSpec()
    for kind in kinds:
        body = spec.worldbody.add_body()
        body.add_freejoint()
        size = [0.1, 0.1, 0.1] if kind != "plane" else [1, 1, 1]
        host = spec.worldbody if kind == "plane" else body
        host.add_geom(type=TYPES[kind], size=size, margin=0.02, condim=1)
        if kind == "plane":
            body.add_geom(type=2, size=[0.1, 0, 0], contype=0, conaffinity=0)
    model = spec.compile()
    model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_MULTICCD)
    data = mujoco.MjData(model)
    colliding = np.flatnonzero(model.geom_contype)
    found = []
    for i in range(N):
        mujoco.mj_kinematics(model, data)
        for geom, shape in zip(colliding, (one, two)):
            model.geom_size[geom] = shape.size[i]
            data.geom_xpos[geom], data.geom_xmat[geom] = shape.pos[i], shape.mat[i].ravel()
        model.geom_rbound[:] = 10
        mujoco.mj_collision(model, data)
        if not data.ncon:
            assert dist[i] > 0.035  # both margins, but for their iterations
            continue
        k = int(np.argmin(data.contact.dist[: data.ncon]))
        way = 1 if data.contact.geom[k, 0] == colliding[0] else -1
        found.append((i, data.contact.dist[k], *(way * data.contact.frame[k, :3])))
    at, theirs, *their_normal = np.array(found).T
    at, their_normal = at.astype(int), np.stack(their_normal, 1)
    assert (theirs < 0).sum() > N / 10 and (theirs > 0.002).sum() > N / 30
    error, lean = np.abs(dist[at] - theirs), 1 - np.sum(normal[at] * their_normal, 1)
    if name == "box_capsule":  # deep inside, theirs is not the shortest way out
        shallow = dist[at] > -0.02
        error, lean = error[shallow], lean[shallow]
    print(name, "distance", np.quantile(error, [0.5, 0.95, 1]), "normal", np.quantile(lean, 0.9))
    assert np.quantile(error, 0.95) < 2e-4 and error.max() < 5e-3
    assert np.quantile(lean, 0.9) < 1e-3


def portal_pairs(name, rng, margin):
    """Pairs [N] that nearly all touch, the shapes of Pusher: a finger or a block, and the puck."""
    size = np.tile(np.float32([0.02, 0.1, 0]), (N, 1))
    puck = np.tile(np.float32([0.05, 0.05, 0]), (N, 1))
    eye = np.float32(turns(rng, N, upright=True))
    angle = rng.uniform(0, 2 * np.pi, N)
    away = np.stack([np.cos(angle), np.sin(angle), np.zeros(N)], 1)
    if name == "box_cylinder":
        # At the distance at which their outlines meet, up to 5 mm in and a margin out.
        size = np.tile(np.float32([0.015, 0.015, 0.05]), (N, 1))
        face = size[:, :2] * np.sign(away[:, :2])
        nearest = np.clip(rng.uniform(-0.02, 0.02, (N, 2)), -size[:, :2], size[:, :2])
        corner = np.where(rng.uniform(size=(N, 2)) < 0.5, nearest, face)
        reach = 0.05 + rng.uniform(-0.005, margin, (N, 1))
        pos = -np.pad(corner, [(0, 0), (0, 1)]) - reach * away
        return contacts.Shape(np.float32(pos), eye, size), contacts.Shape(0 * pos, eye, puck)
    mat = np.float32(turns(rng, N, upright=False))
    along = rng.uniform(-0.1, 0.1, (N, 1)) * mat[:, :, 2]
    height = rng.uniform(-0.04, 0.04, (N, 1)) * np.array([0, 0, 1])
    pos = (0.07 + rng.uniform(-0.005, margin, (N, 1))) * away + height + along
    finger = contacts.Shape(np.float32(pos), mat, size)
    return finger, contacts.Shape(np.zeros((N, 3), np.float32), eye, puck)


@pytest.mark.skipif(
    not hasattr(mujoco.mjtDisableBit, "mjDSBL_NATIVECCD"), reason="MuJoCo has no other search"
)
@pytest.mark.parametrize("name", ["capsule_cylinder", "box_cylinder"])
def test_portals_end_where_libccds_do(name):
    """Distance, place and normal, against C MuJoCo with its flag for libccd."""
    margin = 0.002
    one, two = portal_pairs(name, np.random.default_rng(3), margin)
    touch = getattr(portal, name)
    ours = jax.jit(jax.vmap(lambda a, b: touch(a, b, margin)))(one, two)
    dist, pos, normal = (np.asarray(x)[:, 0] for x in ours)
    spec = mujoco.MjSpec()
    for kind in name.split("_"):
        body = spec.worldbody.add_body()
        body.add_freejoint()
        body.add_geom(type=TYPES[kind], size=[0.1, 0.1, 0.1], margin=margin, condim=1)
    model = spec.compile()
    data = mujoco.MjData(model)
    for flag in ("MULTICCD", "NATIVECCD"):
        model.opt.disableflags |= int(getattr(mujoco.mjtDisableBit, f"mjDSBL_{flag}"))
    model.geom_margin[:] = margin / 2 if reference.margins_add_up() else margin
    model.geom_rbound[:] = 10
    errors, missed = [], 0
    for i in range(N):
        mujoco.mj_kinematics(model, data)
        for geom, shape in enumerate((one, two)):
            model.geom_size[geom] = shape.size[i]
            data.geom_xpos[geom], data.geom_xmat[geom] = shape.pos[i], shape.mat[i].ravel()
        mujoco.mj_collision(model, data)
        if (dist[i] < margin) != (data.ncon > 0):
            missed += 1
        elif data.ncon:
            assert data.ncon == 1
            way = 1 if data.contact.geom[0, 0] == 0 else -1
            lean = 1 - way * data.contact.frame[0, :3] @ normal[i]
            apart = np.linalg.norm(data.contact.pos[0] - pos[i])
            errors.append((abs(data.contact.dist[0] - dist[i]), apart, lean))
    error, apart, lean = np.array(errors).T
    print(name, len(errors), missed, np.quantile(error, [0.9, 1]), np.quantile(apart, [0.9, 1]))
    assert len(errors) > N / 2 and missed <= N / 100
    assert np.quantile(error, 0.95) < 5e-5 and np.quantile(lean, 0.95) < 1e-5
    if name == "capsule_cylinder":  # the puck only slides, so the place does not matter to it
        assert np.quantile(apart, 0.95) < 1e-4


def beyond(kind, shape, point):
    """Distance from points [k, 3] to a solid; 0 inside."""
    local = np.abs((point - shape.pos) @ shape.mat)
    if kind == "box":
        return np.linalg.norm(np.maximum(local - shape.size, 0), axis=1)
    side = np.maximum(np.hypot(*local[:, :2].T) - shape.size[0], 0)
    return np.hypot(side, np.maximum(local[:, 2] - shape.size[1], 0))


@pytest.mark.parametrize("name", ["box_sphere", "box_capsule", "capsule_cylinder"])
def test_apart_it_is_the_least_distance_of_any_point_of_the_axis(name):
    one, two = draw(name, seed=1, spread=0.1)
    dist, pos, normal = (np.asarray(x)[:, 0] for x in jax.vmap(getattr(contacts, name))(one, two))
    apart = np.flatnonzero(dist > 0.005)
    assert len(apart) > N / 3
    for i in apart:
        a, b = (contacts.Shape(*(x[i].astype(float) for x in s)) for s in (one, two))
        solid, ball = (b, a) if name.startswith("capsule") else (a, b)
        kind = "cylinder" if name.endswith("cylinder") else "box"
        half = 0.0 if name.endswith("sphere") else ball.size[1]
        axis = ball.pos + np.linspace(-half, half, 2001)[:, None] * ball.mat[:, 2]
        least = beyond(kind, solid, axis).min() - ball.size[0]
        assert dist[i] == pytest.approx(least, abs=3e-5)
        # The contact is halfway between the two, along the normal.
        towards = normal[i] if solid is a else -normal[i]
        surface = pos[i] - towards * dist[i] / 2
        assert beyond(kind, solid, surface[None])[0] < 1e-5
        assert beyond(kind, solid, (surface + 1e-3 * towards)[None])[0] == pytest.approx(1e-3, 1e-2)


def test_more_axes_behind_are_more_of_the_same():
    one, two = draw("capsule_cylinder")
    alone = jax.vmap(contacts.capsule_cylinder)(one, two)
    behind = jax.tree.map(lambda x: np.moveaxis(x, 0, -1), (one, two))
    for a, b in zip(alone, contacts.capsule_cylinder(*behind)):
        np.testing.assert_allclose(a, np.moveaxis(b, -1, 0), atol=1e-5)


@pytest.mark.parametrize("depth", [0.0, 0.01, 0.03])
def test_a_puck_inside_a_block_is_pushed_out_through_the_nearest_side(depth):
    eye = np.eye(3, dtype=np.float32)
    box = contacts.Shape(np.zeros(3, np.float32), eye, np.float32([0.06, 0.08, 0.05]))
    puck = contacts.Shape(np.float32([0.06 - depth, 0.01, 0.04]), eye, np.float32([0.05, 0.05, 0]))
    dist, _, normal = contacts.box_puck(box, puck)
    np.testing.assert_allclose(dist, [-depth - 0.05], atol=1e-6)
    np.testing.assert_allclose(normal, [[1, 0, 0]], atol=1e-6)
