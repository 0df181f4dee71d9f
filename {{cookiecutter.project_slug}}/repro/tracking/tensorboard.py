"""Send a run to TensorBoard: event files in its `tensorboard/`, for `tensorboard --logdir runs`.

Scalars by step, pictures that are PNG files, and files of text. Files of another kind are beside it
in the run's folder, for TensorBoard has no place for them: tensors of checkpoints, and the kit's
curves as SVG, whose numbers are among the scalars.
"""

import json
import struct
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from repro.tracking import MetricLine, Params, Place

LONGEST = 2**20  # bytes of a text or a picture
NOT_SHOWN = (".safetensors", ".svg")
PROTOCOL = "tensorboard.compat.proto"


class Adapter:
    def __init__(self, place: Place) -> None:
        if place.uri:
            raise ValueError("tracker.uri is set, but TensorBoard knows no server")
        # Its own writer: that of torch would load all of torch into this process.
        writer: Any = import_module("tensorboard.summary.writer.event_file_writer")
        self.event: Any = import_module(f"{PROTOCOL}.event_pb2").Event
        self.summary: Any = import_module(f"{PROTOCOL}.summary_pb2")
        self.tensor: Any = import_module(f"{PROTOCOL}.tensor_pb2").TensorProto
        self.writer = writer.EventFileWriter(str(place.folder / "tensorboard"))

    def log_params(self, params: Params) -> None:
        rows = [f"| {key} | {json.dumps(value)} |" for key, value in params.items()]
        self._text("params", "\n".join(["| setting | value |", "|---|---|", *rows]))

    def log_metrics(self, lines: list[MetricLine]) -> None:
        for line in lines:
            values = [
                self.summary.Summary.Value(tag=name, simple_value=value)
                for name, value in line.values.items()
            ]
            self._add(values, line.step)
        self.writer.flush()

    def log_artifact(self, path: Path, name: str) -> None:
        if path.suffix in NOT_SHOWN or path.stat().st_size > LONGEST:
            return
        content = path.read_bytes()
        if path.suffix == ".png":
            width, height = struct.unpack(">II", content[16:24])  # of the header
            image = self.summary.Summary.Image(
                width=width, height=height, colorspace=4, encoded_image_string=content
            )
            self._add([self.summary.Summary.Value(tag=name, image=image)])
        else:
            self._text(name, content.decode("utf-8", "replace"), code=True)

    def _text(self, name: str, text: str, code: bool = False) -> None:
        """Send Markdown; `code` is shown as it stands, each line indented by four spaces."""
        text = "    " + text.replace("\n", "\n    ") if code else text
        plugin = self.summary.SummaryMetadata.PluginData(plugin_name="text")
        value = self.summary.Summary.Value(
            tag=name,
            metadata=self.summary.SummaryMetadata(plugin_data=plugin),
            tensor=self.tensor(dtype="DT_STRING", string_val=[text.encode()]),
        )
        self._add([value])

    def _add(self, values: list[Any], step: int = 0) -> None:
        summary = self.summary.Summary(value=values)
        self.writer.add_event(self.event(wall_time=time.time(), step=step, summary=summary))

    def finish(self, finished: bool) -> None:
        self.writer.close()
