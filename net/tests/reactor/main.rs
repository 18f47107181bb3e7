//! The reactor as an application sees it, with real sockets.

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
