"""MLflow: runs/mlflow.db, a database in a file, or the server that `tracker.uri` names.

Uses MLflow's client alone: it adds no tags of its own, reads no git, and sends no usage data. Which
tracked run is this run's is said by a tag with our own id, so that none is made twice, whenever the
connection breaks.
"""

import json
import os
import re
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from repro.tracking import Place

TAG = "repro.id"
PARAMS, METRICS = 100, 1000  # the most of one request
LONGEST = 6000  # characters of a value
REFUSED = r"[^/\w.\- :]"  # in the name of a metric: acc@1


class Adapter:
    def __init__(self, place: Place) -> None:
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        # Seconds, and attempts: by default a silent server is waited for for ten minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        client: Any = import_module("mlflow")  # Any: mypy would read all of it
        runs = place.root / "runs"
        runs.mkdir(exist_ok=True)
        # A path relative to the project, where this process runs: any folder's name will do.
        self.client = client.MlflowClient(place.uri or "sqlite:///runs/mlflow.db")
        found = self.client.get_experiment_by_name(place.project)
        where = None if place.uri else (runs / "mlflow-artifacts").as_uri()
        experiment = (
            found.experiment_id
            if found
            else self.client.create_experiment(place.project, artifact_location=where)
        )
        known = self.client.search_runs([experiment], f"tags.`{TAG}` = '{place.id}'")
        run = (
            known[0]
            if known
            else self.client.create_run(
                experiment, run_name=place.folder.name, tags={TAG: place.id}
            )
        )
        self.id = run.info.run_id
        self.client.update_run(self.id, status="RUNNING")

    def log_params(self, params: dict[str, Any]) -> None:
        entities: Any = import_module("mlflow.entities")
        texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in params.items()}
        values = [entities.Param(key, text[:LONGEST]) for key, text in texts.items()]
        for start in range(0, len(values), PARAMS):
            self.client.log_batch(self.id, params=values[start : start + PARAMS])

    def log_metrics(self, entries: list[dict[str, float]]) -> None:
        entities: Any = import_module("mlflow.entities")
        now = int(time.time() * 1000)
        values = [
            entities.Metric(re.sub(REFUSED, "_", name), value, now, int(entry["step"]))
            for entry in entries
            for name, value in entry.items()
            if name != "step"
        ]
        for start in range(0, len(values), METRICS):
            self.client.log_batch(self.id, metrics=values[start : start + METRICS])

    def log_artifact(self, path: Path, name: str) -> None:
        folder = name.rpartition("/")[0]
        self.client.log_artifact(self.id, str(path), artifact_path=folder or None)

    def finish(self, finished: bool) -> None:
        self.client.set_terminated(self.id, "FINISHED" if finished else "FAILED")
