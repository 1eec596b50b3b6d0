//! Any other kind, by its conditions.
//!
//! What is not said is not assumed: a resource without a status, or one that does not say that it is ready, is
//! Unknown, where other tools take it for ready.

use super::super::opinion::{Condition, Facts, Opinion};
use crate::readiness::State;

/// Conditions that say that all is well, the most telling first.
const GOOD: [&str; 6] = [
    "Ready",
    "Available",
    "Healthy",
    "Succeeded",
    "Complete",
    "Completed",
];
/// Conditions that say that something is wrong.
const BAD: [&str; 4] = ["Failed", "Failure", "Degraded", "Error"];

pub(super) fn decide(facts: &Facts) -> Result<Opinion, Opinion> {
    if !facts.has_status {
        let message = "it has no status: nobody has said anything of it";
        return Err(Opinion::unknown("NoStatus", message));
    }
    let bad = BAD
        .iter()
        .filter_map(|name| facts.condition(name))
        .find(|one| one.is_true());
    let good = GOOD.iter().find_map(|name| facts.condition(name));
    match (good, bad) {
        (Some(good), _) if !good.is_true() => Err(Opinion::of(good.state(), good)),
        (_, Some(bad)) => Err(Opinion {
            reason: word(bad),
            ..Opinion::of(State::NotReady, bad)
        }),
        (Some(good), None) => confirm(facts, good),
        (None, None) => {
            let message = format!("none of its conditions says: {}", GOOD.join(", "));
            Err(Opinion::unknown("NoReadyCondition", message))
        }
    }
}

/// A condition that holds, if it is about the latest generation.
fn confirm(facts: &Facts, good: &Condition) -> Result<Opinion, Opinion> {
    let generation = facts.generation.unwrap_or_default();
    match good.observed_generation.or(facts.observed_generation) {
        Some(observed) if generation != 0 && observed != generation => {
            let message = format!(
                "{} is about generation {observed}, the latest is {generation}",
                good.name
            );
            Err(Opinion::not_ready("OldGeneration", message))
        }
        // It has been changed since it was made, and the condition may be from before that.
        None if generation > 1 => {
            let message = format!(
                "{} holds, but its controller does not say for which generation, and the latest is {generation}",
                good.name
            );
            Err(Opinion::unknown("GenerationNotObserved", message))
        }
        _ => Ok(Opinion::of(State::Ready, good)),
    }
}

fn word(condition: &Condition) -> std::borrow::Cow<'static, str> {
    let own = condition.reason.clone().filter(|reason| !reason.is_empty());
    own.unwrap_or_else(|| condition.name.clone()).into()
}
