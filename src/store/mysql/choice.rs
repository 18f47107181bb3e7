//! The choice of one of several servers, from the answers of all. Connects to none.

use std::error::Error;
use std::fmt;

use super::duty::Duty;

/// The answer of one server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum ServerAnswer {
    /// The server takes writes.
    Fit(Duty),
    /// The server cannot be used, for this reason.
    Unfit(String),
}

/// The reason why no server can be used, with a text for each. `Display` is one line for the
/// operator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NoChoice {
    /// None takes writes: each server, and its answer.
    NoneFit(Vec<(String, String)>),
    /// These take writes, but do not share their data.
    Rivals(Vec<String>),
}

/// Chooses a server by the answers in the order of the list. `last` is the one that was used
/// before.
///
/// That one stays in use if it still takes writes, because other nodes may have stayed with it too.
/// Otherwise the first server of the list is chosen, so that all nodes choose the same one. If
/// several take writes that are not nodes of one Galera cluster, the primary is unknown, so none is
/// chosen.
///
/// # Errors
/// [`NoChoice`].
pub(super) fn choose(names: &[String], answers: &[ServerAnswer], last: Option<usize>) -> Result<usize, NoChoice> {
    let fit: Vec<(usize, &Duty)> = (answers.iter().enumerate())
        .filter_map(|(at, answer)| match answer {
            ServerAnswer::Fit(duty) => Some((at, duty)),
            ServerAnswer::Unfit(_) => None,
        })
        .collect();
    let has_everything = fit.iter().any(|(_, duty)| !duty.is_behind);
    let mut best = fit.iter().filter(|(_, duty)| !has_everything || !duty.is_behind).map(|(at, _)| *at);
    if let Some(at) = best.clone().find(|at| Some(*at) == last) {
        return Ok(at);
    }
    match &fit[..] {
        [] => Err(NoChoice::NoneFit(
            names.iter().zip(answers).map(|(name, answer)| (name.clone(), answer.cause().to_owned())).collect(),
        )),
        [(_, first), others @ ..] if others.iter().any(|(_, other)| !are_one(first, other)) => {
            Err(NoChoice::Rivals(fit.iter().map(|(at, _)| names[*at].clone()).collect()))
        }
        [(first, _), ..] => Ok(best.next().unwrap_or(*first)),
    }
}

/// The servers that take writes besides the one in use, and are not nodes of its cluster.
pub(super) fn rivals(names: &[String], answers: &[ServerAnswer], used: usize) -> Vec<String> {
    let Some(ServerAnswer::Fit(own)) = answers.get(used) else { return Vec::new() };
    let is_rival = |answer: &ServerAnswer| matches!(answer, ServerAnswer::Fit(duty) if !are_one(own, duty));
    let each = names.iter().zip(answers).enumerate();
    each.filter(|(at, (_, answer))| *at != used && is_rival(answer)).map(|(_, (name, _))| name.clone()).collect()
}

/// The server that replaces a later node of the same Galera cluster: the first of the list that is
/// up to date.
pub(super) fn home(answers: &[ServerAnswer], used: usize) -> Option<usize> {
    let Some(ServerAnswer::Fit(own)) = answers.get(used) else { return None };
    let is_home =
        |answer: &ServerAnswer| matches!(answer, ServerAnswer::Fit(duty) if !duty.is_behind && are_one(own, duty));
    answers[..used].iter().position(is_home)
}

/// The node for which another one of the same Galera cluster is left at once, because that one is
/// behind: while it helps another node to catch up, it may take no writes for long.
pub(super) fn refuge(answers: &[ServerAnswer], used: usize) -> Option<usize> {
    let Some(ServerAnswer::Fit(own)) = answers.get(used).filter(|answer| answer.is_behind()) else { return None };
    answers.iter().position(|answer| matches!(answer, ServerAnswer::Fit(duty) if !duty.is_behind && are_one(own, duty)))
}

/// Whether both belong to one Galera cluster, so that each has the writes of the other.
fn are_one(one: &Duty, other: &Duty) -> bool {
    one.cluster.is_some() && one.cluster == other.cluster
}

impl ServerAnswer {
    /// Whether it takes writes, but does not have everything, or helps another one.
    pub(super) fn is_behind(&self) -> bool {
        matches!(self, ServerAnswer::Fit(duty) if duty.is_behind)
    }

    /// Why the server cannot be used.
    pub(super) fn cause(&self) -> &str {
        match self {
            ServerAnswer::Fit(_) => "it is behind the others",
            ServerAnswer::Unfit(cause) => cause,
        }
    }
}

impl NoChoice {
    /// The choice that an error of the driver wraps.
    pub(super) fn of(error: &mysql::Error) -> Option<&NoChoice> {
        let mysql::Error::IoError(error) = error else { return None };
        error.get_ref()?.downcast_ref()
    }

    /// Advice for the operator.
    pub(super) fn advice(&self) -> &'static str {
        match self {
            NoChoice::NoneFit(_) => {
                "start one, make one the primary (SET GLOBAL read_only = 0), or correct the keys ip and port"
            }
            NoChoice::Rivals(_) => {
                "make all read-only but the primary (SET GLOBAL read_only = 1), and let them start so (read_only=1); if these \
                 are names of one server, list it once"
            }
        }
    }
}

impl fmt::Display for NoChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoChoice::NoneFit(causes) => {
                let each = causes.iter().map(|(name, cause)| format!("{name}: {cause}")).collect::<Vec<_>>();
                write!(f, "no server takes writes ({})", each.join("; "))
            }
            NoChoice::Rivals(names) => write!(
                f,
                "{} take writes, and are not nodes of one Galera cluster, so it is not clear which is the primary",
                names.join(" and ")
            ),
        }
    }
}

impl Error for NoChoice {}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(cluster: Option<&str>) -> ServerAnswer {
        ServerAnswer::Fit(Duty { cluster: cluster.map(str::to_owned), is_behind: false })
    }

    fn behind() -> ServerAnswer {
        ServerAnswer::Fit(Duty { cluster: Some("g".to_owned()), is_behind: true })
    }

    fn unfit() -> ServerAnswer {
        ServerAnswer::Unfit("down".to_owned())
    }

    fn names() -> Vec<String> {
        ["a:1", "b:1", "c:1"].map(str::to_owned).into()
    }

    #[test]
    fn the_one_that_takes_writes_is_taken_or_the_first_node_of_a_cluster() {
        let choose = |answers: [ServerAnswer; 3], last| choose(&names(), &answers, last);
        assert_eq!(choose([unfit(), fit(None), unfit()], None), Ok(1));
        assert_eq!(choose([unfit(), fit(None), unfit()], Some(0)), Ok(1));
        let g = || fit(Some("g"));
        assert_eq!(choose([g(), g(), g()], None), Ok(0));
        assert_eq!(choose([g(), g(), g()], Some(2)), Ok(2), "it stays");
        assert_eq!(choose([unfit(), g(), g()], Some(0)), Ok(1));
        assert_eq!(choose([behind(), g(), g()], None), Ok(1), "one that is behind comes last");
        assert_eq!(choose([behind(), g(), g()], Some(0)), Ok(1));
        assert_eq!(choose([behind(), unfit(), unfit()], None), Ok(0));
        assert_eq!(
            choose([unfit(), unfit(), unfit()], None).unwrap_err().to_string(),
            "no server takes writes (a:1: down; b:1: down; c:1: down)"
        );
    }

    #[test]
    fn between_two_primaries_only_the_one_that_was_used_is_taken() {
        let choose = |answers: [ServerAnswer; 3], last| choose(&names(), &answers, last);
        let rivals_of = |answers| match choose(answers, None) {
            Err(NoChoice::Rivals(names)) => names.concat(),
            other => panic!("{other:?}"),
        };
        assert_eq!(rivals_of([fit(None), unfit(), fit(None)]), "a:1c:1");
        assert_eq!(rivals_of([fit(Some("g")), fit(Some("h")), unfit()]), "a:1b:1");
        assert_eq!(rivals_of([fit(Some("g")), fit(None), unfit()]), "a:1b:1");
        assert_eq!(choose([fit(None), fit(None), unfit()], Some(1)), Ok(1));
        assert!(choose([fit(None), fit(None), unfit()], Some(2)).is_err());
        assert_eq!(rivals(&names(), &[fit(None), fit(None), unfit()], 1), ["a:1"]);
        assert_eq!(rivals(&names(), &[unfit(), fit(None), unfit()], 1), [""; 0]);
        let g = || fit(Some("g"));
        assert_eq!(rivals(&names(), &[g(), g(), fit(None)], 1), ["c:1"]);
    }

    #[test]
    fn nodes_of_a_cluster_go_home_to_the_first_one() {
        let g = || fit(Some("g"));
        assert_eq!(home(&[g(), g(), g()], 2), Some(0));
        assert_eq!(home(&[unfit(), g(), g()], 2), Some(1));
        assert_eq!(home(&[behind(), g(), g()], 1), None);
        assert_eq!(home(&[g(), g(), g()], 0), None);
        assert_eq!(home(&[fit(None), fit(None), unfit()], 1), None, "a primary is left only if it is gone");
    }

    #[test]
    fn a_node_that_helps_another_one_is_left_for_any_that_does_not() {
        let g = || fit(Some("g"));
        assert_eq!(refuge(&[behind(), unfit(), g()], 0), Some(2));
        assert_eq!(refuge(&[g(), behind(), g()], 1), Some(0));
        assert_eq!(refuge(&[behind(), behind(), unfit()], 0), None);
        assert_eq!(refuge(&[behind(), fit(Some("h")), fit(None)], 0), None, "those are not its cluster's");
        assert_eq!(refuge(&[g(), g(), behind()], 0), None);
    }
}
