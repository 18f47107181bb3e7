//! Signals: the server stops only when it is asked to, and stopping loses nothing.

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use testkit::{Builder, LONG_PATIENCE, MariaDb, TestServer};
use testkit::{login, number_of, numbered, offline_user, signal, succeeds, user, wait_until};

const EXIT_PATIENCE: Duration = Duration::from_secs(60);

fn heeding_hup() -> Builder {
    TestServer::builder().heeding_hup()
}

#[test]
fn a_closed_terminal_and_a_log_rotation_lose_nothing() {
    let mut server = heeding_hup().start();
    let (mut alice, a) = user(&server, "alice");
    let (mut bob, b) = user(&server, "bob");
    let carol = offline_user(&server, "carol");
    for (n, name) in ["HUP", "USR1", "USR2", "XFSZ", "HUP"].into_iter().enumerate() {
        signal(server.pid(), name);
        alice.send(&numbered(a, b, n));
        alice.send(&numbered(a, carol, n));
        alice.barrier();
        assert_eq!(number_of(&bob.recv()), n, "after SIG{name}");
    }
    server.terminate();
    assert_eq!(server.wait_exit(EXIT_PATIENCE).code(), Some(0));
    server.restart();
    let stored = login(&server, "carol", carol).fetch_all(carol);
    assert_eq!(stored.iter().map(number_of).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
}

#[test]
fn sigquit_is_a_graceful_shutdown_that_sigterm_does_not_hurry() {
    let mut server = heeding_hup().option("drain_delay", "5s").start();
    let (mut alice, a) = user(&server, "alice");
    let (mut bob, b) = user(&server, "bob");
    signal(server.pid(), "QUIT");
    wait_until("SIGQUIT is in the log", || server.logs().contains("SIGQUIT"));
    server.terminate();
    wait_until("SIGTERM is in the log", || server.logs().contains("SIGTERM"));
    alice.send(&numbered(a, b, 7));
    assert_eq!(number_of(&bob.recv()), 7, "it goes on until the delay is over");
    assert_eq!(server.wait_exit(EXIT_PATIENCE).code(), Some(0));
    assert_eq!(server.state_of(a), "offline");
}

#[test]
fn sighup_opens_the_log_again_and_reads_the_level_again() {
    let server = heeding_hup().file("server.cnf", "log_level=warn\n".to_owned()).start();
    signal(server.pid(), "HUP");
    let _ = user(&server, "alice");

    fs::write(server.folder().join("server.cnf"), "log_level=info,raybox::server=debug\n").expect("write settings");
    signal(server.pid(), "HUP");
    wait_until("the settings are read", || server.logs().contains("log_level was read again"));
    let _ = user(&server, "bob");
    wait_until("the part has its level", || server.logs().contains("DEBUG loop-"));
    // Until then only the audit was written, which has no level. Lines are written in order.
    let logs = server.logs();
    let mut before = logs.lines().take_while(|line| !line.contains("log_level was read again"));
    assert!(before.all(|line| line.contains(" audit: ")), "{logs}");

    let moved = server.folder().join("moved");
    for file in fs::read_dir(server.folder().join("logs")).expect("a log folder") {
        fs::rename(file.expect("an entry").path(), &moved).expect("rotate");
    }
    signal(server.pid(), "USR1");
    wait_until("a new file", || server.logs().contains("was opened again"));

    fs::write(server.folder().join("server.cnf"), "workers=5\n").expect("write settings");
    signal(server.pid(), "HUP");
    wait_until("the change is named", || server.logs().contains("other settings have changed"));
    fs::write(server.folder().join("server.cnf"), "workers=many\n").expect("write settings");
    signal(server.pid(), "HUP");
    let refused =
        "nothing was reloaded: settings and certificates from before stay in effect: server.cnf, line 1: key workers";
    wait_until("the mistake is named", || server.logs().contains(refused));
    let mut carol = user(&server, "carol").0;
    carol.set_patience(LONG_PATIENCE);
    carol.send(&json!({"msgType": 200}));
    carol.recv();
}

#[test]
fn settings_that_cannot_be_read_do_not_keep_a_server_from_stopping() {
    let mut server = heeding_hup().start();
    let cnf = server.folder().join("server.cnf");
    // Opening a pipe without a writer blocks, like opening a file on a disk that does not respond.
    assert!(succeeds(Command::new("mkfifo").arg(&cnf)));
    signal(server.pid(), "HUP");
    signal(server.pid(), "USR2");
    wait_until("SIGUSR2 is in the log", || server.logs().contains("SIGUSR2"));
    server.terminate();
    assert_eq!(server.wait_exit(EXIT_PATIENCE).code(), Some(0));
    fs::remove_file(cnf).expect("a pipe");
}

#[test]
fn a_changed_password_of_the_database_is_named_after_a_sighup() {
    let mariadb = MariaDb::start();
    let database = mariadb.create_database();
    let server = heeding_hup().mysql(&database).start();
    let cnf = server.folder().join("mysql.cnf");
    let text = fs::read_to_string(&cnf).expect("settings");
    let changed: String = text
        .lines()
        .map(|line| if line.starts_with("password=") { "password=another\n".to_owned() } else { format!("{line}\n") })
        .collect();
    assert_ne!(changed, text);
    fs::write(cnf, changed).expect("write settings");
    signal(server.pid(), "HUP");
    wait_until("the change is named", || server.logs().contains("other settings have changed"));
}

#[test]
fn a_sighup_that_is_ignored_from_the_start_stays_ignored() {
    let server = TestServer::builder().after("trap '' HUP").start();
    signal(server.pid(), "HUP");
    // The kernel delivers pending signals in the order of their numbers, and SIGUSR2 comes after
    // SIGHUP.
    signal(server.pid(), "USR2");
    wait_until("the other signal is in the log", || server.logs().contains("SIGUSR2"));
    assert!(!server.logs().contains("opened again"));
}
