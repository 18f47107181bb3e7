//! [`SlotTable`]: which primary of a Redis Cluster serves which slot, without I/O.
//!
//! A channel or key belongs to one of 16384 slots, and each slot to one primary. Any server of the
//! cluster knows all of them (`CLUSTER SLOTS`). A server that is asked for a slot of another one
//! names that one (`MOVED`).
//! <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>

use std::fmt;

use redis::Value;

use crate::config::ServerAddress;

/// See the [module](self).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::bus::redis) struct SlotTable {
    primaries: Vec<ServerAddress>,
    replicas: Vec<ServerAddress>,
    /// The index of the primary of each slot.
    owners: Vec<u16>,
}

/// Why an answer is not a usable table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum BadTable {
    /// It is not in the form of `CLUSTER SLOTS`.
    Unreadable,
    /// It names no host for the primary of this slot.
    Hostless(i64),
    /// No primary serves this slot.
    Unserved(u16),
}

/// A slot, and the server that has it now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct MovedSlot {
    pub(super) slot: u16,
    pub(super) to: ServerAddress,
}

impl SlotTable {
    /// Reads the answer to `CLUSTER SLOTS` of the server at the address `asked`.
    ///
    /// # Errors
    ///
    /// [`BadTable`]; a table is usable only if it is complete.
    pub(super) fn read(answer: &Value, asked: &ServerAddress) -> Result<SlotTable, BadTable> {
        let Value::Array(ranges) = answer else { return Err(BadTable::Unreadable) };
        let mut table = SlotTable { primaries: Vec::new(), replicas: Vec::new(), owners: vec![NOBODY; SLOTS.into()] };
        for range in ranges {
            table.add(range, asked)?;
        }
        match table.owners.iter().position(|owner| *owner == NOBODY) {
            None => Ok(table),
            Some(slot) => Err(BadTable::Unserved(u16::try_from(slot).unwrap_or(SLOTS))),
        }
    }

    /// Adds a range: its first slot, its last, its primary, and the replicas.
    fn add(&mut self, range: &Value, asked: &ServerAddress) -> Result<(), BadTable> {
        let Value::Array(parts) = range else { return Err(BadTable::Unreadable) };
        let [Value::Int(first), Value::Int(last), primary, replicas @ ..] = &parts[..] else {
            return Err(BadTable::Unreadable);
        };
        if is_hostless(primary) {
            return Err(BadTable::Hostless(*first));
        }
        let owner = server(primary, asked).and_then(|primary| self.index_of(primary)).ok_or(BadTable::Unreadable)?;
        let slot = |number: i64| usize::try_from(number).ok().filter(|slot| *slot < usize::from(SLOTS));
        let slots = slot(*first).zip(slot(*last)).and_then(|(first, last)| self.owners.get_mut(first..=last));
        slots.ok_or(BadTable::Unreadable)?.fill(owner);
        for replica in replicas.iter().filter_map(|replica| server(replica, asked)) {
            if !self.replicas.contains(&replica) {
                self.replicas.push(replica);
            }
        }
        Ok(())
    }

    fn index_of(&mut self, primary: ServerAddress) -> Option<u16> {
        let known = self.primaries.iter().position(|known| *known == primary);
        let index = known.unwrap_or_else(|| {
            self.primaries.push(primary);
            self.primaries.len() - 1
        });
        u16::try_from(index).ok().filter(|index| *index < SLOTS)
    }

    /// The primaries. Their indices stay the same for as long as the table exists.
    pub(in crate::bus::redis) fn primaries(&self) -> &[ServerAddress] {
        &self.primaries
    }

    /// The replicas of all primaries.
    pub(in crate::bus::redis) fn replicas(&self) -> &[ServerAddress] {
        &self.replicas
    }

    /// The index of the primary of this slot.
    pub(in crate::bus::redis) fn owner(&self, slot: u16) -> usize {
        self.owners[usize::from(slot % SLOTS)].into()
    }

    /// Notes that a slot has moved to another of the primaries. Returns its index; `None` if the
    /// table does not contain that server.
    pub(super) fn move_slot(&mut self, moved: &MovedSlot) -> Option<usize> {
        let index = self.primaries.iter().position(|primary| *primary == moved.to)?;
        self.owners[usize::from(moved.slot % SLOTS)] = u16::try_from(index).ok()?;
        Some(index)
    }

    /// Takes the owners of the slots from a newer table. Returns false, and changes nothing, if
    /// that has other primaries.
    pub(super) fn adopt(&mut self, newer: &SlotTable) -> bool {
        let index_of = |primary| self.primaries.iter().position(|known| known == primary);
        let indices: Option<Vec<u16>> =
            newer.primaries.iter().map(|primary| u16::try_from(index_of(primary)?).ok()).collect();
        let Some(indices) = indices.filter(|indices| indices.len() == self.primaries.len()) else { return false };
        self.owners = newer.owners.iter().map(|owner| indices[usize::from(*owner)]).collect();
        self.replicas.clone_from(&newer.replicas);
        true
    }
}

/// Whether a server in a range is to be announced by a name, and has none.
fn is_hostless(server: &Value) -> bool {
    matches!(server, Value::Array(parts) if parts.first() == Some(&Value::BulkString(b"?".to_vec())))
}

/// A server in a range. Its host is left out if it is the one that was asked: the server does not
/// know its own host, or is not to announce it.
fn server(value: &Value, asked: &ServerAddress) -> Option<ServerAddress> {
    let Value::Array(parts) = value else { return None };
    let [host, Value::Int(port), ..] = &parts[..] else { return None };
    let host = match host {
        Value::BulkString(bytes) => str::from_utf8(bytes).ok()?,
        Value::SimpleString(text) => text,
        Value::Nil => "",
        _ => return None,
    };
    address(host, u16::try_from(*port).ok()?, asked)
}

fn address(host: &str, port: u16, asked: &ServerAddress) -> Option<ServerAddress> {
    match host {
        // See `is_hostless`.
        "?" => None,
        "" => Some(ServerAddress::new(&asked.host, port)),
        host => Some(ServerAddress::new(host, port)),
    }
    .filter(|server| server.port > 0)
}

impl MovedSlot {
    /// Reads the text after `MOVED` in an answer of the server at the address `asked`.
    pub(super) fn read(text: &str, asked: &ServerAddress) -> Option<MovedSlot> {
        let (slot, to) = text.trim().split_once(' ')?;
        let (host, port) = to.rsplit_once(':')?;
        let slot = slot.parse().ok().filter(|slot| *slot < SLOTS)?;
        Some(MovedSlot { slot, to: address(host, port.parse().ok()?, asked)? })
    }
}

impl fmt::Display for BadTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadTable::Unreadable => f.write_str("its answer to CLUSTER SLOTS cannot be read"),
            BadTable::Hostless(slot) => write!(
                f,
                "it announces no host for the server of slot {slot}: set cluster-announce-hostname of each server, \
                 or change cluster-preferred-endpoint-type"
            ),
            BadTable::Unserved(slot) => write!(f, "no server of its cluster has slot {slot}"),
        }
    }
}

/// The slot of a key or channel. If it contains text in braces, only that counts.
pub(in crate::bus::redis) fn slot_of(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        let length = rest.iter().position(|byte| *byte == b'}')?;
        Some(&rest[..length]).filter(|tag| !tag.is_empty())
    });
    crc16(tag.unwrap_or(key)) % SLOTS
}

/// The CRC-16 of XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| (crc << 8) ^ CRC_OF_BYTE[usize::from((crc >> 8) as u8 ^ byte)])
}

const CRC_OF_BYTE: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut crc, mut bit) = ((byte as u16) << 8, 0);
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// The number of slots of every Redis Cluster.
const SLOTS: u16 = 16384;
const NOBODY: u16 = u16::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> ServerAddress {
        ServerAddress::new("10.0.0.1", port)
    }

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn range(first: i64, last: i64, servers: &[(&str, i64)]) -> Value {
        let server = |(host, port): &(&str, i64)| {
            Value::Array(vec![bulk(host), Value::Int(*port), bulk("c4f69c"), Value::Array(Vec::new())])
        };
        let servers = servers.iter().map(server);
        Value::Array([Value::Int(first), Value::Int(last)].into_iter().chain(servers).collect())
    }

    fn read(ranges: Vec<Value>) -> Result<SlotTable, BadTable> {
        SlotTable::read(&Value::Array(ranges), &at(1))
    }

    #[test]
    fn slots_are_those_of_redis() {
        // As CLUSTER KEYSLOT says.
        for (key, slot) in [
            ("", 0),
            ("123456789", 0x31c3),
            ("raybox:u:7", 13841),
            ("foo", 12182),
            ("foo{}{bar}", 8363),
            ("{user1000}.following", 3443),
            ("{user1000}.followers", 3443),
        ] {
            assert_eq!(slot_of(key.as_bytes()), slot, "{key}");
        }
        assert_eq!(slot_of(b"foo{{bar}}zap"), slot_of(b"{bar"));
        assert_eq!(slot_of(b"foo{bar}{zap}"), slot_of(b"bar"));
        assert_eq!(slot_of(b"foo{bar"), crc16(b"foo{bar") % SLOTS);
    }

    #[test]
    fn a_table_is_read_with_its_replicas() {
        let table = read(vec![
            range(0, 5000, &[("10.0.0.1", 1), ("10.0.0.1", 4)]),
            range(5001, 9999, &[("", 2)]),
            range(10000, 16383, &[("10.0.0.1", 1), ("10.0.0.1", 4), ("?", 5)]),
        ])
        .expect("a table");
        assert_eq!(table.primaries(), [at(1), at(2)]);
        assert_eq!(table.replicas(), [at(4)]);
        assert_eq!([0, 5000, 5001, 9999, 10000, 16383].map(|slot| table.owner(slot)), [0, 0, 1, 1, 0, 0]);
    }

    #[test]
    fn an_answer_that_is_not_a_whole_table_is_refused() {
        let one = &[("10.0.0.1", 1)][..];
        for ranges in [
            vec![range(0, 16384, one)],
            vec![range(-1, 16383, one)],
            vec![range(9, 3, one)],
            vec![range(0, 16383, &[])],
            vec![range(0, 16383, &[("10.0.0.1", 0)])],
            vec![range(0, 16383, &[("10.0.0.1", 65536)])],
            vec![bulk("x")],
        ] {
            assert_eq!(read(ranges.clone()), Err(BadTable::Unreadable), "{ranges:?}");
        }
        assert_eq!(SlotTable::read(&Value::Nil, &at(1)), Err(BadTable::Unreadable));
        assert_eq!(read(vec![]), Err(BadTable::Unserved(0)));
        assert_eq!(read(vec![range(0, 6, one), range(7, 16383, &[("?", 1)])]), Err(BadTable::Hostless(7)));
        let with_gap = vec![range(0, 6, one), range(8, 16383, one)];
        assert_eq!(read(with_gap), Err(BadTable::Unserved(7)));
    }

    #[test]
    fn a_slot_moves_between_known_primaries_only() {
        let mut table = read(vec![range(0, 9, &[("10.0.0.1", 1)]), range(10, 16383, &[("10.0.0.1", 2)])]).unwrap();
        let moved = |text| MovedSlot::read(text, &at(1)).expect("it is read");
        assert_eq!(table.move_slot(&moved("7 10.0.0.1:2")), Some(1));
        assert_eq!([6, 7, 8].map(|slot| table.owner(slot)), [0, 1, 0]);
        let before = table.clone();
        assert_eq!(table.move_slot(&moved("6 10.0.0.9:2")), None);
        assert_eq!(table, before);
        assert_eq!(moved("6 :2").to, at(2), "a server that does not know its host");
        assert_eq!(moved("6 fd00::3:2").to, ServerAddress::new("fd00::3", 2));
        for text in ["", "6", "6 a", "6 a:", "6 a:x", "6 a:0", "6 ?:1", "x a:1", "16384 a:1", "-1 a:1", "6 a:70000"] {
            assert_eq!(MovedSlot::read(text, &at(1)), None, "{text}");
        }
    }

    #[test]
    fn a_newer_table_is_adopted_if_it_has_the_same_primaries() {
        let (one, two, three) =
            (&[("10.0.0.1", 1)][..], &[("10.0.0.1", 2), ("10.0.0.1", 4)][..], &[("10.0.0.1", 3)][..]);
        let mut table = read(vec![range(0, 9, one), range(10, 16383, two)]).unwrap();
        let newer = read(vec![range(0, 4, two), range(5, 16383, one)]).unwrap();
        assert!(table.adopt(&newer));
        assert_eq!((table.primaries(), table.replicas()), (&[at(1), at(2)][..], &[at(4)][..]));
        assert_eq!([4, 5].map(|slot| table.owner(slot)), [1, 0]);
        let before = table.clone();
        for other in [
            vec![range(0, 16383, one)],
            vec![range(0, 9, one), range(10, 16383, three)],
            vec![range(0, 4, one), range(5, 9, two), range(10, 16383, three)],
        ] {
            assert!(!table.adopt(&read(other).unwrap()));
            assert_eq!(table, before);
        }
    }
}
