//! A server that makes one mistake.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Child;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

/// The mistake of the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    None,
    /// This mistake and the next ones affect every hundredth message. This one drops it.
    Loses,
    Doubles,
    /// Sends the message after the next one.
    Reorders,
    Alters,
    Misdelivers,
    /// Closes the connection that the message is for.
    Closes,
    /// Repeats the last message when no more messages arrive.
    DoublesLate,
    /// Writes half a frame when no more messages arrive.
    Trails,
    /// Writes unexpected frames without end.
    Babbles,
    /// Holds all messages back until no more arrive.
    Freezes,
    /// Writes to a user to whom no other user wrote.
    Disturbs,
    /// Closes the connection of a user to whom no other user wrote.
    ClosesBystander,
    /// Exits at the hundredth message.
    Dies,
    /// Refuses every fifth login.
    RefusesLogins,
    /// Closes the connection at every fifth login.
    ClosesAtLogin,
}

pub(crate) struct Server {
    fault: Fault,
    pub(crate) state: Mutex<State>,
    /// Passes on the recipient and the text of each message, so that a thread notices when no more
    /// arrive.
    quiet: Sender<(i64, String)>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) connections: HashMap<i64, TcpStream>,
    pub(crate) registered: i64,
    logins: usize,
    groups: Vec<Vec<i64>>,
    /// Messages for users who are offline.
    stored: HashMap<i64, Vec<String>>,
    pub(crate) forwarded: usize,
    held_back: Option<(i64, String)>,
    /// A process that is killed together with the server.
    pub(crate) process: Option<Child>,
}

/// The number of messages that one fetch returns.
const PAGE: usize = 50;

pub(crate) fn start(fault: Fault) -> (Arc<Server>, SocketAddr) {
    let (server, addresses) = start_nodes(fault, 1);
    (server, addresses[0])
}

/// A server that listens at several addresses, as if it were as many nodes.
pub(crate) fn start_nodes(fault: Fault, nodes: usize) -> (Arc<Server>, Vec<SocketAddr>) {
    let (quiet, messages) = channel();
    let server = Arc::new(Server { fault, state: Mutex::default(), quiet });
    let when_quiet = server.clone();
    thread::spawn(move || act_when_quiet(&when_quiet, &messages));
    let listen = |_| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let server = server.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let server = server.clone();
                thread::spawn(move || serve(&server, &stream));
            }
        });
        address
    };
    let addresses = (0..nodes).map(listen).collect();
    (server, addresses)
}

fn act_when_quiet(server: &Server, messages: &Receiver<(i64, String)>) {
    // raybench waits for 300 ms of quiet at the end; a freeze must be longer than any pause between
    // messages.
    let pause = Duration::from_millis(if server.fault == Fault::Freezes { 500 } else { 20 });
    let mut pending = Vec::new();
    loop {
        match messages.recv_timeout(pause) {
            Ok(message) => {
                if server.fault != Fault::Freezes {
                    pending.clear();
                }
                pending.push(message);
            }
            Err(RecvTimeoutError::Timeout) => {
                let mut state = server.state.lock().expect("a lock");
                for (to, line) in pending.drain(..) {
                    match server.fault {
                        Fault::DoublesLate | Fault::Freezes => state.write(to, &line),
                        Fault::Trails => drop((&state.connections[&to]).write_all(br#"{"half"#)),
                        _ => {}
                    }
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn serve(server: &Server, stream: &TcpStream) {
    let mut replies = stream;
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        let request: Value = serde_json::from_str(&line).expect("raybench writes JSON");
        let Some(reply) = answer(server, stream, &request, line) else { continue };
        // The reply is written in two parts: raybench must wait for the newline.
        if writeln!(replies, "{reply}").is_err() {
            return;
        }
    }
}

fn answer(server: &Server, stream: &TcpStream, request: &Value, line: String) -> Option<Value> {
    let id = |name: &str| request[name].as_i64().expect("an id");
    let mut state = server.state.lock().expect("a lock");
    let reply = match request["msgType"].as_i64() {
        Some(1) => {
            state.logins += 1;
            let is_fifth = state.logins.is_multiple_of(5);
            if is_fifth && server.fault == Fault::RefusesLogins {
                return Some(json!({"errno": 302, "msgType": 200}));
            }
            if is_fifth && server.fault == Fault::ClosesAtLogin {
                let _ = stream.shutdown(Shutdown::Both);
            }
            state.connections.insert(id("USERID"), stream.try_clone().expect("a descriptor"));
            json!({"errno": 200, "msgType": 200})
        }
        Some(2) => {
            state.registered += 1;
            json!({"USERID": state.registered, "errno": 200, "msgType": 200})
        }
        Some(3) => {
            state.connections.remove(&id("USERID"));
            json!({"errno": 200, "msgType": 200})
        }
        Some(4) => {
            forward(server, &mut state, id("FROMID"), id("TOID"), line);
            return None;
        }
        Some(9) => {
            for member in state.groups[id("GROUPID") as usize].clone() {
                if member != id("FROMID") {
                    forward(server, &mut state, id("FROMID"), member, line.clone());
                }
            }
            return None;
        }
        Some(10) => {
            state.groups[id("GROUPID") as usize].push(id("FROMID"));
            json!({"errno": 200, "msgType": 10})
        }
        Some(12) => {
            state.groups.push(vec![id("FROMID")]);
            json!({"GROUPID": state.groups.len() - 1, "errno": 200, "msgType": 12})
        }
        Some(14) => {
            let stored = state.stored.entry(id("FROMID")).or_default();
            let page: Vec<_> = stored.drain(..stored.len().min(PAGE)).collect();
            json!({"errno": 200, "msgType": 14, "msgs": page})
        }
        Some(15) => json!({"errno": 200, "msgType": 15, "results": []}),
        Some(100) => {
            let text = "No such method, failed to process your request!";
            json!({"errmsg": text, "errno": 404, "msgType": 404})
        }
        other => panic!("raybench does not ask {other:?}"),
    };
    Some(reply)
}

fn forward(server: &Server, state: &mut State, from: i64, to: i64, line: String) {
    state.forwarded += 1;
    let is_hundredth = state.forwarded.is_multiple_of(100);
    let bystander = state.connections.keys().copied().find(|id| *id != from && *id != to);
    let _ = server.quiet.send((to, line.clone()));
    match (server.fault, is_hundredth) {
        (Fault::Freezes, _) | (Fault::Loses, true) => return,
        (Fault::Doubles, true) => state.write(to, &line),
        (Fault::Alters, true) => return state.write(to, &line.replace("abc", "abd")),
        (Fault::Misdelivers, true) => return state.write(bystander.expect("another user"), &line),
        (Fault::Reorders, true) => {
            state.held_back = Some((to, line));
            return;
        }
        (Fault::Babbles, true) => {
            let connection = state.connections[&to].try_clone().expect("a descriptor");
            thread::spawn(move || {
                while (&connection).write_all(b"{}\n").is_ok() {
                    thread::sleep(Duration::from_millis(10));
                }
            });
        }
        (Fault::Closes, true) => state.close(to),
        (Fault::Disturbs, true) => state.write(bystander.expect("another user"), "{}"),
        (Fault::ClosesBystander, true) => state.close(bystander.expect("another user")),
        (Fault::Dies, true) => {
            if let Some(mut process) = state.process.take() {
                process.kill().and_then(|()| process.wait()).expect("it dies");
            }
            state.connections.keys().copied().collect::<Vec<_>>().into_iter().for_each(|id| state.close(id));
        }
        _ => {}
    }
    state.write(to, &line);
    if let Some((to, line)) = state.held_back.take() {
        state.write(to, &line);
    }
}

impl State {
    /// Writes to the user's connection, or stores the message.
    fn write(&mut self, to: i64, line: &str) {
        match self.connections.get(&to) {
            // The client may have closed the connection.
            Some(mut connection) => drop(connection.write_all(format!("{line}\n").as_bytes())),
            None => self.stored.entry(to).or_default().push(line.to_owned()),
        }
    }

    fn close(&mut self, id: i64) {
        let _ = self.connections[&id].shutdown(Shutdown::Both);
    }
}
