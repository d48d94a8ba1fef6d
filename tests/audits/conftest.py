from __future__ import annotations

import pytest
import torch

from audits.tiny_world import tiny_data, tiny_lm
from demur.data import question_answer
from demur.data.batch import collate
from demur.models import LanguageModel, encode

torch.set_num_threads(1)  # several test processes share the cores


@pytest.fixture(scope="session")
def knowing_lm() -> LanguageModel:
    """The tiny model after it has learnt some of the tiny world: right in part, so that every score says something."""
    lm = tiny_lm("chat", pad_is_end=True, spread=0.2)
    sets = tiny_data().sets
    encoded = [e for n in ("forget", "retain", "real_authors") for e in encode(lm, *question_answer(sets[n]))]
    batch = collate(encoded, lm.pad_id)
    optimizer = torch.optim.AdamW(lm.model.parameters(), lr=1e-2)
    for _ in range(40):
        loss = lm.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    lm.model.eval()
    return lm
