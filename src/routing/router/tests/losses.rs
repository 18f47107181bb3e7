//! Messages that are lost in a panic: somebody hears of it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::base::conversation::ConversationId;
use crate::history::pump::{PumpEvent, SendAnswer, Submission};
use crate::routing::recorder::SendOwed;

#[test]
fn the_sender_of_what_is_lost_in_a_lane_hears_that_it_has_failed() {
    let mut scene = Scene::new();
    scene.sender = scene.connect().link;
    let heard = |scene: &mut Scene| {
        scene.event_loop.turn(scene.turn.now(), &[]);
        scene.notes.posted.lock().drain(..).map(|posted| format!("{posted:?}")).collect::<Vec<_>>()
    };
    let failed = |bytes, id| format!("{:?}", Posted::Settled(Settled::one(id, bytes, Err(Undelivered::Unstored))));
    let (first, second) = (FrameId::first_of(1), FrameId::first_of(1).next());
    scene.send(USER, "{a}");
    // As when the batch panics.
    drop(scene.items());
    assert_eq!(heard(&mut scene), [failed(3, first)]);

    let members = [1, 2].map(UserId);
    let frame = Scene::group(&members, 3, "{ab}");
    scene.send_all(&frame, 3);
    let mut items = scene.items();
    let Some(LaneItem::Delivery(one)) = items.pop() else { unreachable!("there are two") };
    delivery::settle_all(vec![one], Ok(()));
    assert_eq!(heard(&mut scene), [""; 0], "the other one is on its way");
    drop(items);
    assert_eq!(heard(&mut scene), [failed(4, second)]);

    scene.router.attendance.ways.close_to_nodes(scene.turn.now());
    assert_eq!(scene.send(USER, "{a}"), Routed::FAILED);
    let routed = scene.send_all(&frame, 3);
    assert_eq!((routed, heard(&mut scene)), (Routed::FAILED, vec![]), "each is told once");
}

#[test]
fn a_send_of_level_2_that_is_lost_in_a_panic_ends_its_connection() {
    let mut scene = Scene::new();
    let link = scene.connect().link;
    let owed = || SendOwed::new(&link, ConversationId::of_group(GroupId(1)), Submission::ALONE);
    drop(owed());
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _batch = owed();
        std::panic::panic_any("as a commit would");
    }));
    assert!(panicked.is_err());
    scene.event_loop.turn(scene.turn.now(), &[]);
    let posted = std::mem::take(&mut *scene.notes.posted.lock());
    assert!(
        matches!(&posted[0], Posted::Pump(PumpEvent::Answered { answer: SendAnswer::Refused(_), .. })),
        "{posted:?}"
    );
    assert_eq!((posted.len(), link.is_sealed()), (1, true));
}
