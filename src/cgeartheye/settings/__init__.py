"""Settings: one torch-free file a verb, joined by :mod:`cgeartheye.settings.project`."""
