from __future__ import annotations

from hypothesis import settings

settings.register_profile("without_deadline", deadline=None)  # a busy machine must not fail a test
settings.load_profile("without_deadline")
