//! What a hostile consumer costs those that mean well: little, whatever it does with the rights of one identity.
//!
//! Fifty consumers read in a process of their own, and, in every other run, another process does at once what
//! consumers should not: it opens 10,000 streams and reads none of them, sends selectors of 4 MiB, begins calls and resets
//! them, pings without reading the answers, and sends headers a byte at a time (`common/hostile.rs`).
//! Compared are the fifty's latencies.

use std::{process::ExitCode, sync::Arc, thread};

use futures::future::BoxFuture;
use informerd::{
    api::Access,
    auth::{
        Attributes, Authentication, Decision, Guard, Identity, ReviewError, Reviews, Settings,
        Token, TokenOwner,
    },
    cache::Limits,
};
use tokio::runtime::{self, Runtime};

mod common {
    pub mod hostile;
    pub mod objects;
    pub mod process;
    pub mod readers;
    pub mod report;
    pub mod server;
    pub mod sink;
}
use common::{
    hostile::Hostile,
    process::{Role, order},
    readers::{Load, Run, Stage},
    report::Report,
    server,
};

const LOAD: Load = Load {
    readers: 50,
    changes_a_second: 1_000,
    tokens: true,
};
const AUDIENCE: &str = "informerd";

/// Most p99 of the readers, as a multiple of the same without the hostile one.
const LIMIT_P99: f64 = 1.5;
/// What SECURITY.md says that one identity can make a server grow by, besides what it does not read, in MiB: 2,000
/// open calls of 32 KiB, 300 connections of 150 KiB.
const LIMIT_GROWTH: f64 = 106.4;

fn main() -> ExitCode {
    let Some(arguments) = Role::arguments() else {
        return compare();
    };
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["server", changes] => serve(changes.parse().expect("a number")),
        ["readers", port, changes] => {
            let port = port.parse().expect("a port");
            LOAD.read(port, changes.parse().expect("a number"));
        }
        ["hostile", port] => attack(port.parse().expect("a port")),
        _ => panic!("no such role: {arguments:?}"),
    }
    ExitCode::SUCCESS
}

fn compare() -> ExitCode {
    let pairs = LOAD.compare("beside the hostile one", "open streams", run);
    let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
    let limits = Settings::default().limits;
    let bound = mib(Limits::default().journal_bytes) + mib(limits.bytes_of_one);
    let mut report = Report::default();
    report.at_most("p99 to the readers' alone", pairs.p99_ratio(), LIMIT_P99);
    report.at_most(
        "growth in MiB, at worst",
        pairs.worst(|run| run.growth),
        LIMIT_GROWTH + bound,
    );
    report.at_most(
        "streams that were let in, at worst",
        pairs.worst(|run| run.other),
        (limits.calls_of_one + LOAD.readers) as f64,
    );
    report.end()
}

fn run(changes: usize, with_hostile: bool) -> Run {
    let mut stage = Stage::start(changes);
    stage.count_from_here();
    let _hostile = with_hostile.then(|| {
        let mut hostile = Role::start(&["hostile", &stage.port]);
        assert_eq!(hostile.hear(), "hostile");
        hostile
    });
    let open = stage.feed().parse().expect("a number");
    Run {
        other: open,
        ..stage.result()
    }
}

/// Every token is its own user's, who may do everything: what is left are the limits.
struct Everybody;

impl Reviews for Everybody {
    fn token<'a>(
        &'a self,
        token: &'a Token,
        audience: &'a str,
    ) -> BoxFuture<'a, Result<Option<TokenOwner>, ReviewError>> {
        let identity = Identity {
            user: token.expose().to_owned(),
            ..Identity::default()
        };
        let audiences = vec![audience.to_owned()];
        let owner = TokenOwner {
            identity,
            audiences,
        };
        Box::pin(async move { Ok(Some(owner)) })
    }

    fn access<'a>(
        &'a self,
        _: &'a Identity,
        _: &'a Attributes,
    ) -> BoxFuture<'a, Result<Decision, ReviewError>> {
        Box::pin(async { Ok(Decision::Allowed) })
    }
}

/// The server: feeds once it is told to, and stays until it is ended.
fn serve(changes: usize) {
    let runtime = Runtime::new().expect("a runtime");
    let how = Authentication {
        token_audience: Some(AUDIENCE.to_owned()),
        ..Authentication::default()
    };
    let guard = Guard::new(how, Arc::new(Everybody), Settings::default());
    let access = Access::Guarded {
        guard: guard.expect("the system has randomness"),
        names: Arc::new(|_| None),
    };
    let (writer, api) = server::shard(Load::objects(), access);
    let (listener, port) = runtime.block_on(server::listen());
    let consumers = api.consumers().clone();
    let watched = consumers.clone();
    runtime.spawn(async move { watched.watch_over(|| ()).await });
    runtime.spawn(server::serve(api, listener));
    println!("{port}");
    if order().is_none() {
        return;
    }
    // On a thread of its own, as sources are.
    let feeding = thread::spawn(move || {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(LOAD.feed(writer, changes))
    });
    // Kept: it is the shard's only one.
    let _writer = feeding.join().expect("the feed ends well");
    println!("{}", consumers.list().len());
    order();
}

/// The hostile one, until it is ended.
fn attack(port: u16) {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let _hostile = Hostile::begin(port, "hostile", "pods").await;
        println!("hostile");
        // Its tasks have this thread.
        std::future::pending::<()>().await;
    });
}
