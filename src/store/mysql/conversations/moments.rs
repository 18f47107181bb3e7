//! The time, and queries as of one moment.

use mysql::Conn;
use mysql::prelude::Queryable;

use super::script::{Script, or_undone};

/// The database's clock, ms since 1970, the same for all nodes.
pub(in crate::store::mysql) const NOW: &str = "(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000)";

pub(in crate::store::mysql) fn now(db: &mut impl Queryable) -> mysql::Result<i64> {
    Ok(db.query_first(format!("SELECT {NOW}"))?.unwrap_or_default())
}

/// Runs queries that see the same moment.
pub(super) fn in_one_moment<T>(db: &mut Conn, queries: impl FnOnce(&mut Conn) -> mysql::Result<T>) -> mysql::Result<T> {
    or_undone(db, |db| {
        let mut begin = Script::new(usize::MAX);
        begin.add((), "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ");
        begin.add((), "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY");
        begin.run(db, |(), _| Ok(()))?;
        let answer = queries(db)?;
        db.query_drop("COMMIT")?;
        Ok(answer)
    })
}
