"""The trainer's half, as Flower starts it: one process for the whole run, beside the SuperLink."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from cloud.errors import CloudError

from .coordinator import Coordinator
from .parent import end_with_parent
from .run_files import RoundRecord, RunFiles

app = ServerApp()
log = logging.getLogger("flwr")


@app.main()  # type: ignore[untyped-decorator] # Flower is in an environment of its own
def main(grid: Grid, context: Context) -> None:
    """Lead the run whose directory the run's configuration names."""
    # Else it could hold the run for ever, and nobody could go on with it.
    end_with_parent()
    files = RunFiles(Path(str(context.run_config["directory"])))
    nodes = json.loads(str(context.run_config["nodes"]))
    members = None if nodes is None else {int(node): tuple(who) for node, who in nodes.items()}
    with files.alone():
        try:
            Coordinator(files, _tell, members).run(grid)
        except CloudError as error:
            files.finish({"error": error.problem, "remedy": error.remedy})
            raise
        except Exception as error:
            files.finish({"error": f"{type(error).__name__}: {error}", "remedy": "see the log"})
            raise
        files.finish({"rounds": len(files.rounds())})


def _tell(record: RoundRecord, rounds: int) -> None:
    log.info("round %d of %d: %d sites", record.round, rounds, len(record.sites))
