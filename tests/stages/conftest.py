"""Makes a run of one stage, as the chain does."""

from pathlib import Path

import pytest

from sppnet_cli.chain import Cost, Resources, Stage
from sppnet_cli.making import build_stage


@pytest.fixture
def make(tmp_path):
    """Makes the run `tmp_path / name` with the build function of a stage, and returns it."""

    def run(
        build,
        config,
        inputs,
        name="run",
        *,
        stage="stage",
        images=(),
        unfinished=None,
        remake=False,
        **resources,
    ) -> Path:
        made = Stage(
            stage,
            config,
            inputs,
            tmp_path / name,
            build,
            cost=lambda: Cost(0.0, {}),
            images=tuple(images),
            unfinished=unfinished,
        )
        how = {"cache": tmp_path / "cache", "cache_gb": 1.0} | resources
        build_stage(made, Resources(**how), remake)
        return made.folder

    return run
