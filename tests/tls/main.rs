//! TLS on the port for clients: rustls, OpenSSL and curl as clients, certificates that are renewed
//! while users chat, thousands of handshakes, and connections that break.

mod plain;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, version};
use serde_json::json;
use socket2::SockRef;
use testkit::tls::{Certificate, trusting, trusting_in};
use testkit::{
    ACK, Builder, LONG_PATIENCE, Lines, PATIENCE, TestClient, TestServer, Workplace, login, number_of, numbered,
    numbered_with_text, offline_user, output_within, password, raise_descriptor_limit, signal, user, wait_until,
    wait_within,
};

const TLS_ONLY: &str = r#"{"errmsg":"this port requires TLS: connect with TLS","errno":400,"msgType":400}"#;

/// A server with this certificate.
fn with(certificate: &Certificate) -> Builder {
    TestServer::builder()
        .file("cert.pem", certificate.chain.clone())
        .file("key.pem", certificate.key.clone())
        .option("tls_cert", "cert.pem")
        .option("tls_key", "key.pem")
}

/// A server with a new certificate, and clients that trust it.
fn server() -> (TestServer, Arc<ClientConfig>) {
    let certificate = Certificate::of("localhost");
    (with(&certificate).start(), trusting(&[&certificate]))
}

fn login_tls(server: &TestServer, config: &Arc<ClientConfig>, name: &str, id: i64) -> TestClient {
    let mut client = TestClient::connect_tls(server, config);
    client.login(id, &password(name));
    client
}

fn lines_in_log(server: &TestServer, text: &str) -> usize {
    server.logs().lines().filter(|line| line.contains(text)).count()
}

#[test]
fn people_with_and_without_tls_talk_to_each_other() {
    let (server, config) = server();
    let (mut alice, a) = user(&server, "alice");
    let mut bob = TestClient::connect_tls(&server, &config);
    let b = bob.register("bob", &password("bob"));
    bob.login(b, &password("bob"));
    for n in 0..100 {
        alice.send(&numbered_with_text(a, b, n, 1000));
        assert_eq!(number_of(&bob.recv()), n);
        bob.send(&numbered(b, a, n));
        assert_eq!(number_of(&alice.recv()), n);
    }
    // Messages that a TLS connection did not deliver are stored, as with TCP.
    drop(bob);
    server.wait_state(b, "offline");
    alice.send(&numbered(a, b, 100));
    alice.barrier();
    let mut bob = login_tls(&server, &config, "bob", b);
    assert_eq!(bob.fetch_all(b).iter().map(number_of).collect::<Vec<_>>(), [100]);
}

#[test]
fn a_client_of_either_version_is_served() {
    let certificate = Certificate::of("localhost");
    let server = with(&certificate).start();
    for version in [&version::TLS12, &version::TLS13] {
        let mut client = TestClient::connect_tls(&server, &trusting_in(&[&certificate], &[version]));
        client.ack_barrier();
    }
}

/// A client that uses OpenSSL. Dropping it ends it.
struct Openssl {
    child: Child,
    replies: Lines,
}

impl Openssl {
    fn connect(server: &TestServer, options: &[&str]) -> Openssl {
        let mut child = Command::new("openssl")
            .args(["s_client", "-quiet", "-verify_quiet", "-verify_return_error", "-servername", "localhost"])
            .args(["-CAfile", "cert.pem", "-connect", &server.address().to_string()])
            .args(options)
            .current_dir(server.folder())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl is installed");
        let replies = Lines::of(child.stdout.take().expect("stdout is a pipe"));
        Openssl { child, replies }
    }

    fn ask(&mut self, frame: &str) -> String {
        let stdin = self.child.stdin.as_mut().expect("stdin is a pipe");
        writeln!(stdin, "{frame}").expect("openssl reads");
        self.next()
    }

    /// The next line from the server.
    fn next(&self) -> String {
        self.replies.next_within(PATIENCE).expect("openssl writes")
    }
}

impl Drop for Openssl {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn openssl_chats() {
    let (server, _) = server();
    let (mut alice, a) = user(&server, "alice");
    let b = offline_user(&server, "bob");
    for options in [["-tls1_3", "-no_ticket"], ["-tls1_2", "-no_ticket"], ["-alpn", "http/1.1"]] {
        let mut openssl = Openssl::connect(&server, &options);
        assert_eq!(openssl.ask(r#"{"msgType":200}"#), ACK, "{options:?}");
        let login = json!({"msgType": 1, "USERID": b, "password": password("bob")});
        assert!(openssl.ask(&login.to_string()).contains(r#""errno":200"#), "{options:?}");
        alice.send(&numbered(a, b, 7));
        assert_eq!(number_of(&serde_json::from_str(&openssl.next()).expect("a frame")), 7);
        drop(openssl);
        server.wait_state(b, "offline");
    }
}

#[test]
fn curl_is_answered() {
    let (server, _) = server();
    let url = format!("https://localhost:{}/", server.address().port());
    let mut curl = Command::new("curl");
    curl.args(["-4", "--silent", "--show-error", "--max-time", "60", "--cacert", "cert.pem"])
        .args(["--output", "page", "--write-out", "%{http_code} %{ssl_verify_result} %{http_version}", &url])
        .env("NO_PROXY", "*")
        .current_dir(server.folder());
    let curl = output_within(LONG_PATIENCE, &mut curl).expect("curl is installed");
    let said = String::from_utf8_lossy(&curl.stdout).into_owned();
    let words: Vec<&str> = said.split(' ').collect();
    let [status, verified, version] = words[..] else { panic!("{said}: {}", String::from_utf8_lossy(&curl.stderr)) };
    let why = String::from_utf8_lossy(&curl.stderr);
    assert_eq!((status, verified, version), ("200", "0", "1.1"), "{why}");
    let page = fs::read_to_string(server.folder().join("page")).expect("curl writes the page");
    assert!(page.to_ascii_lowercase().starts_with("<!doctype html>"), "the web client: {page}");
}

#[test]
fn of_the_protocols_that_a_client_names_http_1_1_is_chosen() {
    let (server, config) = server();
    let offer = |protocols: &[&[u8]]| {
        let mut config = ClientConfig::clone(&config);
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        let name = ServerName::try_from("localhost").expect("a name");
        let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
        let mut socket = TcpStream::connect(server.address()).expect("the server listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("an option");
        client.complete_io(&mut socket).map(|_| client.alpn_protocol().map(<[u8]>::to_vec))
    };
    let chosen = |protocols: &[&[u8]]| offer(protocols).expect("the handshake succeeds");
    assert_eq!(chosen(&[]), None, "a client may name none");
    assert_eq!(chosen(&[b"http/1.1"]), Some(b"http/1.1".to_vec()));
    assert_eq!(chosen(&[b"h2", b"http/1.1"]), Some(b"http/1.1".to_vec()));
    let refused = offer(&[b"h2"]).expect_err("this server does not speak HTTP/2").to_string();
    assert!(refused.contains("NoApplicationProtocol"), "{refused}");
}

/// Sets the flag when it is dropped.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn certificates_are_renewed_while_people_chat_and_nothing_is_lost() {
    const RENEWALS: usize = 5;
    let mut certificate = Certificate::of("localhost");
    let server = with(&certificate).heeding_hup().start();
    let config = trusting(&[&certificate]);
    let [a, b] = ["alice", "bob"].map(|name| offline_user(&server, name));
    let mut alice = login_tls(&server, &config, "alice", a);
    let mut bob = login_tls(&server, &config, "bob", b);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let mut live = Vec::new();
            loop {
                let frame = bob.recv();
                live.push(number_of(&frame));
                if frame["last"] == true {
                    return live;
                }
            }
        });
        let writing = scope.spawn(|| {
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                alice.send(&numbered(a, b, n));
                n += 1;
                if n % 50 == 0 {
                    alice.barrier();
                }
            }
            let mut last = numbered(a, b, n);
            last["last"] = true.into();
            alice.send(&last);
            n + 1
        });
        // The writer must end even if this panics; otherwise the test would hang.
        let ends = StopOnDrop(&stop);
        for _ in 0..RENEWALS {
            certificate = Certificate::of("localhost");
            fs::write(server.folder().join("cert.pem"), &certificate.chain).expect("the folder is there");
            // Only half of the new certificate is there, so the old one stays in use.
            signal(server.pid(), "HUP");
            fs::write(server.folder().join("key.pem"), &certificate.key).expect("the folder is there");
            signal(server.pid(), "HUP");
            let config = trusting(&[&certificate]);
            // A reload that begins after the signal reads both new files.
            wait_until("new connections are shown the new certificate", || {
                let stream = TcpStream::connect(server.address()).expect("the server listens");
                let client = TestClient::on_tls(stream, "localhost", &config);
                client.is_ok_and(|client| client.certificate() == Some(&certificate.der))
            });
        }
        drop(ends);
        let sent = writing.join().expect("alice chats on");
        let live = reading.join().expect("bob chats on");
        assert_eq!(live, (0..sent).collect::<Vec<_>>(), "everything once and in order, on the old connections");
    });
}

#[test]
fn certificates_are_renewed_without_a_signal() {
    let old = Certificate::of("localhost");
    let server = with(&old).start();
    let mut before = TestClient::connect_tls(&server, &trusting(&[&old]));
    let new = Certificate::of("localhost");
    fs::write(server.folder().join("cert.pem"), &new.chain).expect("the folder is there");
    fs::write(server.folder().join("key.pem"), &new.key).expect("the folder is there");
    // The server looks at the files every minute.
    let config = trusting(&[&new]);
    wait_within(2 * LONG_PATIENCE, "new connections are shown the new certificate", || {
        let stream = TcpStream::connect(server.address()).expect("the server listens");
        TestClient::on_tls(stream, "localhost", &config).is_ok()
    });
    before.ack_barrier();
    assert_eq!(lines_in_log(&server, "new certificates are in use"), 1);
}

#[test]
fn a_file_that_is_not_a_certificate_changes_nothing_and_each_reload_says_why() {
    let certificate = Certificate::of("localhost");
    let server = with(&certificate).option("admin", "127.0.0.1:0").heeding_hup().start();
    // The file is replaced at once, because a half-written one would be another fault.
    let replaced = server.folder().join("replaced.pem");
    fs::write(&replaced, "nonsense").expect("the folder is there");
    fs::rename(replaced, server.folder().join("cert.pem")).expect("the folder is there");
    let why = "nothing was reloaded: settings and certificates from before stay in effect: key tls_cert: cert.pem: it has no certificate";
    for n in 1..=3 {
        signal(server.pid(), "HUP");
        wait_until("the reload says why", || lines_in_log(&server, why) == n);
    }
    assert_eq!(lines_in_log(&server, "it has no certificate"), 3);
    TestClient::connect_tls(&server, &trusting(&[&certificate])).ack_barrier();
    let left = server.metrics();
    let left =
        left.lines().find_map(|line| line.strip_prefix(r#"raybox_tls_certificate_expiry_seconds{file="cert.pem"} "#));
    assert!(left.expect("the metric is there").parse::<f64>().expect("a number") > 0.0);
}

#[test]
fn two_thousand_handshakes_at_once_leave_a_chat_beside_them_alone() {
    const STORM: usize = 2000;
    raise_descriptor_limit(std::process::id(), 2 * STORM);
    let certificate = Certificate::of("localhost");
    let server = with(&certificate)
        .option("admin", "127.0.0.1:0")
        .option("connections_per_address", "off")
        .option("loops", "1")
        .start();
    let config = trusting(&[&certificate]);
    let (mut alice, a) = user(&server, "alice");
    let b = offline_user(&server, "bob");
    let mut bob = login_tls(&server, &config, "bob", b);
    let mut hello = Vec::new();
    let name = ServerName::try_from("localhost").expect("a name");
    ClientConnection::new(config.clone(), name).expect("a client").write_tls(&mut hello).expect("a vector takes all");
    let mut storm: Vec<TcpStream> =
        (0..STORM).map(|_| TcpStream::connect(server.address()).expect("the server listens")).collect();
    wait_within(LONG_PATIENCE, "all are accepted", || server.open_connections() >= STORM);
    for socket in &mut storm {
        socket.write_all(&hello).expect("the kernel takes it");
        socket.set_nonblocking(true).expect("an option");
    }
    // The tests of the reactor bound the handshakes of a turn.
    let mut chats_between = 0;
    let mut waiting: Vec<&TcpStream> = storm.iter().collect();
    for n in 0.. {
        alice.send(&numbered(a, b, n));
        assert_eq!(number_of(&bob.recv()), n);
        waiting.retain(|socket| !matches!(socket.peek(&mut [0]), Ok(1)));
        if waiting.is_empty() {
            break;
        }
        chats_between += usize::from(waiting.len() < STORM);
    }
    assert!(chats_between > 0, "the chat goes on in the middle of the storm");
    drop(storm);
    wait_within(LONG_PATIENCE, "all that left are counted, and the connection of the chat is still open", || {
        let metrics = server.metrics();
        metrics.contains(&format!("raybox_tls_handshakes_total{{outcome=\"failed\"}} {STORM}\n"))
            && metrics.contains("raybox_tls_connections_open 1\n")
    });
}

#[test]
fn messages_that_a_broken_connection_has_not_brought_are_stored() {
    const MESSAGES: usize = 200;
    let (server, config) = server();
    let (mut alice, a) = user(&server, "alice");
    alice.set_patience(LONG_PATIENCE);
    let b = offline_user(&server, "bob");
    for reads in [0, 20, 100] {
        // Bob's kernel takes little. With a growing window, it would acknowledge everything.
        let stream = TcpStream::connect(server.address()).expect("connect to the server");
        SockRef::from(&stream).set_recv_buffer_size(64 * 1024).expect("set the buffer");
        let mut bob = TestClient::on_tls(stream, "localhost", &config).expect("the server speaks TLS");
        bob.login(b, &password("bob"));
        for n in 0..MESSAGES {
            alice.send(&numbered_with_text(a, b, n, 4000));
        }
        alice.barrier();
        let live: Vec<usize> = (0..reads).map(|_| number_of(&bob.recv())).collect();
        // Closing with unread data resets the connection.
        drop(bob);
        server.wait_state(b, "offline");
        let stored: Vec<usize> = login(&server, "bob", b).fetch_all(b).iter().map(number_of).collect();
        let first = stored.first().copied().expect("most was never acknowledged");
        assert_eq!(live, (0..reads).collect::<Vec<_>>());
        assert!(reads <= first && first < MESSAGES * 3 / 4, "what bob's kernel took is not stored: from {first} on");
        assert_eq!(stored, (first..MESSAGES).collect::<Vec<_>>(), "the rest, whole and in order");
        server.wait_state(b, "offline");
    }
}

#[test]
fn messages_for_a_client_that_acknowledges_nothing_are_stored() {
    const MESSAGES: usize = 200;
    let certificate = Certificate::of("localhost");
    let server = with(&certificate).option("user_timeout", "2s").start();
    let config = trusting(&[&certificate]);
    let (mut alice, a) = user(&server, "alice");
    alice.set_patience(LONG_PATIENCE);
    let b = offline_user(&server, "bob");
    // The client does not read, so its window closes. The rest stays in the server's kernel until
    // the server gives the connection up.
    let _deaf = login_tls(&server, &config, "bob", b);
    for n in 0..MESSAGES {
        alice.send(&numbered_with_text(a, b, n, 8000));
    }
    alice.barrier();
    wait_within(LONG_PATIENCE, "the connection is given up", || server.stored_for(b) > 0);
    server.wait_state(b, "offline");
    let stored: Vec<usize> = login(&server, "bob", b).fetch_all(b).iter().map(number_of).collect();
    let first = stored[0];
    assert!(first < MESSAGES / 2, "what its kernel took is not stored: from {first} on");
    assert_eq!(stored, (first..MESSAGES).collect::<Vec<_>>());
}

#[test]
fn required_tls_exempts_only_this_machine() {
    let certificate = Certificate::of("localhost");
    let config = trusting(&[&certificate]);
    let server = with(&certificate).option("tls", "require").start();
    TestClient::connect(&server).ack_barrier();
    TestClient::connect_tls(&server, &config).ack_barrier();
    // Behind a proxy, the address in the header counts.
    let server = with(&certificate)
        .option("tls", "require")
        .option("proxy_protocol", "on")
        .option("proxy_from", "127.0.0.1")
        .start();
    let dial = |client: &str| {
        let mut stream = TcpStream::connect(server.address()).expect("the server listens");
        write!(stream, "PROXY TCP4 {client} 10.0.0.1 51234 8003\r\n").expect("the kernel takes it");
        stream
    };
    let mut plain = TestClient::on(dial("203.0.113.7"));
    plain.send(&json!({"msgType": 200}));
    plain.expect_text(TLS_ONLY);
    plain.expect_eof();
    let mut browser = dial("203.0.113.7");
    browser.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("the kernel takes it");
    browser.set_read_timeout(Some(PATIENCE)).expect("an option");
    let mut page = String::new();
    browser.read_to_string(&mut page).expect("the server answers and ends");
    assert!(page.starts_with("HTTP/1.1 400 ") && page.contains("requires TLS"), "{page}");
    TestClient::on_tls(dial("203.0.113.7"), "localhost", &config).expect("TLS behind the header").ack_barrier();
    TestClient::on(dial("127.0.0.1")).ack_barrier();
}

#[test]
fn a_name_chooses_among_several_certificates() {
    let [first, second] = ["one.example", "two.example"].map(Certificate::of);
    let server = TestServer::builder()
        .file("one.pem", first.in_one_file())
        .file("two.pem", second.in_one_file())
        .option("tls_cert", "one.pem,two.pem")
        .start();
    let config = trusting(&[&first, &second]);
    for (name, certificate) in [("one.example", &first), ("two.example", &second)] {
        let stream = TcpStream::connect(server.address()).expect("the server listens");
        let mut client = TestClient::on_tls(stream, name, &config).expect("the name chooses");
        assert_eq!(client.certificate(), Some(&certificate.der[..]));
        client.ack_barrier();
    }
}

#[test]
fn beginnings_that_lead_nowhere_end_at_the_time_for_logins() {
    let certificate = Certificate::of("localhost");
    let server = with(&certificate).option("login_timeout", "1s").option("admin", "127.0.0.1:0").start();
    let silent: [&[u8]; 3] = [b"\x16", b"\x16\x03\x01\x02\x00\x01", b"\x16\x03\x01"];
    let garbage: [&[u8]; 2] = [b"\x16\x03\x01\x00\x05hello", &[0x16; 20_000]];
    for bytes in silent.into_iter().chain(garbage) {
        let mut socket = TcpStream::connect(server.address()).expect("the server listens");
        socket.write_all(bytes).expect("the kernel takes it");
        socket.set_read_timeout(Some(PATIENCE)).expect("an option");
        let mut rest = Vec::new();
        // A reset is as good as a close.
        let _ = socket.read_to_end(&mut rest);
        assert!(rest.len() < 100, "an alert at most, or the reply of a login that is late");
    }
    wait_until("all are gone", || server.open_connections() == 0);
}

#[test]
fn files_that_cannot_be_used_are_refused_at_the_start_with_what_to_do() {
    let [one, other] = [(); 2].map(|()| Certificate::of("localhost"));
    let place = Workplace::empty();
    place.write("one.pem", &one.chain);
    place.write("one.key", &one.key);
    place.write("other.key", &other.key);
    place.write("empty.pem", "");
    for (options, told) in [
        (vec!["--tls-cert", "missing.pem"], "cannot read missing.pem"),
        (vec!["--tls-cert", "empty.pem"], "empty.pem: it has no certificate"),
        (vec!["--tls-cert", "one.pem"], "it has no private key"),
        (vec!["--tls-cert", "one.pem", "--tls-key", "other.key"], "is not that of the first certificate in one.pem"),
        (vec!["--tls-cert", "one.pem", "--tls-key", "one.key,other.key"], "name one key for each certificate"),
        (vec!["--tls", "require"], "set tls_cert"),
        (vec!["--tls", "maybe"], "on, off or require"),
    ] {
        let ended = place.run(&[&["127.0.0.1", "0"], &options[..]].concat());
        assert_eq!(ended.code, Some(2), "{options:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(told), "{options:?}: {}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    }
}

#[test]
fn an_idle_connection_costs_ten_kibibytes_at_most() {
    const CLIENTS: usize = 400;
    let (server, config) = server();
    // The first connections pay for what all of them share.
    let first: Vec<TestClient> = (0..100).map(|_| TestClient::connect_tls(&server, &config)).collect();
    let chatted = |client: &mut TestClient| client.ack_barrier();
    let before = server.resident_bytes();
    let mut clients: Vec<TestClient> = (0..CLIENTS).map(|_| TestClient::connect_tls(&server, &config)).collect();
    clients.iter_mut().for_each(chatted);
    let each = server.resident_bytes().saturating_sub(before) / CLIENTS;
    println!("an idle connection with TLS: {each} bytes");
    assert!(each <= 10 * 1024, "{each} bytes for each");
    drop(first);
}

#[test]
fn certificates_are_ignored_where_tls_is_off() {
    let certificate = Certificate::of("localhost");
    let server = with(&certificate).option("tls", "off").start();
    let stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], server.address().port()))).expect("it listens");
    assert!(TestClient::on_tls(stream, "localhost", &trusting(&[&certificate])).is_err());
    TestClient::connect(&server).ack_barrier();
}
