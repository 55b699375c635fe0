"""The environments against recordings of the reference implementations (tests/data) and the Gymnasium interface."""

import copy
from importlib import import_module
from itertools import islice
from operator import attrgetter
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

PLATFORM_STATE = ["x", "y", "vx", "vy", "enemy_x", "enemy_vx"]
GOAL_STATE = [f"{body}.{name}" for body in ("player", "keeper") for name in ("x", "y", "vx", "vy", "orientation")]
GOAL_STATE += ["ball.x", "ball.y", "ball.vx", "ball.vy", "time"]
POINT_STATE = ["velocity", "position", "target"]

# recording: script, class, id, arguments, parameter_sizes, state attributes, their columns in [obs_raw, hidden]
ENVIRONMENTS = {
    "platform": ("flexplore_platform", "PlatformEnv", "Platform-v0", {}, (1, 1, 1),
                 PLATFORM_STATE, [9, 10, 11, 12, 13, 16, 15, 18]),
    "goal": ("flexplore_goal", "GoalEnv", "Goal-v0", {}, (2, 1, 1), GOAL_STATE, range(15)),
    "hard_goal": ("flexplore_goal", "HardGoalEnv", "HardGoal-v0", {}, (2,) + 10 * (1,), GOAL_STATE, range(15)),
    "catch_point": ("flexplore_catch_point", "CatchPointEnv", "CatchPoint-v0", {}, (1, 0),
                    [*POINT_STATE, "failures"], [0, 1, 4, 5, 6, 7, 8]),
    **{f"hard_move_n{n}": ("flexplore_hard_move", "HardMoveEnv", "HardMove-v0", {"n": n, "step_limit": 25},
                           2**n * (1,), POINT_STATE, [0, 1, 4, 5, 6, 7]) for n in (4, 6, 8, 10)},
}  # fmt: skip


def make(name, **kwargs):
    script, class_name, _, default_kwargs, *_ = ENVIRONMENTS[name]
    return getattr(import_module(script), class_name)(**{**default_kwargs, **kwargs})


def load(name):
    with np.load(Path(__file__).parent / "data" / f"{name}.npz", allow_pickle=False) as data:
        return dict(data)


def next_draws(rng):
    """The next uniform and the next Gaussian draw: they show whether the right number of draws was made before."""
    return copy.deepcopy(rng).random_sample(), copy.deepcopy(rng).standard_normal()


def replay(env, data, episode):
    """Yield the row of the recording and what the environment returns, for the reset and every step of an episode."""
    env.np_random = np.random.RandomState(data["seed"][episode])
    yield episode, env.reset()
    for i in data["ep_start"][episode] + np.arange(data["ep_len"][episode]):
        yield i, env.step((data["action"][i], data["param_unit"][i].astype(np.float32)))


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_recorded_episodes(name):
    env, data = make(name), load(name)
    *_, attributes, columns = ENVIRONMENTS[name]
    assert "motions" not in data or np.abs(env.motions - data["motions"]).max() < 1e-9  # of every k of Hard Move
    for episode in range(len(data["seed"])):
        for i, (obs, *outcome, info) in replay(env, data, episode):
            where, prefix = f"{name}, episode {episode}, row {i}", "next" if outcome else "reset"
            if outcome:
                reward, terminated, truncated = outcome
                assert terminated is bool(data["terminated"][i]) and truncated is bool(data["truncated"][i]), where
                assert abs(reward - data["reward"][i]) <= 1e-9, where
                assert info["is_success"] is (terminated and data["end"][episode].item() in ("success", "goal")), where
                assert "internal_steps" not in data or info["internal_steps"] == data["internal_steps"][i], where
            state = np.hstack([attrgetter(attribute)(env) for attribute in attributes])
            recorded = np.hstack([data[f"{prefix}_obs_raw"][i], data[f"{prefix}_hidden"][i]])[columns]
            np.testing.assert_allclose(state, recorded, rtol=0, atol=1e-9, err_msg=where)
            np.testing.assert_allclose(obs, data[f"{prefix}_obs_agent"][i], rtol=1e-6, atol=1e-6, err_msg=where)
            assert data["out_of_range"][episode] or obs in env.observation_space, where
            if "step_rng_next" in data:
                draws = data["step_rng_next" if outcome else "reset_rng_next"][i]
                assert next_draws(env.np_random) == tuple(draws), where
        assert terminated or truncated


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_step_limit(name):
    data = load(name)
    terminated = data["terminated"][data["ep_start"] + data["ep_len"] - 1]
    episode = np.flatnonzero(terminated & (data["ep_len"] > 2))[0]
    length = data["ep_len"][episode]
    for limit in (length - 1, length):
        steps = islice(replay(make(name, step_limit=limit), data, episode), 1, limit + 1)
        # termination at the limit is no truncation; in Goal the step at the limit does not move, so cannot terminate
        last = (True, False) if limit == length and "goal" not in name else (False, True)
        assert [step[2:4] for _, step in steps] == [(False, False)] * (limit - 1) + [last]


@pytest.mark.filterwarnings("error", "ignore:.*A Box observation space")
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_gymnasium_interface(name):
    script, class_name, env_id, kwargs, parameter_sizes, *_ = ENVIRONMENTS[name]
    module = import_module(script)
    env = gym.make(env_id, render_mode="rgb_array", **kwargs)
    assert type(env.unwrapped) is getattr(module, class_name)
    check_env(env.unwrapped)
    assert env.unwrapped.parameter_sizes == parameter_sizes
    box = gym.spaces.Box(-1, 1, (max(parameter_sizes),), np.float32)
    assert env.action_space == gym.spaces.Tuple((gym.spaces.Discrete(len(parameter_sizes)), box))
    env.reset(seed=1)
    frames = [env.render()]
    for _ in range(2):  # the same action twice: the second change of the picture is not one of the action shown
        env.step((int("hard_move" in name), np.full(box.shape, -0.5, np.float32)))
        frames.append(env.render())
    assert np.array_equal(env.render(), frames[2])
    assert (frames[0] != frames[1]).any() and (frames[1] != frames[2]).any()
    for k, u in (0, -0.5), (0, -0.4), (1, -0.5), (len(parameter_sizes) - 1, 0.3):
        env.unwrapped.action = k, [u]  # all else stays as it is
        frames.append(env.render())
    assert len({frame.tobytes() for frame in frames[3:]}) == 4


def platform(**state):
    env = make("platform")
    env.reset(seed=3)
    vars(env).update(state)
    return env


# Platform cases that no recording contains: player x, y, vx, vy before and after one substep in the air
@pytest.mark.parametrize("before, after, success", [
    ((1030, 100, 150, 500), (1035, 110, 99, 200), True),  # speed limits, then the decay of vx
    ((300, 45, 0, -500), (300, 35, 0, -200), False),
    ((1034, 41, 50, -100), (1035, 35.9755, 49.5, -100.49), True),  # at the right end a fall does not count
    ((249.5, 37, 0, 0), (250, 36.9755, 0, -0.49), False),  # out of a platform to the right
    ((100, -15, 0, 0), (100, -30, 0, 0), False),  # downwards
    ((100, 5, 0, 0), (100, 4.9755, 0, 0), False),  # deep inside: stopped, not moved
    ((470, 5, 0, 0), (455, 4.9755, 0, -0.49), False),  # and at the same height sideways, whatever the distance
])  # fmt: skip
def test_platform_substep(before, after, success):
    env = platform(**dict(zip(("x", "y", "vx", "vy"), before)))
    _, _, terminated, _, info = env.step((1, np.zeros(1, np.float32)))
    assert terminated and info == {"is_success": success, "internal_steps": 1}
    np.testing.assert_allclose((env.x, env.y, env.vx, env.vy), after, rtol=0, atol=0.2)  # the noise of vx


def test_platform_enemies_where_no_recording_is():
    """At exactly 475 the first enemy moves and is observed, from the second platform; one that is frozen collides."""
    env = platform(x=475.0)
    obs, *_ = env.step((0, -np.ones(1, np.float32)))
    assert env.x == 475 and env.enemy_x[0] < 230 and env.enemy_x[1] == 730
    raw = [env.enemy_x[0] / 1035, (env.enemy_vx[0] + 30) / 60, 1, 50 / 275, 1, 475 / 1035]
    np.testing.assert_allclose(obs[2:8], 2 * np.array(raw) - 1, rtol=0, atol=1e-6)
    env = platform(x=600.0, enemy_x=[610.0, 730.0])
    _, _, terminated, _, info = env.step((0, -np.ones(1, np.float32)))
    assert terminated and info["internal_steps"] == 1 and env.enemy_x[0] == 610


def test_platform_clips_parameters():
    envs = [platform(x=20.0, vx=70.0) for _ in range(2)]  # a leap at full speed; the noise of this seed keeps it off
    for env, u in zip(envs, (1.0, 1.6)):  # the limit of vx
        env.step((2, np.full(1, u, np.float32)))
    assert envs[0].x == envs[1].x


def test_platform_render_shows_every_body():
    frames = [platform(**state).render() for state in ({}, {"x": 9.0}, {"y": 49.0}, {"enemy_x": [99.0, 730.0]},
                                                       {"enemy_x": [230.0, 600.0]})]  # fmt: skip
    assert len({frame.tobytes() for frame in frames}) == len(frames)


def test_original_gym_platform_plays_the_same():
    """The adapter of --env-source gym-platform against our environment, on the same draws."""
    pytest.importorskip("gym_platform")
    from flexplore_platform import OriginalPlatformEnv, PlatformEnv

    ours, original, actions = PlatformEnv(), OriginalPlatformEnv(), np.random.default_rng(0)
    for seed in range(30):
        np.testing.assert_allclose(ours.reset(seed=seed)[0], original.reset(seed=seed)[0], atol=1e-6)
        ours.np_random, original.original.np_random = np.random.RandomState(seed), np.random.RandomState(seed)
        original.original._update_seeds()
        done = False
        while not done:
            action = actions.integers(3), actions.uniform(-1, 1, 1).astype(np.float32)
            a, b = ours.step(action), original.step(action)
            np.testing.assert_allclose(a[0], b[0], atol=1e-6)
            assert a[1] == pytest.approx(b[1], abs=1e-9) and a[2:] == b[2:]
            done = a[2] or a[3]
