//! What flags mean, alone and together.

use super::*;
use woolly_engine::plan::Objective;

fn serve(flags: &[&str]) -> Result<ServeArgs, clap::Error> {
    let line = ["woolly-coordinator", "serve", "--model", "m.gguf"];
    match Cli::try_parse_from(line.iter().chain(flags))?.command {
        CliCommand::Serve(args) => Ok(*args),
        _ => unreachable!("the line says serve"),
    }
}

fn counts(flags: &[&str]) -> Result<(u32, u32), String> {
    let counts = serve(flags).unwrap().worker_counts();
    counts.map(|counts| (counts.awaited, counts.local)).map_err(|fatal| fatal.to_string())
}

#[test]
fn the_flags_are_consistent() {
    use clap::CommandFactory;
    Cli::command().debug_assert();
}

#[test]
fn every_serve_flag_has_a_variable_named_after_it() {
    use clap::CommandFactory;
    let command = Cli::command();
    let serve = command.find_subcommand("serve").unwrap();
    // Other servers' names of --http have none: Kubernetes sets WOOLLY_PORT for a service `woolly`.
    let exempt = ["help", "host", "port", "file"];
    for arg in serve.get_arguments().filter(|arg| !exempt.contains(&arg.get_id().as_str())) {
        let long = arg.get_long().unwrap();
        let variable = format!("WOOLLY_{}", long.to_uppercase().replace('-', "_"));
        assert_eq!(arg.get_env().and_then(|name| name.to_str()), Some(variable.as_str()));
        assert!(arg.get_help().is_some(), "--{long} has no help");
    }
}

#[test]
fn every_serve_flag_has_a_key_in_the_file() {
    use clap::CommandFactory;
    use woolly_protocol::settings::file::ConfigFile;
    let command = Cli::command();
    let options: Vec<_> = command.find_subcommand("serve").unwrap().get_arguments().collect();
    // A file cannot name another one, and FILE is `model`.
    for arg in options.iter().filter(|arg| !["config", "file"].contains(&arg.get_id().as_str())) {
        let key = arg.get_long().unwrap();
        let file = ConfigFile::of_text(&format!("{key} = {{}}"), "c.toml", &options);
        let expected = format!("c.toml:1:1: {key}: expected ");
        assert!(file.mistakes[0].starts_with(&expected), "{:?}", file.mistakes);
    }
}

#[test]
fn defaults_are_one_machine_on_loopback() {
    let args = serve(&[]).unwrap();
    assert_eq!(args.door.addresses().unwrap()[0].to_string(), "127.0.0.1:8080");
    assert_eq!(args.model.source().unwrap(), Some(crate::fetch::Source::File("m.gguf".into())));
    assert_eq!(args.listen.to_string(), "127.0.0.1:7400");
    assert_eq!(args.idle_timeout, Duration::from_secs(2));
    assert_eq!(args.shutdown_timeout, Duration::from_secs(30));
    assert_eq!(args.worker_counts().unwrap(), WorkerCounts { awaited: 1, local: 1 });
}

#[test]
fn worker_counts_follow_the_flags() {
    assert_eq!(counts(&["--local-workers", "2"]), Ok((2, 2)));
    assert_eq!(counts(&["--local-workers", "0"]), Ok((1, 0)));
    assert_eq!(counts(&["--workers", "2"]), Ok((2, 0)));
    assert_eq!(counts(&["--workers", "3", "--local-workers", "1"]), Ok((3, 1)));
    assert_eq!(counts(&["--cut", "17,11"]), Ok((2, 0)));
    assert_eq!(counts(&["--cut", "17,11", "--workers", "3"]), Ok((3, 0)));
    assert_eq!(counts(&["--cut", "17,11", "--local-workers", "2"]), Ok((2, 2)));
}

#[test]
fn contradicting_flags_are_refused() {
    assert!(
        counts(&["--workers", "1", "--local-workers", "2"]).unwrap_err().contains("2 are more")
    );
    assert!(
        counts(&["--cut", "1,2,3", "--workers", "2"]).unwrap_err().contains("each stage needs one")
    );
    for flags in [
        &["--threads", "2"][..],
        &["--memory", "1GiB"],
        &["--kv-memory", "1GiB"],
        &["--huge-pages", "off"],
        &["--mlock"],
        &["--weights-from-disk"],
    ] {
        let line = [&["--workers", "1"], flags].concat();
        assert!(counts(&line).unwrap_err().contains("for local workers"), "{line:?}");
    }
}

#[test]
fn values_out_of_range_are_refused() {
    let bad: [&[&str]; 19] = [
        &["--http", "127.0.0.1"],
        &["--http", "127.0.0.1:65536"],
        &["--http", "127.0.0.1:-1"],
        &["--http", "127.0.0.1:80 "],
        &["--listen", "example.com:7400"],
        &["--advertise", "0.0.0.0"],
        &["--advertise", "host:0"],
        &["--advertise", "two words"],
        &["--workers", "0"],
        &["--workers", "65"],
        &["--local-workers", "65"],
        &["--cut", "17,0"],
        &["--cut", "17,,11"],
        &["--threads", "0"],
        &["--memory", "-1"],
        &["--huge-pages", "always"],
        &["--idle-timeout", "10ms"],
        &["--ctx-size", "1048577"],
        &["--alias", ""],
    ];
    for flags in bad {
        assert!(serve(flags).is_err(), "{flags:?} was accepted");
    }
    assert!(serve(&["--workers", "1", "--workers", "2"]).is_err(), "a flag was accepted twice");
    assert!(serve(&["--wrkers", "1"]).is_err(), "an unknown flag was accepted");
}

#[test]
fn an_objective_is_one_of_three_and_none_beside_a_cut_by_hand() {
    let objective = |flags: &[&str]| serve(flags).map(|args| args.objective.objective);
    assert_eq!(objective(&[]).unwrap(), Objective::Balanced);
    for known in Objective::ALL {
        assert_eq!(objective(&["--objective", known.name()]).unwrap(), known);
    }
    for wrong in ["", "speed", "Latency", "latency,throughput"] {
        let error = objective(&["--objective", wrong]).unwrap_err().to_string();
        assert!(error.contains("expected balanced, throughput or latency"), "{error}");
    }
    let error = objective(&["--objective", "latency", "--cut", "17,11"]).unwrap_err().to_string();
    assert!(error.contains("--objective") && error.contains("--cut"), "{error}");
    assert_eq!(objective(&["--cut", "17,11"]).unwrap(), Objective::Balanced);
}

#[test]
fn advertise_takes_hosts_and_addresses() {
    let read = |text| parse_advertise(text).map(|to| (to.host, to.port));
    assert_eq!(read("192.168.1.10"), Ok(("192.168.1.10".to_owned(), None)));
    assert_eq!(read("node1.lan:7500"), Ok(("node1.lan".to_owned(), Some(7500))));
    assert_eq!(read("[fd00::1]:7400"), Ok(("fd00::1".to_owned(), Some(7400))));
    assert_eq!(read("fd00::1"), Ok(("fd00::1".to_owned(), None)));
}

#[test]
fn localhost_is_understood() {
    assert_eq!(parse_address("localhost:9000").unwrap().to_string(), "127.0.0.1:9000");
}

#[test]
fn the_state_directory_is_found() {
    let os = |text: &str| Some(OsString::from(text));
    let find = |flag: Option<&str>, xdg, home| {
        state_dir_from(flag.map(PathBuf::from), xdg, home).ok().map(|p| p.display().to_string())
    };
    assert_eq!(find(Some("here"), os("/x"), os("/h")).as_deref(), Some("here"));
    assert_eq!(find(None, os("/x"), os("/h")).as_deref(), Some("/x/woolly/coordinator"));
    let home = "/h/.local/state/woolly/coordinator";
    assert_eq!(find(None, None, os("/h")).as_deref(), Some(home));
    assert_eq!(find(None, os("relative"), os("/h")).as_deref(), Some(home));
    assert_eq!(find(None, None, None), None);
}

#[test]
fn the_cache_is_as_asked_for_or_refused_by_name() {
    let cache = |flags: &[&str]| serve(flags).map(|args| args.cache).map_err(|e| e.to_string());
    let default = cache(&[]).unwrap();
    assert_eq!((default.cache_type.name(), default.block_size), ("f16", 32));
    assert_eq!(default.prefix_cache, crate::scheduler::PrefixCache::Key);
    let given = cache(&["--cache-type", "q8_0", "--block-size", "256"]).unwrap();
    assert_eq!((given.cache_type.name(), given.block_size), ("q8_0", 256));
    for (flag, value, reason) in [
        ("--cache-type", "q4_0", "expected f16 or q8_0"),
        ("--block-size", "48", "a multiple of 32 from 32 to 1024"),
        ("--block-size", "0", "a multiple of 32"),
        ("--block-size", "2048", "a multiple of 32"),
        ("--prefix-cache", "on", "expected off, key or shared"),
        ("--prefix-cache-eviction", "fifo", "invalid value 'fifo'"),
        ("--cache-compress", "zstd", "depend on other users' load"),
    ] {
        let error = cache(&[flag, value]).unwrap_err();
        assert!(error.contains(flag) && error.contains(reason), "{error}");
    }
    assert!(cache(&["--cache-compress", "off", "--prefix-cache-eviction", "lru"]).is_ok());
}

#[test]
fn access_is_limited_as_asked_for() {
    let access = |flags: &[&str]| serve(flags).map(|args| args.access);
    assert!(access(&[]).unwrap().keys().unwrap().is_empty());
    let given = access(&["--api-key", "sk-a,sk-b", "--api-key", "sk-c"]).unwrap();
    assert_eq!(given.api_key, ["sk-a", "sk-b", "sk-c"]);
    for bad in ["", "two words", "sk-a,"] {
        assert!(access(&["--api-key", bad]).is_err(), "{bad:?} lets nobody or everyone in");
    }
    let given = access(&["--key-concurrency", "3", "--request-timeout", "90s"]).unwrap();
    let times = (given.key_concurrency, given.request_timeout);
    assert_eq!(times, (Some(3), Some(Duration::from_secs(90))));
    assert!(access(&["--key-concurrency", "0"]).is_err());
    assert!(access(&["--request-timeout", "0s"]).is_err());
}
