//! [`WebSettings`]: decides the response to a request.

use super::answer::{Composer, WebAnswer};
use super::files;
use super::post::{self, Post};
use super::request::{HttpError, Persistence, RequestHead};
use super::upgrade::{self, Handshake};
use crate::config::{Config, Hosts, Origins, WebOrigin};

/// The settings of HTTP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WebSettings {
    serves_files: bool,
    origins: Origins,
    hosts: Hosts,
}

/// The response to a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Response {
    /// This answer.
    Answer(WebAnswer),
    /// A WebSocket, after these bytes.
    WebSocket(Vec<u8>),
    /// Its body is a message.
    Post(Post),
}

impl WebSettings {
    /// The settings of HTTP from these settings.
    pub fn new(config: &Config) -> WebSettings {
        WebSettings { serves_files: config.web, origins: config.ws_origins.clone(), hosts: config.http_hosts.clone() }
    }

    /// Decides about a request by its head, without its body.
    pub fn respond(&self, head: &[u8]) -> Response {
        let request = match RequestHead::read(head) {
            Ok(request) => request,
            Err(error) => return Response::Answer(WebAnswer::error(error)),
        };
        if !self.hosts.allow(request.host.as_ref()) {
            return Response::Answer(WebAnswer::error(MISDIRECTED));
        }
        match request.path {
            SOCKET => self.socket(&request),
            SEND => self.send(&request),
            path if self.serves_files && files::is_there(path) => Response::Answer(match request.method {
                "GET" | "HEAD" => files::answer(&request).unwrap_or_else(|| files::none(&request)),
                _ => files::not_allowed("GET, HEAD"),
            }),
            _ => Response::Answer(files::none(&request)),
        }
    }

    fn socket(&self, request: &RequestHead<'_>) -> Response {
        if request.method != "GET" {
            return Response::Answer(files::not_allowed("GET"));
        }
        if !self.is_from_here(request) {
            return Response::Answer(WebAnswer::error(FOREIGN));
        }
        match upgrade::look(request) {
            Handshake::Accepted(bytes) => Response::WebSocket(bytes),
            Handshake::Wrong(text) => Response::Answer(WebAnswer::error(HttpError { status: 400, text })),
            Handshake::NotAsked => {
                let composer = Composer::new(426, Persistence::Closes).header("Upgrade", "websocket");
                let composer = composer.header("Connection", "Upgrade").header("Sec-WebSocket-Version", 13);
                Response::Answer(composer.text("ask for a WebSocket of version 13 (RFC 6455)\n", true))
            }
        }
    }

    fn send(&self, request: &RequestHead<'_>) -> Response {
        if request.method != "POST" {
            return Response::Answer(files::not_allowed("POST"));
        }
        if !self.is_from_here(request) {
            return Response::Answer(WebAnswer::error(FOREIGN));
        }
        match post::look(request) {
            Ok(post) => Response::Post(post),
            Err(answer) => Response::Answer(answer),
        }
    }

    /// Whether no page of another site has made a browser send it. Other clients send no origin.
    fn is_from_here(&self, request: &RequestHead<'_>) -> bool {
        if !request.has("origin") {
            return true;
        }
        // An empty origin, `null` and two origins are not from here.
        let Some(origin) = request.one("origin").and_then(WebOrigin::parse) else { return false };
        request.host.as_ref().is_some_and(|host| origin.is_of(host)) || self.origins.contain(&origin)
    }
}

const SOCKET: &str = "/ws";
const SEND: &str = "/v2/send";

const FOREIGN: HttpError =
    HttpError { status: 403, text: "pages of other sites may not do this; the key ws_origins allows some\n" };
const MISDIRECTED: HttpError =
    HttpError { status: 421, text: "this server does not have that name; see the key http_hosts\n" };

#[cfg(test)]
mod tests;
