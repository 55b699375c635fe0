# /// script
# requires-python = ">=3.10"
# dependencies = ["torch==2.13.0", "numpy~=2.2", "gymnasium~=1.2", "tyro~=1.0", "tensorboard~=2.20", "tqdm~=4.67"]
# ///
"""FLEXplore on Platform, in one file, to be read top to bottom: settings, environment, algorithm, training loop.

FLEXplore (arXiv 2501.02774) is model-based reinforcement learning for parameterized actions: in state s choose a
discrete action k and its continuous parameters z. It learns a "loose yet flexible" model (T_phi: next state, R_psi:
reward, C_omega: chance that the episode goes on) with a Wasserstein loss (critic f_W), smooths R_psi, pays a
mutual-information bonus for exploration, and acts by planning through the model (MPPI, as in DLPA, ICML 2024, which it
builds on), with proposals of two policies pi_beta(k|s) and p_theta(z|s,k). Written from a summary of the paper ("the
paper" below), not from its code. [choice] marks what the paper leaves open and what goes beyond it; README.md has what
was measured. Where a setting says "0 is the paper" (or 1, or False), this value switches off what we added.

    python flexplore_platform.py --seed 1

From flexplore-baselines. MIT License, Copyright (c) 2026 the flexplore-baselines authors.
"""

import ctypes
import json
import math
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections import namedtuple
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import gymnasium as gym
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
import tyro
from gymnasium import spaces
from torch.nn.utils.parametrizations import spectral_norm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm


@dataclass
class Args:
    exp_name: str = Path(__file__).stem
    """the name of this experiment"""
    seed: int = 1
    """seed of everything random in training; evaluation episodes have fixed seeds of their own"""
    torch_deterministic: bool = True
    """use deterministic algorithms wherever PyTorch has them"""
    cuda: bool = False
    """train on a GPU"""
    compile: bool = False
    """torch.compile planning and updates in training (a minute or two at the start); on a CPU only rounding differs"""
    track: bool = False
    """log to Weights & Biases as well (needs `pip install wandb`)"""
    wandb_project_name: str = "flexplore-baselines"
    """the Weights & Biases project"""
    wandb_entity: str | None = None
    """the Weights & Biases team"""
    capture_video: bool = False
    """record one episode of each evaluation but the final under runs/<run_name>/videos (needs `pip install moviepy`)"""
    checkpoint_frequency: int = 1000
    """steps between writes of runs/<run_name>/checkpoint.pt, at an episode's end, also after warm-up; 0 for none"""
    resume: Path | None = None
    """directory of an interrupted run with the same flags, to go on from its checkpoint"""
    save_model: bool = False
    """keep the weights of the final evaluation and the flags in runs/<run_name>/model.pt"""
    evaluate: Path | None = None
    """a saved model.pt: no training, only the final evaluation of this model with its own flags (and --cuda)"""
    # Task
    env_id: Literal["Platform-v0"] = "Platform-v0"
    """the environment"""
    env_source: Literal["inline", "gym-platform"] = "inline"
    """the environment of this file, or the original package (README: "The original gym-platform")"""
    time_limit: int = 0
    """the environment's own limit in steps, if told: plans end there, that step is learned; 0, the paper: not told"""
    total_timesteps: int = 2500
    """environment steps of the run"""
    learning_starts: int = 100
    """steps of uniformly random play before learning and planning start"""
    random_fraction: float = 0.3
    """share of the steps after warm-up, except in greedy episodes, that are random as well; 0 is the paper"""
    greedy_fraction: float = 0.5
    """share of the second half's episodes played as in evaluation, but with N and H of training; 0 is the paper"""
    survival_fraction: float = 0.5
    """share of random steps after warm-up drawn from 64 candidates by C_omega's chance of going on; 0 is the paper"""
    policy_parameters: float = 0.0
    """share of random steps after warm-up whose z is p_theta's (if that is trained), not uniform; 0 is the paper"""
    parameter_noise: float = 0.3
    """standard deviation of the noise on the parameters of planned actions, in training only; 0 is the paper"""
    # Model
    hidden_size: int = 64
    """width of the two hidden layers of every network"""
    outcome_input: Literal["action", "next_state"] = "action"
    """R_psi and C_omega of (s, k, z), the paper, or of s and the next state that T_phi predicts for (s, k, z)"""
    frequencies: int = 6
    """J: sines and cosines of pi/2 2^j s, j < J, are inputs of R_psi and C_omega as well as s; 0 is the paper"""
    outcome_networks: int = 3
    """M: networks for R_psi and C_omega; plans use their mean, or the return by each (--optimism); 1 is the paper"""
    activation: Literal["relu", "gelu"] = "relu"
    """activation of T_phi, R_psi, C_omega and p_theta (f_W: |x|, pi_beta: ReLU)"""
    learning_rate: float = 1e-3
    """learning rate of the Adam optimizers"""
    anneal_lr: bool = True
    """whether the learning rate falls linearly to 0 over the second half of the run"""
    weight_decay: float = 0.0
    """decoupled weight decay (AdamW) of T_phi, R_psi and C_omega; 0 is the paper"""
    clip_reward: bool = False
    """whether rewards of the model stay within the range of the real ones so far; False is the paper"""
    weight_averaging: float = 0.98
    """decay per step of the moving average of all weights, which acts and is evaluated; 0 is the paper"""
    updates_per_step: int = 6
    """updates of the model per environment step"""
    batch_size: int = 128
    """replayed segments per update"""
    gamma: float = 0.99
    """the discount factor"""
    horizon: int = 8
    """H: steps that are planned"""
    model_horizon: int = 8
    """steps of open-loop prediction in the loss of the model (H, if that is less); H is the paper"""
    dynamics_error: Literal["squared", "absolute"] = "absolute"
    """error of T_phi's predictions in the loss of the dynamics; squared is the paper"""
    flexibility: float = 0.3
    """lambda: weight of the Wasserstein loss against the error above; 0, with squared errors, is DLPA's loss"""
    discriminator: Literal["conditional", "marginal"] = "conditional"
    """f_W(s'; s,k,z), or f_W(s'), which is the summary's"""
    smoothing: Literal["after", "never", "always"] = "after"
    """smooth the reward by FGSM: after T steps (the paper), never, or always"""
    smoothing_start: float = 0.5
    """T as a fraction of total_timesteps"""
    smoothing_epsilon: float = 0.01
    """epsilon: size of the noise and of the sign step, in units of each state dimension's typical one-step change"""
    # Exploration
    mi_weight: float = 0.01
    """eta: weight of the mutual-information reward in imagined returns, in training only, not in greedy episodes"""
    optimism: float = 0.0
    """planning in training values sequences by mean + optimism * std of their M > 1 returns; 0 is the paper"""
    policy_horizon: int = 3
    """steps of the imagined return that the policy networks maximise, whatever H is"""
    policy_frequency: int = 4
    """environment steps between updates of the policy networks"""
    # Planner and evaluation
    num_samples: int = 256
    """N: action sequences per iteration"""
    num_elites: int = 32
    """n in the paper: best sequences, to which the planner's distribution is refitted"""
    num_iterations: int = 3
    """iterations per plan"""
    mppi_factor: float = 0.5
    """elites weigh exp(factor * (value - best value)): the smaller a task's returns, the more equally"""
    uniform_mix: float = 0.3
    """share of the uniform distribution mixed into the previous plan's discrete actions"""
    proposal_fraction: float = 0.05
    """sequences that the policy networks propose, once per plan, on top of the N of each iteration; a share of N"""
    prune: bool = False
    """whether a sequence that has probably ended goes on from where another is; False, the paper: its rest is lost"""
    hold_fraction: float = 0.0
    """share of the sampled sequences that repeat their first (k, z), in all but the last iteration; 0 is the paper"""
    eval_samples_factor: int = 1
    """N in evaluation as a multiple of --num-samples; 1 is the paper"""
    eval_extra_steps: int = 0
    """steps that evaluation plans on top of H; 0 is the paper"""
    eval_caution: float = 0.0
    """kappa: evaluation (and greedy episodes) values sequences by mean - kappa std of M > 1 returns; 0 is the paper"""
    eval_frequency: int = 250
    """steps between evaluations"""
    eval_episodes: int = 20
    """greedy episodes of each evaluation, on seeds that no final evaluation uses"""
    final_eval_episodes: int = 1000
    """greedy episodes of the final evaluation"""


# ======================================================================================================= ENVIRONMENT
# "kept:" marks oddities of the original environment: not to be fixed, or results are no longer comparable.


# for videos: k and z on the frames
GLYPHS = dict(zip("0123456789-.kz ", (0o75557, 0o26227, 0o71747, 0o71717, 0o55711, 0o74717, 0o74757, 0o71111, 0o75757,
                                      0o75717, 0o00700, 0o00002, 0o55655, 0o71247, 0o00000)))  # fmt: skip


def write_action(frame, k, z):
    """Write k and z into the upper left corner of a frame. A glyph's octal digits are its rows of three pixels."""
    glyphs = np.array([GLYPHS[c] for c in f"k {k}" + "".join(f" z {u:.2f}" for u in z) + " "])
    pixels = np.pad((glyphs[:, None] >> np.arange(15)[::-1] & 1).reshape(-1, 5, 3), ((0, 0), (1, 1), (1, 0)))
    text = 40 + 200 * np.kron(np.hstack(pixels), np.ones((4, 4), int))
    frame[: len(text), : text.shape[1]] = text[..., None]


def clip(value, low, high):
    return low if value < low else min(value, high)


class PlatformEnv(gym.Env):
    """Platform (Masson et al. 2016; gym-platform): jump two gaps, pass two enemies, reach the right end at x = 1035.

    Action (k, z): k = 0 run, 1 hop, 2 leap; z[0], nominally in [-1, 1], maps to [0, 30], [0, 720] or [0, 430] and is
    clipped there: the speed a run gains per substep, the length a jump aims at. A decision lasts many substeps of
    0.05 time units: 20 for a run, until the landing for a jump.
    Observation, each feature scaled to [-1, 1]: player x and vx, x and vx of the active enemy (the second one once
    x > 475), width of the current and the next platform, gap ahead, x of the current platform, height difference
    (always 0, scaled to -1). The player's height is not observed. Positions are lower left corners, in world units.
    Reward: progress in x / 1035, so the return of a success is 1. Terminated by reaching the right end, falling or
    touching an enemy; truncated after `step_limit` decisions.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}
    parameter_sizes = (1, 1, 1)
    PARAMETER_HIGH, TAKE_OFF_VY = (30.0, 720.0, 430.0), (0.0, 35.0, 25.0)  # of run, hop and leap
    RUN_SUBSTEPS, DT, NOISE_SCALE, GRAVITY, VX_DECAY = 20, 0.05, 0.025, 9.8, 0.99
    MAX_AX, MAX_VX, MAX_VX_ON_PLATFORM, MAX_VY, MAX_ENEMY_VX = 600.0, 100.0, 70.0, 200.0, 30.0
    PLATFORMS = ((0.0, 250.0), (475.0, 750.0), (985.0, 1035.0))  # left and right edge
    TOP, GOAL_X, WIDTH, HEIGHT = 40.0, 1035.0, 20.0, 30.0  # width and height of the player and of the enemies
    SCENERY = ((250, 275, 225, 0), (275, 50, 235, 475), (50, 0, 0, 985))  # width, next width, gap, x: features 4 to 7
    FEATURE_SCALE = np.array([GOAL_X + WIDTH, MAX_VX, GOAL_X, 2 * MAX_ENEMY_VX, 275, 275, 235, GOAL_X, 1])

    def __init__(self, render_mode=None, step_limit=200):
        self.render_mode, self.step_limit = render_mode, step_limit
        self.action_space = spaces.Tuple((spaces.Discrete(3), spaces.Box(-1, 1, (1,), np.float32)))
        self.observation_space = spaces.Box(-1, 1, (9,), np.float32)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.y, self.vx, self.vy = 0.0, self.TOP, 0.0, 0.0
        self.enemy_x, self.enemy_vx = [right - self.WIDTH for _, right in self.PLATFORMS[:2]], 2 * [-self.MAX_ENEMY_VX]
        self.steps, self.action = 0, None
        return self._observation(), {}

    def step(self, action):
        k, z = action
        parameter = clip(self.PARAMETER_HIGH[k] * (float(z[0]) + 1) / 2, 0.0, self.PARAMETER_HIGH[k])
        start_x, internal_steps, done = self.x, 0, False
        while not done:
            self._substep(k, parameter)
            internal_steps += 1
            success = self.x >= self.GOAL_X
            touched = self.y < self.TOP + self.HEIGHT and any(abs(self.x - x) < self.WIDTH for x in self.enemy_x)
            terminated = success or touched or self.y < self.TOP
            # kept: a run can end just past an edge with y still at TOP; whatever comes next is then a fall
            done = terminated or (internal_steps == self.RUN_SUBSTEPS if k == 0 else self._on_platform())
        self.steps, self.action = self.steps + 1, (k, z)
        truncated = self.steps >= self.step_limit and not terminated
        info = {"is_success": success, "internal_steps": internal_steps}
        return self._observation(), (self.x - start_x) / self.GOAL_X, terminated, truncated, info

    def _substep(self, k, parameter):
        on_platform = self._on_platform()
        if not on_platform:
            self._push(0.0, -self.GRAVITY)
        elif k == 0:
            self._push(parameter / self.DT, 0.0)
        else:
            air_time = 2 * self.TAKE_OFF_VY[k] / self.GRAVITY + 1
            noise_x, noise_y = np.abs(self.np_random.normal(0.0, 1.0, size=2)).tolist()
            # kept: _push limits the gain in vx to 30, so a long jump needs a run-up. The reference's further bounds,
            # on this gain and on ay, are left out: no state of the player can reach them.
            self._push((parameter / air_time - self.vx - noise_x) / self.DT, (self.TAKE_OFF_VY[k] - noise_y) / self.DT)
        if on_platform:
            self.vx = min(self.vx, self.MAX_VX_ON_PLATFORM)
        j = int(self.x > self.PLATFORMS[1][0])  # the active enemy, chosen before the player moves; kept: one is frozen
        self.x = clip(self.x + self.vx * self.DT, 0.0, self.GOAL_X)
        self.y += self.vy * self.DT
        self.vx *= self.VX_DECAY
        low, high = self.PLATFORMS[j][0], self.PLATFORMS[j][1] - self.WIDTH
        if not low < self.enemy_x[j] < high:  # kept: holds at the start too, so the first move is into the right limit
            self.enemy_vx[j] = -self.enemy_vx[j]
        noise = self.np_random.normal(0.0, self.NOISE_SCALE)
        self.enemy_vx[j] = clip(self.enemy_vx[j] + noise, -self.MAX_ENEMY_VX, self.MAX_ENEMY_VX)
        self.enemy_x[j] = clip(self.enemy_x[j] + self.enemy_vx[j] * self.DT, low, high)
        if self.y < self.TOP:
            for left, right in self.PLATFORMS:
                self._separate(left, right)

    def _push(self, ax, ay):
        self.vx += clip(ax, -self.MAX_AX, self.MAX_AX) * self.DT
        self.vx = clip(self.vx - abs(self.np_random.normal(0.0, self.NOISE_SCALE)), 0.0, self.MAX_VX)
        self.vy = clip(self.vy + ay * self.DT, -self.MAX_VY, self.MAX_VY)

    def _separate(self, left, right):
        """Move the player out of a platform if it overlaps, sideways only if that way is shorter."""
        if not (left - self.WIDTH < self.x < right and -self.HEIGHT < self.y < self.TOP):
            return
        x = left - self.WIDTH if self.x < left else right if self.x > right - self.WIDTH else self.x
        y = -self.HEIGHT if self.y < 0 else self.TOP if self.y > 10 else self.y
        if x != self.x and (y == self.y or abs(self.x - x) < abs(self.y - y)):
            self.x = x
        else:
            self.y, self.vy = y, 0.0  # assigned exactly, as _on_platform tests equality
        self.vx = 0.0  # kept: every landing stops the player

    def _on_platform(self):
        return self.y == self.TOP and any(left - self.WIDTH <= self.x <= right for left, right in self.PLATFORMS)

    def _observation(self):
        active = int(self.x > self.PLATFORMS[1][0])
        enemy = self.enemy_x[active], self.enemy_vx[active] + self.MAX_ENEMY_VX
        scenery = self.SCENERY[sum(self.x >= left for left, _ in self.PLATFORMS[1:])]
        raw = np.array([self.x + self.WIDTH, self.vx, *enemy, *scenery, 0.0]) / self.FEATURE_SCALE
        return (2 * raw - 1).astype(np.float32)

    def render(self):
        """Blue player, red enemies; the arrow is the last action: black run, orange hop, purple leap, as long as z."""
        shapes = [(left, -18, right - left, self.TOP + 18, (120, 126, 138)) for left, right in self.PLATFORMS]
        shapes += [(self.GOAL_X, self.TOP + y, width, 30, (0, 158, 115)) for y, width in ((0, 4), (30, 4), (60, 34))]
        shapes += [(x, self.TOP, self.WIDTH, self.HEIGHT, (213, 64, 40)) for x in self.enemy_x]
        shapes += [(self.x, self.y, self.WIDTH, self.HEIGHT, (0, 114, 178))]
        frame, scale = np.full((136, 640, 3), 248, np.uint8), 0.55  # pixels per world unit
        if self.action:
            (k, z), x, y = self.action, self.x + self.WIDTH / 2, self.y + 48
            colour, length = ((40, 40, 40), (230, 159, 0), (170, 80, 180))[k], 40 * (clip(z[0], -1, 1) + 1)
            shapes += [(x, y - 3, length, 6, colour)]
            shapes += [(x + length + i, y - 12 + i, 2, 24 - 2 * i, colour) for i in range(12)]
            write_action(frame, k, z)
        for x, y, width, height, colour in shapes:
            rows = slice(round((y + 18) * scale), round((y + 18 + height) * scale))
            frame[::-1][rows, round((x + 20) * scale) : round((x + 20 + width) * scale)] = colour
        return frame


gym.register("Platform-v0", entry_point=PlatformEnv)


class OriginalPlatformEnv(gym.Env):
    """The original gym_platform package, which needs the old `gym`, behind the interface of PlatformEnv."""

    parameter_sizes, step_limit = PlatformEnv.parameter_sizes, 200
    action_space, observation_space = PlatformEnv().action_space, PlatformEnv().observation_space

    def __init__(self, render_mode=None):
        from gym_platform.envs.platform_env import PlatformEnv as Original

        self.original = Original()

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.original.seed(int(self.np_random.integers(2**31)))
        return (2 * self.original.reset()[0] - 1).astype(np.float32), {}

    def step(self, action):
        parameters = [[high * (float(action[1][0]) + 1) / 2] for high in PlatformEnv.PARAMETER_HIGH]
        (raw, internal_steps), reward, terminated, _ = self.original.step((int(action[0]), parameters))
        info = {"is_success": bool(raw[0] >= 1), "internal_steps": internal_steps}
        return (2 * raw - 1).astype(np.float32), float(reward), bool(terminated), False, info


gym.register("OriginalPlatform-v0", entry_point=OriginalPlatformEnv, max_episode_steps=OriginalPlatformEnv.step_limit)
# the final evaluation's entries of result.json, and how many steps of an episode each counts
FINAL_STEP_LIMITS = {"final": math.inf}


def make_env(args, render_mode=None):
    """A new environment for training or evaluation."""
    original = args.env_source == "gym-platform"
    if original and args.capture_video:
        refuse("--capture-video must be left out with --env-source gym-platform, which draws no pictures")
    if original and find_spec("gym_platform") is None:
        refuse("--env-source gym-platform needs the original package: pip install gym==0.26.2 pygame "
               "-e git+https://github.com/cycraig/gym-platform#egg=gym_platform")  # fmt: skip
    env_id = "OriginalPlatform-v0" if original else args.env_id
    return gym.make(env_id, render_mode=render_mode, disable_env_checker=True)


# ======================================================================================================== ALGO LOGIC
# From here on the scripts are the same text. A step of train():
#   mppi acts, unless the step is random: pi_beta and p_theta propose some sequences of H actions; draw N more from a
#       plan, imagine all returns, refit the plan to the n best, repeat. Act by the first action of one of the best
#   update_model: T_phi (next state) descends its error and L_ex, which f_W ascends; R_psi (reward) and C_omega (from
#       DLPA: the chance c that the episode goes on) descend theirs, after step T (--smoothing-start) also L_smt
#   update_policy: pi_beta(k|s) and p_theta(z|s,k) ascend the imagined return
# Shapes: d state size, K discrete actions, m = max(1, m_0, m_1, ...) parameters (0 where k lacks them), H steps of a
# plan (of tau: its length), L steps imagined, B batch, N sequences, n elites, E episodes planned at once, with S
# returns each, R rows (but R(s): the reward), M networks for R_psi and C_omega. Time first: (H, B, ...), but M first.
# s^: predicted, s~: perturbed; tau: replayed segments, w_i their mask; R0, R1: reward of a step that goes on, or that
# terminates; r_aux: MI reward; k: an index, or where pi_beta needs gradients a one-hot. Literals and defaults of
# functions' arguments have no flag. [choice]: see the top.


ACTIVATIONS = {"relu": partial(nn.ReLU, inplace=True), "gelu": nn.GELU}


def mlp(inputs, hidden_size, outputs, activation):  # (R, inputs) -> (R, outputs)
    hidden = nn.Linear(inputs, hidden_size), activation(), nn.Linear(hidden_size, hidden_size), activation()
    return nn.Sequential(*hidden, nn.Linear(hidden_size, outputs))


def draw(weight, N):
    """N indices into the last dimension of weight (..., W), each with a probability in proportion to it -> (..., N)."""
    cdf = weight.cumsum(dim=-1)
    u = torch.rand(*cdf.shape[:-1], N, device=cdf.device) * cdf[..., -1:]
    return torch.searchsorted(cdf, u).clamp(max=cdf.shape[-1] - 1)  # W for a NaN, at which train() stops


class HybridMLP(nn.Module):
    """(s (R, d), k, z (R, m)) -> (R, out_features); k is an index (R,), or a one-hot (R, K) that carries gradients."""

    def __init__(self, d, K, m, out_features, args):
        super().__init__()
        self.activation, hidden_size = ACTIVATIONS[args.activation](), args.hidden_size
        self.first = nn.Linear(d + m, hidden_size, bias=False)
        self.first_of_k = nn.Embedding(K, hidden_size)  # the columns of the first layer for a one-hot k, with its bias
        nn.init.uniform_(self.first_of_k.weight, -((d + m) ** -0.5), (d + m) ** -0.5)  # as nn.Linear's
        self.second = nn.Linear(hidden_size, hidden_size)
        self.out = nn.Linear(hidden_size, out_features)

    def features(self, s, k, z):
        h = self.first_of_k(k) if k.dtype == torch.long else k @ self.first_of_k.weight
        h = self.activation(h.addmm_(torch.cat([s, z], dim=1), self.first.weight.T))  # h = W_k + W [s, z], in place
        return self.activation(self.second(h))

    def forward(self, s, k, z):
        return self.out(self.features(s, k, z))


class Dynamics(HybridMLP):
    """T_phi(s'|s,k,z): a diagonal Gaussian with mean s + scale * network [choice] and std scale * exp(log_std)."""

    def __init__(self, d, K, m, args):
        super().__init__(d, K, m, d, args)
        self.log_std_out = nn.Linear(args.hidden_size, d)  # for r_aux alone: states are rolled by the mean
        self.register_buffer("scale", torch.ones(d))  # RMS of each state dimension's one-step change, at least 0.01

    def forward(self, s, k, z):  # -> mean of s' (R, d), hidden features (R, hidden_size)
        h = self.features(s, k, z)
        return torch.addcmul(s, self.scale, self.out(h)), h

    def log_std(self, h):  # from hidden features, in units of scale (R, d)
        return self.log_std_out(h).clamp(-5, 2)


class Discriminator(nn.Module):
    """f_W, 1-Lipschitz in s' / scale by spectral normalisation (section III-B).

    [choice] Conditional f_W(s'; s,k,z): the condition enters after the first normalised layer, so f stays 1-Lipschitz
    in s'; its input is s' - s, which loses nothing, as s is in the condition. Marginal f_W(s'): the summary's formula.
    [choice] |x| as activation: its slope is 1 or -1, so that gradients keep their norm.
    """

    def __init__(self, d, K, m, hidden_size, conditional):
        super().__init__()
        sizes = [(d, hidden_size), (hidden_size, hidden_size), (hidden_size, 1)]
        self.first, self.second, self.out = (spectral_norm(nn.Linear(*size)) for size in sizes)
        self.condition = nn.Linear(d + m, hidden_size) if conditional else None
        self.condition_k = nn.Embedding(K, hidden_size) if conditional else None

    def forward(self, s_next, s, k, z, scale):  # s_next (2, ..., d): real, predicted; s (..., d), k (...) -> (2, ...)
        if self.condition is None:
            h = self.first(s_next / scale)
        else:
            h = self.first((s_next - s) / scale) + self.condition(torch.cat([s, z], dim=-1)) + self.condition_k(k)
        return self.out(self.second(h.abs()).abs()).squeeze(-1)


class Agent(nn.Module):
    """The networks of FLEXplore for states of size d and actions k with parameter_sizes[k] = m_k parameters."""

    def __init__(self, d, parameter_sizes, args):
        super().__init__()
        K, m, hidden = len(parameter_sizes), max(1, *parameter_sizes), args.hidden_size
        self.dynamics = Dynamics(d, K, m, args)
        self.outcome_of_next = args.outcome_input == "next_state"
        self.register_buffer("frequencies", math.pi / 2 * 2.0 ** torch.arange(args.frequencies), persistent=False)
        inputs = d * (1 + 2 * args.frequencies)
        of_next = partial(mlp, 2 * inputs, hidden, 3, ACTIVATIONS[args.activation])
        outcome = of_next if self.outcome_of_next else partial(HybridMLP, inputs, K, m, 3, args)
        self.outcome = nn.ModuleList(outcome() for _ in range(args.outcome_networks))  # each R_psi and C_omega in one
        self.discriminator = Discriminator(d, K, m, hidden, args.discriminator == "conditional")
        self.discrete_policy = mlp(d, hidden, K, ACTIVATIONS["relu"])  # pi_beta(k|s)
        self.parameter_policy = HybridMLP(d, K, 0, m + 1, args)  # p_theta(z|s,k)
        self.register_buffer("reward_scale", torch.ones(()))  # RMS of the reward up to the last end of an episode
        self.register_buffer("reward_range", torch.tensor([[-math.inf] * 2, [math.inf] * 2]))  # low, high, of R0 and R1
        self.register_buffer("mi_mean", torch.zeros(()))  # moving average of r_aux, from 0 (decay 0.99)
        self.register_buffer("parameter_mask", (torch.arange(m) < torch.tensor(parameter_sizes)[:, None]).float())

    def fourier(self, s):
        """States (R, d), sines and cosines of J multiples, which show edges [choice] -> (R, d (1 + 2 J))."""
        if len(self.frequencies) == 0:
            return s
        angles = (s[:, None] * self.frequencies[:, None]).flatten(1)
        return torch.cat([s, angles.sin(), angles.cos()], dim=1)

    def outcomes(self, s, k, z, s_next):
        """-> R0, R1 and the logit of c (M, R, 3), of s, k, z, or of s and the mean s_next of T_phi [choice]."""
        # s_next enters as it is: with its change in units of scale C_omega learned ends far worse from few examples
        s = self.fourier(s)
        x = (torch.cat([s, self.fourier(s_next)], dim=1),) if self.outcome_of_next else (s, k, z)
        return torch.stack([network(*x) for network in self.outcome])

    def of_each_network(self, s, k, z, s_next):
        """By each network: r = c R0 + (1 - c) R1 in units of reward_scale, c: the chance of going on; (M, R) each.

        [choice] R0 is the reward of a step that goes on, R1 of a step that terminates the episode: a single output
        would blur the jump of a success into its neighbourhood. With --clip-reward both are clipped to reward_range.
        """
        out, (low, high) = self.outcomes(s, k, z, s_next), self.reward_range
        r0, r1 = out[..., :2].clamp(low, high).unbind(dim=2)
        c = torch.sigmoid(out[..., 2])
        return torch.lerp(r1, r0, c), c

    def reward_and_continuation(self, s, k, z, s_next):
        """Means (R,) over the M networks, as plans would exploit what a single one overestimates."""
        r, c = self.of_each_network(s, k, z, s_next)
        return r.mean(dim=0), c.mean(dim=0)

    def parameter_distribution(self, s, k):  # p_theta(z|s,k) = N(mu, sigma^2 I) -> mu (R, m), log sigma (R, 1)
        out = self.parameter_policy(s, k, s.new_empty(len(s), 0))  # without a z
        return torch.tanh(out[:, :-1]), out[:, -1:].clamp(-3, 1)

    def exists(self, k):  # which of the m parameters action k has: 0 or 1 (..., m)
        return self.parameter_mask[k] if k.dtype == torch.long else k @ self.parameter_mask

    def propose(self, s, given_k):
        """k ~ pi_beta (R,), or given_k where that is not -1, and z ~ p_theta (R, m); with gradients k is (R, K)."""
        logits, given = self.discrete_policy(s), given_k >= 0
        if torch.is_grad_enabled():  # in update_policy: a straight-through Gumbel-Softmax one-hot
            one_hot = F.one_hot(given_k.clamp(min=0), logits.shape[1])
            k = torch.where(given[:, None], one_hot, F.gumbel_softmax(logits, hard=True))
        else:
            k = torch.where(given, given_k, draw(logits.softmax(dim=1), 1).squeeze(1))
        mean, log_std = self.parameter_distribution(s, k)
        return k, (mean + log_std.exp() * torch.randn_like(mean)).clamp(-1, 1) * self.exists(k)


# ------------------------------------------------------------------------------------------------------- imagination
def mi_reward(agent, s, k, z, h, bound=3.0):
    """r_aux = log T_phi(s'|s,k,z) - log p_theta(z|s,k) at the mean s' (Proposition 5.1, section V) -> (R,).

    The paper's has s' drawn from T_phi and whole log densities: its mean over p_theta's z is then a lower bound of the
    mutual information I(s'; (k, z) | s), if the entropy of s' given s is at least that of z given s, k.
    [choice] At the mean s', means over the dimensions, clipped, as densities are unbounded: no bound, but it pays for a
    T_phi that is sure (small sigma_phi) and for z that p_theta seldom takes. log T_phi is in units of scale, log
    p_theta the Gaussian's, though z is clamped to [-1, 1], and 0 where k has no parameters. h: T_phi's features.
    """
    log_T = (-agent.dynamics.log_std(h) - 0.5 * math.log(2 * math.pi)).mean(dim=1)
    mean, log_std = agent.parameter_distribution(s, k)
    exists = agent.exists(k)
    log_p = (-0.5 * ((z - mean) / log_std.exp()) ** 2 - log_std - 0.5 * math.log(2 * math.pi)) * exists
    log_p = log_p.sum(dim=1) / exists.sum(dim=1).clamp(min=1)
    return log_T.clamp(-bound, bound) - log_p.clamp(-bound, bound)


def worth(value, optimism):  # returns by each network (M, R) -> (R,); with optimism 0 value is (R,) already
    return value.mean(dim=0) + optimism * value.std(dim=0, correction=0) if optimism else value


def imagined_return(agent, s, k, z, args, with_mi, optimism=0.0, E=1, prune=False):
    """reward_scale sum_{i<L} gamma^i (prod_{j<i} c_j) (r_i + eta c_i (r_aux,i - mean)), imagined (r_aux: section V).

    From s (R, d), R / E rows for each of E episodes, along k (L, R), z (L, R, m), by the means of T_phi; where z is
    None p_theta chooses it, and pi_beta chooses k where the given one is -1. There is no value function: what comes
    after step L does not count. with_mi: with the eta term. -> values (E, S), k (L, E, S) and z (L, E, S, m) of their
    actions, and r_aux (L R,) or None.
    [choice] eta is in units of the typical reward. The mean, a running one over update_policy's z, which are p_theta's,
    is taken off, as r_aux would be a bonus for staying alive (plans sample wider, so some of that bonus is left).
    [choice] With optimism != 0 it is not one return of the networks' mean r and c, but the mean of the returns by each
    of them, plus `optimism` standard deviations. Where data are few, networks disagree: optimism goes there to learn;
    its negative, caution, keeps a plan from what one wrong network says.
    [choice] prune: a row that has probably ended (prod_j c_j < 1/2) goes on, with its own later actions, from the state
    and past of a row of its episode, drawn in proportion to prod_j c_j; otherwise few would live to step L. S is R / E,
    with prune L R / E, in L blocks: of step i < L - 1, what ended there, with its return so far (-inf: did not end; its
    actions after i are returned, but not valued); the last: all rows at step L.
    """
    L, R, predict = len(k), len(s), agent.of_each_network if optimism else agent.reward_and_continuation
    alive = 1.0  # prod_j c_j, the chance not to have ended
    states, steps_k, steps_z, features, next_states, r, c, ended, source = ([] for _ in range(9))  # of each step
    for i in range(L):
        k_i, z_i = agent.propose(s, k[i]) if z is None else (k[i], z[i])
        states.append(s), steps_k.append(k_i), steps_z.append(z_i)
        if i + 1 < L or with_mi or agent.outcome_of_next:  # else nothing depends on where the last step leads
            s, h = agent.dynamics(s, k_i, z_i)
            next_states.append(s), features.append(h)
        if prune and i + 1 < L:
            r_i, c_i = predict(states[i], k_i, z_i, s)
            alive = alive * c_i.view(-1, R).mean(dim=0)  # c_i is (R,), or (M, R) by each network
            row = torch.arange(R, device=s.device).view(E, -1)
            other = row[:, :1] + draw(alive.view(E, -1), R // E)  # an episode's rows follow one another
            r.append(r_i), c.append(c_i), ended.append(alive < 0.5)
            source.append(torch.where(ended[i], other.flatten(), row.flatten()))
            s, alive = s[source[i]], alive[source[i]]
    # r and c of all steps at once; with pruning only of the last one, as the others are known
    s, k, z, rest = torch.cat(states), torch.cat(steps_k), torch.cat(steps_z), slice(R * len(r), None)  # (L R, ...)
    s_next = torch.cat(next_states)[rest] if agent.outcome_of_next else None
    r_rest, c_rest = predict(s[rest], k[rest], z[rest], s_next)
    r, c = torch.cat([*r, r_rest], dim=-1), torch.cat([*c, c_rest], dim=-1)  # (L R,), with optimism (M, L R)
    r_aux = None
    if with_mi:
        r_aux = mi_reward(agent, s, k, z, torch.cat(features))
        r = r + args.mi_weight * c * (r_aux - agent.mi_mean)
    # of each row, step by step: its actions on all L steps, its return so far, gamma^i prod_{j<i} c_j
    ks, zs = (k if k.dtype == torch.long else k.argmax(dim=1)).view(L, R), z.view(L, R, -1)
    value, discount, blocks = 0.0, 1.0, []
    for i, (r_i, c_i) in enumerate(zip((agent.reward_scale * r).chunk(L, dim=-1), c.chunk(L, dim=-1))):
        value, discount = value + discount * r_i, discount * args.gamma * c_i
        if prune and i + 1 < L:  # each row takes over the past of the row that it goes on from, and keeps its own plan
            blocks.append((worth(value, optimism).masked_fill(~ended[i], -torch.inf), ks, zs))
            value, discount = value[..., source[i]], discount[..., source[i]]
            ks, zs = (torch.cat([a[: i + 1, source[i]], a[i + 1 :]]) for a in (ks, zs))
    values, ks, zs = zip(*blocks, (worth(value, optimism), ks, zs))
    values = torch.cat([v.view(E, -1) for v in values], dim=1)
    ks, zs = (torch.cat([a.view(L, E, R // E, *a.shape[2:]) for a in actions], dim=2) for actions in (ks, zs))
    return values, ks, zs, r_aux


# ---------------------------------------------------------------------------------------------------------- learning
# tau: H replayed steps from B starts, s (H, B, d), k (H, B), ...; same_episode (H, B) is w_i: 1 while step i still
# belongs to the episode of step 0, else 0
Segment = namedtuple("Segment", "s k z r terminated s_next same_episode")


class Replay:
    """Transitions in order of play. Every 20th episode, from the 11th on, is for consistency_error alone [choice]."""

    def __init__(self, capacity, d, m, horizon, device):
        rows = capacity + horizon  # a segment may reach past the last transition, where w_i is 0
        self.s, self.s_next = torch.zeros(2, rows, d, device=device)
        self.k, self.z = torch.zeros(rows, dtype=torch.long, device=device), torch.zeros(rows, m, device=device)
        self.r, self.terminated = torch.zeros(2, rows, device=device)
        self.episode = torch.full((rows,), -1, device=device)
        self.train, self.held_out, self.size = [], [], 0  # indices of steps to learn from, held out; number of all

    def add(self, s, k, z, r, terminated, s_next, episode):
        i, self.size = self.size, self.size + 1
        self.s[i], self.s_next[i] = torch.as_tensor(s), torch.as_tensor(s_next)
        self.k[i], self.z[i], self.r[i], self.terminated[i], self.episode[i] = k, z, r, terminated, episode
        (self.held_out if episode % 20 == 10 else self.train).append(i)

    def scales(self):
        """-> change_rms (d,), reward_rms (), reward_range (2, 2), of all steps, held out or not.

        Change: of a step that does not terminate. reward_range: least and greatest reward (rows) of the steps that go
        on and of those that terminate (columns), 0 included.
        """
        n = max(1, self.size)  # nothing yet: a transition of zeros
        on, r, change = self.terminated[:n] == 0, self.r[:n], self.s_next[:n] - self.s[:n]
        change = (change * on[:, None]).square().sum(dim=0) / on.sum().clamp(min=1)
        of_outcome = torch.stack([r * on, r * ~on], dim=1)
        reward_range = torch.stack([of_outcome.amin(dim=0).clamp(max=0), of_outcome.amax(dim=0).clamp(min=0)])
        return change.sqrt().clamp(min=1e-2), r.square().mean().sqrt().clamp(min=1e-3), reward_range

    def sample(self, batch_size, H):
        return self.segment([self.train[j] for j in torch.randint(len(self.train), (batch_size,)).tolist()], H)

    def segment(self, starts, H):
        start = torch.tensor(starts, dtype=torch.long, device=self.k.device)
        i = start + torch.arange(H, device=start.device)[:, None]
        w = (self.episode[i] == self.episode[start]).float()
        return Segment(self.s[i], self.k[i], self.z[i], self.r[i], self.terminated[i], self.s_next[i], w)


def roll(agent, tau):
    """Open-loop predictions by the means of T_phi -> s^_0 = s_0, ... s^_H (H + 1, B, d), errors (H, B, d), features.

    Errors: s^_{i+1} - s_{i+1} in units of scale, without meaning where w_i is 0; features: of (s_0, k_0, z_0)
    (B, hidden_size).
    """
    states, features = [tau.s[0]], []
    for k, z in zip(tau.k, tau.z):
        s, h = agent.dynamics(states[-1], k, z)
        states.append(s), features.append(h)
    states = torch.stack(states)
    return states, (states[1:] - tau.s_next) / agent.dynamics.scale, features[0]


def wasserstein_loss(f_real, f_predicted, weight):
    """L_ex(tau; f) = sum_i gamma^i w_i [f(s_{i+1}) - f(s^_{i+1})], mean over the batch (section III-B, Theorem 3.1)."""
    return (weight * (f_real - f_predicted)).sum(dim=0).mean()  # weight: gamma^i w_i; (H, B) each


def dynamics_loss(agent, tau, weight, args):
    """(1 - lambda) sum_i gamma^i w_i |s^_{i+1} - s_{i+1}|^2 + lambda L_ex (section III-B), distances in units of scale.

    weight: gamma^i w_i (H, B) -> the loss, its parts by name, and s^_0 ... s^_H (H + 1, B, d). With --mi-weight > 0
    the negative log likelihood that sigma_phi is learned by is added. f_W's condition is the real s_i, also where the
    prediction starts from s^_i.
    [choice] Here w_i is 0 where step i terminates, too: the state after it is never planned from. (With --outcome-input
    next_state R_psi and C_omega see what T_phi, trained on other steps, makes of it.)
    [choice] lambda weighs L_ex, not the other error: here the summary contradicts itself. --dynamics-error absolute:
    |s^ - s| summed over dimensions, as squares mostly look at the few transitions that are hard to predict.
    """
    weight = weight * (1 - tau.terminated)
    states, error, h = roll(agent, tau)
    distance = (error.abs() if args.dynamics_error == "absolute" else error.square()).sum(dim=2)
    prediction_loss = (weight * distance).sum(dim=0).mean()
    L_ex = torch.zeros_like(prediction_loss)
    if args.flexibility > 0:
        s_next = torch.stack([tau.s_next, states[1:]])
        L_ex = wasserstein_loss(*agent.discriminator(s_next, tau.s, tau.k, tau.z, agent.dynamics.scale), weight)
    loss = (1 - args.flexibility) * prediction_loss + args.flexibility * L_ex
    if args.mi_weight > 0:  # sigma_phi, which only r_aux needs: likelihood of one real step, the mean detached [choice]
        log_std = agent.dynamics.log_std(h.detach())
        nll = (0.5 * (error[0].detach() / log_std.exp()) ** 2 + log_std).sum(dim=1)
        loss = loss + (weight[0] * nll).mean()
    parts = {"losses/dynamics": prediction_loss, "losses/wasserstein": L_ex, "losses/discriminator": -L_ex}
    return loss, parts, states


def outcome_losses(agent, tau, states, weight):
    """Of R_psi and C_omega (from DLPA): squared error of the output that the outcome selects, cross-entropy of c.

    states: s^_0 ... s^_H (H + 1, B, d); weight: gamma^i w_i (H, B).
    """
    states = states.detach()  # no gradients into T_phi, which they would spoil [choice]
    s, s_next = states[:-1].flatten(0, 1), states[1:].flatten(0, 1)
    out = agent.outcomes(s, tau.k.flatten(), tau.z.flatten(0, 1), s_next).unflatten(1, weight.shape)
    r0, r1, logit = out.unbind(dim=3)  # (M, H, B) each
    reward = weight * (torch.where(tau.terminated > 0, r1, r0) - tau.r / agent.reward_scale) ** 2
    goes_on = (1 - tau.terminated).expand_as(logit)
    continuation = weight * F.binary_cross_entropy_with_logits(logit, goes_on, reduction="none")
    # means over the networks and the batch
    return {"losses/reward": reward.sum(dim=1).mean(), "losses/continuation": continuation.sum(dim=1).mean()}


def smoothing_loss(reward, s, epsilon):
    """L_smt = (R(s) - R(s~))^2, s~ = x + epsilon sign grad (R(s) - R(x))^2 at x ~ N(s, epsilon^2) (section IV).

    x is the s' of section IV, read as s with noise, not as the next state. reward: states (R, d) -> (R,); epsilon (d,)
    -> L_smt, of which R(s) gets no gradient [choice], and the mean slope of R from s to s~: a lower estimate of R's
    local Lipschitz constant (Eq. 26).
    """
    with torch.no_grad():
        target = reward(s)
    x = (s + epsilon * torch.randn_like(s)).requires_grad_()
    (gradient,) = torch.autograd.grad((target - reward(x)).square().sum(), x)
    s_tilde = (x + epsilon * gradient.sign()).detach()
    difference = target - reward(s_tilde)
    return difference.square().mean(), (difference.abs() / (s_tilde - s).norm(dim=1).clamp(min=1e-12)).mean().detach()


def update_model(agent, optimizers, tau, args, smooth, diagnose):
    """One step of T_phi, R_psi, C_omega and f_W on segments tau -> losses by name.

    smooth: L_smt, of the segments' first steps only [choice], is minimised as well; diagnose: it is computed anyway, to
    be logged (which draws noise from the run's generator: another interval of logging would change the run).
    """
    weight = args.gamma ** torch.arange(len(tau.s), device=tau.s.device)[:, None] * tau.same_episode
    loss, losses, states = dynamics_loss(agent, tau, weight, args)
    losses |= outcome_losses(agent, tau, states, weight)
    loss = loss + losses["losses/reward"] + losses["losses/continuation"]
    if smooth or diagnose:
        epsilon, change = args.smoothing_epsilon * agent.dynamics.scale, (states[1] - states[0]).detach()

        def reward(s):  # its next state, if an input, is s + the change that T_phi predicts at s_0, held fixed [choice]
            return agent.reward_and_continuation(s, tau.k[0], tau.z[0], s + change)[0]

        losses["losses/smoothing"], losses["model/reward_lipschitz"] = smoothing_loss(reward, tau.s[0], epsilon)
        if smooth:
            loss = loss + losses["losses/smoothing"]
    optimizers["model"].zero_grad(), optimizers["discriminator"].zero_grad()
    loss.backward()  # one pass for both players [choice]: f_W is in lambda L_ex alone, which its optimizer ascends
    optimizers["model"].step(), optimizers["discriminator"].step()
    return losses


def update_policy(agent, optimizer, s, args):
    """One step of pi_beta and p_theta up the imagined return from s (B, d), the model frozen (section V) -> losses.

    The gradient goes through the model, and through log p_theta in r_aux. Sequences are neither pruned (a gradient
    follows one) nor cut at a known time limit: the policies only propose, it is the planner that cuts its plans.
    """
    given_k = torch.randint(agent.parameter_mask.shape[0], (args.policy_horizon, len(s)), device=s.device)
    given_k[:, ::2] = -1  # pi_beta's, from every other state; random ones teach p_theta what pi_beta avoids [choice]
    value, _, _, r_aux = imagined_return(agent, s, given_k, None, args, with_mi=args.mi_weight > 0)
    loss = -(value / agent.reward_scale).mean()  # in units of the typical reward again
    optimizer.zero_grad()
    loss.backward(inputs=optimizer.param_groups[0]["params"])  # gradients for pi_beta and p_theta alone
    optimizer.step()
    if r_aux is None:
        return {"losses/policy": loss}
    agent.mi_mean.lerp_(r_aux.detach().mean(), 0.01)
    return {"losses/policy": loss, "exploration/mi_reward": args.mi_weight * (r_aux - agent.mi_mean).abs().mean()}


@torch.no_grad()
def consistency_error(agent, args, replay):
    """Open-loop error at depth 1 ... --horizon, RMS in units of scale; None past the end of all held-out episodes."""
    tau = replay.segment(replay.held_out, args.horizon)
    _, error, _ = roll(agent, tau)
    weight = tau.same_episode * (1 - tau.terminated)
    by_depth = ((weight * error.square().mean(dim=2)).sum(dim=1) / weight.sum(dim=1)).sqrt().tolist()
    return [None if math.isnan(e) else e for e in by_depth]


# ---------------------------------------------------------------------------------------------------------- planning
# The planner's distribution over sequences: per step a categorical over k (H, E, K) and, for each k, a Gaussian over z
# with mean and std (H, E, K, m)
Plan = namedtuple("Plan", "probs mean std")


def initial_plan(H, E, agent):  # uniform over k, N(0, 1) over z
    zeros = torch.zeros(H, E, *agent.parameter_mask.shape, device=agent.parameter_mask.device)
    return Plan(torch.full_like(zeros[..., 0], 1 / zeros.shape[2]), zeros, zeros + 1)


def shift(plan, uniform_mix):
    """Start of the next plan: one step on, discrete actions mixed with uniform ones, wide Gaussians again [choice]."""
    uniform = torch.full_like(plan.probs, 1 / plan.probs.shape[2])
    probs = torch.lerp(torch.cat([plan.probs[1:], uniform[:1]]), uniform, uniform_mix)
    return Plan(probs, torch.cat([plan.mean[1:], torch.zeros_like(plan.mean[:1])]), torch.ones_like(plan.std))


def until_limit(plan, time_limit, t):
    """`plan` without the steps past the time limit, if that is known; t: steps of the episode so far [choice]."""
    return Plan(*(x[: max(1, time_limit - t)] for x in plan)) if time_limit else plan


def of_action(x, k):  # entries of x (H, E, K, m) for the actions k (H, E, N): (H, E, N, m)
    return x.gather(2, k.unsqueeze(3).expand(-1, -1, -1, x.shape[3]))


def sample_sequences(agent, plan, N, hold_fraction):
    """N sequences for each of E episodes -> k (H, E, N), z (H, E, N, m); some hold one action [choice]."""
    k = draw(plan.probs, N)
    mean, std = of_action(plan.mean, k), of_action(plan.std, k)
    z = (mean + std * torch.randn_like(mean)).clamp(-1, 1) * agent.exists(k)
    held = int(hold_fraction * N)
    k[1:, :, :held], z[1:, :, :held] = k[:1, :, :held], z[:1, :, :held]
    return k, z


def refit(plan, k, z, weight, momentum=0.1, min_std=0.05):
    """MPPI's update: fit `plan` to elites k (H, E, n), z (H, E, n, m) of weight (E, n), sum 1.

    Modified, by DLPA, to a Gaussian for each k, fitted to the elites that chose k; [choice] if none did it stays, if
    one did only its mean moves. momentum: what probs and mean keep of the plan before.
    """
    weight, index = weight.clamp(min=1e-30).expand(k.shape), k.unsqueeze(3).expand(z.shape)  # no 0 / 0 in share
    count = torch.zeros_like(plan.probs).scatter_add_(2, k, torch.ones_like(weight)).unsqueeze(3)
    probs = torch.zeros_like(plan.probs).scatter_add_(2, k, weight)
    share = (weight / probs.gather(2, k)).unsqueeze(3)  # of an elite among those that chose its k
    mean = torch.zeros_like(plan.mean).scatter_add_(2, index, share * z)
    variance = torch.zeros_like(plan.mean).scatter_add_(2, index, share * (z - of_action(mean, k)) ** 2)
    mean = torch.where(count > 0, torch.lerp(mean, plan.mean, momentum), plan.mean)
    std = torch.where(count > 1, variance.sqrt(), plan.std).clamp(min=min_std)
    return Plan(torch.lerp(probs, plan.probs, momentum), mean, std)


def densest_action(k, z, weight, width=0.2):
    """The densest of the elites k (E, n), z (E, n, m), averaged with those of its k near it -> k (E,), z (E, m)."""
    # the mean of all z would not do: between two good actions, or two sides of an angle, it is a bad one
    kernel = torch.exp(-0.5 * ((z[:, :, None] - z[:, None]) / width).square().sum(dim=3))  # of each elite to each
    kernel = kernel * (k[:, :, None] == k[:, None]) * weight[:, None]
    densest, episodes = kernel.sum(dim=2).argmax(dim=1), torch.arange(len(k), device=k.device)
    near = kernel[episodes, densest, :, None]
    return k[episodes, densest], (near * z).sum(dim=1) / near.sum(dim=1)


@torch.no_grad()
def random_action(agent, s, survival, policy, candidates=64):
    """Uniformly random k (1,) and z (1, m) in state s (1, d).

    survival: one of many such actions instead, drawn by how likely the episode is to go on after it; policy: with
    p_theta's z instead [choice].
    """
    n = candidates if survival else 1
    s, k = s.expand(n, -1), torch.randint(agent.parameter_mask.shape[0], (n,), device=s.device)
    z = (torch.rand(n, agent.parameter_mask.shape[1], device=s.device) * 2 - 1) * agent.exists(k)
    if policy:
        _, z = agent.propose(s, k)
    if survival:
        s_next = agent.dynamics(s, k, z)[0] if agent.outcome_of_next else None
        _, c = agent.reward_and_continuation(s, k, z, s_next)
        one = draw(c, 1)
        k, z = k[one], z[one]
    return k, z


@torch.no_grad()  # torch.compile takes no inference_mode on a GPU
def mppi(agent, s, plan, args, explore):
    """Modified MPPI from states s (E, d), starting at `plan` -> k (E,), z (E, m), refitted plan, elites' mean value.

    explore: imagined returns include the MI reward and --optimism, and the action is an elite's, drawn by weight; else
    they are lowered by --eval-caution, and the action is where the elites' first ones are densest [choice].
    """
    H, E, _, m = plan.mean.shape
    episode = torch.arange(E, device=s.device)[:, None]
    imagined = partial(imagined_return, agent, args=args, with_mi=explore and args.mi_weight > 0,
                       optimism=args.optimism if explore else -args.eval_caution, E=E, prune=args.prune)  # fmt: skip
    proposals = int(args.proposal_fraction * args.num_samples)
    # the best so far: nothing, then the proposals (once per plan, on top of the N [choice]), then the elites
    best_k, best_z, best_value = s.new_zeros(H, E, 0).long(), s.new_zeros(H, E, 0, m), s.new_zeros(E, 0)
    if proposals > 0:
        given_k = draw(plan.probs, proposals)
        given_k[:, :, ::2] = -1  # pi_beta's; in the other half the plan chooses k and only z is the policy's [choice]
        start = s.repeat_interleave(proposals, dim=0)
        best_value, best_k, best_z, _ = imagined(start, given_k.view(H, -1), None)
    start = s.repeat_interleave(args.num_samples, dim=0)
    for iteration in range(args.num_iterations):
        hold_fraction = args.hold_fraction if iteration + 1 < args.num_iterations else 0.0
        k, z = sample_sequences(agent, plan, args.num_samples, hold_fraction)
        value, k, z, _ = imagined(start, k.view(H, -1), z.view(H, -1, m))
        # the n best of the new sequences, the proposals and the elites so far [choice], best first
        best_value, elites = torch.cat([value, best_value], dim=1).topk(args.num_elites, dim=1)
        best_k = torch.cat([k, best_k], dim=2)[:, episode, elites]  # (H, E, n)
        best_z = torch.cat([z, best_z], dim=2)[:, episode, elites]  # (H, E, n, m)
        weight = torch.softmax(args.mppi_factor * best_value, dim=1)
        plan = refit(plan, best_k, best_z, weight)
    if explore:
        elite = torch.multinomial(weight.nan_to_num(1.0), 1)  # a NaN would raise here; train() stops at it
        k, z = best_k[0, episode, elite].squeeze(1), best_z[0, episode, elite].squeeze(1)
    else:
        k, z = densest_action(best_k[0], best_z[0], weight)
    return k, z, plan, best_value.mean()


# -------------------------------------------------------------------------------------------------------- evaluation
EVAL_SEEDS, FINAL_SEEDS = range(1_000_000, 2_000_000), range(2_000_000, 3_000_000)  # of environments; they are disjoint


def evaluate(agent, args, seeds, step_limits=(math.inf,), video_folder=None, progress=False):
    """One greedy episode per seed -> (len(step_limits), 2, len(seeds)): return and success (0, 1) up to each limit."""
    N, H = args.num_samples * args.eval_samples_factor, args.horizon + args.eval_extra_steps
    args = replace(args, num_samples=N)  # a wider search than in training [choice]; mppi takes H from the plan
    results = np.zeros((len(step_limits), 2, len(seeds)))
    side_by_side = min(len(seeds), max(1, 4096 // N))  # one batch, one random stream: returns depend on its size
    envs = [make_env(args, "rgb_array" if video_folder else None) for _ in range(side_by_side)]
    if video_folder:
        envs[0] = gym.wrappers.RecordVideo(envs[0], video_folder, episode_trigger=lambda i: i == 0, disable_logger=True)
    with torch.random.fork_rng([torch.cuda.current_device()] if args.cuda else []):
        torch.manual_seed(0)  # what is drawn here neither depends on training nor changes it
        for first in tqdm(range(0, len(seeds), side_by_side), desc="evaluation", disable=not progress):
            episodes = list(range(first, min(first + side_by_side, len(seeds))))
            s = np.stack([envs[e - first].reset(seed=seeds[e])[0] for e in episodes])
            plan, step = initial_plan(H, len(episodes), agent), 0
            while episodes:
                plan = until_limit(plan, args.time_limit, step)
                k, z, plan, _ = mppi(agent, torch.as_tensor(s, device=plan.mean.device), plan, args, explore=False)
                step, go_on, s = step + 1, [], []  # places in the plan and states of the episodes that go on
                within = step <= np.array(step_limits)
                for place, (e, k_e, z_e) in enumerate(zip(episodes, k.tolist(), z.cpu().numpy())):
                    s_next, r, terminated, truncated, info = envs[e - first].step((k_e, z_e))
                    results[within, 0, e] += r
                    results[within, 1, e] = info["is_success"]
                    if not (terminated or truncated):
                        go_on.append(place), s.append(s_next)
                s, episodes = np.array(s), [episodes[place] for place in go_on]
                plan = shift(Plan(*(x[:, go_on] for x in plan)), args.uniform_mix)
    envs[0].close()  # writes the last video
    return results


# -------------------------------------------------------------------------------------------------- files and checks
def refuse(message):
    """End the program with status 2 and one sentence."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def flag(name):
    return f"--{name.replace('_', '-')}"


def check(args):
    """Refuse a flag that is out of its range, before any work starts."""
    compiler = os.environ.get("CXX", "cl" if os.name == "nt" else "g++")  # that torch.compile calls
    ranges = [
        ("at least 1", lambda x: x >= 1, "total_timesteps learning_starts hidden_size outcome_networks "
         "updates_per_step batch_size horizon model_horizon policy_horizon policy_frequency num_samples num_elites "
         "num_iterations eval_samples_factor eval_frequency eval_episodes final_eval_episodes"),
        ("between 0 and 1", lambda x: 0 <= x <= 1, "gamma flexibility parameter_noise "
         "smoothing_start random_fraction greedy_fraction survival_fraction policy_parameters "
         "proposal_fraction uniform_mix hold_fraction"),
        ("at least 0 and less than 1", lambda x: 0 <= x < 1, "weight_averaging"),
        ("positive and at most 1", lambda x: 0 < x <= 1, "learning_rate"),
        ("positive and at most 1000000", lambda x: 0 < x <= 1e6, "smoothing_epsilon mppi_factor"),
        ("between 0 and 1000000", lambda x: 0 <= x <= 1e6, "mi_weight optimism weight_decay eval_caution"),
        ("a name of at most 100 characters", lambda x: len(x) <= 100, "exp_name"),
        ("between 0 and 16", lambda x: 0 <= x <= 16, "frequencies"),
        ("between 0 and 4294967295", lambda x: 0 <= x < 2**32, "seed time_limit checkpoint_frequency eval_extra_steps"),
        (f"at most --total-timesteps ({args.total_timesteps})", lambda x: x <= args.total_timesteps, "learning_starts"),
        ("0 with --outcome-networks 1", lambda x: x == 0 or args.outcome_networks > 1, "optimism eval_caution"),
        (f"at most --num-samples ({args.num_samples})", lambda x: x <= args.num_samples, "num_elites"),
        ("at most 1000000", lambda x: x <= len(FINAL_SEEDS), "eval_episodes final_eval_episodes"),
        ("left out, as PyTorch finds no CUDA device", lambda x: not x or torch.cuda.is_available(), "cuda"),
        (f"left out without a C++ compiler ({compiler})", lambda x: not x or shutil.which(compiler), "compile"),
        ("left out without wandb (pip install wandb)", lambda x: not x or find_spec("wandb"), "track"),
        ("left out without moviepy (pip install moviepy)", lambda x: not x or find_spec("moviepy"), "capture_video"),
    ]  # fmt: skip
    for allowed, holds, names in ranges:
        for name in names.split():
            if not holds(value := getattr(args, name)):
                refuse(f"{flag(name)} must be {allowed}" + ("" if value is True else f", not {value}"))


def provenance(args):
    """-> hardware, library versions and git commit, "-dirty" if this file is not as it was then, for result.json."""
    cpuinfo = Path("/proc/cpuinfo").read_text() if os.path.exists("/proc/cpuinfo") else ""  # Linux
    cpu = re.search(r"model name\s*: (.*)|$", cpuinfo)[1] or platform.processor()
    hardware = {"cpu": cpu, "cores": os.cpu_count(), "gpu": torch.cuda.get_device_name() if args.cuda else None}
    commit = ""  # outside a checkout
    if shutil.which("git"):
        git = partial(subprocess.run, capture_output=True, text=True, cwd=Path(__file__).parent)
        commit = git(["git", "rev-parse", "--verify", "HEAD"]).stdout.strip()
        if commit and git(["git", "status", "--porcelain", Path(__file__).name]).stdout:
            commit += "-dirty"
    versions = {"python": platform.python_version()} | {x.__name__: x.__version__ for x in (torch, np, gym)}
    return {"hardware": hardware, "versions": versions, "commit": commit or None}


def write(path, content):
    """To .json or .pt. Atomic: if the program is killed or the disk is full, `path` keeps its old content."""
    with open(path.with_suffix(".tmp"), "wb") as file:
        torch.save(content, file) if path.suffix == ".pt" else file.write(json.dumps(content, indent=1).encode())
        file.flush(), os.fsync(file.fileno())
    os.replace(path.with_suffix(".tmp"), path)


def read(option, path, parts, device="cpu"):
    """The dict with `parts` that `write` wrote to a .pt file: tensors and plain values; no code is run."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:  # checksums
                raise ValueError
        content = torch.load(path, map_location=device, weights_only=True)
        if content["script"] != Path(__file__).stem or not set(parts.split()) <= set(content):
            raise ValueError
    except Exception as error:
        refuse(f"{option}: {path} is not a whole checkpoint or model of {Path(__file__).name} ({type(error).__name__})")
    return content


def configure_torch(deterministic=True):
    """One thread, as the networks are too small to gain from more, and freed memory kept for the next tensor."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs for it
    torch.utils.deterministic.fill_uninitialized_memory = False
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        # else glibc returns larger blocks to the system, and page faults take as long as the networks
        mallopt(-1, 2**30), mallopt(-3, 2**25)  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, in bytes


def stop_unless_finite(step, run_dir, quantities, hint="try a smaller --learning-rate"):
    """End the program, naming the step and the quantity, if one of {name: numbers} is NaN or infinite."""
    for name, value in quantities.items():
        if not torch.as_tensor(value).isfinite().all():
            sys.exit(f"step {step}: {name} is {value}; {hint} ({run_dir} has what was computed)")


def final_evaluation(agent, args, result):
    """Evaluate, print and add the figures to `result` -> result."""
    seeds, step_limits = FINAL_SEEDS[: args.final_eval_episodes], tuple(FINAL_STEP_LIMITS.values())
    results = evaluate(agent, args, seeds, step_limits, progress=True)
    for name, (returns, successes) in zip(FINAL_STEP_LIMITS, results):
        result[name] = {"episodes": len(returns), "return_mean": returns.mean(), "return_std": returns.std()}
        result[name] |= {"success_rate": successes.mean(), "returns": returns.tolist()}
        print(f"{name}: return {returns.mean():.3f} ± {returns.std():.3f}, success {successes.mean():.1%}, "
              f"{len(returns)} episodes, {args.total_timesteps} steps, {result['wall_seconds']:.0f} s to train")
    return result


# ----------------------------------------------------------------------------------------------------- training loop
interrupted = []  # signals received: the run ends with a checkpoint, after the episode or amid the final evaluation


def interrupt(number, _):
    interrupted.append(number)
    signal.signal(signal.SIGINT, signal.SIG_DFL), signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends it


def train(args):
    """Train, evaluate, log to runs/<run_name>, and return what its result.json says."""
    flags = {name: value for name, value in vars(args).items() if name not in ("resume", "evaluate")}
    device = torch.device("cuda" if args.cuda else "cpu")
    run_name = f"{args.env_id}__{args.exp_name}__{args.seed}__{int(1000 * time.time())}"
    run_dir, checkpoint, first_step = Path("runs") / run_name, None, 1
    if args.resume:
        path = args.resume if args.resume.is_file() else args.resume / "checkpoint.pt"
        run_dir = path.resolve().parent
        parts = "flags step episode seconds learning num_plans replay result random cuda_random env_random"
        checkpoint = read("--resume", path, parts, device)
        free = "track wandb_project_name wandb_entity capture_video save_model checkpoint_frequency"  # change no number
        other = [name for name in flags if name not in free.split() and checkpoint["flags"].get(name) != flags[name]]
        if other:
            refuse(f"--resume: {run_dir} was started with another {', '.join(map(flag, other))}")
        first_step = checkpoint["step"] + 1
    configure_torch(args.torch_deterministic)
    torch.manual_seed(args.seed)
    compiled = partial(torch.compile, mode="reduce-overhead" if args.cuda else "default", disable=not args.compile)
    if args.compile:
        torch._dynamo.config.recompile_limit = 64  # plans have up to H lengths with --time-limit
        torch._inductor.config.fallback_random = not args.cuda  # the random numbers of a run that is not compiled
    plan_in_training, learn_model, learn_policy = compiled(mppi), compiled(update_model), compiled(update_policy)
    env = make_env(args)
    limit = getattr(env.unwrapped, "step_limit", args.time_limit)
    if args.time_limit not in (0, limit):
        refuse(f"--time-limit must be 0 or that of the environment, {limit}, not {args.time_limit}")
    if args.track:
        import wandb

        wandb.init(project=args.wandb_project_name, entity=args.wandb_entity, name=run_dir.name, config=flags,
                   id=run_dir.name, resume="allow", sync_tensorboard=True, save_code=True)  # fmt: skip
    writer = SummaryWriter(run_dir, purge_step=first_step)
    writer.add_text("hyperparameters", "\n".join(f"- {name}: {value}" for name, value in flags.items()))

    d, parameter_sizes = env.observation_space.shape[0], env.unwrapped.parameter_sizes
    agent = Agent(d, parameter_sizes, args).to(device)
    # what acts [choice]; buffers (units, running means) are copied, not averaged
    average = AveragedModel(agent, multi_avg_fn=get_ema_multi_avg_fn(args.weight_averaging))
    # the learning rate is a tensor, so that torch.compile need not compile again when it changes
    adam = partial(torch.optim.AdamW, lr=torch.tensor(args.learning_rate, device=device), fused=True, weight_decay=0)
    optimizers = {
        "model": adam([*agent.dynamics.parameters(), *agent.outcome.parameters()], weight_decay=args.weight_decay),
        "discriminator": adam(agent.discriminator.parameters(), maximize=True),
        "policy": adam([*agent.discrete_policy.parameters(), *agent.parameter_policy.parameters()]),
    }
    learning = {"agent": agent, "average": average} | optimizers
    uses_policy = args.mi_weight > 0 or args.proposal_fraction > 0
    replay = Replay(args.total_timesteps, d, agent.parameter_mask.shape[1], args.horizon, device)
    result = {"env_id": args.env_id, "seed": args.seed, "args": flags, "total_timesteps": args.total_timesteps}
    result |= provenance(args) | {"curve": []}
    seconds, num_plans, episode = {"total": 0.0, "plan": 0.0, "update": 0.0, "evaluation": 0.0}, 0, 0
    env.reset(seed=args.seed)  # for its generator; the first episode is reset below
    if checkpoint:
        for name, part in learning.items():
            part.load_state_dict(checkpoint["learning"][name])
        vars(replay).update(checkpoint["replay"])
        result, seconds = json.loads(checkpoint["result"]), checkpoint["seconds"]
        num_plans, episode = checkpoint["num_plans"], checkpoint["episode"]
        env.unwrapped.np_random.bit_generator.state = checkpoint["env_random"]
        torch.set_rng_state(checkpoint["random"].cpu())
        if args.cuda:
            torch.cuda.set_rng_state(checkpoint["cuda_random"].cpu())
    start_time, checkpoint_due = time.perf_counter() - seconds["total"], False
    terminated, truncated = True, False  # so that the first step begins an episode

    def log(scalars):
        for tag, value in scalars.items():
            writer.add_scalar(tag, value, global_step)

    def save_checkpoint(step):
        """For the end of an episode, when env's state is its generator, or of training. Exits if interrupted."""
        weights = sum(x.sum() for x in agent.parameters())
        stop_unless_finite(step, run_dir, {"the sum of the weights": weights})  # the last checkpoint is a better one
        seconds["total"] = time.perf_counter() - start_time
        write(run_dir / "checkpoint.pt", {
            "script": Path(__file__).stem, "flags": flags, "step": step, "episode": episode, "seconds": seconds,
            "learning": {name: part.state_dict() for name, part in learning.items()}, "num_plans": num_plans,
            "replay": vars(replay), "result": json.dumps(result), "random": torch.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state() if args.cuda else None,
            "env_random": env.unwrapped.np_random.bit_generator.state,
        })  # fmt: skip
        if interrupted:
            print(f"interrupted after step {step}; go on with the same flags and --resume {run_dir}")
            sys.exit(128 + interrupted[0])

    T = args.smoothing_start * args.total_timesteps  # section IV
    steps = range(first_step, args.total_timesteps + 1)
    progress = tqdm(steps, desc=run_dir.name, unit="step", initial=first_step - 1, total=args.total_timesteps)
    for global_step in progress:
        log_now = global_step % 100 == 0
        if terminated or truncated:
            if checkpoint_due or interrupted:
                save_checkpoint(global_step - 1)
                checkpoint_due = False
            (s, _), plan = env.reset(), initial_plan(args.horizon, 1, agent)
            stop_unless_finite(global_step, run_dir, {"the first observation": s}, "is it the environment?")
            episodic_return, episodic_length = 0.0, 0
            # --greedy-fraction: what evaluation would do is tried, so that the model learns where that fails [choice]
            chance = np.random.default_rng([args.seed, episode]).random()  # apart from the run's random numbers
            greedy = global_step > args.total_timesteps / 2 and chance < args.greedy_fraction

        # Act: at random in warm-up and in --random-fraction of later steps [choice], not in greedy episodes; else plan
        s_now = torch.as_tensor(s, device=device)[None]
        if global_step <= args.learning_starts:
            k, z = random_action(average.module, s_now, survival=False, policy=False)
        elif not greedy and torch.rand(()) < args.random_fraction:
            survival, policy = torch.rand(2) < torch.tensor([args.survival_fraction, args.policy_parameters])
            k, z = random_action(average.module, s_now, survival, policy and uses_policy)
        else:
            started = time.perf_counter()
            plan = until_limit(plan, args.time_limit, episodic_length)
            k, z, plan, elite_value = plan_in_training(average.module, s_now, plan, args, explore=not greedy)
            std = 0.0 if greedy else args.parameter_noise  # noise is drawn even if it is 0: later draws depend on it
            z = (z + std * torch.randn_like(z)).clamp(-1, 1) * agent.exists(k)
            stop_unless_finite(global_step, run_dir, {"the value of the elites": elite_value, "the action": z})
            seconds["plan"] += time.perf_counter() - started
            num_plans += 1
            if log_now:
                entropy = torch.distributions.Categorical(plan.probs[0]).entropy()
                log({"planner/elite_value": elite_value, "planner/elite_entropy": entropy})
        plan = shift(plan, args.uniform_mix)  # after a random step as well: what it planned for later may still be good
        k, z = k.item(), z[0].cpu()
        s_next, r, terminated, truncated, _ = env.step((k, z.numpy()))
        stop_unless_finite(global_step, run_dir, {"the observation": s_next, "the reward": r}, "is it the environment?")

        # Remember, but not the step on which an unknown time limit falls: it may be unlike others [choice]
        if terminated or args.time_limit or not truncated:
            replay.add(s, k, z, r, terminated, s_next, episode)
        s, episodic_return, episodic_length = s_next, episodic_return + r, episodic_length + 1
        if terminated or truncated:
            log({"charts/episodic_return": episodic_return, "charts/episodic_length": episodic_length})
            progress.set_postfix({"return": f"{episodic_return:.2f}"}, refresh=False)
            episode += 1
            change_rms, reward_rms, reward_range = replay.scales()
            agent.dynamics.scale.copy_(change_rms), agent.reward_scale.copy_(reward_rms)
            if args.clip_reward:
                agent.reward_range.copy_(reward_range / reward_rms)

        # Learn
        if global_step > args.learning_starts and replay.train:
            started = time.perf_counter()
            smooth = args.smoothing == "always" or (args.smoothing == "after" and global_step > T)
            if args.anneal_lr:
                lr = args.learning_rate * min(1, 2 - 2 * global_step / args.total_timesteps)
                for optimizer in optimizers.values():
                    optimizer.param_groups[0]["lr"].fill_(lr)
            for _ in range(args.updates_per_step):
                tau = replay.sample(args.batch_size, min(args.model_horizon, args.horizon))
                losses = learn_model(agent, optimizers, tau, args, smooth=smooth, diagnose=log_now)
            losses = {name: loss.item() for name, loss in losses.items()}
            if uses_policy and global_step % args.policy_frequency == 0:
                policy_losses = learn_policy(agent, optimizers["policy"], tau.s[0], args)
                losses |= {name: loss.item() for name, loss in policy_losses.items()}
            average.update_parameters(agent)
            seconds["update"] += time.perf_counter() - started
            stop_unless_finite(global_step, run_dir, losses)
            if log_now:
                log(losses | {"charts/learning_rate": optimizers["model"].param_groups[0]["lr"]})

        # Evaluate
        if global_step % args.eval_frequency == 0 or global_step == args.total_timesteps:
            started = time.perf_counter()
            seeds = EVAL_SEEDS[: args.eval_episodes]
            video_folder = run_dir / f"videos/step_{global_step}" if args.capture_video else None
            returns, successes = evaluate(average.module, args, seeds, video_folder=video_folder)[0]
            stop_unless_finite(global_step, run_dir, {"the evaluation's return": returns.mean()})
            errors = consistency_error(average.module, args, replay) if average.n_averaged else []  # none in warm-up
            known = [error for error in errors if error is not None]
            mean_error = np.mean(known) if known else None
            seconds["evaluation"] += time.perf_counter() - started
            wall_seconds = time.perf_counter() - start_time
            result["curve"].append({
                "step": global_step, "return_mean": returns.mean(), "return_std": returns.std(),
                "success_rate": successes.mean(), "consistency_error": mean_error,
                "consistency_error_by_depth": errors, "wall_seconds": wall_seconds,
            })  # fmt: skip
            result |= {"wall_seconds": wall_seconds, "evaluation_seconds": seconds["evaluation"],
                       "sps": global_step / (wall_seconds - seconds["evaluation"]),
                       "plan_ms": 1000 * seconds["plan"] / max(1, num_plans),
                       "update_ms": 1000 * seconds["update"] / max(1, global_step - args.learning_starts)}  # fmt: skip
            write(run_dir / "result.json", result)
            log({"eval/return": returns.mean(), "eval/success_rate": successes.mean(), "charts/SPS": result["sps"]})
            log({f"model/consistency_error/depth_{i}": error for i, error in enumerate(known, start=1)})
            log({"model/consistency_error": mean_error} if known else {})
            progress.write(f"step {global_step}: return {returns.mean():.3f} ± {returns.std():.3f}, success "
                           f"{successes.mean():.1%} ({args.eval_episodes} greedy episodes)")  # fmt: skip
        if args.checkpoint_frequency > 0:  # one at the end of warm-up, too: from there on a run can diverge
            checkpoint_due |= global_step % args.checkpoint_frequency == 0 or global_step == args.learning_starts

    if args.checkpoint_frequency > 0:
        save_checkpoint(args.total_timesteps)  # from which only the final evaluation is left to do
    if args.save_model:
        weights = average.module.state_dict()
        write(run_dir / "model.pt", {"script": Path(__file__).stem, "flags": flags, "agent": weights,
                                     "wall_seconds": result["wall_seconds"]})  # fmt: skip
    writer.close()

    def leave(number, frame):  # the final evaluation has no end of an episode to wait for
        interrupt(number, frame)
        if "final" not in result:
            save_checkpoint(args.total_timesteps)  # which exits

    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is interrupt:  # none came
            signal.signal(number, leave)
    if interrupted:
        save_checkpoint(args.total_timesteps)
    write(run_dir / "result.json", final_evaluation(average.module, args, result))
    return result


def evaluate_model(path, given):
    """The final evaluation of a saved model with its own flags, to evaluation.json beside it."""
    for name, value in vars(Args()).items():
        if getattr(given, name) != value and name not in ("evaluate", "cuda"):
            refuse(f"{flag(name)} must be left out with --evaluate: the saved model has its own flags")
    saved = read("--evaluate", path, "flags agent wall_seconds")
    if set(saved["flags"]) != set(vars(Args())) - {"resume", "evaluate"}:
        refuse(f"--evaluate: {path} is of another version of {Path(__file__).name}, with other flags")
    off = dict.fromkeys(("compile", "track", "capture_video"), False)
    args = Args(**saved["flags"] | off | {"cuda": given.cuda})
    check(args)
    configure_torch(args.torch_deterministic)
    env, device = make_env(args), torch.device("cuda" if args.cuda else "cpu")
    agent = Agent(env.observation_space.shape[0], env.unwrapped.parameter_sizes, args).to(device)
    agent.load_state_dict(saved["agent"])
    result = {"env_id": args.env_id, "args": saved["flags"], "wall_seconds": saved["wall_seconds"]}  # of training
    write(path.with_name("evaluation.json"), final_evaluation(agent, args, result))


if __name__ == "__main__":
    args = tyro.cli(Args)
    check(args)
    if args.evaluate:
        evaluate_model(args.evaluate, args)
    else:
        signal.signal(signal.SIGINT, interrupt), signal.signal(signal.SIGTERM, interrupt)
        train(args)
