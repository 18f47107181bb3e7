//! Handles the frames of a server.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::asks::Asked;
use super::places::Step;
use super::{Machine, Outcome, Stage};
use crate::body::Body;
use crate::change::{Account, Change};
use crate::error::Error;
use crate::event::{End, Event};
use crate::frame::{Ack, Frame, Overview, Page, Push, Refusal, Run, Welcome};

impl Machine {
    /// Handles bytes from the server.
    pub(crate) fn received(&mut self, bytes: &[u8], now: Instant, chance: f64) {
        self.watch.heard(now);
        self.lines.push(bytes);
        while matches!(self.stage, Stage::LoggingIn | Stage::Synchronising | Stage::Online) {
            let frame = match self.lines.next() {
                Ok(None) => return,
                Ok(Some(line)) => Frame::read(line),
                Err(_) => Err("the server's frame is too long".to_owned()),
            };
            match frame {
                Ok(frame) => self.on_frame(frame, now, chance),
                Err(why) => self.wait(&why, None, now, chance),
            }
        }
    }

    /// Handles the end of the connection. An error that the server wrote before may have no
    /// newline.
    pub(crate) fn closed(&mut self, now: Instant, chance: f64) {
        if let Ok(frame @ Frame::Unasked(_)) = Frame::read(&self.lines.rest()) {
            self.on_frame(frame, now, chance);
        }
        self.lost("the server has closed the connection", now, chance);
    }

    fn on_frame(&mut self, frame: Frame, now: Instant, chance: f64) {
        match (&self.stage, frame) {
            (Stage::LoggingIn, Frame::Welcome(welcome)) => self.on_welcome(welcome, now),
            (Stage::LoggingIn, Frame::LoginRefused(refusal)) => self.on_login_refused(refusal, now, chance),
            (Stage::LoggingIn, Frame::LevelOne) => self.end(End::NoLevel2),
            (_, Frame::Farewell { reason, refusal }) => self.on_farewell(&reason, &refusal, now, chance),
            (_, Frame::Unasked(refusal)) => {
                // An error such as "too many connections". The server closes the connection or
                // continues.
                if matches!(self.stage, Stage::LoggingIn) {
                    self.wait(&refusal.errmsg, refusal.wait(), now, chance);
                }
            }
            (_, Frame::Ping) => self.write(&json!({"msgType": 54})),
            (Stage::Synchronising | Stage::Online, frame) => self.on_live_frame(frame, now),
            // No other frame is expected, and others are ignored.
            (Stage::LoggingIn | Stage::Waiting { .. } | Stage::Connecting | Stage::Ended(_), _) => {}
        }
    }

    fn on_welcome(&mut self, welcome: Welcome, now: Instant) {
        if let Some((owner, name)) = &self.login.owner
            && *owner != welcome.user
        {
            return self.end(End::OtherAccount(name.clone()));
        }
        let Welcome { user, name, token, token_expires, limits } = welcome;
        self.login.owner = Some((user, name.clone()));
        self.login.token = Some(token.clone());
        self.login.password = None;
        self.user = user;
        self.frame_max = limits.frame.max(1024);
        self.lanes.limit_to(limits.inflight);
        self.report_at = now;
        self.sync_at = now;
        let frame_max = self.frame_max;
        self.done.changes.push(Change::Account(Account { user, name, token, token_expires, frame_max }));
        self.enter(Stage::Synchronising);
    }

    fn on_login_refused(&mut self, refusal: Refusal, now: Instant, chance: f64) {
        match (refusal.errno, refusal.wait()) {
            (_, Some(wait)) => self.wait(&refusal.errmsg, Some(wait), now, chance),
            (302, None) if self.login.password.is_none() && self.login.token.is_some() && self.login.jwt.is_some() => {
                // The token has ended with the JSON web token of its login.
                self.login.token = None;
                self.wait(&refusal.errmsg, Some(0.0), now, chance);
            }
            (302, None) => self.end(End::WrongPassword),
            (501, None) => self.end(End::NoLevel2),
            (429 | 500 | 503, None) => self.wait(&refusal.errmsg, None, now, chance),
            (_, None) => self.end(End::Refused(refusal.errmsg)),
        }
    }

    fn on_farewell(&mut self, reason: &str, refusal: &Refusal, now: Instant, chance: f64) {
        match reason {
            "replaced" => self.end(End::Replaced),
            "revoked" => self.end(End::Revoked),
            "logout" => self.end(End::LoggedOut),
            "protocol" => self.end(End::Refused(refusal.errmsg.clone())),
            _ => self.wait(&refusal.errmsg, refusal.wait(), now, chance),
        }
    }

    fn on_live_frame(&mut self, frame: Frame, now: Instant) {
        match frame {
            Frame::Ack(ack) => self.on_ack(ack),
            Frame::SendRefused { cid, refusal } => self.on_send_refused(cid, refusal, now),
            Frame::Push(push) => self.on_push(push),
            Frame::Overview(overview) => self.on_overview(overview),
            Frame::Run(run) => self.on_run(&run),
            Frame::RunRefused { conv, errno } => {
                self.places.on_closed(conv);
                self.done.changes.push(Change::Closed { conv, errno });
                self.done.events.push(Event::Changed(conv));
            }
            Frame::Synced { rid } => self.on_synced(rid.as_deref(), now),
            Frame::Page { rid, page } => self.on_page(rid.as_deref(), page),
            Frame::Read { rid, read } => {
                rid.and_then(|rid| self.asks.answered(&rid));
                self.done.events.push(Event::Changed(read.conv));
                self.done.changes.push(Change::Read(read));
            }
            Frame::Peer(peer) => {
                self.done.events.push(Event::Changed(peer.conv));
                self.done.changes.push(Change::Peer(peer));
            }
            Frame::Typing { conv, from } => self.done.events.push(Event::Typing { conv, from }),
            Frame::Presence { user, online } => self.done.events.push(Event::Presence { user, online }),
            Frame::Reply { rid, reply } => self.on_reply(&rid, reply),
            Frame::Welcome(_) | Frame::LoginRefused(_) | Frame::LevelOne | Frame::Pong | Frame::Other => {}
            Frame::Farewell { .. } | Frame::Unasked(_) | Frame::Ping => {}
        }
    }

    fn on_ack(&mut self, ack: Ack) {
        // An answer to a message that was not sent on this connection changes nothing: the outbox
        // is sent again with the next login.
        let Some(conv) = self.lanes.answered(&ack.cid) else { return };
        if conv != ack.conv {
            return;
        }
        let Ack { cid, conv, seq, tag, time, again } = ack;
        let step = if again { Step::Known } else { self.places.on_number(conv, seq, &tag, false) };
        let place = step == Step::Take;
        if place {
            self.stored.insert(conv, seq);
        }
        self.done.outcomes.push(Outcome { cid: cid.clone(), result: Ok((conv, seq)) });
        self.done.changes.push(Change::Acked { cid, conv, seq, tag, time, place });
        self.done.events.push(if place { Event::Message { conv, seq } } else { Event::Changed(conv) });
    }

    fn on_send_refused(&mut self, cid: Option<String>, refusal: Refusal, now: Instant) {
        let Some(cid) = cid else { return };
        match refusal.wait() {
            Some(wait) => {
                if let Some(conv) = self.lanes.failed(&cid, now + Duration::from_secs_f64(wait)) {
                    self.done.events.push(Event::Changed(conv));
                }
            }
            None => {
                if let Some(conv) = self.lanes.answered(&cid) {
                    self.refuse(conv, &cid, refusal);
                }
            }
        }
    }

    fn on_push(&mut self, push: Push) {
        let Push { conv, message } = push;
        let may_jump = conv.is_group() && Body::of(message.m.as_deref()).is_join_of(self.user);
        match self.places.on_number(conv, message.seq, &message.tag, may_jump) {
            Step::Known | Step::Hole => {}
            Step::Take => {
                let seq = message.seq;
                self.stored.insert(conv, seq);
                self.done.changes.push(Change::Take { conv, message });
                self.done.events.push(Event::Message { conv, seq });
            }
        }
    }

    fn on_overview(&mut self, overview: Overview) {
        for line in overview.convs {
            let conv = line.conv;
            let adopt = self.places.on_line(&line);
            if adopt {
                self.stored.insert(conv, line.head);
            }
            self.done.changes.push(Change::Line { line, adopt });
            self.done.events.push(Event::Changed(conv));
        }
    }

    fn on_run(&mut self, run: &Run) {
        self.places.on_run(run);
        if run.reset {
            let is_counted = self.stage == Stage::Synchronising;
            if !is_counted {
                self.learn_mark(run.conv, run.to);
            }
            self.done.changes.push(Change::Reset { conv: run.conv, head: run.to, is_counted });
            self.done.events.push(Event::Changed(run.conv));
        }
    }

    fn on_synced(&mut self, rid: Option<&str>, now: Instant) {
        match rid {
            Some(rid) if self.asks.answered(rid) == Some(Asked::Sync) => self.places.on_synced(),
            Some(_) => {}
            None if self.stage == Stage::Synchronising => {
                self.pace.succeeded();
                self.enter(Stage::Online);
                if !self.watched.is_empty() {
                    self.send_watch();
                }
            }
            None => {}
        }
        self.ask_for_holes(now);
        self.send_marks();
    }

    fn on_page(&mut self, rid: Option<&str>, page: Page) {
        let Some(Asked::Page { ask, conv, before }) = rid.and_then(|rid| self.asks.answered(rid)) else { return };
        let is_asked_for = before.is_none_or(|before| page.msgs.last().is_none_or(|last| last.seq < before));
        if conv != page.conv || !is_asked_for {
            return self.done.answers.push((ask, Err(Error::Misunderstood)));
        }
        self.done.answers.push((ask, Ok(json!({"count": page.msgs.len(), "complete": page.complete}))));
        self.done.changes.push(Change::Page { page, before });
        self.done.events.push(Event::Changed(conv));
    }

    fn on_reply(&mut self, rid: &str, reply: Value) {
        let Some(reply) = self.asks.whole(rid, reply) else { return };
        let Some(asked) = self.asks.answered(rid) else { return };
        let refusal = Refusal::of(&reply);
        match asked {
            Asked::Application(ask) => {
                if let (Some(60), Some(token), None) = (reply["msgType"].as_i64(), reply["token"].as_str(), &refusal) {
                    self.login.token = Some(token.to_owned());
                    self.done.changes.push(Change::Token(token.to_owned()));
                }
                self.done.answers.push((ask, refusal.map_or(Ok(reply), |refusal| Err(refused(refusal)))));
            }
            Asked::Page { ask, conv, before } => {
                if let (Some(410), Some(before)) = (refusal.as_ref().map(|refusal| refusal.errno), before) {
                    self.done.changes.push(Change::Floor { conv, floor: before.saturating_sub(1) });
                    self.done.events.push(Event::Changed(conv));
                }
                self.done.answers.push((ask, Err(refusal.map_or(Error::Misunderstood, refused))));
            }
            // A refused 46 leaves everything as it is; the next login asks again.
            Asked::Sync => self.places.on_synced(),
            Asked::Mark => {}
        }
    }
}

fn refused(refusal: Refusal) -> Error {
    Error::Refused { errno: refusal.errno, message: refusal.errmsg, retry_after: refusal.retry_after }
}
