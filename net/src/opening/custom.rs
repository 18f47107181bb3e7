//! Openings of a test's own. Not part of a production build.

use std::fmt;

use crate::framing::{CustomReader, CustomWriter};
use crate::transport::CustomTransport;

/// Makes the first opening of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Chain(pub fn() -> Box<dyn CustomOpening>);

/// A stage at the beginning of a connection.
pub trait CustomOpening: fmt::Debug + Send {
    /// Looks at all bytes that have arrived and are not consumed. With `over`, no more bytes may be
    /// waited for.
    fn look(&mut self, bytes: &[u8], over: bool) -> CustomStep;
}

/// The outcome of a custom opening's look at the bytes.
#[derive(Debug)]
pub enum CustomStep {
    /// Consume this number of bytes, send this answer, and wait for more.
    Wait(usize, Vec<u8>),
    /// Like `Wait`, but this opening follows.
    Next(usize, Vec<u8>, Box<dyn CustomOpening>),
    /// Like `Wait`, but the connection is opened and continues with this framing and transport.
    Open(usize, Vec<u8>, Speech),
    /// The connection is closed for this reason.
    Refuse(&'static str),
}

/// The framing and the transport of a connection after its last opening.
#[derive(Default, Debug)]
pub struct Speech {
    /// The framing; `None` for JSON objects.
    pub framing: Option<(Box<dyn CustomReader>, Box<dyn CustomWriter>)>,
    /// The transport; `None` for a plain socket.
    pub transport: Option<Box<dyn CustomTransport>>,
    /// Bytes that were consumed and belong to the connection.
    pub left: Vec<u8>,
}

/// No two chains are equal.
impl PartialEq for Chain {
    fn eq(&self, _: &Chain) -> bool {
        false
    }
}

impl Eq for Chain {}
