//! `informerd sandbox`: the sandbox as a process of its own, until a signal.

use std::{io::Write, path::PathBuf, time::Duration};

use super::AppError;
use crate::{
    args::{SandboxArgs, WorldArgs},
    sandbox::{Settings, Store, World, WorldSettings, run, traffic::Traffic},
    shutdown::Shutdown,
    telemetry,
};

/// How long open requests are waited for; nobody loses anything here.
const GRACE: Duration = Duration::from_secs(2);

impl From<WorldArgs> for WorldSettings {
    fn from(args: WorldArgs) -> Self {
        Self {
            seed: args.seed,
            rate: args.rate,
            nodes: args.nodes,
            pods: args.pods,
        }
    }
}

/// Runs until a signal.
///
/// # Errors
///
/// It could not start.
pub async fn sandbox(args: SandboxArgs) -> Result<(), AppError> {
    telemetry::init(telemetry::Format::Text, &args.log_filter)?;
    let listener = run::listen(args.listen).await?;
    let address = listener.local_addr()?;
    let shutdown = Shutdown::new();
    let signals = tokio::spawn(shutdown.on_signals(GRACE)?);
    let store = Store::new(Settings {
        seed: args.world.seed,
        kubelet: !args.still,
    });
    let kubeconfig = args.kubeconfig.unwrap_or_else(|| kubeconfig_of("sandbox"));
    run::write_kubeconfig(&kubeconfig, address)?;
    let world = (!args.still).then(|| World::new(store.clone(), args.world.into()));
    let mut out = std::io::stdout();
    writeln!(out, "{}", run::WHAT_IT_IS)?;
    writeln!(out, "It listens on http://{address}. Try:")?;
    writeln!(
        out,
        "  kubectl --kubeconfig {} get pods -A",
        kubeconfig.display()
    )?;
    writeln!(
        out,
        "  informerd serve --kubeconfig {} --kind pods",
        kubeconfig.display()
    )?;
    let world = async {
        match world {
            Some(world) => world.run(shutdown.clone()).await,
            None => shutdown.draining().await,
        }
    };
    let served = run::serve(store, Traffic::default(), listener, shutdown.clone());
    let (served, ()) = tokio::join!(served, world);
    shutdown.cut();
    // It ends with the shutdown; a panic in it has been printed.
    let _ = signals.await;
    Ok(served?)
}

/// Where a kubeconfig goes that nobody has named a place for.
pub(super) fn kubeconfig_of(what: &str) -> PathBuf {
    let name = format!("informerd-{what}-{}.kubeconfig", std::process::id());
    std::env::temp_dir().join(name)
}
