"""What the service counts: figures for Prometheus, and the last batches for the status page."""

from collections import Counter as Tally
from collections import deque
from collections.abc import Mapping
from time import time
from typing import Any, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from holdfast.tta.step import Mode

#: Batches that the status page shows.
SHOWN = 600
#: What it shows of each.
KEPT = ("batch", "R", "drift", "entropy", "verdict", "mode", "choice", "served_by", "skipped")
#: Bounds of latency in seconds, from a small network's to a large one's on a busy machine.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Figures:
    """Counters and gauges of one service, in a registry of its own.

    Attributes:
        batches: the last ones, as rows of the trace.
        images: that were answered since this process began.
        skips: batches that taught nothing, by the reason.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter(
            "holdfast_requests", "Requests by path and status.", ["path", "status"], **own
        )
        self.latency = Histogram(
            "holdfast_latency_seconds", "From request to answer.", ["path"], buckets=_SECONDS, **own
        )
        self.step = Histogram(
            "holdfast_batch_seconds", "To serve a batch and learn from it.", buckets=_SECONDS, **own
        )
        self.size = Histogram("holdfast_batch_images", "Images of a batch.", buckets=_SIZES, **own)
        self.queue = Gauge("holdfast_queue_images", "Images that wait.", **own)
        self.served = Counter("holdfast_images", "Images by who answered.", ["served_by"], **own)
        self.skipped = Counter(
            "holdfast_skipped_batches", "Batches that taught nothing.", ["reason"], **own
        )
        self.alarms = Counter("holdfast_alarms", "Alarms of the guard.", **own)
        self.mode = Gauge(
            "holdfast_mode", "The guard's mode: 1 for the one it is in.", ["mode"], **own
        )
        self.separation = Gauge("holdfast_separation_ratio", "R, adapted against control.", **own)
        self.drift = Gauge("holdfast_marginal_drift", "Drift of the predicted mix.", **own)
        self.labels = Counter("holdfast_labels", "Labels that were posted.", **own)
        self.saved = Gauge(
            "holdfast_checkpoint_timestamp_seconds", "Of the last checkpoint.", **own
        )
        self.batches: deque[dict[str, Any]] = deque(maxlen=SHOWN)
        self.images = 0
        self.skips: Tally[str] = Tally()
        self.began = time()

    def add(self, row: Mapping[str, Any], images: int, seconds: float) -> None:
        """Take in a batch.

        Args:
            row: of the trace, by the columns' names.
            images: of the batch that are new.
            seconds: that it took.
        """
        self.batches.append({name: row.get(name) for name in KEPT})
        self.images += images
        self.step.observe(seconds)
        self.size.observe(images)
        self.served.labels(row.get("served_by") or "none").inc(images)
        if row.get("skipped"):
            self.skips[row["skipped"]] += 1
            self.skipped.labels(row["skipped"]).inc()
        if row.get("verdict") == "ALARM":
            self.alarms.inc()
        if row.get("mode"):
            for mode in get_args(Mode):
                self.mode.labels(mode).set(mode == row["mode"])
        for gauge, name in ((self.separation, "R"), (self.drift, "drift")):
            if row.get(name) is not None:
                gauge.set(row[name])

    def exposed(self, waiting: int) -> bytes:
        """All figures, as Prometheus reads them.

        Args:
            waiting: images in the queue.
        """
        self.queue.set(waiting)
        return generate_latest(self.registry)
