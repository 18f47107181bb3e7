//! Making friends.

use rusqlite::Connection;

use super::recording::record;
use crate::protocol::UserId;
use crate::store::FriendNames;
use crate::store::community::{Befriended, FriendDecision, FriendFacts, FriendRequest, Trace};
use crate::store::sqlite::conversations::commit::{has_room, note_asked};
use crate::store::sqlite::rows::user_by_id;

pub(super) fn befriend(db: &Connection, request: &FriendRequest) -> rusqlite::Result<Befriended> {
    let (a, b) = (request.a, request.b);
    let (names, asks) = match request.decide(friend_facts(db, request)?) {
        FriendDecision::Unchanged(outcome) => return Ok(outcome),
        FriendDecision::Friends(names) => (names, false),
        FriendDecision::Asks(names) => (names, true),
    };
    let noted = record(db, &request.entries(&names, asks), request.both(), Vec::new())?;
    if asks {
        note_asked(db, a, b)?;
        return Ok(Befriended::Asked(names, noted));
    }
    let mut insert =
        db.prepare_cached("INSERT INTO Friend (userid, friendid) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?;
    let mut forget = db.prepare_cached("DELETE FROM Asked WHERE userid = ?1 AND friendid = ?2")?;
    for (user, friend) in [(a, b), (b, a)] {
        insert.execute([user.0, friend.0])?;
        forget.execute([user.0, friend.0])?;
    }
    Ok(Befriended::New(names, noted))
}

fn friend_facts(db: &Connection, request: &FriendRequest) -> rusqlite::Result<FriendFacts> {
    let (a, b) = (request.a, request.b);
    let names = user_by_id(db, a)?.zip(user_by_id(db, b)?).map(|(a, b)| FriendNames { a: a.name, b: b.name });
    let has = |query: &str, from: UserId, to: UserId| db.prepare_cached(query)?.exists([from.0, to.0]);
    let friend = "SELECT 1 FROM Friend WHERE userid = ?1 AND friendid = ?2";
    let asked = "SELECT 1 FROM Asked WHERE userid = ?1 AND friendid = ?2";
    Ok(FriendFacts {
        names,
        has_blocked: has("SELECT 1 FROM Blocked WHERE user = ?1 AND blocked = ?2", b, a)?,
        are_friends: has(friend, a, b)? && has(friend, b, a)?,
        has_asked: has(asked, a, b)?,
        was_asked: has(asked, b, a)?,
        has_room: request.trace == Trace::None || has_room(db, request.conv(), a, request.conversations_max)?,
    })
}
