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
//! pipeline that breaks takes all blocks with it. So requests with one prefix that arrive together, the
//! choices of one request among them, compute it once: the first does, and the others look again at each
//! extent's border. Who would compute an extent in the very microbatch in which another does waits for the
//! next one, where it has its name. Each computes by itself what is left after the last full extent.
//!
//! # Windows
//!
//! Layers with a window read the last positions only: of a prefix they need the extents that the next row
//! reads, while the other groups need all. An extent has one name in all groups. The longest prefix is taken
//! of which every group has what it needs.
//!
//! # What is never shared
//!
//! Open extents, and the extent of a log's last token, whose logits are wanted. A sequence that scores
//! its prompt, or tokens that it did not sample, wants the logits of every token and finds nothing; others may find what it computed. A
//! new plan begins with an empty cache.

use super::Scheduler;
use super::prefix_key::Name;
use std::ops::Range;
use woolly_protocol::ids::SequenceId;

/// Extents that one who computes a prompt looks at, at each border between two, for what others have
/// computed meanwhile. It looked at all when it started; where a group lacks what its window needs,
/// looking at all again and again would take the square of a prompt's length.
pub(super) const EXTENTS_AHEAD: usize = 64;

impl Scheduler {
    /// Names the full extents of a sequence's log; `false` if nobody may find them.
    fn name_extents(&mut self, id: SequenceId) -> bool {
        let len = self.caches.extent_len();
        let prefix_cache = self.config.prefix_cache;
        let sequence = self.sequence_mut(id);
        let Some(root) = prefix_cache.root(&sequence.request) else { return false };
        let done = sequence.names.len();
        for tokens in sequence.tokens[done * len..].chunks_exact(len) {
            let name = sequence.names.last().unwrap_or(&root).then(tokens);
            sequence.names.push(name);
        }
        true
    }

    /// Lets a sequence hold the extents that the cache has for its next positions, instead of
    /// computing them. Looks at the next `ahead` of them.
    pub(super) fn adopt(&mut self, id: SequenceId, ahead: usize) {
        let len = self.caches.extent_len();
        let sequence = self.sequence(id);
        let open = !sequence.sent.is_multiple_of(len) || sequence.pending() <= len;
        if open || sequence.wants_scores() || !self.name_extents(id) {
            return;
        }
        let sequence = self.sequences.get_mut(&id).expect("it was there above");
        // One position at least is left to compute.
        let names = &sequence.names[..(sequence.compute_end() - 1) / len];
        let from = sequence.sent / len;
        let hit = self.caches.hit(names, from, ahead);
        if hit == from {
            return;
        }
        let adopted = hit - from;
        self.caches.adopt(&mut sequence.tables, names, from..hit);
        sequence.sent = hit * len;
        sequence.offered += adopted;
        let sequence = self.sequence_mut(id);
        if sequence.preemptions == 0 && !sequence.was_set_back {
            // What a grammar forced is found there too; it is no part of the prompt.
            let in_prompt = |extents: usize| (extents * len).min(sequence.prompt_len);
            sequence.cached_tokens += in_prompt(hit) - in_prompt(from);
        }
        self.tally.prefix_hit_tokens += (adopted * len) as u64;
        self.use_reserved(id, adopted);
    }

    /// Whether a sequence's next extent is among those that the present microbatch computes already: in the
    /// next one it has it. [`adopt`](Self::adopt) has named what it may find.
    pub(super) fn awaits(&self, id: SequenceId, computed: &[Name]) -> bool {
        let len = self.caches.extent_len();
        let sequence = self.sequence(id);
        if sequence.wants_scores() || !sequence.sent.is_multiple_of(len) {
            return false;
        }
        let next = sequence.sent / len;
        let found = sequence.names.get(next).filter(|_| next < (sequence.compute_end() - 1) / len);
        found.is_some_and(|name| computed.contains(name))
    }

    /// Adds the names of the full extents in which these positions of a sequence are: it computes them in
    /// the present microbatch, or goes on with them in the next.
    pub(super) fn note_computed(
        &mut self,
        id: SequenceId,
        positions: Range<usize>,
        computed: &mut Vec<Name>,
    ) {
        if self.name_extents(id) {
            let len = self.caches.extent_len();
            let names = &self.sequence(id).names;
            let (from, end) = (positions.start / len, positions.end.div_ceil(len));
            computed.extend(names[..end.min(names.len())].iter().skip(from));
        }
    }

    /// Extents that a waiting sequence would find and that others hold, of the group that remembers all: they
    /// cost nothing.
    pub(super) fn shared_extents(&mut self, id: SequenceId) -> usize {
        if self.sequence(id).wants_scores() || !self.name_extents(id) {
            return 0;
        }
        let sequence = self.sequence(id);
        let names = &sequence.names[..(sequence.compute_end() - 1) / self.caches.extent_len()];
        let hit = self.caches.hit(names, 0, usize::MAX);
        self.caches.shared(&names[..hit])
    }

    /// Gives the extents that a microbatch fills their names: whoever comes later may share them.
    pub(super) fn offer(&mut self, filled: &[SequenceId]) {
        let len = self.caches.extent_len();
        for id in filled {
            if !self.name_extents(*id) {
                continue;
            }
            let sequence = self.sequences.get_mut(id).expect("it was there above");
            let full = sequence.sent / len;
            self.caches.name(&sequence.tables, &sequence.names, sequence.offered..full);
            sequence.offered = full;
        }
    }
}
