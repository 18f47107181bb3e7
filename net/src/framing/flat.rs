//! Finds the end of a flat object, which has no object and no escape in it, without looking at each
//! byte: most frames are flat and short.

/// The length of the object that `bytes` begin with, if it contains no object and no escape. Then
/// the first closing brace ends it, unless that is inside a string; it is not if an even number of
/// quotes precedes it. Counting braces would find the same.
pub(super) fn flat_object(bytes: &[u8]) -> Option<usize> {
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code)]
    // SAFETY: every processor of this architecture has SSE2, which is all that the function asks
    // for.
    unsafe {
        flat_object_sse2(bytes)
    }
    #[cfg(not(target_arch = "x86_64"))]
    flat_object_plain(bytes)
}

/// Looks at sixteen bytes at once. The compiler does not find this by itself, and to search for the
/// brace and then to count the quotes costs 2 % of a message more.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse2")]
fn flat_object_sse2(bytes: &[u8]) -> Option<usize> {
    use std::arch::x86_64::{__m128i, _mm_cmpeq_epi8, _mm_movemask_epi8, _mm_or_si128, _mm_set_epi64x, _mm_set1_epi8};

    let Some(last) = bytes.last_chunk::<16>() else { return flat_object_plain(bytes) };
    let load = |chunk: &[u8; 16]| -> __m128i {
        let chunk = u128::from_le_bytes(*chunk);
        _mm_set_epi64x((chunk >> 64) as i64, chunk as i64)
    };
    let are = |bytes: __m128i, byte: u8| _mm_cmpeq_epi8(bytes, _mm_set1_epi8(byte as i8));
    // A bit for each byte that may end a flat object or shows that it is none, and for each quote.
    let look = |chunk: &[u8; 16]| -> (u32, u32) {
        let bytes = load(chunk);
        let ends = _mm_or_si128(_mm_or_si128(are(bytes, b'}'), are(bytes, b'{')), are(bytes, b'\\'));
        (_mm_movemask_epi8(ends) as u32, _mm_movemask_epi8(are(bytes, b'"')) as u32)
    };
    let (chunks, rest) = bytes.as_chunks::<16>();
    // The number of quotes is even if that of the bits is. The first brace begins the object.
    let (mut quotes_so_far, mut begun) = (0, 1);
    for (nth, chunk) in chunks.iter().enumerate() {
        let (ends, quotes) = look(chunk);
        let ends = ends & !begun;
        if ends != 0 {
            return end_of_flat(bytes, 16 * nth, ends, quotes_so_far ^ (quotes & before_first(ends)));
        }
        (quotes_so_far, begun) = (quotes_so_far ^ quotes, 0);
    }
    // Of the last sixteen bytes only the rest was not looked at.
    let (ends, quotes) = look(last);
    let (ends, quotes) = (ends >> (16 - rest.len()), quotes >> (16 - rest.len()));
    end_of_flat(bytes, bytes.len() - rest.len(), ends, quotes_so_far ^ (quotes & before_first(ends)))
}

/// The bits below the lowest one.
#[cfg(target_arch = "x86_64")]
fn before_first(bits: u32) -> u32 {
    (bits & bits.wrapping_neg()).wrapping_sub(1)
}

/// The length of a flat object, if the first of `ends`, counted from `from`, is its closing brace.
#[cfg(target_arch = "x86_64")]
fn end_of_flat(bytes: &[u8], from: usize, ends: u32, quotes: u32) -> Option<usize> {
    let at = from + ends.trailing_zeros() as usize;
    (bytes.get(at) == Some(&b'}') && quotes.count_ones().is_multiple_of(2)).then_some(at + 1)
}

pub(super) fn flat_object_plain(bytes: &[u8]) -> Option<usize> {
    let len = 1 + memchr::memchr3(b'}', b'{', b'\\', bytes.get(1..)?)? + 1;
    let quotes = bytes[..len].iter().filter(|byte| **byte == b'"').count();
    (bytes[len - 1] == b'}' && quotes.is_multiple_of(2)).then_some(len)
}

/// The braces of longer ones are counted: so a scan in vain is bounded.
pub(super) const FLAT_BYTES_MAX: usize = 1024;
