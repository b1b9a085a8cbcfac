import json

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def test_a_detector(sppnet, random_detector, tmp_path):
    import onnxruntime

    code, out, err = sppnet("export", random_detector, "--out", "detector.onnx", "--nms", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert (result["file"], result["opset"]) == ("detector.onnx", 18)
    assert result["inputs"] == {"image": "uint8 (height, width, 3)", "windows": "float32 (windows, 4)"}
    assert list(result["outputs"]) == ["labels", "scores", "boxes"]
    assert result["largest_difference"] < 1e-3
    assert "detections)" in result["compared"][0]
    session = onnxruntime.InferenceSession(tmp_path / "detector.onnx")
    inputs = {"image": np.zeros((60, 90, 3), np.uint8), "windows": np.array([[0, 0, 50, 50]], np.float32)}
    assert [part.ndim for part in session.run(None, inputs)] == [1, 1, 2]


def test_a_network(sppnet, tiny_network, tmp_path):
    code, out, err = sppnet("export", tiny_network, "--out", "network.onnx")
    assert (code, out) == (0, "")
    assert "input images: uint8 (images, height, width, 3)" in err
    assert "output scores: float32 (images, 5)" in err
    assert (
        "in ONNX Runtime, on 1 image of 224 x 310 and 3 images of 240 x 180: scores differ by at most" in err
    )
    assert (tmp_path / "network.onnx").is_file()


def test_nms_is_for_detectors(sppnet, tiny_network):
    code, _, err = sppnet("export", tiny_network, "--nms")
    assert code == 2
    assert "is a network; --nms goes with a detector" in err


def test_no_run(sppnet, tmp_path):
    code, _, err = sppnet("export", tmp_path)
    assert code == 3
    assert "not a network folder" in err
