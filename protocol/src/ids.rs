//! Numbers that name things on the wire, each a type of its own.

use rkyv::{Archive, Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($int:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash,
            Archive, Serialize, Deserialize,
        )]
        #[rkyv(derive(Debug))]
        pub struct $name(pub $int);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// Which plan a message belongs to; raised by one at every change of plan. 0 is "no plan".
    PlanEpoch(u32)
);
id!(
    /// A microbatch while it is in flight; grows by one per microbatch and is never used again.
    MicrobatchId(u64)
);
id!(
    /// One prompt with its completion.
    SequenceId(u64)
);
id!(
    /// A KV block; means the same on every stage of a plan. A table of them is read as plain
    /// numbers where it lies.
    #[derive(bytemuck::Pod, bytemuck::Zeroable)]
    #[repr(transparent)]
    BlockId(u32)
);
id!(
    /// A worker of this cluster, drawn at random when its first certificate is signed.
    WorkerId(u64)
);

impl WorkerId {
    /// The id as it stands in certificates and logs: 16 hexadecimal digits.
    pub fn hex(self) -> String {
        format!("{:016x}", self.0)
    }

    /// Reads what [`hex`](Self::hex) wrote; `None` for anything else.
    pub fn from_hex(text: &str) -> Option<Self> {
        if text.len() != 16 || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        u64::from_str_radix(text, 16).ok().map(Self)
    }
}
