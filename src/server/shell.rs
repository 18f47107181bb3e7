//! [`Shell`]: the handler of one event loop. It feeds events to the sessions and carries out their
//! effects.

mod http_part;
mod opted_in;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use net::{CloseReason, Fate, Flow, Foreign, Handler, HttpFlow, HttpPart, Incoming, Label, Preface, Tls, Turn};

use super::facts::Facts;
use super::fetching::Fetcher;
use super::foreign;
use super::http_client::HttpClient;
use super::members::{self, Level2};
use super::traced;
use super::wiring::ServerParts;
use crate::admission::audit::AuditEvent;
use crate::admission::{Excess, Holder, Meter, Payer, RateRefusal, Seat};
use crate::base::ids::FrameId;
use crate::delivery::{ClientLink, Posted, Provenance, Spread};
use crate::devices::tasks::MemberNews;
use crate::metrics::{Hit, LoopTally};
use crate::protocol::{self, FrameKind, Id, ReplyKind, UserId};
use crate::routing::fan_out::{self, GroupFrame};
use crate::routing::routed::Routed;
use crate::routing::spreading;
use crate::session::{Effect, Effects, Input, Session, Settled, members_at_once};

/// The handler of one loop.
pub(super) struct Shell {
    shared: Arc<ServerParts>,
    tally: Arc<LoopTally>,
}

/// One connection.
pub(super) struct Client {
    pub(super) session: Session,
    meter: Meter,
    seat: Seat,
    /// The state of level 2, after the client has opted in.
    level2: Option<Level2>,
    /// The state of HTTP, while it speaks that.
    http: Option<Box<HttpClient>>,
}

impl Shell {
    /// The handler of one loop, with the counters of that loop.
    pub(super) fn new(shared: Arc<ServerParts>, tally: Arc<LoopTally>) -> Shell {
        Shell { shared, tally }
    }

    fn feed(&self, turn: &mut Turn<Posted>, link: &Arc<ClientLink>, client: &mut Client, input: Input<'_>) -> Flow {
        let Client { session, seat, level2, .. } = client;
        let source = seat.source();
        // If an account logs in with this input, it pays for later work.
        let holder = Holder { payer: session.payer(source), source };
        let known = Facts { shared: &self.shared, link, source, now: turn.now() };
        let mut effects = Effects::new();
        let flow = session.on(input, &known, &mut effects);
        while !effects.is_empty() {
            let settled = self.carry_out(turn, link, (session, level2), holder, &mut effects);
            if settled.frames > 0 {
                session.settle(&settled, &mut effects);
            }
        }
        if session.is_logged_in() != seat.is_users() {
            note_login(turn, link, session, seat);
        }
        flow
    }

    /// Counts bytes that need no answer. There is an answer only if they exceed a limit.
    fn count_blanks(&self, turn: &mut Turn<Posted>, link: &Arc<ClientLink>, client: &mut Client, len: usize) -> Flow {
        match client.meter.check_blanks(turn.now(), self.shared.admission.rates()) {
            Ok(()) => {
                client.meter.pay_blanks(len);
                Flow::Taken
            }
            Err(refusal) => self.refuse(turn, link, client, refusal),
        }
    }

    /// Answers a client that speaks another protocol; none of its input was processed.
    fn turn_down(&self, turn: &mut Turn<Posted>, link: &Arc<ClientLink>, client: &Client, foreign: Foreign) -> Flow {
        self.shared.admission.speaks(foreign, client.seat.source(), turn.now());
        let answer = foreign::answer(foreign);
        if !answer.is_empty() {
            // This fails only if the client has gone.
            let _ = link.send(turn, answer, Fate::Drop);
        }
        Flow::Taken
    }

    /// Refuses a frame or other input beyond the limits of the connection.
    fn refuse(
        &self,
        turn: &mut Turn<Posted>,
        link: &Arc<ClientLink>,
        client: &mut Client,
        refusal: RateRefusal,
    ) -> Flow {
        let flow = self.feed(turn, link, client, Input::Excess { last: refusal.last });
        if flow != Flow::Later {
            client.meter.refused();
            self.count_refusal(refusal.excess);
        }
        flow
    }

    fn count_refusal(&self, excess: Excess) {
        self.shared.metrics.refused(match excess {
            Excess::Frames => Hit::Frames,
            Excess::Bytes => Hit::Bytes,
        });
    }

    /// Carries out all effects; returns the frames that this has settled.
    fn carry_out(
        &self,
        turn: &mut Turn<Posted>,
        link: &Arc<ClientLink>,
        (session, level2): (&Session, &mut Option<Level2>),
        holder: Holder,
        effects: &mut Effects<'_>,
    ) -> Settled {
        let ServerParts { router, .. } = &*self.shared;
        let mut settled = Settled::default();
        let mut count = |routed: Routed, id, bytes| {
            if let Some(one) = routed.settled(id, bytes) {
                settled.append(one);
            }
        };
        let from = |id| Provenance { sender: link, id, holder };
        for effect in effects.drain(..) {
            match effect {
                Effect::Reply(reply) => match level2 {
                    None => {
                        let kind = self.send(turn, link, &reply, Fate::Drop);
                        traced::replied(&self.shared.tracer, session.user(), kind);
                    }
                    Some(level2) => self.reply_to_member(turn, link, level2, holder, &reply),
                },
                Effect::Deliver { id, to, text } => {
                    count(router.deliver(turn, to, &text, from(id)), id, text.len());
                }
                Effect::DeliverAll { id, group, to, except, text } if to.len() <= members_at_once(text.len()) => {
                    let frame = GroupFrame { group, members: &to, except, text: &text };
                    count(fan_out::deliver_all(router, turn, &frame, from(id)), id, text.len());
                }
                effect => self.carry_out_seldom(turn, link, (session, level2.is_some()), holder, effect),
            }
        }
        settled
    }

    /// Carries out an effect that a chat message never has. A separate function, so that chat
    /// messages do not pay for its stack frame.
    #[inline(never)]
    fn carry_out_seldom(
        &self,
        turn: &mut Turn<Posted>,
        link: &Arc<ClientLink>,
        (session, is_of_level2): (&Session, bool),
        holder: Holder,
        effect: Effect<'_>,
    ) {
        let ServerParts { router, .. } = &*self.shared;
        match effect {
            Effect::Reply(_) | Effect::Deliver { .. } => unreachable!("carried out above"),
            Effect::DeliverAll { id, group, to, except, text } => {
                let provenance = Provenance { sender: link, id, holder };
                spreading::begin(router, turn, Spread::new((group, to), except, &text, &provenance));
            }
            Effect::ReplyAndReport(reply) => {
                self.shared.dispatch.fetching.fetched(&Fetcher { link: link.clone(), holder }, reply.len());
                self.send(turn, link, &reply, Fate::Report(0));
            }
            Effect::Hand { from, to, text } => self.hand_recorded(turn, holder, (from, to), text),
            Effect::NoteRequest { from, to } => self.note_request(holder, from, to),
            Effect::Record(recorded) => self.record(link, holder, *recorded),
            // The answer may be a refusal, which the session must see after these effects.
            Effect::OptIn(opt_in) => link.post(Posted::OptIn(opt_in)),
            Effect::Submit(job) => self.shared.dispatch.submit(job, link, holder, turn.now()),
            Effect::Join(user) => router.attendance().join(user, link),
            Effect::Attach(user) => self.attach(turn, link, session, holder, user),
            Effect::Detach(user) => {
                if is_of_level2 {
                    router.attendance().leave_device(user, link);
                }
                link.set_share(session.payer(holder.source).share());
                router.attendance().detach(turn, user, link);
            }
            Effect::DetachAndShow(user) => {
                link.set_share(session.payer(holder.source).share());
                router.attendance().detach_and_show(turn, user, link);
            }
            Effect::Show(user) => router.attendance().show(user, link),
            Effect::LogOut { user, shows } => {
                for other in router.attendance().log_out(turn, user, shows.then_some(link)) {
                    other.post(Posted::LoggedOut(user));
                }
            }
            Effect::ReleaseMailbox(user) => {
                self.shared.dispatch.fetching.release(user, &Fetcher { link: link.clone(), holder });
            }
            Effect::WantMailbox(user) => {
                self.shared.dispatch.fetching.ask_for(user, &Fetcher { link: link.clone(), holder });
            }
            Effect::Remind(after) => turn.remind(link, after),
            Effect::HangUp => link.hang_up(),
        }
    }

    /// Sends messages for this user to this connection from now on.
    fn attach(&self, turn: &mut Turn<Posted>, link: &Arc<ClientLink>, session: &Session, holder: Holder, user: UserId) {
        link.set_share(session.payer(holder.source).share());
        self.shared.router.attendance().attach(turn, user, link);
        if self.shared.jobs.logins.passwords.forgotten(user) != session.forgotten() {
            // The user was logged out of everything after the check of the password, and that did
            // not reach this connection.
            self.shared.router.attendance().detach(turn, user, link);
            return link.post(Posted::AccountChanged(user));
        }
        self.shared.admission.note(AuditEvent::LoggedIn(user), holder.source, turn.now());
        if self.shared.audience.has(user) {
            self.note_level1(user, holder, turn.now());
        }
    }

    /// Delivers a frame to more members of a large group.
    fn spread_on(&self, turn: &mut Turn<Posted>, link: &Arc<ClientLink>, client: &mut Client, spread: Box<Spread>) {
        let Some((routed, spread)) = spreading::go_on(&self.shared.router, turn, spread) else { return };
        self.feed(turn, link, client, Input::Spread);
        if let Some(settled) = routed.settled(spread.id, spread.text.len()) {
            self.feed(turn, link, client, Input::Settled(settled));
        }
    }

    /// Closes a connection that is not logged in, with a last reply if the client understands it.
    fn turn_away(&self, turn: &mut Turn<Posted>, link: &Arc<ClientLink>, client: &Client, reply: &str) {
        if client.http.is_none() {
            self.send(turn, link, reply, Fate::Drop);
        }
        turn.turn_away(link);
    }

    /// Logs out a user whose account was changed or deleted. If the connection has no other user,
    /// it is closed, so that its client notices.
    fn log_out(&self, turn: &mut Turn<Posted>, link: &Arc<ClientLink>, client: &mut Client, user: UserId) {
        if !client.session.is(Id(user.0.into())) || self.shared.router.attendance().is_on(user, link) {
            return;
        }
        self.feed(turn, link, client, Input::LoggedOut(user));
        if client.session.is_logged_in() {
            self.send(turn, link, protocol::ACCOUNT_CHANGED, Fate::Drop);
        } else {
            self.turn_away(turn, link, client, protocol::ACCOUNT_CHANGED);
        }
    }

    /// Sends a reply. This fails only if the client has gone, and then the reply is not needed.
    fn send(&self, turn: &mut Turn<Posted>, link: &Arc<ClientLink>, reply: &str, fate: Fate) -> ReplyKind {
        let kind = ReplyKind::of(reply);
        self.tally.reply(kind);
        let _ = link.send(turn, reply.as_bytes(), fate);
        kind
    }
}

/// Notes that a session has begun, or has logged in or out.
fn note_login(turn: &mut Turn<Posted>, link: &Arc<ClientLink>, session: &Session, seat: &mut Seat) {
    if session.is_logged_in() {
        seat.becomes_users();
    } else if !session.has_ended()
        && let Some(timeout) = seat.becomes_strangers(Arc::downgrade(link) as _, turn.now())
    {
        turn.remind(link, timeout);
    }
}

impl Handler for Shell {
    type Conn = Client;
    type Arrival = Seat;
    type Message = Posted;

    fn tls(&self) -> Option<Arc<Tls>> {
        self.shared.tls.as_ref().map(|port| port.tls.clone())
    }

    fn may_be_plain(&self, link: &Arc<ClientLink>, _: &Client) -> bool {
        let is_required = self.shared.tls.as_ref().is_some_and(|port| port.is_required);
        !is_required || link.peer().is_some_and(|peer| peer.ip().to_canonical().is_loopback())
    }

    // At level 2 the server asks a silent client, and ends the connection with a reason.
    fn watches_silence(&self, client: &Client) -> bool {
        matches!(&client.level2, Some(Level2::In(member)) if member.is_open())
    }

    fn on_start(&mut self) {
        pool::become_vital();
    }

    fn on_arrival(
        &mut self,
        turn: &mut Turn<Posted>,
        peer: SocketAddr,
        preface: Preface,
    ) -> Result<Seat, &'static [u8]> {
        let admission = &self.shared.admission;
        let entered = match preface == Preface::ProxyHeader {
            true => admission.enter_through(peer, turn.now()),
            false => admission.enter(peer, turn.now()),
        };
        entered.map_err(|_| protocol::TURNED_AWAY.as_bytes())
    }

    fn on_introduced(
        &mut self,
        turn: &mut Turn<Posted>,
        seat: Seat,
        client: SocketAddr,
    ) -> Result<Seat, &'static [u8]> {
        seat.for_client(client, turn.now()).map_err(|_| protocol::TURNED_AWAY.as_bytes())
    }

    fn on_open(&mut self, turn: &mut Turn<Posted>, link: &Arc<ClientLink>, mut seat: Seat) -> Client {
        log::debug!("connected: {:?}", link.peer());
        link.set_share(Payer::Address(seat.source()).share());
        let first = FrameId::first_of(self.shared.connections_opened.fetch_add(1, Relaxed));
        let session = Session::new(self.shared.auth, first);
        note_login(turn, link, &session, &mut seat);
        Client { session, meter: Meter::default(), seat, level2: None, http: None }
    }

    fn on_incoming(
        &mut self,
        turn: &mut Turn<Posted>,
        link: &Arc<ClientLink>,
        client: &mut Client,
        incoming: Incoming<'_>,
    ) -> Flow {
        if let Some(Level2::In(_)) = client.level2 {
            return self.on_incoming_of_member(turn, link, client, incoming);
        }
        let (input, len) = match incoming {
            Incoming::Frame(frame) => (Input::Frame(frame), Some(frame.len())),
            Incoming::Garbage { len } => (Input::Garbage, Some(len)),
            Incoming::Blanks { len } => return self.count_blanks(turn, link, client, len),
            Incoming::Oversize => (Input::Oversize, None),
            Incoming::Foreign(foreign) => return self.turn_down(turn, link, client, foreign),
            Incoming::End => (Input::End, None),
            Incoming::Stop => (Input::Stop, None),
            Incoming::Crowded => (Input::Crowded, None),
        };
        if len.is_some()
            && let Err(refusal) = client.meter.check(turn.now(), self.shared.admission.rates())
        {
            return self.refuse(turn, link, client, refusal);
        }
        let flow = self.feed(turn, link, client, input);
        if let Some(len) = len.filter(|_| matches!(flow, Flow::Taken | Flow::Last)) {
            client.meter.pay(len);
        }
        match (flow, incoming) {
            (Flow::Taken | Flow::Last, Incoming::Frame(_)) => self.tally.frame(client.session.frame_kind()),
            (Flow::Taken | Flow::Last, Incoming::Garbage { .. }) => self.tally.frame(FrameKind::INVALID),
            (Flow::Taken, Incoming::Crowded) => client.seat.complain_of_kept(turn.now()),
            (_, Incoming::Blanks { .. } | Incoming::Foreign(_) | Incoming::Oversize | Incoming::End)
            | (_, Incoming::Stop | Incoming::Crowded)
            | (Flow::Later, _) => {}
        }
        flow
    }

    fn on_http(
        &mut self,
        turn: &mut Turn<Posted>,
        link: &Arc<ClientLink>,
        client: &mut Client,
        part: HttpPart<'_>,
    ) -> HttpFlow {
        self.on_http_part(turn, link, client, part)
    }

    fn on_kept(&mut self, client: &mut Client, bytes: usize) -> bool {
        client.seat.keep(bytes)
    }

    fn on_sent(&mut self, turn: &mut Turn<Posted>, link: &Arc<ClientLink>, client: &mut Client, label: u32) {
        if label == members::TAKEN {
            let waiting = link.undelivered_bytes();
            return self.with_member(turn, link, client, |member, effects| member.on_taken(waiting, effects));
        }
        self.feed(turn, link, client, Input::Sent);
    }

    fn on_message(&mut self, turn: &mut Turn<Posted>, link: &Arc<ClientLink>, client: &mut Client, message: Posted) {
        let input = match message {
            Posted::Outcome(outcome) if client.level2.is_some() => return self.on_outcome(turn, link, client, outcome),
            Posted::Outcome(outcome) => Input::Outcome(outcome),
            Posted::OptIn(opt_in) => return self.opt_in(turn, link, client, *opt_in),
            Posted::Entry(news) if client.http.is_some() => {
                return Shell::with_posting(client, |posting| posting.checked(news));
            }
            Posted::Entry(news) => return self.on_entry(turn, link, client, news),
            Posted::Pump(event) if client.level2.is_none() => {
                return Shell::with_posting(client, |posting| posting.committed(event));
            }
            Posted::Pump(event) => {
                return self.with_member(turn, link, client, |member, effects| member.on_event(event, effects));
            }
            Posted::Member(news) => {
                let now = turn.now();
                return self.with_member(turn, link, client, |member, effects| member.on_news(*news, now, effects));
            }
            Posted::Settled(settled) => Input::Settled(settled),
            Posted::Spread(spread) => return self.spread_on(turn, link, client, spread),
            // The client has since logged in again: the logout was of an earlier login.
            Posted::LoggedOut(user) if self.shared.router.attendance().is_on(user, link) => return,
            Posted::LoggedOut(user) => Input::LoggedOut(user),
            Posted::AccountChanged(user) => return self.log_out(turn, link, client, user),
            Posted::MailboxWanted => {
                Input::MailboxWanted { now: turn.now(), undelivered_bytes: link.undelivered_bytes() }
            }
            Posted::MakeRoom if client.seat.is_users() => return,
            Posted::MakeRoom => return self.turn_away(turn, link, client, protocol::MAKE_ROOM),
        };
        self.feed(turn, link, client, input);
        self.feed_from_member(turn, link, client);
    }

    fn on_reminder(&mut self, turn: &mut Turn<Posted>, link: &Arc<ClientLink>, client: &mut Client, heard: Instant) {
        if client.seat.is_late(turn.now()) {
            return self.turn_away(turn, link, client, protocol::LOGIN_LATE);
        }
        if client.http.is_some() {
            return self.on_http_reminder(turn, link, client);
        }
        if let Some(Level2::In(_)) = client.level2 {
            let (now, waiting) = (turn.now(), link.undelivered_bytes());
            // A frame that had to wait for the limits is shown again after this.
            link.post(Posted::Member(Box::new(MemberNews::Pump(Vec::new()))));
            return self.with_member(turn, link, client, |member, effects| {
                member.on_time(now, heard, waiting, effects);
            });
        }
        self.feed(turn, link, client, Input::Reminder { now: turn.now() });
    }

    fn on_hang_up(&mut self, turn: &mut Turn<Posted>, link: &Arc<ClientLink>, client: &mut Client) {
        self.feed(turn, link, client, Input::HangUp);
    }

    fn on_close(&mut self, turn: &mut Turn<Posted>, link: &Arc<ClientLink>, mut client: Client, reason: CloseReason) {
        log::debug!("closing: {reason:?}");
        match &client.level2 {
            Some(Level2::In(member)) => {
                self.shared.conversations.stop_watching(link, member.watched());
                traced::closed(&self.shared.tracer, Some(member.identity().user), reason, member.has_ended());
            }
            _ => traced::closed(&self.shared.tracer, client.session.user(), reason, false),
        }
        self.feed(turn, link, &mut client, Input::Closed);
    }

    fn on_unsent(&mut self, _: &mut Turn<Posted>, label: Label, frame: Box<[u8]>) {
        self.shared.router.give_back(label, frame);
    }

    /// Handles a message for a closed connection. A frame whose delivery has begun is delivered to
    /// all members. Other events need nothing: a session releases everything it holds before it
    /// closes.
    fn on_stray(&mut self, turn: &mut Turn<Posted>, message: Posted) {
        if let Posted::Spread(spread) = message {
            spreading::go_on_alone(&self.shared.router, turn, spread);
        }
    }
}
