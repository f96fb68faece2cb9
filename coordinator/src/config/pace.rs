//! Flags of the scheduling policy: how long streams may be held up, how sequences are grouped.

use crate::scheduler::ItlTarget;
use crate::units::parse_duration;
use clap::Args;
use std::time::Duration;
use woolly_protocol::limits::IN_FLIGHT_MAX;

/// The largest target as a multiple.
const FACTOR_MAX: f64 = 1000.0;
/// The longest target as a time.
const TIME_MAX: Duration = Duration::from_secs(3600);

/// How streams and prompts share the stages.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Scheduling")]
pub struct PaceArgs {
    /// The longest gap between two tokens of a stream that other requests' prompts should cause: a
    /// multiple of the gap without them, such as 2x (1x to 1000x; while many prompts wait, up to half
    /// as much again), or a time such as 150ms, which stays what it is. Prompts always go on, if need
    /// be two tokens at a time
    #[arg(long, env = "WOOLLY_ITL_TARGET", value_name = "TARGET", default_value = "4x")]
    #[arg(value_parser = parse_itl_target)]
    pub itl_target: ItlTarget,
    /// In how many groups decoding sequences travel through the stages: auto (the number with the
    /// most tokens per second by each stage's measured time) or 1 to 65, at most twice as many as there
    /// are stages, or eight more than stages if that is more
    #[arg(long, env = "WOOLLY_DECODE_GROUPS", value_name = "N", default_value = "auto")]
    #[arg(value_parser = parse_decode_groups)]
    pub decode_groups: DecodeGroups,
}

/// How many groups; `None` lets measurements choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeGroups(pub Option<u32>);

fn parse_itl_target(text: &str) -> Result<ItlTarget, String> {
    let expected = "expected a multiple from 1x to 1000x such as 2x, or a time from 1ms to 1h";
    if let Some(factor) = text.strip_suffix('x') {
        let factor: f64 = factor.parse().map_err(|_| expected)?;
        let percent = (factor * 100.0).round();
        let good = (1.0..=FACTOR_MAX).contains(&factor);
        return if good {
            Ok(ItlTarget::Percent(percent as u32))
        } else {
            Err(expected.to_owned())
        };
    }
    let time = parse_duration(text).map_err(|_| expected)?;
    let good = !time.is_zero() && time <= TIME_MAX;
    if good { Ok(ItlTarget::Time(time)) } else { Err(expected.to_owned()) }
}

fn parse_decode_groups(text: &str) -> Result<DecodeGroups, String> {
    if text == "auto" {
        return Ok(DecodeGroups(None));
    }
    let groups = text.parse().ok().filter(|groups| (1..=IN_FLIGHT_MAX as u32).contains(groups));
    let groups = groups.ok_or_else(|| format!("expected auto, or 1 to {IN_FLIGHT_MAX}"))?;
    Ok(DecodeGroups(Some(groups)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_multiple_or_a_time() {
        assert_eq!(parse_itl_target("2x"), Ok(ItlTarget::Percent(200)));
        assert_eq!(parse_itl_target("1.25x"), Ok(ItlTarget::Percent(125)));
        let time = Duration::from_millis(150);
        assert_eq!(parse_itl_target("150ms"), Ok(ItlTarget::Time(time)));
        for wrong in ["", "x", "0.5x", "2000x", "NaNx", "0ms", "2h", "fast"] {
            assert!(parse_itl_target(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn groups_are_chosen_or_a_number() {
        assert_eq!(parse_decode_groups("auto"), Ok(DecodeGroups(None)));
        assert_eq!(parse_decode_groups("2"), Ok(DecodeGroups(Some(2))));
        for wrong in ["0", "66", "-1", "two"] {
            assert!(parse_decode_groups(wrong).is_err(), "{wrong}");
        }
    }
}
