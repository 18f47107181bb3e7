//! [`FairQueue`]: the waiting items of one lane, and the order in which they are handled.
//!
//! ```text
//!                 ┌─ flow 17:  item item item item item item ─┐
//!   push ─▶ slot ─┼─ flow 4:   item                           ├─ turns ─▶ take(max)
//!             │   └─ flow 9:   item fence                     ┘
//!             └──── line:      item fence item   (behind a fence of their key)
//! ```
//! The items of a flow keep their order, and flows take turns, so an item waits for a few items of
//! each other flow and never for all that another flow has queued. A *fence* keeps its place among
//! the items of its key in every flow: it is taken after the earlier ones and before the later
//! ones.
//!
//! Keys are not remembered. They are counted in [`SLOTS`] slots, and keys that share a slot share
//! its fences: so an item may wait for the fence of another key, but never passes its own.

use std::collections::{HashMap, VecDeque};

/// The position of an item among the others of its lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    flow: u64,
    is_fence: bool,
}

impl Standing {
    /// Behind the earlier items of this flow.
    pub fn of(flow: u64) -> Standing {
        Standing { flow, is_fence: false }
    }

    /// Behind the earlier items of this flow, and also behind all earlier items of its key and
    /// ahead of all later ones, in any flow.
    pub fn fence(flow: u64) -> Standing {
        Standing { flow, is_fence: true }
    }
}

#[derive(Debug)]
pub(super) struct FairQueue<T> {
    flows: Vec<Flow<T>>,
    /// The index of each flow that has items.
    places: HashMap<u64, usize>,
    /// Indices of flows without items.
    free: Vec<usize>,
    /// The index of the flow to which an item was last added: most often the next one belongs to
    /// the same flow.
    last: usize,
    /// The flows with items, each once, in the order of their turns.
    turns: VecDeque<usize>,
    /// The number of items that the first of them may still have taken in this turn.
    left: usize,
    /// The number of the flows' items in each slot.
    slots: Box<[u32]>,
    /// The items of the slots with a fence, from the first fence that is not in a flow yet. A slot
    /// has a line for as long as a fence of it waits.
    lines: HashMap<u16, VecDeque<(u64, Item<T>)>>,
    len: usize,
}

#[derive(Debug)]
struct Flow<T> {
    number: u64,
    items: VecDeque<Item<T>>,
}

#[derive(Debug)]
struct Item<T> {
    item: T,
    bytes: usize,
    slot: u16,
    is_fence: bool,
}

impl<T> FairQueue<T> {
    pub(super) fn new() -> FairQueue<T> {
        FairQueue {
            flows: Vec::new(),
            places: HashMap::new(),
            free: Vec::new(),
            last: 0,
            turns: VecDeque::new(),
            left: 0,
            slots: vec![0; SLOTS].into(),
            lines: HashMap::new(),
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
        let Standing { flow, is_fence } = standing;
        let slot = slot_of(key);
        let item = Item { item, bytes, slot, is_fence };
        self.len += 1;
        if !self.lines.is_empty()
            && let Some(line) = self.lines.get_mut(&slot)
        {
            return line.push_back((flow, item));
        }
        if is_fence {
            self.lines.insert(slot, VecDeque::from([(flow, item)]));
            if self.slots[usize::from(slot)] == 0 {
                self.advance(slot);
            }
            return;
        }
        self.add(flow, item);
    }

    /// Adds an item to the end of a flow.
    fn add(&mut self, number: u64, item: Item<T>) {
        self.slots[usize::from(item.slot)] += 1;
        let place = self.place_of(number);
        self.flows[place].items.push_back(item);
    }

    /// The index of this flow, which takes part in the turns from now on.
    fn place_of(&mut self, number: u64) -> usize {
        let is_last = |flow: &Flow<T>| flow.number == number && !flow.items.is_empty();
        if self.flows.get(self.last).is_some_and(is_last) {
            return self.last;
        }
        if let Some(place) = self.places.get(&number) {
            self.last = *place;
            return *place;
        }
        let place = self.free.pop().unwrap_or_else(|| {
            self.flows.push(Flow { number, items: VecDeque::new() });
            self.flows.len() - 1
        });
        self.flows[place].number = number;
        self.places.insert(number, place);
        self.turns.push_back(place);
        if self.turns.len() == 1 {
            self.left = self.quantum();
        }
        self.last = place;
        place
    }

    /// Removes the next items, at most `max`. Returns them and their total weight.
    pub(super) fn take(&mut self, max: usize) -> (Vec<T>, usize) {
        let mut taken = Vec::with_capacity(max.min(self.len));
        let mut bytes = 0;
        while taken.len() < max
            && let Some(item) = self.next()
        {
            bytes += item.bytes;
            taken.push(item.item);
        }
        (taken, bytes)
    }

    fn next(&mut self) -> Option<Item<T>> {
        let place = *self.turns.front()?;
        let flow = &mut self.flows[place];
        let item = flow.items.pop_front().expect("a flow that has its turn has an item");
        self.len -= 1;
        self.left -= 1;
        if flow.items.is_empty() {
            self.leave(place);
        } else if self.left == 0 {
            self.turns.rotate_left(1);
            self.left = self.quantum();
        }
        let left_in_slot = &mut self.slots[usize::from(item.slot)];
        *left_in_slot -= 1;
        if *left_in_slot == 0 && !self.lines.is_empty() {
            self.advance(item.slot);
        }
        Some(item)
    }

    /// The flow whose turn it is has no items left.
    fn leave(&mut self, place: usize) {
        self.turns.pop_front();
        let flow = &mut self.flows[place];
        self.places.remove(&flow.number);
        if flow.items.capacity() > SPARE_ITEMS {
            flow.items = VecDeque::new();
        }
        if self.turns.is_empty() && self.flows.len() > SPARE_FLOWS {
            (self.flows, self.free, self.places) = (Vec::new(), Vec::new(), HashMap::new());
        } else {
            self.free.push(place);
        }
        self.left = self.quantum();
    }

    /// The flows hold no items of this slot any more: if it has a line, that advances up to and
    /// including its next fence.
    fn advance(&mut self, slot: u16) {
        let Some(mut line) = self.lines.remove(&slot) else { return };
        while let Some((flow, item)) = line.pop_front() {
            let is_fence = item.is_fence;
            if is_fence && self.slots[usize::from(slot)] > 0 {
                line.push_front((flow, item));
                self.lines.insert(slot, line);
                return;
            }
            self.add(flow, item);
            if is_fence {
                self.lines.insert(slot, line);
                return;
            }
        }
    }

    /// The number of items that a flow may have taken in a turn: the more flows there are, the
    /// fewer.
    fn quantum(&self) -> usize {
        (ROUND / self.turns.len().max(1)).clamp(1, QUANTUM_MAX)
    }
}

/// Multiplies, so that keys that differ in any bits get different slots (Knuth, vol. 3, 6.4).
fn slot_of(key: u64) -> u16 {
    (key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (64 - SLOTS.ilog2())) as u16
}

/// 4 KiB per lane. More would cost cache; with fewer, more keys would share their fences.
const SLOTS: usize = 1024;
/// The items that all flows together have taken in a round of turns, if there are fewer flows than
/// that.
const ROUND: usize = 256;
/// The most items that a flow may have taken in a turn. Items of one group message are adjacent,
/// and share their text if they are taken together.
const QUANTUM_MAX: usize = 64;
/// The memory of more items than this is released when a flow has none left.
const SPARE_ITEMS: usize = 32;
/// The memory of more flows than this is released when nothing waits.
const SPARE_FLOWS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(queue: &mut FairQueue<&'static str>, max: usize) -> Vec<&'static str> {
        queue.take(max).0
    }

    #[test]
    fn a_newcomer_waits_for_a_few_items_of_each_other_flow() {
        let mut queue = FairQueue::new();
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
    fn a_fence_keeps_its_place_among_the_items_of_its_key() {
        let mut queue = FairQueue::new();
        for _ in 0..QUANTUM_MAX {
            queue.push(1, Standing::of(1), "before", 1);
        }
        for _ in 0..QUANTUM_MAX {
            queue.push(2, Standing::of(1), "elsewhere", 1);
        }
        queue.push(1, Standing::fence(9), "fence", 1);
        queue.push(1, Standing::of(2), "after", 1);
        queue.push(1, Standing::fence(9), "second fence", 1);
        queue.push(1, Standing::of(3), "last", 1);
        queue.push(3, Standing::of(4), "passes", 1);
        let mut order = taken(&mut queue, usize::MAX);
        assert!(queue.is_empty() && queue.lines.is_empty() && queue.places.is_empty());
        assert_eq!(queue.slots.iter().sum::<u32>(), 0);
        order.dedup();
        let place = |name| order.iter().position(|item| *item == name).expect("it was taken");
        let of_key = ["before", "fence", "after", "second fence", "last"].map(place);
        assert!(of_key.is_sorted(), "{order:?}");
        assert!(place("passes") < place("fence"), "an item of another key does not wait for it: {order:?}");
        assert!(place("fence") < order.len() - 2, "it does not wait for all of another flow: {order:?}");
    }

    /// Random items and fences of a few keys and flows are pushed and taken.
    #[test]
    fn items_of_a_flow_keep_their_order_and_none_passes_a_fence_of_its_key() {
        for seed in 1..2_000 {
            let mut dice = Dice(seed);
            let (mut queue, mut pushed, mut order) = (FairQueue::new(), Vec::new(), Vec::new());
            for _ in 0..dice.below(200) {
                if dice.below(3) == 0 {
                    order.extend(queue.take(dice.below(8) as usize).0);
                    continue;
                }
                let (key, flow) = (dice.below(4), dice.below(3));
                let is_fence = dice.below(5) == 0;
                let standing = Standing { flow, is_fence };
                queue.push(key, standing, pushed.len(), 2);
                pushed.push((key, standing));
            }
            let (rest, bytes) = queue.take(usize::MAX);
            assert_eq!(bytes, 2 * rest.len());
            order.extend(rest);
            assert_eq!(order.len(), pushed.len(), "seed {seed}: some were not taken");
            assert!(queue.is_empty() && queue.lines.is_empty() && queue.turns.is_empty(), "seed {seed}");
            for (at, later) in order.iter().enumerate() {
                for earlier in &order[at + 1..] {
                    let ((key, one), (other_key, other)) = (pushed[*earlier], pushed[*later]);
                    let must_not_pass = key == other_key && (one.is_fence || other.is_fence || one.flow == other.flow);
                    assert!(earlier > later || !must_not_pass, "seed {seed}: {later} has passed {earlier}");
                }
            }
        }
    }

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
