"""What the service counts, for Prometheus: nothing of a sound, a caption or a file name."""

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """Counters of one application; each application has its own registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.requests = Counter(
            "earwitness_requests",
            "Requests by endpoint and status",
            ["path", "status"],
            registry=registry,
        )
        self.latency = Histogram(
            "earwitness_request_seconds",
            "From the first byte of a request to the last of its answer",
            ["path"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.in_flight = Gauge(
            "earwitness_requests_in_flight",
            "Requests accepted and unanswered",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.waiting = Gauge(
            "earwitness_windows_waiting",
            "Windows that wait for the model",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.sound = Counter(
            "earwitness_sound_seconds",
            "Seconds of sound captioned or found silent",
            registry=registry,
        )
        self.batch = Histogram(
            "earwitness_batch_windows",
            "Windows that went through the model together",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=registry,
        )
        self.model = Histogram(
            "earwitness_batch_seconds",
            "Time of a batch in the model",
            buckets=_SECONDS,
            registry=registry,
        )

    def text(self) -> bytes:
        """All of them in Prometheus' text format; of several workers, their sums."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self.registry)
        every = CollectorRegistry()
        MultiProcessCollector(every)
        return generate_latest(every)
