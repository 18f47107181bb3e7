//! The other nodes of the cluster: the picture that each gives of itself through its admin port.
//!
//! An answer may take three seconds, enough for the kernel to resend a lost packet, and 64 KiB. A
//! node counts as missing if it has not answered twice in a row. Each node is queried on a separate
//! thread, and again only after that has ended. A node answers only for itself, so queries never
//! form a ring.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::picture::{NodePicture, NodeRow, OwnPicture};
use crate::operation::admin::http::{DeadlineStream, parse_answer};

/// Another node: its last answer, or the reason why there is none.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct OtherNode {
    address: SocketAddr,
    /// The reason why the last query was not answered, and the number of such queries in a row.
    miss: Option<(Miss, u32)>,
    /// The last answer.
    answer: Option<(Instant, NodePicture)>,
}

/// The reason why a query was not answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Miss {
    trouble: String,
    /// Whether something else has answered.
    is_foreign: bool,
}

impl OtherNode {
    /// A node that was not queried yet.
    pub(super) fn new(address: SocketAddr) -> OtherNode {
        OtherNode { address, miss: None, answer: None }
    }

    /// Notes the result of a query.
    pub(super) fn note(&mut self, answer: Result<NodePicture, Miss>, now: Instant) {
        match answer {
            Ok(picture) => (self.miss, self.answer) = (None, Some((now, picture))),
            Err(miss) => self.miss = Some((miss, self.miss.as_ref().map_or(1, |(_, count)| count.saturating_add(1)))),
        }
    }

    fn instance(&self) -> Option<&str> {
        self.answer.as_ref().map(|(_, picture)| picture.instance.as_str()).filter(|instance| !instance.is_empty())
    }

    fn row(&self, now: Instant) -> NodeRow {
        // The first miss may be a lost packet.
        let miss = self.miss.as_ref().filter(|(_, count)| *count >= MISSES).map(|(miss, _)| miss);
        NodeRow {
            address: Some(self.address.to_string()),
            trouble: miss.map(|miss| miss.trouble.clone()),
            foreign: miss.is_some_and(|miss| miss.is_foreign),
            seconds_ago: self.answer.as_ref().map(|(at, _)| now.saturating_duration_since(*at).as_secs_f64()),
            node: self.answer.as_ref().map(|(_, picture)| picture.clone()),
        }
    }
}

/// The rows of these nodes, after that of this one. Each node has one row, however often it is
/// listed.
pub(super) fn rows(own: NodePicture, others: &[OtherNode], now: Instant) -> Vec<NodeRow> {
    let mut known = vec![own.instance.clone()];
    let mut rows =
        vec![NodeRow { address: None, trouble: None, foreign: false, seconds_ago: Some(0.0), node: Some(own) }];
    for other in others {
        if let Some(instance) = other.instance() {
            if known.iter().any(|known| known == instance) {
                continue;
            }
            known.push(instance.to_owned());
        }
        rows.push(other.row(now));
    }
    rows
}

/// Queries all of them at the same time.
pub(super) fn ask_all(addresses: &[SocketAddr]) -> Vec<Result<NodePicture, Miss>> {
    thread::scope(|scope| {
        let begin = |address: &SocketAddr| {
            let address = *address;
            thread::Builder::new().name("status-node".to_owned()).spawn_scoped(scope, move || ask(address, PATIENCE))
        };
        let asked: Vec<_> = addresses.iter().map(begin).collect();
        let answer = |thread: io::Result<thread::ScopedJoinHandle<'_, _>>| {
            let thread = thread.map_err(|error| Miss::of(format!("it cannot be asked: {error}")))?;
            thread.join().unwrap_or_else(|_| Err(Miss::of("its answer was not understood")))
        };
        asked.into_iter().map(answer).collect()
    })
}

/// Queries a node.
fn ask(address: SocketAddr, patience: Duration) -> Result<NodePicture, Miss> {
    let answer = exchange(address, patience).map_err(|error| match error.kind() {
        // Linux reports a read timeout like the first.
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Miss::of(format!("no answer within {patience:?}")),
        // Leaves out the number, which says no more than the words.
        _ => Miss::of(error.to_string().split(" (os error").next().unwrap_or_default().to_lowercase()),
    })?;
    if answer.len() as u64 > ANSWER_BYTES_MAX {
        return Err(Miss::of("its answer is longer than 64 KiB"));
    }
    match parse_answer(&answer) {
        Some((200, body)) => match serde_json::from_slice::<OwnPicture>(body) {
            Ok(picture) if !picture.node.instance.is_empty() => Ok(picture.node.bounded()),
            _ => Err(Miss { is_foreign: true, ..Miss::of(FOREIGN) }),
        },
        Some((status, _)) => {
            Err(Miss { is_foreign: status == NOT_FOUND, ..Miss::of(format!("{FOREIGN} (it answers {status})")) })
        }
        None => Err(Miss::of(FOREIGN)),
    }
}

impl Miss {
    fn of(trouble: impl Into<String>) -> Miss {
        Miss { trouble: trouble.into(), is_foreign: false }
    }
}

fn exchange(address: SocketAddr, patience: Duration) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + patience;
    let stream = TcpStream::connect_timeout(&address, patience)?;
    let mut node = DeadlineStream { stream: &stream, deadline };
    // Sent in one piece.
    let request = format!("GET /status.json?own HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    node.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    node.take(ANSWER_BYTES_MAX + 1).read_to_end(&mut answer)?;
    Ok(answer)
}

/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// The number of unanswered queries in a row from which the page shows it.
const MISSES: u32 = 2;
/// The status of a server of an older version, which has no such page.
const NOT_FOUND: u16 = 404;
/// The longest answer. An error mentions it.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;
const FOREIGN: &str = "that is not the admin port of a server with a status page";

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::operation::fake_node::answering;

    fn picture(instance: &str) -> NodePicture {
        NodePicture { instance: instance.to_owned(), ..NodePicture::default() }
    }

    #[test]
    fn an_answer_has_an_end_in_time_and_in_bytes() {
        let short = Duration::from_millis(50);
        assert_eq!(ask(answering(Vec::new()), short), Err(Miss::of("no answer within 50ms")), "it is silent");
        assert_eq!(ask(answering(b"HTTP/1.1 200 OK\r\n\r\n{"), short), Err(Miss::of("no answer within 50ms")));
        let endless = vec![b'x'; 1 << 20];
        assert_eq!(ask(answering(endless), PATIENCE * 30), Err(Miss::of("its answer is longer than 64 KiB")));
        let nobody = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
        assert!(ask(nobody, PATIENCE).is_err_and(|miss| miss.trouble.contains("refused") && !miss.is_foreign));
    }

    /// Answers one request, and closes the connection.
    fn closing(answer: &str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let answer = answer.to_owned();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("one comes");
            let mut request = Vec::new();
            // Closing with unread bytes would make the kernel discard the answer.
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).expect("a request");
                request.extend(byte);
            }
            assert!(request.starts_with(b"GET /status.json?own HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).expect("it is read");
        });
        address
    }

    #[test]
    fn an_answer_that_no_node_gives_is_reported() {
        let patience = PATIENCE * 30;
        let good = r#"{"node":{"instance":"a","name":"north","users":7,"later":[1]}}"#;
        let read = ask(closing(&format!("HTTP/1.1 200 OK\r\n\r\n{good}")), patience).expect("an answer");
        assert_eq!((read.name.as_str(), read.gauges.users), ("north", 7.0));
        for (answer, more, is_foreign) in [
            ("HTTP/1.1 200 OK\r\n\r\n{}", "", true),
            ("HTTP/1.1 200 OK\r\n\r\n{\"node\":{\"users\":\"many\"}}", "", true),
            ("HTTP/1.1 200 OK\r\n\r\n[[[[[[[[", "", true),
            ("HTTP/1.1 404 Not Found\r\n\r\n", " (it answers 404)", true),
            ("HTTP/1.1 503 Service Unavailable\r\n\r\n", " (it answers 503)", false),
            ("SSH-2.0-x\r\n", "", false),
            ("", "", false),
        ] {
            let miss = Miss { trouble: format!("{FOREIGN}{more}"), is_foreign };
            assert_eq!(ask(closing(answer), patience), Err(miss), "{answer:?}");
        }
        let many = format!(r#"{{"node":{{"instance":"a","findings":[{}{{}}]}}}}"#, "{},".repeat(5000));
        let read = ask(closing(&format!("HTTP/1.1 200 OK\r\n\r\n{many}")), patience).expect("an answer");
        assert_eq!(read.findings.len(), 64);
    }

    #[test]
    fn a_node_is_shown_once_and_as_it_was_last_seen() {
        let (now, address) = (Instant::now(), |port| SocketAddr::from(([10, 0, 0, 1], port)));
        let mut others: Vec<OtherNode> = (1..=4).map(|port| OtherNode::new(address(port))).collect();
        let ports = |others: &[OtherNode]| {
            let rows = rows(picture("me"), others, now);
            rows.iter().filter_map(|row| row.address.as_ref()?.rsplit_once(':')?.1.parse().ok()).collect::<Vec<u16>>()
        };
        assert_eq!(ports(&others), [1, 2, 3, 4], "none was asked yet");
        others[0].note(Ok(picture("me")), now);
        others[1].note(Ok(picture("b")), now);
        others[2].note(Ok(picture("b")), now);
        let away = || Err(Miss::of("it is away"));
        others[3].note(away(), now);
        assert_eq!(ports(&others), [2, 4]);
        others[1].note(away(), now);
        assert_eq!(rows(picture("me"), &others, now)[1].trouble, None, "a packet may have been lost");
        others[1].note(Ok(picture("b")), now);
        others[1].note(away(), now);
        assert_eq!(rows(picture("me"), &others, now)[1].trouble, None, "it has answered in between");
        others[1].note(away(), now);
        let rows = rows(picture("me"), &others[1..2], now + Duration::from_secs(3));
        assert_eq!((rows[1].trouble.as_deref(), rows[1].seconds_ago), (Some("it is away"), Some(3.0)));
        assert_eq!(rows[1].node.as_ref().map(|node| node.instance.as_str()), Some("b"));
    }
}
