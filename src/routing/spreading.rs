//! Sends a frame for a large group in pieces: one in each turn. In between, the frame is posted to
//! its sender's loop.

use net::Turn;

use super::fan_out;
use super::routed::Routed;
use super::router::Router;
use crate::delivery::{Posted, Spread};

/// Delivers the first piece of a frame that has more than one.
pub fn begin(router: &Router, turn: &mut Turn<Posted>, mut spread: Spread) {
    // There are more members than one piece.
    fan_out::spread(router, turn, &mut spread);
    post(Box::new(spread));
}

/// Delivers the next piece, if the sender has time left in this turn. Returns the fate of the frame
/// after the last piece.
pub fn go_on(router: &Router, turn: &mut Turn<Posted>, spread: Box<Spread>) -> Option<(Routed, Box<Spread>)> {
    // Other clients are served between two pieces of an account, however many groups it writes to.
    if !turn.has_left(&spread.sender) {
        post(spread);
        return None;
    }
    piece(router, turn, spread)
}

/// The same for a sender that has gone: a started frame is delivered to all members.
pub fn go_on_alone(router: &Router, turn: &mut Turn<Posted>, spread: Box<Spread>) {
    // No session waits for the outcome.
    let _ = piece(router, turn, spread);
}

fn piece(router: &Router, turn: &mut Turn<Posted>, mut spread: Box<Spread>) -> Option<(Routed, Box<Spread>)> {
    match fan_out::spread(router, turn, &mut spread) {
        Some(routed) => Some((routed, spread)),
        None => {
            post(spread);
            None
        }
    }
}

fn post(spread: Box<Spread>) {
    let sender = spread.sender.clone();
    sender.post(Posted::Spread(spread));
}
