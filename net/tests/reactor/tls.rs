//! Connections that speak TLS, beside others that do not.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use net::{Certificate, CloseReason, Fate, Label, Settings, Tls};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::kit::{
    Astray, Gate, Note, PATIENCE, Peer, Seen, TestServer, echo, expect, ignore, settings, taken, wait_until,
};

/// A certificate for this name, with its key, in PEM.
fn made(name: &str) -> Certificate {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    Certificate::of_pem(chain.as_bytes(), key.as_bytes()).expect("they belong together")
}

fn trusting(certificates: &[&Certificate]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(CertificateDer::from(certificate.der().to_vec())).expect("a certificate");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Arc::new(config.expect("versions").with_root_certificates(roots).with_no_client_auth())
}

/// TLS with one certificate, and clients that trust it.
pub(crate) fn tls() -> (Arc<Tls>, Arc<ClientConfig>) {
    let certificate = made("localhost");
    let client = trusting(&[&certificate]);
    (Arc::new(Tls::new(vec![certificate]).expect("random bytes")), client)
}

type Stream = StreamOwned<ClientConnection, TcpStream>;

fn dial(server: &TestServer, config: &Arc<ClientConfig>) -> Stream {
    let name = ServerName::try_from("localhost").expect("a name");
    StreamOwned::new(ClientConnection::new(config.clone(), name).expect("a client"), server.dial())
}

/// The first message of a client that has not said anything.
fn hello(config: &Arc<ClientConfig>) -> Vec<u8> {
    let name = ServerName::try_from("localhost").expect("a name");
    let mut bytes = Vec::new();
    ClientConnection::new(config.clone(), name).expect("a client").write_tls(&mut bytes).expect("a vector takes all");
    bytes
}

/// A client whose handshake is finished, and what its handler sees.
fn enter(server: &TestServer, config: &Arc<ClientConfig>) -> (Stream, Peer) {
    let mut stream = dial(server, config);
    stream.conn.complete_io(&mut stream.sock).expect("the server speaks TLS");
    let (link, seen) = server.opened();
    let socket = stream.sock.try_clone().expect("a descriptor");
    (stream, Peer { socket, link, seen })
}

fn expect_text(stream: &mut impl Read, expected: &str) {
    let mut bytes = vec![0; expected.len()];
    stream.read_exact(&mut bytes).expect("the server answers");
    assert_eq!(String::from_utf8_lossy(&bytes), expected);
}

/// Whether the connection is closed, gracefully or with a reset.
fn is_closed(mut socket: TcpStream) -> bool {
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).map_or_else(|error| error.kind() == ErrorKind::ConnectionReset, |_| true)
}

#[test]
fn one_port_serves_clients_with_and_without_tls() {
    let (tls, config) = tls();
    let server = TestServer::start_tls((tls.clone(), false), settings(), echo);
    let (mut stream, peer) = enter(&server, &config);
    let mut plain = server.connect();
    let long = format!("{{\"b\":\"{}\"}}", "y".repeat(50_000));
    for frame in ["{\"a\":1}", &long, "{}"] {
        stream.write_all(frame.as_bytes()).expect("the server reads");
        expect_text(&mut stream, frame);
        plain.write("{\"plain\":1}");
        plain.expect_bytes("{\"plain\":1}");
    }
    peer.expect([taken("{\"a\":1}"), taken(&long), taken("{}")]);
    assert!(peer.link.is_encrypted() && !plain.link.is_encrypted());
    // An end in order, in the middle of which the other direction goes on.
    stream.write_all(b"{\"last word\":1}").expect("the server reads");
    stream.conn.send_close_notify();
    stream.flush().expect("the server reads");
    let mut rest = String::new();
    stream.read_to_string(&mut rest).expect("the server ends in order as well");
    assert_eq!(rest, "{\"last word\":1}");
    peer.expect([taken("{\"last word\":1}"), taken("<end>"), Seen::Closed(CloseReason::Ended)]);
    let counts = tls.handshakes();
    assert_eq!((counts.finished, counts.resumed, counts.failed), (1, 0, 0));
    wait_until(|| tls.handshakes().open == 0);
    // The same client resumes its session, by a ticket.
    let (_stream, _peer) = enter(&server, &config);
    wait_until(|| tls.handshakes().resumed == 1);
}

#[test]
fn the_beginning_may_be_cut_anywhere() {
    let (tls, config) = tls();
    let server = TestServer::start_tls((tls, true), settings(), echo);
    for cut in [1, 5, 6, 100] {
        let mut stream = dial(&server, &config);
        let mut bytes = Vec::new();
        stream.conn.write_tls(&mut bytes).expect("a vector takes all");
        for piece in [&bytes[..cut], &bytes[cut..]] {
            stream.sock.write_all(piece).expect("the server reads");
            let (link, _) = if piece.len() == cut { server.opened() } else { continue };
            // The loop has looked at the first piece.
            link.post(Note::Text("sync".into()));
        }
        stream.write_all(b"{\"a\":1}").expect("the server reads");
        expect_text(&mut stream, "{\"a\":1}");
    }
}

#[test]
fn a_connection_that_only_begins_like_tls_is_closed_and_others_go_on() {
    let (tls, config) = tls();
    let server = TestServer::start_tls((tls.clone(), false), settings(), echo);
    let (mut quiet, _peer) = enter(&server, &config);
    let garbage: [&[u8]; 4] =
        [b"\x16\x03\x01\x00\x05hello", b"\x16garbage and so on", &[0x16; 20_000], b"\x16\x03\x01\x00\x04\x01\0\0\0"];
    for bytes in garbage {
        let mut socket = server.dial();
        socket.write_all(bytes).expect("the server reads");
        let _ = socket.shutdown(Shutdown::Write);
        assert!(is_closed(socket));
        let (_, seen) = server.opened();
        assert!(!matches!(seen.recv_timeout(PATIENCE), Ok(Seen::Taken(text)) if text != "<end>"));
    }
    // A client that says no more has gone: its session was never begun.
    let mut socket = server.dial();
    socket.write_all(&hello(&config)[..50]).expect("the server reads");
    drop(socket);
    let (_, seen) = server.opened();
    expect(&seen, [taken("<end>")]);
    quiet.write_all(b"{}").expect("the server reads");
    expect_text(&mut quiet, "{}");
}

#[test]
fn a_handshake_that_stops_is_closed_like_a_client_that_says_nothing() {
    let (tls, config) = tls();
    let short = Settings { idle_timeout: Duration::from_millis(200), ..settings() };
    let server = TestServer::start_tls((tls, true), short, echo);
    let hello = hello(&config);
    for end in [0, 1, 50, hello.len()] {
        let mut socket = server.dial();
        socket.write_all(&hello[..end]).expect("the server reads");
        assert!(is_closed(socket), "after {end} bytes of {}", hello.len());
        let (_, seen) = server.opened();
        expect(&seen, [taken("<end>"), Seen::Closed(CloseReason::Idle)]);
    }
}

#[test]
fn where_tls_is_required_nothing_else_is_looked_at() {
    let (tls, config) = tls();
    let server = TestServer::start_tls((tls, true), settings(), echo);
    for (text, shown) in
        [("{\"a\":1}", "<Plain { http: false }>"), ("GET / HTTP/1.1\r\n\r\n", "<Plain { http: true }>")]
    {
        let mut peer = server.connect();
        peer.write(text);
        peer.expect([taken(shown), Seen::Closed(CloseReason::Foreign)]);
        assert_eq!(peer.rest(), shown, "the answer arrives, and then the end");
    }
    let (mut stream, _) = enter(&server, &config);
    stream.write_all(b"{}").expect("the server reads");
    expect_text(&mut stream, "{}");
}

#[test]
fn a_name_chooses_the_certificate_and_a_new_one_is_for_new_connections() {
    let [first, second] = ["first.example", "*.second.example"].map(made);
    let tls = Arc::new(Tls::new(vec![first.clone(), second.clone()]).expect("random bytes"));
    let server = TestServer::start_tls((tls.clone(), true), settings(), echo);
    let config = trusting(&[&first, &second]);
    let shown = |name: &'static str, config: &Arc<ClientConfig>| {
        let name = ServerName::try_from(name).expect("a name");
        let connection = ClientConnection::new(config.clone(), name).expect("a client");
        let mut stream = StreamOwned::new(connection, server.dial());
        let outcome = stream.conn.complete_io(&mut stream.sock);
        let der = stream.conn.peer_certificates().and_then(|chain| chain.first()).map(|der| der.to_vec());
        (stream, outcome.is_ok(), der)
    };
    let (mut old, _, der) = shown("first.example", &config);
    assert_eq!(der.as_deref(), Some(first.der()));
    assert_eq!(shown("a.second.example", &config).2.as_deref(), Some(second.der()));
    assert!(!shown("third.example", &config).1, "it is shown the first one, which has another name");
    let new = made("first.example");
    tls.renew(vec![new.clone()]).expect("there is one");
    let (mut fresh, _, der) = shown("first.example", &trusting(&[&new]));
    assert_eq!(der.as_deref(), Some(new.der()));
    for stream in [&mut old, &mut fresh] {
        stream.write_all(b"{}").expect("the server reads");
        expect_text(stream, "{}");
    }
    assert!(tls.renew(Vec::new()).is_err());
}

#[test]
fn files_that_do_not_fit_are_told_apart() {
    let [one, other] = [(); 2].map(|()| rcgen::generate_simple_self_signed(["x".to_owned()]).expect("a certificate"));
    let (chain, key) = (one.cert.pem(), one.signing_key.serialize_pem());
    let of = |chain: &str, key: &str| match Certificate::of_pem(chain.as_bytes(), key.as_bytes()) {
        Ok(_) => "fits".to_owned(),
        Err(error) => error.to_string(),
    };
    assert_eq!(of(&chain, &key), "fits");
    let both = format!("{chain}{key}");
    assert_eq!(of(&both, &both), "fits", "one file may have both");
    for (chain, key, error) in [
        (key.as_str(), key.as_str(), "it has no certificate"),
        ("", "", "it has no certificate"),
        (&chain, &chain, "it has no private key"),
        (&chain, &other.signing_key.serialize_pem(), "the private key is not that of the first certificate"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &key, "its certificate cannot be read"),
        (&chain[..100], &key, "its certificate cannot be read"),
    ] {
        assert!(of(chain, key).starts_with(error), "{}", of(chain, key));
    }
}

/// The clients of a storm that the server has not answered, and the number that it answered in each
/// turn.
struct Storm {
    waiting: Vec<TcpStream>,
    answered: Vec<usize>,
}

/// Counts the answers of each turn until the server has answered all, and reports the counts. A
/// letter that is posted in a turn is opened in the next one.
fn count_each_turn(link: &Arc<net::Link<Note>>, mut storm: Storm, report: mpsc::Sender<Vec<usize>>) {
    link.post(Note::Run(Box::new(move |link| {
        let before = storm.waiting.len();
        storm.waiting.retain(|socket| !matches!(socket.peek(&mut [0]), Ok(1)));
        storm.answered.push(before - storm.waiting.len());
        if storm.waiting.is_empty() {
            let _ = report.send(storm.answered);
        } else {
            count_each_turn(link, storm, report);
        }
    })));
}

#[test]
fn a_turn_answers_few_handshakes_of_a_storm_and_others_are_served_in_between() {
    const STORM: usize = 2000;
    const EACH_TURN: usize = 8;
    let limit = getrlimit(Resource::Nofile);
    // Both ends of each connection are in this process.
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("up to the hard limit");
    let (tls, config) = tls();
    let server = TestServer::start_tls((tls, false), settings(), echo);
    let mut quiet = server.connect();
    let hello = hello(&config);
    let storm = (0..STORM).map(|_| server.connect().socket).collect::<Vec<_>>();
    let gate = Gate::close(&quiet.link);
    for mut socket in &storm {
        socket.write_all(&hello).expect("the kernel takes it");
        socket.set_nonblocking(true).expect("an option");
    }
    let (report, reported) = mpsc::channel();
    count_each_turn(&quiet.link, Storm { waiting: storm, answered: Vec::new() }, report);
    drop(gate);
    // One frame after the other, as fast as they are answered.
    let mut frames = 0;
    let by = Instant::now() + 10 * PATIENCE;
    let answered = loop {
        quiet.write("{}");
        quiet.expect_bytes("{}");
        match reported.try_recv() {
            Ok(answered) => break answered,
            Err(_) => frames += 1,
        }
        assert!(Instant::now() < by, "the storm is answered in the end");
    };
    assert!(frames > 0, "the quiet client was served in the middle of the storm");
    let mut so_far = 0;
    for (turns, count) in (1..).zip(&answered) {
        so_far += count;
        assert!(so_far <= turns * EACH_TURN, "after {turns} turns: {answered:?}");
    }
    assert_eq!(so_far, STORM);
}

#[test]
fn frames_that_a_broken_connection_has_not_brought_come_back() {
    let (tls, config) = tls();
    let server = TestServer::start_tls((tls, true), settings(), ignore);
    let (mut stream, peer) = enter(&server, &config);
    stream.write_all(b"{}").expect("the server reads");
    peer.expect([taken("{}")]);
    let frame = |nth: usize| format!("{{\"n\":{nth},\"x\":\"{}\"}}", "z".repeat(30_000));
    let mut sent = 0;
    while peer.send(&frame(sent), Fate::Return(Label::of(1))).is_ok() {
        sent += 1;
    }
    // Reads some, so that more than the first record is acknowledged, and leaves the rest.
    let mut received = vec![0; 300_000];
    stream.read_exact(&mut received).expect("that much was sent");
    wait_until(|| peer.link.undelivered_bytes() < sent * 30_000);
    drop(stream);
    let (link, seen) = peer.reset();
    while !matches!(seen.recv_timeout(PATIENCE).expect("it closes"), Seen::Closed(_)) {}
    let mut back = Vec::new();
    for text in ["one", "two"] {
        link.post(Note::Text(text.into()));
        while let Astray::Unsent(_, frame) = server.astray() {
            back.push(frame);
        }
    }
    let read = String::from_utf8(received).expect("text").matches('}').count();
    assert!(read > 2 && back.len() < sent, "{read} were read, {} of {sent} came back", back.len());
    assert!(sent - back.len() >= read, "what was read has arrived");
    let expected: Vec<String> = (sent - back.len()..sent).map(frame).collect();
    assert!(back == expected, "the last ones, whole and in order");
}

#[test]
fn other_threads_write_while_the_client_writes_too() {
    let (tls, config) = tls();
    let server = TestServer::start_tls((tls, true), settings(), ignore);
    let (mut stream, peer) = enter(&server, &config);
    const EACH: usize = 500;
    let (done, all_done) = mpsc::channel();
    for thread in 0..4 {
        let (link, done) = (peer.link.clone(), done.clone());
        std::thread::spawn(move || {
            let mut turn = net::Turn::new();
            for nth in 0..EACH {
                let frame = format!("{{\"t\":{thread},\"n\":{nth}}}");
                assert!(link.send(&mut turn, frame.as_bytes(), Fate::Drop).is_ok());
                turn.flush();
            }
            let _ = done.send(());
        });
    }
    let mut next = [0; 4];
    let mut bytes = Vec::new();
    let mut frames = 0;
    while frames < 4 * EACH {
        stream.write_all(b"{}").expect("the server reads");
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).expect("nothing is garbled");
        bytes.extend_from_slice(&buffer[..count]);
        while let Some(end) = bytes.iter().position(|byte| *byte == b'}') {
            let frame = String::from_utf8(bytes.drain(..=end).collect()).expect("text");
            let thread = (0..4).find(|nth| frame == format!("{{\"t\":{nth},\"n\":{}}}", next[*nth]));
            next[thread.unwrap_or_else(|| panic!("{frame} after {next:?}"))] += 1;
            frames += 1;
        }
    }
    (0..4).for_each(|_| all_done.recv_timeout(PATIENCE).expect("the threads end"));
}
