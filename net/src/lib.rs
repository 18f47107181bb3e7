//! A reactor in the style of muduo, on mio: one event loop per thread, connections assigned
//! round-robin, frames in, frames out. The framing recognizes JSON objects by their braces; nothing
//! here knows the meaning of a frame.
//!
//! An [`Acceptor`] listens and hands sockets to a [`LoopGroup`]. A loop owns its connections: it
//! alone reads them and calls the application's [`Handler`] for them. Any thread writes to a
//! connection through its [`Link`].
//!
//! # Example
//!
//! An echo server with one loop, and a client that talks to it. `examples/echo.rs` is a whole
//! program.
//!
//! ```
//! # use std::{error::Error, io::{BufRead, BufReader, Write}, net::{SocketAddr, TcpStream}};
//! # use std::{sync::Arc, thread, time::Duration};
//! use net::{Acceptor, Fate, Flow, Handler, Incoming, Link, ListenSettings, LoopGroup, Preface, Settings, Turn};
//!
//! struct Echo;
//!
//! impl Handler for Echo {
//!     type Conn = ();
//!     type Arrival = ();
//!     type Message = ();
//!
//!     fn on_arrival(&mut self, _: &mut Turn<()>, _: SocketAddr, _: Preface) -> Result<(), &'static [u8]> {
//!         Ok(())
//!     }
//!
//!     fn on_open(&mut self, _: &mut Turn<()>, _: &Arc<Link<()>>, _: ()) {}
//!
//!     fn on_incoming(&mut self, turn: &mut Turn<()>, link: &Arc<Link<()>>, _: &mut (), incoming: Incoming<'_>) -> Flow {
//!         if let Incoming::Frame(frame) = incoming {
//!             // Fails only if the client has gone.
//!             let _ = link.send(turn, frame, Fate::Drop);
//!         }
//!         Flow::Taken
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn Error>> {
//! let settings = Settings {
//!     frame_bytes_max: 64 * 1024,
//!     frame_timeout: Duration::from_secs(10),
//!     idle_timeout: Duration::from_secs(600),
//!     output_bytes_max: 1024 * 1024,
//!     drain_timeout: Duration::from_secs(5),
//!     pace: None,
//! };
//! let listen = ListenSettings { backlog: 128, user_timeout: Duration::from_secs(30) };
//! let acceptor = Acceptor::bind("127.0.0.1:0".parse()?, listen)?;
//! let (address, stopper) = (acceptor.local_addr()?, acceptor.stopper());
//! let mut loops = LoopGroup::start(1, settings, |_| Echo)?;
//! thread::scope(|scope| -> std::io::Result<()> {
//!     scope.spawn(|| acceptor.run(|stream, peer| loops.assign(stream, peer, Preface::None)));
//!     let talk = || {
//!         let mut client = TcpStream::connect(address)?;
//!         client.write_all(b"{\"hello\":1}\n")?;
//!         let mut line = String::new();
//!         BufReader::new(client).read_line(&mut line)?;
//!         assert_eq!(line, "{\"hello\":1}\n");
//!         Ok(())
//!     };
//!     let talked = talk();
//!     stopper.stop();
//!     talked
//! })?;
//! loops.drain(u32::MAX, Duration::from_secs(5));
//! # Ok(())
//! # }
//! ```
//!
//! # One turn of a loop
//! 1. **poll**: waits for sockets, letters or the next deadline;
//! 2. **read**: reads from readable sockets, a slice of each, and shows complete frames to the
//!    handler. An item that the handler wants later stays where it is, and its socket is not read
//!    on: that is the backpressure;
//! 3. **inbox**: opens the letters of other threads: messages, hang-ups, new connections. All are
//!    taken together; what they cause waits for the next turn;
//! 4. **newcomers**: opens connections, or checks whether their preface has arrived; begins TLS
//!    with those that have said so;
//! 5. **timers**: second looks, idle connections, incomplete frames, closings that take too long;
//! 6. **flush**: removes dead connections, then writes once to every connection that was sent
//!    something in this turn.
//!
//! # Fair turns
//!
//! The step that reads has a budget of four milliseconds and 2 MiB of work; one share in it has
//! half a millisecond and 256 KiB, and each other step twice as much. A step exceeds its budget by
//! its last item at most. Work is counted in bytes of frames, plus 512 for each frame. The rest
//! waits for the next turn, which follows immediately. Waiting connections are served by share, see
//! [`Link::set_share`]: shares take turns, a slice each, and a share that begins to wait goes
//! first. So a client whose share was idle waits for the current turn, and for other shares that
//! began to wait at the same time, however many connections others have. One greedy share makes a
//! turn only as long as its part; only several busy shares make it longer. The effects of one frame
//! are not divided: a message to a group costs a write for each member.
//!
//! # Life of a connection
//!
//! A connection from a proxy begins earlier: it is opened when its [`Preface`] has named the
//! client.
//!
//! ```text
//!   open ──── end of input, too long a frame, idle, stop ────▶ draining ──▶ lingering ──▶ dead
//!     └────── broken, or hung up: its last frames are shown, then ─────────────────────────▲
//! ```
//! | step | meaning | call | its output |
//! |---|---|---|---|
//! | hang up | it is dead, or given up as a slow consumer | `on_hang_up` | sealed: no longer written, still accepts frames |
//! | end | its input has ended, and all of it was shown | `on_incoming` with `End` or `Stop` | as before |
//! | close | the end was taken: no more is shown | | written, within the drain timeout |
//! | finish | all is written: the sending side is shut down (FIN) | `on_close` | sealed |
//! | kill | it ends, finished or not | `on_close`, unless called before | sealed |
//! | bury | it is removed at the end of the turn | `on_unsent` for the rest | closed: refuses everything |
//!
//! Frames that a connection did not take are returned: see [`Fate`].
//!
//! # Layers of a connection
//! ```text
//!   socket ── openings: PROXY header ──▶ transport: plain, TLS ──▶ framing: JSON objects ──▶ Handler
//!   socket ◀──────────────────────────── records ◀──────────────── head, payload, tail ◀──── Link
//! ```
//! The openings end before the application is shown anything; the last one selects the transport
//! and the framing of the connection. A JSON connection that begins with HTTP is shown as HTTP, and
//! may become a WebSocket ([`HttpFlow::WebSocket`]). Transport and framing have a half that the
//! loop reads with, and a half that any thread writes with.
//!
//! # Why any thread writes
//!
//! A frame for a connection of another loop could be posted to that loop, but waking a thread costs
//! more than writing the frame. With the output under a leaf lock, the loop that read a frame
//! writes it, and the round trip of a message is one read and one write, as for a bare relay. The
//! loop also knows immediately whether the frame was accepted.
//!
//! # Which file may use which
//!
//! Each file may use those above it and, in its own line, those to its left; `tests/order.rs`
//! checks this. A folder counts as one unit: it may use what the file of the same name may use.
//!
//! ```text
//! the ground                      label slots timer budget rounds complaints readiness waiting stopping proxy_header framing tls
//! sockets                         tokens places socket transport opening
//! what is sent                    output buffer_pool turn
//! what any thread may reach       loop_handle side link
//! the contract                    handler stats
//! what one loop owns              connection showing closing arrivals
//! the loop                        service door event_loop
//! around the loops                acceptor loop_group simulation fuzzing
//! ```

#![warn(missing_docs)]

mod acceptor;
mod arrivals;
mod budget;
mod buffer_pool;
mod closing;
mod complaints;
mod connection;
mod door;

mod event_loop;
mod framing;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod handler;
mod label;
mod link;
mod loop_group;
mod loop_handle;
mod opening;
mod output;
mod places;
mod proxy_header;
mod readiness;
mod rounds;
mod service;
mod showing;
mod side;
#[cfg(feature = "simulation")]
pub mod simulation;
mod slots;
mod socket;
mod stats;
mod stopping;

mod timer;
mod tls;
mod tokens;
mod transport;
mod turn;
mod waiting;

pub use acceptor::{Acceptor, ListenSettings, Stopper};
pub use complaints::Complaints;
pub use framing::{Decoder, Foreign, HEAD_BYTES_MAX, HttpPart, Item, NESTING_MAX};
pub use handler::{CloseReason, Flow, Handler, HttpFlow, Incoming, Settings};
pub use label::Label;
pub use link::{Link, Refused, Turn};
pub use loop_group::LoopGroup;
pub use opening::Preface;
pub use output::{Fate, JOINED_BYTES_MAX, JOINED_MAX, Pace};
pub use places::Accepted;
pub use stats::{LoopStats, LoopWatch, TURN_BOUNDS, Tally, TurnTimes};
pub use tls::{Certificate, Handshakes, Tls, TlsError};
