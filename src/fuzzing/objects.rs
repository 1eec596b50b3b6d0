//! What the API server sends, and what masks leave of it.

use std::sync::LazyLock;

use bytes::Bytes;
use serde_json::Value;

use super::split;
use crate::{
    object::{Decoder, Object, Path, Projection, PruneRules, Pruner, Selectable, View},
    source::decode::{Event, Lines, Page},
};

/// Objects as they are, without what the rules of a common configuration drop, and only what they keep.
static DECODERS: LazyLock<[Decoder; 3]> = LazyLock::new(|| {
    let path = |text: &str| text.parse::<Path>().expect("a good path");
    let dropping = PruneRules {
        drop: vec![
            path(".spec.volumes"),
            path(".metadata.annotations['a/b']"),
            path(".spec.containers[*].env"),
        ],
        ..PruneRules::default()
    };
    let keeping = PruneRules {
        keep: Some(vec![
            path(".status.phase"),
            path(".spec.containers[*].image"),
        ]),
        ..PruneRules::default()
    };
    [PruneRules::nothing(), dropping, keeping].map(|rules| {
        let pruner = Pruner::new(&rules).expect("they drop no identity");
        let selectable = Selectable::builtin("", "pods");
        Decoder::new("v1", "Pod", true, &pruner, &selectable)
    })
});

/// What serde_json reads of what was served; nothing where that has half of a surrogate pair, escaped, or a number that
/// no float is: JSON's grammar allows both, serde_json refuses them, and they are passed on as they came. (Go reads the
/// one as U+FFFD, and refuses the other, too.)
fn json(bytes: &[u8]) -> Option<Value> {
    match serde_json::from_slice(bytes) {
        Ok(value) => Some(value),
        Err(error) => {
            let why = error.to_string();
            let is_theirs = ["hex escape", "number out of range"].map(|it| why.contains(it));
            assert!(
                is_theirs.contains(&true),
                "{why}: {:?}",
                String::from_utf8_lossy(bytes)
            );
            None
        }
    }
}

fn decoded(data: &[u8]) -> Option<Object> {
    DECODERS[0].decode(data, 0).ok()
}

/// What is read is JSON, is what serde_json reads of it, and is left alone when it is read again.
pub(super) fn object(data: &[u8]) {
    let document = serde_json::from_slice::<Value>(data).ok();
    for decoder in DECODERS.iter() {
        let Ok(object) = decoder.decode(data, 0) else {
            continue;
        };
        if let (Some(json), Some(document)) = (json(&object.json), &document) {
            let metadata = &document["metadata"];
            assert_eq!(metadata["name"].as_str(), Some(object.key.name()));
            let namespace = metadata["namespace"].as_str().unwrap_or_default();
            assert_eq!(namespace, object.key.namespace());
            assert!(is_part_of(&json, document), "{json}");
        }
        let again = decoder.decode(&object.json, 0).expect("it was read before");
        assert_eq!(again.json, object.json);
        assert_eq!(
            (
                &again.key,
                &again.uid,
                &again.resource_version,
                &again.labels
            ),
            (
                &object.key,
                &object.uid,
                &object.resource_version,
                &object.labels
            )
        );
    }
}

/// Whether nothing is there that was not, but for the kind's own two names.
fn is_part_of(part: &Value, whole: &Value) -> bool {
    let Value::Object(part) = part else {
        return part == whole;
    };
    part.iter().all(|(name, value)| {
        ["apiVersion", "kind"].contains(&name.as_str())
            || whole.get(name).is_some_and(|whole| is_within(value, whole))
    })
}

fn is_within(part: &Value, whole: &Value) -> bool {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => part
            .iter()
            .all(|(name, value)| whole.get(name).is_some_and(|whole| is_within(value, whole))),
        (Value::Array(part), Value::Array(whole)) => {
            // One in which no item is named stays as a shape.
            part.is_empty()
                || part.len() == whole.len()
                    && part
                        .iter()
                        .zip(whole)
                        .all(|(part, whole)| is_within(part, whole))
        }
        _ => part == whole,
    }
}

/// A mask, one path a line up to an empty one, and the object that it is for.
pub(super) fn mask(data: &[u8]) {
    let (mut paths, mut rest) = (Vec::new(), data);
    loop {
        let (line, after) = split(rest);
        rest = after;
        let Ok(text) = str::from_utf8(line) else {
            return;
        };
        if text.is_empty() {
            break;
        }
        match text.parse::<Path>() {
            Ok(path) => paths.push(path),
            Err(_) => return,
        }
    }
    let Some(object) = decoded(rest) else {
        return;
    };
    let Some(whole) = json(&object.json) else {
        return;
    };
    for view in [View::Full, View::Metadata, View::Keys] {
        let projection = Projection::new(view, paths.clone());
        let shown = projection.apply(&object);
        assert!(projection.shows_the_same(&object, &object));
        if view == View::Keys {
            assert!(shown.is_empty());
            continue;
        }
        let part = json(&shown).expect("the whole is");
        assert!(is_within(&part, &whole), "{part} of {whole}");
        let cut = Object {
            json: shown.clone(),
            ..object.clone()
        };
        assert_eq!(
            projection.apply(&cut),
            shown,
            "a mask leaves alone what it has left"
        );
    }
}

/// The bodies of a watch and of a list, cut in pieces: the same comes out wherever they are cut.
pub(super) fn watch(data: &[u8]) {
    let Some((size, body)) = data.split_first() else {
        return;
    };
    let size = usize::from(*size).max(1);
    assert_eq!(lines(body, body.len().max(1)), lines(body, size));
    assert_eq!(items(body, body.len().max(1)), items(body, size));
    for line in lines(body, size).0 {
        let _ = Event::read(&line);
        let _ = Event::read_any(&line);
    }
}

/// Lines until something is wrong, and whether nothing was.
fn lines(body: &[u8], size: usize) -> (Vec<Bytes>, bool) {
    let (mut reader, mut all) = (Lines::default(), Vec::new());
    for piece in body.chunks(size) {
        reader.push(Bytes::copy_from_slice(piece));
        loop {
            match reader.take() {
                Ok(Some(line)) => all.push(line),
                Ok(None) => break,
                Err(_) => return (all, false),
            }
        }
    }
    (all, reader.is_whole())
}

/// Items until something is wrong, and how the list ended where nothing was.
fn items(body: &[u8], size: usize) -> (Vec<Vec<u8>>, Option<String>) {
    let (mut page, mut all) = (Page::default(), Vec::new());
    for piece in body.chunks(size) {
        let pushed = page.push(piece, |item| all.push(item.to_vec()));
        if pushed.is_err() {
            return (all, None);
        }
    }
    (all, page.finish().ok().map(|end| format!("{end:?}")))
}
