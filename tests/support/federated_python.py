"""Where Flower lives: an environment beside .venv, which `make test` makes."""

from __future__ import annotations

from pathlib import Path

SUPPORT = Path(__file__).parent
ROOT = SUPPORT.parents[1]
PYTHON = ROOT / ".venv-federated" / "bin" / "python"
# A test that asks for it and does not find it fails, with this on top.
if not PYTHON.exists():
    raise RuntimeError(f"{PYTHON}: is not there; `make .venv-federated/installed` makes it")
