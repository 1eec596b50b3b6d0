//! A source that is moved by hand: whoever holds it is the API server and the clock. No task and no socket, so that
//! a scheduler may put what happens into any order.

use super::*;
use crate::upstream::{ApiStatus, UpstreamError};

/// See the module's documentation. Needs a runtime with a paused clock around it.
pub(crate) struct ByHand {
    source: Source,
    _resolved: watch::Sender<Availability>,
    _version: watch::Sender<Arc<str>>,
}

impl ByHand {
    pub(crate) fn new(
        kind: Arc<Kind>,
        writer: Writer<Object>,
        config: &KindConfig,
        seed: u64,
    ) -> Self {
        let (service, _) = mock::pair::<http::Request<Body>, Response<AnyBody>>();
        let client = Client::new(service, "default");
        let upstream = Upstream::fixed(client.clone(), client, UpstreamSettings::default());
        let (resolved, served) = watch::channel(Availability::Served(Arc::new(resolved())));
        let (version, versions) = watch::channel("v1.36.3".into());
        let settings = SourceSettings::new(config, &UpstreamConfig::default(), seed);
        let mut source = Source::new(
            kind,
            writer,
            settings.expect("its rules are sound"),
            upstream,
            served,
            versions,
            Heartbeats::default().register("source/pods"),
        );
        source.tell();
        source.on_users();
        source.on_resolved();
        Self {
            source,
            _resolved: resolved,
            _version: version,
        }
    }

    /// What it waits for an answer to.
    pub(crate) fn asked(&self) -> Option<&Request> {
        match &self.source.link {
            Link::Sending { request, .. } => Some(request),
            _ => None,
        }
    }

    /// Whether it reads a response.
    pub(crate) fn reads(&self) -> bool {
        matches!(self.source.link, Link::Reading { .. })
    }

    pub(crate) fn shard(&self) -> &Arc<Shard<Object>> {
        self.source.writer.shard()
    }

    /// Up to where it knows the kind, published or not.
    pub(crate) fn revision(&self) -> u64 {
        self.source.writer.revision()
    }

    pub(crate) fn verify(&mut self) -> bool {
        self.source.writer.verify()
    }

    /// Headers that say yes.
    pub(crate) fn accept(&mut self) {
        let silence = futures::stream::pending::<Result<Frame<Bytes>, kube::Error>>();
        let body: Incoming = Box::pin(StreamBody::new(silence));
        self.turn(News::Answer(Ok(Response::new(body))));
    }

    pub(crate) fn refuse(&mut self, status: ApiStatus) {
        self.turn(News::Answer(Err(UpstreamError::from(status))));
    }

    pub(crate) fn send(&mut self, text: String) {
        self.turn(News::Frame(Some(Ok(text.into()))));
    }

    /// The end of the body.
    pub(crate) fn end(&mut self) {
        self.turn(News::Frame(None));
    }

    /// The connection breaks, wherever it is.
    pub(crate) fn cut(&mut self) {
        let error = || UpstreamError::Transport("connection reset".into());
        if self.asked().is_some() {
            self.turn(News::Answer(Err(error())));
        } else {
            self.turn(News::Frame(Some(Err(error()))));
        }
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self) {
        self.source.step(Input::Tick);
    }

    fn turn(&mut self, news: News) {
        self.source.on_news(news);
        self.tick();
    }
}
