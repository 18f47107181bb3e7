//! [`Ear`]: a proxy that notices the commit of a transaction, and cuts the connection at that
//! moment.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::{io, thread};

/// See the [module](self). Its threads end with their connections.
pub(crate) struct Ear {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Whether the database receives the commit whose answer is lost; `None` if none is to be lost.
    next: Mutex<Option<bool>>,
    is_armed: AtomicBool,
    lost: AtomicUsize,
}

impl Ear {
    pub(crate) fn to(target: SocketAddr) -> Ear {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::default());
        let of_threads = shared.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(target) else { continue };
                let (mut answers, mut to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                thread::spawn(move || {
                    let _ = io::copy(&mut answers, &mut to_client);
                    let _ = to_client.shutdown(Shutdown::Both);
                });
                let shared = of_threads.clone();
                thread::spawn(move || listen(&shared, &client, &server));
            }
        });
        Ear { port, shared }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Cuts the connection on which the next transaction is committed. With `is_heard`, the
    /// database still receives the commit.
    pub(crate) fn lose_next_commit(&self, is_heard: bool) {
        *self.shared.next.lock().unwrap() = Some(is_heard);
        self.shared.is_armed.store(true, Ordering::SeqCst);
    }

    /// The number of connections cut since the last call.
    pub(crate) fn lost(&self) -> usize {
        self.shared.lost.swap(0, Ordering::SeqCst)
    }
}

/// Forwards requests. The client waits for each answer, so one read is one request.
fn listen(shared: &Shared, mut client: &TcpStream, mut server: &TcpStream) {
    let mut buffer = vec![0; 1 << 20];
    while let Ok(count @ 1..) = client.read(&mut buffer) {
        let bytes = &buffer[..count];
        let is_commit = shared.is_armed.load(Ordering::SeqCst) && bytes.ends_with(b"COMMIT");
        let lost = if is_commit { shared.next.lock().unwrap().take() } else { None };
        if lost == Some(false) {
            let _ = server.shutdown(Shutdown::Both);
        }
        if lost.is_some() {
            // The client's connection is cut first, so no answer can reach it.
            let _ = client.shutdown(Shutdown::Both);
            shared.is_armed.store(false, Ordering::SeqCst);
            shared.lost.fetch_add(1, Ordering::SeqCst);
        }
        if lost == Some(false) || server.write_all(bytes).is_err() {
            break;
        }
        if lost.is_some() {
            // The database receives the commit and executes it, and only then finds the end of the
            // connection.
            let _ = server.shutdown(Shutdown::Write);
            return;
        }
    }
    let _ = server.shutdown(Shutdown::Both);
    let _ = client.shutdown(Shutdown::Both);
}
