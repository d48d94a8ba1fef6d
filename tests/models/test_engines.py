from __future__ import annotations

from pathlib import Path

import pytest

from demur.errors import UsageError
from demur.models import LocalEngine, OpenAIEngine, load_model, open_engine
from tiny import save_tiny


def test_a_name_with_an_address_is_a_model_on_a_server() -> None:
    engine, known = open_engine("org/model@2@http://localhost:8000/v1/", batch_size=3)
    assert isinstance(engine, OpenAIEngine) and engine.model == "org/model@2"
    assert known == "org/model@2@http://localhost:8000/v1"
    with pytest.raises(UsageError, match="password"):
        open_engine("m@http://me:secret@localhost/v1")


def test_any_other_name_is_a_local_model_told_by_its_weights(tmp_path: Path) -> None:
    save_tiny(tmp_path / "model")
    engine, known = open_engine(str(tmp_path / "model"), batch_size=3)
    assert isinstance(engine, LocalEngine) and engine.batch_size == 3
    assert load_model(tmp_path / "model").weights_hash() in known
