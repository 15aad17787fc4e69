"""What KubeRay's RayCluster and RayJob (ray.io/v1) may hold, as far as our examples need it.

Written by hand after the fields and rules of the resources' definitions in KubeRay 1.5 and later.
Stricter than they are: an API server drops fields that it does not know, here they are errors.
"""

from __future__ import annotations

from typing import Any

STRING = {"type": "string", "minLength": 1}
COUNT = {"type": "integer", "minimum": 0}
FLAG = {"type": "boolean"}
NAME = {"type": "string", "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$", "maxLength": 47}
QUANTITY = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(m|[KMGT]i?)?$"}


def only(required: str = "", **fields: Any) -> dict[str, Any]:
    """An object with these fields and no others."""
    return {
        "type": "object",
        "properties": fields,
        "required": required.split(),
        "additionalProperties": False,
    }


def every(item: dict[str, Any], least: int = 0) -> dict[str, Any]:
    return {"type": "array", "items": item, "minItems": least}


def mapping(value: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": value}


RESOURCES = only(requests=mapping(QUANTITY), limits=mapping(QUANTITY))
CONTAINER = only(
    "name image resources",
    name=NAME,
    image=STRING,
    imagePullPolicy={"enum": ["Always", "IfNotPresent", "Never"]},
    env=every(only("name", name=STRING, value={"type": "string"}, valueFrom=mapping({}))),
    ports=every(only("containerPort", containerPort=COUNT, name=NAME)),
    resources=RESOURCES,
    securityContext=only(
        allowPrivilegeEscalation=FLAG,
        capabilities=only(add=every(STRING), drop=every(STRING)),
        privileged=FLAG,
    ),
    volumeMounts=every(only("name mountPath", name=NAME, mountPath=STRING, readOnly=FLAG)),
)
VOLUME = only(
    "name",
    name=NAME,
    persistentVolumeClaim=only("claimName", claimName=NAME, readOnly=FLAG),
    emptyDir=only(medium={"enum": ["", "Memory"]}, sizeLimit=QUANTITY),
)
POD = only(
    "containers",
    containers=every(CONTAINER, least=1),
    restartPolicy={"enum": ["Always", "OnFailure", "Never"]},
    automountServiceAccountToken=FLAG,
    securityContext=only(runAsNonRoot=FLAG, runAsUser=COUNT, runAsGroup=COUNT, fsGroup=COUNT),
    hostNetwork=FLAG,
    nodeSelector=mapping(STRING),
    tolerations=every(
        only(
            key=STRING,
            operator={"enum": ["Exists", "Equal"]},
            value=STRING,
            effect={"enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]},
        )
    ),
    volumes=every(VOLUME),
)
TEMPLATE = only(
    "spec", metadata=only(labels=mapping(STRING), annotations=mapping(STRING)), spec=POD
)
START = mapping({"type": "string"})  # numbers too must be written as strings
HEAD = only(
    "rayStartParams template",
    serviceType={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
    enableIngress=FLAG,
    rayStartParams=START,
    template=TEMPLATE,
)
WORKERS = only(
    "groupName minReplicas maxReplicas rayStartParams template",
    groupName=NAME,
    replicas=COUNT,
    minReplicas=COUNT,
    maxReplicas=COUNT,
    numOfHosts=COUNT,
    rayStartParams=START,
    template=TEMPLATE,
)
CLUSTER_SPEC = only(
    "rayVersion headGroupSpec",
    rayVersion={"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
    authOptions=only("mode", mode={"enum": ["disabled", "token"]}),
    enableInTreeAutoscaling=FLAG,
    autoscalerOptions=only(
        idleTimeoutSeconds=COUNT,
        upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
        resources=RESOURCES,
    ),
    headGroupSpec=HEAD,
    workerGroupSpecs=every(WORKERS, least=1),
)
JOB_SPEC = {
    **only(
        "entrypoint rayClusterSpec",
        entrypoint=STRING,
        runtimeEnvYAML=STRING,
        submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
        shutdownAfterJobFinishes=FLAG,
        ttlSecondsAfterFinished=COUNT,
        activeDeadlineSeconds={"type": "integer", "minimum": 1},
        backoffLimit=COUNT,
        suspend=FLAG,
        rayClusterSpec=CLUSTER_SPEC,
    ),
    # The time to live is that of a cluster which is shut down.
    "dependentSchemas": {
        "ttlSecondsAfterFinished": {
            "required": ["shutdownAfterJobFinishes"],
            "properties": {"shutdownAfterJobFinishes": {"const": True}},
        }
    },
}
CLAIM_SPEC = only(
    "accessModes resources",
    accessModes=every(
        {"enum": ["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"]}, least=1
    ),
    storageClassName=STRING,
    resources=RESOURCES,
)


def _manifest(version: str, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    return only(
        "apiVersion kind metadata spec",
        apiVersion={"const": version},
        kind={"const": kind},
        metadata=only("name", name=NAME, namespace=NAME, labels=mapping(STRING)),
        spec=spec,
    )


SCHEMAS = {
    "RayCluster": _manifest("ray.io/v1", "RayCluster", CLUSTER_SPEC),
    "RayJob": _manifest("ray.io/v1", "RayJob", JOB_SPEC),
    "PersistentVolumeClaim": _manifest("v1", "PersistentVolumeClaim", CLAIM_SPEC),
}
