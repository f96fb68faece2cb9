//! Names of extents: equal names mean equal tokens from the start of the sequence on.

use crate::generation::GenerationRequest;

/// Whose prefixes a request may find.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PrefixCache {
    /// Nobody's, but that the choices of one request compute their prompt once.
    Off,
    /// Those of its own API key: the time to the first token tells nobody what others have asked.
    #[default]
    Key,
    /// Everybody's.
    Shared,
}

/// Says what an extent holds: its tokens and all before them, and who may find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name([u8; 32]);

impl Name {
    /// What the first extent of a tenant follows.
    pub(super) fn root(tenant: u32) -> Self {
        Self(*blake3::hash(&tenant.to_le_bytes()).as_bytes())
    }

    /// What the first extent of the choices of one request follows: nobody else has this name. It is a hash
    /// of other bytes than any tenant's.
    fn siblings(request: u64) -> Self {
        Self(*blake3::hash(&request.to_le_bytes()).as_bytes())
    }

    /// The name of an extent with these tokens after the one named so.
    pub(super) fn then(&self, tokens: &[u32]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0);
        // Names never leave this process, so that the order of bytes is the machine's own.
        hasher.update(bytemuck::cast_slice(tokens));
        Self(*hasher.finalize().as_bytes())
    }
}

impl PrefixCache {
    /// What the names of a request's extents begin with; `None` if nobody may find them.
    pub(super) fn root(self, request: &GenerationRequest) -> Option<Name> {
        match self {
            Self::Off => request.siblings.map(|siblings| Name::siblings(siblings.get())),
            Self::Key => Some(Name::root(request.key.0)),
            Self::Shared => Some(Name::root(0)),
        }
    }
}
