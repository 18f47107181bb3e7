//! [`Client`]: one device of one account.

use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, Mutex, MutexGuard};
use serde_json::{Value, json};

use crate::cid;
use crate::conv::Conv;
use crate::error::{Error, Result};
use crate::event::{End, Events, State};
use crate::machine::{JwtSource, Machine};
use crate::server::Servers;
use crate::store::Store;
use crate::ticket::{Ticket, Tickets};
use crate::view::{Conversation, History, Message, Pending};
use crate::worker::{Shared, Wish, Wishes, Worker};

/// The options of a client.
#[derive(Clone)]
pub struct Options {
    pub(crate) server: String,
    pub(crate) ca: Option<PathBuf>,
    file: Option<PathBuf>,
    password: Option<(String, String)>,
    jwt: Option<JwtSource>,
}

impl Options {
    /// The address of a server, such as `127.0.0.1:6000`, or `tls://chat.example.org:6000` to speak
    /// TLS with it. Without [`Options::file`], the client keeps everything in memory.
    ///
    /// Several addresses have commas between them: `one.example.org:6000,two.example.org:6000`. The
    /// client begins with any of them, and takes the next one for each new connection.
    pub fn new(server: impl Into<String>) -> Options {
        Options { server: server.into(), ca: None, file: None, password: None, jwt: None }
    }

    /// Trusts a server of `tls://` by the certificates in this PEM file, in place of the system's.
    pub fn ca(mut self, path: impl Into<PathBuf>) -> Options {
        self.ca = Some(path.into());
        self
    }

    /// Keeps everything in this SQLite file, which only its owner may read. Only one process may
    /// use it.
    pub fn file(mut self, path: impl Into<PathBuf>) -> Options {
        self.file = Some(path.into());
        self
    }

    /// Logs in with name and password. Afterwards the file holds a token, and the password is not
    /// needed again.
    pub fn password(mut self, name: impl Into<String>, password: impl Into<String>) -> Options {
        self.password = Some((name.into(), password.into()));
        self
    }

    /// Logs in with a JSON web token of an identity provider. `fetch` returns a fresh one. The
    /// client's thread calls it when the file has no token, or one that has expired, because the
    /// server's token ends with the JSON web token. If it fails, the client tries again later.
    pub fn jwt(mut self, fetch: impl Fn() -> std::result::Result<String, String> + Send + Sync + 'static) -> Options {
        self.jwt = Some(JwtSource(Arc::new(fetch)));
        self
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("server", &self.server).field("file", &self.file).finish_non_exhaustive()
    }
}

/// One device of one account, with a thread that keeps it connected. Dropping it ends the thread;
/// messages in the outbox are sent when the file is opened again.
///
/// All methods may be called from any thread. Methods that read the store answer at once; methods
/// that ask the server wait for its answer, at most 20 seconds.
#[derive(Debug)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
    wishes: Wishes,
    thread: Option<JoinHandle<()>>,
}

/// The time within which an answer must come.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

impl Client {
    /// Opens a client, which begins to connect.
    ///
    /// # Errors
    /// - [`Error::Tls`]: these options do not permit TLS.
    /// - [`Error::NoAccount`]: the file has no login, and the options have neither a password nor a
    ///   source of JSON web tokens.
    /// - [`Error::InUse`]: another process uses the file.
    /// - Faults of the file.
    pub fn open(options: Options) -> Result<Client> {
        let servers = Servers::of(&options.server, options.ca.as_deref())?;
        let store = match &options.file {
            Some(path) => Store::open(path, new_device)?,
            None => Store::in_memory(new_device)?,
        };
        let mut login = store.login()?;
        login.password = options.password;
        login.jwt = options.jwt;
        if login.password.is_none() && login.token.is_none() && login.jwt.is_none() {
            return Err(Error::NoAccount);
        }
        let machine = Machine::new(login, servers.all().len(), Instant::now());
        let shared = Arc::new(Shared {
            store: Mutex::new(store),
            state: Mutex::new(machine.state()),
            state_changed: Condvar::new(),
            events: Events::default(),
            tickets: Tickets::default(),
        });
        let (worker, wishes) = Worker::new(shared.clone(), machine, servers)?;
        let thread = thread::Builder::new().name("raybox-client".to_owned()).spawn(|| worker.run())?;
        Ok(Client { shared, wishes, thread: Some(thread) })
    }

    // The connection

    /// The state of the connection.
    pub fn state(&self) -> State {
        self.shared.state.lock().clone()
    }

    /// The events of this client.
    pub fn events(&self) -> &Events {
        &self.shared.events
    }

    /// Waits until all missed messages have come.
    ///
    /// # Errors
    /// [`Error::Refused`] if the login does not succeed, and [`Error::Offline`] if the time is
    /// over.
    pub fn wait_online(&self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        let mut state = self.shared.state.lock();
        loop {
            match &*state {
                State::Online => return Ok(()),
                State::Ended(end) => return Err(ended(end)),
                _ => {}
            }
            if self.shared.state_changed.wait_until(&mut state, deadline).timed_out() {
                return Err(Error::Offline);
            }
        }
    }

    /// Connects now instead of waiting.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn hurry(&self) -> Result<()> {
        self.wish(Wish::Hurry)
    }

    /// The user's id and name, after the first login.
    ///
    /// # Errors
    /// Faults of the data file.
    pub fn user(&self) -> Result<Option<(i64, String)>> {
        Ok(self.store().login()?.owner)
    }

    // Sending

    /// Puts a text into the outbox. When this returns, the message survives everything but the loss
    /// of the file, and is sent exactly once as soon as the server can be reached.
    ///
    /// # Errors
    /// [`Error::TooLong`], and faults of the data file.
    pub fn send(&self, conv: Conv, text: &str) -> Result<Ticket> {
        self.send_with(conv, json!({"msg": text}))
    }

    /// Replaces the text of an own message.
    ///
    /// The server may refuse the edit, for example after a day: then [`Ticket::wait`] fails.
    ///
    /// # Errors
    /// As for [`Client::send`].
    pub fn edit(&self, conv: Conv, seq: u64, text: &str) -> Result<Ticket> {
        self.send_with(conv, json!({"edit": seq, "msg": text}))
    }

    /// Recalls an own message.
    ///
    /// # Errors
    /// As for [`Client::edit`].
    pub fn recall(&self, conv: Conv, seq: u64) -> Result<Ticket> {
        self.send_with(conv, json!({"recall": seq}))
    }

    /// Sends a message with these members besides `msgType`, the recipient, `cid` and `sendTime`.
    ///
    /// # Errors
    /// As for [`Client::send`].
    pub fn send_with(&self, conv: Conv, members: Value) -> Result<Ticket> {
        let kind = if conv.is_group() { 9 } else { 4 };
        self.enqueue(conv, kind, members)
    }

    /// Sends a friend request to a user, as a message of the conversation.
    ///
    /// # Errors
    /// As for [`Client::send`].
    pub fn request_friend(&self, user: i64) -> Result<Ticket> {
        let name = self.user()?.map_or(Value::Null, |(_, name)| Value::from(name));
        self.enqueue(Conv::User(user), 5, json!({"name": name}))
    }

    fn enqueue(&self, conv: Conv, kind: i64, mut frame: Value) -> Result<Ticket> {
        let now_ms = now_ms();
        let mut random = [0; 10];
        getrandom::fill(&mut random).map_err(|error| Error::Io(std::io::Error::other(error)))?;
        let cid = cid::new(now_ms, random);
        let to = if conv.is_group() { "GROUPID" } else { "TOID" };
        let mut store = self.store();
        frame["msgType"] = json!(kind);
        frame["FROMID"] = json!(store.me());
        frame[to] = json!(conv.id());
        frame["cid"] = json!(cid);
        frame["sendTime"] = json!(now_ms);
        let (frame, max) = (frame.to_string(), store.login()?.frame_max);
        if frame.len() > max {
            return Err(Error::TooLong { bytes: frame.len(), max });
        }
        let ticket = self.shared.tickets.issue(cid.clone());
        store.enqueue(conv, &cid, &frame, now_ms)?;
        drop(store);
        self.shared.events.push(crate::event::Event::Changed(conv));
        self.wish(Wish::OutboxHasGrown(conv))?;
        Ok(ticket)
    }

    /// The messages that wait or were refused in a conversation, in the order sent; at most `limit`
    /// messages.
    ///
    /// # Errors
    /// Faults of the data file.
    pub fn pending(&self, conv: Conv, limit: usize) -> Result<Vec<Pending>> {
        self.store().pending(conv, limit)
    }

    /// The number of messages that wait in all conversations.
    ///
    /// # Errors
    /// Faults of the data file.
    pub fn pending_count(&self) -> Result<u64> {
        self.store().pending_count()
    }

    /// Removes a message that the server has refused. Returns false if there is no such message.
    ///
    /// # Errors
    /// Faults of the data file.
    pub fn discard(&self, cid: &str) -> Result<bool> {
        self.store().discard(cid)
    }

    // Reading

    /// The conversations, the most recently active first.
    ///
    /// # Errors
    /// Faults of the data file.
    pub fn conversations(&self) -> Result<Vec<Conversation>> {
        self.store().conversations()
    }

    /// One conversation.
    ///
    /// # Errors
    /// Faults of the data file.
    pub fn conversation(&self, conv: Conv) -> Result<Option<Conversation>> {
        self.store().conversation(conv)
    }

    /// The newest messages below a number that the store holds, down to the first hole.
    ///
    /// # Errors
    /// Faults of the data file.
    pub fn history(&self, conv: Conv, before: Option<u64>, limit: usize) -> Result<History> {
        self.store().history(conv, before, limit)
    }

    /// The messages above a number in ascending order, up to the first hole.
    ///
    /// # Errors
    /// Faults of the data file.
    pub fn after(&self, conv: Conv, after: u64, limit: usize) -> Result<Vec<Message>> {
        self.store().after(conv, after, limit)
    }

    /// Like [`Client::history`], but reads messages that the store lacks from the server first.
    ///
    /// # Errors
    /// As for [`Client::ask`], if messages must be read from the server.
    pub fn older(&self, conv: Conv, before: Option<u64>, limit: usize) -> Result<History> {
        loop {
            let history = self.history(conv, before, limit)?;
            let Some((_, last)) = self.gap_of(conv, before, &history)? else { return Ok(history) };
            let (answer, answered) = mpsc::sync_channel(1);
            self.wish(Wish::Page(conv, Some(last + 1), 200, Some(answer)))?;
            match answered.recv_timeout(ANSWER_WITHIN) {
                Ok(Ok(_)) => {}
                // The server keeps no older messages, and the store knows that now.
                Ok(Err(Error::Refused { errno: 410, .. })) => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(Error::NoAnswer),
            }
            if self.gap_of(conv, before, &self.history(conv, before, limit)?)?.is_some_and(|gap| gap.1 == last) {
                return Err(Error::Misunderstood);
            }
        }
    }

    /// Requests the page that [`Client::history`] lacks, without waiting. An event follows when the
    /// page has come.
    ///
    /// # Errors
    /// Faults of the data file.
    pub fn fetch_older(&self, conv: Conv, before: Option<u64>) -> Result<()> {
        let gap = self.store().gap_below(conv, before.unwrap_or(1 << 53))?;
        match gap {
            Some((_, last)) => self.wish(Wish::Page(conv, Some(last + 1), 200, None)),
            None => Ok(()),
        }
    }

    /// The gap at which a piece of history ends.
    fn gap_of(&self, conv: Conv, before: Option<u64>, history: &History) -> Result<Option<(u64, u64)>> {
        if !history.has_gap {
            return Ok(None);
        }
        self.store().gap_below(conv, before.unwrap_or(1 << 53))
    }

    /// Marks a conversation as read up to this number. The mark is stored until the server has it.
    ///
    /// # Errors
    /// Faults of the data file.
    pub fn mark_read(&self, conv: Conv, seq: u64) -> Result<()> {
        let is_news = self.store().mark_read(conv, seq)?;
        if is_news { self.wish(Wish::MarkRead(conv, seq)) } else { Ok(()) }
    }

    /// Shows the others that the user is typing, at most every 3 seconds, if there is a connection.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn typing(&self, conv: Conv) -> Result<()> {
        self.wish(Wish::Typing(conv))
    }

    /// Shows which of these users are online, and every change, until the next call. At most 500
    /// users; more are cut off.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn watch(&self, mut users: Vec<i64>) -> Result<()> {
        users.truncate(500);
        self.wish(Wish::Watch(users))
    }

    /// The name of a user, if this client knows it.
    ///
    /// # Errors
    /// Faults of the data file.
    pub fn name_of(&self, user: i64) -> Result<Option<String>> {
        self.store().name_of(user)
    }

    /// A note of the application under this key.
    ///
    /// # Errors
    /// Faults of the data file.
    pub fn note(&self, key: &str) -> Result<Option<String>> {
        self.store().note(key)
    }

    /// Stores a note for the application, such as the number of the last message that it has shown.
    ///
    /// # Errors
    /// Faults of the data file.
    pub fn set_note(&self, key: &str, value: &str) -> Result<()> {
        self.store().set_note(key, value)
    }

    /// Sends a request to the server, and waits for the reply. `rid` and `FROMID` are added.
    ///
    /// # Errors
    /// [`Error::Offline`], [`Error::Refused`] with the server's reason, [`Error::Interrupted`],
    /// [`Error::NoAnswer`].
    pub fn ask(&self, request: Value) -> Result<Value> {
        let (answer, answered) = mpsc::sync_channel(1);
        self.wish(Wish::Ask(request, answer))?;
        answered.recv_timeout(ANSWER_WITHIN).unwrap_or(Err(Error::NoAnswer))
    }

    pub(crate) fn store(&self) -> MutexGuard<'_, Store> {
        self.shared.store.lock()
    }

    fn wish(&self, wish: Wish) -> Result<()> {
        self.wishes.make(wish)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if self.wishes.make(Wish::Close).is_ok()
            && let Some(thread) = self.thread.take()
        {
            // A thread that has panicked has reported that already.
            let _ = thread.join();
        }
    }
}

fn ended(end: &End) -> Error {
    let errno = match end {
        End::WrongPassword => 302,
        End::Revoked => 403,
        End::Replaced | End::OtherAccount(_) => 409,
        End::NoLevel2 => 501,
        End::Refused(_) => 400,
        End::LoggedOut | End::Closed => return Error::Closed,
    };
    Error::Refused { errno, message: end.to_string(), retry_after: None }
}

/// A name for a new device.
fn new_device() -> Result<String> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|error| Error::Io(std::io::Error::other(error)))?;
    Ok(format!("rust-{:016x}", u64::from_be_bytes(random)))
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
