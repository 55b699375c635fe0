"""One frame of each task, drawn by its environment: python benchmark/frames.py -> benchmark/figures/frames.png"""

import sys
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from flexplore_catch_point import CatchPointEnv  # noqa: E402
from flexplore_goal import GoalEnv, HardGoalEnv  # noqa: E402
from flexplore_hard_move import HardMoveEnv  # noqa: E402
from flexplore_platform import PlatformEnv  # noqa: E402

# title: environment, seed, actions (k, z) played before the frame is taken
SCENES = {
    "Platform": (PlatformEnv(), 0, [(0, [0.6])]),
    "Goal": (GoalEnv(), 3, [(0, [-0.7, 0])]),
    "Hard Goal": (HardGoalEnv(), 5, [(0, [-0.6, 0]), (10, [0.3, 0])]),
    "Catch Point": (CatchPointEnv(), 4, [(0, [0.9]), (0, [0.9]), (1, [0]), (0, [0.9]), (0, [0.9])]),
    "Hard Move (n = 10)": (HardMoveEnv(n=10), 2, [(1, [1]), (3, [1]), (3, [1]), (7, [1]), (3, [1])]),
}

figure, axes = plt.subplot_mosaic([["Platform"] * 4, list(SCENES)[1:]], figsize=(12, 5.6), height_ratios=[1, 1.6])
for title, (env, seed, actions) in SCENES.items():
    env.reset(seed=seed)
    for k, z in actions:
        env.step((k, np.array(z, np.float32)))
    axes[title].imshow(env.render())
    axes[title].set_title(title)
    axes[title].axis("off")
figure.tight_layout()
(ROOT / "benchmark" / "figures").mkdir(exist_ok=True)
figure.savefig(ROOT / "benchmark" / "figures" / "frames.png", dpi=80)
