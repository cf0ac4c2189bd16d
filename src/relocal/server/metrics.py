"""Metrics: what a server did, as Prometheus reads it."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from time import perf_counter

from fastapi import Request, Response
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from relocal.server.batching import Batcher
from relocal.types import Estimate

_BUCKETS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Metrics:
    """Counts requests, answers and batches.

    Args:
        batchers: By the scene's name, what answers.
    """

    def __init__(self, batchers: Mapping[str, Batcher]) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Batches(batchers))
        self._requests = Counter(
            "relocal_requests", "Requests", ["path", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "relocal_request_seconds",
            "Time of a request",
            ["path"],
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        self._answers = Counter(
            "relocal_answers",
            "Photos by the method of the answer",
            ["scene", "method"],
            registry=self.registry,
        )

    async def count(
        self, request: Request, call: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        """Counts a request, and how long it took."""
        start = perf_counter()
        response = await call(request)
        # Of the routes only: what people try out would be names without end.
        route = request.scope.get("route")
        path = "other" if route is None else str(route.path)
        self._requests.labels(path, str(response.status_code)).inc()
        self._seconds.labels(path).observe(perf_counter() - start)
        return response

    def located(self, scene: str, estimate: Estimate | None) -> None:
        """Counts an answer."""
        method = "none" if estimate is None else estimate.method
        self._answers.labels(scene, method).inc()


class _Batches(Collector):
    """What the batchers know, when it is asked for."""

    def __init__(self, batchers: Mapping[str, Batcher]) -> None:
        self.batchers = batchers

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        batches = CounterMetricFamily("relocal_batches", "Batches answered", labels=["scene"])
        photos = CounterMetricFamily("relocal_photos", "Photos answered", labels=["scene"])
        waiting = GaugeMetricFamily("relocal_waiting", "Photos that wait", labels=["scene"])
        for scene, batcher in self.batchers.items():
            batches.add_metric([scene], batcher.batches)
            photos.add_metric([scene], batcher.photos)
            waiting.add_metric([scene], batcher.waiting)
        yield from (batches, photos, waiting)
