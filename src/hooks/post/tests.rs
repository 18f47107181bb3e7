//! Requests to real listeners on this machine, which answer in every wrong way.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::*;
use crate::config::Config;

/// The behaviour of a listener after it has read a request.
type Answer = fn(&mut dyn Conversation);

trait Conversation: Read + Write {}
impl<S: Read + Write> Conversation for S {}

/// A listener on this machine, and the number of its connections.
struct Listener {
    port: u16,
    connections: Arc<AtomicUsize>,
}

impl Listener {
    fn start(answer: Answer) -> Listener {
        Listener::start_with(move |mut socket| answer(&mut socket))
    }

    fn start_with(serve: impl Fn(TcpStream) + Send + 'static) -> Listener {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, connections) = (listener.local_addr().unwrap().port(), Arc::<AtomicUsize>::default());
        let counted = connections.clone();
        // Ends with the process.
        thread::spawn(move || {
            for socket in listener.incoming() {
                counted.fetch_add(1, Ordering::Relaxed);
                serve(socket.unwrap());
            }
        });
        Listener { port, connections }
    }
}

/// Reads a request whose body is `{}`.
fn read_request(stream: &mut dyn Conversation) -> String {
    let (mut request, mut byte) = (Vec::new(), [0]);
    while !request.ends_with(b"\r\n\r\n{}") {
        if stream.read(&mut byte).unwrap_or(0) == 0 {
            break;
        }
        request.push(byte[0]);
    }
    String::from_utf8(request).unwrap()
}

fn answer(stream: &mut dyn Conversation, text: &str) {
    read_request(stream);
    // The other end may have gone.
    let _ = stream.write_all(text.as_bytes());
}

fn networks(text: &str) -> HookNetworks {
    settings("hook_private", text).hook_private
}

fn settings(key: &str, value: &str) -> Config {
    let args = ["server", "127.0.0.1", "0", &format!("--{}", key.replace('_', "-")), value].map(Into::into);
    match Config::load(args, [], std::path::Path::new("/nonexistent")).unwrap() {
        crate::config::Invocation::Run(config) => *config,
        crate::config::Invocation::Print(text) => panic!("{text}"),
    }
}

fn post_to(url: &str, private: &str, within: Duration) -> Result<(), PostError> {
    let private = networks(private);
    let address = HookAddress::parse(url).unwrap();
    let receiver = Receiver { address: &address, private: &private, key: KEY, within };
    post(&receiver, 1_789_891_200, "{}")
}

const KEY: &str = "0123456789abcdef0123456789abcdef";
const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(500);

#[test]
fn a_request_is_whole_and_signed() {
    let (sent, received) = mpsc::channel();
    let listener = Listener::start_with(move |mut socket| {
        sent.send(read_request(&mut socket)).unwrap();
        socket.write_all(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n").unwrap();
    });
    post_to(&format!("http://127.0.0.1:{}/a?b=c", listener.port), "127.0.0.1", LONG).unwrap();
    let request = received.recv().unwrap();
    // printf '1789891200.{}' | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef
    let signature = "c961b623c0a0e478e35e9759af9373f3a0cbb9e2d7c4cc08d5b6a24e4ffadcf0";
    let expected = format!(
        "POST /a?b=c HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nUser-Agent: raybox/{}\r\nContent-Type: application/json\r\n\
         Content-Length: 2\r\nX-RayBox-Timestamp: 1789891200\r\nX-RayBox-Signature: {signature}\r\n\
         Connection: close\r\n\r\n{{}}",
        listener.port,
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(request, expected);
}

#[test]
fn only_2xx_is_a_success() {
    let refusals: [(Answer, u16); 5] = [
        (|stream| answer(stream, "HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1:1/\r\n\r\n"), 301),
        (|stream| answer(stream, "HTTP/1.1 400 Bad\r\n\r\n"), 400),
        (|stream| answer(stream, "HTTP/1.1 410 Gone\r\n\r\n"), 410),
        (|stream| answer(stream, "HTTP/1.0 500 Oops\r\n\r\n"), 500),
        (|stream| answer(stream, "HTTP/1.1 999 Strange\r\n\r\n"), 999),
    ];
    for (serve, expected) in refusals {
        let listener = Listener::start(serve);
        let posted = post_to(&format!("http://127.0.0.1:{}", listener.port), "127.0.0.1", LONG);
        assert!(matches!(posted, Err(PostError::Status(status)) if status == expected), "{expected}: {posted:?}");
        assert_eq!(listener.connections.load(Ordering::Relaxed), 1, "no redirect is followed");
    }
    let successes: [Answer; 2] = [
        |stream| answer(stream, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        // Nobody reads ten gigabytes.
        |stream| {
            answer(stream, "HTTP/1.1 202 OK\r\nContent-Length: 10000000000\r\n\r\n");
            while stream.write_all(&[b'x'; 1024]).is_ok() {}
        },
    ];
    for serve in successes {
        post_to(&format!("http://127.0.0.1:{}", Listener::start(serve).port), "127.0.0.1", LONG).unwrap();
    }
}

#[test]
fn an_answer_that_never_ends_is_given_up() {
    let endless: [Answer; 4] = [
        // It takes the connection and says nothing.
        |stream| {
            let _ = stream.read_to_end(&mut Vec::new());
        },
        // It says one byte after the other.
        |stream| {
            read_request(stream);
            for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" {
                thread::sleep(Duration::from_millis(50));
                let _ = stream.write_all(&[*byte]);
            }
        },
        // A head that goes on.
        |stream| {
            answer(stream, "HTTP/1.1 200 OK\r\n");
            while stream.write_all(b"X: y\r\n").is_ok() {
                thread::sleep(Duration::from_millis(50));
            }
        },
        // Interim answers for ever.
        |stream| {
            read_request(stream);
            while stream.write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n").is_ok() {}
        },
    ];
    for (nth, serve) in endless.into_iter().enumerate() {
        let posted = post_to(&format!("http://127.0.0.1:{}", Listener::start(serve).port), "127.0.0.1", SHORT);
        assert!(matches!(posted, Err(PostError::Late)), "{nth}: {posted:?}");
    }
}

#[test]
fn an_answer_that_is_not_http_is_refused() {
    let wrong: [Answer; 4] = [
        |stream| answer(stream, "SSH-2.0-OpenSSH_9.2\r\n"),
        // A head of a megabyte.
        |stream| {
            answer(stream, "HTTP/1.1 200 OK\r\nX: ");
            for _ in 0..1024 {
                let _ = stream.write_all(&[b'x'; 1024]);
            }
        },
        // It ends in the middle, without and with an answer that has begun.
        |stream| answer(stream, ""),
        |stream| answer(stream, "HTTP/1.1 200 OK\r\nContent-"),
    ];
    for (nth, serve) in wrong.into_iter().enumerate() {
        let posted = post_to(&format!("http://127.0.0.1:{}", Listener::start(serve).port), "127.0.0.1", LONG);
        assert!(matches!(posted, Err(PostError::Malformed | PostError::Broken(_))), "{nth}: {posted:?}");
    }
}

#[test]
fn a_connection_that_is_reset_or_refused_is_a_failure() {
    let reset = Listener::start_with(|socket| {
        socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
    });
    let posted = post_to(&format!("http://127.0.0.1:{}", reset.port), "127.0.0.1", LONG);
    assert!(matches!(posted, Err(PostError::Broken(_))), "{posted:?}");
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let posted = post_to(&format!("http://127.0.0.1:{unused}"), "127.0.0.1", LONG);
    assert!(matches!(posted, Err(PostError::Broken(_))), "{posted:?}");
}

#[test]
fn private_addresses_are_refused_however_they_are_written() {
    let listener = Listener::start(|stream| answer(stream, "HTTP/1.1 200 OK\r\n\r\n"));
    for host in
        ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "[::1]", "0.0.0.0", "127.1", "2130706433", "0x7f000001"]
    {
        let posted = post_to(&format!("http://{host}:{}", listener.port), "off", LONG);
        let is_refused = matches!(posted, Err(PostError::Address(_) | PostError::Name(_)));
        assert!(is_refused, "{host}: {posted:?}");
        // Another network is allowed, and not this one.
        let posted = post_to(&format!("http://{host}:{}", listener.port), "10.0.0.0/8", LONG);
        assert!(matches!(posted, Err(PostError::Address(_) | PostError::Name(_))), "{host}: {posted:?}");
    }
    assert_eq!(listener.connections.load(Ordering::Relaxed), 0);
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
        post_to(&format!("http://{host}:{}", listener.port), "127.0.0.1", LONG)
            .unwrap_or_else(|error| panic!("{host}: {error}"));
    }
    assert_eq!(listener.connections.load(Ordering::Relaxed), 3);
}

#[test]
fn of_several_addresses_only_the_allowed_ones_are_left() {
    let at = |text: &str| -> Vec<SocketAddr> { text.split(' ').map(|at| at.parse().unwrap()).collect() };
    let left = allowed_of(at("10.0.0.1:80 8.8.8.8:80 [::1]:80 [2606:4700::1]:80"), &networks("off")).unwrap();
    assert_eq!(left, at("8.8.8.8:80 [2606:4700::1]:80"));
    let left = allowed_of(at("10.0.0.1:80 127.0.0.1:80"), &networks("10.0.0.0/8")).unwrap();
    assert_eq!(left, at("10.0.0.1:80"));
    assert!(matches!(allowed_of(Vec::new(), &networks("off")), Err(PostError::Name(_))));
}

#[test]
fn a_certificate_of_nobody_is_refused() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes()).unwrap();
    let chain = vec![CertificateDer::from(made.cert.der().to_vec())];
    let config = Arc::new(ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap());
    let (sent, received) = mpsc::channel();
    let listener = Listener::start_with(move |socket| {
        let connection = rustls::ServerConnection::new(config.clone()).unwrap();
        sent.send(read_request(&mut StreamOwned::new(connection, socket))).unwrap();
    });
    let posted = post_to(&format!("https://localhost:{}", listener.port), "127.0.0.1,::1", LONG);
    assert!(matches!(&posted, Err(PostError::Broken(error)) if error.to_string().contains("ertificate")), "{posted:?}");
    assert_eq!(received.recv().unwrap(), "", "nothing was sent");
}
