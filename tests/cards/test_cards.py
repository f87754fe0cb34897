"""Model cards of small finished runs with known results."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sklearn_metrics

from fastccsa.cards import GUIDELINES, checklist, complete_run_card, facts_of_run, write_export_card, write_run_card
from fastccsa.cards.limits import limits
from fastccsa.cards.text import to_markdown
from fastccsa.collections import Manifest
from fastccsa.evaluation import Selection, score_outputs
from fastccsa.evaluation.outputs import Outputs, make_outputs
from fastccsa.models import ModelCard
from fastccsa.runs.config import TrainConfig
from fastccsa.runs.folder import OUTPUTS_FILE, VALIDATION_OUTPUTS_FILE, open_run, write_scores

CLASSES = ("bcc", "mel", "nv")
DOMAINS = ("HAM", "MSK", "SON")  # SON shows a single class, as the collection of this name does
N = 180
SPLITS = ("train", "validation", "test")
Write = Callable[..., Path]


def outputs(split: str, seed: int = 0) -> Outputs:
    random = np.random.default_rng([seed, len(split)])
    domains = np.arange(N) % 3
    targets = np.where(domains == 2, 2, np.arange(N) // 3 % 3)
    rows = np.arange(N) + N * SPLITS.index(split)
    logits = random.normal(size=(N, 3)) + 1.5 * np.eye(3)[targets]
    return make_outputs(targets, domains, rows, logits, logits, classes=CLASSES, domain_names=DOMAINS, split=split)


def write_manifest(folder: Path, sex: tuple[str, str] = ("female", "male")) -> Path:
    rows = []
    for number, split in enumerate(SPLITS):
        found = outputs(split)
        rows += [
            {
                "image": f"{split}{i}.jpg",
                "label": CLASSES[found.targets[i]],
                "domain": DOMAINS[found.domains[i]],
                "group": f"lesion{number}_{i // 6}_{i % 3}",
                "split": split,
                "sex": sex[i // 4 % 2],
                "site": f"site {i}",
                "device": "one",
            }
            for i in range(N)
        ]
    Manifest(pd.DataFrame(rows), folder).write(folder / "manifest.csv")
    return folder / "manifest.csv"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str = "run", sex: tuple[str, str] = ("female", "male"), **settings) -> Path:
        manifest = write_manifest(tmp_path, sex)
        folder = tmp_path / name
        settings = {"manifest_sha256": hashlib.sha256(manifest.read_bytes()).hexdigest(), **settings}
        open_run(TrainConfig(manifest=str(manifest), out=str(folder), **settings))
        card = ModelCard("resnet18", CLASSES, ("HAM", "SON"), 64, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
        (folder / "model.json").write_text(json.dumps({name: getattr(card, name) for name in (
            "backbone", "classes", "domains", "size", "mean", "std")}))  # fmt: skip
        (folder / "model.safetensors").write_bytes(b"weights")
        outputs("test").write(folder / OUTPUTS_FILE)
        outputs("validation", 1).write(folder / VALIDATION_OUTPUTS_FILE)
        scores = score_outputs(outputs("test"))
        scores = type(scores)("test", CLASSES, scores.domains, Selection("the highest recall", 2, 0.75))
        write_scores(folder, scores)
        return folder

    return write


def cells(text: str, head: str) -> list[list[str]]:
    """Return the rows of the table whose head begins with a text."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {head}"))
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return [rows[0], *rows[2:]]


def test_data_are_counted_from_the_manifest(write: Write) -> None:
    folder = write(exclude=("MSK",))
    data = facts_of_run(folder)["data"]
    table = pd.read_csv(folder.parent / "manifest.csv")
    for split, by_domain in data["counts"].items():
        for domain, by_class in by_domain.items():
            here = table[(table["split"] == split) & (table["domain"] == domain)]
            assert by_class == {name: int((here["label"] == name).sum()) for name in by_class}
    assert data["groups"] == table.groupby("split")["group"].nunique().to_dict()
    assert data["manifest_sha256"] == hashlib.sha256((folder.parent / "manifest.csv").read_bytes()).hexdigest()
    assert data["excluded_domains"] == ["MSK"]


def test_scores_have_intervals_and_agree_with_scikit_learn(write: Write) -> None:
    found, test = facts_of_run(write(exclude=("MSK",)))["performance"], outputs("test")
    for number, name in enumerate(DOMAINS):
        here = test.domains == number
        targets, p = test.targets[here], test.probabilities[here]
        recall, low, high = found["scores"][name]["recall"]
        assert recall == pytest.approx(sklearn_metrics.balanced_accuracy_score(targets, p.argmax(1)), abs=1e-5)
        assert low < recall < high
        if name == "SON":
            assert "auroc" not in found["scores"][name]
        else:
            area = sklearn_metrics.roc_auc_score(targets == 1, p[:, 1])
            assert found["scores"][name]["auroc_positive"][0] == pytest.approx(area, abs=1e-5)
    means = [found["scores"][name]["recall"][0] for name in DOMAINS]
    assert found["scores"]["mean over the domains"]["recall"][0] == pytest.approx(np.mean(means), abs=1e-5)
    assert found["roles"] == {
        "HAM": "training domain", "MSK": "left out of training and selection", "SON": "training domain"
    }  # fmt: skip
    assert "values of the manifest's column 'group'" in found["intervals"]


def test_subgroups_are_the_columns_that_have_several_values(write: Write) -> None:
    found, test = facts_of_run(write())["performance"]["subgroups"], outputs("test")
    assert set(found) == {"sex", "site"}  # device has one value
    assert found["site"] == {"problem": "too many values for a table"}
    sex = np.array([("female", "male")[i // 4 % 2] for i in range(N)])
    recalls = []
    for name in ("female", "male"):
        here = sex == name
        recalls.append(sklearn_metrics.balanced_accuracy_score(test.targets[here], test.predictions[here]))
        assert found["sex"]["images"][name] == here.sum()
        assert found["sex"]["scores"][name]["recall"][0] == pytest.approx(recalls[-1], abs=1e-5)
    gap = found["sex"]["gap"]["recall"]
    assert gap[0] == pytest.approx(max(recalls) - min(recalls), abs=1e-5)
    assert gap[1] < gap[0] < gap[2]


def test_the_text_shows_what_the_facts_say(write: Write) -> None:
    folder = write(exclude=("MSK",), lr=3e-4)
    write_run_card(folder)
    text, facts = (folder / "model_card.md").read_text(), json.loads((folder / "model_card.json").read_text())
    head, *rows = cells(text, "domain | images |")
    assert head[:3] == ["domain", "images", "macro-average recall, %"]
    recall = facts["performance"]["scores"]["MSK"]["recall"]
    (msk,) = [row for row in rows if row[0].startswith("MSK")]
    assert msk[0] == "MSK (left out of training and selection)"
    assert msk[1:3] == ["60", "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * value for value in recall))]
    # MSK was left out: how well it is told from the others is the only number of its table, and of no other domain.
    *_, unseen = (
        row
        for row in cells(
            text.partition("AUROC of telling")[0].rpartition("\n")[2]
            + "AUROC of telling"
            + text.partition("AUROC of telling")[2],
            "domain",
        )
        if row[0] == "MSK"
    )
    area = facts["performance"]["scores"]["MSK"]["unseen_by_energy"]
    assert unseen[1] == "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * value for value in area))
    assert "unseen_by_energy" not in facts["performance"]["scores"]["HAM"]
    assert ["lr", "0.0003"] in cells(text, "setting")
    assert "Selected: epoch 2 of an unknown number, by validation images only: the highest recall (75.0 %)." in text
    assert f"SHA-256 of the weights: {hashlib.sha256(b'weights').hexdigest()}." in text
    assert str(folder.parent) not in text + json.dumps(facts)  # a card is published: no paths of this machine


def test_every_item_of_the_guidelines_is_filled_or_says_what_to_write(write: Write) -> None:
    folder = write()
    write_run_card(folder)
    text = (folder / "model_card.md").read_text()
    titles = {line[3:] for line in text.splitlines() if line.startswith("## ")}
    for name, count, numbers in (("TRIPOD+AI", 52, 27), ("CLAIM 2024", 44, 44)):
        head, *rows = cells(text.partition(f"## {name}\n")[2], "item")
        assert head == ["item", "topic", "state", "see", "to write"]
        assert len(rows) == len(GUIDELINES[name]) == count
        assert len({re.match(r"\d+", row[0])[0] for row in rows}) == numbers
        for _, _, state, see, to_write in rows:
            assert (see == "-") == (state == "open")
            assert (to_write == "-") == (state == "filled")
            assert see == "-" or set(see.split(", ")) <= titles
        assert {row[2] for row in rows} == {"filled", "partly", "open"}


def test_items_are_open_if_the_records_are_missing() -> None:
    entries = {entry.number: entry for entry in checklist("TRIPOD+AI", ("Model",))}
    assert entries["23a"].state == "open"
    assert 'no record for "Scores"' in entries["23a"].write
    assert entries["12b"].state == "partly"


def test_names_from_outside_have_no_effect_in_markdown(write: Write) -> None:
    folder = write(sex=("<script>alert(1)</script>|x", "[male](http://evil.example)"))
    write_run_card(folder)
    text = (folder / "model_card.md").read_text()
    assert "<script>" not in re.sub(r"\\<", "", text)
    assert not re.search(r"(?<!\\)\]\(", text)
    assert "http://" not in text
    assert cells(text, "sex")[1][0] == r"\<script\>alert(1)\</script\>\|x"
    assert json.loads((folder / "model_card.json").read_text())["performance"]["subgroups"]["sex"]["images"]


def test_a_manifest_that_is_gone_leaves_the_scores(write: Write) -> None:
    folder = write()
    (folder.parent / "manifest.csv").unlink()
    facts = facts_of_run(folder)
    assert "counts" not in facts["data"]
    assert facts["performance"]["subgroups"] == {}
    text = to_markdown(facts)
    assert "manifest.csv is not here" in text
    assert any("is not here" in sentence for sentence in limits(facts))


def test_limits_name_small_and_absent_classes(write: Write) -> None:
    found = "\n".join(limits(facts_of_run(write())))
    assert "Fewer than 30 test images: bcc in HAM (20), mel in HAM (20), nv in HAM (20)" in found
    assert "bcc, mel in SON" in found
    assert "nothing can be told apart: SON." in found


def test_a_card_that_is_there_stays(write: Write) -> None:
    folder = write()
    complete_run_card(folder)
    (folder / "model_card.md").write_text("what the authors wrote\n")
    complete_run_card(folder)
    assert (folder / "model_card.md").read_text() == "what the authors wrote\n"


def test_a_broken_run_has_a_warning_instead_of_a_card(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    folder = write()
    (folder / OUTPUTS_FILE).write_bytes(b"no tensors")
    write_run_card(folder)
    assert "has no model card" in caplog.text
    assert not (folder / "model_card.md").exists()


def test_a_model_without_records_has_a_card_too(write: Write) -> None:
    folder = write()
    for name in ("scores.json", "config.json", OUTPUTS_FILE):
        (folder / name).unlink()
    facts = facts_of_run(folder / "model.safetensors")
    text = to_markdown(facts)
    assert "## Scores" not in text
    assert "There are no test outputs beside the model" in text


def test_an_exported_file_has_the_card_of_its_model(write: Write) -> None:
    folder = write()
    path = folder.parent / "a_model.onnx"
    domains = {"HAM": {"difference": 2e-6}, "MSK": {"difference": 3e-6}}
    record = {"input": "none", "agreement": {"compared_on": "validation", "domains": domains}}
    write_export_card(path, facts_of_run(folder), record)
    text = (folder.parent / "a_model.onnx.md").read_text()
    assert "Logits differ from PyTorch's by up to 3.0e-06 on validation images." in text
    assert "## Scores" in text
