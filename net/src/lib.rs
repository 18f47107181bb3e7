//! A reactor in muduo's manner, on mio: one event loop a thread, connections dealt out round-robin, frames in, frames
//! out. Its framing knows that a frame is a JSON object by its braces; nothing here knows what a frame means.
//!
//! An [`Acceptor`] listens and hands sockets to a [`LoopGroup`]. A loop owns its connections: it alone reads them and
//! calls the application's [`Handler`] for them. Any thread writes to a connection through its [`Link`].
//!
//! # One turn of a loop
//! 1. **poll**: wait for sockets, letters or the next deadline;
//! 2. **read**: from readable sockets, a slice of each, showing whole frames to the handler. What the handler wants later
//!    stays where it is, and the socket is not read on: that is the backpressure;
//! 3. **inbox**: open the letters of other threads: messages, hang-ups, new connections. All are taken at once; what they
//!    cause waits for the next turn;
//! 4. **newcomers**: open connections, or look whether their preface has come;
//! 5. **timers**: second looks, idle connections, frames that do not complete, closings that do not end;
//! 6. **flush**: remove the dead, then write once to every connection that was sent something in this turn.
//!
//! # Nobody has a turn for himself
//! The step that reads has a budget of four milliseconds and 2 MiB of work, one share in it half a
//! millisecond and 256 KiB, and each other step as much as one share: at most, but for the item that it is
//! at. Work is counted in bytes of frames, and 512 for each frame. Whatever is left waits for the next turn,
//! which follows at once. Connections that wait are served by share, see [`Link::set_share`]: shares take
//! turns, a slice each, and one that begins to wait goes first. So a client whose share was idle waits for
//! the turn that is going on, and for other shares that began to wait at the same time, however many
//! connections others have. One greedy share makes a turn as long as its part; only as many shares as are
//! busy at once make it longer. What one frame causes is not divided: a message to a group costs a write for
//! each member.
//!
//! # Life of a connection
//! A connection from a proxy begins before that: it is opened when its [`Preface`] has told who the client is.
//!
//! ```text
//!   open ──── end of input, too long a frame, idle, stop ────▶ draining ──▶ lingering ──▶ dead
//!     └────── broken, or hung up: its last frames are shown, then ─────────────────────────▲
//! ```
//! | step | in words | the application hears | its output |
//! |---|---|---|---|
//! | hang up | it is dead, or given up as a slow consumer | `on_hang_up` | sealed: written no more, still accepting |
//! | end | its input is over, and all of it shown | `on_incoming` with `End` or `Stop` | as before |
//! | close | that was taken: nothing more is shown | | written, within the drain timeout |
//! | finish | all is written: the peer is told (FIN) | `on_close` | sealed |
//! | kill | it is over, finished or not | `on_close`, unless it did | sealed |
//! | bury | it is removed at the end of the turn | `on_unsent` for what is left | closed: refuses everything |
//!
//! Frames that a connection did not take are given back: see [`Fate`].
//!
//! # Why any thread writes
//! A frame for a connection of another loop could be posted to that loop; but waking a thread costs more than writing the
//! frame. With the output under a leaf lock the loop that read a frame writes it, and the round trip of a message is one
//! read and one write, as for a bare relay. It also knows at once whether the frame was taken.
//!
//! # Which file may use which
//! Each file may use those above it, and of its own line those to its left; `tests/order.rs` sees to it. A folder is one
//! thing: it may use what the file of its name may.
//!
//! ```text
//! the ground                      slots timer budget rounds complaints event waiting stopping proxy_header framing
//! sockets                         tokens places socket transport opening
//! what is sent                    output buffer_pool turn
//! what any thread may reach       loop_handle side link
//! the contract                    handler stats
//! what one loop owns              connection showing closing arrivals
//! the loop                        service door event_loop
//! around the loops                acceptor loop_group simulation fuzzing
//! ```

mod acceptor;
mod arrivals;
mod budget;
mod buffer_pool;
mod closing;
mod complaints;
mod connection;
mod door;
mod event;
mod event_loop;
mod framing;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod handler;
mod link;
mod loop_group;
mod loop_handle;
mod opening;
mod output;
mod places;
mod proxy_header;
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
mod tokens;
mod transport;
mod turn;
mod waiting;

pub use acceptor::{Acceptor, ListenSettings, Stopper};
pub use complaints::Complaints;
pub use framing::{Decoder, Foreign, Item, NESTING_MAX};
pub use handler::{CloseReason, Flow, Handler, Incoming, Settings};
pub use link::{Link, Refused, Turn};
pub use loop_group::LoopGroup;
pub use opening::Preface;
pub use output::{Fate, JOINED_BYTES_MAX, JOINED_MAX, Pace};
pub use places::Accepted;
pub use stats::{LoopStats, LoopWatch, TURN_BOUNDS, Tally, TurnTimes};
