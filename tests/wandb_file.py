"""Reads W&B's files, which hold a run that was offline."""

import json
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from holdfast.comparing.wandb_runs import log_records


def read_wandb(path: Path, patience: float = 20.0) -> dict[str, Any]:
    """What a W&B file says of its run, once its writer, a process of its own, has closed it."""
    from wandb.proto import wandb_internal_pb2

    records: list[Any] = []
    deadline = monotonic() + patience
    while monotonic() < deadline and not any(record.HasField("exit") for record in records):
        sleep(0.1)
        records = [
            wandb_internal_pb2.Record.FromString(data) for data in log_records(path.read_bytes())
        ]
    content: dict[str, Any] = {
        "config": {},
        "history": [],
        "summary": {},
        "alerts": [],
        "axes": {},
        "artifacts": {},
    }
    for record in records:
        kind = record.WhichOneof("record_type")
        if kind == "run":
            content.update(
                {
                    key: getattr(record.run, key)
                    for key in ("project", "run_group", "job_type", "display_name", "notes")
                }
            )
            content.update(
                tags=list(record.run.tags), run_id=record.run.run_id, sweep_id=record.run.sweep_id
            )
            content["config"].update(
                {item.key: json.loads(item.value_json) for item in record.run.config.update}
            )
        elif kind == "config":
            content["config"].update(
                {item.key: json.loads(item.value_json) for item in record.config.update}
            )
        elif kind == "history":
            step = {
                "/".join(i.nested_key) or i.key: json.loads(i.value_json)
                for i in record.history.item
            }
            content["history"].append(step)
        elif kind == "alert":
            content["alerts"].append((record.alert.title, record.alert.text))
        elif kind == "summary":
            for item in record.summary.update:
                content["summary"]["/".join(item.nested_key) or item.key] = json.loads(
                    item.value_json
                )
        elif kind == "metric" and record.metric.glob_name:
            content["axes"][record.metric.glob_name] = record.metric.step_metric
        elif kind == "artifact" and record.artifact.type != "run_table":
            content["artifacts"][record.artifact.name] = {
                "type": record.artifact.type,
                "digest": record.artifact.digest,
                "input": record.artifact.use_after_commit,
                "files": {item.path: item.local_path for item in record.artifact.manifest.contents},
            }
        elif kind == "exit":
            content["exit"] = record.exit.exit_code
    return content


def read_table(content: dict[str, Any], file: Path, name: str) -> list[dict[str, Any]]:
    """The rows of a table that a run logged, from the media beside its file."""
    [path] = [step[f"{name}/path"] for step in content["history"] if f"{name}/path" in step]
    table = json.loads((file.parent / "files" / path).read_text())
    return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
