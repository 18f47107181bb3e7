//! The cost of sending messages to other nodes in batches of one and of many, from the batch that a
//! lane hands over to the confirmation. The bus itself is not included.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use raybox::base::clock::Clock;
use raybox::bus::{Envelope, Published, Publisher};
use raybox::delivery::{Delivery, DeliveryOrigin, LaneItem};
use raybox::protocol::UserId;
use raybox::routing::outbox::{ENVELOPE_BYTES_MAX, OutItem, Outbox};
use raybox::store::spool::SpoolId;

fn batches(c: &mut Criterion) {
    let mut group = c.benchmark_group("outbox");
    for (name, messages, users) in
        [("1 message", 1, 1), ("100 messages for 100 users", 100, 100), ("100 messages for 1 user", 100, 1)]
    {
        group.throughput(Throughput::Elements(messages));
        group.bench_function(name, |b| {
            let mut outbox = Outbox::new(ENVELOPE_BYTES_MAX);
            let (clock, mut sequence) = (Clock::default(), 0);
            let batch = || (0..messages).map(|nth| message(1 + (nth % users) as i32)).collect::<Vec<OutItem>>();
            b.iter_batched(
                batch,
                |batch| {
                    let sorted = outbox.handle(batch, &clock, &Taker);
                    assert_eq!(sorted.published as u64, messages);
                    let confirmed = (sequence + 1..=sequence + users).collect();
                    sequence += users;
                    let sorted =
                        outbox.handle(vec![OutItem::Confirmed(Some("node-1".into()), confirmed)], &clock, &Taker);
                    assert_eq!(sorted.delivered.len() as u64, messages);
                    sorted
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// A node that accepts everything.
struct Taker;

impl Publisher for Taker {
    fn publish(&self, envelopes: &[Envelope]) -> Vec<Published> {
        vec![Published::ToOne; envelopes.len()]
    }
}

fn message(to: i32) -> OutItem {
    let text =
        r#"{"FROMID":1042,"TOID":1043,"msgType":4,"sendTime":"2026-01-01 12:00:00","msg":"how are you? ......"}"#;
    // Nobody is notified about a message of this origin, so the cost of notifying is not measured.
    let origin = DeliveryOrigin::Spooled(SpoolId(1), None);
    OutItem::Lane(LaneItem::Delivery(Delivery::new(UserId(to), text.into(), origin)))
}

criterion_group!(benches, batches);
criterion_main!(benches);
