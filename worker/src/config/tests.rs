//! Flags as people give them, and what becomes of the wrong ones.

use super::*;

fn parse(words: &[&str]) -> Result<Config, String> {
    let words = ["woolly-worker", "join"].iter().chain(words);
    let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
    let folders = Folders { home: Some("/home/u".into()), ..Folders::default() };
    match cli.command {
        Command::Join(args) => args.resolve(&folders, "my host"),
        _ => unreachable!("the words begin with join"),
    }
}

#[test]
fn defaults_are_loopback_and_xdg_folders() {
    let config = parse(&["example.net"]).unwrap();
    assert_eq!((config.host.as_str(), config.port), ("example.net", 7400));
    assert!(config.listen.ip().is_loopback());
    assert_eq!(config.state_dir, Path::new("/home/u/.local/state/woolly/worker"));
    assert_eq!(config.slices_dir, Path::new("/home/u/.cache/woolly/slices"));
    assert_eq!(config.name, "my-host");
    assert!(config.threads >= 1);
}

#[test]
fn a_state_dir_holds_the_slices_too() {
    let config = parse(&["h:1", "--state-dir", "/s"]).unwrap();
    assert_eq!(config.state_dir, Path::new("/s"));
    assert_eq!(config.slices_dir, Path::new("/s/slices"));
}

#[test]
fn hosts_are_split_from_ports() {
    for (text, host, port) in [
        ("a:1", "a", 1),
        ("10.0.0.1", "10.0.0.1", 7400),
        ("[::1]:9", "::1", 9),
        ("::1", "::1", 7400),
    ] {
        assert_eq!(split_host(text), Ok((host.to_owned(), port)), "{text}");
    }
    for text in ["", ":1", "a:0", "a:65536", "a:x", "a b:1", "http://a:1"] {
        assert!(split_host(text).is_err(), "{text:?} was taken for an address");
    }
}

#[test]
fn all_mistakes_are_told_at_once_with_their_flags() {
    let error = parse(&[
        "a:x",
        "--listen",
        "nonsense",
        "--model-dir",
        "/no/such/folder",
        "--advertise",
        "0.0.0.0:1",
        "--memory",
        "1G",
        "--kv-memory",
        "2G",
    ])
    .unwrap_err();
    for flag in ["HOST:PORT", "--listen", "--model-dir", "--advertise", "--kv-memory"] {
        assert!(error.contains(flag), "{flag} is missing in:\n{error}");
    }
}

#[test]
fn numbers_out_of_range_are_refused() {
    for words in [
        ["-t", "0"],
        ["-t", "1000000"],
        ["-t", "-1"],
        ["--memory", "0"],
        ["--memory", "-1"],
        ["--memory", "1e3"],
        ["--simd", "mmx"],
        ["--name", "a b"],
        ["--name", ""],
    ] {
        let words = [&["h:1"][..], &words].concat();
        assert!(parse(&words).is_err(), "{words:?} was accepted");
    }
}

#[test]
fn a_token_is_never_shown() {
    let config = parse(&["h:1", "--token", "wly1.secret"]).unwrap();
    assert_eq!(config.token, TokenSource::Given("wly1.secret".to_owned()));
    assert!(!format!("{config:?}").contains("secret"));
}

#[test]
fn a_join_secret_stands_in_a_file_and_beside_no_token() {
    let config = parse(&["h:1", "--join-secret-file", "/run/secret"]).unwrap();
    assert_eq!(config.token, TokenSource::Secret("/run/secret".into()));
    for other in ["--token", "--token-file"] {
        assert!(parse(&["h:1", "--join-secret-file", "/run/secret", other, "x"]).is_err());
    }
}

#[test]
fn a_worker_leaves_within_half_a_minute_unless_it_is_given_more() {
    assert_eq!(parse(&["h:1"]).unwrap().leave_timeout, Duration::from_secs(25));
    let given = parse(&["h:1", "--leave-timeout", "10m"]).unwrap().leave_timeout;
    assert_eq!(given, Duration::from_secs(600));
    assert!(parse(&["h:1", "--leave-timeout", "2h"]).is_err());
}

#[test]
fn a_child_takes_its_token_from_stdin_only() {
    assert_eq!(parse(&["h:1", "--child"]).unwrap().token, TokenSource::Stdin);
    assert_eq!(parse(&["h:1", "--child", "--token", "x"]).unwrap().token, TokenSource::Stdin);
    assert_eq!(parse(&["h:1", "--token", "-"]).unwrap().token, TokenSource::Stdin);
}

#[test]
fn every_join_flag_has_a_variable_and_a_key() {
    use clap::CommandFactory;
    use woolly_protocol::settings::file::ConfigFile;
    let command = Cli::command();
    let options: Vec<_> = command.find_subcommand("join").unwrap().get_arguments().collect();
    // For coordinators, not for people.
    for arg in options.iter().filter(|arg| arg.get_id() != "child") {
        let key = arg.get_long().unwrap_or(arg.get_id().as_str());
        let variable = format!("WOOLLY_{}", key.to_uppercase().replace('-', "_"));
        assert_eq!(arg.get_env().and_then(|name| name.to_str()), Some(variable.as_str()));
        let file = ConfigFile::of_text(&format!("{key} = {{}}"), "c.toml", &options);
        let known = file.mistakes[0].starts_with(&format!("c.toml:1:1: {key}: expected "));
        // A file cannot name another one.
        assert!(known || key == "config", "{:?}", file.mistakes);
    }
}

#[test]
fn metrics_are_off_unless_an_address_is_given_that_is_one() {
    assert_eq!(parse(&["h:1"]).unwrap().metrics, None);
    let given = parse(&["h:1", "--metrics", "0.0.0.0:9464"]).unwrap().metrics;
    assert_eq!(given, Some("0.0.0.0:9464".parse().unwrap()));
    let wrong = parse(&["h:1", "--metrics", "9464"]).unwrap_err();
    assert!(wrong.contains("--metrics") && wrong.contains("expected ADDRESS:PORT"), "{wrong}");
}
