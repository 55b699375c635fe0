"""What the scripts' planner reaches on the TRUE equations of a task, from the starts of the final evaluation.

    python benchmark/ceiling.py hard-move --n 4             ->   benchmark/results/ceiling/hard_move_4.json
    python benchmark/ceiling.py goal --env-id HardGoal-v0   ->   benchmark/results/ceiling/hard_goal.json
    python benchmark/ceiling.py catch-point                 ->   benchmark/results/ceiling/catch_point.json
    python benchmark/ceiling.py platform                    ->   benchmark/results/ceiling/platform.json

It splits what an agent misses into search (limit - ceiling) and model or exploration (ceiling - agent). Goal and
Platform are noisy: imagined sequences have noise of their own, four draws each on Goal and one on Platform, so the
planner also finds what was lucky. They take six and two seconds per episode: --final-eval-episodes 200.
"""

import json
import math
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
import tyro

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
import flexplore_catch_point as catch_point  # noqa: E402
import flexplore_goal as goal  # noqa: E402
import flexplore_hard_move as hard_move  # noqa: E402
import flexplore_platform as platform  # noqa: E402


class TrueHardMove(hard_move.Agent):
    """The agent's networks replaced by the equations of the environment."""

    def __init__(self, args):
        env = hard_move.HardMoveEnv(args.n)
        super().__init__(4, env.parameter_sizes, args)
        self.outcome_of_next = True  # rewards need the next state
        self.motions = torch.tensor(env.motions, dtype=torch.float32)
        self.dynamics.forward = lambda s, k, z: (self.next_state(s, k, z), s)

    def next_state(self, s, k, z):
        velocity = 0.75 * s[:, :2] + 0.1 * 2 * z * self.motions[k]
        return torch.cat([velocity, s[:, 2:] - 0.1 * velocity], dim=1)

    def reward_and_continuation(self, s, k, z, s_next):
        q = s_next[:, 2:].square().sum(dim=1)
        return torch.where(q <= 0.04, 20 - q, -q), (q > 0.04).float()


class TrueCatchPoint(catch_point.Agent):
    """The same for Catch Point. An 11th failed catch, which observations hide, is known only within a plan."""

    def __init__(self, args):
        super().__init__(6, catch_point.CatchPointEnv.parameter_sizes, args)
        self.outcome_of_next = True
        self.dynamics.forward = lambda s, k, z: (self.next_state(s, k, z), s)

    def next_state(self, s, k, z):
        angle, catch = math.pi * z, (k == 1)[:, None]
        velocity = 0.75 * s[:, :2] + 0.1 * 2 * torch.cat([angle.sin(), angle.cos()], dim=1) * ~catch
        offset = s[:, 2:4] - 0.1 * velocity
        missed = catch & (offset.square().sum(dim=1, keepdim=True) > 0.04)
        return torch.cat([velocity, offset, s[:, 4:5] + missed / 6, s[:, 5:] + 1 / 12], dim=1)

    def reward_and_continuation(self, s, k, z, s_next):
        q, failures = s_next[:, 2:4].square().sum(dim=1), 6 * (s[:, 4] + 1)
        caught, given_up = (k == 1) & (q <= 0.04), failures > 10.5
        reward = torch.where(caught, 20 - q, -q) * ~given_up
        return reward, (~caught & ~given_up).float()


def uniform(width, *shape):
    """Uniform in [-width, width]."""
    return width * (2 * torch.rand(*shape, dtype=torch.float64) - 1)


class TrueGoal(goal.Agent):
    """The same for Goal and Hard Goal: expected rewards and continuations, from several draws of the noise.

    A state is `DRAWS` observations in a row, each with noise of its own. In them the unit vector from keeper to ball,
    which follows from the rest, gives way to whether the episode goes on, and the reward.
    """

    DRAWS = 4

    def __init__(self, args):
        self.env = goal.make_env(args).unwrapped
        super().__init__(17, self.env.parameter_sizes, args)
        self.outcome_of_next = True
        self.dynamics.forward = lambda s, k, z: (self.next_states(s, k, z), s)

    @classmethod
    def make_env(cls, args, render_mode=None, make_env=goal.make_env):
        """That of the script, with observations that are such states."""

        def draws(observation):
            return np.tile([*observation[:14], 1, 0, 0], cls.DRAWS).astype(np.float32)

        return gym.wrappers.TransformObservation(make_env(args, render_mode), draws, None)

    def next_states(self, s, k, z):  # s (R, 17 DRAWS), k (R,), z (R, m) -> s' (R, 17 DRAWS)
        s, k, z = s.view(-1, 17), *(x.repeat_interleave(self.DRAWS, dim=0) for x in (k, z))
        on, s_next = s[:, 14] > 0, torch.zeros_like(s)
        if on.any():
            s_next[on] = self.next_state(s[on], k[on], z[on])
        return s_next.view(-1, 17 * self.DRAWS)

    def target(self, k, z):  # -> (2, rows)
        return torch.tensor([self.env._target(*action) for action in zip(k.tolist(), z[:, 0].tolist())]).double().T

    def next_state(self, s, k, z):
        env, low, span = self.env, torch.as_tensor(self.env.OBS_LOW), torch.as_tensor(self.env.OBS_RANGE)
        features = ((s + 1) / 2 * span + low).double()
        bodies = torch.stack([*features[:, :10].view(-1, 2, 5).unbind(1), features[:, 10:15]]).transpose(1, 2)
        target, kick_to, out = self.target(k, z), k == 0, torch.zeros(17, len(s), dtype=torch.float64)
        row, active = torch.arange(len(s)), bodies.contiguous()  # (3, 5, rows): x, y, vx, vy, orientation
        while len(row):
            player, keeper, ball = active
            self.move_player(player, ball, target)
            self.move_keeper(keeper, ball)
            self.move_bodies(active)
            x, y = ball[:2]
            success = (x >= env.GOAL_X) & (x <= env.GOAL_X + env.NET_DEPTH) & (y.abs() <= env.GOAL_HALF)
            outside = (x < 0) | (x > env.GOAL_X) | (y.abs() > env.HALF_WIDTH)
            failure = ~success & (outside | (distance(keeper, ball) < env.CATCH_DISTANCE))
            at_rest = (torch.hypot(*ball[2:4]) <= env.REST_SPEED) & (distance(player, ball) <= env.KICK_DISTANCE)
            ends = success | failure
            done = ends | kick_to & at_rest
            if done.any():
                out[:14, row[done]] = active[..., done].flatten(0, 1)[:14]
                beside = (y.abs() - env.GOAL_HALF).clamp(min=0)
                lost = torch.where(x < env.GOAL_X, torch.hypot(env.GOAL_X - x, beside),
                                   torch.where(y < -env.GOAL_HALF, env.GOAL_HALF - y, beside))  # fmt: skip
                reward = torch.where(success, env.GOAL_REWARD, torch.where(failure, -lost, 0.0))
                out[14:16, row[done]] = torch.stack([~ends[done], reward[done]])
                row, kick_to, target, active = row[~done], kick_to[~done], target[:, ~done], active[..., ~done]
        scaled = 2 * (out.T.float() - low) / span - 1
        return torch.cat([scaled[:, :14], out[14:].T.float()], dim=1)

    def accelerate(self, body, constants, power, angle, where):
        noise, bound, v = constants["noise"], constants["bound"], body[2:4]
        angle = angle * (1 + uniform(noise, len(angle)))
        force = constants["power_rate"] * power * torch.stack([angle.cos(), angle.sin()])
        push = (force + torch.hypot(*v) * uniform(noise, *v.shape)).clamp(-bound, bound)
        body[2:4] = torch.where(where, (v + push).clamp(-bound, bound), v)

    def move_player(self, player, ball, target):
        env, far = self.env, distance(player, ball)
        turn = torch.remainder(direction(player, ball[:2]) - player[4] + math.pi, 2 * math.pi) - math.pi
        kicks, faces = far <= env.KICK_DISTANCE + 1e-5, turn.abs() < math.pi / 8  # starts are in reach by 1e-12
        ax, ay = (1 - env.BALL["decay"]) * (target - player[:2]) - ball[2:4]
        efficiency = 1 - 0.25 * turn.abs() / math.pi - 0.25 * far / env.KICK_DISTANCE
        power = torch.hypot(ax, ay) / (efficiency * env.BALL["power_rate"])
        self.accelerate(ball, env.BALL, power.clamp(max=env.MAX_KICK_POWER) * efficiency, torch.atan2(ay, ax), kicks)
        turned = player[4] + turn / (1 + env.INERTIA * torch.hypot(*player[2:4]))
        self.accelerate(player, env.PLAYER, env.DASH_POWER, player[4], ~kicks & faces)
        player[4] = torch.where(kicks | faces, player[4], turned)

    def move_keeper(self, keeper, ball):
        env = self.env
        rest = ball[:2] + ball[2:4] / (1 - env.BALL["decay"])
        run = rest[0] - ball[0]
        slope = torch.where(run != 0, (rest[1] - ball[1]) / run, 0.0)
        intercept = ball[1] - slope * ball[0]
        cuts_off = (rest[0] > env.GOAL_X) & (slope != 0)
        cuts_off &= (slope * env.GOAL_X + intercept).abs() <= env.INTERCEPT_HALF
        foot = (keeper[1] + keeper[0] / slope - intercept) / (slope + 1 / slope)
        to = torch.where(cuts_off, torch.stack([foot, slope * foot + intercept]), rest)
        keeper[4] = direction(keeper, to)
        power = torch.where(cuts_off, env.INTERCEPT_POWER, env.KEEPER_POWER)
        self.accelerate(keeper, env.PLAYER, power, keeper[4], torch.ones_like(cuts_off))

    def move_bodies(self, bodies):
        constants = self.env.PLAYER, self.env.PLAYER, self.env.BALL
        bodies[:, :2] += bodies[:, 2:4]
        bodies[:, 2:4] *= torch.tensor([c["decay"] for c in constants]).double()[:, None, None]
        for i, j in ((0, 1), (0, 2), (1, 2)):
            apart = bodies[i, :2] - bodies[j, :2]
            far = torch.hypot(*apart)
            overlap = constants[i]["radius"] + constants[j]["radius"] - far
            shift = overlap.clamp(min=0) / 2 * apart / far
            bodies[i, :2] += shift
            bodies[j, :2] -= shift
            bodies[[i, j], 2:4] *= torch.where(overlap > 0, -1.0, 1.0)

    def reward_and_continuation(self, s, k, z, s_next):
        s, s_next = s.view(-1, self.DRAWS, 17), s_next.view(-1, self.DRAWS, 17)
        on = s[..., 14].sum(dim=1).clamp(min=1)  # means over the draws that had gone on until this step
        return s_next[..., 15].sum(dim=1) / on, s_next[..., 14].sum(dim=1) / on


def distance(a, b):
    return torch.hypot(*(a[:2] - b[:2]))


def direction(body, to):
    return torch.atan2(to[1] - body[1], to[0] - body[0])


class TruePlatform(platform.Agent):
    """The same for Platform. In a predicted state the last feature, a constant, gives way to how the episode goes on:
    0 it does, 1 success, -1 failure."""

    def __init__(self, args):
        super().__init__(9, platform.PlatformEnv.parameter_sizes, args)
        self.outcome_of_next = True
        self.dynamics.forward = lambda s, k, z: (self.next_state(s, k, z), s)

    def next_state(self, s, k, z):
        env = platform.PlatformEnv
        raw = (s[:, :4].T.double() + 1) / 2 * torch.as_tensor(env.FEATURE_SCALE[:4, None])
        raw = raw.round(decimals=4)  # an enemy turns where it is exactly at its limit, which float32 blurs
        x, vx, enemy_x, enemy_vx = raw - torch.tensor([[env.WIDTH], [0.0], [0.0], [env.MAX_ENEMY_VX]])
        high, take_off_vy = (torch.tensor(values).double()[k] for values in (env.PARAMETER_HIGH, env.TAKE_OFF_VY))
        parameter = (high * (z[:, 0].double() + 1) / 2).clamp(min=0).minimum(high)
        # x, y, vx, vy of the player, x and vx of the enemy: (6, rows)
        active = torch.stack([x, torch.full_like(x, env.TOP), vx, torch.zeros_like(x), enemy_x, enemy_vx])
        row, substep, out = torch.arange(len(s)), 0, torch.zeros(7, len(s), dtype=torch.float64)
        while len(row):
            active = self.move(*active, k, parameter, take_off_vy)
            substep += 1
            x, y, *_, enemy_x, _ = active
            success = x >= env.GOAL_X
            touched = (y < env.TOP + env.HEIGHT) & ((x - enemy_x).abs() < env.WIDTH)
            failure = ~success & (touched | (y < env.TOP))
            landed = torch.where(k == 0, torch.tensor(substep == env.RUN_SUBSTEPS), self.on_platform(x, y))
            done, end = success | failure | landed, success.double() - failure.double()
            out[:, row[done]] = torch.cat([active, end[None]])[:, done]
            row, active, k = row[~done], active[:, ~done], k[~done]
            parameter, take_off_vy = parameter[~done], take_off_vy[~done]
        x, _, vx, _, enemy_x, enemy_vx, end = out
        scenery = torch.tensor(env.SCENERY)[sum((x >= left).long() for left, _ in env.PLATFORMS[1:])]
        features = torch.stack([x + env.WIDTH, vx, enemy_x, enemy_vx + env.MAX_ENEMY_VX, *scenery.T])
        scaled = 2 * features / torch.as_tensor(env.FEATURE_SCALE[:8, None]) - 1
        return torch.cat([scaled, end[None]]).T.float()

    def on_platform(self, x, y):
        env = platform.PlatformEnv
        above = [(left - env.WIDTH <= x) & (x <= right) for left, right in env.PLATFORMS]
        return (y == env.TOP) & torch.stack(above).any(dim=0)

    def move(self, x, y, vx, vy, enemy_x, enemy_vx, k, parameter, take_off_vy):
        """One substep. Only the active enemy is known: the first stays behind, the second waits where it starts."""
        env = platform.PlatformEnv
        on, noise = self.on_platform(x, y), torch.randn(4, len(x), dtype=torch.float64)
        jump_noise, (push_noise, enemy_noise) = noise[:2].abs(), env.NOISE_SCALE * noise[2:]
        jump_vx = parameter / (2 * take_off_vy / env.GRAVITY + 1)
        ax = torch.where(k == 0, parameter, jump_vx - vx - jump_noise[0]) / env.DT * on
        ay = torch.where(on, (take_off_vy - jump_noise[1]) / env.DT * (k > 0), -env.GRAVITY)
        vx = vx + ax.clamp(-env.MAX_AX, env.MAX_AX) * env.DT - push_noise.abs()
        vx = vx.clamp(0, env.MAX_VX).minimum(torch.where(on, env.MAX_VX_ON_PLATFORM, math.inf))
        vy = (vy + ay * env.DT).clamp(-env.MAX_VY, env.MAX_VY)
        second = x > env.PLATFORMS[1][0]
        x, y, vx = (x + vx * env.DT).clamp(0, env.GOAL_X), y + vy * env.DT, vx * env.VX_DECAY
        low = torch.where(second, env.PLATFORMS[1][0], env.PLATFORMS[0][0])
        high = torch.where(second, env.PLATFORMS[1][1], env.PLATFORMS[0][1]) - env.WIDTH
        enemy_vx = torch.where((low < enemy_x) & (enemy_x < high), enemy_vx, -enemy_vx) + enemy_noise
        enemy_vx = enemy_vx.clamp(-env.MAX_ENEMY_VX, env.MAX_ENEMY_VX)
        enemy_x = (enemy_x + enemy_vx * env.DT).maximum(low).minimum(high)
        for left, right in env.PLATFORMS:
            inside = (left - env.WIDTH < x) & (x < right) & (-env.HEIGHT < y) & (y < env.TOP)
            to_x = torch.where(x < left, left - env.WIDTH, torch.where(x > right - env.WIDTH, right, x))
            to_y = torch.where(y < 0, -env.HEIGHT, torch.where(y > 10, env.TOP, y))
            aside = (to_x != x) & ((to_y == y) | ((x - to_x).abs() < (y - to_y).abs()))
            x, y = torch.where(inside & aside, to_x, x), torch.where(inside & ~aside, to_y, y)
            vx, vy = torch.where(inside, 0.0, vx), torch.where(inside & ~aside, 0.0, vy)
        arrives = ~second & (x > env.PLATFORMS[1][0])
        enemy_x = torch.where(arrives, env.PLATFORMS[1][1] - env.WIDTH, enemy_x)
        enemy_vx = torch.where(arrives, -env.MAX_ENEMY_VX, enemy_vx)
        return torch.stack([x, y, vx, vy, enemy_x, enemy_vx])

    def reward_and_continuation(self, s, k, z, s_next):
        progress = (s_next - s)[:, 0] / 2 * platform.PlatformEnv.FEATURE_SCALE[0]
        return progress / platform.PlatformEnv.GOAL_X, (s_next[:, 8] == 0).float()


if __name__ == "__main__":
    tasks = {"hard-move": (hard_move, TrueHardMove), "goal": (goal, TrueGoal),
             "catch-point": (catch_point, TrueCatchPoint), "platform": (platform, TruePlatform)}  # fmt: skip
    args = tyro.extras.subcommand_cli_from_dict({name: script.Args for name, (script, _) in tasks.items()})
    task, script, true = next((name, *x) for name, x in tasks.items() if type(args) is x[0].Args)
    task = "hard_goal" if args.env_id == "HardGoal-v0" else task.replace("-", "_")
    task += f"_{args.n}" if script is hard_move else ""
    script.check(args)
    args.proposal_fraction, args.eval_caution, args.total_timesteps = 0.0, 0.0, 0  # no policies, and one model
    script.configure_torch()
    script.make_env = getattr(true, "make_env", script.make_env)
    result = {"args": vars(args), "wall_seconds": 0} | script.provenance(args)
    ceiling = script.final_evaluation(true(args), args, result)
    path = ROOT / "benchmark" / "results" / "ceiling" / f"{task}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(ceiling, indent=1))
