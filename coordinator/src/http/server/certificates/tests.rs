//! Pairs of files: good ones, wrong ones, and what is shown after each.

use super::*;
use rcgen::{CertificateParams, KeyPair};
use std::fs::Permissions;

/// A certificate of its own for these names, between these times, and its key, as PEM.
fn made(names: &[&str], days: std::ops::Range<i64>) -> (String, String) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    let at = |days: i64| {
        let day = Duration::from_secs(days.unsigned_abs() * 86_400);
        let now = SystemTime::now();
        if days < 0 { now - day } else { now + day }
    };
    params.not_before = at(days.start).into();
    params.not_after = at(days.end).into();
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new((certificate, key): (String, String)) -> Files {
        let files = Files { folder: tempfile::tempdir().unwrap() };
        files.write("cert.pem", &certificate);
        files.write("key.pem", &key);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
        std::fs::set_permissions(self.path(name), Permissions::from_mode(0o600)).unwrap();
    }

    fn open(&self) -> Result<Certificates, CertificateError> {
        Certificates::open(self.path("cert.pem"), self.path("key.pem"), SystemTime::now())
    }

    fn warnings(&self) -> Vec<String> {
        self.open().unwrap().shown.get().warnings.clone()
    }
}

#[test]
fn a_good_pair_is_shown_with_its_names_and_its_end() {
    let files = Files::new(made(&["llm.example", "*.llm.example", "127.0.0.1"], -1..90));
    let certificates = files.open().unwrap();
    let shown = certificates.shown.get();
    let named = "for llm.example, *.llm.example, 127.0.0.1, valid until ";
    assert!(shown.shown_as.starts_with(named), "{}", shown.shown_as);
    assert!(shown.warnings.is_empty(), "{:?}", shown.warnings);
    assert_eq!(certificates.host([127, 0, 0, 1].into()), None);
    assert_eq!(certificates.host([10, 0, 0, 1].into()).as_deref(), Some("llm.example"));
}

#[test]
fn all_kinds_of_keys_are_taken() {
    for kind in
        [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519]
    {
        let key = KeyPair::generate_for(kind).unwrap();
        let params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Files::new((certificate.pem(), key.serialize_pem())).open().unwrap();
    }
}

#[test]
fn a_pair_that_cannot_be_used_says_which_file_and_why() {
    let (good, other) = (made(&["a.example"], -1..90), made(&["a.example"], -1..90));
    let junk = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n".to_owned();
    let encrypted = good.1.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let short = good.0[..good.0.len() / 2].to_owned();
    let cases = [
        ((good.0.clone(), other.1), "key.pem", "the key of another certificate"),
        ((String::new(), good.1.clone()), "cert.pem", "it is empty"),
        ((good.0.clone(), String::new()), "key.pem", "it is empty"),
        ((good.1.clone(), good.1.clone()), "cert.pem", "BEGIN CERTIFICATE"),
        ((good.0.clone(), good.0.clone()), "key.pem", "BEGIN PRIVATE KEY"),
        ((junk, good.1.clone()), "cert.pem", "cannot be read"),
        ((short, good.1.clone()), "cert.pem", "no PEM file"),
        ((good.0.repeat(11), good.1.clone()), "cert.pem", "more than 10"),
        ((good.0.clone(), encrypted), "key.pem", "the key is encrypted"),
        (("x".repeat((1 << 20) + 1), good.1.clone()), "cert.pem", "longer than"),
    ];
    for (pair, file, why) in cases {
        let error = Files::new(pair).open().unwrap_err().to_string();
        assert!(error.contains(file) && error.contains(why), "{why}: {error}");
    }
    let files = Files::new(good);
    let open = |certificate: &str, key: &str| {
        Certificates::open(files.path(certificate), files.path(key), SystemTime::now())
            .unwrap_err()
            .to_string()
    };
    assert!(open("missing.pem", "key.pem").contains("missing.pem"));
    let folder = open("", "key.pem");
    assert!(folder.contains("cannot read") && folder.contains("directory"), "{folder}");
}

#[test]
fn what_its_owner_should_look_at_is_warned_of() {
    let warnings = |days| Files::new(made(&["a.example"], days)).warnings();
    for (days, said) in [(-90..-1, "it ended on"), (1..90, "it begins on"), (-1..3, "it ends soon")]
    {
        let warnings = warnings(days);
        assert!(warnings.len() == 1 && warnings[0].contains(said), "{warnings:?}");
    }
    let files = Files::new(made(&[], -1..90));
    assert!(files.warnings()[0].contains("names no host"), "{:?}", files.warnings());
    let files = Files::new(made(&["a.example"], -1..90));
    for (mode, open) in [(0o600, false), (0o640, false), (0o644, true)] {
        std::fs::set_permissions(files.path("key.pem"), Permissions::from_mode(mode)).unwrap();
        let said = files.warnings().iter().any(|warning| warning.contains("others"));
        assert_eq!(said, open, "{mode:o}");
    }
}

#[test]
fn files_are_read_again_and_wrong_ones_change_nothing() {
    let files = Files::new(made(&["old.example"], -1..90));
    let certificates = files.open().unwrap();
    let name = || certificates.host([127, 0, 0, 1].into()).unwrap();
    let (new, key) = made(&["new.example"], -1..90);
    files.write("cert.pem", &new);
    let error = certificates.reload(SystemTime::now()).unwrap_err().to_string();
    assert!(error.contains("another certificate"), "{error}");
    certificates.reload_and_log(SystemTime::now());
    assert_eq!(name(), "old.example");
    files.write("key.pem", &key);
    certificates.reload(SystemTime::now()).unwrap();
    assert_eq!(name(), "new.example");
}
