//! [`Opening`]: a stage of the beginning of a connection, before the application is shown anything
//! of it.
//!
//! A connection goes through a chain of openings. Each looks at the first bytes that were not
//! consumed, may wait for more, may answer, and hands over to the next in the end; what it did not
//! consume is the next one's. The last one says what the connection speaks from then on: its
//! framing and its transport.
//!
//! ```text
//!   Preface ──▶ PROXY header ──▶ nothing more ──▶ the connection is open
//! ```
//!
//! Today the PROXY header is the only opening. That a connection speaks HTTP or TLS is found by the
//! framing, because one that begins with frames must not wait. TLS, and a protocol inside of it,
//! will be openings.

use std::net::SocketAddr;

#[cfg(feature = "simulation")]
mod custom;

#[cfg(feature = "simulation")]
pub use custom::{Chain, CustomOpening, CustomStep, Speech};

use crate::framing::{FrameReader, FrameWriter};
use crate::proxy_header::{self, Beginning};
use crate::transport::Transport;

/// The required beginning of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Preface {
    /// Nothing: the first byte is the client's.
    None,
    /// The header of the PROXY protocol: the peer is a trusted proxy. It is refused without.
    ProxyHeader,
    /// Like `None`, but a PROXY header is refused. The peer is not trusted to name a client's
    /// address; a header from it most likely means a proxy that is missing among the trusted ones.
    NoProxyHeader,
    /// Openings of a test's own.
    #[cfg(feature = "simulation")]
    Custom(Chain),
}

/// A stage of the beginning.
#[derive(Debug)]
pub(crate) enum Opening {
    /// Nothing is left to be found out.
    Nothing,
    /// The header of the PROXY protocol must come.
    ProxyHeader,
    /// It must not.
    NoProxyHeader,
    #[cfg(feature = "simulation")]
    Custom(Box<dyn CustomOpening>),
}

/// The outcome of an opening's look at the bytes.
#[derive(Debug)]
pub(crate) struct Look {
    /// How many of them, at the front, are done with. The others are looked at again.
    pub(crate) consumed: usize,
    /// The bytes to write to the peer. A fresh socket takes them at once; one that does not is
    /// given up.
    pub(crate) answer: Vec<u8>,
    pub(crate) step: Step,
}

/// The next step for a connection after a look.
#[derive(Debug)]
pub(crate) enum Step {
    /// More bytes are needed.
    Wait,
    /// A proxy has told who its client is, or that it is the client itself. The next opening
    /// follows.
    Introduced(Option<SocketAddr>),
    /// The next opening follows.
    #[cfg(feature = "simulation")]
    Next(Opening),
    /// The connection is opened, and goes on like this.
    Open(Manner),
    /// It is closed, and the operator should know why.
    Refuse(&'static str),
    /// It is over before it began.
    Gone,
}

/// How a connection goes on after its beginning.
#[derive(Debug)]
pub(crate) struct Manner {
    /// JSON objects, if nothing else.
    pub(crate) framing: Option<(FrameReader, FrameWriter)>,
    pub(crate) transport: Transport,
    /// Bytes that the last opening has consumed and that belong to the connection.
    pub(crate) left: Vec<u8>,
}

impl Manner {
    /// JSON objects on a plain socket.
    pub(crate) fn plain() -> Manner {
        Manner { framing: None, transport: Transport::Plain, left: Vec::new() }
    }
}

impl Opening {
    /// The first opening of a connection that begins like this.
    pub(crate) fn first(preface: Preface) -> Opening {
        match preface {
            Preface::None => Opening::Nothing,
            Preface::ProxyHeader => Opening::ProxyHeader,
            Preface::NoProxyHeader => Opening::NoProxyHeader,
            #[cfg(feature = "simulation")]
            Preface::Custom(chain) => Opening::Custom((chain.0)()),
        }
    }

    /// Looks at all bytes that have arrived and were not consumed. `over` says that no more is
    /// waited for.
    pub(crate) fn look(&mut self, bytes: &[u8], over: bool) -> Look {
        let (step, consumed) = match self {
            Opening::Nothing => (Step::Open(Manner::plain()), 0),
            Opening::ProxyHeader => look_for_header(bytes, over),
            Opening::NoProxyHeader => (look_for_no_header(bytes, over), 0),
            #[cfg(feature = "simulation")]
            Opening::Custom(custom) => return custom.look(bytes, over).into(),
        };
        Look { consumed, answer: Vec::new(), step }
    }
}

#[cfg(feature = "simulation")]
impl From<CustomStep> for Look {
    fn from(step: CustomStep) -> Look {
        let (consumed, answer, step) = match step {
            CustomStep::Wait(consumed, answer) => (consumed, answer, Step::Wait),
            CustomStep::Next(consumed, answer, next) => (consumed, answer, Step::Next(Opening::Custom(next))),
            CustomStep::Open(consumed, answer, speech) => (consumed, answer, Step::Open(speech.into())),
            CustomStep::Refuse(reason) => (0, Vec::new(), Step::Refuse(reason)),
        };
        Look { consumed, answer, step }
    }
}

#[cfg(feature = "simulation")]
impl From<Speech> for Manner {
    fn from(Speech { framing, transport, left }: Speech) -> Manner {
        let halves = |(reader, writer)| (FrameReader::Custom(reader), FrameWriter::Custom(writer));
        Manner { framing: framing.map(halves), transport: transport.map_or(Transport::Plain, Transport::custom), left }
    }
}

fn look_for_header(bytes: &[u8], over: bool) -> (Step, usize) {
    match proxy_header::look(bytes) {
        Beginning::Header { len, client } => (Step::Introduced(client), len),
        Beginning::Incomplete if over => (Step::Refuse(HEADER_LATE), 0),
        Beginning::Incomplete => (Step::Wait, 0),
        Beginning::Other => (Step::Refuse(HEADER_MISSING), 0),
    }
}

fn look_for_no_header(bytes: &[u8], over: bool) -> Step {
    match proxy_header::resembles_header(bytes) {
        Some(true) => Step::Refuse(HEADER_UNTRUSTED),
        // A client that says nothing yet is a client like any other.
        None if !over => Step::Wait,
        Some(false) | None => Step::Open(Manner::plain()),
    }
}

const HEADER_MISSING: &str = "a trusted proxy (proxy_from) must begin with a PROXY header; have it send one (nginx: \
                              proxy_protocol on), or take its address out of proxy_from";
const HEADER_LATE: &str = "a trusted proxy (proxy_from) must begin with a PROXY header, and no whole one came within \
                           frame_timeout; have it send one (nginx: proxy_protocol on)";
const HEADER_UNTRUSTED: &str = "it begins with a PROXY header, which is not believed of this address; if it is a proxy \
                                of yours, add it to proxy_from";

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &[u8] = b"PROXY TCP4 203.0.113.7 10.0.0.1 51234 8003\r\n";

    #[test]
    fn a_trusted_proxy_must_send_a_header() {
        let look = |bytes, over| look_for_header(bytes, over);
        let client = "203.0.113.7:51234".parse().ok();
        assert!(
            matches!(look(HEADER, false), (Step::Introduced(found), len) if found == client && len == HEADER.len())
        );
        assert!(matches!(look(&HEADER[..9], false), (Step::Wait, 0)));
        assert!(matches!(look(b"", false), (Step::Wait, 0)));
        assert!(matches!(look(&HEADER[..9], true), (Step::Refuse(HEADER_LATE), 0)));
        assert!(matches!(look(b"{}", false), (Step::Refuse(HEADER_MISSING), 0)));
    }

    #[test]
    fn others_must_not() {
        assert!(matches!(look_for_no_header(HEADER, false), Step::Refuse(HEADER_UNTRUSTED)));
        assert!(matches!(look_for_no_header(&HEADER[..3], false), Step::Wait));
        assert!(matches!(look_for_no_header(&HEADER[..3], true), Step::Open(_)));
        assert!(matches!(look_for_no_header(b"", true), Step::Open(_)));
        assert!(matches!(look_for_no_header(b"{}", false), Step::Open(_)));
    }
}
