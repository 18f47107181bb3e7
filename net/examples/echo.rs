//! An echo server: every frame goes back to the client that sent it.
//!
//! ```text
//! $ cargo run -p net --example echo
//! $ nc 127.0.0.1 7000
//! {"hello":"world"}
//! {"hello":"world"}
//! ```
//!
//! It listens on 127.0.0.1:7000, or on the IP and the port that it is given (`-- 127.0.0.1 7001`).
//! The main thread waits for Enter, one thread accepts, and on every core a loop serves its share
//! of the connections.

use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use net::{Acceptor, Fate, Flow, Handler, Incoming, Link, ListenSettings, LoopGroup, Preface, Settings, Turn};

/// Each loop has one. An echo stores nothing about a client, and no thread posts messages for it.
struct Echo;

impl Handler for Echo {
    type Conn = ();
    type Arrival = ();
    type Message = ();

    fn on_arrival(&mut self, _: &mut Turn<()>, _: SocketAddr, _: Preface) -> Result<(), &'static [u8]> {
        Ok(())
    }

    fn on_open(&mut self, _: &mut Turn<()>, _: &Arc<Link<()>>, (): ()) {}

    fn on_incoming(&mut self, turn: &mut Turn<()>, link: &Arc<Link<()>>, _: &mut (), incoming: Incoming<'_>) -> Flow {
        let reply = match incoming {
            Incoming::Frame(frame) => frame,
            Incoming::Garbage { .. } => br#"{"error":"not a JSON object"}"#,
            Incoming::Oversize => br#"{"error":"too long"}"#,
            // It speaks HTTP or TLS.
            Incoming::Foreign(_) => return Flow::Taken,
            Incoming::Blanks { .. } | Incoming::End | Incoming::Stop | Incoming::Crowded => return Flow::Taken,
        };
        // Fails only if the client has gone, and then the echo is not needed. A client that does
        // not read is not read either.
        let _ = link.send(turn, reply, Fate::Drop);
        Flow::Taken
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let address = match arguments.as_slice() {
        [] => SocketAddr::from(([127, 0, 0, 1], 7000)),
        [ip, port] => SocketAddr::new(ip.parse::<IpAddr>()?, port.parse()?),
        _ => return Err("usage: echo [IP PORT]".into()),
    };
    let settings = Settings {
        frame_bytes_max: 64 * 1024,
        frame_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(600),
        output_bytes_max: 1024 * 1024,
        drain_timeout: Duration::from_secs(5),
        pace: None,
    };
    let listen = ListenSettings { backlog: 1024, user_timeout: Duration::from_secs(30) };

    let acceptor = Acceptor::bind(address, listen)?;
    let stopper = acceptor.stopper();
    let mut loops = LoopGroup::start(thread::available_parallelism()?.get(), settings, |_| Echo)?;
    println!("echoing on {}, Enter ends it", acceptor.local_addr()?);
    thread::scope(|scope| {
        scope.spawn(|| acceptor.run(|stream, peer| loops.assign(stream, peer, Preface::None)));
        let ended = std::io::stdin().read_line(&mut String::new());
        stopper.stop();
        ended
    })?;
    loops.drain(u32::MAX, Duration::from_secs(5));
    Ok(())
}
