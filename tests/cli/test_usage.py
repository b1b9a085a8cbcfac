"""What the command line says before any work is done."""

import subprocess
import sys

import click
import pytest

from sppnet_cli.cli import _register, app

COMMANDS = (
    "pretrain",
    "propose",
    "extract-features",
    "finetune",
    "train-svm",
    "train-bbox",
    "detect",
    "evaluate",
    "visualize",
    "benchmark",
    "import-weights",
    "data",
    "check-layer",
    "export",
    "runs",
    "doctor",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(sppnet, command):
    code, out, _ = sppnet(command, "--help")
    assert code == 0
    assert out.startswith(f"Usage: sppnet {command}")


def test_every_option_has_a_help_text_and_no_range_an_end_at_none():
    def options_of(command):
        yield from (each for each in command.params if isinstance(each, click.Option))
        for inner in getattr(command, "commands", {}).values():
            yield from options_of(inner)

    _register()
    options = list(options_of(app))
    assert len(options) > 100
    assert [each.name for each in options if not each.help] == []
    assert [
        each.name for each in options if "None" in each.get_help_extra(click.Context(app)).get("range", "")
    ] == []


def test_help_is_quick():
    """Of all commands in one process: none loads what takes long."""
    program = (
        "import sys, time\n"
        "import click\n"
        "from sppnet_cli import cli\n"
        "cli._register()\n"
        "def show(command, names):\n"
        "    command.main([*names, '--help'], 'sppnet', standalone_mode=False)\n"
        "    group, context = command, click.Context(command)\n"
        "    for name in names: group = group.get_command(context, name)\n"
        "    return [[*names, name] for name in getattr(group, 'commands', ())]\n"
        "waiting, count = [[]], 0\n"
        "while waiting:\n"
        "    waiting += show(cli.app, waiting.pop())\n"
        "    count += 1\n"
        "heavy = {'torch', 'cv2', 'pandas', 'numpy', 'rich', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'{heavy} loaded' if heavy or count < 20 else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for command in COMMANDS:
        assert f"Usage: sppnet {command}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["pretrain", "--sizes", "224;180"], 2, "--sizes 224;180: write 224, 224,180 or 180..224"),
        (["pretrain", "--sizes", "224..180"], 2, "--sizes 224..180: write 224, 224,180 or 180..224"),
        (["pretrain", "--pyramid", "plain", "--sizes", "180..224"], 2, "plain takes 224 px only"),
        (["pretrain", "--sizes", "8"], 2, "between 64 and 1024"),
        (["pretrain", "--pyramid", "plain", "--sizes", "224,180"], 2, "plain takes 224 px only"),
        (["detect", "--cascade", "nan"], 2, "nan is not a finite number"),
        (["detect", "--max-memory", "inf"], 2, "inf is not a finite number"),
        (["detect", "--scales", "abc"], 2, "scales 'abc': write 480..1200"),
        (["detect", "--scales", "481..500"], 2, "none fits"),
        (["detect", "--scales", "8"], 2, "--scales 8: scales lie between 64 and 4096 pixels"),
        (["finetune", "--scales", "63,480"], 2, "scales lie between 64 and 4096"),
        (["train-svm", "--scales", "100000"], 2, "scales lie between 64 and 4096"),
        (["detect", "--scales", "480,4097", "--dry-run"], 2, "scales lie between 64 and 4096"),
        (["detect", "--device", "gpu"], 2, "--device gpu: write auto, cpu, cuda, cuda:N or mps"),
        (["detect", "--device", "mps:0"], 2, "--device mps:0: write auto"),
        (["detect", "--proposals", "magic"], 2, "neither ss-fast, ss-paper, edgeboxes nor a run"),
        (["detect", "street.jpg"], 3, "sppnet train DATA"),
        (["detect", "--data", "VOCdevkit"], 3, "sppnet train DATA"),
        (["detect", "--detector", "nowhere", "street.jpg"], 3, "nowhere: not a detector"),
        (["propose", "--data", "nowhere"], 3, "nowhere: no such folder"),
        (["pretrain", "--profile", "paper"], 3, "needs a network"),
        (["pretrain", "--arch", "resnet999"], 2, "unknown architecture"),
        (["pretrain", "--arch", "squeezenet1_1"], 3, "give --weights FILE or DEFAULT"),
        (["propose", "--profile", "pretrained"], 3, "needs VOC 2007"),
        (["evaluate"], 2, "give --detections, --classifier or --network"),
        (["nonsense"], 2, "No such command"),
    ],
)
def test_a_wrong_call_is_one_line_and_leaves_nothing(sppnet, tmp_path, arguments, code, message):
    found, out, err = sppnet(*arguments)
    assert (found, out) == (code, "")
    assert message in err
    assert "Traceback" not in err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("exact", [True, False])
def test_mps_is_taken_where_it_pools_exactly(monkeypatch, exact):
    import torch

    from sppnet_cli.cli.options import find_device
    from sppnet_cli.errors import DataError
    from sppnet_cli.network import self_test

    asked = []

    def test(device):
        asked.append(device)
        if not exact:
            raise DataError("fails its self-test")

    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(self_test, "require_exact_pooling", test)
    if exact:
        assert find_device("mps") == "mps"
    else:
        with pytest.raises(DataError, match="self-test"):
            find_device("mps")
    assert asked == ["mps"]
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(DataError, match="finds no MPS device; use --device cpu"):
        find_device("mps")
