//! What the protocol is served over: the one seam between the protocol, written once, and the two that speak it.
//!
//! Objects are always in a [`Kind`]: states, journal and revisions are the cache's. A [`Read`] adds what the cache
//! cannot know: under which names a kind is served, how a state is proven current, and who answers what is no read.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures::future::BoxFuture;
use http::{Request, Response};
use serde_json::{Map, Value};

use super::{body::Body, status::Status};
pub use crate::columns::PrinterColumn;
use crate::{
    auth::Subject,
    cache::{Hold, Identity, Kind, Shard, State},
    object::{Key, Object},
};

/// A server's side of the protocol that differs from one to the other.
pub trait Read: Send + Sync + 'static {
    /// What is served now, in the order of discovery. Cheap: called for each request.
    fn resources(&self) -> Arc<[Arc<Resource>]>;

    /// The body of `/version`, JSON.
    fn version(&self) -> BoxFuture<'_, Result<bytes::Bytes, Status>>;

    /// A state that is proven to be no older than the moment of this call: of one object where `key` is given, else of
    /// everything in the shard.
    fn most_recent<'a>(&'a self, of: Wanted<'a>) -> BoxFuture<'a, Result<Proven, Status>>;

    /// Answers what is no read of a served resource, or is none that may be answered from here.
    fn other(&self, request: Request<Body>, what: Other) -> BoxFuture<'static, Response<Body>>;

    /// Told of each watch and list that is opened, for those who want to know who reads.
    fn open(&self, opened: Opened) -> Option<Box<dyn Reader>> {
        let _ = opened;
        None
    }

    /// How long a first list, or a version asked for, is waited for.
    fn patience(&self) -> Patience {
        Patience::default()
    }

    /// Whether `/api`, `/apis` and `/openapi` tell of [`Read::resources`]; else they too are [`Read::other`]'s.
    fn serves_discovery(&self) -> bool {
        true
    }

    /// Whether a read that names no version may be answered with whatever is at hand.
    fn unset_is_any(&self) -> bool {
        false
    }
}

/// What is to be proven.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The kind.
    pub resource: &'a Resource,
    /// Where its objects are.
    pub shard: &'a Arc<Shard<Object>>,
    /// Only this one.
    pub key: Option<&'a Key>,
}

/// A state, and the version up to which nothing else happened: at least the state's own.
#[derive(Clone, Debug)]
pub struct Proven {
    /// What there is.
    pub state: Arc<State<Object>>,
    /// The version that a reader may be told; a watch from it misses nothing.
    pub revision: u64,
}

impl Proven {
    /// A state as it is.
    pub fn of(state: Arc<State<Object>>) -> Self {
        Self {
            revision: state.revision,
            state,
        }
    }
}

/// How long a request waits for what is not there yet.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For the first complete list of a kind.
    pub first_list: Duration,
    /// For a version that was named.
    pub version: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            first_list: Duration::from_secs(10),
            version: Duration::from_secs(3),
        }
    }
}

/// A kind under the names by which it is served.
#[derive(Debug)]
pub struct Resource {
    /// Group, version, kind, plural and so on.
    pub identity: Arc<Identity>,
    /// Where its objects are.
    pub kind: Arc<Kind>,
    /// For discovery: `get`, `list`, `watch`, and what [`Read::other`] adds.
    pub verbs: Vec<&'static str>,
    /// `all`.
    pub categories: Vec<String>,
    /// Of a CRD: its `additionalPrinterColumns`; else the columns are known by the kind.
    pub columns: Option<Vec<PrinterColumn>>,
    /// It is defined by a CRD: items of its lists name their type.
    pub custom: bool,
    /// For discovery only: what [`Read::other`] answers below the objects.
    pub subresources: Vec<Subresource>,
    /// Namespaces of which nothing is here, though everything else is watched.
    pub excluded: Vec<String>,
    /// What it is made of, for `kubectl explain`, where that is known.
    pub schema: Option<Schema>,
    /// What the objects here lack that the API server has, in words for a person; said with each answer.
    pub warnings: Vec<String>,
}

/// What a kind is made of, in OpenAPI's words.
#[derive(Clone, Debug, PartialEq)]
pub struct Schema {
    /// Under which name the kind itself is among the components.
    pub name: String,
    /// It and what it is made of. References are to `#/components/schemas/NAME`.
    pub components: Map<String, Value>,
}

/// A subresource, for discovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subresource {
    /// `status`.
    pub name: String,
    /// Group, version and kind of what it returns, where that is not the resource's own.
    pub kind: Option<(String, String, String)>,
    /// `get`, `patch`, `update`.
    pub verbs: Vec<&'static str>,
}

impl Resource {
    /// Whether it is the one at this place.
    pub fn is(&self, group: &str, version: &str, plural: &str) -> bool {
        let identity = &self.identity;
        identity.plural == plural && identity.version == version && identity.group == group
    }

    /// The shard that has all of a namespace, or of everything where `namespace` is empty; `None` where no one
    /// watch covers that.
    pub fn shard(&self, namespace: &str) -> Option<&Arc<Shard<Object>>> {
        if self.excluded.iter().any(|excluded| excluded == namespace) {
            return None;
        }
        let covers = |shard: &&Arc<Shard<Object>>| ["", namespace].contains(&shard.namespace());
        self.kind.shards().iter().find(covers)
    }
}

/// A request that is not answered from the cache.
#[derive(Clone, Debug)]
pub enum Other {
    /// A path below `/api` or `/apis` with a verb that is no read, or of a resource that is not served, or below
    /// an object. The resource is given where it is served.
    Resource {
        /// What is asked of what.
        target: Target,
        /// The resource, where it is served.
        resource: Option<Arc<Resource>>,
        /// Why a read of a served resource is not answered from here, where it is one.
        why: Option<Status>,
    },
    /// Any other path.
    Path,
}

/// What a path below `/api` or `/apis` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Empty for the core group.
    pub group: String,
    /// `v1`.
    pub version: String,
    /// `pods`.
    pub plural: String,
    /// Empty for a cluster-scoped resource, and for all namespaces.
    pub namespace: String,
    /// One object.
    pub name: Option<String>,
    /// `status`, `log`, `exec/x`.
    pub subresource: Option<String>,
    /// As RBAC has it: `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verb: &'static str,
}

/// A watch or list that begins.
#[derive(Debug)]
pub struct Opened {
    /// `watch` or `list`.
    pub verb: &'static str,
    /// Of what.
    pub resource: Arc<Resource>,
    /// In which namespace; all where empty.
    pub namespace: String,
    /// As given.
    pub label_selector: String,
    /// As given.
    pub field_selector: String,
    /// Only metadata.
    pub metadata_only: bool,
    /// Where it was asked from.
    pub peer: Option<SocketAddr>,
    /// Who asks; absent where nobody is asked.
    pub subject: Option<Subject>,
    /// Who asks, in its own words.
    pub user_agent: String,
    /// Why it is ended, where that is not the reader's own will.
    pub ended: Ended,
}

/// Why an answer is ended before its end, once that is known.
pub type Ended = Arc<OnceLock<&'static str>>;

/// A watch or list under way. It ends when this is dropped.
pub trait Reader: Send + Sync {
    /// So much was sent.
    fn sent(&self, events: usize, bytes: usize);
    /// A state is being walked.
    fn hold(&self, shard: &Arc<Shard<Object>>, hold: Hold<Object>);
}
