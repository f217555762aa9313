"""Training jobs: one module per task."""
