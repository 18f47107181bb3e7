//! HTTP on the port for clients: the web client's files, the upgrade to a WebSocket, and the form
//! of a POST of a message. The reactor finds the requests. Only the server calls this folder: its
//! shell asks for the answer to a request, and sends it.
//!
//! - `request` reads a head.
//! - [`site`] decides about it: a file, an upgrade, a message, or an error.
//! - `files` are the web client's, compiled in.
//! - `upgrade` checks the handshake of a WebSocket, [`post`] a message without a connection.
//! - [`answer`] composes answers.
//!
//! No request changes anything without a token in a header, or a login inside a WebSocket: a page
//! of another site can make a browser send any request.

pub mod answer;
mod files;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub mod post;
mod request;
pub mod site;
mod upgrade;

/// Whether browsers refuse this port, because it belonged to another protocol.
pub fn is_refused_by_browsers(port: u16) -> bool {
    REFUSED_PORTS.contains(&port)
}

/// The ports of the Fetch standard's "port blocking" (fetch.spec.whatwg.org) that need no
/// privilege.
const REFUSED_PORTS: [u16; 19] =
    [1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_of_the_reference_server_is_not_a_port_of_web_pages() {
        assert_eq!([6000, 6666, 8080, 8003, 443].map(is_refused_by_browsers), [true, true, false, false, false]);
    }
}
