"""Figures that the prose of README.md and RESULTS.md repeats from the stored results; report.py keeps them up to date.

A phrase is found wherever its words are, with any number in place of each {}.
"""

import math
import re

import numpy as np
import report
from report import LIMITS, NAMES, TASKS

NUMBER = r"(-?\d+(?:,\d{3})*(?:\.\d+)?)"
MOVES = [task for task in TASKS if task.startswith("hard_move")]
PLAIN = "plain", "plain_dlpa_like"


def pattern(phrase):
    """A regular expression: the words of `phrase`, apart by any white space, and a group for the number of each {}."""
    words = [r"\s+".join(map(re.escape, part.split(" "))) for part in phrase.split("{}")]
    return re.compile(NUMBER.join(words))


def fill(text, phrases):
    """`text` with the figures of `phrases`: {phrase: its figures as text}."""
    for phrase, figures in phrases.items():
        if phrase.count("{}") != len(figures):
            raise ValueError(f"{len(figures)} figures for {phrase!r}")
        for match in reversed([*pattern(phrase).finditer(text)]):
            for i in reversed(range(len(figures))):
                start, end = match.span(i + 1)
                text = text[:start] + figures[i] + text[end:]
    return text


def numbers(values, digits):
    return [f"{x:.{digits}f}" for x in values]


def span(values, digits):
    """The least and the greatest."""
    return numbers((np.min(values), np.max(values)), digits)


def within(values):
    """The greatest of `values`, rounded up to hundredths."""
    return [f"{math.ceil(100 * np.max(values)) / 100:.2f}"]


def percents(estimate):
    """A share with its interval."""
    return numbers([100 * x for x in estimate], 0)


def means(returns, tasks):
    return [f"{returns[task].mean():.{report.digits(task)}f}" for task in tasks]


def phrases(results):
    """-> {phrase: its figures as text}."""
    return table(results) | ablations(results) | speed(results)


def table(results):
    runs = {v: {task: results.runs("table", task, v) for task in TASKS} for v in NAMES}
    here = {v: {task: report.final(x)[0] for task, x in of.items()} for v, of in runs.items()}
    everywhere = {v: {task: report.all_starts(task, x) for task, x in of.items()} for v, of in runs.items()}
    returns = {v: {task: x[0] for task, x in of.items()} for v, of in everywhere.items()}
    times = [np.array([np.mean([run["wall_seconds"] for run in x]) for x in of.values()]) for of in runs.values()]
    ours, ablated = returns["flexplore"], returns["dlpa_like"]
    missing = {task: t.limit[1] - ours[task] for task, t in TASKS.items()}
    limit_here = {task: report.limit_here(task, report.goal.FINAL_SEEDS[:1000])[0] for task in MOVES}
    missing_here = {task: within(limit_here[task] - here["flexplore"][task]) + [f"{limit_here[task]:.2f}"]
                    for task in MOVES}  # fmt: skip
    above = {task: ours[task] - t.published_return[0] for task, t in TASKS.items()}
    wins = {task: percents(report.improvement(*(here[v][task][:, None] for v in NAMES))) for task in TASKS}
    errors = {task: np.max([report.starts_errors(task, runs[v][task]) for v in NAMES], axis=0)
              for task in ("goal", "hard_goal", "catch_point", *MOVES)}  # fmt: skip
    harder = {task: report.curve_shift(task, runs["flexplore"][task] + runs["dlpa_like"][task])[0] for task in TASKS}
    first, last = runs["flexplore"]["goal"][0], runs["flexplore"]["goal"][0]["curve"][-1]
    printed = [[f"{x['return_mean']:.3f}", f"{x['return_std']:.3f}", f"{100 * x['success_rate']:.1f}"]
               for x in (last, first["final"])]  # fmt: skip
    ceilings = {task: results.read(f"ceiling/{task}")["final"] for task in ("goal", "hard_goal")}
    beside = [np.mean([run["final"]["returns"][:200] for run in of[task]]) for of in runs.values() for task in ceilings]
    after_25 = {task: report.all_starts(task, runs["flexplore"][task], "final_25").mean(axis=1) for task in MOVES}
    platform = [f"{ours['platform'].mean() - ablated['platform'].mean():.3f}", f"{ablated['platform'].min():.3f}"]
    of_each_seed = [x for v in NAMES for x in span(everywhere[v]["platform"][1], 1)]
    return {
        "for FLEXplore {} on Goal, {} on Hard Goal, {} on Catch Point, {}, {}, {} and {} in Hard Move":
            means(here["flexplore"], ["goal", "hard_goal", "catch_point", *MOVES]),
        "mean over 1,000 starts, has a standard error of {} to {}":
            numbers([errors["hard_move_6"][0], errors["catch_point"][0]], 1),
        "On Hard Move FLEXplore is on average within {} of the limit, on Catch Point within {}":
            within([missing[task].mean() for task in MOVES]) + within(missing["catch_point"].mean()),
        "step 20000: return {} ± {}, success {}% (50 greedy episodes) final: return {} ± {}, success {}%, 1000 "
        "episodes, 20000 steps, {} s to train":
            printed[0] + printed[1] + [f"{first['wall_seconds']:.0f}"],
        "over all starts ({} for this run)": numbers(ours["goal"][:1], 1),
        "other seeds of Goal had {} to {} in their final line ({} to {} over all starts)":
            span(here["flexplore"]["goal"][1:], 1) + span(ours["goal"][1:], 1),
        "easier than the average one on Goal and Hard Goal (by {} and {}) and harder on Catch Point ({}) and Hard Move "
        "({} to {})":
            numbers([-harder["goal"], -harder["hard_goal"], harder["catch_point"]], 1)
            + span([harder[task] for task in MOVES], 1),
        "Platform ({} %, {} to {}), by {} on average, mostly because of one DLPA-like run of {}":
            wins["platform"] + platform,
        "On Platform FLEXplore wins {} % of the pairs, by {} on average, mostly by one DLPA-like run of {}":
            wins["platform"][:1] + platform,
        "On Goal and Hard Goal it wins {} and {} %": [wins["goal"][0], wins["hard_goal"][0]],
        "On Catch Point FLEXplore wins {} % of the pairs": wins["catch_point"][:1],
        "beats a DLPA-like one in {} % of the pairs ({} to {}), and takes {} to {} times as long":
            percents(report.improvement(*report.scores(results, "table", NAMES)))
            + span(times[0] / times[1], 1),
        "it takes {} to {} times the time": span(times[0] / times[1], 1),
        "have an error of up to {} on Catch Point and Hard Move (means of five runs), {} on Goal and Hard Goal": [
            f"{max(errors[task][1] for task in ('catch_point', *MOVES)):.2f}",
            f"{max(errors[task][1] for task in ('goal', 'hard_goal')):.1f}",
        ],
        "single seeds {} to {} % (DLPA-like {} to {} %)": of_each_seed,
        "on every seed; {} to {} % success (DLPA-like {} to {} %)": of_each_seed,
        "ceilings are {} and {} on 200 starts, on which FLEXplore has {} and {}, DLPA-like {} and {}":
            numbers([*(x["return_mean"] for x in ceilings.values()), *beside], 1),
        "every seed above all that is published, in return by {} to {}": span(above["catch_point"], 1),
        "every seed within {} of the limit and above all that is published, with 6 thrusters by {} to {} only":
            within([missing[task] for task in MOVES]) + span(above["hard_move_6"], 2),
        "more than 25 steps allow on average over all starts ({} and {})":
            numbers([LIMITS[task]["final_25"]["return_mean"] for task in MOVES[:2]], 2),
        "our returns after 25 steps ({} and {})": numbers([after_25[task][0] for task in MOVES[2:]], 2),
        # RESULTS.md
        "rounded differently, 38.73 ± 0.86; now {} to {}": span(here["flexplore"]["hard_goal"], 2),
        "{} to {}, with {} possible": span(ours["hard_move_6"], 2) + numbers([TASKS["hard_move_6"].limit[1]], 2),
        "above the published figures and within {} of the limit ({})": missing_here["hard_move_4"],
        "**Hard Move 6**: within {} of the limit ({})": missing_here["hard_move_6"],
        "FLEXplore is within {} of the limit ({})": missing_here["hard_move_8"],
        "and within {} of the limit ({}) with each, as is DLPA-like": missing_here["hard_move_10"],
        "(over all starts {}, {} % against 7.80, 90.6 %)": numbers(after_25["hard_move_8"][:1], 2)
            + numbers(after_25["hard_move_8"][1:], 1),
        "(over all starts {}, {} % against 6.35, 79.8 %)": numbers(after_25["hard_move_10"][:1], 2)
            + numbers(after_25["hard_move_10"][1:], 1),
    }  # fmt: skip


def ablations(results):
    tasks = results.tasks("choices")
    returns = {v: {task: report.all_starts(task, results.runs("choices", task, v))[0] for task in tasks}
               for v in report.CHOICES}  # fmt: skip
    wins = percents(report.improvement(*report.scores(results, "choices", PLAIN)))
    drop = {task: [x for v in ("plain", "flexplore")
                   for x in report.mean_and_std(returns[v][task], report.digits(task)).split(" ± ")]
            for task in tasks}  # fmt: skip
    smoothed = {task: span([report.final(results.runs("smoothing", task, v))[0].mean() for v in report.SMOOTHING],
                           2 if task == "catch_point" else 1)
                for task in ("catch_point", "goal", "hard_goal")}  # fmt: skip
    parts = {v: {task: report.final(results.runs("components", task, v))[0] for task in ("goal", "hard_goal")}
             for v in report.COMPONENTS}  # fmt: skip
    cells = {v: f"{x.mean():.0f}" for v, x in report.coverages(results, "platform").items()}
    return {
        "With most of them off FLEXplore has {} on Platform, {} on Goal, {} on Catch Point, {} and {} on Hard Move 4 "
        "and 8, DLPA-like {}, {}, {}, {} and {}":
            means(returns["plain"], tasks) + means(returns["plain_dlpa_like"], tasks),
        "(FLEXplore in {} % of the pairs of runs, {} to {})": wins,
        "FLEXplore is the better one in {} % of the pairs ({} to {})": wins,
        "five seeds never reach the end ({}, {}, {}, {}, {})": numbers(returns["plain"]["platform"], 3),
        "Hard Move 4 has {} ± {} instead of {} ± {}": drop["hard_move_4"],
        "Hard Move 8 {} ± {} instead of {} ± {}": drop["hard_move_8"],
        "Catch Point {} ± {} instead of {} ± {}": drop["catch_point"],
        "Goal {} ± {} instead of {} ± {}": drop["goal"],
        "or never ({} to {}), nor does it on Goal ({} to {}) and Hard Goal ({} to {})":
            smoothed["catch_point"] + smoothed["goal"] + smoothed["hard_goal"],
        "Goal has {} without it and {} with it, Hard Goal {} and {}":
            numbers([parts[v][task].mean() for task in parts["flexplore"] for v in ("no_smoothing", "flexplore")], 1),
        "On Platform {} and {} % of the cells (without {}, with random steps {})":
            [cells[v] for v in ("mi_alone_0.1", "mi_alone_1", "neither", "without_mi")],
    }  # fmt: skip


def speed(results):
    shares = [np.mean([run["evaluation_seconds"] / run["wall_seconds"] for run in runs])
              for *_, runs in report.rows_of(results, "table")]  # fmt: skip
    seconds = [[run["wall_seconds"] - run["evaluation_seconds"] for run in runs]
               for *_, runs in report.rows_of(results, "sweep")]  # fmt: skip
    slower = [max(x) / min(x) for x in seconds]
    measured, kills = results.read("speed"), results.read("kills")
    scripts = "platform", "goal", "catch_point", "hard_move"
    short = {v: report.all_starts("platform", results.runs("minutes", "platform", v))[0] for v in NAMES}
    peers = [measured[f"{task}, DLPA's code"] for task in ("platform", "hard_move")]
    return {
        "One thread made {} environment steps a second on Platform, {} on Goal, {} on Catch Point and {} on Hard Move":
            numbers([measured[x]["steps_per_second"] for x in scripts], 0),
        "That is {} (Platform) and {} (Hard Move 4) times as many":
            numbers([peer[f"ratio of {task}"] for task, peer in zip(("platform", "hard_move"), peers)], 1),
        "each with its own defaults, and {} and {} times with as much work per step":
            numbers([peer[f"ratio of {task}, DLPA's work"] for task, peer in zip(("platform", "hard_move"), peers)], 1),
        "{} of {} small runs did, killed and resumed {} times in all":
            [str(kills[x]) for x in ("identical", "runs", "kills")],
        "The evaluations take {} to {} % of these minutes": numbers([100 * min(shares), 100 * max(shares)], 0),
        "one seed took up to {} times as long as another": [f"{max(slower):.1f}"],
        "published returns after {} (Platform), {} (Goal), {} (Catch Point) and {} (Hard Move 8) minutes, DLPA-like "
        "runs after {}, {}, {} and {}":
            numbers([np.median(report.passes(task, results.runs("minutes", task, variant))[1])
                     for variant in NAMES for task in report.DLPA], 1),
        "after 1,500 steps it wins {} % of the pairs ({} to {})":
            percents(report.improvement(*(x[:, None] for x in short.values()))),
        "FLEXplore ends at {} to {}, DLPA-like runs at {}, {}, {}, {} and {}":
            span(short["flexplore"], 3) + numbers(short["dlpa_like"], 3),
        "A checkpoint takes at most {} % of a default run":
            [f"{100 * max(measured[x]['checkpoint_share'] for x in scripts):.2f}"],
    }  # fmt: skip
