import pandas as pd
import pytest

from sppnet_cli.detection.detector import Detection
from sppnet_cli.detection.shown import Shown

BOX = (0.0, 0.0, 9.0, 9.0)
CALIBRATED = [(-1.0, 0.5), (-0.5, 0.9), (0.5, 0.49)]  # scores and confidences


@pytest.mark.parametrize(
    ("shown", "calibrated", "plain"),
    [
        (Shown(), [True, True, False], [False, False, True]),
        (Shown(min_confidence=0.9), [False, True, False], [False, False, True]),
        (Shown(min_score=-0.5), [False, False, True], [False, False, True]),
        (Shown(min_score=-2.0, min_confidence=0.9), [True, True, True], [True, True, True]),
    ],
)
def test_what_is_shown(shown, calibrated, plain):
    assert [shown(Detection(0, s, BOX, c)) for s, c in CALIBRATED] == calibrated
    assert [shown(Detection(0, s, BOX)) for s, _ in CALIBRATED] == plain
    frame = pd.DataFrame(CALIBRATED, columns=["score", "confidence"])
    assert shown.rows(frame).tolist() == calibrated
    assert shown.rows(frame[["score"]]).tolist() == plain
    assert shown.rows(frame.iloc[:0]).tolist() == []


def test_in_words():
    assert Shown().describe(calibrated=True) == "of confidence 0.5 or more"
    assert Shown().describe(calibrated=False) == "scoring above 0"
    assert Shown(-1.1, 0.3).describe(calibrated=True) == "scoring above -1.1"
