//! [`Slots`]: a table whose keys go stale when their entry is removed.

/// Identifies one connection of one loop. The index is reused, the generation is not (before 2³²
/// reuses of one index), so an id that has outlived its connection reaches no other one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct ConnId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// Values in slots; removal frees the slot for another value under another generation.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Slots<T> {
    pub(crate) fn new() -> Slots<T> {
        Slots { slots: Vec::new(), free: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Inserts the value that `make` builds for its own id. If that fails, inserts nothing.
    pub(crate) fn insert_with<E>(&mut self, make: impl FnOnce(ConnId) -> Result<T, E>) -> Result<ConnId, E> {
        let index = match self.free.last() {
            Some(&index) => index as usize,
            None => self.slots.len(),
        };
        let generation = self.slots.get(index).map_or(0, |slot| slot.generation);
        let id = ConnId { index: u32::try_from(index).expect("fewer than 2^32 descriptors"), generation };
        let value = Some(make(id)?);
        if index == self.slots.len() {
            self.slots.push(Slot { generation, value });
        } else {
            self.slots[index].value = value;
            self.free.pop();
        }
        Ok(id)
    }

    pub(crate) fn get_mut(&mut self, id: ConnId) -> Option<&mut T> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation == id.generation { slot.value.as_mut() } else { None }
    }

    pub(crate) fn remove(&mut self, id: ConnId) -> Option<T> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.index);
        Some(value)
    }

    /// The ids of all values, for rare work on all of them.
    pub(crate) fn ids(&self) -> Vec<ConnId> {
        let occupied = self.slots.iter().enumerate().filter(|(_, slot)| slot.value.is_some());
        occupied.map(|(index, slot)| ConnId { index: index as u32, generation: slot.generation }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(slots: &mut Slots<&'static str>, value: &'static str) -> ConnId {
        slots.insert_with(|_| Ok::<_, ()>(value)).expect("cannot fail")
    }

    #[test]
    fn a_stale_id_does_not_reach_the_next_value_of_its_slot() {
        let mut slots = Slots::new();
        let first = insert(&mut slots, "first");
        assert_eq!(slots.remove(first), Some("first"));
        let second = insert(&mut slots, "second");
        assert_eq!(first.index, second.index);
        assert_eq!(slots.get_mut(first), None);
        assert_eq!(slots.remove(first), None);
        assert_eq!(slots.get_mut(second), Some(&mut "second"));
        assert_eq!((slots.len(), slots.ids()), (1, vec![second]));
    }

    #[test]
    fn a_value_that_cannot_be_made_leaves_no_trace() {
        let mut slots: Slots<&str> = Slots::new();
        assert_eq!(slots.insert_with(|_| Err("no")), Err("no"));
        assert_eq!(slots.len(), 0);
        let id = insert(&mut slots, "a");
        slots.remove(id);
        assert_eq!(slots.insert_with(|_| Err("no")), Err("no"));
        assert_eq!((slots.len(), slots.free.len()), (0, 1));
    }
}
