//! [`Opening`]: a stage at the beginning of a connection. The application sees the connection only
//! after its last opening.
//!
//! A connection goes through a chain of openings. Each looks at the bytes that no earlier one has
//! consumed. It may wait for more bytes and may answer; in the end it hands the rest over to the
//! next opening. The last opening selects the framing and the transport of the connection.
//!
//! ```text
//!   Preface ──▶ PROXY header ──▶ no further opening ──▶ the connection is open
//! ```
//!
//! Today the PROXY header is the only opening. The framing recognises HTTP and the transport
//! recognises TLS, because a connection that begins with frames must not wait.

use std::net::SocketAddr;

#[cfg(feature = "simulation")]
mod custom;

#[cfg(feature = "simulation")]
pub use custom::{Chain, CustomOpening, CustomStep, Speech};

use crate::framing::{FrameReader, FrameWriter};
use crate::proxy_header::{self, DetectedProxyHeader};
use crate::transport::Transport;

/// The required beginning of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Preface {
    /// Nothing is required: the first byte comes from the client.
    None,
    /// The header of the PROXY protocol, because the peer is a trusted proxy. A connection without
    /// a header is refused.
    ProxyHeader,
    /// Like `None`, but a PROXY header is refused, because the peer is not trusted to name a
    /// client's address. A header from it most likely means that the list of trusted proxies lacks
    /// one.
    NoProxyHeader,
    /// Openings of a test's own.
    #[cfg(feature = "simulation")]
    Custom(Chain),
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) enum Opening {
    /// No further stage: the connection is opened.
    Nothing,
    /// The header of the PROXY protocol must come.
    ProxyHeader,
    /// The header of the PROXY protocol must not come.
    NoProxyHeader,
    #[cfg(feature = "simulation")]
    Custom(Box<dyn CustomOpening>),
}

/// The outcome of an opening's look at the bytes.
#[derive(Debug)]
pub(crate) struct Look {
    /// The number of bytes at the front that are consumed. The next look begins after them.
    pub(crate) consumed: usize,
    /// The bytes to write to the peer. A fresh socket takes them at once; if it does not, the
    /// connection is given up.
    pub(crate) answer: Vec<u8>,
    pub(crate) step: OpeningStep,
}

/// The next step for a connection after a look.
#[derive(Debug)]
pub(crate) enum OpeningStep {
    /// More bytes are needed.
    Wait,
    /// A proxy has named its client, or `None` because it is the client itself. The next opening
    /// follows.
    Introduced(Option<SocketAddr>),
    /// The next opening follows.
    #[cfg(feature = "simulation")]
    Next(Opening),
    /// The connection is opened, with this framing and transport.
    Open(Manner),
    /// The connection is closed, and the reason is logged for the operator.
    Refuse(&'static str),
    /// The connection ended before it was opened.
    Gone,
}

/// The framing and the transport of a connection after its last opening.
#[derive(Debug)]
pub(crate) struct Manner {
    /// The framing; `None` for JSON objects.
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
    /// The first opening of a connection with this preface.
    pub(crate) fn first(preface: Preface) -> Opening {
        match preface {
            Preface::None => Opening::Nothing,
            Preface::ProxyHeader => Opening::ProxyHeader,
            Preface::NoProxyHeader => Opening::NoProxyHeader,
            #[cfg(feature = "simulation")]
            Preface::Custom(chain) => Opening::Custom((chain.0)()),
        }
    }

    /// Looks at all bytes that have arrived and are not consumed. With `over`, no more bytes may be
    /// waited for.
    pub(crate) fn look(&mut self, bytes: &[u8], over: bool) -> Look {
        let (step, consumed) = match self {
            Opening::Nothing => (OpeningStep::Open(Manner::plain()), 0),
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
            CustomStep::Wait(consumed, answer) => (consumed, answer, OpeningStep::Wait),
            CustomStep::Next(consumed, answer, next) => (consumed, answer, OpeningStep::Next(Opening::Custom(next))),
            CustomStep::Open(consumed, answer, speech) => (consumed, answer, OpeningStep::Open(speech.into())),
            CustomStep::Refuse(reason) => (0, Vec::new(), OpeningStep::Refuse(reason)),
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

fn look_for_header(bytes: &[u8], over: bool) -> (OpeningStep, usize) {
    match proxy_header::look(bytes) {
        DetectedProxyHeader::Header { len, client } => (OpeningStep::Introduced(client), len),
        DetectedProxyHeader::Incomplete if over => (OpeningStep::Refuse(HEADER_LATE), 0),
        DetectedProxyHeader::Incomplete => (OpeningStep::Wait, 0),
        DetectedProxyHeader::Other => (OpeningStep::Refuse(HEADER_MISSING), 0),
    }
}

fn look_for_no_header(bytes: &[u8], over: bool) -> OpeningStep {
    match proxy_header::resembles_header(bytes) {
        Some(true) => OpeningStep::Refuse(HEADER_UNTRUSTED),
        // A client that has sent too little to tell is admitted only when the wait is over.
        None if !over => OpeningStep::Wait,
        Some(false) | None => OpeningStep::Open(Manner::plain()),
    }
}

const HEADER_MISSING: &str = "a trusted proxy (proxy_from) must begin with a PROXY header; have it send one (nginx: \
                              proxy_protocol on), or take its address out of proxy_from";
const HEADER_LATE: &str = "a trusted proxy (proxy_from) must begin with a PROXY header, and no whole one came within \
                           frame_timeout; have it send one (nginx: proxy_protocol on)";
const HEADER_UNTRUSTED: &str = "it begins with a PROXY header, which is not accepted from this address; if it is a proxy \
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
            matches!(look(HEADER, false), (OpeningStep::Introduced(found), len) if found == client && len == HEADER.len())
        );
        assert!(matches!(look(&HEADER[..9], false), (OpeningStep::Wait, 0)));
        assert!(matches!(look(b"", false), (OpeningStep::Wait, 0)));
        assert!(matches!(look(&HEADER[..9], true), (OpeningStep::Refuse(HEADER_LATE), 0)));
        assert!(matches!(look(b"{}", false), (OpeningStep::Refuse(HEADER_MISSING), 0)));
    }

    #[test]
    fn other_clients_must_not_send_a_header() {
        assert!(matches!(look_for_no_header(HEADER, false), OpeningStep::Refuse(HEADER_UNTRUSTED)));
        assert!(matches!(look_for_no_header(&HEADER[..3], false), OpeningStep::Wait));
        assert!(matches!(look_for_no_header(&HEADER[..3], true), OpeningStep::Open(_)));
        assert!(matches!(look_for_no_header(b"", true), OpeningStep::Open(_)));
        assert!(matches!(look_for_no_header(b"{}", false), OpeningStep::Open(_)));
    }
}
