"""What setup.cfg cannot say: the experiments lie at the top of the repository and are installed inside of the package."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["sppnet_cli", "sppnet_cli.*"]), "sppnet_cli.experiments"],
    package_dir={"sppnet_cli.experiments": "experiments"},
)
