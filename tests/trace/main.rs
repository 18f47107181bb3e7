//! `server trace` and `server explain`: each fault is really caused, and the operator is told at
//! which hop the message is.

mod level1;
mod level2;
mod stage;
mod users;
