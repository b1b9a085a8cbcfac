"""Stages as values: what their digests follow from, and what a plan makes and uses."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from sppnet_cli import runs
from sppnet_cli.chain import Cost, Part, Resources, Stage, named, path_of, plan
from sppnet_cli.errors import DataError, UsageError
from sppnet_cli.making import build_stage


@dataclass(frozen=True)
class Config:
    number: int = 1


def write(config, inputs, folder, how):
    texts = [path.read_text() for path in sorted(inputs.values()) if path.is_file()]
    (folder / "result.txt").write_text(" ".join([str(config.number), *texts]))
    (folder / "weights.safetensors").write_text("weights")


def never(*_):
    pytest.fail("was built")


@pytest.fixture
def stage(tmp_path):
    """Describes a stage in a folder below `tmp_path / "runs"`."""

    def describe(name, inputs=None, number=1, build=write, **more):
        made = Stage(name, Config(number), inputs or {}, Path(), build, lambda: Cost(1.0, {}), **more)
        return named(made, tmp_path / "runs", name)

    return describe


def make(*stages):
    """Makes them in this order."""
    for each in stages:
        build_stage(each, Resources())


def by_other_code(stage):
    """Lets a run that is there look as if another version had made it."""
    path = stage.folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"code": "0123456789ab", "commit": None}))


def names(stages):
    return [stage.name for stage in stages]


@pytest.fixture
def chain_of(stage, tmp_path):
    """data -> network -> head -> detector, where the detector takes the network too."""
    (tmp_path / "user.txt").write_text("u")

    def describe(**numbers):
        data = stage("data", {"file": tmp_path / "user.txt"}, numbers.get("data", 1))
        network = stage("network", {"data": data}, numbers.get("network", 1))
        head = stage("head", {"network": network}, numbers.get("head", 1))
        inputs = {"network": network, "head": Part(head, "result.txt")}
        return data, network, head, stage("detector", inputs, numbers.get("detector", 1))

    return describe


def test_a_digest_follows_from_name_config_and_inputs_alone(stage, tmp_path):
    first = stage("train", {"data": stage("data")})
    same = [
        replace(first, folder=tmp_path / "elsewhere"),
        replace(first, build=never, cost=never, threads=7, together=True, alone=True, shares="x"),
        replace(first, check=never, unfinished=never),
    ]
    assert {each.digest for each in same} == {first.digest}
    others = [
        stage("test", {"data": stage("data")}),
        stage("train", {"data": stage("data")}, number=2),
        stage("train", {"data": stage("data", number=2)}),
        stage("train", {"images": stage("data")}),
        stage("train"),
        stage("train", {"data": Part(stage("data"), "VOCdevkit")}),
        stage("train", {"data": Part(stage("data"), "caltech101")}),
    ]
    assert len({first.digest, *(each.digest for each in others)}) == 1 + len(others)


def test_what_an_input_is_made_from_decides_too(chain_of):
    _, _, _, detector = chain_of()
    changed = [chain_of(**{name: 2})[-1].digest for name in ("data", "network", "head", "detector")]
    assert len({detector.digest, *changed}) == 5
    assert chain_of()[-1].digest == detector.digest


def test_the_users_files_decide_by_what_they_hold(stage, tmp_path):
    path, moved = tmp_path / "one.txt", tmp_path / "two.txt"
    path.write_text("content")
    moved.write_text("content")
    digests = [stage("train", {"data": each}).digest for each in (path, moved)]
    path.write_text("contenu")
    digests.append(stage("train", {"data": path}).digest)
    assert digests[0] == digests[1] != digests[2]
    images = [stage("train", images=each).digest for each in ((path, moved), (moved, path), (path,))]
    assert len(set(images)) == 3


def test_a_run_that_the_user_names_stands_for_what_it_was_made_from(stage, tmp_path):
    data = stage("data")
    make(replace(data, folder=tmp_path / "mine"))
    assert stage("train", {"data": tmp_path / "mine"}).digest == stage("train", {"data": data}).digest


def test_the_folders_name_is_a_stem_and_the_digest(stage, tmp_path):
    one, two = stage("train"), stage("train", number=2)
    assert one.folder == tmp_path / "runs" / f"train-{one.digest[:8]}"
    assert len(one.digest) == 16
    assert one.folder != two.folder
    make(one, two)
    assert [(each.folder / "result.txt").read_text() for each in (one, two)] == ["1", "2"]


def test_where_inputs_lie(stage, tmp_path):
    data = stage("data")
    given = {"a": data, "b": Part(data, "VOCdevkit"), "c": tmp_path}
    (tmp_path / "x.jpg").touch()
    train = stage("train", given, images=(tmp_path / "x.jpg",))
    assert train.paths() == {"a": data.folder, "b": data.folder / "VOCdevkit", "c": tmp_path}
    assert train.paths().images == (tmp_path / "x.jpg",)
    assert [path_of(each) for each in given.values()] == list(train.paths().values())
    assert train.needs == [data, data]


def test_a_folder_that_the_user_names(stage, tmp_path):
    train = stage("train")
    assert train.at(None) is train
    moved = train.at(tmp_path / "mine")
    assert (moved.folder, moved.digest) == (tmp_path / "mine", train.digest)


def test_a_plan_is_what_is_not_there_inputs_first_and_each_once(chain_of):
    chain = chain_of()
    found = plan([chain[-1], chain[2]])
    assert names(found.to_make) == ["data", "network", "head", "detector"]
    assert found.used == []
    assert names(found.targets) == ["detector", "head"]
    make(*chain[:2])
    found = plan([chain[-1]])
    assert names(found.to_make) == ["head", "detector"]
    assert names(found.used) == ["network"]


def test_what_a_complete_run_was_made_from_is_not_looked_for(chain_of):
    _, network, head, detector = chain = chain_of()
    make(*chain)
    for gone in (network, head):
        for path in gone.folder.iterdir():
            path.unlink()
        gone.folder.rmdir()
    found = plan([detector])
    assert (found.to_make, names(found.used)) == ([], ["detector"])


def test_another_setting_makes_what_follows_from_it_and_nothing_else(chain_of):
    make(*chain_of())
    expected = {
        "data": ["data", "network", "head", "detector"],
        "network": ["network", "head", "detector"],
        "head": ["head", "detector"],
        "detector": ["detector"],
    }
    for name, made in expected.items():
        assert names(plan([chain_of(**{name: 2})[-1]]).to_make) == made


def test_a_folder_that_the_user_named_is_refused_for_another_setting(stage, tmp_path):
    out = tmp_path / "mine"
    make(stage("train").at(out))
    assert plan([stage("train").at(out)]).to_make == []
    for remake in (False, True):
        with pytest.raises(
            UsageError, match=r"mine: made with other settings: number was 1, not 2\. Remove it"
        ):
            plan([stage("train", number=2).at(out)], remake=remake)
    with pytest.raises(UsageError, match="from other sources: data"):
        plan([stage("train", {"data": stage("data")}).at(out)])
    with pytest.raises(UsageError, match="holds the result of train"):
        plan([stage("test").at(out)])


def test_a_file_of_the_users_that_is_missing_is_named_before_anything_is_made(stage, tmp_path):
    data = stage("data", build=never)
    missing = Stage(
        "late", Config(), {"data": data, "head": tmp_path / "gone"}, tmp_path / "late", never, never
    )
    with pytest.raises(DataError, match="gone: no such file or folder"):
        plan([missing])
    assert not list(tmp_path.glob("runs/*"))


@pytest.mark.parametrize(("damage", "message"), [("change", "was changed after"), ("remove", "is missing")])
def test_a_run_that_is_used_is_looked_at(chain_of, damage, message):
    data, network, _, detector = chain_of()
    make(data, network)
    path = network.folder / "weights.safetensors"
    if damage == "change":
        path.write_text("others!")
    else:
        path.unlink()
    with pytest.raises(DataError, match=rf"{path}: {message}"):
        plan([detector])


def test_what_other_code_made_is_used_unless_it_is_to_be_made_anew(chain_of):
    _, network, _, detector = chain = chain_of()
    make(*chain)
    by_other_code(network)
    assert plan([detector]).to_make == []
    # The head was made from that network; the data are of this code.
    assert names(plan([detector], remake=True).to_make) == ["network", "head", "detector"]


def test_of_the_same_code_only_what_is_asked_for_is_made_anew(chain_of):
    _, _, head, detector = chain = chain_of()
    make(*chain)
    found = plan([detector], remake=True)
    assert (names(found.to_make), names(found.used)) == (["detector"], ["network", "head"])
    assert names(plan([head], remake=True).to_make) == ["head"]
    assert names(plan([head, detector], remake=True).to_make) == ["head", "detector"]


def test_a_run_of_no_known_code_is_one_of_other_code(chain_of):
    """Those of before there was a record of it."""
    data, network, *_ = chain_of()
    make(data, network)
    path = data.folder / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["code"], manifest["commit"], manifest["content"]
    path.write_text(json.dumps(manifest))
    assert names(plan([network], remake=True).to_make) == ["data", "network"]


def test_a_run_that_left_something_out_is_tried_again(stage):
    partly = stage("detect", unfinished=lambda run: (run / "left").is_file())
    make(partly)
    assert partly.ready
    (partly.folder / "left").touch()
    assert not partly.ready
    assert plan([partly]).to_make == [partly]


def test_data_are_checked_as_soon_as_they_are_there(stage):
    def refuse():
        raise DataError("too few images")

    data = stage("data")
    train = stage("train", {"data": data}, check=refuse)
    test = stage("test", {"model": train})
    assert names(plan([test]).to_make) == ["data", "train", "test"]
    make(data)
    with pytest.raises(DataError, match="too few images"):
        plan([test])
    make(train)
    assert names(plan([test]).to_make) == ["test"]  # a model that is there needs no data


def test_a_plan_writes_nothing(chain_of, tmp_path):
    plan([chain_of()[-1]])
    assert [path.name for path in tmp_path.iterdir()] == ["user.txt"]
    assert runs.is_run(tmp_path) is False
