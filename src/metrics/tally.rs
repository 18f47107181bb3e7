//! [`LoopTally`]: the counters of one event loop.

use std::array;
use std::sync::Arc;

use net::Tally;

use super::families::{Families, Sample};
use crate::protocol::{FrameKind, ReplyKind, SendOutcome, WrittenKind};

/// The counters of one event loop, in separate cache lines. Only the loop's thread may write them.
#[derive(Debug)]
#[repr(align(128))]
pub struct LoopTally {
    frames: [Tally; FrameKind::NAMES.len()],
    replies: [Tally; ReplyKind::NAMES.len()],
    /// Answers to sends of level 2.
    sends: [Tally; SendOutcome::NAMES.len()],
    /// Messages to connections of level 2.
    pushes: Tally,
}

impl LoopTally {
    pub(super) fn new() -> LoopTally {
        LoopTally {
            frames: array::from_fn(|_| Tally::default()),
            replies: Default::default(),
            sends: Default::default(),
            pushes: Tally::default(),
        }
    }

    /// A frame was processed.
    pub fn frame(&self, kind: FrameKind) {
        self.frames[kind.place()].add(1);
    }

    /// A reply was sent.
    pub fn reply(&self, kind: ReplyKind) {
        self.replies[kind.place()].add(1);
    }

    /// A frame of this server was written to a connection of level 2. Returns the errno if it
    /// refuses a send.
    pub fn written(&self, frame: &str) -> Option<u16> {
        let kind = WrittenKind::of(frame);
        match kind {
            WrittenKind::Push => self.pushes.add(1),
            WrittenKind::Answer(outcome) => self.sends[outcome.place()].add(1),
            WrittenKind::Other => {}
        }
        if let WrittenKind::Answer(outcome) = kind { outcome.refusal() } else { None }
    }
}

/// Adds the families of these counters; each is the sum over all loops.
pub(super) fn show(loops: &[Arc<LoopTally>], families: &Families) {
    let loops: Arc<[_]> = loops.into();
    let sum = move |of: &dyn Fn(&LoopTally) -> u64| loops.iter().map(|tally| of(tally)).sum();
    let (sum_frames, sum_replies, sum_sends, sum_pushes) = (sum.clone(), sum.clone(), sum.clone(), sum);
    families.add("raybox_level2_sends_total", move || {
        let outcomes = SendOutcome::NAMES.iter().enumerate();
        outcomes.map(|(n, name)| Sample::number(sum_sends(&|tally| tally.sends[n].value())).of(*name)).collect()
    });
    families.add("raybox_level2_pushes_total", move || vec![Sample::number(sum_pushes(&|tally| tally.pushes.value()))]);
    families.add("raybox_frames_total", move || {
        let kinds = FrameKind::NAMES.iter().enumerate();
        kinds.map(|(n, name)| Sample::number(sum_frames(&|tally| tally.frames[n].value())).of(*name)).collect()
    });
    families.add("raybox_replies_total", move || {
        let kinds = ReplyKind::NAMES.iter().enumerate();
        kinds.map(|(n, name)| Sample::number(sum_replies(&|tally| tally.replies[n].value())).of(*name)).collect()
    });
}
