//! Reads a connection and shows its bytes to the application, one item after the other.

use std::ops::Range;

use crate::connection::{Connection, ConnectionPhase, InputState, Read1, Way};
use crate::framing::{Foreign, FoundItem, FramingEnd, HttpItem, Notice, Piece};
use crate::handler::{CloseReason, Flow, Handler, HttpFlow, Incoming};
use crate::link::Turn;

/// The result of showing the received bytes to the application.
pub(crate) enum ShowOutcome {
    /// All complete items were taken.
    All,
    /// The budget of this turn is used up: continue in the next turn.
    Costly,
    /// One connection's limit of reading was reached, and there may be more.
    More,
    /// So much output waits for the client that it is not read further.
    Congested,
    /// The application wants the rest later.
    Held,
    /// The connection is closing.
    Over(CloseReason),
}

/// Notifies the application, once, that nothing sent to the connection will arrive.
pub(crate) fn tell_hang_up<H: Handler>(
    handler: &mut H,
    turn: &mut Turn<H::Message>,
    conn: &mut Connection<H::Conn, H::Message>,
) {
    conn.link.seal();
    tell_reports(handler, turn, conn);
    if let ConnectionPhase::Open(app) = &mut conn.phase
        && !std::mem::replace(&mut conn.hung_up, true)
    {
        handler.on_hang_up(turn, &conn.link, app);
    }
}

/// Reports the acknowledgements that the application waits for. Returns whether there were any.
pub(crate) fn tell_reports<H: Handler>(
    handler: &mut H,
    turn: &mut Turn<H::Message>,
    conn: &mut Connection<H::Conn, H::Message>,
) -> bool {
    let ConnectionPhase::Open(app) = &mut conn.phase else { return false };
    let reports = conn.link.take_reports(turn);
    for label in &reports {
        handler.on_sent(turn, &conn.link, app, *label);
    }
    !reports.is_empty()
}

/// Reads the available input, within a budget, and shows it to the application.
pub(crate) fn read_and_show<H: Handler>(
    handler: &mut H,
    turn: &mut Turn<H::Message>,
    conn: &mut Connection<H::Conn, H::Message>,
    scratch: &mut [u8],
) -> ShowOutcome {
    let mut budget = READ_BYTES;
    let mut shown = match conn.waiting.is_for_application() || conn.owes() {
        true => show_received(handler, turn, conn),
        false => ShowOutcome::All,
    };
    while matches!(shown, ShowOutcome::All) && conn.input.flows() {
        if budget == 0 {
            return ShowOutcome::More;
        }
        let read = conn.read(scratch, turn);
        if conn.input == InputState::Ended && conn.link.is_sealed() {
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

/// Charges for bytes that are never shown (blanks, or a frame without an end): they cost reading
/// and scanning.
pub(crate) fn spend_on_unshown<M>(turn: &mut Turn<M>, bytes: usize) {
    turn.budget.spend(bytes / DISCARDED_PER_WORK);
}

/// Shows the application the received and kept bytes, and keeps the rest.
fn show_received<H: Handler>(
    handler: &mut H,
    turn: &mut Turn<H::Message>,
    conn: &mut Connection<H::Conn, H::Message>,
) -> ShowOutcome {
    let Some(mut kept) = conn.take_kept() else { return show(handler, turn, conn, &mut []).1 };
    let (consumed, shown) = show(handler, turn, conn, kept.rest_mut());
    conn.put_back(kept, consumed);
    shown
}

/// The item at the front of a connection's bytes, and the step for it.
enum Front {
    /// No item before more bytes arrive.
    Nothing,
    /// Skip this number of bytes.
    Passed(usize),
    /// Many bytes were skipped, and the application is shown their number.
    Blanks,
    Frame(Piece),
    /// This number of bytes of garbage, in addition to the skipped ones.
    Garbage(usize),
    /// The last item, and why the connection then closes.
    Last(Incoming<'static>, CloseReason),
    /// The framing has answered this number of bytes; skip them.
    Answered(usize),
    Http(HttpItem),
}

/// Shows the application the frames in `bytes`; returns the number of consumed bytes.
fn show<H: Handler>(
    handler: &mut H,
    turn: &mut Turn<H::Message>,
    conn: &mut Connection<H::Conn, H::Message>,
    bytes: &mut [u8],
) -> (usize, ShowOutcome) {
    // The first check is immediate: an application that holds often may be shown one item at a
    // time.
    let (mut consumed, mut taken) = (0, FRAMES_BETWEEN_LOOKS);
    loop {
        if let Some(shown) = why_to_stop(turn, conn, consumed..bytes.len(), &mut taken) {
            return (consumed, shown);
        }
        let rest = &mut bytes[consumed..];
        let front = find_front(turn, conn, rest);
        let incoming = match front {
            Front::Nothing => return (consumed, ShowOutcome::All),
            Front::Passed(len) => {
                conn.blanks += len;
                consumed += len;
                continue;
            }
            Front::Blanks => Incoming::Blanks { len: conn.blanks },
            Front::Frame(piece) => Incoming::Frame(&rest[piece.payload()]),
            Front::Garbage(len) => Incoming::Garbage { len: conn.blanks + len },
            Front::Last(incoming, _) => incoming,
            Front::Answered(len) => {
                turn.budget.spend(ITEM_WORK);
                conn.blanks += len;
                (consumed, taken) = (consumed + len, taken + 1);
                continue;
            }
            Front::Http(item) => match show_http(handler, turn, conn, rest, item) {
                Ok(len) => {
                    (consumed, taken) = (consumed + len, taken + 1);
                    continue;
                }
                Err(ShowOutcome::Held) => return (consumed, ShowOutcome::Held),
                Err(shown) => return (bytes.len(), shown),
            },
        };
        let ConnectionPhase::Open(app) = &mut conn.phase else { unreachable!("shown only while open") };
        match handler.on_incoming(turn, &conn.link, app, incoming) {
            Flow::Taken => {}
            Flow::Later => return (consumed, ShowOutcome::Held),
            Flow::Last => return (bytes.len(), ShowOutcome::Over(CloseReason::Excess)),
        }
        taken += 1;
        match take(turn, conn, front) {
            Ok(len) => consumed += len,
            Err(reason) => return (bytes.len(), ShowOutcome::Over(reason)),
        }
    }
}

/// Completes an item that was taken. Returns the number of bytes to skip, or why the connection
/// closes now.
fn take<A, M>(turn: &mut Turn<M>, conn: &mut Connection<A, M>, front: Front) -> Result<usize, CloseReason> {
    let (work, len) = match front {
        Front::Frame(piece) => {
            conn.blanks += piece.head + piece.tail;
            conn.reader.taken(Some(piece));
            (piece.len, piece.total())
        }
        Front::Garbage(len) => {
            conn.blanks = 0;
            conn.reader.taken(None);
            (len, len)
        }
        Front::Blanks => {
            conn.blanks = 0;
            return Ok(0);
        }
        Front::Last(_, reason) => return Err(reason),
        Front::Nothing | Front::Passed(_) | Front::Answered(_) | Front::Http(_) => unreachable!("not shown here"),
    };
    turn.budget.spend(work + ITEM_WORK);
    Ok(len)
}

/// Shows a part of an HTTP request. Returns the number of bytes to skip.
#[cold]
fn show_http<H: Handler>(
    handler: &mut H,
    turn: &mut Turn<H::Message>,
    conn: &mut Connection<H::Conn, H::Message>,
    bytes: &[u8],
    item: HttpItem,
) -> Result<usize, ShowOutcome> {
    let ConnectionPhase::Open(app) = &mut conn.phase else { unreachable!("shown only while open") };
    turn.budget.spend(item.len() + ITEM_WORK);
    match handler.on_http(turn, &conn.link, app, item.part(bytes)) {
        HttpFlow::Next => conn.reader.taken(None),
        HttpFlow::Body(len) => conn.reader.expect_body(len),
        HttpFlow::Later => return Err(ShowOutcome::Held),
        HttpFlow::WebSocket => {
            conn.reader.become_websocket();
            conn.link.speak_websocket();
        }
        HttpFlow::Last => return Err(ShowOutcome::Over(CloseReason::Answered)),
    }
    Ok(item.len())
}

/// Whether too much output waits for the client to be read further, even after another write.
fn is_congested<A, M>(turn: &mut Turn<M>, conn: &Connection<A, M>) -> bool {
    if !conn.link.is_congested() {
        return false;
    }
    // Everything sent in this turn is written, because the replies here may confirm it.
    turn.flush();
    conn.link.flush(turn);
    conn.link.is_congested()
}

/// Whether to stop before `rest`, the bytes not yet looked at. `taken`: items since the last look
/// at the output.
#[inline]
fn why_to_stop<A, M>(
    turn: &mut Turn<M>,
    conn: &Connection<A, M>,
    rest: Range<usize>,
    taken: &mut usize,
) -> Option<ShowOutcome> {
    if turn.is_spent() {
        return Some(ShowOutcome::Costly);
    }
    if rest.is_empty() {
        // The end is shown in any case, because it needs no answer.
        return (rest.start > 0 && awaits_bytes(conn)).then_some(ShowOutcome::All);
    }
    if *taken == FRAMES_BETWEEN_LOOKS {
        *taken = 0;
        if is_congested(turn, conn) {
            return Some(ShowOutcome::Congested);
        }
    }
    None
}

/// Whether an empty rest yields no item, and the end of the input is not to be shown.
fn awaits_bytes<A, M>(conn: &Connection<A, M>) -> bool {
    conn.reader.awaits_bytes() && conn.input != InputState::Ended && conn.blanks < BLANKS_UNSHOWN_MAX
}

/// Finds the next item. `bytes` are all received and unconsumed bytes.
fn find_front<A, M>(turn: &mut Turn<M>, conn: &mut Connection<A, M>, bytes: &mut [u8]) -> Front {
    // Blanks before garbage that is about to be shown are part of it.
    if conn.blanks >= BLANKS_UNSHOWN_MAX && !conn.reader.has_shown() {
        return Front::Blanks;
    }
    let found = conn.reader.find(bytes, !conn.input.flows());
    if let Some(notice) = conn.reader.notice() {
        let is_answer = matches!(notice, Notice::Answer(_));
        conn.link.heed(turn, notice);
        if let (FoundItem::Skip { len }, true) = (found, is_answer) {
            return Front::Answered(len);
        }
    }
    match found {
        FoundItem::Frame(piece) => Front::Frame(piece),
        FoundItem::Garbage { len } => Front::Garbage(len),
        FoundItem::Skip { len } => Front::Passed(len),
        FoundItem::Oversize => Front::Last(Incoming::Oversize, CloseReason::Oversize),
        FoundItem::BeginsHttp => {
            conn.reader.become_http();
            Front::Passed(0)
        }
        FoundItem::Foreign(foreign) => Front::Last(Incoming::Foreign(foreign), CloseReason::Foreign),
        FoundItem::Http(item) => Front::Http(item),
        FoundItem::Ended(ending) => match ending {
            FramingEnd::Peer => {
                conn.link.on_peer_ended();
                Front::Last(Incoming::End, CloseReason::Ended)
            }
            FramingEnd::Violation => Front::Last(Incoming::End, CloseReason::Violation),
            FramingEnd::TooLong => Front::Last(Incoming::End, CloseReason::Oversize),
        },
        FoundItem::Incomplete if conn.input != InputState::Ended => Front::Nothing,
        FoundItem::Incomplete if conn.reader.is_inside() => {
            conn.reader.give_up();
            Front::Passed(bytes.len())
        }
        FoundItem::Incomplete => Front::Last(last_word(conn), conn.ends),
    }
}

/// The last item that is shown when the input has ended.
fn last_word<A, M>(conn: &Connection<A, M>) -> Incoming<'static> {
    match conn.ends {
        CloseReason::Stopped => Incoming::Stop,
        CloseReason::TurnedAway => Incoming::Crowded,
        CloseReason::Foreign => Incoming::Foreign(Foreign::Plain { http: conn.way == Way::Refused { http: true } }),
        reason => {
            if reason == CloseReason::Ended {
                conn.link.on_peer_ended();
            }
            Incoming::End
        }
    }
}

/// The size of one read: the usual longest frame.
pub(crate) const READ_BYTES: usize = 64 * 1024;
/// The factor by which bytes that are read and dropped cost less than processed ones.
const DISCARDED_PER_WORK: usize = 4;
/// Items that are shown between two checks of the output.
const FRAMES_BETWEEN_LOOKS: usize = 64;
/// The cost of an item in addition to its bytes.
const ITEM_WORK: usize = 512;
/// The number of bytes without an answer that may accumulate before they are shown.
const BLANKS_UNSHOWN_MAX: usize = 4096;
