//! A stand-in for a node of the C++ reference server, as protocol.md describes it. It relies on
//! `User.state`, subscribes to `RayBox-user-*` by pattern, publishes bare frames, checks nothing,
//! and writes `User.state` before it answers.
//!
//! On purpose it has the faults of the reference that others can notice. A user's state becomes
//! `offline` when any of the user's connections ends. A message that it publishes for a user who is
//! not connected anywhere is lost.

use std::collections::HashMap;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use mysql::Conn;
use mysql::prelude::Queryable;
use serde_json::{Deserializer, Value, json};

use crate::PATIENCE;
use crate::services::{Database, Redis};

/// A running stand-in. Dropping it closes its connections and ends its threads. Like the reference,
/// it leaves behind the user states that the closing has written.
pub struct Neighbour {
    node: Arc<Node>,
    address: SocketAddr,
    threads: Vec<JoinHandle<()>>,
}

/// The state that its threads share.
struct Node {
    /// The users who are logged in here, with the connection of each.
    users: Mutex<HashMap<i64, Arc<TcpStream>>>,
    connections: Mutex<Vec<Arc<TcpStream>>>,
    database: Mutex<Conn>,
    publisher: Mutex<redis::Connection>,
    stopping: AtomicBool,
}

impl Neighbour {
    /// Starts a stand-in on a database and a Redis. When this returns, it is subscribed to the
    /// pattern.
    pub fn start(database: &Database, redis: &Redis) -> Neighbour {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let address = listener.local_addr().expect("an address");
        let node = Arc::new(Node {
            users: Mutex::default(),
            connections: Mutex::default(),
            database: Mutex::new(database.connect()),
            publisher: Mutex::new(redis.connect()),
            stopping: AtomicBool::new(false),
        });
        let (subscribed, is_subscribed) = mpsc::channel();
        let subscription = redis.connect();
        let threads = vec![
            thread::spawn({
                let node = Arc::clone(&node);
                move || node.listen(subscription, &subscribed)
            }),
            thread::spawn({
                let node = Arc::clone(&node);
                move || node.accept(&listener)
            }),
        ];
        is_subscribed.recv_timeout(PATIENCE).expect("the neighbour listens to the pattern");
        Neighbour { node, address, threads }
    }

    /// The address that clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.node.stopping.store(true, Ordering::Relaxed);
        // This connection makes the acceptor look at the flag.
        let _ = TcpStream::connect(self.address);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Node {
    /// Receives what is published for any user, and forwards what is for users of this stand-in.
    fn listen(&self, mut connection: redis::Connection, subscribed: &mpsc::Sender<()>) {
        let mut subscription = connection.as_pubsub();
        subscription.psubscribe(format!("{CHANNELS}*")).expect("listen to a pattern");
        subscription.set_read_timeout(Some(Duration::from_millis(20))).expect("set the read timeout");
        subscribed.send(()).expect("somebody waits for this");
        while !self.stopping.load(Ordering::Relaxed) {
            // An error is a timeout, or the loss of Redis. Like the reference, this node receives
            // nothing more after a loss.
            let Ok(message) = subscription.get_message() else { continue };
            let user = message.get_channel_name().strip_prefix(CHANNELS).and_then(|id| id.parse().ok());
            let Some(stream) = user.and_then(|user: i64| self.users().get(&user).cloned()) else { continue };
            let _ = (&*stream).write_all(message.get_payload_bytes());
        }
    }

    fn accept(&self, listener: &TcpListener) {
        thread::scope(|scope| {
            for stream in listener.incoming() {
                if self.stopping.load(Ordering::Relaxed) {
                    break;
                }
                let stream = Arc::new(stream.expect("accept a client"));
                stream.set_nodelay(true).expect("set TCP_NODELAY");
                lock(&self.connections).push(Arc::clone(&stream));
                scope.spawn(move || self.serve(&stream));
            }
            for stream in lock(&self.connections).drain(..) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        });
    }

    fn serve(&self, stream: &Arc<TcpStream>) {
        for request in Deserializer::from_reader(&**stream).into_iter::<Value>() {
            let Ok(request) = request else { break };
            if let Some(reply) = self.handle(stream, &request) {
                let _ = (&**stream).write_all(reply.to_string().as_bytes());
            }
        }
        let mut users = self.users();
        let gone: Vec<i64> = users.iter().filter(|(_, held)| Arc::ptr_eq(held, stream)).map(|(id, _)| *id).collect();
        for user in gone {
            users.remove(&user);
            self.set_state(user, "offline");
        }
    }

    fn handle(&self, stream: &Arc<TcpStream>, request: &Value) -> Option<Value> {
        let id = |member: &str| request[member].as_i64().unwrap_or(0);
        let ack = json!({"errno": 200, "msgType": 200});
        match request["msgType"].as_i64()? {
            1 => {
                self.users().insert(id("USERID"), Arc::clone(stream));
                self.set_state(id("USERID"), "online");
                Some(ack)
            }
            2 => Some(
                match self
                    .insert("INSERT INTO User (name, password) VALUES (?, ?)", [&request["name"], &request["password"]])
                {
                    Some(user) => json!({"errno": 200, "msgType": 200, "USERID": user}),
                    None => json!({"errno": 500, "msgType": 500, "errmsg": "server error, try again later!"}),
                },
            ),
            3 => {
                self.users().remove(&id("USERID"));
                self.set_state(id("USERID"), "offline");
                Some(ack)
            }
            4 | 5 => {
                self.forward(id("TOID"), request);
                None
            }
            6 => {
                let (u1, u2) = (id("U1"), id("U2"));
                let (name1, name2) = (self.name_of(u1), self.name_of(u2));
                let rows = "INSERT IGNORE INTO Friend (userid, friendid) VALUES (?, ?), (?, ?)";
                lock(&self.database).exec_drop(rows, (u1, u2, u2, u1)).expect("make friends");
                self.forward(u2, &json!({"errno": 200, "msgType": 6, "name": name1, "new": true, "userId": u1}));
                Some(json!({"errno": 200, "msgType": 6, "name": name2, "userId": u2}))
            }
            8 => {
                let friends = "SELECT id, name FROM User JOIN Friend ON id = friendid WHERE userid = ?";
                let friends: Vec<(i64, String)> =
                    lock(&self.database).exec(friends, (id("FROMID"),)).expect("ask for friends");
                let friend = |(id, name): (i64, String)| json!({"id": id.to_string(), "isGroup": "0", "name": name});
                let friends: Vec<Value> = friends.into_iter().map(friend).collect();
                Some(json!({"errno": 200, "msgType": 8, "friends": friends}))
            }
            9 => {
                let members = "SELECT userid FROM GroupUser WHERE groupid = ? AND userid <> ?";
                let members: Vec<i64> =
                    lock(&self.database).exec(members, (id("GROUPID"), id("FROMID"))).expect("ask for the members");
                for member in members {
                    self.forward(member, request);
                }
                None
            }
            200 => Some(ack),
            _ => Some(self.answer(request)),
        }
    }

    /// Answers a request that only changes or reads tables.
    fn answer(&self, request: &Value) -> Value {
        let id = |member: &str| request[member].as_i64().unwrap_or(0);
        match request["msgType"].as_i64().unwrap_or(0) {
            10 => {
                let join = "INSERT IGNORE INTO GroupUser (groupid, userid, grouprole) VALUES (?, ?, 'normal')";
                lock(&self.database).exec_drop(join, (id("GROUPID"), id("FROMID"))).expect("join a group");
                let name: Option<String> = lock(&self.database)
                    .exec_first("SELECT groupname FROM AllGroup WHERE id = ?", (id("GROUPID"),))
                    .expect("a group's name");
                json!({"errno": 200, "msgType": 10, "groupId": id("GROUPID"), "name": name})
            }
            12 => {
                let create = "INSERT INTO AllGroup (groupname, groupdesc) VALUES (?, ?)";
                let group = self.insert(create, [&request["name"], &request["description"]]).expect("make a group");
                let join = "INSERT INTO GroupUser (groupid, userid, grouprole) VALUES (?, ?, 'creator')";
                lock(&self.database).exec_drop(join, (group, id("FROMID"))).expect("join the group");
                json!({"errno": 200, "msgType": 12, "GROUPID": group, "name": request["name"]})
            }
            13 => {
                let groups = self
                    .groups(&request["name"])
                    .into_iter()
                    .map(|(id, name, desc)| json!({"id": id.to_string(), "name": name, "desc": desc, "gUsers": []}));
                json!({"errno": 200, "msgType": 200, "groups": groups.collect::<Vec<_>>()})
            }
            14 => json!({"errno": 200, "msgType": 14, "msgs": self.take_stored(id("FROMID"))}),
            // Searches for groups only: the tests search for users only as a barrier.
            15 => {
                let groups = self
                    .groups(&request["keyword"])
                    .into_iter()
                    .map(|(id, name, desc)| json!({"id": id.to_string(), "isGroup": "1", "name": name, "desc": desc}));
                json!({"errno": 200, "msgType": 15, "results": groups.collect::<Vec<_>>()})
            }
            _ => json!({"errmsg": "not played by the stand-in", "errno": 404, "msgType": 404}),
        }
    }

    /// Forwards to a user of this stand-in. Otherwise publishes if the state is `online`, and
    /// stores if it is not.
    fn forward(&self, to: i64, frame: &Value) {
        let text = frame.to_string();
        if let Some(stream) = self.users().get(&to).cloned() {
            let _ = (&*stream).write_all(text.as_bytes());
            return;
        }
        let mut database = lock(&self.database);
        let state: Option<String> = database.exec_first("SELECT state FROM User WHERE id = ?", (to,)).expect("a state");
        if state.as_deref() == Some("online") {
            let mut publish = redis::cmd("PUBLISH");
            publish.arg(format!("{CHANNELS}{to}")).arg(text);
            let _: i64 = publish.query(&mut *lock(&self.publisher)).expect("publish");
        } else {
            let insert = "INSERT INTO OfflineMessage (userid, message) VALUES (?, ?)";
            database.exec_drop(insert, (to, text)).expect("store a message");
        }
    }

    /// Returns the id of the new row, or `None` if an equal one exists.
    fn insert(&self, statement: &str, values: [&Value; 2]) -> Option<u64> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut database = lock(&self.database);
        let [first, second] = values.map(text);
        database.exec_drop(statement, (first, second)).ok()?;
        Some(database.last_insert_id())
    }

    fn groups(&self, name: &Value) -> Vec<(i64, String, Option<String>)> {
        let name = name.as_str().unwrap_or_default();
        let groups = "SELECT id, groupname, groupdesc FROM AllGroup WHERE groupname LIKE CONCAT('%', ?, '%')";
        lock(&self.database).exec(groups, (name,)).expect("ask for groups")
    }

    fn take_stored(&self, user: i64) -> Vec<String> {
        let mut database = lock(&self.database);
        let messages = database.exec("SELECT message FROM OfflineMessage WHERE userid = ?", (user,)).expect("messages");
        database.exec_drop("DELETE FROM OfflineMessage WHERE userid = ?", (user,)).expect("delete messages");
        messages
    }

    fn name_of(&self, user: i64) -> String {
        let name = lock(&self.database).exec_first("SELECT name FROM User WHERE id = ?", (user,)).expect("a name");
        name.unwrap_or_default()
    }

    fn set_state(&self, user: i64, state: &str) {
        lock(&self.database).exec_drop("UPDATE User SET state = ? WHERE id = ?", (state, user)).expect("set a state");
    }

    fn users(&self) -> MutexGuard<'_, HashMap<i64, Arc<TcpStream>>> {
        lock(&self.users)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The prefix of every user's channel.
const CHANNELS: &str = "RayBox-user-";
