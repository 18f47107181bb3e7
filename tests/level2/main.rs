//! Level 2 over real sockets. Every client checks each frame against what must come next, and
//! stores the messages that it is shown (`testkit::level2`). The modules `store` and `mistakes`
//! test that client.

#![allow(unreachable_pub, reason = "the parts of one program")]

mod accounts;
mod cluster;
mod community;
mod crash;
mod events;
mod everyday;
mod fairness;
mod groups;
mod import;
mod jwt;
mod limits;
mod logins;
mod malformed;
mod membership;
mod mistakes;
mod mixing;
mod moves;
mod people;
mod presence;
mod privacy;
mod queries;
mod races;
mod requests;
mod restore;
mod retention;
mod script;
mod sends;
mod settings;
mod store;
