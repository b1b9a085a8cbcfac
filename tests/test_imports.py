"""What short commands do not import: each of these libraries takes a third of a second to two seconds."""

import json
import subprocess
import sys

import pytest

from sppnet_cli.data.voc import load_voc

_SLOW = ("torch", "torchvision", "sklearn", "scipy.optimize", "numba", "sympy", "triton", "matplotlib")


def imported(*args, cwd):
    """Which of the slow libraries the command imports."""
    script = (
        "import json, sys\n"
        "from sppnet_cli.cli import main\n"
        f"sys.argv = {['sppnet', *map(str, args)]!r}\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as stop:\n"
        "    assert stop.code == 0\n"
        f"print(json.dumps([name for name in {_SLOW} if name in sys.modules]))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=cwd, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def test_scoring_result_files_takes_no_torch(tiny_data, tmp_path):
    data = tiny_data / "VOCdevkit"
    dataset = load_voc(data, "test")
    for name in dataset.class_names:
        lines = [f"{image_id} 0.5 1 1 20 20\n" for image_id in dataset.ids]
        (tmp_path / f"comp4_det_test_{name}.txt").write_text("".join(lines))
    assert imported("evaluate", "--detections", tmp_path, "--data", data, cwd=tmp_path) == []


@pytest.mark.parametrize("module", ["sppnet_cli.stages.workspace", "sppnet_cli.stages.photos"])
def test_describing_stages_takes_torch_and_numba_alone(module):
    script = (
        f"import json, sys, {module}\nprint(json.dumps([name for name in {_SLOW} if name in sys.modules]))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) == ["torch", "numba"]
