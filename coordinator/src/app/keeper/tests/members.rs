//! Who is meant by a name, what is done about it, and what those who watch are told.

use super::Bed;
use crate::admin::Ask;
use crate::admin::members::{Excluded, Lifted, MadeToken, MemberAsk, NotDone};
use crate::events::Happening;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use woolly_protocol::ids::WorkerId;
use woolly_protocol::token_store::TokenState;

fn id(worker: u64) -> String {
    WorkerId(worker).hex()
}

impl Bed {
    async fn asked<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> MemberAsk) -> T {
        let (reply, answer) = oneshot::channel();
        Arc::clone(&self.keeper).answer(Ask::Member(ask(reply))).await;
        answer.await.unwrap()
    }

    async fn remove(&self, worker: &str) -> Result<Excluded, NotDone> {
        let worker = worker.to_owned();
        self.asked(|reply| MemberAsk::Remove { worker, reply }).await
    }

    async fn ban(&self, worker: &str) -> Result<Excluded, NotDone> {
        let worker = worker.to_owned();
        self.asked(|reply| MemberAsk::Ban { worker, reply }).await
    }

    async fn allow(&self, who: &str) -> Result<Vec<Lifted>, NotDone> {
        let who = who.to_owned();
        self.asked(|reply| MemberAsk::Allow { who, reply }).await
    }

    fn is_refused(&self, worker: u64) -> bool {
        self.keeper.gate.exclusions.refusal(WorkerId(worker)).is_some()
    }
}

#[tokio::test]
async fn a_name_that_several_have_is_an_error_with_their_ids() {
    let mut bed = Bed::new();
    for error in [bed.remove("twin").await.unwrap_err(), bed.ban("twin").await.unwrap_err()] {
        assert!(matches!(error, NotDone::Conflict(_)), "{error}");
        let text = error.to_string();
        assert!(text.contains(&format!("{} (serving)", id(2))), "{text}");
        assert!(text.contains(&format!("{} (spare)", id(3))), "{text}");
    }
    let removed = bed.remove(&id(3)).await.unwrap();
    assert_eq!((removed.workers.len(), removed.workers[0].worker.as_str()), (1, "twin"));
    assert!(bed.is_refused(3) && !bed.is_refused(2));
    let told = bed.heard(|it| matches!(it, Happening::WorkerRemoved { .. })).await;
    assert_eq!(told, Happening::WorkerRemoved { worker: "twin".to_owned(), worker_id: id(3) });
    // One of them is left; and a second time is no mistake.
    bed.remove("twin").await.unwrap();
    assert!(bed.is_refused(2));
    let again = bed.remove(&id(2)).await.unwrap();
    assert!(again.message.contains("was removed before"), "{}", again.message);
}

#[tokio::test]
async fn who_is_lost_or_was_here_before_can_be_removed_and_an_id_needs_no_name() {
    let bed = Bed::new();
    bed.remove("gone").await.unwrap();
    bed.remove("older").await.unwrap();
    bed.remove(&id(77)).await.unwrap();
    assert!(bed.is_refused(4) && bed.is_refused(5) && bed.is_refused(77));
    for (text, asked) in [("nobody", bed.remove("nobody").await), ("77", bed.ban(&id(78)).await)] {
        let error = asked.unwrap_err();
        assert!(matches!(error, NotDone::Unknown(_)), "{text}: {error}");
    }
    let snapshot = bed.keeper.snapshot().await.unwrap();
    let ids: Vec<_> = snapshot.removed.iter().map(|removed| removed.worker_id.clone()).collect();
    assert_eq!(ids, [id(77), id(5), id(4)]);
}

#[tokio::test]
async fn a_ban_names_all_whom_it_meets_and_allow_lifts_it() {
    let mut bed = Bed::new();
    let banned = bed.ban("gone").await.unwrap();
    let names: Vec<_> = banned.workers.iter().map(|it| it.worker.as_str()).collect();
    assert_eq!(names, ["gone", "older"], "they were on one machine");
    let machine = banned.machine.clone().unwrap();
    assert_eq!(machine, "04".repeat(16));
    let told = bed.heard(|it| matches!(it, Happening::WorkerBanned { .. })).await;
    let Happening::WorkerBanned { worker, machine: told, .. } = told else { panic!() };
    assert_eq!((worker.as_str(), told), ("gone", Some(machine.clone())));
    let bans = bed.keeper.snapshot().await.unwrap().bans;
    assert_eq!((bans.len(), bans[0].machine.clone()), (1, Some(machine.clone())));
    assert!(matches!(bed.allow("older").await, Err(NotDone::Unknown(_))));
    let lifted = bed.allow(&machine).await.unwrap();
    assert_eq!(lifted, [Lifted { name: "gone".to_owned(), machine: Some(machine) }]);
    assert!(!bed.is_refused(4) && bed.keeper.snapshot().await.unwrap().bans.is_empty());
}

#[tokio::test]
async fn the_servers_own_workers_and_machine_are_spared() {
    let bed = Bed::new();
    for asked in [bed.remove("local-1").await, bed.ban("local-1").await] {
        let error = asked.unwrap_err();
        assert!(matches!(error, NotDone::Conflict(_)), "{error}");
        assert!(error.to_string().contains("--local-workers"), "{error}");
    }
    let banned = bed.ban("own").await.unwrap();
    assert_eq!((banned.machine, banned.workers.len()), (None, 1));
    assert!(
        banned.message.contains("no machine: it runs on the server's own"),
        "{}",
        banned.message
    );
}

#[tokio::test]
async fn a_token_is_made_with_the_line_that_joins() {
    let bed = Bed::new();
    let ttl = Duration::from_secs(60);
    let made = bed.asked(|reply| MemberAsk::Token { ttl, uses: Some(2), reply }).await;
    let MadeToken { id, token, join, .. } = made.unwrap();
    let line = format!("woolly-worker join 10.0.0.1:7400 --token {}", token.reveal());
    assert_eq!(join.reveal(), line);
    let kept = bed.keeper.gate.tokens.list().unwrap();
    assert_eq!((kept.len(), kept[0].id.to_string(), kept[0].uses_left), (1, id, Some(2)));
    assert_eq!(kept[0].state(std::time::SystemTime::now()), TokenState::Usable);
}
