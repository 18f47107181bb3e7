//! Openings of a test's own. Not part of a production build.

use std::fmt;

use crate::framing::{CustomReader, CustomWriter};
use crate::transport::CustomTransport;

/// Makes the first opening of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Chain(pub fn() -> Box<dyn CustomOpening>);

/// A stage of the beginning of a connection.
pub trait CustomOpening: fmt::Debug + Send {
    /// Looks at all bytes that have arrived and were not consumed. `over` says that no more is
    /// waited for.
    fn look(&mut self, bytes: &[u8], over: bool) -> CustomStep;
}

/// The outcome of such a stage's look at the bytes.
#[derive(Debug)]
pub enum CustomStep {
    /// Consume this number of bytes, send this answer, and wait for more.
    Wait(usize, Vec<u8>),
    /// The same, but this opening follows.
    Next(usize, Vec<u8>, Box<dyn CustomOpening>),
    /// The same, but the connection is opened and speaks this.
    Open(usize, Vec<u8>, Speech),
    /// The connection is closed for this reason.
    Refuse(&'static str),
}

/// The framing of a connection after its beginning.
#[derive(Default, Debug)]
pub struct Speech {
    /// JSON objects, if nothing else.
    pub framing: Option<(Box<dyn CustomReader>, Box<dyn CustomWriter>)>,
    /// A plain socket, if nothing else.
    pub transport: Option<Box<dyn CustomTransport>>,
    /// Bytes that were consumed and belong to the connection.
    pub left: Vec<u8>,
}

/// No two are the same.
impl PartialEq for Chain {
    fn eq(&self, _: &Chain) -> bool {
        false
    }
}

impl Eq for Chain {}
