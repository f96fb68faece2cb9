//! A toy grammar: what may come next is a hash of the completion so far.

use super::rng::mix;
use super::toy::VOCAB;
use crate::generation::GenerationRequest;
use crate::guides::Next;
use std::sync::Arc;
use woolly_protocol::sampling::TokenMask;

/// A generation's guide: the hash of its completion.
pub(crate) struct ToyGuide(u64);

impl ToyGuide {
    /// The guide of a request, and what it says first.
    pub(crate) fn of(request: &GenerationRequest) -> (ToyGuide, Next) {
        let mut guide = ToyGuide(mix(request.sampling.seed ^ 0x6a1d));
        let next = match guide.say() {
            // Such a grammar is refused before its request is queued.
            Next::Fails(_) => Next::Goes { forced: Vec::new(), mask: None },
            next => next,
        };
        (guide, next)
    }

    /// What may come after this token.
    pub(crate) fn next(&mut self, token: u32) -> Next {
        self.take(token);
        self.say()
    }

    fn take(&mut self, token: u32) {
        self.0 = mix(self.0.rotate_left(9) ^ u64::from(token));
    }

    fn token(&self, salt: u64) -> u32 {
        u32::try_from(mix(self.0 ^ salt) % VOCAB).unwrap()
    }

    fn say(&mut self) -> Next {
        let mut forced = Vec::new();
        for _ in 0..[0, 0, 0, 0, 0, 1, 4, 40][usize::try_from(mix(self.0 ^ 1) % 8).unwrap()] {
            forced.push(self.token(2));
            self.take(self.token(2));
        }
        if mix(self.0 ^ 3).is_multiple_of(151) {
            return Next::Fails(String::new());
        }
        if mix(self.0 ^ 4).is_multiple_of(41) {
            return Next::Ends { forced };
        }
        let mut ids: Vec<u32> = (5..8).map(|salt| self.token(salt)).collect();
        ids.sort_unstable();
        ids.dedup();
        let mask = match mix(self.0 ^ 9) % 4 {
            0 => None,
            1 => Some(TokenMask::Only(ids)),
            2 => Some(TokenMask::AllBut(ids)),
            _ => Some(TokenMask::Bits(vec![(mix(self.0 ^ 10) & ((1 << VOCAB) - 1)) | 1])),
        };
        Next::Goes { forced, mask: mask.map(Arc::new) }
    }
}

/// The token that a hash chooses among those that a mask allows.
pub(crate) fn choose(hash: u64, mask: Option<&TokenMask>) -> u32 {
    let is_allowed = |token: &u32| match mask {
        None => true,
        Some(TokenMask::Only(ids)) => ids.contains(token),
        Some(TokenMask::AllBut(ids)) => !ids.contains(token),
        Some(TokenMask::Bits(words)) => words[0] >> token & 1 == 1,
    };
    let allowed: Vec<u32> = (0..u32::try_from(VOCAB).unwrap()).filter(is_allowed).collect();
    allowed[usize::try_from(hash % allowed.len() as u64).unwrap()]
}
