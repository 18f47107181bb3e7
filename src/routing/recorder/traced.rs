//! The steps of messages of conversations, for the [`Tracer`].

use crate::base::trace::{Hop, Step, Tracer, hash};
use crate::bus::DeviceNews;
use crate::bus::news::CommittedFrame;
use crate::store::history::{CommitOutcome, NewEntry};

/// A step of this message at this hop.
pub(super) fn step(entry: &NewEntry, hop: Hop) -> Step {
    let cid = hash(entry.cid.bytes());
    Step { cid, conv: entry.conv.column(), from: entry.sender.0, ..Step::of(hop) }
}

/// Notes that a message was committed, or refused with this `errno`.
pub(super) fn concluded(tracer: &Tracer, entry: &NewEntry, outcome: CommitOutcome, errno: u16) {
    tracer.note(|| match outcome {
        CommitOutcome::New(place, _) => {
            Step { seq: place.seq, number: entry.text.len() as u32, ..step(entry, Hop::Stored) }
        }
        CommitOutcome::Again(place) => Step { seq: place.seq, ..step(entry, Hop::Repeated) },
        CommitOutcome::Refused(_) => Step { number: errno.into(), ..step(entry, Hop::Refused) },
    });
}

/// Notes that a message could not be committed.
pub(super) fn failed(tracer: &Tracer, entry: &NewEntry, errno: u16) {
    tracer.note(|| Step { number: errno.into(), ..step(entry, Hop::Refused) });
}

/// Notes whether other nodes were notified of these messages.
pub(super) fn announced(tracer: &Tracer, news: &[DeviceNews], hop: Hop) {
    if !tracer.is_on() {
        return;
    }
    for news in news {
        let (to, messages) = match news {
            DeviceNews::Messages(user, messages) => (user.0, messages),
            DeviceNews::GroupMessages(messages) => (0, messages),
            _ => continue,
        };
        messages.iter().for_each(|message| tracer.note(|| Step { to, ..told(message, hop) }));
    }
}

/// The step of a committed message at this hop.
pub(super) fn told(message: &CommittedFrame, hop: Hop) -> Step {
    Step { conv: message.conv.column(), seq: message.at.seq, from: message.from.0, ..Step::of(hop) }
}
