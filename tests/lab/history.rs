//! One random history of a whole daemon: everything that happens to it comes from a seed.

use std::{thread, time::Duration};

use fastrand::Rng;
use informerd::config::Config;
use tokio::time::{advance, sleep};

use crate::{
    chance,
    network::{Order, Tally, Weather},
    replica::config,
    world::{World, all, every, generations, labels, resting, selected, within},
};

/// Things that happen in one history.
const STEPS: usize = 45;

/// What a consumer may begin anew for that meets another daemon, or one that has forgotten.
const HOPPING: [&str; 5] = [
    "PAST_JOURNAL",
    "HISTORY_GAP",
    "HISTORY_DIFFERS",
    "HISTORY_VOID",
    "STALLED",
];

/// Whom it happens to, and how they are configured.
struct Setting {
    /// Settings of the kind, as YAML.
    kind: String,
    /// So little that consumers fall behind.
    tiny: bool,
    unreadable: bool,
    /// How bad it gets, in so many of a thousand answers.
    worst: u32,
}

impl Setting {
    fn any(rng: &mut Rng) -> Self {
        let namespaces = match rng.u8(..4) {
            0 => ", namespaces: {include: [a, a-b, b]}",
            _ => "",
        };
        let list = match rng.u8(..5) {
            0 => ", list: paged",
            1 => ", list: paged, consistency: any",
            _ => "",
        };
        let page = if rng.bool() { ", pageSize: 3" } else { "" };
        Self {
            kind: format!("{{resource: pods{namespaces}{list}{page}}}"),
            tiny: rng.u8(..3) == 0,
            unreadable: rng.u8(..3) == 0,
            worst: [0, 150, 400][rng.usize(..3)],
        }
    }

    /// `other` is in a setting that changes what is cached.
    fn config(&self, other: bool) -> Config {
        let at = self.kind.len() - 1;
        let prune = if other {
            ", prune: {drop: [.status.beat]}"
        } else {
            ""
        };
        let mut config = config(&format!("{}{prune}}}", &self.kind[..at]));
        config.upstream.discovery_interval = Duration::from_secs(600);
        let kind = &mut config.kinds[0];
        if self.tiny {
            kind.journal.bytes = 6 << 10;
            kind.tombstones.count = 4;
        }
        config
    }
}

/// Runs the history of this seed, on a clock of its own; what happened in it, or an error if it panicked.
pub fn run(seed: u64) -> thread::Result<Tally> {
    chance::seeded(seed, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(history(seed))
    })
}

async fn history(seed: u64) -> Tally {
    let mut rng = Rng::with_seed(seed);
    let setting = Setting::any(&mut rng);
    let mut world = World::new(rng.u64(..));
    for _ in 0..rng.usize(..30) {
        world.write(false);
    }
    let worst = setting.worst;
    let weather = |rng: &mut Rng| Weather(rng.u32(..=worst));
    for network in &world.networks {
        // Also while it starts.
        network.weather(weather(&mut rng));
    }
    world.start(&[setting.config(false), setting.config(false)]);
    consumers(&mut world, &setting, &mut rng);

    for _ in 0..STEPS {
        step(&mut world, &setting, &mut rng).await;
    }
    world.finish().await
}

fn consumers(world: &mut World, setting: &Setting, rng: &mut Rng) {
    // It reads all the time and is never cut: only a restore makes it begin anew, or a journal that is too short.
    let steady: &[&str] = if setting.tiny {
        &["HISTORY_VOID", "PAST_JOURNAL", "HISTORY_GAP"]
    } else {
        &["HISTORY_VOID"]
    };
    world.consume("steady", all(), Some(0), None, steady);
    world.consume("cut", all(), None, Some(rng.u64(..)), &HOPPING);
    let (name, request) = match rng.u8(..6) {
        0 => ("each change", every()),
        1 => ("labels", labels()),
        2 => ("generations", generations()),
        3 => ("rests", resting()),
        4 => ("one namespace", within(&["a"])),
        _ => ("a client", all()),
    };
    match name {
        "each change" => world.consume(name, request, Some(0), None, &["HISTORY_VOID"]),
        "a client" => world.mirror(),
        _ => world.consume(name, request, None, Some(rng.u64(..)), &HOPPING),
    }
    world.consume("selected", selected(), None, Some(rng.u64(..)), &HOPPING);
}

async fn step(world: &mut World, setting: &Setting, rng: &mut Rng) {
    let network = rng.usize(..world.networks.len());
    match rng.u8(..100) {
        0..50 => {
            for _ in 0..[1, 1, 2, 4, 25][rng.usize(..5)] {
                world.write(setting.unreadable);
            }
        }
        50..56 => world.networks[network].weather(Weather(rng.u32(..=setting.worst))),
        56..66 if setting.worst > 0 => {
            let orders = [
                Order::Cut,
                Order::End,
                Order::Mute,
                Order::Gone,
                Order::Error,
            ];
            world.networks[network].order(orders[rng.usize(..orders.len())]);
        }
        66..70 => {
            let server = rng.usize(..world.servers.len());
            let lags = rng.bool();
            if lags {
                world.networks[network].count("an API server lags");
            }
            world.servers[server].lag(lags);
        }
        70..75 => {
            let consumer = rng.usize(1..world.consumers.len());
            let asleep = rng.bool();
            if asleep {
                world.networks[network].count("consumer stalls");
            }
            world.consumers[consumer].recorder.sleep(asleep);
        }
        75..78 => world.cut_consumers(network),
        78..80 => {
            // Another configuration makes other tokens.
            let other = rng.u8(..3) == 0;
            if other {
                world.networks[1].count("configuration changed");
            }
            world.restart(1, &setting.config(other));
        }
        80..83 => change_selector(world, rng).await,
        83..86 => {
            world.networks[network].count("clock jumped");
            let jump = [1, 40, 400, 4000][rng.usize(..4)];
            advance(Duration::from_secs(rng.u64(..jump))).await;
        }
        86 if rng.bool() => restore(world, rng).await,
        87 => world.replicas[1].drain(),
        _ => {}
    }
    let pause = match rng.u8(..20) {
        0 => Duration::from_secs(rng.u64(..200)),
        1..5 => Duration::from_millis(rng.u64(..10_000)),
        5..10 => Duration::from_millis(rng.u64(..400)),
        10..15 => Duration::from_millis(rng.u64(..10)),
        _ => Duration::ZERO,
    };
    sleep(pause).await;
}

/// One of the consumers goes, and another one comes that wants something else.
async fn change_selector(world: &mut World, rng: &mut Rng) {
    let at = rng.usize(1..world.consumers.len());
    let consumer = world.consumers.swap_remove(at);
    let recording = consumer.recorder.recording();
    world.misuse_token(&recording).await;
    world.networks[0].count("consumer cancelled");
    world.cancel(consumer);
    let request = match rng.u8(..3) {
        0 => selected(),
        1 => within(&["a"]),
        _ => all(),
    };
    world.consume("late", request, None, Some(rng.u64(..)), &HOPPING);
}

/// The store goes back. Nothing is written until the daemons have noticed: a restore that overtakes what was seen before
/// is not found by itself, and this is promised to nobody.
async fn restore(world: &mut World, rng: &mut Rng) {
    world.calm();
    // Whoever lags behind the time that is restored would never know of the time after it.
    world.agree().await;
    let now = world.etcd.revision();
    world.restore(now - rng.u64(1..=(now - 100).clamp(1, 30)));
    world.agree().await;
}
