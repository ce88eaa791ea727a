"""Every cell of the table of modes in the docstring of etfopt.nn: right, or an error, and nothing else."""

import copy
import functools
import gc
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import ROOT

torch = pytest.importorskip("torch")
from torch import nn
from torch.autograd import forward_ad
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

import etfopt.nn
from etfopt.nn import ClassMeans, ETFDistance, FixedETFHead, LearnedHead, NearestETFHead
from etfopt.nn._running import RunningMeans
from etfopt.nn.functional import etf_distance, frame_tensor, nearest_etf, polar_factor
from tests.tools.head_cases import MEANS, STATEFUL, paper_fixed, paper_means, paper_nearest

# tracers and compilers warn of what they meet on the way, differently from version to version; values are what counts
pytestmark = pytest.mark.filterwarnings("ignore")

Loss = Callable[[torch.Tensor], torch.Tensor]

# --- the subjects: each call gives a fresh loss, and the point where to evaluate it -------------------------------

C, D = 4, 6
X = torch.linspace(-1, 2, 12 * D, dtype=torch.float64).square().mul(7).sin().reshape(12, D)  # of full rank
Y = torch.arange(12) % C
WAY = X.flip(0).cos()  # a direction
COLLAPSED = 0.5 * torch.eye(D, C, dtype=torch.float64)  # its singular values repeat


def scalar(U: torch.Tensor) -> torch.Tensor:
    return (U * torch.linspace(-1, 2, U.numel(), dtype=U.dtype).reshape(U.shape)).sum().sin()


def vertices(U: torch.Tensor, F: torch.Tensor) -> torch.Tensor:
    """Their product, which autocast leaves in full precision: the node is what is tested."""
    return (U.unsqueeze(-1) * F).sum(dim=-2)


class NodeLoss(nn.Module):
    def __init__(self, method: str = "auto", proximal: bool = True) -> None:
        super().__init__()
        self.method, self.proximal = method, proximal

    def forward(self, H: torch.Tensor) -> torch.Tensor:
        prox = torch.eye(D, C, dtype=H.dtype) if self.proximal else None
        delta = None if prox is None else 0.1
        return scalar(vertices(nearest_etf(H, prox, delta, method=self.method), frame_tensor(C, H)))


class WeightedLoss(nn.Module):
    """Of means and, in the last row, the roots of their weights, with class 1 held."""

    def __init__(self, method: str = "auto") -> None:
        super().__init__()
        self.method = method

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        F, U0 = frame_tensor(C, x, reduced=True), torch.eye(D, C - 1, dtype=x.dtype)
        U = nearest_etf(x[:-1], frame=F, weights=x[-1].square(), hold=[1], hold_at=U0, method=self.method)
        return scalar(vertices(U, F))


class DistanceLoss(nn.Module):
    """Of means, or of means and, in the last row, the roots of their weights."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) == D:
            return etf_distance(x).sin()
        return etf_distance(x[:-1], weights=x[-1].square()).sin()


class PolarLoss(nn.Module):
    def forward(self, A: torch.Tensor) -> torch.Tensor:
        return scalar(polar_factor(A))


class HeadLoss(nn.Module):
    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.head(x, Y)
        return scalar(found) if isinstance(self.head, RunningMeans) else cross_entropy(found, Y)


def trained(make: Callable[..., nn.Module], mode: bool) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = make(num_classes=C, dim=D).double()
    for shift in range(2):
        module(X.roll(shift, 1), Y)
    return module.train(mode)


def shrunk(dim: int, num_classes: int) -> nn.Module:
    return NearestETFHead(dim, num_classes, shrinkage=0.5)


def head_loss(make: Callable[..., nn.Module], mode: bool) -> Callable[[], Loss]:
    module = trained(make, mode)

    return lambda: HeadLoss(copy.deepcopy(module))


WEIGHTED = X[: D + 1, :C].contiguous()
NODES = [
    *((NodeLoss, X[:D, :C].contiguous()), (NodeLoss, COLLAPSED), (PolarLoss, COLLAPSED)),
    (WeightedLoss, WEIGHTED),
]
PRODUCTS = [
    (lambda: NodeLoss("newton-schulz"), X[:D, :C].contiguous()),
    (lambda: NodeLoss("newton-schulz", proximal=False), COLLAPSED),
]
HEADS = (LearnedHead, FixedETFHead, NearestETFHead)
SUBJECTS = {
    "node": NODES,
    "products": PRODUCTS,
    "distance": [(DistanceLoss, WEIGHTED)],
    "eval": [(head_loss(make, False), X) for make in (*HEADS, shrunk)],
    "learned": [(head_loss(LearnedHead, True), X)],
    "fixed": [(head_loss(FixedETFHead, True), X)],
    "nearest": [(head_loss(make, True), X) for make in (NearestETFHead, ClassMeans, shrunk)],
}

# not compiled here, for it takes long; three of them by the statistics of the paper's release
UNCOMPILED = {
    "node": [(lambda: NodeLoss("svd"), X[:D, :C].contiguous()), (lambda: NodeLoss("gram"), X[:D, :C].contiguous())],
    "products": [(lambda: WeightedLoss("newton-schulz"), WEIGHTED)],
    "distance": [(DistanceLoss, COLLAPSED), (ETFDistance, X[:D, :C].contiguous())],
    "eval": [(head_loss(make, False), X) for make in (paper_fixed, paper_nearest)],
    "fixed": [(head_loss(paper_fixed, True), X)],
    "nearest": [(head_loss(make, True), X) for make in (paper_nearest, paper_means)],
}

# --- the modes: what each returns is compared with a reference by name --------------------------------------------


def gradient(f: Loss, x: torch.Tensor, **options) -> torch.Tensor:
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(f(leaf), leaf, **options)[0]


def way(x: torch.Tensor) -> torch.Tensor:
    return WAY[: x.shape[0], : x.shape[1]].contiguous()


def jvp(f: Loss) -> Loss:
    return lambda x: torch.func.jvp(f, (x,), (way(x),))[1]


def compiled(f: Callable, **options) -> Callable:
    torch.compiler.reset()
    return torch.compile(f, backend="aot_eager", **options)


def checkpointed(f: Loss, x: torch.Tensor, *, reentrant: bool) -> torch.Tensor:
    leaf = x.clone().requires_grad_()
    checkpoint(f, leaf, use_reentrant=reentrant).backward()
    return leaf.grad


def under_autocast(f: Loss, x: torch.Tensor) -> torch.Tensor:
    """In float32, for autocast leaves float64 as it is; backward is outside, where PyTorch wants it."""
    leaf = x.float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = f.float()(leaf)
    return torch.autograd.grad(loss, leaf)[0]


def in_inference_mode(f: Loss, x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return f(x)


def twice(f: Loss, x: torch.Tensor) -> torch.Tensor:
    leaf = x.clone().requires_grad_()
    first = torch.autograd.grad(f(leaf), leaf, create_graph=True)[0]
    return torch.autograd.grad((first * way(x)).sum(), leaf)[0]


def hessian(f: Loss, x: torch.Tensor, wrap: Callable = lambda g: g) -> torch.Tensor:
    return (wrap(torch.func.hessian(f))(x) * way(x)).sum((-2, -1))


def dual_numbers(f: Loss, x: torch.Tensor) -> torch.Tensor:
    """By a graph that was compiled for plain numbers."""
    g = compiled(f)
    if not isinstance(f, HeadLoss) or not f.training or isinstance(f.head, LearnedHead):
        g(x)
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(g(forward_ad.make_dual(x, way(x)))).tangent


def exported(f: Loss, x: torch.Tensor) -> torch.Tensor:
    return torch.export.export(f, (x.flip(0).contiguous(),)).module()(x)


MODES = {
    "eager": ("gradient", gradient),
    "autocast": ("rough gradient", under_autocast),
    "inference_mode": ("value", in_inference_mode),
    "double backward": ("curvature", twice),
    "compile": ("gradient", lambda f, x: gradient(compiled(f), x)),
    "compile, fullgraph": ("gradient", lambda f, x: gradient(compiled(f, fullgraph=True), x)),
    "func.grad": ("gradient", lambda f, x: torch.func.grad(f)(x)),
    "func.jacrev": ("gradient", lambda f, x: torch.func.jacrev(f)(x)),
    "func.jacfwd": ("gradient", lambda f, x: torch.func.jacfwd(f)(x)),
    "func.jvp": ("slope", lambda f, x: jvp(f)(x)),
    "func.hessian": ("curvature", hessian),
    "func.vmap": ("value", lambda f, x: torch.vmap(f)(x[None])[0]),
    "compile of func.grad": ("gradient", lambda f, x: compiled(torch.func.grad(f))(x)),
    "compile of func.jvp": ("slope", lambda f, x: compiled(jvp(f))(x)),
    "compile of func.hessian": ("curvature", lambda f, x: hessian(f, x, compiled)),
    "compile, dual numbers": ("slope", dual_numbers),
    "checkpoint, reentrant": ("gradient", lambda f, x: checkpointed(f, x, reentrant=True)),
    "checkpoint, not reentrant": ("gradient", lambda f, x: checkpointed(f, x, reentrant=False)),
    "export": ("value", exported),
    "jit.trace": ("value", lambda f, x: torch.jit.trace(f, (x.flip(0).contiguous(),))(x)),
}


COMPILED = [mode for mode in MODES if mode.startswith("compile")]
OTHERS = [name for name in SUBJECTS if name != "products"]


def reference(kind: str, fresh: Callable[[], Loss], x: torch.Tensor) -> torch.Tensor:
    """By first derivatives in eager mode, and differences of them."""
    if kind == "value":
        return fresh()(x)
    if kind == "curvature":
        step, here = 1e-5 * way(x), fresh()
        if isinstance(here, HeadLoss) and isinstance(here.head, FixedETFHead):
            here(x)  # its bias is held constant by every derivative
            here.eval()
            return (gradient(here, x + step) - gradient(here, x - step)) / 2e-5
        return (gradient(fresh(), x + step) - gradient(fresh(), x - step)) / 2e-5
    slope = gradient(fresh(), x)
    return (slope * way(x)).sum() if kind == "slope" else slope


def outcome(mode: str, fresh: Callable[[], Loss], x: torch.Tensor) -> str:
    kind, run = MODES[mode]
    expected = reference(kind, fresh, x)
    rough = 0.01 if isinstance(fresh(), HeadLoss) else 1e-5  # the logits are a product in bfloat16
    tolerance = {"rough gradient": rough, "curvature": 1e-6}.get(kind, 1e-11)
    try:
        found = run(fresh(), x)
    except Exception:  # which one is the business of PyTorch
        return "error"
    finally:
        torch.compiler.reset()
    return "right" if (found - expected).abs().max() <= tolerance * (1 + expected.abs().max()) else "wrong"


def table() -> dict[tuple[str, str], str]:
    lines = [line for line in etfopt.nn.__doc__.splitlines() if line]
    first, second, last = (i for i, line in enumerate(lines) if line.startswith("===="))
    head = lines[first + 1].split()[1:]
    rows = [line.rsplit(maxsplit=len(head)) for line in lines[second + 1 : last]]
    return {(mode.strip(), column): cell for mode, *cells in rows for column, cell in zip(head, cells, strict=True)}


def test_the_table_names_every_mode_and_subject():
    assert set(table()) == {(mode, subject) for mode in MODES for subject in SUBJECTS}


@pytest.fixture(scope="module")
def compiled_outcomes() -> Callable[[str], dict]:
    """What compilation gives, in a fresh process for each function: what other tests compile takes memory and time."""

    @functools.cache
    def run(name: str) -> dict:
        folders = [str(Path(etfopt.__file__).parents[1]), str(ROOT)]
        script = f"import json; from tests.nn import test_modes; print(json.dumps(test_modes.{name}()))"
        command = [sys.executable, "-c", f"import sys; sys.path[:0] = {folders!r}; {script}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


HESSIAN = "compile of func.hessian"


def compile_products() -> dict:
    """By themselves, for the compiler takes its time over derivatives of so many steps."""
    return compile_subjects(["products"], COMPILED)


def compile_others() -> dict:
    return compile_subjects(OTHERS, [mode for mode in COMPILED if mode != HESSIAN])


def compile_hessians() -> dict:
    """By themselves: they take as long as half of the others."""
    return compile_subjects(OTHERS, [HESSIAN])


def compile_subjects(names: list[str], modes: list[str]) -> dict:
    return {mode: {name: [after(mode, *case) for case in SUBJECTS[name]] for name in names} for mode in modes}


def after(mode: str, fresh: Callable[[], Loss], x: torch.Tensor) -> str:
    """The outcome, if it leaves autograd as it was.

    An exception may hold a guard of PyTorch's dispatcher, which restores what it saved, "no autograd", when Python
    collects the exception, in the midst of something else.
    """
    found = outcome(mode, fresh, x)
    if found == "error":
        gc.collect()
    doubled = 2 * x.clone().requires_grad_()
    return found if doubled.requires_grad else f"{found}, and autograd is off"


def compile_whole() -> dict:
    """Whether transforms of products alone are right in one graph, which their compilation alone does not ask for."""
    loss, x = PRODUCTS[0][0](), PRODUCTS[0][1]
    transforms = {
        "grad": torch.func.grad(loss),
        "jvp": jvp(loss),
        "vmap": lambda x: torch.vmap(torch.func.grad(loss))(x[None])[0],
    }
    found = {name: compiled(f, fullgraph=True)(x) for name, f in transforms.items()}
    alike = {name: bool((found[name] - f(x)).abs().max() <= 1e-11) for name, f in transforms.items()}
    return {"alike": alike, "distance twice": differentiated_twice(compiled(DistanceLoss(), fullgraph=True), x)}


def differentiated_twice(f: Loss, x: torch.Tensor) -> str:
    """What PyTorch says."""
    leaf = x.clone().requires_grad_()
    value = f(leaf)
    slope = torch.autograd.grad(value, leaf, create_graph=True)[0]
    try:
        (value + slope.square().sum()).backward()
    except RuntimeError as error:
        return str(error)
    return "nothing"


def compile_networks() -> dict:
    return {make.__name__: steps_alike(make) for make in HEADS}


@pytest.mark.parametrize("subject", SUBJECTS)
@pytest.mark.parametrize("mode", MODES)
def test_every_cell_of_the_table_is_what_happens(mode, subject, request):
    if mode.startswith("compile"):
        group = "products" if subject == "products" else "hessians" if mode == HESSIAN else "others"
        found = request.getfixturevalue("compiled_outcomes")(f"compile_{group}")[mode][subject]
    else:
        found = [outcome(mode, fresh, x) for fresh, x in SUBJECTS[subject]]
        told = {"right"} if subject == "fixed" and mode.startswith("checkpoint") else {table()[mode, subject]}
        assert {outcome(mode, fresh, x) for fresh, x in UNCOMPILED.get(subject, [])} <= told
    assert set(found) == {table()[mode, subject]}


def test_transforms_of_products_alone_compile_to_one_graph(compiled_outcomes):
    assert compiled_outcomes("compile_whole")["alike"] == {"grad": True, "jvp": True, "vmap": True}


def test_a_compiled_distance_is_differentiable_once_and_says_so(compiled_outcomes):
    assert "does not currently support double backward" in compiled_outcomes("compile_whole")["distance twice"]


@pytest.mark.parametrize("transform", ["grad", "jacrev", "jacfwd", "hessian", "vmap"])
@pytest.mark.parametrize("make", [*STATEFUL, *MEANS])
def test_a_transform_of_a_training_step_raises_before_any_state_has_changed(make, transform):
    module = trained(make, True)
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(RuntimeError):
        getattr(torch.func, transform)(lambda x: module(x, Y).sum())(X[None] if transform == "vmap" else X)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize("how", ["export", "trace"])
@pytest.mark.parametrize("make", [*STATEFUL, *MEANS])
def test_a_training_step_is_not_traced_and_the_remedy_is_named(make, how):
    module = trained(make, True)
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(Exception, match=r"training mode, where it changes its state: call eval\(\) first"):
        torch.export.export(module, (X, Y)) if how == "export" else torch.jit.trace(module, (X, Y))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def steps_alike(make: type[nn.Module]) -> bool:
    """Whether three steps of a compiled network with its head give the gradients and the state of eager mode."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = nn.Sequential(nn.Linear(D, D), nn.Tanh()).double()
    head, twin, alike = trained(make, True), trained(make, True), True
    step = compiled(lambda x: cross_entropy(head(network(x), Y), Y))
    for shift in range(3):
        x = X.roll(shift, 0)
        pairs = [(gradient(step, x), gradient(lambda x: cross_entropy(twin(network(x), Y), Y), x))]
        pairs += [(head.state_dict()[name], value) for name, value in twin.state_dict().items()]
        alike &= all(torch.allclose(a.double(), b.double(), rtol=0, atol=1e-12) for a, b in pairs)
    return alike


@pytest.mark.parametrize("make", HEADS)
def test_a_network_compiles_with_its_head_in_training_and_steps_as_uncompiled(make, compiled_outcomes):
    assert compiled_outcomes("compile_networks")[make.__name__]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("make", HEADS)
def test_on_a_gpu_a_head_trains_as_on_the_cpu_and_a_bad_batch_is_reported_late(make):
    head, twin = trained(make, True), trained(make, True).cuda()
    x, y = X.cuda(), Y.cuda()
    ours = gradient(lambda x: cross_entropy(head(x, Y), Y), X)
    theirs = gradient(lambda x: cross_entropy(twin(x, y), y), x)
    torch.testing.assert_close(theirs.cpu(), ours, rtol=0, atol=1e-10)
    if make is LearnedHead:
        return
    before = copy.deepcopy(twin.state_dict())
    twin(x * torch.nan, y)
    with pytest.raises(etfopt.InputError, match=r"1 batch\(es\) could not be used"):
        twin.eval()
    assert all(torch.equal(value, before[name]) for name, value in twin.state_dict().items())
