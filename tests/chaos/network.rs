//! [`Network`]: the network of the clients, in which a client can be cut off.
//!
//! Where the kernel and the user's rights allow it, clients live in a network namespace of their
//! own, at the other end of a virtual cable, each with its own addresses. Removing an address makes
//! a real black hole: nothing acknowledges what the servers send there, and their kernel has to
//! notice by itself. The namespace and the cable disappear with the last thread and the last socket
//! that use them.

use std::env;
use std::fmt;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{self, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use rustix::thread::{UnshareFlags, unshare};
use socket2::{Domain, Socket, Type};
use testkit::{LONG_PATIENCE, output_within, rest_within};

/// The addresses that clients connect from.
pub enum Network {
    /// Addresses at the other end of a cable.
    Namespace(Namespace),
    /// Addresses of the loopback interface, which cannot be cut off.
    Loopback,
}

/// The other end of a cable.
pub struct Namespace {
    /// The first three bytes of all addresses.
    prefix: [u8; 3],
    /// The end of the cable on our side.
    cable: String,
    /// Jobs for the thread in the namespace.
    jobs: Sender<Job>,
}

type Job = Box<dyn FnOnce() + Send>;

/// A client's address, by its last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source(pub u8);

impl Network {
    /// Opens a namespace, which needs root, Linux and iproute2. Otherwise returns the loopback
    /// interface and the reason. `CHAOS_NAMESPACE=off` chooses the loopback interface.
    pub fn open() -> (Network, Option<String>) {
        if env::var("CHAOS_NAMESPACE").is_ok_and(|value| value == "off") {
            return (Network::Loopback, Some("CHAOS_NAMESPACE=off".to_owned()));
        }
        match Namespace::open() {
            Ok(namespace) => (Network::Namespace(namespace), None),
            Err(reason) => (Network::Loopback, Some(reason)),
        }
    }

    /// The address that the servers should listen on.
    pub fn host(&self) -> Ipv4Addr {
        match self {
            Network::Namespace(namespace) => namespace.address(Source(GATEWAY)),
            Network::Loopback => Ipv4Addr::LOCALHOST,
        }
    }

    /// Whether an address can be cut off.
    pub fn can_cut(&self) -> bool {
        matches!(self, Network::Namespace(_))
    }

    /// Connects from an address. A small `receive_buffer` limits what the kernel accepts for a
    /// client that does not read.
    pub fn connect(&self, from: Source, to: SocketAddr, receive_buffer: Option<usize>) -> io::Result<TcpStream> {
        let socket = match self {
            Network::Namespace(namespace) => {
                let address = namespace.address(from);
                // A socket belongs for good to the namespace of the thread that makes it.
                namespace.run(move || bound(address))?
            }
            Network::Loopback => bound(Ipv4Addr::new(127, 0, 1, from.0))?,
        };
        if let Some(size) = receive_buffer {
            socket.set_recv_buffer_size(size)?;
        }
        socket.connect_timeout(&to.into(), CONNECT_PATIENCE)?;
        Ok(socket.into())
    }

    /// Makes an address vanish: nothing arrives there, nothing leaves it, and neither end is
    /// notified.
    pub fn cut(&self, source: Source) {
        if let Network::Namespace(namespace) = self {
            namespace.change_address("del", source);
        }
    }

    /// Restores the address.
    pub fn mend(&self, source: Source) {
        if let Network::Namespace(namespace) = self {
            namespace.change_address("add", source);
        }
    }

    /// Drops everything that is sent to an address until the result is dropped. Packets from there
    /// still pass.
    pub fn deafen(&self, source: Source) -> Option<Deaf> {
        let Network::Namespace(namespace) = self else { return None };
        let address = format!("{}/32", namespace.address(source));
        check(ip(&["route", "add", "blackhole", &address])).expect("take a route away");
        Some(Deaf(address))
    }
}

/// An address that receives nothing while this value lives.
pub struct Deaf(String);

impl Drop for Deaf {
    fn drop(&mut self) {
        let _ = ip(&["route", "del", "blackhole", &self.0]);
    }
}

impl Namespace {
    fn open() -> Result<Namespace, String> {
        // The network for benchmarks (RFC 2544), which has no other use. Concurrent runs, also
        // those of other tests in this process, take different parts of it.
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let number = process::id().wrapping_add(count * 101) % 512;
        let prefix = [198, 18 + u8::try_from(number / 256).expect("less than 2"), (number % 256) as u8];
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (moved, has_moved) = mpsc::channel();
        thread::spawn(move || {
            let id = unshare(UnshareFlags::NEWNET).map(|()| rustix::thread::gettid().as_raw_nonzero().get());
            let is_there = id.is_ok();
            let _ = moved.send(id);
            if is_there {
                inbox.into_iter().for_each(|job| job());
            }
        });
        let id = has_moved.recv().map_err(|_| "no thread".to_owned())?;
        let id = id.map_err(|error| format!("no namespace: {error}"))?;
        let namespace = Namespace { prefix, cable: format!("rbx{}-{count}", process::id()), jobs };
        namespace.lay_cable(id).map_err(|reason| format!("no cable into a namespace: {reason}"))?;
        Ok(namespace)
    }

    fn lay_cable(&self, thread: i32) -> Result<(), String> {
        let (cable, gateway) = (&self.cable, self.address(Source(GATEWAY)).to_string());
        let thread = thread.to_string();
        check(ip(&["link", "add", cable, "type", "veth", "peer", "name", INSIDE, "netns", &thread]))?;
        check(ip(&["addr", "add", &format!("{gateway}/24"), "dev", cable]))?;
        check(ip(&["link", "set", cable, "up"]))?;
        let mut inside = format!("link set lo up\nlink set {INSIDE} up\nroute add {gateway}/32 dev {INSIDE}\n");
        for source in 1..GATEWAY {
            inside.push_str(&format!("addr add {}/32 dev {INSIDE}\n", self.address(Source(source))));
        }
        check(self.run(move || ip_batch(&inside)))
    }

    fn change_address(&self, how: &'static str, source: Source) {
        let address = format!("{}/32", self.address(source));
        let done = self.run(move || check(ip(&["addr", how, &address, "dev", INSIDE])));
        done.unwrap_or_else(|reason| panic!("cannot change an address: {reason}"));
    }

    fn address(&self, source: Source) -> Ipv4Addr {
        let [a, b, c] = self.prefix;
        Ipv4Addr::new(a, b, c, source.0)
    }

    /// Runs `what` in the namespace, and waits for its result.
    fn run<T: Send + 'static>(&self, what: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = mpsc::channel();
        let job = Box::new(move || _ = done.send(what()));
        self.jobs.send(job).expect("the thread in the namespace runs");
        result.recv().expect("the thread in the namespace runs")
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Network::Namespace(_) => f.write_str("clients in a network namespace, real black holes"),
            Network::Loopback => {
                f.write_str("clients on the loopback interface, black holes are peers that do not read")
            }
        }
    }
}

fn bound(address: Ipv4Addr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((address, 0)).into())?;
    Ok(socket)
}

fn ip(arguments: &[&str]) -> io::Result<Output> {
    output_within(LONG_PATIENCE, Command::new("ip").args(arguments))
}

fn ip_batch(lines: &str) -> io::Result<Output> {
    let mut command = Command::new("ip");
    command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    child.stdin.take().expect("it is a pipe").write_all(lines.as_bytes())?;
    Ok(rest_within(LONG_PATIENCE, child))
}

fn check(output: io::Result<Output>) -> Result<(), String> {
    let output = output.map_err(|error| format!("cannot run ip: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()) }
}

/// Our end of the cable; clients have smaller numbers.
const GATEWAY: u8 = 254;

/// The name of the inner end of the cable.
const INSIDE: &str = "inside";

const CONNECT_PATIENCE: Duration = Duration::from_secs(3);
