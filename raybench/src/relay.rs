//! The baseline: the cost of the system calls alone.
//!
//! One thread, one `epoll`, no frames, no users: bytes from one connection of a room are read once
//! and written to each of the others. A room is a number of consecutive connections.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustls::{ServerConfig, ServerConnection};

use crate::carrier::{Address, Carrier};
use crate::tls;

/// The settings of a relay.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) listen: SocketAddr,
    /// The number of connections in a room.
    pub(crate) room: usize,
    /// Write each frame, up to and including this byte, in a write of its own. A server must do so
    /// for clients that take one read for one frame.
    pub(crate) split_at: Option<u8>,
    /// Speak TLS.
    pub(crate) tls: bool,
}

/// The first byte that each connection is sent.
pub(crate) const ACCEPTED: u8 = b'\n';

const LISTENER: u64 = u64::MAX;
const STANDARD_INPUT: u64 = u64::MAX - 1;

/// Relays until standard input ends.
pub(crate) fn run(settings: Settings) -> io::Result<()> {
    let listener = TcpListener::bind(settings.listen)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot listen at {}: {error}", settings.listen)))?;
    writeln!(io::stdout(), "{}", listener.local_addr()?)?;
    io::stdout().flush()?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    // A regular file or /dev/null cannot be polled; with such an input the relay runs until it is
    // killed.
    let _ = epoll::add(&epoll, io::stdin().as_fd(), EventData::new_u64(STANDARD_INPUT), EventFlags::IN);
    // The sockets are blocking, and are read only when they are readable. A receiver that does not
    // read may block the relay.
    let tls = settings.tls.then(tls::server).transpose()?;
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut events = Vec::with_capacity(256);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        events.clear();
        match epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None) {
            Err(rustix::io::Errno::INTR) => continue,
            waited => waited?,
        };
        for event in &events {
            match event.data.u64() {
                LISTENER => {
                    match accept(&listener, tls.as_ref()) {
                        Ok(connection) => {
                            let index = EventData::new_u64(connections.len() as u64);
                            epoll::add(&epoll, &connection.socket, index, EventFlags::IN)?;
                            connections.push(Some(connection));
                        }
                        Err(error) => {
                            let _ =
                                writeln!(io::stderr(), "raybench relay: a connection could not be accepted: {error}");
                            // Without free descriptors, epoll would report the connection again
                            // immediately.
                            thread::sleep(Duration::from_millis(10));
                        }
                    }
                }
                STANDARD_INPUT => {
                    if io::stdin().read(&mut buffer)? == 0 {
                        return Ok(());
                    }
                }
                index => relay(&mut connections, index as usize, settings, &mut buffer),
            }
        }
    }
}

/// One connection. With TLS, a read of the socket may be followed by several reads of the decrypted
/// bytes.
struct Connection {
    socket: TcpStream,
    tls: Option<Box<ServerConnection>>,
}

impl Connection {
    /// Reads what one read of the socket brings: 0 at the end, `None` if it brings no payload.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let Connection { socket, tls } = self;
        let Some(tls) = tls else { return socket.read(buffer).map(Some) };
        if tls.read_tls(socket)? == 0 {
            return Ok(Some(0));
        }
        tls.process_new_packets().map_err(io::Error::other)?;
        tls::flush(&mut **tls, socket)?;
        match tls.reader().read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            read => read.map(Some),
        }
    }

    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let Connection { socket, tls } = self;
        let Some(tls) = tls else { return socket.write_all(bytes) };
        while !bytes.is_empty() {
            bytes = &bytes[tls::write(&mut **tls, socket, bytes)?..];
        }
        Ok(())
    }
}

fn accept(listener: &TcpListener, tls: Option<&Arc<ServerConfig>>) -> io::Result<Connection> {
    let (socket, _) = listener.accept()?;
    socket.set_nodelay(true)?;
    let tls = tls.map(|config| ServerConnection::new(config.clone()).map(Box::new)).transpose();
    let mut connection = Connection { socket, tls: tls.map_err(io::Error::other)? };
    // A client that has received this byte is in its room. With TLS the byte follows the handshake.
    connection.write_all(&[ACCEPTED])?;
    Ok(connection)
}

fn relay(connections: &mut [Option<Connection>], index: usize, settings: Settings, buffer: &mut [u8]) {
    let Some(from) = connections[index].as_mut() else { return };
    let received = match from.read(buffer) {
        Ok(None) => return,
        Ok(Some(len @ 1..)) => &buffer[..len],
        Ok(Some(0)) | Err(_) => {
            connections[index] = None;
            return;
        }
    };
    let first = index - index % settings.room;
    for (other, to) in connections.iter_mut().enumerate().skip(first).take(settings.room) {
        let Some(to) = to.as_mut().filter(|_| other != index) else { continue };
        let written = match settings.split_at {
            None => to.write_all(received),
            Some(last) => received.split_inclusive(|byte| *byte == last).try_for_each(|frame| to.write_all(frame)),
        };
        // A client that has gone is noticed at the next read from it.
        let _ = written;
    }
}

/// A relay in a process of its own, so that its processor time is separate from that of the
/// generator. Dropping this handle ends it.
#[derive(Debug)]
pub(crate) struct Relay {
    child: Child,
    pub(crate) address: Address,
}

impl Relay {
    pub(crate) fn start(room: usize, split_at: Option<u8>, carrier: Carrier) -> io::Result<Relay> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["relay", "--listen", "127.0.0.1:0", "--room", &room.to_string()]);
        if let Some(byte) = split_at {
            command.args(["--split-at", &byte.to_string()]);
        }
        if carrier == Carrier::Tls {
            command.arg("--tls");
        }
        // Ctrl-C on the terminal goes to this process alone, which then ends the relay.
        command.process_group(0);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let socket = line.trim().parse();
        let mut relay = Relay { child, address: Address { socket: SocketAddr::from(([127, 0, 0, 1], 0)), carrier } };
        relay.address.socket = socket.map_err(|_| io::Error::other("the relay did not start"))?;
        Ok(relay)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
