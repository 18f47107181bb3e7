//! Failed statements as errors of the store.

use rusqlite::ErrorCode;

use crate::store::StoreError;

/// Whether the cause is the environment rather than the statement: the same call may work later,
/// and the rest of the transaction is lost with it.
pub(super) fn is_environmental(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
                | ErrorCode::OutOfMemory
                | ErrorCode::CannotOpen
                | ErrorCode::ReadOnly
        )
    )
}

pub(super) fn store_error(error: rusqlite::Error) -> StoreError {
    if is_environmental(&error) {
        StoreError::Unavailable(Box::new(error))
    } else {
        StoreError::Failed(Box::new(error))
    }
}
