from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from zmask_export.errors import InputError, UsageError
from zmask_export.evaluate.plan import attacks
from zmask_export.evaluate.study import QUICK_IMAGES, QUICK_RESAMPLES, NetworkStudy, load_study

VALUES = [0.1, 0.5, 1]
NETWORK = {
    "bundle": "engines/icnet",
    "model": "icnet",
    "patches": {"Rand": "rand.png", "L": "large.png", "M": "medium.png"},
    "beta": {"files": "series/beta-{value}.png", "values": VALUES},
    "alpha": {"mask": {"files": "series/mask-{value}.png", "values": VALUES}},
}
STUDY = {"about": "one line", "data": "camvid", "networks": {"icnet": NETWORK}}


def write(folder: Path, content: object) -> Path:
    path = folder / "study.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def network(folder: Path) -> NetworkStudy:
    return load_study(write(folder, STUDY)).networks["icnet"]


def test_relative_paths_start_at_the_studys_folder(tmp_path: Path) -> None:
    study = load_study(write(tmp_path, {**STUDY, "data": str(tmp_path / "else")}))
    icnet = study.networks["icnet"]
    assert study.data == tmp_path / "else"
    assert icnet.bundle == tmp_path / "engines" / "icnet"
    assert icnet.patches["L"] == tmp_path / "large.png"
    assert icnet.beta is not None
    assert icnet.beta.path(1) == tmp_path / "series" / "beta-1.0.png"
    assert icnet.beta.path(0.1) == tmp_path / "series" / "beta-0.1.png"


def test_quick_cuts_images_resamples_and_points(tmp_path: Path) -> None:
    quick = load_study(write(tmp_path, STUDY)).quick()
    icnet = quick.networks["icnet"]
    assert (quick.limit, quick.resamples) == (QUICK_IMAGES, QUICK_RESAMPLES)
    assert icnet.beta is not None
    assert icnet.beta.values == icnet.alpha["mask"].values == (0.1, 1.0)
    smaller = load_study(write(tmp_path, {**STUDY, "limit": 1, "resamples": 7})).quick()
    assert (smaller.limit, smaller.resamples) == (1, 7)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"networks": {}}, "networks"),
        ({"networks": {"../up": NETWORK}}, "networks"),
        ({"resamples": 0}, "resamples"),
        ({"colour": "red"}, "colour"),
        ({"networks": {"a": {}}}, "give bundle, model, or both"),
        (
            {"networks": {"a": {"bundle": "b", "detectors": {"images": "x"}}}},
            "detectors need model",
        ),
        ({"networks": {"a": {"bundle": "b", "patches": {"XL": "x.png"}}}}, "XL"),
        ({"networks": {"a": {"bundle": "b", "beta": {"files": "x", "values": [1]}}}}, "{value}"),
        (
            {"networks": {"a": {"bundle": "b", "beta": {"files": "{value}", "values": [1, 1.0]}}}},
            "twice",
        ),
        ({"networks": {"a": {"bundle": "b", "beta": {"files": "{value}", "values": [2]}}}}, "beta"),
    ],
)
def test_a_wrong_study_is_refused_by_field(
    tmp_path: Path, change: dict[str, object], word: str
) -> None:
    with pytest.raises(InputError) as caught:
        load_study(write(tmp_path, {**STUDY, **change}))
    assert word in caught.value.what


def test_a_file_that_is_no_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load_study(tmp_path / "absent.yaml")
    with pytest.raises(InputError, match="not valid YAML"):
        load_study(write(tmp_path, "a: [1"))
    with pytest.raises(InputError, match="is wrong"):
        load_study(write(tmp_path, "just words"))


def test_the_plan_has_what_is_there_and_names_what_is_not(tmp_path: Path) -> None:
    (tmp_path / "series").mkdir()
    for name in ("rand.png", "large.png", "series/beta-0.1.png", "series/beta-1.0.png"):
        (tmp_path / name).touch()
    present, absent = attacks(network(tmp_path))
    assert [a.name for a in present] == ["None", "Rand", "L", "beta 0.1", "beta 1.0"]
    assert [(a.series, a.value) for a in present[2:]] == [
        (None, None), ("beta", 0.1), ("beta", 1.0),
    ]  # fmt: skip
    assert [item.what.removeprefix("patch ") for item in absent] == [
        "S", "M", "beta 0.5", "mask 0.1", "mask 0.5", "mask 1.0",
    ]  # fmt: skip
    whys = {item.what: item.why for item in absent}
    assert whys["patch S"] == "the study names no file for it"
    assert whys["patch beta 0.5"] == "series/beta-0.5.png is not there"
    # Reports travel: they do not say where on this machine a file was looked for.
    assert str(tmp_path) not in "".join(whys.values())


def test_every_cell_has_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "series").mkdir()
    for name in ("large.png", "series/mask-1.0.png", "series/beta-1.0.png"):
        (tmp_path / name).touch()
    present, _ = attacks(network(tmp_path))
    files = [attack.file(subject) for attack in present for subject in attack.subjects]
    assert len(set(files)) == len(files)
    assert "oracle" not in present[0].subjects
    assert "mask-1.0.zmask.safetensors" in files
