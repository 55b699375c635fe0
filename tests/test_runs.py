"""Interrupted, resumed and saved runs of a script, as a user starts them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from zipfile import ZipFile

import pytest
import torch
from moviepy import VideoFileClip

import flexplore_catch_point as flexplore

SMALL = ("--total-timesteps 300 --learning-starts 80 --eval-frequency 150 --eval-episodes 2 --final-eval-episodes 4 "
         "--num-samples 32 --num-elites 4 --batch-size 16 --updates-per-step 1 "
         "--checkpoint-frequency 50 --random-fraction 0.3 --greedy-fraction 0.5 --survival-fraction 0.5 "
         "--parameter-noise 0.3").split()  # fmt: skip
TINY = dict(total_timesteps=160, learning_starts=110, eval_frequency=160, eval_episodes=1, final_eval_episodes=1,
            num_samples=32, num_elites=4, batch_size=16, checkpoint_frequency=50)  # fmt: skip
TIMINGS = {"wall_seconds", "sps", "plan_ms", "update_ms", "evaluation_seconds"}


def start(folder, *flags, small=SMALL, call=subprocess.run, **environment):
    folder.mkdir(exist_ok=True)
    command, pipe = [sys.executable, flexplore.__file__, *small, *flags], subprocess.PIPE
    return call(command, cwd=folder, stdout=pipe, stderr=pipe, text=True, env=os.environ | environment)


def without_timings(path):
    result = {name: value for name, value in json.loads(path.read_text()).items() if name not in TIMINGS}
    result["curve"] = [{k: v for k, v in point.items() if k not in TIMINGS} for point in result["curve"]]
    return result


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    done = start(folder, "--save-model")
    assert done.returncode == 0 and "final: return" in done.stdout
    (run_dir,) = (folder / "runs").iterdir()
    return run_dir


def test_killed_terminated_and_resumed_runs_end_as_if_never_stopped(run, tmp_path):
    resume = []
    for number in (signal.SIGKILL, signal.SIGTERM):
        process, before = start(tmp_path, "--save-model", *resume, call=subprocess.Popen), time.time()
        while not any(path.stat().st_mtime > before for path in tmp_path.glob("runs/*/checkpoint.pt")):
            time.sleep(0.05)
            assert process.poll() is None
        process.send_signal(number)
        out = process.communicate()[0]
        (run_dir,) = (tmp_path / "runs").iterdir()
        resume = ["--resume", str(run_dir)]
    assert process.returncode == 128 + signal.SIGTERM and f"--resume {run_dir}" in out
    assert start(tmp_path, "--save-model", *resume).returncode == 0
    assert without_timings(run_dir / "result.json") == without_timings(run / "result.json")


def test_a_signal_during_the_final_evaluation_leaves_a_checkpoint_and_says_how_to_go_on(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(flexplore, "interrupted", [])
    monkeypatch.setattr(flexplore, "final_evaluation", lambda *_: signal.raise_signal(signal.SIGTERM))
    before = {number: signal.signal(number, flexplore.interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    with pytest.raises(SystemExit) as end:
        flexplore.train(flexplore.Args(**TINY | {"checkpoint_frequency": 0}))
    for number, handler in before.items():
        signal.signal(number, handler)
    (path,) = tmp_path.glob("runs/*/checkpoint.pt")
    hint = f"--resume {path.parent.relative_to(tmp_path)}"
    assert end.value.code == 128 + signal.SIGTERM and hint in capsys.readouterr().out
    assert torch.load(path, weights_only=True)["step"] == TINY["total_timesteps"]


def test_a_saved_model_repeats_the_final_evaluation(run, tmp_path):
    refused = start(tmp_path, "--evaluate", str(run / "model.pt"), "--horizon", "7", small=())
    assert "--horizon must be left out" in refused.stderr and refused.returncode == 2
    assert start(tmp_path, "--evaluate", str(run / "model.pt"), small=()).returncode == 0
    evaluation, result = (json.loads((run / name).read_text()) for name in ("evaluation.json", "result.json"))
    assert (final := evaluation["final"]) == result["final"] and final["episodes"] == len(final["returns"]) == 4
    keys = "env_id seed args total_timesteps wall_seconds sps plan_ms update_ms hardware versions commit"
    assert set(keys.split()) <= set(result) and any(run.glob("events.out.tfevents*"))


@pytest.mark.parametrize(
    "damage", ["truncated", "pickled", "another script's", "other flags", "a flipped byte", "a missing part"]
)
def test_refuses_a_checkpoint_that_is_not_this_runs(damage, run, tmp_path):
    checkpoint, content = tmp_path / "checkpoint.pt", torch.load(run / "checkpoint.pt", weights_only=True)
    if damage == "another script's":
        content["script"] = "flexplore_goal"
    if damage == "a missing part":
        del content["replay"]
    flexplore.write(checkpoint, content)
    whole = bytearray(checkpoint.read_bytes())
    if damage == "a flipped byte":
        largest = max(ZipFile(checkpoint).infolist(), key=lambda part: part.file_size)  # the numbers of a tensor
        whole[largest.header_offset + largest.file_size // 2] ^= 1
    checkpoint.write_bytes(whole[:-5000] if damage == "truncated" else whole)
    if damage == "pickled":
        torch.save(Path(), checkpoint)  # an object, which loading it would have to construct
    flags = ["--gamma", "0.9"] if damage == "other flags" else []
    done = start(tmp_path, "--save-model", "--resume", str(tmp_path), *flags)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert ("--gamma" if damage == "other flags" else "checkpoint.pt is not a whole") in done.stderr


def test_a_full_disk_leaves_the_previous_checkpoint(monkeypatch, tmp_path):
    flexplore.write(tmp_path / "checkpoint.pt", {"step": 1})

    def full(content, file):
        file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError):
        flexplore.write(tmp_path / "checkpoint.pt", {"step": 2})
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 1


def test_a_nan_in_the_replay_stops_the_run_and_leaves_the_last_checkpoint(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    add = flexplore.Replay.add

    def add_and_spoil(replay, *transition):
        add(replay, *transition)
        if replay.size == 130:
            replay.r[:] = torch.nan

    monkeypatch.setattr(flexplore.Replay, "add", add_and_spoil)
    with pytest.raises(SystemExit, match=r"^step 130: losses/reward is nan; try"):
        flexplore.train(flexplore.Args(**TINY | {"learning_starts": 100, "checkpoint_frequency": 1000}))
    (path,) = tmp_path.glob("runs/*/checkpoint.pt")
    checkpoint = torch.load(path, weights_only=True)
    assert 100 <= checkpoint["step"] < 130 and checkpoint["replay"]["r"].isfinite().all()


def test_spoiled_weights_that_no_loss_shows_are_not_checkpointed(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def spoil(agent, *_):
        agent.parameter_policy.out.bias.data.fill_(torch.nan)
        return {}

    monkeypatch.setattr(flexplore, "update_policy", spoil)
    flags = {"policy_frequency": TINY["total_timesteps"], "proposal_fraction": 0.0}  # so only the last step spoils them
    with pytest.raises(SystemExit, match=r"^step 160: the sum of the weights is nan"):
        flexplore.train(flexplore.Args(**TINY | flags))
    (path,) = tmp_path.glob("runs/*/checkpoint.pt")
    assert torch.load(path, weights_only=True)["step"] < 160


def test_a_video_opens_and_shows_the_episode(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    right = torch.zeros(1).long(), torch.full((1, 1), 0.5)
    monkeypatch.setattr(flexplore, "mppi", lambda agent, s, plan, *_, **__: (*right, plan, s.sum()))
    flexplore.train(flexplore.Args(**TINY, capture_video=True))
    (path,) = tmp_path.glob("runs/*/videos/step_160/*.mp4")
    with VideoFileClip(str(path)) as video:
        frames = list(video.iter_frames())
    assert len(frames) >= 3 and frames[0].shape == (400, 400, 3)
    assert abs(frames[1].astype(int) - frames[-1])[32:].max() > 100  # both with k, z and force: the agent has moved


def test_tracking_offline(tmp_path):
    pytest.importorskip("wandb")
    flags = ["--total-timesteps", "100", "--eval-frequency", "100", "--eval-episodes", "1"]
    assert start(tmp_path, "--track", *flags, WANDB_MODE="offline", WANDB_SILENT="true").returncode == 0
    (log,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert b"eval/success_rate" in log.read_bytes()
