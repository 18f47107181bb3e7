//! An address that leads to one service and later to another, like a host name or a virtual address
//! at a failover. It can also be cut, like a network between two machines.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

/// Forwards connections. Turning the switch does not affect existing connections. Its threads end
/// with their connections.
pub struct Switch {
    address: SocketAddr,
    target: Arc<Mutex<SocketAddr>>,
    gate: Arc<Gate>,
}

/// The gate that all bytes, and the end of a connection, pass.
#[derive(Default)]
struct Gate {
    is_shut: Mutex<bool>,
    opened: Condvar,
}

impl Switch {
    /// A switch that leads to this address.
    pub fn to(target: SocketAddr) -> Switch {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port for the switch");
        let address = listener.local_addr().expect("its address");
        let switch = Switch { address, target: Arc::new(Mutex::new(target)), gate: Arc::default() };
        let (leads_to, gate) = (switch.target.clone(), switch.gate.clone());
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let to = *leads_to.lock().expect("the target");
                // If the target does not accept, the client's connection is closed.
                if let Ok(server) = TcpStream::connect(to) {
                    pump(&client, &server, &gate);
                    pump(&server, &client, &gate);
                }
            }
        });
        switch
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes new connections lead to this address.
    pub fn turn(&self, target: SocketAddr) {
        *self.target.lock().expect("the target") = target;
    }

    /// Cuts all connections, or mends them. Between the two no byte passes, not even the end of a
    /// connection. Neither end is notified. A new connection opens, but stays silent.
    pub fn cut(&self, is_cut: bool) {
        *self.gate.is_shut.lock().expect("the gate") = is_cut;
        self.gate.opened.notify_all();
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.cut(false);
    }
}

impl Gate {
    fn pass(&self) {
        let is_shut = self.is_shut.lock().expect("the gate");
        let _open = self.opened.wait_while(is_shut, |is_shut| *is_shut).expect("the gate");
    }
}

fn pump(from: &TcpStream, to: &TcpStream, gate: &Arc<Gate>) {
    let both = from.try_clone().and_then(|from| Ok((from, to.try_clone()?)));
    let (mut from, mut to) = both.expect("descriptors for the switch");
    let gate = gate.clone();
    thread::spawn(move || {
        let mut buffer = [0; 16 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            gate.pass();
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        gate.pass();
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    });
}
