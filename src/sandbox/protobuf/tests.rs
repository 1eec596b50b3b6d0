//! By hand, so that each rule has its bytes; `tests/integration/sandbox.rs` holds it against what Go writes.

use serde_json::json;

use super::*;

/// A field with a length.
fn bytes(number: u8, content: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2, u8::try_from(content.len()).unwrap()];
    field.extend_from_slice(content);
    field
}

fn varint(number: u8, value: u8) -> Vec<u8> {
    vec![number << 3, value]
}

fn document(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let of = [bytes(1, api_version.as_bytes()), bytes(2, kind.as_bytes())].concat();
    [MAGIC, &bytes(1, &of), &bytes(2, raw)].concat()
}

fn read(api_version: &str, kind: &str, raw: &[u8]) -> Value {
    decode(&document(api_version, kind, raw)).unwrap()
}

#[test]
fn texts_maps_and_bytes_are_read_and_what_is_empty_is_left_out() {
    let entry = |key: &str, value: &[u8]| [bytes(1, key.as_bytes()), bytes(2, value)].concat();
    let map = [
        bytes(1, &[bytes(1, b"a"), bytes(2, b""), varint(7, 0)].concat()),
        bytes(2, &entry("k", "vé".as_bytes())),
        bytes(2, &bytes(1, b"empty")),
        bytes(3, &entry("b", &[0, 255])),
    ]
    .concat();
    assert_eq!(
        read("v1", "ConfigMap", &map),
        json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a"},
            "data": {"k": "vé", "empty": ""}, "binaryData": {"b": "AP8="}})
    );
}

#[test]
fn numbers_times_and_what_is_a_number_or_a_text_are_read() {
    let time = [varint(1, 5), varint(2, 0)].concat();
    let metadata = bytes(8, &time);
    let named = [varint(1, 1), bytes(3, b"http")].concat();
    let port = [varint(3, 80), bytes(4, &named), varint(5, 0)].concat();
    let spec = bytes(1, &port);
    let service = [bytes(1, &metadata), bytes(2, &spec)].concat();
    let read = read("v1", "Service", &service);
    assert_eq!(
        read["metadata"]["creationTimestamp"],
        "1970-01-01T00:00:05Z"
    );
    assert_eq!(
        read["spec"]["ports"],
        json!([{"port": 80, "targetPort": "http"}])
    );
    let minus_one = [vec![3 << 3], vec![255; 9], vec![1]].concat();
    let port = [minus_one, bytes(4, &varint(2, 8))].concat();
    let service = bytes(2, &bytes(1, &port));
    let read = super::tests::read("v1", "Service", &service);
    assert_eq!(
        read["spec"]["ports"][0],
        json!({"port": -1, "targetPort": 8})
    );
}

#[test]
fn what_stands_in_the_place_of_its_parent_and_what_is_unknown_are_told_apart() {
    // volumes: name, and emptyDir as one of the sources; field 99 is of the future.
    let future = [0x9a, 0x06, 1, b'x'];
    let volume = [bytes(1, b"v"), bytes(2, &bytes(2, &[])), future.to_vec()].concat();
    let pod = bytes(2, &bytes(1, &volume));
    assert_eq!(
        read("v1", "Pod", &pod)["spec"]["volumes"],
        json!([{"name": "v", "emptyDir": {}}])
    );
    let options = read("apps/v1", "DeleteOptions", &varint(1, 0));
    assert_eq!(
        options,
        json!({"kind": "DeleteOptions", "apiVersion": "apps/v1", "gracePeriodSeconds": 0})
    );
}

#[test]
fn malformed_documents_are_refused() {
    assert_eq!(decode(b"{}"), Err(ProtobufError::Magic));
    assert_eq!(decode(b"k8s\0\x0a\x05"), Err(ProtobufError::Short));
    assert_eq!(
        decode(b"k8s\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
        Err(ProtobufError::Short)
    );
    let unknown = decode(&document("batch/v1", "Job", &[]));
    assert!(
        unknown
            .unwrap_err()
            .to_string()
            .contains("\"Job\" of \"batch/v1\" is not known here")
    );
    let number = decode(&document("v1", "Pod", &varint(1, 1)));
    assert_eq!(
        number.unwrap_err().to_string(),
        "core.Pod, field 1: it must have a length"
    );
    let text = bytes(1, &bytes(1, &[0xff]));
    assert_eq!(
        decode(&document("v1", "Pod", &text))
            .unwrap_err()
            .to_string(),
        "meta.ObjectMeta, field 1: it is not UTF-8"
    );
}

#[test]
fn no_bytes_make_it_fail_otherwise_than_with_an_error() {
    let mut rng = fastrand::Rng::with_seed(7);
    let spec = bytes(2, &bytes(2, &[bytes(1, b"c"), bytes(2, b"i")].concat()));
    let good = document("v1", "Pod", &[bytes(1, &bytes(1, b"p")), spec].concat());
    assert!(decode(&good).is_ok());
    for _ in 0..20_000 {
        let mut bad = good.clone();
        for _ in 0..rng.usize(1..4) {
            let at = rng.usize(4..bad.len());
            bad[at] = rng.u8(..);
        }
        bad.truncate(rng.usize(4..=bad.len()));
        let _ = decode(&bad);
    }
}
