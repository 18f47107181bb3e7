use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use rusqlite::Connection;

use super::*;
use crate::store::Accounts;
use crate::store::community::{Community, Deed, GroupAct, NewGroup, Right};
use crate::store::history::{Cid, CommitRules, EntryKind, FrameHash, HistoryReads, NewEntry, SenderCheck};
use crate::store::hooks::Hooked;
use crate::store::sqlite::SqliteStore;

/// A database in a folder of its own, and what it may lose.
struct Scene {
    folder: PathBuf,
    store: SqliteStore,
    acts: AtomicU32,
}

impl Scene {
    fn new() -> Scene {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("raybox-pages-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        let store = SqliteStore::open(&folder).unwrap();
        Scene { folder, store, acts: AtomicU32::new(0) }
    }

    fn user(&self, name: &str) -> UserId {
        self.store.register(name, "x").unwrap()
    }

    fn write(&self, conv: ConversationId, sender: UserId, cid: &str) {
        self.write_text(conv, sender, cid, "{}");
    }

    fn write_text(&self, conv: ConversationId, sender: UserId, cid: &str, text: &str) {
        let entry = NewEntry {
            conv,
            sender,
            cid: Cid::of_client(cid).unwrap(),
            hash: FrameHash::of(cid.as_bytes()),
            kind: EntryKind::Message,
            is_imported: false,
            check: SenderCheck::None,
            is_hooked: false,
            change: None,
            text: text.into(),
        };
        self.store.commit(&[entry], CommitRules::OF_SERVER).unwrap();
    }

    fn act(&self, group: ConversationId, by: UserId, deed: Deed) {
        let act = GroupAct {
            group: group.group().unwrap(),
            by,
            right: Right::Standing,
            deed,
            hooked: Hooked::No,
            nonce: [1 + self.acts.fetch_add(1, Ordering::Relaxed) as u8; 16],
        };
        self.store.act(&act).unwrap().unwrap();
    }

    /// The conversation ends with this number: what came behind it was never there.
    fn lose(&self, conv: ConversationId, head: Seq) {
        let db = Connection::open(self.folder.join("raybox.db")).unwrap();
        let conv = conv.column();
        let lost = format!(
            "DELETE FROM Message WHERE conv = {conv} AND seq > {head};
             UPDATE Conversation SET head = {head} WHERE id = {conv}"
        );
        db.execute_batch(&lost).unwrap();
    }

    /// The only event of a page that is read for `user`.
    fn read(&self, user: UserId, wanted: PageWanted) -> PumpEvent {
        match read(&self.store, user, &wanted).unwrap() {
            MemberNews::Pump(mut events) if events.len() == 1 => events.remove(0),
            others => panic!("{others:?}"),
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn wanted(conv: ConversationId, from: Seq, written: Seq) -> PageWanted {
    PageWanted { conv, from, to: None, is_new: false, written: Some(written) }
}

#[test]
fn a_page_tells_the_tag_of_the_message_before_it() {
    let scene = Scene::new();
    let (ann, bob) = (scene.user("ann"), scene.user("bob"));
    let conv = ConversationId::between(ann, bob);
    (1..=4).for_each(|n| scene.write(conv, ann, &n.to_string()));
    let tags = scene.store.tags(&[1, 2, 4].map(|seq| (conv, seq))).unwrap();
    let read = |from, written| match scene.read(bob, wanted(conv, from, written)) {
        PumpEvent::Page(page) => (page.rows.iter().map(|row| row.at.seq).collect::<Vec<_>>(), page.written),
        other => panic!("{other:?}"),
    };
    assert_eq!(read(3, 2), (vec![3, 4], tags[1]), "the one before them is not among them");
    assert_eq!(read(3, 4), (vec![3, 4], tags[2]));
    assert_eq!(read(1, 0), (vec![1, 2, 3, 4], None));
    assert_eq!(read(5, 4), (vec![], tags[2]));
    scene.lose(conv, 1);
    assert_eq!(read(3, 2), (vec![], None));
}

#[test]
fn a_message_that_fits_no_page_with_the_one_before_it_comes_alone() {
    let scene = Scene::new();
    let (ann, bob) = (scene.user("ann"), scene.user("bob"));
    let conv = ConversationId::between(ann, bob);
    let long = format!(r#"{{"msg":"{}"}}"#, "x".repeat(150 * 1024));
    (1..=3).for_each(|n| scene.write_text(conv, ann, &n.to_string(), &long));
    let tags = scene.store.tags(&[(conv, 1)]).unwrap();
    let PumpEvent::Page(page) = scene.read(bob, wanted(conv, 2, 1)) else { panic!("no page") };
    assert_eq!(page.rows.iter().map(|row| row.at.seq).collect::<Vec<_>>(), [2]);
    assert_eq!(page.written, tags[0]);
}

#[test]
fn a_membership_whose_end_is_lost_is_not_waited_for() {
    let scene = Scene::new();
    let (ann, bob) = (scene.user("ann"), scene.user("bob"));
    let group = NewGroup { owner: ann, name: "team".to_owned(), description: String::new(), nonce: [0; 16] };
    let (group, _) = scene.store.found_group(&group).unwrap();
    let conv = ConversationId::of_group(group);
    scene.act(conv, bob, Deed::Join { members_max: 10 });
    let joined = scene.store.heads_of(bob, &[conv]).unwrap()[0].as_ref().unwrap().head;
    scene.write(conv, ann, "lost");
    scene.act(conv, bob, Deed::Leave);
    let (shown, end) = (joined + 1, joined + 2);
    let rest = PageWanted { to: Some(end), ..wanted(conv, end, shown) };
    match read(&scene.store, bob, &rest).unwrap() {
        MemberNews::Pump(events) => assert!(matches!(&events[..], [PumpEvent::Left { .. }, PumpEvent::Page(page)]
            if page.rows.len() == 1 && page.written.is_some())),
        other => panic!("{other:?}"),
    }
    // All of it is lost, with the membership.
    scene.lose(conv, joined - 1);
    let denied = scene.read(bob, rest);
    assert!(matches!(denied, PumpEvent::PageDenied(_)), "a hole that is read for ever: {denied:?}");
}
