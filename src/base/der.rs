//! Reads the elements of DER (X.690), in which certificates and keys are written.

/// The content of the element with this tag at the front, and the bytes behind it.
pub fn element(wanted: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    any_element(der).filter(|element| element.tag == wanted).map(|element| (element.content, element.rest))
}

/// An element of DER, and the bytes behind it.
pub struct Element<'d> {
    /// Its tag.
    pub tag: u8,
    /// Its content.
    pub content: &'d [u8],
    /// The bytes behind it.
    pub rest: &'d [u8],
}

/// The element at the front (X.690, 8.1).
pub fn any_element(der: &[u8]) -> Option<Element<'_>> {
    let (&[tag, first], rest) = der.split_first_chunk::<2>()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some(Element { tag, content, rest })
}

/// The tag of an integer.
pub const INTEGER: u8 = 0x02;
/// The tag of a sequence.
pub const SEQUENCE: u8 = 0x30;
