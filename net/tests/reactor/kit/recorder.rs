//! [`Recorder`]: the handler that reports every call.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};

use net::{CloseReason, Fate, Flow, Handler, HttpFlow, HttpPart, Incoming, Label, Link, Preface, Tls, Turn};

use super::{Astray, Errand, LAST, Note, Opened, React, Seen, text_of};

pub(super) struct Recorder {
    pub(super) opened: Sender<Opened>,
    pub(super) astray: Sender<Astray>,
    pub(super) react: Arc<React>,
    /// The certificates of the port, and whether clients must use TLS.
    pub(super) tls: Option<(Arc<Tls>, bool)>,
}

pub(super) struct Client {
    seen: Sender<Seen>,
    permits: usize,
    at_close: Option<Errand>,
}

impl Client {
    fn tell(&self, seen: Seen) {
        // The test may have ended.
        let _ = self.seen.send(seen);
    }
}

impl Handler for Recorder {
    type Conn = Client;
    type Arrival = ();
    type Message = Note;

    fn tls(&self) -> Option<Arc<Tls>> {
        self.tls.as_ref().map(|(tls, _)| tls.clone())
    }

    fn may_be_plain(&self, _: &Arc<Link<Note>>, _: &Client) -> bool {
        self.tls.as_ref().is_none_or(|(_, is_required)| !is_required)
    }

    fn on_arrival(&mut self, _: &mut Turn<Note>, _: SocketAddr, _: Preface) -> Result<(), &'static [u8]> {
        Ok(())
    }

    fn on_open(&mut self, _: &mut Turn<Note>, link: &Arc<Link<Note>>, (): ()) -> Client {
        let (seen, tale) = mpsc::channel();
        let _ = self.opened.send((link.clone(), tale));
        Client { seen, permits: usize::MAX, at_close: None }
    }

    fn on_incoming(
        &mut self,
        turn: &mut Turn<Note>,
        link: &Arc<Link<Note>>,
        client: &mut Client,
        incoming: Incoming<'_>,
    ) -> Flow {
        if client.permits == 0 {
            client.tell(Seen::Later(text_of(incoming)));
            return Flow::Later;
        }
        client.permits -= 1;
        client.tell(Seen::Taken(text_of(incoming)));
        (self.react)(turn, link, incoming);
        if incoming == Incoming::Frame(LAST) { Flow::Last } else { Flow::Taken }
    }

    /// `GET /ws` becomes a WebSocket; `POST` has a body of three bytes; everything else is answered
    /// with its first line, and another request may follow if it says so.
    fn on_http(
        &mut self,
        turn: &mut Turn<Note>,
        link: &Arc<Link<Note>>,
        client: &mut Client,
        part: HttpPart<'_>,
    ) -> HttpFlow {
        let (text, flow) = match part {
            HttpPart::Head(head) => {
                let line = String::from_utf8_lossy(head).lines().next().unwrap_or_default().to_owned();
                let flow = match line.split(' ').next() {
                    _ if line.starts_with("GET /ws") => HttpFlow::WebSocket,
                    Some("POST") => HttpFlow::Body(3),
                    Some("GET") => HttpFlow::Next,
                    _ => HttpFlow::Last,
                };
                (line, flow)
            }
            HttpPart::Body(body) => (String::from_utf8_lossy(body).into_owned(), HttpFlow::Last),
            HttpPart::TooLong => ("<too long>".to_owned(), HttpFlow::Last),
            HttpPart::Late => ("<late>".to_owned(), HttpFlow::Last),
        };
        if client.permits == 0 {
            client.tell(Seen::Later(text));
            return HttpFlow::Later;
        }
        client.permits -= 1;
        let _ = link.send(turn, format!("{text}\n").as_bytes(), Fate::Drop);
        client.tell(Seen::Taken(text));
        flow
    }

    fn on_sent(&mut self, _: &mut Turn<Note>, _: &Arc<Link<Note>>, client: &mut Client, label: u32) {
        client.tell(Seen::Sent(label));
    }

    fn on_message(&mut self, _: &mut Turn<Note>, link: &Arc<Link<Note>>, client: &mut Client, message: Note) {
        match message {
            Note::Text(text) => client.tell(Seen::Note(text)),
            Note::Permit(count) => client.permits = count,
            Note::Run(errand) => errand(link),
            Note::AtClose(errand) => client.at_close = Some(errand),
        }
    }

    fn on_hang_up(&mut self, _: &mut Turn<Note>, _: &Arc<Link<Note>>, client: &mut Client) {
        client.tell(Seen::HangUp);
    }

    fn on_close(&mut self, _: &mut Turn<Note>, link: &Arc<Link<Note>>, client: Client, reason: CloseReason) {
        client.tell(Seen::Closed(reason));
        if let Some(errand) = client.at_close {
            errand(link);
        }
    }

    fn on_unsent(&mut self, _: &mut Turn<Note>, label: Label, frame: Box<[u8]>) {
        let _ = self.astray.send(Astray::Unsent(label.user, String::from_utf8_lossy(&frame).into_owned()));
    }

    fn on_stray(&mut self, _: &mut Turn<Note>, message: Note) {
        if let Note::Text(text) = message {
            let _ = self.astray.send(Astray::Note(text));
        }
    }
}
