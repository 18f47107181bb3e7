//! A pool, and a server that answers like Redis or fails.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use super::*;

/// The behaviour of the other end.
#[derive(Clone, Copy)]
enum Manner {
    /// The other end answers this number of commands; then it closes the connection.
    Closes(usize),
    /// The other end answers this number of commands, and then no more.
    Freezes(usize),
}

/// Listens. The first connection gets this behaviour, and later ones get answers.
fn listen(first: Manner) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let serve = move || {
        let mut manner = first;
        for socket in listener.incoming() {
            let (socket, as_told) = (socket.expect("a connection"), manner);
            manner = Manner::Closes(usize::MAX);
            thread::spawn(move || answer(socket, as_told));
        }
    };
    thread::spawn(serve);
    address
}

fn answer(socket: TcpStream, manner: Manner) {
    let lines = BufReader::new(socket.try_clone().expect("a descriptor")).lines().map_while(Result::ok);
    // A command begins with its number of words.
    let mut commands = lines.filter(|line| line.starts_with('*'));
    let (Manner::Closes(count) | Manner::Freezes(count)) = manner;
    for _ in commands.by_ref().take(count) {
        if (&socket).write_all(b"+OK\r\n").is_err() {
            return;
        }
    }
    if matches!(manner, Manner::Freezes(_)) {
        commands.for_each(drop);
    }
}

fn pool(size: u32, address: SocketAddr) -> (RedisPool<TimedSocket>, Arc<AtomicUsize>) {
    let dialed = Arc::new(AtomicUsize::new(0));
    let count = dialed.clone();
    let settings = RedisPoolSettings {
        size,
        idle_timeout: PATIENCE,
        wait_timeout: Duration::from_millis(100),
        trusted_for: TRUSTED_FOR,
    };
    let dial = move |by| {
        count.fetch_add(1, Ordering::Relaxed);
        Ok(RedisConnection::new(TimedSocket::new(TcpStream::connect(address)?, by, STALL_MAX)))
    };
    (RedisPool::new(settings, dial), dialed)
}

fn ask(pool: &RedisPool<TimedSocket>) -> Result<String, RedisFailure> {
    pool.run(Instant::now() + PATIENCE, |connection| redis::cmd("ECHO").query(connection))
}

#[test]
fn many_commands_to_a_redis_that_stands_still_have_one_deadline() {
    let (pool, _) = pool(1, listen(Manner::Freezes(2)));
    let (done, is_done) = mpsc::channel();
    let asked = thread::spawn(move || {
        let mut pipeline = redis::pipe();
        for _ in 0..1000 {
            pipeline.cmd("ECHO");
        }
        let result = pool.run(Instant::now() + PATIENCE, |connection| pipeline.query::<Vec<String>>(connection));
        done.send(()).expect("the test waits");
        result
    });
    // One timeout for each command would be more than three minutes.
    is_done.recv_timeout(PATIENCE).expect("it gives up at the first answer that does not come");
    assert!(matches!(asked.join().expect("no panic"), Err(RedisFailure::InDoubt(error)) if error.is_timeout()));
}

#[test]
fn a_connection_that_was_closed_while_it_was_idle_is_replaced_without_a_failure() {
    let (pool, dialed) = pool(1, listen(Manner::Closes(1)));
    assert_eq!(ask(&pool).expect("it answers"), "OK");
    let closed = || pool.state.lock().idle.iter().all(|idle| !idle.connection.is_quiet());
    wait_until(closed);
    assert_eq!(ask(&pool).expect("another one answers"), "OK");
    assert_eq!((dialed.load(Ordering::Relaxed), pool.connections()), (2, (1, 1)));
}

#[test]
fn a_connection_that_a_firewall_has_forgotten_is_asked_before_it_is_used() {
    let (pool, dialed) = pool(1, listen(Manner::Freezes(1)));
    assert_eq!(ask(&pool).expect("it answers"), "OK");
    thread::sleep(TRUSTED_FOR);
    assert_eq!(ask(&pool).expect("another one answers"), "OK");
    assert_eq!(dialed.load(Ordering::Relaxed), 2);
}

#[test]
fn commands_that_fail_in_the_middle_are_in_doubt_and_not_repeated() {
    let (pool, dialed) = pool(1, listen(Manner::Closes(1)));
    let two = |connection: &mut RedisConnection<TimedSocket>| {
        redis::cmd("ECHO").query::<String>(connection)?;
        redis::cmd("ECHO").query::<String>(connection)
    };
    assert!(matches!(pool.run(Instant::now() + PATIENCE, two), Err(RedisFailure::InDoubt(_))));
    assert_eq!((dialed.load(Ordering::Relaxed), pool.connections()), (1, (0, 0)));
}

#[test]
fn nobody_knocks_again_at_once_and_a_connection_is_shared() {
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let (gone, dialed) = pool(2, nobody);
    let begun = Instant::now();
    for _ in 0..3 {
        assert!(matches!(ask(&gone), Err(RedisFailure::NoConnection(_))));
    }
    // On a slow machine the pause may be over.
    assert!(dialed.load(Ordering::Relaxed) == 1 || begun.elapsed() >= DIAL_PAUSE);
    assert_eq!(gone.connections(), (0, 0));

    let address = listen(Manner::Closes(usize::MAX));
    let (full, dialed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (is_full, count) = (full.clone(), dialed.clone());
    let settings =
        RedisPoolSettings { size: 2, idle_timeout: PATIENCE, wait_timeout: PATIENCE, trusted_for: TRUSTED_FOR };
    let pool = RedisPool::new(settings, move |by| {
        count.fetch_add(1, Ordering::Relaxed);
        match is_full.fetch_add(1, Ordering::Relaxed) {
            0 => Ok(RedisConnection::new(TimedSocket::new(TcpStream::connect(address)?, by, STALL_MAX))),
            _ => Err("max number of clients reached".into()),
        }
    });
    let (held, is_held) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let pool = &pool;
        let released = Mutex::new(released);
        scope.spawn(move || {
            let hold = |connection: &mut RedisConnection<TimedSocket>| {
                held.send(()).expect("the test waits");
                released.lock().recv().expect("the test lets go");
                redis::cmd("ECHO").query::<String>(connection)
            };
            pool.run(Instant::now() + PATIENCE, hold).expect("it answers");
        });
        is_held.recv().expect("it is in use");
        let second = scope.spawn(|| ask(pool).expect("it waits for the one that there is"));
        wait_until(|| dialed.load(Ordering::Relaxed) == 2);
        release.send(()).expect("it waits");
        assert_eq!(second.join().expect("no panic"), "OK");
    });
}

#[test]
fn an_old_connection_is_not_given_back() {
    let (pool, dialed) = pool(2, listen(Manner::Closes(usize::MAX)));
    let renewing = |connection: &mut RedisConnection<TimedSocket>| {
        pool.renew();
        redis::cmd("ECHO").query::<String>(connection)
    };
    pool.run(Instant::now() + PATIENCE, renewing).expect("it is used to its end");
    assert_eq!(pool.connections(), (0, 0));
    ask(&pool).expect("a new one answers");
    assert_eq!((dialed.load(Ordering::Relaxed), pool.connections()), (2, (1, 1)));
}

fn wait_until(condition: impl Fn() -> bool) {
    let by = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < by, "in vain");
        thread::park_timeout(Duration::from_millis(1));
    }
}

const PATIENCE: Duration = Duration::from_secs(20);
const TRUSTED_FOR: Duration = Duration::from_millis(20);
/// Longer than the other end in a test may have to wait for the processor.
const STALL_MAX: Duration = Duration::from_secs(2);
