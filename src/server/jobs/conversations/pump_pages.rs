//! Pages for a pump.
//!
//! A pump requests the messages after the last one that it has written. In a group the user may
//! have left since, and come back, and news of that may be on their way or lost. Then the page ends
//! with the 57 that ended the membership, as if the news had come first.

use super::parts;
use crate::base::conversation::{ConversationId, Seq, Tag};
use crate::devices::tasks::MemberNews;
use crate::history::cursor::Extent;
use crate::history::pump::{PumpEvent, Row, RowPage};
use crate::protocol::UserId;
use crate::protocol::level2::{PAGE_BYTES_MAX, PAGE_MAX, frames, replies};
use crate::store::StoreError;
use crate::store::history::{History, HistoryEntry};

/// The page that a pump requests.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageWanted {
    pub(super) conv: ConversationId,
    pub(super) from: Seq,
    /// The last message that the user may see, if known.
    pub(super) to: Option<Seq>,
    /// Whether nothing of the conversation was written.
    pub(super) is_new: bool,
    /// The number of a message that was written, whose tag is wanted.
    pub(super) written: Option<Seq>,
}

/// Reads a page. A former member is shown everything up to the end of the membership.
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
    let mut extent = Extent { head: head.head, floor: head.floor };
    let (entries, tag) = match written {
        Some(seq) if seq == head.head && first > last => (Vec::new(), head.tag),
        written => rows(history, conv, (first, last), written)?,
    };
    if tag.is_none()
        && written.is_some_and(|seq| seq > extent.floor)
        && let Some(Ok(now)) = history.heads_of(user, &[conv])?.pop()
    {
        // The message is lost, or was deleted for its age after the floor was read.
        extent = Extent { head: now.head, floor: now.floor.max(extent.floor).min(now.head) };
    }
    Ok(one(PumpEvent::Page(page(conv, user, extent, &entries, tag))))
}

/// The messages from `first` to `last`, and the present tag of `written`. The tag is read with the
/// messages or after them, so it reveals if the database has fallen back to an older state
/// meanwhile.
fn rows(
    history: &dyn History,
    conv: ConversationId,
    (first, last): (Seq, Seq),
    written: Option<Seq>,
) -> Result<(Vec<HistoryEntry>, Option<Tag>), StoreError> {
    let written = written.filter(|seq| *seq > 0);
    if first > last {
        return Ok((Vec::new(), tag_now(history, conv, written)?));
    }
    // The message before the first one is read with them, if a page has room for both.
    let is_before = written == Some(first - 1);
    let mut entries = history.run(conv, first - Seq::from(is_before), last, false, PAGE_BYTES_MAX)?;
    if !is_before {
        return Ok((entries, tag_now(history, conv, written)?));
    }
    let has_come = entries.first().is_some_and(|entry| Some(entry.seq) == written);
    let tag = has_come.then(|| entries.remove(0).tag);
    if has_come && entries.is_empty() {
        entries = history.run(conv, first, last, false, PAGE_BYTES_MAX)?;
        return Ok((entries, tag_now(history, conv, written)?));
    }
    Ok((entries, tag))
}

/// The present tag of this number.
fn tag_now(history: &dyn History, conv: ConversationId, written: Option<Seq>) -> Result<Option<Tag>, StoreError> {
    match written {
        Some(seq) => Ok(history.tags(&[(conv, seq)])?.pop().flatten()),
        None => Ok(None),
    }
}

/// The rest of the membership to which the message before `from` belonged; `None` if its end is not
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
    let end_in = |entries: &[HistoryEntry]| {
        let ends =
            |entry: &&HistoryEntry| entry.text.as_deref().is_some_and(|text| replies::ends_membership(text, user));
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
    // Without a message there is nothing to show: all are deleted or lost.
    let Some((first, tag)) = entries.first().map(|entry| (entry.seq, entry.tag)) else { return Ok(None) };
    // If `to` is given, the user was a member up to it.
    let Some(last) = end.or(Some(to).filter(|to| *to < Seq::MAX && *to >= from)) else { return Ok(None) };
    entries.retain(|entry| entry.seq <= last);
    let (floor, held) = (first - 1, written.filter(|seq| *seq > 0));
    let written = tag_now(history, conv, held)?;
    // The message at this floor may be deleted only if the next one still exists.
    let may_be_lost = written.is_none() && held.is_some_and(|seq| seq <= floor);
    if may_be_lost && tag_now(history, conv, Some(first))? != Some(tag) {
        return Ok(Some(one(PumpEvent::PageFailed)));
    }
    let page = PumpEvent::Page(page(conv, user, Extent { head: last, floor }, &entries, written));
    let left = end.map(|end| PumpEvent::Left { conv, seen: Some((from, end)) });
    Ok(Some(MemberNews::Pump(left.into_iter().chain([page]).collect())))
}

/// These messages in the form for the pump.
pub(super) fn page(
    conv: ConversationId,
    user: UserId,
    extent: Extent,
    entries: &[HistoryEntry],
    written: Option<Tag>,
) -> RowPage {
    let name = conv.name_for(user);
    let row = |entry: &HistoryEntry| {
        let message = parts::shown(entry);
        Row { at: message.at, from: entry.from, frame: frames::pushed(name, &message).into() }
    };
    RowPage { extent, rows: entries.iter().map(row).collect(), written }
}

fn one(event: PumpEvent) -> MemberNews {
    MemberNews::Pump(vec![event])
}

/// The most pages that are searched for the end of a membership. After that the client is told that
/// the group is not the user's.
const PIECES_MAX: usize = 10;

#[cfg(test)]
mod tests;
