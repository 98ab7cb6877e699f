"""The KEDA manifests name what KEDA reads, and fit each other, the command and the signal.

Field names as in KEDA's documentation, version 2.17: reference/scaledobject-spec,
concepts/authentication and scalers/metrics-api.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from gstd.cli.main import app
from gstd.kernel.settings import Policy
from gstd.protocol.autoscale import AutoscaleSignal

MANIFESTS = Path(__file__).parents[3] / "deploy" / "keda" / "workers.yaml"

SCALED_OBJECT = {
    "scaleTargetRef",
    "pollingInterval",
    "cooldownPeriod",
    "initialCooldownPeriod",
    "idleReplicaCount",
    "minReplicaCount",
    "maxReplicaCount",
    "fallback",
    "advanced",
    "triggers",
}
SCALE_TARGET = {"apiVersion", "kind", "name", "envSourceContainerName"}
FALLBACK = {"failureThreshold", "replicas", "behavior"}
TRIGGER = {"type", "metadata", "name", "useCachedMetrics", "authenticationRef", "metricType"}
METRICS_API = {
    "url",
    "format",
    "valueLocation",
    "targetValue",
    "activationTargetValue",
    "unsafeSsl",
    "aggregateFromKubeServiceEndpoints",
    "aggregationType",
    "authMode",
    "method",
    "keyParamName",
}


@pytest.fixture(scope="module")
def manifests() -> dict[str, Any]:
    """The objects by kind, each of which is there once."""
    found = list(yaml.safe_load_all(MANIFESTS.read_text("utf-8")))
    kinds = {item["kind"]: item for item in found}
    assert len(kinds) == len(found)
    return kinds


def test_the_scaled_object_has_only_fields_that_keda_knows(manifests: dict[str, Any]) -> None:
    scaled = manifests["ScaledObject"]
    assert scaled["apiVersion"] == "keda.sh/v1alpha1"
    spec = scaled["spec"]
    assert spec.keys() <= SCALED_OBJECT
    assert spec["scaleTargetRef"].keys() <= SCALE_TARGET
    assert spec["fallback"].keys() <= FALLBACK
    assert {"failureThreshold", "replicas"} <= spec["fallback"].keys()
    assert spec["advanced"].keys() == {"horizontalPodAutoscalerConfig"}
    assert 0 <= spec["minReplicaCount"] <= spec["maxReplicaCount"]
    behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behavior["scaleDown"]["stabilizationWindowSeconds"] == Policy().pool_window_s


def test_the_trigger_reads_a_number_of_the_signal(manifests: dict[str, Any]) -> None:
    [trigger] = manifests["ScaledObject"]["spec"]["triggers"]
    assert trigger["type"] == "metrics-api"
    assert trigger.keys() <= TRIGGER
    assert trigger["metricType"] == "AverageValue"  # the fallback works with no other
    metadata = trigger["metadata"]
    assert metadata.keys() <= METRICS_API
    assert {"url", "valueLocation", "targetValue"} <= metadata.keys()
    assert all(type(value) is str for value in metadata.values())  # the CRD's map of strings
    assert metadata["url"].endswith("/api/v1/autoscale")
    assert AutoscaleSignal.__annotations__[metadata["valueLocation"]] == "int"


def test_its_credential_is_the_secret_of_the_workers(manifests: dict[str, Any]) -> None:
    [trigger] = manifests["ScaledObject"]["spec"]["triggers"]
    authentication = manifests["TriggerAuthentication"]
    assert authentication["apiVersion"] == "keda.sh/v1alpha1"
    assert trigger["authenticationRef"] == {"name": authentication["metadata"]["name"]}
    assert trigger["metadata"]["authMode"] == "bearer"
    [reference] = authentication["spec"]["secretTargetRef"]
    assert reference["parameter"] == "token"  # what authMode bearer reads
    [worker] = manifests["Deployment"]["spec"]["template"]["spec"]["containers"]
    [key] = [entry["valueFrom"] for entry in worker["env"] if entry["name"] == "GSTD_API_KEY"]
    assert key == {"secretKeyRef": {"name": reference["name"], "key": reference["key"]}}


def test_it_scales_the_deployment_by_the_slots_of_its_workers(manifests: dict[str, Any]) -> None:
    deployment, scaled = manifests["Deployment"], manifests["ScaledObject"]
    assert scaled["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert "replicas" not in deployment["spec"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    [worker] = deployment["spec"]["template"]["spec"]["containers"]
    [trigger] = scaled["spec"]["triggers"]
    arguments = worker["args"]
    assert arguments[arguments.index("--slots") + 1] == trigger["metadata"]["targetValue"]


def test_the_command_of_the_deployment_is_one(manifests: dict[str, Any]) -> None:
    [worker] = manifests["Deployment"]["spec"]["template"]["spec"]["containers"]
    program, *path = worker["command"]
    assert program == "gstd"
    command: Any = get_command(app)
    for name in path:
        command = command.commands[name]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in worker["args"] if word.startswith("--")} <= known
