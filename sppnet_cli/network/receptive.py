"""Stride, centre and receptive field of a trunk's cells, derived from its layers."""

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

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
    try:
        graph = fx.GraphModule(trunk, _Tracer().trace(trunk))
    except Exception as error:  # noqa: BLE001 - whatever a forward does with what stands for a map
        raise UsageError(f"the trunk's layers cannot be followed ({str(error).splitlines()[0]})") from None
    spans = []
    for axis in (0, 1):
        interpreter = _SpanInterpreter(graph, axis)
        interpreter.extra_traceback = False  # it would be appended to the error's one line
        spans.append(interpreter.run(Span(1, 0.0, 0.0)))
    span = spans[0]
    if not isinstance(span, Span) or span != spans[1]:
        raise UsageError("the trunk's cells are not square: their geometry is not known")
    return Geometry(span.stride, (span.low + span.high) / 2, round(span.high - span.low) + 1)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        known = isinstance(m, _SLIDING + _POINTWISE)
        return known or (not isinstance(m, nn.Sequential) and not list(m.children()))


def _along(value: int | tuple[int, int], axis: int) -> int:
    return value[axis] if isinstance(value, tuple) else value


def _slide(span: Span, layer: Any, axis: int) -> Span:
    if type(layer).__name__.endswith("Same"):  # timm's, padded as TensorFlow does
        raise UsageError(
            f"layer {layer} is padded by the size of its input: the geometry of its cells is not fixed"
        )
    kernel, stride = _along(layer.kernel_size, axis), _along(layer.stride or layer.kernel_size, axis)
    reach = _along(getattr(layer, "dilation", 1), axis) * (kernel - 1)
    if isinstance(layer.padding, str):
        pad = reach // 2 if layer.padding == "same" else 0
    else:
        pad = _along(layer.padding, axis)
    return Span(span.stride * stride, span.low - pad * span.stride, span.high + (reach - pad) * span.stride)


_SLIDING = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
_POINTWISE = (
    nn.BatchNorm2d,
    nn.Dropout,
    nn.GELU,
    nn.Hardsigmoid,
    nn.Hardswish,
    nn.Identity,
    nn.LayerNorm,
    nn.LeakyReLU,
    nn.Linear,
    nn.ReLU,
    nn.ReLU6,
    nn.SiLU,
    nn.Sigmoid,
    WithinChannelLRN,
)
# By the names of their classes, which are timm's and torchvision's: in evaluation they change no number, or each one by itself.
_POINTWISE_NAMES = frozenset(
    {
        "DropPath",
        "GELU",
        "GlobalResponseNorm",
        "HardMish",
        "LayerScale2d",
        "Mish",
        "Permute",
        "StochasticDepth",
        "Swish",
    }
)
_POINTWISE_FUNCTIONS = frozenset(
    {"relu", "relu6", "gelu", "silu", "hardswish", "hardsigmoid", "sigmoid", "tanh"}
)
_MERGES: tuple[Callable[..., Any], ...] = (
    operator.add,
    operator.iadd,
    operator.mul,
    operator.imul,
    torch.cat,
)


_SPLITS = ("split", "chunk")


class _Parts(NamedTuple):
    """Groups of the channels of a map."""

    span: Span


class _SpanInterpreter(fx.Interpreter):
    """Runs a traced trunk on `Span`s along an axis in place of maps; None stands for global context."""

    def __init__(self, graph: fx.GraphModule, axis: int) -> None:
        super().__init__(graph)
        self.axis = axis

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        layer = self.fetch_attr(target)
        span = args[0]
        if span is None or isinstance(layer, nn.AdaptiveAvgPool2d):
            return None
        if isinstance(layer, _SLIDING):
            return _slide(span, layer, self.axis)
        if not isinstance(layer, _POINTWISE) and type(layer).__name__ not in _POINTWISE_NAMES:
            raise UsageError(f"layer {layer} is of a kind whose geometry is not known")
        return span

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = getattr(target, "__name__", str(target))
        if name in _POINTWISE_FUNCTIONS:
            return args[0]
        if name in _SPLITS and isinstance(args[0], Span):
            return _split(args, kwargs, name)
        if target is operator.getitem and isinstance(args[0], _Parts):
            return args[0].span
        if target is operator.getitem and isinstance(args[0], Span) and _whole_maps(args[1]):
            return args[0]
        if target not in _MERGES:
            raise UsageError(f"the trunk calls {name}, whose geometry is not known")
        parts = args[0] if isinstance(args[0], list | tuple) and not isinstance(args[0], Span) else args
        spans = [p for p in parts if isinstance(p, Span)]
        if not spans:
            return None
        if len({s.stride for s in spans}) > 1:
            raise UsageError("the trunk joins maps of different strides: its cells have no single geometry")
        return Span(spans[0].stride, min(s.low for s in spans), max(s.high for s in spans))

    def call_method(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        of = args[0]
        if isinstance(of, Tensor) or of is None:  # a parameter, or what is made of global context
            return of
        axes = kwargs.get("dim", args[1] if len(args) > 1 else None)
        if target == "mean" and isinstance(axes, tuple | list) and set(axes) in ({2, 3}, {-1, -2}):
            return None
        if target in _SPLITS:
            return _split(args, kwargs, target)
        if target in ("mul", "mul_") and not isinstance(args[1], Span):
            return of
        if target in ("contiguous", "permute", *_POINTWISE_FUNCTIONS):
            return of
        raise UsageError(f"the trunk calls {target}, whose geometry is not known")


def _whole_maps(index: Any) -> bool:
    """Whether an index takes some images or channels, and of these all cells."""
    return isinstance(index, tuple) and all(part == slice(None) for part in index[2:])


def _split(args: tuple[Any, ...], kwargs: dict[str, Any], name: str) -> _Parts:
    dimension = kwargs.get("dim", args[2] if len(args) > 2 else 0)
    if dimension not in (1, -3):
        raise UsageError(f"the trunk calls {name} along {dimension}, whose geometry is not known")
    return _Parts(args[0])
