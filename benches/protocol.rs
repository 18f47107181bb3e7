//! The cost of parsing a request.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use raybox::protocol::Request;

fn parse(c: &mut Criterion) {
    let mut group = c.benchmark_group("protocol");
    for (name, frame, is_good) in frames() {
        group.throughput(Throughput::Bytes(frame.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| assert_eq!(Request::parse(black_box(frame.as_bytes())).is_ok(), is_good));
        });
    }
    group.finish();
}

/// Tuples of a name, a frame, and whether the frame is a request.
fn frames() -> Vec<(&'static str, String, bool)> {
    let chat = |text: &str| {
        let head = r#"{"FROMID":1042,"TOID":1043,"msgType":4,"sendTime":"2026-01-01 12:00:00","msg":""#;
        format!(r#"{head}{text}"}}"#)
    };
    let usual = chat("how are you? ......");
    assert_eq!(usual.len(), 100);
    vec![
        ("a chat of 100 bytes", usual.clone(), true),
        ("a chat of 100 bytes over two lines", usual.replacen(',', "\n", 1).replacen('\n', ",\n", 1), true),
        ("a chat of 10,000 bytes", chat(&"how are you? ".repeat(760)), true),
        ("a chat in Chinese, escaped", chat(&r"\u4f60\u597d".repeat(10)), true),
        ("a repeated member", usual.replacen('{', r#"{"TOID":7,"#, 1), true),
        (
            "a login",
            r#"{"USERID":1042,"msgType":1,"password":"d63dc919e201d7bc4c825630d2cf25fdc93d4b2f0d46706d29038d01"}"#
                .to_owned(),
            true,
        ),
        ("a chat that is cut off", usual[..99].to_owned(), false),
        ("the heartbeat", "keep this socket alive".to_owned(), false),
    ]
}

criterion_group!(benches, parse);
criterion_main!(benches);
