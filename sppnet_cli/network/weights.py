"""Weights on disk: our own network folders, and the state dicts that users bring."""

import contextlib
import dataclasses
import json
import re
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision import models

from sppnet_cli.errors import DataError
from sppnet_cli.network.backbones import weights_prefix
from sppnet_cli.network.sppnet import Head, NetworkSpec, SPPNet
from sppnet_cli.network.timm_trunks import PREFIX as TIMM
from sppnet_cli.network.timm_trunks import published_timm

SPEC_FILE = "network.json"
WEIGHTS_FILE = "network.safetensors"
HEAD_FILE = "head.safetensors"
MEAN_FILE = "mean.safetensors"
_OLD_DENSENET = re.compile(r"(?<=\.)(norm|conv)\.([12])(?=\.)")


def save_network(network: SPPNet, folder: Path) -> None:
    """Write `network.json`, `network.safetensors` and, where it has a mean image, `mean.safetensors` into a folder."""
    spec = dataclasses.asdict(network.spec)
    (folder / SPEC_FILE).write_text(json.dumps(spec, indent=2) + "\n")
    save_file(_plain(network), folder / WEIGHTS_FILE)
    if network.mean_image is not None:
        save_mean_image(network.mean_image, folder)


def load_spec(folder: Path) -> NetworkSpec:
    """The spec of a network folder.  Raises `DataError` where there is none."""
    try:
        fields = json.loads((folder / SPEC_FILE).read_text())
        if fields["levels"] is not None:
            fields["levels"] = tuple(fields["levels"])
        return NetworkSpec(**fields)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{folder}: not a network folder ({SPEC_FILE} is missing or broken): {error}"
        ) from None


def load_network(folder: Path) -> SPPNet:
    """The network that `save_network` wrote, in evaluation mode.  Raises `DataError` where it is not whole."""
    network = SPPNet(load_spec(folder))
    fill(network, read_state_dict(folder / WEIGHTS_FILE), folder / WEIGHTS_FILE)
    network.mean_image = load_mean_image(folder)
    return network.eval()


def save_mean_image(mean: Tensor, folder: Path) -> None:
    """Write `mean.safetensors`, a mean image `(3, 224, 224)` float32, BGR in 0..255, into an existing folder."""
    save_file({"mean": mean.cpu().contiguous()}, folder / MEAN_FILE)


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
    save_file(_plain(head), folder / HEAD_FILE)


def load_head(folder: Path) -> Head:
    """The head that `save_head` wrote, in evaluation mode."""
    state = read_state_dict(folder / HEAD_FILE)
    if "fc6.weight" not in state or "fc8.weight" not in state:
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


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors by name from a safetensors or torch file.  Raises `DataError` for anything else."""
    if not path.is_file():
        raise DataError(f"{path}: no such weights file")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # noqa: BLE001 - the unpickler raises anything on what is no weights file
        raise DataError(
            f"{path}: not a weights file; give a .safetensors or a torch.save'd state dict"
        ) from None
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if (
        not isinstance(state, dict)
        or not state
        or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items())
    ):
        raise DataError(f"{path}: holds no state dict (a mapping of names to tensors)")
    return dict(state)


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
        # Through the model, which knows the names that older files use.  torch prints where it downloads from.
        with contextlib.redirect_stdout(sys.stderr):
            return dict(models.get_model(arch, weights="DEFAULT", progress=False).state_dict())
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
