//! How many files the process may have open: each connection is one.
//!
//! The soft limit is often 1,024, for the sake of old programs that keep file descriptors in a fixed set; the hard
//! limit is what the administrator means.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

use crate::{admin, connections};

/// Beside connections: what is watched, logs, listeners, the runtime's own.
const OTHERS: u64 = 512;

/// Allows as many as the process may allow itself, and says so where they are fewer than there may be connections.
pub(super) fn allow_all() {
    let limit = getrlimit(Resource::Nofile);
    // Absent: there is none.
    let (Some(soft), Some(hard)) = (limit.current, limit.maximum) else {
        return raise(limit);
    };
    if soft < hard {
        raise(limit);
    }
    let ports = 2 * connections::MOST + admin::CONNECTIONS;
    let wanted = ports as u64 + OTHERS;
    if hard < wanted {
        warn!(
            limit = hard,
            wanted, "fewer files may be open (ulimit -Hn) than connections are allowed"
        );
    }
}

fn raise(limit: Rlimit) {
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => info!(
            from = limit.current,
            to = limit.maximum,
            "more files may be open"
        ),
        Err(error) => warn!(%error, "the limit of open files cannot be raised"),
    }
}
