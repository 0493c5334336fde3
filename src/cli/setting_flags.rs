//! A flag for every setting, made from the table of settings: `http.max_connections` is `--http-max-connections`.

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::config::{Flag, flags};

/// What was typed: names of settings, and their texts.
#[derive(Debug, Clone, Default)]
pub struct SettingFlags(pub Vec<(&'static str, String)>);

fn argument(flag: Flag) -> Arg {
    Arg::new(flag.key)
        .long(flag.long)
        .value_name(flag.value)
        .help(flag.help)
        .action(ArgAction::Set)
        .allow_negative_numbers(true)
        // There are many: `-h` shows the few that most people want, `--help` all.
        .hide_short_help(true)
        .help_heading("Settings (each is a KEYWARD_… variable, too)")
}

impl clap::Args for SettingFlags {
    fn augment_args(command: Command) -> Command {
        command.args(flags().into_iter().map(argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        SettingFlags::augment_args(command)
    }
}

impl clap::FromArgMatches for SettingFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<SettingFlags, clap::Error> {
        let typed = |flag: Flag| matches.get_one::<String>(flag.key).map(|text| (flag.key, text.clone()));
        Ok(SettingFlags(flags().into_iter().filter_map(typed).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = SettingFlags::from_arg_matches(matches)?;
        Ok(())
    }
}
