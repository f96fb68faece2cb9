//! Links that are bad but not broken: nobody may be given up for them.

use crate::bed::calm_conditions;
use std::time::Duration;
use woolly_tests::relay::fate::{Burst, Conditions};

/// What is wrong with all links for some seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// 5 % are lost.
    Loss,
    /// They are lost in bursts.
    Bursts,
    /// A quarter is overtaken.
    Reorder,
    /// 5 % come twice.
    Duplicate,
    /// One bit of 2 % is wrong.
    Corrupt,
    /// Delays differ by 15 ms.
    Jitter,
    /// 250 kB/s pass.
    Rate,
}

/// All weathers.
pub const WEATHERS: [Weather; 7] = [
    Weather::Loss,
    Weather::Bursts,
    Weather::Reorder,
    Weather::Duplicate,
    Weather::Corrupt,
    Weather::Jitter,
    Weather::Rate,
];

impl Weather {
    /// The conditions of each way of a link in it.
    pub fn conditions(self) -> Conditions {
        let calm = calm_conditions();
        match self {
            Weather::Loss => Conditions { loss: 0.05, ..calm },
            Weather::Bursts => Conditions { burst: Some(Burst { begin: 0.01, end: 0.25 }), ..calm },
            Weather::Reorder => Conditions { reorder: 0.25, ..calm },
            Weather::Duplicate => Conditions { duplicate: 0.05, ..calm },
            Weather::Corrupt => Conditions { corrupt: 0.02, ..calm },
            Weather::Jitter => Conditions { jitter: Duration::from_millis(15), ..calm },
            Weather::Rate => Conditions { rate: Some(250_000.0), ..calm },
        }
    }
}
