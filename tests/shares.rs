//! A greedy client beside a quiet one. Whatever the greedy one uses up, the quiet one is served. No
//! check depends on the speed of the machine; only the printed figures do.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::{LONG_PATIENCE, StoreLock, TestClient, TestServer, chat, login, offline_user, user, wait_until};

fn refused(server: &TestServer, limit: &str) -> f64 {
    server.metric(&format!("raybox_refused_total{{limit=\"{limit}\"}}"))
}

/// Connections that are all logged in as one user.
fn connections(server: &TestServer, name: &str, id: i64, count: usize) -> Vec<TestClient> {
    (0..count).map(|_| login(server, name, id)).collect()
}

fn refusals(frames: &[Value]) -> usize {
    frames.iter().filter(|frame| frame["errno"] == 503).count()
}

// The lanes to the store

#[test]
fn one_account_with_many_connections_does_not_take_the_room_of_the_lanes_from_others() {
    const GREEDY: usize = 4;
    const QUIET: usize = 100;
    let server = TestServer::builder().option("admin", "127.0.0.1:0").option("lane_max", "1m").start();
    let (_first, g) = user(&server, "greedy");
    let victim = offline_user(&server, "victim");
    let (mut quiet, q) = user(&server, "quiet");
    let absent = offline_user(&server, "absent");
    let mut greedy = connections(&server, "greedy", g, GREEDY);
    // While this lock is held, no message leaves the lanes.
    let lock = StoreLock::take(&server);
    let text = "x".repeat(30_000);
    for client in &mut greedy {
        for _ in 0..20 {
            client.send(&chat(g, victim, &text));
        }
    }
    wait_until("the greedy one is refused", || refused(&server, "lane_max") > 0.0);
    // These are forwarded like chat, and counted separately.
    for n in 0..QUIET {
        quiet.send(&json!({"msgType": 5, "FROMID": q, "TOID": absent, "msg": n.to_string()}));
    }
    wait_until("what the quiet one wrote is read", || {
        server.metric(r#"raybox_frames_total{type="5"}"#) as usize == QUIET
    });
    drop(lock);
    // If a message had been refused, the next frame would be the refusal.
    quiet.barrier();
    assert_eq!(server.stored_for(absent), QUIET);
    let refused: usize = greedy.iter_mut().map(|client| refusals(&client.recv_until_barrier())).sum();
    println!("of the greedy one's {} messages {refused} are refused, of the quiet one's {QUIET} none", 20 * GREEDY);
    assert_eq!(server.stored_for(victim), 20 * GREEDY - refused, "each is stored or refused");
    assert!(refused > 0);
    // After that there is room again.
    greedy[0].send(&chat(g, victim, &text));
    greedy[0].barrier();
    quiet.send(&json!({"msgType": 4, "FROMID": q, "TOID": absent, "msg": text}));
    quiet.barrier();
}

#[test]
fn a_message_does_not_wait_for_all_that_another_sender_has_in_its_lane() {
    const EACH: usize = 500;
    let server = TestServer::builder().option("admin", "127.0.0.1:0").start();
    let (_first, g) = user(&server, "greedy");
    let (mut quiet, q) = user(&server, "quiet");
    let victim = offline_user(&server, "victim");
    let metrics = server.metrics();
    let lanes =
        (0..).take_while(|n| metrics.contains(&format!("raybox_lane_items{{lane=\"lane-{n}\"}}"))).count() as i64;
    assert!(lanes > 0, "{metrics}");
    // The users with the next ids belong to the other lanes.
    for n in 1..lanes {
        offline_user(&server, &format!("other {n}"));
    }
    let absent = offline_user(&server, "absent");
    assert_eq!((absent - victim) % lanes, 0);
    let lane = |what: &str| server.metric(&format!("raybox_lane_{what}{{lane=\"lane-{}\"}}", absent % lanes));
    let mut greedy = connections(&server, "greedy", g, 4);
    let lock = StoreLock::take(&server);
    // While the lane's thread works on this message, all others wait behind it.
    greedy[0].send(&chat(g, victim, "the first"));
    wait_until("the lane waits for the store", || lane("bytes") > 0.0 && lane("items") == 0.0);
    for client in &mut greedy {
        for n in 0..EACH {
            client.send(&chat(g, victim, &n.to_string()));
        }
    }
    wait_until("all wait in the lane", || lane("items") as usize == greedy.len() * EACH);
    quiet.send(&chat(q, absent, "quiet"));
    wait_until("the quiet one's message waits too", || lane("items") as usize == greedy.len() * EACH + 1);
    drop(lock);
    quiet.barrier();
    for client in &mut greedy {
        assert_eq!(client.recv_until_barrier(), [] as [Value; 0]);
    }
    let of_quiet = format!("(SELECT id FROM OfflineMessage WHERE userid = {absent})");
    let before = server.count(&format!("SELECT count(*) FROM OfflineMessage WHERE id < {of_quiet}"));
    println!("{before} of {} messages were stored before the quiet one's, which came last", server.stored() - 1);
    assert_eq!(server.stored(), 2 + 4 * EACH);
    assert!(before < EACH / 4, "{before} messages were stored before it");
}

#[test]
fn a_text_for_many_absent_members_takes_room_once() {
    const MEMBERS: usize = 100;
    let server = TestServer::builder().option("admin", "127.0.0.1:0").option("lane_max", "1m").start();
    let (mut owner, o) = user(&server, "owner");
    let group = owner.create_group(o, "many");
    for n in 0..MEMBERS {
        let name = format!("member {n}");
        let (mut member, id) = user(&server, &name);
        member.join_group(id, group);
    }
    wait_until("they are gone", || (0..MEMBERS).all(|n| server.state_of(o + 1 + n as i64) == "offline"));
    // If each member counted, this would be a hundred times the available room.
    let text = "x".repeat(60_000);
    for _ in 0..2 {
        owner.send(&json!({"msgType": 9, "FROMID": o, "GROUPID": group, "msg": text}));
        owner.barrier();
    }
    assert_eq!(server.stored(), 2 * MEMBERS);
    assert_eq!(refused(&server, "lane_max"), 0.0);
    // On disk the text counts once for each batch of the frame's rows. A batch of a single row has
    // the text in that row.
    let kept = server.count("SELECT count(*) FROM MessageText")
        + server.count("SELECT count(*) FROM OfflineMessage WHERE octet_length(message) >= 60000");
    assert!(kept <= MEMBERS / 5, "{kept} times for two frames to {MEMBERS} members");
    for n in 0..MEMBERS {
        let id = o + 1 + n as i64;
        let mut member = login(&server, &format!("member {n}"), id);
        let fetched = member.fetch_all(id);
        assert!(fetched.len() == 2 && fetched.iter().all(|message| message["msg"] == text), "member {n}");
        member.logout(id);
    }
    assert_eq!((server.stored(), server.count("SELECT count(*) FROM MessageText")), (0, 0));
}

// Mailboxes

#[test]
fn one_sender_fills_half_of_a_mailbox_and_others_find_room() {
    const MIB: usize = 1 << 20;
    let server = TestServer::builder().option("admin", "127.0.0.1:0").option("mailbox_max", "1m").start();
    let (_first, g) = user(&server, "greedy");
    let (mut quiet, q) = user(&server, "quiet");
    let victim = offline_user(&server, "victim");
    let mut greedy = connections(&server, "greedy", g, 4);
    let text = "x".repeat(20_000);
    for _ in 0..40 {
        for client in &mut greedy {
            client.send(&chat(g, victim, &text));
        }
    }
    let mut refused_count = 0;
    for client in &mut greedy {
        for frame in client.recv_until_barrier() {
            assert_eq!(frame["errno"], 503, "{frame}");
            assert!(frame["errmsg"].as_str().is_some_and(|text| text.contains("mailbox")), "{frame}");
            refused_count += 1;
        }
    }
    let stored = server.stored_for(victim);
    println!("of {} messages of 20 kB {stored} are stored, {refused_count} refused", 40 * greedy.len());
    assert_eq!(stored + refused_count, 40 * greedy.len());
    assert!(stored * 20_000 <= 3 * MIB / 4 && stored * 20_000 >= MIB / 4, "{stored}");
    assert!(refused(&server, "mailbox_max") > 0.0);
    // There is room for messages of another sender, and for the greedy one's messages to another
    // user.
    for n in 0..10 {
        quiet.send(&chat(q, victim, &n.to_string()));
    }
    quiet.barrier();
    let other = offline_user(&server, "other");
    greedy[0].send(&chat(g, other, &text));
    greedy[0].barrier();
    assert_eq!((server.stored_for(victim), server.stored_for(other)), (stored + 10, 1));
    // A fetch makes room.
    let mut victim_client = login(&server, "victim", victim);
    assert_eq!(victim_client.fetch_all(victim).len(), stored + 10);
    victim_client.logout(victim);
    greedy[0].send(&chat(g, victim, &text));
    greedy[0].barrier();
    assert_eq!(server.stored_for(victim), 1);
}

#[test]
fn a_member_with_a_full_mailbox_is_left_out_and_the_group_goes_on() {
    const MESSAGES: usize = 40;
    let server = TestServer::builder().option("admin", "127.0.0.1:0").option("mailbox_max", "64k").start();
    let (mut owner, o) = user(&server, "owner");
    let group = owner.create_group(o, "busy");
    let [mut reader, mut dormant, mut friend] = ["reader", "dormant", "friend"].map(|name| user(&server, name));
    reader.0.join_group(reader.1, group);
    dormant.0.join_group(dormant.1, group);
    dormant.0.logout(dormant.1);
    let text = "x".repeat(4000);
    let message = json!({"msgType": 9, "FROMID": o, "GROUPID": group, "msg": text});
    for _ in 0..MESSAGES {
        owner.send(&message);
        reader.0.expect(&message);
    }
    // No message was refused; otherwise the next frame would be the refusal.
    owner.barrier();
    let stored = server.stored_for(dormant.1);
    assert!((5..=10).contains(&stored), "{stored} messages are half of the mailbox");
    assert_eq!(server.metric(r#"raybox_deliveries_total{path="left_out"}"#) as usize, MESSAGES - stored);
    // There is room for a friend's message. Once the mailbox is empty, there is room for the
    // group's messages again.
    friend.0.send(&chat(friend.1, dormant.1, "hello"));
    friend.0.barrier();
    let mut back = login(&server, "dormant", dormant.1);
    assert_eq!(back.fetch_all(dormant.1).len(), stored + 1);
    back.logout(dormant.1);
    owner.send(&message);
    owner.barrier();
    reader.0.expect(&message);
    assert_eq!(server.stored_for(dormant.1), 1);
    // A message that reaches no member is refused.
    reader.0.logout(reader.1);
    let refusal = (0..MESSAGES).find_map(|_| {
        owner.send(&message);
        owner.recv_until_barrier().into_iter().next()
    });
    let refusal = refusal.expect("both mailboxes are full");
    assert!(refusal["errno"] == 503 && refusal["errmsg"].to_string().contains("mailbox"), "{refusal}");
}

// Workers

#[test]
fn searches_of_one_account_do_not_hold_up_requests_of_another_one() {
    const GREEDY: usize = 40;
    const SEARCHES: usize = 5;
    const GROUPS: usize = 30_000;
    const LISTS: usize = 20;
    let server = TestServer::start();
    let (_first, g) = user(&server, "greedy");
    let (mut quiet, q) = user(&server, "quiet");
    server.run_sql(&format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {GROUPS})
         INSERT INTO AllGroup (groupname, name_key, groupdesc) SELECT 'group ' || i, 'group ' || i, '' FROM n"
    ));
    let mut greedy = connections(&server, "greedy", g, GREEDY);
    for client in &mut greedy {
        for _ in 0..SEARCHES {
            client.send(&json!({"msgType": 13, "name": "no such group"}));
        }
    }
    let mut times: Vec<Duration> = (0..LISTS)
        .map(|_| {
            let begun = Instant::now();
            assert_eq!(quiet.ask(&json!({"msgType": 8, "FROMID": q}))["msgType"], 8);
            begun.elapsed()
        })
        .collect();
    let found = greedy.iter_mut().map(|client| std::iter::from_fn(|| client.recv_now()).count());
    let found: Vec<usize> = found.collect();
    times.sort_unstable();
    let (done, all) = (found.iter().sum::<usize>(), GREEDY * SEARCHES);
    println!("p50 {:?}, p99 {:?} while {done} of {all} searches were done", times[LISTS / 2], times[LISTS - 1]);
    assert!(done < all, "the quiet one had to wait for the greedy one");
    for (client, found) in greedy.iter_mut().zip(found) {
        client.set_patience(LONG_PATIENCE);
        (found..SEARCHES).for_each(|_| assert_eq!(client.recv()["errno"], 200));
    }
}

#[test]
fn fetches_of_clients_that_hang_up_do_not_hold_up_the_storing_of_others() {
    const GREEDY: usize = 30;
    const MESSAGES: usize = 20;
    let server = TestServer::start();
    let (mut quiet, q) = user(&server, "quiet");
    let absent = offline_user(&server, "absent");
    let (_first, g) = user(&server, "greedy");
    let victim = offline_user(&server, "victim");
    server.run_sql(&format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
         INSERT INTO OfflineMessage (userid, message) SELECT {g}, '{{\"n\":' || i || '}}' FROM n"
    ));
    for client in connections(&server, "greedy", g, GREEDY).iter_mut() {
        client.send(&json!({"msgType": 14, "FROMID": g}));
    }
    let mut times: Vec<Duration> = (0..MESSAGES)
        .map(|n| {
            let begun = Instant::now();
            quiet.send(&chat(q, absent, &n.to_string()));
            quiet.ack_barrier();
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    println!("stored within p50 {:?}, p99 {:?}", times[MESSAGES / 2], times[MESSAGES - 1]);
    assert_eq!((server.stored_for(absent), server.stored_for(victim)), (MESSAGES, 0));
}

#[test]
fn a_stranger_is_refused_until_it_joins_and_a_full_group_takes_nobody() {
    let server = TestServer::builder().option("admin", "127.0.0.1:0").option("group_members_max", "2").start();
    let (mut owner, o) = user(&server, "owner");
    let (mut stranger, s) = user(&server, "stranger");
    let (mut late, l) = user(&server, "late");
    let group = owner.create_group(o, "two");
    let text = |from: i64| json!({"msgType": 9, "FROMID": from, "GROUPID": group, "msg": "hello"});
    for _ in 0..3 {
        stranger.send(&text(s));
        stranger.expect_refusal(403);
    }
    // The cached refusal is dropped as soon as the user joins.
    stranger.join_group(s, group);
    stranger.send(&text(s));
    stranger.barrier();
    owner.expect(&text(s));
    stranger.join_group(s, group);
    late.send(&json!({"msgType": 10, "FROMID": l, "GROUPID": group}));
    let reply = late.recv();
    assert_eq!((reply["errno"].as_i64(), reply["msgType"].as_i64()), (Some(403), Some(10)), "{reply}");
    assert!(refused(&server, "group_members_max") > 0.0);
}

#[test]
fn a_user_with_too_many_groups_gets_no_other_one_and_others_do() {
    let server = TestServer::builder().option("admin", "127.0.0.1:0").option("groups_max", "2").start();
    let (mut greedy, g) = user(&server, "greedy");
    let (mut quiet, q) = user(&server, "quiet");
    // A C++ server may leave the members of groups that are gone. They do not count.
    server.run_sql(&format!(
        "INSERT INTO GroupUser (groupid, userid, grouprole) VALUES (901, {g}, 'normal'), (902, {g}, 'normal')"
    ));
    let open = quiet.create_group(q, "open to all");
    let own = greedy.create_group(g, "first");
    greedy.create_group(g, "second");
    let refusal = "you are in too many groups for another one";
    let third = greedy.ask(&json!({"msgType": 12, "FROMID": g, "name": "third", "description": ""}));
    assert_eq!(third, json!({"errmsg": refusal, "errno": 403, "msgType": 12}));
    let joins = greedy.ask(&json!({"msgType": 10, "FROMID": g, "GROUPID": open}));
    assert_eq!(joins, json!({"errmsg": refusal, "errno": 403, "groupId": open, "msgType": 10}));
    // These change nothing, and have the same replies as ever.
    greedy.join_group(g, own);
    let unknown = greedy.ask(&json!({"msgType": 10, "FROMID": g, "GROUPID": 999_999}));
    assert_eq!(unknown["errno"], 404, "{unknown}");
    quiet.join_group(q, own);
    assert_eq!(refused(&server, "groups_max"), 2.0);
}
