//! raybench against a real server, over TCP, with TLS and over WebSockets.

#![expect(clippy::disallowed_methods, reason = "timeout(1) kills a command that does not exit")]

use std::process::Command;

use serde_json::Value;
use testkit::tls::Certificate;
use testkit::{LONG_PATIENCE, TestServer, output_within};

fn server() -> TestServer {
    let certificate = Certificate::of("localhost");
    TestServer::builder()
        .file("cert.pem", certificate.in_one_file())
        .option("tls_cert", "cert.pem")
        .option("registrations_per_address", "off")
        .option("connections_per_address", "off")
        .start()
}

/// The result of a run that ends well.
fn run(line: &str) -> Value {
    let mut command = Command::new("timeout");
    command.args(["--foreground", "--signal=KILL", "100", env!("CARGO_BIN_EXE_raybench"), "--quiet", "--json", "-"]);
    let output = command.args(line.split(' ')).output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{line}: {text}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{line}: {error}: {text}"))
}

fn delivered(result: &Value, nth: usize) -> u64 {
    result["runs"][nth]["counts"]["delivered"].as_u64().expect("a number")
}

#[test]
fn every_workload_is_complete_over_every_carrier() {
    let server = server();
    let short = "--seconds 0.3 --warm-up 0";
    for carrier in ["", "tls://", "ws://"] {
        let target = format!("--address {carrier}{}", server.address());
        for workload in [
            "pairs --pairs 3 --window 1",
            "pairs --pairs 3 --window 32 --size 20000 --bystanders 2",
            "group --groups 1 --members 5",
            "login --connections 4 --users 4",
            "login --connections 4 --users 4 --reconnect",
            "idle --connections 20 --users 4",
            "acked --senders 3 --conversations 6 --window 8",
            "acked --senders 3 --rate 100 --size 20000",
            "devices --pairs 2 --devices 3",
            "group --level 2 --groups 1 --members 5",
        ] {
            let result = run(&format!("{target} {short} {workload}"));
            assert!(delivered(&result, 0) > 0, "{carrier} {workload}");
        }
        let result = run(&format!("{target} ramp --connections 50 --over 0.2 --users 4"));
        assert_eq!(delivered(&result, 0), 100, "{carrier}: two answers for each");
        let result = run(&format!("{target} resume --users 7 --conversations 4 --grown 2 --missed 3"));
        assert!(delivered(&result, 0) > 0, "{carrier}");
    }
}

#[test]
fn the_relay_with_tls_is_a_baseline() {
    let server = server();
    let result = run(&format!(
        "--seconds 0.3 --warm-up 0 compare -a tls-relay -b tls://{} --rounds 1 pairs --pairs 3 --window 8",
        server.address()
    ));
    assert!(delivered(&result, 0) > 0 && delivered(&result, 1) > 0);
}

#[test]
fn the_limits_of_a_carrier_are_reported() {
    let server = server();
    for (line, told) in [
        (format!("--address ws://{} pairs --bare", server.address()), "leave --bare out"),
        (format!("--address tls://{} survive --start true", server.address()), "this workload is for plain TCP"),
        (format!("--address http://{} pairs", server.address()), "write HOST:PORT, tls:// or ws://"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_raybench"));
        command.arg("--quiet").args(line.split(' '));
        let output = output_within(LONG_PATIENCE, &mut command).expect("it starts");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(told), "{line}: {text}");
    }
}
