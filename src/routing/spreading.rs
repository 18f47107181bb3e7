//! How a frame for a large group gets on: a piece in each turn, and in between the frame is posted
//! to its sender's loop.

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

/// Delivers the next piece, if the sender has time left in this turn. After the last piece, returns
/// what became of the frame.
pub fn go_on(router: &Router, turn: &mut Turn<Posted>, spread: Box<Spread>) -> Option<(Routed, Box<Spread>)> {
    // Others are served between two pieces of an account, however many groups it writes to.
    if !turn.has_left(&spread.sender) {
        post(spread);
        return None;
    }
    piece(router, turn, spread)
}

/// The same for a sender that has gone: a frame that was begun is delivered to all members.
pub fn go_on_alone(router: &Router, turn: &mut Turn<Posted>, spread: Box<Spread>) {
    // No session waits to hear what became of it.
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
