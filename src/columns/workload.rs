//! What runs pods: deployments, sets, jobs.

use serde_json::Value;

use super::time;
use super::{
    Cell::{Boolean, Integer, Name, Number, Text},
    Column, Columns, NARROW, NONE, Read, Row, UNSET, WIDE,
};

const TEMPLATE: &str = "/spec/template";

pub(super) const DEPLOYMENT: Columns = Columns {
    columns: &[
        Column("Name", NARROW, Name),
        Column("Ready", NARROW, Text),
        Column("Up-to-date", NARROW, Number),
        Column("Available", NARROW, Number),
        Column("Age", NARROW, Text),
        Column("Containers", WIDE, Text),
        Column("Images", WIDE, Text),
        Column("Selector", WIDE, Text),
    ],
    cells: |row| {
        let cells = [
            row.name(),
            ready(row),
            row.number("/status/updatedReplicas"),
            row.number("/status/availableReplicas"),
            row.age(),
        ];
        let selector = row.json.selector("/spec/selector").unwrap_or_default();
        cells
            .into_iter()
            .chain(containers(row.json, TEMPLATE))
            .chain([selector])
            .collect()
    },
};

pub(super) const REPLICA_SET: Columns = Columns {
    columns: &[
        Column("Name", NARROW, Name),
        Column("Desired", NARROW, Integer),
        Column("Current", NARROW, Integer),
        Column("Ready", NARROW, Integer),
        Column("Age", NARROW, Text),
        Column("Containers", WIDE, Text),
        Column("Images", WIDE, Text),
        Column("Selector", WIDE, Text),
    ],
    cells: |row| {
        let cells = [
            row.name(),
            row.number("/spec/replicas"),
            row.number("/status/replicas"),
            row.number("/status/readyReplicas"),
            row.age(),
        ];
        cells
            .into_iter()
            .chain(containers(row.json, TEMPLATE))
            .chain([selector(row.json)])
            .collect()
    },
};

pub(super) const STATEFUL_SET: Columns = Columns {
    columns: &[
        Column("Name", NARROW, Name),
        Column("Ready", NARROW, Text),
        Column("Age", NARROW, Text),
        Column("Containers", WIDE, Text),
        Column("Images", WIDE, Text),
    ],
    cells: |row| {
        let cells = [row.name(), ready(row), row.age()];
        cells
            .into_iter()
            .chain(containers(row.json, TEMPLATE))
            .collect()
    },
};

pub(super) const DAEMON_SET: Columns = Columns {
    columns: &[
        Column("Name", NARROW, Name),
        Column("Desired", NARROW, Integer),
        Column("Current", NARROW, Integer),
        Column("Ready", NARROW, Integer),
        Column("Up-to-date", NARROW, Integer),
        Column("Available", NARROW, Integer),
        Column("Node Selector", NARROW, Text),
        Column("Age", NARROW, Text),
        Column("Containers", WIDE, Text),
        Column("Images", WIDE, Text),
        Column("Selector", WIDE, Text),
    ],
    cells: |row| {
        let nodes = row.json.labels("/spec/template/spec/nodeSelector");
        let cells = [
            row.name(),
            row.number("/status/desiredNumberScheduled"),
            row.number("/status/currentNumberScheduled"),
            row.number("/status/numberReady"),
            row.number("/status/updatedNumberScheduled"),
            row.number("/status/numberAvailable"),
            nodes.unwrap_or_else(|| NONE.into()),
            row.age(),
        ];
        cells
            .into_iter()
            .chain(containers(row.json, TEMPLATE))
            .chain([selector(row.json)])
            .collect()
    },
};

pub(super) const JOB: Columns = Columns {
    columns: &[
        Column("Name", NARROW, Name),
        Column("Status", NARROW, Text),
        Column("Completions", NARROW, Text),
        Column("Duration", NARROW, Text),
        Column("Age", NARROW, Text),
        Column("Containers", WIDE, Text),
        Column("Images", WIDE, Text),
        Column("Selector", WIDE, Text),
    ],
    cells: |row| {
        let cells = [
            row.name(),
            job_status(row),
            completions(row.json),
            duration(row),
            row.age(),
        ];
        cells
            .into_iter()
            .chain(containers(row.json, TEMPLATE))
            .chain([selector(row.json)])
            .collect()
    },
};

pub(super) const CRON_JOB: Columns = Columns {
    columns: &[
        Column("Name", NARROW, Name),
        Column("Schedule", NARROW, Text),
        Column("Timezone", NARROW, Text),
        Column("Suspend", NARROW, Boolean),
        Column("Active", NARROW, Integer),
        Column("Last Schedule", NARROW, Text),
        Column("Age", NARROW, Text),
        Column("Containers", WIDE, Text),
        Column("Images", WIDE, Text),
        Column("Selector", WIDE, Text),
    ],
    cells: |row| {
        let suspend = match row.json.pointer("/spec/suspend").and_then(Value::as_bool) {
            Some(true) => "True",
            Some(false) => "False",
            None => UNSET,
        };
        let selector = row.json.selector("/spec/jobTemplate/spec/selector");
        let cells = [
            row.name(),
            row.text_or("/spec/schedule", ""),
            row.text_or("/spec/timeZone", NONE),
            suspend.into(),
            row.json.list("/status/active").len().to_string(),
            row.since("/status/lastScheduleTime")
                .unwrap_or_else(|| NONE.into()),
            row.age(),
        ];
        cells
            .into_iter()
            .chain(containers(row.json, "/spec/jobTemplate/spec/template"))
            .chain([selector.unwrap_or_else(|| NONE.into())])
            .collect()
    },
};

fn ready(row: &Row<'_>) -> String {
    format!(
        "{}/{}",
        row.json.int("/status/readyReplicas"),
        row.json.int("/spec/replicas")
    )
}

/// Names and images.
fn containers(object: &Value, template: &str) -> [String; 2] {
    let pointer = format!("{template}/spec/containers");
    [
        object.joined(&pointer, "/name"),
        object.joined(&pointer, "/image"),
    ]
}

fn selector(object: &Value) -> String {
    object
        .selector("/spec/selector")
        .unwrap_or_else(|| NONE.into())
}

fn job_status(row: &Row<'_>) -> String {
    let first = |of: &[&'static str]| of.iter().copied().find(|it| row.json.condition_is_true(it));
    first(&["Complete", "Failed"])
        .or_else(|| row.is_being_deleted().then_some("Terminating"))
        .or_else(|| first(&["Suspended", "FailureTarget", "SuccessCriteriaMet"]))
        .unwrap_or("Running")
        .into()
}

fn completions(job: &Value) -> String {
    let succeeded = job.int("/status/succeeded");
    let parallelism = job.int("/spec/parallelism");
    if job.has("/spec/completions") {
        format!("{succeeded}/{}", job.int("/spec/completions"))
    } else if parallelism > 1 {
        format!("{succeeded}/1 of {parallelism}")
    } else {
        format!("{succeeded}/1")
    }
}

/// From its start to its end, or until now; empty before it started.
fn duration(row: &Row<'_>) -> String {
    let Some(start) = row.time("/status/startTime") else {
        return String::new();
    };
    time::between(start, row.time("/status/completionTime").unwrap_or(row.now))
}
