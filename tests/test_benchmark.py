"""benchmark/: experiments that the scripts accept, runs that are stopped and taken up again, a report that agrees."""

import copy
import dataclasses
import fcntl
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
import tyro

for package in ("submitit", "rliable", "matplotlib", "sklearn"):
    pytest.importorskip(package, reason="pip install -r benchmark/requirements.txt")

ROOT = Path(__file__).parents[1]
import ceiling  # noqa: E402
import limits  # noqa: E402
import plots  # noqa: E402
import prose  # noqa: E402
import report  # noqa: E402
import run as launcher  # noqa: E402
from experiments import DLPA_LIKE, EXPERIMENTS, PLAIN, SWEPT, home  # noqa: E402
from rliable import metrics  # noqa: E402

SMALL = ("--total-timesteps 480 --learning-starts 40 --eval-frequency 240 --eval-episodes 2 --final-eval-episodes 4 "
         "--num-samples 32 --num-elites 4 --batch-size 16 --checkpoint-frequency 20")  # fmt: skip
HAS_SLURM = shutil.which("sbatch") and subprocess.run(["sinfo"], capture_output=True).returncode == 0


# -------------------------------------------------------------------------------------------------------- experiments


def args_of(name, task, variant):
    script, *flags = EXPERIMENTS[name].command(task, variant)
    module = importlib.import_module(script.removesuffix(".py"))
    args = tyro.cli(module.Args, args=flags)
    module.check(args)
    return args


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_scripts_accept_the_flags_of_an_experiment_and_its_stored_runs_have_them(name):
    """And variants that share runs have the same."""
    experiment, results = EXPERIMENTS[name], report.Results()
    assert set(experiment.shared) <= set(experiment.variants)
    for task, variant in product(experiment.tasks, experiment.variants):
        home_name, home_variant = home(name, task, variant)
        args = args_of(name, task, variant)
        assert args == args_of(home_name, task, home_variant)
        flags = {n: x for n, x in vars(args).items() if n not in ("resume", "evaluate")}
        for run in results.runs(name, task, variant):
            idle = {"smoothing_epsilon"} if args.smoothing == "never" else set()
            idle |= {"random_spread"} if run["args"].get("random_spread", 0) == 0 else set()  # no script has it now
            assert set(report.differences(flags, run["args"])) <= idle


@pytest.mark.parametrize("task", SWEPT)
def test_sweep_halves_and_doubles_the_defaults(task):
    args = vars(args_of("sweep", task, "default"))
    assert SWEPT[task] == {flag: args[flag.replace("-", "_")] for flag in SWEPT[task]}


@pytest.mark.parametrize("flags, message", [
    ({"tasks": ("platform", "hard_goal")}, "horizon has no task hard_goal, only platform"),
    ({"variants": ("H_4",)}, "horizon has no variant H_4, only H_1"),
])  # fmt: skip
def test_run_refuses_what_an_experiment_lacks(flags, message):
    with pytest.raises(SystemExit, match=message):
        launcher.plan(launcher.Args("horizon", **flags))


def test_the_readme_names_the_flags_of_plain_and_of_dlpa_like():
    text = " ".join((ROOT / "README.md").read_text().replace("\\\n", "").split())
    assert PLAIN in text and f"`{DLPA_LIKE}`" in text


# --------------------------------------------------------------------------------------------------------------- runs


def start(output, *flags, seeds=("1",)):
    """run.py, printing to a file: a pipe would not end before the jobs that outlive it."""
    command = [sys.executable, ROOT / "benchmark" / "run.py", "table", "--tasks", "catch_point", "--variants"]
    command += ["flexplore", "--seeds", *seeds, f"--flags={SMALL}", "--output", output, *flags]
    with open(output / "out.txt", "w") as out:
        return subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)


def wait_for(condition):
    for _ in range(2400):  # two minutes, on a busy machine
        if condition():
            return
        time.sleep(0.05)
    raise TimeoutError


class Run:
    """Where run.py puts one run."""

    def __init__(self, output, seed=1):
        name = f"table/catch_point/flexplore/seed_{seed}"
        self.folder, self.result = output / "runs" / name, output / "results" / f"{name}.json"

    def has_checkpoint(self):
        return any(self.folder.glob("runs/*/checkpoint.pt"))

    def log(self):
        return (self.folder / "log.txt").read_text()

    def is_free(self):
        with open(self.folder / "lock") as lock, suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True

    def is_done_once(self):
        """Every evaluation once, so that nothing was done twice."""
        printed = [self.log().count(text) for text in ("step 240: ", "step 480: ", "final: ")]
        return [x["step"] for x in json.loads(self.result.read_text())["curve"]] == [240, 480] and printed == [1] * 3


def test_a_refused_submission_is_told_in_one_sentence(tmp_path):
    for command, text in (("sbatch", "echo 'job limit reached' >&2; exit 1"), ("srun", ""), ("squeue", "")):
        (tmp_path / command).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / command).chmod(0o755)
    command = [sys.executable, ROOT / "benchmark" / "run.py", "table", "--cluster", "slurm", "--output", tmp_path]
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(command, env=os.environ | {"PATH": path}, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "error: sbatch refused table/platform/flexplore/seed_1" in done.stderr and "job limit reached" in done.stderr


def test_a_job_whose_time_is_up_before_its_script_runs_is_submitted_again(tmp_path):
    waiting = launcher.Run("name", [], tmp_path, tmp_path / "result.json", False)
    assert waiting.checkpoint().function.name == "name"


def test_a_stopped_experiment_is_taken_up_and_failures_are_listed(tmp_path):
    run, broken = Run(tmp_path), Run(tmp_path, seed=2)
    process = start(tmp_path)
    wait_for(run.has_checkpoint)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 130 and not run.result.exists() and run.is_free()
    assert "interrupted after step" in run.log()
    (stopped,) = (run.folder / "runs").iterdir()

    broken.folder.mkdir(parents=True)
    (broken.folder / "runs").touch()  # where a directory should be
    process = start(tmp_path, seeds=("2", "1"))
    assert process.wait() == 1 and run.is_done_once() and not broken.result.exists()
    assert [path.name for path in (run.folder / "stored").iterdir()] == [stopped.name]  # the same run went on
    assert not (run.folder / "runs").exists()  # so that, if its result is removed, it is run anew
    out = (tmp_path / "out.txt").read_text()
    assert "failed: table/catch_point/flexplore/seed_2: " in out and str(broken.folder / "log.txt") in out

    before = run.result.stat().st_mtime_ns, run.log()
    assert start(tmp_path).wait() == 0 and "1 of 1 runs done" in (tmp_path / "out.txt").read_text()
    assert before == (run.result.stat().st_mtime_ns, run.log())


def test_a_killed_experiment_does_not_run_twice(tmp_path):
    run = Run(tmp_path)
    process = start(tmp_path)
    wait_for(run.has_checkpoint)
    process.kill(), process.wait()
    assert not run.is_free()  # the run has outlived it
    assert start(tmp_path).wait() == 0 and run.is_done_once()


def test_what_a_whole_run_takes():
    """Half of it took 50 s, its two evaluations of 10 episodes 4 s: 100 s, and 20 s for the final 100 episodes."""
    args = {"eval_episodes": 10, "final_eval_episodes": 100}
    result = {"args": args, "curve": [{"step": 20}, {"step": 40}], "total_timesteps": 80, "wall_seconds": 50.0}
    assert launcher.whole_seconds(result | {"evaluation_seconds": 4.0}) == pytest.approx(120)


@pytest.mark.skipif(not HAS_SLURM, reason="no SLURM; benchmark/README.md says how to set up one node")
def test_slurm_finds_its_jobs_again(tmp_path):
    run = Run(tmp_path)
    process = start(tmp_path, "--cluster", "slurm", "--mem", "2")
    wait_for(run.has_checkpoint)
    process.kill(), process.wait()
    job = (run.folder / "slurm_job").read_text()
    assert start(tmp_path, "--cluster", "slurm", "--mem", "2").wait() == 0 and run.is_done_once()
    assert job == (run.folder / "slurm_job").read_text()


# ------------------------------------------------------------------------------------------------------------ ceiling


class NoNoise(np.random.Generator):
    """Draws the middle of every distribution."""

    def random(self):
        return 0.5

    def normal(self, mean, std, size=None):
        return np.zeros(size) if size else 0.0


CEILINGS = {  # the agent, flags of a small search, and how many episodes it plays
    "hard_move": (ceiling.TrueHardMove, {"num_samples": 64}, 8),
    "catch_point": (ceiling.TrueCatchPoint, {"num_samples": 64}, 8),
    "goal": (ceiling.TrueGoal, {"env_id": "Goal-v0", "num_samples": 128}, 1),
    "hard_goal": (ceiling.TrueGoal, {"env_id": "HardGoal-v0", "num_samples": 128}, 1),
    "platform": (ceiling.TruePlatform, {"num_samples": 128, "horizon": 4}, 1),
}


@pytest.mark.parametrize("task", CEILINGS)
def test_the_equations_of_the_ceiling_are_the_environment(task, monkeypatch):
    """From every state of 100 random episodes without noise; and, with noise, the planner solves some episodes."""
    true, flags, episodes = CEILINGS[task]
    script = getattr(ceiling, "goal" if task == "hard_goal" else task)
    monkeypatch.setattr(script, "make_env", getattr(true, "make_env", script.make_env))
    args = script.Args(**flags, eval_samples_factor=1, proposal_fraction=0.0, eval_caution=0.0)
    agent, env, rows, random = true(args), script.make_env(args), [], np.random.default_rng(0)
    for seed in range(100):
        (s, _), over = env.reset(seed=seed), False
        env.unwrapped.np_random = NoNoise(np.random.PCG64(0))
        while not over:
            k, sizes = random.integers(len(env.unwrapped.parameter_sizes)), env.unwrapped.parameter_sizes
            z = random.uniform(-1, 1, max(sizes)).astype(np.float32)
            z[sizes[k] :] = 0
            s_next, r, terminated, truncated, _ = env.step((k, z))
            if task != "catch_point" or s[4] < -1 + 9.5 / 6:  # observations hide whether there was an 11th failed catch
                rows.append((s, k, z, s_next, r, not terminated))
            s, over = s_next, terminated or truncated
    s, k, z, s_next, r, goes_on = (torch.as_tensor(np.array(x)) for x in zip(*rows))
    with monkeypatch.context() as patch:
        patch.setattr(torch, "rand", lambda *shape, **kind: torch.full(shape, 0.5, **kind))
        patch.setattr(torch, "randn", lambda *shape, **kind: torch.zeros(shape, **kind))
        predicted, _ = agent.dynamics(s, k, z)
    told = {"goal": 14, "hard_goal": 14, "platform": 8}.get(task)  # what follows holds the outcome instead
    torch.testing.assert_close(predicted[goes_on, :told], s_next[goes_on, :told], atol=1e-5, rtol=0)
    reward, c = agent.reward_and_continuation(s, k, z, predicted)
    torch.testing.assert_close(reward, r.float(), atol=1e-4, rtol=0)
    assert torch.equal(c > 0.5, goes_on)
    seeds = script.FINAL_SEEDS[:episodes]
    assert script.evaluate(agent, args, seeds, tuple(script.FINAL_STEP_LIMITS.values()))[0, 1].mean() >= 0.5


def test_the_ceiling_of_goal_means_over_the_draws_that_had_gone_on():
    agent = ceiling.TrueGoal(ceiling.goal.Args())
    s, s_next = torch.zeros(2, 1, 4, 17)
    s[0, :, 14] = torch.tensor([1.0, 1, 1, 0])
    s_next[0, :, 14:16] = torch.tensor([[1.0, 0], [0, 50], [0, -20], [0, 0]])
    reward, c = agent.reward_and_continuation(s.flatten(1), None, None, s_next.flatten(1))
    assert reward.item() == pytest.approx(10) and c.item() == pytest.approx(1 / 3)


@pytest.mark.parametrize("task, k, z", [("goal", 0, -0.8), ("platform", 0, 0.0), ("platform", 1, -0.5)])
def test_the_noise_of_the_ceiling_is_that_of_the_environment(task, k, z):
    """Means and standard deviations of where an action leads from one start."""
    script, n = getattr(ceiling, task), 400
    agent, env = CEILINGS[task][0](script.Args()), script.make_env(script.Args()).unwrapped
    s, z, outcomes = env.reset(seed=0)[0], np.full(max(env.parameter_sizes), z, np.float32), []
    for seed in range(n):
        again = copy.deepcopy(env)
        again.np_random = np.random.default_rng(seed)
        outcomes.append(again.step((k, z))[0])
    torch.manual_seed(0)
    states, ks, zs = (torch.as_tensor(np.stack([x] * n)) for x in (s, k, z))
    told = {"goal": 14, "platform": 8}[task]
    predicted, real = agent.next_state(states, ks, zs)[:, :told], torch.as_tensor(np.stack(outcomes))[:, :told]
    std = real.std(dim=0)
    assert (std > 1e-6).sum() >= 2
    torch.testing.assert_close(predicted.std(dim=0), std, rtol=0.25, atol=1e-6)
    assert ((predicted.mean(dim=0) - real.mean(dim=0)).abs() <= 5 * std * (2 / n) ** 0.5 + 1e-6).all()


# ------------------------------------------------------------------------------------------------------------- report


@pytest.mark.parametrize("document", report.DOCUMENTS, ids=lambda path: path.name)
def test_documents_agree_with_the_results(document):
    text, results = document.read_text(), report.Results()
    new = prose.fill(report.regenerate(text, results), prose.phrases(results))
    assert new == text, "run `python benchmark/report.py`"


def test_a_phrase_gets_its_figures_wherever_its_lines_break():
    text = "Goal has\n  1,234.5 and -0.25. Platform has 3 and 4."
    assert prose.fill(text, {"Goal has {} and {}": ["41.3", "86"]}) == "Goal has\n  41.3 and 86. Platform has 3 and 4."


def test_every_section_and_phrase_is_in_one_document():
    text = "".join(document.read_text() for document in report.DOCUMENTS)
    assert [phrase for phrase in prose.phrases(report.Results()) if len(prose.pattern(phrase).findall(text)) != 1] == []
    for name in ("table", "defaults", *report.MEASUREMENTS, *report.ABLATIONS):
        assert text.count(f"<!-- begin {name} -->") == text.count(f"<!-- end {name} -->") == 1


def test_seeds_of_a_variant_may_differ_only_in_what_changes_no_number(tmp_path):
    run = json.loads((report.RESULTS / "table/catch_point/flexplore/seed_1.json").read_text())
    folder = tmp_path / "table/catch_point/flexplore"
    folder.mkdir(parents=True)
    for seed, changed in (1, {}), (2, {"track": True}):
        (folder / f"seed_{seed}.json").write_text(json.dumps(run | {"args": run["args"] | changed}))
    assert len(report.Results(tmp_path).runs("table", "catch_point", "flexplore")) == 2
    for changed, culprit in ({"horizon": 5}, "horizon"), ({"optimism": 1.0}, "optimism"), ({"new": 1}, "new"):
        (folder / "seed_3.json").write_text(json.dumps(run | {"args": run["args"] | changed}))
        with pytest.raises(SystemExit, match=f"differ in {culprit}"):
            report.Results(tmp_path).runs("table", "catch_point", "flexplore")


def test_nothing_is_drawn_or_claimed_without_results(tmp_path):
    results = report.Results(tmp_path)
    plots.draw(results, tmp_path / "figures")
    assert not any((tmp_path / "figures").iterdir())
    assert all("Not run yet" in report.section(results, name) for name in EXPERIMENTS)


def test_the_picture_of_exploration_names_the_variant_that_has_runs(tmp_path):
    stored, folder = report.RESULTS / "exploration" / "catch_point", tmp_path / "exploration" / "catch_point"
    shutil.copytree(stored / "without_mi", folder / "without_mi")
    picture, empty, _ = plots.exploration(report.Results(tmp_path)).axes
    assert (picture.get_title(), empty.get_title()) == ("Catch Point, without", "")


def test_every_experiment_is_reported(tmp_path):
    """On invented results of one task, which differ by seed and variant."""
    run = json.loads((report.RESULTS / "table/catch_point/flexplore/seed_1.json").read_text())
    random = np.random.default_rng(0)
    for point in run["curve"]:
        point["consistency_error_by_depth"] = [0.01] * 11 + [None]
    for name, experiment in EXPERIMENTS.items():
        for variant in experiment.variants:
            for seed in experiment.seeds:
                path = tmp_path / name / "catch_point" / variant / f"seed_{seed}.json"
                path.parent.mkdir(parents=True, exist_ok=True)
                run["seed"], run["final"]["return_mean"] = seed, random.normal(7)
                path.write_text(json.dumps(run))
                if experiment.keep_states:
                    np.savez(path.with_suffix(".npz"), s=random.normal(size=(200, 6)), r=random.normal(size=200))
    results = report.Results(tmp_path)
    plots.draw(results, tmp_path / "figures")
    for name in EXPERIMENTS:
        text = report.section(results, name)
        assert "Catch Point" in text and "nan" not in text
        for figure in [line.split("figures/")[1][:-1] for line in text.splitlines() if line.startswith("![")]:
            assert (tmp_path / "figures" / figure).exists()


def test_a_task_with_runs_of_one_variant_has_no_figures_of_the_other(tmp_path):
    for stored in ("table/hard_move_4/flexplore/seed_1.json", "ceiling/hard_move_4.json"):
        (tmp_path / stored).parent.mkdir(parents=True)
        shutil.copy(report.RESULTS / stored, tmp_path / stored)
    results = report.Results(tmp_path)
    assert report.ceiling(results).splitlines()[-1].startswith("| Hard Move 4 | 1,000 |")
    assert report.ceiling(results).endswith(" |  |") and "Hard Move 4" not in report.summary(results)
    shutil.copytree(tmp_path / "table/hard_move_4/flexplore", tmp_path / "table/hard_move_4/dlpa_like")
    minutes = json.loads((tmp_path / "table/hard_move_4/flexplore/seed_1.json").read_text())["wall_seconds"] / 60
    assert report.summary(report.Results(tmp_path)).endswith(f" 3,000 | {minutes:.1f} / {minutes:.1f} |")


def test_reaching_the_published_return_takes_two_evaluations_and_the_final_one():
    points = [{"step": i, "return_mean": r, "wall_seconds": 60 * i} for i, r in enumerate([0, 9, 0, 9, 9])]
    run = {"curve": points, "final": {"return_mean": 10, "success_rate": 1}}
    assert report.reached("platform", run, 9, shift=0) == (4, 4.0)
    assert report.reached("platform", run, 10, shift=0) is None
    assert report.reached("platform", run, 10, shift=1) == (4, 4.0)
    run |= {"wall_seconds": 300, "evaluation_seconds": 60, "total_timesteps": 5}
    never = run | {"final": {"return_mean": 0.9, "success_rate": 0}}
    assert report.passes("platform", [run, never]) == pytest.approx(np.array([[4, np.inf], [3.2, np.inf], [4, np.inf]]))
    run["final"]["return_mean"] = 8
    assert report.reached("platform", run, 9, shift=0) is None
    run["final"]["episodes"] = 1000  # of Catch Point over all starts: 0.397 more
    assert report.reached("catch_point", run, 8.39, shift=0) == (4, 4.0)
    assert report.reached("catch_point", run, 8.41, shift=0) is None


@pytest.mark.parametrize("entry", ["final", "final_25"])
def test_an_average_over_all_starts(entry):
    """Of what depends on the start alone: its limit."""
    best = [limits.limit("hard_move_6", limits.starts(limits.ENVIRONMENTS["hard_move_6"], seeds), entry)
            for seeds in (range(10**7, 10**7 + 10_000), report.goal.FINAL_SEEDS[:400])]  # fmt: skip
    (all_returns, all_possible), (returns, possible) = best
    run = {entry: {"return_mean": returns.mean() - 0.1, "success_rate": possible.mean() - 0.01, "episodes": 400}}
    estimate = report.over_all_starts("hard_move_6", run, entry)
    error = [np.std(x) / 100 for x in (all_returns, 100 * all_possible)]  # of 10,000 random starts
    assert np.all(np.abs(estimate - [all_returns.mean() - 0.1, 100 * all_possible.mean() - 1]) < 3 * np.array(error))


def test_what_starts_explain_and_what_was_in_reach():
    env = limits.ENVIRONMENTS["catch_point"]
    returns, possible = limits.catch_point(env, limits.starts(env, report.goal.FINAL_SEEDS[:1000]))
    here, everywhere = report.starts_errors("catch_point", [{"final": {"returns": (returns - 0.1).tolist()}}])
    assert everywhere < 1e-9 and here == pytest.approx(returns.std() / 1000**0.5)
    on_goal = np.where(report.goal_start_y() > 10, 50.0, -10.0)  # a sixth of all starts; it depends on nothing else
    run = {"final": {"return_mean": on_goal.mean(), "success_rate": 1.0, "returns": on_goal.tolist()}}
    assert report.over_all_starts("goal", run) == pytest.approx([0.0, 100 / 6]) and abs(on_goal.mean()) > 0.5
    here, everywhere = report.starts_errors("goal", [run])
    assert everywhere < 1e-9 < here
    returns[np.flatnonzero(possible)[:2]] -= 20
    returns[np.flatnonzero(~possible)[0]] -= 20  # was out of reach
    assert report.missed_catches({"final": {"returns": returns.tolist()}}) == (2, pytest.approx(0.04))


# ------------------------------------------------------------------------------------------------------------- limits


@pytest.mark.parametrize("task", ["catch_point", "hard_move_4", "hard_move_6", "hard_move_8", "hard_move_10"])
def test_no_episode_has_more_than_its_limit(task):
    offset = limits.starts(limits.ENVIRONMENTS[task], report.goal.FINAL_SEEDS[:1000])
    for entry in ("final", "final_25") if "hard_move" in task else ("final",):
        best, possible = limits.limit(task, offset, entry)
        for path in report.RESULTS.glob(f"*/{task}/*/seed_*.json"):
            returns = np.array(json.loads(path.read_text())[entry]["returns"])
            assert np.all(returns < best[: len(returns)] + 1e-9), path
        # nor is it loose: the same planner on the true equations comes as near as this
        ceiling = json.loads((report.RESULTS / "ceiling" / f"{task}.json").read_text())[entry]
        missed = best - ceiling["returns"]
        assert np.all(missed > -1e-9) and np.median(missed) < 0.03 and missed.mean() < 0.11
        assert 0 <= possible.mean() - ceiling["success_rate"] < 0.0025
        assert missed[~possible].max() < (8 if entry == "final_25" or task == "catch_point" else 0.5)


def play(env, offset, actions):
    env.reset(seed=0)
    env.target = env.position + offset
    steps = [env.step((k, np.array([z]))) for k, z in actions]
    assert steps[-1][2] and not any(step[2] for step in steps[:-1])
    return sum(step[1] for step in steps), steps[-1][4]["is_success"]


def test_the_limit_of_catch_point_is_reached_by_the_straight_way():
    env, offset = limits.ENVIRONMENTS["catch_point"], np.array([1.52, 1.14])
    straight = 0, np.arctan2(*offset) / np.pi
    limit, possible = limits.catch_point(env, offset[None])
    assert play(env, offset, [straight] * 24 + [(1, 0.0)]) == (pytest.approx(limit[0], abs=1e-9), True)
    in_reach = 1.94018 / np.linalg.norm(offset) * offset  # by 6e-7, on the last step
    assert play(env, in_reach, [straight] * 24 + [(1, 0.0)])[1] and limits.catch_point(env, in_reach[None])[1][0]
    assert possible[0] and not limits.catch_point(env, 1.000001 * in_reach[None])[1][0]
    # too far away: end it by 11 failed catches, the next step pays 0
    assert play(env, np.array([2.0, 2.0]), [(1, 0.0)] * 12) == (pytest.approx(-88), False)
    assert limits.catch_point(env, np.array([[2.0, 2.0]]))[0][0] == pytest.approx(-88)


def test_the_limit_of_hard_move_is_reached_along_the_strongest_action():
    env, offset = limits.ENVIRONMENTS["hard_move_4"], np.array([0.9, -0.9])
    k = int(np.argmax(env.motions @ offset))
    returns, possible = limits.hard_move(env, offset[None], 30)
    assert play(env, offset, [(k, 1.0)] * 17) == (pytest.approx(returns[0], abs=1e-9), True) and possible[0]
    assert not limits.hard_move(env, offset[None], 16)[1][0]
    waits = -sum((max(0, 2.5 - 0.02 * sum(4 - 3 * 0.75**m for m in range(j + 1)))) ** 2 for j in range(30))
    returns, possible = limits.hard_move(env, 2.5 * offset[None] / np.linalg.norm(offset), 30)
    assert returns[0] == pytest.approx(waits) and not possible[0]


def test_all_starts_are_those_of_the_environments():
    offset = limits.all_starts()
    assert (offset**2).mean(axis=0) == pytest.approx([2 / 3, 2 / 3], rel=1e-3) and np.abs(offset).max() > 1.98
    starts = limits.starts(limits.ENVIRONMENTS["catch_point"], range(1000))
    assert starts.std(axis=0) == pytest.approx(offset.std(axis=0), rel=0.05) and np.abs(starts).max() < 2


def test_random_play_is_what_scores_start_from():
    returns, successes = limits.play_at_random(limits.ENVIRONMENTS["catch_point"], range(300))
    difference = np.abs([returns.mean(), 100 * successes.mean()] - report.TASKS["catch_point"].random)
    assert np.all(difference < 4 * np.array([returns.std(), 25]) / 300**0.5)


def test_curves_end_where_final_evaluations_do():
    """On starts of their own, so only on average, and below the limit."""
    for task in ("catch_point", "hard_move_6"):
        runs = report.Results().runs("table", task, "flexplore")
        shift, (returns, success) = report.curve_shift(task, runs), report.all_starts(task, runs)
        ends = np.array([report.return_and_percent(run["curve"][-1]) for run in runs]) + shift
        assert ends.mean(axis=0) == pytest.approx([returns.mean(), success.mean()], abs=1)
        highest = max(point["return_mean"] for run in runs for point in run["curve"]) + shift[0]
        assert highest < report.TASKS[task].limit[1] + 1e-9


def test_scores():
    task = dataclasses.replace(report.TASKS["goal"], random=(-10.0, 0.0), limit=(40.0, 50.0))
    assert task.score([-10, 20, 50]).tolist() == [0, 0.5, 1]
    scores = np.array([0.0, 0.5, 0.6, 0.7, 1.0])[:, None]
    middle, low, high = report.iqm(scores)
    assert middle == pytest.approx(0.6) and 0 < low < 0.6 < high < 1
    noise = np.random.default_rng(0).normal(size=(5, 2))
    assert report.iqm(noise) == report.iqm(noise)  # to the last digit
    noise[0] = noise[1]  # ties
    assert report.improvement(noise, noise[:3])[0] == metrics.probability_of_improvement(noise, noise[:3])
    assert report.improvement(scores, scores - 2)[0] == 1 and report.improvement(scores, scores)[0] == 0.5
