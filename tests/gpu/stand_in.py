"""A device that is none: tensors that say they lie on `standin`, and are computed on the CPU.

It shows on any machine what else only a GPU shows: operators on tensors of two devices, NumPy's view of a tensor that is
not in the CPU's memory, kernels that are there for the CPU alone.  Its rounding is the CPU's.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

NAME = "standin"
# Operators that take tensors of two devices: copies, and indices on the CPU.
_COPIES = {torch.ops.aten.copy_, torch.ops.aten._to_copy}
_INDEXED = {torch.ops.aten.index, torch.ops.aten.index_put_, torch.ops.aten._index_put_impl_}


class StandInTensor(torch.Tensor):
    """A tensor of the CPU, `inner`, behind the face of another device's."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), dtype=inner.dtype, device=f"{NAME}:0"
        )

    def __init__(self, inner):
        self.inner = inner

    __torch_function__ = torch._C._disabled_torch_function_impl

    def __repr__(self):
        return f"StandInTensor({self.inner!r})"

    def __reduce_ex__(self, protocol):
        return self.inner.detach().__reduce_ex__(protocol)

    def numpy(self, **_):
        raise TypeError(f"can't convert {NAME}:0 device type tensor to numpy")

    def tolist(self):
        return self.inner.tolist()

    @classmethod
    def __torch_dispatch__(cls, operator, types, args=(), kwargs=None):
        return _compute(operator, args, kwargs or {})


class _Device(TorchDispatchMode):
    """Sees every operator, also those that make a tensor of the device from none of it."""

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        return _compute(operator, args, kwargs or {})


def install():
    """Let there be the device `standin`, for the rest of the process."""
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend(NAME)
    getattr(torch, NAME).manual_seed_all = lambda seed: None  # its random numbers are the CPU's
    getattr(torch, NAME)._is_in_bad_fork = lambda: False
    # Inference mode has no views of tensors of other classes that were made outside of it.
    torch.inference_mode.__enter__ = lambda self: self.__dict__.setdefault("off", torch.no_grad()).__enter__()
    torch.inference_mode.__exit__ = lambda self, *error: self.__dict__["off"].__exit__(*error)
    make = torch.tensor  # which goes past every mode
    torch.tensor = lambda data, device=None, **settings: make(data, **settings).to(device or "cpu")
    _Device().__enter__()


def _compute(operator, args, kwargs):
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    there = [isinstance(tensor, StandInTensor) for tensor in tensors]
    kind = operator.overloadpacket
    if kind in _INDEXED or kind is torch.ops.aten.copy_:
        on_device = there[0]
        allowed = on_device or not any(there) or kind in _COPIES
    else:
        on_device = any(there)
        strangers = [t for t, known in zip(tensors, there, strict=True) if not known and t.ndim]
        allowed = kind in _COPIES or not (on_device and strangers)
    if not allowed:
        raise RuntimeError(f"{operator}: expected all tensors to be on the same device, {NAME}:0 or cpu")
    if kwargs.get("device") is not None:
        on_device = torch.device(kwargs["device"]).type == NAME
        kwargs = {**kwargs, "device": torch.device("cpu") if on_device else kwargs["device"]}
    inner_args, inner_kwargs = tree_map_only(StandInTensor, lambda tensor: tensor.inner, (args, kwargs))
    found = operator(*inner_args, **inner_kwargs)
    if not on_device:
        return found
    given = {id(tensor.inner): tensor for tensor in tensors if isinstance(tensor, StandInTensor)}
    return tree_map_only(
        torch.Tensor,
        lambda tensor: given[id(tensor)] if id(tensor) in given else StandInTensor(tensor),
        found,
    )
