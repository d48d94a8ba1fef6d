"""Status page and certificate as their readers meet them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cli.command import FORGET as ROWS
from demur import UsageError
from demur.data import read_rows
from demur.requests import Ledger, status_json, write_status

HOSTILE = "<script>window.hacked = 1</script> עברית"


@pytest.fixture(scope="module")
def pages(answered_once: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    import shutil

    folder = tmp_path_factory.mktemp("pages")
    shutil.copytree(answered_once, folder / "ledger")
    ledger = Ledger.open(folder / "ledger")
    ledger.add(f"{ROWS}[9:10]", HOSTILE, reason=HOSTILE)
    ledger.reject(5, HOSTILE)
    found = {f"certificate {i}": ledger.certificate(i, folder).with_suffix(".html") for i in (1, 3, 5)}
    return {**found, "status": write_status(ledger)}


PAGES = ["status", "certificate 1", "certificate 3", "certificate 5"]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_asks_for_nothing_and_fits_a_phone(name: str, pages: dict[str, Path], browser: Any) -> None:
    page = browser(pages[name], width=390)
    page.execute_async_script("setTimeout(arguments[0], 100)")
    assert page.get_log("browser") == []
    sent = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    asked = {m["params"]["request"]["url"] for m in sent if m["method"] == "Network.requestWillBeSent"}
    assert asked == {pages[name].resolve().as_uri()}
    assert page.execute_script("return document.documentElement.scrollWidth") <= 390
    assert page.execute_script("return window.hacked") is None
    assert page.execute_script("return document.querySelectorAll('h1').length") == 1


def test_hostile_words_are_shown_as_words(pages: dict[str, Path], browser: Any) -> None:
    for name in ("status", "certificate 5"):
        assert HOSTILE in browser(pages[name]).find_element("tag name", "body").text


def test_the_status_page_shows_the_sequence(pages: dict[str, Path], browser: Any) -> None:
    page = browser(pages["status"])
    assert len(page.find_elements("css selector", "figure svg")) == 2
    labels = page.execute_script("return [...document.querySelectorAll('svg .label')].map(e => e.textContent)")
    assert {"utility", "request 1", "request 2", "request 3"} <= set(labels)
    assert len(page.find_elements("css selector", "tbody tr")) == 5


def test_no_page_quotes_a_row(pages: dict[str, Path]) -> None:
    for row in read_rows(ROWS):
        for page in pages.values():
            assert row["question"] not in page.read_text() and row["answer"] not in page.read_text()


def test_a_ledger_without_requests_has_a_page_too(make_ledger: Any, tmp_path: Path) -> None:
    assert "There are no requests yet." in write_status(make_ledger(), tmp_path / "page.html").read_text()
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write"):
        write_status(make_ledger("other"), tmp_path / "file" / "page.html")


def test_the_status_as_json_has_the_sequence(answered: Ledger) -> None:
    found = json.loads(json.dumps(status_json(answered)))
    assert [r["state"] for r in found["requests"]] == ["done"] * 3 + ["received"]
    assert [s["model"] for s in found["sequence"]] == ["runs/0001/model", "runs/0002/model", "runs/0002/model"]
    assert found["weights_sha256"] == found["sequence"][-1]["weights"]["after"] and found["overdue"] == []
    first = found["requests"][0]
    assert first["forget"]["low"] <= first["forget"]["value"] <= first["forget"]["high"]
