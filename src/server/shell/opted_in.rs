//! The shell's part in level 2: it passes frames and events to a connection's [`Member`] or to its
//! session.

use std::sync::Arc;
use std::time::Instant;

use net::{Fate, Flow, Incoming, Turn};

use super::{Client, Shell};
use crate::admission::Holder;
use crate::admission::audit::AuditEvent;
use crate::admission::requests::RequestKind;
use crate::base::conversation::ConversationId;
use crate::delivery::{Acknowledgement, ClientLink, Owed, Posted, Provenance};
use crate::devices::effects::MemberEffects;
use crate::devices::entry::EntryNews;
use crate::devices::member::Member;
use crate::protocol::level2::frames::Refusal;
use crate::protocol::level2::replies::{self, Reason};
use crate::protocol::level2::{self, Rid};
use crate::protocol::{FrameKind, UserId};
use crate::routing::recorder::{RECORDING_BYTES, RecordOwner, RecordedFor, Recording};
use crate::server::members::{Desk, Level2};
use crate::server::places::place;
use crate::server::traced;
use crate::server::wiring::ServerParts;
use crate::session::{Input, OptIn, Outcome, Recipients, ToRecord};
use crate::store::history::{Cid, FrameHash, NewEntry, SenderCheck};

impl Shell {
    /// Records a frame of level 1.
    pub(super) fn record(&self, link: &Arc<ClientLink>, holder: Holder, recorded: ToRecord<'_>) {
        let ToRecord { id, sender, to, kind, text } = recorded;
        let bytes = text.len();
        let owed = Owed::to(&Provenance { sender: link, id, holder }, bytes);
        let berth = self.shared.router.take_berth(holder, bytes + RECORDING_BYTES);
        // If the frame is dropped, it has failed, and its sender is notified.
        let (Some(recorder), Some(berth), Some(cid)) = (&self.shared.recorder, berth, new_cid()) else { return };
        let text: Arc<str> = text.into();
        let conv = match &to {
            Recipients::User(user) => ConversationId::between(sender, *user),
            Recipients::Group(group, _) => ConversationId::of_group(*group),
        };
        traced::received(&self.shared.tracer, (conv, &cid), sender, id.into(), bytes);
        let entry = NewEntry {
            conv,
            sender,
            cid,
            hash: FrameHash::of(text.as_bytes()),
            kind,
            is_imported: false,
            check: SenderCheck::Whole,
            is_hooked: false,
            change: None,
            text: text.clone(),
        };
        let owner = RecordOwner::Session(owed);
        recorder.submit(Recording { entry, to: RecordedFor::Known(to), forward: Some(text), owner, berth });
    }

    /// Forwards a frame that is in the conversation of two users to the second one at level 1, on
    /// any node.
    pub(super) fn hand_recorded(
        &self,
        turn: &mut Turn<Posted>,
        holder: Holder,
        (from, to): (UserId, UserId),
        text: String,
    ) {
        let ServerParts { recorder, router, .. } = &*self.shared;
        let berth = router.take_berth(holder, text.len() + RECORDING_BYTES);
        // Without room for it, the conversation still has it.
        let (Some(recorder), Some(berth)) = (recorder, berth) else { return };
        let nobody_waits = Acknowledgement::silent(ConversationId::between(from, to), berth);
        router.forward(turn, to, &text.into(), recorder.keeps(to), &nobody_waits);
    }

    /// Notes a friend request, so that the answer to it makes friends. If that fails, the answer
    /// counts as a request.
    pub(super) fn note_request(&self, holder: Holder, from: UserId, to: UserId) {
        let (arrangements, requests) = (self.shared.jobs.arrangements.clone(), &self.shared.dispatch.requests);
        if let Some(place) = place(requests, holder, &self.shared.metrics) {
            requests.submit(RequestKind::Short, place, move || arrangements.note_request(from, to));
        }
    }

    /// Notes the login of a user of level 2 at level 1.
    pub(super) fn note_level1(&self, user: UserId, holder: Holder, now: Instant) {
        let (seen, requests) = (self.shared.level1_seen.clone(), &self.shared.dispatch.requests);
        if !seen.logs_in(user, now) {
            return;
        }
        match requests.place(holder) {
            Some(place) => requests.submit(RequestKind::Short, place, move || seen.write(user)),
            None => seen.is_not_written(user),
        }
    }

    pub(super) fn desk<'a>(&'a self, link: &'a Arc<ClientLink>, client: &Client, now: Instant) -> Desk<'a> {
        let source = client.seat.source();
        let holder = Holder { payer: client.session.payer(source), source };
        Desk { shared: &self.shared, link, holder, tally: &self.tally, now }
    }

    /// Begins the login of a client that opts in.
    pub(super) fn opt_in(&self, turn: &mut Turn<Posted>, link: &Arc<ClientLink>, client: &mut Client, opt_in: OptIn) {
        let rid = opt_in.rid.clone();
        match self.desk(link, client, turn.now()).begin(opt_in) {
            Ok(entering) => client.level2 = Some(entering),
            Err(refusal) => self.refuse_entry(turn, link, client, refusal, rid.as_ref()),
        }
    }

    /// Refuses a login at level 2; the client may try again.
    fn refuse_entry(
        &self,
        turn: &mut Turn<Posted>,
        link: &Arc<ClientLink>,
        client: &mut Client,
        refusal: Refusal,
        rid: Option<&Rid>,
    ) {
        client.level2 = None;
        self.send(turn, link, &replies::refused(40, refusal, rid), Fate::Drop);
        self.feed(turn, link, client, Input::OptedIn(None));
    }

    /// Handles the result of a step of a login.
    pub(super) fn on_entry(
        &self,
        turn: &mut Turn<Posted>,
        link: &Arc<ClientLink>,
        client: &mut Client,
        news: EntryNews,
    ) {
        let Some(mut level2) = client.level2.take() else { return };
        let desk = self.desk(link, client, turn.now());
        let step = match news {
            EntryNews::Found(found) => desk.found(&mut level2, found).map(|()| None),
            EntryNews::Outdated => desk.check_again(&mut level2).map(|()| None),
            EntryNews::Admitted(admitted) => admitted.map(Some),
        };
        match (step, level2) {
            (Ok(Some(admitted)), Level2::Entering(entry, _)) => {
                let user = admitted.identity.user;
                let event = AuditEvent::DeviceLoggedIn(user, &admitted.identity.device_name);
                self.shared.admission.note(event, client.seat.source(), turn.now());
                client.level2 = Some(Level2::In(desk.enter(turn, *admitted, *entry)));
                self.feed(turn, link, client, Input::OptedIn(Some(user)));
                let share = client.session.payer(client.seat.source()).share();
                link.set_share(share);
            }
            (Err(refusal), Level2::Entering(entry, _)) => {
                if entry.has_wrong_token(&refusal) {
                    self.shared.admission.note(AuditEvent::WrongToken, client.seat.source(), turn.now());
                }
                self.refuse_entry(turn, link, client, refusal, entry.rid.as_ref());
            }
            (_, level2) => client.level2 = Some(level2),
        }
    }

    /// Handles the outcome of a job or of joining the bus: for the login, the member, or a request
    /// of level 1.
    pub(super) fn on_outcome(
        &self,
        turn: &mut Turn<Posted>,
        link: &Arc<ClientLink>,
        client: &mut Client,
        outcome: Outcome,
    ) {
        match (client.level2.take(), outcome) {
            // A step waits for one answer, so this is the answer to it.
            (Some(mut level2 @ Level2::Entering(..)), outcome @ (Outcome::Password(_) | Outcome::Refused(_))) => {
                let checked = self.desk(link, client, turn.now()).checked(&mut level2, outcome);
                match (checked, level2) {
                    (Err(refusal), Level2::Entering(entry, _)) => {
                        self.refuse_entry(turn, link, client, refusal, entry.rid.as_ref());
                    }
                    (_, level2) => client.level2 = Some(level2),
                }
            }
            (level2, Outcome::Placed) => {
                client.level2 = level2;
                if let Some(Level2::In(member)) = &client.level2 {
                    self.shared.router.attendance().device_is_placed(member.identity().user, link);
                }
                self.with_member(turn, link, client, Member::placed);
            }
            (level2, outcome) => {
                client.level2 = level2;
                self.feed(turn, link, client, Input::Outcome(outcome));
                self.feed_from_member(turn, link, client);
            }
        }
    }

    /// Calls the member, and carries out its effects.
    pub(super) fn with_member(
        &self,
        turn: &mut Turn<Posted>,
        link: &Arc<ClientLink>,
        client: &mut Client,
        act: impl FnOnce(&mut Member, &mut MemberEffects),
    ) {
        let desk = self.desk(link, client, turn.now());
        if let Some(Level2::In(member)) = &mut client.level2 {
            let mut effects = MemberEffects::new();
            act(member, &mut effects);
            desk.carry_out(turn, member, effects);
            self.feed_from_member(turn, link, client);
        }
    }

    /// Handles the session's answer to a member's request of level 1.
    pub(super) fn reply_to_member(
        &self,
        turn: &mut Turn<Posted>,
        link: &Arc<ClientLink>,
        level2: &mut Level2,
        holder: Holder,
        reply: &str,
    ) {
        let Level2::In(member) = level2 else {
            self.send(turn, link, reply, Fate::Drop);
            return;
        };
        let mut effects = MemberEffects::new();
        member.on_reply(reply, &mut effects);
        let desk = Desk { shared: &self.shared, link, holder, tally: &self.tally, now: turn.now() };
        desk.carry_out(turn, member, effects);
    }

    /// Handles input of a client of level 2.
    pub(super) fn on_incoming_of_member(
        &self,
        turn: &mut Turn<Posted>,
        link: &Arc<ClientLink>,
        client: &mut Client,
        incoming: Incoming<'_>,
    ) -> Flow {
        let Some(Level2::In(member)) = &mut client.level2 else { return Flow::Later };
        if member.has_ended() {
            return Flow::Taken;
        }
        let len = match incoming {
            Incoming::Frame(frame) => frame.len(),
            // As a frame, they wait for the requests before them.
            Incoming::Garbage { .. } | Incoming::Oversize if !member.takes_requests() => return Flow::Later,
            Incoming::Garbage { len } | Incoming::Blanks { len } => len,
            Incoming::Oversize => return self.end_member(turn, link, client, Reason::TooLong),
            Incoming::Crowded => return self.end_member(turn, link, client, Reason::Overload),
            Incoming::Foreign(_) => return self.end_member(turn, link, client, Reason::Protocol),
            Incoming::Stop | Incoming::End if !member.is_settled() => return Flow::Later,
            Incoming::Stop => {
                self.end_member(turn, link, client, Reason::Drain);
                return self.feed(turn, link, client, Input::Stop);
            }
            Incoming::End => return self.feed(turn, link, client, Input::End),
        };
        let now = turn.now();
        if let Some(pause) = client.meter.pause(now, self.shared.admission.rates()) {
            if member.pauses(now, pause) {
                turn.remind(link, pause);
            }
            return Flow::Later;
        }
        let flow = match incoming {
            Incoming::Frame(frame) => self.on_frame_of_member(turn, link, client, frame),
            Incoming::Garbage { .. } => {
                self.with_member(turn, link, client, |member, effects| member.on_garbage(effects));
                Flow::Taken
            }
            _ => Flow::Taken,
        };
        match (flow, incoming) {
            (Flow::Later, _) => {}
            (_, Incoming::Blanks { .. }) => client.meter.pay_blanks(len),
            _ => client.meter.pay(len),
        }
        flow
    }

    fn on_frame_of_member(
        &self,
        turn: &mut Turn<Posted>,
        link: &Arc<ClientLink>,
        client: &mut Client,
        frame: &[u8],
    ) -> Flow {
        let now = turn.now();
        let Some(Level2::In(member)) = &client.level2 else { return Flow::Later };
        if !member.takes_requests() {
            return Flow::Later;
        }
        if frame.len() > level2::FRAME_MAX {
            return self.end_member(turn, link, client, Reason::TooLong);
        }
        let Ok(parsed) = level2::Frame::parse(frame) else {
            self.tally.frame(FrameKind::INVALID);
            self.with_member(turn, link, client, |member, effects| member.on_garbage(effects));
            return Flow::Taken;
        };
        self.tally.frame(parsed.kind);
        self.with_member(turn, link, client, |member, effects| member.on_frame(parsed, frame, now, effects));
        Flow::Taken
    }

    /// Has the session process the frames whose turn has come.
    pub(super) fn feed_from_member(&self, turn: &mut Turn<Posted>, link: &Arc<ClientLink>, client: &mut Client) {
        while let Some(Level2::In(member)) = &mut client.level2
            && let Some(frame) = member.next_for_session()
        {
            let flow = self.feed(turn, link, client, Input::Frame(&frame));
            if let (Flow::Later, Some(Level2::In(member))) = (flow, &mut client.level2) {
                return member.session_is_busy(frame);
            }
        }
    }

    fn end_member(&self, turn: &mut Turn<Posted>, link: &Arc<ClientLink>, client: &mut Client, reason: Reason) -> Flow {
        self.with_member(turn, link, client, |member, effects| member.end(reason, effects));
        Flow::Taken
    }
}

/// A unique id for a message; `None` if the system has no random bytes.
fn new_cid() -> Option<Cid> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).ok()?;
    Some(Cid::of_server(bytes))
}
