//! [`Sends`]: the messages sent on a connection, and the order in which they are answered.

use std::collections::{BTreeMap, VecDeque};

use super::frame::{Ack, Refusal};
use super::{Checked, Mistake, ensure};

/// The sends of one connection that are not answered.
#[derive(Default, Debug)]
pub(super) struct Sends {
    pending: BTreeMap<String, VecDeque<Sent>>,
    /// By conversation: the first send that failed, until its retry is answered.
    failed: BTreeMap<String, (String, i64)>,
}

/// A send that is not answered.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    /// The `cid`; `None` if the frame had none that the answer can repeat.
    pub(super) cid: Option<String>,
    pub(super) text: String,
}

impl Sends {
    pub(super) fn on_sent(&mut self, conv: &str, cid: Option<&str>, text: &str) {
        let sent = Sent { cid: cid.map(str::to_owned), text: text.to_owned() };
        self.pending.entry(conv.to_owned()).or_default().push_back(sent);
    }

    pub(super) fn unanswered(&self) -> usize {
        self.pending.values().map(VecDeque::len).sum()
    }

    /// The send that a 41 of errno 200 answers.
    pub(super) fn on_ack(&mut self, ack: &Ack) -> Checked<Sent> {
        let sent = self.take(&ack.conv.0, Some(&ack.cid))?;
        if let Some((first, _)) = self.failed.get(&ack.conv.0) {
            ensure(*first == ack.cid, || format!("{} succeeds although {first} before it has failed", ack.cid))?;
            self.failed.remove(&ack.conv.0);
        }
        Ok(sent)
    }

    /// The send that a 41 with an error answers.
    pub(super) fn on_refused(&mut self, refusal: &Refusal) -> Checked<Sent> {
        let cid = refusal.cid.as_deref();
        let conv = self.conv_of(cid)?;
        let sent = self.take(&conv, cid)?;
        match self.failed.get(&conv) {
            Some((first, _)) if Some(first.as_str()) == cid => {
                self.failed.remove(&conv);
            }
            // A frame that the server cannot understand is refused with 400.
            Some(_) if refusal.errno == 400 => {}
            Some((first, errno)) => {
                let same = refusal.errno == *errno && refusal.retry_after.is_some();
                ensure(same, || format!("{refusal:?}, although {first} before it has failed with {errno}"))?;
            }
            None => {}
        }
        if let (Some(cid), true) = (cid, refusal.retry_after.is_some()) {
            self.failed.entry(conv).or_insert_with(|| (cid.to_owned(), refusal.errno));
        }
        Ok(sent)
    }

    /// The conversation of a refused send, which the answer does not name. If several conversations
    /// have such a send, one where the send is next to be answered.
    fn conv_of(&self, cid: Option<&str>) -> Checked<String> {
        let is_it = |sent: &Sent| sent.cid.as_deref() == cid;
        let with = |is_it: &dyn Fn(&VecDeque<Sent>) -> bool| self.pending.iter().find(|(_, sends)| is_it(sends));
        let found = with(&|sends| sends.front().is_some_and(is_it)).or_else(|| with(&|sends| sends.iter().any(is_it)));
        found.map(|(conv, _)| conv.clone()).ok_or_else(|| Mistake(format!("a 41 for {cid:?}, which was not sent")))
    }

    fn take(&mut self, conv: &str, cid: Option<&str>) -> Checked<Sent> {
        let sends = self.pending.entry(conv.to_owned()).or_default();
        match sends.front() {
            Some(first) if first.cid.as_deref() == cid => {}
            Some(first) => return Err(Mistake(format!("a 41 for {cid:?} in {conv} where {:?} is next", first.cid))),
            None => return Err(Mistake(format!("a 41 for {cid:?} in {conv}, where nothing is unanswered"))),
        }
        sends.pop_front().ok_or_else(|| Mistake("unreachable".to_owned()))
    }
}
