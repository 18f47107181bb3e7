//! Reads a connection and shows its bytes to the application, one item after the other.

use crate::connection::{Connection, Input, Phase, Read1};
use crate::framing::{Found, Piece};
use crate::handler::{CloseReason, Flow, Handler, Incoming};
use crate::link::Turn;

/// How showing the received bytes to the application ended.
pub(crate) enum Shown {
    /// All that is complete was taken.
    All,
    /// It has cost enough for this turn: go on in the next.
    Costly,
    /// As much was read as one connection may read at once, and there may be more.
    More,
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

/// Reads what there is, within a budget, and shows it to the application.
pub(crate) fn read_and_show<H: Handler>(
    handler: &mut H,
    turn: &mut Turn<H::Message>,
    conn: &mut Connection<H::Conn, H::Message>,
    scratch: &mut [u8],
) -> Shown {
    let mut budget = READ_BYTES;
    let mut shown = match conn.waiting.is_for_application() || conn.owes() {
        true => show_received(handler, turn, conn),
        false => Shown::All,
    };
    while matches!(shown, Shown::All) && conn.input.flows() {
        if budget == 0 {
            return Shown::More;
        }
        let read = conn.read(scratch, turn.now());
        if conn.input == Input::Ended && conn.link.is_sealed() {
            tell_hang_up(handler, turn, conn);
        }
        let (Read1::Fresh(count) | Read1::Appended(count)) = read;
        spend_on_unshown(turn, count);
        shown = match read {
            Read1::Fresh(count) => {
                let (consumed, shown) = show(handler, turn, conn, &mut scratch[..count]);
                if consumed < count {
                    conn.keep(&scratch[consumed..count]);
                }
                shown
            }
            Read1::Appended(_) => show_received(handler, turn, conn),
        };
        budget = budget.saturating_sub(count);
    }
    shown
}

/// Bytes that are never shown, blanks or a frame without an end, cost the reading and the search.
pub(crate) fn spend_on_unshown<M>(turn: &mut Turn<M>, bytes: usize) {
    turn.budget.spend(bytes / DISCARDED_PER_WORK);
}

/// Shows the application what was received and kept, and keeps what is left.
fn show_received<H: Handler>(
    handler: &mut H,
    turn: &mut Turn<H::Message>,
    conn: &mut Connection<H::Conn, H::Message>,
) -> Shown {
    let Some(mut kept) = conn.take_kept() else { return show(handler, turn, conn, &mut []).1 };
    let (consumed, shown) = show(handler, turn, conn, kept.rest_mut());
    conn.put_back(kept, consumed);
    shown
}

/// What is at the front of a connection's bytes, and is to be done about it.
enum Front {
    /// There is nothing before more arrives.
    Nothing,
    /// So many bytes are passed over.
    Passed(usize),
    /// Much was passed over, which the application is told.
    Blanks,
    Frame(Piece),
    /// So many bytes of garbage, beside those that were passed over.
    Garbage(usize),
    /// The last that is shown, and why the connection closes then.
    Last(Incoming<'static>, CloseReason),
}

/// Shows the application the frames in `bytes`; returns how many bytes are done with.
fn show<H: Handler>(
    handler: &mut H,
    turn: &mut Turn<H::Message>,
    conn: &mut Connection<H::Conn, H::Message>,
    bytes: &mut [u8],
) -> (usize, Shown) {
    // The first look is at once: an application that holds often may be shown one item at a time.
    let (mut consumed, mut taken) = (0, FRAMES_BETWEEN_LOOKS);
    loop {
        if turn.is_spent() {
            return (consumed, Shown::Costly);
        }
        // The end is shown all the same: it asks for no answer.
        if taken == FRAMES_BETWEEN_LOOKS && consumed < bytes.len() {
            taken = 0;
            if is_congested(turn, conn) {
                return (consumed, Shown::Congested);
            }
        }
        let rest = &mut bytes[consumed..];
        let front = find_front(turn, conn, rest);
        let incoming = match front {
            Front::Nothing => return (consumed, Shown::All),
            Front::Passed(len) => {
                conn.blanks += len;
                consumed += len;
                continue;
            }
            Front::Blanks => Incoming::Blanks { len: conn.blanks },
            Front::Frame(piece) => Incoming::Frame(&rest[piece.payload()]),
            Front::Garbage(len) => Incoming::Garbage { len: conn.blanks + len },
            Front::Last(incoming, _) => incoming,
        };
        let Phase::Open(app) = &mut conn.phase else { unreachable!("shown only while open") };
        match handler.on_incoming(turn, &conn.link, app, incoming) {
            Flow::Taken => {}
            Flow::Later => return (consumed, Shown::Held),
            Flow::Last => return (bytes.len(), Shown::Over(CloseReason::Excess)),
        }
        taken += 1;
        match take(turn, conn, front) {
            Ok(len) => consumed += len,
            Err(reason) => return (bytes.len(), Shown::Over(reason)),
        }
    }
}

/// What was shown was taken: how many bytes are done with, or why the connection closes now.
fn take<A, M>(turn: &mut Turn<M>, conn: &mut Connection<A, M>, front: Front) -> Result<usize, CloseReason> {
    let (work, len) = match front {
        Front::Frame(piece) => {
            conn.blanks += piece.head + piece.tail;
            (piece.len, piece.total())
        }
        Front::Garbage(len) => {
            conn.blanks = 0;
            (len, len)
        }
        Front::Blanks => {
            conn.blanks = 0;
            return Ok(0);
        }
        Front::Last(_, reason) => return Err(reason),
        Front::Nothing | Front::Passed(_) => unreachable!("not shown"),
    };
    conn.reader.taken();
    turn.budget.spend(work + ITEM_WORK);
    Ok(len)
}

/// Whether too much waits for the client to be read on, also after another write.
fn is_congested<A, M>(turn: &mut Turn<M>, conn: &Connection<A, M>) -> bool {
    if !conn.link.is_congested() {
        return false;
    }
    // All that was sent, because the replies here may confirm it.
    turn.flush();
    conn.link.flush(turn);
    conn.link.is_congested()
}

/// Finds out what comes next. `bytes` is all that was received and not consumed.
fn find_front<A, M>(turn: &mut Turn<M>, conn: &mut Connection<A, M>, bytes: &mut [u8]) -> Front {
    // Those of garbage that is about to be shown are part of it.
    if conn.blanks >= BLANKS_UNSHOWN_MAX && !conn.reader.has_shown() {
        return Front::Blanks;
    }
    let found = conn.reader.find(bytes, !conn.input.flows());
    if let Some(notice) = conn.reader.notice() {
        conn.link.heed(turn, notice);
    }
    match found {
        Found::Frame(piece) => Front::Frame(piece),
        Found::Garbage { len } => Front::Garbage(len),
        Found::Skip { len } => Front::Passed(len),
        Found::Oversize => Front::Last(Incoming::Oversize, CloseReason::Oversize),
        Found::Foreign(foreign) => Front::Last(Incoming::Foreign(foreign), CloseReason::Foreign),
        Found::Incomplete if conn.input != Input::Ended => Front::Nothing,
        Found::Incomplete if conn.reader.is_inside() => {
            conn.reader.give_up();
            Front::Passed(bytes.len())
        }
        Found::Incomplete => Front::Last(last_word(conn), conn.ends),
    }
}

/// What is shown when the input is over.
fn last_word<A, M>(conn: &Connection<A, M>) -> Incoming<'static> {
    match conn.ends {
        CloseReason::Stopped => Incoming::Stop,
        CloseReason::TurnedAway => Incoming::Crowded,
        reason => {
            if reason == CloseReason::Ended {
                conn.link.on_peer_ended();
            }
            Incoming::End
        }
    }
}

/// What one read asks for: the usual longest frame.
pub(crate) const READ_BYTES: usize = 64 * 1024;
/// Bytes that are read and dropped cost less than those that are looked at.
const DISCARDED_PER_WORK: usize = 4;
/// Items that are shown before the output is looked at again.
const FRAMES_BETWEEN_LOOKS: usize = 64;
/// What an item costs beside its bytes.
const ITEM_WORK: usize = 512;
/// Bytes that ask for no answer and are not shown before more have come.
const BLANKS_UNSHOWN_MAX: usize = 4096;
