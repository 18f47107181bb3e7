//! `server backup` while a server is working, and `server restore`: the content of the copy, the
//! data that must survive a failure, and what clients see afterwards.

mod mysql;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use serde_json::json;
use testkit::level2::Level2Client;
use testkit::{LONG_PATIENCE, TestClient, TestServer, Workplace, chat, offline_user, output_within, wait_until};

/// Runs a command of the program in a folder, without the developer's settings.
fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
    command.args(arguments).current_dir(folder);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("RAYBOX_")) {
        command.env_remove(name);
    }
    output_within(LONG_PATIENCE, &mut command).expect("run the program")
}

/// The only line on stderr of a command that exited with this code.
fn refusal(output: &Output, code: i32) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), text.lines().count()), (Some(code), 1), "{output:?}");
    text
}

/// The output of a command that succeeded.
fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stop(server: &mut TestServer) {
    server.terminate();
    assert!(server.wait_exit(LONG_PATIENCE).success());
}

/// A server that starts with the data restored from this file.
fn restored(file: &Path) -> TestServer {
    let mut server = TestServer::start();
    stop(&mut server);
    said(&run(server.folder(), &["restore", &file.to_string_lossy()]));
    server.restart();
    server
}

#[test]
fn a_backup_of_a_server_at_work_has_everything_that_was_confirmed_before_it_began() {
    let server = TestServer::start();
    let mut ann = TestClient::connect(&server);
    let a = ann.register("ann", "a");
    let away = ann.register("away", "w");
    ann.login(a, "a");
    let (done, confirmed) = (AtomicBool::new(false), AtomicUsize::new(0));
    let place = Workplace::empty();
    let mut backups = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                ann.send(&chat(a, away, &format!("{number:05} {}", "x".repeat(2000))));
                // The answer confirms that the messages before it are stored.
                ann.barrier();
                confirmed.store(number + 1, Ordering::SeqCst);
            }
        });
        wait_until("there is something", || confirmed.load(Ordering::SeqCst) > 200);
        for number in 0..3 {
            let file = place.path().join(format!("backup-{number}.db"));
            let before = confirmed.load(Ordering::SeqCst);
            let text = said(&run(server.folder(), &["backup", &file.to_string_lossy()]));
            assert!(text.contains(" bytes, 2 users, "), "{text}");
            backups.push((file, before));
            wait_until("the server goes on", || confirmed.load(Ordering::SeqCst) > before + 50);
        }
        done.store(true, Ordering::Relaxed);
    });
    for (file, before) in backups {
        assert_eq!(fs::metadata(&file).expect("the copy").permissions().mode() & 0o777, 0o600);
        assert!(!file.with_extension("db-wal").exists() && !file.with_extension("db-journal").exists());
        let server = restored(&file);
        let mut client = TestClient::connect(&server);
        client.login(away, "w");
        let texts: Vec<String> =
            client.fetch_all(away).iter().map(|one| one["msg"].as_str().expect("a text")[..5].to_owned()).collect();
        let expected: Vec<String> = (0..texts.len()).map(|number| format!("{number:05}")).collect();
        assert_eq!(texts, expected, "from the first on, without a hole");
        assert!(texts.len() >= before, "{} of {before}", texts.len());
    }
}

#[test]
fn a_restore_replaces_everything_and_keeps_the_old_data_beside_it() {
    let mut server = TestServer::start();
    let place = Workplace::empty();
    let file = place.path().join("backup.db");
    let path = file.to_string_lossy().into_owned();
    let b = offline_user(&server, "bob");
    let mut bob = Level2Client::enter(&server, "bob", b, "b1");
    let notes = format!("u{b}");
    bob.say(&notes, "saved");
    said(&run(server.folder(), &["backup", &path]));
    bob.say(&notes, "lost");
    let mut stored = bob.leave();
    let later = TestClient::connect(&server).register("later", "l");

    let line = refusal(&run(server.folder(), &["restore", &path]), 2);
    assert!(line.contains("in use") || line.contains("is used"), "{line}");
    stop(&mut server);
    let text = said(&run(server.folder(), &["restore", &path]));
    assert!(text.contains("raybox.db.before-restore-1; delete it when all is well"), "{text}");
    server.restart();

    // The account is gone, and a new account does not get its id.
    let mut client = TestClient::connect(&server);
    assert_eq!(client.ask(&json!({"msgType": 1, "USERID": later, "password": "l"}))["errno"], 302);
    assert!(client.register("another", "x") > later);
    // A client of level 2 drops the messages that no longer exist.
    stored.lose_above(&notes, 1);
    let mut bob = Level2Client::resume(&server, "bob", "b1", stored);
    bob.take("the reset", |frame| frame["msgType"] == 44 && frame["reset"] == true);
    assert_eq!(bob.store.texts(&notes), ["saved"]);
    drop(bob);

    // Return to the data from before the restore.
    stop(&mut server);
    let old = server.folder().join("raybox.db.before-restore-1");
    said(&run(server.folder(), &["restore", &old.to_string_lossy()]));
    assert!(server.folder().join("raybox.db.before-restore-2").exists());
    server.restart();
    TestClient::connect(&server).login(later, "l");
}

#[test]
fn impossible_restores_are_refused_and_change_nothing() {
    let mut server = TestServer::start();
    let a = TestClient::connect(&server).register("ann", "a");
    let place = Workplace::empty();
    let [file, damaged, foreign] = ["backup.db", "damaged.db", "foreign.db"].map(|name| place.path().join(name));
    let run_with =
        |server: &TestServer, command: &str, file: &Path| run(server.folder(), &[command, &file.to_string_lossy()]);
    fs::write(&file, "precious").expect("write a file");
    assert!(refusal(&run_with(&server, "backup", &file), 2).contains("exists; name a file that does not"));
    assert_eq!(fs::read(&file).expect("it is there"), b"precious");
    assert!(refusal(&run(place.path(), &["backup", "x.db"]), 2).contains("there is no "));
    let line = refusal(&run_with(&server, "backup", Path::new("/proc/nowhere/x.db")), 1);
    assert!(line.contains("No such file"), "{line}");

    // A file size limit acts as a full disk. It also raises SIGXFSZ, which a full disk does not, so
    // that signal is ignored.
    fs::remove_file(&file).expect("remove a file");
    let script = format!("trap '' XFSZ; ulimit -f 8; exec {} backup {}", env!("CARGO_BIN_EXE_server"), file.display());
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).current_dir(server.folder());
    let output = output_within(LONG_PATIENCE, &mut shell).expect("run sh");
    assert!(!refusal(&output, 1).is_empty());
    assert_eq!(fs::read_dir(place.path()).expect("list").count(), 0, "nothing is left");

    said(&run_with(&server, "backup", &file));
    let mut bytes = fs::read(&file).expect("read the copy");
    let middle = bytes.len() / 2;
    bytes[middle..middle + 4096].fill(0xff);
    fs::write(&damaged, &bytes).expect("write a file");
    fs::write(&foreign, "SQLite format 3 or not").expect("write a file");
    stop(&mut server);
    for wrong in [&damaged, &foreign, &place.path().join("missing.db")] {
        let output = run_with(&server, "restore", wrong);
        assert!(!refusal(&output, 2).is_empty());
        assert!(!server.folder().join("raybox.db.before-restore-1").exists());
    }
    server.restart();
    TestClient::connect(&server).login(a, "a");
}

#[test]
fn a_log_that_is_of_another_database_is_neither_applied_nor_lost() {
    let mut server = TestServer::start();
    let place = Workplace::empty();
    let file = place.path().join("backup.db");
    let a = TestClient::connect(&server).register("ann", "a");
    said(&run(server.folder(), &["backup", &file.to_string_lossy()]));
    let mut ann = TestClient::connect(&server);
    ann.login(a, "a");
    let later = TestClient::connect(&server).register("later", "l");
    server.kill9();
    let [database, log] = ["raybox.db", "raybox.db-wal"].map(|name| server.folder().join(name));
    assert!(fs::metadata(&log).expect("a killed server leaves its log").len() > 0);

    // The files of a killed server are one database: a copy contains what is only in the log.
    let whole = place.path().join("whole.db");
    let text = said(&run(server.folder(), &["backup", &whole.to_string_lossy()]));
    assert!(text.contains(", 2 users, "), "{text}");

    // Put the backup there by hand, and leave the log of the old database beside it.
    let old_log = fs::read(&log).expect("read the log");
    fs::copy(&file, &database).expect("copy the backup");
    let line = refusal(&run(server.folder(), &["backup", &place.path().join("x.db").to_string_lossy()]), 2);
    assert!(line.contains("raybox.db-wal holds the last changes of another state"), "{line}");
    let copied = fs::read(&database).expect("read the database");
    said(&run(server.folder(), &["restore", &file.to_string_lossy()]));
    let aside = |suffix: &str| server.folder().join(format!("raybox.db.before-restore-1{suffix}"));
    assert_eq!(fs::read(aside("")).expect("it is kept"), copied);
    assert_eq!(fs::read(aside("-wal")).expect("it is kept"), old_log);
    assert!(!log.exists());
    server.restart();
    TestClient::connect(&server).login(a, "a");

    // A log without its database is kept as well.
    stop(&mut server);
    fs::remove_file(&database).expect("remove the database");
    fs::write(&log, &old_log).expect("write a log");
    said(&run(server.folder(), &["restore", &whole.to_string_lossy()]));
    assert_eq!(fs::read(server.folder().join("raybox.db.before-restore-2-wal")).expect("it is kept"), old_log);
    server.restart();
    TestClient::connect(&server).login(later, "l");
}
