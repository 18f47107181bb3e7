//! The shell's part in HTTP: requests of a connection that begins with one.

use std::sync::Arc;
use std::time::Duration;

use net::{Fate, HttpFlow, HttpPart, Turn};

use super::{Client, Shell};
use crate::delivery::{ClientLink, Posted};
use crate::server::http_client::HttpClient;
use crate::server::posting::{PostStep, Posting};
use crate::web::answer::{Persistence, WebAnswer};
use crate::web::site::Response;

impl Shell {
    /// Handles a part of a request, new or shown again.
    pub(super) fn on_http_part(
        &mut self,
        turn: &mut Turn<Posted>,
        link: &Arc<ClientLink>,
        client: &mut Client,
        part: HttpPart<'_>,
    ) -> HttpFlow {
        let now = turn.now();
        let http = client.http.get_or_insert_with(|| Box::new(HttpClient::new(now)));
        match part {
            HttpPart::Head(head) => {
                http.asked = now;
                if let Err(refusal) = client.meter.check(now, self.shared.admission.rates()) {
                    self.count_refusal(refusal.excess);
                    return self.answer(turn, link, &WebAnswer::too_many());
                }
                client.meter.pay(head.len());
                let response = self.shared.site.respond(head);
                self.respond(turn, link, client, response)
            }
            HttpPart::Body(body) => self.on_body(turn, link, client, body),
            HttpPart::TooLong => self.answer(turn, link, &WebAnswer::too_long()),
            HttpPart::Late => self.answer(turn, link, &WebAnswer::late()),
        }
    }

    fn respond(
        &self,
        turn: &mut Turn<Posted>,
        link: &Arc<ClientLink>,
        client: &mut Client,
        response: Response,
    ) -> HttpFlow {
        let Some(http) = &mut client.http else { return HttpFlow::Last };
        match response {
            Response::Answer(answer) => {
                let flow = self.answer(turn, link, &answer);
                if flow == HttpFlow::Next && !std::mem::replace(&mut http.is_watched, true) {
                    turn.remind(link, KEPT_OPEN);
                }
                flow
            }
            Response::WebSocket(bytes) => {
                self.shared.metrics.http_answer(101);
                self.say(turn, link, &bytes);
                client.http = None;
                HttpFlow::WebSocket
            }
            Response::Post(post) => {
                if let Some(bytes) = post.first {
                    self.say(turn, link, bytes);
                }
                http.posting = Some(Posting::New { token: post.token });
                HttpFlow::Body(post.len)
            }
        }
    }

    /// Handles the body of a message. It is shown again after each step.
    fn on_body(&self, turn: &mut Turn<Posted>, link: &Arc<ClientLink>, client: &mut Client, body: &[u8]) -> HttpFlow {
        let desk = self.desk(link, client, turn.now());
        let posting = client.http.as_mut().and_then(|http| http.posting.as_mut());
        match posting.map(|posting| posting.go_on(&desk, body)) {
            Some(PostStep::Wait) => HttpFlow::Later,
            Some(PostStep::Answer(answer)) => self.answer(turn, link, &answer),
            // No body was expected.
            None => HttpFlow::Last,
        }
    }

    /// Passes news to a message under way. Its body is shown again after this.
    pub(super) fn with_posting(client: &mut Client, act: impl FnOnce(&mut Posting)) {
        if let Some(posting) = client.http.as_mut().and_then(|http| http.posting.as_mut()) {
            act(posting);
        }
    }

    fn answer(&self, turn: &mut Turn<Posted>, link: &Arc<ClientLink>, answer: &WebAnswer) -> HttpFlow {
        self.shared.metrics.http_answer(answer.status);
        self.say(turn, link, &answer.bytes);
        match answer.persistence {
            Persistence::Stays => HttpFlow::Next,
            Persistence::Closes => HttpFlow::Last,
        }
    }

    /// Sends bytes. This fails only if the client has gone.
    fn say(&self, turn: &mut Turn<Posted>, link: &Arc<ClientLink>, bytes: &[u8]) {
        let _ = link.send(turn, bytes, Fate::Drop);
    }

    /// Closes the connection, unless it has just been used.
    pub(super) fn on_http_reminder(&self, turn: &mut Turn<Posted>, link: &Arc<ClientLink>, client: &mut Client) {
        let Some(http) = &mut client.http else { return };
        let idle = turn.now().saturating_duration_since(http.asked);
        let allowed = if link.undelivered_bytes() > 0 { TAKES_MAX } else { KEPT_OPEN };
        match allowed.saturating_sub(idle) {
            _ if http.posting.is_some() => http.is_watched = false,
            Duration::ZERO => turn.turn_away(link),
            _ => turn.remind(link, KEPT_OPEN.saturating_sub(idle).max(LOOK_AGAIN)),
        }
    }
}

/// How long a connection may wait for its next request.
const KEPT_OPEN: Duration = Duration::from_secs(10);
/// How long a client may take to receive an answer.
const TAKES_MAX: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_secs(1);
