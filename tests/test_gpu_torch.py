"""On a CUDA device, what is torch's own: tiles, CUDA graphs, its compiler, memory; `pytest -m gpu`."""

import numpy as np
import pytest
from kernel_cases import draw
from tolerances import GRADIENT32, NETWORK32

import ugmm_ppl as up

torch = pytest.importorskip("torch", reason="torch is not installed here")
pytest.importorskip("pyro", reason="pyro is not installed here")

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")]


@pytest.fixture(autouse=True)
def gpu():
    """Skips where torch sees no GPU."""
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device here")


@pytest.fixture
def leaves(rng):
    arguments = draw(rng, (200,), [()] * 3, 50, 100, "float32")
    return [torch.tensor(a, device="cuda").requires_grad_() for a in arguments]


def by_reference(leaves):
    from ugmm_ppl.kernels import for_torch

    own = [a.detach().double().requires_grad_() for a in leaves]
    out = for_torch._reference(*own)
    return [out.detach(), *torch.autograd.grad(out.sum(), own)]


def assert_close(found, want):
    for one, other in zip(found, want, strict=True):
        assert (one.double() - other).abs().max() <= GRADIENT32 * other.abs().max()


def test_every_tile(leaves, monkeypatch):
    from ugmm_ppl.kernels import for_torch, gpu

    want = by_reference(leaves)
    for kind in ("OF_ACTIVATIONS", "OF_GRADIENTS"):
        for tile in getattr(gpu, kind):
            with monkeypatch.context() as patch:
                patch.setattr(gpu, kind, (tile,))
                out = for_torch.activation(*leaves)
                assert_close([out, *torch.autograd.grad(out.sum(), leaves)], want)


def test_tiles_can_be_measured(leaves, monkeypatch):
    from ugmm_ppl.kernels import for_torch, triton_calls

    monkeypatch.setenv(triton_calls.TUNE, "1")
    monkeypatch.setattr(triton_calls, "_measured", {})
    out = for_torch.activation(*leaves)
    assert_close([out, *torch.autograd.grad(out.sum(), leaves)], by_reference(leaves))
    assert {key[0] for key in triton_calls._measured} == {"forward", "anchor", "gradients"}


def test_a_graph_of_both_passes(leaves):
    """Captured once and replayed on other numbers: nothing waits for the device."""
    from ugmm_ppl.kernels import for_torch

    def step():
        out = for_torch.activation(*leaves)
        return [out.detach(), *torch.autograd.grad(out.sum(), leaves)]

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = step()
    with torch.no_grad():
        leaves[0].mul_(0.5)
    graph.replay()
    torch.cuda.synchronize()
    assert_close(found, by_reference(leaves))


def test_compile_without_a_break_in_the_graph(leaves):
    from ugmm_ppl.kernels import for_torch

    compiled = torch.compile(for_torch.activation, fullgraph=True)
    out = compiled(*leaves)
    assert_close([out.detach(), *torch.autograd.grad(out.sum(), leaves)], by_reference(leaves))


def test_memory():
    """Twice the rows, neurons and inputs take four times the memory, as the arguments do, for eight times the terms."""
    from ugmm_ppl.kernels import for_torch

    def peak(n):
        arguments = [torch.rand(n, n, device="cuda").add_(0.5).requires_grad_() for _ in range(4)]
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        torch.autograd.grad(for_torch.activation(*arguments).sum(), arguments)
        return torch.cuda.max_memory_allocated() - before

    assert peak(2048) < 5 * peak(1024)
    assert peak(1024) < 4 * 2**30 / 16  # a sixteenth of what the terms would take


def test_steps_are_recorded(rng, monkeypatch):
    """A fit launches its steps as graphs, and comes to the same losses as without them."""
    from ugmm_ppl.pyro import programs

    made = []
    record = programs._recorded
    x, y = rng.normal(size=(300, 5)), rng.integers(0, 3, 300)

    def losses():
        settings = {"num_steps": 40, "batch_size": 64, "num_restarts": 2, "clip_norm": 1.0, "progress": False}
        return up.fit(up.Classifier(up.Network((5, 16)), 3), x, y, backend="pyro", device="cuda", **settings).losses

    monkeypatch.setattr(programs, "_recorded", lambda *arguments: made.append(record(*arguments)) or made[-1])
    recorded = losses()
    assert [type(graph).__name__ for graph in made] == ["_Graph"]
    monkeypatch.setattr(programs, "_recorded", lambda *arguments: None)
    np.testing.assert_allclose(recorded, losses(), rtol=NETWORK32)


@pytest.mark.parametrize("found_out", [True, False])
def test_what_waits_for_the_device_is_not_recorded(monkeypatch, found_out):
    """Whether that is found out beforehand or not; what is random comes after it as before."""
    from ugmm_ppl.pyro import programs

    params, twice = {"a": torch.ones(3, device="cuda", requires_grad=True)}, torch.full((3,), 2.0, device="cuda")

    def loss(params, b, waits):
        params["a"].grad = None
        found = (params["a"] * b * torch.randn(3, device="cuda")).sum()
        found.backward()
        return torch.tensor(found.item()) if waits else found.detach()

    def graph_of(waits):
        recorder, results = programs.Recorder(), []
        for _ in range(4):
            torch.cuda.manual_seed_all(7)
            found = recorder(lambda params, b: loss(params, b, waits), params, twice)
            results.append((float(found), params["a"].grad.tolist()))
        assert all(one == results[0] for one in results)
        assert torch.cuda.current_stream() == torch.cuda.default_stream()
        return next(iter(recorder._graphs.values()))

    with monkeypatch.context() as patch:
        if not found_out:
            patch.setattr(programs, "_waits", lambda *arguments: False)
        assert graph_of(waits=True) is None
    assert isinstance(graph_of(waits=False), programs._Graph)
