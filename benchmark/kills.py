"""Runs killed at random moments and resumed, against the same run undisturbed: do they end with the same result?

    python benchmark/kills.py   ->   benchmark/results/kills.json

Small runs of each script, a checkpoint every few steps. Each is killed (SIGKILL) and resumed three times in a row. Its
checkpoint.pt and result.json have to be whole after each kill, and the result.json of the end that of the undisturbed
run, timings apart.
"""

import json
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

import torch
import tyro
from tqdm import tqdm

ROOT = Path(__file__).parents[1]
SCRIPTS = "platform", "goal", "catch_point", "hard_move"
FLAGS = ("--total-timesteps 2000 --learning-starts 100 --updates-per-step 1 --num-samples 32 --num-elites 4 "
         "--batch-size 16 --eval-frequency 500 --eval-episodes 2 --final-eval-episodes 8 "
         "--checkpoint-frequency 20").split()  # fmt: skip
TIMINGS = {"wall_seconds", "sps", "plan_ms", "update_ms", "evaluation_seconds"}


@dataclass
class Args:
    runs: int = 8
    """runs that are killed, in turns of the four scripts"""
    kills: int = 3
    """of each run, in a row"""
    seed: int = 0
    """seed of the moments"""


def start(script, folder, *flags):
    """-> the process, when it has written a checkpoint or is over."""
    command, began = [sys.executable, ROOT / f"flexplore_{script}.py", *FLAGS, *flags], time.time()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not any(x.stat().st_mtime > began for x in folder.glob("runs/*/checkpoint.pt")):
        time.sleep(0.01)
    return process


def outcome(folder):
    """What result.json says, timings apart."""
    (path,) = folder.glob("runs/*/result.json")
    result = {name: value for name, value in json.loads(path.read_text()).items() if name not in TIMINGS}
    result["curve"] = [{k: v for k, v in point.items() if k not in TIMINGS} for point in result["curve"]]
    return result


def examine(folder):
    """-> the step of the checkpoint, and the names of files that are not whole."""
    step, corrupt = None, []
    for path in (*folder.glob("runs/*/checkpoint.pt"), *folder.glob("runs/*/result.json")):
        try:
            if path.suffix == ".pt":
                assert ZipFile(path).testzip() is None
                step = torch.load(path, weights_only=True)["step"]
            else:
                json.loads(path.read_text())
        except Exception:
            corrupt.append(path.name)
    return step, corrupt


def kill_and_resume(script, moments, undisturbed):
    """One run, killed and resumed at each of the moments, in seconds from the next checkpoint -> a record.

    None if it had ended before a kill.
    """
    with tempfile.TemporaryDirectory() as name:
        folder, resume, steps, corrupt = Path(name), [], [], []
        for moment in moments:
            process = start(script, folder, *resume)
            time.sleep(moment)
            process.kill()
            if process.wait() == 0:  # a run that fails goes on here, and is not identical
                return None
            step, files = examine(folder)
            steps.append(step), corrupt.extend(files)
            resume = ["--resume", *map(str, folder.glob("runs/*"))]
        ended = start(script, folder, *resume).wait() == 0
        record = {"script": script, "seconds": moments, "resumed_after_steps": steps}
        return record | {"identical": ended and outcome(folder) == undisturbed, "corrupt": corrupt + examine(folder)[1]}


if __name__ == "__main__":
    args = tyro.cli(Args)
    moments, undisturbed, spans, records = random.Random(args.seed), {}, {}, []
    for script in SCRIPTS:
        with tempfile.TemporaryDirectory() as folder:
            process, began = start(script, Path(folder)), time.perf_counter()
            assert process.wait() == 0, script
            undisturbed[script], spans[script] = outcome(Path(folder)), time.perf_counter() - began
    with tqdm(total=args.runs, desc="runs", unit="run") as progress:
        while len(records) < args.runs:
            script = SCRIPTS[len(records) % len(SCRIPTS)]
            after = [moments.uniform(0, spans[script] / args.kills) for _ in range(args.kills)]
            if record := kill_and_resume(script, after, undisturbed[script]):
                records.append(record)
                progress.update()
    provenance = {name: undisturbed["platform"][name] for name in ("hardware", "versions")}
    provenance["commit"] = {script: result["commit"] for script, result in undisturbed.items()}
    summary = {"runs": len(records), "kills": sum(len(r["seconds"]) for r in records)}
    summary |= {"identical": sum(r["identical"] for r in records)}
    summary |= {"corrupt_files": sum(len(r["corrupt"]) for r in records)}
    print(summary)
    path = ROOT / "benchmark" / "results" / "kills.json"
    path.write_text(json.dumps(summary | provenance | {"flags": FLAGS, "records": records}, indent=1))
