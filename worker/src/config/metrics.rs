//! The flag of `join` that opens an address for Prometheus.

use super::resolve_address;
use clap::Args;
use std::net::SocketAddr;

/// Where figures are told, as typed.
#[derive(Args, Clone, Debug)]
pub struct MetricsArgs {
    /// Address (TCP) on which this worker answers GET /metrics for Prometheus, without a key, such as
    /// 0.0.0.0:9464; port 0 takes a free one [default: none]
    #[arg(long, value_name = "ADDR", env = "WOOLLY_METRICS", value_parser = resolve_address)]
    pub metrics: Option<SocketAddr>,
}
