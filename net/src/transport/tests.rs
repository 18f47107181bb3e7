//! TLS over a socket that cuts the bytes in both directions, with rustls' client at the other end.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use mio::{Poll, Token, Waker};
use parking_lot::Mutex;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion, version};

use super::*;
use crate::framing::FrameWriter;
use crate::label::Label;
use crate::link::{Link, Turn};
use crate::loop_handle::LoopHandle;
use crate::output::Fate;
use crate::simulation::SimulatedSocket;
use crate::slots::ConnId;
use crate::tls::{Certificate, Tls};

/// A socket that takes and gives `cut` bytes at a time, and would block at every other call.
#[derive(Debug)]
struct Wire {
    cut: usize,
    calls: AtomicUsize,
    to_server: Mutex<VecDeque<u8>>,
    to_client: Mutex<VecDeque<u8>>,
    unacknowledged: AtomicUsize,
}

impl Wire {
    fn new(cut: usize) -> Arc<Wire> {
        Arc::new(Wire {
            cut,
            calls: AtomicUsize::new(0),
            to_server: Mutex::default(),
            to_client: Mutex::default(),
            unacknowledged: AtomicUsize::new(0),
        })
    }

    fn may_go(&self) -> io::Result<()> {
        match self.cut == usize::MAX || self.calls.fetch_add(1, Relaxed) % 2 == 1 {
            true => Ok(()),
            false => Err(ErrorKind::WouldBlock.into()),
        }
    }
}

impl SimulatedSocket for Wire {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut bytes = self.to_server.lock();
        if bytes.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.may_go()?;
        let count = buffer.len().min(self.cut);
        bytes.read(&mut buffer[..count])
    }
    fn peek(&self, _: &mut [u8]) -> io::Result<usize> {
        Err(ErrorKind::WouldBlock.into())
    }
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.may_go()?;
        let count = bytes.len().min(self.cut);
        self.to_client.lock().extend(&bytes[..count]);
        Ok(count)
    }
    fn shutdown(&self, _: Shutdown) -> io::Result<()> {
        Ok(())
    }
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Err(ErrorKind::NotConnected.into())
    }
    fn receive_buffer_bytes(&self) -> usize {
        0
    }
    fn unacknowledged(&self) -> usize {
        self.unacknowledged.load(Relaxed)
    }
    fn register(&self, _: usize) {}
    fn deregister(&self) {}
}

/// A certificate for `localhost`, and a client that trusts it.
fn tls(versions: &[&'static SupportedProtocolVersion]) -> (Tls, Arc<ClientConfig>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let certificate = Certificate::of_pem(chain.as_bytes(), key.as_bytes()).expect("they belong together");
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(certificate.der().to_vec())).expect("a certificate");
    let client = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(versions)
        .expect("versions of the provider")
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Tls::new(vec![certificate]).expect("random bytes"), Arc::new(client))
}

const BOTH: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];

fn client(config: &Arc<ClientConfig>) -> ClientConnection {
    let name = ServerName::try_from("localhost").expect("a name");
    ClientConnection::new(config.clone(), name).expect("a client")
}

/// Both ends of one connection.
struct Ends {
    client: ClientConnection,
    wire: Arc<Wire>,
    socket: Socket,
    server: Transport,
    buffer: Vec<u8>,
}

impl Ends {
    fn new(tls: &Tls, config: &Arc<ClientConfig>, cut: usize) -> Ends {
        let wire = Wire::new(cut);
        let server = Transport::encrypted(tls.begin().expect("random bytes"));
        let socket = Socket::Simulated(wire.clone());
        Ends { client: client(config), wire, socket, server, buffer: vec![0; 64 * 1024] }
    }

    /// Moves bytes until neither end has any to send. Returns the bytes that each has received.
    fn exchange(&mut self) -> (Vec<u8>, Vec<u8>) {
        let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
        let mut quiet = 0;
        while quiet < 4 {
            quiet += 1;
            while self.client.wants_write() {
                self.client.write_tls(&mut *self.wire.to_server.lock()).expect("a queue takes all");
                quiet = 0;
            }
            match self.server.read(&self.socket, &mut self.buffer) {
                Ok(got) => {
                    assert!(got.wire > 0, "it has not ended");
                    to_server.extend_from_slice(&self.buffer[..got.count]);
                    quiet = 0;
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            if let Err(error) = self.server.flush(&self.socket) {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                quiet = 0;
            }
            let mut bytes = std::mem::take(&mut *self.wire.to_client.lock());
            while !bytes.is_empty() {
                self.client.read_tls(&mut bytes).expect("a queue");
                self.client.process_new_packets().expect("nothing is garbled");
                let _ = self.client.reader().read_to_end(&mut to_client);
                quiet = 0;
            }
        }
        (to_server, to_client)
    }

    /// Writes all of the payload as the socket permits, while the other end reads. Returns the
    /// bytes that the other end received.
    fn write(&mut self, payload: &[u8]) -> Vec<u8> {
        let (mut written, mut received) = (0, Vec::new());
        while written < payload.len() {
            match self.server.write(&self.socket, &payload[written..]) {
                Ok(count) => written += count,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            assert!(self.server.ahead() <= RECORD_WIRE_MAX, "one record ahead at most");
            received.extend(self.exchange().1);
        }
        received
    }
}

mod wakeups;

/// The length of the longest record with its header and tag.
const RECORD_WIRE_MAX: usize = 16 * 1024 + 256;

#[test]
fn both_directions_arrive_however_the_socket_cuts_them() {
    for version in BOTH {
        let (tls, config) = tls(&[version]);
        for cut in [1, 3, 100, 4096, 20_000, usize::MAX] {
            let mut ends = Ends::new(&tls, &config, cut);
            assert!(ends.server.is_handshaking());
            let blocked = ends.server.write(&ends.socket, b"early").map_err(|error| error.kind());
            assert_eq!(blocked, Err(ErrorKind::WouldBlock), "nothing goes out in clear");
            ends.exchange();
            assert!(!ends.server.is_handshaking() && !ends.client.is_handshaking());
            let lengths = if cut < 100 { [1, 100, 5000] } else { [1, 16_385, 200_000] };
            for length in lengths {
                let text: Vec<u8> = (0..length).map(|nth| (nth % 251) as u8).collect();
                let mut rest = &text[..];
                let mut arrived = Vec::new();
                while !rest.is_empty() {
                    let count = ends.client.writer().write(rest).expect("it takes some");
                    rest = &rest[count..];
                    arrived.extend(ends.exchange().0);
                }
                assert!(arrived == text, "{length} bytes to the server, {cut} at a time");
                assert!(ends.write(&text) == text, "{length} bytes to the client, {cut} at a time");
            }
            assert_eq!(ends.server.held(), 0, "no record has begun");
        }
    }
}

#[test]
fn an_end_is_reported_in_both_directions_and_half_of_it_leaves_the_other_half() {
    for version in BOTH {
        let (tls, config) = tls(&[version]);
        let mut ends = Ends::new(&tls, &config, usize::MAX);
        ends.exchange();
        ends.client.writer().write_all(b"last words").expect("it takes them");
        ends.client.send_close_notify();
        ends.client.write_tls(&mut *ends.wire.to_server.lock()).expect("a queue takes all");
        let mut heard = Vec::new();
        loop {
            let got = ends.server.read(&ends.socket, &mut ends.buffer).expect("it is there");
            heard.extend_from_slice(&ends.buffer[..got.count]);
            if got.wire == 0 {
                break;
            }
            assert!(!got.is_short, "the loop comes again for the end, of which no event tells");
        }
        assert_eq!(heard, b"last words");
        // The other direction continues.
        assert_eq!(ends.server.write(&ends.socket, b"an answer").ok(), Some(9));
        ends.server.end(&ends.socket);
        let mut bytes = std::mem::take(&mut *ends.wire.to_client.lock());
        while !bytes.is_empty() {
            ends.client.read_tls(&mut bytes).expect("a queue");
        }
        let state = ends.client.process_new_packets().expect("nothing is garbled");
        assert!(state.peer_has_closed(), "the client knows that nothing was cut off");
        let mut answer = Vec::new();
        ends.client.reader().read_to_end(&mut answer).expect("ended in order");
        assert_eq!(answer, b"an answer");
    }
}

#[test]
fn input_that_is_not_tls_is_refused_and_the_payload_before_it_counts() {
    let (tls, config) = tls(&BOTH);
    let mut ends = Ends::new(&tls, &config, usize::MAX);
    ends.exchange();
    ends.client.writer().write_all(b"good").expect("it takes them");
    ends.client.write_tls(&mut *ends.wire.to_server.lock()).expect("a queue takes all");
    ends.wire.to_server.lock().extend([23, 3, 3, 0, 20].iter().chain(&[7; 20]));
    let got = ends.server.read(&ends.socket, &mut ends.buffer).expect("the first record is good");
    assert_eq!(&ends.buffer[..got.count], b"good");
    assert!(!got.is_short, "the loop comes again for the error");
    let error = ends.server.read(&ends.socket, &mut ends.buffer).expect_err("the second is not");
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    assert!(!ends.wire.to_client.lock().is_empty(), "an alert tells the client");

    // A handshake that is not finished.
    let mut ends = Ends::new(&tls, &config, usize::MAX);
    ends.wire.to_server.lock().extend([22, 3, 1, 0x40, 0].iter().chain(&vec![1; 40_000]));
    let mut outcome = Ok(Got::END);
    for _ in 0..20 {
        outcome = ends.server.read(&ends.socket, &mut ends.buffer);
        if outcome.is_err() {
            break;
        }
    }
    assert_eq!(outcome.map_err(|error| error.kind()), Err(ErrorKind::InvalidData));
}

#[test]
fn an_incomplete_record_is_counted_as_memory() {
    let (tls, config) = tls(&BOTH);
    let mut ends = Ends::new(&tls, &config, usize::MAX);
    ends.exchange();
    ends.client.writer().write_all(&[b'x'; 10_000]).expect("it takes them");
    let mut record = VecDeque::new();
    ends.client.write_tls(&mut record).expect("a queue takes all");
    let last = record.pop_back().expect("a record");
    ends.wire.to_server.lock().append(&mut record);
    let got = ends.server.read(&ends.socket, &mut ends.buffer).expect("it is there");
    assert_eq!((got.count, got.wire > 10_000), (0, true));
    assert!(ends.server.held() > 10_000);
    ends.wire.to_server.lock().push_back(last);
    let got = ends.server.read(&ends.socket, &mut ends.buffer).expect("it is there");
    assert_eq!((got.count, got.wire, ends.server.held()), (10_000, 1, 0));
}

#[test]
fn exactly_the_frames_that_no_acknowledged_record_has_brought_come_back() {
    let poll = Poll::new().expect("a descriptor");
    let waker = Waker::new(poll.registry(), Token(0)).expect("a descriptor");
    let owner: LoopHandle<()> = LoopHandle::new(waker, 1 << 20, None, None);
    let frames = ["{1}", "{}", "{\"x\":\"0123456789\"}", "{4}"];
    for version in BOTH {
        let (tls, config) = tls(&[version]);
        // The client's first message, a new one each time.
        let connect = || {
            let mut ends = Ends::new(&tls, &config, usize::MAX);
            ends.exchange();
            let id = ConnId { index: 0, generation: 0 };
            let Ends { socket, server, wire, .. } = ends;
            (Arc::new(Link::new(id, socket, None, FrameWriter::json(), server, owner.clone())), wire)
        };
        let mut total = usize::MAX;
        let mut unacknowledged = 0;
        while unacknowledged <= total.saturating_add(40) {
            let (link, wire) = connect();
            let mut turn = Turn::new();
            let mut ends_of_records = Vec::new();
            wire.to_client.lock().clear();
            for frame in frames {
                link.send(&mut turn, frame.as_bytes(), Fate::Return(Label::of(7))).expect("it is open");
                turn.flush();
                ends_of_records.push(wire.to_client.lock().len());
            }
            total = *ends_of_records.last().expect("frames were sent");
            wire.unacknowledged.store(unacknowledged, Relaxed);
            link.seal();
            let arrived = total.saturating_sub(unacknowledged);
            let lost = frames.iter().zip(&ends_of_records).filter(|(_, end)| **end > arrived);
            let lost: Vec<Box<[u8]>> = lost.map(|(frame, _)| frame.as_bytes().into()).collect();
            let back: Vec<_> = link.take_back(|label| label.user == 7).into_iter().map(|(_, frame)| frame).collect();
            assert_eq!(back, lost, "{unacknowledged} bytes of {total} are not acknowledged");
            unacknowledged += 1;
        }
    }
}
