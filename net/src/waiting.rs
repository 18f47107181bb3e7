//! [`Waiting`]: why an event of a connection's socket does not lead to serving it.
//!
//! | it waits | ends when |
//! |---|---|
//! | for nothing | |
//! | for the application | the application was called for it ([`Waiting::Application`]) |
//! | for its client | its output was written, or most of it |
//! | for its turn | its turn has come; then it is served, or waits for its other reason |

/// The reason why a connection waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Waiting {
    /// It is served as soon as its socket has an event.
    Nothing,
    /// The application answered the item at the front with "later", or garbage must be shown
    /// without new bytes.
    Application,
    /// The client does not read its output, so it is not read either until it does.
    Client,
    /// It is in the rounds of its loop.
    Turn {
        /// The events of its socket since.
        news: News,
        then: Then,
    },
}

/// The step for a connection whose turn has come, besides handling its news.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Then {
    /// It is served.
    Serve,
    /// The application is shown again the item that it answered with "later".
    ShowAgain,
    /// It continues to wait for the application.
    AwaitApplication,
    /// It continues to wait for its client.
    AwaitClient,
}

/// Events of a socket other than that there is something to read.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct News {
    /// There is room to write.
    pub(crate) writable: bool,
    /// Nothing that is written will arrive.
    pub(crate) gone: bool,
}

impl Waiting {
    /// Whether it may be served.
    pub(crate) fn is_over(self) -> bool {
        self == Waiting::Nothing
    }

    pub(crate) fn is_for_application(self) -> bool {
        matches!(self, Waiting::Application | Waiting::Turn { then: Then::ShowAgain | Then::AwaitApplication, .. })
    }

    pub(crate) fn is_for_client(self) -> bool {
        matches!(self, Waiting::Client | Waiting::Turn { then: Then::AwaitClient, .. })
    }

    pub(crate) fn is_for_turn(self) -> bool {
        matches!(self, Waiting::Turn { .. })
    }

    /// From now on only its turn, if it waits for that, prevents it from being served.
    pub(crate) fn end(&mut self) {
        self.wait(Then::Serve);
    }

    /// From now on it waits for the application, in addition to its turn.
    pub(crate) fn await_application(&mut self) {
        self.wait(Then::AwaitApplication);
    }

    /// From now on it waits for its client, in addition to its turn.
    pub(crate) fn await_client(&mut self) {
        self.wait(Then::AwaitClient);
    }

    /// There is no item left that the application could be shown again.
    pub(crate) fn forget_application(&mut self) {
        if self.is_for_application() {
            self.end();
        }
    }

    /// Makes it wait for its turn, too. Returns whether it did not before: then the caller puts it
    /// into the rounds.
    pub(crate) fn await_turn(&mut self) -> bool {
        let is_new = !self.is_for_turn();
        if is_new {
            *self = Waiting::Turn { news: News::default(), then: self.then() };
        }
        is_new
    }

    /// When its turn comes, the application must be shown the held item again.
    pub(crate) fn show_again(&mut self) {
        debug_assert!(self.is_for_turn() && self.is_for_application());
        self.wait(Then::ShowAgain);
    }

    /// Notes events of a socket while its connection waits for its turn.
    pub(crate) fn tell(&mut self, more: News) {
        if let Waiting::Turn { news, .. } = self {
            news.writable |= more.writable;
            news.gone |= more.gone;
        }
    }

    /// Its turn has come: returns its events, and whether the application must be shown an item
    /// again.
    pub(crate) fn take_turn(&mut self) -> (News, bool) {
        let Waiting::Turn { news, then } = *self else { return (News::default(), false) };
        *self = Waiting::Nothing;
        self.wait(then);
        (news, then == Then::ShowAgain)
    }

    fn then(self) -> Then {
        match self {
            Waiting::Nothing => Then::Serve,
            Waiting::Application => Then::AwaitApplication,
            Waiting::Client => Then::AwaitClient,
            Waiting::Turn { then, .. } => then,
        }
    }

    fn wait(&mut self, what: Then) {
        if let Waiting::Turn { then, .. } = self {
            *then = what;
            return;
        }
        *self = match what {
            Then::Serve => Waiting::Nothing,
            Then::ShowAgain | Then::AwaitApplication => Waiting::Application,
            Then::AwaitClient => Waiting::Client,
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
            (Waiting::end as fn(&mut Waiting), false, false),
            (Waiting::await_application, true, false),
            (Waiting::await_client, false, true),
        ] {
            for begins_before in [true, false] {
                let mut waiting = Waiting::Nothing;
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
        let mut waiting = Waiting::Application;
        waiting.await_turn();
        waiting.show_again();
        assert!(waiting.is_for_application());
        assert_eq!(waiting.take_turn(), (News::default(), true));
        assert_eq!(waiting, Waiting::Application);
        waiting.forget_application();
        assert_eq!(waiting, Waiting::Nothing);
        waiting.await_client();
        waiting.forget_application();
        assert_eq!(waiting, Waiting::Client, "that is another reason");
    }
}
