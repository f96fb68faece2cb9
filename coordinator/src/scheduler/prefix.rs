//! The prefix cache: full extents of blocks, found by everything that was computed up to their end.
//!
//! An extent's [`Name`] is a BLAKE3 hash of its tokens and of the name of the extent before it, back to
//! a root that differs per API key. Equal names mean equal tokens at equal positions, so equal bits
//! on every stage (the order of operations does not depend on chunks or on neighbours): 256 bits of
//! hash are not compared with the tokens again.
//!
//! # What is in flight is shared
//!
//! An extent gets its name when its last position is sent, not when the answer is back. A sequence
//! that finds it then sends its own microbatch later, and every stage computes forwards in the order
//! in which they arrive: it has written the extent's slots before it reads them. Nothing takes a
//! forward back once it is sent (a cancelled sequence holds its blocks until the answer), and a
//! pipeline that breaks takes all blocks with it. So requests with one prefix that arrive together
//! compute it once: the first does, and the others look again at each extent's border.
//!
//! # What is never shared
//!
//! Open extents, and the extent of a log's last token, whose logits are wanted. A sequence that scores
//! its prompt wants the logits of every token and finds nothing; others may find what it computed. A
//! new plan begins with an empty cache.

use super::Scheduler;
use super::limits::to_usize;
use std::iter::zip;
use woolly_protocol::ids::SequenceId;

impl Scheduler {
    /// Names the full extents of a sequence's log; `false` without a cache.
    fn name_extents(&mut self, id: SequenceId) -> bool {
        let len = self.extent_len();
        let prefix_cache = self.config.prefix_cache;
        let sequence = self.sequence_mut(id);
        let Some(root) = prefix_cache.root(sequence.request.key) else { return false };
        let done = sequence.names.len();
        for tokens in sequence.tokens[done * len..].chunks_exact(len) {
            let name = sequence.names.last().unwrap_or(&root).then(tokens);
            sequence.names.push(name);
        }
        true
    }

    /// Lets a sequence hold the extents that the cache has for its next positions, instead of
    /// computing them.
    pub(super) fn adopt(&mut self, id: SequenceId) {
        let len = self.extent_len();
        let sequence = self.sequence(id);
        let open = !sequence.sent.is_multiple_of(len) || sequence.pending() <= len;
        if open || sequence.request.score_prompt || !self.name_extents(id) {
            return;
        }
        let mut adopted = 0;
        loop {
            let sequence = self.sequences.get_mut(&id).expect("it was there above");
            // One position at least is left to compute.
            if sequence.pending() <= len {
                break;
            }
            let Some((extent, _)) = self.blocks.find(&sequence.names[sequence.sent / len]) else {
                break;
            };
            self.blocks.hold(extent);
            sequence.blocks.extend(self.blocks.ids(extent));
            sequence.sent += len;
            sequence.offered += 1;
            adopted += 1;
        }
        let sequence = self.sequence_mut(id);
        if sequence.preemptions == 0 && !sequence.was_set_back {
            sequence.cached_tokens += adopted * len;
        }
        self.tally.prefix_hit_tokens += (adopted * len) as u64;
        self.use_reserved(id, adopted);
    }

    /// Extents that a waiting sequence would find and that others hold: they cost nothing.
    pub(super) fn shared_extents(&mut self, id: SequenceId) -> usize {
        if self.sequence(id).request.score_prompt || !self.name_extents(id) {
            return 0;
        }
        let sequence = self.sequence(id);
        let most = (sequence.compute_end() - 1) / self.extent_len();
        let found = sequence.names[..most].iter().map_while(|name| self.blocks.find(name));
        found.filter(|(_, held)| *held).count()
    }

    /// Gives the extents that a microbatch fills their names: whoever comes later may share them.
    pub(super) fn offer(&mut self, filled: &[SequenceId]) {
        let len = self.extent_len();
        for id in filled {
            if !self.name_extents(*id) {
                continue;
            }
            let sequence = self.sequences.get_mut(id).expect("it was there above");
            let full = sequence.sent / len;
            let per_extent = to_usize(self.blocks.per_extent());
            let firsts = sequence.blocks.iter().step_by(per_extent);
            for (first, name) in zip(firsts, &sequence.names).take(full).skip(sequence.offered) {
                let extent = self.blocks.extent_of(*first);
                self.blocks.name(extent, *name);
            }
            sequence.offered = full;
        }
    }
}
