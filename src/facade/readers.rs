//! Shows who reads through the facade beside those who read by gRPC.

use std::sync::Arc;

use crate::{
    api::{
        Caller, Consumers,
        consumers::{Asked, Registration},
    },
    cache::{Hold, Shard},
    kubeapi::{Opened, Reader},
    object::Object,
    proto,
};

struct Entered(Registration);

/// Registers a watch or list until the reader is dropped.
pub(super) fn enter(consumers: &Arc<Consumers>, opened: Opened) -> Box<dyn Reader> {
    let view = if opened.metadata_only {
        proto::View::Metadata
    } else {
        proto::View::Full
    };
    let namespaces = Some(opened.namespace).filter(|namespace| !namespace.is_empty());
    let asked = Asked {
        scope: proto::Scope {
            resource: opened.resource.identity.resource(),
            namespaces: namespaces.into_iter().collect(),
            label_selector: opened.label_selector,
            field_selector: opened.field_selector,
            ..proto::Scope::default()
        },
        view: view.into(),
        fields: Vec::new(),
    };
    let method = match opened.verb {
        "watch" => "kube watch",
        _ => "kube list",
    };
    let caller = Caller {
        peer: opened.peer,
        user_agent: opened.user_agent,
        subject: opened.subject,
        ended: opened.ended,
    };
    let kind = Some(Arc::clone(&opened.resource.kind));
    Box::new(Entered(consumers.enter(method, caller, kind, asked)))
}

impl Reader for Entered {
    fn sent(&self, events: usize, bytes: usize) {
        self.0.consumer.sent(events, bytes);
    }

    fn hold(&self, shard: &Arc<Shard<Object>>, hold: Hold<Object>) {
        self.0.consumer.hold(shard, hold);
    }
}
