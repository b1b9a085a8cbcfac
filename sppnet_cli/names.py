"""Names that options of the command line take.  Free of torch, so that `--help` stays quick."""

METHODS = ("spp", "rcnn")

MAP_LAYERS = ("conv4", "conv5")
FC_LAYERS = ("fc6", "fc7")
WINDOW_LAYERS = ("pool5", *FC_LAYERS)
IMAGE_LAYERS = (*MAP_LAYERS, "pool5", "SPP pool5", *FC_LAYERS)

IMAGE_VIEWS = ("full", "crop", "warp")  # of a whole image, for its features

# Views of an image that a network classifies; `evaluation.views` cuts them out.
CROP_VIEWS = ("10", "10central", "1crop")
FULL_VIEWS = ("1full", "8+2full")
MAP_VIEWS = ("maps:10", "maps:96", "maps:96+2full")
VIEWS = CROP_VIEWS + FULL_VIEWS + MAP_VIEWS

SCHEDULES = ("plateau", "steps", "one-cycle")  # of pre-training's learning rate

CAFFE_KINDS = ("zeiler-conv5", "py-faster-rcnn-zf")
DROPOUT_SCALINGS = ("testing", "training")


def caveat(profile: str) -> str:
    """A warning to print beside the numbers of a profile."""
    return " (tiny: means nothing)" if profile == "tiny" else ""
