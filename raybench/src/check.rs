//! Options that do not go together.

use std::path::Path;

use clap::ArgMatches;
use clap::parser::ValueSource;

use crate::options::{Common, Mode, Options, Workload};
use crate::target::Target;

/// Checks what the declarations of single options cannot express.
pub(crate) fn check(options: &Options, matches: &ArgMatches) -> Result<(), &'static str> {
    let is_given = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
    let (workload, targets) = match &options.mode {
        Mode::Relay { .. } => {
            let others = ["address", "pid", "relay", "seconds", "warm_up", "accounts", "json", "report"];
            return match others.iter().any(|id| is_given(id)) {
                true => Err("the relay measures nothing, and listens where --listen says: leave the other options out"),
                false => Ok(()),
            };
        }
        Mode::Compare { a, b, rounds, workload } => {
            if is_given("pid") || is_given("address") || is_given("relay") {
                return Err(
                    "a comparison has two targets: write -a and -b as relay or ADDRESS[,ADDRESS...][@PID[,PID...]], \
                            without --address, --pid and --relay",
                );
            }
            if is_given("accounts") {
                return Err("a comparison keeps the users of its targets apart by itself: leave --accounts out");
            }
            if *rounds > 1 && matches!(workload, Workload::Login { first: true, .. }) {
                return Err("users log in for the first time once only: give --rounds 1, and start the servers anew");
            }
            (workload, vec![a.clone(), b.clone()])
        }
        Mode::Workload(workload) => {
            if options.common.relay && (is_given("pid") || is_given("address")) {
                return Err("the relay is started for the run and measured by itself: leave --address and --pid out; \
                            `compare` takes an ADDRESS@PID beside it");
            }
            (workload, vec![options.common.target()])
        }
    };
    check_targets(workload, &targets)?;
    if !workload.is_timed() && (is_given("seconds") || is_given("warm_up")) {
        return Err(
            "offline, ramp, resume and login --first take as long as what they do: leave --seconds and --warm-up out",
        );
    }
    let Common { json, report, .. } = &options.common;
    if report.as_deref() == Some(Path::new("-")) {
        return Err("a page goes to a file: give --report its name");
    }
    if report.is_some() && report == json {
        return Err("--json and --report are two files: give them different names");
    }
    check_workload(workload)
}

/// Whether the numbers of a workload fit together.
fn check_workload(workload: &Workload) -> Result<(), &'static str> {
    match workload {
        Workload::Group { members, senders, .. } if *senders > u32::from(*members) => {
            Err("a group has no more senders than members: give fewer --senders or more --members")
        }
        Workload::Acked { conversations, senders, .. } if senders > conversations => {
            Err("each sender writes in a conversation of its own or more: give fewer --senders or more --conversations")
        }
        Workload::Resume { conversations, grown, .. } if *grown > conversations / 2 => Err(
            "half of the conversations are with those who write to a user: give a smaller --grown or more --conversations",
        ),
        Workload::Resume { conversations, users, .. } if u32::from(*conversations) >= *users => {
            Err("each conversation is with another user: give more --users or fewer --conversations")
        }
        Workload::Group { level: 2, talk, .. } | Workload::Acked { talk, .. } | Workload::Devices { talk, .. }
            if talk.framing.bare =>
        {
            Err("clients of level 2 send lines: leave --bare out")
        }
        Workload::Login { connections, users, .. } if users < connections => {
            Err("each connection logs in another user: give as many --users as --connections, or more")
        }
        _ => Ok(()),
    }
}

/// Whether the workload can be measured with each target.
fn check_targets(workload: &Workload, targets: &[Target]) -> Result<(), &'static str> {
    for target in targets {
        match (workload, target) {
            (Workload::Pairs(_) | Workload::Group { level: 1, .. }, _) => {}
            (Workload::Cross(_), Target::Server { addresses, .. }) if addresses.len() < 2 => {
                return Err(
                    "cross needs two nodes or more: give their addresses with commas between them, to --address or, in \
                            a comparison, to -a and -b",
                );
            }
            (Workload::Cross(_), Target::Relay(_)) => {
                return Err("the relay has no nodes: cross cannot be measured with it");
            }
            (_, Target::Relay(_)) => return Err("the relay knows pairs and groups only"),
            (_, Target::Server { .. }) => {}
        }
    }
    if targets.iter().any(Target::names_a_process_twice) {
        return Err("a process is named twice, and would count twice");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, FromArgMatches};

    use super::*;

    #[test]
    fn options_that_do_not_go_together_are_refused() {
        let is_refused = |line: &str| {
            let matches = Options::command().try_get_matches_from(line.split(' ')).expect(line);
            check(&Options::from_arg_matches(&matches).expect(line), &matches).is_err()
        };
        let refused = [
            "raybench compare -a relay -b relay pairs --pid 1",
            "raybench --pid 1 compare -a relay -b relay pairs",
            "raybench compare -a relay -b relay pairs --address 127.0.0.1:1",
            "raybench compare -a relay -b relay pairs --relay",
            "raybench compare -a relay -b relay pairs --accounts x",
            "raybench compare -a 127.0.0.1:1 -b 127.0.0.1:2 login --first",
            "raybench compare -a 127.0.0.1:1 -b 127.0.0.1:2 cross",
            "raybench compare -a relay -b 127.0.0.1:1,127.0.0.1:2 cross",
            "raybench compare -a relay -b 127.0.0.1:1 login",
            "raybench cross",
            "raybench idle --relay",
            "raybench pairs --relay --pid 1",
            "raybench pairs --relay --address 127.0.0.1:1",
            "raybench group --members 5 --senders 6",
            "raybench login --connections 10 --users 9",
            "raybench pairs --pid 7,7",
            "raybench acked --conversations 5",
            "raybench acked --bare",
            "raybench devices --bare",
            "raybench resume --users 50 --conversations 50",
            "raybench resume --conversations 4 --grown 3",
            "raybench resume --seconds 2",
            "raybench acked --relay",
            "raybench group --level 2 --relay",
            "raybench compare -a relay -b 127.0.0.1:1@7,7 pairs",
            "raybench offline --seconds 2",
            "raybench ramp --warm-up 2",
            "raybench login --first --seconds 2",
            "raybench compare -a 127.0.0.1:1 -b 127.0.0.1:2 --seconds 2 offline",
            "raybench pairs --report -",
            "raybench pairs --report x --json x",
            "raybench relay --address 127.0.0.1:1",
            "raybench relay --json x",
        ];
        for line in refused {
            assert!(is_refused(line), "{line}");
        }
        let taken = [
            "raybench pairs --pid 1 --address 127.0.0.1:1",
            "raybench pairs --relay",
            "raybench compare -a relay -b 127.0.0.1:1@7 pairs",
            "raybench compare -a 127.0.0.1:1 -b 127.0.0.1:2 --rounds 1 login --first",
            "raybench cross --address 127.0.0.1:1,127.0.0.1:2",
            "raybench group --members 5 --senders 5",
            "raybench group --members 5 --level 2",
            "raybench acked --conversations 5 --senders 5",
            "raybench login --seconds 2",
            "raybench idle --seconds 2",
            "raybench --quiet relay --listen 127.0.0.1:1",
        ];
        for line in taken {
            assert!(!is_refused(line), "{line}");
        }
    }
}
