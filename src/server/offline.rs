//! [`OfflineAdministration`]: the administration of users and groups without a server, on the
//! database alone.

use std::sync::Arc;

use super::administration::{Administration, AdministrationParts};
use super::error::StartError;
use super::jobs::Jobs;
use super::wiring;
use crate::base::clock::Clock;
use crate::bus::local::LocalBus;
use crate::config::Config;
use crate::operation::admin::api::{Administrator, ApiAnswer, ApiCall};
use crate::routing::services::Services;
use crate::store::Store;
use crate::store::spool::NoSpool;

/// The administration of a database that no server uses.
pub struct OfflineAdministration {
    administration: Administration,
    /// Held here because the administration has only a weak reference.
    _jobs: Arc<Jobs>,
}

impl OfflineAdministration {
    /// For a server with these settings. Starts no thread.
    ///
    /// # Errors
    /// Passwords cannot be hashed at this cost.
    pub fn of(config: &Config, store: Store) -> Result<OfflineAdministration, StartError> {
        let services = Services::new(config, store, Arc::new(NoSpool), Arc::new(LocalBus), Clock::default());
        let jobs = wiring::jobs_alone(config, &services)?;
        let parts = AdministrationParts { jobs: Arc::downgrade(&jobs), node: None };
        Ok(OfflineAdministration { administration: Administration::new(parts), _jobs: jobs })
    }
}

impl Administrator for OfflineAdministration {
    fn answer(&self, request: &ApiCall) -> ApiAnswer {
        self.administration.answer(request)
    }

    fn refused(&self, request: &ApiCall, answer: &ApiAnswer) {
        self.administration.refused(request, answer);
    }
}
