//! The tokens that a grammar allows, in the shortest form that the wire has.

use llguidance::toktrie::SimpleVob;
use woolly_protocol::sampling::TokenMask;

/// The mask of a set over a vocabulary of `vocab` tokens; `None` if it is empty.
pub(super) fn of_set(set: &SimpleVob, vocab: usize) -> Option<TokenMask> {
    let words = vocab.div_ceil(64);
    let mut bits = vec![0_u64; words];
    for (index, half) in set.as_slice().iter().enumerate().take(2 * words) {
        bits[index / 2] |= u64::from(*half) << (32 * (index % 2));
    }
    if let Some(last) = bits.last_mut().filter(|_| !vocab.is_multiple_of(64)) {
        *last &= (1 << (vocab % 64)) - 1;
    }
    let allowed: usize = bits.iter().map(|word| word.count_ones() as usize).sum();
    // An id takes four bytes, a word of the bitmap eight.
    let ids_max = 2 * words;
    match allowed {
        0 => None,
        some if some <= ids_max => Some(TokenMask::Only(ids(&bits))),
        many if vocab - many <= ids_max => {
            let refused: Vec<u64> = bits.iter().map(|word| !word).collect();
            let ids = ids(&refused).into_iter().filter(|id| (*id as usize) < vocab).collect();
            Some(TokenMask::AllBut(ids))
        }
        _ => Some(TokenMask::Bits(bits)),
    }
}

/// The ids of the bits that are set, ascending.
fn ids(bits: &[u64]) -> Vec<u32> {
    let of_word = |(index, word): (u32, &u64)| {
        let mut left = *word;
        std::iter::from_fn(move || {
            let bit = (left != 0).then(|| left.trailing_zeros())?;
            left &= left - 1;
            Some(64 * index + bit)
        })
    };
    (0..).zip(bits).flat_map(of_word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(vocab: usize, allowed: impl Iterator<Item = u32>) -> Option<TokenMask> {
        let mut set = SimpleVob::alloc_with_capacity(vocab, vocab + 1);
        allowed.for_each(|token| set.allow_token(token));
        of_set(&set, vocab)
    }

    #[test]
    fn the_shortest_form_is_taken() {
        assert_eq!(mask(1000, [].into_iter()), None);
        assert_eq!(mask(1000, [3, 64, 999].into_iter()), Some(TokenMask::Only(vec![3, 64, 999])));
        let but_two = (0..1000).filter(|token| ![0, 700].contains(token));
        assert_eq!(mask(1000, but_two), Some(TokenMask::AllBut(vec![0, 700])));
        assert_eq!(mask(1000, 0..1000), Some(TokenMask::AllBut(vec![])));
        let Some(TokenMask::Bits(bits)) = mask(1000, (0..1000).step_by(2)) else {
            panic!("no bitmap")
        };
        assert_eq!((bits.len(), bits[0], bits[15]), (16, 0x5555_5555_5555_5555, 0x55_5555_5555));
    }
}
