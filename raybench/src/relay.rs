//! The baseline: the cost of the system calls alone.
//!
//! One thread, one `epoll`, no frames, no users: bytes from one connection of a room are read once
//! and written to each of the others. A room is a number of consecutive connections. Only the
//! system calls are left.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::event::epoll::{self, EventData, EventFlags};

/// The settings of a relay.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) listen: SocketAddr,
    /// Connections of one room.
    pub(crate) room: usize,
    /// Write each frame, up to and including this byte, in a write of its own, as a server must if
    /// its clients take one read for one frame.
    pub(crate) split_at: Option<u8>,
}

/// The byte that each connection is sent first.
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
    // A regular file or /dev/null cannot be polled: with those the relay runs until it is killed.
    let _ = epoll::add(&epoll, io::stdin().as_fd(), EventData::new_u64(STANDARD_INPUT), EventFlags::IN);
    // The sockets are blocking: they are read when they are readable, and a receiver that does not
    // read may block the relay.
    let mut connections: Vec<Option<TcpStream>> = Vec::new();
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
                    match accept(&listener) {
                        Ok(connection) => {
                            let index = EventData::new_u64(connections.len() as u64);
                            epoll::add(&epoll, &connection, index, EventFlags::IN)?;
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

fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    let (mut connection, _) = listener.accept()?;
    connection.set_nodelay(true)?;
    // A client that has received this byte is in its room.
    connection.write_all(&[ACCEPTED])?;
    Ok(connection)
}

fn relay(connections: &mut [Option<TcpStream>], index: usize, settings: Settings, buffer: &mut [u8]) {
    let Some(from) = connections[index].as_mut() else { return };
    let received = match from.read(buffer) {
        Ok(len @ 1..) => &buffer[..len],
        Ok(0) | Err(_) => {
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

/// A relay in a process of its own, so that its processor time is separate from ours. Dropping this
/// handle ends it.
#[derive(Debug)]
pub(crate) struct Relay {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Relay {
    pub(crate) fn start(room: usize, split_at: Option<u8>) -> io::Result<Relay> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["relay", "--listen", "127.0.0.1:0", "--room", &room.to_string()]);
        if let Some(byte) = split_at {
            command.args(["--split-at", &byte.to_string()]);
        }
        // Ctrl-C on the terminal is for this process, which then ends the relay.
        command.process_group(0);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let address = line.trim().parse();
        let mut relay = Relay { child, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        relay.address = address.map_err(|_| io::Error::other("the relay did not start"))?;
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
