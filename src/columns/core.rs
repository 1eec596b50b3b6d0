//! Nodes, namespaces, config, events, definitions; and whatever has no columns of its own.

use jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeSet;

use super::time;
use super::{
    Cell::{Date, Name, Number, Text},
    Column, Columns, NARROW, NONE, Read, UNKNOWN, WIDE,
};

pub(super) const ANY: Columns = Columns {
    columns: &[Column("Name", NARROW, Name), Column("Age", NARROW, Text)],
    cells: |row| vec![row.name(), row.age()],
};

pub(super) const CRD: Columns = Columns {
    columns: &[
        Column("Name", NARROW, Name),
        Column("Created At", NARROW, Date),
    ],
    cells: |row| {
        let created = row.time("/metadata/creationTimestamp");
        vec![row.name(), created.map_or(UNKNOWN.into(), time::seconds)]
    },
};

pub(super) const NAMESPACE: Columns = Columns {
    columns: &[
        Column("Name", NARROW, Name),
        Column("Status", NARROW, Text),
        Column("Age", NARROW, Text),
    ],
    cells: |row| vec![row.name(), row.text_or("/status/phase", ""), row.age()],
};

pub(super) const CONFIG_MAP: Columns = Columns {
    columns: &[
        Column("Name", NARROW, Name),
        Column("Data", NARROW, Number),
        Column("Age", NARROW, Text),
    ],
    cells: |row| {
        let entries = row.json.entries("/data") + row.json.entries("/binaryData");
        vec![row.name(), entries.to_string(), row.age()]
    },
};

pub(super) const SECRET: Columns = Columns {
    columns: &[
        Column("Name", NARROW, Name),
        Column("Type", NARROW, Text),
        Column("Data", NARROW, Number),
        Column("Age", NARROW, Text),
    ],
    cells: |row| {
        let entries = row.json.entries("/data");
        vec![
            row.name(),
            row.text_or("/type", ""),
            entries.to_string(),
            row.age(),
        ]
    },
};

pub(super) const NODE: Columns = Columns {
    columns: &[
        Column("Name", NARROW, Name),
        Column("Status", NARROW, Text),
        Column("Roles", NARROW, Text),
        Column("Age", NARROW, Text),
        Column("Version", NARROW, Text),
        Column("Internal-IP", WIDE, Text),
        Column("External-IP", WIDE, Text),
        Column("OS-Image", WIDE, Text),
        Column("Kernel-Version", WIDE, Text),
        Column("Container-Runtime", WIDE, Text),
    ],
    cells: |row| {
        let mut kernel = row.text_or("/status/nodeInfo/kernelVersion", UNKNOWN);
        if let Some(architecture) = row.json.text("/status/nodeInfo/architecture") {
            kernel += &format!(" ({architecture})");
        }
        vec![
            row.name(),
            node_status(row.json),
            node_roles(row.json),
            row.age(),
            row.text_or("/status/nodeInfo/kubeletVersion", ""),
            node_address(row.json, "InternalIP"),
            node_address(row.json, "ExternalIP"),
            row.text_or("/status/nodeInfo/osImage", UNKNOWN),
            kernel,
            row.text_or("/status/nodeInfo/containerRuntimeVersion", UNKNOWN),
        ]
    },
};

fn node_status(node: &Value) -> String {
    let status = match node.condition("Ready") {
        None => "Unknown",
        Some(_) if node.condition_is_true("Ready") => "Ready",
        Some(_) => "NotReady",
    };
    let cordoned = if node.flag("/spec/unschedulable") {
        ",SchedulingDisabled"
    } else {
        ""
    };
    format!("{status}{cordoned}")
}

fn node_roles(node: &Value) -> String {
    let labels = node.pointer("/metadata/labels").and_then(Value::as_object);
    let roles: BTreeSet<&str> = labels
        .into_iter()
        .flatten()
        .filter_map(
            |(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
                None if key == "kubernetes.io/role" => value.as_str(),
                role => role,
            },
        )
        .filter(|role| !role.is_empty())
        .collect();
    match roles.len() {
        0 => NONE.into(),
        _ => roles.into_iter().collect::<Vec<_>>().join(","),
    }
}

fn node_address(node: &Value, kind: &str) -> String {
    let addresses = node.list("/status/addresses").iter();
    let address = addresses
        .filter(|it| it.text("/type") == Some(kind))
        .find_map(|it| it.text("/address"));
    address.unwrap_or(NONE).into()
}

/// Both of v1 and of events.k8s.io, which gave several fields new names.
pub(super) const EVENT: Columns = Columns {
    columns: &[
        Column("Last Seen", NARROW, Text),
        Column("Type", NARROW, Text),
        Column("Reason", NARROW, Text),
        Column("Object", NARROW, Text),
        Column("Subobject", WIDE, Text),
        Column("Source", WIDE, Text),
        Column("Message", NARROW, Text),
        Column("First Seen", WIDE, Text),
        Column("Count", WIDE, Number),
        Column("Name", WIDE, Name),
    ],
    cells: |row| {
        let event = row.json;
        let either = |new: &str, old: &str| {
            event
                .text(new)
                .or_else(|| event.text(old))
                .unwrap_or_default()
        };
        let time = |places: &[&str]| places.iter().find_map(|place| row.time(place));
        let first = time(&["/firstTimestamp", "/deprecatedFirstTimestamp", "/eventTime"]);
        let mut last = time(&["/lastTimestamp", "/deprecatedLastTimestamp"]).or(first);
        let mut count = event
            .int("/count")
            .max(event.int("/deprecatedCount"))
            .max(1);
        if event.has("/series") {
            last = row.time("/series/lastObservedTime");
            count = event.int("/series/count");
        }
        let ago =
            |at: Option<Timestamp>| at.map_or(UNKNOWN.into(), |at| time::between(at, row.now));
        let kind = either("/involvedObject/kind", "/regarding/kind").to_lowercase();
        let object = match either("/involvedObject/name", "/regarding/name") {
            "" => kind,
            name => format!("{kind}/{name}"),
        };
        vec![
            ago(last),
            row.text_or("/type", ""),
            row.text_or("/reason", ""),
            object,
            either("/involvedObject/fieldPath", "/regarding/fieldPath").into(),
            event_source(event),
            either("/message", "/note").trim().into(),
            ago(first),
            count.to_string(),
            row.name(),
        ]
    },
};

/// `component, instance`.
fn event_source(event: &Value) -> String {
    let first = |places: &[&str]| {
        places
            .iter()
            .find_map(|it| event.text(it))
            .unwrap_or_default()
    };
    let component = first(&[
        "/source/component",
        "/deprecatedSource/component",
        "/reportingComponent",
        "/reportingController",
    ]);
    match first(&[
        "/source/host",
        "/deprecatedSource/host",
        "/reportingInstance",
    ]) {
        "" => component.into(),
        instance => format!("{component}, {instance}"),
    }
}
