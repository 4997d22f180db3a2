"""Figures of a running service, in the text form of Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

MEDIA_TYPE = CONTENT_TYPE_LATEST
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Counters, histograms and gauges of one service. largest: images of a batch."""

    def __init__(self, largest: int) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter("randfeat_requests", "Requests", ["path", "status"], registry=self.registry)
        self._seconds = Histogram(
            "randfeat_request_seconds", "Time of a request", ["path"], buckets=SECONDS, registry=self.registry
        )
        powers = [2.0**power for power in range(largest.bit_length() + 1)]
        self.batch = Histogram("randfeat_batch_images", "Images of a batch", buckets=powers, registry=self.registry)
        self._waiting = Gauge("randfeat_waiting_images", "Images that wait", registry=self.registry)

    def watch(self, waiting: Callable[[], float]) -> None:
        """Take the number of waiting images from a function."""
        self._waiting.set_function(waiting)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Count a request. path: one of the service's own, so that their number is bounded."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def text(self) -> bytes:
        """Return all of them."""
        return generate_latest(self.registry)
