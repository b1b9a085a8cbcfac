import time

import pytest
import torch
from torch.nn import functional as F

from sppnet_cli import libraries as module
from sppnet_cli.errors import UsageError
from sppnet_cli.kernels import linear as kernel
from sppnet_cli.kernels.linear import Linear, linear
from sppnet_cli.libraries import linear_library, use_linear_library

needs_onednn = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this build of torch has no oneDNN"
)
LIBRARIES = ("mkl", pytest.param("onednn", marks=needs_onednn))


@pytest.fixture(autouse=True)
def default_library(monkeypatch):
    """Whatever a test chooses ends with it."""
    monkeypatch.delenv("SPPNET_LINEAR", raising=False)
    module._default.cache_clear()
    yield
    use_linear_library(None)
    module._default.cache_clear()


@pytest.fixture(params=LIBRARIES)
def library(request):
    use_linear_library(request.param)
    return request.param


@pytest.fixture
def onednn(monkeypatch):
    """The shapes that went through oneDNN."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this build of torch has no oneDNN")
    use_linear_library("onednn")
    shapes, product = [], kernel._product

    def spy(x, weight, bias=None):
        shapes.append((*x.shape, len(weight)))
        return product(x, weight, bias)

    monkeypatch.setattr(kernel, "_product", spy)
    return shapes


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def all_products(function, *given):
    """The result and the gradients of all that is given, for gradients of the result that are not all alike."""
    given = [tensor.detach().requires_grad_() for tensor in given]
    result = function(*given)
    gradients = torch.autograd.grad(result, given, numbers(*result.shape, seed=9).to(result.dtype))
    return [result.detach(), *gradients]


def test_by_hand(library):
    x = torch.tensor([[1.0, 2], [0, -1]], requires_grad=True)
    weight = torch.tensor([[3.0, 4], [5, 6], [7, 8]], requires_grad=True)
    bias = torch.tensor([1.0, 0, -1], requires_grad=True)
    result = linear(x, weight, bias)
    assert result.tolist() == [[12, 17, 22], [-3, -6, -9]]
    result.backward(torch.tensor([[1.0, 0, 0], [0, 10, 0]]))
    assert x.grad.tolist() == [[3, 4], [50, 60]]
    assert weight.grad.tolist() == [[1, 2], [0, -10], [0, 0]]
    assert bias.grad.tolist() == [1, 10, 0]


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (1, 70, 3), (5, 1, 4), (7, 33, 1), (128, 320, 102), (300, 1000, 21)]
)
@pytest.mark.parametrize("biased", [True, False])
def test_errors_are_those_of_single_precision(library, shape, biased):
    n, inputs, outputs = shape
    given = [numbers(n, inputs), numbers(outputs, inputs, seed=1), *[numbers(outputs, seed=2)] * biased]
    exact = all_products(F.linear, *(tensor.double() for tensor in given))
    torchs = all_products(F.linear, *given)
    for ours, theirs, truth in zip(all_products(linear, *given), torchs, exact, strict=True):
        assert ours.dtype == torch.float32
        assert ours.shape == truth.shape
        assert ours.is_contiguous()
        error, usual = ((found - truth).square().mean().sqrt() for found in (ours, theirs))
        assert error <= 1.5 * usual + 1e-7 * truth.abs().mean()


def layouts(rows, columns, seed=0):
    """Matrices of that shape that lie in memory in every way."""
    wide = numbers(2 * rows + 1, 3 * columns + 1, seed=seed)
    yield wide[:rows, :columns]
    yield wide[1 : rows + 1, 2 : columns + 2]
    yield wide[: 2 * rows : 2, : 2 * columns : 2]
    yield numbers(columns, rows, seed=seed).T
    yield numbers(columns, 2 * rows, seed=seed)[:, ::2].T
    yield numbers(1, columns, seed=seed).expand(rows, columns)
    yield numbers(rows, 1, seed=seed).expand(rows, columns)


def test_matrices_may_lie_in_any_way(library):
    for x in layouts(6, 35):
        for weight in layouts(9, 35, seed=1):
            ours = all_products(linear, x, weight, numbers(18)[::2])
            exact = all_products(F.linear, x.double(), weight.double(), numbers(18)[::2].double())
            for found, truth in zip(ours, exact, strict=True):
                torch.testing.assert_close(found.double(), truth, rtol=1e-5, atol=1e-5)


def test_no_layout_is_a_slow_one(library):
    """A part of a wider matrix as the weights: oneDNN's reference code would take ten seconds."""
    wide = numbers(1024, 1500)
    for x, weight in ((numbers(512, 1024), wide[:, :1024]), (wide[:512, 7:1031], wide[:, :1024].T)):
        start = time.process_time()
        linear(x, weight)
        assert time.process_time() - start < 1


def test_the_gradient_may_lie_in_any_way(library):
    x, weight = numbers(6, 35), numbers(9, 35, seed=1)
    for gradient in (*layouts(6, 9), torch.ones(()).expand(6, 9)):
        given = [x.clone().requires_grad_(), weight.clone().requires_grad_()]
        of_x, of_weight = torch.autograd.grad(linear(*given), given, gradient)
        torch.testing.assert_close(of_x, (gradient.double() @ weight.double()).float())
        torch.testing.assert_close(of_weight, (gradient.double().T @ x.double()).float())


@pytest.mark.parametrize("shape", [(0, 4, 3), (2, 0, 3), (2, 4, 0)])
def test_empty_matrices(library, shape):
    n, inputs, outputs = shape
    result, *gradients = all_products(linear, numbers(n, inputs), numbers(outputs, inputs), numbers(outputs))
    assert torch.equal(result, numbers(outputs).expand(n, outputs))
    assert [tuple(g.shape) for g in gradients] == [(n, inputs), (outputs, inputs), (outputs,)]


def test_only_the_gradients_that_are_wanted_are_computed(onednn):
    weight = numbers(3, 5).requires_grad_()
    linear(numbers(2, 5), weight).sum().backward()
    assert onednn == [(2, 5, 3), (3, 2, 5)]
    onednn.clear()
    x = numbers(2, 5).requires_grad_()
    linear(x, weight.detach(), numbers(3)).sum().backward()
    assert onednn == [(2, 5, 3), (2, 3, 5)]


def test_an_input_that_changed_before_the_backward_pass_is_noticed(onednn):
    x, weight = numbers(2, 5), numbers(3, 5).requires_grad_()
    result = linear(x, weight)
    x.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        result.sum().backward()


def test_the_layer_keeps_no_graph_where_none_is_wanted(onednn):
    layer = Linear(5, 3)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            result = layer(numbers(2, 5))
        assert not result.requires_grad
        torch.testing.assert_close(result, F.linear(numbers(2, 5), layer.weight, layer.bias).detach())
    assert onednn == [(2, 5, 3)] * 2


def test_the_rest_goes_through_torch(onednn):
    weight = numbers(3, 5)
    for dtype in (torch.bfloat16, torch.float64):
        x, own = numbers(2, 5).to(dtype), weight.to(dtype)
        assert torch.equal(linear(x, own), F.linear(x, own))
    assert torch.equal(linear(numbers(4, 2, 5), weight), F.linear(numbers(4, 2, 5), weight))
    assert linear(numbers(2, 5).to("meta"), weight.to("meta")).shape == (2, 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(numbers(2, 5), weight).dtype == torch.bfloat16
    assert onednn == []
    linear(numbers(2, 5), weight)
    assert onednn == [(2, 5, 3)]


@pytest.mark.parametrize("strict", [True, False])
def test_an_exported_layer_is_plain_torch(onednn, strict):
    given = (numbers(2, 5),)
    rows = {0: torch.export.Dim("rows")}
    program = torch.export.export(Linear(5, 3).eval(), given, dynamic_shapes=(rows,), strict=strict)
    called = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert called == ["aten.linear.default"]
    assert program.module()(numbers(7, 5)).shape == (7, 3)
    assert onednn == []


INTEL = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Xeon(R)\n"
AMD = "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC 9754\n"
ARM = "processor\t: 0\nCPU implementer\t: 0x41\n"


@pytest.mark.parametrize(
    ("cpuinfo", "platform", "expected"),
    [
        (INTEL, "", "mkl"),
        (AMD, "", "onednn"),
        (ARM, "", "mkl"),
        (None, "AMD64 Family 25 Model 33 Stepping 0, AuthenticAMD", "onednn"),
        (None, "Intel64 Family 6 Model 85 Stepping 7, GenuineIntel", "mkl"),
        (None, "arm", "mkl"),
    ],
)
@needs_onednn
def test_the_library_follows_from_the_processor(tmp_path, monkeypatch, cpuinfo, platform, expected):
    monkeypatch.setattr(module, "_CPUS", tmp_path / "cpuinfo")
    monkeypatch.setattr(module.platform, "processor", lambda: platform)
    if cpuinfo is not None:
        (tmp_path / "cpuinfo").write_text(cpuinfo)
    assert linear_library() == expected


def test_without_onednn_there_is_mkl(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_CPUS", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text(AMD)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert linear_library() == "mkl"
    with pytest.raises(UsageError, match="no oneDNN; take mkl"):
        use_linear_library("onednn")


@needs_onednn
@pytest.mark.parametrize("name", ["mkl", "onednn"])
def test_the_library_can_be_set(monkeypatch, name):
    other = "onednn" if name == "mkl" else "mkl"
    monkeypatch.setenv("SPPNET_LINEAR", name)
    assert linear_library() == name
    use_linear_library(other)
    assert linear_library() == other
    use_linear_library(None)
    assert linear_library() == name


@needs_onednn
def test_the_product_of_each_library(monkeypatch):
    x, weight = torch.tensor([[1.0, 2], [0, -1]]), torch.tensor([[3.0, 4]])
    assert {name: product(x, weight).tolist() for name, product in kernel.products().items()} == {
        "mkl": [[11], [-4]],
        "onednn": [[11], [-4]],
    }
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert list(kernel.products()) == ["mkl"]


def test_an_unknown_library(monkeypatch):
    with pytest.raises(UsageError, match="'blis': choose one of onednn, mkl"):
        use_linear_library("blis")
    monkeypatch.setenv("SPPNET_LINEAR", "blis")
    with pytest.raises(UsageError, match="SPPNET_LINEAR 'blis': choose one of onednn, mkl"):
        linear_library()
