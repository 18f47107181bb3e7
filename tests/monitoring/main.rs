//! Each alert of conf/monitoring/alerts.yml fires when its fault is caused on a running server. On
//! a server without a fault, none fires.

mod alone;
mod watched;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use testkit::level2::Level2Client;
use testkit::tls::Certificate;
use testkit::{
    Builder, Cluster, Database, LONG_PATIENCE, MariaDb, Redis, TestClient, TestServer, freeze, limit_files, login,
    number_of, numbered, numbered_with_text, offline_user, output_within, user, wait_until, wait_within,
};

use crate::watched::{ALERTS, AN_HOUR, Watched};

pub(crate) fn builder() -> Builder {
    TestServer::builder().option("admin", "127.0.0.1:0")
}

/// Shows the server's present metrics for another hour.
pub(crate) fn and_then(mut watched: Watched, server: &TestServer) -> Watched {
    watched.sees(&[Some(server.metrics())], AN_HOUR);
    watched
}

/// Extends the change of the metrics during `meanwhile` to an hour, at the same speed.
pub(crate) fn and_goes_on(mut watched: Watched, server: &TestServer, meanwhile: impl FnOnce()) -> Watched {
    let (before, began) = (server.metrics(), Instant::now());
    meanwhile();
    let (after, time) = (server.metrics(), began.elapsed());
    watched.goes_on((&before, &after), time);
    watched
}

/// A ready server on MySQL, and its database, which the caller may break.
fn on_mysql(options: impl Fn(Builder) -> Builder) -> (TestServer, MariaDb, Database) {
    let mariadb = MariaDb::start();
    let database = mariadb.create_database();
    let server = options(builder().mysql(&database)).start();
    wait_until("it is ready", || server.is_ready());
    (server, mariadb, database)
}

#[test]
fn every_alert_says_what_is_wrong_and_what_to_do() {
    let rules = fs::read_to_string(ALERTS).expect("the rules are there");
    let count = |what: &str| rules.lines().filter(|line| line.trim_start().starts_with(what)).count();
    let alerts = count("- alert: ");
    assert!(alerts > 0);
    for part in ["expr: ", "labels: {severity: ", "summary: ", "action: "] {
        assert_eq!(count(part), alerts, "{part}");
    }
    let tests = concat!(include_str!("main.rs"), include_str!("alone.rs"));
    for alert in rules.lines().filter_map(|line| line.trim_start().strip_prefix("- alert: ")) {
        assert!(tests.contains(&format!("\"{alert}\"")), "no test causes {alert}");
    }
    let checked = output_within(LONG_PATIENCE, Command::new("promtool").args(["check", "rules", ALERTS]));
    assert!(checked.expect("run promtool, of Debian's package prometheus").status.success());
}

/// The names of the server's metrics in an expression.
fn names_in(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("raybox_") || word.starts_with("process_"))
}

#[test]
fn rules_and_dashboard_show_numbers_that_exist() {
    let dashboard = include_str!("../../conf/monitoring/grafana/dashboards/raybox.json");
    let parsed: serde_json::Value = serde_json::from_str(dashboard).expect("the dashboard is JSON");
    assert!(parsed["panels"].as_array().is_some_and(|panels| panels.len() > 10));
    let rules = fs::read_to_string(ALERTS).expect("the rules are there");
    // Every part of a cluster has its metrics.
    let (database, redis) = (Database::create(), Redis::start());
    let certificate = Certificate::of("localhost");
    let builder = builder().mysql(&database).redis(&redis).option("tls_cert", "cert.pem").option("tls_key", "key.pem");
    let server = builder.file("cert.pem", certificate.chain.clone()).file("key.pem", certificate.key).start();
    wait_until("it is ready", || server.is_ready());
    let shown = server.metrics();
    let shown: BTreeSet<&str> = shown.lines().filter_map(|line| line.split(['{', ' ']).next()).collect();
    let used: BTreeSet<&str> = names_in(dashboard).chain(names_in(&rules)).collect();
    assert!(used.len() > 20, "{used:?}");
    let missing: Vec<&&str> = used.difference(&shown).collect();
    assert!(missing.is_empty(), "no number of a server: {missing:?}");
}

/// Prometheus has a number, and not NaN, for every line of every panel, when users of both levels
/// have chatted on a node of a cluster.
#[test]
fn every_panel_of_the_dashboard_shows_something() {
    let dashboard = include_str!("../../conf/monitoring/grafana/dashboards/raybox.json");
    let dashboard: serde_json::Value = serde_json::from_str(dashboard).expect("the dashboard is JSON");
    let targets = dashboard["panels"].as_array().expect("panels").iter().flat_map(|panel| panel["targets"].as_array());
    let asked: Vec<&str> = targets.flatten().map(|target| target["expr"].as_str().expect("an expression")).collect();
    assert!(asked.len() > 15, "{asked:?}");
    let (database, redis) = (Database::create(), Redis::start());
    let server = builder().mysql(&database).redis(&redis).start();
    let mut watched = Watched::healthy(&server);
    watched = and_goes_on(watched, &server, || {
        let (mut ann, a) = user(&server, "ann");
        let (mut bob, b) = user(&server, "bob");
        ann.send(&numbered(a, b, 0));
        assert_eq!(number_of(&bob.recv()), 0);
        let c = offline_user(&server, "cat");
        let mut cat = Level2Client::enter(&server, "cat", c, "phone");
        cat.send(&format!("u{b}"), "hello");
        cat.settle();
    });
    // `> 0` hides what is at rest. The interval is Grafana's for a scrape every 15 seconds.
    let has_a_number = |expr: &&str| {
        let expr = expr.trim_end_matches(" > 0").replace("$__rate_interval", "1m");
        (format!("count(({expr}) >= 0) > bool 0"), vec![("{}".to_owned(), 1.0)])
    };
    let exprs: Vec<_> = asked.iter().map(has_a_number).collect();
    watched.evaluate_all(&exprs).unwrap_or_else(|said| panic!("{said}"));
}

#[test]
fn a_server_that_was_killed_is_down() {
    let mut server = builder().start();
    let mut watched = Watched::healthy(&server);
    server.kill9();
    watched.sees(&[None], AN_HOUR);
    watched.expect(&["ServerDown"]);
}

#[test]
fn a_server_that_nobody_asks_for_is_noticed() {
    let mut watched = Watched::healthy(&builder().start());
    watched.sees(&[], AN_HOUR);
    watched.expect(&["NothingWatched"]);
}

#[test]
fn a_server_that_stays_drained_is_noticed() {
    const KEY: &str = "a-key-of-at-least-thirty-two-characters";
    let server = builder().file("server.cnf", format!("admin_key={KEY}\n")).start();
    let watched = Watched::healthy(&server);
    let answer = server.administer("POST", "/v1/drain", KEY);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    and_then(watched, &server).expect(&["Drained"]);
}

#[test]
fn a_restart_and_a_short_outage_of_the_database_raise_no_alarm() {
    let (mut server, mut mariadb, _) = on_mysql(|builder| builder);
    let (mut ann, a) = user(&server, "ann");
    ann.set_patience(LONG_PATIENCE);
    let b = offline_user(&server, "bob");
    let mut watched = Watched::healthy(&server);
    mariadb.kill();
    wait_until("the server has noticed", || !server.is_ready());
    (0..20).for_each(|n| ann.send(&numbered(a, b, n)));
    ann.ack_barrier();
    // These samples cover half a minute.
    watched.sees(&[Some(server.metrics())], 2);
    mariadb.restart();
    wait_within(LONG_PATIENCE, "all is stored", || server.is_ready() && server.stored_for(b) == 20);
    watched.sees(&[Some(server.metrics())], 20);
    server.terminate();
    server.expect_exit();
    watched.sees(&[None], 3);
    server.restart();
    wait_until("it is ready", || server.is_ready());
    watched.sees(&[Some(server.metrics())], AN_HOUR / 2);
    watched.expect(&[]);
}

#[test]
fn an_alert_ends_with_its_fault_and_the_dashboard_shows_both() {
    const READY: &str = "min by (instance) (raybox_ready) or min by (instance) (up{job=\"raybox\"})";
    let dashboard = include_str!("../../conf/monitoring/grafana/dashboards/raybox.json");
    assert!(dashboard.contains(&READY.replace('"', "\\\"")), "the dashboard asks otherwise");
    let (server, mut mariadb, _) = on_mysql(|builder| builder);
    let shows = |watched: &Watched, ready: f64| {
        let expected = [(r#"{instance="server1"}"#.to_owned(), ready)];
        watched.evaluate(READY, &expected).unwrap_or_else(|said| panic!("{said}"));
    };
    let watched = Watched::healthy(&server);
    shows(&watched, 1.0);
    mariadb.kill();
    wait_until("the server has noticed", || !server.is_ready());
    let watched = and_then(watched, &server);
    watched.expect(&["NotReady"]);
    shows(&watched, 0.0);
    mariadb.restart();
    wait_within(LONG_PATIENCE, "it is ready", || server.is_ready());
    let watched = and_then(and_then(watched, &server), &server);
    watched.expect(&[]);
    shows(&watched, 1.0);
}

#[test]
fn a_server_without_its_database_is_not_ready() {
    let (server, mut mariadb, _) = on_mysql(|builder| builder);
    let watched = Watched::healthy(&server);
    mariadb.kill();
    wait_until("the server has noticed", || !server.is_ready());
    and_then(watched, &server).expect(&["NotReady"]);
}

#[test]
fn a_server_that_was_started_without_its_database_lacks_no_connections() {
    let (mut server, mut mariadb, _) = on_mysql(|builder| builder);
    let (mut ann, a) = user(&server, "ann");
    ann.set_patience(LONG_PATIENCE);
    let b = offline_user(&server, "bob");
    let watched = Watched::healthy(&server);
    mariadb.kill();
    wait_until("the server has noticed", || !server.is_ready());
    // With messages on its disk it starts without its database.
    ann.send(&numbered(a, b, 0));
    ann.ack_barrier();
    server.kill9();
    server.restart();
    let pool = |what: &str| server.metric(&format!(r#"raybox_pool_connections{what}{{pool="mysql"}}"#));
    assert!(pool("") == 0.0 && pool("_idle") == 0.0 && pool("_max") > 0.0, "none is open, and some may be");
    and_then(watched, &server).expect(&["NotReady"]);
}

#[test]
fn servers_without_redis_are_not_ready() {
    let mut redis = Redis::start();
    let server = builder().mysql(&Database::create()).redis(&redis).start();
    let watched = Watched::healthy(&server);
    redis.kill();
    wait_until("the server has noticed", || !server.is_ready());
    and_then(watched, &server).expect(&["NotReady"]);
}

#[test]
fn a_server_that_is_started_again_and_again_is_noticed() {
    let mut server = builder().start();
    let mut watched = Watched::healthy(&server);
    let started = |server: &TestServer| server.metric("process_start_time_seconds");
    for _ in 0..3 {
        let before = started(&server);
        server.kill9();
        // The start time has whole seconds.
        wait_until("it is started in another second", || {
            server.restart();
            let is_later = started(&server) > before;
            if !is_later {
                server.kill9();
            }
            is_later
        });
        wait_until("it is ready", || server.is_ready());
        watched.sees(&[Some(server.metrics())], 12);
    }
    watched.expect(&["Restarts"]);
}

#[test]
fn messages_that_nothing_can_store_are_noticed() {
    let (server, mut mariadb, _) = on_mysql(|builder| builder.option("output_max", "64m"));
    let (mut ann, a) = user(&server, "ann");
    ann.set_patience(LONG_PATIENCE);
    let (carol, c) = user(&server, "carol");
    let watched = Watched::healthy(&server);
    for n in 0..300 {
        // More than the sockets hold.
        ann.send(&numbered_with_text(a, c, n, 50_000));
    }
    ann.ack_barrier();
    mariadb.kill();
    limit_files(&server, "1");
    drop(carol);
    wait_within(LONG_PATIENCE, "they came back", || server.metric("raybox_unstored_messages") > 0.0);
    let others = ["NotReady", "MessagesFail", "LogLinesLost"];
    and_then(watched, &server).expect_beside(&["MessagesOnlyInMemory"], &others);
    limit_files(&server, "unlimited");
}

#[test]
fn messages_that_are_refused_are_noticed() {
    let (server, mut mariadb, _) = on_mysql(|builder| builder.option("spool_max", "64k"));
    let (mut ann, a) = user(&server, "ann");
    ann.set_patience(LONG_PATIENCE);
    let b = offline_user(&server, "bob");
    let watched = Watched::healthy(&server);
    mariadb.kill();
    wait_until("the server has noticed", || !server.is_ready());
    for n in 0..10 {
        ann.send(&numbered_with_text(a, b, n, 30_000));
    }
    let failed = || server.metric(r#"raybox_deliveries_total{path="failed"}"#);
    wait_within(LONG_PATIENCE, "one fails", || failed() > 0.0);
    let watched = and_then(watched, &server);
    watched.expect(&["MessagesFail", "NotReady"]);
    // The sender goes on.
    let watched = and_goes_on(watched, &server, || {
        let before = failed();
        (10..20).for_each(|n| ann.send(&numbered_with_text(a, b, n, 30_000)));
        wait_within(LONG_PATIENCE, "more fail", || failed() > before);
    });
    watched.expect(&["MessagesFail", "MessagesRefused", "NotReady"]);
}

#[test]
fn sends_of_level_2_that_are_refused_are_noticed() {
    let (server, mut mariadb, _) = on_mysql(|builder| builder);
    let (a, b) = (offline_user(&server, "ann"), offline_user(&server, "bob"));
    let mut ann = Level2Client::enter(&server, "ann", a, "phone");
    let watched = Watched::healthy(&server);
    mariadb.kill();
    wait_until("the server has noticed", || !server.is_ready());
    let refused = || server.metric(r#"raybox_level2_sends_total{outcome="503"}"#);
    let watched = and_goes_on(watched, &server, || {
        ann.send(&format!("u{b}"), "hello");
        wait_within(LONG_PATIENCE, "it is refused", || refused() > 0.0);
    });
    watched.expect(&["NotReady", "SendsRefused"]);
}

#[test]
fn messages_that_the_database_refuses_are_noticed() {
    let (server, mut mariadb, database) = on_mysql(|builder| builder);
    let (mut ann, a) = user(&server, "ann");
    ann.set_patience(LONG_PATIENCE);
    let b = offline_user(&server, "bob");
    let watched = Watched::healthy(&server);
    database.run(&format!(
        "CREATE TRIGGER refuse BEFORE INSERT ON OfflineMessage FOR EACH ROW \
         IF NEW.userid = {b} THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'never'; END IF"
    ));
    mariadb.kill();
    wait_until("the server has noticed", || !server.is_ready());
    ann.send(&numbered(a, b, 0));
    ann.ack_barrier();
    mariadb.restart();
    let aside = || server.metric(r#"raybox_spool_total{what="aside"}"#) > 0.0;
    wait_within(LONG_PATIENCE, "it is set aside, and the server is ready", || aside() && server.is_ready());
    and_then(watched, &server).expect(&["MessagesSetAside", "SpoolNotEmpty"]);
}

#[test]
fn a_server_that_hangs_is_noticed_by_the_others() {
    let cluster = Cluster::start_with(2, |builder| builder.option("admin", "127.0.0.1:0"));
    let [here, there] = &cluster.nodes[..] else { panic!("two nodes") };
    for node in [here, there] {
        wait_until("it is ready", || node.is_ready());
    }
    let (mut ann, a) = user(here, "ann");
    ann.set_patience(LONG_PATIENCE);
    let b = offline_user(here, "bob");
    let _bob = login(there, "bob", b);
    let watched = Watched::healthy(here);
    freeze(there.pid());
    for n in 0..20 {
        ann.send(&numbered(a, b, n));
    }
    ann.ack_barrier();
    wait_within(LONG_PATIENCE, "none is confirmed", || here.metric("raybox_bus_unconfirmed_total") >= 15.0);
    and_then(watched, here).expect(&["BusLosesMessages"]);
    there.cont();
}

#[test]
fn a_database_that_hangs_is_noticed() {
    let (server, mariadb, _) = on_mysql(|builder| builder);
    let (mut ann, a) = user(&server, "ann");
    let b = offline_user(&server, "bob");
    let watched = Watched::healthy(&server);
    mariadb.stop();
    ann.send(&numbered(a, b, 0));
    let hangs = |text: &str| {
        let busy = text.lines().filter_map(|line| line.strip_prefix("raybox_lane_busy_seconds{")?.rsplit_once(' '));
        busy.map(|(_, busy)| busy.parse::<f64>().expect("a number")).fold(0.0, f64::max) > 5.0
    };
    let mut text = String::new();
    wait_within(LONG_PATIENCE, "a lane hangs", || {
        text = server.metrics();
        hangs(&text)
    });
    let mut watched = watched;
    watched.sees(&[Some(text)], AN_HOUR);
    watched.expect_beside(&["LaneHangs", "NotReady"], &["PoolExhausted"]);
    mariadb.cont();
}

#[test]
fn a_pool_and_queues_without_room_are_noticed() {
    const ASKERS: usize = 12;
    let mariadb = MariaDb::start();
    let database = mariadb.create_database();
    let cnf = database.cnf() + "maxSize=2\n";
    let builder = builder().mysql(&database).file("mysql.cnf", cnf).option("requests_max", "4");
    let server = builder.option("connections_per_address", "off").start();
    wait_until("it is ready", || server.is_ready());
    let names: Vec<String> = (0..ASKERS).map(|nth| format!("asker {nth}")).collect();
    let mut clients: Vec<(TestClient, i64)> = names.iter().map(|name| user(&server, name)).collect();
    let mut watched = Watched::healthy(&server);
    let mut locker = database.connect();
    mysql::prelude::Queryable::query_drop(&mut locker, "LOCK TABLES OfflineMessage WRITE").expect("lock a table");
    let (before, began) = (server.metrics(), Instant::now());
    let (mut text, mut time) = (String::new(), Duration::ZERO);
    wait_within(LONG_PATIENCE, "there is no room", || {
        for (client, id) in &mut clients {
            client.send(&json!({"msgType": 14, "FROMID": id}));
        }
        (text, time) = (server.metrics(), began.elapsed());
        let shows = |series: &str| text.lines().any(|line| line == series);
        let refused = text.lines().find_map(|line| line.strip_prefix(r#"raybox_refused_total{limit="requests_max"} "#));
        let refused: f64 = refused.and_then(|count| count.parse().ok()).expect("a number");
        // The alert is about more than one in a second.
        let is_refusing = refused > 2.0 * time.as_secs_f64();
        let is_used_up = shows(r#"raybox_pool_connections{pool="mysql"} 2"#);
        is_refusing && is_used_up && shows(r#"raybox_pool_connections_idle{pool="mysql"} 0"#)
    });
    watched.goes_on((&before, &text), time);
    drop(locker);
    watched.expect_beside(&["Overload", "PoolExhausted"], &["NotReady"]);
}

#[test]
fn a_hook_that_refuses_is_noticed() {
    let refusing = TcpListener::bind("127.0.0.1:0").expect("listen");
    let url = format!("http://{}/", refusing.local_addr().expect("an address"));
    thread::spawn(move || {
        for stream in refusing.incoming() {
            let mut stream = stream.expect("a connection");
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 500 No\r\n\r\n");
        }
    });
    let server = builder().option("hook_url", &url).option("hook_key", "hook.key").option("hook_delay", "0");
    let server = server.option("hook_private", "127.0.0.1").file("hook.key", "0123456789abcdef".repeat(2)).start();
    let (a, b) = (offline_user(&server, "ann"), offline_user(&server, "bob"));
    let mut ann = Level2Client::enter(&server, "ann", a, "phone");
    let _bob = Level2Client::enter(&server, "bob", b, "phone");
    let watched = Watched::healthy(&server);
    ann.say(&format!("u{b}"), "hello");
    let failed = || server.metric(r#"raybox_hook_requests_total{outcome="failed"}"#) > 2.0;
    and_goes_on(watched, &server, || wait_within(LONG_PATIENCE, "requests fail", failed)).expect(&["HookFails"]);
}

#[test]
fn sweeps_that_fail_are_noticed() {
    let database = Database::create();
    let cluster =
        Cluster::start_on(database.clone(), Redis::start(), 2, |builder| builder.option("admin", "127.0.0.1:0"));
    let [server, _other] = &cluster.nodes[..] else { panic!("two nodes") };
    wait_until("it is ready", || server.is_ready());
    let a = offline_user(server, "ann");
    let _ann = Level2Client::enter(server, "ann", a, "phone");
    let swept = |what: &str| server.metric(&format!("raybox_sweeps_total{{what={what:?}}}"));
    wait_within(LONG_PATIENCE, "a sweep is done", || swept("done") > 0.0);
    let watched = Watched::healthy(server);
    database.run("RENAME TABLE Conversation TO Elsewhere");
    let fail = || wait_within(LONG_PATIENCE, "sweeps fail", || swept("failed") > 2.0);
    and_goes_on(watched, server, fail).expect_beside(&["SweepsFail"], &["NotReady"]);
}
