//! What an application of the reactor sees, with real sockets.

mod endless;
mod fair;
mod input;
mod kit;
mod letters;
mod output;
mod proxy;
mod seams;
mod stop;
mod tls;
mod watch;
mod web;
