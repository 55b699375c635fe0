"""The algorithm's equations against values known in closed form. All scripts share one text; Platform's is tested."""

import json
import math
import subprocess
import sys
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch
import torch.nn as nn
import tyro
from scipy.stats import wasserstein_distance

import flexplore_goal
import flexplore_hard_move
import flexplore_platform as flexplore
from flexplore_platform import Agent, Args, Discriminator, Plan, Replay

TINY = dict(learning_starts=40, total_timesteps=80, hidden_size=8, batch_size=8, horizon=3, num_samples=32,
            num_elites=4, eval_frequency=40, eval_episodes=2, final_eval_episodes=3)  # fmt: skip
LEFT, RIGHT = ((torch.full((1,), k), torch.zeros(1, 1)) for k in (0, 1))  # actions of StubEnv


@pytest.fixture(autouse=True)
def seed_and_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture
def train(monkeypatch):
    """train() on StubEnv with functions of the script replaced, evaluate among them."""

    def train(functions, **flags):
        defaults = dict(make_env=lambda *_, **__: StubEnv((1, 1)), evaluate=lambda *_, **__: np.zeros((1, 2, 1)))
        for name, function in (defaults | functions).items():
            monkeypatch.setattr(flexplore, name, function)
        return flexplore.train(Args(**TINY | flags))

    return train


def segment(H, B, **fields):
    """Random, of one episode each (d = 2, K = 2, m = 1), but for the given fields."""
    tau = flexplore.Segment(torch.randn(H, B, 2), torch.randint(2, (H, B)), torch.randn(H, B, 1), torch.randn(H, B),
                            torch.zeros(H, B), torch.randn(H, B, 2), torch.ones(H, B))  # fmt: skip
    return tau._replace(**fields)


def test_replay_masks_end_with_the_episode():
    replay = Replay(capacity=9, d=1, m=1, horizon=4, device="cpu")
    for i in range(9):
        replay.add([i], 0, torch.zeros(1), 10.0 * i, i == 2, [i + 1], episode=0 if i < 3 else 1)
    tau = replay.segment([0, 1, 7], 4)
    assert tau.same_episode.T.tolist() == [[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 0, 0]]
    assert tau.s[:2, :, 0].T.tolist() == [[0, 1], [1, 2], [7, 8]] and tau.r[0].tolist() == [0, 10, 70]
    assert tau.terminated[:, 0].tolist() == [0, 0, 1, 0]


def test_losses_of_outcomes_of_the_next_state_have_no_gradients_into_t_phi():
    agent, tau, weight = Agent(2, (1, 0), args := Args(outcome_input="next_state")), segment(2, 3), torch.ones(2, 3)
    *_, states = flexplore.dynamics_loss(agent, tau, weight, args)
    sum(flexplore.outcome_losses(agent, tau, states, weight).values()).backward()
    assert states.requires_grad and all(p.grad is None for p in agent.dynamics.parameters())


@pytest.mark.parametrize(("dynamics_error", "expected"), [("squared", 5 + 0.9 * 2), ("absolute", 3 + 0.9 * 2)])
def test_dynamics_loss_by_hand(dynamics_error, expected):
    """Errors of (2, -1), then (1, -1), in units of scale, of a T_phi that changes nothing, with a std of 2."""
    agent, scale = Agent(2, (1, 0), Args()), torch.tensor([0.5, 2.0])
    agent.dynamics.scale.copy_(scale)
    for layer, bias in ((agent.dynamics.out, 0.0), (agent.dynamics.log_std_out, math.log(2))):
        nn.init.zeros_(layer.weight), nn.init.constant_(layer.bias, bias)
    s = torch.tensor([0.3, -0.4]).expand(2, 1, 2)
    tau = segment(2, 1, s=s, s_next=s - scale * torch.tensor([[[2.0, -1.0]], [[1.0, -1.0]]]))

    def loss(eta):
        args = Args(dynamics_error=dynamics_error, flexibility=0.0, mi_weight=eta)
        return flexplore.dynamics_loss(agent, tau, torch.tensor([[1.0], [0.9]]), args)[0]

    nll = 0.5 * (2 / 2) ** 2 + 0.5 * (1 / 2) ** 2 + 2 * math.log(2)  # of the first step; it moves the std alone
    assert [loss(0.0).item(), loss(0.1).item()] == pytest.approx([expected, expected + nll])
    nn.init.normal_(agent.dynamics.log_std_out.weight, std=0.1)
    (loss(0.1) - loss(0.0)).backward()
    moved = {name for name, p in agent.dynamics.named_parameters() if p.grad is not None and p.grad.abs().max() > 1e-4}
    assert moved == {"log_std_out.weight", "log_std_out.bias"}


def test_outcome_losses_by_hand():
    """R0 = 1 is compared where the episode goes on, R1 = 3 where it ends; real rewards of 2 are 1 in units of 2."""
    agent = Agent(2, (1, 0), Args())
    agent.reward_scale.fill_(2.0)
    agent.outcomes = lambda s, k, z, s_next: torch.tensor([1.0, 3.0, math.log(3)]).expand(3, 2, 3)  # c = 3/4
    tau = segment(2, 1, r=torch.full((2, 1), 2.0), terminated=torch.tensor([[0.0], [1.0]]))
    losses = flexplore.outcome_losses(agent, tau, torch.zeros(3, 1, 2), torch.tensor([[1.0], [0.5]]))
    assert losses["losses/reward"].item() == pytest.approx(0.5 * (3 - 1) ** 2)
    assert losses["losses/continuation"].item() == pytest.approx(-math.log(3 / 4) - 0.5 * math.log(1 / 4))


def updated(learning_rates=(0.0, 0.0), later=0.0, smooth=False, diagnose=False, **flags):
    """L_ex before and after one update of the model and of f_W by gradient descent, and the agent."""
    torch.manual_seed(0)
    args = Args(horizon=3, mi_weight=0.0, **flags)
    agent, tau = Agent(2, (1, 0), args).eval(), segment(3, 4)  # eval: no further power iteration
    agent.dynamics.scale.copy_(torch.tensor([0.5, 2.0]))
    tau.same_episode[1:, 0] = 0  # the segment of column 0 ends after one step: nothing of what follows may count
    tau.s[1:, 0], tau.r[1:, 0], tau.s_next[1:, 0] = later, later, later
    tau.terminated[2, 1], tau.s_next[2, 1] = 1, later  # the state after a terminating step may not count
    model, f_W = [*agent.dynamics.parameters(), *agent.outcome.parameters()], agent.discriminator.parameters()
    optimizers = {"model": torch.optim.SGD(model, learning_rates[0]),
                  "discriminator": torch.optim.SGD(f_W, learning_rates[1], maximize=True)}  # fmt: skip
    before, after = (
        flexplore.update_model(agent, optimizers, tau, args, smooth, diagnose)["losses/wasserstein"].item()
        for _ in range(2)
    )
    return before, after, agent


def test_t_phi_descends_l_ex_and_f_w_ascends_it():
    before, after, _ = updated((1e-3, 0.0), flexibility=1.0)
    assert after < before
    before, after, _ = updated((0.0, 1e-3), flexibility=1.0)
    assert after > before


@pytest.mark.parametrize("outcome_input", ["action", "next_state"])
def test_an_update_of_the_model(outcome_input):
    """What follows the episode changes nothing, nor does L_smt if it is only logged; smoothing leaves T_phi alone."""

    def weights(**case):
        agent = updated((1e-2, 1e-2), outcome_input=outcome_input, dynamics_error="squared", **case)[2]
        parts = agent.dynamics, agent.outcome, agent.discriminator
        return [torch.cat([x.flatten() for x in part.parameters()]) for part in parts]

    as_is = weights()
    assert all(map(torch.equal, as_is, weights(diagnose=True)))
    assert all(map(partial(torch.allclose, atol=1e-6), as_is, weights(later=5.0)))
    assert not any(map(torch.allclose, as_is, weights(gamma=0.5)))  # later steps are discounted
    smoothed = weights(smooth=True)
    assert torch.equal(as_is[0], smoothed[0]) and not torch.allclose(as_is[1], smoothed[1])


def test_epsilon_is_in_units_of_scale(monkeypatch):
    seen = []
    monkeypatch.setattr(flexplore, "smoothing_loss", lambda _, s, epsilon: seen.append(epsilon) or s.new_zeros(2))
    updated(diagnose=True, smoothing_epsilon=0.1)
    assert seen[0].tolist() == pytest.approx([0.05, 0.2])


def test_held_out_episodes_and_their_error():
    """The 11th, the 31st, ... Errors of a T_phi that changes nothing, where x grows by 1: 1, 2, and too short for 3."""
    agent = Agent(1, (1,), args := Args(horizon=3))
    nn.init.zeros_(agent.dynamics.out.weight), nn.init.zeros_(agent.dynamics.out.bias)
    replay = Replay(capacity=80, d=1, m=1, horizon=3, device="cpu")
    for i in range(80):
        s_next = [i % 2 + 1 if i // 2 in (10, 30) and i != 61 else 100]  # after a terminating step it does not count
        replay.add([i % 2], 0, torch.full((1,), i // 2), 0.0, i == 61, s_next, episode=i // 2)
    assert flexplore.consistency_error(agent, args, replay) == [1, 2, None]
    assert {*replay.sample(2000, 2).z[0, :, 0].tolist()} == {*range(40)} - {10, 30}


@pytest.mark.parametrize("shift_of_k, conditional, horizon, expected", [
    ([2.0, 2.0], False, 1, 2.0),  # W1 of shifted Gaussians is the shift
    ([1.0, 1.0], False, 3, 1 + 0.9 + 0.81),
    ([1.0, -1.0], True, 1, 1.0),  # k = 0 is predicted 1 too high, k = 1 as much too low:
    ([1.0, -1.0], False, 1, 0.3687),  # the marginals, N(0, 1) and a mixture, stay close
])  # fmt: skip
def test_l_ex_attains_the_discounted_sum_of_w1(shift_of_k, conditional, horizon, expected):
    """Of a discriminator trained between N(0, 1) and N(shift_of_k[k], 1), as by Theorems 3.1 and 3.2."""
    f = Discriminator(1, 2, 1, 32, conditional)
    optimizer = torch.optim.Adam(f.parameters(), lr=3e-3, maximize=True)
    for batch_size in [512] * 500 + [8192]:  # the last one, large, is the test
        k = torch.randint(2, (horizon * batch_size,))
        real = torch.randn(len(k), 1)
        predicted = torch.randn(len(k), 1) + torch.tensor(shift_of_k)[k, None]
        zeros = torch.zeros_like(real)
        values = f(torch.stack([real, predicted]), zeros, k, zeros, torch.ones(1)).view(2, horizon, batch_size)
        L_ex = flexplore.wasserstein_loss(*values, (0.9 ** torch.arange(horizon))[:, None])
        optimizer.zero_grad(), L_ex.backward(), optimizer.step()
    assert L_ex.item() == pytest.approx(expected, rel=0.05, abs=0.04)
    if horizon == 1 and not conditional:  # it attains the W1 of its samples, and may not exceed it
        w1 = wasserstein_distance(real[:, 0].numpy(), predicted[:, 0].numpy())
        assert L_ex.item() == pytest.approx(w1, rel=0.05, abs=0.04) and L_ex.item() < 1.001 * w1


@pytest.mark.parametrize("conditional", [True, False])
def test_discriminator_is_1_lipschitz_in_the_next_state(conditional):
    f = Discriminator(5, 3, 2, 32, conditional)
    optimizer = torch.optim.Adam(f.parameters(), lr=1e-2, maximize=True)
    scale = torch.tensor([0.1, 1.0, 3.0, 1.0, 0.5])
    s, k, z = torch.randn(1000, 5), torch.randint(3, (1000,)), torch.randn(1000, 2)
    a = torch.randn(1000, 5)
    for spread in [1.0] * 50 + [0.01]:  # train it to be as steep as it can
        b = a + spread * scale * torch.randn(1000, 5)
        f_a, f_b = f(torch.stack([a, b + 0.5]), s, k, z, scale)
        optimizer.zero_grad(), (f_a - f_b).mean().backward(), optimizer.step()
    f.eval()  # measure without another power iteration
    f_a, f_b = f(torch.stack([a, b]), s, k, z, scale)
    slope = (f_a - f_b).abs() / ((a - b) / scale).norm(dim=1)
    assert slope.max() <= 1.001 and slope.max() > 0.1


def test_smoothing_finds_the_worst_direction():
    """For R(s) = a s the steepest way from R(s) is +-sign(a): |R(s) - R(s~)| = |a (s' - s)| + epsilon |a|_1."""
    a, epsilon, s, seen = torch.tensor([3.0, -1.0, 0.5]), torch.tensor([0.1, 0.2, 0.3]), torch.randn(64, 3), []
    loss, lipschitz = flexplore.smoothing_loss(lambda s: seen.append(s.detach()) or s @ a, s, epsilon)
    _, s_prime, s_tilde = seen
    torch.testing.assert_close((s_tilde - s_prime).abs(), epsilon.expand(64, 3))
    expected = ((s_prime - s) @ a).abs() + (epsilon * a.abs()).sum()
    assert loss.item() == pytest.approx(expected.square().mean().item(), rel=1e-5)
    assert 0 < lipschitz <= a.norm()


def test_mi_reward_is_the_difference_of_the_densities():
    agent = Agent(2, (2, 0, 1), Args())
    agent.dynamics.scale.copy_(torch.tensor([0.1, 3.0]))
    s, k, z = torch.randn(3, 2), torch.tensor([0, 1, 2]), torch.tensor([[0.3, -0.2], [0, 0], [0.9, 0]])
    s_next, h = agent.dynamics(s, k, z)
    T = torch.distributions.Normal(s_next / agent.dynamics.scale, agent.dynamics.log_std(h).exp())
    mean, log_std = agent.parameter_distribution(s, k)
    log_p = torch.distributions.Normal(mean, log_std.exp().expand(3, 2)).log_prob(z)
    log_p = torch.stack([log_p[0].mean(), torch.zeros(()), log_p[2, 0]])  # per parameter; action 1 has none
    log_T = T.log_prob(s_next / agent.dynamics.scale).mean(dim=1)
    for bound in (100.0, 0.5):  # of each log density
        expected = log_T.clamp(-bound, bound) - log_p.clamp(-bound, bound)
        torch.testing.assert_close(flexplore.mi_reward(agent, s, k, z, h, bound=bound), expected)


def test_the_mi_reward_in_imagined_returns(monkeypatch):
    """r_aux = 3, its mean so far 1, r = 1, c = 1/2: each of two steps earns 1 + 0.1 * 1/2 * (3 - 1), in units of 2."""
    monkeypatch.setattr(flexplore, "mi_reward", lambda agent, s, k, z, h: 3 + 0 * z.sum(dim=1))
    agent, args = Agent(2, (1, 1), Args()), Args(mi_weight=0.1, gamma=0.9)
    agent.reward_and_continuation = lambda s, k, z, s_next: (torch.ones(len(s)), torch.ones(len(s)) / 2)
    agent.mi_mean.fill_(1.0), agent.reward_scale.fill_(2.0)
    k, z = torch.zeros(2, 1).long(), torch.zeros(2, 1, 1)
    values, *_ = flexplore.imagined_return(agent, torch.zeros(1, 2), k, z, args, with_mi=True)
    assert values.item() == pytest.approx(2 * 1.1 * (1 + 0.9 / 2))
    policies = [*agent.discrete_policy.parameters(), *agent.parameter_policy.parameters()]
    losses = flexplore.update_policy(agent, torch.optim.SGD(policies), torch.zeros(4, 2), args)
    assert agent.mi_mean.item() == pytest.approx(1.02)  # a hundredth of the way to 3
    assert losses["exploration/mi_reward"].item() == pytest.approx(0.1 * (3 - 1.02))


def test_policy_gradients_pass_the_model_and_leave_it_alone():
    agent, args = Agent(3, (1, 0, 2), Args()), Args(mi_weight=0.1)
    policies = nn.ModuleList([agent.discrete_policy, agent.parameter_policy])
    before = [p.clone() for p in agent.parameters()]
    optimizer = torch.optim.SGD(policies.parameters(), lr=1.0)
    losses = flexplore.update_policy(agent, optimizer, torch.randn(32, 3), args)
    assert set(losses) == {"losses/policy", "exploration/mi_reward"}
    assert all(p.grad.abs().sum() > 0 for p in agent.discrete_policy.parameters())
    assert agent.parameter_policy.out.weight.grad.abs().sum() > 0
    of_policies = {id(p) for p in policies.parameters()}
    for p, old in zip(agent.parameters(), before):
        assert torch.equal(p, old) is (id(p) not in of_policies)


def test_proposals_are_draws_of_the_policies():
    """k by pi_beta's probabilities unless it is given, a one-hot where gradients are needed; z by p_theta."""
    agent, given_k = Agent(2, (1, 0, 1), Args()), torch.full((3000,), -1)
    agent.discrete_policy.forward = lambda s: torch.tensor([0.6, 0.3, 0.1]).log().expand(len(s), 3)
    agent.parameter_distribution = lambda s, k: (torch.full((len(s), 1), 0.2), torch.full((len(s), 1), -2.0))
    given_k[:1000] = 2
    one_hot, _ = agent.propose(torch.zeros(3000, 2), given_k)
    with torch.no_grad():
        k, z = agent.propose(torch.zeros(3000, 2), given_k)
    assert ((one_hot == 0) | (one_hot == 1)).all() and (one_hot.sum(dim=1) == 1).all()
    for drawn in (k, one_hot.argmax(dim=1)):
        assert (drawn[:1000] == 2).all()
        assert (drawn[1000:].bincount() / 2000).tolist() == pytest.approx([0.6, 0.3, 0.1], abs=0.04)
    z = z[k != 1]
    assert (z.mean().item(), z.std().item()) == (pytest.approx(0.2, abs=0.02), pytest.approx(math.exp(-2), abs=0.02))


def test_what_the_policies_maximise():
    """Three steps of r = 1, a typical reward; every other sequence takes random k, the others pi_beta's."""
    agent, asked = Agent(2, (1, 1, 1), Args()), []
    agent.reward_and_continuation = lambda s, k, z, s_next: (1 + 0 * z[:, 0], torch.ones(len(s)))
    agent.reward_scale.fill_(4.0)
    agent.propose = lambda s, given_k, propose=agent.propose: asked.append(given_k) or propose(s, given_k)
    policies = [*agent.discrete_policy.parameters(), *agent.parameter_policy.parameters()]
    args = Args(gamma=0.9, mi_weight=0.0, policy_horizon=3)
    losses = flexplore.update_policy(agent, torch.optim.SGD(policies), torch.zeros(60, 2), args)
    assert losses["losses/policy"].item() == pytest.approx(-(1 + 0.9 + 0.81))
    given_k = torch.stack(asked)
    assert (given_k[:, ::2] == -1).all() and (given_k[:, 1::2].flatten().bincount() > 15).all()


def test_the_mi_reward_widens_the_parameter_policy():
    """With r_aux alone, -log p_theta(z) asks for a larger sigma, and centring r_aux must not cancel that gradient."""
    agent, args = Agent(3, (1, 1), Args()), Args(mi_weight=1.0)
    agent.reward_and_continuation = lambda s, k, z, s_next: (s[:, 0] * 0, torch.ones(len(s)))
    policy = agent.parameter_policy
    optimizer = torch.optim.SGD([*policy.parameters(), *agent.discrete_policy.parameters()], lr=1.0)
    flexplore.update_policy(agent, optimizer, torch.randn(256, 3), args)
    assert policy.out.bias.grad[-1] < -0.5  # d(-log p)/d log sigma is 1 per step where z is not clipped


def test_refit_by_hand():
    """Two elites of weight 0.75 and 0.25 chose k = 0, one of weight 0 k = 1, none k = 2."""
    plan = Plan(torch.full((1, 1, 3), 1 / 3), torch.full((1, 1, 3, 1), 0.5), torch.full((1, 1, 3, 1), 0.7))
    k, z = torch.tensor([[[0, 0, 1]]]), torch.tensor([0.0, 0.4, -1.0]).view(1, 1, 3, 1)
    new = flexplore.refit(plan, k, z, torch.tensor([[0.75, 0.25, 0.0]]), momentum=0.1, min_std=0.05)
    assert new.probs.flatten().tolist() == pytest.approx([0.9 + 0.1 / 3, 0.1 / 3, 0.1 / 3])
    # k = 0: mean 0.1, variance 0.75 * 0.01 + 0.25 * 0.09; k = 1: fitted to its elite, however bad, with the std it had;
    # k = 2 stays
    assert new.mean.flatten().tolist() == pytest.approx([0.9 * 0.1 + 0.05, 0.9 * -1 + 0.05, 0.5])
    assert new.std.flatten().tolist() == pytest.approx([math.sqrt(0.03), 0.7, 0.7])
    narrow = flexplore.refit(plan, k, torch.zeros_like(z), torch.tensor([[0.5, 0.5, 0.0]]), min_std=0.05)
    assert narrow.std[0, 0, 0, 0] == pytest.approx(0.05)


def test_evaluation_takes_the_densest_action():
    k = torch.tensor([[0, 0, 0, 1, 1], [1, 1, 1, 1, 0], [0, 0, 0, 0, 0]])
    z = torch.tensor([[-1, 0.98, 1, 0.5, 0.5], [0, 0, 0.9, -0.9, 0], [-0.9, -0.9, 0.9, 0.92, 0.94]])[..., None]
    weight = torch.tensor([[0.3, 0.15, 0.15, 0.2, 0.2], [0.1, 0.2, 0.1, 0.1, 0.5], [0.1, 0.15, 0.25, 0.25, 0.25]])
    best_k, best_z = flexplore.densest_action(k, z, weight)
    assert best_k.tolist() == [1, 0, 0]  # not the first elite, nor the k of the largest total weight in the first row
    # in the last row not the mean, 0.465
    torch.testing.assert_close(best_z[:, 0], torch.tensor([0.5, 0.0, 0.92]), atol=1e-4, rtol=0)


class Toy(Agent):
    """s counts down from 2 by any action; reward at s = 1 only: 1 - (z - 0.3)^2 for k = K - 2, -1 otherwise."""

    def __init__(self, parameter_sizes):
        super().__init__(1, parameter_sizes, Args(hidden_size=2))
        self.dynamics.forward = lambda s, k, z: (s - 1, s)

    def reward_and_continuation(self, s, k, z, s_next):
        best = k == len(self.parameter_mask) - 2
        r = torch.where(best, 1 - (z[:, 0] - 0.3) ** 2, -1.0)
        return torch.where(s[:, 0] == 1, r, 0.0), torch.ones(len(s))


@pytest.mark.parametrize("parameter_sizes", [(1, 1, 0), (1,) * 1024])
@pytest.mark.parametrize("explore", [True, False])
def test_mppi_solves_a_hybrid_problem(parameter_sizes, explore):
    """Two steps ahead only one of K actions pays, with its parameter at 0.3; from s = 1 it has to be taken at once."""
    agent = Toy(parameter_sizes)
    args = Args(horizon=2, num_samples=8192, num_elites=16, num_iterations=6, mi_weight=0.0, proposal_fraction=0.0)
    s = torch.tensor([[2.0], [1.0]])  # two episodes planned in one batch
    plan = flexplore.initial_plan(2, 2, agent)
    k, z, new_plan, value = flexplore.mppi(agent, s, plan, args, explore)
    wanted = len(parameter_sizes) - 2
    assert k[1] == wanted and z[1, 0] == pytest.approx(0.3, abs=0.1)
    assert new_plan.probs[1, 0].argmax() == wanted and new_plan.mean[1, 0, wanted, 0] == pytest.approx(0.3, abs=0.1)
    assert value == pytest.approx((1 + 0.99) / 2, abs=0.02)  # of the elites of both episodes, 0.99 a step away
    assert torch.equal(new_plan.probs.sum(dim=2).round(decimals=4), torch.ones(2, 2))


def test_training_acts_by_an_elite_drawn_by_weight():
    """All sequences are elites, half of them earn 1, half 0, so with a factor of 1 these weigh 1 / e as much."""
    agent = Agent(1, (0, 0), Args())
    agent.reward_and_continuation = lambda s, k, z, s_next: ((k == 0).float(), torch.ones(len(s)))
    args = Args(num_samples=64, num_elites=64, num_iterations=1, mppi_factor=1.0, mi_weight=0.0, proposal_fraction=0.0)
    k, *_ = flexplore.mppi(agent, torch.zeros(800, 1), flexplore.initial_plan(1, 800, agent), args, explore=True)
    assert k.float().mean().item() == pytest.approx(1 / (1 + math.e), abs=0.06)


def test_evaluation_acts_where_elites_are_densest():
    """The best elites have z near 0.01, nearly all others, little worse, z = 1."""
    agent = Agent(1, (1,), Args())
    agent.reward_and_continuation = lambda s, k, z, s_next: (
        torch.where((z > 0) & (z < 0.02), 1.01, (z == 1).float())[:, 0], torch.ones(len(s)))  # fmt: skip
    args = Args(num_samples=1000, num_elites=100, num_iterations=1, mi_weight=0.0, proposal_fraction=0.0)
    _, z, *_ = flexplore.mppi(agent, torch.zeros(1, 1), flexplore.initial_plan(1, 1, agent), args, explore=False)
    assert z.item() == pytest.approx(1)


def test_proposals_find_what_few_samples_miss():
    """The policies know the one of 1,024 actions that pays; where the plan has chosen k only its z is theirs."""
    agent, asked = Toy((1,) * 1024), []
    args = Args(num_samples=64, num_elites=4, num_iterations=1, mi_weight=0.0, proposal_fraction=0.5)
    agent.propose = lambda s, k: asked.append(k) or (torch.where(k < 0, 1022, k), torch.full((len(s), 1), 0.3))
    k, z, _, value = flexplore.mppi(agent, torch.ones(1, 1), flexplore.initial_plan(1, 1, agent), args, explore=False)
    assert (k.item(), z.item()) == (1022, pytest.approx(0.3)) and value == pytest.approx(1)
    (given_k,) = asked
    assert len(given_k) == 32 and (given_k < 0).sum() == 16 and given_k.max() > 100


def test_pruning_keeps_what_ended_and_lets_every_row_reach_the_last_step():
    """One action in 20 goes on. Values are those of the returned actions, and belong to the right episode."""
    agent, args = Agent(1, (1,), Args()), Args()
    agent.dynamics.forward = lambda s, k, z: (s + z, s)
    agent.reward_and_continuation = lambda s, k, z, s_next: (s[:, 0] + z[:, 0], (z[:, 0] > 0.9).float())
    E, N = 2, 500
    s = torch.tensor([[0.0], [10.0]]).repeat_interleave(N, dim=0)
    k, z = torch.zeros(3, E * N, dtype=torch.long), torch.rand(3, E * N, 1) * 2 - 1
    reached = {}
    for prune in (False, True):
        values, ks, zs, _ = flexplore.imagined_return(agent, s, k, z, args, with_mi=False, E=E, prune=prune)
        goes_on = (zs[:2, ..., 0] > 0.9).all(dim=0) & values.isfinite()
        reached[prune] = goes_on.sum().item()
        again, *_ = flexplore.imagined_return(
            agent, torch.tensor([[0.0], [10.0]]).repeat_interleave(values.shape[1], dim=0), ks.flatten(1),
            zs.flatten(1, 2), args, with_mi=False, E=E)  # fmt: skip
        torch.testing.assert_close(values[values.isfinite()], again[values.isfinite()])
    assert reached[False] < 20 and reached[True] == E * N
    ended_at_once = zs[0, :, :N, 0] <= 0.9  # the first N are the sequences as they were drawn
    assert torch.equal(zs[0, :, :N, 0].flatten(), z[0, :, 0]) and torch.equal(values[:, :N].isfinite(), ended_at_once)


@pytest.mark.parametrize("optimism, expected", [(1, [1.99, 3.378]), (0, [1.99, 2.189]), (-0.5, [1.99, 1.5945])])
def test_optimism_adds_what_the_networks_disagree_about_and_caution_takes_it_off(optimism, expected):
    """k = 0 earns 1 on each of two steps. k = 1 earns, says one network, 1 and then ends; says the other, 3.378."""
    agent, args = Agent(1, (1, 1), Args()), Args(outcome_networks=2)
    rewards = torch.tensor([[1.0, 1.0], [1.0, 2.378 / 0.99]]).expand(2, 2, 2)  # network, step, k
    c = torch.tensor([[[1.0, 0.0], [1.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]]])
    agent.of_each_network = lambda *_: (rewards.flatten(1), c.flatten(1))
    k = torch.tensor([[0, 1], [0, 1]])
    values, *_ = flexplore.imagined_return(agent, torch.zeros(2, 1), k, torch.zeros(2, 2, 1), args, False, optimism)
    assert values.tolist() == [pytest.approx(expected)]


@pytest.mark.parametrize("explore, flags, expected", [
    (True, {}, 3), (True, {"optimism": 1.0}, 1), (False, {"optimism": 1.0}, 0),
    (False, {"optimism": 1.0, "eval_caution": 3.0}, 2), (True, {"eval_caution": 3.0}, 3),
])  # fmt: skip
def test_training_plans_with_optimism_and_r_aux_and_evaluation_with_caution(explore, flags, expected, monkeypatch):
    """Two networks say what k earns: 80 or 120, 20 or 160, always 70, 60 or 100; r_aux is 40 for the last k."""
    monkeypatch.setattr(flexplore, "mi_reward", lambda agent, s, k, z, h: 40.0 * (k == 3))
    agent, args = Agent(1, (0, 0, 0, 0), Args()), Args(mi_weight=1.0, proposal_fraction=0.0, **flags)
    rewards = torch.tensor([[80.0, 20.0, 70.0, 60.0], [120.0, 160.0, 70.0, 100.0]])
    agent.of_each_network = lambda s, k, z, s_next: (rewards[:, k], torch.ones(2, len(k)))
    k, *_ = flexplore.mppi(agent, torch.zeros(4, 1), flexplore.initial_plan(1, 4, agent), args, explore)
    assert k.tolist() == [expected] * 4


@pytest.mark.parametrize("policy", [False, True])
def test_random_actions_that_survive(policy):
    """Where only k = 1 with z > 0 goes on, surviving actions are such; without survival, k and z are uniform."""
    agent = Agent(1, (0, 1, 1), Args())
    agent.reward_and_continuation = lambda s, k, z, s_next: (None, ((k == 1) & (z[:, 0] > 0)).float())
    agent.parameter_distribution = lambda s, k: (torch.full((len(s), 1), 0.3), torch.full((len(s), 1), -1.2))
    draw = partial(flexplore.random_action, agent, torch.zeros(1, 1))
    surviving = [draw(survival=True, policy=policy) for _ in range(100)]
    z = torch.stack([z for _, z in surviving])
    assert all(k.tolist() == [1] for k, _ in surviving) and z.shape == (100, 1, 1) and (z > 0).all()
    assert z.mean().item() == pytest.approx(0.37 if policy else 0.5, abs=0.1)  # of N(0.3, 0.3) above 0, of U(0, 1)
    k, z = map(torch.cat, zip(*(draw(survival=False, policy=policy) for _ in range(1000))))
    assert k.bincount().tolist() == pytest.approx([333] * 3, abs=60) and (z[k == 0] == 0).all()
    assert z[k > 0].mean().item() == pytest.approx(0.3 if policy else 0.0, abs=0.1)
    assert z[k > 0].std().item() == pytest.approx(0.3 if policy else 0.58, abs=0.05)


def test_the_units_and_the_range_of_clipped_rewards():
    """Changes of 1 and 2, but none by a terminating step. Rewards of steps that go on: 0 to 2; that end: -5 to 0."""
    replay, agent = Replay(4, 2, 1, 1, "cpu"), Agent(1, (1,), Args(outcome_networks=1))
    assert [x.tolist() for x in replay.scales()[1:]] == [pytest.approx(1e-3), [[0, 0], [0, 0]]]  # of nothing
    for change, r, ends in ((1.0, 2.0, False), (2.0, 1.0, False), (9.0, -5.0, True), (9.0, -3.0, True)):
        replay.add([0.0, 5.0], 0, torch.zeros(1), r, ends, [change, 5.0], episode=0)
        if len(replay.train) == 2:  # none has ended
            assert replay.scales()[2].tolist() == [[0, 0], [2, 0]]
    change_rms, reward_rms, reward_range = replay.scales()
    assert [*change_rms.tolist(), reward_rms] == pytest.approx([math.sqrt(2.5), 0.01, math.sqrt(39 / 4)])
    assert reward_range.tolist() == [[0, -5], [2, 0]]
    agent.reward_range.copy_(reward_range)
    for logit, outputs, expected in ((99.0, (9, 9), 2), (99.0, (-9, 9), 0), (-99.0, (9, -9), -5), (-99.0, (0, 9), 0)):
        agent.outcome[0].forward = lambda s, k, z, out=(*outputs, logit): torch.tensor([out], dtype=torch.float)
        assert agent.reward_and_continuation(torch.zeros(1, 1), None, None, None)[0].item() == pytest.approx(expected)


def test_held_sequences_and_missing_parameters():
    agent = Agent(1, (1, 0), Args())
    plan = flexplore.initial_plan(5, 1, agent)
    k, z = flexplore.sample_sequences(agent, plan, 100, hold_fraction=0.5)
    assert (k[:, 0, :50] == k[0, 0, :50]).all() and (z[:, 0, :50] == z[0, 0, :50]).all()
    assert (k[:, 0, 50:] != k[0, 0, 50:]).any() and (z[k == 1] == 0).all() and (z[k == 0] != 0).all()


def test_shift_moves_the_plan_by_one_step():
    plan = Plan(torch.tensor([[[0.9, 0.1]], [[0.2, 0.8]]]), torch.tensor([1.0, 2, 3, 4]).view(2, 1, 2, 1), None)
    new = flexplore.shift(plan._replace(std=torch.full((2, 1, 2, 1), 0.05)), uniform_mix=0.5)
    assert new.probs.flatten().tolist() == pytest.approx([0.35, 0.65, 0.5, 0.5])
    assert new.mean.flatten().tolist() == [3, 4, 0, 0] and new.std.flatten().tolist() == [1, 1, 1, 1]


def test_plans_go_on_from_the_last_one_and_end_at_a_known_time_limit(train):
    """H = 3, and episodes of StubEnv last 10 steps if the agent only goes left; unknown, the 10th is not learned."""
    means, remembered = [], []

    def left(agent, s, plan, args, explore):
        means.append(plan.mean[:, 0, 0, 0].tolist())
        mean = torch.arange(5.0, 5 + len(plan.mean))[:, None, None, None].expand_as(plan.mean)
        return *LEFT, plan._replace(mean=mean), s.sum()

    def error(agent, args, replay):  # asked for once a run, by the evaluation after the last step
        remembered.append((replay.size, replay.terminated.sum().item()))
        return []

    functions = dict(mppi=left, random_action=lambda *_, **__: LEFT, evaluate=flexplore.evaluate)
    for limit, last in ((10, [[6, 7], [6]]), (0, [[6, 7, 0]] * 2)):
        means.clear()
        flags = dict(time_limit=limit, random_fraction=0.0, eval_episodes=1, final_eval_episodes=1)
        train(functions | {"consistency_error": error}, **flags)
        assert means == [[0, 0, 0], *[[6, 7, 0]] * 7, *last] * 7  # in training and in three evaluations
    assert remembered == [(80, 0), (72, 0)]


def test_what_a_run_learns_by_and_which_weights_act(train):
    """Steps 41 to 80 of 80: T = 60, the learning rate falls from 40 on, and a moving average of the weights plans."""
    smoothed, rates, units, acting = [], [], [], []

    def update(agent, optimizers, tau, args, smooth, diagnose):
        smoothed.append(smooth), rates.append(optimizers["model"].param_groups[0]["lr"].item())
        units.append([agent.dynamics.scale.item(), agent.reward_scale.item(), *agent.reward_range.flatten().tolist()])
        assert optimizers["discriminator"].param_groups[0]["maximize"] and not optimizers["policy"].defaults["maximize"]
        agent.dynamics.out.bias.data.fill_(len(smoothed))  # 1, 2, ... after steps 41, 42, ...
        return {}

    def right(agent, s, plan, args, explore):
        acting.append(agent.dynamics.out.bias.item())
        return *RIGHT, plan, s.sum()

    functions = dict(update_model=update, mppi=right, random_action=lambda *_, **__: RIGHT)
    flags = dict(mi_weight=0.0, proposal_fraction=0.0, random_fraction=0.0, smoothing_start=0.75, learning_rate=1e-3)
    flags |= dict(clip_reward=True, anneal_lr=True, weight_averaging=0.75, updates_per_step=1)
    warm_up, end = train(functions, **flags)["curve"]
    assert smoothed == [False] * 20 + [True] * 20
    assert rates == pytest.approx([1e-3 * (2 - step / 40) for step in range(41, 81)], abs=1e-9)
    assert acting[1:5] == pytest.approx([1, 1.25, 1.6875, 2.265625])  # 3/4 of the former and 1/4 of the new
    assert units[0] == units[-1] == pytest.approx([0.2, 6**-0.5, 0, 0, 0, 6**0.5])  # the last of six steps earns 1
    assert (warm_up["consistency_error"], warm_up["consistency_error_by_depth"]) == (None, [])
    assert end["consistency_error"] == np.mean(end["consistency_error_by_depth"]) > 0


def test_random_steps_and_greedy_episodes(train):
    """Of an episode's 10 steps random ones are binomial, p = --random-fraction; their kinds are as the flags say."""
    steps, kinds, env = [], [], StubEnv((1, 1))

    def random_action(agent, s, survival, policy):
        steps.append("random"), kinds.append([bool(survival), bool(policy)])
        return LEFT[0], LEFT[1] - 1

    def left(agent, s, plan, args, explore):
        steps.append("explore" if explore else "greedy")
        return *LEFT, plan, s.sum()

    functions = dict(make_env=lambda *_: env, random_action=random_action, mppi=left,
                     update_model=lambda *_, **__: {}, update_policy=lambda *_, **__: {})  # fmt: skip
    flags = dict(total_timesteps=4000, learning_starts=10, eval_frequency=4000, greedy_fraction=0.5,
                 random_fraction=0.3, survival_fraction=0.8, policy_parameters=0.4, parameter_noise=0.3)  # fmt: skip
    train(functions, **flags)
    steps, actions = np.reshape(steps, (-1, 10)), np.reshape(env.played, (-1, 10))
    counts, greedy = (steps[1:200] == "random").sum(axis=1), steps == "greedy"
    assert counts.mean() == pytest.approx(3, abs=0.5) and counts.var() == pytest.approx(2.1, rel=0.35)
    assert not np.any(kinds[:10]) and np.mean(kinds[10:], axis=0) == pytest.approx([0.8, 0.4], abs=0.07)
    assert not greedy[:200].any() and greedy[200:].mean() == pytest.approx(0.5, abs=0.15)
    assert (greedy == greedy[:, :1]).all() and ((actions == 0) == greedy).all()  # as in evaluation, without noise


def test_frequencies_are_sines_and_cosines_of_the_state():
    s = torch.tensor([[0.5, -1.0]])
    agent = Agent(2, (1, 1), Args(frequencies=2))  # pi/2 s and pi s
    expected = [0.5, -1, 0.5**0.5, -1, 1, 0, 0.5**0.5, 0, 0, -1]
    assert agent.fourier(s)[0].tolist() == pytest.approx(expected, abs=1e-6)
    s_next, k, z = s + 0.1, torch.ones(1).long(), torch.ones(1, 1)
    assert agent.outcomes(s, k, z, s_next).shape == (Args().outcome_networks, 1, 3)
    of_next = Agent(2, (1, 1), Args(frequencies=2, outcome_input="next_state", outcome_networks=1))
    assert of_next.reward_and_continuation(s, k, z, s_next)[0] != of_next.reward_and_continuation(s, k, z, s)[0]
    of_next.outcome[0].forward = lambda x: x
    of_next.dynamics.scale.fill_(0.1)  # s' enters as it is, unscaled, and neither k nor z does
    x = of_next.outcomes(s, k, z, s_next)[0, 0]
    assert torch.equal(x, torch.cat([agent.fourier(s), agent.fourier(s_next)], dim=1)[0])
    assert torch.equal(Agent(2, (1,), Args(frequencies=0)).fourier(s), s)


class StubEnv(gym.Env):
    """A walk on a line that ends at 1 (success), with any number of actions and of parameters."""

    def __init__(self, parameter_sizes):
        self.parameter_sizes, self.played = parameter_sizes, []
        box = gym.spaces.Box(-1, 1, (max(1, *parameter_sizes),), np.float32)
        self.action_space = gym.spaces.Tuple((gym.spaces.Discrete(len(parameter_sizes)), box))
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.t = np.zeros(1, np.float32), 0
        return self.x, {}

    def step(self, action):
        k, z = action
        assert 0 <= k < len(self.parameter_sizes) and (z[self.parameter_sizes[k] :] == 0).all()
        self.played.append(z[0].item())
        self.x, self.t = self.x + np.float32(0.2 if k % 2 else -0.2), self.t + 1
        success = bool(self.x[0] > 1)
        return self.x, float(success), success, self.t == 10 and not success, {"is_success": success}


@pytest.mark.parametrize("parameter_sizes", [(0, 2, 1), (1,) * 1024, (0, 0), (1,)])
def test_trains_with_missing_parameters_and_many_actions(parameter_sizes, train):
    functions = dict(make_env=lambda *_, **__: StubEnv(parameter_sizes), evaluate=flexplore.evaluate)
    result = train(functions, smoothing="always", discriminator="marginal")
    assert [point["step"] for point in result["curve"]] == [40, 80] and len(result["final"]["returns"]) == 3


@pytest.mark.parametrize("script, flags, entries", [
    (flexplore_goal, {}, {"final"}),  # pruning with optimism and clipped rewards
    (flexplore_hard_move, {}, {"final", "final_25"}),  # a second count of the final episodes
    (flexplore, dict(flexibility=0.0, mi_weight=0.0, smoothing="never", proposal_fraction=0.0), {"final"}),  # DLPA-like
])  # fmt: skip
def test_trains_with_what_no_other_test_has(script, flags, entries):
    result = script.train(script.Args(**TINY, **flags))
    assert {name for name in result if "final" in name} == entries
    assert all(len(result[name]["returns"]) == 3 for name in entries)


def test_evaluation_cut_off_after_fewer_steps(monkeypatch):
    monkeypatch.setattr(flexplore, "make_env", lambda *_, **__: StubEnv((1, 1)))
    right = lambda agent, s, plan, *_, **__: (torch.ones(len(s)).long(), torch.zeros(len(s), 1), plan, None)  # noqa: E731
    monkeypatch.setattr(flexplore, "mppi", right)  # reaches the end after 5 or 6 steps
    results = flexplore.evaluate(Agent(1, (1, 1), Args()), Args(), range(3), step_limits=(math.inf, 3, 8))
    assert results.tolist() == [[[1] * 3] * 2, [[0] * 3] * 2, [[1] * 3] * 2]


def test_evaluation_neither_depends_on_the_random_numbers_of_training_nor_changes_them(monkeypatch):
    monkeypatch.setattr(flexplore, "make_env", lambda *_, **__: StubEnv((1, 1)))
    args, outcomes = Args(horizon=2, num_samples=4, num_elites=2), []
    agent = Agent(1, (1, 1), args)
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        outcomes.append(flexplore.evaluate(agent, args, range(30)))
        assert torch.equal(before, torch.get_rng_state())
    assert (outcomes[0] == outcomes[1]).all() and outcomes[0][0, 0].std() > 0


def test_evaluation_searches_more_than_training_and_both_hold_in_all_but_the_last_iteration(monkeypatch):
    monkeypatch.setattr(flexplore, "make_env", lambda *_, **__: StubEnv((1, 1)))
    args = Args(horizon=2, num_samples=64, hold_fraction=0.5, eval_samples_factor=4, eval_extra_steps=3)
    agent, sample, seen = Agent(1, (1, 1), args), flexplore.sample_sequences, []
    monkeypatch.setattr(flexplore, "sample_sequences", lambda *x: seen.append((len(x[1].mean), *x[2:])) or sample(*x))
    flexplore.evaluate(agent, args, range(1))
    flexplore.mppi(agent, torch.zeros(1, 1), flexplore.initial_plan(2, 1, agent), args, explore=True)  # as in training
    assert seen[:-3] == [(5, 256, 0.5), (5, 256, 0.5), (5, 256, 0.0)] * (len(seen) // 3 - 1)
    assert seen[-3:] == [(2, 64, 0.5), (2, 64, 0.5), (2, 64, 0.0)]


@pytest.mark.parametrize("steps, message", [
    (80, r"step 42: the value of the elites is (tensor\()?(nan|inf)"), (41, "step 41: the evaluation's return is nan"),
])  # fmt: skip
def test_divergence_names_the_step_and_the_culprit(steps, message, tmp_path):
    """Of the weights by the update of step 41; if that is the last one, there is no final evaluation."""
    flags = dict(total_timesteps=steps, learning_rate=1e30, updates_per_step=1, random_fraction=0.0, anneal_lr=False)
    with pytest.raises(SystemExit, match=message):
        flexplore.train(Args(**TINY | flags, checkpoint_frequency=0))
    (path,) = tmp_path.glob("runs/*/result.json")  # what was computed is kept
    result = json.loads(path.read_text())
    assert [point["step"] for point in result["curve"]] == [40] and "final" not in result


@pytest.mark.parametrize("method, quantity", [("reset", "the first observation"), ("step", "the observation")])
def test_an_environment_that_is_broken_is_named(method, quantity, train, monkeypatch):
    whole = getattr(StubEnv, method)
    broken = lambda *x, **y: (np.full(1, np.nan), *whole(*x, **y)[1:])  # noqa: E731
    monkeypatch.setattr(StubEnv, method, broken)
    with pytest.raises(SystemExit, match=f"step 1: {quantity} is .*nan.*; is it the environment"):
        train({})


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning")  # PyTorch's own
def test_a_compiled_run_draws_the_same_random_numbers(train):
    env = StubEnv((1, 1))

    def mppi(agent, s, plan, args, explore):
        return torch.zeros(1).long(), torch.rand(1, 1) - torch.rand(1, 1), plan, s.sum()

    functions = dict(make_env=lambda *_: env, mppi=mppi, update_model=lambda *_, **__: {}, update_policy=lambda *_: {})
    for compile in (False, True):
        train(functions, compile=compile, random_fraction=0.0)
    assert len(set(env.played[:80])) > 60 and env.played[:80] == env.played[80:]


def test_the_commit_tells_whether_the_script_was_changed_since(tmp_path, monkeypatch):
    monkeypatch.setattr(flexplore, "__file__", str(tmp_path / "script.py"))
    first, commits = "git init && git add . && git -c user.name=x -c user.email=x commit -m first", []
    for command in ("echo 1 > script.py", first, "echo 2 > other", "echo 2 > script.py"):
        subprocess.run(command, shell=True, cwd=tmp_path, check=True)
        commits.append(flexplore.provenance(Args())["commit"])
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tmp_path, capture_output=True, text=True).stdout.strip()
    assert len(head) == 40 and commits == [None, head, head, f"{head}-dirty"]


BAD_VALUES = {  # flags, and values that every one of them refuses
    "total-timesteps learning-starts hidden-size outcome-networks updates-per-step batch-size horizon model-horizon "
    "policy-horizon policy-frequency num-samples num-elites num-iterations eval-samples-factor eval-frequency "
    "eval-episodes final-eval-episodes":
        "0 -1 1.5 many",
    "seed time-limit checkpoint-frequency eval-extra-steps": "-1 4294967296 1.5 many",
    "frequencies": "-1 17 1.5 many",
    "gamma flexibility parameter-noise smoothing-start random-fraction greedy-fraction survival-fraction "
    "policy-parameters proposal-fraction uniform-mix hold-fraction": "-0.1 1.1 nan inf much",
    "learning-rate": "0 -1 1.1 nan much",
    "smoothing-epsilon mppi-factor": "0 -1 1e7 nan inf much",
    "mi-weight optimism weight-decay eval-caution": "-0.1 1e7 nan inf much",
    "exp-name": 101 * "x",
    "weight-averaging": "-0.1 1 nan much",
    "env-id env-source dynamics-error outcome-input activation discriminator smoothing": "0 other",
    "learning-starts": "2501",  # more than --total-timesteps
    "num-elites": "257",  # more than --num-samples
    "torch-deterministic cuda compile track capture-video save-model anneal-lr clip-reward prune": "maybe",
}  # fmt: skip
BAD_FLAGS = [(flexplore, (f"--{name}", value)) for names, values in BAD_VALUES.items()
             for name in names.split() for value in values.split()]  # fmt: skip
BAD_FLAGS += [(flexplore, (name, "1", "--outcome-networks", "1")) for name in ("--optimism", "--eval-caution")]
BAD_FLAGS += [(flexplore_hard_move, ("--n", "5")), (flexplore_goal, ("--env-id", "Goal"))]


def is_one_sentence(error):  # ours, or tyro's box with its hint
    return error.startswith("error: ") and error.count("\n") == 1 or "For full helptext" in error


def test_bad_flags_are_of_every_flag():
    names_and_paths = {"wandb-project-name", "wandb-entity", "resume", "evaluate"}
    known = {flags[0][2:] for script, flags in BAD_FLAGS if script is flexplore} | names_and_paths
    assert known == {name.replace("_", "-") for name in vars(Args())}


@pytest.mark.parametrize("script, flags", BAD_FLAGS, ids=lambda x: " ".join(x) if isinstance(x, tuple) else None)
def test_bad_flags(script, flags, capsys, tmp_path):
    with pytest.raises(SystemExit) as end:
        script.check(tyro.cli(script.Args, args=flags))
    error = capsys.readouterr().err
    assert end.value.code == 2 and not list(tmp_path.iterdir())
    assert is_one_sentence(error) and (flags[0] if flags[1] != "maybe" else "maybe") in error


@pytest.mark.parametrize("flags, hint", [
    ({"track": True}, "pip install wandb"), ({"capture_video": True}, "pip install moviepy"), ({"cuda": True}, "CUDA"),
    ({"env_source": "gym-platform"}, "pip install gym"), ({"compile": True}, "C++ compiler (no-such-compiler)"),
    ({"capture_video": True, "env_source": "gym-platform"}, "must be left out with --env-source"),
    ({"time_limit": 100}, "must be 0 or that of the environment, 200, not 100"),
])  # fmt: skip
def test_what_is_not_there_is_named(flags, hint, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(flexplore, "find_spec", lambda name: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CXX", "no-such-compiler")
    args, name = Args(**TINY, **flags), next(iter(flags)).replace("_", "-")
    with pytest.raises(SystemExit) as end:
        flexplore.make_env(args), flexplore.check(args), flexplore.train(args)
    error = capsys.readouterr().err
    assert end.value.code == 2 and not list(tmp_path.iterdir())
    assert is_one_sentence(error) and f"--{name} " in error and hint in error


@pytest.mark.parametrize("flags", ["--horizon 0", "--resume nowhere", "--evaluate nowhere/model.pt"])
def test_bad_flags_end_the_program_before_any_work(flags, tmp_path):
    command = [sys.executable, flexplore.__file__, *flags.split()]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 2 and flags.split()[1] in run.stderr and not list(tmp_path.iterdir())
    assert is_one_sentence(run.stderr)
