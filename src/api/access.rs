//! Holds each call against what its caller may do, before anything is looked up for it.
//!
//! What a call is about is read from its own words and from what the cluster calls things, never from what this
//! daemon happens to watch: whoever may not see a kind is told the same whether it is configured or not.

use std::{collections::BTreeSet, fmt, pin::Pin, sync::Arc};

use futures::FutureExt;

use super::{
    Api, Error,
    grants::{Grants, Turn},
    query::MAX_NAMESPACES,
};
use crate::{
    auth::{
        Attributes, AuthError, Called, Calls, Door, Guard, Lease, Over, Peer, ResourceAttributes,
        Room, Snapshot, Subject, Verb, denied,
    },
    cache::Identity,
    object::selector::{FieldSelector, LabelSelector},
    proto,
};

/// Group and plural of the kind that a name means, as the API server has it, whether it is watched here or not.
pub type Names = Arc<dyn Fn(&str) -> Option<(String, String)> + Send + Sync>;

/// Whether callers are asked who they are.
#[derive(Clone, Default)]
pub enum Access {
    /// No: whoever can connect may do everything. Within one process.
    #[default]
    Open,
    /// No, as above, within limits. On loopback only.
    Limited(Calls),
    /// Yes.
    Guarded {
        /// Asks them.
        guard: Guard,
        /// What kinds are called.
        names: Names,
    },
}

impl Access {
    /// Who asks them, if anybody does.
    pub fn guard(&self) -> Option<&Guard> {
        match self {
            Self::Open | Self::Limited(_) => None,
            Self::Guarded { guard, .. } => Some(guard),
        }
    }

    /// The same, as other ports have it.
    pub fn door(&self) -> Door {
        match self {
            Self::Open => Door::Open,
            Self::Limited(calls) => Door::Limited(calls.clone()),
            Self::Guarded { guard, .. } => Door::Guarded(guard.clone()),
        }
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => f.write_str("Open"),
            Self::Limited(calls) => f.debug_tuple("Limited").field(calls).finish(),
            Self::Guarded { guard, .. } => f.debug_tuple("Guarded").field(guard).finish(),
        }
    }
}

/// Longer than any name: a plural and a group, each as long as they get.
const MAX_NAME: usize = 512;

/// What may be read of the daemon itself, and the permission that it takes.
pub(super) const KINDS: &str = "/informerd/introspection/kinds";
/// See [`KINDS`].
pub(super) const CONSUMERS: &str = "/informerd/introspection/consumers";

/// Who makes a call, and over which connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Asking {
    subject: Option<Subject>,
    peer: Option<Peer>,
    room: Option<Room>,
    called: Called,
}

impl Asking {
    pub(super) fn of(extensions: &http::Extensions) -> Self {
        Self {
            subject: extensions.get().cloned(),
            peer: extensions.get().cloned(),
            room: extensions.get().cloned(),
            called: extensions.get().cloned().unwrap_or_default(),
        }
    }

    pub(super) fn subject(&self) -> Option<&Subject> {
        self.subject.as_ref()
    }

    /// A state to be walked for it, if it may have one more; nothing where nobody counts them.
    pub(super) fn snapshot(&self) -> Result<Option<Snapshot>, Error> {
        let snapshot = self.room.as_ref().map(Room::snapshot).transpose();
        Ok(snapshot.inspect_err(|error| self.denied(error))?)
    }

    /// What may be on its way to it; anything where nobody counts that.
    pub(super) fn room(&self) -> Option<&Room> {
        self.room.as_ref()
    }

    /// Its turn where many wait for the same: everybody's first call comes before anybody's second.
    pub(super) fn turn(&self) -> u32 {
        self.room.as_ref().map_or(0, Room::turn)
    }

    /// The call, which may be made by these rights.
    fn admitted(&self, guard: &Guard, subject: Subject, all: Arc<[Attributes]>) -> Admitted {
        let room = self.room.clone();
        if let Some(room) = &room {
            room.rests_on(guard, &subject, &all);
        }
        let guard = guard.clone();
        let rights = Rights {
            guard,
            room,
            subject,
            all,
        };
        Admitted {
            rights: Some(rights),
        }
    }

    fn denied(&self, error: &AuthError) {
        denied(&self.called, self.subject(), self.peer(), error);
    }

    pub(super) fn peer(&self) -> Option<&Peer> {
        self.peer.as_ref()
    }
}

/// A call that may be made: what it was held against.
#[derive(Clone, Debug, Default)]
pub(super) struct Admitted {
    /// Nothing where nobody is asked.
    rights: Option<Rights>,
}

#[derive(Clone, Debug)]
struct Rights {
    guard: Guard,
    room: Option<Room>,
    subject: Subject,
    all: Arc<[Attributes]>,
}

impl Admitted {
    /// Whether nobody was asked.
    pub(super) fn is_everybody(&self) -> bool {
        self.rights.is_none()
    }

    /// Whether what is served is what was asked for: a name may mean another kind to the cache than to the API
    /// server, or come to mean another one.
    pub(super) fn check(&self, asked: &str, identity: &Identity) -> Result<(), Error> {
        let Some(rights) = &self.rights else {
            return Ok(());
        };
        let of_kind = |attributes: &Attributes| match attributes {
            Attributes::Resource(on) => {
                on.group == identity.group && on.resource == identity.plural
            }
            Attributes::Path { .. } => false,
        };
        if rights.all.iter().any(of_kind) {
            return Ok(());
        }
        Err(Error::Ambiguous {
            asked: asked.to_owned(),
            full: identity.resource(),
        })
    }

    /// For a stream that stays open.
    pub(super) fn hold(&mut self) -> Held {
        let lease = self.rights.as_mut().map(|rights| {
            let lease = rights.hold(Arc::clone(&rights.all));
            // One list for all streams that rest on the same: it can be long.
            rights.all = Arc::clone(lease.all());
            lease
        });
        Held::new(lease, None)
    }

    /// For a stream that stays open without the parts of its scope to which the right is gone; those in `withheld`
    /// are, to begin with.
    pub(super) fn hold_parts(&self, scope: &proto::Scope, withheld: &BTreeSet<String>) -> Held {
        let Some(rights) = &self.rights else {
            return Held::new(None, None);
        };
        let parts = rights.all.iter();
        let parts = parts.map(|right| (part(scope, right).to_owned(), right.clone()));
        let grants = Grants::new(
            rights.guard.clone(),
            rights.subject.clone(),
            rights.room.clone(),
            parts.collect(),
            withheld,
        );
        // That somebody is who it was it must be, whatever it may see.
        Held::new(Some(rights.hold(Arc::default())), Some(grants))
    }

    /// What a call was held against together with another.
    pub(super) fn and(mut self, other: Self) -> Self {
        match (&mut self.rights, other.rights) {
            (Some(own), Some(other)) => {
                own.all = own.all.iter().chain(&*other.all).cloned().collect();
            }
            (None, other) => self.rights = other,
            (Some(_), None) => {}
        }
        self
    }

    /// Asks anew who the caller is, of an answer that takes its time: it may be in other groups by now, or nobody.
    pub(super) async fn renew(&mut self) -> Result<(), AuthError> {
        if let Some(rights) = &mut self.rights {
            rights.subject = rights.guard.confirm(&rights.subject, &[]).await?;
        }
        Ok(())
    }

    /// Whether the caller may also get what a verdict tells of beside its target: all objects of a kind in a
    /// namespace.
    pub(super) async fn may_get(&self, names: &Names, resource: &str, namespace: &str) -> bool {
        let Some(rights) = &self.rights else {
            return true;
        };
        let (group, resource) = group_and_plural(names, resource);
        let attributes = ResourceAttributes {
            namespace: namespace.to_owned(),
            ..Attributes::on(Verb::Get, &group, &resource)
        };
        let answer = rights
            .guard
            .authorize(&rights.subject, &attributes.into())
            .await;
        answer.is_ok()
    }
}

impl Rights {
    fn hold(&self, all: Arc<[Attributes]>) -> Lease {
        self.guard.hold(&self.subject, all, self.room.as_ref())
    }
}

/// The part of a scope that a right is to: a namespace that it names, or all there is.
fn part<'a>(scope: &proto::Scope, right: &'a Attributes) -> &'a str {
    match right {
        Attributes::Resource(on) if !scope.namespaces.is_empty() => &on.namespace,
        _ => "",
    }
}

/// The rights of an open stream.
pub(super) struct Held {
    lease: Option<Lease>,
    ended: Pin<Box<dyn Future<Output = Over> + Send>>,
    /// Where it outlives the loss of some of them.
    grants: Option<Grants>,
}

impl Held {
    fn new(lease: Option<Lease>, grants: Option<Grants>) -> Self {
        let ended = match &lease {
            Some(lease) => lease.when_over().boxed(),
            None => std::future::pending().boxed(),
        };
        Self {
            lease,
            ended,
            grants,
        }
    }

    /// What has changed about the parts of the scope, if anything has.
    pub(super) fn turned(&mut self) -> Option<Turn> {
        if let Some(error) = self.over() {
            return Some(Turn::Over(error));
        }
        self.grants.as_mut()?.turned()
    }

    /// Until something does.
    pub(super) async fn turn(&mut self) -> Turn {
        if let Some(error) = self.over() {
            return Turn::Over(error);
        }
        let Some(grants) = &mut self.grants else {
            return Turn::Over(Error::RightsOver((&mut self.ended).await));
        };
        tokio::select! {
            over = &mut self.ended => Turn::Over(Error::RightsOver(over)),
            turn = grants.turn() => turn,
        }
    }

    /// Why the stream must end now, if it must.
    pub(super) fn over(&self) -> Option<Error> {
        self.lease.as_ref()?.over().map(Error::RightsOver)
    }

    /// Until it must.
    pub(super) async fn ended(&mut self) -> Error {
        if let Some(error) = self.over() {
            return error;
        }
        Error::RightsOver((&mut self.ended).await)
    }
}

impl Api {
    /// Whether the caller may do this to what the scope names.
    pub(super) async fn admit(
        &self,
        asking: &Asking,
        verb: Verb,
        scope: &proto::Scope,
    ) -> Result<Admitted, Error> {
        let none = BTreeSet::new();
        let (admitted, _) = self.admit_parts(asking, verb, scope, &none).await?;
        Ok(admitted)
    }

    /// The same where the parts of the scope in `without` need not be allowed as long as some other is; also which
    /// of them are not.
    pub(super) async fn admit_parts(
        &self,
        asking: &Asking,
        verb: Verb,
        scope: &proto::Scope,
        without: &BTreeSet<String>,
    ) -> Result<(Admitted, BTreeSet<String>), Error> {
        let Access::Guarded { guard, names } = &self.0.access else {
            return Ok(Default::default());
        };
        let all = of_scope(names, verb, scope)?;
        let subject = known(asking)?;
        let mut lacking = BTreeSet::new();
        let mut refused = None;
        for right in &all {
            let Err(error) = guard.authorize(&subject, right).await else {
                continue;
            };
            let part = part(scope, right);
            let must = !matches!(error, AuthError::Forbidden { .. }) || !without.contains(part);
            lacking.insert(part.to_owned());
            if must || lacking.len() == all.len() {
                refused = Some(error);
                break;
            }
        }
        if let Some(error) = refused {
            asking.denied(&error);
            return Err(error.into());
        }
        Ok((asking.admitted(guard, subject, all.into()), lacking))
    }

    /// Whether the caller may read what stands under a path.
    pub(super) async fn admit_path(&self, asking: &Asking, path: &str) -> Result<Admitted, Error> {
        let Access::Guarded { guard, .. } = &self.0.access else {
            return Ok(Admitted::default());
        };
        let subject = known(asking)?;
        let right = Attributes::path(path);
        let allowed = guard.authorize(&subject, &right).await;
        if let Err(error) = &allowed {
            asking.denied(error);
        }
        allowed?;
        Ok(asking.admitted(guard, subject, [right].into()))
    }
}

/// Who is calling; nobody where it came in by another way than through the door.
fn known(asking: &Asking) -> Result<Subject, AuthError> {
    let nobody = || AuthError::Unauthenticated("nobody has asked who is calling".to_owned());
    asking.subject.clone().ok_or_else(nobody)
}

/// The permissions that a scope takes. Only its words are looked at, and those that are none are refused.
fn of_scope(names: &Names, verb: Verb, scope: &proto::Scope) -> Result<Vec<Attributes>, Error> {
    if scope.resource.is_empty() {
        let problem = "name the kind, as in \"pods\" or \"deployments.apps\"";
        return Err(Error::invalid("scope.resource", problem));
    }
    plausible(scope)?;
    let labels: LabelSelector = super::query::text("scope.label_selector", &scope.label_selector)?
        .parse()
        .map_err(|error| Error::invalid("scope.label_selector", error))?;
    let fields = super::query::text("scope.field_selector", &scope.field_selector)?;
    let fields = FieldSelector::parse(fields)
        .map_err(|error| Error::invalid("scope.field_selector", error))?;
    let (group, resource) = group_and_plural(names, &scope.resource);
    // As the API server reads a selector that leaves one name only.
    let name = match scope.name.as_str() {
        "" => fields.only_name().unwrap_or_default(),
        name => name,
    };
    let on = ResourceAttributes {
        name: name.to_owned(),
        field_selector: fields.for_review().as_str().into(),
        label_selector: labels.to_string().as_str().into(),
        ..Attributes::on(verb, &group, &resource)
    };
    // To the API server a namespace lives in itself.
    if on.verb == Verb::Get && on.group.is_empty() && on.resource == "namespaces" {
        let namespace = on.name.clone();
        return Ok(vec![ResourceAttributes { namespace, ..on }.into()]);
    }
    Ok(in_each(&on, &scope.namespaces))
}

/// Refuses what can be no name, and more names than one call may have: each is a question to the API server.
fn plausible(scope: &proto::Scope) -> Result<(), Error> {
    if scope.namespaces.len() > MAX_NAMESPACES {
        let problem = format!("more than {MAX_NAMESPACES}; leave it empty for all");
        return Err(Error::invalid("scope.namespaces", problem));
    }
    let namespaces = scope.namespaces.iter();
    let names = [
        ("scope.resource", &scope.resource),
        ("scope.name", &scope.name),
    ];
    let all = names
        .into_iter()
        .chain(namespaces.map(|it| ("scope.namespaces", it)));
    for (field, name) in all {
        if name.len() > MAX_NAME || name.contains(char::is_control) {
            let problem = format!("it has {} bytes, and is no name", name.len());
            return Err(Error::invalid(field, problem));
        }
    }
    Ok(())
}

/// In each of these namespaces; in all where none is named.
fn in_each(on: &ResourceAttributes, namespaces: &[String]) -> Vec<Attributes> {
    if namespaces.is_empty() {
        return vec![on.clone().into()];
    }
    let mut namespaces: Vec<&String> = namespaces.iter().collect();
    namespaces.sort_unstable();
    namespaces.dedup();
    let one = |namespace: &String| {
        let namespace = namespace.clone();
        let on = on.clone();
        ResourceAttributes { namespace, ..on }.into()
    };
    namespaces.into_iter().map(one).collect()
}

/// Of a name that the API server knows; of another one as it reads: `plural.group`.
fn group_and_plural(names: &Names, name: &str) -> (String, String) {
    names(name).unwrap_or_else(|| {
        let name = name.to_ascii_lowercase();
        let (plural, group) = name.split_once('.').unwrap_or((&name, ""));
        (group.to_owned(), plural.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Arc::new(|name| match name {
            "po" | "pods" => Some((String::new(), "pods".to_owned())),
            "deploy" => Some(("apps".to_owned(), "deployments".to_owned())),
            _ => None,
        })
    }

    fn needed(verb: Verb, scope: proto::Scope) -> Vec<String> {
        let all = of_scope(&names(), verb, &scope).unwrap();
        all.iter().map(Attributes::to_string).collect()
    }

    fn scope(resource: &str, namespaces: &[&str], name: &str) -> proto::Scope {
        proto::Scope {
            resource: resource.to_owned(),
            namespaces: namespaces.iter().map(|&it| it.to_owned()).collect(),
            name: name.to_owned(),
            ..Default::default()
        }
    }

    #[test]
    fn all_namespaces_are_a_permission_of_their_own_and_each_named_one_is_too() {
        assert_eq!(
            needed(Verb::List, scope("po", &[], "")),
            [r#"list resource "pods" in API group "" at the cluster scope"#]
        );
        assert_eq!(
            needed(Verb::Watch, scope("deploy", &["shop", "bank", "shop"], "")),
            [
                r#"watch resource "deployments" in API group "apps" in the namespace "bank""#,
                r#"watch resource "deployments" in API group "apps" in the namespace "shop""#,
            ]
        );
    }

    #[test]
    fn what_the_api_server_does_not_know_is_asked_for_as_it_reads() {
        assert_eq!(
            needed(Verb::Get, scope("Cats.Example.com", &["shop"], "tom")),
            [
                r#"get resource "cats" in API group "example.com", name "tom", in the namespace "shop""#
            ]
        );
    }

    /// CVE-2024-52280: whoever might get one object of a name was let watch them all.
    #[test]
    fn cve_2024_52280_to_watch_one_name_takes_the_verb_watch_on_that_name() {
        let one = r#"watch resource "pods" in API group "", name "web", in the namespace "shop""#;
        assert_eq!(needed(Verb::Watch, scope("pods", &["shop"], "web")), [one]);
        let by_selector = proto::Scope {
            field_selector: "metadata.name=web".to_owned(),
            ..scope("pods", &["shop"], "")
        };
        assert_eq!(needed(Verb::Watch, by_selector), [one]);
        let all = r#"watch resource "pods" in API group "" in the namespace "shop""#;
        for no_name in ["metadata.name!=web", "metadata.name in (web,db)", ""] {
            let selected = proto::Scope {
                field_selector: no_name.to_owned(),
                ..scope("pods", &["shop"], "")
            };
            assert_eq!(needed(Verb::Watch, selected), [all], "{no_name}");
        }
    }

    #[test]
    fn what_can_be_no_name_is_refused_before_anybody_is_asked() {
        let many: Vec<String> = (0..=MAX_NAMESPACES).map(|n| n.to_string()).collect();
        let long = "x".repeat(MAX_NAME + 1);
        for wrong in [
            scope(&long, &[], ""),
            scope("pods", &["shop"], &long),
            scope("pods", &["a\nb"], ""),
            proto::Scope {
                namespaces: many,
                ..scope("pods", &[], "")
            },
        ] {
            let refused = of_scope(&names(), Verb::List, &wrong);
            assert!(matches!(refused, Err(Error::Invalid { .. })));
        }
    }

    #[test]
    fn one_namespace_is_read_by_a_right_in_it() {
        assert_eq!(
            needed(Verb::Get, scope("namespaces", &[], "shop")),
            [r#"get resource "namespaces" in API group "", name "shop", in the namespace "shop""#]
        );
        assert_eq!(
            needed(Verb::List, scope("namespaces", &[], "")),
            [r#"list resource "namespaces" in API group "" at the cluster scope"#]
        );
    }

    #[test]
    fn selectors_are_asked_for_as_far_as_the_api_server_can_read_them() {
        let selected = proto::Scope {
            label_selector: "app in (a,b)".to_owned(),
            field_selector: "spec.nodeName=n1,status.phase notin (Failed,Unknown),spec.x in (1,2)"
                .to_owned(),
            ..scope("pods", &["shop"], "")
        };
        let all = of_scope(&names(), Verb::List, &selected).unwrap();
        let json = serde_json::to_value(&all[0]).unwrap();
        let on = &json["resourceAttributes"];
        assert_eq!(on["labelSelector"]["rawSelector"], "app in (a,b)");
        assert_eq!(
            on["fieldSelector"]["rawSelector"],
            "spec.nodeName=n1,status.phase!=Failed,status.phase!=Unknown"
        );
    }
}
