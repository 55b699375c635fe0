"""Run an experiment = tasks x variants x seeds, to benchmark/results/<experiment>/<task>/<variant>/seed_<n>.json.

    python benchmark/run.py table --tasks platform --seeds 1 2 3 4 5

Finished runs are skipped, so a stopped experiment is taken up by the same command. A failed run leaves its log.
"""

import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from tqdm import tqdm

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmark" / "results"
TASKS = {
    "platform": ["flexplore_platform.py", "--eval-frequency", "500", "--eval-episodes", "100"],
    "goal": ["flexplore_goal.py"],
    "hard_goal": ["flexplore_goal.py", "--env-id", "HardGoal-v0"],
    "catch_point": ["flexplore_catch_point.py"],
    **{f"hard_move_{n}": ["flexplore_hard_move.py", "--n", str(n)] for n in (4, 6, 8, 10)},
}
DLPA_LIKE = ["--flexibility", "0", "--mi-weight", "0", "--smoothing", "never", "--proposal-fraction", "0"]
EXPERIMENTS = {  # variants: name and flags
    "table": {"flexplore": [], "dlpa_like": DLPA_LIKE},  # the default runs
    "development": {"flexplore": []},  # default runs on training seeds 11-13, which defaults were chosen on
}


@dataclass
class Args:
    experiment: tyro.conf.Positional[Literal[tuple(EXPERIMENTS)]]
    """what to run"""
    tasks: tuple[Literal[tuple(TASKS)], ...] = tuple(TASKS)
    """the tasks"""
    variants: tuple[str, ...] = ()
    """the variants of the experiment; all unless given"""
    seeds: tuple[int, ...] = (1, 2, 3, 4, 5)
    """the training seeds"""
    workers: int = 2
    """runs side by side, one thread each"""


def run(task, flags, seed, path):
    """One run of a script, in a directory of its own -> whether it succeeded. Its result.json becomes `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    script, *task_flags = TASKS[task]
    command = [sys.executable, ROOT / script, *task_flags, *flags, "--seed", str(seed)]
    with tempfile.TemporaryDirectory() as folder, open(path.with_suffix(".log"), "w") as log:
        failed = subprocess.run(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT).returncode
        if not failed:
            (result,) = Path(folder).glob("runs/*/result.json")
            path.write_text(result.read_text())
    if not failed:
        path.with_suffix(".log").unlink()
    return not failed


if __name__ == "__main__":
    args = tyro.cli(Args)
    variants = {v: f for v, f in EXPERIMENTS[args.experiment].items() if not args.variants or v in args.variants}
    jobs = {
        RESULTS / args.experiment / task / variant / f"seed_{seed}.json": (task, flags, seed)
        for task in args.tasks for seed in args.seeds for variant, flags in variants.items()
    }  # fmt: skip
    waiting = {path: job for path, job in jobs.items() if not path.exists()}
    with ThreadPoolExecutor(args.workers) as pool:
        futures = {pool.submit(run, *job, path): path for path, job in waiting.items()}
        progress = tqdm(as_completed(futures), total=len(futures), desc=args.experiment, unit="run")
        failures = [futures[future] for future in progress if not future.result()]
    for path in failures:
        print(f"failed: {path.relative_to(ROOT)}; see {path.with_suffix('.log').name} beside it")
    sys.exit(bool(failures))
