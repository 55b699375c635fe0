"""How long the parts of a training step take, against plain matrix products and, with --peer, against DLPA's own code.

    python benchmark/speed.py          ->   benchmark/results/speed.json
    python benchmark/speed.py --cuda   ->   benchmark/results/speed_gpu.json

One process, one thread, each script at its defaults with a replay of random play. A time is the median over rounds; a
round goes through all measurements, so that whatever else the machine does hits all of them alike. The time of an
evaluation is that of planning one step of one episode; steps/s are those that the other times add up to at the flags.
A checkpoint is one of the end of the run, with every transition, written to the working directory; its share is that of
the time between two checkpoints, without evaluations. On a GPU a call ends when the GPU has done all of it.
"""

import contextlib
import importlib
import itertools
import json
import runpy
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import tyro
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

ROOT = Path(__file__).parents[1]
SCRIPTS = "platform", "goal", "catch_point", "hard_move"
PLAY, MEASUREMENT = 1000, 0.02  # steps of random play in a replay; seconds that a shorter call is repeated for
# Of the main.py of DLPA's code, github.com/Valarzz/Model-based-Reinforcement-Learning-for-Parameterized-Action-Spaces:
# the horizon of each task, and the network structure that its README uses there
PEER_FLAGS = {
    "platform": ["--env", "Platform-v0", "--mpc_horizon", "10", "--model_type", "multi"],
    "hard_move": ["--env", "simple_move_4_direction_v1-v0", "--mpc_horizon", "5", "--model_type", "concat"],
}
PEER_IMPORTS = """gym gym.wrappers wandb matplotlib matplotlib.pyplot common common.platform_domain common.goal_domain
                  common.wrappers common.soccer_domain""".split()  # for its environments, videos and logs


@dataclass
class Args:
    rounds: int = 30
    """times that everything is measured"""
    peer: Path | None = None
    """a checkout of DLPA's code, to be measured as well; the old packages that it requires are not needed"""
    compile: bool = False
    """measure what DLPA's code is compared with under the scripts' --compile as well (some minutes more)"""
    cuda: bool = False
    """measure the scripts on the GPU as well, without --peer and --compile"""


class Subject:
    """What train() of a script builds with `flags`, and a replay of random play. calls: what is measured, by name."""

    def __init__(self, name, **flags):
        script = importlib.import_module(f"flexplore_{name}")
        self.args, self.flop, self.over = (args := script.Args(**flags)), {}, True
        device = torch.device("cuda" if args.cuda else "cpu")
        self.provenance, self.env = script.provenance(args), script.make_env(args)
        torch.manual_seed(args.seed), self.env.reset(seed=args.seed)
        d, self.sizes = self.env.observation_space.shape[0], self.env.unwrapped.parameter_sizes
        m, agent = max(self.sizes), script.Agent(d, self.sizes, args).to(device)
        average = AveragedModel(agent, multi_avg_fn=get_ema_multi_avg_fn(args.weight_averaging))
        lr = torch.tensor(args.learning_rate, device=device)
        adam = partial(torch.optim.AdamW, lr=lr, fused=True, weight_decay=0)
        model = [*agent.dynamics.parameters(), *agent.outcome.parameters()]
        optimizers = {"model": adam(model, weight_decay=args.weight_decay),
                      "discriminator": adam(agent.discriminator.parameters(), maximize=True)}  # fmt: skip
        policy_optimizer = adam([*agent.discrete_policy.parameters(), *agent.parameter_policy.parameters()])
        k = torch.randint(len(self.sizes), (PLAY,))
        z = (torch.rand(PLAY, m) * 2 - 1) * agent.exists(k.to(device)).cpu()
        self.actions = itertools.cycle(zip(k.tolist(), z.numpy()))
        replay, episode = script.Replay(args.total_timesteps, d, m, args.horizon, device), 0
        for _ in range(PLAY):
            s, (k, z), r, terminated, truncated = self.random_step()
            if args.time_limit or not truncated:
                replay.add(s, k, torch.as_tensor(z), r, terminated, self.s, episode)
            episode += self.over
        change, reward, reward_range = replay.scales()
        agent.dynamics.scale.copy_(change), agent.reward_scale.copy_(reward)
        if args.clip_reward:
            agent.reward_range.copy_(reward_range / reward)
        model_horizon = min(args.model_horizon, args.horizon)
        tau = replay.sample(args.batch_size, model_horizon)
        N, H = args.num_samples * args.eval_samples_factor, args.horizon + args.eval_extra_steps  # as in evaluate()
        self.side_by_side = max(1, 4096 // N)
        # as in train(), where each is compiled for one shape (mppi also for the shorter plans before a time limit)
        compiled = partial(torch.compile, dynamic=False, disable=not args.compile)
        update = partial(compiled(script.update_model), agent, optimizers, args=args, smooth=False, diagnose=False)
        update_policy = partial(compiled(script.update_policy), agent, policy_optimizer)
        self.calls = {
            "update": lambda: update(tau=replay.sample(args.batch_size, model_horizon)),
            "policy": lambda: update_policy(tau.s[0], args),
            "averaging": lambda: average.update_parameters(agent),
            "environment": self.random_step,
        }
        if args.mi_weight == 0 and args.proposal_fraction == 0:
            del self.calls["policy"]  # as in train()
        searching = replace(args, num_samples=N)
        plan = script.initial_plan(args.horizon, 1, agent)
        self.calls["plan"] = partial(compiled(script.mppi), average.module, replay.s[:1], plan, args, explore=True)
        plan = script.initial_plan(H, self.side_by_side, agent)
        self.calls["evaluation"] = partial(
            script.mppi, average.module, replay.s[: self.side_by_side], plan, searching, explore=False)  # fmt: skip
        learning = {"agent": agent, "average": average, "policy": policy_optimizer} | optimizers
        full = vars(replay) | {"train": list(range(args.total_timesteps))}  # its tensors always are
        self.folder = tempfile.TemporaryDirectory(dir=".")
        self.checkpoint = Path(self.folder.name) / "checkpoint.pt"
        self.calls["checkpoint"] = lambda: script.write(self.checkpoint, {
            "learning": {name: part.state_dict() for name, part in learning.items()}, "replay": full})  # fmt: skip
        rows = args.num_samples, model_horizon * args.batch_size, args.hidden_size
        x, y, w = (torch.randn(n, args.hidden_size, device=device) for n in rows)
        for product, a, b in (("mm_plan", x, w), ("mm_update", y, w), ("mm_gradient", y.T, y)):
            self.calls[product] = partial(torch.mm, a, b, out=a @ b)
            self.flop[product] = 2 * a.numel() * b.shape[1]
        if args.cuda:
            self.calls = {name: partial(self.finish, call) for name, call in self.calls.items()}

    def finish(self, call):
        call()
        torch.cuda.synchronize()

    def random_step(self):
        """One step of random play, the first of a new episode if the last is over -> s, action, r, terminated, ..."""
        s, action = self.env.reset()[0] if self.over else self.s, next(self.actions)
        self.s, r, terminated, truncated, _ = self.env.step(action)
        self.over = terminated or truncated
        return s, action, r, terminated, truncated

    def summary(self, seconds):
        """Median seconds by name -> milliseconds, implied steps per second, and rates of matrix products."""
        args, flop, reached = self.args, self.flop, {"plan": self.flop["mm_plan"] / seconds["mm_plan"]}
        # an update does it thrice per layer: forward, and backward to the layer's input and to its weights
        thrice = 2 * seconds["mm_update"] + seconds["mm_gradient"]
        reached["update"] = (2 * flop["mm_update"] + flop["mm_gradient"]) / thrice
        planned = 1 - args.random_fraction * (1 - args.greedy_fraction / 2)  # greedy: in the second half only
        step = seconds["environment"] + planned * seconds["plan"] + seconds["averaging"]
        step += args.updates_per_step * seconds["update"] + seconds.get("policy", 0) / args.policy_frequency
        ms = {name: 1000 * x for name, x in seconds.items()}
        ms["evaluation"] /= self.side_by_side  # of one episode
        summary = {"ms": ms, "steps_per_second": 1 / step, "side_by_side": self.side_by_side, "args": vars(args)}
        between = args.checkpoint_frequency * step + seconds["checkpoint"]
        summary["checkpoint_share"] = seconds["checkpoint"] / between
        summary["checkpoint_MB"] = self.checkpoint.stat().st_size / 1e6
        for name, rate in reached.items():
            with torch.compiler.set_stance("force_eager"), \
                 FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: addmm_flop}) as counter:
                self.calls[name]()
            achieved = (count := counter.get_total_flops()) / seconds[name]
            summary[name] = {"MFLOP": count / 1e6, "GFLOP/s": achieved / 1e9, "mm GFLOP/s": rate / 1e9}
            summary[name]["ratio"] = achieved / rate
            if args.cuda:
                summary[f"{name} kernels"], busy = kernels(self.calls[name])
                summary[f"{name} busy"] = busy / seconds[name]
        return summary


def kernels(call, repeats=10):
    """-> how many kernels and copies a call launches on the GPU, and the seconds that these take."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(repeats):
            call()
    on_gpu = [x for x in profile.key_averages() if x.device_type == torch.autograd.DeviceType.CUDA]
    seconds = sum(x.self_device_time_total for x in on_gpu) / 1e6
    return sum(x.count for x in on_gpu) / repeats, seconds / repeats


def addmm_flop(_, a, b, *args, **kwargs):  # of shapes; the counter knows addmm, but not in place
    return 2 * a[0] * a[1] * b[1]


def build_peer(path, task, subject):
    """DLPA's trainer, built by its main.py, with random play in the environment of `subject` -> its args and calls."""
    sizes = np.array(subject.sizes)

    def make_env(args):  # what the trainer wants to know of an environment
        args.state_dim, args.k_dim = subject.env.observation_space.shape[0], len(sizes)
        args.par_size, args.z_dim, args.all_z_dim = sizes, sizes.max().item(), sizes.sum().item()
        args.offset, args.lb, args.ub = (sizes.cumsum() - sizes).tolist(), -1.0, 1.0
        return None, args

    sys.modules.update({name: mock.MagicMock() for name in PEER_IMPORTS})
    sys.path.insert(0, str(path))
    with mock.patch("torch.cuda.is_available", return_value=False), mock.patch("os.makedirs"), \
         mock.patch("sys.argv", ["main.py", *PEER_FLAGS[task]]), mock.patch("utils.make_env", make_env), \
         mock.patch("DLPA.Trainer.evaluate", autospec=True, side_effect=SystemExit) as evaluate, \
         contextlib.suppress(SystemExit):  # main.py first evaluates its trainer, and ends there  # fmt: skip
        runpy.run_path(str(path / "main.py"), run_name="__main__")
    torch.Tensor.cuda = lambda x: x  # its replay asks for a GPU
    trainer, steps = evaluate.call_args.args[0], 0
    while steps < PLAY:
        subject.s, subject.over, over = subject.env.reset()[0], False, False
        episode = sys.modules["utils"].Episode(trainer.args, subject.s)
        while not over:
            _, (k, z), r, terminated, _ = subject.random_step()
            episode += subject.s, k, torch.as_tensor(z), r, terminated
            over, steps = subject.over or len(episode) == trainer.args.episode_length, steps + 1
        trainer.buffer += episode
    plan = partial(trainer.plan, subject.s, step=trainer.args.seed_steps, t0=False, local_step=1)
    return trainer.args, {"plan": plan, "update": partial(trainer.train_sperate, 0)}


def measure(calls, rounds):
    """Functions by subject and name -> their median seconds, by subject and name."""
    seconds = {(subject, name): [] for subject, by_name in calls.items() for name in by_name}
    repeats = dict.fromkeys(seconds, 2)
    for i, (subject, name) in tqdm(list(itertools.product(range(rounds + 1), seconds)), "speed", unit="measurement"):
        torch.use_deterministic_algorithms("DLPA's code" not in subject, warn_only=True)  # as each program has it
        started = time.perf_counter()
        for _ in range(repeats[subject, name]):
            calls[subject][name]()
        each = (time.perf_counter() - started) / repeats[subject, name]
        if i == 0:  # warms up and is not counted
            repeats[subject, name] = max(1, round(MEASUREMENT / each))
        else:
            seconds[subject, name].append(each)
    return {subject: {name: statistics.median(seconds[subject, name]) for name in calls[subject]} for subject in calls}


def show(header, rows):
    print()
    for row in (header, ["---"] * len(header), *rows):
        cells = (x if isinstance(x, str) else f"{x:.3g}" if x < 100 else f"{x:.0f}" for x in row)
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    args = tyro.cli(Args)
    if args.cuda and (args.peer or args.compile or not torch.cuda.is_available()):
        sys.exit("error: --cuda must be left out with --peer or --compile, or where PyTorch finds no CUDA device")
    sys.path.insert(0, str(ROOT))
    importlib.import_module("flexplore_platform").configure_torch()
    subjects, peers, calls = {name: Subject(name) for name in SCRIPTS}, {}, {}
    if args.cuda:
        subjects |= {f"{name}, GPU": Subject(name, cuda=True) for name in SCRIPTS}
    for task in PEER_FLAGS if args.peer else ():
        peers[task], calls[f"{task}, DLPA's code"] = (p, _) = build_peer(args.peer, task, subjects[task])
        work = dict(
            num_samples=p.mpc_popsize, num_elites=p.mpc_num_elites, num_iterations=p.cem_iter,
            horizon=p.mpc_horizon, model_horizon=p.mpc_horizon, hidden_size=p.layers, batch_size=p.batch_size,
            updates_per_step=p.num_updates, activation="relu", flexibility=0.0, mi_weight=0.0, smoothing="never",
            proposal_fraction=0.0, hold_fraction=0.0, random_fraction=0.0, outcome_networks=1, frequencies=0,
            weight_decay=0.0)  # fmt: skip
        subjects[f"{task}, DLPA's work"] = Subject(task, **work)
        if args.compile:
            torch._dynamo.config.recompile_limit = 64  # the optimizers of all subjects share code
            torch._inductor.config.fallback_random = True  # as the scripts do
            subjects[f"{task}, compiled"] = Subject(task, compile=True)
            subjects[f"{task}, DLPA's work, compiled"] = Subject(task, compile=True, **work)
    seconds = measure({name: subject.calls for name, subject in subjects.items()} | calls, args.rounds)
    result = {"rounds": args.rounds} | [*subjects.values()][-1].provenance
    result["commit"] = {name: subjects[name].provenance["commit"] for name in SCRIPTS}
    result |= {name: subject.summary(seconds[name]) for name, subject in subjects.items()}
    columns = "plan update policy averaging environment evaluation checkpoint".split()
    times = [[name, *(result[name]["ms"].get(x, "-") for x in columns), f"{result[name]['checkpoint_share']:.2%}",
              result[name]["steps_per_second"]] for name in subjects]  # fmt: skip
    for task, p in peers.items():  # with the time of our environment, as its own is not run
        ms = {name: 1000 * x for name, x in seconds[f"{task}, DLPA's code"].items()}
        rate = 1000 / (result[task]["ms"]["environment"] + ms["plan"] + p.num_updates * ms["update"])
        times.append([f"{task}, DLPA's code", *ms.values(), *["-"] * 6, rate])
        peer = {"ms": ms, "updates_per_step": p.num_updates, "steps_per_second": rate}
        for ours in (x for x in subjects if x.split(",")[0] == task):
            peer[f"ratio of {ours}"] = result[ours]["steps_per_second"] / rate
            print(f"{ours}: {peer[f'ratio of {ours}']:.1f} times the steps per second of DLPA's code")
        result[f"{task}, DLPA's code"] = peer
    show(["milliseconds", *columns, "its share", "steps/s"], times)
    if args.cuda:
        columns = "plan kernels", "plan busy", "update kernels", "update busy"
        show(["GPU", *columns], [[name, *map(result[name].get, columns)] for name in subjects if "GPU" in name])
    header = [f"{part} {x}" for part in ("plan", "update") for x in result["platform"]["plan"]]
    show(["rates", *header], [[x, *result[x]["plan"].values(), *result[x]["update"].values()] for x in subjects])
    path = ROOT / "benchmark" / "results" / f"speed{'_gpu' if args.cuda else ''}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1))
