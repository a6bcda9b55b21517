//! Whatever happens to Services, what is held is what the stored ones say: no leak, nothing twice.

use std::collections::BTreeSet;

use portolan_apiserver::{
    Caller, Registry, kinds,
    registry::{DeleteOptions, Options, Patch, WriteOptions},
    store::{self, Backend, Store},
};
use proptest::{collection::vec, prelude::*};
use serde_json::{Value, json};

/// Something that a client may do to one of a few Services.
#[derive(Clone, Debug)]
enum Step {
    Create(usize, Value, bool),
    Merge(usize, Value, bool),
    Delete(usize),
}

fn spec() -> impl Strategy<Value = Value> {
    let kind = prop::sample::select(vec!["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"]);
    let address = prop::sample::select(vec!["", "None", "10.0.0.3", "10.0.0.4", "10.9.9.9"]);
    let policy =
        prop::sample::select(vec!["", "SingleStack", "PreferDualStack", "RequireDualStack"]);
    let ports = vec((1..3_u16, 0..3_u16, any::<bool>()), 1..3);
    (kind, address, policy, ports, any::<bool>()).prop_map(|(kind, address, policy, ports, local)| {
        let ports: Vec<Value> = ports
            .into_iter()
            .enumerate()
            .map(|(index, (port, node_port, udp))| {
                let mut value = json!({"name": format!("p{index}"), "port": port, "protocol": if udp { "UDP" } else { "TCP" }});
                if node_port > 0 && kind != "ClusterIP" {
                    value["nodePort"] = json!(30_000 + node_port);
                }
                value
            })
            .collect();
        let mut spec = json!({"type": kind, "selector": {"a": "b"}, "ports": ports});
        for (key, text) in [("clusterIP", address), ("ipFamilyPolicy", policy)] {
            if !text.is_empty() {
                spec[key] = text.into();
            }
        }
        if kind == "ExternalName" {
            spec["externalName"] = "example.org".into();
        }
        if local && kind == "LoadBalancer" {
            spec["externalTrafficPolicy"] = "Local".into();
        }
        spec
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..4_usize, spec(), any::<bool>()).prop_map(|(i, s, dry)| Step::Create(i, s, dry)),
        (0..4_usize, spec(), any::<bool>()).prop_map(|(i, s, dry)| Step::Merge(i, s, dry)),
        (0..4_usize).prop_map(Step::Delete),
    ]
}

async fn play(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let options = Options {
        // Small enough to run full.
        service_cidrs: vec!["10.0.0.0/29".parse().unwrap(), "fd00::/125".parse().unwrap()],
        node_ports: 30_000..=30_004,
        ..Options::default()
    };
    let store = Store::open(Backend::Memory, store::Options::default()).unwrap();
    let (registry, caller) = (Registry::new(store, options), Caller::system("test"));
    let namespace = json!({"metadata": {"name": "default"}});
    let plain = WriteOptions::default();
    registry.create(&caller, &kinds::NAMESPACES, "", namespace, &plain).await.unwrap();
    for step in steps {
        let outcome = match step.clone() {
            Step::Create(index, spec, dry_run) => {
                let object = json!({"metadata": {"name": format!("s{index}")}, "spec": spec});
                let options = WriteOptions { dry_run, ..WriteOptions::default() };
                registry
                    .create(&caller, &kinds::SERVICES, "default", object, &options)
                    .await
                    .map(drop)
            }
            Step::Merge(index, spec, dry_run) => {
                let patch = Patch::Merge(json!({"spec": spec}));
                let (name, options) =
                    (format!("s{index}"), WriteOptions { dry_run, ..WriteOptions::default() });
                registry
                    .patch(&caller, &kinds::SERVICES, "default", &name, None, patch, &options)
                    .await
                    .map(drop)
            }
            Step::Delete(index) => {
                let (name, options) = (format!("s{index}"), DeleteOptions::default());
                registry
                    .delete(&caller, &kinds::SERVICES, "default", &name, &options)
                    .await
                    .map(drop)
            }
        };
        if let Err(status) = outcome {
            prop_assert!(status.code < 500, "{step:?}: {status}");
        }
        check(&registry)?;
    }
    Ok(())
}

fn check(registry: &Registry) -> Result<(), TestCaseError> {
    let (mut addresses, mut ports) = (BTreeSet::new(), BTreeSet::new());
    for service in registry.list(&kinds::SERVICES, None).1 {
        let spec = &service["spec"];
        // Nothing is allocated for it; a node port in it is text, as upstream.
        if spec["type"] == "ExternalName" {
            continue;
        }
        for address in spec["clusterIPs"].as_array().into_iter().flatten() {
            if address != "None" {
                prop_assert!(addresses.insert(address.to_string()), "{address} twice: {service}");
            }
        }
        let own: BTreeSet<u64> = spec["ports"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|p| p["nodePort"].as_u64())
            .chain(spec["healthCheckNodePort"].as_u64())
            .collect();
        for port in own {
            prop_assert!(ports.insert(port), "node port {port} twice: {service}");
        }
    }
    prop_assert_eq!(registry.allocators().held(), (addresses.len(), ports.len()));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn what_is_held_is_what_is_stored(steps in vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(play(steps))?;
    }
}
