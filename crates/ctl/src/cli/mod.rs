//! The command line: what it may say ([`grammar`]), and what it says.

mod grammar;

use std::ffi::OsString;

use clap::ArgMatches;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::Failure;
use crate::render::Format;

pub use grammar::{Program, command, configuration_options, is_command, subcommands};
use grammar::{ROLES, usage};

/// What the command line says.
#[derive(Debug)]
pub(crate) struct Parsed {
    /// Of the program.
    pub(crate) global: ArgMatches,
    /// Of the command.
    pub(crate) command: String,
    pub(crate) options: Options,
}

/// The outcome of reading a command line.
#[derive(Debug)]
pub(crate) enum Reading {
    /// Carry it out.
    Command(Box<Parsed>),
    /// Print this help; whether somebody asked for it.
    Help { text: String, asked: bool },
}

/// Reads a command line, without the program's own name.
pub(crate) fn read(program: Program, arguments: Vec<OsString>) -> Result<Reading, Failure> {
    let mut command = command(program);
    if arguments.is_empty() {
        return Ok(Reading::Help {
            text: command.render_help().to_string(),
            asked: false,
        });
    }
    // An option lacks its argument only at the end of the line.
    let last = arguments
        .last()
        .map(|last| last.to_string_lossy().into_owned());
    let name = std::iter::once(OsString::from(program.name()));
    match command.try_get_matches_from_mut(name.chain(arguments)) {
        Ok(mut global) => match global.remove_subcommand() {
            Some((command, matches)) => Ok(Reading::Command(Box::new(Parsed {
                global,
                options: Options {
                    command: command.clone(),
                    matches,
                },
                command,
            }))),
            None => Err(Failure::Usage {
                command: None,
                text: "Missing command.".into(),
            }),
        },
        Err(error) if error.kind() == ErrorKind::DisplayHelp => Ok(Reading::Help {
            text: error.render().to_string(),
            asked: true,
        }),
        Err(error) => Err(usage_failure(&error, &last.unwrap_or_default())),
    }
}

/// The option as it was written; the last one of a group of letters.
fn as_written(word: &str) -> String {
    match word.strip_prefix('-') {
        Some(letters) if !letters.starts_with('-') => letters
            .chars()
            .last()
            .map_or_else(String::new, |letter| format!("-{letter}")),
        _ => word.to_owned(),
    }
}

fn usage_failure(error: &clap::Error, last: &str) -> Failure {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.first().cloned().unwrap_or_default(),
        _ => String::new(),
    };
    let invalid = context(ContextKind::InvalidArg);
    let text = match error.kind() {
        ErrorKind::InvalidSubcommand => {
            format!(
                "No such command '{}'.",
                context(ContextKind::InvalidSubcommand)
            )
        }
        ErrorKind::UnknownArgument if invalid.starts_with('-') => {
            format!("No such option '{invalid}'.")
        }
        ErrorKind::UnknownArgument => format!("Got unexpected extra argument ({invalid})"),
        ErrorKind::MissingRequiredArgument => {
            format!("Missing argument '{}'.", invalid.trim_matches(['<', '>']))
        }
        ErrorKind::InvalidValue | ErrorKind::WrongNumberOfValues if !invalid.is_empty() => {
            return Failure::Option(format!(
                "Option '{}' requires an argument.",
                as_written(last)
            ));
        }
        ErrorKind::TooManyValues => {
            let name = invalid.split([' ', '=', '<']).next().unwrap_or_default();
            return Failure::Option(format!("Option '{name}' does not take a value."));
        }
        _ => error
            .to_string()
            .trim_start_matches("error: ")
            .lines()
            .next()
            .unwrap_or_default()
            .into(),
    };
    // The parser names the command only in its usage text.
    let usage = match error.get(ContextKind::Usage) {
        Some(ContextValue::StyledStr(usage)) => usage.to_string(),
        _ => String::new(),
    };
    let command = usage
        .split_whitespace()
        .find(|word| is_command(word))
        .map(str::to_owned);
    Failure::Usage { command, text }
}

/// The text of a usage error on stderr (`patronictl.md` §3).
pub(crate) fn usage_text(program: Program, command: Option<&str>, text: &str) -> String {
    let (path, arguments) = usage(program, command);
    let usage = wrap(&format!("Usage: {path} "), arguments);
    format!("{usage}\nTry '{path} --help' for help.\n\nError: {text}\n")
}

/// Breaks the words at 78 columns, further lines below the first word.
fn wrap(prefix: &str, words: &str) -> String {
    const WIDTH: usize = 78;
    let mut text = prefix.trim_end().to_owned();
    let mut column = text.len();
    for word in words.split(' ') {
        if column + 1 + word.len() > WIDTH {
            text.push('\n');
            text.push_str(&" ".repeat(prefix.len() - 1));
            column = prefix.len() - 1;
        }
        text.push(' ');
        text.push_str(word);
        column += 1 + word.len();
    }
    text
}

/// The options and arguments of a command, by name.
#[derive(Debug)]
pub(crate) struct Options {
    command: String,
    matches: ArgMatches,
}

impl Options {
    /// The option's or argument's text, if it was given.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.matches
            .try_get_one::<String>(name)
            .ok()
            .flatten()
            .map(String::as_str)
    }

    /// All texts of an option or argument that may be repeated.
    pub(crate) fn texts(&self, name: &str) -> Vec<String> {
        self.matches
            .get_many::<String>(name)
            .into_iter()
            .flatten()
            .cloned()
            .collect()
    }

    pub(crate) fn is_set(&self, name: &str) -> bool {
        self.matches
            .try_get_one::<bool>(name)
            .ok()
            .flatten()
            .copied()
            .unwrap_or_default()
    }

    pub(crate) fn cluster(&self) -> Option<&str> {
        self.text("CLUSTER_NAME")
    }

    pub(crate) fn group(&self) -> Result<Option<u32>, Failure> {
        let parse = |text: &str| {
            text.parse().map_err(|_| {
                self.invalid(format!(
                    "Invalid value for '--group': '{text}' is not a valid integer."
                ))
            })
        };
        self.text("group").map(parse).transpose()
    }

    pub(crate) fn format(&self) -> Result<Format, Failure> {
        let text = self.text("format").unwrap_or("pretty");
        Format::parse(text)
            .ok_or_else(|| self.not_one_of("'--format' / '-f'", text, &Format::NAMES))
    }

    /// The format of `query`, which has no short option, and another default.
    pub(crate) fn query_format(&self) -> Result<Format, Failure> {
        let text = self.text("format").unwrap_or("tsv");
        Format::parse(text).ok_or_else(|| self.not_one_of("'--format'", text, &Format::NAMES))
    }

    /// The role's name; whether it is a role is checked here, what it means is `members::Role`.
    pub(crate) fn role(&self) -> Result<Option<&str>, Failure> {
        match self.text("role") {
            Some(text) if !ROLES.contains(&text) => {
                Err(self.not_one_of("'--role' / '-r'", text, &ROLES))
            }
            role => Ok(role),
        }
    }

    /// Seconds between two outputs, `None` for a single one.
    pub(crate) fn watch(&self) -> Result<Option<f64>, Failure> {
        let parse = |text: &str| match text.parse::<f64>() {
            Ok(seconds) if seconds.is_finite() => Ok(seconds),
            _ => Err(self.invalid(format!(
                "Invalid value for '-w' / '--watch': '{text}' is not a valid float."
            ))),
        };
        let seconds = self
            .text("watch")
            .map(parse)
            .transpose()?
            .filter(|seconds| *seconds > 0.0);
        Ok(seconds.or_else(|| self.is_set("watch2").then_some(2.0)))
    }

    /// An error in how the command is used.
    pub(crate) fn invalid(&self, text: impl Into<String>) -> Failure {
        Failure::Usage {
            command: Some(self.command.clone()),
            text: text.into(),
        }
    }

    fn not_one_of(&self, option: &str, text: &str, names: &[&str]) -> Failure {
        let names: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
        self.invalid(format!(
            "Invalid value for {option}: '{text}' is not one of {}.",
            names.join(", ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(program: Program, line: &str) -> String {
        match read(
            program,
            line.split_whitespace().map(OsString::from).collect(),
        ) {
            Err(Failure::Usage { command, text }) => usage_text(program, command.as_deref(), &text),
            Err(Failure::Option(text)) => format!("Error: {text}"),
            other => panic!("{line}: {other:?}"),
        }
    }

    fn options(program: Program, line: &str) -> Parsed {
        match read(
            program,
            line.split_whitespace().map(OsString::from).collect(),
        ) {
            Ok(Reading::Command(parsed)) => *parsed,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn command_lines_are_sound() {
        command(Program::Patronictl).debug_assert();
        command(Program::Primacy).debug_assert();
    }

    #[test]
    fn usage_errors_have_the_form_that_people_know() {
        let last = |line: &str| {
            failure(Program::Patronictl, line)
                .lines()
                .last()
                .unwrap()
                .to_owned()
        };
        for (line, expected) in [
            ("nonsense", "Error: No such command 'nonsense'."),
            ("list --nonsense", "Error: No such option '--nonsense'."),
            ("-h", "Error: No such option '-h'."),
            ("history --force", "Error: No such option '--force'."),
            ("topology -f json", "Error: No such option '-f'."),
            ("restart", "Error: Missing argument 'CLUSTER_NAME'."),
            ("history a b", "Error: Got unexpected extra argument (b)"),
            ("list --form json", "Error: No such option '--form'."),
            (
                "list --format",
                "Error: Option '--format' requires an argument.",
            ),
            ("list -etf", "Error: Option '-f' requires an argument."),
            (
                "switchover --primary",
                "Error: Option '--primary' requires an argument.",
            ),
            (
                "list --extended=1",
                "Error: Option '--extended' does not take a value.",
            ),
        ] {
            assert_eq!(last(line), expected, "{line}");
        }
        assert_eq!(
            failure(Program::Patronictl, "restart --nonsense"),
            "Usage: patronictl restart [OPTIONS] CLUSTER_NAME [MEMBER_NAMES]...\nTry 'patronictl restart --help' for help.\n\nError: No such option '--nonsense'.\n"
        );
        assert_eq!(
            usage_text(Program::Patronictl, Some("flush"), "x")
                .lines()
                .take(2)
                .collect::<Vec<_>>(),
            [
                "Usage: patronictl flush [OPTIONS] CLUSTER_NAME [MEMBER_NAMES]...",
                "                        {restart|switchover}"
            ]
        );
    }

    #[test]
    fn options_and_arguments_mix_and_the_last_one_counts() {
        let parsed = options(
            Program::Patronictl,
            "-c a.yml -cb.yml restart demo --force pg0 -r replica pg1",
        );
        assert_eq!(
            parsed.global.get_one::<String>("config-file").unwrap(),
            "b.yml"
        );
        assert_eq!(parsed.options.cluster(), Some("demo"));
        assert_eq!(parsed.options.texts("MEMBER_NAMES"), ["pg0", "pg1"]);
        assert_eq!(parsed.options.role().unwrap(), Some("replica"));
        let many = options(Program::Patronictl, "edit-config -s a=-1 -s b=2 --set c=3");
        assert_eq!(many.options.texts("set"), ["a=-1", "b=2", "c=3"]);
    }

    #[test]
    fn configuration_options_may_follow_the_command_only_as_primacy() {
        let parsed = options(Program::Primacy, "list -c x.yml demo");
        assert_eq!(parsed.options.text("config-file"), Some("x.yml"));
        assert!(failure(Program::Patronictl, "list -c x.yml").contains("No such option '-c'."));
    }

    #[test]
    fn values_are_checked() {
        let of = |line: &str| options(Program::Patronictl, line).options;
        let text = |failure: Failure| failure.to_string();
        assert_eq!(
            text(of("reload demo -r bogus").role().unwrap_err()),
            "Invalid value for '--role' / '-r': 'bogus' is not one of 'leader', 'primary', 'standby-leader', 'replica', 'standby', 'any'."
        );
        assert_eq!(
            text(of("list -w x").watch().unwrap_err()),
            "Invalid value for '-w' / '--watch': 'x' is not a valid float."
        );
        assert_eq!(of("list -W").watch().unwrap(), Some(2.0));
        assert_eq!(of("list -W -w 5").watch().unwrap(), Some(5.0));
        assert_eq!(of("list -w 0").watch().unwrap(), None);
        assert!(of("list -f xml").format().is_err());
    }
}
