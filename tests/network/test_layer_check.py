from pathlib import Path

import pytest
import spp_layers as layers
import torch

from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.kernels.pyramid import SPP4, SPP6, SpatialPyramidPooling
from sppnet_cli.network.layer_check import MISTAKES, SIZES, check_layer, load_layer


@pytest.mark.parametrize("layer", [SpatialPyramidPooling(), layers.SideBySide()])
def test_right_ones_pass(layer):
    assert check_layer(layer, SPP6).equal
    assert check_layer(layer, (6, 3, 2, 1)).equal
    assert not check_layer(layer, SPP4).equal


@pytest.mark.parametrize(
    ("name", "mistakes"),
    [
        ("CeilPadding", ("ceil",)),
        ("CeilZeros", ("ceil",)),
        ("FloorKernel", ("floor",)),
        ("FloorSlices", ("floor",)),
        ("Sliding", ("sliding",)),
        ("PowersOfTwo", ("powers",)),
        ("Average", ("average",)),
        ("FoldedBatch", ("batch",)),
        ("MixedBatch", ("batch", "order")),
        ("YoloSPP", ("yolo",)),
        ("Falling", ("order",)),
        ("BinsFirst", ("order",)),
        ("AveragedPowers", ("powers", "average")),
        ("Unknown", ()),
        ("Listed", ()),
    ],
)
def test_mistakes_are_named(name, mistakes):
    check = check_layer(getattr(layers, name)(), SPP6)
    assert not check.equal
    assert check.mistakes == mistakes
    assert set(mistakes) <= set(MISTAKES)


def test_the_sizes_are_all_lengths_square_and_not():
    assert {a for a, b in SIZES if a == b} >= set(range(1, 41))
    for axis in (0, 1):
        assert {size[axis] for size in SIZES if size[0] != size[1]} == set(range(1, 41))
    assert {a < b for a, b in SIZES} == {True, False}


def test_the_bins_that_differ_by_hand():
    class OneWrong(layers.SideBySide):
        def forward(self, x):
            pooled = super().forward(x)
            if x.shape[2:] == (10, 10):
                # Levels 1 and 2 take 1 and 4 bins of 3 channels; channel 2, row 1, column 2 of level 3.
                pooled[-1, 3 * 5 + 2 * 9 + 1 * 3 + 2] += 7
            return pooled

    (finding,) = check_layer(OneWrong(), SPP6).findings
    assert (finding.size, finding.error, finding.shape) == ((10, 10), None, None)
    (wrong,) = finding.bins
    # Thirds of 10 cells are [0, 4), [3, 7) and [6, 10).
    assert (wrong.level, wrong.row, wrong.column, wrong.cells) == (3, 1, 2, (6, 3, 9, 6))
    assert wrong.difference == 7


def test_the_paper_at_10_cells():
    findings = {f.size: f for f in check_layer(layers.Sliding(), SPP6).findings}
    assert (13, 13) not in findings
    # 1, 4 and 9 bins, and 9 x 9 in place of 6 x 6, of 3 channels.
    assert findings[10, 10].shape == (2, 3 * (1 + 4 + 9 + 81))
    assert "stride" in findings[5, 5].error


def test_a_layer_that_is_not_a_number_differs():
    class NotANumber(layers.SideBySide):
        def forward(self, x):
            pooled = super().forward(x)
            pooled[0, 0] = float("nan")
            return pooled

    finding = check_layer(NotANumber(), SPP6).findings[0]
    assert [b.difference for b in finding.bins] == [float("inf")]


@pytest.mark.parametrize("nearly", [lambda x: x + 1e-4, lambda x: x.clamp(min=0)])
def test_nearly_equal_is_not_equal(nearly):
    class Nearly(layers.SideBySide):
        def forward(self, x):
            return nearly(super().forward(x))

    assert not check_layer(Nearly(), SPP6).equal


def write(tmp_path, text):
    path = tmp_path / "layer.py"
    path.write_text(text)
    return path


def test_a_file_that_imports_its_neighbour(tmp_path):
    (tmp_path / "neighbour_of_layer.py").write_text("LEVELS = (1, 2, 3, 6)\n")
    path = write(
        tmp_path,
        "from neighbour_of_layer import LEVELS\nimport torch\nclass A(torch.nn.Module):\n"
        "    def forward(self, x):\n        assert not self.training\n        return x.flatten(1)[:, :len(LEVELS)]\n",
    )
    assert load_layer(path, "A")(torch.zeros(1, 5, 1, 1)).shape == (1, 4)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (
            "import nonsense_that_is_not_there",
            DataError,
            "cannot be run .ModuleNotFoundError: No module named",
        ),
        ("def f(:", DataError, "cannot be run .SyntaxError"),
        ("raise SystemExit", DataError, "cannot be run .SystemExit"),
        ("import torch\nclass B(torch.nn.Module): pass", UsageError, "has no class A; it has B"),
        ("class A:\n    def __init__(self, n): pass", UsageError, r"A\(\) fails .TypeError.*no arguments"),
        ("class A: pass", UsageError, "A is no layer"),
    ],
)
def test_files_that_hold_no_layer(tmp_path, text, error, message):
    with pytest.raises(error, match=message) as caught:
        load_layer(write(tmp_path, text), "A")
    assert "\n" not in str(caught.value)


def test_no_file(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        load_layer(tmp_path / "a.py", "A")
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(DataError, match="not a Python file"):
        load_layer(tmp_path / "a.txt", "A")


def test_the_page_shows_the_layers_that_are_tested():
    source = Path(layers.__file__).read_text()
    blocks = (Path(__file__).parents[2] / "docs" / "is-it-spp.md").read_text().split("```python\n")[1:]
    shown = [block.split("```")[0] for block in blocks]
    assert len(shown) == 8
    assert all(code in source for code in shown)
