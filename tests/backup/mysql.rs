//! The commands of docs/backup.md, as they stand there, on a real MariaDB.

use std::fs;
use std::process::Command;

use serde_json::json;
use testkit::level2::Level2Client;
use testkit::{Database, LONG_PATIENCE, Redis, TestClient, TestServer, Workplace, chat, offline_user, output_within};

/// The shell commands of a section of docs/backup.md, with these databases in place of its own.
fn commands(section: &str, database: &str, restored: &str) -> String {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/backup.md");
    let page = fs::read_to_string(page).expect("the page");
    let (_, rest) = page.split_once(&format!("\n## {section}\n")).expect("the section");
    let (_, block) = rest.split_once("```sh\n").expect("a block of commands");
    let (block, _) = block.split_once("```").expect("its end");
    assert!(block.contains(" chat > ") || block.contains("chat_restored"), "{block}");
    block.replace("chat_restored", restored).replace(" chat > ", &format!(" {database} > "))
}

/// Runs a script, every command of which must succeed.
fn run(place: &Workplace, script: &str) {
    let mut shell = Command::new("bash");
    shell.args(["-euo", "pipefail", "-c", script]).current_dir(place.path());
    let output = output_within(LONG_PATIENCE, &mut shell).expect("run a shell");
    assert!(output.status.success(), "{script}\n{output:?}");
}

/// A database that is dropped at the end.
struct Restored<'d>(&'d Database, String);

impl Drop for Restored<'_> {
    fn drop(&mut self) {
        self.0.run(&format!("DROP DATABASE IF EXISTS {}", self.1));
    }
}

#[test]
fn the_documented_commands_restore_an_older_state_on_mariadb() {
    let (database, redis) = (Database::create(), Redis::start());
    let restored = Restored(&database, format!("{}_restored", database.name()));
    let place = Workplace::empty();
    let (address, user, password) = (database.address(), database.user(), database.password());
    let (host, port) = (address.ip(), address.port());
    let account = format!("[client]\nhost={host}\nport={port}\nuser={user}\npassword={password}\n");
    place.write("backup.cnf", &account);

    let mut server = TestServer::builder().mysql(&database).redis(&redis).start();
    let (a, b) = (offline_user(&server, "ann"), offline_user(&server, "bob"));
    let mut bob = Level2Client::enter(&server, "bob", b, "b1");
    let notes = format!("u{b}");
    bob.say(&notes, "saved \u{1F600} 'quoted' \\ \u{4f60}");
    let mut writer = TestClient::connect(&server);
    writer.login(b, &testkit::password("bob"));
    ["one", "two", "three"].iter().for_each(|text| writer.send(&chat(b, a, text)));
    writer.barrier();
    run(&place, &commands("Back up", database.name(), &restored.1));
    bob.say(&notes, "lost");
    let later = TestClient::connect(&server).register("later", "l");
    let mut stored = bob.leave();
    server.terminate();
    assert!(server.wait_exit(testkit::LONG_PATIENCE).success());
    run(&place, &commands("Restore", database.name(), &restored.1));

    let same = |query: &str| {
        let [old, new] = [database.name(), &restored.1].map(|name| query.replace("DATABASE", name));
        assert_eq!(database.rows::<String>(&old), database.rows::<String>(&new), "{query}");
    };
    same("SELECT table_name FROM information_schema.tables WHERE table_schema = 'DATABASE' ORDER BY table_name");
    same(
        "SELECT concat(table_name, column_name, column_type, extra) FROM information_schema.columns \
         WHERE table_schema = 'DATABASE' ORDER BY table_name, ordinal_position",
    );
    same("SELECT concat(id, message) FROM DATABASE.OfflineMessage ORDER BY id");
    let cnf = database.cnf().replace(&format!("dbname={}\n", database.name()), &format!("dbname={}\n", restored.1));
    let server = TestServer::builder().redis(&redis).file("mysql.cnf", cnf).start();

    let mut ann = TestClient::connect(&server);
    ann.login(a, &testkit::password("ann"));
    let texts: Vec<_> = ann.fetch_all(a).iter().map(|one| one["msg"].as_str().expect("a text").to_owned()).collect();
    assert_eq!(texts, ["one", "two", "three"]);
    let mut client = TestClient::connect(&server);
    assert_eq!(client.ask(&json!({"msgType": 1, "USERID": later, "password": "l"}))["errno"], 302);
    assert!(client.register("another", "x") > later, "an id is not given again");
    stored.lose_above(&notes, 1);
    let mut bob = Level2Client::resume(&server, "bob", "b1", stored);
    bob.take("the reset", |frame| frame["msgType"] == 44 && frame["reset"] == true);
    assert_eq!(bob.store.texts(&notes), ["saved \u{1F600} 'quoted' \\ \u{4f60}"]);
}
