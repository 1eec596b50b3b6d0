//! Consumers that do next to nothing with what they get, so that the machine is the server's.

use informerd::proto::{MarkType, Scope, WatchObjectsRequest};
use tonic::{
    Streaming,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

/// `WatchObjectsResponse`, with the little of it that is looked at.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Seen {
    /// See `WatchObjectsResponse.events`.
    #[prost(message, repeated, tag = "1")]
    pub events: Vec<SeenEvent>,
    /// See `WatchObjectsResponse.mark`.
    #[prost(message, optional, tag = "2")]
    pub mark: Option<SeenMark>,
}

/// `Event`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct SeenEvent {
    /// See `Event.revision`.
    #[prost(uint64, tag = "2")]
    pub revision: u64,
    /// See `Event.received_unix_nanos`.
    #[prost(fixed64, tag = "10")]
    pub received_unix_nanos: u64,
}

/// `Mark`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct SeenMark {
    /// See `Mark.type`.
    #[prost(enumeration = "MarkType", tag = "1")]
    pub r#type: i32,
}

/// A connection of its own.
pub async fn connect(port: u16) -> Channel {
    Endpoint::from_shared(format!("http://127.0.0.1:{port}"))
        .expect("an address")
        .tcp_nodelay(true)
        .connect()
        .await
        .expect("the server listens")
}

/// A watch of all pods, up to the end of its initial state; of somebody with this token.
pub async fn watch(channel: Channel, token: Option<&str>) -> Streaming<Seen> {
    let mut grpc = Grpc::new(channel).max_decoding_message_size(64 << 20);
    grpc.ready().await.expect("the connection is open");
    let path = PathAndQuery::from_static("/informerd.v1.CacheService/WatchObjects");
    let codec = ProstCodec::<WatchObjectsRequest, Seen>::default();
    let request = WatchObjectsRequest {
        scope: Some(Scope {
            resource: "pods".into(),
            ..Scope::default()
        }),
        ..WatchObjectsRequest::default()
    };
    let mut request = tonic::Request::new(request);
    if let Some(token) = token {
        let bearer = format!("Bearer {token}").parse().expect("a header");
        request.metadata_mut().insert("authorization", bearer);
    }
    let stream = grpc.server_streaming(request, path, codec).await;
    let mut stream = stream.expect("the watch opens").into_inner();
    loop {
        let message = next(&mut stream).await;
        if message
            .mark
            .is_some_and(|mark| mark.r#type() == MarkType::ResetEnd)
        {
            return stream;
        }
    }
}

/// The stream's next message.
pub async fn next(stream: &mut Streaming<Seen>) -> Seen {
    let message = stream.message().await.expect("the stream goes on");
    message.expect("the stream goes on")
}
