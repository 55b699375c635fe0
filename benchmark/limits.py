"""What random play and the best possible play come to over all starts.

    python benchmark/limits.py    ->   benchmark/results/limits.json    (two minutes)

Hard Move and Catch Point are deterministic and linear, so that no play with |z| <= 1 can have more than `hard_move` and
`catch_point` say. In step i an agent adds DT FORCE w_i to its velocity, of which it keeps VELOCITY_DECAY; w_i is in W,
the convex hull of what one action can do. After j steps it has moved by c_j w with some w in W, where c_j is how far
j steps with full force in one direction lead: the weights of the w_i are not negative, and their sum is c_j. From a
target at `offset` it is thus at least as far away as `offset` is from c_j W. No single way may come as near as that
after every step, so these are upper bounds; on Catch Point, where W is a disc, the straight way does, until it
overshoots.
"""

import json
import sys
from pathlib import Path

import numpy as np
from scipy.stats import qmc
from tqdm import tqdm

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
import flexplore_catch_point as catch_point_script  # noqa: E402
import flexplore_goal as goal_script  # noqa: E402
import flexplore_hard_move as hard_move_script  # noqa: E402
import flexplore_platform as platform_script  # noqa: E402

ENVIRONMENTS = {
    "platform": platform_script.PlatformEnv(),
    "goal": goal_script.GoalEnv(),
    "hard_goal": goal_script.HardGoalEnv(),
    "catch_point": catch_point_script.CatchPointEnv(),
    **{f"hard_move_{n}": hard_move_script.HardMoveEnv(n) for n in (4, 6, 8, 10)},
}
STEP_LIMITS = {"final": 30, "final_25": 25}  # of Hard Move's entries of result.json
ANGLES = np.linspace(0, 2 * np.pi, 360, endpoint=False)
DIRECTIONS = np.stack([np.cos(ANGLES), np.sin(ANGLES)])  # (2, 360)


def travel(env, force):
    """How far an agent at rest has come after each step, with `force` in one direction (a number for each step)."""
    position, velocity, positions = 0.0, 0.0, []
    for f in force:
        velocity = env.VELOCITY_DECAY * velocity + env.DT * env.FORCE * f
        position += env.DT * velocity
        positions.append(position)
    return np.array(positions)


def starts(env, seeds):
    """-> target - agent at the start of the episodes with these seeds (episodes, 2)."""
    return np.array([(env.reset(seed=seed), env.target - env.position)[1] for seed in seeds])


def all_starts(log2_n=17):
    """The same of starts that cover all there are evenly: agent and target are uniform in [-1, 1]^2."""
    agent_and_target = 2 * qmc.Sobol(4, rng=0).random_base2(log2_n) - 1
    return agent_and_target[:, 2:] - agent_and_target[:, :2]


def hard_move(env, offset, step_limit):
    """An upper bound on the return from `offset` (episodes, 2), and whether the target may be reached (episodes,).

    The distance from c W is the most, over unit vectors e, of offset e - c max_{w in W} w e. Some directions e
    instead of all can only make it smaller, and the bound higher.
    """
    along, width = offset @ DIRECTIONS, np.abs(env.motions @ DIRECTIONS).max(axis=0)  # z may be negative
    reach = travel(env, np.ones(step_limit))
    q = np.stack([(along - c * width).max(axis=1).clip(min=0) ** 2 for c in reach])  # (step_limit, episodes)
    cost, at_target = q.cumsum(axis=0), q <= env.TARGET_RADIUS**2
    with_target = np.where(at_target, env.TARGET_REWARD - cost, -np.inf).max(axis=0)
    return np.maximum(with_target, -cost[-1]), at_target.any(axis=0)


def catch_point(env, offset):
    """The same for Catch Point: catch at some step, or end the episode by failed catches, or wait for its end.

    Whatever catches an episode has, moves before them bring the agent as near as possible after every step.
    """
    distance = np.linalg.norm(offset, axis=1)

    def squared_distances(moves, catches):  # after each step
        return (distance - travel(env, [1] * moves + [0] * catches)[:, None]).clip(min=0) ** 2

    caught, otherwise = [], [-squared_distances(env.step_limit, 0).sum(axis=0)]
    for moves in range(env.step_limit):
        q = squared_distances(moves, 1)
        caught.append(np.where(q[-1] <= env.CATCH_RADIUS**2, env.CATCH_REWARD - q.sum(axis=0), -np.inf))
    failures = env.MAX_FAILURES + 1  # the step after them pays 0
    for moves in range(env.step_limit - failures):
        otherwise.append(-squared_distances(moves, failures).sum(axis=0))
    caught = np.max(caught, axis=0)
    return np.maximum(caught, np.max(otherwise, axis=0)), np.isfinite(caught)


def limit(task, offset, entry="final"):
    """An upper bound on the return from `offset` (episodes, 2), and whether success is possible (episodes,).

    entry: the one of result.json that it is for.
    """
    env = ENVIRONMENTS[task]
    return catch_point(env, offset) if task == "catch_point" else hard_move(env, offset, STEP_LIMITS[entry])


def play_at_random(env, seeds):
    """Returns and successes of uniformly random k and z (episodes,)."""
    rng, (returns, successes) = np.random.default_rng(0), np.zeros((2, len(seeds)))
    for i, seed in enumerate(seeds):
        env.reset(seed=seed)
        terminated = truncated = False
        while not (terminated or truncated):
            action = rng.integers(len(env.parameter_sizes)), rng.uniform(-1, 1, max(env.parameter_sizes))
            _, r, terminated, truncated, info = env.step(action)
            returns[i], successes[i] = returns[i] + r, info["is_success"]
    return returns, successes


if __name__ == "__main__":
    results = {}
    for task, env in tqdm(ENVIRONMENTS.items()):
        plays = {"random": play_at_random(env, range(10_000))}
        if task not in ("platform", "goal", "hard_goal"):
            entries = {"final"} if task == "catch_point" else STEP_LIMITS
            plays |= {entry: limit(task, all_starts(), entry) for entry in entries}
        results[task] = {
            name: {"return_mean": returns.mean(), "success_rate": successes.mean()}
            for name, (returns, successes) in plays.items()
        }
    (ROOT / "benchmark" / "results" / "limits.json").write_text(json.dumps(results, indent=1))
    print(json.dumps(results, indent=1))
