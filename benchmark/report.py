"""Regenerate the tables of README.md and RESULTS.md and the figures from the stored results: python benchmark/report.py

So are the numbers that their prose repeats (prose.py). The table of defaults is the scripts' own; all else comes from
benchmark/results. With --results, tables of other results are printed, and their figures drawn beside them.
"""

import importlib
import json
import re
import sys
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import limits
import numpy as np
import tyro
from experiments import EXPERIMENTS, HORIZONS, home
from experiments import TASKS as SCRIPTS
from rliable import library, metrics

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
import flexplore_goal as goal  # noqa: E402

RESULTS = ROOT / "benchmark" / "results"
DOCUMENTS = ROOT / "README.md", ROOT / "benchmark" / "RESULTS.md"
LIMITS = json.loads((RESULTS / "limits.json").read_text())  # over all starts
EDGES = np.arange(-15, 15.5)  # strata of Goal's starts, by the y of the player in metres


def return_and_percent(result):
    return np.array([result["return_mean"], 100 * result["success_rate"]])


@dataclass(frozen=True)
class Task:
    """What a return and a success rate (in percent) over all starts are to be compared with."""

    title: str
    published_return: tuple[float, str]
    published_success: float  # CHDP's
    random: tuple[float, float]  # return, success
    limit: tuple[float, float]  # of the return: reached, and an upper bound
    limit_success: tuple[float, float]

    def score(self, returns):
        return (np.asarray(returns) - self.random[0]) / (self.limit[1] - self.random[0])


def task_of(name, title, published_return, published_success, limit=None, limit_success=None):
    """With the limits of its specification, or those of limits.py."""
    if limit is None:
        limit, limit_success = ((x, x) for x in return_and_percent(LIMITS[name]["final"]))
    random = return_and_percent(LIMITS[name]["random"])
    return Task(title, published_return, published_success, random, limit, limit_success)


TASKS = {
    name: task_of(name, *properties)
    for name, *properties in (
        ("platform", "Platform", (0.92, "DLPA"), 99.7, (1.0, 1.0), (99.98, 99.98)),
        ("goal", "Goal", (28.75, "DLPA"), 80.9, (46.8, 48.7), (95.0, 98.0)),
        ("hard_goal", "Hard Goal", (28.38, "DLPA"), 79.5, (47.3, 48.7), (95.8, 98.0)),
        ("catch_point", "Catch Point", (8.12, "FLEXplore"), 93.8),
        ("hard_move_4", "Hard Move 4", (6.29, "DLPA"), 94.2),
        ("hard_move_6", "Hard Move 6", (8.48, "DLPA"), 93.9),
        ("hard_move_8", "Hard Move 8", (7.80, "DLPA"), 90.6),
        ("hard_move_10", "Hard Move 10", (6.35, "DLPA"), 79.8),
    )
}
NAMES = {"flexplore": "FLEXplore", "dlpa_like": "DLPA-like"}
COMPONENTS = {"flexplore": "all", "no_wasserstein": "no Wasserstein loss", "no_mi": "no MI reward",
              "no_smoothing": "no smoothing", "no_proposals": "no proposals"}  # fmt: skip
CHOICES = {"flexplore": "FLEXplore", "dlpa_like": "DLPA-like",
           "plain": "FLEXplore, plain", "plain_dlpa_like": "DLPA-like, plain"}  # fmt: skip
# flags that are younger than some results: what they are where a result lacks them
YOUNGER = {"frequencies": 0, "greedy_fraction": 0.0, "dynamics_error": "squared", "optimism": 0.0}
# flags in which the runs of a variant may differ
UNRELATED = {"seed", "track", "wandb_project_name", "wandb_entity", "capture_video", "save_model",
             "checkpoint_frequency"}  # fmt: skip
SMOOTHING = {"always": "always", "after_0.25": "T = 0.25", "after_0.5": "T = 0.5", "after_0.75": "T = 0.75",
             "never": "never"}  # fmt: skip
FLEXIBILITIES = "0", "0.3", "0.5", "0.7", "1"
EXPLORATION = {"with_mi": "MI reward and random steps", "without_mi": "random steps", "mi_alone": "MI reward",
               "mi_alone_0.1": "MI reward, η 0.1", "mi_alone_1": "MI reward, η 1", "neither": "neither"}  # fmt: skip


# --------------------------------------------------------------------------------------------------- stored results


def differences(x, y):
    """The flags in which the `args` of two results differ, but for those that change no number."""
    return sorted({name for name, _ in (YOUNGER | x).items() ^ (YOUNGER | y).items()} - UNRELATED)


class Results:
    """The result.json files under `root`."""

    def __init__(self, root=RESULTS):
        self.root, self.loaded = Path(root), {}

    def paths(self, experiment, task, variant):
        """The files of a variant, by seed; of another experiment's runs only those with this one's seeds."""
        home_experiment, home_variant = home(experiment, task, variant)
        folder = self.root / home_experiment / task / home_variant
        paths = {int(path.stem[5:]): path for path in folder.glob("seed_*.json")}
        seeds = paths if home_experiment == experiment else EXPERIMENTS[experiment].seeds
        return {seed: paths[seed] for seed in sorted(paths) if seed in seeds}

    def runs(self, experiment, task, variant):
        """What each seed's result.json says."""
        key = experiment, task, variant
        if key not in self.loaded:
            paths = self.paths(*key)
            self.loaded[key] = runs = [json.loads(path.read_text()) for path in paths.values()]
            for path, run in zip(paths.values(), runs):
                if other := differences(runs[0]["args"], run["args"]):
                    sys.exit(f"error: {path} and the variant's first seed differ in {', '.join(other)}")
        return self.loaded[key]

    def missing(self):
        """Experiment, task and variant of all that has not a run of every seed."""
        return [(name, task, variant) for name, experiment in EXPERIMENTS.items() for task in experiment.tasks
                for variant in experiment.variants
                if not {*experiment.seeds} <= {*self.paths(name, task, variant)}]  # fmt: skip

    def tasks(self, experiment):
        """The tasks of which `experiment` itself has results."""
        return [task for task in TASKS if any((self.root / experiment / task).glob("*/seed_*.json"))]

    def states(self, experiment, task, variant):
        """What run.py kept of each seed's training: arrays s and r."""
        files = (path.with_suffix(".npz") for path in self.paths(experiment, task, variant).values())
        return [{n: np.load(f)[n].astype(float) for n in ("s", "r")} for f in files]

    def read(self, name):
        """What is in <name>.json, as of ceiling.py or speed.py; None if there is no such file."""
        path = self.root / f"{name}.json"
        return json.loads(path.read_text()) if path.exists() else None


def final(runs, key="final"):
    """-> returns and success rates in percent of the final evaluation, per seed."""
    return np.array([return_and_percent(run[key]) for run in runs]).reshape(-1, 2).T


@cache
def goal_start_y(n=1000):
    """The y of the player at the n starts of the final evaluation of Goal and Hard Goal, in metres."""
    env = goal.GoalEnv()
    return np.array([(env.reset(seed=seed), env.player.y)[1] for seed in goal.FINAL_SEEDS[:n]])


@cache
def limit_of_each(task, seeds, entry="final"):
    """An upper bound on the return from each of the starts of these seeds, and whether success is possible."""
    return limits.limit(task, limits.starts(limits.ENVIRONMENTS[task], seeds), entry)


def limit_here(task, seeds, entry="final"):
    """Return and success in percent of the best play from the starts of these seeds (2,); None if it is not known."""
    if "final" not in LIMITS[task]:
        return None
    returns, possible = limit_of_each(task, seeds, entry)
    return np.array([returns.mean(), 100 * possible.mean()])


def over_all_starts(task, run, entry="final"):
    """Estimates of the return and the success rate in percent from all starts, by a run's final evaluation -> (2,).

    Goal: its starts differ in y alone, so the mean over strata of a metre each. Where the limit of each start is known:
    the mean distance from it, which depends little on the start, and the limit of all starts. Platform has one start.
    """
    result = run[entry]
    if "final" in LIMITS[task]:
        here = limit_here(task, goal.FINAL_SEEDS[: result["episodes"]], entry)
        return return_and_percent(result) - here + return_and_percent(LIMITS[task][entry])
    if task == "platform":
        return return_and_percent(result)
    returns = np.array(result["returns"])
    stratum = np.digitize(goal_start_y(len(returns)), EDGES)
    values = np.stack([returns, 100.0 * (returns == goal.GoalEnv.GOAL_REWARD)])
    return np.average(values, axis=1, weights=1 / np.bincount(stratum)[stratum])


def all_starts(task, runs, entry="final"):
    """-> returns and success rates in percent over all starts, per seed (2, seeds)."""
    return np.array([over_all_starts(task, run, entry) for run in runs]).reshape(-1, 2).T


def starts_errors(task, runs):
    """Standard errors of the runs' mean return that are due to their starts: from these starts, over all starts."""
    returns = np.mean([run["final"]["returns"] for run in runs], axis=0)
    if "final" in LIMITS[task]:
        explained, _ = limit_of_each(task, goal.FINAL_SEEDS[: len(returns)])
    else:
        stratum = np.digitize(goal_start_y(len(returns)), EDGES)
        explained = (np.bincount(stratum, returns) / np.bincount(stratum).clip(min=1))[stratum]
    return [x.std() / len(x) ** 0.5 for x in (returns, returns - explained)]


def missed_catches(run):
    """Starts of Catch Point whose target can be reached and was not caught: how many, and what they cost on average."""
    returns = np.array(run["final"]["returns"])
    best, possible = limit_of_each("catch_point", goal.FINAL_SEEDS[: len(returns)])
    missed = possible & (best - returns > 10)  # a catch pays 20
    return missed.sum(), (best - returns)[missed].sum() / len(returns)


def curve_shift(task, runs):
    """How much harder than all starts those of learning curves are, in return and success (2,).

    By their limit; on Goal by the last evaluation of each curve, which is of the same weights as the final one.
    """
    if "final" in LIMITS[task]:
        here = limit_here(task, goal.EVAL_SEEDS[: runs[0]["args"]["eval_episodes"]])
        return return_and_percent(LIMITS[task]["final"]) - here
    if task == "platform":
        return np.zeros(2)
    return np.mean([over_all_starts(task, run) - return_and_percent(run["curve"][-1]) for run in runs], axis=0)


def estimate(scores, statistic):
    """statistic of scores, with its 95 % stratified bootstrap interval -> the number, low, high."""
    np.random.seed(0)  # rliable draws from the global generator, whatever its random_state
    point, interval = library.get_interval_estimates({"": scores}, lambda *x: np.array([statistic(*x)]), reps=2000)
    return point[""][0], *interval[""][:, 0]


def iqm(scores):
    """Interquartile mean of scores (seeds, tasks)."""
    return estimate(scores, metrics.aggregate_iqm)


def mean(scores):
    return estimate(scores, metrics.aggregate_mean)


def improvement(x, y):
    """Probability that a run of x (seeds, tasks) is better than one of y, mean over tasks."""

    def probability(x, y):  # metrics.probability_of_improvement, a hundred times as fast
        return ((x[:, None] > y).mean() + (x[:, None] >= y).mean()) / 2

    return estimate((x, y), probability)


def share_better(x, y):
    """As text: improvement() of the returns of one task's runs, "" where a variant has less than two."""
    if min(len(x), len(y)) < 2:
        return ""
    return "{:.2f} [{:.2f}, {:.2f}]".format(*improvement(x[:, None], y[:, None]))


def reached(task, run, threshold, shift):
    """Steps and minutes until two consecutive evaluations are at or above `threshold`, all of them over all starts.

    None if the final evaluation, which has many more episodes, is not.
    """
    last = over_all_starts(task, run)[0]
    for a, b in zip(run["curve"], run["curve"][1:]):
        if min(a["return_mean"] + shift, b["return_mean"] + shift, last) >= threshold:
            return b["step"], b["wall_seconds"] / 60
    return None


def consistency_error(run, depth=None):
    """Of the last evaluation: the mean over depths or the one at `depth`; NaN if no held-out episode is as long."""
    point = run["curve"][-1]
    error = point["consistency_error"] if depth is None else point["consistency_error_by_depth"][depth - 1]
    return np.nan if error is None else error


def known(values):
    values = np.asarray(values)
    return values[~np.isnan(values)]


PLANE = "catch_point", *(f"hard_move_{n}" for n in (4, 6, 8, 10))  # features 2 and 3 are target - agent


def coordinates(task, states):
    """States of all runs -> two coordinates of each: target - agent, else the first two principal components."""
    pooled = np.concatenate([run["s"] for run in states])
    if task in PLANE:
        return [run["s"][:, 2:4] for run in states]
    mean, std = pooled.mean(axis=0), pooled.std(axis=0) + 1e-6
    axes = np.linalg.svd((pooled - mean) / std, full_matrices=False)[2][:2]
    return [(run["s"] - mean) / std @ axes.T for run in states]


def coverage(task, states, cells=40):
    """Per run, the share of the cells of a grid that it visited, of those that any run did."""
    points = coordinates(task, states)
    ends = [(x.min(), x.max()) for x in np.concatenate(points).T]
    visited = np.stack([np.histogram2d(*p.T, bins=cells, range=ends)[0] > 0 for p in points])
    return visited.sum(axis=(1, 2)) / visited.any(axis=0).sum()


def coverages(results, task):
    """Percent of the cells that each run visited, by variant."""
    states = {v: results.states("exploration", task, v) for v in EXPLORATION}
    share = iter(100 * coverage(task, [run for runs in states.values() for run in runs]))
    return {v: np.array([next(share) for _ in runs]) for v, runs in states.items()}


# ----------------------------------------------------------------------------------------------------------- tables


def markdown(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def digits(task):
    return 3 if task == "platform" else 2


def mean_and_std(values, digits, unit="", expected=None):
    """As text; with the number of values where it is not the expected one."""
    if not len(values):
        return ""
    text = f"{np.mean(values):.{digits}f}{unit}"
    if len(values) > 1:
        text += f" ± {np.std(values, ddof=1):.{digits}f}{unit}"
    return text + (f" (n = {len(values)})" if expected and len(values) != expected else "")


def between(low, high):
    low, high = round(low, 2), round(high, 2)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def pair(values, digits):
    """A return and a success rate in percent as text."""
    return f"{values[0]:.{digits}f}; {values[1]:.1f}%"


def limit_text(task):
    """Over all starts."""
    return f"{between(*TASKS[task].limit)}; {between(*TASKS[task].limit_success)}%"


def ranges(numbers):
    """1, 2, 3, 5 -> "1–3, 5"."""
    parts = np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1)
    return ", ".join(f"{part[0]}–{part[-1]}" if len(part) > 1 else f"{part[0]}" for part in parts)


def rows_of(results, experiment):
    """Task, variant and runs of everything that an experiment has results of."""
    for task in results.tasks(experiment):
        for variant in EXPERIMENTS[experiment].variants:
            if runs := results.runs(experiment, task, variant):
                yield task, variant, runs


def table(results):
    """Final evaluations, what they took, and what ran where."""
    final_rows, published_rows, effort_rows, rows_25, errors, shifts = [], [], [], [], [], {}
    for task, variant, runs in rows_of(results, "table"):
        t, d, (returns, success) = TASKS[task], digits(task), final(runs)
        seeds = goal.FINAL_SEEDS[: runs[0]["final"]["episodes"]]
        here, everywhere = limit_here(task, seeds), all_starts(task, runs)
        middle, low, high = iqm(returns[:, None])
        name, several = [t.title, NAMES[variant]], len(runs) > 1
        final_rows.append([
            *name, mean_and_std(returns, d), f"{middle:.{d}f} [{low:.{d}f}, {high:.{d}f}]" if several else "",
            mean_and_std(success, 1, "%"), "" if here is None else pair(here, d),
        ])  # fmt: skip
        published_rows.append([
            *name, mean_and_std(everywhere[0], d), mean_and_std(everywhere[1], 1, "%"),
            ", ".join(f"{x:.{d}f}" for x in everywhere[0]), f"{t.score(everywhere[0]).mean():.3f}", limit_text(task),
            f"{t.published_return[0]:.2f} ({t.published_return[1]}); {t.published_success}% (CHDP)",
        ])  # fmt: skip
        if task != "platform":  # it has one start
            errors.append("{}, {} {:.2f} / {:.3f}".format(*name, *starts_errors(task, runs)))
        shift = curve_shift(task, [run for v in NAMES for run in results.runs("table", task, v)])[0]
        shifts[t.title] = f"{shift:+.{d}f}"
        times = [x for run in runs if (x := reached(task, run, t.published_return[0], shift))]
        to = "{:,.0f}, {:.1f}".format(*np.median(times, axis=0)) if times else "never"
        ablation = results.runs("table", task, "dlpa_like")
        better = share_better(returns, final(ablation)[0]) if variant == "flexplore" else ""
        effort_rows.append([
            *name, f"{runs[0]['total_timesteps']:,}", ranges([run["seed"] for run in runs]),
            ", ".join(f"{x:.{d}f}" for x in returns),
            f"{np.mean([run['wall_seconds'] for run in runs]) / 60:.1f} "
            f"({np.mean([run['evaluation_seconds'] / run['wall_seconds'] for run in runs]):.0%})",
            to + (f" ({len(times)} of {len(runs)})" if several else ""), better,
        ])  # fmt: skip
        if "final_25" in runs[0]:
            returns, success = final(runs, "final_25")
            here = limit_here(task, seeds, "final_25")
            rows_25.append([
                *name, mean_and_std(returns, d), mean_and_std(success, 1, "%"), pair(here, d),
                pair(all_starts(task, runs, "final_25").mean(axis=1), d),
                pair(return_and_percent(LIMITS[task]["final_25"]), d),
            ])  # fmt: skip
    tables = [f"From these {len(seeds):,} starts:"]
    tables.append(markdown(["task", "variant", "return", "IQM, 95 %", "success", "limit"], final_rows))
    header = ["task", "variant", "return", "success", "return of each seed", "score", "limit", "published"]
    tables += ["Over all starts:", markdown(header, published_rows)]
    tables.append(f"Standard errors of these mean returns that are due to the starts (from the {len(seeds):,} / over "
                  f"all): {'; '.join(errors)}.")  # fmt: skip
    if overall := all_tasks(results, "table", NAMES):
        tables.append(overall)
    header = ["task", "variant", "steps", "seeds", "return of each seed", "minutes (evaluation)"]
    header.append("to the published return")
    ablated = any(row[-1] for row in effort_rows)
    effort_rows = [row if ablated else row[:-1] for row in effort_rows]
    tables.append("Effort; returns and P(better) are from these starts, the published return is over all:")
    tables.append(markdown(header + ["P(better)"] * ablated, effort_rows))
    of_tasks = ", ".join(f"{title} {shift}" for title, shift in shifts.items())
    tables.append(f"Returns over all starts less those from the starts of the curves: {of_tasks}.")
    if rows_25:
        header = ["task", "variant", "return", "success", "limit", "over all starts", "limit"]
        tables.append(f"The same weights, Hard Move with 25 steps instead of 30:\n\n{markdown(header, rows_25)}")
    tables.append(provenance(results, "table"))
    return "\n\n".join(tables)


def summary(results):
    """The table in brief."""
    rows = []
    for task, t in TASKS.items():
        runs = [results.runs("table", task, variant) for variant in NAMES]
        if all(runs):
            d, took = digits(task), [np.mean([run["wall_seconds"] for run in x]) / 60 for x in runs]
            cells = [f"{mean_and_std(r, d)}; {np.mean(p):.1f}%" for r, p in (all_starts(task, x) for x in runs)]
            rows.append([t.title, *cells, limit_text(task), f"{t.published_return[0]:.2f}; {t.published_success}%",
                         f"{runs[0][0]['total_timesteps']:,}", " / ".join(f"{x:.1f}" for x in took)])  # fmt: skip
    return markdown(["task", *NAMES.values(), "limit", "best published", "steps", "minutes"], rows)


def scores(results, experiment, variants):
    """Of each of the variants: scores (seeds, tasks) on the tasks that have all seeds of all; [] if none has."""
    of_tasks = [[TASKS[task].score(all_starts(task, results.runs(experiment, task, v))[0]) for v in variants]
                for task in results.tasks(experiment)]  # fmt: skip
    seeds = len(EXPERIMENTS[experiment].seeds)
    return [np.stack(x, axis=1) for x in zip(*(of for of in of_tasks if all(len(x) == seeds for x in of)))]


def all_tasks(results, experiment, variants):
    """A sentence on the scores of FLEXplore's and DLPA-like `variants`; "" if no task has all seeds of both."""
    if not (both := scores(results, experiment, variants)):
        return ""
    x, y = both
    n = x.shape[1]
    text = "Score over {} task{}, mean: FLEXplore {:.3f} [{:.3f}, {:.3f}], DLPA-like {:.3f} [{:.3f}, {:.3f}]; "
    text += "IQM: {:.3f} [{:.3f}, {:.3f}], {:.3f} [{:.3f}, {:.3f}]; "
    text += "probability that a run of FLEXplore is the better one: {:.2f} [{:.2f}, {:.2f}]."
    return text.format(n, "s" * (n > 1), *mean(x), *mean(y), *iqm(x), *iqm(y), *improvement(x, y))


def provenance(results, experiment):
    """A sentence on hardware, versions and commits."""
    runs = [run for *_, runs in rows_of(results, experiment) for run in runs]
    machines = Counter("{cpu}, {cores} cores".format(**run["hardware"]) for run in runs)
    torch = sorted({run["versions"]["torch"] for run in runs})
    commits = Counter((c := run["commit"] or "none")[:7] + c[40:] for run in runs)  # 40 digits, perhaps -dirty
    count = [", ".join(f"{name} ({n})" for name, n in sorted(c.items())) for c in (machines, commits)]
    return f"Machines (runs): {count[0]}. PyTorch {', '.join(torch)}. Commits (runs): {count[1]}."


def ceiling(results):
    """What ceiling.py reached, and how much of what an agent misses is search, how much model or exploration."""
    rows = []
    for task, t in TASKS.items():
        if result := results.read(f"ceiling/{task}"):
            (reached, success), n, d = return_and_percent(result["final"]), result["final"]["episodes"], digits(task)
            agents = [[x["final"]["returns"][:n] for x in results.runs("table", task, v)] for v in NAMES]
            here = limit_here(task, goal.FINAL_SEEDS[:n])
            cells = [t.title, f"{n:,}", limit_text(task) if here is None else pair(here, d)]
            cells.append(pair((reached, success), d))
            cells.append(f"{(t.limit[1] if here is None else here[0]) - reached:.{d}f}")
            rows.append(cells + [f"{reached - np.mean(x):.{d}f}" if x else "" for x in agents])
    header = ["task", "episodes", "limit", "ceiling", "search"]
    header += [f"model or exploration, {name}" for name in NAMES.values()]
    text = markdown(header, rows)
    misses = {name: [*map(missed_catches, results.runs("table", "catch_point", v))] for v, name in NAMES.items()}
    if all(misses.values()):
        of = [f"{name} {', '.join(str(n) for n, _ in x)}, which cost {np.mean([cost for _, cost in x]):.2f}"
              for name, x in misses.items()]  # fmt: skip
        text += f"\n\nCatch Point, starts within reach that each run did not catch: {'; '.join(of)} on average."
    return text


def goal_starts(results, edges=(-15, -12.5, -10, -5, 0, 5, 10, 12.5, 15)):
    """Success on Goal and Hard Goal by where the player starts: y in metres."""
    y, rows = goal_start_y(), []
    bins = [(y >= low) & (y < high) for low, high in zip(edges, edges[1:])]
    for task in ("goal", "hard_goal"):
        runs = {name: results.runs("table", task, variant) for variant, name in NAMES.items()}
        if result := results.read(f"ceiling/{task}"):
            runs[f"ceiling, {result['final']['episodes']} starts"] = [result]
        for name, of_seeds in runs.items():
            if of_seeds:
                returns = np.array([run["final"]["returns"] for run in of_seeds])
                success = (returns == goal.GoalEnv.GOAL_REWARD).mean(axis=0)
                rows.append([TASKS[task].title, name, *(f"{success[x[: len(success)]].mean():.0%}" for x in bins)])
    header = [f"{low:g} to {high:g} ({inside.sum()})" for low, high, inside in zip(edges, edges[1:], bins)]
    return markdown(["task", "*y* (starts)", *header], rows)


def speed(results):
    """What benchmark/speed.py wrote to speed.json."""
    result = results.read("speed")
    columns = "plan update policy environment".split()
    header = ["", "ms per plan", "ms per update of the model", "of the policies", "ms per environment step"]
    header += ["steps / s", "times DLPA's code", "rate of a plan, of an update"]
    rows = []
    for name, row in result.items():
        if not isinstance(row, dict) or "ms" not in row:
            continue
        task, *work = name.split(", ")
        peer = result.get(f"{task}, DLPA's code", {}).get(f"ratio of {name}")
        cells = [", ".join([task.replace("_", " ").title(), *work])]
        cells += [f"{row['ms'][x]:.1f}" if x in row["ms"] else "" for x in columns]
        cells += [f"{row['steps_per_second']:.1f}", f"{peer:.1f}" if peer else ""]
        rows.append(cells + [", ".join(f"{row[x]['ratio']:.0%}" for x in ("plan", "update")) if "plan" in row else ""])
    return markdown(header, rows)


def speed_gpu(results):
    """What benchmark/speed.py --cuda wrote to speed_gpu.json: on a core / on the GPU."""
    result = results.read("speed_gpu")
    rows = []
    for name in (x for x in result if f"{x}, GPU" in result):
        core, gpu = result[name], result[f"{name}, GPU"]
        cells = [f"{core['ms'][x]:.1f} / {gpu['ms'][x]:.1f}" for x in ("plan", "update", "policy", "evaluation")]
        cells.append(f"{core['steps_per_second']:.1f} / {gpu['steps_per_second']:.1f}")
        cells += [f"{gpu[f'{x} kernels']:.0f}, {gpu[f'{x} busy']:.0%}" for x in ("plan", "update")]
        rows.append([name.replace("_", " ").title(), *cells])
    header = "", "ms per plan", "update of the model", "of the policies", "planned step of evaluation", "steps / s"
    versions = f"{result['hardware']['gpu']}, PyTorch {result['versions']['torch']}."
    table = markdown([*header, "kernels of a plan, GPU busy", "of an update"], rows)
    return f"{table}\n\n{versions}"


def return_and_success(results, experiment, task, variant):
    returns, success = final(results.runs(experiment, task, variant))
    text = mean_and_std(returns, digits(task), expected=len(EXPERIMENTS[experiment].seeds))
    return f"{text}; {success.mean():.1f}%" if text else ""


def smoothing(results):
    rows = [[TASKS[task].title, *(return_and_success(results, "smoothing", task, v) for v in SMOOTHING)]
            for task in results.tasks("smoothing")]  # fmt: skip
    return markdown(["return; success", *SMOOTHING.values()], rows)


def flexibility_variant(kind, x):
    return "none_0" if x == "0" else f"{kind}_{x}"


def flexibility(results):
    rows = []
    for task in results.tasks("flexibility"):
        for kind in ("conditional", "marginal"):
            cells = []
            for x in FLEXIBILITIES:
                runs = results.runs("flexibility", task, flexibility_variant(kind, x))
                text = mean_and_std(final(runs)[0], digits(task), expected=len(EXPERIMENTS["flexibility"].seeds))
                errors = known([consistency_error(run) for run in runs])
                cells.append(text + (f"; {errors.mean():#.2g}".rstrip(".") if len(errors) else ""))
            rows.append([TASKS[task].title, kind, *cells])
    return markdown(["return; consistency error", "f_W", *(f"λ = {x}" for x in FLEXIBILITIES)], rows)


def apart(x, y):
    """Whether the means of x and y (..., seeds) differ by more than the larger of their standard deviations."""
    return abs(x.mean(axis=-1) - y.mean(axis=-1)) > np.maximum(x.std(axis=-1, ddof=1), y.std(axis=-1, ddof=1))


def components(results):
    rows = [[TASKS[task].title, *(return_and_success(results, "components", task, v) for v in COMPONENTS)]
            for task in results.tasks("components")]  # fmt: skip
    if of := scores(results, "components", COMPONENTS):
        n = of[0].shape[1]
        for name, statistic in (("Mean", mean), ("IQM", iqm)):
            cells = ["{:.3f} [{:.3f}, {:.3f}]".format(*statistic(x)) for x in of]
            rows.append([f"{name} of the score, {n} task{'s' * (n > 1)}", *cells])
    returns = [[final(results.runs("components", task, v))[0] for v in COMPONENTS]
               for task in results.tasks("components")]  # fmt: skip
    pairs = [(full, x) for full, *without in returns for x in without if len(full) > 1 and len(x) > 1]
    seeds = len(EXPERIMENTS["components"].seeds)
    by_chance = apart(*np.random.default_rng(0).normal(size=(2, 100_000, seeds))).mean()
    differ = sum(apart(*pair) for pair in pairs)
    text = (f"Means further from all parts' than the larger standard deviation of the two: {differ} of {len(pairs)} "
            f"({by_chance:.0%} of such pairs, if nothing but chance told them apart).")  # fmt: skip
    return markdown(["return; success", *COMPONENTS.values()], rows) + f"\n\n{text}"


def choices(results):
    rows, seeds = [], len(EXPERIMENTS["choices"].seeds)
    for task in results.tasks("choices"):
        of = {v: all_starts(task, results.runs("choices", task, v)) for v in CHOICES}
        cells = [f"{mean_and_std(r, digits(task), expected=seeds)}; {x.mean():.1f}%" if len(r) else ""
                 for r, x in of.values()]  # fmt: skip
        rows.append([TASKS[task].title, *cells, share_better(of["plain"][0], of["plain_dlpa_like"][0])])
    table = markdown(["return; success over all starts", *CHOICES.values(), "P(better), plain"], rows)
    overall = all_tasks(results, "choices", ("plain", "plain_dlpa_like"))
    return f"{table}\n\nPlain: {overall}" if overall else table


def exploration(results):
    rows, seeds = [], len(EXPERIMENTS["exploration"].seeds)
    for task in results.tasks("exploration"):
        shares = [mean_and_std(x, 1, "%", seeds) for x in coverages(results, task).values()]
        returns = [final(results.runs("exploration", task, v))[0] for v in EXPLORATION]
        rows.append([TASKS[task].title, "visited cells", *shares])
        rows.append(["", "return", *(mean_and_std(x, digits(task), expected=seeds) for x in returns)])
    return markdown(["task", "", *EXPLORATION.values()], rows)


def horizon(results):
    rows = []
    for task in results.tasks("horizon"):
        runs = {H: results.runs("horizon", task, f"H_{H}") for H in HORIZONS}
        seeds = len(EXPERIMENTS["horizon"].seeds)
        rows.append([TASKS[task].title, "return",
                     *(mean_and_std(final(r)[0], digits(task), expected=seeds) for r in runs.values())])  # fmt: skip
        errors = [known([consistency_error(run, H) for run in r]) for H, r in runs.items()]
        rows.append(["", "error at depth H", *(f"{e.mean():.2g}" if len(e) else "" for e in errors)])
        rows.append(["", "ms per plan", *(f"{np.mean([x['plan_ms'] for x in r]):.1f}" if r else ""
                                          for r in runs.values())])  # fmt: skip
    return markdown(["task", "", *(f"H = {H}" for H in HORIZONS)], rows)


TARGETS = {"platform": 0.98, "hard_move_4": 6.7}  # returns; of other tasks the published one
DLPA = {task: 7.56 if task == "catch_point" else TASKS[task].published_return[0]  # FLEXplore's own is higher there
        for task in EXPERIMENTS["minutes"].tasks}  # fmt: skip


def training_minutes(run, step):
    """Until `step`, without evaluations, as if every step took the same time (the last ones take longer)."""
    return (run["wall_seconds"] - run["evaluation_seconds"]) / 60 * step / run["total_timesteps"]


def sweep(results):
    """Half and twice of each size: median minutes of training to a target, how many runs reach it, what they end at."""
    tasks, rows = results.tasks("sweep"), []
    targets = {task: TARGETS.get(task, TASKS[task].published_return[0]) for task in tasks}
    for variant, flags in EXPERIMENTS["sweep"].variants.items():
        cells = []
        for task in tasks:
            runs = results.runs("sweep", task, variant)
            shift = curve_shift(task, runs)[0] if runs else 0
            times = []
            for run in runs:
                if at := reached(task, run, targets[task], shift):
                    times.append(training_minutes(run, at[0]))
            cells.append(f"{np.median(times):.1f} ({len(times)} of {len(runs)})" if times else "never" if runs else "")
            cells.append(pair(all_starts(task, runs).mean(axis=1), digits(task)) if runs else "")
        values = dict.fromkeys(x.split()[-1] for x in flags.values()) if flags else {}
        rows.append([f"`--{variant.split('_')[1]}` {' / '.join(values)}" if flags else "defaults", *cells])
    header = [x for task, to in targets.items() for x in (f"{TASKS[task].title}, minutes to {to}", "return; success")]
    return markdown(["", *header], rows)


def passes(task, runs):
    """Steps, minutes of training and minutes with evaluations until each run passes DLPA's return (3, runs)."""
    shift, times = curve_shift(task, runs)[0], []
    for run in runs:
        at = reached(task, run, DLPA[task], shift)
        times.append((at[0], training_minutes(run, at[0]), at[1]) if at else (np.inf,) * 3)
    return np.transpose(times)


def minutes(results):
    """When each run passes DLPA's published return, and what it has at its end."""
    rows, shown = [], lambda x, form: "never" if np.isinf(x) else format(x, form)
    for task, variant, runs in rows_of(results, "minutes"):
        (at_steps, *at_minutes), (returns, success) = passes(task, runs), all_starts(task, runs)
        rows.append([
            TASKS[task].title, f"{DLPA[task]:.2f}", f"{runs[0]['args']['eval_frequency']:,}", NAMES[variant],
            ", ".join(shown(x, ",.0f") for x in at_steps),
            *("; ".join([", ".join(shown(x, ".1f") for x in column), shown(np.median(column), ".1f")])
              for column in at_minutes),
            f"{runs[0]['total_timesteps']:,}", ", ".join(f"{x:.{digits(task)}f}" for x in returns),
            ", ".join(f"{x:.1f}" for x in success),
        ])  # fmt: skip
    header = ["task", "DLPA's return", "evaluations every (steps)", "variant", "steps until it is passed",
              "minutes; median", "with evaluations", "steps of the run", "return at its end", "success, %"]  # fmt: skip
    return markdown(header, rows)


def steps(results, experiment):
    """A sentence on the length of the runs of each task."""
    lengths = {}
    for task, _, runs in rows_of(results, experiment):
        lengths.setdefault(TASKS[task].title, set()).update(run["total_timesteps"] for run in runs)
    texts = (f"{title} {' or '.join(f'{n:,}' for n in sorted(x))}" for title, x in lengths.items())
    return f"Steps: {', '.join(texts)}."


def defaults(task):
    """The Args of a task's script."""
    script, *flags = SCRIPTS[task].split()
    return tyro.cli(importlib.import_module(script.removesuffix(".py")).Args, args=flags)


def defaults_table():
    """Every flag of which not all tasks have the same default."""
    args = {task: defaults(task) for task in TASKS}
    names = [x for x in vars(args["goal"]) if x not in ("exp_name", "env_id", "eval_frequency", "eval_episodes")]
    rows = [
        [f"`--{x.replace('_', '-')}`", *values]
        for x in names
        if len({*(values := [getattr(a, x) for a in args.values()])}) > 1
    ]
    rows.append(["T in steps", *(f"{a.smoothing_start * a.total_timesteps:,.0f}" for a in args.values())])
    return markdown(["", *(TASKS[task].title for task in args)], rows)


def flags(results):
    """What the runs of the ablations have that is not the default."""
    rows = []
    for name in ABLATIONS:
        experiment, tasks = EXPERIMENTS[name], {}
        for task in results.tasks(name):
            given = f"{experiment.task_flags.get(task, '')} {experiment.flags}".strip()
            tasks.setdefault(f"`{given}`" if given else "defaults", []).append(TASKS[task].title)
        rows += [[f"`{name}`", ", ".join(titles), given] for given, titles in tasks.items()]
    return markdown(["experiment", "tasks", "flags of all variants"], rows)


ABLATIONS = {f.__name__: f for f in (smoothing, flexibility, components, choices, exploration, horizon, sweep,
                                     minutes)}  # fmt: skip
TABLES_ONLY = "sweep", "minutes"  # without a figure
MEASUREMENTS = {f.__name__: f for f in (summary, ceiling, goal_starts, speed, speed_gpu, flags)}


def section(results, name):
    """What a document says between the markers of `name`."""
    if name == "defaults":
        return defaults_table()
    if name in MEASUREMENTS:
        return MEASUREMENTS[name](results)
    if not results.tasks(name):
        return f"Not run yet: `python benchmark/run.py {name}`."
    if name == "table":
        return (f"{table(results)}\n\n![Returns against steps](figures/curves_table.png)\n"
                "![Returns against minutes](figures/minutes_table.png)")  # fmt: skip
    figure = "" if name in TABLES_ONLY else f"![{name.capitalize()}](figures/{name}.png)\n\n"
    return f"{ABLATIONS[name](results)}\n\n{figure}{steps(results, name)} {provenance(results, name)}"


def regenerate(text, results):
    """A document with new sections between its markers."""
    marked = re.compile(r"(<!-- begin (\w+) -->\n).*?(<!-- end \2 -->)", re.DOTALL)
    return marked.sub(lambda match: f"{match[1]}{section(results, match[2])}\n{match[3]}", text)


@dataclass
class Args:
    results: Path = RESULTS
    """where the results are; those of run.py --output DIR are in DIR/results"""


if __name__ == "__main__":
    import plots
    import prose

    args = tyro.cli(Args)
    results = Results(args.results.resolve())
    if not any(map(results.tasks, EXPERIMENTS)):
        sys.exit(f"error: --results must be a directory with results of experiments, not {args.results}")
    plots.draw(results, results.root.parent / "figures")
    if results.root == RESULTS:
        if missing := results.missing():
            print(f"numbers in the prose are left as they are: there are not all runs of {'/'.join(missing[0])}")
        phrases = {} if missing else prose.phrases(results)
        for document in DOCUMENTS:
            document.write_text(prose.fill(regenerate(document.read_text(), results), phrases))
    else:
        print("\n\n".join(section(results, name) for name in ("table", *ABLATIONS) if results.tasks(name)))
