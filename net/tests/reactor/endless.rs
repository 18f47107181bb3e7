//! A client that never stops sending takes its part of a turn and no more, also when nothing of it
//! is looked at.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use net::simulation::{ManualLoop, Readiness, SimulatedSocket};
use net::{Flow, Handler, Incoming, Link, Preface, Tls, Turn};

use crate::kit::settings;
use crate::tls::tls;

/// A socket that always has something to read.
#[derive(Default, Debug)]
struct Endless {
    token: AtomicUsize,
    reads: AtomicUsize,
    closed: AtomicUsize,
}

impl SimulatedSocket for Endless {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        assert!(self.reads.fetch_add(1, Relaxed) < 1000, "the loop reads for ever");
        buffer.fill(b'x');
        Ok(buffer.len())
    }
    fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        buffer.fill(b'x');
        Ok(buffer.len())
    }
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }
    fn shutdown(&self, _: Shutdown) -> io::Result<()> {
        Ok(())
    }
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok((Ipv4Addr::LOCALHOST, 1).into())
    }
    fn receive_buffer_bytes(&self) -> usize {
        64 * 1024
    }
    fn unacknowledged(&self) -> usize {
        0
    }
    fn register(&self, token: usize) {
        self.token.store(token, Relaxed);
    }
    fn deregister(&self) {
        self.closed.store(1, Relaxed);
    }
}

/// Takes what it is shown, from clients that must speak TLS.
struct OnlyTls(Arc<Tls>);

impl Handler for OnlyTls {
    type Conn = ();
    type Arrival = ();
    type Message = ();

    fn tls(&self) -> Option<Arc<Tls>> {
        Some(self.0.clone())
    }
    fn may_be_plain(&self, _: &Arc<Link<()>>, (): &()) -> bool {
        false
    }
    fn on_arrival(&mut self, _: &mut Turn<()>, _: SocketAddr, _: Preface) -> Result<(), &'static [u8]> {
        Ok(())
    }
    fn on_open(&mut self, _: &mut Turn<()>, _: &Arc<Link<()>>, (): ()) {}
    fn on_incoming(&mut self, _: &mut Turn<()>, _: &Arc<Link<()>>, (): &mut (), _: Incoming<'_>) -> Flow {
        Flow::Taken
    }
}

#[test]
fn a_refused_client_that_sends_on_takes_its_part_of_a_turn_until_it_is_closed() {
    let start = Instant::now();
    let mut work = ManualLoop::new(OnlyTls(tls().0), settings(), start).expect("descriptors");
    let socket = Arc::new(Endless::default());
    work.assign(socket.clone(), (Ipv4Addr::LOCALHOST, 1).into(), Preface::None);
    work.turn(start, &[]);
    let event = Readiness { token: socket.token.load(Relaxed), readable: true, ..Readiness::default() };
    work.turn(start, &[event]);
    // It is refused, and what it sends is dropped so that the answer reaches it.
    for nth in 1..5 {
        let before = socket.reads.swap(0, Relaxed);
        assert!(before < 50, "{before} reads in turn {nth}");
        assert_eq!(work.sleep(start), Some(Duration::ZERO), "there is more to drop");
        work.turn(start, &[]);
    }
    assert_eq!(socket.closed.load(Relaxed), 0);
    work.turn(start + Duration::from_secs(2), &[]);
    assert_eq!(socket.closed.load(Relaxed), 1, "it is not waited for any longer");
}
