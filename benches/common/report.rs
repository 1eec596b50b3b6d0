//! Numbers with their limits beside them, and the end that a missed one makes.

use std::process::ExitCode;

/// What was measured and what it must be.
#[derive(Default)]
pub struct Report {
    missed: bool,
}

impl Report {
    /// Prints a number beside the most that it may be.
    pub fn at_most(&mut self, name: &str, value: f64, limit: f64) {
        // Not a number is a miss, too.
        let verdict = if value <= limit {
            "ok"
        } else {
            self.missed = true;
            "MISSED"
        };
        println!("{name:<56} {value:>10.3}   limit {limit:>8.2}   {verdict}");
    }

    /// Fails where a limit was missed.
    pub fn end(self) -> ExitCode {
        if self.missed {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        }
    }
}

/// The middle of an odd number of values.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
