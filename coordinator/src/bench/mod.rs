//! `bench`: loads on a running gateway, seen from outside. `docs/measuring.md` defines the figures.

pub mod arrivals;
pub mod client;
pub mod config;
pub mod figures;
pub mod load;
pub mod scrape;
#[cfg(test)]
mod tests;

use crate::exit::Fatal;
use anyhow::{Context, anyhow};
use client::Client;
use config::{BenchArgs, Load};
use figures::{Figure, Rate, Spread};
use scrape::StageCounters;
use std::io::Write;
use std::time::Duration;

/// Workers report every 500 ms: after this, the counters hold everything that was computed.
const REPORTS_TIME: Duration = Duration::from_millis(1200);
/// Tokens that the request before the first load generates: pages are touched and threads awake.
const WARM_UP_TOKENS: u32 = 8;
/// Errors of a load that are printed.
const ERRORS_SHOWN: usize = 3;

/// Runs the loads and prints their figures to stdout.
///
/// # Errors
///
/// Flags that contradict each other, a gateway that cannot be reached, requests that failed.
pub fn run(args: &BenchArgs) -> Result<(), Fatal> {
    // A load of many clients is as many connections.
    crate::open_files::raise();
    let loads = args.loads().map_err(Fatal::usage)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(bench(args, &loads, &mut std::io::stdout()))
}

/// As [`run`], to `out`.
///
/// # Errors
///
/// As [`run`].
pub async fn bench(args: &BenchArgs, loads: &[Load], out: &mut impl Write) -> Result<(), Fatal> {
    let client = Client::new(&args.url, args.tls_ca.as_deref(), args.api_key.clone())?;
    let (model, vocab) = client.model().await?;
    if let Some(first) = loads.first() {
        // Streams of no load: nothing of it can be in a prefix cache later.
        let warm_up = Load { streams: 0, ..first.clone() };
        let prompt = arrivals::prompt(&warm_up, 0, vocab);
        client
            .complete(&model, &prompt, WARM_UP_TOKENS)
            .await
            .context("the first request failed")?;
    }
    let print = |out: &mut dyn Write, text: &str| {
        writeln!(out, "{text}").and_then(|()| out.flush()).context("cannot print the figures")
    };
    if !args.json {
        print(out, &header(args, &model))?;
    }
    let (mut failed, mut requests) = (0, 0);
    for load in loads {
        let figure = measure(load, &client, &model, vocab).await?;
        let text = if args.json { figure.json(&model).to_string() } else { row(&figure) };
        print(out, &text)?;
        for error in figure.errors.iter().take(ERRORS_SHOWN) {
            tracing::error!("{} streams: {error}", load.streams);
        }
        failed += figure.errors.len();
        requests += load.requests;
    }
    match failed {
        0 => Ok(()),
        _ => Err(Fatal::from(anyhow!("{failed} of {requests} requests failed"))),
    }
}

async fn measure(load: &Load, client: &Client, model: &str, vocab: u32) -> Result<Figure, Fatal> {
    let before = counters(client).await;
    let seen = load::run(load, client, model, vocab).await;
    let stages = match before {
        Some(before) => {
            let after = counters(client).await.unwrap_or_default();
            scrape::between(&before, &after)
        }
        None => Vec::new(),
    };
    Ok(Figure::of(load, &seen, stages))
}

/// What the stages have done, once they have told everything; `None` if the gateway has no metrics.
async fn counters(client: &Client) -> Option<Vec<StageCounters>> {
    client.get("/metrics").await.ok()?;
    tokio::time::sleep(REPORTS_TIME).await;
    client.get("/metrics").await.ok().map(|text| scrape::stages(&text))
}

fn header(args: &BenchArgs, model: &str) -> String {
    let BenchArgs { prompt_tokens, gen_tokens, shared_prefix, arrival, seed, .. } = args;
    format!(
        "{model}: prompts of {prompt_tokens} tokens ({shared_prefix} shared), {gen_tokens} generated, \
         arrival {arrival}, seed {seed}\n\
         {:>7} {:>8} {:>6} {:>10} {:>10} {:>10} {:>17} {:>17}  stages: utilisation (CPU s of wall s)",
        "streams",
        "requests",
        "errors",
        "prefill/s",
        "decode/s",
        "overall/s",
        "TTFT p50/p99 ms",
        "ITL p50/p99 ms"
    )
}

fn row(figure: &Figure) -> String {
    let rate =
        |rate: Option<Rate>| rate.map_or("-".to_owned(), |rate| format!("{:.2}", rate.per_s()));
    let spread = |spread: &Spread| {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        format!("{:.1}/{:.1}", ms(spread.p50), ms(spread.p99))
    };
    let wall = figure.wall.as_secs_f64();
    let stage = |stage: &StageCounters| {
        format!("{:.1} % ({:.2} of {wall:.2})", 100.0 * stage.cpu_s / wall, stage.cpu_s)
    };
    let stages: Vec<String> = figure.stages.iter().map(stage).collect();
    format!(
        "{:>7} {:>8} {:>6} {:>10} {:>10} {:>10} {:>17} {:>17}  {}",
        figure.load.streams,
        figure.load.requests,
        figure.errors.len(),
        rate(figure.prefill),
        rate(figure.decode),
        rate(Some(figure.overall())),
        spread(&figure.first_token),
        spread(&figure.between_tokens),
        if stages.is_empty() { "-".to_owned() } else { stages.join(", ") },
    )
}
