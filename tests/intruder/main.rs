//! An attacker: what a hostile client may send, and that other clients notice nothing.

#![allow(unreachable_pub, reason = "the parts of one program")]

mod floods;
mod impostor;
mod others;
mod slow;
mod sql;
