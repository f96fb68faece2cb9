//! Options from three places, on a program of our own.

use super::*;
use clap::builder::BoolishValueParser;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use std::collections::BTreeMap;
use std::io::Write;

#[derive(Parser, Debug)]
#[command(name = "program", subcommand_required = true)]
struct Program {
    #[command(subcommand)]
    command: Commands,
}

#[derive(Subcommand, Debug)]
enum Commands {
    Run(Run),
    Other {
        #[arg(long, env = "P_SIZE")]
        size: Option<u32>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Mode {
    Slow,
    Fast,
}

#[derive(clap::Args, Debug)]
struct Run {
    #[arg(long, env = "P_CONFIG")]
    config: Option<PathBuf>,
    /// A file
    #[arg(value_name = "FILE", conflicts_with = "model")]
    file: Option<PathBuf>,
    /// The same as FILE
    #[arg(long, env = "P_MODEL", help_heading = "Model")]
    model: Option<PathBuf>,
    /// How big
    #[arg(long, env = "P_SIZE", value_parser = clap::value_parser!(u32).range(1..=9), default_value = "3")]
    size: u32,
    /// How
    #[arg(long, env = "P_MODE", value_enum, default_value = "slow")]
    mode: Mode,
    /// Names
    #[arg(long, env = "P_NAME", value_delimiter = ',')]
    name: Vec<String>,
    /// Whether
    #[arg(long, env = "P_LOCK", value_parser = BoolishValueParser::new())]
    lock: bool,
    /// A secret
    #[arg(long, env = "P_KEY", hide_env_values = true, value_parser = key)]
    key: Option<String>,
}

fn key(text: &str) -> Result<String, String> {
    if text.len() > 3 { Ok(text.to_owned()) } else { Err("expected a longer one".to_owned()) }
}

struct World {
    folder: tempfile::TempDir,
    variables: BTreeMap<&'static str, &'static str>,
}

impl World {
    fn new(file: &[u8], variables: &[(&'static str, &'static str)]) -> World {
        let folder = tempfile::tempdir().unwrap();
        std::fs::File::create(folder.path().join("c.toml")).unwrap().write_all(file).unwrap();
        World { folder, variables: variables.iter().copied().collect() }
    }

    fn understand(&self, words: &[&str]) -> Result<(Program, Option<Settings>), Stopped> {
        let path = self.folder.path().join("c.toml");
        let config = format!("--config={}", path.display());
        let words = ["program"].iter().chain(words).map(|word| match *word {
            "CONFIG" => OsString::from(&config),
            word => OsString::from(word),
        });
        let words: Vec<OsString> = words.collect();
        let variable = |name: &OsStr| self.variables.get(name.to_str()?).map(OsString::from);
        let found = understand(&Program::command(), &[&["run"]], &words, &variable)?;
        Ok((Program::from_arg_matches(&found.matches).unwrap(), found.settings))
    }

    fn run(&self, words: &[&str]) -> (Run, Settings) {
        match self.understand(words) {
            Ok((Program { command: Commands::Run(run) }, Some(settings))) => (run, settings),
            other => panic!("{other:?}"),
        }
    }

    /// The mistakes, with the file's name short.
    fn mistakes(&self, words: &[&str]) -> Vec<String> {
        let folder = format!("{}/", self.folder.path().display());
        match self.understand(words) {
            Err(Stopped::Mistakes(list)) => {
                list.into_iter().map(|line| line.replace(&folder, "")).collect()
            }
            other => panic!("{other:?}"),
        }
    }
}

fn origin(settings: &Settings, key: &str) -> String {
    let text = settings.get(key).unwrap().origin.to_string();
    text.rsplit('/').next().unwrap().to_owned()
}

#[test]
fn a_flag_beats_a_variable_beats_the_file_beats_the_default() {
    let file = b"size = 5\nmode = \"fast\"\nname = [\"a\", \"b c\"]\nlock = true\nmodel = \"m\"\n";
    let (run, settings) = World::new(b"", &[]).run(&["run"]);
    assert_eq!((run.size, run.mode, run.lock), (3, Mode::Slow, false));
    assert_eq!(origin(&settings, "size"), "default");
    let world = World::new(file, &[]);
    let (run, settings) = world.run(&["run", "CONFIG"]);
    assert_eq!((run.size, run.mode, run.lock), (5, Mode::Fast, true));
    assert_eq!(run.name, ["a", "b c"]);
    assert_eq!(
        (origin(&settings, "size"), origin(&settings, "name")),
        ("c.toml:1:1".into(), "c.toml:3:1".into())
    );
    let world = World::new(file, &[("P_SIZE", "6"), ("P_LOCK", "off"), ("P_NAME", "x,y")]);
    let (run, settings) = world.run(&["run", "CONFIG"]);
    assert_eq!((run.size, run.lock, run.name.len()), (6, false, 2));
    assert_eq!(origin(&settings, "lock"), "P_LOCK");
    let (run, settings) = world.run(&["run", "CONFIG", "--size", "7", "--lock", "--name=z"]);
    assert_eq!((run.size, run.lock, run.name), (7, true, vec!["z".to_owned()]));
    assert_eq!(origin(&settings, "size"), "--size");
}

#[test]
fn what_excludes_another_option_beats_it_from_a_higher_place_and_is_an_error_beside_it() {
    let world = World::new(b"model = \"of-file\"\n", &[]);
    let (run, settings) = world.run(&["run", "CONFIG", "typed"]);
    assert_eq!((run.file, run.model), (Some("typed".into()), None));
    let gave_way = settings.get("model").unwrap().gave_way.clone().unwrap();
    assert!(gave_way.contains("c.toml:1:1") && gave_way.ends_with("to FILE"), "{gave_way}");
    let world = World::new(b"", &[("P_MODEL", "of-variable")]);
    assert_eq!(world.run(&["run", "typed"]).0.model, None);
    assert!(matches!(world.understand(&["run", "typed", "--model", "m"]), Err(Stopped::Clap(_))));
}

#[test]
fn all_mistakes_are_told_at_once_with_their_places() {
    let file = "\u{feff}size = 10\r\nnmae = \"x\"\r\nmode = 3.5\r\nlock = \"yes\"\r\nname = [1, [2]]\r\n\
                [model]\r\n";
    let world = World::new(file.as_bytes(), &[("P_KEY", "s3c"), ("P_LOCK", "maybe")]);
    let found = world.mistakes(&["run", "CONFIG", "--mode", "quick"]);
    let expected = [
        "c.toml:2:1: nmae: there is no option of this name: did you mean name?",
        "c.toml:4:1: lock: expected true or false, got a text",
        "c.toml:5:1: name: expected a list of texts or numbers, got a list",
        "c.toml:6:2: model: expected a text or a number, got a table",
        "c.toml:1:1: size: 10 is not in 1..=9, got \"10\"",
        "--mode: expected slow, fast, got \"quick\"",
        "c.toml:3:1: mode: expected slow, fast, got \"3.5\"",
        "P_LOCK: lock: expected true or false, got \"maybe\"",
        "P_KEY: key: expected a longer one",
    ];
    for line in expected {
        assert!(found.iter().any(|found| found == line), "{line} is missing in {found:#?}");
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
}

#[test]
fn a_file_that_cannot_be_read_says_where_and_why() {
    let long = format!("# {}", "x".repeat(1 << 20));
    for (file, said) in [
        (&b"size = \n"[..], "c.toml:1:"),
        (b"size = 3\nsize = 4\n", "c.toml:2:1: duplicate key"),
        (b"mode = \"fast\nsize = 3\n", "c.toml:1:"),
        (b"size = 3\n\xff\n", "expected UTF-8; line 2 is not"),
        (long.as_bytes(), "expected at most 1048576 bytes"),
        (b"name = [\"a,b\", \"c\"]\n", "an element holds a ','"),
        (b"size = 2026-01-01\n", "expected a text or a number, got a date"),
    ] {
        let found = World::new(file, &[]).mistakes(&["run", "CONFIG"]);
        assert!(found[0].contains(said), "{said}: {found:?}");
    }
    let found = World::new(b"", &[("P_CONFIG", "/no/such/file")]).mistakes(&["run"]);
    assert!(found[0].starts_with("/no/such/file: cannot read the configuration: "), "{found:?}");
    let many: String = (0..200).map(|n| format!("unknown{n} = 1\n")).collect();
    let found = World::new(many.as_bytes(), &[]).mistakes(&["run", "CONFIG"]);
    assert!(found.len() == 51 && found[50].contains("150 more"), "{found:?}");
}

#[test]
fn what_is_printed_can_be_read_again_and_shows_no_secret() {
    let file = b"size = 5\nname = [\"a\", \"say \\\"b\\\"\"]\nlock = true\nkey = \"s3cret\"\n";
    let world = World::new(file, &[("P_MODEL", "a \\ b")]);
    let (_, settings) = world.run(&["run", "CONFIG"]);
    let text = show::settings(&settings);
    assert!(!text.contains("s3cret") && text.contains("#key = (hidden)"), "{text}");
    assert!(text.contains("# P_MODEL") && text.contains("c.toml:1:1"), "{text}");
    let (run, _) = World::new(text.as_bytes(), &[]).run(&["run", "CONFIG"]);
    assert_eq!((run.size, run.lock, run.model), (5, true, Some("a \\ b".into())));
    assert_eq!(run.name, ["a", "say \"b\""]);
}

#[test]
fn a_secret_in_a_file_that_others_may_read_is_warned_of() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new(b"key = \"s3cret\"\n", &[]);
    for (mode, warned) in [(0o600, 0), (0o640, 0), (0o644, 1)] {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(world.folder.path().join("c.toml"), permissions).unwrap();
        assert_eq!(world.run(&["run", "CONFIG"]).1.warnings.len(), warned, "{mode:o}");
    }
}

#[test]
fn other_commands_and_lines_that_cannot_be_read_are_left_to_clap() {
    let world = World::new(b"size = 5\n", &[]);
    let (program, settings) = world.understand(&["other"]).unwrap();
    assert!(settings.is_none() && matches!(program.command, Commands::Other { size: None }));
    for words in [&["run", "--sise", "3"][..], &["run", "--help"], &[], &["run", "--size"]] {
        assert!(matches!(world.understand(words), Err(Stopped::Clap(_))), "{words:?}");
    }
}

#[test]
fn every_shell_and_the_manual_are_served() {
    use clap_complete::Shell;
    for shell in Shell::value_variants() {
        let text = String::from_utf8(shell::completions(Program::command(), *shell)).unwrap();
        assert!(text.contains("program") && text.contains("size"), "{shell}");
    }
    let page = String::from_utf8(shell::page(Program::command(), &["run".to_owned()]).unwrap());
    let page = page.unwrap();
    assert!(page.contains(".TH program-run 1") && page.contains("\\-\\-size"), "{page}");
    let error = shell::page(Program::command(), &["rnu".to_owned()]).unwrap_err();
    assert!(error.contains("expected run, other"), "{error}");
}
