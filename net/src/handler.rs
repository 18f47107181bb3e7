//! [`Handler`]: what the application behind a loop is called for, and the words that both use.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::framing::Foreign;
use crate::link::{Link, Turn};
use crate::opening::Preface;
use crate::output::Pace;

/// What an application does with its connections. Every method is called by the loop's thread and must not block.
///
/// Three methods have no default: a client is let in or not, a connection opens, something comes from it. The others
/// do nothing by default, which is right as long as the application does not use what they belong to:
/// [`Link::post`], [`Fate::Report`](crate::Fate::Report), [`Fate::Return`](crate::Fate::Return), [`Turn::remind`].
pub trait Handler {
    /// What the application knows of one connection.
    type Conn;
    /// What the application knows of a connection that is not open yet. It is dropped when the connection never will be.
    type Arrival;
    /// What other threads post to a connection, see [`Link::post`].
    type Message: Send + 'static;

    /// A connection has come. The peer is the client, unless it is a proxy ([`Preface::ProxyHeader`]): then
    /// [`Handler::on_introduced`] follows when its header has come, if it comes. At the end [`Handler::on_open`] follows,
    /// unless the kernel will not watch the connection.
    ///
    /// # Errors
    /// The client is turned away: it is sent this text, as far as a fresh socket takes it, and closed at once, and nothing more
    /// is heard of it.
    fn on_arrival(
        &mut self,
        turn: &mut Turn<Self::Message>,
        peer: SocketAddr,
        preface: Preface,
    ) -> Result<Self::Arrival, &'static [u8]>;

    /// A proxy has told who its client is.
    ///
    /// # Errors
    /// The client is turned away, as by [`Handler::on_arrival`].
    fn on_introduced(
        &mut self,
        turn: &mut Turn<Self::Message>,
        arrival: Self::Arrival,
        client: SocketAddr,
    ) -> Result<Self::Arrival, &'static [u8]> {
        let _ = (turn, client);
        Ok(arrival)
    }

    /// A client has connected.
    fn on_open(
        &mut self,
        turn: &mut Turn<Self::Message>,
        link: &Arc<Link<Self::Message>>,
        arrival: Self::Arrival,
    ) -> Self::Conn;

    /// Something came from the client. What is answered with [`Flow::Later`] is shown again after the next
    /// [`Handler::on_message`], [`Handler::on_sent`] or [`Handler::on_hang_up`] of this connection; until then the
    /// connection is not read, and does not count as idle.
    fn on_incoming(
        &mut self,
        turn: &mut Turn<Self::Message>,
        link: &Arc<Link<Self::Message>>,
        conn: &mut Self::Conn,
        incoming: Incoming<'_>,
    ) -> Flow;

    /// A frame sent with [`Fate::Report`](crate::Fate::Report) has arrived: the peer's kernel has acknowledged it. It comes
    /// while the connection is open: who must know holds [`Incoming::End`] until then.
    fn on_sent(
        &mut self,
        turn: &mut Turn<Self::Message>,
        link: &Arc<Link<Self::Message>>,
        conn: &mut Self::Conn,
        label: u32,
    ) {
        let _ = (turn, link, conn, label);
    }

    /// So many bytes of memory hold what came from the client and was not taken: the beginning of a frame, or what was answered
    /// with [`Flow::Later`]. Called after each look at the connection, so it should cost nothing when nothing has changed; a
    /// closed connection holds nothing. `false` says that it is too much: it is dropped, nothing more is read, and
    /// [`Incoming::Crowded`] is shown.
    fn on_kept(&mut self, conn: &mut Self::Conn, bytes: usize) -> bool {
        let _ = (conn, bytes);
        true
    }

    /// Another thread has posted this.
    fn on_message(
        &mut self,
        turn: &mut Turn<Self::Message>,
        link: &Arc<Link<Self::Message>>,
        conn: &mut Self::Conn,
        message: Self::Message,
    ) {
        let _ = (turn, link, conn, message);
    }

    /// The time of a [`Turn::remind`] has come.
    fn on_reminder(&mut self, turn: &mut Turn<Self::Message>, link: &Arc<Link<Self::Message>>, conn: &mut Self::Conn) {
        let _ = (turn, link, conn);
    }

    /// The connection is dead or was hung up: nothing sent to it will arrive. What it sent before is still shown, then
    /// [`Incoming::End`]. Called at most once.
    fn on_hang_up(&mut self, turn: &mut Turn<Self::Message>, link: &Arc<Link<Self::Message>>, conn: &mut Self::Conn) {
        let _ = (turn, link, conn);
    }

    /// The connection is closing, and nothing more will be shown of it. All that was sent to it is written, or it could
    /// not be in time; what it did not take can still be asked for by [`Link::take_back`].
    fn on_close(
        &mut self,
        turn: &mut Turn<Self::Message>,
        link: &Arc<Link<Self::Message>>,
        conn: Self::Conn,
        reason: CloseReason,
    ) {
        let _ = (turn, link, conn, reason);
    }

    /// A frame that was sent with [`Fate::Return`](crate::Fate::Return) could not be written before the connection
    /// ended, and was not asked for by [`Link::take_back`].
    fn on_unsent(&mut self, turn: &mut Turn<Self::Message>, label: u32, frame: Box<[u8]>) {
        let _ = (turn, label, frame);
    }

    /// A message for a connection that is closing or gone.
    fn on_stray(&mut self, turn: &mut Turn<Self::Message>, message: Self::Message) {
        let _ = (turn, message);
    }
}

/// What came from a client, in the order in which it came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Incoming<'a> {
    /// One JSON object by its braces, at most `frame_bytes_max` long; whether it is good JSON was not looked at.
    Frame(&'a [u8]),
    /// A run of bytes that is no frame, or a frame that did not complete in time; so many bytes with the blanks before it.
    Garbage { len: usize },
    /// So many bytes that ask for no answer: blanks between frames, line ends, garbage that goes on. They are shown when there
    /// are many, so that frames with a few between them cost no more calls.
    Blanks { len: usize },
    /// The client speaks another protocol: it has begun with this, of which nothing was shown and nothing will be. When this is
    /// taken, the connection is closed after what was sent has been written.
    Foreign(Foreign),
    /// A frame that is too long. When this is taken, the connection is closed after what was sent has been written.
    Oversize,
    /// The client has closed its side, is gone or is idle for too long. When this is taken, the connection is closed
    /// likewise.
    End,
    /// The server stops. When this is taken, the connection is closed likewise.
    Stop,
    /// There is no memory for what it has begun to send, see [`Handler::on_kept`]. When this is taken, the connection is closed
    /// likewise.
    Crowded,
}

/// What to do after something was shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flow {
    /// It was dealt with: show the next.
    Taken,
    /// Not now: show it again after the next call for this connection, see [`Handler::on_incoming`].
    Later,
    /// It was dealt with, and enough is enough: the connection is closed after what was sent has been written.
    Last,
}

/// Why a connection closes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloseReason {
    /// The client has closed its side.
    Ended,
    /// It broke, or was hung up.
    Broken,
    /// It sent a frame that is too long.
    Oversize,
    /// It spoke another protocol.
    Foreign,
    /// Nothing came from it for the idle timeout.
    Idle,
    /// The server stops.
    Stopped,
    /// The application had enough of it ([`Flow::Last`]).
    Excess,
    /// It had to make room: for another connection ([`Turn::turn_away`]), or there was no memory for what it sent
    /// ([`Incoming::Crowded`]).
    TurnedAway,
}

impl CloseReason {
    /// All of them.
    pub const ALL: [CloseReason; 8] = [
        CloseReason::Ended,
        CloseReason::Broken,
        CloseReason::Oversize,
        CloseReason::Foreign,
        CloseReason::Idle,
        CloseReason::Stopped,
        CloseReason::Excess,
        CloseReason::TurnedAway,
    ];
}

/// Bounds and times of a loop.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Longest frame in bytes, braces included.
    pub frame_bytes_max: usize,
    /// How long a started frame may take to complete, and a [`Preface`] to come.
    pub frame_timeout: Duration,
    /// How long a client may send nothing.
    pub idle_timeout: Duration,
    /// The high-water mark: bytes waiting for one client beyond which it counts as a slow consumer.
    pub output_bytes_max: usize,
    /// How long a closing connection may take to write what it was sent.
    pub drain_timeout: Duration,
    /// How clients that do not read lines are written to, if not at once.
    pub pace: Option<Pace>,
}
