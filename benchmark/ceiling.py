"""What the scripts' planner reaches on the TRUE equations of a task, from the starts of the final evaluation.

    python benchmark/ceiling.py hard-move --n 4   ->   benchmark/results/ceiling/hard_move_4.json
    python benchmark/ceiling.py catch-point       ->   benchmark/results/ceiling/catch_point.json

It splits what an agent misses into search (limit - ceiling) and model or exploration (ceiling - agent).
"""

import json
import math
import sys
from pathlib import Path
from typing import Annotated

import torch
import tyro

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
import flexplore_catch_point as catch_point  # noqa: E402
import flexplore_hard_move as hard_move  # noqa: E402


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
        q, failures, t = s_next[:, 2:4].square().sum(dim=1), 6 * (s[:, 4] + 1), 12 * (s_next[:, 5] + 1)
        caught, given_up = (k == 1) & (q <= 0.04), failures > 10.5
        reward = torch.where(caught, 20 - q, -q) * ~given_up
        return reward, (~caught & ~given_up & (t < 24.5)).float()


if __name__ == "__main__":
    args = tyro.cli(
        Annotated[hard_move.Args, tyro.conf.subcommand("hard-move", description="the equations of Hard Move")]
        | Annotated[catch_point.Args, tyro.conf.subcommand("catch-point", description="the equations of Catch Point")]
    )
    script, task, true = hard_move, f"hard_move_{getattr(args, 'n', '')}", TrueHardMove
    if isinstance(args, catch_point.Args):
        script, task, true = catch_point, "catch_point", TrueCatchPoint
    script.check(args)
    args.proposal_fraction, args.total_timesteps = 0.0, 0  # nothing is trained, nor are policies that could propose
    script.configure_torch()
    result = {"args": vars(args), "wall_seconds": 0} | script.provenance(args)
    ceiling = script.final_evaluation(true(args), args, result)
    path = ROOT / "benchmark" / "results" / "ceiling" / f"{task}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(ceiling, indent=1))
