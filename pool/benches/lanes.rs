//! The cost of handing an item to a lane's thread, alone and among many: the lane sleeps when the
//! first is submitted, and all are handled at the end.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use crossbeam_channel::bounded;
use pool::{Lanes, Standing};

fn batches(c: &mut Criterion) {
    let mut group = c.benchmark_group("lanes");
    for count in [1, 100] {
        group.throughput(Throughput::Elements(count));
        group.bench_function(format!("{count} submitted and handled"), |b| {
            let (handled, all_handled) = bounded(1);
            let handle = move |done: &mut u64, batch: Vec<Box<str>>| {
                *done += black_box(batch).len() as u64;
                if *done == count {
                    *done = 0;
                    handled.send(()).expect("it is waited for");
                }
                None
            };
            let lanes = Lanes::start("lane", 1, BATCH_MAX, |_, _| (0, None), handle).expect("start a lane");
            b.iter(|| {
                for _ in 0..count {
                    lanes.submit(0, Standing::of(0), TEXT.into(), TEXT.len()).expect("there is room");
                }
                all_handled.recv().expect("the lane goes on");
            });
            assert_eq!(lanes.close(Instant::now() + PATIENCE), 0);
        });
    }
    group.finish();
}

const TEXT: &str =
    r#"{"FROMID":1042,"TOID":1043,"msgType":4,"sendTime":"2026-01-01 12:00:00","msg":"how are you? ......"}"#;
/// The limit of the server.
const BATCH_MAX: usize = 4096;
const PATIENCE: Duration = Duration::from_secs(60);

criterion_group!(benches, batches);
criterion_main!(benches);
