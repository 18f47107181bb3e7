//! Making friends.

use mysql::prelude::Queryable;
use mysql::{Conn, Row, params};

use super::recording::{self, Attempts, Locked};
use crate::store::FriendNames;
use crate::store::community::{Befriended, FriendDecision, FriendFacts, FriendRequest, Trace};
use crate::store::mysql::base::Base;
use crate::store::mysql::conversations::facts::has_room;
use crate::store::mysql::conversations::script::or_undone;
use crate::store::mysql::error;
use crate::store::mysql::rows::column;

pub(super) fn facts(db: &mut Conn, base: &Base, request: &FriendRequest) -> mysql::Result<FriendFacts> {
    let row: Option<Row> = db.exec_first(
        "SELECT (SELECT name FROM User WHERE id = :a) AS name_a, (SELECT name FROM User WHERE id = :b) AS name_b,
             (SELECT COUNT(*) FROM Blocked WHERE user = :b AND blocked = :a) AS has_blocked,
             (SELECT COUNT(*) FROM Friend WHERE userid = :a AND friendid = :b)
                 + (SELECT COUNT(*) FROM Friend WHERE userid = :b AND friendid = :a) AS friends,
             (SELECT COUNT(*) FROM Asked WHERE userid = :a AND friendid = :b) AS has_asked,
             (SELECT COUNT(*) FROM Asked WHERE userid = :b AND friendid = :a) AS was_asked",
        params! {"a" => request.a.0, "b" => request.b.0},
    )?;
    let mut row = row.ok_or_else(error::removed_meanwhile)?;
    let FriendRequest { a, trace, conversations_max: max, .. } = *request;
    let has_room = trace == Trace::None || has_room(db, request.conv(), a, max, base.script_bytes())?;
    let name_a: Option<String> = column(&mut row, "name_a")?;
    let name_b: Option<String> = column(&mut row, "name_b")?;
    let mut number = |name| column::<i64>(&mut row, name);
    Ok(FriendFacts {
        names: name_a.zip(name_b).map(|(a, b)| FriendNames { a, b }),
        has_blocked: number("has_blocked")? > 0,
        are_friends: number("friends")? >= 2,
        has_asked: number("has_asked")? > 0,
        was_asked: number("was_asked")? > 0,
        has_room,
    })
}

pub(super) fn befriend(
    db: &mut Conn,
    base: &Base,
    request: &FriendRequest,
    attempts: &mut Attempts<Befriended>,
) -> mysql::Result<Befriended> {
    or_undone(db, |db| {
        recording::begin(db, &[request.conv()], Locked::Pair)?;
        if let Some(answer) = attempts.stored(db)? {
            db.query_drop("ROLLBACK")?;
            return Ok(answer);
        }
        let (names, asks) = match request.decide(facts(db, base, request)?) {
            FriendDecision::Unchanged(outcome) => {
                db.query_drop("ROLLBACK")?;
                return Ok(outcome);
            }
            FriendDecision::Friends(names) => (names, false),
            FriendDecision::Asks(names) => (names, true),
        };
        let entries = request.entries(&names, asks);
        let noted = recording::record(db, base, &entries, request.both(), Vec::new())?;
        let outcome = if asks { Befriended::Asked(names, noted) } else { Befriended::New(names, noted) };
        if asks {
            let insert = "INSERT INTO Asked (userid, friendid) VALUES (?, ?) ON DUPLICATE KEY UPDATE userid = userid";
            db.exec_drop(insert, (request.a.0, request.b.0))?;
        }
        if !asks {
            let (first, second) = (request.a.min(request.b).0, request.a.max(request.b).0);
            db.exec_drop(
                "INSERT INTO Friend (userid, friendid) VALUES (:first, :second), (:second, :first)
                 ON DUPLICATE KEY UPDATE friendid = friendid",
                params! {first, second},
            )?;
            db.exec_drop(
                "DELETE FROM Asked WHERE (userid = :first AND friendid = :second)
                     OR (userid = :second AND friendid = :first)",
                params! {first, second},
            )?;
        }
        attempts.commit(db, entries.first(), outcome)
    })
}
