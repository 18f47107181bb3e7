//! Pumps between a model of the store and strict clients, under a random schedule: pushes are lost,
//! doubled and late, others commit at the same time, reads and answers are late or fail,
//! connections end anywhere and come back, histories lose their end, floors rise.
//!
//! The client checks every frame as it comes (order, contiguity, who is first), and what it has
//! stored at the end against the history.

mod client;
mod device;
mod random;
mod store;
mod world;

use self::world::{Faults, World};

/// Runs a thousand schedules. Each seed is a separate world.
#[test]
fn clients_store_exactly_what_was_committed() {
    for seed in seeds(1_000) {
        run(seed, Faults::default());
    }
}

/// The same without lost pushes: only the schedule works against the pump, so every message arrives
/// without a sweep.
#[test]
fn without_loss_no_sweep_is_needed() {
    for seed in seeds(300) {
        run(seed, Faults { lose_pushes: false, sweep: false, ..Faults::default() });
    }
}

/// The same with a store that loses the end of its history, while clients are connected or not.
#[test]
fn a_history_that_was_lost_is_noticed() {
    for seed in seeds(300) {
        run(seed, Faults { lose_history: true, ..Faults::default() });
    }
}

/// The next message of a conversation reveals the loss: on a single node nobody sweeps.
#[test]
fn a_history_that_was_lost_is_noticed_without_a_sweep() {
    for seed in seeds(300) {
        run(seed, Faults { lose_history: true, lose_pushes: false, sweep: false });
    }
}

/// `SIM_SEED` is the first seed, `SIM_SEEDS` the number of them.
fn seeds(count: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let first = number("SIM_SEED").unwrap_or(0);
    first..first + number("SIM_SEEDS").unwrap_or(count)
}

fn run(seed: u64, faults: Faults) {
    /// Reports the seed that failed.
    struct PageWritten(u64, Faults);
    impl Drop for PageWritten {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("seed {} with {:?}", self.0, self.1);
            }
        }
    }
    let _shown = PageWritten(seed, faults);
    let mut world = World::new(seed, faults);
    for _ in 0..400 {
        world.step();
    }
    world.finish();
}
