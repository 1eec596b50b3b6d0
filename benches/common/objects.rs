//! Pods as the benches write them to a shard: made without decoding, which has a bench of its own.

use bytes::Bytes;
use informerd::object::{Key, Labels, Object};

/// Bytes of an object's JSON.
pub const SIZE: usize = 1024;

/// Pod `n` in its `version`, of [`SIZE`] bytes of JSON.
pub fn pod(n: usize, version: u64, received_unix_nanos: u64) -> Object {
    let (namespace, name) = (format!("shop-{}", n % 20), format!("checkout-{n:06}"));
    let uid = format!("{n:08x}-7c1d-4e0a-9b55-{n:012x}");
    let mut json = format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}","namespace":"{namespace}","uid":"{uid}","resourceVersion":"{version}","labels":{{"app":"checkout","tier":"web"}}}},"spec":{{"note":""#
    );
    let end = r#""}}"#;
    let padding = SIZE.saturating_sub(json.len() + end.len());
    json.extend(std::iter::repeat_n('x', padding));
    json.push_str(end);
    Object {
        key: Key::new(&namespace, &name),
        uid: uid.into(),
        resource_version: version.to_string().into(),
        generation: Some(1),
        deletion_timestamp: None,
        labels: Labels::from_iter([("app", "checkout"), ("tier", "web")]),
        owner_references: Box::default(),
        fields: Box::new([Some("node-7".into()), Some("Running".into())]),
        json: Bytes::from(json.into_bytes().into_boxed_slice()),
        stale: false,
        received_unix_nanos,
    }
}
