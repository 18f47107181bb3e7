//! Faults of a server that do not come from its database or from other servers.

use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use serde_json::json;
use socket2::Socket;
use testkit::tls::Certificate;
use testkit::{
    LONG_PATIENCE, TestClient, TestServer, limit_files, offline_user, password, user, wait_until, wait_within,
};

use crate::watched::{AN_HOUR, Watched};
use crate::{and_goes_on, and_then, builder};

#[test]
fn few_descriptors_are_noticed() {
    const DESCRIPTORS: u32 = 160;
    let server = builder().descriptors_max(DESCRIPTORS).option("connections_per_address", "off").start();
    let watched = Watched::healthy(&server);
    let mut clients = Vec::new();
    wait_until("few are left", || {
        clients.extend(TestClient::try_connect_to(server.address()));
        server.metric("process_open_fds") > f64::from(DESCRIPTORS) * 0.8
            || server.metric(r#"raybox_refused_total{limit="descriptors"}"#) > 0.0
    });
    and_then(watched, &server).expect(&["DescriptorsShort"]);
}

/// Sends frames without a pause until the connection ends.
fn flood(server: &TestServer) -> thread::JoinHandle<()> {
    let mut stream = TestClient::connect(server).into_stream();
    let mut answers = stream.try_clone().expect("another handle");
    thread::spawn(move || _ = io::copy(&mut answers, &mut io::sink()));
    let frames = r#"{"msgType":99}"#.repeat(1000);
    thread::spawn(move || while stream.write_all(frames.as_bytes()).is_ok() {})
}

#[test]
fn a_loop_that_never_rests_is_noticed() {
    let server = builder().option("loops", "1").option("frames_per_second", "off").option("bytes_per_second", "off");
    let server = server.start();
    // A second is long enough for many turns.
    let for_a_second = || thread::sleep(Duration::from_secs(1));
    and_goes_on(Watched::healthy(&server), &server, for_a_second).expect(&[]);
    let floods = [flood(&server), flood(&server)];
    wait_within(LONG_PATIENCE, "the alert fires", || {
        and_goes_on(Watched::healthy(&server), &server, for_a_second).judge(&["LoopSaturated"], &[]).is_ok()
    });
    drop(server);
    for flood in floods {
        flood.join().expect("it ends");
    }
}

#[test]
fn clients_that_do_not_read_are_noticed() {
    const DEAF: usize = 21;
    let server = builder().option("output_max", "64k").option("mailbox_max", "1024m").start();
    let (mut ann, a) = user(&server, "ann");
    ann.set_patience(LONG_PATIENCE);
    let group = ann.create_group(a, "deaf");
    let mut deaf = Vec::new();
    for nth in 0..DEAF {
        let name = format!("deaf {nth}");
        let id = offline_user(&server, &name);
        let small = |socket: &Socket| socket.set_recv_buffer_size(4096).expect("an option");
        let mut client = TestClient::connect_from_with(1, &server, small);
        client.login(id, &password(&name));
        client.join_group(id, group);
        deaf.push(client);
    }
    let watched = Watched::healthy(&server);
    let healthy = server.metrics();
    let text = "x".repeat(60_000);
    let consumed = || server.metric("raybox_slow_consumers_total") as usize;
    wait_within(LONG_PATIENCE, "all are closed", || {
        ann.send(&json!({"msgType": 9, "FROMID": a, "GROUPID": group, "msg": text}));
        ann.barrier();
        consumed() == DEAF
    });
    let watched = and_then(watched, &server);
    watched.expect(&["SlowConsumers"]);
    // Among many connections, this number of them is normal.
    let crowd = with_more(&server.metrics(), r#"raybox_connections_open{loop="0"}"#, 10_000.0);
    let mut watched = Watched::new();
    watched.sees(&[Some(healthy)], AN_HOUR);
    watched.sees(&[Some(crowd)], AN_HOUR);
    watched.expect(&[]);
}

/// The same metrics, with a larger value for this series.
fn with_more(metrics: &str, series: &str, more: f64) -> String {
    let number = |line: &str| line.strip_prefix(series)?.trim().parse::<f64>().ok();
    let lines = metrics
        .lines()
        .map(|line| number(line).map_or_else(|| line.to_owned(), |number| format!("{series} {}", number + more)));
    let changed = lines.collect::<Vec<_>>().join("\n");
    assert_ne!(changed, metrics.trim_end(), "there is no {series}");
    changed
}

#[test]
fn a_client_that_guesses_passwords_is_noticed() {
    let server = builder().start();
    let b = offline_user(&server, "bob");
    let mut guesser = TestClient::connect(&server);
    let watched = Watched::healthy(&server);
    let healthy = server.metrics();
    for nth in 0..101 {
        let answer = guesser.ask(&json!({"msgType": 1, "USERID": b, "password": format!("guess {nth}")}));
        assert_ne!(answer["errno"], 200);
    }
    and_then(watched, &server).expect(&["PasswordGuessing"]);
    // Among many logins, some wrong passwords are normal.
    let crowd = with_more(&server.metrics(), r#"raybox_logins_total{outcome="accepted"}"#, 10_000.0);
    let mut watched = Watched::new();
    watched.sees(&[Some(healthy)], AN_HOUR);
    watched.sees(&[Some(crowd)], AN_HOUR);
    watched.expect(&[]);
}

#[test]
fn a_client_that_guesses_the_admin_key_is_noticed() {
    let server = builder().file("server.cnf", "admin_key=a-key-of-at-least-thirty-two-characters\n".to_owned()).start();
    let watched = Watched::healthy(&server);
    for nth in 0..21 {
        let answer = server.administer("GET", "/v1/node", &format!("guess {nth}"));
        assert!(answer.starts_with("HTTP/1.1 401 ") || answer.starts_with("HTTP/1.1 429 "), "{answer}");
    }
    and_then(watched, &server).expect(&["AdminKeyGuessed"]);
}

#[test]
fn a_certificate_that_ends_is_noticed() {
    let with = |certificate: &Certificate| {
        let builder = builder().option("tls_cert", "cert.pem").option("tls_key", "key.pem");
        let builder = builder.file("cert.pem", certificate.chain.clone()).file("key.pem", certificate.key.clone());
        let server = builder.start();
        wait_until("it is ready", || server.is_ready());
        server
    };
    const DAY: Duration = Duration::from_hours(24);
    let mut watched = Watched::healthy(&with(&Certificate::ending("localhost", 30 * DAY)));
    watched.sees(&[Some(with(&Certificate::ending("localhost", 3 * DAY)).metrics())], AN_HOUR);
    watched.expect(&["CertificateEnds"]);
    watched.sees(&[Some(with(&Certificate::ending("localhost", DAY / 2)).metrics())], AN_HOUR);
    watched.expect(&["CertificateEnded"]);
}

#[test]
fn lines_of_the_log_that_are_lost_are_noticed() {
    // Standard error is a pipe that is never read.
    let server = builder().option("log_level", "debug").after("mkfifo unread && exec 2<>unread").start();
    let watched = Watched::healthy(&server);
    limit_files(&server, "1");
    wait_within(LONG_PATIENCE, "lines are lost", || {
        // Each connection causes a log line.
        (0..100).for_each(|_| drop(TestClient::connect(&server)));
        server.metric("raybox_log_lines_dropped_total") > 0.0
    });
    and_then(watched, &server).expect_beside(&["LogLinesLost"], &["NotReady"]);
    limit_files(&server, "unlimited");
}

#[test]
fn an_upgrade_that_is_not_finished_is_noticed() {
    let server = builder().start();
    let mut watched = Watched::healthy(&server);
    let new = server.metrics();
    let version = format!("version={:?}", env!("CARGO_PKG_VERSION"));
    assert!(new.contains(&version), "{new}");
    let old = new.replace(&version, "version=\"0.9.0\"");
    watched.sees(&[Some(new), Some(old)], AN_HOUR);
    watched.expect(&["VersionsDiffer"]);
}
