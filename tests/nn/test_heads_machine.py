"""Any sequence of good batches, bad batches, saves, copies and evaluations, against a plain NumPy account of it."""

import copy
import io
import math
import pickle

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from etfopt import InputError, simplex_etf
from tests.tools.blind import blind
from tests.tools.running import RunningAccount

torch = pytest.importorskip("torch")
from etfopt.nn import NearestETFHead

# batches of one class, and of one sample, are among the cases
pytestmark = pytest.mark.filterwarnings("ignore:.*hold one class only:UserWarning")

C, D, TAU, DELTA, IGNORED = 4, 6, 5.0, 1e-2, -100
MEMORIES = {"running": 64.0, "running, short": 3.0, "running, without end": math.inf}
RATES = {"paper": lambda t: max(2 / (t + 1), 1e-4), "cumulative": lambda t: 1 / t, 0.3: lambda t: 0.3 ** (t > 1)}
BAD = {
    "a NaN": lambda x, y: (x * np.nan, y),
    "an infinity": lambda x, y: (np.where(x == x.max(), np.inf, x), y),
    "a label too large": lambda x, y: (x, np.where(np.arange(len(y)) == 0, C, y)),
    "a negative label": lambda x, y: (x, np.where(np.arange(len(y)) == 0, -1, y)),
}
SHAPES = {
    "too few labels": lambda x, y: (x, y[1:]),
    "features too wide": lambda x, y: (np.hstack([x, x]), y),
    "no labels": lambda x, _: (x, None),
}


class Life(RuleBasedStateMachine):
    """A head, and what section 5 of method.md, or the docstring of ClassMeans, says of it.

    `mean` and `center` are the account of the centred means and of the bias; `frozen` and `every` are the schedule.
    """

    @initialize(
        averaging=st.sampled_from([*RATES, *MEMORIES]),
        freeze_after=st.sampled_from([None, None, 3]),
        solve_every=st.sampled_from([1, 1, 2]),
        unseen=st.booleans(),
    )
    def start(self, averaging, freeze_after, solve_every, unseen):
        self.running = averaging in MEMORIES
        rule = {"memory": MEMORIES[averaging]} if self.running else {"statistics": "paper", "averaging": averaging}
        options = {**rule, "freeze_after": freeze_after, "solve_every": solve_every}
        self.make = lambda: NearestETFHead(D, C, delta=DELTA, temperature=TAU, **options).double()
        self.head, self.rate, self.every = self.make(), RATES.get(averaging), solve_every
        self.frozen = freeze_after if freeze_after is not None else 10**9
        # unseen batches of ignored samples are counted by the schedule until values are looked at
        self.unseen = unseen and freeze_after is None and solve_every == 1
        self.mean, self.seen, self.steps = np.zeros((D, C)), np.zeros(C, dtype=bool), 0
        self.M = simplex_etf(C, reduced=self.running)
        self.U, self.center = np.eye(D, len(self.M)), np.zeros(D)
        self.account = RunningAccount(D, C, MEMORIES.get(averaging, 64.0))

    def state(self) -> dict:
        return {name: value.clone() for name, value in self.head.named_buffers()}

    def run(self, x, y):
        x, y = torch.tensor(x), None if y is None else torch.tensor(y, dtype=torch.int64)
        if not self.unseen:
            return self.head(x, y)
        with blind():
            return self.head(x, y)

    @rule(labels=st.lists(st.sampled_from([*range(C), IGNORED]), max_size=8), seed=st.integers(0, 2**32 - 1))
    def a_good_batch(self, labels, seed):
        x, y = np.random.default_rng(seed).standard_normal((len(labels), D)) + 0.4, np.array(labels, dtype=int)
        before = self.state()
        logits = self.run(x, y).detach().numpy()
        f, kept = TAU * x / np.linalg.norm(x, axis=1, keepdims=True), y != IGNORED
        center = self.center  # of a batch that counts in nothing
        if kept.any():
            center = self.follow(f[kept], y[kept])
        else:
            assert all(torch.equal(value, before[name]) for name, value in self.state().items())
        np.testing.assert_allclose(logits, (f - center) @ self.weight.T, rtol=0, atol=1e-8)

    @property
    def weight(self):
        return np.sqrt(C) / np.linalg.norm(self.M) * (self.U @ self.M).T

    def follow(self, f, y):
        """Take a step; return what it centres by."""
        center = self.run_on(f, y) if self.running else self.method_of_the_paper(f, y)
        if self.steps % self.every == 0 and self.steps < self.frozen:
            found = self.head.U.numpy().copy()
            # where the first batch leaves U undetermined its choice is the proximal point: take the head's
            prox = found if self.steps == 0 else self.U
            H = self.mean / max(np.linalg.norm(self.mean), 1e-300)
            P, s, Qt = np.linalg.svd(2 * H @ self.M.T + DELTA * prox, full_matrices=False)
            np.testing.assert_allclose(found, P @ Qt, rtol=0, atol=1e-12 / s[-1])
            self.U = found
        self.steps += 1
        return center

    def run_on(self, f, y):
        center = self.account.add(f, y)
        self.mean, self.seen, self.center = self.account.centred, self.account.samples > 0, self.account.center
        return center

    def method_of_the_paper(self, f, y):
        """Follow section 5 of method.md."""
        a, mu = self.rate(self.steps + 1), f.mean(axis=0)
        for c in range(C):
            if c in y:
                self.mean[:, c] = a * (f[y == c].mean(axis=0) - mu) + (1 - a) * self.mean[:, c]
                self.seen[c] = True
            elif not self.seen[c]:
                self.mean[:, c] = mu
        self.center = mu
        return mu

    @rule(kind=st.sampled_from(list(BAD)), seed=st.integers(0, 2**32 - 1))
    def a_bad_batch(self, kind, seed):
        x, before = np.random.default_rng(seed).standard_normal((5, D)), self.state()
        x, y = BAD[kind](x, np.array([0, 1, 2, 3, 0]))
        if self.unseen:
            self.run(x, y)
            with pytest.raises(InputError, match="could not be used"):
                self.head.eval()
            self.head.train()
        else:
            with pytest.raises(InputError, match=r"features|labels"):
                self.run(x, y)
        assert all(torch.equal(value, before[name]) for name, value in self.state().items())

    @rule(kind=st.sampled_from(list(SHAPES)))
    def a_batch_of_the_wrong_shape(self, kind):
        before = self.state()
        with pytest.raises(InputError):
            self.run(*SHAPES[kind](np.ones((3, D)), np.array([0, 1, 2])))
        assert all(torch.equal(value, before[name]) for name, value in self.state().items())

    @rule()
    def it_is_saved_and_loaded(self):
        file = io.BytesIO()
        torch.save(self.head.state_dict(), file)
        file.seek(0)
        resumed = self.make()
        resumed.load_state_dict(torch.load(file))
        self.head = resumed

    @rule()
    def it_is_copied(self):
        self.head = copy.deepcopy(self.head)

    @rule()
    def it_is_pickled(self):
        self.head = pickle.loads(pickle.dumps(self.head))

    @rule(seed=st.integers(0, 2**32 - 1))
    def it_is_evaluated(self, seed):
        x, before = torch.tensor(np.random.default_rng(seed).standard_normal((3, D))), self.state()
        logits = self.head.eval()(x)
        torch.testing.assert_close(logits, self.head.linear()(self.head.normalize(x)), rtol=0, atol=1e-12)
        self.head.train()
        assert all(torch.equal(value, before[name]) for name, value in self.state().items())

    @rule()
    def a_checkpoint_of_another_size_comes(self):
        before = self.state()
        with pytest.raises(InputError, match="does not fit"):
            self.head.load_state_dict(NearestETFHead(D + 1, C).state_dict())
        assert all(torch.equal(value, before[name]) for name, value in self.state().items())

    @precondition(lambda self: self.steps)
    @rule()
    def it_is_certified(self):
        solution = self.head.solution()
        assert solution.converged
        if (self.steps - 1) % self.every == 0 and self.steps <= self.frozen:
            np.testing.assert_allclose(solution.weight, self.head.weight, rtol=0, atol=1e-9)

    @invariant()
    def the_state_is_that_of_the_account(self):
        means = self.head.means
        np.testing.assert_allclose(self.head.unit * means.centred(), self.mean, rtol=0, atol=1e-9)
        np.testing.assert_array_equal(self.head.U, self.U)
        np.testing.assert_allclose(self.head.bias, -self.weight @ self.center, rtol=0, atol=1e-7)
        assert means.occurred.tolist() == self.seen.tolist()
        assert int(means.steps) == self.steps


TestLife = Life.TestCase
TestLife.settings = settings(stateful_step_count=15)
