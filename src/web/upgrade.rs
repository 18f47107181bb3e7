//! The handshake of a WebSocket (RFC 6455, 4.2).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use super::request::RequestHead;

/// The upgrade that a request asks for.
pub(super) enum Handshake {
    /// It is valid: the bytes of the answer.
    Accepted(Vec<u8>),
    /// It is not an upgrade to a WebSocket of version 13.
    NotAsked,
    /// It is invalid, for this reason.
    Wrong(&'static str),
}

/// Checks a request whose origin may have a WebSocket.
pub(super) fn look(request: &RequestHead<'_>) -> Handshake {
    if !request.is_modern || !request.lists("upgrade", "websocket") {
        return Handshake::NotAsked;
    }
    if !request.lists("connection", "upgrade") {
        return Handshake::Wrong("a WebSocket needs the header Connection: Upgrade\n");
    }
    if request.one("sec-websocket-version") != Some("13") {
        return Handshake::NotAsked;
    }
    let key = request.one("sec-websocket-key");
    let Some(key) = key.filter(|key| STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16)) else {
        return Handshake::Wrong("Sec-WebSocket-Key must be 16 bytes in base64\n");
    };
    // No protocol is chosen if the client does not offer the right one, and no extensions are.
    let protocol = match request.lists("sec-websocket-protocol", PROTOCOL) {
        true => "Sec-WebSocket-Protocol: raybox.2\r\n",
        false => "",
    };
    let accepted = accept(key);
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accepted}\r\n{protocol}\r\n"
    );
    Handshake::Accepted(answer.into_bytes())
}

fn accept(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
}

const PROTOCOL: &str = "raybox.2";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_header_is_that_of_the_rfc() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
