//! The cost of finding the connection that receives for a user: alone, and while another thread
//! does the same or logs users in and out.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use criterion::{Criterion, criterion_group, criterion_main};
use net::simulation::link_to_nowhere;
use raybox::delivery::{ClientLink, Posted};
use raybox::protocol::UserId;
use raybox::routing::presence::Presence;

fn look_up(c: &mut Criterion) {
    let presence = crowded();
    let mut group = c.benchmark_group("presence, 10,000 online");
    let mut users = scattered();
    group.bench_function("look up", |b| b.iter(|| find(&presence, users.next())));
    let mut absent = scattered().map(|user| UserId(user.0 + USERS));
    group.bench_function("look up one who is absent", |b| b.iter(|| find(&presence, absent.next())));

    let mut users = scattered();
    let looks = |user| {
        find(&presence, Some(user));
    };
    beside(looks, || {
        group.bench_function("look up beside a thread that looks up", |b| b.iter(|| find(&presence, users.next())));
    });
    beside(
        |user| move_one(&presence, user),
        || {
            group.bench_function("look up beside a thread of logins", |b| b.iter(|| find(&presence, users.next())));
        },
    );
    group.finish();
}

/// Does what a delivery does: lock the shard, find the link, unlock the shard. Returns whether the
/// user was online.
fn find(presence: &Presence<Posted>, user: Option<UserId>) -> bool {
    let user = black_box(user.expect("they never end"));
    presence.read(user).newest(user).map(black_box).is_some()
}

/// Logs a user in once more, on another connection.
fn move_one(presence: &Presence<Posted>, user: UserId) {
    let mut shard = presence.write(user);
    let link = shard.newest(user).expect("all are online").clone();
    shard.remove(user, &link);
    shard.add(user, &link);
}

/// Measures while another thread runs `act` for one user after the other without a pause.
fn beside(act: impl Fn(UserId) + Sync, measure: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            // Starts in the middle, so that the two threads rarely meet at the same users.
            let mut users = scattered().skip(USERS as usize / 2);
            while !stop.load(Ordering::Relaxed) {
                users.next().into_iter().for_each(&act);
            }
        });
        measure();
        stop.store(true, Ordering::Relaxed);
    });
}

fn crowded() -> Presence<Posted> {
    let presence = Presence::new();
    // One link for several users, because a process has fewer descriptors than there are users.
    let links: Vec<Arc<ClientLink>> = (0..LINKS).map(|_| link_to_nowhere().expect("a link")).collect();
    for user in 1..=USERS {
        presence.write(UserId(user)).add(UserId(user), &links[user as usize % LINKS]);
    }
    presence
}

/// All users in an endless cycle, in an order that no cache can predict.
fn scattered() -> impl Iterator<Item = UserId> {
    (0..).map(|nth: i32| UserId(nth.wrapping_mul(STEP).rem_euclid(USERS) + 1))
}

const USERS: i32 = 10_000;
const LINKS: usize = 100;
/// Coprime with the number of users, so that the steps reach every user.
const STEP: i32 = 7_919;

criterion_group!(benches, look_up);
criterion_main!(benches);
