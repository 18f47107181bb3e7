//! 43s, synchronisations and pages.

use std::collections::HashMap;
use std::sync::Arc;

use super::marks::PartnerMarks;
use super::parts;
use crate::base::conversation::{ConversationId, ConversationName, Cursor, Seq};
use crate::devices::tasks::{MemberNews, Overview};
use crate::history::cursor::{Extent, HeldCursor, needs_tag};
use crate::history::pump::{FoundCursor, Heads, PumpEvent};
use crate::protocol::UserId;
use crate::protocol::level2::frames::{self, Committed, Refusal};
use crate::protocol::level2::{HaveItem, PAGE_BYTES_MAX, PageAsk, Rid, replies};
use crate::store::StoreError;
use crate::store::history::{Denied, Head, History, HistoryEntry, HistoryReads, PageOutcome};

/// The heads of the conversations that a 46 names, and the runs that its client needs.
pub(super) fn sync(
    history: &dyn HistoryReads,
    user: UserId,
    have: &[HaveItem<'_>],
    resume: u32,
    rid: Option<Rid>,
) -> Result<MemberNews, StoreError> {
    let convs: Vec<ConversationId> = names(have).map(|(name, _)| name.for_user(user)).collect();
    let heads = standings(history, user, &convs)?;
    let cursors = cursors(history, user, have, |conv| heads.get(&conv).copied().unwrap_or(Err(Denied::Unknown)))?;
    let convs = heads.iter().filter_map(|(conv, head)| head.ok().map(|(extent, last)| (*conv, extent, last))).collect();
    let heads = Heads { rid, convs, cursors, resume: resume.into() };
    Ok(MemberNews::Synced(PumpEvent::Heads(heads)))
}

/// The extent of a conversation, with its last message, or the reason why it is not the user's.
pub(super) type ConversationStanding = Result<(Extent, Option<Committed>), Denied>;

/// The extents of these conversations.
pub(super) fn standings(
    history: &dyn HistoryReads,
    user: UserId,
    convs: &[ConversationId],
) -> Result<HashMap<ConversationId, ConversationStanding>, StoreError> {
    if convs.is_empty() {
        return Ok(HashMap::new());
    }
    let heads = history.heads_of(user, convs)?;
    let head = |head: Result<Head, Denied>| head.map(|head| (extent(&head), last(&head)));
    Ok(convs.iter().copied().zip(heads.into_iter().map(head)).collect())
}

/// The places in the store of the cursors of a client.
pub(super) fn cursors(
    history: &dyn HistoryReads,
    user: UserId,
    items: &[HaveItem<'_>],
    find: impl Fn(ConversationId) -> ConversationStanding,
) -> Result<Vec<FoundCursor>, StoreError> {
    let needed = |name: ConversationName, cursor: Cursor| {
        let conv = name.for_user(user);
        let (extent, _) = find(conv).ok()?;
        (cursor.seq != extent.head && needs_tag(cursor.seq, extent)).then_some((conv, cursor.seq))
    };
    let places: Vec<(ConversationId, Seq)> = names(items).filter_map(|(name, cursor)| needed(name, cursor)).collect();
    let tags = if places.is_empty() { Vec::new() } else { history.tags(&places)? };
    let tags: HashMap<(ConversationId, Seq), _> = places.into_iter().zip(tags).collect();
    let found = |item: &HaveItem<'_>| match item {
        HaveItem::Malformed(name) => FoundCursor::Refused((**name).into(), MALFORMED),
        HaveItem::Cursor(name, cursor) => {
            let conv = name.for_user(user);
            match find(conv) {
                Err(denied) => FoundCursor::Refused(name.to_string().into(), parts::denied(denied)),
                Ok((_, last)) => {
                    let stored = match last {
                        Some(last) if last.seq == cursor.seq => Some(last.tag),
                        _ => tags.get(&(conv, cursor.seq)).copied().flatten(),
                    };
                    FoundCursor::Own(conv, HeldCursor { seq: cursor.seq, tag: Some(cursor.tag), stored })
                }
            }
        }
    };
    Ok(items.iter().map(found).collect())
}

pub(super) fn names<'i>(items: &'i [HaveItem<'_>]) -> impl Iterator<Item = (ConversationName, Cursor)> + 'i {
    items.iter().filter_map(|item| match item {
        HaveItem::Cursor(name, cursor) => Some((*name, *cursor)),
        HaveItem::Malformed(_) => None,
    })
}

pub(super) fn extent(head: &Head) -> Extent {
    Extent { head: head.head, floor: head.floor }
}

/// The last message of a conversation.
pub(super) fn last(head: &Head) -> Option<Committed> {
    head.tag.map(|tag| Committed { seq: head.head, tag, time: head.touched })
}

/// The next 43.
pub(super) fn overview(
    history: &dyn HistoryReads,
    user: UserId,
    overview: &Overview,
    partners: PartnerMarks<'_>,
) -> Result<MemberNews, StoreError> {
    let wanted = lasts_of(overview);
    let found = if wanted.is_empty() { Vec::new() } else { history.messages_at(&wanted)? };
    let (frame, rest) = compose(user, overview, wanted.iter().map(|(conv, _)| *conv).zip(found), partners);
    Ok(MemberNews::Overview(frame, rest))
}

/// The messages that the next 43 shows.
pub(super) fn lasts_of(overview: &Overview) -> Vec<(ConversationId, Seq)> {
    let is_wanted = |head: &&Head| head.head > head.floor && !overview.held.contains(&head.conv);
    overview.next().iter().filter(is_wanted).map(|head| (head.conv, head.head)).collect()
}

/// The next 43 with these last messages, and the remaining conversations.
pub(super) fn compose(
    user: UserId,
    overview: &Overview,
    lasts: impl Iterator<Item = (ConversationId, Option<HistoryEntry>)>,
    partners: PartnerMarks<'_>,
) -> (Arc<str>, Overview) {
    let (next, lasts) = (overview.next(), lasts.collect::<HashMap<_, _>>());
    let lines: Vec<frames::ConversationSummary<'_>> = next
        .iter()
        .map(|head| frames::ConversationSummary {
            conv: head.conv.name_for(user),
            name: head.name.as_deref(),
            floor: head.floor,
            head: head.head,
            tag: head.tag,
            last: lasts.get(&head.conv).and_then(Option::as_ref).map(parts::shown),
            read: head.read,
            peer: partners.shown(user, head),
            unread: head.unread,
        })
        .collect();
    let (frame, count) = frames::overview(&lines, overview.heads.len() - overview.shown > next.len());
    (frame.into(), Overview { shown: overview.shown + count, ..overview.clone() })
}

/// The answer to a 48, and the last number of the conversation, unless it is refused.
pub(super) fn page(
    history: &dyn History,
    user: UserId,
    name: ConversationName,
    ask: PageAsk,
    limit: u32,
    rid: Option<&Rid>,
) -> Result<(String, Option<Seq>), StoreError> {
    let outcome = history.page(user, name.for_user(user), ask, limit.into(), PAGE_BYTES_MAX)?;
    Ok(match outcome {
        PageOutcome::Page(page) => {
            let messages: Vec<_> = page.entries.iter().map(parts::shown).collect();
            (frames::page(name, &messages, page.is_complete, page.floor, page.head, rid), Some(page.head))
        }
        PageOutcome::Gone { .. } => (replies::refused(48, GONE, rid), None),
        PageOutcome::Denied(denied) => (replies::refused(48, parts::denied(denied), rid), None),
    })
}

const MALFORMED: Refusal = Refusal::forever(400, "a cursor is a number, a colon and a tag");
const GONE: Refusal = Refusal::forever(410, "these messages are not kept any more");
