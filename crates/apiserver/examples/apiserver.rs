//! An API server by itself, for trying things out: `cargo run -p portolan-apiserver --example
//! apiserver -- KUBECONFIG_TO_WRITE [DATA_DIR]`.

use std::{io::Write, path::PathBuf};

use portolan_apiserver::{Caller, Config, kinds, registry, registry::WriteOptions, start};
use portolan_runtime::Shutdown;
use serde_json::json;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let kubeconfig = arguments.next().ok_or("name a kubeconfig to write")?;
    let config = Config {
        data_dir: arguments.next().map(PathBuf::from),
        registry: registry::Options {
            service_cidrs: vec!["127.96.0.0/16".parse()?, "fd00:96::/112".parse()?],
            ..registry::Options::default()
        },
        ..Config::default()
    };
    let shutdown = Shutdown::new();
    let running = start(config, shutdown.clone()).await?;
    for name in ["default", "kube-system"] {
        let namespace = json!({"metadata": {"name": name}});
        let caller = Caller::system("example");
        let options = WriteOptions::default();
        let made =
            running.registry.create(&caller, &kinds::NAMESPACES, "", namespace, &options).await;
        if let Err(status) = made
            && !status.is_already_exists()
        {
            return Err(status.into());
        }
    }
    std::fs::write(&kubeconfig, &running.kubeconfig)?;
    writeln!(std::io::stdout(), "https://{}", running.address)?;
    tokio::signal::ctrl_c().await?;
    shutdown.cancel();
    running.finish().await;
    Ok(())
}
