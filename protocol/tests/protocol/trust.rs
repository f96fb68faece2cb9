//! The CA, what it signs, and what a worker keeps.

use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ED25519, SanType};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};
use woolly_protocol::ca::{CA_FILE, CA_KEY_FILE, ClusterCa};
use woolly_protocol::certificate::{Role, subject, worker_name};
use woolly_protocol::identity::{Identity, IdentityError, SigningRequest, WORKER_FILE};

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

fn now() -> SystemTime {
    SystemTime::now()
}

#[test]
fn the_ca_is_made_once_and_its_key_is_private() {
    let dir = tempfile::tempdir().unwrap();
    let first = ClusterCa::open(dir.path(), now()).unwrap();
    let again = ClusterCa::open(dir.path(), now()).unwrap();
    assert_eq!((first.cluster(), first.pin()), (again.cluster(), again.pin()));
    for file in [CA_FILE, CA_KEY_FILE] {
        let mode = fs::metadata(dir.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let other = tempfile::tempdir().unwrap();
    assert_ne!(ClusterCa::open(other.path(), now()).unwrap().pin(), first.pin());
}

#[test]
fn processes_that_start_at_once_share_one_ca() {
    let dir = tempfile::tempdir().unwrap();
    let pins = std::thread::scope(|scope| {
        let open = || ClusterCa::open(dir.path(), now()).unwrap().pin();
        [0; 4].map(|_| scope.spawn(open)).map(|thread| thread.join().unwrap())
    });
    assert!(pins.iter().all(|pin| *pin == pins[0]));
}

#[test]
fn a_broken_ca_is_refused_by_file() {
    let dir = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    ClusterCa::open(dir.path(), now()).unwrap();
    ClusterCa::open(other.path(), now()).unwrap();
    let refused = |file: &str| {
        let error = ClusterCa::open(dir.path(), now()).unwrap_err().to_string();
        assert!(error.contains(file), "{error}");
    };
    fs::copy(other.path().join(CA_KEY_FILE), dir.path().join(CA_KEY_FILE)).unwrap();
    refused(CA_KEY_FILE);
    fs::remove_file(dir.path().join(CA_KEY_FILE)).unwrap();
    refused(CA_KEY_FILE);
    fs::write(dir.path().join(CA_FILE), "junk").unwrap();
    refused(CA_FILE);
    let late = ClusterCa::open(other.path(), now() + 21 * YEAR).unwrap_err();
    assert!(matches!(late, IdentityError::NotValidNow { .. }), "{late}");
}

#[test]
fn a_signed_worker_is_saved_and_loaded() {
    let (dir, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ca = ClusterCa::open(dir.path(), now()).unwrap();
    assert!(Identity::load(home.path(), now()).unwrap().is_none());
    let request = SigningRequest::new().unwrap();
    let (worker, accepted) = ca.sign(request.der(), now()).unwrap();
    let identity = request.complete(&accepted, &ca.pin(), now()).unwrap();
    assert_eq!((identity.worker(), identity.cluster()), (Some(worker), ca.cluster()));
    identity.save(home.path()).unwrap();
    let mode = fs::metadata(home.path().join(WORKER_FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let loaded = Identity::load(home.path(), now()).unwrap().unwrap();
    assert_eq!((loaded.role(), loaded.ca_pin()), (Role::Worker(worker), ca.pin()));
    // A clock that is wrong is no reason to lose it; it counts for a join.
    let early = Identity::load(home.path(), now() - YEAR).unwrap().unwrap();
    assert!(early.validity().is_to_come(now() - YEAR));
    let error = request.complete(&accepted, &ca.pin(), now() - YEAR).unwrap_err();
    assert!(matches!(error, IdentityError::NotValidNow { .. }), "{error}");
    let text = error.to_string();
    assert!(text.matches(" UTC").count() == 3 && text.contains("set the clock"), "{text}");
    // It has expired by then: good for its renewal.
    let expired = Identity::load(home.path(), now() + 11 * YEAR).unwrap().unwrap();
    assert!(expired.validity().is_over(now() + 11 * YEAR) && !expired.validity().is_over(now()));
    let text = fs::read_to_string(home.path().join(WORKER_FILE)).unwrap();
    fs::write(home.path().join(WORKER_FILE), &text[..text.len() / 2]).unwrap();
    let error = Identity::load(home.path(), now()).unwrap_err();
    assert!(matches!(error, IdentityError::Invalid { .. }), "{error}");
}

#[test]
fn an_answer_of_someone_else_is_refused() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ca = ClusterCa::open(dir.path(), now()).unwrap();
    let stranger = ClusterCa::open(other.path(), now()).unwrap();
    let request = SigningRequest::new().unwrap();
    let (_, good) = ca.sign(request.der(), now()).unwrap();
    let (_, theirs) = stranger.sign(request.der(), now()).unwrap();
    let refused = |answer, why| {
        let error = request.complete(&answer, &ca.pin(), now()).expect_err(why);
        assert!(matches!(error, IdentityError::Answer(_)), "{why}: {error}");
    };
    refused(theirs.clone(), "another CA than the token's");
    let mut mixed = good.clone();
    mixed.certificate = theirs.certificate;
    refused(mixed, "a certificate of another CA");
    let mut renamed = good.clone();
    renamed.cluster = [0; 16];
    refused(renamed, "another cluster's id");
    let (_, another) = ca.sign(SigningRequest::new().unwrap().der(), now()).unwrap();
    refused(another, "a certificate for another key");
    let mut swapped = good.clone();
    std::mem::swap(&mut swapped.certificate, &mut swapped.ca);
    refused(swapped, "certificates in the wrong places");
    for cut in 0..good.certificate.len() {
        let mut broken = good.clone();
        broken.certificate.truncate(cut);
        refused(broken, "a broken certificate");
    }
    request.complete(&good, &ca.pin(), now()).unwrap();
}

#[test]
fn names_in_a_request_count_for_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let ca = ClusterCa::open(dir.path(), now()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "coordinator");
    let name = "coordinator.woolly.internal".try_into().unwrap();
    params.subject_alt_names = vec![SanType::DnsName(name)];
    let request = params.serialize_request(&key).unwrap();
    let (worker, accepted) = ca.sign(request.der(), now()).unwrap();
    let certificate = accepted.certificate.into();
    assert_eq!(subject(&certificate).unwrap().role, Role::Worker(worker));
    let text = String::from_utf8_lossy(&certificate).into_owned();
    assert!(text.contains(&worker_name(worker)) && !text.contains("coordinator.woolly"));
}

#[test]
fn requests_that_are_not_ours_are_not_signed() {
    let dir = tempfile::tempdir().unwrap();
    let ca = ClusterCa::open(dir.path(), now()).unwrap();
    let refused = |der: &[u8]| {
        let error = ca.sign(der, now()).unwrap_err();
        assert!(matches!(error, IdentityError::Request(_)), "{error}");
    };
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    refused(CertificateParams::default().serialize_request(&key).unwrap().der());
    refused(&[0; 5000]);
    let good = SigningRequest::new().unwrap();
    for at in 0..good.der().len() {
        refused(&good.der()[..at]);
        let mut flipped = good.der().to_vec();
        flipped[at] ^= 1;
        // Whatever is still signed by its own key may pass; it must not panic.
        let _ = ca.sign(&flipped, now());
    }
}
