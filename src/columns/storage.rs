//! Persistent volumes and their claims.

use serde_json::Value;

use super::{
    Cell::{Name, Text},
    Column, Columns, NARROW, Read, Row, UNSET, WIDE,
};

pub(super) const VOLUME: Columns = Columns {
    columns: &[
        Column("Name", NARROW, Name),
        Column("Capacity", NARROW, Text),
        Column("Access Modes", NARROW, Text),
        Column("Reclaim Policy", NARROW, Text),
        Column("Status", NARROW, Text),
        Column("Claim", NARROW, Text),
        Column("StorageClass", NARROW, Text),
        Column("VolumeAttributesClass", NARROW, Text),
        Column("Reason", NARROW, Text),
        Column("Age", NARROW, Text),
        Column("VolumeMode", WIDE, Text),
    ],
    cells: |row| {
        let claim = |part: &str| row.json.text(part).unwrap_or_default();
        let claim = if row.json.has("/spec/claimRef") {
            format!(
                "{}/{}",
                claim("/spec/claimRef/namespace"),
                claim("/spec/claimRef/name")
            )
        } else {
            String::new()
        };
        vec![
            row.name(),
            row.text_or("/spec/capacity/storage", "0"),
            access_modes(row.json, "/spec/accessModes"),
            row.text_or("/spec/persistentVolumeReclaimPolicy", ""),
            phase(row),
            claim,
            class(row.json),
            row.text_or("/spec/volumeAttributesClassName", UNSET),
            row.text_or("/status/reason", ""),
            row.age(),
            row.text_or("/spec/volumeMode", UNSET),
        ]
    },
};

pub(super) const CLAIM: Columns = Columns {
    columns: &[
        Column("Name", NARROW, Name),
        Column("Status", NARROW, Text),
        Column("Volume", NARROW, Text),
        Column("Capacity", NARROW, Text),
        Column("Access Modes", NARROW, Text),
        Column("StorageClass", NARROW, Text),
        Column("VolumeAttributesClass", NARROW, Text),
        Column("Age", NARROW, Text),
        Column("VolumeMode", WIDE, Text),
    ],
    cells: |row| {
        // Only a bound claim has them.
        let (capacity, modes) = match row.json.text("/spec/volumeName") {
            None => (String::new(), String::new()),
            Some(_) => (
                row.text_or("/status/capacity/storage", "0"),
                access_modes(row.json, "/status/accessModes"),
            ),
        };
        vec![
            row.name(),
            phase(row),
            row.text_or("/spec/volumeName", ""),
            capacity,
            modes,
            class(row.json),
            row.text_or("/spec/volumeAttributesClassName", UNSET),
            row.age(),
            row.text_or("/spec/volumeMode", UNSET),
        ]
    },
};

fn phase(row: &Row<'_>) -> String {
    if row.is_being_deleted() {
        "Terminating".into()
    } else {
        row.text_or("/status/phase", "")
    }
}

/// By the annotation that came first, or by the field.
fn class(object: &Value) -> String {
    let annotation = object.text("/metadata/annotations/volume.beta.kubernetes.io~1storage-class");
    annotation
        .or_else(|| object.text("/spec/storageClassName"))
        .unwrap_or_default()
        .into()
}

fn access_modes(object: &Value, pointer: &str) -> String {
    let modes = object.list(pointer);
    let short = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let short = short
        .iter()
        .filter(|(long, _)| modes.iter().any(|mode| mode == long));
    short.map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}
