//! Clients that speak TLS with a real server.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{env, fs, process};

use raybox_client::{Client, Content, Conv, Error, Options, State};
use testkit::tls::Certificate;
use testkit::{Builder, PATIENCE, TestServer, wait_until};

/// A file in a folder that is removed at the end.
struct Ca(PathBuf);

impl Ca {
    fn of(certificate: &Certificate) -> Ca {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("raybox-client-tls-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = env::temp_dir().join(name);
        fs::create_dir(&folder).expect("a folder");
        fs::write(folder.join("ca.pem"), &certificate.chain).expect("the folder is there");
        Ca(folder)
    }

    fn file(&self) -> PathBuf {
        self.0.join("ca.pem")
    }
}

impl Drop for Ca {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn with(certificate: &Certificate) -> Builder {
    TestServer::builder().file("cert.pem", certificate.in_one_file()).option("tls_cert", "cert.pem")
}

fn over_tls(server: &TestServer, ca: &Ca, name: &str) -> Options {
    Options::new(format!("tls://localhost:{}", server.address().port())).ca(ca.file()).password(name, "pw")
}

fn online(options: Options) -> Client {
    let client = Client::open(options).expect("opened");
    client.wait_online(PATIENCE).expect("online");
    client
}

fn texts(client: &Client, conv: Conv) -> Vec<String> {
    let history = client.older(conv, None, 10_000).expect("history");
    let text = |message: &raybox_client::Message| match message.content() {
        Content::Text(text) => text,
        other => format!("{other:?}"),
    };
    history.messages.iter().map(text).collect()
}

#[test]
fn long_messages_come_once_and_in_order_though_the_server_is_killed() {
    const COUNT: usize = 200;
    let certificate = Certificate::of("localhost");
    let ca = Ca::of(&certificate);
    let mut server = with(&certificate).option("tls", "require").fixed_port().start();
    let ids = ["ann", "bob"].map(|name| over_tls(&server, &ca, name).register(name, "pw").expect("registered"));
    let [ann, bob] = ["ann", "bob"].map(|name| online(over_tls(&server, &ca, name)));
    let text = |who: &str, nth: usize| format!("{who} {nth} {}", "x".repeat(20_000));
    // Both write at once, more than sockets hold.
    for nth in 0..COUNT {
        ann.send(Conv::User(ids[1]), &text("ann", nth)).expect("queued");
        bob.send(Conv::User(ids[0]), &text("bob", nth)).expect("queued");
    }
    let head = || bob.conversation(Conv::User(ids[0])).expect("a store").map_or(0, |row| row.head);
    wait_until("some are committed", || head() >= 20);
    server.kill9();
    server.restart();
    wait_until("all are committed", || [&ann, &bob].iter().all(|client| client.pending_count().expect("a count") == 0));
    for (reader, partner) in [(&ann, ids[1]), (&bob, ids[0])] {
        wait_until("all have come", || texts(reader, Conv::User(partner)).len() == 2 * COUNT);
        let all = texts(reader, Conv::User(partner));
        for who in ["ann", "bob"] {
            let of_one: Vec<&String> = all.iter().filter(|text| text.starts_with(who)).collect();
            assert_eq!(of_one.len(), COUNT);
            assert!(of_one.into_iter().enumerate().all(|(nth, one)| *one == text(who, nth)), "in order");
        }
    }
}

#[test]
fn a_server_that_is_not_trusted_gets_no_password_and_the_reason_is_shown() {
    let [certificate, other] = [(); 2].map(|()| Certificate::of("localhost"));
    let (ca, wrong) = (Ca::of(&certificate), Ca::of(&other));
    let server = with(&certificate).start();
    over_tls(&server, &ca, "ann").register("ann", "pw").expect("registered");
    let told = over_tls(&server, &wrong, "ann").register("ann", "pw").expect_err("not trusted").to_string();
    assert!(told.contains("the server's certificate is not trusted"), "{told}");
    let client = Client::open(over_tls(&server, &wrong, "ann")).expect("opened");
    let reason = |client: &Client| match client.state() {
        State::Waiting { reason, .. } => reason,
        _ => String::new(),
    };
    wait_until("the reason is told", || reason(&client).contains("the server's certificate is not trusted"));
    // A name that is not in the certificate.
    let by_number = Options::new(format!("tls://{}", server.address())).ca(ca.file());
    assert!(by_number.register("bob", "pw").expect_err("another name").to_string().contains("is not trusted"));
    // A server without TLS.
    let plain = TestServer::start();
    let told = over_tls(&plain, &ca, "ann").register("ann", "pw").expect_err("no TLS").to_string();
    assert!(told.contains("does not speak TLS"), "{told}");
    assert!(matches!(Client::open(Options::new("localhost:1").ca(ca.file())), Err(Error::Tls(_))));
}
