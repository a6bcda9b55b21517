//! Services, nodes, storage, policy, and the rest.

use super::common::{CONDITIONS, CONDITIONS_STATUS, OBJECT_META};
use super::pod::CLAIM_SPEC;
use crate::schema::declare::{ANY, ATOMIC, Field, Type, atomic, free, keyed, member, set};

const METADATA: Field = member("metadata", &OBJECT_META);
const STATUS: Field = member("status", &CONDITIONS_STATUS);

pub(super) static SERVICE: Type = Type::of(&[METADATA, member("spec", &SERVICE_SPEC), STATUS]);
static SERVICE_SPEC: Type = Type::of(&[
    // Server-side apply tells 53/UDP from 53/TCP; strategic merge does not.
    keyed("ports", &["port", "protocol"], &ANY).number_key("port").default_key("protocol", "TCP"),
    atomic("selector"),
]);

pub(super) static SERVICE_ACCOUNT: Type =
    Type::of(&[METADATA, keyed("secrets", &["name"], &ATOMIC).optional_keys()]);

pub(super) static NODE: Type =
    Type::of(&[METADATA, member("spec", &NODE_SPEC), member("status", &NODE_STATUS)]);
static NODE_SPEC: Type = Type::of(&[set("podCIDRs").merged()]);
static NODE_STATUS: Type = Type::of(&[
    CONDITIONS,
    keyed("addresses", &["type"], &ANY),
    free("capacity"),
    free("allocatable"),
]);

pub(super) static EVENT_CORE: Type =
    Type::of(&[METADATA, atomic("involvedObject"), atomic("related")]);
pub(super) static EVENT: Type = Type::of(&[METADATA, atomic("regarding"), atomic("related")]);

pub(super) static RESOURCE_QUOTA: Type =
    Type::of(&[METADATA, member("spec", &QUOTA_SPEC), member("status", &QUOTA_STATUS)]);
static QUOTA_SPEC: Type = Type::of(&[atomic("scopeSelector"), free("hard")]);
static QUOTA_STATUS: Type = Type::of(&[free("hard"), free("used")]);

pub(super) static PERSISTENT_VOLUME: Type = Type::of(&[METADATA, member("spec", &VOLUME_SPEC)]);
static VOLUME_SPEC: Type = Type::of(&[
    // Granular, though an object reference elsewhere is owned as a whole.
    member("claimRef", &ANY),
    free("capacity"),
    member("nodeAffinity", &VOLUME_AFFINITY),
    member("cephfs", &WITH_SECRET),
    member("cinder", &WITH_SECRET),
    member("csi", &CSI_VOLUME),
    member("flexVolume", &FLEX_VOLUME),
    member("iscsi", &WITH_SECRET),
    member("rbd", &WITH_SECRET),
    member("scaleIO", &WITH_SECRET),
    member("storageos", &WITH_SECRET),
]);
static VOLUME_AFFINITY: Type = Type::of(&[atomic("required")]);
static WITH_SECRET: Type = Type::of(&[atomic("secretRef")]);
static FLEX_VOLUME: Type = Type::of(&[atomic("secretRef"), free("options")]);
static CSI_VOLUME: Type = Type::of(&[
    free("volumeAttributes"),
    atomic("controllerPublishSecretRef"),
    atomic("nodeStageSecretRef"),
    atomic("nodePublishSecretRef"),
    atomic("controllerExpandSecretRef"),
    atomic("nodeExpandSecretRef"),
]);

pub(super) static PERSISTENT_VOLUME_CLAIM: Type =
    Type::of(&[METADATA, member("spec", &CLAIM_SPEC), member("status", &CLAIM_STATUS)]);
static CLAIM_STATUS: Type = Type::of(&[
    CONDITIONS,
    free("capacity"),
    free("allocatedResources"),
    free("allocatedResourceStatuses"),
]);

pub(super) static STORAGE_CLASS: Type = Type::of(&[METADATA, free("parameters")]);

/// What is remembered of an earlier version is owned as a whole.
pub(super) static CONTROLLER_REVISION: Type = Type::of(&[METADATA, atomic("data")]);

/// Kinds that hold data by key: ConfigMap, Secret.
pub(super) static DATA: Type =
    Type::of(&[METADATA, free("data"), free("binaryData"), free("stringData")]);

pub(super) static INGRESS: Type = Type::of(&[METADATA, member("spec", &INGRESS_SPEC)]);
static INGRESS_SPEC: Type = Type::of(&[member("defaultBackend", &BACKEND)]);
static BACKEND: Type = Type::of(&[member("service", &BACKEND_SERVICE), atomic("resource")]);
static BACKEND_SERVICE: Type = Type::of(&[atomic("port")]);

pub(super) static NETWORK_POLICY: Type =
    Type::of(&[METADATA, member("spec", &NETWORK_POLICY_SPEC)]);
static NETWORK_POLICY_SPEC: Type = Type::of(&[atomic("podSelector")]);

pub(super) static ROLE_BINDING: Type = Type::of(&[METADATA, atomic("roleRef")]);

pub(super) static POD_DISRUPTION_BUDGET: Type =
    Type::of(&[METADATA, member("spec", &BUDGET_SPEC), member("status", &BUDGET_STATUS)]);
static BUDGET_STATUS: Type = Type::of(&[CONDITIONS, free("disruptedPods")]);
static BUDGET_SPEC: Type = Type::of(&[atomic("selector").replaced()]);

pub(super) static AUTOSCALER: Type = Type::of(&[METADATA, STATUS]);
pub(super) static AUTOSCALER_V1: Type = Type::of(&[METADATA, member("spec", &AUTOSCALER_V1_SPEC)]);
static AUTOSCALER_V1_SPEC: Type = Type::of(&[atomic("scaleTargetRef")]);

pub(super) static CSI_DRIVER: Type = Type::of(&[METADATA, member("spec", &CSI_DRIVER_SPEC)]);
static CSI_DRIVER_SPEC: Type = Type::of(&[set("volumeLifecycleModes")]);
pub(super) static CSI_NODE: Type = Type::of(&[METADATA, member("spec", &CSI_NODE_SPEC)]);
static CSI_NODE_SPEC: Type = Type::of(&[keyed("drivers", &["name"], &ANY)]);

pub(super) static RUNTIME_CLASS: Type =
    Type::of(&[METADATA, member("scheduling", &SCHEDULING), member("overhead", &OVERHEAD)]);
static OVERHEAD: Type = Type::of(&[free("podFixed")]);
static SCHEDULING: Type = Type::of(&[atomic("nodeSelector")]);

pub(super) static WEBHOOK_CONFIGURATION: Type =
    Type::of(&[METADATA, keyed("webhooks", &["name"], &WEBHOOK)]);
static WEBHOOK: Type = Type::of(&[
    keyed("matchConditions", &["name"], &ANY),
    atomic("namespaceSelector"),
    atomic("objectSelector"),
]);

pub(super) static SIGNING_REQUEST: Type =
    Type::of(&[METADATA, member("spec", &SIGNING_SPEC), member("status", &SIGNING_STATUS)]);
static SIGNING_SPEC: Type = Type::of(&[free("extra")]);
static SIGNING_STATUS: Type = Type::of(&[CONDITIONS.replaced()]);

pub(super) static CUSTOM_RESOURCE_DEFINITION: Type =
    Type::of(&[METADATA, member("status", &DEFINITION_STATUS)]);
static DEFINITION_STATUS: Type = Type::of(&[CONDITIONS.replaced()]);

pub(super) static API_SERVICE: Type = Type::of(&[METADATA, STATUS]);
