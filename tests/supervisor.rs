//! The messages to a service manager such as systemd (sd_notify(3)). `src/operation/supervisor.rs`
//! tests a loop that hangs.

use std::collections::HashMap;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use testkit::{Builder, LONG_PATIENCE, TestServer, Workplace, output_within, signal, user};

const EXIT_PATIENCE: Duration = Duration::from_secs(60);

/// A service manager, and a server that reports to it.
struct Manager {
    place: Workplace,
    socket: UnixDatagram,
}

impl Manager {
    fn new() -> Manager {
        let place = Workplace::empty();
        let socket = UnixDatagram::bind(place.path().join("notify")).expect("a socket");
        socket.set_read_timeout(Some(LONG_PATIENCE)).expect("a timeout");
        Manager { place, socket }
    }

    /// A server with the environment that systemd sets. The shell is replaced by the server, so its
    /// PID is the right one.
    fn server(&self, more: &str) -> Builder {
        let socket = self.place.path().join("notify");
        let run = r#"exec env --default-signal=HUP "$0" "$@""#;
        let shell = format!("export NOTIFY_SOCKET={} {more}; {run}", socket.display());
        TestServer::builder().after(shell.leak())
    }

    /// Receives the next message, as its lines.
    fn recv(&self) -> HashMap<String, String> {
        let mut bytes = [0; 1000];
        let length = self.socket.recv(&mut bytes).expect("a message in time");
        let text = String::from_utf8(bytes[..length].to_vec()).expect("a text");
        let line = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        text.lines().map(|text| line(text).unwrap_or_else(|| panic!("{text:?} is no line"))).collect()
    }

    /// Receives messages up to the first one with this line.
    fn recv_until(&self, name: &str) -> HashMap<String, String> {
        loop {
            let message = self.recv();
            if message.contains_key(name) {
                return message;
            }
        }
    }
}

#[test]
fn the_manager_hears_that_the_server_serves_reads_again_and_stops() {
    let manager = Manager::new();
    let mut server = manager.server("").option("drain_timeout", "7s").start();
    let first = manager.recv();
    let status = format!("listening on {}", server.address());
    assert_eq!((first["READY"].as_str(), first["STATUS"].as_str()), ("1", status.as_str()));
    signal(server.pid(), "HUP");
    assert_eq!(manager.recv()["RELOADING"], "1");
    let again = manager.recv();
    assert_eq!((again["READY"].as_str(), again["STATUS"].as_str()), ("1", status.as_str()));
    // After settings that cannot be used, the manager is told that the reload is over.
    fs::write(server.folder().join("server.cnf"), "workers=many\n").expect("write settings");
    signal(server.pid(), "HUP");
    assert_eq!((manager.recv()["RELOADING"].as_str(), manager.recv()["READY"].as_str()), ("1", "1"));
    let _ = user(&server, "alice");
    server.terminate();
    let stopping = manager.recv();
    assert_eq!(stopping["STOPPING"], "1");
    let micros: u64 = stopping["EXTEND_TIMEOUT_USEC"].parse().expect("a number");
    assert!(micros > 7_000_000, "it may take drain_timeout: {micros}");
    assert_eq!(server.wait_exit(EXIT_PATIENCE).code(), Some(0));
}

#[test]
fn the_watchdog_is_fed_also_without_an_admin_port() {
    let manager = Manager::new();
    let mut server = manager.server("WATCHDOG_USEC=300000 WATCHDOG_PID=$$").start();
    // The first watchdog message may come before the server listens.
    manager.recv_until("READY");
    for _ in 0..3 {
        let message = manager.recv_until("WATCHDOG");
        assert_eq!(message["STATUS"], format!("listening on {}", server.address()));
    }
    server.terminate();
    manager.recv_until("STOPPING");
    assert_eq!(server.wait_exit(EXIT_PATIENCE).code(), Some(0));
}

#[test]
fn a_database_that_is_lost_is_a_stop() {
    let manager = Manager::new();
    let mut server = manager.server("WATCHDOG_USEC=300000").start();
    manager.recv_until("READY");
    server.expect_exit();
    fs::remove_file(server.folder().join("raybox.db")).expect("a database");
    manager.recv_until("STOPPING");
    assert_eq!(server.wait_exit(EXIT_PATIENCE).code(), Some(1));
}

#[test]
fn a_server_serves_although_its_manager_cannot_be_reached() {
    for socket in ["/nonexistent/notify", "vsock:1:2"] {
        let shell = format!("export NOTIFY_SOCKET={socket}");
        let server = TestServer::builder().after(shell.leak()).start();
        let _ = user(&server, "alice");
        server.logs_with("the service manager ");
    }
}

#[test]
fn a_command_tells_the_manager_nothing() {
    let manager = Manager::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
    command
        .args(["check", "127.0.0.1", "0"])
        .current_dir(manager.place.path())
        .env("NOTIFY_SOCKET", manager.place.path().join("notify"));
    let status = output_within(LONG_PATIENCE, &mut command).expect("a command");
    assert!(status.status.success(), "{status:?}");
    let own = UnixDatagram::unbound().expect("a socket");
    own.send_to(b"READY=own", manager.place.path().join("notify")).expect("send");
    assert_eq!(manager.recv()["READY"], "own");
}
