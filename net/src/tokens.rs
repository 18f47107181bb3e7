//! Tokens: the poller's names for the things that the loop watches.

use mio::Token;

use crate::slots::ConnId;

/// Identifies a connection that is not open yet. These ids are separate from those of open ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ArrivalId(pub(crate) ConnId);

/// The owner of a token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TokenOwner {
    /// The waker's: letters wait.
    Waker,
    Arrival(ArrivalId),
    Connection(ConnId),
}

impl TokenOwner {
    pub(crate) fn by(token: usize) -> TokenOwner {
        let id = |token| ConnId { index: token as u32, generation: (token >> 32) as u32 };
        match token {
            token if token == WAKE.0 => TokenOwner::Waker,
            token if token & ARRIVAL != 0 => TokenOwner::Arrival(ArrivalId(id(token & !ARRIVAL))),
            token => TokenOwner::Connection(id(token)),
        }
    }
}

pub(crate) fn of_connection(id: ConnId) -> Token {
    Token((id.generation as usize) << 32 | id.index as usize)
}

pub(crate) fn of_arrival(ArrivalId(id): ArrivalId) -> Token {
    Token(of_connection(id).0 | ARRIVAL)
}

/// The waker's token. No connection has it, because there are never 2³² − 1 of them.
pub(crate) const WAKE: Token = Token(usize::MAX);
/// Marks the token of an arrival: the highest bit of an index, which needs fewer bits.
const ARRIVAL: usize = 1 << 31;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_names_what_it_was_made_for() {
        for (index, generation) in [(0, 0), (7, u32::MAX), (ARRIVAL as u32 - 1, 3)] {
            let id = ConnId { index, generation };
            assert_eq!(TokenOwner::by(of_connection(id).0), TokenOwner::Connection(id));
            assert_eq!(TokenOwner::by(of_arrival(ArrivalId(id)).0), TokenOwner::Arrival(ArrivalId(id)));
        }
        assert_eq!(TokenOwner::by(WAKE.0), TokenOwner::Waker);
    }
}
