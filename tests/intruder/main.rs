//! An attacker: the server withstands everything that it sends, and other clients notice nothing.

#![allow(unreachable_pub, reason = "the parts of one program")]

mod floods;
mod impostor;
mod others;
mod slow;
mod sql;
