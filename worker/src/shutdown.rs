//! How the worker is told to end: signals, and the end of stdin for a coordinator's child.

use crate::config::TOKEN_BYTES_MAX;
use std::io::{self, BufRead, Read};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};

/// Exit status after a second signal.
const EXIT_SECOND_SIGNAL: i32 = 130;

/// What the process has been told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Go on.
    Run,
    /// Leave politely: tell the coordinator, give the stage back, end.
    Drain(&'static str),
    /// End at once: whoever started this process is gone.
    Stop,
}

/// Tells when to end. Clones see the same.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<Order>);

/// Tells all clones of a [`Shutdown`].
#[derive(Clone, Debug)]
pub struct Teller(watch::Sender<Order>);

impl Teller {
    /// Gives the order; a later one replaces an earlier one.
    pub fn tell(&self, order: Order) {
        self.0.send_replace(order);
    }
}

impl Shutdown {
    /// A pair that says to go on.
    pub fn new() -> (Teller, Shutdown) {
        let (sender, receiver) = watch::channel(Order::Run);
        (Teller(sender), Shutdown(receiver))
    }

    /// The present order.
    pub fn order(&self) -> Order {
        *self.0.borrow()
    }

    /// Waits until there is another order than to go on.
    pub async fn ordered(&mut self) -> Order {
        match self.0.wait_for(|order| *order != Order::Run).await {
            Ok(order) => *order,
            // The teller lives as long as the process.
            Err(_) => Order::Stop,
        }
    }

    /// Waits until the order is to end at once.
    pub async fn stopped(&mut self) {
        // An error means that the teller is gone, which is as good as the order.
        let _ = self.0.wait_for(|order| *order == Order::Stop).await;
    }
}

/// Listens for SIGINT and SIGTERM: the first one drains, the second one ends the process.
///
/// # Errors
///
/// If the system gives no handler.
pub fn listen_for_signals(teller: Teller) -> io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        let mut seen = false;
        loop {
            let reason = tokio::select! {
                _ = interrupt.recv() => "interrupted (SIGINT)",
                _ = terminate.recv() => "told to end (SIGTERM)",
            };
            if seen {
                std::process::exit(EXIT_SECOND_SIGNAL);
            }
            seen = true;
            tracing::info!("{reason}; leaving the cluster (once more ends at once)");
            teller.tell(Order::Drain(reason));
        }
    });
    Ok(())
}

/// Reads the first line of stdin, at most [`TOKEN_BYTES_MAX`] bytes. A `child` then goes on reading
/// and orders the end when stdin ends, which it does when the parent is gone, however it went.
///
/// # Errors
///
/// If stdin cannot be read or the line is no text.
pub async fn line_from_stdin(child: bool, teller: Teller) -> io::Result<String> {
    let (tell_line, line) = oneshot::channel();
    // Reading stdin cannot be cancelled, so it has a thread that nobody waits for.
    std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let mut stdin = io::stdin().lock();
        let mut line = String::new();
        let read = (&mut stdin).take(TOKEN_BYTES_MAX).read_line(&mut line);
        let _ = tell_line.send(read.map(|_| line.trim().to_owned()));
        if child {
            // What comes after the token is ignored; an error is as final as the end.
            let _ = io::copy(&mut stdin, &mut io::sink());
            teller.tell(Order::Stop);
        }
    })?;
    line.await.unwrap_or_else(|_| Err(io::Error::other("stdin was not read")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn orders_reach_every_clone() {
        let (teller, mut shutdown) = Shutdown::new();
        assert_eq!(shutdown.order(), Order::Run);
        let mut other = shutdown.clone();
        teller.tell(Order::Drain("asked"));
        assert_eq!(shutdown.ordered().await, Order::Drain("asked"));
        assert_eq!(other.ordered().await, Order::Drain("asked"));
        teller.tell(Order::Stop);
        other.stopped().await;
        assert_eq!(shutdown.order(), Order::Stop);
    }
}
