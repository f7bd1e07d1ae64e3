"""The native kernel as a torch operator: what is torch's own, beyond the transformations that both backends have."""

import numpy as np
import pytest
from kernel_cases import assert_gradients, close, draw, needs_native, oracle, oracle_gradients, oracle_jacobian
from tolerances import EXACT64

torch = pytest.importorskip("torch", reason="torch is not installed here")
pytest.importorskip("pyro", reason="pyro is not installed here")
from ugmm_ppl.kernels import for_torch  # noqa: E402

pytestmark = [
    needs_native,
    pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning"),  # torch's own forward mode uses it
]


@pytest.fixture(autouse=True)
def native(monkeypatch):
    """The native kernel is in use."""
    monkeypatch.setenv("UGMM_PPL_KERNEL", "native")


@pytest.fixture
def tensors(rng):
    """Arguments of a batch, and of draws of parameters with one batch, as float64 tensors that want gradients."""
    return [
        [torch.as_tensor(a).requires_grad_() for a in draw(rng, *shape, 2, 3)]
        for shape in (((3,), [()] * 3), ((2,), [(2, 1)] * 3))
    ]


def test_checks_first_and_second_derivatives(tensors):
    """Against finite differences: reverse and forward mode, and batches of gradients, of every kind there is."""
    for arguments in tensors:
        torch.autograd.gradcheck(
            for_torch.activation,
            arguments,
            check_batched_grad=True,
            check_forward_ad=True,
            check_batched_forward_grad=True,
        )
        torch.autograd.gradgradcheck(for_torch.activation, arguments, check_batched_grad=True)


def test_operators_keep_their_promises(tensors):
    """Schema, fake tensors, autograd and compilation with dynamic shapes."""
    for arguments in tensors:
        torch.library.opcheck(torch.ops.ugmm_ppl.activation, arguments)
    out = for_torch.activation(*arguments).detach()
    given = (*arguments, out, torch.ones_like(out), [False, True, False, True])
    torch.library.opcheck(torch.ops.ugmm_ppl.activation_backward, given)


def test_compile_without_a_break_in_the_graph(tensors):
    compiled = torch.compile(lambda *a: 2.0 * for_torch.activation(*a), fullgraph=True)
    for arguments in tensors:
        out = compiled(*arguments)
        found = torch.autograd.grad(out.sum(), arguments)
        plain = [a.detach().numpy() for a in arguments]
        close(out.detach(), 2.0 * oracle(*plain)[0])
        assert_gradients(found, oracle_gradients(plain, 2.0 * np.ones(out.shape)), EXACT64)


def test_batches_of_upstream_gradients(tensors):
    """All three ways to ask for the rows of a Jacobian at once."""
    for arguments in tensors:
        out = for_torch.activation(*arguments)
        rows = torch.eye(out.numel(), dtype=torch.float64).reshape(-1, *out.shape)
        want = oracle_jacobian([a.detach().numpy() for a in arguments])
        ways = [
            torch.autograd.grad(out, arguments, rows, is_grads_batched=True, retain_graph=True),
            torch.vmap(lambda row, out=out, a=arguments: torch.autograd.grad(out, a, row, retain_graph=True))(rows),
            torch.autograd.functional.jacobian(for_torch.activation, tuple(arguments), vectorize=True),
        ]
        for found in ways:
            for one, other, argument in zip(found, want, arguments, strict=True):
                close(one.reshape(*out.shape, *argument.shape), other)


def test_without_gradients(tensors):
    """Of some arguments only, and of none."""
    x, loc, scale, log_weights = tensors[0]
    out = for_torch.activation(x.detach(), loc, scale.detach(), log_weights)
    found = torch.autograd.grad(out.sum(), [loc, log_weights])
    want = oracle_gradients([a.detach().numpy() for a in tensors[0]], np.ones(out.shape))
    close(found[0], want[1])
    close(found[1], want[3])
    for quiet in (torch.no_grad(), torch.inference_mode()):
        with quiet:
            assert not for_torch.activation(x, loc, scale, log_weights).requires_grad


@pytest.mark.parametrize("layout", ["turned", "every second", "repeated", "beginning later"])
@pytest.mark.parametrize("kernel", ["native", "chunked", "reference"])
def test_tensors_of_any_layout(monkeypatch, rng, layout, kernel):
    """The same numbers as with contiguous ones, and gradients of the shapes of the views."""
    monkeypatch.setenv("UGMM_PPL_KERNEL", kernel)
    views = {
        "turned": lambda t: t.mT.contiguous().mT,
        "every second": lambda t: t.repeat_interleave(2, -1)[..., ::2],
        "repeated": lambda t: t[:1].expand(t.shape),
        "beginning later": lambda t: torch.cat([t[:1], t])[1:],
    }
    arguments = [views[layout](torch.as_tensor(a)) for a in draw(rng, (6,), [()] * 3, 6, 21)]
    assert layout == "beginning later" or not any(a.is_contiguous() for a in arguments)
    results = []
    for given in (arguments, [a.clone(memory_format=torch.contiguous_format) for a in arguments]):
        leaves = [a.detach().requires_grad_() for a in given]  # the same storage and strides
        out = for_torch.activation(*leaves)
        results.append([out.detach(), *torch.autograd.grad(out.square().sum(), leaves)])
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=EXACT64, atol=EXACT64)


def test_the_threads_of_torch_do_not_change_activations(rng):
    arguments = [torch.as_tensor(a) for a in draw(rng, (200,), [()] * 3, 30, 50, "float32")]
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(for_torch.activation(*arguments))
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


class Named(torch.Tensor):
    """A subclass that keeps what torch gives every subclass: results are of it too."""


class Counting(torch.Tensor):
    """The example of torch's manual: it hears of every function that its tensors are given to."""

    heard: list = []  # noqa: RUF012

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        cls.heard.append(function)
        return super().__torch_function__(function, types, args, kwargs or {})


@pytest.mark.parametrize("kernel", ["native", "chunked", "reference"])
@pytest.mark.parametrize("which", range(4))
def test_subclasses_hear_of_the_function_once(monkeypatch, tensors, kernel, which):
    """In the place of any argument, by `__torch_function__`; with the numbers and gradients of plain tensors."""
    monkeypatch.setenv("UGMM_PPL_KERNEL", kernel)
    want = for_torch.activation(*tensors[0])
    for kind in (Named, Counting):
        arguments = [a.as_subclass(kind) if i == which else a for i, a in enumerate(tensors[0])]
        Counting.heard.clear()
        out = for_torch.activation(*arguments)
        assert type(out) is kind
        assert Counting.heard == ([for_torch.activation] if kind is Counting else [])
        plain = out.as_subclass(torch.Tensor)
        np.testing.assert_array_equal(plain.detach(), want.detach())
        for one, other in zip(
            torch.autograd.grad(plain.sum(), tensors[0]),
            torch.autograd.grad(want.sum(), tensors[0], retain_graph=True),
            strict=True,
        ):
            np.testing.assert_array_equal(one, other)


def test_modes_hear_of_the_function_once(tensors):
    heard = []

    class Listening(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            heard.append(function)
            return function(*args, **(kwargs or {}))

    with Listening():
        for_torch.activation(*tensors[0])
    assert heard == [for_torch.activation]


class Pair(torch.Tensor):
    """Two tensors that every operator is applied to, by `__torch_dispatch__`; without memory of its own."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, one, other):
        return torch.Tensor._make_wrapper_subclass(cls, one.shape, strides=one.stride(), dtype=one.dtype)

    def __init__(self, one, other):
        self.both = one, other

    @classmethod
    def __torch_dispatch__(cls, operator, types, args=(), kwargs=None):
        def of(i):
            return torch.utils._pytree.tree_map(lambda a: a.both[i] if isinstance(a, Pair) else a, (args, kwargs or {}))

        found = [operator(*of(i)[0], **of(i)[1]) for i in (0, 1)]
        return torch.utils._pytree.tree_map(lambda *a: Pair(*a) if isinstance(a[0], torch.Tensor) else a[0], *found)


@pytest.mark.parametrize("which", range(4))
def test_subclasses_without_memory(tensors, which):
    """In the place of any argument, values and gradients; and torch's own, of shapes alone."""
    plain = [a.detach() for a in tensors[0]]
    sides = [[a + 0.1 * side if i == which else a for i, a in enumerate(plain)] for side in (0, 1)]
    mixed = [Pair(a, b) if i == which else a for i, (a, b) in enumerate(zip(*sides, strict=True))]
    out = for_torch.activation(*(a.requires_grad_() for a in mixed))
    out.sum().backward()
    for side, arguments in enumerate(sides):
        leaves = [a.detach().requires_grad_() for a in arguments]
        want = for_torch.activation(*leaves)
        np.testing.assert_array_equal(out.both[side].detach(), want.detach())
        np.testing.assert_array_equal(mixed[which].grad.both[side], torch.autograd.grad(want.sum(), leaves)[which])
    with torch._subclasses.FakeTensorMode() as mode:
        fake = [mode.from_tensor(a) for a in plain]
    assert for_torch.activation(*fake).shape == out.shape
