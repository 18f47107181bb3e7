//! Somebody who means harm: what such a client may send, and that nobody else notices.

#![allow(unreachable_pub, reason = "the parts of one program")]

mod floods;
mod impostor;
mod others;
mod slow;
mod sql;
