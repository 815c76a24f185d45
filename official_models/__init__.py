"""Reference models trained with LAMB and LARS."""
