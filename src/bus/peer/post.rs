//! Packs envelopes into [`Publication`]s, and offers them to the other nodes.

use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;

use super::devices;
use super::envelope::{self, Bundle};
use super::topic::Topic;
use super::transport::{BusTransport, Publication, Reached};
use crate::bus::news::DeviceNews;
use crate::bus::{Envelope, Place, Published};
use crate::delivery::Delivery;
use crate::protocol::{GroupId, UserId};

/// A post, and the indices of the envelopes in it.
type Packed<'e> = (Publication<'e>, Vec<usize>);

/// Packs envelopes into posts: envelopes for one place share a post, which contains a text for many
/// of its users once. Envelopes for one user keep their order.
fn pack<'e>(node: &str, envelopes: &'e [Envelope]) -> Vec<Packed<'e>> {
    let mut posts = Vec::new();
    let mut parcels: FxHashMap<&Place, Parcel<'_>> = FxHashMap::default();
    for (index, envelope) in envelopes.iter().enumerate() {
        let Some(place) = &envelope.place else {
            let frames = envelope.deliveries.iter().map(|delivery| &*delivery.text);
            let payload =
                envelope::envelope(node, envelope.sequence, (envelope.is_returned, envelope.is_recorded), frames);
            posts.push((Publication { topic: Topic::User(envelope.to), payload }, vec![index]));
            continue;
        };
        let parcel = parcels.entry(place).or_default();
        // Two envelopes for one user are put into two parcels, one after the other.
        if parcel.is_full() || parcel.users.contains(&envelope.to) {
            posts.push(std::mem::take(parcel).into_post(node, place));
        }
        parcel.add(index, envelope);
    }
    posts.extend(parcels.into_iter().map(|(place, parcel)| parcel.into_post(node, place)));
    posts
}

/// Offers envelopes to the nodes that want them, while the way to them is open. Blocks while the
/// transport does.
pub(super) fn offer(transport: &dyn BusTransport, envelopes: &[Envelope]) -> Vec<Published> {
    let peer = transport.peer();
    let mut published = Vec::with_capacity(envelopes.len());
    let mut rest = envelopes;
    while !rest.is_empty() && peer.gate().is_open() {
        let (batch, later) = rest.split_at(batch_length(rest));
        rest = later;
        let (posts, contents): (Vec<_>, Vec<_>) = pack(peer.node(), batch).into_iter().unzip();
        // Later posts must not overtake one that was not sent.
        let Ok(reached) = transport.post(&posts) else { break };
        let before = published.len();
        published.resize(before + batch.len(), Published::ToNobody);
        for (envelopes, reached) in contents.into_iter().zip(reached) {
            envelopes.into_iter().for_each(|at| published[before + at] = of_envelope(&batch[at], reached));
        }
    }
    published.resize(envelopes.len(), Published::ToNobody);
    published
}

fn of_envelope(envelope: &Envelope, reached: Reached) -> Published {
    match reached {
        Reached::Nodes(nodes) => envelope.published_to(nodes),
        Reached::Unknown => Published::InDoubt,
        Reached::Unsent => Published::ToNobody,
    }
}

/// Notifies all nodes that the members of a group have changed. If that fails, they reload the
/// group before long. Blocks while the transport does.
pub(super) fn announce_group(transport: &dyn BusTransport, group: GroupId) {
    if transport.peer().gate().is_open() {
        let _ = transport.post(&[Publication { topic: Topic::Groups, payload: envelope::group(group) }]);
    }
}

/// Tells other nodes news for connections of level 2, while the way to them is open. Blocks while
/// the transport does. Returns whether the transport reports that all of it was passed on.
pub(super) fn tell_devices(transport: &dyn BusTransport, news: &[DeviceNews]) -> bool {
    let (peer, mut is_told) = (transport.peer(), true);
    for some in news.chunks(POSTS_MAX) {
        let post = |news| {
            let (topic, payload) = devices::write(peer.node(), news);
            Publication { topic, payload }
        };
        let posts = || some.iter().map(post).collect::<Vec<_>>();
        match peer.gate().is_open().then(|| transport.post(&posts())) {
            Some(Ok(reached)) => is_told &= reached.iter().all(|reached| matches!(reached, Reached::Nodes(_))),
            Some(Err(_)) | None => return false,
        }
    }
    is_told
}

/// The number of envelopes to publish together. Their results come only when all are received, so
/// this must not take long.
fn batch_length(envelopes: &[Envelope]) -> usize {
    let (mut bytes, mut addressed_to_all) = (0, 0);
    let fitting = envelopes.iter().take_while(|envelope| {
        let is_first = bytes == 0;
        bytes += envelope.deliveries.iter().map(|delivery| delivery.text.len()).sum::<usize>() + HEAD_BYTES;
        addressed_to_all += usize::from(envelope.place.is_none());
        is_first || (bytes <= PIPELINE_BYTES_MAX && addressed_to_all <= POSTS_MAX)
    });
    fitting.count()
}

/// The messages for users of one place.
#[derive(Default)]
struct Parcel<'e> {
    items: Vec<ParcelItem<'e>>,
    /// The item for these texts. Texts are shared by all their recipients, so their addresses
    /// identify them.
    by_texts: FxHashMap<(SmallVec<[*const u8; 2]>, bool), usize>,
    users: FxHashSet<UserId>,
    envelopes: Vec<usize>,
    bytes: usize,
}

struct ParcelItem<'e> {
    deliveries: &'e [Delivery],
    is_recorded: bool,
    envelopes: Vec<(UserId, u64)>,
}

impl<'e> Parcel<'e> {
    fn is_full(&self) -> bool {
        self.bytes > PARCEL_BYTES_MAX || self.envelopes.len() >= RECIPIENTS_MAX
    }

    fn add(&mut self, index: usize, envelope: &'e Envelope) {
        let Envelope { to, sequence, deliveries, is_recorded, .. } = envelope;
        self.envelopes.push(index);
        self.users.insert(*to);
        self.bytes += HEAD_BYTES;
        let texts = deliveries.iter().map(|delivery| delivery.text.as_ptr()).collect();
        let at = *self.by_texts.entry((texts, *is_recorded)).or_insert_with(|| {
            self.bytes += deliveries.iter().map(|delivery| delivery.text.len()).sum::<usize>();
            self.items.push(ParcelItem { deliveries, is_recorded: *is_recorded, envelopes: Vec::new() });
            self.items.len() - 1
        });
        self.items[at].envelopes.push((*to, *sequence));
    }

    fn into_post(self, node: &str, place: &'e Place) -> Packed<'e> {
        let mut bundle = Bundle::new(node);
        for ParcelItem { deliveries, is_recorded, envelopes } in self.items {
            bundle.push(envelopes.into_iter(), deliveries.iter().map(|delivery| &*delivery.text), is_recorded);
        }
        (Publication { topic: Topic::Place(place), payload: bundle.into_payload() }, self.envelopes)
    }
}

/// Roughly the length of a user and a sequence.
const HEAD_BYTES: usize = 24;
/// The most posts that are published before their answers are read.
pub(in crate::bus) const POSTS_MAX: usize = 512;
/// The most recipients of one post. The other node delivers a post in one go, and what others have
/// sent to it waits a few milliseconds meanwhile.
const RECIPIENTS_MAX: usize = 512;
/// The most text in one post, and in all posts published together, unless a single text is longer.
const PARCEL_BYTES_MAX: usize = 256 * 1024;
const PIPELINE_BYTES_MAX: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use super::super::shared::PeerShared;
    use super::super::transport::NotSent;
    use super::*;
    use crate::bus::Node;
    use crate::delivery::DeliveryOrigin;

    fn envelope(to: i32, place: Option<&str>, sequence: u64, texts: &[&Arc<str>]) -> Envelope {
        let origin = || DeliveryOrigin::Spooled(crate::store::spool::SpoolId(1), None);
        let delivery = |text: &&Arc<str>| Delivery::new(UserId(to), Arc::clone(text), origin());
        let deliveries = texts.iter().map(delivery).collect();
        Envelope {
            to: UserId(to),
            place: place.map(Place::from),
            sequence,
            is_returned: false,
            is_recorded: false,
            deliveries,
        }
    }

    fn packed(envelopes: &[Envelope]) -> Vec<(String, String, Vec<usize>)> {
        let mut posts: Vec<_> = pack("me", envelopes)
            .into_iter()
            .map(|(Publication { topic, payload }, envelopes)| {
                (topic.to_string(), String::from_utf8(payload).expect("text"), envelopes)
            })
            .collect();
        // Places come in any order.
        posts.sort_by_key(|(.., envelopes)| envelopes[0]);
        posts
    }

    #[test]
    fn one_post_goes_to_each_place_with_each_text_once() {
        let [group, other]: [Arc<str>; 2] = ["{\"g\":1}".into(), "{}".into()];
        let envelopes = [
            envelope(1, Some("a-1"), 1, &[&group]),
            envelope(2, Some("b-1"), 2, &[&group]),
            envelope(3, Some("a-1"), 3, &[&group]),
            envelope(4, None, 4, &[&group, &other]),
            envelope(5, Some("a-1"), 5, &[&group, &other]),
        ];
        let expected = [
            ("p:a-1", "1 me\n1 1:1,3:3\n{\"g\":1}\n2 5:5\n{\"g\":1}\n{}", vec![0, 2, 4]),
            ("p:b-1", "1 me\n1 2:2\n{\"g\":1}", vec![1]),
            ("u:4", "1 me 4\n{\"g\":1}\n{}", vec![3]),
        ];
        let expected = expected.map(|(topic, payload, envelopes)| (topic.into(), payload.into(), envelopes));
        assert_eq!(packed(&envelopes), expected);
    }

    #[test]
    fn envelopes_for_one_user_stay_in_order() {
        let [first, second]: [Arc<str>; 2] = ["1".into(), "2".into()];
        let envelopes = [
            envelope(1, Some("a-1"), 1, &[&second]),
            envelope(2, Some("a-1"), 2, &[&first]),
            envelope(2, Some("a-1"), 3, &[&second]),
        ];
        let posts = packed(&envelopes);
        assert_eq!(posts.iter().map(|(.., envelopes)| envelopes.clone()).collect::<Vec<_>>(), [vec![0, 1], vec![2]]);
    }

    #[test]
    fn neither_a_parcel_nor_a_pipeline_grows_without_bound() {
        let texts: Vec<Arc<str>> = (0..3).map(|n| n.to_string().repeat(PARCEL_BYTES_MAX * 2 / 3).into()).collect();
        let to_place = |(n, text): (usize, &Arc<str>)| envelope(n as i32 + 1, Some("a-1"), n as u64, &[text]);
        let posts = packed(&texts.iter().enumerate().map(to_place).collect::<Vec<_>>());
        assert_eq!(posts.iter().map(|(.., envelopes)| envelopes.clone()).collect::<Vec<_>>(), [vec![0, 1], vec![2]]);
        let text: Arc<str> = "{}".into();
        let many = |place| (0..=POSTS_MAX).map(|n| envelope(1, place, n as u64, &[&text])).collect::<Vec<_>>();
        assert_eq!(batch_length(&many(None)), POSTS_MAX, "each is a post of its own");
        assert_eq!(batch_length(&many(Some("a-1"))), POSTS_MAX + 1);
    }

    #[test]
    fn a_text_for_thousands_at_one_place_leaves_room_for_what_others_send_there() {
        let text: Arc<str> = "{}".into();
        let envelopes: Vec<_> = (0..2000).map(|n| envelope(n + 1, Some("a-1"), n as u64, &[&text])).collect();
        let counts: Vec<usize> = packed(&envelopes).iter().map(|(.., envelopes)| envelopes.len()).collect();
        assert_eq!(counts, [RECIPIENTS_MAX, RECIPIENTS_MAX, RECIPIENTS_MAX, 2000 - 3 * RECIPIENTS_MAX]);
    }

    #[test]
    fn only_an_envelope_that_was_offered_to_all_shows_that_its_user_is_at_one_place() {
        let text: Arc<str> = "{}".into();
        let [to_all, to_place, returned] = [(None, false), (Some("a-1"), false), (None, true)]
            .map(|(place, is_returned)| Envelope { is_returned, ..envelope(1, place, 1, &[&text]) });
        for (envelope, nodes, expected) in [
            (&to_all, 0, Published::ToNobody),
            (&to_all, 1, Published::ToOne),
            (&to_all, 2, Published::Taken(2)),
            (&to_place, 0, Published::ToNobody),
            (&to_place, 1, Published::Taken(1)),
            (&returned, 1, Published::Taken(1)),
        ] {
            assert_eq!(of_envelope(envelope, Reached::Nodes(nodes)), expected, "{envelope:?}");
            assert_eq!(of_envelope(envelope, Reached::Unknown), Published::InDoubt);
            assert_eq!(of_envelope(envelope, Reached::Unsent), Published::ToNobody);
        }
    }

    #[test]
    fn envelopes_after_one_that_was_not_sent_are_not_sent_either() {
        struct FailsOnce(Arc<PeerShared>, parking_lot::Mutex<usize>);

        impl BusTransport for FailsOnce {
            fn peer(&self) -> &Arc<PeerShared> {
                &self.0
            }
            fn drive(&self, _: Arc<dyn Node>) -> io::Result<()> {
                Ok(())
            }
            fn post(&self, posts: &[Publication<'_>]) -> Result<Vec<Reached>, NotSent> {
                let mut calls = self.1.lock();
                *calls += 1;
                if *calls == 1 { Err(NotSent) } else { Ok(vec![Reached::Nodes(1); posts.len()]) }
            }
        }

        let text: Arc<str> = "{}".into();
        let envelopes: Vec<_> = (0..=POSTS_MAX).map(|n| envelope(1, None, n as u64, &[&text])).collect();
        let transport = FailsOnce(Arc::new(PeerShared::new("me", || {})), parking_lot::Mutex::new(0));
        assert_eq!(offer(&transport, &envelopes), vec![Published::ToNobody; envelopes.len()], "it is not up yet");
        transport.0.on_open();
        assert_eq!(offer(&transport, &envelopes), vec![Published::ToNobody; envelopes.len()]);
        assert_eq!(*transport.1.lock(), 1);
    }

    #[test]
    fn news_count_as_told_only_if_all_were_sent() {
        struct Answers(Arc<PeerShared>, Vec<Reached>);

        impl BusTransport for Answers {
            fn peer(&self) -> &Arc<PeerShared> {
                &self.0
            }
            fn drive(&self, _: Arc<dyn Node>) -> io::Result<()> {
                Ok(())
            }
            fn post(&self, posts: &[Publication<'_>]) -> Result<Vec<Reached>, NotSent> {
                assert_eq!(posts.len(), self.1.len());
                Ok(self.1.clone())
            }
        }

        let news = [DeviceNews::UsesLevel2(UserId(1)), DeviceNews::LoggedOut(UserId(1))];
        for (second, is_told) in
            [(Reached::Nodes(1), true), (Reached::Nodes(0), true), (Reached::Unknown, false), (Reached::Unsent, false)]
        {
            let transport = Answers(Arc::new(PeerShared::new("me", || {})), vec![Reached::Nodes(1), second]);
            transport.0.on_open();
            assert_eq!(tell_devices(&transport, &news), is_told, "{second:?}");
        }
    }
}
