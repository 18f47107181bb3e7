//! [`Preface`]: what a connection has to begin with.

/// What a connection has to begin with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Preface {
    /// Nothing: the first byte is the client's.
    None,
    /// The header of the PROXY protocol: the peer is a trusted proxy. It is refused without.
    ProxyHeader,
    /// The same as nothing, except that the header of the PROXY protocol is refused: the peer is not trusted to name
    /// another address than its own, and what it says is no garbage from a client but a proxy that should have been.
    NoProxyHeader,
}
