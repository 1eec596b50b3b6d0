//! How fresh a reply is, as every reply says.

use std::{sync::Arc, time::Instant};

use crate::{
    cache::{Kind, Phase, Position, Shard, Status},
    object::Object,
    proto,
};

/// Of these shards, as they are now; each with the position that the reply stands for. `digests` says to send
/// those: only where the caller holds exactly what the position describes.
pub fn of<'a>(
    kind: &Kind,
    shards: impl Iterator<Item = (&'a Arc<Shard<Object>>, Option<Position>)>,
    digests: bool,
    now: Instant,
) -> proto::Freshness {
    let mut positions = Vec::new();
    // `None` where nothing has proved one of them yet.
    let mut age = Some(std::time::Duration::ZERO);
    let mut unproven = false;
    let mut worst: Option<Arc<Status>> = None;
    for (shard, position) in shards {
        if let Some(position) = position {
            positions.push(proto::ShardPosition {
                namespace: shard.namespace().to_owned(),
                revision: position.revision,
                digest: if digests { position.digest } else { 0 },
                has_digest: digests,
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
