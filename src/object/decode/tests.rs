//! Tests of the decoder: what survives, what goes, what is refused.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::object::{
    PruneRules,
    path::{Segment, tests::path},
};

fn decoder(rules: &PruneRules, selectable: &[&str]) -> Decoder {
    let selectable = Selectable::builtin("", "pods")
        .with(selectable.iter().map(|p| path(p)))
        .unwrap();
    Decoder::new("v1", "Pod", true, &Pruner::new(rules).unwrap(), &selectable)
}

fn plain() -> Decoder {
    decoder(&PruneRules::nothing(), &[])
}

fn decode(raw: &str) -> Object {
    decoder(&PruneRules::default(), &[])
        .decode(raw.as_bytes(), 0)
        .unwrap_or_else(|error| panic!("{raw:.300}: {error}"))
}

fn json(object: &Object) -> &str {
    str::from_utf8(&object.json).unwrap()
}

/// A pod with this in its metadata and beside it.
fn pod(metadata: &str, rest: &str) -> String {
    format!(
        r#"{{"metadata":{{"name":"a","namespace":"n","resourceVersion":"7"{metadata}}}{rest}}}"#
    )
}

const OPENING: &str = r#"{"apiVersion":"v1","kind":"Pod""#;

#[test]
fn identity_is_read_and_what_the_rules_drop_is_gone() {
    let raw = pod(
        r#","uid":"u1","generation":3,"deletionTimestamp":"2024-01-01T00:00:00Z","labels":{"b":"2","a":"\u00e9"},"managedFields":[{"a":[1,{"b":2}]}],"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{}\n","x":"y"},"ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"rs","uid":"u2","controller":true,"blockOwnerDeletion":true}]"#,
        r#","spec":{"nodeName":"n1","hostNetwork":true},"status":{"phase":"Running","podIP":null}"#,
    );
    let object = decoder(
        &PruneRules::default(),
        &[
            ".spec.hostNetwork",
            ".metadata.labels['b']",
            ".metadata.generation",
        ],
    )
    .decode(raw.as_bytes(), 5)
    .unwrap();
    assert_eq!(object.key, Key::new("n", "a"));
    assert_eq!(
        (&*object.uid, &*object.resource_version, object.generation),
        ("u1", "7", Some(3))
    );
    assert_eq!(
        object.deletion_timestamp.as_deref(),
        Some("2024-01-01T00:00:00Z")
    );
    assert_eq!(
        object.labels.iter().collect::<Vec<_>>(),
        [("a", "é"), ("b", "2")]
    );
    let owner = &object.owner_references[0];
    assert_eq!(
        (
            &*owner.api_version,
            &*owner.kind,
            &*owner.name,
            &*owner.uid,
            owner.controller
        ),
        ("apps/v1", "ReplicaSet", "rs", "u2", true)
    );
    let fields: Vec<_> = object.fields.iter().map(Option::as_deref).collect();
    let n1 = Some("n1");
    assert_eq!(
        fields,
        [
            n1,
            None,
            None,
            None,
            Some("true"),
            Some("Running"),
            None,
            None,
            None,
            n1,
            Some("2"),
            Some("3")
        ]
    );
    assert_eq!(object.received_unix_nanos, 5);
    let expected = raw.replacen('{', &format!("{OPENING},"), 1);
    let expected = expected.replace(r#""managedFields":[{"a":[1,{"b":2}]}],"#, "");
    let expected = expected.replace(
        r#""kubectl.kubernetes.io/last-applied-configuration":"{}\n","#,
        "",
    );
    assert_eq!(json(&object), expected);
}

#[test]
fn the_same_object_has_the_same_bytes_however_it_came() {
    let item = pod("", r#","spec":{}"#);
    let expected = item.replacen('{', &format!("{OPENING},"), 1);
    let event = item.replacen('{', r#"{"kind":"Pod","apiVersion":"v1","#, 1);
    let partial = item.replacen(
        '{',
        r#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","#,
        1,
    );
    let pretty =
        serde_json::to_string_pretty(&serde_json::from_str::<Value>(&event).unwrap()).unwrap();
    for raw in [&item, &expected, &event, &partial] {
        assert_eq!(json(&decode(raw)), expected);
    }
    let pretty: Value = serde_json::from_str(json(&decode(&pretty))).unwrap();
    assert_eq!(pretty, serde_json::from_str::<Value>(&expected).unwrap());
}

#[test]
fn white_space_goes_and_only_between_values() {
    let raw = " { \"a\" : [ 1 , { \"b c\" :\n\"d e\" } , [ ] , { } ] , \"metadata\" : { \"name\" : \"a\" , \
               \"x\" : 1 , \"managedFields\" : [ 1 , 2 ] , \"namespace\" : \"n\" ,\t\"resourceVersion\" : \"7\" } }\r\n ";
    let expected = r#","a":[1,{"b c":"d e"},[],{}],"metadata":{"name":"a","x":1,"namespace":"n","resourceVersion":"7"}}"#;
    assert_eq!(json(&decode(raw)), format!("{OPENING}{expected}"));
}

#[test]
fn numbers_escapes_and_depth_survive_to_the_byte() {
    let deep = format!("{}1{}", "[{\"a\":".repeat(5_000), "}]".repeat(5_000));
    for value in [
        "1e400",
        "-0.0",
        "12345678901234567890123",
        "1.0",
        "1E+2",
        "-0",
        r#""\u0000\ud83d\ude00\/\b""#,
        "\"é😀\"",
        r#""\ud800""#,
        r#"{"a":1,"a":2}"#,
        &deep,
    ] {
        let raw = pod("", &format!(r#","x":{value}"#));
        assert!(
            json(&decode(&raw)).ends_with(&format!(r#","x":{value}}}"#)),
            "{value}"
        );
    }
}

#[test]
fn a_dropped_member_takes_its_comma_wherever_it_stands() {
    let rules = PruneRules {
        drop: vec![path(".x"), path(".y"), path(".l[*].x")],
        ..PruneRules::nothing()
    };
    let decoder = decoder(&rules, &[]);
    let metadata = r#""metadata":{"name":"a","namespace":"n","resourceVersion":"7"}"#;
    for (before, after) in [
        (r#"{"x":1,M}"#, r#",M}"#),
        (r#"{"x":1,"y":2,M,"z":3}"#, r#",M,"z":3}"#),
        (r#"{M,"x":1}"#, r#",M}"#),
        (r#"{M,"x":1,"z":3,"y":2}"#, r#",M,"z":3}"#),
        (r#"{"\u0078":1,M}"#, r#",M}"#),
        (
            r#"{M,"l":[{"x":1},{"y":1,"x":2},3,[{"x":1}]]}"#,
            r#",M,"l":[{},{"y":1},3,[{"x":1}]]}"#,
        ),
    ] {
        let object = decoder
            .decode(before.replace('M', metadata).as_bytes(), 0)
            .unwrap();
        assert_eq!(
            json(&object),
            format!("{OPENING}{}", after.replace('M', metadata))
        );
    }
}

#[test]
fn a_value_is_read_even_where_it_is_dropped() {
    let rules = PruneRules {
        drop: vec![path(".spec")],
        ..PruneRules::default()
    };
    let object = decoder(&rules, &[".spec.deep.er"])
        .decode(
            pod("", r#","spec":{"nodeName":"n1","deep":{"er":7}}"#).as_bytes(),
            0,
        )
        .unwrap();
    assert_eq!(object.fields[0].as_deref(), Some("n1"));
    assert_eq!(object.fields.last().unwrap().as_deref(), Some("7"));
    assert!(!json(&object).contains("spec"));
}

#[test]
fn an_events_source_falls_back_to_its_reporter() {
    let pruner = Pruner::new(&PruneRules::default()).unwrap();
    let decoder = Decoder::new(
        "v1",
        "Event",
        true,
        &pruner,
        &Selectable::builtin("", "events"),
    );
    let source =
        |rest: &str| decoder.decode(pod("", rest).as_bytes(), 0).unwrap().fields[9].clone();
    assert_eq!(
        source(r#","source":{"component":"a"},"reportingComponent":"b""#).as_deref(),
        Some("a")
    );
    assert_eq!(
        source(r#","source":{},"reportingComponent":"b""#).as_deref(),
        Some("b")
    );
    assert_eq!(
        source(r#","source":{"component":""},"reportingComponent":"b""#).as_deref(),
        Some("b")
    );
    assert_eq!(source(""), None);
}

#[test]
fn a_bad_object_is_refused_and_still_named() {
    let named = |raw: &str, message: &str| {
        let error = plain().decode(raw.as_bytes(), 0).expect_err(raw);
        assert!(error.message.contains(message), "{raw}: {error}");
        assert_eq!(error.key, Some(Key::new("n", "a")), "{raw}");
        assert_eq!(error.resource_version.as_deref(), Some("7"), "{raw}");
        error
    };
    named(
        &pod(r#","labels":5"#, ""),
        "metadata.labels is not an object of strings",
    );
    named(&pod(r#","labels":{"a":1}"#, ""), "metadata.labels is not");
    named(
        &pod(r#","generation":1.5"#, ""),
        "metadata.generation is not a 64-bit whole number",
    );
    named(
        &pod(r#","ownerReferences":[{"name":"x"}]"#, ""),
        "metadata.ownerReferences is not a list",
    );
    named(
        &pod(r#","deletionTimestamp":1"#, ""),
        "metadata.deletionTimestamp is not a string",
    );
    named(
        &pod("", r#","kind":"Status""#),
        "another kind than the v1 Pod",
    );
    named(&pod("", r#","spec":{"#), "the JSON ends too early");
    named(&pod("", r#","spec":01"#), "the JSON is wrong at byte");
    named(&pod(r#","name":"b""#, ""), "the key \"name\" stands twice");
    let error = named(&pod(r#","uid":"u","labels":[]"#, ""), "metadata.labels");
    assert_eq!(error.uid.as_deref(), Some("u"));
    assert_eq!(
        error.to_string(),
        "n/a: metadata.labels is not an object of strings"
    );
}

#[test]
fn an_object_that_is_not_utf8_is_refused_and_still_named() {
    let mut raw = pod("", r#","x":"?""#).into_bytes();
    let at = raw.iter().position(|b| *b == b'?').unwrap();
    raw[at] = 0xff;
    let error = plain().decode(&raw, 0).unwrap_err();
    assert_eq!(error.to_string(), "n/a: the JSON is not UTF-8");
}

#[test]
fn an_object_without_a_usable_name_is_refused() {
    for (raw, message) in [
        ("", "ends too early"),
        ("[]", "an object expected"),
        ("{}", "metadata.name is missing"),
        (r#"{"metadata":5}"#, "metadata.name is missing"),
        (
            r#"{"metadata":{"name":5}}"#,
            "metadata.name is not a string",
        ),
        (
            r#"{"metadata":{"name":"a/b","namespace":"n"}}"#,
            "metadata.name has a '/'",
        ),
        (
            r#"{"metadata":{"name":"a\u0000b","namespace":"n"}}"#,
            "metadata.name has a '/'",
        ),
        (
            r#"{"metadata":{"name":"a","namespace":"n/m"}}"#,
            "metadata.namespace has a '/'",
        ),
        (
            r#"{"metadata":{"name":"a"}}"#,
            "metadata.namespace is missing",
        ),
    ] {
        let error = plain().decode(raw.as_bytes(), 0).expect_err(raw);
        assert!(
            error
                .to_string()
                .starts_with("an object without a readable name: "),
            "{error}"
        );
        assert!(error.message.contains(message), "{raw}: {error}");
    }
    let pruner = Pruner::new(&PruneRules::default()).unwrap();
    let nodes = Decoder::new("v1", "Node", false, &pruner, &Selectable::default());
    let error = nodes.decode(pod("", "").as_bytes(), 0).unwrap_err();
    assert!(error.message.contains("cluster-scoped"), "{error}");
    let error = plain()
        .decode(br#"{"metadata":{"name":"a","namespace":"n"}}"#, 0)
        .unwrap_err();
    assert!(
        error
            .message
            .contains("metadata.resourceVersion is missing"),
        "{error}"
    );
    assert_eq!(error.key, Some(Key::new("n", "a")));
}

#[test]
fn the_json_takes_no_more_memory_than_its_length() {
    let object = decode(&pod("", r#","spec":{"a":[1,2,3]}"#));
    let vec: Vec<u8> = object.json.into();
    assert_eq!(vec.capacity(), vec.len());
}

/// Removes what a path names, as the rules have it.
fn remove(value: &mut Value, segments: &[Segment]) {
    let (Some(first), rest) = (segments.first(), &segments[1..]) else {
        return;
    };
    match (first, value) {
        (Segment::Field(name), Value::Object(map)) if rest.is_empty() => {
            map.remove(&**name);
        }
        (Segment::Field(name), Value::Object(map)) => {
            if let Some(below) = map.get_mut(&**name) {
                remove(below, rest);
            }
        }
        (Segment::AllItems, Value::Array(items)) if rest.is_empty() => items.clear(),
        (Segment::AllItems, Value::Array(items)) => {
            items.iter_mut().for_each(|item| remove(item, rest))
        }
        _ => {}
    }
}

/// What is left of a value when only paths (given from here on) are kept; `None` where it goes whole.
fn keep(value: &Value, paths: &[&[Segment]]) -> Option<Value> {
    if paths.iter().any(|path| path.is_empty()) {
        return Some(value.clone());
    }
    let below = |step: &Segment| -> Vec<&[Segment]> {
        paths
            .iter()
            .filter(|path| path[0] == *step)
            .map(|path| &path[1..])
            .collect()
    };
    let kept = |value: &Value, step: &Segment| {
        let below = below(step);
        if below.is_empty() {
            None
        } else {
            keep(value, &below)
        }
    };
    match value {
        Value::Object(map) => Some(Value::Object(
            map.iter()
                .filter_map(|(name, value)| {
                    Some((
                        name.clone(),
                        kept(value, &Segment::Field(name.as_str().into()))?,
                    ))
                })
                .collect(),
        )),
        Value::Array(items) => Some(Value::Array(
            items
                .iter()
                .filter_map(|item| kept(item, &Segment::AllItems))
                .collect(),
        )),
        _ => None,
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-c\"\\\\\u{1}é😀]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 48, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-c\"]", inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn any_path() -> impl Strategy<Value = Path> {
    prop::collection::vec(
        prop_oneof![3 => "\\.[a-c]", 1 => Just("[*]".to_owned())],
        0..5,
    )
    .prop_map(|rest| path(&format!(".x{}", rest.concat())))
}

proptest! {
    #[test]
    fn pruned_is_the_original_minus_what_the_rules_name(
        x in any_value(),
        drop in prop::collection::vec(any_path(), 0..4),
        keeping in prop::option::of(prop::collection::vec(any_path(), 0..4)),
        pretty: bool,
    ) {
        let original = json!({
            "metadata": {"name": "a", "namespace": "n", "resourceVersion": "1", "managedFields": [1], "q": 1},
            "x": x,
            "y": 1,
        });
        let raw = if pretty { serde_json::to_string_pretty(&original) } else { serde_json::to_string(&original) };
        let rules = PruneRules { drop, keep: keeping, ..PruneRules::default() };
        let object = decoder(&rules, &[".x.a", ".x.b.c"]).decode(raw.unwrap().as_bytes(), 0).unwrap();

        let mut expected = original.clone();
        if let Some(paths) = &rules.keep {
            let metadata = ["name", "namespace", "resourceVersion"].map(|name| path(&format!(".metadata.{name}")));
            let paths: Vec<_> = paths.iter().chain(&metadata).map(Path::segments).collect();
            expected = keep(&expected, &paths).unwrap();
        }
        for path in rules.drop.iter().chain([&path(".metadata.managedFields")]) {
            remove(&mut expected, path.segments());
        }
        expected["apiVersion"] = "v1".into();
        expected["kind"] = "Pod".into();
        prop_assert_eq!(serde_json::from_slice::<Value>(&object.json).unwrap(), expected);
        let compact = serde_json::to_string(&serde_json::from_slice::<Value>(&object.json).unwrap()).unwrap();
        prop_assert_eq!(compact.len(), object.json.len(), "no white space is left");

        let read = |value: &Value| match value {
            Value::String(text) if !text.is_empty() => Some(text.clone()),
            Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
            _ => None,
        };
        let place = Selectable::builtin("", "pods").paths().len();
        let fields: Vec<_> = object.fields[place..].iter().map(|field| field.as_deref().map(str::to_owned)).collect();
        prop_assert_eq!(fields, [read(&original["x"]["a"]), read(&original["x"]["b"]["c"])]);
    }

    #[test]
    fn any_bytes_are_an_object_or_an_error(
        bytes in prop::collection::vec(any::<u8>(), 0..64),
        cut in 0..160_usize,
        at in 0..160_usize,
        byte: u8,
    ) {
        plain().decode(&bytes, 0).ok();
        let mut raw = pod(r#","labels":{"a":"b"},"uid":"\u00e9""#, r#","x":[1.5e3,true,null,{"a":{}}],"y":"z""#).into_bytes();
        raw.truncate(raw.len().saturating_sub(cut));
        if let Some(place) = raw.get_mut(at) {
            *place = byte;
        }
        plain().decode(&raw, 0).ok();
    }
}
