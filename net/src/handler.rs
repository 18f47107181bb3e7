//! [`Handler`]: the interface of the application behind a loop, and the types in it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::framing::{Foreign, HttpPart};
use crate::label::Label;
use crate::link::{Link, Turn};
use crate::opening::Preface;
use crate::output::Pace;
use crate::tls::Tls;

/// The application's side of its connections. The loop's thread calls every method, and none may
/// block.
///
/// Three methods have no default: a client is admitted or not, a connection opens, input arrives.
/// The others do nothing by default, which is right as long as the application does not use their
/// features: [`Link::post`], [`Fate::Report`](crate::Fate::Report),
/// [`Fate::Return`](crate::Fate::Return), [`Turn::remind`].
pub trait Handler {
    /// The application's data of one connection.
    type Conn;
    /// The application's data of a connection that is not open yet. It is dropped if the connection
    /// never opens.
    type Arrival;
    /// Messages that other threads post to a connection, see [`Link::post`].
    type Message: Send + 'static;

    /// The loop begins, on its own thread. If a loop's thread panics and the process continues,
    /// nobody serves that loop's connections. So the application may note here that a panic on this
    /// thread is to end the process.
    fn on_start(&mut self) {}

    /// The TLS of this port, if it has any. Asked once, before the loop begins. A connection that
    /// begins with TLS then speaks it, and its decrypted input is shown.
    fn tls(&self) -> Option<Arc<Tls>> {
        None
    }

    /// Whether an open connection may go on without TLS. Asked once, before its first input, if the
    /// port has TLS. Otherwise a client that begins without TLS is shown as [`Foreign::Plain`].
    fn may_be_plain(&self, link: &Arc<Link<Self::Message>>, conn: &Self::Conn) -> bool {
        let _ = (link, conn);
        true
    }

    /// Handles an accepted connection. The peer is the client, unless it is a proxy
    /// ([`Preface::ProxyHeader`]): then [`Handler::on_introduced`] follows when its header has
    /// arrived. Finally [`Handler::on_open`] follows, unless the kernel refuses to watch the
    /// connection.
    ///
    /// # Errors
    ///
    /// The text for a refused client. The text is sent as far as a fresh socket takes it, and the
    /// connection is closed immediately, without further calls.
    fn on_arrival(
        &mut self,
        turn: &mut Turn<Self::Message>,
        peer: SocketAddr,
        preface: Preface,
    ) -> Result<Self::Arrival, &'static [u8]>;

    /// Handles a connection whose proxy has named its client.
    ///
    /// # Errors
    ///
    /// The text for a refused client, as in [`Handler::on_arrival`].
    fn on_introduced(
        &mut self,
        turn: &mut Turn<Self::Message>,
        arrival: Self::Arrival,
        client: SocketAddr,
    ) -> Result<Self::Arrival, &'static [u8]> {
        let _ = (turn, client);
        Ok(arrival)
    }

    /// A connection has opened.
    fn on_open(
        &mut self,
        turn: &mut Turn<Self::Message>,
        link: &Arc<Link<Self::Message>>,
        arrival: Self::Arrival,
    ) -> Self::Conn;

    /// Input has arrived from the client. An item that is answered with [`Flow::Later`] is shown
    /// again after the next [`Handler::on_message`], [`Handler::on_sent`] or
    /// [`Handler::on_hang_up`] of this connection; until then the connection is not read, and does
    /// not count as idle.
    fn on_incoming(
        &mut self,
        turn: &mut Turn<Self::Message>,
        link: &Arc<Link<Self::Message>>,
        conn: &mut Self::Conn,
        incoming: Incoming<'_>,
    ) -> Flow;

    /// A part of an HTTP request has arrived; the connection began with one. Bytes that are sent
    /// now are written as they are. A part that is answered with [`HttpFlow::Later`] is shown again
    /// as in [`Handler::on_incoming`]. The end of the input is shown there, too.
    fn on_http(
        &mut self,
        turn: &mut Turn<Self::Message>,
        link: &Arc<Link<Self::Message>>,
        conn: &mut Self::Conn,
        part: HttpPart<'_>,
    ) -> HttpFlow {
        let _ = (turn, link, conn, part);
        HttpFlow::Last
    }

    /// Whether the application itself ends this connection when its client is silent. Asked when
    /// nothing has arrived for the idle timeout; if so, the connection stays.
    fn watches_silence(&self, conn: &Self::Conn) -> bool {
        let _ = conn;
        false
    }

    /// A frame sent with [`Fate::Report`](crate::Fate::Report) has arrived: the peer's kernel has
    /// acknowledged it. This is called while the connection is open; an application that needs it
    /// answers [`Incoming::End`] with [`Flow::Later`] until then.
    fn on_sent(
        &mut self,
        turn: &mut Turn<Self::Message>,
        link: &Arc<Link<Self::Message>>,
        conn: &mut Self::Conn,
        label: u32,
    ) {
        let _ = (turn, link, conn, label);
    }

    /// Reports the bytes of memory that hold input which was not taken: the beginning of a frame,
    /// or an item answered with [`Flow::Later`]. Called each time the connection is served, so it
    /// should cost nothing if nothing has changed; a closed connection holds nothing. `false` means
    /// that the input is too much: it is dropped, nothing more is read, and [`Incoming::Crowded`]
    /// is shown.
    fn on_kept(&mut self, conn: &mut Self::Conn, bytes: usize) -> bool {
        let _ = (conn, bytes);
        true
    }

    /// Handles a message that another thread has posted.
    fn on_message(
        &mut self,
        turn: &mut Turn<Self::Message>,
        link: &Arc<Link<Self::Message>>,
        conn: &mut Self::Conn,
        message: Self::Message,
    ) {
        let _ = (turn, link, conn, message);
    }

    /// Handles the end of the time of a [`Turn::remind`]. `heard`: the time at which bytes last
    /// arrived from the client, of any kind; now if the client is not being read, because some may
    /// have arrived.
    fn on_reminder(
        &mut self,
        turn: &mut Turn<Self::Message>,
        link: &Arc<Link<Self::Message>>,
        conn: &mut Self::Conn,
        heard: Instant,
    ) {
        let _ = (turn, link, conn, heard);
    }

    /// The connection is dead or was hung up: nothing sent to it will arrive. Earlier input is
    /// still shown, then [`Incoming::End`]. Called at most once.
    fn on_hang_up(&mut self, turn: &mut Turn<Self::Message>, link: &Arc<Link<Self::Message>>, conn: &mut Self::Conn) {
        let _ = (turn, link, conn);
    }

    /// The connection is closing, and no more of it will be shown. Everything sent to it is
    /// written, or could not be written in time; the application can still take the rest with
    /// [`Link::take_back`].
    fn on_close(
        &mut self,
        turn: &mut Turn<Self::Message>,
        link: &Arc<Link<Self::Message>>,
        conn: Self::Conn,
        reason: CloseReason,
    ) {
        let _ = (turn, link, conn, reason);
    }

    /// A frame sent with [`Fate::Return`](crate::Fate::Return) could not be written before the
    /// connection ended, and was not taken with [`Link::take_back`].
    fn on_unsent(&mut self, turn: &mut Turn<Self::Message>, label: Label, frame: Box<[u8]>) {
        let _ = (turn, label, frame);
    }

    /// Handles a message for a connection that is closing or closed.
    fn on_stray(&mut self, turn: &mut Turn<Self::Message>, message: Self::Message) {
        let _ = (turn, message);
    }
}

/// Input from a client, in the order of its arrival.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Incoming<'a> {
    /// One JSON object by its braces, at most `frame_bytes_max` long; it was not validated.
    Frame(&'a [u8]),
    /// A run of bytes that is not a frame, or a frame that did not complete in time; `len` includes
    /// the blanks before it.
    Garbage {
        /// The number of bytes.
        len: usize,
    },
    /// Bytes that need no answer: blanks between frames, line ends, garbage that continues. They
    /// are shown only when there are many, so a few between frames cost no additional calls.
    Blanks {
        /// The number of bytes.
        len: usize,
    },
    /// The connection begins with another protocol, and its input is not shown. When this is taken,
    /// the connection is closed after its output was written.
    Foreign(Foreign),
    /// A frame that is too long. When this is taken, the connection is closed after its output was
    /// written.
    Oversize,
    /// The client has closed its side, has gone or was idle for too long. When this is taken, the
    /// connection is closed likewise.
    End,
    /// The server shuts down. When this is taken, the connection is closed likewise.
    Stop,
    /// There is no memory for the client's incomplete input, see [`Handler::on_kept`]. When this is
    /// taken, the connection is closed likewise.
    Crowded,
}

/// The application's answer to an item.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flow {
    /// The item was processed: show the next one.
    Taken,
    /// Not now: show the item again after the next call for this connection, see
    /// [`Handler::on_incoming`].
    Later,
    /// The item was processed, and it is the last: the connection is closed after its output was
    /// written.
    Last,
}

/// The application's answer to a part of an HTTP request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HttpFlow {
    /// The request was answered, and another one may follow.
    Next,
    /// The body of the request follows, of this length.
    Body(usize),
    /// Not now: show the part again after the next call for this connection.
    Later,
    /// The request was answered with the upgrade to a WebSocket. From now on each message is a
    /// frame, in both directions.
    WebSocket,
    /// The request was answered, and is the last: the connection is closed after its output was
    /// written. Bytes that the client still sends are dropped.
    Last,
}

/// Why a connection closes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloseReason {
    /// The client has closed its side.
    Ended,
    /// The connection broke, or was hung up.
    Broken,
    /// The client sent a frame that is too long.
    Oversize,
    /// The client spoke an unsupported protocol.
    Foreign,
    /// The client spoke HTTP, and was answered ([`HttpFlow::Last`]).
    Answered,
    /// The client broke the rules of its WebSocket.
    Violation,
    /// Nothing has arrived from the client for the idle timeout.
    Idle,
    /// The server shuts down.
    Stopped,
    /// The application has closed the connection ([`Flow::Last`]).
    Excess,
    /// The connection had to make room for another one ([`Turn::turn_away`]), or there was no
    /// memory for its input ([`Incoming::Crowded`]).
    TurnedAway,
}

impl CloseReason {
    /// Whether the client has ended the input. Otherwise more input may exist, which is not read.
    pub(crate) fn is_of_client(self) -> bool {
        !matches!(self, CloseReason::Stopped | CloseReason::TurnedAway | CloseReason::Foreign)
    }

    /// All reasons.
    pub const ALL: [CloseReason; 10] = [
        CloseReason::Ended,
        CloseReason::Broken,
        CloseReason::Oversize,
        CloseReason::Foreign,
        CloseReason::Answered,
        CloseReason::Violation,
        CloseReason::Idle,
        CloseReason::Stopped,
        CloseReason::Excess,
        CloseReason::TurnedAway,
    ];
}

/// Limits and times of a loop.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The longest frame in bytes, braces included.
    pub frame_bytes_max: usize,
    /// The time within which a started frame must complete, and a [`Preface`] arrive.
    pub frame_timeout: Duration,
    /// The time for which a client may send nothing, see also [`Handler::watches_silence`].
    pub idle_timeout: Duration,
    /// The high-water mark: a client with more bytes than this waiting for it is a slow consumer.
    pub output_bytes_max: usize,
    /// The time within which a closing connection must write its output.
    pub drain_timeout: Duration,
    /// The pace for clients that do not read lines, if any.
    pub pace: Option<Pace>,
}
