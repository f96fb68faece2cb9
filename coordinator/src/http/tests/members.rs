//! `POST /admin/v1/remove | ban | allow | tokens` against a scripted keeper.

use super::admin::{Bed, post};
use super::support::{error_of, read_json};
use crate::admin::Progress;
use crate::admin::members::{Excluded, Lifted, MadeToken, MemberAsk, Named, NotDone};
use serde_json::{Value, json};
use woolly_protocol::hidden::Hidden;

/// What the keeper that is played answers: by the worker that is named.
pub fn answer(ask: MemberAsk) {
    let excluded = |worker: String, machine: Option<&str>| match worker.as_str() {
        "twin" => Err(NotDone::Conflict("2 workers are called 'twin'".to_owned())),
        "nobody" => Err(NotDone::Unknown("no worker is called 'nobody'".to_owned())),
        "disk" => Err(NotDone::Failed("no space left".to_owned())),
        _ => Ok(Excluded {
            workers: vec![Named { worker, worker_id: "0a".to_owned() }],
            machine: machine.map(str::to_owned),
            message: "It is out.".to_owned(),
        }),
    };
    match ask {
        MemberAsk::Remove { worker, reply } => drop(reply.send(excluded(worker, None))),
        MemberAsk::Ban { worker, reply } => drop(reply.send(excluded(worker, Some("04")))),
        MemberAsk::Allow { who, reply } => {
            let lifted = Lifted { name: who, machine: Some("04".to_owned()) };
            let _ = reply.send(Ok(vec![lifted]));
        }
        MemberAsk::Token { ttl, uses, reply } => {
            let token = MadeToken {
                id: "id1".to_owned(),
                token: Hidden::from("secret"),
                join: Hidden::from("woolly-worker join h:1 --token secret"),
                ttl,
                uses,
            };
            let _ = reply.send(Ok(token));
        }
    }
}

fn bed() -> Bed {
    Bed::new(None, false, Ok(Progress::Ready))
}

async fn asked(path: &str, body: Value) -> Value {
    let response = bed().local(post(path, &body)).await;
    assert_eq!(response.status(), 200, "{path}");
    read_json(response).await
}

#[tokio::test]
async fn workers_are_removed_banned_and_allowed() {
    let workers = json!([{"worker": "w", "worker_id": "0a"}]);
    let removed = asked("/admin/v1/remove", json!({"worker": "w"})).await;
    let expected =
        json!({"success": true, "message": "It is out.", "workers": workers, "machine": null});
    assert_eq!(removed, expected);
    let banned = asked("/admin/v1/ban", json!({"worker": "w"})).await;
    assert_eq!((&banned["workers"], &banned["machine"]), (&workers, &json!("04")));
    let allowed = asked("/admin/v1/allow", json!({"who": "w"})).await;
    assert_eq!(allowed["bans"], json!([{"name": "w", "machine": "04"}]));
    assert_eq!(allowed["message"], "No longer banned: w and machine 04.");
}

#[tokio::test]
async fn a_token_is_answered_with_the_join_line() {
    let made = asked("/admin/v1/tokens", json!({"ttl_s": 60, "uses": 2})).await;
    let join = "woolly-worker join h:1 --token secret";
    let expected = json!({"id": "id1", "token": "secret", "join": join, "ttl_s": 60, "uses": 2});
    assert_eq!(made, expected);
    let made = asked("/admin/v1/tokens", json!({})).await;
    assert_eq!((&made["ttl_s"], &made["uses"]), (&json!(86_400), &json!(null)));
}

#[tokio::test]
async fn what_is_wrong_is_named_and_what_cannot_be_done_says_why() {
    for (path, body, param) in [
        ("/admin/v1/remove", json!({}), "worker"),
        ("/admin/v1/remove", json!({"worker": ""}), "worker"),
        ("/admin/v1/ban", json!({"worker": 7}), "worker"),
        ("/admin/v1/ban", json!({"worker": "w", "why": "x"}), "why"),
        ("/admin/v1/allow", json!({"name": "w"}), "who"),
        ("/admin/v1/tokens", json!({"ttl_s": 0}), "ttl_s"),
        ("/admin/v1/tokens", json!({"uses": 0}), "uses"),
    ] {
        let (status, error) = error_of(bed().local(post(path, &body)).await).await;
        assert_eq!((status, &error["param"]), (400, &json!(param)), "{path} {body}: {error}");
    }
    for (worker, status, code) in
        [("twin", 409, "conflict"), ("nobody", 404, "worker_not_found"), ("disk", 500, "internal")]
    {
        for path in ["/admin/v1/remove", "/admin/v1/ban"] {
            let response = bed().local(post(path, &json!({"worker": worker}))).await;
            let (found, error) = error_of(response).await;
            assert_eq!((found, &error["code"]), (status, &json!(code)), "{path} {worker}");
        }
    }
}
