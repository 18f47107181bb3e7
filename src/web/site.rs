//! [`Site`]: what a request gets.

use super::answer::{Answer, Composer};
use super::files;
use super::post::{self, Post};
use super::request::{HttpError, Persistence, Request};
use super::upgrade::{self, Handshake};
use crate::config::{Config, Hosts, Origin, Origins};

/// The settings of HTTP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Site {
    serves_files: bool,
    origins: Origins,
    hosts: Hosts,
}

/// What a request gets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Response {
    /// This answer.
    Answer(Answer),
    /// A WebSocket, after these bytes.
    WebSocket(Vec<u8>),
    /// Its body is a message.
    Post(Post),
}

impl Site {
    /// With these settings.
    pub fn new(config: &Config) -> Site {
        Site { serves_files: config.web, origins: config.ws_origins.clone(), hosts: config.http_hosts.clone() }
    }

    /// Decides about a request by its head. Its body is not looked at.
    pub fn respond(&self, head: &[u8]) -> Response {
        let request = match Request::read(head) {
            Ok(request) => request,
            Err(error) => return Response::Answer(Answer::error(error)),
        };
        if !self.hosts.allow(request.host.as_ref()) {
            return Response::Answer(Answer::error(MISDIRECTED));
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

    fn socket(&self, request: &Request<'_>) -> Response {
        if request.method != "GET" {
            return Response::Answer(files::not_allowed("GET"));
        }
        if !self.is_from_here(request) {
            return Response::Answer(Answer::error(FOREIGN));
        }
        match upgrade::look(request) {
            Handshake::Accepted(bytes) => Response::WebSocket(bytes),
            Handshake::Wrong(text) => Response::Answer(Answer::error(HttpError { status: 400, text })),
            Handshake::NotAsked => {
                let composer = Composer::new(426, Persistence::Closes).header("Upgrade", "websocket");
                let composer = composer.header("Connection", "Upgrade").header("Sec-WebSocket-Version", 13);
                Response::Answer(composer.text("ask for a WebSocket of version 13 (RFC 6455)\n", true))
            }
        }
    }

    fn send(&self, request: &Request<'_>) -> Response {
        if request.method != "POST" {
            return Response::Answer(files::not_allowed("POST"));
        }
        if !self.is_from_here(request) {
            return Response::Answer(Answer::error(FOREIGN));
        }
        match post::look(request) {
            Ok(post) => Response::Post(post),
            Err(answer) => Response::Answer(answer),
        }
    }

    /// Whether no page of another site has made a browser send it. Other clients tell no origin.
    fn is_from_here(&self, request: &Request<'_>) -> bool {
        if !request.has("origin") {
            return true;
        }
        // An empty one, `null` and two are none of ours.
        let Some(origin) = request.one("origin").and_then(Origin::parse) else { return false };
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
