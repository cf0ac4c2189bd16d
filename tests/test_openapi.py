"""Whatever the interface's description allows, and what it does not: no answer is 500 or above."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("schemathesis", reason="pip install 'relocal[test]'")
pytest.importorskip("fastapi", reason="serving is an extra: pip install 'relocal[serve]'")
pytest.importorskip("viser", reason="the viewer is an extra: pip install 'relocal[view]'")

import schemathesis  # after the checks above
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance
from serving import served

from relocal.server.app import create_app
from relocal.server.places import open_places

OPERATIONS = (
    ("/v1/localize", "POST"),
    ("/v1/localize/batch", "POST"),
    ("/v1/scene", "GET"),
    ("/v1/scenes", "GET"),
    ("/v1/scene/view", "GET"),
    ("/healthz", "GET"),
    ("/readyz", "GET"),
    ("/metrics", "GET"),
)
PLAIN = ("/v1/scenes", "/healthz", "/readyz", "/metrics")  # nothing to be wrong about
TRIED = [
    (path, method, mode)
    for path, method in OPERATIONS
    for mode in GenerationMode
    if mode is GenerationMode.POSITIVE or path not in PLAIN
]
EXAMPLES = 30
SLOW = (HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large)
CHECKS: list[Any] = [not_a_server_error, status_code_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def described(tiny_run: Path, tiny_map: Path) -> Iterator[Any]:
    with served(create_app(open_places([tiny_run, tiny_map]))) as address:
        yield schemathesis.openapi.from_url(f"{address}/openapi.json")


def test_every_operation_is_tried(described: Any) -> None:
    assert {(path, method.upper()) for path in described for method in described[path]} == {
        *OPERATIONS
    }


@pytest.mark.parametrize(("path", "method", "mode"), TRIED)
def test_nothing_that_is_asked_breaks_the_server(
    described: Any, path: str, method: str, mode: GenerationMode
) -> None:
    @settings(max_examples=EXAMPLES, suppress_health_check=SLOW)
    @given(case=described[path][method].as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        case.validate_response(case.call(), checks=CHECKS)

    ask()
