//! [`FairQueue`]: the waiting items of one lane, and the order in which they are handled.
//!
//! ```text
//!            ┌─ urgent: item                           ─ first ─┐
//!            ├─ flow 17: item item item item item item ─┐       │
//!   push ────┼─ flow 4:  item                           ├─ turns ─▶ take(max)
//!            └─ flow 9:  item item fence item           ┘
//! ```
//! Flows take turns, so an item waits for a few items of each other flow, never for all items that
//! another flow has queued. Items of one flow and one key keep their order.
//!
//! A *fence* is taken after all earlier items of its key and before all later ones, whatever their
//! flows are. The fence gathers the earlier items: they move into its own flow, in their order, and
//! the fence stands behind them. So it waits for these items and not for the rest of the flows that
//! they came from. Later items of the key join that flow as well, until no item of the key is left.
//!
//! Keys are not remembered. They are counted in [`SLOTS`] slots, chosen with a secret number, and
//! keys that share a slot are gathered together.

use std::collections::{HashMap, VecDeque};

/// The position of an item among the others of its lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    flow: u64,
    rank: Rank,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Rank {
    Item,
    Fence,
    Urgent,
}

impl Standing {
    /// Behind the earlier items of this flow and the same key.
    pub fn of(flow: u64) -> Standing {
        Standing { flow, rank: Rank::Item }
    }

    /// In this flow, behind all earlier items of its key and ahead of all later ones, in any flow.
    pub fn fence(flow: u64) -> Standing {
        Standing { flow, rank: Rank::Fence }
    }

    /// Ahead of all items that are not urgent.
    pub fn urgent() -> Standing {
        Standing { flow: 0, rank: Rank::Urgent }
    }
}

/// The most items that are taken at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchMax {
    /// The number of items.
    pub items: usize,
    /// The weight of the items. The last item may exceed it.
    pub bytes: usize,
}

/// Limits the number of items, whatever their weight.
impl From<usize> for BatchMax {
    fn from(items: usize) -> BatchMax {
        BatchMax { items, bytes: usize::MAX }
    }
}

#[derive(Debug)]
pub(super) struct FairQueue<T> {
    urgent: VecDeque<(T, usize)>,
    /// The items of the flows. Each is in the list of its flow and in the list of its slot.
    nodes: Vec<QueueNode<T>>,
    /// The first of the unused nodes, which are linked by `in_flow.next`.
    unused: Index,
    flows: Vec<FlowState>,
    /// The index of each flow that takes turns.
    places: HashMap<u64, Index, foldhash::fast::RandomState>,
    /// The indices that no flow uses.
    free: Vec<Index>,
    /// The index of the flow to which an item was last added. Most often the next item belongs to
    /// the same flow.
    last: Index,
    /// The flows in the order of their turns. Flows whose items were gathered may be empty.
    turns: VecDeque<Index>,
    /// The number of items that the first flow may still have taken in this turn.
    left: usize,
    /// The weight that the first flow may still have taken in this turn.
    left_bytes: usize,
    slots: Box<[QueueSlot]>,
    /// An odd number. Keys are multiplied with it, so nobody can choose keys that share a slot.
    secret: u64,
    len: usize,
}

type Index = u32;

const NONE: Index = Index::MAX;

#[derive(Debug)]
struct QueueNode<T> {
    /// The item with its weight; `None` while the node is unused.
    item: Option<(T, usize)>,
    flow: Index,
    slot: Index,
    in_flow: NodeLinks,
    in_slot: NodeLinks,
}

#[derive(Clone, Copy, Debug)]
struct NodeLinks {
    before: Index,
    next: Index,
}

/// The ends of a list of nodes.
#[derive(Clone, Copy, Debug)]
struct ListEnds {
    first: Index,
    last: Index,
}

/// The waiting items of one flow, and whether it has its turn.
#[derive(Debug)]
struct FlowState {
    number: u64,
    has_turn: bool,
    items: ListEnds,
}

#[derive(Clone, Debug)]
struct QueueSlot {
    items: ListEnds,
    /// The index of the flow that a fence has gathered all items into.
    gathered: Index,
}

impl<T> FairQueue<T> {
    pub(super) fn new(secret: u64) -> FairQueue<T> {
        FairQueue {
            urgent: VecDeque::new(),
            nodes: Vec::new(),
            unused: NONE,
            flows: Vec::new(),
            places: HashMap::default(),
            free: Vec::new(),
            last: NONE,
            turns: VecDeque::new(),
            left: 0,
            left_bytes: 0,
            slots: vec![QueueSlot { items: EMPTY, gathered: NONE }; SLOTS].into(),
            secret: secret | 1,
            len: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn push(&mut self, key: u64, standing: Standing, item: T, bytes: usize) {
        self.len += 1;
        let Standing { flow, rank } = standing;
        if rank == Rank::Urgent {
            return self.urgent.push_back((item, bytes));
        }
        let slot = self.slot_of(key);
        let QueueSlot { items, gathered } = self.slots[slot as usize];
        let place = if gathered == NONE { self.place_of(flow) } else { gathered };
        if rank == Rank::Fence && gathered == NONE {
            self.gather(items, place);
            self.slots[slot as usize].gathered = place;
        }
        let node = self.new_node((item, bytes), slot);
        self.append_to_flow(node, place);
        self.append_to_slot(node);
    }

    /// Moves the items of a slot to the end of a flow, in their order.
    fn gather(&mut self, items: ListEnds, place: Index) {
        let mut node = items.first;
        while node != NONE {
            self.remove_from_flow(node);
            self.append_to_flow(node, place);
            node = self.nodes[node as usize].in_slot.next;
        }
    }

    /// Takes the next items, at most `max`, and returns them with their total weight.
    pub(super) fn take(&mut self, max: impl Into<BatchMax>) -> (Vec<T>, usize) {
        let max = max.into();
        let mut taken = Vec::with_capacity(max.items.min(self.len));
        let mut total = 0;
        while taken.len() < max.items
            && (total < max.bytes || taken.is_empty())
            && let Some((item, bytes)) = self.next()
        {
            total += bytes;
            taken.push(item);
        }
        if self.is_empty() && self.nodes.capacity() > SPARE_NODES {
            self.give_memory_back();
        }
        (taken, total)
    }

    fn next(&mut self) -> Option<(T, usize)> {
        if let Some(item) = self.urgent.pop_front() {
            self.len -= 1;
            return Some(item);
        }
        let place = self.first_with_items()?;
        let node = self.flows[place as usize].items.first;
        self.remove_from_flow(node);
        self.remove_from_slot(node);
        self.len -= 1;
        let taken = &mut self.nodes[node as usize];
        taken.in_flow.next = std::mem::replace(&mut self.unused, node);
        let item = taken.item.take();
        self.left -= 1;
        self.left_bytes = self.left_bytes.saturating_sub(item.as_ref().map_or(0, |(_, bytes)| *bytes));
        if self.flows[place as usize].items.first == NONE {
            self.end_turn(place);
        } else if self.left == 0 || self.left_bytes == 0 {
            self.turns.rotate_left(1);
            self.begin_turn();
        }
        item
    }

    /// The flow whose turn it is. Flows whose items were gathered by another one lose their turns.
    fn first_with_items(&mut self) -> Option<Index> {
        loop {
            let place = *self.turns.front()?;
            if self.flows[place as usize].items.first != NONE {
                return Some(place);
            }
            self.end_turn(place);
        }
    }

    /// Ends the turn of a flow that has no items left.
    fn end_turn(&mut self, place: Index) {
        self.turns.pop_front();
        let flow = &mut self.flows[place as usize];
        flow.has_turn = false;
        self.places.remove(&flow.number);
        self.free.push(place);
        self.begin_turn();
    }

    /// The index of this flow, which takes turns from now on.
    fn place_of(&mut self, number: u64) -> Index {
        if let Some(flow) = self.flows.get(self.last as usize)
            && flow.number == number
            && flow.has_turn
        {
            return self.last;
        }
        if let Some(place) = self.places.get(&number) {
            self.last = *place;
            return *place;
        }
        let flow = FlowState { number, has_turn: true, items: EMPTY };
        let place = match self.free.pop() {
            Some(place) => {
                self.flows[place as usize] = flow;
                place
            }
            None => {
                self.flows.push(flow);
                (self.flows.len() - 1) as Index
            }
        };
        self.places.insert(number, place);
        self.turns.push_back(place);
        if self.turns.len() == 1 {
            self.begin_turn();
        }
        self.last = place;
        place
    }

    fn new_node(&mut self, item: (T, usize), slot: Index) -> Index {
        let node = QueueNode { item: Some(item), flow: NONE, slot, in_flow: ALONE, in_slot: ALONE };
        if self.unused == NONE {
            self.nodes.push(node);
            return (self.nodes.len() - 1) as Index;
        }
        let at = self.unused;
        self.unused = self.nodes[at as usize].in_flow.next;
        self.nodes[at as usize] = node;
        at
    }

    fn append_to_flow(&mut self, node: Index, place: Index) {
        let ends = &mut self.flows[place as usize].items;
        let before = std::mem::replace(&mut ends.last, node);
        if before == NONE {
            ends.first = node;
        } else {
            self.nodes[before as usize].in_flow.next = node;
        }
        let node = &mut self.nodes[node as usize];
        (node.flow, node.in_flow) = (place, NodeLinks { before, next: NONE });
    }

    fn append_to_slot(&mut self, node: Index) {
        let slot = self.nodes[node as usize].slot;
        let ends = &mut self.slots[slot as usize].items;
        let before = std::mem::replace(&mut ends.last, node);
        if before == NONE {
            ends.first = node;
        } else {
            self.nodes[before as usize].in_slot.next = node;
        }
        self.nodes[node as usize].in_slot = NodeLinks { before, next: NONE };
    }

    fn remove_from_flow(&mut self, node: Index) {
        let QueueNode { flow, in_flow: NodeLinks { before, next }, .. } = self.nodes[node as usize];
        let ends = &mut self.flows[flow as usize].items;
        match before {
            NONE => ends.first = next,
            before => self.nodes[before as usize].in_flow.next = next,
        }
        match next {
            NONE => ends.last = before,
            next => self.nodes[next as usize].in_flow.before = before,
        }
    }

    fn remove_from_slot(&mut self, node: Index) {
        let QueueNode { slot, in_slot: NodeLinks { before, next }, .. } = self.nodes[node as usize];
        let slot = &mut self.slots[slot as usize];
        match before {
            NONE => slot.items.first = next,
            before => self.nodes[before as usize].in_slot.next = next,
        }
        match next {
            NONE => slot.items.last = before,
            next => self.nodes[next as usize].in_slot.before = before,
        }
        if slot.items.first == NONE {
            slot.gathered = NONE;
        }
    }

    /// Releases the memory of a long queue once nothing waits.
    fn give_memory_back(&mut self) {
        (self.urgent, self.nodes, self.unused) = (VecDeque::new(), Vec::new(), NONE);
        (self.turns, self.flows, self.free) = (VecDeque::new(), Vec::new(), Vec::new());
        (self.places, self.last) = (HashMap::default(), NONE);
    }

    /// The slot of a key: multiply-shift hashing (Dietzfelbinger et al., 1997).
    fn slot_of(&self, key: u64) -> Index {
        (key.wrapping_mul(self.secret) >> (64 - SLOTS.ilog2())) as Index
    }

    fn begin_turn(&mut self) {
        (self.left, self.left_bytes) = (self.quantum(), QUANTUM_BYTES);
    }

    /// The number of items that a flow may have taken in a turn: the more flows, the fewer.
    fn quantum(&self) -> usize {
        (ROUND / self.turns.len().max(1)).clamp(1, QUANTUM_MAX)
    }
}

const EMPTY: ListEnds = ListEnds { first: NONE, last: NONE };
const ALONE: NodeLinks = NodeLinks { before: NONE, next: NONE };

/// The number of slots, 48 KiB a lane. More would cost cache; with fewer, more keys would be
/// gathered together.
const SLOTS: usize = 4096;
/// The number of items taken from all flows in a round of turns, if there are fewer flows.
const ROUND: usize = 256;
/// The most items taken from a flow in one turn. Items of one group message stand together, and
/// share their text if they are taken together.
const QUANTUM_MAX: usize = 64;
/// The weight of items after which the turn of a flow ends. So a flow of large items gets no more
/// than a flow of small ones.
const QUANTUM_BYTES: usize = 64 * 1024;
/// The number of nodes beyond which the memory is released once nothing waits.
const SPARE_NODES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(queue: &mut FairQueue<&'static str>, max: usize) -> Vec<&'static str> {
        queue.take(max).0
    }

    #[test]
    fn a_newcomer_waits_for_a_few_items_of_each_other_flow() {
        let mut queue = FairQueue::new(SECRET);
        for nth in 0..10_000 {
            queue.push(nth, Standing::of(1), "greedy", 1);
        }
        queue.push(7, Standing::of(2), "quiet", 1);
        assert_eq!(taken(&mut queue, QUANTUM_MAX + 1).pop(), Some("quiet"));
        // The more flows there are, the shorter their turns.
        for flow in 10..10 + ROUND as u64 {
            queue.push(flow, Standing::of(flow), "other", 1);
        }
        queue.push(7, Standing::of(2), "quiet", 1);
        let before = taken(&mut queue, QUANTUM_MAX + ROUND + 2);
        assert!(before.contains(&"quiet"));
        assert_eq!(before.iter().filter(|item| **item == "other").count(), ROUND);
    }

    #[test]
    fn a_flow_of_large_items_lets_others_in_after_a_few_and_a_batch_is_bounded_by_weight() {
        let mut queue = FairQueue::new(SECRET);
        for _ in 0..100 {
            queue.push(1, Standing::of(1), "large", QUANTUM_BYTES / 2);
        }
        queue.push(2, Standing::of(2), "quiet", 1);
        let max = BatchMax { items: 50, bytes: 4 * QUANTUM_BYTES };
        let (batch, weight) = queue.take(max);
        assert_eq!(batch[..4], ["large", "large", "quiet", "large"]);
        assert!((max.bytes..max.bytes + QUANTUM_BYTES / 2).contains(&weight), "{weight}");
        let (batch, _) = queue.take(BatchMax { items: 50, bytes: 1 });
        assert_eq!(batch.len(), 1, "one that is too heavy is a batch of its own");
    }

    #[test]
    fn a_fence_waits_for_the_earlier_items_of_its_key_and_not_for_the_rest_of_their_flow() {
        let mut queue = FairQueue::new(SECRET);
        for nth in 0..10_000 {
            // The items of the fence's key are the last ones of the flow.
            let (key, name) = if nth < 9_990 { (2, "elsewhere") } else { (1, "before") };
            queue.push(key, Standing::of(1), name, 1);
        }
        queue.push(1, Standing::fence(9), "fence", 1);
        queue.push(1, Standing::of(1), "after", 1);
        queue.push(1, Standing::fence(8), "second fence", 1);
        queue.push(1, Standing::of(3), "last", 1);
        queue.push(3, Standing::of(4), "other key", 1);
        let mut order = taken(&mut queue, 2 * QUANTUM_MAX + 20);
        assert_eq!(order.iter().filter(|item| **item == "before").count(), 10);
        order.dedup();
        let of_key = ["before", "fence", "after", "second fence", "last"];
        assert_eq!(
            order,
            ["elsewhere"].into_iter().chain(of_key).chain(["other key", "elsewhere"]).collect::<Vec<_>>()
        );
        taken(&mut queue, usize::MAX);
        // No slot gathers any more.
        assert_eq!(queue.slots.iter().filter(|slot| slot.gathered != NONE).count(), 0);
        queue.push(1, Standing::of(1), "again", 1);
        assert_eq!(queue.flows[queue.last as usize].number, 1);
    }

    #[test]
    fn urgent_items_are_taken_first_and_in_order() {
        let mut queue = FairQueue::new(SECRET);
        queue.push(0, Standing::fence(1), "fence", 1);
        queue.push(0, Standing::urgent(), "urgent", 1);
        queue.push(0, Standing::of(1), "item", 1);
        queue.push(0, Standing::urgent(), "more urgent", 1);
        assert_eq!(queue.len(), 4);
        assert_eq!(queue.take(9), (vec!["urgent", "more urgent", "fence", "item"], 4));
    }

    #[test]
    fn memory_is_given_back_once_nothing_waits() {
        let mut queue = FairQueue::new(SECRET);
        for round in 0..3 {
            for nth in 0..2 * SPARE_NODES as u64 {
                queue.push(nth, Standing::of(nth), "x", 1);
            }
            queue.push(5, Standing::fence(round), "fence", 1);
            assert_eq!(queue.take(usize::MAX).0.len(), 2 * SPARE_NODES + 1);
            assert_eq!((queue.nodes.capacity(), queue.flows.capacity(), queue.places.len()), (0, 0, 0));
        }
    }

    /// Pushes and takes random items and fences of a few keys and flows. With the second secret all
    /// keys share a slot.
    #[test]
    fn items_of_a_flow_and_a_key_keep_their_order_and_none_passes_a_fence_of_its_key() {
        for (seed, secret) in (1..2_000).flat_map(|seed| [(seed, SECRET), (seed, 1)]) {
            let mut dice = Dice(seed);
            let (mut queue, mut pushed, mut order) = (FairQueue::new(secret), Vec::new(), Vec::new());
            for _ in 0..dice.below(200) {
                if dice.below(3) == 0 {
                    order.extend(queue.take(dice.below(8) as usize).0);
                    continue;
                }
                let (key, flow) = (dice.below(4), dice.below(3));
                let is_fence = dice.below(5) == 0;
                let standing = if is_fence { Standing::fence(flow) } else { Standing::of(flow) };
                queue.push(key, standing, pushed.len(), 2);
                pushed.push((key, flow, is_fence));
            }
            let (rest, bytes) = queue.take(usize::MAX);
            assert_eq!(bytes, 2 * rest.len());
            order.extend(rest);
            let mut all = order.clone();
            all.sort_unstable();
            assert!(all.into_iter().eq(0..pushed.len()), "seed {seed}: each is taken once");
            assert!(queue.is_empty(), "seed {seed}");
            assert!(queue.slots.iter().all(|slot| slot.items.first == NONE && slot.gathered == NONE), "seed {seed}");
            for (at, first) in order.iter().enumerate() {
                for second in &order[at + 1..] {
                    let ((key, flow, fence), (other_key, other_flow, other_fence)) = (pushed[*first], pushed[*second]);
                    let must_not_pass = key == other_key && (fence || other_fence || flow == other_flow);
                    assert!(first < second || !must_not_pass, "seed {seed}: {first} has passed {second}");
                }
            }
        }
    }

    /// With this secret, keys 0 to 3 have slots of their own.
    const SECRET: u64 = 0x9E37_79B9_7F4A_7C15;

    /// Random numbers from a seed (xorshift, Marsaglia 2003).
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, end: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % end
        }
    }
}
