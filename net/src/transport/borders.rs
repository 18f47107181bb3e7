//! [`Borders`]: the part of an incomplete record that a transport holds.

/// Follows the lengths of records (RFC 8446, 5.1): type (1), version (2), length (2), content.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Borders {
    /// The length of the record that has begun, and the number of its bytes that have arrived.
    whole: usize,
    arrived: usize,
    length: u16,
}

impl Borders {
    /// Notes that these bytes have arrived. Returns the number of records that they complete.
    pub(super) fn pass(&mut self, mut wire: &[u8]) -> usize {
        let mut records = 0;
        while let Some(byte) = wire.first() {
            if self.arrived < HEAD_BYTES {
                self.length = self.length << 8 | u16::from(*byte);
                self.arrived += 1;
                self.whole = HEAD_BYTES + usize::from(self.length);
                wire = &wire[1..];
            } else {
                let count = wire.len().min(self.whole - self.arrived);
                self.arrived += count;
                wire = &wire[count..];
            }
            if self.arrived >= HEAD_BYTES && self.arrived == self.whole {
                *self = Borders::default();
                records += 1;
            }
        }
        records
    }

    /// The number of bytes of the incomplete record.
    pub(super) fn held(&self) -> usize {
        self.arrived
    }
}

const HEAD_BYTES: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_held_bytes_are_those_behind_the_last_border_however_they_are_cut() {
        let record = |len: usize| [&[23, 3, 3, (len >> 8) as u8, len as u8], vec![7; len].as_slice()].concat();
        let stream: Vec<u8> = [3, 0, 300, 1, 16_640].into_iter().flat_map(record).collect();
        let ends: Vec<usize> = [0, 3, 0, 300, 1, 16_640]
            .iter()
            .scan(0, |end, len| {
                *end += if *len == 0 && *end == 0 { 0 } else { HEAD_BYTES + len };
                Some(*end)
            })
            .collect();
        for step in [1, 2, 5, 7, 4096] {
            let mut borders = Borders::default();
            let (mut passed, mut records) = (0, 0);
            for piece in stream.chunks(step) {
                records += borders.pass(piece);
                passed += piece.len();
                let last = ends.iter().filter(|end| **end <= passed).max().expect("the beginning is one");
                assert_eq!(borders.held(), passed - last, "after {passed} bytes in steps of {step}");
            }
            assert_eq!((borders.held(), records), (0, 5));
        }
    }
}
