//! Completion scripts and manual pages, made from the grammar that command lines are read with.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::grammar::{self, PATRONI, PATRONICTL, PRIMACY, RAFT_CONTROLLER};

/// The script that completes the command line of `program` in `shell`.
pub(crate) fn completions(shell: Shell, program: &str, output: &mut dyn Write) -> io::Result<()> {
    let mut command = grammar::of(program).ok_or(io::ErrorKind::InvalidInput)?;
    // The generator panics when it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, program, &mut script);
    output.write_all(&script)
}

/// Writes a page for every name of the executable and for every command.
pub(crate) fn write_pages(directory: &Path) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    for name in grammar::names() {
        let mut command = grammar::of(name).ok_or(io::ErrorKind::InvalidInput)?;
        command.build();
        for subcommand in command.get_subcommands() {
            write_page(directory, subcommand.clone(), name)?;
        }
        write_page(directory, command, name)?;
    }
    Ok(())
}

fn write_page(directory: &Path, command: Command, program: &str) -> io::Result<()> {
    let is_agent = command.get_name() == "agent" || program == PATRONI;
    let is_witness = command.get_name() == "witness" || program == RAFT_CONTROLLER;
    let is_operators = [PRIMACY, PATRONICTL].contains(&command.get_name());
    let man = Man::new(command)
        .manual("Primacy")
        .source(format!("Primacy {}", env!("CARGO_PKG_VERSION")));
    let mut page = Vec::new();
    man.render(&mut page)?;
    let sections: &[Section] = match (is_agent, is_operators) {
        _ if is_witness => &WITNESS,
        (true, _) => &AGENT,
        (false, true) => &OPERATOR,
        (false, false) => &[],
    };
    for section in sections {
        page.write_all(section.roff().as_bytes())?;
    }
    std::fs::write(directory.join(man.get_filename()), page)
}

/// What a page says after its options: terms, and what each means.
struct Section {
    heading: &'static str,
    entries: &'static [(&'static str, &'static str)],
}

impl Section {
    fn roff(&self) -> String {
        let escaped = |text: &str| text.replace('-', "\\-");
        let mut text = format!(".SH \"{}\"\n", self.heading);
        for (term, meaning) in self.entries {
            let _ = write!(
                text,
                ".TP\n\\fB{}\\fR\n{}\n",
                escaped(term),
                escaped(meaning)
            );
        }
        text
    }
}

const WITNESS: [Section; 3] = [
    Section {
        heading: "CONFIGURATION",
        entries: &[(
            "raft",
            "The one section that it needs; log is read as well. self_addr is the address at which the agents reach it.",
        )],
    },
    Section {
        heading: "SIGNALS",
        entries: &[
            ("SIGTERM, SIGINT", "Leave the store, and end."),
            ("SIGHUP", "Read the log section again."),
        ],
    },
    Section {
        heading: "EXIT STATUS",
        entries: &[
            ("0", "Stopped in good order."),
            ("1", "It cannot go on; the last line says why."),
            (
                "5",
                "Stopped in good order, but the log could not be written.",
            ),
        ],
    },
];

const AGENT: [Section; 3] = [
    Section {
        heading: "SIGNALS",
        entries: &[
            (
                "SIGTERM, SIGINT",
                "Stop PostgreSQL, release the lock, and end.",
            ),
            ("SIGHUP", "Read the configuration again."),
            (
                "SIGKILL",
                "PostgreSQL runs on, until the next agent takes it over or the lease ends.",
            ),
        ],
    },
    Section {
        heading: "EXIT STATUS",
        entries: &[
            ("0", "Stopped in good order."),
            ("1", "It cannot go on; the last line of the log says why."),
            (
                "5",
                "Stopped in good order, but the log could not be written.",
            ),
        ],
    },
    Section {
        heading: "ENVIRONMENT",
        entries: &[
            (
                "PATRONI_CONFIGURATION",
                "The configuration as YAML, instead of a file.",
            ),
            (
                "PATRONI_NAME, PATRONI_SCOPE, PATRONI_ETCD3_HOSTS, ...",
                "One key each; they count more than the file.",
            ),
        ],
    },
];

const OPERATOR: [Section; 3] = [
    Section {
        heading: "EXIT STATUS",
        entries: &[
            (
                "0",
                "Done. Also when members refused: their answers are printed.",
            ),
            ("1", "Refused, or aborted at a question."),
            ("2", "The command line cannot be understood."),
        ],
    },
    Section {
        heading: "ENVIRONMENT",
        entries: &[
            (
                "PATRONICTL_CONFIG_FILE",
                "The configuration file, as --config-file.",
            ),
            ("DCS_URL", "The store, as --dcs-url."),
            ("EDITOR, PAGER", "The programs that edit-config starts."),
            (
                "LOGLEVEL, PATRONI_LOGLEVEL, PATRONI_LOG_LEVEL",
                "What is warned of: ERROR shows no warnings.",
            ),
            (
                "PATRONI_*",
                "The configuration's keys, as the agent takes them.",
            ),
        ],
    },
    Section {
        heading: "FILES",
        entries: &[(
            "~/.config/patroni/patronictl.yaml",
            "The configuration where none is named; below $XDG_CONFIG_HOME if that is set. An agent's configuration file will do.",
        )],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_completed_and_has_a_page() {
        let directory = tempfile::tempdir().unwrap();
        write_pages(directory.path()).unwrap();
        let page = |name: String| {
            std::fs::read_to_string(directory.path().join(name + ".1")).unwrap_or_default()
        };
        let mut missing = Vec::new();
        for program in grammar::names() {
            let command = grammar::of(program).unwrap();
            let names: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
            for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
                let mut script = Vec::new();
                completions(shell, program, &mut script).unwrap();
                let script = String::from_utf8(script).unwrap();
                missing.extend(
                    names
                        .iter()
                        .filter(|name| !script.contains(**name))
                        .map(|name| format!("{program} {name} in {shell}")),
                );
            }
            let pages = names
                .iter()
                .map(|name| format!("{program}-{name}"))
                .chain([program.to_owned()]);
            missing.extend(pages.filter(|name| !page(name.clone()).contains(".SH SYNOPSIS")));
        }
        let agent = page("patroni".into());
        assert!(missing.is_empty(), "{missing:?}");
        assert!(agent.contains(".SH \"SIGNALS\""), "{agent}");
    }
}
