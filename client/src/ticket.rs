//! [`Ticket`]: the fate of one message.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::conv::Conv;
use crate::error::{Error, Result};
use crate::frame::Refusal;
use crate::machine::Outcome;

/// A message in the outbox. Dropping the ticket changes nothing: the message is still sent.
#[derive(Debug)]
pub struct Ticket {
    cid: String,
    place: Arc<TicketAnswer>,
}

type Answer = std::result::Result<(Conv, u64), Refusal>;

#[derive(Default, Debug)]
struct TicketAnswer {
    answer: Mutex<Option<Answer>>,
    answered: Condvar,
}

/// The tickets whose holders may still wait.
#[derive(Default, Debug)]
pub(crate) struct Tickets(Mutex<HashMap<String, Weak<TicketAnswer>>>);

impl Ticket {
    /// The id of the message.
    pub fn cid(&self) -> &str {
        &self.cid
    }

    /// Waits until the message is committed, and returns its number.
    ///
    /// # Errors
    /// [`Error::Refused`] if the server refuses the message for good, and [`Error::NoAnswer`] if it
    /// still waits in the outbox after this time. In that case it is sent later.
    pub fn wait(&self, patience: Duration) -> Result<u64> {
        let deadline = Instant::now() + patience;
        let mut answer = self.place.answer.lock();
        while answer.is_none() {
            if self.place.answered.wait_until(&mut answer, deadline).timed_out() {
                break;
            }
        }
        match &*answer {
            Some(Ok((_, seq))) => Ok(*seq),
            Some(Err(Refusal { errno, errmsg, retry_after })) => {
                Err(Error::Refused { errno: *errno, message: errmsg.clone(), retry_after: *retry_after })
            }
            None => Err(Error::NoAnswer),
        }
    }
}

impl Tickets {
    /// A ticket for a message that is about to be put into the outbox.
    pub(crate) fn issue(&self, cid: String) -> Ticket {
        let place = Arc::new(TicketAnswer::default());
        let mut tickets = self.0.lock();
        // Tickets without a holder are removed now and then, so the table does not grow with the
        // outbox.
        if tickets.len() >= SWEEP_AT && tickets.len().is_power_of_two() {
            tickets.retain(|_, place| place.strong_count() > 0);
        }
        tickets.insert(cid.clone(), Arc::downgrade(&place));
        Ticket { cid, place }
    }

    /// Handles the final answer to a message.
    pub(crate) fn answer(&self, outcome: Outcome) {
        let place = self.0.lock().remove(&outcome.cid);
        if let Some(place) = place.and_then(|place| place.upgrade()) {
            *place.answer.lock() = Some(outcome.result);
            place.answered.notify_all();
        }
    }
}

const SWEEP_AT: usize = 1024;
