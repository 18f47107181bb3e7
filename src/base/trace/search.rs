//! [`Tracer::find`]: the steps of a message among all that are remembered.

use super::{Hop, Step, Tracer};
use crate::base::conversation::ConversationId;
use crate::base::ids::UserId;

/// A filter for steps.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// With this conversation and number.
    pub place: Option<(ConversationId, i64)>,
    /// With this hash of the sender's id of the message ([`hash`](super::hash)), from `from`. Only
    /// together with its sender is such an id unique.
    pub cid: Option<u64>,
    /// Of the message of a user's connection with this number, or of that envelope from this node.
    pub to: Option<UserId>,
    /// From this sender, or from one that is not known.
    pub from: Option<UserId>,
    /// Not before, ms since 1970.
    pub since: i64,
    /// Not after.
    pub until: i64,
}

/// The remembered steps of a message.
#[derive(Clone, Debug, Default)]
pub struct FoundSteps {
    /// Its steps, oldest first.
    pub steps: Vec<Step>,
    /// Whether there are more of them.
    pub more: bool,
    /// The time, ms since 1970, since which every step of its conversation is remembered. `None`:
    /// some are not, so a missing step proves nothing.
    pub complete_since: Option<i64>,
}

impl Tracer {
    /// The steps that are wanted, at most `limit`. The message's own go first; then those that may
    /// be its own, nearest to the middle of the time that is asked for.
    pub fn find(&self, wanted: &Wanted, limit: usize) -> FoundSteps {
        let wanted = self.with_cid(wanted);
        let middle = wanted.since.midpoint(wanted.until);
        // Steps that many recipients share tell most, and then the latest ones.
        let mut own = Best::new(limit, |step| (step.to != 0, i64::MAX - step.at));
        let mut near = Best::new(limit, |step| (false, i64::try_from(step.at.abs_diff(middle)).unwrap_or(i64::MAX)));
        let mut reports: Vec<Step> = Vec::new();
        self.visit(|step| match wanted.kinship(step) {
            Some(Kinship::Own) if step.hop == Hop::Reported => {
                // The first report that covers it says when the device had it.
                match reports.iter_mut().find(|known| known.device == step.device) {
                    Some(known) if known.at <= step.at => {}
                    Some(known) => *known = *step,
                    None => reports.push(*step),
                }
            }
            Some(Kinship::Own) => own.add(*step),
            Some(Kinship::Near) => near.add(*step),
            None => {}
        });
        reports.into_iter().for_each(|report| own.add(report));
        let (mut steps, is_cut) = own.end(limit);
        let (near, is_near_cut) = near.end(limit - steps.len());
        steps.extend(near);
        steps.sort_by_key(|step| (step.at, step.hop));
        let key = wanted.place.map(|(conv, _)| conv.column()).or(wanted.to.map(|to| to.0.into()));
        let complete_since = key.filter(|_| !is_cut).and_then(|key| self.complete_since(key));
        FoundSteps { steps, more: is_cut || is_near_cut, complete_since }
    }

    /// Before it was stored, a message had no number: it is known by its cid, which a step of its
    /// place has.
    fn with_cid(&self, wanted: &Wanted) -> Wanted {
        let (mut wanted, mut found) = (wanted.clone(), None);
        if let Some((conv, seq)) = wanted.place.filter(|_| wanted.cid.is_none()) {
            self.visit(|step| {
                if (step.conv, step.seq) == (conv.column(), seq) && step.cid != 0 && step.from != 0 {
                    found = Some((step.cid, UserId(step.from)));
                }
            });
        }
        if let Some((cid, from)) = found.filter(|(_, from)| wanted.from.is_none_or(|wanted| wanted == *from)) {
            (wanted.cid, wanted.from) = (Some(cid), Some(from));
        }
        wanted
    }

    fn visit(&self, mut visit: impl FnMut(&Step)) {
        for slice in self.slices.get().into_iter().flat_map(|slices| slices.iter()) {
            slice.lock().steps.iter().for_each(&mut visit);
        }
    }
}

/// How a step belongs to a message.
enum Kinship {
    /// It has its place or its cid.
    Own,
    /// It is to its recipient at that time, and of no other known message.
    Near,
}

impl Wanted {
    fn kinship(&self, step: &Step) -> Option<Kinship> {
        let is_place = self.place.is_some_and(|(conv, seq)| {
            // A report covers everything below it.
            let is_there = step.seq == seq || step.hop == Hop::Reported && step.seq > seq;
            step.conv == conv.column() && is_there
        });
        let is_cid = || self.cid.is_some_and(|cid| step.cid == cid) && self.from.is_none_or(|from| step.from == from.0);
        if is_place || is_cid() {
            return Some(Kinship::Own);
        }
        // A sender is not known at every hop.
        let is_from = || self.from.is_none_or(|from| step.from == 0 || step.from == from.0);
        let is_to = self.to.is_some_and(|to| step.to == to.0 && (self.since..=self.until).contains(&step.at));
        (is_to && is_from() && !self.is_of_another(step)).then_some(Kinship::Near)
    }

    /// Whether the step names another conversation, or another number, than the message can have.
    fn is_of_another(&self, step: &Step) -> bool {
        let is_not = |conv: ConversationId| step.conv != 0 && step.conv != conv.column();
        match (self.place, self.from.zip(self.to)) {
            (Some((conv, _)), _) => is_not(conv) || step.seq != 0,
            // At level 1, a sender may have reached the recipient through a group.
            (None, Some((from, to))) => step.from == 0 && is_not(ConversationId::between(from, to)),
            (None, None) => false,
        }
    }
}

/// The steps with the lowest rank.
struct Best<R> {
    rank: R,
    limit: usize,
    steps: Vec<Step>,
    is_cut: bool,
}

impl<R: Fn(&Step) -> (bool, i64)> Best<R> {
    fn new(limit: usize, rank: R) -> Best<R> {
        Best { rank, limit, steps: Vec::new(), is_cut: false }
    }

    fn add(&mut self, step: Step) {
        self.steps.push(step);
        // Sorting once for each `limit` steps costs little for each of them.
        if self.steps.len() > self.limit.saturating_mul(2) {
            self.cut(self.limit);
        }
    }

    fn cut(&mut self, limit: usize) {
        if self.steps.len() > limit {
            self.steps.sort_by_key(&self.rank);
            self.steps.truncate(limit);
            self.is_cut = true;
        }
    }

    /// At most `limit` of them, and whether there were more.
    fn end(mut self, limit: usize) -> (Vec<Step>, bool) {
        self.cut(limit.min(self.limit));
        (self.steps, self.is_cut)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Sampling, hash, now};
    use super::*;

    const ANN: UserId = UserId(7);
    const BOB: UserId = UserId(9);
    const XEN: UserId = UserId(8);

    fn conv() -> i64 {
        ConversationId::between(ANN, BOB).column()
    }

    fn at(seq: i64) -> Wanted {
        Wanted { place: Some((ConversationId::between(ANN, BOB), seq)), ..Wanted::default() }
    }

    fn hops(found: &FoundSteps) -> Vec<Hop> {
        found.steps.iter().map(|step| step.hop).collect()
    }

    #[test]
    fn the_same_cid_of_another_sender_is_another_message() {
        let tracer = Tracer::new(Sampling::ALL, 1 << 20);
        let cid = hash(b"m-1");
        let of = |from: UserId, hop| Step { from: from.0, cid, ..Step::of(hop) };
        tracer.note(|| Step { conv: conv(), seq: 1, ..of(ANN, Hop::Stored) });
        tracer.note(|| Step { number: 404, ..of(XEN, Hop::Refused) });
        tracer.note(|| Step { number: 200, ..of(ANN, Hop::Answered) });
        let expected = [Hop::Stored, Hop::Answered];
        let by_cid = |from| Wanted { cid: Some(cid), from: Some(from), ..Wanted::default() };
        assert_eq!(hops(&tracer.find(&by_cid(ANN), 10)), expected);
        assert_eq!(hops(&tracer.find(&by_cid(XEN), 10)), [Hop::Refused]);
        assert_eq!(hops(&tracer.find(&at(1), 10)), expected);
    }

    #[test]
    fn others_to_the_same_recipient_do_not_push_out_the_steps_of_a_message() {
        let tracer = Tracer::new(Sampling::ALL, 1 << 24);
        let to_bob = Step { to: BOB.0, ..Step::of(Hop::Written) };
        let elsewhere = ConversationId::between(XEN, BOB).column();
        (1..=5_000).for_each(|seq| tracer.note(|| Step { conv: elsewhere, seq, ..to_bob }));
        (1..=5_000).for_each(|_| tracer.note(|| to_bob));
        tracer.note(|| Step { conv: conv(), seq: 1, device: 3, ..to_bob });
        let wanted = Wanted { to: Some(BOB), until: i64::MAX, ..at(1) };
        let found = tracer.find(&wanted, 10);
        assert!(found.steps.len() == 10 && found.more, "{found:?}");
        assert!(found.steps.iter().any(|step| step.seq == 1), "its own: {found:?}");
        assert!(found.steps.iter().all(|step| step.conv != elsewhere), "and none of another message: {found:?}");
        assert!(found.complete_since.is_some(), "none of its own is missing");
    }

    #[test]
    fn the_report_that_counts_is_the_first_of_the_conversation() {
        let tracer = Tracer::new(Sampling::ALL, 1 << 20);
        let report = |conv, seq| Step { conv, seq, to: BOB.0, device: 3, ..Step::of(Hop::Reported) };
        tracer.note(|| report(ConversationId::between(XEN, BOB).column(), 9));
        tracer.note(|| report(conv(), 4));
        tracer.note(|| report(conv(), 5));
        tracer.note(|| report(conv(), 6));
        let wanted = Wanted { to: Some(BOB), until: i64::MAX, ..at(5) };
        let found: Vec<i64> = tracer.find(&wanted, 10).steps.iter().map(|step| step.seq).collect();
        assert_eq!(found, [5]);
    }

    #[test]
    fn of_many_steps_those_nearest_to_the_time_are_shown() {
        let wanted = Wanted { to: Some(BOB), since: 0, until: 200, ..Wanted::default() };
        let middle = wanted.since.midpoint(wanted.until);
        let mut best = Best::new(3, |step: &Step| (false, (step.at - middle).abs()));
        (0..=200).for_each(|at| best.add(Step { at, ..Step::of(Hop::Written) }));
        let (mut steps, is_cut) = best.end(3);
        steps.sort_by_key(|step| step.at);
        assert_eq!((steps.iter().map(|step| step.at).collect::<Vec<_>>(), is_cut), (vec![99, 100, 101], true));
    }

    #[test]
    fn a_node_says_since_when_it_misses_nothing() {
        let before = now();
        let tracer = Tracer::new(Sampling::OFF, 64 * 10 * size_of::<Step>());
        assert_eq!(tracer.find(&at(1), 10).complete_since, None, "it traces nothing");
        tracer.sample(Sampling::ALL);
        let since = tracer.find(&at(1), 10).complete_since.expect("it traces all");
        assert!((before..=now()).contains(&since), "{since}");
        let written = |seq| Step { conv: conv(), seq, to: BOB.0, ..Step::of(Hop::Written) };
        (1..=11).for_each(|seq| tracer.note(|| written(seq)));
        let gone = tracer.find(&at(11), 10);
        assert!(gone.complete_since > Some(gone.steps[0].at.min(since)), "the ring has gone round: {gone:?}");
        assert_eq!(tracer.find(&at(11), 0).complete_since, None, "its own are cut");
        tracer.sample(Sampling(1_000_000));
        assert_eq!(tracer.find(&at(11), 10).complete_since, None, "it is not in the sample");
    }
}
