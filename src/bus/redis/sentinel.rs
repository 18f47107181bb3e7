//! [`Sentinels`]: asks Redis Sentinel which Redis is the primary.
//!
//! A sentinel that is cut off from the others knows only the old primary. So all are asked at the
//! same time, and the most frequent answer counts as soon as it is clear: a frozen sentinel delays
//! nobody. `dial.rs` checks that the named Redis really is a primary.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use parking_lot::Mutex;

use super::reach::{DialError, Secured, reach};
use super::resolve::Resolver;
use crate::config::SentinelSettings;

/// See the [module](self).
pub(super) struct Sentinels {
    settings: SentinelSettings,
    /// In the order of the settings.
    sentinels: Vec<Sentinel>,
    secured: Option<Secured>,
}

/// One of the sentinels. A name server that is silent costs at most one thread for each resolver.
struct Sentinel {
    addresses: Resolver,
    /// The last primary that this sentinel has named by a host name.
    named: Mutex<Option<Named>>,
}

/// A name that a sentinel has given instead of an address.
struct Named {
    host: String,
    port: u16,
    addresses: Arc<Resolver>,
}

type SentinelAnswer = Result<SocketAddr, String>;

impl Sentinels {
    pub(super) fn new(settings: SentinelSettings, secured: Option<Secured>) -> Arc<Sentinels> {
        let sentinels = settings.sentinels.iter().map(|one| Sentinel::new(Resolver::new(&one.host, one.port)));
        let sentinels = sentinels.collect();
        Arc::new(Sentinels { settings, sentinels, secured })
    }

    /// The address of the primary. Blocks, for about a second at most.
    ///
    /// # Errors
    /// If no sentinel knows it; the text contains the answer of each.
    pub(super) fn primary(self: &Arc<Self>) -> io::Result<Vec<SocketAddr>> {
        let count = self.sentinels.len();
        let (tell, answers) = bounded(count);
        for nth in 0..count {
            let (all, tell) = (self.clone(), tell.clone());
            let run = move || {
                let asked = catch_unwind(AssertUnwindSafe(|| all.ask(&all.sentinels[nth])));
                let _ = tell.send((nth, asked.unwrap_or_else(|_| Err("the driver panicked".to_owned()))));
            };
            thread::Builder::new().name("redis-sentinel".to_owned()).spawn(run)?;
        }
        let until = Instant::now() + ANSWERS_PATIENCE;
        let mut known: Vec<Option<SentinelAnswer>> = vec![None; count];
        while let Ok((nth, answer)) = answers.recv_deadline(until) {
            known[nth] = Some(answer);
            if is_clear(&known) {
                break;
            }
        }
        match elected(&known) {
            Some(address) => Ok(vec![address]),
            None => Err(io::Error::new(ErrorKind::NotFound, self.causes(&known))),
        }
    }

    fn ask(&self, sentinel: &Sentinel) -> SentinelAnswer {
        let text = |error: DialError| error.to_string();
        let of_io = |error: io::Error| error.to_string();
        let mut last = "its name has no address".to_owned();
        for address in sentinel.addresses.addresses(Instant::now() + LOOKUP_PATIENCE).map_err(of_io)? {
            let by = Instant::now() + ASK_PATIENCE;
            match self.ask_at(address, by).map_err(text) {
                Ok(Some((host, port))) => {
                    let looked_up = sentinel.named(&host, port).addresses(by.min(Instant::now() + LOOKUP_PATIENCE));
                    let primary = looked_up.map_err(of_io)?.first().copied();
                    return primary.ok_or_else(|| format!("it says {host}, a name without an address"));
                }
                Ok(None) => return Err(format!("it knows no master {}", self.settings.master)),
                Err(cause) => last = cause,
            }
        }
        Err(last)
    }

    fn ask_at(&self, address: SocketAddr, by: Instant) -> Result<Option<(String, u16)>, DialError> {
        let mut connection = reach(address, self.secured.as_ref(), by)?;
        if let Some(password) = &self.settings.password {
            redis::cmd("AUTH").arg(password.expose()).query::<redis::Value>(&mut connection)?;
        }
        let mut question = redis::cmd("SENTINEL");
        question.arg("get-master-addr-by-name").arg(&self.settings.master);
        Ok(question.query(&mut connection)?)
    }

    fn causes(&self, known: &[Option<SentinelAnswer>]) -> String {
        let cause = |answer: &Option<SentinelAnswer>| match answer {
            Some(Err(cause)) => cause.clone(),
            _ => "no answer in time".to_owned(),
        };
        let each = self.settings.sentinels.iter().zip(known);
        let each: Vec<String> = each.map(|(sentinel, answer)| format!("{sentinel}: {}", cause(answer))).collect();
        format!("no sentinel knows the primary ({})", each.join("; "))
    }
}

impl Sentinel {
    fn new(addresses: Resolver) -> Sentinel {
        Sentinel { addresses, named: Mutex::new(None) }
    }

    /// The resolver of the primary that the sentinel names.
    fn named(&self, host: &str, port: u16) -> Arc<Resolver> {
        let mut named = self.named.lock();
        match &*named {
            Some(last) if last.host == host && last.port == port => last.addresses.clone(),
            _ => {
                let addresses = Arc::new(Resolver::new(host, port));
                *named = Some(Named { host: host.to_owned(), port, addresses: addresses.clone() });
                addresses
            }
        }
    }
}

/// The address that most of them name; in a tie, the one named first.
fn elected(known: &[Option<SentinelAnswer>]) -> Option<SocketAddr> {
    let named = || known.iter().flatten().flatten();
    named().rev().max_by_key(|address| named().filter(|other| other == address).count()).copied()
}

/// Whether no further answer can change the result.
fn is_clear(known: &[Option<SentinelAnswer>]) -> bool {
    let votes = |address| known.iter().flatten().flatten().filter(|other| **other == address).count();
    known.iter().all(Option::is_some) || elected(known).is_some_and(|address| votes(address) * 2 > known.len())
}

/// The longest time for all queries to one sentinel.
const ASK_PATIENCE: Duration = Duration::from_millis(800);
/// The longest wait for one lookup of a name. A slower one goes on, and the last known addresses
/// are used meanwhile, so that time is left for the queries.
const LOOKUP_PATIENCE: Duration = Duration::from_millis(250);
/// The longest wait for the sentinels' answers.
const ANSWERS_PATIENCE: Duration = Duration::from_millis(900);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::config::ServerAddress;

    #[test]
    fn a_silent_name_server_costs_one_thread_for_each_sentinel() {
        let (lookups, (hang, hangs)) = (Arc::new(AtomicUsize::new(0)), bounded::<()>(0));
        let sentinel = || {
            let (lookups, hangs) = (lookups.clone(), hangs.clone());
            Sentinel::new(Resolver::asking(move || {
                lookups.fetch_add(1, Ordering::Relaxed);
                let _ = hangs.recv();
                Err(ErrorKind::NotFound.into())
            }))
        };
        let address = || ServerAddress { host: "sentinel.example".to_owned(), port: 1 };
        let settings =
            SentinelSettings { sentinels: vec![address(), address()], master: "chat".to_owned(), password: None };
        let sentinels = Arc::new(Sentinels { settings, sentinels: vec![sentinel(), sentinel()], secured: None });
        for _ in 0..3 {
            sentinels.primary().expect_err("no sentinel can be reached");
        }
        assert_eq!(lookups.load(Ordering::Relaxed), 2);
        drop(hang);
    }

    #[test]
    fn a_name_of_the_primary_has_one_resolver_until_it_changes() {
        let sentinel = Sentinel::new(Resolver::new("10.0.0.1", 1));
        let one = sentinel.named("one", 6379);
        assert!(Arc::ptr_eq(&one, &sentinel.named("one", 6379)));
        assert!(!Arc::ptr_eq(&one, &sentinel.named("two", 6379)));
    }

    fn says(last: u8) -> Option<SentinelAnswer> {
        Some(Ok(SocketAddr::from(([10, 0, 0, last], 6379))))
    }

    fn fails() -> Option<SentinelAnswer> {
        Some(Err("down".to_owned()))
    }

    #[test]
    fn the_answer_of_most_counts_as_soon_as_it_is_clear() {
        let address = |answer: Option<SentinelAnswer>| answer.unwrap().ok();
        for (known, expected, clear) in [
            ([None, None, None], None, false),
            ([says(1), None, None], address(says(1)), false),
            ([says(1), None, says(1)], address(says(1)), true),
            ([says(1), says(2), None], address(says(1)), false),
            ([says(1), says(2), says(2)], address(says(2)), true),
            ([says(2), fails(), says(1)], address(says(2)), true),
            ([fails(), fails(), says(1)], address(says(1)), true),
            ([fails(), fails(), None], None, false),
            ([fails(), fails(), fails()], None, true),
        ] {
            assert_eq!((elected(&known), is_clear(&known)), (expected, clear), "{known:?}");
        }
    }
}
