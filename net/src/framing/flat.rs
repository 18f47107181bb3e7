//! Finds the end of a flat object without looking at each byte. A flat object has no object and no
//! escape in it; most frames are flat and short. Frames of a WebSocket are unmasked in the same
//! pass.

/// The length of the object that `bytes` begin with, if it contains no object and no escape. The
/// first closing brace outside of a string ends such an object; a brace is outside of strings if an
/// even number of quotes precedes it. Counting braces would give the same result.
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

/// Compares sixteen bytes at once. The compiler does not do this by itself, and searching for the
/// brace before counting the quotes would make a message 2 % more expensive.
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
    // A bit for each byte that ends a flat object or shows that the object is not flat, and a bit
    // for each quote.
    let look = |chunk: &[u8; 16]| -> (u32, u32) {
        let bytes = load(chunk);
        let ends = _mm_or_si128(_mm_or_si128(are(bytes, b'}'), are(bytes, b'{')), are(bytes, b'\\'));
        (_mm_movemask_epi8(ends) as u32, _mm_movemask_epi8(are(bytes, b'"')) as u32)
    };
    let (chunks, rest) = bytes.as_chunks::<16>();
    // The number of quotes is even if the number of their bits is. The first brace begins the
    // object.
    let (mut quotes_so_far, mut begun) = (0, 1);
    for (nth, chunk) in chunks.iter().enumerate() {
        let (ends, quotes) = look(chunk);
        let ends = ends & !begun;
        if ends != 0 {
            return end_of_flat(bytes, 16 * nth, ends, quotes_so_far ^ (quotes & before_first(ends)));
        }
        (quotes_so_far, begun) = (quotes_so_far ^ quotes, 0);
    }
    // Only the rest of the last sixteen bytes was not compared yet.
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

/// The result of the pass that removes the mask of a text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Unmasked {
    /// The text is one flat object and nothing else.
    pub(super) is_flat: bool,
    pub(super) is_ascii: bool,
}

/// Removes the mask, which repeats every 4 bytes.
pub(super) fn unmask(bytes: &mut [u8], key: [u8; 4]) -> Unmasked {
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code)]
    // SAFETY: every processor of this architecture has SSE2, which is all that the function asks
    // for.
    unsafe {
        unmask_sse2(bytes, key)
    }
    #[cfg(not(target_arch = "x86_64"))]
    unmask_plain(bytes, key)
}

/// Unmasks sixteen bytes at once, in one pass. One pass each for the mask, the characters and the
/// braces would make a message a tenth more expensive.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse2")]
fn unmask_sse2(bytes: &mut [u8], key: [u8; 4]) -> Unmasked {
    use std::arch::x86_64::{
        __m128i, _mm_and_si128, _mm_cmpeq_epi8, _mm_cvtsi128_si64, _mm_movemask_epi8, _mm_or_si128, _mm_set_epi64x,
        _mm_set1_epi8, _mm_set1_epi32, _mm_unpackhi_epi64, _mm_xor_si128,
    };

    let Some(last) = bytes.last_chunk::<16>() else { return unmask_plain(bytes, key) };
    let load = |chunk: &[u8; 16]| -> __m128i {
        let chunk = u128::from_le_bytes(*chunk);
        _mm_set_epi64x((chunk >> 64) as i64, chunk as i64)
    };
    let store = |chunk: &mut [u8; 16], plain: __m128i| {
        let (low, high) = chunk.split_at_mut(8);
        low.copy_from_slice(&_mm_cvtsi128_si64(plain).to_le_bytes());
        high.copy_from_slice(&_mm_cvtsi128_si64(_mm_unpackhi_epi64(plain, plain)).to_le_bytes());
    };
    let are = |plain: __m128i, byte: u8| _mm_cmpeq_epi8(plain, _mm_set1_epi8(byte as i8));
    let braces = |plain: __m128i| _mm_or_si128(_mm_or_si128(are(plain, b'}'), are(plain, b'{')), are(plain, b'\\'));

    // The last sixteen bytes are read before the pass and written after it. The pass has written
    // some of them as well, but its comparisons end before `seen`, so that at least one byte is
    // left.
    let seen = (bytes.len() - 1) / 16 * 16;
    let turned = u32::from_le_bytes(key).rotate_right(8 * (bytes.len() % 4) as u32);
    let last = _mm_xor_si128(load(last), _mm_set1_epi32(turned as i32));
    let wide = _mm_set1_epi32(i32::from_le_bytes(key));
    // The first brace begins the object, and is not one of the inner braces.
    let mut but_first = _mm_set_epi64x(-1, !0xff);
    let (mut all, mut others, mut quotes) = (last, _mm_set1_epi8(0), _mm_set1_epi8(0));
    for chunk in bytes[..seen].as_chunks_mut::<16>().0 {
        let plain = _mm_xor_si128(load(chunk), wide);
        store(chunk, plain);
        all = _mm_or_si128(all, plain);
        others = _mm_or_si128(others, _mm_and_si128(braces(plain), but_first));
        quotes = _mm_xor_si128(quotes, are(plain, b'"'));
        but_first = _mm_set1_epi8(-1);
    }
    // The last brace ends it.
    let but_ends = 0x7fff & !u32::from(seen == 0);
    let others = _mm_movemask_epi8(others) as u32 | _mm_movemask_epi8(braces(last)) as u32 & but_ends;
    let new_quotes = (_mm_movemask_epi8(are(last, b'"')) as u32) >> (16 - (bytes.len() - seen));
    let quotes = (_mm_movemask_epi8(quotes) as u32).count_ones() + new_quotes.count_ones();
    if let Some(chunk) = bytes.last_chunk_mut::<16>() {
        store(chunk, last);
    }
    let is_flat = others == 0 && quotes.is_multiple_of(2) && matches!(bytes, [b'{', .., b'}']);
    Unmasked { is_flat, is_ascii: _mm_movemask_epi8(all) == 0 }
}

pub(super) fn unmask_plain(bytes: &mut [u8], key: [u8; 4]) -> Unmasked {
    bytes.iter_mut().zip(key.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
    let is_flat = bytes.first() == Some(&b'{') && flat_object_plain(bytes) == Some(bytes.len());
    Unmasked { is_flat, is_ascii: bytes.is_ascii() }
}

/// The longest object that is searched like this; the braces of longer ones are counted. So a scan
/// in vain is bounded.
pub(super) const FLAT_BYTES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// Covers every length around the sixteen bytes that are compared together, every key byte in
    /// every place, and every significant byte in each place.
    #[test]
    fn a_pass_sees_the_same_as_three() {
        let key = [0x12, 0xfe, 0x7b, 0x22];
        for len in 0..70 {
            for (first, last) in [(b'{', b'}'), (b'{', b'a'), (b'x', b'}')] {
                let mut text = vec![b'a'; len];
                text.iter_mut().next_back().into_iter().for_each(|byte| *byte = last);
                text.iter_mut().next().into_iter().for_each(|byte| *byte = first);
                for other in [b'a', b'"', b'{', b'}', b'\\', 0xc3] {
                    for (at, also) in (0..len).flat_map(|at| [(at, at), (at, len / 2)]) {
                        let mut text = text.clone();
                        (text[at], text[also]) = (other, if at == also { other } else { b'"' });
                        check_pass(&text, key);
                    }
                }
                check_pass(&text, key);
            }
        }
    }

    fn check_pass(text: &[u8], key: [u8; 4]) {
        let masked: Vec<u8> = text.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
        let is_flat = text.first() == Some(&b'{') && flat_object(text) == Some(text.len());
        let expected = Unmasked { is_flat, is_ascii: text.is_ascii() };
        for pass in [unmask, unmask_plain] {
            let mut bytes = masked.clone();
            assert_eq!((pass(&mut bytes, key), bytes.as_slice()), (expected, text), "{}", text.escape_ascii());
        }
    }
}
