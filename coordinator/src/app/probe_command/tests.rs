//! A server's life as probes see it, over a real socket and with states that are set.

use super::*;
use crate::http::serve;
use crate::http::server::local_socket::LocalSocket;
use crate::http::tests::support::{Rig, ready_status};
use crate::status::Status;
use std::sync::Arc;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::oneshot;

const PATIENCE: Duration = Duration::from_secs(20);

/// What a probe says now: state, live, ready.
async fn told(state: &StateDir) -> (&'static str, bool, bool) {
    let Standing { state, live, ready, .. } = standing(state, PATIENCE).await;
    (state, live, ready)
}

/// A folder whose path is short enough for a socket.
fn folder() -> (tempfile::TempDir, StateDir) {
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::open(folder.path().to_owned()).unwrap();
    (folder, state)
}

#[tokio::test]
async fn a_servers_life_as_probes_see_it() {
    let (_folder, state) = folder();
    assert_eq!(told(&state).await, ("ended", false, false));
    let lock = state.lock().unwrap();
    assert_eq!(told(&state).await, ("starting", true, false));

    let rig = Rig::saying("x");
    rig.status.send_replace(Status { detail: "waiting for 2 workers".into(), ..Status::default() });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let socket = LocalSocket::bind(&state.admin_socket()).unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let gateway = Arc::clone(&rig.gateway);
    let serving = tokio::spawn(serve(vec![listener], Some(socket), gateway, async {
        let _ = stopped.await;
    }));
    assert_eq!(told(&state).await, ("loading", true, false));
    assert_eq!(standing(&state, PATIENCE).await.to_string(), "loading: waiting for 2 workers");
    rig.status.send_replace(ready_status());
    assert_eq!(told(&state).await, ("serving", true, true));
    assert_eq!(standing(&state, PATIENCE).await.to_string(), "serving: serving tiny");
    rig.status.send_modify(|status| status.stopping = true);
    assert_eq!(told(&state).await, ("stopping", true, false));
    rig.unload();
    assert_eq!(told(&state).await, ("empty", true, false));

    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
    assert_eq!(told(&state).await, ("starting", true, false));
    drop(lock);
    assert_eq!(told(&state).await, ("ended", false, false));
}

#[tokio::test]
async fn one_that_does_not_answer_in_time_does_not_live() {
    let (_folder, state) = folder();
    let _lock = state.lock().unwrap();
    let _silent = UnixListener::bind(state.admin_socket()).unwrap();
    let standing = standing(&state, Duration::from_millis(100)).await;
    assert_eq!((standing.state, standing.live, standing.ready), ("silent", false, false));
}

#[tokio::test]
async fn a_socket_that_a_killed_server_left_is_nobody() {
    let (_folder, state) = folder();
    drop(UnixListener::bind(state.admin_socket()).unwrap());
    assert!(state.admin_socket().exists());
    assert_eq!(told(&state).await, ("ended", false, false));
}

#[test]
fn looking_neither_makes_a_folder_nor_keeps_a_server_from_starting() {
    let (folder, state) = folder();
    let nowhere = StateDir::at(folder.path().join("nowhere"));
    assert!(!nowhere.is_taken() && !nowhere.root().exists());
    drop(state.lock().unwrap());
    let looking = std::thread::spawn({
        let state = state.clone();
        move || (0..2000).filter(|_| state.is_taken()).count()
    });
    for _ in 0..50 {
        drop(state.lock().unwrap());
    }
    looking.join().unwrap();
}

#[test]
fn a_line_is_one_line() {
    let detail = format!("a\nb{}", "x".repeat(1000));
    let standing = Standing { state: "loading", live: true, ready: false, detail };
    let line = standing.to_string();
    assert!(line.starts_with("loading: a b") && line.len() < 600, "{line}");
}
