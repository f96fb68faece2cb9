//! How far a download is: a bar on a terminal, else a line now and then.

use crate::units::{show_duration, show_size};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often a line is said.
const LINE_PERIOD: Duration = Duration::from_secs(10);

/// Says lines to people.
pub type Say = Box<dyn Fn(&str) + Send + Sync>;

/// Shows what is going on. Its methods may be called by all connections.
pub struct Progress {
    say: Say,
    bar: Option<ProgressBar>,
    state: Mutex<State>,
}

struct State {
    name: String,
    total: u64,
    /// Bytes that were there when it began.
    there: u64,
    began: Instant,
    said: Instant,
}

impl Progress {
    /// A bar if stderr is a terminal and `bar` allows it, else lines.
    pub fn new(bar: bool, say: Say) -> Progress {
        let bar = (bar && std::io::stderr().is_terminal())
            .then(|| ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()));
        let now = Instant::now();
        let state = State { name: String::new(), total: 0, there: 0, began: now, said: now };
        Progress { say, bar, state: Mutex::new(state) }
    }

    /// Something that people should know.
    pub fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| (self.say)(line)),
            None => (self.say)(line),
        }
    }

    /// A file of `total` bytes begins, of which `there` are there; `action` is what is done with it.
    pub fn begin(&self, action: &str, name: &str, total: u64, there: u64) {
        let now = Instant::now();
        let shown = name.rsplit('/').next().unwrap_or(name).to_owned();
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) =
            State { name: format!("{action} {shown}"), total, there, began: now, said: now };
        if let Some(bar) = &self.bar {
            let style = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
            // A bar without its style would do, too; the template is a constant.
            if let Ok(style) = ProgressStyle::with_template(style) {
                bar.set_style(style);
            }
            bar.reset();
            bar.set_length(total);
            bar.set_position(there);
            bar.reset_eta();
            bar.set_message(format!("{action} {shown}"));
        }
    }

    /// So many bytes are there.
    pub fn at(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(bytes);
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if now.duration_since(state.said) >= LINE_PERIOD {
            state.said = now;
            let line = line(&state, bytes, now.duration_since(state.began));
            drop(state);
            (self.say)(&line);
        }
    }

    /// A request failed and is tried again.
    pub fn trouble(&self, what: &str) {
        tracing::debug!("{what}");
        match &self.bar {
            Some(bar) => bar.set_message(format!("trying again: {what}")),
            None => self.say_seldom(what),
        }
    }

    /// It is done, or has failed.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// Not more often than lines of progress: connections fail together.
    fn say_seldom(&self, what: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if now.duration_since(state.said) >= LINE_PERIOD {
            state.said = now;
            drop(state);
            (self.say)(&format!("trying again: {what}"));
        }
    }
}

fn line(state: &State, bytes: u64, since: Duration) -> String {
    let State { name, total, there, .. } = state;
    let came = bytes.saturating_sub(*there);
    let rate = came as f64 / since.as_secs_f64().max(0.001);
    let left = total.saturating_sub(bytes) as f64 / rate.max(1.0);
    // Both are far below 2^63 in every life of a machine; a cast saturates.
    format!(
        "{name}: {} of {}, {}/s, {} left",
        show_size(bytes),
        show_size(*total),
        show_size(rate as u64),
        show_duration(left as u64)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_much_how_fast_and_how_long() {
        let now = Instant::now();
        let state =
            State { name: "m".into(), total: 4 << 30, there: 1 << 30, began: now, said: now };
        let said = line(&state, 2 << 30, Duration::from_secs(64));
        assert_eq!(said, "m: 2 GiB of 4 GiB, 16 MiB/s, 2m 8s left");
    }
}
