//! Observing the loops from another thread.

use net::{CloseReason, LoopWatch};

use crate::kit::{Gate, Note, PATIENCE, Seen, TestServer, echo, settings, taken, wait_until};

fn turns(watch: &LoopWatch<Note>) -> u64 {
    watch.stats().turn_times().turns.iter().sum()
}

#[test]
fn a_loop_that_stands_still_owes_a_sign_of_life_until_it_turns() {
    let mut server = TestServer::start(2, settings(), echo);
    let (held, _other) = (server.connect(), server.connect());
    let watches = server.watches.clone();
    let gate = Gate::close(&held.link);
    watches.iter().for_each(LoopWatch::ask);
    wait_until(|| watches[1].owes_since().is_none());
    let asked = watches[0].owes_since().expect("it stands still");
    assert_eq!(watches[0].letters(), 1);
    watches[0].ask();
    assert_eq!(watches[0].owes_since(), Some(asked), "it is not asked twice");
    assert_eq!(watches[0].letters(), 1);
    drop(gate);
    wait_until(|| watches[0].owes_since().is_none() && watches[0].letters() == 0);

    server.drain(PATIENCE).join().expect("the loops end");
    watches[0].ask();
    assert_eq!(watches[0].owes_since(), None, "a loop that has ended owes nothing");
}

#[test]
fn connections_and_turns_are_counted() {
    let server = TestServer::start(1, settings(), echo);
    let watch = &server.watches[0];
    let (leaves, stays, broken) = (server.connect(), server.connect(), server.connect());
    wait_until(|| watch.stats().open() == 3);
    assert_eq!(watch.stats().accepted(), 3);
    leaves.end();
    leaves.expect([taken("<end>"), Seen::Closed(CloseReason::Ended)]);
    broken.link.hang_up();
    broken.expect([Seen::HangUp, taken("<end>"), Seen::Closed(CloseReason::Broken)]);
    wait_until(|| watch.stats().open() == 1);
    let closed = CloseReason::ALL.map(|reason| watch.stats().closed(reason));
    assert_eq!(closed, [1, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(watch.stats().accepted(), 3, "that does not change");
    let (turns_before, total_before) = (turns(watch), watch.stats().turn_times().total);
    watch.ask();
    wait_until(|| turns(watch) > turns_before && watch.stats().turn_times().total > total_before);
    drop(stays);
}
