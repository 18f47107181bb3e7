//! [`Ear`]: a proxy that hears when a transaction is committed, and cuts the connection just then.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::{io, thread};

/// Its threads end with their connections.
pub(crate) struct Ear {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Whether the database hears of the commit that is lost; `None`: none is to be lost.
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

    /// Cuts the connection on which the next transaction is committed: after the database has heard
    /// of it, or before.
    pub(crate) fn lose_next_commit(&self, is_heard: bool) {
        *self.shared.next.lock().unwrap() = Some(is_heard);
        self.shared.is_armed.store(true, Ordering::SeqCst);
    }

    /// How many were lost since the last call.
    pub(crate) fn lost(&self) -> usize {
        self.shared.lost.swap(0, Ordering::SeqCst)
    }
}

/// Forwards requests. The client waits for each answer, so a request is what comes at once.
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
            // No answer can come before the client sees the end.
            let _ = client.shutdown(Shutdown::Both);
            shared.is_armed.store(false, Ordering::SeqCst);
            shared.lost.fetch_add(1, Ordering::SeqCst);
        }
        if lost == Some(false) || server.write_all(bytes).is_err() {
            break;
        }
        if lost.is_some() {
            // The database reads on until it has committed, and finds the end then.
            let _ = server.shutdown(Shutdown::Write);
            return;
        }
    }
    let _ = server.shutdown(Shutdown::Both);
    let _ = client.shutdown(Shutdown::Both);
}
