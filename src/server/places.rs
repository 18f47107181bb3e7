//! Places for requests that a worker will answer.

use crate::admission::Holder;
use crate::admission::requests::{Requests, WorkerSlot};
use crate::metrics::{Hit, Metrics};

/// Takes a place, or counts that there was none for this holder.
pub(super) fn place(requests: &Requests, holder: Holder, metrics: &Metrics) -> Option<WorkerSlot> {
    let place = requests.place(holder);
    if place.is_none() {
        metrics.refused(Hit::RequestsMax);
        log::debug!("too many requests of {} wait", holder.payer);
    }
    place
}
