//! [`Switch`]: a port that can lead to another server later.

use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::{io, thread};

/// A port that leads new connections to one server, and later to another one.
pub(crate) struct Switch {
    pub(crate) port: u16,
    target: Arc<Mutex<SocketAddr>>,
    /// The number of new connections to close at once, and whether a later one was let through.
    closing: Arc<Mutex<(usize, bool)>>,
}

impl Switch {
    pub(crate) fn to(target: SocketAddr) -> Switch {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (port, target) = (listener.local_addr().unwrap().port(), Arc::new(Mutex::new(target)));
        let closing: Arc<Mutex<(usize, bool)>> = Arc::default();
        let (shared, to_close) = (target.clone(), closing.clone());
        thread::spawn(move || {
            for client in listener.incoming() {
                match &mut *to_close.lock().unwrap() {
                    (0, has_opened) => *has_opened = true,
                    (left, _) => {
                        *left -= 1;
                        continue;
                    }
                }
                let server = TcpStream::connect(*shared.lock().unwrap());
                let (Ok(client), Ok(server)) = (client, server) else { continue };
                let back = (server.try_clone().unwrap(), client.try_clone().unwrap());
                for (mut from, mut to) in [(client, server), back] {
                    thread::spawn(move || {
                        let _ = io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
            }
        });
        Switch { port, target, closing }
    }

    /// Closes the next `count` new connections at once.
    pub(crate) fn close_next(&self, count: usize) {
        *self.closing.lock().unwrap() = (count, false);
    }

    /// Whether all of these are closed and a later one was let through.
    pub(crate) fn has_opened_since(&self) -> bool {
        self.closing.lock().unwrap().1
    }

    pub(crate) fn lead_to(&self, target: SocketAddr) {
        *self.target.lock().unwrap() = target;
    }
}
