//! The container beside a dubbo-go server that registers it by our SDK.

use std::{net::IpAddr, process::ExitCode};

use anyhow::{Context, Result};
use portolan_sdk::{DubboGo, ListDialect, Registration, Registry};

use crate::{INTERFACE, PORT};

/// Registers, prints every instance that it finds once, and stays.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn run(version: DubboGo) -> Result<ExitCode> {
    let address: IpAddr =
        std::env::var("POD_IP").context("POD_IP is not set")?.parse().context("POD_IP")?;
    let registry = Registry::builder().write_as(ListDialect::Dubbo(version)).build().await?;
    let service = Registration {
        methods: vec!["Tell".into()],
        ..Registration::new(INTERFACE, "dubbo", (address, PORT).into())
    };
    let registered = registry.register(service).await?;
    let mut subscription = registry.subscribe(INTERFACE).await?;
    let mut known = Vec::new();
    let stopped = portolan_sdk::terminated();
    tokio::pin!(stopped);
    loop {
        for instance in subscription.current().instances() {
            if !known.contains(&instance.pod) {
                println!("found: {}", instance.pod);
                known.push(instance.pod.clone());
            }
        }
        tokio::select! {
            changed = subscription.changed() => drop(changed),
            () = &mut stopped => break,
        }
    }
    registered.deregister().await?;
    Ok(ExitCode::SUCCESS)
}
