//! [`MaybeRole`]: the way to a role that the tables of a database may not have.

use std::sync::{Arc, OnceLock};

use super::StoreError;

/// The way to a role of a store. The role may not be open yet, or the tables may lack it. Cloning
/// shares it.
pub struct MaybeRole<R: ?Sized>(Arc<OnceLock<Option<Arc<R>>>>);

impl<R: ?Sized> MaybeRole<R> {
    /// An open role; `None` if the tables lack it.
    pub fn of(role: Option<Arc<R>>) -> MaybeRole<R> {
        MaybeRole(Arc::new(OnceLock::from(role)))
    }

    /// The role; `None` if the tables lack it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] before the database is open.
    pub fn get(&self) -> Result<Option<&R>, StoreError> {
        match self.0.get() {
            Some(role) => Ok(role.as_deref()),
            None => Err(StoreError::Unavailable(NOT_OPEN.into())),
        }
    }

    /// Opens it, unless it is open.
    pub(in crate::store) fn open(&self, role: Option<Arc<R>>) {
        let _ = self.0.set(role);
    }
}

impl<R: ?Sized> Default for MaybeRole<R> {
    fn default() -> MaybeRole<R> {
        MaybeRole(Arc::default())
    }
}

impl<R: ?Sized> Clone for MaybeRole<R> {
    fn clone(&self) -> MaybeRole<R> {
        MaybeRole(self.0.clone())
    }
}

const NOT_OPEN: &str = "the database has not answered yet";
