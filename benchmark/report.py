"""Regenerate the README's result tables from benchmark/results, and nothing else: python benchmark/report.py"""

import json
import re
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmark" / "results"
# task: title, best published figure, best possible (see "What the numbers mean" in the README)
TASKS = {
    "platform": ("Platform", "0.92 (DLPA); 99.7 % (CHDP)", "1.000; 100 %"),
    "goal": ("Goal", "28.75 (DLPA); 80.9 % (CHDP)", "≤ 48.7; ≤ 98.0 %"),
    "hard_goal": ("Hard Goal", "28.38 (DLPA); 79.5 % (CHDP)", "≤ 48.7; ≤ 98.0 %"),
    "catch_point": ("Catch Point", "8.12 (FLEXplore); 93.8 % (CHDP)", "8.76; 96.5 %"),
    "hard_move_4": ("Hard Move 4", "6.29 (DLPA); 94.2 % (CHDP)", "7.0–7.2; 96.3 %"),
    "hard_move_6": ("Hard Move 6", "8.48 (DLPA); 93.9 % (CHDP)", "8.55–8.62; 98.9 %"),
    "hard_move_8": ("Hard Move 8", "7.80 (DLPA); 90.6 % (CHDP)", "8.93–8.97; 99.3 %"),
    "hard_move_10": ("Hard Move 10", "6.35 (DLPA); 79.8 % (CHDP)", "9.13; 99.6 %"),
}
VARIANTS = {"flexplore": "FLEXplore", "dlpa_like": "DLPA-like"}


def table(experiment):
    """A Markdown table of every task and variant that has results."""
    header = "task | variant | steps | seeds | return | success | return of each seed | minutes | published | possible"
    lines = [f"| {header} |", "|---" * 10 + "|"]
    for task, (title, published, limit) in TASKS.items():
        for variant, name in VARIANTS.items():
            paths = sorted((RESULTS / experiment / task / variant).glob("seed_*.json"))
            runs = [json.loads(path.read_text()) for path in paths]
            for final in [key for key in ("final", "final_25") if runs and key in runs[0]]:
                returns = np.array([run[final]["return_mean"] for run in runs])
                success = np.array([run[final]["success_rate"] for run in runs])
                minutes = np.mean([run["wall_seconds"] for run in runs]) / 60
                suffix = " (25 steps)" if final == "final_25" else " (30 steps)" if "final_25" in runs[0] else ""
                seeds = ", ".join(str(run["seed"]) for run in runs)
                cells = [title + suffix, name, f"{runs[0]['total_timesteps']:,}", seeds]
                spread = [x.std(ddof=1) if len(runs) > 1 else np.nan for x in (returns, success)]
                cells += [f"{returns.mean():.3f} ± {spread[0]:.3f}", f"{success.mean():.1%} ± {spread[1]:.1%}"]
                cells += [", ".join(f"{r:.3f}" for r in returns), f"{minutes:.1f}"]
                cells += ["", ""] if final == "final_25" else [published, limit]
                lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    path = ROOT / "README.md"
    text = path.read_text()
    for experiment in re.findall(r"<!-- begin (\w+) -->", text):
        begin, end = f"<!-- begin {experiment} -->", f"<!-- end {experiment} -->"
        before, rest = text.split(begin)
        text = before + f"{begin}\n{table(experiment)}\n{end}" + rest.split(end)[1]
    path.write_text(text)
