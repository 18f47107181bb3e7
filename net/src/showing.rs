//! Shows a connection's bytes to the application, one item after the other.

use std::sync::Arc;

use crate::codec::Item;
use crate::connection::{Connection, Input, Phase};
use crate::handler::{CloseReason, Flow, Handler, Incoming};
use crate::link::Link;
use crate::turn::Turn;

/// How showing the received bytes to the application ended.
pub(crate) enum Shown {
    /// All that is complete was taken.
    All,
    /// It has cost enough for this turn: go on in the next.
    Costly,
    /// Too much waits for the client to be read on.
    Congested,
    /// The application wants the rest later.
    Held,
    /// It is over.
    Over(CloseReason),
}

/// Tells the application, once, that nothing sent to the connection will arrive.
pub(crate) fn tell_hang_up<H: Handler>(
    handler: &mut H,
    turn: &mut Turn<H::Message>,
    conn: &mut Connection<H::Conn, H::Message>,
) {
    conn.link.seal();
    tell_reports(handler, turn, conn);
    if let Phase::Open(app) = &mut conn.phase
        && !std::mem::replace(&mut conn.hung_up, true)
    {
        handler.on_hang_up(turn, &conn.link, app);
    }
}

/// Tells the application what the peer's kernel has acknowledged of what it waits for; whether there was something.
pub(crate) fn tell_reports<H: Handler>(
    handler: &mut H,
    turn: &mut Turn<H::Message>,
    conn: &mut Connection<H::Conn, H::Message>,
) -> bool {
    let Phase::Open(app) = &mut conn.phase else { return false };
    let reports = conn.link.take_reports(turn);
    for label in &reports {
        handler.on_sent(turn, &conn.link, app, *label);
    }
    !reports.is_empty()
}

/// Shows the application what was received and kept, and keeps what is left.
pub(crate) fn show_received<H: Handler>(
    handler: &mut H,
    turn: &mut Turn<H::Message>,
    conn: &mut Connection<H::Conn, H::Message>,
) -> Shown {
    let Some(kept) = conn.take_kept() else { return show(handler, turn, conn, &[]).1 };
    let (consumed, shown) = show(handler, turn, conn, kept.rest());
    conn.put_back(kept, consumed);
    shown
}

/// Shows the application the frames in `bytes`; returns how many bytes are done with.
pub(crate) fn show<H: Handler>(
    handler: &mut H,
    turn: &mut Turn<H::Message>,
    conn: &mut Connection<H::Conn, H::Message>,
    bytes: &[u8],
) -> (usize, Shown) {
    let Connection { phase: Phase::Open(app), link, input, ends, decoder, blanks, lines, .. } = conn else {
        unreachable!("shown only while open")
    };
    let ended = !input.flows();
    // The first look is at once: an application that holds often may be shown one item at a time.
    let (mut consumed, mut taken) = (0, FRAMES_BETWEEN_LOOKS);
    loop {
        if turn.is_spent() {
            return (consumed, Shown::Costly);
        }
        // The end is shown all the same: it asks for no answer.
        if taken == FRAMES_BETWEEN_LOOKS && consumed < bytes.len() {
            taken = 0;
            if link.is_congested() {
                // All that was sent, because the replies here may confirm it.
                turn.flush();
                link.flush(turn);
                if link.is_congested() {
                    return (consumed, Shown::Congested);
                }
            }
        }
        let rest = &bytes[consumed..];
        // Those of garbage that is about to be shown are part of it.
        if *blanks >= BLANKS_UNSHOWN_MAX && !decoder.has_shown() {
            match handler.on_incoming(turn, link, app, Incoming::Blanks { len: *blanks }) {
                Flow::Later => return (consumed, Shown::Held),
                Flow::Last => return (bytes.len(), Shown::Over(CloseReason::Excess)),
                Flow::Taken => *blanks = 0,
                Flow::NoFrame => unreachable!("an answer to what is likely only"),
            }
            taken += 1;
            continue;
        }
        // The first frame that ends a line is looked at closely: the reply to it has to be a line as well.
        let guess = decoder.guess(rest).filter(|(len, line_end)| *lines || len == line_end);
        if let Some((len, line_end)) = guess {
            match handler.on_incoming(turn, link, app, Incoming::Likely(&rest[..len])) {
                Flow::Later => return (consumed, Shown::Held),
                Flow::Last => return (bytes.len(), Shown::Over(CloseReason::Excess)),
                Flow::Taken => {
                    decoder.guessed_right(len, line_end);
                    consumed += line_end;
                    *blanks += line_end - len;
                    taken += 1;
                    turn.budget.spend(len + ITEM_WORK);
                    continue;
                }
                Flow::NoFrame => {}
            }
        }
        let (incoming, len, line) = match decoder.look(rest, ended) {
            Item::Frame { len, line } => (Incoming::Frame(&rest[..len]), len, line),
            Item::Garbage { len, line } => (Incoming::Garbage { len: *blanks + len }, len, line),
            Item::Oversize => (Incoming::Oversize, 0, false),
            Item::Foreign(foreign) => (Incoming::Foreign(foreign), 0, false),
            Item::LineEnd { len } => {
                decoder.taken();
                use_lines(lines, link, turn);
                consumed += len;
                *blanks += len;
                continue;
            }
            Item::Blank { len } => {
                consumed += len;
                *blanks += len;
                continue;
            }
            Item::Incomplete if *input != Input::Ended => return (consumed, Shown::All),
            Item::Incomplete if decoder.is_inside() => {
                decoder.give_up();
                *blanks += bytes.len() - consumed;
                consumed = bytes.len();
                continue;
            }
            Item::Incomplete if *ends == CloseReason::Stopped => (Incoming::Stop, 0, false),
            Item::Incomplete if *ends == CloseReason::TurnedAway => (Incoming::Crowded, 0, false),
            Item::Incomplete => {
                if *ends == CloseReason::Ended {
                    link.on_peer_ended();
                }
                (Incoming::End, 0, false)
            }
        };
        if line {
            use_lines(lines, link, turn);
        }
        match (handler.on_incoming(turn, link, app, incoming), incoming) {
            (Flow::Later, _) => return (consumed, Shown::Held),
            (Flow::Taken, Incoming::Oversize) => return (bytes.len(), Shown::Over(CloseReason::Oversize)),
            (Flow::Taken, Incoming::Foreign(_)) => return (bytes.len(), Shown::Over(CloseReason::Foreign)),
            (Flow::Taken, Incoming::End | Incoming::Stop | Incoming::Crowded) => {
                return (bytes.len(), Shown::Over(*ends));
            }
            (Flow::Last, _) => return (bytes.len(), Shown::Over(CloseReason::Excess)),
            (Flow::Taken, Incoming::Blanks { .. } | Incoming::Likely(_)) => unreachable!("shown above"),
            (Flow::NoFrame, _) => unreachable!("an answer to what is likely only"),
            (Flow::Taken, Incoming::Frame(_) | Incoming::Garbage { .. }) => {
                if let Incoming::Garbage { .. } = incoming {
                    *blanks = 0;
                }
                decoder.taken();
                consumed += len;
                taken += 1;
                turn.budget.spend(len + ITEM_WORK);
            }
        }
    }
}

/// The client has ended a frame with a newline; it is told of once.
fn use_lines<M>(lines: &mut bool, link: &Arc<Link<M>>, turn: &mut Turn<M>) {
    if !std::mem::replace(lines, true) {
        link.use_lines(turn);
    }
}

/// Items that are shown before the output is looked at again.
const FRAMES_BETWEEN_LOOKS: usize = 64;
/// What an item costs beside its bytes.
const ITEM_WORK: usize = 512;
/// Bytes that ask for no answer and are not shown before more have come.
const BLANKS_UNSHOWN_MAX: usize = 4096;
