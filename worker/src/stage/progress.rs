//! Shows how far a load is: a bar on a terminal, a line now and then elsewhere.

use crate::counters::Counters;
use crate::units::show_size;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// How often the bar moves.
const BAR_PERIOD: Duration = Duration::from_millis(100);
/// How often a line is logged where there is no terminal. Loads that are shorter log none.
const LINE_PERIOD: Duration = Duration::from_secs(5);

/// Shows the load in `counters` until it is dropped.
#[derive(Debug)]
pub struct Watch {
    task: JoinHandle<()>,
    bar: ProgressBar,
}

/// Begins to show the load of `what`.
pub fn watch(what: String, counters: &Arc<Counters>) -> Watch {
    let counters = Arc::clone(counters);
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    if !std::io::stderr().is_terminal() {
        return Watch { task: tokio::spawn(log_lines(what, counters)), bar };
    }
    let style = "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}";
    // A bar without its style would do, too; the template is a constant.
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar.set_draw_target(ProgressDrawTarget::stderr());
    bar.set_message(what);
    Watch { task: tokio::spawn(move_bar(bar.clone(), counters)), bar }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
        self.bar.finish_and_clear();
    }
}

async fn move_bar(bar: ProgressBar, counters: Arc<Counters>) {
    loop {
        let (done, total) = counters.load();
        if total > 0 {
            bar.set_length(total);
            bar.set_position(done);
        }
        tokio::time::sleep(BAR_PERIOD).await;
    }
}

async fn log_lines(what: String, counters: Arc<Counters>) {
    loop {
        tokio::time::sleep(LINE_PERIOD).await;
        let (done, total) = counters.load();
        if total > 0 {
            tracing::info!("{what}: {} of {}", show_size(done), show_size(total));
        }
    }
}
