"""The paper profile's numbers, as published, and which fine-tuning schedule a profile takes."""

import pytest

from sppnet_cli.errors import UsageError
from sppnet_cli.features.methods import METHODS
from sppnet_cli.learning.finetune import Schedule
from sppnet_cli.protocols import PAPER, RELEASED
from sppnet_cli.stages.image_svm import RandomSplits
from sppnet_cli.stages.profiles import PROFILES, find_profile

PUBLISHED = PROFILES["paper"]


def schedule(profile, method, protocol):
    return profile.schedule(METHODS[method].protocol_of(protocol))


def test_pre_training_is_as_published():
    recipe = PUBLISHED.recipe
    # SPEC sections 1 and 4: ZF-5 at full width with fc layers of 4,096, 70 epochs of batches of 128 at rate .01.
    assert (PUBLISHED.arch, PUBLISHED.width, PUBLISHED.fc) == ("zf5", 1.0, 4096)
    assert (recipe.sizes, recipe.epochs, recipe.batch, recipe.rate) == ((224,), 70, 128, 0.01)
    assert (recipe.optimizer, recipe.momentum, recipe.weight_decay, recipe.clip) == ("sgd", 0.9, 5e-4, None)
    assert recipe.schedule == "plateau"  # divided by 10 twice, when the error stops falling
    assert recipe.init == "paper"  # N(0, .01)
    assert not recipe.draw_size
    assert not recipe.amp
    assert PUBLISHED.data is None


def test_fine_tuning_is_as_published():
    spp, rcnn = (schedule(PUBLISHED, method, PAPER) for method in ("spp", "rcnn"))
    assert spp == Schedule(((1e-4, 250_000), (1e-5, 50_000)), 1.0, 0.9, 5e-4)
    assert spp.batches == 300_000
    assert schedule(PUBLISHED, "spp", RELEASED).steps == ((1e-3, 30_000), (1e-4, 30_000), (1e-5, 140_000))
    for protocol in (PAPER, RELEASED):
        assert schedule(PUBLISHED, "rcnn", protocol) == rcnn
    assert (rcnn.batches, rcnn.fc8_rate) == (70_000, 10.0)
    assert [rcnn.rate(batch) for batch in (0, 19_999, 20_000, 40_000, 60_000, 69_999)] == [
        1e-3, 1e-3, 1e-4, 1e-5, 1e-6, 1e-6,
    ]  # fmt: skip
    assert PUBLISHED.flip
    assert PUBLISHED.rcnn_finetune == "all"
    assert {name for name, profile in PROFILES.items() if profile.rcnn_finetune == "fc"} == {
        "tiny",
        "mini",
        "pretrained",
    }


def test_tests_are_as_published():
    assert PUBLISHED.splits == RandomSplits(count=10, train=30, test=50)
    assert (PUBLISHED.timing_images, PUBLISHED.detection_images) == (100, None)
    assert PUBLISHED.rcnn_map
    assert PUBLISHED.proposals == "ss-paper"
    assert (PUBLISHED.train_windows, PUBLISHED.test_windows) == (None, None)


@pytest.mark.parametrize("name", ["tiny", "mini", "pretrained"])
def test_the_other_profiles_fine_tune_both_methods_by_their_own_schedule(name):
    profile = PROFILES[name]
    for method in ("spp", "rcnn"):
        assert schedule(profile, method, PAPER) == Schedule(profile.finetune)


def test_an_unknown_profile():
    with pytest.raises(
        UsageError, match="unknown profile 'huge'; choose one of tiny, mini, pretrained, paper"
    ):
        find_profile("huge")
