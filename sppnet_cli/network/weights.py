"""Weights on disk: our own network folders, and the state dicts that users bring."""

import argparse
import dataclasses
import re
import shlex
import sys
import warnings
import zipfile
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import redirect_stdout, suppress
from pathlib import Path, PosixPath, PurePosixPath
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sppnet_cli.atomic import atomic_path, write_json
from sppnet_cli.errors import DataError, SppnetError
from sppnet_cli.network.backbones import require_known, weights_prefix
from sppnet_cli.network.sppnet import Head, NetworkSpec, SPPNet
from sppnet_cli.network.timm_trunks import PREFIX as TIMM
from sppnet_cli.network.timm_trunks import published_timm
from sppnet_cli.records import read_json_as

SPEC_FILE = "network.json"
WEIGHTS_FILE = "network.safetensors"
HEAD_FILE = "head.safetensors"
MEAN_FILE = "mean.safetensors"
_LIMITS = {"width": (0.01, 8), "levels": (1, 64), "fc": (0, 65_536), "classes": (0, 1_000_000)}
_MOST_LEVELS = 16
# Where training code keeps a state dict among other things, the likeliest first.
_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "module", "network", "net", "weights")
_PREFIXES = ("module.", "model.", "network.", "net.", "backbone.", "encoder.", "student.", "teacher.")
_DEEPEST = 4  # keys around a state dict
_START = 64  # bytes that tell the format
_LFS = b"version https://git-lfs"
_INSIDE = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})  # anywhere in a name
_FOREIGN_CLASS = re.compile(r"GLOBAL ([\w.]+) was not an allowed global")
_HARMFUL = frozenset(
    {"posix", "nt", "os", "subprocess", "builtins", "sys", "shutil", "importlib", "runpy", "socket"}
)
# Run by the user, who trusts the file: keeps tensors, and the state dicts of modules.
_FROM_PICKLE = (
    'import sys, torch; plain = lambda m: m.state_dict() if hasattr(m, "state_dict") else m; '
    "found = plain(torch.load(sys.argv[1], weights_only=False)); "
    "torch.save({k: plain(v) for k, v in found.items() if isinstance(plain(v), (dict, torch.Tensor))}, sys.argv[2])"
)
_FROM_SCRIPT = "import sys, torch; torch.save(torch.jit.load(sys.argv[1]).state_dict(), sys.argv[2])"
# Plain values that lie beside the weights in the checkpoints of torchvision's references, of timm and others.
_SCALAR = np.float64(0).__reduce__()[0]
_PLAIN_CLASSES: list[Any] = [
    argparse.Namespace, PosixPath, PurePosixPath, defaultdict, dict, list, int, float, np.dtype,
    np.dtypes.Float64DType, np.dtypes.Float32DType, np.dtypes.Int64DType,
    (_SCALAR, "numpy._core.multiarray.scalar"), (_SCALAR, "numpy.core.multiarray.scalar"),
]  # fmt: skip
_OLD_DENSENET = re.compile(r"(?<=\.)(norm|conv)\.([12])(?=\.)")


def save_network(network: SPPNet, folder: Path) -> None:
    """Write `network.json`, `network.safetensors` and, where it has a mean image, `mean.safetensors` into a folder."""
    write_json(folder / SPEC_FILE, dataclasses.asdict(network.spec))
    save_tensors(_plain(network), folder / WEIGHTS_FILE)
    if network.mean_image is not None:
        save_mean_image(network.mean_image, folder)


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a safetensors file atomically, with the mode that the umask gives.

    Raises `SppnetError` naming the file when it cannot be written, on a full disk too.
    """
    with atomic_path(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        try:
            save_file(tensors, temporary)  # by way of a file of its own, readable by its owner alone
        except SafetensorError as error:
            raise OSError(f"{error}") from None
        temporary.chmod(mode)


def load_spec(folder: Path) -> NetworkSpec:
    """The spec of a network folder.  Raises `DataError` where there is none, or one that no network can have."""
    path = folder / SPEC_FILE
    if not path.exists():
        raise DataError(
            f"{folder}: not a network folder (it has no {SPEC_FILE}); name a run of `sppnet pretrain`"
        )
    spec = read_json_as(
        NetworkSpec,
        path,
        remedy="this is not a network folder: name a run of `sppnet pretrain`",
        limits=_LIMITS,
    )
    try:
        require_known(spec.arch)
    except SppnetError as error:
        raise DataError(f"{path}: {error}") from None
    if spec.levels == () or (spec.levels and len(spec.levels) > _MOST_LEVELS):
        raise DataError(f"{path}: a pyramid of {len(spec.levels)} levels; make the network anew")
    return spec


def load_network(folder: Path) -> SPPNet:
    """The network that `save_network` wrote, in evaluation mode.  Raises `DataError` where it is not whole."""
    network = SPPNet(load_spec(folder))
    fill(network, read_state_dict(folder / WEIGHTS_FILE), folder / WEIGHTS_FILE)
    network.mean_image = load_mean_image(folder)
    return network.eval()


def save_mean_image(mean: Tensor, folder: Path) -> None:
    """Write `mean.safetensors`, a mean image `(3, 224, 224)` float32, BGR in 0..255, into an existing folder."""
    save_tensors({"mean": mean.cpu().contiguous()}, folder / MEAN_FILE)


def load_mean_image(folder: Path) -> Tensor | None:
    """The mean image that `save_mean_image` wrote, or None where there is none.  Raises `DataError` for another file."""
    path = folder / MEAN_FILE
    if not path.is_file():
        return None
    state = read_state_dict(path)
    mean = state.get("mean")
    if (
        mean is None
        or mean.shape != (3, 224, 224)
        or mean.dtype != torch.float32
        or not mean.isfinite().all()
    ):
        raise DataError(f"{path}: holds no mean image (3, 224, 224); copy the network as a whole")
    return mean


def save_head(head: Head, folder: Path) -> None:
    """Write `head.safetensors` into an existing folder."""
    save_tensors(_plain(head), folder / HEAD_FILE)


def load_head(folder: Path) -> Head:
    """The head that `save_head` wrote, in evaluation mode."""
    state = read_state_dict(folder / HEAD_FILE)
    if not all(name in state and state[name].ndim == 2 for name in ("fc6.weight", "fc8.weight")):
        raise DataError(f"{folder / HEAD_FILE}: holds no fc6, fc7 and fc8; make it with `sppnet finetune`")
    hidden, inputs = state["fc6.weight"].shape
    head = Head(inputs, hidden, state["fc8.weight"].shape[0])
    fill(head, state, folder / HEAD_FILE)
    return head.eval()


def load_trunk_weights(network: SPPNet, source: str) -> None:
    """Fill the trunk of `network` from a state dict of the whole classifier of torchvision or timm, or of its features.

    `source` is a file (safetensors, or what `torch.save` wrote: never code) or `DEFAULT` for those that torchvision,
    or timm, publishes.  Raises `DataError` with the first differences where the file is of another net.
    """
    path, state = find_weights(network.spec.arch, source)
    fill(network.trunk, _trunk_part(network.trunk, state), path)


def find_weights(arch: str, source: str) -> tuple[Path, dict[str, Tensor]]:
    """A state dict, and the name to call it by in errors: of the file `source`, or published for `arch` (`DEFAULT`)."""
    if source == "DEFAULT":
        return Path(f"{arch} DEFAULT"), _published(arch)
    state = read_state_dict(Path(source))
    if arch.startswith("densenet"):  # the published files are older than the names of its layers
        state = {_OLD_DENSENET.sub(r"\1\2", name): value for name, value in state.items()}
    return Path(source), state


def read_state_dict(path: Path, *, bottomless: Collection[str] = ()) -> dict[str, Tensor]:
    """Tensors by name from a safetensors or torch file, all of them dense and finite.

    What training code wraps around a state dict is taken off: `{"model": ...}` and the like, and the prefixes of
    `DataParallel`, `torch.compile` and others.  No code in the file runs: where it holds objects of a class the error
    names the class and a line that unwraps the weights.  The tensors `bottomless` may hold minus infinity: biases of
    SVMs that never fire.  Raises `DataError` for anything else.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such weights file")
    try:
        with path.open("rb") as file:
            start = file.read(_START)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); check its permissions and the disk"
        ) from None
    try:
        if start[8:9] == b"{":  # of safetensors, after the length of its header
            loaded: Any = load_file(path)
        elif start.startswith(b"PK") and _is_script(path):
            raise DataError(_unwrap(path, "is TorchScript, a program", _FROM_SCRIPT))
        else:
            loaded = _torch_load(path)
    except (DataError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - the unpickler raises anything on what is no weights file
        if found := _FOREIGN_CLASS.search(str(error)):
            if found[1].split(".")[0] in _HARMFUL:
                raise DataError(
                    f"{path}: not a weights file: it would call {found[1]}; get the weights elsewhere"
                ) from None
            raise DataError(_unwrap(path, f"holds a {found[1]}, code that would run", _FROM_PICKLE)) from None
        if start.startswith(_LFS):
            raise DataError(f"{path}: is a pointer of Git LFS; `git lfs pull` gets the weights") from None
        raise DataError(
            f"{path}: not a weights file; give a .safetensors or a torch.save'd state dict"
        ) from None
    state = _unwrapped(loaded, path)
    for name, value in state.items():
        if problem := _unusable(value, name in bottomless):
            raise DataError(
                f"{path}: {name} {problem}; give the weights as they were trained, in floating point"
            )
    return state


def _torch_load(path: Path) -> Any:
    with (
        warnings.catch_warnings(action="ignore"),
        torch.serialization.safe_globals(_PLAIN_CLASSES),
        path.open("rb") as file,  # of a path torch believes the suffix
    ):
        return torch.load(file, map_location="cpu", weights_only=True)


def _is_script(path: Path) -> bool:
    """Whether a zip archive holds code of TorchScript beside its tensors."""
    with suppress(zipfile.BadZipFile, OSError), zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())
    return False


def _unwrap(path: Path, what: str, code: str) -> str:
    """The error for weights inside what must not be loaded, with a line that takes them out."""
    out = f"{path.stem}.weights.pth"
    line = shlex.join(["python", "-c", code, str(path), out])
    return (
        f"{path}: {what}, so it is not loaded; if you trust it, take its weights out ({line}) and give {out}"
    )


def _unwrapped(loaded: Any, path: Path) -> dict[str, Tensor]:
    """The state dict in what a file holds, its names without those of wrappers.  Raises `DataError` for none or several."""
    found = dict(_state_dicts(loaded, ()))
    # The likeliest of several: a training checkpoint also keeps the moments of its optimiser.
    best = min((_rank(place) for place in found), default=0)
    likely = [place for place in found if _rank(place) == best]
    if len(likely) != 1:
        several = ", ".join(".".join(place) for place in likely[:5])
        raise DataError(
            f"{path}: holds {f'the state dicts {several}' if several else 'no state dict (a mapping of names to tensors)'}; "
            "give a file that holds one"
        )
    state = {
        name: value for name, value in found[likely[0]].items() if name != "n_averaged"
    }  # of an averaged model
    state = {".".join(part for part in k.split(".") if part not in _INSIDE): v for k, v in state.items()}
    while prefix := next((p for p in _PREFIXES if state and all(name.startswith(p) for name in state)), None):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _state_dicts(
    value: Any, place: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Mapping[str, Tensor]]]:
    """The mappings of names to tensors in a value and the keys that lead there."""
    if not isinstance(value, Mapping) or not value or not all(isinstance(name, str) for name in value):
        return
    if all(isinstance(each, Tensor) for each in value.values()):
        yield place, value
    elif len(place) < _DEEPEST:
        for name, each in value.items():
            yield from _state_dicts(each, (*place, name))


def _rank(place: tuple[str, ...]) -> int:
    """Of where a state dict lies: the lower, the likelier it holds the weights."""
    return next((k for k, name in enumerate(_WRAPPERS) if name in place), len(_WRAPPERS))


def _unusable(value: Tensor, bottomless: bool) -> str | None:
    """Why a tensor cannot be a weight; counters may be integers."""
    if value.layout != torch.strided or value.is_quantized or value.is_meta:
        return "is sparse, quantised or without values"
    if value.dtype.is_complex:
        return f"is {str(value.dtype).removeprefix('torch.')}"
    if value.dtype.is_floating_point:
        numbers = value.to(torch.float32)
        usable = numbers.isfinite() | numbers.isneginf() if bottomless else numbers.isfinite()
        if usable.all():
            return None
        return "holds NaN, infinity or what float32 cannot hold"
    return None


def fill(module: nn.Module, state: dict[str, Any], path: Path) -> None:
    """Fill all of `module` from a state dict.  Raises `DataError` with the first differences where they do not fit."""
    wanted = module.state_dict()
    differences = [f"{k} is missing" for k in wanted if k not in state]
    differences += [f"{k} is unknown" for k in state if k not in wanted]
    differences += [
        f"{k} is {tuple(state[k].shape)}, not {tuple(v.shape)}"
        for k, v in wanted.items()
        if k in state and state[k].shape != v.shape
    ]
    differences += [
        f"{k} is {str(state[k].dtype).removeprefix('torch.')}, not {str(v.dtype).removeprefix('torch.')}"
        for k, v in wanted.items()
        if k in state and v.dtype.is_floating_point and not state[k].dtype.is_floating_point
    ]
    if differences:
        more = f" (and {len(differences) - 3} more)" if len(differences) > 3 else ""
        raise DataError(f"{path}: weights of another architecture: {'; '.join(differences[:3])}{more}")
    wanted.update(state)  # it carries the version marks by which some nets (MNASNet) load
    module.load_state_dict(wanted)


def _published(arch: str) -> dict[str, Tensor]:
    if arch.startswith(TIMM):
        try:
            return published_timm(arch)
        except Exception as error:  # noqa: BLE001 - its hub raises anything where there is no network
            reason = " ".join(str(error).split())[:200]
            raise DataError(
                f"{arch} DEFAULT: the download failed ({reason}); give a file with --weights"
            ) from None
    try:
        from sppnet_cli.network.torchvision_trunks import published_torchvision

        with redirect_stdout(sys.stderr):  # torch prints where it downloads from
            return published_torchvision(arch)
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{arch} DEFAULT: the download failed ({error}); give a file with --weights"
        ) from None


def _trunk_part(trunk: nn.Sequential, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """What belongs to the trunk in a whole classifier's state dict, under the trunk's own names."""
    prefix, own = weights_prefix(trunk), str(getattr(trunk, "own_prefix", ""))
    parts = {name.removeprefix(own).split(".")[0] for name in trunk.state_dict()}
    inside = prefix or tuple(f"{part}." for part in parts)
    part = {
        own + name.removeprefix(prefix): value for name, value in state.items() if name.startswith(inside)
    }
    # Older files lack these counters, which nothing reads after training.
    counters = {k: v for k, v in trunk.state_dict().items() if k.endswith("num_batches_tracked")}
    return counters | part


def _plain(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}
