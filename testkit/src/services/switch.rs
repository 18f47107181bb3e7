//! An address that leads to one service and later to another, like a host name or a virtual address
//! at a failover.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// Forwards connections. Turning the switch does not affect existing connections. Its threads end
/// with their connections.
pub struct Switch {
    address: SocketAddr,
    target: Arc<Mutex<SocketAddr>>,
}

impl Switch {
    /// A switch that leads to this address.
    pub fn to(target: SocketAddr) -> Switch {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port for the switch");
        let address = listener.local_addr().expect("its address");
        let target = Arc::new(Mutex::new(target));
        let leads_to = target.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let to = *leads_to.lock().expect("the target");
                // If the target does not accept, the client's connection is closed.
                if let Ok(server) = TcpStream::connect(to) {
                    pump(&client, &server);
                    pump(&server, &client);
                }
            }
        });
        Switch { address, target }
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes new connections lead to this address.
    pub fn turn(&self, target: SocketAddr) {
        *self.target.lock().expect("the target") = target;
    }
}

fn pump(from: &TcpStream, to: &TcpStream) {
    let both = from.try_clone().and_then(|from| Ok((from, to.try_clone()?)));
    let (mut from, mut to) = both.expect("descriptors for the switch");
    thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    });
}
