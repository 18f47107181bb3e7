//! The steps of messages on their way to other nodes.

use crate::base::trace::{Hop, Step, Tracer, hash};
use crate::bus::{Envelope, Place, Published, node_of};
use crate::delivery::Delivery;

/// Notes that an envelope was offered.
pub(super) fn published(tracer: Option<&Tracer>, envelope: &Envelope, published: Published) {
    let Some(tracer) = tracer.filter(|tracer| tracer.is_on()) else { return };
    let (hop, nodes) = match published {
        // The envelope is offered to all nodes next.
        Published::ToNobody if envelope.place.is_some() => return,
        Published::ToNobody => (Hop::Unpublished, 0),
        Published::ToOne => (Hop::Published, 1),
        Published::Taken(nodes) => (Hop::Published, nodes),
        Published::InDoubt => (Hop::Published, 0),
    };
    let node = of_place(envelope.place.as_ref());
    for (nth, delivery) in (0..).zip(&envelope.deliveries) {
        tracer.note(|| Step { node, envelope: envelope.sequence, nth, number: nodes, ..delivery.step(hop) });
    }
}

/// Notes `hop` for the messages of an envelope that are left after the first `before` of them.
pub(super) fn answered(
    tracer: Option<&Tracer>,
    hop: Hop,
    (sequence, left, before): (u64, &[Delivery], usize),
    place: Option<&Place>,
) {
    let Some(tracer) = tracer.filter(|tracer| tracer.is_on()) else { return };
    for (nth, delivery) in (before as u32..).zip(left) {
        let step = delivery.step(hop);
        tracer.note(|| Step { node: of_place(place), envelope: sequence, nth, ..step });
    }
}

fn of_place(place: Option<&Place>) -> u64 {
    place.map_or(0, |place| hash(node_of(place).as_bytes()))
}
