"""Run an experiment of benchmark/experiments.py on this machine or on a SLURM cluster.

    python benchmark/run.py table --tasks platform --seeds 1 2 3 4 5
    python benchmark/run.py table --cluster slurm --partition cpu

Results: benchmark/results/<experiment>/<task>/<variant>/seed_<n>.json; what is there is not run again, and
runs with the same flags are stored once (experiments.home). A run that was cut off goes on from its checkpoint in
benchmark/runs/, so a stopped experiment is taken up by the same command; a result that is removed is run anew.
"""

import fcntl
import getpass
import json
import os
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import submitit
import tyro
from experiments import EXPERIMENTS, TASKS, home
from submitit.core.utils import FailedJobError
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Args:
    experiment: tyro.conf.Positional[Literal[tuple(EXPERIMENTS)]]
    """what to run"""
    tasks: tuple[Literal[tuple(TASKS)], ...] = ()
    """the tasks; all of the experiment unless given"""
    variants: tuple[str, ...] = ()
    """the variants; all of the experiment unless given"""
    seeds: tuple[int, ...] = ()
    """the training seeds; those of the experiment unless given"""
    flags: str = ""
    """more flags for every run (--flags="--x 1"); with another --output, as a result does not tell them apart"""
    workers: int | None = None
    """jobs at a time, one thread each; 2 on this machine, all on a cluster unless given"""
    cluster: Literal["local", "slurm"] = "local"
    """where: on this machine or through sbatch"""
    partition: str | None = None
    """of SLURM; its default unless given"""
    time: int = 240
    """minutes that a SLURM job may take; it is then requeued and goes on from its checkpoint"""
    cpus: int = 1
    """of a SLURM job"""
    mem: int = 4
    """GB of a SLURM job"""
    output: Path = ROOT / "benchmark"
    """where results/ and runs/ are"""


@dataclass(eq=False)
class Run:
    """One run of a script, as a job of submitit: `checkpoint` is called when the job's time is up."""

    name: str
    """<experiment>/<task>/<variant>/seed_<n>"""
    command: list[str]
    folder: Path
    """where it runs"""
    result: Path
    """the .json that it makes, when it is done"""
    keep_states: bool
    process = None  # the script, once it runs

    def __call__(self):
        if os.environ["SUBMITIT_EXECUTOR"] == "local":  # SLURM signals the script itself
            signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # waits for a process that an earlier run.py has left behind
            if not self.result.exists():
                run_dir = self.last(self.is_finished)
                if run_dir is None:
                    self.train(lock)
                    run_dir = self.last(self.is_finished)
                self.store(run_dir)

    def last(self, condition):
        """The newest run directory that fulfils the condition, or None."""
        return max(filter(condition, self.folder.glob("runs/*")), key=os.path.getmtime, default=None)

    def is_finished(self, run_dir):
        path = run_dir / "result.json"
        return path.exists() and "final" in json.loads(path.read_text())

    def train(self, lock):
        """Start or resume the script, and wait for its end. It shares the lock, should it survive this process."""
        command, started = list(self.command), self.last(lambda run_dir: (run_dir / "checkpoint.pt").exists())
        if started:
            command += ["--resume", f"runs/{started.name}"]
        for other in self.folder.glob("runs/*"):
            if other != started:  # nothing to go on from
                shutil.rmtree(other)
        with open(self.folder / "log.txt", "a") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, stdout=log, stderr=subprocess.STDOUT, pass_fds=[lock.fileno()],
                env=os.environ | {"TQDM_MININTERVAL": "60"}, start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGUSR2, signal.SIG_IGN),  # SLURM sends it to all processes
            )  # fmt: skip
            try:
                status = self.process.wait()
            except BaseException:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)  # `stop` sends more of them
                self.process.terminate()  # it writes a checkpoint
                self.process.wait()
                raise
        if status != 0:
            raise RuntimeError(f"{self.name} ended with status {status}, see {self.folder / 'log.txt'}")

    def store(self, run_dir):
        """Copy what is to be kept; the result comes last and appears at once."""
        self.result.parent.mkdir(parents=True, exist_ok=True)
        if self.keep_states:
            import numpy as np
            import torch

            replay = torch.load(run_dir / "checkpoint.pt", map_location="cpu", weights_only=True)["replay"]
            states = {name: replay[name][: replay["size"]].numpy().astype(np.float16) for name in ("s", "r")}
            np.savez_compressed(self.result.with_suffix(".npz"), **states)
        temporary = self.result.with_suffix(".tmp")
        temporary.write_bytes((run_dir / "result.json").read_bytes())
        os.replace(temporary, self.result)
        shutil.rmtree(self.folder / "stored", ignore_errors=True)
        (self.folder / "runs").rename(self.folder / "stored")  # not to be stored again, should the result be removed

    def checkpoint(self):
        if self.process:
            with suppress(ProcessLookupError, ChildProcessError):  # it has just ended
                os.kill(self.process.pid, signal.SIGTERM)
                os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        return submitit.helpers.DelayedSubmission(replace(self))

    def progress(self):
        """By the latest evaluation: seconds taken, and whole_seconds; 0 and None before it."""
        run_dir = self.last(lambda run_dir: (run_dir / "result.json").exists())
        if run_dir is None:
            return 0.0, None
        result = json.loads((run_dir / "result.json").read_text())
        return result["wall_seconds"], whole_seconds(result)


def plan(args):
    """The runs that `args` names."""
    experiment, runs = EXPERIMENTS[args.experiment], []
    for what, asked, there in (("variant", args.variants, experiment.variants), ("task", args.tasks, experiment.tasks)):
        if unknown := set(asked) - set(there):
            sys.exit(f"error: {args.experiment} has no {what} {', '.join(unknown)}, only {', '.join(there)}")
    output = args.output.resolve()
    for seed in args.seeds or experiment.seeds:
        for task in args.tasks or experiment.tasks:
            for variant in args.variants or experiment.variants:
                script, *flags = experiment.command(task, variant)
                command = [sys.executable, str(ROOT / script), *flags, *shlex.split(args.flags), "--seed", str(seed)]
                home_experiment, home_variant = home(args.experiment, task, variant)
                name = f"{home_experiment}/{task}/{home_variant}/seed_{seed}"
                result = output / "results" / f"{name}.json"
                runs.append(Run(name, command, output / "runs" / name, result, experiment.keep_states))
    return runs


class Queue:
    """Submits runs through submitit, and knows which of its jobs are over."""

    def __init__(self, args):
        self.slurm = args.cluster == "slurm"
        folder = args.output.resolve() / "runs" / "submitit"
        self.executor = submitit.AutoExecutor(folder / "%j", cluster=args.cluster, slurm_max_num_timeout=1000)
        self.executor.update_parameters(timeout_min=60 * 24 * 365)
        if self.slurm:
            self.executor.update_parameters(
                timeout_min=args.time, cpus_per_task=args.cpus, mem_gb=args.mem, slurm_partition=args.partition)
        self.states = self.squeue()

    def squeue(self):
        """State of each of the user's SLURM jobs, by id; None if squeue does not answer."""
        if not self.slurm:
            return {}
        command = ["squeue", "--noheader", "--format", "%i %T", "--user", getpass.getuser()]
        answer = subprocess.run(command, capture_output=True, text=True)
        return dict(line.split() for line in answer.stdout.splitlines()) if answer.returncode == 0 else None

    def submit(self, run):
        """A new job, or the one of an earlier run.py that SLURM still has."""
        run.folder.mkdir(parents=True, exist_ok=True)
        id_file = run.folder / "slurm_job"
        if self.slurm and id_file.exists() and (job_id := id_file.read_text()) in (self.states or {}):
            return submitit.SlurmJob(self.executor.folder, job_id)
        self.executor.update_parameters(name=run.name)
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a local job inherits it: Ctrl-C is for run.py alone
        job = self.executor.submit(run)
        signal.signal(signal.SIGINT, handler)
        if self.slurm:
            id_file.write_text(job.job_id)
        return job

    def stop(self, jobs):
        """End jobs on this machine, when they have written a checkpoint. SLURM's go on; the same command finds them."""
        while not self.slurm and (left := [job for job in jobs if not job.done()]):
            for job in left:
                os.kill(int(job.job_id), signal.SIGTERM)  # again and again, as a job that just starts may miss it
            time.sleep(1)

    def update(self):
        self.states = self.squeue()

    def is_over(self, job):
        if not self.slurm:
            return job.done()
        # asked of squeue, as submitit's own answer needs SLURM's accounting
        return self.states is not None and job.job_id not in self.states

    def is_running(self, job):
        return not self.slurm or (self.states or {}).get(job.job_id) == "RUNNING"


def whole_seconds(result):
    """Estimate of what a run takes, the final evaluation included, whose episodes cost what those on the way did."""
    args, share = result["args"], result["curve"][-1]["step"] / result["total_timesteps"]
    per_episode = result["evaluation_seconds"] / (len(result["curve"]) * args["eval_episodes"])
    return result["wall_seconds"] / share + per_episode * args["final_eval_episodes"]


def seconds_per_run(runs):
    """What a run of each task takes: the mean of its stored results, of the same experiment if there are any."""
    seconds = {}
    for run in runs:
        experiment, task, *_ = run.name.split("/")
        results = run.result.parents[3]
        if task not in seconds:
            paths = [*results.glob(f"{experiment}/{task}/*/*.json")] or [*results.glob(f"*/{task}/*/*.json")]
            seconds[task] = statistics.mean(whole_seconds(json.loads(p.read_text())) for p in paths) if paths else None
    return seconds


def time_left(jobs, waiting, at_a_time):
    """Hours and minutes until all runs are over, as text; "?" while nothing is known of a task."""
    seconds, left = seconds_per_run([*jobs, *waiting]), []
    for run in [*jobs, *waiting]:
        taken, whole = run.progress()
        whole = whole or seconds[run.name.split("/")[1]]
        if whole is None:
            return "?"
        left.append(whole - taken)
    minutes = max(sum(left) / at_a_time, max(left, default=0)) / 60
    return f"{int(minutes // 60)} h {int(minutes % 60):02} min"


def show_failures(failed):
    for run, job in failed:
        log = run.folder / "log.txt"
        if not log.exists() or not log.stat().st_size:
            log = job.paths.stderr
        lines = log.read_text().replace("\r", "\n").split("\n") if log.exists() else []
        last = next((line for line in reversed(lines) if line.strip()), "")
        print(f"failed: {run.name}: {last}\n  log: {log}\n  job: {job.paths.stderr}")


def main(args):
    """Run everything; the exit status is 1 if something failed."""
    if args.workers is not None and args.workers < 1:
        sys.exit(f"error: --workers must be at least 1, not {args.workers}")
    runs = plan(args)
    waiting = [run for run in runs if not run.result.exists()]
    waiting.sort(key=lambda run: not run.folder.exists())  # first what was begun
    queue, jobs, failed, num_done = Queue(args), {}, [], len(runs) - len(waiting)
    at_a_time = args.workers or (2 if args.cluster == "local" else max(1, len(waiting)))
    bar_format = "{desc}: {n_fmt} of {total_fmt} runs done{postfix} |{bar:20}| {elapsed}"
    bar = tqdm(desc=args.experiment, total=len(runs), initial=num_done, bar_format=bar_format)
    shown, checked = None, 0.0
    try:
        while waiting or jobs:
            while waiting and len(jobs) < at_a_time:
                run = waiting.pop(0)
                jobs[run] = queue.submit(run)
            time.sleep(5 if args.cluster == "slurm" else 0.5)
            queue.update()
            for run in [run for run, job in jobs.items() if queue.is_over(job)]:
                job = jobs.pop(run)
                if run.result.exists():
                    bar.update()
                else:
                    failed.append((run, job))
            running = sum(map(queue.is_running, jobs.values()))
            counts = running, len(jobs) - running + len(waiting), len(failed)
            if counts != shown or time.time() > checked + 60:
                shown, checked = counts, time.time()
                text = f"{counts[0]} running, {counts[1]} waiting, {counts[2]} failed, "
                bar.set_postfix_str(f"{text}{time_left(jobs, waiting, at_a_time)} left")
    except FailedJobError as error:
        sys.exit(f"error: sbatch refused {run.name} (--workers limits how many jobs it gets): {error}")
    except KeyboardInterrupt:
        print("\nstopping; the same command goes on")
        return 130
    finally:
        bar.close()
        queue.stop(jobs.values())
        show_failures(failed)
    return int(bool(failed))


def interrupt(*_):
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGINT, interrupt), signal.signal(signal.SIGTERM, interrupt)
    sys.exit(main(tyro.cli(Args)))
