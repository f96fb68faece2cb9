//! The flag of what layers are cut for.

use clap::Args;
use woolly_engine::plan::Objective;

/// What layers are cut for, where no person has cut them.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Workers")]
pub struct ObjectiveArgs {
    /// What the layers are cut for: latency (few streams at a time), throughput (many streams, and
    /// prompts) or balanced (all alike)
    #[arg(long, env = "WOOLLY_OBJECTIVE", value_name = "WHAT", default_value = "balanced")]
    #[arg(value_parser = parse_objective, conflicts_with = "cut")]
    pub objective: Objective,
}

fn parse_objective(text: &str) -> Result<Objective, String> {
    let named = Objective::ALL.into_iter().find(|objective| objective.name() == text);
    named.ok_or_else(|| "expected balanced, throughput or latency".to_owned())
}
