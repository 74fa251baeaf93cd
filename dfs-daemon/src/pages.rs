//! Manual pages and completions of a program, out of its definition of its command line. Packages carry them; programs
//! make them when they are asked to by a first argument that nobody types.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::Path;

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

/// `PROGRAM --generate-pages DIR`.
const ARGUMENT: &str = "--generate-pages";

/// Writes them for each of `commands` if that is what the program was started for, and how that went.
///
/// # Errors
/// When a file cannot be written.
pub fn if_asked(commands: impl FnOnce() -> Vec<Command>) -> io::Result<bool> {
    let args: Vec<OsString> = std::env::args_os().collect();
    let [_, first, dir] = &args[..] else { return Ok(false) };
    if first != ARGUMENT {
        return Ok(false);
    }
    for command in commands() {
        generate(command, Path::new(dir))?;
    }
    Ok(true)
}

/// Into `DIR/man`, `DIR/bash`, `DIR/zsh` and `DIR/fish`.
fn generate(mut command: Command, dir: &Path) -> io::Result<()> {
    let name = command.get_name().to_owned();
    for (shell, kind) in [(Shell::Bash, "bash"), (Shell::Zsh, "zsh"), (Shell::Fish, "fish")] {
        let dir = dir.join(kind);
        std::fs::create_dir_all(&dir)?;
        clap_complete::generate_to(shell, &mut command, &name, dir)?;
    }
    let dir = dir.join("man");
    std::fs::create_dir_all(&dir)?;
    command.build();
    page(&command, &name, &dir)
}

/// One page for the program and one for each subcommand, as `PROGRAM-SUBCOMMAND`.
fn page(command: &Command, name: &str, dir: &Path) -> io::Result<()> {
    let titled = command.clone().name(name.to_owned());
    let mut file = File::create(dir.join(format!("{name}.8")))?;
    Man::new(titled).section("8").manual("dfs").render(&mut file)?;
    let subs = command.get_subcommands().filter(|sub| sub.get_name() != "help" && !sub.is_hide_set());
    subs.into_iter().try_for_each(|sub| page(sub, &format!("{name}-{}", sub.get_name()), dir))
}
