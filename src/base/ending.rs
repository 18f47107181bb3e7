//! [`DeliveryResult`]: the fate of a message that was accepted.

/// Success if a message has reached its recipient or is stored, otherwise the reason why not.
pub type DeliveryResult = Result<(), Undelivered>;

/// Why a message could neither be delivered nor stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Undelivered {
    /// The recipient's mailbox has no room for more messages of its sender.
    MailboxFull,
    /// Neither another node nor the store takes it, or its sender has used up its share of the
    /// lanes.
    Unstored,
}
