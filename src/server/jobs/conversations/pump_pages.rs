//! Pages for a pump.
//!
//! A pump asks for what follows the last message that it has written. In a group the user may have left
//! since, and come back, and the news of it may be on its way or lost. Then the page ends with the 57
//! that ended the membership, as if the news had come first.

use super::parts;
use crate::base::conversation::{ConversationId, Seq, Tag};
use crate::devices::tasks::MemberNews;
use crate::history::cursor::Extent;
use crate::history::pump::{PumpEvent, Row, RowPage};
use crate::protocol::UserId;
use crate::protocol::level2::{PAGE_BYTES_MAX, PAGE_MAX, frames, replies};
use crate::store::StoreError;
use crate::store::history::{Entry, History};

/// The page that a pump asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageWanted {
    pub(super) conv: ConversationId,
    pub(super) from: Seq,
    /// The last message that the user may see, if that is known.
    pub(super) to: Option<Seq>,
    /// The client was shown nothing of the conversation.
    pub(super) is_new: bool,
    /// A message that was written: its tag is wanted.
    pub(super) written: Option<Seq>,
}

/// Reads a page. What the user could see before leaving is shown to the end.
pub(super) fn read(history: &dyn History, user: UserId, wanted: &PageWanted) -> Result<MemberNews, StoreError> {
    let PageWanted { conv, from, to, is_new, written } = *wanted;
    let Some(found) = history.heads_of(user, &[conv])?.pop() else { return Ok(one(PumpEvent::PageFailed)) };
    let is_visible = found.as_ref().is_ok_and(|head| head.floor < from);
    if !is_visible
        && !is_new
        && conv.group().is_some()
        && let Some(rest) = rest_of_membership(history, user, wanted)?
    {
        return Ok(rest);
    }
    let head = match found {
        Ok(head) => head,
        Err(denied) => return Ok(one(PumpEvent::PageDenied(parts::denied(denied)))),
    };
    let first = from.max(head.floor + 1);
    let last = to.unwrap_or(head.head).min(head.head).min(first + PAGE_MAX as Seq - 1);
    let entries = if first <= last { history.run(conv, first, last, false, PAGE_BYTES_MAX)? } else { Vec::new() };
    let mut extent = Extent { head: head.head, floor: head.floor };
    let written = match written {
        Some(seq) if seq == head.head && entries.is_empty() => head.tag,
        Some(seq) => {
            let tag = tag_now(history, conv, Some(seq))?;
            if tag.is_none() && seq > extent.floor {
                // It is lost, or it was deleted for its age after the floor was read.
                let again = history.heads_of(user, &[conv])?.pop().and_then(Result::ok);
                extent.floor = again.map_or(extent.floor, |head| head.floor.max(extent.floor));
            }
            tag
        }
        None => None,
    };
    Ok(one(PumpEvent::Page(page(conv, user, extent, &entries, written))))
}

/// The tag that this number has now, after the rows of a page were read: if the database falls back to an
/// older state while a page is read, the tag says so.
fn tag_now(history: &dyn History, conv: ConversationId, written: Option<Seq>) -> Result<Option<Tag>, StoreError> {
    match written.filter(|seq| *seq > 0) {
        Some(seq) => Ok(history.tags(&[(conv, seq)])?.pop().flatten()),
        None => Ok(None),
    }
}

/// The rest of a membership of which the message before `from` was a part; `None` if its end is not
/// found.
fn rest_of_membership(
    history: &dyn History,
    user: UserId,
    &PageWanted { conv, from, to, written, .. }: &PageWanted,
) -> Result<Option<MemberNews>, StoreError> {
    let to = to.unwrap_or(Seq::MAX);
    let piece = |from: Seq| {
        let last = to.min(from.saturating_add(PAGE_MAX as Seq - 1));
        if from <= last { history.run(conv, from, last, false, PAGE_BYTES_MAX) } else { Ok(Vec::new()) }
    };
    let end_in = |entries: &[Entry]| {
        let ends = |entry: &&Entry| entry.text.as_deref().is_some_and(|text| replies::ends_membership(text, user));
        entries.iter().find(ends).map(|entry| entry.seq)
    };
    let mut entries = piece(from)?;
    let mut end = end_in(&entries);
    let mut next = entries.last().map(|entry| entry.seq + 1);
    for _ in 1..PIECES_MAX {
        let Some(from) = next.filter(|from| end.is_none() && *from <= to) else { break };
        let more = piece(from)?;
        (end, next) = (end_in(&more), more.last().map(|entry| entry.seq + 1));
    }
    // Up to `to` the user was a member, if it is given.
    let Some(last) = end.or(Some(to).filter(|to| *to < Seq::MAX && *to >= from)) else { return Ok(None) };
    entries.retain(|entry| entry.seq <= last);
    let floor = entries.first().map_or(from, |entry| entry.seq) - 1;
    let written = tag_now(history, conv, written)?;
    let page = PumpEvent::Page(page(conv, user, Extent { head: last, floor }, &entries, written));
    let left = end.map(|end| PumpEvent::Left { conv, seen: Some((from, end)) });
    Ok(Some(MemberNews::Pump(left.into_iter().chain([page]).collect())))
}

/// These messages, as the pump is given them.
pub(super) fn page(
    conv: ConversationId,
    user: UserId,
    extent: Extent,
    entries: &[Entry],
    written: Option<Tag>,
) -> RowPage {
    let name = conv.name_for(user);
    let row = |entry: &Entry| {
        let message = parts::shown(entry);
        Row { at: message.at, from: entry.from, frame: frames::pushed(name, &message).into() }
    };
    RowPage { extent, rows: entries.iter().map(row).collect(), written }
}

fn one(event: PumpEvent) -> MemberNews {
    MemberNews::Pump(vec![event])
}

/// The most pages in which the end of a membership is looked for. Beyond that the client is told that the
/// group is not the user's.
const PIECES_MAX: usize = 10;
