//! [`WaitReason`]: why an event of a connection's socket does not lead to serving it.
//!
//! | it waits | ends when |
//! |---|---|
//! | for nothing | |
//! | for the application | the application was called for it ([`WaitReason::Application`]) |
//! | for its client | its output was written, or most of it |
//! | for its turn | its turn has come; then it is served, or waits for its other reason |

/// The reason why a connection waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum WaitReason {
    /// The connection is served as soon as its socket has an event.
    Nothing,
    /// The application answered the item at the front with "later", or garbage must be shown
    /// without new bytes.
    Application,
    /// The client does not read its output, so it is not read either until it does.
    Client,
    /// The connection is in the rounds of its loop.
    Turn {
        /// The events of the socket since.
        news: News,
        then: Then,
    },
}

/// The step for a connection whose turn has come, besides handling its news.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Then {
    /// The connection is served.
    Serve,
    /// The application is shown again the item that it answered with "later".
    ShowAgain,
    /// The connection continues to wait for the application.
    AwaitApplication,
    /// The connection continues to wait for its client.
    AwaitClient,
}

/// Events of a socket, except that there is something to read.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct News {
    /// There is room to write.
    pub(crate) writable: bool,
    /// Nothing that is written will arrive.
    pub(crate) gone: bool,
}

impl WaitReason {
    /// Whether the connection may be served.
    pub(crate) fn is_over(self) -> bool {
        self == WaitReason::Nothing
    }

    pub(crate) fn is_for_application(self) -> bool {
        matches!(
            self,
            WaitReason::Application | WaitReason::Turn { then: Then::ShowAgain | Then::AwaitApplication, .. }
        )
    }

    pub(crate) fn is_for_client(self) -> bool {
        matches!(self, WaitReason::Client | WaitReason::Turn { then: Then::AwaitClient, .. })
    }

    pub(crate) fn is_for_turn(self) -> bool {
        matches!(self, WaitReason::Turn { .. })
    }

    /// Ends the other reasons: from now on the connection waits only for its turn, if at all.
    pub(crate) fn end(&mut self) {
        self.wait(Then::Serve);
    }

    /// From now on the connection waits for the application, in addition to its turn.
    pub(crate) fn await_application(&mut self) {
        self.wait(Then::AwaitApplication);
    }

    /// From now on the connection waits for its client, in addition to its turn.
    pub(crate) fn await_client(&mut self) {
        self.wait(Then::AwaitClient);
    }

    /// Notes that no item is left that the application could be shown again.
    pub(crate) fn forget_application(&mut self) {
        if self.is_for_application() {
            self.end();
        }
    }

    /// Makes the connection wait for its turn, too. Returns whether it did not before: then the
    /// caller puts it into the rounds.
    pub(crate) fn await_turn(&mut self) -> bool {
        let is_new = !self.is_for_turn();
        if is_new {
            *self = WaitReason::Turn { news: News::default(), then: self.then() };
        }
        is_new
    }

    /// Notes that the application must be shown the held item again when the connection's turn
    /// comes.
    pub(crate) fn show_again(&mut self) {
        debug_assert!(self.is_for_turn() && self.is_for_application());
        self.wait(Then::ShowAgain);
    }

    /// Notes events of a socket while its connection waits for its turn.
    pub(crate) fn tell(&mut self, more: News) {
        if let WaitReason::Turn { news, .. } = self {
            news.writable |= more.writable;
            news.gone |= more.gone;
        }
    }

    /// Ends the waiting for the turn. Returns the events of the socket, and whether the application
    /// must be shown an item again.
    pub(crate) fn take_turn(&mut self) -> (News, bool) {
        let WaitReason::Turn { news, then } = *self else { return (News::default(), false) };
        *self = WaitReason::Nothing;
        self.wait(then);
        (news, then == Then::ShowAgain)
    }

    fn then(self) -> Then {
        match self {
            WaitReason::Nothing => Then::Serve,
            WaitReason::Application => Then::AwaitApplication,
            WaitReason::Client => Then::AwaitClient,
            WaitReason::Turn { then, .. } => then,
        }
    }

    fn wait(&mut self, what: Then) {
        if let WaitReason::Turn { then, .. } = self {
            *then = what;
            return;
        }
        *self = match what {
            Then::Serve => WaitReason::Nothing,
            Then::ShowAgain | Then::AwaitApplication => WaitReason::Application,
            Then::AwaitClient => WaitReason::Client,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITABLE: News = News { writable: true, gone: false };

    #[test]
    fn a_turn_ends_and_what_was_waited_for_besides_goes_on() {
        for (wait, is_for_application, is_for_client) in [
            (WaitReason::end as fn(&mut WaitReason), false, false),
            (WaitReason::await_application, true, false),
            (WaitReason::await_client, false, true),
        ] {
            for begins_before in [true, false] {
                let mut waiting = WaitReason::Nothing;
                if begins_before {
                    wait(&mut waiting);
                }
                assert!(waiting.await_turn());
                assert!(!waiting.await_turn(), "it stands in the rounds once");
                wait(&mut waiting);
                waiting.tell(WRITABLE);
                assert!(waiting.is_for_turn());
                assert_eq!(waiting.take_turn(), (WRITABLE, false));
                assert!(!waiting.is_for_turn());
                assert_eq!(waiting.is_for_application(), is_for_application);
                assert_eq!(waiting.is_for_client(), is_for_client);
                assert_eq!(waiting.take_turn(), (News::default(), false), "news are told once");
            }
        }
    }

    #[test]
    fn a_frame_to_be_shown_again_is_waited_for_until_it_was_shown() {
        let mut waiting = WaitReason::Application;
        waiting.await_turn();
        waiting.show_again();
        assert!(waiting.is_for_application());
        assert_eq!(waiting.take_turn(), (News::default(), true));
        assert_eq!(waiting, WaitReason::Application);
        waiting.forget_application();
        assert_eq!(waiting, WaitReason::Nothing);
        waiting.await_client();
        waiting.forget_application();
        assert_eq!(waiting, WaitReason::Client, "that is another reason");
    }
}
