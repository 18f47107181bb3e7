//! [`Event`]: the events for an application, and the queue in which they wait.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::conv::Conv;

/// A notification of the application. Events are hints: everything that lasts is in the store,
/// where the application reads it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The connection is in another state: see [`Client::state`](crate::Client::state).
    State,
    /// A message is in the store. It may be an own one that was committed.
    Message {
        /// Its conversation.
        conv: Conv,
        /// Its number.
        seq: u64,
    },
    /// Another part of a conversation has changed: marks, its name, older messages, an edit, or the
    /// messages that wait to be sent.
    Changed(Conv),
    /// An own message was refused for good. It stays in the outbox, marked as refused.
    Refused {
        /// Its conversation.
        conv: Conv,
        /// Its id.
        cid: String,
        /// The reason as a number, such as 403.
        errno: i64,
        /// The reason in words.
        message: String,
    },
    /// A user is typing.
    Typing {
        /// The conversation.
        conv: Conv,
        /// The user.
        from: i64,
    },
    /// A watched user has come online or gone offline.
    Presence {
        /// The user.
        user: i64,
        /// Whether the user is online.
        online: bool,
    },
    /// The server's frames cannot be written to the disk. The client reconnects later.
    StoreFailed(String),
    /// The queue was full, and events are lost. Read everything again that you show.
    Missed,
}

/// The state of a client's connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum State {
    /// The client waits before it reconnects.
    Waiting {
        /// The time at which it connects.
        until: Instant,
        /// The reason why it is not connected.
        reason: String,
    },
    /// The client connects.
    Connecting,
    /// The login is not answered yet.
    LoggingIn,
    /// Missed messages are arriving.
    Synchronising,
    /// All missed messages have come, and new ones are shown at once.
    Online,
    /// The client will not reconnect by itself.
    Ended(End),
}

/// Why a client does not reconnect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// Another login of the same device has taken its place.
    Replaced,
    /// This device was logged out elsewhere, or the account was disabled.
    Revoked,
    /// The device has logged out itself.
    LoggedOut,
    /// The password or the token is wrong.
    WrongPassword,
    /// The server does not speak level 2.
    NoLevel2,
    /// The server does not understand this client, or reports a mistake of it.
    Refused(String),
    /// The data file belongs to another account.
    OtherAccount(String),
    /// The application has closed the client.
    Closed,
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            End::Replaced => "the same device has logged in elsewhere",
            End::Revoked => "this device was logged out elsewhere: log in again",
            End::LoggedOut => "logged out",
            End::WrongPassword => "the name or the password is wrong, or the login has expired: log in again",
            End::NoLevel2 => "the server does not speak level 2",
            End::Refused(why) => return write!(f, "the server refuses this client: {why}"),
            End::OtherAccount(name) => return write!(f, "the data file belongs to {name}: give another file"),
            End::Closed => "closed",
        })
    }
}

/// The events of one client.
///
/// The queue holds at most 1,024 events. An application that does not take them loses the newest
/// ones, and gets one [`Event::Missed`] instead. The queue does not grow, and the client does not
/// wait for the application.
#[derive(Clone, Default, Debug)]
pub struct Events(Arc<SharedQueue>);

#[derive(Default, Debug)]
struct SharedQueue {
    queue: Mutex<Queue>,
    filled: Condvar,
}

#[derive(Default, Debug)]
struct Queue {
    events: VecDeque<Event>,
    missed: bool,
}

/// The most events that wait.
const EVENTS_MAX: usize = 1024;

impl Events {
    /// The next event, if there is one.
    pub fn next_now(&self) -> Option<Event> {
        self.0.queue.lock().pop()
    }

    /// The next event; `None` if none comes in time.
    pub fn next_within(&self, patience: Duration) -> Option<Event> {
        let deadline = Instant::now() + patience;
        let mut queue = self.0.queue.lock();
        loop {
            if let Some(event) = queue.pop() {
                return Some(event);
            }
            if self.0.filled.wait_until(&mut queue, deadline).timed_out() {
                return queue.pop();
            }
        }
    }

    pub(crate) fn push(&self, event: Event) {
        let mut queue = self.0.queue.lock();
        // A repeated hint says no more than one.
        if queue.events.back() == Some(&event) {
            return;
        }
        if queue.missed || queue.events.len() >= EVENTS_MAX {
            queue.missed = true;
        } else {
            queue.events.push_back(event);
        }
        drop(queue);
        self.0.filled.notify_all();
    }
}

impl Queue {
    fn pop(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        if event.is_none() && std::mem::take(&mut self.missed) {
            return Some(Event::Missed);
        }
        event
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_says_that_events_are_lost() {
        let events = Events::default();
        for seq in 0..5_000 {
            events.push(Event::Message { conv: Conv::User(9), seq });
        }
        for seq in 0..EVENTS_MAX as u64 {
            assert_eq!(events.next_now(), Some(Event::Message { conv: Conv::User(9), seq }));
        }
        assert_eq!(events.next_now(), Some(Event::Missed));
        assert_eq!(events.next_now(), None);
        events.push(Event::State);
        events.push(Event::State);
        assert_eq!(events.next_within(Duration::from_secs(9)), Some(Event::State));
        assert_eq!(events.next_within(Duration::ZERO), None);
    }
}
