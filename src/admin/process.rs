//! The process's own metrics, by the names that every Prometheus client uses, read from /proc.
//!
//! Rendered here, because the recorder's counters are whole numbers and seconds of CPU are not. Where there is no
//! /proc there are none of them.

use std::{fmt::Write as _, fs};

/// What /proc counts time in, a second; fixed for programs on all of Linux's architectures that Rust builds for.
const TICKS: f64 = 100.0;

/// What /proc says of a process.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Times {
    cpu_seconds: f64,
    threads: u64,
    /// After the system's start.
    started_seconds: f64,
}

/// In Prometheus's text format.
pub(super) fn render() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let mut text = String::new();
    let mut put = |name: &str, kind: &str, help: &str, value: Option<f64>| {
        if let Some(value) = value {
            // Writing to a String does not fail.
            let _ = writeln!(
                text,
                "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n"
            );
        }
    };
    let times = times(&read("/proc/self/stat"));
    let booted = field(&read("/proc/stat"), "btime ");
    let status = read("/proc/self/status");
    // The directory is itself open while it is read.
    let open = fs::read_dir("/proc/self/fd")
        .ok()
        .map(|open| open.count().saturating_sub(1) as f64);
    let kilobytes = |name: &str| field(&status, name).map(|size| size * 1024.0);

    put(
        "process_cpu_seconds_total",
        "counter",
        "User and system CPU time.",
        times.map(|times| times.cpu_seconds),
    );
    put(
        "process_resident_memory_bytes",
        "gauge",
        "Resident memory.",
        kilobytes("VmRSS:"),
    );
    put(
        "process_virtual_memory_bytes",
        "gauge",
        "Virtual memory.",
        kilobytes("VmSize:"),
    );
    put("process_open_fds", "gauge", "Open file descriptors.", open);
    let limit = field(&read("/proc/self/limits"), "Max open files");
    put(
        "process_max_fds",
        "gauge",
        "File descriptors that may be open.",
        limit,
    );
    put(
        "process_threads",
        "gauge",
        "Threads.",
        times.map(|times| times.threads as f64),
    );
    let started = booted
        .zip(times)
        .map(|(booted, times)| booted + times.started_seconds);
    put(
        "process_start_time_seconds",
        "gauge",
        "When the process started, Unix time.",
        started,
    );
    text
}

/// The first number in the line that begins with `name`.
fn field(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn times(stat: &str) -> Option<Times> {
    // The second field is the name in brackets and may hold anything; those after it begin with the third.
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Times {
        cpu_seconds: (number(14)? + number(15)?) as f64 / TICKS,
        threads: number(20)?,
        started_seconds: number(22)? as f64 / TICKS,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 9 0 12345 1000 200 18446744073709551615 1";
        assert_eq!(
            times(stat),
            Some(Times {
                cpu_seconds: 2.0,
                threads: 9,
                started_seconds: 123.45
            })
        );
        for torn in ["", "7 (a", "7 (a) S 1 2"] {
            assert_eq!(times(torn), None, "{torn}");
        }
    }

    #[test]
    fn numbers_are_found_by_the_beginning_of_their_line() {
        let status = "Name:\tx\nVmSize:\t  200 kB\nVmRSS:\t  100 kB\n";
        assert_eq!(field(status, "VmRSS:"), Some(100.0));
        assert_eq!(field(status, "VmSwap:"), None);
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 4096       files\n";
        assert_eq!(field(limits, "Max open files"), Some(1024.0));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_memory_descriptors_and_a_start() {
        let text = render();
        for name in [
            "process_resident_memory_bytes",
            "process_open_fds",
            "process_start_time_seconds",
        ] {
            let value = field(&text, &format!("{name} "));
            assert!(value.is_some_and(|value| value > 0.0), "{name} in\n{text}");
        }
    }
}
