//! The tasks that `serve` consists of, and the order in which they end.

use crate::exit::Fatal;
use crate::shutdown::{Shutdown, ShutdownTrigger, shutdown};
use crate::status::Work;
use anyhow::anyhow;
use std::future::Future;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::timeout;

/// How long the links and the driver may take to end.
const END_TIME: Duration = Duration::from_secs(3);
/// How long local workers may take to end: they are killed before.
const CHILDREN_TIME: Duration = Duration::from_secs(10);
/// How long the gateway may take to end once its generations have.
const HTTP_TIME: Duration = Duration::from_secs(5);

/// How long everything may take to end once no generation runs.
pub const ALL_TIME: Duration =
    Duration::from_secs(HTTP_TIME.as_secs() + CHILDREN_TIME.as_secs() + 3 * END_TIME.as_secs());

/// A task that runs until it is asked to end; ending before is a failure.
#[derive(Debug)]
pub struct Task {
    name: &'static str,
    handle: JoinHandle<Result<(), Fatal>>,
    stop: ShutdownTrigger,
}

impl Task {
    /// Starts a task; it is given what tells it to end.
    pub fn spawn<F>(name: &'static str, start: impl FnOnce(Shutdown) -> F) -> Task
    where
        F: Future<Output = Result<(), Fatal>> + Send + 'static,
    {
        let (stop, stopped) = shutdown();
        Task { name, handle: tokio::spawn(start(stopped)), stop }
    }

    /// Waits for the task to end although nobody has asked it to.
    async fn failed(&mut self) -> Fatal {
        match (&mut self.handle).await {
            Ok(Err(fatal)) => fatal,
            Ok(Ok(())) => Fatal::Runtime(anyhow!("{} ended by itself", self.name)),
            Err(error) => self.crashed(&error),
        }
    }

    fn crashed(&self, error: &JoinError) -> Fatal {
        Fatal::Runtime(anyhow!("{} failed: {error}", self.name))
    }

    /// Asks the task to end and waits for it, not longer than `time`.
    async fn end(&mut self, time: Duration) {
        self.stop.ask();
        if self.handle.is_finished() {
            return;
        }
        match timeout(time, &mut self.handle).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(fatal))) => tracing::warn!("{} ended badly: {}", self.name, fatal.line()),
            Ok(Err(error)) => tracing::warn!("{}", self.crashed(&error).line()),
            Err(_) => {
                tracing::warn!("{} did not end within {} s", self.name, time.as_secs());
                self.handle.abort();
            }
        }
    }
}

/// All tasks of a running server.
#[derive(Debug)]
pub struct Tasks {
    /// Answers clients.
    pub http: Task,
    /// Loads and unloads models.
    pub keeper: Task,
    /// Keeps the local workers running.
    pub local: Task,
    /// Accepts workers and keeps their links.
    pub listener: Task,
    /// Decides and acts.
    pub driver: Task,
}

/// When and how a server ends.
#[derive(Debug)]
pub struct Ending {
    /// Someone asks for it: the driver takes no new generations from now on.
    pub asked: Shutdown,
    /// How long running generations may go on after that.
    pub patience: Duration,
    /// Tells the driver that their time is over.
    pub expire: ShutdownTrigger,
    /// What the driver says of them.
    pub work: watch::Receiver<Work>,
}

impl Tasks {
    /// Runs until the end is asked for and reached.
    ///
    /// # Errors
    ///
    /// The failure of a task, which ends the others too.
    pub async fn run(mut self, mut ending: Ending) -> Result<(), Fatal> {
        let result = tokio::select! {
            fatal = self.any_failed() => Err(fatal),
            () = ending.wait() => Ok(()),
        };
        ending.expire.ask();
        // In this order nobody loses what it still needs: clients their answers, local workers a
        // coordinator to say goodbye to, links a driver that hears of them.
        self.http.end(HTTP_TIME).await;
        self.keeper.end(END_TIME).await;
        self.local.end(CHILDREN_TIME).await;
        self.listener.end(END_TIME).await;
        self.driver.end(END_TIME).await;
        result
    }

    async fn any_failed(&mut self) -> Fatal {
        tokio::select! {
            fatal = self.http.failed() => fatal,
            fatal = self.keeper.failed() => fatal,
            fatal = self.local.failed() => fatal,
            fatal = self.listener.failed() => fatal,
            fatal = self.driver.failed() => fatal,
        }
    }
}

impl Ending {
    /// Waits for the signal, and then until no generation runs or patience is over.
    async fn wait(&mut self) {
        self.asked.asked().await;
        let idle = |work: &Work| work.stopping && work.generations == 0;
        if timeout(self.patience, self.work.wait_for(idle)).await.is_err() {
            tracing::warn!(
                "{} generations did not finish within {} s",
                self.work.borrow().generations,
                self.patience.as_secs()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    type Log = Arc<Mutex<Vec<&'static str>>>;

    /// A task that writes its name when it ends.
    fn task(name: &'static str, log: &Log) -> Task {
        let log = Arc::clone(log);
        Task::spawn(name, |mut stopped| async move {
            stopped.asked().await;
            log.lock().unwrap().push(name);
            Ok(())
        })
    }

    fn tasks(log: &Log) -> Tasks {
        Tasks {
            http: task("http", log),
            keeper: task("keeper", log),
            local: task("local", log),
            listener: task("listener", log),
            driver: task("driver", log),
        }
    }

    fn ending(work: Work) -> (ShutdownTrigger, Shutdown, watch::Sender<Work>, Ending) {
        let ((ask, asked), (expire, expired)) = (shutdown(), shutdown());
        let (sender, work) = watch::channel(work);
        let patience = Duration::from_millis(300);
        (ask, expired, sender, Ending { asked, patience, expire, work })
    }

    #[tokio::test]
    async fn the_end_waits_for_generations_and_goes_in_order() {
        let log = Log::default();
        let (ask, expired, work, ending) = ending(Work { stopping: false, generations: 1 });
        let running = tokio::spawn(tasks(&log).run(ending));
        ask.ask();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!running.is_finished() && !expired.is_asked() && log.lock().unwrap().is_empty());
        work.send_replace(Work { stopping: true, generations: 0 });
        running.await.unwrap().unwrap();
        assert_eq!(*log.lock().unwrap(), ["http", "keeper", "local", "listener", "driver"]);
    }

    #[tokio::test]
    async fn patience_has_an_end() {
        let log = Log::default();
        let (ask, mut expired, _work, ending) = ending(Work { stopping: true, generations: 1 });
        let running = tokio::spawn(tasks(&log).run(ending));
        ask.ask();
        expired.asked().await;
        running.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_task_that_fails_ends_all() {
        let log = Log::default();
        let (_ask, _expired, _work, ending) = ending(Work::default());
        let local = Task::spawn("local", |_| async { Err(Fatal::usage("no such flag")) });
        // The task that it takes the place of is let go of, and ends.
        let tasks = Tasks { local, ..tasks(&Log::default()) };
        let tasks = Tasks { http: task("http", &log), driver: task("driver", &log), ..tasks };
        let error = tasks.run(ending).await.unwrap_err();
        assert_eq!(error.code(), 2);
        assert_eq!(*log.lock().unwrap(), ["http", "driver"]);
    }
}
