//! Creates what a manifest declares, through the API like everybody else.

use anyhow::{Context, Result, bail};
use kube::{
    Api, Client,
    api::{DynamicObject, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use serde::Deserialize;

/// The kinds that our own manifests hold: kind, plural, whether in a namespace.
const KINDS: &[(&str, &str, bool)] = &[
    ("Namespace", "namespaces", false),
    ("Service", "services", true),
    ("Deployment", "deployments", true),
];

/// Creates every object of a YAML stream; what exists already is left as it is,
/// so that a user's changes outlive a restart.
pub(crate) async fn create_all(client: &Client, manifests: &str) -> Result<()> {
    for document in serde_norway::Deserializer::from_str(manifests) {
        let object = DynamicObject::deserialize(document).context("a manifest does not parse")?;
        create(client, object).await?;
    }
    Ok(())
}

async fn create(client: &Client, object: DynamicObject) -> Result<()> {
    let types = object.types.clone().context("a manifest has no kind")?;
    let gvk = GroupVersionKind::try_from(&types)?;
    let Some((_, plural, namespaced)) = KINDS.iter().find(|(kind, ..)| *kind == gvk.kind) else {
        bail!("manifests of kind {} are not among ours", gvk.kind);
    };
    let resource = ApiResource::from_gvk_with_plural(&gvk, plural);
    let api: Api<DynamicObject> = if *namespaced {
        let namespace = object.metadata.namespace.as_deref().unwrap_or("default");
        Api::namespaced_with(client.clone(), namespace, &resource)
    } else {
        Api::all_with(client.clone(), &resource)
    };
    match api.create(&PostParams::default(), &object).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => {
            let name = object.metadata.name.unwrap_or_default();
            Err(error).with_context(|| format!("cannot create {} {name}", gvk.kind))
        }
    }
}

/// The virtual IP of a Service.
pub(crate) async fn cluster_ip(client: &Client, namespace: &str, name: &str) -> Result<String> {
    let gvk = GroupVersionKind::gvk("", "v1", "Service");
    let resource = ApiResource::from_gvk_with_plural(&gvk, "services");
    let services: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let service = services.get(name).await?;
    let address = service.data.pointer("/spec/clusterIP").and_then(|address| address.as_str());
    Ok(address.with_context(|| format!("Service {namespace}/{name} has no address"))?.to_owned())
}
