//! A worker's life as probes see it, over a real socket and with states that are set.

use super::*;
use crate::app::probe::{answer, listen};
use crate::counters::Counters;
use crate::shutdown::{Order, Shutdown};
use crate::standing::Standing;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use tokio::net::UnixListener;
use woolly_protocol::control::{KvType, PlanLinks, StageSpec};
use woolly_protocol::ids::PlanEpoch;

const PATIENCE: Duration = Duration::from_secs(20);

fn spec() -> StageSpec {
    StageSpec {
        fingerprint: [0; 32],
        layer_first: 0,
        layer_end: 17,
        ctx_size: 64,
        caches: Vec::new(),
        rows_max: 8,
        kv_type: KvType::F16,
        hidden: 8,
        from_disk: false,
    }
}

fn links(epoch: u32) -> PlanLinks {
    PlanLinks {
        epoch: PlanEpoch(epoch),
        stage: 0,
        stage_count: 2,
        in_flight_max: 1,
        next: None,
        previous: None,
        replaces: None,
    }
}

/// What the socket says now: state, live, ready.
async fn told(dir: &Path) -> (String, bool, bool) {
    let Told { live, ready, state, .. } = ask(dir, PATIENCE).await;
    (state, live, ready)
}

fn says(state: &str, live: bool, ready: bool) -> (String, bool, bool) {
    (state.to_owned(), live, ready)
}

#[tokio::test]
async fn a_workers_life_as_probes_see_it() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    assert_eq!(told(dir).await, says("ended", false, false));

    let (standing, counters) = (Arc::new(Standing::default()), Arc::new(Counters::default()));
    let (teller, shutdown) = Shutdown::new();
    let socket = listen(dir);
    let answering =
        tokio::spawn(answer(socket, Arc::clone(&standing), Arc::clone(&counters), shutdown));
    assert_eq!(told(dir).await, says("joining", true, false));
    standing.parted("nobody answers at 10.0.0.1:7400");
    assert_eq!(ask(dir, PATIENCE).await.detail, "nobody answers at 10.0.0.1:7400");
    standing.joined();
    assert_eq!(told(dir).await, says("spare", true, true));
    standing.assigned(&spec(), &links(1));
    counters.begin_load(4 << 20);
    counters.loaded.fetch_add(1 << 20, Relaxed);
    assert_eq!(told(dir).await, says("loading", true, false));
    let detail = ask(dir, PATIENCE).await.detail;
    assert_eq!(detail, "stage 1 of 2, layers 0 to 16, 1 MiB of 4 MiB");
    counters.end_load();
    standing.loaded(PlanEpoch(1));
    assert_eq!(told(dir).await, says("serving", true, true));
    // A plan that is to take over takes nothing away.
    standing.assigned(&spec(), &links(2));
    assert_eq!(told(dir).await, says("serving", true, true));
    standing.over(PlanEpoch(1));
    assert_eq!(told(dir).await, says("loading", true, false));
    standing.over(PlanEpoch(2));
    assert_eq!(told(dir).await, says("spare", true, true));
    standing.parted("the coordinator is gone");
    assert_eq!(told(dir).await, says("joining", true, false));
    standing.joined();
    teller.tell(Order::Drain("told to"));
    assert_eq!(told(dir).await, says("leaving", true, false));

    answering.abort();
    assert!(answering.await.unwrap_err().is_cancelled());
    assert_eq!(told(dir).await, says("ended", false, false));
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), 0, "the socket's file is left");
}

#[tokio::test]
async fn one_that_does_not_answer_in_time_does_not_live() {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(socket_path(folder.path())).unwrap();
    let silent = ask(folder.path(), Duration::from_millis(100)).await;
    assert_eq!((silent.live, silent.state.as_str()), (false, "silent"));
    drop(listener);
    // The file that a killed process leaves.
    assert!(socket_path(folder.path()).exists());
    assert_eq!(told(folder.path()).await, says("ended", false, false));
}

#[tokio::test]
async fn those_who_connect_and_read_nothing_keep_nobody_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let (_teller, shutdown) = Shutdown::new();
    let standing = Arc::new(Standing::default());
    standing.parted("x".repeat(100_000));
    tokio::spawn(answer(listen(folder.path()), standing, Arc::default(), shutdown));
    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.push(UnixStream::connect(socket_path(folder.path())).await.unwrap());
    }
    let told = ask(folder.path(), PATIENCE).await;
    assert_eq!((told.state.as_str(), told.detail.len()), ("joining", 500));
}

#[test]
fn the_line_and_the_exit_status_say_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let args = ProbeArgs {
        what: ProbeKind::Live,
        timeout: PATIENCE,
        state_dir: Some(folder.path().join("nowhere")),
    };
    let mut line = Vec::new();
    assert_eq!(run(&args, &Folders::default(), &mut line), Ok(false));
    let line = String::from_utf8(line).unwrap();
    assert!(line.starts_with("ended: no worker runs") && line.lines().count() == 1, "{line}");
    assert!(!folder.path().join("nowhere").exists(), "looking has made a folder");
}
