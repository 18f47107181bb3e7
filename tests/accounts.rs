//! An operator may change or delete an account in the database, as after a theft. The server then
//! logs out its connected user and forgets the old password.

use serde_json::json;
use testkit::{
    ACK, Builder, Database, MariaDb, TestClient, TestServer, WRONG_PASSWORD, assert_refusal, chat, login, password,
    user, wait_until,
};

/// A server that often compares all accounts with the database, and the database.
struct Site {
    server: TestServer,
    database: Option<Database>,
}

impl Site {
    fn start(builder: Builder, database: Option<Database>) -> Site {
        let builder = builder.option("account_check", "200ms").option("admin", "0").option("login_failures", "off");
        let builder = database.iter().fold(builder, Builder::mysql);
        Site { server: builder.start(), database }
    }

    /// Runs a test on each kind of store.
    fn on_each_store(test: impl Fn(&Site)) {
        test(&Site::start(TestServer::builder(), None));
        test(&Site::start(TestServer::builder(), Some(Database::create())));
        test(&Site::start(TestServer::builder(), Some(Database::create_reference())));
    }

    fn run(&self, sql: &str) {
        match &self.database {
            Some(database) => database.run(sql),
            None => self.server.run_sql(sql),
        }
    }

    /// Waits until all accounts were compared twice.
    fn wait_compared(&self) {
        let compared = || self.server.metric("raybox_accounts_compared_total");
        let (users, before) = (self.server.metric("raybox_users_online"), compared());
        wait_until("everybody was looked at", || compared() >= before + 3.0 * users.max(1.0));
    }
}

/// Expects the client to be logged out because its account has changed, and to receive nothing
/// else.
fn expect_logged_out(client: &mut TestClient) {
    assert_refusal(&client.recv_text(), 403);
    client.expect_eof();
}

#[test]
fn a_changed_or_deleted_account_is_logged_out_and_its_password_forgotten() {
    Site::on_each_store(|site| {
        let (mut ann, a) = user(&site.server, "ann");
        let mut second = login(&site.server, "ann", a);
        let (mut bob, b) = user(&site.server, "bob");
        let (mut carol, c) = user(&site.server, "carol");
        site.run(&format!("UPDATE User SET password = 'changed' WHERE id = {a}"));
        expect_logged_out(&mut ann);
        expect_logged_out(&mut second);
        let mut back = TestClient::connect(&site.server);
        back.send(&json!({"msgType": 1, "USERID": a, "password": password("ann")}));
        back.expect_text(WRONG_PASSWORD);
        back.login(a, "changed");
        site.run(&format!("DELETE FROM User WHERE id = {b}"));
        expect_logged_out(&mut bob);
        site.wait_compared();
        back.send(&chat(a, c, "hello"));
        carol.expect(&chat(a, c, "hello"));
        assert_eq!(site.server.metric("raybox_logged_out_total").round() as i64, 3);
    });
}

#[test]
fn a_remembered_old_password_admits_only_until_the_database_is_asked() {
    Site::on_each_store(|site| {
        let (ann, a) = user(&site.server, "ann");
        drop(ann);
        site.server.wait_state(a, "offline");
        site.run(&format!("UPDATE User SET password = 'changed' WHERE id = {a}"));
        let mut thief = TestClient::connect(&site.server);
        thief.send(&json!({"msgType": 1, "USERID": a, "password": password("ann")}));
        // The server answers this request before it asks the database.
        thief.expect_text(ACK);
        expect_logged_out(&mut thief);
        let mut back = TestClient::connect(&site.server);
        back.send(&json!({"msgType": 1, "USERID": a, "password": password("ann")}));
        back.expect_text(WRONG_PASSWORD);
    });
}

#[test]
fn the_owner_who_logs_in_with_the_new_password_has_the_old_connections_ended() {
    // The interval is so long that no comparison happens during the test.
    let server = TestServer::builder().option("account_check", "1h").start();
    let (mut thief, a) = user(&server, "ann");
    server.run_sql(&format!("UPDATE User SET password = 'changed' WHERE id = {a}"));
    let mut owner = TestClient::connect(&server);
    owner.login(a, "changed");
    expect_logged_out(&mut thief);
    owner.barrier();
}

#[test]
fn others_on_the_same_connection_stay() {
    let server = TestServer::builder().option("account_check", "200ms").start();
    let (mut both, a) = user(&server, "ann");
    let b = both.register("bob", &password("bob"));
    both.login(b, &password("bob"));
    server.run_sql(&format!("DELETE FROM User WHERE id = {a}"));
    assert_refusal(&both.recv_text(), 403);
    both.send(&json!({"msgType": 14, "FROMID": a}));
    both.expect_refusal(403);
    assert_eq!(both.fetch(b).len(), 0);
}

#[test]
fn a_stored_password_that_is_upgraded_logs_nobody_out() {
    let site = Site::start(TestServer::builder(), None);
    let (_, a) = user(&site.server, "ann");
    site.run(&format!("UPDATE User SET password = 'plain' WHERE id = {a}"));
    let mut ann = TestClient::connect(&site.server);
    ann.login(a, "plain");
    let upgraded = format!("SELECT COUNT(*) FROM User WHERE id = {a} AND password LIKE '$argon2%'");
    wait_until("it is a hash", || site.server.count(&upgraded) == 1);
    site.wait_compared();
    ann.barrier();
    let mut again = TestClient::connect(&site.server);
    again.login(a, "plain");
    site.wait_compared();
    again.barrier();
}

#[test]
fn two_nodes_that_upgrade_the_same_stored_password_log_nobody_out() {
    const USERS: usize = 8;
    let database = Database::create();
    let site = || Site::start(TestServer::builder(), Some(database.clone()));
    let (one, other) = (site(), site());
    let connect = |site: &Site| TestClient::connect(&site.server);
    let mut first = connect(&one);
    let ids: Vec<i64> = (0..USERS).map(|n| first.register(&format!("ann{n}"), "secret")).collect();
    database.run("UPDATE User SET password = 'plain'");
    let mut clients: Vec<_> = ids.iter().map(|id| (*id, connect(&one), connect(&other))).collect();
    // Both nodes read the plain-text password before either has replaced it.
    for (id, a, b) in &mut clients {
        let frame = json!({"msgType": 1, "USERID": id, "password": "plain"});
        a.send(&frame);
        b.send(&frame);
    }
    for (_, a, b) in &mut clients {
        a.expect_text(ACK);
        b.expect_text(ACK);
    }
    let hashes = "SELECT COUNT(*) FROM User WHERE password LIKE '$argon2%'";
    wait_until("all are hashes", || database.count(hashes) == USERS);
    one.wait_compared();
    other.wait_compared();
    for (_, a, b) in &mut clients {
        a.barrier();
        b.barrier();
    }
    assert!(one.server.metric("raybox_logged_out_total") + other.server.metric("raybox_logged_out_total") < 0.5);
}

#[test]
fn no_user_is_logged_out_while_the_database_is_unreachable() {
    let mut mariadb = MariaDb::start();
    let site = Site::start(TestServer::builder(), Some(mariadb.create_database()));
    let (mut ann, a) = user(&site.server, "ann");
    let (mut bob, b) = user(&site.server, "bob");
    mariadb.kill();
    wait_until("the log says so", || site.server.logs().contains("comparing accounts fails"));
    let mut again = login(&site.server, "bob", b);
    ann.send(&chat(a, b, "hello"));
    again.expect(&chat(a, b, "hello"));
    mariadb.restart();
    site.wait_compared();
    ann.send(&chat(a, b, "hello again"));
    again.expect(&chat(a, b, "hello again"));
    bob.ack_barrier();
    assert!(site.server.metric("raybox_logged_out_total") < 0.5);
}
