//! Tests of the checker, with books that contain errors.

use super::*;

const SECOND: Moment = Duration::from_secs(1);

/// Ann (1) sends four messages to Bob (2); Cid (3) only watches. All three are in group 9.
fn ann(fate: Fate, target: Target) -> Books {
    let lots = vec![Lot { target, connection: 0, numbers: 0..4, sent: SECOND, fate }];
    Books { user: 1, lots, ..Books::default() }
}

fn with(user: i64, target: Target, came: &[(usize, How)]) -> Books {
    let arrival = |(number, how)| Arrival { at: 2 * SECOND, from: 1, target, number, how };
    let connection = Connection { place: Place::Node(0), opened: Moment::ZERO, ended: None, broke: false };
    Books {
        user,
        arrivals: came.iter().copied().map(arrival).collect(),
        connections: vec![connection],
        ..Books::default()
    }
}

fn found(books: &[&Books]) -> Vec<(Wrong, i64, usize)> {
    found_with(books, &[])
}

fn found_with(books: &[&Books], proxy_kills: &[Moment]) -> Vec<(Wrong, i64, usize)> {
    let kill = |at: &Moment| caused(Kind::NginxKilled, Party::Nginx, *at, *at);
    found_after(books, &proxy_kills.iter().map(kill).collect::<Vec<_>>())
}

fn caused(kind: Kind, party: Party, begun: Moment, well: Moment) -> Caused {
    let parts = vec![Part { party, begun, well }];
    Caused { kind, begun, complete: begun, over: well, delivered_after: None, ready_after: None, parts, spooled: 0 }
}

fn found_after(books: &[&Books], caused: &[Caused]) -> Vec<(Wrong, i64, usize)> {
    let members = Members(HashMap::from([(9, BTreeSet::from([1, 2, 3]))]));
    let verdict = check(books, &members, caused);
    verdict.findings.iter().map(|finding| (finding.what, finding.way.to, finding.number)).collect()
}

const BOB: Target = Target::User(2);
const GROUP: Target = Target::Group(9);
const ACKNOWLEDGED: Fate = Fate::Acknowledged { at: SECOND, refused: 0 };

fn live(numbers: &[usize]) -> Vec<(usize, How)> {
    numbers.iter().map(|number| (*number, How::Live(0))).collect()
}

#[test]
fn books_that_agree() {
    let mut came = live(&[0, 1]);
    came.extend([(2, How::Fetched(0)), (3, How::Fetched(0))]);
    assert_eq!(found(&[&ann(ACKNOWLEDGED, BOB), &with(2, BOB, &came)]), []);
    // The messages of one connection may begin before those of another one end.
    came.rotate_left(2);
    assert_eq!(found(&[&ann(ACKNOWLEDGED, BOB), &with(2, BOB, &came)]), []);
    assert_eq!(found(&[&ann(Fate::Unknown, BOB), &with(2, BOB, &live(&[1]))]), []);
    assert_eq!(found(&[&ann(Fate::Open, BOB), &with(2, BOB, &[])]), []);
    let all = live(&[0, 1, 2, 3]);
    assert_eq!(found(&[&ann(ACKNOWLEDGED, GROUP), &with(2, GROUP, &all), &with(3, GROUP, &all)]), []);
}

#[test]
fn an_acknowledged_message_that_did_not_come_is_lost() {
    let bob = with(2, BOB, &live(&[0, 1, 3]));
    assert_eq!(found(&[&ann(ACKNOWLEDGED, BOB), &bob]), [(Wrong::Lost, 2, 2)]);
    let refused = |refused| Fate::Acknowledged { at: SECOND, refused };
    assert_eq!(found(&[&ann(refused(1), BOB), &bob]), []);
    let bob = with(2, BOB, &live(&[0]));
    assert_eq!(found(&[&ann(refused(1), BOB), &bob]).len(), 2);
    let (bob, cid) = (with(2, GROUP, &live(&[0, 1, 2, 3])), with(3, GROUP, &live(&[0, 1, 2])));
    assert_eq!(found(&[&ann(ACKNOWLEDGED, GROUP), &bob, &cid]), [(Wrong::Lost, 3, 3)]);
    assert_eq!(found(&[&ann(ACKNOWLEDGED, BOB)]).len(), 4, "who has no books got nothing");
}

#[test]
fn a_message_in_a_killed_proxy_counts_as_taken() {
    let kill = [SECOND + SECOND / 2];
    let mut bob = with(2, BOB, &live(&[0, 1, 3]));
    assert_eq!(found_with(&[&ann(ACKNOWLEDGED, BOB), &bob], &kill), [(Wrong::Lost, 2, 2)], "he was on a node");
    bob.connections[0].place = Place::Nginx;
    assert_eq!(found_with(&[&ann(ACKNOWLEDGED, BOB), &bob], &kill), [(Wrong::TakenByProxy, 2, 2)]);
    assert_eq!(found_with(&[&ann(ACKNOWLEDGED, BOB), &bob], &[SECOND / 2]), [(Wrong::Lost, 2, 2)], "before");
    assert_eq!(found_with(&[&ann(ACKNOWLEDGED, BOB), &bob], &[3 * SECOND]), [(Wrong::Lost, 2, 2)], "long after");
    assert_eq!(found_with(&[&ann(ACKNOWLEDGED, BOB), &bob], &[]), [(Wrong::Lost, 2, 2)], "nothing was killed");
    // The kill began before the message was sent, and was complete afterwards.
    let kill = caused(Kind::NginxKilled, Party::Nginx, SECOND / 2, SECOND / 2);
    let slow = [Caused { complete: SECOND + SECOND / 2, ..kill }];
    assert_eq!(found_after(&[&ann(ACKNOWLEDGED, BOB), &bob], &slow), [(Wrong::TakenByProxy, 2, 2)]);
}

#[test]
fn a_message_that_came_twice_is_duplicated() {
    let mut came = live(&[0, 1, 2, 3]);
    came.push((2, How::Fetched(0)));
    assert_eq!(found(&[&ann(ACKNOWLEDGED, BOB), &with(2, BOB, &came)]), [(Wrong::Duplicated, 2, 2)]);
}

#[test]
fn a_message_that_came_after_a_later_one_is_reordered() {
    assert_eq!(found(&[&ann(ACKNOWLEDGED, BOB), &with(2, BOB, &live(&[0, 2, 1, 3]))]), [(Wrong::Reordered, 2, 1)]);
    let fetched: Vec<_> = [1, 2, 3, 0].map(|number| (number, How::Fetched(0))).to_vec();
    let mut bob = with(2, BOB, &fetched);
    assert_eq!(found(&[&ann(ACKNOWLEDGED, BOB), &bob]), [(Wrong::Reordered, 2, 0)]);
    // The message may have been in flight to a connection that broke.
    bob.connections[0].broke = true;
    bob.connections[0].ended = Some(2 * SECOND);
    assert_eq!(found(&[&ann(ACKNOWLEDGED, BOB), &bob]), [(Wrong::CameBack, 2, 0)]);
    // A connection that did not break is no such excuse.
    bob.arrivals.iter_mut().for_each(|arrival| arrival.how = How::Live(0));
    assert_eq!(found(&[&ann(ACKNOWLEDGED, BOB), &bob]), [(Wrong::Reordered, 2, 0)]);
}

#[test]
fn a_message_from_the_spool_of_another_node_may_come_later() {
    let mut ann = ann(ACKNOWLEDGED, BOB);
    ann.lots[0].numbers = 0..2;
    ann.lots.push(Lot { connection: 1, numbers: 2..4, sent: 2 * SECOND, ..ann.lots[0].clone() });
    let place = |node| Connection { place: Place::Node(node), opened: Moment::ZERO, ended: None, broke: false };
    ann.connections = vec![place(0), place(1)];
    let fetched = |numbers: [usize; 4]| with(2, BOB, &numbers.map(|number| (number, How::Fetched(0))));
    let outage = [caused(Kind::DatabaseKilled, Party::Database, SECOND / 2, 2 * SECOND)];
    let wrong = |what| [(what, 2, 0), (what, 2, 1)];
    assert_eq!(found_after(&[&ann, &fetched([2, 3, 0, 1])], &outage), wrong(Wrong::WaitedInSpool));
    assert_eq!(found_after(&[&ann, &fetched([2, 3, 0, 1])], &[]), wrong(Wrong::Reordered), "it was not away");
    assert_eq!(found_after(&[&ann, &fetched([1, 0, 2, 3])], &outage), [(Wrong::Reordered, 2, 0)], "one connection");
    assert_eq!(found_after(&[&ann, &with(2, BOB, &live(&[2, 3, 0, 1]))], &outage), wrong(Wrong::Reordered));
    ann.connections[1] = place(0);
    assert_eq!(found_after(&[&ann, &fetched([2, 3, 0, 1])], &outage), wrong(Wrong::Reordered), "one node");
}

#[test]
fn a_message_from_a_spool_may_come_after_one_that_came_back_to_another_node() {
    let mut ann = ann(ACKNOWLEDGED, BOB);
    ann.lots[0].numbers = 0..2;
    let later = Fate::Acknowledged { at: 3 * SECOND, refused: 0 };
    ann.lots.push(Lot { numbers: 2..4, sent: 3 * SECOND, fate: later, ..ann.lots[0].clone() });
    let connection = |node, opened, ended, broke| Connection { place: Place::Node(node), opened, ended, broke };
    ann.connections = vec![connection(0, Moment::ZERO, None, false)];
    let mut bob = with(2, BOB, &[2, 3, 0, 1].map(|number| (number, How::Fetched(0))));
    // He comes when the first two are in the spool.
    let to = |node| vec![connection(node, 2 * SECOND, Some(4 * SECOND), true)];
    let outage = [caused(Kind::DatabaseKilled, Party::Database, SECOND / 2, 2 * SECOND)];
    let wrong = |what| [(what, 2, 0), (what, 2, 1)];
    bob.connections = to(1);
    assert_eq!(found_after(&[&ann, &bob], &outage), wrong(Wrong::WaitedInSpool));
    assert_eq!(found_after(&[&ann, &bob], &[]), wrong(Wrong::Reordered), "the database was not away");
    bob.connections[0].broke = false;
    assert_eq!(found_after(&[&ann, &bob], &outage), wrong(Wrong::Reordered), "nothing came back");
    bob.connections = to(0);
    assert_eq!(found_after(&[&ann, &bob], &outage), wrong(Wrong::Reordered), "one node");
}

#[test]
fn a_message_that_was_given_up_is_in_no_order_with_those_sent_elsewhere() {
    let mut ann = ann(Fate::Unknown, BOB);
    ann.lots.push(Lot { connection: 1, numbers: 4..6, sent: 2 * SECOND, fate: ACKNOWLEDGED, ..ann.lots[0].clone() });
    assert_eq!(found(&[&ann, &with(2, BOB, &live(&[4, 5, 0, 1]))]), []);
    assert_eq!(found(&[&ann, &with(2, BOB, &live(&[4, 5, 1, 0]))]), [(Wrong::Reordered, 2, 0)]);
    ann.lots[0].fate = ACKNOWLEDGED;
    assert_eq!(found(&[&ann, &with(2, BOB, &live(&[4, 5, 0, 1, 2, 3]))]).len(), 4);
    ann.lots[0].fate = Fate::Unknown;
    ann.lots[1].connection = 0;
    assert_eq!(found(&[&ann, &with(2, BOB, &live(&[4, 5, 0, 1]))]).len(), 2);
}

#[test]
fn a_message_that_came_to_somebody_else_is_misdelivered() {
    let (bob, cid) = (with(2, BOB, &live(&[0, 1, 2, 3])), with(3, BOB, &live(&[2])));
    assert_eq!(found(&[&ann(ACKNOWLEDGED, BOB), &bob, &cid]), [(Wrong::Misdelivered, 3, 2)]);
    let invented = with(2, BOB, &live(&[0, 1, 2, 3, 4]));
    assert_eq!(found(&[&ann(ACKNOWLEDGED, BOB), &invented]), [(Wrong::Misdelivered, 2, 4)]);
    let mut bob = with(2, BOB, &live(&[0, 1, 2, 3]));
    bob.strays.push("not what was sent".to_owned());
    assert_eq!(found(&[&ann(ACKNOWLEDGED, BOB), &bob]), [(Wrong::Misdelivered, 2, 0)]);
    // This message of a group came to its own sender.
    let mut ann = ann(ACKNOWLEDGED, GROUP);
    ann.arrivals = with(1, GROUP, &live(&[0])).arrivals;
    let (bob, cid) = (with(2, GROUP, &live(&[0, 1, 2, 3])), with(3, GROUP, &live(&[0, 1, 2, 3])));
    assert_eq!(found(&[&ann, &bob, &cid]), [(Wrong::Misdelivered, 1, 0)]);
}

fn part(party: Party) -> Part {
    Part { party, begun: 2 * SECOND, well: 3 * SECOND }
}

/// The way of a message from Ann to Bob.
fn way(sent: Moment, until: Moment, stored: bool) -> Way {
    Way { from: 1, to: 2, connection: 0, sent, until, stored }
}

#[test]
fn a_fault_concerns_the_clients_of_its_place() {
    let bob = with(2, BOB, &[]);
    for (party, concerned) in [
        (Party::Node(0), true),
        (Party::Node(1), false),
        (Party::Redis, true),
        (Party::Nginx, false),
        (Party::Client(2), true),
        (Party::Client(3), false),
    ] {
        assert_eq!(part(party).concerns(&bob), concerned, "{party:?}");
    }
}

#[test]
fn a_fault_touches_messages_in_flight_at_its_place() {
    let touched =
        |party, ann: &Books, bob: &Books, stored| part(party).touches(&way(SECOND, 4 * SECOND, stored), ann, bob);
    let (ann, mut bob) = (with(1, BOB, &[]), with(2, BOB, &[]));
    assert!(touched(Party::Node(0), &ann, &bob, false));
    assert!(!touched(Party::Node(1), &ann, &bob, true), "nobody was there");
    assert!(!touched(Party::Redis, &ann, &bob, true), "both were on one node");
    assert!(!touched(Party::Nginx, &ann, &bob, true), "neither came through it");
    assert!(touched(Party::Database, &ann, &bob, true) && !touched(Party::Database, &ann, &bob, false));
    assert!(touched(Party::Client(2), &ann, &bob, false));
    assert!(!touched(Party::Client(1), &ann, &bob, true), "a sender's connection");
    bob.connections[0].place = Place::Node(1);
    assert!(touched(Party::Redis, &ann, &bob, false) && touched(Party::Node(1), &ann, &bob, false));
    assert!(!touched(Party::Node(2), &ann, &bob, true));
    // This connection ended so long ago that no node knows it any more.
    bob.connections.push(Connection { place: Place::Node(0), ..bob.connections[0].clone() });
    bob.connections[0].ended = Some(Moment::ZERO);
    assert!(touched(Party::Redis, &ann, &bob, false), "the node may not have noticed the end");
    let late = Part { party: Party::Redis, begun: 8 * SECOND, well: 9 * SECOND };
    assert!(!late.touches(&way(8 * SECOND, 9 * SECOND, false), &ann, &bob));
}

#[test]
fn a_connection_that_was_given_up_may_live_on_during_a_fault() {
    let (ann, mut bob) = (with(1, BOB, &[]), with(2, BOB, &[]));
    let gone = Connection { place: Place::Node(1), opened: Moment::ZERO, ended: Some(2 * SECOND), broke: true };
    bob.connections.push(gone);
    let touched = |party, begun, bob: &Books| {
        let part = Part { party, begun, well: 30 * SECOND };
        part.touches(&way(20 * SECOND, 21 * SECOND, false), &ann, bob)
    };
    assert!(touched(Party::Node(1), SECOND, &bob), "a frozen node has not read that it ended");
    assert!(!touched(Party::Node(1), 10 * SECOND, &bob), "it ended long before");
    assert!(touched(Party::Database, SECOND, &bob), "a request on it is not answered");
    assert!(!touched(Party::Database, 10 * SECOND, &bob), "it ended before");
    bob.connections.last_mut().expect("it is there").broke = false;
    assert!(!touched(Party::Database, SECOND, &bob), "a logout is no sign of a request without an answer");
}

#[test]
fn a_fault_touches_no_message_from_before_or_after_it() {
    let (ann, bob) = (with(1, BOB, &[]), with(2, BOB, &[]));
    let touched = |sent, until| part(Party::Node(0)).touches(&way(sent, until, true), &ann, &bob);
    assert!(touched(SECOND, 2 * SECOND) && touched(3 * SECOND, 4 * SECOND) && touched(SECOND, 4 * SECOND));
    assert!(!touched(SECOND, SECOND * 3 / 2));
    assert!(!touched(SECOND * 7 / 2, 4 * SECOND));
}

#[test]
fn a_duplicate_was_in_flight_until_it_came_again() {
    let mut bob = with(2, BOB, &live(&[0, 1, 2, 3]));
    bob.arrivals.push(Arrival { at: 5 * SECOND, how: How::Fetched(0), ..bob.arrivals[2] });
    let verdict = check(&[&ann(ACKNOWLEDGED, BOB), &bob], &Members::default(), &[]);
    let [twice] = &verdict.findings[..] else { panic!("{:?}", verdict.findings) };
    assert_eq!(twice.way, way(SECOND, 5 * SECOND, true));
    let ways: Vec<Way> = verdict.deliveries.iter().map(|delivery| delivery.way).collect();
    let once = way(SECOND, 2 * SECOND, false);
    assert_eq!(ways, [once, once, twice.way, once], "a message and its duplicate are measured alike");
}
