from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from demur.audits.classifiers.measured import UnlearnSplits
from demur.audits.classifiers.representation_suite import run_representation
from demur.audits.request import AuditRequest
from demur.data.labelled_sources import read_labelled
from demur.editing import edit
from demur.errors import UsageError
from demur.lab.digits import new_resnet
from demur.models import train_classifier
from demur.models.classifier import Classifier
from demur.reports import describe, read_runs, write_report
from demur.reports.representation_view import representation_figures
from demur.runs import RunFolder

DATA, TEST = "digits:train[0:200]", "digits:test[0:100]"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, threes: UnlearnSplits) -> Path:
    """An original, a retrained model and a run whose forgotten class is hidden."""
    root = tmp_path_factory.mktemp("models")
    data = read_labelled(DATA)
    threes_only = (data.labels == 3).nonzero()[:, 0]
    retain = data.subset((data.labels != 3).nonzero()[:, 0])
    made: dict[str, Classifier] = {
        "original": train_classifier(new_resnet(1), data, epochs=8),
        "gold": train_classifier(new_resnet(2), retain, epochs=2),
        "gold2": train_classifier(new_resnet(3), retain, epochs=2),
    }
    for name, model in made.items():
        model.save(root / name)
    masked = edit("head-mask", made["original"], data.subset(threes_only), retain)
    config = {"command": "forget", "task": "image-classification", "model": str(root / "original"), "data": DATA}
    run = RunFolder.create(
        root / "mask", {**config, "test": TEST, "forget": "class:3", "method": "head-mask", "seed": 0}
    )
    masked.save(run.model_path)
    np.save(run.path / "forget.npy", data.ids[threes_only].numpy())
    run.update_state(status="complete")
    return root


@pytest.fixture(scope="module")
def request_(models: Path) -> AuditRequest:
    return AuditRequest(str(models / "mask"), str(models / "gold"), {"other": "digits:test[100:200]"})


def test_a_hidden_class_shows_and_every_number_lands_in_the_folder(request_: AuditRequest, models: Path) -> None:
    told: list[str] = []
    request = replace(request_, settings={"floor": str(models / "gold2"), "layers": "resnet.encoder"})
    folder, reports = run_representation(request, lambda role, *_: told.append(role))
    assert [r.role for r in reports] == ["run", "before", "reference", "ceiling"] == told
    own, before, gold, again = (report.summary for report in reports)
    assert own["cka_original:all"] == pytest.approx(1) and own["cka_retrained:all"] == before["cka_retrained:all"]
    assert (gold["agl"], gold["agr"], gold["h_lr"]) == pytest.approx((1, 1, 1))
    assert own["agl"] > before["agl"] and "knn:other" in own and 0 < again["agr"] < 1
    assert "cka_layer:resnet.encoder" in own
    results = folder.results()
    kept = results[(results["suite"] == "representation") & (results["role"] == "run")].set_index("metric")
    assert kept.loc["knn:forget", "method"] == "exact" and kept.loc["knn:forget", "low"] <= own["knn:forget"]
    assert kept.loc["cka_retrained:other", "n"] == 100 and kept.loc["cka_retrained:forget", "better"] == "higher"
    assert set(folder.samples("representation")["role"]) == {"run", "before", "reference", "ceiling"}  # type: ignore[index]


def test_the_page_shows_it(request_: AuditRequest, models: Path, tmp_path: Path) -> None:
    request = replace(request_, settings={"floor": str(models / "gold2")}, out=tmp_path / "audit")
    folder, reports = run_representation(request)
    (_, caption), (_, other) = representation_figures(read_runs([folder]))
    assert f"{folder.name}: {reports[0].summary['agl']:.2f}, {reports[0].summary['agr']:.2f}" in caption
    assert "retrained: 1.00, 1.00" in caption and "retrained again" in caption and "before" in other
    page = write_report([folder], tmp_path / "page.html").read_text(encoding="utf-8")
    assert "What the features still know" in page and caption.partition(".")[0] in page
    for metric in reports[0].summary:
        assert describe(f"representation/{metric}").definition, metric


def test_what_cannot_be_audited_is_said_in_a_sentence(request_: AuditRequest, models: Path) -> None:
    for request, said in (
        (replace(request_, reference=None), "pass --reference GOLD"),
        (replace(request_, settings={"neighbours": 5}), "has no setting 'neighbours'"),
        (replace(request_, settings={"k": 0}), "k must be at least 1"),
        (replace(request_, settings={"estimator": "best"}), "biased or unbiased"),
        (replace(request_, sources={"retain": TEST}), "'retain' cannot name a downstream set"),
        (replace(request_, settings={"layers": "nowhere"}), "has no module 'nowhere'"),
        (replace(request_, target=str(models / "gold")), "pass --out DIR"),
    ):
        with pytest.raises(UsageError, match=said):
            run_representation(request)
