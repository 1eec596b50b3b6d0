//! Pods, and above all their STATUS: one word for what several containers are doing.

use jiff::Timestamp;
use serde_json::Value;

use super::time;
use super::{
    Cell::{Name, Text},
    Column, Columns, NARROW, NONE, Read, WIDE,
};

pub(super) const POD: Columns = Columns {
    columns: &[
        Column("Name", NARROW, Name),
        Column("Ready", NARROW, Text),
        Column("Status", NARROW, Text),
        Column("Restarts", NARROW, Text),
        Column("Age", NARROW, Text),
        Column("IP", WIDE, Text),
        Column("Node", WIDE, Text),
        Column("Nominated Node", WIDE, Text),
        Column("Readiness Gates", WIDE, Text),
    ],
    cells: |row| {
        let pod = Summary::of(row.json);
        let restarts = match pod.restarted {
            Restarts {
                count,
                last: Some(last),
            } if count != 0 => {
                format!("{count} ({} ago)", time::between(last, row.now))
            }
            Restarts { count, .. } => count.to_string(),
        };
        vec![
            row.name(),
            format!("{}/{}", pod.ready, pod.containers),
            pod.status,
            restarts,
            row.age(),
            row.text_or("/status/podIPs/0/ip", NONE),
            row.text_or("/spec/nodeName", NONE),
            row.text_or("/status/nominatedNodeName", NONE),
            readiness_gates(row.json),
        ]
    },
};

/// What the columns say of a pod.
struct Summary {
    ready: usize,
    /// Those that run as long as the pod: init containers that restart always count.
    containers: usize,
    status: String,
    restarted: Restarts,
}

#[derive(Clone, Copy, Default)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, container: &Value) {
        self.count += container.int("/restartCount");
        let finished = container.text("/lastState/terminated/finishedAt");
        self.last = self.last.max(finished.and_then(|it| it.parse().ok()));
    }
}

impl Summary {
    fn of(pod: &Value) -> Self {
        let sidecars: Vec<&str> = pod
            .list("/spec/initContainers")
            .iter()
            .filter(|it| it.text("/restartPolicy") == Some("Always"))
            .filter_map(|it| it.text("/name"))
            .collect();
        let mut all = Self {
            ready: 0,
            containers: pod.list("/spec/containers").len() + sidecars.len(),
            status: first_word(pod),
            restarted: Restarts::default(),
        };
        let of_sidecars = all.init_containers(pod, &sidecars);
        if let Some(restarted) = of_sidecars {
            all.restarted = restarted;
            all.containers(pod);
        }
        if pod.text("/metadata/deletionTimestamp").is_some() {
            let phase = pod.text("/status/phase");
            if pod.text("/status/reason") == Some("NodeLost") {
                all.status = "Unknown".into();
            } else if !matches!(phase, Some("Succeeded" | "Failed")) {
                all.status = "Terminating".into();
            }
        }
        all
    }

    /// Looks at the init containers up to the first that holds up the others. Gives the restarts of sidecars,
    /// unless the pod is still initializing.
    fn init_containers(&mut self, pod: &Value, sidecars: &[&str]) -> Option<Restarts> {
        let mut of_sidecars = Restarts::default();
        let mut initializing = false;
        for (at, container) in pod.list("/status/initContainerStatuses").iter().enumerate() {
            self.restarted.add(container);
            let is_sidecar = container
                .text("/name")
                .is_some_and(|name| sidecars.contains(&name));
            if is_sidecar {
                of_sidecars.add(container);
            }
            let terminated = container.has("/state/terminated");
            if terminated && container.int("/state/terminated/exitCode") == 0 {
                continue;
            }
            if is_sidecar && container.flag("/started") {
                self.ready += usize::from(container.flag("/ready"));
                continue;
            }
            self.status = if terminated {
                format!("Init:{}", ended(container))
            } else {
                match container.text("/state/waiting/reason") {
                    Some(reason) if reason != "PodInitializing" => format!("Init:{reason}"),
                    _ => format!("Init:{at}/{}", pod.list("/spec/initContainers").len()),
                }
            };
            initializing = true;
            break;
        }
        (!initializing || pod.condition_is_true("Initialized")).then_some(of_sidecars)
    }

    /// Looks at the containers proper; the first one that has something to say is heard last.
    fn containers(&mut self, pod: &Value) {
        let mut running = false;
        let mut failed = None;
        for container in pod.list("/status/containerStatuses").iter().rev() {
            self.restarted.add(container);
            if let Some(reason) = container.text("/state/waiting/reason") {
                self.status = reason.into();
            } else if container.has("/state/terminated") {
                self.status = ended(container);
                if container.int("/state/terminated/exitCode") != 0 {
                    failed = Some(self.status.clone());
                }
            } else if container.flag("/ready") && container.has("/state/running") {
                running = true;
                self.ready += 1;
            }
        }
        // One container has completed; the others decide what becomes of the pod.
        if self.status == "Completed" {
            if running && pod.condition_is_true("Ready") {
                self.status = "Running".into();
            } else if let Some(failed) = failed {
                self.status = failed;
            } else if running {
                self.status = "NotReady".into();
            }
        }
    }
}

/// What the pod as a whole says.
fn first_word(pod: &Value) -> String {
    let gated = pod.list("/status/conditions").iter().any(|it| {
        it.text("/type") == Some("PodScheduled") && it.text("/reason") == Some("SchedulingGated")
    });
    if gated {
        return "SchedulingGated".into();
    }
    let reason = pod
        .text("/status/reason")
        .or_else(|| pod.text("/status/phase"));
    reason.unwrap_or_default().into()
}

/// How a container ended.
fn ended(container: &Value) -> String {
    let signal = container.int("/state/terminated/signal");
    match container.text("/state/terminated/reason") {
        Some(reason) => reason.into(),
        None if signal != 0 => format!("Signal:{signal}"),
        None => format!("ExitCode:{}", container.int("/state/terminated/exitCode")),
    }
}

fn readiness_gates(pod: &Value) -> String {
    let gates = pod.list("/spec/readinessGates");
    let open = |gate: &&Value| {
        gate.text("/conditionType")
            .is_some_and(|it| pod.condition_is_true(it))
    };
    match gates.len() {
        0 => NONE.into(),
        all => format!("{}/{all}", gates.iter().filter(open).count()),
    }
}
