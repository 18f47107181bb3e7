//! Logins with JSON web tokens.

use std::fs;

use serde_json::{Value, json};
use testkit::jwt::{JwtIssuer, in_seconds, jwks};
use testkit::level2::{Level2Client, LoginAs, Store};
use testkit::{
    Builder, Cluster, Database, TestClient, TestServer, WRONG_PASSWORD, offline_user, password, signal, wait_until,
};

/// Runs a test on SQLite and on MariaDB.
fn on_both(test: impl Fn(Builder)) {
    test(TestServer::builder());
    test(TestServer::builder().mysql(&Database::create()));
}

/// A server that accepts tokens of this issuer.
fn trusting(builder: Builder, issuer: &JwtIssuer) -> Builder {
    builder
        .file("jwks.json", jwks(&[issuer]))
        .option("jwt_key", "jwks.json")
        .option("jwt_algorithm", issuer.algorithm())
}

fn registering(builder: Builder, issuer: &JwtIssuer) -> TestServer {
    trusting(builder, issuer).option("jwt_register", "on").start()
}

/// Claims that are right for an hour.
fn of(sub: Value) -> Value {
    json!({"sub": sub, "exp": in_seconds(3600)})
}

fn enter(server: &TestServer, login: LoginAs) -> Level2Client {
    Level2Client::login(TestClient::connect(server), Store::new(Store::NEW_USER), login)
}

/// Logs in a user with this id.
fn known(server: &TestServer, user: i64, login: LoginAs) -> Level2Client {
    Level2Client::login(TestClient::connect(server), Store::new(user), login)
}

/// Logs in and returns the 40 that refuses it.
fn refused(server: &TestServer, login: LoginAs) -> Value {
    match Level2Client::try_login(TestClient::connect(server), Store::new(0), login) {
        Ok(_) => panic!("the login is accepted"),
        Err(refused) => refused.reply.expect("a reply"),
    }
}

#[track_caller]
fn expect_302(server: &TestServer, login: LoginAs) {
    let reply = refused(server, login);
    assert_eq!((&reply["errno"], &reply["msgType"]), (&json!(302), &json!(40)), "{reply}");
}

/// The stored password of a user.
fn stored(server: &TestServer, user: i64) -> String {
    let read = |row: &rusqlite::Row<'_>| row.get(0);
    server.database().query_row("SELECT password FROM User WHERE id = ?1", [user], read).expect("an account")
}

#[test]
fn a_token_makes_an_account_and_opens_it_again() {
    on_both(|builder| {
        let issuer = JwtIssuer::rs256().named("k1");
        let server = registering(builder, &issuer);
        let claims = of(json!("ann"));
        let expires = claims["exp"].as_i64().expect("a time") * 1000;
        let jwt = issuer.sign(&claims);
        let ann = enter(&server, LoginAs::jwt(&jwt, "phone"));
        assert_eq!((ann.welcome.name.as_str(), ann.welcome.token_expires), ("ann", expires));
        let again = enter(&server, LoginAs::jwt(&jwt, "laptop").with("name", json!("ann")));
        assert_eq!(again.welcome.user, ann.welcome.user);
        let by_id = enter(&server, LoginAs::jwt(&issuer.sign(&of(json!(ann.welcome.user))), "tablet"));
        assert_eq!(by_id.welcome.user, ann.welcome.user);
        // A token of the server opens it as well, and brings one that ends no later.
        let by_token = known(&server, ann.welcome.user, LoginAs::token(&ann.welcome.token, "phone"));
        assert_eq!((by_token.welcome.user, by_token.welcome.token_expires), (ann.welcome.user, expires));
        assert_ne!(enter(&server, LoginAs::jwt(&issuer.sign(&of(json!("bob"))), "d")).welcome.user, ann.welcome.user);
    });
}

#[test]
fn an_account_made_by_a_token_has_no_password() {
    let issuer = JwtIssuer::eddsa();
    let server = registering(TestServer::builder(), &issuer);
    let ann = enter(&server, LoginAs::jwt(&issuer.sign(&of(json!("ann"))), "d")).welcome.user;
    let stored = stored(&server, ann);
    for word in ["", "$jwt$", &stored, stored.strip_prefix("$jwt$").expect("a mark")] {
        expect_302(&server, LoginAs::password(ann, word, "e"));
        let mut level1 = TestClient::connect(&server);
        level1.send(&json!({"msgType": 1, "USERID": ann, "password": word}));
        level1.expect_text(WRONG_PASSWORD);
    }
}

/// Has the stored password of a user replaced, as another program could that writes this column.
/// `stored` is an expression of SQL.
fn store_password(server: &TestServer, user: i64, stored: &str) {
    server.run_sql(&format!("UPDATE User SET password = {stored} WHERE id = {user}"));
}

/// A mark without a proof, which any program can make.
const UNPROVEN: &str = "'$jwt$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA'";

#[test]
fn a_mark_that_another_program_has_written_opens_nothing() {
    on_both(|builder| {
        let issuer = JwtIssuer::eddsa();
        let server = registering(builder, &issuer);
        let [ann, bob] = ["ann", "bob"].map(|name| LoginAs::jwt(&issuer.sign(&of(json!(name))), "d"));
        let made = enter(&server, bob.clone()).welcome.user;
        let before = offline_user(&server, "ann");
        let of_bob = format!("(SELECT copy FROM (SELECT password AS copy FROM User WHERE id = {made}) AS one)");
        let hash = "'$jwt$$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA'";
        for forged in [UNPROVEN, "'$jwt$'", hash, &of_bob] {
            store_password(&server, before, forged);
            expect_302(&server, ann.clone());
        }
        let mut phone = enter(&server, bob.clone());
        store_password(&server, made, UNPROVEN);
        let jwt = issuer.sign(&of(json!("bob")));
        phone.ask_for(302, json!({"msgType": 60, "jwt": jwt, "new": "x"}));
        phone.ask_for(302, json!({"msgType": 69, "jwt": jwt}));
        expect_302(&server, bob);
    });
}

#[test]
fn a_server_opens_the_accounts_that_another_one_of_its_cluster_has_made() {
    let issuer = JwtIssuer::eddsa();
    let cluster = Cluster::start_with(2, |builder| trusting(builder, &issuer).option("jwt_register", "on"));
    let login = |name: &str| LoginAs::jwt(&issuer.sign(&of(json!(name))), "d");
    let [one, other] = [0, 1].map(|node| &cluster.nodes[node]);
    for (name, first, second) in [("ann", one, other), ("bob", other, one)] {
        let made = enter(first, login(name)).welcome.user;
        assert_eq!(enter(second, login(name)).welcome.user, made);
    }
}

/// Has the database lose the key of the marks, as after a failover to a replica that lags.
fn lose_key(cluster: &Cluster) {
    cluster.database.run("DELETE FROM Meta WHERE id = 4");
}

#[test]
fn accounts_of_before_and_after_a_loss_of_the_key_are_open_on_all_servers() {
    let issuer = JwtIssuer::eddsa();
    let cluster = Cluster::start_with(3, |builder| trusting(builder, &issuer).option("jwt_register", "on"));
    let login = |name: &str| LoginAs::jwt(&issuer.sign(&of(json!(name))), "d");
    let [first, second, third] = [0, 1, 2].map(|node| &cluster.nodes[node]);
    let ann = enter(first, login("ann")).welcome.user;
    // The server that knows the key writes it back.
    lose_key(&cluster);
    assert_eq!(enter(first, login("ann")).welcome.user, ann);
    assert_eq!(cluster.database.count("SELECT count(*) FROM Meta WHERE id = 4"), 1);
    // A server that does not know it is faster, and makes another one.
    lose_key(&cluster);
    let bob = enter(second, login("bob")).welcome.user;
    assert_eq!(enter(first, login("bob")).welcome.user, bob);
    for server in [first, second, third] {
        assert_eq!(enter(server, login("ann")).welcome.user, ann);
        assert_eq!(enter(server, login("bob")).welcome.user, bob);
    }
    // A mark with a proof of neither key opens nothing.
    let carol = offline_user(third, "carol");
    cluster.database.run(&format!("UPDATE User SET password = {UNPROVEN} WHERE id = {carol}"));
    expect_302(third, login("carol"));
}

#[test]
fn the_token_of_the_server_ends_with_the_jwt() {
    let issuer = JwtIssuer::es256();
    let server = registering(TestServer::builder(), &issuer);
    // It has expired, but the clocks may differ by a minute.
    let exp = in_seconds(-30);
    let ann = enter(&server, LoginAs::jwt(&issuer.sign(&json!({"sub": "ann", "exp": exp})), "d"));
    assert_eq!(ann.welcome.token_expires, exp * 1000);
    expect_302(&server, LoginAs::token(&ann.welcome.token, "d"));
    // token_days is the other bound.
    let late = json!({"sub": "ann", "exp": in_seconds(400 * 24 * 3600)});
    let ann = enter(&server, LoginAs::jwt(&issuer.sign(&late), "d"));
    let day = 24 * 3600;
    assert!((in_seconds(29 * day)..=in_seconds(30 * day)).contains(&(ann.welcome.token_expires / 1000)));
}

#[test]
fn wrong_tokens_are_refused_as_wrong_passwords_are() {
    let issuer = JwtIssuer::rs256().named("k1");
    let audience = |builder: Builder| {
        builder.option("jwt_audience", "chat").option("jwt_issuer", "https://id").option("login_failures", "off")
    };
    let server = registering(audience(TestServer::builder()), &issuer);
    let right = json!({"sub": "ann", "exp": in_seconds(3600), "aud": ["chat", "mail"], "iss": "https://id"});
    let id = enter(&server, LoginAs::jwt(&issuer.sign(&right), "d")).welcome.user;
    let bob = offline_user(&server, "bob");
    let with = |member: &str, value: Value| {
        let mut claims = right.clone();
        claims[member] = value;
        LoginAs::jwt(&issuer.sign(&claims), "d")
    };
    let as_right = || LoginAs::jwt(&issuer.sign(&right), "d");
    let forged = |header: Value| LoginAs::jwt(&issuer.sign_with(&header, &right), "d");
    let unsigned = issuer.sign_with(&json!({"alg": "none"}), &right);
    let other_alg = JwtIssuer::hs256(issuer.pem().as_bytes()).named("k1");
    let wrong = [
        LoginAs::password(bob, "wrong", "d"),
        LoginAs::jwt("", "d"),
        LoginAs::jwt("x", "d"),
        LoginAs::jwt(&"x".repeat(20_000), "d"),
        LoginAs::jwt(unsigned.rsplit_once('.').expect("three parts").0, "d"),
        LoginAs::jwt(&other_alg.sign(&right), "d"),
        forged(json!({"alg": "RS256", "kid": "k2"})),
        forged(json!({"alg": "RS512", "kid": "k1"})),
        with("exp", json!(in_seconds(-90))),
        with("exp", json!(null)),
        with("nbf", json!(in_seconds(90))),
        with("iss", json!("https://other")),
        with("aud", json!("mail")),
        with("sub", json!(null)),
        with("sub", json!("")),
        with("sub", json!("x".repeat(51))),
        with("sub", json!(0)),
        with("sub", json!(-1)),
        with("sub", json!(99_999_999_999_i64)),
        with("sub", json!(id + 1000)),
        // The issuer may have a user of each spelling.
        with("sub", json!("Ann")),
        // A token has not made this account.
        with("sub", json!("bob")),
        with("sub", json!(bob)),
        as_right().with("name", json!("bob")),
        as_right().with("USERID", json!(bob)),
        with("sub", json!("carol")).with("name", json!("dave")),
        with("sub", json!("carol")).with("USERID", json!(id)),
    ];
    let texts: Vec<String> = wrong.into_iter().map(|wrong| refused(&server, wrong).to_string()).collect();
    assert!(texts.iter().all(|text| *text == texts[0]), "{texts:#?}");
    assert!(texts[0].contains("302"), "{texts:?}");
    assert_eq!(server.count("SELECT count(*) FROM User"), 2, "no account is made for a wrong login");
    // The audit trail says why.
    for why in ["it has expired", "jwt_audience", "jwt_issuer", "no key with its kid", "not valid yet"] {
        assert!(!server.logs_with(why).is_empty(), "{why}");
    }
    let two = as_right().with("password", json!("x"));
    assert_eq!(refused(&server, two)["errno"], 400, "one proof only");
    assert_eq!(enter(&server, as_right()).welcome.user, id);
}

#[test]
fn without_registration_a_token_opens_the_account_that_it_names() {
    let issuer = JwtIssuer::hs256(b"a secret of at least 32 characters");
    let server = trusting(TestServer::builder(), &issuer).start();
    let ann = offline_user(&server, "ann");
    for sub in [json!("ann"), json!(ann)] {
        assert_eq!(enter(&server, LoginAs::jwt(&issuer.sign(&of(sub)), "d")).welcome.user, ann);
    }
    expect_302(&server, LoginAs::jwt(&issuer.sign(&of(json!("bob"))), "d"));
    assert_eq!(server.count("SELECT count(*) FROM User"), 1);
    // The password stays, and only it changes or deletes the account.
    let mut phone = known(&server, ann, LoginAs::password(ann, &password("ann"), "phone"));
    let jwt = issuer.sign(&of(json!("ann")));
    phone.ask_for(302, json!({"msgType": 60, "jwt": jwt, "new": "x"}));
    phone.ask_for(302, json!({"msgType": 69, "jwt": jwt}));
    phone.ask_for(200, json!({"msgType": 67, "name": "anna"}));
}

#[test]
fn without_a_key_no_token_is_right() {
    let server = TestServer::start();
    let ann = offline_user(&server, "ann");
    let jwt = JwtIssuer::hs256(b"a secret of at least 32 characters").sign(&of(json!("ann")));
    expect_302(&server, LoginAs::jwt(&jwt, "d"));
    let mut phone = known(&server, ann, LoginAs::password(ann, &password("ann"), "phone"));
    phone.ask_for(302, json!({"msgType": 69, "jwt": jwt}));
}

#[test]
fn a_fresh_token_takes_the_place_of_the_password() {
    on_both(|builder| {
        let issuer = JwtIssuer::es256().named("k1");
        let server = registering(builder, &issuer);
        let jwt = |sub: &str| issuer.sign(&of(json!(sub)));
        let mut ann = enter(&server, LoginAs::jwt(&jwt("ann"), "phone"));
        let mut laptop = enter(&server, LoginAs::jwt(&jwt("ann"), "laptop"));
        let id = ann.welcome.user;
        let stale = issuer.sign(&json!({"sub": "ann", "exp": in_seconds(-90)}));
        for wrong in [jwt("bob"), stale, "x".to_owned()] {
            ann.ask_for(302, json!({"msgType": 60, "jwt": wrong, "new": "x"}));
            ann.ask_for(302, json!({"msgType": 69, "jwt": wrong}));
        }
        ann.ask_for(302, json!({"msgType": 69, "password": ""}));
        // Another user's token would open the account if it could take that name.
        ann.ask_for(403, json!({"msgType": 67, "name": "bob"}));
        ann.ask_for(200, json!({"msgType": 67, "name": "ann", "receipts": false}));
        let claims = json!({"sub": "ann", "exp": in_seconds(1800)});
        let changed = ann.ask_for(200, json!({"msgType": 60, "jwt": issuer.sign(&claims), "new": "word"}));
        assert_eq!(changed["tokenExpires"], json!(claims["exp"].as_i64().expect("a time") * 1000), "{changed}");
        laptop.expect_farewell("revoked");
        expect_302(&server, LoginAs::token(&laptop.welcome.token, "laptop"));
        // The account has a password now, and tokens still open it.
        let by_word = known(&server, id, LoginAs::password(id, "word", "desk"));
        assert!(by_word.welcome.token_expires > in_seconds(7200) * 1000, "its token does not end with a JWT");
        assert_eq!(enter(&server, LoginAs::jwt(&jwt("ann"), "laptop")).welcome.user, id);
        let token = changed["token"].as_str().expect("a token");
        let mut ann = known(&server, id, LoginAs::token(token, "phone"));
        ann.ask_for(200, json!({"msgType": 60, "password": "word", "new": "other"}));
        expect_302(&server, LoginAs::password(id, "word", "desk"));
        assert_eq!(enter(&server, LoginAs::jwt(&jwt("ann"), "laptop")).welcome.user, id);
        ann.ask_for(200, json!({"msgType": 69, "jwt": jwt("ann")}));
        // The next login makes a new account.
        assert_ne!(enter(&server, LoginAs::jwt(&jwt("ann"), "laptop")).welcome.user, id);
    });
}

#[test]
fn keys_are_rotated_under_a_running_server() {
    let (first, second) = (JwtIssuer::es256().named("a"), JwtIssuer::es256().named("b"));
    let server = registering(TestServer::builder().heeding_hup(), &first);
    let opens = |issuer: &JwtIssuer| {
        let login = LoginAs::jwt(&issuer.sign(&of(json!("ann"))), "d");
        Level2Client::try_login(TestClient::connect(&server), Store::new(0), login).is_ok()
    };
    // The file is replaced as a whole, so that the server never reads half of it.
    let put = |text: &str| {
        let file = server.folder().join("jwks.new");
        fs::write(&file, text).expect("write the keys");
        fs::rename(file, server.folder().join("jwks.json")).expect("replace the keys");
        signal(server.pid(), "HUP");
    };
    assert!(opens(&first) && !opens(&second));
    put(&jwks(&[&first, &second]));
    wait_until("the new key is used", || opens(&second));
    assert!(opens(&first), "and the old one still is");
    put("{\"keys\":[");
    wait_until("the log says why", || !server.logs_with("nothing was reloaded").is_empty());
    assert!(server.logs_with("jwks.json").contains("JWKS"), "{}", server.logs_with("jwks.json"));
    assert!(opens(&first) && opens(&second), "the keys from before are in use");
    put(&jwks(&[&second]));
    wait_until("the old key is gone", || !opens(&first));
    assert!(opens(&second));
}

#[test]
fn a_client_with_wrong_tokens_makes_no_other_wait() {
    let issuer = JwtIssuer::rs256();
    let forger = JwtIssuer::hs256(b"a secret of at least 32 characters");
    let builder = TestServer::builder().option("workers", "1").option("login_failures", "3");
    let server = registering(builder, &issuer);
    let guess = LoginAs::jwt(&forger.sign(&of(json!("greedy"))), "d");
    let mut waits = 0;
    for nth in 0..20 {
        let reply = refused(&server, guess.clone());
        match reply["errno"].as_i64() {
            Some(302) => assert!(waits == 0 || nth > 3, "{reply}"),
            Some(429) => {
                assert!(reply["retryAfter"].as_f64().is_some_and(|seconds| seconds > 0.0), "{reply}");
                waits += 1;
            }
            _ => panic!("{reply}"),
        }
        let quiet = LoginAs::jwt(&issuer.sign(&of(json!(format!("quiet{nth}")))), "d");
        enter(&server, quiet);
    }
    assert!(waits >= 10, "only {waits} of 20 had to wait");
    // A right token is refused as well, so the answer reveals nothing about a token.
    assert_eq!(refused(&server, LoginAs::jwt(&issuer.sign(&of(json!("greedy"))), "d"))["errno"], 429);
}

#[test]
fn logins_at_the_same_time_make_one_account() {
    on_both(|builder| {
        let issuer = JwtIssuer::eddsa();
        let server = registering(builder, &issuer);
        let login = LoginAs::jwt(&issuer.sign(&of(json!("ann"))), "d");
        let users: Vec<i64> = std::thread::scope(|scope| {
            let one = |nth: usize| {
                let login = login.clone().with("device", json!(format!("d{nth}")));
                scope.spawn(|| enter(&server, login).welcome.user)
            };
            let threads: Vec<_> = (0..8).map(one).collect();
            threads.into_iter().map(|thread| thread.join().expect("a login")).collect()
        });
        assert!(users.iter().all(|user| *user == users[0]), "{users:?}");
    });
}
