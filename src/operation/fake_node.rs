//! A node of a test, which answers one request.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;

/// Answers one request with this; then it holds the connection open until the other end is closed.
pub(super) fn answering(answer: impl Into<Vec<u8>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let answer = answer.into();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("one comes");
        let _ = stream.write_all(&answer);
        let _ = stream.read_to_end(&mut Vec::new());
    });
    address
}
