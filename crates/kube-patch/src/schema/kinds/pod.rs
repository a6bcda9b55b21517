//! Pod, and the workloads that hold a Pod template.

use super::common::{AMOUNTS, CONDITIONS, OBJECT_META};
use crate::schema::declare::{ANY, ATOMIC, Field, Type, atomic, free, keyed, list, member, set};

const METADATA: Field = member("metadata", &OBJECT_META);

pub(super) static POD: Type =
    Type::of(&[METADATA, member("spec", &POD_SPEC), member("status", &POD_STATUS)]);

static TEMPLATE_SPEC: Type = Type::of(&[METADATA, member("spec", &POD_SPEC)]);
const TEMPLATE: Field = member("template", &TEMPLATE_SPEC);

pub(super) static POD_TEMPLATE: Type = Type::of(&[METADATA, TEMPLATE]);

static POD_SPEC: Type = Type::of(&[
    keyed("containers", &["name"], &CONTAINER),
    keyed("initContainers", &["name"], &CONTAINER),
    keyed("ephemeralContainers", &["name"], &CONTAINER),
    keyed("volumes", &["name"], &VOLUME).retain_keys(),
    keyed("imagePullSecrets", &["name"], &ATOMIC),
    keyed("hostAliases", &["ip"], &ANY),
    keyed("topologySpreadConstraints", &["topologyKey", "whenUnsatisfiable"], &SELECTING),
    keyed("schedulingGates", &["name"], &ANY),
    keyed("resourceClaims", &["name"], &ANY).retain_keys(),
    keyed("evictionResponders", &["name"], &ATOMIC),
    member("affinity", &AFFINITY),
    member("resources", &RESOURCES),
    atomic("nodeSelector"),
    free("overhead"),
]);

static CONTAINER: Type = Type::of(&[
    keyed("ports", &["containerPort", "protocol"], &ANY)
        .number_key("containerPort")
        .default_key("protocol", "TCP"),
    keyed("env", &["name"], &ENV),
    keyed("volumeMounts", &["mountPath"], &VOLUME_MOUNT),
    keyed("volumeDevices", &["devicePath"], &ANY),
    member("resources", &RESOURCES),
    list("restartPolicyRules", &RESTART_RULE),
]);

static VOLUME_MOUNT: Type = Type::of(&[set("bindMountOptions")]);
static RESOURCES: Type =
    Type::of(&[keyed("claims", &["name"], &ANY).replaced(), free("limits"), free("requests")]);
static RESTART_RULE: Type = Type::of(&[member("exitCodes", &EXIT_CODES)]);
static EXIT_CODES: Type = Type::of(&[set("values")]);

static ENV: Type = Type::of(&[member("valueFrom", &ENV_SOURCE)]);
static ENV_SOURCE: Type = Type::of(&[
    atomic("fieldRef"),
    atomic("resourceFieldRef"),
    atomic("configMapKeyRef"),
    atomic("secretKeyRef"),
    atomic("fileKeyRef"),
]);

/// A constraint or term with a label selector, which is owned as a whole.
static SELECTING: Type = Type::of(&[atomic("labelSelector")]);

static AFFINITY: Type = Type::of(&[member("nodeAffinity", &NODE_AFFINITY)]);
static NODE_AFFINITY: Type = Type::of(&[atomic("requiredDuringSchedulingIgnoredDuringExecution")]);

static VOLUME: Type = Type::of(&[
    member("cephfs", &WITH_SECRET),
    member("cinder", &WITH_SECRET),
    member("csi", &CSI_VOLUME),
    member("ephemeral", &EPHEMERAL),
    member("flexVolume", &FLEX_VOLUME),
    member("iscsi", &WITH_SECRET),
    member("rbd", &WITH_SECRET),
    member("scaleIO", &WITH_SECRET),
    member("storageos", &WITH_SECRET),
]);
static WITH_SECRET: Type = Type::of(&[atomic("secretRef")]);
static FLEX_VOLUME: Type = Type::of(&[atomic("secretRef"), free("options")]);
static CSI_VOLUME: Type = Type::of(&[atomic("nodePublishSecretRef"), free("volumeAttributes")]);
static EPHEMERAL: Type = Type::of(&[member("volumeClaimTemplate", &CLAIM_TEMPLATE)]);
static CLAIM_TEMPLATE: Type = Type::of(&[METADATA, member("spec", &CLAIM_SPEC)]);

/// The spec of a PersistentVolumeClaim, here for volumes of kind `ephemeral`.
pub(super) static CLAIM_SPEC: Type =
    Type::of(&[atomic("selector"), atomic("dataSource"), member("resources", &AMOUNTS)]);

static POD_STATUS: Type = Type::of(&[
    CONDITIONS,
    keyed("podIPs", &["ip"], &ANY),
    // Owned as a whole by server-side apply, yet merged by patches.
    list("hostIPs", &ANY).merged_by("ip"),
    keyed("resourceClaimStatuses", &["name"], &ANY).retain_keys(),
    keyed("nodeAllocatableResourceClaimStatuses", &["resourceClaimName"], &ALLOCATABLE_CLAIM),
    keyed("volumeHealth", &["name"], &VOLUME_HEALTH).replaced(),
    list("containerStatuses", &CONTAINER_STATUS),
    list("initContainerStatuses", &CONTAINER_STATUS),
    list("ephemeralContainerStatuses", &CONTAINER_STATUS),
    member("resources", &RESOURCES),
]);

static ALLOCATABLE_CLAIM: Type = Type::of(&[
    set("containers"),
    keyed("mapping", &["name"], &ANY),
    keyed("overhead", &["name"], &ANY),
]);
static VOLUME_HEALTH: Type = Type::of(&[keyed("healthConditions", &["status", "reason"], &ANY)]);
static CONTAINER_STATUS: Type = Type::of(&[
    keyed("volumeMounts", &["mountPath"], &ANY),
    keyed("allocatedResourcesStatus", &["name"], &RESOURCE_STATUS),
    member("resources", &RESOURCES),
]);
static RESOURCE_STATUS: Type = Type::of(&[keyed("resources", &["resourceID"], &ANY).replaced()]);

/// ReplicaSet, StatefulSet, DaemonSet: a selector owned as a whole, and a template.
pub(super) static WORKLOAD: Type =
    Type::of(&[METADATA, member("spec", &WORKLOAD_SPEC), member("status", &CONDITIONED)]);
static WORKLOAD_SPEC: Type =
    Type::of(&[atomic("selector"), TEMPLATE, list("volumeClaimTemplates", &CLAIM_TEMPLATE)]);
static CONDITIONED: Type = Type::of(&[CONDITIONS]);

/// As [`WORKLOAD`], and a client that changes the strategy names the keys to keep: `type:
/// Recreate` must not leave `rollingUpdate` behind.
pub(super) static DEPLOYMENT: Type =
    Type::of(&[METADATA, member("spec", &DEPLOYMENT_SPEC), member("status", &CONDITIONED)]);
static DEPLOYMENT_SPEC: Type =
    Type::of(&[atomic("selector"), TEMPLATE, member("strategy", &ANY).retain_keys()]);

pub(super) static REPLICATION_CONTROLLER: Type =
    Type::of(&[METADATA, member("spec", &WORKLOAD_SPEC), member("status", &CONDITIONED)]);

pub(super) static JOB: Type =
    Type::of(&[METADATA, member("spec", &JOB_SPEC), member("status", &JOB_STATUS)]);
static JOB_SPEC: Type =
    Type::of(&[atomic("selector"), TEMPLATE, member("podFailurePolicy", &FAILURE_POLICY)]);
static FAILURE_POLICY: Type = Type::of(&[list("rules", &FAILURE_RULE)]);
static FAILURE_RULE: Type = Type::of(&[member("onExitCodes", &EXIT_CODES)]);
static JOB_STATUS: Type = Type::of(&[
    list("conditions", &ANY).merged_by("type"),
    member("uncountedTerminatedPods", &UNCOUNTED),
]);
static UNCOUNTED: Type = Type::of(&[set("succeeded"), set("failed")]);

pub(super) static CRON_JOB: Type =
    Type::of(&[METADATA, member("spec", &CRON_JOB_SPEC), member("status", &ANY)]);
static CRON_JOB_SPEC: Type = Type::of(&[member("jobTemplate", &JOB_TEMPLATE)]);
static JOB_TEMPLATE: Type = Type::of(&[METADATA, member("spec", &JOB_SPEC)]);
