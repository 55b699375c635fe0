"""What the scripts' planner reaches on the TRUE dynamics of Hard Move, from the starts of the final evaluation.

    python benchmark/ceiling.py --n 4   ->   benchmark/results/ceiling/hard_move_4.json
"""

import json
import sys
from pathlib import Path

import torch
import tyro

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from flexplore_hard_move import FINAL_SEEDS, FINAL_STEP_LIMITS, Agent, Args, HardMoveEnv, evaluate  # noqa: E402


class TrueHardMove(Agent):
    """The agent's networks replaced by the equations of the environment."""

    def __init__(self, args):
        env = HardMoveEnv(args.n)
        super().__init__(4, env.parameter_sizes, args)
        self.motions = torch.tensor(env.motions, dtype=torch.float32)
        self.dynamics.forward = lambda s, k, z: (self.next_state(s, k, z), None)

    def next_state(self, s, k, z):
        velocity = 0.75 * s[:, :2] + 0.1 * 2 * z * self.motions[k]
        return torch.cat([velocity, s[:, 2:] - 0.1 * velocity], dim=1)

    def reward_and_continuation(self, s, k, z, s_next):
        q = self.next_state(s, k, z)[:, 2:].square().sum(dim=1)
        return torch.where(q <= 0.04, 20 - q, -q), (q > 0.04).float()


if __name__ == "__main__":
    args = tyro.cli(Args)
    args.proposal_fraction = 0.0  # there are no trained policies to propose anything
    torch.set_num_threads(1)
    ceiling = {"args": vars(args)}
    seeds, step_limits = FINAL_SEEDS[: args.final_eval_episodes], tuple(FINAL_STEP_LIMITS.values())
    results = evaluate(TrueHardMove(args), args, seeds, step_limits, progress=True)
    for name, (returns, successes) in zip(FINAL_STEP_LIMITS, results):
        ceiling[name] = {"return_mean": returns.mean(), "return_std": returns.std(), "success_rate": successes.mean()}
        print(f"n = {args.n}, {name}: return {returns.mean():.3f}, success {successes.mean():.1%}")
    path = ROOT / "benchmark" / "results" / "ceiling" / f"hard_move_{args.n}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(ceiling, indent=1))
