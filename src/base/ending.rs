//! [`Ending`]: what becomes of a message that was accepted.

/// A message has reached its recipient or is stored, or there is a reason why not.
pub type Ending = Result<(), Undelivered>;

/// Why a message could neither be delivered nor stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Undelivered {
    /// The recipient's mailbox has no room for more messages of its sender.
    MailboxFull,
    /// No node takes it, and neither does the store, or its sender has used up its share of the
    /// lanes.
    Unstored,
}
