//! [`Step`]: a message at one hop of its way.

/// A hop of a message's way, named by one word. The order of the hops breaks ties between equal
/// times.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Hop {
    /// This node has read it from its sender.
    Received,
    /// The node has rejected it; the number is the `errno`.
    Refused,
    /// It is committed in its conversation.
    Stored,
    /// The sender has repeated it; it had been committed before.
    Repeated,
    /// Its recipient has no connection of level 1 here: it is on its way to other nodes or to the
    /// store.
    Queued,
    /// It was published, or announced, to other nodes; the number says how many have taken it.
    Published,
    /// No other node takes it, or the bus does not work.
    Unpublished,
    /// Another node has sent or announced it.
    Heard,
    /// It is in the output of a connection of the recipient.
    Written,
    /// The node that took it has no connection of the recipient.
    Declined,
    /// The node that took it has delivered it.
    Confirmed,
    /// No node has confirmed it in time.
    Unconfirmed,
    /// The connection ended before the recipient had acknowledged it.
    Returned,
    /// It waits in the spool of this node for the database.
    Spooled,
    /// It waits in the database for the recipient's next login at level 1.
    Kept,
    /// The answer to the sender is written; the number is its `errno`.
    Answered,
    /// The device has reported that everything up to this number is stored.
    Reported,
}

/// A message at a hop. A field that is not known is 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// The time, ms since 1970, by the clock of this node.
    pub at: i64,
    /// The hop.
    pub hop: Hop,
    /// Its conversation.
    pub conv: i64,
    /// Its number in the conversation.
    pub seq: i64,
    /// The [hash](super::hash) of the client's id of the message.
    pub cid: u64,
    /// The number of the frame at its sender's connection, on this node.
    pub frame: u64,
    /// Its sender.
    pub from: i32,
    /// The recipient of this step.
    pub to: i32,
    /// The device.
    pub device: i64,
    /// The [hash](super::hash) of the other node's name.
    pub node: u64,
    /// The number of the envelope at the node that published it.
    pub envelope: u64,
    /// Its place in the envelope.
    pub nth: u32,
    /// An `errno`, a count of nodes or a count of bytes, depending on the hop.
    pub number: u32,
}

impl Hop {
    /// All hops.
    pub const ALL: [Hop; 17] = [
        Hop::Received,
        Hop::Refused,
        Hop::Stored,
        Hop::Repeated,
        Hop::Queued,
        Hop::Published,
        Hop::Unpublished,
        Hop::Heard,
        Hop::Written,
        Hop::Declined,
        Hop::Confirmed,
        Hop::Unconfirmed,
        Hop::Returned,
        Hop::Spooled,
        Hop::Kept,
        Hop::Answered,
        Hop::Reported,
    ];

    /// The word for the hop.
    pub fn word(self) -> &'static str {
        match self {
            Hop::Received => "received",
            Hop::Refused => "refused",
            Hop::Stored => "stored",
            Hop::Repeated => "repeated",
            Hop::Queued => "queued",
            Hop::Published => "published",
            Hop::Unpublished => "unpublished",
            Hop::Confirmed => "confirmed",
            Hop::Unconfirmed => "unconfirmed",
            Hop::Declined => "declined",
            Hop::Heard => "heard",
            Hop::Written => "written",
            Hop::Returned => "returned",
            Hop::Kept => "kept",
            Hop::Spooled => "spooled",
            Hop::Answered => "answered",
            Hop::Reported => "reported",
        }
    }

    /// The hop with this word.
    pub fn named(word: &str) -> Option<Hop> {
        Hop::ALL.into_iter().find(|hop| hop.word() == word)
    }
}

impl Step {
    /// A step with nothing but its hop known.
    pub const fn of(hop: Hop) -> Step {
        let (conv, seq, cid, frame, device, node, envelope) = (0, 0, 0, 0, 0, 0, 0);
        Step { at: 0, hop, conv, seq, cid, frame, from: 0, to: 0, device, node, envelope, nth: 0, number: 0 }
    }

    /// The number that decides whether the step is traced, and with which steps it shares memory:
    /// the conversation, else the recipient, else the sender.
    pub(super) fn key(&self) -> i64 {
        match (self.conv, self.to) {
            (0, 0) => self.from.into(),
            (0, to) => to.into(),
            (conv, _) => conv,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hop_has_a_word_of_its_own() {
        for hop in Hop::ALL {
            assert_eq!(Hop::named(hop.word()), Some(hop));
        }
        assert_eq!(Hop::named("lost"), None);
    }
}
