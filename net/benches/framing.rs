//! The cost of finding the frames in received bytes.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use net::{Decoder, Item};

/// Chat frames of a usual size, back to back as one read returns them.
fn back_to_back(c: &mut Criterion) {
    let mut group = c.benchmark_group("framing");
    for (name, ending) in [("bare", ""), ("lines", "\n")] {
        let received = format!("{}{ending}", chat()).repeat(FRAMES);
        group.throughput(Throughput::Bytes(received.len() as u64));
        group.bench_function(format!("{FRAMES} frames of 100 bytes, {name}"), |b| {
            b.iter_batched_ref(
                decoder,
                |decoder| assert_eq!(take_all(decoder, received.as_bytes()), FRAMES),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// One frame that arrives over a slow link in small segments.
fn in_pieces(c: &mut Criterion) {
    let frame = chat();
    c.bench_function("framing/a frame of 100 bytes in pieces of 10", |b| {
        b.iter_batched_ref(
            decoder,
            |decoder| {
                for end in (10..frame.len()).step_by(10) {
                    assert_eq!(decoder.look(black_box(&frame.as_bytes()[..end]), true), Item::Incomplete);
                }
                assert_eq!(take_all(decoder, frame.as_bytes()), 1);
            },
            BatchSize::SmallInput,
        );
    });
}

/// Input that is not JSON: the usual client's heartbeat, and an object that can no longer become
/// one. A good frame follows each.
fn broken(c: &mut Criterion) {
    for (name, bad) in
        [("the heartbeat", "keep this socket alive\n"), ("a broken object", "{\"msgType\":4,,\"TOID\":2\n")]
    {
        let received = format!("{bad}{}", chat());
        c.bench_function(&format!("framing/{name} before a frame"), |b| {
            b.iter_batched_ref(
                decoder,
                |decoder| assert_eq!(take_all(decoder, received.as_bytes()), 2),
                BatchSize::SmallInput,
            );
        });
    }
}

/// Takes everything available; returns the number of frames and pieces of garbage.
fn take_all(decoder: &mut Decoder, received: &[u8]) -> usize {
    let (mut at, mut taken) = (0, 0);
    loop {
        let len = match decoder.look(black_box(&received[at..]), true) {
            Item::Frame { len, .. } | Item::Garbage { len, .. } => {
                taken += 1;
                len
            }
            Item::LineEnd { len } | Item::Blank { len } => len,
            Item::Incomplete => return taken,
            Item::Oversize | Item::Http | Item::Foreign(_) => {
                unreachable!("no frame is that long, and these are frames")
            }
        };
        decoder.taken();
        at += len;
    }
}

fn decoder() -> Decoder {
    Decoder::new(64 * 1024)
}

fn chat() -> String {
    let head = r#"{"FROMID":1042,"TOID":1043,"msgType":4,"sendTime":"2026-01-01 12:00:00","msg":""#;
    format!(r#"{head}{:.<width$}"}}"#, "how are you? ", width = 98 - head.len())
}

const FRAMES: usize = 100;

criterion_group!(benches, back_to_back, in_pieces, broken);
criterion_main!(benches);
