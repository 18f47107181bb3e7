//! No byte is stuck. A link that speaks TLS learns of room and of bytes only by edges, as a kernel
//! reports them, and yet all bytes that either end has sent arrive.

use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use super::*;

/// A socket whose kernel has little room, and reports edges.
#[derive(Default, Debug)]
struct Kernel {
    to_server: Mutex<VecDeque<u8>>,
    to_client: Mutex<VecDeque<u8>>,
    /// Whether a write has found too little room: then the next room is reported.
    is_full: AtomicBool,
    is_interrupted: AtomicBool,
    readable: AtomicBool,
    writable: AtomicBool,
}

/// The kernel's room: less than the first answer of a handshake.
const ROOM: usize = 500;

impl Kernel {
    /// Bytes of the client arrive.
    fn bring(&self, bytes: &[u8]) {
        self.to_server.lock().extend(bytes);
        self.readable.store(true, Relaxed);
    }

    /// The client takes this number of bytes out.
    fn take(&self, count: usize) -> VecDeque<u8> {
        let mut bytes = self.to_client.lock();
        let count = count.min(bytes.len());
        let taken = bytes.drain(..count).collect();
        if bytes.len() < ROOM * 2 / 3 && self.is_full.swap(false, Relaxed) {
            self.writable.store(true, Relaxed);
        }
        taken
    }
}

impl SimulatedSocket for Kernel {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut bytes = self.to_server.lock();
        if bytes.is_empty() { Err(ErrorKind::WouldBlock.into()) } else { bytes.read(buffer) }
    }
    fn peek(&self, _: &mut [u8]) -> io::Result<usize> {
        Err(ErrorKind::WouldBlock.into())
    }
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_interrupted.swap(false, Relaxed) {
            return Err(ErrorKind::Interrupted.into());
        }
        let mut queue = self.to_client.lock();
        let count = bytes.len().min(ROOM - queue.len());
        queue.extend(&bytes[..count]);
        self.is_full.fetch_or(count < bytes.len(), Relaxed);
        if count == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(count) }
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
        0
    }
    fn register(&self, _: usize) {}
    fn deregister(&self) {}
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// The client sends this number of bytes.
    Says(usize),
    /// This number of the client's bytes arrive.
    Arrives(usize),
    /// The client takes this number of bytes out.
    Takes(usize),
    /// The client asks for new keys, which the server confirms before it continues to write.
    Rekeys,
    /// The loop sends the client a frame of this length.
    LoopSends(usize),
    /// Another thread sends the client a frame of this length.
    OtherSends(usize),
    /// The loop handles the events since its last turn.
    Turns,
    /// A signal interrupts the next write.
    Signal,
}

/// Both ends, and the text that each has sent.
struct Both {
    client: ClientConnection,
    kernel: Arc<Kernel>,
    link: Arc<Link<()>>,
    of_loop: Turn<()>,
    /// Records of the client that have not reached the kernel.
    on_the_way: Vec<u8>,
    said: (Vec<u8>, Vec<u8>),
    heard: (Vec<u8>, Vec<u8>),
}

impl Both {
    fn new(tls: &Tls, config: &Arc<ClientConfig>) -> Both {
        let poll = Poll::new().expect("a descriptor");
        let waker = Waker::new(poll.registry(), Token(0)).expect("a descriptor");
        let kernel = Arc::new(Kernel::default());
        let transport = Transport::encrypted(tls.begin().expect("random bytes"));
        let (id, socket) = (ConnId { index: 0, generation: 0 }, Socket::Simulated(kernel.clone()));
        let owner: LoopHandle<()> = LoopHandle::new(waker, 1 << 20, None, None);
        let link = Arc::new(Link::new(id, socket, None, FrameWriter::json(), transport, owner));
        let client = client(config);
        let (on_the_way, said, heard) = Default::default();
        Both { client, kernel, link, of_loop: Turn::new(), on_the_way, said, heard }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Says(len) => {
                let text = vec![b'a' + (len % 26) as u8; len];
                let count = self.client.writer().write(&text).expect("it takes some");
                self.said.0.extend(&text[..count]);
            }
            Step::Arrives(len) => {
                while self.client.wants_write() {
                    self.client.write_tls(&mut self.on_the_way).expect("a vector takes all");
                }
                let count = len.min(self.on_the_way.len());
                if count > 0 {
                    self.kernel.bring(&self.on_the_way.drain(..count).collect::<Vec<_>>());
                }
            }
            Step::Takes(len) => self.client_takes(len),
            Step::Rekeys => {
                let _ = self.client.refresh_traffic_keys();
            }
            Step::LoopSends(len) => {
                let text = frame(len);
                self.link.send(&mut self.of_loop, &text, Fate::Drop).expect("it is open");
                self.said.1.extend(text);
            }
            Step::OtherSends(len) => {
                // The bytes that the loop has not written yet stay in front.
                let (mut turn, text) = (Turn::new(), frame(len));
                self.link.send(&mut turn, &text, Fate::Drop).expect("it is open");
                turn.flush();
                self.said.1.extend(text);
            }
            Step::Turns => self.turn(),
            Step::Signal => self.kernel.is_interrupted.store(true, Relaxed),
        }
    }

    fn client_takes(&mut self, len: usize) {
        let mut bytes = self.kernel.take(len);
        while !bytes.is_empty() {
            self.client.read_tls(&mut bytes).expect("a queue");
            self.client.process_new_packets().expect("nothing is garbled");
            let _ = self.client.reader().read_to_end(&mut self.heard.1);
        }
    }

    /// Runs one turn of a loop, which writes after an edge, reads after one until a short read, and
    /// writes the frames that it has sent.
    fn turn(&mut self) {
        if self.kernel.writable.swap(false, Relaxed) {
            self.link.on_writable(&mut self.of_loop);
        }
        let mut flows = self.kernel.readable.swap(false, Relaxed);
        let mut buffer = vec![0; 64 * 1024];
        while flows {
            match self.link.read(&mut self.of_loop, &mut buffer) {
                Ok(got) => {
                    self.heard.0.extend(&buffer[..got.count]);
                    flows = !got.is_short;
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    flows = false;
                }
            }
        }
        self.of_loop.flush();
    }

    /// Runs until the client has read and sent everything, and the loop has no events.
    fn settle(&mut self) {
        loop {
            self.step(Step::Arrives(usize::MAX));
            self.client_takes(usize::MAX);
            let is_quiet = [&self.kernel.readable, &self.kernel.writable].iter().all(|edge| !edge.load(Relaxed));
            // A loop that has sent something writes it before it sleeps.
            self.of_loop.flush();
            if is_quiet && self.kernel.to_client.lock().is_empty() && !self.client.wants_write() {
                return;
            }
            self.turn();
        }
    }
}

fn frame(len: usize) -> Vec<u8> {
    format!("{{\"x\":\"{}\"}}", "z".repeat(len)).into_bytes()
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let length = prop_oneof![0_usize..40, 0_usize..3000, Just(20_000)];
    let cut = prop_oneof![1_usize..10, 1_usize..2000, Just(usize::MAX)];
    let step = prop_oneof![
        length.clone().prop_map(Step::Says),
        cut.clone().prop_map(Step::Arrives),
        cut.prop_map(Step::Takes),
        Just(Step::Rekeys),
        length.clone().prop_map(Step::LoopSends),
        length.prop_map(Step::OtherSends),
        Just(Step::Turns),
        Just(Step::Turns),
        Just(Step::Signal),
    ];
    prop::collection::vec(step, 0..60)
}

fn check(steps: &[Step], versions: &[&'static SupportedProtocolVersion]) {
    let (tls, config) = tls(versions);
    let mut both = Both::new(&tls, &config);
    for step in steps {
        both.step(*step);
    }
    both.settle();
    assert!(!both.client.is_handshaking() && !both.link.is_handshaking());
    assert!(both.heard.0 == both.said.0, "the server has heard all that the client has said");
    assert_eq!(both.heard.1.len(), both.said.1.len(), "the client has heard all that it was sent");
    assert!(both.heard.1 == both.said.1, "and in order");
    assert_eq!(both.link.pending_bytes(), 0);
}

#[test]
fn a_frame_sent_during_the_handshake_leaves_at_its_end_without_an_event() {
    for versions in BOTH {
        let hello = [Step::Arrives(usize::MAX), Step::Turns];
        check(&[&hello[..], &[Step::OtherSends(10)]].concat(), &[versions]);
        check(&[&hello[..], &[Step::LoopSends(10), Step::Turns]].concat(), &[versions]);
    }
}

#[test]
fn output_that_another_thread_could_not_write_leaves_when_there_is_room() {
    let enter =
        [Step::Arrives(usize::MAX), Step::Turns, Step::Takes(usize::MAX), Step::Arrives(usize::MAX), Step::Turns];
    for versions in BOTH {
        check(&[&enter[..], &[Step::OtherSends(20_000), Step::Says(10), Step::Turns]].concat(), &[versions]);
    }
}

#[test]
fn a_write_that_a_signal_interrupts_is_made_again() {
    for versions in BOTH {
        check(&[Step::Signal, Step::Arrives(usize::MAX), Step::Turns], &[versions]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn all_that_either_end_says_arrives(steps in steps(), is_new in any::<bool>()) {
        check(&steps, &[BOTH[usize::from(is_new)]]);
    }
}
