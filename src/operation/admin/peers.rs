//! Queries the administration of other nodes of the cluster, all at the same time.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::http::{DeadlineStream, parse_answer};
use crate::config::Secret;

/// Sends this `GET` with the key to each address. Returns for each, in order, the answer, or one
/// line with the reason why there is none. Takes a second at most.
pub fn ask_all(addresses: &[SocketAddr], key: &Secret, path: &str) -> Vec<Result<Value, String>> {
    thread::scope(|scope| {
        let begin = |address: &SocketAddr| {
            let address = *address;
            let name = "admin-node".to_owned();
            thread::Builder::new().name(name).spawn_scoped(scope, move || ask(address, key, path, PATIENCE))
        };
        let asked: Vec<_> = addresses.iter().map(begin).collect();
        let answer = |thread: io::Result<thread::ScopedJoinHandle<'_, _>>| {
            let thread = thread.map_err(|error| format!("it cannot be asked: {error}"))?;
            thread.join().unwrap_or_else(|_| Err(FOREIGN.to_owned()))
        };
        asked.into_iter().map(answer).collect()
    })
}

fn ask(address: SocketAddr, key: &Secret, path: &str, patience: Duration) -> Result<Value, String> {
    let answer = exchange(address, key, path, patience).map_err(|error| match error.kind() {
        // Linux reports a read timeout like the first.
        ErrorKind::WouldBlock | ErrorKind::TimedOut => format!("no answer within {patience:?}"),
        // Leaves out the number, which says no more than the words.
        _ => error.to_string().split(" (os error").next().unwrap_or_default().to_lowercase(),
    })?;
    if answer.len() as u64 > ANSWER_BYTES_MAX {
        return Err("its answer is longer than 1 MiB".to_owned());
    }
    let (status, body) = parse_answer(&answer).ok_or(FOREIGN)?;
    match (status, serde_json::from_slice::<Value>(body)) {
        (200, Ok(body)) if body.is_object() => Ok(body),
        (401 | 429, _) => Err("it has another admin_key".to_owned()),
        (403, _) => Err("it has no admin_key".to_owned()),
        (404 | 405, _) => Err("its version does not know this".to_owned()),
        (status, Ok(body)) if body["error"].is_string() => {
            let why: String = body["error"].as_str().unwrap_or_default().chars().take(WHY_CHARS).collect();
            Err(format!("it answers {status}: {why}"))
        }
        _ => Err(FOREIGN.to_owned()),
    }
}

fn exchange(address: SocketAddr, key: &Secret, path: &str, patience: Duration) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + patience;
    let stream = TcpStream::connect_timeout(&address, patience)?;
    let mut node = DeadlineStream { stream: &stream, deadline };
    let key = key.expose();
    // Sent in one piece.
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n\r\n");
    node.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    node.take(ANSWER_BYTES_MAX + 1).read_to_end(&mut answer)?;
    Ok(answer)
}

/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// The longest answer. An error mentions it.
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;
const WHY_CHARS: usize = 200;
const FOREIGN: &str = "that is not the admin port of a server with an administration";

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::operation::fake_node::answering;

    const KEY: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn a_node_that_does_not_answer_costs_a_bounded_time() {
        let (key, short) = (Secret::new(KEY), Duration::from_millis(50));
        let late = Err("no answer within 50ms".to_owned());
        assert_eq!(ask(answering(""), &key, "/v1/x", short), late);
        assert_eq!(ask(answering("HTTP/1.1 200 OK\r\n\r\n{"), &key, "/v1/x", short), late);
        let nobody = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
        let silent = answering("");
        let answers = ask_all(&[nobody, silent], &key, "/v1/x");
        assert!(answers[0].as_ref().is_err_and(|why| why.contains("refused")), "{answers:?}");
        assert_eq!(answers[1], Err("no answer within 1s".to_owned()));
    }
}
