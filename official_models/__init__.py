"""Reference models trained with LAMB and LARS."""

from official_models.common import importing, interrupts

interrupts.end_at_once()
importing.explain()
