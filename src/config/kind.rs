//! Reads one entry of `kinds`.

use super::{
    Consistency, JournalConfig, KindConfig, ListStrategy, Namespaces, Place, Start,
    TombstoneConfig,
    read::{journal, set, tombstones},
    yaml::{Field, Map, Reader},
};
use crate::object::{
    path::Path,
    prune::{PruneRules, Pruner},
    selector::{FieldSelector, MAX_SELECTABLE},
};

pub(super) const KEYS: [&str; 15] = [
    "resource",
    "namespaces",
    "labelSelector",
    "fieldSelector",
    "pageSize",
    "list",
    "consistency",
    "metadataOnly",
    "withData",
    "readThrough",
    "prune",
    "selectable",
    "start",
    "journal",
    "tombstones",
];
const LIST: [(&str, ListStrategy); 3] = [
    ("auto", ListStrategy::Auto),
    ("watchlist", ListStrategy::WatchList),
    ("paged", ListStrategy::Paged),
];
const CONSISTENCY: [(&str, Consistency); 2] = [
    ("mostRecent", Consistency::MostRecent),
    ("any", Consistency::Any),
];
const START: [(&str, Start); 2] = [("eager", Start::Eager), ("onFirstUse", Start::OnFirstUse)];

/// What the top level of the file says for all kinds.
#[derive(Default)]
pub(super) struct KindDefaults {
    pub(super) journal: JournalConfig,
    pub(super) tombstones: TombstoneConfig,
}

impl KindDefaults {
    pub(super) fn kind(&self, resource: &str, place: Place) -> KindConfig {
        KindConfig {
            journal: self.journal,
            tombstones: self.tombstones,
            ..KindConfig::new(resource, place)
        }
    }
}

/// Reads one entry: a mapping, or just a name.
pub(super) fn read(
    reader: &mut Reader,
    field: &Field<'_>,
    defaults: &KindDefaults,
) -> Option<KindConfig> {
    if field.is_text() {
        return name(reader, field).map(|name| defaults.kind(name, reader.place(field)));
    }
    let map = reader.map(field, &KEYS);
    let Some(resource) = map.get("resource") else {
        // What is no mapping has been refused already.
        if field.is_map() {
            reader.refuse(
                field,
                "the entry names no kind: write resource: pods, or another name as kubectl takes it",
            );
        }
        return None;
    };
    let name = name(reader, &resource);
    let mut kind = defaults.kind(name.unwrap_or_default(), reader.place(&resource));
    // All settings are read before a bad name ends it: every mistake is reported at once.
    settings(reader, &map, &mut kind);
    name.map(|_| kind)
}

fn settings(reader: &mut Reader, map: &Map<'_>, kind: &mut KindConfig) {
    if let Some(field) = map.get("namespaces") {
        kind.places.namespaces = reader.place(&field);
        kind.namespaces = namespaces(reader, &field);
    }
    if let Some(field) = map.get("labelSelector") {
        set(&mut kind.label_selector, reader.parsed(&field));
    }
    if let Some(field) = map.get("fieldSelector") {
        field_selector(reader, &field, kind);
    }
    if let Some(field) = map.get("pageSize") {
        let size = reader.number(&field, 1..=10_000);
        set(
            &mut kind.page_size,
            size.and_then(|size| size.try_into().ok()),
        );
    }
    if let Some(field) = map.get("list") {
        set(&mut kind.list, reader.choice(&field, &LIST));
    }
    if let Some(field) = map.get("consistency") {
        set(&mut kind.consistency, reader.choice(&field, &CONSISTENCY));
        if kind.consistency == Consistency::Any && kind.list == ListStrategy::WatchList {
            reader.refuse(
                &field,
                "a list of any age is not read as a stream: write list: auto or paged, or consistency: mostRecent",
            );
        }
    }
    if let Some(field) = map.get("metadataOnly") {
        kind.places.metadata_only = reader.place(&field);
        set(&mut kind.metadata_only, reader.boolean(&field));
    }
    if let Some(field) = map.get("withData") {
        set(&mut kind.with_data, reader.boolean(&field));
        if kind.with_data && kind.metadata_only {
            reader.refuse(&field, "goes against metadataOnly: remove one of the two");
        }
    }
    if let Some(field) = map.get("readThrough") {
        set(&mut kind.read_through, reader.boolean(&field));
        if kind.read_through && !kind.metadata_only {
            reader.refuse(
                &field,
                "says nothing where whole objects are cached: remove it, or add metadataOnly: true",
            );
        }
    }
    if let Some(field) = map.get("prune") {
        kind.places.prune = reader.place(&field);
        prune(reader, &field, kind);
    }
    if let Some(field) = map.get("selectable") {
        selectable(reader, &field, kind);
    }
    if let Some(field) = map.get("start") {
        set(&mut kind.start, reader.choice(&field, &START));
    }
    if let Some(field) = map.get("journal") {
        journal(reader, &field, &mut kind.journal);
    }
    if let Some(field) = map.get("tombstones") {
        tombstones(reader, &field, &mut kind.tombstones);
    }
}

fn name<'n>(reader: &mut Reader, field: &Field<'n>) -> Option<&'n str> {
    let text = reader.text(field)?;
    check_name(text)
        .map_err(|error| reader.refuse(field, error))
        .ok()
        .map(|()| text)
}

/// Whether it can be the name of a kind at all.
pub(super) fn check_name(text: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    if let Some((resource, _)) = text.split_once('/') {
        let hint = if resource.starts_with('v') {
            "pods, or deployments.apps"
        } else {
            resource
        };
        return Err(format!(
            "`{text}` has a slash, and neither a subresource nor an apiVersion is a kind's name: write {hint}"
        ));
    }
    if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) || !text.chars().all(plain) {
        return Err(format!(
            "`{text}` is not a kind's name: write it as kubectl takes it, such as pods or deployments.apps"
        ));
    }
    Ok(())
}

fn namespaces(reader: &mut Reader, field: &Field<'_>) -> Namespaces {
    let map = reader.map(field, &["include", "exclude"]);
    match (map.get("include"), map.get("exclude")) {
        (Some(_), Some(exclude)) => {
            reader.refuse(
                &exclude,
                "include and exclude cannot both be said: what is not included is excluded anyway, so remove one",
            );
            Namespaces::All
        }
        (Some(include), None) => Namespaces::Include(namespace_names(reader, &include)),
        (None, Some(exclude)) => Namespaces::Exclude(namespace_names(reader, &exclude)),
        (None, None) => {
            if field.is_empty_map() {
                reader.refuse(
                    field,
                    "says nothing: write include: [..] or exclude: [..], or remove it for all namespaces",
                );
            }
            Namespaces::All
        }
    }
}

fn namespace_names(reader: &mut Reader, field: &Field<'_>) -> Vec<String> {
    let items = reader.list(field);
    if field.is_empty_list() {
        reader.refuse(
            field,
            "is empty: name at least one namespace, or remove it for all of them",
        );
    }
    let mut names: Vec<String> = Vec::new();
    for item in items {
        let Some(name) = reader.text(&item) else {
            continue;
        };
        if !is_dns_label(name) {
            reader.refuse(
                &item,
                format!(
                    "`{name}` is not a namespace: write lower-case letters, digits and dashes, 63 at most"
                ),
            );
        } else if names.iter().any(|known| known == name) {
            reader.refuse(
                &item,
                format!("`{name}` stands here twice: remove one of them"),
            );
        } else {
            names.push(name.to_owned());
        }
    }
    names
}

fn is_dns_label(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&name.len())
        && name.chars().all(allowed)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

fn field_selector(reader: &mut Reader, field: &Field<'_>, kind: &mut KindConfig) {
    let Some(selector) = reader.parsed::<FieldSelector>(field) else {
        return;
    };
    let Some(text) = selector.to_kubernetes() else {
        reader.refuse(
            field,
            "the API server selects by = and != only, not by sets with several values: write a != b, a != c for \
             what is unwanted, or watch all and let consumers select",
        );
        return;
    };
    if kind.namespaces != Namespaces::All
        && text
            .split(',')
            .any(|term| term.starts_with("metadata.namespace"))
    {
        reader.refuse(
            field,
            "metadata.namespace is said by `namespaces` already: remove it from one of the two",
        );
        return;
    }
    kind.field_selector = selector;
}

fn prune(reader: &mut Reader, field: &Field<'_>, kind: &mut KindConfig) {
    let map = reader.map(field, &["managedFields", "lastApplied", "drop", "keep"]);
    let mut rules = PruneRules::default();
    if let Some(field) = map.get("managedFields") {
        set(&mut rules.managed_fields, reader.boolean(&field));
    }
    if let Some(field) = map.get("lastApplied") {
        set(&mut rules.last_applied, reader.boolean(&field));
    }
    if let Some(field) = map.get("keep") {
        let paths = paths(reader, &field, kind.metadata_only, "kept");
        if paths.is_empty() && field.is_empty_list() {
            reader.refuse(
                &field,
                "keeps nothing: name paths, or write metadataOnly: true for identity and metadata",
            );
        }
        rules.keep = Some(paths.into_iter().map(|(_, path)| path).collect());
    }
    if let Some(field) = map.get("drop") {
        for (item, path) in paths(reader, &field, kind.metadata_only, "dropped") {
            if let Some(message) = drop_against_keep(&path, rules.keep.as_deref()) {
                reader.refuse(&item, message);
                continue;
            }
            let alone = PruneRules {
                drop: vec![path.clone()],
                ..PruneRules::nothing()
            };
            match Pruner::new(&alone) {
                Ok(_) => rules.drop.push(path),
                Err(error) => reader.refuse(&item, error.to_string()),
            }
        }
    }
    kind.prune = rules;
}

fn drop_against_keep(drop: &Path, keep: Option<&[Path]>) -> Option<String> {
    let keep = keep?;
    if let Some(kept) = keep.iter().find(|kept| kept.starts_with(drop)) {
        return Some(format!(
            "`{drop}` is dropped and `{kept}` is kept, and both cannot be: remove one of them"
        ));
    }
    let below = keep.iter().any(|kept| drop.starts_with(kept));
    (!below).then(|| {
        format!(
            "`{drop}` is not among what `keep` keeps, so it is left out already: remove it here"
        )
    })
}

/// Paths, each with its place. Those that a metadata-only kind does not have are refused.
fn paths<'n>(
    reader: &mut Reader,
    field: &Field<'n>,
    metadata_only: bool,
    done: &str,
) -> Vec<(Field<'n>, Path)> {
    let mut paths = Vec::new();
    for item in reader.list(field) {
        let Some(path) = reader.parsed::<Path>(&item) else {
            continue;
        };
        if metadata_only && !path.starts_with(&metadata()) {
            reader.refuse(
                &item,
                format!(
                    "`{path}` cannot be {done}, for metadataOnly reads nothing outside .metadata: remove one of the two"
                ),
            );
            continue;
        }
        paths.push((item, path));
    }
    paths
}

pub(super) fn metadata() -> Path {
    Path::of(&["metadata"])
}

fn selectable(reader: &mut Reader, field: &Field<'_>, kind: &mut KindConfig) {
    for (item, path) in paths(reader, field, kind.metadata_only, "selected by") {
        if kind.selectable.contains(&path) {
            reader.refuse(
                &item,
                format!("`{path}` stands here twice: remove one of them"),
            );
            continue;
        }
        kind.selectable.push(path);
    }
    if kind.selectable.len() > MAX_SELECTABLE {
        let message = format!(
            "has {} paths, {MAX_SELECTABLE} are allowed: remove some",
            kind.selectable.len()
        );
        reader.refuse(field, message);
    }
}

/// Refuses kinds that have the same name.
pub(super) fn refuse_twice(reader: &mut Reader, kinds: &[KindConfig]) {
    for (at, kind) in kinds.iter().enumerate() {
        let same = |other: &&KindConfig| other.resource.eq_ignore_ascii_case(&kind.resource);
        if let Some(first) = kinds[..at].iter().find(same) {
            let message = format!(
                "`{}` is configured at {} already: remove one of them",
                kind.resource, first.place
            );
            reader.refuse_at(kind.place.clone(), "", message);
        }
    }
}
