"""The names that options take are those that the code knows."""

import subprocess
import sys

from sppnet_cli import names


def test_names_load_no_torch():
    code = "import sys, sppnet_cli.names; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_methods_are_the_extractors():
    from sppnet_cli.features.methods import METHODS

    assert tuple(METHODS) == names.METHODS


def test_kinds_of_caffe_models_are_those_that_are_read():
    from sppnet_cli.network.caffe_zf import KINDS

    assert tuple(KINDS) == names.CAFFE_KINDS
