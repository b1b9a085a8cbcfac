"""Profiles: the same code with other numbers, from a test of seconds to the paper's experiments."""

from dataclasses import dataclass

from sppnet_cli.data.mini import MINI, TINY, MiniSize
from sppnet_cli.errors import UsageError
from sppnet_cli.learning.finetune import Schedule
from sppnet_cli.learning.pretrain import Recipe
from sppnet_cli.names import caveat
from sppnet_cli.protocols import Protocol
from sppnet_cli.stages.image_svm import RandomSplits


@dataclass(frozen=True)
class Profile:
    """Every number that does not belong to the method."""

    name: str
    about: str
    data: MiniSize | None  # None: the user's data
    arch: str
    width: float  # factor on the numbers of filters
    fc: int  # outputs of fc6 and fc7
    recipe: Recipe
    finetune: tuple[tuple[float, int], ...] | None  # (learning rate, batches); None: the protocol's
    flip: bool  # fine-tune on mirrored images too
    proposals: str  # method
    train_windows: int | None  # per training image; None: all
    test_windows: int | None
    detection_images: tuple[int, int] | None  # of the embedded trainval and test, the first; None: all
    splits: RandomSplits  # of Caltech101
    timing_images: int
    timing_windows: int
    rcnn_map: bool  # whether R-CNN's mAP is measured by default
    threads: int | None  # of each stage, on any machine; None: torch decides
    rcnn_finetune: str = "fc"  # R-CNN fine-tunes the fc layers, on pooled features, or "all" layers

    @property
    def caveat(self) -> str:
        """A warning to print beside its numbers."""
        return caveat(self.name)

    def schedule(self, protocol: Protocol) -> Schedule:
        """The fine-tuning schedule: the profile's, or the protocol's (`Extractor.protocol_of`)."""
        if self.finetune is not None:
            return Schedule(self.finetune)
        return Schedule(protocol.finetune_schedule, protocol.finetune_fc8_rate)


_MINI_RECIPE = Recipe(
    sizes=(224,),
    epochs=12,
    batch=16,
    rate=4e-4,
    schedule="one-cycle",
    init="he",
    clip=5.0,
    optimizer="adam",
    parts=2,
)
_PAPER_RECIPE = Recipe(
    sizes=(224,), epochs=70, batch=128, rate=0.01, schedule="plateau", init="paper", clip=None
)

PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            name="tiny",
            about="a few images and steps, for tests: the numbers mean nothing",
            data=TINY,
            arch="zf5",
            width=0.0625,
            fc=32,
            recipe=Recipe((224,), 1, 8, 0.02, "one-cycle", "he", 5.0),
            finetune=((1e-3, 10), (1e-4, 5)),
            flip=True,
            proposals="ss-fast",
            train_windows=60,
            test_windows=60,
            detection_images=None,
            splits=RandomSplits(count=2, train=2, test=2),
            timing_images=1,
            timing_windows=100,
            rcnn_map=True,
            threads=1,
        ),
        Profile(
            name="mini",
            about="the embedded default: made data, a narrow ZF-5, minutes on two CPU cores",
            data=MINI,
            arch="zf5",
            width=0.25,
            fc=1024,
            recipe=_MINI_RECIPE,
            finetune=((2e-2, 2000), (2e-3, 1000)),
            flip=False,
            proposals="ss-fast",
            train_windows=200,
            test_windows=400,
            detection_images=(400, 360),
            splits=RandomSplits(),
            timing_images=10,
            timing_windows=2000,
            rcnn_map=True,
            threads=1,
        ),
        Profile(
            name="pretrained",
            about="real VOC with a torchvision trunk and its ImageNet weights in place of pre-training",
            data=None,
            arch="squeezenet1_1",
            width=1.0,
            fc=1024,
            recipe=_PAPER_RECIPE,
            finetune=((1e-2, 2000), (1e-3, 700)),
            flip=True,
            proposals="ss-fast",
            train_windows=2000,
            test_windows=2000,
            detection_images=None,
            splits=RandomSplits(),
            timing_images=10,
            timing_windows=2000,
            rcnn_map=False,
            threads=2,
        ),
        Profile(
            name="paper",
            about="everything as published; needs ImageNet, VOC 2007 and a GPU",
            data=None,
            arch="zf5",
            width=1.0,
            fc=4096,
            recipe=_PAPER_RECIPE,
            finetune=None,
            flip=True,
            proposals="ss-paper",
            train_windows=None,
            test_windows=None,
            detection_images=None,
            splits=RandomSplits(),
            timing_images=100,
            timing_windows=2000,
            rcnn_map=True,
            threads=None,
            rcnn_finetune="all",
        ),
    )
}


def find_profile(name: str) -> Profile:
    """The profile called `name`.  Raises `UsageError` for another."""
    if name not in PROFILES:
        raise UsageError(f"unknown profile {name!r}; choose one of {', '.join(PROFILES)}")
    return PROFILES[name]
