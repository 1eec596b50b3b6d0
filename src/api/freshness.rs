//! How fresh a reply is, as every reply says.

use std::{sync::Arc, time::Instant};

use crate::{
    cache::{Kind, Phase, Position, Shard, Status},
    object::Object,
    proto,
};

/// Of these shards, as they are now; each with the position that the reply stands for. `digest` gives that of what the
/// caller then holds, where it is known and wanted.
pub fn of<'a>(
    kind: &Kind,
    shards: impl Iterator<Item = (&'a Arc<Shard<Object>>, Option<Position>)>,
    digest: impl Fn(&Arc<Shard<Object>>, &Position) -> Option<u64>,
    now: Instant,
) -> proto::Freshness {
    let mut positions = Vec::new();
    // `None` where nothing has proved one of them yet.
    let mut age = Some(std::time::Duration::ZERO);
    let mut unproven = false;
    let mut worst: Option<Arc<Status>> = None;
    for (shard, position) in shards {
        if let Some(position) = position {
            let digest = digest(shard, &position);
            positions.push(proto::ShardPosition {
                namespace: shard.namespace().to_owned(),
                revision: position.revision,
                digest: digest.unwrap_or_default(),
                has_digest: digest.is_some(),
            });
        }
        age = age.zip(shard.age(now)).map(|(a, b)| a.max(b));
        unproven |= age.is_none() || shard.is_unproven();
        let status = shard.status();
        if worst
            .as_ref()
            .is_none_or(|worst| status.phase.badness() > worst.phase.badness())
        {
            worst = Some(status);
        }
    }
    let (state, reason, message) = match worst {
        Some(status) => (
            state(status.phase),
            status.reason.clone(),
            status.message.clone(),
        ),
        None => (proto::KindState::Unspecified, String::new(), String::new()),
    };
    proto::Freshness {
        positions,
        age: age.and_then(super::duration),
        age_unproven: unproven,
        state: state.into(),
        reason,
        message,
        pruned: kind.pruned,
        unordered: kind.is_unordered(),
    }
}

/// Where nobody can compare digests, or wants to.
pub fn no_digest(_: &Arc<Shard<Object>>, _: &Position) -> Option<u64> {
    None
}

/// A phase as the proto has it.
pub fn state(phase: Phase) -> proto::KindState {
    match phase {
        Phase::Waiting => proto::KindState::Waiting,
        Phase::Syncing => proto::KindState::Syncing,
        Phase::Live => proto::KindState::Live,
        Phase::Relisting => proto::KindState::Relisting,
        Phase::Forbidden => proto::KindState::Forbidden,
        Phase::BackingOff => proto::KindState::BackingOff,
        Phase::Removed => proto::KindState::Removed,
    }
}
