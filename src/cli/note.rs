//! What a person should know about an answer beside the answer: it may be old, and it may not be whole.

use std::time::Duration;

use super::time;
use crate::proto::{Freshness, KindState, KindStatus};

/// A quiet kind proves itself about once a minute, by the API server's bookmarks; after two that did not come the
/// daemon itself takes the watch for dead.
const OLD: Duration = Duration::from_secs(130);

/// Of pruned objects that are printed whole.
pub(super) const PRUNED: &str = "note: these are pruned copies: fields that informerd's config drops are \
    missing; to change an object, patch it, since an update made from such a copy would delete them";

/// A warning where the kind is not known as well as one expects. `listed` is what ListKinds said before.
pub(super) fn warning(
    resource: &str,
    freshness: &Freshness,
    listed: Option<&KindStatus>,
) -> Option<String> {
    let state = freshness.state();
    let age = time::duration(&freshness.age);
    let human = |age: Duration| time::human(i64::try_from(age.as_secs()).unwrap_or(i64::MAX));
    if matches!(state, KindState::Live | KindState::Unspecified) {
        let age = age.filter(|age| *age > OLD && !freshness.age_unproven)?;
        return Some(format!(
            "warning: {resource}: last known to be current {} ago (served from cache)",
            human(age)
        ));
    }
    let mut text = format!("warning: {resource}: {}", state_name(state));
    let same = listed.filter(|kind| {
        kind.freshness
            .as_ref()
            .is_some_and(|it| it.state() == state)
    });
    if let Some(since) = same.and_then(|kind| time::timestamp(&kind.since)) {
        text += &format!(" since {}", time::seconds(since));
    }
    for part in [&freshness.reason, &freshness.message] {
        if !part.is_empty() {
            text += &format!(": {part}");
        }
    }
    text += &match (state, age) {
        (KindState::Waiting | KindState::Syncing, _) => " (not served yet)".to_owned(),
        (_, Some(age)) => format!(" (served from cache, age {})", human(age)),
        (_, None) => " (served from cache)".to_owned(),
    };
    Some(text)
}

/// `LIVE`, `BACKING_OFF`, ...
pub(super) fn state_name(state: KindState) -> &'static str {
    let name = state.as_str_name();
    name.strip_prefix("KIND_STATE_").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn freshness(state: KindState, age_seconds: i64) -> Freshness {
        Freshness {
            state: state.into(),
            age: Some(prost_types::Duration {
                seconds: age_seconds,
                nanos: 0,
            }),
            ..Freshness::default()
        }
    }

    #[test]
    fn a_live_kind_is_worth_a_word_only_when_it_is_old() {
        assert_eq!(warning("pods", &freshness(KindState::Live, 61), None), None);
        assert_eq!(
            warning("pods", &freshness(KindState::Live, 180), None).as_deref(),
            Some("warning: pods: last known to be current 3m ago (served from cache)")
        );
        let unproven = Freshness {
            age_unproven: true,
            ..freshness(KindState::Live, 999)
        };
        assert_eq!(warning("events", &unproven, None), None);
    }

    #[test]
    fn another_state_says_since_when_and_why() {
        let forbidden = Freshness {
            reason: "Forbidden".into(),
            message: "may not list pods".into(),
            ..freshness(KindState::Forbidden, 180)
        };
        let listed = KindStatus {
            freshness: Some(forbidden.clone()),
            since: Some(prost_types::Timestamp {
                seconds: 1_700_000_000,
                nanos: 5,
            }),
            ..KindStatus::default()
        };
        assert_eq!(
            warning("pods", &forbidden, Some(&listed)).as_deref(),
            Some(
                "warning: pods: FORBIDDEN since 2023-11-14T22:13:20Z: Forbidden: may not list pods \
                 (served from cache, age 3m)"
            )
        );
        // The state has changed since the kinds were listed.
        assert_eq!(
            warning("pods", &freshness(KindState::BackingOff, 5), Some(&listed)).as_deref(),
            Some("warning: pods: BACKING_OFF (served from cache, age 5s)")
        );
        assert_eq!(
            warning("pods", &freshness(KindState::Syncing, 5), None).as_deref(),
            Some("warning: pods: SYNCING (not served yet)")
        );
    }
}
