"""Stride, centre and receptive field of a trunk's cells, derived from its layers."""

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import fx, nn
from torchvision.ops import Permute, StochasticDepth

from sppnet_cli.errors import UsageError
from sppnet_cli.kernels.lrn import WithinChannelLRN


class Geometry(NamedTuple):
    """Cell k of a map (0-based) is centred at pixel `stride * k + offset` (0-based) and sees `field` pixels."""

    stride: int
    offset: float
    field: int


class Span(NamedTuple):
    """Cell k sees the pixels `stride*k + low .. stride*k + high`."""

    stride: int
    low: float
    high: float


def geometry_of(trunk: nn.Module) -> Geometry:
    """Geometry of the last map of `trunk`, from the kernels, strides and pads of its convolutions and pools.

    Responses that look at their neighbours only to be normalised (the LRN of ZF-5) count as pointwise, as is
    usual: ZF-5 gives (16, 20, 139).  Parallel branches (Fire modules, residuals) give the envelope of their
    fields; global context (squeeze and excitation) is left out.  Raises `UsageError` for a trunk whose
    layers are not of the kinds known here, or whose branches disagree about the stride.
    """
    interpreter = _SpanInterpreter(fx.GraphModule(trunk, _Tracer().trace(trunk)))
    interpreter.extra_traceback = False  # it would be appended to the error's one line
    span = interpreter.run(Span(1, 0.0, 0.0))
    return Geometry(span.stride, (span.low + span.high) / 2, round(span.high - span.low) + 1)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not isinstance(m, nn.Sequential) and not list(m.children())


def _pair(value: int | tuple[int, int] | None) -> tuple[int, int]:
    if isinstance(value, tuple):
        return value
    assert value is not None
    return (value, value)


def _slide(span: Span, layer: Any) -> Span:
    kernel, stride = _pair(layer.kernel_size), _pair(layer.stride or layer.kernel_size)
    pad, dilation = _pair(layer.padding), _pair(getattr(layer, "dilation", 1))
    if any(a != b for a, b in (kernel, stride, pad, dilation)):
        raise UsageError(f"layer {layer} is not square: the geometry of its cells is not known")
    reach = dilation[0] * (kernel[0] - 1)
    return Span(
        span.stride * stride[0],
        span.low - pad[0] * span.stride,
        span.high + (reach - pad[0]) * span.stride,
    )


_SLIDING = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
_POINTWISE = (
    nn.BatchNorm2d,
    nn.Dropout,
    nn.GELU,
    nn.Hardsigmoid,
    nn.Hardswish,
    nn.Identity,
    nn.LayerNorm,
    nn.Linear,
    nn.ReLU,
    nn.ReLU6,
    nn.SiLU,
    nn.Sigmoid,
    Permute,
    StochasticDepth,
    WithinChannelLRN,
)
_MERGES: tuple[Callable[..., Any], ...] = (
    operator.add,
    operator.iadd,
    operator.mul,
    operator.imul,
    torch.cat,
)


class _SpanInterpreter(fx.Interpreter):
    """Runs a traced trunk on `Span`s in place of tensors; None stands for global context."""

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        layer = self.fetch_attr(target)
        span = args[0]
        if span is None or isinstance(layer, nn.AdaptiveAvgPool2d):
            return None
        if isinstance(layer, _SLIDING):
            return _slide(span, layer)
        if not isinstance(layer, _POINTWISE):
            raise UsageError(f"layer {layer} is of a kind whose geometry is not known")
        return span

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if target not in _MERGES:
            raise UsageError(f"the trunk calls {target.__name__}, whose geometry is not known")
        parts = args[0] if isinstance(args[0], list | tuple) and not isinstance(args[0], Span) else args
        spans = [p for p in parts if isinstance(p, Span)]
        if not spans:
            return None
        if len({s.stride for s in spans}) > 1:
            raise UsageError("the trunk joins maps of different strides: its cells have no single geometry")
        return Span(spans[0].stride, min(s.low for s in spans), max(s.high for s in spans))

    def call_method(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        raise UsageError(f"the trunk calls {target}, whose geometry is not known")
