"""Regenerate the README's tables and the figures from benchmark/results alone: python benchmark/report.py"""

import json
import re
from pathlib import Path

import matplotlib
import numpy as np
from scipy.stats import bootstrap

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmark" / "results"
FIGURES = ROOT / "benchmark" / "figures"
# task: title, random play's return, DLPA's published return, best published figures, best possible ones
TASKS = {
    "platform": ("Platform", 0.155, 0.92, "0.92 (DLPA); 99.7 % (CHDP)", "1.000; 99.98 %"),
    "goal": ("Goal", -7.97, 28.75, "28.75 (DLPA); 80.9 % (CHDP)", "46.8 to 48.7; 95.0 to 98.0 %"),
    "hard_goal": ("Hard Goal", -7.48, 28.38, "28.38 (DLPA); 79.5 % (CHDP)", "47.3 to 48.7; 95.8 to 98.0 %"),
    "catch_point": ("Catch Point", -25.4, 7.56, "8.12 (FLEXplore); 93.8 % (CHDP)", "8.76; 96.5 %"),
    "hard_move_4": ("Hard Move 4", -36.4, 6.29, "6.29 (DLPA); 94.2 % (CHDP)", "7.0 to 7.2; 96.3 %"),
    "hard_move_6": ("Hard Move 6", -36.2, 8.48, "8.48 (DLPA); 93.9 % (CHDP)", "8.55 to 8.62; 98.9 %"),
    "hard_move_8": ("Hard Move 8", -36.4, 7.80, "7.80 (DLPA); 90.6 % (CHDP)", "8.93 to 8.97; 99.3 %"),
    "hard_move_10": ("Hard Move 10", -36.4, 6.35, "6.35 (DLPA); 79.8 % (CHDP)", "9.13; 99.6 %"),
}
VARIANTS = {"flexplore": "FLEXplore", "dlpa_like": "DLPA-like"}


def load(experiment, task, variant):
    """The result.json of each seed."""
    return [json.loads(p.read_text()) for p in sorted((RESULTS / experiment / task / variant).glob("seed_*.json"))]


def table(experiment):
    """A Markdown table of every task and variant that has results."""
    header = "task | variant | steps | seeds | return | success | return of each seed | minutes | evaluation | "
    header += "published | best possible"
    lines = [f"| {header} |", "|---" * 11 + "|"]
    for task, (title, _, _, published, possible) in TASKS.items():
        for variant, name in VARIANTS.items():
            runs = load(experiment, task, variant)
            for final in [key for key in ("final", "final_25") if runs and key in runs[0]]:
                returns = np.array([run[final]["return_mean"] for run in runs])
                success = np.array([run[final]["success_rate"] for run in runs])
                spread = ["", ""]
                if len(runs) > 1:
                    spread = [f" ± {returns.std(ddof=1):.3f}", f" ± {success.std(ddof=1):.1%}"]
                minutes = np.array([run["wall_seconds"] for run in runs]) / 60
                share = np.mean([run["evaluation_seconds"] / run["wall_seconds"] for run in runs])
                suffix = " (25 steps)" if final == "final_25" else " (30 steps)" if "final_25" in runs[0] else ""
                seeds = ", ".join(str(run["seed"]) for run in runs)
                cells = [title + suffix, name, f"{runs[0]['total_timesteps']:,}", seeds]
                cells += [f"{returns.mean():.3f}{spread[0]}", f"{success.mean():.1%}{spread[1]}"]
                cells += [", ".join(f"{r:.3f}" for r in returns), f"{minutes.mean():.1f}", f"{share:.0%}"]
                cells += ["", ""] if final == "final_25" else [published, possible]
                lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def speed():
    """A Markdown table of speed.json, which benchmark/speed.py writes."""
    result = json.loads((RESULTS / "speed.json").read_text())
    columns = "plan update policy environment".split()
    header = "| ms per plan | ms per update of the model | of the policies | ms per environment step | steps / s | "
    lines = ["| " + header + "times DLPA's code | rate of a plan, of an update |", "|---" * 8 + "|"]
    for name, row in result.items():
        if not isinstance(row, dict) or "ms" not in row:
            continue
        peer = result.get(f"{name.split(',')[0]}, DLPA's code", {}).get(f"ratio of {name}")
        cells = [name.replace("_", " ").capitalize().replace("dlpa", "DLPA")]
        cells += [f"{row['ms'][x]:.1f}" if x in row["ms"] else "" for x in columns]
        cells += [f"{row['steps_per_second']:.1f}", f"{peer:.1f}" if peer else ""]
        cells += [", ".join(f"{row[x]['ratio']:.0%}" for x in ("plan", "update")) if "plan" in row else ""]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def minutes_to(experiment, task, threshold):
    """A sentence: wall-clock of each run until two consecutive evaluations are above `threshold`."""
    lines = []
    for variant, name in VARIANTS.items():
        minutes = []
        for run in load(experiment, task, variant):
            pairs = zip(run["curve"], run["curve"][1:])
            reached = [b["wall_seconds"] / 60 for a, b in pairs if min(a["return_mean"], b["return_mean"]) > threshold]
            minutes.append(f"{reached[0]:.1f}" if reached else "never")
        if minutes:
            lines.append(f"{name} {', '.join(minutes)}")
    return f"Minutes until two consecutive evaluations are above {threshold}, per seed: {'; '.join(lines)}."


def learning_curves(experiment, tasks):
    """Evaluation return against environment steps: mean over seeds with a 95 % bootstrap interval."""
    columns = min(len(tasks), 2)
    rows = -(-len(tasks) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(6 * columns, 3.6 * rows), squeeze=False)
    for ax in axes.flat[len(tasks) :]:
        ax.axis("off")
    for ax, task in zip(axes.flat, tasks):
        title, random, dlpa, *_ = TASKS[task]
        for variant, colour in zip(VARIANTS, ("tab:blue", "tab:orange")):
            runs = load(experiment, task, variant)
            if not runs:
                continue
            steps = [point["step"] for point in runs[0]["curve"]]
            curves = np.array([[point["return_mean"] for point in run["curve"]] for run in runs])
            label = f"{VARIANTS[variant]}, {len(runs)} seed{'s' * (len(runs) > 1)}"
            ax.plot(steps, curves.mean(axis=0), color=colour, label=label)
            if len(runs) > 1:
                interval = bootstrap((curves,), np.mean, axis=0, method="percentile", rng=0).confidence_interval
                ax.fill_between(steps, *interval, color=colour, alpha=0.2, linewidth=0)
        ax.axhline(dlpa, color="black", linestyle="--", linewidth=1, label="DLPA, published")
        ax.axhline(random, color="grey", linestyle=":", linewidth=1, label="random play")
        ax.set(title=title, xlabel="environment steps", ylabel="return of greedy episodes")
        ax.legend(loc="lower right")
    figure.tight_layout()
    FIGURES.mkdir(exist_ok=True)
    figure.savefig(FIGURES / f"curves_{experiment}.png", dpi=100)


if __name__ == "__main__":
    path = ROOT / "README.md"
    text = path.read_text()
    for experiment in re.findall(r"<!-- begin (\w+) -->", text):
        generated = speed() if experiment == "speed" else table(experiment)
        if load(experiment, "platform", "flexplore"):
            generated += "\n\nPlatform: " + minutes_to(experiment, "platform", 0.98)
        begin, end = f"<!-- begin {experiment} -->", f"<!-- end {experiment} -->"
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{generated}\n{end}{rest.split(end)[1]}"
        if tasks := [task for task in TASKS if load(experiment, task, "flexplore")]:
            learning_curves(experiment, tasks)
    path.write_text(text)
