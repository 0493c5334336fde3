//! `keyward completions` and `keyward man`: what a shell and its manual know of the commands, made from the same tree that
//! reads the command line, operations of the API included.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

use super::ask::{note, print_answer};
use super::{EXIT_ERROR, EXIT_USAGE, fail};

/// The program, as shells know it.
const NAME: &str = "keyward";
/// The section of the manual for programs.
const SECTION: &str = "1";

/// `keyward completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = "bash: keyward completions bash > ~/.local/share/bash-completion/completions/keyward\n\
    zsh: keyward completions zsh > a directory of $fpath, as _keyward\n\
    fish: keyward completions fish > ~/.config/fish/completions/keyward.fish")]
pub struct CompletionsArguments {
    /// The shell to print a script for
    shell: Shell,
}

/// `keyward man`.
#[derive(Debug, clap::Args)]
#[command(after_help = "To read one at once: keyward man api keys create-key | man -l -")]
pub struct ManArguments {
    /// Write the pages of all commands into this directory, which is made where it is absent
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    dir: Option<PathBuf>,
    /// The command whose page is printed, such as `api keys create-key`; keyward's own where none is given
    #[arg(value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs `keyward completions` on this tree of commands.
pub fn completions(arguments: &CompletionsArguments, mut tree: Command) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut tree, NAME, &mut script);
    if arguments.shell == Shell::Fish {
        script.extend_from_slice(deep_flags_for_fish(&tree).as_bytes());
    }
    print_answer(&script)
}

/// The flags of commands three names deep, such as `api keys create-key`: clap's script for fish ends above them. It uses
/// the function that clap's script defines.
fn deep_flags_for_fish(tree: &Command) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\\', r"\\").replace('\'', r"\'"));
    let mut script = String::new();
    let below = |command: &Command| command.get_subcommands().cloned().collect::<Vec<_>>();
    let paths = below(tree)
        .into_iter()
        .flat_map(|top| below(&top).into_iter().map(move |middle| (top.get_name().to_owned(), middle)));
    for (top, middle) in paths {
        for command in middle.get_subcommands().filter(|command| command.get_name() != "help") {
            let here = format!(
                "__fish_{NAME}_using_subcommand {top}; and __fish_seen_subcommand_from {}; and __fish_seen_subcommand_from {}",
                middle.get_name(),
                command.get_name()
            );
            for argument in command.get_arguments() {
                let Some(flag) = argument.get_long() else { continue };
                script.push_str(&format!("complete -c {NAME} -n \"{here}\" -l {flag}"));
                let values = argument.get_possible_values();
                if !values.is_empty() {
                    let values: Vec<&str> = values.iter().map(|value| value.get_name()).collect();
                    script.push_str(&format!(" -x -a {}", quoted(&values.join(" "))));
                } else if argument.get_action().takes_values() {
                    script.push_str(" -r");
                }
                let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
                script.push_str(&format!(" -d {}\n", quoted(help.lines().next().unwrap_or_default())));
            }
        }
    }
    script
}

/// Runs `keyward man` on this tree of commands.
pub fn man(arguments: &ManArguments, mut tree: Command) -> ExitCode {
    tree.build();
    if let Some(dir) = &arguments.dir {
        return match write_pages(&tree, dir) {
            Ok(pages) => {
                note([format!("{pages} pages are in {}", dir.display())]);
                ExitCode::SUCCESS
            }
            Err(error) => fail(EXIT_ERROR, [format!("cannot write manual pages to {}: {error}", dir.display())]),
        };
    }
    let mut command = &tree;
    for name in &arguments.command {
        match command.find_subcommand(name) {
            Some(found) => command = found,
            None => return fail(EXIT_USAGE, [format!("`{}` has no command `{name}`", title(command))]),
        }
    }
    match page(command) {
        Ok(page) => print_answer(&page),
        Err(error) => fail(EXIT_ERROR, [format!("cannot make the manual page: {error}")]),
    }
}

/// A command's name with those above it: `keyward api keys`.
fn title(command: &Command) -> &str {
    command.get_bin_name().unwrap_or(command.get_name())
}

fn page(command: &Command) -> io::Result<Vec<u8>> {
    let name = title(command).replace(' ', "-");
    let mut page = Vec::new();
    Man::new(command.clone().name(name.clone())).title(name.to_uppercase()).section(SECTION).render(&mut page)?;
    Ok(page)
}

/// Writes a page for each command; how many there are.
fn write_pages(tree: &Command, dir: &Path) -> io::Result<usize> {
    fs::create_dir_all(dir)?;
    let mut left = vec![tree];
    let mut pages = 0;
    while let Some(command) = left.pop() {
        fs::write(dir.join(format!("{}.{SECTION}", title(command).replace(' ', "-"))), page(command)?)?;
        pages += 1;
        left.extend(command.get_subcommands().filter(|command| command.get_name() != "help"));
    }
    Ok(pages)
}
