"""Send a run to MLflow: to runs/mlflow.db, a database in a file, or to the server of `tracker.uri`.

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

from repro.core.layout import RUNS
from repro.tracking import MetricLine, Params, Place

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
        runs = place.root / RUNS
        runs.mkdir(exist_ok=True)
        # A path relative to the project, where this process runs: any folder's name will do.
        self.client = client.MlflowClient(place.uri or "sqlite:///runs/mlflow.db")
        artifacts = None if place.uri else (runs / "mlflow-artifacts").as_uri()
        experiment = self._experiment(place.project, artifacts)
        self.id = self._run(experiment, place)
        self.client.update_run(self.id, status="RUNNING")

    def _experiment(self, project: str, artifacts: str | None) -> str:
        """Return the id of the project's experiment, which is made if it is not there."""
        experiment = self.client.get_experiment_by_name(project)
        if experiment:
            return str(experiment.experiment_id)
        return str(self.client.create_experiment(project, artifact_location=artifacts))

    def _run(self, experiment: str, place: Place) -> str:
        """Return the id of the run that carries our tag; it is made if it is not there."""
        runs = self.client.search_runs([experiment], f"tags.`{TAG}` = '{place.id}'")
        if runs:
            return str(runs[0].info.run_id)
        tags = {TAG: place.id}
        run = self.client.create_run(experiment, run_name=place.folder.name, tags=tags)
        return str(run.info.run_id)

    def log_params(self, params: Params) -> None:
        entities: Any = import_module("mlflow.entities")
        texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in params.items()}
        values = [entities.Param(key, text[:LONGEST]) for key, text in texts.items()]
        for start in range(0, len(values), PARAMS):
            self.client.log_batch(self.id, params=values[start : start + PARAMS])

    def log_metrics(self, lines: list[MetricLine]) -> None:
        entities: Any = import_module("mlflow.entities")
        now = int(time.time() * 1000)
        values = [
            entities.Metric(re.sub(REFUSED, "_", name), value, now, line.step)
            for line in lines
            for name, value in line.values.items()
        ]
        for start in range(0, len(values), METRICS):
            self.client.log_batch(self.id, metrics=values[start : start + METRICS])

    def log_artifact(self, path: Path, name: str) -> None:
        folder = name.rpartition("/")[0]
        self.client.log_artifact(self.id, str(path), artifact_path=folder or None)

    def finish(self, finished: bool) -> None:
        self.client.set_terminated(self.id, "FINISHED" if finished else "FAILED")
