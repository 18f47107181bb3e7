//! The reads of a login.
//!
//! The pump of the connection requests the first 43 as soon as it has the heads, and then the pages
//! of the runs. For a client that was offline for a short time these are few messages, so they are
//! read together with the heads: fewer threads are woken, and there are fewer queries.

use std::collections::HashMap;
use std::sync::Arc;

use super::marks::PartnerMarks;
use super::pump_pages;
use super::reads::{compose, cursors, extent, last, lasts_of, names, standings};
use crate::base::conversation::{ConversationId, Seq};
use crate::devices::tasks::{Ahead, Identity, MemberNews, Overview};
use crate::history::cursor::{Extent, HeldCursor, plan};
use crate::history::pump::{FoundCursor, Heads};
use crate::protocol::UserId;
use crate::protocol::level2::{Have, PAGE_BYTES_MAX};
use crate::store::StoreError;
use crate::store::history::{Denied, Head, HistoryEntry, HistoryReads};

/// The heads of all conversations of a user, the runs that the client needs, and their first pages.
pub(super) fn read(
    history: &dyn HistoryReads,
    who: &Identity,
    have: &Have<'_>,
    resume: u32,
    partners: PartnerMarks<'_>,
) -> Result<MemberNews, StoreError> {
    let heads = history.heads(who.user)?;
    let known: HashMap<ConversationId, &Head> = heads.iter().map(|head| (head.conv, head)).collect();
    let (mut cursors, held) = match have {
        Have::Cursors(items) => {
            let strangers: Vec<ConversationId> = names(items)
                .map(|(name, _)| name.for_user(who.user))
                .filter(|conv| !known.contains_key(conv))
                .collect();
            let others = standings(history, who.user, &strangers)?;
            let find = |conv: ConversationId| match known.get(&conv) {
                Some(head) => Ok((extent(head), last(head))),
                None => others.get(&conv).copied().unwrap_or(Err(Denied::Unknown)),
            };
            let held = names(items).map(|(name, _)| name.for_user(who.user)).collect();
            (cursors(history, who.user, items, find)?, held)
        }
        Have::Device => {
            let stored: HashMap<ConversationId, Seq> = history.cursors(who.device)?.into_iter().collect();
            let cursor = |head: &Head| {
                let seq = stored.get(&head.conv).copied().unwrap_or_default().min(head.head);
                FoundCursor::Own(head.conv, HeldCursor { seq, tag: None, stored: None })
            };
            (heads.iter().map(cursor).collect(), heads.iter().map(|head| head.conv).collect())
        }
    };
    let rank: HashMap<ConversationId, usize> = heads.iter().enumerate().map(|(nth, head)| (head.conv, nth)).collect();
    cursors.sort_by_key(|found| match found {
        FoundCursor::Own(conv, _) => rank.get(conv).copied().unwrap_or(usize::MAX),
        FoundCursor::Refused(..) => usize::MAX,
    });
    let convs = heads.iter().map(|head| (head.conv, extent(head), last(head))).collect();
    let overview = Overview { heads: heads.into(), shown: 0, held: Arc::new(held) };
    let heads = Heads { rid: None, convs, cursors, resume: resume.into() };
    let ahead = read_ahead(history, who.user, &heads, &overview, partners)?;
    Ok(MemberNews::Heads(heads, overview, ahead))
}

/// A page that is read ahead.
struct RunAhead {
    conv: ConversationId,
    extent: Extent,
    from: Seq,
    to: Seq,
}

/// Reads the first 43, and the first runs if they are short.
fn read_ahead(
    history: &dyn HistoryReads,
    user: UserId,
    heads: &Heads,
    overview: &Overview,
    partners: PartnerMarks<'_>,
) -> Result<Ahead, StoreError> {
    let (lasts, runs) = (lasts_of(overview), short_runs(heads));
    let of_runs = runs.iter().flat_map(|run| (run.from..=run.to).map(|seq| (run.conv, seq)));
    let places: Vec<(ConversationId, Seq)> = lasts.iter().copied().chain(of_runs).collect();
    let found = if places.is_empty() { Vec::new() } else { history.messages_at(&places)? };
    let mut found = found.into_iter();
    let shown: Vec<_> = lasts.iter().map(|(conv, _)| *conv).zip(found.by_ref()).collect();
    let overview = compose(user, overview, shown.into_iter(), partners);
    let (mut pages, mut bytes) = (Vec::new(), 0);
    for RunAhead { conv, extent, from, to } in runs {
        let entries: Option<Vec<HistoryEntry>> = found.by_ref().take((to - from + 1) as usize).collect();
        // Without one of them, the pump requests them again.
        let Some(entries) = entries else { break };
        bytes += entries.iter().filter_map(|entry| entry.text.as_ref()).map(String::len).sum::<usize>();
        if bytes > PAGE_BYTES_MAX {
            break;
        }
        let written = entries.last().map(|entry| entry.tag);
        pages.push((conv, from, pump_pages::page(conv, user, extent, &entries, written)));
    }
    Ok(Ahead { overview: Some(overview), pages: pages.into() })
}

/// The first runs, up to the first long one.
fn short_runs(heads: &Heads) -> Vec<RunAhead> {
    let extents: HashMap<ConversationId, Extent> =
        heads.convs.iter().map(|(conv, extent, _)| (*conv, *extent)).collect();
    let run = |found: &FoundCursor| {
        let FoundCursor::Own(conv, held) = found else { return None };
        let extent = *extents.get(conv)?;
        let run = plan(*held, extent, heads.resume).filter(|run| run.from <= run.to)?;
        Some(RunAhead { conv: *conv, extent, from: run.from, to: run.to })
    };
    let mut room = AHEAD_MAX;
    let fits = |run: &RunAhead| {
        room -= run.to - run.from + 1;
        room >= 0
    };
    heads.cursors.iter().filter_map(run).take_while(fits).collect()
}

/// The most messages that are read ahead.
const AHEAD_MAX: Seq = 32;
