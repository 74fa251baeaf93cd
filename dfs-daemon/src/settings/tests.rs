//! A file gives what the command line gives, and nothing else.

use std::io::Write;

use clap::Parser;
use tempfile::NamedTempFile;

use super::*;

#[derive(Parser, Debug)]
#[command(name = "x")]
struct Cli {
    #[command(subcommand)]
    command: Sub,
}

#[derive(clap::Subcommand, Debug)]
enum Sub {
    Init,
    Run(Run),
}

#[derive(clap::Args, Debug)]
struct Run {
    /// Where
    #[arg(long)]
    data: PathBuf,
    #[arg(long, default_value_t = 6000, value_parser = clap::value_parser!(u64).range(500..=60_000))]
    lease_ms: u64,
    #[arg(long = "label")]
    labels: Vec<String>,
    #[arg(long)]
    quiet: bool,
    #[arg(long)]
    name: Option<String>,
    place: Option<PathBuf>,
    #[command(flatten)]
    file: FileArgs,
}

fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn read_with(path: &Path, more: &[&str]) -> Result<Read<Cli>, SettingsError> {
    let mut argv: Vec<OsString> = vec!["x".into(), "run".into(), "--config".into(), path.into()];
    argv.extend(more.iter().map(OsString::from));
    Settings::read(argv, Some("run"))
}

fn run(read: Read<Cli>) -> Run {
    match read.args.command {
        Sub::Run(run) => run,
        Sub::Init => panic!("init"),
    }
}

const ALL: &str = "data = '/d'\nlease-ms = 700\nlabel = ['a=b', 'c=d']\nquiet = true\nplace = '/p'\n";

#[test]
fn a_file_gives_what_the_command_line_gives() {
    let file = file(ALL);
    let run = run(read_with(file.path(), &[]).unwrap());
    assert_eq!((run.data.as_path(), run.lease_ms, run.quiet), (Path::new("/d"), 700, true));
    assert_eq!((run.labels, run.place), (vec!["a=b".to_owned(), "c=d".to_owned()], Some("/p".into())));
    assert_eq!((run.name, run.file.log_level), (None, "info".to_owned()));
}

#[test]
fn the_command_line_wins() {
    let file = file(ALL);
    let run = run(read_with(file.path(), &["--lease-ms", "800", "--label", "e=f", "/q"]).unwrap());
    assert_eq!((run.lease_ms, run.labels, run.place), (800, vec!["e=f".to_owned()], Some("/q".into())));
    assert_eq!(run.data, Path::new("/d"));
}

#[test]
fn other_subcommands_take_no_file() {
    let read = Settings::<Cli>::read(vec!["x".into(), "init".into()], Some("run")).unwrap();
    assert!(matches!(read.args.command, Sub::Init) && read.printed.is_none());
    let none = Settings::<Cli>::read(vec!["x".into(), "run".into()], Some("run"));
    assert!(none.unwrap_err().to_string().contains("--data"));
}

#[test]
fn an_unknown_key_is_refused_with_the_known_ones() {
    for text in ["data = '/d'\nlease_ms = 1\n", "config = '/x'\n", "[run]\ndata = '/d'\n"] {
        let said = read_with(file(text).path(), &[]).unwrap_err().to_string();
        assert!(
            said.contains("unknown key") && said.contains("lease-ms") && said.contains("place"),
            "{said}"
        );
        assert!(!said.contains("print-config"), "{said}");
    }
}

#[test]
fn what_is_wrong_is_said_with_the_file_and_the_key() {
    for (text, word) in [
        ("data = '/d'\nlease-ms = 1\n", "1 is not in 500..=60000"),
        ("data = '/d'\nlease-ms = 'soon'\n", "invalid digit"),
        ("data = '/d'\nlease-ms = true\n", "a string or a number"),
        ("data = ['/d']\n", "an array where"),
        ("data = '/d'\nquiet = 1\n", "true or false belongs"),
        ("data = '/d'\nquiet = \n", "line 2"),
        ("data = '/d'\nlog-level = 'loud'\n", "log-level"),
    ] {
        let file = file(text);
        let said = read_with(file.path(), &[]).unwrap_err().to_string();
        assert!(said.contains(word) && said.contains(&file.path().display().to_string()), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let said = read_with(Path::new("/nowhere/x.toml"), &[]).unwrap_err().to_string();
    assert!(said.contains("/nowhere/x.toml") && said.contains("--config"), "{said}");
}

#[test]
fn what_is_printed_gives_the_same_options() {
    let from = file(ALL);
    let printed = read_with(from.path(), &["--print-config", "--name", "n \"1\""]).unwrap().printed.unwrap();
    assert!(printed.contains("lease-ms = 700 # the file"), "{printed}");
    assert!(printed.contains("# the command line") && printed.contains("log-level = \"info\" # default"));
    let again = read_with(file(&printed).path(), &["--print-config"]).unwrap();
    let values = |text: &str| text.parse::<toml::Table>().unwrap();
    assert_eq!(values(&printed), values(&again.printed.clone().unwrap()));
    assert_eq!(run(again).name.as_deref(), Some("n \"1\""));
}

#[test]
fn a_second_reading_says_what_changed() {
    let mut file = file("data = '/d'\nlog-level = 'info'\n");
    let mut settings = read_with(file.path(), &["--lease-ms", "900"]).unwrap().settings;
    assert_eq!(settings.read_again().unwrap().1, []);
    file.write_all(b"name = 'n'\nlease-ms = 1000\n").unwrap();
    let (_, changes) = settings.read_again().unwrap();
    // The command line still wins over the file.
    let name = Change { key: "name".into(), from: "nothing".into(), to: "\"n\"".into() };
    assert_eq!(changes, std::slice::from_ref(&name));
    settings.took(&name);
    assert_eq!(settings.read_again().unwrap().1, []);
}
