"""What benchmark/run.py runs and benchmark/report.py reports: experiment = tasks x variants x seeds."""

from dataclasses import dataclass, field

TASKS = {  # script and flags
    "platform": "flexplore_platform.py --eval-frequency 500 --eval-episodes 100",
    "goal": "flexplore_goal.py",
    "hard_goal": "flexplore_goal.py --env-id HardGoal-v0",
    "catch_point": "flexplore_catch_point.py",
    **{f"hard_move_{n}": f"flexplore_hard_move.py --n {n}" for n in (4, 6, 8, 10)},
}


@dataclass(frozen=True)
class Experiment:
    variants: dict[str, str | dict[str, str]]
    """name: flags, or <task>: flags"""
    tasks: tuple[str, ...] = tuple(TASKS)
    seeds: tuple[int, ...] = (1, 2, 3)
    flags: str = ""
    """of all variants"""
    task_flags: dict[str, str] = field(default_factory=dict)
    """of all variants of a task, where defaults are not meant"""
    shared: dict[str, str] = field(default_factory=dict)
    """<variant>: <experiment>/<variant> with the same flags, whose runs are used if its `task_flags` of the task are
    the same, too"""
    keep_states: bool = False
    """whether the states and rewards of training are stored, in seed_<n>.npz"""

    def command(self, task, variant):
        """-> the script's name and its flags, but for --seed."""
        flags = self.variants[variant]
        flags = flags[task] if isinstance(flags, dict) else flags
        return f"{TASKS[task]} {self.task_flags.get(task, '')} {self.flags} {flags}".split()


PLAIN = (  # switches most of what goes beyond the paper off, as in the README
    "--random-fraction 0 --parameter-noise 0 --greedy-fraction 0 --weight-averaging 0 --weight-decay 0 "
    "--hold-fraction 0 --frequencies 0 --outcome-networks 1 --time-limit 0 --no-anneal-lr --no-prune --no-clip-reward "
    "--dynamics-error squared --outcome-input action --model-horizon 8 --eval-samples-factor 1 --eval-extra-steps 0 "
    "--optimism 0 --eval-caution 0"
)
NO_RANDOM_STEPS = "--random-fraction 0 --parameter-noise 0"  # but for those before --learning-starts
HORIZONS = 1, 2, 3, 5, 8, 12
HORIZON_STEPS = {"platform": 1500, "goal": 6000, "catch_point": 2000,
                 "hard_move_4": 2000, "hard_move_6": 3000, "hard_move_8": 4000}  # fmt: skip

SWEPT = {  # the defaults of what is halved and doubled
    "platform": {"num-samples": 256, "num-iterations": 3, "updates-per-step": 6, "batch-size": 128, "hidden-size": 64},
    "hard_move_4": {"num-samples": 512, "num-iterations": 3, "updates-per-step": 2, "batch-size": 128,
                    "hidden-size": 64},
}  # fmt: skip
DLPA_LIKE = "--flexibility 0 --mi-weight 0 --smoothing never --proposal-fraction 0"

EXPERIMENTS = {
    # the results: default runs, and the ablation without what FLEXplore adds
    "table": Experiment(
        {"flexplore": "", "dlpa_like": DLPA_LIKE},
        seeds=(1, 2, 3, 4, 5),
    ),
    # when to smooth the reward: T as a share of the run
    "smoothing": Experiment(
        {"never": "--smoothing never", "always": "--smoothing always"}
        | {f"after_{T}": f"--smoothing-start {T}" for T in (0.25, 0.5, 0.75)},
        tasks=("goal", "hard_goal", "catch_point", "hard_move_8"),
        shared={"after_0.5": "components/flexplore", "never": "components/no_smoothing"},
    ),
    # lambda, and what f_W sees; without the Wasserstein loss (lambda = 0) it sees nothing
    "flexibility": Experiment(
        {"none_0": "--flexibility 0"}
        | {f"conditional_{x}": f"--flexibility {x}" for x in (0.3, 0.5, 0.7, 1)}
        | {f"marginal_{x}": f"--flexibility {x} --discriminator marginal" for x in (0.3, 0.5, 0.7, 1)},
        tasks=("platform", "catch_point"),
        shared={"conditional_0.3": "components/flexplore", "none_0": "components/no_wasserstein"},
    ),
    # one of the paper's mechanisms left out at a time
    "components": Experiment(
        {"flexplore": "", "no_wasserstein": "--flexibility 0", "no_mi": "--mi-weight 0",
         "no_smoothing": "--smoothing never", "no_proposals": "--proposal-fraction 0"},
        task_flags={"hard_move_10": "--total-timesteps 10000 --eval-samples-factor 1"},  # half the steps
        shared={"flexplore": "table/flexplore"},
    ),
    # with the paper's mechanisms and without, with our choices and without most of them
    "choices": Experiment(
        {"flexplore": "", "dlpa_like": DLPA_LIKE, "plain": PLAIN, "plain_dlpa_like": f"{PLAIN} {DLPA_LIKE}"},
        tasks=("platform", "goal", "catch_point", "hard_move_4", "hard_move_8"),
        seeds=(1, 2, 3, 4, 5),
        shared={"flexplore": "table/flexplore", "dlpa_like": "table/dlpa_like"},
    ),
    # the first 2,000 steps of a long run, before smoothing and the fall of the learning rate begin
    "exploration": Experiment(
        {"with_mi": "", "without_mi": "--mi-weight 0",
         "mi_alone": NO_RANDOM_STEPS, "neither": f"{NO_RANDOM_STEPS} --mi-weight 0"}
        | {f"mi_alone_{eta}": f"{NO_RANDOM_STEPS} --mi-weight {eta}" for eta in (0.1, 1)},
        tasks=("platform", "goal", "catch_point", "hard_move_4", "hard_move_8"),
        flags="--total-timesteps 2000 --smoothing never --no-anneal-lr --final-eval-episodes 200",
        keep_states=True,
    ),
    # how far to plan: shorter runs, 30 to 67 % of the steps
    "horizon": Experiment(
        {f"H_{H}": f"--horizon {H}" for H in HORIZONS},
        tasks=tuple(HORIZON_STEPS),
        flags="--final-eval-episodes 400",
        task_flags={task: f"--total-timesteps {n}" for task, n in HORIZON_STEPS.items()},
    ),
    # sizes by the minutes they need: half and twice of one at a time; on seeds that may choose defaults
    "sweep": Experiment(
        {"default": ""}
        | {f"{word}_{flag}": {task: f"--{flag} {int(factor * of[flag])}" for task, of in SWEPT.items()}
           for flag in SWEPT["platform"] for word, factor in (("half", 0.5), ("twice", 2))},
        tasks=tuple(SWEPT),
        seeds=(11, 12, 13),
        flags="--eval-frequency 250 --eval-episodes 50 --final-eval-episodes 200",
        task_flags={"platform": "--total-timesteps 1500"},
    ),
    # how soon the published return is passed: shorter runs, with many evaluations of many episodes
    "minutes": Experiment(
        {"flexplore": "", "dlpa_like": DLPA_LIKE},
        tasks=("platform", "goal", "catch_point", "hard_move_8"),
        flags="--eval-episodes 200",
        task_flags={
            "platform": "--total-timesteps 1500 --eval-frequency 125",
            "goal": "--total-timesteps 8000 --eval-frequency 1000 --final-eval-episodes 400",
            "catch_point": "--eval-frequency 500 --final-eval-episodes 400",
            "hard_move_8": "--total-timesteps 3000 --eval-frequency 500 --final-eval-episodes 400",
        },
    ),
}  # fmt: skip


def home(experiment, task, variant):
    """-> experiment and variant under which the runs are stored: what has the same flags is run once."""
    here = EXPERIMENTS[experiment]
    if variant in here.shared:
        there, shared_variant = here.shared[variant].split("/")
        if here.task_flags.get(task) == EXPERIMENTS[there].task_flags.get(task):
            return home(there, task, shared_variant)
    return experiment, variant
