//! The steps of messages in this folder, for the [`Tracer`].

use super::label::Returned;
use super::routed::Parked;
use crate::admission::{Holder, Payer};
use crate::base::conversation::ConversationId;
use crate::base::ids::FrameId;
use crate::base::trace::{Hop, Step, Tracer, hash};
use crate::bus::{CommittedFrame, Receipt};
use crate::delivery::{Acknowledgement, Delivery, Provenance};
use crate::protocol::{StoredFrame, UserId};
use crate::store::AppendOutcome;

/// Notes that a frame of a connection here was handed on for this recipient.
#[cold]
pub(super) fn frame(tracer: &Tracer, to: UserId, bytes: usize, provenance: Provenance<'_>, hop: Hop) {
    let from = sender(provenance.holder);
    let step = |hop| Step { frame: provenance.id.into(), from, to: to.0, ..Step::of(hop) };
    tracer.note(|| Step { number: bytes as u32, ..step(Hop::Received) });
    tracer.note(|| parked_step(step, hop));
}

/// Notes that a message in a conversation was handed on for this recipient.
#[cold]
pub(super) fn forwarded(tracer: &Tracer, to: UserId, answer: &Acknowledgement, hop: Hop) {
    let (conv, seq) = (answer.conv().map_or(0, ConversationId::column), answer.seq());
    let step = |hop| Step { conv, seq, to: to.0, ..Step::of(hop) };
    tracer.note(|| parked_step(step, hop));
}

/// Notes that another node has sent an envelope, of which this number of messages were written
/// here.
#[cold]
pub(super) fn envelope(tracer: &Tracer, to: UserId, receipt: &Receipt, written: usize, is_refused: bool) {
    let (node, envelope) = (hash(receipt.node.as_bytes()), receipt.sequence);
    let step = |hop, nth| Step { to: to.0, node, envelope, nth, ..Step::of(hop) };
    for nth in 0..written as u32 {
        tracer.note(|| step(Hop::Heard, nth));
        tracer.note(|| step(Hop::Written, nth));
    }
    if is_refused {
        tracer.note(|| step(Hop::Heard, written as u32));
        tracer.note(|| step(Hop::Declined, written as u32));
    }
}

/// Notes that another node has committed these messages, and how many connections of level 2 are
/// notified here.
pub(super) fn news(tracer: &Tracer, to: UserId, messages: &[CommittedFrame], links: usize) {
    for message in messages.iter().filter(|_| tracer.is_on()) {
        tracer.note(|| Step { number: links as u32, ..told(Hop::Heard, to, message) });
    }
}

/// The step of a committed message that is shown to devices of this user.
pub(super) fn told(hop: Hop, to: UserId, message: &CommittedFrame) -> Step {
    let (conv, seq) = (message.conv.column(), message.at.seq);
    Step { conv, seq, from: message.from.0, to: to.0, ..Step::of(hop) }
}

/// The hop of a message that the router has handed on. Inlined, so that the message stays in the
/// caller's registers.
#[inline]
pub(super) fn hop_of(parked: &Parked) -> Hop {
    match parked {
        Parked::No => Hop::Written,
        Parked::Yes => Hop::Queued,
        Parked::Refused(_) | Parked::NoRoom => Hop::Refused,
    }
}

fn parked_step(step: impl Fn(Hop) -> Step, hop: Hop) -> Step {
    let number = if hop == Hop::Refused { NO_ROOM } else { 0 };
    Step { number, ..step(hop) }
}

/// The sender of a frame, who is the user that pays for it.
fn sender(holder: Holder) -> i32 {
    if let Payer::Account(user) = holder.payer { user.0 } else { 0 }
}

/// Notes that a connection has returned a message, or that another one was given it.
pub(super) fn returned(tracer: &Tracer, hop: Hop, to: UserId, Returned { id, frame }: &Returned) {
    tracer.note(|| {
        let is_recorded = *id == FrameId::RECORDED;
        let text = str::from_utf8(frame).ok().filter(|_| is_recorded);
        let conv = text.and_then(StoredFrame::read).map_or(0, |frame| frame.conv(to).column());
        Step { frame: (*id).into(), conv, to: to.0, ..Step::of(hop) }
    });
}

/// Notes that these messages have come to this hop.
pub(super) fn deliveries<'d>(tracer: &Tracer, hop: Hop, number: u32, all: impl IntoIterator<Item = &'d Delivery>) {
    if tracer.is_on() {
        all.into_iter().for_each(|delivery| tracer.note(|| Step { number, ..delivery.step(hop) }));
    }
}

/// Notes that the database was given these messages.
pub(super) fn appended(tracer: &Tracer, deliveries: &[Delivery], outcomes: &[AppendOutcome]) {
    for (delivery, outcome) in deliveries.iter().zip(outcomes).filter(|_| tracer.is_on()) {
        let (hop, number) = match outcome {
            AppendOutcome::Stored => (Hop::Kept, 0),
            AppendOutcome::NoSuchUser => (Hop::Refused, 404),
            AppendOutcome::TooLong => (Hop::Refused, 413),
        };
        tracer.note(|| Step { number, ..delivery.step(hop) });
    }
}

/// The `errno` of a message for which there is no room.
const NO_ROOM: u32 = 503;
