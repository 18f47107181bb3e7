//! [`Receiver`]: the web server that gets the messages.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use testkit::tls::Certificate;

/// A request that has arrived.
#[derive(Clone, Debug)]
pub struct Request {
    pub headers: BTreeMap<String, String>,
    pub body: String,
    answer: Mood,
}

/// The answer to all requests from now on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mood {
    /// This status.
    Answers(u16),
    /// This status if the request has a message with the text "bad", else 200.
    Refuses(u16),
    /// Nothing, while the connection is open.
    Hangs,
}

/// See the [module](self). It runs until the process ends.
pub struct Receiver {
    address: SocketAddr,
    scheme: &'static str,
    shared: Arc<Shared>,
}

struct Shared {
    mood: Mutex<Mood>,
    requests: Mutex<Vec<Request>>,
    /// The number of the request that hangs now, counted from one.
    hanging: Mutex<Option<usize>>,
}

impl Receiver {
    pub fn start(mood: Mood) -> Receiver {
        Receiver::start_with(mood, None)
    }

    /// One that speaks TLS, and shows this certificate.
    pub fn over_tls(mood: Mood, certificate: &Certificate) -> Receiver {
        let chain = CertificateDer::from(certificate.der.clone());
        let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes()).expect("a key");
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().expect("versions").with_no_client_auth();
        Receiver::start_with(mood, Some(Arc::new(config.with_single_cert(vec![chain], key).expect("a certificate"))))
    }

    fn start_with(mood: Mood, tls: Option<Arc<ServerConfig>>) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared { mood: Mutex::new(mood), requests: Mutex::default(), hanging: Mutex::default() });
        let scheme = if tls.is_some() { "https" } else { "http" };
        let serving = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, serving) = (stream.expect("a connection"), serving.clone());
                let tls = tls.clone();
                thread::spawn(move || match tls {
                    None => serving.serve(stream),
                    Some(tls) => {
                        let session = ServerConnection::new(tls).expect("a session");
                        serving.serve(StreamOwned::new(session, stream));
                    }
                });
            }
        });
        Receiver { address, scheme, shared }
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// The url with a name that resolves to this machine.
    pub fn url_of_name(&self) -> String {
        format!("{}://localhost:{}/hook", self.scheme, self.address.port())
    }

    pub fn becomes(&self, mood: Mood) {
        *self.shared.mood.lock().expect("the mood") = mood;
    }

    /// All requests that have arrived, whatever the answer was.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().expect("requests").clone()
    }

    /// The number of the request that hangs now, counted from one; `None` if none does.
    pub fn hanging(&self) -> Option<usize> {
        *self.shared.hanging.lock().expect("the request")
    }

    /// The messages of all requests, in order.
    pub fn messages(&self) -> Vec<Value> {
        self.requests().iter().flat_map(Request::messages).collect()
    }

    /// The messages of the requests that were answered with a success, in order.
    pub fn taken(&self) -> Vec<Value> {
        let requests = self.requests().into_iter();
        requests.filter(|request| request.is_taken()).flat_map(|request| request.messages()).collect()
    }

    /// The texts of all messages, in order, each with its recipient.
    pub fn texts(&self) -> Vec<(i64, String)> {
        let text = |message: &Value| {
            (message["user"].as_i64().expect("a user"), message["m"]["msg"].as_str().unwrap_or_default().to_owned())
        };
        self.messages().iter().map(text).collect()
    }
}

impl Shared {
    fn serve(&self, mut stream: impl Read + Write) {
        let Some((headers, body)) = read(&mut stream) else { return };
        let (answer, number) = {
            let mut requests = self.requests.lock().expect("requests");
            let answer = match *self.mood.lock().expect("the mood") {
                Mood::Refuses(status) => Mood::Answers(if body.contains(r#""msg":"bad""#) { status } else { 200 }),
                mood => mood,
            };
            requests.push(Request { headers, body, answer });
            (answer, requests.len())
        };
        match answer {
            Mood::Answers(status) | Mood::Refuses(status) => {
                let _ = write!(stream, "HTTP/1.1 {status} Whatever\r\nContent-Length: 0\r\n\r\n");
                let _ = stream.flush();
            }
            Mood::Hangs => {
                *self.hanging.lock().expect("the request") = Some(number);
                let _ = stream.read(&mut [0]);
                // Another request may hang by now.
                self.hanging.lock().expect("the request").take_if(|hanging| *hanging == number);
            }
        }
    }
}

impl Request {
    fn is_taken(&self) -> bool {
        matches!(self.answer, Mood::Answers(200..300))
    }

    pub fn messages(&self) -> Vec<Value> {
        let body: Value = serde_json::from_str(&self.body).expect("JSON");
        assert_eq!(body.as_object().expect("an object").len(), 1);
        body["messages"].as_array().expect("messages").clone()
    }

    /// Checks the signature by the definition of HMAC (RFC 2104).
    pub fn assert_signed(&self, key: &str) {
        let mut block = [0; 64];
        block[..key.len()].copy_from_slice(key.as_bytes());
        let signed = format!("{}.{}", self.headers["x-raybox-timestamp"], self.body);
        let inner = Sha256::new().chain_update(block.map(|byte| byte ^ 0x36)).chain_update(signed).finalize();
        let outer = Sha256::new().chain_update(block.map(|byte| byte ^ 0x5c)).chain_update(inner).finalize();
        let expected: String = outer.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(self.headers["x-raybox-signature"], expected);
    }
}

fn read(stream: &mut impl Read) -> Option<(BTreeMap<String, String>, String)> {
    let (mut bytes, mut part) = (Vec::new(), [0; 4096]);
    loop {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(end) = end {
            let head = String::from_utf8(bytes[..end].to_vec()).expect("ASCII");
            let mut lines = head.lines();
            assert_eq!(lines.next(), Some("POST /hook HTTP/1.1"));
            let header = |line: &str| {
                let (name, value) = line.split_once(": ").expect("a header");
                (name.to_ascii_lowercase(), value.to_owned())
            };
            let headers: BTreeMap<String, String> = lines.map(header).collect();
            let length: usize = headers["content-length"].parse().expect("a length");
            if bytes.len() >= end + 4 + length {
                let body = String::from_utf8(bytes[end + 4..].to_vec()).expect("UTF-8");
                return Some((headers, body));
            }
        }
        match stream.read(&mut part) {
            Ok(0) | Err(_) => return None,
            Ok(n) => bytes.extend_from_slice(&part[..n]),
        }
    }
}
