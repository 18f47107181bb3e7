//! A server whose handler reports every call, and clients that talk to it.
//!
//! Each connection has a channel of its own, so a test reads the effects of one client in order.
//! Nothing here sleeps: an expected event has [`PATIENCE`] to happen.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use net::{
    Acceptor, CloseReason, Fate, Incoming, Link, ListenSettings, LoopGroup, LoopWatch, Preface, Refused, Settings,
    Stopper, Tls, Turn,
};
use socket2::{Domain, SockRef, Socket, Type};

mod recorder;

use recorder::Recorder;

/// The longest time of an expected event on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A frame that the handler answers with [`Flow::Last`].
pub(crate) const LAST: &[u8] = br#"{"last":1}"#;

/// Work for the loop's thread.
pub(crate) type Errand = Box<dyn FnOnce(&Arc<Link<Note>>) + Send>;

/// Messages for [`Handler::on_message`].
pub(crate) enum Note {
    /// Is reported to the test.
    Text(String),
    /// From now on this number of items are taken; those after them are answered with
    /// [`Flow::Later`].
    Permit(usize),
    /// Is run by the loop's thread.
    Run(Errand),
    /// Is run by the loop's thread when the connection closes.
    AtClose(Errand),
}

/// The calls of the handler for one connection. Input from the client is reported as text, see
/// [`text_of`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Seen {
    Taken(String),
    Later(String),
    Note(String),
    Sent(u32),
    HangUp,
    Closed(CloseReason),
}

/// Calls of the handler without a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Astray {
    Unsent(u32, String),
    Note(String),
}

/// The reaction of a test to an item that is taken, on the loop's thread.
pub(crate) type React = dyn Fn(&mut Turn<Note>, &Arc<Link<Note>>, Incoming<'_>) + Send + Sync;

pub(crate) fn ignore(_: &mut Turn<Note>, _: &Arc<Link<Note>>, _: Incoming<'_>) {}

/// Answers a frame with itself and everything else with its name in angle brackets.
pub(crate) fn echo(turn: &mut Turn<Note>, link: &Arc<Link<Note>>, incoming: Incoming<'_>) {
    if !matches!(incoming, Incoming::End | Incoming::Stop | Incoming::Crowded) {
        // A refusal shows in the test as a missing reply.
        let _ = link.send(turn, text_of(incoming).as_bytes(), Fate::Drop);
    }
}

pub(crate) fn text_of(incoming: Incoming<'_>) -> String {
    match incoming {
        Incoming::Frame(frame) => String::from_utf8_lossy(frame).into_owned(),
        Incoming::Garbage { .. } => "<garbage>".into(),
        Incoming::Blanks { len } => format!("<{len} blanks>"),
        Incoming::Oversize => "<oversize>".into(),
        Incoming::Foreign(foreign) => format!("<{foreign:?}>"),
        Incoming::End => "<end>".into(),
        Incoming::Stop => "<stop>".into(),
        Incoming::Crowded => "<crowded>".into(),
    }
}

pub(crate) fn taken(text: &str) -> Seen {
    Seen::Taken(text.into())
}

pub(crate) fn later(text: &str) -> Seen {
    Seen::Later(text.into())
}

pub(crate) fn note(text: &str) -> Seen {
    Seen::Note(text.into())
}

/// Times longer than any test waits.
pub(crate) fn settings() -> Settings {
    Settings {
        frame_bytes_max: 64 * 1024,
        frame_timeout: 10 * PATIENCE,
        idle_timeout: 10 * PATIENCE,
        output_bytes_max: 1024 * 1024,
        drain_timeout: PATIENCE,
        pace: None,
    }
}

/// A new connection, and the calls of its handler.
pub(crate) type Opened = (Arc<Link<Note>>, Receiver<Seen>);

/// A running server. It stops immediately when dropped, and gracefully when drained.
pub(crate) struct TestServer {
    address: SocketAddr,
    stopper: Stopper,
    accepting: Option<JoinHandle<LoopGroup<Note>>>,
    opened: Receiver<Opened>,
    pub(crate) astray: Receiver<Astray>,
    pub(crate) watches: Arc<[LoopWatch<Note>]>,
}

impl TestServer {
    pub(crate) fn start(
        loops: usize,
        settings: Settings,
        react: impl Fn(&mut Turn<Note>, &Arc<Link<Note>>, Incoming<'_>) + Send + Sync + 'static,
    ) -> TestServer {
        TestServer::start_with(loops, settings, react, |_| ())
    }

    /// A server whose connections each begin with `preface`.
    pub(crate) fn start_behind(
        preface: Preface,
        settings: Settings,
        react: impl Fn(&mut Turn<Note>, &Arc<Link<Note>>, Incoming<'_>) + Send + Sync + 'static,
    ) -> TestServer {
        TestServer::launch(1, settings, react, |_| (), preface, None)
    }

    /// A server whose clients may speak TLS, or must.
    pub(crate) fn start_tls(
        (tls, is_required): (Arc<Tls>, bool),
        settings: Settings,
        react: impl Fn(&mut Turn<Note>, &Arc<Link<Note>>, Incoming<'_>) + Send + Sync + 'static,
    ) -> TestServer {
        TestServer::launch(1, settings, react, |_| (), Preface::None, Some((tls, is_required)))
    }

    /// `on_accept` sees every accepted socket before its loop does.
    pub(crate) fn start_with(
        loops: usize,
        settings: Settings,
        react: impl Fn(&mut Turn<Note>, &Arc<Link<Note>>, Incoming<'_>) + Send + Sync + 'static,
        on_accept: impl FnMut(SockRef<'_>) + Send + 'static,
    ) -> TestServer {
        TestServer::launch(loops, settings, react, on_accept, Preface::None, None)
    }

    fn launch(
        loops: usize,
        settings: Settings,
        react: impl Fn(&mut Turn<Note>, &Arc<Link<Note>>, Incoming<'_>) + Send + Sync + 'static,
        mut on_accept: impl FnMut(SockRef<'_>) + Send + 'static,
        preface: Preface,
        tls: Option<(Arc<Tls>, bool)>,
    ) -> TestServer {
        let (opened_sender, opened) = mpsc::channel();
        let (astray_sender, astray) = mpsc::channel();
        let react: Arc<React> = Arc::new(react);
        let recorder = |_| {
            let (opened, astray) = (opened_sender.clone(), astray_sender.clone());
            Recorder { opened, astray, react: react.clone(), tls: tls.clone() }
        };
        let mut group = LoopGroup::start(loops, settings, recorder).expect("loops start");
        let acceptor = Acceptor::bind("127.0.0.1:0".parse().expect("an address"), listen_settings()).expect("a port");
        let (address, stopper) = (acceptor.local_addr().expect("an address"), acceptor.stopper());
        let watches = group.watches();
        let accepting = thread::spawn(move || {
            acceptor.run(|stream, peer| {
                on_accept(SockRef::from(&*stream));
                group.assign(stream, peer, preface);
            });
            group
        });
        TestServer { address, stopper, accepting: Some(accepting), opened, astray, watches }
    }

    /// A new client, when its loop knows it. The loops take turns, the first client being the first
    /// loop's.
    pub(crate) fn connect(&self) -> Peer {
        self.connect_with(|_| {})
    }

    /// The same with options set before the connection is made.
    pub(crate) fn connect_with(&self, set: impl Fn(&Socket)) -> Peer {
        let socket = Socket::new(Domain::for_address(self.address), Type::STREAM, None).expect("a socket");
        set(&socket);
        socket.connect(&self.address.into()).expect("the server listens");
        let socket = TcpStream::from(socket);
        socket.set_nodelay(true).expect("an option");
        socket.set_read_timeout(Some(PATIENCE)).expect("an option");
        socket.set_write_timeout(Some(PATIENCE)).expect("an option");
        let (link, seen) = self.opened.recv_timeout(PATIENCE).expect("the connection is opened");
        assert_eq!(link.peer(), socket.local_addr().ok(), "clients connect one after the other");
        Peer { socket, link, seen }
    }

    /// A socket of which the handler may not be notified.
    pub(crate) fn dial(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address).expect("the server listens");
        socket.set_nodelay(true).expect("an option");
        socket.set_read_timeout(Some(PATIENCE)).expect("an option");
        socket
    }

    /// The next connection that was opened.
    pub(crate) fn opened(&self) -> Opened {
        self.opened.recv_timeout(PATIENCE).expect("the connection is opened")
    }

    /// Whether no unexpected connection was opened.
    pub(crate) fn opened_none(&self) -> bool {
        self.opened.try_recv().is_err()
    }

    /// The next call without a connection.
    pub(crate) fn astray(&self) -> Astray {
        self.astray.recv_timeout(PATIENCE).expect("something goes astray")
    }

    /// Drains the loops within `time`; the thread returned ends when they have.
    pub(crate) fn drain(&mut self, time: Duration) -> JoinHandle<()> {
        let group = self.stop_accepting().expect("drained once");
        thread::spawn(move || group.drain(u32::MAX, time))
    }

    fn stop_accepting(&mut self) -> Option<LoopGroup<Note>> {
        self.stopper.stop();
        self.accepting.take().map(|accepting| accepting.join().expect("the acceptor does not panic"))
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if let Some(group) = self.stop_accepting() {
            group.drain(u32::MAX, Duration::ZERO);
        }
    }
}

pub(crate) fn listen_settings() -> ListenSettings {
    ListenSettings { backlog: 128, user_timeout: Duration::from_secs(17) }
}

/// Both ends of one connection: the client's socket, and the calls of the server's handler.
pub(crate) struct Peer {
    pub(crate) socket: TcpStream,
    pub(crate) link: Arc<Link<Note>>,
    pub(crate) seen: Receiver<Seen>,
}

impl Peer {
    pub(crate) fn write(&mut self, text: &str) {
        self.socket.write_all(text.as_bytes()).expect("the server reads");
    }

    /// Shuts the sending side down.
    pub(crate) fn end(&self) {
        self.socket.shutdown(Shutdown::Write).expect("connected");
    }

    /// Breaks the connection: the server gets a reset, not an end.
    pub(crate) fn reset(self) -> (Arc<Link<Note>>, Receiver<Seen>) {
        SockRef::from(&self.socket).set_linger(Some(Duration::ZERO)).expect("an option");
        (self.link, self.seen)
    }

    /// Reads exactly the expected bytes.
    #[track_caller]
    pub(crate) fn expect_bytes(&mut self, expected: &str) {
        let mut bytes = vec![0; expected.len()];
        self.socket.read_exact(&mut bytes).expect("the server answers");
        assert_eq!(String::from_utf8_lossy(&bytes), expected);
    }

    /// Reads what has arrived, and does not wait for more.
    pub(crate) fn arrived(&mut self) -> String {
        self.socket.set_nonblocking(true).expect("an option");
        let mut bytes = Vec::new();
        // It would block; the bytes that were read are there nevertheless.
        let _ = self.socket.read_to_end(&mut bytes);
        self.socket.set_nonblocking(false).expect("an option");
        String::from_utf8(bytes).expect("text")
    }

    /// Reads up to the end; a reset is not an end.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> String {
        let mut text = String::new();
        self.socket.read_to_string(&mut text).expect("the server ends in order");
        text
    }

    #[track_caller]
    pub(crate) fn expect(&self, expected: impl IntoIterator<Item = Seen>) {
        expect(&self.seen, expected);
    }

    /// Every item from now on is answered with [`Flow::Later`].
    pub(crate) fn hold(&self) {
        self.link.post(Note::Permit(0));
        self.sync();
    }

    /// Makes the handler take this number of further items.
    pub(crate) fn permit(&self, count: usize) {
        self.link.post(Note::Permit(count));
    }

    /// Returns when the loop has done all earlier work for this connection, and has nothing else to
    /// report.
    #[track_caller]
    pub(crate) fn sync(&self) {
        self.link.post(Note::Text("sync".into()));
        self.expect([note("sync")]);
    }

    /// Sends from this thread, like a thread without a loop.
    pub(crate) fn send(&self, frame: &str, fate: Fate) -> Result<(), Refused> {
        let mut turn = Turn::new();
        let outcome = self.link.send(&mut turn, frame.as_bytes(), fate);
        turn.flush();
        outcome
    }

    /// Returns when this number of bytes wait in the kernel for the server.
    #[track_caller]
    pub(crate) fn wait_until_unread(&self, bytes: usize) {
        wait_until(|| self.unread() >= bytes);
    }

    /// Bytes that have arrived and were not read by the server (rx_queue in proc_net_tcp).
    pub(crate) fn unread(&self) -> usize {
        let port = |address: io::Result<SocketAddr>| format!(":{:04X}", address.expect("connected").port());
        let (server, client) = (port(self.socket.peer_addr()), port(self.socket.local_addr()));
        let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux has it");
        let columns = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let mut ours = columns.filter(|row| row[1].ends_with(&server) && row[2].ends_with(&client));
        let queue = ours.next().and_then(|row| row[4].split_once(':')).map_or("0", |(_, unread)| unread);
        usize::from_str_radix(queue, 16).expect("a hexadecimal number")
    }
}

#[track_caller]
pub(crate) fn next(seen: &Receiver<Seen>) -> Seen {
    seen.recv_timeout(PATIENCE).expect("the handler is called")
}

#[track_caller]
pub(crate) fn expect(seen: &Receiver<Seen>, expected: impl IntoIterator<Item = Seen>) {
    for expected in expected {
        assert_eq!(next(seen), expected);
    }
}

/// For conditions that can only be polled.
#[track_caller]
pub(crate) fn wait_until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "it did not happen in time");
        thread::yield_now();
    }
}

/// Blocks a loop until it is dropped: one turn then finds everything that has happened meanwhile.
pub(crate) struct Gate {
    _open: Sender<()>,
}

impl Gate {
    /// Returns when the loop of this connection is blocked.
    pub(crate) fn close(link: &Arc<Link<Note>>) -> Gate {
        let (open, opened) = mpsc::channel::<()>();
        let (here, arrived) = mpsc::channel();
        link.post(Note::Run(Box::new(move |_| {
            let _ = here.send(());
            let _ = opened.recv();
        })));
        arrived.recv_timeout(PATIENCE).expect("the loop turns");
        Gate { _open: open }
    }
}
