//! The services over one kind that the bench writes, on a loopback port.

use std::{sync::Arc, time::Instant};

use informerd::{
    api::{Access, Api, Settings},
    cache::{Catalog, History, Identity, Kind, Limits, Phase, Unreadable, Writer},
    connections,
    object::{Object, Selectable},
    readiness::Board,
    shutdown::Shutdown,
    telemetry,
};
use socket2::SockRef;
use tokio::net::TcpListener;

/// A complete shard with these objects at revision 1, and the services over it for whoever has access.
pub fn shard(objects: Vec<Arc<Object>>, access: Access) -> (Writer<Object>, Api) {
    let mut writer = Writer::new("", Limits::default(), Instant::now());
    let shards = vec![writer.shard().clone()];
    let kind = Arc::new(Kind::new("pods", true, false, 7, shards));
    kind.set_identity(Identity {
        group: String::new(),
        version: "v1".into(),
        kind: "Pod".into(),
        plural: "pods".into(),
        singular: "pod".into(),
        short_names: vec!["po".into()],
        namespaced: true,
        selectable: Selectable::builtin("", "pods"),
    });
    let now = Instant::now();
    writer.replace(objects, &Unreadable::default(), 1, History::Same, now);
    writer.prove(now);
    writer.set_status(Phase::Live, "", "");
    let api = Api::with_board(
        Catalog::new(vec![kind]),
        Board::new([""; 0], Limits::default()),
        None,
        None,
        Settings::default(),
        access,
        Shutdown::new(),
    );
    (writer, api)
}

/// A port of its own, and logging as in the daemon: without any, disabled spans cost more than with. Callers that are
/// refused are not what is printed.
pub async fn listen() -> (TcpListener, u16) {
    telemetry::init(telemetry::Format::Text, "warn,informerd::audit=off").expect("it is the first");
    let listener = connections::listen(([127, 0, 0, 1], 0).into()).expect("a free port");
    // Pacing, which some machines have as their default, is for networks: on loopback its timers cost more than
    // what they pace. Connections inherit it.
    SockRef::from(&listener)
        .set_tcp_congestion(b"reno")
        .expect("every Linux has it");
    let port = listener.local_addr().expect("it is bound").port();
    (listener, port)
}

/// Serves until the process ends.
pub async fn serve(api: Api, listener: TcpListener) {
    let (_reporter, health) = tonic_health::server::health_reporter();
    api.serve(listener, None, health)
        .await
        .expect("the services are served");
}
