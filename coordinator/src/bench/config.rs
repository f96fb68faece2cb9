//! The flags of `bench`.

use clap::Args;
use std::path::PathBuf;
use std::time::Duration;
use woolly_protocol::hidden::Hidden;

/// Streams of one load at most: what a gateway lets connect.
const STREAMS_MAX: i64 = 1024;
/// Tokens of a prompt or a completion at most.
const TOKENS_MAX: i64 = 1 << 20;
/// Requests of one load at most.
const REQUESTS_MAX: i64 = 1 << 20;
/// Requests per second at most.
const RATE_MAX: f64 = 1e6;

/// The flags of `bench`.
#[derive(Clone, Debug, Args)]
pub struct BenchArgs {
    /// The gateway, http://HOST:PORT or https://HOST:PORT
    #[arg(long, env = "WOOLLY_URL", value_name = "URL", default_value = "http://127.0.0.1:8080")]
    #[arg(value_parser = parse_url)]
    pub url: GatewayUrl,
    /// A PEM file with the certificates that an https gateway is trusted by [default: those that this
    /// machine trusts]
    #[arg(long, env = "WOOLLY_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// Requests that run at the same time; one load, and one figure, for each number
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,2,4,8,16")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=STREAMS_MAX))]
    pub streams: Vec<u32>,
    /// Tokens of each prompt
    #[arg(long, value_name = "TOKENS", default_value = "128")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=TOKENS_MAX))]
    pub prompt_tokens: u32,
    /// Tokens that each request generates; the end of a text does not end it
    #[arg(long, value_name = "TOKENS", default_value = "64")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=TOKENS_MAX))]
    pub gen_tokens: u32,
    /// The first so many tokens of the prompts are the same in all requests of a load
    #[arg(long, value_name = "TOKENS", default_value = "0")]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=TOKENS_MAX))]
    pub shared_prefix: u32,
    /// When requests come: `closed`, the next one of a stream when its last has ended; `poisson:R`, R
    /// per second on average, and one that finds all streams busy waits
    #[arg(long, value_name = "HOW", default_value = "closed", value_parser = parse_arrival)]
    pub arrival: Arrival,
    /// Requests of each load [default: one per stream; eight per stream with poisson]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=REQUESTS_MAX))]
    pub requests: Option<u32>,
    /// Prompts and arrivals are the same for the same seed
    #[arg(long, value_name = "N", default_value = "1")]
    pub seed: u64,
    /// The key that the gateway asks for, if it does
    #[arg(long, env = "WOOLLY_API_KEY", value_name = "KEY", hide_env_values = true)]
    pub api_key: Option<Hidden>,
    /// One JSON object per figure and line instead of a table
    #[arg(long)]
    pub json: bool,
}

/// Where a gateway is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayUrl {
    /// Whether TLS is spoken.
    pub is_https: bool,
    /// `HOST:PORT`.
    pub host: String,
}

impl std::fmt::Display for GatewayUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "http{}://{}", if self.is_https { "s" } else { "" }, self.host)
    }
}

/// When requests come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arrival {
    /// The next request of a stream when its last one has ended.
    Closed,
    /// So many per second on average, whatever is going on.
    Poisson(f64),
}

impl std::fmt::Display for Arrival {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Arrival::Closed => f.write_str("closed"),
            Arrival::Poisson(rate) => write!(f, "poisson:{rate}"),
        }
    }
}

/// One load: the flags with one number of streams.
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    /// Requests that run at the same time.
    pub streams: u32,
    /// Requests in all.
    pub requests: u32,
    /// Tokens of each prompt.
    pub prompt_tokens: u32,
    /// Tokens that each request generates.
    pub gen_tokens: u32,
    /// Tokens that the prompts have in common, at most `prompt_tokens`.
    pub shared_prefix: u32,
    /// When requests come.
    pub arrival: Arrival,
    /// For prompts and arrivals.
    pub seed: u64,
}

impl BenchArgs {
    /// The loads that are asked for, in order.
    ///
    /// # Errors
    ///
    /// A sentence about flags that contradict each other.
    pub fn loads(&self) -> Result<Vec<Load>, String> {
        if self.shared_prefix > self.prompt_tokens {
            return Err(format!(
                "--shared-prefix {} is longer than the prompts of --prompt-tokens {}",
                self.shared_prefix, self.prompt_tokens
            ));
        }
        let requests = |streams: u32| match (self.requests, self.arrival) {
            (Some(requests), _) => requests,
            (None, Arrival::Closed) => streams,
            (None, Arrival::Poisson(_)) => streams * 8,
        };
        let load = |streams: &u32| Load {
            streams: *streams,
            requests: requests(*streams),
            prompt_tokens: self.prompt_tokens,
            gen_tokens: self.gen_tokens,
            shared_prefix: self.shared_prefix,
            arrival: self.arrival,
            seed: self.seed,
        };
        Ok(self.streams.iter().map(load).collect())
    }
}

/// How long a gateway may be silent in the middle of an answer; it sends a comment every 10 s.
pub const SILENCE_MAX: Duration = Duration::from_secs(120);

fn parse_url(text: &str) -> Result<GatewayUrl, String> {
    let expected = "expected http://HOST:PORT such as http://127.0.0.1:8080, or https://HOST:PORT";
    let (is_https, rest) = match text.strip_prefix("https://") {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix("http://").ok_or(expected)?),
    };
    let rest = rest.trim_end_matches('/');
    let host = rest.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok());
    match host {
        Some((host, _)) if !host.is_empty() && !rest.contains('/') => {
            Ok(GatewayUrl { is_https, host: rest.to_owned() })
        }
        _ => Err(expected.to_owned()),
    }
}

fn parse_arrival(text: &str) -> Result<Arrival, String> {
    if text == "closed" {
        return Ok(Arrival::Closed);
    }
    let rate = text.strip_prefix("poisson:").and_then(|rate| rate.parse::<f64>().ok());
    match rate {
        Some(rate) if rate > 0.0 && rate <= RATE_MAX => Ok(Arrival::Poisson(rate)),
        _ => Err("expected closed, or poisson:R with R requests per second".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        bench: BenchArgs,
    }

    fn loads(words: &[&str]) -> Result<Vec<Load>, String> {
        let words = ["bench"].iter().chain(words);
        Cli::try_parse_from(words).map_err(|error| error.to_string())?.bench.loads()
    }

    #[test]
    fn every_number_of_streams_is_a_load() {
        let found = loads(&["--streams", "1,8", "--requests", "20", "--seed", "7"]).unwrap();
        let load = Load {
            streams: 1,
            requests: 20,
            prompt_tokens: 128,
            gen_tokens: 64,
            shared_prefix: 0,
            arrival: Arrival::Closed,
            seed: 7,
        };
        assert_eq!(found, [load.clone(), Load { streams: 8, ..load }]);
        let requests = |words: &[&str]| loads(words).unwrap()[0].requests;
        assert_eq!(requests(&["--streams", "4"]), 4);
        assert_eq!(requests(&["--streams", "4", "--arrival", "poisson:2.5"]), 32);
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        for words in [
            &["--streams", "0"][..],
            &["--streams", "1,x"],
            &["--gen-tokens", "0"],
            &["--arrival", "poisson"],
            &["--arrival", "poisson:0"],
            &["--arrival", "poisson:NaN"],
            &["--url", "ftp://127.0.0.1:8080"],
            &["--url", "https://127.0.0.1"],
            &["--url", "http://127.0.0.1"],
            &["--url", "http://127.0.0.1:8080/v1"],
            &["--prompt-tokens", "8", "--shared-prefix", "9"],
        ] {
            assert!(loads(words).is_err(), "{words:?}");
        }
        for url in ["http://127.0.0.1:8080/", "https://llm.example:443"] {
            assert!(loads(&["--url", url]).is_ok());
            assert_eq!(parse_url(url).unwrap().to_string(), url.trim_end_matches('/'));
        }
    }
}
