//! Workers that were removed or banned, and workers whose clock is wrong.

use super::*;
use crate::trust::exclusions::Known;
use woolly_protocol::join::Removed;
use woolly_protocol::refusal::Refusal as Wire;

/// The server's own machine.
const OWN: [u8; 16] = [9; 16];

impl Rig {
    /// The list was changed.
    async fn tell(&self) {
        let (reply, done) = oneshot::channel();
        self.lanes.send(LaneCommand::ExclusionsChanged(reply)).await.unwrap();
        done.await.unwrap();
    }

    /// Says this hello with a certificate; what it is refused with, or the connection after its welcome.
    async fn knock(&self, identity: &Identity, hello: &Hello) -> Result<quinn::Connection, Wire> {
        let connection = self.cluster.dial(identity).await;
        let (mut send, recv) = greet(&connection, &self.cluster.preamble).await.unwrap();
        write_frame(&mut send, EncodedFrame::new(hello).unwrap()).await.unwrap();
        let mut reader = FrameReader::new(recv);
        match timeout(PATIENCE, reader.read(&[Kind::Welcome])).await.unwrap() {
            Ok(Some(_)) => {
                // Their end would be the end of the link.
                std::mem::forget((send, reader));
                Ok(connection)
            }
            _ => Err(closed(&connection).await),
        }
    }

    /// Waits until who joined can be named.
    async fn known(&self, identity: &Identity) -> Known {
        let id = identity.worker().unwrap().hex();
        for _ in 0..1000 {
            if let Some(known) = self.cluster.exclusions.find(&id).pop() {
                return known;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("worker {id} is not known");
    }
}

async fn closed(connection: &quinn::Connection) -> Wire {
    let closed = timeout(PATIENCE, connection.closed()).await.expect("it is still open");
    Wire::from_connection(&closed).expect("closed with a refusal")
}

#[tokio::test]
async fn a_removed_worker_is_turned_away_and_its_plan_fails_over() {
    let mut rig = Rig::start(2);
    rig.know_fingerprint().await;
    let (first, second) = (rig.cluster.identity(), rig.cluster.identity());
    let mut stays = Player::join(&rig.cluster, &first).await;
    let mut goes = Player::join(&rig.cluster, &second).await;
    stays.load().await;
    goes.load().await;
    rig.wait_for("all stages are ready", |status| status.ready).await;
    let id = second.worker().unwrap();
    rig.cluster.exclusions.remove(id, "w", 1).unwrap();
    rig.tell().await;
    let refusal = closed(&goes.connection).await;
    assert_eq!(refusal.code, RefusalCode::Removed);
    // The other one is told before it has a new plan, which has all layers.
    let told = stays.next(Kind::Removed).await.message::<Removed>().unwrap();
    assert_eq!(told.workers, [id]);
    stays.load().await;
    assert_eq!(stays.assign.as_ref().unwrap().links.stage_count, 1);
    rig.wait_for("it serves alone", |status| status.ready).await;
    let lost = rig.snapshot().await.workers.into_iter().find(|it| it.worker_id == id.hex());
    assert_eq!(lost.unwrap().reason.as_deref(), Some("it was removed"));
    // With that certificate it cannot come back; with a new one it can, and hears who is not here.
    let refusal = rig.knock(&second, &hello()).await.unwrap_err();
    assert_eq!(refusal.code, RefusalCode::Removed);
    let mut anew = Player::join(&rig.cluster, &rig.cluster.identity()).await;
    let told = anew.next(Kind::Removed).await.message::<Removed>().unwrap();
    assert_eq!(told.workers, [id]);
}

#[tokio::test]
async fn a_banned_machine_is_refused_after_a_reboot_and_with_a_new_certificate() {
    let rig = Rig::start(2);
    let identity = rig.cluster.identity();
    let before = rig.knock(&identity, &hello()).await.unwrap();
    let target = rig.known(&identity).await;
    rig.cluster.exclusions.ban(&target, OWN, 1).unwrap();
    rig.tell().await;
    assert_eq!(closed(&before).await.code, RefusalCode::Banned);
    // It was booted again, has another name and a certificate that nobody has seen.
    let rebooted = Hello { name: "other".to_owned(), machine: [7; 16], ..hello() };
    let refusal = rig.knock(&rig.cluster.identity(), &rebooted).await.unwrap_err();
    assert_eq!(refusal.code, RefusalCode::Banned);
    let renamed = Hello { host: [3; 16], ..hello() };
    let refusal = rig.knock(&rig.cluster.identity(), &renamed).await.unwrap_err();
    assert_eq!(refusal.code, RefusalCode::Banned, "its name is banned, too");
    let neither = Hello { host: [3; 16], ..rebooted.clone() };
    rig.knock(&rig.cluster.identity(), &neither).await.unwrap();
    rig.cluster.exclusions.allow("w").unwrap();
    rig.knock(&identity, &hello()).await.unwrap();
}

#[tokio::test]
async fn a_clock_that_is_more_than_five_minutes_off_is_shown_with_its_worker() {
    let rig = Rig::start(9);
    let at = |ahead_ms: i64| {
        let time_ms = rig.cluster.clock.unix_ms().checked_add_signed(ahead_ms).unwrap();
        Hello { time_ms, ..hello() }
    };
    for ahead_ms in [0, 250_000, -250_000, 400_000, -4_000_000] {
        rig.knock(&rig.cluster.identity(), &at(ahead_ms)).await.unwrap();
    }
    let off: Vec<Option<i64>> =
        rig.snapshot().await.workers.iter().map(|worker| worker.clock_ahead_ms).collect();
    assert_eq!(off[..3], [None; 3]);
    let about = |found: Option<i64>, wanted: i64| (found.unwrap() - wanted).abs() < 20_000;
    assert!(about(off[3], 400_000) && about(off[4], -4_000_000), "{off:?}");
    // It is our clock that is wrong.
    rig.cluster.clock.set_ahead_ms(3_600_000);
    let right = Hello { time_ms: woolly_protocol::clock::Clock::default().unix_ms(), ..hello() };
    rig.knock(&rig.cluster.identity(), &right).await.unwrap();
    let last = rig.snapshot().await.workers[5].clock_ahead_ms;
    assert!(about(last, -3_600_000), "{last:?}");
}
