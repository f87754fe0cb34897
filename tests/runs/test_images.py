from __future__ import annotations

import hashlib
from dataclasses import replace

import pandas as pd
import pytest

from fastccsa.data import Manifest
from fastccsa.runs.images import open_manifest, select_images
from fastccsa.system.errors import InputError


def selected(config):
    return select_images(*open_manifest(config))


def changed(config, tmp_path, change):
    """Return ``config`` for a copy of its manifest whose table is changed by ``change``."""
    manifest = Manifest.read(config.manifest)
    Manifest(change(manifest.table), manifest.folder).write(tmp_path / "changed.csv")
    return replace(config, manifest=str(tmp_path / "changed.csv"))


def test_every_domain_is_used_by_default(make_config) -> None:
    images = selected(make_config())
    assert images.primary == "HAM"
    assert images.domains == ("HAM", "DMF", "SON")
    assert len(images.training) == 45
    assert len(images.validation) == 18
    assert images.selection_rule == (
        "latest epoch within one standard error (11.8 points) of the highest weighted mean validation macro-average "
        "recall over HAM 33 %, DMF 33 %, SON 33 %"
    )
    paper = selected(make_config(selection="paper"))
    assert paper.selection_rule == "highest mean validation macro-average recall over HAM, DMF, SON"


def test_the_primary_domain_only(make_config) -> None:
    config = make_config(n_sec=0, alignment="-")
    images = selected(config)
    for part, split in ((images.training, "train"), (images.validation, "validation")):
        assert set(part.table["domain"]) == {"HAM"}
        assert set(part.table["split"]) == {split}
    assert images.selection_rule == (
        "latest epoch within one standard error (20.4 points) of the highest validation macro-average recall of HAM"
    )
    paper = selected(replace(config, selection="paper"))
    assert paper.selection_rule == "highest mean validation macro-average recall of HAM"


def test_a_domain_whose_validation_images_have_one_class_does_not_select(make_config, tmp_path) -> None:
    def one_class(table):
        return table[(table["domain"] != "SON") | (table["label"] == "nv")]

    images = selected(changed(make_config(), tmp_path, one_class))
    assert images.selection_rule.endswith("over HAM 50 %, DMF 50 %, SON 0 %")


def test_n_sec_reduces_only_secondary_training_images(make_config) -> None:
    images = selected(make_config(n_sec=2))
    assert images.training.summary().loc["HAM", ["nv", "mel", "bcc"]].tolist() == [5, 5, 5]
    assert images.training.summary().loc["SON", ["nv", "mel", "bcc"]].tolist() == [2, 2, 2]
    assert len(images.validation) == 18


def test_an_excluded_domain_is_in_neither_training_nor_selection(make_config) -> None:
    images = selected(make_config(exclude=("DMF",)))
    assert images.domains == ("HAM", "SON")
    for part in (images.training, images.validation):
        assert set(part.table["domain"]) == {"HAM", "SON"}
    assert "DMF" not in images.selection_rule


def test_another_primary_domain(make_config) -> None:
    images = selected(make_config(primary="SON"))
    assert images.domains == ("SON", "DMF", "HAM")


def test_without_ham_the_first_domain_is_primary(make_config, tmp_path) -> None:
    config = changed(make_config(), tmp_path, lambda table: table[table["domain"] != "HAM"])
    assert selected(config).primary == "DMF"


def test_a_run_knows_its_manifest(make_config, manifest_csv, monkeypatch) -> None:
    monkeypatch.chdir(manifest_csv.parent)
    config = replace(make_config(), manifest="manifest.csv")
    opened, manifest = open_manifest(config)
    assert opened.manifest == str(manifest_csv)
    with open(config.manifest, "rb") as file:
        assert opened.manifest_sha256 == hashlib.sha256(file.read()).hexdigest()
    assert len(manifest) == 81


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"primary": "PH2"}, "primary domain 'PH2' is not in .*, which has DMF, HAM, SON"),
        ({"exclude": ("PH2",)}, "exclude domain 'PH2' is not in"),
        ({"exclude": ("HAM",)}, "primary domain HAM cannot be excluded"),
        ({"exclude": ("DMF", "SON")}, "no secondary domain to align HAM with"),
    ],
)
def test_bad_domains_are_errors(make_config, settings, message) -> None:
    with pytest.raises(InputError, match=message):
        selected(make_config(**settings))


def drop(**match: str):
    def change(table: pd.DataFrame) -> pd.DataFrame:
        dropped = pd.Series(True, index=table.index)
        for column, value in match.items():
            dropped &= table[column] == value
        return table[~dropped]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop(domain="SON", split="train"), "domain SON has no train image"),
        (drop(domain="SON", split="validation"), "domain SON has no validation image"),
        (drop(split="test"), "has no test image"),
        (drop(label="bcc", split="train"), "no training image in HAM, DMF, SON shows bcc"),
    ],
)
def test_gaps_in_the_manifest_are_reported_before_training(make_config, tmp_path, change, message) -> None:
    with pytest.raises(InputError, match=message):
        selected(changed(make_config(), tmp_path, change))


def test_a_gap_in_an_excluded_domain_does_not_matter(make_config, tmp_path) -> None:
    config = changed(make_config(exclude=("SON",)), tmp_path, drop(domain="SON", split="train"))
    assert len(selected(config).training) == 30
