"""`pytest tests/fuzz --hypothesis-profile=fuzz` fuzzes for minutes; without it, a few fixed examples run."""

from hypothesis import HealthCheck, settings

settings.register_profile("fuzz", deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
